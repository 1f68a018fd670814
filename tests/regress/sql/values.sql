-- The value forms of docs/format.md, section 2.2, for every built-in type. The session sets what would change them.
\pset null '(null)'
CREATE SCHEMA elsewhere;
CREATE TYPE mood AS ENUM ('sad', 'so "so"', 'happy');
CREATE TYPE elsewhere.point3 AS (x float8, y float8, label text);
CREATE TYPE nested AS (at timestamptz, p elsewhere.point3, list int[]);
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE DOMAIN more_positive AS positive CHECK (value > 1);
CREATE DOMAIN truth AS boolean;
CREATE DOMAIN amount AS numeric(20, 4);
CREATE DOMAIN label AS varchar(10);
CREATE DOMAIN list AS int[];
CREATE DOMAIN document AS jsonb;
CREATE DOMAIN place AS elsewhere.point3;
CREATE TYPE elsewhere.span AS RANGE (subtype = float8);

-- For each column of the latest entry: its name and its value as it stands in the line
CREATE FUNCTION recorded(of text) RETURNS TABLE (name text, value json) LANGUAGE sql AS $$
  SELECT e.key, e.value
    FROM (SELECT * FROM audit.log WHERE table_name = of ORDER BY id DESC LIMIT 1) l,
         json_each(l.new) WITH ORDINALITY AS e(key, value, n)
   ORDER BY n
$$;

SET TimeZone = 'Asia/Kolkata';
SET DateStyle = 'SQL, DMY';
SET IntervalStyle = 'sql_standard';
SET extra_float_digits = -15;
SET bytea_output = 'escape';
SET quote_all_identifiers = on;

-- Booleans and numbers
CREATE TABLE number (
  b1 bool, b2 bool, b3 truth, i2 int2, i4 int4, i8_min int8, i8_max int8, d1 positive, d2 more_positive,
  n1 numeric, n2 numeric, n3 numeric, n_scale numeric, n_small numeric, n_big numeric(20, 4), n_exp numeric, n_amount amount,
  n_nan numeric, n_inf numeric, n_ninf numeric,
  f4 float4, f4_tenth float4, f4_max float4, f8 float8, f8_tenth float8, f8_zero float8, f8_negative_zero float8,
  f8_min float8, f8_max float8, f8_nan float8, f8_inf float8, f8_ninf float8);
SELECT audit.protect('number');
INSERT INTO number VALUES (
  true, false, true, -32768, 2147483647, -9223372036854775808, 9223372036854775807, 5, 6,
  0, 1.00, -0.00, 1.10, 0.000000000000000000000000000001, 123456789012345.6789, 1e30, 12.5,
  'NaN', 'Infinity', '-Infinity',
  1234.56789, 0.1, 3.4028235e38, 1234.56789, 0.1, 0, '-0',
  '5e-324', '1.7976931348623157e308', 'NaN', 'Infinity', '-Infinity');
SELECT * FROM recorded('number');

-- A thousand digits, none lost
CREATE TABLE long_number (n numeric);
SELECT audit.protect('long_number');
INSERT INTO long_number VALUES ((repeat('1234567890', 60) || '.' || repeat('0987654321', 40))::numeric);
SELECT (new -> 'n')::text = repeat('1234567890', 60) || '.' || repeat('0987654321', 40) AS every_digit
  FROM audit.log WHERE table_name = 'long_number' AND op = 'INSERT';

-- Text
CREATE TABLE string (
  t text, t_empty text, t_null text, t_word_null text, t_quotes text, t_backslash text, t_control text, t_delete text,
  t_newline text, t_unicode text, t_separator text, t_slash text, v varchar(5), c char(5), d label, one "char", n name);
SELECT audit.protect('string');
INSERT INTO string VALUES (
  'plain', '', NULL, 'null', 'say "hi"', 'C:\temp', E'\x01\b\f\x1f', E'\x7f',
  E'a\r\nb\tc', 'Ünï😀', E'\u2028\u2029', '</script>', 'abc', 'abc', 'lab', 'x', 'name');
SELECT new FROM audit.log WHERE table_name = 'string' AND op = 'INSERT';

-- Binary
CREATE TABLE binary_value (e bytea, a bytea, bits bit(4), bits_varying varbit, id uuid);
SELECT audit.protect('binary_value');
INSERT INTO binary_value VALUES ('', '\x00ff5c27', B'1010', B'', '00112233-4455-6677-8899-AABBCCDDEEFF');
SELECT * FROM recorded('binary_value');

-- Dates and times
CREATE TABLE instant (
  d date, d_bc date, d_inf date, d_ninf date, t time, t_24 time, tz timetz, ts timestamp, ts_bc timestamp, ts_inf timestamp,
  tstz timestamptz, tstz_bc timestamptz, tstz_far timestamptz, tstz_inf timestamptz, tstz_ninf timestamptz,
  i interval, i_mixed interval, i_zero interval, i_negative interval);
SELECT audit.protect('instant');
INSERT INTO instant VALUES (
  '2024-02-03', '0044-03-15 BC', 'infinity', '-infinity', '01:02:03.456789', '24:00', '01:02:03+05:30',
  '2024-02-03 04:05:06.000001', '0044-03-15 BC', 'infinity',
  '2024-02-03 04:05:06+05:30', '0044-03-15 00:00+00 BC', '294276-12-31 23:59:59+00', 'infinity', '-infinity',
  '1 year 2 months 3 days 04:05:06.7', '1 year -2 days 00:00:01', '0', '-1 day -00:00:00.5');
SELECT * FROM recorded('instant');

-- json and jsonb: the text itself, on one line
CREATE TABLE document_value (
  j json, j_duplicate json, j_huge json, j_space json, j_null json, j_spaced_null json, j_string json, j_zero json,
  b jsonb, b_duplicate jsonb, b_huge jsonb, b_null jsonb, d document, sql_null json, path jsonpath);
SELECT audit.protect('document_value');
INSERT INTO document_value VALUES (
  '{"a": [1, 2.50, null], "b" : {"c": "d\u00e9"}}', '{"a": 1, "a": 2}', '1e400', E' {\n "a"\r\n:\t1 } ', 'null', ' null ', '"x\ny"', '"\u0000"',
  '{"b": 1, "a": 1.00}', '{"a": 1, "a": 2}', '1e400', 'null', '{"k": true}', NULL, '$.a[*] ? (@ > 1)');
SELECT new FROM audit.log WHERE table_name = 'document_value' AND op = 'INSERT';
-- A row that holds a \u0000 can still be changed and removed.
UPDATE document_value SET j = '1';
DELETE FROM document_value;
SELECT op, left(old::text, 70) AS old, left(new::text, 20) AS new FROM audit.log
 WHERE table_name = 'document_value' AND op IN ('UPDATE', 'DELETE') ORDER BY id;

-- Deep nesting is kept as it is.
CREATE TABLE deep (id int PRIMARY KEY, j json);
SELECT audit.protect('deep');
INSERT INTO deep VALUES (1, (repeat('[', 1000) || repeat(']', 1000))::json);
SELECT length(new::text) FROM audit.log WHERE table_name = 'deep' AND op = 'INSERT';

-- Arrays, composites, enums, domains over them, ranges
CREATE TABLE compound (
  a int[], a_empty int[], a_null text[], a_quotes text[], a_two int[][], a_bounds int[], a_times timestamptz[], a_floats float8[],
  a_bytes bytea[], e mood, a_enum mood[], p elsewhere.point3, n nested, a_composite elsewhere.point3[],
  d_list list, d_place place, a_domain positive[],
  r int4range, r_empty int8range, r_unbounded numrange, r_times tstzrange, r_date daterange, r_own elsewhere.span,
  m int4multirange, m_empty datemultirange, m_times tstzmultirange);
SELECT audit.protect('compound');
INSERT INTO compound VALUES (
  '{1,2,NULL}', '{}', '{NULL,"NULL",""}', ARRAY['a,b', 'c"d', 'e\f', ' g '], '{{1,2},{3,4}}', '[0:1]={7,8}',
  ARRAY['2024-02-03 04:05:06+05:30'::timestamptz], ARRAY[0.1::float8, 'NaN', '-0'],
  ARRAY['\x00ff'::bytea], 'so "so"', '{sad,happy}', (0.1, NULL, 'a "b" \c'), ('2024-02-03 04:05:06+05:30', (1, 2, ''), '{1}'),
  ARRAY[(1, 2, 'x')::elsewhere.point3, NULL],
  '{4,5}', (3, 4, 'place'), '{1,2}',
  '[1,5)', 'empty', '(,)', '["2024-02-03 04:05:06+05:30",)', '[2024-02-03,2024-02-04]', '[0.1,0.2]',
  '{[1,3),[5,7)}', '{}', '{["2024-02-03 04:05:06+05:30",)}');
SELECT * FROM recorded('compound');

-- Names of database objects: with their schema unless it is pg_catalog, whatever the search_path
SET search_path = elsewhere, public;
CREATE TABLE object_name (
  c_own regclass, c_system regclass, p regproc, pp regprocedure, o regoper, oo regoperator, t regtype, t_own regtype, r regrole,
  n regnamespace, cfg regconfig, dict regdictionary, coll regcollation, nothing regclass);
SELECT audit.protect('object_name');
INSERT INTO object_name VALUES (
  'public.deep', 'pg_class', 'pg_sleep', 'public.recorded(text)', 'pg_catalog.||/', '+(int,int)', 'int4[]', 'elsewhere.point3', 'postgres',
  'elsewhere', 'english', 'simple', '"C"', 0);
SELECT * FROM public.recorded('object_name');
RESET search_path;

-- Network, geometry, text search, money and the rest
CREATE TABLE other (
  i inet, i_mask inet, i6 inet, c cidr, m macaddr, m8 macaddr8, pt point, ln line, ls lseg, bx box, pa path, pa_open path, po polygon, ci circle,
  v tsvector, q tsquery, mo money, mo_negative money, o oid, lsn pg_lsn, x xid, x8 xid8, ci_d cid, ti tid, sn pg_snapshot, ov oidvector,
  iv int2vector, acl aclitem, rc refcursor);
SELECT audit.protect('other');
INSERT INTO other VALUES (
  '192.168.1.1', '192.168.1.1/24', '::1', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
  '(0.1,1e300)', '{1,2,3}', '[(0,0),(1,1)]', '(1,1),(0,0)', '((0,0),(1,1))', '[(0,0),(1,1)]', '((0,0),(1,1),(1,0))', '<(0,0),0.3>',
  'a:1A b:2 ''it''''s''', 'a & !b', 1234.5, '-0.01', 4294967295, 'FFFFFFFF/1', '42', '18446744073709551615', '7', '(3,4)', '10:20:10,14,15', '1 2',
  '3 4', 'postgres=r/postgres', 'cursor');
SELECT * FROM recorded('other');

-- All of it verifies, in this session and in one with other settings.
SELECT what, ok, problems FROM audit.verify();
SET TimeZone = 'UTC';
SET DateStyle = 'German';
SET IntervalStyle = 'iso_8601';
SET extra_float_digits = 3;
SET bytea_output = 'hex';
SELECT what, ok, problems FROM audit.verify();
SELECT * FROM audit.findings();
-- What the session had set is still set.
SHOW DateStyle;
SHOW IntervalStyle;
SHOW extra_float_digits;

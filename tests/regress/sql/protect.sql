-- Tables put under protection and taken out of it, and what is refused.
\set VERBOSITY default
\set SHOW_CONTEXT never
\pset null '(null)'

CREATE VIEW state AS
  SELECT relation, kind, images, exclude, baseline, row_trigger, truncate_trigger, entries, last_entry IS NOT NULL AS written
    FROM audit.protected ORDER BY relation::text COLLATE "C";
CREATE VIEW log AS
  SELECT op, table_schema || '.' || table_name AS relation, key, old, regexp_replace(new::text, '"next_xid":"[0-9]+"', '"next_xid":"..."') AS new FROM audit.log ORDER BY id;

-- An ordinary table with rows in it
CREATE TABLE account (id int PRIMARY KEY, owner text, balance numeric(12, 2));
INSERT INTO account VALUES (1, 'ann', 10), (2, 'bob', 20.50);
SELECT audit.protect('account');
TABLE state;
TABLE log;
\d account
SELECT p.protect_id = l.id AS names_its_entry
  FROM audit.protected p JOIN audit.log l ON l.table_oid = p.relation AND l.op = 'PROTECT';

-- Once is enough.
SELECT audit.protect('account');
\echo :LAST_ERROR_SQLSTATE

-- Without the rows that are there already
CREATE TABLE journal (n int PRIMARY KEY, body text);
INSERT INTO journal VALUES (1, 'before');
SELECT audit.protect('journal', baseline => false);
INSERT INTO journal VALUES (2, 'after');
SELECT * FROM log WHERE relation = 'public.journal';
SELECT what, ok, problems FROM audit.verify();

-- Whole rows, and columns left out
CREATE TABLE wide (id int PRIMARY KEY, a text, b text, secret text);
SELECT audit.protect('wide', exclude => '{secret}', images => 'full');
INSERT INTO wide VALUES (1, 'a', 'b', 'hidden');
UPDATE wide SET a = 'A';
SELECT * FROM log WHERE relation = 'public.wide';
TABLE state;

-- Partitioned tables count each partition.
CREATE TABLE measure (id int, day date, v int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE measure_2024 PARTITION OF measure FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE measure_2025 PARTITION OF measure FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY LIST (day);
CREATE TABLE measure_2025_rest PARTITION OF measure_2025 DEFAULT;
INSERT INTO measure VALUES (1, '2024-02-03', 1), (2, '2025-02-03', 2);
SELECT audit.protect('measure');
SELECT * FROM state WHERE relation::text LIKE 'measure%';
SELECT * FROM log WHERE relation LIKE 'public.measure%';

-- A partition alone
CREATE TABLE part (id int PRIMARY KEY) PARTITION BY LIST (id);
CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
CREATE TABLE part_2 PARTITION OF part FOR VALUES IN (2);
SELECT audit.protect('part_1');
INSERT INTO part VALUES (1), (2);
SELECT * FROM log WHERE relation LIKE 'public.part%';
SELECT audit.protect('part');
SELECT * FROM state WHERE relation::text LIKE 'part%';

-- A table with inheritance children protects them too.
CREATE TABLE city (id int PRIMARY KEY, name text);
CREATE TABLE capital (country text) INHERITS (city);
INSERT INTO capital VALUES (1, 'Rome', 'Italy');
SELECT audit.protect('city');
SELECT * FROM log WHERE relation IN ('public.city', 'public.capital');

-- Out of protection: a reason is asked for, and recorded.
SELECT audit.unprotect('account', '');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.unprotect('account', '   ');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.unprotect('account', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT audit.unprotect('account', 'moved to "another" system');
\d account
INSERT INTO account VALUES (3, 'cy', 1);
SELECT * FROM log WHERE relation = 'public.account';
SELECT audit.unprotect('account', 'again');
\echo :LAST_ERROR_SQLSTATE

-- And back: the rows of now are the new start.
SELECT audit.protect('account');
SELECT op, key FROM log WHERE relation = 'public.account';

-- Other columns, another type, another key: the log begins anew with the table.
ALTER TABLE account ADD COLUMN open boolean NOT NULL DEFAULT true;
ALTER TABLE account ALTER balance TYPE numeric(12, 3), DROP CONSTRAINT account_pkey;
ALTER TABLE account ADD CHECK (id > 0);
SELECT op, key, new FROM log WHERE relation = 'public.account' OFFSET 8;

-- Partitioned tables leave together.
SELECT audit.unprotect('measure', 'archived');
SELECT * FROM state WHERE relation::text LIKE 'measure%';

-- All of this was honest.
SELECT what, ok, problems FROM audit.verify();

-- Refused: what is not an ordinary table
CREATE VIEW account_view AS TABLE account;
SELECT audit.protect('account_view');
\echo :LAST_ERROR_SQLSTATE
CREATE MATERIALIZED VIEW account_copy AS TABLE account;
SELECT audit.protect('account_copy');
\echo :LAST_ERROR_SQLSTATE
CREATE SEQUENCE number;
SELECT audit.protect('number');
\echo :LAST_ERROR_SQLSTATE
CREATE INDEX account_owner_idx ON account (owner);
SELECT audit.protect('account_owner_idx');
\echo :LAST_ERROR_SQLSTATE
CREATE TYPE pair AS (a int, b int);
SELECT audit.protect('pair');
\echo :LAST_ERROR_SQLSTATE
-- Only the code: the message names the temporary schema, which is another each time.
\set VERBOSITY sqlstate
CREATE TEMPORARY TABLE scratch (id int);
SELECT audit.protect('scratch');
\set VERBOSITY default
CREATE UNLOGGED TABLE volatile (id int);
SELECT audit.protect('volatile');
\echo :LAST_ERROR_SQLSTATE
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE far (id int) SERVER nowhere;
SELECT audit.protect('far');
\echo :LAST_ERROR_SQLSTATE
CREATE TABLE mixed (id int) PARTITION BY LIST (id);
CREATE FOREIGN TABLE mixed_far PARTITION OF mixed FOR VALUES IN (1) SERVER nowhere;
SELECT audit.protect('mixed');
\echo :LAST_ERROR_SQLSTATE

-- Refused: what must not be touched
SELECT audit.protect('pg_catalog.pg_class');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect('information_schema.sql_features');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect('audit.log');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect('audit.registry');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.unprotect('audit.log', 'no');
\echo :LAST_ERROR_SQLSTATE

-- Refused: arguments that cannot be meant
CREATE TABLE plain (id int PRIMARY KEY, "Mixed Case" text, gone text);
ALTER TABLE plain DROP COLUMN gone;
SELECT audit.protect('plain', exclude => '{nothing}');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect('plain', exclude => '{gone}');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect('plain', exclude => '{mixed case}');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect('plain', exclude => '{ctid}');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect('plain', exclude => '{id}');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect('plain', exclude => '{NULL}');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect('plain', exclude => NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect('plain', images => 'some');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect('plain', images => NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect(0);
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect(4000000000);
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect('no_such_table');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect('plain', exclude => '{Mixed Case,Mixed Case}');
SELECT exclude FROM audit.protected WHERE relation = 'plain'::regclass;

-- A trigger of ours that is there already, but not from us
CREATE TABLE taken (id int PRIMARY KEY);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER audit_row AFTER INSERT ON taken FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT audit.protect('taken');
\echo :LAST_ERROR_SQLSTATE

-- Who may not
CREATE ROLE regress_audit_owner;
GRANT CREATE ON SCHEMA public TO regress_audit_owner;
SET ROLE regress_audit_owner;
CREATE TABLE own (id int PRIMARY KEY);
SELECT audit.protect('own');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
GRANT USAGE ON SCHEMA audit TO regress_audit_owner;
GRANT EXECUTE ON FUNCTION audit.protect TO regress_audit_owner;
GRANT EXECUTE ON FUNCTION audit.unprotect TO regress_audit_owner;
SET ROLE regress_audit_owner;
SELECT audit.protect('plain');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect('taken');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.protect('own');
INSERT INTO own VALUES (1);
SELECT audit.unprotect('account', 'not mine');
\echo :LAST_ERROR_SQLSTATE
SELECT audit.unprotect('own', 'my own');
RESET ROLE;
SELECT * FROM log WHERE relation = 'public.own';
DROP OWNED BY regress_audit_owner;
DROP ROLE regress_audit_owner;

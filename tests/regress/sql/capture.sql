-- What each operation leaves in the log.
\pset null '(null)'
CREATE VIEW log AS
  SELECT op, table_name AS relation, key, old, new FROM audit.log WHERE op <> 'PROTECT' ORDER BY id;

CREATE TABLE item (id int PRIMARY KEY, name text, price numeric(10, 2), tags text[], hidden text);
SELECT audit.protect('item', exclude => '{hidden}');

INSERT INTO item VALUES (1, 'nail', 0.05, '{steel,"a b"}', 'x'), (2, 'saw', 25, NULL, NULL);
UPDATE item SET price = 0.06 WHERE id = 1;
UPDATE item SET price = 0.060, name = 'nail' WHERE id = 1;
UPDATE item SET hidden = 'y' WHERE id = 1;
UPDATE item SET hidden = 'z', tags = array_append(tags, 'new') WHERE id = 1;
UPDATE item SET id = 10, name = 'rail' WHERE id = 1;
UPDATE item SET name = NULL WHERE id = 2;
UPDATE item SET name = '' WHERE id = 2;
DELETE FROM item WHERE id = 2;
COPY item FROM stdin;
3	from copy	1.50	{}	\N
4	"quotes" and \\ and \t tab	-1	{NULL,"NULL"}	\N
\.
INSERT INTO item (id, name) VALUES (3, 'again'), (5, 'first') ON CONFLICT (id) DO UPDATE SET name = excluded.name;
INSERT INTO item (id, name) VALUES (3, 'again') ON CONFLICT DO NOTHING;
WITH gone AS (DELETE FROM item WHERE id = 4 RETURNING *) INSERT INTO item SELECT id + 100, name FROM gone;
TABLE log;
TRUNCATE item;
SELECT op, relation, key, old, new FROM log WHERE op = 'TRUNCATE';

-- An UPDATE that changes nothing records nothing, unless asked.
INSERT INTO item (id, name) VALUES (1, 'same');
SELECT count(*) AS before FROM log \gset
UPDATE item SET name = name;
SELECT count(*) - :before AS recorded FROM log;
SET audit.record_unchanged = on;
UPDATE item SET name = name;
RESET audit.record_unchanged;
SELECT count(*) - :before AS recorded FROM log;
SELECT * FROM log OFFSET :before;

-- No key: whole rows, before and after
CREATE TABLE keyless (a int, b text);
SELECT audit.protect('keyless');
INSERT INTO keyless VALUES (1, 'x'), (1, 'x');
UPDATE keyless SET b = 'y' WHERE ctid = (SELECT min(ctid) FROM keyless);
DELETE FROM keyless WHERE b = 'x';
SELECT * FROM log WHERE relation = 'keyless';

-- A key of two columns, not in the order of the table
CREATE TABLE pair (b int, v text, a int, PRIMARY KEY (a, b));
SELECT audit.protect('pair');
INSERT INTO pair VALUES (2, 'v', 1);
UPDATE pair SET v = 'w';
UPDATE pair SET b = 3;
DELETE FROM pair;
SELECT * FROM log WHERE relation = 'pair';

-- Whole rows where asked
CREATE TABLE whole (id int PRIMARY KEY, a int, b int);
SELECT audit.protect('whole', images => 'full');
INSERT INTO whole VALUES (1, 1, 1);
UPDATE whole SET a = 2;
SELECT * FROM log WHERE relation = 'whole';

-- Who: the one who logged in, the one he says he is, the one he acts as
CREATE ROLE regress_audit_writer;
GRANT INSERT, SELECT ON whole TO regress_audit_writer;
SET application_name = 'the shop';
SET ROLE regress_audit_writer;
INSERT INTO whole VALUES (2);
RESET ROLE;
SET SESSION AUTHORIZATION regress_audit_writer;
INSERT INTO whole VALUES (3);
RESET SESSION AUTHORIZATION;
SELECT key, login_name, session_name, user_name, application_name, client_addr, context
  FROM audit.log WHERE table_name = 'whole' AND op = 'INSERT' ORDER BY id;

-- And why, as the service says
SET audit.context = '{"user": "ann", "request": 17}';
INSERT INTO whole VALUES (4);
RESET audit.context;
INSERT INTO whole VALUES (5);
BEGIN;
SELECT audit.set_context('{"ticket": "A-1"}');
INSERT INTO whole VALUES (6);
COMMIT;
INSERT INTO whole VALUES (7);
SELECT key, context FROM audit.log WHERE table_name = 'whole' AND op = 'INSERT' ORDER BY id OFFSET 3;
\set VERBOSITY default
SET audit.context = 'no json';
SET audit.context = '[1]';
SELECT audit.set_context('[1]');
SELECT audit.set_context(NULL);

-- An entry that a reader can check by hand
SELECT every(encode(sha256(convert_to(audit.line(chain, seq), 'UTF8')), 'hex') = encode(hash, 'hex')) AS hash_fits,
       every(audit.line(chain, seq)::json ->> 'prev' = encode(prev, 'hex')) AS prev_is_in_the_line,
       every((audit.line(chain, seq)::json ->> 'at')::timestamptz = at) AS time_is_in_the_line,
       every((audit.line(chain, seq)::json -> 'new')::text IS NOT DISTINCT FROM new::text) AS new_is_in_the_line
  FROM audit.log;
SELECT audit.line(0, 1) IS NULL AS no_such_chain, audit.line(chain, 1000000) IS NULL AS no_such_entry
  FROM audit.log LIMIT 1;
SELECT what, ok, problems FROM audit.verify();
SELECT * FROM audit.findings();

REVOKE ALL ON whole FROM regress_audit_writer;
DROP ROLE regress_audit_writer;

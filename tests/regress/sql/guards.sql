-- Nobody writes the tables of the schema: not by privilege, not as superuser, not in any replication role.
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE TABLE item (id int PRIMARY KEY, v text);
SELECT audit.protect('item');
INSERT INTO item VALUES (1, 'a');
SELECT count(*) AS entries FROM audit.log \gset

-- As superuser
UPDATE audit.log SET op = op;
\echo :LAST_ERROR_SQLSTATE
UPDATE audit.log SET op = op WHERE false;
\echo :LAST_ERROR_SQLSTATE
DELETE FROM audit.log;
\echo :LAST_ERROR_SQLSTATE
DELETE FROM audit.log WHERE false;
\echo :LAST_ERROR_SQLSTATE
TRUNCATE audit.log;
\echo :LAST_ERROR_SQLSTATE
INSERT INTO audit.log SELECT * FROM audit.log;
\echo :LAST_ERROR_SQLSTATE
INSERT INTO audit.log (id) VALUES (1);
\echo :LAST_ERROR_SQLSTATE
COPY audit.log (id) FROM stdin;
1
\.
\echo :LAST_ERROR_SQLSTATE
UPDATE audit.registry SET images = 'full';
\echo :LAST_ERROR_SQLSTATE
DELETE FROM audit.registry;
\echo :LAST_ERROR_SQLSTATE
TRUNCATE audit.registry;
\echo :LAST_ERROR_SQLSTATE
INSERT INTO audit.registry SELECT * FROM audit.registry;
\echo :LAST_ERROR_SQLSTATE
UPDATE audit.ledger SET id = id;
\echo :LAST_ERROR_SQLSTATE
DELETE FROM audit.ledger;
\echo :LAST_ERROR_SQLSTATE
TRUNCATE audit.ledger;
\echo :LAST_ERROR_SQLSTATE
INSERT INTO audit.ledger SELECT * FROM audit.ledger;
\echo :LAST_ERROR_SQLSTATE
DELETE FROM audit.incarnation;
\echo :LAST_ERROR_SQLSTATE
TRUNCATE audit.incarnation;
\echo :LAST_ERROR_SQLSTATE

-- As a replica, where ordinary triggers do not fire
SET session_replication_role = replica;
UPDATE audit.log SET op = op;
\echo :LAST_ERROR_SQLSTATE
DELETE FROM audit.log;
\echo :LAST_ERROR_SQLSTATE
TRUNCATE audit.log;
\echo :LAST_ERROR_SQLSTATE
INSERT INTO audit.log SELECT * FROM audit.log;
\echo :LAST_ERROR_SQLSTATE
DELETE FROM audit.registry;
\echo :LAST_ERROR_SQLSTATE
INSERT INTO item VALUES (2, 'b');
RESET session_replication_role;
SET session_replication_role = local;
DELETE FROM audit.log;
\echo :LAST_ERROR_SQLSTATE
RESET session_replication_role;

-- Through a view, a part of a query, a function
CREATE VIEW log_view AS TABLE audit.log;
DELETE FROM log_view;
\echo :LAST_ERROR_SQLSTATE
WITH gone AS (DELETE FROM audit.log RETURNING *) SELECT count(*) FROM gone;
\echo :LAST_ERROR_SQLSTATE
DO 'BEGIN UPDATE audit.log SET at = now(); END';
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM (SELECT FROM audit.log FOR UPDATE) l;

-- The trigger functions, called wrongly
SELECT audit.audit_row();
\echo :LAST_ERROR_SQLSTATE
SELECT audit.audit_truncate();
\echo :LAST_ERROR_SQLSTATE
CREATE TABLE other (id int PRIMARY KEY, v text);
CREATE TRIGGER wrong AFTER INSERT OR UPDATE OR DELETE ON other FOR EACH ROW EXECUTE FUNCTION audit.audit_row();
INSERT INTO other VALUES (1);
\echo :LAST_ERROR_SQLSTATE
DROP TRIGGER wrong ON other;
CREATE TRIGGER wrong AFTER TRUNCATE ON other FOR EACH STATEMENT EXECUTE FUNCTION audit.audit_truncate();
TRUNCATE other;
\echo :LAST_ERROR_SQLSTATE
DROP TRIGGER wrong ON other;

-- On a table that is protected, in another form
CREATE TRIGGER wrong BEFORE INSERT ON item FOR EACH ROW EXECUTE FUNCTION audit.audit_row();
INSERT INTO item VALUES (3);
\echo :LAST_ERROR_SQLSTATE
DROP TRIGGER wrong ON item;
CREATE TRIGGER wrong AFTER INSERT ON item FOR EACH STATEMENT EXECUTE FUNCTION audit.audit_row();
INSERT INTO item VALUES (3);
\echo :LAST_ERROR_SQLSTATE
DROP TRIGGER wrong ON item;
CREATE TRIGGER wrong AFTER TRUNCATE ON item FOR EACH STATEMENT EXECUTE FUNCTION audit.audit_row();
TRUNCATE item;
\echo :LAST_ERROR_SQLSTATE
DROP TRIGGER wrong ON item;
CREATE TRIGGER wrong AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION audit.audit_truncate();
INSERT INTO item VALUES (3);
\echo :LAST_ERROR_SQLSTATE
DROP TRIGGER wrong ON item;
CREATE TRIGGER wrong BEFORE TRUNCATE ON item FOR EACH STATEMENT EXECUTE FUNCTION audit.audit_truncate();
TRUNCATE item;
\echo :LAST_ERROR_SQLSTATE
DROP TRIGGER wrong ON item;
CREATE TRIGGER wrong AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION audit.audit_row('argument');
INSERT INTO item VALUES (3);
\echo :LAST_ERROR_SQLSTATE
DROP TRIGGER wrong ON item;
-- A second one would record every change twice.
CREATE TRIGGER wrong AFTER INSERT OR UPDATE OR DELETE ON item FOR EACH ROW EXECUTE FUNCTION audit.audit_row();
INSERT INTO item VALUES (3);
\echo :LAST_ERROR_SQLSTATE
DROP TRIGGER wrong ON item;
CREATE VIEW item_view AS TABLE item;
CREATE TRIGGER wrong INSTEAD OF INSERT ON item_view FOR EACH ROW EXECUTE FUNCTION audit.audit_row();
INSERT INTO item_view VALUES (3);
\echo :LAST_ERROR_SQLSTATE
DROP VIEW item_view;

-- Arguments that cannot be meant
SELECT * FROM audit.verify(checkpoint => 'some text');
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM audit.findings(since_seal => 1);
\echo :LAST_ERROR_SQLSTATE

-- Through all of this, only the honest change was recorded, and nothing is broken.
SELECT op, key, new FROM audit.log WHERE op <> 'DDL' ORDER BY id OFFSET :entries;
SELECT what, ok, problems FROM audit.verify();
SELECT * FROM audit.findings();

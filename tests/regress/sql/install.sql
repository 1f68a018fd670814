-- Installing and removing.
\set VERBOSITY default
\set SHOW_CONTEXT never
DROP EXTENSION audit;
-- A schema of that name, perhaps prepared by somebody else, is not taken over.
CREATE SCHEMA audit;
CREATE EXTENSION audit;
\echo :LAST_ERROR_SQLSTATE
DROP SCHEMA audit;
CREATE EXTENSION audit SCHEMA public;
\echo :LAST_ERROR_SQLSTATE
-- Only superusers
CREATE ROLE regress_audit_owner;
DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO regress_audit_owner', current_database()); END $$;
SET ROLE regress_audit_owner;
CREATE EXTENSION audit;
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
DROP OWNED BY regress_audit_owner;
DROP ROLE regress_audit_owner;
CREATE EXTENSION audit;
SELECT what, ok, checked, problems, detail FROM audit.verify();
SELECT entries, chains, protected, last_entry FROM audit.status();

-- A user's table does not take the extension with it, nor the extension the table.
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE item (id int PRIMARY KEY, m mood);
SELECT audit.protect('item');
INSERT INTO item VALUES (1, 'sad');
DROP TYPE mood CASCADE;
SELECT count(*) AS extensions FROM pg_extension WHERE extname = 'audit';
-- Triggers on users' tables stand in the way of dropping the extension unless asked for.
DROP EXTENSION audit;
\set VERBOSITY terse
DROP EXTENSION audit CASCADE;
\set VERBOSITY default
INSERT INTO item VALUES (2);
SELECT count(*) FROM item;

-- Default privileges do not open the log.
CREATE ROLE regress_audit_reader;
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO regress_audit_reader;
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO regress_audit_reader;
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO regress_audit_reader;
ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO regress_audit_reader;
CREATE EXTENSION audit;
SELECT c.oid::regclass AS open_relation, privilege_type FROM pg_class c, aclexplode(relacl)
 WHERE relnamespace = 'audit'::regnamespace AND grantee = 'regress_audit_reader'::regrole ORDER BY 1, 2;
SELECT p.oid::regprocedure AS open_function FROM pg_proc p, aclexplode(proacl)
 WHERE pronamespace = 'audit'::regnamespace AND grantee = 'regress_audit_reader'::regrole
   AND proname NOT IN ('audit_row', 'audit_truncate') ORDER BY 1;
SELECT nspname AS open_schema FROM pg_namespace, aclexplode(nspacl)
 WHERE nspname = 'audit' AND grantee = 'regress_audit_reader'::regrole;
DROP OWNED BY regress_audit_reader;
DROP ROLE regress_audit_reader;

-- No schema of somebody else takes the extension with it.
DROP EXTENSION audit;
CREATE SCHEMA theirs;
SET search_path = theirs, public;
CREATE EXTENSION audit;
DROP SCHEMA theirs CASCADE;
DROP SCHEMA public CASCADE;
RESET search_path;
SELECT count(*) AS extensions FROM pg_extension WHERE extname = 'audit';
CREATE SCHEMA public;

-- Another encoding has other lines.
CREATE DATABASE regress_audit_latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0;
\connect regress_audit_latin1
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE EXTENSION audit;
\echo :LAST_ERROR_SQLSTATE
\connect postgres
DROP DATABASE regress_audit_latin1;

-- What records changes.

-- EXECUTE stays with PUBLIC: whoever creates or attaches a partition has the trigger of the parent cloned with his own rights.
-- The functions refuse every call that audit.protect() did not set up.
CREATE FUNCTION audit.audit_row() RETURNS trigger
  LANGUAGE c VOLATILE PARALLEL UNSAFE
  AS 'MODULE_PATHNAME', 'audit_row';
COMMENT ON FUNCTION audit.audit_row() IS 'Records a row change of a protected table.';

CREATE FUNCTION audit.audit_truncate() RETURNS trigger
  LANGUAGE c VOLATILE PARALLEL UNSAFE
  AS 'MODULE_PATHNAME', 'audit_truncate';
COMMENT ON FUNCTION audit.audit_truncate() IS 'Records TRUNCATE of a protected table.';

-- TRUNCATE triggers are not cloned to partitions, and children by INHERITS get no triggers at all: both are seen to here, as is the recording of DDL.
CREATE FUNCTION audit.audit_cover() RETURNS event_trigger
  LANGUAGE c VOLATILE PARALLEL UNSAFE
  AS 'MODULE_PATHNAME', 'audit_cover';
COMMENT ON FUNCTION audit.audit_cover() IS 'Records DDL on protected tables, and protects their new partitions and children.';
REVOKE ALL ON FUNCTION audit.audit_cover() FROM PUBLIC;

CREATE EVENT TRIGGER audit_ddl ON ddl_command_end EXECUTE FUNCTION audit.audit_cover();
ALTER EVENT TRIGGER audit_ddl ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER audit_ddl IS 'Records DDL on protected tables, and protects their new partitions and children.';

-- A protected table can become a partition only without its own row trigger; PostgreSQL gives it that of the table above.
CREATE EVENT TRIGGER audit_ddl_attach ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION audit.audit_cover();
ALTER EVENT TRIGGER audit_ddl_attach ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER audit_ddl_attach IS 'Lets a protected table become a partition of another.';

-- What was dropped is known only here; the entry is made at the end of the command.
CREATE EVENT TRIGGER audit_ddl_drop ON sql_drop EXECUTE FUNCTION audit.audit_cover();
ALTER EVENT TRIGGER audit_ddl_drop ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER audit_ddl_drop IS 'Notes what is dropped of protected tables.';

-- Which tables are written anew is known only here; their new baseline is taken at the end of the command.
CREATE EVENT TRIGGER audit_ddl_rewrite ON table_rewrite EXECUTE FUNCTION audit.audit_cover();
ALTER EVENT TRIGGER audit_ddl_rewrite ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER audit_ddl_rewrite IS 'Notes which protected tables are written anew.';

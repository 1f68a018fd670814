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

-- TRUNCATE triggers are not cloned to partitions, and children by INHERITS get no triggers at all: both are seen to here.
CREATE FUNCTION audit.audit_cover() RETURNS event_trigger
  LANGUAGE c VOLATILE PARALLEL UNSAFE
  AS 'MODULE_PATHNAME', 'audit_cover';
COMMENT ON FUNCTION audit.audit_cover() IS 'Protects new partitions and children of protected tables.';
REVOKE ALL ON FUNCTION audit.audit_cover() FROM PUBLIC;

CREATE EVENT TRIGGER audit_ddl ON ddl_command_end EXECUTE FUNCTION audit.audit_cover();
ALTER EVENT TRIGGER audit_ddl ENABLE ALWAYS;
COMMENT ON EVENT TRIGGER audit_ddl IS 'Protects new partitions and children of protected tables.';

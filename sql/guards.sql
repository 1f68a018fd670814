-- The guards: nobody changes the tables through SQL, superusers included, in no replication role.
-- The extension itself writes below SQL and never meets them. Rows of a dump are let in as long as the database has not written itself.

CREATE FUNCTION audit.audit_guard() RETURNS trigger
  LANGUAGE c VOLATILE PARALLEL UNSAFE
  AS 'MODULE_PATHNAME', 'audit_guard';
COMMENT ON FUNCTION audit.audit_guard() IS 'Refuses changes of the tables of the extension.';
REVOKE ALL ON FUNCTION audit.audit_guard() FROM PUBLIC;

CREATE TRIGGER audit_guard_row BEFORE INSERT OR UPDATE OR DELETE ON audit.log
  FOR EACH ROW EXECUTE FUNCTION audit.audit_guard();
ALTER TABLE audit.log ENABLE ALWAYS TRIGGER audit_guard_row;
-- Statements that touch no row are refused as well, and TRUNCATE has no rows.
CREATE TRIGGER audit_guard_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.log
  FOR EACH STATEMENT EXECUTE FUNCTION audit.audit_guard();
ALTER TABLE audit.log ENABLE ALWAYS TRIGGER audit_guard_statement;

CREATE TRIGGER audit_guard_row BEFORE INSERT OR UPDATE OR DELETE ON audit.ledger
  FOR EACH ROW EXECUTE FUNCTION audit.audit_guard();
ALTER TABLE audit.ledger ENABLE ALWAYS TRIGGER audit_guard_row;
-- Statements that touch no row are refused as well, and TRUNCATE has no rows.
CREATE TRIGGER audit_guard_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.ledger
  FOR EACH STATEMENT EXECUTE FUNCTION audit.audit_guard();
ALTER TABLE audit.ledger ENABLE ALWAYS TRIGGER audit_guard_statement;

CREATE TRIGGER audit_guard_row BEFORE INSERT OR UPDATE OR DELETE ON audit.incarnation
  FOR EACH ROW EXECUTE FUNCTION audit.audit_guard();
ALTER TABLE audit.incarnation ENABLE ALWAYS TRIGGER audit_guard_row;
-- Statements that touch no row are refused as well, and TRUNCATE has no rows.
CREATE TRIGGER audit_guard_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.incarnation
  FOR EACH STATEMENT EXECUTE FUNCTION audit.audit_guard();
ALTER TABLE audit.incarnation ENABLE ALWAYS TRIGGER audit_guard_statement;

CREATE TRIGGER audit_guard_row BEFORE INSERT OR UPDATE OR DELETE ON audit.registry
  FOR EACH ROW EXECUTE FUNCTION audit.audit_guard();
ALTER TABLE audit.registry ENABLE ALWAYS TRIGGER audit_guard_row;
-- Statements that touch no row are refused as well, and TRUNCATE has no rows.
CREATE TRIGGER audit_guard_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.registry
  FOR EACH STATEMENT EXECUTE FUNCTION audit.audit_guard();
ALTER TABLE audit.registry ENABLE ALWAYS TRIGGER audit_guard_statement;

CREATE TRIGGER audit_guard_row BEFORE INSERT OR UPDATE OR DELETE ON audit.seal
  FOR EACH ROW EXECUTE FUNCTION audit.audit_guard();
ALTER TABLE audit.seal ENABLE ALWAYS TRIGGER audit_guard_row;
-- Statements that touch no row are refused as well, and TRUNCATE has no rows.
CREATE TRIGGER audit_guard_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.seal
  FOR EACH STATEMENT EXECUTE FUNCTION audit.audit_guard();
ALTER TABLE audit.seal ENABLE ALWAYS TRIGGER audit_guard_statement;

CREATE TRIGGER audit_guard_row BEFORE INSERT OR UPDATE OR DELETE ON audit.seal_range
  FOR EACH ROW EXECUTE FUNCTION audit.audit_guard();
ALTER TABLE audit.seal_range ENABLE ALWAYS TRIGGER audit_guard_row;
-- Statements that touch no row are refused as well, and TRUNCATE has no rows.
CREATE TRIGGER audit_guard_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.seal_range
  FOR EACH STATEMENT EXECUTE FUNCTION audit.audit_guard();
ALTER TABLE audit.seal_range ENABLE ALWAYS TRIGGER audit_guard_statement;

CREATE TRIGGER audit_guard_row BEFORE INSERT OR UPDATE OR DELETE ON audit.tile
  FOR EACH ROW EXECUTE FUNCTION audit.audit_guard();
ALTER TABLE audit.tile ENABLE ALWAYS TRIGGER audit_guard_row;
-- Statements that touch no row are refused as well, and TRUNCATE has no rows.
CREATE TRIGGER audit_guard_statement BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.tile
  FOR EACH STATEMENT EXECUTE FUNCTION audit.audit_guard();
ALTER TABLE audit.tile ENABLE ALWAYS TRIGGER audit_guard_statement;

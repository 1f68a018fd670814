-- First: refuse what cannot work, then the schema.

-- Lines are UTF-8 by format, and only in a UTF-8 database is each stored text one line of UTF-8.
DO $$
BEGIN
  IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
    RAISE EXCEPTION 'extension "audit" needs a database with encoding UTF8'
      USING ERRCODE = 'feature_not_supported',
            DETAIL = pg_catalog.format('This database has encoding %s.', pg_catalog.getdatabaseencoding()),
            HINT = 'Create the database with ENCODING ''UTF8'' TEMPLATE template0.';
  END IF;
  IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) 'audit') THEN
    RAISE EXCEPTION 'schema "audit" already exists'
      USING ERRCODE = 'duplicate_schema',
            DETAIL = 'Objects that somebody put there before could be taken for those of the extension.',
            HINT = 'Rename or drop that schema, then create the extension again.';
  END IF;
END
$$;

-- Plain CREATE: a schema that is there already stops the installation.
CREATE SCHEMA audit;
COMMENT ON SCHEMA audit IS 'Tamper-evident history of protected tables; see audit.protect() and audit.verify().';

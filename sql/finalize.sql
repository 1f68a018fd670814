-- Last: whatever ALTER DEFAULT PRIVILEGES has granted on the new objects is taken back, from whomever.
DO $$
DECLARE
  item record;
BEGIN
  FOR item IN
    SELECT 'TABLE' AS kind, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, a.grantee, c.relowner AS owner
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
      CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS a
      WHERE n.nspname OPERATOR(pg_catalog.=) 'audit' AND c.relkind OPERATOR(pg_catalog.<>) 'S'
    UNION
    SELECT 'SEQUENCE', pg_catalog.format('%I.%I', n.nspname, c.relname), a.grantee, c.relowner
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
      CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) AS a
      WHERE n.nspname OPERATOR(pg_catalog.=) 'audit' AND c.relkind OPERATOR(pg_catalog.=) 'S'
    UNION
    SELECT 'FUNCTION', p.oid::pg_catalog.regprocedure::pg_catalog.text, a.grantee, p.proowner
      FROM pg_catalog.pg_proc AS p
      JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
      CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) AS a
      WHERE n.nspname OPERATOR(pg_catalog.=) 'audit'
    UNION
    SELECT 'SCHEMA', pg_catalog.quote_ident(n.nspname), a.grantee, n.nspowner
      FROM pg_catalog.pg_namespace AS n
      CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) AS a
      WHERE n.nspname OPERATOR(pg_catalog.=) 'audit'
  LOOP
    CONTINUE WHEN item.grantee OPERATOR(pg_catalog.=) item.owner;
    EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s', item.kind, item.name,
      CASE WHEN item.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC'
           ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(item.grantee)) END);
  END LOOP;
END
$$;

-- EXECUTE on these two is PUBLIC's on purpose; see sql/triggers.sql.
GRANT EXECUTE ON FUNCTION audit.audit_row(), audit.audit_truncate() TO PUBLIC;

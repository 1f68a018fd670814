-- What CREATE EXTENSION audit makes: a change of the public surface shows here.
\pset null '(null)'

-- As \dx+ prints it, but for the row types, which later majors list and earlier do not
SELECT pg_describe_object(classid, objid, 0) AS object
  FROM pg_depend
 WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND classid <> 'pg_type'::regclass
   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'audit')
 ORDER BY pg_describe_object(classid, objid, 0) COLLATE "C";

-- The log
\d audit.log

SELECT attnum, attname, format_type(atttypid, atttypmod) AS type, attnotnull,
       col_description(attrelid, attnum) IS NOT NULL AS has_comment
  FROM pg_attribute
 WHERE attrelid = 'audit.log'::regclass AND attnum > 0 AND NOT attisdropped
 ORDER BY attnum;

-- The view of protected tables
SELECT attnum, attname, format_type(atttypid, atttypmod) AS type
  FROM pg_attribute
 WHERE attrelid = 'audit.protected'::regclass AND attnum > 0
 ORDER BY attnum;

-- Functions
SELECT p.oid::regprocedure AS function, pg_get_function_result(p.oid) AS result
  FROM pg_proc p
 WHERE p.pronamespace = 'audit'::regnamespace
 ORDER BY p.oid::regprocedure::text COLLATE "C";

SELECT p.oid::regprocedure AS function, pg_get_function_arguments(p.oid) AS arguments
  FROM pg_proc p
 WHERE p.pronamespace = 'audit'::regnamespace AND pronargs > 0
 ORDER BY p.oid::regprocedure::text COLLATE "C";

SELECT p.oid::regproc AS function, l.lanname AS language, p.provolatile AS volatile, p.proparallel AS parallel,
       p.proisstrict AS strict, p.prosecdef AS definer, p.proconfig AS config
  FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
 WHERE p.pronamespace = 'audit'::regnamespace
 ORDER BY p.oid::regprocedure::text COLLATE "C";

-- Guards and event triggers
SELECT tgrelid::regclass AS relation, tgname, tgfoid::regproc AS function, tgenabled
  FROM pg_trigger
 WHERE tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'audit'::regnamespace) AND NOT tgisinternal
 ORDER BY tgrelid::regclass::text COLLATE "C", tgname;

SELECT evtname, evtevent, evtenabled, evttags, evtfoid::regproc AS function
  FROM pg_event_trigger WHERE evtname LIKE 'audit%' ORDER BY evtname;

-- Every table of the schema has guards for every statement.
SELECT c.oid::regclass AS unguarded
  FROM pg_class c
 WHERE c.relnamespace = 'audit'::regnamespace AND c.relkind = 'r'
   AND NOT EXISTS (SELECT FROM pg_trigger t
                    WHERE t.tgrelid = c.oid AND t.tgenabled = 'A' AND t.tgtype & 32 <> 0 AND t.tgtype & 2 <> 0);

-- What PUBLIC may do: run the trigger functions, which refuse whatever is not a protected table, and nothing else.
SELECT 'schema' AS kind, nspname::text AS name, privilege_type
  FROM pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner)))
 WHERE nspname = 'audit' AND grantee = 0
UNION ALL
SELECT 'relation', c.oid::regclass::text, privilege_type
  FROM pg_class c,
       aclexplode(coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner)))
 WHERE relnamespace = 'audit'::regnamespace AND relkind IN ('r', 'v', 'S', 'p', 'm', 'f') AND grantee = 0
UNION ALL
SELECT 'column', attrelid::regclass::text, privilege_type
  FROM pg_attribute, aclexplode(attacl)
 WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'audit'::regnamespace) AND grantee = 0
UNION ALL
SELECT 'function', p.oid::regprocedure::text, privilege_type
  FROM pg_proc p, aclexplode(coalesce(proacl, acldefault('f', proowner)))
 WHERE pronamespace = 'audit'::regnamespace AND grantee = 0
 ORDER BY 1, 2, 3;

-- Nobody but the owner of the extension has any right.
SELECT 'relation' AS kind, c.oid::regclass::text AS name, privilege_type
  FROM pg_class c, aclexplode(relacl)
 WHERE relnamespace = 'audit'::regnamespace AND grantee NOT IN (0, relowner)
UNION ALL
SELECT 'function', p.oid::regprocedure::text, privilege_type
  FROM pg_proc p, aclexplode(proacl)
 WHERE pronamespace = 'audit'::regnamespace AND grantee NOT IN (0, proowner)
 ORDER BY 1, 2, 3;

-- Every object has a comment (indexes, constraints and guards speak for themselves).
SELECT pg_describe_object(d.classid, d.objid, 0) AS without_comment
  FROM pg_depend d
 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'audit')
   AND d.classid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_namespace'::regclass)
   AND obj_description(d.objid, (SELECT relname FROM pg_class WHERE oid = d.classid)) IS NULL
 ORDER BY 1;

-- What pg_dump carries over
SELECT table_oid::regclass AS dumped, nullif(condition, '') AS condition
  FROM pg_extension, unnest(extconfig, extcondition) AS config(table_oid, condition)
 WHERE extname = 'audit'
 ORDER BY table_oid::regclass::text COLLATE "C";

-- Settings (they exist once the library is loaded)
SELECT FROM audit.findings();
SELECT name, setting, unit, context, vartype, short_desc FROM pg_settings WHERE name LIKE 'audit.%' ORDER BY name;

-- The extension stays where it is, and no schema that somebody may drop takes it along.
ALTER EXTENSION audit SET SCHEMA public;
SELECT extrelocatable, nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'audit';
SELECT superuser, trusted, relocatable, schema FROM pg_available_extension_versions WHERE name = 'audit' AND installed;

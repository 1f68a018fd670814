//! What the guards refuse when the library is preloaded, whoever asks and whatever is switched off; what they let pass; and how they are opened.

use std::sync::OnceLock;

use audit_tests::{Cluster, Database, Session, assert_clean, assert_found, changes, findings, verdict};

/// A server that preloads the library. It seals nothing by itself, so that each test sees its own entries alone.
fn preloaded() -> &'static Cluster {
    static PRELOADED: OnceLock<Cluster> = OnceLock::new();
    PRELOADED.get_or_init(|| {
        Cluster::builder().conf("shared_preload_libraries = 'audit'").conf("audit.seal_interval = 0").start()
    })
}

const SHOP: &str = "
    CREATE TABLE account (id int PRIMARY KEY, owner text, balance numeric(12, 2));
    CREATE TABLE measure (id int, day int, v float8, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE measure_1 PARTITION OF measure FOR VALUES FROM (0) TO (10);
    SELECT audit.protect('account');
    SELECT audit.protect('measure');
    INSERT INTO account SELECT g, 'owner ' || g, g FROM generate_series(1, 5) g;
    INSERT INTO measure VALUES (1, 1, 0.1);
    CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';";

fn shop(cluster: &Cluster) -> Database<'_> {
    let database = cluster.database();
    let mut s = database.connect();
    s.run(SHOP);
    assert_clean(&mut s);
    database
}

/// All that protection hangs on, as the catalogs have it: if this is the same, nothing was taken away.
const STATE: &str = "
    SELECT concat_ws(' ', 'trigger', tgrelid::regclass, tgname, tgenabled, tgfoid::regproc, tgtype, tgattr, coalesce(tgqual::text, '-'), tgnargs, tgdeferrable)
      FROM pg_trigger WHERE tgname LIKE 'audit%' OR tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace('audit'))
    UNION ALL
    SELECT concat_ws(' ', 'relation', oid::regclass, relkind, relpersistence, relhastriggers, relhasrules, relrowsecurity, relispartition, relowner, relacl::text)
      FROM pg_class WHERE relnamespace = to_regnamespace('audit') OR oid IN ('account'::regclass, 'measure'::regclass, 'measure_1'::regclass)
    UNION ALL
    SELECT concat_ws(' ', 'column', attrelid::regclass, attnum, attname, atttypid)
      FROM pg_attribute WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace('audit'))
    UNION ALL
    SELECT concat_ws(' ', 'function', oid, proname, prolang, probin, md5(prosrc), proowner, prosecdef, proconfig::text)
      FROM pg_proc WHERE pronamespace = to_regnamespace('audit')
    UNION ALL
    SELECT concat_ws(' ', 'event trigger', evtname, evtenabled, evtfoid::regproc) FROM pg_event_trigger
    UNION ALL
    SELECT concat_ws(' ', 'schema', nspname, nspowner, nspacl::text) FROM pg_namespace WHERE nspname LIKE 'audit%'
    UNION ALL
    SELECT concat_ws(' ', 'extension', extname, extowner) FROM pg_extension WHERE extname = 'audit'
    UNION ALL
    SELECT concat_ws(' ', 'member', classid, objid) FROM pg_depend WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'audit')
    UNION ALL
    SELECT concat_ws(' ', 'index', indexrelid::regclass, indisvalid, indisready, indislive, indisunique)
      FROM pg_index WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace('audit'))
    UNION ALL
    SELECT concat_ws(' ', 'child', inhrelid::regclass, inhparent::regclass) FROM pg_inherits
    UNION ALL
    SELECT concat_ws(' ', 'entry', chain, seq, encode(hash, 'hex')) FROM audit.log
    UNION ALL
    SELECT concat_ws(' ', 'registered', relation, protect_id) FROM audit.registry
    ORDER BY 1";

/// An attack must leave everything as it was, whatever it says. It may be several statements, of which one is refused.
#[track_caller]
fn stopped(s: &mut Session, attack: &str) {
    let before = s.column(STATE);
    let refusal = s.refused(attack);
    s.run("ROLLBACK");
    assert_eq!(s.column(STATE), before, "{attack}");
    assert!(
        ["42501", "55000", "2BP01"].contains(&refusal.code().code()),
        "{attack}: {} {}",
        refusal.code().code(),
        refusal.message()
    );
}

/// What a superuser tries with commands that define things.
const DEFINITIONS: &[&str] = &[
    // Triggers of protected tables
    "ALTER TABLE account DISABLE TRIGGER audit_row",
    "ALTER TABLE account DISABLE TRIGGER ALL",
    "ALTER TABLE account DISABLE TRIGGER USER",
    "ALTER TABLE account ENABLE TRIGGER audit_row",
    "ALTER TABLE account ENABLE REPLICA TRIGGER audit_truncate",
    "ALTER TABLE measure_1 DISABLE TRIGGER audit_row",
    "ALTER TABLE measure DISABLE TRIGGER ALL",
    "ALTER TRIGGER audit_row ON account RENAME TO other",
    "DROP TRIGGER audit_row ON account",
    "DROP TRIGGER audit_truncate ON account",
    "DROP TRIGGER audit_row ON measure",
    "CREATE OR REPLACE TRIGGER audit_row AFTER INSERT ON account FOR EACH ROW EXECUTE FUNCTION nothing()",
    "CREATE OR REPLACE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON account FOR EACH ROW WHEN (false) EXECUTE FUNCTION audit.audit_row()",
    "CREATE TRIGGER again AFTER INSERT OR UPDATE OR DELETE ON account FOR EACH ROW EXECUTE FUNCTION audit.audit_row()",
    "DO $$ BEGIN ALTER TABLE account DISABLE TRIGGER USER; DELETE FROM account; ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row; END $$",
    "BEGIN; ALTER TABLE account DISABLE TRIGGER USER; DELETE FROM account; ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row; COMMIT",
    "BEGIN; SAVEPOINT a; ALTER TABLE account DISABLE TRIGGER USER; RELEASE a; COMMIT",
    "ALTER TABLE account SET UNLOGGED",
    "DROP FUNCTION audit.audit_row() CASCADE",
    // The tables of the extension
    "ALTER TABLE audit.log DISABLE TRIGGER ALL",
    "ALTER TABLE audit.log ENABLE TRIGGER audit_guard_row",
    "ALTER TABLE audit.registry ENABLE REPLICA TRIGGER audit_guard_row",
    "DROP TRIGGER audit_guard_row ON audit.log",
    "ALTER TRIGGER audit_guard_statement ON audit.log RENAME TO other",
    "CREATE TRIGGER mine BEFORE INSERT ON audit.log FOR EACH ROW EXECUTE FUNCTION nothing()",
    "CREATE RULE hide AS ON UPDATE TO audit.log DO INSTEAD NOTHING",
    "ALTER TABLE audit.log ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE audit.log SET UNLOGGED",
    "ALTER TABLE audit.log RENAME TO other",
    "ALTER TABLE audit.log SET SCHEMA public",
    "ALTER TABLE audit.log RENAME COLUMN old TO older",
    "ALTER TABLE audit.log ADD COLUMN more int",
    "ALTER TABLE audit.log DROP COLUMN context",
    "ALTER TABLE audit.log ALTER COLUMN user_name TYPE text USING 'somebody'",
    "ALTER TABLE audit.log DROP CONSTRAINT log_pkey",
    "DROP INDEX audit.log_at_idx, audit.log_pkey",
    "CREATE TABLE more () INHERITS (audit.log)",
    "CREATE TABLE parent (LIKE audit.log); ALTER TABLE audit.log INHERIT parent",
    "ALTER TABLE audit.log OWNER TO guards_nobody",
    "DROP TABLE audit.log CASCADE",
    "DROP TABLE audit.registry",
    "DROP SEQUENCE audit.log_id_seq",
    "TRUNCATE audit.log",
    // Functions, event triggers, schema, extension
    "CREATE OR REPLACE FUNCTION audit.audit_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "CREATE OR REPLACE FUNCTION audit.audit_guard() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "ALTER FUNCTION audit.audit_row() RENAME TO other",
    "ALTER FUNCTION audit.audit_guard() SET SCHEMA public",
    "ALTER FUNCTION audit.verify OWNER TO guards_nobody",
    "ALTER FUNCTION audit.verify SECURITY DEFINER",
    "ALTER FUNCTION audit.audit_row() SET search_path = public",
    "CREATE FUNCTION audit.verify() RETURNS TABLE (what text, ok boolean) LANGUAGE sql AS $$ SELECT 'all'::text, true $$",
    "DROP FUNCTION audit.audit_cover() CASCADE",
    "DROP FUNCTION audit.seal()",
    "ALTER EVENT TRIGGER audit_ddl DISABLE",
    "ALTER EVENT TRIGGER audit_ddl ENABLE REPLICA",
    "ALTER EVENT TRIGGER audit_ddl RENAME TO other",
    "DROP EVENT TRIGGER audit_ddl",
    "ALTER EVENT TRIGGER audit_ddl_attach DISABLE",
    "ALTER EVENT TRIGGER audit_ddl_drop ENABLE",
    "DROP EVENT TRIGGER audit_ddl_rewrite",
    "ALTER SCHEMA audit RENAME TO other",
    "ALTER SCHEMA audit OWNER TO guards_nobody",
    "DROP SCHEMA audit CASCADE",
    "DROP EXTENSION audit",
    "DROP EXTENSION audit CASCADE",
    "DROP OWNED BY guards_owner CASCADE",
    "REASSIGN OWNED BY guards_owner TO guards_nobody",
    "ALTER EXTENSION audit DROP TABLE audit.log",
    "ALTER EXTENSION audit DROP FUNCTION audit.seal()",
    "GRANT ALL ON audit.log TO guards_nobody",
    "GRANT TRUNCATE ON ALL TABLES IN SCHEMA audit TO PUBLIC",
    "GRANT CREATE ON SCHEMA audit TO guards_nobody",
    "GRANT UPDATE ON audit.log_id_seq TO guards_nobody",
    "ALTER EXTENSION audit DROP EVENT TRIGGER audit_ddl",
];

/// What a superuser tries with data.
const CHANGES: &[&str] = &[
    "DELETE FROM audit.log",
    "UPDATE audit.log SET user_name = 'somebody'",
    "INSERT INTO audit.log SELECT * FROM audit.log",
    "WITH gone AS (DELETE FROM audit.registry RETURNING 1) SELECT count(*) FROM gone",
    "EXPLAIN ANALYZE DELETE FROM audit.log",
    "SET LOCAL session_replication_role = replica; DELETE FROM audit.log",
    "DELETE FROM audit.incarnation",
    "MERGE INTO audit.registry r USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
    "INSERT INTO audit.log SELECT * FROM audit.log ON CONFLICT (chain, ledger_prefix, seq) DO UPDATE SET user_name = 'x'",
    // Where definitions are kept
    "UPDATE pg_trigger SET tgenabled = 'D' WHERE tgname = 'audit_row'",
    "UPDATE pg_trigger SET tgfoid = 'nothing'::regproc WHERE tgname = 'audit_guard_row'",
    "DELETE FROM pg_trigger WHERE tgrelid = 'account'::regclass",
    "UPDATE pg_class SET relhastriggers = false WHERE oid = 'account'::regclass",
    "UPDATE pg_class SET relrowsecurity = true WHERE oid = 'audit.log'::regclass",
    "UPDATE pg_proc SET prosrc = 'audit_guard' WHERE proname = 'audit_row'",
    "UPDATE pg_event_trigger SET evtenabled = 'D'",
    "DELETE FROM pg_event_trigger",
    "DELETE FROM pg_depend WHERE refobjid = (SELECT oid FROM pg_extension WHERE extname = 'audit')",
    "DELETE FROM pg_inherits",
    "INSERT INTO pg_inherits SELECT 'audit.log'::regclass, 'account'::regclass, 1, false",
    "UPDATE pg_rewrite SET ev_enabled = 'D'",
    "UPDATE pg_attribute SET attname = 'x' WHERE attrelid = 'audit.log'::regclass AND attname = 'old'",
    "UPDATE pg_index SET indisunique = false WHERE indexrelid = 'audit.log_pkey'::regclass",
    "UPDATE pg_namespace SET nspname = 'other' WHERE nspname = 'audit'",
    "UPDATE pg_extension SET extname = 'other' WHERE extname = 'audit'",
    "WITH x AS (UPDATE pg_trigger SET tgenabled = 'D' RETURNING 1) SELECT * FROM x",
    "COPY pg_trigger FROM '/dev/null'",
    "COPY pg_catalog.pg_proc FROM '/dev/null'",
    "COPY audit.registry FROM PROGRAM 'echo 1 1 r 1 t full t {} {} {} {} {} public t' (DELIMITER ' ')",
    "DO $$ BEGIN EXECUTE 'UPDATE pg_trigger SET tgenabled = ''D'''; END $$",
];

fn roles(s: &mut Session) {
    s.run(
        "DO $$ BEGIN
           CREATE ROLE guards_nobody;
         EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         DO $$ BEGIN CREATE ROLE guards_owner SUPERUSER; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    );
}

/// A shop in a database where the extension belongs to a role that is not the one that made the cluster: `DROP OWNED` and `REASSIGN OWNED` refuse that one anyhow.
fn owned_shop() -> Database<'static> {
    let database = preloaded().bare_database();
    let mut s = database.connect();
    roles(&mut s);
    s.run("SET ROLE guards_owner; CREATE EXTENSION audit; RESET ROLE");
    s.run(SHOP);
    assert_clean(&mut s);
    database
}

#[test]
fn a_superuser_is_refused_every_command_that_takes_protection_away() {
    let database = owned_shop();
    let mut s = database.connect();
    for attack in DEFINITIONS {
        stopped(&mut s, attack);
        // In a session that has done nothing else.
        stopped(&mut database.connect(), attack);
    }
    // What was refused has left nothing behind: changes are recorded, partitions covered.
    s.run("UPDATE account SET balance = 7 WHERE id = 1; CREATE TABLE measure_2 PARTITION OF measure FOR VALUES FROM (10) TO (20); INSERT INTO measure VALUES (2, 12, 1); TRUNCATE measure_2");
    assert_eq!(changes(&mut s, "account").len(), 6);
    assert_eq!(changes(&mut s, "measure_2").len(), 2);
    assert_clean(&mut s);
}

#[test]
fn a_superuser_is_refused_every_direct_change_of_log_and_catalogs() {
    let database = shop(preloaded());
    let mut s = database.connect();
    for attack in CHANGES {
        stopped(&mut s, attack);
        stopped(&mut database.connect(), attack);
    }
    assert_clean(&mut s);
}

/// A refusal that is caught has undone what was refused, and errors that others catch meanwhile hide nothing.
#[test]
fn a_refusal_that_is_caught_leaves_nothing_open() {
    let database = shop(preloaded());
    let mut s = database.connect();
    s.run(
        "DO $$ BEGIN
           BEGIN ALTER TABLE account DISABLE TRIGGER USER; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
           BEGIN DELETE FROM audit.log; EXCEPTION WHEN insufficient_privilege THEN NULL; END;
           UPDATE account SET balance = 0 WHERE id = 1;
         END $$",
    );
    assert_eq!(changes(&mut s, "account").len(), 6);
    assert_clean(&mut s);
    s.run(
        "CREATE FUNCTION noise() RETURNS event_trigger LANGUAGE plpgsql AS $$
           BEGIN BEGIN PERFORM 1 / 0; EXCEPTION WHEN OTHERS THEN NULL; END;
                 CREATE TEMPORARY TABLE IF NOT EXISTS noisy (id int); END $$;
         CREATE EVENT TRIGGER a_noise ON ddl_command_end WHEN TAG IN ('ALTER TABLE', 'DROP EXTENSION') EXECUTE FUNCTION noise();
         CREATE EVENT TRIGGER z_noise ON ddl_command_end WHEN TAG IN ('ALTER TABLE', 'DROP EXTENSION') EXECUTE FUNCTION noise()",
    );
    for attack in [
        "ALTER TABLE account DISABLE TRIGGER USER",
        "ALTER TABLE audit.log DISABLE TRIGGER ALL",
        "DROP EXTENSION audit CASCADE",
    ] {
        stopped(&mut s, attack);
    }
    s.run("ALTER TABLE account ADD COLUMN more int; CREATE TABLE measure_2 PARTITION OF measure FOR VALUES FROM (10) TO (20)");
    s.run("DROP EVENT TRIGGER a_noise; DROP EVENT TRIGGER z_noise");
    assert_clean(&mut s);
}

/// With the guard triggers out of the way (a moment without the library, say) the hooks refuse the same.
#[test]
fn direct_changes_are_refused_even_where_triggers_are_off() {
    let mut cluster = Cluster::builder().conf("audit.seal_interval = 0").start();
    let name = shop(&cluster).name;
    {
        let mut s = cluster.connect(&name);
        s.run("ALTER TABLE audit.log DISABLE TRIGGER ALL; ALTER TABLE account DISABLE TRIGGER audit_row; ALTER EVENT TRIGGER audit_ddl DISABLE");
        s.run("ALTER SYSTEM SET shared_preload_libraries = 'audit'");
    }
    cluster.restart();
    let mut s = cluster.connect(&name);
    let found: Vec<String> = findings(&mut s).iter().map(ToString::to_string).collect();
    assert!(
        found.iter().any(|one| one == "coverage audit.log") && found.iter().any(|one| one == "coverage public.account"),
        "{found:?}"
    );
    for attack in [
        "DELETE FROM audit.log",
        "UPDATE audit.log SET user_name = 'somebody'",
        "INSERT INTO audit.log SELECT * FROM audit.log LIMIT 0",
        "COPY audit.log FROM '/dev/null'",
        "TRUNCATE audit.log",
        // Worse than it is
        "DROP TRIGGER audit_row ON account",
        "DROP TRIGGER audit_guard_row ON audit.log",
    ] {
        stopped(&mut s, attack);
    }
    // Nobody changes the definition of a protected table while the log cannot follow.
    stopped(&mut s, "ALTER TABLE account ADD COLUMN more int");
    stopped(&mut s, "CREATE TABLE child () INHERITS (account)");
    stopped(&mut s, "CREATE TABLE measure_2 PARTITION OF measure FOR VALUES FROM (10) TO (20)");
    // What puts things right needs no maintenance.
    s.run(
        "ALTER TABLE audit.log ENABLE ALWAYS TRIGGER audit_guard_row; ALTER TABLE audit.log ENABLE ALWAYS TRIGGER audit_guard_statement;
         ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row; ALTER EVENT TRIGGER audit_ddl ENABLE ALWAYS",
    );
    s.run("CREATE TABLE child () INHERITS (account); INSERT INTO child VALUES (9, 'child', 1)");
    assert_eq!(changes(&mut s, "child").len(), 1);
    assert_clean(&mut s);
}

/// From PostgreSQL 17 on event triggers can be switched off by a setting, which can be granted.
#[test]
fn the_setting_event_triggers_lets_nothing_pass() {
    let database = shop(preloaded());
    let mut s = database.connect();
    if s.major() < 17 {
        println!("PostgreSQL {} has no such setting: not tested", s.major());
        return;
    }
    s.run("SET event_triggers = off");
    for attack in [
        "CREATE TABLE child () INHERITS (account)",
        "CREATE TABLE measure_2 PARTITION OF measure FOR VALUES FROM (10) TO (20)",
        "ALTER TABLE account ADD COLUMN more int",
        "ALTER TABLE account DISABLE TRIGGER audit_row",
    ] {
        stopped(&mut s, attack);
    }
    s.run(
        "CREATE TABLE other (id int); DROP TABLE other; RESET event_triggers; ALTER TABLE account ADD COLUMN more int",
    );
    assert_clean(&mut s);
    s.run("ALTER ROLE postgres SET event_triggers = off");
    assert_found(&mut s, &["coverage event_triggers"]);
    s.run("ALTER ROLE postgres RESET event_triggers");
}

/// An extension that whoever may create objects in a database may create there, if the server has one of those that are looked for.
fn trusted_extension(s: &mut Session) -> Option<String> {
    let named = "SELECT name FROM pg_available_extension_versions WHERE trusted AND superuser AND name IN ('hstore', 'citext', 'pg_trgm') LIMIT 1";
    s.column(named).first().cloned()
}

/// An owner has no superuser's ways, and the ones he has are refused by hooks and by event triggers alike.
#[test]
fn an_owner_is_refused_with_hooks_and_with_event_triggers() {
    for cluster in [preloaded(), Cluster::shared()] {
        let database = cluster.database();
        let mut s = database.connect();
        s.run(
            "DO $$ BEGIN CREATE ROLE guards_tenant LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             CREATE SCHEMA guards_tenant AUTHORIZATION guards_tenant",
        );
        s.run(
            r#"DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO guards_tenant', current_database()); END $$"#,
        );
        let mut role = database.connect_as("guards_tenant");
        let extension = trusted_extension(&mut s);
        if let Some(extension) = &extension {
            role.run(&format!("CREATE EXTENSION {extension}"));
        }
        role.run(
            "CREATE TABLE account (id int PRIMARY KEY, v int);
             CREATE TABLE measure (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
             CREATE TABLE measure_1 PARTITION OF measure FOR VALUES FROM (0) TO (10);
             CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        );
        s.run("SELECT audit.protect('guards_tenant.account'); SELECT audit.protect('guards_tenant.measure'); SET search_path = guards_tenant");
        role.run("INSERT INTO account VALUES (1, 1); INSERT INTO measure VALUES (1, 1)");
        // Dropped together with something that is his to drop
        let with_extension = extension.iter().map(|extension| {
            format!("BEGIN; ALTER TRIGGER audit_row ON account DEPENDS ON EXTENSION {extension}; DROP EXTENSION {extension}; COMMIT")
        });
        let attacks = [
            "ALTER TABLE account DISABLE TRIGGER audit_row",
            "ALTER TABLE account ENABLE TRIGGER audit_truncate",
            "ALTER TRIGGER audit_row ON account RENAME TO other",
            "DROP TRIGGER audit_row ON measure",
            "ALTER TABLE account SET UNLOGGED",
            "CREATE OR REPLACE TRIGGER audit_row AFTER INSERT ON account FOR EACH ROW EXECUTE FUNCTION nothing()",
            "BEGIN; ALTER TABLE account DISABLE TRIGGER USER; UPDATE account SET v = 2; ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row; COMMIT",
        ];
        for attack in attacks.map(str::to_owned).into_iter().chain(with_extension) {
            let before = s.column(STATE);
            let code = role.sqlstate(&attack);
            role.run("ROLLBACK");
            assert_eq!(s.column(STATE), before, "{attack}");
            assert_eq!(code, "42501", "{attack}");
        }
        // What ends no recording is his to do.
        if let Some(extension) = &extension {
            role.run(&format!("DROP EXTENSION {extension}"));
        }
        role.run(
            "ALTER TABLE account ADD COLUMN w int DEFAULT 3; ALTER TABLE account RENAME COLUMN v TO vv; CREATE INDEX ON account (vv);
             CREATE TRIGGER mine AFTER INSERT ON account FOR EACH ROW EXECUTE FUNCTION nothing(); DROP TRIGGER mine ON account;
             CREATE TABLE measure_2 PARTITION OF measure FOR VALUES FROM (10) TO (20); INSERT INTO measure VALUES (2, 12); CLUSTER account USING account_pkey;
             REINDEX TABLE account; CREATE TEMPORARY TABLE t (id int); DROP TABLE t",
        );
        role.run("VACUUM FULL account");
        assert_clean(&mut s);
    }
}

#[test]
fn maintenance_opens_the_guards_for_one_transaction() {
    let database = shop(preloaded());
    let mut s = database.connect();
    s.run("BEGIN; SELECT audit.maintenance('trigger of a former release'); ALTER TABLE account DISABLE TRIGGER audit_truncate; COMMIT");
    assert_found(&mut s, &["coverage public.account"]);
    // Over with the transaction: closed again.
    stopped(&mut s, "ALTER TABLE account DISABLE TRIGGER audit_row");
    s.run("ALTER TABLE account ENABLE ALWAYS TRIGGER audit_truncate");
    assert_clean(&mut s);
    // Who, when and why is in the log, with the same transaction as what was done, and in the server's own.
    assert_eq!(
        s.column("SELECT new ->> 'reason' || ' ' || user_name FROM audit.log WHERE op = 'MAINTENANCE'"),
        ["trigger of a former release postgres"]
    );
    assert!(
        database.cluster.server_log().contains(
            "the guards of extension \"audit\" were opened by role \"postgres\": trigger of a former release"
        )
    );
    // Rolled back, it was never open.
    s.run("BEGIN; SAVEPOINT a; SELECT audit.maintenance('a try'); ROLLBACK TO a");
    assert_eq!(s.sqlstate("ALTER TABLE account DISABLE TRIGGER audit_row"), "42501");
    s.run("ROLLBACK");
    // A released savepoint keeps it open; direct changes of catalogs pass as well.
    s.run("BEGIN; SAVEPOINT a; SELECT audit.maintenance('catalog'); RELEASE a; UPDATE pg_trigger SET tgenabled = tgenabled WHERE tgname = 'audit_row'; COMMIT");
    // For nobody but superusers, also while it is open.
    s.run("ALTER TABLE account OWNER TO pg_read_all_stats; GRANT USAGE ON SCHEMA audit TO pg_read_all_stats; GRANT EXECUTE ON FUNCTION audit.maintenance TO pg_read_all_stats");
    s.run("BEGIN; SELECT audit.maintenance('for the superuser'); SET LOCAL ROLE pg_read_all_stats");
    assert_eq!(s.sqlstate("ALTER TABLE account DISABLE TRIGGER audit_row"), "42501");
    s.run("ROLLBACK; SET ROLE pg_read_all_stats");
    assert_eq!(s.sqlstate("SELECT audit.maintenance('no superuser')"), "42501");
    s.run("RESET ROLE");
    assert_eq!(s.sqlstate("SELECT audit.maintenance(' ')"), "22023");
    assert_eq!(s.sqlstate("SELECT audit.maintenance(NULL)"), "22004");
    // Each that was committed, and no other.
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'MAINTENANCE'"), 2);
    assert_clean(&mut s);
}

/// The log itself stays shut: maintenance is for definitions.
#[test]
fn maintenance_does_not_open_the_log() {
    let database = shop(preloaded());
    let mut s = database.connect();
    for change in ["DELETE FROM audit.log", "UPDATE audit.log SET user_name = 'x'", "TRUNCATE audit.log"] {
        s.run("BEGIN; SELECT audit.maintenance('to have a look')");
        assert_eq!(s.sqlstate(change), "42501", "{change}");
        s.run("ROLLBACK");
    }
    assert_clean(&mut s);
}

#[test]
fn the_extension_can_be_dropped_in_maintenance_and_made_again() {
    let database = shop(preloaded());
    let mut s = database.connect();
    stopped(&mut s, "DROP EXTENSION audit CASCADE");
    s.run("BEGIN; SELECT audit.maintenance('moving to another server'); DROP EXTENSION audit CASCADE; COMMIT");
    assert_eq!(s.number("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'audit%'"), 0);
    s.run("UPDATE account SET balance = 0; DROP TABLE IF EXISTS audit; CREATE EXTENSION audit");
    // Nothing is protected yet: it may be dropped as it came.
    s.run("DROP EXTENSION audit; CREATE EXTENSION audit; SELECT audit.protect('account'); INSERT INTO account VALUES (99, 'new', 1)");
    assert_clean(&mut s);
}

/// Everyday work of a superuser, none of which takes protection away.
#[test]
fn everyday_administration_passes() {
    let database = shop(preloaded());
    let mut s = database.connect();
    let with_extension =
        trusted_extension(&mut s).map(|name| format!("CREATE EXTENSION {name}; DROP EXTENSION {name}"));
    let everyday = [
        "VACUUM",
        "VACUUM FULL audit.log",
        "VACUUM FREEZE audit.log",
        "VACUUM FULL account",
        "ANALYZE audit.log",
        "CLUSTER audit.log USING log_pkey",
        "REINDEX TABLE audit.log",
        "REINDEX TABLE CONCURRENTLY audit.log",
        "REINDEX TABLE CONCURRENTLY account",
        "REINDEX SCHEMA audit",
        "CREATE INDEX CONCURRENTLY log_user_idx ON audit.log (user_name)",
        "DROP INDEX audit.log_user_idx",
        "ALTER TABLE audit.log ALTER COLUMN at SET STATISTICS 500",
        "ALTER TABLE audit.log SET (autovacuum_vacuum_scale_factor = 0.1)",
        "ALTER TABLE audit.log RESET (autovacuum_vacuum_scale_factor)",
        "ALTER TABLE audit.log ALTER COLUMN new SET STORAGE EXTENDED",
        "COMMENT ON TABLE audit.log IS 'entries'",
        "COMMENT ON FUNCTION audit.verify IS 'verifies'",
        "CREATE ROLE guards_auditor; GRANT USAGE ON SCHEMA audit TO guards_auditor; GRANT SELECT ON ALL TABLES IN SCHEMA audit TO guards_auditor;
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA audit TO guards_auditor; REVOKE ALL ON ALL FUNCTIONS IN SCHEMA audit FROM guards_auditor;
         REVOKE ALL ON ALL TABLES IN SCHEMA audit FROM guards_auditor; REVOKE ALL ON SCHEMA audit FROM guards_auditor; DROP OWNED BY guards_auditor; DROP ROLE guards_auditor",
        "CREATE VIEW latest AS SELECT * FROM audit.log; DROP VIEW latest",
        "CREATE STATISTICS audit_stat ON chain, seq FROM audit.log; DROP STATISTICS audit_stat",
        "SELECT setval('audit.log_id_seq', nextval('audit.log_id_seq'))",
        "ALTER EXTENSION audit UPDATE",
        "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION audit.audit_cover(); ALTER EVENT TRIGGER mine DISABLE; DROP EVENT TRIGGER mine",
        "CREATE SCHEMA other CREATE TABLE t (id int PRIMARY KEY) CREATE VIEW v AS SELECT * FROM t; ALTER SCHEMA other RENAME TO another; DROP SCHEMA another CASCADE",
        "UPDATE pg_database SET datallowconn = datallowconn",
        "CREATE TABLE child () INHERITS (account); DROP TABLE child",
        "ALTER TABLE account ADD COLUMN more text DEFAULT 'x', ALTER COLUMN owner TYPE varchar(50); ALTER TABLE account DROP COLUMN more",
        "ALTER TABLE account RENAME TO account_2; ALTER TABLE account_2 RENAME TO account",
        "CREATE TEMPORARY TABLE t AS SELECT * FROM account; DROP TABLE t",
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM account; REFRESH MATERIALIZED VIEW m; DROP MATERIALIZED VIEW m",
        "SELECT audit.unprotect('account', 'a test'); ALTER TABLE account DISABLE TRIGGER ALL; ALTER TABLE account ENABLE TRIGGER ALL; SELECT audit.protect('account')",
        "BEGIN; SAVEPOINT a; ALTER TABLE account ADD COLUMN gone int; ROLLBACK TO a; COMMIT",
        "ALTER TABLE measure DETACH PARTITION measure_1; UPDATE measure_1 SET v = 2; ALTER TABLE measure ATTACH PARTITION measure_1 FOR VALUES FROM (0) TO (10)",
        "BEGIN; SAVEPOINT a; ALTER TABLE measure DETACH PARTITION measure_1; RELEASE a; ALTER TABLE measure ATTACH PARTITION measure_1 FOR VALUES FROM (0) TO (10); COMMIT",
        "ALTER TABLE measure DETACH PARTITION measure_1 CONCURRENTLY;
         ALTER TABLE measure ATTACH PARTITION measure_1 FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE measure_2 (LIKE measure INCLUDING ALL); INSERT INTO measure_2 VALUES (1, 15, 1); ALTER TABLE measure ATTACH PARTITION measure_2 FOR VALUES FROM (10) TO (20); DROP TABLE measure_2; SELECT audit.unprotect(relation, 'dropped') FROM audit.registry WHERE relation::oid NOT IN (SELECT oid FROM pg_class)",
    ];
    for work in everyday.map(str::to_owned).into_iter().chain(with_extension) {
        println!("{work}");
        for statement in work.split(";\n         ") {
            s.run(statement);
        }
        let bad: Vec<String> = verdict(&mut s)
            .into_iter()
            .filter(|line| !line.contains("child") && !line.contains("coverage |"))
            .collect();
        assert!(bad.is_empty(), "{work}: {bad:?}");
        s.run("UPDATE account SET balance = balance + 1 WHERE id = 1");
    }
    s.run("SELECT audit.unprotect(relation, 'dropped') FROM audit.registry WHERE relation::oid NOT IN (SELECT oid FROM pg_class)");
    assert_clean(&mut s);
}

/// PostgreSQL lets whoever may write all data lock all tables. Ours hold up everybody.
#[test]
fn whoever_may_write_all_data_cannot_lock_the_log_against_writers() {
    let database = shop(preloaded());
    let mut s = database.connect();
    s.run("CREATE ROLE guards_locker LOGIN IN ROLE pg_write_all_data, pg_read_all_data; GRANT CREATE ON SCHEMA public TO guards_locker");
    let mut locker = database.connect_as("guards_locker");
    locker.run("CREATE VIEW mine AS SELECT count(*) FROM audit.log; CREATE VIEW outer_one AS TABLE mine");
    let modes = ["SHARE UPDATE EXCLUSIVE", "SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"];
    let tables = ["audit.log", "audit.seal", "account, audit.registry", "ONLY audit.tile", "mine", "outer_one"];
    for (mode, table) in modes.iter().flat_map(|mode| tables.map(|table| (mode, table))) {
        for attempt in [
            format!("LOCK TABLE {table} IN {mode} MODE"),
            format!("DO $$ BEGIN LOCK TABLE {table} IN {mode} MODE NOWAIT; END $$"),
        ] {
            locker.run("BEGIN");
            let refusal = locker.refused(&attempt);
            assert_eq!(refusal.code().code(), "42501", "{attempt}");
            assert!(refusal.message().starts_with("cannot lock table \"audit."), "{attempt}: {}", refusal.message());
            locker.run("ROLLBACK");
            // Nor is anything left of it where the refusal is caught.
            locker.run("BEGIN; SAVEPOINT x");
            locker.refused(&attempt);
            locker.run("ROLLBACK TO x");
            s.run("SET lock_timeout = '1s'; UPDATE account SET balance = balance + 1 WHERE id = 1; RESET lock_timeout");
            locker.run("COMMIT");
        }
    }
    // What holds nobody up is nobody's business, nor are locks of other tables, or those of a superuser.
    locker.run("BEGIN; LOCK TABLE audit.log IN ACCESS SHARE MODE; LOCK TABLE audit.log IN ROW EXCLUSIVE MODE; LOCK TABLE account IN SHARE MODE; COMMIT");
    locker
        .run("BEGIN; UPDATE account SET balance = 0 WHERE id = 2; LOCK TABLE account IN ACCESS EXCLUSIVE MODE; COMMIT");
    s.run("BEGIN; LOCK TABLE audit.log IN ACCESS EXCLUSIVE MODE; COMMIT");
    assert_clean(&mut s);
}

/// A dump restores into a server that preloads the library as into any other: the guards close with the first write.
#[test]
fn a_dump_restores_where_the_library_is_preloaded() {
    let original = shop(preloaded());
    original.connect().run("SELECT audit.seal(); UPDATE account SET balance = 3 WHERE id = 1");
    let file = original.cluster.file("guards.dump").to_string_lossy().into_owned();
    original.cluster.program("pg_dump", ["-Fc", "-d", &original.name, "-f", &file]);
    let lines = original.connect().column("SELECT line FROM audit.export() ORDER BY chain, seq");
    for args in [&["-j", "1"][..], &["--single-transaction"]] {
        let target = original.cluster.bare_database();
        original.cluster.program("pg_restore", [&["--exit-on-error", "-d", &target.name, &file][..], args].concat());
        let mut s = target.connect();
        assert_eq!(s.column("SELECT line FROM audit.export() ORDER BY chain, seq"), lines);
        assert_clean(&mut s);
        s.run("UPDATE account SET balance = 4 WHERE id = 1");
        stopped(&mut s, "ALTER TABLE account DISABLE TRIGGER audit_row");
        stopped(&mut s, "DELETE FROM audit.log");
        assert_clean(&mut s);
    }
}

#[test]
fn the_level_of_the_guards_is_told() {
    let preloaded = shop(preloaded());
    let ordinary = shop(Cluster::shared());
    let coverage = "SELECT detail FROM audit.verify() WHERE what = 'coverage'";
    let mut s = preloaded.connect();
    assert_eq!(s.text("SELECT guards FROM audit.status()"), "hooks");
    assert!(s.text(coverage).ends_with("guards: hooks"));
    let mut s = ordinary.connect();
    assert_eq!(s.text("SELECT guards FROM audit.status()"), "event triggers");
    assert!(s.text(coverage).ends_with("guards: event triggers"));
    s.run("ALTER EVENT TRIGGER audit_ddl DISABLE");
    assert_eq!(s.text("SELECT guards FROM audit.status()"), "none");
    assert!(s.text(coverage).ends_with("guards: none"));
}

/// Without preloading a superuser is not refused, and each of these is found. Of what changes nothing that counts, nothing is.
#[test]
fn what_was_done_to_the_extensions_own_objects_is_found() {
    for (damage, found) in [
        ("CREATE TRIGGER mine BEFORE INSERT ON audit.log FOR EACH ROW EXECUTE FUNCTION nothing()", "coverage audit.log"),
        ("CREATE TABLE parent (LIKE audit.log INCLUDING ALL); ALTER TABLE audit.log INHERIT parent", "coverage audit.log"),
        ("ALTER TABLE audit.log RENAME COLUMN old TO older", "coverage audit.log"),
        ("ALTER TABLE audit.log DROP CONSTRAINT log_pkey; ALTER TABLE audit.log ADD CONSTRAINT log_pkey UNIQUE (id)", "coverage audit.log"),
        ("ALTER EXTENSION audit DROP TABLE audit.tile", "coverage audit.tile"),
        ("ALTER EXTENSION audit DROP FUNCTION audit.seal()", "coverage audit.seal"),
        ("GRANT INSERT ON audit.log TO pg_monitor", "coverage audit.log"),
        ("GRANT TRIGGER ON audit.seal TO PUBLIC", "coverage audit.seal"),
        ("GRANT UPDATE ON SEQUENCE audit.log_id_seq TO pg_monitor", "coverage audit.log_id_seq"),
        ("GRANT CREATE ON SCHEMA audit TO pg_monitor", "coverage audit"),
        ("ALTER SCHEMA audit OWNER TO pg_monitor", "coverage audit"),
        ("ALTER FUNCTION audit.findings OWNER TO pg_monitor", "coverage audit.findings"),
        ("ALTER FUNCTION audit.line SECURITY DEFINER", "coverage audit.line"),
        ("ALTER FUNCTION audit.audit_row() SET work_mem = '1MB'", "coverage audit.audit_row"),
        ("CREATE OR REPLACE FUNCTION audit.line(chain integer, seq bigint) RETURNS text LANGUAGE sql AS $$ SELECT ''::text $$", "coverage audit.line"),
        ("ALTER FUNCTION audit.set_context RESET search_path", "coverage audit.set_context"),
        ("CREATE FUNCTION audit.verify() RETURNS int LANGUAGE sql AS 'SELECT 1'", "coverage audit.verify"),
        ("ALTER EXTENSION audit DROP FUNCTION audit.maintenance(text); DROP FUNCTION audit.maintenance", "coverage audit.maintenance"),
        ("UPDATE pg_proc SET prosrc = 'audit_truncate' WHERE oid = 'audit.audit_guard'::regproc", "coverage audit.audit_guard"),
        ("ALTER EVENT TRIGGER audit_ddl ENABLE", "coverage audit_ddl"),
        ("ALTER EVENT TRIGGER audit_ddl RENAME TO other", "coverage audit_ddl"),
        ("UPDATE pg_event_trigger SET evttags = '{\"CREATE TABLE\"}' WHERE evtname = 'audit_ddl'", "coverage audit_ddl"),
        ("UPDATE pg_event_trigger SET evtevent = 'sql_drop' WHERE evtname = 'audit_ddl'", "coverage audit_ddl"),
        ("UPDATE pg_event_trigger SET evttags = '{\"DROP TABLE\"}' WHERE evtname = 'audit_ddl_attach'", "coverage audit_ddl_attach"),
        ("CREATE FUNCTION deaf() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; UPDATE pg_event_trigger SET evtfoid = 'deaf'::regproc WHERE evtname = 'audit_ddl_drop'", "coverage audit_ddl_drop"),
        ("ALTER EXTENSION audit DROP EVENT TRIGGER audit_ddl_rewrite; DROP EVENT TRIGGER audit_ddl_rewrite", "coverage audit_ddl_rewrite"),
        ("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET session_replication_role = replica', current_database()); END $$", "coverage session_replication_role"),
        // Our function behind a trigger that may be put off to the end of the transaction, by whoever writes
        ("DROP TRIGGER audit_row ON account; CREATE CONSTRAINT TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON account DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION audit.audit_row(); ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row", "coverage public.account"),
        ("ALTER TRIGGER audit_row ON account DEPENDS ON EXTENSION plpgsql", "coverage public.account"),
    ] {
        let database = shop(Cluster::shared());
        let mut s = database.connect();
        s.run(damage);
        let all: Vec<String> = findings(&mut s).iter().map(|one| format!("{one}: {}", one.detail)).collect();
        assert!(!all.is_empty() && all.iter().all(|one| one.starts_with(&format!("{found}:"))), "{damage}: {all:#?}");
    }
    // Seals cannot be verified without it.
    let database = shop(Cluster::shared());
    let mut s = database.connect();
    s.run("UPDATE pg_index SET indisunique = false WHERE indexrelid = 'audit.tile_pkey'::regclass");
    assert_found(&mut s, &["coverage audit.tile", "seal"]);
    let database = shop(Cluster::shared());
    let mut s = database.connect();
    s.run(
        "GRANT SELECT ON ALL TABLES IN SCHEMA audit TO pg_monitor; GRANT USAGE ON SCHEMA audit TO pg_monitor; CREATE VIEW audit.mine AS SELECT 1;
         CREATE INDEX ON audit.log (user_name); ALTER TABLE audit.log ALTER COLUMN at SET STATISTICS 10; GRANT ALL ON audit.log TO postgres",
    );
    assert_clean(&mut s);
}

/// Triggers that sort before ours and rules are an owner's right; the verdict names them.
#[test]
fn what_comes_before_the_recording_is_named() {
    let database = shop(Cluster::shared());
    let mut s = database.connect();
    s.run(
        "CREATE TRIGGER \" first\" AFTER UPDATE ON account FOR EACH ROW EXECUTE FUNCTION nothing();
         CREATE TRIGGER before AFTER UPDATE ON account FOR EACH ROW EXECUTE FUNCTION nothing();
         CREATE RULE elsewhere AS ON DELETE TO measure DO INSTEAD NOTHING",
    );
    let detail = s.text("SELECT detail FROM audit.verify() WHERE what = 'coverage'");
    assert!(detail.contains("trigger \" first\" of public.account fires before ours"), "{detail}");
    assert!(!detail.contains("\"before\""), "{detail}");
    assert!(detail.contains("public.measure has rules"), "{detail}");
    assert_clean(&mut s);
}

//! What roles without superuser rights can and cannot do.

use audit_tests::{Database, Session, assert_clean, changes, database};

/// A login role that owns a schema, in the database of the test.
fn owner(database: &Database<'_>, role: &str) -> Session {
    database.connect().run(&format!("CREATE ROLE {role} LOGIN; CREATE SCHEMA {role} AUTHORIZATION {role}"));
    database.connect_as(role)
}

#[track_caller]
fn denied(s: &mut Session, sql: &str) {
    let code = s.sqlstate(sql);
    assert_eq!(code, "42501", "{sql}");
}

#[test]
fn ordinary_roles_need_nothing_to_have_their_changes_recorded() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); CREATE ROLE roles_writer LOGIN; GRANT INSERT ON t TO roles_writer");
    s.run("CREATE ROLE roles_outsider LOGIN");
    let mut writer = database.connect_as("roles_writer");
    writer.run("INSERT INTO t VALUES (1)");
    denied(&mut writer, "UPDATE t SET id = 2");
    denied(&mut database.connect_as("roles_outsider"), "INSERT INTO t VALUES (3)");
    assert_eq!(changes(&mut s, "t"), [r#"INSERT key={"id":1} new={"id":1}"#]);
    assert_clean(&mut s);
}

#[test]
fn the_owner_of_a_protected_table_can_neither_read_nor_write_the_ledger() {
    let database = database();
    let mut role = owner(&database, "roles_owner");
    role.run("CREATE TABLE t (id int PRIMARY KEY)");
    database.connect().run("SELECT audit.protect('roles_owner.t')");
    role.run("INSERT INTO roles_owner.t VALUES (1)");
    for sql in [
        "SELECT * FROM audit.log",
        "SELECT * FROM audit.protected",
        "SELECT * FROM audit.registry",
        "SELECT * FROM audit.ledger",
        "SELECT * FROM audit.verify()",
        "SELECT * FROM audit.findings()",
        "SELECT * FROM audit.status()",
        "SELECT * FROM audit.export()",
        "SELECT audit.line(1, 1)",
        "SELECT audit.protect('roles_owner.t')",
        "SELECT audit.unprotect('roles_owner.t', 'why not')",
        "INSERT INTO audit.log (id) VALUES (1)",
        "UPDATE audit.log SET id = 1",
        "DELETE FROM audit.log",
        "TRUNCATE audit.log",
        "COPY audit.log FROM '/dev/null'",
        "SELECT nextval('audit.log_id_seq')",
        "SELECT setval('audit.log_id_seq', 1)",
        "DO $$ BEGIN LOCK TABLE audit.log; END $$",
        "CREATE TABLE audit.mine (id int)",
        "ALTER TABLE audit.log DISABLE TRIGGER ALL",
        "DROP EXTENSION audit CASCADE",
        "DROP EVENT TRIGGER audit_ddl",
        "ALTER FUNCTION audit.audit_row() RENAME TO other",
        "SET session_replication_role = replica",
    ] {
        denied(&mut role, sql);
    }
    assert_clean(&mut database.connect());
}

#[test]
fn granted_roles_read_and_verify_and_still_cannot_write() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t VALUES (1);
         CREATE ROLE roles_auditor LOGIN;
         GRANT USAGE ON SCHEMA audit TO roles_auditor;
         GRANT SELECT ON ALL TABLES IN SCHEMA audit TO roles_auditor;
         GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA audit TO roles_auditor; REVOKE EXECUTE ON FUNCTION audit.unprotect FROM roles_auditor",
    );
    let mut auditor = database.connect_as("roles_auditor");
    assert_clean(&mut auditor);
    assert_eq!(auditor.number("SELECT count(*) FROM audit.log"), 2);
    assert_eq!(auditor.number("SELECT count(*) FROM audit.export()"), 2);
    assert_eq!(auditor.number("SELECT protected FROM audit.status()"), 1);
    assert_eq!(auditor.number("SELECT count(*) FROM audit.protected"), 1);
    denied(&mut auditor, "DELETE FROM audit.log");
    denied(&mut auditor, "SELECT audit.unprotect('t', 'x')");

    // Careless grants do not open the log.
    s.run("GRANT ALL ON ALL TABLES IN SCHEMA audit TO roles_auditor; GRANT ALL ON ALL SEQUENCES IN SCHEMA audit TO roles_auditor");
    for sql in [
        "INSERT INTO audit.log SELECT * FROM audit.log",
        "UPDATE audit.log SET id = 1",
        "DELETE FROM audit.log",
        "TRUNCATE audit.log",
        "DELETE FROM audit.registry",
        "INSERT INTO audit.registry SELECT * FROM audit.registry",
        "INSERT INTO audit.ledger SELECT * FROM audit.ledger",
        "DELETE FROM audit.incarnation",
    ] {
        denied(&mut auditor, sql);
    }
    // They are named all the same.
    let found = s.column("SELECT DISTINCT detail FROM audit.findings()");
    assert!(
        !found.is_empty() && found.iter().all(|detail| detail.starts_with("role \"roles_auditor\" may ")),
        "{found:?}"
    );
    s.run("REVOKE ALL ON ALL TABLES IN SCHEMA audit FROM roles_auditor; REVOKE ALL ON ALL SEQUENCES IN SCHEMA audit FROM roles_auditor");
    assert_clean(&mut s);
}

#[test]
fn predefined_roles_cannot_write_the_log() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t VALUES (1);
         CREATE ROLE roles_predefined LOGIN; GRANT pg_write_all_data, pg_read_all_data TO roles_predefined",
    );
    let mut role = database.connect_as("roles_predefined");
    role.run("INSERT INTO t VALUES (2)");
    assert_eq!(role.number("SELECT count(*) FROM audit.log"), 3);
    for sql in [
        "INSERT INTO audit.log SELECT * FROM audit.log",
        "INSERT INTO audit.log (id) VALUES (1)",
        "UPDATE audit.log SET id = 1",
        "DELETE FROM audit.log",
        "INSERT INTO audit.registry SELECT * FROM audit.registry",
        "DELETE FROM audit.registry",
    ] {
        denied(&mut role, sql);
    }
    assert_clean(&mut s);
}

#[test]
fn a_role_that_may_set_the_replica_role_is_recorded_and_guarded() {
    let database = database();
    let mut s = database.connect();
    if s.major() < 15 {
        return;
    }
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t');
         CREATE ROLE roles_replica LOGIN; GRANT ALL ON t TO roles_replica; GRANT pg_write_all_data TO roles_replica;
         GRANT SET ON PARAMETER session_replication_role TO roles_replica; GRANT USAGE ON SCHEMA audit TO roles_replica;
         GRANT ALL ON ALL TABLES IN SCHEMA audit TO roles_replica",
    );
    let mut role = database.connect_as("roles_replica");
    role.run("SET session_replication_role = replica; INSERT INTO t VALUES (1)");
    denied(&mut role, "DELETE FROM audit.log");
    denied(&mut role, "TRUNCATE audit.log");
    assert_eq!(changes(&mut s, "t").len(), 1);
    s.run("REVOKE ALL ON ALL TABLES IN SCHEMA audit FROM roles_replica");
    assert_clean(&mut s);
    s.run("REVOKE SET ON PARAMETER session_replication_role FROM roles_replica");
}

#[test]
fn execute_on_protect_is_not_enough_without_owning_the_table() {
    let database = database();
    let mut role = owner(&database, "roles_delegate");
    let mut s = database.connect();
    s.run(
        "CREATE TABLE public.theirs (id int PRIMARY KEY);
         GRANT USAGE ON SCHEMA audit TO roles_delegate; GRANT EXECUTE ON FUNCTION audit.protect TO roles_delegate;
         GRANT ALL ON public.theirs TO roles_delegate",
    );
    role.run("CREATE TABLE mine (id int PRIMARY KEY); SELECT audit.protect('mine'); INSERT INTO mine VALUES (1)");
    denied(&mut role, "SELECT audit.protect('public.theirs')");
    denied(&mut role, "SELECT audit.unprotect('mine', 'not mine to say')");
    denied(&mut role, "SELECT audit.protect('pg_catalog.pg_class')");
    denied(&mut role, "SELECT * FROM audit.log");
    // A member of the owning role owns it too.
    s.run("CREATE ROLE roles_member LOGIN; GRANT roles_delegate TO roles_member; GRANT USAGE ON SCHEMA audit TO roles_member");
    role.run("CREATE TABLE shared (id int PRIMARY KEY)");
    let mut member = database.connect_as("roles_member");
    member.run("SELECT audit.protect('roles_delegate.shared')");
    assert_eq!(
        s.number(
            "SELECT count(*) FROM audit.log WHERE op = 'PROTECT' AND user_name IN ('roles_delegate', 'roles_member')"
        ),
        2
    );
    assert_clean(&mut s);
}

#[test]
fn an_owner_without_rights_makes_and_attaches_partitions_and_they_are_covered() {
    let database = database();
    let mut role = owner(&database, "roles_partitioner");
    role.run(
        "CREATE TABLE p (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)",
    );
    let mut s = database.connect();
    s.run("SELECT audit.protect('roles_partitioner.p')");
    role.run(
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
         CREATE TABLE p3 (id int NOT NULL, day int NOT NULL, PRIMARY KEY (id, day)); INSERT INTO p3 VALUES (3, 25);
         ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (20) TO (30);
         INSERT INTO p VALUES (1, 1), (2, 12), (4, 26);
         TRUNCATE p2",
    );
    assert_eq!(changes(&mut s, "p2"), [r#"INSERT key={"id":2,"day":12} new={"id":2,"day":12}"#, "TRUNCATE"]);
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE table_name = 'p3' AND op = 'BASELINE'"), 1);
    assert_clean(&mut s);
}

/// The event trigger runs as whoever does the DDL: his search_path and his tables must not get in between.
#[test]
fn an_owner_cannot_hijack_the_event_trigger() {
    let database = database();
    let mut role = owner(&database, "roles_hijacker");
    role.run(
        "CREATE TABLE p (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE FUNCTION pg_event_trigger_ddl_commands() RETURNS SETOF record LANGUAGE sql AS 'SELECT 1, 2 WHERE false';
         CREATE TABLE registry (relation oid); CREATE TABLE pg_inherits (inhrelid oid, inhparent oid); CREATE TABLE log (id int)",
    );
    let mut s = database.connect();
    s.run("SELECT audit.protect('roles_hijacker.p')");
    role.run("SET search_path = roles_hijacker, pg_temp, pg_catalog");
    role.run("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); INSERT INTO p VALUES (1, 1); TRUNCATE p1");
    assert_eq!(changes(&mut s, "p1").len(), 2);
    assert_clean(&mut s);
}

#[test]
fn the_trigger_functions_on_a_table_of_ones_own_forge_nothing() {
    let database = database();
    let mut role = owner(&database, "roles_forger");
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); GRANT USAGE ON SCHEMA audit TO roles_forger",
    );
    s.run(
        r#"DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO roles_forger', current_database()); END $$"#,
    );
    for table in ["CREATE TABLE fake", "CREATE TEMPORARY TABLE fake_temp"] {
        let name = table.rsplit(' ').next().expect("it has words");
        role.run(&format!("{table} (id int PRIMARY KEY)"));
        role.run(&format!("CREATE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON {name} FOR EACH ROW EXECUTE FUNCTION audit.audit_row()"));
        role.run(&format!("CREATE TRIGGER audit_truncate AFTER TRUNCATE ON {name} FOR EACH STATEMENT EXECUTE FUNCTION audit.audit_truncate()"));
        assert_eq!(role.sqlstate(&format!("INSERT INTO {name} VALUES (1)")), "39P01");
        assert_eq!(role.sqlstate(&format!("TRUNCATE {name}")), "39P01");
    }
    // By hand, in whatever form, it neither records nor crashes.
    for call in ["SELECT audit.audit_row()", "SELECT audit.audit_truncate()", "CALL audit.audit_row()"] {
        role.refused(call);
    }
    assert_eq!(s.number("SELECT count(*) FROM audit.log"), 1);
    assert_clean(&mut s);
}

#[test]
fn an_owner_cannot_end_the_recording_of_his_table() {
    let database = database();
    let mut role = owner(&database, "roles_stopper");
    role.run("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)");
    role.run(
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)",
    );
    role.run("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'");
    let mut s = database.connect();
    s.run("SELECT audit.protect('roles_stopper.t'); SELECT audit.protect('roles_stopper.p')");
    for action in [
        "ALTER TABLE t DISABLE TRIGGER audit_row",
        "ALTER TABLE t DISABLE TRIGGER audit_truncate",
        "ALTER TABLE t DISABLE TRIGGER USER",
        "ALTER TABLE t ENABLE TRIGGER audit_row",
        "ALTER TABLE t ENABLE REPLICA TRIGGER audit_row",
        "ALTER TRIGGER audit_row ON t RENAME TO mine",
        "DROP TRIGGER audit_row ON t",
        "DROP TRIGGER audit_truncate ON t",
        "CREATE OR REPLACE TRIGGER audit_row AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing()",
        "ALTER TABLE p1 DISABLE TRIGGER audit_row",
        "DROP TRIGGER audit_truncate ON p1",
        "DO $$ BEGIN ALTER TABLE t DISABLE TRIGGER USER; UPDATE t SET v = 2; ALTER TABLE t ENABLE ALWAYS TRIGGER audit_row; END $$",
        "BEGIN; ALTER TABLE t DISABLE TRIGGER USER; UPDATE t SET v = 2; ALTER TABLE t ENABLE ALWAYS TRIGGER audit_row; COMMIT",
    ] {
        // In a session that has done nothing else, and in one that has.
        denied(&mut database.connect_as("roles_stopper"), action);
        denied(&mut role, action);
        role.run("ROLLBACK");
        assert_clean(&mut s);
    }
    // What ends no recording is his to do.
    role.run("CREATE TRIGGER mine AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing(); ALTER TABLE t DISABLE TRIGGER mine");
    role.run(
        "DROP TRIGGER mine ON t; CREATE INDEX ON t (v); UPDATE t SET v = 3; CREATE TABLE other (id int); DROP TABLE p1",
    );
    assert_eq!(changes(&mut s, "t").len(), 1);
    // A superuser may, and it is found; the owner is not held up by that in what he does elsewhere.
    s.run("ALTER TABLE roles_stopper.t DISABLE TRIGGER audit_row");
    assert!(s.column("SELECT relation FROM audit.findings()").contains(&"roles_stopper.t".to_owned()));
    role.run("CREATE TABLE another (id int); DROP TABLE another");
}

#[test]
fn dropping_what_an_owner_owns_never_takes_the_extension_with_it() {
    let database = database();
    let mut role = owner(&database, "roles_dropper");
    role.run("CREATE TYPE mood AS ENUM ('good'); CREATE DOMAIN word AS text; CREATE TABLE t (id int PRIMARY KEY, m mood, w word); CREATE TABLE u (id int PRIMARY KEY)");
    let mut s = database.connect();
    s.run("SELECT audit.protect('roles_dropper.t'); SELECT audit.protect('roles_dropper.u')");
    role.run("INSERT INTO t VALUES (1, 'good', 'w'); DROP TYPE mood CASCADE; DROP DOMAIN word CASCADE");
    role.run("INSERT INTO t VALUES (2); DROP TABLE u CASCADE; DROP SCHEMA roles_dropper CASCADE");
    assert_eq!(s.number("SELECT count(*) FROM pg_extension WHERE extname = 'audit'"), 1);
    assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'INSERT'"), 2);
    let found = s.column("SELECT DISTINCT kind || ' ' || relation FROM audit.findings() ORDER BY 1");
    assert_eq!(found, ["coverage roles_dropper.t", "coverage roles_dropper.u"]);
}

/// Verification runs as a superuser over tables of people who would like him to run their code.
#[test]
fn verifying_does_not_run_the_owners_code() {
    let database = database();
    let mut role = owner(&database, "roles_trapper");
    role.run(
        "CREATE FUNCTION trap() RETURNS int LANGUAGE plpgsql VOLATILE AS $$
           BEGIN IF current_user <> 'roles_trapper' THEN RAISE EXCEPTION 'ran as %', current_user; END IF; RETURN 1; END $$;
         CREATE FUNCTION stable_trap(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
           BEGIN IF current_user <> 'roles_trapper' THEN RAISE EXCEPTION 'ran as %', current_user; END IF; RETURN $1; END $$;
         CREATE FUNCTION row_trap(int) RETURNS bool LANGUAGE plpgsql AS $$
           BEGIN IF current_user <> 'roles_trapper' THEN RAISE EXCEPTION 'ran as %', current_user; END IF; RETURN true; END $$;
         CREATE TABLE t (id int PRIMARY KEY, v int DEFAULT trap(), g int GENERATED ALWAYS AS (stable_trap(1)) STORED, CHECK (row_trap(v)));
         CREATE INDEX ON t (stable_trap(v));
         ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;
         CREATE POLICY p ON t USING (row_trap(v)) WITH CHECK (true);
         INSERT INTO t (id) VALUES (1)",
    );
    let mut s = database.connect();
    s.run("SELECT audit.protect('roles_trapper.t')");
    role.run("UPDATE t SET v = 2");
    assert_clean(&mut s);
    // A view in place of the table
    role.run("ALTER TABLE t RENAME TO hidden; CREATE VIEW t AS SELECT id, trap() AS v, 1 AS g FROM hidden");
    let found = s.column("SELECT kind FROM audit.findings()");
    assert!(found.iter().all(|kind| kind == "coverage"), "{found:?}");
}

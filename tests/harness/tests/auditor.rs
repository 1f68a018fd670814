//! An auditor can read and verify and do nothing else; what he may not read he is not shown, and its absence is no alarm.

use audit_tests::{Session, assert_clean, database, findings};

const TABLES: &str = "
    CREATE TABLE open_to_him (id int PRIMARY KEY, v text); CREATE TABLE closed (id int PRIMARY KEY, v text);
    CREATE TABLE by_row (id int PRIMARY KEY, v text); ALTER TABLE by_row ENABLE ROW LEVEL SECURITY;
    CREATE POLICY few ON by_row USING (id < 10); CREATE TABLE by_column (id int PRIMARY KEY, v text);
    SELECT audit.protect('open_to_him'), audit.protect('closed'), audit.protect('by_row'), audit.protect('by_column');
    INSERT INTO open_to_him VALUES (1, 'seen'); INSERT INTO closed VALUES (1, 'secret of closed');
    INSERT INTO by_row VALUES (1, 'few'), (20, 'secret of by_row'); INSERT INTO by_column VALUES (1, 'secret of by_column'); SELECT audit.seal()";

/// A role for one test, which has what audit.grant_auditor() gives and SELECT on what it may see.
fn auditor(s: &mut Session, role: &str) {
    s.run(&format!(
        "CREATE ROLE {role} LOGIN; SELECT audit.grant_auditor('{role}');
         GRANT SELECT ON open_to_him, by_row TO {role}; GRANT SELECT (id) ON by_column TO {role}"
    ));
}

#[test]
fn an_auditor_is_granted_what_is_documented_and_nothing_else() {
    let database = database();
    let mut s = database.connect();
    s.run("CREATE ROLE auditor_rights LOGIN; SELECT audit.grant_auditor('auditor_rights')");
    let mut granted = s.column(
        "SELECT p.privilege_type || ' ' || o.name FROM (
           SELECT nspname::text AS name, nspacl AS acl FROM pg_namespace
           UNION ALL SELECT oid::regclass::text, relacl FROM pg_class
           UNION ALL SELECT proname::text, proacl FROM pg_proc
           UNION ALL SELECT datname::text, datacl FROM pg_database) AS o, aclexplode(o.acl) AS p
         WHERE p.grantee = 'auditor_rights'::regrole",
    );
    granted.sort();
    let documented = [
        "EXECUTE checkpoint",
        "EXECUTE consistency_proof",
        "EXECUTE export",
        "EXECUTE export_seals",
        "EXECUTE findings",
        "EXECUTE guard_level",
        "EXECUTE inclusion_proof",
        "EXECUTE line",
        "EXECUTE log_state",
        "EXECUTE public_key",
        "EXECUTE sealer",
        "EXECUTE status",
        "EXECUTE trigger_states",
        "EXECUTE verify",
        "EXECUTE verify_inclusion",
        "SELECT audit.ledger",
        "SELECT audit.log",
        "SELECT audit.protected",
        "SELECT audit.registry",
        "SELECT audit.seal",
        "USAGE audit",
    ];
    assert_eq!(granted, documented);
    assert!(s.holds("SELECT NOT EXISTS (SELECT FROM pg_auth_members WHERE member = 'auditor_rights'::regrole)"));
    let documentation = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sql-reference.md"))
        .expect("it is part of the repository");
    let section = documentation.split("### audit.grant_auditor").nth(1).expect("it has a section");
    let section = section.split("\n### ").next().expect("there is always a first piece");
    for right in documented {
        let name = right.split(' ').nth(1).expect("two words");
        assert!(
            section.contains(&format!("`audit.{}`", name.trim_start_matches("audit."))) || name == "audit",
            "{right} is not documented"
        );
    }
    // Twice is once.
    s.run("SELECT audit.grant_auditor('auditor_rights')");
    s.run("DROP OWNED BY auditor_rights; DROP ROLE auditor_rights");
}

#[test]
fn an_auditor_can_do_all_that_verifying_needs() {
    let database = database();
    let mut s = database.connect();
    s.run(TABLES);
    auditor(&mut s, "auditor_works");
    let mut a = database.connect_as("auditor_works");
    a.run("SET default_transaction_read_only = on");
    assert_clean(&mut a);
    let kept = a.text("SELECT audit.checkpoint()");
    a.run(&format!("SELECT * FROM audit.verify('{kept}'); SELECT * FROM audit.findings('{kept}', since_seal => 1)"));
    assert_eq!(a.number("SELECT count(*) FROM audit.log"), a.number("SELECT count(*) FROM audit.export()"));
    assert_eq!(a.number("SELECT protected FROM audit.status()"), 4);
    assert_eq!(a.number("SELECT count(*) FROM audit.protected WHERE row_trigger = 'ok' AND entries > 0"), 4);
    assert_eq!(a.number("SELECT count(*) FROM audit.export_seals()"), 1);
    a.run("SELECT audit.line(chain, seq), audit.verify_inclusion(audit.line(chain, seq), audit.inclusion_proof(chain, seq)) FROM audit.log");
    a.run(&format!(
        "SELECT audit.consistency_proof('{kept}'); SELECT * FROM audit.public_key(); SELECT * FROM audit.sealer()"
    ));
}

#[test]
fn an_auditor_changes_nothing() {
    let database = database();
    let mut s = database.connect();
    s.run(TABLES);
    auditor(&mut s, "auditor_writes");
    let before = s.text("SELECT md5(string_agg(l::text, '' ORDER BY id)) FROM audit.log l");
    let mut a = database.connect_as("auditor_writes");
    for attempt in [
        "SELECT audit.seal()",
        "SELECT audit.protect('open_to_him')",
        "SELECT audit.unprotect('open_to_him', 'x')",
        "SELECT audit.set_context('{}')",
        "SELECT audit.grant_auditor('auditor_writes')",
        "INSERT INTO audit.log SELECT * FROM audit.log",
        "DELETE FROM audit.log",
        "TRUNCATE audit.log",
        "SELECT nextval('audit.log_id_seq')",
        "DO $$ BEGIN LOCK TABLE audit.log IN SHARE MODE; END $$",
        "DO $$ BEGIN LOCK TABLE audit.log IN ROW EXCLUSIVE MODE; END $$",
        "SELECT * FROM audit.log FOR UPDATE",
        "UPDATE open_to_him SET v = 'x'",
        "TABLE closed",
        "CREATE TABLE audit.mine (id int)",
    ] {
        assert_eq!(a.sqlstate(attempt), "42501", "{attempt}");
    }
    assert_eq!(s.text("SELECT md5(string_agg(l::text, '' ORDER BY id)) FROM audit.log l"), before);
}

/// Rows of tables that he may not read, or not wholly, were changed behind the triggers: the superuser is told, the auditor is told that he cannot know.
#[test]
fn what_an_auditor_may_not_read_is_neither_shown_nor_an_alarm() {
    let database = database();
    let mut s = database.connect();
    s.run(TABLES);
    auditor(&mut s, "auditor_blind");
    for table in ["closed", "by_row", "by_column"] {
        s.run(&format!(
            "ALTER TABLE {table} DISABLE TRIGGER audit_row; UPDATE {table} SET v = 'forged ' || v; ALTER TABLE {table} ENABLE ALWAYS TRIGGER audit_row"
        ));
    }
    let mut a = database.connect_as("auditor_blind");
    assert_eq!(findings(&mut a), []);
    let detail = a.text("SELECT detail FROM audit.verify() WHERE what = 'table' AND ok");
    for table in ["closed", "by_row", "by_column"] {
        assert!(detail.contains(&format!("public.{table} not compared, for want of the right to read it")), "{detail}");
    }
    assert!(detail.contains("1 row in 1 table compared"), "{detail}");
    let told: Vec<String> = findings(&mut s).into_iter().map(|finding| finding.to_string()).collect();
    for table in ["closed", "by_row", "by_column"] {
        assert!(told.contains(&format!("table public.{table}")), "{told:?}");
    }
    // With the right to read it, he is told as well, and of the others still not.
    s.run("GRANT SELECT ON closed TO auditor_blind");
    let told: Vec<String> =
        findings(&mut a).into_iter().map(|finding| format!("{finding}: {}", finding.detail)).collect();
    assert!(
        told.len() == 1 && told[0].starts_with("table public.closed") && told[0].contains("forged secret of closed"),
        "{told:?}"
    );
    s.run("GRANT pg_read_all_data TO auditor_blind; ALTER ROLE auditor_blind BYPASSRLS");
    assert_eq!(findings(&mut database.connect_as("auditor_blind")).len(), 4);
}

#[test]
fn only_the_owner_of_the_log_can_grant() {
    let database = database();
    let mut s = database.connect();
    s.run(
        "CREATE ROLE auditor_grants LOGIN; CREATE ROLE auditor_granted; GRANT USAGE ON SCHEMA audit TO auditor_grants;
         GRANT EXECUTE ON FUNCTION audit.grant_auditor TO auditor_grants",
    );
    let mut role = database.connect_as("auditor_grants");
    for target in ["auditor_grants", "auditor_granted"] {
        let error = role.refused(&format!("SELECT audit.grant_auditor('{target}')"));
        assert_eq!((error.code().code(), error.message()), ("42501", "must be owner of table \"audit.log\""));
        assert!(s.holds(&format!("SELECT NOT has_table_privilege('{target}', 'audit.log', 'SELECT')")));
    }
    let error = s.refused("SELECT audit.grant_auditor(0::regrole)");
    assert_eq!((error.code().code(), error.message()), ("42704", "role with OID 0 does not exist"));
    s.refused("SELECT audit.grant_auditor(NULL)");
    s.run(r#"CREATE ROLE "auditor""; DROP TABLE audit.log; --"; SELECT audit.grant_auditor('"auditor""; DROP TABLE audit.log; --"')"#);
    assert!(s.holds(r#"SELECT has_table_privilege('auditor"; DROP TABLE audit.log; --', 'audit.log', 'SELECT')"#));
    // A path of the caller catches nothing.
    s.run("CREATE SCHEMA trap; CREATE TABLE trap.log (id int); SET search_path = trap, pg_temp; SELECT audit.grant_auditor('auditor_granted')");
    assert!(s.holds("SELECT has_table_privilege('auditor_granted', 'audit.log', 'SELECT') AND NOT has_table_privilege('auditor_granted', 'trap.log', 'SELECT')"));
}

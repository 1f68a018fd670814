//! Rights gained through the extension, and its code turned against it.

use super::{APP, DATABASE_OWNER, OWNER, Outcome, SUPERUSER, Scene, cluster, run_all};

/// Triggers that bear our names and do nothing are never taken for ours.
#[test]
fn decoys_under_our_names_are_never_taken_for_our_triggers() {
    let mut scene = Scene::new(
        "CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO attacks_owner; CREATE TABLE u (id int PRIMARY KEY);
         CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        &["public.t"],
    );
    run_all(
        &mut scene.database.connect_as(OWNER),
        &[
            "CREATE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION nothing()",
            "ALTER TABLE t ENABLE ALWAYS TRIGGER audit_row",
        ],
    );
    // It cannot be protected until they are gone, and says so; it is not "protected" by them.
    scene.attack(SUPERUSER, &["SELECT audit.protect('t')"]).assert_refused();
    assert_eq!(scene.witness.number("SELECT count(*) FROM audit.registry"), 0);
    scene
        .attack(SUPERUSER, &["DROP TRIGGER audit_row ON t", "SELECT audit.protect('t')"])
        .assert_recorded(&["PROTECT t"]);
    scene.attack(OWNER, &["INSERT INTO t VALUES (1)"]).assert_recorded(&["INSERT t"]);
}

#[test]
fn no_setting_is_a_way_around() {
    let mut scene = Scene::account();
    let names = scene.database.connect().column("LOAD 'audit'; SELECT name FROM pg_settings WHERE name LIKE 'audit.%'");
    let names = names.iter().filter(|name| !name.is_empty());
    let invented =
        ["audit.in_trigger", "audit.ddl", "audit.maintenance", "audit.enabled", "audit.bypass"].map(str::to_owned);
    let values = ["on", "off", "1", "0", "-1", "", "{}", "true", "x"];
    let mut changes = 0;
    for name in names.chain(&invented) {
        for value in values {
            changes += 1;
            let change = format!("UPDATE account SET balance = {changes} WHERE id = 2");
            scene.attack(APP, &[&format!("SET {name} = '{value}'"), &change]).assert_recorded(&["UPDATE account"]);
        }
    }
    // In a session that knows the names, too
    let mut s = scene.database.connect_as(APP);
    run_all(&mut s, &["UPDATE account SET balance = 0", "SELECT 1"]);
    for name in &invented {
        s.refused(&format!("SET {name} = 'on'"));
    }
    scene.assert_clean();
}

#[test]
fn whoever_owns_the_database_can_neither_create_nor_drop_nor_alter_the_extension() {
    let cluster = cluster();
    let name = "attacks_theirs";
    cluster.connect("postgres").run(&format!("CREATE DATABASE {name} OWNER {DATABASE_OWNER}"));
    let mut theirs = cluster.connect_as(name, DATABASE_OWNER);
    theirs.refused("CREATE EXTENSION audit");
    let mut s = cluster.connect(name);
    assert_eq!(s.number("SELECT count(*) FROM pg_extension WHERE extname = 'audit'"), 0);
    s.run("CREATE EXTENSION audit");
    for attack in [
        "DROP EXTENSION audit",
        "DROP EXTENSION audit CASCADE",
        "ALTER EXTENSION audit UPDATE",
        "ALTER EXTENSION audit DROP TABLE audit.log",
        "DROP SCHEMA audit CASCADE",
        "ALTER SCHEMA audit OWNER TO attacks_database_owner",
        "ALTER SCHEMA audit RENAME TO other",
        "REASSIGN OWNED BY postgres TO attacks_database_owner",
        "DROP OWNED BY postgres",
        "CREATE TABLE audit.mine ()",
        "GRANT ALL ON SCHEMA audit TO attacks_database_owner",
        "ALTER EVENT TRIGGER audit_ddl DISABLE",
        "COMMENT ON EXTENSION audit IS 'mine'",
    ] {
        // A right that is not there makes GRANT a warning.
        if theirs.batch_execute(attack).is_ok() {
            println!("no error: {attack}");
        }
        assert!(
            s.holds("SELECT count(*) = 1 AND bool_and(extowner = 10) FROM pg_extension WHERE extname = 'audit'")
                && s.holds("SELECT nspowner = 10 AND nspacl::text !~ 'attacks' IS NOT FALSE FROM pg_namespace WHERE nspname = 'audit'")
                && s.holds("SELECT evtenabled = 'A' FROM pg_event_trigger WHERE evtname = 'audit_ddl'")
                && s.holds("SELECT to_regclass('audit.mine') IS NULL AND to_regclass('audit.log') IS NOT NULL"),
            "{attack}"
        );
    }
    audit_tests::assert_clean(&mut s);
}

/// Whatever was planted before the extension came is not taken for a part of it.
#[test]
fn a_planted_schema_stops_the_installation() {
    let database = cluster().bare_database();
    let mut s = database.connect();
    s.run(&format!(r#"GRANT CREATE ON DATABASE "{}" TO {OWNER}"#, database.name));
    let mut owner = database.connect_as(OWNER);
    owner.run(
        "CREATE SCHEMA audit; CREATE TABLE audit.log (id bigint); GRANT USAGE ON SCHEMA audit TO PUBLIC;
         CREATE FUNCTION audit.audit_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    );
    assert_eq!(s.sqlstate("CREATE EXTENSION audit"), "42P06");
    assert_eq!(s.number("SELECT count(*) FROM pg_extension WHERE extname = 'audit'"), 0);
    owner.run("DROP SCHEMA audit CASCADE");
    s.run("CREATE EXTENSION audit");
    audit_tests::assert_clean(&mut s);
}

#[test]
fn default_privileges_open_nothing() {
    let database = cluster().bare_database();
    let mut s = database.connect();
    s.run(&format!(
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {APP}, PUBLIC; ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO {APP};
         ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO {APP}; ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO {APP}, PUBLIC;
         CREATE EXTENSION audit"
    ));
    let open = s.column(&format!(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE relnamespace = 'audit'::regnamespace AND relkind IN ('r', 'v')
           AND has_table_privilege('{APP}', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
         UNION ALL SELECT c.oid::regclass::text FROM pg_class c WHERE relnamespace = 'audit'::regnamespace
           AND CASE WHEN relkind = 'S' THEN has_sequence_privilege('{APP}', c.oid, 'SELECT, UPDATE, USAGE') END
         UNION ALL SELECT p.oid::regprocedure::text FROM pg_proc p WHERE pronamespace = 'audit'::regnamespace
           AND has_function_privilege('{APP}', p.oid, 'EXECUTE') AND proname NOT IN ('audit_row', 'audit_truncate')
         UNION ALL SELECT 'schema' WHERE has_schema_privilege('{APP}', 'audit', 'USAGE, CREATE')"
    ));
    assert!(open.is_empty(), "{open:?}");
    s.run(&format!("DROP OWNED BY {APP}"));
}

/// What the owner can hang on his table runs with nobody's rights but those of whoever uses the table.
#[test]
fn nothing_that_hangs_on_a_table_runs_with_the_rights_of_the_auditor() {
    let mut scene = Scene::new("CREATE TABLE loot (who text); GRANT ALL ON loot TO PUBLIC", &["public.loot"]);
    run_all(
        &mut scene.database.connect_as(OWNER),
        &[
            "CREATE FUNCTION grab() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
               IF current_user <> 'attacks_owner' AND current_user <> 'attacks_app' THEN
                 EXECUTE 'ALTER ROLE attacks_owner SUPERUSER'; END IF;
               RETURN 1; END $$",
            "CREATE TYPE mood AS ENUM ('good', 'bad')",
            "CREATE FUNCTION grab(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM grab(); RETURN '1'; END $$",
            "CREATE FUNCTION grab_text(mood) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM grab(); RETURN '1'; END $$",
            "CREATE FUNCTION grab_eq(mood, mood) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN PERFORM grab(); RETURN true; END $$",
            "CREATE CAST (mood AS json) WITH FUNCTION grab(mood) AS IMPLICIT",
            "CREATE CAST (mood AS text) WITH FUNCTION grab_text(mood) AS IMPLICIT",
            "CREATE OPERATOR = (LEFTARG = mood, RIGHTARG = mood, FUNCTION = grab_eq)",
            "CREATE FUNCTION grab_cmp(mood, mood) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM grab(); RETURN 0; END $$",
            "CREATE DOMAIN word AS text CHECK (grab() = 1)",
            "CREATE FUNCTION grab_fixed(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN grab(); END $$",
            "CREATE TABLE trap (id int PRIMARY KEY, m mood, w word, v int DEFAULT grab(), g int GENERATED ALWAYS AS (grab_fixed(1)) STORED, CHECK (grab() = 1))",
            "CREATE FUNCTION grab(trap) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM grab(); RETURN '1'; END $$",
            "CREATE CAST (trap AS json) WITH FUNCTION grab(trap) AS IMPLICIT",
            "CREATE INDEX ON trap (grab_fixed(id))",
            "ALTER TABLE trap ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY p ON trap USING (grab() = 1)",
            "INSERT INTO trap (id, m, w) VALUES (1, 'good', 'x')",
            "CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM grab(); RETURN NEW; END $$",
            "CREATE TRIGGER fire BEFORE INSERT OR UPDATE ON trap FOR EACH ROW EXECUTE FUNCTION fire()",
            "GRANT ALL ON trap TO attacks_app",
        ],
    );
    let mut s = scene.database.connect();
    s.run("SELECT audit.protect('trap')");
    run_all(
        &mut scene.database.connect_as(OWNER),
        &["UPDATE trap SET m = 'bad'", "ALTER TABLE trap ADD COLUMN more mood DEFAULT 'good'"],
    );
    run_all(&mut scene.database.connect_as(APP), &["INSERT INTO trap (id, m, w) VALUES (2, 'good', 'y')"]);
    // Behind the triggers, so that rows are looked at one by one and shown.
    s.run(
        "BEGIN; ALTER TABLE trap DISABLE TRIGGER USER; ALTER TABLE trap ADD COLUMN x mood; COMMIT;
         BEGIN; UPDATE pg_trigger SET tgenabled = 'D' WHERE tgrelid = 'trap'::regclass; COMMIT;",
    );
    s.run("SELECT * FROM audit.verify(); SELECT * FROM audit.findings(); TABLE audit.protected; SELECT * FROM audit.export()");
    s.run("SELECT audit.seal(); SELECT audit.checkpoint(); SELECT * FROM audit.status(); SELECT audit.unprotect('trap', 'enough')");
    assert!(!s.holds("SELECT rolsuper FROM pg_roles WHERE rolname = 'attacks_owner'"));
    scene.attack(SUPERUSER, &["SELECT 1"]).assert_refused();
}

/// An owner's own trigger in the same statement has no more rights over the log than he has.
#[test]
fn a_trigger_of_the_owner_cannot_write_the_log() {
    let mut scene = Scene::account();
    run_all(
        &mut scene.database.connect_as(OWNER),
        &[
            "CREATE FUNCTION forge() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
               DECLARE statement text; BEGIN
                 FOREACH statement IN ARRAY ARRAY['DELETE FROM audit.log', 'UPDATE audit.log SET user_name = NULL', 'TRUNCATE audit.log',
                     'INSERT INTO audit.log SELECT * FROM audit.log', 'SELECT setval(''audit.log_id_seq'', 1)', 'LOCK TABLE audit.log',
                     'ALTER TABLE account DISABLE TRIGGER USER', 'DROP TRIGGER audit_row ON account'] LOOP
                   BEGIN EXECUTE statement; EXCEPTION WHEN OTHERS THEN NULL; END;
                 END LOOP;
                 RETURN NEW; END $$",
            r#"CREATE TRIGGER " first" BEFORE UPDATE ON account FOR EACH ROW EXECUTE FUNCTION forge()"#,
            "CREATE TRIGGER zz_last AFTER UPDATE ON account FOR EACH ROW EXECUTE FUNCTION forge()",
        ],
    );
    scene.attack(APP, &["UPDATE account SET balance = 7 WHERE id = 1"]).assert_recorded(&["UPDATE account"]);
}

/// Our functions on tables that nobody protected, in every form that the server takes.
#[test]
fn our_trigger_functions_record_nothing_for_tables_of_others() {
    let mut scene = Scene::account();
    scene.database.connect().run("GRANT USAGE ON SCHEMA audit TO attacks_app");
    let mut statements = Vec::new();
    let mut number = 0;
    for function in ["audit_row", "audit_truncate", "audit_guard"] {
        for form in [
            "BEFORE INSERT OR UPDATE OR DELETE ON {t} FOR EACH ROW",
            "AFTER INSERT OR UPDATE OR DELETE ON {t} FOR EACH ROW",
            "AFTER INSERT OR UPDATE OR DELETE ON {t} FOR EACH STATEMENT",
            "BEFORE TRUNCATE ON {t} FOR EACH STATEMENT",
            "AFTER TRUNCATE ON {t} FOR EACH STATEMENT",
            "AFTER UPDATE OF id ON {t} FOR EACH ROW",
            "AFTER INSERT ON {t} FOR EACH ROW WHEN (NEW.id > 0)",
            "AFTER INSERT ON {t} REFERENCING NEW TABLE AS added FOR EACH ROW",
            "AFTER INSERT ON {t} REFERENCING NEW TABLE AS added FOR EACH STATEMENT",
        ] {
            for (kind, arguments) in [("TABLE", ""), ("TEMPORARY TABLE", "'account', '1'")] {
                number += 1;
                let table = format!("fake_{number}");
                let name = if number % 2 == 0 { function } else { "mine" };
                statements.push(format!("CREATE {kind} {table} (id int PRIMARY KEY, owner text, balance int)"));
                statements.push(format!(
                    "CREATE TRIGGER {name} {} EXECUTE FUNCTION audit.{function}({arguments})",
                    form.replace("{t}", &table)
                ));
                for change in ["INSERT INTO {t} VALUES (1)", "UPDATE {t} SET id = 2", "DELETE FROM {t}", "TRUNCATE {t}"]
                {
                    statements.push(change.replace("{t}", &table));
                }
            }
        }
        statements.push(format!("CREATE VIEW view_{number} AS SELECT 1 AS id"));
        statements.push(format!("CREATE TRIGGER v INSTEAD OF INSERT OR UPDATE OR DELETE ON view_{number} FOR EACH ROW EXECUTE FUNCTION audit.{function}()"));
        statements.push(format!("INSERT INTO view_{number} VALUES (1)"));
        statements.push(format!("DELETE FROM view_{number}"));
        statements.push(format!("CREATE TABLE fake_c_{number} (id int PRIMARY KEY)"));
        statements.push(format!("CREATE CONSTRAINT TRIGGER c AFTER INSERT ON fake_c_{number} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit.{function}()"));
        statements.push(format!("INSERT INTO fake_c_{number} VALUES (1)"));
    }
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    let outcome = scene.attack_by(|database| {
        let mut s = database.connect_as(APP);
        let pid = s.backend_pid();
        run_all(&mut s, &statements);
        assert_eq!(s.backend_pid(), pid, "the backend has ended");
    });
    assert!(matches!(outcome, Outcome::Nothing), "{outcome:#?}");
}

/// A second trigger with our function on a protected table would write each change twice.
#[test]
fn our_trigger_functions_record_nothing_twice() {
    let mut scene = Scene::account();
    scene.database.connect().run("GRANT USAGE ON SCHEMA audit TO attacks_owner");
    scene
        .attack(
            OWNER,
            &[
                "CREATE TRIGGER mine AFTER INSERT OR UPDATE OR DELETE ON account FOR EACH ROW EXECUTE FUNCTION audit.audit_row()",
                "UPDATE account SET balance = 1",
                "DROP TRIGGER IF EXISTS mine ON account",
            ],
        )
        .assert_recorded(&["UPDATE account", "UPDATE account"]);
}

/// A DROP of what an owner owns takes neither the extension nor another's table along.
#[test]
fn cascades_stay_among_the_objects_of_their_owner() {
    let mut scene = Scene::account();
    run_all(
        &mut scene.database.connect_as(OWNER),
        &["CREATE TYPE mood AS ENUM ('good')", "CREATE TABLE mine (id int PRIMARY KEY, m mood)"],
    );
    scene.database.connect().run("SELECT audit.protect('mine')");
    let outcome = scene.attack(
        OWNER,
        &["INSERT INTO mine VALUES (1, 'good')", "DROP TYPE mood CASCADE", "DROP OWNED BY attacks_owner CASCADE"],
    );
    assert!(!matches!(outcome, Outcome::Escaped), "{outcome:#?}");
    let mut s = scene.database.connect();
    assert_eq!(s.number("SELECT count(*) FROM pg_extension WHERE extname = 'audit'"), 1);
    assert!(s.holds("SELECT count(*) >= 5 FROM audit.log"));
}

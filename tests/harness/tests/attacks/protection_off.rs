//! Changing data with the protection switched off, taken away, gone round or undermined.

use super::{ACCOUNT, APP, OWNER, Outcome, SUPERUSER, Scene, cluster, run_all};

/// What an owner can think of to be recorded no more, each followed by a change.
#[test]
fn an_owner_who_switches_the_triggers_off_gets_no_change_past_the_log() {
    for off in [
        "ALTER TABLE account DISABLE TRIGGER audit_row",
        "ALTER TABLE account DISABLE TRIGGER USER",
        "ALTER TABLE ONLY account DISABLE TRIGGER USER",
        "ALTER TABLE account ENABLE REPLICA TRIGGER audit_row",
        "ALTER TABLE account ENABLE TRIGGER audit_row",
        "DROP TRIGGER audit_row ON account",
        "DROP TRIGGER audit_row ON account; CREATE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON account FOR EACH ROW EXECUTE FUNCTION audit.audit_row()",
        "CREATE OR REPLACE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON account FOR EACH ROW WHEN (false) EXECUTE FUNCTION audit.audit_row()",
        "CREATE OR REPLACE TRIGGER audit_row AFTER UPDATE OF owner ON account FOR EACH ROW EXECUTE FUNCTION audit.audit_row()",
        "CREATE OR REPLACE TRIGGER audit_row AFTER UPDATE ON account FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "ALTER TRIGGER audit_row ON account RENAME TO other",
        "ALTER TRIGGER audit_truncate ON account RENAME TO other",
    ] {
        println!("off: {off}");
        let mut scene = Scene::account();
        scene.database.connect().run("GRANT USAGE ON SCHEMA audit TO attacks_owner");
        let block = format!(
            "DO $do$ BEGIN {off}; UPDATE account SET balance = 7; ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row; END $do$"
        );
        scene.attack(OWNER, &[&block]).assert_refused();
        scene.attack(OWNER, &["BEGIN", off, "UPDATE account SET balance = 7", "COMMIT"]).assert_refused();
        scene.attack(OWNER, &[off]).assert_refused();
        scene.attack(OWNER, &["UPDATE account SET balance = 8 WHERE id = 1"]).assert_recorded(&["UPDATE account"]);
    }
}

/// A trigger that depends on an extension goes with it.
#[test]
fn a_trigger_made_to_depend_on_an_extension_does_not_go_unseen() {
    let mut scene = Scene::account();
    // Any extension that an owner may create and drop.
    scene.database.connect().run("GRANT USAGE ON SCHEMA audit TO attacks_owner");
    let trusted = scene.witness.column("SELECT name FROM pg_available_extension_versions WHERE trusted AND superuser AND name IN ('hstore', 'citext', 'pg_trgm') LIMIT 1");
    let extension = trusted.first().cloned().unwrap_or_default();
    let role = if extension.is_empty() { SUPERUSER } else { OWNER };
    // Without one at hand a superuser does it, with the language that every database has.
    let extension = if extension.is_empty() { "plpgsql".to_owned() } else { extension };
    scene
        .attack(
            role,
            &[
                &format!("CREATE EXTENSION IF NOT EXISTS {extension}"),
                &format!("ALTER TRIGGER audit_row ON account DEPENDS ON EXTENSION {extension}"),
                &format!("DROP EXTENSION {extension}"),
                "UPDATE account SET balance = 7 WHERE id = 1",
            ],
        )
        .does_not_escape();
}

const PARTITIONED: &str = "
    CREATE TABLE p (id int, k text, v int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
    CREATE TABLE p_a PARTITION OF p FOR VALUES IN ('a'); CREATE TABLE p_b PARTITION OF p FOR VALUES IN ('b');
    INSERT INTO p VALUES (1, 'a', 1), (2, 'b', 2);
    ALTER TABLE p OWNER TO attacks_owner; ALTER TABLE p_a OWNER TO attacks_owner; ALTER TABLE p_b OWNER TO attacks_owner;
    SELECT audit.protect('p')";

#[test]
fn partitions_taken_off_changed_and_put_back_do_not_escape() {
    for attack in [
        &[
            "ALTER TABLE p DETACH PARTITION p_a",
            "UPDATE p_a SET v = 7",
            "ALTER TABLE p ATTACH PARTITION p_a FOR VALUES IN ('a')",
        ][..],
        &[
            "BEGIN",
            "ALTER TABLE p DETACH PARTITION p_a",
            "UPDATE p_a SET v = 7",
            "ALTER TABLE p ATTACH PARTITION p_a FOR VALUES IN ('a')",
            "COMMIT",
        ],
        &["ALTER TABLE p DETACH PARTITION p_a", "UPDATE p_a SET v = 7"],
        &["ALTER TABLE p DETACH PARTITION p_a CONCURRENTLY", "UPDATE p_a SET v = 7"],
        &["DROP TABLE p_a"],
        &["ALTER TABLE p_a DISABLE TRIGGER USER", "UPDATE p SET v = 7"],
        &["ALTER TABLE ONLY p DISABLE TRIGGER USER", "UPDATE p SET v = 7"],
        &[
            "ALTER TABLE p DETACH PARTITION p_a",
            "CREATE TABLE p_x PARTITION OF p FOR VALUES IN ('a')",
            "INSERT INTO p VALUES (1, 'a', 7)",
        ],
        &[
            "CREATE TABLE p_c (id int NOT NULL, k text NOT NULL, v int, PRIMARY KEY (id, k))",
            "INSERT INTO p_c VALUES (9, 'c', 9)",
            "ALTER TABLE p ATTACH PARTITION p_c FOR VALUES IN ('c')",
        ],
    ] {
        println!("attack: {attack:?}");
        let mut scene = Scene::new(PARTITIONED, &["public.p"]);
        scene.attack(OWNER, attack).does_not_escape();
    }
}

#[test]
fn children_that_add_rows_to_a_table_do_not_escape() {
    let mut scene = Scene::account();
    scene
        .attack(OWNER, &["CREATE TABLE child () INHERITS (account)", "INSERT INTO child VALUES (9, 'eve', 1000000)"])
        .assert_recorded(&["PROTECT child", "INSERT child"]);
    let mut scene = Scene::account();
    scene
        .attack(
            OWNER,
            &[
                "CREATE TABLE child (id int NOT NULL, owner text, balance int)",
                "INSERT INTO child VALUES (9, 'eve', 1000000)",
                "ALTER TABLE child INHERIT account",
            ],
        )
        .assert_recorded(&["PROTECT child", "BASELINE child"]);
}

/// DDL that changes what rows say.
#[test]
fn ddl_that_changes_data_does_not_escape() {
    for attack in [
        "ALTER TABLE account ALTER COLUMN balance TYPE int USING balance * 10",
        "ALTER TABLE account ALTER COLUMN balance TYPE bigint USING balance * 10",
        "ALTER TABLE account ALTER COLUMN owner TYPE varchar(100) USING 'eve'",
        "ALTER TABLE account DROP COLUMN balance, ADD COLUMN balance int DEFAULT 1000000",
        "ALTER TABLE account DROP COLUMN balance; ALTER TABLE account ADD COLUMN balance int DEFAULT 1000000",
        "ALTER TABLE account ADD COLUMN g int GENERATED ALWAYS AS (balance * 2) STORED",
        "ALTER TABLE account RENAME COLUMN owner TO o; ALTER TABLE account RENAME COLUMN balance TO owner; ALTER TABLE account RENAME COLUMN o TO balance",
        "ALTER VIEW account RENAME COLUMN balance TO debt",
        "ALTER INDEX account RENAME TO hidden; CREATE TABLE account (id int, owner text, balance int); INSERT INTO account VALUES (1, 'ann', 1000000)",
        "ALTER TABLE account SET SCHEMA pg_temp; CREATE TABLE account (id int)",
        "CREATE TABLE copy (LIKE account); DROP TABLE account; ALTER TABLE copy RENAME TO account; INSERT INTO account VALUES (1, 'ann', 7)",
        "ALTER TABLE account DROP CONSTRAINT account_pkey",
        "ALTER TABLE account SET UNLOGGED",
        "DROP TABLE account",
        "DROP OWNED BY attacks_owner CASCADE",
    ] {
        println!("attack: {attack}");
        let mut scene = Scene::account();
        scene.attack(OWNER, &[attack]).does_not_escape();
    }
}

#[test]
fn types_whose_values_get_other_names_do_not_escape() {
    let setup = "
        CREATE TYPE state AS ENUM ('paid', 'due'); CREATE TYPE pair AS (a int, b int); ALTER TYPE state OWNER TO attacks_owner; ALTER TYPE pair OWNER TO attacks_owner;
        CREATE TABLE bill (id int PRIMARY KEY, s state, p pair); ALTER TABLE bill OWNER TO attacks_owner; INSERT INTO bill VALUES (1, 'due', '(1,2)');
        SELECT audit.protect('bill')";
    for attack in [
        "ALTER TYPE state RENAME VALUE 'due' TO 'x'; ALTER TYPE state RENAME VALUE 'paid' TO 'due'; ALTER TYPE state RENAME VALUE 'x' TO 'paid'",
        "ALTER TYPE pair ALTER ATTRIBUTE a TYPE text CASCADE",
        "ALTER TYPE pair ADD ATTRIBUTE c int CASCADE",
        "DROP TYPE state CASCADE",
    ] {
        println!("attack: {attack}");
        let mut scene = Scene::new(setup, &["public.bill"]);
        scene.attack(OWNER, &[attack]).does_not_escape();
    }
}

/// A rule of the owner swallows what others write: log and table agree, and neither has what the application meant to write; but the log has the rule.
#[test]
fn a_rule_that_swallows_writes() {
    let mut scene = Scene::account();
    scene
        .attack(OWNER, &["CREATE RULE swallow AS ON UPDATE TO account DO INSTEAD NOTHING"])
        .assert_recorded(&["DDL account"]);
    scene.attack(APP, &["UPDATE account SET balance = 7 WHERE id = 1"]).assert_refused();
}

#[test]
fn rules_that_write_elsewhere_are_recorded_where_they_write() {
    let mut scene = Scene::account();
    scene.database.connect().run(
        "CREATE TABLE front (id int, balance int); GRANT ALL ON front TO attacks_app;
         CREATE RULE divert AS ON INSERT TO front DO INSTEAD UPDATE account SET balance = NEW.balance WHERE id = NEW.id",
    );
    scene.attack(APP, &["INSERT INTO front VALUES (1, 7)"]).assert_recorded(&["UPDATE account"]);
}

#[test]
fn an_owner_cannot_unprotect_or_protect_anew() {
    let mut scene = Scene::account();
    scene
        .database
        .connect()
        .run("GRANT USAGE ON SCHEMA audit TO attacks_owner; GRANT EXECUTE ON FUNCTION audit.protect TO attacks_owner");
    scene
        .attack(
            OWNER,
            &[
                "SELECT audit.unprotect('account', 'x')",
                "SELECT audit.protect('account', exclude => '{balance}')",
                "SELECT audit.protect('account')",
            ],
        )
        .assert_refused();
    // By whom it may be ended it is ended with an entry.
    scene.watched.clear();
    scene
        .attack(SUPERUSER, &["SELECT audit.unprotect('account', 'audit is over')"])
        .assert_recorded(&["UNPROTECT account"]);
}

/// Who may add triggers changes rows before they are recorded, and again after: each change is recorded as it is.
#[test]
fn added_triggers_make_the_log_say_nothing_false() {
    let mut scene = Scene::account();
    scene.database.connect().run("GRANT TRIGGER ON account TO attacks_app");
    let entries = [
        r#"CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.balance := NEW.balance + 1; RETURN NEW; END $$"#,
        r#"CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.balance < 100 THEN UPDATE account SET balance = 1000 WHERE id = NEW.id; END IF; RETURN NULL; END $$"#,
        r#"CREATE TRIGGER " !" BEFORE UPDATE ON account FOR EACH ROW EXECUTE FUNCTION before()"#,
        r#"CREATE TRIGGER " first" AFTER UPDATE ON account FOR EACH ROW EXECUTE FUNCTION again()"#,
        "UPDATE account SET balance = 5 WHERE id = 1",
    ];
    scene.attack(APP, &entries).assert_recorded(&["DDL account", "DDL account", "UPDATE account", "UPDATE account"]);
    assert_eq!(scene.witness.number("SELECT balance FROM public.account WHERE id = 1"), 1001);
}

#[test]
fn the_replica_role_in_every_form_hides_nothing() {
    let mut scene = Scene::account();
    scene
        .attack(
            SUPERUSER,
            &[
                "SET session_replication_role = replica",
                "UPDATE account SET balance = 1 WHERE id = 1",
                "TRUNCATE account",
            ],
        )
        .assert_recorded(&["UPDATE account", "TRUNCATE account"]);
    let mut scene = Scene::account();
    scene.database.connect().run(
        "CREATE FUNCTION put() RETURNS void LANGUAGE sql SECURITY DEFINER SET session_replication_role = replica
           AS 'UPDATE public.account SET balance = balance + 1 WHERE id = 1'",
    );
    scene.attack(APP, &["SELECT put()"]).assert_recorded(&["UPDATE account"]);
    let mut scene = Scene::account();
    scene
        .database
        .connect()
        .run(&format!(r#"ALTER DATABASE "{}" SET session_replication_role = replica"#, scene.database.name));
    // The setting is named as well.
    let outcome = scene.attack(APP, &["DELETE FROM account"]);
    let recorded = matches!(&outcome, super::Outcome::Reported { entries, .. } if *entries == ["DELETE account", "DELETE account"]);
    assert!(recorded, "{outcome:#?}");
    outcome.assert_reported(&["coverage session_replication_role:"]);
}

// ---- A superuser ----

/// What switches the recording off, and what puts everything back: what the catalogs say then is as it must be.
const OFF_AND_ON: [(&str, &str); 6] = [
    (
        "ALTER TABLE account DISABLE TRIGGER ALL",
        "ALTER TABLE account ENABLE TRIGGER ALL; ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row; ALTER TABLE account ENABLE ALWAYS TRIGGER audit_truncate",
    ),
    (
        "UPDATE pg_trigger SET tgenabled = 'D' WHERE tgname = 'audit_row'",
        "UPDATE pg_trigger SET tgenabled = 'A' WHERE tgname = 'audit_row'",
    ),
    (
        "UPDATE pg_class SET relhastriggers = false WHERE relname = 'account'",
        "UPDATE pg_class SET relhastriggers = true WHERE relname = 'account'",
    ),
    (
        "UPDATE pg_trigger SET tgfoid = 'pg_catalog.suppress_redundant_updates_trigger'::regproc, tgtype = 19 WHERE tgname = 'audit_row'",
        "UPDATE pg_trigger SET tgfoid = 'audit.audit_row'::regproc, tgtype = 29 WHERE tgname = 'audit_row'",
    ),
    (
        "CREATE OR REPLACE FUNCTION audit.audit_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE OR REPLACE FUNCTION audit.audit_row() RETURNS trigger LANGUAGE c VOLATILE PARALLEL UNSAFE AS '$libdir/audit', 'audit_row'",
    ),
    (
        "ALTER EVENT TRIGGER audit_ddl DISABLE; ALTER TABLE account DISABLE TRIGGER audit_row",
        "ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row; ALTER EVENT TRIGGER audit_ddl ENABLE ALWAYS",
    ),
];

/// Switches something off, changes a row, and puts everything back.
#[test]
fn a_change_behind_what_was_switched_off_and_on_again_is_reported_by_the_rows() {
    for (off, on) in OFF_AND_ON {
        println!("off: {off}");
        let mut scene = Scene::account();
        let outcome = scene.attack_by(|database| {
            for statement in [off, "UPDATE account SET balance = 7 WHERE id = 1", on] {
                // A session for each: what one has cached another has not. Hooks may refuse it.
                let _ = database.connect().batch_execute(statement);
            }
        });
        match outcome {
            Outcome::Recorded(_) | Outcome::Nothing => println!("refused"),
            reported => reported.assert_reported_as("table public.account"),
        }
    }
}

/// The same, but the change is undone in time: rows and log agree, and only the transaction of the row tells.
#[test]
fn a_change_undone_before_all_is_switched_on_again_is_reported_by_its_transaction() {
    for (off, on) in OFF_AND_ON {
        println!("off: {off}");
        let mut scene = Scene::account();
        scene.witness.run("SET audit.record_unchanged = on");
        let outcome = scene.attack_by(|database| {
            for statement in [off, "UPDATE account SET balance = -balance", "UPDATE account SET balance = -balance", on]
            {
                let _ = database.connect().batch_execute(statement);
            }
        });
        match outcome {
            Outcome::Recorded(_) | Outcome::Nothing => println!("refused"),
            reported => reported.assert_reported_as("transaction public.account"),
        }
    }
}

/// Made and undone while the triggers were off: rows and log agree again, and somebody may have read and paid meanwhile. That they were off is in the log, unless the event triggers
/// were off as well; that the row was written is told by its transaction, where no honest UPDATE leaves the same trace.
#[test]
fn a_change_made_and_undone_behind_the_triggers() {
    let off_and_on = [
        "ALTER TABLE account DISABLE TRIGGER audit_row",
        "UPDATE account SET balance = 1000000 WHERE id = 1",
        "UPDATE account SET balance = 100 WHERE id = 1",
        "ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row",
    ];
    let mut scene = Scene::account();
    scene.attack(SUPERUSER, &off_and_on).assert_recorded(&["DDL account", "DDL account"]);
    let mut scene = Scene::account();
    let all =
        [&["ALTER EVENT TRIGGER audit_ddl DISABLE"][..], &off_and_on, &["ALTER EVENT TRIGGER audit_ddl ENABLE ALWAYS"]]
            .concat();
    scene.attack(SUPERUSER, &all).assert_refused();
    let of_rows = "SELECT detail FROM audit.verify() WHERE what = 'transaction'";
    assert!(scene.witness.text(of_rows).contains("; of 1 the log does not know it"));
    scene.witness.run("SET audit.record_unchanged = on");
    audit_tests::assert_found(&mut scene.witness, &["transaction public.account"]);
}

#[test]
fn catalogs_edited_by_hand_do_not_escape() {
    for attack in [
        "DELETE FROM pg_trigger WHERE tgname = 'audit_row'",
        "UPDATE pg_trigger SET tgattr = '2' WHERE tgname = 'audit_row'",
        "UPDATE pg_trigger SET tgtype = 17 WHERE tgname = 'audit_row'",
        "DELETE FROM pg_event_trigger",
        "UPDATE pg_event_trigger SET evtenabled = 'R'",
        "UPDATE pg_proc SET prosrc = 'audit_truncate' WHERE proname = 'audit_row'",
        "UPDATE pg_proc SET probin = '/tmp/evil' WHERE proname = 'audit_row'",
        "UPDATE pg_class SET relhastriggers = false WHERE relname IN ('account', 'log')",
        "UPDATE pg_class SET relfilenode = (SELECT relfilenode FROM pg_class WHERE relname = 'decoy') WHERE relname = 'account'",
        "UPDATE pg_attribute SET attname = CASE attname WHEN 'owner' THEN 'balance ' ELSE 'owner' END WHERE attrelid = 'account'::regclass AND attname IN ('owner', 'balance')",
        "DELETE FROM audit.registry",
        "UPDATE pg_namespace SET nspname = 'other' WHERE nspname = 'audit'",
    ] {
        println!("attack: {attack}");
        let mut scene = Scene::account();
        scene
            .database
            .connect()
            .run("CREATE TABLE decoy (id int, owner text, balance int); INSERT INTO decoy VALUES (1, 'ann', 1000000)");
        let before = super::State::of(&mut scene.witness, &[]);
        let _ = scene.database.connect().batch_execute(attack);
        let mut fresh = scene.database.connect();
        fresh.run("SET search_path = pg_catalog");
        // Catalogs may be so broken that nothing works; that is no clean verdict either.
        if fresh.batch_execute("SELECT * FROM audit.findings()").is_err() || !super::told(&mut fresh).is_empty() {
            continue;
        }
        assert_eq!(before.protection, super::State::of(&mut fresh, &[]).protection, "escapes: {attack}");
    }
}

/// An event trigger of our name and state, with a function that does nothing.
#[test]
fn an_event_trigger_with_another_function() {
    let mut scene = Scene::account();
    scene
        .attack(
            SUPERUSER,
            &[
                "CREATE FUNCTION nothing() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'",
                "UPDATE pg_event_trigger SET evtfoid = 'nothing'::regproc WHERE evtname = 'audit_ddl'",
            ],
        )
        .assert_reported(&["coverage audit_ddl:"]);
}

/// A value that rows have without having it: the default of a column that was added later lies in the catalog.
#[test]
fn a_changed_default_of_rows_from_before_is_reported() {
    let mut scene = Scene::account();
    scene.database.connect().run("ALTER TABLE account ADD COLUMN bonus int DEFAULT 5");
    scene
        .attack(SUPERUSER, &["UPDATE pg_attribute SET attmissingval = '{1000000}' WHERE attrelid = 'account'::regclass AND attname = 'bonus'", "VACUUM account"])
        .does_not_escape();
    let mut scene = Scene::new(
        "CREATE TYPE state AS ENUM ('paid', 'due'); CREATE TABLE bill (id int PRIMARY KEY, s state); INSERT INTO bill VALUES (1, 'due'); SELECT audit.protect('bill')",
        &["public.bill"],
    );
    scene
        .attack(SUPERUSER, &["UPDATE pg_enum SET enumlabel = CASE enumlabel WHEN 'due' THEN 'paid' ELSE 'due ' END"])
        .does_not_escape();
}

/// Objects that SQL would find before the right ones, down to the catalog of the system.
#[test]
fn what_is_planted_in_the_system_schema_catches_nothing() {
    let mut scene = Scene::account();
    scene.database.connect().run(
        "SET allow_system_table_mods = on;
         CREATE FUNCTION pg_catalog.to_jsonb(public.account) RETURNS jsonb LANGUAGE sql AS $$ SELECT '{\"id\": 0}'::jsonb $$;
         CREATE FUNCTION pg_catalog.row_to_json(public.account) RETURNS json LANGUAGE sql AS $$ SELECT '{\"id\": 0}'::json $$;
         CREATE FUNCTION pg_catalog.text(public.account) RETURNS text LANGUAGE sql AS $$ SELECT 'nothing'::text $$;
         CREATE FUNCTION pg_catalog.sha256(text) RETURNS bytea LANGUAGE sql AS $$ SELECT ''::bytea $$",
    );
    scene.attack(APP, &["UPDATE account SET balance = 7 WHERE id = 1"]).assert_recorded(&["UPDATE account"]);
    assert_eq!(scene.witness.text("SELECT new FROM audit.log WHERE op = 'UPDATE'"), r#"{"balance":7}"#);
}

/// What hangs on the log stops no entry: it is written below all of that.
#[test]
fn what_is_hung_on_the_log_stops_no_entry() {
    for trap in [
        "CREATE RULE swallow AS ON INSERT TO audit.log DO INSTEAD NOTHING",
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER a BEFORE INSERT ON audit.log FOR EACH ROW EXECUTE FUNCTION nothing()",
        "ALTER TABLE audit.log ALTER COLUMN user_name SET DEFAULT 'nobody'",
        "ALTER TABLE audit.log ADD CONSTRAINT never CHECK (false) NOT VALID",
        "ALTER TABLE audit.log ENABLE ROW LEVEL SECURITY; ALTER TABLE audit.log FORCE ROW LEVEL SECURITY",
    ] {
        println!("trap: {trap}");
        let mut scene = Scene::account();
        let _ = scene.database.connect().batch_execute(trap);
        run_all(&mut scene.database.connect_as(APP), &["UPDATE account SET balance = 7 WHERE id = 1"]);
        assert_eq!(
            scene.witness.column("SELECT new FROM audit.log WHERE op = 'UPDATE' AND user_name = 'attacks_app'"),
            [r#"{"balance":7}"#]
        );
    }
}

/// With neither event triggers nor a preloaded library, as in single-user mode, the triggers of the table still record.
#[test]
fn single_user_mode_is_recorded() {
    let mut cluster = audit_tests::Cluster::builder().start();
    let name = cluster.database().name;
    let mut s = cluster.connect(&name);
    s.run("CREATE ROLE attacks_owner; CREATE ROLE attacks_app");
    s.run(ACCOUNT);
    s.run("SELECT audit.protect('account')");
    drop(s);
    cluster.stop();
    let said = cluster.single_user(&name, "UPDATE account SET balance = 7 WHERE id = 1\n");
    cluster.start();
    let mut s = cluster.connect(&name);
    assert_eq!(s.number("SELECT balance FROM account WHERE id = 1"), 7, "{said}");
    assert_eq!(s.column("SELECT new FROM audit.log WHERE op = 'UPDATE'"), [r#"{"balance":7}"#]);
    audit_tests::assert_clean(&mut s);
}

/// Rows taken out or brought back below everything, with the extension that comes with the server.
#[test]
fn rows_killed_below_the_server_are_reported() {
    let mut scene = Scene::account();
    if scene.database.connect().batch_execute("CREATE EXTENSION pg_surgery").is_err() {
        // The same by hand, with what every server has.
        assert_eq!(
            cluster()
                .connect("postgres")
                .number("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_surgery'"),
            0
        );
        println!("pg_surgery is not there: rows changed in the files stand for it");
        return;
    }
    scene
        .attack(SUPERUSER, &["SELECT heap_force_kill('account', ARRAY['(0,1)']::tid[])"])
        .assert_reported(&["table public.account"]);
}

//! Verification made to lie, to fail or to hang.

use super::{APP, OWNER, SUPERUSER, Scene, run_all};

/// Inside the server nothing can be trusted that a superuser has replaced. An export is verified elsewhere.
#[test]
fn a_replaced_verdict_is_out_of_reach_but_not_its_export() {
    let mut scene = Scene::account();
    let lie = "
        CREATE OR REPLACE FUNCTION audit.findings(checkpoint text DEFAULT NULL, tables boolean DEFAULT true, since_seal bigint DEFAULT NULL)
          RETURNS TABLE (kind text, relation text, chain integer, seq bigint, id bigint, detail text, hint text)
          LANGUAGE sql AS 'SELECT NULL::text, NULL::text, NULL::int, NULL::bigint, NULL::bigint, NULL::text, NULL::text WHERE false'";
    let outcome = scene.attack_by(|database| {
        let mut s = database.connect();
        if s.batch_execute(lie).is_ok() {
            audit_tests::guards_off(
                &mut s,
                "audit.log",
                "UPDATE audit.log SET user_name = 'nobody' WHERE op = 'BASELINE'",
            );
        }
    });
    if matches!(outcome, super::Outcome::Nothing) {
        return;
    }
    outcome.assert_out_of_reach();
    let faults = scene
        .witness
        .number("SELECT count(*) FROM audit.export() WHERE encode(sha256(convert_to(line, 'UTF8')), 'hex') <> hash");
    assert_eq!(faults, 2);
}

/// Settings of the session that asks, and of the database, change no verdict.
#[test]
fn no_setting_of_the_session_changes_a_verdict() {
    let mut scene = Scene::account();
    run_all(&mut scene.database.connect_as(APP), &["UPDATE account SET balance = 7 WHERE id = 1"]);
    for settings in [
        "SET search_path = pg_temp, public",
        "SET row_security = off",
        "SET row_security = on",
        "SET default_transaction_isolation = 'serializable'; SET default_transaction_read_only = on",
        "SET enable_seqscan = off; SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_tidscan = off",
        "SET work_mem = '64kB'; SET max_parallel_workers_per_gather = 8; SET force_parallel_mode = on",
        "SET TimeZone = 'Pacific/Apia'; SET DateStyle = 'SQL, DMY'; SET extra_float_digits = -15; SET IntervalStyle = 'sql_standard'",
        "SET standard_conforming_strings = off; SET client_encoding = 'LATIN1'; SET bytea_output = 'escape'",
        "SET session_replication_role = replica",
        "SET default_table_access_method = heap; SET xmlbinary = hex; SET array_nulls = off; SET transform_null_equals = on",
    ] {
        let mut s = scene.database.connect();
        let settings = if s.major() > 15 {
            settings.replace("force_parallel_mode", "debug_parallel_query")
        } else {
            settings.to_owned()
        };
        s.run(&settings);
        audit_tests::assert_clean(&mut s);
    }
    audit_tests::guards_off(
        &mut scene.database.connect(),
        "audit.log",
        "UPDATE audit.log SET user_name = 'nobody' WHERE op = 'UPDATE'",
    );
    let place = scene.witness.text("SELECT chain || ':' || seq FROM audit.log WHERE op = 'UPDATE'");
    let mut s = scene.database.connect();
    s.run("SET enable_seqscan = off; SET search_path = pg_temp; SET default_transaction_read_only = on");
    audit_tests::assert_found(&mut s, &[&format!("content {place}")]);
}

/// An emptied registry is not "nothing to verify".
#[test]
fn an_emptied_registry_with_its_table_dropped_is_reported() {
    let mut scene = Scene::account();
    let outcome = scene.attack_by(|database| {
        let mut s = database.connect();
        let _ = s.batch_execute("DROP TABLE account");
        audit_tests::guards_off(&mut s, "audit.registry", "DELETE FROM audit.registry");
    });
    outcome.assert_reported(&["coverage public.account"]);
}

/// What an owner puts in place of his table is never run; at worst his own table is reported. That a table was renamed is in the log.
#[test]
fn a_table_replaced_by_something_slow_or_failing_hides_no_other_fault() {
    for (trap, expected) in [
        ("CREATE VIEW account AS SELECT 1 AS id, pg_sleep(1000)::text AS owner, 1 AS balance", &["content"][..]),
        ("CREATE VIEW account AS SELECT 1 / 0 AS id, ''::text AS owner, 1 AS balance", &["content"]),
        (
            "CREATE TABLE account (id int, owner text, balance int) PARTITION BY LIST (id)",
            &["content", "coverage public.account"],
        ),
    ] {
        let mut scene = Scene::account();
        let mut s = scene.database.connect();
        s.run("CREATE TABLE other (id int PRIMARY KEY, v int); SELECT audit.protect('other'); INSERT INTO other VALUES (1, 1)");
        audit_tests::guards_off(
            &mut s,
            "audit.log",
            "UPDATE audit.log SET user_name = 'nobody' WHERE table_name = 'other' AND op = 'INSERT'",
        );
        let mut owner = scene.database.connect_as(OWNER);
        owner.batch_execute(&format!("ALTER TABLE account RENAME TO hidden; {trap}")).expect("an owner may rename");
        scene.witness.run("SET statement_timeout = '20s'");
        scene.watched.clear();
        scene.attack(SUPERUSER, &["SELECT 1"]).assert_reported(expected);
        let renamed = "SELECT count(*) FROM audit.log WHERE op = 'DDL' AND table_name = 'hidden'";
        assert_eq!(scene.witness.number(renamed), 1);
    }
}

/// While one writes, another verifies: neither the open transaction nor the writer's own view is an alarm.
#[test]
fn open_transactions_are_no_alarm_for_anybody() {
    let mut scene = Scene::account();
    let mut writer = scene.database.connect();
    writer.run("BEGIN; UPDATE account SET balance = 0; SAVEPOINT a; DELETE FROM account WHERE id = 1; ROLLBACK TO a; INSERT INTO account VALUES (9, 'x', 1)");
    audit_tests::assert_clean(&mut writer);
    scene.assert_clean();
    writer.run("COMMIT");
    scene.assert_clean();
}

/// To a snapshot from before, a table that was truncated or rewritten since is empty: so it is for every reader (documentation of PostgreSQL, caveats of MVCC).
#[test]
fn a_truncation_behind_an_old_snapshot_is_an_alarm_that_passes() {
    let scene = Scene::account();
    let mut old = scene.database.connect();
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM audit.log");
    run_all(&mut scene.database.connect_as(APP), &["TRUNCATE account"]);
    assert_eq!(old.number("SELECT count(*) FROM account"), 0, "PostgreSQL shows the rows after all");
    let found = audit_tests::findings(&mut old);
    assert!(found.iter().all(|finding| finding.kind == "table"), "{found:?}");
    old.run("COMMIT");
    audit_tests::assert_clean(&mut old);
}

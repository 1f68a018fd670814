//! Verification made to lie, to fail or to hang.

use audit_tests::{Session, wait_until};

use super::{APP, OWNER, SUPERUSER, Scene, run_all, told};

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

/// Lets a verdict wait for the table that the owner has locked, lets the owner go on meanwhile, and gives what the verdict says.
fn verdict_that_waits(scene: &Scene, auditor: &mut Session, meanwhile: &[&str]) -> Vec<String> {
    let mut owner = scene.database.connect_as(OWNER);
    owner.run("BEGIN; LOCK TABLE account IN ACCESS EXCLUSIVE MODE");
    let pid = auditor.backend_pid();
    let mut observer = scene.database.connect();
    std::thread::scope(|scope| {
        let verdict = scope.spawn(|| told(auditor));
        wait_until("the verdict waits", || {
            observer.holds(&format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)"))
        });
        meanwhile.iter().for_each(|statement| owner.run(statement));
        owner.run("COMMIT");
        verdict.join().expect("it says something")
    })
}

/// To a snapshot from before, a table that was truncated or rewritten since is empty: so it is for every reader (documentation of PostgreSQL, caveats of MVCC).
/// A verdict takes its own when it has locked the tables.
#[test]
fn what_is_emptied_or_rewritten_while_a_verdict_waits_is_no_alarm() {
    for meanwhile in [
        &["TRUNCATE account"][..],
        &["TRUNCATE account", "INSERT INTO account VALUES (5, 'eve', 5)"],
        &["ALTER TABLE account ALTER COLUMN balance TYPE int USING balance + 1"],
        &["ALTER TABLE account ALTER COLUMN balance TYPE numeric", "UPDATE account SET balance = balance / 3"],
        &["DELETE FROM account WHERE id = 1"],
        &["SELECT 1"],
    ] {
        let scene = Scene::account();
        let mut auditor = scene.database.connect();
        assert_eq!(verdict_that_waits(&scene, &mut auditor, meanwhile), [""; 0], "{meanwhile:?}");
        let notices = auditor.notices();
        assert!(
            notices.iter().any(|notice| notice.starts_with("verification waits for public.account")),
            "{notices:?}"
        );
        audit_tests::assert_clean(&mut auditor);
        assert_eq!(auditor.notices(), [""; 0]);
    }
}

/// What was changed behind the triggers is found all the same.
#[test]
fn a_verdict_that_waits_overlooks_nothing() {
    let scene = Scene::account();
    let mut auditor = scene.database.connect();
    let behind = "UPDATE account SET balance = 1000000 WHERE id = 1";
    audit_tests::guards_off(&mut scene.database.connect(), "account", behind);
    let told = verdict_that_waits(&scene, &mut auditor, &["INSERT INTO account VALUES (5, 'eve', 5)"]);
    assert_eq!(told, [r#"table public.account: row {"id":1}: column "balance" is 1000000, the log says 100"#]);
}

/// A transaction that sees all as of an older snapshot leaves such a table to the next one, and says so.
#[test]
fn a_table_emptied_or_rewritten_behind_an_old_snapshot_is_left_to_the_next_transaction() {
    for (level, change) in [
        ("REPEATABLE READ", "TRUNCATE account"),
        ("SERIALIZABLE", "TRUNCATE account"),
        ("REPEATABLE READ", "ALTER TABLE account ALTER COLUMN balance TYPE int USING balance + 1"),
    ] {
        let scene = Scene::account();
        let mut old = scene.database.connect();
        old.run(&format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM audit.log"));
        scene.database.connect_as(OWNER).run(change);
        assert_eq!(old.number("SELECT count(*) FROM account"), 0, "PostgreSQL shows the rows after all");
        audit_tests::assert_clean(&mut old);
        let detail = "SELECT detail FROM audit.verify() WHERE what = 'table'";
        let said = old.text(detail);
        assert!(
            said.ends_with(
                "; public.account not compared, as it was emptied or rewritten after the snapshot of this transaction"
            ),
            "{said}"
        );
        old.run("COMMIT");
        audit_tests::assert_clean(&mut old);
        assert!(!old.text(detail).contains("not compared"));
        // As of a snapshot that is as old as the transaction alone, the table is compared.
        old.run(&format!("BEGIN ISOLATION LEVEL {level}"));
        audit_tests::assert_clean(&mut old);
        assert!(!old.text(detail).contains("not compared"));
    }
}

/// Nobody hides a change by writing its table anew: only transactions from before are affected.
#[test]
fn a_table_that_is_rewritten_is_judged_by_whoever_looks_afterwards() {
    for rewrite in ["VACUUM FULL account", "CLUSTER account USING account_pkey"] {
        let scene = Scene::account();
        let mut old = scene.database.connect();
        old.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM audit.log");
        let mut s = scene.database.connect();
        audit_tests::guards_off(&mut s, "account", "DELETE FROM account WHERE id = 1");
        s.run(rewrite);
        audit_tests::assert_clean(&mut old);
        for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
            s.run(&format!("BEGIN ISOLATION LEVEL {level}"));
            audit_tests::assert_found(&mut s, &["table public.account"]);
            s.run("COMMIT");
        }
    }
}

/// A table that the registry does not name any more is locked once the log has named it, and all is looked at anew.
#[test]
fn a_table_that_only_the_log_names_is_locked_before_it_is_compared_too() {
    let scene = Scene::account();
    let mut s = scene.database.connect();
    audit_tests::guards_off(&mut s, "audit.registry", "DELETE FROM audit.registry");
    let told = verdict_that_waits(&scene, &mut s, &["SELECT 1"]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("audit.registry has no row for it"), "{told:?}");
    assert!(s.notices().iter().any(|notice| notice.starts_with("verification waits for public.account")));
}

//! Holding others up: locks that are kept, transactions that never end, resources that run out. Writers of other rows and tables go on, errors are clear, and nothing is lost
//! or left behind.

use std::thread;
use std::time::{Duration, Instant};

use audit_tests::{Cluster, Session, assert_clean, wait_until};

use super::{APP, OWNER, SUPERUSER, Scene, run_all};

/// A second protected table, for those who are to go on.
const OTHER: &str =
    "CREATE TABLE other (id int PRIMARY KEY, v text); GRANT ALL ON other TO attacks_app; SELECT audit.protect('other');
                     INSERT INTO other SELECT generate_series(1, 50), 'x'";

/// Does all that others do beside somebody who holds something, each of it in little time.
#[track_caller]
fn others_go_on(scene: &Scene) {
    let writers: Vec<_> = (1..=8)
        .map(|number| {
            let config = scene.database.cluster.config(&scene.database.name, APP);
            thread::spawn(move || {
                let mut s = Session::try_connect(config).expect("there is room");
                s.run("SET statement_timeout = '10s'");
                for round in 0..5 {
                    s.run(&format!("UPDATE other SET v = 'w{round}' WHERE id = {number}"));
                    s.run(&format!("BEGIN; INSERT INTO account VALUES ({}, 'x', 1); DELETE FROM account WHERE owner = 'nobody'; COMMIT", 1000 + number * 10 + round));
                }
            })
        })
        .collect();
    for writer in writers {
        writer.join().expect("a writer was held up");
    }
    let mut s = scene.database.connect();
    s.run("SET statement_timeout = '10s'");
    s.run("SELECT audit.seal(); SELECT audit.checkpoint(); SELECT * FROM audit.status(); DELETE FROM account WHERE id >= 1000");
    s.run(
        "CREATE TABLE meanwhile (id int PRIMARY KEY); SELECT audit.protect('meanwhile'); DROP TABLE IF EXISTS nothing",
    );
    s.run("SELECT audit.unprotect('meanwhile', 'enough'); DROP TABLE meanwhile");
    assert_clean(&mut s);
}

#[test]
fn an_idle_transaction_holds_nobody_up() {
    let scene = Scene::account();
    scene.database.connect().run(OTHER);
    let mut idle = scene.database.connect_as(APP);
    idle.run(
        "BEGIN; UPDATE account SET balance = 0 WHERE id = 1; SAVEPOINT a; UPDATE other SET v = 'idle' WHERE id = 50",
    );
    others_go_on(&scene);
    idle.run("COMMIT");
    assert_clean(&mut scene.database.connect());
}

#[test]
fn a_prepared_transaction_holds_nobody_up() {
    let scene = Scene::account();
    scene.database.connect().run(OTHER);
    scene
        .database
        .connect_as(APP)
        .run("BEGIN; UPDATE account SET balance = 0 WHERE id = 1; PREPARE TRANSACTION 'held'");
    others_go_on(&scene);
    scene.database.connect_as(APP).run("COMMIT PREPARED 'held'");
    assert_clean(&mut scene.database.connect());
}

#[test]
fn whoever_makes_partitions_and_keeps_his_transaction_open_holds_nobody_up() {
    let scene = Scene::account();
    let mut s = scene.database.connect();
    s.run(OTHER);
    s.run("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id); ALTER TABLE p OWNER TO attacks_owner; SELECT audit.protect('p')");
    let mut owner = scene.database.connect_as(OWNER);
    owner.run("BEGIN; CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1); INSERT INTO p VALUES (1); ALTER TABLE account ADD COLUMN mine int");
    // The table that he alters is his; what others have is theirs.
    s.run("SET statement_timeout = '10s'; UPDATE other SET v = 'y'; SELECT audit.seal()");
    s.run("CREATE TABLE meanwhile (id int PRIMARY KEY); SELECT audit.protect('meanwhile'); CREATE TABLE later (id int); DROP TABLE later");
    owner.run("COMMIT");
    assert_clean(&mut s);
}

/// Every lock that an application, an owner, an auditor or whoever may read all data can take on the tables of the extension.
#[test]
fn no_ordinary_role_can_lock_the_log_against_writers() {
    let scene = Scene::account();
    let mut s = scene.database.connect();
    s.run(OTHER);
    s.run(
        "CREATE ROLE attacks_auditor LOGIN; SELECT audit.grant_auditor('attacks_auditor'); CREATE ROLE attacks_reader LOGIN IN ROLE pg_read_all_data",
    );
    for role in [APP, OWNER, "attacks_auditor", "attacks_reader"] {
        let mut holder = scene.database.connect_as(role);
        holder.run("BEGIN");
        for table in ["log", "registry", "ledger", "incarnation", "seal", "seal_range", "tile"] {
            for mode in [
                "ACCESS SHARE",
                "ROW SHARE",
                "ROW EXCLUSIVE",
                "SHARE UPDATE EXCLUSIVE",
                "SHARE",
                "SHARE ROW EXCLUSIVE",
                "EXCLUSIVE",
                "ACCESS EXCLUSIVE",
            ] {
                let attempt = format!(
                    "DO $$ BEGIN LOCK TABLE audit.{table} IN {mode} MODE; EXCEPTION WHEN insufficient_privilege THEN NULL; END $$"
                );
                run_all(&mut holder, &[&attempt]);
            }
            let attempt = format!(
                "DO $$ BEGIN PERFORM FROM audit.{table} FOR UPDATE; EXCEPTION WHEN insufficient_privilege THEN NULL; END $$"
            );
            run_all(&mut holder, &[&attempt]);
        }
        run_all(
            &mut holder,
            &[
                "DO $$ BEGIN PERFORM pg_advisory_lock(classid::int, objid::int) FROM pg_locks WHERE locktype = 'advisory'; END $$",
            ],
        );
        others_go_on(&scene);
    }
}

/// Whoever may change all data may lock all tables, as PostgreSQL has it: ours as well, unless hooks of the preloaded library refuse it (`guards.rs`).
#[test]
fn whoever_may_write_all_data_can_lock_the_log_but_loses_nothing() {
    let scene = Scene::account();
    let mut s = scene.database.connect();
    s.run("CREATE ROLE attacks_locker LOGIN IN ROLE pg_write_all_data");
    let mut holder = scene.database.connect_as("attacks_locker");
    holder.run("BEGIN");
    if holder.batch_execute("LOCK TABLE audit.log IN ACCESS EXCLUSIVE MODE").is_err() {
        return;
    }
    let mut writer = scene.database.connect_as(APP);
    writer.run("SET lock_timeout = '300ms'");
    assert_eq!(writer.sqlstate("UPDATE account SET balance = 1 WHERE id = 1"), "55P03");
    holder.run("ROLLBACK");
    writer.run("UPDATE account SET balance = 2 WHERE id = 1");
    assert_eq!(s.column("SELECT new FROM audit.log WHERE op = 'UPDATE'"), [r#"{"balance":2}"#]);
    assert_clean(&mut s);
}

#[test]
fn a_running_verdict_holds_no_writer_up() {
    let scene = Scene::account();
    let mut s = scene.database.connect();
    s.run(OTHER);
    let mut auditor = scene.database.connect();
    auditor.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM audit.verify(); SELECT * FROM audit.findings()");
    // Its locks are held to the end of its transaction, and are those of any reader.
    others_go_on(&scene);
    assert!(s.holds(
        "SELECT count(*) > 0 AND bool_and(mode = 'AccessShareLock') FROM pg_locks WHERE locktype = 'relation' AND pid IN
           (SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction')"
    ));
    auditor.run("COMMIT");
}

/// A table that its owner keeps locked makes a verdict wait for it, as it would any reader; the wait can be bounded and cancelled, and what is new in the log needs none.
#[test]
fn a_table_locked_by_its_owner_delays_the_verdict_about_it() {
    let scene = Scene::account();
    let mut owner = scene.database.connect_as(OWNER);
    owner.run("BEGIN; LOCK TABLE account IN ACCESS EXCLUSIVE MODE");
    let mut auditor = scene.database.connect();
    for (timeout, code) in [("lock_timeout", "55P03"), ("statement_timeout", "57014")] {
        auditor.run(&format!("SET {timeout} = '300ms'"));
        for call in ["verify", "findings"] {
            auditor.notices();
            assert_eq!(auditor.sqlstate(&format!("SELECT * FROM audit.{call}()")), code);
            assert_eq!(
                auditor.notices(),
                ["verification waits for public.account, which another transaction has locked against readers"]
            );
        }
        auditor.run(&format!("RESET {timeout}"));
    }
    let pid = auditor.backend_pid();
    let mut other = scene.database.connect();
    let refused = std::thread::scope(|scope| {
        let verdict = scope.spawn(|| auditor.refused("SELECT * FROM audit.verify()"));
        wait_until("the verdict waits", || {
            other.holds(&format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)"))
        });
        other.run(&format!("SELECT pg_cancel_backend({pid})"));
        verdict.join().expect("it was refused")
    });
    assert_eq!(refused.code().code(), "57014");
    // What is new in the log needs no table.
    scene.database.connect().run("SELECT audit.seal()");
    auditor.run(
        "SET lock_timeout = '300ms'; SELECT * FROM audit.verify(since_seal => 1); SELECT count(*) FROM audit.export()",
    );
    owner.run("ROLLBACK");
    assert_clean(&mut auditor);
}

#[test]
fn cancelled_statements_leave_neither_changes_nor_entries() {
    let mut scene = Scene::account();
    scene.database.connect().run(OTHER);
    let big = "INSERT INTO other SELECT n, repeat('x', 100) FROM generate_series(1000, 200000) AS n";
    for timeout in [5, 20, 60, 150] {
        let set = format!("SET statement_timeout = {timeout}");
        scene.attack(APP, &[&set, big]).assert_refused();
        scene
            .attack(APP, &["BEGIN", &set, "SAVEPOINT a", big, "ROLLBACK TO a", "RESET statement_timeout", "COMMIT"])
            .assert_refused();
    }
    scene.attack(APP, &["UPDATE account SET balance = 0 WHERE id = 1"]).assert_recorded(&["UPDATE account"]);
}

#[test]
fn the_extension_protects_neither_itself_nor_the_system() {
    let mut scene = Scene::account();
    let mut attempts = Vec::new();
    for table in [
        "audit.log",
        "audit.seal",
        "audit.registry",
        "audit.protected",
        "pg_class",
        "pg_authid",
        "information_schema.sql_features",
        "pg_toast.pg_toast_1255",
    ] {
        attempts.push(format!("SELECT audit.protect('{table}')"));
    }
    scene.attack(SUPERUSER, &attempts.iter().map(String::as_str).collect::<Vec<_>>()).assert_refused();
}

/// Old transaction ids are frozen as the log grows: it is only ever inserted into.
#[test]
fn the_log_is_frozen_as_it_grows() {
    let mut scene = Scene::account();
    let options = scene.witness.text("SELECT reloptions::text FROM pg_class WHERE oid = 'audit.log'::regclass");
    assert!(options.contains("autovacuum_vacuum_insert_scale_factor=0.02"), "{options}");
    scene
        .attack(
            SUPERUSER,
            &[
                "VACUUM (FREEZE) audit.log",
                "VACUUM (FREEZE) account",
                "VACUUM FULL audit.log",
                "CLUSTER account USING account_pkey",
                "REINDEX TABLE audit.log",
            ],
        )
        .assert_refused();
    assert!(scene.witness.holds("SELECT age(relfrozenxid) < 100 FROM pg_class WHERE oid = 'audit.log'::regclass"));
    // Who changes nothing adds nothing, however often.
    scene.attack(APP, &["UPDATE account SET balance = balance", "UPDATE account SET owner = owner"]).assert_refused();
}

/// A full disk, as a limit of the size of files that the server and all new backends get: the log cannot grow any more, and a file of the write-ahead log still fits.
#[test]
fn a_full_disk_stops_changes_and_loses_none() {
    let cluster = Cluster::builder().conf("autovacuum = off").start();
    let database = cluster.database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE free (id int PRIMARY KEY, v text); SELECT audit.protect('t');
         ALTER TABLE audit.log ALTER COLUMN new SET STORAGE PLAIN; INSERT INTO t SELECT n, repeat('x', 900) FROM generate_series(1, 15000) AS n",
    );
    let size = s.number("SELECT pg_relation_size('audit.log')");
    let full = 17 << 20;
    assert!(size < full, "the log is larger than the disk: {size}");
    let server = cluster.postmaster();
    cluster.limit(server, "fsize", &full.to_string());
    let mut writer = database.connect();
    let mut last = 15000;
    let error = loop {
        match writer.batch_execute(&format!(
            "INSERT INTO t SELECT n, repeat('x', 900) FROM generate_series({}, {}) AS n",
            last + 1,
            last + 100
        )) {
            Ok(()) => last += 100,
            Err(error) => break error.as_db_error().expect("the backend has not ended").clone(),
        }
        assert!(last < 50_000, "the disk is never full");
    };
    println!("{error:?}");
    assert!(error.message().contains("could not extend file"), "{error:?}");
    // The change is as if it had never been, also at commit, in a block, and in a prepared transaction.
    let is_whole = |s: &mut Session| {
        assert_eq!(s.number("SELECT count(*) FROM t"), last);
        assert_eq!(s.number("SELECT count(*) FROM audit.log WHERE op = 'INSERT'"), last);
    };
    is_whole(&mut s);
    let fill = "INSERT INTO t SELECT n, repeat('x', 900) FROM generate_series(60000, 60200) AS n";
    writer.refused(&format!("BEGIN; {fill}; COMMIT"));
    writer.run("ROLLBACK");
    writer.refused(&format!("BEGIN; {fill}; PREPARE TRANSACTION 'full'"));
    writer.run("ROLLBACK");
    // What is caught inside may fail again when what was recorded before it is written at the end.
    let _ = writer.batch_execute(&format!("DO $$ BEGIN {fill}; EXCEPTION WHEN OTHERS THEN NULL; END $$"));
    assert_eq!(
        s.number("SELECT count(*) FROM t WHERE id >= 60000"),
        s.number("SELECT count(*) FROM audit.log WHERE (key ->> 'id')::int >= 60000")
    );
    s.run("DELETE FROM t WHERE id >= 60000");
    // Who needs no space in the log is not held up.
    writer.run("INSERT INTO free SELECT n, 'x' FROM generate_series(1, 1000) AS n; UPDATE free SET v = 'y'; SELECT * FROM audit.verify()");
    assert_clean(&mut s);
    // Room again
    cluster.limit(server, "fsize", "unlimited");
    let mut writer = database.connect();
    writer.run(fill);
    assert_clean(&mut s);
    assert!(!cluster.server_log().contains("PANIC"));
}

/// A backend that gets no more memory ends its statement, not the server: at whatever place of the recording it runs out.
#[test]
fn running_out_of_memory_ends_a_statement_and_no_backend() {
    let cluster = Cluster::builder().start();
    let database = cluster.database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t ALTER COLUMN v SET STORAGE EXTERNAL; SELECT audit.protect('t'); INSERT INTO t VALUES (0, 'x')");
    let (mut failed, mut recorded) = (0, 0);
    for megabytes in (0..16).chain((16..=320).step_by(16)) {
        let mut writer = database.connect();
        // What is loaded once is loaded.
        writer.run("UPDATE t SET v = v || 'x' WHERE id = 0");
        let pid = writer.backend_pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let used: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmSize:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .and_then(|kb| kb.parse().ok())
            .expect("VmSize is given in kB");
        cluster.limit(pid, "as", &((used << 10) + (megabytes << 20)).to_string());
        for change in [
            format!("INSERT INTO t VALUES ({megabytes}, repeat(E'\\\\\"x', 6000000))"),
            "UPDATE t SET v = repeat('y', 18000000) WHERE id = 0".to_owned(),
            format!(
                "INSERT INTO t SELECT n, repeat('z', 1000) FROM generate_series({megabytes} * 10000, {megabytes} * 10000 + 5000) AS n"
            ),
        ] {
            match writer.batch_execute(&change) {
                Ok(()) => recorded += 1,
                Err(error) => {
                    let error = error.as_db_error().unwrap_or_else(|| {
                        panic!("the backend has ended with {megabytes} MB: {error}\n{}", cluster.server_log())
                    });
                    assert_eq!(
                        error.code().code(),
                        "53200",
                        "with {megabytes} MB: {error:?}\n{}",
                        &change[..80.min(change.len())]
                    );
                    failed += 1;
                }
            }
        }
        assert_eq!(writer.backend_pid(), pid);
    }
    println!("{failed} failed, {recorded} were recorded");
    assert!(failed > 5 && recorded > 5, "{failed} failed, {recorded} were recorded");
    assert_eq!(s.number("SELECT count(*) FROM t"), s.number("SELECT count(*) FROM audit.log WHERE op = 'INSERT'"));
    assert!(!cluster.server_log().contains("terminated by signal"));
    assert_clean(&mut s);
}

/// Two who take rows and tables in opposite orders meet no lock of ours between them.
#[test]
fn the_log_adds_no_deadlock() {
    let scene = Scene::account();
    scene.database.connect().run(OTHER);
    let begun = Instant::now();
    let workers: Vec<_> = (0..6)
        .map(|worker| {
            let config = scene.database.cluster.config(&scene.database.name, APP);
            thread::spawn(move || {
                let mut s = Session::try_connect(config).expect("there is room");
                s.run("SET statement_timeout = '10s'");
                for round in 0..60 {
                    // Rows of his own, in tables in turn.
                    let (first, second) = if (worker + round) % 2 == 0 { ("other", "account") } else { ("account", "other") };
                    let id = 100 + worker;
                    let change = |table: &str| match table {
                        "other" => format!("UPDATE other SET v = 'r{round}' WHERE id = {}", 1 + worker),
                        _ => format!("INSERT INTO account VALUES ({id}, 'x', {round}) ON CONFLICT (id) DO UPDATE SET balance = {round}"),
                    };
                    s.run(&format!("BEGIN; {}; {}; COMMIT", change(first), change(second)));
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("nobody was held up");
    }
    println!("{:?}", begun.elapsed());
    let mut s = scene.database.connect();
    assert_eq!(s.number("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"), 0);
    assert_clean(&mut s);
}

/// What a killed client leaves: its locks go with its backend, and the next one goes on where it was.
#[test]
fn a_client_that_vanishes_leaves_no_lock() {
    let scene = Scene::account();
    let mut s = scene.database.connect();
    for _ in 0..3 {
        let mut vanishing = scene.database.connect_as(APP);
        vanishing.run("BEGIN; UPDATE account SET balance = balance + 1 WHERE id = 1");
        let pid = vanishing.backend_pid();
        drop(vanishing);
        wait_until("the backend has gone", || {
            s.number(&format!("SELECT count(*) FROM pg_locks WHERE pid = {pid}")) == 0
        });
        s.run("SET lock_timeout = '5s'; UPDATE account SET balance = 0 WHERE id = 2; SELECT audit.seal()");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(s.number("SELECT count(*) FROM pg_locks WHERE locktype NOT IN ('relation', 'virtualxid', 'transactionid') AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"), 0);
    assert_clean(&mut s);
}

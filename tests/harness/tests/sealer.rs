//! The background process that seals: when it does, where, and that it is in nobody's way.

use std::path::Path;
use std::time::{Duration, Instant};

use audit_tests::{Builder, Cluster, Database, Session, assert_clean, assert_seals, wait_until};

fn preloaded() -> Builder {
    Cluster::builder().conf("shared_preload_libraries = 'audit'").conf("audit.seal_interval = '200ms'")
}

fn with_table<'a>(cluster: &'a Cluster) -> (Database<'a>, Session) {
    let database = cluster.database();
    let mut session = database.connect();
    session.run("CREATE TABLE t (id int PRIMARY KEY, v text); SELECT audit.protect('t')");
    (database, session)
}

fn insert(session: &mut Session, rows: u32) {
    session.run(&format!(
        "INSERT INTO t SELECT g, 'x' FROM generate_series((SELECT count(*) FROM t) + 1, (SELECT count(*) FROM t) + {rows}) g"
    ));
}

#[track_caller]
fn wait_sealed(session: &mut Session) {
    wait_until("all is sealed", || session.holds("SELECT unsealed = 0 AND sealed > 0 FROM audit.status()"));
}

/// Process of the sealer of a database.
fn sealer(session: &mut Session, database: &str) -> Option<u32> {
    let sql =
        format!("SELECT pid FROM pg_stat_activity WHERE backend_type = 'audit sealer' AND datname = '{database}'");
    session.column(&sql).first().map(|pid| pid.parse().expect("process ids are numbers"))
}

#[track_caller]
fn wait_sealer(session: &mut Session, database: &str) -> u32 {
    wait_until("there is a sealer", || sealer(session, database).is_some());
    sealer(session, database).expect("there is one")
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn it_seals_by_itself_in_each_database() {
    let cluster = preloaded().start();
    let mut databases: Vec<_> = (0..2).map(|_| with_table(&cluster)).collect();
    for (_, session) in &mut databases {
        wait_sealed(session);
        insert(session, 10);
        wait_sealed(session);
        let row = session.rows("SELECT preloaded, sealer IS NOT NULL, last_seal >= 2, last_seal_at <= now(), seal_lag = '0' FROM audit.status()");
        assert!(row[0].iter().all(|value| value.as_deref() == Some("t")), "{row:?}");
        // What is sealed already is not sealed again.
        let seals = session.number("SELECT count(*) FROM audit.seal");
        std::thread::sleep(Duration::from_millis(700));
        assert_eq!(session.number("SELECT count(*) FROM audit.seal"), seals);
    }
}

#[test]
fn without_preloading_there_is_no_sealer_and_status_says_so() {
    let cluster = Cluster::builder().start();
    let (_, mut session) = with_table(&cluster);
    insert(&mut session, 3);
    let sql = "SELECT preloaded, sealer, sealed, unsealed, last_seal, seal_lag > '0' FROM audit.status()";
    let row: Vec<_> = session.rows(sql).swap_remove(0);
    assert_eq!(
        row.iter().map(Option::as_deref).collect::<Vec<_>>(),
        [Some("f"), None, Some("0"), Some("4"), None, Some("t")]
    );
    session.run("SELECT audit.seal()");
    assert!(
        session.holds("SELECT unsealed = 0 AND sealed = 4 AND last_seal = 1 AND seal_lag = '0' FROM audit.status()")
    );
}

#[test]
fn lag_is_told_while_the_sealer_is_off_and_it_can_be_switched_on_and_off() {
    let cluster = preloaded().conf("audit.seal_interval = 0").start();
    let (database, mut session) = with_table(&cluster);
    insert(&mut session, 5);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(
        session.holds("SELECT unsealed = 6 AND sealed = 0 AND seal_lag > '1s' AND sealer IS NULL FROM audit.status()")
    );
    cluster.set("audit.seal_interval", "100ms");
    wait_sealed(&mut session);
    cluster.set("audit.seal_interval", "0");
    wait_until("the sealer is gone", || sealer(&mut session, &database.name).is_none());
}

#[test]
fn only_the_databases_that_are_named_are_sealed() {
    let cluster = preloaded().start();
    let (named, mut yes) = with_table(&cluster);
    let (other, mut no) = with_table(&cluster);
    wait_sealed(&mut no);
    cluster.set("audit.seal_databases", &format!("nowhere, {} ", named.name));
    wait_until("the other sealer is gone", || sealer(&mut no, &other.name).is_none());
    insert(&mut yes, 1);
    insert(&mut no, 1);
    wait_sealed(&mut yes);
    std::thread::sleep(Duration::from_millis(500));
    assert!(no.holds("SELECT unsealed = 1 FROM audit.status()"));
}

#[test]
fn a_database_without_the_extension_is_left_alone_until_it_has_it() {
    let cluster = preloaded().start();
    let database = cluster.bare_database();
    let mut session = database.connect();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(sealer(&mut session, &database.name), None);
    session.run("CREATE EXTENSION audit; CREATE TABLE t (id int PRIMARY KEY, v text); SELECT audit.protect('t')");
    wait_sealed(&mut session);
    let begun = Instant::now();
    session.run("BEGIN; SELECT audit.maintenance('a test'); DROP EXTENSION audit CASCADE; COMMIT");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    wait_until("the sealer is gone", || sealer(&mut session, &database.name).is_none());
    session.run("CREATE EXTENSION audit; SELECT audit.protect('t')");
    wait_sealed(&mut session);
    assert!(!cluster.server_log().contains("WARNING:"), "{}", cluster.server_log());
}

#[test]
fn whoever_wants_a_database_for_himself_gets_it_soon() {
    let cluster = preloaded().conf("audit.seal_interval = '30s'").start();
    let mut other = cluster.connect("postgres");
    let (database, session) = with_table(&cluster);
    let name = database.name.clone();
    drop(session);
    for sql in [
        format!(r#"CREATE DATABASE copy TEMPLATE "{name}""#),
        format!(r#"ALTER DATABASE "{name}" RENAME TO moved"#),
        "DROP DATABASE copy".to_owned(),
        "DROP DATABASE moved WITH (FORCE)".to_owned(),
    ] {
        for database in [&*name, "copy", "moved"] {
            if other.holds(&format!("SELECT EXISTS (SELECT FROM pg_database WHERE datname = '{database}')")) {
                wait_sealer(&mut other, database);
            }
        }
        let begun = Instant::now();
        other.run(&sql);
        assert!(begun.elapsed() < Duration::from_secs(4), "{sql}: {:?}", begun.elapsed());
    }
}

#[test]
fn it_stops_within_a_second_while_it_seals_and_goes_on_later() {
    let cluster = preloaded().conf("audit.seal_interval = 0").start();
    let (database, mut session) = with_table(&cluster);
    insert(&mut session, 400_000);
    cluster.set("audit.seal_interval", "1s");
    // Other tests run at the same time: one of three attempts must show what it can.
    let in_time = (0..3).any(|_| {
        wait_until("it seals", || {
            session.holds("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'audit sealer' AND query = 'sealing' AND state = 'active')")
        });
        let pid = sealer(&mut session, &database.name).expect("it was there just now");
        let begun = Instant::now();
        cluster.signal("TERM", pid);
        while is_alive(pid) {
            assert!(begun.elapsed() < Duration::from_secs(10), "it goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
        begun.elapsed() < Duration::from_secs(1)
    });
    assert!(in_time, "it went on for more than a second");
    wait_sealed(&mut session);
    assert_eq!(session.number("SELECT tree_size FROM audit.seal ORDER BY number DESC LIMIT 1"), 400_001);
}

#[test]
fn an_idle_server_with_sealers_stops_within_a_second() {
    let mut cluster = preloaded().start();
    let (database, mut session) = with_table(&cluster);
    wait_sealed(&mut session);
    let pid = wait_sealer(&mut session, &database.name);
    drop((database, session));
    let begun = Instant::now();
    cluster.stop();
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert!(!is_alive(pid));
    let log = cluster.server_log();
    assert!(!log.contains("WARNING:") && !log.contains("ERROR:"), "{log}");
}

#[test]
fn it_is_started_again_after_an_error_and_after_it_was_killed() {
    let cluster = preloaded().start();
    let (database, mut session) = with_table(&cluster);
    wait_sealed(&mut session);
    session.run("BEGIN; SELECT audit.maintenance('a test'); ALTER TABLE audit.seal RENAME TO lost; COMMIT");
    let complaint = "is not installed completely in this database";
    wait_until("it complains", || cluster.server_log().contains(complaint));
    session.run("ALTER TABLE audit.lost RENAME TO seal");
    insert(&mut session, 1);
    wait_sealed(&mut session);
    let pid = wait_sealer(&mut session, &database.name);
    cluster.signal("TERM", pid);
    insert(&mut session, 1);
    wait_sealed(&mut session);
    assert_ne!(wait_sealer(&mut session, &database.name), pid);
    assert_clean(&mut session);
}

#[test]
fn after_a_crash_it_goes_on_with_every_entry_sealed_once() {
    let cluster = preloaded().durable().start();
    let (database, mut session) = with_table(&cluster);
    wait_sealed(&mut session);
    for round in 0..3 {
        insert(&mut session, 20_000);
        let pid = wait_sealer(&mut session, &database.name);
        std::thread::sleep(Duration::from_millis(60 * round));
        let starts = |cluster: &Cluster| cluster.server_log().matches("ready to accept connections").count();
        let before = starts(&cluster);
        cluster.signal("KILL", pid);
        wait_until("the server has recovered", || starts(&cluster) > before);
        session = database.connect();
    }
    wait_sealed(&mut session);
    assert_seals(&mut session);
    assert_clean(&mut session);
}

#[test]
fn it_waits_for_no_lock_for_long_and_holds_nobody_up() {
    let cluster = preloaded().start();
    let (database, mut session) = with_table(&cluster);
    wait_sealed(&mut session);
    let mut ddl = database.connect();
    ddl.run("BEGIN; LOCK TABLE audit.log IN ACCESS EXCLUSIVE MODE");
    std::thread::sleep(Duration::from_millis(800));
    // It gave up its place in the queue again and again, so nobody stands behind it.
    ddl.run("COMMIT");
    insert(&mut session, 1);
    wait_sealed(&mut session);
    assert!(!cluster.server_log().contains("WARNING:"), "{}", cluster.server_log());
}

#[test]
fn where_there_are_too_few_processes_databases_take_turns_and_the_log_says_so() {
    // One for logical replication, one for the launcher, one for a sealer.
    let cluster = preloaded().conf("max_worker_processes = 3").start();
    let (first, mut here) = with_table(&cluster);
    let (second, mut there) = with_table(&cluster);
    cluster.set("audit.seal_databases", &format!("{},{}", first.name, second.name));
    for session in [&mut here, &mut there] {
        insert(session, 1);
    }
    wait_sealed(&mut here);
    wait_sealed(&mut there);
    let log = cluster.server_log();
    assert!(log.contains("could not start a sealer for database") && log.contains("HINT:  Raise max_worker_processes"));
}

#[test]
fn a_standby_has_none_and_takes_over_after_promotion() {
    let mut primary = preloaded().start();
    let (name, ledger) = {
        let (database, mut session) = with_table(&primary);
        insert(&mut session, 5);
        wait_sealed(&mut session);
        (database.name.clone(), session.text("SELECT id FROM audit.ledger"))
    };
    let standby = primary.standby();
    primary.wait_for(&standby);
    let mut there = standby.connect(&name);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(there.number("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'audit %'"), 0);
    assert_eq!(there.sqlstate("SELECT audit.seal()"), "25006");
    primary.stop_immediately();
    there.run("SELECT pg_promote()");
    insert(&mut there, 1);
    wait_sealed(&mut there);
    let new = there.rows("SELECT new ->> 'timeline', new ->> 'reasons', new #>> '{before,timeline}', ledger FROM audit.log WHERE op = 'INCARNATION'");
    assert_eq!(
        new[0].iter().map(Option::as_deref).collect::<Vec<_>>(),
        [Some("2"), Some(r#"["timeline"]"#), Some("1"), Some(&*ledger)]
    );
    assert_eq!(new.len(), 1, "said once");
    let verdict = there.text("SELECT detail FROM audit.verify() WHERE what = 'checkpoint'");
    assert!(verdict.ends_with("(timeline 2 in place of 1)"), "{verdict}");
    assert_clean(&mut there);
}

#[test]
fn a_restored_database_is_not_sealed_before_it_writes_itself() {
    let cluster = preloaded().start();
    let (database, mut session) = with_table(&cluster);
    insert(&mut session, 3);
    wait_sealed(&mut session);
    let dump = cluster.program("pg_dump", [&*database.name]);
    let restored = cluster.bare_database();
    restored.psql(&dump);
    let mut there = restored.connect();
    std::thread::sleep(Duration::from_secs(1));
    wait_sealer(&mut there, &restored.name);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(there.number("SELECT count(*) FROM audit.log WHERE op = 'INCARNATION'"), 0);
    let seals = there.number("SELECT count(*) FROM audit.seal");
    insert(&mut there, 1);
    wait_sealed(&mut there);
    assert_eq!(there.number("SELECT count(*) FROM audit.log WHERE op = 'INCARNATION'"), 1);
    assert!(there.number("SELECT count(*) FROM audit.seal") > seals);
    assert_clean(&mut there);
}

#[test]
fn sealing_by_itself_and_by_hand_under_writers_counts_each_entry_once() {
    let cluster = preloaded().conf("audit.seal_interval = '20ms'").start();
    let (database, mut session) = with_table(&cluster);
    std::thread::scope(|scope| {
        for writer in 0..6 {
            let database = &database;
            scope.spawn(move || {
                let mut session = database.connect();
                for i in 0..150 {
                    session.run(&format!("INSERT INTO t VALUES ({}, 'x')", writer * 1000 + i + 10));
                    if i % 40 == 0 {
                        session.run("SELECT audit.seal()");
                    }
                }
            });
        }
    });
    wait_sealed(&mut session);
    assert!(
        session
            .holds("SELECT tree_size = (SELECT count(*) FROM audit.log) FROM audit.seal ORDER BY number DESC LIMIT 1")
    );
    assert!(
        session.holds("SELECT sum(last_seq - first_seq + 1) = (SELECT count(*) FROM audit.log) FROM audit.seal_range")
    );
    assert_clean(&mut session);
}

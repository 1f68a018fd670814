//! The throw-away servers themselves, without the extension: what the other tests stand on.

use audit_tests::{Cluster, Rng};

#[test]
fn a_dropped_server_leaves_neither_process_nor_files() {
    let cluster = Cluster::builder().start();
    let data = cluster.data();
    let pid_file = std::fs::read_to_string(data.join("postmaster.pid")).expect("the server is running");
    let pid = pid_file.lines().next().expect("its first line is the process id").to_owned();
    assert!(std::path::Path::new("/proc").join(&pid).exists());

    drop(cluster);

    assert!(!data.parent().expect("data is inside").exists());
    assert!(!std::path::Path::new("/proc").join(&pid).exists());
}

#[test]
fn a_server_survives_restart_immediate_stop_and_kill() {
    let mut cluster = Cluster::builder().durable().conf("log_min_messages = 'log'").start();
    cluster.connect("postgres").run("CREATE TABLE t (v int)");
    cluster.restart();
    cluster.connect("postgres").run("INSERT INTO t VALUES (1)");
    cluster.stop_immediately();
    cluster.start();
    cluster.connect("postgres").run("INSERT INTO t VALUES (2)");
    cluster.kill_postmaster();
    cluster.start();
    assert_eq!(cluster.connect("postgres").column("SELECT v FROM t ORDER BY v"), ["1", "2"]);
    assert!(cluster.server_log().contains("database system was not properly shut down"));
}

#[test]
fn a_standby_follows() {
    let cluster = Cluster::builder().start();
    let standby = cluster.standby();
    cluster.connect("postgres").run("CREATE TABLE t AS SELECT 42 AS v");
    cluster.wait_for(&standby);
    let mut session = standby.connect("postgres");
    assert!(session.holds("SELECT pg_is_in_recovery()"));
    assert_eq!(session.text("SELECT v FROM t"), "42");
}

#[test]
fn sessions_tell_errors_and_notices() {
    let database = Cluster::shared().bare_database();
    assert!(database.name.ends_with("_sessions_tell_errors_and_notices"));
    let mut session = database.connect();
    session.run("DO $$ BEGIN RAISE NOTICE 'seen'; END $$");
    assert_eq!(session.notices(), ["seen"]);
    let error = session.refused("SELECT 1 / 0");
    assert_eq!(error.code().code(), "22012");
    assert_eq!(database.psql("SELECT 'a', NULL, 'b'"), "a||b\n");
}

#[test]
fn random_numbers_repeat() {
    let draw = |seed| {
        let mut rng = Rng::new(seed);
        (0..100).map(|_| rng.below(10)).collect::<Vec<_>>()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
    assert!((0..10).all(|number| draw(7).contains(&number)));
}

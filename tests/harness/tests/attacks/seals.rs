//! Attacks on seals, checkpoints and keys.

use std::fs;
use std::path::Path;

use audit_tests::{Cluster, findings_of, guards_off};

use super::{APP, SUPERUSER, Scene};

/// A ledger with two seals and something behind them.
fn sealed() -> Scene {
    let scene = Scene::account();
    scene.database.connect().run(
        "UPDATE account SET balance = 1 WHERE id = 1; SELECT audit.seal(); UPDATE account SET balance = 2 WHERE id = 1; SELECT audit.seal();
         UPDATE account SET balance = 3 WHERE id = 1",
    );
    scene
}

#[test]
fn a_new_seal_does_not_heal_what_was_sealed_before() {
    for (damage, kind) in [
        ("UPDATE audit.log SET user_name = 'nobody' WHERE new::text = '{\"balance\":1}'", "content"),
        ("UPDATE audit.log SET hash = sha256('x') WHERE new::text = '{\"balance\":1}'", "link"),
        ("DELETE FROM audit.log WHERE new::text = '{\"balance\":1}'", "missing"),
    ] {
        let mut scene = sealed();
        println!("damage: {damage}");
        let outcome = scene.attack_by(|database| {
            let mut s = database.connect();
            guards_off(&mut s, "audit.log", damage);
            let _ = s.batch_execute("SELECT audit.seal()");
            let _ = s.batch_execute("UPDATE account SET balance = 4 WHERE id = 1");
            let _ = s.batch_execute("SELECT audit.seal()");
        });
        outcome.assert_reported_as(kind);
    }
}

/// A commit of the application may be lost in a crash where it chose so; a seal never is, or a checkpoint would be ahead of the log.
#[test]
fn what_a_checkpoint_says_survives_a_crash_also_without_synchronous_commits() {
    let mut cluster =
        Cluster::builder().durable().conf("synchronous_commit = off").conf("wal_writer_delay = 10s").start();
    for round in 0..3 {
        let (name, kept) = {
            let database = cluster.database();
            let mut s = database.connect();
            s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t SELECT generate_series(1, 100)");
            s.run("SELECT audit.seal(); INSERT INTO t VALUES (101); SELECT audit.seal()");
            (database.name.clone(), s.text("SELECT audit.checkpoint()"))
        };
        if round == 0 {
            cluster.stop_immediately()
        } else {
            cluster.kill_postmaster()
        }
        cluster.start();
        let mut s = cluster.connect(&name);
        assert_eq!(findings_of(&mut s, &format!("audit.findings('{kept}')")), []);
        assert_eq!(s.number("SELECT max(tree_size) FROM audit.seal"), 102);
    }
}

/// Whoever may signal backends cannot end the sealer for good; and a sealer that does not run shows as lag.
#[test]
fn whoever_may_signal_backends_does_not_stop_the_sealing() {
    let cluster =
        Cluster::builder().conf("shared_preload_libraries = 'audit'").conf("audit.seal_interval = '100ms'").start();
    let database = cluster.database();
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); CREATE ROLE attacks_signal LOGIN IN ROLE pg_signal_backend");
    audit_tests::wait_until("the sealer runs", || s.holds("SELECT sealer IS NOT NULL FROM audit.status()"));
    let mut attacker = database.connect_as("attacks_signal");
    for _ in 0..5 {
        let pid = s.number("SELECT coalesce((SELECT sealer FROM audit.status()), 0)");
        let _ = attacker.batch_execute(&format!("SELECT pg_terminate_backend({pid}), pg_cancel_backend({pid})"));
    }
    s.run("INSERT INTO t VALUES (1)");
    audit_tests::wait_until("it is sealed", || s.holds("SELECT unsealed = 0 FROM audit.status()"));
    audit_tests::assert_clean(&mut s);
}

/// The key signs from its file; nothing of it gets into the database, its write-ahead log, or what settings show.
#[test]
fn the_signing_key_is_nowhere_in_the_database() {
    let cluster = Cluster::builder().conf("shared_preload_libraries = 'audit'").conf("audit.seal_interval = 0").start();
    let key = cluster.signing_key("key.pem");
    let pem = fs::read_to_string(&key).expect("it was just written");
    let secret = pem.lines().nth(1).expect("the second line is the key").to_owned();
    cluster.set("audit.signing_key_file", &key.display().to_string());
    let database = cluster.database();
    let mut s = database.connect();
    s.run(
        "CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t VALUES (1); SELECT audit.seal()",
    );
    assert!(s.text("SELECT audit.checkpoint()").contains('—'), "not signed");
    s.run("CHECKPOINT");
    // PKCS#8: the last 32 bytes are the seed.
    let seed = s.text(&format!("SELECT encode(substr(decode('{secret}', 'base64'), 17), 'hex')"));
    let seed: Vec<u8> =
        (0..seed.len()).step_by(2).map(|at| u8::from_str_radix(&seed[at..at + 2], 16).expect("hex")).collect();
    assert_eq!(seed.len(), 32);
    let mut files = 0;
    // Without the questions of this test itself, which name the key: they are not logged.
    search(&cluster.data(), &mut |path, bytes| {
        files += 1;
        let found =
            [secret.as_bytes(), &seed].iter().any(|needle| bytes.windows(needle.len()).any(|window| window == *needle));
        assert!(!found, "the key is in {}", path.display());
    });
    assert!(files > 500, "only {files} files were looked at");
    for question in [
        "SELECT setting FROM pg_settings",
        "SELECT setting FROM pg_file_settings",
        "SELECT pem FROM audit.public_key()",
    ] {
        assert!(!s.column(question).iter().any(|value| value.contains(&secret)), "{question}");
    }
}

fn search(folder: &Path, each: &mut impl FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(folder).expect("the data directory can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            search(&path, each);
        } else if let Ok(bytes) = fs::read(&path) {
            // Temporary files may be gone.
            each(&path, &bytes);
        }
    }
}

/// The text of a checkpoint is compared, not run.
#[test]
fn a_checkpoint_is_text_and_never_a_statement() {
    let mut scene = sealed();
    let checkpoint = scene.witness.text("SELECT audit.checkpoint()");
    let size = checkpoint.lines().nth(1).expect("the size").to_owned();
    let hostile = [
        "'; DROP TABLE public.account; --".to_owned(),
        checkpoint.replace(&size, "99999999999999999999999"),
        checkpoint.replace(&size, "-1"),
        checkpoint.replace(&size, "1; SELECT 1"),
        checkpoint.replace('\n', "\0").replace('\0', "\r\n"),
        checkpoint.replacen("audit/", "audit/%s%n$(touch /tmp/x)", 1),
        format!("{checkpoint}{}", "— x AAAA\n".repeat(10_000)),
        "\n".repeat(100_000),
        "x".repeat(1_000_000),
        String::new(),
    ];
    let outcome = scene.attack_by(|database| {
        let mut s = database.connect();
        let pid = s.backend_pid();
        for text in &hostile {
            for function in [
                "SELECT * FROM audit.findings($1)",
                "SELECT * FROM audit.verify($1)",
                "SELECT audit.consistency_proof($1)",
            ] {
                let _ = s.query(function, &[text]);
            }
            let _ = s.query("SELECT audit.verify_inclusion($1, $1, $1)", &[text]);
        }
        assert_eq!(s.backend_pid(), pid);
    });
    outcome.assert_refused();
}

/// An older checkpoint still holds; what it does not cover is counted, so that it cannot pass for the newest one.
#[test]
fn an_old_checkpoint_cannot_pass_for_the_newest() {
    let mut scene = Scene::account();
    let mut s = scene.database.connect();
    s.run("SELECT audit.seal()");
    let old = s.text("SELECT audit.checkpoint()");
    s.run("UPDATE account SET balance = 1; SELECT audit.seal()");
    let detail = s.text(&format!("SELECT detail FROM audit.verify('{old}') WHERE what = 'checkpoint'"));
    assert!(detail.contains('2'), "the two newer entries are not counted: {detail}");
    scene.attack(APP, &["SELECT 1"]).assert_refused();
}

#[test]
fn an_application_cannot_seal_or_make_checkpoints() {
    let mut scene = sealed();
    scene
        .attack(
            APP,
            &[
                "SELECT audit.seal()",
                "SELECT audit.checkpoint()",
                "SELECT * FROM audit.public_key()",
                "SELECT * FROM audit.export_seals()",
            ],
        )
        .assert_refused();
    scene.attack(SUPERUSER, &["BEGIN", "SELECT audit.seal()", "ROLLBACK"]).assert_refused();
}

//! Origin, signing key and checkpoints.

use std::fs;
use std::process::Command;

use audit_tests::{Cluster, Database, Session};

/// A server with the extension preloaded and the sealer at rest: each test seals when it wants to.
fn cluster() -> Cluster {
    Cluster::builder().conf("shared_preload_libraries = 'audit'").conf("audit.seal_interval = 0").start()
}

fn with_table<'a>(cluster: &'a Cluster) -> (Database<'a>, Session) {
    let database = cluster.database();
    let mut session = database.connect();
    session.run("CREATE TABLE t (id int PRIMARY KEY, v text); SELECT audit.protect('t')");
    (database, session)
}

#[test]
fn the_public_key_is_that_of_the_file_under_the_name_of_the_ledger() {
    let cluster = cluster();
    let (database, mut session) = with_table(&cluster);
    assert_eq!(session.rows("SELECT * FROM audit.public_key()").len(), 0, "no key is set");

    let key = cluster.signing_key("key.pem");
    cluster.set("audit.signing_key_file", key.to_str().expect("the name is ASCII"));
    let mut session2 = database.connect();
    let row = session2.rows("SELECT vkey, pem FROM audit.public_key()").swap_remove(0);
    let openssl = Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&key).output().expect("openssl runs");
    assert_eq!(row[1].as_deref(), Some(&*String::from_utf8(openssl.stdout).expect("PEM is ASCII")));
    let ledger = session2.text("SELECT id FROM audit.ledger");
    let vkey = row[0].clone().expect("there is one");
    assert!(vkey.starts_with(&format!("audit/{ledger}+")), "{vkey}");

    session2.run("SET audit.origin = 'bank.example/audit'");
    let vkey = session2.text("SELECT vkey FROM audit.public_key()");
    assert!(vkey.starts_with("bank.example/audit+"), "{vkey}");
}

#[test]
fn a_database_without_ledger_has_no_name_to_sign_with() {
    let cluster = cluster();
    let database = cluster.database();
    cluster.set("audit.signing_key_file", cluster.signing_key("key.pem").to_str().expect("the name is ASCII"));
    let error = database.connect().refused("SELECT * FROM audit.public_key()");
    assert_eq!((error.code().code(), error.message()), ("55000", "this database has no ledger"));
}

#[test]
fn a_key_file_that_is_not_secret_or_not_a_key_is_refused_and_nothing_of_it_is_shown() {
    let cluster = cluster();
    let (database, _) = with_table(&cluster);
    let key = fs::read_to_string(cluster.signing_key("good.pem")).expect("root reads all");
    let middle = key.lines().nth(1).expect("PEM has a line in the middle").to_owned();
    let other = Command::new("openssl").args(["genpkey", "-algorithm", "ed448"]).output().expect("openssl runs").stdout;
    let foreign = cluster.write("foreign.pem", &key, 0o600);
    let is_root = Command::new("chown").arg("nobody").arg(&foreign).status().expect("chown runs").success();
    let mut cases = vec![
        ("group.pem", cluster.write("group.pem", &key, 0o640), "Others than its owner have rights"),
        ("other.pem", cluster.write("other.pem", &key, 0o604), "Others than its owner have rights"),
        ("missing.pem", cluster.file("missing.pem"), "No such file or directory"),
        ("dir", cluster.data(), "not a regular file"),
        ("torn.pem", cluster.write("torn.pem", &key[..70], 0o600), "does not hold an Ed25519 private key"),
        ("ed448.pem", cluster.write("ed448.pem", &String::from_utf8_lossy(&other), 0o600), "does not hold an Ed25519"),
        ("empty.pem", cluster.write("empty.pem", "", 0o600), "does not hold an Ed25519"),
        ("long.pem", cluster.write("long.pem", &format!("{key}{}", " ".repeat(5000)), 0o600), "more than 4096 bytes"),
    ];
    if is_root {
        cases.push(("foreign.pem", foreign, "could not be read: Permission denied"));
        let readable = cluster.write("foreign2.pem", &key, 0o644);
        Command::new("chown").arg("nobody").arg(&readable).status().expect("chown runs");
        cases.push(("foreign2.pem", readable, "must belong to the user that the server runs as"));
    }
    for (name, path, why) in cases {
        cluster.set("audit.signing_key_file", path.to_str().expect("the name is ASCII"));
        let error = database.connect().refused("SELECT * FROM audit.public_key()");
        assert_eq!((error.code().code(), error.message()), ("F0000", "could not load the signing key"), "{name}");
        let detail = error.detail().unwrap_or_default();
        assert!(detail.contains(why), "{name}: {detail}");
        let all = format!("{error:?}");
        assert!(!all.contains(&middle[..20]) && !all.contains(path.to_str().expect("as above")), "{name}: {all}");
    }
    if is_root {
        // As for the server's own TLS key: root may own it and let the server's group read it.
        let path = cluster.write("root.pem", &key, 0o640);
        Command::new("chown").arg("root:postgres").arg(&path).status().expect("chown runs");
        cluster.set("audit.signing_key_file", path.to_str().expect("the name is ASCII"));
        assert_eq!(database.connect().rows("SELECT * FROM audit.public_key()").len(), 1);
    }
}

#[test]
fn where_the_key_is_and_the_command_are_hidden_from_others_and_cannot_be_set() {
    let cluster = cluster();
    let (database, mut session) = with_table(&cluster);
    session.run("CREATE ROLE clerk LOGIN");
    let mut clerk = database.connect_as("clerk");
    for setting in ["audit.signing_key_file", "audit.checkpoint_file", "audit.checkpoint_command"] {
        assert_eq!(clerk.refused(&format!("SHOW {setting}")).code().code(), "42501", "{setting}");
        assert_eq!(clerk.refused(&format!("SET {setting} = 'x'")).code().code(), "55P02", "{setting}");
        assert_eq!(session.refused(&format!("SET {setting} = 'x'")).code().code(), "55P02", "{setting}");
    }
    assert_eq!(clerk.refused("SET audit.origin = 'x'").code().code(), "42501");
    assert_eq!(clerk.refused("SELECT * FROM audit.public_key()").code().code(), "42501");
}

#[test]
fn an_origin_that_cannot_name_a_key_is_refused() {
    let cluster = cluster();
    let (database, mut session) = with_table(&cluster);
    for origin in ["a b", "a+b", "a\tb", "\u{2003}"] {
        let error = session.refused(&format!("SET audit.origin = '{origin}'"));
        assert_eq!(error.code().code(), "22023", "{origin:?}");
    }
    session.run(&format!("ALTER DATABASE \"{}\" SET audit.origin = 'bank.example/audit'", database.name));
    assert_eq!(database.connect().text("SHOW audit.origin"), "bank.example/audit");
}

//! Origin, signing key and checkpoints.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use audit_tests::{Builder, Cluster, Database, Session, assert_clean, wait_until};

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
        assert_eq!(clerk.sqlstate(&format!("SHOW {setting}")), "42501", "{setting}");
        assert_eq!(clerk.sqlstate(&format!("SET {setting} = 'x'")), "55P02", "{setting}");
        assert_eq!(session.sqlstate(&format!("SET {setting} = 'x'")), "55P02", "{setting}");
    }
    assert_eq!(clerk.sqlstate("SET audit.origin = 'x'"), "42501");
    assert_eq!(clerk.sqlstate("SELECT * FROM audit.public_key()"), "42501");
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

/// Lets openssl judge a signed checkpoint, in the way that docs/format.md, section 7.1 shows.
#[track_caller]
fn assert_signed(cluster: &Cluster, key: &Path, checkpoint: &str) {
    let file = |name: &str| cluster.file(name).display().to_string();
    fs::write(file("checkpoint"), checkpoint).expect("root writes all");
    let script = format!(
        r"cd {dir} && openssl pkey -in {key} -pubout -out public.pem
          sed -n '1,/^$/p' checkpoint | sed '$d' > text
          sed '1,/^$/d' checkpoint | cut -d' ' -f3 | base64 -d | tail -c 64 > signature
          openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in text -sigfile signature",
        dir = cluster.file("").display(),
        key = key.display()
    );
    let output = Command::new("sh").args(["-ec", &script]).output().expect("sh runs");
    assert!(output.status.success(), "{checkpoint}\n{}", String::from_utf8_lossy(&output.stdout));
}

/// Size of the tree of a checkpoint.
fn size(checkpoint: &str) -> i64 {
    checkpoint.lines().nth(1).expect("it has a second line").parse().expect("a size")
}

fn keys(session: &mut Session) -> Vec<String> {
    session.column("SELECT new ->> 'vkey' FROM audit.log WHERE op = 'KEY' ORDER BY id")
}

#[test]
fn the_checkpoint_is_the_newest_seal_and_unsigned_without_a_key() {
    let cluster = cluster();
    assert_eq!(cluster.database().connect().value("SELECT audit.checkpoint()"), None, "there is no ledger");
    let (_, mut session) = with_table(&cluster);
    assert_eq!(session.value("SELECT audit.checkpoint()"), None, "nothing is sealed");
    session.run("INSERT INTO t VALUES (1, 'a'); SELECT audit.seal()");
    let expected = session.text(
        "SELECT 'audit/' || l.id || E'\n' || tree_size || E'\n' || encode(root, 'base64') || E'\n'
           FROM audit.seal, audit.ledger l",
    );
    assert_eq!(session.text("SELECT audit.checkpoint()"), expected);
    session.run("INSERT INTO t VALUES (2, 'b')");
    assert_eq!(session.text("SELECT audit.checkpoint()"), expected, "what is not sealed is in no checkpoint");
    session.run("SET audit.origin = 'bank.example/audit'");
    assert!(session.text("SELECT audit.checkpoint()").starts_with("bank.example/audit\n"));
}

#[test]
fn nothing_is_signed_that_could_be_rolled_back() {
    let cluster = cluster();
    let (_, mut session) = with_table(&cluster);
    session.run("SELECT audit.seal(); INSERT INTO t VALUES (1, 'a')");
    session.run("BEGIN; SELECT audit.seal(); SAVEPOINT s; INSERT INTO t VALUES (2, 'b'); SELECT audit.seal()");
    assert_eq!(session.number("SELECT max(tree_size) FROM audit.seal"), 3);
    assert_eq!(size(&session.text("SELECT audit.checkpoint()")), 1);
    session.run("ROLLBACK");
    assert_eq!(size(&session.text("SELECT audit.checkpoint()")), 1);
}

#[test]
fn a_key_and_each_change_of_it_is_an_entry_before_it_signs() {
    let cluster = cluster();
    let (database, mut session) = with_table(&cluster);
    session.run("SELECT audit.seal()");
    let mut vkeys = Vec::new();
    for name in ["first.pem", "second.pem"] {
        let key = cluster.signing_key(name);
        cluster.set("audit.signing_key_file", key.to_str().expect("the name is ASCII"));
        let mut session = database.connect();
        let error = session.refused("SELECT audit.checkpoint()");
        assert_eq!(
            (error.code().code(), error.message()),
            ("55000", "cannot give out a checkpoint before the next seal")
        );
        let before = session.number("SELECT max(number) FROM audit.seal");
        assert_eq!(session.number("SELECT audit.seal()"), before + 1);
        assert_eq!(session.value("SELECT audit.seal()"), None, "said once is enough");
        let checkpoint = session.text("SELECT audit.checkpoint()");
        assert_signed(&cluster, &key, &checkpoint);
        vkeys.push(session.text("SELECT vkey FROM audit.public_key()"));
        assert_eq!(keys(&mut session), vkeys);
        assert_eq!(size(&checkpoint), session.number("SELECT count(*) FROM audit.log"), "the checkpoint covers it");
    }
    // Another name is another key.
    session.run(&format!("ALTER DATABASE \"{}\" SET audit.origin = 'bank.example/audit'", database.name));
    let mut session = database.connect();
    session.run("SELECT audit.seal()");
    assert!(keys(&mut session)[2].starts_with("bank.example/audit+"));
    assert_clean(&mut session);
}

#[test]
fn a_key_that_cannot_be_read_stops_checkpoints_and_nothing_else() {
    let cluster = cluster();
    let (database, mut session) = with_table(&cluster);
    cluster.set("audit.signing_key_file", cluster.file("nowhere").to_str().expect("the name is ASCII"));
    let mut session2 = database.connect();
    session.run("INSERT INTO t VALUES (1, 'a')");
    session2.notices();
    assert_eq!(session2.number("SELECT audit.seal()"), 1);
    assert_eq!(session2.notices(), ["could not load the signing key"]);
    assert_eq!(session2.sqlstate("SELECT audit.checkpoint()"), "F0000");
}

#[test]
fn the_sealer_keeps_the_newest_checkpoint_in_a_file() {
    let cluster = sealing().conf("audit.checkpoint_file = '/nowhere/%d'").start();
    let (database, mut session) = with_table(&cluster);
    wait_until("it complains", || cluster.server_log().contains("could not write the checkpoint file"));
    wait_until("it seals all the same", || session.holds("SELECT unsealed = 0 FROM audit.status()"));
    let template = cluster.file("outside-%d-%l%%").display().to_string();
    let ledger = session.text("SELECT id FROM audit.ledger");
    let file = cluster.file(&format!("outside-{}-{ledger}%", database.name));
    cluster.set("audit.checkpoint_file", &template);
    let key = cluster.signing_key("key.pem");
    cluster.set("audit.signing_key_file", key.to_str().expect("the name is ASCII"));
    for id in 1..4 {
        session.run(&format!("INSERT INTO t VALUES ({id}, 'a')"));
        let entries = session.number("SELECT count(*) FROM audit.log WHERE op <> 'KEY'") + 1;
        wait_until("the file is new", || fs::read_to_string(&file).is_ok_and(|text| size(&text) == entries));
        let text = fs::read_to_string(&file).expect("it was there just now");
        assert_eq!(text, database.connect().text("SELECT audit.checkpoint()"));
        assert_signed(&cluster, &key, &text);
    }
    assert!(!cluster.file(&format!("outside-{}-{ledger}%.new", database.name)).exists());
    let log = cluster.server_log();
    assert!(log.contains(&format!("checkpoint of ledger \"audit/{ledger}\" with")), "{log}");
    assert_eq!(session.number("SELECT count(*) FROM audit.log WHERE op = 'INCARNATION'"), 0);
}

#[test]
fn a_file_that_is_not_this_ledgers_is_never_overwritten() {
    let cluster = sealing().start();
    let (_, mut session) = with_table(&cluster);
    let file = cluster.write("kept", "other.example/audit\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", 0o644);
    let kept = fs::read_to_string(&file).expect("it was written just now");
    cluster.set("audit.checkpoint_file", file.to_str().expect("the name is ASCII"));
    session.run("INSERT INTO t VALUES (1, 'a')");
    wait_until("it complains", || cluster.server_log().contains("could not read the checkpoint file"));
    assert!(cluster.server_log().contains("It holds a checkpoint of \"other.example/audit\""));
    wait_until("it seals all the same", || session.holds("SELECT unsealed = 0 FROM audit.status()"));
    assert_eq!(fs::read_to_string(&file).expect("as above"), kept);
    fs::write(&file, "my letters").expect("root writes all");
    let error = session.refused("SELECT audit.checkpoint()");
    assert_eq!(error.code().code(), "F0000");
    assert!(error.detail().unwrap_or_default().contains("What it holds is no checkpoint"), "{error:?}");
    assert_eq!(fs::read_to_string(&file).expect("as above"), "my letters");
}

/// A server whose sealer works.
fn sealing() -> Builder {
    Cluster::builder().conf("shared_preload_libraries = 'audit'").conf("audit.seal_interval = '100ms'")
}

#[test]
fn the_command_gets_each_checkpoint_and_its_result_is_told() {
    let cluster = sealing().conf("audit.checkpoint_interval = 0").start();
    let (database, mut session) = with_table(&cluster);
    let out = cluster.file("given");
    let name = out.display();
    // cat writes to a file of its own first: the test must not read half of it.
    let command = format!(
        r#"cat > {name}.part && echo "$AUDIT_DATABASE $AUDIT_ORIGIN $AUDIT_TREE_SIZE" >> {name}.part && mv {name}.part {name}"#
    );
    cluster.set("audit.checkpoint_command", &command);
    session.run("INSERT INTO t VALUES (1, 'a')");
    wait_until("it was given out", || fs::read_to_string(&out).is_ok_and(|text| size(&text) == 2));
    let ledger = session.text("SELECT id FROM audit.ledger");
    let expected = format!("{}{} audit/{ledger} 2\n", session.text("SELECT audit.checkpoint()"), database.name);
    assert_eq!(fs::read_to_string(&out).expect("it was there just now"), expected);
    wait_until("the result is told", || session.holds("SELECT coalesce(command_size = 2, false) FROM audit.sealer()"));
    assert!(session.holds(
        "SELECT command_ok AND command_result = 'stored' AND command_at > now() - interval '1 min' FROM audit.status()"
    ));
    assert!(cluster.server_log().contains("audit.checkpoint_command has stored the checkpoint with 2 entries"));
}

#[test]
fn a_command_that_fails_is_told_and_tried_again_and_sealing_goes_on() {
    let cluster = sealing().conf("audit.checkpoint_interval = 0").start();
    let (_, mut session) = with_table(&cluster);
    let gate = cluster.file("gate");
    cluster.set("audit.checkpoint_command", &format!("test -e {} || exit 3", gate.display()));
    wait_until("the result is told", || {
        session.holds("SELECT coalesce(NOT command_ok AND command_result = 'exit status 3', false) FROM audit.status()")
    });
    session.run("INSERT INTO t VALUES (1, 'a')");
    wait_until("it seals all the same", || session.holds("SELECT unsealed = 0 FROM audit.status()"));
    let log = cluster.server_log();
    assert!(
        log.contains("WARNING:  audit.checkpoint_command has not stored the checkpoint with 1 entries: exit status 3"),
        "{log}"
    );
    fs::write(&gate, "").expect("root writes all");
    wait_until("it is tried again", || session.holds("SELECT command_ok FROM audit.status()"));
}

/// Process ids of a program with this word in its command line.
fn processes(word: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("there is /proc").flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| {
            fs::read_to_string(path.join("cmdline")).is_ok_and(|line| line.contains(word) && line.starts_with("sleep"))
        })
        .map(|path| path.display().to_string())
        .collect()
}

#[test]
fn a_command_that_hangs_is_ended_in_time_and_with_the_server() {
    let mut cluster = sealing()
        .conf("audit.checkpoint_interval = 0")
        .conf("audit.checkpoint_command_timeout = '1s'")
        .conf("audit.checkpoint_command = 'trap \"\" TERM; sleep 98765'")
        .start();
    {
        let (_, mut session) = with_table(&cluster);
        wait_until("it hangs", || processes("98765").len() == 1);
        session.run("INSERT INTO t VALUES (1, 'a')");
        wait_until("it seals all the same", || session.holds("SELECT unsealed = 0 FROM audit.status()"));
        wait_until("the result is told", || {
            session.holds(
                "SELECT coalesce(NOT command_ok AND command_result LIKE 'ended after 1 s%', false) FROM audit.status()",
            )
        });
        assert_eq!(processes("98765"), [""; 0]);
        cluster.set("audit.checkpoint_command_timeout", "1h");
        session.run("INSERT INTO t VALUES (2, 'a')");
        wait_until("it hangs again", || processes("98765").len() == 1);
    }
    let begun = Instant::now();
    cluster.stop();
    assert!(begun.elapsed() < Duration::from_millis(1800), "{:?}", begun.elapsed());
    assert_eq!(processes("98765"), [""; 0]);
}

/// Puts an old copy of the data directory in the place of the present one.
fn restore(cluster: &mut Cluster, copy: &Path) {
    cluster.stop();
    fs::remove_dir_all(cluster.data()).expect("the server is stopped");
    assert!(Command::new("cp").arg("-a").arg(copy).arg(cluster.data()).status().expect("cp runs").success());
    cluster.start();
}

#[test]
fn a_ledger_that_went_back_says_so_before_it_signs_anew() {
    let mut cluster = cluster();
    let file = cluster.file("kept");
    let key = cluster.signing_key("key.pem");
    cluster.set("audit.signing_key_file", key.to_str().expect("the name is ASCII"));
    cluster.set("audit.checkpoint_file", file.to_str().expect("the name is ASCII"));
    let name = {
        let (database, mut session) = with_table(&cluster);
        session.run("INSERT INTO t VALUES (1, 'a')");
        session.run("SELECT audit.seal()");
        database.name.clone()
    };
    cluster.stop();
    let copy = cluster.file("copy");
    assert!(Command::new("cp").arg("-a").arg(cluster.data()).arg(&copy).status().expect("cp runs").success());
    cluster.start();
    let kept = {
        let mut session = cluster.connect(&name);
        session.run("INSERT INTO t VALUES (2, 'b'); SELECT audit.seal()");
        session.text("SELECT audit.checkpoint()")
    };
    cluster.write("kept", &kept, 0o644);

    restore(&mut cluster, &copy);
    let mut session = cluster.connect(&name);
    // As long as it is behind, and also when it has grown to the same size with other entries.
    for grow in [None, Some("INSERT INTO t VALUES (3, 'c')")] {
        if let Some(sql) = grow {
            session.run(sql);
        }
        let error = session.refused("SELECT audit.checkpoint()");
        assert_eq!(
            (error.code().code(), error.message()),
            ("55000", "cannot give out a checkpoint before the next seal")
        );
    }
    session.run("SELECT audit.seal()");
    let said = session.rows(
        "SELECT new ->> 'reasons', new ->> 'checkpoint', new ->> 'timeline' FROM audit.log WHERE op = 'INCARNATION'",
    );
    let body = kept.split_once("\n\n").expect("it is signed").0.to_owned() + "\n";
    assert_eq!(said[0], [Some(r#"["checkpoint"]"#.to_owned()), Some(body), Some("1".to_owned())]);
    let checkpoint = session.text("SELECT audit.checkpoint()");
    assert_signed(&cluster, &key, &checkpoint);
    assert_eq!(size(&checkpoint), session.number("SELECT count(*) FROM audit.log"), "it covers what was said");
    session.run("INSERT INTO t VALUES (4, 'd'); SELECT audit.seal()");
    assert_eq!(session.number("SELECT count(*) FROM audit.log WHERE op = 'INCARNATION'"), 1, "said once");
    assert_clean(&mut session);
    let verdict = session.text("SELECT detail FROM audit.verify() WHERE what = 'checkpoint'");
    assert!(verdict.ends_with("(went back behind a checkpoint that had been given out)"), "{verdict}");
    // What was given out before is refuted, with or without an entry that says so.
    let sql = format!("SELECT ok FROM audit.verify(checkpoint => '{kept}') WHERE what = 'checkpoint'");
    assert_eq!(session.text(&sql), "f");
    let sql = format!("SELECT ok FROM audit.verify(checkpoint => '{checkpoint}') WHERE what = 'checkpoint'");
    assert_eq!(session.text(&sql), "t");
}

#[test]
fn the_sealer_notices_by_itself_that_the_ledger_went_back() {
    let mut cluster = sealing().start();
    let file = cluster.file("kept");
    cluster.set("audit.checkpoint_file", file.to_str().expect("the name is ASCII"));
    let wait_kept = |file: &Path, entries: i64| {
        wait_until("the file is new", || fs::read_to_string(file).is_ok_and(|text| size(&text) == entries));
    };
    let name = {
        let (database, mut session) = with_table(&cluster);
        session.run("INSERT INTO t VALUES (1, 'a')");
        wait_kept(&file, 2);
        database.name.clone()
    };
    cluster.stop();
    let copy = cluster.file("copy");
    assert!(Command::new("cp").arg("-a").arg(cluster.data()).arg(&copy).status().expect("cp runs").success());
    cluster.start();
    cluster.connect(&name).run("INSERT INTO t VALUES (2, 'b'), (3, 'c')");
    wait_kept(&file, 4);
    restore(&mut cluster, &copy);
    let mut session = cluster.connect(&name);
    wait_kept(&file, 3);
    assert_eq!(session.text("SELECT new ->> 'reasons' FROM audit.log WHERE op = 'INCARNATION'"), r#"["checkpoint"]"#);
    session.run("INSERT INTO t VALUES (2, 'x')");
    wait_kept(&file, 4);
    assert_eq!(session.number("SELECT count(*) FROM audit.log WHERE op = 'INCARNATION'"), 1, "said once");
}

#[test]
fn a_copy_of_the_database_says_that_it_is_one() {
    let cluster = cluster();
    let (database, mut session) = with_table(&cluster);
    session.run("INSERT INTO t VALUES (1, 'a'); SELECT audit.seal()");
    let old = session.text("SELECT oid FROM pg_database WHERE datname = current_database()");
    drop(session);
    let mut copy = cluster.copy_of(&database).connect();
    copy.run("INSERT INTO t VALUES (2, 'b')");
    assert_eq!(copy.sqlstate("SELECT audit.checkpoint()"), "55000");
    copy.run("SELECT audit.seal()");
    let said = copy.rows("SELECT new ->> 'reasons', new #>> '{before,database_oid}', (new ->> 'database_oid')::oid = (SELECT oid FROM pg_database WHERE datname = current_database()) FROM audit.log WHERE op = 'INCARNATION'");
    assert_eq!(said, [[Some(r#"["database_oid"]"#.to_owned()), Some(old), Some("t".to_owned())]]);
    copy.run("SELECT audit.checkpoint()");
    assert_clean(&mut copy);
}

#[test]
fn a_standby_gives_out_what_its_primary_has_sealed() {
    let cluster = cluster();
    let key = cluster.signing_key("key.pem");
    cluster.set("audit.signing_key_file", key.to_str().expect("the name is ASCII"));
    let (database, mut session) = with_table(&cluster);
    session.run("SELECT audit.seal()");
    let standby = cluster.standby();
    cluster.wait_for(&standby);
    let mut there = standby.connect(&database.name);
    assert_eq!(there.text("SELECT audit.checkpoint()"), database.connect().text("SELECT audit.checkpoint()"));
}

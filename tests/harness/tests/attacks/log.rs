//! Attacks on the log itself.

use std::fs;
use std::os::unix::fs::FileExt;

use audit_tests::{Cluster, findings, guards_off};

use super::{ACCOUNT, APP, OWNER, Outcome, SUPERUSER, Scene, run_all};

/// Ways to write into the log that nobody has who was not given them.
const WRITES: &[&str] = &[
    "INSERT INTO audit.log SELECT * FROM audit.log",
    "INSERT INTO audit.log SELECT * FROM audit.log ON CONFLICT DO NOTHING",
    "UPDATE audit.log SET user_name = 'nobody'",
    "UPDATE audit.log SET user_name = 'nobody' WHERE false",
    "DELETE FROM audit.log",
    "DELETE FROM audit.log WHERE id = 1",
    "TRUNCATE audit.log",
    "TRUNCATE audit.log, audit.seal, audit.seal_range, audit.tile CASCADE",
    "WITH gone AS (DELETE FROM audit.log RETURNING *) SELECT count(*) FROM gone",
    "COPY audit.log FROM '/dev/null'",
    "INSERT INTO audit.registry SELECT * FROM audit.registry",
    "UPDATE audit.registry SET exclude = '{balance}'",
    "DELETE FROM audit.registry",
    "DELETE FROM audit.ledger",
    "INSERT INTO audit.ledger VALUES ('00112233-4455-6677-8899-aabbccddeeff', now())",
    "DELETE FROM audit.incarnation",
    "DELETE FROM audit.seal",
    "UPDATE audit.seal_range SET last_seq = 1",
    "DELETE FROM audit.tile",
    "CREATE TRIGGER mine BEFORE INSERT ON audit.log FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE RULE mine AS ON INSERT TO audit.log DO INSTEAD NOTHING",
    "CREATE INDEX ON audit.log (id)",
    "ALTER TABLE audit.log DISABLE TRIGGER ALL",
    "ALTER TABLE audit.log ADD COLUMN mine int",
    "ALTER TABLE audit.log ALTER COLUMN user_name TYPE text USING 'nobody'",
    "ALTER TABLE audit.log SET UNLOGGED",
    "ALTER TABLE audit.log RENAME TO other",
    "ALTER TABLE audit.log SET SCHEMA public",
    "ALTER TABLE audit.log ENABLE ROW LEVEL SECURITY",
    "CREATE TABLE heir () INHERITS (audit.log)",
    "DROP TABLE audit.log CASCADE",
    "DROP TRIGGER audit_guard_row ON audit.log",
    "SELECT setval('audit.log_id_seq', 1)",
    "SELECT nextval('audit.log_id_seq')",
    "DROP SEQUENCE audit.log_id_seq",
    "ALTER SEQUENCE audit.log_id_seq RESTART",
];

#[test]
fn an_application_and_an_owner_cannot_write_the_log() {
    for role in [APP, OWNER] {
        let mut scene = Scene::account();
        scene.attack(role, WRITES).assert_refused();
    }
}

#[test]
fn whoever_may_write_all_data_cannot_write_the_log() {
    let mut scene = Scene::account();
    scene.database.connect().run("CREATE ROLE attacks_all_data LOGIN IN ROLE pg_write_all_data, pg_read_all_data");
    scene.attack("attacks_all_data", WRITES).assert_refused();
}

/// Rights that were granted without care are not enough, but for the sequence: whoever is given that can stop the recording, and with it the changes.
#[test]
fn careless_grants_open_nothing() {
    let mut scene = Scene::account();
    scene.database.connect().run(
        "CREATE ROLE attacks_careless LOGIN; GRANT USAGE ON SCHEMA audit TO attacks_careless;
         GRANT ALL ON ALL TABLES IN SCHEMA audit TO attacks_careless; GRANT ALL ON account TO attacks_careless",
    );
    let data: Vec<&str> = WRITES.iter().copied().filter(|write| !write.starts_with("CREATE TRIGGER")).collect();
    let tables = ["log", "ledger", "incarnation", "registry", "seal", "seal_range", "tile"];
    scene.attack("attacks_careless", &data).assert_rights_reported(&[], &tables, "attacks_careless");
}

#[test]
fn a_sequence_that_was_moved_forges_nothing() {
    let mut scene = Scene::account();
    scene
        .database
        .connect()
        .run("GRANT USAGE ON SCHEMA audit TO attacks_app; GRANT ALL ON ALL SEQUENCES IN SCHEMA audit TO attacks_app");
    for value in ["1", "1000000", "2"] {
        let set = format!("SELECT setval('audit.log_id_seq', {value})");
        scene.attack(APP, &[&set, "UPDATE account SET balance = balance + 1 WHERE id = 1"]).assert_rights_reported(
            &["UPDATE account"],
            &["log_id_seq"],
            APP,
        );
    }
    // At its end nothing can be recorded, and so nothing changed.
    scene
        .attack(APP, &["SELECT setval('audit.log_id_seq', 9223372036854775807)", "UPDATE account SET balance = 0"])
        .assert_rights_reported(&[], &["log_id_seq"], APP);
}

#[test]
fn a_superuser_who_means_no_harm_cannot_write_the_log_by_mistake() {
    let mut scene = Scene::account();
    let data: Vec<&str> = WRITES.iter().copied().take_while(|write| !write.starts_with("CREATE TRIGGER")).collect();
    scene.attack(SUPERUSER, &data).assert_refused();
    let replica: Vec<&str> = std::iter::once("SET session_replication_role = replica").chain(data).collect();
    scene.attack(SUPERUSER, &replica).assert_refused();
}

#[test]
fn ddl_of_a_superuser_that_damages_the_log_does_not_escape() {
    for attack in [
        "ALTER TABLE audit.log ALTER COLUMN user_name TYPE text USING 'nobody'",
        "ALTER TABLE audit.log DROP COLUMN context",
        "ALTER TABLE audit.log SET UNLOGGED",
        "ALTER TABLE audit.log ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE audit.log DISABLE TRIGGER ALL",
        "ALTER TABLE audit.seal DISABLE TRIGGER ALL",
        "ALTER TABLE audit.log DROP CONSTRAINT log_pkey",
        "DROP TRIGGER audit_guard_row ON audit.log",
        "CREATE TABLE heir () INHERITS (audit.log)",
        "CREATE RULE mine AS ON INSERT TO audit.log DO INSTEAD NOTHING",
    ] {
        let mut scene = Scene::account();
        println!("attack: {attack}");
        scene.attack(SUPERUSER, &[attack]).does_not_escape();
    }
}

/// Columns are told by their numbers, so that no verdict is misled; a reader of the table is, and the verdict says so.
#[test]
fn columns_of_the_log_that_changed_names() {
    let mut scene = Scene::account();
    scene
        .attack(
            SUPERUSER,
            &[
                "ALTER TABLE audit.log RENAME COLUMN login_name TO name",
                "ALTER TABLE audit.log RENAME COLUMN user_name TO login_name",
                "ALTER TABLE audit.log RENAME COLUMN name TO user_name",
            ],
        )
        .assert_reported(&["coverage audit.log: the table has other columns"]);
}

/// The log is written below SQL: a trigger that was hung on it does not fire. It could refuse the rows of a restore.
#[test]
fn a_foreign_trigger_on_the_log() {
    const TRIGGER: &str = "coverage audit.log: the table has a trigger \"mine\"";
    let mut scene = Scene::account();
    scene
        .database
        .connect()
        .run("GRANT USAGE ON SCHEMA audit TO attacks_app; GRANT TRIGGER ON audit.log TO attacks_app");
    scene
        .attack(APP, &["CREATE TRIGGER mine BEFORE INSERT ON audit.log FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"])
        .assert_reported(&[TRIGGER, "coverage audit.log: role \"attacks_app\""]);
    scene.database.connect().run("REVOKE TRIGGER ON audit.log FROM attacks_app");
    scene.attack(APP, &["UPDATE account SET balance = 7 WHERE id = 1"]).assert_reported(&[TRIGGER]);
    assert_eq!(scene.witness.number("SELECT count(*) FROM audit.log WHERE op = 'UPDATE'"), 1);
}

/// A forged entry with a hash that fits, at the end of its chain, of a change that never was.
#[test]
fn a_well_linked_entry_of_what_never_happened_is_reported() {
    let mut scene = Scene::account();
    run_all(&mut scene.database.connect_as(APP), &["UPDATE account SET balance = 70 WHERE id = 1"]);
    let forge = "
        CREATE TEMPORARY TABLE forged AS SELECT * FROM audit.log ORDER BY id DESC LIMIT 1;
        UPDATE forged SET id = id + 1, seq = seq + 1, prev = hash, old = '{\"balance\":70}', new = '{\"balance\":7}', at = clock_timestamp();
        INSERT INTO audit.log SELECT * FROM forged;
        UPDATE audit.log l SET hash = sha256(convert_to(audit.line(l.chain, l.seq), 'UTF8')) FROM forged f WHERE l.chain = f.chain AND l.seq = f.seq";
    scene
        .attack_by(|database| guards_off(&mut database.connect(), "audit.log", forge))
        .assert_reported(&["table public.account"]);
}

/// The extension dropped and made anew, the tables protected again: a ledger that verifies, but not against what was kept of the former one.
#[test]
fn a_ledger_made_anew_shows_in_a_checkpoint_of_the_former_one() {
    let scene = Scene::account();
    let mut s = scene.database.connect();
    s.run("UPDATE account SET balance = 0 WHERE id = 1; SELECT audit.seal()");
    let kept = s.text("SELECT audit.checkpoint()");
    assert_eq!(audit_tests::findings_of(&mut s, &format!("audit.findings('{kept}')")), []);
    let replay = "
        DROP EXTENSION audit CASCADE; CREATE EXTENSION audit; UPDATE account SET balance = 100 WHERE id = 1;
        SELECT audit.protect('account'); UPDATE account SET balance = 50 WHERE id = 1; SELECT audit.seal()";
    let mut fresh = scene.database.connect();
    // Preloaded hooks may refuse it; without them it goes through.
    if fresh.batch_execute(replay).is_ok() {
        let mut s = scene.database.connect();
        assert_eq!(findings(&mut s), []);
        let found = audit_tests::findings_of(&mut s, &format!("audit.findings('{kept}')"));
        assert!(found.iter().any(|finding| finding.kind == "checkpoint"), "{found:?}");
    }
}

/// The row is written past the server, with the server stopped.
#[test]
fn a_value_changed_in_the_files_is_reported() {
    let (mut cluster, name) = stopped_after(&[]);
    for (relation, forged, expected) in
        [("audit.log", b"nobody-was-there", "content"), ("public.account", b"somebody-else-it", "table")]
    {
        let file = file_of(&mut cluster, &name, relation);
        cluster.stop();
        assert!(
            replace_in(&file, b"mallory-was-here", forged) > 0,
            "{relation}: nothing to change in {}",
            file.display()
        );
        cluster.start();
        let found = findings(&mut cluster.connect(&name));
        assert!(found.iter().any(|finding| finding.kind == expected), "{relation}: {found:?}");
    }
}

/// The file of the log as it was before, put back under a server that was stopped.
#[test]
fn a_log_file_put_back_is_reported() {
    let (mut cluster, name) = stopped_after(&[]);
    let file = file_of(&mut cluster, &name, "audit.log");
    cluster.stop();
    let old = fs::read(&file).expect("the file of the log can be read");
    cluster.start();
    let mut s = cluster.connect(&name);
    s.run("UPDATE account SET balance = 0; SELECT audit.seal(); CHECKPOINT");
    drop(s);
    cluster.stop();
    let handle = fs::OpenOptions::new().write(true).open(&file).expect("root can write it");
    handle.write_all_at(&old, 0).expect("it can be written");
    handle.set_len(old.len() as u64).expect("it can be cut");
    cluster.start();
    let kinds: std::collections::BTreeSet<String> =
        findings(&mut cluster.connect(&name)).into_iter().map(|finding| finding.kind).collect();
    assert!(kinds.contains("missing") && kinds.contains("table"), "{kinds:?}");
}

/// The commit record is made one of an abort: change and entry are gone together. Only who keeps a checkpoint knows better.
#[test]
fn a_commit_undone_in_the_files_shows_in_a_checkpoint() {
    let (mut cluster, name) = stopped_after(&[]);
    let mut s = cluster.connect(&name);
    s.run("SET audit.chains = 1; UPDATE account SET balance = 0 WHERE id = 1");
    let change: u64 = s.text("SELECT max(xid::text::bigint) FROM audit.log").parse().expect("a number");
    s.run("SELECT audit.seal()");
    let seal: u64 = s.text("SELECT xmin FROM audit.seal ORDER BY number DESC LIMIT 1").parse().expect("a number");
    let kept = s.text("SELECT audit.checkpoint()");
    // Nothing that says "committed" beside the rows: they are read from the log of commits.
    s.run("CHECKPOINT");
    drop(s);
    cluster.stop();
    let status = cluster.data().join("pg_xact/0000");
    let handle = fs::OpenOptions::new().read(true).write(true).open(status).expect("it can be opened");
    for xid in change..=seal {
        let mut byte = [0];
        handle.read_exact_at(&mut byte, xid / 4).expect("it has a byte for each four transactions");
        let shift = (xid % 4) * 2;
        byte[0] = byte[0] & !(3 << shift) | 2 << shift;
        handle.write_all_at(&byte, xid / 4).expect("it can be written");
    }
    drop(handle);
    // Bits beside the rows that say that their transaction has committed
    for relation in ["audit.log", "public.account", "audit.seal", "audit.seal_range"] {
        cluster.start();
        let file = file_of(&mut cluster, &name, relation);
        cluster.stop();
        clear_hints(&file, change as u32..=seal as u32);
    }
    cluster.start();
    let mut s = cluster.connect(&name);
    assert_eq!(s.number("SELECT balance FROM account WHERE id = 1"), 100, "the change is still there");
    let found = audit_tests::findings_of(&mut s, &format!("audit.findings('{kept}')"));
    assert!(found.iter().any(|finding| finding.kind == "checkpoint"), "{found:?}");
}

/// A server with a small ledger, and the name of its database.
fn stopped_after(more: &[&str]) -> (Cluster, String) {
    // Checksums of pages, from 18 on by default, stop only those who do not make them anew: here the server overlooks them.
    let cluster = Cluster::builder().conf("autovacuum = off").conf("ignore_checksum_failure = on").start();
    let name = {
        let database = cluster.database();
        let mut s = database.connect();
        s.run("CREATE ROLE attacks_owner; CREATE ROLE attacks_app");
        s.run(ACCOUNT);
        s.run("SELECT audit.protect('account'); INSERT INTO account VALUES (3, 'mallory-was-here', 1); SELECT audit.seal()");
        run_all(&mut s, more);
        database.name
    };
    (cluster, name)
}

fn file_of(cluster: &mut Cluster, database: &str, relation: &str) -> std::path::PathBuf {
    let path = cluster.connect(database).text(&format!("SELECT pg_relation_filepath('{relation}')"));
    cluster.data().join(path)
}

/// Replaces bytes everywhere in a file; gives how often.
fn replace_in(file: &std::path::Path, old: &[u8], new: &[u8]) -> usize {
    assert_eq!(old.len(), new.len());
    let mut bytes = fs::read(file).expect("the file can be read");
    let mut count = 0;
    for start in 0..bytes.len().saturating_sub(old.len()) {
        if &bytes[start..start + old.len()] == old {
            bytes[start..start + old.len()].copy_from_slice(new);
            count += 1;
        }
    }
    overwrite(file, &bytes);
    count
}

/// Writes into the file that is there: it keeps its owner.
fn overwrite(file: &std::path::Path, bytes: &[u8]) {
    let handle = fs::OpenOptions::new().write(true).open(file).expect("root, or the owner, can write it");
    handle.write_all_at(bytes, 0).expect("it can be written");
}

/// Takes HEAP_XMIN_COMMITTED and HEAP_XMAX_COMMITTED away from rows made or removed by these transactions (htup_details.h, bufpage.h).
fn clear_hints(file: &std::path::Path, xids: std::ops::RangeInclusive<u32>) {
    const PAGE: usize = 8192;
    let mut bytes = fs::read(file).expect("the file can be read");
    for page in bytes.chunks_exact_mut(PAGE) {
        let lower = u16::from_le_bytes([page[12], page[13]]) as usize;
        for pointer in (24..lower).step_by(4) {
            let item = u32::from_le_bytes(page[pointer..pointer + 4].try_into().expect("four bytes"));
            let (offset, used) = ((item & 0x7fff) as usize, (item >> 15) & 3 == 1);
            if !used {
                continue;
            }
            let number =
                |at: usize| u32::from_le_bytes(page[offset + at..offset + at + 4].try_into().expect("four bytes"));
            let (xmin, xmax) = (number(0), number(4));
            let mut mask = u16::from_le_bytes([page[offset + 20], page[offset + 21]]);
            if xids.contains(&xmin) {
                mask &= !0x0100;
            }
            if xids.contains(&xmax) {
                mask &= !0x0400;
            }
            page[offset + 20..offset + 22].copy_from_slice(&mask.to_le_bytes());
        }
    }
    overwrite(file, &bytes);
}

#[test]
fn entries_that_others_are_shown_are_those_that_are_verified() {
    for attack in [
        "ALTER TABLE audit.log RENAME TO kept; CREATE VIEW audit.log AS SELECT * FROM audit.kept WHERE op <> 'UPDATE'",
        "CREATE TABLE heir () INHERITS (audit.log); INSERT INTO heir SELECT * FROM audit.log",
        "ALTER TABLE audit.log ENABLE ROW LEVEL SECURITY; ALTER TABLE audit.log FORCE ROW LEVEL SECURITY",
        "ALTER TABLE audit.log OWNER TO attacks_owner",
        // Tables and keys that are none any more
        "ALTER TABLE audit.seal RENAME TO kept; CREATE VIEW audit.seal AS SELECT * FROM audit.kept",
        "ALTER TABLE audit.registry RENAME TO kept; CREATE VIEW audit.registry AS SELECT * FROM audit.kept",
        "ALTER TABLE audit.ledger RENAME TO kept; CREATE TABLE audit.ledger (id uuid, created_at timestamptz) PARTITION BY HASH (id)",
        "ALTER INDEX audit.log_pkey RENAME TO kept; CREATE TABLE audit.log_pkey (chain int, ledger uuid, seq bigint)",
        "ALTER INDEX audit.log_pkey RENAME TO kept; CREATE TABLE audit.others (chain text, ledger text, seq text, PRIMARY KEY (seq, chain));
         ALTER INDEX audit.others_pkey RENAME TO log_pkey; INSERT INTO audit.others VALUES ('x', 'y', 'z')",
        "ALTER INDEX audit.log_pkey RENAME TO kept; CREATE UNIQUE INDEX log_pkey ON audit.log (hash)",
        "ALTER INDEX audit.log_pkey RENAME TO kept; CREATE INDEX log_pkey ON audit.log USING brin (chain, ledger_prefix, seq)",
        "ALTER INDEX audit.log_pkey RENAME TO kept; CREATE UNIQUE INDEX log_pkey ON audit.log (chain, ledger_prefix, seq) WHERE false",
        "ALTER INDEX audit.tile_pkey RENAME TO kept; CREATE VIEW audit.tile_pkey AS SELECT 1",
        "ALTER INDEX audit.seal_range_leaf_key RENAME TO kept; ALTER INDEX audit.seal_range_pkey RENAME TO seal_range_leaf_key; ALTER INDEX audit.kept RENAME TO seal_range_pkey",
    ] {
        let scene = Scene::account();
        let result = scene.database.connect().batch_execute(attack);
        println!("attack: {attack}: {result:?}");
        if result.is_ok() {
            let mut s = scene.database.connect();
            // A log that is no table any more cannot be verified, which is an error: never a clean verdict.
            assert!(!super::told(&mut s).is_empty(), "clean after {attack}");
            let _ = s.batch_execute("UPDATE account SET balance = 7");
            let _ = s.batch_execute("SELECT audit.seal()");
            s.run("SELECT 1");
        }
    }
}

#[test]
fn what_the_log_says_of_others_is_not_shown_to_whoever_was_not_given_it() {
    let mut scene = Scene::account();
    let outcome = scene.attack_by(|database| {
        for role in [APP, OWNER] {
            let mut s = database.connect_as(role);
            for question in [
                "SELECT * FROM audit.log",
                "SELECT * FROM audit.protected",
                "SELECT * FROM audit.findings()",
                "SELECT * FROM audit.verify()",
                "SELECT * FROM audit.export()",
                "SELECT audit.line(1, 1)",
                "SELECT audit.inclusion_proof(1, 1)",
                "SELECT * FROM audit.status()",
                "COPY audit.log TO STDOUT",
            ] {
                s.refused(question);
            }
        }
    });
    assert!(matches!(outcome, Outcome::Nothing), "{outcome:?}");
}

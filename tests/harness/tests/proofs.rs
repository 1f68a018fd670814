//! Proofs as SQL gives them out hold for whoever verifies them with the ledger crate, and for nothing else.

use audit_ledger::{
    Checkpoint, CompactRange, ConsistencyProof, Hash, LeafHash, SignerKey, TreeHead, tlog_proof, verify_consistency,
    verify_inclusion,
};
use audit_tests::{Cluster, Database, Seals, assert_seals, database, guards_off};

const WORK: &str = "CREATE TABLE work (mark text PRIMARY KEY, v int NOT NULL DEFAULT 0); SELECT audit.protect('work')";

/// A database with entries in several chains, sealed in steps of all kinds.
fn sealed(steps: &[usize]) -> Database<'static> {
    let database = database();
    let mut sessions = [database.connect(), database.connect(), database.connect()];
    sessions[0].run(WORK);
    for (round, count) in steps.iter().enumerate() {
        let (first, rest) = (count / 3, count - count / 3);
        // Two at a time, so that they take two chains.
        sessions[round % 3]
            .run(&format!("BEGIN; INSERT INTO work SELECT '{round}a' || g FROM generate_series(1, {rest}) g"));
        sessions[(round + 1) % 3]
            .run(&format!("INSERT INTO work SELECT '{round}b' || g FROM generate_series(1, {first}) g"));
        sessions[round % 3].run("COMMIT; SELECT audit.seal()");
    }
    database
}

/// The heads of the tree at all sizes.
fn heads(seals: &Seals) -> Vec<TreeHead> {
    let mut range = CompactRange::new();
    let mut heads = vec![range.head()];
    for (_, _, hash) in &seals.leaves {
        range.append(LeafHash::of_entry(hash)).expect("no tree of a test is full");
        heads.push(range.head());
    }
    heads
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[test]
fn every_entry_has_a_proof_at_every_size() {
    let steps = [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 20, 3, 250, 7, 520];
    let database = database();
    let (mut s, mut other) = (database.connect(), database.connect());
    s.run(WORK);
    for (round, count) in steps.into_iter().enumerate() {
        s.run(&format!("BEGIN; INSERT INTO work SELECT '{round}a' || g FROM generate_series(1, {count}) g"));
        other.run(&format!("INSERT INTO work SELECT '{round}b' || g FROM generate_series(1, {count} / 2) g"));
        s.run("COMMIT; SELECT audit.seal()");
        let seals = assert_seals(&mut s);
        let (newest, _) = seals.seals.last().expect("sealed above");
        let proofs =
            s.rows("SELECT chain, seq, audit.inclusion_proof(chain, seq) FROM audit.log ORDER BY random() LIMIT 400");
        for row in proofs {
            let [chain, seq, text] = <[Option<String>; 3]>::try_from(row).expect("three columns").map(Option::unwrap);
            let (proof, extra, checkpoint) = tlog_proof::parse(&text).expect("a proof is written as the standard says");
            let index = proof.index().get() as usize;
            let (its_chain, its_seq, hash) = seals.leaves[index];
            assert_eq!((its_chain.to_string(), its_seq.to_string()), (chain, seq));
            let checkpoint: Checkpoint = checkpoint.parse().expect("a checkpoint without a key is its text");
            assert_eq!((checkpoint.origin(), checkpoint.head()), (&*format!("audit/{}", newest.ledger), &newest.head));
            assert_eq!(verify_inclusion(&proof, &LeafHash::of_entry(&hash), &newest.head), Ok(()));
            let wrong = LeafHash::of_entry(&Hash::of(b"another"));
            assert!(verify_inclusion(&proof, &wrong, &newest.head).is_err());
            assert!(extra.is_empty());
        }
    }
}

#[test]
fn the_newest_tree_continues_every_older_one() {
    let database = sealed(&[1, 2, 60, 1, 190, 1, 1, 260, 3]);
    let mut s = database.connect();
    let seals = assert_seals(&mut s);
    let heads = heads(&seals);
    let new = heads.last().expect("there is one for 0");
    assert_eq!(*new, seals.seals.last().expect("sealed above").0.head);
    for (size, old) in heads.iter().enumerate() {
        let checkpoint = Checkpoint::new("audit/any", *old).expect("a valid origin").to_string();
        let proof = s.text(&format!("SELECT audit.consistency_proof({})", quoted(&checkpoint)));
        // As psql reads a file
        assert_eq!(proof, s.text(&format!("SELECT audit.consistency_proof({})", quoted(checkpoint.trim_end()))));
        let proof: ConsistencyProof = proof.parse().expect("a proof is written as docs/format.md says");
        assert_eq!(verify_consistency(&proof, old, new), Ok(()), "{size}");
    }
    // A signed checkpoint will do as well.
    let key = SignerKey::from_seed("example.com/audit", &[7; 32]).expect("a valid name");
    let note = Checkpoint::new("example.com/audit", heads[50])
        .expect("a valid origin")
        .sign(&[&key])
        .expect("it can be signed");
    let proof = s.text(&format!("SELECT audit.consistency_proof({})", quoted(&note.to_string())));
    assert_eq!(verify_consistency(&proof.parse().expect("a proof"), &heads[50], new), Ok(()));
}

#[test]
fn checkpoints_of_another_history_get_no_proof() {
    let database = sealed(&[10, 300]);
    let mut s = database.connect();
    let seals = assert_seals(&mut s);
    let heads = heads(&seals);
    let mut refused = |text: &str| s.refused(&format!("SELECT audit.consistency_proof({})", quoted(text)));
    let text = |head: TreeHead| Checkpoint::new("audit/any", head).expect("a valid origin").to_string();
    // The root of one size with another size
    for size in [0, 1, 2, 100, 256, 311] {
        let wrong = TreeHead { root: heads[size / 2 + 3].root, ..heads[size] };
        let refusal = refused(&text(wrong));
        assert_eq!(refusal.code().code(), "22023", "{size}");
        assert_eq!(refusal.message(), format!("the ledger does not continue the checkpoint over {size} entries"));
    }
    let mut range = CompactRange::new();
    for _ in 0..312 {
        range.append(LeafHash::of_data(b"")).expect("not full");
    }
    let refusal = refused(&text(range.head()));
    assert_eq!(refusal.code().code(), "22023");
    assert_eq!(refusal.message(), "the checkpoint is over 312 entries, but only 311 are sealed");
    for malformed in
        ["", "audit/any\n7\n", "audit/any\n07\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", "a\n1\nx\n"]
    {
        assert_eq!(refused(malformed).code().code(), "22P02", "{malformed:?}");
    }
    assert_eq!(s.sqlstate("SELECT audit.consistency_proof(NULL)"), "22004");
}

#[test]
fn what_is_not_sealed_has_no_proof() {
    let database = database();
    let (mut s, mut other) = (database.connect(), database.connect());
    assert_eq!(s.sqlstate("SELECT audit.inclusion_proof(1, 1)"), "55000");
    s.run(WORK);
    let chain = s.number("SELECT chain FROM audit.log");
    let proof = |seq: i64| format!("SELECT audit.inclusion_proof({chain}, {seq})");
    let refusal = s.refused(&proof(1));
    assert_eq!((refusal.code().code(), refusal.message()), ("55000", "nothing is sealed yet"));
    s.run("SELECT audit.seal(); INSERT INTO work VALUES ('a')");
    s.run(&proof(1));
    let refusal = s.refused(&proof(2));
    assert_eq!(refusal.code().code(), "55000");
    assert_eq!(refusal.message(), format!("entry 2 of chain {chain} is not sealed yet"));
    assert!(refusal.hint().is_some());
    for sql in [
        &proof(3),
        &proof(0),
        &proof(-1),
        &proof(i64::MAX),
        "SELECT audit.inclusion_proof(0, 1)",
        "SELECT audit.inclusion_proof(-1, 1)",
        "SELECT audit.inclusion_proof(2147483647, 1)",
    ] {
        let refusal = s.refused(sql);
        assert_eq!(refusal.code().code(), "P0002", "{sql}");
        assert!(refusal.message().starts_with("there is no entry"));
    }
    assert_eq!(s.sqlstate("SELECT audit.inclusion_proof(NULL, 1)"), "22004");
    assert_eq!(s.sqlstate("SELECT audit.inclusion_proof(1, NULL)"), "22004");
    // What this transaction has sealed may yet be rolled back: others could never see such a tree.
    s.run("BEGIN; SELECT audit.seal(); SAVEPOINT a");
    assert_eq!(s.sqlstate(&proof(2)), "55000");
    s.run("ROLLBACK TO a");
    assert!(s.text(&proof(1)).contains("\n1\n"), "the tree is still that of one entry");
    s.run("ROLLBACK");
    assert_eq!(s.sqlstate(&proof(2)), "55000");
    other.run("SELECT audit.seal()");
    s.run(&proof(2));
    // An entry that is not what was sealed gets none, whatever its hash column says.
    guards_off(&mut s, "audit.log", "UPDATE audit.log SET user_name = 'x' WHERE seq = 2");
    let refusal = s.refused(&proof(2));
    assert_eq!(refusal.code().code(), "XX001");
    assert!(refusal.message().contains("is not the one that was sealed"), "{}", refusal.message());
    s.run(&proof(1));
}

#[test]
fn proofs_are_verified_in_sql() {
    let database = sealed(&[40, 300]);
    let mut s = database.connect();
    let seals = assert_seals(&mut s);
    assert_eq!(
        s.number("SELECT count(*) FROM audit.log WHERE audit.verify_inclusion(audit.line(chain, seq), audit.inclusion_proof(chain, seq))"),
        seals.leaves.len() as i64
    );
    let (chain, seq, _) = seals.leaves[77];
    let line = s.text(&format!("SELECT audit.line({chain}, {seq})"));
    let proof = s.text(&format!("SELECT audit.inclusion_proof({chain}, {seq})"));
    let mut holds = |line: &str, proof: &str, key: Option<&str>| {
        let key = key.map_or("NULL".to_owned(), quoted);
        s.holds(&format!("SELECT audit.verify_inclusion({}, {}, {key})", quoted(line), quoted(proof)))
    };
    assert!(holds(&line, &proof, None));
    assert!(holds(&line, proof.trim_end(), None), "as psql reads a file");
    assert!(!holds(&line.replace("\"at\"", "\"At\""), &proof, None));
    assert!(!holds(&line, &proof.replace("index 77", "index 76"), None));
    assert!(!holds(&line, &proof.replace("index 77", "index 7700"), None));
    // With a key, only a checkpoint that it has signed will do.
    let key = SignerKey::from_seed("example.com/audit", &[7; 32]).expect("a valid name");
    let vkey = key.verifier().to_string();
    let other = SignerKey::from_seed("example.com/audit", &[8; 32]).expect("a valid name").verifier().to_string();
    let renamed = SignerKey::from_seed("example.com/other", &[7; 32]).expect("a valid name").verifier().to_string();
    let (inclusion, _, _) = tlog_proof::parse(&proof).expect("a proof");
    let head = seals.seals.last().expect("sealed above").0.head;
    let note = Checkpoint::new("example.com/audit", head).expect("an origin").sign(&[&key]).expect("it can be signed");
    let signed = tlog_proof::format(&inclusion, b"", &note.to_string());
    assert!(holds(&line, &signed, None));
    assert!(holds(&line, &signed, Some(&vkey)));
    assert!(!holds(&line, &signed, Some(&other)));
    assert!(!holds(&line, &signed, Some(&renamed)));
    assert!(!holds("another line", &signed, Some(&vkey)));
    let forged = Checkpoint::new("example.com/audit", heads(&seals)[80]).expect("an origin");
    let forged = signed.replace(note.unverified_text(), &forged.to_string());
    assert_ne!(forged, signed);
    assert!(!holds(&line, &forged, Some(&vkey)));
    for (line, proof, key, expected) in [
        ("'x'", quoted("no proof"), "NULL".to_owned(), "22P02"),
        ("'x'", quoted(&proof.replace("index", "Index")), "NULL".to_owned(), "22P02"),
        ("'x'", quoted(&proof), quoted(&vkey), "22P02"),
        ("'x'", quoted(&signed), quoted("no key"), "22P02"),
        ("NULL", quoted(&signed), quoted(&vkey), "22004"),
        ("'x'", "NULL".to_owned(), quoted(&vkey), "22004"),
    ] {
        assert_eq!(s.sqlstate(&format!("SELECT audit.verify_inclusion({line}, {proof}, {key})")), expected, "{proof}");
    }
}

#[test]
fn a_standby_gives_proofs_and_outsiders_get_none() {
    let cluster = Cluster::builder().start();
    let database = cluster.database();
    let mut s = database.connect();
    s.run(WORK);
    s.run("INSERT INTO work SELECT g FROM generate_series(1, 400) g; SELECT audit.seal()");
    let chain = s.number("SELECT max(chain) FROM audit.log");
    let standby = cluster.standby();
    cluster.wait_for(&standby);
    let mut reader = standby.connect(&database.name);
    let sql = format!("SELECT audit.inclusion_proof({chain}, 300)");
    assert_eq!(reader.text(&sql), s.text(&sql));
    let line = s.text(&format!("SELECT audit.line({chain}, 300)"));
    assert!(reader.holds(&format!("SELECT audit.verify_inclusion({}, ({sql}))", quoted(&line))));
    assert_eq!(
        reader.text("SELECT audit.consistency_proof(E'a\\n0\\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\\n')"),
        ""
    );
    s.run("CREATE ROLE proofs_outsider LOGIN; GRANT USAGE ON SCHEMA audit TO proofs_outsider");
    let mut outsider = database.connect_as("proofs_outsider");
    for sql in [sql.as_str(), "SELECT audit.consistency_proof('')", "SELECT audit.verify_inclusion('', '')"] {
        assert_eq!(outsider.sqlstate(sql), "42501", "{sql}");
    }
}

#[test]
fn a_proof_reads_a_few_tiles_whatever_the_size_of_the_log() {
    let size = if audit_tests::large() { 10_000_000 } else { 200_000 };
    let database = database();
    let mut s = database.connect();
    s.run(WORK);
    for at in (0..size).step_by(500_000) {
        let count = (size - at).min(500_000);
        s.run(&format!("INSERT INTO work SELECT g FROM generate_series({at} + 1, {at} + {count}) g"));
    }
    s.run("SELECT audit.seal(); CREATE TABLE old AS SELECT 'a' || chr(10) || tree_size || chr(10) || encode(root, 'base64') || chr(10) AS checkpoint FROM audit.seal");
    s.run("INSERT INTO work SELECT 'last' || g FROM generate_series(1, 1000) g; SELECT audit.seal()");
    let chain = s.number("SELECT max(chain) FROM audit.log");
    // Whatever is looked up in the catalogs was looked up by the first call.
    s.run(&format!("SELECT audit.inclusion_proof({chain}, 1)"));
    for seq in [1, size / 3, size / 2 + 1, size, size + 1000] {
        let touched = s.buffers(&format!("SELECT audit.inclusion_proof({chain}, {seq})"));
        println!("{size} entries: a proof of entry {seq} touches {touched} buffers");
        assert!(touched < 500, "{touched} buffers");
    }
    let touched = s.buffers("SELECT audit.consistency_proof(checkpoint) FROM old");
    println!("{size} entries: a consistency proof touches {touched} buffers");
    assert!(touched < 500, "{touched} buffers");
}

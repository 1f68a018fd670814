//! The tamper table of seals, tree and checkpoints: what a superuser does to a sealed log, and what audit.findings() must say of it.

use std::sync::OnceLock;

use audit_tests::{Cluster, Database, Session, assert_clean, findings_of, guards_off};

/// Three seals over two chains. Chain 1 has 1 PROTECT and 10 rows, then 10, then 300, and 5 that are not sealed; the other has 5 rows in the second seal.
fn history() -> Database<'static> {
    static HISTORY: OnceLock<Database<'static>> = OnceLock::new();
    let original = HISTORY.get_or_init(|| {
        let database = Cluster::shared().database();
        let (mut s, mut other) = (database.connect(), database.connect());
        s.run("CREATE TABLE account (id int PRIMARY KEY, balance int); CREATE TABLE kept (seal int, text text)");
        s.run("SET audit.chains = 1; SELECT audit.protect('account')");
        let keep = |s: &mut Session| {
            s.run("SELECT audit.seal()");
            s.run("INSERT INTO kept SELECT max(number), audit.checkpoint() FROM audit.seal");
        };
        s.run("INSERT INTO account SELECT g, 100 FROM generate_series(1, 10) g");
        keep(&mut s);
        s.run("INSERT INTO account SELECT g, 100 FROM generate_series(11, 20) g");
        other.run("INSERT INTO account SELECT g, 100 FROM generate_series(1001, 1005) g");
        keep(&mut s);
        s.run("INSERT INTO account SELECT g, 100 FROM generate_series(21, 320) g");
        keep(&mut s);
        s.run("INSERT INTO account SELECT g, 100 FROM generate_series(321, 325) g");
        database
    });
    original.cluster.copy_of(original)
}

/// Findings of the log alone, in the short form `missing 1:16` or `seal`, without those of the same place and kind that follow.
#[track_caller]
fn found(s: &mut Session, arguments: &str) -> Vec<String> {
    let call = format!("audit.findings({arguments}tables => false)");
    let mut found: Vec<String> = findings_of(s, &call)
        .into_iter()
        .map(|finding| {
            println!("{finding}: {}", finding.detail);
            let other = |chain: i64| if chain > 1 { "other".to_owned() } else { chain.to_string() };
            match finding.place {
                Some((chain, Some(seq))) => format!("{} {}:{seq}", finding.kind, other(chain)),
                Some((chain, None)) => format!("{} {}", finding.kind, other(chain)),
                None => finding.kind,
            }
        })
        .collect();
    found.dedup();
    found
}

fn checkpoint(s: &mut Session, seal: u32) -> String {
    s.text(&format!("SELECT text FROM kept WHERE seal = {seal}"))
}

#[track_caller]
fn damaged(table: &str, damage: &str, expected: &[&str]) {
    let mut s = history().connect();
    guards_off(&mut s, table, damage);
    println!("damage: {damage}");
    assert_eq!(found(&mut s, ""), expected);
}

/// Links and hashes the entries of chain 1 from `first` on anew.
fn relink(first: u32) -> String {
    format!(
        "DO $$ BEGIN FOR n IN {first}..(SELECT max(seq) FROM audit.log WHERE chain = 1) LOOP
           UPDATE audit.log SET prev = (SELECT hash FROM audit.log WHERE chain = 1 AND seq = n - 1) WHERE chain = 1 AND seq = n AND n > 1;
           UPDATE audit.log SET hash = sha256(convert_to(audit.line(1, n), 'UTF8')) WHERE chain = 1 AND seq = n;
         END LOOP; END $$;"
    )
}

fn detail(s: &mut Session, what: &str, arguments: &str) -> String {
    s.text(&format!("SELECT detail FROM audit.verify({arguments}tables => false) WHERE what = '{what}'"))
}

// ---- The honest path ----

#[test]
fn a_sealed_history_is_clean_and_the_verdict_says_how_far_it_reaches() {
    let mut s = history().connect();
    assert_clean(&mut s);
    let reach = detail(&mut s, "seal", "");
    assert!(reach.starts_with("326 entries are sealed, up to seal 3 of 20"), "{reach}");
    assert!(
        reach.contains("; 5 newer ones are only chained: if the log ended with more of them, it does not show"),
        "{reach}"
    );
    let tree = detail(&mut s, "tree", "");
    assert_eq!(
        tree,
        "326 sealed entries put into a tree again, its root compared at each seal, 1 stored tile compared"
    );
    for (seal, covered) in [(1, 11), (2, 26), (3, 326)] {
        let text = checkpoint(&mut s, seal);
        let arguments = format!("checkpoint => $q${text}$q$, ");
        assert_eq!(found(&mut s, &arguments), [""; 0]);
        // As psql reads a file, and as it prints one
        for kept in [text.trim_end(), &format!("{text}\n")] {
            assert_eq!(found(&mut s, &format!("checkpoint => $q${kept}$q$, ")), [""; 0]);
        }
        let verdict = detail(&mut s, "checkpoint", &arguments);
        assert!(
            verdict.starts_with(&format!(
                "the first {covered} sealed entries are covered by the checkpoint, up to seal {seal} of 20"
            )),
            "{verdict}"
        );
        assert!(
            verdict.contains(&format!("; {} newer ones are only sealed, 5 only chained", 326 - covered)),
            "{verdict}"
        );
    }
}

#[test]
fn what_follows_a_seal_can_be_verified_alone() {
    let mut s = history().connect();
    let checked = |s: &mut Session, since: u32| {
        s.column(&format!(
            "SELECT what || ' ' || checked || ' ' || ok FROM audit.verify(since_seal => {since}) WHERE what IN ('content', 'seal', 'tree')"
        ))
    };
    assert_eq!(checked(&mut s, 1), ["content 320 true", "seal 2 true", "tree 315 true"]);
    assert_eq!(checked(&mut s, 2), ["content 305 true", "seal 1 true", "tree 300 true"]);
    assert_eq!(checked(&mut s, 3), ["content 5 true", "seal 0 true", "tree 0 true"]);
    let arguments = format!("since_seal => 2, checkpoint => $q${}$q$, ", checkpoint(&mut s, 3));
    assert_eq!(found(&mut s, &arguments), [""; 0]);
    // An older checkpoint is held against the tree at the seal.
    let kept = checkpoint(&mut s, 1);
    let older = format!("since_seal => 2, checkpoint => $q${kept}$q$, ");
    assert_eq!(found(&mut s, &older), [""; 0]);
    let verdict = detail(&mut s, "checkpoint", &older);
    assert!(
        verdict.starts_with("behind seal 2: the first 11 sealed entries are covered by the checkpoint"),
        "{verdict}"
    );
    let zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let forged = kept.replace(kept.lines().nth(2).expect("the root"), zeros);
    assert_eq!(found(&mut s, &format!("since_seal => 2, checkpoint => $q${forged}$q$, ")), ["checkpoint"]);
    // It finds what is wrong behind the seal, and does not look before it.
    guards_off(&mut s, "audit.log", "UPDATE audit.log SET new = '{}' WHERE chain = 1 AND seq IN (5, 30, 325)");
    assert_eq!(found(&mut s, "since_seal => 2, "), ["content 1:30", "content 1:325"]);
    assert_eq!(found(&mut s, "since_seal => 3, "), ["content 1:325"]);
    guards_off(&mut s, "audit.log", "DELETE FROM audit.log WHERE chain > 1");
    assert_eq!(found(&mut s, "since_seal => 3, "), ["content 1:325"], "the chain was gone before");
    guards_off(&mut s, "audit.log", "DELETE FROM audit.log WHERE chain = 1 AND seq = 22");
    assert!(found(&mut s, "since_seal => 2, ").contains(&"missing 1:22".to_owned()));
}

// ---- Ends and holes ----

#[test]
fn a_tail_cut_behind_the_last_seal_shows_nowhere_and_the_verdict_says_so() {
    let mut s = history().connect();
    guards_off(&mut s, "audit.log", "DELETE FROM audit.log WHERE chain = 1 AND seq > 323");
    assert_eq!(found(&mut s, ""), [""; 0]);
    assert!(detail(&mut s, "seal", "").contains("if the log ended with more of them, it does not show"));
    let arguments = format!("checkpoint => $q${}$q$, ", checkpoint(&mut s, 3));
    assert_eq!(found(&mut s, &arguments), [""; 0]);
    // The tables tell, as long as they are left alone.
    assert!(s.number("SELECT count(*) FROM audit.findings() WHERE kind = 'table'") > 0);
}

#[test]
fn a_tail_cut_before_a_seal_is_found() {
    damaged("audit.log", "DELETE FROM audit.log WHERE chain = 1 AND seq > 320", &["missing 1:321"]);
    damaged("audit.log", "DELETE FROM audit.log WHERE chain = 1 AND seq > 15", &["missing 1:16"]);
    damaged("audit.log", "DELETE FROM audit.log WHERE chain > 1 AND seq > 2", &["missing other:3"]);
}

#[test]
fn a_chain_that_was_removed_whole_is_found() {
    damaged("audit.log", "DELETE FROM audit.log WHERE chain > 1", &["missing other:1"]);
}

#[test]
fn an_entry_removed_with_the_chain_linked_again_is_found() {
    let damage = format!(
        "DELETE FROM audit.log WHERE chain = 1 AND seq = 15;
         UPDATE audit.log SET seq = -seq WHERE chain = 1 AND seq > 15;
         UPDATE audit.log SET seq = -seq - 1 WHERE chain = 1 AND seq < 0; {}",
        relink(15)
    );
    let mut s = history().connect();
    guards_off(&mut s, "audit.log", &damage);
    let found = found(&mut s, "");
    assert!(found.contains(&"seal 1:21".to_owned()), "the head that seal 2 names is another: {found:?}");
    assert!(found.contains(&"tree".to_owned()) || found.iter().any(|finding| finding.starts_with("seal")), "{found:?}");
    assert!(!found.iter().any(|finding| finding.starts_with("link") || finding.starts_with("content")), "{found:?}");
}

// ---- Seals ----

#[test]
fn a_seal_that_was_removed_is_found() {
    for number in [1, 2] {
        let mut s = history().connect();
        guards_off(&mut s, "audit.seal", &format!("DELETE FROM audit.seal WHERE number = {number}"));
        let found = found(&mut s, "");
        assert!(found.contains(&"seal".to_owned()), "the seal is missing: {found:?}");
        assert!(found.iter().all(|finding| finding.starts_with("seal")), "and its ranges have none: {found:?}");
    }
    // With its ranges as well
    let mut s = history().connect();
    guards_off(&mut s, "audit.seal", "DELETE FROM audit.seal WHERE number = 2");
    guards_off(&mut s, "audit.seal_range", "DELETE FROM audit.seal_range WHERE seal = 2");
    assert!(found(&mut s, "").contains(&"seal".to_owned()));
}

/// The last seal with all that came of it leaves nothing behind but the checkpoint that somebody kept.
#[test]
fn the_last_seal_removed_shows_only_in_a_checkpoint() {
    let mut s = history().connect();
    guards_off(&mut s, "audit.seal", "DELETE FROM audit.seal WHERE number = 3");
    guards_off(&mut s, "audit.seal_range", "DELETE FROM audit.seal_range WHERE seal = 3");
    guards_off(&mut s, "audit.tile", "DELETE FROM audit.tile");
    assert_eq!(found(&mut s, ""), [""; 0]);
    let kept = format!("checkpoint => $q${}$q$, ", checkpoint(&mut s, 3));
    assert_eq!(found(&mut s, &kept), ["checkpoint"]);
    let older = format!("checkpoint => $q${}$q$, ", checkpoint(&mut s, 2));
    assert_eq!(found(&mut s, &older), [""; 0]);
}

#[test]
fn a_seal_that_was_changed_is_found() {
    for change in [
        "at = at - interval '1 hour'",
        "tree_size = tree_size + 1",
        "root = sha256('x')",
        "system_identifier = system_identifier + 1",
        "timeline = 7",
        "prev = sha256('x')",
        "hash = sha256('x')",
    ] {
        let mut s = history().connect();
        guards_off(&mut s, "audit.seal", &format!("UPDATE audit.seal SET {change} WHERE number = 2"));
        println!("change: {change}");
        let found = found(&mut s, "");
        assert!(
            !found.is_empty() && found.iter().all(|finding| finding == "seal" || finding == "tree"),
            "{change}: {found:?}"
        );
        assert!(found.contains(&"seal".to_owned()), "{change}");
    }
    for change in
        ["last_seq = last_seq - 1", "first_seq = first_seq + 1", "head = sha256('x')", "chain = chain + 1", "seal = 3"]
    {
        let mut s = history().connect();
        guards_off(
            &mut s,
            "audit.seal_range",
            &format!("UPDATE audit.seal_range SET {change} WHERE seal = 2 AND chain = 1"),
        );
        println!("change of a range: {change}");
        assert!(found(&mut s, "").iter().any(|finding| finding.starts_with("seal")), "{change}");
    }
    let mut s = history().connect();
    guards_off(
        &mut s,
        "audit.seal_range",
        "UPDATE audit.seal_range SET first_leaf = first_leaf + 1000000 WHERE seal = 2 AND chain = 1",
    );
    assert!(found(&mut s, "").iter().any(|finding| finding.starts_with("seal")));
}

#[test]
fn a_seal_with_invalid_values_is_found() {
    for change in ["root = ''", "hash = ''", "prev = 'x'", "at = 'infinity'", "tree_size = -1", "number = -2"] {
        let mut s = history().connect();
        guards_off(&mut s, "audit.seal", &format!("UPDATE audit.seal SET {change} WHERE number = 2"));
        println!("change: {change}");
        assert!(found(&mut s, "").contains(&"seal".to_owned()), "{change}");
    }
}

#[test]
fn a_tile_that_was_changed_removed_or_added_is_found() {
    for damage in [
        "UPDATE audit.tile SET hashes = overlay(hashes placing '\\x00000000' from 100)",
        "UPDATE audit.tile SET root = sha256('x')",
        "UPDATE audit.tile SET hashes = ''",
        "UPDATE audit.tile SET root = ''",
        "DELETE FROM audit.tile",
        "INSERT INTO audit.tile SELECT level, index + 1, hashes, root FROM audit.tile",
        "INSERT INTO audit.tile SELECT level + 1, index, hashes, root FROM audit.tile",
    ] {
        damaged("audit.tile", damage, &["tree"]);
    }
}

#[test]
fn seals_without_their_keys_are_not_passed_over() {
    for damage in [
        "ALTER TABLE audit.seal DROP CONSTRAINT seal_pkey",
        "ALTER TABLE audit.seal_range DROP CONSTRAINT seal_range_pkey",
        "ALTER TABLE audit.seal_range DROP CONSTRAINT seal_range_leaf_key",
        "ALTER TABLE audit.tile DROP CONSTRAINT tile_pkey",
    ] {
        let mut s = history().connect();
        s.run(damage);
        println!("damage: {damage}");
        assert!(found(&mut s, "").contains(&"seal".to_owned()));
    }
}

// ---- All written anew ----

/// A superuser who rewrites everything consistently: an old entry, all entries of its chain, the table, the seals and the tree.
fn rewrite_everything(s: &mut Session, sealed_anew_from: u32) {
    guards_off(
        s,
        "audit.log",
        &format!(
            "UPDATE audit.log SET new = '{{\"id\":15,\"balance\":1000000}}' WHERE chain = 1 AND seq = 16; {}",
            relink(16)
        ),
    );
    s.run("ALTER TABLE account DISABLE TRIGGER USER; UPDATE account SET balance = 1000000 WHERE id = 15");
    s.run(
        "ALTER TABLE account ENABLE ALWAYS TRIGGER audit_row; ALTER TABLE account ENABLE ALWAYS TRIGGER audit_truncate",
    );
    guards_off(s, "audit.seal", &format!("DELETE FROM audit.seal WHERE number >= {sealed_anew_from}"));
    guards_off(s, "audit.seal_range", &format!("DELETE FROM audit.seal_range WHERE seal >= {sealed_anew_from}"));
    guards_off(s, "audit.tile", "DELETE FROM audit.tile");
    s.run("SELECT audit.seal()");
}

#[test]
fn all_written_anew_shows_only_in_a_checkpoint_kept_elsewhere() {
    let database = history();
    let mut s = database.connect();
    rewrite_everything(&mut s, 1);
    let mut auditor = database.connect();
    assert_clean(&mut auditor);
    for seal in [1, 2, 3] {
        let kept = format!("checkpoint => $q${}$q$, ", checkpoint(&mut auditor, seal));
        let expected: &[&str] = if seal == 1 { &[] } else { &["checkpoint"] };
        // The entries of the first seal were not touched, and stand first in the new tree as well.
        assert_eq!(found(&mut auditor, &kept), expected, "checkpoint of seal {seal}");
    }
    let kept = checkpoint(&mut auditor, 3);
    let verdict =
        auditor.rows(&format!("SELECT what, ok, detail FROM audit.verify(checkpoint => $q${kept}$q$) WHERE NOT ok"));
    assert_eq!(verdict.len(), 1, "{verdict:?}");
    assert_eq!(verdict[0][0].as_deref(), Some("checkpoint"));
}

#[test]
fn written_anew_from_a_seal_on_the_older_checkpoint_still_holds() {
    let database = history();
    let mut s = database.connect();
    rewrite_everything(&mut s, 2);
    let mut auditor = database.connect();
    assert_clean(&mut auditor);
    let older = format!("checkpoint => $q${}$q$, ", checkpoint(&mut auditor, 1));
    assert_eq!(found(&mut auditor, &older), [""; 0]);
    let newer = format!("checkpoint => $q${}$q$, ", checkpoint(&mut auditor, 2));
    assert_eq!(found(&mut auditor, &newer), ["checkpoint"]);
}

#[test]
fn a_checkpoint_of_something_else_vouches_for_nothing() {
    let mut s = history().connect();
    let kept = checkpoint(&mut s, 2);
    let lines: Vec<&str> = kept.lines().collect();
    let with = |origin: &str, size: &str, root: &str| format!("checkpoint => $q${origin}\n{size}\n{root}\n$q$, ");
    let zeros = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    assert_eq!(found(&mut s, &with(lines[0], lines[1], lines[2])), [""; 0]);
    for (origin, size, root) in [
        ("audit/other", lines[1], lines[2]),
        (lines[0], "25", lines[2]),
        (lines[0], "27", lines[2]),
        (lines[0], "327", lines[2]),
        (lines[0], "9223372036854775807", lines[2]),
        (lines[0], lines[1], zeros),
    ] {
        let arguments = with(origin, size, root);
        assert_eq!(found(&mut s, &arguments), ["checkpoint"], "{arguments}");
        let verdict = detail(&mut s, "checkpoint", &arguments);
        assert!(verdict.starts_with("the checkpoint does not vouch for this log"), "{verdict}");
    }
    guards_off(&mut s, "audit.log", "DELETE FROM audit.log");
    for table in ["audit.seal", "audit.seal_range", "audit.tile", "audit.ledger"] {
        guards_off(&mut s, table, &format!("DELETE FROM {table}"));
    }
    let arguments = with(lines[0], lines[1], lines[2]);
    assert!(found(&mut s, &arguments).contains(&"checkpoint".to_owned()), "a log that was emptied");
}

/// Signed checkpoints are held against the keys that the log says it was signed with.
#[test]
fn the_signature_of_a_checkpoint_is_verified() {
    let cluster = Cluster::builder().conf("shared_preload_libraries = 'audit'").conf("audit.seal_interval = 0").start();
    let database = cluster.database();
    let first = cluster.signing_key("first.pem");
    let second = cluster.signing_key("second.pem");
    cluster.set("audit.signing_key_file", first.to_str().expect("ASCII"));
    let mut s = database.connect();
    s.run("CREATE TABLE t (id int PRIMARY KEY); SELECT audit.protect('t'); INSERT INTO t VALUES (1)");
    s.run("SELECT audit.seal()");
    let old = s.text("SELECT audit.checkpoint()");
    cluster.set("audit.signing_key_file", second.to_str().expect("ASCII"));
    let mut s = database.connect();
    s.run("INSERT INTO t VALUES (2); SELECT audit.seal()");
    let new = s.text("SELECT audit.checkpoint()");
    for text in [&old, &new] {
        assert_eq!(found(&mut s, &format!("checkpoint => $q${text}$q$, ")), [""; 0], "both keys are recorded");
    }
    let signature = old.rfind(' ').expect("a signature line") + 10;
    let mut forged = old.clone().into_bytes();
    forged[signature] = if forged[signature] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).expect("ASCII");
    assert_eq!(found(&mut s, &format!("checkpoint => $q${forged}$q$, ")), ["checkpoint"]);
    let unsigned = old.split("\n\n").next().expect("the text").to_owned() + "\n";
    assert_eq!(found(&mut s, &format!("checkpoint => $q${unsigned}$q$, ")), ["checkpoint"], "this ledger signs");
}

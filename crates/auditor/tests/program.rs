//! What a user of `audit-verify` sees: output and exit status, for a good export and for each way to damage it.
//!
//! `testdata/good.txt` is an export of two chains; the damaged files are made from it here.

use assert_cmd::Command;
use audit_ledger::seal::Range;
use audit_ledger::{Checkpoint, CompactRange, Hash, LeafHash, Seal, SignerKey, Timestamp};

const GOOD: &str = include_str!("../testdata/good.txt");

fn lines() -> Vec<String> {
    GOOD.lines().map(str::to_owned).collect()
}

/// Exit status, standard output and standard error for an input.
fn run(arguments: &[&str], input: impl AsRef<[u8]>) -> (i32, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_audit-verify")).args(arguments).write_stdin(input.as_ref()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The lines that tell of findings, without hints, for an input that has some.
fn findings(lines: &[String]) -> Vec<String> {
    let (status, out, error) = run(&["-"], lines.join("\n"));
    assert_eq!((status, error.as_str()), (1, ""), "{out}");
    out.lines()
        .take_while(|line| !line.starts_with("aspect"))
        .filter(|line| !line.starts_with("  "))
        .map(str::to_owned)
        .collect()
}

fn bare(line: &str) -> String {
    line[65..].to_owned()
}

#[test]
fn good_export_passes() {
    let (status, out, error) = run(&["-"], GOOD);
    assert_eq!((status, error.as_str()), (0, ""), "{out}");
    let expected = "\
aspect        checked     problems
content             5            0
link                5            0
missing             5            0
order               5            0
format              5            0
ledger 0b8f4f0e-7d0e-4c58-9d2a-0c6f6f1f5a11 chain 1: 4 entries, head 4 ";
    assert!(out.starts_with(expected), "{out}");
    let last = lines().pop().unwrap();
    assert!(out.ends_with(&format!("chain 2: 1 entries, head 1 {}\n", &last[..64])), "{out}");
}

#[test]
fn file_is_read_by_its_name() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/good.txt");
    assert_eq!(run(&[file], ""), run(&["-"], GOOD));
}

#[test]
fn quiet_prints_nothing() {
    assert_eq!(run(&["--quiet", "-"], GOOD), (0, String::new(), String::new()));
    let damaged = GOOD.replace("\"paid\"", "\"open\"");
    assert_eq!(run(&["--quiet", "-"], damaged), (1, String::new(), String::new()));
}

#[test]
fn order_of_lines_and_last_line_feed_do_not_matter() {
    let mut lines = lines();
    lines.reverse();
    let (status, out, _) = run(&["-"], lines.join("\n"));
    assert_eq!((status, out), (0, run(&["-"], GOOD).1));
}

#[test]
fn lines_without_hashes_are_verified_by_their_links() {
    let lines: Vec<String> = lines().iter().map(|line| bare(line)).collect();
    let (status, out, _) = run(&["-"], lines.join("\n"));
    assert_eq!(status, 0, "{out}");
    assert!(out.contains("content             0            0"), "{out}");
    let mut changed = lines.clone();
    changed[2] = changed[2].replace("\"paid\"", "\"open\"");
    let found = findings(&changed);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("link: line 4 chain 1 seq 4 id 6: prev is "), "{found:?}");
}

#[test]
fn changed_value_is_found() {
    let mut lines = lines();
    let stored = lines[2][..64].to_owned();
    lines[2] = lines[2].replace("\"paid\"", "\"open\"");
    let computed = Hash::of(&lines[2].as_bytes()[65..]);
    assert_eq!(
        findings(&lines),
        [format!("content: line 3 chain 1 seq 3 id 5 public.orders: stored hash {stored}, computed {computed}")]
    );
}

#[test]
fn changed_value_with_a_new_hash_is_found() {
    let mut lines = lines();
    let line = bare(&lines[2]).replace("\"paid\"", "\"open\"");
    let (before, after) = (lines[2][..64].to_owned(), Hash::of(line.as_bytes()));
    lines[2] = format!("{after} {line}");
    assert_eq!(
        findings(&lines),
        [format!("link: line 4 chain 1 seq 4 id 6: prev is {before}, hash of entry 3 is {after}")]
    );
}

#[test]
fn removed_line_is_found() {
    for gone in 0..3 {
        let mut lines = lines();
        lines.remove(gone);
        let seq = gone + 1;
        assert_eq!(findings(&lines), [format!("missing: chain 1 seq {seq}: entry {seq} is missing")]);
    }
}

#[test]
fn removed_tail_is_not_found_but_the_head_shows_it() {
    let mut lines = lines();
    let gone = lines.remove(3);
    let (status, out, _) = run(&["-"], lines.join("\n"));
    assert_eq!(status, 0);
    assert!(!out.contains(&gone[..64]), "{out}");
    assert!(out.contains("chain 1: 3 entries, head 3 "), "{out}");
}

#[test]
fn swapped_entries_are_found() {
    let mut lines = lines();
    for line in &mut lines[1..3] {
        let text = bare(line);
        let text = if text.contains("\"seq\":\"2\"") {
            text.replace("\"seq\":\"2\"", "\"seq\":\"3\"")
        } else {
            text.replace("\"seq\":\"3\"", "\"seq\":\"2\"")
        };
        *line = format!("{} {text}", Hash::of(text.as_bytes()));
    }
    let found = findings(&lines);
    let kinds: Vec<&str> = found.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(kinds, ["link", "link", "order", "link"], "{found:?}");
}

#[test]
fn swapped_hashes_are_found() {
    let mut lines = lines();
    let (a, b) = (lines[1].clone(), lines[2].clone());
    lines[1] = format!("{} {}", &b[..64], bare(&a));
    lines[2] = format!("{} {}", &a[..64], bare(&b));
    let found = findings(&lines);
    let kinds: Vec<&str> = found.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(kinds, ["content", "content", "link", "link"], "{found:?}");
}

#[test]
fn duplicate_line_is_found() {
    let mut lines = lines();
    lines.push(lines[1].clone());
    assert_eq!(findings(&lines), ["order: line 6 chain 1 seq 2 id 2: seq 2 stands twice in chain 1"]);
}

#[test]
fn lines_that_are_no_entries_are_found() {
    for (line, problem) in [
        ("", "format: line 6: the line does not begin with its version"),
        ("(5 rows)", "format: line 6: the line does not begin with its version"),
        ("{\"v\":2}", "format: line 6: format version 2 is not known"),
    ] {
        let mut lines = lines();
        lines.push(format!("{line}\n"));
        assert_eq!(findings(&lines), [problem]);
    }
}

#[test]
fn changed_bytes_that_are_not_utf8_are_found() {
    let mut bytes = GOOD.as_bytes().to_vec();
    let place = GOOD.find("paid").unwrap();
    bytes[place] = 0xff;
    let (status, out, _) = run(&["-"], bytes);
    assert_eq!(status, 1);
    assert!(out.starts_with("content: line 3: stored hash "), "{out}");
}

#[test]
fn no_entries_are_no_verdict() {
    let (status, out, error) = run(&["-"], "");
    assert_eq!((status, out.as_str()), (2, ""));
    assert_eq!(error, "audit-verify: there is no entry in \"-\"\n");
}

#[test]
fn wrong_usage_and_unreadable_files_are_no_verdict() {
    assert_eq!(run(&[], "").0, 2);
    assert_eq!(run(&["--no-such", "-"], GOOD).0, 2);
    let (status, out, error) = run(&["no/such/file"], "");
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(error.starts_with("audit-verify: could not read \"no/such/file\": "), "{error}");
}

#[test]
fn names_cannot_command_the_terminal() {
    let text = bare(&lines()[1]).replace("\"orders\"", "\"\\u001b[2J\"");
    let mut lines = lines();
    lines[1] = format!("{} {text}", Hash::GENESIS);
    let (_, out, _) = run(&["-"], lines.join("\n"));
    assert!(!out.contains('\u{1b}'), "{out}");
    assert!(out.contains("public.\"\\u{1b}[2J\": stored hash"), "{out}");
}

#[test]
fn unknown_operation_is_found() {
    let text = bare(&lines()[4]).replace("INSERT", "UPSERT");
    let mut lines = lines();
    lines[4] = format!("{} {text}", Hash::of(text.as_bytes()));
    assert_eq!(
        findings(&lines),
        ["format: line 5 chain 2 seq 1 id 4 public.orders: operation \"UPSERT\" is not known"]
    );
}

/// Two seals over the export, the second of which counts the rest, as lines with their hashes.
fn seals() -> Vec<String> {
    let hash = |line: usize| -> Hash { lines()[line][..64].parse().unwrap() };
    let mut tree = CompactRange::new();
    let mut prev = Hash::GENESIS;
    let mut made = Vec::new();
    for (number, entries, ranges) in
        [(1, vec![0, 1, 4], vec![(1, 1, 2, 1), (2, 1, 1, 4)]), (2, vec![2, 3], vec![(1, 3, 4, 3)])]
    {
        for entry in entries {
            tree.append(LeafHash::of_entry(&hash(entry))).unwrap();
        }
        let range = |(chain, first, last, head)| Range { chain, first, last, head: hash(head) };
        let seal = Seal {
            ledger: "0b8f4f0e-7d0e-4c58-9d2a-0c6f6f1f5a11".parse().unwrap(),
            number,
            prev,
            at: Timestamp::new(1_763_778_600_000_000 + number as i64).unwrap(),
            head: tree.head(),
            system: 7,
            timeline: 1,
            ranges: ranges.into_iter().map(range).collect(),
        };
        let mut line = Vec::new();
        prev = seal.hash_with(&mut line);
        made.push(format!("{prev} {}", String::from_utf8(line).unwrap()));
    }
    made
}

fn sealed() -> Vec<String> {
    [seals(), lines()].concat()
}

fn key() -> SignerKey {
    SignerKey::from_seed("example.com/audit", &[1; 32]).unwrap()
}

/// The signed checkpoint of a seal, in a file.
fn checkpoint(seal: usize, name: &str) -> String {
    let seal = Seal::parse(&seals()[seal][65..]).unwrap();
    let signed = Checkpoint::new("example.com/audit", seal.head).unwrap().sign(&[&key()]).unwrap();
    file(name, &signed.to_string())
}

fn file(name: &str, text: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn good_export_with_seals_passes_in_any_order() {
    let expected = "\
seal                  2            0
tree                  5            0
checkpoint            0            0
";
    let (status, out, error) = run(&["-"], sealed().join("\n"));
    assert_eq!((status, error.as_str()), (0, ""), "{out}");
    assert!(out.contains(expected), "{out}");
    assert!(out.contains("5 entries are sealed, up to seal 2 of 2025-11-22T02:30:00.000002Z; 0 newer ones"), "{out}");
    let mut reversed = sealed();
    reversed.reverse();
    assert_eq!(run(&["-"], reversed.join("\n")), (0, out.clone(), String::new()));
    let (log, seals) = (file("log", GOOD), file("seals", &seals().join("\n")));
    assert_eq!(run(&[&log, &seals], ""), (0, out.clone(), String::new()));
    let bare: Vec<String> = sealed().iter().map(|line| bare(line)).collect();
    let (status, without, _) = run(&[&file("bare", &bare.join("\n"))], "");
    assert_eq!(status, 0, "{without}");
    assert!(without.contains(expected), "{without}");
}

#[test]
fn cut_tail_is_found_by_the_seals() {
    let mut cut = sealed();
    cut.remove(5);
    assert_eq!(
        findings(&cut),
        ["missing: chain 1 seq 4: entry 4 is missing: the seals count them, the chain ends at 3"]
    );
}

#[test]
fn changed_and_removed_seals_are_found() {
    let mut changed = sealed();
    changed[1] = changed[1].replace("\"timeline\":1", "\"timeline\":2");
    let found = findings(&changed);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("seal: stored hash of seal 2 is "), "{found:?}");
    let mut removed = sealed();
    removed.remove(0);
    assert_eq!(findings(&removed), ["seal: seal 1 is missing"]);
    let mut malformed = sealed();
    malformed[1] = malformed[1].replace("\"timeline\":1", "\"timeline\":01");
    let found = findings(&malformed);
    assert!(found[0].starts_with("seal: line 2: "), "{found:?}");
}

#[test]
fn checkpoint_is_held_against_the_log() {
    let log = file("sealed", &sealed().join("\n"));
    let vkey = key().verifier().to_string();
    let (old, new) = (checkpoint(0, "old"), checkpoint(1, "new"));
    let (status, out, error) = run(&["--checkpoint", &old, "--vkey", &vkey, &log], "");
    assert_eq!((status, error.as_str()), (0, ""), "{out}");
    assert!(out.contains("the first 3 sealed entries are covered by the checkpoint, up to seal 1 of "), "{out}");
    assert!(out.contains("; 2 newer ones are only sealed, 0 only chained"), "{out}");
    let (status, out, _) = run(&["--checkpoint", &old, "--checkpoint", &new, &log], "");
    assert_eq!(status, 0, "{out}");
    assert!(out.contains("was not held against a key"), "{out}");
    // As psql prints it
    let text = std::fs::read_to_string(&new).unwrap();
    let printed = file("printed", &(text + "\n"));
    assert_eq!(run(&["--checkpoint", &printed, "--vkey", &vkey, &log], "").0, 0);
    // The log before the second seal: good by itself, and not what the checkpoint saw.
    let back = [&seals()[..1], &[0, 1, 4].map(|line| lines()[line].clone())].concat().join("\n");
    let back = file("back", &back);
    assert_eq!(run(&[&back], "").0, 0);
    let (status, out, _) = run(&["--checkpoint", &new, "--vkey", &vkey, &back], "");
    assert_eq!(status, 1);
    assert!(out.starts_with("checkpoint: the checkpoint counts 5 entries, the seals of the log 3\n"), "{out}");
    // An entry changed, and everything behind it made anew.
    let text = std::fs::read_to_string(&new).unwrap().replacen("\n5\n", "\n4\n", 1);
    let forged = file("forged", &text);
    let (status, out, _) = run(&["--checkpoint", &forged, "--vkey", &vkey, &log], "");
    assert_eq!(status, 1);
    assert!(out.starts_with("checkpoint: "), "{out}");
    let (status, out, _) = run(&["--checkpoint", &forged, &log], "");
    assert_eq!(status, 1);
    assert!(out.starts_with("checkpoint: root of the first 4 sealed entries is "), "{out}");
}

#[test]
fn unusable_checkpoints_and_keys_are_no_verdict() {
    let log = file("for_no_verdict", &sealed().join("\n"));
    let new = checkpoint(1, "for_no_verdict_checkpoint");
    let no = file("no_checkpoint", "hello\n");
    for arguments in [
        vec!["--checkpoint", "no/such/file", &log],
        vec!["--checkpoint", &no, &log],
        vec!["--checkpoint", &new, "--vkey", "example.com/audit+00000000+AA==", &log],
        vec!["--vkey", "x", &log],
    ] {
        let (status, out, error) = run(&arguments, "");
        assert_eq!((status, out.as_str()), (2, ""), "{error}");
    }
}

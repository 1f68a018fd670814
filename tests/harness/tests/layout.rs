//! How the library is laid out: docs/design/0009-code-layout.md.

use std::path::Path;
use std::process::Command;
use std::{env, fs, str};

use audit_tests::bindir;

/// The pieces of the pattern of each function that `hot.ld` names.
fn patterns(script: &str) -> Vec<Vec<&str>> {
    let named = script.lines().filter_map(|line| line.trim().strip_prefix("*(.text.")?.strip_suffix(')'));
    named.map(|pattern| pattern.split('*').filter(|piece| !piece.is_empty()).collect()).collect()
}

fn matches(symbol: &str, pieces: &[&str]) -> bool {
    let mut rest = symbol;
    pieces.iter().all(|piece| match rest.find(piece) {
        Some(start) => {
            rest = &rest[start + piece.len()..];
            true
        }
        None => false,
    })
}

#[test]
fn functions_that_record_a_change_lie_in_a_section_of_their_own() {
    let directory = Command::new(bindir().join("pg_config")).arg("--pkglibdir").output().expect("pg_config runs");
    let directory = str::from_utf8(&directory.stdout).expect("a path").trim().to_owned();
    let library = fs::read(Path::new(&directory).join("audit.so")).expect("the library is installed");
    if env::var("AUDIT_LINK_ORDER").is_ok_and(|value| value == "off") {
        println!("AUDIT_LINK_ORDER is off: not tested");
        return;
    }
    // Names of sections and symbols stand in the file as they are.
    let names: Vec<&str> = library.split(|byte| *byte == 0).filter_map(|name| str::from_utf8(name).ok()).collect();
    assert!(names.contains(&".text.audit_hot"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../hot.ld");
    let script = fs::read_to_string(script).expect("hot.ld is there");
    let patterns = patterns(&script);
    assert!(patterns.len() > 30);
    let lost: Vec<_> = patterns.iter().filter(|pieces| !names.iter().any(|name| matches(name, pieces))).collect();
    // Which functions there are depends on what the compiler puts into their callers, so on its version and on the profile.
    assert!(4 * lost.len() <= patterns.len(), "functions of hot.ld that are not there: {lost:?}");
}

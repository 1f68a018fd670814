//! What a user sees in psql: each script of tests/regress/sql against its file in tests/regress/expected.
//!
//! `REGRESS=name` runs one script, `REGRESS_ACCEPT=1` writes what came out as expected: read it before you keep it.
//! A script whose output differs between majors has alternates, `name_1.out` and so on.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use audit_tests::Cluster;

#[test]
fn every_script_prints_what_is_expected() {
    let accept = std::env::var_os("REGRESS_ACCEPT").is_some();
    let only = std::env::var("REGRESS").ok();
    let mut failed = Vec::new();
    for name in names("sql", ".sql") {
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let result = run(&name);
        if accept && !matches_expected(&name, &result) {
            fs::copy(&result, expected(&name, None)).expect("the expected file can be written");
        } else if !matches_expected(&name, &result) {
            println!("{}", difference(&expected(&name, None), &result));
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "not as expected: {}", failed.join(", "));
}

#[test]
fn every_script_has_an_expected_file_and_the_reverse() {
    let scripts: BTreeSet<String> = names("sql", ".sql");
    let outputs: BTreeSet<String> = names("expected", ".out")
        .into_iter()
        .map(|name| match name.rsplit_once('_') {
            Some((base, number)) if number.parse::<u32>().is_ok() => base.to_owned(),
            _ => name,
        })
        .collect();
    assert_eq!(scripts, outputs);
    for name in &scripts {
        assert!(expected(name, None).exists(), "{name}_1.out without {name}.out");
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../regress")
}

/// The names of all files in a folder, without their ending; nothing else may lie there.
fn names(kind: &str, ending: &str) -> BTreeSet<String> {
    fs::read_dir(folder().join(kind))
        .expect("the folder is part of the repository")
        .map(|entry| {
            let name = entry.expect("it can be read").file_name().into_string().expect("names are ASCII");
            name.strip_suffix(ending).unwrap_or_else(|| panic!("{name} does not belong in {kind}")).to_owned()
        })
        .collect()
}

fn expected(name: &str, alternate: Option<u32>) -> PathBuf {
    let alternate = alternate.map(|number| format!("_{number}")).unwrap_or_default();
    folder().join("expected").join(format!("{name}{alternate}.out"))
}

fn matches_expected(name: &str, result: &Path) -> bool {
    let result = fs::read(result).expect("psql has written it");
    [None, Some(1), Some(2), Some(3)]
        .into_iter()
        .any(|alternate| fs::read(expected(name, alternate)).is_ok_and(|wanted| wanted == result))
}

/// Runs a script in a database of its own, and returns the file with all that psql printed.
fn run(name: &str) -> PathBuf {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let result = cluster.file(&format!("{name}.out"));
    let script = File::open(folder().join("sql").join(format!("{name}.sql"))).expect("it was listed");
    let output = File::create(&result).expect("the server's directory can be written");
    let errors = output.try_clone().expect("a file can be shared");
    cluster
        .command("psql")
        .args(["-X", "-a", "-q", "-d", &database.name])
        // Settings that are nobody's default: a result that depends on them shows itself.
        .env("PGTZ", "America/Los_Angeles")
        .env("PGDATESTYLE", "Postgres, MDY")
        .stdin(Stdio::from(script))
        .stdout(Stdio::from(output))
        .stderr(Stdio::from(errors))
        .status()
        .expect("psql can be started");
    result
}

fn difference(expected: &Path, result: &Path) -> String {
    let missing = Path::new("/dev/null");
    let expected = if expected.exists() { expected } else { missing };
    let output = Command::new("diff").arg("-u").arg(expected).arg(result).output().expect("diff can be started");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

//! Every block of SQL in the documentation runs.
//!
//! The blocks of a file run in order in one database of their own. A block with the comment `<!-- no-run -->` on the line before it is
//! left out. What a block prints is not compared; what it says must not fail. And each test that the threat model names exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use audit_tests::Cluster;

#[test]
fn every_block_of_sql_in_the_documentation_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = vec![root.join("README.md")];
    collect(&root.join("docs"), "md", &mut files);
    files.sort();
    let mut blocks = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let database = Cluster::shared().bare_database();
        for (line, block) in sql_blocks(&text) {
            blocks += 1;
            let mut command = Cluster::shared().command("psql");
            let output = command
                .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &database.name, "-c", "\\pset pager off", "-f", "-"])
                .stdin(fs::File::open(write(&block)).expect("it was just written"))
                .output()
                .expect("psql can be started");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}, line {line}: {errors}\n{block}", file.display());
        }
    }
    assert!(blocks > 0, "no SQL in the documentation");
}

/// The files below a folder whose names end so.
fn collect(folder: &Path, ending: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is part of the repository") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            collect(&path, ending, files);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            files.push(path);
        }
    }
}

/// A file with this text, for psql to read.
fn write(text: &str) -> PathBuf {
    let file = Cluster::shared().file("block.sql");
    fs::write(&file, text).expect("the server's directory can be written");
    file
}

/// The blocks of SQL to run, each with the number of its first line.
fn sql_blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, bool, Vec<&str>)> = None;
    let mut before = "";
    for (number, line) in (1..).zip(text.lines()) {
        match &mut open {
            None => {
                if let Some(language) = line.trim_start().strip_prefix("```") {
                    let run = language.trim() == "sql" && before.trim() != "<!-- no-run -->";
                    open = Some((number + 1, run, Vec::new()));
                }
            }
            Some((first, run, lines)) => {
                if line.trim() == "```" {
                    if *run {
                        blocks.push((*first, lines.join("\n") + "\n"));
                    }
                    open = None;
                } else {
                    lines.push(line);
                }
            }
        }
        if !line.trim().is_empty() {
            before = line;
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

#[test]
fn blocks_are_found_and_left_out_as_told() {
    let text = "# t\n```sql\nSELECT 1;\n```\n\n<!-- no-run -->\n\n```sql\nSELECT 2;\n```\n```sh\nls\n```\n  ```sql\n  SELECT 3;\n  ```\n";
    let found = sql_blocks(text);
    assert_eq!(found, [(3, "SELECT 1;\n".to_owned()), (15, "  SELECT 3;\n".to_owned())]);
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in ["tests/harness/tests", "crates"] {
        collect(&root.join(folder), "rs", &mut files);
    }
    let sources: String = files.iter().map(|file| fs::read_to_string(file).expect("it was listed just now")).collect();
    let tests: BTreeSet<&str> =
        sources.split("fn ").skip(1).filter_map(|rest| rest.split_once('(')).map(|(name, _)| name).collect();
    let text = fs::read_to_string(root.join("docs/threat-model.md")).expect("it is part of the repository");
    let named = names_of_tests(&text);
    assert!(named.len() > 80, "{} names", named.len());
    let unknown: Vec<&&str> = named.iter().filter(|name| !tests.contains(**name)).collect();
    assert!(unknown.is_empty(), "no such tests: {unknown:#?}");
}

/// What stands in backquotes and reads like the claim of a test: four words or more.
fn names_of_tests(text: &str) -> Vec<&str> {
    let is_name = |word: &&str| {
        word.matches('_').count() >= 3
            && !word.starts_with("pg_")
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    text.split('`').skip(1).step_by(2).filter(is_name).collect()
}

#[test]
fn names_of_tests_are_told_from_other_words() {
    let text = "| a | `pg_write_all_data`, `audit_row` | `a_deleted_entry_is_found`, regress `guards` |\n`make demo` `x_is_y_z(1)` `no_such_test_here`";
    assert_eq!(names_of_tests(text), ["a_deleted_entry_is_found", "no_such_test_here"]);
}

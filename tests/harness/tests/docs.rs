//! Every block of SQL in the documentation runs.
//!
//! The blocks of a file run in order in one database of their own. A block with the comment `<!-- no-run -->` on the line before it is
//! left out. What a block prints is not compared; what it says must not fail.

use std::fs;
use std::path::{Path, PathBuf};

use audit_tests::Cluster;

#[test]
fn every_block_of_sql_in_the_documentation_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = vec![root.join("README.md")];
    collect(&root.join("docs"), &mut files);
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

/// The markdown files below a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder is part of the repository") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "md") {
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

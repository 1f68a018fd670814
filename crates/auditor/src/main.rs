//! `audit-verify`: verifies an exported log where there is no database.
//!
//! It reads lines and prints; what is right and wrong is decided by the ledger crate, the same that `audit.verify()` uses. Memory is
//! bounded by the longest line and by the holes that are open at a time, whatever the length of the file.

#![forbid(unsafe_code)]

mod lines;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use audit_ledger::{Counts, Finding, Kind, LogVerifier, Summary};
use clap::Parser;

use crate::lines::{Line, Lines};

/// Verifies an exported audit log: that each hash fits its entry, and that the entries make whole chains.
///
/// Each line of FILE is an entry as `audit.export()` gives it: its hash, a space and its line; or the line alone, and then its hash is computed.
/// Lines may come in any order. What is missing at the end of a chain cannot be told from the chain: compare the heads with those you
/// noted before.
#[derive(Parser)]
#[command(
    name = "audit-verify",
    version,
    after_help = "Exit status: 0 nothing is wrong, 1 there are findings, 2 FILE cannot be read or holds no entry."
)]
struct Arguments {
    /// The exported log; - for standard input
    file: PathBuf,

    /// Print nothing on standard output; the exit status tells
    #[arg(short, long)]
    quiet: bool,
}

/// The aspects that a log alone can show.
const ASPECTS: [Kind; 5] = [Kind::Content, Kind::Link, Kind::Missing, Kind::Order, Kind::Format];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("audit-verify: {error}");
            ExitCode::from(2)
        }
    }
}

/// Says whether nothing is wrong.
fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let out: Box<dyn Write> =
        if arguments.quiet { Box::new(io::sink()) } else { Box::new(BufWriter::new(io::stdout().lock())) };
    verify(open(&arguments.file)?, &arguments.file, Report::new(out))
}

fn open(file: &Path) -> Result<Box<dyn BufRead>, Failure> {
    // Lines are about 500 bytes: a buffer of 1 MiB reads 2000 at a time.
    const BUFFER: usize = 1 << 20;
    if file == Path::new("-") {
        return Ok(Box::new(BufReader::with_capacity(BUFFER, io::stdin().lock())));
    }
    match File::open(file) {
        Ok(opened) => Ok(Box::new(BufReader::with_capacity(BUFFER, opened))),
        Err(error) => Err(Failure::Read(file.to_owned(), error)),
    }
}

fn verify(input: impl BufRead, file: &Path, mut report: Report<'_>) -> Result<bool, Failure> {
    let mut verifier = LogVerifier::new();
    let mut lines = Lines::new(input);
    let mut with_hash = 0;
    while let Some(line) = lines.next().map_err(|error| Failure::Read(file.to_owned(), error))? {
        let number = line.number;
        let mut sink = |finding| report.finding(Some(number), &finding);
        match line.content {
            Line::Hashed(hash, text) => {
                with_hash += 1;
                verifier.line(text, Some(hash), &mut sink);
            }
            Line::Bare(text) => verifier.line(text, None, &mut sink),
        }
        report.check()?;
    }
    if verifier.entries() == 0 {
        // An export that failed is empty too, and must not pass for a good log.
        return Err(Failure::Empty(file.to_owned()));
    }
    let summary = verifier.finish(&mut |finding| report.finding(None, &finding));
    report.summary(&summary, with_hash)?;
    Ok(report.counts.total() == 0)
}

/// Prints findings as they come, then the sums.
struct Report<'a> {
    out: Box<dyn Write + 'a>,
    counts: Counts,
    /// The first failure to print; kept because findings come through a function that cannot fail.
    failure: Option<io::Error>,
}

impl<'a> Report<'a> {
    fn new(out: Box<dyn Write + 'a>) -> Report<'a> {
        Report { out, counts: Counts::new(), failure: None }
    }

    fn finding(&mut self, line: Option<u64>, finding: &Finding) {
        self.counts.add(finding.kind);
        if self.failure.is_none()
            && let Err(error) = self.print_finding(line, finding)
        {
            self.failure = Some(error);
        }
    }

    fn print_finding(&mut self, line: Option<u64>, finding: &Finding) -> io::Result<()> {
        write!(self.out, "{}:", finding.kind)?;
        if let Some(line) = line {
            write!(self.out, " line {line}")?;
        }
        if let Some(chain) = finding.chain {
            write!(self.out, " chain {chain}")?;
        }
        if let Some(seq) = finding.seq {
            write!(self.out, " seq {seq}")?;
        }
        if let Some(id) = finding.id {
            write!(self.out, " id {id}")?;
        }
        if let Some(relation) = &finding.relation {
            write!(self.out, " {}", printable(relation))?;
        }
        writeln!(self.out, ": {}", printable(&finding.detail))?;
        writeln!(self.out, "  {}", finding.hint)
    }

    fn summary(&mut self, summary: &Summary, with_hash: u64) -> Result<(), Failure> {
        self.check()?;
        self.print_summary(summary, with_hash).map_err(Failure::Write)
    }

    fn print_summary(&mut self, summary: &Summary, with_hash: u64) -> io::Result<()> {
        writeln!(self.out, "{:<8} {:>12} {:>12}", "aspect", "checked", "problems")?;
        for kind in ASPECTS {
            // A line without a hash has none that could be wrong.
            let checked = if kind == Kind::Content { with_hash } else { summary.entries };
            writeln!(self.out, "{kind:<8} {checked:>12} {:>12}", self.counts.get(kind))?;
        }
        for head in &summary.heads {
            writeln!(
                self.out,
                "ledger {} chain {}: {} entries, head {} {}",
                head.ledger, head.chain, head.entries, head.seq, head.hash
            )?;
        }
        self.out.flush()
    }

    fn check(&mut self) -> Result<(), Failure> {
        match self.failure.take() {
            Some(error) => Err(Failure::Write(error)),
            None => Ok(()),
        }
    }
}

/// The text without what a terminal obeys: names come from the log, and whoever made one up shall not write the report.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        // The second kind sets the direction of writing.
        if character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

/// Why there is no verdict.
enum Failure {
    Read(PathBuf, io::Error),
    Empty(PathBuf),
    Write(io::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Read(file, error) => write!(f, "could not read \"{}\": {error}", file.display()),
            Failure::Empty(file) => write!(f, "there is no entry in \"{}\"", file.display()),
            Failure::Write(error) => write!(f, "could not write the report: {error}"),
        }
    }
}

//! `audit-verify`: verifies an exported log where there is no database.
//!
//! It reads lines and prints; what is right and wrong is decided by the ledger crate, the same that `audit.verify()` uses. Memory is
//! bounded by the longest line and by the holes that are open at a time, whatever the length of the file. Seals and checkpoints need the hashes of
//! all entries in another order than the lines have: files are then read twice, and each entry takes 40 bytes.

#![forbid(unsafe_code)]

mod hashes;
mod lines;
mod report;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use audit_ledger::{
    Brought, CheckpointError, Hash, LogVerifier, NoteVerifier, Seal, SealVerifier, StoredSeal, Summary, TreeHead, Uuid,
    VerifierKey, end_with_one_line_feed, read_checkpoint,
};
use clap::Parser;

use crate::hashes::Hashes;
use crate::lines::{Line, Lines, is_seal};
use crate::report::Report;

/// Verifies an exported audit log: that each hash fits its entry, that the entries make whole chains, and that seals and checkpoints fit them.
///
/// Each line of a FILE is an entry as `audit.export()` gives it: its hash, a space and its line; or the line alone, and then its hash is computed. Seals are lines of the same
/// form, with "seal" behind "ledger". Lines may come in any order, and several files are one log. Without seals and checkpoints, what is missing at the end of a chain cannot be
/// told: compare the heads with those you noted before.
#[derive(Parser)]
#[command(
    name = "audit-verify",
    version,
    after_help = "Exit status: 0 nothing is wrong, 1 there are findings, 2 a file cannot be read or holds no entry."
)]
struct Arguments {
    /// The exported log, in one or several files; - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// A checkpoint that you kept, to be held against the log; may be given several times
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,

    /// The public key of the ledger, as audit.public_key() gave it; the checkpoints must be signed by it, or by one of several
    #[arg(long, value_name = "KEY", requires = "checkpoint")]
    vkey: Vec<VerifierKey>,

    /// Print nothing on standard output; the exit status tells
    #[arg(short, long)]
    quiet: bool,
}

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
    let mut report = Report::new(out);
    let checkpoints = read_checkpoints(arguments, &mut report)?;
    let mut log = read_log(arguments, &mut report)?;
    let summary = std::mem::take(&mut log.verifier).finish(&mut |finding| report.finding(None, &finding));
    report.entries(&summary, log.with_hash);
    if !log.seals.is_empty() || !arguments.checkpoint.is_empty() {
        verify_seals(arguments, log, &summary, &checkpoints, &mut report)?;
    }
    report.finish(&summary).map_err(Failure::Write)
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

/// The checkpoints that say something of this log; the others are findings.
fn read_checkpoints(arguments: &Arguments, report: &mut Report<'_>) -> Result<Vec<TreeHead>, Failure> {
    let keys: Vec<&dyn NoteVerifier> = arguments.vkey.iter().map(|key| key as &dyn NoteVerifier).collect();
    if keys.windows(2).any(|pair| pair[0].name() != pair[1].name()) {
        return Err(Failure::Names);
    }
    let mut heads = Vec::new();
    for file in &arguments.checkpoint {
        let mut text = std::fs::read(file).map_err(|error| Failure::Read(file.clone(), error))?;
        end_with_one_line_feed(&mut text);
        // The key has the name of the log. Without one, the log is the one that the checkpoint names.
        let first = text.split(|byte| *byte == b'\n').next().and_then(|line| str::from_utf8(line).ok());
        let origin = keys.first().map(|key| key.name()).or(first).unwrap_or_default();
        match read_checkpoint(&text, origin, &keys) {
            Ok(Brought::Valid { head, signed }) => {
                heads.push(head);
                if !signed {
                    report.note(format!(
                        "\"{}\" of \"{origin}\" was not held against a key: give --vkey, or trust where you kept it",
                        file.display()
                    ));
                }
            }
            Ok(Brought::Refused(finding)) => report.finding(None, &finding),
            Err(error) => return Err(Failure::Checkpoint(file.clone(), error)),
        }
    }
    Ok(heads)
}

/// What was read.
#[derive(Default)]
struct Log {
    verifier: LogVerifier,
    with_hash: u64,
    seals: BTreeMap<Uuid, Vec<StoredSeal>>,
    given_seals: u64,
    /// The hashes of what was read from standard input, which cannot be read again.
    hashes: BTreeMap<Uuid, Hashes>,
}

fn read_log(arguments: &Arguments, report: &mut Report<'_>) -> Result<Log, Failure> {
    let mut log = Log::default();
    for file in &arguments.files {
        let label = (arguments.files.len() > 1).then_some(file.as_path());
        let mut lines = Lines::new(open(file)?);
        while let Some(line) = lines.next().map_err(|error| Failure::Read(file.to_owned(), error))? {
            let place = Some((label, line.number));
            let (text, hash) = match line.content {
                Line::Hashed(hash, text) => (text, Some(hash)),
                Line::Bare(text) => (text, None),
            };
            if is_seal(text) {
                log.given_seals += 1;
                match read_seal(text, hash) {
                    Ok(stored) => log.seals.entry(stored.seal.ledger).or_default().push(stored),
                    Err(detail) => report.bad_seal(place, detail),
                }
            } else {
                log.with_hash += u64::from(hash.is_some());
                log.verifier.line(text, hash, &mut |finding| report.finding(place, &finding));
                if file == Path::new("-") {
                    hashes::collect(&mut log.hashes, text, hash);
                }
            }
            report.check().map_err(Failure::Write)?;
        }
    }
    if log.verifier.entries() == 0 {
        // An export that failed is empty too, and must not pass for a good log.
        return Err(Failure::Empty(arguments.files[0].clone()));
    }
    Ok(log)
}

fn read_seal(text: &[u8], hash: Option<Hash>) -> Result<StoredSeal, String> {
    let computed = Hash::of(text);
    let seal = str::from_utf8(text).map_err(|error| error.to_string()).and_then(|text| {
        // Whether the hash fits is judged with the others.
        Seal::parse(text).map_err(|error| error.to_string())
    });
    match seal {
        Ok(seal) => Ok(StoredSeal { seal, hash: hash.unwrap_or(computed) }),
        Err(error) => Err(error),
    }
}

fn verify_seals(
    arguments: &Arguments,
    log: Log,
    summary: &Summary,
    checkpoints: &[TreeHead],
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let Log { mut seals, mut hashes, given_seals, .. } = log;
    for file in arguments.files.iter().filter(|file| *file != Path::new("-")) {
        let mut lines = Lines::new(open(file)?);
        while let Some(line) = lines.next().map_err(|error| Failure::Read(file.to_owned(), error))? {
            match line.content {
                Line::Hashed(hash, text) => hashes::collect(&mut hashes, text, Some(hash)),
                Line::Bare(text) => hashes::collect(&mut hashes, text, None),
            }
        }
    }
    let ledgers = summary.heads.iter().map(|head| head.ledger);
    for ledger in ledgers {
        seals.entry(ledger).or_default();
    }
    if !checkpoints.is_empty() && seals.len() != 1 {
        return Err(Failure::Ledgers(seals.len()));
    }
    let mut sealed = 0;
    for (ledger, mut seals) in seals {
        // Stable: of two with one number, the first stays first.
        seals.sort_by_key(|stored| stored.seal.number);
        let mut entries = hashes.remove(&ledger).unwrap_or_default();
        entries.sort();
        let mut verifier = SealVerifier::new(ledger);
        for head in checkpoints {
            verifier.expect(*head).expect("no checkpoint is smaller than nothing");
        }
        let mut sink = |finding| report.finding(None, &finding);
        for stored in &seals {
            let Ok(()) = verifier.seal(stored, &mut entries, &mut sink);
        }
        let Ok(summary) = verifier.finish(&summary.heads, &mut entries, &mut sink);
        sealed += summary.entries;
        report.note(format!("ledger {ledger}: {}", summary.reach()));
        if let Some(covered) = summary.covered() {
            report.note(format!("ledger {ledger}: {covered}"));
        }
    }
    report.seals(given_seals, sealed, arguments.checkpoint.len() as u64);
    Ok(())
}

/// Why there is no verdict.
enum Failure {
    Read(PathBuf, io::Error),
    Empty(PathBuf),
    Checkpoint(PathBuf, CheckpointError),
    Names,
    Ledgers(usize),
    Write(io::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Read(file, error) => write!(f, "could not read \"{}\": {error}", file.display()),
            Failure::Empty(file) => write!(f, "there is no entry in \"{}\"", file.display()),
            Failure::Checkpoint(file, error) => write!(f, "\"{}\" is no checkpoint: {error}", file.display()),
            Failure::Names => write!(f, "the keys have different names, and a log has one"),
            Failure::Ledgers(count) => write!(f, "a checkpoint is of one ledger, and there are {count}"),
            Failure::Write(error) => write!(f, "could not write the report: {error}"),
        }
    }
}

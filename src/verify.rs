//! `audit.verify()` and `audit.findings()`: the log against itself, and the tables against the log.
//!
//! Reads only: it runs on a standby and in a read-only transaction. Everything is seen through one snapshot, so that a log and tables that are being written to
//! meanwhile still fit each other: one that is taken when all tables are locked, for to an older one a table is empty that was truncated or rewritten since. The judgement is the
//! ledger crate's; here rows are read and handed to it.
//!
//! Memory does not grow with the log: chains are followed by the ends of their runs, tables by sums of keyed hashes. Only where a table does not
//! add up are the rows in question looked at again, in batches of bounded size. Only the transactions that wrote a table are kept, as a compressed bitmap.

use std::collections::HashSet;
use std::time::Instant;

use audit_ledger::{
    Carry, Counts, Difference, DifferenceKind, Finding, Kind, Localizer, LogVerifier, Operation, RowSums, SealSummary,
    Sign, Stored, Transactions, VerifierKey, Writer, effects,
};
use pgrx::IntoDatum;
use pgrx::pg_sys::Oid;
use uuid::Uuid;

use crate::checkpoint;
use crate::coverage;
use crate::error::{self, Error};
use crate::history::{Carried, History, Landmark, Protected, Seam};
use crate::key;
use crate::log::Log;
use crate::pg::attempt::attempt;
use crate::pg::fmgr::Call;
use crate::pg::lock::try_lock_to_read;
use crate::pg::memory::Scratch;
use crate::pg::relation::{self, Lock, Relation};
use crate::pg::scan::{LatestSnapshot, TableScan, Visible};
use crate::pg::{catalog, session, xact};
use crate::reading::{self, settle, take_apart, take_apart_after, take_apart_before, verify_row};
use crate::registry::{self, Objects};
use crate::render::Table;
use crate::verify_seals::{self, Held, Leaves, Start, Subject};
use crate::{incarnation, session_cache, settings};

/// `audit.verify(checkpoint, tables, since_seal)`: one row per aspect, always the same.
pub(crate) fn verify(call: &Call) -> Result<(), Error> {
    let request = Request::read(call)?;
    let mut rows = call.rows();
    let mut counts = Counts::new();
    let outcome = run(&request, &mut |finding| counts.add(finding.kind))?;
    for kind in Kind::ALL {
        let problems = counts.get(kind);
        let (checked, detail) = outcome.of(kind);
        rows.push([
            kind.as_str().into_datum(),
            (problems == 0).into_datum(),
            (checked as i64).into_datum(),
            (problems as i64).into_datum(),
            detail.into_datum(),
        ]);
    }
    Ok(())
}

/// `audit.findings(checkpoint, tables, since_seal)`: one row per fault; none means that nothing is wrong.
pub(crate) fn findings(call: &Call) -> Result<(), Error> {
    let request = Request::read(call)?;
    let mut rows = call.rows();
    run(&request, &mut |finding| {
        rows.push([
            finding.kind.as_str().into_datum(),
            finding.relation.into_datum(),
            finding.chain.into_datum(),
            finding.seq.into_datum(),
            finding.id.into_datum(),
            finding.detail.into_datum(),
            finding.hint.into_datum(),
        ]);
    })?;
    Ok(())
}

/// What is asked for.
struct Request {
    /// A checkpoint that the auditor holds.
    checkpoint: Option<String>,
    /// Whether the rows of the tables are compared.
    tables: bool,
    /// The number of the seal behind which to begin.
    since_seal: Option<i64>,
}

impl Request {
    fn read(call: &Call) -> Result<Request, Error> {
        let checkpoint: Option<String> = call.argument(0).map(checkpoint::as_kept);
        checkpoint.as_deref().map_or(Ok(()), Held::check)?;
        Ok(Request {
            checkpoint,
            tables: call.argument(1).ok_or(Error::NullArgument { argument: "tables" })?,
            since_seal: call.argument(2),
        })
    }
}

/// How much was looked at.
#[derive(Default)]
struct Outcome {
    entries: u64,
    chains: u64,
    objects: u64,
    /// The level of the guards, and what else is worth knowing of protected tables.
    guards: String,
    tables: u64,
    rows: u64,
    /// Baselines that were held against the entries before them.
    seams: u64,
    /// Why tables were not compared.
    passed_over: Vec<String>,
    /// Rows of which it was looked at who wrote them.
    written: u64,
    /// Those of them that somebody wrote whom the log does not know, where this is no finding.
    unexplained: u64,
    /// Why it was not looked at.
    unanchored: Vec<String>,
    compared: bool,
    /// Only what follows a seal was verified.
    since: Option<i64>,
    /// `None` when there is no ledger, or its seals could not be read.
    seals: Option<SealSummary>,
    /// What to say of the checkpoint besides.
    checkpoint: Option<&'static str>,
    /// Where the ledger went on elsewhere or from an earlier state, as its INCARNATION entries say.
    resumed: Vec<String>,
}

impl Outcome {
    fn of(&self, kind: Kind) -> (u64, String) {
        match kind {
            Kind::Content => (
                self.entries,
                format!("{} compared with the hash of their line", count(self.entries, "entry", "entries")),
            ),
            Kind::Link => (
                self.entries,
                format!("{} followed to the hash of the entry before", count(self.chains, "chain", "chains")),
            ),
            Kind::Missing => (
                self.chains,
                format!(
                    "{} counted without holes, and as far as the seals count them",
                    count(self.chains, "chain", "chains")
                ),
            ),
            Kind::Order => {
                (self.entries, "ids grow along each chain, and no time goes back by more than a minute".into())
            }
            Kind::Format => (self.entries, "entries whose hash fits have the form of version 1".into()),
            Kind::Seal | Kind::Tree => self.of_seals(kind),
            Kind::Checkpoint => {
                let (checked, mut detail) = self.of_seals(kind);
                // Older checkpoints may not hold any more, and this is why.
                if !self.resumed.is_empty() {
                    detail.push_str("; the log says that the ledger went on ");
                    detail.push_str(&self.resumed.join(", "));
                }
                (checked, detail)
            }
            Kind::Coverage if self.since.is_some() => (0, "not asked for: since_seal verifies what is new".into()),
            Kind::Coverage => (
                self.objects,
                format!("triggers, functions, guards and registry compared with what the log says; {}", self.guards),
            ),
            Kind::Table if self.since.is_some() => (0, "not asked for: since_seal verifies what is new".into()),
            Kind::Table if !self.compared => (0, "not asked for".into()),
            Kind::Table => {
                let mut detail = format!(
                    "{} in {} compared with the log",
                    count(self.rows, "row", "rows"),
                    count(self.tables, "table", "tables")
                );
                if self.seams > 0 {
                    detail.push_str(&format!(
                        "; {} with the entries before",
                        count(self.seams, "later baseline", "later baselines")
                    ));
                }
                for reason in &self.passed_over {
                    detail.push_str("; ");
                    detail.push_str(reason);
                }
                (self.rows, detail)
            }
            Kind::Transaction if self.since.is_some() => (0, "not asked for: since_seal verifies what is new".into()),
            Kind::Transaction if !self.compared => (0, "not asked for".into()),
            Kind::Transaction => {
                let mut detail =
                    format!("{} asked which transaction has written them", count(self.written, "row was", "rows were"));
                if self.unexplained > 0 {
                    detail.push_str(&format!(
                        "; of {} the log does not know it, which is no finding while audit.record_unchanged is off, as an UPDATE that changes nothing leaves the same trace; set it to on to have them told",
                        self.unexplained
                    ));
                }
                for reason in &self.unanchored {
                    detail.push_str("; ");
                    detail.push_str(reason);
                }
                (self.written, detail)
            }
        }
    }

    fn of_seals(&self, kind: Kind) -> (u64, String) {
        let Some(seals) = &self.seals else { return (0, "there are no seals that could be verified".into()) };
        let (checked, detail) = match kind {
            Kind::Seal => (seals.seals, seals.reach()),
            Kind::Tree => (
                seals.entries,
                format!(
                    "{} put into a tree again, its root compared at each seal, {} compared",
                    count(seals.entries, "sealed entry", "sealed entries"),
                    count(seals.tiles, "stored tile", "stored tiles")
                ),
            ),
            _ => {
                let mut detail = match seals.covered() {
                    Some(covered) => covered,
                    None if self.checkpoint.is_some() => "the checkpoint does not vouch for this log".into(),
                    None => {
                        "none was given: only one that was kept elsewhere shows whether all was written anew".into()
                    }
                };
                if let Some(remark) = self.checkpoint.filter(|remark| !remark.is_empty()) {
                    detail.push_str("; ");
                    detail.push_str(remark);
                }
                (seals.checkpoints.len() as u64, detail)
            }
        };
        match self.since {
            Some(number) => (checked, format!("behind seal {number}: {detail}")),
            None => (checked, detail),
        }
    }
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn run(request: &Request, sink: &mut impl FnMut(Finding)) -> Result<Outcome, Error> {
    match request.since_seal {
        Some(number) => run_since(request, number, sink),
        None => run_all(request, sink),
    }
}

/// Verifies what follows a seal: the entries of each chain behind those it counted, and the seals after it.
fn run_since(request: &Request, number: i64, sink: &mut impl FnMut(Finding)) -> Result<Outcome, Error> {
    let objects = session_cache::objects()?;
    let log = Log::open(&objects)?;
    let _snapshot = LatestSnapshot::where_free();
    let ledger = registry::ledger(&objects, Visible::Statement)?.ok_or(Error::NoLedger)?;
    let start = Start::behind(&objects, ledger, &log, number)?;
    let mut progress = Progress::new();
    let mut verifier = LogVerifier::since(start.chains().iter().copied());
    let key = session::random_key();
    let mut leaves = Leaves::new(&objects, ledger, key)?;
    log.for_each_chain(|chain| {
        log.from(&ledger, chain, start.sealed(chain as u32) + 1, |entries, row| {
            progress.step("new entries verified");
            verify_row(&mut verifier, &mut leaves, entries, row, sink, None)
        })
    })?;
    settle(&mut verifier, &mut leaves, sink)?;
    let summary = verifier.finish(sink);
    let mut outcome = Outcome {
        entries: summary.entries,
        chains: summary.heads.len() as u64,
        since: Some(number),
        checkpoint: request.checkpoint.as_ref().map(|_| "its signature is looked at only without since_seal"),
        ..Outcome::default()
    };
    let subject = Subject { objects: &objects, log: &log, ledger, heads: &summary.heads, start: Some(start) };
    let origin = key::origin(&ledger);
    let held = request.checkpoint.as_deref().map(|text| Held { text, origin: &origin, keys: &[] });
    let mut step = || progress.step("sealed entries put into the tree");
    let leaves = leaves.map(Leaves::into_sum);
    let leaves = leaves.as_ref().map(|leaves| (leaves, key));
    outcome.seals = verify_seals::verify(&subject, leaves, held.as_ref(), &mut step, sink)?;
    Ok(outcome)
}

fn run_all(request: &Request, sink: &mut impl FnMut(Finding)) -> Result<Outcome, Error> {
    let objects = session_cache::objects()?;
    let log = Log::open(&objects)?;
    let mut progress = Progress::new();
    // Which entries tell of which table must be known before they are read; without tables one reading is enough.
    let locked = lock_registered(&objects)?;
    let (snapshot, survey) = if request.tables {
        let (snapshot, survey) = survey_locked(&objects, &log, locked, &mut progress, sink)?;
        (snapshot, Some(survey))
    } else {
        (LatestSnapshot::where_free(), None)
    };
    let mut outcome = Outcome { compared: request.tables, ..Outcome::default() };
    let (mut candidates, seams) = match &survey {
        Some(Survey { history, .. }) => {
            let registrations = registry::all(&objects, Visible::Statement)?;
            (
                candidates(&objects, history, &registrations, snapshot.is_some(), &mut outcome)?,
                readable_seams(&objects, history, &registrations)?,
            )
        }
        None => (Vec::new(), Vec::new()),
    };
    let (row_key, leaf_key) = (session::random_key(), session::random_key());
    let buckets = bucket_count(candidates.iter().flatten().count() + seams.iter().flatten().count());
    let ledger = registry::ledger(&objects, Visible::Statement)?;
    let wanted = reading::Request {
        outlines: false,
        landmarks: survey.is_none(),
        leaves: ledger.map(|ledger| (ledger.as_u128(), leaf_key)),
        tables: survey.as_ref().and_then(|survey| {
            Some(reading::Tables {
                ledger: survey.ledger?.as_u128(),
                key: row_key,
                buckets,
                spans: survey.history.spans.clone(),
                columns: candidates.iter().map(|candidate| Some(candidate.as_ref()?.columns.clone())).collect(),
                seams,
                anchors: survey.history.tables.iter().map(|table| table.anchor.id).collect(),
            })
        }),
    };
    let mut step = |rows| progress.steps(rows, "entries of the log verified");
    let read = reading::read(&objects, &log, &wanted, &mut step, sink)?;
    let mut sums = read.sums.into_iter();
    for ((candidate, sums), writers) in candidates.iter_mut().zip(sums.by_ref()).zip(read.writers) {
        if let Some(candidate) = candidate {
            candidate.sums = sums;
            candidate.writers = writers;
        }
    }
    let seam_sums: Vec<Option<RowSums>> = sums.collect();
    let Survey { ledger, vkeys, history } = match survey {
        Some(survey) => survey,
        None => Survey::of(&objects, read.landmarks, sink)?,
    };
    outcome.resumed = resumed(&history);
    let summary = read.verifier.finish(sink);
    outcome.entries = summary.entries;
    outcome.chains = summary.heads.len() as u64;
    if let Some(ledger) = ledger {
        let subject = Subject { objects: &objects, log: &log, ledger, heads: &summary.heads, start: None };
        let origin = key::origin(&ledger);
        let held = request.checkpoint.as_deref().map(|text| Held { text, origin: &origin, keys: &vkeys });
        outcome.checkpoint =
            held.as_ref().map(|held| if held.keys.is_empty() { "the log names no key for its signature" } else { "" });
        let mut step = || progress.step("sealed entries put into the tree");
        let leaves = read.leaves.as_ref().map(|leaves| (leaves, leaf_key));
        outcome.seals = verify_seals::verify(&subject, leaves, held.as_ref(), &mut step, sink)?;
    } else if request.checkpoint.is_some() {
        sink(no_ledger_to_vouch_for());
    }
    outcome.objects = coverage::check(&objects, &history, sink)?;
    outcome.guards = coverage::remarks(&objects, &history)?;
    let comparison = Comparison {
        log: &log,
        history: &history,
        key: row_key,
        buckets,
        next_xid: xact::next_transaction(),
        is_live: registry::is_live(&objects)?,
    };
    for (seam, sums) in seam_sums.iter().enumerate() {
        if let Some(sums) = sums {
            outcome.seams += 1;
            comparison.compare_seam(seam, sums, &mut progress, sink)?;
        }
    }
    for (index, candidate) in candidates.iter_mut().enumerate() {
        if let Some(candidate) = candidate {
            outcome.tables += 1;
            outcome.rows += comparison.compare(index, candidate, &mut outcome, &mut progress, sink)?;
        }
    }
    Ok(outcome)
}

/// Most INCARNATION entries that a verdict names: the last ones.
const RESUMPTIONS: usize = 5;

fn resumed(history: &History) -> Vec<String> {
    let all = &history.resumptions;
    let mut words: Vec<String> = all[all.len().saturating_sub(RESUMPTIONS)..]
        .iter()
        .map(|resumption| {
            let why = resumption.details.as_ref().map_or_else(|| "unreadable".to_owned(), incarnation::in_words);
            format!("at entry {} of chain {} ({why})", resumption.seq, resumption.chain)
        })
        .collect();
    if all.len() > RESUMPTIONS {
        words.insert(0, format!("{} times before", all.len() - RESUMPTIONS));
    }
    words
}

/// Memory for sums of all tables together, in buckets; and least and most buckets of one table.
const ALL_BUCKETS: usize = 1 << 20;
const MIN_BUCKETS: usize = 1 << 6;
const MAX_BUCKETS: usize = 1 << 12;

fn bucket_count(tables: usize) -> usize {
    let share = (ALL_BUCKETS / tables.max(1)).clamp(MIN_BUCKETS, MAX_BUCKETS);
    1 << share.ilog2()
}

/// Bytes of rows in question that are held at once.
const BATCH_BYTES: u64 = 64 << 20;

/// A protected table whose live rows are compared with the log.
struct Candidate {
    relation: Relation,
    table: Table,
    /// Columns that are recorded and exist: a column that was dropped since is not compared.
    columns: HashSet<String>,
    sums: Option<RowSums>,
    /// Who wrote its rows, as its entries say.
    writers: Transactions,
}

/// What the log says of tables as a whole, and the snapshot of the verdict where it is one of its own: taken when all of them were locked.
fn survey_locked(
    objects: &Objects,
    log: &Log,
    mut locked: HashSet<Oid>,
    progress: &mut Progress,
    sink: &mut impl FnMut(Finding),
) -> Result<(Option<LatestSnapshot>, Survey), Error> {
    loop {
        let snapshot = LatestSnapshot::where_free();
        let mut step = |rows| progress.steps(rows, "entries searched for protected tables");
        let landmarks = reading::read(objects, log, &reading::Request::landmarks(), &mut step, sink)?.landmarks;
        let mut found = Vec::new();
        let survey = Survey::of(objects, landmarks, &mut |finding| found.push(finding))?;
        let registrations = registry::all(objects, Visible::Statement)?;
        let mut is_complete = true;
        for table in &survey.history.tables {
            let oid = coverage::present_oid(objects, table, &registrations)?;
            if locked.insert(oid) {
                lock_to_read(oid);
                is_complete = false;
            }
        }
        // Tables that the registry does not name, or that came under protection meanwhile, need another snapshot; where there is none to be had, they are looked at as they are.
        if is_complete || snapshot.is_none() {
            found.into_iter().for_each(sink);
            return Ok((snapshot, survey));
        }
    }
}

/// Locks all tables that are registered now; gives their object ids.
fn lock_registered(objects: &Objects) -> Result<HashSet<Oid>, Error> {
    let tables: Vec<Oid> =
        registry::all(objects, Visible::Now)?.iter().map(|registration| registration.relation).collect();
    tables.iter().copied().for_each(lock_to_read);
    Ok(tables.into_iter().collect())
}

/// Locks a table as a reader does; says so where it has to wait.
fn lock_to_read(table: Oid) {
    if !try_lock_to_read(table) {
        error::notice(format!(
            "verification waits for {}, which another transaction has locked against readers",
            session_cache::display_name(table)
        ));
    }
    drop(Relation::try_open(table, Lock::AccessShare));
}

/// The tables whose live rows can be compared, by index into the history. `is_fresh`: the snapshot was taken when they were locked.
fn candidates(
    objects: &Objects,
    history: &History,
    registrations: &[registry::Registration],
    is_fresh: bool,
    outcome: &mut Outcome,
) -> Result<Vec<Option<Candidate>>, Error> {
    let mut candidates = Vec::with_capacity(history.tables.len());
    for table in &history.tables {
        let oid = coverage::present_oid(objects, table, registrations)?;
        let registration = registrations.iter().find(|registration| registration.protect_id == table.protect_id);
        let candidate = candidate(table, oid, registration, outcome);
        candidates.push(candidate.filter(|candidate| is_fresh || has_its_rows(table, &candidate.relation, outcome)));
    }
    Ok(candidates)
}

fn candidate(
    table: &Protected,
    oid: Oid,
    registration: Option<&registry::Registration>,
    outcome: &mut Outcome,
) -> Option<Candidate> {
    let details = table.details.as_ref()?;
    if details.kind != 'r' {
        return None;
    }
    if !details.baseline {
        outcome.passed_over.push(format!("{} not compared, as it was protected without baseline", table.display()));
        return None;
    }
    // A table that is gone is told by coverage.
    let relation = Relation::try_open(oid, Lock::AccessShare)?;
    if relation.kind() != 'r' {
        return None;
    }
    if !relation::may_select(oid) {
        outcome.passed_over.push(format!("{} not compared, for want of the right to read it", table.display()));
        return None;
    }
    if !coverage::has_agreed_shape(table, registration, &relation) {
        outcome.passed_over.push(format!("{} not compared, as its columns changed", table.display()));
        return None;
    }
    let excluded =
        registration.map_or_else(|| details.exclude.clone(), |registration| registration.excluded_today(&relation));
    let table = Table::new(&relation, &excluded, details.images == "full");
    let columns = table.column_names().map(str::to_owned).collect();
    Some(Candidate { relation, table, columns, sums: None, writers: Transactions::new() })
}

/// The seams that can be told of: of tables that the caller may read.
fn readable_seams(
    objects: &Objects,
    history: &History,
    registrations: &[registry::Registration],
) -> Result<Vec<Option<Carried>>, Error> {
    let mut seams = Vec::with_capacity(history.seams.len());
    for seam in &history.seams {
        let oid = coverage::present_oid(objects, &history.tables[seam.table], registrations)?;
        let is_readable = Relation::try_open(oid, Lock::AccessShare).is_some() && relation::may_select(oid);
        seams.push(is_readable.then(|| seam.carried.clone()));
    }
    Ok(seams)
}

/// Whether a snapshot that is older than our lock still sees the rows of a table: not when it was emptied or written anew in between. A transaction that begins later sees them.
fn has_its_rows(table: &Protected, relation: &Relation, outcome: &mut Outcome) -> bool {
    let has = catalog::file_in_snapshot(relation.oid()).is_none_or(|file| file == relation.file());
    if !has {
        outcome.passed_over.push(format!(
            "{} not compared, as it was emptied or rewritten after the snapshot of this transaction",
            table.display()
        ));
    }
    has
}

/// What an entry is about.
#[derive(Clone, Copy)]
struct Outline {
    operation: Operation,
    id: i64,
    table_oid: u32,
}

/// The comparison of tables with the log, after the log was read once.
struct Comparison<'a> {
    log: &'a Log,
    history: &'a History,
    key: [u8; 16],
    buckets: usize,
    /// Full id of the next transaction: none of the rows was written by it.
    next_xid: u64,
    /// Whether this database has written to the ledger: if not, it was restored from a dump, and its rows were all written by the restore.
    is_live: bool,
}

impl Comparison<'_> {
    /// Takes the live rows of a table from what the log says of it, and tells what remains. Gives the number of rows.
    fn compare(
        &self,
        index: usize,
        candidate: &mut Candidate,
        outcome: &mut Outcome,
        progress: &mut Progress,
        sink: &mut impl FnMut(Finding),
    ) -> Result<u64, Error> {
        let mut sums = candidate.sums.take().expect("made for all candidates");
        let relation = self.history.tables[index].display();
        let mut rows = 0;
        let mut writers = self.writers(index, candidate);
        let result = live_rows(candidate, &mut |sign, row, value| sums.add(sign, row, value), |writer, row| {
            rows += 1;
            progress.step("live rows compared");
            if let Some(writers) = &mut writers {
                writers.look_at(writer, row, &relation, sink);
            }
        });
        self.sum_up(index, writers, outcome, sink);
        if let Err(message) = result {
            sink(unreadable(&relation, &message));
            return Ok(rows);
        }
        if sums.is_balanced() {
            return Ok(rows);
        }
        for batch in sums.batches(BATCH_BYTES) {
            let mut localizer = Localizer::new(self.key, self.buckets, &batch);
            self.read_again(progress, |outline, stored| {
                if self.history.spans.table_of(outline.table_oid, outline.id) == Some(index)
                    && let Some(stored) = stored()
                {
                    take_apart(outline.operation, &stored, &candidate.columns, |sign, row, value| {
                        localizer.add(sign, row, value);
                    });
                }
            })?;
            let result = live_rows(candidate, &mut |sign, row, value| localizer.add(sign, row, value), |_, _| {
                progress.step("live rows read again")
            });
            if let Err(message) = result {
                sink(unreadable(&relation, &message));
                return Ok(rows);
            }
            for difference in localizer.finish() {
                sink(table_finding(&relation, &candidate.table, &difference));
            }
        }
        Ok(rows)
    }

    /// Tells where a baseline does not say what the entries before it say. Both are in the log, whose reading they come from.
    fn compare_seam(
        &self,
        index: usize,
        sums: &RowSums,
        progress: &mut Progress,
        sink: &mut impl FnMut(Finding),
    ) -> Result<(), Error> {
        let seam = &self.history.seams[index];
        let carry = seam.carried.carry();
        let account = self.history.tables.len() + index;
        for batch in sums.batches(BATCH_BYTES) {
            let mut localizer = Localizer::new(self.key, self.buckets, &batch);
            self.read_again(progress, |Outline { operation, id, table_oid }, stored| {
                let spans = &self.history.spans;
                let is_before = spans.table_of(table_oid, id) == Some(account);
                let is_after = operation == Operation::Baseline && spans.seam_before(table_oid, id) == Some(account);
                if (is_before || is_after)
                    && let Some(stored) = stored()
                {
                    let mut add = |sign: Sign, row: &str, value: Option<(&str, &str)>| localizer.add(sign, row, value);
                    if is_before {
                        take_apart_before(operation, &stored, &carry, &mut add);
                    }
                    if is_after {
                        take_apart_after(&stored, &carry, &mut add);
                    }
                }
            })?;
            for difference in localizer.finish() {
                sink(seam_finding(&self.history.tables[seam.table], seam, &carry, &difference));
            }
        }
        Ok(())
    }

    /// Reads the log once more, to find the faulty rows: shows what each entry is about, and the entry itself to whoever asks for it.
    fn read_again(
        &self,
        progress: &mut Progress,
        mut look: impl for<'a> FnMut(Outline, &(dyn Fn() -> Option<Stored<'a>> + 'a)),
    ) -> Result<(), Error> {
        self.log.scan(|entries, row| {
            progress.step("entries read again to find the faulty rows");
            if let (Some(operation), id, table_oid) = entries.outline(row) {
                look(Outline { operation, id, table_oid }, &|| entries.read(row).ok());
            }
            Ok(())
        })
    }

    /// What the rows of a table are held against; `None` where nothing can be said of them.
    fn writers<'a>(&self, index: usize, candidate: &'a Candidate) -> Option<Writers<'a>> {
        let anchor = self.history.tables[index].anchor.next_xid?;
        self.is_live.then(|| Writers {
            known: &candidate.writers,
            anchor,
            next_xid: self.next_xid,
            strict: settings::record_unchanged(),
            rows: 0,
            unknown: 0,
            unwritten: false,
        })
    }

    /// Adds what came of [`Comparison::writers`].
    fn sum_up(
        &self,
        index: usize,
        writers: Option<Writers<'_>>,
        outcome: &mut Outcome,
        sink: &mut impl FnMut(Finding),
    ) {
        let relation = self.history.tables[index].display();
        let Some(writers) = writers else {
            outcome.unanchored.push(match self.is_live {
                true => {
                    format!("{relation} not asked, as the log does not say from which transaction on it knows them")
                }
                false => format!("{relation} not asked, as the database was restored and has not written yet"),
            });
            return;
        };
        outcome.written += writers.rows;
        if writers.unwritten {
            outcome.unanchored.push(format!("{relation} does not say it, as it is not stored as a heap"));
        }
        if !writers.strict {
            outcome.unexplained += writers.unknown;
        } else if let Some(more) = writers.unknown.checked_sub(MOST_STRANGERS).filter(|more| *more > 0) {
            sink(transaction_finding(
                &relation,
                format!(
                    "{} written by transactions of which the log knows nothing",
                    count(more, "more row was", "more rows were")
                ),
            ));
        }
    }
}

/// Rows of one table that are named because of who wrote them; any more are counted.
const MOST_STRANGERS: u64 = 1000;

/// Whether the log knows who wrote the rows of a table.
struct Writers<'a> {
    known: &'a Transactions,
    anchor: u64,
    next_xid: u64,
    /// Whether every UPDATE leaves an entry, also one that changes nothing.
    strict: bool,
    rows: u64,
    unknown: u64,
    /// There are rows that do not say who wrote them.
    unwritten: bool,
}

impl Writers<'_> {
    fn look_at(&mut self, writer: Option<Writer>, row: &str, relation: &str, sink: &mut impl FnMut(Finding)) {
        let Some(writer) = writer else {
            self.unwritten = true;
            return;
        };
        self.rows += 1;
        if self.known.has_written(writer, self.anchor, self.next_xid) {
            return;
        }
        self.unknown += 1;
        if self.strict && self.unknown <= MOST_STRANGERS {
            let (row, xmin) = (shorten(row), writer.id);
            sink(transaction_finding(
                relation,
                format!(
                    "row {row} was written by transaction {xmin} (xmin), of which the log has no entry about the table"
                ),
            ));
        }
    }
}

fn transaction_finding(relation: &str, detail: String) -> Finding {
    Finding {
        kind: Kind::Transaction,
        hint: "The row was changed without its triggers, and maybe changed back; or an entry of it was removed. An UPDATE that changed nothing while audit.record_unchanged was off leaves the same trace: audit.unprotect() and audit.protect() take a new baseline, from which on it counts anew.".into(),
        ..table_fault(relation, detail, "")
    }
}

/// A table whose rows cannot be read is a fault of that table, and must not hide those of others.
fn unreadable(relation: &str, message: &str) -> Finding {
    table_fault(
        relation,
        format!("its rows could not be read: {message}"),
        "The table could not be compared with the log. Look for damage in the table or in the catalogs of its types.",
    )
}

/// Takes each live row apart and hands its elements to `add`, and to `each` who wrote it, and its key or, without one, its whole text; an error of the server becomes its message.
fn live_rows(
    candidate: &Candidate,
    add: &mut impl FnMut(Sign, &str, Option<(&str, &str)>),
    mut each: impl FnMut(Option<Writer>, &str),
) -> Result<(), String> {
    let Candidate { relation, table, .. } = candidate;
    attempt(|| {
        let scratch = Scratch::new();
        let (mut key, mut new) = (Vec::new(), Vec::new());
        let mut scan = TableScan::new(relation, Visible::Statement);
        while let Some((row, writer)) = scan.next_written(relation.width()) {
            key.clear();
            new.clear();
            scratch
                .within(|| {
                    let _pinned = table.pin();
                    table.write_key(&row, &mut key)?;
                    table.write_row(&row, &mut new)
                })
                .map_err(|error| error.to_string())?;
            scratch.reset();
            let (key, new) = (String::from_utf8_lossy(&key), String::from_utf8_lossy(&new));
            let key = (!key.is_empty()).then_some(&*key);
            each(writer, key.unwrap_or(&new));
            effects(Operation::Delete, key, Some(&new), None, add).map_err(|error| error.to_string())?;
        }
        Ok(())
    })
    .unwrap_or_else(Err)
}

fn table_finding(relation: &str, table: &Table, difference: &Difference) -> Finding {
    let row = shorten(&difference.row);
    let (detail, hint) = match &difference.what {
        // Equal rows without a key cannot be told apart, only counted.
        DifferenceKind::Missing if !table.has_key() => (
            format!("row {row} is in the log {} more than in the table", count(difference.count, "time", "times")),
            "The row was deleted or changed without its triggers, or an entry of it was removed.",
        ),
        DifferenceKind::Extra if !table.has_key() => (
            format!("row {row} is in the table {} more than in the log", count(difference.count, "time", "times")),
            "The row was inserted or changed without its triggers, or an entry of it was removed.",
        ),
        DifferenceKind::Missing => (
            format!("row {row} is in the log, but not in the table"),
            "The row was deleted, or its key changed, without its triggers; or an entry of it was removed.",
        ),
        DifferenceKind::Extra => (
            format!("row {row} is in the table, but not in the log"),
            "The row was inserted, or its key changed, without its triggers; or an entry of it was removed.",
        ),
        DifferenceKind::Value { column, expected, found } => (
            format!("row {row}: column \"{column}\" is {}, the log says {}", values(found), values(expected)),
            "The row was changed without its triggers, or an entry of it was changed or removed.",
        ),
    };
    table_fault(relation, detail, hint)
}

fn seam_finding(table: &Protected, seam: &Seam, carry: &Carry, difference: &Difference) -> Finding {
    let row = shorten(&difference.row);
    let times = count(difference.count, "time", "times");
    let detail = match &difference.what {
        what @ (DifferenceKind::Missing | DifferenceKind::Extra) if !carry.tells_rows_apart() => {
            let rows = count(difference.count, "row", "rows");
            let than = if matches!(what, DifferenceKind::Missing) { "less" } else { "more" };
            format!("the baseline after this entry has {rows} {than} than the entries before it")
        }
        DifferenceKind::Missing => {
            format!("row {row} is in the entries before this one {times} more than in the baseline after it")
        }
        DifferenceKind::Extra => {
            format!("row {row} is in the baseline after this entry {times} more than in the entries before it")
        }
        DifferenceKind::Value { column, expected, found } => format!(
            "row {row}: column \"{column}\" is {} in the baseline after this entry, the entries before it say {}",
            values(found),
            values(expected)
        ),
    };
    Finding {
        chain: Some(seam.place.chain),
        seq: Some(seam.place.seq),
        id: Some(seam.place.id),
        ..table_fault(
            &table.display(),
            detail,
            "The row was changed without its triggers before the table was redefined, as the DDL entry before this one tells, or an entry of it was changed or removed.",
        )
    }
}

fn table_fault(relation: &str, detail: String, hint: &str) -> Finding {
    Finding {
        kind: Kind::Table,
        relation: Some(relation.to_owned()),
        chain: None,
        seq: None,
        id: None,
        detail,
        hint: hint.into(),
    }
}

fn values(values: &[String]) -> String {
    if values.is_empty() {
        return "null".into();
    }
    values.iter().map(|value| shorten(value)).collect::<Vec<_>>().join(" and ")
}

/// Most characters of a value that a finding shows.
const SHOWN: usize = 200;

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What the entries about tables as a whole say.
struct Survey {
    ledger: Option<Uuid>,
    /// The keys that the log says its checkpoints were signed with.
    vkeys: Vec<VerifierKey>,
    history: History,
}

impl Survey {
    fn of(objects: &Objects, mut landmarks: Vec<Landmark>, sink: &mut impl FnMut(Finding)) -> Result<Survey, Error> {
        // Several readers give them in any order.
        landmarks.sort_by_key(|landmark| (landmark.id, landmark.chain, landmark.seq));
        let ledger = match registry::ledger(objects, Visible::Statement)? {
            Some(ledger) => Some(ledger),
            None => lost_ledger(&landmarks, sink),
        };
        let vkeys = recorded_keys(ledger, &landmarks);
        let history = ledger.map(|ledger| History::of(ledger, &mut landmarks)).unwrap_or_default();
        Ok(Survey { ledger, vkeys, history })
    }
}

fn recorded_keys(ledger: Option<Uuid>, landmarks: &[Landmark]) -> Vec<VerifierKey> {
    let of_ledger = landmarks.iter().filter(|landmark| Some(landmark.ledger) == ledger);
    of_ledger
        .filter(|landmark| landmark.operation == Operation::Key)
        .filter_map(|landmark| key::recorded(landmark.new.as_deref()?))
        .collect()
}

fn no_ledger_to_vouch_for() -> Finding {
    Finding {
        kind: Kind::Checkpoint,
        relation: None,
        chain: None,
        seq: None,
        id: None,
        detail: "there is a checkpoint, but neither a ledger nor an entry in this database".into(),
        hint: "The log was emptied, or this is not the database that the checkpoint is of.".into(),
    }
}

/// The ledger of the log when the table that names it is empty, which is a finding if there are entries.
fn lost_ledger(landmarks: &[Landmark], sink: &mut impl FnMut(Finding)) -> Option<Uuid> {
    let ledger = landmarks.first()?.ledger;
    sink(Finding {
        kind: Kind::Coverage,
        relation: Some("audit.ledger".into()),
        chain: None,
        seq: None,
        id: None,
        detail: format!("the table is empty, though the log has entries of ledger {ledger}"),
        hint: "The table was changed. No change of a protected table can be recorded until it is put right.".into(),
    });
    Some(ledger)
}

/// Notices of how far a long verification is.
struct Progress {
    interval: Option<std::time::Duration>,
    last: Instant,
    what: &'static str,
    steps: u64,
}

/// Steps between two looks at the clock.
const STRIDE: u64 = 4096;

impl Progress {
    fn new() -> Progress {
        Progress { interval: settings::progress_interval(), last: Instant::now(), what: "", steps: 0 }
    }

    fn step(&mut self, what: &'static str) {
        self.steps(1, what);
    }

    fn steps(&mut self, steps: u64, what: &'static str) {
        if self.what != what {
            self.what = what;
            self.steps = 0;
        }
        let before = self.steps / STRIDE;
        self.steps += steps;
        if self.steps / STRIDE > before
            && let Some(interval) = self.interval
            && self.last.elapsed() >= interval
        {
            self.last = Instant::now();
            error::notice(format!("{} {what} so far", self.steps));
        }
    }
}

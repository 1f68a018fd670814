//! Reading the whole log once, from end to end: by this process alone, or together with parallel workers.
//!
//! A reader takes the entries that come to him, in any order, and what he makes of them can be put together with what other readers have made of theirs: stretches of chains (`links`), sums of leaves
//! (`leaf_sum`) and of rows (`reconcile`), transactions that wrote them (`transactions`), entries about tables as a whole, and findings. So it does not matter who has read what, and one who reads alone is the same reader.
//!
//! Workers send what they have every so many rows, so that nobody keeps much. Where parts do not fit together, or there is more to tell than can be held, the log is read again by this process
//! alone: it finds all faults, in the order in which the entries lie.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::ControlFlow;

use audit_ledger::{
    BucketTotal, Carry, Finding, Hash, Kind, LeafSum, Link, LogVerifier, Operation, Part, RowSums, Sign, Stored,
    Stretch, Timestamp, Transactions, effects,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{self, Error};
use crate::history::{Carried, Landmark, Spans};
use crate::log::{Entries, Log, Place};
use crate::pg::parallel::{Member, Team};
use crate::pg::scan::Row;
use crate::registry::Objects;
use crate::session_cache;
use crate::verify_seals::Leaves;

/// What the readers are to look at; told to workers as JSON.
#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    /// Only entries about tables as a whole are looked for, and nothing is verified.
    pub(crate) outlines: bool,
    /// Whether such entries are collected.
    pub(crate) landmarks: bool,
    /// The ledger whose sealed leaves are added up, and the key of their sum.
    pub(crate) leaves: Option<(u128, [u8; 16])>,
    /// The tables whose rows are added up.
    pub(crate) tables: Option<Tables>,
}

impl Request {
    /// To find the entries about tables as a whole.
    pub(crate) fn landmarks() -> Request {
        Request { outlines: true, landmarks: true, leaves: None, tables: None }
    }
}

/// The tables whose rows are added up, and which entries tell of them.
#[derive(Serialize, Deserialize)]
pub(crate) struct Tables {
    pub(crate) ledger: u128,
    pub(crate) key: [u8; 16],
    pub(crate) buckets: usize,
    pub(crate) spans: Spans,
    /// Of each table, the columns that are compared; `None` for a table that is not.
    pub(crate) columns: Vec<Option<HashSet<String>>>,
    /// Of each seam, what was carried over it; `None` for one that is not looked at.
    pub(crate) seams: Vec<Option<Carried>>,
    /// Of each table, the id behind which entries tell who wrote its rows.
    pub(crate) anchors: Vec<i64>,
}

/// What all readers together have made of the log.
pub(crate) struct Reading {
    pub(crate) verifier: LogVerifier,
    /// `None` where nobody asked, or an entry could not be read.
    pub(crate) leaves: Option<LeafSum>,
    /// Of each table of the request, what its entries come to; then of each seam, what those before and behind it come to.
    pub(crate) sums: Vec<Option<RowSums>>,
    /// Of each table of the request, who wrote its rows, as its entries say.
    pub(crate) writers: Vec<Transactions>,
    pub(crate) landmarks: Vec<Landmark>,
}

/// Reads the whole log. `step` is told how many rows were read since it was called last.
pub(crate) fn read(
    objects: &Objects,
    log: &Log,
    request: &Request,
    step: &mut impl FnMut(u64),
    sink: &mut impl FnMut(Finding),
) -> Result<Reading, Error> {
    if let Some(reading) = read_together(objects, log, request, step, sink)? {
        return Ok(reading);
    }
    let mut reader = Reader::new(objects, request)?;
    let mut visit = |entries: &Entries, row: &Row<'_>| {
        step(1);
        reader.row(entries, row, sink)
    };
    if request.outlines { log.scan_outlines(&mut visit) } else { log.scan(&mut visit) }?;
    reader.settle(sink)?;
    Ok(reader.into_reading())
}

/// Rows between two messages of a worker, and two looks of the leader.
const STRIDE: u64 = 1 << 14;

/// Findings that are held until all is read, to be told in the order of their places.
const MAX_HELD: usize = 10_000;

/// Reads the log with workers. `None` when there are none to be had, or their parts cannot be put together; then nothing was told.
fn read_together(
    objects: &Objects,
    log: &Log,
    request: &Request,
    step: &mut impl FnMut(u64),
    sink: &mut impl FnMut(Finding),
) -> Result<Option<Reading>, Error> {
    let message = encode(request);
    let Some(mut team) = Team::launch(log.relation(), &message) else { return Ok(None) };
    error::debug(format!("the log is read with {} parallel workers", team.workers()));
    let mut whole = Whole::new(request);
    let mut reader = Reader::new(objects, request)?;
    let mut rows = 0;
    let mut found = Vec::new();
    log.scan_share(team.scan(), request.outlines, |entries, row| {
        rows += 1;
        reader.row(entries, row, &mut |finding| found.push(finding))?;
        if rows < STRIDE && found.len() < MAX_HELD {
            return Ok(ControlFlow::Continue(()));
        }
        step(rows);
        rows = 0;
        whole.add(reader.message(&mut found, 0, false)?);
        while let Some(message) = team.received() {
            whole.receive(&message, step);
        }
        Ok(if whole.failed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    step(rows);
    whole.add(reader.message(&mut found, 0, true)?);
    while !whole.failed
        && let Some(message) = team.next()
    {
        whole.receive(&message, step);
    }
    if whole.failed {
        // Ends the workers.
        drop(team);
        error::debug(
            "the parts of the log do not fit together, or have too many faults: it is read again by one process".into(),
        );
        return Ok(None);
    }
    team.finish();
    let Whole { reading, mut findings, .. } = whole;
    findings.sort_by(|a, b| (a.chain, a.seq, a.kind, &a.detail).cmp(&(b.chain, b.seq, b.kind, &b.detail)));
    findings.into_iter().for_each(sink);
    Ok(Some(reading))
}

/// What a worker does.
pub(crate) fn take_part(member: &Member<'_>) -> Result<(), Error> {
    let request: Request = decode(member.request());
    let objects = session_cache::objects()?;
    let log = Log::open(&objects)?;
    let mut reader = Reader::new(&objects, &request)?;
    let mut rows = 0;
    let mut found = Vec::new();
    let send = |message: Message| member.send(&encode(&message));
    log.scan_share(member.scan(log.relation()), request.outlines, |entries, row| {
        rows += 1;
        reader.row(entries, row, &mut |finding| found.push(finding))?;
        if rows < STRIDE && found.len() < MAX_HELD {
            return Ok(ControlFlow::Continue(()));
        }
        let listens = send(reader.message(&mut found, std::mem::take(&mut rows), false)?);
        Ok(if listens { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    send(reader.message(&mut found, rows, true)?);
    Ok(())
}

/// What the parts come to, as the leader puts them together.
struct Whole {
    reading: Reading,
    findings: Vec<Finding>,
    /// The parts do not fit together, or there are more findings than can be held.
    failed: bool,
}

impl Whole {
    fn new(request: &Request) -> Whole {
        let reading = Reading {
            verifier: LogVerifier::new(),
            leaves: request.leaves.map(|(_, key)| LeafSum::new(key)),
            sums: request.tables.as_ref().map(Tables::empty_sums).unwrap_or_default(),
            writers: request.tables.as_ref().map(Tables::no_writers).unwrap_or_default(),
            landmarks: Vec::new(),
        };
        Whole { reading, findings: Vec::new(), failed: false }
    }

    fn receive(&mut self, message: &[u8], step: &mut impl FnMut(u64)) {
        let message: Message = decode(message);
        step(message.rows);
        self.add(message);
    }

    fn add(&mut self, message: Message) {
        let Whole { reading, findings, failed } = self;
        let Message { entries, stretches, findings: found, landmarks, end, .. } = message;
        findings.extend(found.into_iter().map(SentFinding::receive));
        let stretches: Vec<Stretch> = stretches.into_iter().map(SentStretch::receive).collect();
        if reading.verifier.add(&Part { entries, stretches }, &mut |finding| findings.push(finding)).is_err() {
            *failed = true;
        }
        *failed |= findings.len() > MAX_HELD;
        reading.landmarks.extend(landmarks.into_iter().map(SentLandmark::receive));
        let Some(End { leaves, sums, writers }) = end else { return };
        match (&mut reading.leaves, leaves) {
            (Some(whole), Some(part)) => whole.add_total(part),
            (whole, _) => *whole = None,
        }
        for (table, rows, totals) in sums {
            if let Some(Some(whole)) = reading.sums.get_mut(table) {
                let totals = totals.into_iter().map(|(place, sum, weight)| BucketTotal { place, sum, weight });
                whole.add_totals(totals, rows);
            }
        }
        for (whole, part) in reading.writers.iter_mut().zip(writers) {
            whole.add_all(&Transactions::from_bytes(&part).expect("leader and workers are of one library"));
        }
    }
}

impl Tables {
    fn empty_sums(&self) -> Vec<Option<RowSums>> {
        let tables = self.columns.iter().map(Option::is_some);
        let wanted = tables.chain(self.seams.iter().map(Option::is_some));
        wanted.map(|is_wanted| is_wanted.then(|| RowSums::new(self.key, self.buckets))).collect()
    }

    fn carries(&self) -> Vec<Option<Carry>> {
        self.seams.iter().map(|carried| carried.as_ref().map(Carried::carry)).collect()
    }

    fn no_writers(&self) -> Vec<Transactions> {
        vec![Transactions::new(); self.columns.len()]
    }
}

/// One who reads.
struct Reader<'a> {
    request: &'a Request,
    verifier: LogVerifier,
    leaves: Option<Leaves>,
    sums: Vec<Option<RowSums>>,
    /// Of the tables of the request, what is carried over each seam.
    carries: Vec<Option<Carry>>,
    writers: Vec<Transactions>,
    landmarks: Vec<Landmark>,
}

impl<'a> Reader<'a> {
    fn new(objects: &Objects, request: &'a Request) -> Result<Reader<'a>, Error> {
        Ok(Reader {
            request,
            verifier: LogVerifier::new(),
            leaves: match request.leaves {
                Some((ledger, key)) => Leaves::new(objects, Uuid::from_u128(ledger), key)?,
                None => None,
            },
            sums: request.tables.as_ref().map(Tables::empty_sums).unwrap_or_default(),
            carries: request.tables.as_ref().map(Tables::carries).unwrap_or_default(),
            writers: request.tables.as_ref().map(Tables::no_writers).unwrap_or_default(),
            landmarks: Vec::new(),
        })
    }

    fn row(&mut self, entries: &Entries, row: &Row<'_>, sink: &mut impl FnMut(Finding)) -> Result<(), Error> {
        let Reader { request, verifier, leaves, sums, carries, writers, landmarks } = self;
        if request.landmarks {
            landmarks.extend(landmark(entries, row));
        }
        if request.outlines {
            return Ok(());
        }
        let Some(tables) = &request.tables else { return verify_row(verifier, leaves, entries, row, sink, None) };
        let mut add = |stored: &Stored<'_>| add_to_sums(tables, carries, sums, writers, stored);
        verify_row(verifier, leaves, entries, row, sink, Some(&mut add))
    }

    fn into_reading(self) -> Reading {
        let Reader { verifier, leaves, sums, writers, landmarks, .. } = self;
        Reading { verifier, leaves: leaves.map(Leaves::into_sum), sums, writers, landmarks }
    }

    fn settle(&mut self, sink: &mut impl FnMut(Finding)) -> Result<(), Error> {
        settle(&mut self.verifier, &mut self.leaves, sink)
    }

    /// What has come together since the last message; at the end, also what is only known then.
    fn message(&mut self, found: &mut Vec<Finding>, rows: u64, end: bool) -> Result<Message, Error> {
        self.settle(&mut |finding| found.push(finding))?;
        let Part { entries, stretches } = self.verifier.take();
        Ok(Message {
            rows,
            entries,
            stretches: stretches.iter().map(SentStretch::send).collect(),
            findings: found.drain(..).map(SentFinding::send).collect(),
            landmarks: self.landmarks.drain(..).map(SentLandmark::send).collect(),
            end: end.then(|| End {
                leaves: self.leaves.take().map(|leaves| leaves.into_sum().total()),
                sums: std::mem::take(&mut self.sums)
                    .into_iter()
                    .enumerate()
                    .filter_map(|(table, sums)| Some((table, sums?)))
                    .map(|(table, sums)| {
                        let totals = sums.totals().map(|total| (total.place, total.sum, total.weight)).collect();
                        (table, sums.rows(), totals)
                    })
                    .collect(),
                writers: std::mem::take(&mut self.writers).iter().map(Transactions::to_bytes).collect(),
            }),
        })
    }
}

/// Adds what an entry tells of the rows of its table.
fn add_to_sums(
    tables: &Tables,
    carries: &[Option<Carry>],
    sums: &mut [Option<RowSums>],
    writers: &mut [Transactions],
    stored: &Stored<'_>,
) {
    let entry = &stored.entry;
    let Some(table) = &entry.table else { return };
    if entry.ledger.as_u128() != tables.ledger {
        return;
    }
    let (oid, id) = (table.oid, entry.id as i64);
    if let Some(index) = tables.spans.table_of(oid, id)
        && let Some(Some(sums)) = sums.get_mut(index)
        && let Ok(operation) = entry.operation.parse()
    {
        let add = |sign: Sign, row: &str, value: Option<(&str, &str)>| sums.add(sign, row, value);
        match tables.columns.get(index) {
            Some(Some(columns)) => {
                // Only these two write a version of a row.
                if matches!(operation, Operation::Insert | Operation::Update) && id > tables.anchors[index] {
                    writers[index].add(entry.subxid.unwrap_or(entry.xid));
                }
                take_apart(operation, stored, columns, add);
            }
            Some(None) => {}
            None => {
                if let Some(Some(carry)) = carries.get(index - tables.columns.len()) {
                    take_apart_before(operation, stored, carry, add);
                }
            }
        }
    }
    if entry.operation == Operation::Baseline.as_str()
        && let Some(index) = tables.spans.seam_before(oid, id)
        && let Some(Some(sums)) = sums.get_mut(index)
        && let Some(Some(carry)) = carries.get(index - tables.columns.len())
    {
        take_apart_after(stored, carry, |sign, row, value| sums.add(sign, row, value));
    }
}

/// Hands the elements of an entry from before a seam to `add`.
pub(crate) fn take_apart_before(
    operation: Operation,
    stored: &Stored<'_>,
    carry: &Carry,
    mut add: impl FnMut(Sign, &str, Option<(&str, &str)>),
) {
    let entry = &stored.entry;
    let (key, old, new) = (entry.key.as_deref(), entry.old.as_deref(), entry.new.as_deref());
    // As in `take_apart`.
    let _ = carry.before(operation, key, old, new, &mut add);
}

/// Hands what an entry of the baseline behind a seam has taken over to `add`.
pub(crate) fn take_apart_after(
    stored: &Stored<'_>,
    carry: &Carry,
    mut add: impl FnMut(Sign, &str, Option<(&str, &str)>),
) {
    // As in `take_apart`.
    let _ = stored.entry.new.as_deref().map(|new| carry.after(new, &mut add));
}

/// Hands the elements of an entry to `add`, but for those of columns that are not compared.
pub(crate) fn take_apart(
    operation: Operation,
    stored: &Stored<'_>,
    columns: &HashSet<String>,
    mut add: impl FnMut(Sign, &str, Option<(&str, &str)>),
) {
    let entry = &stored.entry;
    let (key, old, new) = (entry.key.as_deref(), entry.old.as_deref(), entry.new.as_deref());
    // A text that cannot be taken apart has no effects; it is told as a finding of content or format.
    let _ = effects(operation, key, old, new, &mut |sign, row, value| {
        if value.is_none_or(|(column, _)| columns.contains(column)) {
            add(sign, row, value);
        }
    });
}

/// Verifies one row of the log. `each` is given those that can be read. A row that cannot be read leaves nothing to be added up, and then the leaves are of no use.
pub(crate) fn verify_row(
    verifier: &mut LogVerifier,
    leaves: &mut Option<Leaves>,
    entries: &Entries,
    row: &Row<'_>,
    sink: &mut impl FnMut(Finding),
    each: Option<&mut dyn FnMut(&Stored<'_>)>,
) -> Result<(), Error> {
    let mut result = Ok(());
    let mut settled = |link: &Link| add_leaf(leaves, link, &mut result);
    let taken = entries.with_raw(row, |raw| verifier.raw(raw, sink, &mut settled));
    if taken.is_none() {
        verifier.settle(sink, &mut settled);
    }
    result?;
    if taken == Some(true) {
        if let Some(each) = each
            && let Ok(stored) = entries.read(row)
        {
            each(&stored);
        }
        return Ok(());
    }
    match entries.read(row) {
        Ok(stored) => {
            verifier.entry(&stored, sink);
            if let Some(leaves) = leaves {
                leaves.add(&stored.entry.ledger, stored.entry.chain, stored.entry.seq, &stored.hash)?;
            }
            if let Some(each) = each {
                each(&stored);
            }
        }
        Err(column) => {
            *leaves = None;
            match entries.link(row) {
                Some(link) => verifier.unreadable(&link, column, entries.relation(row), sink),
                None => sink(misplaced(column, &entries.place(row))),
            }
        }
    }
    Ok(())
}

/// Settles what was read quickly: at the end, and before a part is handed out.
pub(crate) fn settle(
    verifier: &mut LogVerifier,
    leaves: &mut Option<Leaves>,
    sink: &mut impl FnMut(Finding),
) -> Result<(), Error> {
    let mut result = Ok(());
    verifier.settle(sink, &mut |link| add_leaf(leaves, link, &mut result));
    result
}

fn add_leaf(leaves: &mut Option<Leaves>, link: &Link, result: &mut Result<(), Error>) {
    if let Some(leaves) = leaves
        && let Err(error) = leaves.add(&link.ledger, link.chain, link.seq, &link.hash)
    {
        *result = Err(error);
    }
}

/// A row of the log without a valid place in any chain.
fn misplaced(column: &str, place: &Place) -> Finding {
    Finding {
        kind: Kind::Content,
        relation: None,
        chain: place.chain,
        seq: place.seq,
        id: place.id,
        detail: format!("\"{column}\" holds no valid value, so the entry has no place in a chain"),
        hint: "The entry was changed after it was written. Compare with a backup or another copy of the log.".into(),
    }
}

/// What a row says of a table as a whole, if it does.
fn landmark(entries: &Entries, row: &Row<'_>) -> Option<Landmark> {
    if entries.is_row_change(row) {
        return None;
    }
    let (operation, id, table_oid) = entries.outline(row);
    let operation = operation?;
    let details = entries.details(row)?;
    Some(Landmark {
        id,
        ledger: details.ledger,
        operation,
        table_oid,
        schema: details.schema,
        name: details.name,
        chain: details.chain,
        seq: details.seq,
        new: details.new,
    })
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("all of it can be said in JSON")
}

fn decode<'a, T: Deserialize<'a>>(message: &'a [u8]) -> T {
    serde_json::from_slice(message).expect("leader and workers are of one library")
}

/// What a worker tells the leader.
#[derive(Serialize, Deserialize)]
struct Message {
    rows: u64,
    entries: u64,
    stretches: Vec<SentStretch>,
    findings: Vec<SentFinding>,
    landmarks: Vec<SentLandmark>,
    end: Option<End>,
}

#[derive(Serialize, Deserialize)]
struct End {
    leaves: Option<(u128, u64)>,
    /// Table, rows, and its buckets.
    sums: Vec<(usize, i64, Vec<SentTotal>)>,
    /// Of each table.
    writers: Vec<Vec<u8>>,
}

/// Place, sum and weight of a bucket.
type SentTotal = (usize, u128, u64);

/// Ledger and chain; of the first entry seq, prev, id and time; of the last seq, hash, id and time.
#[derive(Serialize, Deserialize)]
struct SentStretch(u128, u32, (u64, [u8; 32], u64, Option<i64>), (u64, [u8; 32], u64, Option<i64>));

impl SentStretch {
    fn send(stretch: &Stretch) -> SentStretch {
        let Stretch { first, last } = stretch;
        let micros = |at: Option<Timestamp>| at.map(Timestamp::micros);
        SentStretch(
            first.ledger.as_u128(),
            first.chain,
            (first.seq, *first.prev.as_bytes(), first.id, micros(first.at)),
            (last.seq, *last.hash.as_bytes(), last.id, micros(last.at)),
        )
    }

    fn receive(self) -> Stretch {
        let SentStretch(ledger, chain, first, last) = self;
        let link = |seq, prev, hash, id, at: Option<i64>| Link {
            ledger: Uuid::from_u128(ledger),
            chain,
            seq,
            prev,
            hash,
            id,
            at: at.and_then(Timestamp::new),
        };
        Stretch {
            first: link(first.0, Hash::from(first.1), Hash::GENESIS, first.2, first.3),
            last: link(last.0, Hash::GENESIS, Hash::from(last.1), last.2, last.3),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct SentFinding {
    kind: Cow<'static, str>,
    relation: Option<String>,
    chain: Option<i32>,
    seq: Option<i64>,
    id: Option<i64>,
    detail: String,
    hint: String,
}

impl SentFinding {
    fn send(finding: Finding) -> SentFinding {
        let Finding { kind, relation, chain, seq, id, detail, hint } = finding;
        SentFinding { kind: kind.as_str().into(), relation, chain, seq, id, detail, hint }
    }

    fn receive(self) -> Finding {
        let SentFinding { kind, relation, chain, seq, id, detail, hint } = self;
        let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind).expect("kinds have one name each");
        Finding { kind, relation, chain, seq, id, detail, hint }
    }
}

#[derive(Serialize, Deserialize)]
struct SentLandmark {
    id: i64,
    ledger: u128,
    operation: String,
    table_oid: u32,
    schema: String,
    name: String,
    chain: i32,
    seq: i64,
    new: Option<String>,
}

impl SentLandmark {
    fn send(landmark: Landmark) -> SentLandmark {
        let Landmark { id, ledger, operation, table_oid, schema, name, chain, seq, new } = landmark;
        let (ledger, operation) = (ledger.as_u128(), operation.as_str().into());
        SentLandmark { id, ledger, operation, table_oid, schema, name, chain, seq, new }
    }

    fn receive(self) -> Landmark {
        let SentLandmark { id, ledger, operation, table_oid, schema, name, chain, seq, new } = self;
        let operation = operation.parse().expect("operations have one name each");
        Landmark { id, ledger: Uuid::from_u128(ledger), operation, table_oid, schema, name, chain, seq, new }
    }
}

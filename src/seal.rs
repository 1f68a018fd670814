//! Seals: all that was committed since the last one goes into one tree, and one row of `audit.seal` says with which root.
//!
//! A chain's committed entries are always a prefix of it, as whoever appends owns the chain to the end of his transaction. So a seal takes of each chain what follows the
//! last sealed entry, as far as it is there, and waits for nobody. What it costs is what is new: the tree goes on from its right edge, which this backend remembers or reads
//! from the tiles, and chains are found by skipping through the index of the log.
//!
//! Also the only file that knows the columns of `audit.seal` and `audit.seal_range`.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::BTreeMap;

use audit_ledger::seal::Range;
use audit_ledger::{Hash, LeafHash, NodeHash, Seal, StoredSeal, TileWriter, Timestamp, TreeHead, TreeSize};
use pgrx::{IntoDatum, pg_sys};
use uuid::Uuid;

use crate::chain::Recorder;
use crate::error::{self, Error};
use crate::log::Log;
use crate::pg::fmgr::Call;
use crate::pg::lock::{self, Target};
use crate::pg::memory::Scratch;
use crate::pg::output::Output;
use crate::pg::process::ProcessLocal;
use crate::pg::relation::{Lock, Relation};
use crate::pg::scan::{Comparison, Condition, Direction, Row, Visible, by_index};
use crate::pg::tuple::Writer;
use crate::pg::{datum, session, xact};
use crate::registry::{self, Objects};
use crate::tiles::{self, Tiles};
use crate::{incarnation, session_cache};

/// `audit.seal()`: seals what is new; gives the number of the seal, NULL when nothing is new.
pub(crate) fn seal(_call: &Call) -> Result<Option<i64>, Error> {
    let objects = session_cache::objects()?;
    // Neither a lost key nor an unreadable file stops seals; what they stop is checkpoints.
    for problem in incarnation::note_changes(&objects)? {
        error::warn(problem);
    }
    Ok(seal_now(&objects)?.map(|seal| seal.number as i64))
}

/// Seals all entries that are committed, and those of this transaction; `None` when there are none since the last seal.
///
/// Sees what is committed at this moment whatever the isolation level, and takes no part in SERIALIZABLE's bookkeeping. Holds the lock of the sealer to the end of the
/// transaction, whose commit then waits for the disk: a checkpoint must not be ahead of what a crash can take away.
pub(crate) fn seal_now(objects: &Objects) -> Result<Option<SealRow>, Error> {
    if session::is_standby() {
        return Err(Error::CannotSeal { where_: "on a standby server" });
    }
    if session::is_read_only() {
        return Err(Error::CannotSeal { where_: "in a read-only transaction" });
    }
    let Some(ledger) = registry::ledger(objects, Visible::Now)? else {
        return Ok(None);
    };
    if !registry::is_live(objects)? {
        // A restored database writes here for the first time: it says so before it seals.
        Recorder::open(objects)?;
    }
    lock::lock(Target::Seal);
    HOLDS_LOCK.set(true);
    // Opening the log comes first: entries of this transaction that were not written yet are written now.
    let log = Log::open(objects)?;
    let seals = Seals::open(objects, Lock::RowExclusive, ledger, Visible::Now)?;
    let tiles = Tiles::open(objects, Lock::RowExclusive, Visible::Now)?;
    let newest = seals.newest()?;
    let mut edge = Edge::recall(newest.as_ref(), &tiles, &seals, &log)?;

    let number = newest.as_ref().map_or(1, |seal| seal.number + 1);
    let ranges = append_new(&mut edge, number, &log, &seals, &tiles)?;
    if ranges.is_empty() {
        edge.keep();
        return Ok(None);
    }
    let at = session::now();
    let seal = Seal {
        ledger,
        number,
        prev: newest.map_or(Hash::GENESIS, |seal| seal.hash),
        at: session::to_timestamp(at).ok_or(Error::TreeDamaged { what: "the clock is beyond the year 9999".into() })?,
        head: edge.writer.head(),
        system: session::system_identifier(),
        timeline: session::timeline(),
        ranges,
    };
    let hash = seal.hash_with(&mut Vec::new());
    seals.add(&seal, hash, at);
    xact::force_durable_commit();
    edge.seal = Some(hash);
    edge.keep();
    Ok(Some(SealRow::of(&StoredSeal { seal, hash })))
}

/// Appends the new entries of all chains to the tree, and notes the range of each chain that has grown.
fn append_new(edge: &mut Edge, number: u64, log: &Log, seals: &Seals, tiles: &Tiles) -> Result<Vec<Range>, Error> {
    let mut ranges = Vec::new();
    log.for_each_chain(|chain| {
        ranges.extend(append_chain(edge, chain as u32, number, log, seals, tiles)?);
        Ok(())
    })?;
    Ok(ranges)
}

/// How many entries of a chain are looked at in the first place.
const FIRST_LOOK: u64 = 64;

fn append_chain(
    edge: &mut Edge,
    chain: u32,
    number: u64,
    log: &Log,
    seals: &Seals,
    tiles: &Tiles,
) -> Result<Option<Range>, Error> {
    let Edge { writer, reached, .. } = edge;
    let reached = match reached.entry(chain) {
        std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
        std::collections::btree_map::Entry::Vacant(unknown) => unknown.insert(seals.reached(chain)?),
    };
    let first = *reached + 1;
    let first_leaf = writer.range().size().get();
    let mut next = first;
    let mut head = None;
    let mut stopped = false;
    let mut result = Ok(());
    // Behind what is committed may lie millions of entries of an open transaction. They are not looked at: a look goes as far again as the one before, and the next is
    // only taken when that found everything.
    let mut look = FIRST_LOOK;
    loop {
        let end = next.saturating_add(look - 1);
        log.hashes(&seals.ledger, chain, next..=end, Visible::Now, |seq, hash| {
            let Some(hash) = hash.filter(|_| seq == next) else {
                stopped = true;
                return false;
            };
            result = match writer.append(LeafHash::of_entry(&hash), |tile| tiles.add(&tile)) {
                Ok(_) => Ok(()),
                Err(error) => Err(Error::TreeDamaged { what: error.to_string() }),
            };
            head = Some(hash);
            next += 1;
            result.is_ok()
        })?;
        if stopped || result.is_err() || next <= end {
            break;
        }
        look = next - first;
    }
    result?;
    // A transaction that commits while its entries are being looked at shows its later ones, but not its first: those are for the next seal. An entry that still cannot be
    // seen is not there, or has no hash.
    if stopped && !is_whole(log, &seals.ledger, chain, next)? {
        error::warning(
            format!("could not seal chain {chain} beyond entry {}: entry {next} is missing or has no hash", next - 1),
            "Run audit.findings() to see what is wrong with the log.",
        );
    }
    let Some(head) = head else { return Ok(None) };
    let range = Range { chain, first, last: next - 1, head };
    *reached = range.last;
    seals.add_range(&StoredRange { seal: number, range, first_leaf });
    Ok(Some(range))
}

fn is_whole(log: &Log, ledger: &Uuid, chain: u32, seq: u64) -> Result<bool, Error> {
    let mut whole = false;
    log.hashes(ledger, chain, seq..=seq, Visible::Now, |found, hash| {
        whole = found == seq && hash.is_some();
        false
    })?;
    Ok(whole)
}

/// Where a seal goes on: the right edge of the tree, and how far each chain is sealed.
struct Edge {
    /// Hash of the newest seal, which commits to all the rest.
    seal: Option<Hash>,
    writer: TileWriter,
    /// The last sealed entry of each chain that was looked at, 0 when there is none.
    reached: BTreeMap<u32, u64>,
}

/// The edge after the last seal of this backend. Used again only if that is still the newest seal: another may have sealed since, or the transaction was rolled back.
static KNOWN: ProcessLocal<RefCell<Option<Edge>>> = ProcessLocal::new(RefCell::new(None));
/// Whether this transaction holds the lock of the sealer.
static HOLDS_LOCK: ProcessLocal<Cell<bool>> = ProcessLocal::new(Cell::new(false));

impl Edge {
    fn recall(newest: Option<&SealRow>, tiles: &Tiles, seals: &Seals, log: &Log) -> Result<Edge, Error> {
        let seal = newest.map(|seal| seal.hash);
        // Taken, not borrowed: whatever fails from here on leaves nothing half done behind.
        if let Some(known) = KNOWN.take().filter(|known| known.seal == seal) {
            return Ok(known);
        }
        let writer = match newest {
            None => TileWriter::new(),
            Some(seal) => TileWriter::resume(&seal.head, &mut tiles.source(seals, log)).map_err(tiles::read_error)?,
        };
        Ok(Edge { seal, writer, reached: BTreeMap::new() })
    }

    fn keep(self) {
        KNOWN.set(Some(self));
    }
}

/// A transaction that was prepared keeps its locks until somebody commits it, and nobody else could seal meanwhile.
pub(crate) fn refuse_prepare() -> Result<(), Error> {
    if HOLDS_LOCK.get() { Err(Error::PreparedSeal) } else { Ok(()) }
}

/// The transaction is over.
pub(crate) fn end_of_transaction() {
    HOLDS_LOCK.set(false);
}

/// The columns of `audit.seal`, in the order of `sql/tables.sql`.
mod column {
    pub(super) const NUMBER: usize = 0;
    pub(super) const LEDGER: usize = 1;
    pub(super) const AT: usize = 2;
    pub(super) const TREE_SIZE: usize = 3;
    pub(super) const ROOT: usize = 4;
    pub(super) const SYSTEM_IDENTIFIER: usize = 5;
    pub(super) const TIMELINE: usize = 6;
    pub(super) const PREV: usize = 7;
    pub(super) const HASH: usize = 8;
}

const TYPES: [pg_sys::Oid; 9] = [
    pg_sys::INT8OID,
    pg_sys::UUIDOID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::INT8OID,
    pg_sys::BYTEAOID,
    pg_sys::NUMERICOID,
    pg_sys::INT4OID,
    pg_sys::BYTEAOID,
    pg_sys::BYTEAOID,
];

/// The columns of `audit.seal_range`.
mod range_column {
    pub(super) const SEAL: usize = 0;
    pub(super) const LEDGER: usize = 1;
    pub(super) const CHAIN: usize = 2;
    pub(super) const FIRST_SEQ: usize = 3;
    pub(super) const LAST_SEQ: usize = 4;
    pub(super) const FIRST_LEAF: usize = 5;
    pub(super) const HEAD: usize = 6;
}

const RANGE_TYPES: [pg_sys::Oid; 7] = [
    pg_sys::INT8OID,
    pg_sys::UUIDOID,
    pg_sys::INT4OID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::INT8OID,
    pg_sys::BYTEAOID,
];

/// A row of `audit.seal`: a seal without its ranges.
#[derive(Clone, Debug)]
pub(crate) struct SealRow {
    pub(crate) number: u64,
    pub(crate) ledger: Uuid,
    pub(crate) at: Timestamp,
    pub(crate) head: TreeHead,
    pub(crate) system: u64,
    pub(crate) timeline: u32,
    pub(crate) prev: Hash,
    pub(crate) hash: Hash,
}

impl SealRow {
    fn of(stored: &StoredSeal) -> SealRow {
        let StoredSeal { seal, hash } = stored;
        SealRow {
            number: seal.number,
            ledger: seal.ledger,
            at: seal.at,
            head: seal.head,
            system: seal.system,
            timeline: seal.timeline,
            prev: seal.prev,
            hash: *hash,
        }
    }

    /// The seal with its ranges, as its line says it.
    pub(crate) fn with(self, ranges: Vec<Range>) -> StoredSeal {
        let SealRow { number, ledger, at, head, system, timeline, prev, hash } = self;
        StoredSeal { seal: Seal { ledger, number, prev, at, head, system, timeline, ranges }, hash }
    }
}

/// A row of `audit.seal_range`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredRange {
    /// Number of the seal.
    pub(crate) seal: u64,
    pub(crate) range: Range,
    /// Leaf index of the first entry.
    pub(crate) first_leaf: u64,
}

/// Reads rows of both tables.
pub(crate) struct SealReader {
    numeric: Output,
    _home: Scratch,
}

impl SealReader {
    fn new() -> SealReader {
        let home = Scratch::new();
        SealReader { numeric: Output::of_type(pg_sys::NUMERICOID, &home), _home: home }
    }

    /// For a trigger on `audit.seal` itself.
    pub(crate) fn of(relation: &Relation) -> Result<SealReader, Error> {
        if relation.has_types(&TYPES) { Ok(SealReader::new()) } else { Err(Error::NotInstalled) }
    }

    /// A row of `audit.seal`, or which column holds no valid value.
    pub(crate) fn seal(&self, row: &Row<'_>) -> Result<SealRow, &'static str> {
        let root = row.bytes(column::ROOT).and_then(|bytes| NodeHash::try_from(bytes).ok()).ok_or("root")?;
        let size = row.int8(column::TREE_SIZE).and_then(|size| TreeSize::try_from(size).ok()).ok_or("tree_size")?;
        Ok(SealRow {
            number: positive(row, column::NUMBER).ok_or("number")?,
            ledger: row.uuid(column::LEDGER).ok_or("ledger")?,
            at: row.int8(column::AT).and_then(session::to_timestamp).ok_or("at")?,
            head: TreeHead { size, root },
            system: row
                .output(column::SYSTEM_IDENTIFIER, &self.numeric)
                .and_then(|text| text.parse().ok())
                .ok_or("system_identifier")?,
            timeline: row.int4(column::TIMELINE).map(|timeline| timeline as u32).ok_or("timeline")?,
            prev: hash(row, column::PREV).ok_or("prev")?,
            hash: hash(row, column::HASH).ok_or("hash")?,
        })
    }
}

/// A row of `audit.seal_range`, or which column holds no valid value.
fn read_range(row: &Row<'_>) -> Result<StoredRange, &'static str> {
    let chain = row.int4(range_column::CHAIN).and_then(|chain| u32::try_from(chain).ok()).ok_or("chain")?;
    let first = positive(row, range_column::FIRST_SEQ).ok_or("first_seq")?;
    let last = positive(row, range_column::LAST_SEQ).filter(|last| *last >= first).ok_or("last_seq")?;
    Ok(StoredRange {
        seal: positive(row, range_column::SEAL).ok_or("seal")?,
        range: Range { chain, first, last, head: hash(row, range_column::HEAD).ok_or("head")? },
        first_leaf: row.int8(range_column::FIRST_LEAF).and_then(|leaf| u64::try_from(leaf).ok()).ok_or("first_leaf")?,
    })
}

/// For a trigger on `audit.seal_range` itself: whether the row could be one.
pub(crate) fn check_range(relation: &Relation, row: &Row<'_>) -> Result<(), Error> {
    if !relation.has_types(&RANGE_TYPES) {
        return Err(Error::NotInstalled);
    }
    read_range(row).map(drop).map_err(|column| Error::RestoredRow {
        what: "a range of a seal".into(),
        why: format!("Column \"{column}\" holds no valid value."),
    })
}

fn positive(row: &Row<'_>, index: usize) -> Option<u64> {
    row.int8(index).and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0)
}

fn hash(row: &Row<'_>, index: usize) -> Option<Hash> {
    row.bytes(index).and_then(|bytes| Hash::try_from(bytes).ok())
}

/// The tables `audit.seal` and `audit.seal_range` of one ledger, open.
pub(crate) struct Seals {
    seal: Relation,
    range: Relation,
    seal_pkey: Option<pg_sys::Oid>,
    range_pkey: Option<pg_sys::Oid>,
    leaf_key: Option<pg_sys::Oid>,
    pub(crate) ledger: Uuid,
    visible: Visible,
    reader: SealReader,
}

impl Seals {
    /// Opens both tables. `lock` is AccessShare to read, RowExclusive to write.
    pub(crate) fn open(objects: &Objects, lock: Lock, ledger: Uuid, visible: Visible) -> Result<Seals, Error> {
        let seal = Relation::open(objects.seal, lock);
        let range = Relation::open(objects.seal_range, lock);
        if !seal.has_types(&TYPES) || !range.has_types(&RANGE_TYPES) {
            return Err(Error::NotInstalled);
        }
        Ok(Seals {
            seal,
            range,
            seal_pkey: objects.seal_pkey,
            range_pkey: objects.seal_range_pkey,
            leaf_key: objects.seal_range_leaf_key,
            ledger,
            visible,
            reader: SealReader::new(),
        })
    }

    fn add(&self, seal: &Seal, hash: Hash, at: pg_sys::TimestampTz) {
        let system = pgrx::AnyNumeric::from(seal.system);
        let mut row = [None; TYPES.len()];
        row[column::NUMBER] = (seal.number as i64).into_datum();
        row[column::LEDGER] = Some(datum::from_uuid(&seal.ledger));
        row[column::AT] = at.into_datum();
        row[column::TREE_SIZE] = (seal.head.size.get() as i64).into_datum();
        row[column::ROOT] = Some(datum::from_bytes(seal.head.root.as_bytes()));
        row[column::SYSTEM_IDENTIFIER] = system.into_datum();
        row[column::TIMELINE] = (seal.timeline as i32).into_datum();
        row[column::PREV] = Some(datum::from_bytes(seal.prev.as_bytes()));
        row[column::HASH] = Some(datum::from_bytes(hash.as_bytes()));
        Writer::new(&self.seal).insert(&row);
    }

    fn add_range(&self, stored: &StoredRange) {
        let StoredRange { seal, range, first_leaf } = stored;
        let mut row = [None; RANGE_TYPES.len()];
        row[range_column::SEAL] = (*seal as i64).into_datum();
        row[range_column::LEDGER] = Some(datum::from_uuid(&self.ledger));
        row[range_column::CHAIN] = (range.chain as i32).into_datum();
        row[range_column::FIRST_SEQ] = (range.first as i64).into_datum();
        row[range_column::LAST_SEQ] = (range.last as i64).into_datum();
        row[range_column::FIRST_LEAF] = (*first_leaf as i64).into_datum();
        row[range_column::HEAD] = Some(datum::from_bytes(range.head.as_bytes()));
        Writer::new(&self.range).insert(&row);
    }

    /// Whether seals and ranges can be found: their keys are there.
    pub(crate) fn have_keys(&self) -> bool {
        self.seal_pkey.is_some() && self.range_pkey.is_some() && self.leaf_key.is_some()
    }

    /// The seal with the highest number.
    pub(crate) fn newest(&self) -> Result<Option<SealRow>, Error> {
        self.one_seal(&[], Direction::Backward)
    }

    /// The seal with this number.
    pub(crate) fn by_number(&self, number: u64) -> Result<Option<SealRow>, Error> {
        self.one_seal(&[number_is(column::NUMBER, Comparison::Equal, number)], Direction::Forward)
    }

    /// The seal whose tree has this size. Sizes grow with the numbers, so few seals are looked at.
    pub(crate) fn by_size(&self, size: TreeSize) -> Result<Option<SealRow>, Error> {
        let (mut low, mut high) = (1, self.newest()?.map_or(0, |seal| seal.number));
        while low <= high {
            let middle = low + (high - low) / 2;
            let Some(seal) = self.by_number(middle)? else { return Ok(None) };
            match seal.head.size.cmp(&size) {
                Ordering::Equal => return Ok(Some(seal)),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle - 1,
            }
        }
        Ok(None)
    }

    /// Visits the seals from number `from` on in their order, each as far as it can be read.
    pub(crate) fn visit(
        &self,
        from: u64,
        mut visit: impl FnMut(Result<SealRow, &'static str>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let index = open_key(self.seal_pkey)?;
        let conditions = [self.of_ledger(column::LEDGER), number_is(column::NUMBER, Comparison::AtLeast, from)];
        let mut result = Ok(());
        by_index(&self.seal, &index, self.visible, &conditions, Direction::Forward, |row| {
            result = visit(self.reader.seal(row));
            result.is_ok()
        });
        result
    }

    /// The seal of a row with its ranges, which begin at leaf `from`, and the leaf behind them. `stray` is told of ranges there whose seal is gone.
    pub(crate) fn with_ranges(
        &self,
        row: SealRow,
        from: u64,
        stray: &mut impl FnMut(StoredRange),
    ) -> Result<(StoredSeal, u64), Error> {
        let (mut ranges, mut next) = (Vec::new(), from);
        self.visit_ranges(from, |stored| {
            // A range that cannot be read is missing from its seal, whose hash then does not fit.
            let Ok(stored) = stored else { return Ok(true) };
            if stored.seal == row.number {
                ranges.push(stored.range);
            } else if self.has(stored.seal) {
                return Ok(false);
            } else {
                stray(stored);
            }
            next = next.max(stored.first_leaf.saturating_add(stored.range.count()));
            Ok(true)
        })?;
        Ok((row.with(ranges), next))
    }

    /// Whether there is a seal with this number, be it readable or not.
    pub(crate) fn has(&self, number: u64) -> bool {
        !matches!(self.by_number(number), Ok(None))
    }

    /// Visits the ranges from leaf index `from` on in the order of their leaves, which is that of seal and chain, as long as `visit` gives true.
    pub(crate) fn visit_ranges(
        &self,
        from: u64,
        mut visit: impl FnMut(Result<StoredRange, &'static str>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let index = open_key(self.leaf_key)?;
        let conditions =
            [self.of_ledger(range_column::LEDGER), number_is(range_column::FIRST_LEAF, Comparison::AtLeast, from)];
        let mut result = Ok(());
        by_index(&self.range, &index, self.visible, &conditions, Direction::Forward, |row| {
            match visit(read_range(row)) {
                Ok(more) => more,
                Err(error) => {
                    result = Err(error);
                    false
                }
            }
        });
        result
    }

    /// The range that holds an entry; `None` when it is not sealed.
    pub(crate) fn range_of_entry(&self, chain: u32, seq: u64) -> Result<Option<StoredRange>, Error> {
        let conditions = [chain_is(chain), number_is(range_column::LAST_SEQ, Comparison::AtLeast, seq)];
        let range = self.one_range(self.range_pkey, &conditions, Direction::Forward)?;
        Ok(range.filter(|stored| stored.range.first <= seq))
    }

    /// The range that holds a leaf; `None` when there is none.
    pub(crate) fn range_of_leaf(&self, leaf: u64) -> Result<Option<StoredRange>, Error> {
        let conditions = [number_is(range_column::FIRST_LEAF, Comparison::AtMost, leaf)];
        let range = self.one_range(self.leaf_key, &conditions, Direction::Backward)?;
        Ok(range.filter(|stored| leaf - stored.first_leaf < stored.range.count()))
    }

    /// The last sealed entry of a chain, 0 when there is none.
    pub(crate) fn reached(&self, chain: u32) -> Result<u64, Error> {
        let range = self.one_range(self.range_pkey, &[chain_is(chain)], Direction::Backward)?;
        Ok(range.map_or(0, |stored| stored.range.last))
    }

    /// The first chain from number `chain` on that a seal counts.
    pub(crate) fn next_chain(&self, chain: u32) -> Result<Option<u32>, Error> {
        let from = Condition { comparison: Comparison::AtLeast, function: pg_sys::F_INT4GE, ..chain_is(chain) };
        let range = self.one_range(self.range_pkey, &[from], Direction::Forward)?;
        Ok(range.map(|stored| stored.range.chain))
    }

    /// The last range of a chain that a seal up to `number` counted.
    pub(crate) fn reached_by(&self, chain: u32, number: u64) -> Result<Option<StoredRange>, Error> {
        let index = open_key(self.range_pkey)?;
        let conditions = [self.of_ledger(range_column::LEDGER), chain_is(chain)];
        let mut range = Ok(None);
        by_index(&self.range, &index, self.visible, &conditions, Direction::Backward, |row| match read_range(row) {
            Ok(stored) if stored.seal > number => true,
            read => {
                range = read.map(Some);
                false
            }
        });
        range.map_err(|column| unreadable("audit.seal_range", column))
    }

    fn one_seal(&self, conditions: &[Condition], direction: Direction) -> Result<Option<SealRow>, Error> {
        let index = open_key(self.seal_pkey)?;
        let conditions = [&[self.of_ledger(column::LEDGER)], conditions].concat();
        let mut seal = None;
        by_index(&self.seal, &index, self.visible, &conditions, direction, |row| {
            seal = Some(self.reader.seal(row));
            false
        });
        seal.transpose().map_err(|column| unreadable("audit.seal", column))
    }

    fn one_range(
        &self,
        key: Option<pg_sys::Oid>,
        conditions: &[Condition],
        direction: Direction,
    ) -> Result<Option<StoredRange>, Error> {
        let index = open_key(key)?;
        let conditions = [&[self.of_ledger(range_column::LEDGER)], conditions].concat();
        let mut range = None;
        by_index(&self.range, &index, self.visible, &conditions, direction, |row| {
            range = Some(read_range(row));
            false
        });
        range.transpose().map_err(|column| unreadable("audit.seal_range", column))
    }

    fn of_ledger(&self, index: usize) -> Condition {
        Condition {
            number: index as i16 + 1,
            comparison: Comparison::Equal,
            function: pg_sys::F_UUID_EQ,
            value: datum::from_uuid(&self.ledger),
        }
    }
}

fn chain_is(chain: u32) -> Condition {
    Condition {
        number: range_column::CHAIN as i16 + 1,
        comparison: Comparison::Equal,
        function: pg_sys::F_INT4EQ,
        value: pg_sys::Datum::from(chain as i32),
    }
}

fn number_is(index: usize, comparison: Comparison, number: u64) -> Condition {
    let function = match comparison {
        Comparison::Equal => pg_sys::F_INT8EQ,
        Comparison::AtLeast => pg_sys::F_INT8GE,
        Comparison::AtMost => pg_sys::F_INT8LE,
    };
    // Beyond bigint there is nothing.
    let value = pg_sys::Datum::from(i64::try_from(number).unwrap_or(i64::MAX));
    Condition { number: index as i16 + 1, comparison, function, value }
}

/// The index of a key of ours.
pub(crate) fn open_key(key: Option<pg_sys::Oid>) -> Result<Relation, Error> {
    key.map(|key| Relation::open(key, Lock::AccessShare)).ok_or(Error::NotInstalled)
}

/// A row of one of our tables that nobody but a tamperer can have written.
pub(crate) fn unreadable(table: &str, column: &str) -> Error {
    Error::TreeDamaged { what: format!("column \"{column}\" of a row of table \"{table}\" holds no valid value") }
}

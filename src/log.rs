//! Where entries live: the table `audit.log`. The only file that knows its columns.

use std::borrow::{Borrow, Cow};
use std::cell::{Cell, RefCell};
use std::ops::{ControlFlow, RangeInclusive};

use audit_ledger::{Actor, Entry, Hash, Link, Operation, RawEntry, RawTable, Stored, Table};
use pgrx::{IntoDatum, pg_sys};
use uuid::Uuid;

use crate::ddl;
use crate::error::Error;
use crate::pending;
use crate::pg::datum::{self, Packed};
use crate::pg::ids;
use crate::pg::memory::Scratch;
use crate::pg::output::Output;
use crate::pg::process::ProcessLocal;
use crate::pg::relation::{Lock, Relation};
use crate::pg::scan::{Comparison, Condition, Direction, Row, TableScan, Visible, by_index};
use crate::pg::session::{self, ClientAddress};
use crate::pg::tuple::{Formed, Layout};
use crate::registry::Objects;

/// The columns of `audit.log`, in the order of `sql/tables.sql`.
mod column {
    pub(super) const ID: usize = 0;
    pub(super) const LEDGER: usize = 1;
    pub(super) const CHAIN: usize = 2;
    pub(super) const LEDGER_PREFIX: usize = 3;
    pub(super) const SEQ: usize = 4;
    pub(super) const AT: usize = 5;
    pub(super) const XID: usize = 6;
    pub(super) const SUBXID: usize = 7;
    pub(super) const COMMAND: usize = 8;
    pub(super) const OP: usize = 9;
    pub(super) const TABLE_OID: usize = 10;
    pub(super) const TABLE_SCHEMA: usize = 11;
    pub(super) const TABLE_NAME: usize = 12;
    pub(super) const KEY: usize = 13;
    pub(super) const OLD: usize = 14;
    pub(super) const NEW: usize = 15;
    pub(super) const LOGIN_NAME: usize = 16;
    pub(super) const SESSION_NAME: usize = 17;
    pub(super) const USER_NAME: usize = 18;
    pub(super) const APPLICATION_NAME: usize = 19;
    pub(super) const CLIENT_ADDR: usize = 20;
    pub(super) const CONTEXT: usize = 21;
    pub(super) const PREV: usize = 22;
    pub(super) const HASH: usize = 23;
    pub(super) const COUNT: usize = 24;
}

const TYPES: [pg_sys::Oid; column::COUNT] = [
    pg_sys::INT8OID,
    pg_sys::UUIDOID,
    pg_sys::INT4OID,
    pg_sys::INT4OID,
    pg_sys::INT8OID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::XID8OID,
    pg_sys::XID8OID,
    pg_sys::INT8OID,
    pg_sys::TEXTOID,
    pg_sys::OIDOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::JSONOID,
    pg_sys::JSONOID,
    pg_sys::JSONOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::INETOID,
    pg_sys::JSONOID,
    pg_sys::BYTEAOID,
    pg_sys::BYTEAOID,
];

/// How many columns [`Entries::outline`] and [`Entries::details`] need.
const OUTLINE: usize = column::NEW + 1;

/// The last entry of a chain, as far as the next one needs it.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) seq: u64,
    pub(crate) id: u64,
    pub(crate) hash: Hash,
}

impl Head {
    /// Before the first entry of a chain.
    pub(crate) const GENESIS: Head = Head { seq: 0, id: 0, hash: Hash::GENESIS };
}

/// The table that was found to have the columns of `TYPES`, until the server says that it changed: looking at each anew is felt.
static FITS: ProcessLocal<Cell<Option<pg_sys::Oid>>> = ProcessLocal::new(Cell::new(None));
/// Room in which the values of a row are packed.
static ROOM: ProcessLocal<Cell<Vec<u32>>> = ProcessLocal::new(Cell::new(Vec::new()));
/// The layout of the table with this object id.
static LAYOUT: ProcessLocal<RefCell<Option<(pg_sys::Oid, Layout)>>> = ProcessLocal::new(RefCell::new(None));

/// Notes that a relation has changed; with an invalid object id, that any may have.
pub(crate) fn relation_changed(oid: pg_sys::Oid) {
    if oid == pg_sys::InvalidOid || FITS.get() == Some(oid) {
        FITS.set(None);
    }
}

/// Words of room that are kept for the next row.
const KEPT_ROOM: usize = 1 << 18;

/// Takes the layout out, so that nothing is borrowed while the server works; after an error it is made anew. Every table that is opened here has the
/// columns of `TYPES`, so what fitted one of the same object id before fits it now.
fn take_layout(log: pg_sys::Oid) -> Option<Layout> {
    LAYOUT.take().filter(|(oid, _)| *oid == log).map(|(_, layout)| layout)
}

fn keep_layout(log: pg_sys::Oid, layout: Layout) {
    LAYOUT.replace(Some((log, layout)));
}

/// The number of the next entry. Taken while the row that the entry is about is locked, so that the entries of a row are numbered in
/// the order of its changes.
pub(crate) fn next_id(objects: &Objects) -> i64 {
    ids::next(objects.log_id_seq)
}

/// Forms the row of an entry, to be appended later: the table need not be open. `at` is the time as stored, `client` the address as stored: both say the
/// same as in the entry.
pub(crate) fn form(
    objects: &Objects,
    entry: &Entry<'_>,
    hash: Hash,
    at: pg_sys::TimestampTz,
    client: Option<&ClientAddress>,
) -> Result<Formed, Error> {
    let layout = match take_layout(objects.log) {
        Some(layout) => layout,
        None => Layout::of(&Log::open_to_append(objects)?.relation),
    };
    let number = |value: u64| (value as i64).into_datum();
    let table = entry.table.as_ref();
    let mut row = [None; column::COUNT];
    row[column::ID] = number(entry.id);
    row[column::LEDGER] = Some(datum::from_uuid(&entry.ledger));
    row[column::CHAIN] = (entry.chain as i32).into_datum();
    row[column::LEDGER_PREFIX] = prefix(&entry.ledger).into_datum();
    row[column::SEQ] = number(entry.seq);
    row[column::AT] = at.into_datum();
    row[column::XID] = number(entry.xid);
    row[column::SUBXID] = entry.subxid.and_then(number);
    row[column::COMMAND] = entry.command.and_then(|command| i64::from(command).into_datum());
    row[column::TABLE_OID] = table.and_then(|table| pg_sys::Oid::from(table.oid).into_datum());
    row[column::CLIENT_ADDR] = client.map(ClientAddress::datum);
    let actor = &entry.actor;
    let texts = [
        (column::OP, Some(entry.operation.as_bytes())),
        (column::TABLE_SCHEMA, table.map(|table| table.schema.as_bytes())),
        (column::TABLE_NAME, table.map(|table| table.name.as_bytes())),
        (column::KEY, bytes(&entry.key)),
        (column::OLD, bytes(&entry.old)),
        (column::NEW, bytes(&entry.new)),
        (column::LOGIN_NAME, bytes(&actor.login)),
        (column::SESSION_NAME, bytes(&actor.session)),
        (column::USER_NAME, bytes(&actor.user)),
        (column::APPLICATION_NAME, bytes(&actor.application)),
        (column::CONTEXT, bytes(&entry.context)),
        (column::PREV, Some(entry.prev.as_bytes().as_slice())),
        (column::HASH, Some(hash.as_bytes().as_slice())),
    ];
    let mut packed = Packed::for_values(ROOM.take(), texts.iter().filter_map(|(_, bytes)| *bytes))
        .map_err(|bytes| Error::OutOfMemory { bytes })?;
    for (column, bytes) in texts {
        row[column] = bytes.map(|bytes| packed.push(bytes));
    }
    let formed = layout.form(&row);
    let room = packed.into_room();
    if room.capacity() <= KEPT_ROOM {
        ROOM.set(room);
    }
    keep_layout(objects.log, layout);
    Ok(formed)
}

/// The table, open.
pub(crate) struct Log {
    relation: Relation,
    pkey: Option<pg_sys::Oid>,
    sequence: pg_sys::Oid,
}

impl Log {
    /// Opens the table to read it. What this transaction has recorded is in it.
    pub(crate) fn open(objects: &Objects) -> Result<Log, Error> {
        pending::flush(objects)?;
        Log::open_with(objects, Lock::AccessShare)
    }

    /// Opens the table to append to it.
    pub(crate) fn open_to_append(objects: &Objects) -> Result<Log, Error> {
        Log::open_with(objects, Lock::RowExclusive)
    }

    fn open_with(objects: &Objects, lock: Lock) -> Result<Log, Error> {
        let relation = Relation::open(objects.log, lock);
        // Asked after the table was locked: what changed before that was told then.
        if FITS.get() != Some(objects.log) {
            if !relation.has_types(&TYPES) {
                return Err(Error::NotInstalled);
            }
            FITS.set(Some(objects.log));
        }
        Ok(Log { relation, pkey: objects.log_pkey, sequence: objects.log_id_seq })
    }

    /// The table itself.
    pub(crate) fn relation(&self) -> &Relation {
        &self.relation
    }

    /// Object id of the table.
    pub(crate) fn oid(&self) -> pg_sys::Oid {
        self.relation.oid()
    }

    /// Whether entries can be found by their place: the primary key is there.
    pub(crate) fn has_key(&self) -> bool {
        self.pkey.is_some()
    }

    /// The index of the primary key. Only reading the log from end to end does without.
    fn index(&self) -> Result<Relation, Error> {
        self.pkey.map(|pkey| Relation::open(pkey, Lock::AccessShare)).ok_or(Error::NotInstalled)
    }

    /// Appends runs of rows, each as written by one command of this transaction.
    pub(crate) fn append<'a, T: Borrow<Formed> + 'a>(&self, runs: impl Iterator<Item = (&'a [T], u32)>) {
        let mut layout = take_layout(self.oid()).unwrap_or_else(|| Layout::of(&self.relation));
        layout.append(&self.relation, runs);
        keep_layout(self.oid(), layout);
    }

    /// The last entry of a chain: committed by anybody or written by this transaction, whatever its isolation level.
    ///
    /// `known` is the last entry as it was once, or the genesis. Where none came after it, it is given back and no row is read.
    pub(crate) fn head(&self, ledger: &Uuid, chain: u32, known: Head) -> Result<Head, Error> {
        let conditions = [of_chain(chain as i32), of_seq(Comparison::AtLeast, known.seq as i64 + 1)];
        let mut head = Ok(known);
        self.by_place(ledger, &conditions, Visible::Now, Direction::Backward, |row| {
            head = read_head(row).map_err(|what| Error::HeadDamaged { chain, what });
            false
        })?;
        head
    }

    /// The highest id of the whole log, 0 when it is empty. Reads the table from end to end.
    pub(crate) fn highest_id(&self) -> i64 {
        let mut scan = TableScan::new(&self.relation, Visible::Now);
        let mut highest = 0;
        while let Some(row) = scan.next(1) {
            highest = highest.max(row.int8(column::ID).unwrap_or(0));
        }
        highest
    }

    /// Makes all ids that come higher than `id`; nobody needs a right for that.
    pub(crate) fn skip_ids(&self, id: i64) {
        ids::skip(self.sequence, id);
    }

    /// Visits all entries in the order in which they lie in the table, seen by the running statement.
    ///
    /// No index takes part, so an index that lacks entries cannot hide them.
    pub(crate) fn scan(&self, visit: impl FnMut(&Entries, &Row<'_>) -> Result<(), Error>) -> Result<(), Error> {
        self.scan_columns(column::COUNT, visit)
    }

    fn scan_columns(
        &self,
        columns: usize,
        mut visit: impl FnMut(&Entries, &Row<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.scan_with(TableScan::new(&self.relation, Visible::Statement), columns, |entries, row| {
            visit(entries, row).map(ControlFlow::Continue)
        })
    }

    /// As [`Log::scan`] or [`Log::scan_outlines`] for one of several who share a scan of this table. Ends when `visit` says so.
    pub(crate) fn scan_share(
        &self,
        scan: TableScan<'_>,
        outlines: bool,
        visit: impl FnMut(&Entries, &Row<'_>) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        self.scan_with(scan, if outlines { OUTLINE } else { column::COUNT }, visit)
    }

    fn scan_with(
        &self,
        mut scan: TableScan<'_>,
        columns: usize,
        mut visit: impl FnMut(&Entries, &Row<'_>) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let entries = Entries::new();
        let scratch = Scratch::new();
        while let Some(row) = scan.next(columns) {
            if scratch.within(|| visit(&entries, &row))?.is_break() {
                break;
            }
            scratch.reset();
        }
        Ok(())
    }

    /// Like [`Log::scan`], but shows only what [`Entries::outline`] and [`Entries::details`] read.
    pub(crate) fn scan_outlines(
        &self,
        visit: impl FnMut(&Entries, &Row<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.scan_columns(OUTLINE, visit)
    }

    /// Visits the entries of a ledger in the order of chain and seq.
    pub(crate) fn in_order(
        &self,
        ledger: &Uuid,
        visit: impl FnMut(&Entries, &Row<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.visit(ledger, &[], visit)
    }

    /// Visits the entries of a chain from place `seq` on, in their order.
    pub(crate) fn from(
        &self,
        ledger: &Uuid,
        chain: i32,
        seq: u64,
        visit: impl FnMut(&Entries, &Row<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.visit(ledger, &[of_chain(chain), of_seq(Comparison::AtLeast, seq as i64)], visit)
    }

    /// Visits the entries of a ledger that meet the conditions, in the order of the index.
    fn visit(
        &self,
        ledger: &Uuid,
        conditions: &[Condition],
        mut visit: impl FnMut(&Entries, &Row<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let entries = Entries::new();
        let scratch = Scratch::new();
        let mut result = Ok(());
        self.by_place(ledger, conditions, Visible::Statement, Direction::Forward, |row| {
            result = scratch.within(|| visit(&entries, row));
            scratch.reset();
            result.is_ok()
        })?;
        result
    }

    /// Calls `visit` with the entries of a ledger that meet the conditions on chain and seq, in the order of the index, until it gives false.
    fn by_place(
        &self,
        ledger: &Uuid,
        conditions: &[Condition],
        visible: Visible,
        direction: Direction,
        mut visit: impl FnMut(&Row<'_>) -> bool,
    ) -> Result<(), Error> {
        let index = self.index()?;
        let conditions = [&[of_prefix(ledger)], conditions].concat();
        by_index(&self.relation, &index, visible, &conditions, direction, |row| {
            // Two ledgers may share a prefix.
            row.uuid(column::LEDGER) != Some(*ledger) || visit(row)
        });
        Ok(())
    }

    /// The entry with this place, if it is there.
    pub(crate) fn find<R>(
        &self,
        ledger: &Uuid,
        chain: i32,
        seq: i64,
        read: impl FnOnce(&Entries, &Row<'_>) -> R,
    ) -> Result<Option<R>, Error> {
        let entries = Entries::new();
        let conditions = [of_chain(chain), of_seq(Comparison::Equal, seq)];
        let mut read = Some(read);
        let mut found = None;
        self.by_place(ledger, &conditions, Visible::Statement, Direction::Forward, |row| {
            found = read.take().map(|read| read(&entries, row));
            false
        })?;
        Ok(found)
    }
}

/// What sealing reads of the log.
impl Log {
    /// Visits the numbers of all chains in which anything was ever written, ascending, whatever its ledger, committed or not. Costs one look into the index for each,
    /// however long the chains are, and however much of them is not committed.
    pub(crate) fn for_each_chain(&self, mut visit: impl FnMut(i32) -> Result<(), Error>) -> Result<(), Error> {
        let mut next = Some(1);
        while let Some(chain) = next.map_or(Ok(None), |from| self.next_chain(from))? {
            visit(chain)?;
            next = chain.checked_add(1);
        }
        Ok(())
    }

    fn next_chain(&self, chain: i32) -> Result<Option<i32>, Error> {
        let index = self.index()?;
        let from = Condition { comparison: Comparison::AtLeast, function: pg_sys::F_INT4GE, ..of_chain(chain) };
        let mut found = None;
        by_index(&self.relation, &index, Visible::Any, &[from], Direction::Forward, |row| {
            found = row.int4(column::CHAIN);
            false
        });
        Ok(found)
    }

    /// Place and time of the last entry of a chain, as the running statement sees it.
    pub(crate) fn last(&self, ledger: &Uuid, chain: i32) -> Result<Option<(u64, i64)>, Error> {
        self.place_and_time(ledger, &[of_chain(chain)], Direction::Backward)
    }

    /// Place and time of the first entry of a chain from place `seq` on, as the running statement sees it.
    pub(crate) fn first_from(&self, ledger: &Uuid, chain: i32, seq: u64) -> Result<Option<(u64, i64)>, Error> {
        let conditions = [of_chain(chain), of_seq(Comparison::AtLeast, seq as i64)];
        self.place_and_time(ledger, &conditions, Direction::Forward)
    }

    fn place_and_time(
        &self,
        ledger: &Uuid,
        conditions: &[Condition],
        direction: Direction,
    ) -> Result<Option<(u64, i64)>, Error> {
        let mut found = None;
        self.by_place(ledger, conditions, Visible::Statement, direction, |row| {
            found = row.int8(column::SEQ).and_then(|seq| u64::try_from(seq).ok()).zip(row.int8(column::AT));
            false
        })?;
        Ok(found)
    }

    /// Visits the entries of a chain with these places, in their order: place and stored hash, if it is one. Ends when `visit` gives false.
    pub(crate) fn hashes(
        &self,
        ledger: &Uuid,
        chain: u32,
        places: RangeInclusive<u64>,
        visible: Visible,
        mut visit: impl FnMut(u64, Option<Hash>) -> bool,
    ) -> Result<(), Error> {
        let bound = |place: u64| i64::try_from(place).unwrap_or(i64::MAX);
        let conditions = [
            of_chain(chain as i32),
            of_seq(Comparison::AtLeast, bound(*places.start())),
            of_seq(Comparison::AtMost, bound(*places.end())),
        ];
        self.by_place(ledger, &conditions, visible, Direction::Forward, |row| {
            let Some(seq) = row.int8(column::SEQ).and_then(|seq| u64::try_from(seq).ok()) else { return false };
            visit(seq, row.bytes(column::HASH).and_then(|bytes| Hash::try_from(bytes).ok()))
        })
    }
}

fn bytes<'a>(text: &'a Option<Cow<'_, str>>) -> Option<&'a [u8]> {
    text.as_ref().map(|text| text.as_bytes())
}

/// What the primary key has of a ledger, see docs/design/0010-key-of-the-log.md.
fn prefix(ledger: &Uuid) -> i32 {
    let [a, b, c, d, ..] = *ledger.as_bytes();
    i32::from_be_bytes([a, b, c, d])
}

fn of_prefix(ledger: &Uuid) -> Condition {
    Condition {
        number: column::LEDGER_PREFIX as i16 + 1,
        comparison: Comparison::Equal,
        function: pg_sys::F_INT4EQ,
        value: pg_sys::Datum::from(prefix(ledger)),
    }
}

fn of_chain(chain: i32) -> Condition {
    Condition {
        number: column::CHAIN as i16 + 1,
        comparison: Comparison::Equal,
        function: pg_sys::F_INT4EQ,
        value: pg_sys::Datum::from(chain),
    }
}

fn of_seq(comparison: Comparison, seq: i64) -> Condition {
    let function = match comparison {
        Comparison::Equal => pg_sys::F_INT8EQ,
        Comparison::AtLeast => pg_sys::F_INT8GE,
        Comparison::AtMost => pg_sys::F_INT8LE,
    };
    Condition { number: column::SEQ as i16 + 1, comparison, function, value: pg_sys::Datum::from(seq) }
}

fn read_head(row: &Row<'_>) -> Result<Head, String> {
    let positive = |index: usize, name: &str| {
        row.int8(index)
            .and_then(|value| u64::try_from(value).ok())
            .ok_or_else(|| format!("its last entry has no valid {name}"))
    };
    Ok(Head {
        seq: positive(column::SEQ, "seq")?,
        id: positive(column::ID, "id")?,
        hash: row
            .bytes(column::HASH)
            .and_then(|bytes| Hash::try_from(bytes).ok())
            .ok_or("its last entry has no valid hash")?,
    })
}

/// Reads rows of the table as entries.
pub(crate) struct Entries {
    inet: Output,
    /// The client of the entry read last: the value as stored, and its text. Most entries have that of the one before.
    client: RefCell<(Vec<u8>, String)>,
    _home: Scratch,
}

/// Where a row says that it belongs, as far as that can be read: for findings about rows that are no entries.
pub(crate) struct Place {
    pub(crate) chain: Option<i32>,
    pub(crate) seq: Option<i64>,
    pub(crate) id: Option<i64>,
}

/// What an entry about a table as a whole says, as stored.
pub(crate) struct Details {
    pub(crate) ledger: Uuid,
    pub(crate) chain: i32,
    pub(crate) seq: i64,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// Of a DDL entry only what [`ddl::is_drop`] reads.
    pub(crate) new: Option<String>,
}

impl Entries {
    fn new() -> Entries {
        let home = Scratch::new();
        Entries { inet: Output::of_type(pg_sys::INETOID, &home), client: RefCell::default(), _home: home }
    }

    /// For a trigger on the table itself.
    pub(crate) fn of(relation: &Relation) -> Result<Entries, Error> {
        if relation.has_types(&TYPES) { Ok(Entries::new()) } else { Err(Error::NotInstalled) }
    }

    /// The place that a row claims.
    pub(crate) fn place(&self, row: &Row<'_>) -> Place {
        Place { chain: row.int4(column::CHAIN), seq: row.int8(column::SEQ), id: row.int8(column::ID) }
    }

    /// The row's place in its chain, also where other columns cannot be read; `None` when it has no valid place. In place of a stored hash that is none stands the computed
    /// one, in place of such a `prev` the genesis: a wrong length is no less a change than a wrong value, and no more.
    pub(crate) fn link(&self, row: &Row<'_>) -> Option<Link> {
        let number = |index: usize| row.int8(index).and_then(|value| u64::try_from(value).ok());
        let hash = |index: usize| row.bytes(index).and_then(|bytes| Hash::try_from(bytes).ok());
        Some(Link {
            ledger: row.uuid(column::LEDGER)?,
            chain: row.int4(column::CHAIN).and_then(|chain| u32::try_from(chain).ok())?,
            seq: number(column::SEQ)?,
            prev: hash(column::PREV).unwrap_or(Hash::GENESIS),
            hash: match hash(column::HASH) {
                Some(hash) => hash,
                None => self.entry(row).ok()?.hash_with(&mut Vec::new()),
            },
            id: number(column::ID)?,
            at: row.int8(column::AT).and_then(session::to_timestamp),
        })
    }

    /// `schema.name` of a row's table, as stored.
    pub(crate) fn relation(&self, row: &Row<'_>) -> Option<String> {
        Some(format!("{}.{}", row.text(column::TABLE_SCHEMA)?, row.text(column::TABLE_NAME)?))
    }

    /// Operation, id and table of a row, without reading the rest.
    pub(crate) fn outline(&self, row: &Row<'_>) -> (Option<Operation>, i64, u32) {
        (
            row.text(column::OP).and_then(|text| text.parse().ok()),
            row.int8(column::ID).unwrap_or(0),
            row.oid(column::TABLE_OID).map_or(0, |oid| oid.to_u32()),
        )
    }

    /// Whether the row says that it tells of a change of one row.
    pub(crate) fn is_row_change(&self, row: &Row<'_>) -> bool {
        matches!(row.bytes(column::OP), Some(b"INSERT" | b"UPDATE" | b"DELETE" | b"BASELINE"))
    }

    /// Shows the row as an entry of which texts were not looked at; `None` when a column cannot be one's.
    pub(crate) fn with_raw<R>(&self, row: &Row<'_>, look: impl FnOnce(&RawEntry<'_>) -> R) -> Option<R> {
        let number = |index: usize| row.int8(index).and_then(|value| u64::try_from(value).ok());
        let hash = |index: usize| row.bytes(index).and_then(|bytes| Hash::try_from(bytes).ok());
        let mut client = self.client.borrow_mut();
        let (stored, text) = &mut *client;
        let client = match row.bytes(column::CLIENT_ADDR) {
            None => None,
            Some(value) => {
                if stored != value {
                    *text = row.output(column::CLIENT_ADDR, &self.inet)?.into_owned();
                    *stored = value.to_vec();
                }
                Some(text.as_bytes())
            }
        };
        Some(look(&RawEntry {
            ledger: Self::ledger(row).ok()?,
            chain: row.int4(column::CHAIN).and_then(|chain| u32::try_from(chain).ok())?,
            seq: number(column::SEQ)?,
            prev: hash(column::PREV)?,
            id: number(column::ID)?,
            at: row.int8(column::AT).and_then(session::to_timestamp)?,
            xid: row.int8(column::XID)? as u64,
            subxid: row.int8(column::SUBXID).map(|xid| xid as u64),
            command: row.int8(column::COMMAND).map(u32::try_from).transpose().ok()?,
            operation: row.bytes(column::OP)?,
            table: match (row.oid(column::TABLE_OID), row.bytes(column::TABLE_SCHEMA), row.bytes(column::TABLE_NAME)) {
                (Some(oid), Some(schema), Some(name)) => Some(RawTable { oid: oid.to_u32(), schema, name }),
                _ => None,
            },
            key: row.bytes(column::KEY),
            old: row.bytes(column::OLD),
            new: row.bytes(column::NEW),
            actor: [
                row.bytes(column::LOGIN_NAME),
                row.bytes(column::SESSION_NAME),
                row.bytes(column::USER_NAME),
                row.bytes(column::APPLICATION_NAME),
                client,
            ],
            context: row.bytes(column::CONTEXT),
            hash: hash(column::HASH)?,
        }))
    }

    /// What a row says that is no row change; `None` when it has no valid place.
    pub(crate) fn details(&self, row: &Row<'_>) -> Option<Details> {
        let is_ddl = row.text(column::OP).is_some_and(|text| text == Operation::Ddl.as_str());
        let shorten = |new: Cow<'_, str>| if is_ddl { ddl::Said::of(Some(&new)).text() } else { new.into_owned() };
        Some(Details {
            ledger: row.uuid(column::LEDGER)?,
            chain: row.int4(column::CHAIN)?,
            seq: row.int8(column::SEQ)?,
            schema: row.text(column::TABLE_SCHEMA).unwrap_or_default().into_owned(),
            name: row.text(column::TABLE_NAME).unwrap_or_default().into_owned(),
            new: row.text(column::NEW).map(shorten),
        })
    }

    /// The ledger of a row, where its part of the key fits.
    fn ledger(row: &Row<'_>) -> Result<Uuid, &'static str> {
        let ledger = row.uuid(column::LEDGER).ok_or("ledger")?;
        if row.int4(column::LEDGER_PREFIX) == Some(prefix(&ledger)) { Ok(ledger) } else { Err("ledger_prefix") }
    }

    /// The row as an entry with its stored hash, or which column cannot be one's.
    pub(crate) fn read<'a>(&self, row: &Row<'a>) -> Result<Stored<'a>, &'static str> {
        let hash = row.bytes(column::HASH).and_then(|bytes| Hash::try_from(bytes).ok()).ok_or("hash")?;
        Ok(Stored { entry: self.entry(row)?, hash })
    }

    fn entry<'a>(&self, row: &Row<'a>) -> Result<Entry<'a>, &'static str> {
        let number =
            |index: usize, name: &'static str| row.int8(index).and_then(|value| u64::try_from(value).ok()).ok_or(name);
        let hash = |index: usize, name: &'static str| {
            row.bytes(index).and_then(|bytes| Hash::try_from(bytes).ok()).ok_or(name)
        };
        let command = match row.int8(column::COMMAND) {
            None => None,
            Some(command) => Some(u32::try_from(command).map_err(|_| "command")?),
        };
        // Where one of the three was taken away the line has none, and then the hash does not fit.
        let table = match (row.oid(column::TABLE_OID), row.text(column::TABLE_SCHEMA), row.text(column::TABLE_NAME)) {
            (Some(oid), Some(schema), Some(name)) => Some(Table { oid: oid.to_u32(), schema, name }),
            _ => None,
        };
        Ok(Entry {
            ledger: Self::ledger(row)?,
            chain: row.int4(column::CHAIN).and_then(|chain| u32::try_from(chain).ok()).ok_or("chain")?,
            seq: number(column::SEQ, "seq")?,
            prev: hash(column::PREV, "prev")?,
            id: number(column::ID, "id")?,
            at: row.int8(column::AT).and_then(session::to_timestamp).ok_or("at")?,
            xid: row.int8(column::XID).map(|xid| xid as u64).ok_or("xid")?,
            subxid: row.int8(column::SUBXID).map(|xid| xid as u64),
            command,
            operation: row.text(column::OP).ok_or("op")?,
            table,
            key: row.text(column::KEY),
            old: row.text(column::OLD),
            new: row.text(column::NEW),
            actor: Actor {
                login: row.text(column::LOGIN_NAME),
                session: row.text(column::SESSION_NAME),
                user: row.text(column::USER_NAME),
                application: row.text(column::APPLICATION_NAME),
                client: row.output(column::CLIENT_ADDR, &self.inet),
            },
            context: row.text(column::CONTEXT),
        })
    }
}

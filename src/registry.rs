//! What the extension knows besides the log: its own objects, the ledger, and which tables are protected how.
//!
//! The registry is a cache of what the log says in its PROTECT and UNPROTECT entries; `verify` holds one against the other.

use std::borrow::Cow;
use std::ffi::CStr;

use pgrx::{IntoDatum, pg_sys};
use uuid::Uuid;

use crate::error::Error;
use crate::pg::datum;
use crate::pg::memory::Scratch;
use crate::pg::output::Output;
use crate::pg::relation::{self, Lock, Relation};
use crate::pg::scan::{Row, TableScan, Visible};
use crate::pg::session;
use crate::pg::tuple::{Fate, Writer, rewrite};
use crate::render::Shape;

/// Schema of all objects of the extension.
pub(crate) const SCHEMA: &CStr = c"audit";

/// Object ids of the extension's own objects.
pub(crate) struct Objects {
    pub(crate) schema: pg_sys::Oid,
    pub(crate) log: pg_sys::Oid,
    /// `None` when it was dropped or is another: the log can still be verified, but not written. Columns are told by their numbers in sql/tables.sql.
    pub(crate) log_pkey: Option<pg_sys::Oid>,
    pub(crate) log_id_seq: pg_sys::Oid,
    pub(crate) ledger: pg_sys::Oid,
    pub(crate) incarnation: pg_sys::Oid,
    pub(crate) registry: pg_sys::Oid,
    pub(crate) seal: pg_sys::Oid,
    pub(crate) seal_range: pg_sys::Oid,
    pub(crate) tile: pg_sys::Oid,
    /// As `log_pkey`, those of the three tables before: without them nothing can be sealed.
    pub(crate) seal_pkey: Option<pg_sys::Oid>,
    pub(crate) seal_range_pkey: Option<pg_sys::Oid>,
    pub(crate) seal_range_leaf_key: Option<pg_sys::Oid>,
    pub(crate) tile_pkey: Option<pg_sys::Oid>,
    pub(crate) row_function: pg_sys::Oid,
    pub(crate) truncate_function: pg_sys::Oid,
    pub(crate) guard_function: pg_sys::Oid,
}

impl Objects {
    /// Looks them up by name in the schema, which belongs to the owner of the extension alone.
    pub(crate) fn find() -> Result<Objects, Error> {
        let schema = relation::find_schema(SCHEMA).ok_or(Error::NotInstalled)?;
        let relation = |name| relation::find(schema, name).ok_or(Error::NotInstalled);
        let function = |name| relation::find_function(schema, name).ok_or(Error::NotInstalled);
        let [log, seal, seal_range, tile] =
            [relation(c"log")?, relation(c"seal")?, relation(c"seal_range")?, relation(c"tile")?];
        Ok(Objects {
            schema,
            log,
            log_pkey: relation::find_key(schema, c"log_pkey", log, &[3, 4, 5]),
            log_id_seq: relation(c"log_id_seq")?,
            ledger: relation(c"ledger")?,
            incarnation: relation(c"incarnation")?,
            registry: relation(c"registry")?,
            seal,
            seal_range,
            tile,
            seal_pkey: relation::find_key(schema, c"seal_pkey", seal, &[2, 1]),
            seal_range_pkey: relation::find_key(schema, c"seal_range_pkey", seal_range, &[2, 3, 5]),
            seal_range_leaf_key: relation::find_key(schema, c"seal_range_leaf_key", seal_range, &[2, 6]),
            tile_pkey: relation::find_key(schema, c"tile_pkey", tile, &[1, 2]),
            row_function: function(c"audit_row")?,
            truncate_function: function(c"audit_truncate")?,
            guard_function: function(c"audit_guard")?,
        })
    }

    /// Whether a relation is one of them.
    pub(crate) fn has(&self, oid: pg_sys::Oid) -> bool {
        oid == self.log_id_seq || self.tables().contains(&oid) || self.keys().iter().any(|key| key.oid == Some(oid))
    }

    /// The tables, all of which carry guards.
    pub(crate) fn tables(&self) -> [pg_sys::Oid; 7] {
        [self.log, self.ledger, self.incarnation, self.registry, self.seal, self.seal_range, self.tile]
    }

    /// The keys that must be in use.
    pub(crate) fn keys(&self) -> [Key; 5] {
        const FORK: &str = "Without it a chain could fork, and nothing can be recorded.";
        const SEAL: &str = "Without it there could be two histories, and nothing can be sealed.";
        let key = |oid, table, name, definition, reason| Key { oid, table, name, definition, reason };
        [
            key(self.log_pkey, "log", "log_pkey", "PRIMARY KEY (chain, ledger_prefix, seq)", FORK),
            key(self.seal_pkey, "seal", "seal_pkey", "PRIMARY KEY (ledger, number)", SEAL),
            key(self.seal_range_pkey, "seal_range", "seal_range_pkey", "PRIMARY KEY (ledger, chain, last_seq)", SEAL),
            key(self.seal_range_leaf_key, "seal_range", "seal_range_leaf_key", "UNIQUE (ledger, first_leaf)", SEAL),
            key(self.tile_pkey, "tile", "tile_pkey", "PRIMARY KEY (level, index)", SEAL),
        ]
    }
}

/// A key of one of the tables.
pub(crate) struct Key {
    /// Its index; `None` when it was dropped.
    pub(crate) oid: Option<pg_sys::Oid>,
    pub(crate) table: &'static str,
    pub(crate) name: &'static str,
    pub(crate) definition: &'static str,
    /// What it is for.
    pub(crate) reason: &'static str,
}

const LEDGER_TYPES: [pg_sys::Oid; 2] = [pg_sys::UUIDOID, pg_sys::TIMESTAMPTZOID];
const INCARNATION_TYPES: [pg_sys::Oid; 7] = [
    pg_sys::INT8OID,
    pg_sys::NUMERICOID,
    pg_sys::OIDOID,
    pg_sys::INT4OID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::TIMESTAMPTZOID,
];

/// The ledger of this database; `None` before the first table is protected.
pub(crate) fn ledger(objects: &Objects, visible: Visible) -> Result<Option<Uuid>, Error> {
    let table = open(objects.ledger, Lock::AccessShare, &LEDGER_TYPES)?;
    let mut scan = TableScan::new(&table, visible);
    Ok(scan.next(1).and_then(|row| row.uuid(0)))
}

/// How many rows name a ledger: one, unless somebody added another.
pub(crate) fn ledgers(objects: &Objects) -> Result<usize, Error> {
    let table = open(objects.ledger, Lock::AccessShare, &LEDGER_TYPES)?;
    let mut scan = TableScan::new(&table, Visible::Statement);
    let mut ledgers = 0;
    while scan.next(1).is_some() {
        ledgers += 1;
    }
    Ok(ledgers)
}

/// Makes a new ledger. The caller holds the lock of the ledger and knows that there is none.
pub(crate) fn create_ledger(objects: &Objects) -> Result<Uuid, Error> {
    let table = open(objects.ledger, Lock::RowExclusive, &LEDGER_TYPES)?;
    let ledger = uuid::Builder::from_random_bytes(session::random_key()).into_uuid();
    Writer::new(&table).insert(&[Some(datum::from_uuid(&ledger)), session::now().into_datum()]);
    Ok(ledger)
}

/// Whether this database has written to its ledger itself. A database restored from a dump has not yet: the row is not dumped.
pub(crate) fn is_live(objects: &Objects) -> Result<bool, Error> {
    let table = open(objects.incarnation, Lock::AccessShare, &INCARNATION_TYPES)?;
    let mut scan = TableScan::new(&table, Visible::Now);
    Ok(scan.next(1).is_some())
}

/// Where the ledger is written, and in whose name: what an outsider may rely on until an entry says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Incarnation {
    /// System identifier of the cluster, decimal.
    pub(crate) system: String,
    pub(crate) database: u32,
    pub(crate) timeline: u32,
    /// The key of the last KEY entry.
    pub(crate) vkey: Option<String>,
    /// A checkpoint given out before that an INCARNATION entry has disowned.
    pub(crate) disowned: Option<String>,
}

impl Incarnation {
    /// That of this server and database, with nothing else known. Not to be asked on a standby.
    pub(crate) fn here() -> Incarnation {
        Incarnation {
            system: session::system_identifier().to_string(),
            database: session::database().to_u32(),
            timeline: session::timeline(),
            vkey: None,
            disowned: None,
        }
    }
}

/// The incarnation in which this database writes; `None` when it has not written yet.
pub(crate) fn incarnation(objects: &Objects, visible: Visible) -> Result<Option<Incarnation>, Error> {
    let table = open(objects.incarnation, Lock::AccessShare, &INCARNATION_TYPES)?;
    let scratch = Scratch::new();
    let numeric = Output::of_type(pg_sys::NUMERICOID, &scratch);
    let mut scan = TableScan::new(&table, visible);
    let mut newest = None;
    let mut highest = i64::MIN;
    while let Some(row) = scan.next(INCARNATION_TYPES.len()) {
        let after_id = row.int8(0).unwrap_or(i64::MIN);
        if newest.is_some() && after_id <= highest {
            continue;
        }
        highest = after_id;
        newest = Some(Incarnation {
            system: scratch.within(|| row.output(1, &numeric).map(Cow::into_owned)).unwrap_or_default(),
            database: row.oid(2).map_or(0, |oid| oid.to_u32()),
            timeline: row.int4(3).map_or(0, |timeline| timeline as u32),
            vkey: row.text(4).map(Cow::into_owned),
            disowned: row.text(5).map(Cow::into_owned),
        });
    }
    Ok(newest)
}

/// Notes that from here on this database writes to its ledger so. `after_id`: the entry that says it, or the highest id before the first of its own.
pub(crate) fn set_incarnation(objects: &Objects, after_id: i64, incarnation: &Incarnation) -> Result<(), Error> {
    let table = open(objects.incarnation, Lock::RowExclusive, &INCARNATION_TYPES)?;
    let system = incarnation.system.parse::<u64>().map(pgrx::AnyNumeric::from).ok();
    let text = |text: &Option<String>| text.as_ref().map(|text| datum::from_bytes(text.as_bytes()));
    Writer::new(&table).insert(&[
        after_id.into_datum(),
        system.into_datum(),
        pg_sys::Oid::from(incarnation.database).into_datum(),
        (incarnation.timeline as i32).into_datum(),
        text(&incarnation.vkey),
        text(&incarnation.disowned),
        session::now().into_datum(),
    ]);
    Ok(())
}

/// How a table is protected: one row of `audit.registry`.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    /// The table. After a restore it has another object id than in the entries written before.
    pub(crate) relation: pg_sys::Oid,
    /// The object id under which the log knows the table.
    pub(crate) known_as: pg_sys::Oid,
    /// `r` or `p`, as in `pg_class.relkind`.
    pub(crate) kind: char,
    /// The id of its PROTECT entry.
    pub(crate) protect_id: i64,
    /// Whether it was named in audit.protect(), not reached through a parent.
    pub(crate) is_root: bool,
    pub(crate) full_images: bool,
    pub(crate) baseline: bool,
    pub(crate) exclude: Vec<String>,
    /// Column numbers of `exclude`, so that a renamed column stays excluded.
    pub(crate) exclude_numbers: Vec<i16>,
    /// What is recorded since its PROTECT entry.
    pub(crate) shape: Shape,
    /// Schema of the table as the log last said.
    pub(crate) schema: String,
    /// Name of the table as the log last said.
    pub(crate) name: String,
}

const REGISTRY_TYPES: [pg_sys::Oid; 14] = [
    pg_sys::REGCLASSOID,
    pg_sys::OIDOID,
    pg_sys::CHAROID,
    pg_sys::INT8OID,
    pg_sys::BOOLOID,
    pg_sys::TEXTOID,
    pg_sys::BOOLOID,
    pg_sys::TEXTARRAYOID,
    pg_sys::INT2ARRAYOID,
    pg_sys::TEXTARRAYOID,
    pg_sys::TEXTARRAYOID,
    pg_sys::TEXTARRAYOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
];

impl Registration {
    fn read(row: &Row<'_>) -> Option<Registration> {
        Some(Registration {
            relation: row.oid(0)?,
            known_as: row.oid(1)?,
            kind: row.character(2)?,
            protect_id: row.int8(3)?,
            is_root: row.boolean(4)?,
            full_images: row.text(5)? == FULL,
            baseline: row.boolean(6)?,
            exclude: row.array(7)?,
            exclude_numbers: row.array(8)?,
            shape: Shape { columns: row.array(9)?, types: row.array(10)?, key: row.array(11)? },
            schema: row.text(12)?.into_owned(),
            name: row.text(13)?.into_owned(),
        })
    }

    fn row(&self) -> Vec<Option<pg_sys::Datum>> {
        vec![
            self.relation.into_datum(),
            self.known_as.into_datum(),
            (self.kind as i8).into_datum(),
            self.protect_id.into_datum(),
            self.is_root.into_datum(),
            Some(datum::from_bytes(images(self.full_images).as_bytes())),
            self.baseline.into_datum(),
            self.exclude.clone().into_datum(),
            self.exclude_numbers.clone().into_datum(),
            self.shape.columns.clone().into_datum(),
            self.shape.types.clone().into_datum(),
            self.shape.key.clone().into_datum(),
            Some(datum::from_bytes(self.schema.as_bytes())),
            Some(datum::from_bytes(self.name.as_bytes())),
        ]
    }

    /// The names of the excluded columns today.
    ///
    /// A column is followed by name, so that a dump may renumber it; where the name is gone, by number, so that it may be renamed; where
    /// both are gone it was dropped.
    pub(crate) fn excluded_today(&self, relation: &Relation) -> Vec<String> {
        let columns = relation.column_names();
        self.exclude
            .iter()
            .zip(&self.exclude_numbers)
            .filter_map(|(name, number)| {
                columns
                    .iter()
                    .find(|(_, other)| other == name)
                    .or_else(|| columns.iter().find(|(other, _)| other == number))
                    .map(|(_, name)| name.clone())
            })
            .collect()
    }
}

const FULL: &str = "full";
const CHANGED: &str = "changed";

/// The word for a choice of images.
pub(crate) fn images(full: bool) -> &'static str {
    if full { FULL } else { CHANGED }
}

/// The choice of images for a word; `None` for another word.
pub(crate) fn is_full(images: &str) -> Option<bool> {
    match images {
        FULL => Some(true),
        CHANGED => Some(false),
        _ => None,
    }
}

/// All registrations.
pub(crate) fn all(objects: &Objects, visible: Visible) -> Result<Vec<Registration>, Error> {
    let table = open(objects.registry, Lock::AccessShare, &REGISTRY_TYPES)?;
    let mut scan = TableScan::new(&table, visible);
    let mut registrations = Vec::new();
    while let Some(row) = scan.next(REGISTRY_TYPES.len()) {
        registrations.extend(Registration::read(&row));
    }
    Ok(registrations)
}

/// The registration of a table, if it is protected.
pub(crate) fn find(objects: &Objects, oid: pg_sys::Oid) -> Result<Option<Registration>, Error> {
    let table = open(objects.registry, Lock::AccessShare, &REGISTRY_TYPES)?;
    let mut scan = TableScan::new(&table, Visible::Now);
    while let Some(row) = scan.next(REGISTRY_TYPES.len()) {
        if row.oid(0) == Some(oid) {
            return Ok(Registration::read(&row));
        }
    }
    Ok(None)
}

/// Adds registrations.
pub(crate) fn add(objects: &Objects, registrations: &[Registration]) -> Result<(), Error> {
    let table = open(objects.registry, Lock::RowExclusive, &REGISTRY_TYPES)?;
    let writer = Writer::new(&table);
    for registration in registrations {
        writer.insert(&registration.row());
    }
    Ok(())
}

/// Puts another registration in the place of that of the same table.
pub(crate) fn replace(objects: &Objects, registration: &Registration) -> Result<(), Error> {
    let table = open(objects.registry, Lock::RowExclusive, &REGISTRY_TYPES)?;
    rewrite(&table, |row| match row.oid(0) {
        Some(oid) if oid == registration.relation => Fate::Replace(registration.row()),
        _ => Fate::Keep,
    });
    Ok(())
}

/// Removes the registrations of these tables; gives how many there were.
pub(crate) fn remove(objects: &Objects, relations: &[pg_sys::Oid]) -> Result<usize, Error> {
    let table = open(objects.registry, Lock::RowExclusive, &REGISTRY_TYPES)?;
    Ok(rewrite(&table, |row| match row.oid(0) {
        Some(oid) if relations.contains(&oid) => Fate::Delete,
        _ => Fate::Keep,
    }))
}

/// After a restore: lets the log know the tables by their present object ids from here on.
pub(crate) fn adopt_present_ids(objects: &Objects) -> Result<(), Error> {
    let table = open(objects.registry, Lock::RowExclusive, &REGISTRY_TYPES)?;
    rewrite(&table, |row| match Registration::read(row) {
        Some(registration) if registration.known_as != registration.relation => {
            Fate::Replace(Registration { known_as: registration.relation, ..registration }.row())
        }
        _ => Fate::Keep,
    });
    Ok(())
}

fn open(oid: pg_sys::Oid, lock: Lock, types: &[pg_sys::Oid]) -> Result<Relation, Error> {
    let relation = Relation::open(oid, lock);
    if relation.has_types(types) { Ok(relation) } else { Err(Error::NotInstalled) }
}

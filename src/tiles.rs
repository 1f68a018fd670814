//! Where the tree is stored: whole tiles in the table `audit.tile`, the right edge nowhere.
//!
//! The edge is computed when it is needed: its leaves from the entries that the seals counted, its other hashes from the roots of the tiles below. The only file that knows
//! the columns of `audit.tile`.

use audit_ledger::tile::{ReadError, decode_hashes, encode_hashes};
use audit_ledger::{LeafHash, NodeHash, TileId, TileSlice, TileSource, WholeTile};
use pgrx::{IntoDatum, pg_sys};

use crate::error::Error;
use crate::log::Log;
use crate::pg::datum;
use crate::pg::memory::Scratch;
use crate::pg::relation::{Lock, Relation};
use crate::pg::scan::{Comparison, Condition, Direction, Row, Visible, by_index};
use crate::pg::tuple::Writer;
use crate::registry::Objects;
use crate::seal::{Seals, open_key, unreadable};

/// The columns of `audit.tile`, in the order of `sql/tables.sql`.
mod column {
    pub(super) const LEVEL: usize = 0;
    pub(super) const INDEX: usize = 1;
    pub(super) const HASHES: usize = 2;
    pub(super) const ROOT: usize = 3;
}

const TYPES: [pg_sys::Oid; 4] = [pg_sys::INT2OID, pg_sys::INT8OID, pg_sys::BYTEAOID, pg_sys::BYTEAOID];

/// The table, open.
pub(crate) struct Tiles {
    table: Relation,
    pkey: Option<pg_sys::Oid>,
    visible: Visible,
    scratch: Scratch,
}

impl Tiles {
    /// Opens the table. `lock` is AccessShare to read, RowExclusive to write.
    pub(crate) fn open(objects: &Objects, lock: Lock, visible: Visible) -> Result<Tiles, Error> {
        let table = Relation::open(objects.tile, lock);
        if !table.has_types(&TYPES) {
            return Err(Error::NotInstalled);
        }
        Ok(Tiles { table, pkey: objects.tile_pkey, visible, scratch: Scratch::new() })
    }

    /// Stores a tile that became whole.
    pub(crate) fn add(&self, tile: &WholeTile) {
        // A large seal stores many: what one of them takes is freed before the next.
        self.scratch.within(|| {
            let mut row = [None; TYPES.len()];
            row[column::LEVEL] = i16::from(tile.id.level()).into_datum();
            row[column::INDEX] = (tile.id.index() as i64).into_datum();
            row[column::HASHES] = Some(datum::from_bytes(&encode_hashes(&tile.hashes)));
            row[column::ROOT] = Some(datum::from_bytes(tile.root.as_bytes()));
            Writer::new(&self.table).insert(&row);
        });
        self.scratch.reset();
    }

    /// Whether tiles can be found: their key is there.
    pub(crate) fn have_key(&self) -> bool {
        self.pkey.is_some()
    }

    /// What the row of a tile holds, be it right or not: hashes and root.
    pub(crate) fn stored<R>(
        &self,
        id: TileId,
        read: impl Fn(Option<&[u8]>, Option<&[u8]>) -> R,
    ) -> Result<Option<R>, Error> {
        let index = open_key(self.pkey)?;
        let mut found = None;
        by_index(&self.table, &index, self.visible, &place(id, Comparison::Equal), Direction::Forward, |row| {
            found = Some(self.scratch.within(|| read(row.bytes(column::HASHES), row.bytes(column::ROOT))));
            self.scratch.reset();
            false
        });
        Ok(found)
    }

    /// The lowest index, not below `index`, of a tile of this level.
    pub(crate) fn index_from(&self, level: u8, index: u64) -> Result<Option<u64>, Error> {
        let Ok(id) = TileId::new(level, index) else { return Ok(None) };
        let key = open_key(self.pkey)?;
        let mut found = None;
        by_index(&self.table, &key, self.visible, &place(id, Comparison::AtLeast), Direction::Forward, |row| {
            found = row.int8(column::INDEX).and_then(|index| u64::try_from(index).ok());
            false
        });
        Ok(found)
    }

    /// The tree, for whoever reads it through [`TileSource`].
    pub(crate) fn source<'a>(&'a self, seals: &'a Seals, log: &'a Log) -> Source<'a> {
        Source { tiles: self, seals, log }
    }

    /// The hashes of a whole tile; `None` when it is not stored.
    fn hashes(&self, id: TileId) -> Result<Option<Vec<NodeHash>>, Error> {
        let index = open_key(self.pkey)?;
        let mut found = None;
        by_index(&self.table, &index, self.visible, &place(id, Comparison::Equal), Direction::Forward, |row| {
            let hashes = self.scratch.within(|| row.bytes(column::HASHES).and_then(|bytes| decode_hashes(bytes).ok()));
            self.scratch.reset();
            found = Some(hashes.ok_or_else(|| unreadable("audit.tile", "hashes")));
            false
        });
        found.transpose()
    }

    /// The roots of `count` neighbouring whole tiles, the first being `id`.
    fn roots(&self, id: TileId, count: usize) -> Result<Vec<NodeHash>, Error> {
        let index = open_key(self.pkey)?;
        let mut roots = Vec::with_capacity(count);
        let mut damaged = None;
        by_index(&self.table, &index, self.visible, &place(id, Comparison::AtLeast), Direction::Forward, |row| {
            let expected = id.index() + roots.len() as u64;
            if roots.len() == count || row.int8(column::INDEX) != i64::try_from(expected).ok() {
                return false;
            }
            match row.bytes(column::ROOT).and_then(|bytes| NodeHash::try_from(bytes).ok()) {
                Some(root) => roots.push(root),
                None => damaged = Some(unreadable("audit.tile", "root")),
            }
            damaged.is_none()
        });
        match damaged {
            Some(error) => Err(error),
            None if roots.len() < count => Err(missing(id.level(), id.index() + roots.len() as u64)),
            None => Ok(roots),
        }
    }
}

/// The tree of a ledger as it is stored.
pub(crate) struct Source<'a> {
    tiles: &'a Tiles,
    seals: &'a Seals,
    log: &'a Log,
}

impl TileSource for Source<'_> {
    type Error = Error;

    fn read_tiles(&mut self, tiles: &[TileSlice]) -> Result<Vec<Vec<NodeHash>>, Error> {
        tiles.iter().map(|slice| self.read(*slice)).collect()
    }
}

impl Source<'_> {
    fn read(&self, slice: TileSlice) -> Result<Vec<NodeHash>, Error> {
        let (id, width) = (slice.id(), usize::from(slice.width()));
        if slice.is_whole() {
            return self.tiles.hashes(id)?.ok_or_else(|| missing(id.level(), id.index()));
        }
        match id.level().checked_sub(1) {
            Some(below) => {
                let first = TileId::new(below, id.index() * 256).map_err(|error| damaged(&error))?;
                self.tiles.roots(first, width)
            }
            // The edge of an older tree may lie in a tile that is whole by now.
            None => match self.tiles.hashes(id)? {
                Some(mut hashes) => {
                    hashes.truncate(width);
                    Ok(hashes)
                }
                None => self.leaves(id.index() * 256, width),
            },
        }
    }

    /// `count` leaves, computed from the entries that the seals counted.
    fn leaves(&self, first: u64, count: usize) -> Result<Vec<NodeHash>, Error> {
        let not_counted = |leaf: u64| damaged(&format!("no seal says which entry leaf {leaf} is"));
        let mut leaves: Vec<NodeHash> = Vec::with_capacity(count);
        let start = self.seals.range_of_leaf(first)?.ok_or_else(|| not_counted(first))?;
        self.seals.visit_ranges(start.first_leaf, |stored| {
            let stored = stored.map_err(|column| unreadable("audit.seal_range", column))?;
            let leaf = first + leaves.len() as u64;
            let Some(skipped) = leaf.checked_sub(stored.first_leaf).filter(|skipped| *skipped < stored.range.count())
            else {
                return Err(not_counted(leaf));
            };
            let mut seq = stored.range.first + skipped;
            self.log.hashes(
                &self.seals.ledger,
                stored.range.chain,
                seq..=stored.range.last,
                self.tiles.visible,
                |found, hash| {
                    let Some(hash) = hash.filter(|_| found == seq) else { return false };
                    leaves.push(LeafHash::of_entry(&hash).into());
                    seq += 1;
                    seq <= stored.range.last && leaves.len() < count
                },
            )?;
            if seq <= stored.range.last && leaves.len() < count {
                let chain = stored.range.chain;
                return Err(damaged(&format!(
                    "entry {seq} of chain {chain}, which seal {} counted, is missing",
                    stored.seal
                )));
            }
            Ok(leaves.len() < count)
        })?;
        if leaves.len() < count { Err(not_counted(first + leaves.len() as u64)) } else { Ok(leaves) }
    }
}

/// A failure to read the tree, as one of ours.
pub(crate) fn read_error(error: ReadError<Error>) -> Error {
    match error {
        ReadError::Source(error) => error,
        other => damaged(&other),
    }
}

/// For a trigger on `audit.tile` itself: whether the row holds a tile with its root.
pub(crate) fn check_row(relation: &Relation, row: &Row<'_>) -> Result<(), Error> {
    if !relation.has_types(&TYPES) {
        return Err(Error::NotInstalled);
    }
    let id = row
        .int2(column::LEVEL)
        .zip(row.int8(column::INDEX))
        .and_then(|(level, index)| TileId::new(u8::try_from(level).ok()?, u64::try_from(index).ok()?).ok());
    let tile = row
        .bytes(column::HASHES)
        .and_then(|bytes| decode_hashes(bytes).ok())
        .zip(id)
        .and_then(|(hashes, id)| WholeTile::new(id, hashes).ok());
    let why = match (tile, row.bytes(column::ROOT)) {
        (None, _) => "The row is not that of a whole tile.".to_owned(),
        (Some(tile), Some(root)) if root == tile.root.as_bytes() => return Ok(()),
        (Some(tile), _) => format!("Its root is not that of its hashes, {}.", tile.root),
    };
    let place = |value: Option<i64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
    Err(Error::RestoredRow {
        what: format!(
            "tile {} of level {}",
            place(row.int8(column::INDEX)),
            place(row.int2(column::LEVEL).map(i64::from))
        ),
        why,
    })
}

fn place(id: TileId, comparison: Comparison) -> [Condition; 2] {
    let function = match comparison {
        Comparison::Equal => pg_sys::F_INT8EQ,
        Comparison::AtLeast => pg_sys::F_INT8GE,
        Comparison::AtMost => pg_sys::F_INT8LE,
    };
    [
        Condition {
            number: column::LEVEL as i16 + 1,
            comparison: Comparison::Equal,
            function: pg_sys::F_INT2EQ,
            value: pg_sys::Datum::from(i16::from(id.level())),
        },
        Condition {
            number: column::INDEX as i16 + 1,
            comparison,
            function,
            value: pg_sys::Datum::from(id.index() as i64),
        },
    ]
}

fn missing(level: u8, index: u64) -> Error {
    damaged(&format!("tile {index} of level {level} is missing"))
}

fn damaged(what: &impl ToString) -> Error {
    Error::TreeDamaged { what: what.to_string() }
}

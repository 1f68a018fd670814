//! The seals, the tree and checkpoints against the log, for `audit.verify()` and `audit.findings()`. The judgement is the ledger crate's
//! (`seal_verify`); here rows are read and handed to it.
//!
//! The tree has another order than the table of the log, and to read each entry by the index in the order of the tree takes as long as all the rest of a verification. So the engine is first given the leaves that the
//! stored tiles hold, and [`Leaves`] and `leaf_sum` show whether they are those of the log. Where anything is wrong, be it what it may, that run is thrown away and the engine is given the
//! entries themselves: it alone tells what is wrong. docs/design/0006-parallel-verification.md.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::rc::Rc;

use audit_ledger::{
    Brought, Finding, Hash, Head, Kind, LeafHash, LeafSum, NodeHash, NoteVerifier, SealSummary, SealVerifier,
    SealedHash, SealedLog, StoredSeal, StoredTile, TileId, TileReader, TileWriter, TreeHead, VerifierKey,
    read_checkpoint,
};
use uuid::Uuid;

use crate::error::{self, Error};
use crate::log::Log;
use crate::pg::relation::Lock;
use crate::pg::scan::Visible;
use crate::registry::Objects;
use crate::seal::{Seals, StoredRange};
use crate::tiles::{self, Tiles};

/// Where a verification begins: behind a seal that is taken to be right.
pub(crate) struct Start {
    seal: StoredSeal,
    writer: TileWriter,
    /// The last entry that was sealed then, of each chain, ascending.
    chains: Vec<Head>,
}

impl Start {
    /// Behind the seal with this number. It must fit its own hash, and the stored tree its root.
    pub(crate) fn behind(objects: &Objects, ledger: Uuid, log: &Log, number: i64) -> Result<Start, Error> {
        let unknown = || Error::NoSuchSeal { number };
        let seals = Seals::open(objects, Lock::AccessShare, ledger, Visible::Statement)?;
        let tiles = Tiles::open(objects, Lock::AccessShare, Visible::Statement)?;
        let row = u64::try_from(number).ok().and_then(|number| seals.by_number(number).transpose());
        let row = row.ok_or_else(unknown)??;
        let before = match row.number {
            1 => 0,
            number => seals.by_number(number - 1)?.map_or(0, |before| before.head.size.get()),
        };
        let (seal, _) = seals.with_ranges(row, before, &mut |_| {})?;
        if seal.seal.hash_with(&mut Vec::new()) != seal.hash {
            return Err(Error::TreeDamaged { what: format!("seal {number} was changed: its hash does not fit") });
        }
        let writer = TileWriter::resume(&seal.seal.head, &mut tiles.source(&seals, log)).map_err(tiles::read_error)?;
        let mut chains = Vec::new();
        let mut from = 1;
        while let Some(chain) = seals.next_chain(from)? {
            if let Some(stored) = seals.reached_by(chain, seal.seal.number)? {
                let (seq, hash) = (stored.range.last, stored.range.head);
                chains.push(Head { ledger, chain, seq, hash, id: 0, entries: 0 });
            }
            match chain.checked_add(1) {
                Some(next) => from = next,
                None => break,
            }
        }
        Ok(Start { seal, writer, chains })
    }

    /// The last sealed entry of a chain, 0 when there is none.
    pub(crate) fn sealed(&self, chain: u32) -> u64 {
        self.chains.binary_search_by_key(&chain, |head| head.chain).map_or(0, |place| self.chains[place].seq)
    }

    /// The last sealed entries of the chains.
    pub(crate) fn chains(&self) -> &[Head] {
        &self.chains
    }
}

/// What is to be verified.
pub(crate) struct Subject<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) log: &'a Log,
    pub(crate) ledger: Uuid,
    /// The last entry of each chain, as the log has it.
    pub(crate) heads: &'a [Head],
    /// Where to begin; `None`: before the first seal.
    pub(crate) start: Option<Start>,
}

impl Subject<'_> {
    /// The first leaf that is looked at.
    fn first_leaf(&self) -> u64 {
        self.start.as_ref().map_or(0, |start| start.seal.seal.head.size.get())
    }
}

/// A checkpoint that the auditor holds, what to call the log, and the keys that may have signed.
pub(crate) struct Held<'a> {
    pub(crate) text: &'a str,
    pub(crate) origin: &'a str,
    pub(crate) keys: &'a [VerifierKey],
}

impl Held<'_> {
    /// What it says, if it is one of this log.
    fn head(&self, sink: &mut impl FnMut(Finding)) -> Result<Option<TreeHead>, Error> {
        let keys: Vec<&dyn NoteVerifier> = self.keys.iter().map(|key| key as &dyn NoteVerifier).collect();
        match read_checkpoint(self.text.as_bytes(), self.origin, &keys).map_err(bad_checkpoint)? {
            Brought::Valid { head, .. } => Ok(Some(head)),
            Brought::Refused(finding) => {
                sink(finding);
                Ok(None)
            }
        }
    }

    /// What is wrong with a text as a checkpoint, whosever it is.
    pub(crate) fn check(text: &str) -> Result<(), Error> {
        read_checkpoint(text.as_bytes(), "", &[]).map(drop).map_err(bad_checkpoint)
    }
}

fn bad_checkpoint(error: impl ToString) -> Error {
    Error::BadText { argument: "checkpoint", what: error.to_string() }
}

/// The leaves of the sealed entries as the log has them, added up while the log is read.
pub(crate) struct Leaves {
    seals: Seals,
    sum: LeafSum,
    /// The last sealed entry of each chain that was met.
    reached: HashMap<u32, u64>,
    /// The chain met last, as entries come in bursts, and how far it is sealed.
    last: (u32, u64),
    /// An entry whose leaf is still to be computed: two take little more time than one.
    waiting: Option<(u32, u64, Hash)>,
}

impl Leaves {
    /// `None` where that cannot be known, as a key is missing. `key` must be random, and the same for all who read a part of the log.
    pub(crate) fn new(objects: &Objects, ledger: Uuid, key: [u8; 16]) -> Result<Option<Leaves>, Error> {
        let seals = Seals::open(objects, Lock::AccessShare, ledger, Visible::Statement)?;
        let leaves = Leaves { seals, sum: LeafSum::new(key), reached: HashMap::new(), last: (0, 0), waiting: None };
        Ok(leaves.seals.have_keys().then_some(leaves))
    }

    /// Adds an entry, if it is one of the ledger, and sealed.
    pub(crate) fn add(&mut self, ledger: &Uuid, chain: u32, seq: u64, hash: &Hash) -> Result<(), Error> {
        if *ledger != self.seals.ledger {
            return Ok(());
        }
        if self.last.0 != chain {
            let reached = match self.reached.get(&chain) {
                Some(reached) => *reached,
                None => {
                    let reached = self.seals.reached(chain)?;
                    self.reached.insert(chain, reached);
                    reached
                }
            };
            self.last = (chain, reached);
        }
        if seq > self.last.1 {
            return Ok(());
        }
        match self.waiting.take() {
            None => self.waiting = Some((chain, seq, *hash)),
            Some((other_chain, other_seq, other)) => {
                let leaves = LeafHash::of_two_entries(&other, hash);
                self.sum.add(other_chain, other_seq, &leaves[0]);
                self.sum.add(chain, seq, &leaves[1]);
            }
        }
        Ok(())
    }

    /// What has been added up.
    pub(crate) fn into_sum(mut self) -> LeafSum {
        if let Some((chain, seq, hash)) = self.waiting {
            self.sum.add(chain, seq, &LeafHash::of_entry(&hash));
        }
        self.sum
    }
}

/// What was found out; `None` where the seals could not be read at all, which is a finding.
///
/// `leaves` is what [`Leaves`] came to for all entries that the subject has, with the key of its sum; `None` where that is not known.
pub(crate) fn verify(
    subject: &Subject<'_>,
    leaves: Option<(&LeafSum, [u8; 16])>,
    held: Option<&Held<'_>>,
    step: &mut impl FnMut(),
    sink: &mut impl FnMut(Finding),
) -> Result<Option<SealSummary>, Error> {
    let &Subject { objects, log, ledger, .. } = subject;
    let seals = Seals::open(objects, Lock::AccessShare, ledger, Visible::Statement)?;
    let tiles = Tiles::open(objects, Lock::AccessShare, Visible::Statement)?;
    if !seals.have_keys() || !tiles.have_key() {
        sink(finding(
            Kind::Seal,
            "a key of audit.seal, audit.seal_range or audit.tile is missing".into(),
            "Without it the seals cannot be verified. Make the key again, and look who dropped it.",
        ));
        return Ok(None);
    }
    // Told as a fault of coverage.
    if !log.has_key() {
        return Ok(None);
    }
    let held = match held {
        Some(held) => held.head(sink)?,
        None => None,
    };
    let tables = Tables { seals: &seals, tiles: &tiles };
    if let Some((leaves, key)) = leaves {
        let mut stored = LeafLog::new(log, &tables, subject.first_leaf(), LeafSum::new(key), step);
        let mut faults = 0_u64;
        let summary = pass(subject, &tables, held, &mut stored, &mut |_| faults += 1)?;
        if faults == 0 && stored.sum.total() == leaves.total() {
            return Ok(Some(summary));
        }
    }
    error::debug("the sealed entries are read one by one".into());
    let mut sealed = SqlLog { log, tiles: &tiles, ledger, step };
    pass(subject, &tables, held, &mut sealed, sink).map(Some)
}

/// The tables of seals, open.
struct Tables<'a> {
    seals: &'a Seals,
    tiles: &'a Tiles,
}

/// Gives the engine all seals, and the log as `sealed` has it.
fn pass(
    subject: &Subject<'_>,
    tables: &Tables<'_>,
    held: Option<TreeHead>,
    sealed: &mut impl SealedLog<Error = Error>,
    sink: &mut impl FnMut(Finding),
) -> Result<SealSummary, Error> {
    let (Subject { log, ledger, heads, start, .. }, Tables { seals, tiles }) = (subject, tables);
    let (mut verifier, first, mut leaf) = match start {
        None => (SealVerifier::new(*ledger), 1, 0),
        Some(Start { seal, writer, chains }) => {
            let (number, size) = (seal.seal.number, seal.seal.head.size.get());
            let chains = chains.iter().map(|head| (head.chain, head.seq));
            (SealVerifier::since(seal, writer.clone(), chains), number + 1, size)
        }
    };
    if let Some(head) = held
        && verifier.expect(head).is_err()
    {
        // It is older than the seal behind which to begin: it is held against the tree there.
        let size = verifier.begin();
        let mut source = tiles.source(seals, log);
        verifier.expect_earlier(head, &mut TileReader::new(size, &mut source)).map_err(crate::proof::build_error)?;
    }
    seals.visit(first, |row| {
        let row = match row {
            Ok(row) => row,
            Err(column) => {
                sink(finding(
                    Kind::Seal,
                    format!("column \"{column}\" of a row of audit.seal holds no valid value"),
                    "The seal was changed after it was made. Compare with a backup or another copy of the log.",
                ));
                return Ok(());
            }
        };
        let mut strays = Vec::new();
        let (seal, next) = seals.with_ranges(row, leaf, &mut |stray| strays.push(stray))?;
        leaf = next;
        for stray in strays {
            verifier.stray_range(stray.seal, &stray.range, sink);
        }
        verifier.seal(&seal, sealed, sink)
    })?;
    seals.visit_ranges(leaf, |stored| {
        if let Ok(stored) = stored {
            if seals.has(stored.seal) {
                sink(misplaced(&stored));
            } else {
                verifier.stray_range(stored.seal, &stored.range, sink);
            }
        }
        Ok(true)
    })?;
    verifier.finish(heads, sealed, sink)
}

/// A range that is not where the leaves of its seal are.
fn misplaced(stored: &StoredRange) -> Finding {
    let StoredRange { seal, range, first_leaf } = stored;
    Finding {
        chain: i32::try_from(range.chain).ok(),
        seq: i64::try_from(range.first).ok(),
        ..finding(
            Kind::Seal,
            format!(
                "range {} to {} of chain {} begins at leaf {first_leaf}, where seal {seal} has none",
                range.first, range.last, range.chain
            ),
            "The range was changed or added after the seal was made.",
        )
    }
}

/// The log as the tables hold it.
struct SqlLog<'a, F> {
    log: &'a Log,
    tiles: &'a Tiles,
    ledger: Uuid,
    step: &'a mut F,
}

impl<F: FnMut()> SealedLog for SqlLog<'_, F> {
    type Error = Error;

    fn entries(
        &mut self,
        chain: u32,
        first: u64,
        last: u64,
        each: &mut dyn FnMut(u64, SealedHash) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.log.hashes(&self.ledger, chain, first..=last, Visible::Statement, |seq, hash| {
            (self.step)();
            // A stored hash that is none fits no tree; that it was changed is told as a fault of the entry.
            each(seq, SealedHash::Entry(hash.unwrap_or(Hash::GENESIS))).is_continue()
        })
    }

    fn has_tiles(&self) -> bool {
        true
    }

    fn tile(&mut self, id: TileId) -> Result<Option<StoredTile>, Error> {
        stored_tile(self.tiles, id)
    }

    fn tile_from(&mut self, level: u8, index: u64) -> Result<Option<u64>, Error> {
        self.tiles.index_from(level, index)
    }
}

fn stored_tile(tiles: &Tiles, id: TileId) -> Result<Option<StoredTile>, Error> {
    tiles.stored(id, |hashes, root| StoredTile {
        hashes: hashes.unwrap_or_default().to_vec(),
        root: root.and_then(|root| NodeHash::try_from(root).ok()).unwrap_or(NodeHash::from([0; 32])),
    })
}

/// The log as the stored tiles have it: the leaves of whole tiles are taken from there, in their order, and only those of the right edge from the entries. It is right only if its sum is
/// that of the log.
struct LeafLog<'a, F> {
    log: &'a Log,
    tables: &'a Tables<'a>,
    step: &'a mut F,
    sum: LeafSum,
    /// The leaf that comes next.
    next: u64,
    /// The tile that it lies in.
    tile: Option<(u64, Rc<StoredTile>)>,
    /// Tiles of level 0 whose leaves were given out, until they are asked for to be compared.
    given: BTreeMap<u64, Rc<StoredTile>>,
}

impl<'a, F: FnMut()> LeafLog<'a, F> {
    fn new(log: &'a Log, tables: &'a Tables<'a>, next: u64, sum: LeafSum, step: &'a mut F) -> LeafLog<'a, F> {
        LeafLog { log, tables, step, sum, next, tile: None, given: BTreeMap::new() }
    }

    /// The next leaf, if it lies in a tile that is stored.
    fn stored_leaf(&mut self) -> Result<Option<LeafHash>, Error> {
        let (index, place) = (self.next / 256, (self.next % 256) as usize);
        if self.tile.as_ref().is_none_or(|(known, _)| *known != index) {
            let id = TileId::new(0, index).map_err(|error| Error::TreeDamaged { what: error.to_string() })?;
            self.tile = stored_tile(self.tables.tiles, id)?.map(|tile| (index, Rc::new(tile)));
            if let Some((_, tile)) = &self.tile {
                self.given.insert(index, tile.clone());
            }
        }
        let leaves = self.tile.as_ref().map(|(_, tile)| tile.hashes.as_chunks::<32>().0);
        Ok(leaves.and_then(|leaves| leaves.get(place)).map(|leaf| LeafHash::from(*leaf)))
    }
}

impl<F: FnMut()> SealedLog for LeafLog<'_, F> {
    type Error = Error;

    fn entries(
        &mut self,
        chain: u32,
        first: u64,
        last: u64,
        each: &mut dyn FnMut(u64, SealedHash) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut seq = first;
        while seq <= last
            && let Some(leaf) = self.stored_leaf()?
        {
            (self.step)();
            self.sum.add(chain, seq, &leaf);
            self.next += 1;
            if each(seq, SealedHash::Leaf(leaf)).is_break() {
                return Ok(());
            }
            seq += 1;
        }
        if seq > last {
            return Ok(());
        }
        // What is in no whole tile, or in one that is missing, which the engine notices.
        let LeafLog { log, tables, step, sum, next, .. } = self;
        log.hashes(&tables.seals.ledger, chain, seq..=last, Visible::Statement, |seq, hash| {
            step();
            let hash = hash.unwrap_or(Hash::GENESIS);
            sum.add(chain, seq, &LeafHash::of_entry(&hash));
            *next += 1;
            each(seq, SealedHash::Entry(hash)).is_continue()
        })
    }

    fn has_tiles(&self) -> bool {
        true
    }

    fn tile(&mut self, id: TileId) -> Result<Option<StoredTile>, Error> {
        let given = if id.level() == 0 { self.given.remove(&id.index()) } else { None };
        match given {
            Some(tile) => Ok(Some(Rc::unwrap_or_clone(tile))),
            None => stored_tile(self.tables.tiles, id),
        }
    }

    fn tile_from(&mut self, level: u8, index: u64) -> Result<Option<u64>, Error> {
        self.tables.tiles.index_from(level, index)
    }
}

fn finding(kind: Kind, detail: String, hint: &str) -> Finding {
    Finding { kind, relation: None, chain: None, seq: None, id: None, detail, hint: hint.into() }
}

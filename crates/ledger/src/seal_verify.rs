//! Seals against the log that they count.
//!
//! A chain alone cannot show that its end was cut off, or that it was written anew from some entry on. Seals can: each says how far each chain reached, and the root of
//! the tree over all entries up to there. A checkpoint kept elsewhere shows even what was rewritten together with all seals. The engine is given the seals in their order, reads
//! the hashes of the entries that each counts, and builds the tree again. It keeps one place for each chain and the right edge of the tree, and no entries. What an entry says is
//! not looked at here, and holes inside a chain are told by `links`: give both the same log, and each fault is told once. docs/format.md, section 9.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

use uuid::Uuid;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::entry::Timestamp;
use crate::finding::{Finding, Kind};
use crate::hash::Hash;
use crate::links::{Head, TIME_TOLERANCE_MICROS};
use crate::note::{self, Note, NoteError, NoteVerifier};
use crate::proof::{BuildError, HashReader, build_consistency_proof, verify_consistency};
use crate::seal::{Range, StoredSeal};
use crate::tile::{MAX_LEVEL, TileId, TileSlice, TileWriter, WIDTH, WholeTile};
use crate::tree::{CompactRange, LeafHash, NodeHash, NodeId, TreeHead, TreeSize};

/// How many entries are read before the tiles that became whole are compared: the tiles are kept until then, 2 MiB.
const BATCH: u64 = 1 << 16;

/// How many faults of tiles are told one by one; the rest is counted.
const MAX_TILE_FAULTS: usize = 100;

/// The most leaves of a tree, and the highest place in a chain.
const MAX: u64 = i64::MAX as u64;

/// A log with seals, to be read.
pub trait SealedLog {
    /// Why it could not be read.
    type Error;

    /// Gives the stored hashes of the entries `first` to `last` of a chain of the ledger, ascending, those that are there, until the function breaks off.
    /// Ranges are asked for in the order of their leaves, as long as nothing is wrong.
    fn entries(
        &mut self,
        chain: u32,
        first: u64,
        last: u64,
        each: &mut dyn FnMut(u64, SealedHash) -> ControlFlow<()>,
    ) -> Result<(), Self::Error>;

    /// Whether the tree is stored with the log. An export has none, and then tiles are not asked for.
    fn has_tiles(&self) -> bool;

    /// A stored tile.
    fn tile(&mut self, id: TileId) -> Result<Option<StoredTile>, Self::Error>;

    /// The lowest index, not below `index`, of a stored tile of this level.
    fn tile_from(&mut self, level: u8, index: u64) -> Result<Option<u64>, Self::Error>;
}

/// What is known of a sealed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedHash {
    /// Its stored hash.
    Entry(Hash),
    /// Its leaf in the tree.
    Leaf(LeafHash),
}

impl SealedHash {
    fn leaf(&self) -> LeafHash {
        match self {
            SealedHash::Entry(hash) => LeafHash::of_entry(hash),
            SealedHash::Leaf(leaf) => *leaf,
        }
    }

    fn is_of(&self, entry: &Hash) -> bool {
        match self {
            SealedHash::Entry(hash) => hash == entry,
            SealedHash::Leaf(leaf) => *leaf == LeafHash::of_entry(entry),
        }
    }
}

impl fmt::Display for SealedHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SealedHash::Entry(hash) => hash.fmt(f),
            SealedHash::Leaf(leaf) => write!(f, "one of leaf {}", NodeHash::from(*leaf)),
        }
    }
}

/// A tile as it is stored: nothing of it is known to be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTile {
    /// The hashes, 32 bytes each.
    pub hashes: Vec<u8>,
    /// The root over them.
    pub root: NodeHash,
}

/// A seal, and how far it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealPlace {
    /// Number of the seal.
    pub number: u64,
    /// When it was made, as it says itself.
    pub at: Timestamp,
    /// How many entries are sealed with it.
    pub size: u64,
}

/// What became of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointState {
    /// The tree over as many entries of the log has the root that the checkpoint says. The seal is the first that counts all of them.
    Holds(Option<SealPlace>),
    /// It has another root: this one.
    Differs(NodeHash),
    /// The log has fewer sealed entries: so many.
    Beyond(u64),
    /// The tree cannot be built so far: entries are missing, or seals are missing or were changed.
    Unknown,
}

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealSummary {
    /// How many seals were given, bad ones as well.
    pub seals: u64,
    /// How many sealed entries were read.
    pub entries: u64,
    /// How many entries the seals count that the log does not have.
    pub missing: u64,
    /// How many tiles were compared.
    pub tiles: u64,
    /// The last seal that is not changed.
    pub last: Option<SealPlace>,
    /// The last seal whose root the log has.
    pub confirmed: Option<SealPlace>,
    /// How many entries of the log no seal counts yet.
    pub unsealed: u64,
    /// Each checkpoint, by size, and what became of it.
    pub checkpoints: Vec<(TreeHead, CheckpointState)>,
}

impl SealSummary {
    /// How far the seals reach, as a sentence part. It says what nobody can see: a cut behind the last seal.
    pub fn reach(&self) -> String {
        let sealed = match self.last {
            Some(last) => format!("{} entries are sealed, up to seal {} of {}", last.size, last.number, last.at),
            None => "no entry is sealed".to_owned(),
        };
        format!(
            "{sealed}; {} newer ones are only chained: if the log ended with more of them, it does not show",
            self.unsealed
        )
    }

    /// What the newest checkpoint that holds covers; `None` when none holds.
    pub fn covered(&self) -> Option<String> {
        let holds = |(head, state): &(TreeHead, CheckpointState)| match state {
            CheckpointState::Holds(seal) => Some((head.size.get(), *seal)),
            _ => None,
        };
        let (size, seal) = self.checkpoints.iter().rev().find_map(holds)?;
        let by = match seal {
            Some(seal) if seal.size == size => format!(", up to seal {} of {}", seal.number, seal.at),
            Some(seal) => format!(", within seal {} of {}", seal.number, seal.at),
            None => String::new(),
        };
        let sealed = self.last.map_or(0, |last| last.size).saturating_sub(size);
        Some(format!(
            "the first {size} sealed entries are covered by the checkpoint{by}; {sealed} newer ones are only sealed, {} only chained",
            self.unsealed
        ))
    }
}

/// Verifies the seals of a ledger, given in the order of their numbers.
#[derive(Debug)]
pub struct SealVerifier {
    ledger: Uuid,
    /// The size of the tree at which the verification begins.
    begin: u64,
    tree: Tree,
    chains: BTreeMap<u32, Chain>,
    last: Last,
    /// The highest number of a seal that is missing or changed; 0 while there is none.
    damaged: u64,
    /// The last root told to be wrong was not followed by a right one.
    off: bool,
    /// What is wrong with stored tiles, to be told when it is known that the log is right.
    faults: Vec<String>,
    more_faults: u64,
    seals: u64,
    missing: u64,
    good: Option<SealPlace>,
    confirmed: Option<SealPlace>,
    line: Vec<u8>,
}

/// What the seals so far say of a chain.
#[derive(Clone, Copy, Debug, Default)]
struct Chain {
    /// The last entry that they count.
    last: u64,
    /// The number of the seal that says so.
    seal: u64,
    /// The last entry that was read.
    read: u64,
    /// The run of entries that are not there, seen last.
    missing: Option<(u64, u64)>,
    /// The last head compared was not that of the log, which was told.
    off: bool,
}

/// The seal given last.
#[derive(Clone, Copy, Debug)]
struct Last {
    number: u64,
    hash: Hash,
    /// Its time; that of the seal before it when it was changed.
    at: Option<Timestamp>,
    /// Its size, if that is sure.
    size: Option<u64>,
}

/// The tree built again.
#[derive(Debug)]
struct Tree {
    writer: TileWriter,
    /// Leaves that belong here could not be had: nothing is appended any more.
    broken: bool,
    /// A seal since the last right root was changed or is missing, so that it is not sure which entries are which leaves.
    doubt: bool,
    whole: Vec<WholeTile>,
    entries: u64,
    tiles: u64,
    checkpoints: Vec<Expected>,
    /// How many of the checkpoints were passed.
    passed: usize,
    /// The stored tile from which leaves of missing entries are taken.
    stored: Option<(u64, Option<Vec<u8>>)>,
    /// Leaves of a tile that is not whole yet: a whole one is appended in one go.
    gathered: Vec<NodeHash>,
}

/// A checkpoint to be compared.
#[derive(Debug)]
struct Expected {
    head: TreeHead,
    state: Option<CheckpointState>,
}

impl SealVerifier {
    /// Begins before the first seal.
    pub fn new(ledger: Uuid) -> SealVerifier {
        SealVerifier {
            ledger,
            begin: 0,
            tree: Tree::new(TileWriter::new()),
            chains: BTreeMap::new(),
            last: Last { number: 0, hash: Hash::GENESIS, at: None, size: Some(0) },
            damaged: 0,
            off: false,
            faults: Vec::new(),
            more_faults: 0,
            seals: 0,
            missing: 0,
            good: None,
            confirmed: None,
            line: Vec::new(),
        }
    }

    /// Begins behind a seal that is known to be right. `writer` is the tree at that seal, see [`TileWriter::resume`], and must be of its size; `chains` has the last entry that was sealed then,
    /// of each chain.
    pub fn since(since: &StoredSeal, writer: TileWriter, chains: impl IntoIterator<Item = (u32, u64)>) -> SealVerifier {
        let seal = &since.seal;
        let place = SealPlace { number: seal.number, at: seal.at, size: writer.head().size.get() };
        SealVerifier {
            begin: place.size,
            tree: Tree::new(writer),
            chains: chains
                .into_iter()
                .map(|(chain, last)| (chain, Chain { last, read: last, ..Chain::default() }))
                .collect(),
            last: Last { number: seal.number, hash: since.hash, at: Some(seal.at), size: Some(place.size) },
            good: Some(place),
            confirmed: Some(place),
            ..SealVerifier::new(seal.ledger)
        }
    }

    /// Holds the tree of the log against the one that a checkpoint names. Call it before the first seal; any number of checkpoints is taken. One that is smaller than the tree at which the verification
    /// begins is refused: it cannot be compared here.
    pub fn expect(&mut self, head: TreeHead) -> Result<(), CheckpointTooOld> {
        let size = self.tree.writer.range().size();
        if head.size < size {
            return Err(CheckpointTooOld { size: head.size.get(), begin: size.get() });
        }
        let tree = &mut self.tree;
        tree.checkpoints.push(Expected { head, state: None });
        tree.checkpoints.sort_by_key(|expected| expected.head.size);
        tree.pass_checkpoints();
        if let Some(confirmed) = self.confirmed {
            self.name_seal(confirmed);
        }
        Ok(())
    }

    /// As [`SealVerifier::expect`], for a checkpoint that is smaller than the tree at which the verification begins: it is held against that tree by a consistency proof made of
    /// the stored tiles, which the reader reads for the size at which the verification begins.
    pub fn expect_earlier<R: HashReader>(
        &mut self,
        head: TreeHead,
        reader: &mut R,
    ) -> Result<(), BuildError<R::Error>> {
        let begin = self.tree.writer.head();
        let proof = build_consistency_proof(head.size, begin.size, reader)?;
        let state = if verify_consistency(&proof, &head, &begin).is_ok() {
            CheckpointState::Holds(None)
        } else {
            // The root that the log had then, if the tiles are right.
            let nodes: Vec<NodeId> = head.size.subtrees().collect();
            let hashes = reader.read_hashes(&nodes).map_err(BuildError::Read)?;
            let root = CompactRange::from_hashes(head.size, hashes).map(|range| range.head());
            match root {
                Some(then) if verify_consistency(&proof, &then, &begin).is_ok() => CheckpointState::Differs(then.root),
                _ => CheckpointState::Unknown,
            }
        };
        self.tree.checkpoints.push(Expected { head, state: Some(state) });
        self.tree.checkpoints.sort_by_key(|expected| expected.head.size);
        self.tree.pass_checkpoints();
        Ok(())
    }

    /// The size of the tree so far: at first, that of the tree at which the verification begins.
    pub fn begin(&self) -> TreeSize {
        self.tree.writer.range().size()
    }

    /// How many entries were read so far.
    pub fn entries(&self) -> u64 {
        self.tree.entries
    }

    /// Verifies a seal and the entries that it counts.
    pub fn seal<L: SealedLog>(
        &mut self,
        stored: &StoredSeal,
        log: &mut L,
        sink: &mut impl FnMut(Finding),
    ) -> Result<(), L::Error> {
        let seal = &stored.seal;
        let number = seal.number;
        self.seals += 1;
        if seal.ledger != self.ledger {
            sink(finding(
                Kind::Seal,
                format!("seal {number} is of ledger {}, not {}", seal.ledger, self.ledger),
                "The seal was brought in from another log.",
            ));
            return Ok(());
        }
        let computed = seal.hash_with(&mut self.line);
        let changed = computed != stored.hash;
        if changed {
            sink(finding(
                Kind::Seal,
                format!("stored hash of seal {number} is {}, computed {computed}", stored.hash),
                "The seal was changed after it was made. Compare with a backup or another copy of the log.",
            ));
        }
        let expected = self.last.number.saturating_add(1);
        if number != expected && changed {
            // Which seal this was is not known.
            return Ok(());
        }
        if number < expected {
            sink(finding(
                Kind::Seal,
                format!("seal {number} stands behind seal {}", self.last.number),
                "Seals are numbered 1, 2, 3, ... One that has its number twice was added.",
            ));
            return Ok(());
        }
        if number > expected {
            let what = if number == expected + 1 {
                format!("seal {expected} is missing")
            } else {
                format!("seals {expected} to {} are missing ({})", number - 1, number - expected)
            };
            sink(finding(
                Kind::Seal,
                what,
                "Seals are numbered without a hole: these were deleted. Look for them in a backup or another copy of the log.",
            ));
            self.damaged = number - 1;
            self.tree.doubt = true;
        } else if seal.prev != self.last.hash && !changed {
            sink(finding(
                Kind::Seal,
                format!("prev of seal {number} is {}, hash of the seal before it is {}", seal.prev, self.last.hash),
                "The seal before this one is not the one that was there when this one was made: it was replaced, or made anew together with its hash.",
            ));
        }
        if changed {
            self.damaged = number;
            self.tree.doubt = true;
        } else {
            self.check_form(stored, sink);
        }
        if ranges_can_be_read(&seal.ranges) {
            for range in &seal.ranges {
                self.range(number, range, changed, log, sink)?;
            }
        } else {
            self.damaged = number;
            self.tree.broken = true;
        }
        let place = SealPlace { number, at: seal.at, size: seal.head.size.get() };
        if changed {
            self.last = Last { number, hash: stored.hash, size: None, ..self.last };
        } else {
            if number > expected {
                self.last.size = None;
            }
            self.check_size(stored, sink);
            self.check_root(stored, sink);
            let sure = self.tree.size().unwrap_or(place.size);
            self.last = Last { number, hash: stored.hash, at: Some(seal.at), size: Some(sure) };
            self.good = Some(place);
        }
        if let Some(size) = self.tree.size() {
            self.name_seal(SealPlace { size, ..place });
        }
        Ok(())
    }

    /// Tells of a range that belongs to no seal.
    pub fn stray_range(&mut self, seal: u64, range: &Range, sink: &mut impl FnMut(Finding)) {
        sink(at_entry(
            Kind::Seal,
            range.chain,
            range.first,
            format!(
                "seal {seal} is not there, but its range {} to {} of chain {} is",
                range.first, range.last, range.chain
            ),
            "The seal was deleted, and its ranges were left.",
        ));
    }

    /// Tells what is known only in the end, and sums up. `heads` are those of the whole log, as [`crate::LogVerifier::finish`] gives them: what is missing below them was told there.
    pub fn finish<L: SealedLog>(
        mut self,
        heads: &[Head],
        log: &mut L,
        sink: &mut impl FnMut(Finding),
    ) -> Result<SealSummary, L::Error> {
        let mut unsealed = 0_u64;
        for head in heads.iter().filter(|head| head.ledger == self.ledger) {
            let sealed = self.chains.get(&head.chain).map_or(0, |chain| chain.last);
            unsealed = unsealed.saturating_add(head.seq.saturating_sub(sealed));
        }
        for (chain, state) in &self.chains {
            let head = heads.binary_search_by_key(&(self.ledger, *chain), |head| (head.ledger, head.chain));
            let end = head.map_or(0, |place| heads[place].seq);
            if let Some((first, last)) = state.missing
                && last == state.last
                && end < first
            {
                sink(cut(*chain, first, last, end));
            }
        }
        if !self.off && !self.tree.doubt && !self.tree.broken {
            self.tell_tiles(sink);
        }
        let size = if self.tree.doubt { self.last.size } else { self.tree.size().or(self.last.size) };
        if log.has_tiles()
            && let Some(size) = size
        {
            tiles_beyond(size, log, sink)?;
        }
        let (entries, tiles) = (self.tree.entries, self.tree.tiles);
        let checkpoints = self.tree.finish_checkpoints(size);
        tell_checkpoints(&checkpoints, sink);
        Ok(SealSummary {
            seals: self.seals,
            entries,
            missing: self.missing,
            tiles,
            last: self.good,
            confirmed: self.confirmed,
            unsealed,
            checkpoints,
        })
    }

    fn check_form(&mut self, stored: &StoredSeal, sink: &mut impl FnMut(Finding)) {
        let seal = &stored.seal;
        if let Err(error) = seal.check_form() {
            sink(finding(
                Kind::Seal,
                format!("seal {} is not as it should be: {error}", seal.number),
                "The hash fits, but the extension does not make such a seal: it was made by something else.",
            ));
        }
        if let Some(earlier) = self.last.at
            && seal.at.micros() < earlier.micros() - TIME_TOLERANCE_MICROS
        {
            sink(finding(
                Kind::Seal,
                format!("time of seal {} is {}, that of the seal before it is {earlier}", seal.number, seal.at),
                "The clock of the server went back by more than a minute, or the time was set to hide when the seal was made.",
            ));
        }
    }

    /// Verifies the entries of one chain that a seal counts.
    fn range<L: SealedLog>(
        &mut self,
        number: u64,
        range: &Range,
        changed: bool,
        log: &mut L,
        sink: &mut impl FnMut(Finding),
    ) -> Result<(), L::Error> {
        let chain = self.chains.get(&range.chain).copied().unwrap_or_default();
        let follows = chain.last + 1;
        // A seal in between that is missing or was changed may have counted more or fewer.
        let excused = self.damaged > 0 && self.damaged >= chain.seal;
        let mut first = range.first;
        if first != follows {
            if changed {
                first = follows;
            } else if excused && first > follows {
                // Likely what the seals in between had counted; the root will tell. When a root has fitted since, these leaves are in the tree, taken from the tiles.
                if self.tree.doubt {
                    self.pass(range.chain, follows, first - 1, true, log)?;
                }
            } else if !excused {
                sink(at_entry(
                    Kind::Seal,
                    range.chain,
                    first.min(follows),
                    format!(
                        "seal {number} counts entries {first} to {} of chain {}, the seals before it end at {}",
                        range.last, range.chain, chain.last
                    ),
                    "Each seal begins where the one before ended: one of them was made by something else than the extension.",
                ));
            }
            if first < follows || first > range.last {
                self.tree.broken = true;
            }
            // What was read is not read again, or a few forged seals could make the verification long.
            first = first.max(chain.read + 1);
        }
        let head = self.pass(range.chain, first, range.last, !changed, log)?;
        let chain = self.chains.entry(range.chain).or_default();
        chain.last = if excused || changed { range.last } else { range.last.max(chain.last) };
        chain.seal = number;
        match head {
            Some(head) if !changed && head.is_of(&range.head) => chain.off = false,
            Some(head) if !changed && !std::mem::replace(&mut chain.off, true) => sink(at_entry(
                Kind::Seal,
                range.chain,
                range.last,
                format!("seal {number} says that the hash is {}, that of the log is {head}", range.head),
                "The chain was written anew after it was sealed, up to this entry or further; or entries were taken out and the rest renumbered.",
            )),
            _ => {}
        }
        Ok(())
    }

    /// Reads entries and appends them to the tree; gives the hash of the last one, if it is there. `sure` says that these entries were sealed.
    fn pass<L: SealedLog>(
        &mut self,
        chain: u32,
        first: u64,
        last: u64,
        sure: bool,
        log: &mut L,
    ) -> Result<Option<SealedHash>, L::Error> {
        let mut head = None;
        let mut next = first;
        while next <= last {
            let read = self.tree.append(chain, next, last, log)?;
            self.compare_tiles(log)?;
            head = read.head;
            next = read.next;
            let Some(until) = read.hole else { continue };
            if sure {
                self.missing = self.missing.saturating_add(until - next + 1);
                let missing = &mut self.chains.entry(chain).or_default().missing;
                *missing = match *missing {
                    Some((first, last)) if last + 1 == next => Some((first, until)),
                    _ => Some((next, until)),
                };
            }
            while next <= until && !self.tree.broken {
                let batch = until.min(next.saturating_add(BATCH - 1));
                self.tree.fill(next, batch, log)?;
                self.compare_tiles(log)?;
                next = batch + 1;
            }
            next = until + 1;
        }
        let chain = self.chains.entry(chain).or_default();
        chain.read = chain.read.max(last);
        Ok(head)
    }

    /// Checks that the size is that of the seal before with the ranges of this one.
    fn check_size(&mut self, stored: &StoredSeal, sink: &mut impl FnMut(Finding)) {
        let seal = &stored.seal;
        let said = seal.head.size.get();
        let count = seal.count().unwrap_or(u64::MAX);
        let before = self.last.size.filter(|before| before.saturating_add(count) != said);
        if let Some(before) = before {
            sink(finding(
                Kind::Seal,
                format!(
                    "size of seal {} is {said}, that of the seal before it {before}, and it counts {count} more",
                    seal.number
                ),
                "The seal was made by something else than the extension, or the seal before it was made anew.",
            ));
        }
        // Which leaves a seal had that is not there can only be guessed.
        if (self.tree.doubt || before.is_none()) && self.tree.writer.range().size().get() != said {
            self.tree.broken = true;
        }
    }

    fn check_root(&mut self, stored: &StoredSeal, sink: &mut impl FnMut(Finding)) {
        let seal = &stored.seal;
        let head = self.tree.writer.head();
        if self.tree.broken || head.size != seal.head.size {
            return;
        }
        if head.root == seal.head.root {
            self.off = false;
            self.tree.doubt = false;
            self.confirmed = Some(SealPlace { number: seal.number, at: seal.at, size: head.size.get() });
            self.tell_tiles(sink);
        } else if self.tree.doubt {
            self.tree.broken = true;
        } else if !std::mem::replace(&mut self.off, true) {
            let mut detail =
                format!("root of seal {} is {}, that of the log is {}", seal.number, seal.head.root, head.root);
            if let Some(fault) = self.faults.first() {
                detail.push_str(&format!("; {fault}"));
            }
            let before = match self.confirmed {
                Some(seal) => {
                    format!("since seal {} ({} entries), whose root the log still has", seal.number, seal.size)
                }
                None => "since the first seal".to_owned(),
            };
            sink(finding(
                Kind::Tree,
                detail,
                &format!(
                    "Sealed entries were changed, exchanged or taken out together with their hashes, {before}; or this seal was made anew."
                ),
            ));
        }
    }

    /// Compares the tiles that became whole with those that are stored.
    fn compare_tiles<L: SealedLog>(&mut self, log: &mut L) -> Result<(), L::Error> {
        for tile in self.tree.whole.drain(..) {
            if !log.has_tiles() {
                continue;
            }
            self.tree.tiles += 1;
            let path = TileSlice::new(tile.id, WIDTH).expect("256 is the width of a whole tile");
            let detail = match log.tile(tile.id)? {
                None => format!("{path} is not stored"),
                Some(stored) => match difference(&tile, &stored) {
                    None => continue,
                    Some(difference) => format!("{path}: {difference}"),
                },
            };
            if self.faults.len() < MAX_TILE_FAULTS {
                self.faults.push(detail);
            } else {
                self.more_faults += 1;
            }
        }
        Ok(())
    }

    /// Tells the faults of the tiles, once it is known that the log has the root of the seals.
    fn tell_tiles(&mut self, sink: &mut impl FnMut(Finding)) {
        for fault in self.faults.drain(..) {
            sink(finding(Kind::Tree, fault, TILE_HINT));
        }
        match std::mem::take(&mut self.more_faults) {
            0 => {}
            more => sink(finding(Kind::Tree, format!("{more} more tiles are not those of the log"), TILE_HINT)),
        }
    }

    /// Notes the seal of the checkpoints that were passed within it.
    fn name_seal(&mut self, seal: SealPlace) {
        for expected in &mut self.tree.checkpoints[..self.tree.passed] {
            if let Some(CheckpointState::Holds(of @ None)) = &mut expected.state
                && expected.head.size.get() >= self.begin.max(1)
            {
                *of = Some(seal);
            }
        }
    }
}

/// What was read of a range.
struct Read {
    /// The first entry not read.
    next: u64,
    /// The last entry before the next one that is there, if `next` is not.
    hole: Option<u64>,
    /// Hash of the entry before `next`.
    head: Option<SealedHash>,
}

impl Tree {
    fn new(writer: TileWriter) -> Tree {
        Tree {
            writer,
            broken: false,
            doubt: false,
            whole: Vec::new(),
            entries: 0,
            tiles: 0,
            checkpoints: Vec::new(),
            passed: 0,
            stored: None,
            gathered: Vec::new(),
        }
    }

    /// The size, while it is sure which leaves there are.
    fn size(&self) -> Option<u64> {
        (!self.broken).then(|| self.writer.range().size().get())
    }

    /// Appends the entries from `first` on, until one is not there, or [`BATCH`] were read.
    fn append<L: SealedLog>(&mut self, chain: u32, first: u64, last: u64, log: &mut L) -> Result<Read, L::Error> {
        let mut next = first;
        let mut head = None;
        let mut found = None;
        let batch = last.min(first.saturating_add(BATCH - 1));
        log.entries(chain, first, batch, &mut |seq, hash| {
            if seq < next {
                // It stands twice, which `links` tells.
                return ControlFlow::Continue(());
            }
            if seq > next {
                found = Some(seq);
                return ControlFlow::Break(());
            }
            self.gather(hash.leaf());
            self.entries += 1;
            next += 1;
            head = Some(hash);
            if next > batch { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        self.append_gathered();
        if next > batch {
            return Ok(Read { next, hole: None, head });
        }
        // Ranges may say any number: a hole is passed in one step and not batch by batch.
        if found.is_none() && batch < last {
            log.entries(chain, batch + 1, last, &mut |seq, _| {
                found = Some(seq);
                ControlFlow::Break(())
            })?;
        }
        let until = found.map_or(last, |seq| (seq - 1).min(last));
        Ok(Read { next, hole: Some(until), head: None })
    }

    /// Takes the leaves of entries that are not there from the stored tiles, as far as there are any: so the rest can still be held against the roots.
    fn fill<L: SealedLog>(&mut self, first: u64, last: u64, log: &mut L) -> Result<(), L::Error> {
        for _ in first..=last {
            match self.stored_leaf(log)? {
                Some(leaf) => self.leaf(leaf),
                None => {
                    self.broken = true;
                    break;
                }
            }
        }
        Ok(())
    }

    fn stored_leaf<L: SealedLog>(&mut self, log: &mut L) -> Result<Option<LeafHash>, L::Error> {
        if !log.has_tiles() {
            return Ok(None);
        }
        let leaf = self.writer.range().size().get();
        let index = leaf / u64::from(WIDTH);
        if self.stored.as_ref().is_none_or(|(stored, _)| *stored != index) {
            let id = TileId::new(0, index).ok();
            let tile = match id {
                Some(id) => log.tile(id)?,
                None => None,
            };
            self.stored = Some((index, tile.map(|tile| tile.hashes)));
        }
        let hashes = self.stored.as_ref().and_then(|(_, hashes)| hashes.as_ref());
        let place = (leaf % u64::from(WIDTH)) as usize;
        Ok(hashes.and_then(|hashes| hashes.as_chunks::<32>().0.get(place)).map(|hash| LeafHash::from(*hash)))
    }

    /// Appends a leaf, now or when [`Tree::append_gathered`] is called.
    fn gather(&mut self, leaf: LeafHash) {
        if self.gathered.is_empty() && !self.is_before_tile() {
            return self.leaf(leaf);
        }
        self.gathered.push(leaf.into());
        if self.gathered.len() < usize::from(WIDTH) {
            return;
        }
        let leaves = std::mem::replace(&mut self.gathered, Vec::with_capacity(usize::from(WIDTH)));
        let whole = &mut self.whole;
        if self.writer.append_tile(leaves, |tile| whole.push(tile)).is_err() {
            self.broken = true;
        } else {
            self.pass_checkpoints_here();
        }
    }

    /// Whether a tile begins here, within which no checkpoint has to be compared.
    fn is_before_tile(&self) -> bool {
        let size = self.writer.range().size().get();
        let width = u64::from(WIDTH);
        let next = self.checkpoints.get(self.passed).map_or(u64::MAX, |expected| expected.head.size.get());
        !self.broken && size.is_multiple_of(width) && next.saturating_sub(size) >= width
    }

    fn append_gathered(&mut self) {
        for leaf in std::mem::take(&mut self.gathered) {
            self.leaf(LeafHash::from(*leaf.as_bytes()));
        }
    }

    fn pass_checkpoints_here(&mut self) {
        if self.checkpoints.get(self.passed).is_some_and(|expected| expected.head.size == self.writer.range().size()) {
            self.pass_checkpoints();
        }
    }

    fn leaf(&mut self, leaf: LeafHash) {
        if self.broken {
            return;
        }
        let whole = &mut self.whole;
        if self.writer.append(leaf, |tile| whole.push(tile)).is_err() {
            self.broken = true;
            return;
        }
        self.pass_checkpoints_here();
    }

    /// Compares the checkpoints of the size that the tree has now.
    fn pass_checkpoints(&mut self) {
        let head = self.writer.head();
        self.passed = self.checkpoints.partition_point(|expected| expected.head.size < head.size);
        while let Some(expected) = self.checkpoints.get_mut(self.passed)
            && expected.head.size == head.size
        {
            expected.state = Some(if expected.head.root == head.root {
                CheckpointState::Holds(None)
            } else if self.doubt {
                CheckpointState::Unknown
            } else {
                CheckpointState::Differs(head.root)
            });
            self.passed += 1;
        }
    }

    /// What became of the checkpoints, when the sealed log has this size, if that is sure.
    fn finish_checkpoints(self, size: Option<u64>) -> Vec<(TreeHead, CheckpointState)> {
        let judge = |expected: Expected| {
            let state = expected.state.unwrap_or(match size {
                Some(size) if size < expected.head.size.get() => CheckpointState::Beyond(size),
                _ => CheckpointState::Unknown,
            });
            (expected.head, state)
        };
        self.checkpoints.into_iter().map(judge).collect()
    }
}

fn difference(tile: &WholeTile, stored: &StoredTile) -> Option<String> {
    let (hashes, rest) = stored.hashes.as_chunks::<32>();
    if hashes.len() != usize::from(WIDTH) || !rest.is_empty() {
        return Some(format!("{} bytes are stored, not 8192", stored.hashes.len()));
    }
    let differs = tile.hashes.iter().zip(hashes).position(|(computed, stored)| computed.as_bytes() != stored);
    if let Some(place) = differs {
        let stored = NodeHash::from(hashes[place]);
        // Of level 0, the hash is that of a leaf.
        let leaf = tile.id.index() * u64::from(WIDTH) + place as u64;
        let what = if tile.id.level() == 0 { format!("leaf {leaf}") } else { format!("hash {place}") };
        return Some(format!("stored hash of {what} is {stored}, computed {}", tile.hashes[place]));
    }
    (tile.root != stored.root).then(|| format!("stored root is {}, computed {}", stored.root, tile.root))
}

/// Tells of tiles that a tree of this size does not have.
fn tiles_beyond<L: SealedLog>(size: u64, log: &mut L, sink: &mut impl FnMut(Finding)) -> Result<(), L::Error> {
    for level in 0..=MAX_LEVEL {
        let count = size.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0);
        if let Some(index) = log.tile_from(level, count)? {
            sink(finding(
                Kind::Tree,
                format!(
                    "tile {index} of level {level} is stored, but a tree of {size} leaves has {count} whole tiles of this level"
                ),
                "Seals that counted its entries were deleted, or the tile was added.",
            ));
        }
    }
    Ok(())
}

fn tell_checkpoints(checkpoints: &[(TreeHead, CheckpointState)], sink: &mut impl FnMut(Finding)) {
    let mut holds = None;
    for (head, state) in checkpoints {
        let size = head.size;
        match state {
            CheckpointState::Holds(_) => holds = Some(size),
            CheckpointState::Differs(root) => {
                let from = match holds {
                    Some(holds) => {
                        format!("Up to {holds} entries an older checkpoint holds; for all behind nothing vouches.")
                    }
                    None => "Nothing vouches for any entry of this log.".to_owned(),
                };
                sink(finding(
                    Kind::Checkpoint,
                    format!("root of the first {size} sealed entries is {root}, the checkpoint says {}", head.root),
                    &format!(
                        "The history before the checkpoint was rewritten, or the checkpoint is of another log. {from}"
                    ),
                ));
            }
            CheckpointState::Beyond(sealed) => sink(finding(
                Kind::Checkpoint,
                format!("the checkpoint counts {size} entries, the seals of the log {sealed}"),
                "The log was cut back after the checkpoint was made, or restored from an older copy.",
            )),
            CheckpointState::Unknown => sink(finding(
                Kind::Checkpoint,
                format!(
                    "the root of the first {size} sealed entries cannot be computed to be held against the checkpoint"
                ),
                "Entries or seals before it are missing or were changed; see the other findings.",
            )),
        }
    }
}

/// Whether the ranges can be worked on at all, whatever else is wrong with them.
fn ranges_can_be_read(ranges: &[Range]) -> bool {
    let good = |range: &Range| range.chain > 0 && range.first > 0 && range.first <= range.last && range.last <= MAX;
    ranges.iter().all(good) && ranges.windows(2).all(|pair| pair[0].chain < pair[1].chain)
}

/// A checkpoint is older than the seal from which the verification begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint counts {size} entries, and the verification begins behind {begin}")]
pub struct CheckpointTooOld {
    /// Size of the checkpoint.
    pub size: u64,
    /// Where the verification begins.
    pub begin: u64,
}

/// A checkpoint as somebody brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Brought {
    /// It can be held against the log.
    Valid {
        /// What it says.
        head: TreeHead,
        /// Whether a key of the ledger has signed it.
        signed: bool,
    },
    /// It says nothing of the log: this is why.
    Refused(Finding),
}

/// Reads a checkpoint that an auditor kept: a signed note, or the text alone. When there are keys, one of them must have signed it. The error is that it is no checkpoint at all.
pub fn read_checkpoint(text: &[u8], origin: &str, keys: &[&dyn NoteVerifier]) -> Result<Brought, CheckpointError> {
    let (checkpoint, signed) = match Note::parse(text) {
        Ok(note) => {
            let checkpoint: Checkpoint = note.unverified_text().parse()?;
            match note.open(keys) {
                Ok(_) => (checkpoint, true),
                Err(NoteError::Unsigned) if keys.is_empty() => (checkpoint, false),
                Err(error) => return Ok(refused(error.to_string())),
            }
        }
        Err(error) => match str::from_utf8(text).ok().and_then(|text| text.parse::<Checkpoint>().ok()) {
            Some(checkpoint) => (checkpoint, false),
            None => return Err(error.into()),
        },
    };
    if checkpoint.origin() != origin {
        let error = CheckpointError::OtherLog {
            expected: origin.to_owned(),
            found: checkpoint.origin().chars().take(note::MAX_KEY_LEN).collect(),
        };
        return Ok(refused(error.to_string()));
    }
    if !signed && !keys.is_empty() {
        return Ok(refused("the checkpoint is not signed".to_owned()));
    }
    Ok(Brought::Valid { head: *checkpoint.head(), signed })
}

fn refused(detail: String) -> Brought {
    Brought::Refused(finding(
        Kind::Checkpoint,
        detail,
        "The checkpoint is not one of this ledger, or it was changed. It says nothing of the log.",
    ))
}

const TILE_HINT: &str = "The log has the roots that its seals say: the stored tree was damaged, the entries were not. Proofs made from it are wrong until it is stored right.";

/// The end of a chain that was cut off.
fn cut(chain: u32, first: u64, last: u64, end: u64) -> Finding {
    let what = if first == last {
        format!("entry {first} is missing")
    } else {
        format!("entries {first} to {last} are missing ({})", last - first + 1)
    };
    let left = if end == 0 { "nothing of the chain is left".to_owned() } else { format!("the chain ends at {end}") };
    at_entry(
        Kind::Missing,
        chain,
        first,
        format!("{what}: the seals count them, {left}"),
        "Entries that were sealed were deleted from the end of the chain. Look for them in a backup or another copy of the log.",
    )
}

fn at_entry(kind: Kind, chain: u32, seq: u64, detail: String, hint: &str) -> Finding {
    Finding { chain: i32::try_from(chain).ok(), seq: i64::try_from(seq).ok(), ..finding(kind, detail, hint) }
}

fn finding(kind: Kind, detail: String, hint: &str) -> Finding {
    Finding { kind, relation: None, chain: None, seq: None, id: None, detail, hint: hint.to_owned() }
}

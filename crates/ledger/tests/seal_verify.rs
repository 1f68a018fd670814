//! Seals, tree and checkpoints against a log, whole and damaged in each way.
//!
//! A history is made at random; the engine must say nothing of it, and after each damage exactly what was done.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;

use audit_ledger::seal::Range;
use audit_ledger::tile::encode_hashes;
use audit_ledger::{
    Brought, Checkpoint, CheckpointError, CheckpointState, CompactRange, Finding, Hash, HashReader, Head, Kind,
    LeafHash, Link, Links, NodeHash, NodeId, NoteVerifier, Seal, SealSummary, SealVerifier, SealedHash, SealedLog,
    SignerKey, StoredSeal, StoredTile, TileId, TileWriter, Timestamp, TreeHead, TreeSize, Uuid, read_checkpoint,
};
use proptest::prelude::*;

const LEDGER: Uuid = Uuid::from_u128(7);

/// A log in memory. What an entry says is a number.
#[derive(Clone, Debug)]
struct History {
    chains: BTreeMap<u32, Vec<Entry>>,
    seals: Vec<StoredSeal>,
    tiles: BTreeMap<(u8, u64), StoredTile>,
    leaves: Vec<LeafHash>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    prev: Hash,
    hash: Hash,
    says: u64,
}

fn entry_hash(chain: u32, seq: u64, prev: &Hash, says: u64) -> Hash {
    Hash::of(format!("{chain} {seq} {prev} {says}").as_bytes())
}

/// Makes the chain anew from this place on (from 0).
fn relink(chain: u32, entries: &mut [Entry], from: usize) {
    for place in from..entries.len() {
        let prev = if place == 0 { Hash::GENESIS } else { entries[place - 1].hash };
        let says = entries[place].says;
        entries[place] = Entry { prev, hash: entry_hash(chain, place as u64 + 1, &prev, says), says };
    }
}

fn size(size: u64) -> TreeSize {
    TreeSize::new(size).unwrap()
}

fn rehash(stored: &mut StoredSeal) {
    stored.hash = stored.seal.hash_with(&mut Vec::new());
}

impl History {
    /// Each step seals some more entries of some chains; the last is not sealed.
    fn new(steps: &[BTreeMap<u32, u64>]) -> History {
        let mut history =
            History { chains: BTreeMap::new(), seals: Vec::new(), tiles: BTreeMap::new(), leaves: Vec::new() };
        let mut says = 0;
        for (place, step) in steps.iter().enumerate() {
            for (chain, count) in step {
                let entries = history.chains.entry(*chain).or_default();
                let from = entries.len();
                for _ in 0..*count {
                    says += 1;
                    entries.push(Entry { prev: Hash::GENESIS, hash: Hash::GENESIS, says });
                }
                relink(*chain, entries, from);
            }
            if place + 1 < steps.len() {
                history.seal_lengths(step);
            }
        }
        history.build_tiles();
        history
    }

    fn seal_lengths(&mut self, step: &BTreeMap<u32, u64>) {
        let ranges: Vec<Range> = step
            .iter()
            .map(|(chain, count)| {
                let entries = &self.chains[chain];
                let last = entries.len() as u64;
                Range { chain: *chain, first: last - count + 1, last, head: entries[last as usize - 1].hash }
            })
            .collect();
        for range in &ranges {
            let entries = &self.chains[&range.chain][range.first as usize - 1..range.last as usize];
            self.leaves.extend(entries.iter().map(|entry| LeafHash::of_entry(&entry.hash)));
        }
        let number = self.seals.len() as u64 + 1;
        let seal = Seal {
            ledger: LEDGER,
            number,
            prev: self.seals.last().map_or(Hash::GENESIS, |seal| seal.hash),
            at: Timestamp::new(1_700_000_000_000_000 + number as i64 * 100_000_000).unwrap(),
            head: self.head(self.leaves.len() as u64),
            system: 7,
            timeline: 1,
            ranges,
        };
        let hash = seal.hash_with(&mut Vec::new());
        self.seals.push(StoredSeal { seal, hash });
    }

    fn build_tiles(&mut self) {
        let mut writer = TileWriter::new();
        self.tiles.clear();
        let tiles = &mut self.tiles;
        for leaf in &self.leaves {
            let store = |tile: audit_ledger::WholeTile| {
                let stored = StoredTile { hashes: encode_hashes(&tile.hashes), root: tile.root };
                tiles.insert((tile.id.level(), tile.id.index()), stored);
            };
            writer.append(*leaf, store).unwrap();
        }
    }

    /// Makes all seals and tiles anew from the chains as they are.
    fn rewrite(&mut self) {
        let steps: Vec<BTreeMap<u32, u64>> = self
            .seals
            .iter()
            .map(|stored| stored.seal.ranges.iter().map(|range| (range.chain, range.count())).collect())
            .collect();
        let whole = std::mem::take(&mut self.chains);
        let mut lengths: BTreeMap<u32, usize> = BTreeMap::new();
        (self.seals, self.leaves) = (Vec::new(), Vec::new());
        for step in &steps {
            for (chain, count) in step {
                let length = lengths.entry(*chain).or_default();
                *length += *count as usize;
                self.chains.insert(*chain, whole[chain][..*length].to_vec());
            }
            self.seal_lengths(step);
        }
        self.chains = whole;
        self.build_tiles();
    }

    fn head(&self, leaves: u64) -> TreeHead {
        let mut range = CompactRange::new();
        for leaf in &self.leaves[..leaves as usize] {
            range.append(*leaf).unwrap();
        }
        range.head()
    }

    fn all(&self) -> TreeHead {
        self.head(self.leaves.len() as u64)
    }

    /// The last sealed entry of a chain.
    fn sealed(&self, chain: u32) -> u64 {
        let ranges = self.seals.iter().flat_map(|stored| &stored.seal.ranges);
        ranges.filter(|range| range.chain == chain).map(|range| range.last).max().unwrap_or(0)
    }

    fn unsealed(&self) -> u64 {
        self.chains.iter().map(|(chain, entries)| entries.len() as u64 - self.sealed(*chain)).sum()
    }

    /// Findings of the chains and of the seals, as the extension tells them.
    fn verify(&self, checkpoints: &[TreeHead]) -> (Vec<Finding>, SealSummary) {
        self.verify_with(SealVerifier::new(LEDGER), checkpoints, self.seals.iter())
    }

    fn verify_with<'a>(
        &self,
        mut verifier: SealVerifier,
        checkpoints: &[TreeHead],
        seals: impl Iterator<Item = &'a StoredSeal>,
    ) -> (Vec<Finding>, SealSummary) {
        let mut findings = Vec::new();
        let mut sink = |finding| findings.push(finding);
        let heads = self.links(&mut sink);
        let mut log = Log { history: self, read: 0 };
        for checkpoint in checkpoints {
            verifier.expect(*checkpoint).unwrap();
        }
        for stored in seals {
            verifier.seal(stored, &mut log, &mut sink).unwrap();
        }
        let summary = verifier.finish(&heads, &mut log, &mut sink).unwrap();
        (findings, summary)
    }

    fn links(&self, sink: &mut impl FnMut(Finding)) -> Vec<Head> {
        let mut links = Links::new();
        for (chain, entries) in &self.chains {
            for (place, entry) in entries.iter().enumerate() {
                let seq = place as u64 + 1;
                let link =
                    Link { ledger: LEDGER, chain: *chain, seq, prev: entry.prev, hash: entry.hash, id: seq, at: None };
                links.add(&link, sink);
            }
        }
        links.finish(sink)
    }

    fn places(&self, checkpoints: &[TreeHead]) -> Vec<(Kind, Option<i32>, Option<i64>)> {
        places(&self.verify(checkpoints).0)
    }

    fn kinds(&self) -> Vec<Kind> {
        self.verify(&[]).0.iter().map(|finding| finding.kind).collect()
    }
}

fn places(findings: &[Finding]) -> Vec<(Kind, Option<i32>, Option<i64>)> {
    findings.iter().map(|finding| (finding.kind, finding.chain, finding.seq)).collect()
}

fn details(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.detail.as_str()).collect()
}

struct Log<'a> {
    history: &'a History,
    read: u64,
}

impl SealedLog for Log<'_> {
    type Error = Infallible;

    fn entries(
        &mut self,
        chain: u32,
        first: u64,
        last: u64,
        each: &mut dyn FnMut(u64, SealedHash) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        let Some(entries) = self.history.chains.get(&chain) else { return Ok(()) };
        let last = last.min(entries.len() as u64);
        for seq in first..=last {
            self.read += 1;
            if each(seq, SealedHash::Entry(entries[seq as usize - 1].hash)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn has_tiles(&self) -> bool {
        true
    }

    fn tile(&mut self, id: TileId) -> Result<Option<StoredTile>, Infallible> {
        Ok(self.history.tiles.get(&(id.level(), id.index())).cloned())
    }

    fn tile_from(&mut self, level: u8, index: u64) -> Result<Option<u64>, Infallible> {
        Ok(self.history.tiles.range((level, index)..(level + 1, 0)).next().map(|((_, index), _)| *index))
    }
}

/// The subtrees of a history, as its tiles would give them.
struct Nodes<'a>(&'a History);

impl HashReader for Nodes<'_> {
    type Error = Infallible;

    fn read_hashes(&mut self, nodes: &[NodeId]) -> Result<Vec<NodeHash>, Infallible> {
        let root = |node: &NodeId| {
            let first = (node.index() << node.level()) as usize;
            let mut range = CompactRange::new();
            for leaf in &self.0.leaves[first..first + (1 << node.level())] {
                range.append(*leaf).unwrap();
            }
            range.head().root
        };
        Ok(nodes.iter().map(root).collect())
    }
}

fn step() -> impl Strategy<Value = BTreeMap<u32, u64>> {
    prop::collection::btree_map(1_u32..6, 1_u64..90, 1..4)
}

fn history() -> impl Strategy<Value = History> {
    (prop::collection::vec(step(), 2..10), any::<bool>()).prop_map(|(mut steps, tail)| {
        if !tail {
            *steps.last_mut().unwrap() = BTreeMap::new();
        }
        History::new(&steps)
    })
}

fn pick(choice: prop::sample::Index, history: &History) -> (usize, StoredSeal) {
    let place = choice.index(history.seals.len());
    (place, history.seals[place].clone())
}

/// The fields of a seal, each changed.
fn changes(seal: &Seal) -> Vec<(&'static str, Seal)> {
    let mut changes = Vec::new();
    let mut change = |what, change: &dyn Fn(&mut Seal)| {
        let mut changed = seal.clone();
        change(&mut changed);
        changes.push((what, changed));
    };
    change("prev", &|seal| seal.prev = Hash::of(b"x"));
    change("zeros for prev", &|seal| seal.prev = if seal.number == 1 { Hash::of(b"") } else { Hash::GENESIS });
    change("at", &|seal| seal.at = Timestamp::new(seal.at.micros() + 1).unwrap());
    change("at before", &|seal| seal.at = Timestamp::new(0).unwrap());
    change("size more", &|seal| seal.head.size = size(seal.head.size.get() + 1));
    change("size much more", &|seal| seal.head.size = TreeSize::MAX);
    change("size less", &|seal| seal.head.size = size(seal.head.size.get() - 1));
    change("root", &|seal| seal.head.root = NodeHash::of_empty_tree());
    change("system", &|seal| seal.system += 1);
    change("timeline", &|seal| seal.timeline += 1);
    change("timeline 0", &|seal| seal.timeline = 0);
    change("no ranges", &|seal| seal.ranges.clear());
    change("a range less", &|seal| {
        seal.ranges.remove(0);
    });
    change("a range more", &|seal| {
        seal.ranges.push(Range { chain: 99, first: 1, last: 9, head: Hash::of(b"x") });
    });
    change("a range twice", &|seal| seal.ranges.insert(0, seal.ranges[0]));
    change("chain", &|seal| seal.ranges.last_mut().unwrap().chain = 77);
    change("chain 0", &|seal| seal.ranges[0].chain = 0);
    change("first less", &|seal| seal.ranges[0].first -= 1);
    change("first more", &|seal| seal.ranges[0].first += 1);
    change("last less", &|seal| seal.ranges[0].last -= 1);
    change("last more", &|seal| seal.ranges[0].last += 1);
    change("last much more", &|seal| seal.ranges[0].last = i64::MAX as u64);
    change("last too much", &|seal| seal.ranges[0].last = u64::MAX);
    change("head", &|seal| seal.ranges[0].head = Hash::of(b"x"));
    changes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whole_history_has_no_findings_and_every_checkpoint_holds(history in history()) {
        let all: Vec<TreeHead> = (0..=history.leaves.len() as u64).map(|leaves| history.head(leaves)).collect();
        let (findings, summary) = history.verify(&all);
        assert_eq!(findings, []);
        let last = history.seals.last().map(|stored| stored.seal.number);
        assert_eq!(summary.confirmed.map(|seal| seal.number), last);
        assert_eq!(summary.last, summary.confirmed);
        assert_eq!(summary.entries, history.leaves.len() as u64);
        assert_eq!(summary.tiles, history.tiles.len() as u64);
        assert_eq!((summary.missing, summary.unsealed), (0, history.unsealed()));
        assert_eq!(summary.checkpoints.len(), all.len());
        for (head, state) in &summary.checkpoints {
            let CheckpointState::Holds(seal) = state else { panic!("{head:?} {state:?}") };
            let first = history.seals.iter().find(|stored| stored.seal.head.size >= head.size);
            let first = first.filter(|_| head.size.get() > 0).map(|stored| stored.seal.number);
            assert_eq!(seal.map(|seal| seal.number), first);
        }
    }

    #[test]
    fn verification_since_a_seal_reads_only_what_is_new(history in history(), choice: prop::sample::Index) {
        let (place, since) = pick(choice, &history);
        let mut writer = TileWriter::new();
        for leaf in &history.leaves[..since.seal.head.size.get() as usize] {
            writer.append(*leaf, |_| {}).unwrap();
        }
        let mut sealed = BTreeMap::new();
        for stored in &history.seals[..=place] {
            sealed.extend(stored.seal.ranges.iter().map(|range| (range.chain, range.last)));
        }
        let begin = || SealVerifier::since(&since, writer.clone(), sealed.clone());
        let size = since.seal.head.size.get();
        let checkpoints: Vec<TreeHead> = (size..=history.leaves.len() as u64).map(|n| history.head(n)).collect();
        let (findings, summary) = history.verify_with(begin(), &checkpoints, history.seals[place + 1..].iter());
        assert_eq!(findings, []);
        assert_eq!(summary.entries, history.leaves.len() as u64 - size);
        assert_eq!(summary.unsealed, history.unsealed());
        assert_eq!(summary.confirmed.map(|seal| seal.number), Some(history.seals.len() as u64));
        assert!(summary.checkpoints.iter().all(|(_, state)| matches!(state, CheckpointState::Holds(Some(_)))));
        assert!(begin().expect(history.head(size - 1)).is_err());
        // Older checkpoints are held against the tiles.
        for old in [0, 1, size / 2, size - 1].into_iter().filter(|old| *old < size) {
            let (right, mut wrong) = (history.head(old), history.head(old));
            wrong.root = NodeHash::from([1; 32]);
            let mut verifier = begin();
            verifier.expect_earlier(right, &mut Nodes(&history)).unwrap();
            if old > 0 {
                verifier.expect_earlier(wrong, &mut Nodes(&history)).unwrap();
            }
            let (findings, summary) = history.verify_with(verifier, &[history.all()], history.seals[place + 1..].iter());
            assert_eq!(findings.len(), usize::from(old > 0), "{findings:?}");
            assert_eq!(summary.checkpoints[0].1, CheckpointState::Holds(None));
            if old > 0 {
                assert_eq!(summary.checkpoints[1].1, CheckpointState::Differs(right.root));
            }
        }
        // The seal after it is held against the one it begins with.
        if let Some(next) = history.seals.get(place + 1) {
            let mut next = next.clone();
            next.seal.prev = Hash::of(b"x");
            rehash(&mut next);
            let (findings, _) = history.verify_with(begin(), &[], [&next].into_iter());
            assert_eq!(findings[0].kind, Kind::Seal);
        }
    }

    #[test]
    fn tail_cut_after_the_last_seal_is_not_seen_and_the_summary_says_so(mut history in history()) {
        let all = history.all();
        let sealed: BTreeMap<u32, u64> = history.chains.keys().map(|chain| (*chain, history.sealed(*chain))).collect();
        for (chain, entries) in &mut history.chains {
            entries.truncate(sealed[chain] as usize);
        }
        history.chains.retain(|_, entries| !entries.is_empty());
        let (findings, summary) = history.verify(&[all]);
        assert_eq!(findings, []);
        assert_eq!(summary.unsealed, 0);
        assert!(summary.reach().contains("0 newer ones are only chained: if the log ended with more"));
        assert!(summary.covered().unwrap().contains(&format!("up to seal {}", history.seals.len())));
    }

    #[test]
    fn sealed_entries_cut_off_are_missing(history in history(), choice: prop::sample::Index, keep: prop::sample::Index) {
        let chains: Vec<u32> = history.chains.keys().copied().filter(|chain| history.sealed(*chain) > 0).collect();
        let chain = chains[choice.index(chains.len())];
        let keep = keep.index(history.sealed(chain) as usize) as u64;
        let mut cut = history.clone();
        if keep == 0 {
            cut.chains.remove(&chain);
        } else {
            cut.chains.get_mut(&chain).unwrap().truncate(keep as usize);
        }
        let (findings, summary) = cut.verify(&[]);
        assert_eq!(places(&findings), [(Kind::Missing, Some(chain as i32), Some(keep as i64 + 1))]);
        let end = if keep == 0 { "nothing of the chain is left".to_owned() } else { format!("the chain ends at {keep}") };
        assert!(findings[0].detail.ends_with(&end));
        assert_eq!(summary.missing, history.sealed(chain) - keep);
        // The leaves of the missing entries are in the stored tiles, as far as these are whole. So the checkpoint holds for all others, or cannot be judged.
        let (findings, summary) = cut.verify(&[history.all()]);
        match summary.checkpoints[0].1 {
            CheckpointState::Holds(_) => assert_eq!(findings.len(), 1),
            state => {
                assert_eq!(state, CheckpointState::Unknown);
                assert_eq!(places(&findings)[1..].to_vec(), [(Kind::Checkpoint, None, None)]);
            }
        }
    }

    #[test]
    fn entry_taken_out_of_a_chain_that_is_linked_again_is_found(history in history(), choice: prop::sample::Index, at: prop::sample::Index) {
        let chains: Vec<u32> = history.chains.keys().copied().filter(|chain| history.sealed(*chain) > 1).collect();
        prop_assume!(!chains.is_empty());
        let chain = chains[choice.index(chains.len())];
        let sealed = history.sealed(chain);
        // Not the last one sealed: that may be a tail cut off.
        let place = at.index(sealed as usize - 1);
        let mut damaged = history.clone();
        let entries = damaged.chains.get_mut(&chain).unwrap();
        entries.remove(place);
        relink(chain, entries, place);
        let left = entries.len() as u64;
        let ranges = history.seals.iter().flat_map(|stored| &stored.seal.ranges);
        let range = ranges.into_iter().find(|range| range.chain == chain && range.last > place as u64).unwrap();
        let mut expected = Vec::new();
        if left >= range.last {
            expected.push((Kind::Seal, Some(chain as i32), Some(range.last as i64)));
        }
        if left < sealed {
            expected.push((Kind::Missing, Some(chain as i32), Some(sealed as i64)));
        }
        let found = damaged.places(&[]);
        let (tree, rest): (Vec<_>, Vec<_>) = found.into_iter().partition(|(kind, _, _)| *kind == Kind::Tree);
        assert_eq!(rest, expected);
        // The root cannot be computed when the last entry of the first wrong range is not there and no tile has its leaf.
        assert!(tree.len() == 1 || tree.is_empty() && left < range.last, "{:?}", tree);
        // Nor does it help to leave the tiles and the seals out of it: the checkpoint shows it.
        let found = damaged.places(&[history.all()]);
        assert_eq!(found.last(), Some(&(Kind::Checkpoint, None, None)));
    }

    #[test]
    fn rewritten_chain_is_found(mut history in history(), choice: prop::sample::Index, at: prop::sample::Index) {
        let chains: Vec<u32> = history.chains.keys().copied().filter(|chain| history.sealed(*chain) > 0).collect();
        let chain = chains[choice.index(chains.len())];
        let place = at.index(history.sealed(chain) as usize);
        let entries = history.chains.get_mut(&chain).unwrap();
        entries[place].says = 0;
        relink(chain, entries, place);
        let ranges = history.seals.iter().flat_map(|stored| &stored.seal.ranges);
        let range = ranges.into_iter().find(|range| range.chain == chain && range.last > place as u64).unwrap();
        assert_eq!(
            history.places(&[]),
            [(Kind::Seal, Some(chain as i32), Some(range.last as i64)), (Kind::Tree, None, None)]
        );
    }

    #[test]
    fn exchanged_hash_of_one_entry_is_found_by_the_root_and_placed_by_the_tile(mut history in history(), at: prop::sample::Index) {
        let seal = &history.seals[0].seal;
        let range = seal.ranges[0];
        let place = at.index(range.last as usize);
        prop_assume!(place as u64 + 1 < range.last);
        history.chains.get_mut(&range.chain).unwrap()[place].hash = Hash::of(b"x");
        let (findings, _) = history.verify(&[]);
        assert_eq!(
            places(&findings),
            [(Kind::Link, Some(range.chain as i32), Some(place as i64 + 2)), (Kind::Tree, None, None)]
        );
        let placed = history.seals[0].seal.head.size.get() >= 256;
        assert_eq!(findings[1].detail.contains(&format!("tile/0/000: stored hash of leaf {place} is")), placed);
    }

    #[test]
    fn everything_rewritten_is_shown_by_the_checkpoint_alone(mut history in history(), at: prop::sample::Index, from: prop::sample::Index) {
        let before = history.clone();
        let seal = &history.seals[0].seal;
        let range = seal.ranges[0];
        let place = at.index(range.last as usize);
        let entries = history.chains.get_mut(&range.chain).unwrap();
        entries[place].says = 0;
        relink(range.chain, entries, place);
        history.rewrite();
        assert_eq!(history.places(&[]), []);
        let (findings, summary) = history.verify(&[before.all()]);
        assert_eq!(places(&findings), [(Kind::Checkpoint, None, None)]);
        assert_eq!(summary.covered(), None);
        // One that is older than the change holds, and bounds what may be wrong.
        let old = from.index(place + 1) as u64;
        let (findings, summary) = history.verify(&[before.all(), before.head(old)]);
        assert_eq!(places(&findings), [(Kind::Checkpoint, None, None)]);
        assert!(findings[0].hint.contains(&format!("Up to {old} entries an older checkpoint holds")));
        assert!(summary.covered().unwrap().starts_with(&format!("the first {old} sealed entries are covered")));
    }

    #[test]
    fn removed_seal_is_found(history in history(), choice: prop::sample::Index) {
        let (place, seal) = pick(choice, &history);
        let mut damaged = history.clone();
        damaged.seals.remove(place);
        let (findings, summary) = damaged.verify(&[history.all()]);
        if place + 1 < history.seals.len() {
            assert_eq!(findings[0].detail.clone(), format!("seal {} is missing", seal.seal.number));
            assert_eq!(findings[0].kind, Kind::Seal);
            match summary.checkpoints[0].1 {
                CheckpointState::Holds(_) => assert_eq!(findings.len(), 1),
                state => {
                    assert_eq!(state, CheckpointState::Unknown);
                    assert_eq!(places(&findings)[1..].to_vec(), [(Kind::Checkpoint, None, None)]);
                }
            }
        } else {
            // The last one: tiles that it made whole are left over, and the checkpoint counts more.
            let size = seal.seal.first_leaf().unwrap();
            let tiles = |size: u64, level| size >> (8 * (level + 1));
            let left = (0..3).filter(|level| tiles(size, *level) < tiles(seal.seal.head.size.get(), *level)).count();
            let mut expected = vec![(Kind::Tree, None, None); left];
            expected.push((Kind::Checkpoint, None, None));
            assert_eq!(places(&findings), expected);
            assert_eq!(summary.checkpoints[0].1, CheckpointState::Beyond(size));
            damaged.leaves.truncate(size as usize);
            damaged.build_tiles();
            let (findings, summary) = damaged.verify(&[]);
            assert_eq!(findings, []);
            assert_eq!(summary.unsealed, history.unsealed() + seal.seal.count().unwrap());
        }
    }

    #[test]
    fn changed_seal_is_one_finding(history in history(), choice: prop::sample::Index) {
        let (place, seal) = pick(choice, &history);
        for (what, changed) in changes(&seal.seal) {
            let mut damaged = history.clone();
            damaged.seals[place].seal = changed;
            let (findings, _) = damaged.verify(&[]);
            assert_eq!(places(&findings), [(Kind::Seal, None, None)], "{} {:?}", what, findings);
            let stored = format!("stored hash of seal {} is", seal.seal.number);
            assert!(findings[0].detail.starts_with(&stored), "{}", what);
            // A checkpoint is not called wrong for it.
            let (findings, summary) = damaged.verify(&[history.all()]);
            match summary.checkpoints[0].1 {
                CheckpointState::Holds(_) => assert_eq!(findings.len(), 1),
                state => assert_eq!(state, CheckpointState::Unknown, "{}", what),
            }
        }
    }

    #[test]
    fn changed_stored_hash_of_a_seal_is_found(mut history in history(), choice: prop::sample::Index) {
        let (place, seal) = pick(choice, &history);
        history.seals[place].hash = Hash::of(b"x");
        let (findings, summary) = history.verify(&[history.all()]);
        let links = usize::from(place + 1 < history.seals.len());
        assert_eq!(places(&findings), vec![(Kind::Seal, None, None); 1 + links]);
        assert!(findings[0].detail.starts_with(&format!("stored hash of seal {} is", seal.seal.number)));
        assert!(matches!(summary.checkpoints[0].1, CheckpointState::Holds(_)));
    }

    #[test]
    fn seal_made_anew_is_found_by_what_it_says_or_by_the_next(history in history(), choice: prop::sample::Index) {
        let (place, seal) = pick(choice, &history);
        let next = history.seals.get(place + 1).map(|stored| stored.seal.number);
        for (what, changed) in changes(&seal.seal) {
            let mut damaged = history.clone();
            damaged.seals[place].seal = changed;
            rehash(&mut damaged.seals[place]);
            let (findings, _) = damaged.verify(&[]);
            let link = next.map(|next| format!("prev of seal {next} is"));
            if let Some(link) = link {
                assert!(details(&findings).iter().any(|detail| detail.starts_with(&link)), "{} {:?}", what, findings);
            }
            // Of these nothing else holds the last seal.
            let unbound = ["at", "system", "timeline"].contains(&what) || (what == "at before" && place == 0);
            let told = findings.len() - usize::from(next.is_some());
            assert_eq!(told == 0, unbound, "{} {:?}", what, findings);
            if what == "root" {
                assert_eq!(findings.iter().filter(|finding| finding.kind == Kind::Tree).count(), 1);
            }
            // With all seals behind it made anew as well, only what it says can tell.
            for after in place + 1..damaged.seals.len() {
                damaged.seals[after].seal.prev = damaged.seals[after - 1].hash;
                rehash(&mut damaged.seals[after]);
            }
            let (findings, _) = damaged.verify(&[]);
            assert_eq!(findings.is_empty(), unbound, "{} {:?}", what, findings);
        }
    }

    #[test]
    fn damaged_tile_is_one_finding(mut history in history(), choice: prop::sample::Index, how in 0..6_u8) {
        prop_assume!(!history.tiles.is_empty());
        let places: Vec<(u8, u64)> = history.tiles.keys().copied().collect();
        let place = places[choice.index(places.len())];
        let tile = history.tiles.get_mut(&place).unwrap();
        match how {
            0 => tile.hashes[4000] ^= 1,
            1 => tile.root = NodeHash::of_empty_tree(),
            2 => tile.hashes.truncate(8191),
            3 => tile.hashes.clear(),
            4 => drop(history.tiles.remove(&place)),
            _ => {
                let tile = tile.clone();
                history.tiles.insert((place.0, 1 << 40), tile);
            }
        }
        let (findings, summary) = history.verify(&[history.all()]);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].kind, Kind::Tree);
        assert!(matches!(summary.checkpoints[0].1, CheckpointState::Holds(_)));
    }

    #[test]
    fn wrong_checkpoints_are_found(history in history(), at: prop::sample::Index, more in 1..1_000_u64) {
        let at = at.index(history.leaves.len() + 1) as u64;
        let mut wrong = history.head(at);
        wrong.root = NodeHash::from([1; 32]);
        let (findings, summary) = history.verify(&[wrong]);
        assert_eq!(places(&findings), [(Kind::Checkpoint, None, None)]);
        assert_eq!(summary.checkpoints[0].1, CheckpointState::Differs(history.head(at).root));
        wrong.size = size(history.leaves.len() as u64 + more);
        let (findings, summary) = history.verify(&[wrong, history.head(at)]);
        assert_eq!(places(&findings), [(Kind::Checkpoint, None, None)]);
        assert_eq!(summary.checkpoints[1].1, CheckpointState::Beyond(history.leaves.len() as u64));
        assert!(summary.covered().is_some());
    }
}

/// Three seals of two chains.
fn small() -> History {
    History::new(&[
        BTreeMap::from([(1, 4), (2, 3)]),
        BTreeMap::from([(1, 2)]),
        BTreeMap::from([(1, 1), (2, 5)]),
        BTreeMap::from([(2, 1)]),
    ])
}

#[test]
fn what_is_said_of_a_whole_log() {
    let history = small();
    let (_, summary) = history.verify(&[history.head(9)]);
    assert_eq!(
        summary.reach(),
        "15 entries are sealed, up to seal 3 of 2023-11-14T22:18:20.000000Z; 1 newer ones are only chained: \
         if the log ended with more of them, it does not show"
    );
    assert_eq!(
        summary.covered().unwrap(),
        "the first 9 sealed entries are covered by the checkpoint, up to seal 2 of 2023-11-14T22:16:40.000000Z; \
         6 newer ones are only sealed, 1 only chained"
    );
    let (_, summary) = history.verify(&[history.head(8)]);
    assert!(summary.covered().unwrap().contains("by the checkpoint, within seal 2 of"));
    let empty = History::new(&[]);
    let (findings, summary) = empty.verify(&[TreeHead::empty()]);
    assert_eq!(findings, []);
    assert!(summary.reach().starts_with("no entry is sealed; 0 newer ones"));
}

#[test]
fn findings_name_the_seal_and_both_values() {
    let good = small();
    let mut history = good.clone();
    history.seals[1].seal.at = Timestamp::new(history.seals[0].seal.at.micros() - 60_000_001).unwrap();
    rehash(&mut history.seals[1]);
    history.seals[2].seal.prev = history.seals[1].hash;
    rehash(&mut history.seals[2]);
    let (findings, _) = history.verify(&[]);
    assert_eq!(
        details(&findings),
        ["time of seal 2 is 2023-11-14T22:13:59.999999Z, that of the seal before it is 2023-11-14T22:15:00.000000Z"]
    );
    history.seals[1].seal.at = Timestamp::new(history.seals[1].seal.at.micros() + 1).unwrap();
    rehash(&mut history.seals[1]);
    history.seals[2].seal.prev = history.seals[1].hash;
    rehash(&mut history.seals[2]);
    assert_eq!(history.kinds(), []);

    let mut history = good.clone();
    history.seals[2].seal.head.size = size(14);
    rehash(&mut history.seals[2]);
    let (findings, _) = history.verify(&[]);
    assert_eq!(details(&findings), ["size of seal 3 is 14, that of the seal before it 9, and it counts 6 more"]);

    for (first, detail) in [
        (5, "seal 3 counts entries 5 to 7 of chain 1, the seals before it end at 6"),
        (6, "seal 3 counts entries 6 to 7 of chain 1, the seals before it end at 6"),
    ] {
        let mut history = good.clone();
        history.seals[2].seal.ranges[0].first = first;
        history.seals[2].seal.head.size = size(15 + 7 - first);
        rehash(&mut history.seals[2]);
        let (findings, _) = history.verify(&[]);
        assert_eq!(details(&findings), [detail], "overlap");
        assert_eq!(places(&findings), [(Kind::Seal, Some(1), Some(first as i64))]);
    }

    let mut history = good.clone();
    history.seals.remove(0);
    history.seals.remove(0);
    let (findings, _) = history.verify(&[]);
    assert_eq!(details(&findings), ["seals 1 to 2 are missing (2)"]);
}

#[test]
fn log_can_be_confirmed_again_behind_a_seal_that_is_missing_or_changed() {
    // All chains of the missing seal go on in the next one.
    let good = small();
    let mut history = good.clone();
    history.seals.remove(1);
    let (findings, summary) = history.verify(&[good.all()]);
    assert_eq!(details(&findings), ["seal 2 is missing"]);
    assert_eq!(summary.confirmed.unwrap().number, 3);
    let mut history = good.clone();
    history.seals[1].seal.ranges[0].last = 5;
    let (findings, summary) = history.verify(&[good.all()]);
    assert_eq!(findings.len(), 1);
    assert_eq!(summary.confirmed.unwrap().number, 3);
}

#[test]
fn damage_behind_a_changed_seal_is_still_found() {
    let mut history = small();
    history.seals[1].seal.timeline = 9;
    let entries = history.chains.get_mut(&1).unwrap();
    entries[4].says = 0;
    relink(1, entries, 4);
    assert_eq!(history.places(&[]), [(Kind::Seal, None, None), (Kind::Seal, Some(1), Some(7))]);
    let mut history = small();
    history.seals[1].seal.timeline = 9;
    history.chains.get_mut(&1).unwrap().truncate(4);
    assert_eq!(
        history.places(&[]),
        [(Kind::Seal, None, None), (Kind::Missing, Some(1), Some(5))].map(|mut place| {
            // Of the changed seal nothing is believed: what the next one counts is missing.
            if place.0 == Kind::Missing {
                place.2 = Some(7);
            }
            place
        })
    );
}

#[test]
fn seal_that_stands_twice_or_is_of_another_ledger_is_told_and_passed_over() {
    let good = small();
    let mut history = good.clone();
    history.seals.insert(2, good.seals[1].clone());
    let (findings, _) = history.verify(&[good.all()]);
    assert_eq!(details(&findings), ["seal 2 stands behind seal 2"]);
    let mut history = good.clone();
    let mut foreign = good.seals[1].clone();
    foreign.seal.ledger = Uuid::from_u128(8);
    rehash(&mut foreign);
    history.seals.insert(1, foreign.clone());
    let (findings, _) = history.verify(&[good.all()]);
    assert_eq!(
        details(&findings),
        ["seal 2 is of ledger 00000000-0000-0000-0000-000000000008, not 00000000-0000-0000-0000-000000000007"]
    );
    let mut history = good.clone();
    history.seals[1] = foreign;
    let (findings, _) = history.verify(&[]);
    assert_eq!(findings.len(), 2);
    assert_eq!(findings[1].detail, "seal 2 is missing");
    // A number that was changed: one seal is missing, and one fits nothing.
    let mut history = good.clone();
    let mut moved = history.seals.remove(1);
    moved.seal.number = 1000;
    history.seals.push(moved);
    let (findings, _) = history.verify(&[]);
    assert_eq!(findings[0].detail, "seal 2 is missing");
    assert!(findings[1].detail.starts_with("stored hash of seal 1000 is"));
    assert_eq!(findings.len(), 2);
}

#[test]
fn range_without_its_seal_is_told() {
    let history = small();
    let mut findings = Vec::new();
    let range = &history.seals[2].seal.ranges[1];
    SealVerifier::new(LEDGER).stray_range(3, range, &mut |finding| findings.push(finding));
    assert_eq!(details(&findings), ["seal 3 is not there, but its range 4 to 8 of chain 2 is"]);
}

#[test]
fn hole_in_a_chain_is_told_once() {
    let history = small();
    struct Holed<'a>(Log<'a>);
    impl SealedLog for Holed<'_> {
        type Error = Infallible;
        fn entries(
            &mut self,
            chain: u32,
            first: u64,
            last: u64,
            each: &mut dyn FnMut(u64, SealedHash) -> ControlFlow<()>,
        ) -> Result<(), Infallible> {
            self.0.entries(chain, first, last, &mut |seq, hash| {
                if chain == 2 && [2, 3, 4].contains(&seq) { ControlFlow::Continue(()) } else { each(seq, hash) }
            })
        }
        fn has_tiles(&self) -> bool {
            false
        }
        fn tile(&mut self, _: TileId) -> Result<Option<StoredTile>, Infallible> {
            unreachable!("there are no tiles")
        }
        fn tile_from(&mut self, _: u8, _: u64) -> Result<Option<u64>, Infallible> {
            unreachable!("there are no tiles")
        }
    }
    let mut log = Holed(Log { history: &history, read: 0 });
    let mut findings = Vec::new();
    let mut verifier = SealVerifier::new(LEDGER);
    for stored in &history.seals {
        verifier.seal(stored, &mut log, &mut |finding| findings.push(finding)).unwrap();
    }
    let heads = history.links(&mut |_| {});
    let summary = verifier.finish(&heads, &mut log, &mut |finding| findings.push(finding)).unwrap();
    // `links` tells of it.
    assert_eq!(findings, []);
    assert_eq!((summary.missing, summary.confirmed), (3, None));
}

#[test]
fn ranges_of_any_size_are_passed_at_once() {
    let mut history = small();
    let far = i64::MAX as u64;
    history.seals[2].seal.ranges[1].last = far;
    history.seals[2].seal.head.size = TreeSize::MAX;
    rehash(&mut history.seals[2]);
    let mut log = Log { history: &history, read: 0 };
    let mut findings = Vec::new();
    let mut verifier = SealVerifier::new(LEDGER);
    for stored in &history.seals {
        verifier.seal(stored, &mut log, &mut |finding| findings.push(finding)).unwrap();
    }
    assert!(log.read < 100);
    let heads = history.links(&mut |_| {});
    verifier.finish(&heads, &mut log, &mut |finding| findings.push(finding)).unwrap();
    assert_eq!(findings.iter().map(|finding| finding.kind).collect::<Vec<_>>(), [Kind::Seal, Kind::Missing]);
}

#[test]
fn many_damaged_tiles_are_counted() {
    let steps: Vec<BTreeMap<u32, u64>> = (0..3).map(|_| BTreeMap::from([(1, 20_000)])).collect();
    let mut history = History::new(&steps);
    for tile in history.tiles.values_mut() {
        tile.root = NodeHash::of_empty_tree();
    }
    let (findings, _) = history.verify(&[]);
    // 40000 leaves have 156 whole tiles; seal 1 tells of 78, seal 2 of the others.
    assert_eq!(findings.len(), 156);
    let mut one = History::new(&[BTreeMap::from([(1, 40_000)]), BTreeMap::new()]);
    for tile in one.tiles.values_mut() {
        tile.root = NodeHash::of_empty_tree();
    }
    let (findings, _) = one.verify(&[]);
    assert_eq!((findings.len(), findings[100].detail.as_str()), (101, "56 more tiles are not those of the log"));
}

#[test]
fn long_range_with_a_cut_end_is_held_against_the_roots_by_its_tiles() {
    let history = History::new(&[BTreeMap::from([(1, 200_000)]), BTreeMap::from([(1, 300)]), BTreeMap::new()]);
    let mut cut = history.clone();
    cut.chains.get_mut(&1).unwrap().truncate(70_000);
    let (findings, summary) = cut.verify(&[history.head(200_192), history.all()]);
    assert_eq!(places(&findings), [(Kind::Missing, Some(1), Some(70_001)), (Kind::Checkpoint, None, None)]);
    assert!(matches!(summary.checkpoints[0].1, CheckpointState::Holds(_)));
    assert_eq!(summary.checkpoints[1].1, CheckpointState::Unknown);
    assert_eq!(summary.confirmed.unwrap().number, 1);
}

#[test]
fn checkpoints_are_read_and_refused() {
    let history = small();
    let key = SignerKey::from_seed("example.com/log", &[1; 32]).unwrap();
    let other = SignerKey::from_seed("example.com/log", &[2; 32]).unwrap();
    let (ours, theirs) = (key.verifier(), other.verifier());
    let keys: [&dyn NoteVerifier; 1] = [&ours];
    let checkpoint = Checkpoint::new("example.com/log", history.all()).unwrap();
    let signed = checkpoint.sign(&[&key]).unwrap().to_string();
    let head = history.all();
    let read = |text: &str, origin: &str, keys: &[&dyn NoteVerifier]| read_checkpoint(text.as_bytes(), origin, keys);
    assert_eq!(read(&signed, "example.com/log", &keys), Ok(Brought::Valid { head, signed: true }));
    assert_eq!(read(&signed, "example.com/log", &[&theirs, &ours]), Ok(Brought::Valid { head, signed: true }));
    assert_eq!(read(&signed, "example.com/log", &[]), Ok(Brought::Valid { head, signed: false }));
    assert_eq!(read(&checkpoint.to_string(), "example.com/log", &[]), Ok(Brought::Valid { head, signed: false }));
    let refused = |text: &str, origin: &str, keys: &[&dyn NoteVerifier], why: &str| match read(text, origin, keys) {
        Ok(Brought::Refused(finding)) => {
            assert_eq!(finding.kind, Kind::Checkpoint);
            assert!(finding.detail.contains(why), "{}", finding.detail);
        }
        other => panic!("{other:?}"),
    };
    refused(&checkpoint.to_string(), "example.com/log", &keys, "not signed");
    refused(&signed, "example.com/log", &[&theirs], "signature");
    refused(&signed, "example.com/other", &keys, "example.com/log");
    // Size and root are signed.
    let (at, _) = signed.match_indices('\n').next().unwrap();
    let changed = format!("{}\n9{}", &signed[..at], &signed[at + 3..]);
    refused(&changed, "example.com/log", &keys, "signature");
    for bad in ["", "x", "example.com/log\n7\n", "\u{fffd}"] {
        assert!(matches!(read(bad, "example.com/log", &keys), Err(CheckpointError::Note(_))), "{bad}");
    }
    let note = audit_ledger::Note::sign("hello\n".to_owned(), &[&key]).unwrap().to_string();
    assert_eq!(read(&note, "example.com/log", &keys), Err(CheckpointError::Lines));
}

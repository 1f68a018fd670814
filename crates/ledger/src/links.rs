//! Whether entries make whole chains.
//!
//! Entries may come in any order, as a table gives them. Of each chain only the ends of its runs (stretches without a hole) are kept, so memory
//! grows with the holes that are open at a time and not with the entries. This module knows neither lines nor where entries are stored;
//! docs/format.md, section 4, says what a chain is.

use std::collections::BTreeMap;
use std::collections::btree_map;

use uuid::Uuid;

use crate::entry::Timestamp;
use crate::finding::{Finding, Kind};
use crate::hash::Hash;

/// How far `at` may go back from one entry of a chain to the next: clocks step.
pub const TIME_TOLERANCE_MICROS: i64 = 60_000_000;

/// What of an entry matters for its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Ledger of the entry.
    pub ledger: Uuid,
    /// Chain of the entry.
    pub chain: u32,
    /// Place in the chain.
    pub seq: u64,
    /// The hash that the entry gives for the one before it.
    pub prev: Hash,
    /// The hash that is stored with the entry.
    pub hash: Hash,
    /// Place in the ledger.
    pub id: u64,
    /// Time of the entry; `None` when it cannot be read, and then it is not judged.
    pub at: Option<Timestamp>,
}

/// The last entry of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Ledger of the chain.
    pub ledger: Uuid,
    /// Number of the chain.
    pub chain: u32,
    /// Place of the last entry.
    pub seq: u64,
    /// Stored hash of the last entry.
    pub hash: Hash,
    /// `id` of the last entry.
    pub id: u64,
    /// How many entries of the chain were seen, duplicates not counted.
    pub entries: u64,
}

/// A stretch of a chain without a hole, as one reader of a part of the log has seen it: what another needs to join it to his.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Its first entry; of this, the hash does not matter.
    pub first: Link,
    /// Its last entry, of the same chain; of this, `prev` does not matter.
    pub last: Link,
}

/// Two readers have seen the same place of a chain, so that some `seq` stands twice. Which of the two entries takes the place is only known to one who reads all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entries {first} to {last} of chain {chain} overlap with others")]
pub struct Overlap {
    /// The chain.
    pub chain: u32,
    /// First entry of the stretch that was added.
    pub first: u64,
    /// Its last entry.
    pub last: u64,
}

/// Collects the links of any number of chains.
///
/// Each fault is told as soon as both entries that show it are known, holes in [`Links::finish`]. The findings do not depend on the order of the
/// entries; only of a `seq` that stands twice, the first that comes takes the place.
#[derive(Debug, Default)]
pub struct Links {
    chains: Vec<Chain>,
    // Not a hash map: chain numbers may be chosen by an attacker, and findings must come in the same order each time.
    places: BTreeMap<(Uuid, u32), usize>,
    /// The chain last touched: entries come in bursts of one transaction, and those are of one chain.
    last: usize,
    runs: usize,
}

impl Links {
    /// No entry yet.
    pub fn new() -> Links {
        Links::default()
    }

    /// Begins behind entries that are known to be right: `heads` are the last of each chain. Their ids and times are not known.
    pub fn since(heads: impl IntoIterator<Item = Head>) -> Links {
        let mut links = Links::new();
        for Head { ledger, chain, seq, hash, id, .. } in heads {
            let first = First { seq: 1, prev: Hash::GENESIS, id: 0, at: None };
            let current = Run { first, last: Last { seq, hash, id, at: None } };
            let key = (ledger, chain);
            links.places.insert(key, links.chains.len());
            links.chains.push(Chain { key, entries: 0, current, limit: u64::MAX, others: BTreeMap::new() });
            links.runs += 1;
        }
        links
    }

    /// Adds an entry. Costs O(1) when it follows the entry of its chain that was added last, else O(log runs).
    pub fn add(&mut self, link: &Link, sink: &mut impl FnMut(Finding)) {
        if link.seq == 0 {
            return sink(finding(
                Kind::Order,
                link.chain,
                &First::of(link),
                "seq is 0, below 1".to_owned(),
                "Chains begin with 1. The entry was not written by the extension.",
            ));
        }
        let key = (link.ledger, link.chain);
        if self.chains.get(self.last).is_none_or(|chain| chain.key != key) {
            match self.places.entry(key) {
                btree_map::Entry::Occupied(place) => self.last = *place.get(),
                btree_map::Entry::Vacant(place) => {
                    self.last = *place.insert(self.chains.len());
                    self.chains.push(Chain::new(link, sink));
                    self.runs += 1;
                    return;
                }
            }
        }
        let chain = &mut self.chains[self.last];
        let before = chain.others.len();
        chain.add(link, sink);
        self.runs = self.runs + chain.others.len() - before;
    }

    /// Hands out what was collected, and begins anew: for [`Links::add_stretch`] of another, who gets parts of the log from several readers. What these found was told to
    /// them. Not for one who began behind known heads.
    pub fn take(&mut self) -> Vec<Stretch> {
        let mut stretches = Vec::with_capacity(self.runs);
        for Chain { key: (ledger, chain), current, others, .. } in std::mem::take(self).chains {
            for Run { first, last } in others.into_values().chain([current]) {
                let link = |seq, prev, hash, id, at| Link { ledger, chain, seq, prev, hash, id, at };
                stretches.push(Stretch {
                    first: link(first.seq, first.prev, Hash::GENESIS, first.id, first.at),
                    last: link(last.seq, Hash::GENESIS, last.hash, last.id, last.at),
                });
            }
        }
        stretches
    }

    /// Adds what another has collected. Together the findings of all parts are those of one who reads all entries himself, however they were shared out. After an error they are not, and
    /// all must be read again.
    pub fn add_stretch(&mut self, stretch: &Stretch, sink: &mut impl FnMut(Finding)) -> Result<(), Overlap> {
        let Stretch { first, last } = stretch;
        let run = Run { first: First::of(first), last: Last::of(last) };
        let key = (first.ledger, first.chain);
        let entries = last.seq - first.seq + 1;
        match self.places.entry(key) {
            btree_map::Entry::Vacant(place) => {
                place.insert(self.chains.len());
                let others = BTreeMap::new();
                self.chains.push(Chain { key, entries, current: run, limit: u64::MAX, others });
                self.runs += 1;
                Ok(())
            }
            btree_map::Entry::Occupied(place) => {
                let chain = &mut self.chains[*place.get()];
                let before = chain.others.len();
                let overlap = Overlap { chain: first.chain, first: first.seq, last: last.seq };
                chain.add_run(run, sink).ok_or(overlap)?;
                chain.entries += entries;
                self.runs = self.runs + chain.others.len() - before;
                Ok(())
            }
        }
    }

    /// How many runs are kept: the measure of memory, about 150 bytes each. Whole chains have one each in the end.
    pub fn open_runs(&self) -> usize {
        self.runs
    }

    /// Tells of the holes, chain by chain, and gives the head of each chain, ordered by ledger and chain.
    pub fn finish(mut self, sink: &mut impl FnMut(Finding)) -> Vec<Head> {
        self.places.into_values().map(|place| self.chains[place].finish(sink)).collect()
    }
}

/// The runs of one chain.
#[derive(Debug)]
struct Chain {
    key: (Uuid, u32),
    entries: u64,
    /// The run last touched.
    current: Run,
    /// First `seq` of the run after the current one, `u64::MAX` when there is none. Two runs always have a hole between them,
    /// so that whatever follows the current run directly is new.
    limit: u64,
    /// All other runs, by their first `seq`.
    others: BTreeMap<u64, Run>,
}

/// A stretch of a chain without a hole.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: First,
    last: Last,
}

/// What of the first entry of a run is needed to join it to the run before.
#[derive(Clone, Copy, Debug)]
struct First {
    seq: u64,
    prev: Hash,
    id: u64,
    at: Option<Timestamp>,
}

/// What of the last entry of a run is needed to join it to the run after.
#[derive(Clone, Copy, Debug)]
struct Last {
    seq: u64,
    hash: Hash,
    id: u64,
    at: Option<Timestamp>,
}

impl First {
    fn of(link: &Link) -> First {
        First { seq: link.seq, prev: link.prev, id: link.id, at: link.at }
    }
}

impl Last {
    fn of(link: &Link) -> Last {
        Last { seq: link.seq, hash: link.hash, id: link.id, at: link.at }
    }
}

impl Run {
    fn of(link: &Link) -> Run {
        Run { first: First::of(link), last: Last::of(link) }
    }
}

impl Chain {
    fn new(link: &Link, sink: &mut impl FnMut(Finding)) -> Chain {
        check_genesis(link, sink);
        Chain {
            key: (link.ledger, link.chain),
            entries: 1,
            current: Run::of(link),
            limit: u64::MAX,
            others: BTreeMap::new(),
        }
    }

    fn add(&mut self, link: &Link, sink: &mut impl FnMut(Finding)) {
        let follows = self.current.last.seq.checked_add(1) == Some(link.seq);
        if follows && link.seq.saturating_add(1) < self.limit {
            check_join(link.chain, &self.current.last, &First::of(link), sink);
            self.current.last = Last::of(link);
            self.entries += 1;
        } else {
            self.add_elsewhere(link, sink);
        }
    }

    /// Adds an entry that does not simply lengthen the current run: finds the runs before and after it, and joins what touches.
    fn add_elsewhere(&mut self, link: &Link, sink: &mut impl FnMut(Finding)) {
        self.others.insert(self.current.first.seq, self.current);
        let before = self.others.range(..=link.seq).next_back().map(|(_, run)| *run);
        let after = self.others.range(link.seq..).next().map(|(_, run)| *run);
        if let Some(before) = before
            && link.seq <= before.last.seq
        {
            sink(finding(
                Kind::Order,
                link.chain,
                &First::of(link),
                format!("seq {} stands twice in chain {}", link.seq, link.chain),
                "A chain has each seq once. One of the two entries was added; the hash of the entry after them tells which.",
            ));
            self.make_current(before);
            return;
        }
        check_genesis(link, sink);
        self.entries += 1;
        self.join(Run::of(link), before, after, sink);
    }

    /// Adds a run that others have followed. `None` when it is not new from end to end.
    fn add_run(&mut self, run: Run, sink: &mut impl FnMut(Finding)) -> Option<()> {
        self.others.insert(self.current.first.seq, self.current);
        let before = self.others.range(..=run.first.seq).next_back().map(|(_, run)| *run);
        let after = self.others.range(run.first.seq..).next().map(|(_, run)| *run);
        let is_new = before.is_none_or(|before| before.last.seq < run.first.seq)
            && after.is_none_or(|after| run.last.seq < after.first.seq);
        is_new.then(|| self.join(run, before, after, sink))
    }

    /// Puts a new run between those before and after it, and joins what touches.
    fn join(&mut self, mut run: Run, before: Option<Run>, after: Option<Run>, sink: &mut impl FnMut(Finding)) {
        let chain = self.key.1;
        if let Some(before) = before
            && before.last.seq + 1 == run.first.seq
        {
            check_join(chain, &before.last, &run.first, sink);
            run.first = before.first;
        }
        if let Some(after) = after
            && after.first.seq - 1 == run.last.seq
        {
            check_join(chain, &run.last, &after.first, sink);
            run.last = after.last;
            self.others.remove(&after.first.seq);
        }
        self.make_current(run);
    }

    fn make_current(&mut self, run: Run) {
        self.others.remove(&run.first.seq);
        self.limit = self.others.range(run.first.seq..).next().map_or(u64::MAX, |(first, _)| *first);
        self.current = run;
    }

    fn finish(&mut self, sink: &mut impl FnMut(Finding)) -> Head {
        let (ledger, chain) = self.key;
        let mut runs = std::mem::take(&mut self.others);
        runs.insert(self.current.first.seq, self.current);
        let mut last: Option<Last> = None;
        for run in runs.into_values() {
            let hole = last.map_or(1, |last| last.seq + 1);
            if hole < run.first.seq {
                sink(missing(chain, hole, run.first.seq - 1));
            }
            // Ids grow over a hole as well. Times may have gone back within it, each time by the tolerance.
            if let Some(last) = last
                && run.first.id <= last.id
            {
                sink(id_not_growing(chain, &last, &run.first));
            }
            last = Some(run.last);
        }
        let last = last.unwrap_or(self.current.last);
        Head { ledger, chain, seq: last.seq, hash: last.hash, id: last.id, entries: self.entries }
    }
}

/// Checks that the first entry of a chain says so.
fn check_genesis(link: &Link, sink: &mut impl FnMut(Finding)) {
    if link.seq == 1 && link.prev != Hash::GENESIS {
        sink(finding(
            Kind::Link,
            link.chain,
            &First::of(link),
            format!("prev is {}, the first entry of a chain has {}", link.prev, Hash::GENESIS),
            "Entries before this one were taken away and the rest renumbered, or the entry was written anew.",
        ));
    }
}

/// Checks two entries of which the second follows the first directly.
fn check_join(chain: u32, before: &Last, after: &First, sink: &mut impl FnMut(Finding)) {
    if after.prev != before.hash {
        sink(finding(
            Kind::Link,
            chain,
            after,
            format!("prev is {}, hash of entry {} is {}", after.prev, before.seq, before.hash),
            "The entry before this one is not the one that was there when this one was written: it was replaced, or written anew together with its hash. \
             Compare both with a backup or another copy of the log.",
        ));
    }
    if after.id <= before.id {
        sink(id_not_growing(chain, before, after));
    }
    if let (Some(earlier), Some(later)) = (before.at, after.at)
        && later.micros() < earlier.micros() - TIME_TOLERANCE_MICROS
    {
        sink(finding(
            Kind::Order,
            chain,
            after,
            format!("time is {later}, that of entry {} before it is {earlier}", before.seq),
            "The clock of the server went back by more than a minute, or the time was set to hide when the entry was written.",
        ));
    }
}

fn id_not_growing(chain: u32, before: &Last, after: &First) -> Finding {
    finding(
        Kind::Order,
        chain,
        after,
        format!("id is {}, that of entry {} before it is {}", after.id, before.seq, before.id),
        "Ids grow along a chain. The entry was moved, or the sequence of ids was set back.",
    )
}

fn missing(chain: u32, first: u64, last: u64) -> Finding {
    let detail = if first == last {
        format!("entry {first} is missing")
    } else {
        format!("entries {first} to {last} are missing ({})", last - first + 1)
    };
    Finding {
        kind: Kind::Missing,
        relation: None,
        chain: i32::try_from(chain).ok(),
        seq: i64::try_from(first).ok(),
        id: None,
        detail,
        hint: "The extension never leaves a hole in a chain: these entries were deleted. Look for them in a backup or another copy of the log.".to_owned(),
    }
}

fn finding(kind: Kind, chain: u32, entry: &First, detail: String, hint: &str) -> Finding {
    Finding {
        kind,
        relation: None,
        chain: i32::try_from(chain).ok(),
        seq: i64::try_from(entry.seq).ok(),
        id: i64::try_from(entry.id).ok(),
        detail,
        hint: hint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEDGER: Uuid = Uuid::from_u128(7);

    fn hash(chain: u32, seq: u64) -> Hash {
        if seq == 0 {
            return Hash::GENESIS;
        }
        Hash::of(format!("{chain} {seq}").as_bytes())
    }

    fn link(chain: u32, seq: u64) -> Link {
        Link {
            ledger: LEDGER,
            chain,
            seq,
            prev: hash(chain, seq - 1),
            hash: hash(chain, seq),
            id: u64::from(chain) + seq * 10,
            at: Timestamp::new(seq as i64 * 1_000_000),
        }
    }

    fn chain(length: u64) -> Vec<Link> {
        (1..=length).map(|seq| link(1, seq)).collect()
    }

    fn verify(links: &[Link]) -> (Vec<Finding>, Vec<Head>) {
        let mut findings = Vec::new();
        let mut state = Links::new();
        for link in links {
            state.add(link, &mut |finding| findings.push(finding));
        }
        let heads = state.finish(&mut |finding| findings.push(finding));
        findings.sort_by_key(|finding| (finding.chain, finding.seq, finding.kind, finding.detail.clone()));
        (findings, heads)
    }

    /// Kind, seq and detail of each finding.
    fn faults(links: &[Link]) -> Vec<(Kind, i64, String)> {
        let (findings, _) = verify(links);
        findings.into_iter().map(|finding| (finding.kind, finding.seq.unwrap(), finding.detail)).collect()
    }

    #[test]
    fn behind_known_heads_only_what_follows_is_judged() {
        let ledger = Uuid::from_u128(1);
        let link = |chain, seq, prev: u8| Link {
            ledger,
            chain,
            seq,
            prev: Hash::from([prev; 32]),
            hash: Hash::from([seq as u8; 32]),
            id: seq,
            at: None,
        };
        let head = Head { ledger, chain: 1, seq: 5, hash: Hash::from([5; 32]), id: 0, entries: 0 };
        let verify = |links: &[Link]| {
            let mut found = Vec::new();
            let mut all = Links::since([head]);
            for link in links {
                all.add(link, &mut |finding| found.push(finding));
            }
            let heads = all.finish(&mut |finding| found.push(finding));
            (found.iter().map(|finding| (finding.kind, finding.seq)).collect::<Vec<_>>(), heads)
        };
        let (found, heads) = verify(&[link(1, 6, 5), link(1, 7, 6)]);
        assert_eq!(found, []);
        assert_eq!((heads[0].seq, heads[0].entries), (7, 2));
        assert_eq!(verify(&[]).1, [head]);
        assert_eq!(verify(&[link(1, 6, 9)]).0, [(Kind::Link, Some(6))]);
        assert_eq!(verify(&[link(1, 7, 6)]).0, [(Kind::Missing, Some(6))]);
        // A chain that is not among the heads begins at its beginning.
        assert_eq!(verify(&[link(2, 6, 5)]).0, [(Kind::Missing, Some(1))]);
    }

    #[test]
    fn whole_chain_has_a_head_and_no_findings() {
        let (findings, heads) = verify(&chain(5));
        assert_eq!(findings, []);
        assert_eq!(heads, [Head { ledger: LEDGER, chain: 1, seq: 5, hash: hash(1, 5), id: 51, entries: 5 }]);
        assert_eq!(verify(&[]), (vec![], vec![]));
    }

    #[test]
    fn removed_entries_are_found_and_the_tail_cannot_be() {
        for gone in 1..=5_u64 {
            let mut links = chain(5);
            links.remove(gone as usize - 1);
            let expected = vec![(Kind::Missing, gone as i64, format!("entry {gone} is missing"))];
            let expected = if gone == 5 { vec![] } else { expected };
            assert_eq!(faults(&links), expected);
        }
        let links = [link(1, 4), link(1, 9)];
        assert_eq!(
            faults(&links),
            [
                (Kind::Missing, 1, "entries 1 to 3 are missing (3)".to_owned()),
                (Kind::Missing, 5, "entries 5 to 8 are missing (4)".to_owned()),
            ]
        );
    }

    #[test]
    fn seq_that_stands_twice_is_found() {
        for twice in 1..=5 {
            let mut links = chain(5);
            links.push(link(1, twice));
            let expected = [(Kind::Order, twice as i64, format!("seq {twice} stands twice in chain 1"))];
            assert_eq!(faults(&links), expected);
            links.insert(0, links[5]);
            links.remove(6);
            assert_eq!(faults(&links), expected);
        }
        let alone = [link(1, 1), link(1, 4), link(1, 4)];
        assert_eq!(faults(&alone)[1].0, Kind::Order);
    }

    #[test]
    fn replaced_entry_breaks_the_link_after_it() {
        let mut links = chain(5);
        links[2].hash = Hash::of(b"other");
        assert_eq!(
            faults(&links),
            [(Kind::Link, 4, format!("prev is {}, hash of entry 3 is {}", hash(1, 3), Hash::of(b"other")))]
        );
    }

    #[test]
    fn prev_of_another_entry_is_found() {
        let mut links = chain(5);
        links[2].prev = hash(1, 1);
        assert_eq!(
            faults(&links),
            [(Kind::Link, 3, format!("prev is {}, hash of entry 2 is {}", hash(1, 1), hash(1, 2)))]
        );
    }

    #[test]
    fn first_entry_must_begin_the_chain() {
        let mut links = chain(3);
        links[0].prev = Hash::of(b"cut off");
        let found = faults(&links);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0, found[0].1), (Kind::Link, 1));
        links.reverse();
        assert_eq!(faults(&links), found);
    }

    #[test]
    fn swapped_entries_are_found() {
        let mut links = chain(5);
        (links[1].seq, links[2].seq) = (3, 2);
        let kinds: Vec<_> = faults(&links).into_iter().map(|(kind, seq, _)| (kind, seq)).collect();
        assert_eq!(kinds, [(Kind::Link, 2), (Kind::Link, 3), (Kind::Order, 3), (Kind::Link, 4),]);
    }

    #[test]
    fn ids_that_do_not_grow_are_found() {
        for id in [21, 5] {
            let mut links = chain(4);
            links[2].id = id;
            let expected = [(Kind::Order, 3, format!("id is {id}, that of entry 2 before it is 21"))];
            assert_eq!(faults(&links), expected);
        }
        // Also over a hole.
        let mut links = vec![link(1, 1), link(1, 3)];
        links[1].id = 11;
        assert_eq!(
            faults(&links),
            [
                (Kind::Missing, 2, "entry 2 is missing".to_owned()),
                (Kind::Order, 3, "id is 11, that of entry 1 before it is 11".to_owned()),
            ]
        );
    }

    #[test]
    fn time_may_go_back_by_the_tolerance_and_no_more() {
        let mut links = chain(3);
        links[1].at = Timestamp::new(100_000_000);
        links[2].at = Timestamp::new(40_000_000);
        assert_eq!(faults(&links), []);
        links[2].at = Timestamp::new(39_999_999);
        assert_eq!(
            faults(&links),
            [(
                Kind::Order,
                3,
                "time is 1970-01-01T00:00:39.999999Z, that of entry 2 before it is 1970-01-01T00:01:40.000000Z"
                    .to_owned()
            )]
        );
    }

    #[test]
    fn extreme_places_do_no_harm() {
        let mut zero = link(1, 1);
        zero.seq = 0;
        assert_eq!(faults(&[zero]), [(Kind::Order, 0, "seq is 0, below 1".to_owned())]);
        let far = |seq| Link { seq, prev: hash(1, 1), hash: hash(1, 1), id: seq, ..link(1, 1) };
        let links = [far(u64::MAX - 2), far(u64::MAX), far(u64::MAX - 1), far(u64::MAX)];
        let mut findings = Vec::new();
        let mut state = Links::new();
        for link in &links {
            state.add(link, &mut |finding| findings.push(finding));
        }
        let heads = state.finish(&mut |finding| findings.push(finding));
        assert_eq!(heads[0].seq, u64::MAX);
        let kinds: Vec<Kind> = findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, [Kind::Order, Kind::Missing]);
    }

    #[test]
    fn memory_is_the_open_runs() {
        let mut state = Links::new();
        let mut none = |finding| panic!("{finding:?}");
        for seq in (1..=1000).step_by(2) {
            state.add(&link(1, seq), &mut none);
        }
        assert_eq!(state.open_runs(), 500);
        for seq in (1..500).rev().map(|half| half * 2) {
            state.add(&link(1, seq), &mut none);
        }
        assert_eq!(state.open_runs(), 1);
        state.add(&link(2, 1), &mut none);
        assert_eq!(state.open_runs(), 2);
        assert_eq!(state.finish(&mut none).len(), 2);
    }

    #[test]
    fn a_fault_between_two_readers_is_found_where_they_meet() {
        let split = |links: &[Link], at: usize| {
            let (mut found, mut parts) = (Vec::new(), Links::new());
            for part in [&links[at..], &links[..at]] {
                let mut reader = Links::new();
                for link in part {
                    reader.add(link, &mut |finding| found.push(finding));
                }
                for stretch in reader.take() {
                    parts.add_stretch(&stretch, &mut |finding| found.push(finding)).unwrap();
                }
                assert_eq!(reader.open_runs(), 0);
            }
            assert_eq!(parts.open_runs(), 1);
            parts.finish(&mut |finding| found.push(finding));
            found.into_iter().map(|finding| (finding.kind, finding.seq.unwrap(), finding.detail)).collect::<Vec<_>>()
        };
        for at in 1..5 {
            assert_eq!(split(&chain(5), at), []);
            for damage in [
                |link: &mut Link| link.prev = Hash::of(b"other"),
                |link: &mut Link| link.id = 1,
                |link: &mut Link| link.at = Timestamp::new(-100_000_000),
            ] {
                let mut links = chain(5);
                damage(&mut links[at]);
                assert_eq!(split(&links, at), faults(&links));
                assert_eq!(split(&links, at).len(), 1);
            }
        }
    }

    #[test]
    fn a_seq_that_two_readers_have_seen_is_no_stretch() {
        let of = |links: &[Link]| {
            let mut reader = Links::new();
            links.iter().for_each(|link| reader.add(link, &mut |finding| panic!("{finding:?}")));
            reader.take()
        };
        let all = chain(9);
        for (first, second) in [(0..5, 4..9), (0..9, 3..4), (3..4, 0..9), (0..3, 0..3), (4..9, 0..5)] {
            let mut parts = Links::new();
            let mut none = |finding| panic!("{finding:?}");
            parts.add_stretch(&of(&all[first])[0], &mut none).unwrap();
            let (from, to) = (second.start as u64 + 1, second.end as u64);
            assert_eq!(
                parts.add_stretch(&of(&all[second])[0], &mut none),
                Err(Overlap { chain: 1, first: from, last: to })
            );
        }
    }

    #[test]
    fn chains_of_the_same_number_in_two_ledgers_are_two() {
        let mut other = link(1, 1);
        other.ledger = Uuid::from_u128(3);
        let (findings, heads) = verify(&[link(1, 1), other, link(1, 2)]);
        assert_eq!(findings, []);
        assert_eq!(heads.len(), 2);
        assert_eq!(heads[0].ledger, other.ledger);
        assert_eq!(heads[1].entries, 2);
    }

    proptest! {
        #[test]
        fn order_of_whole_chains_does_not_matter(
            links in (0_u64..40, 0_u64..40, 0_u64..3).prop_flat_map(|(a, b, c)| {
                let all: Vec<Link> = [(1, a), (2, b), (9, c)]
                    .into_iter()
                    .flat_map(|(chain, length)| (1..=length).map(move |seq| link(chain, seq)))
                    .collect();
                Just(all).prop_shuffle()
            })
        ) {
            let (findings, heads) = verify(&links);
            prop_assert_eq!(findings, vec![]);
            for head in &heads {
                prop_assert_eq!(head.hash, hash(head.chain, head.seq));
                prop_assert_eq!(head.entries, head.seq);
            }
            prop_assert_eq!(heads.iter().map(|head| head.entries).sum::<u64>(), links.len() as u64);
        }

        #[test]
        fn order_of_broken_chains_does_not_matter(
            (links, shuffled) in prop::collection::btree_map(1_u64..30, 0_u64..6, 0..30).prop_flat_map(|damage| {
                let links: Vec<Link> = damage
                    .into_iter()
                    .map(|(seq, what)| {
                        let mut link = link(1, seq);
                        match what {
                            0 => link.prev = hash(1, 99),
                            1 => link.hash = hash(1, 99),
                            2 => link.id = 15,
                            3 => link.at = Timestamp::new(-70_000_000),
                            _ => {}
                        }
                        link
                    })
                    .collect();
                (Just(links.clone()), Just(links).prop_shuffle())
            })
        ) {
            prop_assert_eq!(verify(&links), verify(&shuffled));
        }

        /// Each entry comes with the number of the reader that has it, and whether he hands over what he has before he goes on.
        #[test]
        fn parts_of_several_readers_give_the_findings_of_the_whole(
            entries in prop::collection::vec((1_u32..3, 1_u64..14, 0_u8..9, 0_usize..3, prop::bool::weighted(0.2)), 0..40)
                .prop_shuffle()
        ) {
            let mut whole: Vec<Link> = Vec::new();
            let (mut found, mut parts) = (Vec::new(), Links::new());
            let mut overlap = None;
            let mut readers = [Links::new(), Links::new(), Links::new()];
            for (chain, seq, damage, reader, hands_over) in entries {
                let mut link = link(chain, seq);
                match damage {
                    0 => link.prev = hash(1, 99),
                    1 => link.hash = hash(1, 99),
                    2 => link.id = 15,
                    3 => link.at = Timestamp::new(-70_000_000),
                    4 => link.at = None,
                    _ => {}
                }
                // Mostly each place is there once, as in a log that has its key.
                if damage != 8 && whole.iter().any(|other| (other.chain, other.seq) == (chain, seq)) {
                    continue;
                }
                whole.push(link);
                readers[reader].add(&link, &mut |finding| found.push(finding));
                if hands_over {
                    for stretch in readers[reader].take() {
                        overlap = overlap.or(parts.add_stretch(&stretch, &mut |finding| found.push(finding)).err());
                    }
                }
            }
            for stretch in readers.iter_mut().flat_map(|reader| reader.take()) {
                overlap = overlap.or(parts.add_stretch(&stretch, &mut |finding| found.push(finding)).err());
            }
            let twice = (0..whole.len()).any(|place| {
                whole[..place].iter().any(|other| (other.chain, other.seq) == (whole[place].chain, whole[place].seq))
            });
            if overlap.is_some() {
                prop_assert!(twice, "{overlap:?}");
                return Ok(());
            }
            let heads = parts.finish(&mut |finding| found.push(finding));
            found.sort_by_key(|finding| (finding.chain, finding.seq, finding.kind, finding.detail.clone()));
            prop_assert_eq!((found, heads), verify(&whole));
        }
    }
}

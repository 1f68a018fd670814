//! The seals of a database, computed once more from its log.

use std::collections::BTreeMap;

use audit_ledger::seal::Range;
use audit_ledger::tile::{completed_tiles, encode_hashes};
use audit_ledger::{Hash, LeafHash, Seal, TileWriter, TreeHead, TreeSize};

use crate::session::Session;

/// What [`assert_seals`] has found.
#[derive(Debug)]
pub struct Seals {
    /// All seals, in their order, with their hashes.
    pub seals: Vec<(Seal, Hash)>,
    /// Chain and seq of each sealed entry with its hash, in the order of the leaves.
    pub leaves: Vec<(u32, u64, Hash)>,
    /// How many entries of the log are not sealed.
    pub unsealed: usize,
}

/// Fails unless the seals follow each other, count each entry of the log once and in the order of its chain, and have the root and the
/// tiles that the ledger crate computes from the log.
#[track_caller]
pub fn assert_seals(session: &mut Session) -> Seals {
    // One snapshot for all tables, whoever seals meanwhile.
    session.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    let seals = recompute(session);
    session.run("COMMIT");
    seals
}

#[track_caller]
fn recompute(session: &mut Session) -> Seals {
    let mut log: BTreeMap<(u32, u64), Hash> = BTreeMap::new();
    for row in texts(session, "SELECT chain, seq, encode(hash, 'hex') FROM audit.log") {
        log.insert((number(&row[0]) as u32, number(&row[1])), hash(&row[2]));
    }
    let mut ranges: BTreeMap<u64, Vec<(u64, Range)>> = BTreeMap::new();
    for row in texts(
        session,
        "SELECT seal, first_leaf, chain, first_seq, last_seq, encode(head, 'hex') FROM audit.seal_range ORDER BY seal, chain",
    ) {
        let range =
            Range { chain: number(&row[2]) as u32, first: number(&row[3]), last: number(&row[4]), head: hash(&row[5]) };
        ranges.entry(number(&row[0])).or_default().push((number(&row[1]), range));
    }
    let mut writer = TileWriter::new();
    let mut tiles = BTreeMap::new();
    let mut found = Seals { seals: Vec::new(), leaves: Vec::new(), unsealed: 0 };
    let mut prev = Hash::GENESIS;
    for row in texts(
        session,
        r#"SELECT number, ledger, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), tree_size,
             encode(root, 'hex'), system_identifier, timeline, encode(prev, 'hex'), encode(hash, 'hex')
             FROM audit.seal ORDER BY number"#,
    ) {
        let its_ranges = ranges.remove(&number(&row[0])).unwrap_or_default();
        for (first_leaf, range) in &its_ranges {
            assert_eq!(*first_leaf, writer.range().size().get(), "first leaf of {range:?}");
            for seq in range.first..=range.last {
                let hash = log.remove(&(range.chain, seq));
                let hash =
                    hash.unwrap_or_else(|| panic!("entry {seq} of {range:?} is not in the log, or sealed twice"));
                writer
                    .append(LeafHash::of_entry(&hash), |tile| {
                        tiles.insert(tile.id, tile);
                    })
                    .expect("no tree of a test is full");
                found.leaves.push((range.chain, seq, hash));
                assert!(seq < range.last || hash == range.head, "head of {range:?}");
            }
            let before = range.first - 1;
            assert!(!log.contains_key(&(range.chain, before)), "entry {before} of chain {} was skipped", range.chain);
        }
        let seal = Seal {
            ledger: row[1].parse().expect("a uuid"),
            number: number(&row[0]),
            prev: hash(&row[7]),
            at: row[2].parse().expect("a time"),
            head: TreeHead {
                size: TreeSize::new(number(&row[3])).expect("a size"),
                root: row[4].parse().expect("a root"),
            },
            system: number(&row[5]),
            timeline: number(&row[6]) as u32,
            ranges: its_ranges.into_iter().map(|(_, range)| range).collect(),
        };
        let stored = hash(&row[8]);
        assert_eq!(seal.number, found.seals.len() as u64 + 1);
        assert_eq!(seal.prev, prev, "prev of seal {}", seal.number);
        assert_eq!(seal.head, writer.head(), "tree of seal {}", seal.number);
        assert_eq!(seal.check_form(), Ok(()), "form of seal {}", seal.number);
        assert_eq!(seal.hash_with(&mut Vec::new()), stored, "hash of seal {}", seal.number);
        prev = stored;
        found.seals.push((seal, stored));
    }
    assert!(ranges.is_empty(), "ranges without a seal: {ranges:?}");
    let stored = texts(
        session,
        "SELECT level, index, encode(hashes, 'hex'), encode(root, 'hex') FROM audit.tile ORDER BY level, index",
    );
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let expected: Vec<Vec<String>> = completed_tiles(TreeSize::ZERO, writer.range().size())
        .map(|id| {
            let tile = &tiles[&id];
            vec![
                id.level().to_string(),
                id.index().to_string(),
                hex(&encode_hashes(&tile.hashes)),
                tile.root.to_string(),
            ]
        })
        .collect();
    assert_eq!(stored.len(), expected.len(), "number of tiles");
    for (stored, expected) in stored.iter().zip(&expected) {
        assert_eq!(stored, expected, "tile");
    }
    found.unsealed = log.len();
    found
}

#[track_caller]
fn texts(session: &mut Session, sql: &str) -> Vec<Vec<String>> {
    session.rows(sql).into_iter().map(|row| row.into_iter().map(Option::unwrap_or_default).collect()).collect()
}

#[track_caller]
fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[track_caller]
fn hash(text: &str) -> Hash {
    text.parse().unwrap_or_else(|error| panic!("{error}: {text}"))
}

//! How long an entry takes. Run with
//! `cargo test --release -p audit-ledger --test speed -- --ignored --nocapture --test-threads 1`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::time::Instant;

use audit_ledger::seal::Range;
use audit_ledger::tile::encode_hashes;
use audit_ledger::{
    Actor, Checkpoint, CompactRange, Entry, Hash, LeafHash, LeafIndex, Link, Links, LogVerifier, NodeHash, RowSums,
    Seal, SealVerifier, SealedHash, SealedLog, Sign, SignerKey, Stored, StoredSeal, StoredTile, Table, TileId,
    TileReader, TileSlice, TileSource, TileWriter, Timestamp, TreeSize, Uuid, WholeTile, build_consistency_proof,
    build_inclusion_proof, verify_inclusion,
};

const TIMES: u64 = 2_000_000;

fn entry() -> Entry<'static> {
    Entry {
        ledger: Uuid::from_u128(0x0b8f_4f0e_7d0e_4c58_9d2a_0c6f_6f1f_5a11),
        chain: 3,
        seq: 123_456,
        prev: Hash::of(b"before"),
        id: 7_654_321,
        at: Timestamp::new(1_763_778_600_123_456).unwrap(),
        xid: 12_345_678,
        subxid: None,
        command: Some(0),
        operation: "UPDATE".into(),
        table: Some(Table { oid: 16390, schema: "public".into(), name: "orders".into() }),
        key: Some(r#"{"id":4711}"#.into()),
        old: Some(r#"{"state":"new","updated_at":"2025-11-22 02:29:00.5+00"}"#.into()),
        new: Some(r#"{"state":"paid","updated_at":"2025-11-22 02:30:00.123456+00"}"#.into()),
        actor: Actor {
            login: Some("app".into()),
            session: Some("app".into()),
            user: Some("app".into()),
            application: Some("orders-service".into()),
            client: Some("192.0.2.7".into()),
        },
        context: None,
    }
}

/// Prints what the fastest of 20 slices took: others that use the machine make it slower, never faster.
fn measure(what: &str, mut run: impl FnMut(u64)) {
    const SLICES: u64 = 20;
    let fastest = (0..SLICES)
        .map(|slice| {
            let start = Instant::now();
            for time in slice * (TIMES / SLICES)..(slice + 1) * (TIMES / SLICES) {
                run(time);
            }
            start.elapsed()
        })
        .min()
        .expect("there are 20");
    println!("{what}: {:.0} ns", fastest.as_nanos() as f64 / (TIMES / SLICES) as f64);
}

#[test]
#[ignore = "a measurement"]
fn entry_is_written_hashed_and_read() {
    let mut entry = entry();
    let mut line = Vec::new();
    entry.write_line(&mut line);
    println!("line of {} bytes", line.len());
    measure("write_line", |seq| {
        entry.seq = seq;
        line.clear();
        entry.write_line(&mut line);
    });
    measure("hash_with", |seq| {
        entry.seq = seq;
        std::hint::black_box(entry.hash_with(&mut line));
    });
    measure("check_form", |_| std::hint::black_box(&entry).check_form().unwrap());
    let text = String::from_utf8(line.clone()).unwrap();
    measure("parse", |_| {
        std::hint::black_box(Entry::parse(&text).unwrap());
    });
    measure("sha256 of the line", |_| {
        std::hint::black_box(Hash::of(std::hint::black_box(&line)));
    });
    let mut chain: Vec<Stored<'_>> = Vec::new();
    let mut lines: Vec<String> = Vec::new();
    for seq in 1..=50_000 {
        entry.seq = seq;
        entry.id = seq;
        entry.prev = chain.last().map_or(Hash::GENESIS, |stored| stored.hash);
        let hash = entry.hash_with(&mut line);
        chain.push(Stored { entry: entry.clone(), hash });
        lines.push(String::from_utf8(line.clone()).unwrap());
    }
    let mut verifier = LogVerifier::new();
    measure("LogVerifier::entry, a whole chain", |time| {
        let place = time as usize % chain.len();
        if place == 0 {
            verifier = LogVerifier::new();
        }
        verifier.entry(&chain[place], &mut |finding| panic!("{finding:?}"));
    });
    measure("LogVerifier::line, a whole chain", |time| {
        let place = time as usize % lines.len();
        if place == 0 {
            verifier = LogVerifier::new();
        }
        verifier.line(lines[place].as_bytes(), None, &mut |finding| panic!("{finding:?}"));
    });
}

#[test]
#[ignore = "a measurement"]
fn links_are_added() {
    for chains in [1, 64] {
        let mut links = Links::new();
        let ledger = Uuid::from_u128(1);
        let hash = Hash::of(b"the same");
        let at = Timestamp::new(0).unwrap();
        measure(&format!("Links::add, in order, {chains} chains in turn"), |time| {
            let seq = time / chains + 1;
            let link = Link {
                ledger,
                chain: (time % chains) as u32 + 1,
                seq,
                prev: if seq == 1 { Hash::GENESIS } else { hash },
                hash,
                id: time + 1,
                at: Some(at),
            };
            links.add(&link, &mut |finding| panic!("{finding:?}"));
        });
        assert_eq!(links.finish(&mut |finding| panic!("{finding:?}")).len(), chains as usize);
    }
}

#[test]
#[ignore = "a measurement"]
fn elements_are_added() {
    let mut sums = RowSums::new([7; 16], 65536);
    let rows: Vec<String> = (0..1000).map(|id| format!("{{\"id\":{id}}}")).collect();
    measure("RowSums::add, a new row each time", |time| {
        sums.add(Sign::Plus, &rows[time as usize % 1000], None);
    });
    measure("RowSums::add, columns of one row", |_| {
        sums.add(Sign::Plus, &rows[7], Some(("updated_at", "\"2025-11-22 02:30:00+00\"")));
    });
    let mut elements = 0_u64;
    measure("effects of an UPDATE of two columns", |_| {
        let entry = (
            r#"{"id":4711}"#,
            r#"{"state":"new","updated_at":"2025-11-22 02:29:00.5+00"}"#,
            r#"{"state":"paid","updated_at":"2025-11-22 02:30:00.123456+00"}"#,
        );
        let (key, old, new) = std::hint::black_box(entry);
        audit_ledger::effects(audit_ledger::Operation::Update, Some(key), Some(old), Some(new), &mut |_, _, _| {
            elements += 1
        })
        .unwrap();
    });
}

/// Tiles in memory, each with its root.
#[derive(Default)]
struct Tiles {
    whole: BTreeMap<TileId, WholeTile>,
    leaves: Vec<NodeHash>,
    read: usize,
}

impl TileSource for Tiles {
    type Error = Infallible;

    fn read_tiles(&mut self, tiles: &[TileSlice]) -> Result<Vec<Vec<NodeHash>>, Infallible> {
        self.read += tiles.len();
        let read = |tile: &TileSlice| {
            let (id, width) = (tile.id(), usize::from(tile.width()));
            match self.whole.get(&id) {
                Some(whole) => whole.hashes[..width].to_vec(),
                None if id.level() == 0 => self.leaves[id.index() as usize * 256..][..width].to_vec(),
                None => (0..width as u64)
                    .map(|i| self.whole[&TileId::new(id.level() - 1, id.index() * 256 + i).unwrap()].root)
                    .collect(),
            }
        };
        Ok(tiles.iter().map(read).collect())
    }
}

#[test]
#[ignore = "a measurement"]
fn tree_is_built_and_proves() {
    let mut tiles = Tiles::default();
    let mut writer = TileWriter::new();
    measure("append_to_tiles", |time| {
        let leaf = LeafHash::of_entry(&Hash::from([time as u8; 32]));
        tiles.leaves.push(leaf.into());
        writer.append(leaf, |tile| drop(tiles.whole.insert(tile.id, tile))).unwrap();
    });
    let mut range = CompactRange::new();
    measure("append_to_range", |time| {
        range.append(LeafHash::of_entry(&Hash::from([time as u8; 32]))).unwrap();
    });
    let head = writer.head();
    assert_eq!(head, range.head());
    let start = Instant::now();
    TileWriter::resume(&head, &mut tiles).unwrap();
    println!("resume: {:.0} us", start.elapsed().as_micros());
    let times = 2000;
    tiles.read = 0;
    let start = Instant::now();
    let mut proofs = Vec::new();
    for i in 0..times {
        let index = LeafIndex::new(i * 997 % head.size.get()).unwrap();
        let mut reader = TileReader::new(head.size, &mut tiles);
        proofs.push(build_inclusion_proof(index, head.size, &mut reader).unwrap());
    }
    let micros = start.elapsed().as_micros() as f64 / times as f64;
    println!("build_inclusion_proof: {micros:.0} us, {} tiles", tiles.read as u64 / times);
    let start = Instant::now();
    for proof in &proofs {
        let leaf = LeafHash::of_entry(&Hash::from([proof.index().get() as u8; 32]));
        verify_inclusion(proof, &leaf, &head).unwrap();
    }
    println!("verify_inclusion: {:.1} us", start.elapsed().as_micros() as f64 / times as f64);
    tiles.read = 0;
    let start = Instant::now();
    for i in 1..=times {
        let mut reader = TileReader::new(head.size, &mut tiles);
        let old = TreeSize::new(i * 991).unwrap();
        std::hint::black_box(build_consistency_proof(old, head.size, &mut reader).unwrap());
    }
    let micros = start.elapsed().as_micros() as f64 / times as f64;
    println!("build_consistency_proof: {micros:.0} us, {} tiles", tiles.read as u64 / times);
}

/// A log of one chain, of which each entry has the same hash.
struct OneChain(BTreeMap<TileId, StoredTile>);

impl SealedLog for OneChain {
    type Error = Infallible;

    fn entries(
        &mut self,
        _: u32,
        first: u64,
        last: u64,
        each: &mut dyn FnMut(u64, SealedHash) -> ControlFlow<()>,
    ) -> Result<(), Infallible> {
        let hash = Hash::from([7; 32]);
        let _ = (first..=last).try_for_each(|seq| each(seq, SealedHash::Entry(hash)));
        Ok(())
    }

    fn has_tiles(&self) -> bool {
        true
    }

    fn tile(&mut self, id: TileId) -> Result<Option<StoredTile>, Infallible> {
        Ok(self.0.get(&id).cloned())
    }

    fn tile_from(&mut self, _: u8, _: u64) -> Result<Option<u64>, Infallible> {
        Ok(None)
    }
}

#[test]
#[ignore = "a measurement"]
fn seals_are_verified() {
    let hash = Hash::from([7; 32]);
    for count in [100, 100_000] {
        let ledger = Uuid::from_u128(1);
        let mut tiles = BTreeMap::new();
        let mut writer = TileWriter::new();
        let mut seals: Vec<StoredSeal> = Vec::new();
        for number in 1..=TIMES / count {
            for _ in 0..count {
                let whole = |tile: WholeTile| {
                    tiles.insert(tile.id, StoredTile { hashes: encode_hashes(&tile.hashes), root: tile.root });
                };
                writer.append(LeafHash::of_entry(&hash), whole).unwrap();
            }
            let seal = Seal {
                ledger,
                number,
                prev: seals.last().map_or(Hash::GENESIS, |seal| seal.hash),
                at: Timestamp::new(number as i64).unwrap(),
                head: writer.head(),
                system: 1,
                timeline: 1,
                ranges: vec![Range { chain: 1, first: (number - 1) * count + 1, last: number * count, head: hash }],
            };
            let hash = seal.hash_with(&mut Vec::new());
            seals.push(StoredSeal { seal, hash });
        }
        let mut log = OneChain(tiles);
        let mut verifier = SealVerifier::new(ledger);
        verifier.expect(writer.head()).unwrap();
        let start = Instant::now();
        for seal in &seals {
            verifier.seal(seal, &mut log, &mut |finding| panic!("{finding:?}")).unwrap();
        }
        let summary = verifier.finish(&[], &mut log, &mut |finding| panic!("{finding:?}")).unwrap();
        assert_eq!(summary.confirmed.unwrap().size, TIMES);
        let nanos = start.elapsed().as_nanos() as f64 / TIMES as f64;
        println!("SealVerifier, seals of {count} entries: {nanos:.0} ns an entry");
    }
}

#[test]
#[ignore = "a measurement"]
fn checkpoint_is_signed_and_opened() {
    let key = SignerKey::from_seed("example.com/log", &[1; 32]).unwrap();
    let checkpoint = Checkpoint::new("example.com/log", CompactRange::new().head()).unwrap();
    let times = 10_000;
    let start = Instant::now();
    for _ in 0..times {
        std::hint::black_box(checkpoint.sign(&[&key]).unwrap());
    }
    println!("sign: {:.0} us", start.elapsed().as_micros() as f64 / f64::from(times));
    let note = checkpoint.sign(&[&key]).unwrap();
    let start = Instant::now();
    for _ in 0..times {
        Checkpoint::open(&note, "example.com/log", &key.verifier(), &[]).unwrap();
    }
    println!("open: {:.0} us", start.elapsed().as_micros() as f64 / f64::from(times));
}

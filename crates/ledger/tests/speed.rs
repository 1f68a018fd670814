//! How long an entry takes. Run with
//! `cargo test --release -p audit-ledger --test speed -- --ignored --nocapture --test-threads 1`.

use std::time::Instant;

use audit_ledger::{Actor, Entry, Hash, Link, Links, LogVerifier, RowSums, Sign, Stored, Table, Timestamp, Uuid};

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

fn measure(what: &str, mut run: impl FnMut(u64)) {
    let start = Instant::now();
    for time in 0..TIMES {
        run(time);
    }
    println!("{what}: {:.0} ns", start.elapsed().as_nanos() as f64 / TIMES as f64);
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
    let mut findings = 0_u64;
    let mut verifier = LogVerifier::new();
    measure("LogVerifier::line", |_| {
        verifier.line(text.as_bytes(), None, &mut |_| findings += 1);
    });
    let mut verifier = LogVerifier::new();
    let hash = entry.hash_with(&mut line);
    let stored = Stored { entry, hash };
    // The same entry again and again: each is a duplicate, which costs more than a good one.
    measure("LogVerifier::entry", |_| {
        verifier.entry(std::hint::black_box(&stored), &mut |_| findings += 1);
    });
    println!("{findings} findings");
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

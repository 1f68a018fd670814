//! The operations whose instructions `scripts/counts` counts: each as often as is asked for, on entries that are always the same.
//!
//! `audit-counts` names the operations, `audit-counts OPERATION TIMES` does one. What is done before and beside does not depend on how often, so that two runs differ by the operation alone.

use std::hint::black_box;
use std::process::ExitCode;

use audit_ledger::{
    Actor, Entry, Finding, Hash, LeafHash, LeafSum, Link, Links, LogVerifier, RawEntry, Stored, Table, TileWriter,
    Timestamp, Uuid,
};

/// How many entries there are; those who do more begin anew.
const ENTRIES: usize = 1024;

/// Does something with one entry after the other, as often as is asked for.
type Operation = fn(&Fixture, usize);

const OPERATIONS: [(&str, Operation); 6] = [
    // The text of an entry, written field by field.
    ("line", |fixture, times| {
        let mut line = Vec::new();
        each(&fixture.log, times, |stored, _| {
            line.clear();
            black_box(stored).entry.write_line(&mut line);
            black_box(&line);
        });
    }),
    // SHA-256 of that text.
    ("hash", |fixture, times| {
        each(&fixture.lines, times, |line, _| {
            black_box(Hash::of(black_box(line)));
        });
    }),
    // An entry joined to its chain.
    ("link", |fixture, times| {
        let mut links = Links::new();
        each(&fixture.raw(), times, |entry, begins| {
            if begins {
                links = Links::new();
            }
            links.add(&black_box(entry).link(), &mut unexpected);
        });
    }),
    // An entry appended to the tree, its leaf and the nodes over it included.
    ("tree", |fixture, times| {
        let mut tree = TileWriter::new();
        each(&fixture.log, times, |stored, begins| {
            if begins {
                tree = TileWriter::new();
            }
            tree.append(LeafHash::of_entry(black_box(&stored.hash)), |tile| drop(black_box(tile)))
                .expect("it has room");
        });
    }),
    // A leaf added to the sum that shows whether tree and log hold the same.
    ("leaf sum", |fixture, times| {
        let mut sum = LeafSum::new([7; 16]);
        let leaf = LeafHash::of_entry(&Hash::GENESIS);
        each(&fixture.log, times, |stored, _| sum.add(stored.entry.chain, stored.entry.seq, black_box(&leaf)));
        black_box(sum.total());
    }),
    // An entry verified from the bytes of its columns: line, form, hash and link.
    ("verify", |fixture, times| {
        let mut verifier = LogVerifier::new();
        each(&fixture.raw(), times, |entry, begins| {
            if begins {
                verifier = LogVerifier::new();
            }
            assert!(verifier.raw(black_box(entry), &mut unexpected, &mut observe));
        });
        verifier.settle(&mut unexpected, &mut observe);
    }),
];

fn unexpected(finding: Finding) {
    panic!("the entries are right, but: {finding:?}");
}

/// What a verification does with an entry afterwards is not counted.
fn observe(link: &Link) {
    black_box(link);
}

/// Gives `act` one item after the other, and says where it begins anew.
fn each<T>(items: &[T], times: usize, mut act: impl FnMut(&T, bool)) {
    for time in 0..times {
        let place = time % items.len();
        act(&items[place], place == 0);
    }
}

/// The log of a service: transactions of four writers in turn, each an UPDATE of one table and an INSERT into another.
struct Fixture {
    log: Vec<Stored<'static>>,
    lines: Vec<Vec<u8>>,
}

impl Fixture {
    fn new() -> Fixture {
        const WRITERS: usize = 4;
        let mut heads = [(0, Hash::GENESIS); WRITERS];
        let mut fixture = Fixture { log: Vec::new(), lines: Vec::new() };
        for number in 0..ENTRIES {
            let transaction = number / 2;
            let writer = transaction % WRITERS;
            let (seq, prev) = heads[writer];
            let entry = entry(number, writer as u32 + 1, seq + 1, prev);
            let mut line = Vec::new();
            let hash = entry.hash_with(&mut line);
            heads[writer] = (seq + 1, hash);
            fixture.log.push(Stored { entry, hash });
            fixture.lines.push(line);
        }
        fixture
    }

    /// The entries as a table gives them.
    fn raw(&self) -> Vec<RawEntry<'_>> {
        self.log.iter().map(|Stored { entry, hash }| RawEntry::of(entry, *hash)).collect()
    }
}

fn entry(number: usize, chain: u32, seq: u64, prev: Hash) -> Entry<'static> {
    let (transaction, is_update) = (number / 2, number.is_multiple_of(2));
    let row = 1 + transaction * 7919 % 100_000;
    let amount = transaction * 6_364_136 % 99_999;
    let (cents, time) = (amount % 100, transaction % 60);
    let (amount, seconds) = (amount / 100, format!("{time:02}.{:06}", transaction * 733));
    let table = |oid, name: &'static str| Table { oid, schema: "public".into(), name: name.into() };
    // Every 16th transaction is of somebody with a name beyond ASCII.
    let note = if transaction.is_multiple_of(16) { "Müller" } else { "Miller" };
    let at = Timestamp::new(1_767_225_600_000_000 + transaction as i64 * 733).expect("it is of this century");
    let (operation, table, key, old, new) = if is_update {
        (
            "UPDATE",
            table(16390, "purchase"),
            format!(r#"{{"id":{row}}}"#),
            Some(format!(
                r#"{{"status":"new","amount":10.00,"items":1,"note":"{note}","updated_at":"2026-01-01 00:00:00+00"}}"#
            )),
            format!(
                r#"{{"status":"changed","amount":{amount}.{cents:02},"items":2,"note":"{note}","updated_at":"2026-01-01 00:00:{seconds}+00"}}"#
            ),
        )
    } else {
        (
            "INSERT",
            table(16400, "purchase_event"),
            format!(r#"{{"id":{transaction}}}"#),
            None,
            format!(
                r#"{{"id":{transaction},"purchase_id":{row},"kind":"change","amount":{amount}.{cents:02},"at":"2026-01-01 00:00:{seconds}+00"}}"#
            ),
        )
    };
    Entry {
        ledger: Uuid::from_u128(0x0b8f_4f0e_7d0e_4c58_9d2a_0c6f_6f1f_5a11),
        chain,
        seq,
        prev,
        id: 1_000_000 + number as u64,
        at,
        xid: 4_294_968_000 + transaction as u64,
        subxid: None,
        command: Some(number as u32 % 2),
        operation: operation.into(),
        table: Some(table),
        key: Some(key.into()),
        old: old.map(Into::into),
        new: Some(new.into()),
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

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => OPERATIONS.iter().for_each(|(name, _)| println!("{name}")),
        [name, times] => {
            let operation = OPERATIONS.iter().find(|(known, _)| known == name);
            let (Some((_, operation)), Ok(times)) = (operation, times.parse()) else {
                eprintln!("audit-counts: there is no operation \"{name}\", or \"{times}\" is no number");
                return ExitCode::FAILURE;
            };
            operation(&Fixture::new(), times);
        }
        _ => {
            eprintln!("usage: audit-counts [OPERATION TIMES]");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

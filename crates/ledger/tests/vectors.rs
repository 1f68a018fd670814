//! The golden vectors in `testdata/entries.json`: fields, line and hash of entries.
//!
//! Other implementations read the same file. Vectors are added, never changed: an entry that was written keeps its hash for ever.

use std::borrow::Cow;
use std::collections::BTreeMap;

use audit_ledger::seal::Range;
use audit_ledger::{
    Actor, CompactRange, Entry, Hash, LeafHash, LogVerifier, Operation, Seal, Stored, Table, TreeHead, TreeSize,
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    fields: Fields,
    line: String,
    hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    v: u32,
    ledger: String,
    chain: u32,
    seq: String,
    prev: String,
    id: String,
    at: String,
    xid: String,
    subxid: Option<String>,
    command: Option<u32>,
    op: String,
    table_oid: Option<u32>,
    table_schema: Option<String>,
    table_name: Option<String>,
    key: Option<String>,
    old: Option<String>,
    new: Option<String>,
    login_name: Option<String>,
    session_name: Option<String>,
    user_name: Option<String>,
    application_name: Option<String>,
    client_addr: Option<String>,
    context: Option<String>,
}

impl Fields {
    fn entry(&self) -> Entry<'_> {
        fn text(field: &Option<String>) -> Option<Cow<'_, str>> {
            field.as_deref().map(Cow::Borrowed)
        }
        assert_eq!(self.v, audit_ledger::entry::VERSION);
        Entry {
            ledger: self.ledger.parse().unwrap(),
            chain: self.chain,
            seq: self.seq.parse().unwrap(),
            prev: self.prev.parse().unwrap(),
            id: self.id.parse().unwrap(),
            at: self.at.parse().unwrap(),
            xid: self.xid.parse().unwrap(),
            subxid: self.subxid.as_ref().map(|subxid| subxid.parse().unwrap()),
            command: self.command,
            operation: self.op.as_str().into(),
            table: self.table_oid.map(|oid| Table {
                oid,
                schema: text(&self.table_schema).unwrap(),
                name: text(&self.table_name).unwrap(),
            }),
            key: text(&self.key),
            old: text(&self.old),
            new: text(&self.new),
            actor: Actor {
                login: text(&self.login_name),
                session: text(&self.session_name),
                user: text(&self.user_name),
                application: text(&self.application_name),
                client: text(&self.client_addr),
            },
            context: text(&self.context),
        }
    }
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("../testdata/entries.json")).unwrap()
}

#[test]
fn fields_give_line_and_hash() {
    let mut line = Vec::new();
    for vector in vectors() {
        let hash = vector.fields.entry().hash_with(&mut line);
        assert_eq!(str::from_utf8(&line).unwrap(), vector.line, "{}", vector.name);
        assert_eq!(hash.to_string(), vector.hash, "{}", vector.name);
    }
}

#[test]
fn lines_give_the_fields() {
    for vector in vectors() {
        let entry = Entry::parse(&vector.line).unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        assert_eq!(entry, vector.fields.entry(), "{}", vector.name);
        assert_eq!(Hash::of(vector.line.as_bytes()), vector.hash.parse().unwrap());
        entry.check_form().unwrap_or_else(|error| panic!("{}: {error}", vector.name));
    }
}

#[test]
fn every_operation_has_a_vector() {
    let vectors = vectors();
    for operation in Operation::ALL {
        assert!(vectors.iter().any(|vector| vector.fields.op == operation.as_str()), "{operation}");
    }
}

#[test]
fn no_two_vectors_share_name_or_hash() {
    let vectors = vectors();
    for key in [|vector: &Vector| vector.name.clone(), |vector: &Vector| vector.hash.clone()] {
        let distinct: BTreeMap<String, ()> = vectors.iter().map(|vector| (key(vector), ())).collect();
        assert_eq!(distinct.len(), vectors.len());
    }
}

#[test]
fn vectors_named_chain_are_a_whole_chain() {
    let vectors = vectors();
    let mut verifier = LogVerifier::new();
    let mut none = |finding| panic!("{finding:?}");
    for vector in vectors.iter().filter(|vector| vector.name.starts_with("chain_")) {
        let stored = Stored { entry: vector.fields.entry(), hash: vector.hash.parse().unwrap() };
        verifier.entry(&stored, &mut none);
    }
    let summary = verifier.finish(&mut none);
    assert_eq!(summary.heads.len(), 1);
    assert_eq!((summary.heads[0].seq, summary.heads[0].entries), (3, 3));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SealVector {
    name: String,
    fields: SealFields,
    line: String,
    hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SealFields {
    v: u32,
    ledger: String,
    seal: String,
    prev: String,
    at: String,
    size: String,
    root: String,
    system: String,
    timeline: u32,
    ranges: Vec<(u32, String, String, String)>,
}

impl SealFields {
    fn seal(&self) -> Seal {
        assert_eq!(self.v, audit_ledger::entry::VERSION);
        let range = |(chain, first, last, head): &(u32, String, String, String)| Range {
            chain: *chain,
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
            head: head.parse().unwrap(),
        };
        Seal {
            ledger: self.ledger.parse().unwrap(),
            number: self.seal.parse().unwrap(),
            prev: self.prev.parse().unwrap(),
            at: self.at.parse().unwrap(),
            head: TreeHead {
                size: TreeSize::new(self.size.parse().unwrap()).unwrap(),
                root: self.root.parse().unwrap(),
            },
            system: self.system.parse().unwrap(),
            timeline: self.timeline,
            ranges: self.ranges.iter().map(range).collect(),
        }
    }
}

/// The golden vectors in `testdata/seals.json`, for which the same holds.
fn seal_vectors() -> Vec<SealVector> {
    serde_json::from_str(include_str!("../testdata/seals.json")).unwrap()
}

#[test]
fn fields_of_a_seal_give_its_line_and_hash_and_lines_give_the_fields() {
    let mut line = Vec::new();
    for vector in seal_vectors() {
        let seal = vector.fields.seal();
        let hash = seal.hash_with(&mut line);
        assert_eq!(str::from_utf8(&line).unwrap(), vector.line, "{}", vector.name);
        assert_eq!(hash.to_string(), vector.hash, "{}", vector.name);
        assert_eq!(Seal::parse(&vector.line).as_ref(), Ok(&seal), "{}", vector.name);
        assert_eq!(seal.check_form(), Ok(()), "{}", vector.name);
    }
}

#[test]
fn the_page_shows_the_first_seal() {
    let page = include_str!("../../../docs/format.md");
    let vectors = seal_vectors();
    assert_eq!(vectors[0].name, "seal_1");
    assert!(page.contains(&vectors[0].line));
    assert!(page.contains(&vectors[0].hash));
}

#[test]
fn seals_of_the_chain_follow_each_other() {
    let entries = vectors();
    let entry = |seq: u64| entries.iter().find(|vector| vector.name == format!("chain_{seq}")).unwrap();
    let mut tree = CompactRange::new();
    let mut prev = Hash::GENESIS;
    for (vector, number) in seal_vectors().iter().filter(|vector| vector.name.starts_with("seal_")).zip(1..) {
        let seal = vector.fields.seal();
        assert_eq!((seal.number, seal.prev), (number, prev));
        assert_eq!(seal.first_leaf(), Some(tree.size().get()));
        for range in &seal.ranges {
            for seq in range.first..=range.last {
                tree.append(LeafHash::of_entry(&entry(seq).hash.parse().unwrap())).unwrap();
            }
            assert_eq!(range.head.to_string(), entry(range.last).hash);
        }
        assert_eq!(seal.head, tree.head());
        prev = vector.hash.parse().unwrap();
    }
    assert_eq!(tree.size().get(), 3);
}

//! One pass over a log: content, form and links of each entry.
//!
//! The same engine serves SQL and the offline program. It keeps no entries, see `links` for what it keeps, and knows neither where
//! entries come from nor what tables hold.

use crate::entry::{DecodeError, Entry};
use crate::finding::{Finding, Kind};
use crate::hash::Hash;
use crate::links::{Head, Link, Links, Overlap, Stretch};
use crate::raw::{RawEntry, RawVerifier};

/// An entry and the hash that is stored with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// The entry, as its columns say.
    pub entry: Entry<'a>,
    /// The hash, as stored.
    pub hash: Hash,
}

/// Verifies the entries of a log, given in any order.
#[derive(Debug, Default)]
pub struct LogVerifier {
    links: Links,
    entries: u64,
    line: Vec<u8>,
    raw: RawVerifier,
}

/// What was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many entries were given, bad ones as well.
    pub entries: u64,
    /// The last entry of each chain, ordered by ledger and chain.
    pub heads: Vec<Head>,
}

/// What one of several readers has verified of a log, for the one who puts their parts together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// How many entries, bad ones as well.
    pub entries: u64,
    /// Where they stand.
    pub stretches: Vec<Stretch>,
}

impl LogVerifier {
    /// No entry yet.
    pub fn new() -> LogVerifier {
        LogVerifier::default()
    }

    /// Begins behind entries that are known to be right, see [`Links::since`].
    pub fn since(heads: impl IntoIterator<Item = Head>) -> LogVerifier {
        LogVerifier { links: Links::since(heads), ..LogVerifier::default() }
    }

    /// Verifies one entry: that its hash is that of its line (else a content finding), that it has the form of docs/format.md (a format
    /// finding, looked for only when the hash fits), and its place in its chain. The chain is followed by the hashes as stored, so that one changed entry is one finding.
    pub fn entry(&mut self, stored: &Stored<'_>, sink: &mut impl FnMut(Finding)) {
        self.entries += 1;
        let computed = stored.entry.hash_with(&mut self.line);
        place(&mut self.links, &stored.entry, stored.hash, computed, sink);
    }

    /// Takes an entry that is to be verified quickly, see [`RawVerifier`]. What comes of it is known when a few more are taken, or [`LogVerifier::settle`] is called: then `each` is told of it. `false` says that
    /// it was not taken, and must be given to [`LogVerifier::entry`]; all that came before it is settled.
    pub fn raw(&mut self, entry: &RawEntry<'_>, sink: &mut impl FnMut(Finding), each: &mut impl FnMut(&Link)) -> bool {
        let has_room = self.raw.take(entry);
        if has_room != Some(true) {
            self.settle(sink, each);
        }
        has_room.is_some()
    }

    /// Verifies what [`LogVerifier::raw`] has taken. `each` is told of each entry, right or not.
    pub fn settle(&mut self, sink: &mut impl FnMut(Finding), each: &mut impl FnMut(&Link)) {
        let LogVerifier { links, entries, line: buffer, raw } = self;
        raw.judge(|verdict| {
            *entries += 1;
            match verdict {
                Ok(link) => {
                    links.add(link, sink);
                    each(link);
                }
                Err((link, line)) => {
                    let entry = Entry::parse(line).expect("such a line was written by the same rules");
                    let computed = entry.hash_with(buffer);
                    place(links, &entry, link.hash, computed, sink);
                    each(link);
                }
            }
        });
    }

    /// Tells of an entry one of whose fields holds no valid value, so that no line can be made of it: its content was changed. It keeps its place in its chain.
    pub fn unreadable(&mut self, link: &Link, field: &str, relation: Option<String>, sink: &mut impl FnMut(Finding)) {
        self.entries += 1;
        sink(Finding {
            kind: Kind::Content,
            relation,
            chain: i32::try_from(link.chain).ok(),
            seq: i64::try_from(link.seq).ok(),
            id: i64::try_from(link.id).ok(),
            detail: format!("\"{field}\" holds no valid value, so no line can be made of the entry"),
            hint: CHANGED.to_owned(),
        });
        self.links.add(link, sink);
    }

    /// Verifies one entry given as its line, without line feed, and the hash stored with it, if there is one. A line that cannot be read takes no place in
    /// its chain, so that a missing finding follows it.
    pub fn line(&mut self, line: &[u8], hash: Option<Hash>, sink: &mut impl FnMut(Finding)) {
        self.entries += 1;
        let computed = Hash::of(line);
        let stored = hash.unwrap_or(computed);
        let entry =
            std::str::from_utf8(line).map_err(|error| DecodeError::Utf8(error.valid_up_to())).and_then(Entry::parse);
        match entry {
            Ok(entry) => place(&mut self.links, &entry, stored, computed, sink),
            Err(_) if stored != computed => sink(content(None, stored, computed)),
            Err(error) => sink(format(None, error.to_string())),
        }
    }

    /// How many entries were given so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The measure of memory, see [`Links::open_runs`].
    pub fn open_runs(&self) -> usize {
        self.links.open_runs()
    }

    /// Hands out what was verified and settled, and begins anew; see [`Links::take`].
    pub fn take(&mut self) -> Part {
        Part { entries: std::mem::take(&mut self.entries), stretches: self.links.take() }
    }

    /// Adds what another has verified; see [`Links::add_stretch`].
    pub fn add(&mut self, part: &Part, sink: &mut impl FnMut(Finding)) -> Result<(), Overlap> {
        self.entries += part.entries;
        part.stretches.iter().try_for_each(|stretch| self.links.add_stretch(stretch, sink))
    }

    /// Tells of the holes and sums up.
    pub fn finish(mut self, sink: &mut impl FnMut(Finding)) -> Summary {
        self.settle(sink, &mut |_| {});
        Summary { entries: self.entries, heads: self.links.finish(sink) }
    }
}

/// Tells what is wrong with an entry, and gives it its place in its chain.
fn place(links: &mut Links, entry: &Entry<'_>, stored: Hash, computed: Hash, sink: &mut impl FnMut(Finding)) {
    if computed != stored {
        sink(content(Some(entry), stored, computed));
    } else if let Err(error) = entry.check_form() {
        sink(format(Some(entry), error.to_string()));
    }
    // Told above: no chain has a place 0.
    if entry.seq == 0 && computed == stored {
        return;
    }
    let link = Link {
        ledger: entry.ledger,
        chain: entry.chain,
        seq: entry.seq,
        prev: entry.prev,
        hash: stored,
        id: entry.id,
        at: Some(entry.at),
    };
    links.add(&link, sink);
}

const CHANGED: &str = "The entry was changed after it was written. Compare with a backup or another copy of the log.";

fn content(entry: Option<&Entry<'_>>, stored: Hash, computed: Hash) -> Finding {
    finding(Kind::Content, entry, format!("stored hash {stored}, computed {computed}"), CHANGED)
}

fn format(entry: Option<&Entry<'_>>, detail: String) -> Finding {
    finding(
        Kind::Format,
        entry,
        detail,
        "The hash fits, but the extension does not write such an entry: it was written by something else, or by a newer version.",
    )
}

fn finding(kind: Kind, entry: Option<&Entry<'_>>, detail: String, hint: &str) -> Finding {
    Finding {
        kind,
        relation: entry.and_then(Entry::relation),
        chain: entry.and_then(|entry| i32::try_from(entry.chain).ok()),
        seq: entry.and_then(|entry| i64::try_from(entry.seq).ok()),
        id: entry.and_then(|entry| i64::try_from(entry.id).ok()),
        detail,
        hint: hint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_entry_is_one_content_finding_and_keeps_its_place() {
        let log = log(3);
        let mut verifier = LogVerifier::new();
        let mut found = Vec::new();
        let mut sink = |finding: Finding| found.push((finding.kind, finding.seq));
        verifier.entry(&log[0], &mut sink);
        let entry = &log[1].entry;
        let link = Link {
            ledger: entry.ledger,
            chain: entry.chain,
            seq: entry.seq,
            prev: entry.prev,
            hash: log[1].hash,
            id: entry.id,
            at: None,
        };
        verifier.unreadable(&link, "at", None, &mut sink);
        verifier.entry(&log[2], &mut sink);
        let summary = verifier.finish(&mut sink);
        assert_eq!((summary.entries, found), (3, vec![(Kind::Content, Some(2))]));
    }
    use crate::entry::{Actor, Timestamp};

    fn log(length: u64) -> Vec<Stored<'static>> {
        let mut prev = Hash::GENESIS;
        (1..=length)
            .map(|seq| {
                let entry = Entry {
                    ledger: uuid::Uuid::from_u128(1),
                    chain: 1,
                    seq,
                    prev,
                    id: seq,
                    at: Timestamp::new(0).unwrap(),
                    xid: 700,
                    subxid: None,
                    command: Some(0),
                    operation: "INSERT".into(),
                    table: Some(crate::entry::Table { oid: 5, schema: "public".into(), name: "t".into() }),
                    key: None,
                    old: None,
                    new: Some("{\"a\":1}".into()),
                    actor: Actor::default(),
                    context: None,
                };
                prev = entry.hash_with(&mut Vec::new());
                Stored { entry, hash: prev }
            })
            .collect()
    }

    fn verify(log: &[Stored<'_>]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut verifier = LogVerifier::new();
        for stored in log {
            verifier.entry(stored, &mut |finding| findings.push(finding));
        }
        assert_eq!(verifier.entries(), log.len() as u64);
        let summary = verifier.finish(&mut |finding| findings.push(finding));
        assert_eq!(summary.entries, log.len() as u64);
        findings
    }

    fn kinds(findings: &[Finding]) -> Vec<(Kind, Option<i64>)> {
        findings.iter().map(|finding| (finding.kind, finding.seq)).collect()
    }

    #[test]
    fn whole_log_has_no_findings() {
        assert_eq!(verify(&log(3)), []);
    }

    #[test]
    fn changed_value_is_one_content_finding() {
        let mut log = log(3);
        let stored = log[1].hash;
        log[1].entry.new = Some("{\"a\":2}".into());
        let computed = log[1].entry.hash_with(&mut Vec::new());
        assert_eq!(
            verify(&log),
            [Finding {
                kind: Kind::Content,
                relation: Some("public.t".to_owned()),
                chain: Some(1),
                seq: Some(2),
                id: Some(2),
                detail: format!("stored hash {stored}, computed {computed}"),
                hint: "The entry was changed after it was written. Compare with a backup or another copy of the log."
                    .to_owned(),
            }]
        );
    }

    #[test]
    fn changed_value_with_a_new_hash_breaks_the_link() {
        let mut log = log(3);
        log[1].entry.new = Some("{\"a\":2}".into());
        log[1].hash = log[1].entry.hash_with(&mut Vec::new());
        assert_eq!(kinds(&verify(&log)), [(Kind::Link, Some(3))]);
    }

    #[test]
    fn changed_hash_is_a_content_and_a_link_finding() {
        let mut log = log(3);
        log[1].hash = Hash::of(b"x");
        assert_eq!(kinds(&verify(&log)), [(Kind::Content, Some(2)), (Kind::Link, Some(3))]);
    }

    #[test]
    fn bad_form_with_a_fitting_hash_is_a_format_finding() {
        let mut log = log(3);
        log[2].entry.operation = "UPSERT".into();
        log[2].hash = log[2].entry.hash_with(&mut Vec::new());
        let findings = verify(&log);
        assert_eq!(kinds(&findings), [(Kind::Format, Some(3))]);
        assert_eq!(findings[0].detail, "operation \"UPSERT\" is not known");
        log[2].entry.seq = 0;
        log[2].hash = log[2].entry.hash_with(&mut Vec::new());
        assert_eq!(kinds(&verify(&log)), [(Kind::Format, Some(0))]);
    }

    #[test]
    fn lines_are_verified_like_entries() {
        let lines: Vec<(Vec<u8>, Hash)> = log(3)
            .iter()
            .map(|stored| {
                let mut line = Vec::new();
                stored.entry.write_line(&mut line);
                (line, stored.hash)
            })
            .collect();
        let verify = |lines: &[(&[u8], Option<Hash>)]| {
            let mut findings = Vec::new();
            let mut verifier = LogVerifier::new();
            for (line, hash) in lines {
                verifier.line(line, *hash, &mut |finding| findings.push(finding));
            }
            verifier.finish(&mut |finding| findings.push(finding));
            kinds(&findings)
        };
        let [(a, ah), (b, bh), (c, ch)] = &lines[..] else { panic!("three lines") };
        assert_eq!(verify(&[(a, Some(*ah)), (b, None), (c, Some(*ch))]), []);
        let changed = String::from_utf8(b.clone()).unwrap().replace("{\"a\":1}", "{\"a\":2}");
        let changed = changed.as_bytes();
        assert_eq!(verify(&[(a, None), (changed, Some(*bh)), (c, None)]), [(Kind::Content, Some(2))]);
        assert_eq!(verify(&[(a, None), (changed, None), (c, None)]), [(Kind::Link, Some(3))]);
        for broken in [&b"{}"[..], b"", b"\xff", &b[1..]] {
            assert_eq!(
                verify(&[(a, None), (broken, Some(*bh)), (c, None)]),
                [(Kind::Content, None), (Kind::Missing, Some(2))]
            );
            assert_eq!(
                verify(&[(a, None), (broken, None), (c, None)]),
                [(Kind::Format, None), (Kind::Missing, Some(2))]
            );
        }
    }
}

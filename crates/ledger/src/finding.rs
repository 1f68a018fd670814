//! What a verification returns: findings, each of a kind.
//!
//! A broken chain is a result, not an error. This module knows the kinds and their names; who finds what is in `verify`, `links` and the extension.

use std::fmt;

/// The kind of a finding. The first five are those of docs/format.md, section 4, the next three those of section 9; the last three only a database can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The hash stored with an entry is not the hash of its line.
    Content,
    /// `prev` is not the hash of the entry before.
    Link,
    /// A `seq` between 1 and the highest of the chain is not there.
    Missing,
    /// `id` or `at` goes back along a chain, or a `seq` stands twice.
    Order,
    /// The line is not as docs/format.md says, though its hash fits.
    Format,
    /// A seal does not fit its line, the seal before it or the entries that it counts.
    Seal,
    /// The tree over the entries is not the one that a seal or the stored tiles say.
    Tree,
    /// A checkpoint that was kept elsewhere does not fit the log.
    Checkpoint,
    /// A table that should be protected is not, or not as the log says.
    Coverage,
    /// The rows of a table are not what the log says.
    Table,
    /// A row was written by a transaction of which the log knows nothing.
    Transaction,
}

impl Kind {
    /// All kinds, in the order in which reports list them.
    pub const ALL: [Kind; 11] = [
        Kind::Content,
        Kind::Link,
        Kind::Missing,
        Kind::Order,
        Kind::Format,
        Kind::Seal,
        Kind::Tree,
        Kind::Checkpoint,
        Kind::Coverage,
        Kind::Table,
        Kind::Transaction,
    ];

    /// The name of the kind, as in docs/format.md.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Content => "content",
            Kind::Link => "link",
            Kind::Missing => "missing",
            Kind::Order => "order",
            Kind::Format => "format",
            Kind::Seal => "seal",
            Kind::Tree => "tree",
            Kind::Checkpoint => "checkpoint",
            Kind::Coverage => "coverage",
            Kind::Table => "table",
            Kind::Transaction => "transaction",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One fault: where, what was expected and found, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of fault.
    pub kind: Kind,
    /// `schema.table`, when the fault concerns one.
    pub relation: Option<String>,
    /// Chain of the entry.
    pub chain: Option<i32>,
    /// Place of the entry in its chain; of a hole, its first place.
    pub seq: Option<i64>,
    /// `id` of the entry.
    pub id: Option<i64>,
    /// What is wrong, lower case, with both values when two should agree.
    pub detail: String,
    /// What it means or what to do, as sentences.
    pub hint: String,
}

/// How many findings there were of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; Kind::ALL.len()]);

impl Counts {
    /// No findings yet.
    pub fn new() -> Counts {
        Counts::default()
    }

    /// Counts one finding more.
    pub fn add(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }

    /// The findings of a kind.
    pub fn get(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    /// The findings of all kinds.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_counter_and_name() {
        let mut counts = Counts::new();
        for (times, kind) in Kind::ALL.into_iter().enumerate() {
            for _ in 0..times {
                counts.add(kind);
            }
        }
        for (times, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(counts.get(kind), times as u64);
        }
        assert_eq!(counts.total(), 55);
        assert_eq!(
            Kind::ALL.map(Kind::as_str).join(" "),
            "content link missing order format seal tree checkpoint coverage table transaction"
        );
    }
}

//! One seal and its line.
//!
//! A seal says how far each chain reached when it was made, and the head of the tree over all entries up to there. Seals hold the hash of the seal before, as entries
//! do. [`Seal::write_line`] is the only writer of lines, [`Seal::parse`] the only reader, and the reader takes nothing that the writer would not write; docs/format.md,
//! section 9. Whether a seal fits the entries and the seal before it is not known here.

use uuid::Uuid;

use crate::entry::{DecodeError, Reader, Timestamp, check_version, push_decimal, string};
use crate::hash::Hash;
use crate::tree::{NodeHash, TreeHead, TreeSize};

/// One seal.
///
/// Any value of this type can be written and read back, also one that breaks the rules of docs/format.md; [`Seal::check_form`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The ledger: all chains of one database.
    pub ledger: Uuid,
    /// Place among the seals of the ledger, from 1.
    pub number: u64,
    /// Hash of the seal before it; [`Hash::GENESIS`] for the first.
    pub prev: Hash,
    /// When it was made.
    pub at: Timestamp,
    /// The tree over all entries sealed so far.
    pub head: TreeHead,
    /// Identifier of the database cluster that made it.
    pub system: u64,
    /// Timeline of the server that made it.
    pub timeline: u32,
    /// The entries that this seal appended to the tree: one range for each chain that grew, ascending by chain.
    pub ranges: Vec<Range>,
}

/// The entries of one chain that a seal appended to the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Number of the chain.
    pub chain: u32,
    /// Place of the first entry in its chain.
    pub first: u64,
    /// Place of the last one.
    pub last: u64,
    /// Hash of the last one.
    pub head: Hash,
}

impl Range {
    /// How many entries; 0 when the places are reversed.
    pub fn count(&self) -> u64 {
        match self.last.checked_sub(self.first) {
            Some(more) => more.saturating_add(1),
            None => 0,
        }
    }
}

/// A seal with the hash that is stored beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSeal {
    /// The seal.
    pub seal: Seal,
    /// Its stored hash, which fits or not.
    pub hash: Hash,
}

impl Seal {
    /// Appends the line of the seal, without a line feed.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"v\":1,\"ledger\":\"");
        let mut ledger = [0; 36];
        out.extend_from_slice(self.ledger.hyphenated().encode_lower(&mut ledger).as_bytes());
        out.extend_from_slice(b"\",\"seal\":\"");
        push_decimal(out, self.number);
        out.extend_from_slice(b"\",\"prev\":\"");
        self.prev.write(out);
        out.extend_from_slice(b"\",\"at\":\"");
        self.at.write(out);
        out.extend_from_slice(b"\",\"size\":\"");
        push_decimal(out, self.head.size.get());
        out.extend_from_slice(b"\",\"root\":\"");
        Hash::from(*self.head.root.as_bytes()).write(out);
        out.extend_from_slice(b"\",\"system\":\"");
        push_decimal(out, self.system);
        out.extend_from_slice(b"\",\"timeline\":");
        push_decimal(out, u64::from(self.timeline));
        out.extend_from_slice(b",\"ranges\":[");
        for (place, range) in self.ranges.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.push(b'[');
            push_decimal(out, u64::from(range.chain));
            out.extend_from_slice(b",\"");
            push_decimal(out, range.first);
            out.extend_from_slice(b"\",\"");
            push_decimal(out, range.last);
            out.extend_from_slice(b"\",\"");
            range.head.write(out);
            out.extend_from_slice(b"\"]");
        }
        out.extend_from_slice(b"]}");
    }

    /// The hash of the seal. `buffer` is cleared and holds the line afterwards.
    pub fn hash_with(&self, buffer: &mut Vec<u8>) -> Hash {
        buffer.clear();
        self.write_line(buffer);
        Hash::of(buffer)
    }

    /// Reads a line, given without a line feed at its end. Takes exactly what [`Seal::write_line`] writes, so that one seal has one line.
    pub fn parse(line: &str) -> Result<Seal, DecodeError> {
        check_version(line)?;
        let mut reader = Reader::new(line)?;
        reader.required("v", Some)?;
        let seal = Seal {
            ledger: reader.required("ledger", |v| string(v)?.parse().ok())?,
            number: reader.required("seal", |v| string(v)?.parse().ok())?,
            prev: reader.required("prev", |v| string(v)?.parse().ok())?,
            at: reader.required("at", |v| string(v)?.parse().ok())?,
            head: TreeHead {
                size: reader.required("size", |v| TreeSize::new(string(v)?.parse().ok()?).ok())?,
                root: reader.required("root", |v| string(v)?.parse::<NodeHash>().ok())?,
            },
            system: reader.required("system", |v| string(v)?.parse().ok())?,
            timeline: reader.required("timeline", |v| v.parse().ok())?,
            ranges: reader.required("ranges", ranges)?,
        };
        reader.end()?;
        // Everything that has two spellings ends here.
        let mut again = Vec::with_capacity(line.len());
        seal.write_line(&mut again);
        if again == line.as_bytes() {
            return Ok(seal);
        }
        let differs = again.iter().zip(line.as_bytes()).position(|(a, b)| a != b);
        Err(DecodeError::NotCanonical { at: differs.unwrap_or(again.len().min(line.len())) })
    }

    /// Checks what docs/format.md, section 9, demands of a seal by itself, beyond its hash.
    pub fn check_form(&self) -> Result<(), SealFormError> {
        const MAX: u64 = i64::MAX as u64;
        if self.number == 0 || self.number > MAX {
            return Err(SealFormError::Number(self.number));
        }
        if (self.number == 1) != (self.prev == Hash::GENESIS) {
            return Err(SealFormError::Genesis(self.number));
        }
        if self.timeline == 0 {
            return Err(SealFormError::Timeline);
        }
        if self.ranges.is_empty() {
            return Err(SealFormError::NoRange);
        }
        let mut before = 0;
        for range in &self.ranges {
            if range.chain == 0 || range.chain > i32::MAX as u32 {
                return Err(SealFormError::Chain(range.chain));
            }
            if range.chain <= before {
                return Err(SealFormError::ChainOrder(range.chain));
            }
            if range.first == 0 || range.first > range.last || range.last > MAX {
                return Err(SealFormError::Range(*range));
            }
            before = range.chain;
        }
        match self.first_leaf() {
            Some(first) if (first == 0) == (self.number == 1) => Ok(()),
            _ => Err(SealFormError::Size(self.head.size)),
        }
    }

    /// How many entries the seal appended; `None` when that is no number of 64 bits.
    pub fn count(&self) -> Option<u64> {
        self.ranges.iter().try_fold(0_u64, |sum, range| sum.checked_add(range.count()))
    }

    /// The leaf index of the first entry that the seal appended: the size of the tree before. `None` when the ranges hold more entries than the tree.
    pub fn first_leaf(&self) -> Option<u64> {
        self.head.size.get().checked_sub(self.count()?)
    }
}

/// A seal breaks a rule of docs/format.md, section 9.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealFormError {
    /// Seals are numbered from 1 to 2^63-1.
    #[error("seal {0} is not between 1 and 2^63-1")]
    Number(u64),
    /// The first seal has zeros for the hash of the seal before it, and no other has.
    #[error("\"prev\" of seal {0} is zeros only if it is the first")]
    Genesis(u64),
    /// Timelines are numbered from 1.
    #[error("the timeline is 0")]
    Timeline,
    /// There is no seal without new entries.
    #[error("the seal counts no entries")]
    NoRange,
    /// Chains are numbered from 1 to 2147483647.
    #[error("chain {0} is not between 1 and 2147483647")]
    Chain(u32),
    /// The ranges are not in the order of their chains.
    #[error("chain {0} does not come after the chain before it")]
    ChainOrder(u32),
    /// The entries of a range are numbered from 1 to 2^63-1, and there is at least one.
    #[error("entries {first} to {last} of chain {chain} are no range", first = .0.first, last = .0.last, chain = .0.chain)]
    Range(Range),
    /// The tree is smaller than what the seal appended to it, or the first seal does not begin it.
    #[error("a tree of {0} leaves does not fit the entries that the seal counts")]
    Size(TreeSize),
}

/// Reads `[[chain,"first","last","head"],...]`. The scanner has passed the text as JSON, and what has two spellings is refused later.
fn ranges(text: &str) -> Option<Vec<Range>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    if inner.is_empty() {
        return Some(Vec::new());
    }
    inner.strip_prefix('[')?.strip_suffix(']')?.split("],[").map(range).collect()
}

fn range(text: &str) -> Option<Range> {
    let mut parts = text.split(',');
    let mut part = || parts.next();
    let range = Range {
        chain: part()?.parse().ok()?,
        first: string(part()?)?.parse().ok()?,
        last: string(part()?)?.parse().ok()?,
        head: string(part()?)?.parse().ok()?,
    };
    part().is_none().then_some(range)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::Entry;

    fn golden() -> Seal {
        Seal {
            ledger: Uuid::from_u128(0x0b8f_4f0e_7d0e_4c58_9d2a_0c6f_6f1f_5a11),
            number: 2,
            prev: Hash::of(b"1"),
            at: Timestamp::new(1_763_778_600_123_456).unwrap(),
            head: TreeHead { size: TreeSize::new(7).unwrap(), root: NodeHash::of_empty_tree() },
            system: u64::MAX,
            timeline: 1,
            ranges: vec![
                Range { chain: 3, first: 2, last: 4, head: Hash::of(b"3") },
                Range { chain: 7, first: 1, last: 1, head: Hash::of(b"7") },
            ],
        }
    }

    fn line(seal: &Seal) -> String {
        let mut line = Vec::new();
        seal.write_line(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn line_has_the_members_of_the_format_in_its_order() {
        assert_eq!(
            line(&golden()),
            format!(
                "{{\"v\":1,\"ledger\":\"0b8f4f0e-7d0e-4c58-9d2a-0c6f6f1f5a11\",\"seal\":\"2\",\"prev\":\"{}\",\
                 \"at\":\"2025-11-22T02:30:00.123456Z\",\"size\":\"7\",\"root\":\"{}\",\"system\":\"18446744073709551615\",\
                 \"timeline\":1,\"ranges\":[[3,\"2\",\"4\",\"{}\"],[7,\"1\",\"1\",\"{}\"]]}}",
                Hash::of(b"1"),
                Hash::of(b""),
                Hash::of(b"3"),
                Hash::of(b"7"),
            )
        );
        assert_eq!(golden().hash_with(&mut Vec::new()), Hash::of(line(&golden()).as_bytes()));
        assert_eq!(Seal::parse(&line(&golden())), Ok(golden()));
        assert_eq!(golden().check_form(), Ok(()));
        assert_eq!((golden().count(), golden().first_leaf()), (Some(4), Some(3)));
    }

    #[test]
    fn flipping_any_bit_of_the_line_makes_another_hash_and_another_seal() {
        let text = line(&golden());
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                assert_ne!(Hash::of(&bytes), Hash::of(text.as_bytes()));
                if let Ok(flipped) = str::from_utf8(&bytes) {
                    assert_ne!(Seal::parse(flipped), Ok(golden()), "{flipped}");
                }
            }
        }
    }

    #[test]
    fn cut_and_lengthened_lines_are_refused() {
        let text = line(&golden());
        for at in 0..text.len() {
            assert!(Seal::parse(&text[..at]).is_err(), "{at}");
        }
        for more in ["\n", " ", "}", ",", "\0"] {
            assert!(Seal::parse(&format!("{text}{more}")).is_err());
        }
    }

    #[test]
    fn other_spellings_of_the_same_seal_are_refused() {
        let text = line(&golden());
        for (from, to) in [
            ("{\"v\":1,", "{\"v\":1, "),
            ("{\"v\":1,", "{ \"v\":1,"),
            ("\"seal\":\"2\"", "\"seal\":\"02\""),
            ("\"seal\":\"2\"", "\"seal\":\"+2\""),
            ("\"seal\":\"2\"", "\"seal\":2"),
            ("\"seal\":\"2\"", "\"seal\":\"\\u0032\""),
            ("\"size\":\"7\"", "\"size\":\"9223372036854775808\""),
            ("\"size\":\"7\"", "\"size\":\"-7\""),
            ("\"timeline\":1", "\"timeline\":01"),
            ("\"timeline\":1", "\"timeline\":1.0"),
            ("\"timeline\":1", "\"timeline\":\"1\""),
            ("\"timeline\":1", "\"timeline\":4294967296"),
            ("[3,\"2\"", "[03,\"2\""),
            ("[3,\"2\"", "[3, \"2\""),
            ("[3,\"2\"", "[ 3,\"2\""),
            ("[3,\"2\"", "[3,2"),
            ("[3,\"2\"", "[\"3\",\"2\""),
            ("[3,\"2\"", "[-3,\"2\""),
            ("],[", "] ,["),
            ("],[", ",\"x\"],["),
            ("],[", "],[],["),
            ("[[", "[[["),
            ("\"ranges\":[[", "\"ranges\":[],\"ranges\":[["),
            ("\"ranges\"", "\"chain\""),
            ("0b8f4f0e", "0B8F4F0E"),
            (",\"system\":\"18446744073709551615\"", ""),
            (",\"timeline\":1", ",\"timeline\":1,\"x\":1"),
        ] {
            let other = text.replacen(from, to, 1);
            assert_ne!(other, text, "{from}");
            assert!(Seal::parse(&other).is_err(), "{other}");
        }
        assert_eq!(Seal::parse(&text.replace("{\"v\":1", "{\"v\":2")), Err(DecodeError::UnknownVersion("2".into())));
    }

    #[test]
    fn seal_without_ranges_reads_back() {
        let seal = Seal { ranges: Vec::new(), ..golden() };
        assert_eq!(Seal::parse(&line(&seal)), Ok(seal.clone()));
        assert_eq!(seal.check_form(), Err(SealFormError::NoRange));
    }

    #[test]
    fn line_of_a_seal_is_no_line_of_an_entry() {
        assert_eq!(Entry::parse(&line(&golden())), Err(DecodeError::Missing("chain")));
        let entry = "{\"v\":1,\"ledger\":\"0b8f4f0e-7d0e-4c58-9d2a-0c6f6f1f5a11\",\"chain\":3,\"seq\":\"2\"}";
        assert_eq!(Seal::parse(entry), Err(DecodeError::Missing("seal")));
    }

    #[test]
    fn form_is_checked() {
        use SealFormError::*;
        let changed = |change: &dyn Fn(&mut Seal)| {
            let mut seal = golden();
            change(&mut seal);
            seal.check_form()
        };
        let size = |n| TreeSize::new(n).unwrap();
        assert_eq!(changed(&|s| s.number = 0), Err(Number(0)));
        assert_eq!(changed(&|s| s.number = 1 << 63), Err(Number(1 << 63)));
        assert_eq!(changed(&|s| s.number = 1), Err(Genesis(1)));
        assert_eq!(changed(&|s| s.prev = Hash::GENESIS), Err(Genesis(2)));
        assert_eq!(changed(&|s| s.timeline = 0), Err(Timeline));
        assert_eq!(changed(&|s| s.ranges[0].chain = 0), Err(Chain(0)));
        assert_eq!(changed(&|s| s.ranges[1].chain = 1 << 31), Err(Chain(1 << 31)));
        assert_eq!(changed(&|s| s.ranges[1].chain = 3), Err(ChainOrder(3)));
        assert_eq!(changed(&|s| s.ranges.swap(0, 1)), Err(ChainOrder(3)));
        assert!(matches!(changed(&|s| s.ranges[0].first = 0), Err(Range(_))));
        assert!(matches!(changed(&|s| s.ranges[0].first = 5), Err(Range(_))));
        assert!(matches!(changed(&|s| s.ranges[0].last = 1 << 63), Err(Range(_))));
        assert_eq!(changed(&|s| s.head.size = size(3)), Err(Size(size(3))));
        // Only the first seal begins the tree.
        assert_eq!(changed(&|s| s.head.size = size(4)), Err(Size(size(4))));
        let first = |n| changed(&|s| (s.number, s.prev, s.head.size) = (1, Hash::GENESIS, size(n)));
        assert_eq!(first(4), Ok(()));
        assert_eq!(first(5), Err(Size(size(5))));
        // Ranges that together are more than 64 bits can count.
        let huge = |s: &mut Seal| {
            for (range, chain) in s.ranges.iter_mut().zip(1..) {
                (range.chain, range.first, range.last) = (chain, 1, i64::MAX as u64);
            }
            s.ranges.push(super::Range { chain: 3, ..s.ranges[0] });
        };
        assert_eq!(changed(&huge), Err(Size(size(7))));
    }

    fn any_seal() -> impl Strategy<Value = Seal> {
        let range = (any::<u32>(), any::<u64>(), any::<u64>(), any::<[u8; 32]>())
            .prop_map(|(chain, first, last, head)| Range { chain, first, last, head: head.into() });
        let place = (any::<u128>(), any::<u64>(), any::<[u8; 32]>());
        let time = Timestamp::MIN.micros()..=Timestamp::MAX.micros();
        let head = (0..=TreeSize::MAX.get(), any::<[u8; 32]>());
        (place, time, head, any::<u64>(), any::<u32>(), prop::collection::vec(range, 0..5)).prop_map(
            |(place, time, head, system, timeline, ranges)| Seal {
                ledger: Uuid::from_u128(place.0),
                number: place.1,
                prev: place.2.into(),
                at: Timestamp::new(time).unwrap(),
                head: TreeHead { size: TreeSize::new(head.0).unwrap(), root: head.1.into() },
                system,
                timeline,
                ranges,
            },
        )
    }

    proptest! {
        #[test]
        fn any_seal_reads_back(seal in any_seal()) {
            let text = line(&seal);
            prop_assert!(!text.contains('\n'));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            // Whatever it says, its form can be asked for.
            let _ = seal.check_form();
            prop_assert_eq!(Seal::parse(&text), Ok(seal));
        }
    }
}

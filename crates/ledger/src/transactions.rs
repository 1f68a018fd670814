//! Whether the transaction that wrote a row is one that the log knows.
//!
//! PostgreSQL notes in each version of a row which transaction, or which subtransaction of it, has written it. A change that was made and undone behind the triggers leaves rows that are what the log says, but
//! were written by a transaction of which the log has no entry about their table.
//!
//! This module knows neither rows nor entries: it is told ids. A stored row holds only the last 32 bits of one. Of a row that is not frozen they are enough: its id lies within 2^31 of the next one. Of a
//! frozen row they may stand for several, one in each round of the 32 bits, and it is known if any of them is.

use std::io;

use roaring::RoaringBitmap;

/// The transactions that have written the rows of one table, as far as the log says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transactions {
    /// The last 32 bits of each.
    ids: RoaringBitmap,
    /// The one added last: entries of one transaction mostly follow each other.
    last: Option<u32>,
}

/// Which transaction has written a stored row, as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The last 32 bits of its id.
    pub id: u32,
    /// Whether the row is frozen, so that its transaction may lie any time ago.
    pub frozen: bool,
}

/// The ids below are no transactions of anybody: 1 is that of the rows that initdb makes, 2 stood in frozen rows before PostgreSQL 9.4.
const FIRST_NORMAL: u32 = 3;

impl Transactions {
    /// None yet.
    pub fn new() -> Transactions {
        Transactions::default()
    }

    /// Adds one, by its full id.
    pub fn add(&mut self, id: u64) {
        // Truncation is meant.
        let id = id as u32;
        if self.last != Some(id) {
            self.last = Some(id);
            self.ids.insert(id);
        }
    }

    /// Adds those that another reader has gathered.
    pub fn add_all(&mut self, others: &Transactions) {
        self.ids |= &others.ids;
    }

    /// Whether a row was written by one of them, or by one before `anchor`, whose rows the log took as they were. `next` is the full id of the next transaction, or any since the row was read.
    pub fn has_written(&self, row: Writer, anchor: u64, next: u64) -> bool {
        if row.id < FIRST_NORMAL || self.ids.contains(row.id) {
            return true;
        }
        if row.frozen {
            // The oldest that it may be is the one of the first round.
            return u64::from(row.id) < anchor;
        }
        full_id(row.id, next) < anchor
    }

    /// For another process.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.ids.serialized_size());
        self.ids.serialize_into(&mut bytes).expect("a vector takes all bytes");
        bytes
    }

    /// What [`Transactions::to_bytes`] gave.
    pub fn from_bytes(bytes: &[u8]) -> io::Result<Transactions> {
        Ok(Transactions { ids: RoaringBitmap::deserialize_from(bytes)?, last: None })
    }
}

/// The full id of the transaction with these last 32 bits that comes before `next`, by less than 2^32.
pub fn full_id(id: u32, next: u64) -> u64 {
    // Truncation is meant.
    let back = (next as u32).wrapping_sub(id);
    let back = if back == 0 { 1 << 32 } else { u64::from(back) };
    next.saturating_sub(back)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROUND: u64 = 1 << 32;

    fn live(id: u64) -> Writer {
        Writer { id: id as u32, frozen: false }
    }

    fn frozen(id: u64) -> Writer {
        Writer { id: id as u32, frozen: true }
    }

    fn of(ids: &[u64]) -> Transactions {
        let mut transactions = Transactions::new();
        ids.iter().for_each(|id| transactions.add(*id));
        transactions
    }

    #[test]
    fn a_row_is_known_by_its_entry_or_as_older_than_the_anchor() {
        let known = of(&[120, 121, 121, 130]);
        for (id, is_known) in
            [(99, true), (100, false), (119, false), (120, true), (121, true), (122, false), (130, true)]
        {
            assert_eq!(known.has_written(live(id), 100, 200), is_known, "{id}");
            assert_eq!(known.has_written(frozen(id), 100, 200), is_known, "{id}");
        }
        assert!(!Transactions::new().has_written(live(100), 100, 101));
        assert!(Transactions::new().has_written(live(99), 100, 101));
    }

    #[test]
    fn rows_without_a_transaction_of_their_own_count_as_old() {
        for id in [1, 2] {
            assert!(Transactions::new().has_written(live(id), 0, 5 * ROUND));
            assert!(Transactions::new().has_written(frozen(id), 0, 5 * ROUND));
        }
        assert!(!Transactions::new().has_written(frozen(3), 0, 5 * ROUND));
    }

    #[test]
    fn ids_are_told_apart_across_the_end_of_a_round() {
        let (anchor, next) = (ROUND - 10, ROUND + 50);
        let known = of(&[ROUND - 5, ROUND + 20]);
        for (id, is_known) in [
            (ROUND - 11, true),
            (ROUND - 10, false),
            (ROUND - 5, true),
            (ROUND + 3, false),
            (ROUND + 20, true),
            (ROUND + 21, false),
        ] {
            assert_eq!(known.has_written(live(id), anchor, next), is_known, "{id}");
        }
        // Frozen, it may as well have been written by a transaction of the round before.
        assert!(known.has_written(frozen(ROUND + 21), anchor, next));
        assert!(!known.has_written(frozen(ROUND - 10), anchor, next));
        // The anchor may lie rounds behind.
        assert!(!known.has_written(live(7 * ROUND + 100), anchor, 7 * ROUND + 200));
        assert!(known.has_written(frozen(7 * ROUND + 100), anchor, 7 * ROUND + 200));
    }

    #[test]
    fn what_is_handed_over_is_what_was_gathered() {
        let (first, second) = (of(&[10, 11, 12, ROUND + 70_000]), of(&[12, 900_000]));
        let mut both = Transactions::from_bytes(&first.to_bytes()).unwrap();
        both.add_all(&Transactions::from_bytes(&second.to_bytes()).unwrap());
        assert_eq!(both.ids, of(&[10, 11, 12, 70_000, 900_000]).ids);
        assert!(Transactions::from_bytes(&first.to_bytes()[1..]).is_err());
    }

    proptest! {
        #[test]
        fn a_full_id_has_the_same_last_bits_and_comes_before_the_next(id: u32, next in ROUND..u64::MAX) {
            let full = full_id(id, next);
            prop_assert_eq!(full as u32, id);
            prop_assert!(full < next && next - full <= ROUND);
        }

        /// Freezing raises no alarm.
        #[test]
        fn what_is_known_live_is_known_frozen(ids in prop::collection::vec(3 * ROUND..4 * ROUND, 0..20), row in 3 * ROUND..4 * ROUND, anchor in 0..5 * ROUND) {
            let known = of(&ids);
            if known.has_written(live(row), anchor, 4 * ROUND) {
                prop_assert!(known.has_written(frozen(row), anchor, 9 * ROUND));
            }
        }
    }
}

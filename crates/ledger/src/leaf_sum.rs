//! Whether two readings of the log saw the same leaves.
//!
//! Entries lie in the table in the order in which they were written, leaves in the tree in the order of chain and seq of each seal. So that neither reading must follow the order of the
//! other, each adds up the keyed hashes of what it sees: place in the chain, and leaf hash. Equal sums mean the same leaves at the same places, each as often, whatever the order.
//!
//! Why that holds against whoever wrote both: the key is random, made for one run and never shown, so that SipHash-1-3 (nobody sees what it gives, so it has nothing to fear from those who study outputs) gives him 128 bits that look random for each place and leaf
//! that he chooses. A difference is a sum of some of these numbers, each taken once, twice, ... or minus that; that it is zero modulo 2^128 has a chance of about 2^-128 (2^-88 for an entry that stands
//! 2^40 times), and he cannot try: a run tells him nothing of its key, and the next run has another.

use siphasher::sip128::SipHasher13;

use crate::tree::LeafHash;

/// A sum of leaves with their places.
#[derive(Clone, Debug)]
pub struct LeafSum {
    hasher: SipHasher13,
    sum: u128,
    count: u64,
}

impl LeafSum {
    /// The sum of nothing. `key` must be random and secret until the end of the run, and the same for all sums that are compared.
    pub fn new(key: [u8; 16]) -> LeafSum {
        LeafSum { hasher: SipHasher13::new_with_key(&key), sum: 0, count: 0 }
    }

    /// Adds the leaf of an entry.
    pub fn add(&mut self, chain: u32, seq: u64, leaf: &LeafHash) {
        let mut bytes = [0; 44];
        bytes[..4].copy_from_slice(&chain.to_le_bytes());
        bytes[4..12].copy_from_slice(&seq.to_le_bytes());
        bytes[12..].copy_from_slice(leaf.as_bytes());
        self.sum = self.sum.wrapping_add(self.hasher.hash(&bytes).as_u128());
        self.count += 1;
    }

    /// Sum and number of the leaves: what another process needs to add these.
    pub fn total(&self) -> (u128, u64) {
        (self.sum, self.count)
    }

    /// Adds what another sum with the same key has come to.
    pub fn add_total(&mut self, (sum, count): (u128, u64)) {
        self.sum = self.sum.wrapping_add(sum);
        self.count = self.count.wrapping_add(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::Hash;

    fn leaf(number: u8) -> LeafHash {
        LeafHash::of_entry(&Hash::from([number; 32]))
    }

    fn sum(leaves: &[(u32, u64, u8)]) -> (u128, u64) {
        let mut sum = LeafSum::new([7; 16]);
        for (chain, seq, number) in leaves {
            sum.add(*chain, *seq, &leaf(*number));
        }
        sum.total()
    }

    #[test]
    fn order_does_not_matter_and_all_else_does() {
        let all = [(1, 1, 1), (1, 2, 2), (2, 1, 3)];
        assert_eq!(sum(&all), sum(&[all[2], all[0], all[1]]));
        for other in [
            &[(1, 1, 2), (1, 2, 1), (2, 1, 3)][..],
            &[(1, 1, 1), (2, 2, 2), (2, 1, 3)],
            &[(1, 1, 1), (1, 3, 2), (2, 1, 3)],
            &[(1, 1, 1), (1, 2, 4), (2, 1, 3)],
            &[(1, 1, 1), (1, 2, 2)],
            &[(1, 1, 1), (1, 2, 2), (2, 1, 3), (2, 1, 3)],
            &[(1, 1, 1), (1, 1, 1), (2, 1, 3)],
        ] {
            assert_ne!(sum(&all), sum(other), "{other:?}");
        }
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let mut whole = LeafSum::new([7; 16]);
        whole.add_total(sum(&[(1, 1, 1), (1, 2, 2)]));
        whole.add_total(sum(&[(2, 1, 3)]));
        assert_eq!(whole.total(), sum(&[(1, 1, 1), (1, 2, 2), (2, 1, 3)]));
    }

    #[test]
    fn another_key_gives_another_sum() {
        let mut other = LeafSum::new([8; 16]);
        other.add(1, 1, &leaf(1));
        assert_ne!(other.total(), sum(&[(1, 1, 1)]));
    }
}

//! Whether two readings of the log saw the same leaves.
//!
//! Entries lie in the table in the order in which they were written, leaves in the tree in the order of chain and seq of each seal. So that neither reading must follow the order of the
//! other, each adds up the keyed hashes of what it sees: place in the chain, and leaf hash. Equal sums mean the same leaves at the same places, each as often, whatever the order.
//!
//! Why that holds against whoever wrote both: the key is random, made for one run and never shown, so that SipHash-1-3 (nobody sees what it gives, so it has nothing to fear from those who study outputs) gives him 128 bits that look random for each place and leaf
//! that he chooses. A difference is a sum of some of these numbers, each taken once, twice, ... or minus that; that it is zero modulo 2^128 has a chance of about 2^-128 (2^-88 for an entry that stands
//! 2^40 times), and he cannot try: a run tells him nothing of its key, and the next run has another.

use crate::tree::LeafHash;

/// A sum of leaves with their places.
#[derive(Clone, Debug)]
pub struct LeafSum {
    key: Key,
    sum: u128,
    count: u64,
}

impl LeafSum {
    /// The sum of nothing. `key` must be random and secret until the end of the run, and the same for all sums that are compared.
    pub fn new(key: [u8; 16]) -> LeafSum {
        LeafSum { key: Key::new(key), sum: 0, count: 0 }
    }

    /// Adds the leaf of an entry.
    #[inline]
    pub fn add(&mut self, chain: u32, seq: u64, leaf: &LeafHash) {
        self.sum = self.sum.wrapping_add(self.key.hash(words(chain, seq, leaf)));
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

/// What is hashed of a leaf, in words: 4 bytes of the chain, 8 of seq, 32 of the leaf hash, three of padding, and one that says how many these are, 44.
#[inline]
fn words(chain: u32, seq: u64, leaf: &LeafHash) -> [u64; 6] {
    let [a, b, c, d] = std::array::from_fn(|word| u64::from_le_bytes(leaf.as_bytes().as_chunks().0[word]));
    let join = |before: u64, word: u64| before >> 32 | word << 32;
    [u64::from(chain) | seq << 32, join(seq, a), join(a, b), join(b, c), join(c, d), d >> 32 | 44 << 56]
}

/// SipHash-1-3 with a result of 128 bits, as its authors define it, for texts of six words. Millions of leaves have texts of that length: half of what the general way takes is not spent on hashing.
#[derive(Clone)]
struct Key {
    /// The state before the first word.
    state: [u64; 4],
}

impl std::fmt::Debug for Key {
    /// Does not show the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    fn new(key: [u8; 16]) -> Key {
        let [low, high] = [0, 1].map(|word| u64::from_le_bytes(key.as_chunks().0[word]));
        let state = [
            low ^ 0x736f6d6570736575,
            high ^ 0x646f72616e646f6d ^ 0xee,
            low ^ 0x6c7967656e657261,
            high ^ 0x7465646279746573,
        ];
        Key { state }
    }

    #[inline]
    fn hash(&self, words: [u64; 6]) -> u128 {
        let mut v = self.state;
        for word in words {
            v[3] ^= word;
            round(&mut v);
            v[0] ^= word;
        }
        let mut half = |place: usize, mark: u64| {
            v[place] ^= mark;
            (0..3).for_each(|_| round(&mut v));
            u128::from(v[0] ^ v[1] ^ v[2] ^ v[3])
        };
        let low = half(2, 0xee);
        half(1, 0xdd) << 64 | low
    }
}

#[inline]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use siphasher::sip128::SipHasher13;

    use super::*;
    use crate::hash::Hash;

    proptest! {
        #[test]
        fn the_hash_is_siphash(key: [u8; 16], chain: u32, seq: u64, leaf: [u8; 32]) {
            let leaf = LeafHash::from(leaf);
            let bytes = [&chain.to_le_bytes()[..], &seq.to_le_bytes(), leaf.as_bytes()].concat();
            let expected = SipHasher13::new_with_key(&key).hash(&bytes).as_u128();
            prop_assert_eq!(Key::new(key).hash(words(chain, seq, &leaf)), expected);
        }
    }

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

//! The Merkle tree over all entries of a ledger.
//!
//! Hashing is that of RFC 6962, section 2.1 (RFC 9162, section 2.1, is the same): a prefix byte tells leaves from nodes, and a tree whose
//! size is not a power of two is split at the largest one below. The two prefixes are spelled here and nowhere else. This module knows
//! neither which entry is which leaf nor where nodes are stored; see `tile`, and docs/format.md, section 6.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::hash::{Hash, ParseHashError};

/// The byte before the data of a leaf.
const LEAF_PREFIX: u8 = 0;

/// The byte before the two hashes of a node.
const NODE_PREFIX: u8 = 1;

/// The most leaves a tree may have: 2^63-1, as other implementations count with signed numbers.
const MAX: u64 = i64::MAX as u64;

/// The hash of a leaf: SHA-256(0x00 || data).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafHash(Hash);

impl LeafHash {
    /// The leaf of an entry. Its data are the 32 bytes of the entry's hash.
    pub fn of_entry(hash: &Hash) -> LeafHash {
        let mut data = [LEAF_PREFIX; 33];
        data[1..].copy_from_slice(hash.as_bytes());
        LeafHash(Hash::of_short(data))
    }

    /// The leaves of two entries, in little more time than one.
    pub fn of_two_entries(first: &Hash, second: &Hash) -> [LeafHash; 2] {
        let data = |hash: &Hash| {
            let mut data = [LEAF_PREFIX; 33];
            data[1..].copy_from_slice(hash.as_bytes());
            data
        };
        Hash::of_two_short(data(first), data(second)).map(LeafHash)
    }

    /// The leaf of any data: what other logs have in their leaves.
    pub fn of_data(data: &[u8]) -> LeafHash {
        let mut sha = Sha256::new();
        sha.update([LEAF_PREFIX]);
        sha.update(data);
        LeafHash(Hash::from(<[u8; 32]>::from(sha.finalize())))
    }

    /// The 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

/// The hash of a subtree, be it a single leaf, an inner node or the root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeHash(Hash);

impl NodeHash {
    /// The node over two others: SHA-256(0x01 || left || right).
    pub fn of_children(left: &NodeHash, right: &NodeHash) -> NodeHash {
        let mut data = [NODE_PREFIX; 65];
        data[1..33].copy_from_slice(left.as_bytes());
        data[33..].copy_from_slice(right.as_bytes());
        NodeHash(Hash::of_short(data))
    }

    /// The nodes over two pairs, in little more time than one.
    pub(crate) fn of_two_pairs(first: [&NodeHash; 2], second: [&NodeHash; 2]) -> [NodeHash; 2] {
        let data = |[left, right]: [&NodeHash; 2]| {
            let mut data = [NODE_PREFIX; 65];
            data[1..33].copy_from_slice(left.as_bytes());
            data[33..].copy_from_slice(right.as_bytes());
            data
        };
        Hash::of_two_short(data(first), data(second)).map(NodeHash)
    }

    /// The root of the tree without leaves: SHA-256 of nothing.
    pub fn of_empty_tree() -> NodeHash {
        NodeHash(Hash::of(b""))
    }

    /// The 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl From<LeafHash> for NodeHash {
    fn from(leaf: LeafHash) -> NodeHash {
        NodeHash(leaf.0)
    }
}

macro_rules! like_hash {
    ($name:ident) => {
        impl From<[u8; 32]> for $name {
            /// Takes bytes that were a hash of this kind when they were stored.
            fn from(bytes: [u8; 32]) -> $name {
                $name(Hash::from(bytes))
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = ParseHashError;

            /// Takes exactly 32 bytes; any other number is [`ParseHashError::Length`].
            fn try_from(bytes: &[u8]) -> Result<$name, ParseHashError> {
                Hash::try_from(bytes).map($name)
            }
        }

        impl FromStr for $name {
            type Err = ParseHashError;

            /// Takes exactly what `Display` writes: 64 lower-case hex digits; all else is [`ParseHashError::Text`].
            fn from_str(text: &str) -> Result<$name, ParseHashError> {
                text.parse().map($name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

like_hash!(LeafHash);
like_hash!(NodeHash);

macro_rules! capped {
    ($name:ident, $what:literal) => {
        impl $name {
            /// The highest value: 2^63-1.
            pub const MAX: $name = $name(MAX);

            /// Takes 0 to 2^63-1; more is [`TreeError::TooLarge`].
            pub fn new(value: u64) -> Result<$name, TreeError> {
                if value > MAX { Err(TreeError::TooLarge($what, value)) } else { Ok($name(value)) }
            }

            /// The number.
            pub fn get(self) -> u64 {
                self.0
            }
        }

        impl TryFrom<i64> for $name {
            type Error = TreeError;

            /// Takes what is not negative; else the error is [`TreeError::Negative`].
            fn try_from(value: i64) -> Result<$name, TreeError> {
                u64::try_from(value).map($name).map_err(|_| TreeError::Negative($what, value))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

/// How many leaves a tree has, 0 to 2^63-1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeSize(u64);

capped!(TreeSize, "tree size");

/// The place of a leaf in the tree, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafIndex(u64);

capped!(LeafIndex, "leaf index");

impl TreeSize {
    /// The size without leaves.
    pub const ZERO: TreeSize = TreeSize(0);

    /// The perfect subtrees that make up a tree of this size, from left to right: one for each bit that is set, at most 63.
    pub fn subtrees(self) -> impl ExactSizeIterator<Item = NodeId> {
        subtrees(0, self.0).into_iter()
    }
}

/// What a tree commits to: size and root together. A root alone does not tell the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TreeHead {
    /// How many leaves.
    pub size: TreeSize,
    /// The root hash.
    pub root: NodeHash,
}

impl TreeHead {
    /// The head of the tree without leaves.
    pub fn empty() -> TreeHead {
        TreeHead { size: TreeSize::ZERO, root: NodeHash::of_empty_tree() }
    }
}

/// The place of a perfect subtree: it has 2^level leaves, and `index` such subtrees stand to its left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    level: u8,
    index: u64,
}

impl NodeId {
    /// Takes level 0 (a leaf) to 62, and an index for which all leaves below are within [`TreeSize::MAX`]; else the error is
    /// [`TreeError::NoNode`].
    pub fn new(level: u8, index: u64) -> Result<NodeId, TreeError> {
        if level < 63 && index < MAX >> level {
            Ok(NodeId { level, index })
        } else {
            Err(TreeError::NoNode(level, index))
        }
    }

    /// The height above the leaves.
    pub fn level(self) -> u8 {
        self.level
    }

    /// How many subtrees of the same height stand to its left.
    pub fn index(self) -> u64 {
        self.index
    }

    /// The size that a tree must have at least for the subtree to be whole.
    pub fn end(self) -> TreeSize {
        TreeSize((self.index + 1) << self.level)
    }
}

/// A tree is not possible, or not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A number is above 2^63-1.
    #[error("{0} {1} is greater than 2^63-1")]
    TooLarge(&'static str, u64),
    /// A number is below 0.
    #[error("{0} {1} is negative")]
    Negative(&'static str, i64),
    /// There is no such subtree in any tree.
    #[error("there is no subtree {1} of level {0}")]
    NoNode(u8, u64),
    /// The tree has 2^63-1 leaves already, or would get more.
    #[error("a tree cannot have more than 2^63-1 leaves")]
    Full,
    /// A subtree cannot stand at the end of this tree.
    #[error("a subtree of level {level} cannot follow {size} leaves")]
    Unaligned {
        /// Level of the subtree.
        level: u8,
        /// Size of the tree.
        size: TreeSize,
    },
    /// The bytes are not a compact range.
    #[error("a compact range of {size} leaves has {expected} bytes, not {found}")]
    RangeLength {
        /// Size that the bytes say.
        size: u64,
        /// How many bytes there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// The bytes end before the size.
    #[error("a compact range has at least 8 bytes, not {0}")]
    RangeHeader(usize),
}

/// The right edge of a tree: enough to append leaves and to compute the root, in at most 63 hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactRange {
    size: u64,
    /// The roots of the perfect subtrees, from left to right, so from high to low: one for each bit that is set in `size`.
    hashes: Vec<NodeHash>,
}

impl CompactRange {
    /// The tree without leaves.
    pub fn new() -> CompactRange {
        CompactRange::default()
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> TreeSize {
        TreeSize(self.size)
    }

    /// The roots of the perfect subtrees, in the order of [`TreeSize::subtrees`].
    pub fn hashes(&self) -> &[NodeHash] {
        &self.hashes
    }

    /// Makes a range of the hashes of [`TreeSize::subtrees`]; `None` when their number is not that of the size.
    pub fn from_hashes(size: TreeSize, hashes: Vec<NodeHash>) -> Option<CompactRange> {
        (hashes.len() == size.0.count_ones() as usize).then_some(CompactRange { size: size.0, hashes })
    }

    /// Appends a leaf and gives its index. Costs one node hash on average, 62 at most.
    pub fn append(&mut self, leaf: LeafHash) -> Result<LeafIndex, TreeError> {
        self.append_with(leaf, |_, _| {})
    }

    /// As [`CompactRange::append`], and tells each subtree that is now whole, the leaf first, going up.
    pub fn append_with(
        &mut self,
        leaf: LeafHash,
        whole: impl FnMut(NodeId, &NodeHash),
    ) -> Result<LeafIndex, TreeError> {
        let index = LeafIndex(self.size);
        self.append_subtree_with(0, leaf.into(), whole)?;
        Ok(index)
    }

    /// Appends a perfect subtree of 2^level leaves, whose root was computed elsewhere. The size must be a multiple of 2^level.
    pub fn append_subtree(&mut self, level: u8, root: NodeHash) -> Result<(), TreeError> {
        self.append_subtree_with(level, root, |_, _| {})
    }

    /// The head of the tree. Costs as many node hashes as there are bits set in the size, less one.
    pub fn head(&self) -> TreeHead {
        TreeHead { size: self.size(), root: fold(&self.hashes).unwrap_or_else(NodeHash::of_empty_tree) }
    }

    /// The range as bytes: the size, 8 bytes with the highest first, then the hashes from left to right.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + 32 * self.hashes.len());
        bytes.extend_from_slice(&self.size.to_be_bytes());
        for hash in &self.hashes {
            bytes.extend_from_slice(hash.as_bytes());
        }
        bytes
    }

    /// Reads what [`CompactRange::encode`] writes, and nothing else: at most 8 + 63 * 32 bytes. Whether the hashes are right, only the
    /// root tells.
    pub fn decode(bytes: &[u8]) -> Result<CompactRange, TreeError> {
        let (size, hashes) = bytes.split_first_chunk::<8>().ok_or(TreeError::RangeHeader(bytes.len()))?;
        let size = TreeSize::new(u64::from_be_bytes(*size))?.0;
        let expected = 8 + 32 * size.count_ones() as usize;
        if bytes.len() != expected {
            return Err(TreeError::RangeLength { size, expected, found: bytes.len() });
        }
        let hashes = hashes.as_chunks::<32>().0.iter().map(|hash| NodeHash::from(*hash)).collect();
        Ok(CompactRange { size, hashes })
    }

    pub(crate) fn append_subtree_with(
        &mut self,
        level: u8,
        root: NodeHash,
        mut whole: impl FnMut(NodeId, &NodeHash),
    ) -> Result<(), TreeError> {
        if level >= 63 || self.size.trailing_zeros() < u32::from(level) {
            return Err(TreeError::Unaligned { level, size: self.size() });
        }
        let size = self.size + (1 << level);
        if size > MAX {
            return Err(TreeError::Full);
        }
        let mut node = NodeId { level, index: self.size >> level };
        let mut hash = root;
        whole(node, &hash);
        // As in a binary counter: each bit that the addition carries over is a pair of subtrees that become one.
        while node.index & 1 == 1 {
            let left = self.hashes.pop().expect("there is a hash for each bit of the size");
            hash = NodeHash::of_children(&left, &hash);
            node = NodeId { level: node.level + 1, index: node.index >> 1 };
            whole(node, &hash);
        }
        self.hashes.push(hash);
        self.size = size;
        Ok(())
    }
}

/// The root over subtrees from left to right, each higher than the next; `None` when there are none.
pub(crate) fn fold(hashes: &[NodeHash]) -> Option<NodeHash> {
    let (last, rest) = hashes.split_last()?;
    Some(rest.iter().rev().fold(*last, |right, left| NodeHash::of_children(left, &right)))
}

/// The perfect subtrees that make up the leaves `start..end`, from left to right. `start` must be a multiple of a power of two that is
/// not less than `end - start`.
pub(crate) fn subtrees(start: u64, end: u64) -> Vec<NodeId> {
    let mut nodes = Vec::with_capacity((end - start).count_ones() as usize);
    let mut at = start;
    while at < end {
        let level = (end - at).ilog2() as u8;
        nodes.push(NodeId { level, index: at >> level });
        at += 1 << level;
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MTH of RFC 6962, section 2.1, word by word.
    fn root_by_definition(leaves: &[LeafHash]) -> NodeHash {
        match leaves {
            [] => NodeHash::of_empty_tree(),
            [leaf] => (*leaf).into(),
            _ => {
                let half = leaves.len().next_power_of_two() / 2;
                NodeHash::of_children(&root_by_definition(&leaves[..half]), &root_by_definition(&leaves[half..]))
            }
        }
    }

    fn leaves(count: u8) -> Vec<LeafHash> {
        (0..count).map(|i| LeafHash::of_data(&[i])).collect()
    }

    fn range(leaves: &[LeafHash]) -> CompactRange {
        let mut range = CompactRange::new();
        for (i, leaf) in leaves.iter().enumerate() {
            assert_eq!(range.append(*leaf), Ok(LeafIndex(i as u64)));
        }
        range
    }

    #[test]
    fn leaf_and_empty_tree_are_those_of_the_rfc() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(NodeHash::of_empty_tree().to_string(), empty);
        assert_eq!(TreeHead::empty(), CompactRange::new().head());
        let leaf = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(LeafHash::of_data(b"").to_string(), leaf);
        assert_eq!(leaf.parse(), Ok(LeafHash::of_data(b"")));
    }

    #[test]
    fn leaf_of_an_entry_is_the_hash_of_its_hash() {
        let hash = Hash::of(b"line");
        assert_eq!(LeafHash::of_entry(&hash), LeafHash::of_data(hash.as_bytes()));
    }

    #[test]
    fn reference_trees_have_their_roots() {
        // testonly/constants.go of transparency-dev/merkle.
        let data: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let leaves: Vec<LeafHash> = data.into_iter().map(LeafHash::of_data).collect();
        let root = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328";
        assert_eq!(range(&leaves).head().root.to_string(), root);
        // Leaves 0x00 to 0x81, as computed with golang.org/x/mod/sumdb/tlog.
        let root = "f05d2f5ef24c72dd70b0a8f28e576b3acaf944c00e014524c47aa42325d7d1c3";
        assert_eq!(range(&self::leaves(130)).head().root.to_string(), root);
    }

    #[test]
    fn appended_tree_has_the_root_of_the_definition() {
        let leaves = leaves(131);
        let mut range = CompactRange::new();
        for size in 0..131 {
            let head = range.head();
            assert_eq!(head.size, TreeSize(size as u64));
            assert_eq!(head.root, root_by_definition(&leaves[..size]), "{size}");
            assert_eq!(range.hashes().len(), head.size.subtrees().len());
            for (node, hash) in head.size.subtrees().zip(range.hashes()) {
                let start = (node.index() << node.level()) as usize;
                assert_eq!(*hash, root_by_definition(&leaves[start..node.end().0 as usize]));
            }
            range.append(leaves[size]).unwrap();
        }
    }

    #[test]
    fn each_whole_subtree_is_told_once() {
        let leaves = leaves(64);
        let mut range = CompactRange::new();
        let mut told = Vec::new();
        for leaf in &leaves {
            range
                .append_with(*leaf, |node, hash| {
                    let start = (node.index() << node.level()) as usize;
                    assert_eq!(*hash, root_by_definition(&leaves[start..node.end().0 as usize]));
                    told.push(node);
                })
                .unwrap();
        }
        told.sort();
        let all: Vec<NodeId> =
            (0..=6).flat_map(|level| (0..64 >> level).map(move |index| NodeId { level, index })).collect();
        assert_eq!(told, all);
    }

    #[test]
    fn subtrees_append_like_their_leaves() {
        let leaves = leaves(100);
        let mut by_subtree = range(&leaves[..32]);
        by_subtree.append_subtree(5, root_by_definition(&leaves[32..64])).unwrap();
        by_subtree.append_subtree(5, root_by_definition(&leaves[64..96])).unwrap();
        by_subtree.append_subtree(2, root_by_definition(&leaves[96..])).unwrap();
        assert_eq!(by_subtree, range(&leaves));
        let leaf = leaves[0].into();
        let unaligned = TreeError::Unaligned { level: 3, size: TreeSize(100) };
        assert_eq!(by_subtree.append_subtree(3, leaf), Err(unaligned));
        assert_eq!(
            CompactRange::new().append_subtree(63, leaf),
            Err(TreeError::Unaligned { level: 63, size: TreeSize(0) })
        );
    }

    #[test]
    fn tree_ends_at_its_largest_size() {
        let hash = NodeHash::of_empty_tree();
        let mut range = CompactRange::from_hashes(TreeSize(MAX - 1), vec![hash; 62]).unwrap();
        let leaf = LeafHash::of_data(b"");
        assert_eq!(range.append(leaf), Ok(LeafIndex(MAX - 1)));
        let full = range.clone();
        assert_eq!(range.append(leaf), Err(TreeError::Full));
        assert_eq!(range, full);
        assert_eq!(range.hashes().len(), 63);
    }

    #[test]
    fn range_bytes_round_trip_and_nothing_else_decodes() {
        for size in 0..=130 {
            let range = range(&leaves(size));
            let bytes = range.encode();
            assert_eq!(CompactRange::decode(&bytes), Ok(range));
            assert!(CompactRange::decode(&bytes[..bytes.len() - 1]).is_err());
            assert!(CompactRange::decode(&[&bytes[..], &[0]].concat()).is_err());
            assert!(CompactRange::decode(&[&bytes[..], &[0; 32]].concat()).is_err());
        }
        assert_eq!(CompactRange::decode(&[]), Err(TreeError::RangeHeader(0)));
        assert_eq!(CompactRange::decode(&[0xff; 8]), Err(TreeError::TooLarge("tree size", u64::MAX)));
    }

    #[test]
    fn numbers_end_at_2_to_the_63() {
        assert_eq!(TreeSize::new(MAX), Ok(TreeSize::MAX));
        assert!(TreeSize::new(MAX + 1).is_err());
        assert!(LeafIndex::new(u64::MAX).is_err());
        assert_eq!(TreeSize::try_from(-1), Err(TreeError::Negative("tree size", -1)));
        assert_eq!(LeafIndex::try_from(7).map(LeafIndex::get), Ok(7));
        assert!(NodeId::new(62, 0).is_ok());
        assert!(NodeId::new(62, 1).is_err());
        assert!(NodeId::new(63, 0).is_err());
        assert!(NodeId::new(0, MAX).is_err());
        assert_eq!(NodeId::new(0, MAX - 1).unwrap().end(), TreeSize::MAX);
        assert_eq!(TreeSize::MAX.subtrees().len(), 63);
    }

    #[test]
    fn leaves_and_nodes_are_kept_apart() {
        let (left, right) = (NodeHash::of_empty_tree(), NodeHash::from([7; 32]));
        let both = [left.as_bytes().as_slice(), right.as_bytes()].concat();
        assert_ne!(NodeHash::of_children(&left, &right), LeafHash::of_data(&both).into());
        assert_ne!(NodeHash::of_children(&left, &right), NodeHash::of_children(&right, &left));
    }
}

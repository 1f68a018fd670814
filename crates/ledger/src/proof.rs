//! Proofs that an entry is in a tree, and that one tree continues another.
//!
//! An inclusion proof shows one leaf without the others; a consistency proof shows that nothing of an old tree was changed or taken away.
//! Both are exactly those of RFC 9162, sections 2.1.3 and 2.1.4 (RFC 6962, sections 2.1.1 and 2.1.2, has the same hashes), and they are
//! two types, so that one is never read as the other. A proof that holds does not show the size of a tree: take size and root together,
//! from a checkpoint. This module knows not where hashes are stored; docs/format.md, section 8.

use std::fmt;
use std::str::FromStr;

use crate::text::{self, HASH_LEN, hash_from_base64, to_base64};
use crate::tree::{self, LeafHash, LeafIndex, NodeHash, NodeId, TreeHead, TreeSize};

/// The most hashes of an inclusion proof: the height of the largest tree.
pub const MAX_INCLUSION: usize = 63;

/// The most hashes of a consistency proof: one for each level, and one where the old tree ends.
pub const MAX_CONSISTENCY: usize = 64;

/// Where the hashes of a tree are read from.
pub trait HashReader {
    /// Why hashes could not be read.
    type Error;

    /// Reads the hashes of perfect subtrees, in the order asked for. It is called once for a proof, with at most 128 places, each within
    /// the tree.
    fn read_hashes(&mut self, nodes: &[NodeId]) -> Result<Vec<NodeHash>, Self::Error>;
}

/// Shows that a leaf stands at a place of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof {
    index: LeafIndex,
    hashes: Vec<NodeHash>,
}

impl InclusionProof {
    /// Takes a proof as it was read, at most 63 hashes, the sibling of the leaf first. It is not verified.
    pub fn new(index: LeafIndex, hashes: Vec<NodeHash>) -> Result<InclusionProof, ProofError> {
        check_count(&hashes, MAX_INCLUSION)?;
        Ok(InclusionProof { index, hashes })
    }

    /// The place of the leaf.
    pub fn index(&self) -> LeafIndex {
        self.index
    }

    /// The hashes of the proof, the sibling of the leaf first.
    pub fn hashes(&self) -> &[NodeHash] {
        &self.hashes
    }
}

/// Shows that a tree begins with all leaves of an older one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistencyProof {
    hashes: Vec<NodeHash>,
}

impl ConsistencyProof {
    /// Takes a proof as it was read, at most 64 hashes, in the order of the RFC. It is not verified.
    pub fn new(hashes: Vec<NodeHash>) -> Result<ConsistencyProof, ProofError> {
        check_count(&hashes, MAX_CONSISTENCY)?;
        Ok(ConsistencyProof { hashes })
    }

    /// The hashes of the proof.
    pub fn hashes(&self) -> &[NodeHash] {
        &self.hashes
    }
}

impl fmt::Display for ConsistencyProof {
    /// Writes each hash as a line of base64, as c2sp.org/tlog-witness has it; nothing for an empty proof.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", to_base64(hash.as_bytes())))
    }
}

impl FromStr for ConsistencyProof {
    type Err = ProofError;

    /// Takes exactly what `Display` writes, at most 64 lines.
    fn from_str(text: &str) -> Result<ConsistencyProof, ProofError> {
        let lines = text.len().div_ceil(HASH_LEN + 1);
        if lines > MAX_CONSISTENCY {
            return Err(ProofError::TooLong { most: MAX_CONSISTENCY, found: lines });
        }
        let hashes = text::lines(text)
            .ok_or(ProofError::Line(lines))?
            .enumerate()
            .map(|(i, line)| hash_from_base64(line).ok_or(ProofError::Line(i + 1)))
            .collect::<Result<_, _>>()?;
        ConsistencyProof::new(hashes)
    }
}

/// A proof does not hold, or there can be none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The leaf is not in the tree.
    #[error("leaf index {index} is not below the tree size {size}")]
    IndexBeyondSize {
        /// Index of the leaf.
        index: LeafIndex,
        /// Size of the tree.
        size: TreeSize,
    },
    /// The old tree has more leaves than the new one.
    #[error("tree size {old} is greater than the tree size {new} that should continue it")]
    SizesReversed {
        /// Size of the old tree.
        old: TreeSize,
        /// Size of the new tree.
        new: TreeSize,
    },
    /// A tree without leaves has another root than that of no leaves.
    #[error("the root {0} is not that of a tree without leaves")]
    NotEmptyRoot(NodeHash),
    /// The proof has more hashes than any proof can have.
    #[error("the proof has {found} hashes, more than {most}")]
    TooLong {
        /// How many it may have.
        most: usize,
        /// How many it has.
        found: usize,
    },
    /// A line of the text, counted from 1, is not a hash.
    #[error("line {0} of the proof is not a hash")]
    Line(usize),
    /// The proof has not as many hashes as one for these sizes must have.
    #[error("the proof has {0} hashes, which is not the number for these sizes")]
    WrongLength(usize),
    /// The proof leads to another root.
    #[error("computed root {computed}, expected {expected}")]
    WrongRoot {
        /// Root that the proof leads to.
        computed: NodeHash,
        /// Root of the tree head.
        expected: NodeHash,
    },
    /// The proof leads to another root of the old tree.
    #[error("computed root {computed} of the old tree, expected {expected}")]
    WrongOldRoot {
        /// Root that the proof leads to.
        computed: NodeHash,
        /// Root of the old tree head.
        expected: NodeHash,
    },
}

/// A proof could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError<E> {
    /// There is no such proof.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// Hashes could not be read.
    #[error("could not read hashes of the tree")]
    Read(#[source] E),
    /// The reader gave more or fewer hashes than it was asked for.
    #[error("asked for {expected} hashes of the tree, got {found}")]
    ReadCount {
        /// How many were asked for.
        expected: usize,
        /// How many were given.
        found: usize,
    },
}

/// Builds the proof that the leaf at `index` is in the tree of the first `size` leaves. Reads at most 128 hashes, in one call.
pub fn build_inclusion_proof<R: HashReader>(
    index: LeafIndex,
    size: TreeSize,
    reader: &mut R,
) -> Result<InclusionProof, BuildError<R::Error>> {
    if index.get() >= size.get() {
        return Err(ProofError::IndexBeyondSize { index, size }.into());
    }
    // PATH of RFC 9162, section 2.1.3.1, from the root down, so the other way round.
    let (mut start, mut end) = (0, size.get());
    let mut siblings = Vec::with_capacity(MAX_INCLUSION);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index.get() < middle {
            siblings.push((middle, end));
            end = middle;
        } else {
            siblings.push((start, middle));
            start = middle;
        }
    }
    siblings.reverse();
    Ok(InclusionProof { index, hashes: read_ranges(&siblings, reader)? })
}

/// Builds the proof that the tree of the first `new` leaves continues that of the first `old`. When both are equal, and when `old` is 0,
/// it is empty. Reads at most 128 hashes, in one call.
pub fn build_consistency_proof<R: HashReader>(
    old: TreeSize,
    new: TreeSize,
    reader: &mut R,
) -> Result<ConsistencyProof, BuildError<R::Error>> {
    if old > new {
        return Err(ProofError::SizesReversed { old, new }.into());
    }
    if old == TreeSize::ZERO {
        return Ok(ConsistencyProof { hashes: Vec::new() });
    }
    // SUBPROOF of RFC 9162, section 2.1.4.1, from the root down, so the other way round.
    let (mut start, mut end) = (0, new.get());
    let mut ranges = Vec::with_capacity(MAX_CONSISTENCY);
    while old.get() != end {
        let middle = start + split(end - start);
        if old.get() <= middle {
            ranges.push((middle, end));
            end = middle;
        } else {
            ranges.push((start, middle));
            start = middle;
        }
    }
    // The verifier knows the root of the old tree; a part of it he must be told.
    if start > 0 {
        ranges.push((start, end));
    }
    ranges.reverse();
    Ok(ConsistencyProof { hashes: read_ranges(&ranges, reader)? })
}

/// Verifies that the proof shows the leaf in the tree of the head: RFC 9162, section 2.1.3.2.
pub fn verify_inclusion(proof: &InclusionProof, leaf: &LeafHash, head: &TreeHead) -> Result<(), ProofError> {
    let index = proof.index;
    if index.get() >= head.size.get() {
        return Err(ProofError::IndexBeyondSize { index, size: head.size });
    }
    let wrong_length = || ProofError::WrongLength(proof.hashes.len());
    let mut node = index.get();
    let mut last = head.size.get() - 1;
    let mut root = NodeHash::from(*leaf);
    for hash in &proof.hashes {
        if last == 0 {
            return Err(wrong_length());
        }
        if node & 1 == 1 || node == last {
            root = NodeHash::of_children(hash, &root);
            skip_missing_siblings(&mut node, &mut last);
        } else {
            root = NodeHash::of_children(&root, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length());
    }
    if root != head.root {
        return Err(ProofError::WrongRoot { computed: root, expected: head.root });
    }
    Ok(())
}

/// Verifies that the proof shows the tree of `new` to begin with all leaves of the tree of `old`: RFC 9162, section 2.1.4.2.
///
/// Two cases are not in the RFC. Of equal sizes, the roots must be equal and the proof empty. Every tree continues the one without
/// leaves: of the old size 0, the old root must be that of no leaves and the proof empty (c2sp.org/tlog-witness); this says nothing of
/// the new tree.
pub fn verify_consistency(proof: &ConsistencyProof, old: &TreeHead, new: &TreeHead) -> Result<(), ProofError> {
    if old.size > new.size {
        return Err(ProofError::SizesReversed { old: old.size, new: new.size });
    }
    for head in [old, new] {
        if head.size == TreeSize::ZERO && head.root != NodeHash::of_empty_tree() {
            return Err(ProofError::NotEmptyRoot(head.root));
        }
    }
    let wrong_length = || ProofError::WrongLength(proof.hashes.len());
    if old.size == new.size || old.size == TreeSize::ZERO {
        if !proof.hashes.is_empty() {
            return Err(wrong_length());
        }
        if old.size == new.size && old.root != new.root {
            return Err(ProofError::WrongRoot { computed: old.root, expected: new.root });
        }
        return Ok(());
    }
    // An old tree that is perfect is itself the first hash.
    let (first, rest) = if old.size.get().is_power_of_two() {
        if proof.hashes.is_empty() {
            return Err(wrong_length());
        }
        (&old.root, proof.hashes.as_slice())
    } else {
        proof.hashes.split_first().ok_or_else(wrong_length)?
    };
    let mut node = old.size.get() - 1;
    let mut last = new.size.get() - 1;
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut old_root, mut new_root) = (*first, *first);
    for hash in rest {
        if last == 0 {
            return Err(wrong_length());
        }
        if node & 1 == 1 || node == last {
            old_root = NodeHash::of_children(hash, &old_root);
            new_root = NodeHash::of_children(hash, &new_root);
            skip_missing_siblings(&mut node, &mut last);
        } else {
            new_root = NodeHash::of_children(&new_root, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length());
    }
    if old_root != old.root {
        return Err(ProofError::WrongOldRoot { computed: old_root, expected: old.root });
    }
    if new_root != new.root {
        return Err(ProofError::WrongRoot { computed: new_root, expected: new.root });
    }
    Ok(())
}

/// Goes up to the level at which a node at the right edge is a right child: on the way there is nothing to its right, so it has no sibling.
fn skip_missing_siblings(node: &mut u64, last: &mut u64) {
    while *node & 1 == 0 && *node != 0 {
        *node >>= 1;
        *last >>= 1;
    }
}

/// The largest power of two below `count`, which must be above 1.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// Reads the root of each range of leaves. Only the one at the right edge can be other than perfect.
fn read_ranges<R: HashReader>(ranges: &[(u64, u64)], reader: &mut R) -> Result<Vec<NodeHash>, BuildError<R::Error>> {
    if ranges.is_empty() {
        return Ok(Vec::new());
    }
    let parts: Vec<Vec<NodeId>> = ranges.iter().map(|&(start, end)| tree::subtrees(start, end)).collect();
    let nodes = parts.concat();
    let hashes = reader.read_hashes(&nodes).map_err(BuildError::Read)?;
    if hashes.len() != nodes.len() {
        return Err(BuildError::ReadCount { expected: nodes.len(), found: hashes.len() });
    }
    let mut rest = hashes.as_slice();
    Ok(parts
        .iter()
        .map(|part| {
            let (these, others) = rest.split_at(part.len());
            rest = others;
            tree::fold(these).expect("no range is empty")
        })
        .collect())
}

fn check_count(hashes: &[NodeHash], most: usize) -> Result<(), ProofError> {
    if hashes.len() > most { Err(ProofError::TooLong { most, found: hashes.len() }) } else { Ok(()) }
}

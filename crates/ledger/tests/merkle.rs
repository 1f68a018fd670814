//! Proofs of every size up to 130 against the definition, against vectors and code that others wrote, and with every bit flipped.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use audit_ledger::{
    BuildError, CompactRange, ConsistencyProof, HashReader, InclusionProof, LeafHash, LeafIndex, NodeHash, NodeId,
    ProofError, TreeHead, TreeSize, build_consistency_proof, build_inclusion_proof, verify_consistency,
    verify_inclusion,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use proptest::prelude::*;
use serde::Deserialize;

const SIZES: u64 = 130;

/// Up to this size every bit is flipped, above one bit of every byte.
const EVERY_BIT: u64 = 33;

/// A tree whose whole subtrees are all in memory.
struct Tree {
    levels: Vec<Vec<NodeHash>>,
    heads: Vec<TreeHead>,
}

impl Tree {
    fn new(size: u64) -> Tree {
        let mut range = CompactRange::new();
        let mut tree = Tree { levels: Vec::new(), heads: vec![range.head()] };
        for i in 0..size {
            let levels = &mut tree.levels;
            range
                .append_with(leaf(i), |node, hash| {
                    levels.resize(levels.len().max(usize::from(node.level()) + 1), Vec::new());
                    let level = &mut levels[usize::from(node.level())];
                    assert_eq!(level.len() as u64, node.index());
                    level.push(*hash);
                })
                .unwrap();
            tree.heads.push(range.head());
        }
        tree
    }

    fn inclusion(&mut self, index: u64, size: u64) -> InclusionProof {
        build_inclusion_proof(LeafIndex::new(index).unwrap(), TreeSize::new(size).unwrap(), self).unwrap()
    }

    fn consistency(&mut self, old: u64, new: u64) -> ConsistencyProof {
        build_consistency_proof(TreeSize::new(old).unwrap(), TreeSize::new(new).unwrap(), self).unwrap()
    }

    fn head(&self, size: u64) -> TreeHead {
        self.heads[size as usize]
    }
}

impl HashReader for Tree {
    type Error = Infallible;

    fn read_hashes(&mut self, nodes: &[NodeId]) -> Result<Vec<NodeHash>, Infallible> {
        Ok(nodes.iter().map(|node| self.levels[usize::from(node.level())][node.index() as usize]).collect())
    }
}

fn leaf(i: u64) -> LeafHash {
    LeafHash::of_data(&[i as u8])
}

fn flip(hash: &NodeHash, bit: usize) -> NodeHash {
    let mut bytes = *hash.as_bytes();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes.into()
}

fn bits(size: u64) -> impl Iterator<Item = usize> {
    let step = if size <= EVERY_BIT { 1 } else { 8 };
    // Another bit of each byte for each size.
    (size as usize % step..256).step_by(step)
}

/// All proofs that differ from this one in one bit, one hash more or one hash less.
fn damaged(hashes: &[NodeHash], size: u64) -> impl Iterator<Item = Vec<NodeHash>> {
    let flipped = (0..hashes.len()).flat_map(move |at| {
        bits(size).map(move |bit| {
            let mut hashes = hashes.to_vec();
            hashes[at] = flip(&hashes[at], bit);
            hashes
        })
    });
    let shorter = (0..hashes.len()).map(|at| [&hashes[..at], &hashes[at + 1..]].concat());
    let longer = (0..=hashes.len()).flat_map(move |at| {
        [hashes.get(at).copied(), hashes.last().copied(), Some(NodeHash::of_empty_tree())]
            .into_iter()
            .flatten()
            .map(move |more| [&hashes[..at], &[more], &hashes[at..]].concat())
    });
    flipped.chain(shorter).chain(longer)
}

#[test]
fn each_leaf_is_proven_in_each_tree_and_no_damaged_proof_holds() {
    let mut tree = Tree::new(SIZES);
    for size in 1..=SIZES {
        let head = tree.head(size);
        for index in 0..size {
            let proof = tree.inclusion(index, size);
            assert_eq!(verify_inclusion(&proof, &leaf(index), &head), Ok(()), "{index} of {size}");
            for hashes in damaged(proof.hashes(), size) {
                let bad = InclusionProof::new(proof.index(), hashes).unwrap();
                assert!(verify_inclusion(&bad, &leaf(index), &head).is_err(), "{index} of {size}: {bad:?}");
            }
            for bit in bits(size) {
                let mut bad_leaf = *leaf(index).as_bytes();
                bad_leaf[bit / 8] ^= 1 << (bit % 8);
                assert!(verify_inclusion(&proof, &bad_leaf.into(), &head).is_err());
                let bad_head = TreeHead { root: flip(&head.root, bit), ..head };
                assert!(verify_inclusion(&proof, &leaf(index), &bad_head).is_err());
            }
        }
    }
}

#[test]
fn proof_holds_at_one_index_only() {
    let mut tree = Tree::new(SIZES);
    for size in 1..=SIZES {
        for index in 0..size {
            let proof = tree.inclusion(index, size);
            for other in (0..=size + 1).filter(|other| *other != index) {
                let moved = InclusionProof::new(LeafIndex::new(other).unwrap(), proof.hashes().to_vec()).unwrap();
                assert!(verify_inclusion(&moved, &leaf(index), &tree.head(size)).is_err());
            }
        }
    }
}

#[test]
fn each_tree_continues_each_smaller_one_and_no_damaged_proof_holds() {
    let mut tree = Tree::new(SIZES);
    for size in 0..=SIZES {
        let new = tree.head(size);
        for old_size in 0..=size {
            let old = tree.head(old_size);
            let proof = tree.consistency(old_size, size);
            assert_eq!(verify_consistency(&proof, &old, &new), Ok(()), "{old_size} to {size}");
            for hashes in damaged(proof.hashes(), size) {
                let bad = ConsistencyProof::new(hashes).unwrap();
                assert!(verify_consistency(&bad, &old, &new).is_err(), "{old_size} to {size}: {bad:?}");
            }
            for bit in bits(size) {
                let bad_old = TreeHead { root: flip(&old.root, bit), ..old };
                assert!(verify_consistency(&proof, &bad_old, &new).is_err());
                // Every tree continues the one without leaves: that says nothing of the new root.
                if old_size > 0 {
                    let bad_new = TreeHead { root: flip(&new.root, bit), ..new };
                    assert!(verify_consistency(&proof, &old, &bad_new).is_err());
                }
            }
        }
    }
}

/// The length is judged by itself: here the roots fit the proof, and only the sizes are wrong for it.
#[test]
fn proof_that_goes_above_the_root_is_refused() {
    let mut tree = Tree::new(SIZES);
    let more = NodeHash::of_empty_tree();
    let above = |head: TreeHead| TreeHead { root: NodeHash::of_children(&more, &head.root), ..head };
    for size in 1..=SIZES {
        let head = tree.head(size);
        for index in 0..size {
            let hashes = [tree.inclusion(index, size).hashes(), &[more]].concat();
            let wrong_length = Err(ProofError::WrongLength(hashes.len()));
            let proof = InclusionProof::new(LeafIndex::new(index).unwrap(), hashes).unwrap();
            assert_eq!(verify_inclusion(&proof, &leaf(index), &above(head)), wrong_length);
            let old = tree.head(index + 1);
            let hashes = [tree.consistency(index + 1, size).hashes(), &[more]].concat();
            let wrong_length = Err(ProofError::WrongLength(hashes.len()));
            let proof = ConsistencyProof::new(hashes).unwrap();
            assert_eq!(verify_consistency(&proof, &above(old), &above(head)), wrong_length);
        }
    }
}

#[test]
fn size_0_continues_nothing_but_no_leaves() {
    let tree = Tree::new(5);
    let none = ConsistencyProof::new(Vec::new()).unwrap();
    let wrong = TreeHead { size: TreeSize::ZERO, root: tree.head(1).root };
    let not_empty = Err(ProofError::NotEmptyRoot(wrong.root));
    assert_eq!(verify_consistency(&none, &wrong, &tree.head(5)), not_empty);
    assert_eq!(verify_consistency(&none, &wrong, &wrong), not_empty);
    let some = ConsistencyProof::new(vec![tree.head(1).root]).unwrap();
    assert_eq!(verify_consistency(&some, &tree.head(0), &tree.head(5)), Err(ProofError::WrongLength(1)));
    assert_eq!(verify_consistency(&some, &tree.head(5), &tree.head(5)), Err(ProofError::WrongLength(1)));
}

#[test]
fn impossible_proofs_are_refused() {
    let mut tree = Tree::new(5);
    let size = |n| TreeSize::new(n).unwrap();
    let index = LeafIndex::new(5).unwrap();
    let beyond = ProofError::IndexBeyondSize { index, size: size(5) };
    assert_eq!(build_inclusion_proof(index, size(5), &mut tree), Err(BuildError::Proof(beyond.clone())));
    let proof = InclusionProof::new(index, Vec::new()).unwrap();
    assert_eq!(verify_inclusion(&proof, &leaf(0), &tree.head(5)), Err(beyond));
    let reversed = ProofError::SizesReversed { old: size(5), new: size(4) };
    assert_eq!(build_consistency_proof(size(5), size(4), &mut tree), Err(BuildError::Proof(reversed.clone())));
    let proof = ConsistencyProof::new(Vec::new()).unwrap();
    assert_eq!(verify_consistency(&proof, &tree.head(5), &tree.head(4)), Err(reversed));
    let mut long = vec![NodeHash::of_empty_tree(); 64];
    assert_eq!(InclusionProof::new(index, long.clone()), Err(ProofError::TooLong { most: 63, found: 64 }));
    long.push(NodeHash::of_empty_tree());
    assert_eq!(ConsistencyProof::new(long), Err(ProofError::TooLong { most: 64, found: 65 }));
}

/// Gives as many hashes as it is told.
struct Miscounting(isize);

impl HashReader for Miscounting {
    type Error = Infallible;

    fn read_hashes(&mut self, nodes: &[NodeId]) -> Result<Vec<NodeHash>, Infallible> {
        Ok(vec![NodeHash::of_empty_tree(); nodes.len().checked_add_signed(self.0).unwrap()])
    }
}

#[test]
fn reader_that_miscounts_is_refused() {
    let (index, size) = (LeafIndex::new(3).unwrap(), TreeSize::new(6).unwrap());
    assert!(build_inclusion_proof(index, size, &mut Miscounting(0)).is_ok());
    for wrong in [-1, 1] {
        let found = 3usize.checked_add_signed(wrong).unwrap();
        assert_eq!(
            build_inclusion_proof(index, size, &mut Miscounting(wrong)),
            Err(BuildError::ReadCount { expected: 3, found })
        );
    }
}

#[test]
fn largest_trees_need_few_hashes() {
    for (index, size) in [(0, i64::MAX), (i64::MAX - 1, i64::MAX), (1 << 62, i64::MAX), (5, 1 << 62)] {
        let (index, size) = (LeafIndex::try_from(index).unwrap(), TreeSize::try_from(size).unwrap());
        let proof = build_inclusion_proof(index, size, &mut Miscounting(0)).unwrap();
        assert!(proof.hashes().len() <= 63);
        let head = TreeHead { size, root: NodeHash::of_empty_tree() };
        assert!(matches!(verify_inclusion(&proof, &leaf(0), &head), Err(ProofError::WrongRoot { .. })));
        let old = TreeSize::new(index.get() + 1).unwrap();
        let proof = build_consistency_proof(old, size, &mut Miscounting(0)).unwrap();
        assert!(proof.hashes().len() <= 64);
    }
}

#[test]
fn proofs_are_those_of_ct_merkle() {
    let mut tree = Tree::new(SIZES);
    let mut theirs = MemoryBackedTree::<sha2::Sha256, Vec<u8>>::new();
    for size in 1..=SIZES {
        theirs.push(vec![(size - 1) as u8]);
        assert_eq!(theirs.root().as_bytes().as_slice(), tree.head(size).root.as_bytes(), "{size}");
        for index in 0..size {
            let proof = theirs.prove_inclusion(index as usize);
            assert_eq!(proof.as_bytes(), bytes(tree.inclusion(index, size).hashes()), "{index} of {size}");
        }
        for old in 1..=size {
            let proof = theirs.prove_consistency((size - old) as usize);
            assert_eq!(proof.as_bytes(), bytes(tree.consistency(old, size).hashes()), "{old} to {size}");
        }
    }
}

fn bytes(hashes: &[NodeHash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct InclusionVector {
    leaf_idx: u64,
    tree_size: u64,
    root: Option<String>,
    leaf_hash: Option<String>,
    proof: Option<Vec<String>>,
    #[serde(rename = "desc")]
    _desc: String,
    want_err: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ConsistencyVector {
    size1: u64,
    size2: u64,
    root1: Option<String>,
    root2: Option<String>,
    proof: Option<Vec<String>>,
    #[serde(rename = "desc")]
    _desc: String,
    want_err: bool,
}

/// Of equal sizes, any equal roots are consistent; in this file they are placeholders of 12 bytes, which are no hashes here.
const ROOTS_OF_12_BYTES: &str = "additional/sizes-are-equal-one-and-proof-is-empty.json";

impl InclusionVector {
    fn holds(&self) -> Option<()> {
        let head = TreeHead { size: TreeSize::new(self.tree_size).ok()?, root: hash(&self.root)? };
        let leaf = hash(&self.leaf_hash)?.as_bytes().to_owned().into();
        let proof = InclusionProof::new(LeafIndex::new(self.leaf_idx).ok()?, hashes(&self.proof)?).ok()?;
        verify_inclusion(&proof, &leaf, &head).ok()
    }
}

impl ConsistencyVector {
    fn holds(&self) -> Option<()> {
        let old = TreeHead { size: TreeSize::new(self.size1).ok()?, root: hash(&self.root1)? };
        let new = TreeHead { size: TreeSize::new(self.size2).ok()?, root: hash(&self.root2)? };
        verify_consistency(&ConsistencyProof::new(hashes(&self.proof)?).ok()?, &old, &new).ok()
    }
}

fn hash(base64: &Option<String>) -> Option<NodeHash> {
    let bytes = STANDARD.decode(base64.as_ref()?).unwrap();
    NodeHash::try_from(bytes.as_slice()).ok()
}

fn hashes(base64: &Option<Vec<String>>) -> Option<Vec<NodeHash>> {
    base64.iter().flatten().map(|hash| self::hash(&Some(hash.clone()))).collect()
}

/// The folder with the vectors of transparency-dev/merkle: below `AUDIT_VECTORS`, or below `shared/vectors` next to the repository.
fn vectors() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors");
    let told = std::env::var_os("AUDIT_VECTORS").map(PathBuf::from);
    let folder = told.as_ref().unwrap_or(&beside).join("merkle");
    if folder.is_dir() {
        return Some(folder);
    }
    assert_eq!(told, None, "AUDIT_VECTORS holds no folder merkle");
    eprintln!("no vectors at {}: skipped (set AUDIT_VECTORS)", folder.display());
    None
}

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
}

#[test]
fn vectors_of_transparency_dev_hold_or_not_as_they_say() {
    let Some(folder) = vectors() else { return };
    let mut files = Vec::new();
    files_below(&folder.join("inclusion"), &mut files);
    for path in &files {
        let vector: InclusionVector = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(vector.holds().is_none(), vector.want_err, "{}", path.display());
    }
    let inclusion = files.len();
    files.clear();
    files_below(&folder.join("consistency"), &mut files);
    for path in &files {
        let mut vector: ConsistencyVector = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        if path.ends_with(ROOTS_OF_12_BYTES) {
            assert!(vector.holds().is_none());
            for root in [&mut vector.root1, &mut vector.root2] {
                let bytes = STANDARD.decode(root.as_ref().unwrap()).unwrap();
                *root = Some(STANDARD.encode([bytes.as_slice(), &[0; 20]].concat()));
            }
        }
        assert_eq!(vector.holds().is_none(), vector.want_err, "{}", path.display());
    }
    assert_eq!((inclusion, files.len()), (98, 98));
}

proptest! {
    #[test]
    fn verifiers_refuse_arbitrary_proofs(
        index in any::<u64>(),
        sizes in any::<[u64; 2]>(),
        shift in 0u32..64,
        hashes in prop::collection::vec(any::<[u8; 32]>().prop_map(NodeHash::from), 0..=63),
    ) {
        let size = |n: u64| TreeSize::new(n >> 1 >> shift).unwrap();
        let root = NodeHash::of_empty_tree();
        let heads = sizes.map(|n| TreeHead { size: size(n), root });
        let proof = InclusionProof::new(LeafIndex::new(index >> 1 >> shift).unwrap(), hashes.clone()).unwrap();
        prop_assert!(verify_inclusion(&proof, &leaf(1), &heads[0]).is_err());
        let holds = verify_consistency(&ConsistencyProof::new(hashes.clone()).unwrap(), &heads[0], &heads[1]).is_ok();
        let trivial = hashes.is_empty() && (heads[0] == heads[1] || heads[0].size == TreeSize::ZERO);
        prop_assert_eq!(holds, trivial);
    }
}

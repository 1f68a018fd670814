//! Exchanges trees, proofs and notes with other implementations, as JSON. See tests/go.
//!
//! `exchange write` prints what this crate makes; `exchange check` reads what another one made, and verifies it.

use std::convert::Infallible;
use std::io::{Read, Write};

use audit_ledger::{
    CompactRange, ConsistencyProof, Hash, HashReader, InclusionProof, LeafHash, LeafIndex, NodeHash, NodeId, Note,
    SignerKey, TileSlice, TreeHead, TreeSize, VerifierKey, build_consistency_proof, build_inclusion_proof, tile,
    verify_consistency, verify_inclusion,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// Sizes up to this one have all their proofs in the file.
const SIZES: u64 = 130;

/// Leaves of the tree whose tiles are in the file.
const LEAVES: u64 = 1000;

/// What is exchanged. Hashes and bytes are base64.
#[derive(Serialize, Deserialize)]
struct Exchange {
    /// The data of the leaves: hashes of entries.
    leaves: Vec<String>,
    /// The root of the first 1, 2, 3, ... leaves.
    roots: Vec<String>,
    inclusion: Vec<Inclusion>,
    consistency: Vec<Consistency>,
    /// The tiles of the tree of all leaves.
    tiles: Vec<Tile>,
    notes: Vec<SignedNote>,
}

#[derive(Serialize, Deserialize)]
struct Inclusion {
    index: u64,
    size: u64,
    hashes: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Consistency {
    old: u64,
    new: u64,
    hashes: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Tile {
    path: String,
    hashes: String,
}

#[derive(Serialize, Deserialize)]
struct SignedNote {
    /// The public key that should open the note.
    key: String,
    note: String,
    /// Whether it does.
    opens: bool,
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("write") => {
            let json = serde_json::to_vec(&write()).expect("everything has a JSON form");
            std::io::stdout().write_all(&json).expect("standard output can be written");
        }
        Some("check") => {
            let mut json = Vec::new();
            std::io::stdin().read_to_end(&mut json).expect("standard input can be read");
            let theirs: Exchange = serde_json::from_slice(&json).expect("the input is what another one wrote");
            check(&theirs);
            println!(
                "checked {} roots, {} inclusion proofs, {} consistency proofs, {} tiles, {} notes",
                theirs.roots.len(),
                theirs.inclusion.len(),
                theirs.consistency.len(),
                theirs.tiles.len(),
                theirs.notes.len()
            );
        }
        _ => {
            eprintln!("usage: exchange write|check");
            std::process::exit(2);
        }
    }
}

fn write() -> Exchange {
    let entries: Vec<Hash> = (0..LEAVES).map(|i| Hash::of(format!("entry {i}").as_bytes())).collect();
    let mut tree = Tree::of(entries.iter().map(LeafHash::of_entry));
    let mut inclusion = Vec::new();
    let mut consistency = Vec::new();
    for size in (1..=SIZES).chain([LEAVES]) {
        for index in 0..size {
            let proof =
                build_inclusion_proof(leaf_index(index), tree_size(size), &mut tree).expect("it is in the tree");
            inclusion.push(Inclusion { index, size, hashes: proof.hashes().iter().map(to_base64).collect() });
            let proof = build_consistency_proof(tree_size(index + 1), tree_size(size), &mut tree).expect("it is older");
            let hashes = proof.hashes().iter().map(to_base64).collect();
            consistency.push(Consistency { old: index + 1, new: size, hashes });
        }
    }
    Exchange {
        leaves: entries.iter().map(|entry| STANDARD.encode(entry.as_bytes())).collect(),
        roots: tree.heads[1..].iter().map(|head| to_base64(&head.root)).collect(),
        inclusion,
        consistency,
        tiles: tree.tiles(),
        notes: notes(),
    }
}

fn notes() -> Vec<SignedNote> {
    let keys = [1, 2].map(|seed| SignerKey::from_seed("example.com/log", &[seed; 32]).expect("the name is good"));
    let mut notes = Vec::new();
    for text in
        ["a\n", "a\n\nb\n", "è subito sera.\n", "example.com/log\n3\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"]
    {
        let note = Note::sign(text.to_owned(), &[&keys[0]]).expect("the text is good").to_string();
        let both = Note::sign(text.to_owned(), &[&keys[1], &keys[0]]).expect("the text is good").to_string();
        let forged = format!("x{note}");
        for (key, note, opens) in
            [(0, &note, true), (1, &note, false), (0, &both, true), (1, &both, true), (0, &forged, false)]
        {
            notes.push(SignedNote { key: keys[key].verifier().to_string(), note: note.clone(), opens });
        }
    }
    notes
}

fn check(theirs: &Exchange) {
    let leaves: Vec<LeafHash> = theirs.leaves.iter().map(|data| LeafHash::of_data(&bytes(data))).collect();
    let tree = Tree::of(leaves.iter().copied());
    assert_eq!(theirs.roots.len(), leaves.len());
    for (head, root) in tree.heads[1..].iter().zip(&theirs.roots) {
        assert_eq!(to_base64(&head.root), *root, "root of size {}", head.size);
    }
    for Inclusion { index, size, hashes } in &theirs.inclusion {
        let (leaf, head) = (&leaves[*index as usize], &tree.heads[*size as usize]);
        for (proof, holds) in good_and_bad(hashes) {
            let proof = InclusionProof::new(leaf_index(*index), proof).expect("it is short");
            assert_eq!(verify_inclusion(&proof, leaf, head).is_ok(), holds, "{index} of {size}");
        }
    }
    for Consistency { old, new, hashes } in &theirs.consistency {
        let (old, new) = (&tree.heads[*old as usize], &tree.heads[*new as usize]);
        for (proof, holds) in good_and_bad(hashes) {
            let proof = ConsistencyProof::new(proof).expect("it is short");
            assert_eq!(verify_consistency(&proof, old, new).is_ok(), holds, "{} to {}", old.size, new.size);
        }
    }
    let ours = tree.tiles();
    assert_eq!(theirs.tiles.len(), ours.len());
    for tile in &theirs.tiles {
        assert!(ours.iter().any(|our| our.path == tile.path && our.hashes == tile.hashes), "{}", tile.path);
    }
    for SignedNote { key, note, opens } in &theirs.notes {
        let key: VerifierKey = key.parse().expect("it is a key");
        let opened = Note::parse(note.as_bytes()).is_ok_and(|note| note.open(&[&key]).is_ok());
        assert_eq!(opened, *opens, "{note}");
    }
}

/// A proof that holds, and some that do not.
fn good_and_bad(hashes: &[String]) -> Vec<(Vec<NodeHash>, bool)> {
    let hashes: Vec<NodeHash> =
        hashes.iter().map(|hash| NodeHash::try_from(bytes(hash).as_slice()).expect("it is a hash")).collect();
    let mut proofs = vec![(hashes.clone(), true), ([&hashes[..], &[NodeHash::of_empty_tree()]].concat(), false)];
    for at in 0..hashes.len() {
        let mut bad = hashes.clone();
        bad[at] = NodeHash::of_children(&bad[at], &bad[at]);
        proofs.push((bad, false));
    }
    proofs
}

/// A tree in memory.
struct Tree {
    levels: Vec<Vec<NodeHash>>,
    heads: Vec<TreeHead>,
}

impl Tree {
    fn of(leaves: impl Iterator<Item = LeafHash>) -> Tree {
        let mut range = CompactRange::new();
        let mut tree = Tree { levels: Vec::new(), heads: vec![range.head()] };
        for leaf in leaves {
            let levels = &mut tree.levels;
            range
                .append_with(leaf, |node, hash| {
                    levels.resize(levels.len().max(usize::from(node.level()) + 1), Vec::new());
                    levels[usize::from(node.level())].push(*hash);
                })
                .expect("it is not full");
            tree.heads.push(range.head());
        }
        tree
    }

    fn tiles(&self) -> Vec<Tile> {
        let size = self.heads.last().expect("there is the empty one").size;
        let whole = tile::completed_tiles(TreeSize::ZERO, size)
            .map(|id| TileSlice::new(id, tile::WIDTH).expect("each whole tile can be"));
        whole
            .chain(tile::partial_tiles(size))
            .map(|slice| {
                let first = slice.id().index() as usize * usize::from(tile::WIDTH);
                let hashes = &self.levels[8 * usize::from(slice.id().level())][first..][..usize::from(slice.width())];
                Tile { path: slice.to_string(), hashes: STANDARD.encode(tile::encode_hashes(hashes)) }
            })
            .collect()
    }
}

impl HashReader for Tree {
    type Error = Infallible;

    fn read_hashes(&mut self, nodes: &[NodeId]) -> Result<Vec<NodeHash>, Infallible> {
        Ok(nodes.iter().map(|node| self.levels[usize::from(node.level())][node.index() as usize]).collect())
    }
}

fn leaf_index(index: u64) -> LeafIndex {
    LeafIndex::new(index).expect("it is small")
}

fn tree_size(size: u64) -> TreeSize {
    TreeSize::new(size).expect("it is small")
}

fn to_base64(hash: &NodeHash) -> String {
    STANDARD.encode(hash.as_bytes())
}

fn bytes(base64: &str) -> Vec<u8> {
    STANDARD.decode(base64).expect("it is base64")
}

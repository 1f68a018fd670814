//! Each parser takes what is written, writes what it took, and survives anything else. The same targets run for longer in `examples/fuzz`.

#[path = "../examples/fuzz/mutate.rs"]
mod mutate;
#[path = "../examples/fuzz/targets.rs"]
mod targets;

use audit_ledger::{
    Checkpoint, CompactRange, ConsistencyProof, InclusionProof, LeafIndex, NodeHash, Note, SignerKey, TileId,
    TileSlice, TlogProof, TreeHead, TreeSize, VerifierKey, WitnessSignerKey,
};
use proptest::prelude::*;

#[test]
fn each_target_takes_its_seeds() {
    for target in targets::TARGETS {
        let mut taken = (target.seeds)().into_iter().map(|seed| (target.run)(&seed));
        assert!(taken.any(|taken| taken), "{}", target.name);
    }
}

#[test]
fn damaged_inputs_are_refused_or_written_as_they_were() {
    for target in targets::TARGETS {
        let mut random = mutate::Random::new(1);
        let mut corpus = (target.seeds)();
        for _ in 0..3_000 {
            let input = mutate::input(&mut random, &corpus);
            if (target.run)(&input) && corpus.len() < 200 {
                corpus.push(input);
            }
        }
    }
}

fn hash() -> impl Strategy<Value = NodeHash> {
    any::<[u8; 32]>().prop_map(NodeHash::from)
}

fn head() -> impl Strategy<Value = TreeHead> {
    let size = (any::<u64>(), 1u32..64).prop_map(|(size, shift)| TreeSize::new(size >> shift).unwrap());
    (size, hash()).prop_map(|(size, root)| TreeHead { size, root })
}

fn name() -> impl Strategy<Value = String> {
    "[!-*,-~\u{a1}-\u{167f}]{1,40}"
}

fn signer() -> impl Strategy<Value = SignerKey> {
    (name(), any::<[u8; 32]>()).prop_map(|(name, seed)| SignerKey::from_seed(&name, &seed).unwrap())
}

fn signed_checkpoint() -> impl Strategy<Value = Note> {
    (head(), signer(), signer(), any::<u64>()).prop_map(|(head, signer, witness, time)| {
        let checkpoint = Checkpoint::new(signer.name(), head).unwrap();
        let mut note = checkpoint.sign(&[&signer]).unwrap();
        note.add(WitnessSignerKey::new(witness).cosign(&checkpoint, time >> 1).unwrap()).unwrap();
        note
    })
}

proptest! {
    #[test]
    fn notes_round_trip_and_open(text in "(\\PC|\n){0,200}\n", signer in signer()) {
        // Unicode has control characters below U+0020 only in \n here: \PC leaves them out.
        let note = Note::sign(text.clone(), &[&signer]).unwrap();
        let again = Note::parse(note.to_string().as_bytes()).unwrap();
        prop_assert_eq!(again.open(&[&signer.verifier()]).unwrap().text, text);
        prop_assert_eq!(again, note);
    }

    #[test]
    fn keys_round_trip(signer in signer()) {
        let key = signer.verifier();
        prop_assert_eq!(key.to_string().parse::<VerifierKey>(), Ok(key.clone()));
        prop_assert_eq!(VerifierKey::from_public_key_pem(signer.name(), &key.to_public_key_pem()), Ok(key));
        let witness = WitnessSignerKey::new(signer).verifier();
        prop_assert_eq!(witness.to_string().parse(), Ok(witness));
    }

    #[test]
    fn checkpoints_round_trip(origin in name(), head in head()) {
        let checkpoint = Checkpoint::new(&origin, head).unwrap();
        prop_assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint));
    }

    #[test]
    fn tlog_proofs_round_trip(
        index in any::<u64>(),
        hashes in prop::collection::vec(hash(), 0..=63),
        extra in prop::collection::vec(any::<u8>(), 0..300),
        note in signed_checkpoint(),
    ) {
        let proof = InclusionProof::new(LeafIndex::new(index >> 1).unwrap(), hashes).unwrap();
        let proof = TlogProof::new(proof, extra, note).unwrap();
        prop_assert_eq!(proof.to_string().parse(), Ok(proof));
    }

    #[test]
    fn consistency_proofs_round_trip(hashes in prop::collection::vec(hash(), 0..=64)) {
        let proof = ConsistencyProof::new(hashes).unwrap();
        prop_assert_eq!(proof.to_string().parse(), Ok(proof));
    }

    #[test]
    fn tile_paths_round_trip(level in 0u8..=6, index in any::<u64>(), width in 1u16..=256) {
        let index = index % ((i64::MAX as u64 >> (8 * level)) / 256);
        let slice = TileSlice::new(TileId::new(level, index).unwrap(), width).unwrap();
        prop_assert_eq!(slice.to_string().parse(), Ok(slice));
    }

    #[test]
    fn compact_ranges_round_trip(head in head(), hashes in prop::collection::vec(hash(), 63)) {
        let hashes = hashes[..head.size.subtrees().len()].to_vec();
        let range = CompactRange::from_hashes(head.size, hashes).unwrap();
        prop_assert_eq!(CompactRange::decode(&range.encode()), Ok(range));
    }

    #[test]
    fn no_parser_panics_on_noise(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for target in targets::TARGETS {
            (target.run)(&bytes);
        }
    }
}

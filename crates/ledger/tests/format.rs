//! The examples of docs/format.md, sections 6 to 8: the tree over the three entries of the golden vectors whose names begin with `chain_`.

use audit_ledger::{
    Checkpoint, CompactRange, Hash, InclusionProof, LeafHash, LeafIndex, SignerKey, TlogProof, VerifierKey,
    WitnessSignerKey, WitnessVerifierKey,
};

const ORIGIN: &str = "example.com/audit";
const LOG_KEY: &str = "example.com/audit+57840a0c+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea";
const WITNESS_KEY: &str = "witness.example+67550f4e+BD1AF8PoQ4lakrcKp00bfrycmCzPLsSWjMDNVfEq9GYM";

/// The private keys of RFC 8032, section 7.1, tests 1 and 2.
const LOG_SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const WITNESS_SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";

const PROOF: &str = "c2sp.org/tlog-proof@v1
index 1
gUZHGoh3m4NOeH87Z4k3inlm3wJbSmJhOg6cZYV5cPQ=
lRgi88komIPve7LquAEYyOwY+OkipYsdNPihQmxCDgc=

example.com/audit
3
fCriLN6MITm+1LAFsIcFifPeJTe1cWn2wuGD8ZnYTck=

— example.com/audit V4QKDKr29zwtOEXDLfcHLf8krvdpk5qfuwTOpwKcVqsa8dRHQiecNtFx7kv/1ai3PDXnFzeuMLnRIj0XdfFYSBczqAA=
— witness.example \
Z1UPTgAAAABpISAoGfl/SuOAfaJ38XeHUlZnCsD56yvu/P9A6HOWVrZvSXpTr9V/I6f04dI2oqTBhanK0s26s/tXPFYx6iQKwyghDg==
";

fn leaves() -> Vec<LeafHash> {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../testdata/entries.json")).unwrap();
    let hash = |vector: &serde_json::Value| {
        let named = vector["name"].as_str().unwrap().starts_with("chain_");
        named.then(|| vector["hash"].as_str().unwrap().parse::<Hash>().unwrap())
    };
    vectors.as_array().unwrap().iter().filter_map(hash).map(|hash| LeafHash::of_entry(&hash)).collect()
}

fn key(name: &str, seed: &str) -> SignerKey {
    SignerKey::from_seed(name, seed.parse::<Hash>().unwrap().as_bytes()).unwrap()
}

fn range() -> CompactRange {
    let mut range = CompactRange::new();
    for leaf in leaves() {
        range.append(leaf).unwrap();
    }
    range
}

#[test]
fn tree_is_that_of_the_example() {
    let hex: Vec<String> = leaves().iter().map(LeafHash::to_string).collect();
    assert_eq!(hex[0], "8146471a88779b834e787f3b6789378a7966df025b4a62613a0e9c65857970f4");
    assert_eq!(hex[1], "2bc8b49bf2af3a339b0b01a9b8bf57e7c81fc6b9becfcf458c9f6c0f5f353e5c");
    assert_eq!(hex[2], "951822f3c9289883ef7bb2eab80118c8ec18f8e922a58b1d34f8a1426c420e07");
    let root = "7c2ae22cde8c2139bed4b005b0870589f3de2537b57169f6c2e183f199d84dc9";
    assert_eq!(range().head().root.to_string(), root);
}

#[test]
fn proof_is_that_of_the_example() {
    let log = key(ORIGIN, LOG_SEED);
    let witness = WitnessSignerKey::new(key("witness.example", WITNESS_SEED));
    assert_eq!(log.verifier().to_string(), LOG_KEY);
    assert_eq!(witness.verifier().to_string(), WITNESS_KEY);
    let checkpoint = Checkpoint::new(ORIGIN, range().head()).unwrap();
    let mut note = checkpoint.sign(&[&log]).unwrap();
    note.add(witness.cosign(&checkpoint, 1_763_778_600).unwrap()).unwrap();
    let hashes = vec![leaves()[0].into(), leaves()[2].into()];
    let proof = InclusionProof::new(LeafIndex::new(1).unwrap(), hashes).unwrap();
    assert_eq!(TlogProof::new(proof, Vec::new(), note).unwrap().to_string(), PROOF);
}

#[test]
fn proof_of_the_example_holds() {
    let proof: TlogProof = PROOF.parse().unwrap();
    let log: VerifierKey = LOG_KEY.parse().unwrap();
    let witness: WitnessVerifierKey = WITNESS_KEY.parse().unwrap();
    let opened = proof.verify(&leaves()[1], ORIGIN, &log, &[&witness]).unwrap();
    assert_eq!((*opened.checkpoint.head(), opened.witnesses), (range().head(), vec![0]));
    assert!(proof.verify(&leaves()[0], ORIGIN, &log, &[]).is_err());
}

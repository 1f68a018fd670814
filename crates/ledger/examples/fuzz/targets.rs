//! What is fuzzed: each parser of the crate, with texts that it takes to begin with, and what must hold whatever it is given.

use std::borrow::Cow;
use std::sync::OnceLock;

use audit_ledger::note::{MAX_KEY_LEN, MAX_LEN};
use audit_ledger::{
    Checkpoint, CompactRange, ConsistencyProof, Cosignature, Entry, Hash, InclusionProof, LeafHash, LeafIndex,
    NodeHash, Note, Seal, Signature, SignerKey, TileSlice, Timestamp, TlogProof, TreeHead, TreeSize, VerifierKey,
    WitnessSignerKey, WitnessVerifierKey, json, tile, tlog_proof, verify_consistency, verify_inclusion,
};

/// One parser.
pub(crate) struct Target {
    /// How it is called on the command line.
    pub(crate) name: &'static str,
    /// What it takes.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// Gives it an input and says whether it was taken; panics when a promise is broken.
    pub(crate) run: fn(&[u8]) -> bool,
}

/// All parsers.
pub(crate) const TARGETS: &[Target] = &[
    Target { name: "entry", seeds: lines, run: |input| same(input, |text| Entry::parse(text).ok().map(|e| line(&e))) },
    Target { name: "entry_form", seeds: lines, run: entry_form },
    Target { name: "seal", seeds: seal_lines, run: |input| same(input, |text| Seal::parse(text).ok().map(seal_line)) },
    Target { name: "json_members", seeds: objects, run: json_members },
    Target {
        name: "json_object",
        seeds: objects,
        run: |input| text(input).is_some_and(|t| json::validate_object(t).is_ok()),
    },
    Target { name: "hash", seeds: || vec![Hash::of(b"").to_string().into()], run: same_text::<Hash> },
    Target { name: "timestamp", seeds: timestamps, run: same_text::<Timestamp> },
    Target { name: "note", seeds: notes, run: note },
    Target {
        name: "signature_line",
        seeds: signature_lines,
        run: |input| same(input, |t| Signature::parse_line(t).map(|s| s.to_string())),
    },
    Target {
        name: "verifier_key",
        seeds: || vec![signer().verifier().to_string().into()],
        run: same_text::<VerifierKey>,
    },
    Target {
        name: "witness_key",
        seeds: || vec![witness().verifier().to_string().into()],
        run: same_text::<WitnessVerifierKey>,
    },
    Target { name: "private_pem", seeds: || vec![PRIVATE_PEM.into()], run: private_pem },
    Target { name: "public_pem", seeds: || vec![signer().verifier().to_public_key_pem().into()], run: public_pem },
    Target { name: "checkpoint", seeds: checkpoints, run: same_text::<Checkpoint> },
    Target {
        name: "cosignature",
        seeds: || vec![vec![1; 72]],
        run: |input| same_bytes(input, Cosignature::decode(input).map(|c| c.encode().to_vec())),
    },
    Target { name: "tlog_proof", seeds: tlog_proofs, run: same_text::<TlogProof> },
    Target {
        name: "unsigned_tlog_proof",
        seeds: tlog_proofs,
        run: |input| {
            same(input, |text| {
                tlog_proof::parse(text).ok().map(|(p, extra, rest)| tlog_proof::format(&p, &extra, rest))
            })
        },
    },
    Target {
        name: "consistency_proof",
        seeds: || vec![proof_lines().into(), vec![]],
        run: same_text::<ConsistencyProof>,
    },
    Target { name: "tile_path", seeds: tile_paths, run: same_text::<TileSlice> },
    Target {
        name: "tile_hashes",
        seeds: || vec![vec![0; 8192], vec![0; 32]],
        run: |input| same_bytes(input, tile::decode_hashes(input).ok().map(|h| tile::encode_hashes(&h))),
    },
    Target {
        name: "compact_range",
        seeds: ranges,
        run: |input| same_bytes(input, CompactRange::decode(input).ok().map(|r| r.encode())),
    },
    Target { name: "verify", seeds: || vec![vec![0; 24], vec![7; 24 + 96], vec![0; 24 + 32 * 63]], run: verify },
];

const PRIVATE_PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
    -----END PRIVATE KEY-----\n";

fn text(input: &[u8]) -> Option<&str> {
    str::from_utf8(input).ok()
}

/// What was parsed must be written as it was.
fn same_bytes(input: &[u8], again: Option<Vec<u8>>) -> bool {
    if let Some(again) = &again {
        assert_eq!(again, input, "it is not written as it was");
    }
    again.is_some()
}

fn same(input: &[u8], parse: impl Fn(&str) -> Option<String>) -> bool {
    text(input).is_some_and(|text| same_bytes(input, parse(text).map(String::into_bytes)))
}

fn same_text<T: std::str::FromStr + ToString>(input: &[u8]) -> bool {
    same(input, |text| text.parse::<T>().ok().map(|value| value.to_string()))
}

fn line(entry: &Entry<'_>) -> String {
    let mut line = Vec::new();
    entry.write_line(&mut line);
    String::from_utf8(line).expect("a line is UTF-8")
}

/// The line of a seal, whose form can be asked for whatever it says.
fn seal_line(seal: Seal) -> String {
    let _ = seal.check_form();
    let mut line = Vec::new();
    seal.write_line(&mut line);
    String::from_utf8(line).expect("a line is UTF-8")
}

fn entry_form(input: &[u8]) -> bool {
    text(input).and_then(|text| Entry::parse(text).ok()).is_some_and(|entry| entry.check_form().is_ok())
}

fn json_members(input: &[u8]) -> bool {
    let Some(members) = text(input).and_then(|text| json::members(text).ok()) else { return false };
    let mut again = b"{".to_vec();
    for (name, value) in members {
        let name: Cow<'_, str> = name;
        if again.len() > 1 {
            again.push(b',');
        }
        json::push_string(&mut again, name.as_bytes());
        again.push(b':');
        again.extend_from_slice(value.as_bytes());
    }
    again.push(b'}');
    same_bytes(input, Some(again))
}

fn note(input: &[u8]) -> bool {
    let Ok(note) = Note::parse(input) else { return false };
    assert!(input.len() <= MAX_LEN);
    static KEYS: OnceLock<(VerifierKey, WitnessVerifierKey)> = OnceLock::new();
    let (signer, witness) = KEYS.get_or_init(|| (signer().verifier(), witness().verifier()));
    // Nobody else signs with these keys: whatever opens is a text that was signed here.
    if let Ok(opened) = note.open(&[signer, witness]) {
        assert!(notes().iter().any(|seed| Note::parse(seed).unwrap().unverified_text() == opened.text));
    }
    same_bytes(input, Some(note.to_string().into_bytes()))
}

fn private_pem(input: &[u8]) -> bool {
    let key = text(input).and_then(|text| SignerKey::from_pkcs8_pem("a", text).ok());
    assert!(key.is_none() || input.len() <= MAX_KEY_LEN);
    key.is_some_and(|key| Note::sign("a\n".to_owned(), &[&key]).unwrap().open(&[&key.verifier()]).is_ok())
}

fn public_pem(input: &[u8]) -> bool {
    let Some(key) = text(input).and_then(|text| VerifierKey::from_public_key_pem("a", text).ok()) else { return false };
    assert_eq!(VerifierKey::from_public_key_pem("a", &key.to_public_key_pem()).as_ref(), Ok(&key));
    assert_eq!(key.to_string().parse().as_ref(), Ok(&key));
    true
}

/// No proof made of arbitrary hashes holds, but for those of nothing.
fn verify(input: &[u8]) -> bool {
    let (numbers, hashes) = input.as_chunks::<8>().0.split_at(input.len().min(24) / 8);
    let [a, b, shift] = [0, 1, 2].map(|i| numbers.get(i).map_or(0, |number| u64::from_le_bytes(*number)));
    let [a, b] = [a, b].map(|n| n >> 1 >> (shift % 63));
    let bytes = hashes.concat();
    let hashes: Vec<NodeHash> = bytes.as_chunks::<32>().0.iter().map(|hash| NodeHash::from(*hash)).collect();
    let head = |size| TreeHead { size: TreeSize::new(size).unwrap(), root: NodeHash::of_empty_tree() };
    if let Ok(proof) = InclusionProof::new(LeafIndex::new(a).unwrap(), hashes.clone()) {
        assert!(verify_inclusion(&proof, &LeafHash::of_data(b""), &head(b)).is_err());
    }
    let empty = hashes.is_empty();
    let Ok(proof) = ConsistencyProof::new(hashes) else { return false };
    let holds = verify_consistency(&proof, &head(a), &head(b)).is_ok();
    assert_eq!(holds, empty && (a == b || a == 0));
    holds
}

fn signer() -> SignerKey {
    SignerKey::from_seed("example.com/log", &[1; 32]).unwrap()
}

fn witness() -> WitnessSignerKey {
    WitnessSignerKey::new(SignerKey::from_seed("witness.example", &[2; 32]).unwrap())
}

fn range() -> CompactRange {
    let mut range = CompactRange::new();
    for i in 0..7u8 {
        range.append(LeafHash::of_data(&[i])).unwrap();
    }
    range
}

fn ranges() -> Vec<Vec<u8>> {
    vec![range().encode(), CompactRange::new().encode()]
}

fn signed_checkpoint() -> Note {
    let checkpoint = Checkpoint::new("example.com/log", range().head()).unwrap();
    let mut note = checkpoint.sign(&[&signer()]).unwrap();
    note.add(witness().cosign(&checkpoint, 1_700_000_000).unwrap()).unwrap();
    note
}

fn notes() -> Vec<Vec<u8>> {
    let other = Note::sign("a\n\nb\n\n".to_owned(), &[&signer()]).unwrap();
    vec![signed_checkpoint().to_string().into(), other.to_string().into()]
}

fn signature_lines() -> Vec<Vec<u8>> {
    signed_checkpoint().signatures().iter().map(|signature| signature.to_string().into()).collect()
}

fn checkpoints() -> Vec<Vec<u8>> {
    let text = signed_checkpoint().unverified_text().to_owned();
    vec![format!("{text}extension\n").into(), text.into()]
}

fn proof_lines() -> String {
    ConsistencyProof::new(range().hashes().to_vec()).unwrap().to_string()
}

fn tlog_proofs() -> Vec<Vec<u8>> {
    [vec![], b"extra".to_vec()]
        .map(|extra| {
            let proof = InclusionProof::new(LeafIndex::new(6).unwrap(), range().hashes().to_vec()).unwrap();
            TlogProof::new(proof, extra, signed_checkpoint()).unwrap().to_string().into()
        })
        .to_vec()
}

fn tile_paths() -> Vec<Vec<u8>> {
    ["tile/0/000", "tile/1/x001/x234/067.p/5", "tile/7/000.p/127"].map(Vec::from).to_vec()
}

fn timestamps() -> Vec<Vec<u8>> {
    ["2025-11-22T02:30:00.123456Z", "0000-02-29T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"]
        .map(Vec::from)
        .to_vec()
}

fn lines() -> Vec<Vec<u8>> {
    lines_of(include_str!("../../testdata/entries.json"))
}

fn seal_lines() -> Vec<Vec<u8>> {
    lines_of(include_str!("../../testdata/seals.json"))
}

fn lines_of(vectors: &str) -> Vec<Vec<u8>> {
    let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
    vectors.as_array().unwrap().iter().map(|vector| vector["line"].as_str().unwrap().into()).collect()
}

fn objects() -> Vec<Vec<u8>> {
    [
        r#"{}"#,
        r#"{"id":1,"name":"a\"b","x":null,"y":[1,{"z":1e400}], "w":-0.5}"#,
        r#"{"a": null,"b":[[[[[]]]]],"c":true,"d":"\u00e9\ud83d\ude00"}"#,
        "{\"a\\u0001\":\"\\u001f\",\"é\":1.50}",
    ]
    .map(Vec::from)
    .to_vec()
}

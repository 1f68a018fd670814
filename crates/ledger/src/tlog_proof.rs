//! A proof for one entry in one file: index, inclusion proof and signed checkpoint.
//!
//! The format is c2sp.org/tlog-proof@v1. Whoever has the entry, such a file and the public keys can verify without the log that the entry
//! is in it. What the extra data are for is not known here, and nothing authenticates them; docs/format.md, section 8.

use std::fmt;
use std::str::FromStr;

use crate::checkpoint::{Checkpoint, CheckpointError, OpenedCheckpoint};
use crate::note::{self, Note, NoteError, NoteVerifier};
use crate::proof::{InclusionProof, MAX_INCLUSION, ProofError, verify_inclusion};
use crate::text::{HASH_LEN, decimal, from_base64, hash_from_base64, to_base64};
use crate::tree::{LeafHash, LeafIndex};

/// The most bytes of extra data.
pub const MAX_EXTRA: usize = 65_536;

/// The most bytes of a proof file.
pub const MAX_LEN: usize = HEADER.len()
    + 1
    + (6 + MAX_EXTRA.div_ceil(3) * 4 + 1)
    + (6 + 19 + 1)
    + MAX_INCLUSION * (HASH_LEN + 1)
    + 1
    + note::MAX_LEN;

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// Index, inclusion proof and checkpoint. Until [`TlogProof::verify`] has been called, it shows nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    proof: InclusionProof,
    extra: Vec<u8>,
    checkpoint: Note,
}

/// A text is not a proof file, or what it says does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlogProofError {
    /// There are too many bytes.
    #[error("the proof has {0} bytes, more than {MAX_LEN}")]
    TooLong(usize),
    /// The first line is another.
    #[error("line 1 of the proof is not \"{HEADER}\"")]
    Header,
    /// The extra data are empty, longer than [`MAX_EXTRA`] or not base64.
    #[error("the extra data of the proof are malformed")]
    Extra,
    /// There is no index, or it is malformed.
    #[error("the index of the proof is missing or malformed")]
    Index,
    /// A line, counted from 1, is not a hash.
    #[error("line {0} of the proof is not a hash")]
    Hash(usize),
    /// There is no blank line before the checkpoint.
    #[error("the proof has no checkpoint")]
    NoCheckpoint,
    /// The proof of inclusion is too long, or does not hold.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The checkpoint is malformed, or not signed as it should be.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl From<NoteError> for TlogProofError {
    fn from(error: NoteError) -> TlogProofError {
        TlogProofError::Checkpoint(error.into())
    }
}

impl TlogProof {
    /// Puts a proof together. The note must hold a checkpoint; neither signatures nor proof are verified. Empty extra data are none.
    pub fn new(proof: InclusionProof, extra: Vec<u8>, checkpoint: Note) -> Result<TlogProof, TlogProofError> {
        if extra.len() > MAX_EXTRA {
            return Err(TlogProofError::Extra);
        }
        checkpoint.unverified_text().parse::<Checkpoint>()?;
        Ok(TlogProof { proof, extra, checkpoint })
    }

    /// The inclusion proof.
    pub fn proof(&self) -> &InclusionProof {
        &self.proof
    }

    /// Data that travel with the proof, empty when there are none. Nothing authenticates them.
    pub fn extra(&self) -> &[u8] {
        &self.extra
    }

    /// The signed checkpoint.
    pub fn checkpoint(&self) -> &Note {
        &self.checkpoint
    }

    /// Verifies the signatures of the checkpoint, as [`Checkpoint::open`] does, and that the leaf is in its tree. The caller judges
    /// whether the witnesses suffice.
    pub fn verify(
        &self,
        leaf: &LeafHash,
        origin: &str,
        log: &dyn NoteVerifier,
        witnesses: &[&dyn NoteVerifier],
    ) -> Result<OpenedCheckpoint, TlogProofError> {
        let opened = Checkpoint::open(&self.checkpoint, origin, log, witnesses)?;
        verify_inclusion(&self.proof, leaf, opened.checkpoint.head())?;
        Ok(opened)
    }
}

impl FromStr for TlogProof {
    type Err = TlogProofError;

    /// Reads a proof of at most [`MAX_LEN`] bytes. It takes exactly what `Display` writes, and verifies nothing.
    fn from_str(text: &str) -> Result<TlogProof, TlogProofError> {
        let (proof, extra, checkpoint) = parse(text)?;
        TlogProof::new(proof, extra, Note::parse(checkpoint.as_bytes())?)
    }
}

/// Reads a proof of at most [`MAX_LEN`] bytes: the inclusion proof, the extra data, and the text that should be a signed checkpoint, which is left as it is. For
/// ledgers without a key; [`TlogProof`] takes signed checkpoints alone.
pub fn parse(text: &str) -> Result<(InclusionProof, Vec<u8>, &str), TlogProofError> {
    if text.len() > MAX_LEN {
        return Err(TlogProofError::TooLong(text.len()));
    }
    let (head, checkpoint) = text.split_once("\n\n").ok_or(TlogProofError::NoCheckpoint)?;
    let mut lines = head.split('\n').enumerate().peekable();
    if lines.next().is_none_or(|(_, line)| line != HEADER) {
        return Err(TlogProofError::Header);
    }
    let mut extra = Vec::new();
    if let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with("extra ")) {
        extra = from_base64(&line["extra ".len()..], MAX_EXTRA).ok_or(TlogProofError::Extra)?;
        if extra.is_empty() {
            return Err(TlogProofError::Extra);
        }
    }
    let index = lines
        .next()
        .and_then(|(_, line)| decimal(line.strip_prefix("index ")?))
        .and_then(|index| LeafIndex::new(index).ok())
        .ok_or(TlogProofError::Index)?;
    // One more than may be is enough to know that there are too many.
    let hashes = lines
        .take(MAX_INCLUSION + 1)
        .map(|(i, line)| hash_from_base64(line).ok_or(TlogProofError::Hash(i + 1)))
        .collect::<Result<_, _>>()?;
    Ok((InclusionProof::new(index, hashes)?, extra, checkpoint))
}

/// Writes what [`parse`] reads. `extra` has at most [`MAX_EXTRA`] bytes, and the text begins with no line feed.
pub fn format(proof: &InclusionProof, extra: &[u8], checkpoint: &str) -> String {
    let mut text = format!("{HEADER}\n");
    if !extra.is_empty() {
        text.push_str(&format!("extra {}\n", to_base64(extra)));
    }
    text.push_str(&format!("index {}\n", proof.index()));
    for hash in proof.hashes() {
        text.push_str(&to_base64(hash.as_bytes()));
        text.push('\n');
    }
    text.push('\n');
    text.push_str(checkpoint);
    text
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format(&self.proof, &self.extra, &self.checkpoint.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::SignerKey;
    use crate::tree::{CompactRange, NodeHash};

    const HASH: &str = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    fn signer() -> SignerKey {
        SignerKey::from_seed("example.com/log", &[9; 32]).unwrap()
    }

    fn leaf(i: u8) -> LeafHash {
        LeafHash::of_data(&[i])
    }

    /// The proof for the second of three leaves.
    fn proof(extra: &[u8]) -> TlogProof {
        let mut range = CompactRange::new();
        (0..3).for_each(|i| {
            range.append(leaf(i)).unwrap();
        });
        let checkpoint = Checkpoint::new("example.com/log", range.head()).unwrap().sign(&[&signer()]).unwrap();
        let hashes = vec![leaf(0).into(), leaf(2).into()];
        TlogProof::new(InclusionProof::new(LeafIndex::new(1).unwrap(), hashes).unwrap(), extra.to_vec(), checkpoint)
            .unwrap()
    }

    #[test]
    fn proof_is_written_as_the_standard_says() {
        let proof = proof(b"");
        let hash = |leaf: LeafHash| to_base64(leaf.as_bytes());
        let checkpoint = proof.checkpoint().to_string();
        let text = format!("c2sp.org/tlog-proof@v1\nindex 1\n{}\n{}\n\n{checkpoint}", hash(leaf(0)), hash(leaf(2)));
        assert_eq!(proof.to_string(), text);
        let with_extra = text.replacen("index", "extra eA==\nindex", 1);
        assert_eq!(self::proof(b"x").to_string(), with_extra);
        assert_eq!(with_extra.parse::<TlogProof>().unwrap().extra(), b"x");
    }

    #[test]
    fn proof_holds_for_its_leaf_and_its_log_only() {
        let proof: TlogProof = proof(b"").to_string().parse().unwrap();
        let key = signer().verifier();
        let opened = proof.verify(&leaf(1), "example.com/log", &key, &[]).unwrap();
        assert_eq!(opened.checkpoint.head().size.get(), 3);
        let wrong = proof.verify(&leaf(2), "example.com/log", &key, &[]);
        assert!(matches!(wrong, Err(TlogProofError::Proof(ProofError::WrongRoot { .. }))));
        let wrong = proof.verify(&leaf(1), "example.com/other", &key, &[]);
        assert!(matches!(wrong, Err(TlogProofError::Checkpoint(CheckpointError::OtherLog { .. }))));
        let other = SignerKey::from_seed("example.com/log", &[8; 32]).unwrap().verifier();
        let wrong = proof.verify(&leaf(1), "example.com/log", &other, &[]);
        assert_eq!(wrong, Err(NoteError::Unsigned.into()));
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let text = proof(b"").to_string();
        let key = signer().verifier();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                let holds = String::from_utf8(bytes)
                    .ok()
                    .and_then(|text| text.parse::<TlogProof>().ok())
                    .and_then(|proof| proof.verify(&leaf(1), "example.com/log", &key, &[]).ok());
                assert_eq!(holds, None, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn malformed_proofs_are_refused() {
        let checkpoint = proof(b"").checkpoint().to_string();
        for (head, error) in [
            ("", TlogProofError::Header),
            ("c2sp.org/tlog-proof@v2\nindex 1", TlogProofError::Header),
            ("c2sp.org/tlog-proof@v1", TlogProofError::Index),
            ("c2sp.org/tlog-proof@v1\nindex", TlogProofError::Index),
            ("c2sp.org/tlog-proof@v1\nindex 01", TlogProofError::Index),
            ("c2sp.org/tlog-proof@v1\nindex 9223372036854775808", TlogProofError::Index),
            ("c2sp.org/tlog-proof@v1\nindex 1\nindex 1", TlogProofError::Hash(3)),
            ("c2sp.org/tlog-proof@v1\nindex 1\nAAAA", TlogProofError::Hash(3)),
            ("c2sp.org/tlog-proof@v1\nextra \nindex 1", TlogProofError::Extra),
            ("c2sp.org/tlog-proof@v1\nextra eB==\nindex 1", TlogProofError::Extra),
            ("c2sp.org/tlog-proof@v1\nextra eA==\nextra eA==\nindex 1", TlogProofError::Index),
            ("c2sp.org/tlog-proof@v1\nindex 1\nextra eA==", TlogProofError::Hash(3)),
        ] {
            assert_eq!(format!("{head}\n\n{checkpoint}").parse::<TlogProof>(), Err(error), "{head}");
        }
        let start = "c2sp.org/tlog-proof@v1\nindex 1\n";
        assert_eq!(start.parse::<TlogProof>(), Err(TlogProofError::NoCheckpoint));
        let long = format!("{start}{}\n{checkpoint}", format!("{HASH}\n").repeat(64));
        let too_long = ProofError::TooLong { most: 63, found: 64 };
        assert_eq!(long.parse::<TlogProof>(), Err(TlogProofError::Proof(too_long)));
        let note = Note::sign("no checkpoint\n".to_owned(), &[&signer()]).unwrap();
        let wrong = format!("{start}\n{note}").parse::<TlogProof>();
        assert_eq!(wrong, Err(CheckpointError::Lines.into()));
        let wrong = "a".repeat(MAX_LEN + 1).parse::<TlogProof>();
        assert_eq!(wrong, Err(TlogProofError::TooLong(MAX_LEN + 1)));
    }

    #[test]
    fn proof_with_an_unsigned_checkpoint_is_no_signed_one() {
        let signed = proof(b"x");
        let body = signed.checkpoint().unverified_text();
        let text = format(signed.proof(), b"x", body);
        assert_eq!(parse(&text), Ok((signed.proof().clone(), b"x".to_vec(), body)));
        assert!(text.parse::<TlogProof>().is_err());
        assert_eq!(format(signed.proof(), b"x", &signed.checkpoint().to_string()), signed.to_string());
    }

    #[test]
    fn longest_proof_fits() {
        let index = LeafIndex::MAX;
        let proof = InclusionProof::new(index, vec![NodeHash::of_empty_tree(); MAX_INCLUSION]).unwrap();
        let mut checkpoint = Checkpoint::new("a", crate::TreeHead::empty()).unwrap().to_string();
        let line = signer().sign("").to_string().len() + 1;
        checkpoint.push_str(&"x".repeat(note::MAX_LEN - checkpoint.len() - 2 - line));
        checkpoint.push('\n');
        let note = Note::sign(checkpoint, &[&signer()]).unwrap();
        let proof = TlogProof::new(proof, vec![0; MAX_EXTRA], note).unwrap();
        assert_eq!(proof.to_string().len(), MAX_LEN);
        assert_eq!(proof.to_string().parse(), Ok(proof));
    }
}

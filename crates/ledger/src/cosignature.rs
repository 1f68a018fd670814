//! Cosignatures: what a witness adds to a checkpoint after it saw that the log only grew.
//!
//! The format is c2sp.org/tlog-cosignature v1, with Ed25519 (signature type 0x04): the signature covers a time and the whole text of the
//! checkpoint. It does not cover the name of the witness, so each witness needs a key of its own.

use std::fmt;
use std::str::FromStr;

use crate::checkpoint::Checkpoint;
use crate::note::{KeyError, KeyId, NamedKey, NoteVerifier, Signature, SignerKey};

/// Ed25519 over a time and the text of a checkpoint.
const COSIGNATURE_V1: u8 = 0x04;

/// The bytes of a cosignature: when, and the Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cosignature {
    time: u64,
    signature: [u8; 64],
}

impl Cosignature {
    /// Reads the bytes of a signature line behind the key id: 8 bytes of time, the highest first, and 64 of signature. `None` for any
    /// other length, and for times above 2^63-1.
    pub fn decode(bytes: &[u8]) -> Option<Cosignature> {
        let (time, signature) = bytes.split_first_chunk::<8>()?;
        let time = u64::from_be_bytes(*time);
        (time <= i64::MAX as u64).then_some(Cosignature { time, signature: signature.try_into().ok()? })
    }

    /// The 72 bytes behind the key id.
    pub fn encode(&self) -> [u8; 72] {
        let mut bytes = [0; 72];
        bytes[..8].copy_from_slice(&self.time.to_be_bytes());
        bytes[8..].copy_from_slice(&self.signature);
        bytes
    }

    /// When the witness signed, in seconds since 1970, as it says.
    pub fn time(&self) -> u64 {
        self.time
    }
}

impl fmt::Debug for Cosignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cosignature").field("time", &self.time).finish_non_exhaustive()
    }
}

/// The public key of a witness. As text it is a vkey, `name+id+key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessVerifierKey(NamedKey);

impl WitnessVerifierKey {
    /// Makes a key of its 32 bytes.
    pub fn from_bytes(name: &str, key: &[u8; 32]) -> Result<WitnessVerifierKey, KeyError> {
        NamedKey::from_bytes(name, key).map(WitnessVerifierKey)
    }
}

impl NoteVerifier for WitnessVerifierKey {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn key_id(&self) -> KeyId {
        self.0.id(COSIGNATURE_V1)
    }

    fn verify(&self, text: &str, signature: &[u8]) -> bool {
        Cosignature::decode(signature)
            .is_some_and(|cosignature| self.0.verify(&message(cosignature.time, text), &cosignature.signature))
    }
}

impl FromStr for WitnessVerifierKey {
    type Err = KeyError;

    /// Takes exactly what `Display` writes, in at most [`MAX_KEY_LEN`](crate::note::MAX_KEY_LEN) bytes.
    fn from_str(vkey: &str) -> Result<WitnessVerifierKey, KeyError> {
        NamedKey::parse_vkey(vkey, COSIGNATURE_V1).map(WitnessVerifierKey)
    }
}

impl fmt::Display for WitnessVerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.format_vkey(COSIGNATURE_V1))
    }
}

/// The private key of a witness.
#[derive(Debug)]
pub struct WitnessSignerKey(SignerKey);

impl WitnessSignerKey {
    /// Makes the key of a witness. The same key must sign nothing else under another name.
    pub fn new(key: SignerKey) -> WitnessSignerKey {
        WitnessSignerKey(key)
    }

    /// The public key that verifies what this key signs.
    pub fn verifier(&self) -> WitnessVerifierKey {
        let verifier = self.0.verifier();
        WitnessVerifierKey::from_bytes(self.0.name(), verifier.as_bytes()).expect("it was taken before")
    }

    /// Cosigns a checkpoint at a time, in seconds since 1970; `None` above 2^63-1.
    pub fn cosign(&self, checkpoint: &Checkpoint, time: u64) -> Option<Signature> {
        if time > i64::MAX as u64 {
            return None;
        }
        let signature = self.0.sign_bytes(&message(time, &checkpoint.to_string()));
        let cosignature = Cosignature { time, signature };
        Some(Signature::new(self.0.name(), self.verifier().key_id(), cosignature.encode().to_vec()))
    }
}

/// What a witness signs.
fn message(time: u64, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {time}\n{text}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::{Note, NoteError};

    // The example of c2sp.org/tlog-cosignature; its keys are not published.
    const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        \u{2014} example.com/behind-the-sofa \
        Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        \u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0\
        xUe+mbIUBkBIfZ+qnA==\n";

    fn witness(name: &str) -> WitnessSignerKey {
        WitnessSignerKey::new(SignerKey::from_seed(name, &[7; 32]).unwrap())
    }

    fn example() -> (Note, Checkpoint) {
        let note = Note::parse(EXAMPLE.as_bytes()).unwrap();
        let checkpoint = note.unverified_text().parse().unwrap();
        (note, checkpoint)
    }

    #[test]
    fn example_of_the_standard_has_its_time() {
        let (note, _) = example();
        let cosignature = Cosignature::decode(note.signatures()[1].bytes()).unwrap();
        assert_eq!(cosignature.time(), 1_679_315_147);
        assert_eq!(cosignature.encode(), note.signatures()[1].bytes());
        assert_eq!(Cosignature::decode(note.signatures()[0].bytes()), None);
        // From the tests of transparency-dev/formats.
        let line = "\u{2014} a ZGhGuQAAAABm/qTPeyKXD+R2rzyQsxPiP8mXum7qq/iF0u4vanlqJyocWODBt97w9uL+8qT7S5gxEHWWOworDcFiEBYJXO\
            RmnFBOBA==";
        let signature = Signature::parse_line(line).unwrap();
        assert_eq!(Cosignature::decode(signature.bytes()).unwrap().time(), 1_727_964_367);
    }

    #[test]
    fn cosignature_verifies_and_covers_time_and_text() {
        let (mut note, checkpoint) = example();
        let key = witness("w.example");
        let signature = key.cosign(&checkpoint, 1_700_000_000).unwrap();
        note.add(signature.clone()).unwrap();
        assert_eq!(note.open(&[&key.verifier()]).unwrap().signed_by, [0]);
        assert!(!key.verifier().verify("other\n", signature.bytes()));
        for bit in 0..72 * 8 {
            let mut bytes = signature.bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.verifier().verify(note.unverified_text(), &bytes), "{bit}");
        }
        assert!(!key.verifier().verify(note.unverified_text(), &signature.bytes()[..71]));
        assert!(key.cosign(&checkpoint, u64::MAX).is_none());
    }

    #[test]
    fn witness_key_and_signer_key_are_not_confused() {
        let (note, checkpoint) = example();
        let witness = witness("w.example");
        let signer = SignerKey::from_seed("w.example", &[7; 32]).unwrap().verifier();
        assert_ne!(signer.key_id(), witness.verifier().key_id());
        let vkey = witness.verifier().to_string();
        assert_eq!(vkey.parse(), Ok(witness.verifier()));
        assert_eq!(vkey.parse::<crate::VerifierKey>(), Err(KeyError::Type { expected: 1, found: 4 }));
        assert_eq!(signer.to_string().parse::<WitnessVerifierKey>(), Err(KeyError::Type { expected: 4, found: 1 }));
        let cosigned =
            Note::from_parts(note.unverified_text().to_owned(), vec![witness.cosign(&checkpoint, 1).unwrap()]);
        assert_eq!(cosigned.unwrap().open(&[&signer]), Err(NoteError::Unsigned));
        // A published key of a witness, from the tests of transparency-dev/formats.
        let remora = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2";
        assert_eq!(remora.parse::<WitnessVerifierKey>().unwrap().to_string(), remora);
    }
}

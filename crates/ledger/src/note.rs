//! Signed notes: a text and signatures under it, as lines that people can read and mail.
//!
//! The format is c2sp.org/signed-note v1.0.0, with Ed25519 (RFC 8032, signature type 0x01). Reading is stricter than some programs are:
//! what was read is written back byte for byte. This module knows not what the text says; see `checkpoint`, and for the signatures of
//! witnesses `cosignature`.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey};
use ed25519_dalek::{Signature as Ed25519Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::text::{self, from_base64, to_base64};

/// The most bytes of a note. The same as in golang.org/x/mod.
pub const MAX_LEN: usize = 1_000_000;

/// The most signatures of a note. The same as in golang.org/x/mod; the standard asks for at least 16.
pub const MAX_SIGNATURES: usize = 100;

/// The most bytes of a public key in its text form, and of a PEM file with a key.
pub const MAX_KEY_LEN: usize = 4096;

/// Ed25519 over the text.
const ED25519: u8 = 0x01;

/// What every signature line begins with: an em dash and a space.
const LINE_START: &str = "\u{2014} ";

/// A text and the signatures under it. Until [`Note::open`] has verified one, the text is nobody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

/// One signature of a note: who, with which key, and the bytes, whose meaning the type of the key tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    name: String,
    key_id: KeyId,
    bytes: Vec<u8>,
}

/// The first four bytes of a hash of name and key. It tells keys apart, it does not authenticate them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 4]);

/// A public key of some type that can verify signatures of notes.
pub trait NoteVerifier {
    /// Name of the key.
    fn name(&self) -> &str;

    /// Id of the key.
    fn key_id(&self) -> KeyId;

    /// Whether the bytes are this key's signature of the text.
    fn verify(&self, text: &str, signature: &[u8]) -> bool;
}

/// What [`Note::open`] has verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The text that was signed, its last line feed included.
    pub text: &'a str,
    /// Which of the given keys have signed it, as places in their list, ascending.
    pub signed_by: Vec<usize>,
}

/// A note is malformed, or not signed as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// There are too many bytes.
    #[error("the note has {0} bytes, more than {MAX_LEN}")]
    TooLong(usize),
    /// The bytes are not UTF-8.
    #[error("the note is not UTF-8")]
    NotUtf8,
    /// There is a control character other than line feed.
    #[error("the note holds a control character")]
    ControlCharacter,
    /// The text does not end with a line feed.
    #[error("the text of the note does not end with a line feed")]
    UnendedText,
    /// There is no blank line between text and signatures.
    #[error("the note has no blank line before its signatures")]
    NoSignatures,
    /// There are too many signatures.
    #[error("the note has {0} signatures, more than {MAX_SIGNATURES}")]
    TooManySignatures(usize),
    /// A signature line, counted from 1, is malformed.
    #[error("signature line {0} of the note is malformed")]
    SignatureLine(usize),
    /// Two of the keys given have the same name and id.
    #[error("two keys have the name \"{0}\" and the id {1}")]
    AmbiguousKey(String, KeyId),
    /// A signature of a known key is wrong: the note was altered, or it is a forgery.
    #[error("the signature of \"{0}\" (key {1}) is wrong")]
    WrongSignature(String, KeyId),
    /// None of the signatures is from a known key.
    #[error("the note has no signature of a known key")]
    Unsigned,
}

/// A text is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There are too many bytes.
    #[error("the key has {0} bytes, more than {MAX_KEY_LEN}")]
    TooLong(usize),
    /// The name is empty, or holds white space, `+` or a control character.
    #[error("\"{0}\" is not a name for a key")]
    Name(String),
    /// The text is not name, id and key.
    #[error("a public key is written as name+id+key")]
    Form,
    /// The id is not that of name and key.
    #[error("computed key id {computed}, the key says {found}")]
    WrongId {
        /// Id of name and key.
        computed: KeyId,
        /// Id in the text.
        found: KeyId,
    },
    /// The key is of another type.
    #[error("the key is of type {found:#04x}, not {expected:#04x}")]
    Type {
        /// Type that was expected.
        expected: u8,
        /// Type in the text.
        found: u8,
    },
    /// The bytes are not an Ed25519 public key, or one of the few under which anybody can sign.
    #[error("the bytes are not an Ed25519 public key that is safe to use")]
    NotEd25519,
    /// The text is not an Ed25519 private key in PKCS#8 PEM form, without a password.
    #[error("not an unencrypted Ed25519 private key in PKCS#8 PEM form")]
    PrivatePem,
    /// The text is not an Ed25519 public key in PEM form.
    #[error("not an Ed25519 public key in PEM form")]
    PublicPem,
}

impl Note {
    /// Writes a note and signs it with each of the keys; there must be at least one.
    pub fn sign(text: String, keys: &[&SignerKey]) -> Result<Note, NoteError> {
        let signatures = keys.iter().map(|key| key.sign(&text)).collect();
        Note::from_parts(text, signatures)
    }

    /// Puts a note together. The signatures are not verified.
    pub fn from_parts(text: String, signatures: Vec<Signature>) -> Result<Note, NoteError> {
        check_characters(&text)?;
        if !text.ends_with('\n') {
            return Err(NoteError::UnendedText);
        }
        if signatures.is_empty() {
            return Err(NoteError::NoSignatures);
        }
        if signatures.len() > MAX_SIGNATURES {
            return Err(NoteError::TooManySignatures(signatures.len()));
        }
        let len = text.len() + 1 + signatures.iter().map(Signature::line_len).sum::<usize>();
        if len > MAX_LEN {
            return Err(NoteError::TooLong(len));
        }
        Ok(Note { text, signatures })
    }

    /// Adds a signature, such as that of a witness.
    pub fn add(&mut self, signature: Signature) -> Result<(), NoteError> {
        let mut signatures = self.signatures.clone();
        signatures.push(signature);
        *self = Note::from_parts(self.text.clone(), signatures)?;
        Ok(())
    }

    /// Reads a note of at most [`MAX_LEN`] bytes. It takes exactly what `Display` writes, and verifies no signature.
    pub fn parse(bytes: &[u8]) -> Result<Note, NoteError> {
        if bytes.len() > MAX_LEN {
            return Err(NoteError::TooLong(bytes.len()));
        }
        let note = str::from_utf8(bytes).map_err(|_| NoteError::NotUtf8)?;
        check_characters(note)?;
        // The text may hold blank lines, signatures cannot: the last one parts them.
        let (before, lines) = note.rsplit_once("\n\n").ok_or(NoteError::NoSignatures)?;
        let count = lines.bytes().filter(|byte| *byte == b'\n').count();
        if count == 0 {
            return Err(NoteError::NoSignatures);
        }
        if count > MAX_SIGNATURES {
            return Err(NoteError::TooManySignatures(count));
        }
        let signatures = text::lines(lines)
            .ok_or(NoteError::SignatureLine(count + 1))?
            .enumerate()
            .map(|(i, line)| Signature::parse_line(line).ok_or(NoteError::SignatureLine(i + 1)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Note { text: note[..before.len() + 1].to_owned(), signatures })
    }

    /// The text, its last line feed included, whoever may have written it.
    pub fn unverified_text(&self) -> &str {
        &self.text
    }

    /// The signatures as they stand there, at least one.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Verifies the signatures of the keys given; those of other keys are ignored. If one is wrong, or none is there, the note is refused.
    pub fn open(&self, keys: &[&dyn NoteVerifier]) -> Result<Opened<'_>, NoteError> {
        for (i, key) in keys.iter().enumerate() {
            if keys[..i].iter().any(|other| other.key_id() == key.key_id() && other.name() == key.name()) {
                return Err(NoteError::AmbiguousKey(key.name().to_owned(), key.key_id()));
            }
        }
        let mut signed_by = Vec::new();
        for signature in &self.signatures {
            let known = |key: &&dyn NoteVerifier| key.key_id() == signature.key_id && key.name() == signature.name;
            let Some(place) = keys.iter().position(known) else { continue };
            if !keys[place].verify(&self.text, &signature.bytes) {
                return Err(NoteError::WrongSignature(signature.name.clone(), signature.key_id));
            }
            signed_by.push(place);
        }
        if signed_by.is_empty() {
            return Err(NoteError::Unsigned);
        }
        signed_by.sort_unstable();
        signed_by.dedup();
        Ok(Opened { text: &self.text, signed_by })
    }
}

impl fmt::Display for Note {
    /// Writes text, blank line and signatures; the last character is a line feed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

impl Signature {
    pub(crate) fn new(name: &str, key_id: KeyId, bytes: Vec<u8>) -> Signature {
        Signature { name: name.to_owned(), key_id, bytes }
    }

    /// Name of the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Id of the key.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The signature without the key id.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads a line as a witness gives it back, without a line feed; `None` when it is malformed or longer than a note.
    pub fn parse_line(line: &str) -> Option<Signature> {
        let (name, base64) = line.strip_prefix(LINE_START)?.split_once(' ')?;
        if !is_key_name(name) {
            return None;
        }
        let bytes = from_base64(base64, MAX_LEN)?;
        let (key_id, bytes) = bytes.split_first_chunk::<4>()?;
        // A signature without bytes says nothing.
        (!bytes.is_empty()).then(|| Signature::new(name, KeyId(*key_id), bytes.to_vec()))
    }

    fn line_len(&self) -> usize {
        LINE_START.len() + self.name.len() + 1 + (4 + self.bytes.len()).div_ceil(3) * 4 + 1
    }
}

impl fmt::Display for Signature {
    /// Writes the line, without a line feed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LINE_START}{} {}", self.name, to_base64(&[&self.key_id.0, self.bytes.as_slice()].concat()))
    }
}

impl KeyId {
    /// SHA-256(name || 0x0A || type || key), the first four bytes.
    pub(crate) fn of(name: &str, key_type: u8, key: &[u8]) -> KeyId {
        let mut sha = Sha256::new();
        sha.update(name);
        sha.update([b'\n', key_type]);
        sha.update(key);
        KeyId(*sha.finalize().first_chunk().expect("a hash has 32 bytes"))
    }
}

impl fmt::Display for KeyId {
    /// Writes eight lower-case hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A name and an Ed25519 public key, with the type of its signatures left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedKey {
    pub(crate) name: String,
    pub(crate) key: VerifyingKey,
}

impl NamedKey {
    pub(crate) fn new(name: &str, key: VerifyingKey) -> Result<NamedKey, KeyError> {
        if !is_key_name(name) {
            return Err(KeyError::Name(name.chars().take(80).collect()));
        }
        // Under a key of small order anybody can sign anything.
        if key.is_weak() {
            return Err(KeyError::NotEd25519);
        }
        Ok(NamedKey { name: name.to_owned(), key })
    }

    pub(crate) fn from_bytes(name: &str, key: &[u8]) -> Result<NamedKey, KeyError> {
        let key = key.try_into().map_err(|_| KeyError::NotEd25519)?;
        let point = VerifyingKey::from_bytes(key).map_err(|_| KeyError::NotEd25519)?;
        // Some points have a second spelling, which RFC 8032, section 5.1.3, refuses.
        if !is_reduced(key) {
            return Err(KeyError::NotEd25519);
        }
        NamedKey::new(name, point)
    }

    pub(crate) fn id(&self, key_type: u8) -> KeyId {
        KeyId::of(&self.name, key_type, self.key.as_bytes())
    }

    pub(crate) fn parse_vkey(vkey: &str, key_type: u8) -> Result<NamedKey, KeyError> {
        if vkey.len() > MAX_KEY_LEN {
            return Err(KeyError::TooLong(vkey.len()));
        }
        // Only the first two: base64 has `+` among its digits.
        let mut parts = vkey.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(KeyError::Form);
        };
        if id.len() != 8 || !id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(KeyError::Form);
        }
        let found = KeyId(u32::from_str_radix(id, 16).map_err(|_| KeyError::Form)?.to_be_bytes());
        let key = from_base64(key, MAX_KEY_LEN).ok_or(KeyError::Form)?;
        let (&found_type, key) = key.split_first().ok_or(KeyError::Form)?;
        if found_type != key_type {
            return Err(KeyError::Type { expected: key_type, found: found_type });
        }
        let key = NamedKey::from_bytes(name, key)?;
        let computed = key.id(key_type);
        if computed != found {
            return Err(KeyError::WrongId { computed, found });
        }
        Ok(key)
    }

    pub(crate) fn format_vkey(&self, key_type: u8) -> String {
        let key = to_base64(&[&[key_type], self.key.as_bytes().as_slice()].concat());
        format!("{}+{}+{key}", self.name, self.id(key_type))
    }

    /// Refuses also what only verifiers without cofactor accept: keys and nonces of small order.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Ed25519Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(message, &signature).is_ok())
    }
}

/// An Ed25519 public key that verifies notes. As text it is a vkey, `name+id+key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey(NamedKey);

impl VerifierKey {
    /// Makes a key of its 32 bytes.
    pub fn from_bytes(name: &str, key: &[u8; 32]) -> Result<VerifierKey, KeyError> {
        NamedKey::from_bytes(name, key).map(VerifierKey)
    }

    /// Reads a public key from the text of a PEM file (`BEGIN PUBLIC KEY`, RFC 8410).
    pub fn from_public_key_pem(name: &str, pem: &str) -> Result<VerifierKey, KeyError> {
        if pem.len() > MAX_KEY_LEN {
            return Err(KeyError::TooLong(pem.len()));
        }
        let key = VerifyingKey::from_public_key_pem(pem).map_err(|_| KeyError::PublicPem)?;
        VerifierKey::from_bytes(name, key.as_bytes())
    }

    /// The text of a PEM file with the key, as `openssl pkey -pubout` writes it.
    pub fn to_public_key_pem(&self) -> String {
        self.0.key.to_public_key_pem(LineEnding::LF).expect("an Ed25519 key can be written")
    }

    /// The 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.key.as_bytes()
    }
}

impl NoteVerifier for VerifierKey {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn key_id(&self) -> KeyId {
        self.0.id(ED25519)
    }

    fn verify(&self, text: &str, signature: &[u8]) -> bool {
        self.0.verify(text.as_bytes(), signature)
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    /// Takes exactly what `Display` writes, in at most [`MAX_KEY_LEN`] bytes.
    fn from_str(vkey: &str) -> Result<VerifierKey, KeyError> {
        NamedKey::parse_vkey(vkey, ED25519).map(VerifierKey)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.format_vkey(ED25519))
    }
}

/// An Ed25519 private key that signs notes. Its memory is wiped when it is dropped, and nothing writes it.
pub struct SignerKey {
    name: String,
    key: SigningKey,
}

impl SignerKey {
    /// Reads a private key from the text of a PKCS#8 PEM file, as `openssl genpkey -algorithm ed25519` writes it. The caller wipes the
    /// text.
    pub fn from_pkcs8_pem(name: &str, pem: &str) -> Result<SignerKey, KeyError> {
        if pem.len() > MAX_KEY_LEN {
            return Err(KeyError::TooLong(pem.len()));
        }
        // The cause is not passed on: it could tell of the contents.
        SignerKey::new(name, SigningKey::from_pkcs8_pem(pem).map_err(|_| KeyError::PrivatePem)?)
    }

    /// Makes a key of the 32 bytes that RFC 8032 calls the private key.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<SignerKey, KeyError> {
        SignerKey::new(name, SigningKey::from_bytes(seed))
    }

    fn new(name: &str, key: SigningKey) -> Result<SignerKey, KeyError> {
        let NamedKey { name, .. } = NamedKey::new(name, key.verifying_key())?;
        Ok(SignerKey { name, key })
    }

    /// Name of the key.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public key that verifies what this key signs.
    pub fn verifier(&self) -> VerifierKey {
        VerifierKey(NamedKey { name: self.name.clone(), key: self.key.verifying_key() })
    }

    /// Signs a text. It is the same signature each time.
    pub fn sign(&self, text: &str) -> Signature {
        Signature::new(&self.name, self.verifier().key_id(), self.sign_bytes(text.as_bytes()).to_vec())
    }

    pub(crate) fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for SignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignerKey").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whether a key may have this name: not empty, no white space of Unicode, no `+`, no control characters.
pub fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c == '+' || c < ' ')
}

fn check_characters(text: &str) -> Result<(), NoteError> {
    if text.bytes().any(|byte| byte < b' ' && byte != b'\n') { Err(NoteError::ControlCharacter) } else { Ok(()) }
}

/// Whether the y coordinate, the low 255 bits with the lowest byte first, is below 2^255-19.
fn is_reduced(key: &[u8; 32]) -> bool {
    let high = key[31] & 0x7f == 0x7f && key[1..31].iter().all(|byte| *byte == 0xff);
    !(high && key[0] >= 0xed)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of c2sp.org/signed-note.
    const C2SP_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const C2SP_NOTE: &str = "This is an example message.\n\n\u{2014} example.com/foo \
        Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    // The examples of golang.org/x/mod/sumdb/note.
    const PETER_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const PETER_SEED: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const ENOCH_KEY: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
    const GO_TEXT: &str =
        "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    const PETER_LINE: &str = "\u{2014} PeterNeumann \
        x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    const ENOCH_LINE: &str = "\u{2014} EnochRoot \
        rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";

    fn key(vkey: &str) -> VerifierKey {
        vkey.parse().unwrap()
    }

    fn peter() -> SignerKey {
        let seed = from_base64(PETER_SEED, 33).unwrap();
        SignerKey::from_seed("PeterNeumann", seed[1..].try_into().unwrap()).unwrap()
    }

    fn go_note(lines: &str) -> Result<Note, NoteError> {
        Note::parse(format!("{GO_TEXT}\n{lines}").as_bytes())
    }

    #[test]
    fn example_of_the_standard_opens() {
        let note = Note::parse(C2SP_NOTE.as_bytes()).unwrap();
        let opened = note.open(&[&key(C2SP_KEY)]).unwrap();
        assert_eq!(opened, Opened { text: "This is an example message.\n", signed_by: vec![0] });
        assert_eq!(note.to_string(), C2SP_NOTE);
        assert_eq!(key(C2SP_KEY).to_string(), C2SP_KEY);
    }

    #[test]
    fn example_of_go_is_signed_the_same() {
        let note = Note::sign(GO_TEXT.to_owned(), &[&peter()]).unwrap();
        assert_eq!(note.to_string(), format!("{GO_TEXT}\n{PETER_LINE}"));
        assert_eq!(peter().verifier().to_string(), PETER_KEY);
        assert_eq!(format!("{:?}", peter()), "SignerKey { name: \"PeterNeumann\", .. }");
    }

    #[test]
    fn known_keys_verify_and_unknown_ones_are_ignored() {
        let (peter, enoch, other) = (key(PETER_KEY), key(ENOCH_KEY), key(C2SP_KEY));
        let note = go_note(&format!("{ENOCH_LINE}{PETER_LINE}{PETER_LINE}")).unwrap();
        assert_eq!(note.open(&[&peter]).unwrap().signed_by, [0]);
        assert_eq!(note.open(&[&other, &enoch, &peter]).unwrap().signed_by, [1, 2]);
        assert_eq!(note.open(&[&other]), Err(NoteError::Unsigned));
        assert_eq!(note.open(&[]), Err(NoteError::Unsigned));
        let ambiguous = NoteError::AmbiguousKey("PeterNeumann".to_owned(), peter.key_id());
        assert_eq!(note.open(&[&peter, &enoch, &peter]), Err(ambiguous));
    }

    #[test]
    fn wrong_signature_of_a_known_key_refuses_the_note() {
        let (peter, enoch) = (key(PETER_KEY), key(ENOCH_KEY));
        let note = go_note(&format!("{PETER_LINE}{}", ENOCH_LINE.replace("rwz+eBz", "rwz+eBy"))).unwrap();
        assert!(note.open(&[&peter]).is_ok());
        let wrong = NoteError::WrongSignature("EnochRoot".to_owned(), enoch.key_id());
        assert_eq!(note.open(&[&peter, &enoch]), Err(wrong));
    }

    #[test]
    fn any_flipped_bit_of_text_or_signature_is_refused() {
        let key = key(C2SP_KEY);
        for at in 0..C2SP_NOTE.len() {
            for bit in 0..8 {
                let mut bytes = C2SP_NOTE.as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                assert!(Note::parse(&bytes).is_err() || Note::parse(&bytes).unwrap().open(&[&key]).is_err(), "{at}");
            }
        }
    }

    #[test]
    fn text_may_hold_blank_lines() {
        for text in ["\n", "a\n\nb\n", "a\n\n", "\n\n\na\n", "\u{2014} b c\n"] {
            let note = Note::sign(text.to_owned(), &[&peter()]).unwrap();
            let parsed = Note::parse(note.to_string().as_bytes()).unwrap();
            assert_eq!(parsed, note);
            assert_eq!(parsed.open(&[&key(PETER_KEY)]).unwrap().text, text);
        }
    }

    #[test]
    fn malformed_notes_are_refused() {
        for (note, error) in [
            ("", NoteError::NoSignatures),
            ("a\n", NoteError::NoSignatures),
            ("a\n\n", NoteError::NoSignatures),
            ("a\r\n\n", NoteError::ControlCharacter),
            ("a\n\nb\n", NoteError::SignatureLine(1)),
            ("a\n\n\u{2014} b AAAAAAA=", NoteError::NoSignatures),
            ("a\n\n\u{2014} b AAAAAAA=\n\u{2014} b AAAAAAA=", NoteError::SignatureLine(2)),
            // No bytes behind the key id, stray bits, no padding, two spaces, no space, no name, hyphen for dash.
            ("a\n\n\u{2014} b AAAAAA==\n", NoteError::SignatureLine(1)),
            ("a\n\n\u{2014} b AAAAAAB=\n", NoteError::SignatureLine(1)),
            ("a\n\n\u{2014} b AAAAAAA\n", NoteError::SignatureLine(1)),
            ("a\n\n\u{2014} b  AAAAAAA=\n", NoteError::SignatureLine(1)),
            ("a\n\n\u{2014} b AAAAAAA= \n", NoteError::SignatureLine(1)),
            ("a\n\n\u{2014} bAAAAAAA=\n", NoteError::SignatureLine(1)),
            ("a\n\n\u{2014}  AAAAAAA=\n", NoteError::SignatureLine(1)),
            ("a\n\n- b AAAAAAA=\n", NoteError::SignatureLine(1)),
            ("a\n\n\u{2014} b+c AAAAAAA=\n", NoteError::SignatureLine(1)),
            ("a\n\n\u{2014} b\u{a0}c AAAAAAA=\n", NoteError::SignatureLine(1)),
        ] {
            assert_eq!(Note::parse(note.as_bytes()), Err(error), "{note:?}");
        }
        assert_eq!(Note::parse(b"\xff\n\n"), Err(NoteError::NotUtf8));
        assert_eq!(Note::from_parts("a".to_owned(), vec![peter().sign("a")]), Err(NoteError::UnendedText));
        assert_eq!(Note::sign("a\n".to_owned(), &[]), Err(NoteError::NoSignatures));
        assert_eq!(Note::sign("a\t\n".to_owned(), &[&peter()]), Err(NoteError::ControlCharacter));
    }

    #[test]
    fn size_and_signatures_are_limited() {
        assert_eq!(Note::parse(&vec![b'a'; MAX_LEN + 1]), Err(NoteError::TooLong(MAX_LEN + 1)));
        let mut note = go_note(&PETER_LINE.repeat(MAX_SIGNATURES)).unwrap();
        assert_eq!(note.open(&[&key(PETER_KEY)]).unwrap().signed_by, [0]);
        assert_eq!(note.add(peter().sign(GO_TEXT)), Err(NoteError::TooManySignatures(101)));
        assert_eq!(go_note(&PETER_LINE.repeat(101)), Err(NoteError::TooManySignatures(101)));
        let fits = MAX_LEN - 1 - PETER_LINE.len();
        let text = |len| format!("{}\n", "a".repeat(len - 1));
        let note = Note::sign(text(fits), &[&peter()]).unwrap();
        assert_eq!(note.to_string().len(), MAX_LEN);
        assert_eq!(Note::parse(note.to_string().as_bytes()), Ok(note));
        assert_eq!(Note::sign(text(fits + 1), &[&peter()]), Err(NoteError::TooLong(MAX_LEN + 1)));
    }

    #[test]
    fn no_mangled_public_key_is_taken() {
        for start in 0..=PETER_KEY.len() {
            for end in start..=PETER_KEY.len() {
                let whole = start == 0 && end == PETER_KEY.len();
                assert_eq!(PETER_KEY[start..end].parse::<VerifierKey>().is_ok(), whole);
            }
        }
        for at in 0..PETER_KEY.len() {
            let mut mangled = PETER_KEY.as_bytes().to_vec();
            mangled[at] += 1;
            assert!(String::from_utf8(mangled).unwrap().parse::<VerifierKey>().is_err());
        }
        let refused = |key: &str| key.parse::<VerifierKey>().unwrap_err();
        assert_eq!(refused(&PETER_KEY.replace("c74f20a3", "C74F20A3")), KeyError::Form);
        assert_eq!(refused(&PETER_KEY.replace("+AR", "+BB")), KeyError::Type { expected: 1, found: 4 });
        assert!(matches!(refused(&PETER_KEY.replace("Peter", "peter")), KeyError::WrongId { .. }));
        assert_eq!(refused(&"A".repeat(MAX_KEY_LEN + 1)), KeyError::TooLong(MAX_KEY_LEN + 1));
        assert_eq!(SignerKey::from_seed("a b", &[1; 32]).unwrap_err(), KeyError::Name("a b".to_owned()));
    }

    #[test]
    fn keys_that_anybody_can_sign_for_are_refused() {
        let (mut one, mut zero, mut again) = ([0; 32], [0; 32], [0xff; 32]);
        one[0] = 1;
        zero[31] = 0x80;
        again[0] = 0xee;
        again[31] = 0x7f;
        for weak in [[0; 32], one, zero, again, [0xff; 32]] {
            assert_eq!(VerifierKey::from_bytes("a", &weak), Err(KeyError::NotEd25519));
        }
        // y = 2^255-19+3 is 3 again: not of small order, but spelled twice.
        again[0] = 0xed + 3;
        assert_eq!(VerifierKey::from_bytes("a", &again), Err(KeyError::NotEd25519));
        one[0] = 3;
        assert!(VerifierKey::from_bytes("a", &one).is_ok());
    }

    #[test]
    fn pem_holds_the_keys() {
        // Made with: openssl genpkey -algorithm ed25519; openssl pkey -pubout. For tests only.
        let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            -----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
            -----END PUBLIC KEY-----\n";
        let key = SignerKey::from_pkcs8_pem("a", private).unwrap();
        assert_eq!(key.verifier().to_public_key_pem(), public);
        assert_eq!(VerifierKey::from_public_key_pem("a", public), Ok(key.verifier()));
        for bad in ["", public, "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", &private[..80]] {
            assert_eq!(SignerKey::from_pkcs8_pem("a", bad).unwrap_err(), KeyError::PrivatePem);
        }
        assert_eq!(VerifierKey::from_public_key_pem("a", private), Err(KeyError::PublicPem));
        let long = " ".repeat(MAX_KEY_LEN + 1);
        assert_eq!(SignerKey::from_pkcs8_pem("a", &long).unwrap_err(), KeyError::TooLong(MAX_KEY_LEN + 1));
    }
}

//! Checkpoints: the head of a tree as a few lines of text, to be signed and kept outside.
//!
//! The format is c2sp.org/tlog-checkpoint v1.0.0, a text in a signed note. Whoever keeps one can later hold the log against it. A log
//! must never sign two checkpoints of which none continues the other; that is the duty of the caller, who knows what was signed before.
//! docs/format.md, section 7.

use std::fmt;
use std::str::FromStr;

use crate::note::{self, Note, NoteError, NoteVerifier, SignerKey};
use crate::text::{self, decimal, hash_from_base64, to_base64};
use crate::tree::{TreeHead, TreeSize};

/// The head of a log's tree, and which log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: String,
    head: TreeHead,
    /// Lines behind the root, as others write them; we write none.
    extensions: Vec<String>,
}

/// A text is not a checkpoint, or it is not the log's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The origin cannot name a key: it is empty, or holds white space, `+` or a control character.
    #[error("\"{0}\" is not an origin for a log")]
    Origin(String),
    /// There are too many bytes.
    #[error("the checkpoint has {0} bytes, more than {max}", max = note::MAX_LEN)]
    TooLong(usize),
    /// The text has fewer than three lines, or does not end with a line feed.
    #[error("a checkpoint has at least three lines, each ended by a line feed")]
    Lines,
    /// The text holds a control character.
    #[error("the checkpoint holds a control character")]
    ControlCharacter,
    /// The first line is empty.
    #[error("line 1 of the checkpoint is empty")]
    NoOrigin,
    /// The second line is not a size.
    #[error("line 2 of the checkpoint is not a tree size")]
    Size,
    /// The third line is not a root hash.
    #[error("line 3 of the checkpoint is not a root hash")]
    Root,
    /// A further line is empty; they are counted from 1.
    #[error("line {0} of the checkpoint is empty")]
    EmptyLine(usize),
    /// A checkpoint with extension lines was to be signed.
    #[error("a checkpoint with extension lines cannot be signed")]
    Extensions,
    /// The checkpoint is of another log.
    #[error("the checkpoint is of log \"{found}\", not \"{expected}\"")]
    OtherLog {
        /// Origin of the log that was meant.
        expected: String,
        /// Origin in the checkpoint.
        found: String,
    },
    /// Witnesses have signed the note, the log itself has not.
    #[error("the checkpoint is not signed by the log")]
    NotSignedByLog,
    /// The signed note is malformed, or not signed as it should be.
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// A checkpoint whose signatures were verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedCheckpoint {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Which of the given witnesses have cosigned it, as places in their list, ascending.
    pub witnesses: Vec<usize>,
}

impl Checkpoint {
    /// Makes a checkpoint. The origin must be fit to be the name of a key, as it should also be the name of the key that signs.
    pub fn new(origin: &str, head: TreeHead) -> Result<Checkpoint, CheckpointError> {
        if !note::is_key_name(origin) {
            return Err(CheckpointError::Origin(origin.chars().take(80).collect()));
        }
        Ok(Checkpoint { origin: origin.to_owned(), head, extensions: Vec::new() })
    }

    /// Which log.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Size and root of its tree.
    pub fn head(&self) -> &TreeHead {
        &self.head
    }

    /// The lines behind the root. Of them nothing is known here.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }

    /// Signs the checkpoint with each of the keys; there must be at least one. Extension lines are refused: no witness could judge them.
    pub fn sign(&self, keys: &[&SignerKey]) -> Result<Note, CheckpointError> {
        if !self.extensions.is_empty() {
            return Err(CheckpointError::Extensions);
        }
        Ok(Note::sign(self.to_string(), keys)?)
    }

    /// Verifies the signature of the log, and those of the witnesses that are there, and reads the checkpoint. The caller judges whether
    /// the witnesses suffice.
    pub fn open(
        note: &Note,
        origin: &str,
        log: &dyn NoteVerifier,
        witnesses: &[&dyn NoteVerifier],
    ) -> Result<OpenedCheckpoint, CheckpointError> {
        let opened = note.open(&[&[log], witnesses].concat())?;
        if !opened.signed_by.contains(&0) {
            return Err(CheckpointError::NotSignedByLog);
        }
        let checkpoint: Checkpoint = opened.text.parse()?;
        if checkpoint.origin != origin {
            return Err(CheckpointError::OtherLog { expected: origin.to_owned(), found: checkpoint.origin });
        }
        let witnesses = opened.signed_by[1..].iter().map(|place| place - 1).collect();
        Ok(OpenedCheckpoint { checkpoint, witnesses })
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    /// Reads the text of a checkpoint, without signatures, of at most [`note::MAX_LEN`] bytes. It takes exactly what `Display` writes.
    fn from_str(text: &str) -> Result<Checkpoint, CheckpointError> {
        if text.len() > note::MAX_LEN {
            return Err(CheckpointError::TooLong(text.len()));
        }
        if text.bytes().any(|byte| byte < b' ' && byte != b'\n') {
            return Err(CheckpointError::ControlCharacter);
        }
        let mut lines = text::lines(text).ok_or(CheckpointError::Lines)?;
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(CheckpointError::Lines);
        };
        if origin.is_empty() {
            return Err(CheckpointError::NoOrigin);
        }
        let size = decimal(size).and_then(|size| TreeSize::new(size).ok()).ok_or(CheckpointError::Size)?;
        let root = hash_from_base64(root).ok_or(CheckpointError::Root)?;
        let extensions = lines
            .enumerate()
            .map(|(i, line)| if line.is_empty() { Err(CheckpointError::EmptyLine(i + 4)) } else { Ok(line.to_owned()) })
            .collect::<Result<_, _>>()?;
        Ok(Checkpoint { origin: origin.to_owned(), head: TreeHead { size, root }, extensions })
    }
}

impl fmt::Display for Checkpoint {
    /// Writes the text, each line ended by a line feed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.head.size, to_base64(self.head.root.as_bytes()))?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Lets a text end with one line feed: for checkpoints and proofs that went through other hands. psql adds one to what it prints; shells, and psql's backquotes,
/// take them away from what they read. The readers of these forms refuse both.
pub fn end_with_one_line_feed(text: &mut Vec<u8>) {
    let end = text.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| last + 1);
    text.truncate(end);
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosignature::WitnessSignerKey;

    // The example of c2sp.org/tlog-checkpoint.
    const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    fn example() -> Checkpoint {
        EXAMPLE.parse().unwrap()
    }

    fn signer(name: &str, seed: u8) -> SignerKey {
        SignerKey::from_seed(name, &[seed; 32]).unwrap()
    }

    #[test]
    fn example_of_the_standard_is_read_and_written() {
        assert_eq!(example().origin(), "example.com/behind-the-sofa");
        assert_eq!(example().head().size.get(), 20_852_163);
        let root = "0ac5186a91863e8e1d90c808014aa89bf5da8e3ee1d9f07630f0378f68f1ab62";
        assert_eq!(example().head().root.to_string(), root);
        assert_eq!(example().to_string(), EXAMPLE);
        assert_eq!(Checkpoint::new(example().origin(), *example().head()), Ok(example()));
    }

    #[test]
    fn empty_tree_has_size_0() {
        let text = Checkpoint::new("a", TreeHead::empty()).unwrap().to_string();
        assert_eq!(text, "a\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n");
    }

    #[test]
    fn line_feeds_at_the_end_are_put_right_and_nothing_else() {
        let signed = example().sign(&[&signer("example.com/behind-the-sofa", 1)]).unwrap().to_string();
        for good in [EXAMPLE, &signed, "\n"] {
            for end in ["", "\n", "\n\n\n"] {
                let mut text = format!("{}{end}", good.trim_end_matches('\n')).into_bytes();
                end_with_one_line_feed(&mut text);
                assert_eq!(text, good.as_bytes());
            }
        }
        let mut text = b"a\n\nb \r".to_vec();
        end_with_one_line_feed(&mut text);
        assert_eq!(text, b"a\n\nb \r\n");
    }

    #[test]
    fn malformed_checkpoints_are_refused() {
        let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
        for (text, error) in [
            (String::new(), CheckpointError::Lines),
            ("a\n1\n".to_owned(), CheckpointError::Lines),
            (format!("a\n1\n{root}"), CheckpointError::Lines),
            (format!("\n1\n{root}\n"), CheckpointError::NoOrigin),
            (format!("a\n01\n{root}\n"), CheckpointError::Size),
            (format!("a\n+1\n{root}\n"), CheckpointError::Size),
            (format!("a\n\n{root}\n"), CheckpointError::Size),
            (format!("a\n9223372036854775808\n{root}\n"), CheckpointError::Size),
            (format!("a\n1\n{}\n", &root[1..]), CheckpointError::Root),
            (format!("a\n1\n{}\n", &root[..43]), CheckpointError::Root),
            (format!("a\n1\n{}\n", root.replace("2I=", "2J=")), CheckpointError::Root),
            (format!("a\n1\n {root}\n"), CheckpointError::Root),
            (format!("a\n1\nAAAA{root}\n"), CheckpointError::Root),
            (format!("a\n1\n{root}\n\n"), CheckpointError::EmptyLine(4)),
            (format!("a\n1\n{root}\nx\n\ny\n"), CheckpointError::EmptyLine(5)),
            (format!("a\n1\r\n{root}\n"), CheckpointError::ControlCharacter),
            ("a".repeat(note::MAX_LEN + 1), CheckpointError::TooLong(note::MAX_LEN + 1)),
        ] {
            assert_eq!(text.parse::<Checkpoint>(), Err(error), "{text:.60}");
        }
        assert_eq!(Checkpoint::new("a b", TreeHead::empty()), Err(CheckpointError::Origin("a b".to_owned())));
    }

    #[test]
    fn extension_lines_are_read_and_never_signed() {
        let text = format!("{EXAMPLE}an extension\n");
        let checkpoint: Checkpoint = text.parse().unwrap();
        assert_eq!(checkpoint.extensions(), ["an extension"]);
        assert_eq!(checkpoint.to_string(), text);
        assert_eq!(checkpoint.sign(&[&signer("a", 1)]), Err(CheckpointError::Extensions));
    }

    #[test]
    fn checkpoint_opens_with_the_key_of_its_log_only() {
        let checkpoint = example();
        let (log, other) = (signer(checkpoint.origin(), 1), signer("other", 2));
        let witness = WitnessSignerKey::new(signer("witness", 3));
        let mut note = checkpoint.sign(&[&log]).unwrap();
        note.add(witness.cosign(&checkpoint, 1_700_000_000).unwrap()).unwrap();
        let open = |origin, key: &SignerKey| {
            Checkpoint::open(&note, origin, &key.verifier(), &[&other.verifier(), &witness.verifier()])
        };
        let origin = checkpoint.origin();
        assert_eq!(open(origin, &log), Ok(OpenedCheckpoint { checkpoint: checkpoint.clone(), witnesses: vec![1] }));
        assert_eq!(open(origin, &signer("third", 4)), Err(CheckpointError::NotSignedByLog));
        let other_log = CheckpointError::OtherLog { expected: "b".to_owned(), found: origin.to_owned() };
        assert_eq!(open("b", &log), Err(other_log));
    }
}

//! The hash of an entry: SHA-256 of its line.
//!
//! This module knows nothing of what a line says; see `entry` and docs/format.md, section 1.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};

/// SHA-256 of an entry's line. Ordered by its bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 32]);

impl Hash {
    /// What `prev` says in the first entry of a chain: 32 zero bytes.
    pub const GENESIS: Hash = Hash([0; 32]);

    /// Hashes a line, given without a line feed at its end.
    pub fn of(line: &[u8]) -> Hash {
        Hash(Sha256::digest(line).into())
    }

    /// Hashes what is in a buffer, which needs some room behind it and is the same afterwards. Lines are hashed by the million, and this way they are not copied block by block.
    pub(crate) fn of_buffer(buffer: &mut Vec<u8>) -> Hash {
        let length = pad(buffer);
        let hash = Hash::of_blocks(buffer.as_chunks::<64>().0);
        buffer.truncate(length);
        hash
    }

    /// Hashes what is in several buffers, as [`Hash::of_buffer`] does, two at a time. Of each the first block is hashed already.
    pub(crate) fn of_begun<const N: usize>(buffers: &mut [Vec<u8>; N], begun: &[Begun; N], count: usize) -> [Hash; N] {
        let mut lengths = [0; N];
        let mut texts = [Text { at: 0, state: INITIAL, blocks: &[] }; N];
        let waiting = buffers.iter_mut().zip(begun).zip(texts.iter_mut().zip(&mut lengths)).take(count);
        for (at, ((buffer, Begun(state)), (text, length))) in waiting.enumerate() {
            *length = pad(buffer);
            *text = Text { at, state: *state, blocks: &buffer.as_chunks().0[1..] };
        }
        let mut hashes = [Hash::GENESIS; N];
        hash_each(&texts[..count], |at, state| hashes[at] = Hash::of_state(state));
        buffers.iter_mut().zip(lengths).take(count).for_each(|(buffer, length)| buffer.truncate(length));
        hashes
    }

    /// [`Hash::of_short`] for two at once.
    pub(crate) fn of_two_short<const N: usize>(first: [u8; N], second: [u8; N]) -> [Hash; 2] {
        let ((first, count), (second, _)) = (pad_short(first), pad_short(second));
        Hash::of_two(&first[..count], &second[..count])
    }

    fn of_two(first: &[[u8; 64]], second: &[[u8; 64]]) -> [Hash; 2] {
        let mut states = [INITIAL; 2];
        let mut both = 0;
        if let Some(compress) = COMPRESS_PAIR.get() {
            both = first.len().min(second.len());
            compress(&mut states, &first[..both], &second[..both]);
        }
        let [mut one, mut other] = states;
        compress256(&mut one, &first[both..]);
        compress256(&mut other, &second[both..]);
        [Hash::of_state(one), Hash::of_state(other)]
    }

    /// Hashes up to 119 bytes, which with their padding are one block or two. Trees hash millions of such texts, and most of the time that the general way takes for one
    /// is not spent on hashing.
    pub(crate) fn of_short<const N: usize>(data: [u8; N]) -> Hash {
        let (blocks, count) = pad_short(data);
        Hash::of_blocks(&blocks[..count])
    }

    /// Hashes a text with its padding (FIPS 180-4, 5.1.1).
    fn of_blocks(blocks: &[[u8; 64]]) -> Hash {
        let mut state = INITIAL;
        compress256(&mut state, blocks);
        Hash::of_state(state)
    }

    fn of_state(state: [u32; 8]) -> Hash {
        let mut hash = [0; 32];
        for (bytes, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(state) {
            *bytes = word.to_be_bytes();
        }
        Hash(hash)
    }

    /// The 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Appends the 64 lower-case hex digits of the hash.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        // Without a table, so that the compiler can do it for 16 bytes at a time.
        let digit = |value: u8| value + if value < 10 { b'0' } else { b'a' - 10 };
        let mut text = [0; 64];
        for (pair, byte) in text.as_chunks_mut().0.iter_mut().zip(self.0) {
            *pair = [digit(byte >> 4), digit(byte & 15)];
        }
        out.extend_from_slice(&text);
    }
}

/// What SHA-256 has come to after the first 64 bytes of a text: texts that begin alike need these hashed only once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun([u32; 8]);

impl Default for Begun {
    /// After nothing.
    fn default() -> Begun {
        Begun(INITIAL)
    }
}

impl Begun {
    pub(crate) fn with(block: &[u8; 64]) -> Begun {
        let mut state = INITIAL;
        compress256(&mut state, std::slice::from_ref(block));
        Begun(state)
    }
}

/// A text that is being hashed, and what of it remains.
#[derive(Clone, Copy)]
struct Text<'a> {
    at: usize,
    state: [u32; 8],
    blocks: &'a [[u8; 64]],
}

/// Hashes texts of different lengths, two at a time as long as there are two. `each` is told the place of each and its state at the end.
fn hash_each(texts: &[Text<'_>], mut each: impl FnMut(usize, [u32; 8])) {
    let mut rest = texts.iter().copied();
    let mut lanes = [None, None];
    if let Some(compress) = COMPRESS_PAIR.get() {
        lanes = [rest.next(), rest.next()];
        while let [Some(one), Some(other)] = &mut lanes {
            let both = one.blocks.len().min(other.blocks.len());
            let mut states = [one.state, other.state];
            compress(&mut states, &one.blocks[..both], &other.blocks[..both]);
            [one.state, other.state] = states;
            for lane in &mut lanes {
                if let Some(text) = lane {
                    text.blocks = &text.blocks[both..];
                    if text.blocks.is_empty() {
                        each(text.at, text.state);
                        *lane = rest.next();
                    }
                }
            }
        }
    }
    for mut text in lanes.into_iter().flatten().chain(rest) {
        compress256(&mut text.state, text.blocks);
        each(text.at, text.state);
    }
}

/// Adds the padding of a text, and gives its length without.
fn pad(buffer: &mut Vec<u8>) -> usize {
    let length = buffer.len();
    buffer.push(0x80);
    buffer.resize((length + 9).next_multiple_of(64) - 8, 0);
    buffer.extend_from_slice(&(8 * length as u64).to_be_bytes());
    length
}

/// A short text with its padding, and in how many blocks.
fn pad_short<const N: usize>(data: [u8; N]) -> ([[u8; 64]; 2], usize) {
    const { assert!(N < 120, "two blocks have room for that") };
    let mut blocks = [[0; 64]; 2];
    let bytes = blocks.as_flattened_mut();
    bytes[..N].copy_from_slice(&data);
    bytes[N] = 0x80;
    let end = if N < 56 { 64 } else { 128 };
    bytes[end - 8..end].copy_from_slice(&(8 * N as u64).to_be_bytes());
    (blocks, end / 64)
}

/// Takes the blocks of two texts, as many of each, into the states of two SHA-256.
pub type CompressPair = fn(&mut [[u32; 8]; 2], &[[u8; 64]], &[[u8; 64]]);

/// What hashes two texts at once; without it they are hashed one after the other.
static COMPRESS_PAIR: OnceLock<CompressPair> = OnceLock::new();

/// Gives this crate, which has no code for special processors, one that compresses two texts at once. It is tried out, and not used when it is wrong; says whether it is used. Verification takes it for
/// what it verifies by the million; nothing else does.
pub fn use_for_pairs(compress: CompressPair) -> bool {
    let block = |seed: usize| -> [[u8; 64]; 2] {
        let mut blocks = [[0; 64]; 2];
        blocks.as_flattened_mut().iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * seed) as u8);
        blocks
    };
    let (first, second) = (block(7), block(11));
    let mut states = [INITIAL; 2];
    compress(&mut states, &first, &second);
    let mut expected = [INITIAL; 2];
    compress256(&mut expected[0], &first);
    compress256(&mut expected[1], &second);
    states == expected && (COMPRESS_PAIR.set(compress).is_ok() || COMPRESS_PAIR.get().is_some())
}

/// What SHA-256 begins with (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];

/// The text or the bytes are not a hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseHashError {
    /// The text is not 64 lower-case hex digits.
    #[error("a hash is 64 lower-case hex digits")]
    Text,
    /// There are not 32 bytes, but as many as said here.
    #[error("a hash has 32 bytes, not {0}")]
    Length(usize),
}

impl From<[u8; 32]> for Hash {
    fn from(bytes: [u8; 32]) -> Hash {
        Hash(bytes)
    }
}

impl TryFrom<&[u8]> for Hash {
    type Error = ParseHashError;

    /// Takes exactly 32 bytes; any other number is [`ParseHashError::Length`].
    fn try_from(bytes: &[u8]) -> Result<Hash, ParseHashError> {
        bytes.try_into().map(Hash).map_err(|_| ParseHashError::Length(bytes.len()))
    }
}

impl FromStr for Hash {
    type Err = ParseHashError;

    /// Takes exactly what `Display` writes: 64 lower-case hex digits; all else is [`ParseHashError::Text`].
    fn from_str(text: &str) -> Result<Hash, ParseHashError> {
        let text: &[u8; 64] = text.as_bytes().try_into().map_err(|_| ParseHashError::Text)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Hash(bytes))
    }
}

/// The value of a hex digit. Capitals are refused: with them one hash would have many texts.
fn nibble(digit: u8) -> Result<u8, ParseHashError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(ParseHashError::Text),
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(64);
        self.write(&mut text);
        f.pad(std::str::from_utf8(&text).expect("hex digits are ASCII"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_sha256_of_the_line() {
        // FIPS 180-4 example "abc".
        assert_eq!(Hash::of(b"abc").to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn short_texts_have_the_same_hash() {
        assert_eq!(Hash::of_short([]), Hash::of(b""));
        assert_eq!(Hash::of_short([7; 33]), Hash::of(&[7; 33]));
        assert_eq!(Hash::of_short([7; 55]), Hash::of(&[7; 55]));
        assert_eq!(Hash::of_short([7; 56]), Hash::of(&[7; 56]));
        assert_eq!(Hash::of_short([7; 65]), Hash::of(&[7; 65]));
        assert_eq!(Hash::of_short([7; 119]), Hash::of(&[7; 119]));
    }

    #[test]
    fn buffers_of_all_lengths_have_the_same_hash() {
        for length in 0..300 {
            let text: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let mut buffer = text.clone();
            assert_eq!(Hash::of_buffer(&mut buffer), Hash::of(&text));
            assert_eq!(buffer, text);
        }
    }

    #[test]
    fn texts_hashed_together_have_the_hashes_of_each() {
        fn pair(states: &mut [[u32; 8]; 2], first: &[[u8; 64]], second: &[[u8; 64]]) {
            compress256(&mut states[0], first);
            compress256(&mut states[1], second);
        }
        fn wrong(states: &mut [[u32; 8]; 2], first: &[[u8; 64]], second: &[[u8; 64]]) {
            pair(states, second, first);
        }
        let check = || {
            for lengths in [[64, 64, 64, 64], [64, 300, 64, 500], [500, 64, 119, 120], [119, 120, 121, 64]] {
                let texts: [Vec<u8>; 4] = lengths.map(|length| (0..length).map(|at| (at * length) as u8).collect());
                let begun = [0, 1, 2, 3].map(|text| Begun::with(texts[text].first_chunk().unwrap()));
                for count in 0..=4 {
                    let mut buffers = texts.clone();
                    let hashes = Hash::of_begun(&mut buffers, &begun, count);
                    assert!(hashes.iter().zip(&texts).take(count).all(|(hash, text)| *hash == Hash::of(text)));
                    assert_eq!(buffers, texts);
                }
            }
            assert_eq!(Hash::of_two_short([1; 33], [2; 33]), [Hash::of(&[1; 33]), Hash::of(&[2; 33])]);
            assert_eq!(Hash::of_two_short([1; 65], [2; 65]), [Hash::of(&[1; 65]), Hash::of(&[2; 65])]);
        };
        check();
        assert!(!use_for_pairs(wrong));
        check();
        assert!(use_for_pairs(pair));
        check();
    }

    #[test]
    fn text_round_trips() {
        let hash = Hash::of(b"x");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(Hash::GENESIS.to_string(), "0".repeat(64));
        assert_eq!(format!("{hash:?}"), hash.to_string());
    }

    #[test]
    fn only_64_lower_case_hex_digits_are_a_hash() {
        let text = Hash::of(b"abc").to_string();
        for bad in [
            text.to_uppercase(),
            text[..63].to_owned(),
            format!("{text}0"),
            format!(" {}", &text[1..]),
            text.replace('b', "g"),
            String::new(),
        ] {
            assert_eq!(bad.parse::<Hash>(), Err(ParseHashError::Text), "{bad}");
        }
    }

    #[test]
    fn only_32_bytes_are_a_hash() {
        assert_eq!(Hash::try_from(&[0u8; 32][..]), Ok(Hash::GENESIS));
        assert_eq!(Hash::try_from(&[0u8; 31][..]), Err(ParseHashError::Length(31)));
        assert_eq!(Hash::try_from(&[0u8; 33][..]), Err(ParseHashError::Length(33)));
    }
}

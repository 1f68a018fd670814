//! Numbers and bytes in the text formats of C2SP: decimal without leading zeros, base64 in its one form (RFC 4648, section 4, with
//! padding).
//!
//! Each value has one text, so that whatever was read is written back as it was.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::tree::NodeHash;

/// The length of 32 bytes in base64.
pub(crate) const HASH_LEN: usize = 44;

/// The number that is written as `text`; `None` for signs, leading zeros, and anything above 2^64-1.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || !text.starts_with('0');
    if canonical && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

/// The bytes as base64.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes that are written as `text`; `None` for more than `most` bytes, white space, missing padding, and bits that belong to no byte.
pub(crate) fn from_base64(text: &str, most: usize) -> Option<Vec<u8>> {
    if text.len() > most.div_ceil(3) * 4 {
        return None;
    }
    STANDARD.decode(text).ok().filter(|bytes| bytes.len() <= most)
}

/// The hash that is written as `text`.
pub(crate) fn hash_from_base64(text: &str) -> Option<NodeHash> {
    NodeHash::try_from(from_base64(text, 32)?.as_slice()).ok()
}

/// The lines of a text, without their line feeds; `None` when the last one has no line feed. A text without lines has none.
pub(crate) fn lines(text: &str) -> Option<impl Iterator<Item = &str>> {
    let text = match text {
        "" => None,
        _ => Some(text.strip_suffix('\n')?),
    };
    Some(text.into_iter().flat_map(|text| text.split('\n')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_one_text() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("18446744073709551615"), Some(u64::MAX));
        for bad in ["", "00", "007", "+1", "-1", " 1", "1 ", "1_0", "0x1", "18446744073709551616", "٣"] {
            assert_eq!(decimal(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_byte_string_has_one_base64() {
        assert_eq!(from_base64("AAE=", 2), Some(vec![0, 1]));
        assert_eq!(from_base64("", 0), Some(vec![]));
        // Stray bits, padding missing or too much, white space, the other alphabet.
        for bad in ["AAF=", "AAE", "AAE==", "AAE=\n", "AA\r\nE=", " AAE=", "__8=", "A", "===="] {
            assert_eq!(from_base64(bad, 9), None, "{bad}");
        }
    }

    #[test]
    fn long_base64_is_refused() {
        assert_eq!(from_base64("AAAA", 3), Some(vec![0; 3]));
        assert_eq!(from_base64("AAAA", 2), None);
        assert_eq!(from_base64("AAAAAA==", 3), None);
    }

    #[test]
    fn lines_end_with_a_line_feed() {
        let lines = |text| lines(text).map(|lines| lines.collect::<Vec<_>>());
        assert_eq!(lines(""), Some(vec![]));
        assert_eq!(lines("\n"), Some(vec![""]));
        assert_eq!(lines("a\n\nb\n"), Some(vec!["a", "", "b"]));
        assert_eq!(lines("a"), None);
    }
}

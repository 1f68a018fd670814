//! Reading the lines of an exported log, one at a time.
//!
//! A line that has neither form is given on as it is: that it is no entry is for the ledger to say.

use std::io::{self, BufRead, Read};

use audit_ledger::Hash;

/// The longest line that is read: 2 GiB, twice the longest text that PostgreSQL can hold, and so more than `audit.export()` can give.
pub(crate) const MAX_LINE: u64 = 2 << 30;

/// What stands in a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// A hash, a space, and the line of an entry or a seal.
    Hashed(Hash, &'a [u8]),
    /// The line alone, or anything else.
    Bare(&'a [u8]),
}

/// A line and its number in the file, from 1.
pub(crate) struct Numbered<'a> {
    pub(crate) number: u64,
    pub(crate) content: Line<'a>,
}

/// The lines of a file. Keeps one line at a time.
pub(crate) struct Lines<R> {
    input: R,
    max: u64,
    number: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(input: R) -> Lines<R> {
        Lines { input, max: MAX_LINE, number: 0, buffer: Vec::new() }
    }

    /// The next line; `None` at the end. A line longer than [`MAX_LINE`] is an error of kind `InvalidData`.
    pub(crate) fn next(&mut self) -> io::Result<Option<Numbered<'_>>> {
        self.buffer.clear();
        // One byte more for the line feed.
        let mut limited = (&mut self.input).take(self.max + 1);
        if limited.read_until(b'\n', &mut self.buffer)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.buffer.last() == Some(&b'\n') {
            self.buffer.pop();
        } else if self.buffer.len() as u64 > self.max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("line {} is longer than {} bytes", self.number, self.max),
            ));
        }
        Ok(Some(Numbered { number: self.number, content: split(&self.buffer) }))
    }
}

/// Whether the line is that of a seal: it has `"seal"` behind `"ledger"`, where an entry has `"chain"`. Whether it is a good one, only reading it tells.
pub(crate) fn is_seal(line: &[u8]) -> bool {
    let seal = || {
        let (version, rest) = line.split_at_checked(17)?;
        let (_, rest) = rest.split_at_checked(36)?;
        Some(version == b"{\"v\":1,\"ledger\":\"" && rest.starts_with(b"\",\"seal\":"))
    };
    seal() == Some(true)
}

fn split(line: &[u8]) -> Line<'_> {
    let hashed = || {
        let (hash, rest) = line.split_at_checked(64)?;
        let hash = str::from_utf8(hash).ok()?.parse().ok()?;
        Some(Line::Hashed(hash, rest.strip_prefix(b" ")?))
    };
    hashed().unwrap_or(Line::Bare(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_64_hex_digits_and_a_space() {
        let hash = Hash::of(b"{}");
        assert_eq!(split(format!("{hash} {{}}").as_bytes()), Line::Hashed(hash, b"{}"));
        assert_eq!(split(format!("{hash} ").as_bytes()), Line::Hashed(hash, b""));
        for bare in [
            "{}".to_owned(),
            String::new(),
            hash.to_string(),
            format!("{hash}\t{{}}"),
            format!("{hash}{{}}"),
            format!(" {hash} {{}}"),
            format!("{} {{}}", hash.to_string().to_uppercase()),
            "é".repeat(40),
        ] {
            assert_eq!(split(bare.as_bytes()), Line::Bare(bare.as_bytes()));
        }
    }

    #[test]
    fn a_seal_is_told_from_an_entry_by_its_third_member() {
        let line = |third: &str| format!("{{\"v\":1,\"ledger\":\"0b8f4f0e-7d0e-4c58-9d2a-0c6f6f1f5a11\",{third}");
        assert!(is_seal(line("\"seal\":\"1\"").as_bytes()));
        for no in ["", "{}", &line("\"chain\":1,\"seal\":1"), &line("\"seal\"")] {
            assert!(!is_seal(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn too_long_a_line_is_refused() {
        let mut lines = Lines::new(&b"1234\n12345\n"[..]);
        lines.max = 4;
        assert_eq!(lines.next().unwrap().unwrap().content, Line::Bare(b"1234"));
        assert_eq!(lines.next().err().unwrap().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn last_line_needs_no_line_feed() {
        let mut lines = Lines::new(&b"a\n\nb"[..]);
        for (number, text) in [(1, &b"a"[..]), (2, b""), (3, b"b")] {
            let line = lines.next().unwrap().unwrap();
            assert_eq!((line.number, line.content), (number, Line::Bare(text)));
        }
        assert!(lines.next().unwrap().is_none());
    }
}

//! Writing and reading the JSON of an entry's line.
//!
//! There is one way to write a string (docs/format.md, section 2.1), and it is here. The reader is strict and does not recurse: values of
//! json columns come from users and may be nested as deep as memory allows. It gives back texts, not values: `1e400` and duplicate
//! names inside a value stay as they are. This module knows nothing of entries.

use std::borrow::Cow;

/// Appends `s` as a JSON string, quotes included. The caller has made sure that `s` is UTF-8.
pub fn push_string(out: &mut Vec<u8>, s: &[u8]) {
    out.push(b'"');
    push_escaped(out, s);
    out.push(b'"');
}

/// Appends a JSON text with each line feed and carriage return replaced by a space. In a valid JSON text they can only stand
/// between tokens, so its meaning stays.
pub fn push_one_line(out: &mut Vec<u8>, json_text: &[u8]) {
    let start = out.len();
    out.extend_from_slice(json_text);
    for byte in &mut out[start..] {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

/// Appends the value of a json or jsonb column: as [`push_one_line`], and the text `null` with a space before it, so that it
/// differs from SQL NULL.
pub fn push_json_value(out: &mut Vec<u8>, json_text: &[u8]) {
    if json_text == b"null" {
        out.push(b' ');
    }
    push_one_line(out, json_text);
}

/// The text is not JSON as it was expected here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} was expected at byte {at} of the text")]
pub struct JsonError {
    /// Where, in bytes from the start of the text.
    pub at: usize,
    /// What should have stood there.
    pub what: &'static str,
}

/// Reads an object of columns (docs/format.md, section 2.2): the names, unescaped, and the text of each value exactly as it stands
/// between `:` and `,` or `}`, white space included.
///
/// The whole text is checked before the first member is given out. An error is: no white space may stand around names, and names must be written as
/// [`push_string`] writes them; values may be any JSON on one line. Depth is limited by memory only, one byte a level.
pub fn members(text: &str) -> Result<Members<'_>, JsonError> {
    let mut scanner = Scanner::columns(text);
    while scanner.next_member()?.is_some() {}
    Ok(Members { scanner: Scanner::columns(text) })
}

/// The members of an object, see [`members`].
#[derive(Clone, Debug)]
pub struct Members<'a> {
    scanner: Scanner<'a>,
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let member = self.scanner.next_member().expect("the text was checked by members()")?;
        let name = member.name().expect("the text was checked by members()");
        Some((name, member.value))
    }
}

/// Checks that the text is a JSON object (RFC 8259), white space and line feeds allowed wherever JSON allows them.
pub fn validate_object(text: &str) -> Result<(), JsonError> {
    validate(Scanner::new(text, Layout::Free))
}

/// As [`validate_object`], and without line feed or carriage return.
pub(crate) fn validate_one_line_object(text: &str) -> Result<(), JsonError> {
    validate(Scanner::new(text, Layout::OneLine))
}

fn validate(mut scanner: Scanner<'_>) -> Result<(), JsonError> {
    while scanner.next_member()?.is_some() {}
    Ok(())
}

/// One member of an object, as it stands in the text.
pub(crate) struct RawMember<'a> {
    /// The name as written, without its quotes.
    pub(crate) raw_name: &'a str,
    has_escape: bool,
    /// The value as written.
    pub(crate) value: &'a str,
}

impl<'a> RawMember<'a> {
    /// The name without escapes.
    pub(crate) fn name(&self) -> Result<Cow<'a, str>, JsonError> {
        if self.has_escape { unescape(self.raw_name) } else { Ok(Cow::Borrowed(self.raw_name)) }
    }
}

/// The string that is written as `value`, quotes included; `None` when it is not a string. `value` must come from a [`Scanner`].
pub(crate) fn string_value(value: &str) -> Option<Cow<'_, str>> {
    let raw = value.strip_prefix('"')?.strip_suffix('"')?;
    unescape(raw).ok()
}

/// Where white space may stand in the object that a [`Scanner`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Nowhere.
    Compact,
    /// Only inside and around values, names as we write them, all on one line.
    Columns,
    /// Wherever JSON allows it, but on one line.
    OneLine,
    /// Wherever JSON allows it.
    Free,
}

/// Reads one object, member by member.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    layout: Layout,
    state: State,
    /// The closing brackets that are still to come, inner last: the stack of a parser, on the heap.
    closing: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Inside,
    End,
}

impl<'a> Scanner<'a> {
    /// A reader of an object of columns; see [`members`].
    pub(crate) fn columns(text: &'a str) -> Scanner<'a> {
        Scanner::new(text, Layout::Columns)
    }

    /// A reader of an object without white space.
    pub(crate) fn compact(text: &'a str) -> Scanner<'a> {
        Scanner::new(text, Layout::Compact)
    }

    fn new(text: &'a str, layout: Layout) -> Scanner<'a> {
        Scanner { text, at: 0, layout, state: State::Start, closing: Vec::new() }
    }

    /// The next member; `None` when the object and the text have ended.
    ///
    /// After an error the scanner must not be used again.
    pub(crate) fn next_member(&mut self) -> Result<Option<RawMember<'a>>, JsonError> {
        match self.state {
            State::End => return Ok(None),
            State::Start => {
                self.outer_space()?;
                self.expect(b'{', "{")?;
                self.outer_space()?;
                if self.peek() == Some(b'}') {
                    self.at += 1;
                    return self.end();
                }
                self.state = State::Inside;
            }
            State::Inside => match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.outer_space()?;
                }
                Some(b'}') => {
                    self.at += 1;
                    return self.end();
                }
                _ => return Err(self.error(", or }")),
            },
        }
        let name_at = self.at;
        let has_escape = self.string()?;
        let raw_name = &self.text[name_at + 1..self.at - 1];
        if has_escape && self.layout == Layout::Columns && !is_canonical(raw_name) {
            self.at = name_at;
            return Err(self.error("a name in its only form"));
        }
        self.outer_space()?;
        self.expect(b':', ":")?;
        let value_at = self.at;
        self.value()?;
        self.space()?;
        Ok(Some(RawMember { raw_name, has_escape, value: &self.text[value_at..self.at] }))
    }

    fn end(&mut self) -> Result<Option<RawMember<'a>>, JsonError> {
        self.state = State::End;
        self.outer_space()?;
        if self.at < self.text.len() {
            return Err(self.error("end of text"));
        }
        Ok(None)
    }

    /// Passes one value of any kind, with the white space before it.
    fn value(&mut self) -> Result<(), JsonError> {
        loop {
            self.space()?;
            match self.peek() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal("true")?,
                Some(b'f') => self.literal("false")?,
                Some(b'n') => self.literal("null")?,
                Some(b'{') => {
                    self.at += 1;
                    self.space()?;
                    if self.peek() == Some(b'}') {
                        self.at += 1;
                    } else {
                        self.closing.push(b'}');
                        self.inner_name()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    self.space()?;
                    if self.peek() == Some(b']') {
                        self.at += 1;
                    } else {
                        self.closing.push(b']');
                        continue;
                    }
                }
                _ => return Err(self.error("a value")),
            }
            // A value has ended: close what ends with it, or go on to the next one at the same level.
            loop {
                let Some(&closing) = self.closing.last() else {
                    return Ok(());
                };
                self.space()?;
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        if closing == b'}' {
                            self.space()?;
                            self.inner_name()?;
                        }
                        break;
                    }
                    Some(byte) if byte == closing => {
                        self.at += 1;
                        self.closing.pop();
                    }
                    _ => return Err(self.error("a comma or the closing bracket")),
                }
            }
        }
    }

    /// Passes the name of a member inside a value, and its colon.
    fn inner_name(&mut self) -> Result<(), JsonError> {
        self.string()?;
        self.space()?;
        self.expect(b':', ":")
    }

    /// Passes a string; says whether it holds an escape.
    fn string(&mut self) -> Result<bool, JsonError> {
        self.expect(b'"', "a string")?;
        let bytes = self.text.as_bytes();
        let mut has_escape = false;
        loop {
            self.at = first_special(&bytes[self.at..]).map_or(bytes.len(), |run| self.at + run);
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(has_escape);
                }
                Some(b'\\') => {
                    has_escape = true;
                    self.at += 1;
                    match self.peek() {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                        Some(b'u') => {
                            self.at += 1;
                            for _ in 0..4 {
                                if !self.peek().is_some_and(|b| b.is_ascii_hexdigit()) {
                                    return Err(self.error("a hex digit"));
                                }
                                self.at += 1;
                            }
                        }
                        _ => return Err(self.error("an escape")),
                    }
                }
                _ => return Err(self.error("a character of a string")),
            }
        }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.error("a digit"));
        }
        Ok(())
    }

    fn literal(&mut self, literal: &'static str) -> Result<(), JsonError> {
        if !self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            return Err(self.error(literal));
        }
        self.at += literal.len();
        Ok(())
    }

    /// Passes white space around our own tokens.
    #[inline]
    fn outer_space(&mut self) -> Result<(), JsonError> {
        if self.layout == Layout::Columns {
            return Ok(());
        }
        self.space()
    }

    /// Passes white space in or around a value.
    #[inline]
    fn space(&mut self) -> Result<(), JsonError> {
        // Most values have none.
        match self.peek() {
            Some(byte) if byte <= b' ' => self.spaces(),
            _ => Ok(()),
        }
    }

    fn spaces(&mut self) -> Result<(), JsonError> {
        if self.layout == Layout::Compact {
            return Ok(());
        }
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            if self.layout != Layout::Free && matches!(self.peek(), Some(b'\n' | b'\r')) {
                return Err(self.error("text on one line"));
            }
            self.at += 1;
        }
        Ok(())
    }

    #[inline]
    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), JsonError> {
        if self.peek() != Some(byte) {
            return Err(self.error(what));
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn error(&self, what: &'static str) -> JsonError {
        JsonError { at: self.at, what }
    }
}

/// What a byte of a string becomes: 0 as it is, `u` a `\u00xx` escape, else that letter after a backslash.
static ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'u';
        byte += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

/// The place of the first byte that is written as an escape. Strings are looked at several times for each entry, so eight bytes at a time.
#[inline]
pub(crate) fn first_special(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let (words, rest) = bytes.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The lowest bit set in each is right: a borrow can only reach bytes behind one that was found.
        let zero = |x: u64| x.wrapping_sub(ONES) & !x;
        let found = (word.wrapping_sub(ONES * 0x20) & !word
            | zero(word ^ (ONES * b'"' as u64))
            | zero(word ^ (ONES * b'\\' as u64)))
            & HIGH;
        if found != 0 {
            return Some(8 * place + found.trailing_zeros() as usize / 8);
        }
    }
    let place = rest.iter().position(|byte| ESCAPES[usize::from(*byte)] != 0)?;
    Some(8 * words.len() + place)
}

/// Appends what stands between the quotes of the JSON string of `s`. Six bytes for each of `s` are always enough room. A long text may be given in pieces, cut anywhere.
pub fn push_escaped(out: &mut Vec<u8>, s: &[u8]) {
    // Almost all strings need no escape, and runs between escapes are long: copy them whole.
    let mut rest = s;
    while let Some(run) = first_special(rest) {
        out.extend_from_slice(&rest[..run]);
        let byte = rest[run];
        match ESCAPES[usize::from(byte)] {
            b'u' => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(DIGITS[usize::from(byte >> 4)]);
                out.push(DIGITS[usize::from(byte & 15)]);
            }
            letter => out.extend_from_slice(&[b'\\', letter]),
        }
        rest = &rest[run + 1..];
    }
    out.extend_from_slice(rest);
}

/// Undoes the escapes of a string that the scanner has passed. Escaped surrogates are an error: we never write them.
fn unescape(raw: &str) -> Result<Cow<'_, str>, JsonError> {
    if !raw.contains('\\') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(run) = rest.find('\\') {
        let error = |what| JsonError { at: raw.len() - rest.len() + run, what };
        out.push_str(&rest[..run]);
        let escape = &rest[run + 1..];
        let (character, length) = match escape.as_bytes().first() {
            Some(b'b') => ('\u{8}', 1),
            Some(b't') => ('\t', 1),
            Some(b'n') => ('\n', 1),
            Some(b'f') => ('\u{c}', 1),
            Some(b'r') => ('\r', 1),
            Some(byte @ (b'"' | b'\\' | b'/')) => (char::from(*byte), 1),
            Some(b'u') => {
                let code = escape
                    .get(1..5)
                    .and_then(|digits| u32::from_str_radix(digits, 16).ok())
                    .ok_or(error("four hex digits"))?;
                (char::from_u32(code).ok_or(error("a character"))?, 5)
            }
            _ => return Err(error("an escape")),
        };
        out.push(character);
        rest = &escape[length..];
    }
    out.push_str(rest);
    Ok(Cow::Owned(out))
}

/// Whether a string, given without its quotes, is written as [`push_string`] writes it.
fn is_canonical(raw: &str) -> bool {
    let Ok(name) = unescape(raw) else {
        return false;
    };
    let mut again = Vec::with_capacity(raw.len());
    push_escaped(&mut again, name.as_bytes());
    again == raw.as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(s: &str) -> String {
        let mut out = Vec::new();
        push_string(&mut out, s.as_bytes());
        String::from_utf8(out).unwrap()
    }

    fn pairs(text: &str) -> Result<Vec<(String, &str)>, JsonError> {
        Ok(members(text)?.map(|(name, value)| (name.into_owned(), value)).collect())
    }

    #[test]
    fn first_special_byte_is_found_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            let special = byte < 0x20 || byte == b'"' || byte == b'\\';
            for length in 0..40 {
                for place in 0..length {
                    for (before, after) in
                        [(b'a', b'a'), (0xff, 0), (0x20, b'"'), (0x7f, b'\\'), (0x80, 0x1f), (b'!', b'#')]
                    {
                        let mut bytes = vec![before; length];
                        bytes[place..].fill(after);
                        bytes[place] = byte;
                        let expected = bytes.iter().position(|byte| ESCAPES[usize::from(*byte)] != 0);
                        assert_eq!(first_special(&bytes), expected);
                        assert_eq!(special, ESCAPES[usize::from(byte)] != 0);
                    }
                }
            }
        }
    }

    #[test]
    fn only_what_the_format_lists_is_escaped() {
        let all: String = (0..0x20_u8).map(char::from).collect();
        assert_eq!(
            string(&all),
            concat!(
                r#""\u0000\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000b\f\r\u000e\u000f"#,
                r#"\u0010\u0011\u0012\u0013\u0014\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f""#
            )
        );
        assert_eq!(string("a\"b\\c"), r#""a\"b\\c""#);
        let plain = "/ \u{7f} \u{80} \u{2028} \u{2029} é e\u{301} \u{1f600}";
        assert_eq!(string(plain), format!("\"{plain}\""));
    }

    #[test]
    fn line_breaks_between_tokens_become_spaces() {
        let mut out = b"x".to_vec();
        push_one_line(&mut out, b"{\r\n\t\"a\":\n1}");
        assert_eq!(out, b"x{  \t\"a\": 1}");
    }

    #[test]
    fn json_null_differs_from_sql_null() {
        for (text, written) in [("null", " null"), ("null\n", "null "), (" null", " null"), ("0", "0")] {
            let mut out = Vec::new();
            push_json_value(&mut out, text.as_bytes());
            assert_eq!(out, written.as_bytes());
            assert_ne!(out, b"null");
        }
    }

    #[test]
    fn members_are_given_as_written() {
        assert_eq!(pairs("{}").unwrap(), []);
        let text =
            r#"{"a":1.00,"é\"\\\n":null,"":"x,}\"","j":  {"a" : [1 , {"b":"}"}] }  ,"n": null,"e":-1e400,"t":true}"#;
        assert_eq!(
            pairs(text).unwrap(),
            [
                ("a".to_owned(), "1.00"),
                ("é\"\\\n".to_owned(), "null"),
                (String::new(), r#""x,}\"""#),
                ("j".to_owned(), r#"  {"a" : [1 , {"b":"}"}] }  "#),
                ("n".to_owned(), " null"),
                ("e".to_owned(), "-1e400"),
                ("t".to_owned(), "true"),
            ]
        );
        // Duplicate names, lone surrogates and other spellings are none of our business inside a value.
        let value = r#" {"a":"\ud800\u0041\/","a":[[],{}]}"#;
        assert_eq!(pairs(&format!("{{\"j\":{value}}}")).unwrap()[0].1, value);
    }

    #[test]
    fn what_we_would_not_write_is_refused() {
        for bad in [
            "",
            " ",
            "{",
            "}",
            "[]",
            "null",
            " {}",
            "{} ",
            "{ }",
            "{}{}",
            "{\"a\":1",
            "{\"a\":1,",
            "{\"a\":1,}",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\" :1}",
            "{ \"a\":1}",
            "{\"a\":1, \"b\":2}",
            "{a:1}",
            "{'a':1}",
            "{\"a\":\n1}",
            "{\"a\":[1,\r2]}",
            "{\"\\u0041\":1}",
            "{\"\\/\":1}",
            "{\"\\u000A\":1}",
            "{\"\\u000a\":1}",
            "{\"\\ud83d\\ude00\":1}",
            "{\"a\u{1}\":1}",
        ] {
            assert!(members(bad).is_err(), "{bad}");
        }
        assert_eq!(members("{\"a\":x}").err(), Some(JsonError { at: 5, what: "a value" }));
    }

    #[test]
    fn json_grammar_is_kept() {
        for value in [
            "0",
            "-0",
            "10",
            "0.0",
            "1e5",
            "1E+5",
            "1e-05",
            "-1.5e3",
            "true",
            "false",
            "null",
            "\"\"",
            "[]",
            "{}",
            "[1,2]",
            "[ ]",
            "{ }",
            "\"\\u00e9\"",
            "\"\\ud800\"",
        ] {
            validate_object(&format!("{{\"a\":{value}}}")).unwrap();
        }
        for bad in [
            "",
            "01",
            "-",
            "+1",
            ".5",
            "1.",
            "1e",
            "1e+",
            "0x1",
            "1 2",
            "--1",
            "tru",
            "True",
            "nul",
            "NaN",
            "Infinity",
            "'a'",
            "\"",
            "\"a",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\t\"",
            "\"\n\"",
            "\"\u{0}\"",
            "[",
            "[1",
            "[1,",
            "[,1]",
            "[1,]",
            "[1}",
            "{]",
            "{\"a\"]",
            "{\"a\":1,}",
            "{1:1}",
            "]",
            "//",
            "\u{a0}1",
            "\u{feff}1",
        ] {
            assert!(validate_object(&format!("{{\"a\":{bad}}}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn objects_from_outside_may_have_white_space_anywhere() {
        validate_object(" \r\n\t{ \"a\" : 1 ,\n\"b\":{ } } \n").unwrap();
        validate_one_line_object(" \t{ \"a\" : 1 ,\"\\u0061\":{ } } ").unwrap();
        assert!(validate_one_line_object("{\"a\":1,\n\"b\":2}").is_err());
        for bad in ["", "[]", "1", "null", "{} x", "{\"a\" 1}"] {
            assert!(validate_object(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        let depth = 100_000;
        let arrays = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        for value in [&arrays, &objects] {
            let text = format!("{{\"j\":{value}}}");
            assert_eq!(pairs(&text).unwrap()[0].1, value);
            validate_object(&text).unwrap();
            assert!(validate_object(&text[..text.len() - 1]).is_err());
        }
    }

    /// Any JSON value, with white space that may stand in a line.
    pub(super) fn any_value() -> impl Strategy<Value = String> {
        let space = "[ \t]{0,2}";
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,3})?",
            any::<String>().prop_map(|s| string(&s)),
            "\"(\\\\u[0-9a-fA-F]{4}|\\\\/)\"",
        ];
        let leaf = (space, leaf, space).prop_map(|(a, b, c)| format!("{a}{b}{c}"));
        leaf.prop_recursive(4, 32, 4, move |inner| {
            let object =
                prop::collection::vec((space, any::<String>(), space, inner.clone()), 0..4).prop_map(|members| {
                    let members: Vec<String> = members
                        .into_iter()
                        .map(|(a, name, b, value)| format!("{a}{}{b}:{value}", string(&name)))
                        .collect();
                    format!("{{{}}}", members.join(","))
                });
            let array = prop::collection::vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(",")));
            (space, prop_oneof![object, array], space).prop_map(|(a, b, c)| format!("{a}{b}{c}"))
        })
    }

    proptest! {
        #[test]
        fn any_string_reads_back(s: String) {
            let written = string(&s);
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), s.clone());
            prop_assert_eq!(string_value(&written).unwrap(), s);
        }

        #[test]
        fn any_object_of_columns_reads_back(columns in prop::collection::vec((any::<String>(), any_value()), 0..5)) {
            let text: Vec<String> = columns.iter().map(|(name, value)| format!("{}:{value}", string(name))).collect();
            let text = format!("{{{}}}", text.join(","));
            let read: Vec<(String, String)> =
                members(&text).unwrap().map(|(name, value)| (name.into_owned(), value.to_owned())).collect();
            prop_assert_eq!(read, columns);
        }

        #[test]
        fn verdict_is_that_of_another_parser(text in "[{}\\[\\]:,\"a\\\\u01 .eE+-]{0,12}") {
            let text = format!("{{\"a\":{text}}}");
            // A parser that keeps values as text, so that neither numbers nor surrogates are judged.
            type Any<'a> = std::collections::BTreeMap<String, &'a serde_json::value::RawValue>;
            if let Ok(theirs) = serde_json::from_str::<Any<'_>>(&text) {
                prop_assert!(validate_object(&text).is_ok(), "{theirs:?}");
            } else if validate_object(&text).is_ok() {
                // Only names with escaped surrogates are not for a String.
                prop_assert!(text.contains("\\u"));
            }
        }
    }
}

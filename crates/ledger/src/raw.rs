//! The quick way to verify an entry, for the many that are right.
//!
//! A verification spends most of its time on entries in which nothing is wrong and nothing is unusual. [`RawVerifier`] says of such an entry that it is right, from the bytes of its columns, in about half the
//! time of [`Entry::hash_with`](crate::Entry::hash_with) and [`Entry::check_form`](crate::Entry::check_form): texts are looked at once, as part of the line, and what is the same as in the entry before (the table, who did
//! it) is not written and not checked again. Of all others it says nothing, and they go the usual way, which alone tells what is wrong. So it may only err on one side: whatever it calls right must be right
//! by the usual way too.

use std::net::IpAddr;

use uuid::Uuid;

use crate::entry::{Entry, NearTime, Operation, Table, Timestamp, four_digits, is_complete, push_decimal};
use crate::hash::{Begun, Hash};
use crate::json;
use crate::links::Link;

/// An entry as its columns hold it: of the texts it is not known whether they are any.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the fields are those of an entry")]
pub struct RawEntry<'a> {
    pub ledger: Uuid,
    pub chain: u32,
    pub seq: u64,
    pub prev: Hash,
    pub id: u64,
    pub at: Timestamp,
    pub xid: u64,
    pub subxid: Option<u64>,
    pub command: Option<u32>,
    pub operation: &'a [u8],
    pub table: Option<RawTable<'a>>,
    pub key: Option<&'a [u8]>,
    pub old: Option<&'a [u8]>,
    pub new: Option<&'a [u8]>,
    pub actor: RawActor<'a>,
    pub context: Option<&'a [u8]>,
    /// The hash that is stored with it.
    pub hash: Hash,
}

/// The table of a [`RawEntry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of a table")]
pub struct RawTable<'a> {
    pub oid: u32,
    pub schema: &'a [u8],
    pub name: &'a [u8],
}

/// Login, session, user, application and client of a [`RawEntry`], see [`crate::Actor`].
pub type RawActor<'a> = [Option<&'a [u8]>; 5];

impl<'a> RawEntry<'a> {
    /// An entry as its columns would hold it, with its hash.
    pub fn of(entry: &'a Entry<'_>, hash: Hash) -> RawEntry<'a> {
        let Entry { ledger, chain, seq, prev, id, at, xid, subxid, command, actor, .. } = entry;
        let texts = [&entry.key, &entry.old, &entry.new, &entry.context];
        let [key, old, new, context] = texts.map(|text| text.as_ref().map(|text| text.as_bytes()));
        let actors = [&actor.login, &actor.session, &actor.user, &actor.application, &actor.client];
        RawEntry {
            ledger: *ledger,
            chain: *chain,
            seq: *seq,
            prev: *prev,
            id: *id,
            at: *at,
            xid: *xid,
            subxid: *subxid,
            command: *command,
            operation: entry.operation.as_bytes(),
            table: entry.table.as_ref().map(|Table { oid, schema, name }| RawTable {
                oid: *oid,
                schema: schema.as_bytes(),
                name: name.as_bytes(),
            }),
            key,
            old,
            new,
            actor: actors.map(|text| text.as_ref().map(|text| text.as_bytes())),
            context,
            hash,
        }
    }

    /// What of it matters for its chain.
    pub fn link(&self) -> Link {
        let RawEntry { ledger, chain, seq, prev, hash, id, at, .. } = *self;
        Link { ledger, chain, seq, prev, hash, id, at: Some(at) }
    }
}

/// Recognizes entries that are right. Remembers parts of the lines of entries before.
#[derive(Debug, Default)]
pub struct RawVerifier {
    /// The lines of entries that wait to be judged: two are hashed in little more time than one, and with several it matters little that one is longer.
    lines: [Vec<u8>; ROOM],
    /// What SHA-256 has come to after the first block of each.
    begun: [Begun; ROOM],
    links: [Option<Link>; ROOM],
    waiting: usize,
    /// What is known of chains, by the last digits of their numbers: those who write at the same time are of several.
    chains: [Chain; CHAINS],
    id: Number,
    at: NearTime,
    xid: Number,
    subxid: Number,
    /// `,"op": ... "table_name":"..."`, of the last few: a transaction changes several tables.
    subjects: [Known<Subject>; SUBJECTS],
    /// The subject that is replaced next.
    oldest: usize,
    /// `,"login_name": ... "client_addr":"..."`.
    actor: Known<[Option<Vec<u8>>; 5]>,
    /// A context that has the right form.
    context: Option<Vec<u8>>,
}

/// How many entries can wait.
const ROOM: usize = 8;

/// A line of more bytes than this is judged at once, and its room is not kept: else there would be room for several of the longest.
const LONG: usize = 1 << 16;

/// How many chains are remembered.
const CHAINS: usize = 16;

/// How many subjects are remembered.
const SUBJECTS: usize = 4;

/// What is remembered of a chain.
#[derive(Debug)]
struct Chain {
    /// Ledger and number.
    what: Option<(Uuid, u32)>,
    /// `{"v":1, ... "seq":"` of it, and how long that is. The copy of a fixed length is cheaper than one of any.
    start: [u8; Chain::LONGEST],
    length: usize,
    /// Its first 64 bytes, hashed: they are the same in all lines of the chain.
    begun: Begun,
    seq: Number,
}

impl Chain {
    /// With a chain of ten digits it would be 81 bytes long.
    const LONGEST: usize = 96;

    fn learn(&mut self, ledger: Uuid, chain: u32) {
        let mut text = b"{\"v\":1,\"ledger\":\"".to_vec();
        text.extend_from_slice(ledger.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
        text.extend_from_slice(b"\",\"chain\":");
        push_decimal(&mut text, u64::from(chain));
        text.extend_from_slice(b",\"seq\":\"");
        self.what = Some((ledger, chain));
        self.length = text.len();
        self.start[..self.length].copy_from_slice(&text);
        self.begun = Begun::with(text.first_chunk().expect("ledger and chain take more than a block"));
    }
}

impl Default for Chain {
    fn default() -> Chain {
        Chain { what: None, start: [0; Chain::LONGEST], length: 0, begun: Begun::default(), seq: Number::default() }
    }
}

/// A number and its decimal digits. Most numbers differ from that of the entry before in their last digits only.
#[derive(Debug)]
struct Number {
    /// All but the last four digits.
    high: u64,
    /// All digits of the number that was written first with these; `u64::MAX` has 20.
    digits: [u8; 20],
    count: usize,
}

impl Default for Number {
    fn default() -> Number {
        // With no digits to go before the last four, none is near it.
        Number { high: 0, digits: [b'0'; 20], count: 0 }
    }
}

impl Number {
    #[inline]
    fn write(&mut self, out: &mut Vec<u8>, value: u64) {
        let (high, low) = (value / 10_000, value % 10_000);
        if high != self.high || high == 0 {
            return self.learn(out, value);
        }
        // A copy of fixed length is much cheaper than one of any. The last digits are put where they belong and not here: a copy of what has just been written would wait for that.
        let end = out.len() + self.count;
        out.extend_from_slice(&self.digits);
        out.truncate(end);
        if let Some(last) = out.last_chunk_mut() {
            *last = four_digits(low);
        }
    }

    fn learn(&mut self, out: &mut Vec<u8>, value: u64) {
        let start = out.len();
        push_decimal(out, value);
        self.high = value / 10_000;
        self.count = out.len() - start;
        self.digits[..self.count].copy_from_slice(&out[start..]);
    }
}

/// A piece of a line, and what it says.
#[derive(Debug)]
struct Known<T> {
    what: Option<T>,
    text: Vec<u8>,
}

impl<T> Default for Known<T> {
    fn default() -> Known<T> {
        Known { what: None, text: Vec::new() }
    }
}

/// Operation and table, and the columns that the entry before of the same had.
#[derive(Debug)]
struct Subject {
    operation: Operation,
    table: Option<(u32, Vec<u8>, Vec<u8>)>,
    key: Names,
    values: Names,
}

impl Subject {
    #[inline]
    fn is(&self, operation: &[u8], table: Option<RawTable<'_>>) -> bool {
        let is_table = match (&self.table, table) {
            (Some((oid, schema, name)), Some(table)) => {
                *oid == table.oid && same(name, table.name) && same(schema, table.schema)
            }
            (None, None) => true,
            _ => false,
        };
        is_table && same(self.operation.as_str().as_bytes(), operation)
    }
}

impl RawVerifier {
    /// Remembers nothing yet.
    pub fn new() -> RawVerifier {
        RawVerifier::default()
    }

    /// Takes an entry that has the form of docs/format.md, until [`RawVerifier::judge`] is called. Of another, `None` says that this was not shown; else it says whether there is room for one more.
    pub fn take(&mut self, entry: &RawEntry<'_>) -> Option<bool> {
        // The bounds are those of `Entry::check_form`.
        let in_range = |number: u64| number > 0 && number <= i64::MAX as u64;
        if entry.chain == 0 || entry.chain > i32::MAX as u32 || !in_range(entry.seq) || !in_range(entry.id) {
            return None;
        }
        if entry.subxid.is_some_and(|subxid| subxid <= entry.xid) {
            return None;
        }
        assert!(self.waiting < ROOM, "there is room for it");
        let Written { subject, objects } = self.write_line(entry)?;
        // Between any two texts there is ASCII, so the line is UTF-8 only if each of them is.
        let line = &self.lines[self.waiting];
        let is_text = is_ascii(line) || std::str::from_utf8(line).is_ok();
        if !is_text || !self.subjects[subject].what.as_mut()?.has_form(entry, line, objects) {
            return None;
        }
        let has_room = self.waiting + 1 < ROOM && line.len() <= LONG;
        self.links[self.waiting] = Some(entry.link());
        self.waiting += 1;
        Some(has_room)
    }

    /// Says of the entries that wait, in the order in which they came, whether the hash of each is that of its line: `Err` gives the line of one of which it is not.
    pub fn judge(&mut self, mut each: impl FnMut(Result<&Link, (&Link, &str)>)) {
        let count = std::mem::take(&mut self.waiting);
        let hashes = Hash::of_begun(&mut self.lines, &self.begun, count);
        for ((link, line), hash) in self.links.iter().zip(&mut self.lines).zip(hashes).take(count) {
            let link = link.as_ref().expect("each that waits has one");
            each(if link.hash == hash {
                Ok(link)
            } else {
                Err((link, std::str::from_utf8(line).expect("looked at when it was taken")))
            });
            if line.capacity() > 2 * LONG {
                *line = Vec::new();
            }
        }
    }

    /// Writes the line of the entry, as [`Entry::write_line`](crate::Entry::write_line) does. `None` when it is not one that is recognized.
    fn write_line(&mut self, entry: &RawEntry<'_>) -> Option<Written> {
        let RawVerifier {
            lines, begun, waiting, chains, id, at, xid, subxid, subjects, oldest, actor, context, ..
        } = self;
        let line = &mut lines[*waiting];
        line.clear();
        let chain = &mut chains[entry.chain as usize % CHAINS];
        if chain.what != Some((entry.ledger, entry.chain)) {
            chain.learn(entry.ledger, entry.chain);
        }
        begun[*waiting] = chain.begun;
        line.extend_from_slice(&chain.start);
        line.truncate(chain.length);
        chain.seq.write(line, entry.seq);
        line.extend_from_slice(b"\",\"prev\":\"");
        entry.prev.write(line);
        line.extend_from_slice(b"\",\"id\":\"");
        id.write(line, entry.id);
        line.extend_from_slice(b"\",\"at\":\"");
        entry.at.write_near(at, line);
        line.extend_from_slice(b"\",\"xid\":\"");
        xid.write(line, entry.xid);
        line.push(b'"');
        if let Some(number) = entry.subxid {
            line.extend_from_slice(b",\"subxid\":\"");
            subxid.write(line, number);
            line.push(b'"');
        }
        if let Some(command) = entry.command {
            line.extend_from_slice(b",\"command\":");
            push_decimal(line, u64::from(command));
        }
        let is_it =
            |known: &Known<Subject>| known.what.as_ref().is_some_and(|what| what.is(entry.operation, entry.table));
        let subject = match subjects.iter().position(is_it) {
            Some(known) => known,
            None => {
                let replaced = *oldest;
                *oldest = (replaced + 1) % SUBJECTS;
                subjects[replaced].learn(entry)?;
                replaced
            }
        };
        line.extend_from_slice(&subjects[subject].text);
        let mut object = |name: &[u8], value: Option<&[u8]>| {
            if let Some(value) = value {
                line.extend_from_slice(name);
                line.extend_from_slice(value);
            }
            line.len() - value.map_or(0, <[u8]>::len)
        };
        let objects =
            [object(b",\"key\":", entry.key), object(b",\"old\":", entry.old), object(b",\"new\":", entry.new)];
        let is_known = |known: &[Option<Vec<u8>>; 5]| {
            known.iter().zip(&entry.actor).all(|(known, text)| match (known, text) {
                (Some(known), Some(text)) => same(known, text),
                (None, None) => true,
                _ => false,
            })
        };
        if !actor.what.as_ref().is_some_and(is_known) {
            actor.learn(&entry.actor)?;
        }
        line.extend_from_slice(&actor.text);
        if let Some(text) = entry.context {
            if context.as_deref() != Some(text) {
                json::validate_one_line_object(std::str::from_utf8(text).ok()?).ok()?;
                *context = Some(text.to_vec());
            }
            line.extend_from_slice(b",\"context\":");
            line.extend_from_slice(text);
        }
        line.push(b'}');
        Some(Written { subject, objects })
    }
}

/// Where things are, once a line is written.
struct Written {
    /// The place of its subject.
    subject: usize,
    /// Where `key`, `old` and `new` begin in the line, those that it has.
    objects: [usize; 3],
}

/// Whether two texts are the same. Names are short, and most of the time that the general way takes for one is not spent on comparing.
#[inline]
fn same(one: &[u8], other: &[u8]) -> bool {
    /// First and last word, which overlap, or are all of it.
    #[inline]
    fn ends<const N: usize>(text: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
        text.first_chunk().zip(text.last_chunk())
    }
    one.len() == other.len()
        && match one.len() {
            4..8 => ends::<4>(one) == ends::<4>(other),
            8..=16 => ends::<8>(one) == ends::<8>(other),
            _ => one == other,
        }
}

impl Known<Subject> {
    /// `None` for an operation that is not known or does not tell of a row, and for a table without object id.
    fn learn(&mut self, entry: &RawEntry<'_>) -> Option<()> {
        let text = &mut self.text;
        self.what = None;
        text.clear();
        text.extend_from_slice(b",\"op\":");
        json::push_string(text, entry.operation);
        if let Some(RawTable { oid, schema, name }) = entry.table {
            text.extend_from_slice(b",\"table_oid\":");
            push_decimal(text, u64::from(oid));
            text.extend_from_slice(b",\"table_schema\":");
            json::push_string(text, schema);
            text.extend_from_slice(b",\"table_name\":");
            json::push_string(text, name);
        }
        let operation: Operation = std::str::from_utf8(entry.operation).ok()?.parse().ok()?;
        let is_plain = operation.is_row_change() && entry.table.is_none_or(|table| table.oid > 0);
        let table = entry.table.map(|table| (table.oid, table.schema.to_vec(), table.name.to_vec()));
        let (key, values) = (Names::default(), Names::default());
        self.what = is_plain.then_some(Subject { operation, table, key, values });
        is_plain.then_some(())
    }
}

impl Known<[Option<Vec<u8>>; 5]> {
    /// `None` for a client that is no address.
    fn learn(&mut self, actor: &RawActor<'_>) -> Option<()> {
        let text = &mut self.text;
        self.what = None;
        text.clear();
        let names: [&[u8]; 5] = [
            b",\"login_name\":",
            b",\"session_name\":",
            b",\"user_name\":",
            b",\"application_name\":",
            b",\"client_addr\":",
        ];
        for (name, value) in names.into_iter().zip(actor) {
            if let Some(value) = value {
                text.extend_from_slice(name);
                json::push_string(text, value);
            }
        }
        if let Some(client) = actor[4] {
            std::str::from_utf8(client).ok()?.parse::<IpAddr>().ok()?;
        }
        self.what = Some(actor.map(|text| text.map(<[u8]>::to_vec)));
        Some(())
    }
}

/// Whether a line is ASCII; lines are long enough that their last bytes, looked at twice, cost less than one by one.
fn is_ascii(line: &[u8]) -> bool {
    let Some(last) = line.last_chunk::<64>() else { return line.is_ascii() };
    let mut bits = *last;
    for chunk in line.as_chunks::<64>().0 {
        bits.iter_mut().zip(chunk).for_each(|(bits, byte)| *bits |= byte);
    }
    bits.iter().fold(0, |all, bits| all | bits) < 0x80
}

impl Subject {
    /// Whether members and columns are as they must be. The objects stand in the line as they do in the entry; in the line they are read quicker, as there is something behind them.
    fn has_form(&mut self, entry: &RawEntry<'_>, line: &[u8], [key_at, old_at, new_at]: [usize; 3]) -> bool {
        let RawEntry { command, table, key, old, new, .. } = entry;
        let present = [command.is_some(), table.is_some(), key.is_some(), old.is_some(), new.is_some()];
        let knows =
            |names: &mut Names, at: usize, text: &[u8]| names.are_at(&line[at..], text.len()) || names.learn(text);
        is_complete(self.operation, present)
            && key.is_none_or(|key| knows(&mut self.key, key_at, key))
            && match (old, new) {
                (Some(old), Some(new)) => {
                    knows(&mut self.values, old_at, old) && self.values.are_at(&line[new_at..], new.len())
                }
                (Some(text), None) => knows(&mut self.values, old_at, text),
                (None, Some(text)) => knows(&mut self.values, new_at, text),
                (None, None) => true,
            }
    }
}

/// The columns of an object that had the right form.
#[derive(Debug, Default)]
struct Names {
    /// `{"name":` or `,"name":` of each, in words, the last one filled up with zeros, and which of their bits count.
    words: Vec<(u64, u64)>,
    /// Of each column, how long that is, and where its words end.
    ends: Vec<(usize, usize)>,
}

impl Names {
    /// Whether a text begins with an object of the right form with just these columns, of so many bytes.
    fn are_at(&self, text: &[u8], length: usize) -> bool {
        let Some(rest) = self.behind(text) else { return false };
        rest.first() == Some(&b'}') && text.len() - rest.len() + 1 == length
    }

    /// What follows the value of the last column.
    fn behind<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        if self.ends.is_empty() {
            return text.strip_prefix(b"{");
        }
        let mut rest = text;
        let mut start = 0;
        for (length, end) in &self.ends {
            let words = self.words.get(start..*end)?;
            start = *end;
            for (place, (word, mask)) in words.iter().enumerate() {
                if (word_at(rest, 8 * place) ^ word) & mask != 0 {
                    return None;
                }
            }
            rest = value(rest.get(*length..)?)?;
        }
        Some(rest)
    }

    /// Takes the columns of an object, if it has the right form.
    fn learn(&mut self, text: &[u8]) -> bool {
        let Some(columns) = Columns::read(text) else { return false };
        self.words.clear();
        self.ends.clear();
        for (place, name) in columns.names().iter().enumerate() {
            let before = if place == 0 { "{\"" } else { ",\"" };
            let piece = [before.as_bytes(), name, b"\":"].concat();
            for word in piece.chunks(8) {
                let mask = u64::MAX >> (64 - 8 * word.len());
                self.words.push((word_at(word, 0), mask));
            }
            self.ends.push((piece.len(), self.words.len()));
        }
        true
    }
}

/// Eight bytes, with zeros for those behind the end.
#[inline]
fn word_at(text: &[u8], at: usize) -> u64 {
    match text.get(at..).unwrap_or_default() {
        rest if rest.len() >= 8 => u64::from_le_bytes(*rest.first_chunk().expect("there are eight")),
        rest => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// The names of the columns of an object.
struct Columns<'a> {
    names: [&'a [u8]; Columns::MAX],
    count: usize,
}

impl<'a> Columns<'a> {
    /// With more, comparing each name with each would be slow, and a set is better.
    const MAX: usize = 16;

    fn names(&self) -> &[&'a [u8]] {
        &self.names[..self.count]
    }

    /// Takes an object of columns without white space whose names are different and have no escapes, and whose values are strings, numbers, `true`, `false` or `null`.
    fn read(text: &'a [u8]) -> Option<Columns<'a>> {
        let mut columns = Columns { names: [b""; Columns::MAX], count: 0 };
        if text == b"{}" {
            return Some(columns);
        }
        let mut rest = text.strip_prefix(b"{")?;
        loop {
            let name = rest.strip_prefix(b"\"")?;
            let length = json::first_special(name)?;
            let (name, behind) = name.split_at(length);
            // With an escape in the name there is a backslash here.
            rest = value(behind.strip_prefix(b"\":")?)?;
            if columns.count == Columns::MAX || columns.names().contains(&name) {
                return None;
            }
            columns.names[columns.count] = name;
            columns.count += 1;
            match rest {
                b"}" => return Some(columns),
                [b',', behind @ ..] => rest = behind,
                _ => return None,
            }
        }
    }
}

/// What follows a value.
fn value(text: &[u8]) -> Option<&[u8]> {
    match text.first()? {
        b'"' => string(&text[1..]),
        b'-' => number(&text[1..]),
        b'0'..=b'9' => number(text),
        b't' => text.strip_prefix(b"true"),
        b'f' => text.strip_prefix(b"false"),
        b'n' => text.strip_prefix(b"null"),
        _ => None,
    }
}

/// What follows a string, given behind its first quote.
fn string(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = &text[json::first_special(text)?..];
        match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', rest @ ..] => text = rest,
            _ => return None,
        }
    }
}

/// What follows a number without sign.
fn number(text: &[u8]) -> Option<&[u8]> {
    let mut rest = match text {
        [b'0', rest @ ..] => rest,
        _ => digits(text)?,
    };
    if let [b'.', fraction @ ..] = rest {
        rest = digits(fraction)?;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        rest = match exponent {
            [b'+' | b'-', exponent @ ..] => digits(exponent)?,
            _ => digits(exponent)?,
        };
    }
    Some(rest)
}

/// What follows at least one digit.
fn digits(text: &[u8]) -> Option<&[u8]> {
    let mut count = 0;
    loop {
        let found = leading_digits(word_at(text, count));
        count += found;
        if found < 8 {
            return if count > 0 { text.get(count..) } else { None };
        }
    }
}

/// How many of eight bytes are digits, before the first that is none.
#[inline]
fn leading_digits(word: u64) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    // Digits become 0 to 9; a byte of more than that has a high bit, or gets one.
    let value = word ^ (ONES * b'0' as u64);
    let other = (((value & (ONES * 0x7f)) + ONES * 0x76) | value) & (ONES * 0x80);
    other.trailing_zeros() as usize / 8
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;
    use crate::entry::{Actor, Entry, Table};

    fn entry() -> Entry<'static> {
        Entry {
            ledger: Uuid::from_u128(1),
            chain: 1_000_003,
            seq: 17,
            prev: Hash::of(b"the entry before"),
            id: 41,
            at: Timestamp::new(0).unwrap(),
            xid: 4_294_967_300,
            subxid: Some(4_294_967_302),
            command: Some(0),
            operation: "UPDATE".into(),
            table: Some(Table { oid: 16390, schema: "public".into(), name: "bücher".into() }),
            key: Some(r#"{"id":7}"#.into()),
            old: Some(r#"{"note":"a \" \\ b","ok":true,"n":-1.5e+10}"#.into()),
            new: Some(r#"{"note":null,"ok":false,"n":0}"#.into()),
            actor: Actor {
                login: Some("app".into()),
                session: Some("app".into()),
                user: Some("owner".into()),
                application: Some("psql \"x\"".into()),
                client: Some("2001:db8::1".into()),
            },
            context: Some(r#"{"request": "r-1"}"#.into()),
        }
    }

    /// What the usual way says.
    fn is_right(entry: &Entry<'_>, hash: Hash) -> bool {
        entry.hash_with(&mut Vec::new()) == hash && entry.check_form().is_ok()
    }

    impl RawVerifier {
        /// Whether the entry, which comes alone, is right.
        fn is_right(&mut self, entry: &RawEntry<'_>) -> bool {
            let mut right = false;
            self.take(entry);
            self.judge(|verdict| right = verdict.is_ok());
            right
        }
    }

    #[test]
    fn numbers_and_times_are_written_whatever_came_before() {
        let (mut number, mut near) = (Number::default(), NearTime::default());
        let numbers = [
            0,
            0,
            1,
            2,
            8,
            9,
            10,
            11,
            19,
            20,
            99,
            100,
            5,
            u64::MAX - 1,
            u64::MAX,
            0,
            u64::MAX,
            1,
            9_999,
            10_000,
            10_001,
            19_999,
            20_000,
            99_999,
            100_000,
            100_001,
            109_999,
            10_000,
            9_999,
            10_002,
            u64::MAX - 1615,
            u64::MAX - 1616,
            u64::MAX,
        ];
        for value in numbers {
            let mut out = b"x".to_vec();
            number.write(&mut out, value);
            assert_eq!(out, format!("x{value}").as_bytes());
        }
        for micros in [0, 1, 999_999, 1_000_000, 999_999, -1, -1_000_000, -1_000_001, 0, 1_763_778_600_000_001] {
            let (time, mut out) = (Timestamp::new(micros).unwrap(), Vec::new());
            time.write_near(&mut near, &mut out);
            assert_eq!(out, time.to_string().as_bytes());
        }
        for micros in [Timestamp::MIN, Timestamp::MAX, Timestamp::MIN] {
            let mut out = Vec::new();
            micros.write_near(&mut near, &mut out);
            assert_eq!(out, micros.to_string().as_bytes());
        }
    }

    #[test]
    fn a_byte_that_is_not_ascii_is_seen_wherever_it_stands() {
        for length in 0..200 {
            let mut line = vec![b'a'; length];
            assert!(is_ascii(&line));
            for place in 0..length {
                for byte in [0x80, 0xff] {
                    line[place] = byte;
                    assert!(!is_ascii(&line), "{place} of {length}");
                }
                line[place] = 0x7f;
                assert!(is_ascii(&line));
            }
        }
    }

    /// More chains and tables in turn than are remembered, among them such as share a place.
    #[test]
    fn entries_of_many_chains_and_tables_are_recognized() {
        let mut verifier = RawVerifier::new();
        for round in 0..3_u64 {
            for number in 0..5 * CHAINS as u32 {
                let mut entry = entry();
                entry.ledger = Uuid::from_u128(u128::from(number % 2));
                (entry.chain, entry.seq) = (1 + number % (2 * CHAINS as u32 + 3), round + u64::from(number));
                entry.table.as_mut().unwrap().oid = 1 + number % (SUBJECTS as u32 + 3);
                entry.seq = entry.seq.max(1);
                let hash = entry.hash_with(&mut Vec::new());
                assert!(verifier.is_right(&RawEntry::of(&entry, hash)), "{entry:?}");
                assert!(!verifier.is_right(&RawEntry::of(&entry, Hash::GENESIS)), "{entry:?}");
            }
        }
    }

    #[test]
    fn entries_are_judged_in_their_order() {
        // Of different lengths, so that some are hashed to the end before others.
        let entries: Vec<Entry<'_>> = (0..ROOM as u64)
            .map(|number| Entry {
                id: 41 + number,
                new: Some(format!(r#"{{"note":"{}"}}"#, "x".repeat(number as usize * 37 % 150)).into()),
                old: Some(r#"{"note":""}"#.into()),
                ..entry()
            })
            .collect();
        let lines: Vec<String> = entries
            .iter()
            .map(|entry| {
                let mut line = Vec::new();
                entry.write_line(&mut line);
                String::from_utf8(line).unwrap()
            })
            .collect();
        let hashes: Vec<Hash> = lines.iter().map(|line| Hash::of(line.as_bytes())).collect();
        let mut verifier = RawVerifier::new();
        for count in 0..=ROOM {
            for bad in 0..=count {
                let stored = |place: usize| if place == bad { Hash::GENESIS } else { hashes[place] };
                for (place, entry) in entries.iter().enumerate().take(count) {
                    assert_eq!(verifier.take(&RawEntry::of(entry, stored(place))), Some(place + 1 < ROOM));
                }
                let mut verdicts = Vec::new();
                verifier.judge(|verdict| {
                    verdicts.push(match verdict {
                        Ok(link) => (link.id, None),
                        Err((link, line)) => (link.id, Some(line.to_owned())),
                    });
                });
                let expected =
                    (0..count).map(|place| (41 + place as u64, (place == bad).then(|| lines[place].clone())));
                assert_eq!(verdicts, expected.collect::<Vec<_>>());
                verifier.judge(|_| panic!("nothing waits any more"));
            }
        }
    }

    #[test]
    fn a_long_line_waits_for_no_other_and_its_room_is_not_kept() {
        let mut long = entry();
        (long.operation, long.old) = ("INSERT".into(), None);
        long.new = Some(format!(r#"{{"note":"{}"}}"#, "ü".repeat(2 * LONG)).into());
        let hash = long.hash_with(&mut Vec::new());
        let mut verifier = RawVerifier::new();
        for stored in [hash, Hash::GENESIS] {
            assert_eq!(verifier.take(&RawEntry::of(&entry(), entry().hash_with(&mut Vec::new()))), Some(true));
            assert_eq!(verifier.take(&RawEntry::of(&long, stored)), Some(false));
            let mut right = Vec::new();
            verifier.judge(|verdict| right.push(verdict.is_ok()));
            assert_eq!(right, [true, stored == hash]);
            assert!(verifier.lines.iter().all(|line| line.capacity() <= 2 * LONG));
        }
    }

    #[test]
    fn usual_entries_are_recognized() {
        let mut verifier = RawVerifier::new();
        let mut insert = entry();
        (insert.operation, insert.old, insert.context) = ("INSERT".into(), None, None);
        let mut delete = entry();
        (delete.operation, delete.new, delete.key) = ("DELETE".into(), None, None);
        delete.actor = Actor::default();
        let mut baseline = insert.clone();
        (baseline.operation, baseline.command) = ("BASELINE".into(), None);
        for _ in 0..2 {
            for entry in [&entry(), &insert, &delete, &baseline] {
                let hash = entry.hash_with(&mut Vec::new());
                assert!(entry.check_form().is_ok());
                assert!(verifier.is_right(&RawEntry::of(entry, hash)), "{entry:?}");
                assert!(!verifier.is_right(&RawEntry::of(entry, Hash::GENESIS)));
            }
        }
    }

    /// Whatever was remembered of a right entry before.
    #[test]
    fn no_change_of_a_right_entry_is_overlooked() {
        let changes: [fn(&mut Entry<'static>); 37] = [
            |e| e.ledger = Uuid::from_u128(2),
            |e| e.chain = 1,
            |e| e.chain = 0,
            |e| e.chain = u32::MAX,
            |e| e.seq = 0,
            |e| e.seq = u64::MAX,
            |e| e.prev = Hash::GENESIS,
            |e| e.id = 0,
            |e| e.id = 42,
            |e| e.at = Timestamp::new(1).unwrap(),
            |e| e.xid = 0,
            |e| e.subxid = None,
            |e| e.subxid = Some(e.xid),
            |e| e.subxid = Some(e.xid + 1),
            |e| e.command = None,
            |e| e.operation = "INSERT".into(),
            |e| e.operation = "TRUNCATE".into(),
            |e| e.operation = "UPSERT".into(),
            |e| e.table = None,
            |e| e.table.as_mut().unwrap().oid = 0,
            |e| e.table.as_mut().unwrap().schema = "".into(),
            |e| e.table.as_mut().unwrap().name = "publicbücher".into(),
            |e| e.key = Some("{\"id\":7 }".into()),
            |e| e.key = Some("{\"id\":7,\"id\":7}".into()),
            |e| e.old = Some("{}".into()),
            |e| e.old = Some(r#"{"note":"","n":1,"ok":true}"#.into()),
            |e| e.new = Some("{\"note\":nul}".into()),
            |e| e.new = Some(r#"{"note":null,"ok":false,"n":00}"#.into()),
            |e| e.new = Some(r#"{"note":null,"ok":false,"n":0.}"#.into()),
            |e| e.new = Some("{\"note\":\"\n\",\"ok\":1,\"n\":0}".into()),
            |e| e.new = Some(r#"{"note":"\x","ok":false,"n":0}"#.into()),
            |e| e.new = Some(r#"{"note":null,"ok":false,"n":0}}"#.into()),
            |e| e.actor.login = None,
            |e| (e.actor.login, e.actor.session) = (None, Some("appapp".into())),
            |e| e.actor.client = Some("nowhere".into()),
            |e| e.context = Some("".into()),
            |e| e.context = Some("[]".into()),
        ];
        for change in changes {
            let mut verifier = RawVerifier::new();
            let mut changed = entry();
            let hash = changed.hash_with(&mut Vec::new());
            assert!(verifier.is_right(&RawEntry::of(&changed, hash)));
            change(&mut changed);
            assert!(!verifier.is_right(&RawEntry::of(&changed, hash)), "{changed:?}");
            let hash = changed.hash_with(&mut Vec::new());
            assert!(!verifier.is_right(&RawEntry::of(&changed, hash)) || is_right(&changed, hash), "{changed:?}");
            assert!(verifier.is_right(&RawEntry::of(&entry(), entry().hash_with(&mut Vec::new()))));
        }
        // An empty context is none that was remembered.
        let mut first = entry();
        first.context = Some("".into());
        assert!(!RawVerifier::new().is_right(&RawEntry::of(&first, first.hash_with(&mut Vec::new()))));
    }

    /// Whatever stands behind the object.
    fn are_those(names: &Names, object: &str) -> bool {
        let verdicts = ["", "}", "\"}", ",\"new\":{\"a\":1,\"bc\":2}", "0", "  longer than a word  "]
            .map(|behind| names.are_at([object, behind].concat().as_bytes(), object.len()));
        assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{object}: {verdicts:?}");
        verdicts[0]
    }

    #[test]
    fn known_columns_are_those_of_no_other_object() {
        let mut names = Names::default();
        assert!(are_those(&names, "{}") && !are_those(&names, "{\"a\":1}") && !are_those(&names, ""));
        assert!(names.learn(br#"{"a":1,"bc":"x"}"#));
        for same in [r#"{"a":1,"bc":"x"}"#, r#"{"a":"}","bc":null}"#, r#"{"a":-1.5e3,"bc":"\",\"d\":"}"#] {
            assert!(are_those(&names, same) && Columns::read(same.as_bytes()).is_some(), "{same}");
        }
        for other in [
            "{}",
            r#"{"a":1}"#,
            r#"{"a":1,}"#,
            r#"{"a":1,"bc":}"#,
            r#"{"a":1"bc":2}"#,
            r#"{"bc":1,"a":2}"#,
            r#"{"a":1,"bc":2,"d":3}"#,
            r#"{"a":1,"bc":2}}"#,
            r#"{"a":1, "bc":2}"#,
            r#"{"a":1,"bc":2"#,
            r#"{"a":1,"bcd":2}"#,
            r#""a":1,"bc":2}"#,
        ] {
            assert!(!are_those(&names, other), "{other}");
        }
        // What has not the right form is not remembered.
        assert!(!names.learn(br#"{"a":1,"a":2}"#) && are_those(&names, r#"{"a":1,"bc":2}"#));
        assert!(names.learn(b"{}") && are_those(&names, "{}") && !are_those(&names, r#"{"a":1,"bc":2}"#));
    }

    #[test]
    fn names_of_all_lengths_are_compared_to_their_ends() {
        for length in 0..40 {
            let name = "n".repeat(length);
            let object = format!("{{\"a\":1,\"{name}\":2}}");
            let mut names = Names::default();
            assert!(names.learn(object.as_bytes()) && are_those(&names, &object));
            for place in 0..object.len() {
                let mut other = object.clone().into_bytes();
                other[place] ^= 1;
                let other = String::from_utf8(other).unwrap();
                let is_number = other.as_bytes()[place].is_ascii_digit();
                assert_eq!(are_those(&names, &other), is_number, "{other}");
            }
        }
    }

    #[test]
    fn short_texts_are_compared_to_their_ends() {
        for length in 0..40 {
            let text = vec![b'x'; length];
            assert!(same(&text, &text.clone()));
            for place in 0..length {
                let mut other = text.clone();
                other[place] = b'y';
                assert!(!same(&text, &other) && !same(&other, &text), "{place} of {length}");
            }
            assert!(!same(&text, &vec![b'x'; length + 1]) && !same(&vec![b'x'; length + 1], &text));
        }
    }

    #[test]
    fn digits_are_told_from_all_other_bytes() {
        for byte in 0..=u8::MAX {
            for before in 0..8 {
                for after in [0, b'0', b'9', b'/', b':', 0xff] {
                    let mut word = [after; 8];
                    word[..before].fill(b'0' + before as u8);
                    word[before] = byte;
                    let expected = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
                    assert_eq!(leading_digits(u64::from_le_bytes(word)), expected, "{word:?}");
                }
            }
        }
        for length in 0..30 {
            let number = "7".repeat(length);
            for behind in ["", ",", "e", "\"00000000"] {
                let text = [&number, behind].concat();
                let expected = (length > 0).then_some(behind.as_bytes());
                assert_eq!(digits(text.as_bytes()), expected, "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_text_is_not_recognized() {
        let entry = entry();
        let bad = b"\xff";
        let changes: [fn(&mut RawEntry<'_>); 5] = [
            |raw| raw.table.as_mut().unwrap().name = b"\xff",
            |raw| raw.new = Some(b"{\"note\":\"\xff\",\"ok\":1,\"n\":0}"),
            |raw| raw.new = Some(b"{\"note\":\"\xc3\",\"ok\":1,\"n\":0}"),
            |raw| raw.actor[0] = Some(b"\xff"),
            |raw| raw.context = Some(b"{\"a\":\"\xff\"}"),
        ];
        for change in changes {
            let mut verifier = RawVerifier::new();
            let mut changed = RawEntry::of(&entry, Hash::GENESIS);
            change(&mut changed);
            // The hash of the very bytes.
            let subject = verifier.write_line(&changed);
            changed.hash = Hash::of(&verifier.lines[0]);
            assert!(subject.is_none() || verifier.lines[0].windows(1).any(|byte| byte == bad || byte == b"\xc3"));
            assert!(!verifier.is_right(&changed));
        }
    }

    fn any_value() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "(null|true|false|-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,2})?([eE][+-]?[0-9])?)",
            4 => "\"[a-zü ]{0,12}(\\\\[nrt\"\\\\])?\"",
            1 => "[-+0-9.eE]{1,4}",
            1 => "[\\\\\"a-z\\[\\]{}: ,]{0,6}",
        ]
    }

    fn any_columns() -> impl Strategy<Value = Option<Cow<'static, str>>> {
        let columns = prop::collection::vec(("[abü\\\\]{0,2}", any_value()), 0..4);
        prop::option::weighted(
            0.7,
            columns.prop_map(|columns| {
                let columns: Vec<String> = columns.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                Cow::Owned(format!("{{{}}}", columns.join(",")))
            }),
        )
    }

    fn any_text() -> impl Strategy<Value = Option<Cow<'static, str>>> {
        prop::option::weighted(0.6, "[a\"\u{1}ü]{0,2}".prop_map(Cow::Owned))
    }

    fn any_entry() -> impl Strategy<Value = Entry<'static>> {
        let operation = prop::sample::select(vec!["INSERT", "UPDATE", "DELETE", "BASELINE", "TRUNCATE", "KEY", "X"]);
        let client = prop::option::of(prop::sample::select(vec!["::1", "10.0.0.1", "x"]));
        let xid = (0_u64..3, prop::option::weighted(0.4, 0_u64..4));
        let chain = prop::sample::select(vec![0_u32, 1, 2, 17]);
        let place = (chain, 0_u64..3, 0_u64..3, xid, prop::option::weighted(0.7, any::<u32>()));
        let table = prop::option::weighted(0.9, (0_u32..3, "[a\"]{0,1}", "[a\"]{0,1}"));
        let what = (operation, table, any_columns(), any_columns(), any_columns(), any::<bool>());
        let context = prop::option::weighted(0.3, prop::sample::select(vec!["", "{}", "{\"a\": 1}", "[]", "{\n}"]));
        (place, what, (any_text(), any_text(), any_text(), any_text()), client, context).prop_map(
            |(place, what, who, client, context)| Entry {
                chain: place.0,
                seq: place.1,
                id: place.2,
                xid: place.3.0,
                subxid: place.3.1,
                command: place.4,
                operation: what.0.into(),
                table: what.1.map(|(oid, schema, name)| Table { oid, schema: schema.into(), name: name.into() }),
                key: what.2,
                // Often of the same columns.
                old: if what.5 { what.4.clone() } else { what.3 },
                new: what.4,
                actor: Actor {
                    login: who.0,
                    session: who.1,
                    user: who.2,
                    application: who.3,
                    client: client.map(Cow::Borrowed),
                },
                context: context.map(Cow::Borrowed),
                ..entry()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        /// Values that begin in one word and end in another, damaged anywhere, before anything.
        #[test]
        fn known_columns_are_recognized_exactly_where_they_are_read(
            names in prop::collection::vec("[a-c]{0,11}", 0..4),
            values in prop::collection::vec(prop_oneof![3 => any_value(), 1 => "[0-9]{6,20}", 1 => "\"[a-z]{6,30}\""], 8),
            damage in prop::option::of((any::<prop::sample::Index>(), "[\"\\\\{},:0-9a-c.-]")),
        ) {
            let object = |values: &[String]| {
                let columns: Vec<String> = names.iter().zip(values).map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", columns.join(","))
            };
            let mut known = Names::default();
            if !known.learn(object(&values[..4]).as_bytes()) {
                return Ok(());
            }
            let mut other = object(&values[4..]);
            if let Some((place, piece)) = damage {
                let place = place.index(other.chars().count());
                let (before, behind) = (other.chars().take(place), other.chars().skip(place + 1));
                other = before.chain(piece.chars()).chain(behind).collect();
            }
            let read = Columns::read(other.as_bytes());
            let expected = read.is_some_and(|read| read.names().iter().copied().eq(names.iter().map(|name| name.as_bytes())));
            prop_assert_eq!(are_those(&known, &other), expected, "{}", other);
        }

        #[test]
        fn whatever_is_called_right_is_right(entries in prop::collection::vec(any_entry(), 1..8)) {
            let mut verifier = RawVerifier::new();
            for entry in &entries {
                let hash = entry.hash_with(&mut Vec::new());
                if verifier.is_right(&RawEntry::of(entry, hash)) {
                    prop_assert_eq!(entry.check_form(), Ok(()));
                    let mut line = Vec::new();
                    entry.write_line(&mut line);
                    prop_assert_eq!(&verifier.lines[0], &line);
                }
            }
        }
    }
}

//! One entry of the ledger and its line.
//!
//! [`Entry::write_line`] is the only writer of lines, [`Entry::parse`] the only reader, and the reader takes nothing that the writer would not write;
//! docs/format.md, sections 2 and 3. Chains are the subject of `links`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use uuid::Uuid;

use crate::hash::Hash;
use crate::json::{self, JsonError, Scanner};

/// The version of the format that this crate writes, and the only one that it knows.
pub const VERSION: u32 = 1;

/// One recorded change.
///
/// Any value of this type can be written and read back, also one that breaks the rules of docs/format.md (a verifier must be able to hash what it finds);
/// [`Entry::check_form`] tells. `key`, `old`, `new` and `context` hold JSON text without line feeds, byte for byte as it stands in the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The ledger: all chains of one database.
    pub ledger: Uuid,
    /// Number of the chain, 1 to 2147483647.
    pub chain: u32,
    /// Place in the chain, from 1.
    pub seq: u64,
    /// Hash of the entry before it in the chain; [`Hash::GENESIS`] for the first.
    pub prev: Hash,
    /// Place among all entries of the ledger, from 1.
    pub id: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// Full transaction id of the server.
    pub xid: u64,
    /// Full id of the subtransaction that made the change, if it was one: the id that stands in the row version itself.
    pub subxid: Option<u64>,
    /// Command of the transaction that made the change; of INSERT, UPDATE and DELETE alone.
    pub command: Option<u32>,
    /// What was done; the name of an [`Operation`], unless somebody wrote another.
    pub operation: Cow<'a, str>,
    /// To which table.
    pub table: Option<Table<'a>>,
    /// The columns that identify the row: a JSON object.
    pub key: Option<Cow<'a, str>>,
    /// Columns before the change: a JSON object.
    pub old: Option<Cow<'a, str>>,
    /// Columns after the change, or the details of an operation without a row: a JSON object.
    pub new: Option<Cow<'a, str>>,
    /// Who did it.
    pub actor: Actor<'a>,
    /// Who and why, as the service said: a JSON object.
    pub context: Option<Cow<'a, str>>,
}

/// The table of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<'a> {
    /// Object id in its database, from 1.
    pub oid: u32,
    /// Schema of the table.
    pub schema: Cow<'a, str>,
    /// Name of the table.
    pub name: Cow<'a, str>,
}

/// Who made a change. The first three come from the server; application name is the client's claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor<'a> {
    /// Role that authenticated the connection (`login_name`).
    pub login: Option<Cow<'a, str>>,
    /// Session user (`session_name`).
    pub session: Option<Cow<'a, str>>,
    /// Current user (`user_name`).
    pub user: Option<Cow<'a, str>>,
    /// What the client calls itself (`application_name`).
    pub application: Option<Cow<'a, str>>,
    /// Address of the client (`client_addr`).
    pub client: Option<Cow<'a, str>>,
}

impl<'a> Entry<'a> {
    /// Appends the line of the entry, without a line feed. Allocates only when `out` must grow.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"v\":1,\"ledger\":\"");
        let mut ledger = [0; 36];
        out.extend_from_slice(self.ledger.hyphenated().encode_lower(&mut ledger).as_bytes());
        out.extend_from_slice(b"\",\"chain\":");
        push_decimal(out, u64::from(self.chain));
        out.extend_from_slice(b",\"seq\":\"");
        push_decimal(out, self.seq);
        out.extend_from_slice(b"\",\"prev\":\"");
        self.prev.write(out);
        out.extend_from_slice(b"\",\"id\":\"");
        push_decimal(out, self.id);
        out.extend_from_slice(b"\",\"at\":\"");
        self.at.write(out);
        out.extend_from_slice(b"\",\"xid\":\"");
        push_decimal(out, self.xid);
        out.push(b'"');
        if let Some(subxid) = self.subxid {
            out.extend_from_slice(b",\"subxid\":\"");
            push_decimal(out, subxid);
            out.push(b'"');
        }
        if let Some(command) = self.command {
            out.extend_from_slice(b",\"command\":");
            push_decimal(out, u64::from(command));
        }
        out.extend_from_slice(b",\"op\":");
        json::push_string(out, self.operation.as_bytes());
        if let Some(table) = &self.table {
            out.extend_from_slice(b",\"table_oid\":");
            push_decimal(out, u64::from(table.oid));
            out.extend_from_slice(b",\"table_schema\":");
            json::push_string(out, table.schema.as_bytes());
            out.extend_from_slice(b",\"table_name\":");
            json::push_string(out, table.name.as_bytes());
        }
        push_json(out, b",\"key\":", &self.key);
        push_json(out, b",\"old\":", &self.old);
        push_json(out, b",\"new\":", &self.new);
        push_text(out, b",\"login_name\":", &self.actor.login);
        push_text(out, b",\"session_name\":", &self.actor.session);
        push_text(out, b",\"user_name\":", &self.actor.user);
        push_text(out, b",\"application_name\":", &self.actor.application);
        push_text(out, b",\"client_addr\":", &self.actor.client);
        push_json(out, b",\"context\":", &self.context);
        out.push(b'}');
    }

    /// The hash of the entry. `buffer` is cleared and holds the line afterwards; give the same one again to save allocations.
    pub fn hash_with(&self, buffer: &mut Vec<u8>) -> Hash {
        buffer.clear();
        self.write_line(buffer);
        Hash::of_buffer(buffer)
    }

    /// Reads a line, given without a line feed at its end. Takes exactly what [`Entry::write_line`] writes, so that one entry has one line.
    ///
    /// A version other than [`VERSION`] is an error of its own, as its rules are not known here.
    pub fn parse(line: &'a str) -> Result<Entry<'a>, DecodeError> {
        check_version(line)?;
        let mut reader = Reader::new(line)?;
        reader.required("v", Some)?;
        let entry = Entry {
            ledger: reader.required("ledger", |v| string(v)?.parse().ok())?,
            chain: reader.required("chain", |v| v.parse().ok())?,
            seq: reader.required("seq", |v| string(v)?.parse().ok())?,
            prev: reader.required("prev", |v| string(v)?.parse().ok())?,
            id: reader.required("id", |v| string(v)?.parse().ok())?,
            at: reader.required("at", |v| string(v)?.parse().ok())?,
            xid: reader.required("xid", |v| string(v)?.parse().ok())?,
            subxid: reader.optional("subxid", |v| string(v)?.parse().ok())?,
            command: reader.optional("command", |v| v.parse().ok())?,
            operation: reader.required("op", string)?,
            table: match reader.optional("table_oid", |v| v.parse().ok())? {
                None => None,
                Some(oid) => Some(Table {
                    oid,
                    schema: reader.required("table_schema", string)?,
                    name: reader.required("table_name", string)?,
                }),
            },
            key: reader.optional("key", raw)?,
            old: reader.optional("old", raw)?,
            new: reader.optional("new", raw)?,
            actor: Actor {
                login: reader.optional("login_name", string)?,
                session: reader.optional("session_name", string)?,
                user: reader.optional("user_name", string)?,
                application: reader.optional("application_name", string)?,
                client: reader.optional("client_addr", string)?,
            },
            context: reader.optional("context", raw)?,
        };
        reader.end()?;
        // Everything that has two spellings (leading zeros, capitals, escapes, white space) ends here.
        let mut again = Vec::with_capacity(line.len());
        entry.write_line(&mut again);
        if again == line.as_bytes() {
            return Ok(entry);
        }
        let differs = again.iter().zip(line.as_bytes()).position(|(a, b)| a != b);
        Err(DecodeError::NotCanonical { at: differs.unwrap_or(again.len().min(line.len())) })
    }

    /// Checks what docs/format.md, sections 2 and 3, demand beyond the hash. Costs about as much as reading the JSON texts once; allocates only for nested values
    /// and more than 16 columns.
    pub fn check_form(&self) -> Result<(), FormError> {
        if self.chain == 0 || self.chain > i32::MAX as u32 {
            return Err(FormError::Chain(self.chain));
        }
        // The upper bound is that of bigint, in which both are stored.
        if self.seq == 0 || self.seq > i64::MAX as u64 {
            return Err(FormError::Range("seq"));
        }
        if self.id == 0 || self.id > i64::MAX as u64 {
            return Err(FormError::Range("id"));
        }
        // A subtransaction gets its id after the transaction that it is part of.
        if self.subxid.is_some_and(|subxid| subxid <= self.xid) {
            return Err(FormError::Range("subxid"));
        }
        if self.table.as_ref().is_some_and(|table| table.oid == 0) {
            return Err(FormError::Range("table_oid"));
        }
        if let Some(client) = &self.actor.client
            && client.parse::<IpAddr>().is_err()
        {
            return Err(FormError::Address(client.clone().into_owned()));
        }
        let operation = self
            .operation
            .parse::<Operation>()
            .map_err(|_| FormError::Operation(self.operation.clone().into_owned()))?;
        self.check_members(operation)?;
        if operation.is_row_change() {
            if let Some(key) = &self.key {
                check_columns("key", key)?;
            }
            match (&self.old, &self.new) {
                (Some(old), Some(new)) => check_same_columns(old, new)?,
                (Some(old), None) => check_columns("old", old)?,
                (None, Some(new)) => check_columns("new", new)?,
                (None, None) => {}
            }
        } else {
            if let Some(old) = &self.old {
                check_details(operation, "old", old)?;
            }
            if let Some(new) = &self.new {
                check_details(operation, "new", new)?;
            }
        }
        if let Some(context) = &self.context {
            json::validate_one_line_object(context).map_err(|error| FormError::Json("context", error))?;
        }
        Ok(())
    }

    /// The table as people write it, `schema.table`, names quoted where they must be.
    pub fn relation(&self) -> Option<String> {
        self.table.as_ref().map(Table::to_string)
    }

    fn check_members(&self, operation: Operation) -> Result<(), FormError> {
        let present =
            [self.command.is_some(), self.table.is_some(), self.key.is_some(), self.old.is_some(), self.new.is_some()];
        for ((rule, present), member) in rules(operation).into_iter().zip(present).zip(MEMBERS) {
            match (rule, present) {
                (Presence::Yes, false) => return Err(FormError::Missing(operation, member)),
                (Presence::No, true) => return Err(FormError::Unexpected(operation, member)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What an entry records; docs/format.md, section 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A row was inserted.
    Insert,
    /// A row was changed.
    Update,
    /// A row was deleted.
    Delete,
    /// A table was emptied.
    Truncate,
    /// A row was there when its table was put under protection.
    Baseline,
    /// From here on changes of the table are recorded.
    Protect,
    /// From here on they are not.
    Unprotect,
    /// The ledger goes on in another database, on another server, or from an earlier state.
    Incarnation,
    /// From here on checkpoints are signed with another key.
    Key,
    /// The definition of a table was changed, or the table was dropped.
    Ddl,
    /// The guards were opened for the rest of a transaction.
    Maintenance,
}

impl Operation {
    /// All operations.
    pub const ALL: [Operation; 11] = [
        Operation::Insert,
        Operation::Update,
        Operation::Delete,
        Operation::Truncate,
        Operation::Baseline,
        Operation::Protect,
        Operation::Unprotect,
        Operation::Incarnation,
        Operation::Key,
        Operation::Ddl,
        Operation::Maintenance,
    ];

    /// The name of the operation in the line.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Insert => "INSERT",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Truncate => "TRUNCATE",
            Operation::Baseline => "BASELINE",
            Operation::Protect => "PROTECT",
            Operation::Unprotect => "UNPROTECT",
            Operation::Incarnation => "INCARNATION",
            Operation::Key => "KEY",
            Operation::Ddl => "DDL",
            Operation::Maintenance => "MAINTENANCE",
        }
    }

    /// Whether entries of the operation tell of one row.
    pub fn is_row_change(self) -> bool {
        matches!(self, Operation::Insert | Operation::Update | Operation::Delete | Operation::Baseline)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Operation {
    type Err = UnknownOperation;

    /// Takes exactly the names that [`Operation::as_str`] gives.
    fn from_str(text: &str) -> Result<Operation, UnknownOperation> {
        Operation::ALL.into_iter().find(|operation| operation.as_str() == text).ok_or(UnknownOperation)
    }
}

/// The text is not the name of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown operation")]
pub struct UnknownOperation;

/// Writes `schema.table`, names quoted as PostgreSQL would, but for key words.
impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (separator, name) in [("", &self.schema), (".", &self.name)] {
            let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if plain {
                write!(f, "{separator}{name}")?;
            } else {
                write!(f, "{separator}\"{}\"", name.replace('"', "\"\""))?;
            }
        }
        Ok(())
    }
}

/// A time: microseconds since 1970-01-01 00:00 UTC, in the proleptic Gregorian calendar, years 0000 to 9999, no leap seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 0000-01-01T00:00:00.000000Z.
    pub const MIN: Timestamp = Timestamp(-62_167_219_200_000_000);
    /// 9999-12-31T23:59:59.999999Z.
    pub const MAX: Timestamp = Timestamp(253_402_300_799_999_999);

    /// `None` outside of the years 0000 to 9999, which the line cannot say.
    pub fn new(micros: i64) -> Option<Timestamp> {
        (Timestamp::MIN.0..=Timestamp::MAX.0).contains(&micros).then_some(Timestamp(micros))
    }

    /// Microseconds since 1970-01-01 00:00 UTC.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// As [`Timestamp::write`], and quicker when the time before was of the same second.
    pub(crate) fn write_near(&self, near: &mut NearTime, out: &mut Vec<u8>) {
        let second = self.0.div_euclid(1_000_000);
        if near.second != Some(second) {
            *near = NearTime { second: Some(second), text: self.text() };
        }
        out.extend_from_slice(&near.text);
        // Put where it belongs and not into what is remembered: a copy of what has just been written would wait for that.
        if let Some(text) = out.last_chunk_mut() {
            put_fraction(text, self.0.rem_euclid(1_000_000) as u64);
        }
    }

    /// Appends `YYYY-MM-DDTHH:MM:SS.ffffffZ`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text());
    }

    fn text(&self) -> [u8; 27] {
        let (year, month, day) = civil_from_days(self.0.div_euclid(MICROS_PER_DAY));
        let micros = self.0.rem_euclid(MICROS_PER_DAY) as u64;
        let seconds = micros / 1_000_000;
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        put_pair(&mut text, 0, year / 100);
        put_pair(&mut text, 2, year);
        put_pair(&mut text, 5, month);
        put_pair(&mut text, 8, day);
        put_pair(&mut text, 11, seconds / 3600);
        put_pair(&mut text, 14, seconds / 60 % 60);
        put_pair(&mut text, 17, seconds % 60);
        put_fraction(&mut text, micros % 1_000_000);
        text
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(27);
        self.write(&mut text);
        f.pad(std::str::from_utf8(&text).expect("digits are ASCII"))
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    /// Takes exactly what [`Timestamp::write`] writes.
    fn from_str(text: &str) -> Result<Timestamp, ParseTimestampError> {
        parse_timestamp(text.as_bytes()).ok_or(ParseTimestampError)
    }
}

/// The text is not a time of the form `YYYY-MM-DDTHH:MM:SS.ffffffZ`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is written YYYY-MM-DDTHH:MM:SS.ffffffZ")]
pub struct ParseTimestampError;

/// The line is not one that [`Entry::write_line`] would write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The version is another one than [`VERSION`].
    #[error("format version {0} is not known")]
    UnknownVersion(String),
    /// The line does not begin with a version.
    #[error("the line does not begin with its version")]
    NoVersion,
    /// The line is not UTF-8 from this byte on.
    #[error("the line is not UTF-8 at byte {0}")]
    Utf8(usize),
    /// The line is not a JSON object without white space.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A member is not there, or not in its place.
    #[error("member \"{0}\" is missing")]
    Missing(&'static str),
    /// A member has a name that is not known, or stands in the wrong place.
    #[error("member \"{0}\" is not known or not in its place")]
    Unexpected(String),
    /// A member has a value that it cannot have.
    #[error("member \"{0}\" has no valid value")]
    Value(&'static str),
    /// The line says the same as an entry, but in another spelling.
    #[error("the line is not in its only form from byte {at} on")]
    NotCanonical {
        /// The first byte that differs.
        at: usize,
    },
}

/// An entry breaks a rule of docs/format.md, sections 2 and 3.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// Chains are numbered from 1 to 2147483647.
    #[error("chain {0} is not between 1 and 2147483647")]
    Chain(u32),
    /// A number that is 0 or too large.
    #[error("member \"{0}\" is out of range")]
    Range(&'static str),
    /// `client_addr` is not the text of an IPv4 or IPv6 address.
    #[error("\"{0}\" is not an address")]
    Address(String),
    /// The operation is not one of [`Operation::ALL`].
    #[error("operation \"{0}\" is not known")]
    Operation(String),
    /// The operation needs a member that is not there.
    #[error("an entry with operation {0} needs member \"{1}\"")]
    Missing(Operation, &'static str),
    /// The operation cannot have a member that is there.
    #[error("an entry with operation {0} cannot have member \"{1}\"")]
    Unexpected(Operation, &'static str),
    /// A member is not an object as it should be.
    #[error("member \"{0}\" is not as it should be: {1}")]
    Json(&'static str, JsonError),
    /// An object of columns holds a column twice.
    #[error("member \"{0}\" holds a column twice")]
    Twice(&'static str),
    /// `old` and `new` of an UPDATE hold different columns.
    #[error("\"old\" and \"new\" do not hold the same columns in the same order")]
    Columns,
    /// `old` or `new` of an operation without a row lacks a detail.
    #[error("member \"{1}\" of an entry with operation {0} lacks \"{2}\"")]
    Detail(Operation, &'static str, &'static str),
}

/// Whether a member must, may or must not be present.
#[derive(Clone, Copy)]
enum Presence {
    Yes,
    No,
    Any,
}

/// The members that an operation needs or cannot have.
const MEMBERS: [&str; 5] = ["command", "table_oid", "key", "old", "new"];

/// The rules for [`MEMBERS`].
fn rules(operation: Operation) -> [Presence; 5] {
    use Presence::{Any, No, Yes};
    match operation {
        Operation::Insert => [Yes, Yes, Any, No, Yes],
        Operation::Update => [Yes, Yes, Any, Yes, Yes],
        Operation::Delete => [Yes, Yes, Any, Yes, No],
        Operation::Baseline => [No, Yes, Any, No, Yes],
        Operation::Truncate => [No, Yes, No, No, No],
        Operation::Protect | Operation::Unprotect => [No, Yes, No, No, Yes],
        Operation::Incarnation => [No, Any, No, No, Yes],
        Operation::Key | Operation::Maintenance => [No, No, No, No, Yes],
        Operation::Ddl => [No, Yes, No, Any, Yes],
    }
}

/// Whether an operation has the members that it needs, and none that it cannot have: command, table, key, old, new.
pub(crate) fn is_complete(operation: Operation, present: [bool; 5]) -> bool {
    rules(operation).into_iter().zip(present).all(|(rule, present)| match rule {
        Presence::Yes => present,
        Presence::No => !present,
        Presence::Any => true,
    })
}

fn check_columns(member: &'static str, text: &str) -> Result<(), FormError> {
    let mut columns = Scanner::columns(text);
    let mut names = Names::new();
    while let Some(name) = next_column(member, &mut columns)? {
        if !names.add(name) {
            return Err(FormError::Twice(member));
        }
    }
    Ok(())
}

fn check_same_columns(old: &str, new: &str) -> Result<(), FormError> {
    let mut before = Scanner::columns(old);
    let mut after = Scanner::columns(new);
    let mut names = Names::new();
    let mut same = true;
    // Both are read to their ends: an object that is not well-formed is worse news.
    loop {
        match (next_column("old", &mut before)?, next_column("new", &mut after)?) {
            (None, None) if same => return Ok(()),
            (None, None) => return Err(FormError::Columns),
            (Some(old), _) if !names.add(old) => return Err(FormError::Twice("old")),
            (old, new) => same &= old == new,
        }
    }
}

/// The name of the next column as written. Names have one spelling, so these texts can be compared.
fn next_column<'a>(member: &'static str, columns: &mut Scanner<'a>) -> Result<Option<&'a str>, FormError> {
    let column = columns.next_member().map_err(|error| FormError::Json(member, error))?;
    Ok(column.map(|column| column.raw_name))
}

/// The names of columns seen so far. Most tables have few columns, and comparing each with each is then cheapest; beyond that, a set, since an
/// object may have been made to be slow to check.
struct Names<'a> {
    few: [&'a str; Names::FEW],
    count: usize,
    many: BTreeSet<&'a str>,
}

impl<'a> Names<'a> {
    const FEW: usize = 16;

    fn new() -> Names<'a> {
        Names { few: [""; Names::FEW], count: 0, many: BTreeSet::new() }
    }

    /// Says whether the name is new.
    fn add(&mut self, name: &'a str) -> bool {
        if self.few[..self.count].contains(&name) {
            return false;
        }
        if self.count < Names::FEW {
            self.few[self.count] = name;
            self.count += 1;
            return true;
        }
        self.many.insert(name)
    }
}

/// Checks `old` or `new` of an operation without a row.
fn check_details(operation: Operation, member: &'static str, text: &str) -> Result<(), FormError> {
    let names: &[&'static str] = match (operation, member) {
        (Operation::Protect, _) => &["kind", "images", "exclude", "baseline"],
        (Operation::Unprotect | Operation::Maintenance, _) => &["reason"],
        (Operation::Incarnation, _) => &["system_identifier", "database_oid", "tables"],
        (Operation::Key, _) => &["vkey"],
        (Operation::Ddl, "old") => &["schema", "name", "columns", "types", "key"],
        (Operation::Ddl, _) => &["command"],
        _ => &[],
    };
    let mut found = 0_u32;
    let mut details = Scanner::compact(text);
    while let Some(detail) = details.next_member().map_err(|error| FormError::Json(member, error))? {
        if let Some(place) = names.iter().position(|name| *name == detail.raw_name) {
            found |= 1 << place;
        }
    }
    match (0..names.len()).find(|place| found & (1 << place) == 0) {
        Some(place) => Err(FormError::Detail(operation, member, names[place])),
        None => Ok(()),
    }
}

/// Refuses another version before anything else is read: only its own version says what its line looks like.
pub(crate) fn check_version(line: &str) -> Result<(), DecodeError> {
    let version = line.strip_prefix("{\"v\":").ok_or(DecodeError::NoVersion)?;
    let length = version.bytes().take_while(u8::is_ascii_digit).count();
    match &version[..length] {
        "" => Err(DecodeError::NoVersion),
        "1" => Ok(()),
        // A version is short; whoever wrote a long one shall not fill the report with it.
        other => Err(DecodeError::UnknownVersion(other.chars().take(20).collect())),
    }
}

/// Reads the members of a line in their order.
pub(crate) struct Reader<'a> {
    scanner: Scanner<'a>,
    next: Option<json::RawMember<'a>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(line: &'a str) -> Result<Reader<'a>, DecodeError> {
        let mut scanner = Scanner::columns(line);
        let next = scanner.next_member()?;
        Ok(Reader { scanner, next })
    }

    pub(crate) fn required<T>(
        &mut self,
        name: &'static str,
        decode: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, DecodeError> {
        self.optional(name, decode)?.ok_or(DecodeError::Missing(name))
    }

    fn optional<T>(
        &mut self,
        name: &'static str,
        decode: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<Option<T>, DecodeError> {
        match &self.next {
            Some(member) if member.raw_name == name => {
                let value = decode(member.value).ok_or(DecodeError::Value(name))?;
                self.next = self.scanner.next_member()?;
                Ok(Some(value))
            }
            _ => Ok(None),
        }
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.next {
            Some(member) => Err(DecodeError::Unexpected(member.raw_name.chars().take(80).collect())),
            None => Ok(()),
        }
    }
}

pub(crate) fn string(value: &str) -> Option<Cow<'_, str>> {
    json::string_value(value)
}

fn raw(value: &str) -> Option<Cow<'_, str>> {
    Some(Cow::Borrowed(value))
}

fn push_json(out: &mut Vec<u8>, name: &[u8], value: &Option<Cow<'_, str>>) {
    if let Some(value) = value {
        out.extend_from_slice(name);
        out.extend_from_slice(value.as_bytes());
    }
}

fn push_text(out: &mut Vec<u8>, name: &[u8], value: &Option<Cow<'_, str>>) {
    if let Some(value) = value {
        out.extend_from_slice(name);
        json::push_string(out, value.as_bytes());
    }
}

/// The numbers 00 to 99.
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

pub(crate) fn push_decimal(out: &mut Vec<u8>, mut number: u64) {
    if number < 10 {
        return out.push(b'0' + number as u8);
    }
    // u64::MAX has 20 digits.
    let mut digits = [0; 20];
    let count = number.ilog10() as usize + 1;
    let mut end = count;
    while number >= 10 {
        digits[end - 2..end].copy_from_slice(&PAIRS[(number % 100) as usize]);
        number /= 100;
        end -= 2;
    }
    if end > 0 {
        digits[0] = b'0' + number as u8;
    }
    // A copy of fixed length is much cheaper than one of any.
    out.extend_from_slice(&digits);
    out.truncate(out.len() - digits.len() + count);
}

/// A number below 10,000 with its leading zeros.
#[inline]
pub(crate) fn four_digits(number: u64) -> [u8; 4] {
    let [[a, b], [c, d]] = [PAIRS[(number / 100 % 100) as usize], PAIRS[(number % 100) as usize]];
    [a, b, c, d]
}

/// A time that was written, and what was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct NearTime {
    second: Option<i64>,
    text: [u8; 27],
}

fn put_fraction(text: &mut [u8; 27], micros: u64) {
    put_pair(text, 20, micros / 10_000);
    put_pair(text, 22, micros / 100);
    put_pair(text, 24, micros);
}

/// Writes the last two digits of a number.
fn put_pair(text: &mut [u8; 27], at: usize, number: u64) {
    text[at..at + 2].copy_from_slice(&PAIRS[(number % 100) as usize]);
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Days from 0000-03-01 to 1970-01-01. Years are counted from March here, so that the leap day is the last of its year.
const DAYS_TO_EPOCH: i64 = 719_468;
const DAYS_PER_400_YEARS: i64 = 146_097;

/// Year, month and day of a number of days since 1970-01-01, of a year not before 0000. After Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms".
fn civil_from_days(days: i64) -> (u64, u64, u64) {
    let days = days + DAYS_TO_EPOCH;
    let era = days.div_euclid(DAYS_PER_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_PER_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year as u64, month as u64, day as u64)
}

/// The reverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_PER_400_YEARS + day_of_era - DAYS_TO_EPOCH
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn parse_timestamp(text: &[u8]) -> Option<Timestamp> {
    let form = b"0000-00-00T00:00:00.000000Z";
    let fits = text.len() == form.len()
        && text.iter().zip(form).all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form });
    if !fits {
        return None;
    }
    let number =
        |range: std::ops::Range<usize>| text[range].iter().fold(0_i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let (hour, minute, second) = (number(11..13), number(14..16), number(17..19));
    let valid = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid {
        return None;
    }
    let seconds = (hour * 60 + minute) * 60 + second;
    Timestamp::new(days_from_civil(year, month, day) * MICROS_PER_DAY + seconds * 1_000_000 + number(20..26))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn golden() -> Entry<'static> {
        Entry {
            ledger: "0b8f4f0e-7d0e-4c58-9d2a-0c6f6f1f5a11".parse().unwrap(),
            chain: 3,
            seq: 2,
            prev: Hash::of(b"the entry before"),
            id: 41,
            at: "2025-11-22T02:30:00.000001Z".parse().unwrap(),
            xid: 4_294_967_300,
            subxid: Some(4_294_967_301),
            command: Some(0),
            operation: "UPDATE".into(),
            table: Some(Table { oid: 16390, schema: "public".into(), name: "order".into() }),
            key: Some(r#"{"id":7}"#.into()),
            old: Some(r#"{"note":"","state":null,"extra": null}"#.into()),
            new: Some(r#"{"note":null,"state":"paid","extra":{"a": [1]} }"#.into()),
            actor: Actor {
                login: Some("app".into()),
                session: Some("app".into()),
                user: Some("owner".into()),
                application: Some("psql \"x\"".into()),
                client: Some("2001:db8::1".into()),
            },
            context: Some(r#"{"request":"r-1"}"#.into()),
        }
    }

    fn line(entry: &Entry<'_>) -> String {
        let mut out = Vec::new();
        entry.write_line(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn line_has_the_members_of_the_format_in_its_order() {
        let prev = Hash::of(b"the entry before");
        assert_eq!(
            line(&golden()),
            format!(
                concat!(
                    r#"{{"v":1,"ledger":"0b8f4f0e-7d0e-4c58-9d2a-0c6f6f1f5a11","chain":3,"seq":"2","prev":"{}","id":"41","#,
                    r#""at":"2025-11-22T02:30:00.000001Z","xid":"4294967300","subxid":"4294967301","command":0,"op":"UPDATE","table_oid":16390,"#,
                    r#""table_schema":"public","table_name":"order","key":{{"id":7}},"old":{{"note":"","state":null,"extra": null}},"#,
                    r#""new":{{"note":null,"state":"paid","extra":{{"a": [1]}} }},"login_name":"app","session_name":"app","#,
                    r#""user_name":"owner","application_name":"psql \"x\"","client_addr":"2001:db8::1","context":{{"request":"r-1"}}}}"#
                ),
                prev
            )
        );
        let mut buffer = b"rest of another line".to_vec();
        assert_eq!(golden().hash_with(&mut buffer), Hash::of(line(&golden()).as_bytes()));
        assert_eq!(buffer, line(&golden()).as_bytes());
        golden().check_form().unwrap();
    }

    #[test]
    fn flipping_any_bit_of_the_line_makes_another_hash_and_another_entry() {
        let entry = golden();
        let text = line(&entry);
        let hash = Hash::of(text.as_bytes());
        for byte in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[byte] ^= 1 << bit;
                assert_ne!(Hash::of(&bytes), hash);
                if let Ok(flipped) = str::from_utf8(&bytes)
                    && let Ok(read) = Entry::parse(flipped)
                {
                    assert_ne!(read, entry, "bit {bit} of byte {byte}");
                }
            }
        }
    }

    #[test]
    fn cut_and_lengthened_lines_are_refused() {
        let text = line(&golden());
        for end in 0..text.len() {
            assert!(Entry::parse(&text[..end]).is_err(), "{end}");
        }
        for extra in [" ", "\n", "}", "{}", ",", "\0"] {
            assert!(Entry::parse(&format!("{text}{extra}")).is_err(), "{extra:?}");
            assert!(Entry::parse(&format!("{extra}{text}")).is_err(), "{extra:?}");
        }
    }

    #[test]
    fn other_spellings_of_the_same_entry_are_refused() {
        let text = line(&golden());
        for (from, to) in [
            ("\"chain\":3", "\"chain\":03"),
            ("\"chain\":3", "\"chain\":3.0"),
            ("\"chain\":3", "\"chain\": 3"),
            ("\"chain\":3", "\"chain\":\"3\""),
            ("\"seq\":\"2\"", "\"seq\":\"02\""),
            ("\"seq\":\"2\"", "\"seq\":\"+2\""),
            ("\"seq\":\"2\"", "\"seq\":2"),
            ("\"subxid\":\"4294967301\"", "\"subxid\":4294967301"),
            ("\"subxid\":\"4294967301\"", "\"subxid\":\"04294967301\""),
            ("\"xid\":\"4294967300\",\"subxid\":\"4294967301\"", "\"subxid\":\"4294967301\",\"xid\":\"4294967300\""),
            ("0b8f4f0e", "0B8F4F0E"),
            ("0b8f4f0e-7d0e-4c58-9d2a-0c6f6f1f5a11", "0b8f4f0e7d0e4c589d2a0c6f6f1f5a11"),
            (".000001Z", ".000001+00"),
            (".000001Z", ".1Z"),
            ("UPDATE", "\\u0055PDATE"),
            ("\"UPDATE\"", "\"UPDATE\" "),
            ("psql \\\"x", "psql \\u0022x"),
            ("\"v\":1", "\"v\":1.0"),
            ("\"v\":1,", "\"v\":1,\"v\":1,"),
            (",\"command\":0", ""),
            ("\"command\":0,\"op\":\"UPDATE\"", "\"op\":\"UPDATE\",\"command\":0"),
            ("\"table_schema\":\"public\",", ""),
            ("\"table_oid\":16390,", ""),
            ("\"login_name\":\"app\"", "\"login_name\":null"),
            ("}}", "},\"more\":1}"),
        ] {
            let other = text.replacen(from, to, 1);
            assert_ne!(other, text, "{from}");
            if from == ",\"command\":0" {
                // Absent members are allowed by the line; what an operation needs is for check_form.
                let entry = Entry::parse(&other).unwrap();
                assert_eq!(entry.check_form(), Err(FormError::Missing(Operation::Update, "command")));
            } else {
                assert!(Entry::parse(&other).is_err(), "{from} -> {to}");
            }
        }
    }

    #[test]
    fn unknown_version_is_an_error_of_its_own() {
        let text = line(&golden()).replacen("{\"v\":1,", "{\"v\":2,\"news\":true,", 1);
        assert_eq!(Entry::parse(&text), Err(DecodeError::UnknownVersion("2".to_owned())));
        assert_eq!(Entry::parse("{\"v\":10}"), Err(DecodeError::UnknownVersion("10".to_owned())));
        for none in ["", "{}", "{\"v\":\"1\"}", "{\"ledger\":\"x\",\"v\":1}", "null"] {
            assert_eq!(Entry::parse(none), Err(DecodeError::NoVersion), "{none}");
        }
    }

    #[test]
    fn null_empty_absent_and_json_null_differ() {
        let with = |new: Option<&'static str>, application: Option<&'static str>| {
            let mut entry = golden();
            entry.new = new.map(Cow::Borrowed);
            entry.actor.application = application.map(Cow::Borrowed);
            entry
        };
        let texts = [
            with(None, None),
            with(None, Some("")),
            with(None, Some("null")),
            with(Some("{}"), None),
            with(Some(r#"{"a":null}"#), None),
            with(Some(r#"{"a": null}"#), None),
            with(Some(r#"{"a":""}"#), None),
            with(Some(r#"{"a":"null"}"#), None),
        ];
        for (i, a) in texts.iter().enumerate() {
            assert_eq!(Entry::parse(&line(a)).as_ref(), Ok(a));
            for b in &texts[..i] {
                assert_ne!(line(a), line(b));
            }
        }
    }

    #[test]
    fn neighbours_cannot_be_cut_anew() {
        let named = |schema: &'static str, name: &'static str| {
            let mut entry = golden();
            entry.table = Some(Table { oid: 1, schema: schema.into(), name: name.into() });
            line(&entry)
        };
        let texts = [
            named("ab", "c"),
            named("a", "bc"),
            named("", "abc"),
            named("abc", ""),
            named("a\",\"table_name\":\"b", "c"),
            named("a", "b\",\"table_name\":\"c"),
        ];
        for (i, a) in texts.iter().enumerate() {
            assert!(texts[..i].iter().all(|b| a != b));
        }
        let mut entry = golden();
        entry.actor.session = None;
        let mut other = entry.clone();
        (other.actor.login, other.actor.session) = (None, entry.actor.login.clone());
        assert_ne!(line(&entry), line(&other));
    }

    #[test]
    fn form_asks_for_what_the_operation_needs() {
        use FormError::{Chain, Columns, Detail, Missing, Operation as Unknown, Range, Twice, Unexpected};
        let changed = |change: &dyn Fn(&mut Entry<'static>)| {
            let mut entry = golden();
            change(&mut entry);
            entry.check_form()
        };
        let update = Operation::Update;
        assert_eq!(changed(&|e| e.chain = 0), Err(Chain(0)));
        assert_eq!(changed(&|e| e.chain = 1 << 31), Err(Chain(1 << 31)));
        assert_eq!(changed(&|e| e.chain = i32::MAX as u32), Ok(()));
        assert_eq!(changed(&|e| e.seq = 0), Err(Range("seq")));
        assert_eq!(changed(&|e| e.id = 0), Err(Range("id")));
        assert_eq!(changed(&|e| e.subxid = None), Ok(()));
        assert_eq!(changed(&|e| e.subxid = Some(e.xid)), Err(Range("subxid")));
        assert_eq!(changed(&|e| e.subxid = Some(0)), Err(Range("subxid")));
        assert_eq!(changed(&|e| (e.xid, e.subxid) = (0, Some(u64::MAX))), Ok(()));
        assert_eq!(changed(&|e| e.table.as_mut().unwrap().oid = 0), Err(Range("table_oid")));
        assert_eq!(changed(&|e| e.operation = "update".into()), Err(Unknown("update".to_owned())));
        assert_eq!(changed(&|e| e.table = None), Err(Missing(update, "table_oid")));
        assert_eq!(changed(&|e| e.command = None), Err(Missing(update, "command")));
        assert_eq!(changed(&|e| e.old = None), Err(Missing(update, "old")));
        assert_eq!(changed(&|e| e.new = None), Err(Missing(update, "new")));
        assert_eq!(changed(&|e| e.seq = 1 << 63), Err(Range("seq")));
        assert_eq!(changed(&|e| e.id = 1 << 63), Err(Range("id")));
        for client in ["", "localhost", "192.0.2.7/32", "192.0.2.256"] {
            let address = FormError::Address(client.to_owned());
            assert_eq!(changed(&|e| e.actor.client = Some(client.into())), Err(address));
        }
        assert_eq!(changed(&|e| e.actor.client = Some("192.0.2.7".into())), Ok(()));
        assert_eq!(changed(&|e| e.key = Some(r#"{"a":1,"b":1,"a":1}"#.into())), Err(Twice("key")));
        for columns in [5, 16, 17, 40] {
            let object = |names: &mut dyn Iterator<Item = usize>| {
                let members: Vec<String> = names.map(|name| format!("\"{name}\":1")).collect();
                format!("{{{}}}", members.join(","))
            };
            let good = object(&mut (0..columns));
            assert_eq!(changed(&|e| e.key = Some(good.clone().into())), Ok(()));
            for name in [0, columns - 1] {
                let bad = object(&mut (0..columns).chain([name]));
                assert_eq!(changed(&|e| e.key = Some(bad.clone().into())), Err(Twice("key")));
            }
        }
        assert_eq!(changed(&|e| e.key = None), Ok(()));
        assert_eq!(changed(&|e| e.context = None), Ok(()));
        assert_eq!(changed(&|e| e.operation = "INSERT".into()), Err(Unexpected(Operation::Insert, "old")));
        assert_eq!(changed(&|e| e.operation = "DELETE".into()), Err(Unexpected(Operation::Delete, "new")));
        assert_eq!(changed(&|e| e.operation = "TRUNCATE".into()), Err(Unexpected(Operation::Truncate, "command")));
        let baseline = |command| {
            changed(&|e| {
                (e.command, e.old) = (command, None);
                e.operation = "BASELINE".into();
            })
        };
        assert_eq!(baseline(None), Ok(()));
        assert_eq!(baseline(Some(0)), Err(Unexpected(Operation::Baseline, "command")));
        for (operation, image) in [("INSERT", "old"), ("DELETE", "new")] {
            let result = changed(&|e| {
                e.command = None;
                e.operation = operation.into();
                match image {
                    "old" => e.old = None,
                    _ => e.new = None,
                }
            });
            assert_eq!(result, Err(Missing(operation.parse().unwrap(), "command")));
        }
        for new in [
            "{}",
            r#"{"note":1,"state":2}"#,
            r#"{"state":1,"note":2,"extra":3}"#,
            r#"{"note":1,"state":2,"extra":3,"x":4}"#,
        ] {
            assert_eq!(changed(&|e| e.new = Some(new.into())), Err(Columns), "{new}");
        }
        assert_eq!(changed(&|e| (e.old, e.new) = (Some("{}".into()), Some("{}".into()))), Ok(()));
        for (member, bad) in
            [("key", "7"), ("key", "{\"id\": 7} "), ("old", "null"), ("new", "{\"a\":1}\n"), ("context", "[]")]
        {
            let result = changed(&|e| match member {
                "key" => e.key = Some(bad.into()),
                "old" => e.old = Some(bad.into()),
                "new" => e.new = Some(bad.into()),
                _ => e.context = Some(bad.into()),
            });
            assert!(matches!(result, Err(FormError::Json(name, _)) if name == member), "{member} {bad} {result:?}");
        }
        let details = |operation: Operation, new: &'static str| {
            changed(&|e| {
                (e.command, e.key, e.old, e.context) = (None, None, None, None);
                e.operation = operation.as_str().into();
                e.new = Some(new.into());
            })
        };
        let protect = r#"{"kind":"r","images":"changed","exclude":["note"],"baseline":true}"#;
        assert_eq!(details(Operation::Protect, protect), Ok(()));
        assert_eq!(
            details(Operation::Protect, r#"{"kind":"r","images":"full","baseline":true}"#),
            Err(Detail(Operation::Protect, "new", "exclude"))
        );
        assert_eq!(details(Operation::Unprotect, r#"{"reason":"moved away"}"#), Ok(()));
        for spaced in [
            r#"{ "reason":"moved"}"#,
            r#"{"reason" :"moved"}"#,
            r#"{"reason": "moved"}"#,
            r#"{"reason":"moved" }"#,
            r#"{"reason":"moved","more":[1, 2]}"#,
            r#"{"reason":"moved","more":{"a":{ }}}"#,
            "{\"reason\":\"moved\"}\t",
        ] {
            let result = details(Operation::Unprotect, spaced);
            assert!(matches!(result, Err(FormError::Json("new", _))), "{spaced} {result:?}");
        }
        assert_eq!(details(Operation::Unprotect, "{}"), Err(Detail(Operation::Unprotect, "new", "reason")));
        assert_eq!(
            details(Operation::Incarnation, r#"{"system_identifier":"7","database_oid":5,"tables":{}}"#),
            Ok(())
        );
        let of_ledger = |operation: Operation, table: bool, new: &'static str| {
            changed(&|e| {
                (e.command, e.key, e.old, e.context) = (None, None, None, None);
                if !table {
                    e.table = None;
                }
                (e.operation, e.new) = (operation.as_str().into(), Some(new.into()));
            })
        };
        let key = |table: bool, new: &'static str| of_ledger(Operation::Key, table, new);
        assert_eq!(key(false, r#"{"vkey":"a+b+c"}"#), Ok(()));
        assert_eq!(key(false, "{}"), Err(Detail(Operation::Key, "new", "vkey")));
        assert_eq!(key(true, r#"{"vkey":"a+b+c"}"#), Err(Unexpected(Operation::Key, "table_oid")));
        let maintenance = |table: bool, new: &'static str| of_ledger(Operation::Maintenance, table, new);
        assert_eq!(maintenance(false, r#"{"reason":"moved"}"#), Ok(()));
        assert_eq!(maintenance(false, "{}"), Err(Detail(Operation::Maintenance, "new", "reason")));
        assert_eq!(maintenance(true, r#"{"reason":"moved"}"#), Err(Unexpected(Operation::Maintenance, "table_oid")));
        let ddl = |old: Option<&'static str>, new: &'static str| {
            changed(&|e| {
                (e.command, e.key, e.context) = (None, None, None);
                (e.operation, e.old, e.new) = ("DDL".into(), old.map(Into::into), Some(new.into()));
            })
        };
        let before = r#"{"schema":"public","name":"orders","columns":["id"],"types":["integer"],"key":["id"]}"#;
        assert_eq!(ddl(Some(before), r#"{"command":"DROP TABLE"}"#), Ok(()));
        assert_eq!(ddl(None, r#"{"command":"CREATE TRIGGER"}"#), Ok(()));
        assert_eq!(ddl(None, r#"{"statement":"DROP TABLE t"}"#), Err(Detail(Operation::Ddl, "new", "command")));
        assert_eq!(
            ddl(Some(r#"{"schema":"public"}"#), r#"{"command":"x"}"#),
            Err(Detail(Operation::Ddl, "old", "name"))
        );
        let spaced = ddl(Some(r#"{"schema": "public"}"#), r#"{"command":"x"}"#);
        assert!(matches!(spaced, Err(FormError::Json("old", _))), "{spaced:?}");
    }

    #[test]
    fn operations_read_back() {
        for operation in Operation::ALL {
            assert_eq!(operation.as_str().parse(), Ok(operation));
        }
        assert_eq!("insert".parse::<Operation>(), Err(UnknownOperation));
    }

    #[test]
    fn relation_is_quoted_where_it_must_be() {
        let relation = |schema: &'static str, name: &'static str| {
            Table { oid: 1, schema: schema.into(), name: name.into() }.to_string()
        };
        assert_eq!(relation("public", "order_2"), "public.order_2");
        assert_eq!(relation("Größe", "a\"b"), "\"Größe\".\"a\"\"b\"");
        assert_eq!(relation("a.b", "2c"), "\"a.b\".\"2c\"");
        assert_eq!(relation("", "_"), "\"\"._");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        // Seconds from `date -u -d ... +%s`.
        for (text, seconds) in [
            ("0000-01-01T00:00:00", -62_167_219_200),
            ("0000-02-29T00:00:00", -62_162_121_600),
            ("0000-12-31T23:59:59", -62_135_596_801),
            ("0001-01-01T00:00:00", -62_135_596_800),
            ("1582-10-15T00:00:00", -12_219_292_800),
            ("1600-02-29T12:00:00", -11_670_955_200),
            ("1900-02-28T23:59:59", -2_203_891_201),
            ("1900-03-01T00:00:00", -2_203_891_200),
            ("1969-12-31T23:59:59", -1),
            ("1970-01-01T00:00:00", 0),
            ("2000-02-29T00:00:00", 951_782_400),
            ("2000-03-01T00:00:00", 951_868_800),
            ("2024-02-29T23:59:59", 1_709_251_199),
            ("2038-01-19T03:14:08", 2_147_483_648),
            ("2100-02-28T00:00:00", 4_107_456_000),
            ("2100-03-01T00:00:00", 4_107_542_400),
            ("9999-12-31T23:59:59", 253_402_300_799),
        ] {
            let time = Timestamp::new(seconds * 1_000_000).unwrap();
            assert_eq!(time.to_string(), format!("{text}.000000Z"));
            assert_eq!(format!("{text}.000000Z").parse(), Ok(time));
        }
        assert_eq!(Timestamp::new(-1).unwrap().to_string(), "1969-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp::MIN.to_string(), "0000-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp::MAX.to_string(), "9999-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp::new(Timestamp::MIN.micros() - 1), None);
        assert_eq!(Timestamp::new(Timestamp::MAX.micros() + 1), None);
        assert_eq!(Timestamp::new(i64::MIN), None);
        assert_eq!(Timestamp::new(i64::MAX), None);
    }

    #[test]
    fn days_of_ten_thousand_years_follow_each_other() {
        let (mut year, mut month, mut day) = (0, 1, 1);
        let first = days_from_civil(0, 1, 1);
        let last = days_from_civil(9999, 12, 31);
        assert_eq!(last - first, 3_652_424);
        for days in first..=last {
            assert_eq!(civil_from_days(days), (year as u64, month as u64, day as u64));
            assert_eq!(days_from_civil(year, month, day), days);
            day += 1;
            if day > days_in_month(year, month) {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }

    #[test]
    fn only_one_spelling_of_a_time_is_read() {
        for bad in [
            "",
            "2025-11-22",
            "2025-11-22 02:30:00.000000Z",
            "2025-11-22T02:30:00.000000z",
            "2025-11-22T02:30:00Z",
            "2025-11-22T02:30:00.00000Z",
            "2025-11-22T02:30:00.0000000Z",
            "2025-11-22T02:30:00.000000+00:00",
            "2025-00-22T02:30:00.000000Z",
            "2025-13-22T02:30:00.000000Z",
            "2025-11-00T02:30:00.000000Z",
            "2025-11-31T02:30:00.000000Z",
            "2025-02-29T02:30:00.000000Z",
            "1900-02-29T02:30:00.000000Z",
            "2025-11-22T24:00:00.000000Z",
            "2025-11-22T02:60:00.000000Z",
            "2025-11-22T02:30:60.000000Z",
            "-025-11-22T02:30:00.000000Z",
            "2025-11-22T+2:30:00.000000Z",
        ] {
            assert_eq!(bad.parse::<Timestamp>(), Err(ParseTimestampError), "{bad}");
        }
    }

    fn any_object() -> impl Strategy<Value = Option<Cow<'static, str>>> {
        let value = prop_oneof![
            Just("null".to_owned()),
            Just(" null".to_owned()),
            Just(" [ 1e400 , {\"a\" : \"\\u00e9\"} ] ".to_owned()),
            "-?[1-9][0-9]{0,40}",
            any::<String>().prop_map(|s| {
                let mut out = Vec::new();
                json::push_string(&mut out, s.as_bytes());
                String::from_utf8(out).unwrap()
            }),
        ];
        prop::option::of(prop::collection::vec((any::<String>(), value), 0..4).prop_map(|columns| {
            let mut out = b"{".to_vec();
            for (place, (name, value)) in columns.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                json::push_string(&mut out, name.as_bytes());
                out.push(b':');
                out.extend_from_slice(value.as_bytes());
            }
            out.push(b'}');
            Cow::Owned(String::from_utf8(out).unwrap())
        }))
    }

    fn any_text() -> impl Strategy<Value = Option<Cow<'static, str>>> {
        prop::option::of(any::<String>().prop_map(Cow::Owned))
    }

    fn any_entry() -> impl Strategy<Value = Entry<'static>> {
        let place = (any::<u128>(), any::<u32>(), any::<u64>(), any::<[u8; 32]>(), any::<u64>());
        let xid = (any::<u64>(), any::<Option<u64>>());
        let time = (Timestamp::MIN.micros()..=Timestamp::MAX.micros(), xid, any::<Option<u32>>());
        let table = prop::option::of((any::<u32>(), any::<String>(), any::<String>()));
        let what = (any::<String>(), table, any_object(), any_object(), any_object(), any_object());
        let who = (any_text(), any_text(), any_text(), any_text(), any_text());
        (place, time, what, who).prop_map(|(place, time, what, who)| Entry {
            ledger: Uuid::from_u128(place.0),
            chain: place.1,
            seq: place.2,
            prev: place.3.into(),
            id: place.4,
            at: Timestamp::new(time.0).unwrap(),
            xid: time.1.0,
            subxid: time.1.1,
            command: time.2,
            operation: what.0.into(),
            table: what.1.map(|(oid, schema, name)| Table { oid, schema: schema.into(), name: name.into() }),
            key: what.2,
            old: what.3,
            new: what.4,
            actor: Actor { login: who.0, session: who.1, user: who.2, application: who.3, client: who.4 },
            context: what.5,
        })
    }

    proptest! {
        #[test]
        fn any_entry_reads_back(entry in any_entry()) {
            let text = line(&entry);
            prop_assert!(!text.contains('\n'));
            prop_assert_eq!(Entry::parse(&text), Ok(entry));
            prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok());
        }

        #[test]
        fn any_time_reads_back(micros in Timestamp::MIN.micros()..=Timestamp::MAX.micros()) {
            let time = Timestamp::new(micros).unwrap();
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }

        #[test]
        fn decimals_are_those_of_std(number: u64) {
            let mut out = Vec::new();
            push_decimal(&mut out, number);
            prop_assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}

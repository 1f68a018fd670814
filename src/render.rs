//! Rows as JSON text: docs/format.md, section 2.2.
//!
//! Each column has an encoder, chosen once from its type. No cast, no operator and no function that a user can define takes part: only the output
//! functions of types, which are written in C.

use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

use audit_ledger::Timestamp;
use audit_ledger::json::{push_escaped, push_json_value, push_string};

use crate::error::Error;
use crate::pg::memory::Scratch;
use crate::pg::output::{Depends, Output, Pinned, depends};
use crate::pg::relation::{Column, Relation};
use crate::pg::scan::{Row, Value};
use crate::pg::session;

/// Most bytes of text that one value of the log can hold (MaxAllocSize, less the header of a value).
const MAX_TEXT: usize = 0x3fff_ffff - 4;

/// How a protected table is recorded, and the encoders of its columns.
pub(crate) struct Table {
    pub(crate) oid: pg_sys::Oid,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// Whether an UPDATE records whole rows.
    full_images: bool,
    columns: Vec<Encoded>,
    /// The columns of the primary key, as indexes into `columns`.
    key: Vec<usize>,
    depends: Depends,
    /// Caches of the output functions.
    _home: Scratch,
}

/// Names and types of the recorded columns of a table, and the columns of its primary key. Where it changes, the entries before and after cannot be
/// compared column by column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    #[serde(default)]
    pub(crate) columns: Vec<String>,
    #[serde(default)]
    pub(crate) types: Vec<String>,
    #[serde(default)]
    pub(crate) key: Vec<String>,
}

struct Encoded {
    column: Column,
    /// `"name":`
    label: Vec<u8>,
    encoder: Encoder,
}

enum Encoder {
    Boolean,
    Int2,
    Int4,
    Int8,
    /// A number that its output function prints, or NaN or an infinity.
    Number(Output),
    /// `timestamp` and `timestamptz`: what the text ends with, and the output function for what has no year of four digits.
    Time(&'static [u8], Output),
    /// Types whose text is their stored bytes.
    Text,
    Json,
    Jsonb(Output),
    Other(Output),
}

impl Table {
    /// A table of which all columns are recorded but those named in `excluded`.
    pub(crate) fn new(relation: &Relation, excluded: &[String], full_images: bool) -> Table {
        let home = Scratch::long_lived();
        let columns: Vec<Encoded> = relation
            .columns()
            .into_iter()
            .filter(|column| !excluded.contains(&column.name))
            .map(|column| Encoded::new(column, &home))
            .collect();
        let key = relation
            .primary_key()
            .iter()
            .filter_map(|number| columns.iter().position(|encoded| encoded.column.index + 1 == *number as usize))
            .collect();
        let depends =
            columns.iter().map(|encoded| depends(encoded.column.type_oid)).max().unwrap_or(Depends::Variables);
        Table {
            oid: relation.oid(),
            schema: relation.schema(),
            name: relation.name(),
            full_images,
            columns,
            key,
            depends,
            _home: home,
        }
    }

    /// `schema.name`, for messages.
    pub(crate) fn display(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Whether rows are told apart by a primary key.
    pub(crate) fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

    /// Names of the recorded columns.
    pub(crate) fn column_names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|encoded| encoded.column.name.as_str())
    }

    /// What is recorded: names and types of the columns, and the primary key.
    pub(crate) fn shape(&self) -> Shape {
        let _pinned = Pinned::new(Depends::Settings);
        Shape {
            columns: self.column_names().map(str::to_owned).collect(),
            types: self.columns.iter().map(|encoded| encoded.column.type_name()).collect(),
            key: self.key.iter().map(|index| self.columns[*index].column.name.clone()).collect(),
        }
    }

    /// Fixes what the texts of the columns depend on while the result lives.
    pub(crate) fn pin(&self) -> Pinned {
        Pinned::new(self.depends)
    }

    /// Writes the key columns of a row as an object; nothing when the table has no key.
    pub(crate) fn write_key<'a>(&'a self, row: &Row<'a>, out: &mut Vec<u8>) -> Result<(), Error> {
        if !self.has_key() {
            return Ok(());
        }
        self.write(row, self.key.iter().copied(), out)
    }

    /// Writes all recorded columns of a row as an object.
    pub(crate) fn write_row<'a>(&'a self, row: &Row<'a>, out: &mut Vec<u8>) -> Result<(), Error> {
        self.write(row, 0..self.columns.len(), out)
    }

    /// Writes the columns with these indexes as an object.
    pub(crate) fn write_columns<'a>(
        &'a self,
        row: &Row<'a>,
        columns: &[usize],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.write(row, columns.iter().copied(), out)
    }

    /// Which columns an UPDATE records, as indexes for [`Table::write_columns`]: those whose stored bytes differ, or all where whole rows are recorded.
    /// `None` when nothing recorded has changed.
    ///
    /// A value kept out of line that both rows share is not read.
    pub(crate) fn changed<'a>(&'a self, old: &Row<'a>, new: &Row<'a>, changed: &mut Vec<usize>) -> Option<()> {
        changed.clear();
        for (index, encoded) in self.columns.iter().enumerate() {
            let same = match (old.value(&encoded.column), new.value(&encoded.column)) {
                (None, None) => true,
                (Some(before), Some(after)) => before.is_same(&after),
                _ => false,
            };
            if !same {
                changed.push(index);
            }
        }
        if changed.is_empty() {
            return None;
        }
        let key_changed = changed.iter().any(|index| self.key.contains(index));
        if self.full_images || !self.has_key() || key_changed {
            self.all(changed);
        }
        Some(())
    }

    /// Which columns an UPDATE records that changes none: none, or all where whole rows are recorded.
    pub(crate) fn unchanged(&self, columns: &mut Vec<usize>) {
        columns.clear();
        if self.full_images || !self.has_key() {
            self.all(columns);
        }
    }

    fn all(&self, columns: &mut Vec<usize>) {
        columns.clear();
        columns.extend(0..self.columns.len());
    }

    fn write<'a>(
        &'a self,
        row: &Row<'a>,
        columns: impl Iterator<Item = usize>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        out.push(b'{');
        let mut first = true;
        for index in columns {
            let encoded = &self.columns[index];
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            out.extend_from_slice(&encoded.label);
            match row.value(&encoded.column) {
                None => out.extend_from_slice(b"null"),
                Some(value) => encoded.encoder.write(&value, out)?,
            }
            if out.len() > MAX_TEXT {
                return Err(Error::TooLarge { relation: self.display(), bytes: out.len() });
            }
        }
        out.push(b'}');
        Ok(())
    }
}

impl Encoded {
    fn new(column: Column, home: &Scratch) -> Encoded {
        let mut label = Vec::with_capacity(column.name.len() + 3);
        push_string(&mut label, column.name.as_bytes());
        label.push(b':');
        let encoder = Encoder::of_type(column.base_type, home);
        Encoded { column, label, encoder }
    }
}

impl Encoder {
    fn of_type(base: pg_sys::Oid, home: &Scratch) -> Encoder {
        match base {
            pg_sys::BOOLOID => Encoder::Boolean,
            pg_sys::INT2OID => Encoder::Int2,
            pg_sys::INT4OID => Encoder::Int4,
            pg_sys::INT8OID => Encoder::Int8,
            pg_sys::FLOAT4OID | pg_sys::FLOAT8OID | pg_sys::NUMERICOID => Encoder::Number(Output::of_type(base, home)),
            pg_sys::TIMESTAMPOID => Encoder::Time(b"", Output::of_type(base, home)),
            pg_sys::TIMESTAMPTZOID => Encoder::Time(b"+00", Output::of_type(base, home)),
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => Encoder::Text,
            pg_sys::JSONOID => Encoder::Json,
            pg_sys::JSONBOID => Encoder::Jsonb(Output::of_type(base, home)),
            _ => Encoder::Other(Output::of_type(base, home)),
        }
    }

    fn write(&self, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Encoder::Boolean => out.extend_from_slice(if value.datum().value() & 1 == 1 { b"true" } else { b"false" }),
            // Integers lie in the low bits of the datum; the casts cut off the rest (postgres.h, DatumGetInt16 and its kin).
            Encoder::Int2 => push_integer(value.datum().value() as i16, out),
            Encoder::Int4 => push_integer(value.datum().value() as i32, out),
            Encoder::Int8 => push_integer(value.datum().value() as i64, out),
            Encoder::Number(output) => {
                let text = value.text(output);
                let is_number = text.strip_prefix(b"-").unwrap_or(text).first().is_some_and(u8::is_ascii_digit);
                if !is_number {
                    return write_string(out, text);
                }
                reserve(out, text.len())?;
                out.extend_from_slice(text);
            }
            Encoder::Time(end, output) => match session::to_timestamp(value.datum().value() as i64) {
                Some(time) if time.micros() >= YEAR_1 => push_time(time, end, out),
                _ => push_string(out, value.text(output)),
            },
            Encoder::Text => write_string(out, value.bytes())?,
            Encoder::Json => {
                let text = value.bytes();
                reserve(out, text.len())?;
                push_json_value(out, text);
            }
            Encoder::Jsonb(output) => {
                let text = value.text(output);
                reserve(out, text.len())?;
                push_json_value(out, text);
            }
            Encoder::Other(output) => write_string(out, value.text(output))?,
        }
        Ok(())
    }
}

/// Writes a text as a JSON string. How long that becomes shows while it is written, so a long one is written in pieces, each with the room that it may need.
fn write_string(out: &mut Vec<u8>, text: &[u8]) -> Result<(), Error> {
    const PIECE: usize = 4096;
    reserve(out, text.len() + 2)?;
    out.push(b'"');
    for piece in text.chunks(PIECE) {
        reserve(out, 6 * piece.len() + 1)?;
        push_escaped(out, piece);
    }
    out.push(b'"');
    Ok(())
}

/// Makes room, with some to spare, so that a want of memory is an error of the statement and not the end of the server.
pub(crate) fn reserve(out: &mut Vec<u8>, bytes: usize) -> Result<(), Error> {
    out.try_reserve(bytes + 8).map_err(|_| Error::OutOfMemory { bytes })
}

/// 0001-01-01 in microseconds since 1970: the years before it are written with BC.
const YEAR_1: i64 = -62_135_596_800_000_000;

/// A time as the server prints it under `DateStyle = ISO`, UTC: three times as fast as its own function.
fn push_time(time: Timestamp, end: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    time.write(out);
    out[start + "YYYY-MM-DD".len()] = b' ';
    // What the ledger writes has six digits of a second and Z.
    out.pop();
    while out.ends_with(b"0") {
        out.pop();
    }
    if out.ends_with(b".") {
        out.pop();
    }
    out.extend_from_slice(end);
    out.push(b'"');
}

fn push_integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

//! Rows as they lie in the pages of a table, taken apart without the server.
//!
//! A verification takes millions of rows apart that all have the same columns, and the server looks at each column of each row as if it had never seen it. [`Shape`] has looked once. It knows
//! only the usual: rows that have all the columns that are asked for, and values that lie in the row as they are, neither compressed nor out of line. Of all other rows it says nothing, and the
//! server takes them apart.
//!
//! The layout is that of access/htup_details.h and access/tupmacs.h. This file has safe code only and knows nothing of the server, so that tests can compile it too: whatever the bytes of a row say, no others
//! are read.

/// Offsets in the header of a row, see `HeapTupleHeaderData`.
pub(super) mod header {
    pub(crate) const INFOMASK2: usize = 18;
    pub(crate) const INFOMASK: usize = 20;
    pub(crate) const LENGTH: usize = 22;
    /// Behind the fixed part: where the null bitmap begins, if there is one.
    pub(crate) const END: usize = 23;
}

/// In the first flags: the row has a null bitmap.
const HAS_NULLS: u16 = 0x0001;
/// In the second flags: how many columns the row has.
const COLUMNS: u16 = 0x07ff;

/// The columns of a table, as far as their layout goes.
pub(crate) struct Shape {
    columns: Vec<Column>,
}

/// One column.
#[derive(Clone, Copy)]
struct Column {
    /// Alignment less one: what to add, and what to take away, to come to the next place.
    alignment: usize,
    form: Form,
}

#[derive(Clone, Copy)]
enum Form {
    /// Passed by value: 1, 2, 4 or 8 bytes.
    One,
    Two,
    Four,
    Eight,
    /// Of fixed length.
    Fixed(usize),
    /// Begins with its length.
    Variable,
}

/// The value of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    Null,
    /// A value that is passed by value, widened with its sign.
    Number(i64),
    /// All bytes of any other, the header with its length included.
    Bytes(&'a [u8]),
}

impl Shape {
    /// So many columns fit into the word that holds the null bitmap.
    const MAX: usize = 64;

    /// The shape of a table with columns of these lengths, passed by value or not, and with these alignments (`attlen`, `attbyval` and `attalign` of pg_attribute). `None` for what is left to the server.
    pub(crate) fn new(columns: impl Iterator<Item = (i16, bool, u8)>) -> Option<Shape> {
        // Headers of variable length are read as on little-endian machines.
        if cfg!(target_endian = "big") {
            return None;
        }
        let column = |(length, by_value, alignment)| {
            let form = match (length, by_value) {
                (1, true) => Form::One,
                (2, true) => Form::Two,
                (4, true) => Form::Four,
                (8, true) => Form::Eight,
                (length @ 1.., false) => Form::Fixed(length as usize),
                (-1, false) => Form::Variable,
                _ => return None,
            };
            let alignment = match alignment {
                b'c' => 0,
                b's' => 1,
                b'i' => 3,
                b'd' => 7,
                _ => return None,
            };
            Some(Column { alignment, form })
        };
        Some(Shape { columns: columns.map(column).collect::<Option<_>>()? })
    }

    /// Gives the first `count` columns of a row to `each`, in their order. `row` begins with the header and ends with the row. `None` for a row that is left to the server, also after some
    /// columns were given.
    #[inline]
    pub(crate) fn take_apart<'a>(
        &self,
        row: &'a [u8],
        count: usize,
        mut each: impl FnMut(usize, Cell<'a>),
    ) -> Option<()> {
        let fixed: &[u8; header::END] = row.first_chunk()?;
        let flags = |at: usize| u16::from_ne_bytes([fixed[at], fixed[at + 1]]);
        let length = usize::from(fixed[header::LENGTH]);
        if usize::from(flags(header::INFOMASK2) & COLUMNS) < count || count > Shape::MAX {
            return None;
        }
        // A bit for each column that is not null.
        let mut present = u64::MAX;
        if flags(header::INFOMASK) & HAS_NULLS != 0 {
            let bitmap = row
                .get(header::END..header::END + count.div_ceil(8))
                .filter(|_| header::END + count.div_ceil(8) <= length)?;
            let mut word = [0; 8];
            word[..bitmap.len()].copy_from_slice(bitmap);
            present = u64::from_le_bytes(word);
        }
        let data = row.get(length..)?;
        let mut at = 0;
        for (index, column) in self.columns.get(..count)?.iter().enumerate() {
            if present >> index & 1 == 0 {
                each(index, Cell::Null);
                continue;
            }
            let aligned = (at + column.alignment) & !column.alignment;
            let cell;
            (cell, at) = match column.form {
                Form::One => (Cell::Number(i64::from(i8::from_ne_bytes(*chunk(data, aligned)?))), aligned + 1),
                Form::Two => (Cell::Number(i64::from(i16::from_ne_bytes(*chunk(data, aligned)?))), aligned + 2),
                Form::Four => (Cell::Number(i64::from(i32::from_ne_bytes(*chunk(data, aligned)?))), aligned + 4),
                Form::Eight => (Cell::Number(i64::from_ne_bytes(*chunk(data, aligned)?)), aligned + 8),
                Form::Fixed(length) => (Cell::Bytes(data.get(aligned..aligned + length)?), aligned + length),
                Form::Variable => {
                    match *data.get(at)? {
                        // Short, as most are. Where the next column begins depends on this one, so nothing else is waited for here.
                        first @ 3.. if first & 1 == 1 => {
                            let end = at + usize::from(first >> 1);
                            (Cell::Bytes(data.get(at..end)?), end)
                        }
                        // A short header is not aligned; where a long one is, there may be zeros before it.
                        first => {
                            let start = if first == 0 { aligned } else { at };
                            let value = long_value(data, start)?;
                            (Cell::Bytes(value), start + value.len())
                        }
                    }
                }
            };
            each(index, cell);
        }
        Some(())
    }
}

#[inline]
fn chunk<const N: usize>(data: &[u8], at: usize) -> Option<&[u8; N]> {
    data.get(at..)?.first_chunk()
}

/// A value with a header that is not short, if it lies there as it is (varatt.h).
// A call of its own, so that the choice between the two is a jump, which the processor foresees, and not one that waits for the header.
#[inline(never)]
fn long_value(data: &[u8], at: usize) -> Option<&[u8]> {
    let value = data.get(at..)?;
    let length = match *value.first()? {
        // A pointer to a value out of line.
        1 => return None,
        // Short, behind zeros.
        short if short & 1 == 1 => usize::from(short >> 1),
        // Compressed.
        long if long & 3 == 2 => return None,
        _ => Some(u32::from_le_bytes(*value.first_chunk()?) as usize >> 2).filter(|length| *length >= 4)?,
    };
    value.get(..length)
}

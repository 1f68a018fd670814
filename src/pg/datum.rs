//! Values in the server's representation: reading and making them.

use pgrx::{pg_sys, varlena};

/// Bytes of a variable-length value (text, json, bytea), read from out of line and uncompressed if need be.
///
/// The bytes live in the current memory context or in the tuple that the datum came from.
///
/// # Safety
/// `datum` is a non-null value of a variable-length type; the result is not used after its tuple or memory context is gone.
#[inline]
pub(crate) unsafe fn bytes<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: the caller vouches for the type; the detoasted value has a valid header.
    unsafe {
        let stored: *mut pg_sys::varlena = datum.cast_mut_ptr();
        // Most values are as they are: neither compressed nor out of line.
        let plain =
            varlena::varatt_is_4b_u(stored) || (varlena::varatt_is_1b(stored) && !varlena::varatt_is_1b_e(stored));
        let value = if plain { stored } else { detoast(stored) };
        let length = varlena::varsize_any_exhdr(value);
        std::slice::from_raw_parts(varlena::vardata_any(value).cast::<u8>(), length)
    }
}

/// A call of its own, so that [`bytes`] is small.
///
/// # Safety
/// `stored` is a value of variable length.
#[cold]
#[inline(never)]
unsafe fn detoast(stored: *mut pg_sys::varlena) -> *mut pg_sys::varlena {
    // SAFETY: as promised by the caller.
    unsafe { pg_sys::pg_detoast_datum_packed(stored) }
}

/// Text of a variable-length value. Bytes that are not UTF-8 (a damaged row) are replaced, so that they can be reported.
///
/// # Safety
/// As for [`bytes`].
pub(crate) unsafe fn text<'a>(datum: pg_sys::Datum) -> std::borrow::Cow<'a, str> {
    // SAFETY: as promised by the caller.
    let bytes = unsafe { bytes(datum) };
    match std::str::from_utf8(bytes) {
        Ok(text) => std::borrow::Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// A text, json or bytea datum with these bytes, in the current memory context.
pub(crate) fn from_bytes(bytes: &[u8]) -> pg_sys::Datum {
    // The server refuses to allocate 1 GiB or more; callers check before, so that the message says what was too large.
    let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
    // SAFETY: pointer and length are of one slice; the bytes are copied.
    unsafe { pg_sys::Datum::from(pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), length)) }
}

/// Text, json and bytea values packed one after another: one allocation for all values of a row.
pub(crate) struct Packed {
    /// Words, because the header of a value is one.
    words: Vec<u32>,
}

impl Packed {
    /// Room for these values, the given one if it is large enough. The error is how many bytes there were not.
    pub(crate) fn for_values<'a>(mut room: Vec<u32>, values: impl Iterator<Item = &'a [u8]>) -> Result<Packed, usize> {
        let size = values.map(|bytes| 1 + bytes.len().div_ceil(4)).sum();
        room.clear();
        room.try_reserve(size).map_err(|_| 4 * size)?;
        Ok(Packed { words: room })
    }

    /// The room, to be used again.
    pub(crate) fn into_room(self) -> Vec<u32> {
        self.words
    }

    /// Adds a value, which is valid as long as `self`. There must be room for it.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> pg_sys::Datum {
        let (start, size) = (self.words.len(), 1 + bytes.len().div_ceil(4));
        assert!(self.words.capacity() - start >= size, "values do not move once they are packed");
        // The server refuses values of 1 GiB or more; callers check before, so that the message says what was too large.
        let length = i32::try_from(bytes.len() + 4).unwrap_or(i32::MAX);
        // SAFETY: there is room for `size` words more, of which the first is the header; all of them are written, the last one, whose end may be spare, twice. Nothing is moved as long as
        // `self` lives.
        let value = unsafe {
            let value = self.words.as_mut_ptr().add(start);
            value.add(size - 1).write(0);
            varlena::set_varsize_4b(value.cast(), length);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.add(1).cast(), bytes.len());
            self.words.set_len(start + size);
            value
        };
        pg_sys::Datum::from(value)
    }
}

/// A uuid datum that points to these bytes; valid while they are.
pub(crate) fn from_uuid(uuid: &uuid::Uuid) -> pg_sys::Datum {
    pg_sys::Datum::from(uuid.as_bytes().as_ptr())
}

/// The uuid that a datum points to.
///
/// # Safety
/// `datum` is a non-null uuid.
pub(crate) unsafe fn uuid(datum: pg_sys::Datum) -> uuid::Uuid {
    // SAFETY: a uuid is 16 bytes without alignment (utils/uuid.h).
    uuid::Uuid::from_bytes(unsafe { *datum.cast_mut_ptr::<[u8; 16]>() })
}

/// Whether two non-null values of the same column are stored alike.
///
/// Compares bytes, not meaning: `1.0` and `1.00` differ. A value kept out of line that both rows share is not read.
///
/// # Safety
/// Both are non-null values of a type with this `by_value` and `length` (pg_attribute).
pub(crate) unsafe fn same(a: pg_sys::Datum, b: pg_sys::Datum, by_value: bool, length: i16) -> bool {
    if by_value {
        return a.value() == b.value();
    }
    let (left, right) = (a.cast_mut_ptr::<pg_sys::varlena>(), b.cast_mut_ptr::<pg_sys::varlena>());
    // SAFETY: fixed-length values have `length` bytes; varlenas carry valid headers; -2 marks C strings.
    unsafe {
        match length {
            1.. => {
                let length = length as usize;
                std::slice::from_raw_parts(left.cast::<u8>(), length)
                    == std::slice::from_raw_parts(right.cast::<u8>(), length)
            }
            -1 => {
                let (left_size, right_size) = (varlena::varsize_any(left), varlena::varsize_any(right));
                // Equal bytes, headers included: equal values, be they inline, compressed or pointers out of line.
                if left_size == right_size
                    && std::slice::from_raw_parts(left.cast::<u8>(), left_size)
                        == std::slice::from_raw_parts(right.cast::<u8>(), right_size)
                {
                    return true;
                }
                if pg_sys::toast_raw_datum_size(a) != pg_sys::toast_raw_datum_size(b) {
                    return false;
                }
                bytes(a) == bytes(b)
            }
            _ => std::ffi::CStr::from_ptr(left.cast()) == std::ffi::CStr::from_ptr(right.cast()),
        }
    }
}

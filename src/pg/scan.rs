//! Reading the rows of a table, and of an index in its order, below SQL: no rule, policy, view or operator of a user takes part.

use std::borrow::Cow;

use audit_ledger::Writer;
use pgrx::{FromDatum, pg_sys};

use super::datum;
use super::heap::{self, Cell, Shape};
use super::output::Output;
use super::relation::{Column, Relation};

/// Which rows a scan sees.
#[derive(Clone, Copy)]
pub(crate) enum Visible {
    /// What the running statement sees: its snapshot.
    Statement,
    /// Whatever is committed at this moment, and all that this transaction wrote, whatever the isolation level.
    /// Takes no part in SERIALIZABLE's bookkeeping: that is kept for MVCC snapshots only (predicate.c, SerializationNeededForRead).
    Now,
    /// Whatever lies in the table, also what was rolled back, is not committed yet or was deleted.
    Any,
}

impl Visible {
    fn snapshot(self) -> pg_sys::Snapshot {
        // SAFETY: a statement always has an active snapshot; the others are statics of the server.
        unsafe {
            match self {
                Visible::Statement => pg_sys::GetActiveSnapshot(),
                Visible::Now => &raw mut pg_sys::SnapshotSelfData,
                Visible::Any => &raw mut pg_sys::SnapshotAnyData,
            }
        }
    }
}

/// A snapshot that was made the active one; the former is it again when this is dropped.
struct Pushed(());

impl Drop for Pushed {
    fn drop(&mut self) {
        if super::error_is_on_its_way() {
            return;
        }
        // SAFETY: whoever makes one has pushed a snapshot; whoever pushed another one since has popped it, as values are dropped in order.
        unsafe { pg_sys::PopActiveSnapshot() }
    }
}

/// While it lives, [`Visible::Statement`] sees nothing that this transaction wrote, but all else that the statement sees: only what cannot be rolled back any more.
pub(crate) struct WithoutOwn {
    _pushed: Pushed,
}

impl WithoutOwn {
    pub(crate) fn new() -> WithoutOwn {
        // SAFETY: a statement always has an active snapshot. The copy is the active one from here on and ours alone; what this transaction wrote was written by
        // its commands from 0 on, so none of it comes before command 0 (heapam_visibility.c, HeapTupleSatisfiesMVCC).
        unsafe {
            pg_sys::PushCopiedSnapshot(pg_sys::GetActiveSnapshot());
            (*pg_sys::GetActiveSnapshot()).curcid = pg_sys::FirstCommandId;
        }
        WithoutOwn { _pushed: Pushed(()) }
    }
}

/// While it lives, [`Visible::Statement`] sees what is committed at this moment, and all that the commands before this one wrote; also where no statement runs.
pub(crate) struct LatestSnapshot {
    _pushed: Pushed,
}

impl LatestSnapshot {
    pub(crate) fn new() -> LatestSnapshot {
        // SAFETY: called inside a transaction; pushing copies the snapshot, which is the active one from here on and ours alone.
        unsafe { pg_sys::PushCopiedSnapshot(pg_sys::GetLatestSnapshot()) };
        LatestSnapshot { _pushed: Pushed(()) }
    }

    /// The same, where no snapshot is active, as at the end of a command that has ended a transaction of its own: DETACH PARTITION ... CONCURRENTLY.
    pub(crate) fn where_none() -> Option<LatestSnapshot> {
        (!is_one_active()).then(LatestSnapshot::new)
    }

    /// The same, where the statement is free to look anew: in REPEATABLE READ and SERIALIZABLE all is seen as of the snapshot of the transaction, in a parallel operation as of that of its leader.
    pub(crate) fn where_free() -> Option<LatestSnapshot> {
        // SAFETY: a plain integer, and the transaction state.
        let is_bound = unsafe {
            pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as core::ffi::c_int || pg_sys::IsInParallelMode()
        };
        (!is_bound).then(LatestSnapshot::new)
    }
}

/// While it lives there is an active snapshot, as the server demands of whoever writes to a table that has a TOAST table (heapam.c, AssertHasSnapshotForToast): also when the transaction commits, and
/// in utility statements that run without one. The demand is for those who fetch from TOAST. Rows that are made in memory hold nothing to be fetched, so where there is none this one shows what is committed and keeps
/// nothing from being vacuumed; it costs no look at what others are doing.
pub(crate) struct NominalSnapshot {
    _pushed: Pushed,
}

impl NominalSnapshot {
    pub(crate) fn where_none() -> Option<NominalSnapshot> {
        (!is_one_active()).then(|| {
            // SAFETY: called inside a transaction; pushing copies the static snapshot of the server.
            unsafe { pg_sys::PushActiveSnapshot(&raw mut pg_sys::SnapshotSelfData) };
            NominalSnapshot { _pushed: Pushed(()) }
        })
    }
}

fn is_one_active() -> bool {
    // SAFETY: looks at the state of the process.
    unsafe { pg_sys::ActiveSnapshotSet() }
}

/// One row, deformed: values and null flags by column index. Valid until the scan moves on.
pub(crate) struct Row<'a> {
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
}

impl<'a> Row<'a> {
    /// # Safety
    /// Both slices have the width of the row and the values are of the columns' types.
    pub(super) unsafe fn new(values: &'a [pg_sys::Datum], nulls: &'a [bool]) -> Row<'a> {
        Row { values, nulls }
    }

    #[inline]
    fn get(&self, index: usize) -> Option<pg_sys::Datum> {
        (!self.nulls[index]).then(|| self.values[index])
    }

    /// Value of a column of the row's table; `None` for NULL.
    pub(crate) fn value(&self, column: &'a Column) -> Option<Value<'a>> {
        self.get(column.index).map(|datum| Value { datum, column })
    }
}

/// Columns of our own tables, whose types [`Relation::has_types`] has checked. All give `None` for NULL; indexes count from 0.
impl<'a> Row<'a> {
    pub(crate) fn boolean(&self, index: usize) -> Option<bool> {
        self.get(index).map(|datum| datum.value() & 1 == 1)
    }

    pub(crate) fn character(&self, index: usize) -> Option<char> {
        self.get(index).map(|datum| char::from(datum.value() as u8))
    }

    pub(crate) fn int2(&self, index: usize) -> Option<i16> {
        self.get(index).map(|datum| datum.value() as i16)
    }

    pub(crate) fn int4(&self, index: usize) -> Option<i32> {
        self.get(index).map(|datum| datum.value() as i32)
    }

    pub(crate) fn int8(&self, index: usize) -> Option<i64> {
        self.get(index).map(|datum| datum.value() as i64)
    }

    pub(crate) fn oid(&self, index: usize) -> Option<pg_sys::Oid> {
        self.get(index).map(|datum| pg_sys::Oid::from(datum.value() as u32))
    }

    #[inline]
    pub(crate) fn uuid(&self, index: usize) -> Option<uuid::Uuid> {
        // SAFETY: the column is of type uuid, as checked.
        self.get(index).map(|datum| unsafe { datum::uuid(datum) })
    }

    /// A text or json column.
    pub(crate) fn text(&self, index: usize) -> Option<Cow<'a, str>> {
        // SAFETY: the column is of type text or json, as checked; the row outlives the result.
        self.get(index).map(|datum| unsafe { datum::text(datum) })
    }

    /// A column of type name.
    pub(super) fn name(&self, index: usize) -> Option<&'a std::ffi::CStr> {
        // SAFETY: only asked for columns of type name: 64 bytes with a terminating zero.
        self.get(index).map(|datum| unsafe { std::ffi::CStr::from_ptr(datum.cast_mut_ptr()) })
    }

    /// The bytes of a column of variable length: bytea, text, json, inet.
    #[inline]
    pub(crate) fn bytes(&self, index: usize) -> Option<&'a [u8]> {
        // SAFETY: the column is of such a type, as checked; the row outlives the result.
        self.get(index).map(|datum| unsafe { datum::bytes(datum) })
    }

    /// A column of any type as its output function prints it.
    pub(crate) fn output(&self, index: usize, output: &Output) -> Option<Cow<'a, str>> {
        // SAFETY: the column is of the type that the output function was looked up for, as checked.
        self.get(index).map(|datum| String::from_utf8_lossy(unsafe { output.text(datum) }))
    }

    /// An array column whose elements are `T`; null elements are left out.
    pub(crate) fn array<T>(&self, index: usize) -> Option<Vec<T>>
    where
        Vec<Option<T>>: FromDatum,
    {
        // SAFETY: the column is an array of T's type, as checked.
        let elements = unsafe { Vec::<Option<T>>::from_datum(self.get(index)?, false) }?;
        Some(elements.into_iter().flatten().collect())
    }
}

/// A non-null value of a column.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a> {
    datum: pg_sys::Datum,
    column: &'a Column,
}

impl<'a> Value<'a> {
    /// The datum itself; for types passed by value, the value.
    pub(crate) fn datum(&self) -> pg_sys::Datum {
        self.datum
    }

    /// Bytes of a value of variable length; nothing for other types.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        if self.column.length != -1 {
            return &[];
        }
        // SAFETY: the column's length says that the value is a varlena.
        unsafe { datum::bytes(self.datum) }
    }

    /// Text by the output function of the column's type.
    pub(crate) fn text(&self, output: &Output) -> &'a [u8] {
        assert!(output.is_of(self.column.base_type), "the output function must be that of the column's type");
        // SAFETY: asserted above.
        unsafe { output.text(self.datum) }
    }

    /// Whether another value of the same column is stored alike; see [`datum::same`].
    pub(crate) fn is_same(&self, other: &Value<'_>) -> bool {
        assert_eq!(self.column.type_oid, other.column.type_oid, "values of one column");
        // SAFETY: both are of the column's type, and its length and passing come from the catalog.
        unsafe { datum::same(self.datum, other.datum, self.column.by_value, self.column.length) }
    }
}

/// A sequential scan of a table.
pub(crate) struct TableScan<'a> {
    relation: &'a Relation,
    scan: pg_sys::TableScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
    /// How to take rows apart that lie in a page of the server's own kind of tables.
    shape: Option<Shape>,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl<'a> TableScan<'a> {
    /// Begins a scan of the whole table.
    pub(crate) fn new(relation: &'a Relation, visible: Visible) -> TableScan<'a> {
        // SAFETY: the relation is open and outlives the scan; no scan keys.
        unsafe {
            let slot = pg_sys::table_slot_create(relation.as_ptr(), std::ptr::null_mut());
            let scan = pg_sys::table_beginscan(relation.as_ptr(), visible.snapshot(), 0, std::ptr::null_mut());
            TableScan::with(relation, scan, slot)
        }
    }

    /// This process's share of a scan by several processes.
    ///
    /// # Safety
    /// `scan` was initialized for this relation, and outlives the result.
    pub(super) unsafe fn shared(relation: &'a Relation, scan: pg_sys::ParallelTableScanDesc) -> TableScan<'a> {
        // SAFETY: the relation is open and outlives the scan; the rest as promised by the caller.
        unsafe {
            let slot = pg_sys::table_slot_create(relation.as_ptr(), std::ptr::null_mut());
            TableScan::with(relation, pg_sys::table_beginscan_parallel(relation.as_ptr(), scan), slot)
        }
    }

    /// # Safety
    /// Scan and slot were made for this relation, and are nobody else's.
    unsafe fn with(
        relation: &'a Relation,
        scan: pg_sys::TableScanDesc,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> TableScan<'a> {
        // SAFETY: the slot is live.
        let in_pages = unsafe { is_in_pages(slot) };
        let width = relation.width();
        TableScan {
            relation,
            scan,
            slot,
            shape: if in_pages { relation.shape() } else { None },
            values: vec![pg_sys::Datum::null(); width],
            nulls: vec![true; width],
        }
    }

    /// The next row, with its first `columns` columns deformed.
    pub(crate) fn next(&mut self, columns: usize) -> Option<Row<'_>> {
        pgrx::check_for_interrupts!();
        // SAFETY: scan and slot are live until Drop.
        if !unsafe { pg_sys::table_scan_getnextslot(self.scan, pg_sys::ScanDirection::ForwardScanDirection, self.slot) }
        {
            return None;
        }
        let columns = columns.min(self.relation.width());
        if self.take_apart(columns).is_some() {
            return Some(Row { values: &self.values[..columns], nulls: &self.nulls[..columns] });
        }
        // SAFETY: the slot holds a row; a slot of this relation has natts values.
        unsafe {
            pg_sys::slot_getsomeattrs_int(self.slot, columns as core::ffi::c_int);
            Some(Row::new(
                std::slice::from_raw_parts((*self.slot).tts_values, columns),
                std::slice::from_raw_parts((*self.slot).tts_isnull, columns),
            ))
        }
    }

    /// Takes the row in the slot apart as the server would. `None` for one that is left to the server.
    #[inline]
    fn take_apart(&mut self, columns: usize) -> Option<()> {
        let TableScan { shape: Some(shape), slot, values, nulls, .. } = self else { return None };
        // SAFETY: there is a shape only for slots of this kind.
        let row = unsafe { row_in_page(slot.cast()) }?;
        let (values, nulls) = (&mut values[..columns], &mut nulls[..columns]);
        shape.take_apart(row, columns, |index, cell| {
            nulls[index] = cell == Cell::Null;
            values[index] = match cell {
                Cell::Null => pg_sys::Datum::null(),
                Cell::Number(number) => pg_sys::Datum::from(number),
                Cell::Bytes(bytes) => pg_sys::Datum::from(bytes.as_ptr()),
            };
        })
    }
}

/// Whether a slot is for rows that lie in pages of the server's own kind of tables: a BufferHeapTupleTableSlot.
///
/// # Safety
/// The slot is live.
#[inline]
unsafe fn is_in_pages(slot: *const pg_sys::TupleTableSlot) -> bool {
    // SAFETY: a slot has operations, and those of the server are statics.
    unsafe { std::ptr::eq((*slot).tts_ops, &raw const pg_sys::TTSOpsBufferHeapTuple) }
}

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(pg_sys::HeapTupleHeaderData, t_infomask2) == heap::header::INFOMASK2);
    assert!(offset_of!(pg_sys::HeapTupleHeaderData, t_infomask) == heap::header::INFOMASK);
    assert!(offset_of!(pg_sys::HeapTupleHeaderData, t_hoff) == heap::header::LENGTH);
    assert!(offset_of!(pg_sys::HeapTupleHeaderData, t_bits) == heap::header::END);
};

/// The bytes of the row in a slot, and where its successor is likely to lie, on their way to the processor. `None` where it is in no page, or reaches out of it.
///
/// # Safety
/// The slot holds a row; the bytes are not used after it holds another.
#[inline]
unsafe fn row_in_page<'a>(slot: *const pg_sys::BufferHeapTupleTableSlot) -> Option<&'a [u8]> {
    // SAFETY: a slot with a valid buffer has it pinned, and its tuple lies in that page: where exactly is what the page says, so it is looked at.
    unsafe {
        let (tuple, buffer) = ((*slot).base.tuple, (*slot).buffer);
        if tuple.is_null() || buffer == pg_sys::InvalidBuffer as pg_sys::Buffer {
            return None;
        }
        let page: *const u8 = pg_sys::BufferGetPage(buffer).cast();
        let start = ((*tuple).t_data as usize).wrapping_sub(page as usize);
        let length = (*tuple).t_len as usize;
        if start > PAGE || length > PAGE - start {
            return None;
        }
        // Pages are filled from their end: the next row lies before this one, and is about as long.
        fetch(page.add(start.saturating_sub(length)), length.min(start));
        // Nobody changes a row while its page is pinned, but for marks in its header that are not read here.
        Some(std::slice::from_raw_parts(page.add(start), length))
    }
}

/// Bytes of a page.
const PAGE: usize = pg_sys::BLCKSZ as usize;

/// Has the processor fetch what will be needed soon, while it works on something else.
#[inline]
fn fetch(soon: *const u8, length: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..length).step_by(64) {
        // SAFETY: only a hint to the processor, which every x86-64 knows, for whatever address.
        unsafe {
            core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(soon.wrapping_add(line).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (soon, length);
}

impl TableScan<'_> {
    /// As [`TableScan::next`], and which transaction has written the row; `None` where the table is not stored as the server's own heap.
    pub(crate) fn next_written(&mut self, columns: usize) -> Option<(Row<'_>, Option<Writer>)> {
        let slot = self.slot;
        let row = self.next(columns)?;
        // SAFETY: the slot holds the row until the scan moves on; one of this kind is a BufferHeapTupleTableSlot, whose tuple lies in a pinned page (executor/tuptable.h).
        let writer = unsafe {
            is_in_pages(slot).then(|| {
                let header = (*(*slot.cast::<pg_sys::BufferHeapTupleTableSlot>()).base.tuple).t_data;
                // HeapTupleHeaderGetRawXmin and HeapTupleHeaderXminFrozen (access/htup_details.h).
                let frozen = pg_sys::HEAP_XMIN_FROZEN as u16;
                Writer {
                    id: (*header).t_choice.t_heap.t_xmin.into_inner(),
                    frozen: (*header).t_infomask & frozen == frozen,
                }
            })
        };
        Some((row, writer))
    }
}

impl Drop for TableScan<'_> {
    fn drop(&mut self) {
        if super::error_is_on_its_way() {
            return;
        }
        // SAFETY: both were created in `new` and are released once; the relation is still open.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::table_endscan(self.scan);
        }
    }
}

/// Direction of an index scan.
#[derive(Clone, Copy)]
pub(crate) enum Direction {
    Forward,
    Backward,
}

/// How a column compares with the value of a condition.
#[derive(Clone, Copy)]
pub(crate) enum Comparison {
    Equal = pg_sys::BTEqualStrategyNumber as isize,
    AtLeast = pg_sys::BTGreaterEqualStrategyNumber as isize,
    AtMost = pg_sys::BTLessEqualStrategyNumber as isize,
}

/// A condition on a column of a btree index.
#[derive(Clone, Copy)]
pub(crate) struct Condition {
    /// Number of the table's column, from 1 (the scan itself finds its place in the index).
    pub(crate) number: i16,
    pub(crate) comparison: Comparison,
    /// The type's own function for the comparison, such as `F_INT4EQ`.
    pub(crate) function: u32,
    pub(crate) value: pg_sys::Datum,
}

/// Scans a table in the order of a btree index, with conditions on its columns in any order, calling `visit` with each row until it gives false.
pub(crate) fn by_index(
    table: &Relation,
    index: &Relation,
    visible: Visible,
    conditions: &[Condition],
    direction: Direction,
    mut visit: impl FnMut(&Row<'_>) -> bool,
) {
    // A btree wants its conditions in the order of its columns.
    let mut conditions = conditions.to_vec();
    conditions.sort_by_key(|condition| index.place_of_key(condition.number));
    let mut keys: Vec<pg_sys::ScanKeyData> = conditions
        .iter()
        .map(|condition| {
            let mut key = pg_sys::ScanKeyData::default();
            // SAFETY: the key is ours; the function is a builtin comparison of the index column's type.
            unsafe {
                pg_sys::ScanKeyInit(
                    &mut key,
                    condition.number,
                    condition.comparison as pg_sys::StrategyNumber,
                    pg_sys::Oid::from(condition.function),
                    condition.value,
                );
            }
            key
        })
        .collect();
    let direction = match direction {
        Direction::Forward => pg_sys::ScanDirection::ForwardScanDirection,
        Direction::Backward => pg_sys::ScanDirection::BackwardScanDirection,
    };
    let width = table.width();
    let mut values = vec![pg_sys::Datum::null(); width];
    let mut nulls = vec![true; width];
    // SAFETY: both relations are open; the keys live to the end of the scan; each tuple is valid until the next call.
    unsafe {
        let scan = Ordered(pg_sys::systable_beginscan_ordered(
            table.as_ptr(),
            index.as_ptr(),
            visible.snapshot(),
            keys.len() as core::ffi::c_int,
            keys.as_mut_ptr(),
        ));
        loop {
            pgrx::check_for_interrupts!();
            let tuple = pg_sys::systable_getnext_ordered(scan.0, direction);
            if tuple.is_null() {
                break;
            }
            pg_sys::heap_deform_tuple(tuple, table.desc(), values.as_mut_ptr(), nulls.as_mut_ptr());
            if !visit(&Row::new(&values, &nulls)) {
                break;
            }
        }
    }
}

/// An ordered scan that is ended when dropped, so that an error in between leaks no buffer pin.
struct Ordered(pg_sys::SysScanDesc);

impl Drop for Ordered {
    fn drop(&mut self) {
        if super::error_is_on_its_way() {
            return;
        }
        // SAFETY: begun once, ended once, while table and index are open.
        unsafe { pg_sys::systable_endscan_ordered(self.0) }
    }
}

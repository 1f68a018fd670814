//! Functions and variables of the server that pgrx 0.18 does not bind. Their signatures are the same in PostgreSQL 15 to 18.

#![allow(ffi_unwind_calls, reason = "each call is inside pg_guard_ffi_boundary, which catches the server's errors")]

use pgrx::itemptr::item_pointer_get_both;
use pgrx::pg_sys::{self, ffi::pg_guard_ffi_boundary};

use super::compat;

mod raw {
    use pgrx::pg_sys;

    unsafe extern "C-unwind" {
        pub(super) fn nextval_internal(relid: pg_sys::Oid, check_permissions: bool) -> i64;
        pub(super) fn find_all_inheritors(
            parent: pg_sys::Oid,
            lockmode: pg_sys::LOCKMODE,
            numparents: *mut *mut pg_sys::List,
        ) -> *mut pg_sys::List;
        pub(super) fn get_partition_ancestors(relid: pg_sys::Oid) -> *mut pg_sys::List;
        pub(super) fn has_subclass(relid: pg_sys::Oid) -> bool;
        pub(super) fn has_superclass(relid: pg_sys::Oid) -> bool;
        pub(super) fn die(signal: core::ffi::c_int);
        pub(super) fn SignalHandlerForConfigReload(signal: core::ffi::c_int);
    }

    // Bound by pgrx too, each with a guard that costs more than the function.
    unsafe extern "C-unwind" {
        pub(super) fn GetCurrentSubTransactionId() -> pg_sys::SubTransactionId;
        pub(super) fn GetTopFullTransactionIdIfAny() -> pg_sys::FullTransactionId;
        pub(super) fn GetCurrentTransactionIdIfAny() -> pg_sys::TransactionId;
        pub(super) fn GetCurrentCommandId(used: bool) -> pg_sys::CommandId;
        pub(super) fn GetSessionUserId() -> pg_sys::Oid;
        pub(super) fn GetUserId() -> pg_sys::Oid;
        pub(super) fn GetCurrentTimestamp() -> pg_sys::TimestampTz;
        pub(super) fn heap_deform_tuple(
            tuple: pg_sys::HeapTuple,
            desc: pg_sys::TupleDesc,
            values: *mut pg_sys::Datum,
            nulls: *mut bool,
        );
        pub(super) fn heap_freetuple(tuple: pg_sys::HeapTuple);
        pub(super) fn RelationGetIndexList(table: pg_sys::Relation) -> *mut pg_sys::List;
        pub(super) fn index_open(index: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
        pub(super) fn list_free(list: *mut pg_sys::List);
        pub(super) fn heap_multi_insert(
            relation: pg_sys::Relation,
            slots: *mut *mut pg_sys::TupleTableSlot,
            count: core::ffi::c_int,
            command: pg_sys::CommandId,
            options: core::ffi::c_int,
            state: pg_sys::BulkInsertState,
        );
        pub(super) fn FormIndexDatum(
            info: *mut pg_sys::IndexInfo,
            slot: *mut pg_sys::TupleTableSlot,
            state: *mut pg_sys::EState,
            values: *mut pg_sys::Datum,
            nulls: *mut bool,
        );
        pub(super) fn index_insert(
            index: pg_sys::Relation,
            values: *mut pg_sys::Datum,
            nulls: *mut bool,
            place: pg_sys::ItemPointer,
            table: pg_sys::Relation,
            unique: pg_sys::IndexUniqueCheck::Type,
            unchanged: bool,
            info: *mut pg_sys::IndexInfo,
        ) -> bool;
    }

    unsafe extern "C" {
        pub(super) static mut bytea_output: core::ffi::c_int;
    }
}

/// `commands/sequence.h`: the next value, without asking for a right on the sequence.
///
/// # Safety
/// Called in a transaction that may write.
pub(super) unsafe fn next_value(sequence: pg_sys::Oid) -> i64 {
    // SAFETY: by value; errors are caught at the boundary and unwind as panics.
    unsafe { pg_guard_ffi_boundary(|| raw::nextval_internal(sequence, false)) }
}

/// `catalog/pg_inherits.h`: the relation itself and all below it, each locked with `lockmode`.
///
/// # Safety
/// Called in a transaction. The list lives in the current memory context.
pub(super) unsafe fn find_all_inheritors(parent: pg_sys::Oid, lockmode: pg_sys::LOCKMODE) -> *mut pg_sys::List {
    // SAFETY: as above; the third argument may be null.
    unsafe { pg_guard_ffi_boundary(|| raw::find_all_inheritors(parent, lockmode, std::ptr::null_mut())) }
}

/// `catalog/partition.h`: the partitioned tables above a partition, nearest first.
///
/// # Safety
/// Called in a transaction. The list lives in the current memory context.
pub(super) unsafe fn get_partition_ancestors(relid: pg_sys::Oid) -> *mut pg_sys::List {
    // SAFETY: as above.
    unsafe { pg_guard_ffi_boundary(|| raw::get_partition_ancestors(relid)) }
}

/// `catalog/pg_inherits.h`: whether a relation has, or had, children.
///
/// # Safety
/// Called in a transaction.
pub(super) unsafe fn has_subclass(relid: pg_sys::Oid) -> bool {
    // SAFETY: as above.
    unsafe { pg_guard_ffi_boundary(|| raw::has_subclass(relid)) }
}

/// `catalog/pg_inherits.h`: whether a relation is a partition or inheritance child of another.
///
/// # Safety
/// Called in a transaction.
pub(super) unsafe fn has_superclass(relid: pg_sys::Oid) -> bool {
    // SAFETY: as above.
    unsafe { pg_guard_ffi_boundary(|| raw::has_superclass(relid)) }
}

/// `utils/bytea.h`: the setting `bytea_output`; 1 is `BYTEA_OUTPUT_HEX`. Gives the former value.
///
/// # Safety
/// The caller puts the former value back before anything else of the session runs.
pub(super) unsafe fn set_bytea_output(value: core::ffi::c_int) -> core::ffi::c_int {
    // SAFETY: an integer of this single-threaded process.
    unsafe {
        let former = raw::bytea_output;
        raw::bytea_output = value;
        former
    }
}

/// A signal handler of the server.
pub(super) type SignalHandler = unsafe extern "C-unwind" fn(core::ffi::c_int);

/// `tcop/postgres.c`: ends the process at the next check for interrupts. (pgrx binds it as a Rust function, which cannot be a handler.)
pub(super) fn die_handler() -> SignalHandler {
    raw::die
}

/// `postmaster/interrupt.c`: sets `ConfigReloadPending`.
pub(super) fn reload_handler() -> SignalHandler {
    raw::SignalHandlerForConfigReload
}

/// `access/xact.h`: the current savepoint level.
pub(super) fn current_subtransaction() -> pg_sys::SubTransactionId {
    // SAFETY: reads the transaction state; raises no error.
    unsafe { raw::GetCurrentSubTransactionId() }
}

/// `access/xact.h`: the full id of the running transaction, if it has one.
pub(super) fn transaction_id_if_any() -> Option<u64> {
    // SAFETY: reads the transaction state; raises no error.
    let id = unsafe { raw::GetTopFullTransactionIdIfAny().value };
    (id != 0).then_some(id)
}

/// `access/xact.h`: the id of the current subtransaction, or of the transaction outside of any, if it has one.
pub(super) fn current_transaction_id_if_any() -> Option<u32> {
    // SAFETY: reads the transaction state; raises no error.
    let id = unsafe { raw::GetCurrentTransactionIdIfAny() }.into_inner();
    (id != 0).then_some(id)
}

/// `access/xact.h`: the number of the running command, which counts as one that writes from here on.
///
/// # Safety
/// Called outside of parallel workers: there it would raise an error.
pub(super) unsafe fn use_current_command() -> pg_sys::CommandId {
    // SAFETY: as promised by the caller.
    unsafe { raw::GetCurrentCommandId(true) }
}

/// `miscadmin.h`: session user and current user.
pub(super) fn session_and_current_user() -> (pg_sys::Oid, pg_sys::Oid) {
    // SAFETY: both read a variable; raise no error once a user is set, which is before any SQL runs.
    unsafe { (raw::GetSessionUserId(), raw::GetUserId()) }
}

/// `utils/timestamp.h`: the clock.
pub(super) fn current_timestamp() -> pg_sys::TimestampTz {
    // SAFETY: reads the clock; raises no error.
    unsafe { raw::GetCurrentTimestamp() }
}

/// `access/htup_details.h`: takes a row apart; raises no error.
///
/// # Safety
/// `tuple` is of a table described by `desc`; both arrays have room for all of its columns.
pub(super) unsafe fn deform(
    tuple: pg_sys::HeapTuple,
    desc: pg_sys::TupleDesc,
    values: *mut pg_sys::Datum,
    nulls: *mut bool,
) {
    // SAFETY: as promised by the caller.
    unsafe { raw::heap_deform_tuple(tuple, desc, values, nulls) }
}

/// `access/htup_details.h`: frees a row that was formed; raises no error.
///
/// # Safety
/// The row was formed in memory that is live, and is not used any more.
pub(super) unsafe fn free_tuple(tuple: pg_sys::HeapTuple) {
    // SAFETY: as promised by the caller.
    unsafe { raw::heap_freetuple(tuple) }
}

/// The cells of a list (nodes/pg_list.h), without a guard for each of them.
///
/// # Safety
/// `list` is null or a list, which lives and does not change as long as the result.
pub(super) unsafe fn cells<'a>(list: *const pg_sys::List) -> &'a [pg_sys::ListCell] {
    if list.is_null() {
        return &[];
    }
    // SAFETY: as promised by the caller.
    unsafe { std::slice::from_raw_parts((*list).elements, (*list).length as usize) }
}

/// Opens the indexes of a table with ROW EXCLUSIVE, as many as are there, one after the other, and adds them to `opened`. One guard for all the calls.
///
/// # Safety
/// The table is open.
pub(super) unsafe fn open_indexes(table: pg_sys::Relation, opened: &mut Vec<pg_sys::Relation>) {
    let open = || {
        // SAFETY: as promised by the caller; the list is a copy of our own. Nothing here has to be dropped when an error passes.
        unsafe {
            let list = raw::RelationGetIndexList(table);
            for cell in cells(list) {
                opened.push(raw::index_open(cell.oid_value, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE));
            }
            raw::list_free(list);
        }
    };
    // SAFETY: the closure only calls functions of the server, and pushes to a vector that outlives it.
    unsafe { pg_guard_ffi_boundary(open) }
}

/// `storage/off.h`: FirstOffsetNumber.
const FIRST_OFFSET: pg_sys::OffsetNumber = 1;

/// Inserts rows into a table as written by command `command`, and the entries of each into its indexes. One guard for all the calls: there are two for each row and index.
///
/// An index of type BRIN is shown only what it has a use for. It keeps summaries of ranges of pages, VACUUM makes them, and at the end of a table that grows there are none yet; but to find that out `brininsert` first
/// prepares everything for a summary, which took 2 % of the throughput of small transactions. So here its map is asked before. As all rows are in the table by then, whoever makes a summary after that sees them.
///
/// # Safety
/// Each slot holds a row formed for the table, which is open with ROW EXCLUSIVE; `indexes` are its own, opened for it, with neither expressions nor predicates, so that no
/// executor state is needed.
pub(super) unsafe fn insert_rows(
    table: pg_sys::Relation,
    slots: &mut [*mut pg_sys::TupleTableSlot],
    command: pg_sys::CommandId,
    indexes: &pg_sys::ResultRelInfo,
) {
    let mut values = [pg_sys::Datum::null(); pg_sys::INDEX_MAX_KEYS as usize];
    let mut nulls = [true; pg_sys::INDEX_MAX_KEYS as usize];
    let (values, nulls) = (values.as_mut_ptr(), nulls.as_mut_ptr());
    let (rows, count) = (slots.as_mut_ptr(), slots.len());
    let insert = || {
        // SAFETY: as promised by the caller. heap_multi_insert notes in each slot where its row went. Nothing here has to be dropped when an error passes.
        // An index that is not ready yet takes no entries (catalog/indexing.c, CatalogIndexInsert).
        unsafe {
            raw::heap_multi_insert(table, rows, count as core::ffi::c_int, command, 0, std::ptr::null_mut());
            for number in 0..indexes.ri_NumIndices as usize {
                let index = *indexes.ri_IndexRelationDescs.add(number);
                let info = *indexes.ri_IndexRelationInfo.add(number);
                if !(*info).ii_ReadyForInserts {
                    continue;
                }
                let is_brin = (*(*index).rd_rel).relam == pg_sys::BRIN_AM_OID;
                // The page that was asked about last, and whether the index has a summary of its range.
                let mut asked = (pg_sys::InvalidBlockNumber, false);
                for row in 0..count {
                    let slot = *rows.add(row);
                    let (page, offset) = item_pointer_get_both((*slot).tts_tid);
                    // The first row of a page is always shown: it may be the one at which the index asks for a summary of the range before (autosummarize).
                    let is_asked = is_brin && offset != FIRST_OFFSET;
                    if is_asked && asked.0 != page {
                        asked = (page, compat::brin_has_summary(index, page));
                    }
                    if is_asked && !asked.1 {
                        continue;
                    }
                    raw::FormIndexDatum(info, slot, std::ptr::null_mut(), values, nulls);
                    let unique = match (*(*index).rd_index).indisunique {
                        true => pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES,
                        false => pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO,
                    };
                    raw::index_insert(index, values, nulls, &raw mut (*slot).tts_tid, table, unique, false, info);
                }
            }
        }
    };
    // SAFETY: the closure only calls functions of the server.
    unsafe { pg_guard_ffi_boundary(insert) }
}

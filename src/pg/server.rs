//! Functions and variables of the server that pgrx 0.18 does not bind. Their signatures are the same in PostgreSQL 15 to 18.

#![allow(ffi_unwind_calls, reason = "each call is inside pg_guard_ffi_boundary, which catches the server's errors")]

use pgrx::pg_sys::{self, ffi::pg_guard_ffi_boundary};

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

/// `catalog/pg_inherits.h`: whether a relation is a child of another.
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

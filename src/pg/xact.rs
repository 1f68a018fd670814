//! Ends of transactions and savepoints, and identifiers of both.

use core::ffi::c_void;

use pgrx::{pg_guard, pg_sys};

use super::reserve::with_reserve;
use super::server;
use crate::error::or_report;
use crate::{chain, ddl, maintenance, pending, seal, session_cache, watch};

/// Registers the callbacks of this module, once per process.
pub(crate) fn register() {
    // SAFETY: the callbacks live as long as the library, which is never unloaded.
    unsafe {
        pg_sys::RegisterXactCallback(Some(on_transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(on_subtransaction), std::ptr::null_mut());
        pg_sys::CacheRegisterRelcacheCallback(Some(on_relation_changed), pg_sys::Datum::null());
        let roles = pg_sys::SysCacheIdentifier::AUTHOID as core::ffi::c_int;
        pg_sys::CacheRegisterSyscacheCallback(roles, Some(on_role_changed), pg_sys::Datum::null());
        let schemas = pg_sys::SysCacheIdentifier::NAMESPACEOID as core::ffi::c_int;
        pg_sys::CacheRegisterSyscacheCallback(schemas, Some(on_schema_changed), pg_sys::Datum::null());
    }
}

/// Identifier of the current savepoint level; 1 outside of any.
pub(crate) fn subtransaction() -> u32 {
    server::current_subtransaction()
}

/// Full transaction id of the current transaction, assigned now if it has none yet.
pub(crate) fn transaction_id() -> u64 {
    // SAFETY: called inside a transaction that writes.
    server::transaction_id_if_any().unwrap_or_else(|| unsafe { pg_sys::GetTopFullTransactionId().value })
}

/// Full id of the next transaction of this server: whatever is written already was written by one before it. On a standby, as far as it has followed.
pub(crate) fn next_transaction() -> u64 {
    // SAFETY: reads shared memory under its lock.
    unsafe { pg_sys::ReadNextFullTransactionId().value }
}

/// Full id of the subtransaction that stands in a row that this transaction has written, or else of the current one; `None` where that is the transaction `xid` itself, or has no id yet.
pub(crate) fn subtransaction_id(xid: u64, writer: Option<u32>) -> Option<u64> {
    let id = writer.or_else(server::current_transaction_id_if_any)?;
    // A subtransaction gets its id after the transaction that it is part of, and within 2^31 of it. Truncation is meant.
    let behind = id.wrapping_sub(xid as u32);
    (behind != 0).then(|| xid + u64::from(behind))
}

/// Number of the running command of this transaction, which counts as one that writes from here on.
pub(crate) fn used_command() -> u32 {
    // SAFETY: called inside a transaction that writes, which parallel workers never do.
    unsafe { server::use_current_command() }
}

/// Lets the commit of this transaction wait until it is on disk, whatever `synchronous_commit` says.
pub(crate) fn force_durable_commit() {
    // SAFETY: sets a flag of the running transaction.
    unsafe { pg_sys::ForceSyncCommit() }
}

/// Makes what this command has written visible to what follows in it.
pub(crate) fn next_command() {
    // SAFETY: called inside a transaction, outside of parallel mode.
    unsafe { pg_sys::CommandCounterIncrement() }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_transaction(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::*;
    // After the last trigger has fired. An error here makes an abort of the commit.
    if matches!(event, XACT_EVENT_PRE_COMMIT | XACT_EVENT_PRE_PREPARE) {
        or_report(watch::check_all());
        or_report(with_reserve(pending::close));
    }
    if event == XACT_EVENT_PRE_PREPARE {
        or_report(seal::refuse_prepare());
        chain::before_prepare();
    }
    // PREPARE ends the transaction for this backend: the lock and the entries belong to the prepared transaction from there on.
    if matches!(event, XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PREPARE) {
        chain::end_of_transaction(event == XACT_EVENT_COMMIT);
        pending::end_of_transaction(event != XACT_EVENT_ABORT);
        seal::end_of_transaction();
        session_cache::end_of_transaction();
        ddl::end_of_transaction();
        maintenance::end_of_transaction();
        watch::end_of_transaction();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    this: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _arg: *mut c_void,
) {
    use pg_sys::SubXactEvent::*;
    match event {
        SUBXACT_EVENT_COMMIT_SUB => {
            chain::savepoint_released(this, parent);
            pending::savepoint_released(this, parent);
            maintenance::savepoint_released(this, parent);
            watch::savepoint_released(this, parent);
        }
        SUBXACT_EVENT_ABORT_SUB => {
            chain::savepoint_rolled_back(this);
            pending::savepoint_rolled_back(this);
            ddl::savepoint_rolled_back(this);
            maintenance::savepoint_rolled_back(this);
            watch::savepoint_rolled_back(this);
        }
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_relation_changed(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    session_cache::relation_changed(relation);
    watch::relation_changed();
}

#[pg_guard]
unsafe extern "C-unwind" fn on_role_changed(_arg: pg_sys::Datum, _cache: core::ffi::c_int, _hash: u32) {
    session_cache::role_changed();
}

#[pg_guard]
unsafe extern "C-unwind" fn on_schema_changed(_arg: pg_sys::Datum, _cache: core::ffi::c_int, _hash: u32) {
    session_cache::schema_changed();
}

//! Hooks of the server: before somebody looks at the log, what waits to be written to it is written.
//!
//! They do their work in any backend that has loaded the library, preloaded or not: a backend in which something waits has loaded it.

#![allow(ffi_unwind_calls, reason = "an error of the server passes over frames that hold nothing to be dropped")]

use std::cell::Cell;

use pgrx::{PgList, pg_guard, pg_sys};

use crate::error::{Error, or_report};
use crate::{pending, session_cache};

/// The server's own functions, without the guard that pgrx puts around them.
mod raw {
    use pgrx::pg_sys;

    unsafe extern "C-unwind" {
        pub(super) fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: core::ffi::c_int);
        pub(super) fn standard_ProcessUtility(
            statement: *mut pg_sys::PlannedStmt,
            text: *const core::ffi::c_char,
            read_only_tree: bool,
            context: pg_sys::ProcessUtilityContext::Type,
            parameters: pg_sys::ParamListInfo,
            environment: *mut pg_sys::QueryEnvironment,
            destination: *mut pg_sys::DestReceiver,
            completion: *mut pg_sys::QueryCompletion,
        );
    }
}

thread_local! {
    static FORMER_EXECUTOR_START: Cell<pg_sys::ExecutorStart_hook_type> = const { Cell::new(None) };
    static FORMER_PROCESS_UTILITY: Cell<pg_sys::ProcessUtility_hook_type> = const { Cell::new(None) };
}

/// Puts the hooks in front of those that other libraries have set. Called once a process.
pub(crate) fn install() {
    // SAFETY: variables of this single-threaded process, set while the library is loaded, which is never unloaded.
    unsafe {
        FORMER_EXECUTOR_START.set(pg_sys::ExecutorStart_hook);
        pg_sys::ExecutorStart_hook = Some(executor_start);
        FORMER_PROCESS_UTILITY.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

// Both are in the way of every statement, so they go without a guard of their own: an error of the server passes over their frames, which hold nothing
// that would have to be dropped. What may fail in Rust is behind a guard.

unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: core::ffi::c_int) {
    // SAFETY: the server passes a query with its plan, and the next in line gets what we got.
    unsafe {
        if !pending::is_empty() {
            before_query((*query).plannedstmt);
        }
        let next = FORMER_EXECUTOR_START.get().unwrap_or(raw::standard_ExecutorStart);
        next(query, flags);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn before_query(plan: *mut pg_sys::PlannedStmt) {
    // SAFETY: as passed by the server.
    or_report(unsafe { flush_for(plan) });
}

/// # Safety
/// `plan` is a valid plan.
unsafe fn flush_for(plan: *mut pg_sys::PlannedStmt) -> Result<(), Error> {
    let objects = session_cache::objects()?;
    // SAFETY: a list of object ids or null: all relations that the plan depends on, those of views included.
    let relations = unsafe { PgList::<pg_sys::Oid>::from_pg((*plan).relationOids) };
    if relations.iter_oid().any(|oid| oid == objects.log) { pending::flush(&objects) } else { Ok(()) }
}

#[allow(clippy::too_many_arguments, reason = "the server's signature")]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const core::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the server passes a valid statement, and the next in line gets what we got.
    unsafe {
        if !pending::is_empty() && may_touch_the_log((*(*statement).utilityStmt).type_) {
            before_utility();
        }
        let next = FORMER_PROCESS_UTILITY.get().unwrap_or(raw::standard_ProcessUtility);
        next(statement, text, read_only_tree, context, parameters, environment, destination, completion);
    }
}

#[pg_guard]
extern "C-unwind" fn before_utility() {
    or_report(session_cache::objects().and_then(|objects| pending::flush(&objects)));
}

/// Whether a utility statement may read or change the log without passing through the executor: COPY and DDL. Named are those that cannot,
/// and that transactions of services are full of.
fn may_touch_the_log(statement: pg_sys::NodeTag) -> bool {
    use pg_sys::NodeTag::*;
    !matches!(
        statement,
        T_TransactionStmt
            | T_VariableSetStmt
            | T_VariableShowStmt
            | T_ConstraintsSetStmt
            | T_PrepareStmt
            | T_ExecuteStmt
            | T_DeallocateStmt
            | T_DeclareCursorStmt
            | T_FetchStmt
            | T_ClosePortalStmt
            | T_ExplainStmt
            | T_CallStmt
            | T_DoStmt
            | T_LockStmt
            | T_NotifyStmt
            | T_ListenStmt
            | T_UnlistenStmt
    )
}

//! Running something that may fail without failing the statement: in a subtransaction, as a PL/pgSQL block with EXCEPTION does.

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder};

/// Runs `body`; an error of the server becomes its message. Cancelling and shutting down are not held up: these errors go on.
///
/// The subtransaction takes no transaction id as long as `body` writes nothing, so this works on a standby. `body` must not run in parallel mode.
pub(crate) fn attempt<R>(body: impl FnOnce() -> R) -> Result<R, String> {
    // SAFETY: context and owner are current in any transaction, and are put back as PL/pgSQL does (pl_exec.c, exec_stmt_block).
    let (context, owner) = unsafe {
        let former = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(former.0);
        former
    };
    let result =
        PgTryBuilder::new(AssertUnwindSafe(|| Ok(body()))).catch_others(|error| Err(Box::new(error))).execute();
    // SAFETY: the subtransaction begun above is the current one: `body` has returned or unwound.
    unsafe {
        match result {
            Ok(_) => pg_sys::ReleaseCurrentSubTransaction(),
            Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
    }
    result.map_err(|error| {
        let report = match &*error {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
            CaughtError::RustPanic { ereport, .. } => ereport,
        };
        let stops = [
            PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
            PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN,
            PgSqlErrorCode::ERRCODE_CRASH_SHUTDOWN,
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        ];
        if stops.contains(&report.sql_error_code()) {
            error.rethrow();
        }
        report.message().to_owned()
    })
}

//! Who is connected, from where, and when it is.

use std::ffi::CStr;

use audit_ledger::Timestamp;
use pgrx::pg_sys;

use super::memory::Scratch;
use super::output::Output;
use super::server;

/// Seconds from 1970-01-01 to 2000-01-01, PostgreSQL's epoch (datatype/timestamp.h).
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800 * 1_000_000;

/// The clock at this moment, not at the start of the transaction: entries cannot be dated back by holding one open.
pub(crate) fn now() -> pg_sys::TimestampTz {
    server::current_timestamp()
}

/// A stored time as the ledger writes it; `None` for what a clock cannot have said (infinities, years beyond 9999).
pub(crate) fn to_timestamp(stored: pg_sys::TimestampTz) -> Option<Timestamp> {
    Timestamp::new(stored.checked_add(POSTGRES_EPOCH_MICROS)?)
}

/// The role that authenticated this connection; `None` in a background process.
///
/// SET SESSION AUTHORIZATION does not change it.
pub(crate) fn login_name() -> Option<String> {
    // SAFETY: MyProcPort is null in a background process; the authenticated user is set once for a
    // connection (miscinit.c, InitializeSessionUserId).
    let role = unsafe { (!pg_sys::MyProcPort.is_null()).then(|| pg_sys::GetAuthenticatedUserId()) }?;
    role_name(role)
}

/// Object ids of the session user and the current user.
pub(crate) fn roles() -> (pg_sys::Oid, pg_sys::Oid) {
    server::session_and_current_user()
}

/// The role in force.
pub(crate) fn is_superuser() -> bool {
    // SAFETY: a catalog look-up by value.
    unsafe { pg_sys::superuser() }
}

/// Name of a role; `None` when it was dropped meanwhile.
pub(crate) fn role_name(role: pg_sys::Oid) -> Option<String> {
    // SAFETY: gives null or a C string in the current context.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// Shows the setting `application_name`; `None` in a process without one.
pub(crate) fn with_application_name<R>(read: impl FnOnce(&CStr) -> R) -> Option<R> {
    // SAFETY: null or a C string that lives until the setting changes, which `read` does not do.
    unsafe {
        let name = pg_sys::application_name;
        (!name.is_null()).then(|| read(CStr::from_ptr(name)))
    }
}

/// Text of the statement that the client has sent and that is running: of several sent together, that one alone. What functions run in turn is
/// not in it. `None` where no client's statement runs.
pub(crate) fn statement() -> Option<String> {
    // SAFETY: the active portal, if any, holds the text and the plans of the running statement while that runs. Location and length, where they are known,
    // lie inside the text; a length of 0 reaches to its end (nodes/plannodes.h).
    let bytes = unsafe {
        let portal = pg_sys::ActivePortal;
        if portal.is_null() || (*portal).sourceText.is_null() {
            return None;
        }
        let text = CStr::from_ptr((*portal).sourceText).to_bytes();
        match pgrx::PgList::<pg_sys::PlannedStmt>::from_pg((*portal).stmts).get_ptr(0) {
            None => text,
            Some(plan) => {
                let rest = text.get(usize::try_from((*plan).stmt_location).unwrap_or(0)..)?;
                let length = usize::try_from((*plan).stmt_len).ok().filter(|length| *length > 0);
                rest.get(..length.unwrap_or(rest.len()))?
            }
        }
    };
    Some(String::from_utf8_lossy(bytes).trim().to_owned())
}

/// Address of a client: its text, and the `inet` value to store.
pub(crate) struct ClientAddress {
    pub(crate) text: String,
    inet: Vec<u8>,
}

impl ClientAddress {
    /// The value, valid as long as `self`.
    pub(crate) fn datum(&self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.inet.as_ptr())
    }
}

/// Address of the client; `None` for a local socket or a background process.
pub(crate) fn client_address() -> Option<ClientAddress> {
    let scratch = Scratch::new();
    // SAFETY: inet_client_addr takes no argument and looks at MyProcPort alone; its result is an uncompressed inet in the current
    // context, copied before that is reset. Vec's memory is aligned for any varlena header.
    scratch.within(|| unsafe {
        if pg_sys::MyProcPort.is_null() {
            return None;
        }
        let value = pgrx::direct_function_call_as_datum(pg_sys::inet_client_addr, &[])?;
        let size = pgrx::varlena::varsize_any(value.cast_mut_ptr());
        let inet = std::slice::from_raw_parts(value.cast_mut_ptr::<u8>(), size).to_vec();
        let text = Output::of_type(pg_sys::INETOID, &scratch).text(value);
        Some(ClientAddress { text: String::from_utf8_lossy(text).into_owned(), inet })
    })
}

/// The system identifier of the cluster, made by initdb.
pub(crate) fn system_identifier() -> u64 {
    // SAFETY: reads shared memory that is set at start.
    unsafe { pg_sys::GetSystemIdentifier() }
}

/// Object id of the current database.
pub(crate) fn database() -> pg_sys::Oid {
    // SAFETY: a plain integer, fixed once a backend is connected.
    unsafe { pg_sys::MyDatabaseId }
}

/// Name of the current database.
pub(crate) fn database_name() -> String {
    // SAFETY: a catalog look-up inside a transaction; gives null or a C string in the current context, copied at once.
    unsafe {
        let name = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}

/// Most processes that can be connected at once: the distance between the alternative chains of one backend.
pub(crate) fn max_backends() -> u32 {
    // SAFETY: a plain integer, fixed at server start.
    u32::try_from(unsafe { pg_sys::MaxBackends }).unwrap_or(1).max(1)
}

/// Random bytes that nobody can foresee.
pub(crate) fn random_key() -> [u8; 16] {
    let mut key = [0; 16];
    // SAFETY: writes exactly the given number of bytes.
    let filled = unsafe { pg_sys::pg_strong_random(key.as_mut_ptr().cast(), key.len()) };
    assert!(filled, "could not generate random bytes");
    key
}

/// The timeline that the server writes now. Not to be asked on a standby.
pub(crate) fn timeline() -> u32 {
    // SAFETY: reads shared memory that is set before the first transaction may write.
    unsafe { pg_sys::GetWALInsertionTimeLine() }
}

/// Whether the server replays the log of another.
pub(crate) fn is_standby() -> bool {
    // SAFETY: reads shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Whether the transaction must not write.
pub(crate) fn is_read_only() -> bool {
    // SAFETY: a plain boolean of the transaction state.
    unsafe { pg_sys::XactReadOnly }
}

/// Whether this is a worker that applies logical replication.
pub(crate) fn is_apply_worker() -> bool {
    // SAFETY: looks at process state only.
    unsafe { pg_sys::IsLogicalWorker() }
}

/// Whether the server runs for pg_upgrade.
pub(crate) fn is_binary_upgrade() -> bool {
    // SAFETY: a plain boolean, fixed at server start.
    unsafe { pg_sys::IsBinaryUpgrade }
}

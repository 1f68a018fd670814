//! Opening the guards: what the hooks refuse, a superuser may do for the rest of a transaction once he has said why.
//!
//! That they are open is known to this process alone, for this transaction: no setting says so, which could be given to a role or a database. Opening them is an entry of
//! the same transaction, so that nothing that was done under it is committed without it.

use std::cell::Cell;

use audit_ledger::Operation;
use serde::Serialize;

use crate::chain::{Event, Recorder};
use crate::error::{self, Error};
use crate::pg::fmgr::Call;
use crate::pg::process::ProcessLocal;
use crate::pg::{session, xact};
use crate::{protect, session_cache};

#[derive(Serialize)]
struct Details<'a> {
    reason: &'a str,
}

/// The savepoint level that opened them, if they are open.
static OPENED: ProcessLocal<Cell<Option<u32>>> = ProcessLocal::new(Cell::new(None));

/// `audit.maintenance(reason)`: opens the guards to the end of the transaction; gives the id of the entry that says so.
pub(crate) fn maintenance(call: &Call) -> Result<i64, Error> {
    let reason: String = call.argument(0).ok_or(Error::NullArgument { argument: "reason" })?;
    if reason.trim().is_empty() {
        return Err(Error::EmptyReason);
    }
    if !session::is_superuser() {
        return Err(Error::MaintenanceDenied);
    }
    let objects = session_cache::objects()?;
    let details = protect::json(&Details { reason: &reason })?;
    let event = Event {
        operation: Operation::Maintenance,
        command: None,
        writer: None,
        table: None,
        key: None,
        old: None,
        new: Some(&details),
    };
    let id = Recorder::open(&objects)?.record(&event)?;
    if OPENED.get().is_none() {
        OPENED.set(Some(xact::subtransaction()));
    }
    let who = session_cache::actor().user.clone().unwrap_or_default();
    error::log(format!("the guards of extension \"audit\" were opened by role \"{who}\": {reason}"), None);
    error::notice("the guards are open to the end of this transaction".into());
    Ok(id)
}

/// Whether they are open for the role in force: opened once by a superuser, they are so for nobody else.
pub(crate) fn is_open() -> bool {
    OPENED.get().is_some() && session::is_superuser()
}

/// The transaction is over.
pub(crate) fn end_of_transaction() {
    OPENED.set(None);
}

/// A savepoint was released: what it opened stays open for the level above.
pub(crate) fn savepoint_released(level: u32, parent: u32) {
    if OPENED.get() == Some(level) {
        OPENED.set(Some(parent));
    }
}

/// A savepoint was rolled back, and the entry with it.
pub(crate) fn savepoint_rolled_back(level: u32) {
    if OPENED.get() == Some(level) {
        OPENED.set(None);
    }
}

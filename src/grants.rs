//! What an auditor needs, granted at once.

use pgrx::pg_sys;
use pgrx::spi::Spi;

use crate::error::Error;
use crate::pg::fmgr::Call;
use crate::pg::{compat, session};
use crate::session_cache;

/// What an auditor reads through SQL. Seal ranges, tiles and incarnations are read by the functions below SQL.
const TABLES: &str = "audit.log, audit.protected, audit.ledger, audit.registry, audit.seal";

/// What an auditor calls, the functions behind `audit.status()` and `audit.protected` included. None of them writes.
const FUNCTIONS: &str = "audit.verify, audit.findings, audit.line, audit.export, audit.export_seals, audit.inclusion_proof, audit.consistency_proof, \
     audit.verify_inclusion, audit.checkpoint, audit.public_key, audit.status, audit.log_state, audit.sealer, audit.trigger_states, \
     audit.guard_level";

/// `audit.grant_auditor(role)`: rights to read and verify, and none to change anything.
///
/// Runs GRANT as its caller, who must own the log: every object is named with its schema, and the name of the role is quoted.
pub(crate) fn grant_auditor(call: &Call) -> Result<(), Error> {
    let role: pg_sys::Oid = call.argument(0).ok_or(Error::NullArgument { argument: "role" })?;
    let name = session::role_name(role).ok_or(Error::NoSuchRole { oid: role.to_u32() })?;
    if !compat::owns_relation(session_cache::objects()?.log, session::roles().1) {
        return Err(Error::NotOwner { relation: "audit.log".into() });
    }
    let name = pgrx::spi::quote_identifier(name);
    for rights in [
        "USAGE ON SCHEMA audit".to_owned(),
        format!("SELECT ON TABLE {TABLES}"),
        format!("EXECUTE ON FUNCTION {FUNCTIONS}"),
    ] {
        Spi::run(&format!("GRANT {rights} TO {name}")).map_err(|error| Error::Damaged { what: error.to_string() })?;
    }
    Ok(())
}

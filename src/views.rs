//! Looking at the log and at the state of protection: lines, export, status.

use audit_ledger::Stored;
use pgrx::IntoDatum;

use crate::coverage;
use crate::error::Error;
use crate::log::Log;
use crate::pg::fmgr::Call;
use crate::pg::relation::{Lock, Relation};
use crate::pg::scan::Visible;
use crate::registry;
use crate::seal::{self, Seals};
use crate::session_cache;

/// `audit.line(chain, seq)`: the text that was hashed; NULL when there is no such entry.
pub(crate) fn line(call: &Call) -> Result<Option<String>, Error> {
    let chain = call.argument(0).ok_or(Error::NullArgument { argument: "chain" })?;
    let seq = call.argument(1).ok_or(Error::NullArgument { argument: "seq" })?;
    let objects = session_cache::objects()?;
    let Some(ledger) = registry::ledger(&objects, Visible::Statement)? else {
        return Ok(None);
    };
    let log = Log::open(&objects)?;
    log.find(&ledger, chain, seq, |entries, row| {
        let stored = entries.read(row).map_err(unreadable)?;
        text(&stored)
    })?
    .transpose()
}

/// `audit.export(since_id)`: hash and line of each entry of this ledger with a greater id, in the order of chain and seq.
pub(crate) fn export(call: &Call) -> Result<(), Error> {
    let since: i64 = call.argument(0).ok_or(Error::NullArgument { argument: "since_id" })?;
    let objects = session_cache::objects()?;
    let mut rows = call.rows();
    let Some(ledger) = registry::ledger(&objects, Visible::Statement)? else {
        return Ok(());
    };
    Log::open(&objects)?.in_order(&ledger, |entries, row| {
        let place = entries.place(row);
        if place.id.is_some_and(|id| id <= since) {
            return Ok(());
        }
        let stored = entries.read(row).map_err(unreadable)?;
        rows.push([
            place.chain.into_datum(),
            place.seq.into_datum(),
            stored.hash.to_string().into_datum(),
            text(&stored)?.into_datum(),
        ]);
        Ok(())
    })
}

/// `audit.export_seals(since)`: hash and line of each seal of this ledger with a greater number, in their order.
pub(crate) fn export_seals(call: &Call) -> Result<(), Error> {
    let since: i64 = call.argument(0).ok_or(Error::NullArgument { argument: "since" })?;
    let objects = session_cache::objects()?;
    let mut rows = call.rows();
    let Some(ledger) = registry::ledger(&objects, Visible::Statement)? else {
        return Ok(());
    };
    let seals = Seals::open(&objects, Lock::AccessShare, ledger, Visible::Statement)?;
    let since = u64::try_from(since).unwrap_or(0);
    let mut leaf = match seals.by_number(since) {
        Ok(Some(seal)) => seal.head.size.get(),
        _ => 0,
    };
    let mut line = Vec::new();
    seals.visit(since.saturating_add(1), |row| {
        let row = row.map_err(|column| seal::unreadable("audit.seal", column))?;
        let number = row.number as i64;
        let (stored, next) = seals.with_ranges(row, leaf, &mut |_| {})?;
        leaf = next;
        line.clear();
        stored.seal.write_line(&mut line);
        let text = String::from_utf8_lossy(&line);
        rows.push([number.into_datum(), stored.hash.to_string().into_datum(), text.as_ref().into_datum()]);
        Ok(())
    })
}

/// `audit.log_state()`: for `audit.status()`. Looks at the ends of the chains only, so that it costs the same however long they are.
pub(crate) fn log_state(call: &Call) -> Result<(), Error> {
    let objects = session_cache::objects()?;
    let mut rows = call.rows();
    let (mut entries, mut chains, mut unsealed) = (0_u64, 0_i32, 0_u64);
    let (mut last_entry, mut waiting_since): (Option<i64>, Option<i64>) = (None, None);
    if let Some(ledger) = registry::ledger(&objects, Visible::Statement)? {
        let log = Log::open(&objects)?;
        let seals = Seals::open(&objects, Lock::AccessShare, ledger, Visible::Statement)?;
        log.for_each_chain(|chain| {
            let Some((last, at)) = log.last(&ledger, chain)? else { return Ok(()) };
            entries += last;
            chains += 1;
            last_entry = last_entry.max(Some(at));
            let reached = seals.reached(chain as u32)?;
            if last > reached {
                unsealed += last - reached;
                let first = log.first_from(&ledger, chain, reached + 1)?.map(|(_, at)| at);
                waiting_since = [waiting_since, first].into_iter().flatten().min();
            }
            Ok(())
        })?;
    }
    let time = |at: Option<i64>| at.map(pgrx::pg_sys::Datum::from);
    rows.push([
        (entries as i64).into_datum(),
        chains.into_datum(),
        time(last_entry),
        (unsealed as i64).into_datum(),
        time(waiting_since),
    ]);
    Ok(())
}

/// `audit.trigger_states()`: for the view `audit.protected`, the state of the triggers of each registered table.
pub(crate) fn trigger_states(call: &Call) -> Result<(), Error> {
    let objects = session_cache::objects()?;
    let mut rows = call.rows();
    for registration in registry::all(&objects, Visible::Statement)? {
        let states = Relation::try_open(registration.relation, Lock::AccessShare)
            .map_or((coverage::TriggerState::Missing, coverage::TriggerState::Missing), |table| {
                coverage::table_states(&objects, &table)
            });
        rows.push([registration.relation.into_datum(), states.0.as_str().into_datum(), states.1.as_str().into_datum()]);
    }
    Ok(())
}

fn text(stored: &Stored<'_>) -> Result<String, Error> {
    let mut line = Vec::new();
    stored.entry.write_line(&mut line);
    String::from_utf8(line).map_err(|_| unreadable("key, old, new"))
}

fn unreadable(column: &str) -> Error {
    Error::Damaged { what: format!("column \"{column}\" holds no valid value") }
}

//! The guards of the extension's own tables.
//!
//! A trigger BEFORE INSERT, UPDATE, DELETE (each row) and BEFORE UPDATE, DELETE, TRUNCATE (each statement), ENABLE ALWAYS, refuses every change through SQL,
//! for superusers too. The extension itself writes below SQL and never meets them.
//!
//! One door is open: a database that was restored from a dump and has not written to its ledger yet takes the rows of the dump from a superuser, and those of the
//! log only with the hash that fits. A row of seals and tiles must be what it could be by itself.

use audit_ledger::Hash;
use uuid::Uuid;

use crate::chain::hash_of;
use crate::error::Error;
use crate::log::Entries;
use crate::pg::fmgr::{Call, TriggerAnswer};
use crate::pg::relation::Relation;
use crate::pg::scan::Visible;
use crate::pg::session;
use crate::pg::trigger::{Event, Firing, RowBuffer};
use crate::registry::{self, Objects};
use crate::seal::{self, SealReader};
use crate::session_cache;
use crate::tiles;

/// `audit.audit_guard()`: refuses, or lets a row of a restore pass.
pub(crate) fn guard(call: &Call) -> Result<TriggerAnswer, Error> {
    let firing = Firing::new(call).ok_or(Error::TriggerProtocol {
        function: "audit.audit_guard",
        why: "was not called by the trigger manager",
    })?;
    let relation = firing.relation();
    let action = match firing.event() {
        Event::Insert => {
            let objects = session_cache::objects()?;
            if firing.is_row_level() && !firing.is_after() && is_admitted(&objects, &relation, &firing)? {
                return Ok(firing.row());
            }
            "insert into"
        }
        Event::Update => "update",
        Event::Delete => "delete from",
        Event::Truncate => "truncate",
    };
    Err(Error::Guarded { action, relation: session_cache::display_name(relation.oid()) })
}

fn is_admitted(objects: &Objects, relation: &Relation, firing: &Firing) -> Result<bool, Error> {
    let is_log = relation.oid() == objects.log;
    if registry::is_live(objects)? {
        // An apply worker may bring the entries of other ledgers, never any of this one.
        return Ok(is_log && session::is_apply_worker() && !is_own_entry(objects, relation, firing)?);
    }
    // A right to insert, granted without care or by pg_write_all_data, is not enough.
    if !session::is_superuser() {
        return Ok(false);
    }
    if is_log {
        check_hash(relation, firing)?;
        return Ok(true);
    }
    if relation.oid() == objects.seal {
        check_seal(relation, firing)?;
    } else if relation.oid() == objects.seal_range {
        seal::check_range(relation, &firing.first(&mut RowBuffer::default()))?;
    } else if relation.oid() == objects.tile {
        tiles::check_row(relation, &firing.first(&mut RowBuffer::default()))?;
    } else {
        return Ok(relation.oid() == objects.ledger || relation.oid() == objects.registry);
    }
    Ok(true)
}

/// Refuses a row of the log whose hash does not fit; gives the ledger that the row claims to belong to.
fn check_hash(relation: &Relation, firing: &Firing) -> Result<Uuid, Error> {
    let entries = Entries::of(relation)?;
    let mut buffer = RowBuffer::default();
    let row = firing.first(&mut buffer);
    let stored = entries
        .read(&row)
        .map_err(|column| Error::Damaged { what: format!("column \"{column}\" holds no valid value") })?;
    let computed = hash_of(&stored.entry);
    if computed == stored.hash {
        return Ok(stored.entry.ledger);
    }
    let place = entries.place(&row);
    Err(Error::RestoredHash {
        chain: place.chain.unwrap_or(0),
        seq: place.seq.unwrap_or(0),
        stored: stored.hash.to_string(),
        computed: computed.to_string(),
    })
}

/// Refuses a row that is no seal. Its hash covers its ranges, which are other rows: whether it fits is for verification to say.
fn check_seal(relation: &Relation, firing: &Firing) -> Result<(), Error> {
    let reader = SealReader::of(relation)?;
    let mut buffer = RowBuffer::default();
    let seal = reader.seal(&firing.first(&mut buffer)).map_err(|column| Error::RestoredRow {
        what: "a seal".into(),
        why: format!("Column \"{column}\" holds no valid value."),
    })?;
    if (seal.number == 1) == (seal.prev == Hash::GENESIS) {
        return Ok(());
    }
    Err(Error::RestoredRow {
        what: format!("seal {}", seal.number),
        why: "Only the first seal has no other before it.".into(),
    })
}

/// Whether a row claims to belong to this database's own ledger. Its hash must fit in any case.
fn is_own_entry(objects: &Objects, relation: &Relation, firing: &Firing) -> Result<bool, Error> {
    let claimed = check_hash(relation, firing)?;
    Ok(registry::ledger(objects, Visible::Now)? == Some(claimed))
}

//! Whether what should be protected is: triggers, functions, registry and guards against what the log says they must be.

use std::ffi::CStr;

use audit_ledger::{Finding, Kind};
use pgrx::pg_sys;

use crate::error::Error;
use crate::history::{History, Protected};
use crate::installation;
use crate::pg::catalog;
use crate::pg::relation::{self, Lock, Relation, Trigger};
use crate::pg::scan::Visible;
use crate::pg::trigger::{ROW_KIND, TRUNCATE_KIND};
use crate::protect::{ProtectDetails, ROW_TRIGGER, TRUNCATE_TRIGGER};
use crate::registry::{self, Objects, Registration};
use crate::render::Table;

/// What one trigger of ours is, compared with what it must be; the worse, the greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TriggerState {
    Ok,
    /// It is there, but does not fire always.
    Disabled,
    /// It is there, but under another name, for other events, with a condition, twice, or to be dropped with some extension.
    Altered,
    Missing,
}

impl TriggerState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            TriggerState::Ok => "ok",
            TriggerState::Missing => "missing",
            TriggerState::Disabled => "disabled",
            TriggerState::Altered => "altered",
        }
    }
}

/// A trigger of ours as it must be. `names` are those of all our triggers of that function, its own first.
pub(crate) struct Wanted<'a> {
    pub(crate) function: pg_sys::Oid,
    pub(crate) kind: i16,
    pub(crate) names: &'a [&'a CStr],
}

/// State of a trigger of ours; found by its function, never by its name alone. A further trigger of that function counts as altered.
pub(crate) fn trigger_state(triggers: &[Trigger], wanted: &Wanted<'_>) -> TriggerState {
    let is_named = |trigger: &Trigger, name: &CStr| name.to_str() == Ok(trigger.name.as_str());
    let same: Vec<&Trigger> = triggers.iter().filter(|trigger| trigger.function == wanted.function).collect();
    let has_stranger = same.iter().any(|trigger| !wanted.names.iter().any(|name| is_named(trigger, name)));
    match same.iter().find(|trigger| is_named(trigger, wanted.names[0])) {
        None if has_stranger => TriggerState::Altered,
        None => TriggerState::Missing,
        Some(trigger) if has_stranger || trigger.restricted || trigger.kind != wanted.kind => TriggerState::Altered,
        Some(trigger) if trigger.enabled != 'A' => TriggerState::Disabled,
        Some(trigger) if catalog::goes_with_an_extension(trigger.oid) => TriggerState::Altered,
        Some(_) => TriggerState::Ok,
    }
}

/// The states of both triggers of a table; both missing when the server would not look for triggers.
pub(crate) fn table_states(objects: &Objects, table: &Relation) -> (TriggerState, TriggerState) {
    if !table.has_triggers() {
        return (TriggerState::Missing, TriggerState::Missing);
    }
    let triggers = table.triggers();
    (
        trigger_state(&triggers, &Wanted { function: objects.row_function, kind: ROW_KIND, names: &[ROW_TRIGGER] }),
        trigger_state(
            &triggers,
            &Wanted { function: objects.truncate_function, kind: TRUNCATE_KIND, names: &[TRUNCATE_TRIGGER] },
        ),
    )
}

/// Where a protected table is today.
pub(crate) fn present_oid(
    objects: &Objects,
    table: &Protected,
    registrations: &[Registration],
) -> Result<pg_sys::Oid, Error> {
    // Until a restored database has written for the first time, the log knows its tables by former object ids.
    if !registry::is_live(objects)?
        && let Some(registration) =
            registrations.iter().find(|registration| registration.protect_id == table.protect_id)
    {
        return Ok(registration.relation);
    }
    Ok(pg_sys::Oid::from(table.table_oid))
}

/// Checks all; gives the number of objects checked.
pub(crate) fn check(objects: &Objects, history: &History, sink: &mut impl FnMut(Finding)) -> Result<u64, Error> {
    let registrations = registry::all(objects, Visible::Statement)?;
    let mut checked = 0;
    let mut covered = Vec::new();
    for table in &history.tables {
        checked += 1;
        let oid = present_oid(objects, table, &registrations)?;
        covered.push(oid);
        let registration = registrations.iter().find(|registration| registration.protect_id == table.protect_id);
        let mut faults = Vec::new();
        check_registration(table, oid, registration, &mut |fault| faults.push(fault));
        check_table(objects, table, oid, registration, &mut |fault| faults.push(fault));
        if !faults.is_empty() && !has_moved_on(objects, oid, &registrations)? {
            faults.into_iter().for_each(&mut *sink);
        }
    }
    for oid in &covered {
        for child in uncovered_children(*oid, &covered) {
            if !has_moved_on(objects, child, &registrations)? {
                sink(uncovered(child, *oid));
            }
        }
    }
    for table in &history.tables {
        check_former_names(table, &covered, sink);
    }
    for registration in &registrations {
        if !history.tables.iter().any(|table| table.protect_id == registration.protect_id) {
            let relation = crate::session_cache::display_name(registration.relation);
            sink(Finding {
                detail: format!(
                    "audit.registry holds a row for entry id {}, but the log has no such PROTECT entry in force",
                    registration.protect_id
                ),
                hint: "The registry was changed, or entries were removed from the log.".into(),
                ..finding(relation)
            });
        }
    }
    if registry::ledgers(objects)? > 1 {
        sink(Finding {
            detail: "the table names more than one ledger".into(),
            hint: "The table was changed: new entries may have gone to another ledger than before.".into(),
            ..finding("audit.ledger".into())
        });
    }
    let inspection = installation::inspect(objects);
    inspection.faults.into_iter().for_each(|fault| sink(fault.finding));
    Ok(checked + inspection.checked)
}

fn finding(relation: String) -> Finding {
    Finding {
        kind: Kind::Coverage,
        relation: Some(relation),
        chain: None,
        seq: None,
        id: None,
        detail: String::new(),
        hint: String::new(),
    }
}

fn check_registration(
    table: &Protected,
    oid: pg_sys::Oid,
    registration: Option<&Registration>,
    sink: &mut impl FnMut(Finding),
) {
    let at_entry = Finding {
        chain: Some(table.chain),
        seq: Some(table.seq),
        id: Some(table.protect_id),
        ..finding(table.display())
    };
    let Some(registration) = registration else {
        sink(Finding {
            detail: "the log says that the table is protected, but audit.registry has no row for it".into(),
            hint: "The registry was changed. Changes of the table are refused until it is put right.".into(),
            ..at_entry
        });
        return;
    };
    if registration.relation != oid {
        sink(Finding {
            detail: format!(
                "audit.registry names the relation with OID {}, the log the one with OID {}",
                registration.relation.to_u32(),
                oid.to_u32()
            ),
            hint: "The registry was changed, or the table was replaced by another.".into(),
            ..at_entry.clone()
        });
    }
    let said = table.details.as_ref();
    if said != Some(&ProtectDetails::of(registration)) {
        let words = |details: Option<&ProtectDetails>| {
            details.and_then(|details| serde_json::to_string(details).ok()).unwrap_or_else(|| "nothing readable".into())
        };
        sink(Finding {
            detail: format!(
                "audit.registry says {}, the PROTECT entry says {}",
                words(Some(&ProtectDetails::of(registration))),
                words(said)
            ),
            hint: "The registry was changed: what is recorded of the table is not what was agreed.".into(),
            ..at_entry
        });
    }
}

/// Whether a table has the columns and the key that its PROTECT entry names.
pub(crate) fn has_agreed_shape(table: &Protected, registration: Option<&Registration>, relation: &Relation) -> bool {
    let Some(details) = &table.details else { return false };
    let exclude =
        registration.map_or_else(|| details.exclude.clone(), |registration| registration.excluded_today(relation));
    Table::new(relation, &exclude, false).shape() == details.shape
}

fn check_table(
    objects: &Objects,
    table: &Protected,
    oid: pg_sys::Oid,
    registration: Option<&Registration>,
    sink: &mut impl FnMut(Finding),
) {
    let here = finding(table.display());
    let Some(relation) = Relation::try_open(oid, Lock::AccessShare) else {
        sink(Finding {
            chain: table.dropped.map(|place| place.chain),
            seq: table.dropped.map(|place| place.seq),
            id: table.dropped.map(|place| place.id),
            detail: format!("the protected table with OID {} does not exist any more", oid.to_u32()),
            hint: format!(
                "It was dropped{}. If that was right, say so: SELECT audit.unprotect({}, 'reason').",
                if table.dropped.is_some() { ": the DDL entry says when and by whom" } else { "" },
                oid.to_u32()
            ),
            ..here
        });
        return;
    };
    let today = format!("{}.{}", relation.schema(), relation.name());
    if today != table.display() {
        sink(Finding {
            detail: format!("the protected table is called {today} now"),
            hint: "It was renamed or moved to another schema with the event trigger \"audit_ddl\" switched off. If that was right, use audit.unprotect() and audit.protect() to record it under its new name.".into(),
            ..here.clone()
        });
    }
    if relation.persistence() != 'p' || !matches!(relation.kind(), 'r' | 'p') {
        sink(Finding {
            detail: format!(
                "the protected table is not an ordinary table any more (kind {}, persistence {})",
                relation.kind(),
                relation.persistence()
            ),
            hint: "An unlogged table is emptied by a crash without a trace.".into(),
            ..here.clone()
        });
    }
    if !has_agreed_shape(table, registration, &relation) {
        sink(Finding {
            detail: "the columns or the primary key of the table are not those that it was protected with".into(),
            hint: "They were changed with the event trigger \"audit_ddl\" switched off, or between a restore and the first write; the rows were not compared. Use audit.unprotect() and audit.protect() to begin anew with a baseline.".into(),
            ..here.clone()
        });
    }
    let (row, truncate) = table_states(objects, &relation);
    for (state, name, what) in [(row, ROW_TRIGGER, "changes of rows"), (truncate, TRUNCATE_TRIGGER, "TRUNCATE")] {
        if state == TriggerState::Ok {
            continue;
        }
        let name = name.to_string_lossy();
        sink(Finding {
            detail: format!("the trigger \"{name}\" that records {what} is {}", state.as_str()),
            hint: match state {
                TriggerState::Disabled => format!(
                    "Changes may have gone unrecorded. Turn it on with ALTER TABLE {today} ENABLE ALWAYS TRIGGER {name}."
                ),
                _ => "Changes may have gone unrecorded. Use audit.unprotect() and audit.protect() to begin anew with a baseline.".into(),
            },
            ..here.clone()
        });
    }
}

/// Whether another table, which is not protected, has come to a name that a protected table had: what is written to it goes unrecorded.
fn check_former_names(table: &Protected, covered: &[pg_sys::Oid], sink: &mut impl FnMut(Finding)) {
    for (schema, name) in &table.former_names {
        let Some(other) = relation::named(schema, name).filter(|other| !covered.contains(other)) else { continue };
        if matches!(relation::kind_of(other), Some('r' | 'p' | 'f')) {
            let today = table.display();
            sink(Finding {
                detail: format!(
                    "the table stands where {today} stood, which is protected, but is not protected itself"
                ),
                hint: format!(
                    "{today} was renamed or moved. If this table has taken its place, protect it: SELECT audit.protect('{schema}.{name}')."
                ),
                ..finding(format!("{schema}.{name}"))
            });
        }
    }
}

/// Whether a table was protected, unprotected or given other columns since the snapshot of this verification: the catalogs show what is, the log what was then.
fn has_moved_on(objects: &Objects, oid: pg_sys::Oid, then: &[Registration]) -> Result<bool, Error> {
    let then = then.iter().find(|registration| registration.relation == oid).map(|then| then.protect_id);
    Ok(registry::find(objects, oid)?.map(|now| now.protect_id) != then)
}

/// Partitions and children of a protected table that are not protected.
fn uncovered_children(oid: pg_sys::Oid, covered: &[pg_sys::Oid]) -> Vec<pg_sys::Oid> {
    if Relation::try_open(oid, Lock::AccessShare).is_none() || !relation::may_have_children(oid) {
        return Vec::new();
    }
    let mut children = relation::with_descendants(oid, Lock::AccessShare);
    children.retain(|child| *child != oid && !covered.contains(child));
    children
}

fn uncovered(child: pg_sys::Oid, parent: pg_sys::Oid) -> Finding {
    let (child, parent) = (crate::session_cache::display_name(child), crate::session_cache::display_name(parent));
    Finding {
        detail: format!(
            "the table is a partition or child of \"{parent}\", which is protected, but is not protected itself"
        ),
        hint: format!("Use audit.protect('{child}')."),
        ..finding(child)
    }
}

/// Most peculiarities of protected tables that a verdict names.
const REMARKS: usize = 10;

/// What is no fault, but worth knowing: what guards the protection, and what an owner has put before our triggers.
pub(crate) fn remarks(objects: &Objects, history: &History) -> Result<String, Error> {
    let registrations = registry::all(objects, Visible::Statement)?;
    let mut peculiar = Vec::new();
    for table in &history.tables {
        let oid = present_oid(objects, table, &registrations)?;
        let Some(relation) = Relation::try_open(oid, Lock::AccessShare) else { continue };
        for trigger in relation.triggers().iter().filter(|trigger| fires_before_ours(objects, trigger)) {
            peculiar.push(format!("trigger \"{}\" of {} fires before ours", trigger.name, table.display()));
        }
        if relation.has_rules() {
            peculiar.push(format!("{} has rules, which may turn a statement into another", table.display()));
        }
    }
    let mut words = format!("guards: {}", crate::watch::level().as_str());
    let more = peculiar.len().saturating_sub(REMARKS);
    for remark in peculiar.iter().take(REMARKS) {
        words.push_str("; ");
        words.push_str(remark);
    }
    if more > 0 {
        words.push_str(&format!("; and {more} more of the kind"));
    }
    Ok(words)
}

/// Whether a trigger of the owner can change rows again before the change is recorded: it fires after the row was written, and its name comes before ours.
fn fires_before_ours(objects: &Objects, trigger: &Trigger) -> bool {
    // Timing, level and events of a trigger AFTER ... FOR EACH ROW, of whatever events.
    let is_after_row = trigger.kind & !ROW_KIND == 0 && trigger.kind & pgrx::pg_sys::TRIGGER_TYPE_ROW as i16 != 0;
    let is_ours = [objects.row_function, objects.truncate_function].contains(&trigger.function);
    is_after_row
        && !is_ours
        && !trigger.internal
        && trigger.enabled != 'D'
        && trigger.name.as_bytes() < ROW_TRIGGER.to_bytes()
}

//! Whether what should be protected is: triggers, functions, registry and guards against what the log says they must be.

use std::ffi::CStr;

use audit_ledger::{Finding, Kind};
use pgrx::pg_sys;

use crate::ddl;
use crate::error::Error;
use crate::history::{History, Protected};
use crate::pg::catalog;
use crate::pg::relation::{self, Lock, Relation, Trigger};
use crate::pg::scan::Visible;
use crate::pg::trigger::{GUARD_ROW_KIND, GUARD_STATEMENT_KIND, ROW_KIND, TRUNCATE_KIND};
use crate::protect::{ProtectDetails, ROW_TRIGGER, TRUNCATE_TRIGGER};
use crate::registry::{self, Objects, Registration};
use crate::render::Table;

/// What one trigger of ours is, compared with what it must be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TriggerState {
    Ok,
    Missing,
    /// It is there, but does not fire always.
    Disabled,
    /// It is there, but under another name, for other events, with a condition, or twice.
    Altered,
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
struct Wanted<'a> {
    function: pg_sys::Oid,
    kind: i16,
    names: &'a [&'a CStr],
}

/// State of a trigger of ours; found by its function, never by its name alone. A further trigger of that function counts as altered.
fn trigger_state(triggers: &[Trigger], wanted: &Wanted<'_>) -> TriggerState {
    let is_named = |trigger: &Trigger, name: &CStr| name.to_str() == Ok(trigger.name.as_str());
    let same: Vec<&Trigger> = triggers.iter().filter(|trigger| trigger.function == wanted.function).collect();
    let has_stranger = same.iter().any(|trigger| !wanted.names.iter().any(|name| is_named(trigger, name)));
    match same.iter().find(|trigger| is_named(trigger, wanted.names[0])) {
        None if has_stranger => TriggerState::Altered,
        None => TriggerState::Missing,
        Some(trigger) if has_stranger || trigger.restricted || trigger.kind != wanted.kind => TriggerState::Altered,
        Some(trigger) if trigger.enabled != 'A' => TriggerState::Disabled,
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
    checked += check_guards(objects, sink);
    checked += check_functions(objects, sink);
    checked += check_event_triggers(sink);
    Ok(checked)
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

/// The guards of the extension's own tables.
fn check_guards(objects: &Objects, sink: &mut impl FnMut(Finding)) -> u64 {
    let (row, statement) = (c"audit_guard_row", c"audit_guard_statement");
    let guards = [(GUARD_ROW_KIND, [row, statement]), (GUARD_STATEMENT_KIND, [statement, row])];
    for oid in objects.tables() {
        let table = Relation::open(oid, Lock::AccessShare);
        let display = format!("{}.{}", table.schema(), table.name());
        let mut faults = table.peculiarities();
        if relation::with_descendants(oid, Lock::AccessShare).len() > 1 {
            faults.push("has children, whose rows show among its own");
        }
        for fault in faults {
            sink(Finding {
                detail: format!("the table {fault}"),
                hint: "The extension does not make it so. What is read from the table through SQL may not be what was recorded.".into(),
                ..finding(display.clone())
            });
        }
        let triggers = if table.has_triggers() { table.triggers() } else { Vec::new() };
        for (kind, names) in &guards {
            let state = trigger_state(&triggers, &Wanted { function: objects.guard_function, kind: *kind, names });
            if state != TriggerState::Ok {
                let name = names[0].to_string_lossy();
                sink(Finding {
                    detail: format!("the guard \"{name}\" is {}", state.as_str()),
                    hint: format!(
                        "The table may have been changed. Turn the guard on with ALTER TABLE {display} ENABLE ALWAYS TRIGGER {name}."
                    ),
                    ..finding(display.clone())
                });
            }
        }
    }
    for key in objects.keys() {
        if !key.oid.is_some_and(|index| Relation::open(index, Lock::AccessShare).is_sound_index()) {
            sink(Finding {
                detail: format!("the key \"{}\" is missing or not in use", key.name),
                hint: format!("{} Restore it: {}.", key.reason, key.definition),
                ..finding(format!("audit.{}", key.table))
            });
        }
    }
    (objects.tables().len() * (guards.len() + 1) + objects.keys().len()) as u64
}

/// The functions behind triggers and guards: the C functions of this library, and nothing else.
fn check_functions(objects: &Objects, sink: &mut impl FnMut(Finding)) -> u64 {
    let functions = [
        (objects.row_function, "audit_row"),
        (objects.truncate_function, "audit_truncate"),
        (objects.guard_function, "audit_guard"),
    ];
    for (oid, symbol) in functions {
        if catalog::c_function(oid).as_ref() != Some(&catalog::CFunction::ours(symbol)) {
            sink(Finding {
                detail: format!("the function behind our triggers is not \"{symbol}\" of the library any more"),
                hint: "It was replaced. Nothing that it was to record or refuse can be relied upon; reinstall the extension.".into(),
                ..finding(format!("audit.{symbol}"))
            });
        }
    }
    functions.len() as u64
}

/// The event triggers that follow DDL.
fn check_event_triggers(sink: &mut impl FnMut(Finding)) -> u64 {
    for name in ddl::EVENT_TRIGGERS {
        let state = match catalog::event_trigger_enabled(name) {
            Some('A') => continue,
            Some(_) => "disabled",
            None => "missing",
        };
        sink(Finding {
            detail: format!("the event trigger \"{name}\" that records DDL and protects new partitions is {state}"),
            hint: format!("Turn it on with ALTER EVENT TRIGGER {name} ENABLE ALWAYS."),
            ..finding(name.to_owned())
        });
    }
    ddl::EVENT_TRIGGERS.len() as u64
}

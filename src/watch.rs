//! What the hooks of a preloaded library see to: no statement, whoever runs it and whatever is switched off, takes protection away.
//!
//! The server tells of each object that a command makes, changes or drops. When one of them belongs to the protection, its state before is noted, and after the command the state
//! is looked at again: a command after which it is worse is refused. So it does not matter which of the many commands it was, and what puts things right passes. Direct changes of the
//! extension's tables and of the catalogs that define protection are refused before they begin.
//!
//! Nothing is refused before the ledger lives (a restore sets up what was dumped), in the scripts of the extension itself, in its own functions, and while a superuser
//! has opened the guards: see `maintenance`. Without preloading nothing of this happens; verification reports what it finds.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pgrx::pg_sys;

use crate::coverage::{self, TriggerState};
use crate::error::Error;
use crate::installation::{self, Fault};
use crate::maintenance;
use crate::pg::catalog;
use crate::pg::fmgr::Call;
use crate::pg::process::ProcessLocal;
use crate::pg::relation::{self, Lock, Relation};
use crate::pg::scan::LatestSnapshot;
use crate::pg::{compat, lock, session, shared, xact};
use crate::protect::{ROW_TRIGGER, TRUNCATE_TRIGGER};
use crate::registry::{self, Objects};
use crate::session_cache::{self, display_name};

/// Something that protection depends on, as it was before the command touched it.
enum Before {
    /// The extension's own objects: what is wrong with them.
    Own(Vec<Fault>),
    Table(pg_sys::Oid, TableState),
}

/// What of a protected table matters.
#[derive(Clone, Copy, PartialEq, Eq)]
struct TableState {
    row: TriggerState,
    truncate: TriggerState,
    is_logged: bool,
}

impl TableState {
    fn of(objects: &Objects, table: &Relation) -> TableState {
        let (row, truncate) = coverage::table_states(objects, table);
        TableState { row, truncate, is_logged: table.persistence() == 'p' }
    }
}

struct Note {
    /// Savepoint level that made it.
    level: u32,
    /// How many utility statements deep it was made.
    depth: u32,
    before: Before,
    /// Whether the command must be followed by the event triggers, too.
    needs_event_triggers: bool,
}

static NOTES: ProcessLocal<RefCell<Vec<Note>>> = ProcessLocal::new(RefCell::new(Vec::new()));
/// Utility statements that are running, one within the other. After an error it may be too high for a while, which does no harm: each statement puts back what it found.
static DEPTH: ProcessLocal<Cell<u32>> = ProcessLocal::new(Cell::new(0));
/// Functions of the extension that are changing definitions themselves.
static WORKING: ProcessLocal<Cell<u32>> = ProcessLocal::new(Cell::new(0));
/// Known not to be there since the last change of any relation, so that databases without the extension pay next to nothing.
static ABSENT: ProcessLocal<Cell<bool>> = ProcessLocal::new(Cell::new(false));

/// While it lives, the extension itself changes definitions. Bound to the call: it ends with it, also by an error.
pub(crate) struct OwnWork(());

impl OwnWork {
    pub(crate) fn begin() -> OwnWork {
        WORKING.set(WORKING.get() + 1);
        OwnWork(())
    }
}

impl Drop for OwnWork {
    fn drop(&mut self) {
        WORKING.set(WORKING.get().saturating_sub(1));
    }
}

/// Whether the hooks have anything to see to in this process.
pub(crate) fn is_active() -> bool {
    shared::is_preloaded()
}

/// What protects: told by `audit.status()` and by the verdict.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuardLevel {
    /// Hooks in every session, and event triggers.
    Hooks,
    /// Event triggers refuse what an owner does; what a superuser does is reported.
    EventTriggers,
    /// What is done to the triggers is reported while it lasts.
    Nothing,
}

impl GuardLevel {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            GuardLevel::Hooks => "hooks",
            GuardLevel::EventTriggers => "event triggers",
            GuardLevel::Nothing => "none",
        }
    }
}

/// The level of this session.
pub(crate) fn level() -> GuardLevel {
    if is_active() {
        GuardLevel::Hooks
    } else if event_triggers_fire() {
        GuardLevel::EventTriggers
    } else {
        GuardLevel::Nothing
    }
}

/// `audit.guard_level()`: the level of this session.
pub(crate) fn guard_level(_call: &Call) -> Result<Option<String>, Error> {
    Ok(Some(level().as_str().to_owned()))
}

fn event_triggers_fire() -> bool {
    compat::event_triggers_enabled() && installation::has_event_triggers()
}

/// The extension's objects, if there are guards to be kept here now.
fn guarded() -> Option<Rc<Objects>> {
    if WORKING.get() > 0 || session::is_binary_upgrade() || catalog::is_in_script_of(c"audit") {
        return None;
    }
    session_cache::objects().ok()
}

/// Whether what was found to matter is to be refused.
fn is_closed(objects: &Objects) -> Result<bool, Error> {
    Ok(registry::is_live(objects)? && !maintenance::is_open())
}

/// An object was made, or is about to be dropped, or was changed; `other` is the parent when a child was made of a table. `is_definition`: columns or parents.
pub(crate) fn touched(
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    other: pg_sys::Oid,
    is_definition: bool,
    created: bool,
) -> Result<(), Error> {
    let Some(objects) = guarded() else { return Ok(()) };
    let mut concerned = Vec::new();
    match catalog::of_relation(class, object) {
        // A new relation is nobody's yet.
        Some(_) if class == pg_sys::RelationRelationId && created => {}
        Some(relation) => concerned.push(relation),
        None if is_own(&objects, class, object) => return note_own(&objects),
        None => return Ok(()),
    }
    if other != pg_sys::InvalidOid {
        concerned.push(other);
    }
    concerned.into_iter().try_for_each(|relation| note(&objects, relation, is_definition))
}

/// Notes the state of a relation, if protection depends on it.
fn note(objects: &Objects, relation: pg_sys::Oid, is_definition: bool) -> Result<(), Error> {
    if relation::schema_of(relation) == Some(objects.schema) {
        note_own(objects)
    } else if relation != pg_sys::InvalidOid && registry::find(objects, relation)?.is_some() {
        note_table(objects, relation, is_definition)
    } else {
        Ok(())
    }
}

fn is_own(objects: &Objects, class: pg_sys::Oid, object: pg_sys::Oid) -> bool {
    match class {
        pg_sys::ProcedureRelationId => catalog::schemas_of_function(object).contains(&Some(objects.schema)),
        pg_sys::NamespaceRelationId => object == objects.schema,
        pg_sys::ExtensionRelationId => catalog::extension(c"audit") == Some(object),
        pg_sys::EventTriggerRelationId => true,
        _ => false,
    }
}

fn note_own(objects: &Objects) -> Result<(), Error> {
    let is_noted =
        NOTES.with_borrow(|notes| notes.iter().any(|note| matches!(note.before, Before::Own(_)) && note.is_of_now()));
    if is_noted || !is_closed(objects)? {
        return Ok(());
    }
    let _snapshot = LatestSnapshot::new();
    let before = Before::Own(installation::inspect(objects).faults);
    add(before, false);
    Ok(())
}

fn note_table(objects: &Objects, oid: pg_sys::Oid, needs_event_triggers: bool) -> Result<(), Error> {
    let is_noted = NOTES.with_borrow_mut(|notes| {
        let same = notes
            .iter_mut()
            .find(|note| matches!(note.before, Before::Table(other, _) if other == oid) && note.is_of_now());
        same.map(|note| note.needs_event_triggers |= needs_event_triggers).is_some()
    });
    if is_noted || !is_closed(objects)? {
        return Ok(());
    }
    let Some(table) = Relation::try_open(oid, Lock::AccessShare) else { return Ok(()) };
    let before = Before::Table(oid, TableState::of(objects, &table));
    add(before, needs_event_triggers);
    Ok(())
}

fn add(before: Before, needs_event_triggers: bool) {
    let note = Note { level: xact::subtransaction(), depth: DEPTH.get(), before, needs_event_triggers };
    NOTES.with_borrow_mut(|notes| notes.push(note));
}

impl Note {
    /// Whether it was made by the statement and at the savepoint level that are running: else it may be dropped or checked apart from what happens now.
    fn is_of_now(&self) -> bool {
        self.depth == DEPTH.get() && self.level == xact::subtransaction()
    }
}

/// A utility statement begins; gives what [`leave`] wants back.
pub(crate) fn enter() -> u32 {
    let outside = DEPTH.get();
    DEPTH.set(outside.saturating_add(1));
    outside
}

/// A utility statement ends: whether there is anything to be checked before [`left`] is called.
pub(crate) fn has_notes() -> bool {
    NOTES.with_borrow(|notes| !notes.is_empty())
}

/// The utility statement is over.
pub(crate) fn left(outside: u32) {
    DEPTH.set(outside);
}

/// Refuses the statement that began at this depth, if protection is worse after it.
pub(crate) fn check(outside: u32) -> Result<(), Error> {
    let notes: Vec<Note> = NOTES.with_borrow_mut(|notes| notes.extract_if(.., |note| note.depth > outside).collect());
    if notes.is_empty() {
        return Ok(());
    }
    xact::next_command();
    let _snapshot = LatestSnapshot::new();
    let objects = session_cache::objects().map_err(|_| Error::WouldBreakGuards {
        relation: "audit".into(),
        fault: "objects of the extension are missing".into(),
    })?;
    if !is_closed(&objects)? {
        return Ok(());
    }
    notes.into_iter().try_for_each(|note| check_note(&objects, note))
}

/// What is left at the end of the transaction: definitions that were changed without a utility statement.
pub(crate) fn check_all() -> Result<(), Error> {
    if !has_notes() {
        return Ok(());
    }
    NOTES.with_borrow_mut(|notes| notes.iter_mut().for_each(|note| note.depth = 1));
    check(0)
}

fn check_note(objects: &Objects, note: Note) -> Result<(), Error> {
    let (oid, before) = match note.before {
        Before::Own(before) => {
            let faults = installation::inspect(objects).faults;
            return match faults.into_iter().find(|fault| fault.is_worse_than(&before)) {
                None => Ok(()),
                Some(Fault { finding, .. }) => Err(Error::WouldBreakGuards {
                    relation: finding.relation.unwrap_or_default(),
                    fault: finding.detail,
                }),
            };
        }
        Before::Table(oid, before) => (oid, before),
    };
    // Dropped, or not protected any more by audit.unprotect().
    let Some(table) = Relation::try_open(oid, Lock::AccessShare) else { return Ok(()) };
    if registry::find(objects, oid)?.is_none() {
        return Ok(());
    }
    let after = TableState::of(objects, &table);
    for (before, after, trigger) in
        [(before.row, after.row, ROW_TRIGGER), (before.truncate, after.truncate, TRUNCATE_TRIGGER)]
    {
        if after > before {
            return Err(Error::WouldEndRecording {
                relation: display_name(oid),
                trigger: trigger.to_string_lossy().into_owned(),
                state: after.as_str(),
            });
        }
    }
    if before.is_logged && !after.is_logged {
        return Err(Error::WouldUnlog { relation: display_name(oid) });
    }
    if note.needs_event_triggers && !event_triggers_fire() {
        return Err(Error::EventTriggersOff { relation: display_name(oid) });
    }
    Ok(())
}

/// TRUNCATE reached a table.
pub(crate) fn before_truncate(relation: pg_sys::Oid) -> Result<(), Error> {
    let Some(objects) = guarded() else { return Ok(()) };
    if objects.tables().contains(&relation) && is_closed(&objects)? {
        return Err(Error::Guarded { action: "truncate", relation: display_name(relation) });
    }
    Ok(())
}

/// LOCK TABLE is about to lock a relation in a mode that keeps writers or VACUUM out. Whoever may write all data may do so to ours, as the server has it.
pub(crate) fn before_lock(relation: pg_sys::Oid) -> Result<(), Error> {
    match lockable() {
        Some(objects) if objects.tables().contains(&relation) => {
            Err(Error::GuardedLock { relation: display_name(relation) })
        }
        _ => Ok(()),
    }
}

/// LOCK TABLE has locked what it names, and what views among it name.
pub(crate) fn after_lock() -> Result<(), Error> {
    let Some(objects) = lockable() else { return Ok(()) };
    match objects.tables().into_iter().find(|table| lock::holds_definition(*table)) {
        Some(table) => Err(Error::GuardedLock { relation: display_name(table) }),
        None => Ok(()),
    }
}

/// The objects that this role must not lock.
fn lockable() -> Option<Rc<Objects>> {
    if ABSENT.get() || session::is_superuser() { None } else { guarded() }
}

/// Whether a relation is surely none that [`before_write`] would say anything about. Nothing is looked up for it.
pub(crate) fn is_of_no_concern(relation: pg_sys::Oid) -> bool {
    let is_catalog = relation.to_u32() < pg_sys::FirstNormalObjectId;
    ABSENT.get() || !is_catalog && session_cache::known(|objects| !objects.tables().contains(&relation)) == Some(true)
}

/// A query, or COPY, is about to write to a relation; `action` is what messages call it.
pub(crate) fn before_write(relation: pg_sys::Oid, action: &'static str, is_insert: bool) -> Result<(), Error> {
    if ABSENT.get() {
        return Ok(());
    }
    let Some(objects) = guarded() else {
        ABSENT.set(WORKING.get() == 0 && relation::find_schema(registry::SCHEMA).is_none());
        return Ok(());
    };
    if catalog::defines_protection(relation) {
        return match is_closed(&objects)? {
            true => Err(Error::GuardedCatalog { catalog: display_name(relation) }),
            false => Ok(()),
        };
    }
    if !objects.tables().contains(&relation) || !is_closed(&objects)? {
        return Ok(());
    }
    // What logical replication or a restore may add is for the guards themselves to tell, as long as they are in force.
    if is_insert && installation::has_guards(&objects, relation) {
        return Ok(());
    }
    Err(Error::Guarded { action, relation: display_name(relation) })
}

/// The definition of a relation was changed, of any when the object id is invalid.
pub(crate) fn relation_changed() {
    ABSENT.set(false);
}

/// ALTER TABLE of a relation, which may be invalid. The server does not tell of all that it changes: of row-level security, for one.
pub(crate) fn before_alter(relation: pg_sys::Oid, changes_columns: bool, is_definition: bool) -> Result<(), Error> {
    if ABSENT.get() {
        return Ok(());
    }
    let Some(objects) = guarded() else { return Ok(()) };
    if changes_columns && objects.tables().contains(&relation) && is_closed(&objects)? {
        return Err(Error::Guarded { action: "change the columns of", relation: display_name(relation) });
    }
    note(&objects, relation, is_definition)
}

/// GRANT, REVOKE and ALTER EXTENSION ... ADD or DROP: what they change the server does not tell of, or after the change.
pub(crate) fn before_rights_or_members() -> Result<(), Error> {
    // Nobody else has rights of the extension to give, unless he was given them with that right: then verification names what he gave.
    if ABSENT.get() || !session::is_superuser() {
        return Ok(());
    }
    match guarded() {
        Some(objects) => note_own(&objects),
        None => Ok(()),
    }
}

/// The transaction is over.
pub(crate) fn end_of_transaction() {
    NOTES.with_borrow_mut(Vec::clear);
    WORKING.set(0);
}

/// A savepoint was released: its notes belong to the level above.
pub(crate) fn savepoint_released(level: u32, parent: u32) {
    NOTES.with_borrow_mut(|notes| {
        notes.iter_mut().filter(|note| note.level == level).for_each(|note| note.level = parent);
    });
}

/// A savepoint was rolled back, and with it what its notes were about.
pub(crate) fn savepoint_rolled_back(level: u32) {
    NOTES.with_borrow_mut(|notes| notes.retain(|note| note.level != level));
}

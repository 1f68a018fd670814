//! Following what DDL does to protected tables.
//!
//! Event triggers fire inside the command, in its transaction, as whoever runs it; what they record is written below SQL, and if it cannot be, the command
//! fails. At the end of each command those protected tables are looked at that the server says it was about, or that it has changed:
//!
//! - Each command about a table leaves a DDL entry; so does each that has changed its columns, its key or its name without naming it.
//! - Where the columns or the key changed, or rows were written anew, a PROTECT entry and a new baseline follow: what the rows said before and say now
//!   cannot be compared column by column.
//! - A partition or child that has come is put under protection; one that was detached goes on by itself.
//!
//! What was dropped or is about to be written anew is known only earlier, while the command runs, and is noted until its end.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;

use audit_ledger::Operation;
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

use crate::chain::{Event, Recorder, table_of};
use crate::coverage::{self, TriggerState};
use crate::error::Error;
use crate::pg::event_trigger::{self, Address, Columns, Fired, Reach};
use crate::pg::fmgr::{Call, TriggerAnswer};
use crate::pg::process::ProcessLocal;
use crate::pg::relation::{self, Lock, Relation};
use crate::pg::scan::{LatestSnapshot, Visible};
use crate::pg::{catalog, compat, lock, session, xact};
use crate::protect::{self, ROW_TRIGGER, TRUNCATE_TRIGGER, Wish};
use crate::registry::{self, Objects, Registration};
use crate::render::{Shape, Table};
use crate::session_cache::{self, Notes, display_name};
use crate::watch::OwnWork;

/// `audit.audit_cover()`, behind all event triggers of the extension.
pub(crate) fn event(call: &Call) -> Result<TriggerAnswer, Error> {
    let fired = Fired::new(call).ok_or(Error::TriggerProtocol {
        function: "audit.audit_cover",
        why: "was not called by the event trigger manager",
    })?;
    // While the extension itself is being created or dropped its objects may be missing.
    if let Ok(objects) = session_cache::objects() {
        let _own_work = OwnWork::begin();
        // What is written to catalogs needs one.
        let _snapshot = LatestSnapshot::where_none();
        match fired.event() {
            event_trigger::Event::CommandStart => make_way(&objects, &fired)?,
            event_trigger::Event::Drop => note_dropped(&objects, &fired)?,
            event_trigger::Event::Rewrite => note_rewritten(&objects, &fired)?,
            event_trigger::Event::CommandEnd => {
                follow(&objects, &fired)?;
                cover(&objects)?;
            }
            event_trigger::Event::Other => {}
        }
    }
    Ok(Fired::nothing())
}

/// What was seen of a table before the end of the command.
#[derive(Clone, PartialEq, Eq)]
enum What {
    Dropped,
    /// Its name, if the server told it.
    LostColumn(Option<String>),
    /// It lost a trigger, rule, policy or constraint.
    LostPart,
    Rewritten,
    /// Written anew with the values that it had.
    Moved,
    /// Its row trigger was taken away, so that it can get that of another table.
    Attaching,
    /// A command around the one that changed it will look at it.
    PutOff,
}

#[derive(Clone)]
struct Note {
    table: pg_sys::Oid,
    what: What,
    /// The savepoint level it belongs to.
    level: u32,
}

static NOTES: ProcessLocal<RefCell<Vec<Note>>> = ProcessLocal::new(RefCell::new(Vec::new()));

fn note(table: pg_sys::Oid, what: What) {
    let level = xact::subtransaction();
    NOTES.with_borrow_mut(|notes| notes.push(Note { table, what, level }));
}

/// A savepoint was rolled back: the commands in it have not happened.
pub(crate) fn savepoint_rolled_back(level: u32) {
    NOTES.with_borrow_mut(|notes| notes.retain(|note| note.level < level));
}

/// The transaction is over.
pub(crate) fn end_of_transaction() {
    drop(NOTES.take());
}

/// A partition gets the row trigger of the table that it is attached to, for which it must not have one of its own. Nobody can write it in between: it is locked from
/// here to the end of the transaction.
fn make_way(objects: &Objects, fired: &Fired) -> Result<(), Error> {
    for table in fired.attached() {
        if registry::find(objects, table)?.is_some() && compat::owns_relation(table, session::roles().1) {
            drop(Relation::open(table, Lock::ShareRowExclusive));
            protect::drop_triggers(table, objects.row_function);
            note(table, What::Attaching);
        }
    }
    Ok(())
}

fn note_dropped(objects: &Objects, fired: &Fired) -> Result<(), Error> {
    let all = registry::all(objects, Visible::Now)?;
    if all.is_empty() {
        return Ok(());
    }
    for dropped in fired.dropped() {
        let Address { class, object, column } = dropped.address;
        let (table, what) = match (dropped.kind.as_str(), dropped.names.as_slice()) {
            _ if class == pg_sys::RelationRelationId && column == 0 => (Some(object), What::Dropped),
            _ if class == pg_sys::RelationRelationId => (Some(object), What::LostColumn(dropped.names.last().cloned())),
            ("trigger" | "rule" | "policy" | "table constraint", [schema, table, ..]) if dropped.by_itself => {
                (relation::named(schema, table), What::LostPart)
            }
            _ => (None, What::LostPart),
        };
        if let Some(table) = table.filter(|table| all.iter().any(|registration| registration.relation == *table)) {
            note(table, what);
        }
    }
    Ok(())
}

fn note_rewritten(objects: &Objects, fired: &Fired) -> Result<(), Error> {
    if let Some((table, values)) = fired.rewritten()
        && registry::find(objects, table)?.is_some()
    {
        note(table, if values { What::Rewritten } else { What::Moved });
    }
    Ok(())
}

/// A command at its end.
struct Command {
    tag: String,
    statement: OnceCell<Option<String>>,
    reach: Reach,
    columns: Columns,
    /// The relations that it was about, by themselves or by a part of them.
    relations: Vec<pg_sys::Oid>,
    /// The relations with columns of types that it was about.
    users: Vec<pg_sys::Oid>,
    /// Whether it was about a schema.
    schema: bool,
}

impl Command {
    fn of(fired: &Fired) -> Command {
        let reach = fired.reach();
        let (mut relations, mut types, mut schema) = (Vec::new(), Vec::new(), false);
        for Address { class, object, .. } in fired.objects() {
            match class {
                pg_sys::RelationRelationId => {
                    relations.push(object);
                    types.extend(relation::row_type(object));
                }
                pg_sys::TypeRelationId => types.push(object),
                pg_sys::NamespaceRelationId => schema = true,
                class if catalog::holds_parts_of_tables(class) => {
                    relations.extend(catalog::owning_relations(class, object));
                }
                _ => {}
            }
        }
        let users = if reach.redefines { catalog::relations_with(types) } else { Vec::new() };
        Command {
            tag: fired.tag(),
            statement: OnceCell::new(),
            reach,
            columns: fired.columns(),
            relations,
            users,
            schema: schema && reach.redefines,
        }
    }

    fn statement(&self) -> Option<&str> {
        self.statement.get_or_init(session::statement).as_deref()
    }
}

/// By their names before a command, the names after it of those columns whose values it left as they were.
pub(crate) type Kept = BTreeMap<String, String>;

/// What of `new` of a DDL entry matters to whoever follows the history of a table.
pub(crate) struct Said {
    /// Whether the table is gone.
    pub(crate) is_drop: bool,
    /// There where a new baseline follows.
    pub(crate) kept: Option<Kept>,
    /// There where all rows were written anew as they were.
    pub(crate) next_xid: Option<String>,
}

impl Said {
    /// Nothing can be said of an entry that cannot be read.
    pub(crate) fn of(new: Option<&str>) -> Said {
        #[derive(Deserialize)]
        struct Members {
            columns: Option<serde::de::IgnoredAny>,
            kept: Option<Kept>,
            next_xid: Option<String>,
        }
        match new.map(serde_json::from_str::<Members>) {
            Some(Ok(Members { columns, kept, next_xid })) => Said { is_drop: columns.is_none(), kept, next_xid },
            _ => Said { is_drop: false, kept: None, next_xid: None },
        }
    }

    /// `new` of a DDL entry that says no more than this: the text of a statement may be long.
    pub(crate) fn text(&self) -> String {
        let mut members = if self.is_drop { serde_json::json!({}) } else { serde_json::json!({ "columns": [] }) };
        if let Some(kept) = &self.kept {
            members["kept"] = serde_json::json!(kept);
        }
        if let Some(next_xid) = &self.next_xid {
            members["next_xid"] = serde_json::json!(next_xid);
        }
        members.to_string()
    }
}

/// `old` of a DDL entry: docs/format.md, section 3.
#[derive(Serialize)]
struct Before<'a> {
    schema: &'a str,
    name: &'a str,
    #[serde(flatten)]
    shape: &'a Shape,
}

/// `new` of a DDL entry.
#[derive(Serialize)]
struct Details<'a> {
    command: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    /// Not there when the table is gone.
    #[serde(flatten)]
    shape: Option<&'a Shape>,
    /// There where a new baseline follows and it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<&'a Kept>,
    /// The next transaction, where all rows were written anew with the values that they had.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_xid: Option<String>,
}

/// Longest text of a statement that is recorded, in bytes.
const LONGEST_STATEMENT: usize = 64 << 10;

/// As much of a statement as is recorded.
fn beginning(statement: &str) -> &str {
    let end = (0..=LONGEST_STATEMENT.min(statement.len())).rev().find(|end| statement.is_char_boundary(*end));
    &statement[..end.unwrap_or(0)]
}

/// Records a command about a table. `after` is what it is now, if it still is; `changed`: whether that differs from what the log knew; `moved`: whether its rows were written anew as they were.
fn record(
    objects: &Objects,
    command: &Command,
    registration: &Registration,
    after: Option<(&str, &str, &Shape)>,
    changed: bool,
    kept: Option<&Kept>,
    moved: bool,
) -> Result<(), Error> {
    let before = Before { schema: &registration.schema, name: &registration.name, shape: &registration.shape };
    let statement = command.statement();
    let shown = statement.map(beginning);
    let old = if changed { Some(protect::json(&before)?) } else { None };
    let new = protect::json(&Details {
        command: &command.tag,
        statement: shown,
        truncated: shown.map(str::len) < statement.map(str::len),
        shape: after.map(|(_, _, shape)| shape),
        kept,
        next_xid: moved.then(|| xact::next_transaction().to_string()),
    })?;
    let (schema, name) = after.map_or((before.schema, before.name), |(schema, name, _)| (schema, name));
    let mut recorder = Recorder::open(objects)?;
    // Opening brings a restored database to life: from then on the log knows its tables by their present object ids.
    let table = table_of(registration.relation, schema, name);
    recorder.record(&Event {
        operation: Operation::Ddl,
        command: None,
        writer: None,
        table: Some(table),
        key: None,
        old: old.as_deref(),
        new: Some(&new),
    })?;
    Ok(())
}

fn follow(objects: &Objects, fired: &Fired) -> Result<(), Error> {
    let mut touched = session_cache::take_touched();
    let notes = NOTES.take();
    let all = registry::all(objects, Visible::Now)?;
    if all.is_empty() {
        return Ok(());
    }
    let command = Command::of(fired);
    // A restore makes tables step by step, after the registry, and ends with what was dumped. It adds columns to no table and renames none.
    if !registry::is_live(objects)? {
        if !command.reach.redefines && notes.is_empty() {
            return Ok(());
        }
        // What it did to partitions and children it did through the table that it named.
        let named = command.relations.iter().filter(|named| relation::may_have_children(**named));
        touched = Notes::of(named.flat_map(|named| relation::with_descendants(*named, Lock::Held)).collect());
    }
    for registration in all {
        follow_table(objects, &command, registration, &touched, &notes)?;
    }
    Ok(())
}

/// Records what a command has done to one protected table.
fn follow_table(
    objects: &Objects,
    command: &Command,
    registration: Registration,
    touched: &Notes,
    notes: &[Note],
) -> Result<(), Error> {
    let oid = registration.relation;
    let noted = |what| notes.iter().any(|note| note.table == oid && note.what == what);
    let lost: Vec<&Option<String>> = notes
        .iter()
        .filter(|note| note.table == oid)
        .filter_map(|note| match &note.what {
            What::LostColumn(name) => Some(name),
            _ => None,
        })
        .collect();
    if noted(What::Dropped) {
        return record(objects, command, &registration, None, true, None, false);
    }
    let retyped = command.users.contains(&oid);
    let moved = noted(What::Moved);
    let named = command.relations.contains(&oid) || noted(What::LostPart) || moved;
    let rewritten = noted(What::Rewritten) || !lost.is_empty() || (retyped && command.reach.retypes);
    if !(named || rewritten || retyped || command.schema || noted(What::Attaching) || touched.has(oid)) {
        return Ok(());
    }
    // A change of a type or of a schema locks no table, and what others have changed besides was theirs to follow.
    let lock = if retyped {
        Lock::ShareRowExclusive
    } else if command.schema {
        Lock::AccessShare
    } else if lock::holds_definition(oid) {
        Lock::Held
    } else {
        return Ok(());
    };
    let Some(relation) = Relation::try_open(oid, lock) else { return Ok(()) };
    let is_root = is_root(objects, &registration, &relation)?;
    let regrouped = is_root != registration.is_root;
    if (is_root && regrouped) || noted(What::Attaching) {
        protect::ensure_row_trigger(objects, oid);
        xact::next_command();
    }
    check_recording(objects, &registration, oid)?;
    let exclude = registration.excluded_today(&relation);
    let shape = Table::new(&relation, &exclude, registration.full_images).shape();
    let (schema, name) = (relation.schema(), relation.name());
    let redefined = shape != registration.shape || exclude != registration.exclude;
    let renamed = (&schema, &name) != (&registration.schema, &registration.name);
    let begin_anew = redefined || rewritten;
    if !(named || regrouped || begin_anew || renamed) {
        return Ok(());
    }
    if begin_anew && relation.is_in_use() {
        // A type has changed: no command around this one will look at the table.
        if retyped {
            return Err(Error::InUse { relation: display_name(oid) });
        }
        // A command around this one is still writing the table, and follows at its own end.
        session_cache::touch_again(oid);
        NOTES.with_borrow_mut(|kept| kept.extend(notes.iter().filter(|note| note.table == oid).cloned()));
        note(oid, What::PutOff);
        return Ok(());
    }
    // Of what a command around the one that changed the table has done itself its form says nothing.
    let is_known = !noted(What::PutOff) && (command.columns.is_all || !noted(What::Rewritten));
    let lost: Option<Vec<&str>> = lost.into_iter().map(Option::as_deref).collect();
    let kept = lost
        .filter(|_| begin_anew && is_known)
        .map(|lost| kept(command, &registration.shape, &shape, &lost, &relation, retyped));
    record(
        objects,
        command,
        &registration,
        Some((&schema, &name, &shape)),
        redefined || renamed,
        kept.as_ref(),
        moved,
    )?;
    let mut registration = Registration {
        known_as: oid,
        is_root,
        exclude_numbers: protect::column_numbers(&relation, &exclude),
        exclude,
        shape,
        schema,
        name,
        ..registration
    };
    let mut recorder = Recorder::open(objects)?;
    if begin_anew {
        registration.protect_id = protect::record_protect(&relation, &registration, &mut recorder)?;
    }
    if begin_anew || renamed || regrouped {
        registry::replace(objects, &registration)?;
        session_cache::relation_changed(oid);
        xact::next_command();
    }
    if begin_anew {
        protect::record_baseline(objects, &relation, &registration, &mut recorder)?;
    }
    Ok(())
}

/// The columns whose values the command has left as they were. In doubt a column is left out: what is kept must be the same in the baseline that follows.
fn kept(
    command: &Command,
    before: &Shape,
    after: &Shape,
    lost: &[&str],
    relation: &Relation,
    types_changed: bool,
) -> Kept {
    let dependent = relation.dependent_columns();
    // What drops something may take an attribute from a type with it.
    let types_changed = types_changed || !(command.columns.is_all || command.columns.renamed.is_some());
    // Those that stay keep their order, and new ones come behind them.
    let stayed = before.columns.iter().zip(&before.types).filter(|(name, _)| !lost.contains(&name.as_str()));
    let mut kept = Kept::new();
    for ((name, former_type), (new_name, new_type)) in stayed.zip(after.columns.iter().zip(&after.types)) {
        let is_renamed = command.columns.renamed.as_ref() == Some(&(name.clone(), new_name.clone()));
        let retyping = command.columns.retyped.iter().find(|(column, _)| column == name);
        let reads_the_same = match retyping {
            None => former_type == new_type,
            Some((_, by_expression)) => !by_expression && is_wider(former_type, new_type),
        };
        let is_dependent =
            dependent.generated.contains(new_name) || (types_changed && dependent.of_user_types.contains(new_name));
        if (name == new_name || is_renamed) && reads_the_same && !is_dependent {
            kept.insert(name.clone(), new_name.clone());
        }
    }
    kept
}

/// Whether each value of one type reads the same in the other: of identifiers that became too small.
fn is_wider(former: &str, new: &str) -> bool {
    const INTEGERS: [&str; 3] = ["smallint", "integer", "bigint"];
    let place = |name| INTEGERS.iter().position(|integer| *integer == name);
    place(former).zip(place(new)).is_some_and(|(former, new)| former <= new)
}

/// Whether a table is protected by itself: not as a partition of one that is. A partition that is detached goes on by itself, as does a child that is let go.
fn is_root(objects: &Objects, registration: &Registration, relation: &Relation) -> Result<bool, Error> {
    if !relation.is_partition() {
        return Ok(registration.is_root || !relation::has_parent(registration.relation));
    }
    for ancestor in relation::ancestors(registration.relation) {
        if registry::find(objects, ancestor)?.is_some() {
            return Ok(false);
        }
    }
    Ok(registration.is_root)
}

/// Puts new partitions and children of protected tables under protection.
fn cover(objects: &Objects) -> Result<(), Error> {
    let all = registry::all(objects, Visible::Now)?;
    let is_registered = |oid: &pg_sys::Oid| all.iter().any(|registration| registration.relation == *oid);
    for registration in all.iter().filter(|registration| registration.is_root) {
        if !relation::may_have_children(registration.relation) {
            continue;
        }
        let members = relation::with_descendants(registration.relation, Lock::Held);
        for member in members.iter().filter(|member| !is_registered(member)) {
            let child = Relation::open(*member, Lock::ShareRowExclusive);
            protect::check_kind(objects, &child)?;
            let parent = Relation::open(registration.relation, Lock::AccessShare);
            let wish = Wish {
                exclude: registration.excluded_today(&parent),
                full_images: registration.full_images,
                baseline: registration.baseline,
            };
            protect::check_columns(&child, &wish)?;
            drop((child, parent));
            protect::attach(objects, *member, &wish, false)?;
        }
    }
    Ok(())
}

/// Refuses a command of an owner that has switched off, changed or dropped a trigger of ours, or made the table unlogged. A superuser may: verification reports it.
fn check_recording(objects: &Objects, registration: &Registration, oid: pg_sys::Oid) -> Result<(), Error> {
    if session::is_superuser() {
        return Ok(());
    }
    // Opened anew: it may just have got a trigger.
    let relation = Relation::open(oid, Lock::Held);
    if relation.persistence() != 'p' {
        return Err(Error::WouldUnlog { relation: display_name(oid) });
    }
    let (row, truncate) = coverage::table_states(objects, &relation);
    for (state, trigger) in [(row, ROW_TRIGGER), (truncate, TRUNCATE_TRIGGER)] {
        if state != TriggerState::Ok {
            return Err(Error::WouldEndRecording {
                relation: display_name(registration.relation),
                trigger: trigger.to_string_lossy().into_owned(),
                state: state.as_str(),
            });
        }
    }
    Ok(())
}

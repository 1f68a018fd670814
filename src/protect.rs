//! Putting tables under protection and taking them out. What DDL does to protected tables is the subject of `ddl`.

use std::ffi::CStr;

use audit_ledger::Operation;
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

use crate::capture::{baseline_row, protected_table};
use crate::chain::{self, Event, Recorder, table_of};
use crate::error::Error;
use crate::incarnation;
use crate::pg::fmgr::Call;
use crate::pg::lock::{self, Target};
use crate::pg::relation::{self, Lock, Relation};
use crate::pg::scan::{TableScan, Visible};
use crate::pg::trigger::{self, ROW_KIND, TRUNCATE_KIND};
use crate::pg::{compat, memory::Scratch, session, xact};
use crate::registry::{self, Objects, Registration, images};
use crate::render::{Shape, Table};
use crate::session_cache::{self, display_name};
use crate::watch::OwnWork;

/// Name of the trigger that records row changes. Triggers of one event fire in the order of their names; an earlier one may change the row again, which is why
/// entries carry the number of the command.
pub(crate) const ROW_TRIGGER: &CStr = c"audit_row";
/// Name of the trigger that records TRUNCATE.
pub(crate) const TRUNCATE_TRIGGER: &CStr = c"audit_truncate";

/// `new` of a PROTECT entry: docs/format.md, section 3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProtectDetails {
    pub(crate) kind: char,
    pub(crate) images: String,
    pub(crate) exclude: Vec<String>,
    pub(crate) baseline: bool,
    #[serde(flatten)]
    pub(crate) shape: Shape,
}

impl ProtectDetails {
    pub(crate) fn of(registration: &Registration) -> ProtectDetails {
        ProtectDetails {
            kind: registration.kind,
            images: images(registration.full_images).to_owned(),
            exclude: registration.exclude.clone(),
            baseline: registration.baseline,
            shape: registration.shape.clone(),
        }
    }
}

/// The whole of it: also from which transaction on the table has no rows yet.
#[derive(Serialize, Deserialize)]
pub(crate) struct Anchored {
    #[serde(flatten)]
    pub(crate) details: ProtectDetails,
    pub(crate) next_xid: Option<String>,
}

#[derive(Serialize)]
struct UnprotectDetails<'a> {
    reason: &'a str,
}

/// `new` of an INCARNATION entry: docs/format.md, section 3.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct IncarnationDetails {
    pub(crate) system_identifier: String,
    pub(crate) database_oid: u32,
    pub(crate) tables: std::collections::BTreeMap<String, u32>,
    /// The next transaction, after a restore from a dump: all rows were written before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_xid: Option<String>,
    /// What has changed; not there after a restore from a dump.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<incarnation::Why>,
}

/// What the INCARNATION entry of this database says: which table of the registry had which object id before.
pub(crate) fn incarnation_details(objects: &Objects) -> Result<String, Error> {
    let tables = registry::all(objects, Visible::Now)?
        .into_iter()
        .map(|registration| (registration.known_as.to_u32().to_string(), registration.relation.to_u32()))
        .collect();
    json(&IncarnationDetails {
        system_identifier: session::system_identifier().to_string(),
        database_oid: session::database().to_u32(),
        tables,
        next_xid: Some(xact::next_transaction().to_string()),
        why: None,
    })
}

pub(crate) fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Damaged { what: error.to_string() })
}

/// How a table is to be protected.
pub(crate) struct Wish {
    pub(crate) exclude: Vec<String>,
    pub(crate) full_images: bool,
    pub(crate) baseline: bool,
}

/// `audit.protect(relation, exclude, images, baseline)`: gives the number of tables put under protection.
pub(crate) fn protect(call: &Call) -> Result<i64, Error> {
    let oid: pg_sys::Oid = call.argument(0).ok_or(Error::NullArgument { argument: "relation" })?;
    let exclude: Vec<Option<String>> = call.argument(1).ok_or(Error::NullArgument { argument: "exclude" })?;
    let mut exclude: Vec<String> =
        exclude.into_iter().collect::<Option<_>>().ok_or(Error::NullArgument { argument: "exclude" })?;
    exclude.sort_unstable();
    exclude.dedup();
    let images: String = call.argument(2).ok_or(Error::NullArgument { argument: "images" })?;
    let full_images = registry::is_full(&images).ok_or(Error::BadImages { images })?;
    let baseline = call.argument(3).ok_or(Error::NullArgument { argument: "baseline" })?;

    let objects = session_cache::objects()?;
    let _own_work = OwnWork::begin();
    lock::lock(Target::Ledger);
    // Keeps writers out until the end of the transaction: the baseline is the state that the first entry after it starts from.
    let Some(root) = Relation::try_open(oid, Lock::ShareRowExclusive) else {
        return Err(Error::NoSuchTable { oid: oid.to_u32() });
    };
    check_owner(&root)?;
    check_kind(&objects, &root)?;
    if registry::find(&objects, oid)?.is_some() {
        return Err(Error::AlreadyProtected { relation: display_name(oid) });
    }
    let wish = Wish { exclude, full_images, baseline };
    let members = relation::with_descendants(oid, Lock::ShareRowExclusive);
    for member in &members[1..] {
        let child = Relation::open(*member, Lock::Held);
        check_kind(&objects, &child)?;
        if registry::find(&objects, *member)?.is_some() {
            return Err(Error::ChildProtected { relation: display_name(oid), child: display_name(*member) });
        }
    }
    for member in &members {
        check_columns(&Relation::open(*member, Lock::Held), &wish)?;
    }
    chain::ensure_ledger(&objects)?;
    drop(root);
    for member in &members {
        attach(&objects, *member, &wish, *member == oid)?;
    }
    Ok(members.len() as i64)
}

/// Makes sure that a table has the trigger that records row changes. A partition has it already: cloned from the table above.
pub(crate) fn ensure_row_trigger(objects: &Objects, oid: pg_sys::Oid) {
    if !has_trigger(oid, objects.row_function) {
        trigger::create(oid, ROW_TRIGGER, objects.row_function, ROW_KIND);
    }
}

/// Makes the triggers of one table, registers it, and records PROTECT and its baseline.
pub(crate) fn attach(objects: &Objects, oid: pg_sys::Oid, wish: &Wish, is_root: bool) -> Result<(), Error> {
    ensure_row_trigger(objects, oid);
    if !has_trigger(oid, objects.truncate_function) {
        trigger::create(oid, TRUNCATE_TRIGGER, objects.truncate_function, TRUNCATE_KIND);
    }
    xact::next_command();
    let relation = Relation::open(oid, Lock::Held);
    let mut registration = Registration {
        relation: oid,
        known_as: oid,
        kind: relation.kind(),
        protect_id: 0,
        is_root,
        full_images: wish.full_images,
        baseline: wish.baseline,
        exclude_numbers: column_numbers(&relation, &wish.exclude),
        exclude: wish.exclude.clone(),
        shape: Table::new(&relation, &wish.exclude, wish.full_images).shape(),
        schema: relation.schema(),
        name: relation.name(),
    };
    let mut recorder = Recorder::open(objects)?;
    registration.protect_id = record_protect(&relation, &registration, &mut recorder)?;
    registry::add(objects, std::slice::from_ref(&registration))?;
    xact::next_command();
    record_baseline(objects, &relation, &registration, &mut recorder)
}

pub(crate) fn column_numbers(relation: &Relation, names: &[String]) -> Vec<i16> {
    let columns = relation.column_names();
    let number_of = |name| columns.iter().find(|(_, other)| other == name).map_or(0, |(number, _)| *number);
    names.iter().map(number_of).collect()
}

pub(crate) fn record_protect(
    relation: &Relation,
    registration: &Registration,
    recorder: &mut Recorder<'_>,
) -> Result<i64, Error> {
    // The table is locked against writers, so whatever is in it was written by a transaction that has its id.
    let next_xid = Some(xact::next_transaction().to_string());
    let details = json(&Anchored { details: ProtectDetails::of(registration), next_xid })?;
    let (schema, name) = (relation.schema(), relation.name());
    let table = table_of(relation.oid(), &schema, &name);
    recorder.record(&Event::of_table(Operation::Protect, table, Some(&details)))
}

/// Records all rows of a table as they are, if it is a table with rows that is to have a baseline.
pub(crate) fn record_baseline(
    objects: &Objects,
    relation: &Relation,
    registration: &Registration,
    recorder: &mut Recorder<'_>,
) -> Result<(), Error> {
    if !registration.baseline || registration.kind != 'r' {
        return Ok(());
    }
    let table = protected_table(objects, relation)?;
    let (mut key, mut new) = (Vec::new(), Vec::new());
    let scratch = Scratch::new();
    // Everything committed, not the snapshot of a transaction that may be older than the last change: the lock keeps writers out.
    let mut scan = TableScan::new(relation, Visible::Now);
    while let Some(row) = scan.next(relation.width()) {
        scratch.within(|| baseline_row(&table, &row, &mut key, &mut new, recorder))?;
        scratch.reset();
    }
    Ok(())
}

/// `audit.unprotect(relation, reason)`: gives the number of tables taken out of protection.
///
/// A table that was dropped is named by its object id: `audit.unprotect(16400, 'dropped with release 7')`.
pub(crate) fn unprotect(call: &Call) -> Result<i64, Error> {
    let oid: pg_sys::Oid = call.argument(0).ok_or(Error::NullArgument { argument: "relation" })?;
    let reason: String = call.argument(1).ok_or(Error::NullArgument { argument: "reason" })?;
    if reason.trim().is_empty() {
        return Err(Error::EmptyReason);
    }
    let objects = session_cache::objects()?;
    let _own_work = OwnWork::begin();
    lock::lock(Target::Ledger);
    let root = Relation::try_open(oid, Lock::ShareRowExclusive);
    if let Some(root) = &root {
        check_owner(root)?;
    } else if !session::is_superuser() {
        return Err(Error::NoSuchTable { oid: oid.to_u32() });
    }
    let all = registry::all(&objects, Visible::Now)?;
    let registered = |oid: pg_sys::Oid| all.iter().find(|registration| registration.relation == oid);
    if registered(oid).is_none() {
        return Err(Error::NotProtected { relation: display_name(oid) });
    }
    let mut members = vec![oid];
    if root.is_some() {
        if let Some(parent) = protecting_parent(&all, oid) {
            return Err(Error::ProtectedThroughParent { relation: display_name(oid), parent: display_name(parent) });
        }
        let descendants = relation::with_descendants(oid, Lock::ShareRowExclusive);
        members.extend(descendants.into_iter().skip(1).filter(|member| registered(*member).is_some()));
    }
    drop(root);
    for member in &members {
        // Clones go with the trigger of the table above, so only what is left is dropped here.
        for function in [objects.row_function, objects.truncate_function] {
            drop_triggers(*member, function);
        }
    }
    let details = json(&UnprotectDetails { reason: &reason })?;
    let mut recorder = Recorder::open(&objects)?;
    for member in &members {
        let registration = registered(*member).expect("only registered tables are members");
        // A table that was dropped keeps the name that the log knows.
        let (schema, name) = relation::qualified_name(*member)
            .unwrap_or_else(|| (registration.schema.clone(), registration.name.clone()));
        let table = table_of(registration.known_as, &schema, &name);
        recorder.record(&Event::of_table(Operation::Unprotect, table, Some(&details)))?;
    }
    registry::remove(&objects, &members)?;
    Ok(members.len() as i64)
}

/// The table above through which a table is protected, if it is.
fn protecting_parent(all: &[Registration], oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    let is_registered = |oid: &pg_sys::Oid| all.iter().any(|registration| registration.relation == *oid);
    let partition = Relation::try_open(oid, Lock::Held)?.is_partition();
    if !partition {
        return None;
    }
    relation::ancestors(oid).into_iter().find(is_registered)
}

fn has_trigger(oid: pg_sys::Oid, function: pg_sys::Oid) -> bool {
    Relation::open(oid, Lock::Held).triggers().iter().any(|trigger| trigger.function == function)
}

pub(crate) fn drop_triggers(oid: pg_sys::Oid, function: pg_sys::Oid) {
    let Some(table) = Relation::try_open(oid, Lock::Held) else {
        return;
    };
    let triggers = table.triggers();
    drop(table);
    for found in triggers.iter().filter(|found| found.function == function && !found.cloned) {
        trigger::drop(found.oid);
        xact::next_command();
    }
}

fn check_owner(table: &Relation) -> Result<(), Error> {
    if compat::owns_relation(table.oid(), session::roles().1) {
        return Ok(());
    }
    Err(Error::NotOwner { relation: display_name(table.oid()) })
}

pub(crate) fn check_kind(objects: &Objects, table: &Relation) -> Result<(), Error> {
    let relation = display_name(table.oid());
    if table.schema_oid() == objects.schema {
        return Err(Error::NotYours { relation, why: "a table of the audit extension itself" });
    }
    if table.is_system() {
        return Err(Error::NotYours { relation, why: "a system catalog" });
    }
    let (why, hint) = match (table.kind(), table.persistence()) {
        ('v', _) => ("a view", "Protect the tables that the view reads: changes through the view are recorded there."),
        ('m', _) => ("a materialized view", "Protect the tables that it is made from."),
        ('f', _) => {
            ("a foreign table", "Its rows can change without this server; protect the table on the remote server.")
        }
        ('S', _) => ("a sequence", "Only tables can be protected."),
        ('i' | 'I', _) => ("an index", "Only tables can be protected."),
        ('c', _) => ("a composite type", "Only tables can be protected."),
        ('t', _) => ("a TOAST table", "Only tables can be protected."),
        (_, 't') => ("a temporary table", "It vanishes with the session, and its entries could never be verified."),
        (_, 'u') => ("an unlogged table", "A crash empties it without a trace; use ALTER TABLE ... SET LOGGED first."),
        ('r' | 'p', _) => return Ok(()),
        _ => ("not a table", "Only tables can be protected."),
    };
    Err(Error::CannotProtect { relation, why, hint })
}

pub(crate) fn check_columns(table: &Relation, wish: &Wish) -> Result<(), Error> {
    let columns = table.column_names();
    let key = table.primary_key();
    for excluded in &wish.exclude {
        let relation = || display_name(table.oid());
        let Some((number, _)) = columns.iter().find(|(_, name)| name == excluded) else {
            return Err(Error::NoSuchColumn { relation: relation(), column: excluded.clone() });
        };
        if key.contains(number) {
            return Err(Error::ExcludedKey { relation: relation(), column: excluded.clone() });
        }
    }
    Ok(())
}

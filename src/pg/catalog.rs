//! What the catalogs say of functions, event triggers, databases and dependencies.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::datum;
use super::relation::{self, Lock, Relation};
use super::scan::{Comparison, Condition, Direction, Row, TableScan, Visible, by_index};

/// Object id of the language C (pg_language.dat).
const C_LANGUAGE: pg_sys::Oid = pg_sys::Oid::from_u32(13);

/// The catalog `pg_depend`, its indexes, and its columns as places in a row (catalog/pg_depend.h).
mod depend {
    use pgrx::pg_sys::Oid;

    pub(super) const CATALOG: Oid = Oid::from_u32(2608);
    pub(super) const DEPENDER_INDEX: Oid = Oid::from_u32(2673);
    pub(super) const REFERENCE_INDEX: Oid = Oid::from_u32(2674);

    pub(super) const CLASS: usize = 0;
    pub(super) const OBJECT: usize = 1;
    pub(super) const COLUMN: usize = 2;
    pub(super) const REFERENCED_CLASS: usize = 3;
    pub(super) const REFERENCED_OBJECT: usize = 4;
    pub(super) const KIND: usize = 6;
}

/// Whether objects of a catalog are parts of tables: `pg_constraint`, `pg_rewrite`, `pg_trigger`, `pg_policy` (catalog/*.h).
pub(crate) fn holds_parts_of_tables(catalog: pg_sys::Oid) -> bool {
    matches!(catalog.to_u32(), 2606 | 2618 | 2620 | 3256)
}

/// Language, symbol and library of a C function.
#[derive(PartialEq, Eq)]
pub(crate) struct CFunction {
    language: pg_sys::Oid,
    symbol: String,
    library: Option<String>,
}

impl CFunction {
    /// What the function behind `symbol` of this library must be.
    pub(crate) fn ours(symbol: &str) -> CFunction {
        CFunction { language: C_LANGUAGE, symbol: symbol.to_owned(), library: Some("$libdir/audit".to_owned()) }
    }
}

/// What a function is, if it exists.
pub(crate) fn c_function(oid: pg_sys::Oid) -> Option<CFunction> {
    // SAFETY: the cache gives null or a tuple of pg_proc that stays valid until it is released; all that is read is copied before.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as core::ffi::c_int;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(oid));
        if tuple.is_null() {
            return None;
        }
        let text = |attribute: u32| {
            let mut is_null = false;
            let value = pg_sys::SysCacheGetAttr(cache, tuple, attribute as pg_sys::AttrNumber, &mut is_null);
            (!is_null).then(|| datum::text(value).into_owned())
        };
        let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>();
        let function = CFunction {
            language: form.prolang,
            symbol: text(pg_sys::Anum_pg_proc_prosrc).unwrap_or_default(),
            library: text(pg_sys::Anum_pg_proc_probin),
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(function)
    }
}

/// `pg_event_trigger.evtenabled` of an event trigger, if it exists.
pub(crate) fn event_trigger_enabled(name: &str) -> Option<char> {
    let catalog = Relation::open(pg_sys::EventTriggerRelationId, Lock::AccessShare);
    let mut scan = TableScan::new(&catalog, Visible::Statement);
    while let Some(row) = scan.next(pg_sys::Anum_pg_event_trigger_evtenabled as usize) {
        let found = row.name(pg_sys::Anum_pg_event_trigger_evtname as usize - 1);
        if found.map(CStr::to_bytes) == Some(name.as_bytes()) {
            return row.character(pg_sys::Anum_pg_event_trigger_evtenabled as usize - 1);
        }
    }
    None
}

/// A database of the cluster.
pub(crate) struct Database {
    pub(crate) oid: pg_sys::Oid,
    pub(crate) name: String,
    pub(crate) is_template: bool,
    pub(crate) can_connect: bool,
}

/// `pg_database.datconnlimit` of a database whose removal was interrupted (pg_database.h).
const INVALID: i32 = -2;

/// All databases.
pub(crate) fn databases() -> Vec<Database> {
    let catalog = Relation::open(pg_sys::DatabaseRelationId, Lock::AccessShare);
    let mut scan = TableScan::new(&catalog, Visible::Statement);
    let mut databases = Vec::new();
    while let Some(row) = scan.next(pg_sys::Anum_pg_database_datconnlimit as usize) {
        let flag = |number: u32| row.boolean(number as usize - 1).unwrap_or(false);
        let (Some(oid), Some(name)) = (
            row.oid(pg_sys::Anum_pg_database_oid as usize - 1),
            row.name(pg_sys::Anum_pg_database_datname as usize - 1),
        ) else {
            continue;
        };
        databases.push(Database {
            oid,
            name: name.to_string_lossy().into_owned(),
            is_template: flag(pg_sys::Anum_pg_database_datistemplate),
            can_connect: flag(pg_sys::Anum_pg_database_datallowconn)
                && row.int4(pg_sys::Anum_pg_database_datconnlimit as usize - 1) != Some(INVALID),
        });
    }
    databases
}

/// Whether this database holds an extension.
pub(crate) fn has_extension(name: &CStr) -> bool {
    // SAFETY: a catalog look-up by name; true: 0 when there is none.
    unsafe { pg_sys::get_extension_oid(name.as_ptr(), true) != pg_sys::InvalidOid }
}

/// Rows of `pg_depend` that meet two conditions on object ids, by place in the row, found by one of its indexes.
fn dependencies(index: pg_sys::Oid, conditions: [(usize, pg_sys::Oid); 2], mut visit: impl FnMut(&Row<'_>)) {
    let conditions = conditions.map(|(place, value)| Condition {
        number: place as i16 + 1,
        comparison: Comparison::Equal,
        function: pg_sys::F_OIDEQ,
        value: pg_sys::Datum::from(value),
    });
    let catalog = Relation::open(depend::CATALOG, Lock::AccessShare);
    let index = Relation::open(index, Lock::AccessShare);
    by_index(&catalog, &index, Visible::Now, &conditions, Direction::Forward, |row| {
        visit(row);
        true
    });
}

/// The relations that an object is a part of: the table of a trigger, rule, policy or constraint.
pub(crate) fn owning_relations(class: pg_sys::Oid, object: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut relations = Vec::new();
    dependencies(depend::DEPENDER_INDEX, [(depend::CLASS, class), (depend::OBJECT, object)], |row| {
        let is_part = matches!(row.character(depend::KIND), Some('a' | 'i'));
        if is_part && row.oid(depend::REFERENCED_CLASS) == Some(pg_sys::RelationRelationId) {
            relations.extend(row.oid(depend::REFERENCED_OBJECT));
        }
    });
    relations
}

/// The relations with columns of any of these types, or of types made of them: arrays, domains, ranges, composite types.
pub(crate) fn relations_with(mut types: Vec<pg_sys::Oid>) -> Vec<pg_sys::Oid> {
    let mut relations: Vec<pg_sys::Oid> = Vec::new();
    let mut next = 0;
    while let Some(known) = types.get(next).copied() {
        next += 1;
        let (mut found_types, mut found_relations) = (Vec::new(), Vec::new());
        let conditions = [(depend::REFERENCED_CLASS, pg_sys::TypeRelationId), (depend::REFERENCED_OBJECT, known)];
        dependencies(depend::REFERENCE_INDEX, conditions, |row| {
            let (class, object) = (row.oid(depend::CLASS), row.oid(depend::OBJECT));
            if class == Some(pg_sys::TypeRelationId) {
                found_types.extend(object);
            } else if class == Some(pg_sys::RelationRelationId)
                && row.int4(depend::COLUMN).is_some_and(|column| column > 0)
            {
                found_relations.extend(object);
            }
        });
        for relation in found_relations {
            if !relations.contains(&relation) {
                relations.push(relation);
                found_types.extend(relation::row_type(relation));
            }
        }
        for found in found_types {
            if !types.contains(&found) {
                types.push(found);
            }
        }
    }
    relations
}

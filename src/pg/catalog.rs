//! What the catalogs say of functions and event triggers.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::datum;
use super::relation::{Lock, Relation};
use super::scan::{TableScan, Visible};

/// Object id of the language C (pg_language.dat).
const C_LANGUAGE: pg_sys::Oid = pg_sys::Oid::from_u32(13);

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

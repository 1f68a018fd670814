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

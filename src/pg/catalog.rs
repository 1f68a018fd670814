//! What the catalogs say of functions, event triggers, databases and dependencies.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::compat;
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

/// A function.
pub(crate) struct Function {
    pub(crate) oid: pg_sys::Oid,
    pub(crate) name: String,
    pub(crate) owner: pg_sys::Oid,
    pub(crate) c: CFunction,
    /// Its text; of a C function, the symbol.
    pub(crate) source: String,
    pub(crate) is_security_definer: bool,
    /// What its SET clauses say, as `name=value`.
    pub(crate) settings: Vec<String>,
}

/// All functions of a schema.
pub(crate) fn functions_in(schema: pg_sys::Oid) -> Vec<Function> {
    let catalog = Relation::open(pg_sys::ProcedureRelationId, Lock::AccessShare);
    let mut scan = TableScan::new(&catalog, Visible::Statement);
    let mut functions = Vec::new();
    let place = |number: u32| number as usize - 1;
    while let Some(row) = scan.next(pg_sys::Anum_pg_proc_proconfig as usize) {
        if row.oid(place(pg_sys::Anum_pg_proc_pronamespace)) != Some(schema) {
            continue;
        }
        let text = |number: u32| row.text(place(number)).map(std::borrow::Cow::into_owned);
        let oid = |number: u32| row.oid(place(number)).unwrap_or(pg_sys::InvalidOid);
        let source = text(pg_sys::Anum_pg_proc_prosrc).unwrap_or_default();
        functions.push(Function {
            oid: row.oid(0).unwrap_or(pg_sys::InvalidOid),
            name: name_of(row.name(place(pg_sys::Anum_pg_proc_proname))),
            owner: oid(pg_sys::Anum_pg_proc_proowner),
            c: CFunction {
                language: oid(pg_sys::Anum_pg_proc_prolang),
                symbol: source.clone(),
                library: text(pg_sys::Anum_pg_proc_probin),
            },
            source,
            is_security_definer: row.boolean(place(pg_sys::Anum_pg_proc_prosecdef)).unwrap_or(false),
            settings: row.array(place(pg_sys::Anum_pg_proc_proconfig)).unwrap_or_default(),
        });
    }
    functions
}

fn name_of(name: Option<&CStr>) -> String {
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// An event trigger.
pub(crate) struct EventTrigger {
    pub(crate) oid: pg_sys::Oid,
    pub(crate) name: String,
    pub(crate) event: String,
    pub(crate) function: pg_sys::Oid,
    /// `A` is ENABLE ALWAYS.
    pub(crate) enabled: char,
    /// The only commands for which it fires; empty: for all.
    pub(crate) tags: Vec<String>,
}

/// All event triggers.
pub(crate) fn event_triggers() -> Vec<EventTrigger> {
    let catalog = Relation::open(pg_sys::EventTriggerRelationId, Lock::AccessShare);
    let mut scan = TableScan::new(&catalog, Visible::Statement);
    let mut triggers = Vec::new();
    let place = |number: u32| number as usize - 1;
    while let Some(row) = scan.next(pg_sys::Anum_pg_event_trigger_evttags as usize) {
        triggers.push(EventTrigger {
            oid: row.oid(0).unwrap_or(pg_sys::InvalidOid),
            name: name_of(row.name(place(pg_sys::Anum_pg_event_trigger_evtname))),
            event: name_of(row.name(place(pg_sys::Anum_pg_event_trigger_evtevent))),
            function: row.oid(place(pg_sys::Anum_pg_event_trigger_evtfoid)).unwrap_or(pg_sys::InvalidOid),
            enabled: row.character(place(pg_sys::Anum_pg_event_trigger_evtenabled)).unwrap_or(' '),
            tags: row.array(place(pg_sys::Anum_pg_event_trigger_evttags)).unwrap_or_default(),
        });
    }
    triggers
}

/// The extension that an object is a member of, if it is.
pub(crate) fn extension_of(class: pg_sys::Oid, object: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up by value.
    let oid = unsafe { pg_sys::getExtensionOfObject(class, object) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Whether a trigger is dropped together with some extension (ALTER TRIGGER ... DEPENDS ON EXTENSION).
pub(crate) fn goes_with_an_extension(trigger: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up by value; gives a list or null.
    unsafe { !pg_sys::getAutoExtensionsOfObject(pg_sys::TriggerRelationId, trigger).is_null() }
}

/// Whether a role is a superuser.
pub(crate) fn is_superuser(role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up by value.
    unsafe { pg_sys::superuser_arg(role) }
}

/// The right to read a table, as grants hold it.
pub(crate) const SELECT: u64 = pg_sys::ACL_SELECT as u64;
/// The right to look into a schema, as grants hold it.
pub(crate) const USAGE: u64 = pg_sys::ACL_USAGE as u64;

/// What somebody was granted.
pub(crate) struct Grant {
    grantee: pg_sys::Oid,
    /// Bits of the rights themselves, without the right to grant them.
    pub(crate) rights: u64,
}

impl Grant {
    /// Whether it says nothing that its holder could not do anyhow.
    pub(crate) fn is_superusers(&self) -> bool {
        self.grantee != pg_sys::InvalidOid && is_superuser(self.grantee)
    }

    /// Whom it was given to.
    pub(crate) fn display(&self) -> String {
        if self.grantee == pg_sys::InvalidOid {
            return "everybody".into();
        }
        let name = super::session::role_name(self.grantee);
        format!("role \"{}\"", name.unwrap_or_else(|| self.grantee.to_u32().to_string()))
    }
}

/// What was granted on a relation.
pub(crate) fn relation_grants(oid: pg_sys::Oid) -> Vec<Grant> {
    rights(pg_sys::SysCacheIdentifier::RELOID, oid, pg_sys::Anum_pg_class_relacl).unwrap_or_default()
}

/// Who owns a schema, and what was granted on it.
pub(crate) fn schema_rights(oid: pg_sys::Oid) -> (pg_sys::Oid, Vec<Grant>) {
    let owner = cached(pg_sys::SysCacheIdentifier::NAMESPACEOID, oid, |tuple| {
        // SAFETY: a tuple of pg_namespace.
        unsafe { (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_namespace>()).nspowner }
    });
    let grants = rights(pg_sys::SysCacheIdentifier::NAMESPACEOID, oid, pg_sys::Anum_pg_namespace_nspacl);
    (owner.unwrap_or(pg_sys::InvalidOid), grants.unwrap_or_default())
}

/// Looks at a tuple of a system cache, found by object id.
fn cached<R>(
    cache: pg_sys::SysCacheIdentifier::Type,
    oid: pg_sys::Oid,
    look: impl FnOnce(pg_sys::HeapTuple) -> R,
) -> Option<R> {
    // SAFETY: gives null or a tuple that stays valid until it is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache as core::ffi::c_int, pg_sys::Datum::from(oid));
        if tuple.is_null() {
            return None;
        }
        let result = look(tuple);
        pg_sys::ReleaseSysCache(tuple);
        Some(result)
    }
}

fn rights(cache: pg_sys::SysCacheIdentifier::Type, oid: pg_sys::Oid, column: u32) -> Option<Vec<Grant>> {
    cached(cache, oid, |tuple| {
        let mut is_null = false;
        // SAFETY: a column of type aclitem[], which holds no nulls and has one dimension (acl.c, check_acl); its items lie behind the header of the array, aligned.
        unsafe {
            let value =
                pg_sys::SysCacheGetAttr(cache as core::ffi::c_int, tuple, column as pg_sys::AttrNumber, &mut is_null);
            if is_null {
                return Vec::new();
            }
            let array = pg_sys::pg_detoast_datum(value.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            let header = array.add(1).cast::<core::ffi::c_int>();
            let count = *header as usize;
            const OVERHEAD: usize =
                (size_of::<pg_sys::ArrayType>() + 2 * size_of::<core::ffi::c_int>()).next_multiple_of(8);
            let items = array.cast::<u8>().add(OVERHEAD).cast::<pg_sys::AclItem>();
            std::slice::from_raw_parts(items, count)
                .iter()
                .map(|item| Grant { grantee: item.ai_grantee, rights: compat::granted_rights(item) })
                .collect()
        }
    })
}

/// What `ALTER ROLE ... SET` and `ALTER DATABASE ... SET` have set that counts in this database: `name=value`, and for whom.
pub(crate) fn settings_of_roles() -> Vec<(String, String)> {
    // pg_db_role_setting, whose columns are database, role and settings; the first two are 0 for all.
    const PG_DB_ROLE_SETTING: pg_sys::Oid = pg_sys::Oid::from_u32(2964);
    let catalog = Relation::open(PG_DB_ROLE_SETTING, Lock::AccessShare);
    let mut scan = TableScan::new(&catalog, Visible::Statement);
    let mut settings = Vec::new();
    while let Some(row) = scan.next(3) {
        let (database, role) = (row.oid(0).unwrap_or(pg_sys::InvalidOid), row.oid(1).unwrap_or(pg_sys::InvalidOid));
        if database != pg_sys::InvalidOid && database != super::session::database() {
            continue;
        }
        let whose = match role {
            pg_sys::InvalidOid => "the database".to_owned(),
            role => Grant { grantee: role, rights: 0 }.display(),
        };
        settings.extend(row.array::<String>(2).unwrap_or_default().into_iter().map(|setting| (setting, whose.clone())));
    }
    settings
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

/// Object id of an extension, if it is there.
pub(crate) fn extension(name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up by name; true: invalid when there is none.
    let oid = unsafe { pg_sys::get_extension_oid(name.as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Whether the running command comes from the script of this extension: CREATE EXTENSION, ALTER EXTENSION UPDATE.
pub(crate) fn is_in_script_of(name: &CStr) -> bool {
    // SAFETY: plain variables of the process; the second is valid while the first is set.
    unsafe { pg_sys::creating_extension && extension(name) == Some(pg_sys::CurrentExtensionObject) }
}

// Object ids of catalogs and their indexes never change (catalog/pg_*.h); the bindings lack some of them.
const PG_REWRITE: pg_sys::Oid = pg_sys::Oid::from_u32(2618);
const PG_REWRITE_OID_INDEX: u32 = 2692;
const PG_POLICY: pg_sys::Oid = pg_sys::Oid::from_u32(3256);
const PG_POLICY_OID_INDEX: u32 = 3257;
const PG_INHERITS: pg_sys::Oid = pg_sys::Oid::from_u32(2611);
const PG_TRIGGER_OID_INDEX: u32 = 2702;
const PG_PROC_OID_INDEX: u32 = 2690;
const PG_CLASS_OID_INDEX: u32 = 2662;
/// Number of the column `oid`, the first of each of them.
const OID: i16 = 1;

/// Whether objects of a catalog are among those on which protection depends.
pub(crate) fn protects(class: pg_sys::Oid) -> bool {
    matches!(
        class,
        pg_sys::RelationRelationId
            | pg_sys::TriggerRelationId
            | pg_sys::ProcedureRelationId
            | pg_sys::EventTriggerRelationId
            | pg_sys::NamespaceRelationId
            | pg_sys::ExtensionRelationId
            | PG_REWRITE
            | PG_POLICY
            | PG_INHERITS
    )
}

/// Whether an event about a catalog says that a table became, or ceases to be, the child of another.
pub(crate) fn is_inheritance(class: pg_sys::Oid) -> bool {
    class == PG_INHERITS
}

/// The relation that an object is, or belongs to, as the running command has left it; `None` when it belongs to none.
pub(crate) fn of_relation(class: pg_sys::Oid, object: pg_sys::Oid) -> Option<pg_sys::Oid> {
    match class {
        pg_sys::RelationRelationId | PG_INHERITS => Some(object),
        pg_sys::TriggerRelationId => member(class, PG_TRIGGER_OID_INDEX, object, pg_sys::Anum_pg_trigger_tgrelid),
        // pg_rewrite.ev_class and pg_policy.polrelid follow object id and name.
        PG_REWRITE => member(class, PG_REWRITE_OID_INDEX, object, 3),
        PG_POLICY => member(class, PG_POLICY_OID_INDEX, object, 3),
        _ => None,
    }
}

/// The schemas of a function: before the running command, and as it has left it.
pub(crate) fn schemas_of_function(oid: pg_sys::Oid) -> [Option<pg_sys::Oid>; 2] {
    // SAFETY: a catalog look-up by value; invalid when there is no such function.
    let before = unsafe { pg_sys::get_func_namespace(oid) };
    let after = member(pg_sys::ProcedureRelationId, PG_PROC_OID_INDEX, oid, pg_sys::Anum_pg_proc_pronamespace);
    [Some(before), after]
}

/// A column of type oid of the catalog's row for an object.
fn member(catalog: pg_sys::Oid, index: u32, object: pg_sys::Oid, column: u32) -> Option<pg_sys::Oid> {
    visible_member(Visible::Now, catalog, index, object, column)
}

fn visible_member(
    visible: Visible,
    catalog: pg_sys::Oid,
    index: u32,
    object: pg_sys::Oid,
    column: u32,
) -> Option<pg_sys::Oid> {
    let catalog = Relation::open(catalog, Lock::AccessShare);
    let index = Relation::open(pg_sys::Oid::from(index), Lock::AccessShare);
    let condition = Condition {
        number: OID,
        comparison: Comparison::Equal,
        function: pg_sys::F_OIDEQ,
        value: pg_sys::Datum::from(object),
    };
    let mut found = None;
    by_index(&catalog, &index, visible, &[condition], Direction::Forward, |row| {
        found = row.oid(column as usize - 1);
        false
    });
    found
}

/// Number of the file of a relation's rows as the running statement sees it, which may be from before it was emptied or written anew.
pub(crate) fn file_in_snapshot(relation: pg_sys::Oid) -> Option<pg_sys::Oid> {
    visible_member(
        Visible::Statement,
        pg_sys::RelationRelationId,
        PG_CLASS_OID_INDEX,
        relation,
        pg_sys::Anum_pg_class_relfilenode,
    )
}

/// Whether a catalog defines what protection depends on: tables, their triggers, functions, rules, dependencies, schemas, extensions.
///
/// Not among them are those that administrators do change by hand and that protect nothing, such as pg_database, pg_statistic and pg_largeobject.
pub(crate) fn defines_protection(catalog: pg_sys::Oid) -> bool {
    const PG_DEPEND: u32 = 2608;
    const PG_SHDEPEND: u32 = 1214;
    const PG_CONSTRAINT: u32 = 2606;
    const PG_ATTRDEF: u32 = 2604;
    const PG_LANGUAGE: u32 = 2612;
    const PG_CAST: u32 = 2605;
    const PG_PARTITIONED_TABLE: u32 = 3350;
    const PG_INIT_PRIVS: u32 = 3394;
    protects(catalog)
        || matches!(
            catalog,
            pg_sys::AttributeRelationId
                | pg_sys::TypeRelationId
                | pg_sys::EnumRelationId
                | pg_sys::IndexRelationId
                | pg_sys::OperatorRelationId
                | pg_sys::OperatorClassRelationId
                | pg_sys::AccessMethodRelationId
        )
        || matches!(
            catalog.to_u32(),
            PG_DEPEND
                | PG_SHDEPEND
                | PG_CONSTRAINT
                | PG_ATTRDEF
                | PG_LANGUAGE
                | PG_CAST
                | PG_PARTITIONED_TABLE
                | PG_INIT_PRIVS
        )
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

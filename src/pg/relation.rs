//! Open relations and what the catalogs say of them.

use std::ffi::{CStr, CString};

use pgrx::{PgList, pg_sys};

use super::heap::Shape;
use super::{compat, server};

/// Lock modes that we take on relations (storage/lockdefs.h).
#[derive(Clone, Copy)]
pub(crate) enum Lock {
    /// The lock is held already, by whoever called us.
    Held = 0,
    /// Readers: waits only for ACCESS EXCLUSIVE.
    AccessShare = 1,
    /// Writers.
    RowExclusive = 3,
    /// Keeps writers out: what CREATE TRIGGER takes.
    ShareRowExclusive = 6,
}

/// An open relation, closed when dropped. Its lock stays to the end of the transaction.
pub(crate) struct Relation {
    ptr: pg_sys::Relation,
    close: bool,
}

impl Relation {
    /// Opens a relation that must exist.
    pub(crate) fn open(oid: pg_sys::Oid, lock: Lock) -> Relation {
        // SAFETY: by value; raises an error when there is no such relation.
        Relation { ptr: unsafe { pg_sys::relation_open(oid, lock as pg_sys::LOCKMODE) }, close: true }
    }

    /// Opens a relation if it exists.
    pub(crate) fn try_open(oid: pg_sys::Oid, lock: Lock) -> Option<Relation> {
        // SAFETY: by value; gives null when there is no such relation.
        let ptr = unsafe { pg_sys::try_relation_open(oid, lock as pg_sys::LOCKMODE) };
        (!ptr.is_null()).then(|| Relation { ptr, close: true })
    }

    /// A relation that somebody else keeps open.
    ///
    /// # Safety
    /// `ptr` stays open while the result is used.
    pub(super) unsafe fn borrowed(ptr: pg_sys::Relation) -> Relation {
        Relation { ptr, close: false }
    }

    /// The server's pointer, valid while `self` is.
    pub(super) fn as_ptr(&self) -> pg_sys::Relation {
        self.ptr
    }

    fn class(&self) -> &pg_sys::FormData_pg_class {
        // SAFETY: an open relation has a valid rd_rel.
        unsafe { &*(*self.ptr).rd_rel }
    }

    /// Object id.
    pub(crate) fn oid(&self) -> pg_sys::Oid {
        // SAFETY: an open relation is a valid struct.
        unsafe { (*self.ptr).rd_id }
    }

    /// Name without schema.
    pub(crate) fn name(&self) -> String {
        name_string(&self.class().relname)
    }

    /// Object id of the schema.
    pub(crate) fn schema_oid(&self) -> pg_sys::Oid {
        self.class().relnamespace
    }

    /// Name of the schema.
    pub(crate) fn schema(&self) -> String {
        schema_name(self.schema_oid()).unwrap_or_default()
    }

    /// `pg_class.relkind`.
    pub(crate) fn kind(&self) -> char {
        char::from(self.class().relkind as u8)
    }

    /// `pg_class.relpersistence`.
    pub(crate) fn persistence(&self) -> char {
        char::from(self.class().relpersistence as u8)
    }

    /// Whether the relation belongs to the system: made by initdb, or in a schema of the catalogs.
    pub(crate) fn is_system(&self) -> bool {
        // SAFETY: looks at object ids only.
        self.oid().to_u32() < pg_sys::FirstNormalObjectId || unsafe { pg_sys::IsCatalogNamespace(self.schema_oid()) }
    }

    /// Why a statement on the table could see or do other things than its columns say: rules, policies, an owner with few rights.
    pub(crate) fn peculiarities(&self) -> Vec<&'static str> {
        let class = self.class();
        // SAFETY: a catalog look-up by value.
        let owner_is_superuser = unsafe { pg_sys::superuser_arg(class.relowner) };
        [
            (self.kind() != 'r', "is not an ordinary table any more"),
            (self.persistence() != 'p', "is unlogged: a crash empties it"),
            (class.relhasrules, "has rules"),
            (class.relrowsecurity, "has row-level security"),
            (class.relispartition, "is a partition of another table"),
            (!owner_is_superuser, "belongs to a role that is no superuser"),
        ]
        .into_iter()
        .filter_map(|(is_so, what)| is_so.then_some(what))
        .collect()
    }

    /// Whether an index is unique and in use: its entries are complete.
    pub(crate) fn is_sound_index(&self) -> bool {
        // SAFETY: rd_index is null for what is no index, else valid while the relation is open.
        unsafe {
            let index = (*self.ptr).rd_index;
            !index.is_null() && (*index).indisunique && (*index).indisvalid && (*index).indisready && (*index).indislive
        }
    }

    /// Whether this is an index of the table.
    pub(crate) fn is_index_of(&self, table: pg_sys::Oid) -> bool {
        // SAFETY: as in `is_sound_index`.
        unsafe {
            let index = (*self.ptr).rd_index;
            !index.is_null() && (*index).indrelid == table
        }
    }

    /// Numbers of the columns of this index in their order, 0 for an expression; nothing when it is none, or does not hold all rows.
    pub(crate) fn index_columns(&self) -> Vec<i16> {
        // SAFETY: an open index has rd_index; indkey holds indnatts numbers, the key columns first.
        unsafe {
            let index = (*self.ptr).rd_index;
            if index.is_null() || !pg_sys::RelationGetIndexPredicate(self.ptr).is_null() {
                return Vec::new();
            }
            std::slice::from_raw_parts((*index).indkey.values.as_ptr(), (*index).indnkeyatts as usize).to_vec()
        }
    }

    /// Where a column of the table stands in this index, from 0; after all others when it does not.
    pub(super) fn place_of_key(&self, number: i16) -> usize {
        // SAFETY: an open index has rd_index; indkey holds indnatts numbers. What is no index has no place for anything.
        unsafe {
            let index = (*self.ptr).rd_index;
            if index.is_null() {
                return usize::MAX;
            }
            let columns = std::slice::from_raw_parts((*index).indkey.values.as_ptr(), (*index).indnkeyatts as usize);
            columns.iter().position(|column| *column == number).unwrap_or(usize::MAX)
        }
    }

    /// Number of the file of its rows. Whatever empties the relation or writes it anew gives it another.
    pub(crate) fn file(&self) -> pg_sys::Oid {
        self.class().relfilenode
    }

    /// Whether somebody besides the holder of `self` has the relation open in this process: a command that surrounds this one is still at work on it.
    pub(crate) fn is_in_use(&self) -> bool {
        // SAFETY: an open relation is a valid struct.
        unsafe { (*self.ptr).rd_refcnt > 1 }
    }

    /// Whether the relation is a partition.
    pub(crate) fn is_partition(&self) -> bool {
        self.class().relispartition
    }

    /// Whether the relation has rules, as `pg_class.relhasrules` says.
    pub(crate) fn has_rules(&self) -> bool {
        self.class().relhasrules
    }

    /// `pg_class.relhastriggers`: whether the server looks for triggers at all.
    pub(crate) fn has_triggers(&self) -> bool {
        self.class().relhastriggers
    }

    /// Columns in the order of their numbers, without dropped ones and without virtual generated ones.
    pub(crate) fn columns(&self) -> Vec<Column> {
        let desc = self.desc();
        // SAFETY: the descriptor belongs to the open relation; the index is below natts.
        (0..self.width())
            .map(|index| unsafe { compat::attribute(desc, index) })
            .filter(|attribute| !attribute.attisdropped && !compat::is_virtual(attribute))
            .map(|attribute| Column {
                index: attribute.attnum as usize - 1,
                name: name_string(&attribute.attname),
                type_oid: attribute.atttypid,
                base_type: base_type(attribute.atttypid),
                by_value: attribute.attbyval,
                length: attribute.attlen,
                modifier: attribute.atttypmod,
            })
            .collect()
    }

    /// Names of the columns whose values follow from others, or read as a type of a user says.
    pub(crate) fn dependent_columns(&self) -> DependentColumns {
        let desc = self.desc();
        let mut found = DependentColumns::default();
        for index in 0..self.width() {
            // SAFETY: as in `columns`.
            let attribute = unsafe { compat::attribute(desc, index) };
            if attribute.attisdropped {
                continue;
            }
            if attribute.attgenerated != 0 {
                found.generated.push(name_string(&attribute.attname));
            }
            if attribute.atttypid.to_u32() >= pg_sys::FirstNormalObjectId {
                found.of_user_types.push(name_string(&attribute.attname));
            }
        }
        found
    }

    /// Names of all live columns, virtual ones included.
    pub(crate) fn column_names(&self) -> Vec<(i16, String)> {
        let desc = self.desc();
        // SAFETY: as in `columns`.
        (0..self.width())
            .map(|index| unsafe { compat::attribute(desc, index) })
            .filter(|attribute| !attribute.attisdropped)
            .map(|attribute| (attribute.attnum, name_string(&attribute.attname)))
            .collect()
    }

    /// Whether this is a table and has just these columns, by type, and none was dropped. What is no table has no rows to be scanned, whatever its columns.
    pub(crate) fn has_types(&self, types: &[pg_sys::Oid]) -> bool {
        let desc = self.desc();
        self.kind() == 'r'
            && self.width() == types.len()
            && types.iter().enumerate().all(|(index, expected)| {
                // SAFETY: as in `columns`.
                let attribute = unsafe { compat::attribute(desc, index) };
                attribute.atttypid == *expected && !attribute.attisdropped
            })
    }

    /// Number of attributes, dropped ones included: the width of a deformed row.
    pub(crate) fn width(&self) -> usize {
        // SAFETY: an open relation has a descriptor.
        unsafe { (*self.desc()).natts as usize }
    }

    /// How the columns lie in a row, dropped ones included; `None` when only the server can take such rows apart.
    pub(super) fn shape(&self) -> Option<Shape> {
        let desc = self.desc();
        // SAFETY: as in `columns`.
        let attributes = (0..self.width()).map(|index| unsafe { compat::attribute(desc, index) });
        Shape::new(attributes.map(|attribute| (attribute.attlen, attribute.attbyval, attribute.attalign as u8)))
    }

    pub(super) fn desc(&self) -> pg_sys::TupleDesc {
        // SAFETY: an open relation has a descriptor.
        unsafe { (*self.ptr).rd_att }
    }

    /// Numbers of the columns of the primary key, ascending; empty when there is none.
    pub(crate) fn primary_key(&self) -> Vec<i16> {
        // SAFETY: the relation is open; RelationGetIndexList fills rd_pkindex and gives a list in the current context.
        let index = unsafe {
            pg_sys::RelationGetIndexList(self.ptr);
            (*self.ptr).rd_pkindex
        };
        if index == pg_sys::InvalidOid {
            return Vec::new();
        }
        let index = Relation::open(index, Lock::AccessShare);
        // SAFETY: an open index has rd_index; indkey holds indnatts numbers, the key columns first.
        let mut numbers = unsafe {
            let form = &*(*index.ptr).rd_index;
            let count = form.indnkeyatts as usize;
            std::slice::from_raw_parts(form.indkey.values.as_ptr(), count).to_vec()
        };
        numbers.sort_unstable();
        numbers
    }

    /// The triggers, internal ones included, in no particular order.
    pub(crate) fn triggers(&self) -> Vec<Trigger> {
        // SAFETY: trigdesc, when not null, holds numtriggers valid elements for as long as the relation is open.
        unsafe {
            let desc = (*self.ptr).trigdesc;
            if desc.is_null() {
                return Vec::new();
            }
            let triggers = std::slice::from_raw_parts((*desc).triggers, (*desc).numtriggers as usize);
            triggers.iter().map(|trigger| Trigger::read(trigger)).collect()
        }
    }
}

impl Drop for Relation {
    fn drop(&mut self) {
        if super::error_is_on_its_way() {
            return;
        }
        if self.close {
            // SAFETY: opened by us and closed once; NoLock keeps the lock to the end of the transaction.
            unsafe { pg_sys::relation_close(self.ptr, pg_sys::NoLock as pg_sys::LOCKMODE) }
        }
    }
}

/// Columns whose values are not stored for themselves alone.
#[derive(Default)]
pub(crate) struct DependentColumns {
    pub(crate) generated: Vec<String>,
    pub(crate) of_user_types: Vec<String>,
}

/// A column that holds values.
#[derive(Clone)]
pub(crate) struct Column {
    /// Place in a deformed row, from 0.
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) type_oid: pg_sys::Oid,
    /// The type itself, or what the domain is over.
    pub(crate) base_type: pg_sys::Oid,
    pub(crate) by_value: bool,
    pub(crate) length: i16,
    modifier: i32,
}

impl Column {
    /// The type as SQL writes it.
    ///
    /// Asked for under pinned settings it names the schema unless that is `pg_catalog`. The length of a varchar is left out: changing it changes no value.
    pub(crate) fn type_name(&self) -> String {
        let modifier = if self.type_oid == pg_sys::VARCHAROID { -1 } else { self.modifier };
        let flags = pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN as pg_sys::bits16;
        // SAFETY: a catalog look-up that gives a C string in the current context.
        unsafe { owned(pg_sys::format_type_extended(self.type_oid, modifier, flags)) }.unwrap_or_default()
    }
}

/// A trigger as the server will fire it.
pub(crate) struct Trigger {
    pub(crate) oid: pg_sys::Oid,
    pub(crate) name: String,
    pub(crate) function: pg_sys::Oid,
    /// `pg_trigger.tgtype`: timing, level and events.
    pub(crate) kind: i16,
    /// `pg_trigger.tgenabled`; `A` is ENABLE ALWAYS.
    pub(crate) enabled: char,
    /// Whether it has arguments, a WHEN clause, a column list or transition tables.
    pub(crate) restricted: bool,
    /// Whether it was cloned from a trigger of the partitioned table above.
    pub(crate) cloned: bool,
    /// Whether the server made it for a constraint.
    pub(crate) internal: bool,
}

impl Trigger {
    /// # Safety
    /// `trigger` is an element of a live trigger descriptor.
    unsafe fn read(trigger: &pg_sys::Trigger) -> Trigger {
        // SAFETY: tgname is a C string of the descriptor.
        let name = unsafe { CStr::from_ptr(trigger.tgname) }.to_string_lossy().into_owned();
        Trigger {
            oid: trigger.tgoid,
            name,
            function: trigger.tgfoid,
            kind: trigger.tgtype,
            enabled: char::from(trigger.tgenabled as u8),
            restricted: is_restricted(trigger),
            cloned: trigger.tgisclone,
            internal: trigger.tgisinternal,
        }
    }
}

/// Whether a trigger has arguments, a WHEN clause, a column list or transition tables, or may be deferred: ours have none of that.
pub(super) fn is_restricted(trigger: &pg_sys::Trigger) -> bool {
    trigger.tgnargs != 0
        || trigger.tgdeferrable
        || trigger.tginitdeferred
        || trigger.tgconstraint != pg_sys::InvalidOid
        || trigger.tgnattr != 0
        || !trigger.tgqual.is_null()
        || !trigger.tgoldtable.is_null()
        || !trigger.tgnewtable.is_null()
}

/// A relation and all its partitions and inheritance children, at any depth, each locked. The relation itself comes first.
pub(crate) fn with_descendants(oid: pg_sys::Oid, lock: Lock) -> Vec<pg_sys::Oid> {
    // SAFETY: by value; the list is allocated in the current memory context.
    unsafe { oids(server::find_all_inheritors(oid, lock as pg_sys::LOCKMODE)) }
}

/// The partitioned tables above a partition, nearest first.
pub(crate) fn ancestors(oid: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // SAFETY: by value; raises an error when a parent is missing from the catalog.
    unsafe { oids(server::get_partition_ancestors(oid)) }
}

/// # Safety
/// `list` is a valid list of object ids or null.
unsafe fn oids(list: *mut pg_sys::List) -> Vec<pg_sys::Oid> {
    // SAFETY: as promised by the caller.
    unsafe { PgList::<pg_sys::Oid>::from_pg(list) }.iter_oid().collect()
}

/// Whether the relation exists and has, or had, partitions or inheritance children.
pub(crate) fn may_have_children(oid: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups by value; the second raises an error for a relation that does not exist, the first does not.
    unsafe { pg_sys::get_rel_relkind(oid) != 0 && server::has_subclass(oid) }
}

/// Whether the relation is a partition or inheritance child of another.
pub(crate) fn has_parent(oid: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up by value.
    unsafe { server::has_superclass(oid) }
}

/// Object id of the row type of a relation, if it has one.
pub(crate) fn row_type(oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up by value.
    let row_type = unsafe { pg_sys::get_rel_type_id(oid) };
    (row_type != pg_sys::InvalidOid).then_some(row_type)
}

/// `pg_class.relkind`, if the relation exists.
pub(crate) fn kind_of(oid: pg_sys::Oid) -> Option<char> {
    // SAFETY: a catalog look-up by value.
    let kind = unsafe { pg_sys::get_rel_relkind(oid) };
    (kind != 0).then(|| char::from(kind as u8))
}

/// Object id of the relation with this schema and name, if there is one.
pub(crate) fn named(schema: &str, name: &str) -> Option<pg_sys::Oid> {
    let schema = find_schema(&CString::new(schema).ok()?)?;
    find(schema, &CString::new(name).ok()?)
}

/// Object id of the relation `name` in the schema, if there is one.
pub(crate) fn find(schema: pg_sys::Oid, name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up; the name is a C string.
    let oid = unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Object id of the unique index `name` over these columns of that table and all of its rows, if there is one. Anything else under the name could not be scanned as one.
pub(crate) fn find_key(schema: pg_sys::Oid, name: &CStr, table: pg_sys::Oid, columns: &[i16]) -> Option<pg_sys::Oid> {
    let oid = find(schema, name)?;
    // SAFETY: the cache gives null, as for what is no index, or a tuple of pg_index that stays valid until it is released; indkey holds indnkeyatts numbers or more.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::INDEXRELID as core::ffi::c_int;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(oid));
        if tuple.is_null() {
            return None;
        }
        let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_index>();
        let its_columns = std::slice::from_raw_parts(form.indkey.values.as_ptr(), form.indnkeyatts as usize);
        let is_for_all = pg_sys::heap_attisnull(tuple, pg_sys::Anum_pg_index_indpred as i32, std::ptr::null_mut());
        let is_key = form.indrelid == table && form.indisunique && its_columns == columns && is_for_all;
        pg_sys::ReleaseSysCache(tuple);
        is_key.then_some(oid)
    }
}

/// Object id of a schema, if there is one.
pub(crate) fn find_schema(name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up; the name is a C string.
    let oid = unsafe { pg_sys::get_namespace_oid(name.as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Name of a schema, if there is one.
pub(crate) fn schema_name(oid: pg_sys::Oid) -> Option<String> {
    // SAFETY: gives null or a C string in the current context.
    unsafe { owned(pg_sys::get_namespace_name(oid)) }
}

/// Object id of the schema of a relation, if the relation exists.
pub(crate) fn schema_of(oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up by value.
    let schema = unsafe { pg_sys::get_rel_namespace(oid) };
    (schema != pg_sys::InvalidOid).then_some(schema)
}

/// Schema and name of a relation, if it exists.
pub(crate) fn qualified_name(oid: pg_sys::Oid) -> Option<(String, String)> {
    // SAFETY: gives null or a C string in the current context.
    let name = unsafe { owned(pg_sys::get_rel_name(oid)) }?;
    // SAFETY: by value.
    let schema = schema_name(unsafe { pg_sys::get_rel_namespace(oid) })?;
    Some((schema, name))
}

/// Object id of the function `name()` in the schema, if there is one. Nobody needs a right on the schema for this look-up.
pub(crate) fn find_function(schema: pg_sys::Oid, name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: a look-up in the system cache by name, argument types (none) and schema; the keys outlive the call.
    let oid = unsafe {
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as core::ffi::c_int,
            pg_sys::Anum_pg_proc_oid as pg_sys::AttrNumber,
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(pg_sys::buildoidvector(std::ptr::null(), 0)),
            pg_sys::Datum::from(schema),
            pg_sys::Datum::null(),
        )
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// What a domain is over; any other type itself.
pub(crate) fn base_type(type_oid: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: a catalog look-up by value.
    unsafe { pg_sys::getBaseType(type_oid) }
}

/// Whether a role may read the whole table.
pub(crate) fn may_select(oid: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups by value.
    unsafe {
        let role = pg_sys::GetUserId();
        pg_sys::pg_class_aclcheck(oid, role, pg_sys::ACL_SELECT as pg_sys::AclMode) == pg_sys::AclResult::ACLCHECK_OK
            && pg_sys::check_enable_rls(oid, role, true) != pg_sys::CheckEnableRlsResult::RLS_ENABLED as i32
    }
}

/// # Safety
/// `name` is null or a C string.
unsafe fn owned(name: *mut core::ffi::c_char) -> Option<String> {
    if name.is_null() {
        return None;
    }
    // SAFETY: as promised by the caller.
    Some(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

fn name_string(name: &pg_sys::NameData) -> String {
    // SAFETY: NameData is 64 bytes with a terminating zero (c.h).
    unsafe { CStr::from_ptr(name.data.as_ptr()) }.to_string_lossy().into_owned()
}

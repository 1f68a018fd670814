//! Writing rows below SQL: heap and indexes, nothing else.
//!
//! No privilege, rule, trigger, default or policy takes part, so nobody needs a right on our tables and nobody can get in between.

use pgrx::pg_sys;

use super::relation::Relation;
use super::scan::Row;
use super::server;

/// A table opened for writing together with its indexes.
pub(crate) struct Writer<'a> {
    relation: &'a Relation,
    indexes: pg_sys::CatalogIndexState,
}

impl<'a> Writer<'a> {
    /// Opens the indexes of a table that is open with ROW EXCLUSIVE. They must have neither expressions nor predicates.
    pub(crate) fn new(relation: &'a Relation) -> Writer<'a> {
        // SAFETY: the relation is open and outlives the writer.
        Writer { relation, indexes: unsafe { pg_sys::CatalogOpenIndexes(relation.as_ptr()) } }
    }

    /// Inserts a row and its index entries; a duplicate key is an error.
    pub(crate) fn insert(&self, values: &[Option<pg_sys::Datum>]) {
        let tuple = self.form(values);
        // SAFETY: the tuple was formed for this relation; it is copied into the table.
        unsafe {
            pg_sys::CatalogTupleInsertWithInfo(self.relation.as_ptr(), tuple, self.indexes);
            pg_sys::heap_freetuple(tuple);
        }
    }

    fn form(&self, values: &[Option<pg_sys::Datum>]) -> pg_sys::HeapTuple {
        assert_eq!(values.len(), self.relation.width(), "row width of the table");
        let mut datums: Vec<_> = values.iter().map(|value| value.unwrap_or(pg_sys::Datum::null())).collect();
        let mut nulls: Vec<_> = values.iter().map(Option::is_none).collect();
        // SAFETY: both arrays have natts elements of the columns' types.
        unsafe { pg_sys::heap_form_tuple(self.relation.desc(), datums.as_mut_ptr(), nulls.as_mut_ptr()) }
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        // SAFETY: opened in `new`, closed once; the relation is still open.
        unsafe { pg_sys::CatalogCloseIndexes(self.indexes) }
    }
}

/// What to do with a row that [`rewrite`] shows.
pub(crate) enum Fate {
    Keep,
    Delete,
    Replace(Vec<Option<pg_sys::Datum>>),
}

/// Goes through all rows of a small table and keeps, deletes or replaces each. Gives the number of rows changed.
pub(crate) fn rewrite(relation: &Relation, mut fate: impl FnMut(&Row<'_>) -> Fate) -> usize {
    let width = relation.width();
    let mut values = vec![pg_sys::Datum::null(); width];
    let mut nulls = vec![true; width];
    let writer = Writer::new(relation);
    // Changed after the scan: it sees what this transaction writes, so a replacement would come by again.
    let mut changes: Vec<(pg_sys::ItemPointerData, Option<pg_sys::HeapTuple>)> = Vec::new();
    // SAFETY: the relation is open; each tuple is valid until the next call, and its place is copied.
    unsafe {
        let scan = SystemScan(pg_sys::systable_beginscan(
            relation.as_ptr(),
            pg_sys::InvalidOid,
            false,
            &raw mut pg_sys::SnapshotSelfData,
            0,
            std::ptr::null_mut(),
        ));
        loop {
            let tuple = pg_sys::systable_getnext(scan.0);
            if tuple.is_null() {
                break;
            }
            pg_sys::heap_deform_tuple(tuple, relation.desc(), values.as_mut_ptr(), nulls.as_mut_ptr());
            match fate(&Row::new(&values, &nulls)) {
                Fate::Keep => {}
                Fate::Delete => changes.push(((*tuple).t_self, None)),
                Fate::Replace(row) => changes.push(((*tuple).t_self, Some(writer.form(&row)))),
            }
        }
    }
    for (mut place, replacement) in changes.iter().copied() {
        // SAFETY: the place is that of a row this transaction saw under a lock that keeps other writers out.
        unsafe {
            match replacement {
                Some(tuple) => pg_sys::CatalogTupleUpdate(relation.as_ptr(), &mut place, tuple),
                None => pg_sys::CatalogTupleDelete(relation.as_ptr(), &mut place),
            }
        }
    }
    changes.len()
}

/// A system scan that is ended when dropped.
struct SystemScan(pg_sys::SysScanDesc);

impl Drop for SystemScan {
    fn drop(&mut self) {
        // SAFETY: begun once, ended once, while the table is open.
        unsafe { pg_sys::systable_endscan(self.0) }
    }
}

/// The next value of a sequence; nobody needs a right on it.
pub(crate) fn next_value(sequence: pg_sys::Oid) -> i64 {
    // SAFETY: by value; raises an error when it is not a sequence or is used up.
    unsafe { server::next_value(sequence) }
}

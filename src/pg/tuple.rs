//! Writing rows below SQL: heap and indexes, nothing else.
//!
//! No privilege, rule, trigger, default or policy takes part, so nobody needs a right on our tables and nobody can get in between.

use std::borrow::Borrow;
use std::rc::Rc;

use pgrx::pg_sys;

use super::compat;
use super::memory::Scratch;
use super::relation::Relation;
use super::scan::Row;
use super::server;
use crate::error::{Error, or_report};
use crate::session_cache;

/// A table opened for writing together with its indexes.
pub(crate) struct Writer<'a> {
    relation: &'a Relation,
    indexes: pg_sys::CatalogIndexState,
    /// Whether no index has expressions or a predicate: those need an executor state.
    plain: bool,
}

impl<'a> Writer<'a> {
    /// Opens the indexes of a table that is open with ROW EXCLUSIVE.
    pub(crate) fn new(relation: &'a Relation) -> Writer<'a> {
        // SAFETY: the relation is open and outlives the writer; the server fills the arrays with as many indexes as it says.
        unsafe {
            let indexes = pg_sys::CatalogOpenIndexes(relation.as_ptr());
            let count = usize::try_from((*indexes).ri_NumIndices).unwrap_or(0);
            let plain = (0..count).all(|number| is_plain(&**(*indexes).ri_IndexRelationInfo.add(number)));
            Writer { relation, indexes, plain }
        }
    }

    /// Inserts a row and its index entries; a duplicate key is an error.
    ///
    /// Refuses where somebody has made an index with expressions or a predicate.
    pub(crate) fn insert(&self, values: &[Option<pg_sys::Datum>]) {
        self.require_plain();
        let tuple = self.form(values);
        // SAFETY: the tuple was formed for this relation; it is copied into the table.
        unsafe {
            pg_sys::CatalogTupleInsertWithInfo(self.relation.as_ptr(), tuple, self.indexes);
            pg_sys::heap_freetuple(tuple);
        }
    }

    /// Refuses where an index needs an executor state.
    fn require_plain(&self) {
        if !self.plain {
            or_report(Err(Error::SpecialIndex { relation: session_cache::display_name(self.relation.oid()) }))
        }
    }

    fn form(&self, values: &[Option<pg_sys::Datum>]) -> pg_sys::HeapTuple {
        form(self.relation, values)
    }
}

/// Whether an index has neither expressions nor a predicate.
fn is_plain(info: &pg_sys::IndexInfo) -> bool {
    info.ii_Expressions.is_null() && info.ii_Predicate.is_null()
}

/// The indexes of a table, open; closed when dropped, but for their locks, which stay to the end of the transaction.
struct Indexes {
    relations: Vec<pg_sys::Relation>,
    infos: Vec<*mut pg_sys::IndexInfo>,
    state: pg_sys::ResultRelInfo,
}

impl Indexes {
    /// Opens the indexes of a table that is open with ROW EXCLUSIVE. `known` has the descriptions of those that were open before, and gets those that were not; they live in
    /// `home`. Where a description says that the index has an expression or a predicate there is no result.
    fn open(
        table: pg_sys::Relation,
        known: &mut Vec<(pg_sys::Oid, *mut pg_sys::IndexInfo)>,
        home: &Scratch,
        work: &Scratch,
    ) -> Option<Indexes> {
        let mut indexes =
            Indexes { relations: Vec::with_capacity(4), infos: Vec::with_capacity(4), state: Default::default() };
        // SAFETY: the table is open, and its indexes cannot go away while it is locked.
        unsafe { server::open_indexes(table, &mut indexes.relations) };
        for index in indexes.relations.iter().copied() {
            // SAFETY: the index is open. What an index is made of never changes, but whether it is ready does; the rest that is set here belongs to one insertion
            // (nodes/execnodes.h, IndexInfo).
            unsafe {
                let oid = (*index).rd_id;
                let info = match known.iter().find(|(known, _)| *known == oid) {
                    Some((_, info)) => *info,
                    None => {
                        let info = home.within(|| pg_sys::BuildIndexInfo(index));
                        known.push((oid, info));
                        info
                    }
                };
                (*info).ii_ReadyForInserts = (*(*index).rd_index).indisready;
                (*info).ii_AmCache = std::ptr::null_mut();
                (*info).ii_Context = work.as_ptr();
                indexes.infos.push(info);
            }
        }
        // SAFETY: made above.
        if indexes.infos.iter().any(|info| unsafe { !is_plain(&**info) }) {
            return None;
        }
        indexes.state.ri_NumIndices = indexes.relations.len() as core::ffi::c_int;
        indexes.state.ri_IndexRelationDescs = indexes.relations.as_mut_ptr();
        indexes.state.ri_IndexRelationInfo = indexes.infos.as_mut_ptr();
        Some(indexes)
    }
}

impl Drop for Indexes {
    fn drop(&mut self) {
        if super::error_is_on_its_way() {
            return;
        }
        for (index, info) in self.relations.iter().zip(&self.infos) {
            // SAFETY: opened by us, closed once.
            unsafe { compat::close_index(*index, *info) }
        }
    }
}

/// How the rows of a table are laid out, and the slots in which the server wants rows that it inserts together. Kept from one transaction to the next.
///
/// It has a row description of its own, so that rows can be formed while the table is not open, and nobody counts references to that of the table.
pub(crate) struct Layout {
    desc: pg_sys::TupleDesc,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    /// Where all of it lives, and the rows formed too.
    home: Rc<Scratch>,
    /// The descriptions of the indexes that were met so far.
    infos: Vec<(pg_sys::Oid, *mut pg_sys::IndexInfo)>,
    /// What the server needs while it inserts; empty in between. After an error the layout is made anew, and this with it.
    work: Rc<Scratch>,
}

impl Layout {
    /// Rows that are inserted by one call of the server.
    const MOST: usize = 256;

    /// The layout of an open table. It fits any table whose columns have the same types.
    pub(crate) fn of(relation: &Relation) -> Layout {
        let home = Scratch::long_lived();
        // SAFETY: the relation is open; the copy is made in memory that lives as long as the layout.
        let desc = home.within(|| unsafe { pg_sys::CreateTupleDescCopy(relation.desc()) });
        Layout { desc, slots: Vec::new(), infos: Vec::new(), home: Rc::new(home), work: Rc::new(Scratch::long_lived()) }
    }

    /// Forms a row, to be inserted later; the values are copied.
    pub(crate) fn form<const N: usize>(&self, values: &[Option<pg_sys::Datum>; N]) -> Formed {
        // SAFETY: the description is live.
        assert_eq!(unsafe { (*self.desc).natts } as usize, N, "row width of the table");
        let mut datums = values.map(|value| value.unwrap_or(pg_sys::Datum::null()));
        let mut nulls = values.map(|value| value.is_none());
        // SAFETY: both arrays have natts elements of the columns' types.
        let form = || unsafe { pg_sys::heap_form_tuple(self.desc, datums.as_mut_ptr(), nulls.as_mut_ptr()) };
        Formed { tuple: self.home.within(form), _home: self.home.clone() }
    }

    /// Inserts runs of rows that were formed before, each as written by one command of this transaction: what began before that command was over does
    /// not see them. One record of the write-ahead log serves all rows of a page. A duplicate key is an error.
    ///
    /// `table` is open with ROW EXCLUSIVE, and the layout is that of this table, and of the rows.
    pub(crate) fn append<'a, T: Borrow<Formed> + 'a>(
        &mut self,
        table: &Relation,
        runs: impl Iterator<Item = (&'a [T], u32)>,
    ) {
        let (home, work) = (self.home.clone(), self.work.clone());
        let indexes = Indexes::open(table.as_ptr(), &mut self.infos, &home, &work);
        for (rows, command) in runs {
            for rows in rows.chunks(Layout::MOST) {
                let slots = self.hold(rows);
                work.within(|| match &indexes {
                    // SAFETY: each slot holds a row formed for this table; the indexes are its own.
                    Some(indexes) => unsafe { server::insert_rows(table.as_ptr(), slots, command, &indexes.state) },
                    None => insert_with_executor(table, slots, command),
                });
            }
        }
        drop(indexes);
        work.reset();
    }

    /// Puts rows into slots, until the next call.
    fn hold<T: Borrow<Formed>>(&mut self, rows: &[T]) -> &mut [*mut pg_sys::TupleTableSlot] {
        while self.slots.len() < rows.len() {
            // SAFETY: description and slot live in the same memory.
            let make = || unsafe { pg_sys::MakeTupleTableSlot(self.desc, &raw const pg_sys::TTSOpsHeapTuple) };
            self.slots.push(self.home.within(make));
        }
        let slots = &mut self.slots[..rows.len()];
        for (slot, row) in slots.iter_mut().zip(rows) {
            // SAFETY: the row was formed for such a table. The slot does not own it, and is given another one before it is looked at again.
            unsafe { pg_sys::ExecStoreHeapTuple(row.borrow().tuple, *slot, false) };
        }
        slots
    }
}

/// Inserts rows into a table with an index that has an expression or a predicate.
fn insert_with_executor(table: &Relation, slots: &mut [*mut pg_sys::TupleTableSlot], command: u32) {
    let writer = Writer::new(table);
    let count = slots.len() as core::ffi::c_int;
    // SAFETY: each slot holds a row formed for this table; heap_multi_insert notes in each where the row went.
    unsafe {
        pg_sys::heap_multi_insert(table.as_ptr(), slots.as_mut_ptr(), count, command, 0, std::ptr::null_mut());
        // An expression may call a function that runs SQL; while a transaction commits no snapshot is active any more.
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let executor = pg_sys::CreateExecutorState();
        for slot in slots {
            compat::insert_index_tuples(writer.indexes, *slot, executor);
        }
        pg_sys::FreeExecutorState(executor);
        pg_sys::PopActiveSnapshot();
    }
}

fn form(relation: &Relation, values: &[Option<pg_sys::Datum>]) -> pg_sys::HeapTuple {
    assert_eq!(values.len(), relation.width(), "row width of the table");
    let mut datums: Vec<_> = values.iter().map(|value| value.unwrap_or(pg_sys::Datum::null())).collect();
    let mut nulls: Vec<_> = values.iter().map(Option::is_none).collect();
    // SAFETY: both arrays have natts elements of the columns' types.
    unsafe { pg_sys::heap_form_tuple(relation.desc(), datums.as_mut_ptr(), nulls.as_mut_ptr()) }
}

/// A row formed for a table and not inserted yet, in memory that outlives statements and transactions; freed when dropped.
pub(crate) struct Formed {
    tuple: pg_sys::HeapTuple,
    _home: Rc<Scratch>,
}

impl Formed {
    /// Bytes of the row.
    pub(crate) fn size(&self) -> usize {
        // SAFETY: a formed tuple is valid until it is freed.
        unsafe { (*self.tuple).t_len as usize }
    }
}

impl Drop for Formed {
    fn drop(&mut self) {
        // SAFETY: formed by us in a memory context that is live as long as the row, freed once.
        unsafe { server::free_tuple(self.tuple) }
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if super::error_is_on_its_way() {
            return;
        }
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
    writer.require_plain();
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
        if super::error_is_on_its_way() {
            return;
        }
        // SAFETY: begun once, ended once, while the table is open.
        unsafe { pg_sys::systable_endscan(self.0) }
    }
}

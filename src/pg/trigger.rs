//! Triggers: the protocol of their functions, and making and dropping them.

use pgrx::pg_sys;

use super::fmgr::{Call, TriggerAnswer};
use super::relation::{Relation, is_restricted};
use super::scan::Row;
use super::server;

/// What a trigger was fired for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Insert,
    Update,
    Delete,
    Truncate,
}

/// The call of a trigger function by the trigger manager.
pub(crate) struct Firing {
    data: *mut pg_sys::TriggerData,
}

impl Firing {
    /// `None` when the function was not called by the trigger manager.
    pub(crate) fn new(call: &Call) -> Option<Firing> {
        let node = call.context();
        // SAFETY: a non-null context is a node; its tag says whether it is trigger data (CALLED_AS_TRIGGER).
        let is_trigger = !node.is_null() && unsafe { (*node).type_ } == pg_sys::NodeTag::T_TriggerData;
        is_trigger.then_some(Firing { data: node.cast() })
    }

    fn data(&self) -> &pg_sys::TriggerData {
        // SAFETY: checked in `new`; the trigger manager keeps it alive for the call.
        unsafe { &*self.data }
    }

    /// What it was fired for.
    pub(crate) fn event(&self) -> Event {
        match self.data().tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
            pg_sys::TRIGGER_EVENT_INSERT => Event::Insert,
            pg_sys::TRIGGER_EVENT_UPDATE => Event::Update,
            pg_sys::TRIGGER_EVENT_DELETE => Event::Delete,
            _ => Event::Truncate,
        }
    }

    /// Whether it was fired for each row, not for the statement.
    pub(crate) fn is_row_level(&self) -> bool {
        self.data().tg_event & pg_sys::TRIGGER_EVENT_ROW != 0
    }

    /// Whether it was fired after the change.
    pub(crate) fn is_after(&self) -> bool {
        self.data().tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_AFTER
    }

    /// Whether the trigger has arguments, a WHEN clause, a column list or transition tables.
    pub(crate) fn is_restricted(&self) -> bool {
        // SAFETY: tg_trigger is valid for the call.
        is_restricted(unsafe { &*self.data().tg_trigger })
    }

    /// Whether the trigger has this name.
    pub(crate) fn is_named(&self, name: &std::ffi::CStr) -> bool {
        // SAFETY: tg_trigger is valid for the call and its name is a C string.
        unsafe { std::ffi::CStr::from_ptr((*self.data().tg_trigger).tgname) == name }
    }

    /// The table.
    pub(crate) fn relation(&self) -> Relation {
        // SAFETY: the trigger manager keeps the relation open for the call, longer than the result lives.
        unsafe { Relation::borrowed(self.data().tg_relation) }
    }

    /// Deforms the row before the change (UPDATE, DELETE) or the row inserted into the buffers, and shows it.
    pub(crate) fn first<'a>(&self, buffer: &'a mut RowBuffer) -> Row<'a> {
        // SAFETY: a row trigger has tg_trigtuple, of the relation's row type.
        unsafe { buffer.deform(self.data().tg_trigtuple, self.data().tg_relation) }
    }

    /// Deforms the row after an UPDATE.
    pub(crate) fn second<'a>(&self, buffer: &'a mut RowBuffer) -> Row<'a> {
        // SAFETY: a row trigger fired for UPDATE has tg_newtuple, of the relation's row type.
        unsafe { buffer.deform(self.data().tg_newtuple, self.data().tg_relation) }
    }

    /// Number of the command, within its transaction, that made this change.
    pub(crate) fn command(&self) -> u32 {
        let data = self.data();
        let tuple = if self.event() == Event::Update { data.tg_newtuple } else { data.tg_trigtuple };
        // SAFETY: the tuples of an AFTER ROW trigger come from the table and were changed by this very transaction, which is the condition for asking what a combined
        // command id stands for (combocid.c). The usual one is read as it is: of a row that COPY FREEZE wrote the server could not tell that it is this transaction's.
        unsafe {
            let header = (*tuple).t_data;
            if (*header).t_infomask & pg_sys::HEAP_COMBOCID as u16 == 0 {
                return (*header).t_choice.t_heap.t_field3.t_cid;
            }
            match self.event() {
                Event::Delete => pg_sys::HeapTupleHeaderGetCmax(header),
                _ => pg_sys::HeapTupleHeaderGetCmin(header),
            }
        }
    }

    /// The transaction or subtransaction that stands in the row version that this change has written; `None` of a DELETE, which writes none.
    pub(crate) fn writer(&self) -> Option<u32> {
        let data = self.data();
        let tuple = match self.event() {
            Event::Insert => data.tg_trigtuple,
            Event::Update => data.tg_newtuple,
            _ => return None,
        };
        // SAFETY: as for `command`: the tuples of an AFTER ROW trigger come from the table.
        Some(unsafe { (*(*tuple).t_data).t_choice.t_heap.t_xmin }.into_inner())
    }

    /// What to give back: nothing from an AFTER trigger.
    pub(crate) fn nothing(&self) -> TriggerAnswer {
        TriggerAnswer(pg_sys::Datum::null())
    }

    /// What a BEFORE INSERT trigger gives to let the row pass unchanged.
    pub(crate) fn row(&self) -> TriggerAnswer {
        TriggerAnswer(pg_sys::Datum::from(self.data().tg_trigtuple))
    }
}

/// Room for a deformed row, used again for the next.
#[derive(Default)]
pub(crate) struct RowBuffer {
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl RowBuffer {
    /// # Safety
    /// `tuple` is a row of `relation`; both outlive `'a`.
    unsafe fn deform<'a>(&'a mut self, tuple: pg_sys::HeapTuple, relation: pg_sys::Relation) -> Row<'a> {
        // SAFETY: the buffers get natts elements; values missing from old rows are filled in from the catalog.
        unsafe {
            let desc = (*relation).rd_att;
            let width = (*desc).natts as usize;
            self.values.resize(width, pg_sys::Datum::null());
            self.nulls.resize(width, true);
            server::deform(tuple, desc, self.values.as_mut_ptr(), self.nulls.as_mut_ptr());
            Row::new(&self.values, &self.nulls)
        }
    }
}

/// `pg_trigger.tgtype` of a trigger AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW (catalog/pg_trigger.h).
pub(crate) const ROW_KIND: i16 = (pg_sys::TRIGGER_TYPE_ROW
    | pg_sys::TRIGGER_TYPE_INSERT
    | pg_sys::TRIGGER_TYPE_UPDATE
    | pg_sys::TRIGGER_TYPE_DELETE) as i16;

/// `pg_trigger.tgtype` of a trigger AFTER TRUNCATE FOR EACH STATEMENT.
pub(crate) const TRUNCATE_KIND: i16 = pg_sys::TRIGGER_TYPE_TRUNCATE as i16;

/// `pg_trigger.tgtype` of the guard BEFORE INSERT OR UPDATE OR DELETE FOR EACH ROW.
pub(crate) const GUARD_ROW_KIND: i16 = (pg_sys::TRIGGER_TYPE_ROW
    | pg_sys::TRIGGER_TYPE_BEFORE
    | pg_sys::TRIGGER_TYPE_INSERT
    | pg_sys::TRIGGER_TYPE_UPDATE
    | pg_sys::TRIGGER_TYPE_DELETE) as i16;

/// `pg_trigger.tgtype` of the guard BEFORE UPDATE OR DELETE OR TRUNCATE FOR EACH STATEMENT.
pub(crate) const GUARD_STATEMENT_KIND: i16 = (pg_sys::TRIGGER_TYPE_BEFORE
    | pg_sys::TRIGGER_TYPE_UPDATE
    | pg_sys::TRIGGER_TYPE_DELETE
    | pg_sys::TRIGGER_TYPE_TRUNCATE) as i16;

/// Creates an AFTER trigger, ENABLE ALWAYS, on a table that the caller has locked with SHARE ROW EXCLUSIVE.
/// A row trigger of a partitioned table is cloned to its partitions.
pub(crate) fn create(table: pg_sys::Oid, name: &std::ffi::CStr, function: pg_sys::Oid, kind: i16) {
    let is_row = kind & pg_sys::TRIGGER_TYPE_ROW as i16 != 0;
    // SAFETY: the statement node is ours and outlives the call; CreateTrigger copies what it keeps. With relation and function given
    // by object id it looks at no name but the trigger's.
    unsafe {
        let mut statement = pgrx::PgBox::<pg_sys::CreateTrigStmt>::alloc_node(pg_sys::NodeTag::T_CreateTrigStmt);
        statement.trigname = name.as_ptr().cast_mut();
        statement.row = is_row;
        statement.timing = pg_sys::TRIGGER_TYPE_AFTER as i16;
        statement.events = kind & !(pg_sys::TRIGGER_TYPE_ROW as i16);
        pg_sys::CreateTriggerFiringOn(
            statement.as_ptr(),
            std::ptr::null(),
            table,
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            pg_sys::InvalidOid,
            function,
            pg_sys::InvalidOid,
            std::ptr::null_mut(),
            false,
            false,
            pg_sys::TRIGGER_FIRES_ALWAYS as core::ffi::c_char,
        );
    }
}

/// Drops a trigger and its clones on partitions.
pub(crate) fn drop(trigger: pg_sys::Oid) {
    let address = pg_sys::ObjectAddress { classId: pg_sys::TriggerRelationId, objectId: trigger, objectSubId: 0 };
    // SAFETY: the address is ours; nothing but clones depends on a trigger.
    unsafe {
        pg_sys::performDeletion(&address, pg_sys::DropBehavior::DROP_RESTRICT, pg_sys::PERFORM_DELETION_INTERNAL as i32)
    }
}

//! Differences between the supported majors, one function each.

use pgrx::pg_sys;

mod raw {
    use core::ffi::c_void;

    use pgrx::pg_sys;

    unsafe extern "C-unwind" {
        pub(super) fn brinRevmapInitialize(
            index: pg_sys::Relation,
            pages_per_range: *mut pg_sys::BlockNumber,
            #[cfg(any(feature = "pg15", feature = "pg16"))] snapshot: pg_sys::Snapshot,
        ) -> *mut c_void;
        pub(super) fn brinGetTupleForHeapBlock(
            map: *mut c_void,
            page: pg_sys::BlockNumber,
            buffer: *mut pg_sys::Buffer,
            offset: *mut pg_sys::OffsetNumber,
            size: *mut pg_sys::Size,
            mode: core::ffi::c_int,
            #[cfg(any(feature = "pg15", feature = "pg16"))] snapshot: pg_sys::Snapshot,
        ) -> *mut c_void;
        pub(super) fn brinRevmapTerminate(map: *mut c_void);
        pub(super) fn ReleaseBuffer(buffer: pg_sys::Buffer);
        pub(super) fn UnlockReleaseBuffer(buffer: pg_sys::Buffer);
    }
}

/// Number of this backend among all that may run at once, from 1.
///
/// PostgreSQL 17 replaced backend ids by the index of the process array (commit 024c5211).
pub(crate) fn backend_number() -> u32 {
    // SAFETY: a plain integer that is set before a backend runs its first statement and never changes afterwards.
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    let number = unsafe { pg_sys::MyBackendId };
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    // SAFETY: as above.
    let number = unsafe { pg_sys::MyProcNumber } + 1;
    u32::try_from(number).unwrap_or(1).max(1)
}

/// Attribute number `index` (from 0) of a tuple descriptor.
///
/// PostgreSQL 18 moved the attributes behind an array of compact ones (commit 5983a4cf).
///
/// # Safety
/// `desc` points to a live descriptor that outlives `'a`; `index` is below its `natts`.
pub(crate) unsafe fn attribute<'a>(desc: pg_sys::TupleDesc, index: usize) -> &'a pg_sys::FormData_pg_attribute {
    // SAFETY: the caller keeps the descriptor alive and the index in range.
    #[cfg(not(feature = "pg18"))]
    unsafe {
        &*(*desc).attrs.as_ptr().add(index)
    }
    #[cfg(feature = "pg18")]
    // SAFETY: as above.
    unsafe {
        &*pg_sys::TupleDescAttr(desc, index as core::ffi::c_int)
    }
}

/// Whether `role` owns the relation or is a member of its owner (superusers always).
///
/// PostgreSQL 16 folded the ownership checks into one function (commit afbfc029).
pub(crate) fn owns_relation(relation: pg_sys::Oid, role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up by value; raises an error for a relation that does not exist.
    #[cfg(feature = "pg15")]
    unsafe {
        pg_sys::pg_class_ownercheck(relation, role)
    }
    #[cfg(not(feature = "pg15"))]
    // SAFETY: as above.
    unsafe {
        pg_sys::object_ownercheck(pg_sys::RelationRelationId, relation, role)
    }
}

/// Whether this process holds a lock of this strength, or a stronger one, on the object of a tag.
///
/// PostgreSQL 17 can ask for stronger ones at once (commit 0cecc908).
pub(super) fn holds_lock(tag: &pg_sys::LOCKTAG, lock: pg_sys::LOCKMODE) -> bool {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    // SAFETY: the tag outlives the calls, which look at the locks of this process only.
    let held =
        (lock..=pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE).any(|lock| unsafe { pg_sys::LockHeldByMe(tag, lock) });
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    // SAFETY: as above.
    let held = unsafe { pg_sys::LockHeldByMe(tag, lock, true) };
    held
}

/// Whether a column is a virtual generated one, which holds no value (PostgreSQL 18).
pub(crate) fn is_virtual(attribute: &pg_sys::FormData_pg_attribute) -> bool {
    attribute.attgenerated as u8 == b'v'
}

/// Installs a signal handler.
///
/// In PostgreSQL 18 the variant for the server has a name of its own (port.h).
pub(super) fn handle_signal(signal: core::ffi::c_int, handler: unsafe extern "C-unwind" fn(core::ffi::c_int)) {
    // SAFETY: the handler is one of the server's, made to be called on a signal.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(signal, Some(handler));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(signal, Some(handler));
    }
}

/// Ends this process, after the server's own clean-up. Called outside of critical sections.
///
/// PostgreSQL 18 declares in another way that this function does not return, which the bindings do not know.
pub(super) fn exit(code: core::ffi::c_int) -> ! {
    #[cfg(not(feature = "pg18"))]
    // SAFETY: by value.
    unsafe {
        pg_sys::proc_exit(code)
    }
    #[cfg(feature = "pg18")]
    {
        // SAFETY: by value.
        unsafe { pg_sys::proc_exit(code) };
        unreachable!("proc_exit does not return")
    }
}

/// Whether event triggers fire in this session.
///
/// PostgreSQL 17 made that a setting (commit 5e5a5ed5).
pub(crate) fn event_triggers_enabled() -> bool {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    {
        true
    }
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    // SAFETY: a plain boolean of the session.
    unsafe {
        pg_sys::event_triggers
    }
}

/// The bits of what an item of an access list grants, without those of the right to grant it.
///
/// PostgreSQL 16 doubled the width of both (commit 7b378237).
pub(super) fn granted_rights(item: &pg_sys::AclItem) -> u64 {
    #[cfg(feature = "pg15")]
    {
        u64::from(item.ai_privs) & 0xFFFF
    }
    #[cfg(not(feature = "pg15"))]
    {
        item.ai_privs & 0xFFFF_FFFF
    }
}

/// Inserts the index entries of a row that is in its table already. A duplicate key is an error.
///
/// PostgreSQL 16 added an argument for updates (commit 19d8e230).
///
/// # Safety
/// `slot` holds a row of the table that `indexes` were opened for, and knows its place.
pub(super) unsafe fn insert_index_tuples(
    indexes: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    executor: *mut pg_sys::EState,
) {
    let none = std::ptr::null_mut();
    // SAFETY: as promised by the caller; nothing is speculative or deferred.
    #[cfg(feature = "pg15")]
    unsafe {
        pg_sys::ExecInsertIndexTuples(indexes, slot, executor, false, false, none, std::ptr::null_mut());
    }
    #[cfg(not(feature = "pg15"))]
    // SAFETY: as above.
    unsafe {
        pg_sys::ExecInsertIndexTuples(indexes, slot, executor, false, false, none, std::ptr::null_mut(), false);
    }
}

/// Closes an index that rows were inserted into; its lock stays to the end of the transaction.
///
/// PostgreSQL 17 has access methods keep state from row to row, which they put away here (commit c1ec02be).
///
/// # Safety
/// The index is open, and `info` is what was passed with each insertion.
pub(super) unsafe fn close_index(index: pg_sys::Relation, info: *mut pg_sys::IndexInfo) {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    let _ = info;
    // SAFETY: as promised by the caller.
    unsafe {
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        pg_sys::index_insert_cleanup(index, info);
        pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
    }
}

/// Whether an index of type BRIN has a summary of the range of pages that this page of its table is in (access/brin_revmap.h).
///
/// PostgreSQL 17 took the snapshots away from these functions, together with old_snapshot_threshold (commit f691f5b8).
///
/// # Safety
/// The index is open. Called where an error of the server is caught, with nothing on the way that has to be dropped.
#[expect(ffi_unwind_calls, reason = "the caller catches the server's errors")]
pub(super) unsafe fn brin_has_summary(index: pg_sys::Relation, page: pg_sys::BlockNumber) -> bool {
    let (mut pages_per_range, mut offset) = (0, 0);
    let mut buffer = pg_sys::InvalidBuffer as pg_sys::Buffer;
    let size = std::ptr::null_mut();
    let mode = pg_sys::BUFFER_LOCK_SHARE as core::ffi::c_int;
    // SAFETY: as promised by the caller. Where there is a summary its page is locked and pinned; where there is none a page may be pinned that was looked at on the way (brin.c, brininsert).
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        let map = raw::brinRevmapInitialize(index, &mut pages_per_range, std::ptr::null_mut());
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        let map = raw::brinRevmapInitialize(index, &mut pages_per_range);
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        let found =
            raw::brinGetTupleForHeapBlock(map, page, &mut buffer, &mut offset, size, mode, std::ptr::null_mut());
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        let found = raw::brinGetTupleForHeapBlock(map, page, &mut buffer, &mut offset, size, mode);
        if !found.is_null() {
            raw::UnlockReleaseBuffer(buffer);
        } else if buffer != pg_sys::InvalidBuffer as pg_sys::Buffer {
            raw::ReleaseBuffer(buffer);
        }
        raw::brinRevmapTerminate(map);
        !found.is_null()
    }
}

/// Whether a part of ALTER TABLE gives a generated column another expression: from PostgreSQL 17 on.
pub(crate) fn sets_expression(part: pg_sys::AlterTableType::Type) -> bool {
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    {
        part == pg_sys::AlterTableType::AT_SetExpression
    }
    #[cfg(not(any(feature = "pg17", feature = "pg18")))]
    {
        let _ = part;
        false
    }
}

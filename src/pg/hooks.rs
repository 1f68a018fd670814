//! Hooks of the server: before somebody looks at the log, what waits to be written to it is written; and what would take protection away is refused.
//!
//! The first they do in any backend that has loaded the library, preloaded or not: a backend in which something waits has loaded it. The second is worth something only where it is
//! done in every session, so it is done when the library is preloaded: see `watch`.

#![allow(ffi_unwind_calls, reason = "an error of the server passes over frames that hold nothing to be dropped")]

use std::cell::Cell;

use pgrx::{PgList, pg_guard, pg_sys};

use super::catalog;
use super::process::ProcessLocal;
use super::server::cells;
use crate::error::{Error, or_report};
use crate::{pending, session_cache, watch};

/// The server's own functions, without the guard that pgrx puts around them.
mod raw {
    use pgrx::pg_sys;

    unsafe extern "C-unwind" {
        pub(super) fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: core::ffi::c_int);
        pub(super) fn standard_ProcessUtility(
            statement: *mut pg_sys::PlannedStmt,
            text: *const core::ffi::c_char,
            read_only_tree: bool,
            context: pg_sys::ProcessUtilityContext::Type,
            parameters: pg_sys::ParamListInfo,
            environment: *mut pg_sys::QueryEnvironment,
            destination: *mut pg_sys::DestReceiver,
            completion: *mut pg_sys::QueryCompletion,
        );
    }
}

static FORMER_EXECUTOR_START: ProcessLocal<Cell<pg_sys::ExecutorStart_hook_type>> = ProcessLocal::new(Cell::new(None));
static FORMER_PROCESS_UTILITY: ProcessLocal<Cell<pg_sys::ProcessUtility_hook_type>> =
    ProcessLocal::new(Cell::new(None));
static FORMER_OBJECT_ACCESS: ProcessLocal<Cell<pg_sys::object_access_hook_type>> = ProcessLocal::new(Cell::new(None));

/// Puts the hooks in front of those that other libraries have set. Called once a process.
pub(crate) fn install() {
    // SAFETY: variables of this single-threaded process, set while the library is loaded, which is never unloaded.
    unsafe {
        FORMER_EXECUTOR_START.set(pg_sys::ExecutorStart_hook);
        pg_sys::ExecutorStart_hook = Some(executor_start);
        FORMER_PROCESS_UTILITY.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

/// Puts the hook in place that watches definitions. Called once, while the library is preloaded.
pub(crate) fn install_watch() {
    // SAFETY: as above.
    unsafe {
        FORMER_OBJECT_ACCESS.set(pg_sys::object_access_hook);
        pg_sys::object_access_hook = Some(object_access);
    }
}

// Both are in the way of every statement, so they go without a guard of their own: an error of the server passes over their frames, which hold nothing
// that would have to be dropped. What may fail in Rust is behind a guard.

unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: core::ffi::c_int) {
    // SAFETY: the server passes a query with its plan, and the next in line gets what we got.
    unsafe {
        let plan = (*query).plannedstmt;
        if !pending::is_empty() && may_read_the_log(plan) {
            before_query(plan);
        }
        if watch::is_active() && may_write_to_what_is_guarded(plan) {
            before_writes(plan);
        }
        let next = FORMER_EXECUTOR_START.get().unwrap_or(raw::standard_ExecutorStart);
        next(query, flags);
    }
}

// Most statements have nothing to do with our tables. That shows without a guard, and without asking the server.

/// # Safety
/// `plan` is a valid plan.
unsafe fn may_read_the_log(plan: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: a list of object ids: all relations that the plan depends on, those of views included.
    let mut relations = unsafe { cells((*plan).relationOids).iter().map(|cell| cell.oid_value) };
    session_cache::known(|objects| relations.any(|oid| oid == objects.log)) != Some(false)
}

/// # Safety
/// `plan` is a valid plan.
unsafe fn may_write_to_what_is_guarded(plan: *mut pg_sys::PlannedStmt) -> bool {
    // SAFETY: as promised by the caller.
    unsafe { written_by(plan) }.any(|relation| !watch::is_of_no_concern(relation))
}

/// The tables that a plan writes to.
///
/// # Safety
/// `plan` is a valid plan, and lives as long as the result.
unsafe fn written_by(plan: *mut pg_sys::PlannedStmt) -> impl Iterator<Item = pg_sys::Oid> {
    // SAFETY: the numbers, from 1, of entries in the plan's own list of tables.
    let (numbers, tables) = unsafe { (cells((*plan).resultRelations), cells((*plan).rtable)) };
    numbers.iter().filter_map(|number| {
        // SAFETY: as above.
        unsafe {
            let table = tables.get((number.int_value as usize).wrapping_sub(1))?;
            Some((*table.ptr_value.cast::<pg_sys::RangeTblEntry>()).relid)
        }
    })
}

#[pg_guard]
unsafe extern "C-unwind" fn before_query(plan: *mut pg_sys::PlannedStmt) {
    // SAFETY: as passed by the server.
    or_report(unsafe { flush_for(plan) });
}

/// # Safety
/// `plan` is a valid plan.
unsafe fn flush_for(plan: *mut pg_sys::PlannedStmt) -> Result<(), Error> {
    let objects = session_cache::objects()?;
    // SAFETY: as promised by the caller; the objects are known now.
    if unsafe { may_read_the_log(plan) } { pending::flush(&objects) } else { Ok(()) }
}

#[allow(clippy::too_many_arguments, reason = "the server's signature")]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const core::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the server passes a valid statement, and the next in line gets what we got.
    unsafe {
        if !pending::is_empty() && may_touch_the_log((*(*statement).utilityStmt).type_) {
            before_utility();
        }
        let next = FORMER_PROCESS_UTILITY.get().unwrap_or(raw::standard_ProcessUtility);
        if !watch::is_active() {
            next(statement, text, read_only_tree, context, parameters, environment, destination, completion);
            return;
        }
        let outside = watch::enter();
        let node = (*statement).utilityStmt;
        use pg_sys::NodeTag::{T_AlterExtensionContentsStmt, T_AlterTableStmt, T_CopyStmt, T_GrantStmt, T_LockStmt};
        let is_lock = (*node).type_ == T_LockStmt;
        if is_lock
            || matches!((*node).type_, T_CopyStmt | T_AlterTableStmt | T_AlterExtensionContentsStmt | T_GrantStmt)
        {
            before_utility_of_interest(node);
        }
        next(statement, text, read_only_tree, context, parameters, environment, destination, completion);
        if is_lock {
            after_lock();
        }
        if watch::has_notes() {
            after_utility(outside);
        }
        watch::left(outside);
    }
}

/// LOCK TABLE reaches the tables of a view as well.
#[pg_guard]
extern "C-unwind" fn after_lock() {
    or_report(watch::after_lock());
}

#[pg_guard]
extern "C-unwind" fn after_utility(outside: u32) {
    or_report(watch::check(outside));
}

/// Before a query that writes.
#[pg_guard]
unsafe extern "C-unwind" fn before_writes(plan: *mut pg_sys::PlannedStmt) {
    // SAFETY: as passed by the server.
    unsafe {
        let command = (*plan).commandType;
        let action = match command {
            pg_sys::CmdType::CMD_INSERT => "insert into",
            pg_sys::CmdType::CMD_UPDATE => "update",
            pg_sys::CmdType::CMD_DELETE => "delete from",
            _ => "change",
        };
        for relation in written_by(plan) {
            or_report(watch::before_write(relation, action, command == pg_sys::CmdType::CMD_INSERT));
        }
    }
}

/// Before the few statements of which the server tells us too late, or not at all.
#[pg_guard]
unsafe extern "C-unwind" fn before_utility_of_interest(node: *mut pg_sys::Node) {
    // SAFETY: the caller has looked at the tag of the statement; its members are valid or null.
    unsafe {
        if (*node).type_ == pg_sys::NodeTag::T_LockStmt {
            let statement = node.cast::<pg_sys::LockStmt>();
            if (*statement).mode >= pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE {
                for name in PgList::<pg_sys::RangeVar>::from_pg((*statement).relations).iter_ptr() {
                    or_report(watch::before_lock(relation_named(name)));
                }
            }
            return;
        }
        if !matches!((*node).type_, pg_sys::NodeTag::T_CopyStmt | pg_sys::NodeTag::T_AlterTableStmt) {
            or_report(watch::before_rights_or_members());
            return;
        }
        if (*node).type_ == pg_sys::NodeTag::T_CopyStmt {
            let statement = node.cast::<pg_sys::CopyStmt>();
            if (*statement).is_from && !(*statement).relation.is_null() {
                or_report(watch::before_write(relation_named((*statement).relation), "copy into", true));
            }
            return;
        }
        let statement = node.cast::<pg_sys::AlterTableStmt>();
        let commands = PgList::<pg_sys::AlterTableCmd>::from_pg((*statement).cmds);
        let (mut columns, mut definition) = (false, false);
        for command in commands.iter_ptr() {
            columns |= changes_columns((*command).subtype);
            definition |= !switches_triggers((*command).subtype);
        }
        or_report(watch::before_alter(relation_named((*statement).relation), columns, definition));
    }
}

/// Whether a part of ALTER TABLE can write other values into the rows.
fn changes_columns(command: pg_sys::AlterTableType::Type) -> bool {
    use pg_sys::AlterTableType as Part;
    [Part::AT_AlterColumnType, Part::AT_AddColumn, Part::AT_DropColumn].contains(&command)
}

/// Whether a part of ALTER TABLE switches triggers on or off.
fn switches_triggers(command: pg_sys::AlterTableType::Type) -> bool {
    use pg_sys::AlterTableType as Part;
    [
        Part::AT_EnableTrig,
        Part::AT_EnableAlwaysTrig,
        Part::AT_EnableReplicaTrig,
        Part::AT_DisableTrig,
        Part::AT_EnableTrigAll,
        Part::AT_DisableTrigAll,
        Part::AT_EnableTrigUser,
        Part::AT_DisableTrigUser,
    ]
    .contains(&command)
}

/// # Safety
/// `name` is a valid name of a relation, which need not exist.
unsafe fn relation_named(name: *const pg_sys::RangeVar) -> pg_sys::Oid {
    // SAFETY: a look-up by name that takes no lock; gives an invalid object id when there is no such relation.
    unsafe {
        pg_sys::RangeVarGetRelidExtended(
            name,
            pg_sys::NoLock as pg_sys::LOCKMODE,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    }
}

unsafe extern "C-unwind" fn object_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: core::ffi::c_int,
    details: *mut core::ffi::c_void,
) {
    // SAFETY: the next in line gets what we got.
    unsafe {
        if let Some(next) = FORMER_OBJECT_ACCESS.get() {
            next(access, class, object, part, details);
        }
        if is_watched(access, class) {
            seen(access, class, object, part, details);
        }
    }
}

/// Whether an event is about a kind of object on which protection depends.
fn is_watched(access: pg_sys::ObjectAccessType::Type, class: pg_sys::Oid) -> bool {
    use pg_sys::ObjectAccessType::*;
    matches!(access, OAT_POST_CREATE | OAT_DROP | OAT_POST_ALTER | OAT_TRUNCATE) && catalog::protects(class)
}

#[pg_guard]
unsafe extern "C-unwind" fn seen(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: core::ffi::c_int,
    details: *mut core::ffi::c_void,
) {
    use pg_sys::ObjectAccessType::*;
    if access == OAT_TRUNCATE {
        or_report(watch::before_truncate(object));
        return;
    }
    // The parent, where a table becomes the child of another.
    let other = if access == OAT_POST_ALTER && !details.is_null() {
        // SAFETY: with this event the details are these (objectaccess.h).
        unsafe { (*details.cast::<pg_sys::ObjectAccessPostAlter>()).auxiliary_id }
    } else {
        pg_sys::InvalidOid
    };
    let is_definition = part != 0 || catalog::is_inheritance(class);
    or_report(watch::touched(class, object, other, is_definition, access == OAT_POST_CREATE));
}

#[pg_guard]
extern "C-unwind" fn before_utility() {
    or_report(session_cache::objects().and_then(|objects| pending::flush(&objects)));
}

/// Whether a utility statement may read or change the log without passing through the executor: COPY and DDL. Named are those that cannot,
/// and that transactions of services are full of.
fn may_touch_the_log(statement: pg_sys::NodeTag) -> bool {
    use pg_sys::NodeTag::*;
    !matches!(
        statement,
        T_TransactionStmt
            | T_VariableSetStmt
            | T_VariableShowStmt
            | T_ConstraintsSetStmt
            | T_PrepareStmt
            | T_ExecuteStmt
            | T_DeallocateStmt
            | T_DeclareCursorStmt
            | T_FetchStmt
            | T_ClosePortalStmt
            | T_ExplainStmt
            | T_CallStmt
            | T_DoStmt
            | T_LockStmt
            | T_NotifyStmt
            | T_ListenStmt
            | T_UnlistenStmt
    )
}

//! Event triggers: the protocol of their functions, and what the server says of the command that fired one.

use std::cell::RefCell;
use std::ffi::CStr;

use pgrx::{PgList, pg_sys};

use super::compat;
use super::fmgr::{Call, TriggerAnswer};
use super::memory::Scratch;
use super::scan::Row;

/// When an event trigger fires.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    CommandStart,
    CommandEnd,
    /// Objects were dropped; before the end of the same command.
    Drop,
    /// A table is about to be written anew.
    Rewrite,
    Other,
}

/// An object that a command was about.
pub(crate) struct Address {
    /// Catalog of the object.
    pub(crate) class: pg_sys::Oid,
    pub(crate) object: pg_sys::Oid,
    /// Number of the column that it is, 0 for a whole object.
    pub(crate) column: i32,
}

/// An object that was dropped.
pub(crate) struct Dropped {
    pub(crate) address: Address,
    /// What it was, in words: `trigger`, `table constraint`.
    pub(crate) kind: String,
    /// Whether it was named in the command, or needed something that was, other than as a part of it.
    pub(crate) by_itself: bool,
    /// The parts of its name: of what belongs to a table, schema and table come first.
    pub(crate) names: Vec<String>,
}

/// What a command can do besides changing the objects that it names.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// It adds, drops or retypes columns, or renames or moves something.
    pub(crate) redefines: bool,
    /// Values of the types that it names may read differently afterwards.
    pub(crate) retypes: bool,
}

/// What a command does to columns, by its form.
#[derive(Default)]
pub(crate) struct Columns {
    /// Those that get another type or expression by name, and whether an expression of the command says what their values become.
    pub(crate) retyped: Vec<(String, bool)>,
    /// The one that gets another name, and that name.
    pub(crate) renamed: Option<(String, String)>,
    /// Whether this is all that the command does to values.
    pub(crate) is_all: bool,
}

/// The call of an event trigger's function.
pub(crate) struct Fired {
    data: *mut pg_sys::EventTriggerData,
}

impl Fired {
    /// `None` when the function was not called by the event trigger manager.
    pub(crate) fn new(call: &Call) -> Option<Fired> {
        let node = call.context();
        // SAFETY: a non-null context is a node; its tag says whether it is event trigger data (CALLED_AS_EVENT_TRIGGER).
        let is_event = !node.is_null() && unsafe { (*node).type_ } == pg_sys::NodeTag::T_EventTriggerData;
        is_event.then_some(Fired { data: node.cast() })
    }

    /// When it fired.
    pub(crate) fn event(&self) -> Event {
        // SAFETY: checked in `new`; the event is a C string that lives for the call.
        match unsafe { CStr::from_ptr((*self.data).event) }.to_bytes() {
            b"ddl_command_start" => Event::CommandStart,
            b"ddl_command_end" => Event::CommandEnd,
            b"sql_drop" => Event::Drop,
            b"table_rewrite" => Event::Rewrite,
            _ => Event::Other,
        }
    }

    /// The kind of command: `ALTER TABLE`.
    pub(crate) fn tag(&self) -> String {
        // SAFETY: as above; the name of a tag is a static C string.
        unsafe { CStr::from_ptr(pg_sys::GetCommandTagName((*self.data).tag)) }.to_string_lossy().into_owned()
    }

    /// What the command can do, by its form.
    pub(crate) fn reach(&self) -> Reach {
        use pg_sys::NodeTag::*;
        // SAFETY: the statement lives for the call; its tag says what it is.
        unsafe {
            let statement = (*self.data).parsetree;
            if statement.is_null() {
                return Reach::default();
            }
            match (*statement).type_ {
                T_RenameStmt | T_AlterObjectSchemaStmt => Reach { redefines: true, retypes: false },
                T_AlterEnumStmt => {
                    let renames = !(*statement.cast::<pg_sys::AlterEnumStmt>()).oldVal.is_null();
                    Reach { redefines: renames, retypes: renames }
                }
                T_AlterTableStmt => {
                    let commands = (*statement.cast::<pg_sys::AlterTableStmt>()).cmds;
                    let redefines = PgList::<pg_sys::AlterTableCmd>::from_pg(commands).iter_ptr().any(|command| {
                        use pg_sys::AlterTableType::{AT_AddColumn, AT_AlterColumnType, AT_DropColumn};
                        [AT_AddColumn, AT_DropColumn, AT_AlterColumnType].contains(&(*command).subtype)
                    });
                    Reach { redefines, retypes: redefines }
                }
                _ => Reach::default(),
            }
        }
    }

    /// What the command does to columns.
    pub(crate) fn columns(&self) -> Columns {
        use pg_sys::NodeTag::{T_AlterTableStmt, T_RenameStmt};
        let mut columns = Columns::default();
        // SAFETY: the statement lives for the call; its tag says what it is, and names in it are null or C strings. The definition of a column that is retyped is a ColumnDef.
        unsafe {
            let name = |name: *const core::ffi::c_char| {
                (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
            };
            let statement = (*self.data).parsetree;
            if statement.is_null() {
                return columns;
            }
            match (*statement).type_ {
                T_RenameStmt => {
                    let statement = &*statement.cast::<pg_sys::RenameStmt>();
                    columns.renamed = name(statement.subname).zip(name(statement.newname));
                }
                T_AlterTableStmt => {
                    columns.is_all = true;
                    let commands = (*statement.cast::<pg_sys::AlterTableStmt>()).cmds;
                    for command in PgList::<pg_sys::AlterTableCmd>::from_pg(commands).iter_ptr() {
                        let by_expression = match (*command).subtype {
                            pg_sys::AlterTableType::AT_AlterColumnType => {
                                let definition = (*command).def.cast::<pg_sys::ColumnDef>();
                                definition.is_null() || !(*definition).raw_default.is_null()
                            }
                            other if compat::sets_expression(other) => true,
                            _ => continue,
                        };
                        columns.retyped.extend(name((*command).name).map(|name| (name, by_expression)));
                    }
                }
                _ => {}
            }
        }
        columns
    }

    /// The tables that the command is about to make partitions of others, as their names read now.
    pub(crate) fn attached(&self) -> Vec<pg_sys::Oid> {
        let mut tables = Vec::new();
        // SAFETY: as in `reach`; the definition of this subcommand is a PartitionCmd, whose name is that of the partition. It is looked up as the command itself
        // will do, without a lock: whoever uses the result takes one.
        unsafe {
            let statement = (*self.data).parsetree;
            if statement.is_null() || (*statement).type_ != pg_sys::NodeTag::T_AlterTableStmt {
                return tables;
            }
            let commands = (*statement.cast::<pg_sys::AlterTableStmt>()).cmds;
            for command in PgList::<pg_sys::AlterTableCmd>::from_pg(commands).iter_ptr() {
                if (*command).subtype != pg_sys::AlterTableType::AT_AttachPartition {
                    continue;
                }
                let name = (*(*command).def.cast::<pg_sys::PartitionCmd>()).name;
                let missing_ok = pg_sys::RVROption::RVR_MISSING_OK;
                let lock = pg_sys::NoLock as pg_sys::LOCKMODE;
                let table = pg_sys::RangeVarGetRelidExtended(name, lock, missing_ok, None, std::ptr::null_mut());
                if table != pg_sys::InvalidOid {
                    tables.push(table);
                }
            }
        }
        tables
    }

    /// The objects that the command made or changed. Only at its end.
    pub(crate) fn objects(&self) -> Vec<Address> {
        rows_of(pg_sys::F_PG_EVENT_TRIGGER_DDL_COMMANDS, pg_sys::pg_event_trigger_ddl_commands, address)
    }

    /// The objects that the command dropped, those that depended on others included. Only for [`Event::Drop`].
    pub(crate) fn dropped(&self) -> Vec<Dropped> {
        rows_of(pg_sys::F_PG_EVENT_TRIGGER_DROPPED_OBJECTS, pg_sys::pg_event_trigger_dropped_objects, |row| {
            Some(Dropped {
                address: address(row)?,
                kind: row.text(6)?.into_owned(),
                by_itself: row.boolean(3)? || row.boolean(4)?,
                names: row.array(10).unwrap_or_default(),
            })
        })
    }

    /// The table that is about to be written anew, and whether that can change values. Only for [`Event::Rewrite`].
    pub(crate) fn rewritten(&self) -> Option<(pg_sys::Oid, bool)> {
        let kept = pg_sys::AT_REWRITE_ALTER_PERSISTENCE | pg_sys::AT_REWRITE_ACCESS_METHOD;
        // SAFETY: both take no arguments and look at the state of the running event trigger alone.
        unsafe {
            let reason = pgrx::direct_function_call_as_datum(pg_sys::pg_event_trigger_table_rewrite_reason, &[])?;
            let table = pgrx::direct_function_call_as_datum(pg_sys::pg_event_trigger_table_rewrite_oid, &[])?;
            Some((pg_sys::Oid::from(table.value() as u32), reason.value() as u32 & !kept != 0))
        }
    }

    /// What an event trigger gives: nothing.
    pub(crate) fn nothing() -> TriggerAnswer {
        TriggerAnswer(pg_sys::Datum::null())
    }
}

fn address(row: &Row<'_>) -> Option<Address> {
    Some(Address { class: row.oid(0)?, object: row.oid(1)?, column: row.int4(2)? })
}

/// Calls a function of the server that gives a set of rows and takes no arguments, and reads each row. Rows that `read` does not want are left out.
///
/// Called as C, so that neither search path nor privileges take part.
fn rows_of<T>(
    oid: u32,
    function: unsafe fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum,
    read: impl Fn(&Row<'_>) -> Option<T>,
) -> Vec<T> {
    let found = RefCell::new(Vec::new());
    let scratch = Scratch::new();
    // SAFETY: everything that the call needs lives in the scratch context or in this frame until the rows are read; the function materializes
    // its rows in the store that it leaves in the result information, with the descriptor beside it.
    scratch.within(|| unsafe {
        let mut information = pg_sys::FmgrInfo::default();
        pg_sys::fmgr_info(pg_sys::Oid::from(oid), &mut information);
        let expressions = pg_sys::CreateStandaloneExprContext();
        let mut result = pg_sys::ReturnSetInfo {
            type_: pg_sys::NodeTag::T_ReturnSetInfo,
            econtext: expressions,
            allowedModes: pg_sys::SetFunctionReturnMode::SFRM_Materialize as core::ffi::c_int,
            ..Default::default()
        };
        let size = std::mem::size_of::<pg_sys::FunctionCallInfoBaseData>();
        let call: pg_sys::FunctionCallInfo = pg_sys::palloc0(size).cast();
        (*call).flinfo = &mut information;
        (*call).resultinfo = (&raw mut result).cast();
        function(call);
        if !result.setResult.is_null() {
            let slot = pg_sys::MakeSingleTupleTableSlot(result.setDesc, &raw const pg_sys::TTSOpsMinimalTuple);
            while pg_sys::tuplestore_gettupleslot(result.setResult, true, false, slot) {
                let width = (*result.setDesc).natts;
                pg_sys::slot_getsomeattrs_int(slot, width);
                let values = std::slice::from_raw_parts((*slot).tts_values, width as usize);
                let nulls = std::slice::from_raw_parts((*slot).tts_isnull, width as usize);
                found.borrow_mut().extend(read(&Row::new(values, nulls)));
            }
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::tuplestore_end(result.setResult);
        }
        pg_sys::FreeExprContext(expressions, true);
    });
    found.into_inner()
}

//! Every failure that a user can meet: code, message, detail and hint in one place.
//!
//! Wording follows PostgreSQL's Error Message Style Guide.

use std::borrow::Cow;

use pgrx::PgLogLevel;
use pgrx::PgSqlErrorCode::{self, *};
use pgrx::pg_sys::panic::{ErrorReport, ErrorReportWithLevel};

/// What a superuser can do about it.
const MAINTENANCE: &str =
    "For maintenance, a superuser may use audit.maintenance('reason') before, in the same transaction.";

/// A failure with what the user should know of it.
#[derive(Debug)]
pub(crate) enum Error {
    /// The relation is of a kind that cannot be protected.
    CannotProtect {
        relation: String,
        why: &'static str,
        hint: &'static str,
    },
    /// The relation belongs to the system or to this extension.
    NotYours {
        relation: String,
        why: &'static str,
    },
    /// The caller does not own the table.
    NotOwner {
        relation: String,
    },
    AlreadyProtected {
        relation: String,
    },
    /// A partition or child is protected on its own, so its parent cannot be as well.
    ChildProtected {
        relation: String,
        child: String,
    },
    NotProtected {
        relation: String,
    },
    /// A partition is protected through the table above it.
    ProtectedThroughParent {
        relation: String,
        parent: String,
    },
    NoSuchColumn {
        relation: String,
        column: String,
    },
    /// A DDL command of an owner that leaves a protected table without its triggers.
    WouldEndRecording {
        relation: String,
        trigger: String,
        state: &'static str,
    },
    /// A DDL command after which the extension's own objects are not what they must be.
    WouldBreakGuards {
        relation: String,
        fault: String,
    },
    /// A DDL command after which a crash would empty a protected table.
    WouldUnlog {
        relation: String,
    },
    /// DDL on a protected table that the event triggers cannot follow.
    EventTriggersOff {
        relation: String,
    },
    /// A direct change of a system catalog that defines protection.
    GuardedCatalog {
        catalog: String,
    },
    MaintenanceDenied,
    /// A DDL command that changes what rows of a table say, while a query of the same session reads it.
    InUse {
        relation: String,
    },
    ExcludedKey {
        relation: String,
        column: String,
    },
    BadImages {
        images: String,
    },
    NullArgument {
        argument: &'static str,
    },
    EmptyReason,
    NoSuchTable {
        oid: u32,
    },
    NoSuchRole {
        oid: u32,
    },
    /// A trigger function was called in a way that the extension never sets up.
    TriggerProtocol {
        function: &'static str,
        why: &'static str,
    },
    /// A trigger function was fired for a table that is not in the registry.
    TriggerUnregistered {
        relation: String,
    },
    /// A statement against one of the extension's own tables.
    Guarded {
        action: &'static str,
        relation: String,
    },
    /// LOCK TABLE of a table of the extension.
    GuardedLock {
        relation: String,
    },
    /// A small table of the extension has an index that cannot be kept.
    SpecialIndex {
        relation: String,
    },
    /// The sequence of ids has a value that no run of ids has.
    IdsUsedUp {
        value: i64,
    },
    /// A row that a restore wants to add but whose hash does not fit.
    RestoredHash {
        chain: i32,
        seq: i64,
        stored: String,
        computed: String,
    },
    /// A row of the log that cannot be read as an entry.
    Damaged {
        what: String,
    },
    NotInstalled,
    NoLedger,
    /// The head of a chain is not what the log says; writing on would fork it.
    HeadDamaged {
        chain: u32,
        what: String,
    },
    /// A rendered row is larger than a value can be.
    TooLarge {
        relation: String,
        bytes: usize,
    },
    OutOfMemory {
        bytes: usize,
    },
    /// Sealing where nothing can be written.
    CannotSeal {
        where_: &'static str,
    },
    /// PREPARE TRANSACTION of a transaction that has sealed.
    PreparedSeal,
    /// A row of a dump that the extension would not have written.
    RestoredRow {
        what: String,
        why: String,
    },
    NothingSealed,
    NotSealed {
        chain: i32,
        seq: i64,
    },
    NoSuchEntry {
        chain: i32,
        seq: i64,
    },
    /// A text that was handed in is not what it should be.
    BadText {
        argument: &'static str,
        what: String,
    },
    /// A checkpoint over more entries than are sealed.
    CheckpointAhead {
        size: u64,
        sealed: u64,
    },
    /// A checkpoint of another history.
    CheckpointDiffers {
        size: u64,
        computed: String,
        found: String,
    },
    /// Seals or tiles are not what was sealed.
    TreeDamaged {
        what: String,
    },
    /// No seal with this number.
    NoSuchSeal {
        number: i64,
    },
    /// The file of the newest checkpoint cannot be used.
    CheckpointFile {
        what: &'static str,
        why: String,
    },
    /// A checkpoint would contradict what was said before, until the next seal says why.
    SealFirst {
        why: String,
    },
    /// The file of the signing key cannot be used. `why` says nothing of what is in it, nor where it is.
    SigningKey {
        why: String,
    },
}

impl Error {
    fn parts(&self) -> (PgSqlErrorCode, String, Option<String>, Option<String>) {
        use Error::*;
        let some = |text: &str| Some(text.to_owned());
        match self {
            CannotProtect { relation, why, hint } => (
                ERRCODE_WRONG_OBJECT_TYPE,
                format!("cannot protect \"{relation}\": it is {why}"),
                None,
                (!hint.is_empty()).then(|| (*hint).to_owned()),
            ),
            NotYours { relation, why } => {
                (ERRCODE_INSUFFICIENT_PRIVILEGE, format!("cannot protect \"{relation}\": it is {why}"), None, None)
            }
            NotOwner { relation } => {
                (ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table \"{relation}\""), None, None)
            }
            AlreadyProtected { relation } => (
                ERRCODE_DUPLICATE_OBJECT,
                format!("table \"{relation}\" is already protected"),
                None,
                Some(format!("To protect it in another way, use audit.unprotect('{relation}', 'reason') first.")),
            ),
            ChildProtected { relation, child } => (
                ERRCODE_DUPLICATE_OBJECT,
                format!("cannot protect \"{relation}\": its partition or child \"{child}\" is protected on its own"),
                None,
                Some(format!("Use audit.unprotect('{child}', 'reason') first.")),
            ),
            NotProtected { relation } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("table \"{relation}\" is not protected"),
                None,
                Some(format!("Use audit.protect('{relation}') first.")),
            ),
            ProtectedThroughParent { relation, parent } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("table \"{relation}\" is protected through \"{parent}\""),
                None,
                Some(format!("Unprotect \"{parent}\", or detach \"{relation}\" from it first.")),
            ),
            WouldEndRecording { relation, trigger, state } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("cannot end the recording of changes of table \"{relation}\""),
                Some(format!("After this command its trigger \"{trigger}\" would be {state}.")),
                some("A superuser may end the protection with audit.unprotect()."),
            ),
            WouldBreakGuards { relation, fault } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("cannot take the guards from \"{relation}\""),
                Some(format!("After this command {fault}.")),
                some(MAINTENANCE),
            ),
            WouldUnlog { relation } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("cannot make the protected table \"{relation}\" unlogged"),
                some("A crash would empty it without a trace."),
                some("A superuser may end the protection with audit.unprotect()."),
            ),
            EventTriggersOff { relation } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "cannot change the definition of protected table \"{relation}\" while event triggers do not fire"
                ),
                some("The event triggers of extension \"audit\" keep the log in step with the table."),
                some("Set event_triggers to on, and turn them on with ALTER EVENT TRIGGER ... ENABLE ALWAYS."),
            ),
            GuardedCatalog { catalog } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("cannot change system catalog \"{catalog}\""),
                some("Protection could be taken away without a trace."),
                some(MAINTENANCE),
            ),
            MaintenanceDenied => {
                (ERRCODE_INSUFFICIENT_PRIVILEGE, "must be superuser to open the guards".into(), None, None)
            }
            InUse { relation } => (
                ERRCODE_OBJECT_IN_USE,
                format!("cannot record the rows of table \"{relation}\" anew while this session uses it"),
                Some("The command changes what its rows say.".into()),
                some("Run the command outside of queries and commands that use the table."),
            ),
            NoSuchColumn { relation, column } => (
                ERRCODE_UNDEFINED_COLUMN,
                format!("column \"{column}\" of table \"{relation}\" does not exist"),
                None,
                some("The argument \"exclude\" takes names of columns, as they are stored."),
            ),
            ExcludedKey { relation, column } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("cannot exclude column \"{column}\" of table \"{relation}\": it belongs to the primary key"),
                some("The primary key tells which row an entry is about."),
                None,
            ),
            BadImages { images } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("invalid value for argument \"images\": \"{images}\""),
                None,
                some("Use 'changed' to record the changed columns of an UPDATE, or 'full' to record whole rows."),
            ),
            NullArgument { argument } => {
                (ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("argument \"{argument}\" must not be null"), None, None)
            }
            EmptyReason => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                "a reason is needed".into(),
                None,
                some("The reason is recorded in the log."),
            ),
            NoSuchTable { oid } => {
                (ERRCODE_UNDEFINED_TABLE, format!("relation with OID {oid} does not exist"), None, None)
            }
            NoSuchRole { oid } => (ERRCODE_UNDEFINED_OBJECT, format!("role with OID {oid} does not exist"), None, None),
            TriggerProtocol { function, why } => (
                ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                format!("function \"{function}\" {why}"),
                None,
                some("Triggers of the extension are made by audit.protect() alone."),
            ),
            TriggerUnregistered { relation } => (
                ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                format!("cannot record a change of table \"{relation}\": it is not registered for protection"),
                some("The change is refused, because a change that cannot be recorded must not happen."),
                some(
                    "If the table was copied, restored or attached, a superuser may drop its triggers \"audit_row\" and \"audit_truncate\" and use audit.protect() on it.",
                ),
            ),
            Guarded { action, relation } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("cannot {action} table \"{relation}\""),
                some("Entries are append-only, and only the extension writes them."),
                some(
                    "Changes are recorded by the triggers of protected tables; see audit.protect() and audit.unprotect().",
                ),
            ),
            GuardedLock { relation } => (
                ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("cannot lock table \"{relation}\" in this mode"),
                some("Everybody who changes a protected table would have to wait, or the log could not be vacuumed."),
                some("Modes ACCESS SHARE, ROW SHARE and ROW EXCLUSIVE are not refused."),
            ),
            IdsUsedUp { value } => (
                ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED,
                "there are no more ids for entries".into(),
                Some(format!("The sequence audit.log_id_seq has come to {value}, which no id of an entry belongs to.")),
                some(
                    "If nobody has moved it by mistake, begin a ledger anew; if somebody has, set it back with setval: a chain that has entries moves it on past them.",
                ),
            ),
            SpecialIndex { relation } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("cannot write to table \"{relation}\""),
                some(
                    "An index on it has an expression or a WHERE clause; the extension keeps such indexes on audit.log only.",
                ),
                some("Drop that index. It is none that the extension made."),
            ),
            RestoredHash { chain, seq, stored, computed } => (
                ERRCODE_DATA_CORRUPTED,
                format!("entry {seq} of chain {chain} does not fit its hash"),
                Some(format!("The row says {stored}, computed was {computed}.")),
                some("The dump was changed after it was taken, or is of another format version."),
            ),
            CannotSeal { where_ } => (
                ERRCODE_READ_ONLY_SQL_TRANSACTION,
                format!("cannot seal {where_}"),
                None,
                some(
                    "Seal on the primary server, in a transaction that may write; seals reach standby servers by replication.",
                ),
            ),
            PreparedSeal => (
                ERRCODE_FEATURE_NOT_SUPPORTED,
                "cannot PREPARE a transaction that has used audit.seal()".into(),
                some("Nobody else could seal until it is committed or rolled back."),
                some("Call audit.seal() in a transaction of its own."),
            ),
            RestoredRow { what, why } => (
                ERRCODE_DATA_CORRUPTED,
                format!("{what} is not as it was written"),
                Some(why.clone()),
                some("The dump was changed after it was taken, or is of another format version."),
            ),
            NothingSealed => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "nothing is sealed yet".into(),
                None,
                some("Use audit.seal() first, and commit it."),
            ),
            NotSealed { chain, seq } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("entry {seq} of chain {chain} is not sealed yet"),
                None,
                some("Wait for the next seal, or use audit.seal() and commit it."),
            ),
            NoSuchEntry { chain, seq } => {
                (ERRCODE_NO_DATA_FOUND, format!("there is no entry {seq} of chain {chain}"), None, None)
            }
            BadText { argument, what } => (
                ERRCODE_INVALID_TEXT_REPRESENTATION,
                format!("invalid value for argument \"{argument}\": {what}"),
                None,
                None,
            ),
            CheckpointAhead { size, sealed } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("the checkpoint is over {size} entries, but only {sealed} are sealed"),
                None,
                some("It is of another ledger, or this one was set back: audit.verify(checkpoint => ...) tells."),
            ),
            CheckpointDiffers { size, computed, found } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("the ledger does not continue the checkpoint over {size} entries"),
                Some(format!("Computed root {computed}, the checkpoint says {found}.")),
                some("It is of another ledger, or the history was rewritten: audit.verify(checkpoint => ...) tells."),
            ),
            TreeDamaged { what } => (
                ERRCODE_DATA_CORRUPTED,
                format!("the tree of sealed entries is damaged: {what}"),
                None,
                some("Run audit.findings() to see what is wrong with log and seals."),
            ),
            Damaged { what } => (
                ERRCODE_DATA_CORRUPTED,
                format!("could not read an entry: {what}"),
                None,
                some("Run audit.findings() to see what is wrong with the log."),
            ),
            NotInstalled => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "extension \"audit\" is not installed completely in this database".into(),
                some("One of its tables or functions was not found in schema \"audit\"."),
                some("Use CREATE EXTENSION audit, or restore the missing object."),
            ),
            NoLedger => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "this database has no ledger".into(),
                some("Table \"audit.ledger\" is empty."),
                some(
                    "Protect a table with audit.protect() to begin one; after a restore, restore the tables of schema \"audit\" first.",
                ),
            ),
            HeadDamaged { chain, what } => (
                ERRCODE_DATA_CORRUPTED,
                format!("cannot append to chain {chain}: {what}"),
                some("The change is refused, because its entry could not be linked to the one before it."),
                some("Run audit.findings() to see what is wrong with the log."),
            ),
            TooLarge { relation, bytes } => (
                ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("cannot record a row of table \"{relation}\": its text of {bytes} bytes is too large"),
                some(
                    "A value of the log can hold less than 1 GB of text; the change is refused, because it cannot be recorded.",
                ),
                some("Keep such values outside the table, or exclude the column: audit.protect(..., exclude => ...)."),
            ),
            OutOfMemory { bytes } => (
                ERRCODE_OUT_OF_MEMORY,
                "out of memory".into(),
                Some(format!("Failed on request of size {bytes} while a row was being recorded.")),
                None,
            ),
            NoSuchSeal { number } => (
                ERRCODE_INVALID_PARAMETER_VALUE,
                format!("there is no seal {number}"),
                None,
                some("Table \"audit.seal\" has the numbers of all seals."),
            ),
            CheckpointFile { what, why } => (
                ERRCODE_CONFIG_FILE_ERROR,
                format!("could not {what} the checkpoint file"),
                Some(why.clone()),
                some(
                    "The setting \"audit.checkpoint_file\" names it. The server must be able to write it and the directory it is in.",
                ),
            ),
            SealFirst { why } => (
                ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "cannot give out a checkpoint before the next seal".into(),
                Some(why.clone()),
                some("Use audit.seal(), which records it, and try again when that is committed."),
            ),
            SigningKey { why } => (
                ERRCODE_CONFIG_FILE_ERROR,
                "could not load the signing key".into(),
                Some(why.clone()),
                some(
                    "The setting \"audit.signing_key_file\" names a file that \"openssl genpkey -algorithm ed25519\" made, and that nobody but the server may read.",
                ),
            ),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.parts().1)
    }
}

impl From<Error> for ErrorReport {
    fn from(error: Error) -> ErrorReport {
        let (code, message, detail, hint) = error.parts();
        let mut report = ErrorReport::new(code, Cow::Owned(message), "audit");
        if let Some(detail) = detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = hint {
            report = report.set_hint(hint);
        }
        report
    }
}

/// Gives the value, or raises the failure as an error of the statement.
pub(crate) fn or_report<T>(result: Result<T, Error>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => {
            ErrorReport::from(error).report(PgLogLevel::ERROR);
            unreachable!("an error report of level ERROR does not return")
        }
    }
}

/// Tells client and server log of what needs somebody's attention, though the statement goes on.
pub(crate) fn warning(message: String, hint: &str) {
    ErrorReport::new(ERRCODE_WARNING, message, "audit").set_hint(hint.to_owned()).report(PgLogLevel::WARNING);
}

/// Tells of a failure that does not fail the statement.
pub(crate) fn warn(error: Error) {
    ErrorReport::from(error).report(PgLogLevel::WARNING);
}

/// Reports a failure that was caught, as a warning.
pub(crate) fn again(report: &ErrorReportWithLevel) {
    let mut again = ErrorReport::new(report.sql_error_code(), report.message().to_owned(), "audit");
    if let Some(detail) = report.detail() {
        again = again.set_detail(detail.to_owned());
    }
    if let Some(hint) = report.hint() {
        again = again.set_hint(hint.to_owned());
    }
    again.report(PgLogLevel::WARNING);
}

/// Writes to the server log.
pub(crate) fn log(message: String, detail: Option<String>) {
    let report = ErrorReport::new(ERRCODE_SUCCESSFUL_COMPLETION, message, "audit");
    match detail {
        Some(detail) => report.set_detail(detail),
        None => report,
    }
    .report(PgLogLevel::LOG);
}

/// Tells whoever asks for it how a function goes about its work.
pub(crate) fn debug(message: String) {
    ErrorReport::new(ERRCODE_SUCCESSFUL_COMPLETION, message, "audit").report(PgLogLevel::DEBUG1);
}

/// Tells the client how far a long-running function is.
pub(crate) fn notice(message: String) {
    ErrorReport::new(ERRCODE_SUCCESSFUL_COMPLETION, message, "audit").report(PgLogLevel::NOTICE);
}

//! Settings, each named `audit.<noun>`.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

use crate::pg::setting;

static CHAINS: GucSetting<i32> = GucSetting::<i32>::new(0);
static RECORD_UNCHANGED: GucSetting<bool> = GucSetting::<bool>::new(false);
static PROGRESS_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(10);
static CONTEXT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static ORIGIN: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static SIGNING_KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static CHECKPOINT_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static CHECKPOINT_COMMAND: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static CHECKPOINT_COMMAND_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(60);
static CHECKPOINT_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(60);
static LOG_CHECKPOINTS: GucSetting<bool> = GucSetting::<bool>::new(true);
static SEAL_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(1000);
static SEAL_DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// Most chains that `audit.chains` lets writers share.
pub(crate) const MOST_CHAINS: i32 = 1_000_000;

/// Defines the settings; called once, when the library is loaded.
pub(crate) fn define() {
    GucRegistry::define_int_guc(
        c"audit.chains",
        c"Number of chains that writers share.",
        c"0, the default: each concurrent writer has a chain of its own and never waits. 1: one strict global chain; writers queue for it from \
          their first change to the end of their transaction. n: n chains; a writer waits when all are in use.",
        &CHAINS,
        0,
        MOST_CHAINS,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"audit.record_unchanged",
        c"Record an UPDATE that changes no recorded column.",
        c"off, the default: such an UPDATE leaves no entry.",
        &RECORD_UNCHANGED,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"audit.progress_interval",
        c"Time between two notices of progress of audit.verify() and audit.findings().",
        c"0 turns them off. The default is 10 s.",
        &PROGRESS_INTERVAL,
        0,
        86_400,
        GucContext::Userset,
        GucFlags::UNIT_S,
    );
    setting::define_checked_text(
        c"audit.context",
        c"Who makes a change and why, as the service says: a JSON object that is recorded with each entry.",
        c"Empty, the default: nothing is recorded. A claim of the client, not checked by the server.",
        &CONTEXT,
        setting::Check::Context,
    );
    define_sealing();
    setting::reserve_prefix(c"audit");
}

fn define_sealing() {
    setting::define_checked_text(
        c"audit.origin",
        c"Name of the ledger to the outside: the first line of its checkpoints, and the name of its key.",
        c"Empty, the default: audit/ and the id of the ledger. Each ledger needs a name of its own, so set it for a database.",
        &ORIGIN,
        setting::Check::Origin,
    );
    let text = |name, short, long, setting, flags| {
        GucRegistry::define_string_guc(name, short, long, setting, GucContext::Sighup, flags);
    };
    text(
        c"audit.signing_key_file",
        c"File with the Ed25519 private key that signs checkpoints, in PKCS#8 PEM form.",
        c"Empty, the default: checkpoints are not signed.",
        &SIGNING_KEY_FILE,
        GucFlags::SUPERUSER_ONLY,
    );
    text(
        c"audit.checkpoint_file",
        c"File outside the data directory in which the sealer keeps the newest checkpoint.",
        c"Empty, the default: none. %d stands for the name of the database, %l for the id of the ledger, %% for %.",
        &CHECKPOINT_FILE,
        GucFlags::SUPERUSER_ONLY,
    );
    text(
        c"audit.checkpoint_command",
        c"Shell command that the sealer runs with the newest checkpoint on its standard input.",
        c"Empty, the default: none. It must return 0 only when it has stored the checkpoint.",
        &CHECKPOINT_COMMAND,
        GucFlags::SUPERUSER_ONLY,
    );
    text(
        c"audit.seal_databases",
        c"Names of the databases that the sealer works for, with commas between them.",
        c"Empty, the default: all that allow connections, are no templates and hold the extension.",
        &SEAL_DATABASES,
        GucFlags::default(),
    );
    let number = |name, short, long, setting, least, most, unit| {
        GucRegistry::define_int_guc(name, short, long, setting, least, most, GucContext::Sighup, unit);
    };
    number(
        c"audit.seal_interval",
        c"Time between two seals of the sealer, when there are new entries.",
        c"0 turns the sealer off. The default is 1 s.",
        &SEAL_INTERVAL,
        0,
        86_400_000,
        GucFlags::UNIT_MS,
    );
    number(
        c"audit.checkpoint_interval",
        c"Least time between two checkpoints that the sealer logs or gives to audit.checkpoint_command.",
        c"The default is 60 s.",
        &CHECKPOINT_INTERVAL,
        0,
        86_400,
        GucFlags::UNIT_S,
    );
    number(
        c"audit.checkpoint_command_timeout",
        c"Time after which a run of audit.checkpoint_command is ended and has failed.",
        c"The default is 60 s.",
        &CHECKPOINT_COMMAND_TIMEOUT,
        1,
        86_400,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_bool_guc(
        c"audit.log_checkpoints",
        c"Write checkpoints to the server log.",
        c"on, the default: the sealer does, at most one in audit.checkpoint_interval.",
        &LOG_CHECKPOINTS,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

/// How many chains writers share; `None`: each has its own.
pub(crate) fn chains() -> Option<u32> {
    u32::try_from(CHAINS.get()).ok().filter(|chains| *chains > 0)
}

/// Whether an UPDATE that changes nothing is recorded.
pub(crate) fn record_unchanged() -> bool {
    RECORD_UNCHANGED.get()
}

/// Time between two notices of progress; `None`: no notices.
pub(crate) fn progress_interval() -> Option<Duration> {
    u64::try_from(PROGRESS_INTERVAL.get()).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// The context as JSON text on one line; `None` when it is empty.
pub(crate) fn context() -> Option<String> {
    setting::with_text(&CONTEXT, |text| {
        let text = text.to_bytes().trim_ascii();
        if text.is_empty() {
            return None;
        }
        let mut line = Vec::with_capacity(text.len());
        audit_ledger::json::push_one_line(&mut line, text);
        String::from_utf8(line).ok()
    })?
}

/// What is wrong with a text as a context, when the setting is made and not only when a change is to be recorded.
pub(crate) fn check_context(text: &str) -> Result<(), String> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Ok(());
    }
    audit_ledger::json::validate_object(text).map_err(|error| format!("It must be a JSON object, but {error}."))
}

/// The origin, when it is set.
pub(crate) fn origin() -> Option<String> {
    text(&ORIGIN)
}

/// What is wrong with a text as an origin.
pub(crate) fn check_origin(text: &str) -> Result<(), String> {
    if text.is_empty() || audit_ledger::note::is_key_name(text) {
        return Ok(());
    }
    Err("It must have neither white space nor \"+\" nor control characters.".to_owned())
}

/// The file with the signing key.
pub(crate) fn signing_key_file() -> Option<PathBuf> {
    path(&SIGNING_KEY_FILE)
}

/// The file of the newest checkpoint, as set.
pub(crate) fn checkpoint_file() -> Option<Vec<u8>> {
    Some(CHECKPOINT_FILE.get()?.into_bytes()).filter(|bytes| !bytes.is_empty())
}

/// The command that stores checkpoints elsewhere.
pub(crate) fn checkpoint_command() -> Option<String> {
    text(&CHECKPOINT_COMMAND)
}

/// How long that command may take.
pub(crate) fn checkpoint_command_timeout() -> Duration {
    Duration::from_secs(CHECKPOINT_COMMAND_TIMEOUT.get().unsigned_abs().into())
}

/// Least time between two checkpoints that are given out.
pub(crate) fn checkpoint_interval() -> Duration {
    Duration::from_secs(CHECKPOINT_INTERVAL.get().unsigned_abs().into())
}

/// Whether checkpoints are logged.
pub(crate) fn log_checkpoints() -> bool {
    LOG_CHECKPOINTS.get()
}

/// Time between two seals; `None`: the sealer is off.
pub(crate) fn seal_interval() -> Option<Duration> {
    let millis = u64::try_from(SEAL_INTERVAL.get()).ok().filter(|millis| *millis > 0)?;
    Some(Duration::from_millis(millis))
}

/// The databases that are sealed; empty: all that can be.
pub(crate) fn seal_databases() -> Vec<String> {
    let names = text(&SEAL_DATABASES).unwrap_or_default();
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn text(setting: &GucSetting<Option<CString>>) -> Option<String> {
    setting.get()?.into_string().ok().filter(|text| !text.is_empty())
}

/// A file name is bytes, whatever encoding the database has.
fn path(setting: &GucSetting<Option<CString>>) -> Option<PathBuf> {
    let bytes = setting.get()?.into_bytes();
    (!bytes.is_empty()).then(|| PathBuf::from(OsString::from_vec(bytes)))
}

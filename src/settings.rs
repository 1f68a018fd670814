//! Settings, each named `audit.<noun>`.

use std::ffi::CString;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

use crate::pg::setting;

static CHAINS: GucSetting<i32> = GucSetting::<i32>::new(0);
static RECORD_UNCHANGED: GucSetting<bool> = GucSetting::<bool>::new(false);
static PROGRESS_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(10);
static CONTEXT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

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
    );
    setting::reserve_prefix(c"audit");
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
pub(crate) fn progress_interval() -> Option<std::time::Duration> {
    u64::try_from(PROGRESS_INTERVAL.get()).ok().filter(|seconds| *seconds > 0).map(std::time::Duration::from_secs)
}

/// The context as JSON text on one line; `None` when it is empty.
pub(crate) fn context() -> Option<String> {
    let text = CONTEXT.get()?.into_string().ok()?;
    let text = text.trim_ascii();
    if text.is_empty() {
        return None;
    }
    let mut line = Vec::with_capacity(text.len());
    audit_ledger::json::push_one_line(&mut line, text.as_bytes());
    String::from_utf8(line).ok()
}

/// What is wrong with a text as a context, when the setting is made and not only when a change is to be recorded.
pub(crate) fn check_context(text: &str) -> Result<(), String> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Ok(());
    }
    audit_ledger::json::validate_object(text).map_err(|error| format!("It must be a JSON object, but {error}."))
}

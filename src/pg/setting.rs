//! Settings that need a hook of the server.

use std::ffi::{CStr, CString, c_char, c_void};

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_guard, pg_sys};

/// What a text must be to be taken as a setting's value.
#[derive(Clone, Copy)]
pub(crate) enum Check {
    /// [`crate::settings::check_context`]; anybody may set it.
    Context,
    /// [`crate::settings::check_origin`]; superusers may set it.
    Origin,
}

/// Defines a setting whose text is checked when it is set.
pub(crate) fn define_checked_text(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<Option<CString>>,
    check: Check,
) {
    let (context, hook): (_, CheckHook) = match check {
        Check::Context => (GucContext::Userset, check_context),
        Check::Origin => (GucContext::Suset, check_origin),
    };
    // SAFETY: the check hook has the signature of a text setting's and lives as long as the library, which is never unloaded.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            short,
            long,
            setting,
            context,
            GucFlags::default(),
            Some(hook),
            None,
            None,
        );
    }
}

/// Shows a text setting as it is, without a copy; `None` when it has no value.
pub(crate) fn with_text<R>(setting: &GucSetting<Option<CString>>, read: impl FnOnce(&CStr) -> R) -> Option<R> {
    // SAFETY: null or a C string that lives until the setting changes, which `read` does not do.
    unsafe {
        let text = *setting.as_ptr();
        (!text.is_null()).then(|| read(CStr::from_ptr(text)))
    }
}

type CheckHook = unsafe extern "C-unwind" fn(*mut *mut c_char, *mut *mut c_void, pg_sys::GucSource::Type) -> bool;

/// Makes a misspelt setting with this prefix an error from here on.
pub(crate) fn reserve_prefix(prefix: &'static CStr) {
    // SAFETY: a C string that is copied.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) }
}

#[pg_guard]
unsafe extern "C-unwind" fn check_context(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the server passes a pointer to a C string or to null.
    unsafe { passes(value, crate::settings::check_context) }
}

#[pg_guard]
unsafe extern "C-unwind" fn check_origin(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the server passes a pointer to a C string or to null.
    unsafe { passes(value, crate::settings::check_origin) }
}

/// # Safety
/// `value` points to a C string or to null.
unsafe fn passes(value: *mut *mut c_char, check: fn(&str) -> Result<(), String>) -> bool {
    // SAFETY: as promised by the caller.
    let text = unsafe {
        if (*value).is_null() {
            return true;
        }
        CStr::from_ptr(*value)
    };
    let problem = match text.to_str().map(check) {
        Ok(Ok(())) => return true,
        Ok(Err(problem)) => problem,
        Err(_) => "It is not valid UTF-8.".to_owned(),
    };
    let detail = CString::new(problem).unwrap_or_default();
    // SAFETY: the server copies the text with the error, from a context that outlives the check.
    unsafe { pg_sys::GUC_check_errdetail_string = pg_sys::pstrdup(detail.as_ptr()) };
    false
}

//! Settings that need a hook of the server.

use std::ffi::{CStr, CString, c_char, c_void};

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, pg_guard, pg_sys};

/// Defines the setting of the context, which anybody may set to a text that [`crate::settings::check_context`] accepts.
pub(crate) fn define_checked_text(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<Option<CString>>,
) {
    // SAFETY: the check hook has the signature of a text setting's and lives as long as the library, which is never unloaded.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            short,
            long,
            setting,
            GucContext::Userset,
            GucFlags::default(),
            Some(check),
            None,
            None,
        );
    }
}

/// Makes a misspelt setting with this prefix an error from here on.
pub(crate) fn reserve_prefix(prefix: &'static CStr) {
    // SAFETY: a C string that is copied.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) }
}

#[pg_guard]
unsafe extern "C-unwind" fn check(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the server passes a pointer to a C string or to null.
    let text = unsafe {
        if (*value).is_null() {
            return true;
        }
        CStr::from_ptr(*value)
    };
    let problem = match text.to_str().map(crate::settings::check_context) {
        Ok(Ok(())) => return true,
        Ok(Err(problem)) => problem,
        Err(_) => "It must be a JSON object, but is not valid UTF-8.".to_owned(),
    };
    let detail = CString::new(problem).unwrap_or_default();
    // SAFETY: the server copies the text with the error, from a context that outlives the check.
    unsafe { pg_sys::GUC_check_errdetail_string = pg_sys::pstrdup(detail.as_ptr()) };
    false
}

//! Values as text, by the types' own output functions, whatever the session has set.
//!
//! The settings that change what an output function prints are pinned while [`Pinned`] lives. Most are integers of the server
//! that the output functions read directly; they are set and put back without the machinery of settings, which would cost more
//! than the rendering. Money, object names and types that may contain them need settings with caches behind them: only for
//! tables with such a column the machinery is used.

use std::cell::UnsafeCell;
use std::ffi::CStr;

use pgrx::pg_sys;

use super::memory::Scratch;
use super::process::ProcessLocal;
use super::server;

/// An output function, looked up once.
pub(crate) struct Output {
    // Output functions keep caches in it. A backend has one thread, and an output function runs no SQL that could come back here.
    info: UnsafeCell<pg_sys::FmgrInfo>,
    type_oid: pg_sys::Oid,
}

impl Output {
    /// The output function of a type; what it caches lives in `home`.
    pub(crate) fn of_type(type_oid: pg_sys::Oid, home: &Scratch) -> Output {
        let mut function = pg_sys::InvalidOid;
        let mut is_varlena = false;
        let mut info = pg_sys::FmgrInfo::default();
        // SAFETY: out-parameters are ours; `home` outlives the value, as its owner holds both.
        unsafe {
            pg_sys::getTypeOutputInfo(type_oid, &mut function, &mut is_varlena);
            pg_sys::fmgr_info_cxt(function, &mut info, home.as_ptr());
        }
        Output { info: UnsafeCell::new(info), type_oid }
    }

    /// Whether this is the output function of a type.
    pub(crate) fn is_of(&self, type_oid: pg_sys::Oid) -> bool {
        self.type_oid == type_oid
    }

    /// Text of a non-null value of the type, in the current memory context, as long as that lives.
    ///
    /// # Safety
    /// `value` is of the type that the function was looked up for.
    pub(super) unsafe fn text<'a>(&self, value: pg_sys::Datum) -> &'a [u8] {
        // SAFETY: the function gives a C string in the current context; nobody else uses the function's state meanwhile.
        unsafe { CStr::from_ptr(pg_sys::OutputFunctionCall(self.info.get(), value)) }.to_bytes()
    }
}

/// What a type's text may depend on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Depends {
    /// Nothing but the value, or on variables that are cheap to pin.
    Variables,
    /// On `search_path`, `lc_monetary` or `quote_all_identifiers` as well.
    Settings,
}

/// What the text of a type depends on, looking through domains, arrays, ranges and composites.
pub(crate) fn depends(type_oid: pg_sys::Oid) -> Depends {
    // A type made of itself cannot exist, but a deep nest can: beyond this depth the careful answer is given.
    depends_to(type_oid, 16)
}

fn depends_to(type_oid: pg_sys::Oid, depth: u8) -> Depends {
    if depth == 0 {
        return Depends::Settings;
    }
    // SAFETY: catalog look-ups by value.
    let (base, element, kind) = unsafe {
        let base = pg_sys::getBaseType(type_oid);
        (base, pg_sys::get_element_type(base), pg_sys::get_typtype(base) as u8)
    };
    if element != pg_sys::InvalidOid {
        return depends_to(element, depth - 1);
    }
    match kind {
        b'e' => Depends::Variables,
        // SAFETY: a catalog look-up by value.
        b'r' => depends_to(unsafe { pg_sys::get_range_subtype(base) }, depth - 1),
        b'b' if base.to_u32() < pg_sys::FirstNormalObjectId && !names_objects(base) => Depends::Variables,
        // Composites, multiranges, types of extensions.
        _ => Depends::Settings,
    }
}

/// Money and the types whose text is the name of a database object.
fn names_objects(type_oid: pg_sys::Oid) -> bool {
    [
        pg_sys::MONEYOID,
        pg_sys::REGCLASSOID,
        pg_sys::REGCOLLATIONOID,
        pg_sys::REGCONFIGOID,
        pg_sys::REGDICTIONARYOID,
        pg_sys::REGNAMESPACEOID,
        pg_sys::REGOPEROID,
        pg_sys::REGOPERATOROID,
        pg_sys::REGPROCOID,
        pg_sys::REGPROCEDUREOID,
        pg_sys::REGROLEOID,
        pg_sys::REGTYPEOID,
        pg_sys::ACLITEMOID,
    ]
    .contains(&type_oid)
}

/// Fixes what output functions depend on while it lives.
pub(crate) struct Pinned {
    date_style: i32,
    interval_style: i32,
    float_digits: i32,
    bytea: i32,
    zone: *mut pg_sys::pg_tz,
    nest: Option<i32>,
}

impl Pinned {
    /// Pins for values that depend on no more than `depends`.
    pub(crate) fn new(depends: Depends) -> Pinned {
        // The machinery first: it may fail, and then nothing has been changed.
        let nest = (depends == Depends::Settings).then(pin_settings);
        // SAFETY: variables of this single-threaded process, read only by code that runs before they are put back; pg_tzset gives a
        // pointer that lives as long as the process, UTC is compiled in.
        unsafe {
            let pinned = Pinned {
                date_style: pg_sys::DateStyle,
                interval_style: pg_sys::IntervalStyle,
                float_digits: pg_sys::extra_float_digits,
                bytea: server::set_bytea_output(1),
                zone: pg_sys::session_timezone,
                nest,
            };
            pg_sys::DateStyle = pg_sys::USE_ISO_DATES as i32;
            pg_sys::IntervalStyle = pg_sys::INTSTYLE_POSTGRES as i32;
            pg_sys::extra_float_digits = 1;
            pg_sys::session_timezone = utc();
            pinned
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: puts back what `new` found; errors unwind through here, so this happens whatever happens.
        unsafe {
            pg_sys::DateStyle = self.date_style;
            pg_sys::IntervalStyle = self.interval_style;
            pg_sys::extra_float_digits = self.float_digits;
            server::set_bytea_output(self.bytea);
            pg_sys::session_timezone = self.zone;
            // After an error the server itself takes back the settings of open levels; doing it here as well is harmless, as
            // levels above the given one are gone then.
            if let Some(level) = self.nest {
                pg_sys::AtEOXact_GUC(true, level);
            }
        }
    }
}

fn utc() -> *mut pg_sys::pg_tz {
    static UTC: ProcessLocal<std::cell::Cell<*mut pg_sys::pg_tz>> =
        ProcessLocal::new(std::cell::Cell::new(std::ptr::null_mut()));
    let known = UTC.get();
    if !known.is_null() {
        return known;
    }
    // SAFETY: the name is a C string; the result lives as long as the process.
    let zone = unsafe { pg_sys::pg_tzset(c"UTC".as_ptr()) };
    assert!(!zone.is_null(), "time zone UTC is not known to the server");
    UTC.set(zone);
    zone
}

/// Opens a level of settings and sets those that have caches behind them.
fn pin_settings() -> i32 {
    const SETTINGS: [(&CStr, &CStr); 3] =
        [(c"search_path", c"pg_catalog"), (c"lc_monetary", c"C"), (c"quote_all_identifiers", c"off")];
    // SAFETY: names and values are C strings; a function's SET clause does the same (fmgr.c, fmgr_security_definer).
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        for (name, value) in SETTINGS {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                // lc_monetary and the others may be set by any user.
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
        level
    }
}

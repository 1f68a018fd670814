//! Functions that SQL calls: their C entry points, arguments and sets of rows.
//!
//! The `CREATE FUNCTION` of each is written by hand in `sql/`, so that volatility, parallel safety and privileges stand beside it.

use pgrx::{FromDatum, IntoDatum, pg_sys};

/// Declares the C entry point `$symbol` of a function that SQL calls. `$body` takes [`Call`] and gives the result.
macro_rules! sql_function {
    ($symbol:ident, $info:ident, $body:expr) => {
        #[doc(hidden)]
        #[allow(unreachable_pub, reason = "exported by symbol, not by path")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $info() -> &'static pgrx::pg_sys::Pg_finfo_record {
            static V1: pgrx::pg_sys::Pg_finfo_record = pgrx::pg_sys::Pg_finfo_record { api_version: 1 };
            &V1
        }

        #[doc(hidden)]
        #[allow(unreachable_pub, reason = "exported by symbol, not by path")]
        #[unsafe(no_mangle)]
        #[pgrx::pg_guard]
        pub unsafe extern "C-unwind" fn $symbol(fcinfo: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
            // SAFETY: the function manager calls with a valid fcinfo that outlives the call.
            let call = unsafe { $crate::pg::fmgr::Call::new(fcinfo) };
            let result: Result<_, $crate::error::Error> = $crate::pg::reserve::with_reserve(|| $body(&call));
            call.answer($crate::error::or_report(result))
        }
    };
}
pub(crate) use sql_function;

/// One call of a function from SQL.
pub(crate) struct Call {
    fcinfo: pg_sys::FunctionCallInfo,
}

impl Call {
    /// # Safety
    /// `fcinfo` is the one the function manager passed to the running function.
    pub(crate) unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Call {
        Call { fcinfo }
    }

    /// Argument `index` (from 0); `None` for NULL and for an argument that was not passed.
    ///
    /// `T` must be the Rust side of the argument's declared SQL type.
    pub(crate) fn argument<T: FromDatum>(&self, index: usize) -> Option<T> {
        // SAFETY: fcinfo is valid for the call; the index is checked against the number of arguments passed.
        unsafe {
            if index >= usize::try_from((*self.fcinfo).nargs).unwrap_or(0) {
                return None;
            }
            let argument = *(*self.fcinfo).args.as_ptr().add(index);
            T::from_datum(argument.value, argument.isnull)
        }
    }

    /// The node that says in which role the function was called (trigger, event trigger), or null.
    pub(crate) fn context(&self) -> *mut pg_sys::Node {
        // SAFETY: fcinfo is valid for the call.
        unsafe { (*self.fcinfo).context }
    }

    /// Turns the result of the body into what the function manager expects.
    pub(crate) fn answer<T: Answer>(&self, value: T) -> pg_sys::Datum {
        let datum = value.into_answer();
        // SAFETY: fcinfo is valid for the call.
        unsafe { (*self.fcinfo).isnull = datum.is_none() };
        datum.unwrap_or(pg_sys::Datum::null())
    }

    /// Begins a result of many rows, kept in a tuple store that spills to disk beyond `work_mem`.
    pub(crate) fn rows(&self) -> Rows {
        // SAFETY: fcinfo is valid; raises an error when the caller cannot take a set.
        unsafe { pg_sys::InitMaterializedSRF(self.fcinfo, 0) };
        // SAFETY: InitMaterializedSRF has just set resultinfo, setResult and setDesc; they outlive the call.
        let info = unsafe { &*(*self.fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>() };
        Rows { store: info.setResult, desc: info.setDesc }
    }
}

/// What a function body may give.
pub(crate) trait Answer {
    /// The datum, or `None` for NULL.
    fn into_answer(self) -> Option<pg_sys::Datum>;
}

impl Answer for () {
    fn into_answer(self) -> Option<pg_sys::Datum> {
        None
    }
}

impl Answer for i64 {
    fn into_answer(self) -> Option<pg_sys::Datum> {
        self.into_datum()
    }
}

impl Answer for bool {
    fn into_answer(self) -> Option<pg_sys::Datum> {
        self.into_datum()
    }
}

impl Answer for Option<i64> {
    fn into_answer(self) -> Option<pg_sys::Datum> {
        self.and_then(IntoDatum::into_datum)
    }
}

impl Answer for Option<String> {
    fn into_answer(self) -> Option<pg_sys::Datum> {
        self.and_then(IntoDatum::into_datum)
    }
}

/// What a trigger function gives: the row it was called for.
pub(crate) struct TriggerAnswer(pub(super) pg_sys::Datum);

impl Answer for TriggerAnswer {
    // A trigger function must not set isnull, even where it gives no row (trigger.c, ExecCallTriggerFunc).
    fn into_answer(self) -> Option<pg_sys::Datum> {
        Some(self.0)
    }
}

/// A growing result of many rows.
pub(crate) struct Rows {
    store: *mut pg_sys::Tuplestorestate,
    desc: pg_sys::TupleDesc,
}

impl Rows {
    /// Adds a row; `None` is NULL. The number and types of the values must be those of the declared result.
    pub(crate) fn push<const N: usize>(&mut self, values: [Option<pg_sys::Datum>; N]) {
        // SAFETY: the descriptor lives as long as the call; asserted below to have N columns.
        assert_eq!(unsafe { (*self.desc).natts } as usize, N, "row width of the declared result");
        let mut datums = values.map(|value| value.unwrap_or(pg_sys::Datum::null()));
        let mut nulls = values.map(|value| value.is_none());
        // SAFETY: both arrays have natts elements; the store copies the row.
        unsafe {
            pg_sys::tuplestore_putvalues(self.store, self.desc, datums.as_mut_ptr(), nulls.as_mut_ptr());
        }
    }
}

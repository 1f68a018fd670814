//! Memory that is kept back for the moment when there is none.
//!
//! An error of the server that passes our frames is copied on its way, into the memory context of whoever called the server (pgrx, `pg_guard_ffi_boundary`). When it says that there is no
//! memory, not even for that, the copying fails as well, again and again, until the server gives itself up (elog.c, ERRORDATA_STACK_SIZE). So a little is kept back,
//! and given free while such an error is being raised.

use std::cell::RefCell;
use std::ffi::c_void;

use super::process::ProcessLocal;
use pgrx::PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY;
use pgrx::pg_sys;

/// A memory context grows by blocks of 1 MB or more where it can; twice that, and some for what is written of the error.
const BYTES: usize = 4 << 20;

static KEPT: ProcessLocal<RefCell<Vec<u8>>> = ProcessLocal::new(RefCell::new(Vec::new()));

/// Runs `body` with memory kept back for its errors.
pub(crate) fn with_reserve<R>(body: impl FnOnce() -> R) -> R {
    KEPT.with_borrow_mut(|kept| {
        if kept.capacity() == 0 {
            // Where there is none left, things are as they would be without.
            let _ = kept.try_reserve_exact(BYTES);
        }
    });
    // SAFETY: a variable of this single-threaded process.
    let previous = unsafe { pg_sys::error_context_stack };
    let mut node = pg_sys::ErrorContextCallback { previous, callback: Some(give_free), arg: std::ptr::null_mut() };
    // SAFETY: the node is taken off again before this frame ends, whichever way that is: errors unwind through here.
    unsafe { pg_sys::error_context_stack = &raw mut node };
    let _listening = Listening { previous };
    body()
}

/// Takes our node off the stack of those who are called while an error is raised.
struct Listening {
    previous: *mut pg_sys::ErrorContextCallback,
}

impl Drop for Listening {
    fn drop(&mut self) {
        // SAFETY: puts back what was found; nodes above ours belong to frames that are gone.
        unsafe { pg_sys::error_context_stack = self.previous }
    }
}

/// Called by the server for each message that is raised below us, before anybody copies it.
unsafe extern "C-unwind" fn give_free(_arg: *mut c_void) {
    // SAFETY: asks for the message that is being raised.
    if unsafe { pg_sys::geterrcode() } == ERRCODE_OUT_OF_MEMORY as core::ffi::c_int {
        drop(KEPT.take());
    }
}

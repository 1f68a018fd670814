//! Thin safe wrappers over the server's C interface.
//!
//! The only home of hand-written `unsafe` and of differences between major versions. Nothing here knows what an entry is.
//!
//! Two rules keep it sound. Every call into the server goes through pgrx's guarded bindings (or through the guarded declarations in
//! `server`), so an `ERROR` arrives in Rust as a panic and destructors run; without a guard are only functions that raise none, and they are declared in `server` too. And no `RefCell` is borrowed across such a call, because
//! the server may call back into us (invalidation, end of transaction) from inside of it.

pub(crate) mod attempt;
pub(crate) mod catalog;
pub(crate) mod compat;
pub(crate) mod datum;
pub(crate) mod event_trigger;
pub(crate) mod file;
pub(crate) mod fmgr;
mod heap;
pub(crate) mod hooks;
pub(crate) mod ids;
pub(crate) mod lock;
pub(crate) mod memory;
pub(crate) mod output;
pub(crate) mod parallel;
pub(crate) mod process;
pub(crate) mod relation;
pub(crate) mod reserve;
pub(crate) mod scan;
mod server;
pub(crate) mod session;
pub(crate) mod setting;
pub(crate) mod sha256;
pub(crate) mod shared;
mod symbols;
pub(crate) mod trigger;
pub(crate) mod tuple;
pub(crate) mod worker;
pub(crate) mod xact;

/// Whether an error of the server, or a panic, is unwinding the stack. Destructors then leave open what the end of the transaction or savepoint closes: they could fail, as the server may have been interrupted
/// with another resource owner current than the one under which things were opened, and a second error on the way of the first ends the process.
fn error_is_on_its_way() -> bool {
    std::thread::panicking()
}

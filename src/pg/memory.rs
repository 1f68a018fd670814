//! A memory context of our own: what the server allocates inside is freed when it is reset or dropped.

use pgrx::pg_sys;

/// A memory context that is deleted when dropped.
pub(crate) struct Scratch {
    context: pg_sys::MemoryContext,
}

impl Scratch {
    /// A context below the current one, for the length of one function call.
    pub(crate) fn new() -> Scratch {
        // SAFETY: CurrentMemoryContext is always valid in a backend.
        Scratch::below(unsafe { pg_sys::CurrentMemoryContext })
    }

    /// A context that lives until it is dropped, across transactions.
    pub(crate) fn long_lived() -> Scratch {
        // SAFETY: CacheMemoryContext is created before the first transaction and never deleted.
        Scratch::below(unsafe { pg_sys::CacheMemoryContext })
    }

    fn below(parent: pg_sys::MemoryContext) -> Scratch {
        // SAFETY: parent is valid; the name is a static string, as AllocSetContextCreate demands; sizes are ALLOCSET_DEFAULT_SIZES.
        let context = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                parent,
                c"audit".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as pg_sys::Size,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as pg_sys::Size,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as pg_sys::Size,
            )
        };
        Scratch { context }
    }

    /// The context, for functions that take one.
    pub(crate) fn as_ptr(&self) -> pg_sys::MemoryContext {
        self.context
    }

    /// Runs `body` with this context as the current one.
    pub(crate) fn within<R>(&self, body: impl FnOnce() -> R) -> R {
        let _restore = SwitchedTo::new(self.context);
        body()
    }

    /// Frees all that was allocated in the context.
    pub(crate) fn reset(&self) {
        // SAFETY: the context is live until Drop, and callers hold no pointer into it across a reset. Where nothing was allocated the server would do nothing either.
        unsafe {
            if !(*self.context).isReset || !(*self.context).firstchild.is_null() {
                pg_sys::MemoryContextReset(self.context);
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: created by us, deleted once. After an error the server deletes parents only when the transaction is cleaned
        // up, which is after our frames have unwound.
        unsafe { pg_sys::MemoryContextDelete(self.context) }
    }
}

/// Makes a memory context the current one and restores the former when dropped, on errors too.
struct SwitchedTo {
    former: pg_sys::MemoryContext,
}

impl SwitchedTo {
    fn new(context: pg_sys::MemoryContext) -> SwitchedTo {
        // SAFETY: the context is live for the life of the Scratch that owns it.
        SwitchedTo { former: unsafe { pg_sys::MemoryContextSwitchTo(context) } }
    }
}

impl Drop for SwitchedTo {
    fn drop(&mut self) {
        // SAFETY: the former context was current when this frame was entered and outlives it.
        unsafe {
            pg_sys::MemoryContextSwitchTo(self.former);
        }
    }
}

//! Variables of the process.
//!
//! What a backend keeps, it keeps to its end. Variables of the thread (`thread_local!`) do not do for that: here and there the server ends a process with `exit()`, autovacuum without a postmaster for one. Then the C
//! library drops them first, and the server rolls back the transaction after that and calls us. Besides, each look at one is a call of a function.

use std::cell::RefCell;
use std::ops::Deref;

/// A variable of this process. Never dropped: at its end the server has put away what it may hold.
pub(crate) struct ProcessLocal<T>(T);

// SAFETY: a process of the server has one thread, and this library starts none. So whatever its type, the variable is never shared.
unsafe impl<T> Sync for ProcessLocal<T> {}

impl<T> ProcessLocal<T> {
    pub(crate) const fn new(value: T) -> ProcessLocal<T> {
        ProcessLocal(value)
    }
}

impl<T> Deref for ProcessLocal<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> ProcessLocal<RefCell<T>> {
    /// Lets `look` look at the value.
    pub(crate) fn with_borrow<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.0.borrow())
    }

    /// Lets `change` change the value. Nobody may look at it meanwhile: nothing of the server that could call us is called there.
    pub(crate) fn with_borrow_mut<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.0.borrow_mut())
    }

    /// Puts another value in place of the one that is there.
    pub(crate) fn set(&self, value: T) {
        drop(self.0.replace(value));
    }
}

//! Locks of our own in the server's lock manager.
//!
//! They are advisory locks with a fourth field that `pg_advisory_lock` can never set (it uses 1 and 2), so no role can take one
//! through SQL; `pg_locks` shows them with `objsubid` 44516. Held to the end of the transaction, they survive PREPARE TRANSACTION and a
//! restart with it, and the server releases them whatever happens. (storage/lock.h, lockfuncs.c)

use pgrx::pg_sys;

use super::compat;

/// Fourth field of our lock tags.
const AUDIT: u16 = 0xADE4;

/// What can be locked.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// The right to append to a chain.
    Chain(u32),
    /// The right to change what the ledger is: its creation, its incarnation, the set of protected tables.
    Ledger,
    /// The right to seal.
    Seal,
}

/// Locks the target exclusively to the end of the transaction if it is free; says whether it did. Never waits.
pub(crate) fn try_lock(target: Target) -> bool {
    acquire(target, true)
}

/// Locks the target exclusively to the end of the transaction; waits for it, subject to `lock_timeout` and deadlock detection.
pub(crate) fn lock(target: Target) {
    acquire(target, false);
}

/// Locks a relation as a reader does, to the end of the transaction, if nobody has locked it against readers; says whether it did. Never waits.
pub(crate) fn try_lock_to_read(relation: pg_sys::Oid) -> bool {
    // SAFETY: by value.
    unsafe { pg_sys::ConditionalLockRelationOid(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE) }
}

/// Whether nobody wants the current database for himself, to drop, rename, move or copy it. If so, whoever wants to has to wait to the end of this transaction.
/// The same lock that a process takes when it connects (postinit.c), so that those wait for us here and not until they give up.
pub(crate) fn try_lock_database() -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: 0,
        locktag_field2: pg_sys::DatabaseRelationId.to_u32(),
        // SAFETY: a plain integer, fixed once a backend is connected.
        locktag_field3: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // SAFETY: the tag is fully set and outlives the call; the lock ends with the transaction.
    let result = unsafe { pg_sys::LockAcquire(&tag, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE, false, true) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Whether this transaction holds a lock on a relation of this database that keeps its definition from changing.
pub(crate) fn holds_definition(relation: pg_sys::Oid) -> bool {
    let tag = pg_sys::LOCKTAG {
        // SAFETY: a plain integer, fixed once a backend is connected.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: relation.to_u32(),
        locktag_field3: 0,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_RELATION as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    compat::holds_lock(&tag, pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE)
}

fn acquire(target: Target, dont_wait: bool) -> bool {
    let (class, number) = match target {
        Target::Chain(number) => (0, number),
        Target::Ledger => (1, 0),
        Target::Seal => (2, 0),
    };
    let tag = pg_sys::LOCKTAG {
        // SAFETY: a plain integer, fixed once a backend is connected.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: class,
        locktag_field3: number,
        locktag_field4: AUDIT,
        locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    };
    // A lock belongs to the resource owner that is current; ours must outlive a savepoint that is rolled back.
    let _owner = TopOwner::new();
    // SAFETY: the tag is fully set and outlives the call.
    let result = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, false, dont_wait) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Makes the transaction's resource owner the current one while it lives.
struct TopOwner {
    former: pg_sys::ResourceOwner,
}

impl TopOwner {
    fn new() -> TopOwner {
        // SAFETY: both are valid inside a transaction, and only code inside a transaction locks.
        unsafe {
            let former = pg_sys::CurrentResourceOwner;
            pg_sys::CurrentResourceOwner = pg_sys::TopTransactionResourceOwner;
            TopOwner { former }
        }
    }
}

impl Drop for TopOwner {
    fn drop(&mut self) {
        // SAFETY: the owner that was current before; it outlives this frame.
        unsafe { pg_sys::CurrentResourceOwner = self.former }
    }
}

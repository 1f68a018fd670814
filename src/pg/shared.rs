//! What the processes of a preloaded library share: what the sealers do, database by database. Nothing durable is kept here.

use std::cell::Cell;

use pgrx::{PGRXSharedMemory, PgLwLock, pg_guard, pg_sys};

use super::ids;
use super::process::ProcessLocal;

/// Most databases with a sealer at once, and so most background processes of ours.
const SLOTS: usize = 128;

/// Bytes of a message that are kept.
const MESSAGE: usize = 240;

/// How a sealer ended, or that it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It runs, or it ended without a word: after an error.
    Failed,
    /// The database does not hold the extension.
    Absent,
    /// It made way for somebody who wants the database for himself, or begins anew with changed settings.
    MadeWay,
}

/// The last run of `audit.checkpoint_command`.
#[derive(Clone, Copy)]
pub(crate) struct Delivery {
    /// When it ended.
    pub(crate) at: pg_sys::TimestampTz,
    pub(crate) succeeded: bool,
    /// Size of the tree of the checkpoint.
    pub(crate) size: u64,
    message: [u8; MESSAGE],
    length: usize,
}

impl Delivery {
    pub(crate) fn new(at: pg_sys::TimestampTz, succeeded: bool, size: u64, message: &str) -> Delivery {
        let mut length = message.len().min(MESSAGE);
        while !message.is_char_boundary(length) {
            length -= 1;
        }
        let mut bytes = [0; MESSAGE];
        bytes[..length].copy_from_slice(&message.as_bytes()[..length]);
        Delivery { at, succeeded, size, message: bytes, length }
    }

    /// How it ended, in words.
    pub(crate) fn message(&self) -> String {
        String::from_utf8_lossy(&self.message[..self.length.min(MESSAGE)]).into_owned()
    }
}

/// What is known of the sealer of one database.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    database: u32,
    /// Its process, 0 when it does not run.
    pub(crate) pid: i32,
    outcome: Outcome,
    pub(crate) delivery: Option<Delivery>,
}

#[derive(Clone, Copy)]
struct Sealers {
    slots: [Option<Slot>; SLOTS],
}

// SAFETY: plain data without pointers.
unsafe impl PGRXSharedMemory for Sealers {}

impl Default for Sealers {
    fn default() -> Sealers {
        Sealers { slots: [None; SLOTS] }
    }
}

impl Sealers {
    fn slot(&mut self, database: pg_sys::Oid) -> Option<&mut Slot> {
        self.slots.iter_mut().flatten().find(|slot| slot.database == database.to_u32())
    }
}

// SAFETY: the name is ours alone.
static SEALERS: PgLwLock<Sealers> = unsafe { PgLwLock::new(c"audit sealers") };

/// Set in the first process of the server, and inherited by all others.
static PRELOADED: ProcessLocal<Cell<bool>> = ProcessLocal::new(Cell::new(false));

/// Asks for the memory. Called while `shared_preload_libraries` are loaded, and only then.
#[expect(unexpected_cfgs, reason = "the macro of pgrx asks for majors that we do not have")]
pub(crate) fn request() {
    pgrx::pg_shmem_init!(SEALERS);
    ids::request();
    PRELOADED.set(true);
}

/// Whether the library was loaded at server start: only then is there a sealer, and anything here.
pub(crate) fn is_preloaded() -> bool {
    PRELOADED.get()
}

/// What is known of the sealer of a database.
pub(crate) fn slot(database: pg_sys::Oid) -> Option<Slot> {
    SEALERS.share().slots.iter().flatten().find(|slot| slot.database == database.to_u32()).copied()
}

/// Makes room for a sealer that is about to start; false when there is none.
pub(crate) fn prepare(database: pg_sys::Oid) -> bool {
    let mut sealers = SEALERS.exclusive();
    if let Some(slot) = sealers.slot(database) {
        slot.outcome = Outcome::Failed;
        return true;
    }
    let new = Slot { database: database.to_u32(), pid: 0, outcome: Outcome::Failed, delivery: None };
    match sealers.slots.iter_mut().find(|slot| slot.is_none()) {
        Some(free) => {
            *free = Some(new);
            true
        }
        None => false,
    }
}

/// Notes that this process is the sealer of a database.
pub(crate) fn begin(database: pg_sys::Oid, pid: i32) {
    if let Some(slot) = SEALERS.exclusive().slot(database) {
        slot.pid = pid;
    }
}

/// Notes how the sealer of a database ends.
pub(crate) fn end(database: pg_sys::Oid, outcome: Outcome) {
    if let Some(slot) = SEALERS.exclusive().slot(database) {
        slot.outcome = outcome;
    }
}

/// Notes a run of `audit.checkpoint_command`.
pub(crate) fn deliver(database: pg_sys::Oid, delivery: Delivery) {
    if let Some(slot) = SEALERS.exclusive().slot(database) {
        slot.delivery = Some(delivery);
    }
}

/// After a sealer has stopped: how it ended. Unless it is to come back, its place is free again.
pub(crate) fn stopped(database: pg_sys::Oid) -> Outcome {
    let mut sealers = SEALERS.exclusive();
    let Some(slot) = sealers.slot(database) else { return Outcome::Failed };
    slot.pid = 0;
    let outcome = slot.outcome;
    if outcome == Outcome::Absent {
        forget(&mut sealers, database);
    }
    outcome
}

/// Frees the place of a database that is gone.
pub(crate) fn remove(database: pg_sys::Oid) {
    forget(&mut SEALERS.exclusive(), database);
}

fn forget(sealers: &mut Sealers, database: pg_sys::Oid) {
    for slot in &mut sealers.slots {
        if slot.is_some_and(|slot| slot.database == database.to_u32()) {
            *slot = None;
        }
    }
}

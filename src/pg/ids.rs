//! Ids of entries: the values of their sequence, handed out one by one from shared memory.
//!
//! `nextval` opens the sequence, locks it and looks for its page, each time anew. So where the library is preloaded, whoever finds the run of ids used up draws the next one from the
//! sequence, and everybody takes one id at a time from it. They are handed out in the order in which they are asked for, by whomever, exactly as by the sequence itself. What is
//! left of a run at a restart is never used: gaps mean nothing. A crash cannot bring an id back: the record of the sequence lies before that of any commit that uses it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pgrx::{PGRXSharedMemory, PgAtomic, PgLwLock, pg_guard, pg_sys};

use super::process::ProcessLocal;
use super::server;
use super::session;
use super::shared;

/// Ids drawn at once.
const RUN: u64 = 64;

/// Most sequences with a place here; any more are asked directly. A place is never given away, so that whoever found none never meets somebody who has one.
const PLACES: usize = 256;

/// The run of one sequence: `next` to `end`, `end` excluded.
#[derive(Default)]
#[repr(align(64))]
struct Place {
    database: AtomicU32,
    sequence: AtomicU32,
    next: AtomicU64,
    end: AtomicU64,
}

struct Places([Place; PLACES]);

impl Default for Places {
    fn default() -> Places {
        Places(std::array::from_fn(|_| Place::default()))
    }
}

// SAFETY: atomics without pointers.
unsafe impl PGRXSharedMemory for Places {}

// SAFETY: the name is ours alone.
static PLACES_OF_RUNS: PgAtomic<Places> = unsafe { PgAtomic::new(c"audit ids") };
/// Held to claim a place and to publish a run.
// SAFETY: the name is ours alone.
static RUNS: PgLwLock<u8> = unsafe { PgLwLock::new(c"audit id runs") };

/// The place that was found last.
static KNOWN: ProcessLocal<Cell<Option<(pg_sys::Oid, &'static Place)>>> = ProcessLocal::new(Cell::new(None));

/// Asks for the memory. Called while `shared_preload_libraries` are loaded, and only then.
pub(super) fn request() {
    places();
    runs();
}

// The macro makes functions of fixed names, so each has a function around it.
#[expect(unexpected_cfgs, reason = "the macro of pgrx asks for majors that we do not have")]
fn places() {
    pgrx::pg_shmem_init!(PLACES_OF_RUNS);
}

#[expect(unexpected_cfgs, reason = "the macro of pgrx asks for majors that we do not have")]
fn runs() {
    pgrx::pg_shmem_init!(RUNS);
}

/// The next id of a sequence of the current database; nobody needs a right on it. An error when it is used up.
pub(crate) fn next(sequence: pg_sys::Oid) -> i64 {
    let Some(place) = place(sequence) else { return draw(sequence) };
    loop {
        if let Some(id) = place.take() {
            return id;
        }
        place.refill(sequence);
    }
}

/// Moves a sequence past `id`, step by step.
pub(crate) fn skip(sequence: pg_sys::Oid, id: i64) {
    while draw(sequence) < id {
        pgrx::check_for_interrupts!();
    }
    if let Some(place) = place(sequence) {
        let _held = RUNS.exclusive();
        place.end.store(0, Ordering::SeqCst);
    }
}

fn draw(sequence: pg_sys::Oid) -> i64 {
    // SAFETY: by value; raises an error when it is not a sequence or is used up.
    unsafe { server::next_value(sequence) }
}

/// The place of a sequence, claimed now if it has none; `None` where all are taken, or nothing is shared.
fn place(sequence: pg_sys::Oid) -> Option<&'static Place> {
    if let Some((known, place)) = KNOWN.get()
        && known == sequence
    {
        return Some(place);
    }
    if !shared::is_preloaded() {
        return None;
    }
    let place = find(session::database().to_u32(), sequence.to_u32())?;
    KNOWN.set(Some((sequence, place)));
    Some(place)
}

fn find(database: u32, sequence: u32) -> Option<&'static Place> {
    let _held = RUNS.exclusive();
    let places = &PLACES_OF_RUNS.get().0;
    let key = |place: &Place| (place.database.load(Ordering::Relaxed), place.sequence.load(Ordering::Relaxed));
    let place = places.iter().find(|place| [(database, sequence), (0, 0)].contains(&key(place)))?;
    place.database.store(database, Ordering::Relaxed);
    place.sequence.store(sequence, Ordering::Relaxed);
    Some(place)
}

impl Place {
    /// Takes an id, if there is one left. An id that was in the run when `next` was read and still is when it is raised belongs to whoever raised it.
    fn take(&self) -> Option<i64> {
        loop {
            let end = self.end.load(Ordering::SeqCst);
            let next = self.next.load(Ordering::SeqCst);
            if next >= end {
                return None;
            }
            if self.next.compare_exchange(next, next + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return i64::try_from(next).ok();
            }
        }
    }

    /// Draws a run and makes it the one to take from, unless somebody else just did.
    fn refill(&self, sequence: pg_sys::Oid) {
        // The first without the lock: it may have to wait for somebody who holds the sequence. From here on this transaction has the sequence locked, and never waits for it.
        let early = draw(sequence);
        let _held = RUNS.exclusive();
        if self.next.load(Ordering::SeqCst) < self.end.load(Ordering::SeqCst) {
            return;
        }
        let mut first = draw(sequence);
        let mut last = first;
        if early.checked_add(1) == Some(first) {
            // Nobody has drawn one in between.
            first = early;
        }
        while ((last - first + 1) as u64) < RUN {
            let id = draw(sequence);
            if last.checked_add(1) != Some(id) {
                break;
            }
            last = id;
        }
        self.publish(first as u64, last as u64 + 1);
    }

    fn publish(&self, first: u64, end: u64) {
        self.end.store(0, Ordering::SeqCst);
        self.next.store(first, Ordering::SeqCst);
        self.end.store(end, Ordering::SeqCst);
    }
}

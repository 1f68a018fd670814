//! Ids of entries: from their sequence, handed out one by one from shared memory.
//!
//! `nextval` opens the sequence, locks it and looks for its page, each time anew. So each value of the sequence stands for a run of ids: 1 for 1 to 64, 2 for 65 to 128. Where the library
//! is preloaded, whoever finds the run used up draws the next one, and everybody takes one id at a time from it: in the order in which they are asked for, by whomever, exactly as from a
//! sequence. Elsewhere the first id of each run is taken, and no other. What is left of a run at a restart is never used: gaps mean nothing. A crash cannot bring an id back: the record
//! of the sequence lies before that of any commit that uses it. By how much the sequence advances does not matter: runs of different values have no id in common.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pgrx::{PGRXSharedMemory, PgAtomic, PgLwLock, pg_guard, pg_sys};

use super::process::ProcessLocal;
use super::server;
use super::session;
use super::shared;
use crate::error::{Error, or_report};

/// Ids that a value of the sequence stands for.
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

/// The next id of a sequence of the current database, from 1 to 2^63 - 1; nobody needs a right on it. An error, 2200H, when it is used up.
pub(crate) fn next(sequence: pg_sys::Oid) -> i64 {
    let id = match place(sequence) {
        None => draw(sequence),
        Some(place) => loop {
            if let Some(id) = place.take() {
                break id;
            }
            place.refill(sequence);
        },
    };
    id as i64
}

/// Makes all ids that come higher than `id`. Where they are shared it is noted, and the sequence follows when the next run is drawn; else it is moved there, step by step: nobody needs a right for that.
pub(crate) fn skip(sequence: pg_sys::Oid, id: i64) {
    let id = id as u64;
    match place(sequence) {
        None => {
            while draw(sequence) < id {
                pgrx::check_for_interrupts!();
            }
        }
        Some(place) => {
            let _held = RUNS.exclusive();
            if place.next.load(Ordering::SeqCst) <= id {
                place.publish(id + 1, 0);
            }
        }
    }
}

/// Draws a run, and returns its first id. An error when the sequence is used up.
fn draw(sequence: pg_sys::Oid) -> u64 {
    // SAFETY: by value; raises an error when it is not a sequence or is used up.
    let value = unsafe { server::next_value(sequence) };
    or_report(first_of_run(value).ok_or(Error::IdsUsedUp { value }))
}

/// The first id of the run that a value of the sequence stands for, if the whole run is among the numbers that an id can have.
fn first_of_run(value: i64) -> Option<u64> {
    const LAST: u64 = i64::MAX as u64 / RUN;
    let value = u64::try_from(value).ok().filter(|value| (1..=LAST).contains(value))?;
    Some((value - 1) * RUN + 1)
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
    fn take(&self) -> Option<u64> {
        loop {
            let end = self.end.load(Ordering::SeqCst);
            let next = self.next.load(Ordering::SeqCst);
            if next >= end {
                return None;
            }
            if self.next.compare_exchange(next, next + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return Some(next);
            }
        }
    }

    /// Draws runs until there is one beyond all ids that were taken, and makes it the one to take from, or adds it to the one that somebody else has made so just now.
    fn refill(&self, sequence: pg_sys::Oid) {
        loop {
            // Without the lock: it may have to wait for somebody who holds the sequence.
            let first = draw(sequence);
            let held = RUNS.exclusive();
            let (next, end) = (self.next.load(Ordering::SeqCst), self.end.load(Ordering::SeqCst));
            if next < end {
                if first == end {
                    self.end.store(end + RUN, Ordering::SeqCst);
                }
                return;
            }
            if first >= next {
                self.publish(first, first + RUN);
                return;
            }
            // Later runs were used up meanwhile, or somebody has set the sequence back.
            drop(held);
            pgrx::check_for_interrupts!();
        }
    }

    /// Makes another run the one to take from; `first` is never below `next`.
    fn publish(&self, first: u64, end: u64) {
        self.end.store(0, Ordering::SeqCst);
        self.next.store(first, Ordering::SeqCst);
        self.end.store(end, Ordering::SeqCst);
    }
}

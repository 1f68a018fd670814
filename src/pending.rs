//! Entries of this transaction that are linked already, but not in the table yet.
//!
//! Rows written together cost a fraction of rows written one by one: one record of the write-ahead log and one visit for each page instead of
//! each row. So entries wait here until the transaction is about to commit or to be prepared, until there are too many of them, or until somebody in
//! this transaction is about to read the log (`pg::hooks`, [`Log::open`]). Nobody else could have seen them earlier. See docs/design/0005-write-buffer.md.
//!
//! An entry belongs to the savepoint level that made it. The server writes rows in the name of the current level only; where entries of outer levels
//! are written by an inner one, they are kept until that level has ended well, and wait again if it is rolled back.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};

use crate::error::Error;
use crate::log::Log;
use crate::pg::process::ProcessLocal;
use crate::pg::scan::NominalSnapshot;
use crate::pg::tuple::Formed;
use crate::pg::xact;
use crate::registry::Objects;
use crate::session_cache;

/// Entries are written when they are so many, or so large together.
const MOST_ENTRIES: usize = 512;
const MOST_BYTES: usize = 256 << 10;

struct Pending {
    row: Formed,
    /// The savepoint level it belongs to.
    level: u32,
    /// The command of the transaction that made it: what was begun before does not see it.
    command: u32,
}

impl Borrow<Formed> for Pending {
    fn borrow(&self) -> &Formed {
        &self.row
    }
}

#[derive(Default)]
struct State {
    waiting: Vec<Pending>,
    bytes: usize,
    /// Written by an inner savepoint level, with that level.
    lent: Vec<(u32, Pending)>,
}

static STATE: ProcessLocal<RefCell<State>> =
    ProcessLocal::new(RefCell::new(State { waiting: Vec::new(), bytes: 0, lent: Vec::new() }));
/// Whether anything waits, for those who ask before every statement.
static WAITING: ProcessLocal<Cell<bool>> = ProcessLocal::new(Cell::new(false));
/// Whether the transaction is past the point at which what waits is written for the last time.
static CLOSING: ProcessLocal<Cell<bool>> = ProcessLocal::new(Cell::new(false));

/// Adds an entry's row.
pub(crate) fn add(objects: &Objects, row: Formed) -> Result<(), Error> {
    let bytes = row.size();
    let pending = Pending { row, level: xact::subtransaction(), command: xact::used_command() };
    WAITING.set(true);
    let full = STATE.with_borrow_mut(|state| {
        state.bytes += bytes;
        state.waiting.push(pending);
        state.waiting.len() >= MOST_ENTRIES || state.bytes >= MOST_BYTES
    });
    if full || CLOSING.get() { flush(objects) } else { Ok(()) }
}

/// Writes what waits, so that a command begun from here on sees it.
pub(crate) fn flush(objects: &Objects) -> Result<(), Error> {
    if !is_empty() {
        write(&Log::open_to_append(objects)?, Commands::Each);
    }
    Ok(())
}

/// Writes what waits for the last time: from here on entries are written at once.
pub(crate) fn close() -> Result<(), Error> {
    if !is_empty() {
        let objects = session_cache::objects()?;
        write(&Log::open_to_append(&objects)?, Commands::Last);
    }
    CLOSING.set(true);
    Ok(())
}

/// Whether nothing waits.
pub(crate) fn is_empty() -> bool {
    !WAITING.get()
}

/// In the name of which command rows are written.
enum Commands {
    /// That which made each of them.
    Each,
    /// The last one, all at once: nobody reads any more.
    Last,
}

fn write(log: &Log, commands: Commands) {
    let batch = Batch::take();
    let rows = &batch.rows;
    let _snapshot = NominalSnapshot::where_none();
    match commands {
        Commands::Each => {
            log.append(rows.chunk_by(|left, right| left.command == right.command).map(|run| (run, run[0].command)));
        }
        Commands::Last => {
            let last = rows.iter().map(|row| row.command).max().unwrap_or(0);
            log.append(std::iter::once((rows.as_slice(), last)));
        }
    }
    batch.written();
}

/// Rows on their way into the table. Dropped by an error they wait again: which of them are gone with their savepoint level is seen when it ends.
struct Batch {
    rows: Vec<Pending>,
    bytes: usize,
}

impl Batch {
    fn take() -> Batch {
        WAITING.set(false);
        STATE.with_borrow_mut(|state| Batch {
            rows: std::mem::take(&mut state.waiting),
            bytes: std::mem::take(&mut state.bytes),
        })
    }

    fn written(mut self) {
        let level = xact::subtransaction();
        let mut rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        STATE.with_borrow_mut(|state| {
            for row in rows.extract_if(.., |row| row.level != level) {
                state.lent.push((level, row));
            }
        });
        // What is dropped here frees memory of the server, outside of the borrow; the vector is used again.
        rows.clear();
        STATE.with_borrow_mut(|state| {
            if state.waiting.is_empty() {
                state.waiting = rows;
            }
        });
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        if self.rows.is_empty() {
            return;
        }
        WAITING.set(true);
        STATE.with_borrow_mut(|state| {
            state.bytes += self.bytes;
            state.waiting.append(&mut self.rows);
        });
    }
}

/// A savepoint was released: what belongs to it belongs to the level above.
pub(crate) fn savepoint_released(level: u32, parent: u32) {
    let written: Vec<_> = STATE.with_borrow_mut(|state| {
        for pending in state.waiting.iter_mut().filter(|pending| pending.level == level) {
            pending.level = parent;
        }
        for (writer, _) in state.lent.iter_mut().filter(|(writer, _)| *writer == level) {
            *writer = parent;
        }
        state.lent.extract_if(.., |(writer, pending)| *writer == pending.level).collect()
    });
    drop(written);
}

/// A savepoint was rolled back: its entries are gone, and what it wrote for outer levels waits again.
pub(crate) fn savepoint_rolled_back(level: u32) {
    let gone: Vec<_> = STATE.with_borrow_mut(|state| {
        let gone = state.waiting.extract_if(.., |pending| pending.level == level).collect();
        let again: Vec<_> = state.lent.extract_if(.., |(writer, _)| *writer == level).collect();
        state.waiting.extend(again.into_iter().map(|(_, pending)| pending));
        state.bytes = state.waiting.iter().map(|pending| pending.row.size()).sum();
        WAITING.set(!state.waiting.is_empty());
        gone
    });
    drop(gone);
}

/// The transaction is over, or prepared.
pub(crate) fn end_of_transaction(committed: bool) {
    CLOSING.set(false);
    WAITING.set(false);
    // Writing was the last step before; whoever records later in the same transaction writes at once.
    let nothing_left = STATE.with_borrow(|state| state.waiting.is_empty() && state.lent.is_empty());
    debug_assert!(!committed || nothing_left);
    if !nothing_left {
        // Dropped outside of the borrow: it frees memory of the server. Where nothing is left the vectors are used again.
        drop(STATE.take());
    }
}

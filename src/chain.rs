//! Owning a chain and linking entries to it.
//!
//! A transaction that writes owns exactly one chain, from its first entry to its end. It takes the chain's lock and reads the head from the log, or goes on where this
//! backend has committed last, and keeps the head in memory from then on; savepoints that are rolled back put it back. Nobody else can append to the chain meanwhile, so it cannot fork, and the unique key of the
//! log makes an error of whatever would fork it all the same. See docs/design/0001-chains.md.

use std::borrow::Cow;
use std::cell::RefCell;

use audit_ledger::{Entry, Hash, Operation, Table};
use pgrx::pg_sys;
use uuid::Uuid;

use crate::error::Error;
use crate::log::{self, Head, Log};
use crate::pg::lock::{self, Target};
use crate::pg::process::ProcessLocal;
use crate::pg::scan::Visible;
use crate::pg::{compat, session, xact};
use crate::protect;
use crate::registry::{self, Incarnation, Objects};
use crate::render;
use crate::{pending, session_cache, settings};

/// What happened, as far as its recorder knows; the rest of the entry is the chain's.
pub(crate) struct Event<'a> {
    pub(crate) operation: Operation,
    pub(crate) command: Option<u32>,
    /// The transaction or subtransaction that stands in the row version that was written; `None` where none was: then the current one has made the change.
    pub(crate) writer: Option<u32>,
    pub(crate) table: Option<Table<'a>>,
    pub(crate) key: Option<&'a str>,
    pub(crate) old: Option<&'a str>,
    pub(crate) new: Option<&'a str>,
}

impl<'a> Event<'a> {
    /// An event about a table as a whole.
    pub(crate) fn of_table(operation: Operation, table: Table<'a>, new: Option<&'a str>) -> Event<'a> {
        Event { operation, command: None, writer: None, table: Some(table), key: None, old: None, new }
    }
}

/// Records events one after another.
pub(crate) struct Recorder<'a> {
    objects: &'a Objects,
    ledger: Uuid,
    line: Vec<u8>,
}

impl<'a> Recorder<'a> {
    /// Makes sure that this database writes to its ledger.
    pub(crate) fn open(objects: &'a Objects) -> Result<Recorder<'a>, Error> {
        let ledger = match session_cache::live_ledger() {
            Some(ledger) => ledger,
            None => registry::ledger(objects, Visible::Now)?.ok_or(Error::NoLedger)?,
        };
        let mut recorder = Recorder { objects, ledger, line: take_line() };
        recorder.ensure_live()?;
        Ok(recorder)
    }

    /// Appends an entry for the event; gives its id.
    pub(crate) fn record(&mut self, event: &Event<'_>) -> Result<i64, Error> {
        let (chain, head) = own(self.objects, &self.ledger)?;
        let id = self.next_id(head)?;
        let stored_at = session::now();
        let at = session::to_timestamp(stored_at)
            .ok_or(Error::Damaged { what: "the clock is beyond the year 9999".into() })?;
        let xid = xact::transaction_id();
        let actor = session_cache::actor();
        let context = settings::context();
        let application = session_cache::application_name();
        let entry = Entry {
            ledger: self.ledger,
            chain,
            seq: head.seq + 1,
            prev: head.hash,
            id: id as u64,
            at,
            xid,
            subxid: xact::subtransaction_id(xid, event.writer),
            command: event.command,
            operation: Cow::Borrowed(event.operation.as_str()),
            table: event.table.clone(),
            key: event.key.map(Cow::Borrowed),
            old: event.old.map(Cow::Borrowed),
            new: event.new.map(Cow::Borrowed),
            actor: audit_ledger::Actor {
                login: actor.login.as_deref().map(Cow::Borrowed),
                session: actor.session.as_deref().map(Cow::Borrowed),
                user: actor.user.as_deref().map(Cow::Borrowed),
                application: application.as_deref().map(Cow::Borrowed),
                client: actor.client.as_ref().map(|client| Cow::Borrowed(client.text.as_str())),
            },
            context: context.as_deref().map(Cow::Borrowed),
        };
        self.line.clear();
        render::reserve(&mut self.line, most_of_line(&entry))?;
        let hash = entry.hash_with(&mut self.line);
        pending::add(self.objects, log::form(self.objects, &entry, hash, stored_at, actor.client.as_deref())?)?;
        advance(Head { seq: head.seq + 1, id: id as u64, hash });
        Ok(id)
    }

    /// A fresh id. If somebody set the sequence back, it is moved forward again: ids grow along a chain.
    fn next_id(&self, head: Head) -> Result<i64, Error> {
        let id = log::next_id(self.objects);
        if u64::try_from(id).is_ok_and(|id| id > head.id) {
            return Ok(id);
        }
        // Entries that wait are not in the table yet, but before the head.
        let log = Log::open_to_append(self.objects)?;
        log.skip_ids(log.highest_id().max(head.id as i64));
        Ok(log::next_id(self.objects))
    }

    /// Makes this database the one that writes to the ledger, if it was restored from a dump and has not written yet.
    fn ensure_live(&mut self) -> Result<(), Error> {
        if session_cache::live_ledger().is_some() {
            return Ok(());
        }
        if registry::is_live(self.objects)? {
            // Not remembered by the transaction that made it so: it may yet be rolled back.
            if !has_made_live() {
                session_cache::set_live_ledger(self.ledger);
            }
            return Ok(());
        }
        lock::lock(Target::Ledger);
        if registry::is_live(self.objects)? {
            return Ok(());
        }
        let log = Log::open_to_append(self.objects)?;
        let highest = log.highest_id();
        if highest > 0 {
            // The sequence may be restored later than the first write, or not at all.
            log.skip_ids(highest);
        }
        registry::set_incarnation(self.objects, highest, &Incarnation::here())?;
        set_made_live();
        let details = protect::incarnation_details(self.objects)?;
        registry::adopt_present_ids(self.objects)?;
        xact::next_command();
        self.record(&Event {
            operation: Operation::Incarnation,
            command: None,
            writer: None,
            table: None,
            key: None,
            old: None,
            new: Some(&details),
        })?;
        Ok(())
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        give_line(std::mem::take(&mut self.line));
    }
}

/// Makes the ledger of this database if it has none. The caller may then record.
pub(crate) fn ensure_ledger(objects: &Objects) -> Result<(), Error> {
    if registry::ledger(objects, Visible::Now)?.is_some() {
        return Ok(());
    }
    lock::lock(Target::Ledger);
    if registry::ledger(objects, Visible::Now)?.is_none() {
        registry::create_ledger(objects)?;
        registry::set_incarnation(objects, 0, &Incarnation::here())?;
        set_made_live();
        xact::next_command();
    }
    Ok(())
}

/// The chain that the running transaction owns.
struct Owned {
    log: pg_sys::Oid,
    ledger: Uuid,
    chain: u32,
    /// Whether its lock was taken with it. Where it was not, nobody else can come upon the chain before this transaction is prepared.
    locked: bool,
    head: Head,
    /// For each savepoint level that has appended: the head before it did.
    saved: Vec<(u32, Head)>,
}

/// The head of a chain when this backend last committed to it.
#[derive(Clone, Copy)]
struct Known {
    /// The table that it is in: another one after the extension was made anew.
    log: pg_sys::Oid,
    ledger: Uuid,
    chain: u32,
    head: Head,
}

impl Known {
    fn is_in(&self, objects: &Objects, ledger: &Uuid) -> bool {
        (self.log, self.ledger) == (objects.log, *ledger)
    }
}

#[derive(Default)]
struct State {
    owned: Option<Owned>,
    /// The head that this backend committed last. A chain of its own goes on from there, without the lock: nobody else appends to it while the backend lives, but for a transaction that it
    /// prepares, and then it asks for the lock again, and for the head. If somebody removed or changed that entry since, the next one still names its hash, so that it shows; and if somebody forged a successor, the next one is
    /// refused by the unique key, and the head is read anew after that.
    known: Option<Known>,
    /// Whether this transaction made the ledger, or brought it to life after a restore.
    made_live: bool,
    line: Vec<u8>,
    /// Room for `saved` of the next transaction.
    room: Vec<(u32, Head)>,
}

static STATE: ProcessLocal<RefCell<State>> = ProcessLocal::new(RefCell::new(State {
    owned: None,
    known: None,
    made_live: false,
    line: Vec::new(),
    room: Vec::new(),
}));

/// A line longer than this is not kept for the next entry.
const KEPT_LINE: usize = 1 << 20;

fn take_line() -> Vec<u8> {
    STATE.with_borrow_mut(|state| std::mem::take(&mut state.line))
}

fn give_line(line: Vec<u8>) {
    if line.capacity() <= KEPT_LINE {
        STATE.with_borrow_mut(|state| state.line = line);
    }
}

fn has_made_live() -> bool {
    STATE.with_borrow(|state| state.made_live)
}

fn set_made_live() {
    STATE.with_borrow_mut(|state| state.made_live = true);
}

/// The chain of this transaction and its head, ready to be appended to at the current savepoint level.
fn own(objects: &Objects, ledger: &Uuid) -> Result<(u32, Head), Error> {
    if STATE.with_borrow(|state| state.owned.is_none()) {
        let known = STATE.with_borrow(|state| state.known).filter(|known| known.is_in(objects, ledger));
        let (chain, locked, head) = match known {
            Some(Known { chain, head, .. }) if chain > SHARED && settings::chains().is_none() => (chain, false, head),
            known => {
                let chain = lock_chain();
                let known = known.filter(|known| known.chain == chain).map_or(Head::GENESIS, |known| known.head);
                (chain, true, Log::open_to_append(objects)?.head(ledger, chain, known)?)
            }
        };
        STATE.with_borrow_mut(|state| {
            let saved = std::mem::take(&mut state.room);
            state.owned = Some(Owned { log: objects.log, ledger: *ledger, chain, locked, head, saved });
        });
    }
    let level = xact::subtransaction();
    STATE.with_borrow_mut(|state| {
        let owned = state.owned.as_mut().expect("owned since the lines above");
        if owned.saved.last().is_none_or(|(saved, _)| *saved != level) {
            owned.saved.push((level, owned.head));
        }
        Ok((owned.chain, owned.head))
    })
}

fn advance(head: Head) {
    STATE.with_borrow_mut(|state| {
        if let Some(owned) = &mut state.owned {
            owned.head = head;
        }
    });
}

/// Chains up to this number may be shared, see `audit.chains`; those beyond belong to one backend at a time.
const SHARED: u32 = settings::MOST_CHAINS as u32;

/// Locks a free chain; waits only where `audit.chains` limits their number and all are in use.
fn lock_chain() -> u32 {
    let number = compat::backend_number();
    if let Some(chains) = settings::chains() {
        let first = (number - 1) % chains;
        for step in 0..chains {
            let chain = (first + step) % chains + 1;
            if lock::try_lock(Target::Chain(chain)) {
                return chain;
            }
        }
        lock::lock(Target::Chain(first + 1));
        return first + 1;
    }
    // Its own chain is held by somebody else only if a transaction of this backend number was prepared. The others lie a whole set of backends
    // apart, so that no two backends ever try each other's.
    let stride = session::max_backends();
    let mut chain = SHARED + number;
    while !lock::try_lock(Target::Chain(chain)) {
        chain += stride;
    }
    chain
}

/// The transaction is about to be prepared: it takes the lock of its chain along.
pub(crate) fn before_prepare() {
    let unlocked =
        STATE.with_borrow(|state| state.owned.as_ref().filter(|owned| !owned.locked).map(|owned| owned.chain));
    if let Some(chain) = unlocked {
        lock::lock(Target::Chain(chain));
    }
}

/// The transaction is over, or prepared: chain and head are not this backend's any more.
pub(crate) fn end_of_transaction(committed: bool) {
    STATE.with_borrow_mut(|state| {
        state.made_live = false;
        let Some(Owned { log, ledger, chain, head, mut saved, .. }) = state.owned.take() else { return };
        saved.clear();
        state.room = saved;
        // A prepared transaction may yet commit. After an error the log is asked again.
        state.known = committed.then_some(Known { log, ledger, chain, head });
    });
}

/// A savepoint was released: what it appended belongs to the level above.
pub(crate) fn savepoint_released(level: u32, parent: u32) {
    STATE.with_borrow_mut(|state| {
        let Some(owned) = &mut state.owned else { return };
        let Some(last) = owned.saved.pop_if(|(saved, _)| *saved == level) else {
            return;
        };
        // If the level above has appended before, its own saved head is the older one.
        if owned.saved.last().is_none_or(|(saved, _)| *saved != parent) {
            owned.saved.push((parent, last.1));
        }
    });
}

/// A savepoint was rolled back: its entries are gone, and the head is what it was before them. The chain stays owned.
pub(crate) fn savepoint_rolled_back(level: u32) {
    STATE.with_borrow_mut(|state| {
        let Some(owned) = &mut state.owned else { return };
        if let Some((_, head)) = owned.saved.pop_if(|(saved, _)| *saved == level) {
            owned.head = head;
        }
    });
}

/// Room that the line of an entry needs at most.
fn most_of_line(entry: &Entry<'_>) -> usize {
    let len = |text: &Option<Cow<'_, str>>| text.as_ref().map_or(0, |text| text.len());
    let texts = [&entry.key, &entry.old, &entry.new, &entry.context].map(len).iter().sum::<usize>();
    // Names may need an escape for each of their bytes; none of them is long. The members themselves take some 600 bytes.
    let actor = &entry.actor;
    let names =
        [&actor.login, &actor.session, &actor.user, &actor.application, &actor.client].map(len).iter().sum::<usize>()
            + entry.table.as_ref().map_or(0, |table| table.schema.len() + table.name.len());
    texts + 6 * names + 1024
}

/// The hash of an entry, for tests of the log against it.
pub(crate) fn hash_of(entry: &Entry<'_>) -> Hash {
    entry.hash_with(&mut Vec::new())
}

/// A table as entries name it.
pub(crate) fn table_of<'a>(oid: pg_sys::Oid, schema: &'a str, name: &'a str) -> Table<'a> {
    Table { oid: oid.to_u32(), schema: Cow::Borrowed(schema), name: Cow::Borrowed(name) }
}

//! What a backend keeps between calls: object ids, protected tables with their encoders, names of roles.
//!
//! The server tells of changed relations through [`relation_changed`], at moments when anything may be borrowed; so it only notes
//! the object id, and the next look-up drops what the note concerns.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use pgrx::pg_sys;

use crate::error::Error;
use crate::log;
use crate::pg::process::ProcessLocal;
use crate::pg::{relation, session};
use crate::registry::Objects;
use crate::render::Table;

/// Whether STALE holds anything: asked several times for each entry.
static IS_STALE: ProcessLocal<Cell<bool>> = ProcessLocal::new(Cell::new(false));
static STALE: ProcessLocal<RefCell<Notes>> = ProcessLocal::new(RefCell::new(Notes::NONE));
/// The same, since the last DDL command of this transaction. What came before the library was loaded is not known: anything may have changed.
static TOUCHED: ProcessLocal<RefCell<Notes>> =
    ProcessLocal::new(RefCell::new(Notes { relations: Vec::new(), all: true }));
static OBJECTS: ProcessLocal<RefCell<Option<Rc<Objects>>>> = ProcessLocal::new(RefCell::new(None));
static TABLES: ProcessLocal<RefCell<BTreeMap<u32, Rc<Table>>>> = ProcessLocal::new(RefCell::new(BTreeMap::new()));
static ACTOR: ProcessLocal<RefCell<Option<Rc<Actor>>>> = ProcessLocal::new(RefCell::new(None));
static ROLES_CHANGED: ProcessLocal<Cell<bool>> = ProcessLocal::new(Cell::new(false));
/// The name as it was last, to be given again while it is the same.
static APPLICATION: ProcessLocal<RefCell<Option<Rc<str>>>> = ProcessLocal::new(RefCell::new(None));
/// Looked up once: a connection keeps its client.
static CLIENT: ProcessLocal<OnceCell<Option<Rc<session::ClientAddress>>>> = ProcessLocal::new(OnceCell::new());
/// Whether the ledger is known to be open for writing here: committed, and in its present incarnation.
static LIVE: ProcessLocal<Cell<Option<uuid::Uuid>>> = ProcessLocal::new(Cell::new(None));

/// Relations noted as changed.
pub(crate) struct Notes {
    relations: Vec<pg_sys::Oid>,
    all: bool,
}

impl Notes {
    const NONE: Notes = Notes { relations: Vec::new(), all: false };
    /// Beyond so many notes it is cheaper to take everything as changed.
    const MOST: usize = 256;

    fn add(&mut self, oid: pg_sys::Oid) {
        if oid == pg_sys::InvalidOid || self.relations.len() >= Notes::MOST {
            self.all = true;
            self.relations.clear();
        } else if !self.all && self.relations.last() != Some(&oid) {
            self.relations.push(oid);
        }
    }

    /// Notes of just these.
    pub(crate) fn of(relations: Vec<pg_sys::Oid>) -> Notes {
        Notes { relations, all: false }
    }

    /// Whether a relation may have changed.
    pub(crate) fn has(&self, oid: pg_sys::Oid) -> bool {
        self.all || self.relations.contains(&oid)
    }
}

/// Notes that a relation has changed; with an invalid object id, that any may have.
pub(crate) fn relation_changed(oid: pg_sys::Oid) {
    log::relation_changed(oid);
    note_stale(oid);
    TOUCHED.with_borrow_mut(|touched| touched.add(oid));
}

fn note_stale(oid: pg_sys::Oid) {
    IS_STALE.set(true);
    STALE.with_borrow_mut(|stale| stale.add(oid));
}

/// The relations that may have changed since this was last asked in this transaction.
pub(crate) fn take_touched() -> Notes {
    TOUCHED.with_borrow_mut(|touched| std::mem::replace(touched, Notes::NONE))
}

/// Drops what was noted as changed.
fn refresh() {
    if !IS_STALE.take() {
        return;
    }
    let Notes { relations, all } = STALE.with_borrow_mut(|stale| std::mem::replace(stale, Notes::NONE));
    if all {
        forget_all();
        return;
    }
    for oid in relations {
        let dropped = TABLES.borrow_mut().remove(&oid.to_u32());
        // Dropped outside of the borrow: it frees memory of the server.
        drop(dropped);
        if OBJECTS.with_borrow(|objects| objects.as_ref().is_some_and(|objects| objects.has(oid))) {
            forget_all();
        }
    }
}

fn forget_all() {
    let tables = TABLES.take();
    let objects = OBJECTS.take();
    LIVE.set(None);
    drop((tables, objects));
}

/// The extension's own objects.
pub(crate) fn objects() -> Result<Rc<Objects>, Error> {
    refresh();
    if let Some(objects) = OBJECTS.with_borrow(Clone::clone) {
        return Ok(objects);
    }
    let objects = Rc::new(Objects::find()?);
    OBJECTS.set(Some(objects.clone()));
    Ok(objects)
}

/// Asks the extension's own objects as far as they are known: `None` where they would have to be looked up.
pub(crate) fn known<R>(ask: impl FnOnce(&Objects) -> R) -> Option<R> {
    if IS_STALE.get() {
        return None;
    }
    OBJECTS.with_borrow(|objects| objects.as_deref().map(ask))
}

/// The protected table with this object id, made by `load` at first sight.
pub(crate) fn table(oid: pg_sys::Oid, load: impl FnOnce() -> Result<Table, Error>) -> Result<Rc<Table>, Error> {
    refresh();
    let known = TABLES.borrow().get(&oid.to_u32()).cloned();
    if let Some(table) = known {
        return Ok(table);
    }
    let table = Rc::new(load()?);
    TABLES.borrow_mut().insert(oid.to_u32(), table.clone());
    Ok(table)
}

/// The ledger, if it is known to be open for writing.
pub(crate) fn live_ledger() -> Option<uuid::Uuid> {
    refresh();
    LIVE.get()
}

/// Remembers that the ledger is open for writing.
pub(crate) fn set_live_ledger(ledger: uuid::Uuid) {
    LIVE.set(Some(ledger));
}

/// Who is making changes.
pub(crate) struct Actor {
    roles: (pg_sys::Oid, pg_sys::Oid),
    pub(crate) login: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) client: Option<Rc<session::ClientAddress>>,
}

/// Who is making changes now. Names are looked up once for a pair of roles, and again when any role was changed.
pub(crate) fn actor() -> Rc<Actor> {
    let roles = session::roles();
    if ROLES_CHANGED.take() {
        ACTOR.set(None);
    }
    if let Some(actor) = ACTOR.with_borrow(Clone::clone)
        && actor.roles == roles
    {
        return actor;
    }
    let actor = Rc::new(Actor {
        roles,
        login: session::login_name(),
        session: session::role_name(roles.0),
        user: session::role_name(roles.1),
        client: client(),
    });
    ACTOR.set(Some(actor.clone()));
    actor
}

fn client() -> Option<Rc<session::ClientAddress>> {
    if let Some(client) = CLIENT.get().cloned() {
        return client;
    }
    let client = session::client_address().map(Rc::new);
    CLIENT.get_or_init(|| client).clone()
}

/// The setting `application_name`.
pub(crate) fn application_name() -> Option<Rc<str>> {
    session::with_application_name(|name| {
        APPLICATION.with_borrow_mut(|known| match known {
            Some(known) if known.as_bytes() == name.to_bytes() => known.clone(),
            _ => known.insert(name.to_string_lossy().into()).clone(),
        })
    })
}

/// Notes that a role has changed: it may have another name.
pub(crate) fn role_changed() {
    ROLES_CHANGED.set(true);
}

/// Notes that a schema has changed: it may have another name, which tables made earlier hold.
pub(crate) fn schema_changed() {
    note_stale(pg_sys::InvalidOid);
}

/// Notes again that a relation has changed: whoever took the note could not follow the change yet.
pub(crate) fn touch_again(oid: pg_sys::Oid) {
    TOUCHED.with_borrow_mut(|touched| touched.add(oid));
}

/// Forgets what may differ in the next transaction.
pub(crate) fn end_of_transaction() {
    drop(take_touched());
}

/// Schema and name for messages: `schema.table`, or the object id of a relation that is gone.
pub(crate) fn display_name(oid: pg_sys::Oid) -> String {
    match relation::qualified_name(oid) {
        // Whose temporary schema it is says nothing to the user.
        Some((schema, name)) if schema.starts_with("pg_temp_") => format!("pg_temp.{name}"),
        Some((schema, name)) => format!("{schema}.{name}"),
        None => oid.to_u32().to_string(),
    }
}

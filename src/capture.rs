//! From a fired trigger to an event of the ledger.

use std::cell::RefCell;
use std::ffi::CStr;

use audit_ledger::Operation;

use crate::chain::{Event, Recorder, table_of};
use crate::error::Error;
use crate::pg::fmgr::{Call, TriggerAnswer};
use crate::pg::process::ProcessLocal;
use crate::pg::relation::Relation;
use crate::pg::trigger::{self, Firing, RowBuffer};
use crate::protect::{ROW_TRIGGER, TRUNCATE_TRIGGER};
use crate::registry::{self, Objects};
use crate::render::Table;
use crate::{session_cache, settings};

/// `audit.audit_row()`: records the row change that the trigger was fired for.
///
/// EXECUTE belongs to PUBLIC, because whoever creates a partition has the trigger cloned with his rights; so the function itself refuses every call that the
/// extension did not set up.
pub(crate) fn row_change(call: &Call) -> Result<TriggerAnswer, Error> {
    const NAME: &str = "audit.audit_row";
    let firing = firing(call, NAME, ROW_TRIGGER)?;
    if !firing.is_row_level() || !firing.is_after() {
        return Err(Error::TriggerProtocol { function: NAME, why: "must be fired AFTER the change, FOR EACH ROW" });
    }
    let objects = session_cache::objects()?;
    let relation = firing.relation();
    let table = protected_table(&objects, &relation)?;
    let mut texts = Texts::take();
    if let Some(operation) = texts.render(&firing, &table)? {
        Recorder::open(&objects)?.record(&Event {
            operation,
            command: Some(firing.command()),
            writer: firing.writer(),
            table: Some(table_of(table.oid, &table.schema, &table.name)),
            key: utf8(&texts.key)?,
            old: utf8(&texts.old)?,
            new: utf8(&texts.new)?,
        })?;
    }
    texts.give();
    Ok(firing.nothing())
}

/// `audit.audit_truncate()`: records that the table was emptied.
pub(crate) fn truncation(call: &Call) -> Result<TriggerAnswer, Error> {
    const NAME: &str = "audit.audit_truncate";
    let firing = firing(call, NAME, TRUNCATE_TRIGGER)?;
    if firing.is_row_level() || !firing.is_after() || firing.event() != trigger::Event::Truncate {
        return Err(Error::TriggerProtocol { function: NAME, why: "must be fired AFTER TRUNCATE, FOR EACH STATEMENT" });
    }
    let objects = session_cache::objects()?;
    let table = protected_table(&objects, &firing.relation())?;
    Recorder::open(&objects)?.record(&Event::of_table(
        Operation::Truncate,
        table_of(table.oid, &table.schema, &table.name),
        None,
    ))?;
    Ok(firing.nothing())
}

/// The firing of the one trigger of this function and name that a table has: a second one would record each change twice.
fn firing(call: &Call, function: &'static str, trigger: &CStr) -> Result<Firing, Error> {
    let firing =
        Firing::new(call).ok_or(Error::TriggerProtocol { function, why: "was not called by the trigger manager" })?;
    if firing.is_restricted() {
        return Err(Error::TriggerProtocol {
            function,
            why: "must be fired without arguments, WHEN clause, column list and transition tables",
        });
    }
    if !firing.is_named(trigger) {
        return Err(Error::TriggerProtocol {
            function,
            why: "was fired by a trigger that audit.protect() did not make",
        });
    }
    Ok(firing)
}

/// The table as the registry says it is to be recorded.
pub(crate) fn protected_table(objects: &Objects, relation: &Relation) -> Result<std::rc::Rc<Table>, Error> {
    session_cache::table(relation.oid(), || {
        let registration = registry::find(objects, relation.oid())?
            .ok_or_else(|| Error::TriggerUnregistered { relation: session_cache::display_name(relation.oid()) })?;
        Ok(Table::new(relation, &registration.excluded_today(relation), registration.full_images))
    })
}

/// The rendered parts of an event, in buffers that the next event uses again.
#[derive(Default)]
struct Texts {
    key: Vec<u8>,
    old: Vec<u8>,
    new: Vec<u8>,
    columns: Vec<usize>,
    first: RowBuffer,
    second: RowBuffer,
}

/// A buffer that has grown beyond this is not kept.
const KEPT_TEXT: usize = 1 << 20;

static TEXTS: ProcessLocal<RefCell<Option<Texts>>> = ProcessLocal::new(RefCell::new(None));

impl Texts {
    fn take() -> Texts {
        TEXTS.take().unwrap_or_default()
    }

    fn give(mut self) {
        for text in [&mut self.key, &mut self.old, &mut self.new] {
            text.clear();
            text.shrink_to(KEPT_TEXT);
        }
        TEXTS.set(Some(self));
    }

    /// Renders the change; `None` when there is nothing to record.
    fn render(&mut self, firing: &Firing, table: &Table) -> Result<Option<Operation>, Error> {
        let Texts { key, old, new, columns, first, second } = self;
        for text in [&mut *key, &mut *old, &mut *new] {
            text.clear();
        }
        let _pinned = table.pin();
        let before = firing.first(first);
        table.write_key(&before, key)?;
        Ok(Some(match firing.event() {
            trigger::Event::Insert => {
                table.write_row(&before, new)?;
                Operation::Insert
            }
            trigger::Event::Delete => {
                table.write_row(&before, old)?;
                Operation::Delete
            }
            _ => {
                let after = firing.second(second);
                if table.changed(&before, &after, columns).is_none() {
                    if !settings::record_unchanged() {
                        return Ok(None);
                    }
                    table.unchanged(columns);
                }
                table.write_columns(&before, columns, old)?;
                table.write_columns(&after, columns, new)?;
                Operation::Update
            }
        }))
    }
}

/// A rendered part; `None` when it is empty.
fn utf8(text: &[u8]) -> Result<Option<&str>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    // The database is UTF-8 and the server checks what comes in; a C function that puts other bytes into a text is refused here.
    std::str::from_utf8(text).map(Some).map_err(|_| Error::Damaged { what: "a value is not valid UTF-8".into() })
}

/// Renders a row that is there already as a BASELINE event and hands it to `record`.
pub(crate) fn baseline_row<'a>(
    table: &'a Table,
    row: &crate::pg::scan::Row<'a>,
    key: &mut Vec<u8>,
    new: &mut Vec<u8>,
    recorder: &mut Recorder<'_>,
) -> Result<(), Error> {
    key.clear();
    new.clear();
    {
        let _pinned = table.pin();
        table.write_key(row, key)?;
        table.write_row(row, new)?;
    }
    recorder.record(&Event {
        operation: Operation::Baseline,
        command: None,
        writer: None,
        table: Some(table_of(table.oid, &table.schema, &table.name)),
        key: utf8(key)?,
        old: None,
        new: utf8(new)?,
    })?;
    Ok(())
}

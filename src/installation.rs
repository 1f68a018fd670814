//! Whether the extension's own objects are what its scripts have made of them: tables, guards, keys, functions, event triggers, and who may do what with them.
//!
//! What must be is read from the very scripts that are installed, so that there is no second list to be kept.

use audit_ledger::{Finding, Kind};
use pgrx::pg_sys;

use crate::coverage::{TriggerState, Wanted, trigger_state};
use crate::pg::catalog::{self, Function};
use crate::pg::relation::{self, Lock, Relation};
use crate::pg::trigger::{GUARD_ROW_KIND, GUARD_STATEMENT_KIND};
use crate::registry::{Key, Objects, SCHEMA};

/// The scripts that make objects, except for what only describes them.
const SCRIPTS: [&str; 4] = [
    include_str!("../sql/tables.sql"),
    include_str!("../sql/guards.sql"),
    include_str!("../sql/triggers.sql"),
    include_str!("../sql/functions.sql"),
];

const EXTENSION: &std::ffi::CStr = c"audit";

/// Something that is not as it must be.
pub(crate) struct Fault {
    /// What it is about, more precisely than the finding says.
    subject: String,
    /// How bad it is, among faults of the same subject.
    weight: u8,
    pub(crate) finding: Finding,
}

impl Fault {
    fn new(relation: impl Into<String>, detail: String, hint: impl Into<String>) -> Fault {
        let relation = relation.into();
        Fault {
            subject: format!("{relation}: {detail}"),
            weight: 1,
            finding: Finding {
                kind: Kind::Coverage,
                relation: Some(relation),
                chain: None,
                seq: None,
                id: None,
                detail,
                hint: hint.into(),
            },
        }
    }

    fn about(self, subject: String, weight: u8) -> Fault {
        Fault { subject, weight, ..self }
    }

    /// Whether there was none of this subject among `before`, or a lesser one.
    pub(crate) fn is_worse_than(&self, before: &[Fault]) -> bool {
        !before.iter().any(|other| other.subject == self.subject && other.weight >= self.weight)
    }
}

/// What was checked, and what was found.
#[derive(Default)]
pub(crate) struct Inspection {
    pub(crate) checked: u64,
    pub(crate) faults: Vec<Fault>,
}

/// Checks all objects of the extension.
pub(crate) fn inspect(objects: &Objects) -> Inspection {
    let mut inspection = Inspection::default();
    let extension = catalog::extension(EXTENSION);
    for oid in objects.tables() {
        inspection.table(objects, oid, extension);
    }
    inspection.key_indexes(objects);
    inspection.sequence(objects, extension);
    inspection.functions(objects, extension);
    inspection.event_triggers(objects, extension);
    inspection.schema(objects, extension);
    inspection.settings();
    inspection
}

/// Whether the guards of one of the tables are in force.
pub(crate) fn has_guards(objects: &Objects, oid: pg_sys::Oid) -> bool {
    let table = Relation::open(oid, Lock::AccessShare);
    guard_states(objects, &table).iter().all(|(_, state)| *state == TriggerState::Ok)
}

/// The guards of a table, and their states.
fn guard_states(objects: &Objects, table: &Relation) -> [(&'static str, TriggerState); 2] {
    let (row, statement) = (c"audit_guard_row", c"audit_guard_statement");
    let triggers = if table.has_triggers() { table.triggers() } else { Vec::new() };
    let state = |kind, names: &[&std::ffi::CStr]| {
        trigger_state(&triggers, &Wanted { function: objects.guard_function, kind, names })
    };
    [
        ("audit_guard_row", state(GUARD_ROW_KIND, &[row, statement])),
        ("audit_guard_statement", state(GUARD_STATEMENT_KIND, &[statement, row])),
    ]
}

impl Inspection {
    fn add(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    fn member(&mut self, name: &str, class: pg_sys::Oid, object: pg_sys::Oid, extension: Option<pg_sys::Oid>) {
        if extension.is_none() || catalog::extension_of(class, object) != extension {
            self.add(Fault::new(
                name,
                "it does not belong to the extension any more".into(),
                "It could be dropped on its own, and would be missing in a restored database. Use ALTER EXTENSION audit ADD.",
            ));
        }
    }

    fn table(&mut self, objects: &Objects, oid: pg_sys::Oid, extension: Option<pg_sys::Oid>) {
        let table = Relation::open(oid, Lock::AccessShare);
        let name = format!("{}.{}", table.schema(), table.name());
        self.checked += 1;
        let mut peculiar = table.peculiarities();
        if relation::with_descendants(oid, Lock::AccessShare).len() > 1 {
            peculiar.push("has children, whose rows show among its own");
        }
        if relation::has_parent(oid) {
            peculiar.push("is a child of another table, through which its rows can be reached");
        }
        if !has_defined_columns(&table) {
            peculiar.push("has other columns than the extension made");
        }
        for what in peculiar {
            self.add(Fault::new(
                &name,
                format!("the table {what}"),
                "The extension does not make it so. What is read from the table through SQL may not be what was recorded.",
            ));
        }
        for (guard, state) in guard_states(objects, &table) {
            self.checked += 1;
            if state != TriggerState::Ok {
                let fault = Fault::new(
                    &name,
                    format!("the guard \"{guard}\" is {}", state.as_str()),
                    format!(
                        "The table may have been changed. Turn the guard on with ALTER TABLE {name} ENABLE ALWAYS TRIGGER {guard}."
                    ),
                );
                self.add(fault.about(format!("{name} {guard}"), state as u8));
            }
        }
        for trigger in table.triggers().iter().filter(|trigger| trigger.function != objects.guard_function) {
            self.add(Fault::new(
                &name,
                format!("the table has a trigger \"{}\" that the extension did not make", trigger.name),
                "It may change or suppress what a restore brings in. Drop it.",
            ));
        }
        self.member(&name, pg_sys::RelationRelationId, oid, extension);
        self.grants(&name, &catalog::relation_grants(oid), catalog::SELECT, "may change the table");
    }

    fn grants(&mut self, name: &str, grants: &[catalog::Grant], harmless: u64, what: &str) {
        for grant in grants.iter().filter(|grant| grant.rights & !harmless != 0 && !grant.is_superusers()) {
            self.add(Fault::new(
                name,
                format!("{} {what}, by a right that was granted", grant.display()),
                "The guards still refuse it; take the right back with REVOKE, so that nothing hangs on them alone.",
            ));
        }
    }

    fn key_indexes(&mut self, objects: &Objects) {
        for key in objects.keys() {
            self.checked += 1;
            if !key.oid.is_some_and(|index| is_sound(objects, &key, index)) {
                self.add(Fault::new(
                    format!("audit.{}", key.table),
                    format!("the key \"{}\" is missing or not in use", key.name),
                    format!("{} Restore it: {}.", key.reason, key.definition),
                ));
            }
        }
    }

    fn sequence(&mut self, objects: &Objects, extension: Option<pg_sys::Oid>) {
        self.checked += 1;
        let name = "audit.log_id_seq";
        self.member(name, pg_sys::RelationRelationId, objects.log_id_seq, extension);
        self.grants(name, &catalog::relation_grants(objects.log_id_seq), catalog::SELECT, "may move the sequence");
    }

    fn functions(&mut self, objects: &Objects, extension: Option<pg_sys::Oid>) {
        let found = catalog::functions_in(objects.schema);
        for (name, text) in defined("FUNCTION") {
            self.checked += 1;
            match found.iter().find(|function| function.name == name) {
                None => self.add(Fault::new(
                    format!("audit.{name}"),
                    "the function is missing".into(),
                    "It was dropped or renamed, or the library is newer than the extension: then use ALTER EXTENSION audit UPDATE.",
                )),
                Some(function) => {
                    if !is_as_defined(function, text) {
                        self.add(Fault::new(
                            format!("audit.{name}"),
                            replaced(name, text),
                            "It was replaced. Nothing that it was to record, refuse or tell can be relied upon; reinstall the extension.",
                        ));
                    }
                    if !catalog::is_superuser(function.owner) {
                        self.add(Fault::new(
                            format!("audit.{name}"),
                            "the function belongs to a role that is no superuser".into(),
                            "Its owner can replace it. Give it back with ALTER FUNCTION ... OWNER TO.",
                        ));
                    }
                }
            }
        }
        for function in found {
            let is_member =
                extension.is_some() && catalog::extension_of(pg_sys::ProcedureRelationId, function.oid) == extension;
            if !is_member {
                self.add(Fault::new(
                    format!("audit.{}", function.name),
                    "the function does not belong to the extension".into(),
                    "It could be called in place of one of the extension's own. Drop it, or move it to another schema.",
                ));
            }
        }
    }

    fn event_triggers(&mut self, objects: &Objects, extension: Option<pg_sys::Oid>) {
        let found = catalog::event_triggers();
        for (name, text) in defined("EVENT TRIGGER") {
            self.checked += 1;
            let wanted = EventTriggerText::parse(text);
            let state = match found.iter().find(|trigger| trigger.name == name) {
                None => TriggerState::Missing,
                Some(trigger) => {
                    self.member(name, pg_sys::EventTriggerRelationId, trigger.oid, extension);
                    let function = wanted.function.and_then(|function| {
                        let function = std::ffi::CString::new(function).ok()?;
                        relation::find_function(objects.schema, &function)
                    });
                    let is_ours = Some(trigger.event.as_str()) == wanted.event
                        && Some(trigger.function) == function
                        && trigger.tags == wanted.tags;
                    match (is_ours, trigger.enabled) {
                        (false, _) => TriggerState::Altered,
                        (true, 'A') => TriggerState::Ok,
                        (true, _) => TriggerState::Disabled,
                    }
                }
            };
            if state != TriggerState::Ok {
                let fault = Fault::new(
                    name,
                    format!("the event trigger \"{name}\" is {}", state.as_str()),
                    match state {
                        TriggerState::Disabled => format!("Turn it on with ALTER EVENT TRIGGER {name} ENABLE ALWAYS."),
                        _ => "Definitions of protected tables may have changed unseen. Make it anew as the script of the extension does.".into(),
                    },
                );
                self.add(fault.about(format!("event trigger {name}"), state as u8));
            }
        }
    }

    fn schema(&mut self, objects: &Objects, extension: Option<pg_sys::Oid>) {
        self.checked += 1;
        self.member("audit", pg_sys::NamespaceRelationId, objects.schema, extension);
        if relation::find_schema(SCHEMA) != Some(objects.schema) {
            self.add(Fault::new(
                "audit",
                "the schema has another name".into(),
                "Nothing can be recorded. Give it back its name with ALTER SCHEMA ... RENAME TO audit.",
            ));
        }
        let (owner, grants) = catalog::schema_rights(objects.schema);
        if !catalog::is_superuser(owner) {
            self.add(Fault::new(
                "audit",
                "the schema belongs to a role that is no superuser".into(),
                "Its owner can drop or plant objects in it. Give it back with ALTER SCHEMA audit OWNER TO.",
            ));
        }
        self.grants("audit", &grants, catalog::USAGE, "may create objects in the schema");
    }

    /// Settings that a role or database brings along, and that switch off what protects.
    fn settings(&mut self) {
        for (setting, whose) in catalog::settings_of_roles() {
            let (name, value) = setting.split_once('=').unwrap_or((&setting, ""));
            let is_off = match name {
                "event_triggers" => matches!(value, "off" | "false" | "no" | "0"),
                "session_replication_role" => value != "origin",
                _ => false,
            };
            if is_off {
                self.add(Fault::new(
                    name,
                    format!("{whose} has the setting {name} = {value}"),
                    "The triggers of the extension fire all the same, event triggers only where they are not switched off. Use ALTER ROLE or ALTER DATABASE ... RESET.",
                ));
            }
        }
    }
}

/// Whether all event triggers of the extension are in force.
pub(crate) fn has_event_triggers() -> bool {
    let found = catalog::event_triggers();
    defined("EVENT TRIGGER").all(|(name, _)| found.iter().any(|trigger| trigger.name == name && trigger.enabled == 'A'))
}

/// The objects of a kind that the scripts create: name and the text that follows it.
fn defined(kind: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    SCRIPTS.iter().flat_map(move |script| {
        script.split("\nCREATE ").skip(1).filter_map(move |statement| {
            let rest = statement.strip_prefix(kind)?.strip_prefix(' ')?;
            let rest = rest.strip_prefix("audit.").unwrap_or(rest);
            let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')?;
            Some(rest.split_at(end))
        })
    })
}

/// Whether a table has the columns that its script names, in that order.
fn has_defined_columns(table: &Relation) -> bool {
    let name = table.name();
    let Some((_, text)) = defined("TABLE").find(|(defined, _)| *defined == name) else { return false };
    let body = text.split("\n);").next().unwrap_or_default();
    let defined = body.lines().skip(1).filter_map(|line| {
        let word = line.split_whitespace().next()?;
        word.starts_with(|letter: char| letter.is_ascii_lowercase()).then_some(word)
    });
    defined.eq(table.column_names().iter().map(|(_, name)| name.as_str()))
}

/// Whether an index is what its key must be: of the table, over its columns, complete and in use.
fn is_sound(objects: &Objects, key: &Key, index: pg_sys::Oid) -> bool {
    let index = Relation::open(index, Lock::AccessShare);
    let table = objects.tables().into_iter().find(|oid| index.is_index_of(*oid));
    let Some(table) = table.map(|oid| Relation::open(oid, Lock::AccessShare)) else { return false };
    let columns = table.column_names();
    let keys: Vec<&str> = index
        .index_columns()
        .iter()
        .filter_map(|number| columns.iter().find(|(other, _)| other == number))
        .map(|(_, name)| name.as_str())
        .collect();
    index.is_sound_index() && table.name() == key.table && key.definition.ends_with(&format!("({})", keys.join(", ")))
}

/// Whether a function is what its script has made: the C function of this library, or the very text, and with nobody else's rights or settings.
fn is_as_defined(function: &Function, text: &str) -> bool {
    let statement = text.split("\nCREATE ").next().unwrap_or(text);
    if function.is_security_definer {
        return false;
    }
    match statement.split("$$").nth(1) {
        Some(body) => function.source == body && function.settings == ["search_path=pg_catalog, pg_temp"],
        None => {
            function.c == catalog::CFunction::ours(symbol(statement).unwrap_or_default())
                && function.settings.is_empty()
        }
    }
}

/// The C symbol that a CREATE FUNCTION statement names.
fn symbol(statement: &str) -> Option<&str> {
    statement.split("'MODULE_PATHNAME', '").nth(1)?.split('\'').next()
}

fn replaced(name: &str, text: &str) -> String {
    match name {
        "audit_row" | "audit_truncate" | "audit_guard" => {
            format!("the function behind our triggers is not \"{name}\" of the library any more")
        }
        _ => match symbol(text.split("\nCREATE ").next().unwrap_or(text)) {
            Some(symbol) => format!("the function is not \"{symbol}\" of the library any more"),
            None => "the text or the settings of the function are not those of the extension any more".into(),
        },
    }
}

/// What a CREATE EVENT TRIGGER statement says after the name.
struct EventTriggerText {
    event: Option<&'static str>,
    function: Option<&'static str>,
    /// The commands that WHEN TAG IN names.
    tags: Vec<&'static str>,
}

impl EventTriggerText {
    fn parse(text: &'static str) -> EventTriggerText {
        let statement = text.split(';').next().unwrap_or(text);
        let after = |word: &str| statement.split_whitespace().skip_while(|other| *other != word).nth(1);
        EventTriggerText {
            event: after("ON"),
            function: after("FUNCTION")
                .and_then(|function| function.strip_prefix("audit."))
                .map(|function| function.trim_end_matches("()")),
            tags: statement.split('\'').skip(1).step_by(2).collect(),
        }
    }
}

//! Whether the ledger still goes on from where it was: on the same server, timeline and database, from all that it has said to the outside, with the same key.
//!
//! Where it does not, an INCARNATION or KEY entry says so before the next seal, so that the seal covers it, and no checkpoint is given out before. That a ledger
//! went back to an earlier state of itself cannot be seen in the ledger; the checkpoint that was given out last shows it (`audit.checkpoint_file`).

use audit_ledger::{Checkpoint, Operation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::chain::{Event, Recorder};
use crate::error::Error;
use crate::pg::lock::{self, Target};
use crate::pg::relation::Lock;
use crate::pg::scan::Visible;
use crate::pg::session;
use crate::protect::{self, IncarnationDetails};
use crate::registry::{self, Incarnation, Objects};
use crate::seal::Seals;
use crate::{checkpoint, key};

/// Why there is a new incarnation: part of `new` of an INCARNATION entry, docs/format.md, section 3.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Why {
    pub(crate) timeline: u32,
    /// The words of [`reasons`], and `checkpoint`.
    pub(crate) reasons: Vec<String>,
    pub(crate) before: Before,
    /// Text of a checkpoint given out before that is not of this tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint: Option<String>,
}

/// The incarnation before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Before {
    pub(crate) system_identifier: String,
    pub(crate) database_oid: u32,
    pub(crate) timeline: u32,
}

#[derive(Serialize)]
struct KeyDetails<'a> {
    vkey: &'a str,
}

/// Before a seal: records what has changed since the last one. Gives what could not be found out; that stops no seal, but the next checkpoint.
pub(crate) fn note_changes(objects: &Objects) -> Result<Vec<Error>, Error> {
    // Sealing says it better. A database that has not written yet says so by itself when it does.
    let Some(ledger) = registry::ledger(objects, Visible::Now)? else { return Ok(Vec::new()) };
    if session::is_standby() || session::is_read_only() || !registry::is_live(objects)? {
        return Ok(Vec::new());
    }
    let mut problems = Vec::new();
    let disowned = contradiction(objects, &ledger, Visible::Now).unwrap_or_else(|error| {
        problems.push(error);
        None
    });
    if what_changed(objects, disowned.as_ref(), Visible::Now)?.is_some() {
        lock::lock(Target::Ledger);
        // Somebody else may have recorded it meanwhile.
        if let Some((now, why)) = what_changed(objects, disowned.as_ref(), Visible::Now)? {
            record_incarnation(objects, &now, why)?;
        }
    }
    match key::vkey(&key::origin(&ledger)) {
        Ok(Some(vkey)) => record_key(objects, vkey)?,
        Ok(None) => {}
        Err(error) => problems.push(error),
    }
    Ok(problems)
}

/// Before a checkpoint is given out: whether a change was not recorded yet. `vkey`: the key that is to sign.
pub(crate) fn check(objects: &Objects, ledger: &Uuid, vkey: Option<&str>) -> Result<(), Error> {
    let recorded = registry::incarnation(objects, Visible::Statement)?;
    if let Some(vkey) = vkey
        && recorded.as_ref().and_then(|recorded| recorded.vkey.as_deref()) != Some(vkey)
    {
        return Err(Error::SealFirst { why: "The signing key, or its name, was not recorded in the log yet.".into() });
    }
    // A standby gives out what its primary has sealed, and cannot know more.
    if session::is_standby() {
        return Ok(());
    }
    let disowned = contradiction(objects, ledger, Visible::Statement)?;
    match what_changed(objects, disowned.as_ref(), Visible::Statement)? {
        None => Ok(()),
        Some((_, why)) => Err(Error::SealFirst {
            why: format!(
                "The ledger goes on elsewhere or from an earlier state ({}), and has not said so yet.",
                why.reasons.join(", ")
            ),
        }),
    }
}

/// The checkpoint that was given out last, if it is not of this ledger's tree.
fn contradiction(objects: &Objects, ledger: &Uuid, visible: Visible) -> Result<Option<Checkpoint>, Error> {
    let Some(given) = checkpoint::given_out(ledger)? else { return Ok(None) };
    let seals = Seals::open(objects, Lock::AccessShare, *ledger, visible)?;
    // Only heads of seals are ever given out.
    let size = given.head().size;
    let is_ours = size.get() == 0 || seals.by_size(size)?.is_some_and(|seal| seal.head == *given.head());
    Ok((!is_ours).then_some(given))
}

fn what_changed(
    objects: &Objects,
    disowned: Option<&Checkpoint>,
    visible: Visible,
) -> Result<Option<(Incarnation, Why)>, Error> {
    let Some(before) = registry::incarnation(objects, visible)? else { return Ok(None) };
    let mut now = Incarnation { vkey: before.vkey.clone(), disowned: before.disowned.clone(), ..Incarnation::here() };
    let mut reasons = reasons(&before, &now);
    // Said once is said: the file may stay as it is for a while, where it cannot be written.
    let disowned = disowned.map(Checkpoint::to_string).filter(|text| before.disowned.as_ref() != Some(text));
    if disowned.is_some() {
        reasons.push("checkpoint".to_owned());
        now.disowned.clone_from(&disowned);
    }
    if reasons.is_empty() {
        return Ok(None);
    }
    let why = Why {
        timeline: now.timeline,
        reasons,
        before: Before { system_identifier: before.system, database_oid: before.database, timeline: before.timeline },
        checkpoint: disowned,
    };
    Ok(Some((now, why)))
}

fn reasons(before: &Incarnation, now: &Incarnation) -> Vec<String> {
    [
        ("system_identifier", before.system != now.system),
        ("database_oid", before.database != now.database),
        ("timeline", before.timeline != now.timeline),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(name, _)| name.to_owned())
    .collect()
}

/// What an INCARNATION entry says, for people.
pub(crate) fn in_words(details: &IncarnationDetails) -> String {
    let Some(why) = &details.why else {
        return format!(
            "restored from a dump into database {} of system {}",
            details.database_oid, details.system_identifier
        );
    };
    let mut words = Vec::new();
    for reason in &why.reasons {
        words.push(match reason.as_str() {
            "system_identifier" => {
                format!("system {} in place of {}", details.system_identifier, why.before.system_identifier)
            }
            "database_oid" => format!("database {} in place of {}", details.database_oid, why.before.database_oid),
            "timeline" => format!("timeline {} in place of {}", why.timeline, why.before.timeline),
            "checkpoint" => "went back behind a checkpoint that had been given out".to_owned(),
            other => other.to_owned(),
        });
    }
    words.join(", ")
}

fn record_incarnation(objects: &Objects, now: &Incarnation, why: Why) -> Result<(), Error> {
    let details = protect::json(&IncarnationDetails {
        system_identifier: now.system.clone(),
        database_oid: now.database,
        // Copied file by file, tables keep their object ids.
        tables: Default::default(),
        next_xid: None,
        why: Some(why),
    })?;
    record(objects, Operation::Incarnation, &details, now)
}

fn record_key(objects: &Objects, vkey: String) -> Result<(), Error> {
    let is_recorded =
        |recorded: &Option<Incarnation>| recorded.as_ref().is_none_or(|recorded| recorded.vkey.as_ref() == Some(&vkey));
    if is_recorded(&registry::incarnation(objects, Visible::Now)?) {
        return Ok(());
    }
    lock::lock(Target::Ledger);
    let recorded = registry::incarnation(objects, Visible::Now)?;
    match recorded {
        Some(recorded) if !is_recorded(&Some(recorded.clone())) => {
            let details = protect::json(&KeyDetails { vkey: &vkey })?;
            record(objects, Operation::Key, &details, &Incarnation { vkey: Some(vkey), ..recorded })
        }
        _ => Ok(()),
    }
}

fn record(objects: &Objects, operation: Operation, details: &str, incarnation: &Incarnation) -> Result<(), Error> {
    let event = Event { operation, command: None, writer: None, table: None, key: None, old: None, new: Some(details) };
    let id = Recorder::open(objects)?.record(&event)?;
    registry::set_incarnation(objects, id, incarnation)
}

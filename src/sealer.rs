//! The sealer: a background process for each database that seals by itself, and a launcher that starts them.
//!
//! There is one only when the library is in `shared_preload_libraries`, and never on a standby. Without it `audit.seal()` and `audit.checkpoint()` do the same by hand.
//! A sealer that fails ends and is started again after a while. What belongs to a database only it can see, so a process looks into each from time to time whether it
//! holds the extension.

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::time::{Duration, Instant};

use audit_ledger::TreeHead;
use pgrx::pg_sys::panic::ErrorReportWithLevel;
use pgrx::{IntoDatum, PgSqlErrorCode, pg_sys};

use crate::checkpoint::{self, Made};
use crate::error::{self, Error};
use crate::pg::fmgr::Call;
use crate::pg::lock;
use crate::pg::scan::Visible;
use crate::pg::shared::{self, Delivery, Outcome};
use crate::pg::worker::{self, Program, Running};
use crate::pg::{catalog, session};
use crate::seal::seal_now;
use crate::{incarnation, registry, session_cache, settings};

/// Between two looks into a database that did not hold the extension.
const PROBE: Duration = Duration::from_secs(10);

/// After a sealer has failed, and after a run of the command has.
const BACK_OFF: Duration = Duration::from_secs(10);

/// Between two looks at what else is to be done; within it a database is left to whoever wants it for himself.
const TICK: Duration = Duration::from_secs(1);

/// While a program runs.
const QUICK_TICK: Duration = Duration::from_millis(100);

/// The same complaint is made at most once in this time.
const REPEAT: Duration = Duration::from_secs(300);

/// A writer that waits for a lock is not to be held up by a sealer that waits before him.
const LOCK_TIMEOUT: &CStr = c"500ms";

/// A database, as the launcher knows it.
struct Known {
    running: Option<Running>,
    /// When it was started.
    since: Instant,
    /// When it is to be started or looked into.
    due: Instant,
    /// Whether it did not hold the extension when it was looked into.
    is_absent: bool,
}

/// The launcher.
pub(crate) fn launch() -> ! {
    let mut known: HashMap<u32, Known> = HashMap::new();
    let mut complaints = Complaints::default();
    loop {
        if settings::seal_interval().is_none() {
            stop_all(&mut known);
            worker::wait(if known.is_empty() { PROBE } else { TICK });
            continue;
        }
        let names: HashSet<String> = settings::seal_databases().into_iter().collect();
        let listed = worker::transaction(c"looking for databases to seal", || Ok(catalog::databases()));
        let wanted: Vec<_> = match listed {
            Ok(databases) => databases
                .into_iter()
                .filter(|database| database.can_connect)
                .filter(
                    |database| if names.is_empty() { !database.is_template } else { names.contains(&database.name) },
                )
                .collect(),
            Err(report) => fail(&report),
        };
        forget_unwanted(&mut known, &wanted.iter().map(|database| database.oid.to_u32()).collect());
        let now = Instant::now();
        let (mut has_probed, mut is_short) = (false, false);
        for database in &wanted {
            let entry = known.entry(database.oid.to_u32()).or_insert(Known {
                running: None,
                since: now,
                due: now,
                is_absent: false,
            });
            notice_end(entry, database.oid);
            // Looks into databases without the extension are spread over time: each takes a process.
            if entry.running.is_some() || entry.due > now || (entry.is_absent && has_probed) {
                continue;
            }
            has_probed |= entry.is_absent;
            entry.running =
                shared::prepare(database.oid).then(|| worker::start(database.oid, &database.name)).flatten();
            entry.since = now;
            if entry.running.is_none() {
                is_short = true;
                complaints.make(
                    &format!("could not start a sealer for database \"{}\"", database.name),
                    "Raise max_worker_processes: the sealer needs one for itself and one for each database. Until then the databases take turns.",
                );
            }
        }
        if is_short {
            stop_oldest(&known);
        }
        worker::wait(TICK);
    }
}

/// Follows a sealer that may have stopped.
fn notice_end(entry: &mut Known, database: pg_sys::Oid) {
    if !entry.running.as_ref().is_some_and(Running::has_stopped) {
        return;
    }
    entry.running = None;
    let outcome = shared::stopped(database);
    entry.is_absent = outcome == Outcome::Absent;
    entry.due = Instant::now()
        + match outcome {
            Outcome::Absent => PROBE,
            Outcome::MadeWay => TICK,
            Outcome::Failed => BACK_OFF,
        };
}

/// Stops the sealer that has run the longest, so that another database gets its turn.
fn stop_oldest(known: &HashMap<u32, Known>) {
    let running = known.values().filter_map(|entry| Some((entry.since, entry.running.as_ref()?)));
    let oldest = running.filter(|(since, _)| since.elapsed() > BACK_OFF).min_by_key(|(since, _)| *since);
    if let Some((_, running)) = oldest {
        running.stop();
    }
}

fn stop_all(known: &mut HashMap<u32, Known>) {
    forget_unwanted(known, &HashSet::new());
}

fn forget_unwanted(known: &mut HashMap<u32, Known>, wanted: &HashSet<u32>) {
    known.retain(|database, entry| {
        if wanted.contains(database) {
            return true;
        }
        if let Some(running) = &entry.running
            && !running.has_stopped()
        {
            running.stop();
            return true;
        }
        shared::remove(pg_sys::Oid::from(*database));
        false
    });
}

/// The sealer of one database.
pub(crate) fn serve(database: pg_sys::Oid) -> ! {
    shared::begin(database, worker::pid());
    for (name, value) in [
        (c"application_name", c"audit sealer"),
        (c"default_transaction_isolation", c"read committed"),
        (c"default_transaction_read_only", c"off"),
        (c"statement_timeout", c"0"),
        (c"lock_timeout", LOCK_TIMEOUT),
    ] {
        worker::insist(name, value);
    }
    let mut sealer = Sealer {
        database,
        name: String::new(),
        due: Instant::now(),
        published: None,
        given: None,
        next_giving: Instant::now(),
        newest: None,
        running: None,
        complaints: Complaints::default(),
    };
    loop {
        sealer.turn();
        let longest = if sealer.running.is_some() { QUICK_TICK } else { TICK };
        let longest = longest.min(sealer.due.saturating_duration_since(Instant::now()));
        if worker::wait(longest) {
            // Settings of the database are read when a process connects.
            sealer.leave(Outcome::MadeWay);
        }
    }
}

struct Sealer {
    database: pg_sys::Oid,
    name: String,
    /// When to seal next.
    due: Instant,
    /// The head that was last made a checkpoint and put into the file.
    published: Option<TreeHead>,
    /// The head that was last logged and given to the command.
    given: Option<TreeHead>,
    next_giving: Instant,
    /// The newest checkpoint.
    newest: Option<Made>,
    running: Option<(Program, TreeHead)>,
    complaints: Complaints,
}

/// What a turn of sealing has found.
enum Turn {
    MakeWay,
    Absent,
    Sealed(Vec<Error>),
}

impl Sealer {
    fn turn(&mut self) {
        let is_due = self.due <= Instant::now();
        let turn = worker::transaction(c"sealing", || {
            // Held to the end: whoever wants the database waits for this seal, and we leave before the next.
            if !lock::try_lock_database() {
                return Ok(Turn::MakeWay);
            }
            if !catalog::has_extension(c"audit") {
                return Ok(Turn::Absent);
            }
            if is_due { seal() } else { Ok(Turn::Sealed(Vec::new())) }
        });
        match turn {
            Ok(Turn::MakeWay) => self.leave(Outcome::MadeWay),
            Ok(Turn::Absent) => self.leave(Outcome::Absent),
            Ok(Turn::Sealed(problems)) => problems.into_iter().for_each(|problem| self.complain(problem)),
            Err(report) if is_passing(&report) => {}
            Err(report) => fail(&report),
        }
        if is_due {
            self.due = Instant::now() + settings::seal_interval().unwrap_or(TICK);
            self.publish();
        }
        self.give();
    }

    /// Makes the checkpoint of the newest seal, whoever sealed, and puts it into the file.
    fn publish(&mut self) {
        let published = self.published;
        let made = worker::transaction(c"making a checkpoint", || {
            if self.name.is_empty() {
                self.name = session::database_name();
            }
            let objects = session_cache::objects()?;
            let Some(ledger) = registry::ledger(&objects, Visible::Statement)? else { return Ok(None) };
            if !registry::is_live(&objects)? {
                return Ok(None);
            }
            let newest = checkpoint::newest(&objects, &ledger)?;
            if newest.is_none() || newest == published {
                return Ok(None);
            }
            let file = match checkpoint::make(&objects, &ledger) {
                Ok(Some(made)) => checkpoint::file_name(&ledger).map(|file| Some((made, file))),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            // Not an error of the transaction: sealing goes on without checkpoints, and says so.
            Ok(Some(file))
        });
        match made {
            Ok(None | Some(Ok(None))) => {}
            Ok(Some(Err(error))) => self.complain(error),
            Ok(Some(Ok(Some((made, file))))) => {
                let stored = file.map_or(Ok(()), |file| checkpoint::store(&file, &made));
                let head = made.head;
                self.newest = Some(made);
                match stored {
                    Ok(()) => self.published = Some(head),
                    Err(error) => self.complain(error),
                }
            }
            Err(report) if is_passing(&report) => {}
            Err(report) => fail(&report),
        }
    }

    /// Logs the newest checkpoint and gives it to the command, unless it was given out already or it is too early.
    fn give(&mut self) {
        if let Some((mut program, head)) = self.running.take() {
            match program.ended() {
                Some(Ok(status)) if status.success() => self.note(true, &head, "stored".to_owned()),
                Some(Ok(status)) => self.note(false, &head, worker::describe(status)),
                Some(Err(error)) => self.note(false, &head, error.to_string()),
                None if program.started.elapsed() > settings::checkpoint_command_timeout() => {
                    program.kill();
                    let seconds = settings::checkpoint_command_timeout().as_secs();
                    self.note(false, &head, format!("ended after {seconds} s without result"));
                }
                None => self.running = Some((program, head)),
            }
        }
        let now = Instant::now();
        if self.running.is_some() || self.next_giving > now {
            return;
        }
        let Some(made) = &self.newest else { return };
        if self.given == Some(made.head) {
            return;
        }
        self.given = Some(made.head);
        self.next_giving = now + settings::checkpoint_interval();
        if settings::log_checkpoints() {
            let message = format!("checkpoint of ledger \"{}\" with {} entries", made.origin, made.head.size);
            error::log(message, Some(made.text.clone()));
        }
        let Some(command) = settings::checkpoint_command() else { return };
        let size = made.head.size.to_string();
        let variables = [
            ("AUDIT_DATABASE", self.name.as_str()),
            ("AUDIT_ORIGIN", made.origin.as_str()),
            ("AUDIT_TREE_SIZE", size.as_str()),
        ];
        let head = made.head;
        match Program::start(&command, &made.text, &variables) {
            Ok(program) => self.running = Some((program, head)),
            Err(error) => self.note(false, &head, format!("could not be started: {error}")),
        }
    }

    /// Notes how a run of the command ended.
    fn note(&mut self, succeeded: bool, head: &TreeHead, how: String) {
        if succeeded {
            error::log(format!("audit.checkpoint_command has stored the checkpoint with {} entries", head.size), None);
        } else {
            error::warning(
                format!("audit.checkpoint_command has not stored the checkpoint with {} entries: {how}", head.size),
                "It is tried again with the newest checkpoint.",
            );
            self.given = None;
            self.next_giving = Instant::now() + settings::checkpoint_interval().max(BACK_OFF);
        }
        shared::deliver(self.database, Delivery::new(session::now(), succeeded, head.size.get(), &how));
    }

    fn complain(&mut self, error: Error) {
        let message = error.to_string();
        if self.complaints.may_make(&message) {
            error::warn(error);
        }
    }

    fn leave(&mut self, outcome: Outcome) -> ! {
        if let Some((program, _)) = self.running.take() {
            program.kill();
        }
        shared::end(self.database, outcome);
        worker::leave(0)
    }
}

/// One seal, with what must be said before it.
fn seal() -> Result<Turn, Error> {
    let objects = session_cache::objects()?;
    // A database that was restored and has not written yet may still be being restored.
    if registry::ledger(&objects, Visible::Now)?.is_none() || !registry::is_live(&objects)? {
        return Ok(Turn::Sealed(Vec::new()));
    }
    let problems = incarnation::note_changes(&objects)?;
    seal_now(&objects)?;
    Ok(Turn::Sealed(problems))
}

/// Whether the next turn will do: somebody else holds a lock, or told us to stop what we were at.
fn is_passing(report: &ErrorReportWithLevel) -> bool {
    use PgSqlErrorCode::*;
    matches!(
        report.sql_error_code(),
        ERRCODE_LOCK_NOT_AVAILABLE
            | ERRCODE_QUERY_CANCELED
            | ERRCODE_T_R_DEADLOCK_DETECTED
            | ERRCODE_T_R_SERIALIZATION_FAILURE
    )
}

/// Says what went wrong and ends this process; it is started again after a while.
fn fail(report: &ErrorReportWithLevel) -> ! {
    error::again(report);
    worker::leave(1)
}

/// What was said lately.
#[derive(Default)]
struct Complaints(HashMap<String, Instant>);

impl Complaints {
    fn may_make(&mut self, message: &str) -> bool {
        let now = Instant::now();
        self.0.retain(|_, said| now.duration_since(*said) < REPEAT);
        if self.0.contains_key(message) {
            return false;
        }
        self.0.insert(message.to_owned(), now);
        true
    }

    fn make(&mut self, message: &str, hint: &str) {
        if self.may_make(message) {
            error::warning(message.to_owned(), hint);
        }
    }
}

/// `audit.sealer()`: what the sealer of this database does, for `audit.status()`. One row.
pub(crate) fn state(call: &Call) -> Result<(), Error> {
    let mut rows = call.rows();
    let slot = if shared::is_preloaded() { shared::slot(session::database()) } else { None };
    let delivery = slot.and_then(|slot| slot.delivery);
    rows.push([
        shared::is_preloaded().into_datum(),
        slot.map(|slot| slot.pid).filter(|pid| *pid != 0).into_datum(),
        delivery.and_then(|delivery| delivery.at.into_datum()),
        delivery.map(|delivery| delivery.succeeded).into_datum(),
        delivery.map(|delivery| delivery.size as i64).into_datum(),
        delivery.map(|delivery| delivery.message()).into_datum(),
    ]);
    Ok(())
}

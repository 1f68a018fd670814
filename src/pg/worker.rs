//! Background processes: starting them, their signals, their transactions, and the program that one of them may run.

use std::ffi::CStr;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::AssertUnwindSafe;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::{PgTryBuilder, pg_guard, pg_sys};

use super::{compat, server};
use crate::error::{self, Error};
use crate::sealer;

/// The library as `shared_preload_libraries` names it.
const LIBRARY: &str = "audit";

/// How long the server waits until it starts the launcher again after it failed.
const RESTART: Duration = Duration::from_secs(5);

/// Whether `shared_preload_libraries` are being loaded, in the first process of the server.
pub(crate) fn is_preloading() -> bool {
    // SAFETY: a plain boolean.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Lets the server start the launcher as soon as it may be written to: never on a standby, and after promotion.
pub(crate) fn register_launcher() {
    BackgroundWorkerBuilder::new("audit launcher")
        .set_type("audit launcher")
        .set_library(LIBRARY)
        .set_function("audit_launcher_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(RESTART))
        .load();
}

#[doc(hidden)]
#[allow(unreachable_pub, reason = "exported by symbol, not by path")]
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn audit_launcher_main(_argument: pg_sys::Datum) {
    set_up_signals();
    // SAFETY: called once, before anything else of the server; no database: only catalogs that all databases share can be read.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0) };
    sealer::launch()
}

#[doc(hidden)]
#[allow(unreachable_pub, reason = "exported by symbol, not by path")]
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn audit_sealer_main(argument: pg_sys::Datum) {
    set_up_signals();
    let database = pg_sys::Oid::from(argument.value() as u32);
    // SAFETY: called once, before anything else of the server. Ends the process when the database is gone.
    unsafe { pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0) };
    // SAFETY: the callback lives as long as the library, which is never unloaded.
    unsafe { pg_sys::before_shmem_exit(Some(on_exit), pg_sys::Datum::null()) };
    sealer::serve(database)
}

fn set_up_signals() {
    compat::handle_signal(libc::SIGTERM, server::die_handler());
    compat::handle_signal(libc::SIGHUP, server::reload_handler());
    // SAFETY: the handlers are in place.
    unsafe { pg_sys::BackgroundWorkerUnblockSignals() };
}

/// Sets a setting for the life of this process, whatever database or role say.
pub(crate) fn insist(name: &CStr, value: &CStr) {
    // SAFETY: both are copied; called between transactions by a process that runs as the bootstrap superuser.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// A process that was started by [`start`], followed until it stops.
pub(crate) struct Running {
    handle: *mut pg_sys::BackgroundWorkerHandle,
}

/// Starts the sealer of a database; `None` when `max_worker_processes` are running. This process is woken when it has started and when it has stopped.
pub(crate) fn start(database: pg_sys::Oid, name: &str) -> Option<Running> {
    let name: String = name.chars().take(20).collect();
    // SAFETY: a plain integer of this process.
    let notify = unsafe { pg_sys::MyProcPid };
    let builder = BackgroundWorkerBuilder::new(&format!("audit sealer {name}"))
        .set_type("audit sealer")
        .set_library(LIBRARY)
        .set_function("audit_sealer_main")
        .set_argument(Some(pg_sys::Datum::from(database)))
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(None)
        .set_notify_pid(notify);
    let mut worker: pg_sys::BackgroundWorker = (&builder).into();
    let mut handle = std::ptr::null_mut();
    // SAFETY: the struct is filled in; the handle is made in the current context, which outside of transactions lives as long as the process.
    unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle) }.then(|| Running { handle })
}

impl Running {
    /// Whether the process has stopped.
    pub(crate) fn has_stopped(&self) -> bool {
        let mut pid = 0;
        // SAFETY: the handle is that of a registered process, freed only in Drop.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.handle, &mut pid) };
        status == pg_sys::BgwHandleStatus::BGWH_STOPPED
    }

    /// Tells the process to stop; it may take a moment.
    pub(crate) fn stop(&self) {
        // SAFETY: as above.
        unsafe { pg_sys::TerminateBackgroundWorker(self.handle) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: allocated by the server for us, freed once.
        unsafe { pg_sys::pfree(self.handle.cast()) }
    }
}

/// The id of this process.
pub(crate) fn pid() -> i32 {
    // SAFETY: a plain integer of this process.
    unsafe { pg_sys::MyProcPid }
}

/// Waits for at most this long, less when woken. Ends the process when it is to stop, or when the server is gone. Gives true after settings were read again.
pub(crate) fn wait(longest: Duration) -> bool {
    let millis = i64::try_from(longest.as_millis()).unwrap_or(i64::MAX).min(86_400_000);
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the latch is this process's own.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as core::ffi::c_int, millis, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
        if std::ptr::read_volatile(&raw const pg_sys::ProcDiePending) != 0 {
            leave(1);
        }
    }
    pgrx::check_for_interrupts!();
    // SAFETY: a flag that the signal handler sets; the file is read between transactions, as every process of the server does.
    unsafe {
        let reload = std::ptr::read_volatile(&raw const pg_sys::ConfigReloadPending) != 0;
        if reload {
            std::ptr::write_volatile(&raw mut pg_sys::ConfigReloadPending, 0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
        reload
    }
}

/// Ends this process. 0: it is not to be started again by the server.
pub(crate) fn leave(code: i32) -> ! {
    compat::exit(code)
}

/// Runs `body` in a transaction of its own. On an error the transaction is rolled back, and the error is given back; only the order to stop is not held up.
pub(crate) fn transaction<R>(
    what: &CStr,
    body: impl FnOnce() -> Result<R, Error>,
) -> Result<R, Box<ErrorReportWithLevel>> {
    // SAFETY: called outside of any transaction, in a process that is connected.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, what.as_ptr());
    }
    let result = PgTryBuilder::new(AssertUnwindSafe(|| {
        let value = error::or_report(body());
        // SAFETY: the transaction and the snapshot are those begun above.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        }
        Ok(value)
    }))
    .catch_others(|error| Err(Box::new(error)))
    .execute();
    let result = result.map_err(|error| {
        // SAFETY: rolls back whatever is left of the transaction, as the server's main loop does after an error.
        unsafe { pg_sys::AbortCurrentTransaction() };
        Box::new(match *error {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
            CaughtError::RustPanic { ereport, .. } => ereport,
        })
    });
    // SAFETY: outside of any transaction.
    unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
        pg_sys::pgstat_report_stat(true);
    }
    result
}

/// The process group of the program that runs, or 0: so that it ends with this process, however that ends.
static PROGRAM: AtomicI32 = AtomicI32::new(0);

/// How long a program has to end by itself when it is told to.
const GRACE: Duration = Duration::from_millis(300);

/// A shell command that runs while this process goes on.
pub(crate) struct Program {
    child: Child,
    pub(crate) started: Instant,
}

impl Program {
    /// Runs a command of the shell with this text on its standard input, and these variables in its environment. What it prints goes where the server's own
    /// messages go before they reach the log.
    pub(crate) fn start(command: &str, input: &str, variables: &[(&str, &str)]) -> std::io::Result<Program> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", command])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            // A group of its own, so that what the shell starts ends with it.
            .process_group(0)
            .spawn()?;
        PROGRAM.store(child.id() as i32, Ordering::SeqCst);
        if let Some(mut stdin) = child.stdin.take() {
            // A checkpoint is smaller than a pipe holds, so this never waits. A program that does not want it says so by its exit status.
            let _ = stdin.write_all(input.as_bytes());
        }
        Ok(Program { child, started: Instant::now() })
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&mut self) -> Option<std::io::Result<ExitStatus>> {
        let status = self.child.try_wait().transpose()?;
        PROGRAM.store(0, Ordering::SeqCst);
        Some(status)
    }

    /// Ends it and what it has started.
    pub(crate) fn kill(mut self) {
        end_group(self.child.id() as i32);
        let _ = self.child.wait();
        PROGRAM.store(0, Ordering::SeqCst);
    }
}

/// What an exit status says, as the server says it of archive_command.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn end_group(group: i32) {
    // SAFETY: sends signals to the group of a child that was not waited for yet, so that the id is not anybody else's.
    unsafe {
        libc::kill(-group, libc::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < GRACE {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, group as libc::id_t, &mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT);
            if info.si_pid() != 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        libc::kill(-group, libc::SIGKILL);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_exit(_code: core::ffi::c_int, _argument: pg_sys::Datum) {
    let group = PROGRAM.swap(0, Ordering::SeqCst);
    if group != 0 {
        end_group(group);
    }
}

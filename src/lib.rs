//! Tamper-evident history for PostgreSQL tables.
//!
//! This crate is the glue between the server and the pure crate `audit-ledger`, which knows what an entry, its hash and a chain are.
//! A change takes the path `capture` -> `chain` -> `log`; an auditor's question takes `verify` -> `log` -> `audit_ledger`.
//!
//! | module | subject |
//! |--------|---------|
//! | `capture` | a fired trigger becomes an event |
//! | `render` | rows as JSON text |
//! | `chain` | owning a chain, linking entries, savepoints |
//! | `pending` | entries that wait to be written |
//! | `log` | the table `audit.log` |
//! | `registry` | ledger, incarnation, which tables are protected how |
//! | `protect` | putting tables under protection |
//! | `ddl` | following what DDL does to protected tables; new partitions |
//! | `guard` | refusing changes of the extension's own tables |
//! | `watch` | refusing, when preloaded, whatever would take protection away |
//! | `maintenance` | opening what `watch` keeps shut |
//! | `seal` | all chains into one tree, one row of `audit.seal` at a time |
//! | `tiles` | where that tree is stored |
//! | `proof` | proofs of that tree |
//! | `history` | what should be protected, read from the log |
//! | `coverage` | whether it is |
//! | `installation` | whether the extension's own objects are what they must be |
//! | `verify` | the log against itself, the tables against the log |
//! | `reading` | the log read once, by one process or several |
//! | `verify_seals` | seals, tree and checkpoints against the log |
//! | `incarnation` | what must be said before the ledger goes on |
//! | `checkpoint` | the newest seal as a signed text, and the file it is kept in |
//! | `key` | origin and signing key |
//! | `sealer` | the background process that does all that by itself |
//! | `views` | lines, export, states |
//! | `grants` | what an auditor needs |
//! | `settings`, `session_cache`, `error` | settings; what a backend remembers; messages |
//! | `pg` | safe wrappers of the server, the only unsafe code |

#![deny(ffi_unwind_calls, unsafe_code)]
#![warn(missing_docs)]

mod capture;
mod chain;
mod checkpoint;
mod coverage;
mod ddl;
mod error;
mod grants;
mod guard;
mod history;
mod incarnation;
mod installation;
mod key;
mod log;
mod maintenance;
mod pending;
#[allow(unsafe_code, reason = "the only home of unsafe code; each use says why it is sound")]
mod pg;
mod proof;
mod protect;
mod reading;
mod registry;
mod render;
mod seal;
mod sealer;
mod session_cache;
mod settings;
mod tiles;
mod verify;
mod verify_seals;
mod views;
mod watch;

use pgrx::prelude::*;

pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/bootstrap.sql", name = "bootstrap", bootstrap);
extension_sql_file!("../sql/tables.sql", name = "tables", requires = ["bootstrap"]);
extension_sql_file!("../sql/guards.sql", name = "guards", requires = ["tables"]);
extension_sql_file!("../sql/triggers.sql", name = "triggers", requires = ["guards"]);
extension_sql_file!("../sql/functions.sql", name = "functions", requires = ["triggers"]);
extension_sql_file!("../sql/finalize.sql", name = "finalize", finalize);

/// Called by the server when the library is loaded: by the first call of one of its functions, or at start when it is preloaded.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::define();
    pg::sha256::install();
    pg::xact::register();
    pg::hooks::install();
    if pg::worker::is_preloading() {
        pg::hooks::install_watch();
        pg::shared::request();
        pg::worker::register_launcher();
    }
}

//! What the tests against real PostgreSQL servers have in common: throw-away servers, sessions that say what went
//! wrong, and short ways to read the log and the verdicts about it.
//!
//! The tests themselves lie in `tests/`, one file a subject; `tests/README.md` of the repository says how to run them.

mod cluster;
mod ledger;
mod rng;
mod seals;
mod session;

pub use cluster::{Builder, Cluster, Database, bindir, newer_bindir, wait_until};
pub use ledger::{
    Finding, assert_clean, assert_clean_but_for, assert_found, changes, changes_of, findings, findings_of, guards_off,
    verdict,
};
pub use rng::Rng;
pub use seals::{Seals, assert_seals};
pub use session::Session;

/// A database of its own for the running test, in the server that the tests of one file share, with the extension in it.
pub fn database() -> Database<'static> {
    Cluster::shared().database()
}

/// True when the long versions of tests are asked for.
pub fn large() -> bool {
    std::env::var("AUDIT_TEST_LARGE").is_ok_and(|value| value == "1")
}

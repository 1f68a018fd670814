//! The ledger: entries, their hashes, their chains, and the engine that verifies them.
//!
//! The extension writes and verifies with this crate, and the offline program `audit-verify` verifies with it, so the two
//! cannot disagree. The bytes are those of `docs/format.md`. The crate knows nothing of PostgreSQL, files, clocks or random
//! numbers: whoever calls gives entries, times and keys.
//!
//! | module | subject |
//! |--------|---------|
//! | [`hash`] | SHA-256 of a line |
//! | [`json`] | writing strings, reading the JSON that the ledger wrote |
//! | [`entry`] | one entry and its line |
//! | [`links`] | whether entries, in any order, make whole chains |
//! | [`verify`] | content, form and links of a whole log in one pass |
//! | [`reconcile`] | whether the rows of a table are what the log says |
//! | [`finding`] | what a verification returns |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod entry;
pub mod finding;
pub mod hash;
pub mod json;
pub mod links;
pub mod reconcile;
pub mod verify;

pub use entry::{Actor, DecodeError, Entry, FormError, Operation, Table, Timestamp};
pub use finding::{Counts, Finding, Kind};
pub use hash::{Hash, ParseHashError};
pub use json::JsonError;
pub use links::{Head, Link, Links};
pub use reconcile::{Difference, DifferenceKind, Localizer, RowSums, Sign, effects};
pub use uuid::Uuid;
pub use verify::{LogVerifier, Stored, Summary};

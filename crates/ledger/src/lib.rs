//! The ledger: entries, their hashes, their chains, the tree over them, and the engine that verifies them.
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
//! | [`raw`] | the same for most entries, quickly |
//! | [`seal_verify`] | whether seals, tree and checkpoints fit the log |
//! | [`leaf_sum`] | whether two readings of the log saw the same leaves |
//! | [`reconcile`] | whether the rows of a table are what the log says |
//! | [`carry`] | whether a new baseline says what the entries before it say |
//! | [`transactions`] | whether the transaction that wrote a row is one that the log knows |
//! | [`finding`] | what a verification returns |
//! | [`seal`] | how far the chains reached, and the head of the tree over them |
//! | [`tree`] | the Merkle tree over all entries |
//! | [`proof`] | that an entry is in a tree, that one tree continues another |
//! | [`tile`] | the stored form of a tree |
//! | [`note`] | signed texts, and the keys |
//! | [`checkpoint`] | the head of a tree as a signed text |
//! | [`cosignature`] | signatures of witnesses under a checkpoint |
//! | [`tlog_proof`] | an inclusion proof with its checkpoint in one file |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod carry;
pub mod checkpoint;
pub mod cosignature;
pub mod entry;
pub mod finding;
pub mod hash;
pub mod json;
pub mod leaf_sum;
pub mod links;
pub mod note;
pub mod proof;
pub mod raw;
pub mod reconcile;
pub mod seal;
pub mod seal_verify;
mod text;
pub mod tile;
pub mod tlog_proof;
pub mod transactions;
pub mod tree;
pub mod verify;

pub use carry::Carry;
pub use checkpoint::{Checkpoint, CheckpointError, OpenedCheckpoint, end_with_one_line_feed};
pub use cosignature::{Cosignature, WitnessSignerKey, WitnessVerifierKey};
pub use entry::{Actor, DecodeError, Entry, FormError, Operation, Table, Timestamp};
pub use finding::{Counts, Finding, Kind};
pub use hash::{Hash, ParseHashError};
pub use json::JsonError;
pub use leaf_sum::LeafSum;
pub use links::{Head, Link, Links, Overlap, Stretch};
pub use note::{KeyError, KeyId, Note, NoteError, NoteVerifier, Opened, Signature, SignerKey, VerifierKey};
pub use proof::{
    BuildError, ConsistencyProof, HashReader, InclusionProof, ProofError, build_consistency_proof,
    build_inclusion_proof, verify_consistency, verify_inclusion,
};
pub use raw::{RawActor, RawEntry, RawTable, RawVerifier};
pub use reconcile::{BucketTotal, Difference, DifferenceKind, Localizer, RowSums, Sign, effects};
pub use seal::{Seal, SealFormError, StoredSeal};
pub use seal_verify::{
    Brought, CheckpointState, CheckpointTooOld, SealPlace, SealSummary, SealVerifier, SealedHash, SealedLog,
    StoredTile, read_checkpoint,
};
pub use tile::{TileError, TileId, TileReader, TileSlice, TileSource, TileWriter, WholeTile};
pub use tlog_proof::{TlogProof, TlogProofError};
pub use transactions::{Transactions, Writer};
pub use tree::{CompactRange, LeafHash, LeafIndex, NodeHash, NodeId, TreeError, TreeHead, TreeSize};
pub use uuid::Uuid;
pub use verify::{LogVerifier, Part, Stored, Summary};

//! Proofs for people outside: that an entry is in the tree of the newest checkpoint, and that this tree continues an older one.
//!
//! Only what is committed is proved: a seal of the running transaction may yet be rolled back. A proof that would not hold is an error, never given out.

use audit_ledger::tile::ReadError;
use audit_ledger::tlog_proof;
use audit_ledger::{
    BuildError, CheckpointError, CompactRange, Hash, HashReader, LeafHash, LeafIndex, TileReader, TlogProof,
    VerifierKey, build_consistency_proof, build_inclusion_proof, verify_consistency, verify_inclusion,
};

use crate::chain::hash_of;
use crate::checkpoint::{self, Made};
use crate::error::Error;
use crate::log::Log;
use crate::pg::fmgr::Call;
use crate::pg::relation::Lock;
use crate::pg::scan::{Visible, WithoutOwn};
use crate::registry::{self, Objects};
use crate::seal::Seals;
use crate::session_cache;
use crate::tiles::{self, Tiles};

/// `audit.inclusion_proof(chain, seq)`: that an entry is in the tree of the newest checkpoint, with that checkpoint, as a c2sp.org/tlog-proof.
pub(crate) fn inclusion_proof(call: &Call) -> Result<Option<String>, Error> {
    let chain: i32 = call.argument(0).ok_or(Error::NullArgument { argument: "chain" })?;
    let seq: i64 = call.argument(1).ok_or(Error::NullArgument { argument: "seq" })?;
    let objects = session_cache::objects()?;
    let tree = Tree::open(&objects)?;
    let Made { head, text: checkpoint, .. } =
        checkpoint::make(&objects, &tree.seals.ledger)?.ok_or(Error::NothingSealed)?;
    let index = tree.leaf_of(chain, seq)?;
    let not_sealed_so =
        || Error::TreeDamaged { what: format!("entry {seq} of chain {chain} is not the one that was sealed") };
    let hash = tree
        .log
        .find(&tree.seals.ledger, chain, seq, |entries, row| {
            entries.read(row).ok().map(|stored| hash_of(&stored.entry))
        })?
        .flatten()
        .ok_or_else(not_sealed_so)?;
    let mut source = tree.tiles.source(&tree.seals, &tree.log);
    let proof =
        build_inclusion_proof(index, head.size, &mut TileReader::new(head.size, &mut source)).map_err(build_error)?;
    verify_inclusion(&proof, &LeafHash::of_entry(&hash), &head).map_err(|_| not_sealed_so())?;
    Ok(Some(tlog_proof::format(&proof, &[], &checkpoint)))
}

/// `audit.consistency_proof(checkpoint)`: that the tree of the newest checkpoint continues that of an older one.
pub(crate) fn consistency_proof(call: &Call) -> Result<Option<String>, Error> {
    let text: String = call.argument(0).ok_or(Error::NullArgument { argument: "checkpoint" })?;
    let bad = |error: CheckpointError| Error::BadText { argument: "checkpoint", what: error.to_string() };
    let old = *checkpoint::unverified(&checkpoint::as_kept(text)).map_err(bad)?.head();
    let objects = session_cache::objects()?;
    let tree = Tree::open(&objects)?;
    let new = tree.seals.newest()?.ok_or(Error::NothingSealed)?.head;
    if old.size > new.size {
        return Err(Error::CheckpointAhead { size: old.size.get(), sealed: new.size.get() });
    }
    let mut source = tree.tiles.source(&tree.seals, &tree.log);
    let mut reader = TileReader::new(new.size, &mut source);
    let peaks: Vec<_> = old.size.subtrees().collect();
    let peaks = if peaks.is_empty() { Vec::new() } else { reader.read_hashes(&peaks).map_err(tiles::read_error)? };
    let computed = CompactRange::from_hashes(old.size, peaks).expect("one was asked for each subtree").head();
    if computed != old {
        return Err(Error::CheckpointDiffers {
            size: old.size.get(),
            computed: computed.root.to_string(),
            found: old.root.to_string(),
        });
    }
    let proof = build_consistency_proof(old.size, new.size, &mut reader).map_err(build_error)?;
    verify_consistency(&proof, &old, &new).map_err(|error| Error::TreeDamaged { what: error.to_string() })?;
    Ok(Some(proof.to_string()))
}

/// `audit.verify_inclusion(line, proof, vkey)`: whether a proof holds for a line; with a key, whether that key has signed its checkpoint, too.
pub(crate) fn verify(call: &Call) -> Result<bool, Error> {
    let line: String = call.argument(0).ok_or(Error::NullArgument { argument: "line" })?;
    let text: String = call.argument(1).ok_or(Error::NullArgument { argument: "proof" })?;
    let text = checkpoint::as_kept(text);
    let leaf = LeafHash::of_entry(&Hash::of(line.as_bytes()));
    let malformed = |what: String| Error::BadText { argument: "proof", what };
    let Some(vkey) = call.argument::<String>(2) else {
        let (proof, _, text) = tlog_proof::parse(&text).map_err(|error| malformed(error.to_string()))?;
        let checkpoint = checkpoint::unverified(text).map_err(|error| malformed(error.to_string()))?;
        return Ok(verify_inclusion(&proof, &leaf, checkpoint.head()).is_ok());
    };
    let key: VerifierKey = vkey
        .parse()
        .map_err(|error: audit_ledger::KeyError| Error::BadText { argument: "vkey", what: error.to_string() })?;
    let proof: TlogProof = text.parse().map_err(|error: audit_ledger::TlogProofError| malformed(error.to_string()))?;
    let origin = audit_ledger::NoteVerifier::name(&key);
    Ok(proof.verify(&leaf, origin, &key, &[]).is_ok())
}

/// Log, seals and tiles, as they are committed.
struct Tree {
    log: Log,
    seals: Seals,
    tiles: Tiles,
    _committed: WithoutOwn,
}

impl Tree {
    fn open(objects: &Objects) -> Result<Tree, Error> {
        let ledger = registry::ledger(objects, Visible::Statement)?.ok_or(Error::NoLedger)?;
        let log = Log::open(objects)?;
        let committed = WithoutOwn::new();
        Ok(Tree {
            log,
            seals: Seals::open(objects, Lock::AccessShare, ledger, Visible::Statement)?,
            tiles: Tiles::open(objects, Lock::AccessShare, Visible::Statement)?,
            _committed: committed,
        })
    }

    /// The place of an entry among the leaves.
    fn leaf_of(&self, chain: i32, seq: i64) -> Result<LeafIndex, Error> {
        let place = u32::try_from(chain).ok().zip(u64::try_from(seq).ok());
        if let Some((chain, seq)) = place
            && let Some(stored) = self.seals.range_of_entry(chain, seq)?
        {
            let index =
                stored.first_leaf.checked_add(seq - stored.range.first).and_then(|leaf| LeafIndex::new(leaf).ok());
            return index.ok_or(Error::TreeDamaged { what: "a leaf index is too large".into() });
        }
        let mut exists = false;
        if let Some((chain, seq)) = place {
            // Also one of this transaction: it is there, but not sealed for others to see.
            self.log.hashes(&self.seals.ledger, chain, seq..=seq, Visible::Now, |found, _| {
                exists = found == seq;
                false
            })?;
        }
        Err(if exists { Error::NotSealed { chain, seq } } else { Error::NoSuchEntry { chain, seq } })
    }
}

pub(crate) fn build_error(error: BuildError<ReadError<Error>>) -> Error {
    match error {
        BuildError::Read(error) => tiles::read_error(error),
        other => Error::TreeDamaged { what: other.to_string() },
    }
}

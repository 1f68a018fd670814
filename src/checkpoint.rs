//! Checkpoints: the head of the newest seal as a text to be kept outside, signed when there is a key.
//!
//! A checkpoint is given out only of a seal that is committed, and only when the log says all that an outsider must know of it; see `incarnation`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use audit_ledger::{Checkpoint, CheckpointError, Note, TreeHead, note};
use uuid::Uuid;

use crate::error::Error;
use crate::pg::fmgr::Call;
use crate::pg::relation::Lock;
use crate::pg::scan::{Visible, WithoutOwn};
use crate::pg::{file, session};
use crate::registry::{self, Objects};
use crate::seal::Seals;
use crate::{incarnation, key, session_cache, settings};

/// A checkpoint as it is given out.
pub(crate) struct Made {
    pub(crate) origin: String,
    pub(crate) head: TreeHead,
    /// A signed note, or the bare text when there is no key.
    pub(crate) text: String,
}

/// `audit.checkpoint()`: the newest checkpoint; NULL when nothing was sealed yet.
pub(crate) fn checkpoint(_call: &Call) -> Result<Option<String>, Error> {
    let objects = session_cache::objects()?;
    let Some(ledger) = registry::ledger(&objects, Visible::Statement)? else { return Ok(None) };
    Ok(make(&objects, &ledger)?.map(|made| made.text))
}

/// The head of the newest seal.
pub(crate) fn newest(objects: &Objects, ledger: &Uuid) -> Result<Option<TreeHead>, Error> {
    let newest = Seals::open(objects, Lock::AccessShare, *ledger, Visible::Statement)?.newest()?;
    Ok(newest.map(|seal| seal.head))
}

/// A checkpoint, or a proof with one, that somebody kept, whatever psql or a shell made of its end.
pub(crate) fn as_kept(text: String) -> String {
    let mut bytes = text.into_bytes();
    audit_ledger::end_with_one_line_feed(&mut bytes);
    String::from_utf8(bytes).expect("only line feeds were taken away or added")
}

/// What a checkpoint says, be it a note or the text alone. Its signatures are not looked at.
pub(crate) fn unverified(text: &str) -> Result<Checkpoint, CheckpointError> {
    match Note::parse(text.as_bytes()) {
        Ok(note) => note.unverified_text().parse(),
        Err(_) => text.parse(),
    }
}

/// Makes the checkpoint of the newest seal that is committed and that the statement sees.
pub(crate) fn make(objects: &Objects, ledger: &Uuid) -> Result<Option<Made>, Error> {
    // A seal of this transaction could still be rolled back.
    let _committed = WithoutOwn::new();
    let Some(newest) = Seals::open(objects, Lock::AccessShare, *ledger, Visible::Statement)?.newest()? else {
        return Ok(None);
    };
    let origin = key::origin(ledger);
    let signer = key::signer(&origin)?;
    let vkey = signer.as_ref().map(|signer| signer.verifier().to_string());
    incarnation::check(objects, ledger, vkey.as_deref())?;
    let unfit = |error: CheckpointError| Error::Damaged { what: error.to_string() };
    let checkpoint = Checkpoint::new(&origin, newest.head).map_err(unfit)?;
    let text = match signer {
        Some(signer) => checkpoint.sign(&[&signer]).map_err(unfit)?.to_string(),
        None => checkpoint.to_string(),
    };
    Ok(Some(Made { origin, head: newest.head, text }))
}

/// The file of the newest checkpoint of this database.
pub(crate) fn file_name(ledger: &Uuid) -> Result<Option<PathBuf>, Error> {
    let Some(template) = settings::checkpoint_file() else { return Ok(None) };
    let bad = |why: &str| Error::CheckpointFile { what: "name", why: why.to_owned() };
    let mut name = Vec::with_capacity(template.len());
    let mut bytes = template.into_iter();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            name.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'%') => name.push(b'%'),
            Some(b'l') => name.extend_from_slice(ledger.hyphenated().to_string().as_bytes()),
            Some(b'd') => {
                let database = session::database_name();
                if database.contains('/') {
                    return Err(bad("The name of this database holds a slash. Use %l in place of %d."));
                }
                name.extend_from_slice(database.as_bytes());
            }
            _ => return Err(bad("Behind % stands neither d nor l nor %.")),
        }
    }
    Ok(Some(PathBuf::from(OsString::from_vec(name))))
}

/// The checkpoint that was given out last, as the file has it; `None` when there is no file.
pub(crate) fn given_out(ledger: &Uuid) -> Result<Option<Checkpoint>, Error> {
    let Some(name) = file_name(ledger)? else { return Ok(None) };
    let failed = |why: String| Error::CheckpointFile { what: "read", why };
    let Some(text) = file::read_if_there(&name, note::MAX_LEN).map_err(failed)? else { return Ok(None) };
    // Whoever can write the file could as well remove it, so its signatures prove nothing here.
    let checkpoint =
        unverified(&text).map_err(|error| failed(format!("What it holds is no checkpoint: {error}. Move it away.")))?;
    let origin = key::origin(ledger);
    if checkpoint.origin() != origin {
        return Err(failed(format!(
            "It holds a checkpoint of \"{}\", but this ledger is \"{origin}\". Move it away, or give each ledger a file of its own with %d or %l.",
            checkpoint.origin()
        )));
    }
    Ok(Some(checkpoint))
}

/// Puts a checkpoint in the place of the one in the file.
pub(crate) fn store(name: &std::path::Path, made: &Made) -> Result<(), Error> {
    file::replace(name, &made.text).map_err(|why| Error::CheckpointFile { what: "write", why })
}

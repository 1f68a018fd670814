//! The name of the ledger to the outside, and the key that signs for it.
//!
//! The private key never leaves this process: it is read from its file each time it is needed, and wiped after. Neither SQL nor a message shows anything of it.

use audit_ledger::{KeyError, SignerKey, VerifierKey, note};
use pgrx::IntoDatum;
use uuid::Uuid;

use crate::error::Error;
use crate::pg::file;
use crate::pg::fmgr::Call;
use crate::pg::scan::Visible;
use crate::{registry, session_cache, settings};

/// `audit.public_key()`: vkey and PEM of the key that signs; no row when checkpoints are not signed.
pub(crate) fn public_key(call: &Call) -> Result<(), Error> {
    let mut rows = call.rows();
    let objects = session_cache::objects()?;
    let ledger = registry::ledger(&objects, Visible::Statement)?;
    if settings::signing_key_file().is_none() {
        return Ok(());
    }
    let origin = origin(&ledger.ok_or(Error::NoLedger)?);
    if let Some(signer) = signer(&origin)? {
        let key = signer.verifier();
        rows.push([key.to_string().into_datum(), key.to_public_key_pem().into_datum()]);
    }
    Ok(())
}

/// The name of the ledger in its checkpoints: the setting, or made of the ledger's id.
pub(crate) fn origin(ledger: &Uuid) -> String {
    settings::origin().unwrap_or_else(|| format!("audit/{}", ledger.hyphenated()))
}

/// The key that signs checkpoints of this origin; `None` when they are not signed.
pub(crate) fn signer(origin: &str) -> Result<Option<SignerKey>, Error> {
    let Some(path) = settings::signing_key_file() else {
        return Ok(None);
    };
    let pem = file::read_secret(&path, note::MAX_KEY_LEN).map_err(|why| Error::SigningKey { why })?;
    match SignerKey::from_pkcs8_pem(origin, &pem) {
        Ok(signer) => Ok(Some(signer)),
        Err(KeyError::Name(_)) => Err(Error::SigningKey { why: format!("\"{origin}\" cannot name a key.") }),
        Err(_) => Err(Error::SigningKey {
            why: "The file does not hold an Ed25519 private key in PKCS#8 PEM form without a password.".into(),
        }),
    }
}

/// The public part of that key.
pub(crate) fn vkey(origin: &str) -> Result<Option<String>, Error> {
    Ok(signer(origin)?.map(|signer| signer.verifier().to_string()))
}

/// The key that a KEY entry names; `None` when it names none.
pub(crate) fn recorded(details: &str) -> Option<VerifierKey> {
    serde_json::from_str::<serde_json::Value>(details).ok()?.get("vkey")?.as_str()?.parse().ok()
}

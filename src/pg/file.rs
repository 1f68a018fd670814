//! Files that the server reads and writes besides its data.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

/// Reads a file that must be secret, of at most `limit` bytes. The text is wiped when it is dropped.
///
/// The rules are those of the server for `ssl_key_file` (be-secure-common.c): the file belongs to the server's user, and nobody else has any right on
/// it; or it belongs to root, and then the group may read it. The error says what is wrong, but neither where the file is nor what is in it.
pub(crate) fn read_secret(path: &Path, limit: usize) -> Result<Zeroizing<String>, String> {
    let cannot = |error: io::Error| format!("The file could not be read: {}.", reason(&error));
    // Not to hang on a pipe. What is looked at below is what was opened, whoever changes the name meanwhile.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(cannot)?;
    let status = file.metadata().map_err(cannot)?;
    if !status.is_file() {
        return Err("It is not a regular file.".into());
    }
    let refused = match status.uid() {
        0 => 0o037,
        owner if owner == server_user() => 0o077,
        _ => return Err("The file must belong to the user that the server runs as, or to root.".into()),
    };
    if status.mode() & refused != 0 {
        return Err("Others than its owner have rights on the file; its mode must be 0600 or less, or 0640 or less if root owns it.".into());
    }
    read_at_most(file, limit).map_err(cannot)?.ok_or_else(|| format!("The file has more than {limit} bytes."))
}

/// Reads a file of at most `limit` bytes; `None` when there is no such file.
pub(crate) fn read_if_there(path: &Path, limit: usize) -> Result<Option<String>, String> {
    let cannot = |error: io::Error| format!("The file could not be read: {}.", reason(&error));
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(cannot)?,
    };
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err("It is not a regular file.".into());
    }
    let text =
        read_at_most(file, limit).map_err(cannot)?.ok_or_else(|| format!("The file has more than {limit} bytes."))?;
    Ok(Some(text.as_str().to_owned()))
}

/// Puts a new text in the place of a file at once: after a crash there is the old text or the new one, whole.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), String> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut other = path.as_os_str().to_owned();
    other.push(".new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&other)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&other, path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error| format!("The file could not be written: {}.", reason(&error)))
}

/// `None` when there is more.
fn read_at_most(file: File, limit: usize) -> io::Result<Option<Zeroizing<String>>> {
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 2));
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Ok(None);
    }
    let text = str::from_utf8(&bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}

/// What failed, in the words of the system, without its number.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn server_user() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

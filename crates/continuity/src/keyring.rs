//! The keyring's copy: it opens the backup, so it never lies with it.

use std::path::Path;

use crate::error::ContinuityError;
use crate::file::{self, At as _};

/// Name of the copy in its folder.
pub const NAME: &str = "keyring";
/// Longest keyring that is read back.
const MAX: u64 = 1 << 32;

/// Writes the keyring's bytes into a folder that is neither the backup's nor inside it, nor holds it. The earlier copy is
/// replaced in one step: a keyring older than the last erasure opens nothing, so there is no use in keeping it.
///
/// # Errors
/// [`ContinuityError::SamePlace`], or when the file cannot be written; the earlier copy is unharmed then.
pub fn copy(bytes: &[u8], folder: &Path, backup: &Path) -> Result<(), ContinuityError> {
    std::fs::create_dir_all(folder).at(folder)?;
    let real = folder.canonicalize().at(folder)?;
    // The backup's folder may not be there yet; then its nearest part that is decides.
    let target = std::path::absolute(backup).at(backup)?;
    let target = target.ancestors().find_map(|part| {
        let rest = target.strip_prefix(part).ok()?;
        Some(part.canonicalize().ok()?.join(rest))
    });
    let target = target.ok_or(ContinuityError::SamePlace)?;
    if real.starts_with(&target) || target.starts_with(&real) {
        return Err(ContinuityError::SamePlace);
    }
    file::write(&folder.join(NAME), bytes)
}

/// The keyring's bytes from such a folder.
///
/// # Errors
/// When the file cannot be read.
pub fn read(folder: &Path) -> Result<Vec<u8>, ContinuityError> {
    file::read(&folder.join(NAME), MAX)
}

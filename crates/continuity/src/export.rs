//! Exporting the log for outsiders: public bytes only, in the layout that `keepwell-audit` verifies.

use std::path::Path;

use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::merkle::{Frontier, leaf_hash};
use keepwell_audit::note::Signer;
use keepwell_audit::tile::Writer;
use keepwell_store::Store;

use crate::Progress;
use crate::error::ContinuityError;
use crate::file::At as _;

/// Writes the whole log into the empty folder `dir`, with a checkpoint signed now. Gives the signed checkpoint.
///
/// # Errors
/// When the folder is not empty, a file cannot be written, or the key is not available.
pub fn export_log(
    store: &Store,
    dir: &Path,
    origin: &str,
    signer: &dyn Signer,
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<u8>, ContinuityError> {
    std::fs::create_dir_all(dir).at(dir)?;
    if std::fs::read_dir(dir).at(dir)?.next().is_some() {
        return Err(ContinuityError::NotEmpty);
    }
    let view = store.view()?;
    let total = view.size()?;
    let (mut writer, mut tree) = (Writer::resume(dir, 0).at(dir)?, Frontier::new());
    view.entries(0..=u64::MAX, |entry| {
        tree.append(leaf_hash(entry.entry));
        writer.push(entry.entry).at(dir)?;
        if tree.size().is_multiple_of(1 << 14) {
            progress(Progress {
                done: tree.size(),
                total,
            });
        }
        Ok::<_, ContinuityError>(())
    })?;
    if tree.size() != total {
        return Err(ContinuityError::damaged("leaf", "entries are missing"));
    }
    let note = Checkpoint::new(origin, total, tree.root()).sign(signer)?;
    writer.finish(&note).at(dir)?;
    progress(Progress { done: total, total });
    Ok(note)
}

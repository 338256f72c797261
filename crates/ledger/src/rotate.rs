//! Rotation of all keys: a new keyring first, then the log learns its new signing key.
//!
//! 1. `vault` makes and installs the new keyring, by the steps of an erasure that destroys no slot.
//! 2. The snapshot is removed: its key died with ROOT and ERA.
//! 3. A `signing key` notice is committed and fsynced under a checkpoint that the new key signs; with it the record that a
//!    snapshot was written is cleared.
//! 4. A new snapshot and checkpoint file are written.
//!
//! A crash after 1 is finished by the next start: it finds the newest checkpoint signed by an earlier key, and goes on
//! with 3. Old checkpoints stay verifiable: the keyring keeps the public halves of earlier keys, the log names them all.

use crate::core::Core;
use crate::error::Unavailable;
use crate::follower::Follower;
use crate::writer::Log;
use crate::{keeper, snapshot};
use keepwell_audit::leaf::{Leaf, Notice as LeafNotice};
use keepwell_audit::note::VerifierKey;
use keepwell_vault::{Custodian, RecoveryKey, Vault};
use std::sync::Arc;

/// The keys that may have signed a checkpoint of this log, today's first.
pub(crate) fn log_keys(vault: &Vault, origin: &str) -> Vec<VerifierKey> {
    let publics = std::iter::once(vault.log_public()).chain(vault.log_retired().into_iter().rev());
    publics.filter_map(|public| VerifierKey::new(origin, public)).collect()
}

/// Step 3.
pub(crate) fn hand_over<F: Follower>(log: &mut Log<F>) -> Result<u64, Unavailable> {
    let at = log.core.clock.now().0;
    let notice = LeafNotice::SigningKey {
        public: log.core.vault.log_public(),
    };
    log.append_alone(&[Leaf::Notice { at, notice }], vec![snapshot::no_record()])
}

/// The whole act, in the writer thread: no slot is handed out meanwhile.
pub(crate) fn rotate<F: Follower>(
    log: &mut Log<F>,
    custodian: &dyn Custodian,
    end_tokens: bool,
) -> Result<RecoveryKey, Unavailable> {
    let core: Arc<Core<F>> = Arc::clone(&log.core);
    // No snapshot may be made of the moments in between.
    let none_between = core.snapshotting.lock();
    let (recovery, done) = core.vault.rotate(custodian, end_tokens, &|step| core.at_vault(step))?;
    for place in &done.unreachable {
        tracing::warn!(place = %place.display(), "the old ERA may still be there; it is overwritten when the place is back");
    }
    snapshot::remove(&core);
    hand_over(log)?;
    core.at_step("handed-over");
    drop(none_between);
    if let Err(e) = snapshot::save_alone(log) {
        tracing::warn!(error = %e, "no snapshot after a rotation; the next start takes longer");
    }
    keeper::write_checkpoint(&core);
    Ok(recovery)
}

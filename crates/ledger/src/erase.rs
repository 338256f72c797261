//! Erasing a patient: keys first, then the public tombstone, then everything derived.
//!
//! 1. `vault` destroys the slot's keys (its own steps are in `keepwell_vault`); from the keyring's switch on the rows
//!    are closed for good and the slot is listed as unannounced.
//! 2. Tombstone leaf and the act's event are committed and fsynced.
//! 3. The index, the patient's home and access list are dropped, the snapshot removed; the keyring's list is cleared.
//! 4. A new snapshot is written; copies of the old one died with the ERA.
//!
//! A crash after 1 repeats 2 to 4 at the next start, from the keyring's list.

use crate::core::Core;
use crate::error::{EraseError, Unavailable};
use crate::event::Event;
use crate::follower::Follower;
use crate::ledger::Erased;
use crate::snapshot;
use crate::writer::Log;
use keepwell_audit::leaf::{Leaf, Notice as LeafNotice};
use keepwell_audit::merkle::sha256;
use keepwell_vault::VaultError;

/// The tombstone of a slot: bound to the commitment that the keyring keeps of its key.
pub(crate) fn tombstone<F: Follower>(core: &Core<F>, slot: u32, at: i64) -> Leaf {
    let commitment = core.vault.commitment(slot).unwrap_or_default();
    Leaf::Notice {
        at,
        notice: LeafNotice::Erased {
            commitment: sha256(&[b"keepwell erased slot", &commitment]),
        },
    }
}

/// Steps 2 and 3. The number of the first tombstone.
pub(crate) fn announce<F: Follower>(log: &mut Log<F>, slots: &[u32], events: &[Event]) -> Result<u64, Unavailable> {
    let core = std::sync::Arc::clone(&log.core);
    let at = core.clock.now();
    let leaves: Vec<Leaf> = slots.iter().map(|slot| tombstone(&core, *slot, at.0)).collect();
    let mut dated = Vec::with_capacity(events.len());
    for event in events {
        let mut event = event.clone();
        // What the act says of the erased patient would be sealed under a key that is gone.
        event.parts.retain(|(slot, _)| !slots.contains(slot));
        dated.push((event, at));
    }
    let seq = log.append_alone(&leaves, &dated)?;
    for slot in slots {
        core.follower.forget(*slot);
        core.homes.write().forget(*slot);
        core.accesses.write().forget(*slot);
    }
    // INVARIANT (stale snapshot): one from before an erasure is there only while the keyring lists the slot.
    snapshot::remove(&core.config.dir);
    // A list that stays is announced once more at the next start: harmless.
    if let Err(e) = core.vault.announced() {
        tracing::warn!(error = %e, "the keyring could not be written after an erasure");
    }
    Ok(seq)
}

/// The whole act, in the writer thread.
pub(crate) fn erase<F: Follower>(log: &mut Log<F>, patient: &str, event: Event) -> Result<Erased, EraseError> {
    let core = std::sync::Arc::clone(&log.core);
    let (slot, pending) = {
        let homes = core.homes.read();
        (homes.slot(patient), homes.with_others(patient))
    };
    let Some(slot) = slot else {
        return Err(EraseError::Unknown);
    };
    let done = core.vault.erase(&[slot], &|_| Ok(())).map_err(|e| match e {
        VaultError::Places { have, want } => EraseError::Places { have, want },
        other => EraseError::Unavailable(other.into()),
    })?;
    let seq = announce(log, &[slot], &[event])?;
    if let Err(e) = snapshot::save(&core) {
        tracing::warn!(error = %e, "no snapshot after an erasure; the next start takes longer");
    }
    Ok(Erased {
        slots: vec![slot],
        seq,
        pending,
        confirmed: done.confirmed,
        unreachable: done.unreachable,
    })
}

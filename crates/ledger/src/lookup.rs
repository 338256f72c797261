//! Questions about the log as a whole: is it what its checkpoint says, and which event wrote a row.

use crate::core::LogSigner;
use crate::error::{ReadError, Unavailable};
use crate::{Access, Follower, Ledger};
use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::leaf::{Leaf, Notice as LeafNotice};
use keepwell_audit::merkle::{Frontier, leaf_hash};
use keepwell_audit::note::{Signer, VerifierKey};
use keepwell_store::StoreError;

impl<F: Follower> Ledger<F> {
    /// Hashes the stored log anew and compares it with the newest checkpoint, whose signature is checked. Gives the
    /// number of entries proven: those are what was logged, unchanged, in that order.
    ///
    /// # Errors
    /// The log is not what was signed, or cannot be read.
    pub fn prove_log(&self) -> Result<u64, ReadError> {
        let note = self.signed_head()?;
        let key = VerifierKey::parse(&self.verifier_key()).ok_or(ReadError::Stopped)?;
        let head = Checkpoint::open(note.as_bytes(), &[key]).map_err(|_| ReadError::Damaged(0))?;
        let failed = |e: StoreError| ReadError::Store(e.to_string());
        let mut frontier = Frontier::new();
        if head.size > 0 {
            let view = self.store().view().map_err(failed)?;
            view.entries(0..=head.size - 1, |entry| -> Result<(), StoreError> {
                frontier.append(leaf_hash(entry.entry));
                Ok(())
            })
            .map_err(failed)?;
        }
        if frontier.size() == head.size && frontier.root() == head.root {
            Ok(head.size)
        } else {
            Err(ReadError::Damaged(head.size))
        }
    }

    /// Lends the log's name and signer, for checkpoints of exports and backups.
    pub fn with_signer<R>(&self, act: impl FnOnce(&str, &dyn Signer) -> R) -> R {
        let core = self.core();
        act(
            &core.origin,
            &LogSigner {
                vault: &core.vault,
                origin: &core.origin,
            },
        )
    }

    /// Appends the leaf that says this log was restored from a backup, if a restore left its mark under `mark`: size
    /// (8 bytes, big-endian) and root. The mark goes with the leaf.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn announce_restored(&self, mark: &'static str) -> Result<bool, Unavailable> {
        let failed = |e: StoreError| Unavailable::Store(e.to_string());
        let Some(left) = self.store().meta(mark).map_err(failed)? else {
            return Ok(false);
        };
        let Some((size, root)) = left.split_first_chunk::<8>() else {
            return Ok(false);
        };
        let Ok(root) = root.try_into() else { return Ok(false) };
        let notice = LeafNotice::Restored {
            hidden_after: i64::MAX,
            size: u64::from_be_bytes(*size),
            root,
        };
        let at = self.core().clock.now().0;
        self.alone(move |log| log.append_alone(&[Leaf::Notice { at, notice }], vec![(mark.to_owned(), Vec::new())]))??;
        Ok(true)
    }

    /// The event of the request that wrote a row: the first one after the row's own leaf. Walks the log.
    ///
    /// # Errors
    /// There is no such row, or the log cannot be read.
    pub fn event_of_row(&self, rid: u64) -> Result<Access, ReadError> {
        let failed = |e: StoreError| ReadError::Store(e.to_string());
        let (mut seen, mut found) = (false, None);
        let size = self.size();
        if size > 0 {
            let view = self.store().view().map_err(failed)?;
            view.entries(0..=size - 1, |entry| -> Result<(), StoreError> {
                match Leaf::from_bytes(entry.entry) {
                    Ok(Leaf::Row { rid: r, .. }) if r == rid => seen = true,
                    Ok(Leaf::Event { .. }) if seen && found.is_none() => found = Some(entry.seq),
                    _ => {}
                }
                Ok(())
            })
            .map_err(failed)?;
        }
        self.event(found.ok_or(ReadError::Missing(rid))?)
    }
}

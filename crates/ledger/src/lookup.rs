//! Questions about the log as a whole: is an entry what its checkpoint says, and which event wrote a row.

use crate::core::LogSigner;
use crate::error::{ReadError, Unavailable};
use crate::proof::{self, Prover};
use crate::{Access, Follower, Ledger};
use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::leaf::{Leaf, Notice as LeafNotice};
use keepwell_audit::note::Signer;
use keepwell_store::StoreError;

impl<F: Follower> Ledger<F> {
    /// Proves entries below the newest checkpoint, whose signature is checked: for each whether it is what was logged,
    /// unchanged, in its place.
    ///
    /// # Errors
    /// The checkpoint cannot be signed or does not open, or the log cannot be read.
    pub fn prove(&self, entries: &[u64]) -> Result<Vec<bool>, ReadError> {
        let (_, head) = self.proven_head()?;
        let prover = Prover::new(&self.core().tiles, &head, self.store());
        Ok(prover.proves_each(entries))
    }

    /// A proof that entry `seq` is in the log, up to the newest checkpoint: C2SP `tlog-proof` text.
    ///
    /// # Errors
    /// No such entry, or it is not what was signed.
    pub fn proof(&self, seq: u64) -> Result<Vec<u8>, ReadError> {
        let (note, head) = self.proven_head()?;
        Prover::new(&self.core().tiles, &head, self.store()).file(seq, note.as_bytes())
    }

    /// The newest checkpoint, signed now where entries came since, and opened with the log's key.
    fn proven_head(&self) -> Result<(String, Checkpoint), ReadError> {
        let note = self.signed_head()?;
        let head = Checkpoint::open(note.as_bytes(), &self.verifier_keys()).map_err(|_| ReadError::Damaged(0))?;
        Ok((note, head))
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

    /// The event of the request that wrote a row: the first one after the row's own leaf.
    ///
    /// # Errors
    /// There is no such row, or the log cannot be read.
    pub fn event_of_row(&self, rid: u64) -> Result<Access, ReadError> {
        let found = proof::event_of_row(&self.core().tiles, &self.store(), self.size(), rid)
            .map_err(|e| ReadError::Store(e.to_string()))?;
        self.event(found.ok_or(ReadError::Missing(rid))?)
    }
}

//! Inclusion proofs as C2SP `tlog-proof` files, from the stored entries.

use crate::error::ReadError;
use keepwell_audit::Hash;
use keepwell_audit::merkle::leaf_hash;
use keepwell_audit::proof_file;
use keepwell_store::{Store, StoreError};

/// The proof that entry `seq` is below the signed checkpoint `note` of `size` entries. Hashes the whole log: about
/// 0.3 s for a million entries; proofs from exported tiles are quicker.
pub(crate) fn make(store: &Store, seq: u64, size: u64, note: &[u8]) -> Result<Vec<u8>, ReadError> {
    if seq >= size {
        return Err(ReadError::Missing(seq));
    }
    let failed = |e: StoreError| ReadError::Store(e.to_string());
    let view = store.view().map_err(failed)?;
    let mut leaves: Vec<Hash> = Vec::new();
    let mut wanted = Vec::new();
    view.entries(0..=size - 1, |entry| -> Result<(), StoreError> {
        leaves.push(leaf_hash(entry.entry));
        if entry.seq == seq {
            wanted = entry.entry.to_vec();
        }
        Ok(())
    })
    .map_err(failed)?;
    let file = proof_file::make(&leaves, seq, &wanted, note).map_err(|_| ReadError::Damaged(seq))?;
    Ok(file.into_bytes())
}

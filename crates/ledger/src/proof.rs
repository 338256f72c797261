//! Inclusion proofs as C2SP `tlog-proof` files, from the stored entries.

use crate::error::ReadError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use keepwell_audit::Hash;
use keepwell_audit::merkle::leaf_hash;
use keepwell_audit::proof::inclusion;
use keepwell_store::{Store, StoreError};
use std::fmt::Write;

/// The proof that entry `seq` is below the signed checkpoint `note` of `size` entries.
pub(crate) fn make(store: &Store, seq: u64, size: u64, note: &[u8]) -> Result<Vec<u8>, ReadError> {
    if seq >= size {
        return Err(ReadError::Missing(seq));
    }
    let failed = |e: StoreError| ReadError::Store(e.to_string());
    let view = store.view().map_err(failed)?;
    let mut leaves: Vec<Hash> = Vec::new();
    view.entries(0..=size - 1, |entry| -> Result<(), StoreError> {
        leaves.push(leaf_hash(entry.entry));
        Ok(())
    })
    .map_err(failed)?;
    let path = inclusion(&leaves, seq, size).map_err(|_| ReadError::Damaged(seq))?;
    let mut out = format!("c2sp.org/tlog-proof@v1\nindex {seq}\n");
    for hash in path {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", BASE64.encode(hash));
    }
    out.push('\n');
    let mut out = out.into_bytes();
    out.extend_from_slice(note);
    Ok(out)
}

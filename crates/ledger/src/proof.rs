//! Proofs that entries are in the log, and the look-up of a row's event: each reads a bounded number of entries,
//! however long the log is.

use crate::error::ReadError;
use crate::tiles::{Shared, Tiles};
use keepwell_audit::Hash;
use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::leaf::Leaf;
use keepwell_audit::merkle::leaf_hash;
use keepwell_audit::proof::{ProofError, inclusion, verify_inclusion};
use keepwell_audit::proof_file;
use keepwell_audit::tile::{WIDTH, WithTail};
use keepwell_store::StoreError;
use parking_lot::RwLock;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Tiles whose leaves are kept while entries are proven one after the other (8 KB each).
const KEPT: usize = 64;

/// Where entries are read: calls back with number and public bytes of each of a range.
pub(crate) trait Entries {
    fn each(&self, range: RangeInclusive<u64>, to: &mut dyn FnMut(u64, &[u8])) -> Result<(), StoreError>;
}

impl Entries for &keepwell_store::Store {
    // A read transaction each: a long row of proofs does not keep one open. Entries never change, so all are of one log.
    fn each(&self, range: RangeInclusive<u64>, to: &mut dyn FnMut(u64, &[u8])) -> Result<(), StoreError> {
        self.view()?.entries(range, |entry| {
            to(entry.seq, entry.entry);
            Ok(())
        })
    }
}

/// Proves entries below one checkpoint. A proof reads the tile of its entry and the last, unfinished one; what lies
/// between and above is in memory.
pub(crate) struct Prover<'a, E> {
    tiles: &'a RwLock<Tiles>,
    head: &'a Checkpoint,
    entries: E,
    leaves: RefCell<BTreeMap<u64, Vec<Hash>>>,
}

impl<'a, E: Entries> Prover<'a, E> {
    /// `head` must have been opened with the log's key: everything is proven against it.
    pub(crate) fn new(tiles: &'a RwLock<Tiles>, head: &'a Checkpoint, entries: E) -> Self {
        let leaves = RefCell::default();
        Self {
            tiles,
            head,
            entries,
            leaves,
        }
    }

    /// For each of these entries whether it is proven. Each tile among them is read once, whatever their order.
    pub(crate) fn proves_each(&self, entries: &[u64]) -> Vec<bool> {
        let mut in_order: Vec<usize> = (0..entries.len()).collect();
        in_order.sort_by_key(|at| entries.get(*at));
        let mut proven = vec![false; entries.len()];
        for at in in_order {
            if let (Some(seq), Some(proven)) = (entries.get(at), proven.get_mut(at)) {
                *proven = self.proves(*seq);
            }
        }
        proven
    }

    /// Whether entry `seq` is in the tree that the checkpoint signs: read, hashed and compared now.
    pub(crate) fn proves(&self, seq: u64) -> bool {
        let tree = self.tree();
        let proven = || -> Result<(), ProofError> {
            let leaf = self.leaf(seq)?.ok_or(ProofError::Missing(seq))?;
            let path = inclusion(&tree, seq, self.head.size)?;
            verify_inclusion(&leaf, seq, self.head.size, &path, &self.head.root)
        };
        proven().is_ok()
    }

    /// The proof of entry `seq` as a file. `note` is the checkpoint as signed.
    pub(crate) fn file(&self, seq: u64, note: &[u8]) -> Result<Vec<u8>, ReadError> {
        if seq >= self.head.size {
            return Err(ReadError::Missing(seq));
        }
        let mut wanted = None;
        self.entries
            .each(seq..=seq, &mut |_, entry| wanted = Some(entry.to_vec()))
            .map_err(|e| ReadError::Store(e.to_string()))?;
        let wanted = wanted.ok_or(ReadError::Missing(seq))?;
        let file = proof_file::make(&self.tree(), seq, &wanted, note).map_err(|_| ReadError::Damaged(seq))?;
        Ok(file.into_bytes())
    }

    fn tree(&self) -> WithTail<Shared<'_>, impl Fn(u64) -> Result<Option<Hash>, ProofError>> {
        WithTail {
            reader: Shared(self.tiles),
            leaf: |seq| self.leaf(seq),
        }
    }

    /// The hash of one leaf; its whole tile is read, since a proof asks for all of it.
    fn leaf(&self, seq: u64) -> Result<Option<Hash>, ProofError> {
        let (tile, at) = (seq / WIDTH, (seq % WIDTH) as usize);
        let mut kept = self.leaves.borrow_mut();
        if let Some(leaves) = kept.get(&tile) {
            return Ok(leaves.get(at).copied());
        }
        let first = tile * WIDTH;
        let last = (first + WIDTH).min(self.head.size).saturating_sub(1);
        let mut leaves = Vec::new();
        let mut next = first;
        self.entries
            .each(first..=last, &mut |seq, entry| {
                // Behind a gap nothing is at its place any more.
                if seq == next {
                    leaves.push(leaf_hash(entry));
                    next += 1;
                }
            })
            .map_err(|e| ProofError::Read(std::io::Error::other(e)))?;
        let hash = leaves.get(at).copied();
        if kept.len() >= KEPT {
            // All but the unfinished one, which is part of every path.
            kept.retain(|tile, _| *tile == self.head.size / WIDTH);
        }
        kept.insert(tile, leaves);
        Ok(hash)
    }
}

/// The event of the request that wrote a row: the first one after the row's own leaf, in a log of `size` entries. Reads
/// the tile with the leaf, and the next one with an event if that one has none.
pub(crate) fn event_of_row(
    tiles: &RwLock<Tiles>,
    entries: &impl Entries,
    size: u64,
    rid: u64,
) -> Result<Option<u64>, StoreError> {
    let home = tiles.read().of_row(rid);
    let (mut seen, mut found) = (false, None);
    let mut look = |tile: u64| -> Result<(bool, Option<u64>), StoreError> {
        let first = tile * WIDTH;
        let last = (first + WIDTH).min(size).saturating_sub(1);
        entries.each(first..=last, &mut |seq, entry| match Leaf::from_bytes(entry) {
            Ok(Leaf::Row { rid: r, .. }) if r == rid => seen = true,
            Ok(Leaf::Event { .. }) if seen && found.is_none() => found = Some(seq),
            _ => {}
        })?;
        Ok((seen, found))
    };
    match look(home)? {
        (true, None) => {
            let next = tiles.read().next_with_event(home);
            Ok(look(next)?.1)
        }
        (_, found) => Ok(found),
    }
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;

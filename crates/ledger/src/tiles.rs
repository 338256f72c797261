//! What is remembered of each 256 entries of the log, so that a proof or a look-up reads a few of them and not all.
//!
//! For each full tile (256 entries from the left): the root of its tree, the highest row number up to its end, and
//! whether it holds an event; about 80 bytes. All of it is derived from the entries: built while they are appended or
//! replayed, carried over a restart by the snapshot. Nothing is believed because of it: a proof is checked against the
//! signed checkpoint before anybody gets it.

use crate::varint::{Reader, put};
use keepwell_audit::Hash;
use keepwell_audit::leaf::Leaf;
use keepwell_audit::merkle::{Frontier, leaf_hash};
use keepwell_audit::proof::{HashReader, ProofError};
use keepwell_audit::tile::{Roots, WIDTH};
use parking_lot::RwLock;

/// What a tile holds beside its hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    /// The highest row number in this tile or before it; row numbers rise along the log.
    last_rid: u64,
    /// Whether there is an event in it.
    event: bool,
}

/// The log's full tiles, and the mark of the one that is filling.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tiles {
    roots: Roots,
    /// INVARIANT (marks): one for each root.
    marks: Vec<Mark>,
    open: Mark,
}

impl Tiles {
    /// Takes in entry `seq`, the one after the last. `roots` gives the root of each tile that becomes full.
    pub(crate) fn add(&mut self, seq: u64, entry: &[u8], roots: &mut impl Iterator<Item = Hash>) {
        match Leaf::from_bytes(entry) {
            // The highest, also in a damaged log whose entries are out of order: marks never fall.
            Ok(Leaf::Row { rid, .. }) => self.open.last_rid = self.open.last_rid.max(rid),
            Ok(Leaf::Event { .. }) => self.open.event = true,
            _ => {}
        }
        if (seq + 1).is_multiple_of(WIDTH)
            && let Some(root) = roots.next()
        {
            self.roots.push(root);
            self.marks.push(self.open);
            self.open.event = false;
        }
    }

    /// Appends an entry to the tree as well.
    pub(crate) fn append(&mut self, tree: &mut Frontier, entry: &[u8]) {
        let seq = tree.size();
        let full = append(tree, entry);
        self.add(seq, entry, &mut full.into_iter());
    }

    /// The tile that holds the leaf of row `rid`, if there is one; the filling tile is the last.
    pub(crate) fn of_row(&self, rid: u64) -> u64 {
        self.marks.partition_point(|mark| mark.last_rid < rid) as u64
    }

    /// The next tile after `tile` with an event in it; the filling one, if no other.
    pub(crate) fn next_with_event(&self, tile: u64) -> u64 {
        let after = usize::try_from(tile).unwrap_or(usize::MAX).saturating_add(1);
        let rest = self.marks.get(after..).unwrap_or_default();
        let found = rest.iter().position(|mark| mark.event).unwrap_or(rest.len());
        (after + found) as u64
    }

    pub(crate) fn dump(&self, out: &mut Vec<u8>) {
        put(out, self.marks.len() as u64);
        out.extend_from_slice(self.roots.tiles().as_flattened());
        let mut before = 0;
        for mark in self.marks.iter().chain([&self.open]) {
            put(out, mark.last_rid - before);
            out.push(u8::from(mark.event));
            before = mark.last_rid;
        }
    }

    /// Reads [`Tiles::dump`]; `None` when it is not that, or not of a log of `size` entries.
    pub(crate) fn load(r: &mut Reader<'_>, size: u64) -> Option<Self> {
        let count = r.length()?;
        if count as u64 != size / WIDTH {
            return None;
        }
        let (hashes, _) = r.bytes(count.checked_mul(32)?)?.as_chunks::<32>();
        let roots = hashes.iter().copied().collect();
        let mut marks = Vec::with_capacity(count + 1);
        let mut last_rid = 0_u64;
        for _ in 0..=count {
            last_rid = last_rid.checked_add(r.varint()?)?;
            let event = match r.array::<1>()? {
                [0] => false,
                [1] => true,
                _ => return None,
            };
            marks.push(Mark { last_rid, event });
        }
        let open = marks.pop()?;
        Some(Self { roots, marks, open })
    }
}

/// Appends an entry to the tree; gives the root of the tile that it fills.
pub(crate) fn append(tree: &mut Frontier, entry: &[u8]) -> Option<Hash> {
    let mut root = None;
    tree.append_with(leaf_hash(entry), |level, _, hash| {
        if level == Roots::LEVEL {
            root = Some(*hash);
        }
    });
    root
}

/// The roots of a log that goes on growing: locked for a moment at each look.
pub(crate) struct Shared<'a>(pub(crate) &'a RwLock<Tiles>);

impl HashReader for Shared<'_> {
    fn node(&self, level: u8, index: u64) -> Result<Option<Hash>, ProofError> {
        self.0.read().roots.node(level, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A damaged database can give entries in any order; `verify` must be able to look at it.
    #[test]
    fn rows_out_of_order_are_dumped_and_read_back() {
        let (mut tree, mut tiles) = (Frontier::new(), Tiles::default());
        for n in 0..3 * WIDTH {
            let leaf = Leaf::Row {
                rid: 3 * WIDTH - n,
                digest: [0; 32],
            };
            tiles.append(&mut tree, &leaf.to_bytes());
        }
        let mut bytes = Vec::new();
        tiles.dump(&mut bytes);
        let loaded = Tiles::load(&mut Reader(&bytes), tree.size());
        assert!(loaded == Some(tiles));
    }
}

//! Comparing indexes: what the log gives when it is read from its first row, what the snapshot gives, what the running
//! server holds.
//!
//! INVARIANT (pure index) says that they are the same. A running ledger is compared at a moment between two commits and
//! between two erasures: applying waits while its part is digested, as it does for a snapshot.

use crate::core::Core;
use crate::erase;
use crate::error::OpenError;
use crate::event::Accesses;
use crate::follower::Follower;
use crate::homes::Homes;
use crate::replay::{Replay, grow};
use crate::snapshot::Loaded;
use crate::tiles::Tiles;
use keepwell_audit::Hash;
use keepwell_audit::merkle::{Frontier, sha256};
use keepwell_store::Store;
use keepwell_vault::Vault;
use parking_lot::RwLock;
use std::io::{self, Write};
use std::sync::atomic::Ordering;

/// State derived from the log a second time.
pub(crate) struct Derived<F: Follower> {
    follower: F,
    homes: RwLock<Homes>,
    accesses: RwLock<Accesses>,
    tiles: Tiles,
    tree: Frontier,
    rows: u64,
    /// Slots destroyed before this began: nothing of them can be in it.
    destroyed: Vec<u32>,
}

impl<F: Follower> Derived<F> {
    /// Of an empty log.
    pub(crate) fn new(follower: F, vault: &Vault) -> Self {
        Self::loaded(follower, Loaded::default(), vault.destroyed())
    }

    /// Of a snapshot that was opened when the slots of `destroyed` were.
    pub(crate) fn loaded(follower: F, loaded: Loaded, destroyed: Vec<u32>) -> Self {
        Self {
            follower,
            homes: RwLock::new(loaded.homes),
            accesses: RwLock::new(loaded.accesses),
            tiles: loaded.tiles,
            tree: loaded.frontier,
            rows: loaded.record.rows,
            destroyed,
        }
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn entries(&self) -> u64 {
        self.tree.size()
    }

    /// Goes on over the stored rows up to `last_rid` and entries up to `size` of them. What does not open is left out: it
    /// is found and named where rows and entries are looked at one by one.
    pub(crate) fn follow(&mut self, store: &Store, vault: &Vault, last_rid: u64, size: u64) -> Result<(), OpenError> {
        let replay = Replay {
            store,
            vault,
            follower: &self.follower,
            homes: &self.homes,
            accesses: &self.accesses,
        };
        replay.rows(self.rows, last_rid)?;
        replay.entries(self.tree.size(), size)?;
        grow(store, &mut self.tree, &mut self.tiles, size)?;
        self.rows = self.rows.max(last_rid);
        Ok(())
    }

    /// Drops the slots destroyed since this began.
    fn forget(&mut self, destroyed: &[u32]) {
        for slot in destroyed.iter().filter(|slot| !self.destroyed.contains(slot)) {
            self.follower.forget(*slot);
            self.homes.write().forget(*slot);
            self.accesses.write().forget(*slot);
        }
    }

    pub(crate) fn digests(&self) -> Digests {
        Digests::of(&self.follower, &self.homes, &self.accesses, &self.tiles, &self.tree)
    }
}

/// Brings `derived` to a moment of the running ledger; the digests of both there. `None` while an erasure waits for its
/// end: the index still knows rows whose key is gone.
pub(crate) fn with_live<F: Follower>(
    core: &Core<F>,
    mut derived: Derived<F>,
) -> Result<Option<(Digests, Digests)>, OpenError> {
    let follow = |derived: &mut Derived<F>| {
        let (rows, size) = (core.visible.load(Ordering::Acquire), core.size.load(Ordering::Acquire));
        derived.follow(&core.store, &core.vault, rows, size)
    };
    // Most of it while the writer goes on.
    follow(&mut derived)?;
    let (live, destroyed) = {
        let _no_erasure = core.snapshotting.lock();
        if !core.vault.unannounced().is_empty() || !erase::begun(&core.store)?.is_empty() {
            return Ok(None);
        }
        let _still = core.applying.read();
        follow(&mut derived)?;
        let (tiles, tree) = (core.tiles.read(), core.frontier.read());
        (
            Digests::of(core.follower.as_ref(), &core.homes, &core.accesses, &tiles, &tree),
            core.vault.destroyed(),
        )
    };
    derived.forget(&destroyed);
    Ok(Some((derived.digests(), live)))
}

/// What is derived from the log, as digests of its canonical form.
pub(crate) struct Digests {
    /// What searches and reads are answered from, and whose each slot is. It depends on the rows alone.
    pub(crate) index: Hash,
    accesses: Hash,
    tree: Hash,
}

impl Digests {
    fn of<F: Follower>(
        follower: &F,
        homes: &RwLock<Homes>,
        accesses: &RwLock<Accesses>,
        tiles: &Tiles,
        tree: &Frontier,
    ) -> Self {
        let mut bytes = Vec::new();
        homes.read().canonical(&mut bytes);
        let mut index = Digest::default();
        // A digest takes whatever is written to it.
        let _ = index.write_all(&bytes).and_then(|()| follower.canonical(&mut index));
        bytes.clear();
        accesses.read().dump(&mut bytes);
        let accesses = sha256(&[&bytes]);
        bytes.clear();
        tiles.dump(&mut bytes);
        Self {
            index: index.finish(),
            accesses,
            tree: sha256(&[&bytes, &tree.to_bytes()]),
        }
    }

    /// The names of what is not the same.
    pub(crate) fn differences(&self, other: &Self) -> impl Iterator<Item = &'static str> {
        [
            ("the index", self.index != other.index),
            ("the access lists", self.accesses != other.accesses),
            ("the tree of entries", self.tree != other.tree),
        ]
        .into_iter()
        .filter_map(|(what, differ)| differ.then_some(what))
    }
}

/// SHA-256 in pieces of one size, each with the digest of those before it: it does not depend on how writes are cut.
#[derive(Default)]
struct Digest {
    before: Hash,
    piece: Vec<u8>,
}

impl Digest {
    const PIECE: usize = 1 << 16;

    fn finish(self) -> Hash {
        sha256(&[&self.before, &self.piece])
    }
}

impl Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(Self::PIECE - self.piece.len());
        self.piece.extend_from_slice(bytes.get(..n).unwrap_or_default());
        if self.piece.len() == Self::PIECE {
            self.before = sha256(&[&self.before, &self.piece]);
            self.piece.clear();
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

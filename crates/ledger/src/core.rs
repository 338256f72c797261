//! What the writer, the readers and the keeper share.

use crate::error::{Notice, ReadError, Unavailable};
use crate::event::Accesses;
use crate::follower::{Follower, Header};
use crate::homes::Homes;
use crate::ledger::{Config, Opened};
use crate::replay::Replay;
use crate::snapshot::Record;
use crate::tiles::Tiles;
use crate::{body, row};
use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::note::{CannotSign, Signer};
use keepwell_model::time::{Clock, Entropy};
use keepwell_store::{RowCache, Store, StoreError};
use keepwell_vault::{Vault, VaultError};
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(crate) struct Core<F: Follower> {
    pub(crate) config: Config,
    pub(crate) follower: Arc<F>,
    pub(crate) vault: Vault,
    pub(crate) store: Store,
    /// Rows opened lately.
    ///
    /// INVARIANT (no key, no text): whatever makes a key unusable calls [`RowCache::forget_all`] before it returns, so
    /// that nothing is shown from here that could no longer be opened. A row's bytes never change while a ledger is open.
    pub(crate) opened: RowCache<Opened>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) origin: String,
    pub(crate) homes: RwLock<Homes>,
    pub(crate) accesses: RwLock<Accesses>,
    /// Rows up to here are durable and in the index.
    pub(crate) visible: AtomicU64,
    /// Entries committed.
    pub(crate) size: AtomicU64,
    pub(crate) head: RwLock<Head>,
    /// The tree that belongs to `visible`.
    pub(crate) frontier: RwLock<keepwell_audit::merkle::Frontier>,
    /// The full tiles of the tree.
    pub(crate) tiles: RwLock<Tiles>,
    /// The newest snapshot, if it is there.
    pub(crate) snapshot: Mutex<Option<Record>>,
    /// One snapshot at a time.
    pub(crate) snapshotting: Mutex<()>,
    pub(crate) notices: Mutex<Vec<Notice>>,
    pub(crate) stopped: AtomicBool,
    /// Held for writing while rows are applied, for reading while the index is dumped.
    pub(crate) applying: RwLock<()>,
    pub(crate) failure: Mutex<Option<Unavailable>>,
}

/// The newest checkpoint and whether everything up to it is fsynced.
#[derive(Clone, Default)]
pub(crate) struct Head {
    pub(crate) size: u64,
    pub(crate) note: Vec<u8>,
}

impl<F: Follower> Core<F> {
    pub(crate) fn notice(&self, notice: Notice) {
        let mut notices = self.notices.lock();
        if notices.len() < 1000 && !notices.contains(&notice) {
            notices.push(notice);
        }
    }

    /// From the store into the live state.
    pub(crate) fn replay(&self) -> Replay<'_, F> {
        Replay {
            store: &self.store,
            vault: &self.vault,
            follower: self.follower.as_ref(),
            homes: &self.homes,
            accesses: &self.accesses,
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// A row with its attachments, opened now or lately.
    pub(crate) fn opened(&self, rid: u64) -> Result<Arc<Opened>, ReadError> {
        if let Some(kept) = self.opened.get(rid) {
            return Ok(kept);
        }
        let epoch = self.opened.epoch();
        let (header, text, slot) = self.open_row(rid, true)?;
        let opened = Arc::new(Opened { header, text, slot });
        let size = size_of::<Opened>() + opened.header.id.len() + opened.text.len();
        self.opened.put(epoch, rid, size, || Arc::clone(&opened));
        Ok(opened)
    }

    /// Opens a row; attachments are put back when `whole`.
    pub(crate) fn open_row(&self, rid: u64, whole: bool) -> Result<(Header, Vec<u8>, u32), ReadError> {
        let row = read_row(&self.store, &self.vault, rid)?;
        if row.cuts.is_empty() || !whole {
            return Ok((row.header, row.text, row.slot));
        }
        let mut cuts = Vec::with_capacity(row.cuts.len());
        for (at, blob) in row.cuts.iter().zip(rid + 1..) {
            let attachment = read_row(&self.store, &self.vault, blob)?;
            if attachment.header.kind != crate::Kind::Blob || attachment.header.prev != rid {
                return Err(ReadError::Damaged(rid));
            }
            cuts.push((*at, attachment.text));
        }
        let text = body::splice(&row.text, &cuts).ok_or(ReadError::Damaged(rid))?;
        Ok((row.header, text, row.slot))
    }
}

pub(crate) fn read_row(store: &Store, vault: &Vault, rid: u64) -> Result<row::Row, ReadError> {
    store
        .with_row(rid, |found| row::open(vault, rid, &found.key_ref, found.body))
        .map_err(|e| ReadError::Store(e.to_string()))?
        .unwrap_or(Err(ReadError::Missing(rid)))
}

impl From<StoreError> for Unavailable {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::DiskFull,
            StoreError::ReadOnly => Self::ReadOnly,
            other => Self::Store(other.to_string()),
        }
    }
}

impl From<VaultError> for Unavailable {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Entropy => Self::Entropy,
            VaultError::NoSlot => Self::Unplaceable("the slot does not exist"),
            VaultError::Destroyed => Self::Unplaceable("the slot was erased"),
            VaultError::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => Self::DiskFull,
            VaultError::Io(e) if e.kind() == std::io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            other => Self::Keyring(other.to_string()),
        }
    }
}

/// The log's signer, lent to `audit`.
pub(crate) struct LogSigner<'a> {
    pub(crate) vault: &'a Vault,
    pub(crate) origin: &'a str,
}

impl Signer for LogSigner<'_> {
    fn name(&self) -> &str {
        self.origin
    }

    fn public_key(&self) -> [u8; 32] {
        self.vault.log_public()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], CannotSign> {
        Ok(self.vault.sign_log(message))
    }
}

impl LogSigner<'_> {
    pub(crate) fn checkpoint(&self, size: u64, root: keepwell_audit::Hash) -> Result<Vec<u8>, CannotSign> {
        Checkpoint::new(self.origin, size, root).sign(self)
    }
}

/// Random bytes drawn in blocks; one per thread that seals.
pub(crate) struct Randomness {
    entropy: Arc<dyn Entropy>,
    block: zeroize::Zeroizing<[u8; 4096]>,
    used: usize,
}

impl Randomness {
    pub(crate) fn new(entropy: Arc<dyn Entropy>) -> Self {
        Self {
            entropy,
            block: zeroize::Zeroizing::new([0; 4096]),
            used: 4096,
        }
    }

    pub(crate) fn take(&mut self) -> Option<[u8; 16]> {
        if self.used + 16 > self.block.len() {
            self.entropy.fill(self.block.as_mut_slice()).ok()?;
            self.used = 0;
        }
        let out = self.block.get(self.used..)?.first_chunk::<16>().copied();
        self.used += 16;
        out
    }
}

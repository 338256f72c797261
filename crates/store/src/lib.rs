//! Sealed rows and log entries in SQLite.
//!
//! The store keeps bytes and order, and knows nothing of what they mean: it links no key, so it cannot open a row.
//! One [`Writer`] commits [`Batch`]es; any thread reads through [`Store`], which never waits for the writer.
//! `docs/formats/store.md` says what is durable when, and why an acknowledged commit survives a power cut.

mod error;
mod lock;
mod record;

pub use error::StoreError;
pub use lock::DirectoryLock;
pub use record::{Batch, CheckpointRecord, Durability, EntryRecord, EntryRef, RowRecord, RowRef};

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

/// Something an operator must hear about at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The disk is full: the reserve file was deleted, batches with rows are refused from now on.
    ReserveReleased,
    /// There is room again: the reserve file is back and rows are accepted.
    ReserveRestored,
    /// An fdatasync failed: nothing is accepted until the directory is opened again.
    SyncFailed,
}

/// How to open a data directory.
pub struct Options {
    /// Size of the reserve file in bytes; 0 for none. 256 MB by default.
    pub reserve_bytes: u64,
    /// Number of reading connections.
    pub readers: usize,
    /// Limit on the database's pages (4 KB each); `None` for SQLite's own. Tests of a full disk use it.
    pub max_pages: Option<u32>,
    /// Called from the thread that notices; must return fast.
    pub alarm: Arc<dyn Fn(Alarm) + Send + Sync>,
    /// A lock already held on the directory; taken by `open` when `None`.
    pub lock: Option<DirectoryLock>,
}

impl Default for Options {
    fn default() -> Self {
        Self { reserve_bytes: 256 << 20, readers: 8, max_pages: None, alarm: Arc::new(|_| ()), lock: None }
    }
}

/// The reading side; cheap to clone, shared by all threads.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner;

/// The only writing side.
pub struct Writer {
    store: Store,
}

/// One read transaction: everything seen through it is one moment of the store. Holds back the WAL's reuse: keep it short.
pub struct View<'a> {
    store: &'a Store,
}

impl Store {
    /// Opens or creates the database in `dir`, taking the directory's lock.
    ///
    /// # Errors
    /// [`StoreError::AlreadyRunning`] when another process holds the directory.
    pub fn open(dir: &Path, options: Options) -> Result<(Self, Writer), StoreError> {
        unimplemented!("{dir:?} {}", options.readers)
    }

    /// Opens an existing database for reading only: a read-only medium, or a look beside a running server.
    ///
    /// # Errors
    /// When the database is missing, damaged, or needs a recovery that a read-only medium forbids.
    pub fn open_read_only(dir: &Path) -> Result<Self, StoreError> {
        unimplemented!("{dir:?}")
    }

    /// Makes everything committed so far survive a power cut. May run on any thread beside the writer.
    ///
    /// # Errors
    /// When the device refuses; the store then accepts no more commits.
    pub fn sync(&self) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// The row `rid`, copied.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn row(&self, rid: u64) -> Result<Option<RowRecord>, StoreError> {
        self.with_row(rid, |row| row.to_record())
    }

    /// Calls `read` with the row `rid`, without copying; `None` when there is no such row.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn with_row<R>(&self, rid: u64, read: impl FnOnce(RowRef<'_>) -> R) -> Result<Option<R>, StoreError> {
        let _ = (rid, read);
        unimplemented!()
    }

    /// The entry `seq`, copied.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn entry(&self, seq: u64) -> Result<Option<EntryRecord>, StoreError> {
        let _ = seq;
        unimplemented!()
    }

    /// A read transaction.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn view(&self) -> Result<View<'_>, StoreError> {
        unimplemented!()
    }

    /// The value stored under `key`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let _ = key;
        unimplemented!()
    }

    /// Whether the reserve file has been given up: rows are refused, entries still accepted.
    #[must_use]
    pub fn on_reserve(&self) -> bool {
        unimplemented!()
    }

    /// Bytes of the database and its WAL on disk.
    ///
    /// # Errors
    /// When the files cannot be looked at.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        unimplemented!()
    }

    /// SQLite's own check of the whole file; the messages name pages, never content. Empty when all is well.
    ///
    /// # Errors
    /// When the database cannot be read at all.
    pub fn integrity(&self) -> Result<Vec<String>, StoreError> {
        unimplemented!()
    }
}

impl View<'_> {
    /// The highest row number; 0 when there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn last_rid(&self) -> Result<u64, StoreError> {
        let _ = self.store;
        unimplemented!()
    }

    /// The number of entries, which is the next entry's number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn size(&self) -> Result<u64, StoreError> {
        unimplemented!()
    }

    /// The newest checkpoint.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn last_checkpoint(&self) -> Result<Option<CheckpointRecord>, StoreError> {
        unimplemented!()
    }

    /// All key-value pairs, by key.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn all_meta(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        unimplemented!()
    }

    /// Calls `each` with every row of the range in order; stops at the first error.
    ///
    /// # Errors
    /// When the database cannot be read, or the first error of `each`.
    pub fn rows<E: From<StoreError>>(
        &self,
        range: RangeInclusive<u64>,
        each: impl FnMut(RowRef<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let _ = (range, each);
        unimplemented!()
    }

    /// Calls `each` with every entry of the range in order; stops at the first error.
    ///
    /// # Errors
    /// When the database cannot be read, or the first error of `each`.
    pub fn entries<E: From<StoreError>>(
        &self,
        range: RangeInclusive<u64>,
        each: impl FnMut(EntryRef<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let _ = (range, each);
        unimplemented!()
    }
}

impl Writer {
    /// The reading side of the same store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Commits a batch, all or nothing. On return the batch is in the WAL (it survives a killed process) and, with
    /// [`Durability::Fsync`], on the device (it survives a power cut). Row numbers must be above every earlier one,
    /// entry numbers must follow without a gap.
    ///
    /// # Errors
    /// Nothing of the batch is stored then. [`StoreError::Full`] for a batch with rows also while the store lives on
    /// its reserve; entries alone are accepted until that is used up too.
    pub fn commit(&mut self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        let _ = (batch, durability);
        unimplemented!()
    }

    /// Stops the helper thread and empties the WAL into the database. Dropping the writer does the same, silently.
    ///
    /// # Errors
    /// When the WAL cannot be emptied; nothing is lost, the next open does it.
    pub fn close(self) -> Result<(), StoreError> {
        unimplemented!()
    }
}

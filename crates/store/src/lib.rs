//! Sealed rows and log entries in SQLite.
//!
//! The store keeps bytes and order, and knows nothing of what they mean: it links no key, so it cannot open a row.
//! One [`Writer`] commits [`Batch`]es; any thread reads through [`Store`], which never waits for the writer.
//! `docs/formats/store.md` says what is durable when, and why an acknowledged commit survives a power cut.

mod cache;
mod error;
mod lock;
mod read;
mod record;
mod reserve;
mod schema;
mod writer;

pub use cache::RowCache;
pub use error::StoreError;
pub use lock::DirectoryLock;
pub use record::{Batch, CheckpointRecord, Durability, EntryRecord, EntryRef, RowRecord, RowRef};
pub use writer::Writer;

use std::fs::File;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::MutexGuard;
use rusqlite::Connection;

use read::Pool;
use reserve::Reserve;
use schema::Use;

/// Name of the database in a data directory.
pub const DATABASE: &str = "keepwell.db";

/// How keys in `meta` begin that speak of other files of this data directory: no backup takes them.
pub const DIRECTORY: &str = "directory/";

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
    /// Memory for sealed rows read lately, in bytes; 0 for none.
    pub cache_bytes: usize,
    /// Limit on the database's pages (4 KB each); `None` for SQLite's own. Tests of a full disk use it.
    pub max_pages: Option<u32>,
    /// Called from the thread that notices; must return fast.
    pub alarm: Arc<dyn Fn(Alarm) + Send + Sync>,
    /// A lock already held on the directory; taken by `open` when `None`.
    pub lock: Option<DirectoryLock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            reserve_bytes: 256 << 20,
            readers: 4,
            cache_bytes: 32 << 20,
            max_pages: None,
            alarm: Arc::new(|_| ()),
            lock: None,
        }
    }
}

/// The reading side; cheap to clone, shared by all threads.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    readers: Pool,
    cache: RowCache<RowRecord>,
    path: PathBuf,
    /// The WAL, for fdatasync; `None` when opened for reading only. Never the database file itself: closing any
    /// descriptor of that would drop SQLite's POSIX locks on it.
    wal: Option<File>,
    /// An fdatasync has failed; the kernel may have dropped the pages, so nothing may be acknowledged any more.
    failed: AtomicBool,
    reserve: Reserve,
    on_reserve: AtomicBool,
    alarm: Arc<dyn Fn(Alarm) + Send + Sync>,
    /// Last, so that it is given back after the connections are closed.
    _lock: Option<DirectoryLock>,
}

/// One read transaction: everything seen through it is one moment of the store. Holds back the WAL's reuse: keep it short.
pub struct View<'a> {
    connection: MutexGuard<'a, Connection>,
}

impl Store {
    /// Opens or creates the database in `dir`, taking the directory's lock. A WAL left by a killed process is
    /// recovered: the store then holds every commit that had returned.
    ///
    /// # Errors
    /// [`StoreError::AlreadyRunning`] when another process holds the directory.
    pub fn open(dir: &Path, options: Options) -> Result<(Self, Writer), StoreError> {
        let lock = match options.lock {
            Some(lock) => lock,
            None => DirectoryLock::acquire(dir)?,
        };
        let path = dir.join(DATABASE);
        create_private(&path)?;
        let writer = schema::connect(&path, Use::Write)?;
        schema::prepare(&writer)?;
        if let Some(pages) = options.max_pages {
            writer.pragma_update(None, "max_page_count", pages)?;
        }
        let wal = File::open(dir.join(format!("{DATABASE}-wal")))?;
        // What recovery found may never have reached the device; and the files' names must, before anything in them.
        wal.sync_all()?;
        File::open(dir)?.sync_all()?;
        let helper = schema::connect(&path, Use::Checkpoint)?;
        helper.pragma_update(None, "synchronous", "NORMAL")?;
        let readers = (0..options.readers.max(1))
            .map(|_| reader(&path))
            .collect::<Result<_, _>>()?;
        let reserve = Reserve::new(dir, options.reserve_bytes);
        let on_reserve = !reserve.fill()?;
        if on_reserve {
            (options.alarm)(Alarm::ReserveReleased);
        }
        let inner = Inner {
            readers: Pool::new(readers),
            cache: RowCache::new(options.cache_bytes),
            path,
            wal: Some(wal),
            failed: AtomicBool::new(false),
            reserve,
            on_reserve: AtomicBool::new(on_reserve),
            alarm: options.alarm,
            _lock: Some(lock),
        };
        let store = Self { inner: Arc::new(inner) };
        let writer = Writer::new(store.clone(), writer, helper)?;
        Ok((store, writer))
    }

    /// Opens an existing database for reading only: a read-only medium, or a look beside a running server.
    ///
    /// # Errors
    /// When the database is missing, damaged, or needs a recovery that a read-only medium forbids.
    pub fn open_read_only(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(DATABASE);
        if !path.try_exists()? {
            return Err(StoreError::Missing);
        }
        let empty_wal = std::fs::metadata(dir.join(format!("{DATABASE}-wal"))).map_or(true, |m| m.len() == 0);
        let open = |purpose| {
            let connection = schema::connect(&path, purpose)?;
            schema::check(&connection)?;
            Ok::<_, StoreError>(connection)
        };
        let mut purpose = Use::Read;
        let first = match open(purpose) {
            // Without a WAL file SQLite wants to make one, which a read-only medium forbids.
            Err(StoreError::ReadOnly | StoreError::Io(_)) if empty_wal => {
                purpose = Use::Immutable;
                open(purpose)?
            }
            other => other?,
        };
        let readers = vec![first, open(purpose)?, open(purpose)?, open(purpose)?];
        let inner = Inner {
            readers: Pool::new(readers),
            // Another process may change what is looked at here.
            cache: RowCache::new(0),
            path,
            wal: None,
            failed: AtomicBool::new(false),
            reserve: Reserve::new(dir, 0),
            on_reserve: AtomicBool::new(false),
            alarm: Arc::new(|_| ()),
            _lock: None,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes everything committed so far survive a power cut. May run on any thread beside the writer.
    ///
    /// # Errors
    /// When the device refuses; the store then accepts no more commits until opened again.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.inner.usable()?;
        let Some(wal) = &self.inner.wal else {
            return Ok(());
        };
        // A commit that is no longer in the WAL is in the database: SQLite synced both before starting the WAL over.
        if let Err(error) = wal.sync_data() {
            self.inner.failed.store(true, Ordering::Release);
            (self.inner.alarm)(Alarm::SyncFailed);
            return Err(StoreError::Io(error));
        }
        Ok(())
    }

    /// The row `rid`, copied.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn row(&self, rid: u64) -> Result<Option<RowRecord>, StoreError> {
        self.with_row(rid, |row| row.to_record())
    }

    /// Calls `read` with the row `rid`; `None` when there is no such row. Never waits for the writer.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn with_row<R>(&self, rid: u64, read: impl FnOnce(RowRef<'_>) -> R) -> Result<Option<R>, StoreError> {
        let cache = &self.inner.cache;
        if let Some(row) = cache.get(rid) {
            return Ok(Some(read(row.as_ref().into())));
        }
        let epoch = cache.epoch();
        read::with_row(&*self.inner.readers.take()?, rid, |row| {
            keep(cache, epoch, row);
            read(row)
        })
    }

    /// Reads these rows into memory ahead of [`Store::with_row`], in one read transaction: about half the cost a row of
    /// reading each by itself. Rows that are not there are passed over.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn prefetch(&self, rids: impl IntoIterator<Item = u64>) -> Result<(), StoreError> {
        let cache = &self.inner.cache;
        let missing: Vec<u64> = rids.into_iter().filter(|rid| !cache.has(*rid)).collect();
        if missing.len() < 2 {
            return Ok(());
        }
        let epoch = cache.epoch();
        let view = self.view()?;
        for rid in missing {
            read::with_row(&view.connection, rid, |row| keep(cache, epoch, row))?;
        }
        Ok(())
    }

    /// The entry `seq`, copied.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn entry(&self, seq: u64) -> Result<Option<EntryRecord>, StoreError> {
        let mut found = None;
        read::entries(&*self.inner.readers.take()?, seq..=seq, |entry| {
            found = Some(entry.to_record());
            Ok::<_, StoreError>(())
        })?;
        Ok(found)
    }

    /// A read transaction.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn view(&self) -> Result<View<'_>, StoreError> {
        let connection = self.inner.readers.take()?;
        connection.prepare_cached("BEGIN DEFERRED")?.execute([])?;
        let view = View { connection };
        // The transaction begins with its first read.
        view.size()?;
        Ok(view)
    }

    /// The value stored under `key`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        read::meta(&*self.inner.readers.take()?, key)
    }

    /// Whether the reserve file has been given up: rows are refused, entries still accepted.
    #[must_use]
    pub fn on_reserve(&self) -> bool {
        self.inner.on_reserve.load(Ordering::Acquire)
    }

    /// Makes the reserve anew and accepts rows again, if there is room; the helper thread also tries every 10 seconds.
    pub fn try_restore_reserve(&self) {
        self.inner.restore_reserve();
    }

    /// Bytes of the database and its WAL on disk.
    ///
    /// # Errors
    /// When the files cannot be looked at.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        let mut wal = self.inner.path.clone().into_os_string();
        wal.push("-wal");
        Ok(std::fs::metadata(&self.inner.path)?.len() + std::fs::metadata(wal).map_or(0, |m| m.len()))
    }

    /// SQLite's own check of the whole file; the messages name pages, never content. Empty when all is well.
    ///
    /// # Errors
    /// When the database cannot be read at all.
    pub fn integrity(&self) -> Result<Vec<String>, StoreError> {
        read::integrity(&*self.inner.readers.take()?)
    }
}

impl Inner {
    fn usable(&self) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(StoreError::Io(std::io::Error::other("an earlier fdatasync failed")));
        }
        Ok(())
    }
}

impl View<'_> {
    /// The highest row number; 0 when there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn last_rid(&self) -> Result<u64, StoreError> {
        read::last_rid(&self.connection)
    }

    /// The number of entries, which is the next entry's number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn size(&self) -> Result<u64, StoreError> {
        read::size(&self.connection)
    }

    /// The newest checkpoint.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn last_checkpoint(&self) -> Result<Option<CheckpointRecord>, StoreError> {
        read::last_checkpoint(&self.connection)
    }

    /// Size and note of every checkpoint kept, oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn checkpoints(&self) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        read::checkpoints(&self.connection)
    }

    /// All key-value pairs, by key, but for those of this directory alone ([`DIRECTORY`]).
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn all_meta(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        read::all_meta(&self.connection)
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
        read::rows(&self.connection, range, each)
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
        read::entries(&self.connection, range, each)
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        // A read transaction has nothing to lose; the connection's next BEGIN would report what went wrong.
        let _ = self
            .connection
            .prepare_cached("ROLLBACK")
            .and_then(|mut end| end.execute([]));
    }
}

fn keep(cache: &RowCache<RowRecord>, epoch: u64, row: RowRef<'_>) {
    cache.put(epoch, row.rid, row.body.len(), || Arc::new(row.to_record()));
}

/// Makes the file, if it is not there, for its owner only; SQLite gives the WAL the same rights.
fn create_private(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(()),
    }
}

fn reader(path: &Path) -> Result<Connection, StoreError> {
    let connection = schema::connect(path, Use::Read)?;
    schema::check(&connection)?;
    Ok(connection)
}

//! Writing: one connection that commits batches, and a helper thread that empties the WAL beside it.
//!
//! Emptying (a SQLite checkpoint) copies up to 16 MB into the database and syncs both files, so the helper does it.
//! While the writer goes on appending, the helper never catches up with the last frame, and SQLite starts the WAL over
//! only when all of it has been copied and nobody reads from it; so after the helper's round the writer copies the few
//! frames that came meanwhile itself, and waits some milliseconds for the reads that are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, params};

use crate::error::StoreError;
use crate::record::{Batch, Durability};
use crate::{Alarm, Inner, Store, read, schema};

/// Frames (pages) in the WAL at which the helper starts: 16 MB.
const WAL_FRAMES: u64 = 4096;
/// Frames after which emptying is tried again when readers did not let go of the WAL.
const RETRY_FRAMES: u64 = 256;
/// Most rounds of copying before the writer is asked to finish.
const ROUNDS: usize = 6;
/// How long the writer waits for reads under way before it leaves emptying to the next round.
const PATIENCE: Duration = Duration::from_millis(5);
/// Newest checkpoints kept.
const CHECKPOINTS_KEPT: u32 = 64;
/// How often the helper looks whether there is room for the reserve again.
const RESERVE_RETRY: Duration = Duration::from_secs(10);

/// The only writing side.
pub struct Writer {
    store: Store,
    connection: Connection,
    last_rid: u64,
    size: u64,
    helper: Option<Helper>,
}

/// The helper thread: a request is the wish for a checkpoint; hanging up ends it.
struct Helper {
    requests: Sender<()>,
    thread: JoinHandle<()>,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Progress {
    /// A request is under way.
    busy: AtomicBool,
    /// A round has ended: the writer may finish it.
    done: AtomicBool,
    /// About how many frames the WAL holds.
    frames: AtomicU64,
}

impl Writer {
    pub(crate) fn new(store: Store, connection: Connection, helper: Connection) -> Result<Self, StoreError> {
        let last_rid = read::last_rid(&connection)?;
        let size = read::size(&connection)?;
        let progress = Arc::new(Progress::default());
        let (requests, received) = std::sync::mpsc::channel();
        let thread = {
            let (inner, progress) = (Arc::clone(&store.inner), Arc::clone(&progress));
            std::thread::Builder::new()
                .name("store-helper".to_owned())
                .spawn(move || help(&inner, &helper, &progress, &received))?
        };
        Ok(Self {
            store,
            connection,
            last_rid,
            size,
            helper: Some(Helper {
                requests,
                thread,
                progress,
            }),
        })
    }

    /// The reading side of the same store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The highest row number committed; 0 when there is none.
    #[must_use]
    pub fn last_rid(&self) -> u64 {
        self.last_rid
    }

    /// The number of entries committed.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Commits a batch, all or nothing. On return the batch is in the WAL (it survives a killed process) and, with
    /// [`Durability::Fsync`], on the device (it survives a power cut). Row numbers must be above every earlier one,
    /// entry numbers must follow without a gap, a checkpoint must be of the size after the batch.
    ///
    /// # Errors
    /// Nothing of the batch is stored then, but for one case: when the device refuses the fdatasync ([`StoreError::Io`]),
    /// the batch may or may not be found when the directory is opened again, and this store accepts nothing more.
    /// [`StoreError::Full`] for a batch with rows also while the store lives on its reserve; entries alone are accepted
    /// until that is used up too.
    pub fn commit(&mut self, batch: &Batch, durability: Durability) -> Result<(), StoreError> {
        self.store.inner.usable()?;
        if !batch.rows.is_empty() && self.store.on_reserve() {
            return Err(StoreError::Full);
        }
        let (last_rid, size) = self.follow(batch)?;
        match self.write(batch) {
            Err(StoreError::Full) => {
                let released = self.store.inner.release_reserve();
                if !released || !batch.rows.is_empty() {
                    return Err(StoreError::Full);
                }
                self.write(batch)?;
            }
            other => other?,
        }
        (self.last_rid, self.size) = (last_rid, size);
        if !batch.blank.is_empty() {
            self.store.inner.cache.forget_all();
        }
        if durability == Durability::Fsync {
            self.store.sync()?;
        }
        self.tend_wal(batch);
        Ok(())
    }

    /// Stops the helper thread and empties the WAL into the database. Dropping the writer does the same, silently.
    ///
    /// # Errors
    /// When the WAL cannot be emptied; nothing is lost, the next open does it.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), StoreError> {
        let Some(Helper { requests, thread, .. }) = self.helper.take() else {
            return Ok(());
        };
        drop(requests);
        // A panic there has been reported by the panic hook; the WAL can be emptied all the same.
        let _ = thread.join();
        schema::checkpoint(&self.connection, "TRUNCATE")?;
        Ok(())
    }

    /// The last rid and the size after the batch, if its numbers follow the stored ones.
    fn follow(&self, batch: &Batch) -> Result<(u64, u64), StoreError> {
        let mut last_rid = self.last_rid;
        for row in &batch.rows {
            if row.rid <= last_rid {
                return Err(StoreError::Sequence);
            }
            last_rid = row.rid;
        }
        let mut size = self.size;
        for entry in &batch.entries {
            if entry.seq != size {
                return Err(StoreError::Sequence);
            }
            size += 1;
        }
        if batch.checkpoint.as_ref().is_some_and(|c| c.size != size) {
            return Err(StoreError::Sequence);
        }
        Ok((last_rid, size))
    }

    /// One SQLite transaction; rolled back on any error.
    fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        // Statements that are kept: a transaction of rusqlite's would have its two parsed for every commit.
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let done = self
            .put(batch)
            .and_then(|()| Ok(self.connection.prepare_cached("COMMIT")?.execute([])?));
        // SQLite ends a transaction by itself at some errors; a rollback that is refused has nothing to undo.
        if done.is_err() && !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        done.map(|_| ())
    }

    fn put(&self, batch: &Batch) -> Result<(), StoreError> {
        let tx = &self.connection;
        if !batch.rows.is_empty() {
            let mut insert = tx.prepare_cached("INSERT INTO row(rid, key_ref, body) VALUES (?1, ?2, ?3)")?;
            for row in &batch.rows {
                insert.execute(params![number(row.rid)?, row.key_ref, row.body])?;
            }
        }
        if !batch.entries.is_empty() {
            let mut insert = tx.prepare_cached("INSERT INTO leaf(seq, entry, sealed) VALUES (?1, ?2, ?3)")?;
            for entry in &batch.entries {
                insert.execute(params![number(entry.seq)?, entry.entry, entry.sealed])?;
            }
        }
        for rid in &batch.blank {
            let changed = tx
                .prepare_cached("UPDATE row SET body = x'' WHERE rid = ?1")?
                .execute([number(*rid)?])?;
            if changed != 1 {
                return Err(StoreError::Sequence);
            }
        }
        if let Some(new) = &batch.checkpoint {
            tx.prepare_cached("UPDATE checkpoint SET frontier = x'' WHERE size < ?1 AND frontier <> x''")?
                .execute([number(new.size)?])?;
            tx.prepare_cached("INSERT OR REPLACE INTO checkpoint(size, note, frontier) VALUES (?1, ?2, ?3)")?
                .execute(params![number(new.size)?, new.note, new.frontier])?;
            tx.prepare_cached(
                "DELETE FROM checkpoint WHERE size NOT IN (SELECT size FROM checkpoint ORDER BY size DESC LIMIT ?1)",
            )?
            .execute([CHECKPOINTS_KEPT])?;
        }
        for (key, value) in &batch.meta {
            tx.prepare_cached("INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)")?
                .execute(params![key, value])?;
        }
        Ok(())
    }

    /// Counts what the batch added to the WAL, and has it emptied when it is long. Errors are left to the next round:
    /// the batch is committed, and a WAL that stays long is slow, not wrong.
    fn tend_wal(&self, batch: &Batch) {
        let Some(Helper { requests, progress, .. }) = &self.helper else {
            return;
        };
        // Payload pages, and about four pages of B-tree edges a commit: an estimate is enough to start a round.
        let frames = progress.frames.fetch_add(4 + bytes(batch) / 4000, Ordering::Relaxed);
        if progress.done.swap(false, Ordering::Acquire) {
            let emptied = self.restart_wal().unwrap_or(false);
            let frames = if emptied { 0 } else { WAL_FRAMES - RETRY_FRAMES };
            progress.frames.store(frames, Ordering::Relaxed);
        } else if frames >= WAL_FRAMES && !progress.busy.swap(true, Ordering::Acquire) {
            // A helper that has ended leaves the WAL to grow until the store is opened again.
            let _ = requests.send(());
        }
    }

    /// Copies the rest of the WAL and has the next commit start it over; false when a reader holds on to it.
    fn restart_wal(&self) -> Result<bool, StoreError> {
        self.connection.busy_timeout(PATIENCE)?;
        let emptied = schema::checkpoint(&self.connection, "RESTART");
        self.connection.busy_timeout(schema::BUSY)?;
        emptied
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Nothing is lost by a failure here: the next open recovers the WAL.
        let _ = self.finish();
    }
}

/// The helper's life: a checkpoint a request, and a look for the reserve's room while that is missing.
fn help(inner: &Inner, connection: &Connection, progress: &Progress, requests: &Receiver<()>) {
    loop {
        match requests.recv_timeout(RESERVE_RETRY) {
            Ok(()) => {
                // A failed round (a full disk) is tried again at the next commit.
                if copy(connection, progress).is_ok() {
                    progress.done.store(true, Ordering::Release);
                }
                progress.busy.store(false, Ordering::Release);
            }
            Err(RecvTimeoutError::Timeout) => inner.restore_reserve(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Copies the WAL until what the writer adds meanwhile is little, so that little is left for the writer itself.
fn copy(connection: &Connection, progress: &Progress) -> Result<(), StoreError> {
    for _ in 0..ROUNDS {
        let before = progress.frames.load(Ordering::Relaxed);
        schema::checkpoint(connection, "PASSIVE")?;
        if progress.frames.load(Ordering::Relaxed) - before < RETRY_FRAMES {
            break;
        }
    }
    Ok(())
}

impl Inner {
    /// Gives the reserve up; true when there was one to give up.
    fn release_reserve(&self) -> bool {
        let released = self.reserve.release();
        if !self.on_reserve.swap(true, Ordering::AcqRel) {
            (self.alarm)(Alarm::ReserveReleased);
        }
        released
    }

    /// Takes rows again when the reserve could be made anew.
    pub(crate) fn restore_reserve(&self) {
        if self.on_reserve.load(Ordering::Acquire) && self.reserve.fits() && self.reserve.fill().unwrap_or(false) {
            self.on_reserve.store(false, Ordering::Release);
            (self.alarm)(Alarm::ReserveRestored);
        }
    }
}

fn number(n: u64) -> Result<i64, StoreError> {
    i64::try_from(n).map_err(|_| StoreError::Sequence)
}

fn bytes(batch: &Batch) -> u64 {
    let rows: usize = batch.rows.iter().map(|row| row.body.len() + 30).sum();
    let entries: usize = batch
        .entries
        .iter()
        .map(|e| e.entry.len() + e.sealed.as_ref().map_or(0, Vec::len) + 10)
        .sum();
    (rows + entries) as u64
}

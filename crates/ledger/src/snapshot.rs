//! The sealed snapshot: a cache of everything derived from the log. `docs/formats/snapshot.md`.
//!
//! It is made beside the running writer: applying waits while the index is dumped, reading does not. It is discarded
//! whenever anything about it does not fit the log; nothing depends on it.
//!
//! # That one was written
//! 1. The new file is written and fsynced under another name, renamed, and the directory fsynced.
//! 2. The writer commits a [`Record`] of it: its id and its position in the log.
//!
//! So the file is never older than its record: `verify` tells one that was put back or removed. A crash between 1 and 2
//! leaves a file newer than the record, which is well; the next start makes up for the record. Where a snapshot must go
//! (an erasure, a rotation), the record is cleared first, in the commit that says why.

use crate::core::{Core, Randomness};
use crate::error::Unavailable;
use crate::event::Accesses;
use crate::follower::Follower;
use crate::homes::Homes;
use crate::tiles::Tiles;
use crate::varint::{Reader, put};
use crate::writer::{Job, Log};
use keepwell_audit::merkle::Frontier;
use keepwell_store::{Store, StoreError};
use keepwell_vault::{NONCE, Place, SealKey, TAG, Vault, sync_parent};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

const MAGIC: &[u8; 8] = b"KWSNAP\0\x03";
const FORMAT: [u8; 4] = *b"snp1";
const CHUNK: usize = 1 << 20;
pub(crate) const FILE: &str = "snapshot";

fn place(index: u64, last: &[u8; 1]) -> Place<'_> {
    Place {
        format: FORMAT,
        number: index,
        extra: last,
    }
}

/// Seals what is written to it in chunks.
struct Sealer<W: Write> {
    out: W,
    key: SealKey,
    random: Randomness,
    chunk: Vec<u8>,
    index: u64,
}

impl<W: Write> Sealer<W> {
    fn seal_chunk(&mut self, last: bool) -> io::Result<()> {
        let random = self
            .random
            .take()
            .ok_or_else(|| io::Error::other("no random numbers"))?;
        let nonce = self.key.nonce(&random, self.index, &[&self.chunk]);
        let flag = [u8::from(last)];
        let tag = self
            .key
            .seal(place(self.index, &flag), &nonce, &mut self.chunk)
            .map_err(io::Error::other)?;
        self.out.write_all(&(self.chunk.len() as u32).to_be_bytes())?;
        self.out.write_all(&flag)?;
        self.out.write_all(&nonce)?;
        self.out.write_all(&self.chunk)?;
        self.out.write_all(&tag)?;
        self.chunk.clear();
        self.index += 1;
        Ok(())
    }

    fn finish(mut self) -> io::Result<W> {
        self.seal_chunk(true)?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = CHUNK - self.chunk.len();
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.chunk.extend_from_slice(taken);
        if self.chunk.len() == CHUNK {
            self.seal_chunk(false)?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens chunks as they are read; nothing unauthenticated is ever given out.
struct Opener<R: Read> {
    from: R,
    key: SealKey,
    chunk: Vec<u8>,
    at: usize,
    index: u64,
    last: bool,
}

impl<R: Read> Opener<R> {
    fn next_chunk(&mut self) -> io::Result<()> {
        let mut front = [0; 5 + NONCE];
        self.from.read_exact(&mut front)?;
        let mut r = Reader(&front);
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "the snapshot is damaged");
        let length = r.array().map(u32::from_be_bytes).ok_or_else(bad)? as usize;
        let flag = r.array::<1>().ok_or_else(bad)?;
        let nonce = r.array::<NONCE>().ok_or_else(bad)?;
        if length > CHUNK || flag.iter().any(|f| *f > 1) {
            return Err(bad());
        }
        self.chunk.resize(length + TAG, 0);
        self.from.read_exact(&mut self.chunk)?;
        self.key
            .open(place(self.index, &flag), &nonce, &mut self.chunk)
            .map_err(|_| bad())?;
        self.chunk.truncate(length);
        self.last = flag == [1];
        if self.last && self.from.read(&mut [0])? != 0 {
            return Err(bad());
        }
        self.at = 0;
        self.index += 1;
        Ok(())
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            if self.last {
                return Ok(0);
            }
            self.next_chunk()?;
        }
        let from = self.chunk.get(self.at..).unwrap_or_default();
        let n = from.len().min(out.len());
        for (to, from) in out.iter_mut().zip(from) {
            *to = *from;
        }
        self.at += n;
        Ok(n)
    }
}

/// Where the database keeps the record of the newest snapshot: id (16), newest row (8), entries (8). Empty: there is none.
pub(crate) const RECORD: &str = "directory/snapshot";

/// Which snapshot, and of which moment of the log. The id names its key, so it stands for all its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: [u8; 16],
    /// Newest row in it.
    pub(crate) rows: u64,
    /// Entries in it.
    pub(crate) entries: u64,
}

impl Record {
    pub(crate) fn stored(store: &Store) -> Result<Option<Self>, StoreError> {
        let stored = store.meta(RECORD)?.unwrap_or_default();
        let mut r = Reader(&stored);
        let (Some(id), Some(rows), Some(entries)) = (r.array(), r.array(), r.array()) else {
            return Ok(None);
        };
        Ok(Some(Self {
            id,
            rows: u64::from_be_bytes(rows),
            entries: u64::from_be_bytes(entries),
        }))
    }

    fn meta(&self) -> (String, Vec<u8>) {
        let bytes = [
            self.id.as_slice(),
            &self.rows.to_be_bytes(),
            &self.entries.to_be_bytes(),
        ];
        (RECORD.to_owned(), bytes.concat())
    }

    /// Two of one moment hold the same, whichever was written last.
    pub(crate) fn is_older_than(&self, other: &Self) -> bool {
        self.entries < other.entries
    }
}

/// What a commit says when the snapshot is about to be removed.
pub(crate) fn no_record() -> (String, Vec<u8>) {
    (RECORD.to_owned(), Vec::new())
}

/// Commits that `made` was written, in the writer thread; unless it has been removed since, or another was written.
pub(crate) fn record<F: Follower>(log: &mut Log<F>, made: &Record) -> Result<(), Unavailable> {
    if *log.core.snapshot.lock() != Some(*made) {
        return Ok(());
    }
    log.append_alone(&[], vec![made.meta()]).map(|_| ())
}

/// Writes a snapshot and records it, in the writer thread.
pub(crate) fn save_alone<F: Follower>(log: &mut Log<F>) -> Result<(), Unavailable> {
    let made = save(&log.core)?;
    record(log, &made)
}

/// Writes a snapshot of this moment; [`record`] is to follow.
pub(crate) fn save<F: Follower>(core: &Core<F>) -> Result<Record, Unavailable> {
    let _one = core.snapshotting.lock();
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::StorageFull => Unavailable::DiskFull,
        io::ErrorKind::ReadOnlyFilesystem => Unavailable::ReadOnly,
        _ => Unavailable::Store(format!("the snapshot could not be written: {e}")),
    };
    let path = core.config.dir.join(FILE);
    let new = core.config.dir.join("snapshot.tmp");
    let result = write(core, &new).and_then(|made| {
        std::fs::rename(&new, &path)?;
        sync_parent(&path)?;
        *core.snapshot.lock() = Some(made);
        Ok(made)
    });
    if result.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    result.map_err(failed)
}

fn write<F: Follower>(core: &Core<F>, path: &Path) -> io::Result<Record> {
    let mut random = Randomness::new(Arc::clone(&core.entropy));
    let id = random.take().ok_or_else(|| io::Error::other("no random numbers"))?;
    let key = core.vault.snapshot_key(&id).map_err(io::Error::other)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(MAGIC)?;
    file.write_all(&id)?;
    let mut out = Sealer {
        out: BufWriter::new(file),
        key,
        random,
        chunk: Vec::with_capacity(CHUNK),
        index: 0,
    };
    let _still = core.applying.read();
    let visible = core.visible.load(Ordering::Acquire);
    let mut head = Vec::new();
    put(&mut head, visible);
    let frontier = core.frontier.read().clone();
    let made = Record {
        id,
        rows: visible,
        entries: frontier.size(),
    };
    let frontier = frontier.to_bytes();
    put(&mut head, frontier.len() as u64);
    head.extend_from_slice(&frontier);
    core.tiles.read().dump(&mut head);
    core.homes.read().dump(&mut head);
    core.accesses.read().dump(&mut head);
    out.write_all(&(head.len() as u64).to_be_bytes())?;
    out.write_all(&head)?;
    core.follower.dump(&mut out)?;
    let mut out = out.finish()?;
    out.flush()?;
    out.get_ref().sync_all()?;
    Ok(made)
}

/// Removes the snapshot, if there is one. Its record goes with the commit around it: see [`no_record`].
pub(crate) fn remove<F: Follower>(core: &Core<F>) {
    *core.snapshot.lock() = None;
    let path = core.config.dir.join(FILE);
    if std::fs::remove_file(&path).is_ok() {
        let _ = sync_parent(&path);
    }
}

/// Makes a snapshot on a thread of its own when enough rows have come since the last.
pub(crate) fn when_due<F: Follower>(core: &Arc<Core<F>>, jobs: &Sender<Job<F>>) {
    let visible = core.visible.load(Ordering::Acquire);
    let since = visible.saturating_sub(core.snapshot.lock().map_or(0, |newest| newest.rows));
    if since < core.config.snapshot_every.max(visible / 8) || core.snapshotting.is_locked() {
        return;
    }
    let (core, jobs) = (Arc::clone(core), jobs.clone());
    let made = std::thread::Builder::new()
        .name("snapshot".into())
        .spawn(move || match save(&core) {
            // A log that stops meanwhile makes up for the record when it is opened again.
            Ok(made) => drop(jobs.send(Job::Alone(Box::new(move |log| {
                if let Err(e) = record(log, &made) {
                    tracing::warn!(error = %e, "the snapshot could not be recorded");
                }
            })))),
            Err(e) => tracing::warn!(error = %e, "no snapshot; the next start takes longer"),
        });
    drop(made);
}

/// A loaded snapshot; the follower has taken its part. The default is that of an empty log.
#[derive(Default)]
pub(crate) struct Loaded {
    pub(crate) record: Record,
    pub(crate) frontier: Frontier,
    pub(crate) tiles: Tiles,
    pub(crate) homes: Homes,
    pub(crate) accesses: Accesses,
}

/// Loads the snapshot in `dir`. `Err` says in a few words why not; the follower is empty then.
pub(crate) fn load<F: Follower>(dir: &Path, vault: &Vault, follower: &F) -> Result<Option<Loaded>, &'static str> {
    match Open::find(dir, vault)? {
        Some(open) => open.load(follower).map(Some),
        None => Ok(None),
    }
}

/// A snapshot whose file is open and whose key is at hand: whatever becomes of both, this one can be read.
pub(crate) struct Open {
    id: [u8; 16],
    from: Opener<BufReader<File>>,
}

impl Open {
    /// The snapshot in `dir`, if there is one.
    pub(crate) fn find(dir: &Path, vault: &Vault) -> Result<Option<Self>, &'static str> {
        let file = match File::open(dir.join(FILE)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(_) => return Err("it cannot be read"),
        };
        let mut from = BufReader::with_capacity(256 << 10, file);
        let mut front = [0; 24];
        from.read_exact(&mut front).map_err(|_| "it is cut off")?;
        let id = front
            .strip_prefix(MAGIC.as_slice())
            .and_then(|id| id.first_chunk::<16>())
            .ok_or("it is of another version")?;
        let key = vault.snapshot_key(id).map_err(|_| "its key cannot be made")?;
        Ok(Some(Self {
            id: *id,
            from: Opener {
                from,
                key,
                chunk: Vec::new(),
                at: 0,
                index: 0,
                last: false,
            },
        }))
    }

    /// Reads all of it. On an error the follower is empty.
    pub(crate) fn load<F: Follower>(mut self, follower: &F) -> Result<Loaded, &'static str> {
        let loaded = self.read(follower);
        if loaded.is_none() {
            // By the follower's contract a failing load leaves the index empty.
            let _ = follower.load(&mut io::empty());
        }
        loaded.ok_or("it is damaged or of another version")
    }

    fn read<F: Follower>(&mut self, follower: &F) -> Option<Loaded> {
        let loaded = self.head()?;
        follower.load(&mut self.from).ok()?;
        // The last chunk must have come, and nothing may be left over.
        if self.from.read(&mut [0]).ok()? != 0 {
            return None;
        }
        Some(loaded)
    }

    fn head(&mut self) -> Option<Loaded> {
        let mut length = [0; 8];
        self.from.read_exact(&mut length).ok()?;
        let mut head = Vec::new();
        let length = u64::from_be_bytes(length);
        if (&mut self.from).take(length).read_to_end(&mut head).ok()? as u64 != length {
            return None;
        }
        let mut r = Reader(&head);
        let rows = r.varint()?;
        let length = r.length()?;
        let frontier = Frontier::from_bytes(r.bytes(length)?).ok()?;
        let loaded = Loaded {
            record: Record {
                id: self.id,
                rows,
                entries: frontier.size(),
            },
            tiles: Tiles::load(&mut r, frontier.size())?,
            frontier,
            homes: Homes::load(&mut r)?,
            accesses: Accesses::load(&mut r)?,
        };
        r.0.is_empty().then_some(loaded)
    }
}

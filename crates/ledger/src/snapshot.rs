//! The sealed snapshot: a cache of everything derived from the log. `docs/formats/snapshot.md`.
//!
//! It is made beside the running writer: applying waits while the index is dumped, reading does not. It is discarded
//! whenever anything about it does not fit the log; nothing depends on it.

use crate::core::{Core, Randomness};
use crate::error::Unavailable;
use crate::event::Accesses;
use crate::follower::Follower;
use crate::homes::Homes;
use crate::tiles::Tiles;
use crate::varint::{Reader, put};
use keepwell_audit::merkle::Frontier;
use keepwell_vault::{NONCE, Place, SealKey, TAG, Vault, sync_parent};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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

/// Writes a snapshot of this moment.
pub(crate) fn save<F: Follower>(core: &Core<F>) -> Result<(), Unavailable> {
    let _one = core.snapshotting.lock();
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::StorageFull => Unavailable::DiskFull,
        io::ErrorKind::ReadOnlyFilesystem => Unavailable::ReadOnly,
        _ => Unavailable::Store(format!("the snapshot could not be written: {e}")),
    };
    let path = core.config.dir.join(FILE);
    let new = core.config.dir.join("snapshot.tmp");
    let result = write(core, &new).and_then(|at| {
        std::fs::rename(&new, &path)?;
        sync_parent(&path)?;
        core.snapshot_at.store(at, Ordering::Release);
        Ok(())
    });
    if result.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    result.map_err(failed)
}

fn write<F: Follower>(core: &Core<F>, path: &Path) -> io::Result<u64> {
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
    let frontier = core.frontier.read().to_bytes();
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
    Ok(visible)
}

/// Removes the snapshot, if there is one.
pub(crate) fn remove(dir: &Path) {
    let path = dir.join(FILE);
    if std::fs::remove_file(&path).is_ok() {
        let _ = sync_parent(&path);
    }
}

/// Makes a snapshot on a thread of its own when enough rows have come since the last.
pub(crate) fn when_due<F: Follower>(core: &Arc<Core<F>>) {
    let visible = core.visible.load(Ordering::Acquire);
    let since = visible.saturating_sub(core.snapshot_at.load(Ordering::Acquire));
    if since < core.config.snapshot_every.max(visible / 8) || core.snapshotting.is_locked() {
        return;
    }
    let core = Arc::clone(core);
    let made = std::thread::Builder::new().name("snapshot".into()).spawn(move || {
        if let Err(e) = save(&core) {
            tracing::warn!(error = %e, "no snapshot; the next start takes longer");
        }
    });
    drop(made);
}

/// A loaded snapshot; the follower has taken its part. The default is that of an empty log.
#[derive(Default)]
pub(crate) struct Loaded {
    /// Newest row in it.
    pub(crate) visible: u64,
    /// Entries in it.
    pub(crate) entries: u64,
    pub(crate) frontier: Frontier,
    pub(crate) tiles: Tiles,
    pub(crate) homes: Homes,
    pub(crate) accesses: Accesses,
}

/// Loads the snapshot in `dir`. `Err` says in a few words why not; the follower is empty then.
pub(crate) fn load<F: Follower>(dir: &Path, vault: &Vault, follower: &F) -> Result<Option<Loaded>, &'static str> {
    let Some(mut from) = open(dir, vault)? else {
        return Ok(None);
    };
    let loaded = read(&mut from, follower);
    if loaded.is_none() {
        // By the follower's contract a failing load leaves the index empty.
        let _ = follower.load(&mut io::empty());
        return Err("it is damaged or of another version");
    }
    Ok(loaded)
}

fn open(dir: &Path, vault: &Vault) -> Result<Option<Opener<BufReader<File>>>, &'static str> {
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
    Ok(Some(Opener {
        from,
        key,
        chunk: Vec::new(),
        at: 0,
        index: 0,
        last: false,
    }))
}

fn read<F: Follower>(from: &mut Opener<BufReader<File>>, follower: &F) -> Option<Loaded> {
    let loaded = read_head(from)?;
    follower.load(from).ok()?;
    // The last chunk must have come, and nothing may be left over.
    if from.read(&mut [0]).ok()? != 0 {
        return None;
    }
    Some(loaded)
}

fn read_head(from: &mut dyn Read) -> Option<Loaded> {
    let mut length = [0; 8];
    from.read_exact(&mut length).ok()?;
    let mut head = Vec::new();
    let length = u64::from_be_bytes(length);
    if from.take(length).read_to_end(&mut head).ok()? as u64 != length {
        return None;
    }
    let mut r = Reader(&head);
    let visible = r.varint()?;
    let length = r.length()?;
    let frontier = Frontier::from_bytes(r.bytes(length)?).ok()?;
    let loaded = Loaded {
        visible,
        entries: frontier.size(),
        tiles: Tiles::load(&mut r, frontier.size())?,
        frontier,
        homes: Homes::load(&mut r)?,
        accesses: Accesses::load(&mut r)?,
    };
    r.0.is_empty().then_some(loaded)
}

/// Checks a snapshot without an index: every chunk opens, the last one is there. `None`: there is no snapshot.
pub(crate) fn check(dir: &Path, vault: &Vault) -> Option<Result<(u64, Frontier), &'static str>> {
    let mut from = match open(dir, vault) {
        Ok(from) => from?,
        Err(why) => return Some(Err(why)),
    };
    let head = read_head(&mut from).ok_or("it is damaged");
    let rest = io::copy(&mut from, &mut io::sink()).map_err(|_| "it is damaged");
    Some(rest.and(head).map(|head| (head.visible, head.frontier)))
}

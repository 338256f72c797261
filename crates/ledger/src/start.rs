//! Making and opening a data directory: what is checked, and how the index comes to be.

use crate::core::{Core, Head, LogSigner, Randomness};
use crate::error::{EraseError, Notice, OpenError};
use crate::event;
use crate::follower::{Follower, HomeKey, Kind, Replayed};
use crate::keeper::Signal;
use crate::ledger::Config;
use crate::row;
use crate::snapshot::{self, Loaded};
use crate::tiles::Tiles;
use crate::writer::{FLOOR, KEYRING, Log};
use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::leaf::{Leaf, Notice as LeafNotice};
use keepwell_audit::merkle::{Frontier, leaf_hash};
use keepwell_audit::note::VerifierKey;
use keepwell_model::time::{Clock, Entropy, Timestamp};
use keepwell_store::{
    Batch, CheckpointRecord, DirectoryLock, Durability, EntryRecord, Options, RowRecord, Store, StoreError, Writer,
};
use keepwell_vault::{Custodian, CustodyError, Paths, RecoveryKey, Vault, VaultError};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::sync_channel;

/// Rows handed from thread to thread at a time during a rebuild.
const REPLAY_BATCH: usize = 256;
const DATABASE: &str = "keepwell.db";

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::AlreadyRunning => Self::AlreadyRunning,
            StoreError::Full => Self::DiskFull,
            StoreError::ReadOnly => Self::ReadOnly,
            StoreError::Missing => Self::NoData(DATABASE.to_owned()),
            other => Self::Store(other.to_string()),
        }
    }
}

impl From<VaultError> for OpenError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Missing => Self::KeyringMissing("keyring".to_owned()),
            VaultError::Exists => Self::AlreadyInitialised("keyring".to_owned()),
            VaultError::Damaged(why) => Self::KeyringDamaged(why),
            VaultError::Custody(CustodyError::Wrong) => Self::WrongPassphrase,
            VaultError::Custody(CustodyError::Damaged) => Self::KeyringDamaged("an unlock slot is not well formed"),
            VaultError::Custody(CustodyError::Io(e)) | VaultError::Io(e) => match e.kind() {
                std::io::ErrorKind::StorageFull => Self::DiskFull,
                std::io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
                _ => Self::Io(e),
            },
            VaultError::OlderThanErasure => Self::KeyringOlderThanErasure,
            VaultError::Places { have, want } => Self::EraPlaces { have, want },
            VaultError::Entropy | VaultError::Custody(CustodyError::Entropy) => Self::Entropy,
            other => Self::Store(other.to_string()),
        }
    }
}

pub(crate) fn paths(config: &Config) -> Paths {
    let mut era = vec![config.dir.join("era")];
    era.extend(config.era_copies.iter().cloned());
    Paths {
        keyring: config.keyring.clone().unwrap_or_else(|| config.dir.join("keyring")),
        keyring_copy: config.keyring_copy.clone(),
        era,
        era_min: config.era_places_min,
    }
}

/// Makes keyring, ERA and an empty log whose first entries name the organisation and the signing key.
pub(crate) fn init(
    config: &Config,
    custodian: &dyn Custodian,
    clock: &dyn Clock,
    entropy: &Arc<dyn Entropy>,
) -> Result<RecoveryKey, OpenError> {
    use std::os::unix::fs::DirBuilderExt;
    if config.dir.join(DATABASE).exists() {
        return Err(OpenError::AlreadyInitialised(config.dir.display().to_string()));
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.dir)?;
    let lock = DirectoryLock::acquire(&config.dir)?;
    let recovery = Vault::init(&paths(config), custodian, entropy.as_ref())?;
    let (vault, _) = Vault::open(paths(config), custodian, Arc::clone(entropy))?;
    let (_, mut writer) = Store::open(
        &config.dir,
        Options {
            reserve_bytes: config.reserve,
            lock: Some(lock),
            ..Options::default()
        },
    )?;
    let at = clock.now().0;
    let leaves = [
        LeafNotice::Started {
            organisation: vault.organisation(),
            previous: None,
        },
        LeafNotice::SigningKey {
            public: vault.log_public(),
        },
    ];
    let mut frontier = Frontier::new();
    let mut batch = Batch::default();
    for (notice, seq) in leaves.into_iter().zip(0..) {
        let entry = Leaf::Notice { at, notice }.to_bytes();
        frontier.append(leaf_hash(&entry));
        batch.entries.push(EntryRecord {
            seq,
            entry,
            sealed: None,
        });
    }
    let signer = LogSigner {
        vault: &vault,
        origin: &config.origin,
    };
    let note = signer
        .checkpoint(frontier.size(), frontier.root())
        .map_err(|_| OpenError::Store("the origin is not fit to name a log".to_owned()))?;
    batch.checkpoint = Some(CheckpointRecord {
        size: frontier.size(),
        note,
        frontier: frontier.to_bytes(),
    });
    batch
        .meta
        .push(("origin".to_owned(), config.origin.clone().into_bytes()));
    writer.commit(&batch, Durability::Fsync)?;
    writer.close()?;
    Ok(recovery)
}

/// The head of the log as the database has it: frontier, newest note and its size, time of the newest entry.
pub(crate) struct Tip {
    pub(crate) frontier: Frontier,
    pub(crate) head: Head,
    pub(crate) last_rid: u64,
    pub(crate) newest: Timestamp,
    /// The newest checkpoint is signed by an earlier key: a rotation is to be finished.
    pub(crate) signed_before: bool,
}

/// Reads the tip: the newest signed checkpoint, and the entries after it.
pub(crate) fn tip(store: &Store, keys: &[VerifierKey], origin: &str) -> Result<Tip, OpenError> {
    let view = store.view()?;
    let record = view.last_checkpoint()?.ok_or(OpenError::Forked)?;
    let checkpoint = Checkpoint::open(&record.note, keys).map_err(|_| OpenError::Forked)?;
    let mut frontier = Frontier::from_bytes(&record.frontier).map_err(|_| OpenError::Forked)?;
    if checkpoint.origin != origin || checkpoint.size != frontier.size() || checkpoint.root != frontier.root() {
        return Err(OpenError::Forked);
    }
    let size = view.size()?;
    if size < frontier.size() {
        return Err(OpenError::RolledBack {
            have: size,
            want: frontier.size(),
        });
    }
    let mut newest = Timestamp(i64::MIN);
    // The newest time may be in the last signed entries: look back a little.
    let look = frontier.size().saturating_sub(64);
    let signed = frontier.size();
    view.entries(look..=size.saturating_sub(1), |entry| -> Result<(), OpenError> {
        if entry.seq >= signed {
            frontier.append(leaf_hash(entry.entry));
        }
        if let Ok(Leaf::Event { at, .. } | Leaf::Notice { at, .. }) = Leaf::from_bytes(entry.entry) {
            newest = newest.max(Timestamp(at));
        }
        Ok(())
    })?;
    if frontier.size() != size {
        return Err(OpenError::Forked);
    }
    let signed_before = Checkpoint::open(&record.note, keys.get(..1).unwrap_or_default()).is_err();
    Ok(Tip {
        frontier,
        head: Head {
            size: record.size,
            note: record.note,
        },
        last_rid: view.last_rid()?,
        newest,
        signed_before,
    })
}

/// Compares the log with a checkpoint file kept beside or outside it.
fn compare_checkpoint(path: &Path, keys: &[VerifierKey], tip: &Tip) -> Result<(), OpenError> {
    let Ok(note) = std::fs::read(path) else { return Ok(()) };
    let Ok(checkpoint) = Checkpoint::open(&note, keys) else {
        return Ok(());
    };
    if checkpoint.size > tip.frontier.size() {
        return Err(OpenError::RolledBack {
            have: tip.frontier.size(),
            want: checkpoint.size,
        });
    }
    if checkpoint.size == tip.frontier.size() && checkpoint.root != tip.frontier.root() {
        return Err(OpenError::Forked);
    }
    Ok(())
}

pub(crate) fn origin_of(store: &Store) -> Result<String, OpenError> {
    store
        .meta("origin")?
        .and_then(|o| String::from_utf8(o).ok())
        .ok_or(OpenError::Forked)
}

/// Everything up to the running threads.
pub(crate) fn open<F: Follower>(
    config: Config,
    custodian: &dyn Custodian,
    follower: Arc<F>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<(Arc<Core<F>>, Log<F>), OpenError> {
    if !config.dir.join(DATABASE).exists() {
        return Err(OpenError::NoData(config.dir.display().to_string()));
    }
    let lock = DirectoryLock::acquire(&config.dir)?;
    let (vault, settled) = Vault::open(paths(&config), custodian, Arc::clone(&entropy))?;
    let options = Options {
        reserve_bytes: config.reserve,
        max_pages: config.max_pages,
        lock: Some(lock),
        ..Options::default()
    };
    let (store, writer) = Store::open(&config.dir, options)?;
    let origin = origin_of(&store)?;
    if origin != config.origin {
        return Err(OpenError::OtherSite {
            log: origin,
            configured: config.origin,
        });
    }
    let keys = crate::rotate::log_keys(&vault, &origin);
    let tip = tip(&store, &keys, &origin)?;
    for path in std::iter::once(&config.dir.join("checkpoint")).chain(&config.checkpoint_copy) {
        compare_checkpoint(path, &keys, &tip)?;
    }
    let keyring = match store.meta(KEYRING)?.as_deref().map(<[u8; 8]>::try_from) {
        Some(Ok(revision)) => u64::from_be_bytes(revision),
        Some(Err(_)) => return Err(OpenError::Store("the keyring's revision is not a number".to_owned())),
        None => 0,
    };
    if tip.last_rid >= vault.rid_ceiling() || vault.revision() < keyring {
        return Err(OpenError::KeyringOlderThanLog);
    }

    let mut notices = Vec::new();
    notices.extend(settled.finished.then_some(Notice::ErasureFinished));
    notices.extend(settled.undone.then_some(Notice::ErasureUndone));
    notices.extend(
        settled
            .repaired
            .iter()
            .map(|p| Notice::EraPlaceRepaired(p.display().to_string())),
    );
    notices.extend(
        settled
            .unreachable
            .iter()
            .map(|p| Notice::EraPlaceUnreachable(p.display().to_string())),
    );
    notices.extend(config.era_copies.is_empty().then_some(Notice::SingleEraPlace));

    let loaded = match snapshot::load(&config.dir, &vault, follower.as_ref()) {
        Ok(Some(mut loaded)) => {
            if fits(&store, &mut loaded, &tip)? {
                Some(loaded)
            } else {
                // As above: a failing load empties the index.
                let _ = follower.load(&mut std::io::empty());
                notices.push(Notice::SnapshotDiscarded("it does not match the log"));
                None
            }
        }
        Ok(None) => None,
        Err(why) => {
            notices.push(Notice::SnapshotDiscarded(why));
            None
        }
    };
    let fresh = loaded.is_none();
    let Loaded {
        visible: from_rid,
        entries: from_seq,
        tiles,
        homes,
        accesses,
        ..
    } = loaded.unwrap_or_default();
    let core = Arc::new(Core {
        follower,
        vault,
        store,
        clock,
        entropy: Arc::clone(&entropy),
        origin,
        homes: RwLock::new(homes),
        accesses: RwLock::new(accesses),
        visible: AtomicU64::new(tip.last_rid),
        size: AtomicU64::new(tip.frontier.size()),
        head: RwLock::new(tip.head.clone()),
        frontier: RwLock::new(tip.frontier.clone()),
        tiles: RwLock::new(tiles),
        snapshot_at: AtomicU64::new(from_rid),
        snapshotting: Mutex::new(()),
        notices: Mutex::new(notices),
        stopped: AtomicBool::new(false),
        applying: RwLock::new(()),
        failure: Mutex::new(None),
        config,
    });
    let damaged = catch_up(&core, from_rid, from_seq)?;
    if fresh && tip.last_rid > 0 {
        core.notice(Notice::Rebuilt(tip.last_rid));
    }
    if damaged > 0 {
        core.notice(Notice::DamagedRows(damaged));
    }
    let floor = core.store.meta(FLOOR)?.unwrap_or_default();
    let (rid_floor, slot_floor) = match floor.split_first_chunk::<8>() {
        Some((rid, slot)) => (u64::from_be_bytes(*rid), slot.try_into().map_or(0, u32::from_be_bytes)),
        None => (0, 0),
    };
    core.vault.resume(core.homes.read().used().max(slot_floor));
    let log = start_log(&core, writer, tip, rid_floor, keyring)?;
    Ok((core, log))
}

fn start_log<F: Follower>(
    core: &Arc<Core<F>>,
    writer: Writer,
    tip: Tip,
    rid_floor: u64,
    keyring: u64,
) -> Result<Log<F>, OpenError> {
    let signed_before = tip.signed_before;
    let mut log = Log {
        core: Arc::clone(core),
        writer,
        next_rid: rid_floor.max(tip.last_rid + 1),
        random: Randomness::new(Arc::clone(&core.entropy)),
        keyring,
        signed: tip.head.size,
        newest: tip.newest,
        frontier: tip.frontier,
        synced: Arc::new(Signal::default()),
    };
    let behind = log.newest.0.saturating_sub(core.clock.now().0);
    if log.newest.0 > i64::MIN && behind > 0 {
        core.notice(Notice::ClockSetBack(behind));
    }
    if signed_before {
        // One from before a rotation opens no more; verify would name it.
        snapshot::remove(&core.config.dir);
        crate::rotate::hand_over(&mut log).map_err(|e| OpenError::Store(e.to_string()))?;
    }
    match crate::erase::finish(&mut log) {
        Ok(()) => {}
        // It is tried again at the next start, and at the next erasure.
        Err(EraseError::Places { have, want }) => core.notice(Notice::ErasurePending { have, want }),
        Err(e) => return Err(OpenError::Store(e.to_string())),
    }
    Ok(log)
}

/// Whether a snapshot is of an earlier moment of this very log: its tree, continued over the tail, is the log's tree.
/// Continues its tiles as well.
fn fits(store: &Store, loaded: &mut Loaded, tip: &Tip) -> Result<bool, OpenError> {
    if loaded.frontier.size() > tip.frontier.size() || loaded.visible > tip.last_rid {
        return Ok(false);
    }
    grow(store, &mut loaded.frontier, &mut loaded.tiles, tip.frontier.size())?;
    Ok(loaded.frontier == tip.frontier)
}

/// Continues a tree and its tiles over the stored entries, up to `size` of them.
fn grow(store: &Store, tree: &mut Frontier, tiles: &mut Tiles, size: u64) -> Result<(), OpenError> {
    if tree.size() == size {
        return Ok(());
    }
    store.view()?.entries(tree.size()..=size - 1, |entry| {
        tiles.append(tree, entry.entry);
        Ok(())
    })
}

/// A row on its way to the index.
enum Ready<P> {
    Row(u32, P, HomeKey),
    /// Nothing for the index; its slot is in use.
    Other(u32),
    Erased,
    Damaged,
}

/// Replays rows after `from_rid` and entries from `from_seq` into follower, homes and access lists; from the first
/// entry on, the tree's tiles as well.
fn catch_up<F: Follower>(core: &Arc<Core<F>>, from_rid: u64, from_seq: u64) -> Result<u64, OpenError> {
    std::thread::scope(|scope| {
        let entries = scope.spawn(|| {
            if from_seq == 0 {
                regrow(core)?;
            }
            replay_entries(core, from_seq)
        });
        let rows = replay_rows(core, from_rid);
        let entries = entries
            .join()
            .unwrap_or_else(|_| Err(OpenError::Store("replaying entries failed".to_owned())));
        Ok(rows? + entries?)
    })
}

/// Builds the tiles from all entries.
fn regrow<F: Follower>(core: &Core<F>) -> Result<(), OpenError> {
    let (mut tree, mut tiles) = (Frontier::new(), Tiles::default());
    let signed = core.frontier.read().clone();
    grow(&core.store, &mut tree, &mut tiles, signed.size())?;
    if tree != signed {
        core.notice(Notice::LogDamaged);
    }
    *core.tiles.write() = tiles;
    Ok(())
}

fn replay_entries<F: Follower>(core: &Core<F>, from: u64) -> Result<u64, OpenError> {
    let view = core.store.view()?;
    let size = view.size()?;
    let mut damaged = 0;
    if from >= size {
        return Ok(0);
    }
    let mut accesses = std::mem::take(&mut *core.accesses.write());
    view.entries(from..=size - 1, |entry| -> Result<(), OpenError> {
        if let Some(sealed) = entry.sealed {
            match event::open(&core.vault, entry.seq, sealed) {
                Some(half) => half
                    .slots
                    .iter()
                    .filter(|(slot, _)| *slot != 0)
                    .for_each(|(slot, _)| accesses.add(*slot, entry.seq)),
                None => damaged += 1,
            }
        }
        Ok(())
    })?;
    for slot in core.vault.destroyed() {
        accesses.forget(slot);
    }
    *core.accesses.write() = accesses;
    Ok(damaged)
}

fn prepare<F: Follower>(core: &Core<F>, stored: &RowRecord) -> Ready<F::Prepared> {
    match row::open(&core.vault, stored.rid, &stored.key_ref, &stored.body) {
        Ok(row) if row.header.kind == Kind::Blob => Ready::Other(row.slot),
        Ok(row) => {
            let slot = row.slot;
            let replayed = Replayed {
                rid: stored.rid,
                slot,
                header: row.header,
                text: row.text,
            };
            let (prepared, home) = core.follower.prepare(replayed);
            Ready::Row(slot, prepared, home)
        }
        Err(crate::ReadError::Erased(_) | crate::ReadError::Missing(_)) => Ready::Erased,
        Err(_) => Ready::Damaged,
    }
}

/// Rows in parallel: one thread reads, some open and parse, this one feeds the follower in order.
fn replay_rows<F: Follower>(core: &Arc<Core<F>>, from: u64) -> Result<u64, OpenError> {
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    std::thread::scope(|scope| {
        let (raw, to_open) = sync_channel::<(u64, Vec<RowRecord>)>(workers * 4);
        let to_open = Arc::new(Mutex::new(to_open));
        let (opened, ready) = sync_channel::<(u64, Vec<Ready<F::Prepared>>)>(workers * 4);
        let reader = scope.spawn(move || -> Result<(), OpenError> {
            let view = core.store.view()?;
            let last = view.last_rid()?;
            let mut batch = Vec::with_capacity(REPLAY_BATCH);
            let mut number = 0;
            if from < last {
                view.rows(from + 1..=last, |row| -> Result<(), OpenError> {
                    batch.push(row.to_record());
                    if batch.len() == REPLAY_BATCH {
                        // The receivers live until this end is dropped.
                        let _ = raw.send((number, std::mem::replace(&mut batch, Vec::with_capacity(REPLAY_BATCH))));
                        number += 1;
                    }
                    Ok(())
                })?;
            }
            let _ = raw.send((number, batch));
            Ok(())
        });
        for _ in 0..workers {
            let (to_open, opened) = (Arc::clone(&to_open), opened.clone());
            scope.spawn(move || {
                loop {
                    let Ok((number, rows)) = to_open.lock().recv() else {
                        return;
                    };
                    let rows = rows.iter().map(|row| prepare(core, row)).collect();
                    if opened.send((number, rows)).is_err() {
                        return;
                    }
                }
            });
        }
        drop((opened, to_open));
        let mut waiting = BTreeMap::new();
        let mut next = 0;
        let mut damaged = 0;
        for (number, rows) in ready {
            waiting.insert(number, rows);
            while let Some(rows) = waiting.remove(&next) {
                next += 1;
                damaged += take_in(core, rows);
            }
        }
        reader
            .join()
            .unwrap_or_else(|_| Err(OpenError::Store("reading rows failed".to_owned())))?;
        Ok(damaged)
    })
}

fn take_in<F: Follower>(core: &Core<F>, rows: Vec<Ready<F::Prepared>>) -> u64 {
    let mut damaged = 0;
    let mut prepared = Vec::with_capacity(rows.len());
    {
        let mut homes = core.homes.write();
        for row in rows {
            match row {
                Ready::Row(slot, row, home) => {
                    homes.saw(slot);
                    homes.learn(slot, &home);
                    prepared.push(row);
                }
                Ready::Other(slot) => homes.saw(slot),
                Ready::Erased => {}
                Ready::Damaged => damaged += 1,
            }
        }
    }
    core.follower.replay(prepared);
    damaged
}

//! The ledger itself: one data directory, open.

use crate::core::{Core, LogSigner, Randomness};
use crate::erase::{self, Erasing};
use crate::error::{AppendError, EraseError, Notice, OpenError, ReadError, Unavailable};
use crate::event::{self, Access, Event, Part, Wait};
use crate::follower::{Follower, Header};
use crate::keeper::{self, Signal};
use crate::verify::Report;
use crate::writer::{Job, Log};
use crate::{rotate, snapshot, start, verify};
use keepwell_audit::leaf::{Leaf, event_digest};
use keepwell_audit::note::VerifierKey;
use keepwell_model::time::{Clock, Entropy, Timestamp};
use keepwell_vault::{Custodian, NONCE, Place, RecoveryKey, TAG};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Where the data is and how carefully to treat it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory.
    pub dir: PathBuf,
    /// Further places of the ERA, outside `dir`.
    pub era_copies: Vec<PathBuf>,
    /// Fewest ERA places (the one in `dir` counted) that must confirm an erasure: 2, or 1 for a demo.
    pub era_places_min: usize,
    /// The keyring file, if it is kept apart from the data; `dir/keyring` otherwise.
    pub keyring: Option<PathBuf>,
    /// A second place of the keyring, confirmed before a new slot is used.
    pub keyring_copy: Option<PathBuf>,
    /// A file outside `dir` that gets the newest checkpoint as well.
    pub checkpoint_copy: Option<PathBuf>,
    /// Whether [`Wait::Wal`] is treated as [`Wait::Fsync`].
    pub sync_reads: bool,
    /// Bytes kept aside for a full disk.
    pub reserve: u64,
    /// Limit of the database in pages of 4 KB; `None` for SQLite's own.
    pub max_pages: Option<u32>,
    /// The log's name in checkpoints, for example `keepwell.example/log`; fixed at `init`, ignored afterwards.
    pub origin: String,
    /// Rows after which a new snapshot is made.
    pub snapshot_every: u64,
    /// Called with the name of each moment of an erasure; a test stops the process there.
    pub fault: Option<fn(&str)>,
}

impl Config {
    /// The defaults for a directory: two ERA places, 256 MB reserve, a snapshot each 100,000 rows.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            era_copies: Vec::new(),
            era_places_min: 2,
            keyring: None,
            keyring_copy: None,
            checkpoint_copy: None,
            sync_reads: false,
            reserve: 256 << 20,
            max_pages: None,
            origin: "keepwell".to_owned(),
            snapshot_every: 100_000,
            fault: None,
        }
    }
}

/// A row opened.
pub struct Opened {
    /// Its header.
    pub header: Header,
    /// The JSON text with attachments in place.
    pub text: Vec<u8>,
    /// Its slot.
    pub slot: u32,
}

/// What an erasure did.
#[derive(Clone, Debug, Default)]
pub struct Erased {
    /// The slots destroyed.
    pub slots: Vec<u32>,
    /// The entry that announces it; that of the act where nothing could be destroyed.
    pub seq: u64,
    /// Those of them whose rows were sealed again for other patients, without the erased one.
    pub redacted: Vec<u32>,
    /// Resources of several patients, this one among them, that were left as they are: a person must decide.
    pub pending: Vec<Left>,
    /// ERA places that overwrote the old value.
    pub confirmed: Vec<PathBuf>,
    /// ERA places that could not be reached: the erasure stays pending there.
    pub unreachable: Vec<PathBuf>,
}

/// A resource of several patients that an erasure leaves to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its type's number.
    pub type_code: u16,
    /// Its logical id.
    pub id: String,
    /// Why, in a few words.
    pub why: String,
}

/// What an erasure would do.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Rows of the patient alone.
    pub own: u64,
    /// Resources of several patients that would be sealed again for the others.
    pub redacted: u64,
    /// Resources of several patients that would go.
    pub destroyed: u64,
    /// Resources of several patients that would be left to a person.
    pub pending: Vec<Left>,
}

/// Counts for `/metrics` and `keys status`.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Rows in the log.
    pub rows: u64,
    /// Entries in the log.
    pub entries: u64,
    /// Slots in use.
    pub slots_active: u32,
    /// Slots made ahead.
    pub slots_free: u32,
    /// Slots destroyed.
    pub slots_destroyed: u32,
    /// Erasures so far.
    pub erasures: u32,
    /// Revision of the keyring file.
    pub keyring_revision: u64,
    /// Unlock slots, for example `passphrase`, `recovery`.
    pub custody: Vec<&'static str>,
    /// ERA places where an erasure is not confirmed yet.
    pub erasure_pending: Vec<PathBuf>,
    /// Generations of the organisation key.
    pub key_generations: u16,
    /// Why the newest commit failed, if it did.
    pub stopped: Option<Unavailable>,
}

/// The sealed log of one data directory. Share it in an `Arc`.
pub struct Ledger<F: Follower> {
    core: Arc<Core<F>>,
    jobs: Sender<Job<F>>,
    signal: Arc<Signal>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    notes: Mutex<Randomness>,
}

/// Sealed notes name their hour; each hour and purpose has a key of its own.
const NOTE: [u8; 4] = *b"not1";
const NOTE_PURPOSE: [u8; 8] = *b"note\0\0\0\0";

impl<F: Follower> Ledger<F> {
    /// Makes a new data directory; the recovery key is shown once and kept nowhere.
    ///
    /// # Errors
    /// The directory holds data already, or cannot be written.
    pub fn init(
        config: &Config,
        custodian: &dyn Custodian,
        clock: &dyn Clock,
        entropy: &Arc<dyn Entropy>,
    ) -> Result<RecoveryKey, OpenError> {
        start::init(config, custodian, clock, entropy)
    }

    /// Opens a data directory: takes the lock, unlocks the keyring, finishes an interrupted erasure, brings the
    /// follower's index up to date and starts the writer. Blocking; may take seconds.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        config: Config,
        custodian: &dyn Custodian,
        follower: Arc<F>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, OpenError> {
        let (core, log) = start::open(config, custodian, follower, clock, Arc::clone(&entropy))?;
        let signal = Arc::clone(&log.synced);
        let (jobs, queue) = channel();
        let writer = std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || log.run(&queue))?;
        let keeper = keeper::spawn(Arc::clone(&core), Arc::clone(&signal), jobs.clone())?;
        Ok(Self {
            core,
            jobs,
            signal,
            threads: Mutex::new(vec![writer, keeper]),
            notes: Mutex::new(Randomness::new(entropy)),
        })
    }

    fn send(&self, job: Job<F>) -> Result<(), Unavailable> {
        if self.core.is_stopped() {
            return Err(Unavailable::Stopped);
        }
        self.jobs.send(job).map_err(|_| Unavailable::Stopped)
    }

    pub(crate) fn alone<R: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Log<F>) -> R + Send + 'static,
    ) -> Result<R, Unavailable> {
        let (done, result) = channel();
        self.send(Job::Alone(Box::new(move |log| drop(done.send(act(log))))))?;
        result.recv().map_err(|_| Unavailable::Stopped)
    }

    /// Puts a change before the writer and returns when it is durable (fsynced) and visible, or refused.
    ///
    /// # Errors
    /// The follower's refusal, or nothing could be written.
    pub async fn append(&self, change: F::Change) -> Result<F::Answer, AppendError<F::Refusal>> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Append(change, reply))?;
        let (change, placed) = answer.await.map_err(|_| Unavailable::Stopped)??;
        Ok(self.core.follower.answer(change, &placed))
    }

    /// [`Ledger::append`] for callers outside an async runtime.
    ///
    /// # Errors
    /// As [`Ledger::append`].
    pub fn append_blocking(&self, change: F::Change) -> Result<F::Answer, AppendError<F::Refusal>> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Append(change, reply))?;
        let (change, placed) = answer.blocking_recv().map_err(|_| Unavailable::Stopped)??;
        Ok(self.core.follower.answer(change, &placed))
    }

    /// Appends an event. A caller that gets an error must not disclose anything.
    ///
    /// # Errors
    /// The entry could not be appended.
    pub async fn log(&self, event: Event, wait: Wait) -> Result<u64, Unavailable> {
        if cfg!(keepwell_plain) {
            return Ok(0);
        }
        let (reply, answer) = oneshot::channel();
        self.send(Job::Log(event, wait, reply))?;
        answer.await.map_err(|_| Unavailable::Stopped)?
    }

    /// [`Ledger::log`] for callers outside an async runtime.
    ///
    /// # Errors
    /// As [`Ledger::log`].
    pub fn log_blocking(&self, event: Event, wait: Wait) -> Result<u64, Unavailable> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Log(event, wait, reply))?;
        answer.blocking_recv().map_err(|_| Unavailable::Stopped)?
    }

    /// Opens a row. Any thread.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, rid: u64) -> Result<Arc<Opened>, ReadError> {
        if self.core.is_stopped() {
            return Err(ReadError::Stopped);
        }
        self.core.opened(rid)
    }

    /// Opens the rows of a page, in their order: cheaper than one by one, as what is not in memory is read at once.
    pub fn read_all(&self, rids: &[u64]) -> Vec<Result<Arc<Opened>, ReadError>> {
        let kept: Vec<_> = rids.iter().map(|rid| (*rid, self.core.opened.get(*rid))).collect();
        let closed = kept.iter().filter(|(_, kept)| kept.is_none()).map(|(rid, _)| *rid);
        // What cannot be read is met again, and reported, where it is opened.
        let _ = self.core.store.prefetch(closed);
        let stopped = self.core.is_stopped();
        kept.into_iter()
            .map(|(rid, kept)| match kept {
                _ if stopped => Err(ReadError::Stopped),
                Some(kept) => Ok(kept),
                None => self.core.opened(rid),
            })
            .collect()
    }

    /// Rows up to this number are durable and in the index.
    #[must_use]
    pub fn visible(&self) -> u64 {
        self.core.visible.load(Ordering::Acquire)
    }

    /// The follower.
    #[must_use]
    pub fn follower(&self) -> &Arc<F> {
        &self.core.follower
    }

    /// What start-up and running found worth telling; taken once.
    #[must_use]
    pub fn take_notices(&self) -> Vec<Notice> {
        std::mem::take(&mut self.core.notices.lock())
    }

    /// The slot of a patient, if any row names that patient.
    #[must_use]
    pub fn slot_of_patient(&self, id: &str) -> Option<u32> {
        self.core.homes.read().slot(id)
    }

    /// The patients of a slot: one id, several for a resource of several patients, none for shared rows.
    #[must_use]
    pub fn patients_of_slot(&self, slot: u32) -> Vec<String> {
        self.core.homes.read().patients(slot)
    }

    /// Events with a part for `slot`, newest first, with entry numbers below `before`, at most `limit`.
    ///
    /// # Errors
    /// An entry is damaged.
    pub fn access_log(&self, slot: u32, before: u64, limit: usize) -> Result<Vec<Access>, ReadError> {
        let entries = self.core.accesses.read().of(slot);
        let mut out = Vec::new();
        for seq in entries.into_iter().rev().filter(|seq| *seq < before).take(limit) {
            let (mut access, mut parts) = self.open_event(seq)?;
            for (part, of) in parts.drain(..).zip(&access.slots) {
                if *of == slot
                    && let Part::Open(text) = part
                {
                    access.part.extend_from_slice(&text);
                }
            }
            out.push(access);
        }
        Ok(out)
    }

    /// Opens the actor half of one event.
    ///
    /// # Errors
    /// No such entry, not an event, or damaged.
    pub fn event(&self, seq: u64) -> Result<Access, ReadError> {
        Ok(self.open_event(seq)?.0)
    }

    /// Opens an event and compares it with its leaf.
    fn open_event(&self, seq: u64) -> Result<(Access, Vec<Part>), ReadError> {
        let vault = &self.core.vault;
        let stored = self
            .core
            .store
            .entry(seq)
            .map_err(|e| ReadError::Store(e.to_string()))?;
        let stored = stored.ok_or(ReadError::Missing(seq))?;
        let (
            Ok(Leaf::Event {
                at,
                kind,
                sealed: digest,
                commitment,
            }),
            Some(sealed),
        ) = (Leaf::from_bytes(&stored.entry), &stored.sealed)
        else {
            return Err(ReadError::Missing(seq));
        };
        let damaged = ReadError::Damaged(seq);
        if event_digest(sealed) != digest {
            return Err(damaged);
        }
        let half = event::open(vault, seq, sealed).ok_or(damaged.clone())?;
        let parts = half.open_parts(vault).ok_or(damaged.clone())?;
        if half.commits(vault, at, kind, &parts, &commitment) == Some(false) {
            return Err(damaged);
        }
        let slots = half.slots.iter().map(|(slot, _)| *slot).collect();
        Ok((
            Access {
                seq,
                at: Timestamp(at),
                kind,
                actor: half.actor,
                part: Vec::new(),
                slots,
            },
            parts,
        ))
    }

    /// Number of entries in the log.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.core.size.load(Ordering::Acquire)
    }

    /// The newest signed checkpoint, a C2SP signed note.
    #[must_use]
    pub fn checkpoint(&self) -> String {
        String::from_utf8_lossy(&self.core.head.read().note).into_owned()
    }

    /// What the ledger's parts share.
    pub(crate) fn core(&self) -> &Core<F> {
        &self.core
    }

    /// The newest checkpoint, signed now where entries came since.
    pub(crate) fn signed_head(&self) -> Result<String, ReadError> {
        self.alone(Log::sign_head)
            .map_err(|_| ReadError::Stopped)?
            .map_err(|e| ReadError::Store(e.to_string()))?;
        Ok(self.checkpoint())
    }

    /// The public key of the checkpoints, as a C2SP verifier key (`name+hash+base64`).
    #[must_use]
    pub fn verifier_key(&self) -> String {
        let signer = LogSigner {
            vault: &self.core.vault,
            origin: &self.core.origin,
        };
        VerifierKey::of(&signer).map(|key| key.to_string()).unwrap_or_default()
    }

    /// The rows and entries as stored, for export and backup: sealed bytes only.
    #[must_use]
    pub fn store(&self) -> &keepwell_store::Store {
        &self.core.store
    }

    /// Signs with the token key (Ed25519).
    ///
    /// # Errors
    /// The ledger is sealed.
    pub fn sign_token(&self, message: &[u8]) -> Result<[u8; 64], Unavailable> {
        if self.core.is_stopped() {
            return Err(Unavailable::Stopped);
        }
        Ok(self.core.vault.sign_token(message))
    }

    /// The token key's public half.
    #[must_use]
    pub fn token_public_key(&self) -> [u8; 32] {
        self.core.vault.token_public()
    }

    /// The public halves of earlier token keys that are still honoured.
    #[must_use]
    pub fn token_retired_keys(&self) -> Vec<[u8; 32]> {
        self.core.vault.token_retired()
    }

    /// The public keys that checkpoints of this log were signed with, today's first, as C2SP verifier keys.
    #[must_use]
    pub fn verifier_keys(&self) -> Vec<VerifierKey> {
        rotate::log_keys(&self.core.vault, &self.core.origin)
    }

    /// Seals a short text (a paging cursor, a login link) under the organisation's key; `context` must be given
    /// again to open it. The result is bytes to base64.
    ///
    /// # Errors
    /// The ledger is sealed.
    pub fn seal_note(&self, context: &[u8], text: &[u8]) -> Result<Vec<u8>, Unavailable> {
        if self.core.is_stopped() {
            return Err(Unavailable::Stopped);
        }
        let hour = u64::try_from(self.core.clock.now().0 / 3_600_000).unwrap_or(0);
        let key = self.core.vault.organisation_key(NOTE_PURPOSE, 0, hour << 20)?;
        let random = self.notes.lock().take().ok_or(Unavailable::Entropy)?;
        let nonce = key.nonce(&random, hour, &[context, text]);
        let mut sealed = text.to_vec();
        let bound = keepwell_audit::merkle::sha256(&[context]);
        let tag = key.seal(
            Place {
                format: NOTE,
                number: hour,
                extra: &bound,
            },
            &nonce,
            &mut sealed,
        );
        let tag = tag.map_err(|_| Unavailable::Entropy)?;
        let mut out = Vec::with_capacity(sealed.len() + 40);
        out.extend_from_slice(&key.generation().to_be_bytes());
        out.extend_from_slice(hour.to_be_bytes().get(4..).unwrap_or_default());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// Opens what [`Ledger::seal_note`] sealed; `None` when it is not ours, altered or from another context.
    #[must_use]
    pub fn open_note(&self, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        if self.core.is_stopped() || sealed.len() < 6 + NONCE + TAG {
            return None;
        }
        let mut r = crate::varint::Reader(sealed);
        let generation = u16::from_be_bytes(r.array()?);
        let hour = u64::from(u32::from_be_bytes(r.array()?));
        let nonce = r.array::<NONCE>()?;
        if generation == 0 {
            return None;
        }
        let key = self
            .core
            .vault
            .organisation_key(NOTE_PURPOSE, generation, hour << 20)
            .ok()?;
        let bound = keepwell_audit::merkle::sha256(&[context]);
        let mut text = r.0.to_vec();
        let text = key
            .open(
                Place {
                    format: NOTE,
                    number: hour,
                    extra: &bound,
                },
                &nonce,
                &mut text,
            )
            .ok()?;
        Some(text.to_vec())
    }

    /// Writes a snapshot of the index now. Blocks applying, not reading.
    ///
    /// # Errors
    /// It could not be written; the old one is still there.
    pub fn snapshot(&self) -> Result<(), Unavailable> {
        let made = snapshot::save(&self.core)?;
        self.alone(move |log| snapshot::record(log, &made))?
    }

    /// Erases a patient: seals again for others what they share, destroys the slots, takes them out of the index, writes
    /// tombstones and a new snapshot. Linked patients are the caller's to list, one call each.
    ///
    /// # Errors
    /// See [`EraseError`].
    pub fn erase(&self, patient: &str, act: impl Erasing + 'static) -> Result<Erased, EraseError> {
        let patient = patient.to_owned();
        self.alone(move |log| erase::erase(log, &patient, &act))?
    }

    /// What [`Ledger::erase`] would do.
    ///
    /// # Errors
    /// Nothing of that patient is held, or it cannot be read.
    pub fn erasure_reach(&self, patient: &str, act: &dyn Erasing) -> Result<Reach, EraseError> {
        erase::reach(&self.core, patient, act)
    }

    /// Whether a row names that patient, alone or among several.
    #[must_use]
    pub fn holds_patient(&self, id: &str) -> bool {
        let homes = self.core.homes.read();
        homes.slot(id).is_some() || !homes.with_others(id).is_empty()
    }

    /// Counts.
    #[must_use]
    pub fn status(&self) -> Status {
        let keys = self.core.vault.status();
        let [slots_active, slots_free, slots_destroyed] = keys.slots;
        Status {
            rows: self.visible(),
            entries: self.size(),
            slots_active,
            slots_free,
            slots_destroyed,
            erasures: keys.erasures,
            keyring_revision: keys.revision,
            custody: keys.custody,
            erasure_pending: keys.pending,
            key_generations: keys.generations,
            stopped: self.core.failure.lock().clone(),
        }
    }

    /// Rotates every key, for the custodian given (with today's secret or a new one) and a new recovery key, which is shown
    /// once. Older copies of the keyring open nothing from then on. Requests go on meanwhile; what was sealed before is not
    /// sealed again. With `end_tokens` no token signed before is honoured.
    ///
    /// # Errors
    /// Too few ERA places (nothing was changed), or a file could not be written: the next start finishes or undoes it.
    pub fn rotate(&self, custodian: Arc<dyn Custodian>, end_tokens: bool) -> Result<RecoveryKey, Unavailable> {
        self.alone(move |log| rotate::rotate(log, custodian.as_ref(), end_tokens))?
    }

    /// Verifies the running log: one moment of it, beside the writer. Takes as much memory again as the index meanwhile.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub fn verify(&self, outside: Option<&Path>) -> Result<Report, OpenError> {
        let _ = self.alone(Log::sign_head);
        let outside = outside.into_iter().chain(self.core.config.checkpoint_copy.as_deref());
        let subject = verify::Subject {
            dir: &self.core.config.dir,
            store: &self.core.store,
            vault: Some(&self.core.vault),
            follower: self.core.follower.as_ref(),
            live: Some(&self.core),
        };
        verify::check(&subject, &outside.collect::<Vec<_>>())
    }

    /// A clean stop: waits for the writer, writes snapshot and checkpoint, truncates the write-ahead log.
    pub fn stop(&self) {
        if self.core.is_stopped() {
            return;
        }
        if let Ok(Err(e)) = self.alone(Log::sign_head) {
            tracing::warn!(error = %e, "the head could not be signed");
        }
        keeper::write_checkpoint(&self.core);
        let newest = *self.core.snapshot.lock();
        let current = newest.is_some_and(|newest| newest.rows == self.visible())
            && self.core.config.dir.join(snapshot::FILE).exists();
        if !current && let Err(e) = self.snapshot() {
            tracing::warn!(error = %e, "no snapshot; the next start takes longer");
        }
        if let Err(e) = self.core.vault.flush() {
            tracing::warn!(error = %e, "the keyring could not be written at the stop");
        }
        self.halt();
    }

    /// Stops at once and drops cached keys; the caller then re-executes the process, which empties its memory.
    pub fn seal(&self) {
        self.stop();
        self.core.vault.forget_keys();
        self.core.opened.forget_all();
    }

    fn halt(&self) {
        self.core.stopped.store(true, Ordering::Release);
        let _ = self.jobs.send(Job::Stop);
        self.signal.stop();
        for thread in self.threads.lock().drain(..) {
            // A panic there was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl<F: Follower> Drop for Ledger<F> {
    fn drop(&mut self) {
        self.halt();
    }
}

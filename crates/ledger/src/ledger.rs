//! The ledger itself.

use crate::{Access, AppendError, EraseError, Event, Follower, Header, Notice, OpenError, ReadError, Unavailable, Wait};
use keepwell_model::time::{Clock, Entropy};
use keepwell_vault::{Custodian, RecoveryKey};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the data is and how carefully to treat it.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory.
    pub dir: PathBuf,
    /// Further places of the ERA, outside `dir`.
    pub era_copies: Vec<PathBuf>,
    /// Fewest ERA places (the one in `dir` counted) that must confirm an erasure: 2, or 1 for a demo.
    pub era_places_min: usize,
    /// A second place of the keyring, confirmed before a new slot is used.
    pub keyring_copy: Option<PathBuf>,
    /// A file outside `dir` that gets the newest checkpoint as well.
    pub checkpoint_copy: Option<PathBuf>,
    /// Whether [`Wait::Wal`] is treated as [`Wait::Fsync`].
    pub sync_reads: bool,
    /// Bytes kept aside for a full disk.
    pub reserve: u64,
    /// The log's name in checkpoints, for example `keepwell.example/log`; fixed at `init`, ignored afterwards.
    pub origin: String,
    /// Rows after which a new snapshot is made.
    pub snapshot_every: u64,
}

impl Config {
    /// The defaults for a directory: two ERA places, 256 MB reserve, a snapshot each 100,000 rows.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            era_copies: Vec::new(),
            era_places_min: 2,
            keyring_copy: None,
            checkpoint_copy: None,
            sync_reads: false,
            reserve: 256 << 20,
            origin: "keepwell".to_owned(),
            snapshot_every: 100_000,
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
    /// The entry that announces it.
    pub seq: u64,
    /// Slots of resources that belong to several patients, this one among them: not erased, a person must decide.
    pub pending: Vec<u32>,
    /// ERA places that overwrote the old value.
    pub confirmed: Vec<PathBuf>,
    /// ERA places that could not be reached: the erasure stays pending there.
    pub unreachable: Vec<PathBuf>,
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
    /// Whether writes are refused now, and why.
    pub stopped: Option<Unavailable>,
}

/// The sealed log of one data directory. Share it in an `Arc`.
pub struct Ledger<F: Follower> {
    follower: Arc<F>,
    visible: AtomicU64,
}

impl<F: Follower> Ledger<F> {
    /// Makes a new data directory; the recovery key is shown once and kept nowhere.
    ///
    /// # Errors
    /// The directory holds data already, or cannot be written.
    pub fn init(_config: &Config, _custodian: &dyn Custodian, _clock: &dyn Clock, _entropy: &dyn Entropy) -> Result<RecoveryKey, OpenError> {
        Err(OpenError::Entropy)
    }

    /// Opens a data directory: takes the lock, unlocks the keyring, finishes an interrupted erasure, brings the
    /// follower's index up to date and starts the writer. Blocking; may take seconds.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(_config: Config, _custodian: &dyn Custodian, _follower: Arc<F>, _clock: Arc<dyn Clock>, _entropy: Arc<dyn Entropy>) -> Result<Self, OpenError> {
        Err(OpenError::Entropy)
    }

    /// Puts a change before the writer and returns when it is durable (fsynced) and visible, or refused.
    ///
    /// # Errors
    /// The follower's refusal, or nothing could be written.
    pub async fn append(&self, _change: F::Change) -> Result<F::Answer, AppendError<F::Refusal>> {
        Err(AppendError::Unavailable(Unavailable::Stopped))
    }

    /// [`Ledger::append`] for callers outside an async runtime.
    ///
    /// # Errors
    /// As [`Ledger::append`].
    pub fn append_blocking(&self, _change: F::Change) -> Result<F::Answer, AppendError<F::Refusal>> {
        Err(AppendError::Unavailable(Unavailable::Stopped))
    }

    /// Appends an event. A caller that gets an error must not disclose anything.
    ///
    /// # Errors
    /// The entry could not be appended.
    pub async fn log(&self, _event: Event, _wait: Wait) -> Result<u64, Unavailable> {
        Err(Unavailable::Stopped)
    }

    /// [`Ledger::log`] for callers outside an async runtime.
    ///
    /// # Errors
    /// As [`Ledger::log`].
    pub fn log_blocking(&self, _event: Event, _wait: Wait) -> Result<u64, Unavailable> {
        Err(Unavailable::Stopped)
    }

    /// Opens a row. Any thread.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(&self, rid: u64) -> Result<Opened, ReadError> {
        Err(ReadError::Missing(rid))
    }

    /// Rows up to this number are durable and in the index.
    #[must_use]
    pub fn visible(&self) -> u64 {
        self.visible.load(Ordering::Acquire)
    }

    /// The follower.
    #[must_use]
    pub fn follower(&self) -> &Arc<F> {
        &self.follower
    }

    /// What start-up and running found worth telling; taken once.
    #[must_use]
    pub fn take_notices(&self) -> Vec<Notice> {
        Vec::new()
    }

    /// The slot of a patient, if any row names that patient.
    #[must_use]
    pub fn slot_of_patient(&self, _id: &str) -> Option<u32> {
        None
    }

    /// The patients of a slot: one id, several for a resource of several patients, none for shared rows.
    #[must_use]
    pub fn patients_of_slot(&self, _slot: u32) -> Vec<String> {
        Vec::new()
    }

    /// Events with a part for `slot`, newest first, with entry numbers below `before`, at most `limit`.
    ///
    /// # Errors
    /// The slot was erased, or an entry is damaged.
    pub fn access_log(&self, _slot: u32, _before: u64, _limit: usize) -> Result<Vec<Access>, ReadError> {
        Ok(Vec::new())
    }

    /// Opens the actor half of one event.
    ///
    /// # Errors
    /// No such entry, not an event, or damaged.
    pub fn event(&self, seq: u64) -> Result<Access, ReadError> {
        Err(ReadError::Missing(seq))
    }

    /// Number of entries in the log.
    #[must_use]
    pub fn size(&self) -> u64 {
        0
    }

    /// The newest signed checkpoint, a C2SP signed note.
    #[must_use]
    pub fn checkpoint(&self) -> String {
        String::new()
    }

    /// A proof file that entry `seq` is in the log (`audit` says how to check it).
    ///
    /// # Errors
    /// No such entry.
    pub fn proof(&self, seq: u64) -> Result<Vec<u8>, ReadError> {
        Err(ReadError::Missing(seq))
    }

    /// The public key of the checkpoints, as a C2SP verifier key (`name+hash+base64`).
    #[must_use]
    pub fn verifier_key(&self) -> String {
        String::new()
    }

    /// Signs with the token key (Ed25519).
    ///
    /// # Errors
    /// The ledger is sealed.
    pub fn sign_token(&self, _message: &[u8]) -> Result<[u8; 64], Unavailable> {
        Err(Unavailable::Stopped)
    }

    /// The token key's public half.
    #[must_use]
    pub fn token_public_key(&self) -> [u8; 32] {
        [0; 32]
    }

    /// Seals a short text (a paging cursor, a login link) under the organisation's key; `context` must be given
    /// again to open it. The result is bytes to base64.
    ///
    /// # Errors
    /// The ledger is sealed.
    pub fn seal_note(&self, _context: &[u8], _text: &[u8]) -> Result<Vec<u8>, Unavailable> {
        Err(Unavailable::Stopped)
    }

    /// Opens what [`Ledger::seal_note`] sealed; `None` when it is not ours, altered or from another context.
    #[must_use]
    pub fn open_note(&self, _context: &[u8], _sealed: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// Writes a snapshot of the index now. Blocks applying, not reading.
    ///
    /// # Errors
    /// It could not be written; the old one is still there.
    pub fn snapshot(&self) -> Result<(), Unavailable> {
        Err(Unavailable::Stopped)
    }

    /// Erases a patient: destroys the slot, takes it out of the index, writes a tombstone and a new snapshot.
    /// `event` is the act's own audit event.
    ///
    /// # Errors
    /// See [`EraseError`].
    pub fn erase(&self, _patient: &str, _event: Event) -> Result<Erased, EraseError> {
        Err(EraseError::Unknown)
    }

    /// Counts.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::default()
    }

    /// Replaces the unlock slot of the custodian's kind by `new` (root re-wrap).
    ///
    /// # Errors
    /// The keyring could not be written; the old one still opens.
    pub fn rotate_custody(&self, _new: &dyn Custodian) -> Result<(), Unavailable> {
        Err(Unavailable::Stopped)
    }

    /// New generations of the organisation's keys and of all slots for new rows.
    ///
    /// # Errors
    /// The keyring could not be written; the old generations go on.
    pub fn rotate_keys(&self) -> Result<(), Unavailable> {
        Err(Unavailable::Stopped)
    }

    /// A clean stop: waits for the writer, writes snapshot and checkpoint, truncates the write-ahead log.
    pub fn stop(&self) {}

    /// Stops at once and drops keys from memory; the caller then re-executes the process.
    pub fn seal(&self) {}
}

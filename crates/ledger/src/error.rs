//! What can go wrong, one type per operation. No message carries a value from a record.

/// The ledger cannot write now; nothing of the change was kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// No space left on the volume of the data directory.
    #[error("the disk is full: writes have stopped, make room on the volume of the data directory")]
    DiskFull,
    /// The data directory is mounted or marked read-only.
    #[error("the data directory is read-only")]
    ReadOnly,
    /// The ledger is sealed or stopping.
    #[error("the ledger is sealed or stopping")]
    Stopped,
    /// The keyring (or its copy) could not be extended, so no new slot may be used.
    #[error("the keyring could not be extended: {0}")]
    Keyring(String),
    /// The source of randomness failed; nothing may be sealed.
    #[error("the source of random numbers is not available")]
    Entropy,
    /// A change was too large or named a slot that does not exist or was erased.
    #[error("the change cannot be placed: {0}")]
    Unplaceable(&'static str),
    /// The store failed in another way.
    #[error("the store failed: {0}")]
    Store(String),
}

/// A change was not made.
#[derive(Debug, thiserror::Error)]
pub enum AppendError<R> {
    /// The follower refused it; the refusal's event is durable in the log.
    #[error("refused")]
    Refused(R),
    /// It could not be written.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A row cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Its slot was destroyed.
    #[error("row {0} was erased")]
    Erased(u64),
    /// Its bytes do not open: altered, moved or rolled back.
    #[error("row {0} is damaged")]
    Damaged(u64),
    /// No such row.
    #[error("row {0} does not exist")]
    Missing(u64),
    /// The ledger is sealed.
    #[error("the ledger is sealed or stopping")]
    Stopped,
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(String),
}

/// The data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the lock.
    #[error("another keepwell process is using this data directory")]
    AlreadyRunning,
    /// No database here.
    #[error("there is no Keepwell data in `{0}`; run `keepwell init` first")]
    NoData(String),
    /// Data exists already where a new directory was to be made.
    #[error("`{0}` already holds Keepwell data")]
    AlreadyInitialised(String),
    /// The keyring file is not there.
    #[error("the keyring `{0}` is missing; restore it from its copy")]
    KeyringMissing(String),
    /// The keyring does not authenticate.
    #[error("the keyring is damaged: {0}")]
    KeyringDamaged(&'static str),
    /// No unlock slot opens with what was given.
    #[error("wrong passphrase, key file or recovery key")]
    WrongPassphrase,
    /// The keyring names an ERA that no listed place holds any more.
    #[error("this keyring is older than the last erasure (or its ERA is missing): it opens nothing")]
    KeyringOlderThanErasure,
    /// The keyring does not cover the log: it is an older copy.
    #[error("this keyring is older than the log: use the newest copy")]
    KeyringOlderThanLog,
    /// The database is behind a checkpoint kept outside it.
    #[error("the log was rolled back: it has {have} entries, the checkpoint beside it names {want}")]
    RolledBack {
        /// Entries in the log.
        have: u64,
        /// Entries the checkpoint promises.
        want: u64,
    },
    /// The tree head and the newest checkpoint disagree.
    #[error("the log does not match its signed checkpoint")]
    Forked,
    /// The configured origin is not that of the log.
    #[error("this is the log of `{log}`, not of `{configured}`: a site keeps the name it was made with")]
    OtherSite {
        /// The origin that the log's checkpoints sign.
        log: String,
        /// The origin asked for.
        configured: String,
    },
    /// No space left.
    #[error("the disk is full")]
    DiskFull,
    /// Mounted read-only.
    #[error("the data directory is read-only")]
    ReadOnly,
    /// Fewer ERA places are reachable than required.
    #[error("an ERA needs at least {want} places, {have} are reachable")]
    EraPlaces {
        /// Places reached.
        have: usize,
        /// Places required.
        want: usize,
    },
    /// The source of randomness failed.
    #[error("the source of random numbers is not available")]
    Entropy,
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(String),
    /// The file system failed.
    #[error("cannot use the data directory: {0}")]
    Io(#[from] std::io::Error),
}

/// A patient was not (wholly) erased.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// No slot belongs to that patient.
    #[error("no data of that patient is held")]
    Unknown,
    /// Fewer than the required ERA places confirmed; nothing was erased.
    #[error("an erasure needs at least {want} confirmed ERA places, {have} are reachable; nothing was erased")]
    Places {
        /// Places reached.
        have: usize,
        /// Places required.
        want: usize,
    },
    /// The ledger cannot write.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Something the operator should know; the ledger goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The snapshot did not match the log or did not open; the index was rebuilt from the rows.
    SnapshotDiscarded(&'static str),
    /// The index was built from this many rows without a snapshot.
    Rebuilt(u64),
    /// The clock reads earlier than the newest entry of the log, by this many milliseconds.
    ClockSetBack(i64),
    /// These many rows do not open and are left out; the rest is served.
    DamagedRows(u64),
    /// Stored entries are not what the checkpoint signs; `verify` says which. The rest is served.
    LogDamaged,
    /// An erasure or rotation interrupted earlier was finished now.
    ErasureFinished,
    /// An interrupted erasure or rotation that had not yet taken effect was undone; ask for it again.
    ErasureUndone,
    /// An erasure was begun and cannot be finished: too few ERA places. The patient's rows still open.
    ErasurePending {
        /// Places reached.
        have: usize,
        /// Places required.
        want: usize,
    },
    /// An ERA place could not be reached; an erasure stays pending there.
    EraPlaceUnreachable(String),
    /// An ERA place was damaged and has been written anew from another.
    EraPlaceRepaired(String),
    /// Only one ERA place is listed.
    SingleEraPlace,
    /// The process memory could not be locked or hardened in this respect.
    Hardening(&'static str),
}

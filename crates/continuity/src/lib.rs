//! Backup and restore of sealed bytes. Nothing here holds a key: a backup is as unreadable as the store it came from.
//!
//! A backup is cut from one read transaction of a running server into segments of 2^16 rows or entries, which never
//! change once full; a signed manifest names them with their digests. A restore builds a new database beside the target,
//! hashes everything anew up to the signed checkpoint, and only then puts it in place. The SQLite file is never copied,
//! and the keyring goes to a folder of its own ([`keyring`]). `docs/formats/segment.md` has the bytes and the crash story.

mod backup;
mod error;
mod export;
mod file;
pub mod keyring;
mod manifest;
mod restore;
mod segment;

pub use backup::{Backup, Options as BackupOptions, backup};
pub use error::ContinuityError;
pub use export::export_log;
pub use restore::{Options as RestoreOptions, RESTORED, Restored, restore, verify_backup};

/// How far a long task has come, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Rows and entries handled.
    pub done: u64,
    /// Rows and entries in all.
    pub total: u64,
}

//! What can go wrong with a backup, by what the operator can do about it.

use keepwell_audit::note::{CannotSign, NoteError};
use keepwell_store::StoreError;

/// Why a backup or a restore was refused. Messages name files and numbers, never content.
#[derive(Debug, thiserror::Error)]
pub enum ContinuityError {
    /// The database refused.
    #[error("the database refused")]
    Store(#[from] StoreError),
    /// A file could not be read or written.
    #[error("`{place}` could not be read or written")]
    Io {
        /// The file.
        place: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what the backup says it is.
    #[error("`{place}` is damaged: {what}")]
    Damaged {
        /// The file.
        place: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The manifest or the checkpoint is not accepted.
    #[error("`{place}` is not accepted")]
    Note {
        /// The file.
        place: String,
        /// Why.
        #[source]
        source: NoteError,
    },
    /// The log-signing key is not available.
    #[error("a backup is signed, and the key for it is not available")]
    CannotSign(#[from] CannotSign),
    /// There is no backup in this folder, or none of the size asked for.
    #[error("there is no such backup in this folder")]
    NoBackup,
    /// A restore goes only into an empty folder.
    #[error("the folder to restore into is not empty")]
    NotEmpty,
    /// The keyring must not lie with the backup it opens.
    #[error("the keyring must not go into the backup's own folder")]
    SamePlace,
}

impl ContinuityError {
    pub(crate) fn damaged(place: &str, what: &'static str) -> Self {
        Self::Damaged {
            place: place.to_owned(),
            what,
        }
    }
}

//! What can go wrong with the store, by what the caller can do about it.

/// Why the store refused. Messages hold no stored bytes.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the data directory.
    #[error("another process is using this data directory")]
    AlreadyRunning,
    /// No room is left on the device, or only the reserve.
    #[error("the disk is full")]
    Full,
    /// The directory or medium does not accept writing.
    #[error("the data directory is read-only")]
    ReadOnly,
    /// The file is damaged or is not a Keepwell database.
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    /// Another program holds a lock on the database file itself.
    #[error("another program has locked the database file")]
    Locked,
    /// A batch's row or entry numbers do not follow the stored ones.
    #[error("row or entry numbers do not follow the stored ones")]
    Sequence,
    /// There is no database here.
    #[error("there is no database in this directory")]
    Missing,
    /// The database was written by a newer version.
    #[error("the database has format {found}, this program knows up to {known}")]
    Newer {
        /// Format number found.
        found: u32,
        /// Highest format number known.
        known: u32,
    },
    /// The device or file system failed. After a failed fdatasync the store stays in this state until opened again.
    #[error("input or output failed")]
    Io(#[source] std::io::Error),
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Self::Full,
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Self::ReadOnly,
            ErrorKind::NotFound => Self::Missing,
            _ => Self::Io(error),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        let rusqlite::Error::SqliteFailure(failure, message) = &error else {
            // What remains are values of another type than the column's: only a damaged file has them.
            return Self::Corrupt("a value has a wrong type".to_owned());
        };
        match failure.code {
            ErrorCode::DiskFull => Self::Full,
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied => Self::ReadOnly,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => Self::Locked,
            ErrorCode::ConstraintViolation => Self::Sequence,
            ErrorCode::CannotOpen => Self::Io(std::io::Error::other("the database file cannot be opened")),
            ErrorCode::SystemIoFailure => match failure.extended_code {
                rusqlite::ffi::SQLITE_IOERR_SHORT_READ | rusqlite::ffi::SQLITE_IOERR_CORRUPTFS => {
                    Self::Corrupt("the file is shorter than it says".to_owned())
                }
                code => Self::Io(std::io::Error::other(format!("SQLite error {code}"))),
            },
            // Corrupt, not a database, and errors in our own fixed SQL, which only another schema can cause.
            _ => Self::Corrupt(
                message
                    .clone()
                    .unwrap_or_else(|| format!("SQLite error {}", failure.extended_code)),
            ),
        }
    }
}

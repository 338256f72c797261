//! The data directory's lock: an OS lock, free at once when its process dies.

use std::fs::{File, OpenOptions};
use std::path::Path;

use crate::error::StoreError;

/// Holds a data directory for this process; released on drop, and by the system when the process ends in any way.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock `dir/lock` without waiting.
    ///
    /// # Errors
    /// [`StoreError::AlreadyRunning`] when it is held; [`StoreError::ReadOnly`] when the file cannot be made.
    pub fn acquire(dir: &Path) -> Result<Self, StoreError> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join("lock"))
            .map_err(StoreError::from)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::AlreadyRunning),
            Err(e) => Err(StoreError::from(std::io::Error::from(e))),
        }
    }
}

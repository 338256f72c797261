//! The reserve: a file of real blocks that is given up when the disk fills, so that the log of reads can go on for a
//! while after writes have been stopped.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use crate::error::StoreError;

/// The reserve file of a data directory; none when its size is 0.
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    pub(crate) fn new(dir: &Path, bytes: u64) -> Self {
        Self {
            path: dir.join("reserve"),
            bytes,
        }
    }

    /// Makes the file if it is not there in full. False when there is no room for it.
    pub(crate) fn fill(&self) -> Result<bool, StoreError> {
        let present = std::fs::metadata(&self.path).map_or(0, |m| m.len());
        if present == self.bytes {
            return Ok(true);
        }
        if self.bytes == 0 {
            std::fs::remove_file(&self.path)?;
            return Ok(true);
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&self.path)?;
        match self.allocate(&file) {
            Ok(()) => Ok(true),
            Err(StoreError::Full) => {
                self.release();
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    /// Whether the disk has room for the reserve and as much again, so that it does not flap.
    pub(crate) fn fits(&self) -> bool {
        let Some(dir) = self.path.parent() else {
            return false;
        };
        rustix::fs::statvfs(dir).is_ok_and(|s| s.f_bavail.saturating_mul(s.f_frsize) >= self.bytes.saturating_mul(2))
    }

    /// Deletes the file; true when that gave room back.
    pub(crate) fn release(&self) -> bool {
        std::fs::remove_file(&self.path).is_ok() && self.bytes > 0
    }

    fn allocate(&self, file: &File) -> Result<(), StoreError> {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, self.bytes) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {}
            Err(e) => return Err(StoreError::from(std::io::Error::from(e))),
        }
        let block = vec![0; 1 << 16];
        let mut left = self.bytes;
        let mut file = file;
        while left > 0 {
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            file.write_all(block.get(..n).unwrap_or_default())?;
            left -= n as u64;
        }
        file.sync_data()?;
        Ok(())
    }
}

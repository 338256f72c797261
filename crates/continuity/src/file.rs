//! Files that appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use keepwell_audit::Hash;
use keepwell_audit::merkle::Hasher;

use crate::error::ContinuityError;

/// Gives I/O errors their place.
pub(crate) trait At<T> {
    fn at(self, place: &Path) -> Result<T, ContinuityError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, place: &Path) -> Result<T, ContinuityError> {
        self.map_err(|source| ContinuityError::Io {
            place: place.display().to_string(),
            source,
        })
    }
}

/// A file being written under another name; [`NewFile::keep`] syncs it and gives it its own.
pub(crate) struct NewFile {
    path: PathBuf,
    aside: PathBuf,
    out: Digested<BufWriter<File>>,
}

impl NewFile {
    pub(crate) fn create(path: &Path) -> Result<Self, ContinuityError> {
        let parent = path.parent().unwrap_or(path);
        fs::create_dir_all(parent).at(parent)?;
        let aside = path.with_extension("new");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)
            .at(&aside)?;
        Ok(Self {
            path: path.to_owned(),
            aside,
            out: Digested::new(BufWriter::with_capacity(1 << 16, file)),
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ContinuityError> {
        self.out.write_all(bytes).at(&self.aside)
    }

    /// Durable under its own name on return. Gives length and SHA-256.
    pub(crate) fn keep(mut self) -> Result<(u64, Hash), ContinuityError> {
        self.out.inner.flush().at(&self.aside)?;
        self.out.inner.get_ref().sync_all().at(&self.aside)?;
        fs::rename(&self.aside, &self.path).at(&self.path)?;
        let parent = self.path.parent().unwrap_or(&self.path);
        File::open(parent).and_then(|dir| dir.sync_all()).at(parent)?;
        Ok((self.out.count, self.out.hasher.finish()))
    }
}

/// Writes a small file whole.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), ContinuityError> {
    let mut file = NewFile::create(path)?;
    file.write(bytes)?;
    file.keep()?;
    Ok(())
}

/// Reads a small file; refused when it is longer than `limit`.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ContinuityError> {
    let mut out = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut out))
        .at(path)?;
    if out.len() as u64 > limit {
        return Err(ContinuityError::damaged(&path.display().to_string(), "it is too long"));
    }
    Ok(out)
}

/// Counts and hashes what passes.
pub(crate) struct Digested<T> {
    pub(crate) inner: T,
    pub(crate) count: u64,
    pub(crate) hasher: Hasher,
}

impl<T> Digested<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self {
            inner,
            count: 0,
            hasher: Hasher::default(),
        }
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.count += bytes.len() as u64;
    }
}

impl<T: Write> Write for Digested<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.passed(bytes.get(..n).unwrap_or(bytes));
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Digested<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let bytes = buffer.get(..n).unwrap_or_default();
        self.hasher.update(bytes);
        self.count += n as u64;
        Ok(n)
    }
}

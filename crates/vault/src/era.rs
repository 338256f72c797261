//! The ERA: 32 random bytes that live only in places that can be overwritten. `docs/formats/era.md`.
//!
//! A place is a file of two cells, each in its own 4 KB block, so that a torn write of one leaves the other whole. In
//! rest one cell holds the ERA and the other zeros; during an erasure both hold one.

use crate::primitives::{Failed, Key, sha256};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

const CELL: usize = 4096;
const MAGIC: &[u8; 8] = b"KWERA\0\0\x01";
const USED: usize = 8 + 8 + 32 + 16;

/// The short public name of an ERA, kept in the keyring.
pub(crate) type Tag = [u8; 8];

/// The tag of an ERA: eight bytes of a hash, nothing that helps to find 256 random bits.
pub(crate) fn tag(era: &Key) -> Tag {
    let hash = sha256(&[b"keepwell era tag", era.0.as_slice()]);
    let mut out = [0; 8];
    out.copy_from_slice(hash.get(..8).unwrap_or(&[0; 8]));
    out
}

fn checksum(head: &[u8]) -> [u8; 16] {
    let hash = sha256(&[b"keepwell era cell", head]);
    let mut out = [0; 16];
    out.copy_from_slice(hash.get(..16).unwrap_or(&[0; 16]));
    out
}

fn encode(era: &Key) -> Zeroizing<Vec<u8>> {
    let mut cell = Zeroizing::new(Vec::with_capacity(CELL));
    cell.extend_from_slice(MAGIC);
    cell.extend_from_slice(&tag(era));
    cell.extend_from_slice(era.0.as_slice());
    let sum = checksum(&cell);
    cell.extend_from_slice(&sum);
    cell.resize(CELL, 0);
    cell
}

fn decode(cell: &[u8]) -> Result<Key, Failed> {
    let used = cell.get(..USED).ok_or(Failed)?;
    let (head, sum) = used.split_at_checked(USED - 16).ok_or(Failed)?;
    let rest = head.strip_prefix(MAGIC.as_slice()).ok_or(Failed)?;
    let (named, era) = rest.split_first_chunk::<8>().ok_or(Failed)?;
    if checksum(head) != sum {
        return Err(Failed);
    }
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(era);
    let key = Key(key);
    if tag(&key) == *named { Ok(key) } else { Err(Failed) }
}

/// One place, as read.
pub(crate) struct Place {
    cells: [Option<Key>; 2],
    /// Cells with bytes that are no ERA: a torn write, possibly of one.
    dirty: [bool; 2],
    /// The file has not the length of two cells.
    misshapen: bool,
}

impl Place {
    /// Reads a place. A file of the wrong length is read as far as it goes.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let bytes = Zeroizing::new(std::fs::read(path)?);
        let mut place = Self {
            cells: [None, None],
            dirty: [false, false],
            misshapen: bytes.len() != 2 * CELL,
        };
        for ((cell, dirty), bytes) in place.cells.iter_mut().zip(&mut place.dirty).zip(bytes.chunks(CELL)) {
            *cell = decode(bytes).ok();
            *dirty = cell.is_none() && bytes.iter().any(|b| *b != 0);
        }
        Ok(place)
    }

    /// The ERA with that tag, if this place holds it.
    pub(crate) fn find(&self, wanted: &Tag) -> Option<&Key> {
        self.cells.iter().flatten().find(|era| tag(era) == *wanted)
    }

    /// Whether a cell holds anything but the ERA with that tag.
    pub(crate) fn holds_other(&self, kept: &Tag) -> bool {
        self.dirty.contains(&true) || self.holds_another(kept)
    }

    /// Whether a cell holds a whole other ERA.
    pub(crate) fn holds_another(&self, kept: &Tag) -> bool {
        self.cells.iter().flatten().any(|era| tag(era) != *kept)
    }

    /// Whether this place is damaged: it lacks the ERA it should hold, or holds bytes that are none.
    pub(crate) fn is_damaged(&self, wanted: &Tag) -> bool {
        self.misshapen || self.dirty.contains(&true) || self.find(wanted).is_none()
    }

    /// The cell to write a new ERA into: never the one that holds `kept`.
    fn free_cell(&self, kept: Option<&Tag>) -> u64 {
        let first_is_kept = self
            .cells
            .first()
            .and_then(Option::as_ref)
            .is_some_and(|era| Some(&tag(era)) == kept);
        u64::from(first_is_kept)
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Writes `era` into a place beside the one with tag `kept`, and fsyncs. Makes the file when it is not there.
pub(crate) fn write_beside(path: &Path, era: &Key, kept: Option<&Tag>) -> io::Result<()> {
    let fresh = !path.exists();
    let (cell, misshapen) = match fresh {
        true => (0, true),
        false => Place::read(path).map(|place| (place.free_cell(kept), place.misshapen))?,
    };
    let file = open(path)?;
    if misshapen {
        file.set_len(2 * CELL as u64)?;
    }
    file.write_all_at(&encode(era), cell * CELL as u64)?;
    file.sync_all()?;
    if fresh {
        crate::files::sync_parent(path)?;
    }
    // Confirmed means read back.
    let written = Place::read(path)?;
    if written.find(&tag(era)).is_none() {
        return Err(io::Error::other("the place did not keep what was written"));
    }
    Ok(())
}

/// Overwrites every cell of a place that does not hold the ERA with tag `kept`, in place, and fsyncs.
pub(crate) fn overwrite_others(path: &Path, kept: &Tag) -> io::Result<()> {
    let place = Place::read(path)?;
    if place.misshapen {
        open(path)?.set_len(2 * CELL as u64)?;
    }
    if !place.holds_other(kept) {
        return Ok(());
    }
    let file = open(path)?;
    for (i, cell) in place.cells.iter().enumerate() {
        if cell.as_ref().is_none_or(|era| tag(era) != *kept) {
            for pattern in [0xff, 0] {
                file.write_all_at(&[pattern; CELL], (i * CELL) as u64)?;
                file.sync_all()?;
            }
        }
    }
    if Place::read(path)?.holds_other(kept) {
        return Err(io::Error::other("the place did not overwrite"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn era(n: u8) -> Key {
        Key(Zeroizing::new([n; 32]))
    }

    #[test]
    fn an_era_is_written_beside_and_the_old_one_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("era");
        let (a, b, c) = (era(1), era(2), era(3));
        write_beside(&path, &a, None).unwrap();
        write_beside(&path, &b, Some(&tag(&a))).unwrap();
        assert!(Place::read(&path).unwrap().find(&tag(&a)).is_some());
        assert!(Place::read(&path).unwrap().find(&tag(&b)).is_some());
        // A second attempt after a crash must not take the cell in use.
        write_beside(&path, &c, Some(&tag(&a))).unwrap();
        assert!(Place::read(&path).unwrap().find(&tag(&a)).is_some());
        overwrite_others(&path, &tag(&c)).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(!bytes.windows(8).any(|w| w == [1; 8] || w == [2; 8]));
        assert!(Place::read(&path).unwrap().find(&tag(&c)).is_some());
        write_beside(&path, &a, Some(&tag(&c))).unwrap();
        overwrite_others(&path, &tag(&a)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap().len(), 2 * CELL);
    }

    #[test]
    fn every_flipped_bit_of_a_cell_is_noticed_and_torn_cells_are_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("era");
        write_beside(&path, &era(1), None).unwrap();
        let good = std::fs::read(&path).unwrap();
        for bit in 0..USED * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bad).unwrap();
            assert!(Place::read(&path).unwrap().find(&tag(&era(1))).is_none());
        }
        let mut torn = good.clone();
        torn[CELL..CELL + 20].copy_from_slice(&encode(&era(2))[..20]);
        std::fs::write(&path, &torn).unwrap();
        overwrite_others(&path, &tag(&era(1))).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), good);
    }
}

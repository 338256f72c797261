//! Segments: up to 2^16 rows or entries in a file, as they are stored.
//!
//! ```text
//! rows      "KWROWS1\n"  { rid 8, key_ref 16, length 4, body }*
//! entries   "KWLOG-1\n"  { seq 8, length 2, entry, length 4 or ff ff ff ff, sealed }*
//! ```
//! Numbers are big-endian. A segment's number is that of its first possible row or entry shifted right by 16. The
//! manifest holds each segment's count, length and SHA-256, so the file needs none of its own.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use keepwell_store::{EntryRecord, EntryRef, RowRecord, RowRef};

use crate::error::ContinuityError;
use crate::file::{At as _, Digested, NewFile};
use crate::manifest::{Kind, Segment};

const ROWS: &[u8; 8] = b"KWROWS1\n";
const ENTRIES: &[u8; 8] = b"KWLOG-1\n";
/// Longest body or sealed event that is read back.
const MAX_BODY: u32 = 1 << 28;
/// Stands for "no sealed event".
const NONE: u32 = u32::MAX;

pub(crate) fn begin(file: &mut NewFile, kind: Kind) -> Result<(), ContinuityError> {
    file.write(match kind {
        Kind::Rows => ROWS,
        Kind::Entries => ENTRIES,
    })
}

pub(crate) fn write_row(file: &mut NewFile, row: RowRef<'_>) -> Result<(), ContinuityError> {
    file.write(&row.rid.to_be_bytes())?;
    file.write(&row.key_ref)?;
    file.write(&length(row.body)?.to_be_bytes())?;
    file.write(row.body)
}

pub(crate) fn write_entry(file: &mut NewFile, entry: EntryRef<'_>) -> Result<(), ContinuityError> {
    let too_long = || ContinuityError::damaged("leaf", "an entry is too long");
    file.write(&entry.seq.to_be_bytes())?;
    file.write(&u16::try_from(entry.entry.len()).map_err(|_| too_long())?.to_be_bytes())?;
    file.write(entry.entry)?;
    match entry.sealed {
        None => file.write(&NONE.to_be_bytes()),
        Some(sealed) => {
            file.write(&length(sealed)?.to_be_bytes())?;
            file.write(sealed)
        }
    }
}

fn length(bytes: &[u8]) -> Result<u32, ContinuityError> {
    let length = u32::try_from(bytes.len()).ok().filter(|n| *n <= MAX_BODY);
    length.ok_or_else(|| ContinuityError::damaged("row", "a body is too long"))
}

/// Calls `each` with every row of a segment, in order. What it is given is not yet known to be genuine: only when this
/// returns without an error have count, order, length and digest been those of the manifest.
pub(crate) fn read_rows(
    dir: &Path,
    segment: &Segment,
    mut each: impl FnMut(RowRecord) -> Result<(), ContinuityError>,
) -> Result<(), ContinuityError> {
    let mut last = None;
    read(
        dir,
        segment,
        ROWS,
        |file| {
            let rid = u64::from_be_bytes(array(file)?);
            let key_ref = array(file)?;
            let length = u32::from_be_bytes(array(file)?);
            let body = bytes(file, length)?;
            let in_order = last.replace(rid).is_none_or(|last| last < rid);
            Ok((in_order && rid >> 16 == segment.index).then_some(RowRecord { rid, key_ref, body }))
        },
        &mut each,
    )
}

/// Calls `each` with every entry of a segment; see [`read_rows`].
pub(crate) fn read_entries(
    dir: &Path,
    segment: &Segment,
    mut each: impl FnMut(EntryRecord) -> Result<(), ContinuityError>,
) -> Result<(), ContinuityError> {
    let mut next = segment.index << 16;
    read(
        dir,
        segment,
        ENTRIES,
        |file| {
            let seq = u64::from_be_bytes(array(file)?);
            let count = u16::from_be_bytes(array(file)?);
            let entry = bytes(file, count.into())?;
            let sealed = match u32::from_be_bytes(array(file)?) {
                NONE => None,
                count => Some(bytes(file, count)?),
            };
            let in_order = seq == next && seq >> 16 == segment.index;
            next = seq.wrapping_add(1);
            Ok(in_order.then_some(EntryRecord { seq, entry, sealed }))
        },
        &mut each,
    )
}

fn read<T>(
    dir: &Path,
    segment: &Segment,
    magic: &[u8; 8],
    mut one: impl FnMut(&mut dyn Read) -> io::Result<Option<T>>,
    each: &mut dyn FnMut(T) -> Result<(), ContinuityError>,
) -> Result<(), ContinuityError> {
    let name = segment.path();
    let path = dir.join(&name);
    let damaged = |what| ContinuityError::damaged(&name, what);
    let cut = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
        io::ErrorKind::InvalidData => damaged("a length is impossible"),
        _ => ContinuityError::Io {
            place: name.clone(),
            source: error,
        },
    };
    let file = File::open(&path).at(&path)?;
    if file.metadata().at(&path)?.len() != segment.bytes {
        return Err(damaged("its length is not the manifest's"));
    }
    let mut file = Digested::new(BufReader::with_capacity(1 << 16, file));
    if array::<8>(&mut file).map_err(cut)? != *magic {
        return Err(damaged("it is not a segment"));
    }
    for _ in 0..segment.count {
        match one(&mut file).map_err(cut)? {
            Some(record) => each(record)?,
            None => return Err(damaged("its numbers are out of order")),
        }
    }
    let (count, digest) = (file.count, file.hasher.finish());
    if count != segment.bytes || digest != segment.digest {
        return Err(damaged("its digest is not the manifest's"));
    }
    Ok(())
}

fn array<const N: usize>(file: &mut dyn Read) -> io::Result<[u8; N]> {
    let mut out = [0; N];
    file.read_exact(&mut out)?;
    Ok(out)
}

fn bytes(file: &mut dyn Read, length: u32) -> io::Result<Vec<u8>> {
    if length > MAX_BODY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Grows with what is really there: a false length costs nothing.
    let mut out = Vec::new();
    file.take(length.into()).read_to_end(&mut out)?;
    if out.len() as u64 == u64::from(length) {
        Ok(out)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use keepwell_audit::merkle::sha256;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Even under a manifest that vouches for them, bytes that are no segment are refused without a panic.
        #[test]
        fn any_bytes_are_read_or_refused(
            tail in prop::collection::vec(any::<u8>(), 0..300),
            count in 0_u64..5,
            index in 0_u64..2,
        ) {
            let dir = tempfile::tempdir().unwrap();
            for (kind, magic) in [(Kind::Rows, ROWS), (Kind::Entries, ENTRIES)] {
                let mut bytes = magic.to_vec();
                bytes.extend_from_slice(&tail);
                let digest = sha256(&[&bytes]);
                let segment = Segment { kind, index, last: Some(9), count, bytes: bytes.len() as u64, digest };
                let path = dir.path().join(segment.path());
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, &bytes).unwrap();
                let mut seen = 0;
                let outcome = match kind {
                    Kind::Rows => read_rows(dir.path(), &segment, |_| { seen += 1; Ok(()) }),
                    Kind::Entries => read_entries(dir.path(), &segment, |_| { seen += 1; Ok(()) }),
                };
                prop_assert!(outcome.is_err() || seen == count);
                // Whatever the bytes say, another digest than theirs refuses them.
                let other = Segment { digest: [0; 32], ..segment.clone() };
                let outcome_of_other = match kind {
                    Kind::Rows => read_rows(dir.path(), &other, |_| Ok(())),
                    Kind::Entries => read_entries(dir.path(), &other, |_| Ok(())),
                };
                prop_assert!(outcome_of_other.is_err());
                if count == 0 && !tail.is_empty() {
                    prop_assert!(outcome.is_err());
                }
            }
        }
    }
}

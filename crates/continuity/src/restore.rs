//! Restoring and verifying a backup: everything is hashed anew, up to the signed checkpoint.
//!
//! Entries are checked by the root over them, rows by the digests in their leaves, sealed events by the digests in
//! theirs. Nothing is in place before all of that holds: the database grows in `restoring/` inside the target and is
//! moved out last. A restore that was interrupted leaves `restoring/` and nothing else, and is started again.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::Path;

use keepwell_audit::Hash;
use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::leaf::{Leaf, Notice, event_digest, row_digest};
use keepwell_audit::merkle::{Frontier, leaf_hash, sha256};
use keepwell_audit::note::{self, MAX_NOTE, VerifierKey};
use keepwell_store::{
    Batch, CheckpointRecord, DATABASE, Durability, EntryRecord, Options as StoreOptions, RowRecord, Store, Writer,
};

use crate::Progress;
use crate::error::ContinuityError;
use crate::file::{self, At as _};
use crate::manifest::{Kind, Manifest, Segment};
use crate::segment;

/// The key-value pair that a restore leaves for the ledger, which announces it in the log and removes it: size (8 bytes,
/// big-endian) and root of the restored log.
pub const RESTORED: &str = "restored";

/// Where the database grows until all of it is verified.
const STAGING: &str = "restoring";
/// Rows or entries in a commit.
const BATCH: usize = 1000;
/// Bytes after which a commit is made although it holds fewer.
const BATCH_BYTES: usize = 8 << 20;

/// What to check a backup against.
#[derive(Default)]
pub struct Options<'a> {
    /// The log's public keys; empty: signatures are not checked, and a forged backup is not found.
    pub trusted: &'a [VerifierKey],
    /// Which backup of the folder, by its number of entries; the newest when `None`.
    pub size: Option<u64>,
}

/// What was verified, and restored if that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Name of the log.
    pub origin: String,
    /// Entries.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
    /// Rows.
    pub rows: u64,
    /// Rows whose body the log says was emptied.
    pub blanked: u64,
    /// Entries that this version does not know: kept, their content not checked.
    pub unknown: u64,
    /// Whether manifest and checkpoint were signed by a trusted key; false when none were given.
    pub signature_checked: bool,
}

/// Checks a backup completely, writing nothing.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn verify_backup(
    from: &Path,
    options: &Options<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Restored, ContinuityError> {
    let (manifest, _) = open_manifest(from, options.size, options.trusted)?;
    let checkpoint = open_checkpoint(from, &manifest, options.trusted)?;
    let mut check = Check::new(from, &manifest, progress, None);
    check.run()?;
    Ok(check.finish(&manifest, checkpoint, options)?.0)
}

/// Restores a backup into the folder `dir`, which must be empty or not be there. The keyring is not part of it.
///
/// # Errors
/// The first thing that is wrong with the backup; `dir` then holds no database.
pub fn restore(
    from: &Path,
    dir: &Path,
    options: &Options<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Restored, ContinuityError> {
    let staging = dir.join(STAGING);
    prepare(dir, &staging)?;
    let outcome = stage(from, &staging, options, progress);
    match outcome {
        Ok(restored) => {
            let (grown, place) = (staging.join(DATABASE), dir.join(DATABASE));
            fs::rename(&grown, &place).at(&place)?;
            File::open(dir).and_then(|d| d.sync_all()).at(dir)?;
            fs::remove_dir_all(&staging).at(&staging)?;
            Ok(restored)
        }
        Err(error) => {
            // What is left behind is taken for an interrupted restore and removed by the next.
            let _ = fs::remove_dir_all(&staging);
            Err(error)
        }
    }
}

/// An empty staging folder in an otherwise empty target.
fn prepare(dir: &Path, staging: &Path) -> Result<(), ContinuityError> {
    fs::create_dir_all(dir).at(dir)?;
    for entry in fs::read_dir(dir).at(dir)? {
        if entry.at(dir)?.file_name() != STAGING {
            return Err(ContinuityError::NotEmpty);
        }
        fs::remove_dir_all(staging).at(staging)?;
    }
    fs::create_dir(staging).at(staging)
}

fn stage(
    from: &Path,
    staging: &Path,
    options: &Options<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Restored, ContinuityError> {
    let (manifest, _) = open_manifest(from, options.size, options.trusted)?;
    let checkpoint = open_checkpoint(from, &manifest, options.trusted)?;
    let (_, writer) = Store::open(
        staging,
        StoreOptions {
            reserve_bytes: 0,
            readers: 1,
            ..StoreOptions::default()
        },
    )?;
    let mut check = Check::new(from, &manifest, progress, Some(writer));
    check.run()?;
    let (restored, writer) = check.finish(&manifest, checkpoint, options)?;
    if let Some(writer) = writer {
        writer.close()?;
    }
    let database = staging.join(DATABASE);
    File::open(&database).and_then(|file| file.sync_all()).at(&database)?;
    Ok(restored)
}

/// The manifest of a size, or the newest. With trusted keys only signed ones count.
pub(crate) fn open_manifest(
    from: &Path,
    size: Option<u64>,
    trusted: &[VerifierKey],
) -> Result<(Manifest, String), ContinuityError> {
    let folder = from.join("manifests");
    let name = match size {
        Some(size) => format!("{size:016}"),
        None => newest(&folder)?.ok_or(ContinuityError::NoBackup)?,
    };
    let place = format!("manifests/{name}");
    let path = folder.join(&name);
    if !path.exists() {
        return Err(ContinuityError::NoBackup);
    }
    let bytes = file::read(&path, MAX_NOTE as u64)?;
    let text = if trusted.is_empty() {
        note::text(&bytes)
    } else {
        note::open(&bytes, trusted).map(|(text, _)| text)
    };
    let text = text.map_err(|source| ContinuityError::Note {
        place: place.clone(),
        source,
    })?;
    let manifest = Manifest::parse(text).ok_or_else(|| ContinuityError::damaged(&place, "it is not a manifest"))?;
    if format!("{:016}", manifest.size) != name {
        return Err(ContinuityError::damaged(&place, "it is the manifest of another backup"));
    }
    Ok((manifest, place))
}

/// The highest name of sixteen or more digits; others, such as files being written, are passed over.
fn newest(folder: &Path) -> Result<Option<String>, ContinuityError> {
    let mut best: Option<(u64, String)> = None;
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.at(folder)?,
    };
    for entry in entries {
        let Ok(name) = entry.at(folder)?.file_name().into_string() else {
            continue;
        };
        let Some(size) = name.parse::<u64>().ok().filter(|size| format!("{size:016}") == name) else {
            continue;
        };
        if best.as_ref().is_none_or(|(known, _)| size > *known) {
            best = Some((size, name));
        }
    }
    Ok(best.map(|(_, name)| name))
}

fn open_checkpoint(from: &Path, manifest: &Manifest, trusted: &[VerifierKey]) -> Result<Vec<u8>, ContinuityError> {
    let place = format!("checkpoints/{:016}", manifest.size);
    let bytes = file::read(&from.join(&place), MAX_NOTE as u64)?;
    let checkpoint = if trusted.is_empty() {
        Checkpoint::read_unverified(&bytes)
    } else {
        Checkpoint::open(&bytes, trusted)
    };
    let checkpoint = checkpoint.map_err(|source| ContinuityError::Note {
        place: place.clone(),
        source,
    })?;
    let same =
        (&checkpoint.origin, checkpoint.size, checkpoint.root) == (&manifest.origin, manifest.size, manifest.root);
    if !same || sha256(&[&bytes]) != manifest.checkpoint {
        return Err(ContinuityError::damaged(&place, "it is not the manifest's"));
    }
    Ok(bytes)
}

/// Reads a backup once: entries and rows side by side, so that only the digests of rows not yet seen are kept.
struct Check<'a> {
    from: &'a Path,
    entries: std::vec::IntoIter<Segment>,
    rows: std::vec::IntoIter<Segment>,
    tree: Frontier,
    /// Digests of rows whose leaf has been read and whose row has not.
    expected: HashMap<u64, Hash>,
    /// Rows that the log says are blanked, and rows that came without body.
    blanked: HashSet<u64>,
    empty: HashSet<u64>,
    row_count: u64,
    unknown: u64,
    sink: Sink<'a>,
}

impl<'a> Check<'a> {
    fn new(from: &'a Path, manifest: &Manifest, progress: &'a mut dyn FnMut(Progress), writer: Option<Writer>) -> Self {
        let of = |kind| {
            manifest
                .segments
                .iter()
                .filter(|s| s.kind == kind)
                .cloned()
                .collect::<Vec<_>>()
                .into_iter()
        };
        let total = manifest.segments.iter().map(|s| s.count).sum();
        Self {
            from,
            entries: of(Kind::Entries),
            rows: of(Kind::Rows),
            tree: Frontier::new(),
            expected: HashMap::new(),
            blanked: HashSet::new(),
            empty: HashSet::new(),
            row_count: 0,
            unknown: 0,
            sink: Sink {
                writer,
                batch: Batch::default(),
                bytes: 0,
                progress,
                done: 0,
                total,
            },
        }
    }

    fn run(&mut self) -> Result<(), ContinuityError> {
        while let Some(segment) = self.rows.next() {
            self.read_entries_until(Some(&segment))?;
            self.read_rows(&segment)?;
        }
        self.read_entries_until(None)?;
        self.sink.flush()
    }

    /// Reads entry segments until there are leaves for all rows of a row segment, or to the end. A row and its leaf are
    /// of one commit, so that is never far.
    fn read_entries_until(&mut self, rows: Option<&Segment>) -> Result<(), ContinuityError> {
        let known = |expected: &HashMap<u64, Hash>, rows: &Segment| {
            expected.keys().filter(|rid| *rid >> 16 == rows.index).count() as u64 >= rows.count
        };
        while !rows.is_some_and(|rows| known(&self.expected, rows)) {
            let Some(segment) = self.entries.next() else {
                return Ok(());
            };
            let place = segment.path();
            let from = self.from;
            segment::read_entries(from, &segment, |entry| self.entry(entry, &place))?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: EntryRecord, place: &str) -> Result<(), ContinuityError> {
        self.tree.append(leaf_hash(&entry.entry));
        let leaf = Leaf::from_bytes(&entry.entry);
        if matches!(leaf, Ok(Leaf::Row { .. } | Leaf::Notice { .. })) && entry.sealed.is_some() {
            return Err(ContinuityError::damaged(
                place,
                "a leaf has an event that it does not name",
            ));
        }
        match leaf {
            Ok(Leaf::Row { rid, digest }) => {
                if self.expected.insert(rid, digest).is_some() {
                    return Err(ContinuityError::damaged(place, "a row has two leaves"));
                }
            }
            Ok(Leaf::Event { sealed, .. }) => {
                if entry.sealed.as_deref().map(event_digest) != Some(sealed) {
                    return Err(ContinuityError::damaged(place, "a sealed event is not its leaf's"));
                }
            }
            Ok(Leaf::Notice {
                notice: Notice::Blanked(rids),
                ..
            }) => self.blanked.extend(rids),
            Ok(Leaf::Notice { .. }) => {}
            Err(_) => self.unknown += 1,
        }
        self.sink.entry(entry)
    }

    fn read_rows(&mut self, segment: &Segment) -> Result<(), ContinuityError> {
        let place = segment.path();
        let from = self.from;
        segment::read_rows(from, segment, |row| {
            let expected = self.expected.remove(&row.rid);
            let expected = expected.ok_or_else(|| ContinuityError::damaged(&place, "a row has no leaf"))?;
            if row_digest(row.rid, &row.key_ref, &row.body) != expected {
                if !row.body.is_empty() {
                    return Err(ContinuityError::damaged(&place, "a row is not its leaf's"));
                }
                self.empty.insert(row.rid);
            }
            self.row_count += 1;
            self.sink.row(row)
        })
    }

    fn finish(
        mut self,
        manifest: &Manifest,
        checkpoint: Vec<u8>,
        options: &Options<'_>,
    ) -> Result<(Restored, Option<Writer>), ContinuityError> {
        if self.tree.size() != manifest.size || self.tree.root() != manifest.root {
            return Err(ContinuityError::damaged(
                "entries",
                "their root is not the checkpoint's",
            ));
        }
        if !self.expected.is_empty() {
            return Err(ContinuityError::damaged("rows", "a row is missing"));
        }
        if !self.empty.is_subset(&self.blanked) {
            return Err(ContinuityError::damaged("rows", "a row without body was never blanked"));
        }
        let mut last = Batch {
            // An older segment may still hold a body that has been emptied since.
            blank: self.blanked.difference(&self.empty).copied().collect(),
            meta: manifest.meta.clone(),
            checkpoint: Some(CheckpointRecord {
                size: manifest.size,
                note: checkpoint,
                frontier: self.tree.to_bytes(),
            }),
            ..Batch::default()
        };
        let mut mark = manifest.size.to_be_bytes().to_vec();
        mark.extend_from_slice(&manifest.root);
        last.meta.push((RESTORED.to_owned(), mark));
        if let Some(writer) = &mut self.sink.writer {
            writer.commit(&last, Durability::Fsync)?;
        }
        let restored = Restored {
            origin: manifest.origin.clone(),
            size: manifest.size,
            root: manifest.root,
            rows: self.row_count,
            blanked: self.blanked.len() as u64,
            unknown: self.unknown,
            signature_checked: !options.trusted.is_empty(),
        };
        Ok((restored, self.sink.writer))
    }
}

/// Collects what was read into commits of the new database, if there is one.
struct Sink<'a> {
    writer: Option<Writer>,
    batch: Batch,
    bytes: usize,
    progress: &'a mut dyn FnMut(Progress),
    done: u64,
    total: u64,
}

impl Sink<'_> {
    fn row(&mut self, row: RowRecord) -> Result<(), ContinuityError> {
        self.bytes += row.body.len();
        self.batch.rows.push(row);
        self.added()
    }

    fn entry(&mut self, entry: EntryRecord) -> Result<(), ContinuityError> {
        self.bytes += entry.entry.len() + entry.sealed.as_ref().map_or(0, Vec::len);
        self.batch.entries.push(entry);
        self.added()
    }

    fn added(&mut self) -> Result<(), ContinuityError> {
        self.done += 1;
        if self.batch.rows.len() + self.batch.entries.len() >= BATCH || self.bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ContinuityError> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        if let Some(writer) = &mut self.writer {
            writer.commit(&batch, Durability::Wal)?;
        }
        (self.progress)(Progress {
            done: self.done,
            total: self.total,
        });
        Ok(())
    }
}

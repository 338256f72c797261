//! Cutting a backup from a running store.
//!
//! Order: segments, checkpoint, manifest; each durable before the next begins. A backup that was interrupted has no
//! manifest of its own and is not one; the next finds its full segments and goes on. No file is ever written twice, so
//! the target may be a place that only lets files be added.

use std::path::Path;

use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::merkle::{Frontier, leaf_hash, sha256};
use keepwell_audit::note::{self, Signer, VerifierKey};
use keepwell_store::{Store, View};

use crate::Progress;
use crate::error::ContinuityError;
use crate::file::{self, NewFile};
use crate::manifest::{self, Kind, Manifest, Segment};
use crate::{restore, segment};

/// What a backup needs besides the store.
pub struct Options<'a> {
    /// Name of the log, as in its checkpoints.
    pub origin: &'a str,
    /// Signs the checkpoint of the transaction and the manifest.
    pub signer: &'a dyn Signer,
    /// Keys that signed earlier backups of this log: their full segments are taken over.
    pub retired: &'a [VerifierKey],
}

/// A finished backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Entries in it: what names it among the backups of the folder.
    pub size: u64,
    /// Highest row number in it.
    pub last_rid: u64,
    /// Its checkpoint, signed; worth keeping elsewhere.
    pub checkpoint: Vec<u8>,
    /// Segments written this time.
    pub written: usize,
    /// Segments that were there already.
    pub kept: usize,
}

/// Backs a running store up into the folder `target`, beside earlier backups of the same store.
///
/// # Errors
/// The target then holds no new backup; the earlier ones are unharmed.
pub fn backup(
    store: &Store,
    target: &Path,
    options: &Options<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Backup, ContinuityError> {
    let view = store.view()?;
    let (size, last_rid) = (view.size()?, view.last_rid()?);
    let earlier = earlier_segments(target, options);
    let mut cut = Cut {
        view: &view,
        target,
        earlier,
        progress,
        done: 0,
        total: size + last_rid,
        written: 0,
        kept: 0,
    };
    let mut segments = Vec::new();
    // Row numbers begin at 1, entry numbers at 0; segment 0 holds rows 1 to 65,535.
    if last_rid > 0 {
        cut.all(Kind::Rows, last_rid, &mut segments)?;
    }
    if let Some(last) = size.checked_sub(1) {
        cut.all(Kind::Entries, last, &mut segments)?;
    }
    let (written, kept) = (cut.written, cut.kept);
    let root = frontier(&view, size)?.root();
    let checkpoint = Checkpoint::new(options.origin, size, root).sign(options.signer)?;
    let manifest = Manifest {
        origin: options.origin.to_owned(),
        size,
        root,
        last_rid,
        checkpoint: sha256(&[&checkpoint]),
        meta: view.all_meta()?,
        segments,
    };
    let signed = note::sign(&manifest.to_text(), &[options.signer])?;
    write_once(&target.join(format!("checkpoints/{size:016}")), &checkpoint)?;
    write_once(&target.join(format!("manifests/{size:016}")), signed.as_bytes())?;
    Ok(Backup {
        size,
        last_rid,
        checkpoint,
        written,
        kept,
    })
}

/// Writes a file unless it is there already with these bytes: a backup of an unchanged store adds nothing.
fn write_once(path: &Path, bytes: &[u8]) -> Result<(), ContinuityError> {
    if file::read(path, bytes.len() as u64).is_ok_and(|present| present == bytes) {
        return Ok(());
    }
    file::write(path, bytes)
}

/// The tree of the first `size` entries: the stored frontier and what came after it.
fn frontier(view: &View<'_>, size: u64) -> Result<Frontier, ContinuityError> {
    let stored = view
        .last_checkpoint()?
        .and_then(|c| Frontier::from_bytes(&c.frontier).ok().filter(|f| f.size() == c.size));
    // A frontier that is not there is no loss, only work.
    let mut tree = stored.filter(|tree| tree.size() <= size).unwrap_or_default();
    if tree.size() < size {
        view.entries(tree.size()..=size - 1, |entry| {
            tree.append(leaf_hash(entry.entry));
            Ok::<_, ContinuityError>(())
        })?;
    }
    if tree.size() == size {
        Ok(tree)
    } else {
        Err(ContinuityError::damaged("leaf", "entries are missing"))
    }
}

/// Segments of the newest backup in the folder that this log signed.
fn earlier_segments(target: &Path, options: &Options<'_>) -> Vec<Segment> {
    let own = VerifierKey::of(options.signer);
    let trusted: Vec<VerifierKey> = own.into_iter().chain(options.retired.iter().cloned()).collect();
    let newest = restore::open_manifest(target, None, &trusted);
    newest.map(|(manifest, _)| manifest.segments).unwrap_or_default()
}

/// The work of cutting segments.
struct Cut<'a, 'v> {
    view: &'a View<'v>,
    target: &'a Path,
    earlier: Vec<Segment>,
    progress: &'a mut dyn FnMut(Progress),
    done: u64,
    total: u64,
    written: usize,
    kept: usize,
}

impl Cut<'_, '_> {
    /// Cuts everything of a kind up to the number `last`.
    fn all(&mut self, kind: Kind, last: u64, out: &mut Vec<Segment>) -> Result<(), ContinuityError> {
        for index in 0..=last >> 16 {
            let end = (index << 16) | 0xffff;
            let segment = self.one(kind, index, (last < end).then_some(last))?;
            self.done += last.min(end) - (index << 16) + u64::from(kind == Kind::Entries);
            (self.progress)(Progress {
                done: self.done.min(self.total),
                total: self.total,
            });
            out.extend(segment);
        }
        Ok(())
    }

    fn one(&mut self, kind: Kind, index: u64, last: Option<u64>) -> Result<Option<Segment>, ContinuityError> {
        let path = self.target.join(manifest::path(kind, index, last));
        let known = self
            .earlier
            .iter()
            .find(|s| (s.kind, s.index, s.last) == (kind, index, last));
        if let Some(known) = known
            && std::fs::metadata(&path).is_ok_and(|m| m.len() == known.bytes)
        {
            self.kept += 1;
            return Ok(Some(known.clone()));
        }
        let range = index << 16..=last.unwrap_or((index << 16) | 0xffff);
        let mut file = NewFile::create(&path)?;
        let mut count = 0;
        segment::begin(&mut file, kind)?;
        match kind {
            Kind::Rows => self.view.rows(range, |row| {
                count += 1;
                segment::write_row(&mut file, row)
            })?,
            Kind::Entries => self.view.entries(range, |entry| {
                count += 1;
                segment::write_entry(&mut file, entry)
            })?,
        }
        let (bytes, digest) = file.keep()?;
        self.written += 1;
        Ok(Some(Segment {
            kind,
            index,
            last,
            count,
            bytes,
            digest,
        }))
    }
}

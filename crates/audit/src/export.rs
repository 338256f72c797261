//! Verifies an exported log: every hash is computed anew from the entries, with neither database nor keys, and compared
//! with the tiles, with the signed checkpoint and with checkpoints that were kept elsewhere.
//!
//! Without a public key the signature is not checked, without an outside checkpoint neither a rollback nor a history
//! signed again with a stolen key can be seen: the report says which of the two were.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Hash;
use crate::checkpoint::Checkpoint;
use crate::merkle::leaf_hash;
use crate::note::{self, VerifierKey};
use crate::proof::{HashReader, ProofError, root};
use crate::tile::{self, Folder, FolderAt, Kind, WIDTH};
use crate::witness::check_outside;

/// Most problems that are reported; more would say nothing new.
const MAX_PROBLEMS: usize = 100;

/// What to check an export against.
#[derive(Default)]
pub struct Options<'a> {
    /// The log's public keys; empty: the signature is not checked.
    pub trusted: &'a [VerifierKey],
    /// Signed checkpoints kept outside the log's reach.
    pub outside: &'a [Vec<u8>],
    /// Threads that hash; 0 for as many as there are processors.
    pub threads: usize,
    /// Called now and then with the number of entries done; from any thread.
    pub progress: Option<&'a (dyn Fn(u64) + Sync)>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// File, below the export's folder, or what was compared.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
}

/// How many entries of each kind; what is not a leaf this version knows counts as unknown and is no problem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Rows stored.
    pub rows: u64,
    /// Events.
    pub events: u64,
    /// Notices.
    pub notices: u64,
    /// Others.
    pub unknown: u64,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The log's name as its checkpoint says.
    pub origin: String,
    /// Entries.
    pub size: u64,
    /// Root computed from the entries.
    pub root: Hash,
    /// Names of the trusted keys that signed the checkpoint; empty when none were given.
    pub signed_by: Vec<String>,
    /// Outside checkpoints that the log still begins with.
    pub outside_checked: usize,
    /// Entries by kind.
    pub kinds: Kinds,
    /// At most 100 problems; the export is good when there is none.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    fn problem(&mut self, place: impl Into<String>, what: impl ToString) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem {
                place: place.into(),
                what: what.to_string(),
            });
        }
    }
}

/// Verifies the exported log in `dir`. Everything wrong is in the report, damaged and missing files too.
#[must_use]
pub fn verify_export(dir: &Path, options: &Options<'_>) -> Report {
    let mut report = Report::default();
    let folder = Folder::new(dir);
    let Some(checkpoint) = open_checkpoint(&folder, options, &mut report) else {
        return report;
    };
    report.origin.clone_from(&checkpoint.origin);
    report.size = checkpoint.size;
    if checkpoint.size / WIDTH > count_files(dir) {
        // A checkpoint may claim any size: believe it only as far as there are files.
        report.problem("checkpoint", "it counts more entries than there are files");
        return report;
    }
    let tiles = hash_entries(&folder, checkpoint.size, options, &mut report);
    check_upper_levels(&folder, &tiles, checkpoint.size, &mut report);
    look_for_strangers(dir, checkpoint.size, &mut report);
    let tree = Tree {
        tiles: &tiles,
        leaves: folder.at(checkpoint.size),
        size: checkpoint.size,
    };
    match root(&tree, checkpoint.size) {
        Ok(computed) => {
            report.root = computed;
            if computed != checkpoint.root {
                report.problem("checkpoint", "its root is not that of the entries");
            }
        }
        Err(e) => report.problem("tile/0", e),
    }
    for (number, note) in (1..).zip(options.outside) {
        let place = format!("outside checkpoint {number}");
        let known = if options.trusted.is_empty() {
            Checkpoint::read_unverified(note)
        } else {
            Checkpoint::open(note, options.trusted)
        };
        match known {
            Err(e) => report.problem(place, e),
            Ok(known) => match check_outside(&known, &checkpoint.origin, checkpoint.size, &tree) {
                Ok(()) => report.outside_checked += 1,
                Err(e) => report.problem(place, e),
            },
        }
    }
    report
}

fn open_checkpoint(folder: &Folder, options: &Options<'_>, report: &mut Report) -> Option<Checkpoint> {
    let bytes = match folder.checkpoint() {
        Ok(bytes) => bytes,
        Err(e) => {
            report.problem("checkpoint", e);
            return None;
        }
    };
    if !options.trusted.is_empty() {
        match note::open(&bytes, options.trusted) {
            Ok((_, keys)) => report.signed_by = keys.iter().map(|k| k.name().to_owned()).collect(),
            Err(e) => report.problem("checkpoint", e),
        }
    }
    match Checkpoint::read_unverified(&bytes) {
        Ok(checkpoint) => Some(checkpoint),
        Err(e) => {
            report.problem("checkpoint", e);
            None
        }
    }
}

/// The roots of the full tiles of level 0, computed from the entries.
fn hash_entries(folder: &Folder, size: u64, options: &Options<'_>, report: &mut Report) -> Vec<Hash> {
    let full = size / WIDTH;
    let mut roots = vec![[0; 32]; usize::try_from(full).unwrap_or(usize::MAX)];
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let done = AtomicU64::new(0);
    let share = roots.len().div_ceil(threads).max(1);
    let parts: Vec<Report> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..)
            .step_by(share)
            .zip(roots.chunks_mut(share))
            .map(|(first, roots)| {
                let done = &done;
                scope.spawn(move || {
                    let mut part = Report::default();
                    for (index, root) in (first as u64..).zip(roots) {
                        if let Some(hashes) = hash_bundle(folder, index, WIDTH, &mut part) {
                            *root = tile::perfect_root(&hashes).unwrap_or_default();
                        }
                        let count = done.fetch_add(WIDTH, Ordering::Relaxed) + WIDTH;
                        if let Some(progress) = options.progress.filter(|_| count.is_multiple_of(WIDTH * 256)) {
                            progress(count);
                        }
                    }
                    part
                })
            })
            .collect();
        // A worker that panicked is a fault of this program: its part counts as wrong.
        workers
            .into_iter()
            .map(|w| w.join().unwrap_or_else(|_| broken_worker()))
            .collect()
    });
    for part in parts {
        report.kinds = report.kinds + part.kinds;
        part.problems.into_iter().for_each(|p| report.problem(p.place, p.what));
    }
    if !size.is_multiple_of(WIDTH) {
        hash_bundle(folder, full, size % WIDTH, report);
    }
    roots
}

fn broken_worker() -> Report {
    let mut report = Report::default();
    report.problem("verifier", "a thread failed");
    report
}

/// Hashes the entries of one bundle and compares them with their tile.
fn hash_bundle(folder: &Folder, index: u64, width: u64, report: &mut Report) -> Option<Vec<Hash>> {
    let place = || tile::path(Kind::Entries, index, width);
    let bundle = match folder.bundle(index, width) {
        Ok(bundle) => bundle,
        Err(e) => {
            report.problem(place(), e);
            return None;
        }
    };
    let Some(entries) = tile::entries(&bundle, width) else {
        report.problem(place(), "it does not hold its number of entries");
        return None;
    };
    for entry in &entries {
        match entry {
            [1, 1, ..] => report.kinds.rows += 1,
            [1, 2, ..] => report.kinds.events += 1,
            [1, 3, ..] => report.kinds.notices += 1,
            _ => report.kinds.unknown += 1,
        }
    }
    let hashes: Vec<Hash> = entries.into_iter().map(leaf_hash).collect();
    check_tile(folder, 0, index, &hashes, report);
    Some(hashes)
}

fn check_upper_levels(folder: &Folder, tiles: &[Hash], size: u64, report: &mut Report) {
    let mut level = 1;
    let mut hashes = tiles.to_vec();
    while !hashes.is_empty() && size >> (8 * level) > 0 {
        for (index, tile) in (0..).zip(hashes.chunks(WIDTH as usize)) {
            check_tile(folder, level, index, tile, report);
        }
        let full = hashes.chunks_exact(WIDTH as usize);
        hashes = full.filter_map(tile::perfect_root).collect();
        level += 1;
    }
}

fn check_tile(folder: &Folder, level: u8, index: u64, computed: &[Hash], report: &mut Report) {
    let width = computed.len() as u64;
    let place = || tile::path(Kind::Hashes(level), index, width);
    match folder.hashes(level, index, width) {
        Ok(stored) if stored == computed => {}
        Ok(_) => report.problem(place(), "its hashes are not those of the entries"),
        Err(e) => report.problem(place(), e),
    }
}

/// Reports files that a log of this size does not have: what nobody checks must not lie among what is checked.
fn look_for_strangers(dir: &Path, size: u64, report: &mut Report) {
    let expected = |text: &str| {
        let Some((kind, index, width)) = tile::parse_path(text) else {
            return false;
        };
        let level = if let Kind::Hashes(level) = kind { level } else { 0 };
        let count = size >> (8 * level);
        let (full, rest) = (count / WIDTH, count % WIDTH);
        if width == WIDTH {
            index < full
        } else {
            index == full && width == rest
        }
    };
    let result = walk(&dir.join("tile"), "tile", &mut |text| {
        if !expected(text) {
            report.problem(text, "a log of this size has no such file");
        }
    });
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => report.problem("tile", e),
        _ => {}
    }
}

fn count_files(dir: &Path) -> u64 {
    let mut count = 0;
    // What cannot be listed is not counted, and will be missed when it is read.
    let _ = walk(&dir.join("tile/entries"), "", &mut |_| count += 1);
    count
}

fn walk(dir: &Path, name: &str, each: &mut dyn FnMut(&str)) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let text = format!("{name}/{}", entry.file_name().to_string_lossy());
        // `file_type` does not follow links: a link is a stranger like any other.
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &text, each)?;
        } else {
            each(&text);
        }
    }
    Ok(())
}

/// The tree as computed: roots of full tiles from the entries; below them the tiles, which have been compared.
struct Tree<'a> {
    tiles: &'a [Hash],
    leaves: FolderAt<'a>,
    size: u64,
}

impl HashReader for Tree<'_> {
    fn node(&self, level: u8, index: u64) -> Result<Option<Hash>, ProofError> {
        match level {
            8 => Ok(usize::try_from(index).ok().and_then(|i| self.tiles.get(i)).copied()),
            9.. => Ok(None),
            _ if index >= self.size => Ok(None),
            _ => self.leaves.node(level, index),
        }
    }
}

impl std::ops::Add for Kinds {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            events: self.events + other.events,
            notices: self.notices + other.notices,
            unknown: self.unknown + other.unknown,
        }
    }
}

//! C2SP tlog-tiles: the layout of an exported log in a folder.
//!
//! ```text
//! checkpoint                     the signed note, written last
//! tile/<level>/<index>           256 hashes of level 8 * level, 8 KB
//! tile/<level>/<index>.p/<w>     the same, of w < 256 hashes
//! tile/entries/<index>[.p/<w>]   256 (or w) entries, each behind its length in two bytes
//! ```
//! Full tiles never change. An index is written in groups of three digits, all but the last marked: `x001/x234/067`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Hash;
use crate::merkle::{leaf_hash, node_hash};
use crate::proof::{HashReader, ProofError};

/// Entries or hashes in a full tile.
pub const WIDTH: u64 = 256;
/// Longest entry: its length is written in two bytes.
pub const MAX_ENTRY: usize = u16::MAX as usize;
/// Longest bundle that is read.
const MAX_BUNDLE: u64 = WIDTH * (MAX_ENTRY as u64 + 2);
/// Levels of tiles that 2^64 entries can have.
const LEVELS: u8 = 8;

/// What a file of the layout holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Hashes, of tile level 0 to 7.
    Hashes(u8),
    /// Entries.
    Entries,
}

/// The path of a tile below the log's folder; `width` 256 is a full one.
#[must_use]
pub fn path(kind: Kind, index: u64, width: u64) -> String {
    let mut out = match kind {
        Kind::Hashes(level) => format!("tile/{level}/"),
        Kind::Entries => "tile/entries/".to_owned(),
    };
    let mut groups = vec![index % 1000];
    let mut rest = index / 1000;
    while rest > 0 {
        groups.push(rest % 1000);
        rest /= 1000;
    }
    while let Some(group) = groups.pop() {
        let mark = if groups.is_empty() { "" } else { "x" };
        out.push_str(&format!("{mark}{group:03}"));
        if !groups.is_empty() {
            out.push('/');
        }
    }
    if width != WIDTH {
        out.push_str(&format!(".p/{width}"));
    }
    out
}

/// Reads a path that [`path`] writes: kind, index, width. Every other spelling is `None`.
#[must_use]
pub fn parse_path(text: &str) -> Option<(Kind, u64, u64)> {
    let rest = text.strip_prefix("tile/")?;
    let (kind, rest) = match rest.strip_prefix("entries/") {
        Some(rest) => (Kind::Entries, rest),
        None => {
            let (level, rest) = rest.split_once('/')?;
            (Kind::Hashes(level.parse().ok().filter(|l| *l < LEVELS)?), rest)
        }
    };
    let (index, width) = match rest.split_once(".p/") {
        Some((index, width)) => (index, width.parse().ok().filter(|w| (1..WIDTH).contains(w))?),
        None => (rest, WIDTH),
    };
    let mut number = 0_u64;
    for group in index.split('/') {
        let digits: u64 = group.strip_prefix('x').unwrap_or(group).parse().ok()?;
        number = number.checked_mul(1000)?.checked_add(digits)?;
    }
    // One spelling only.
    (path(kind, number, width) == text).then_some((kind, number, width))
}

/// The entries of a bundle, which must have exactly `count` of them and nothing after.
#[must_use]
pub fn entries(bundle: &[u8], count: u64) -> Option<Vec<&[u8]>> {
    let mut rest = bundle;
    let mut out = Vec::new();
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let (entry, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into())?;
        out.push(entry);
        rest = tail;
    }
    (out.len() as u64 == count).then_some(out)
}

/// Root over the hashes of a tile or a part of it; their number is a power of two.
#[must_use]
pub fn perfect_root(hashes: &[Hash]) -> Option<Hash> {
    if !hashes.len().is_power_of_two() {
        return None;
    }
    let mut level: Vec<Hash> = hashes.to_vec();
    while level.len() > 1 {
        level = level
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[left, right]| node_hash(left, right))
            .collect();
    }
    level.first().copied()
}

/// A log's folder for reading. Sizes of files are limited; what is read is not yet verified.
#[derive(Clone, Debug)]
pub struct Folder {
    dir: PathBuf,
}

impl Folder {
    /// The folder that holds `checkpoint` and `tile/`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The signed checkpoint.
    ///
    /// # Errors
    /// When it cannot be read or is too long.
    pub fn checkpoint(&self) -> io::Result<Vec<u8>> {
        read_file(&self.dir.join("checkpoint"), crate::note::MAX_NOTE as u64)
    }

    /// The bytes of a bundle of entries.
    ///
    /// # Errors
    /// When it cannot be read or is too long.
    pub fn bundle(&self, index: u64, width: u64) -> io::Result<Vec<u8>> {
        read_file(&self.dir.join(path(Kind::Entries, index, width)), MAX_BUNDLE)
    }

    /// The hashes of a tile.
    ///
    /// # Errors
    /// When it cannot be read or has not `width` hashes.
    pub fn hashes(&self, level: u8, index: u64, width: u64) -> io::Result<Vec<Hash>> {
        let bytes = read_file(&self.dir.join(path(Kind::Hashes(level), index, width)), WIDTH * 32)?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        if hashes.len() as u64 != width || !rest.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a tile has a wrong length"));
        }
        Ok(hashes.to_vec())
    }

    /// The hashes of a log of `size` entries. Where a partial tile is not there, its full children are used.
    #[must_use]
    pub fn at(&self, size: u64) -> FolderAt<'_> {
        FolderAt { folder: self, size }
    }
}

/// The tree of the first entries of a folder.
#[derive(Clone, Copy, Debug)]
pub struct FolderAt<'a> {
    folder: &'a Folder,
    size: u64,
}

impl HashReader for FolderAt<'_> {
    fn node(&self, level: u8, index: u64) -> Result<Option<Hash>, ProofError> {
        let (tile_level, within) = (level / 8, level % 8);
        if tile_level >= LEVELS {
            return Ok(None);
        }
        let known = self.size >> (8 * tile_level);
        let (count, Some(first)) = (1_u64 << within, index.checked_mul(1 << within)) else {
            return Ok(None);
        };
        if first.checked_add(count).is_none_or(|end| end > known) {
            return Ok(None);
        }
        let tile = first / WIDTH;
        let width = WIDTH.min(known - tile * WIDTH);
        let hashes = match self.folder.hashes(tile_level, tile, width) {
            Ok(hashes) => hashes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(ProofError::Read(e)),
        };
        let from = (first % WIDTH) as usize;
        Ok(hashes.get(from..from + count as usize).and_then(perfect_root))
    }
}

/// A reader whose missing leaves come from elsewhere: full tiles, or their roots, and the entries below or after them.
pub struct WithTail<R, F> {
    /// Knows most of the tree.
    pub reader: R,
    /// Gives the hash of a leaf that `reader` does not know.
    pub leaf: F,
}

impl<R: HashReader, F: Fn(u64) -> Result<Option<Hash>, ProofError>> HashReader for WithTail<R, F> {
    fn node(&self, level: u8, index: u64) -> Result<Option<Hash>, ProofError> {
        match self.reader.node(level, index)? {
            None if level == 0 => (self.leaf)(index),
            known => Ok(known),
        }
    }
}

/// The roots of a growing log's full tiles of leaves, and all perfect subtrees above them: 64 bytes for each 256 entries.
/// Together with the entries ([`WithTail`]) they make any proof from two groups of 256 entries and some look-ups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Subtrees of 256, 512, 1,024, ... leaves, from the left.
    levels: Vec<Vec<Hash>>,
}

impl Roots {
    /// The level of a full tile's root: 2^8 leaves.
    pub const LEVEL: u8 = 8;

    /// Adds the root of the next full tile, and the subtrees it completes.
    pub fn push(&mut self, root: Hash) {
        let mut hash = root;
        let mut level = 0;
        loop {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let Some(nodes) = self.levels.get_mut(level) else {
                return;
            };
            nodes.push(hash);
            match nodes.as_slice() {
                [.., left, right] if nodes.len().is_multiple_of(2) => hash = node_hash(left, right),
                _ => return,
            }
            level += 1;
        }
    }

    /// The roots of the full tiles, from the left.
    #[must_use]
    pub fn tiles(&self) -> &[Hash] {
        self.levels.first().map_or(&[], Vec::as_slice)
    }
}

impl FromIterator<Hash> for Roots {
    fn from_iter<I: IntoIterator<Item = Hash>>(tiles: I) -> Self {
        let mut roots = Self::default();
        tiles.into_iter().for_each(|root| roots.push(root));
        roots
    }
}

impl HashReader for Roots {
    fn node(&self, level: u8, index: u64) -> Result<Option<Hash>, ProofError> {
        let known = level
            .checked_sub(Self::LEVEL)
            .and_then(|l| self.levels.get(usize::from(l)));
        let index = usize::try_from(index).ok();
        Ok(known.zip(index).and_then(|(nodes, i)| nodes.get(i)).copied())
    }
}

/// Writes a log into a folder, entry by entry. Each file appears whole (written aside, then renamed); `checkpoint`
/// comes last, so a folder with a checkpoint has all its tiles. Files are not synced: an export is verified after it
/// was made, and tiles beside a database can be made again.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    size: u64,
    bundle: Vec<u8>,
    /// Per tile level the hashes that do not fill a tile yet.
    levels: Vec<Vec<Hash>>,
}

impl Writer {
    /// Goes on after the first `size` entries, a multiple of [`WIDTH`], whose full tiles are in the folder.
    ///
    /// # Errors
    /// When `size` is no such multiple or a tile that is needed to go on cannot be read.
    pub fn resume(dir: &Path, size: u64) -> io::Result<Self> {
        if !size.is_multiple_of(WIDTH) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "tiles are resumed at a multiple of 256",
            ));
        }
        let folder = Folder::new(dir);
        let mut levels = vec![Vec::new()];
        for level in 1..LEVELS {
            // The hashes that do not fill a tile of this level are the roots of the last full tiles below.
            let known = size >> (8 * level);
            let mut open = Vec::new();
            for index in known - known % WIDTH..known {
                let below = folder.hashes(level - 1, index, WIDTH)?;
                open.extend(perfect_root(&below));
            }
            if known > 0 {
                levels.push(open);
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            size,
            bundle: Vec::new(),
            levels,
        })
    }

    /// Entries written and pushed so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds the next entry; full tiles are written as they come.
    ///
    /// # Errors
    /// When the entry is longer than 64 KB or a file cannot be written; the writer is of no more use then.
    pub fn push(&mut self, entry: &[u8]) -> io::Result<()> {
        let length = u16::try_from(entry.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "an entry is longer than 65,535 bytes"))?;
        self.bundle.extend_from_slice(&length.to_be_bytes());
        self.bundle.extend_from_slice(entry);
        if let Some(leaves) = self.levels.first_mut() {
            leaves.push(leaf_hash(entry));
        }
        self.size += 1;
        if self.size.is_multiple_of(WIDTH) {
            self.write(Kind::Entries, self.size / WIDTH - 1, WIDTH, &self.bundle)?;
            self.bundle.clear();
            self.close_full_tiles()?;
        }
        Ok(())
    }

    /// Writes the partial tiles and then the checkpoint, which must be of this size.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish(self, checkpoint: &[u8]) -> io::Result<()> {
        let width = self.size % WIDTH;
        if width > 0 {
            self.write(Kind::Entries, self.size / WIDTH, width, &self.bundle)?;
        }
        for (level, open) in (0_u8..).zip(&self.levels) {
            if !open.is_empty() {
                let full = (self.size >> (8 * level)) / WIDTH;
                self.write(Kind::Hashes(level), full, open.len() as u64, open.as_flattened())?;
            }
        }
        write_file(&self.dir.join("checkpoint"), checkpoint)
    }

    /// Writes each level's tile that has become full and hands its root to the level above.
    fn close_full_tiles(&mut self) -> io::Result<()> {
        let mut level = 0_u8;
        while let Some(full) = self
            .levels
            .get_mut(usize::from(level))
            .filter(|open| open.len() as u64 == WIDTH)
        {
            let hashes = std::mem::take(full);
            let index = (self.size >> (8 * level)) / WIDTH - 1;
            self.write(Kind::Hashes(level), index, WIDTH, hashes.as_flattened())?;
            level += 1;
            if self.levels.len() == usize::from(level) {
                self.levels.push(Vec::new());
            }
            if let Some(above) = self.levels.get_mut(usize::from(level)) {
                above.extend(perfect_root(&hashes));
            }
        }
        Ok(())
    }

    fn write(&self, kind: Kind, index: u64, width: u64, bytes: &[u8]) -> io::Result<()> {
        write_file(&self.dir.join(path(kind, index, width)), bytes)
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    if let Err(e) = fs::write(&aside, bytes) {
        if e.kind() != io::ErrorKind::NotFound {
            return Err(e);
        }
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        fs::write(&aside, bytes)?;
    }
    fs::rename(&aside, path)
}

/// A file's bytes; refused when it is longer than `limit`.
pub(crate) fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut out = Vec::new();
    let file = fs::File::open(path)?;
    file.take(limit + 1).read_to_end(&mut out)?;
    if out.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a file is too long"));
    }
    Ok(out)
}

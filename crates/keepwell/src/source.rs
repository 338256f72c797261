//! Files to import: found, opened, unpacked, cut into Bundles and lines; bounded against archives that blow up and against
//! links and devices that lead out of the folder that was named.

use anyhow::{Context as _, bail};
use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Longest Bundle or line accepted, unpacked: what the API takes as well.
const TEXT_MAX: u64 = 256 << 20;

/// How many times its packed size a file may grow when it is unpacked. Resources pack to a twentieth or a fiftieth: each has
/// ids of its own, which do not pack.
const GROWTH_MAX: u64 = 200;
/// Up to so many unpacked bytes the growth is not looked at.
const GROWTH_FREE: u64 = 16 << 20;

/// One thing to load: a Bundle or a resource.
pub struct Piece {
    /// File it came from.
    pub file: PathBuf,
    /// Line in it, from 1; 0 for a whole file.
    pub line: u64,
    /// Its JSON.
    pub text: Vec<u8>,
}

/// All files below the given paths, in order; directories of practitioners and organisations first, since patients
/// refer to them. A link that is named itself is followed; one inside a folder is refused, since whoever filled the folder
/// is not always who imports it.
///
/// # Errors
/// A path does not exist or is neither file nor folder, a folder holds a link or a device, or nothing loadable is found.
pub fn find(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for path in paths {
        let unreadable = || format!("cannot read `{}`", path.display());
        let kind = std::fs::metadata(path).with_context(unreadable)?.file_type();
        if kind.is_dir() {
            walk(path, &mut out, 0)?;
        } else if !kind.is_file() {
            bail!(no_file(path));
        } else if std::fs::symlink_metadata(path).with_context(unreadable)?.is_symlink() {
            out.push(std::fs::canonicalize(path).with_context(unreadable)?);
        } else {
            out.push(path.clone());
        }
    }
    if out.is_empty() {
        bail!("nothing to load: no .json or .ndjson file (plain, .gz or .zst) was found");
    }
    out.sort_by_key(|p| {
        let name = p
            .file_name()
            .map(|n| n.to_string_lossy().to_lowercase())
            .unwrap_or_default();
        (
            !(name.starts_with("hospital") || name.starts_with("practitioner")),
            p.clone(),
        )
    });
    Ok(out)
}

fn no_file(path: &Path) -> String {
    format!(
        "`{}` is neither a file nor a folder: pipes and devices are not imported",
        path.display()
    )
}

fn walk(dir: &Path, out: &mut Vec<PathBuf>, depth: u32) -> anyhow::Result<()> {
    if depth > 16 {
        bail!("`{}` is nested too deep", dir.display());
    }
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read `{}`", dir.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let path = entry.path();
        if kind.is_symlink() {
            bail!(
                "`{}` is a symbolic link: links inside a folder are not followed and nothing was loaded; name what it leads to itself",
                path.display()
            );
        } else if kind.is_dir() {
            walk(&path, out, depth + 1)?;
        } else if !kind.is_file() {
            bail!(no_file(&path));
        } else if form(&path).is_some() {
            out.push(path);
        }
    }
    Ok(())
}

/// Opens what [`find`] found, unless it has become a link or a pipe since.
fn open(path: &Path) -> anyhow::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    if !file.metadata()?.is_file() {
        bail!(no_file(path));
    }
    Ok(file)
}

/// Counts the bytes read through it.
struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.count.set(self.count.get() + n as u64);
        Ok(n)
    }
}

/// What comes out of a packed file, while that is in proportion to what went in.
struct Bounded<R> {
    inner: R,
    packed: Rc<Cell<u64>>,
    unpacked: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.unpacked += n as u64;
        if self.unpacked > GROWTH_FREE.max(self.packed.get().saturating_mul(GROWTH_MAX)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "it grows to more than {GROWTH_MAX} times its size, as no medical record does; the rest is not read"
                ),
            ));
        }
        Ok(n)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lines {
    Whole,
    EachLine,
}

fn form(path: &Path) -> Option<(Lines, Option<&'static str>)> {
    let name = path.file_name()?.to_str()?.to_lowercase();
    // The listing that comes with a data set is no resource.
    if name.starts_with("index.") || name == "counts.json" {
        return None;
    }
    let (name, packed) = match (name.strip_suffix(".gz"), name.strip_suffix(".zst")) {
        (Some(n), _) => (n.to_owned(), Some("gz")),
        (_, Some(n)) => (n.to_owned(), Some("zst")),
        _ => (name, None),
    };
    if name.ends_with(".ndjson") || name.ends_with(".jsonl") {
        Some((Lines::EachLine, packed))
    } else if name.ends_with(".json") {
        Some((Lines::Whole, packed))
    } else {
        None
    }
}

/// Gives each piece of a file to `take`, which says whether to go on.
///
/// # Errors
/// The file cannot be read or unpacked, or a piece is too long.
pub fn pieces(path: &Path, mut take: impl FnMut(Piece) -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let (lines, packed) = form(path).unwrap_or((Lines::Whole, None));
    let count = Rc::new(Cell::new(0));
    let file = Counted {
        inner: open(path)?,
        count: Rc::clone(&count),
    };
    let unpacked: Box<dyn Read> = match packed {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some(_) => Box::new(zstd::stream::read::Decoder::new(file)?),
        None => Box::new(file),
    };
    let raw = Bounded {
        inner: unpacked,
        packed: count,
        unpacked: 0,
    };
    let mut reader = BufReader::with_capacity(1 << 20, raw);
    let unreadable = || format!("cannot unpack `{}`", path.display());
    if lines == Lines::Whole {
        let mut text = Vec::new();
        reader
            .by_ref()
            .take(TEXT_MAX + 1)
            .read_to_end(&mut text)
            .with_context(unreadable)?;
        too_long(&text, path, 0)?;
        take(Piece {
            file: path.to_owned(),
            line: 0,
            text,
        })?;
        return Ok(());
    }
    for line in 1.. {
        let mut text = Vec::new();
        reader
            .by_ref()
            .take(TEXT_MAX + 1)
            .read_until(b'\n', &mut text)
            .with_context(unreadable)?;
        if text.is_empty() {
            break;
        }
        too_long(&text, path, line)?;
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if !take(Piece {
            file: path.to_owned(),
            line,
            text,
        })? {
            break;
        }
    }
    Ok(())
}

fn too_long(text: &[u8], path: &Path, line: u64) -> anyhow::Result<()> {
    if text.len() as u64 > TEXT_MAX {
        bail!(
            "`{}` line {line}: longer than {} MB unpacked; it is not read",
            path.display(),
            TEXT_MAX >> 20
        );
    }
    Ok(())
}

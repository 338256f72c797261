//! Files to import: found, opened, unpacked, cut into Bundles and lines; bounded against archives that blow up.

use anyhow::{Context as _, bail};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest Bundle or line accepted, unpacked.
const TEXT_MAX: u64 = 512 << 20;

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
/// refer to them.
///
/// # Errors
/// A path does not exist, is a symbolic link inside a directory, or nothing loadable is found.
pub fn find(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for path in paths {
        let meta = std::fs::metadata(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        if meta.is_dir() {
            walk(path, &mut out, 0)?;
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

fn walk(dir: &Path, out: &mut Vec<PathBuf>, depth: u32) -> anyhow::Result<()> {
    if depth > 16 {
        bail!("`{}` is nested too deep", dir.display());
    }
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read `{}`", dir.display()))? {
        let entry = entry?;
        // Links are not followed: they could lead out of what was named.
        let kind = entry.file_type()?;
        let path = entry.path();
        if kind.is_dir() {
            walk(&path, out, depth + 1)?;
        } else if kind.is_file() && form(&path).is_some() {
            out.push(path);
        }
    }
    Ok(())
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
    let file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let raw: Box<dyn Read> = match packed {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some(_) => Box::new(zstd::stream::read::Decoder::new(file)?),
        None => Box::new(file),
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

//! The big test sets beside the repository: `../shared/data`. Tests over them print that they were skipped when it is
//! not there.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code fails by panicking"
)]

use std::path::PathBuf;

/// The folder of the test sets: `KEEPWELL_SHARED`, or `shared` beside a folder above this crate.
pub fn shared() -> Option<PathBuf> {
    #[allow(clippy::disallowed_methods, reason = "tests read their own configuration")]
    if let Ok(dir) = std::env::var("KEEPWELL_SHARED") {
        return Some(PathBuf::from(dir).join("data")).filter(|d| d.is_dir());
    }
    let mut at = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    while at.pop() {
        let data = at.join("shared/data");
        if data.is_dir() {
            return Some(data);
        }
    }
    None
}

/// The folder, or the words every such test prints.
pub fn shared_or_skip(n: usize, what: &str) -> Option<PathBuf> {
    let dir = shared();
    if dir.is_none() {
        println!("SKIPPED {n} {what}: ../shared is not here");
    }
    dir
}

/// A file's text, unpacked when its name ends in `.zst`.
pub fn text(path: &std::path::Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let bytes = if path.extension().is_some_and(|e| e == "zst") {
        zstd::stream::decode_all(&bytes[..]).unwrap()
    } else {
        bytes
    };
    String::from_utf8(bytes).unwrap()
}

/// The files of a `.tar.zst` by name, in order. Understands the plain and the GNU long-name format.
pub fn tar(path: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let packed = std::fs::read(path).unwrap();
    let bytes = zstd::stream::decode_all(&packed[..]).unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b.split(|c| *c == 0).next().unwrap()).into_owned();
    let (mut at, mut out, mut long) = (0, Vec::new(), None);
    while at + 512 <= bytes.len() && bytes[at] != 0 {
        let head = &bytes[at..at + 512];
        let size = usize::from_str_radix(text(&head[124..136]).trim(), 8).unwrap();
        let body = bytes[at + 512..at + 512 + size].to_vec();
        let prefix = if &head[257..263] == b"ustar\0" {
            text(&head[345..500])
        } else {
            String::new()
        };
        let short = text(&head[..100]);
        let name = if prefix.is_empty() {
            short
        } else {
            format!("{prefix}/{short}")
        };
        match head[156] {
            b'L' => long = Some(text(&body)),
            b'0' | 0 => out.push((long.take().unwrap_or(name), body)),
            _ => long = None,
        }
        at += 512 + size.div_ceil(512) * 512;
    }
    out
}

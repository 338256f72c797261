//! The shared data sets, where they are: `../shared` beside the repository, or `$KEEPWELL_SHARED`.
//!
//! They are large and not part of the repository. A test that finds them missing says so with one SKIPPED line and passes.

use super::tree::Tree;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// The folder of a data set, or a SKIPPED line that says how many cases were not run.
pub fn set(name: &str, cases: usize, what: &str) -> Option<PathBuf> {
    let found = shared()
        .map(|shared| shared.join("data").join(name))
        .filter(|path| path.is_dir());
    if found.is_none() {
        println!("SKIPPED {cases} {what}: ../shared is not here");
    }
    found
}

/// The shared folder: named by the environment, or beside any folder above this crate.
pub fn shared() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("KEEPWELL_SHARED") {
        return Some(PathBuf::from(named)).filter(|path| path.is_dir());
    }
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|above| above.join("shared"))
        .find(|path| path.join("data").is_dir())
}

/// The bytes of a `.zst` file.
pub fn zst(path: &Path) -> Vec<u8> {
    let packed = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    zstd::stream::decode_all(packed.as_slice()).expect("zstd")
}

/// The plain files of a `.tar.zst` file, by name.
pub fn tar_zst(path: &Path) -> Vec<(String, Vec<u8>)> {
    let tar = zst(path);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let mut files = Vec::new();
    let mut at = 0;
    let mut long_name = None;
    while at + 512 <= tar.len() && tar[at] != 0 {
        let header = &tar[at..at + 512];
        let size = usize::from_str_radix(text(&header[124..136]).trim_matches([' ', '\0']), 8).expect("size");
        let body = &tar[at + 512..at + 512 + size];
        match header[156] {
            b'L' => long_name = Some(text(body)),
            b'0' | 0 => {
                let prefix = if &header[257..262] == b"ustar" && header[263] == b'0' {
                    text(&header[345..500])
                } else {
                    String::new()
                };
                let name = text(&header[..100]);
                let name = if prefix.is_empty() {
                    name
                } else {
                    format!("{prefix}/{name}")
                };
                files.push((long_name.take().unwrap_or(name), body.to_vec()));
            }
            _ => {}
        }
        at += 512 + size.div_ceil(512) * 512;
    }
    files
}

/// The lines of an NDJSON file, packed or not.
pub fn lines(path: &Path) -> Vec<String> {
    let bytes = if path.extension().is_some_and(|extension| extension == "zst") {
        zst(path)
    } else {
        std::fs::read(path).expect("file")
    };
    String::from_utf8(bytes)
        .expect("UTF-8")
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The first `count` patients of the v2.4 Synthea set, as the search keys count them: one PUT for each resource under its source id,
/// `urn:uuid:X` rewritten to `Type/X`, practitioners and organisations merged by id. Batches of `size` entries, ready to be posted.
pub fn synthea_puts(folder: &Path, count: usize, size: usize) -> Vec<String> {
    let mut bundles = Vec::new();
    for part in 0.. {
        let path = folder.join(format!("v2.4-r4-2019/part-{part:02}.ndjson.zst"));
        if bundles.len() >= count || !path.is_file() {
            break;
        }
        bundles.extend(lines(&path));
    }
    bundles.truncate(count);
    let mut seen = HashSet::new();
    let mut entries = Vec::new();
    for bundle in &bundles {
        let tree: serde_json::Value = serde_json::from_str(bundle).expect("JSON");
        let mut rewritten = bundle.clone();
        let mut types = HashMap::new();
        for entry in tree["entry"].as_array().expect("entry") {
            let resource = &entry["resource"];
            types.insert(
                entry["fullUrl"].as_str().unwrap_or_default().to_owned(),
                format!(
                    "{}/{}",
                    resource["resourceType"].as_str().unwrap_or_default(),
                    resource["id"].as_str().unwrap_or_default()
                ),
            );
        }
        for (full, local) in &types {
            rewritten = rewritten.replace(&format!("\"{full}\""), &format!("\"{local}\""));
        }
        // Entries are cut out of the text itself, so that numbers stay as written.
        for resource in resources(&rewritten) {
            let tree = Tree::parse(resource.as_bytes());
            let kind = tree
                .member("resourceType")
                .map(Tree::text)
                .unwrap_or_default()
                .to_owned();
            let id = tree.member("id").map(Tree::text).unwrap_or_default().to_owned();
            if seen.insert(format!("{kind}/{id}")) {
                entries.push(format!(
                    "{{\"resource\":{resource},\"request\":{{\"method\":\"PUT\",\"url\":\"{kind}/{id}\"}}}}"
                ));
            }
        }
    }
    entries
        .chunks(size)
        .map(|chunk| {
            format!(
                "{{\"resourceType\":\"Bundle\",\"type\":\"transaction\",\"entry\":[{}]}}",
                chunk.join(",")
            )
        })
        .collect()
}

/// The texts of `entry[*].resource` of a Bundle.
fn resources(bundle: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = bundle;
    while let Some(at) = rest.find("\"resource\":") {
        let from = rest[at + "\"resource\":".len()..].trim_start();
        let length = object_length(from);
        found.push(&from[..length]);
        rest = &from[length..];
    }
    found
}

/// The length of the JSON object at the start of a text.
fn object_length(text: &str) -> usize {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    panic!("an object without end")
}

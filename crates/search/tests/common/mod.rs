//! The shared test data, where it is there.

#![allow(dead_code, reason = "not every test uses all of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use keepwell_model::json::{self, Value};
use keepwell_model::types::ResourceType;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The folder of shared test data, beside the repository.
pub fn shared() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .map(|a| a.join("shared"))
        .find(|p| p.join("data").is_dir())
}

/// `name=value&...`, not percent-encoded.
pub fn pairs(query: &str) -> Vec<(String, String)> {
    let list = query.split('&').filter(|p| !p.is_empty());
    list.map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect()
}

/// The lines of a packed file.
pub fn lines(path: &Path) -> Vec<String> {
    let packed = std::fs::read(path).unwrap();
    let text = String::from_utf8(zstd::decode_all(packed.as_slice()).unwrap()).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The resources of a transaction Bundle with their types, `urn:uuid:` references turned into `Type/id`.
pub fn resources(bundle: &str) -> Vec<(ResourceType, Value<'_>)> {
    let bundle = json::parse(bundle).unwrap();
    let Value::Object(members) = bundle else {
        panic!("not a Bundle")
    };
    let entries = members.into_iter().find(|(n, _)| n == "entry").map(|(_, v)| v);
    let Some(Value::Array(entries)) = entries else {
        panic!("no entries")
    };
    let mut places = HashMap::new();
    let mut list = Vec::new();
    for mut entry in entries {
        let resource = entry.remove("resource").unwrap();
        let t = resource.str("resourceType").and_then(ResourceType::from_name).unwrap();
        if let (Some(url), Some(id)) = (entry.str("fullUrl"), resource.str("id")) {
            places.insert(url.to_owned(), format!("{t}/{id}"));
        }
        list.push((t, resource));
    }
    for (_, resource) in &mut list {
        relink(resource, &places);
    }
    list
}

fn relink(v: &mut Value<'_>, places: &HashMap<String, String>) {
    match v {
        Value::Array(items) => items.iter_mut().for_each(|i| relink(i, places)),
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(s) if name == "reference" => {
                        if let Some(place) = places.get(&**s) {
                            *s = Cow::Owned(place.clone());
                        }
                    }
                    other => relink(other, places),
                }
            }
        }
        _ => {}
    }
}

/// Name and text of each file of a packed tar archive (POSIX.1-1988 ustar, regular files only).
pub fn tar(path: &Path) -> Vec<(String, String)> {
    let packed = std::fs::read(path).unwrap();
    let all = zstd::decode_all(packed.as_slice()).unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).trim_end_matches(['\0', ' ']).to_owned();
    let mut rest = all.as_slice();
    let mut files = Vec::new();
    while let Some((header, tail)) = rest.split_at_checked(512) {
        let Some(name) = header.get(..100).map(text).filter(|n| !n.is_empty()) else {
            break;
        };
        let size = usize::from_str_radix(text(&header[124..136]).trim(), 8).unwrap();
        if matches!(header[156], b'0' | 0) {
            let name = name.rsplit('/').next().unwrap_or_default().to_owned();
            files.push((name, String::from_utf8(tail[..size].to_vec()).unwrap()));
        }
        rest = &tail[size.next_multiple_of(512)..];
    }
    files
}

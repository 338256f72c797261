//! The documents say what is true, as far as a machine can see: links lead somewhere, and named tests exist.
#![allow(
    clippy::print_stdout,
    reason = "skipped cases and seeds are told on stdout, which the test run collects"
)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test program"
)]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All Markdown files of the project.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("folder").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                folders.push(path);
            } else if name.ends_with(".md") {
                found.push(path);
            }
        }
    }
    found
}

/// The targets of Markdown links that are not addresses.
fn links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .collect()
}

/// The names of test programs mentioned: `tests/NAME.rs`, `NAME.rs` beside a word of the threat model, or `test NAME`.
fn named_tests(text: &str) -> Vec<&str> {
    let in_ticks = text.split('`').skip(1).step_by(2);
    in_ticks
        .filter_map(|code| {
            code.strip_prefix("crates/keepwell/tests/")
                .or_else(|| code.strip_prefix("test ").and_then(|rest| rest.split(' ').next()))
                .or_else(|| code.strip_suffix(".rs").filter(|name| !name.contains('/')))
        })
        .map(|name| name.trim_end_matches(".rs"))
        .collect()
}

#[test]
fn links_lead_to_files() {
    let mut broken = Vec::new();
    let documents = documents();
    assert!(documents.len() > 10);
    for document in &documents {
        let text = fs::read_to_string(document).expect("UTF-8");
        for target in links(&text) {
            let path = target.split('#').next().unwrap_or_default();
            if !document.parent().expect("folder").join(path).exists() {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn tests_named_in_documents_exist() {
    let tests = root().join("crates/keepwell/tests");
    let mut missing = Vec::new();
    for document in ["docs/ARCHITECTURE.md", "docs/threat-model.md", "docs/evidence.md"] {
        let text = fs::read_to_string(root().join(document)).expect("document");
        for name in named_tests(&text) {
            if !tests.join(format!("{name}.rs")).exists() {
                missing.push(format!("{document}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn a_broken_link_and_a_missing_test_are_seen() {
    assert_eq!(links("[a](b.md) [c](https://x) [d](e/f.md#g)"), ["b.md", "e/f.md#g"]);
    assert_eq!(
        named_tests("held by `crates/keepwell/tests/gone.rs` and `test canary` and `mutation.rs`, not `docs/x.md`"),
        ["gone", "canary", "mutation"]
    );
}

//! The arrows between crates, compared with the table in `docs/ARCHITECTURE.md` (invariant 1).
//!
//! The table is the decision and this test its guard: to change an arrow, change the table in the same commit and say why.
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

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One row of the table.
#[derive(Default)]
struct Rule {
    may_use: BTreeSet<String>,
    never: BTreeSet<String>,
}

/// What the workspace really is: crate to direct dependencies (all kinds), and to everything it links (normal and build).
struct Workspace {
    direct: BTreeMap<String, BTreeSet<String>>,
    linked: BTreeMap<String, BTreeSet<String>>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Reads the rows between the `edges` markers.
fn rules(text: &str) -> BTreeMap<String, Rule> {
    let table = text.split("<!-- edges: begin -->").nth(1).expect("begin marker");
    let table = table.split("<!-- edges: end -->").next().expect("end marker");
    let names = |cell: &str| -> BTreeSet<String> {
        cell.split(',')
            .map(|name| name.trim().trim_matches('`').to_owned())
            .filter(|name| !name.is_empty())
            .collect()
    };
    table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            let name = cells[0].trim().trim_matches('`').to_owned();
            (
                name,
                Rule {
                    may_use: names(cells[1]),
                    never: names(cells[2]),
                },
            )
        })
        .collect()
}

fn workspace() -> Workspace {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--offline",
            "--no-deps",
        ])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let mut direct = BTreeMap::new();
    let mut linked = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("name").to_owned();
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        let all = dependencies
            .iter()
            .filter_map(|d| d["name"].as_str())
            .map(str::to_owned)
            .collect();
        linked.insert(name.clone(), tree(&name));
        direct.insert(name, all);
    }
    Workspace { direct, linked }
}

/// Everything `name` links, itself left out: cargo's own resolution with the features that are really on.
fn tree(name: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "--package",
            name,
        ])
        .current_dir(root())
        .output()
        .expect("cargo tree runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|p| !p.is_empty() && *p != name)
        .map(str::to_owned)
        .collect()
}

/// Every departure of the workspace from the table, in words.
fn departures(rules: &BTreeMap<String, Rule>, workspace: &Workspace) -> Vec<String> {
    let mut found = Vec::new();
    for (name, uses) in &workspace.direct {
        let Some(rule) = rules.get(name) else {
            found.push(format!("crate `{name}` has no row"));
            continue;
        };
        for used in uses.iter().filter(|used| used.starts_with("keepwell")) {
            if used != name && !rule.may_use.contains(used) {
                found.push(format!("`{name}` uses `{used}`"));
            }
        }
        for used in &workspace.linked[name] {
            if rule.never.contains(used) {
                found.push(format!("`{name}` links `{used}`"));
            }
        }
    }
    for name in rules.keys().filter(|name| !workspace.direct.contains_key(*name)) {
        found.push(format!("row `{name}` names no crate"));
    }
    found
}

#[test]
fn the_arrows_are_those_of_the_table() {
    let text = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("docs/ARCHITECTURE.md");
    let found = departures(&rules(&text), &workspace());
    assert!(
        found.is_empty(),
        "not as docs/ARCHITECTURE.md says:\n{}",
        found.join("\n")
    );
}

#[test]
fn a_wrong_arrow_is_seen() {
    let table = "<!-- edges: begin -->\n| `keepwell-a` | `keepwell-b` | rusqlite |\n| `keepwell-b` | | |\n| `keepwell-gone` | | |\n<!-- edges: end -->";
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let workspace = Workspace {
        direct: [
            ("keepwell-a".to_owned(), set(&["keepwell-b", "serde"])),
            ("keepwell-b".to_owned(), set(&["keepwell-a"])),
            ("keepwell-new".to_owned(), set(&[])),
        ]
        .into(),
        linked: [
            ("keepwell-a".to_owned(), set(&["keepwell-b", "rusqlite"])),
            ("keepwell-b".to_owned(), set(&["rusqlite"])),
            ("keepwell-new".to_owned(), set(&[])),
        ]
        .into(),
    };
    assert_eq!(
        departures(&rules(table), &workspace),
        [
            "`keepwell-a` links `rusqlite`",
            "`keepwell-b` uses `keepwell-a`",
            "crate `keepwell-new` has no row",
            "row `keepwell-gone` names no crate"
        ]
    );
}

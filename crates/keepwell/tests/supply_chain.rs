//! APP-13: no banned crate, no licence or source outside the lists of `deny.toml`.
//!
//! `cargo deny` does the same where it is installed; this test needs nothing but cargo, and shows that a planted bad crate fails.
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

use std::path::Path;
use std::process::Command;

/// The lists of `deny.toml` that are checked here.
struct Rules {
    banned: Vec<String>,
    licences: Vec<String>,
}

/// One crate of the active dependency tree, as `cargo tree` prints it.
struct Package {
    name: String,
    /// What stands in brackets behind the version: a folder, a git address, or nothing for the registry.
    source: String,
    licence: String,
}

fn rules(text: &str) -> Rules {
    let section = |name: &str| {
        text.split(name)
            .nth(1)
            .and_then(|rest| rest.split("\n]").next())
            .expect("a list of deny.toml")
            .to_owned()
    };
    let quoted = |line: &str| line.split('"').nth(1).map(str::to_owned);
    Rules {
        banned: section("\ndeny = [").lines().filter_map(quoted).collect(),
        licences: section("\nallow = [").lines().filter_map(quoted).collect(),
    }
}

fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--locked",
            "--offline",
            "--edges",
            "normal,build,dev",
            "--prefix",
            "none",
            "--format",
            "{p}\t{l}",
        ])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .output()
        .expect("cargo tree runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    parse(&String::from_utf8(output.stdout).expect("UTF-8"))
}

fn parse(tree: &str) -> Vec<Package> {
    tree.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let (package, licence) = line.split_once('\t').expect("tab");
            let mut words = package.splitn(3, ' ');
            let name = words.next().unwrap_or_default().to_owned();
            let rest = words.nth(1).unwrap_or_default().replace("(proc-macro)", "");
            let source = rest.trim().trim_matches(['(', ')']).to_owned();
            Package {
                name,
                source,
                licence: licence.trim_end_matches("(*)").trim().to_owned(),
            }
        })
        .collect()
}

/// Whether an SPDX expression can be met with the allowed licences. `/` is the old spelling of OR.
fn allowed(expression: &str, licences: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    either(&words, &mut at, licences) && at == words.len()
}

fn either(words: &[&str], at: &mut usize, licences: &[String]) -> bool {
    let mut met = both(words, at, licences);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= both(words, at, licences);
    }
    met
}

fn both(words: &[&str], at: &mut usize, licences: &[String]) -> bool {
    let mut met = one(words, at, licences);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one(words, at, licences);
    }
    met
}

fn one(words: &[&str], at: &mut usize, licences: &[String]) -> bool {
    match words.get(*at) {
        Some(&"(") => {
            *at += 1;
            let met = either(words, at, licences);
            let closed = words.get(*at) == Some(&")");
            *at += 1;
            met && closed
        }
        Some(word) => {
            *at += 1;
            let mut name = (*word).to_owned();
            if words.get(*at) == Some(&"WITH") {
                name = format!("{word} WITH {}", words.get(*at + 1).unwrap_or(&""));
                *at += 2;
            }
            licences.contains(&name)
        }
        None => false,
    }
}

/// What is wrong with a set of packages, in words.
fn faults(packages: &[Package], rules: &Rules) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        let own = package.name.starts_with("keepwell");
        if rules.banned.contains(&package.name) {
            found.push(format!("`{}` is banned", package.name));
        }
        if !allowed(&package.licence, &rules.licences) {
            found.push(format!("`{}` has the licence `{}`", package.name, package.licence));
        }
        if !package.source.is_empty() && !own {
            found.push(format!("`{}` comes from `{}`", package.name, package.source));
        }
    }
    found
}

fn own_rules() -> Rules {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deny.toml");
    rules(&std::fs::read_to_string(path).expect("deny.toml"))
}

#[test]
fn every_dependency_is_allowed() {
    let packages = packages();
    assert!(packages.len() > 50, "the tree was read: {}", packages.len());
    let found = faults(&packages, &own_rules());
    assert!(found.is_empty(), "refused by deny.toml:\n{}", found.join("\n"));
}

#[test]
fn the_lock_file_names_the_registry_only() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    let text = std::fs::read_to_string(path).expect("Cargo.lock");
    let foreign: Vec<&str> = text
        .lines()
        .filter(|line| {
            line.starts_with("source = ") && !line.contains("registry+https://github.com/rust-lang/crates.io-index")
        })
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

#[test]
fn a_planted_bad_crate_fails() {
    let rules = own_rules();
    let planted = parse(
        "ring v0.17.14\tApache-2.0 AND ISC\nopenssl-sys v0.9.100\tMIT\nleftpad v1.0.0\tGPL-3.0\nnolicence v1.0.0\t\n\
         evil v1.0.0 (https://example.org/evil#abcdef01)\tMIT\nmacro v1.0.0 (proc-macro)\tMIT OR Apache-2.0\n\
         both v1.0.0\tMIT AND GPL-2.0\nchoice v1.0.0\tGPL-2.0 OR (MIT AND Unicode-3.0)\nseen v1.0.0\tMIT/Apache-2.0 (*)\n",
    );
    assert_eq!(
        faults(&planted, &rules),
        [
            "`ring` is banned",
            "`openssl-sys` is banned",
            "`leftpad` has the licence `GPL-3.0`",
            "`nolicence` has the licence ``",
            "`evil` comes from `https://example.org/evil#abcdef01`",
            "`both` has the licence `MIT AND GPL-2.0`",
        ]
    );
}

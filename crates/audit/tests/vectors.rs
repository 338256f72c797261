//! Facts and vectors of others: the reference tree of Certificate Transparency (a copy is here, so that something
//! always runs), Merkle proofs good and bad, and a log written by another implementation.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code"
)]

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use keepwell_audit::Hash;
use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::export::{Options, verify_export};
use keepwell_audit::merkle::{Frontier, empty_root, leaf_hash};
use keepwell_audit::note::VerifierKey;
use keepwell_audit::proof::{root, verify_consistency, verify_inclusion};
use serde_json::Value;

/// Leaves of the reference tree, and its root at each size from 0 to 8.
const LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

fn check_reference_tree<S: AsRef<str>>(leaves: &[S], roots: &[S]) {
    let hashes: Vec<Hash> = leaves.iter().map(|l| leaf_hash(&unhex(l.as_ref()))).collect();
    let mut tree = Frontier::new();
    for (size, expected) in roots.iter().enumerate() {
        assert_eq!(tree.root().to_vec(), unhex(expected.as_ref()), "size {size}");
        assert_eq!(root(&hashes, size as u64).unwrap(), tree.root());
        assert_eq!(Frontier::from_bytes(&tree.to_bytes()).unwrap(), tree);
        if let Some(hash) = hashes.get(size) {
            tree.append(*hash);
        }
    }
    assert_eq!(tree.size(), leaves.len() as u64);
}

#[test]
fn the_reference_tree_has_its_known_roots() {
    check_reference_tree(&LEAVES, &ROOTS);
    assert_eq!(empty_root().to_vec(), unhex(ROOTS[0]));
}

#[test]
fn the_shared_reference_tree_is_the_same() {
    let Some(file) = common::shared("data/vectors/rfc6962-tree.json") else {
        return common::skipped(9, "roots of the reference tree");
    };
    let vectors: Value = serde_json::from_slice(&file).unwrap();
    let list = |key: &str| -> Vec<String> {
        vectors[key]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_str().unwrap().to_owned())
            .collect()
    };
    check_reference_tree(&list("leaves_hex"), &list("root_hex_by_size"));
}

#[test]
fn good_proofs_of_others_are_accepted_and_bad_ones_refused() {
    let Some(files) = common::archive("merkle-proofs") else {
        return common::skipped(518, "Merkle proof vectors");
    };
    let (mut inclusion, mut consistency, mut subtree) = (0, 0, 0);
    for (path, bytes) in files.iter().filter(|(path, _)| path.ends_with(".json")) {
        let case: Value = serde_json::from_slice(bytes).unwrap();
        let hash = |v: &Value| -> Option<Hash> { BASE64.decode(v.as_str()?).ok()?.try_into().ok() };
        // Some roots are a text ("don't care"): any hash does that is equal for equal texts.
        let root = |key: &str| {
            let bytes = BASE64.decode(case[key].as_str().unwrap()).unwrap();
            Hash::try_from(bytes.as_slice()).unwrap_or_else(|_| leaf_hash(&bytes))
        };
        let none = Vec::new();
        let steps = case["proof"].as_array().unwrap_or(&none);
        let proof: Option<Vec<Hash>> = steps.iter().map(hash).collect();
        let number = |key: &str| case[key].as_u64().unwrap();
        // A hash of another length is refused when it is read.
        let accepted = if path.contains("/inclusion/") {
            inclusion += 1;
            proof.zip(hash(&case["leafHash"])).is_some_and(|(proof, leaf)| {
                verify_inclusion(&leaf, number("leafIdx"), number("treeSize"), &proof, &root("root")).is_ok()
            })
        } else if path.contains("/consistency/") {
            consistency += 1;
            proof.is_some_and(|proof| {
                verify_consistency(number("size1"), number("size2"), &root("root1"), &root("root2"), &proof).is_ok()
            })
        } else {
            subtree += 1;
            continue;
        };
        assert_eq!(accepted, !case["wantErr"].as_bool().unwrap(), "{path}");
    }
    assert_eq!((inclusion, consistency), (98, 98));
    println!("SKIPPED {subtree} subtree proof vectors: a draft extension that this crate does not have");
}

#[test]
fn a_log_of_another_implementation_verifies() {
    let Some(files) = common::archive("tlog-tiles") else {
        return common::skipped(51, "files of a tlog-tiles log");
    };
    let key = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx";
    let trusted = [VerifierKey::parse(key).unwrap()];
    let file = |name: &str| {
        let path = format!("testdata/log/{name}");
        files.iter().find(|(p, _)| *p == path).map(|(_, bytes)| bytes.clone())
    };
    let sizes: Vec<u64> = (1..=15)
        .filter(|n| file(&format!("checkpoint.{n}")).is_some())
        .collect();
    assert!(sizes.len() >= 14);
    let earlier: Vec<Vec<u8>> = sizes
        .iter()
        .map(|n| file(&format!("checkpoint.{n}")).unwrap())
        .collect();
    for (n, note) in sizes.iter().zip(&earlier) {
        assert_eq!(Checkpoint::open(note, &trusted).unwrap().size, *n);
        let dir = tempfile::tempdir().unwrap();
        for name in [format!("tile/0/000.p/{n}"), format!("tile/entries/000.p/{n}")] {
            let path = dir.path().join(&name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file(&name).unwrap()).unwrap();
        }
        std::fs::write(dir.path().join("checkpoint"), note).unwrap();
        let outside: Vec<Vec<u8>> = earlier[..sizes.iter().position(|s| s == n).unwrap()].to_vec();
        let report = verify_export(
            dir.path(),
            &Options {
                trusted: &trusted,
                outside: &outside,
                ..Options::default()
            },
        );
        assert_eq!(report.problems, [], "size {n}");
        assert_eq!((report.size, report.outside_checked), (*n, outside.len()));
    }
}

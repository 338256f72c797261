//! An exported log: written, gone on with, verified, proven from, and read by an independent program.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code"
)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Dice, ORIGIN, TestKey, checkpoint_of, log, write};
use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::export::{Options, verify_export};
use keepwell_audit::merkle::leaf_hash;
use keepwell_audit::proof::{consistency, inclusion, verify_inclusion};
use keepwell_audit::tile::{Folder, WithTail, Writer};
use keepwell_audit::witness::{self, Witness, WitnessError};
use keepwell_audit::{note, proof_file};

fn key() -> TestKey {
    TestKey::new(ORIGIN, 1)
}

/// Sizes around the edges of tiles of two levels.
const SIZES: [u64; 9] = [0, 1, 255, 256, 257, 700, 65_535, 65_536, 66_000];

#[test]
fn an_honest_export_of_any_size_verifies() {
    for size in SIZES {
        let dir = tempfile::tempdir().unwrap();
        let entries = log(size);
        let note = write(dir.path(), &entries, &key());
        let outside = [checkpoint_of(&entries[..size as usize / 2]).sign(&key()).unwrap(), note];
        let trusted = [key().verifier()];
        let options = Options {
            trusted: &trusted,
            outside: &outside,
            ..Options::default()
        };
        let report = verify_export(dir.path(), &options);
        assert_eq!(report.problems, [], "size {size}");
        assert_eq!(
            (report.size, report.outside_checked, report.origin.as_str()),
            (size, 2, ORIGIN)
        );
        assert_eq!(report.kinds.rows + report.kinds.events, size);
        assert_eq!(report.signed_by, [ORIGIN]);
        assert!(
            verify_export(
                dir.path(),
                &Options {
                    trusted: &[TestKey::new("x", 4).verifier()],
                    ..options
                }
            )
            .problems
            .len()
                == 3
        );
    }
}

#[test]
fn a_writer_goes_on_where_another_stopped() {
    let entries = log(66_000);
    let whole = tempfile::tempdir().unwrap();
    write(whole.path(), &entries, &key());
    let parts = tempfile::tempdir().unwrap();
    let mut size = 0;
    for end in [300, 512, 20_000, 65_600, 66_000] {
        let mut writer = Writer::resume(parts.path(), size).unwrap();
        for entry in &entries[size as usize..end] {
            writer.push(entry).unwrap();
        }
        size = writer.size() / 256 * 256;
        if end == entries.len() {
            writer.finish(&checkpoint_of(&entries).sign(&key()).unwrap()).unwrap();
        }
    }
    assert_eq!(tree(parts.path()), tree(whole.path()));
    assert!(Writer::resume(parts.path(), 300).is_err());
}

#[test]
fn a_proof_file_proves_its_entry_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let entries = log(66_000);
    let note = write(dir.path(), &entries, &key());
    let folder = Folder::new(dir.path());
    let trusted = [key().verifier()];
    let mut dice = Dice(5);
    for _ in 0..40 {
        let index = dice.below(66_000);
        let entry = &entries[index as usize];
        let file = proof_file::make(&folder.at(66_000), index, entry, &note).unwrap();
        let proven = proof_file::verify(file.as_bytes(), None, &trusted).unwrap();
        assert_eq!(
            (proven.index, &proven.entry, proven.checkpoint.size),
            (index, entry, 66_000)
        );
        assert!(proof_file::verify(file.as_bytes(), None, &[TestKey::new(ORIGIN, 2).verifier()]).is_err());
        // Without the entry in it, it is still a proof for whoever has the entry.
        let bare: String = file
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("extra "))
            .collect();
        assert_eq!(
            proof_file::verify(bare.as_bytes(), Some(entry), &trusted).unwrap(),
            proven
        );
        assert!(proof_file::verify(bare.as_bytes(), None, &trusted).is_err());
        assert!(proof_file::verify(bare.as_bytes(), Some(b"another"), &trusted).is_err());
        assert!(proof_file::verify(file.as_bytes(), Some(b"another"), &trusted).is_err());
        let mut bytes = file.into_bytes();
        let at = dice.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << dice.below(8);
        assert!(
            proof_file::verify(&bytes, None, &trusted).is_err(),
            "byte {at} says nothing"
        );
        assert!(proof_file::make(&folder.at(66_000), index, b"another entry", &note).is_err());
    }
}

#[test]
fn proofs_are_made_from_full_tiles_and_the_entries_after_them() {
    let dir = tempfile::tempdir().unwrap();
    let entries = log(700);
    let mut writer = Writer::resume(dir.path(), 0).unwrap();
    entries.iter().for_each(|e| writer.push(e).unwrap());
    // No `finish`: only full tiles are there.
    let folder = Folder::new(dir.path());
    let tail = |i: u64| Ok(entries.get(i as usize).filter(|_| i >= 512).map(|e| leaf_hash(e)));
    let reader = WithTail {
        reader: folder.at(700),
        leaf: tail,
    };
    let root = checkpoint_of(&entries).root;
    for index in [0, 255, 256, 511, 512, 699] {
        let proof = inclusion(&reader, index, 700).unwrap();
        verify_inclusion(&leaf_hash(&entries[index as usize]), index, 700, &proof, &root).unwrap();
    }
}

#[test]
fn a_witness_goes_forward_only() {
    let entries = log(3000);
    let hashes: Vec<_> = entries.iter().map(|e| leaf_hash(e)).collect();
    let trusted = [key().verifier()];
    let signed = |n: usize| checkpoint_of(&entries[..n]).sign(&key()).unwrap();
    let mut witness = Witness::new(None);
    let mut old = 0;
    for size in [0_u64, 1, 255, 700, 2048, 2999] {
        let proof = consistency(&hashes, old, size).unwrap();
        let note = String::from_utf8(signed(size as usize)).unwrap();
        let request = witness::request(old, &proof, &note);
        let (read_old, proof, note) = witness::parse_request(request.as_bytes()).unwrap();
        assert_eq!(read_old, old);
        witness.advance(note.as_bytes(), &trusted, &proof).unwrap();
        assert_eq!(witness.latest().unwrap().size, size);
        old = size;
    }
    let before = witness.clone();
    let rollback = witness.advance(&signed(2048), &trusted, &[]);
    assert!(matches!(
        rollback,
        Err(WitnessError::Rollback {
            known: 2999,
            offered: 2048
        })
    ));
    // History rewritten and signed with the log's own key: there is no proof for it.
    let mut forged = entries.clone();
    forged[100] = vec![0];
    let other: Vec<_> = forged.iter().map(|e| leaf_hash(e)).collect();
    let note = checkpoint_of(&forged).sign(&key()).unwrap();
    let proof = consistency(&other, 2999, 3000).unwrap();
    assert!(matches!(
        witness.advance(&note, &trusted, &proof),
        Err(WitnessError::Fork(_))
    ));
    let other_log = Checkpoint::new("another", 3000, [0; 32]).sign(&key()).unwrap();
    assert!(matches!(
        witness.advance(&other_log, &trusted, &[]),
        Err(WitnessError::OtherLog)
    ));
    assert_eq!(witness, before);
}

#[test]
fn a_damaged_or_foreign_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &log(700), &key());
    let problems = |dir: &Path| -> Vec<String> {
        verify_export(dir, &Options::default())
            .problems
            .into_iter()
            .map(|p| p.place)
            .collect()
    };
    assert_eq!(problems(dir.path()), Vec::<String>::new());
    for stranger in [
        "tile/0/003",
        "tile/entries/000.new",
        "tile/x",
        "tile/2/000",
        "tile/0/002.p/187",
    ] {
        let path = dir.path().join(stranger);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, b"").unwrap();
        assert_eq!(problems(dir.path()), [stranger]);
        std::fs::remove_file(path).unwrap();
    }
    for victim in files(dir.path()) {
        let path = dir.path().join(&victim);
        let good = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(problems(dir.path()).contains(&victim));
        for cut in [0, good.len() - 1] {
            std::fs::write(&path, &good[..cut]).unwrap();
            assert!(problems(dir.path()).contains(&victim), "{victim} cut to {cut}");
        }
        std::fs::write(&path, &good).unwrap();
    }
    // A claim of a huge log costs nothing.
    let huge = Checkpoint::new(ORIGIN, u64::MAX, [0; 32]).sign(&key()).unwrap();
    std::fs::write(dir.path().join("checkpoint"), huge).unwrap();
    assert_eq!(problems(dir.path()), ["checkpoint"]);
}

#[test]
fn a_program_in_another_language_agrees() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/verify-log.py");
    if !Command::new("python3")
        .arg("--version")
        .output()
        .is_ok_and(|o| o.status.success())
    {
        println!("SKIPPED 1 comparison with scripts/verify-log.py: python3 is not here");
        return;
    }
    let run = |dir: &Path, key: &TestKey, outside: &Path| {
        let output = Command::new("python3")
            .arg(&script)
            .arg(dir)
            .args(["--key", &key.verifier().to_string(), "--checkpoint"])
            .arg(outside)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    for size in [0, 1, 257, 1500] {
        let dir = tempfile::tempdir().unwrap();
        let entries = log(size);
        let note = write(dir.path(), &entries, &key());
        let outside = dir.path().join("outside");
        std::fs::write(
            &outside,
            checkpoint_of(&entries[..size as usize / 3]).sign(&key()).unwrap(),
        )
        .unwrap();
        let (good, said) = run(dir.path(), &key(), &outside);
        assert!(good, "{said}");
        let root = Checkpoint::read_unverified(&note).unwrap().to_text();
        assert!(said.contains(root.lines().nth(2).unwrap()), "{said}");
        assert!(!run(dir.path(), &TestKey::new(ORIGIN, 3), &outside).0);
        let forged = Checkpoint::new(ORIGIN, size / 3, [3; 32]).sign(&key()).unwrap();
        std::fs::write(&outside, forged).unwrap();
        assert!(!run(dir.path(), &key(), &outside).0);
        if size > 0 {
            std::fs::write(&outside, checkpoint_of(&[]).sign(&key()).unwrap()).unwrap();
            let bundle = files(dir.path()).into_iter().find(|f| f.contains("entries")).unwrap();
            let mut bytes = std::fs::read(dir.path().join(&bundle)).unwrap();
            bytes[20] ^= 1;
            std::fs::write(dir.path().join(bundle), bytes).unwrap();
            assert!(!run(dir.path(), &key(), &outside).0);
            assert!(!verify_export(dir.path(), &Options::default()).is_good());
        }
    }
    assert!(note::text(&checkpoint_of(&[]).sign(&key()).unwrap()).is_ok());
}

/// All files below a folder, by name, with their bytes.
fn tree(dir: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    files(dir)
        .into_iter()
        .map(|f| (f.clone(), std::fs::read(dir.join(f)).unwrap()))
        .collect()
}

fn files(dir: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut open: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                out.push(entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    out.sort();
    out
}

//! Rotation of all keys: what opens afterwards, what does not, and what a crash on the way leaves.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod common;

use common::*;
use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::note::VerifierKey;
use keepwell_ledger::{Custodian, KeyFile, OpenError};
use std::sync::Arc;

fn same_key(clinic: &Clinic) -> Arc<dyn Custodian> {
    Arc::new(clinic.key())
}

#[test]
fn after_a_rotation_everything_goes_on_and_old_copies_are_closed() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    let before = put(&ledger, "a", &["p1"], "before");
    let note = ledger.seal_note(b"page", b"cursor").unwrap();
    ledger.stop();
    let old_checkpoint = std::fs::read(clinic.dir().join("checkpoint")).unwrap();
    drop(ledger);
    let old = clinic.image("old");
    let outside = clinic.base.path().join("outside");
    std::fs::write(&outside, &old_checkpoint).unwrap();

    let ledger = clinic.open();
    let old_key = ledger.verifier_key();
    ledger.rotate(same_key(&clinic), false).unwrap();
    assert_ne!(ledger.verifier_key(), old_key);
    let after = put(&ledger, "b", &["p1"], "after");
    assert_eq!(after.slot, before.slot);
    let check = |ledger: &ToyLedger| {
        assert_eq!(ledger.read(before.rid).unwrap().text, b"[p1] before");
        assert_eq!(ledger.read(after.rid).unwrap().text, b"[p1] after");
        assert_eq!(ledger.open_note(b"page", &note).unwrap(), b"cursor");
        assert_eq!(ledger.follower().index().len(), 2);
        // Checkpoints of before still hold, and today's is signed by today's key only.
        let keys = ledger.verifier_keys();
        assert_eq!(keys.len(), 2);
        assert!(Checkpoint::open(&old_checkpoint, &keys).is_ok());
        let report = ledger.verify(Some(&outside)).unwrap();
        assert!(report.ok && report.checkpoint_compared, "{:?}", report.findings);
        let head = ledger.checkpoint();
        assert!(Checkpoint::open(head.as_bytes(), &keys[..1]).is_ok());
        assert!(Checkpoint::open(head.as_bytes(), &keys[1..]).is_err());
        assert_eq!(keys[1], VerifierKey::parse(&old_key).unwrap());
        let all: Vec<u64> = (0..ledger.size()).collect();
        assert!(ledger.prove(&all).unwrap().iter().all(|proven| *proven));
    };
    check(&ledger);
    drop(ledger);
    let ledger = clinic.open();
    assert!(
        ledger.take_notices().is_empty(),
        "from a snapshot of after the rotation"
    );
    check(&ledger);
    drop(ledger);
    // Without keys: the log itself names both.
    let options = keepwell_ledger::verify::Options {
        checkpoint: Some(&outside),
        ..Default::default()
    };
    let report = keepwell_ledger::verify::verify(clinic.dir(), &options, &Toy::default()).unwrap();
    assert!(report.ok && report.checkpoint_compared, "{:?}", report.findings);
    std::fs::remove_file(clinic.dir().join("snapshot")).unwrap();
    let ledger = clinic.open();
    ledger.snapshot().unwrap();
    check(&ledger);
    drop(ledger);

    // The keyring of before, with the ERA of today.
    for (place, copy) in [("era", old.dir.join("era")), ("copy", old.era_copies[0].clone())] {
        println!("{place}");
        std::fs::copy(clinic.dir().join("era"), copy).unwrap();
    }
    assert!(matches!(
        clinic.open_with(&old),
        Err(OpenError::KeyringOlderThanErasure)
    ));
    // The database of before, with the keyring of today: a backup from before a rotation is restored so.
    std::fs::copy(clinic.dir().join("keyring"), old.dir.join("keyring")).unwrap();
    let ledger = clinic.open_with(&old).unwrap();
    assert_eq!(ledger.read(before.rid).unwrap().text, b"[p1] before");
    assert!(ledger.verify(None).unwrap().ok);
}

#[test]
fn another_secret_takes_over() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    let known = put(&ledger, "a", &["p1"], "x");
    let path = clinic.base.path().join("new-key");
    let new = KeyFile::create(&path, &Random).unwrap();
    ledger.rotate(Arc::new(new), true).unwrap();
    assert!(ledger.token_retired_keys().is_empty());
    drop(ledger);
    assert!(matches!(clinic.try_open(), Err(OpenError::WrongPassphrase)));
    std::fs::copy(&path, clinic.base.path().join("key")).unwrap();
    assert!(clinic.open().read(known.rid).is_ok());
}

#[test]
fn a_crash_at_any_step_of_a_rotation_leaves_a_log_that_goes_on() {
    let clinic = stepping();
    let ledger = clinic.open();
    let known = put(&ledger, "a", &["p1"], "x");
    ledger.snapshot().unwrap();
    let old_key = ledger.verifier_key();
    let images = images(&clinic, || {
        ledger.rotate(same_key(&clinic), false).unwrap();
    });
    assert_eq!(
        names(&images),
        [
            "first-place",
            "places",
            "next-torn",
            "next",
            "switched",
            "copy-switched",
            "first-overwritten",
            "overwritten",
            "handed-over"
        ]
    );
    for (step, image) in &images {
        let ledger = clinic.open_with(image).unwrap();
        let rotated = !matches!(step.as_str(), "first-place" | "places" | "next-torn");
        assert_eq!(ledger.verifier_key() != old_key, rotated, "{step}");
        assert!(ledger.read(known.rid).is_ok(), "{step}");
        let head = ledger.checkpoint();
        assert!(
            Checkpoint::open(head.as_bytes(), &ledger.verifier_keys()[..1]).is_ok(),
            "{step}"
        );
        put(&ledger, "b", &["p1"], "on");
        let report = ledger.verify(None).unwrap();
        assert!(report.ok, "{step}: {:?}", report.findings);
        ledger.stop();
        drop(ledger);
        let report = keepwell_ledger::verify::verify(&image.dir, &Default::default(), &Toy::default()).unwrap();
        assert!(report.ok, "{step}: {:?}", report.findings);
    }
}

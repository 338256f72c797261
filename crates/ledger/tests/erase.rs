//! Erasure: what is gone, what stays, what a thief with old copies gets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod common;

use common::*;
use keepwell_ledger::{Config, EraseError, Event, ReadError, Wait};
use std::sync::{Arc, Mutex};

fn act() -> Event {
    Event {
        kind: 9,
        actor: b"privacy officer".to_vec(),
        parts: Vec::new(),
    }
}

#[test]
fn an_erased_patient_is_gone_and_everybody_else_stays() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    let gone: Vec<_> = (0..3)
        .map(|n| put(&ledger, &format!("a{n}"), &["p1"], "secret"))
        .collect();
    let stays = put(&ledger, "b", &["p2"], "kept");
    let both = put(&ledger, "c", &["p1", "p2"], "of both");
    let slot = gone[0].slot;
    let read = Event {
        kind: 1,
        actor: b"dr. grey".to_vec(),
        parts: vec![(slot, b"p1 part".to_vec()), (stays.slot, b"p2 part".to_vec())],
    };
    let seq = ledger.log_blocking(read, Wait::Wal).unwrap();
    ledger.snapshot().unwrap();
    let old_snapshot = std::fs::read(clinic.dir().join("snapshot")).unwrap();

    let erased = ledger.erase("p1", act()).unwrap();
    assert_eq!(erased.slots, [slot]);
    assert_eq!(
        erased.pending,
        [both.slot],
        "a person decides about what belongs to several"
    );
    assert_eq!((erased.confirmed.len(), erased.unreachable.len()), (2, 0));
    assert!(matches!(ledger.erase("p1", act()), Err(EraseError::Unknown)));
    assert!(matches!(ledger.erase("nobody", act()), Err(EraseError::Unknown)));

    let check = |ledger: &ToyLedger| {
        for known in &gone {
            assert_eq!(ledger.read(known.rid).err(), Some(ReadError::Erased(known.rid)));
        }
        let index = ledger.follower().index();
        assert_eq!(index.keys().collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(ledger.read(stays.rid).unwrap().text, b"[p2] kept");
        assert_eq!(ledger.slot_of_patient("p1"), None);
        assert!(ledger.access_log(slot, u64::MAX, 10).unwrap().is_empty());
        // The fact of the access stays; the other patient still sees theirs.
        assert_eq!(ledger.event(seq).unwrap().actor, b"dr. grey");
        assert!(
            ledger
                .access_log(stays.slot, u64::MAX, 10)
                .unwrap()
                .iter()
                .any(|a| a.part == b"p2 part")
        );
        let report = ledger.verify(None).unwrap();
        assert!(report.ok, "{:?}", report.findings);
        assert_eq!(report.erased, 3);
    };
    check(&ledger);
    drop(ledger);
    let ledger = clinic.open(); // from the new snapshot
    check(&ledger);
    drop(ledger);
    std::fs::remove_file(clinic.dir().join("snapshot")).unwrap();
    let ledger = clinic.open(); // from the rows
    check(&ledger);
    // The id may be used again, under a new slot.
    let again = put(&ledger, "a0", &["p1"], "new");
    assert!(again.slot != slot && again.version == 1);
    drop(ledger);
    // The old snapshot died with the ERA.
    std::fs::write(clinic.dir().join("snapshot"), old_snapshot).unwrap();
    let ledger = clinic.open();
    assert!(has(&ledger.take_notices(), |n| matches!(
        n,
        keepwell_ledger::Notice::SnapshotDiscarded(_)
    )));
    assert!(ledger.read(again.rid).is_ok() && ledger.read(gone[0].rid).is_err());
}

#[test]
fn old_copies_of_everything_but_the_era_do_not_bring_a_patient_back() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    let gone = put(&ledger, "a", &["p1"], "secret");
    ledger.stop();
    drop(ledger);
    let backup = clinic.image("backup");
    let ledger = clinic.open();
    ledger.erase("p1", act()).unwrap();
    drop(ledger);
    // Database, keyring, snapshot and key file of before; the ERA of today.
    std::fs::copy(clinic.dir().join("era"), backup.dir.join("era")).unwrap();
    std::fs::copy(&clinic.config.era_copies[0], &backup.era_copies[0]).unwrap();
    assert!(matches!(
        clinic.open_with(&backup),
        Err(keepwell_ledger::OpenError::KeyringOlderThanErasure)
    ));
    // The keyring of today with the database of before: the row is there and closed.
    std::fs::copy(clinic.dir().join("keyring"), backup.dir.join("keyring")).unwrap();
    std::fs::remove_file(backup.dir.join("checkpoint")).unwrap();
    let ledger = clinic.open_with(&backup).unwrap();
    assert_eq!(ledger.read(gone.rid).err(), Some(ReadError::Erased(gone.rid)));
    assert!(ledger.follower().index().is_empty());
}

#[test]
fn a_kill_between_keys_and_tombstone_is_made_good_at_the_next_start() {
    let clinic = Arc::new(Clinic::new());
    let ledger = clinic.open();
    let gone = put(&ledger, "a", &["p1"], "secret");
    put(&ledger, "b", &["p2"], "kept");
    ledger.snapshot().unwrap();
    let images: Arc<Mutex<Vec<Config>>> = Arc::default();
    {
        let (clinic, images) = (Arc::clone(&clinic), Arc::clone(&images));
        *ledger.follower().at.lock().unwrap() = Some(Box::new(move |moment| {
            assert_eq!(moment, Moment::Forgotten);
            images.lock().unwrap().push(clinic.image("forgotten"));
        }));
    }
    let size = ledger.size();
    ledger.erase("p1", act()).unwrap();
    *ledger.follower().at.lock().unwrap() = None;
    drop(ledger);
    let image = images.lock().unwrap().pop().unwrap();
    // Killed after the tombstone, before the keyring's list was cleared: announced once more.
    let ledger = clinic.open_with(&image).unwrap();
    assert_eq!(ledger.size(), size + 3, "tombstone, the act's event, tombstone");
    assert_eq!(ledger.read(gone.rid).err(), Some(ReadError::Erased(gone.rid)));
    assert_eq!(ledger.follower().index().keys().collect::<Vec<_>>(), ["b"]);
    assert!(ledger.verify(None).unwrap().ok);
    drop(ledger);
    let ledger = clinic.open_with(&image).unwrap();
    assert_eq!(ledger.size(), size + 3, "and only once");
}

#[test]
fn without_enough_places_nothing_is_erased() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    let known = put(&ledger, "a", &["p1"], "x");
    let place = &clinic.config.era_copies[0];
    std::fs::rename(place, clinic.base.path().join("away")).unwrap();
    std::fs::create_dir(place).unwrap();
    assert!(matches!(
        ledger.erase("p1", act()),
        Err(EraseError::Places { have: 1, want: 2 })
    ));
    assert!(ledger.read(known.rid).is_ok());
    assert!(ledger.follower().index().contains_key("a"));
}

#[test]
fn no_stored_byte_names_a_patient() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    for n in 0..200 {
        let text = format!("canary-{n:05}-text");
        put(
            &ledger,
            &format!("canary-{n:05}-id"),
            &[&format!("canary-{n:05}-patient")],
            &text,
        );
        let event = Event {
            kind: 1,
            actor: format!("canary-{n:05}-actor").into_bytes(),
            parts: vec![(1, format!("canary-{n:05}-part").into_bytes())],
        };
        ledger.log_blocking(event, Wait::Wal).unwrap();
    }
    ledger.snapshot().unwrap();
    let image = clinic.image("stolen");
    let mut read = 0;
    for path in files(&image.dir).into_iter().chain([image.era_copies[0].clone()]) {
        let bytes = std::fs::read(&path).unwrap();
        read += bytes.len();
        assert!(!bytes.windows(7).any(|w| w == b"canary-"), "{}", path.display());
    }
    assert!(read > 100_000);
}

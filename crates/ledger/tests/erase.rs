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
use keepwell_ledger::{Body, Config, EraseError, Erasing, Event, Header, Kind, ReadError, Redaction, Wait};
use std::sync::{Arc, Mutex};

/// Takes a patient out of the toy's texts, `[a,b] text`; a text with a question mark is left to a person.
#[derive(Clone)]
struct Act {
    patient: String,
    decided: Option<bool>,
}

fn act() -> Act {
    Act {
        patient: "p1".to_owned(),
        decided: None,
    }
}

impl Erasing for Act {
    fn redact(&self, header: &Header, text: &[u8]) -> Redaction {
        assert_eq!(header.kind, Kind::Version);
        let text = std::str::from_utf8(text).unwrap();
        let (ids, rest) = text.strip_prefix('[').and_then(|t| t.split_once(']')).unwrap();
        match (self.decided, rest.contains('?')) {
            (None, true) => Redaction::Undecided("a person must look".to_owned()),
            (Some(false), _) => Redaction::Goes,
            _ => {
                let ids: Vec<&str> = ids.split(',').filter(|id| *id != self.patient).collect();
                let rest = rest.replace(&self.patient, "somebody");
                Redaction::Stays(Body::compress(format!("[{}]{rest}", ids.join(",")).as_bytes()))
            }
        }
    }

    fn event(&self, copies: &[(u64, Vec<u32>)]) -> Event {
        let parts = copies
            .iter()
            .flat_map(|(rid, slots)| slots.iter().map(|s| (*s, rid.to_be_bytes().to_vec())));
        Event {
            kind: 9,
            actor: b"privacy officer".to_vec(),
            parts: parts.collect(),
        }
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
    let both = put(&ledger, "c", &["p1", "p2"], "of both?");
    let slot = gone[0].slot;
    let read = Event {
        kind: 1,
        actor: b"dr. grey".to_vec(),
        parts: vec![(slot, b"p1 part".to_vec()), (stays.slot, b"p2 part".to_vec())],
    };
    let seq = ledger.log_blocking(read, Wait::Wal).unwrap();
    ledger.snapshot().unwrap();
    let old_snapshot = std::fs::read(clinic.dir().join("snapshot")).unwrap();
    // Read a moment ago: what is kept of that in memory goes as well.
    for known in &gone {
        assert_eq!(ledger.read(known.rid).unwrap().text, b"[p1] secret");
    }

    let erased = ledger.erase("p1", act()).unwrap();
    assert_eq!(erased.slots, [slot]);
    assert_eq!(erased.pending[0].id, "c", "a person decides about what rules cannot");
    assert!(ledger.holds_patient("p1") && ledger.read(both.rid).is_ok());
    assert_eq!((erased.confirmed.len(), erased.unreachable.len()), (2, 0));
    assert_eq!(ledger.erase("p1", act()).unwrap().slots, [0; 0], "it stays pending");
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
    ledger.snapshot().unwrap();
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

/// What the toy's index says of a resource: version, deleted, text.
fn versions(ledger: &ToyLedger, id: &str) -> Vec<(u32, bool, String)> {
    let index = ledger.follower().index();
    let of = index.get(id).into_iter().flatten();
    of.map(|k| (k.version, k.deleted, String::from_utf8_lossy(&k.text).into_owned()))
        .collect()
}

#[test]
fn what_patients_share_is_sealed_again_without_the_erased_one() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    let own = put(&ledger, "own", &["p1"], "secret");
    let two = put(&ledger, "two", &["p1", "p2"], "p1 and another");
    put(&ledger, "two", &["p1", "p2"], "again p1");
    let three = put(&ledger, "three", &["p1", "p2", "p3"], "of three");
    ledger
        .append_blocking(Put::delete("three"))
        .map_err(|e| e.to_string())
        .unwrap();
    let other = put(&ledger, "other", &["p2"], "kept");
    let reach = ledger.erasure_reach("p1", &act()).unwrap();
    assert_eq!(
        (reach.own, reach.redacted, reach.destroyed, reach.pending.len()),
        (1, 2, 0, 0)
    );

    let erased = ledger.erase("p1", act()).unwrap();
    let mut slots = vec![own.slot, two.slot, three.slot];
    slots.sort_unstable();
    let mut destroyed = erased.slots.clone();
    destroyed.sort_unstable();
    assert_eq!(destroyed, slots);
    assert!(erased.pending.is_empty() && !ledger.holds_patient("p1"));

    let check = |ledger: &ToyLedger| {
        for rid in [own.rid, two.rid, two.rid + 1, three.rid, three.rid + 1] {
            assert_eq!(ledger.read(rid).err(), Some(ReadError::Erased(rid)));
        }
        assert_eq!(
            versions(ledger, "two"),
            [
                (1, false, "[p2] somebody and another".to_owned()),
                (2, false, "[p2] again somebody".to_owned())
            ]
        );
        assert_eq!(
            versions(ledger, "three"),
            [(1, false, "[p2,p3] of three".to_owned()), (2, true, String::new())]
        );
        let index = ledger.follower().index();
        assert_eq!(index["two"][0].slot, other.slot, "at home with the one who stays");
        let together = index["three"][0].slot;
        assert!(!slots.contains(&together) && together != other.slot);
        assert_eq!(index["three"][1].slot, together);
        assert_eq!(ledger.patients_of_slot(together), ["p2", "p3"]);
        for known in index.values().flatten() {
            let row = ledger.read(known.rid).unwrap();
            assert_eq!(row.header.version, known.version);
            assert!(!row.text.windows(2).any(|w| w == b"p1"));
        }
        assert_eq!(
            ledger.read(index["two"][1].rid).unwrap().header.prev,
            index["two"][0].rid
        );
        // Those who stay see in their access log who touched what is theirs.
        let seen = ledger.access_log(other.slot, u64::MAX, 10).unwrap();
        assert!(seen.iter().any(|a| a.actor == b"privacy officer"));
        let report = ledger.verify(None).unwrap();
        assert!(report.ok, "{:?}", report.findings);
        assert_eq!(report.erased, 5);
    };
    check(&ledger);
    drop(ledger);
    let ledger = clinic.open(); // from the snapshot
    check(&ledger);
    drop(ledger);
    std::fs::remove_file(clinic.dir().join("snapshot")).unwrap();
    let ledger = clinic.open(); // from the rows
    ledger.snapshot().unwrap();
    check(&ledger);
    let next = put(&ledger, "two", &["p2"], "third");
    assert_eq!(next.version, 3);
    // Another of them is erased later.
    let act = Act {
        patient: "p2".to_owned(),
        decided: Some(false),
    };
    let erased = ledger.erase("p2", act).unwrap();
    assert_eq!((erased.slots.len(), erased.redacted.len()), (2, 0));
    assert!(ledger.follower().index().is_empty());
    assert!(ledger.verify(None).unwrap().ok);
}

#[test]
fn what_rules_cannot_decide_stays_until_a_person_does() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    put(&ledger, "own", &["p1"], "secret");
    let both = put(&ledger, "both", &["p1", "p2"], "p1? p2?");
    put(&ledger, "both", &["p1", "p2"], "clear by now");
    let erased = ledger.erase("p1", act()).unwrap();
    assert_eq!(erased.slots.len(), 1);
    assert_eq!(
        (erased.pending[0].id.as_str(), erased.pending[0].type_code),
        ("both", 7)
    );
    drop(ledger);
    let ledger = clinic.open();
    assert!(ledger.read(both.rid).is_ok() && ledger.holds_patient("p1"));
    let decided = Act {
        decided: Some(true),
        ..act()
    };
    let erased = ledger.erase("p1", decided).unwrap();
    assert_eq!(
        (erased.slots.as_slice(), erased.pending.len()),
        ([both.slot].as_slice(), 0)
    );
    assert_eq!(versions(&ledger, "both")[0].2, "[p2] somebody? p2?");
    assert!(ledger.read(both.rid).is_err() && !ledger.holds_patient("p1"));
    assert!(ledger.verify(None).unwrap().ok);
}

/// The names of all steps, in order; the vault's first and last ones come once for each place.
const STEPS: [&str; 10] = [
    "first-place",
    "places",
    "copied",
    "next-torn",
    "next",
    "switched",
    "copy-switched",
    "first-overwritten",
    "overwritten",
    "announced",
];

#[test]
fn a_crash_at_any_step_of_an_erasure_is_finished_at_the_next_start() {
    let clinic = stepping();
    let ledger = clinic.open();
    let own = put(&ledger, "own", &["p1"], "secret");
    let two = put(&ledger, "two", &["p1", "p2"], "p1 and another");
    put(&ledger, "two", &["p2", "p1"], "p1 again");
    ledger.snapshot().unwrap();
    let images = images(&clinic, || {
        ledger.erase("p1", act()).unwrap();
    });
    assert_eq!(names(&images), STEPS);
    for (step, image) in &images {
        // A snapshot of before, and none at all.
        for rebuilt in [false, true] {
            if rebuilt {
                let _ = std::fs::remove_file(image.dir.join("snapshot"));
            }
            let ledger = clinic.open_with(image).unwrap();
            if matches!(step.as_str(), "first-place" | "places") {
                // Nothing was promised yet.
                assert!(ledger.read(own.rid).is_ok(), "{step}");
                if rebuilt {
                    ledger.erase("p1", act()).unwrap();
                }
            }
            if rebuilt || !matches!(step.as_str(), "first-place" | "places") {
                for rid in [own.rid, two.rid, two.rid + 1] {
                    assert_eq!(ledger.read(rid).err(), Some(ReadError::Erased(rid)), "{step}");
                }
                assert_eq!(
                    versions(&ledger, "two"),
                    [
                        (1, false, "[p2] somebody and another".to_owned()),
                        (2, false, "[p2] somebody again".to_owned())
                    ],
                    "{step}"
                );
                assert!(!ledger.holds_patient("p1"), "{step}");
            }
            let report = ledger.verify(None).unwrap();
            assert!(report.ok, "{step}: {:?}", report.findings);
            let size = ledger.size();
            drop(ledger);
            let ledger = clinic.open_with(image).unwrap();
            assert_eq!(ledger.size(), size, "{step}: finished once");
        }
    }
}

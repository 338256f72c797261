//! What a kill leaves: images of the directory taken inside the writer are opened as if the process had died there.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod common;

use common::*;
use keepwell_ledger::{AppendError, Event, Notice, OpenError, Unavailable, Wait};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn a_kill_at_any_moment_of_a_write_leaves_all_of_it_or_nothing() {
    let clinic = Arc::new(Clinic::new());
    let ledger = clinic.open();
    put(&ledger, "a", &["p1"], "before");
    let before = ledger.follower().index();
    let images = Arc::new(Mutex::new(Vec::new()));
    {
        let (clinic, images, n) = (Arc::clone(&clinic), Arc::clone(&images), AtomicUsize::new(0));
        *ledger.follower().at.lock().unwrap() = Some(Box::new(move |moment| {
            let name = format!("{moment:?}-{}", n.fetch_add(1, Ordering::SeqCst));
            images.lock().unwrap().push((moment, clinic.image(&name)));
        }));
    }
    let change = Put::new("b", &["p2"], &text_of(&["p2"], "after"));
    ledger.append_blocking(change).map_err(|e| e.to_string()).unwrap();
    let after = ledger.follower().index();
    *ledger.follower().at.lock().unwrap() = None;
    let images = std::mem::take(&mut *images.lock().unwrap());
    let moments: Vec<Moment> = images.iter().map(|(m, _)| *m).collect();
    assert_eq!(
        moments,
        [Moment::Decided, Moment::Sealing, Moment::Committed, Moment::Answered]
    );
    for (moment, image) in images {
        let ledger = clinic.open_with(&image).unwrap();
        let kept = !matches!(moment, Moment::Decided | Moment::Sealing);
        assert_eq!(
            ledger.follower().index(),
            if kept { after.clone() } else { before.clone() },
            "{moment:?}"
        );
        assert!(ledger.verify(None).unwrap().ok, "{moment:?}");
        // The log goes on from there; nobody's slot is taken twice.
        let c = put(&ledger, "c", &["p3"], "on");
        assert!(
            ledger
                .follower()
                .index()
                .values()
                .flatten()
                .filter(|k| k.slot == c.slot)
                .count()
                == 1
        );
        assert!(ledger.verify(None).unwrap().ok, "{moment:?}");
    }
}

#[test]
fn every_acknowledged_write_and_entry_survives_kills_under_load() {
    let clinic = Arc::new(Clinic::new());
    let ledger = Arc::new(clinic.open());
    let stop = AtomicUsize::new(0);
    let acknowledged = Mutex::new((Vec::new(), Vec::new()));
    let images = std::thread::scope(|scope| {
        for t in 0..3 {
            let (ledger, stop, acknowledged) = (Arc::clone(&ledger), &stop, &acknowledged);
            scope.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::SeqCst) > 0 {
                        return;
                    }
                    let known = put(&ledger, &format!("{t}-{n}"), &[&format!("p{}", n % 5)], "text");
                    let event = Event {
                        kind: 1,
                        actor: b"read".to_vec(),
                        parts: vec![(known.slot, vec![1])],
                    };
                    let seq = ledger.log_blocking(event, Wait::Wal).unwrap();
                    let mut all = acknowledged.lock().unwrap();
                    all.0.push(known);
                    all.1.push(seq);
                }
            });
        }
        let images: Vec<_> = (0..6)
            .map(|n| {
                while acknowledged.lock().unwrap().0.len() < (n + 1) * 40 {
                    std::thread::yield_now();
                }
                let sure = acknowledged.lock().unwrap().clone();
                (sure, clinic.image(&format!("kill{n}")))
            })
            .collect();
        stop.store(1, Ordering::SeqCst);
        images
    });
    for ((writes, entries), image) in images {
        // The copy is not of one instant; a database and a log that do not fit each other are SQLite's to notice.
        let Ok(ledger) = clinic.open_with(&image) else { continue };
        for known in writes {
            assert_eq!(ledger.read(known.rid).unwrap().text, known.text);
        }
        for seq in entries {
            assert_eq!(ledger.event(seq).unwrap().actor, b"read");
        }
        assert!(ledger.verify(None).unwrap().ok);
    }
}

#[test]
fn a_failed_commit_keeps_nothing_and_says_so() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    put(&ledger, "a", &["p1"], "x");
    let before = ledger.follower().index();
    // A row whose slot does not exist cannot be sealed: the change is not made, others of its group are.
    let bad = keepwell_ledger::Event {
        kind: 1,
        actor: vec![],
        parts: vec![(999_999, vec![])],
    };
    assert!(ledger.log_blocking(bad, Wait::Wal).is_err());
    assert_eq!(ledger.follower().index(), before);
    put(&ledger, "b", &["p2"], "y");
    assert!(ledger.verify(None).unwrap().ok);
}

#[test]
fn a_full_disk_stops_writes_keeps_reads_and_loses_nothing() {
    let clinic = Clinic::new();
    let small = keepwell_ledger::Config {
        max_pages: Some(40),
        ..clinic.config.clone()
    };
    let ledger = clinic.open_with(&small).unwrap();
    let mut kept = Vec::new();
    let refused = loop {
        let text = text_of(
            &["p1"],
            &format!("{} {}", kept.len(), "never the same ".repeat(kept.len())),
        );
        match ledger.append_blocking(Put::new(&format!("r{}", kept.len()), &["p1"], &text)) {
            Ok(known) => kept.push(known),
            Err(AppendError::Unavailable(error)) => break error,
            Err(AppendError::Refused(_)) => panic!("nobody refuses"),
        }
    };
    assert_eq!(refused, Unavailable::DiskFull);
    assert_eq!(ledger.status().stopped, Some(Unavailable::DiskFull));
    assert!(kept.len() > 5);
    assert_eq!(ledger.follower().index().len(), kept.len(), "nothing half-made");
    // Entries may still fit; once they do not, the caller is told and discloses nothing.
    let told = (0..10_000).find_map(|_| {
        ledger
            .log_blocking(
                Event {
                    kind: 1,
                    actor: vec![b'x'; 900],
                    parts: vec![],
                },
                Wait::Fsync,
            )
            .err()
    });
    assert_eq!(told, Some(Unavailable::DiskFull));
    for known in &kept {
        assert_eq!(ledger.read(known.rid).unwrap().text, known.text);
    }
    assert!(ledger.verify(None).unwrap().ok);
    drop(ledger);
    let ledger = clinic.open();
    let more = put(&ledger, "more", &["p2"], "there is room again");
    assert_eq!(ledger.follower().index().len(), kept.len() + 1);
    assert!(ledger.read(more.rid).is_ok() && ledger.verify(None).unwrap().ok);
}

#[test]
fn a_change_that_cannot_be_placed_is_the_only_one_not_made() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    let bad = Put::new(&"x".repeat(300), &["p1"], "x");
    assert!(matches!(
        ledger.append_blocking(bad),
        Err(AppendError::Unavailable(Unavailable::Unplaceable(_)))
    ));
    put(&ledger, "good", &["p1"], "y");
    drop(ledger);
    let ledger = clinic.open();
    assert_eq!(ledger.follower().index().keys().collect::<Vec<_>>(), ["good"]);
    assert!(ledger.verify(None).unwrap().ok);
}

#[test]
fn a_snapshot_that_does_not_fit_is_discarded_with_a_word() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    put(&ledger, "a", &["p1"], "x");
    let early = clinic.image("early");
    put(&ledger, "b", &["p1"], "y");
    ledger.stop();
    let live = ledger.follower().index();
    drop(ledger);
    // A snapshot of a later moment in an earlier log.
    std::fs::copy(clinic.dir().join("snapshot"), early.dir.join("snapshot")).unwrap();
    let ledger = clinic.open_with(&early).unwrap();
    assert!(has(&ledger.take_notices(), |n| matches!(
        n,
        Notice::SnapshotDiscarded(_)
    )));
    assert_eq!(ledger.follower().index().len(), 1);
    // The logs part ways: same length, other content.
    put(&ledger, "z", &["p1"], "other");
    ledger.stop();
    drop(ledger);
    std::fs::copy(clinic.dir().join("snapshot"), early.dir.join("snapshot")).unwrap();
    let ledger = clinic.open_with(&early).unwrap();
    assert!(has(&ledger.take_notices(), |n| matches!(
        n,
        Notice::SnapshotDiscarded(_)
    )));
    assert!(ledger.follower().index().contains_key("z"));
    drop(ledger);
    // A damaged one.
    let path = clinic.dir().join("snapshot");
    let good = std::fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 4;
        std::fs::write(&path, &bad).unwrap();
        let ledger = clinic.open();
        assert!(
            has(&ledger.take_notices(), |n| matches!(n, Notice::SnapshotDiscarded(_))),
            "byte {at}"
        );
        assert_eq!(ledger.follower().index(), live, "byte {at}");
        assert!(
            !ledger.verify(None).unwrap().ok,
            "byte {at}: verify names what the server merely rebuilds"
        );
    }
}

#[test]
fn a_log_cut_back_behind_its_checkpoint_is_refused() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    put(&ledger, "a", &["p1"], "x");
    ledger.stop();
    drop(ledger);
    let early = clinic.image("early");
    let ledger = clinic.open();
    put(&ledger, "b", &["p1"], "y");
    ledger.stop();
    drop(ledger);
    let outside = clinic.base.path().join("outside");
    std::fs::copy(clinic.dir().join("checkpoint"), &outside).unwrap();
    // Only the database rolled back: the checkpoint beside it tells.
    std::fs::copy(early.dir.join("keepwell.db"), clinic.dir().join("keepwell.db")).unwrap();
    assert!(matches!(clinic.try_open(), Err(OpenError::RolledBack { .. })));
    // Everything rolled back: only the outside checkpoint tells.
    let config = keepwell_ledger::Config {
        checkpoint_copy: Some(outside.clone()),
        ..early.clone()
    };
    assert!(matches!(clinic.open_with(&config), Err(OpenError::RolledBack { .. })));
    let key = clinic.key();
    let mut options = keepwell_ledger::verify::Options {
        custodian: Some(&key),
        entropy: Some(Arc::new(Random)),
        era_copies: early.era_copies.clone(),
        ..Default::default()
    };
    let report = keepwell_ledger::verify::verify(&early.dir, &options, &Toy::default()).unwrap();
    assert!(report.ok && !report.checkpoint_compared, "{:?}", report.findings);
    options.checkpoint = Some(&outside);
    let report = keepwell_ledger::verify::verify(&early.dir, &options, &Toy::default()).unwrap();
    assert!(!report.ok && report.checkpoint_compared);
}

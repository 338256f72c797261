//! `verify` compares what is derived from the log with the bodies: snapshots that were put back, removed or altered, and an
//! index that says something else.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use common::*;
use keepwell_ledger::verify::{Options, Report, verify};
use keepwell_ledger::{Config, Notice};
use keepwell_store::{Batch, Durability, Store};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const RECORD: &str = "directory/snapshot";

fn stopped(clinic: &Clinic) -> Report {
    let key = clinic.key();
    let options = Options {
        custodian: Some(&key),
        entropy: Some(Arc::new(Random)),
        era_copies: clinic.config.era_copies.clone(),
        ..Options::default()
    };
    verify(clinic.dir(), &options, &Toy::default()).unwrap()
}

#[track_caller]
fn finds(report: &Report, text: &str) {
    assert!(
        !report.ok && report.findings.iter().any(|f| f.contains(text)),
        "{text}: {report:?}"
    );
}

fn snapshot(clinic: &Clinic) -> PathBuf {
    clinic.dir().join("snapshot")
}

/// A clinic stopped twice with a snapshot each; the first one's bytes.
fn twice_stopped() -> (Clinic, Vec<u8>) {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    put(&ledger, "a", &["p1"], "first");
    ledger.stop();
    drop(ledger);
    let older = std::fs::read(snapshot(&clinic)).unwrap();
    let ledger = clinic.open();
    put(&ledger, "a", &["p1"], "second");
    put(&ledger, "b", &["p1", "p2"], "both");
    ledger.stop();
    (clinic, older)
}

#[test]
fn a_snapshot_put_back_removed_or_altered_is_found_and_made_anew() {
    let (clinic, older) = twice_stopped();
    let good = std::fs::read(snapshot(&clinic)).unwrap();
    let report = stopped(&clinic);
    assert!(
        report.ok && report.snapshot_compared && report.index_digest.is_some(),
        "{report:?}"
    );
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let cases = [
        (Some(older), "an older one"),
        (None, "is gone"),
        (Some(good[..good.len() - 1].to_vec()), "damaged"),
        (Some(flipped), "damaged"),
        (Some(good[..10].to_vec()), "cut off"),
    ];
    for (bytes, text) in cases {
        match bytes {
            Some(bytes) => std::fs::write(snapshot(&clinic), bytes).unwrap(),
            None => std::fs::remove_file(snapshot(&clinic)).unwrap(),
        }
        finds(&stopped(&clinic), text);
        let ledger = clinic.open();
        assert!(has(&ledger.take_notices(), |n| *n == Notice::SnapshotLost), "{text}");
        finds(&ledger.verify(None).unwrap(), text);
        ledger.stop();
        drop(ledger);
        let report = stopped(&clinic);
        assert!(report.ok && report.snapshot_compared, "{text}: {report:?}");
    }
}

#[test]
fn a_crash_between_a_snapshot_and_its_record_is_no_damage() {
    for record in ["none", "older"] {
        let (clinic, _) = twice_stopped();
        let (store, mut writer) = Store::open(clinic.dir(), keepwell_store::Options::default()).unwrap();
        let newest = store.meta(RECORD).unwrap().unwrap();
        let value = match record {
            "none" => Vec::new(),
            // Rows and entries of the moment before.
            _ => {
                let mut value = newest.clone();
                value[23] = 1;
                value[31] -= 4;
                value
            }
        };
        let batch = Batch {
            meta: vec![(RECORD.to_owned(), value)],
            ..Batch::default()
        };
        writer.commit(&batch, Durability::Fsync).unwrap();
        drop((store, writer));
        let report = stopped(&clinic);
        assert!(report.ok && report.snapshot_compared, "{record}: {report:?}");
        // The next start makes up for it.
        let ledger = clinic.open();
        assert!(!has(&ledger.take_notices(), |n| *n == Notice::SnapshotLost));
        assert_eq!(ledger.store().meta(RECORD).unwrap(), Some(newest));
    }
}

#[test]
fn a_backup_does_not_take_the_record_of_the_snapshot() {
    let (clinic, _) = twice_stopped();
    let store = Store::open_read_only(clinic.dir()).unwrap();
    assert!(!store.meta(RECORD).unwrap().unwrap().is_empty());
    let all = store.view().unwrap().all_meta().unwrap();
    assert!(all.iter().any(|(key, _)| key == "origin") && all.iter().all(|(key, _)| key != RECORD));
}

#[test]
fn an_index_that_differs_from_the_bodies_is_found_live_and_in_a_snapshot() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    for n in 0..20 {
        put(&ledger, &format!("r{n}"), &[&format!("p{}", n % 3)], "text");
    }
    let report = ledger.verify(None).unwrap();
    assert!(
        report.ok && report.index_compared && !report.snapshot_compared,
        "{report:?}"
    );
    let digest = report.index_digest;
    ledger.snapshot().unwrap();
    assert!(ledger.verify(None).unwrap().snapshot_compared);
    let truth = ledger.follower().index();

    // One more, one less, another value: each makes the live index another than that of the bodies.
    let wrongs: [fn(&mut Index); 3] = [
        |index| {
            let known = index["r1"].clone();
            index.insert("x".to_owned(), known);
        },
        |index| drop(index.remove("r7")),
        |index| index.get_mut("r9").unwrap()[0].text.push(b'!'),
    ];
    for wrong in wrongs {
        wrong(&mut ledger.follower().index.lock().unwrap());
        let report = ledger.verify(None).unwrap();
        finds(&report, "the index of the running server");
        // The bodies still say what they said.
        assert_eq!(report.index_digest, digest);
        *ledger.follower().index.lock().unwrap() = truth.clone();
    }
    assert!(ledger.verify(None).unwrap().ok);

    ledger.follower().index.lock().unwrap().remove("r7");
    ledger.snapshot().unwrap();
    *ledger.follower().index.lock().unwrap() = truth;
    finds(&ledger.verify(None).unwrap(), "the index of the snapshot");
    ledger.stop();
    drop(ledger);
    let report = stopped(&clinic);
    finds(&report, "the index of the snapshot");
    assert_eq!(report.index_digest, digest);
}

#[test]
fn a_log_that_grows_while_it_is_verified_is_found_well() {
    let clinic = Clinic::new();
    let config = Config {
        snapshot_every: 20,
        ..clinic.config.clone()
    };
    let ledger = clinic.open_with(&config).unwrap();
    put(&ledger, "first", &["p0"], "text");
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (ledger, enough) = (&ledger, &enough);
        for writer in 0..2 {
            scope.spawn(move || {
                for n in 0.. {
                    if enough.load(Ordering::Relaxed) {
                        return;
                    }
                    put(
                        ledger,
                        &format!("{writer}-{}", n % 40),
                        &[&format!("p{}", n % 7)],
                        &"x".repeat(n % 50),
                    );
                }
            });
        }
        let reports: Vec<Report> = (0..20)
            .map(|_| {
                let report = ledger.verify(None).unwrap();
                ledger.snapshot().unwrap();
                report
            })
            .collect();
        // First the writers end: an assertion that fails must not leave them running.
        enough.store(true, Ordering::Relaxed);
        for report in reports {
            assert!(report.ok && report.index_compared, "{report:?}");
        }
    });
    ledger.stop();
    drop(ledger);
    assert!(stopped(&clinic).ok);
}

//! Random damage to every stored file: noticed, harmless, never a panic, and the rest still readable.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod common;

use common::*;
use keepwell_ledger::verify::{Options, verify};
use keepwell_ledger::{Event, OpenError, ReadError, Wait};
use std::sync::Arc;

/// A small generator, so that a failing round can be run again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

/// Flips, overwrites, cuts, repeats or moves bytes.
fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.roll(bytes.len());
    match dice.roll(5) {
        0 | 1 => bytes[at] ^= 1 << dice.roll(8),
        2 => {
            let end = (at + 1 + dice.roll(64)).min(bytes.len());
            bytes[at..end]
                .iter_mut()
                .for_each(|b| *b = b.wrapping_add(1 + dice.roll(255) as u8));
        }
        3 => {
            let (a, b) = (
                dice.roll(bytes.len() / 4096 + 1) * 4096,
                dice.roll(bytes.len() / 4096 + 1) * 4096,
            );
            for i in 0..4096 {
                if a + i < bytes.len() && b + i < bytes.len() {
                    bytes.swap(a + i, b + i);
                }
            }
        }
        _ => bytes.truncate(at),
    }
}

#[test]
fn random_damage_to_any_file_is_noticed_or_harmless() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    for n in 0..30 {
        let known = put(
            &ledger,
            &format!("r{n}"),
            &[&format!("p{}", n % 6)],
            &"text ".repeat(n * 20),
        );
        let event = Event {
            kind: 1,
            actor: b"read".to_vec(),
            parts: vec![(known.slot, vec![n as u8])],
        };
        ledger.log_blocking(event, Wait::Fsync).unwrap();
    }
    let truth = ledger.follower().index();
    ledger.stop();
    drop(ledger);
    let good = clinic.image("good");
    let rounds: usize = option_env!("KEEPWELL_MUTATIONS")
        .and_then(|n| n.parse().ok())
        .unwrap_or(60);
    for name in ["keepwell.db", "keyring", "era", "snapshot", "checkpoint"] {
        let (mut noticed, mut harmless) = (0, 0);
        for round in 0..rounds {
            let dir = clinic.base.path().join("bad");
            let _ = std::fs::remove_dir_all(&dir);
            copy_dir(&good.dir, &dir);
            let mut bytes = std::fs::read(dir.join(name)).unwrap();
            let before = bytes.clone();
            mutate(&mut bytes, &mut Dice(round as u64 * 7919 + name.len() as u64));
            if bytes == before {
                continue;
            }
            std::fs::write(dir.join(name), &bytes).unwrap();
            let era = clinic.base.path().join("bad-era");
            std::fs::copy(&good.era_copies[0], &era).unwrap();
            let config = keepwell_ledger::Config {
                dir: dir.clone(),
                era_copies: vec![era.clone()],
                ..good.clone()
            };
            let key = clinic.key();
            let options = Options {
                custodian: Some(&key),
                entropy: Some(Arc::new(Random)),
                era_copies: vec![era.clone()],
                ..Options::default()
            };
            // `verify` must not repair what it reports, so it looks first.
            let verdict = verify(&dir, &options, &Toy::default()).map(|r| r.ok).unwrap_or(false);
            let same = match clinic.open_with(&config) {
                Err(_) => {
                    assert!(!verdict, "{name} {round}: verify is content with what does not open");
                    false
                }
                Ok(ledger) => {
                    let mut same = true;
                    for (id, versions) in &truth {
                        for known in versions {
                            match ledger.read(known.rid) {
                                Ok(row) => assert_eq!((&row.text, &row.header.id), (&known.text, id)),
                                Err(ReadError::Damaged(_) | ReadError::Missing(_) | ReadError::Store(_)) => {
                                    same = false
                                }
                                Err(other) => panic!("{name} {round}: {other}"),
                            }
                        }
                    }
                    same && ledger.follower().index() == truth
                }
            };
            assert!(
                same || !verdict,
                "{name} {round}: another answer, and verify is content"
            );
            if verdict {
                harmless += 1;
            } else {
                noticed += 1;
            }
        }
        println!("{name}: {noticed} noticed, {harmless} harmless");
        assert!(noticed > 0);
    }
}

#[test]
fn a_damaged_row_is_named_and_the_others_are_served() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    let known: Vec<_> = (0..10)
        .map(|n| put(&ledger, &format!("r{n}"), &["p1"], "some text"))
        .collect();
    ledger.stop();
    let victim = ledger.store().row(known[4].rid).unwrap().unwrap();
    drop(ledger);
    let path = clinic.dir().join("keepwell.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(40).position(|w| w == &victim.body[20..60]).unwrap();
    bytes[at + 10] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    std::fs::remove_file(clinic.dir().join("snapshot")).unwrap();
    let ledger = clinic.open();
    assert!(has(&ledger.take_notices(), |n| *n
        == keepwell_ledger::Notice::DamagedRows(1)));
    for k in &known {
        let opened = ledger.read(k.rid);
        if k.rid == victim.rid {
            assert_eq!(opened.err(), Some(ReadError::Damaged(k.rid)));
        } else {
            assert_eq!(opened.unwrap().text, k.text);
        }
    }
    let report = ledger.verify(None).unwrap();
    assert!(
        !report.ok
            && report
                .findings
                .iter()
                .any(|f| f.contains(&format!("row {}", victim.rid)))
    );
}

#[test]
fn without_keys_every_altered_row_event_and_leaf_is_found() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    let known: Vec<_> = (0..5)
        .map(|n| put(&ledger, &format!("r{n}"), &["p1"], "some text"))
        .collect();
    ledger.stop();
    let mut targets: Vec<Vec<u8>> = Vec::new();
    for k in &known {
        let row = ledger.store().row(k.rid).unwrap().unwrap();
        targets.extend([row.body.clone(), row.key_ref.to_vec()]);
    }
    for seq in 0..ledger.size() {
        let entry = ledger.store().entry(seq).unwrap().unwrap();
        targets.extend(entry.sealed.into_iter().chain([entry.entry]));
    }
    drop(ledger);
    let path = clinic.dir().join("keepwell.db");
    let good = std::fs::read(&path).unwrap();
    assert!(verify(clinic.dir(), &Options::default(), &Toy::default()).unwrap().ok);
    for (n, target) in targets.iter().enumerate() {
        let mut bytes = good.clone();
        let at = bytes.windows(target.len()).position(|w| w == target).unwrap();
        bytes[at + target.len() / 2] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let report = verify(clinic.dir(), &Options::default(), &Toy::default()).unwrap();
        assert!(!report.ok && !report.with_keys, "target {n}");
    }
}

#[test]
fn a_keyring_older_than_the_log_is_told_from_the_right_one() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    put(&ledger, "a", &["p1"], "x");
    ledger.stop();
    drop(ledger);
    let old = std::fs::read(clinic.dir().join("keyring")).unwrap();
    // A clean stop writes the keyring anew; the next commit names its revision.
    clinic.open().stop();
    let ledger = clinic.open();
    put(&ledger, "b", &["p1"], "y");
    drop(ledger);
    std::fs::write(clinic.dir().join("keyring"), old).unwrap();
    assert!(matches!(clinic.try_open(), Err(OpenError::KeyringOlderThanLog)));
}

#[test]
fn rows_moved_or_swapped_do_not_open_elsewhere() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    let a = put(&ledger, "a", &["p1"], "first");
    let b = put(&ledger, "b", &["p1"], "other");
    ledger.stop();
    let (row_a, row_b) = (
        ledger.store().row(a.rid).unwrap().unwrap(),
        ledger.store().row(b.rid).unwrap().unwrap(),
    );
    assert_eq!(row_a.body.len(), row_b.body.len(), "padding makes them alike");
    drop(ledger);
    let path = clinic.dir().join("keepwell.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let find = |bytes: &[u8], body: &[u8]| bytes.windows(body.len()).position(|w| w == body).unwrap();
    let (at_a, at_b) = (find(&bytes, &row_a.body), find(&bytes, &row_b.body));
    bytes[at_a..at_a + row_a.body.len()].copy_from_slice(&row_b.body);
    bytes[at_b..at_b + row_b.body.len()].copy_from_slice(&row_a.body);
    std::fs::write(&path, bytes).unwrap();
    let ledger = clinic.open();
    assert_eq!(ledger.read(a.rid).err(), Some(ReadError::Damaged(a.rid)));
    assert_eq!(ledger.read(b.rid).err(), Some(ReadError::Damaged(b.rid)));
    assert!(!ledger.verify(None).unwrap().ok);
}

#[test]
fn a_wrong_secret_is_told_apart_from_damage() {
    let clinic = Clinic::new();
    let wrong = keepwell_ledger::KeyFile::create(&clinic.base.path().join("wrong"), &Random).unwrap();
    let opened = ToyLedger::open(
        clinic.config.clone(),
        &wrong,
        Arc::new(Toy::default()),
        clinic.clock.clone(),
        Arc::new(Random),
    );
    assert!(matches!(opened.err(), Some(OpenError::WrongPassphrase)));
}

//! Backups of a running store, and restores that refuse anything but the truth (BCK-1, BCK-5, CRY-8).
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "test code")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::leaf::{Leaf, Notice, event_digest, row_digest};
use keepwell_audit::merkle::{Frontier, leaf_hash};
use keepwell_audit::note::{CannotSign, Signer, VerifierKey};
use keepwell_continuity::{
    Backup, BackupOptions, ContinuityError, Progress, RESTORED, RestoreOptions, Restored, backup, export_log, keyring,
    restore, verify_backup,
};
use keepwell_store::{
    Batch, CheckpointRecord, DATABASE, Durability, EntryRecord, Options, RowRecord, Store, StoreError, Writer,
};

const ORIGIN: &str = "keepwell.example/log";

struct TestKey(Ed25519KeyPair);

impl TestKey {
    fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }
}

impl Signer for TestKey {
    fn name(&self) -> &str {
        ORIGIN
    }

    fn public_key(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().unwrap()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], CannotSign> {
        Ok(self.0.sign(message).as_ref().try_into().unwrap())
    }
}

/// A store as the ledger would fill it: a row, its leaf, now and then an event, now and then a checkpoint.
struct Clinic {
    dir: tempfile::TempDir,
    store: Store,
    writer: Writer,
    tree: Frontier,
}

impl Clinic {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, writer) = Store::open(
            dir.path(),
            Options {
                reserve_bytes: 0,
                ..Options::default()
            },
        )
        .unwrap();
        Self {
            dir,
            store,
            writer,
            tree: Frontier::new(),
        }
    }

    fn commit(&mut self, rows: u64) {
        let mut batch = Batch::default();
        for rid in self.writer.last_rid() + 1..=self.writer.last_rid() + rows {
            let row = RowRecord {
                rid,
                key_ref: u128::from(rid).to_be_bytes(),
                body: vec![rid as u8; 20 + rid as usize % 90],
            };
            let digest = row_digest(rid, &row.key_ref, &row.body);
            batch.rows.push(row);
            self.entry(&mut batch, &Leaf::Row { rid, digest }, None);
        }
        let sealed = vec![rows as u8; 150];
        let event = Leaf::Event {
            at: 5,
            kind: 1,
            sealed: event_digest(&sealed),
            commitment: [4; 32],
        };
        self.entry(&mut batch, &event, Some(sealed));
        if self.tree.size().is_multiple_of(3) {
            let note = Checkpoint::new(ORIGIN, self.tree.size(), self.tree.root())
                .sign(&TestKey::new(1))
                .unwrap();
            let frontier = self.tree.to_bytes();
            batch.checkpoint = Some(CheckpointRecord {
                size: self.tree.size(),
                note,
                frontier,
            });
        }
        batch.meta.push(("organisation".to_owned(), b"seventeen".to_vec()));
        self.writer.commit(&batch, Durability::Wal).unwrap();
    }

    fn blank(&mut self, rids: Vec<u64>) {
        let mut batch = Batch {
            blank: rids.clone(),
            ..Batch::default()
        };
        self.entry(
            &mut batch,
            &Leaf::Notice {
                at: 6,
                notice: Notice::Blanked(rids),
            },
            None,
        );
        self.writer.commit(&batch, Durability::Wal).unwrap();
    }

    fn entry(&mut self, batch: &mut Batch, leaf: &Leaf, sealed: Option<Vec<u8>>) {
        let entry = leaf.to_bytes();
        let seq = self.tree.size();
        self.tree.append(leaf_hash(&entry));
        batch.entries.push(EntryRecord { seq, entry, sealed });
    }

    fn back_up(&self, target: &Path) -> Backup {
        let key = TestKey::new(1);
        backup(
            &self.store,
            target,
            &BackupOptions {
                origin: ORIGIN,
                signer: &key,
                retired: &[],
            },
            &mut |_| (),
        )
        .unwrap()
    }
}

fn trusted() -> Vec<VerifierKey> {
    vec![VerifierKey::of(&TestKey::new(1)).unwrap()]
}

fn check(from: &Path) -> Result<Restored, ContinuityError> {
    verify_backup(
        from,
        &RestoreOptions {
            trusted: &trusted(),
            size: None,
        },
        &mut |_| (),
    )
}

fn restore_into(from: &Path, dir: &Path, size: Option<u64>) -> Result<Restored, ContinuityError> {
    restore(
        from,
        dir,
        &RestoreOptions {
            trusted: &trusted(),
            size,
        },
        &mut |_| (),
    )
}

/// Everything in a store, but for what a restore adds.
type Content = (Vec<RowRecord>, Vec<EntryRecord>, Vec<(String, Vec<u8>)>);

fn content(store: &Store) -> Content {
    let view = store.view().unwrap();
    let (mut rows, mut entries) = (Vec::new(), Vec::new());
    view.rows(0..=u64::MAX, |row| {
        rows.push(row.to_record());
        Ok::<_, StoreError>(())
    })
    .unwrap();
    view.entries(0..=u64::MAX, |entry| {
        entries.push(entry.to_record());
        Ok::<_, StoreError>(())
    })
    .unwrap();
    let meta = view
        .all_meta()
        .unwrap()
        .into_iter()
        .filter(|(key, _)| key != RESTORED)
        .collect();
    (rows, entries, meta)
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                out.insert(
                    path.strip_prefix(dir).unwrap().to_owned(),
                    std::fs::read(&path).unwrap(),
                );
            }
        }
    }
    out
}

#[test]
fn a_restored_store_is_the_one_that_was_backed_up() {
    let mut clinic = Clinic::new();
    (1..60).for_each(|n| clinic.commit(n));
    clinic.blank(vec![3, 70, 71]);
    let medium = tempfile::tempdir().unwrap();
    let made = clinic.back_up(medium.path());
    assert_eq!(
        (made.size, made.last_rid),
        (clinic.tree.size(), clinic.writer.last_rid())
    );
    assert_eq!(
        Checkpoint::open(&made.checkpoint, &trusted()).unwrap().root,
        clinic.tree.root()
    );
    let verified = check(medium.path()).unwrap();
    let place = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    let restored = restore(
        medium.path(),
        place.path(),
        &RestoreOptions {
            trusted: &trusted(),
            size: None,
        },
        &mut |p: Progress| seen.push(p.done),
    )
    .unwrap();
    assert_eq!(restored, verified);
    assert_eq!(
        (restored.size, restored.root, restored.blanked),
        (made.size, clinic.tree.root(), 3)
    );
    assert!(seen.is_sorted() && seen.last() == Some(&(made.size + made.last_rid)));
    let names: Vec<PathBuf> = files(place.path()).into_keys().collect();
    assert_eq!(names, [PathBuf::from(DATABASE)]);
    let (again, mut writer) = Store::open(
        place.path(),
        Options {
            reserve_bytes: 0,
            ..Options::default()
        },
    )
    .unwrap();
    assert_eq!(content(&again), content(&clinic.store));
    let mut mark = made.size.to_be_bytes().to_vec();
    mark.extend_from_slice(&clinic.tree.root());
    assert_eq!(again.meta(RESTORED).unwrap(), Some(mark));
    // The log goes on from the restored frontier.
    let newest = again.view().unwrap().last_checkpoint().unwrap().unwrap();
    assert_eq!(Frontier::from_bytes(&newest.frontier).unwrap(), clinic.tree);
    let next = EntryRecord {
        seq: made.size,
        entry: vec![1],
        sealed: None,
    };
    writer
        .commit(
            &Batch {
                entries: vec![next],
                ..Batch::default()
            },
            Durability::Fsync,
        )
        .unwrap();
}

#[test]
fn a_backup_under_write_load_is_one_moment_of_the_store() {
    let mut clinic = Clinic::new();
    (0..20).for_each(|_| clinic.commit(50));
    let (store, stop) = (clinic.store.clone(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let clinic = &mut clinic;
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                clinic.commit(7);
            }
        });
        let key = TestKey::new(1);
        for _ in 0..5 {
            let medium = tempfile::tempdir().unwrap();
            backup(
                &store,
                medium.path(),
                &BackupOptions {
                    origin: ORIGIN,
                    signer: &key,
                    retired: &[],
                },
                &mut |_| (),
            )
            .unwrap();
            // Rows, leaves and root agree, or this would not pass.
            check(medium.path()).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn full_segments_are_cut_once_and_earlier_backups_stay_good() {
    let mut clinic = Clinic::new();
    (0..70).for_each(|_| clinic.commit(1000));
    let medium = tempfile::tempdir().unwrap();
    let first = clinic.back_up(medium.path());
    assert_eq!((first.written, first.kept), (4, 0));
    let before = files(medium.path());
    let first_content = content(&clinic.store);
    clinic.blank(vec![5, 66_000]);
    (0..3).for_each(|_| clinic.commit(1000));
    let second = clinic.back_up(medium.path());
    assert_eq!((second.written, second.kept), (2, 2));
    let after = files(medium.path());
    assert!(
        before.iter().all(|(path, bytes)| after[path] == *bytes),
        "a file was rewritten"
    );
    // Nothing new: nothing is written.
    assert_eq!(clinic.back_up(medium.path()).written, 0);
    assert_eq!(files(medium.path()), after);
    for (size, expected) in [(first.size, first_content), (second.size, content(&clinic.store))] {
        let place = tempfile::tempdir().unwrap();
        restore_into(medium.path(), place.path(), Some(size)).unwrap();
        let store = Store::open_read_only(place.path()).unwrap();
        // The body of row 5 is still in the old segment; the log says it was emptied, so it is not restored.
        assert!(content(&store) == expected);
    }
    let none = restore_into(medium.path(), tempfile::tempdir().unwrap().path(), Some(first.size + 1));
    assert!(matches!(none, Err(ContinuityError::NoBackup)));
}

#[test]
fn one_flipped_byte_anywhere_is_refused() {
    let mut clinic = Clinic::new();
    (1..12).for_each(|n| clinic.commit(n));
    clinic.blank(vec![2]);
    let medium = tempfile::tempdir().unwrap();
    clinic.back_up(medium.path());
    check(medium.path()).unwrap();
    let mut seed = 1_u64;
    let mut dice = |limit: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % limit
    };
    for (name, good) in files(medium.path()) {
        for _ in 0..60 {
            let mut bad = good.clone();
            let at = dice(bad.len());
            bad[at] ^= 1 << dice(8);
            std::fs::write(medium.path().join(&name), &bad).unwrap();
            assert!(check(medium.path()).is_err(), "{} byte {at}", name.display());
            let place = tempfile::tempdir().unwrap();
            restore_into(medium.path(), place.path(), None).unwrap_err();
            assert_eq!(files(place.path()).len(), 0, "a refused restore left something behind");
        }
        for cut in [0, 7, good.len() - 1] {
            std::fs::write(medium.path().join(&name), &good[..cut]).unwrap();
            assert!(check(medium.path()).is_err(), "{} cut to {cut}", name.display());
        }
        std::fs::remove_file(medium.path().join(&name)).unwrap();
        assert!(check(medium.path()).is_err(), "{} is missing", name.display());
        std::fs::write(medium.path().join(&name), &good).unwrap();
    }
    check(medium.path()).unwrap();
}

/// Somebody who may write the medium and has computed every digest anew, but has not the log's key.
#[test]
fn a_forged_backup_is_refused() {
    let mut clinic = Clinic::new();
    (1..12).for_each(|n| clinic.commit(n));
    let medium = tempfile::tempdir().unwrap();
    let other = TestKey::new(2);
    backup(
        &clinic.store,
        medium.path(),
        &BackupOptions {
            origin: ORIGIN,
            signer: &other,
            retired: &[],
        },
        &mut |_| (),
    )
    .unwrap();
    assert!(matches!(check(medium.path()), Err(ContinuityError::Note { .. })));
    // Without keys it is whole, and the report says that nobody's signature was checked.
    assert!(
        !verify_backup(medium.path(), &RestoreOptions::default(), &mut |_| ())
            .unwrap()
            .signature_checked
    );
}

/// What the store itself says must agree with its log: a backup of a changed store is refused although its signature is
/// good.
#[test]
fn a_store_that_was_tampered_with_does_not_pass_through_a_backup() {
    let tamper: [fn(&mut Batch); 6] = [
        |batch| batch.rows[1].body[0] ^= 1,
        |batch| batch.rows[1].key_ref[0] ^= 1,
        |batch| drop(batch.rows.remove(1)),
        |batch| {
            batch.rows.push(RowRecord {
                rid: 1000,
                key_ref: [0; 16],
                body: vec![1],
            })
        },
        |batch| batch.entries[0].sealed.as_mut().unwrap()[0] ^= 1,
        |batch| batch.entries[1].sealed = Some(vec![1]),
    ];
    for change in tamper {
        let mut clinic = Clinic::new();
        let mut batch = Batch::default();
        let sealed = vec![9; 50];
        let event = Leaf::Event {
            at: 5,
            kind: 1,
            sealed: event_digest(&sealed),
            commitment: [4; 32],
        };
        clinic.entry(&mut batch, &event, Some(sealed));
        for rid in 1..=3 {
            let row = RowRecord {
                rid,
                key_ref: [1; 16],
                body: vec![5; 10],
            };
            clinic.entry(
                &mut batch,
                &Leaf::Row {
                    rid,
                    digest: row_digest(rid, &row.key_ref, &row.body),
                },
                None,
            );
            batch.rows.push(row);
        }
        change(&mut batch);
        clinic.writer.commit(&batch, Durability::Wal).unwrap();
        let medium = tempfile::tempdir().unwrap();
        clinic.back_up(medium.path());
        assert!(matches!(check(medium.path()), Err(ContinuityError::Damaged { .. })));
    }
    // A body that is gone without an announcement in the log.
    let mut clinic = Clinic::new();
    clinic.commit(5);
    clinic
        .writer
        .commit(
            &Batch {
                blank: vec![2],
                ..Batch::default()
            },
            Durability::Wal,
        )
        .unwrap();
    let medium = tempfile::tempdir().unwrap();
    clinic.back_up(medium.path());
    assert!(check(medium.path()).unwrap_err().to_string().contains("never blanked"));
}

#[test]
fn an_interrupted_backup_or_restore_is_started_again() {
    let mut clinic = Clinic::new();
    (1..12).for_each(|n| clinic.commit(n));
    let medium = tempfile::tempdir().unwrap();
    // A segment cut half, one without a manifest, a manifest being written.
    for (name, bytes) in [
        ("rows/00000000-66.new", "half"),
        ("entries/00000000-5", "no"),
        ("manifests/0000000000000099.new", "x"),
    ] {
        let path = medium.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    assert!(matches!(check(medium.path()), Err(ContinuityError::NoBackup)));
    clinic.back_up(medium.path());
    check(medium.path()).unwrap();
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("restoring")).unwrap();
    std::fs::write(place.path().join("restoring/keepwell.db"), b"half").unwrap();
    restore_into(medium.path(), place.path(), None).unwrap();
    // A folder with a database is nobody's to overwrite.
    assert!(matches!(
        restore_into(medium.path(), place.path(), None),
        Err(ContinuityError::NotEmpty)
    ));
    assert!(matches!(
        restore_into(medium.path(), clinic.dir.path(), None),
        Err(ContinuityError::NotEmpty)
    ));
}

#[test]
fn an_empty_store_is_backed_up_too() {
    let clinic = Clinic::new();
    let medium = tempfile::tempdir().unwrap();
    assert_eq!(clinic.back_up(medium.path()).size, 0);
    let place = tempfile::tempdir().unwrap();
    assert_eq!(
        restore_into(medium.path(), &place.path().join("new"), None)
            .unwrap()
            .rows,
        0
    );
}

#[test]
fn the_keyring_goes_elsewhere() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    std::fs::create_dir(at("backup")).unwrap();
    for bad in ["backup", "backup/keys", "backup/../backup/keys", "."] {
        let refused = keyring::copy(b"keys", &at(bad), &at("backup"));
        assert!(matches!(refused, Err(ContinuityError::SamePlace)), "{bad}");
    }
    assert!(matches!(
        keyring::copy(b"keys", &at("later/keys"), &at("later")),
        Err(ContinuityError::SamePlace)
    ));
    std::os::unix::fs::symlink(at("backup"), at("link")).unwrap();
    assert!(matches!(
        keyring::copy(b"keys", &at("link"), &at("backup")),
        Err(ContinuityError::SamePlace)
    ));
    keyring::copy(b"keys", &at("safe"), &at("backup")).unwrap();
    keyring::copy(b"newer keys", &at("safe"), &at("backup")).unwrap();
    assert_eq!(keyring::read(&at("safe")).unwrap(), b"newer keys");
    assert_eq!(files(&at("safe")).len(), 1);
}

#[test]
fn an_exported_log_verifies_without_the_store() {
    let mut clinic = Clinic::new();
    (1..40).for_each(|n| clinic.commit(n));
    let (place, key) = (tempfile::tempdir().unwrap(), TestKey::new(1));
    let note = export_log(&clinic.store, place.path(), ORIGIN, &key, &mut |_| ()).unwrap();
    let (trusted, outside) = (trusted(), [note]);
    let options = keepwell_audit::export::Options {
        trusted: &trusted,
        outside: &outside,
        ..Default::default()
    };
    let report = keepwell_audit::export::verify_export(place.path(), &options);
    assert_eq!((report.problems.len(), report.root), (0, clinic.tree.root()));
    assert_eq!(report.kinds.rows, clinic.writer.last_rid());
    let again = export_log(&clinic.store, place.path(), ORIGIN, &key, &mut |_| ());
    assert!(matches!(again, Err(ContinuityError::NotEmpty)));
}

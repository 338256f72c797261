//! AUD-5: somebody who may write everything, and separately has also stolen the signing key, changes the log in eight
//! ways, a thousand times each. Every one is found; with the stolen key, against a checkpoint kept outside.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code"
)]

mod common;

use std::path::Path;

use common::{Dice, ORIGIN, TestKey, checkpoint_of, entry, log, write};
use keepwell_audit::export::{Options, Report, verify_export};

/// Entries of the honest log, and how many of them the outside checkpoint knows.
const SIZE: u64 = 300;
const OUTSIDE: u64 = 290;
const ROUNDS: u64 = 1000;

/// How well the attacker covers the traces.
#[derive(Clone, Copy)]
enum Cover {
    /// Only the entries are changed; tiles and checkpoint stay.
    EntriesOnly,
    /// Entries and tiles agree with each other; the checkpoint is the honest one.
    Tiles,
    /// All agrees, signed by a key of the attacker's own under the log's name.
    OwnKey,
    /// All agrees, signed with the log's stolen key.
    StolenKey,
}

const COVERS: [Cover; 4] = [Cover::EntriesOnly, Cover::Tiles, Cover::OwnKey, Cover::StolenKey];

struct Scene {
    honest: Vec<Vec<u8>>,
    key: TestKey,
    note: Vec<u8>,
    outside: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        let (honest, key) = (log(SIZE), TestKey::new(ORIGIN, 1));
        let note = checkpoint_of(&honest).sign(&key).unwrap();
        let outside = checkpoint_of(&honest[..OUTSIDE as usize]).sign(&key).unwrap();
        Self {
            honest,
            key,
            note,
            outside,
        }
    }

    /// Writes the log as the attacker leaves it.
    fn leave(&self, dir: &Path, entries: &[Vec<u8>], cover: Cover) {
        match cover {
            Cover::EntriesOnly => {
                write(dir, entries, &self.key);
                let kept = folder();
                write(kept.path(), &self.honest, &self.key);
                std::fs::remove_dir_all(dir.join("tile/0")).unwrap();
                std::fs::rename(kept.path().join("tile/0"), dir.join("tile/0")).unwrap();
                std::fs::write(dir.join("checkpoint"), &self.note).unwrap();
            }
            Cover::Tiles => {
                write(dir, entries, &self.key);
                std::fs::write(dir.join("checkpoint"), &self.note).unwrap();
            }
            Cover::OwnKey => drop(write(dir, entries, &TestKey::new(ORIGIN, 66))),
            Cover::StolenKey => drop(write(dir, entries, &self.key)),
        }
    }

    fn look(&self, dir: &Path) -> Report {
        self.look_with(dir, std::slice::from_ref(&self.outside))
    }

    fn look_with(&self, dir: &Path, outside: &[Vec<u8>]) -> Report {
        let trusted = [self.key.verifier()];
        verify_export(
            dir,
            &Options {
                trusted: &trusted,
                outside,
                threads: 1,
                progress: None,
            },
        )
    }
}

/// Changes the log a thousand times in one way; each change must differ from the honest log within what the outside
/// checkpoint covers, for what was added after it nobody outside can know.
fn attack(seed: u64, change: impl Fn(&mut Vec<Vec<u8>>, &mut Dice)) {
    let scene = Scene::new();
    let mut dice = Dice(seed);
    let mut unseen = 0;
    for round in 0..ROUNDS {
        let mut entries = scene.honest.clone();
        change(&mut entries, &mut dice);
        assert_ne!(entries, scene.honest);
        let dir = folder();
        let cover = COVERS[round as usize % COVERS.len()];
        scene.leave(dir.path(), &entries, cover);
        unseen += u32::from(scene.look(dir.path()).is_good());
        // The public key is enough against everybody who has not stolen the private one.
        let alone = scene.look_with(dir.path(), &[]);
        assert_eq!(alone.is_good(), matches!(cover, Cover::StolenKey), "round {round}");
    }
    assert_eq!(unseen, 0, "of {ROUNDS} attacks");
}

/// A folder in memory where there is such a place: thousands of small files are written.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn position(dice: &mut Dice) -> usize {
    dice.below(OUTSIDE) as usize
}

#[test]
fn honest_logs_pass_also_longer_ones() {
    let scene = Scene::new();
    for size in [OUTSIDE, SIZE, SIZE + 400] {
        let dir = folder();
        write(dir.path(), &log(size), &scene.key);
        assert_eq!(scene.look(dir.path()).problems, []);
    }
}

#[test]
fn a_changed_entry_is_found() {
    attack(1, |entries, dice| {
        let at = position(dice);
        let byte = dice.below(entries[at].len() as u64) as usize;
        entries[at][byte] ^= 1 << dice.below(8);
    });
}

#[test]
fn an_inserted_entry_is_found() {
    attack(2, |entries, dice| {
        entries.insert(position(dice), entry(1000 + dice.below(1000)))
    });
}

#[test]
fn a_deleted_entry_is_found() {
    attack(3, |entries, dice| drop(entries.remove(position(dice))));
}

#[test]
fn reordered_entries_are_found() {
    attack(4, |entries, dice| {
        let from = dice.below(OUTSIDE - 2) as usize;
        let length = 2 + dice.below(OUTSIDE - 1 - from as u64) as usize;
        entries[from..(from + length).min(OUTSIDE as usize)].rotate_left(1);
    });
}

#[test]
fn swapped_entries_are_found() {
    attack(5, |entries, dice| {
        let one = position(dice);
        let other = (one + 1 + dice.below(OUTSIDE - 1) as usize) % OUTSIDE as usize;
        entries.swap(one, other);
    });
}

#[test]
fn a_truncated_log_is_found() {
    attack(6, |entries, dice| entries.truncate(position(dice)));
}

/// The whole folder as it honestly was once: all in it is genuine, only old.
#[test]
fn a_rolled_back_log_is_found() {
    let scene = Scene::new();
    let mut dice = Dice(7);
    for _ in 0..ROUNDS {
        let dir = folder();
        write(dir.path(), &scene.honest[..position(&mut dice)], &scene.key);
        let report = scene.look(dir.path());
        assert_eq!(report.problems.len(), 1);
        assert!(report.problems[0].what.contains("rolled back"));
        // Without the outside checkpoint nothing would show: the report says that it was not checked.
        let trusted = [scene.key.verifier()];
        let alone = verify_export(
            dir.path(),
            &Options {
                trusted: &trusted,
                ..Options::default()
            },
        );
        assert!(alone.is_good() && alone.outside_checked == 0);
    }
}

/// History of the same length written anew from some entry on, everything signed with the stolen key.
#[test]
fn a_history_signed_again_with_the_stolen_key_is_found() {
    let scene = Scene::new();
    let mut dice = Dice(8);
    for _ in 0..ROUNDS {
        let dir = folder();
        let mut entries = scene.honest.clone();
        let from = position(&mut dice);
        entries[from..]
            .iter_mut()
            .for_each(|e| *e = entry(10_000 + dice.below(10_000)));
        write(dir.path(), &entries, &scene.key);
        let report = scene.look(dir.path());
        assert_eq!(report.problems.len(), 1);
        assert!(report.problems[0].what.contains("history was changed"));
    }
}

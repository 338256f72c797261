//! Killed processes, torn write-ahead logs, damaged files, full and read-only disks.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code"
)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::Mutex;

use keepwell_store::{Alarm, Batch, Durability, EntryRecord, Options, RowRecord, Store, StoreError};

fn options() -> Options {
    Options {
        reserve_bytes: 0,
        ..Options::default()
    }
}

fn row(rid: u64, length: usize) -> RowRecord {
    RowRecord {
        rid,
        key_ref: u128::from(rid).to_be_bytes(),
        body: vec![rid as u8; length],
    }
}

fn entry(seq: u64) -> EntryRecord {
    EntryRecord {
        seq,
        entry: seq.to_be_bytes().to_vec(),
        sealed: None,
    }
}

/// A small generator, so that a failing case can be run again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn every_commit_acknowledged_before_kill_9_is_there_afterwards() {
    let child = example("crash_child");
    let mut dice = Dice(1);
    for round in 0..12 {
        let dir = tempfile::tempdir().unwrap();
        let durability = if round % 2 == 0 { "wal" } else { "fsync" };
        let mut last = 0;
        // The same directory is killed several times: recovery must be recoverable too.
        for _ in 0..3 {
            let mut process = Command::new(&child)
                .arg(dir.path())
                .arg(durability)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
            for _ in 0..1 + dice.below(400) {
                last = lines.next().unwrap().unwrap().parse().unwrap();
            }
            process.kill().unwrap();
            // What it still managed to say was acknowledged too; the very last line may be cut.
            for line in lines.map_while(Result::ok) {
                last = line.parse().ok().filter(|rid| *rid > last).unwrap_or(last);
            }
            process.wait().unwrap();
        }
        let (store, writer) = Store::open(dir.path(), options()).unwrap();
        assert!(
            writer.last_rid() >= last,
            "acknowledged row {last} is lost, {} is the last",
            writer.last_rid()
        );
        for rid in 1..=writer.last_rid() {
            let body = store.row(rid).unwrap().unwrap().body;
            let length = 50 + rid % 3000;
            assert!(body.iter().copied().eq((0..length).map(|i| (rid + i) as u8)));
        }
        assert_eq!(store.view().unwrap().size().unwrap(), writer.last_rid());
        assert_eq!(store.integrity().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_wal_torn_anywhere_gives_a_prefix_of_whole_commits() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut writer) = Store::open(dir.path(), options()).unwrap();
    let mut ends = vec![0];
    let mut dice = Dice(2);
    for _ in 0..60 {
        let (rid, seq) = (writer.last_rid(), writer.size());
        let count = 1 + dice.below(9);
        let rows = (1..=count).map(|i| row(rid + i, 500)).collect();
        let entries = (0..count).map(|i| entry(seq + i)).collect();
        writer
            .commit(
                &Batch {
                    rows,
                    entries,
                    ..Batch::default()
                },
                Durability::Wal,
            )
            .unwrap();
        ends.push(writer.last_rid());
    }
    let database = std::fs::read(dir.path().join("keepwell.db")).unwrap();
    let wal = std::fs::read(dir.path().join("keepwell.db-wal")).unwrap();
    drop((store, writer));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..150 {
        let torn = tempfile::tempdir().unwrap();
        let mut part = wal[..dice.below(wal.len() as u64 + 1) as usize].to_vec();
        // Half of the time the device also wrote nonsense into the last block.
        if dice.below(2) == 0 {
            let from = part.len().saturating_sub(512);
            part[from..].fill(dice.below(256) as u8);
        }
        std::fs::write(torn.path().join("keepwell.db"), &database).unwrap();
        std::fs::write(torn.path().join("keepwell.db-wal"), &part).unwrap();
        match Store::open(torn.path(), options()) {
            Ok((store, writer)) => {
                assert!(
                    ends.contains(&writer.last_rid()),
                    "row {} is inside a commit",
                    writer.last_rid()
                );
                assert_eq!(writer.last_rid(), writer.size());
                assert_eq!(store.integrity().unwrap(), Vec::<String>::new());
                seen.insert(writer.last_rid());
            }
            Err(e) => panic!("{e}"),
        }
    }
    assert!(seen.len() > 20, "the cuts did not hit different commits");
}

#[test]
fn damaged_files_are_reported_and_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut writer) = Store::open(dir.path(), options()).unwrap();
    let rows = (1..=2000).map(|rid| row(rid, 300)).collect();
    let entries = (0..2000).map(entry).collect();
    writer
        .commit(
            &Batch {
                rows,
                entries,
                ..Batch::default()
            },
            Durability::Wal,
        )
        .unwrap();
    writer.close().unwrap();
    drop(store);
    let good = std::fs::read(dir.path().join("keepwell.db")).unwrap();
    let mut dice = Dice(3);
    let (mut reported, mut whole_pages) = (0, 0);
    for round in 0..300 {
        let mut bytes = good.clone();
        let page = dice.below(bytes.len() as u64 / 4096) as usize * 4096;
        match round % 4 {
            // A whole page of noise, of zeros, a truncation, a few flipped bits.
            0 => bytes[page..page + 4096]
                .iter_mut()
                .for_each(|b| *b = dice.below(256) as u8),
            1 => bytes[page..page + 4096].fill(0),
            2 => bytes.truncate(page),
            _ => (0..5).for_each(|_| bytes[page + dice.below(4096) as usize] ^= 1 << dice.below(8)),
        }
        let damaged = tempfile::tempdir().unwrap();
        std::fs::write(damaged.path().join("keepwell.db"), &bytes).unwrap();
        let found = look_at_everything(damaged.path());
        if round % 4 != 3 && page != 0 {
            whole_pages += 1;
            reported += u32::from(found.is_err());
        }
        if let Err(e) = found {
            assert!(matches!(e, StoreError::Corrupt(_) | StoreError::Newer { .. }), "{e:?}");
        }
    }
    assert_eq!(reported, whole_pages, "damage of a whole page went unseen");
}

fn look_at_everything(dir: &Path) -> Result<(), StoreError> {
    let (store, writer) = Store::open(dir, options())?;
    let problems = store.integrity()?;
    let view = store.view()?;
    view.rows(0..=u64::MAX, |_| Ok::<_, StoreError>(()))?;
    view.entries(0..=u64::MAX, |_| Ok::<_, StoreError>(()))?;
    view.last_checkpoint()?;
    view.all_meta()?;
    for rid in 1..=2000 {
        store.row(rid)?;
    }
    drop(view);
    drop(writer);
    if problems.is_empty() {
        Ok(())
    } else {
        Err(StoreError::Corrupt(problems.join("; ")))
    }
}

#[test]
fn a_table_that_is_not_ours_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path(), options()).unwrap());
    let file = dir.path().join("keepwell.db");
    let mut bytes = std::fs::read(&file).unwrap();
    // The schema's own text sits in page 1; another text of equal length is another schema.
    let at = bytes.windows(7).position(|w| w == b"key_ref").unwrap();
    bytes[at..at + 7].copy_from_slice(b"key_rof");
    std::fs::write(&file, &bytes).unwrap();
    assert!(matches!(
        Store::open(dir.path(), options()),
        Err(StoreError::Corrupt(_))
    ));
    std::fs::write(
        &file,
        b"this is not a database, it is a text that is long enough to look at",
    )
    .unwrap();
    assert!(matches!(
        Store::open(dir.path(), options()),
        Err(StoreError::Corrupt(_))
    ));
}

#[test]
fn a_full_database_refuses_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut writer) = Store::open(
        dir.path(),
        Options {
            max_pages: Some(64),
            ..options()
        },
    )
    .unwrap();
    let mut accepted = 0;
    let full = loop {
        match writer.commit(
            &Batch {
                rows: vec![row(accepted + 1, 3000)],
                ..Batch::default()
            },
            Durability::Wal,
        ) {
            Ok(()) => accepted += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(full, StoreError::Full), "{full:?}");
    assert!(accepted > 30);
    assert_eq!(store.view().unwrap().last_rid().unwrap(), accepted);
    assert_eq!(store.integrity().unwrap(), Vec::<String>::new());
}

#[test]
fn on_a_full_disk_writes_stop_first_and_the_log_goes_on_within_the_reserve() {
    let Some(disk) = SmallDisk::mount(24) else {
        return;
    };
    let alarms = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&alarms);
    let options = Options {
        reserve_bytes: 4 << 20,
        alarm: Arc::new(move |alarm| heard.lock().unwrap().push(alarm)),
        ..Options::default()
    };
    let (store, mut writer) = Store::open(&disk.path, options).unwrap();
    let mut rid = 0;
    while let Ok(()) = writer.commit(
        &Batch {
            rows: vec![row(rid + 1, 20_000)],
            ..Batch::default()
        },
        Durability::Fsync,
    ) {
        rid += 1;
    }
    assert!(store.on_reserve());
    assert_eq!(*alarms.lock().unwrap(), [Alarm::ReserveReleased]);
    // Rows are refused, the entries of reads are stored.
    for seq in 0..200 {
        let rows = Batch {
            rows: vec![row(rid + 1, 10)],
            ..Batch::default()
        };
        assert!(matches!(writer.commit(&rows, Durability::Wal), Err(StoreError::Full)));
        writer
            .commit(
                &Batch {
                    entries: vec![entry(seq)],
                    ..Batch::default()
                },
                Durability::Fsync,
            )
            .unwrap();
    }
    assert_eq!(store.row(rid).unwrap(), Some(row(rid, 20_000)));
    // Until the reserve is used up too: then everything is refused, and nothing is lost.
    let mut seq = 200;
    let error = loop {
        let sealed = Some(vec![1; 50_000]);
        match writer.commit(
            &Batch {
                entries: vec![EntryRecord { sealed, ..entry(seq) }],
                ..Batch::default()
            },
            Durability::Wal,
        ) {
            Ok(()) => seq += 1,
            Err(e) => break e,
        }
    };
    assert!(matches!(error, StoreError::Full), "{error:?}");
    assert_eq!(store.view().unwrap().size().unwrap(), seq);
    assert_eq!(store.integrity().unwrap(), Vec::<String>::new());
    // Room again: the reserve comes back, and rows are accepted.
    disk.grow(64);
    store.try_restore_reserve();
    assert!(!store.on_reserve());
    writer
        .commit(
            &Batch {
                rows: vec![row(rid + 1, 10)],
                ..Batch::default()
            },
            Durability::Fsync,
        )
        .unwrap();
    assert_eq!(
        *alarms.lock().unwrap(),
        [Alarm::ReserveReleased, Alarm::ReserveRestored]
    );
    drop((store, writer));
}

#[test]
fn a_read_only_disk_is_read_and_says_that_it_is_read_only() {
    let Some(disk) = SmallDisk::mount(8) else {
        return;
    };
    let (store, mut writer) = Store::open(&disk.path, options()).unwrap();
    writer
        .commit(
            &Batch {
                rows: vec![row(1, 100)],
                ..Batch::default()
            },
            Durability::Wal,
        )
        .unwrap();
    drop((store, writer));
    disk.remount("ro");
    assert!(matches!(Store::open(&disk.path, options()), Err(StoreError::ReadOnly)));
    let store = Store::open_read_only(&disk.path).unwrap();
    assert_eq!(store.row(1).unwrap(), Some(row(1, 100)));
    drop(store);
    disk.remount("rw");
}

/// A small file system of its own, where this process may mount one.
struct SmallDisk {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::create_dir(&path).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&path)
            .output();
        if mounted.is_ok_and(|o| o.status.success()) {
            return Some(Self { path, _dir: dir });
        }
        println!("SKIPPED 1 test of a full or read-only disk: may not mount a tmpfs here");
        None
    }

    fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        assert!(
            Command::new("mount")
                .args(["-o", &option])
                .arg(&self.path)
                .status()
                .unwrap()
                .success()
        );
    }

    fn grow(&self, megabytes: u32) {
        self.remount(&format!("size={megabytes}m"));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// An example of this package, which `cargo test` builds beside the tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples").join(name)
}

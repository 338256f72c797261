//! What the store promises to its users, on a healthy disk.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::sync::atomic::{AtomicBool, Ordering};

use keepwell_store::{
    Batch, CheckpointRecord, DirectoryLock, Durability, EntryRecord, Options, RowRecord, Store, StoreError,
};

fn options() -> Options {
    Options {
        reserve_bytes: 1 << 16,
        ..Options::default()
    }
}

fn row(rid: u64) -> RowRecord {
    RowRecord {
        rid,
        key_ref: [rid as u8; 16],
        body: vec![rid as u8; 300],
    }
}

fn entry(seq: u64) -> EntryRecord {
    EntryRecord {
        seq,
        entry: vec![seq as u8; 42],
        sealed: seq.is_multiple_of(3).then(|| vec![9; 200]),
    }
}

fn batch(rid: u64, seq: u64, count: u64) -> Batch {
    Batch {
        rows: (rid..rid + count).map(row).collect(),
        entries: (seq..seq + count).map(entry).collect(),
        ..Batch::default()
    }
}

#[test]
fn what_was_committed_is_read_back_also_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = CheckpointRecord {
        size: 5,
        note: b"note".to_vec(),
        frontier: b"edge".to_vec(),
    };
    {
        let (store, mut writer) = Store::open(dir.path(), options()).unwrap();
        let mut first = batch(1, 0, 5);
        first.checkpoint = Some(checkpoint.clone());
        first.meta.push(("organisation".to_owned(), vec![1, 2, 3]));
        writer.commit(&first, Durability::Fsync).unwrap();
        assert_eq!(store.row(3).unwrap(), Some(row(3)));
        writer.close().unwrap();
    }
    let (store, writer) = Store::open(dir.path(), options()).unwrap();
    assert_eq!((writer.last_rid(), writer.size()), (5, 5));
    assert_eq!(store.row(5).unwrap(), Some(row(5)));
    assert_eq!(store.row(6).unwrap(), None);
    assert_eq!(store.row(u64::MAX).unwrap(), None);
    store.prefetch([4, 9, 1, 4]).unwrap();
    // Once from the database, once from memory.
    for rid in [4, 9, 1, 4, 2, 2] {
        assert_eq!(store.row(rid).unwrap(), (rid < 9).then(|| row(rid)));
    }
    assert_eq!(store.entry(3).unwrap(), Some(entry(3)));
    assert_eq!(store.entry(5).unwrap(), None);
    assert_eq!(store.meta("organisation").unwrap(), Some(vec![1, 2, 3]));
    assert_eq!(store.meta("other").unwrap(), None);
    let view = store.view().unwrap();
    assert_eq!(view.last_checkpoint().unwrap(), Some(checkpoint));
    assert_eq!(store.integrity().unwrap(), Vec::<String>::new());
}

#[test]
fn numbers_that_do_not_follow_are_refused_and_store_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut writer) = Store::open(dir.path(), options()).unwrap();
    writer.commit(&batch(1, 0, 3), Durability::Wal).unwrap();
    let mut wrong_checkpoint = batch(4, 3, 1);
    wrong_checkpoint.checkpoint = Some(CheckpointRecord {
        size: 3,
        note: vec![],
        frontier: vec![],
    });
    let blank_nothing = Batch {
        rows: vec![row(4)],
        blank: vec![99],
        ..Batch::default()
    };
    let huge = Batch {
        rows: vec![RowRecord {
            rid: u64::MAX,
            ..row(4)
        }],
        ..Batch::default()
    };
    for bad in [
        batch(3, 3, 1),
        batch(4, 2, 1),
        batch(4, 4, 1),
        wrong_checkpoint,
        blank_nothing,
        huge,
    ] {
        assert!(matches!(
            writer.commit(&bad, Durability::Wal),
            Err(StoreError::Sequence)
        ));
        let view = store.view().unwrap();
        assert_eq!((view.last_rid().unwrap(), view.size().unwrap()), (3, 3));
    }
    writer.commit(&batch(4, 3, 1), Durability::Wal).unwrap();
}

#[test]
fn a_view_sees_one_moment_while_the_writer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut writer) = Store::open(dir.path(), options()).unwrap();
    writer.commit(&batch(1, 0, 10), Durability::Wal).unwrap();
    let view = store.view().unwrap();
    writer.commit(&batch(11, 10, 10), Durability::Wal).unwrap();
    let mut seen = Vec::new();
    view.rows(1..=u64::MAX, |r| {
        seen.push(r.rid);
        Ok::<_, StoreError>(())
    })
    .unwrap();
    assert_eq!(seen, (1..=10).collect::<Vec<_>>());
    assert_eq!(view.size().unwrap(), 10);
    drop(view);
    let view = store.view().unwrap();
    let mut seen = 0;
    view.entries(5..=14, |_| {
        seen += 1;
        Ok::<_, StoreError>(())
    })
    .unwrap();
    assert_eq!((seen, view.size().unwrap()), (10, 20));
}

#[test]
fn a_blanked_row_keeps_its_number_and_loses_its_body_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut writer) = Store::open(dir.path(), options()).unwrap();
    let secret = vec![0xA5; 2000];
    let mut first = batch(1, 0, 3);
    first.rows[1].body.clone_from(&secret);
    writer.commit(&first, Durability::Wal).unwrap();
    // Read before: what memory keeps of it must go as well.
    assert_eq!(store.row(2).unwrap().unwrap().body, secret);
    let blank = Batch {
        blank: vec![2],
        entries: vec![entry(3)],
        ..Batch::default()
    };
    writer.commit(&blank, Durability::Fsync).unwrap();
    assert_eq!(store.row(2).unwrap(), Some(RowRecord { body: vec![], ..row(2) }));
    assert_eq!(store.row(3).unwrap(), Some(row(3)));
    drop(store);
    writer.close().unwrap();
    let file = std::fs::read(dir.path().join(keepwell_store::DATABASE)).unwrap();
    assert!(!file.windows(64).any(|w| w == &secret[..64]));
}

#[test]
fn only_the_newest_checkpoints_stay_and_one_frontier() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut writer) = Store::open(dir.path(), options()).unwrap();
    for seq in 0..100 {
        let mut next = Batch {
            entries: vec![entry(seq)],
            ..Batch::default()
        };
        next.checkpoint = Some(CheckpointRecord {
            size: seq + 1,
            note: vec![1],
            frontier: vec![2; 64],
        });
        writer.commit(&next, Durability::Wal).unwrap();
    }
    let newest = store.view().unwrap().last_checkpoint().unwrap().unwrap();
    assert_eq!((newest.size, newest.frontier.len()), (100, 64));
}

#[test]
fn its_files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (_store, mut writer) = Store::open(dir.path(), options()).unwrap();
    writer.commit(&batch(1, 0, 5), Durability::Wal).unwrap();
    let mut files = 0;
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o077,
            0,
            "{:?}",
            entry.file_name()
        );
        files += 1;
    }
    assert_eq!(files, 5);
}

#[test]
fn a_directory_has_one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let (store, writer) = Store::open(dir.path(), options()).unwrap();
    assert!(matches!(
        Store::open(dir.path(), options()),
        Err(StoreError::AlreadyRunning)
    ));
    assert!(matches!(
        DirectoryLock::acquire(dir.path()),
        Err(StoreError::AlreadyRunning)
    ));
    drop((store, writer));
    let lock = DirectoryLock::acquire(dir.path()).unwrap();
    assert!(matches!(
        Store::open(dir.path(), options()),
        Err(StoreError::AlreadyRunning)
    ));
    let held = Options {
        lock: Some(lock),
        ..options()
    };
    Store::open(dir.path(), held).unwrap();
}

#[test]
fn a_clean_close_leaves_no_log_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut writer) = Store::open(dir.path(), options()).unwrap();
    writer.commit(&batch(1, 0, 100), Durability::Wal).unwrap();
    writer.close().unwrap();
    let wal = std::fs::metadata(dir.path().join("keepwell.db-wal")).map_or(0, |m| m.len());
    assert_eq!(wal, 0);
    assert_eq!(store.row(100).unwrap(), Some(row(100)));
}

#[test]
fn opening_for_reading_needs_no_lock_and_a_database() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Store::open_read_only(dir.path()), Err(StoreError::Missing)));
    let (_store, mut writer) = Store::open(dir.path(), options()).unwrap();
    writer.commit(&batch(1, 0, 5), Durability::Wal).unwrap();
    let beside = Store::open_read_only(dir.path()).unwrap();
    assert_eq!(beside.row(5).unwrap(), Some(row(5)));
}

#[test]
fn readers_and_the_writer_together_leave_a_sound_store_and_an_empty_wal() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut writer) = Store::open(dir.path(), options()).unwrap();
    let stop = AtomicBool::new(false);
    let mut longest = 0;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    store.view().unwrap().last_rid().unwrap();
                }
            });
        }
        for i in 0..2_000 {
            let rows = (1..=10)
                .map(|n| RowRecord {
                    body: vec![i as u8; 6000],
                    ..row(i * 10 + n)
                })
                .collect();
            writer
                .commit(
                    &Batch {
                        rows,
                        ..Batch::default()
                    },
                    Durability::Wal,
                )
                .unwrap();
            longest = longest.max(std::fs::metadata(dir.path().join("keepwell.db-wal")).unwrap().len());
        }
        stop.store(true, Ordering::Relaxed);
    });
    // How long the WAL grows depends on how the threads are scheduled: told, not judged.
    println!("120 MB written, the WAL grew to {} MB", longest >> 20);
    assert_eq!(store.integrity().unwrap(), Vec::<String>::new());
    drop(store);
    writer.close().unwrap();
    let left = std::fs::metadata(dir.path().join("keepwell.db-wal")).map_or(0, |m| m.len());
    assert_eq!(left, 0, "a clean stop empties the WAL");
}

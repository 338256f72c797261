//! Writing, reading, listing accesses, starting again.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod common;

use common::*;
use keepwell_ledger::{AppendError, Event, Kind, Notice, OpenError, ReadError, Wait};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

#[test]
fn what_is_written_is_read_back_now_and_after_a_restart() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    let a = put(&ledger, "a", &["p1"], "one");
    let b = put(&ledger, "b", &["p2"], "two");
    let both = put(&ledger, "c", &["p1", "p2"], "three");
    let shared = put(&ledger, "d", &[], "four");
    let again = put(&ledger, "a", &["p1"], "five");
    assert_eq!((again.version, again.slot), (2, a.slot));
    assert_eq!(HashSet::from([0, a.slot, b.slot, both.slot]).len(), 4, "a slot each");
    assert_eq!(shared.slot, 0);
    let gone = ledger.append_blocking(Put::delete("b")).unwrap();
    let check = |ledger: &ToyLedger| {
        let opened = ledger.read(a.rid).unwrap();
        assert_eq!(opened.text, b"[p1] one");
        assert_eq!((opened.slot, opened.header.version, opened.header.prev), (a.slot, 1, 0));
        assert_eq!(ledger.read(again.rid).unwrap().header.prev, a.rid);
        let deleted = ledger.read(gone.rid).unwrap();
        assert_eq!(
            (deleted.header.kind, deleted.text.len(), deleted.slot),
            (Kind::Deleted, 0, b.slot)
        );
        assert_eq!(ledger.slot_of_patient("p1"), Some(a.slot));
        assert_eq!(ledger.patients_of_slot(both.slot), ["p1", "p2"]);
        assert_eq!(ledger.patients_of_slot(0), Vec::<String>::new());
        assert_eq!(ledger.read(99).err(), Some(ReadError::Missing(99)));
        assert_eq!(ledger.visible(), 6);
    };
    check(&ledger);
    let live = ledger.follower().index();
    let accesses: Vec<u64> = ledger
        .access_log(a.slot, u64::MAX, 99)
        .unwrap()
        .iter()
        .map(|a| a.seq)
        .collect();
    drop(ledger); // no snapshot: rebuilt from the rows
    let ledger = clinic.open();
    assert!(has(&ledger.take_notices(), |n| *n == Notice::Rebuilt(6)));
    check(&ledger);
    assert_eq!(ledger.follower().index(), live);
    ledger.stop(); // with a snapshot
    assert!(ledger.append_blocking(Put::delete("a")).is_err());
    drop(ledger);
    let ledger = clinic.open();
    assert_eq!(ledger.take_notices(), []);
    check(&ledger);
    assert_eq!(ledger.follower().index(), live);
    let after: Vec<u64> = ledger
        .access_log(a.slot, u64::MAX, 99)
        .unwrap()
        .iter()
        .map(|a| a.seq)
        .collect();
    assert_eq!(after, accesses);
    put(&ledger, "e", &["p3"], "tail");
    let live = ledger.follower().index();
    drop(ledger);
    let ledger = clinic.open(); // snapshot and a tail
    assert_eq!(ledger.follower().index(), live);
    let fresh = put(&ledger, "f", &["p4"], "x");
    assert!(
        ledger
            .follower()
            .index()
            .values()
            .flatten()
            .filter(|k| k.slot == fresh.slot)
            .count()
            == 1,
        "a new slot"
    );
    assert!(ledger.verify(None).unwrap().ok);
}

#[test]
fn attachments_are_cut_out_and_spliced_back() {
    use base64::Engine as _;
    let clinic = Clinic::new();
    let ledger = clinic.open();
    let scan = base64::engine::general_purpose::STANDARD.encode(
        (0..90_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 9) as u8)
            .collect::<Vec<_>>(),
    );
    let text = format!(r#"{{"photo":"{scan}","pages":["{scan}"]}}"#);
    let photo = put(&ledger, "photo", &["p"], &text);
    let next = put(&ledger, "next", &["p"], "x");
    assert_eq!(next.rid, photo.rid + 3, "two attachments took a rid each");
    assert_eq!(ledger.read(photo.rid).unwrap().text, format!("[p] {text}").into_bytes());
    assert_eq!(ledger.read(photo.rid + 1).unwrap().header.kind, Kind::Blob);
    drop(ledger);
    let ledger = clinic.open();
    assert_eq!(ledger.read(photo.rid).unwrap().text, format!("[p] {text}").into_bytes());
    assert!(ledger.verify(None).unwrap().ok);
}

#[test]
fn refusals_are_in_the_log_before_they_are_told() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    put(&ledger, "a", &["p"], "1");
    let size = ledger.size();
    let refused = ledger.append_blocking(Put::new("a", &["p"], "2").expecting(7));
    assert!(matches!(refused, Err(AppendError::Refused(1))));
    assert_eq!(ledger.size(), size + 1);
    assert_eq!(ledger.event(size).unwrap().actor, b"refused");
    assert_eq!(ledger.visible(), 1);
}

#[test]
fn one_hundred_conditional_writers_make_one_resource() {
    let clinic = Clinic::new();
    let ledger = Arc::new(clinic.open());
    let made: usize = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..100)
            .map(|n| {
                let ledger = Arc::clone(&ledger);
                scope.spawn(move || {
                    let change = Put::new("only", &["p"], &text_of(&["p"], &n.to_string())).expecting(0);
                    usize::from(ledger.append_blocking(change).is_ok())
                })
            })
            .collect();
        tasks.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(made, 1);
    assert_eq!(ledger.follower().index()["only"].len(), 1);
    assert_eq!(
        ledger.size(),
        2 + 1 + 100,
        "a leaf for the row, an event for each request"
    );
}

#[test]
fn an_access_log_shows_each_patient_their_part_and_nobody_elses() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    let a = put(&ledger, "a", &["p1"], "x").slot;
    let b = put(&ledger, "b", &["p2"], "x").slot;
    let event = Event {
        kind: 1,
        actor: b"dr. grey, ward 3".to_vec(),
        parts: vec![(a, b"rows of p1".to_vec()), (b, b"rows of p2".to_vec())],
    };
    let seq = ledger.log_blocking(event, Wait::Wal).unwrap();
    for (slot, part) in [(a, b"rows of p1"), (b, b"rows of p2")] {
        let lines = ledger.access_log(slot, u64::MAX, 10).unwrap();
        assert_eq!(lines.len(), 2, "the write and the read");
        assert_eq!(
            (lines[0].seq, lines[0].kind, lines[0].part.as_slice()),
            (seq, 1, part.as_slice())
        );
        assert_eq!(lines[0].actor, b"dr. grey, ward 3");
        assert_eq!(lines[0].at, keepwell_model::time::Timestamp(1_700_000_000_000));
    }
    assert_eq!(ledger.access_log(a, seq, 10).unwrap().len(), 1, "paging");
    // The same slot twice in one event is sealed under two nonces and shown as one part.
    let twice = Event {
        kind: 1,
        actor: Vec::new(),
        parts: vec![(a, b"ab".to_vec()), (a, b"cd".to_vec())],
    };
    ledger.log_blocking(twice, Wait::Fsync).unwrap();
    assert_eq!(ledger.access_log(a, u64::MAX, 1).unwrap()[0].part, b"abcd");
    assert!(
        ledger
            .log_blocking(
                Event {
                    kind: 1,
                    actor: vec![],
                    parts: vec![(4_000_000, vec![])]
                },
                Wait::Wal
            )
            .is_err()
    );
}

#[test]
fn any_entry_can_be_proven_to_an_outsider() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    for n in 0..9 {
        put(&ledger, &format!("r{n}"), &["p"], "x");
    }
    let key = keepwell_audit::note::VerifierKey::parse(&ledger.verifier_key()).unwrap();
    for seq in 0..ledger.size() {
        let file = ledger.proof(seq).unwrap();
        let proven = keepwell_audit::proof_file::verify(&file, None, std::slice::from_ref(&key)).unwrap();
        assert_eq!(
            (proven.index, proven.entry),
            (seq, ledger.store().entry(seq).unwrap().unwrap().entry)
        );
        assert_eq!(proven.checkpoint.origin, "test.example/log");
    }
    assert!(ledger.proof(ledger.size()).is_err());
}

#[test]
fn entries_are_proven_and_events_found_after_any_way_of_starting() {
    let clinic = Clinic::new();
    let check = |ledger: &ToyLedger, way: &str| {
        let all: Vec<u64> = (0..ledger.size()).collect();
        assert!(ledger.prove(&all).unwrap().iter().all(|proven| *proven), "{way}");
        assert_eq!(ledger.prove(&[ledger.size()]).unwrap(), [false]);
        for rid in 1..=ledger.visible() {
            // Each row is written by a request of its own: the event is the entry after the row's leaf.
            let event = ledger.event_of_row(rid).unwrap();
            let leaf = ledger.store().entry(event.seq - 1).unwrap().unwrap().entry;
            let keepwell_audit::leaf::Leaf::Row { rid: before, .. } =
                keepwell_audit::leaf::Leaf::from_bytes(&leaf).unwrap()
            else {
                panic!("{way}: entry {} is no row", event.seq - 1)
            };
            assert_eq!(before, rid, "{way}");
        }
        assert_eq!(
            ledger.event_of_row(ledger.visible() + 1).err(),
            Some(ReadError::Missing(ledger.visible() + 1))
        );
    };
    let ledger = clinic.open();
    (0..200).for_each(|n| drop(put(&ledger, &format!("a{n}"), &["p"], "x")));
    check(&ledger, "as it was written");
    drop(ledger);
    let ledger = clinic.open();
    check(&ledger, "rebuilt");
    ledger.stop();
    drop(ledger);
    let ledger = clinic.open();
    check(&ledger, "from the snapshot");
    (0..200).for_each(|n| drop(put(&ledger, &format!("b{n}"), &["p"], "x")));
    check(&ledger, "snapshot and more");
    drop(ledger);
    check(&clinic.open(), "snapshot and a tail");
}

/// The worst access log there is: each line in another group of 256 entries. `KEEPWELL_LINES=1000` is the longest page.
#[test]
fn an_access_log_scattered_over_the_whole_log_is_proven() {
    let lines: u64 = std::env::var_os("KEEPWELL_LINES").map_or(12, |n| n.to_str().unwrap().parse().unwrap());
    let clinic = Clinic::new();
    let ledger = clinic.open();
    put(&ledger, "a", &["a"], "x");
    put(&ledger, "b", &["b"], "x");
    let (a, b) = (
        ledger.slot_of_patient("a").unwrap(),
        ledger.slot_of_patient("b").unwrap(),
    );
    let log = |slot: u32| {
        let event = Event {
            kind: 1,
            actor: vec![b'x'; 60],
            parts: vec![(slot, vec![b'y'; 16])],
        };
        ledger.log_blocking(event, Wait::Wal).unwrap()
    };
    let mut seqs = Vec::new();
    for n in 0..lines {
        std::thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| {
                    while ledger.size() < n * 256 {
                        log(b);
                    }
                });
            }
        });
        seqs.push(log(a));
    }
    seqs.reverse();
    let tiles: std::collections::BTreeSet<u64> = seqs.iter().map(|seq| seq / 256).collect();
    assert_eq!(tiles.len() as u64, lines, "each in a tile of its own");
    let began = std::time::Instant::now();
    let proven = ledger.prove(&seqs).unwrap();
    println!(
        "{lines} lines in as many tiles, {} entries: proven in {:?}",
        ledger.size(),
        began.elapsed()
    );
    assert_eq!(proven, vec![true; seqs.len()]);
}

#[test]
fn a_long_event_is_split() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    let slots: Vec<u32> = (0..40)
        .map(|n| put(&ledger, &format!("r{n}"), &[&format!("p{n}")], "x").slot)
        .collect();
    let size = ledger.size();
    let parts = slots.iter().map(|slot| (*slot, vec![7; 5000])).collect();
    ledger
        .log_blocking(
            Event {
                kind: 1,
                actor: b"export".to_vec(),
                parts,
            },
            Wait::Fsync,
        )
        .unwrap();
    assert_eq!(ledger.size() - size, 4);
    for slot in slots {
        let line = &ledger.access_log(slot, u64::MAX, 1).unwrap()[0];
        assert_eq!((line.actor.as_slice(), line.part.len()), (b"export".as_slice(), 5000));
    }
    assert!(ledger.verify(None).unwrap().ok);
}

#[test]
fn an_ordinary_read_event_is_small() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    let slot = put(&ledger, "a", &["p1"], "x").slot;
    let event = Event {
        kind: 1,
        actor: vec![b'x'; 60],
        parts: vec![(slot, vec![b'y'; 16])],
    };
    let seq = ledger.log_blocking(event, Wait::Wal).unwrap();
    let stored = ledger.store().entry(seq).unwrap().unwrap();
    let bytes = stored.entry.len() + stored.sealed.unwrap().len();
    println!("an ordinary read event takes {bytes} bytes");
    assert!(bytes <= 260, "{bytes}");
}

#[test]
fn a_clock_set_back_is_told_and_never_turns_a_resource_around() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    let one = put(&ledger, "a", &["p"], "1");
    clinic.clock.0.fetch_sub(60_000, Ordering::SeqCst);
    let two = put(&ledger, "a", &["p"], "2");
    assert!(two.last_updated >= one.last_updated && two.rid > one.rid);
    assert!(has(&ledger.take_notices(), |n| *n == Notice::ClockSetBack(60_000)));
    drop(ledger);
    clinic.clock.0.fetch_sub(1_000_000, Ordering::SeqCst);
    let ledger = clinic.open();
    assert!(has(&ledger.take_notices(), |n| matches!(n, Notice::ClockSetBack(_))));
    assert!(put(&ledger, "a", &["p"], "3").last_updated >= two.last_updated);
    assert!(ledger.verify(None).unwrap().ok);
}

#[test]
fn notes_open_only_in_their_context_and_here() {
    let (here, there) = (Clinic::new(), Clinic::new());
    let (ledger, other) = (here.open(), there.open());
    let sealed = ledger.seal_note(b"dr. grey, /Patient", b"after row 7").unwrap();
    assert_eq!(
        ledger.open_note(b"dr. grey, /Patient", &sealed).unwrap(),
        b"after row 7"
    );
    assert!(ledger.open_note(b"dr. house, /Patient", &sealed).is_none());
    assert!(other.open_note(b"dr. grey, /Patient", &sealed).is_none());
    for at in 0..sealed.len() {
        let mut bad = sealed.clone();
        bad[at] ^= 1;
        assert!(ledger.open_note(b"dr. grey, /Patient", &bad).is_none(), "{at}");
    }
    assert!(ledger.open_note(b"", &[]).is_none());
    here.clock.0.fetch_add(7_200_000, Ordering::SeqCst);
    ledger.rotate(Arc::new(here.key()), false).unwrap();
    assert!(
        ledger.open_note(b"dr. grey, /Patient", &sealed).is_some(),
        "later and after a rotation"
    );
}

#[test]
fn a_second_process_is_turned_away_and_an_absent_directory_named() {
    let clinic = Clinic::new();
    let ledger = clinic.open();
    assert!(matches!(clinic.try_open(), Err(OpenError::AlreadyRunning)));
    drop(ledger);
    assert!(clinic.try_open().is_ok());
    let nowhere = keepwell_ledger::Config::new(clinic.base.path().join("nowhere"));
    assert!(matches!(clinic.open_with(&nowhere), Err(OpenError::NoData(_))));
    std::fs::rename(clinic.dir().join("keyring"), clinic.base.path().join("k")).unwrap();
    assert!(matches!(clinic.try_open(), Err(OpenError::KeyringMissing(_))));
}

#[test]
fn rotation_goes_on_under_load_and_everything_still_opens() {
    let clinic = Clinic::new();
    let ledger = Arc::new(clinic.open());
    std::thread::scope(|scope| {
        for t in 0..3 {
            let ledger = Arc::clone(&ledger);
            scope.spawn(move || {
                for n in 0..60 {
                    let known = put(&ledger, &format!("{t}-{n}"), &[&format!("p{}", n % 7)], "text");
                    assert!(ledger.read(known.rid).is_ok());
                }
            });
        }
        for _ in 0..3 {
            ledger.rotate(Arc::new(clinic.key()), false).unwrap();
        }
    });
    let last = put(&ledger, "last", &["p1"], "x");
    assert_eq!(ledger.status().key_generations, 4);
    drop(Arc::into_inner(ledger));
    let ledger = clinic.open();
    assert_eq!(ledger.follower().index().len(), 181);
    assert!(ledger.read(last.rid).is_ok());
    assert!(ledger.verify(None).unwrap().ok);
}

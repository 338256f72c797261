//! Proofs and look-ups over logs held in memory, with every entry that is read counted.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::{Entries, Prover, event_of_row};
use crate::tiles::Tiles;
use crate::varint::Reader;
use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::leaf::{Leaf, Notice};
use keepwell_audit::merkle::{Frontier, sha256};
use keepwell_store::StoreError;
use parking_lot::RwLock;
use std::cell::Cell;
use std::ops::RangeInclusive;

#[derive(Default)]
struct Log {
    entries: Vec<Vec<u8>>,
    read: Cell<usize>,
    tree: Frontier,
    tiles: Tiles,
    rids: Vec<u64>,
}

impl Entries for &Log {
    fn each(&self, range: RangeInclusive<u64>, to: &mut dyn FnMut(u64, &[u8])) -> Result<(), StoreError> {
        for seq in range {
            if let Some(entry) = self.entries.get(usize::try_from(seq).unwrap()) {
                self.read.set(self.read.get() + 1);
                to(seq, entry);
            }
        }
        Ok(())
    }
}

impl Log {
    fn add(&mut self, leaf: &Leaf) {
        let entry = leaf.to_bytes();
        self.tiles.append(&mut self.tree, &entry);
        self.entries.push(entry);
    }

    fn row(&mut self) {
        // Numbers jump now and then, as after a restore.
        let rid = self.rids.last().map_or(1, |last| last + 1 + (last % 7));
        let digest = sha256(&[&rid.to_be_bytes()]);
        self.add(&Leaf::Row { rid, digest });
        self.rids.push(rid);
    }

    fn event(&mut self) {
        let sealed = sha256(&[&self.tree.size().to_be_bytes()]);
        let (at, kind, commitment) = (0, 1, sealed);
        self.add(&Leaf::Event {
            at,
            kind,
            sealed,
            commitment,
        });
    }

    /// Writes, many reads in a row, a large transaction, and again, up to `size` entries or a few more.
    fn grown(size: usize) -> Self {
        let mut log = Self::default();
        let public = [7; 32];
        log.add(&Leaf::Notice {
            at: 0,
            notice: Notice::SigningKey { public },
        });
        let mut turn = 0;
        while log.entries.len() < size {
            turn += 1;
            for _ in 0..turn % 5 {
                log.row();
            }
            log.event();
            if turn % 40 == 0 {
                (0..700).for_each(|_| log.event());
            }
            if turn % 60 == 0 {
                (0..900).for_each(|_| log.row());
                log.event();
            }
        }
        log
    }

    fn head(&self) -> Checkpoint {
        Checkpoint::new("test", self.tree.size(), self.tree.root())
    }

    /// The event after a row, found by looking at everything.
    fn by_walking(&self, rid: u64) -> Option<u64> {
        let mut seen = false;
        for (seq, entry) in (0..).zip(&self.entries) {
            match Leaf::from_bytes(entry).unwrap() {
                Leaf::Row { rid: r, .. } if r == rid => seen = true,
                Leaf::Event { .. } if seen => return Some(seq),
                _ => {}
            }
        }
        None
    }

    /// Entries read for one act.
    fn cost<R>(&self, act: impl FnOnce() -> R) -> (R, usize) {
        let before = self.read.get();
        let result = act();
        (result, self.read.get() - before)
    }
}

/// The most entries read for one proof and for one look-up, over samples of the whole log.
fn worst(log: &Log) -> (usize, usize) {
    let tiles = RwLock::new(log.tiles.clone());
    let head = log.head();
    let (mut proof, mut lookup) = (0, 0);
    for n in 0..40 {
        let seq = head.size * n / 40;
        let (proven, read) = log.cost(|| Prover::new(&tiles, &head, log).proves(seq));
        assert!(proven, "entry {seq} of {}", head.size);
        proof = proof.max(read);
        let rid = log.rids[log.rids.len() * n as usize / 40];
        let (found, read) = log.cost(|| event_of_row(&tiles, &log, head.size, rid).unwrap());
        assert_eq!(found, log.by_walking(rid), "row {rid}");
        lookup = lookup.max(read);
    }
    (proof, lookup)
}

#[test]
fn a_proof_and_a_look_up_read_no_more_in_a_log_a_hundred_times_as_long() {
    let short = Log::grown(2_000);
    let long = Log::grown(100 * short.entries.len());
    for log in [&short, &long] {
        let (proof, lookup) = worst(log);
        println!(
            "{} entries: {proof} read for a proof, {lookup} for a look-up",
            log.entries.len()
        );
        // Two tiles of 256 each.
        assert!(proof <= 512 && lookup <= 512, "{proof} {lookup}");
    }
}

#[test]
fn proofs_and_look_ups_hold_at_every_size() {
    let mut log = Log::default();
    for n in 0..600 {
        if n % 3 == 0 {
            log.event();
        } else {
            log.row();
        }
        let head = log.head();
        let tiles = RwLock::new(log.tiles.clone());
        let prover = Prover::new(&tiles, &head, &log);
        for seq in [0, n / 2, n] {
            assert!(prover.proves(seq), "{seq} of {n}");
        }
        assert!(!prover.proves(n + 1));
        for rid in [log.rids.first(), log.rids.last()].into_iter().flatten() {
            let found = event_of_row(&tiles, &&log, head.size, *rid).unwrap();
            assert_eq!(found, log.by_walking(*rid), "row {rid} of {n}");
        }
        assert_eq!(event_of_row(&tiles, &&log, head.size, u64::MAX).unwrap(), None);
    }
}

/// The worst access log: each of its lines is in another tile, and they come in no order.
#[test]
fn many_proofs_read_each_tile_once() {
    let log = Log::grown(100_000);
    let tiles = RwLock::new(log.tiles.clone());
    let head = log.head();
    let full = head.size / 256;
    // Newest first, then in a scattered order (97 has no divisor in common with the number of tiles).
    assert!(!full.is_multiple_of(97));
    let scattered: Vec<u64> = (0..full).map(|n| n * 97 % full * 256 + n % 256).collect();
    let newest_first: Vec<u64> = (0..full).rev().map(|n| n * 256 + n % 256).collect();
    for entries in [newest_first, scattered] {
        let (proven, read) = log.cost(|| Prover::new(&tiles, &head, &log).proves_each(&entries));
        assert_eq!(proven, vec![true; entries.len()]);
        println!("{} entries of as many tiles: {read} read", entries.len());
        assert!(read as u64 <= head.size, "{read} of {}", head.size);
    }
    // The answers are in the order of the questions.
    let beyond = head.size + 5;
    let proven = Prover::new(&tiles, &head, &log).proves_each(&[beyond, 3, beyond, 700]);
    assert_eq!(proven, [false, true, false, true]);
}

#[test]
fn an_altered_entry_is_not_proven_and_others_are() {
    let mut log = Log::grown(5_000);
    let head = log.head();
    log.entries[1000][20] ^= 1;
    let tiles = RwLock::new(log.tiles.clone());
    let prover = Prover::new(&tiles, &head, &log);
    assert!(!prover.proves(1000));
    // Its neighbours' paths lead over it; those of other tiles over the root of its tile.
    assert!(!prover.proves(1001));
    assert!(prover.proves(10) && prover.proves(head.size - 1));
    log.entries.swap(300, 1500);
    let prover = Prover::new(&tiles, &head, &log);
    assert!(!prover.proves(300) && !prover.proves(1500));
    assert!(prover.proves(10) && prover.proves(2000));
    // The unfinished tile is part of every path.
    log.entries.pop();
    assert!(!Prover::new(&tiles, &head, &log).proves(10));
}

#[test]
fn tiles_that_are_wrong_prove_nothing() {
    let log = Log::grown(5_000);
    let other = Log::grown(4_000);
    let tiles = RwLock::new(other.tiles.clone());
    let mut head = log.head();
    assert!(
        Prover::new(&tiles, &head, &log).proves(10),
        "a shorter log's tiles are the same as far as they go"
    );
    head.root[0] ^= 1;
    assert!(
        (0..head.size)
            .step_by(97)
            .all(|seq| !Prover::new(&tiles, &head, &log).proves(seq))
    );
    assert!(
        Prover::new(&tiles, &log.head(), &log)
            .file(log.head().size, b"")
            .is_err()
    );
}

#[test]
fn tiles_come_back_from_their_dump() {
    for size in [1, 255, 256, 257, 3_000] {
        let log = Log::grown(size);
        let mut dump = Vec::new();
        log.tiles.dump(&mut dump);
        let read = |bytes: &[u8]| {
            let mut r = Reader(bytes);
            Tiles::load(&mut r, log.tree.size()).filter(|_| r.0.is_empty())
        };
        assert_eq!(read(&dump).as_ref(), Some(&log.tiles));
        assert!((0..dump.len()).all(|cut| read(&dump[..cut]).is_none()));
        assert_eq!(Tiles::load(&mut Reader(&dump), log.tree.size() + 256), None);
    }
}

//! Measures the store on this machine: commits by size and durability, reads by row number, with an fdatasync probe.
//! Usage: `cargo run --release -p keepwell-store --example measure -- DIR` (an empty folder on the disk in question).

#![allow(clippy::print_stdout, reason = "a program that prints its measurements")]

use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use keepwell_store::{Batch, Durability, EntryRecord, Options, RowRecord, Store, StoreError};

const ROUND: Duration = Duration::from_secs(2);

fn main() -> Result<(), StoreError> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let dir = Path::new(&dir);
    probe(dir)?;
    let (store, mut writer) = Store::open(
        dir,
        Options {
            reserve_bytes: 0,
            ..Options::default()
        },
    )?;
    for durability in [Durability::Fsync, Durability::Wal] {
        for count in [1, 10, 100, 1000] {
            let (start, mut commits, mut worst) = (Instant::now(), 0_u64, Duration::ZERO);
            while start.elapsed() < ROUND {
                let batch = batch(writer.last_rid(), writer.size(), count);
                let one = Instant::now();
                writer.commit(&batch, durability)?;
                worst = worst.max(one.elapsed());
                commits += 1;
            }
            let rate = (commits * count) as f64 / start.elapsed().as_secs_f64();
            println!("commit {durability:?} of {count:>4} rows: {rate:>9.0} rows/s, longest commit {worst:?}");
        }
    }
    let last = writer.last_rid();
    let (start, before, mut reads, mut rid) = (Instant::now(), cpu_seconds(), 0_u64, 1_u64);
    while start.elapsed() < ROUND {
        rid = rid
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        black_box(store.with_row(1 + (rid >> 33) % last, |row| row.body.len())?);
        reads += 1;
    }
    let per_read = |seconds: f64| seconds * 1e6 / reads as f64;
    let (wall, cpu) = (
        per_read(start.elapsed().as_secs_f64()),
        per_read(cpu_seconds() - before),
    );
    println!("read by rid: {wall:.2} µs, {cpu:.2} µs of CPU");
    let (start, before, mut reads) = (Instant::now(), cpu_seconds(), 0_u64);
    while start.elapsed() < ROUND {
        let page: Vec<u64> = (0..50).map(|i| 1 + (reads * 7919 + i * 104_729) % last).collect();
        store.prefetch(page.iter().copied())?;
        for rid in page {
            black_box(store.with_row(rid, |row| row.body.len())?);
        }
        reads += 50;
    }
    let per_read = |seconds: f64| seconds * 1e6 / reads as f64;
    let (wall, cpu) = (
        per_read(start.elapsed().as_secs_f64()),
        per_read(cpu_seconds() - before),
    );
    println!("read in pages of 50: {wall:.2} µs a row, {cpu:.2} µs of CPU");
    println!(
        "{last} rows, {:.0} bytes each on disk",
        store.disk_bytes()? as f64 / last as f64
    );
    writer.close()
}

/// CPU time of this process, in steps of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(11)
        .take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn batch(rid: u64, seq: u64, count: u64) -> Batch {
    let rows = (1..=count).map(|i| RowRecord {
        rid: rid + i,
        key_ref: [7; 16],
        body: vec![rid as u8; 270],
    });
    let entries = (0..count).map(|i| EntryRecord {
        seq: seq + i,
        entry: vec![1; 42],
        sealed: None,
    });
    Batch {
        rows: rows.collect(),
        entries: entries.collect(),
        ..Batch::default()
    }
}

fn probe(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join("probe");
    let mut file = std::fs::File::create(&path)?;
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < ROUND {
        file.write_all(&[1; 4096])?;
        let one = Instant::now();
        file.sync_data()?;
        times.push(one.elapsed());
    }
    times.sort();
    let at = |p: usize| times.get(times.len() * p / 100).copied().unwrap_or_default();
    println!("fdatasync of 4 KB: median {:?}, p99 {:?}", at(50), at(99));
    Ok(std::fs::remove_file(path)?)
}

//! Commits batches for ever and prints the last row of each once it is acknowledged; `tests/crash.rs` kills it.
//! Usage: `crash_child DIR wal|fsync`.

#![allow(
    clippy::print_stdout,
    reason = "the parent reads what was acknowledged from the standard output"
)]

use std::io::Write as _;
use std::path::Path;

use keepwell_store::{Batch, Durability, EntryRecord, Options, RowRecord, Store, StoreError};

fn main() -> Result<(), StoreError> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().unwrap_or_default();
    let durability = if arguments.next().as_deref() == Some("fsync") {
        Durability::Fsync
    } else {
        Durability::Wal
    };
    let (_, mut writer) = Store::open(
        Path::new(&dir),
        Options {
            reserve_bytes: 0,
            ..Options::default()
        },
    )?;
    let mut out = std::io::stdout().lock();
    loop {
        let count = 1 + writer.last_rid() % 7;
        let rows = (1..=count).map(|i| row(writer.last_rid() + i)).collect();
        let entries = (0..count).map(|i| entry(writer.size() + i)).collect();
        writer.commit(
            &Batch {
                rows,
                entries,
                ..Batch::default()
            },
            durability,
        )?;
        writeln!(out, "{}", writer.last_rid()).map_err(StoreError::Io)?;
    }
}

fn row(rid: u64) -> RowRecord {
    let length = 50 + rid % 3000;
    RowRecord {
        rid,
        key_ref: u128::from(rid).to_be_bytes(),
        body: (0..length).map(|i| (rid + i) as u8).collect(),
    }
}

fn entry(seq: u64) -> EntryRecord {
    EntryRecord {
        seq,
        entry: seq.to_be_bytes().to_vec(),
        sealed: seq.is_multiple_of(2).then(|| vec![seq as u8; 200]),
    }
}

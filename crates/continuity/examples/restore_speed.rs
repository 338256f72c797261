//! Fills a store, backs it up, verifies and restores the backup, and says how long each took (BCK-3: 10^6 rows in
//! 10 minutes on 2 cores). Usage: `cargo run --release -p keepwell-continuity --example restore_speed -- DIR [ROWS]`.

#![allow(clippy::print_stdout, reason = "a program that prints its measurements")]

use std::path::Path;
use std::time::Instant;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use keepwell_audit::leaf::{Leaf, event_digest, row_digest};
use keepwell_audit::note::{CannotSign, Signer, VerifierKey};
use keepwell_continuity::{BackupOptions, ContinuityError, RestoreOptions, backup, restore, verify_backup};
use keepwell_store::{Batch, Durability, EntryRecord, Options, RowRecord, Store};

struct Key(Ed25519KeyPair);

impl Signer for Key {
    fn name(&self) -> &str {
        "measure"
    }

    fn public_key(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().unwrap_or_default()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], CannotSign> {
        self.0.sign(message).as_ref().try_into().map_err(|_| CannotSign)
    }
}

fn main() -> Result<(), ContinuityError> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().unwrap_or_else(|| "restore-speed".to_owned());
    let rows: u64 = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let at = |name: &str| Path::new(&dir).join(name);
    let key = Key(Ed25519KeyPair::from_seed_unchecked(&[1; 32]).map_err(|_| CannotSign)?);
    let trusted: Vec<VerifierKey> = VerifierKey::of(&key).into_iter().collect();
    let check = RestoreOptions {
        trusted: &trusted,
        size: None,
    };

    let data = at("data");
    if let Err(source) = std::fs::create_dir_all(&data) {
        return Err(ContinuityError::Io {
            place: data.display().to_string(),
            source,
        });
    }
    let (store, mut writer) = Store::open(
        &data,
        Options {
            reserve_bytes: 0,
            ..Options::default()
        },
    )?;
    while writer.last_rid() < rows {
        let batch = batch(writer.last_rid(), writer.size(), (rows - writer.last_rid()).min(1000));
        writer.commit(&batch, Durability::Wal)?;
    }
    let start = Instant::now();
    let options = BackupOptions {
        origin: "measure",
        signer: &key,
        retired: &[],
    };
    let made = backup(&store, &at("backup"), &options, &mut |_| ())?;
    println!(
        "{rows} rows, {} entries backed up in {:.1} s",
        made.size,
        start.elapsed().as_secs_f64()
    );
    let start = Instant::now();
    verify_backup(&at("backup"), &check, &mut |_| ())?;
    println!("verified in {:.1} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    restore(&at("backup"), &at("restored"), &check, &mut |_| ())?;
    println!("restored in {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Rows of the size of a sealed Synthea resource, one event to ten of them.
fn batch(rid: u64, seq: u64, count: u64) -> Batch {
    let mut batch = Batch::default();
    let mut add = |leaf: Leaf, sealed| {
        let seq = seq + batch.entries.len() as u64;
        batch.entries.push(EntryRecord {
            seq,
            entry: leaf.to_bytes(),
            sealed,
        });
    };
    for rid in rid + 1..=rid + count {
        let row = RowRecord {
            rid,
            key_ref: u128::from(rid).to_be_bytes(),
            body: vec![rid as u8; 270],
        };
        add(
            Leaf::Row {
                rid,
                digest: row_digest(rid, &row.key_ref, &row.body),
            },
            None,
        );
        if rid.is_multiple_of(10) {
            let sealed = vec![rid as u8; 250];
            let digest = event_digest(&sealed);
            add(
                Leaf::Event {
                    at: 0,
                    kind: 1,
                    sealed: digest,
                    commitment: digest,
                },
                Some(sealed),
            );
        }
        batch.rows.push(row);
    }
    batch
}

//! Writes a log of many entries and measures how long it takes to verify (AUD-7: 10^7 entries in 10 s on 2 cores).
//! Usage: `cargo run --release -p keepwell-audit --example verify_speed -- DIR [ENTRIES]` (DIR empty or new).

#![allow(clippy::print_stdout, reason = "a program that prints its measurements")]

use std::path::Path;
use std::time::Instant;

use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::export::{Options, verify_export};
use keepwell_audit::leaf::Leaf;
use keepwell_audit::merkle::{Frontier, leaf_hash, sha256};
use keepwell_audit::tile::Writer;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().unwrap_or_else(|| "log".to_owned());
    let count: u64 = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(10_000_000);
    let dir = Path::new(&dir);
    let start = Instant::now();
    let (mut writer, mut tree) = (Writer::resume(dir, 0)?, Frontier::new());
    for rid in 0..count {
        let digest = sha256(&[&rid.to_be_bytes()]);
        // Two events a row, about what a clinic writes.
        let leaf = match rid % 3 {
            0 => Leaf::Row { rid, digest },
            _ => Leaf::Event {
                at: 0,
                kind: 1,
                sealed: digest,
                commitment: digest,
            },
        };
        let entry = leaf.to_bytes();
        tree.append(leaf_hash(&entry));
        writer.push(&entry)?;
    }
    // Unsigned: the form of a note with a signature of nobody.
    let text = Checkpoint::new("measure", tree.size(), tree.root()).to_text();
    writer.finish(format!("{text}\n— nobody AAAAAAA=\n").as_bytes())?;
    println!("{count} entries written in {:.1} s", start.elapsed().as_secs_f64());
    for threads in [1, 2] {
        let start = Instant::now();
        let report = verify_export(
            dir,
            &Options {
                threads,
                ..Options::default()
            },
        );
        println!(
            "verified by {threads} threads in {:.2} s, {} problems",
            start.elapsed().as_secs_f64(),
            report.problems.len()
        );
    }
    Ok(())
}

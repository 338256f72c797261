//! Figures of the engine, for `cargo test --release -p keepwell-ledger --test speed -- --ignored --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

mod common;

use common::*;
use keepwell_ledger::{Event, Wait};
use std::sync::Arc;
use std::time::Instant;

fn per_second(n: usize, since: Instant) -> String {
    format!(
        "{:.0}/s ({:.2} us each)",
        n as f64 / since.elapsed().as_secs_f64(),
        since.elapsed().as_secs_f64() * 1e6 / n as f64
    )
}

/// The median of 400 fdatasyncs of 4 KB: what the machine does today.
fn probe(dir: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(dir.join("probe")).unwrap();
    let mut times: Vec<_> = (0..400)
        .map(|_| {
            file.write_all(&[1; 4096]).unwrap();
            let start = Instant::now();
            file.sync_data().unwrap();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("fdatasync 4 KB: median {:?}, p99 {:?}", times[200], times[395]);
}

/// Texts like Synthea's observations, each different.
fn text(n: usize) -> String {
    format!(
        r#"{{"resourceType":"Observation","id":"6ba7b810-9dad-11d1-80b4-{n:012x}","status":"final","category":[{{"coding":[{{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"vital-signs","display":"vital-signs"}}]}}],"code":{{"coding":[{{"system":"http://loinc.org","code":"8302-2","display":"Body Height"}}],"text":"Body Height"}},"subject":{{"reference":"Patient/6ba7b810-9dad-11d1-80b4-{:012x}"}},"encounter":{{"reference":"Encounter/7ba7b810-9dad-11d1-80b4-{:012x}"}},"effectiveDateTime":"2019-03-{:02}T10:{:02}:56-04:00","issued":"2019-03-01T10:44:56.123-04:00","valueQuantity":{{"value":{}.{},"unit":"cm","system":"http://unitsofmeasure.org","code":"cm"}}}}"#,
        n / 368,
        n / 9,
        1 + n % 28,
        n % 60,
        100 + n % 90,
        n * 7919 % 100_000,
    )
}

#[test]
#[ignore = "measures; takes minutes"]
fn figures() {
    let n: usize = option_env!("KEEPWELL_ROWS")
        .and_then(|n| n.parse().ok())
        .unwrap_or(200_000);
    let clinic = Clinic::new();
    probe(clinic.base.path());
    let ledger = Arc::new(clinic.open());

    let start = Instant::now();
    let bodies: usize = (0..20_000)
        .map(|i| keepwell_ledger::Body::compress(text(i).as_bytes()))
        .map(|b| b.blobs())
        .sum();
    println!("compress: {} {bodies}", per_second(20_000, start));

    // Rows by 32 writers.
    let start = Instant::now();
    std::thread::scope(|scope| {
        for t in 0..32 {
            let ledger = Arc::clone(&ledger);
            scope.spawn(move || {
                for i in (t..n).step_by(32) {
                    let patient = format!("p{}", i / 368);
                    let put = Put::new(
                        &format!("6ba7b810-9dad-11d1-80b4-{i:012x}"),
                        &[&patient],
                        &text_of(&[&patient], &text(i)),
                    );
                    assert!(ledger.append_blocking(put).is_ok());
                }
            });
        }
    });
    println!("append, 32 threads, one row a change: {}", per_second(n, start));
    let bytes = ledger.store().disk_bytes().unwrap();
    println!("disk: {} B a row with leaf and event", bytes / n as u64);

    // Reads.
    let start = Instant::now();
    let mut length = 0;
    for i in 0..100_000_u64 {
        length += ledger.read(1 + i * 7919 % n as u64).unwrap().text.len();
    }
    println!(
        "read by rid: {} ({} B a text)",
        per_second(100_000, start),
        length / 100_000
    );

    // Audit entries.
    let slots: Vec<u32> = (0..n / 368)
        .filter_map(|p| ledger.slot_of_patient(&format!("p{p}")))
        .collect();
    for (clients, wait) in [(1, Wait::Wal), (32, Wait::Wal), (32, Wait::Fsync), (128, Wait::Wal)] {
        let before = (ledger.store().disk_bytes().unwrap(), ledger.size());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        let total = 200_000 / if clients == 1 { 10 } else { 1 };
        let start = Instant::now();
        runtime.block_on(async {
            let mut tasks = Vec::new();
            for t in 0..clients {
                let (ledger, slots) = (Arc::clone(&ledger), slots.clone());
                tasks.push(tokio::spawn(async move {
                    for i in (t..total).step_by(clients) {
                        let event = Event {
                            kind: 1,
                            actor: vec![b'x'; 60],
                            parts: vec![(slots[i % slots.len()], vec![b'y'; 16])],
                        };
                        ledger.log(event, wait).await.unwrap();
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
        println!("log, {clients} waiting, {wait:?}: {}", per_second(total, start));
        let after = (ledger.store().disk_bytes().unwrap(), ledger.size());
        println!(
            "  disk: {} B an event",
            after.0.saturating_sub(before.0) / (after.1 - before.1).max(1)
        );
    }

    let start = Instant::now();
    ledger.snapshot().unwrap();
    println!("snapshot: {:?}", start.elapsed());
    drop(Arc::into_inner(ledger));
    let start = Instant::now();
    let ledger = clinic.open();
    println!(
        "start from a snapshot: {:?} {:?}",
        start.elapsed(),
        ledger.take_notices()
    );
    let start = Instant::now();
    let report = ledger.verify(None).unwrap();
    println!("verify: {:?} {}", start.elapsed(), report.ok);
    drop(ledger);
    std::fs::remove_file(clinic.dir().join("snapshot")).unwrap();
    let start = Instant::now();
    let ledger = clinic.open();
    println!("start from the rows: {:?} {:?}", start.elapsed(), ledger.take_notices());
}

/// As many seals under one key as `KEEPWELL_NONCES` says, with random bytes that repeat a thousand times over, as those
/// of cloned machines would.
#[test]
fn no_nonce_is_used_twice_under_a_key() {
    let seals: u64 = std::env::var_os("KEEPWELL_NONCES").map_or(200_000, |n| n.to_str().unwrap().parse().unwrap());
    let clinic = Clinic::new();
    let vault = keepwell_vault::Vault::open(
        keepwell_vault::Paths {
            keyring: clinic.dir().join("keyring"),
            keyring_copy: None,
            era: vec![clinic.dir().join("era")],
            era_min: 1,
        },
        &clinic.key(),
        Arc::new(Random),
    )
    .unwrap()
    .0;
    let key = vault.row_key(vault.allot().unwrap(), 1).unwrap();
    let mut random = [0; 16];
    let mut seen: Vec<[u8; 12]> = (0..seals)
        .map(|number| {
            if number % 1000 == 0 {
                keepwell_model::time::Entropy::fill(&Random, &mut random).unwrap();
            }
            let mut text = *b"the same text";
            let nonce = key.nonce(&random, number, &[&text]);
            let place = keepwell_vault::Place {
                format: *b"test",
                number,
                extra: &[],
            };
            key.seal(place, &nonce, &mut text).unwrap();
            nonce
        })
        .collect();
    seen.sort_unstable();
    assert!(seen.windows(2).all(|w| w[0] != w[1]));
    println!("{seals} seals under one key, no nonce twice");
}

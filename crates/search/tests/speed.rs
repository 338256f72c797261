//! How long extraction takes; run with `cargo test --release -p keepwell-search --test speed -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use keepwell_model::reference::Base;
use keepwell_search::extract::extract;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[test]
#[ignore = "prints times, asserts nothing"]
fn extraction() {
    let Some(shared) = common::shared() else {
        println!("SKIPPED 1 measurement: ../shared is not here");
        return;
    };
    let mut times: BTreeMap<&str, (u32, usize, Duration)> = BTreeMap::new();
    for bundle in &common::lines(&shared.join("data/synthea/small-12.ndjson.zst")) {
        for (t, v) in common::resources(bundle) {
            let _warm = extract(t, &v, &Base::new("here"));
            // The least of several: what the machine does besides is not extraction's.
            let runs = (0..10).map(|_| {
                let start = Instant::now();
                let terms = std::hint::black_box(extract(t, &v, &Base::new("here"))).terms.len();
                (start.elapsed(), terms)
            });
            let (time, terms) = runs.min().unwrap();
            let entry = times.entry(t.name()).or_default();
            entry.0 += 1;
            entry.1 += terms;
            entry.2 += time;
        }
    }
    for (name, (n, terms, time)) in times {
        let each = time.as_nanos() / u128::from(n);
        println!("{name:24} {each:6} ns {:5.1} terms", terms as f64 / f64::from(n));
    }
}

#[test]
#[ignore = "prints times, asserts nothing"]
fn definitions_and_parsing() {
    use keepwell_model::{time::Timestamp, types::ResourceType};
    use keepwell_search::{definition, parse, terminology::Hl7};
    let start = Instant::now();
    let n: usize = ResourceType::all().map(|t| definition::params(t).len()).sum();
    println!("{n} parameters of all types: {} us", start.elapsed().as_micros());
    let base = Base::new("here");
    let options = parse::Options {
        lenient: false,
        now: Timestamp(0),
        base: &base,
        terminology: &Hl7,
    };
    for (t, query) in [
        (
            "Observation",
            "patient=74bbd61f-8017-4274-a156-8e31a96ec0d3&code=http://loinc.org|8302-2",
        ),
        (
            "Observation",
            "patient=Patient/x&date=ge2019&date=lt2020&_sort=-date&_count=50",
        ),
        ("Patient", "name=smith&_has:Observation:patient:code=1"),
    ] {
        let t = ResourceType::from_name(t).unwrap();
        let list = common::pairs(query);
        let times = (0..100).map(|_| {
            let start = Instant::now();
            std::hint::black_box(parse::parse(t, &list, &options)).unwrap();
            start.elapsed()
        });
        println!("{} ns {t}?{query}", times.min().unwrap().as_nanos());
    }
}

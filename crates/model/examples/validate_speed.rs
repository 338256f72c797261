//! Prints how long parsing, validating and finding the home take per Synthea resource:
//! `cargo run --release -p keepwell-model --example validate_speed -- FILE.ndjson.zst`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a tool for developers"
)]

use keepwell_model::home::home;
use keepwell_model::json::{Value, parse};
use keepwell_model::reference::Base;
use keepwell_model::schema::{Mode, validate};
use keepwell_model::types::ResourceType;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

fn main() {
    let file = std::env::args().nth(1).expect("a file of bundles, one a line, zstd");
    let text = zstd::stream::decode_all(std::fs::File::open(file).unwrap()).unwrap();
    let text = String::from_utf8(text).unwrap();
    let start = Instant::now();
    let empty = parse(r#"{"resourceType":"Patient"}"#).unwrap();
    assert!(validate(&empty, Mode::Create).is_empty());
    println!("first use (table loaded, invariants compiled): {:?}", start.elapsed());
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let bundle = parse(line).unwrap();
        for r in bundle
            .get("entry")
            .and_then(Value::items)
            .unwrap_or_default()
            .iter()
            .filter_map(|e| e.get("resource"))
        {
            texts
                .entry(r.get("resourceType").and_then(Value::as_str).unwrap().to_owned())
                .or_default()
                .push(r.to_string());
        }
    }
    println!(
        "{:24} {:>6} {:>7} {:>9} {:>9} {:>9}",
        "type", "n", "bytes", "parse us", "valid us", "home us"
    );
    let mut all = [Duration::ZERO; 3];
    let mut count = 0;
    for (name, list) in &texts {
        let t = ResourceType::from_name(name).unwrap();
        let base = Base::new("clinic.example");
        let mut times = [Duration::ZERO; 3];
        let rounds = 5;
        for _ in 0..rounds {
            let at = Instant::now();
            let values: Vec<_> = list.iter().map(|t| parse(t).unwrap()).collect();
            times[0] += at.elapsed();
            let at = Instant::now();
            for v in &values {
                black_box(validate(v, Mode::Create));
            }
            times[1] += at.elapsed();
            let at = Instant::now();
            for v in &values {
                black_box(home(t, v, &base));
            }
            times[2] += at.elapsed();
        }
        let n = list.len() * rounds;
        let us = |d: Duration| d.as_secs_f64() * 1e6 / n as f64;
        let bytes = list.iter().map(String::len).sum::<usize>() / list.len();
        println!(
            "{name:24} {:6} {bytes:7} {:9.2} {:9.2} {:9.3}",
            list.len(),
            us(times[0]),
            us(times[1]),
            us(times[2])
        );
        for (sum, t) in all.iter_mut().zip(times) {
            *sum += t;
        }
        count += n;
    }
    let us = |d: Duration| d.as_secs_f64() * 1e6 / count as f64;
    println!(
        "{:24} {:6} {:7} {:9.2} {:9.2} {:9.3}",
        "all",
        count / 5,
        "",
        us(all[0]),
        us(all[1]),
        us(all[2])
    );
}

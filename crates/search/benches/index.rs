//! What extraction and the index cost a resource: `cargo bench -p keepwell-search`, over the demo's Synthea patients.
#![allow(clippy::unwrap_used, reason = "a tool for developers")]

#[path = "../tests/common/mod.rs"]
mod common;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use keepwell_model::json::{self, Value};
use keepwell_model::reference::Base;
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_search::extract::extract;
use keepwell_search::index::{Index, Limits, NewRow, RowKind};
use keepwell_search::parse::{Options, parse};
use keepwell_search::terminology::Hl7;
use std::path::Path;
use std::sync::LazyLock;

/// (type, id, text) of the resources.
static RESOURCES: LazyLock<Vec<(ResourceType, String, String)>> = LazyLock::new(|| {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/synthea.ndjson.zst");
    let mut out = Vec::new();
    for bundle in &common::lines(&file) {
        for (t, value) in common::resources(bundle) {
            out.push((t, value.str("id").unwrap_or("x").to_owned(), value.to_string()));
        }
    }
    out
});

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let mut index = Index::new([7; 16]);
    grow(&mut index);
    index
});

fn main() {
    divan::main();
}

fn grow(index: &mut Index) {
    let base = Base::new("here");
    for ((t, id, text), rid) in RESOURCES.iter().zip(1..) {
        let value = json::parse(text).unwrap();
        index.apply(&NewRow {
            rid,
            resource_type: *t,
            id,
            version: 1,
            last_updated: 1_790_000_000_000 + rid as i64,
            kind: RowKind::Version,
            home: 1,
            labels: 0,
            extracted: Some(&extract(*t, &value, &base)),
        });
    }
}

#[divan::bench]
fn extraction(bencher: Bencher<'_, '_>) {
    let base = Base::new("here");
    let values: Vec<(ResourceType, Value<'_>)> = RESOURCES
        .iter()
        .map(|(t, _, text)| (*t, json::parse(text).unwrap()))
        .collect();
    bencher.counter(ItemsCount::new(values.len())).bench(|| {
        for (t, value) in &values {
            black_box(extract(*t, value, &base));
        }
    });
}

#[divan::bench]
fn parse_extract_and_apply(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(RESOURCES.len())).bench(|| {
        let mut index = Index::new([7; 16]);
        grow(&mut index);
        index
    });
}

#[divan::bench(args = [
    "Observation?patient=PATIENT&code=http://loinc.org|8302-2",
    "Observation?patient=PATIENT&date=ge2015-01-01&_sort=-date",
    "Patient?name=a",
    "Encounter?patient=PATIENT&_include=Encounter:patient",
])]
fn search(bencher: Bencher<'_, '_>, url: &str) {
    let patient = RESOURCES
        .iter()
        .find(|(t, _, _)| t.name() == "Patient")
        .map_or("", |(_, id, _)| id);
    let url = url.replace("PATIENT", patient);
    let (name, query) = url.split_once('?').unwrap();
    let t = ResourceType::from_name(name).unwrap();
    let params = common::pairs(query);
    let base = Base::new("here");
    let options = Options {
        lenient: false,
        now: Timestamp(1_790_000_000_000),
        base: &base,
        terminology: &Hl7,
    };
    let limits = Limits {
        page: 50,
        includes: 100,
    };
    bencher.bench_local(|| {
        let query = parse(t, &params, &options).unwrap();
        INDEX.search(&query, u64::MAX, &|_| true, None, limits).matches.len()
    });
}

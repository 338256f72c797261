//! The 576 queries whose answers were computed without a search engine: parsing, extraction and index together.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod common;

use keepwell_model::json;
use keepwell_model::reference::Base;
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_search::extract::extract;
use keepwell_search::index::{Index, Limits, NewRow, RowKind};
use keepwell_search::parse::{Options, parse};
use keepwell_search::terminology::Hl7;
use std::collections::{BTreeMap, HashSet};

fn load(shared: &std::path::Path, bundles: usize) -> (Index, u64) {
    let parts = ["part-00.ndjson.zst", "part-01.ndjson.zst"];
    let folder = shared.join("data/synthea/v2.4-r4-2019");
    let lines: Vec<String> = parts
        .iter()
        .flat_map(|p| common::lines(&folder.join(p)))
        .take(bundles)
        .collect();
    let mut index = Index::new([7; 16]);
    let mut seen = HashSet::new();
    let mut rid = 0;
    for line in &lines {
        for (t, resource) in common::resources(line) {
            let id = resource.str("id").unwrap();
            // Each bundle carries its own copy of practitioners and organisations.
            if !seen.insert((t, id.to_owned())) {
                continue;
            }
            rid += 1;
            let extracted = extract(t, &resource, &Base::new("here"));
            index.apply(&NewRow {
                rid,
                resource_type: t,
                id,
                version: 1,
                last_updated: 0,
                kind: RowKind::Version,
                home: 0,
                labels: 0,
                extracted: Some(&extracted),
            });
        }
    }
    (index, rid)
}

#[test]
fn all_answers_are_right() {
    let Some(shared) = common::shared() else {
        println!("SKIPPED 576 queries: ../shared is not here");
        return;
    };
    let text = std::fs::read_to_string(shared.join("data/search/dataset.json")).unwrap();
    let dataset = json::parse(&text).unwrap();
    let bundles = dataset.get("bundles").unwrap().as_number().unwrap().parse().unwrap();
    let (index, visible) = load(&shared, bundles);
    let counts = dataset.get("resources_after_dedup").unwrap().members().unwrap();
    assert_eq!(
        visible,
        counts
            .iter()
            .map(|(_, n)| n.as_number().unwrap().parse::<u64>().unwrap())
            .sum::<u64>()
    );

    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let cases = common::lines(&shared.join("data/search/cases.ndjson.zst"));
    assert_eq!(cases.len(), 576);
    for case in &cases {
        let case = json::parse(case).unwrap();
        if let Err(why) = answer(&index, visible, &case) {
            let text = format!("{}: {why}", case.str("query").unwrap());
            wrong
                .entry(case.str("kind").unwrap().to_owned())
                .or_default()
                .push(text);
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of 576 wrong: {wrong:#?}",
        wrong.values().map(Vec::len).sum::<usize>()
    );
}

fn answer(index: &Index, visible: u64, case: &json::Value<'_>) -> Result<(), String> {
    let text = case.str("query").unwrap().replace("%2B", "+");
    let (t, rest) = text.split_once('?').unwrap();
    let t = ResourceType::from_name(t).unwrap();
    let list = common::pairs(rest);
    let base = Base::new("here");
    let options = Options {
        lenient: false,
        now: Timestamp(0),
        base: &base,
        terminology: &Hl7,
    };
    let query = parse(t, &list, &options).map_err(|e| format!("{e:?}"))?;

    // Small pages, so that going on after a cursor is tested by the same answers.
    let limits = Limits { page: 300, includes: 0 };
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = index.search(&query, visible, &|_| true, after.as_ref(), limits);
        found.extend(
            page.matches
                .iter()
                .map(|v| index.id_of(v.resource_type, v.rid).unwrap()),
        );
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let total: usize = case.get("total").unwrap().as_number().unwrap().parse().unwrap();
    if found.len() != total {
        return Err(format!("{} instead of {total}", found.len()));
    }
    if case.get("ordered").and_then(json::Value::as_bool) != Some(true) {
        found.sort();
    }
    if sha256(found.join("\n").as_bytes()) != case.str("ids_sha256").unwrap() {
        return Err("other resources".to_owned());
    }
    Ok(())
}

/// FIPS 180-4, only to compare with the keys: this crate links no cryptography.
fn sha256(data: &[u8]) -> String {
    let primes = (2u64..).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0));
    let primes: Vec<u64> = primes.take(64).collect();
    let fraction = |x: f64| ((x - x.floor()) * 4_294_967_296.0) as u32;
    let k: Vec<u32> = primes.iter().map(|p| fraction((*p as f64).cbrt())).collect();
    let mut h: Vec<u32> = primes.iter().take(8).map(|p| fraction((*p as f64).sqrt())).collect();
    let mut padded = data.to_vec();
    padded.push(0x80);
    padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
    padded.extend((data.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks(64) {
        let mut w: Vec<u32> = block
            .chunks(4)
            .map(|b| u32::from_be_bytes(b.try_into().unwrap()))
            .collect();
        for i in 16..64 {
            let s0 = w[i - 15].rotate_right(7) ^ w[i - 15].rotate_right(18) ^ (w[i - 15] >> 3);
            let s1 = w[i - 2].rotate_right(17) ^ w[i - 2].rotate_right(19) ^ (w[i - 2] >> 10);
            w.push(w[i - 16].wrapping_add(s0).wrapping_add(w[i - 7]).wrapping_add(s1));
        }
        let mut v = h.clone();
        for i in 0..64 {
            let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let choice = (v[4] & v[5]) ^ (!v[4] & v[6]);
            let t1 = v[7]
                .wrapping_add(s1)
                .wrapping_add(choice)
                .wrapping_add(k[i])
                .wrapping_add(w[i]);
            let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            v.rotate_right(1);
            v[4] = v[4].wrapping_add(t1);
            v[0] = t1.wrapping_add(s0).wrapping_add(majority);
        }
        h.iter_mut().zip(v).for_each(|(h, v)| *h = h.wrapping_add(v));
    }
    h.iter().map(|n| format!("{n:08x}")).collect()
}

#[test]
fn the_hash_is_sha_256() {
    assert_eq!(
        sha256(b"abc"),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

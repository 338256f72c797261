//! The 576 search queries with answer keys, asked over HTTP of the data they were computed from.
#![allow(
    clippy::print_stdout,
    reason = "skipped cases and seeds are told on stdout, which the test run collects"
)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test program"
)]

mod support;

use std::collections::BTreeMap;
use support::Server;
use support::data;

#[test]
fn every_search_key_is_right() {
    let Some(folder) = data::set("search", 576, "search keys") else {
        return;
    };
    let Some(synthea) = data::set("synthea", 0, "search keys' data") else {
        return;
    };
    let server = Server::empty();
    let mut client = server.client();
    for bundle in data::synthea_puts(&synthea, 50, 500) {
        let answer = client.send("POST", "/fhir", &[], Some(bundle.as_bytes()));
        assert_eq!(
            answer.status,
            200,
            "{}",
            answer.text().chars().take(1000).collect::<String>()
        );
    }
    let dataset: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("dataset.json")).expect("dataset.json")).expect("JSON");
    for (kind, count) in dataset["resources_after_dedup"].as_object().expect("counts") {
        let bundle = client.get(&format!("/fhir/{kind}?_summary=count")).expect(200).json();
        assert_eq!(&bundle["total"], count, "{kind}");
    }
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let cases = data::lines(&folder.join("cases.ndjson.zst"));
    assert_eq!(cases.len(), 576);
    for line in &cases {
        let case: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let query = case["query"].as_str().expect("query");
        if let Err(difference) = asked(&mut client, query, &case) {
            wrong
                .entry(case["kind"].as_str().unwrap_or_default().to_owned())
                .or_default()
                .push(format!("{query}: {difference}"));
        }
    }
    let count: usize = wrong.values().map(Vec::len).sum();
    println!("{} of {} search keys right", cases.len() - count, cases.len());
    assert!(wrong.is_empty(), "{count} wrong: {wrong:#?}");
}

/// Asks one query over all pages and compares with its key.
fn asked(client: &mut support::Client, query: &str, case: &serde_json::Value) -> Result<(), String> {
    let separator = if query.contains('?') { '&' } else { '?' };
    // As written in the case: only blanks cannot stand in a request line.
    let mut path = format!("/fhir/{}{separator}_count=1000", query.replace(' ', "%20"));
    let mut ids = Vec::new();
    loop {
        let answer = client.get(&path);
        if answer.status != 200 {
            return Err(format!(
                "{} {}",
                answer.status,
                answer.text().chars().take(300).collect::<String>()
            ));
        }
        let bundle = answer.json();
        for entry in bundle["entry"].as_array().into_iter().flatten() {
            if entry["search"]["mode"] == "match" {
                ids.push(entry["resource"]["id"].as_str().unwrap_or_default().to_owned());
            }
        }
        match support::link(&bundle, "next") {
            Some(next) => path = next,
            None => break,
        }
    }
    if case["total"] != ids.len() {
        return Err(format!("{} found, {} wanted", ids.len(), case["total"]));
    }
    if let Some(wanted) = case["ids"].as_array() {
        // Without `_sort` a key lists its ids sorted; with it, in the order asked for.
        if case["ordered"] != true {
            ids.sort();
        }
        if wanted
            .iter()
            .map(|id| id.as_str().unwrap_or_default())
            .ne(ids.iter().map(String::as_str))
        {
            return Err("other resources".into());
        }
    }
    Ok(())
}

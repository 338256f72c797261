//! Invalid resources are refused with an OperationOutcome, valid look-alikes are not: the single-defect mutants and the official
//! validator's cases of `fhir-invalid`.
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
use support::data;
use support::{Client, Server};

/// Writes a resource as a client would; whether it was accepted, and what was said.
fn accepted(client: &mut Client, kind: &str, text: &[u8]) -> (bool, String) {
    let answer = client.send("POST", &format!("/fhir/{kind}"), &[], Some(text));
    assert!(answer.status < 500, "{} {}", answer.status, answer.text());
    let ok = answer.status == 201;
    if !ok {
        assert_eq!(
            answer.json()["resourceType"],
            "OperationOutcome",
            "{} {}",
            answer.status,
            answer.text()
        );
    }
    (ok, answer.text())
}

#[test]
fn mutants_are_refused() {
    let Some(folder) = data::set("fhir-invalid", 2267, "mutants") else {
        return;
    };
    let server = Server::empty();
    let mut client = server.client();
    let mutants = data::lines(&folder.join("mutants.ndjson.zst"));
    let mut missed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in &mutants {
        let mutant: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let resource = &mutant["resource"];
        // An unknown type has no endpoint of its own: the nearest thing a client can do is to send it to the old one's.
        let kind = resource["resourceType"]
            .as_str()
            .filter(|kind| kind.chars().all(char::is_alphanumeric))
            .unwrap_or("Patient");
        let id = resource["id"].as_str().unwrap_or_default();
        let path_id: String = id
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c))
            .take(64)
            .collect();
        let put = client.send(
            "PUT",
            &format!("/fhir/{kind}/{}", if path_id.is_empty() { "x" } else { &path_id }),
            &[],
            Some(resource.to_string().as_bytes()),
        );
        assert!(put.status < 500, "{} {}", put.status, put.text());
        if !(400..500).contains(&put.status) {
            let what = format!("{} at {}: {}", mutant["from"], mutant["at"], mutant["why"]);
            missed
                .entry(mutant["kind"].as_str().unwrap_or_default().to_owned())
                .or_default()
                .push(what);
        } else {
            assert_eq!(put.json()["resourceType"], "OperationOutcome");
        }
    }
    let count: usize = missed.values().map(Vec::len).sum();
    println!("{} of {} mutants refused", mutants.len() - count, mutants.len());
    for (kind, cases) in &missed {
        println!("accepted {kind}: {}; first: {}", cases.len(), cases[0]);
    }
    assert!(
        count * 100 <= mutants.len(),
        "{count} of {} mutants were accepted: {missed:#?}",
        mutants.len()
    );
}

#[test]
fn the_validators_cases() {
    let Some(folder) = data::set("fhir-invalid", 42, "validator cases") else {
        return;
    };
    let server = Server::empty();
    let mut client = server.client();
    let files: BTreeMap<String, Vec<u8>> = data::tar_zst(&folder.join("files.tar.zst"))
        .into_iter()
        .map(|(name, text)| (name.rsplit('/').next().unwrap_or_default().to_owned(), text))
        .collect();
    let (mut valid_refused, mut invalid_accepted, mut seen) = (Vec::new(), Vec::new(), 0);
    for line in data::lines(&folder.join("cases.ndjson")) {
        let case: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let name = case["file"]
            .as_str()
            .unwrap_or_default()
            .rsplit('/')
            .next()
            .unwrap_or_default();
        let Some(text) = files.get(name) else {
            continue;
        };
        let kind = case["resourceType"].as_str().unwrap_or("Patient");
        let (ok, said) = accepted(&mut client, kind, text);
        seen += 1;
        match case["verdict"].as_str() {
            Some("valid") if !ok => valid_refused.push(format!("{name}: {said}")),
            Some("invalid") if ok => invalid_accepted.push(format!("{name}: {}", case["errors"])),
            _ => {}
        }
    }
    println!(
        "{seen} cases; valid but refused: {}; invalid but accepted: {}",
        valid_refused.len(),
        invalid_accepted.len()
    );
    for case in &invalid_accepted {
        println!("accepted {}", case.chars().take(300).collect::<String>());
    }
    assert!(valid_refused.is_empty(), "{valid_refused:#?}");
}

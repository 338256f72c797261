//! What the policy obliges the record to, followed by every way of showing a resource: the notice of 42 CFR 2.32 goes
//! with records of a Part 2 programme, and the entry of restricted data is on disk before the answer leaves.
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

use serde_json::{Value, json};
use support::{Answer, Client, Server, treated};

const NOTICE: &str = "42 CFR part 2 prohibits unauthorized use or disclosure of these records.";

/// A Condition of a patient under a security label.
fn labelled(patient: &str, system: &str, code: &str) -> Value {
    json!({
        "resourceType": "Condition",
        "meta": {"security": [{"system": format!("http://terminology.hl7.org/CodeSystem/{system}"), "code": code}]},
        "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]},
        "code": {"text": "a problem"},
        "subject": {"reference": format!("Patient/{patient}")},
    })
}

/// The ways to be shown a Condition: path of a GET, or a Bundle to post.
fn ways(patient: &str, condition: &str) -> Vec<(&'static str, Result<String, Value>)> {
    let entry = |url: String| json!({"request": {"method": "GET", "url": url}});
    let bundle = |kind: &str, url: String| json!({"resourceType": "Bundle", "type": kind, "entry": [entry(url)]});
    vec![
        ("read", Ok(format!("Condition/{condition}"))),
        ("vread", Ok(format!("Condition/{condition}/_history/1"))),
        ("search", Ok(format!("Condition?patient={patient}"))),
        ("compartment", Ok(format!("Patient/{patient}/Condition"))),
        (
            "include",
            Ok(format!("Patient?_id={patient}&_revinclude=Condition:subject")),
        ),
        ("history", Ok(format!("Condition/{condition}/_history"))),
        ("type history", Ok("Condition/_history".to_owned())),
        ("system history", Ok("_history".to_owned())),
        ("everything", Ok(format!("Patient/{patient}/$everything"))),
        ("provenance", Ok(format!("Condition/{condition}/$provenance"))),
        ("batch read", Err(bundle("batch", format!("Condition/{condition}")))),
        (
            "batch search",
            Err(bundle("batch", format!("Condition?patient={patient}"))),
        ),
        (
            "transaction read",
            Err(bundle("transaction", format!("Condition/{condition}"))),
        ),
    ]
}

fn show(client: &mut Client, way: &Result<String, Value>) -> Answer {
    match way {
        Ok(path) => client.get(&format!("/fhir/{path}")),
        Err(bundle) => client.post("/fhir", bundle),
    }
}

/// Whether some OperationOutcome in the body holds the notice.
fn told(body: &Value) -> bool {
    match body {
        Value::Object(members) => {
            members.get("resourceType").is_some_and(|t| t == "OperationOutcome")
                && members["issue"].as_array().is_some_and(|issues| {
                    issues
                        .iter()
                        .any(|i| i["diagnostics"] == NOTICE && i["severity"] == "information")
                })
                || members.values().any(told)
        }
        Value::Array(items) => items.iter().any(told),
        _ => false,
    }
}

fn marked(body: &Value) -> bool {
    body["meta"]["security"]
        .as_array()
        .is_some_and(|labels| labels.iter().any(|l| l["code"] == "NORDSCLCD"))
}

#[test]
fn the_part_2_notice_goes_with_every_form_of_disclosure() {
    let server = Server::empty();
    let mut all = server.client();
    let id = all.create(&treated("Part", "Two"));
    let plain_condition = labelled(&id, "v3-Confidentiality", "N");
    let secret = all.create(&labelled(&id, "v3-ActCode", "ETH"));
    let other = all.create(&treated("Plain", "One"));
    let mut unlabelled = plain_condition;
    unlabelled["subject"]["reference"] = json!(format!("Patient/{other}"));
    let plain = all.create(&unlabelled);
    let physician = server.issue(&["--role", "physician", "--user", "amara.okafor", "--ttl", "1h"]);
    for (who, client) in [
        ("physician", &mut server.client_with(&physician)),
        ("machine", &mut all),
    ] {
        for (way, ask) in ways(&id, &secret) {
            if who == "physician" && way == "system history" {
                continue;
            }
            let answer = show(client, &ask).expect(200);
            assert_eq!(answer.header("disclosure-notice"), Some(NOTICE), "{who}: {way}");
            let body = answer.json();
            match way {
                // A single resource comes back as it was stored.
                "read" | "vread" => assert!(!told(&body) && body["meta"]["security"][0]["code"] == "ETH", "{way}"),
                // A history has no place for an outcome; its Bundle is marked.
                "history" | "type history" | "system history" => assert!(marked(&body), "{who}: {way}"),
                "batch read" | "transaction read" => {
                    assert_eq!(
                        body["entry"][0]["response"]["outcome"]["issue"][0]["diagnostics"], NOTICE,
                        "{way}"
                    );
                }
                "batch search" => assert!(told(&body) && marked(&body["entry"][0]["resource"]), "{way}"),
                _ => {
                    assert!(told(&body) && marked(&body), "{who}: {way}");
                    let entries = body["entry"].as_array().unwrap();
                    let outcome = entries
                        .iter()
                        .find(|e| e["resource"]["resourceType"] == "OperationOutcome")
                        .unwrap();
                    assert_eq!(outcome["search"]["mode"], "outcome");
                }
            }
        }
        // Only where such a record is among what is shown.
        for (way, ask) in ways(&other, &plain) {
            if way.starts_with("type") || way.starts_with("system") {
                continue;
            }
            let answer = show(client, &ask).expect(200);
            assert!(answer.header("disclosure-notice").is_none(), "{who}: {way}");
            assert!(
                !answer.text().contains("NORDSCLCD") && !told(&answer.json()),
                "{who}: {way}"
            );
        }
        let count = client
            .get(&format!("/fhir/Condition?patient={id}&_summary=count"))
            .expect(200);
        assert!(
            count.header("disclosure-notice").is_none(),
            "a number discloses no record"
        );
    }
    // Whoever is not shown the record is not told that there is one.
    let nurse = server.issue(&["--role", "nurse", "--user", "tomas.echeverria", "--ttl", "1h"]);
    let seen = server
        .client_with(&nurse)
        .get(&format!("/fhir/Condition?patient={id}"))
        .expect(200);
    assert!(seen.header("disclosure-notice").is_none() && !told(&seen.json()));
}

#[test]
fn the_entry_of_restricted_data_is_on_disk_before_the_answer_leaves() {
    let server = Server::empty();
    let mut all = server.client();
    let id = all.create(&treated("Very", "Restricted"));
    let secret = all.create(&labelled(&id, "v3-Confidentiality", "R"));
    let physician = server.issue(&["--role", "physician", "--user", "amara.okafor", "--ttl", "1h"]);
    let mut client = server.client_with(&physician);
    let store = keepwell_store::Store::open_read_only(&server.data).unwrap();
    for (way, ask) in ways(&id, &secret) {
        if way == "system history" {
            continue;
        }
        // A commit that is waited for is signed in the same transaction; others are signed about once a second.
        for _ in 0..5 {
            let answer = show(&mut client, &ask).expect(200);
            assert!(answer.text().contains("a problem") || way == "provenance", "{way}");
            let view = store.view().unwrap();
            let signed = view.last_checkpoint().unwrap().unwrap().size;
            assert_eq!(signed, view.size().unwrap(), "{way}");
        }
    }
}

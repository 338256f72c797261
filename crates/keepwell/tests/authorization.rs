//! AZ-1, AZ-2 over HTTP: what each role may do, and that one patient's token finds nothing of another patient, by no path.
#![allow(clippy::type_complexity, reason = "the golden table is read once, into plain tuples")]
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
use std::collections::HashMap;
use support::{Client, Folder, Server, observation, treated};

/// Two patients with the same kinds of resources.
struct Two {
    server: Server,
    mine: Vec<(String, String)>,
    theirs: Vec<(String, String)>,
    _folder: Folder,
}

fn chart(client: &mut Client, family: &str) -> Vec<(String, String)> {
    let id = client.create(&treated(family, "P"));
    let subject = json!({"reference": format!("Patient/{id}")});
    let mut made = vec![("Patient".to_owned(), id.clone())];
    for resource in [
        observation(&id, "1-1", 1.0),
        json!({"resourceType": "Condition", "subject": subject, "code": {"text": family}, "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]}}),
        json!({"resourceType": "AllergyIntolerance", "patient": subject, "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "code": "active"}]}}),
        json!({"resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"}, "subject": subject}),
        json!({"resourceType": "MedicationRequest", "status": "active", "intent": "order", "subject": subject, "medicationCodeableConcept": {"text": family}}),
        json!({"resourceType": "Coverage", "status": "active", "beneficiary": subject, "payor": [{"display": "Payer"}]}),
        json!({"resourceType": "Claim", "status": "active", "type": {"text": "x"}, "use": "claim", "patient": subject, "created": "2024-01-01", "provider": {"display": "x"}, "priority": {"text": "normal"}, "insurance": [{"sequence": 1, "focal": true, "coverage": {"display": "x"}}]}),
        json!({"resourceType": "DocumentReference", "status": "current", "subject": subject, "content": [{"attachment": {"contentType": "text/plain", "data": "aGk="}}]}),
        json!({"resourceType": "Binary", "contentType": "text/plain", "securityContext": subject, "data": "aGk="}),
        json!({"resourceType": "Composition", "status": "final", "type": {"text": "note"}, "subject": subject, "date": "2024-01-01", "author": [{"display": "x"}], "title": family}),
    ] {
        let kind = resource["resourceType"].as_str().unwrap().to_owned();
        let id = client.create(&resource);
        made.push((kind, id));
    }
    made
}

fn two() -> Two {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut client = server.client();
    let mine = chart(&mut client, "Mine");
    let theirs = chart(&mut client, "Theirs");
    Two {
        server,
        mine,
        theirs,
        _folder: folder,
    }
}

fn patient_client(world: &Two) -> Client {
    let token = world.server.issue(&[
        "--role",
        "patient",
        "--user",
        "mine",
        "--patient",
        &world.mine[0].1,
        "--ttl",
        "1h",
    ]);
    world.server.client_with(&token)
}

#[test]
fn a_patient_reads_the_own_chart_and_nothing_of_another() {
    let world = two();
    let mut client = patient_client(&world);
    let mut unseen = Vec::new();
    for (kind, id) in &world.mine {
        let status = client.get(&format!("/fhir/{kind}/{id}")).status;
        if status != 200 {
            unseen.push(format!("{kind}: {status}"));
        }
    }
    println!("of the own chart not readable: {unseen:?}");
    assert!(
        !unseen.iter().any(|line| [
            "Patient",
            "Observation",
            "Condition",
            "AllergyIntolerance",
            "MedicationRequest",
            "Encounter"
        ]
        .iter()
        .any(|kind| line.starts_with(&format!("{kind}:")))),
        "{unseen:?}"
    );

    let mut leaks = Vec::new();
    let secret_ids: Vec<&str> = world.theirs.iter().map(|(_, id)| id.as_str()).collect();
    let mut probe = |client: &mut Client, method: &str, path: &str, body: Option<&Value>| {
        let body = body.map(Value::to_string);
        let answer = client.send(method, path, &[], body.as_deref().map(str::as_bytes));
        let text = answer.text();
        // `self` echoes what was asked, in its own words; content of the other's chart must stand nowhere.
        if text.replace(path, "").contains("Theirs")
            || answer.json()["entry"].as_array().is_some_and(|entries| {
                entries
                    .iter()
                    .any(|entry| secret_ids.iter().any(|id| entry["resource"]["id"] == *id))
            })
        {
            leaks.push(format!(
                "{method} {path}: {}",
                text.chars().take(300).collect::<String>()
            ));
        }
        answer
    };
    for (kind, id) in &world.theirs {
        let none = probe(&mut client, "GET", &format!("/fhir/{kind}/does-not-exist"), None);
        for path in [
            format!("/fhir/{kind}/{id}"),
            format!("/fhir/{kind}/{id}/_history"),
            format!("/fhir/{kind}/{id}/_history/1"),
        ] {
            let answer = probe(&mut client, "GET", &path, None);
            // Not yours is not there: the same code and the same words as for an id that never was.
            assert_eq!(answer.status, none.status, "{path}: {}", answer.text());
            assert_eq!(
                answer.text().replace(id.as_str(), "does-not-exist"),
                none.text(),
                "{path}"
            );
        }
        let resource = json!({"resourceType": kind, "id": id});
        for (method, path, body) in [
            ("PUT", format!("/fhir/{kind}/{id}"), Some(&resource)),
            ("DELETE", format!("/fhir/{kind}/{id}"), None),
            ("GET", format!("/fhir/{kind}?_id={id}"), None),
            ("GET", format!("/fhir/{kind}?_id={id}&_summary=count"), None),
            ("GET", format!("/fhir/{kind}"), None),
        ] {
            let answer = probe(&mut client, method, &path, body);
            if method != "GET" {
                assert!(
                    (400..500).contains(&answer.status),
                    "{method} {path}: {}",
                    answer.status
                );
            } else if answer.status == 200 {
                let total = answer.json()["total"].as_u64();
                assert!(
                    total.is_none() || total == Some(u64::from(!path.contains("_id="))),
                    "{path}: {}",
                    answer.text()
                );
            }
        }
    }
    let (mine, theirs) = (&world.mine[0].1, &world.theirs[0].1);
    for path in [
        format!("/fhir/Patient/{theirs}/$everything"),
        format!("/fhir/Patient/{theirs}/Observation"),
        format!("/fhir/Patient/{theirs}/*"),
        format!("/fhir/Observation?patient={theirs}"),
        format!("/fhir/Observation?subject=Patient/{theirs}&_include=Observation:subject"),
        "/fhir/Observation?patient.family=Theirs".to_owned(),
        "/fhir/Observation?subject:Patient.name=Theirs".to_owned(),
        "/fhir/Patient?_has:Observation:patient:code=1-1".to_owned(),
        "/fhir/Patient?_revinclude=Observation:patient".to_owned(),
        "/fhir/Patient?_sort=family&_count=1".to_owned(),
        "/fhir/Patient?_total=accurate".to_owned(),
        "/fhir/Observation?_lastUpdated=ge2000".to_owned(),
        "/fhir/_history".to_owned(),
        "/fhir/Patient/_history".to_owned(),
        format!("/fhir/Patient/{theirs}/$access-log"),
    ] {
        let answer = probe(&mut client, "GET", &path, None);
        assert!(answer.status < 500, "{path}: {}", answer.text());
        if answer.status == 200 && path.contains("_total") {
            assert_eq!(answer.json()["total"], 1, "{path}");
        }
    }
    // The other's ids in bodies: conditional create, references, batch.
    let batch = json!({"resourceType": "Bundle", "type": "batch", "entry": [
        {"request": {"method": "GET", "url": format!("Patient/{theirs}")}},
        {"request": {"method": "GET", "url": format!("Observation?patient={theirs}")}},
        {"resource": observation(theirs, "1-1", 9.0), "request": {"method": "POST", "url": "Observation"}},
    ]});
    let answer = probe(&mut client, "POST", "/fhir", Some(&batch));
    if answer.status == 200 {
        let body = answer.json();
        assert!(
            !body["entry"][2]["response"]["status"]
                .as_str()
                .unwrap()
                .starts_with('2'),
            "{body}"
        );
    }
    let obs = observation(theirs, "1-1", 9.0);
    let answer = probe(&mut client, "POST", "/fhir/Observation", Some(&obs));
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    assert!(leaks.is_empty(), "{leaks:#?}");
    // And the other patient's chart is untouched.
    let mut all = world.server.client();
    assert_eq!(all.matches(&format!("Observation?patient={theirs}")).len(), 1);
    assert_eq!(all.matches(&format!("Observation?patient={mine}")).len(), 1);
}

/// The golden table of `policies/`: (class, role, action) to the relations for which it is permitted, of the first section.
fn golden() -> (HashMap<String, String>, HashMap<(String, String, String), String>) {
    let policies = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let text = |name: &str| std::fs::read_to_string(policies.join(name)).expect("policies");
    let mut class_of = HashMap::new();
    let mut class = String::new();
    for line in text("data-classes.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
    {
        if line.starts_with(' ') {
            class_of.extend(line.split_whitespace().map(|kind| (kind.to_owned(), class.clone())));
        } else {
            line.split_whitespace()
                .next()
                .unwrap_or_default()
                .clone_into(&mut class);
        }
    }
    let mut table = HashMap::new();
    let mut roles: Vec<String> = Vec::new();
    let authorization = text("authorization-table.txt");
    let section = authorization
        .split("## Resources by data class")
        .nth(1)
        .and_then(|rest| rest.split("\n## ").next())
        .expect("the first section");
    for line in section.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0] == "class" {
            roles = words[1..words.len() - 1]
                .iter()
                .map(|role| (*role).to_owned())
                .collect();
            continue;
        }
        for (role, cell) in roles.iter().zip(&words[1..]) {
            for action in &words[1 + roles.len()..] {
                table.insert(
                    (words[0].to_owned(), role.clone(), (*action).to_owned()),
                    (*cell).to_owned(),
                );
            }
        }
    }
    (class_of, table)
}

/// Whom a token is for: a clinician's relationships are those of the account.
fn user_of(role: &str) -> &str {
    match role {
        "physician" => "amara.okafor",
        "nurse" => "tomas.echeverria",
        _ => "someone",
    }
}

#[test]
fn each_role_does_over_http_what_the_golden_table_says_and_no_more() {
    let world = two();
    let (class_of, table) = golden();
    let mut wrong = Vec::new();
    let mut cells = 0;
    for role in [
        "physician",
        "nurse",
        "front-desk",
        "billing",
        "records-clerk",
        "privacy-officer",
        "security-officer",
        "administrator",
    ] {
        let token = world
            .server
            .issue(&["--role", role, "--user", user_of(role), "--ttl", "1h"]);
        let mut client = world.server.client_with(&token);
        let may = |kind: &str, action: &str| {
            let cell = &table[&(class_of[kind].clone(), role.to_owned(), action.to_owned())];
            cell.contains('r')
        };
        for (kind, id) in &world.mine {
            let mut cell = |action: &str, done: bool, answer: &support::Answer| {
                cells += 1;
                if done != may(kind, action) {
                    wrong.push(format!(
                        "{role} {action} {kind}: {} {}",
                        answer.status,
                        answer.text().chars().take(200).collect::<String>()
                    ));
                }
                if !done && answer.status != 200 {
                    assert!(
                        matches!(answer.status, 403 | 404),
                        "{role} {action} {kind}: {}",
                        answer.status
                    );
                }
            };
            let answer = client.get(&format!("/fhir/{kind}/{id}"));
            cell("read", answer.status == 200, &answer);
            let answer = client.get(&format!("/fhir/{kind}/{id}/_history/1"));
            cell("vread", answer.status == 200, &answer);
            let answer = client.get(&format!("/fhir/{kind}/{id}/_history"));
            cell("history-instance", answer.status == 200, &answer);
            let answer = client.get(&format!("/fhir/{kind}?_id={id}"));
            let found = answer.status == 200
                && answer.json()["entry"]
                    .as_array()
                    .is_some_and(|entries| entries.iter().any(|entry| entry["resource"]["id"] == json!(id)));
            cell("search", found, &answer);
            let answer = client.get(&format!("/fhir/{kind}?_id={id}&_summary=count"));
            cell("search", answer.json()["total"] == 1, &answer);
            let body = world.server.client().get(&format!("/fhir/{kind}/{id}")).json();
            let answer = client.post(&format!("/fhir/{kind}"), &body);
            cell("create", answer.status == 201, &answer);
            let answer = client.put(&format!("/fhir/{kind}/{id}"), &body);
            cell("update", answer.status == 200, &answer);
            if *kind != "Patient" {
                let made = world.server.client().create(&body);
                let answer = client.delete(&format!("/fhir/{kind}/{made}"));
                cell("delete", matches!(answer.status, 200 | 204), &answer);
            }
        }
        // Nothing slips in beside: whatever $everything or an include shows must be readable.
        for path in [
            format!("/fhir/Patient/{}/$everything", world.mine[0].1),
            format!("/fhir/Patient?_id={}&_revinclude=*", world.mine[0].1),
        ] {
            let answer = client.get(&path);
            for entry in answer.json()["entry"].as_array().into_iter().flatten() {
                let kind = entry["resource"]["resourceType"].as_str().unwrap_or_default();
                if class_of.contains_key(kind) && kind != "OperationOutcome" && !may(kind, "read") {
                    wrong.push(format!("{role} gets {kind} through {path}"));
                }
            }
        }
    }
    println!("{cells} cells checked over HTTP");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn scopes_and_lifetimes_of_tokens_hold() {
    let world = two();
    let (kind, id) = &world.mine[1];
    let read_only = world.server.issue(&["--scope", "system/Observation.rs", "--ttl", "1h"]);
    let mut client = world.server.client_with(&read_only);
    client.get(&format!("/fhir/{kind}/{id}")).expect(200);
    client.get(&format!("/fhir/Observation?_id={id}")).expect(200);
    for answer in [
        client.post("/fhir/Observation", &observation(&world.mine[0].1, "1-1", 2.0)),
        client.delete(&format!("/fhir/{kind}/{id}")),
        client.get(&format!("/fhir/Patient/{}", world.mine[0].1)),
        client.get("/fhir/Patient"),
    ] {
        assert!(matches!(answer.status, 403 | 404), "{}", answer.status);
    }
    // What a scope leaves out is not reached by include or chain either.
    let included = client.get("/fhir/Observation?_include=Observation:subject");
    assert!(!included.text().contains("\"family\""), "{}", included.text());
    let chained = client.get("/fhir/Observation?subject:Patient.family=Mine");
    assert!(
        chained.status != 200 || chained.json()["entry"].as_array().is_none_or(Vec::is_empty),
        "{}",
        chained.text()
    );

    let short = world.server.issue(&["--scope", "system/*.cruds", "--ttl", "1s"]);
    std::thread::sleep(std::time::Duration::from_millis(2500));
    world.server.client_with(&short).get("/fhir/Patient").refused(401);
}

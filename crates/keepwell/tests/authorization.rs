//! AZ-1, AZ-2 over HTTP: what each role may do, and that one patient's token finds nothing of another patient, by no path.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test program"
)]

mod support;

use serde_json::{Value, json};
use support::{Client, Folder, Server, observation, patient};

/// Two patients with the same kinds of resources.
struct Two {
    server: Server,
    mine: Vec<(String, String)>,
    theirs: Vec<(String, String)>,
    _folder: Folder,
}

fn chart(client: &mut Client, family: &str) -> Vec<(String, String)> {
    let id = client.create(&patient(family, "P"));
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
        // The id stands in `self` links and diagnostics of what was asked; content must not.
        if text.contains("Theirs")
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
        let none = probe(
            &mut client,
            "GET",
            &format!("/fhir/{kind}/does-not-exist"),
            None,
        );
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
    assert_eq!(
        all.matches(&format!("Observation?patient={theirs}")).len(),
        1
    );
    assert_eq!(all.matches(&format!("Observation?patient={mine}")).len(), 1);
}

#[test]
fn each_role_reaches_its_own_kinds_only() {
    let world = two();
    // Role, kinds that must be readable, kinds that must not be.
    let table: [(&str, &[&str], &[&str]); 7] = [
        (
            "physician",
            &[
                "Patient",
                "Observation",
                "Condition",
                "MedicationRequest",
                "Composition",
                "Encounter",
            ],
            &[],
        ),
        (
            "nurse",
            &["Patient", "Observation", "MedicationRequest"],
            &["Claim"],
        ),
        (
            "front-desk",
            &["Patient", "Coverage"],
            &[
                "Observation",
                "Condition",
                "MedicationRequest",
                "Composition",
                "DocumentReference",
            ],
        ),
        (
            "billing",
            &["Patient", "Claim", "Coverage"],
            &["Composition", "DocumentReference", "Observation"],
        ),
        (
            "administrator",
            &[],
            &[
                "Patient",
                "Observation",
                "Condition",
                "Claim",
                "Composition",
                "Binary",
            ],
        ),
        (
            "security-officer",
            &[],
            &[
                "Patient",
                "Observation",
                "Condition",
                "Claim",
                "Composition",
                "Binary",
            ],
        ),
        (
            "privacy-officer",
            &[],
            &["Observation", "Condition", "Composition", "Claim"],
        ),
    ];
    let mut wrong = Vec::new();
    for (role, may, must_not) in table {
        let token = world
            .server
            .issue(&["--role", role, "--user", "someone", "--ttl", "1h"]);
        let mut client = world.server.client_with(&token);
        for (kind, id) in &world.mine {
            let read = client.get(&format!("/fhir/{kind}/{id}"));
            let search = client.get(&format!("/fhir/{kind}?_id={id}"));
            let found = search.status == 200
                && search.json()["entry"].as_array().is_some_and(|entries| {
                    entries
                        .iter()
                        .any(|entry| entry["resource"]["id"] == json!(id))
                });
            if may.contains(&kind.as_str()) && (read.status != 200 || !found) {
                wrong.push(format!(
                    "{role} may not read {kind}: {} {}",
                    read.status, search.status
                ));
            }
            if must_not.contains(&kind.as_str()) && (!matches!(read.status, 403 | 404) || found) {
                wrong.push(format!(
                    "{role} reads {kind}: {} {}",
                    read.status, search.status
                ));
            }
        }
        let everything = client.get(&format!("/fhir/Patient/{}/$everything", world.mine[0].1));
        if everything.status == 200 {
            for entry in everything.json()["entry"].as_array().into_iter().flatten() {
                let kind = entry["resource"]["resourceType"]
                    .as_str()
                    .unwrap_or_default();
                if must_not.contains(&kind) {
                    wrong.push(format!("{role} gets {kind} in $everything"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn scopes_and_lifetimes_of_tokens_hold() {
    let world = two();
    let (kind, id) = &world.mine[1];
    let read_only = world
        .server
        .issue(&["--scope", "system/Observation.rs", "--ttl", "1h"]);
    let mut client = world.server.client_with(&read_only);
    client.get(&format!("/fhir/{kind}/{id}")).expect(200);
    client
        .get(&format!("/fhir/Observation?_id={id}"))
        .expect(200);
    for answer in [
        client.post(
            "/fhir/Observation",
            &observation(&world.mine[0].1, "1-1", 2.0),
        ),
        client.delete(&format!("/fhir/{kind}/{id}")),
        client.get(&format!("/fhir/Patient/{}", world.mine[0].1)),
        client.get("/fhir/Patient"),
    ] {
        assert!(matches!(answer.status, 403 | 404), "{}", answer.status);
    }
    // What a scope leaves out is not reached by include or chain either.
    let included = client.get("/fhir/Observation?_include=Observation:subject");
    assert!(
        !included.text().contains("\"family\""),
        "{}",
        included.text()
    );
    let chained = client.get("/fhir/Observation?subject:Patient.family=Mine");
    assert!(
        chained.status != 200 || chained.json()["entry"].as_array().is_none_or(Vec::is_empty),
        "{}",
        chained.text()
    );

    let short = world
        .server
        .issue(&["--scope", "system/*.cruds", "--ttl", "1s"]);
    std::thread::sleep(std::time::Duration::from_millis(2500));
    world
        .server
        .client_with(&short)
        .get("/fhir/Patient")
        .refused(401);
}

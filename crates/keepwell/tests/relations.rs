//! AZ-1, AZ-4 over HTTP: what physicians and nurses may do by how they stand to the patient, cell by cell as the policies
//! say; and the walk of an emergency access through the API and the pages' way in.
#![allow(
    clippy::print_stdout,
    reason = "skipped cases and seeds are told on stdout, which the test run collects"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "the times of a shift are relative to the system's clock, which the server runs by"
)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test program"
)]

mod support;

use keepwell_model::actor::Role;
use keepwell_model::types::ResourceType;
use keepwell_policy::{Action, Engine, Relation, Request, Target};
use serde_json::{Value, json};
use support::{Client, Folder, Server, observation, patient};

/// The Practitioner resources of the demo's accounts.
const CLINICIANS: [(Role, &str, &str); 2] = [
    (
        Role::Physician,
        "amara.okafor",
        "Practitioner/a2c6fcf2-1fe5-58aa-b9ca-1d57e22e31ec",
    ),
    (
        Role::Nurse,
        "tomas.echeverria",
        "Practitioner/d4b89900-9f8d-5be2-b537-fe4329121887",
    ),
];

/// A patient with one resource of several classes; `whom` stands in `relation` to them as far as a resource can say.
fn chart(client: &mut Client, relation: Relation, whom: &str) -> Vec<(String, String)> {
    let mut body = patient("Relation", relation.name());
    if relation == Relation::Related {
        body["generalPractitioner"] = json!([{"reference": whom}]);
    }
    let id = client.create(&body);
    let subject = json!({"reference": format!("Patient/{id}")});
    let mut visit = json!({"resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"}, "subject": subject,
        "period": {"start": "2020-01-01", "end": "2020-01-01"}});
    if relation == Relation::Plausible {
        visit["participant"] = json!([{"individual": {"reference": whom}}]);
    }
    let mut made = vec![("Patient".to_owned(), id.clone())];
    for resource in [
        visit,
        observation(&id, "1-1", 1.0),
        json!({"resourceType": "AllergyIntolerance", "patient": subject, "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "code": "active"}]}}),
        json!({"resourceType": "MedicationRequest", "status": "active", "intent": "order", "subject": subject, "medicationCodeableConcept": {"text": "m"}}),
        json!({"resourceType": "Coverage", "status": "active", "beneficiary": subject, "payor": [{"display": "Payer"}]}),
        json!({"resourceType": "DocumentReference", "status": "current", "subject": subject, "content": [{"attachment": {"contentType": "text/plain", "data": "aGk="}}]}),
    ] {
        let kind = resource["resourceType"].as_str().unwrap().to_owned();
        let id = client.create(&resource);
        made.push((kind, id));
    }
    made
}

fn break_glass(client: &mut Client, id: &str) -> support::Answer {
    let body = json!({"resourceType": "Parameters", "parameter": [
        {"name": "code", "valueCode": "emergency"}, {"name": "text", "valueString": "brought in by ambulance"}]});
    client.post(&format!("/fhir/Patient/{id}/$break-glass"), &body)
}

#[test]
fn clinicians_do_by_their_relation_what_the_policies_say_and_no_more() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let engine = Engine::load().unwrap();
    let (mut cells, mut wrong) = (0, Vec::new());
    for (role, user, whom) in CLINICIANS {
        for relation in [
            Relation::Related,
            Relation::Plausible,
            Relation::Emergency,
            Relation::Unrelated,
        ] {
            let made = chart(&mut server.client(), relation, whom);
            let token = server.issue(&["--role", role.name(), "--user", user, "--ttl", "1h"]);
            let mut client = server.client_with(&token);
            if relation == Relation::Emergency {
                break_glass(&mut client, &made[0].1).expect(200);
            }
            for (kind, id) in &made {
                let target = Target::Type(ResourceType::from_name(kind).unwrap());
                let may = |action| engine.decide(&Request::plain(role, action, target, relation)).permit;
                let mut cell = |action: Action, done: bool, status: u16| {
                    cells += 1;
                    if done != may(action) || !done && !matches!(status, 200 | 403 | 404) {
                        wrong.push(format!(
                            "{} {} {kind} {}: {status}",
                            role.name(),
                            action.name(),
                            relation.name()
                        ));
                    }
                };
                let status = client.get(&format!("/fhir/{kind}/{id}")).status;
                cell(Action::Read, status == 200, status);
                // Who may break the glass is told so at the patient, and nowhere else.
                let closed = !may(Action::Read) && relation != Relation::Related && may_any(&engine, role, target);
                if closed {
                    assert_eq!(status, if kind == "Patient" { 403 } else { 404 }, "{kind}");
                }
                let status = client.get(&format!("/fhir/{kind}/{id}/_history/1")).status;
                cell(Action::Vread, status == 200, status);
                let status = client.get(&format!("/fhir/{kind}/{id}/_history")).status;
                cell(Action::HistoryInstance, status == 200, status);
                let found = client.get(&format!("/fhir/{kind}?_id={id}"));
                let shown = found.status == 200 && found.text().contains(&format!("\"id\":\"{id}\""));
                cell(Action::Search, shown, found.status);
                let counted = client.get(&format!("/fhir/{kind}?_id={id}&_summary=count"));
                cell(Action::Search, counted.json()["total"] == 1, counted.status);
                let body = server.client().get(&format!("/fhir/{kind}/{id}")).json();
                let status = client.post(&format!("/fhir/{kind}"), &body).status;
                // A new Patient is nobody's yet.
                if kind != "Patient" {
                    cell(Action::Create, status == 201, status);
                }
                let status = client.put(&format!("/fhir/{kind}/{id}"), &body).status;
                cell(Action::Update, status == 200, status);
            }
            let id = &made[0].1;
            let all = client.get(&format!("/fhir/Patient/{id}/$everything"));
            let target = Target::Type(ResourceType::from_name("Patient").unwrap());
            let may = engine
                .decide(&Request::plain(role, Action::Everything, target, relation))
                .permit;
            assert_eq!(all.status == 200, may, "{}", relation.name());
        }
    }
    println!("{cells} cells of clinician, relation, type and interaction checked over HTTP");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Whether the role may read the type of some patient at all.
fn may_any(engine: &Engine, role: Role, target: Target) -> bool {
    engine
        .decide(&Request::plain(role, Action::Read, target, Relation::Related))
        .permit
}

#[test]
fn a_user_without_an_account_treats_nobody_and_the_token_cannot_say_otherwise() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let made = chart(&mut server.client(), Relation::Related, CLINICIANS[0].2);
    for (user, status) in [("amara.okafor", 200), ("somebody", 403)] {
        let token = server.issue(&["--role", "physician", "--user", user, "--ttl", "1h"]);
        assert_eq!(
            server
                .client_with(&token)
                .get(&format!("/fhir/Patient/{}", made[0].1))
                .status,
            status,
            "{user}"
        );
    }
}

#[test]
fn an_emergency_access_is_offered_taken_seen_in_the_log_and_ended() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let made = chart(&mut server.client(), Relation::Unrelated, CLINICIANS[0].2);
    let (id, seen) = (&made[0].1, &made[2].1);
    let token = server.issue(&["--role", "physician", "--user", "amara.okafor", "--ttl", "1h"]);
    let mut doctor = server.client_with(&token);
    let refused = doctor.get(&format!("/fhir/Patient/{id}"));
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("$break-glass"), "{}", refused.text());
    let none = json!({"resourceType": "Parameters"});
    assert_eq!(
        doctor.post(&format!("/fhir/Patient/{id}/$break-glass"), &none).status,
        400
    );
    let granted = break_glass(&mut doctor, id).expect(200).json();
    assert!(granted["parameter"][0]["valueInstant"].is_string(), "{granted}");
    doctor.get(&format!("/fhir/Observation/{seen}")).expect(200);
    assert_eq!(
        doctor.post(&format!("/fhir/Patient/{id}/$end-access"), &none).status,
        204
    );
    doctor.get(&format!("/fhir/Observation/{seen}")).refused(404);

    let token = server.issue(&["--role", "privacy-officer", "--user", "ingrid.sorensen", "--ttl", "1h"]);
    let log = server
        .client_with(&token)
        .get(&format!("/fhir/Patient/{id}/$access-log"))
        .expect(200)
        .json();
    let events: Vec<&Value> = log["entry"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["resource"])
        .collect();
    let with = |code: &str| events.iter().filter(|e| e["subtype"][0]["code"] == code).count();
    assert_eq!(
        (with("110127"), with("110138")),
        (1, 1),
        "the beginning and the end: {log}"
    );
    let under = events
        .iter()
        .find(|e| e["subtype"][0]["code"] == "read" && e["outcome"] == "0")
        .unwrap();
    assert_eq!(under["purposeOfEvent"][0]["coding"][0]["code"], "BTG");
}

#[test]
fn a_shift_and_a_cover_are_said_over_http() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut bulk = server.client();
    let made = chart(&mut bulk, Relation::Unrelated, CLINICIANS[1].2);
    let (id, seen) = (&made[0].1, &made[2].1);
    let ward = bulk.create(&json!({"resourceType": "Location", "status": "active", "name": "Ward"}));
    bulk.create(
        &json!({"resourceType": "PractitionerRole", "practitioner": {"reference": CLINICIANS[1].2},
        "location": [{"reference": format!("Location/{ward}")}]}),
    );
    bulk.create(
        &json!({"resourceType": "Encounter", "status": "in-progress", "class": {"code": "IMP"},
        "subject": {"reference": format!("Patient/{id}")}, "period": {"start": "2026-01-01"},
        "location": [{"location": {"reference": format!("Location/{ward}")}}]}),
    );
    let token = server.issue(&["--role", "nurse", "--user", "tomas.echeverria", "--ttl", "1h"]);
    let mut nurse = server.client_with(&token);
    nurse.get(&format!("/fhir/Observation/{seen}")).refused(404);
    // In the own unit a reason is enough, once it is one.
    let why = |code: &str| json!({"resourceType": "Parameters", "parameter": [{"name": "code", "valueCode": code}]});
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let at = |hours: u64| {
        keepwell_model::time::Timestamp(
            i64::try_from(now.as_millis()).unwrap() + i64::try_from(hours).unwrap() * 3_600_000,
        )
        .to_string()
    };
    let on = |unit: &str| {
        json!({"resourceType": "Parameters", "parameter": [
            {"name": "unit", "valueString": unit}, {"name": "until", "valueInstant": at(8)}]})
    };
    assert_eq!(nurse.post("/fhir/$sign-on", &on("Location/elsewhere")).status, 403);
    assert_eq!(nurse.post("/fhir/$sign-on", &why("x")).status, 400);
    assert_eq!(
        nurse.post("/fhir/$sign-on", &on(&format!("Location/{ward}"))).status,
        204
    );
    nurse.get(&format!("/fhir/Observation/{seen}")).expect(200);
    let off = json!({"resourceType": "Parameters", "parameter": [{"name": "until", "valueInstant": at(1)}]});
    assert_eq!(nurse.post("/fhir/$sign-on", &off).status, 204);
    nurse.get(&format!("/fhir/Observation/{seen}")).refused(404);
    assert_eq!(
        nurse
            .post(&format!("/fhir/Patient/{id}/$state-reason"), &why("bored"))
            .status,
        400
    );
    assert_eq!(
        nurse
            .post(&format!("/fhir/Patient/{id}/$state-reason"), &why("care"))
            .status,
        200
    );
    nurse.get(&format!("/fhir/Observation/{seen}")).expect(200);

    // The physician has a patient, and lets the nurse cover.
    let other = chart(&mut bulk, Relation::Related, CLINICIANS[0].2);
    let theirs = format!("/fhir/Patient/{}", other[0].1);
    assert_eq!(nurse.get(&theirs).status, 403);
    let token = server.issue(&["--role", "physician", "--user", "amara.okafor", "--ttl", "1h"]);
    let cover = json!({"resourceType": "Parameters", "parameter": [
        {"name": "colleague", "valueString": "tomas.echeverria"},
        {"name": "from", "valueInstant": at(0)}, {"name": "until", "valueInstant": at(8)}]});
    assert_eq!(server.client_with(&token).post("/fhir/$let-cover", &cover).status, 204);
    nurse.get(&theirs).expect(200);
    let desk = server.issue(&["--role", "front-desk", "--user", "desk", "--ttl", "1h"]);
    assert_eq!(server.client_with(&desk).post("/fhir/$let-cover", &cover).status, 403);
}

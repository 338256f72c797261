//! The index is a function of the log: after random writes, updates, deletes, conditional requests, patches, transactions,
//! erasures and kill -9, the index that answers, the one built from the bodies and the one in the snapshot are the same in
//! canonical form, and searches answer what the bodies say. Two rounds by default, as many as `KEEPWELL_INDEX_ROUNDS` says.
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
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;
use support::{Client, Folder, Rng, Server, cli, observation, patient, said};

const NOTHING: [&str; 2] = ["--patients", "0"];
const CODES: [&str; 4] = ["1-1", "2-2", "3-3", "4-4"];
const FAMILIES: [&str; 4] = ["Ash", "Birch", "Cedar", "Dogwood"];

/// What the clients have been told is there: path to nothing (deleted) or something.
#[derive(Default)]
struct World {
    patients: Vec<String>,
    observations: Vec<String>,
    deleted: Vec<String>,
    appointments: Vec<String>,
    identifiers: u32,
}

impl World {
    fn patient(&self, rng: &mut Rng) -> String {
        self.patients[rng.below(self.patients.len())].clone()
    }

    fn observation(&self, rng: &mut Rng) -> Value {
        let mut value = observation(
            &self.patient(rng),
            CODES[rng.below(CODES.len())],
            f64::from(rng.below(1000) as u32) / 10.0,
        );
        if rng.below(4) == 0 {
            value["meta"] = json!({"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}]});
        }
        if rng.below(3) == 0 {
            value["status"] = json!("amended");
        }
        value
    }

    /// One random request, or a few that belong together.
    fn act(&mut self, client: &mut Client, rng: &mut Rng) {
        let any = |list: &[String], rng: &mut Rng| list[rng.below(list.len())].clone();
        match rng.below(14) {
            0 | 1 => {
                let id = client.create(&patient(FAMILIES[rng.below(4)], "P"));
                self.patients.push(id);
            }
            2..=4 => {
                let id = client.create(&self.observation(rng));
                self.observations.push(id);
            }
            // An update, half of the time to another patient: the resource changes its home.
            5 | 6 if !self.observations.is_empty() => {
                let id = any(&self.observations, rng);
                let mut value = self.observation(rng);
                value["id"] = json!(id);
                client.put(&format!("/fhir/Observation/{id}"), &value).expect(200);
            }
            7 if !self.observations.is_empty() => {
                let id = self.observations.swap_remove(rng.below(self.observations.len()));
                let answer = client.delete(&format!("/fhir/Observation/{id}"));
                assert!(matches!(answer.status, 200 | 204), "{}", answer.text());
                self.deleted.push(id);
            }
            // Back under the same id, with whatever home.
            8 if !self.deleted.is_empty() => {
                let id = self.deleted.swap_remove(rng.below(self.deleted.len()));
                let mut value = self.observation(rng);
                value["id"] = json!(id);
                client.put(&format!("/fhir/Observation/{id}"), &value).expect(201);
                self.observations.push(id);
            }
            // The same conditional create twice, then a conditional update of what it made.
            9 => {
                self.identifiers += 1;
                let identifier = format!("n{}", self.identifiers);
                let mut value = self.observation(rng);
                value["identifier"] = json!([{"system": "urn:keepwell:test", "value": identifier}]);
                let condition = format!("identifier=urn:keepwell:test|{identifier}");
                let header = [("If-None-Exist", condition.as_str())];
                let body = value.to_string();
                let made = client.send("POST", "/fhir/Observation", &header, Some(body.as_bytes()));
                let (id, _) = made.expect(201).location();
                client
                    .send("POST", "/fhir/Observation", &header, Some(body.as_bytes()))
                    .expect(200);
                value["status"] = json!("corrected");
                client
                    .put(&format!("/fhir/Observation?{condition}"), &value)
                    .expect(200);
                self.observations.push(id);
            }
            10 if !self.observations.is_empty() => {
                let id = any(&self.observations, rng);
                let patch = json!([{"op": "replace", "path": "/valueQuantity/value", "value": rng.below(50)}]);
                client
                    .send(
                        "PATCH",
                        &format!("/fhir/Observation/{id}"),
                        &[("Content-Type", "application/json-patch+json")],
                        Some(patch.to_string().as_bytes()),
                    )
                    .expect(200);
            }
            // Of two patients: a home of its own.
            11 => {
                let participant =
                    |id: &str| json!({"actor": {"reference": format!("Patient/{id}")}, "status": "accepted"});
                let both = [self.patient(rng), self.patient(rng)];
                let id = client.create(&json!({"resourceType": "Appointment", "status": "proposed",
                    "participant": [participant(&both[0]), participant(&both[1])]}));
                self.appointments.push(id);
            }
            _ => self.transaction(client, rng),
        }
    }

    /// A new patient with Observations that name it by fullUrl, a delete and an update in one.
    fn transaction(&mut self, client: &mut Client, rng: &mut Rng) {
        let mut entries = vec![json!({"fullUrl": "urn:uuid:11111111-2222-4333-8444-555555555555",
            "resource": patient(FAMILIES[rng.below(4)], "T"), "request": {"method": "POST", "url": "Patient"}})];
        for _ in 0..3 {
            let mut value = self.observation(rng);
            value["subject"]["reference"] = json!("urn:uuid:11111111-2222-4333-8444-555555555555");
            entries.push(json!({"resource": value, "request": {"method": "POST", "url": "Observation"}}));
        }
        if self.observations.len() > 2 {
            let gone = self.observations.swap_remove(rng.below(self.observations.len()));
            entries.push(json!({"request": {"method": "DELETE", "url": format!("Observation/{gone}")}}));
            self.deleted.push(gone);
            let kept = self.observations[rng.below(self.observations.len())].clone();
            let mut value = self.observation(rng);
            value["id"] = json!(kept);
            entries
                .push(json!({"resource": value, "request": {"method": "PUT", "url": format!("Observation/{kept}")}}));
        }
        let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
        let answer = client.post("/fhir", &bundle).expect(200).json();
        for (at, entry) in answer["entry"].as_array().expect("entry").iter().take(4).enumerate() {
            let location = entry["response"]["location"].as_str().expect("location");
            let id = location.split('/').rev().nth(2).expect("id").to_owned();
            if at == 0 {
                self.patients.push(id);
            } else {
                self.observations.push(id);
            }
        }
    }

    fn erase_one(&mut self, data: &Path, rng: &mut Rng) {
        let id = self.patients.swap_remove(rng.below(self.patients.len()));
        let output = cli(&[
            "erase",
            "--data",
            data.to_str().unwrap(),
            "--patient",
            &id,
            "--reason",
            "a test",
            "--several",
            "redact",
            "--yes",
        ]);
        assert!(output.status.success(), "{}", said(&output));
    }

    /// Forgets what an erasure or a kill took or left half done: the server is asked what is there.
    fn learn(&mut self, client: &mut Client) {
        self.patients = client.matches("Patient");
        self.observations = client.matches("Observation");
        self.appointments = client.matches("Appointment");
        // Some of them went with an erased patient: their ids may be used again, as a first version.
        self.deleted
            .retain(|id| client.get(&format!("/fhir/Observation/{id}")).status == 410);
    }
}

fn verify(data: &Path) -> Value {
    let output = cli(&["verify", "--data", data.to_str().unwrap(), "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)))
}

#[track_caller]
fn clean(report: &Value) -> String {
    assert_eq!(report["ok"], true, "{report}");
    report["indexDigest"].as_str().expect("a digest").to_owned()
}

/// What the bodies say, by search: the values are taken from the JSON as it is read, without the index's help.
fn expected(client: &mut Client, world: &World) -> BTreeMap<String, BTreeSet<String>> {
    let mut expected: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let types = [
        ("Patient", &world.patients),
        ("Observation", &world.observations),
        ("Appointment", &world.appointments),
    ];
    for (name, ids) in types {
        for id in ids {
            let body = client.get(&format!("/fhir/{name}/{id}")).expect(200).json();
            let mut say = |query: String| {
                expected
                    .entry(format!("{name}?{query}"))
                    .or_default()
                    .insert(id.clone());
            };
            let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
            say(String::new());
            say(format!("_id={id}"));
            for (parameter, pointer) in [
                ("family", "/name/0/family"),
                ("gender", "/gender"),
                ("status", "/status"),
                ("code", "/code/coding/0/code"),
                ("identifier", "/identifier/0/value"),
                ("_security", "/meta/security/0/code"),
            ] {
                if let Some(value) = text(pointer) {
                    say(format!("{parameter}={value}"));
                }
            }
            if let Some(reference) = text("/subject/reference") {
                say(format!("subject={reference}"));
                say(format!("patient={}", reference.trim_start_matches("Patient/")));
            }
            let actors = body["participant"].as_array().into_iter().flatten();
            for actor in actors.filter_map(|p| p["actor"]["reference"].as_str()) {
                say(format!("actor={actor}"));
            }
            if let Some(value) = body.pointer("/valueQuantity/value").and_then(Value::as_f64) {
                let half = if value < 50.0 { "lt50" } else { "ge50" };
                say(format!("value-quantity={half}"));
            }
        }
    }
    expected
}

fn answers_as_the_bodies(client: &mut Client, world: &World) -> usize {
    let expected = expected(client, world);
    for (query, ids) in &expected {
        let found: BTreeSet<String> = client.matches(query).into_iter().collect();
        assert_eq!(&found, ids, "{query}");
        let (count, joint) = (ids.len(), if query.ends_with('?') { "" } else { "&" });
        let answer = client.get(&format!("/fhir/{query}{joint}_summary=count")).expect(200);
        assert_eq!(answer.json()["total"], count, "{query}");
    }
    expected.len()
}

#[test]
fn the_index_is_the_same_live_rebuilt_and_from_a_snapshot() {
    let rounds = support::setting("KEEPWELL_INDEX_ROUNDS", 2);
    let acts = support::setting("KEEPWELL_INDEX_ACTS", 60);
    let mut rng = Rng::seeded();
    let folder = Folder::new();
    let mut server = Server::demo_in(folder.path(), &NOTHING);
    let data = server.data.clone();
    let mut world = World::default();
    world.patients.push(server.client().create(&patient("Ash", "First")));
    let (mut searches, mut kills) = (0, 0);
    for round in 0..rounds {
        let mut client = server.client();
        for _ in 0..acts {
            world.act(&mut client, &mut rng);
        }
        if world.patients.len() > 4 {
            world.erase_one(&data, &mut rng);
        }
        world.learn(&mut client);
        for _ in 0..acts / 4 {
            world.act(&mut client, &mut rng);
        }
        let running = verify(&data);
        assert_eq!(running["indexCompared"], true, "{running}");
        let digest = clean(&running);
        searches += answers_as_the_bodies(&mut client, &world);

        // From a snapshot: a clean stop writes one. The stopped directory says the same.
        server.stop();
        let stopped = verify(&data);
        assert_eq!(stopped["snapshotCompared"], true, "{stopped}");
        assert_eq!(clean(&stopped), digest, "round {round}: stopped");
        server = Server::demo_in(folder.path(), &NOTHING);
        let loaded = verify(&data);
        assert_eq!(loaded["indexCompared"], true, "{loaded}");
        assert_eq!(clean(&loaded), digest, "round {round}: from the snapshot");

        // Killed while it writes: from the snapshot and the tail.
        std::thread::scope(|scope| {
            let mut client = server.client();
            let owner = world.patient(&mut rng);
            let wait = Duration::from_micros(rng.next() % 300_000);
            scope.spawn(move || {
                for n in 0.. {
                    let body = observation(&owner, CODES[n % 4], f64::from(n as u32)).to_string();
                    let sent = client.try_send("POST", "/fhir/Observation", &[], Some(body.as_bytes()));
                    if sent.is_err() {
                        return;
                    }
                }
            });
            std::thread::sleep(wait);
            server.kill9();
        });
        kills += 1;
        let killed = clean(&verify(&data));
        server = Server::demo_in(folder.path(), &NOTHING);
        assert_eq!(clean(&verify(&data)), killed, "round {round}: after a kill");

        // Without a snapshot: from the bodies alone. That it is gone is told.
        server.stop();
        fs::remove_file(data.join("snapshot")).unwrap();
        server = Server::demo_in(folder.path(), &NOTHING);
        let rebuilt = verify(&data);
        assert_eq!(
            (&rebuilt["ok"], &rebuilt["indexCompared"]),
            (&json!(false), &json!(true))
        );
        assert_eq!(rebuilt["indexDigest"], json!(killed), "round {round}: rebuilt");
        let findings = rebuilt["findings"].as_array().expect("findings");
        assert!(
            findings.len() == 1 && findings[0].as_str().is_some_and(|f| f.starts_with("snapshot: one of ")),
            "{rebuilt}"
        );
        let mut client = server.client();
        world.learn(&mut client);
        searches += answers_as_the_bodies(&mut client, &world);
    }
    server.stop();
    let report = verify(&data);
    clean(&report);
    println!(
        "{rounds} rounds of {acts} acts, {kills} kills, {searches} searches compared with the bodies; {} rows, {} erased",
        report["rows"], report["erased"]
    );
}

//! Kill -9 at random points under write load: every acknowledged write is readable afterwards, `keepwell verify` is clean, and there
//! are as many audit entries as disclosures. Twenty kills by default, as many as `KEEPWELL_KILLS` says.
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

use serde_json::json;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use support::{Folder, Rng, Server, cli, observation, patient, said};

/// What the server has acknowledged: path to the value last written, or none for a delete.
type Acknowledged = HashMap<String, Option<f64>>;

#[test]
fn what_was_acknowledged_survives_random_kills() {
    let kills = support::setting("KEEPWELL_KILLS", 20);
    let mut rng = Rng::seeded();
    let folder = Folder::new();
    let acknowledged: Mutex<Acknowledged> = Mutex::new(HashMap::new());
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let owner = server.client().create(&patient("Kill", "Nine"));
    let officer = server.issue(&["--role", "privacy-officer", "--user", "officer", "--ttl", "24h"]);
    let mut disclosed = 0;
    for kill in 0..kills {
        let looked_at = format!("looked-at-{kill}");
        let mut resource = patient("Looked", "At");
        resource["id"] = json!(looked_at);
        server
            .client()
            .put(&format!("/fhir/Patient/{looked_at}"), &resource)
            .expect(201);
        let looks = AtomicU64::new(0);
        let wait = Duration::from_micros(rng.next() % 400_000);
        std::thread::scope(|scope| {
            let mut reader = server.client();
            let (path, looks) = (format!("/fhir/Patient/{looked_at}"), &looks);
            // As many as one page of the access log holds.
            scope.spawn(move || {
                while looks.load(Ordering::Relaxed) < 900 {
                    let Ok(answer) = reader.try_send("GET", &path, &[], None) else {
                        return;
                    };
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    looks.fetch_add(1, Ordering::Relaxed);
                }
            });
            for worker in 0..3 {
                let mut client = server.client();
                let (acknowledged, owner) = (&acknowledged, &owner);
                let seed = rng.next();
                scope.spawn(move || {
                    let mut rng = Rng(seed);
                    let mut own: Vec<String> = Vec::new();
                    for n in 0.. {
                        let value = f64::from(n);
                        let outcome = match rng.below(4) {
                            0 if !own.is_empty() => update(&mut client, &own[rng.below(own.len())], owner, value),
                            1 if !own.is_empty() => delete(&mut client, &own.swap_remove(rng.below(own.len()))),
                            2 if !own.is_empty() => read(&mut client, &own[rng.below(own.len())]),
                            _ if worker == 0 => transaction(&mut client, owner, value),
                            _ => create(&mut client, owner, value),
                        };
                        let Some(done) = outcome else { return };
                        for (path, state) in done {
                            if state.is_some() && !own.contains(&path) {
                                own.push(path.clone());
                            }
                            acknowledged.lock().unwrap().insert(path, state);
                        }
                    }
                });
            }
            std::thread::sleep(wait);
            server.kill9();
        });
        server = Server::demo_in(folder.path(), &["--patients", "0"]);
        // As many entries as disclosures: the last answer may have been on its way when the process died, hence one more.
        let log = server
            .client_with(&officer)
            .get(&format!("/fhir/Patient/{looked_at}/$access-log?_count=1000"))
            .expect(200)
            .json();
        let entries = log["entry"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|entry| entry["resource"]["subtype"][0]["code"] == "read")
            .count() as u64;
        let looks = looks.load(Ordering::Relaxed);
        assert!(
            (looks..=looks + 1).contains(&entries),
            "{looks} disclosures, {entries} entries"
        );
        disclosed += looks;
        // A sample after each kill, all at the end.
        let acknowledged = acknowledged.lock().unwrap();
        let mut client = server.client();
        let step = if kill + 1 == kills {
            1
        } else {
            acknowledged.len() / 200 + 1
        };
        for (path, state) in acknowledged.iter().skip(rng.below(step)).step_by(step) {
            check(&mut client, path, *state);
        }
        println!("kill {}: {} acknowledged", kill + 1, acknowledged.len());
    }
    let (code, _) = server.stop();
    assert_eq!(code, Some(0));
    let data = folder.join("data");
    let output = cli(&["verify", "--data", data.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    let output = cli(&["audit", "verify", "--data", data.to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{}", said(&output));
    println!(
        "{kills} kills, {disclosed} disclosures with their entries; {}",
        said(&output)
    );
}

type Outcome = Option<Vec<(String, Option<f64>)>>;

fn create(client: &mut support::Client, owner: &str, value: f64) -> Outcome {
    let answer = client
        .try_send(
            "POST",
            "/fhir/Observation",
            &[],
            Some(observation(owner, "1-1", value).to_string().as_bytes()),
        )
        .ok()?;
    assert_eq!(answer.status, 201, "{}", answer.text());
    Some(vec![(
        format!("/fhir/Observation/{}", answer.location().0),
        Some(value),
    )])
}

fn update(client: &mut support::Client, path: &str, owner: &str, value: f64) -> Outcome {
    let mut resource = observation(owner, "1-1", value);
    resource["id"] = json!(path.rsplit('/').next());
    let answer = client
        .try_send("PUT", path, &[], Some(resource.to_string().as_bytes()))
        .ok()?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    Some(vec![(path.to_owned(), Some(value))])
}

fn delete(client: &mut support::Client, path: &str) -> Outcome {
    let answer = client.try_send("DELETE", path, &[], None).ok()?;
    assert!(matches!(answer.status, 200 | 204), "{}", answer.text());
    Some(vec![(path.to_owned(), None)])
}

fn read(client: &mut support::Client, path: &str) -> Outcome {
    let answer = client.try_send("GET", path, &[], None).ok()?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    Some(Vec::new())
}

fn transaction(client: &mut support::Client, owner: &str, value: f64) -> Outcome {
    let entries: Vec<_> = (0..10).map(|_| json!({"resource": observation(owner, "1-1", value), "request": {"method": "POST", "url": "Observation"}})).collect();
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
    let answer = client
        .try_send("POST", "/fhir", &[], Some(bundle.to_string().as_bytes()))
        .ok()?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    let paths = body["entry"].as_array().expect("entry").iter().map(|entry| {
        let location = entry["response"]["location"].as_str().expect("location");
        let id = location
            .split("Observation/")
            .nth(1)
            .and_then(|rest| rest.split('/').next())
            .expect("id");
        (format!("/fhir/Observation/{id}"), Some(value))
    });
    Some(paths.collect())
}

/// An update that was sent but not acknowledged may have taken place: then the version is newer than the one acknowledged. What may
/// not happen is that an acknowledged write is gone.
fn check(client: &mut support::Client, path: &str, state: Option<f64>) {
    let answer = client.get(path);
    match state {
        Some(value) if answer.status == 200 => {
            let body = answer.json();
            if body["valueQuantity"]["value"].as_f64() != Some(value) {
                let history = client.get(&format!("{path}/_history")).expect(200).json();
                let versions = history["entry"].as_array().expect("entry");
                assert!(
                    versions
                        .iter()
                        .any(|entry| entry["resource"]["valueQuantity"]["value"].as_f64() == Some(value)),
                    "{path} lost {value}: {history}"
                );
            }
        }
        Some(value) => {
            // A delete that was sent but not acknowledged.
            assert_eq!(answer.status, 410, "{path} = {value}: {}", answer.text());
            let history = client.get(&format!("{path}/_history")).expect(200).json();
            assert!(
                history["entry"]
                    .as_array()
                    .expect("entry")
                    .iter()
                    .any(|entry| entry["resource"]["valueQuantity"]["value"].as_f64() == Some(value)),
                "{history}"
            );
        }
        None => assert_eq!(answer.status, 410, "{path} was deleted: {}", answer.text()),
    }
}

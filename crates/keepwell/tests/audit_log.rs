//! AUD-1, AUD-5, AUD-7, AUD-11: every request that touched patient data has its entry; an export verifies offline and every tampering is seen.
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

use std::fs;
use support::{Folder, Rng, Server, cli, observation, patient, said};

#[test]
fn every_disclosure_and_refusal_has_an_entry() {
    let folder = Folder::new();
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let data = server.data.to_str().unwrap().to_owned();
    let mut client = server.client();
    let id = client.create(&patient("Audit", "One"));
    let officer = server.issue(&["--role", "privacy-officer", "--user", "officer", "--ttl", "1h"]);
    let count = |server: &Server| {
        let log = server
            .client_with(&officer)
            .get(&format!("/fhir/Patient/{id}/$access-log?_count=1000"))
            .expect(200)
            .json();
        log["entry"].as_array().map_or(0, Vec::len)
    };
    let before = count(&server);
    // Each look at the log is itself recorded: count what the requests add beyond it.
    let own = count(&server) - before;
    let start = count(&server);
    let mut requests = 0;
    for _ in 0..10 {
        client.get(&format!("/fhir/Patient/{id}")).expect(200);
        client.get("/fhir/Patient?family=Audit").expect(200);
        client.create(&observation(&id, "1-1", 1.0));
        client.get(&format!("/fhir/Observation?patient={id}")).expect(200);
        client.get(&format!("/fhir/Patient/{id}/_history")).expect(200);
        client.get(&format!("/fhir/Patient/{id}/$everything")).expect(200);
        requests += 6;
    }
    let after = count(&server);
    assert_eq!(after - start - own, requests, "{before} {own} {start} {after}");
    server.kill9();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    assert_eq!(count(&server), after + own, "no entry was lost with the process");
    drop(server);
    let output = cli(&["audit", "verify", "--data", &data]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn an_export_verifies_offline_and_tampering_is_seen() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut client = server.client();
    let id = client.create(&patient("Exportedname", "X"));
    for n in 0..200 {
        client.create(&observation(&id, "1-1", f64::from(n)));
    }
    let export = folder.join("export");
    let output = cli(&[
        "audit",
        "export",
        "--data",
        server.data.to_str().unwrap(),
        export.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", said(&output));
    for file in support::files(&export) {
        let bytes = fs::read(&file).unwrap();
        assert!(
            support::find(&bytes, b"Exportedname").is_none() && support::find(&bytes, id.as_bytes()).is_none(),
            "{}",
            file.display()
        );
    }
    let verify = |folder: &std::path::Path| cli(&["audit", "verify", "--export", folder.to_str().unwrap()]);
    let good = verify(&export);
    assert!(good.status.success(), "{}", said(&good));
    let mut rng = Rng::seeded();
    let broken = folder.join("broken");
    let mut undetected = Vec::new();
    for round in 0..60 {
        let _ = fs::remove_dir_all(&broken);
        support::copy(&export, &broken);
        let files = support::files(&broken);
        let file = &files[rng.below(files.len())];
        let mut bytes = fs::read(file).unwrap();
        if bytes.is_empty() {
            continue;
        }
        let at = rng.below(bytes.len());
        let what = match round % 4 {
            0 => {
                bytes.truncate(at);
                fs::write(file, bytes).unwrap();
                "truncate"
            }
            1 => {
                fs::remove_file(file).unwrap();
                "remove"
            }
            _ => {
                bytes[at] ^= 1 << rng.below(8);
                fs::write(file, bytes).unwrap();
                "flip"
            }
        };
        let output = verify(&broken);
        assert!(!said(&output).contains("panicked"), "{}", said(&output));
        if output.status.success() {
            undetected.push(format!(
                "{what} at {at} of {}",
                file.strip_prefix(&broken).unwrap().display()
            ));
        }
    }
    assert!(undetected.is_empty(), "{undetected:#?}");
}

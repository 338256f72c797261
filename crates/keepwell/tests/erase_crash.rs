//! An erasure killed at each of its steps, in the real process: the next start finishes it, or nothing had been promised yet.
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
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use support::{Folder, Server, cli, observation, patient, said};

/// In order. At the first two nothing is promised yet.
const STEPS: [&str; 10] = [
    "first-place",
    "places",
    "copied",
    "next-torn",
    "next",
    "switched",
    "copy-switched",
    "first-overwritten",
    "overwritten",
    "announced",
];

fn stopped_at(step: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keepwell"))
        .args(arguments)
        .env("KEEPWELL_STOP_AT", step)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

struct Ids {
    gone: String,
    gone_observation: String,
    kept: String,
    both: String,
}

fn world(folder: &Path) -> Ids {
    let mut server = Server::demo_in(folder, &["--patients", "0"]);
    let mut client = server.client();
    let (gone, kept) = (
        client.create(&patient("Erasedname", "E")),
        client.create(&patient("Keptname", "K")),
    );
    let gone_observation = client.create(&observation(&gone, "1-1", 1.0));
    let appointment = |status: &str| {
        json!({"resourceType": "Appointment", "status": status, "participant": [
            {"actor": {"reference": format!("Patient/{gone}"), "display": "E. Erasedname"}, "status": "accepted"},
            {"actor": {"reference": format!("Patient/{kept}")}, "status": "accepted"}]})
    };
    let both = client.create(&appointment("proposed"));
    let mut again = appointment("cancelled");
    again["id"] = json!(both);
    client.put(&format!("/fhir/Appointment/{both}"), &again).expect(200);
    server.stop();
    Ids {
        gone,
        gone_observation,
        kept,
        both,
    }
}

/// Nothing of the erased patient can be had, and those who stay have what is theirs.
fn erased(server: &Server, ids: &Ids, step: &str) {
    let Ids {
        gone,
        gone_observation,
        kept,
        both,
    } = ids;
    let mut client = server.client();
    client.get(&format!("/fhir/Patient/{gone}")).refused(404);
    client
        .get(&format!("/fhir/Observation/{gone_observation}"))
        .refused(404);
    client.get(&format!("/fhir/Patient/{kept}")).expect(200);
    assert!(
        client.matches(&format!("Appointment?patient={gone}")).is_empty(),
        "{step}"
    );
    assert_eq!(
        client.matches(&format!("Appointment?patient={kept}")),
        std::slice::from_ref(both),
        "{step}"
    );
    let history = client.get(&format!("/fhir/Appointment/{both}/_history")).expect(200);
    assert_eq!(history.json()["total"], 2, "{step}");
    let all = history.text() + &client.get("/fhir/_history").expect(200).text();
    assert!(!all.contains(gone.as_str()) && !all.contains("Erasedname"), "{step}");
    assert!(all.contains("cancelled") && all.contains("proposed"), "{step}");
}

#[test]
fn an_erasure_killed_at_any_step_is_finished_by_the_next_start() {
    if !cfg!(debug_assertions) {
        println!("SKIPPED: a release build has no place to stop at");
        return;
    }
    let made = Folder::new();
    let ids = world(made.path());
    for step in STEPS {
        let folder = Folder::new();
        support::copy(made.path(), folder.path());
        let data = folder.join("data");
        let data = data.to_str().unwrap();
        let erase = [
            "erase",
            "--data",
            data,
            "--patient",
            &ids.gone,
            "--reason",
            "test",
            "--yes",
        ];
        let output = stopped_at(step, &erase);
        assert_eq!(output.status.signal(), Some(9), "{step}: {}", said(&output));
        let begun = !matches!(step, "first-place" | "places");
        if begun {
            // Killed once more while the next start finishes it, at whatever step that still meets.
            for again in ["next", "switched", "overwritten", "announced"] {
                let output = stopped_at(again, &["keys", "status", "--data", data]);
                assert!(
                    output.status.success() || output.status.signal() == Some(9),
                    "{step}, {again}"
                );
            }
        } else {
            let output = cli(&erase);
            assert!(output.status.success(), "{step}: {}", said(&output));
        }
        let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
        erased(&server, &ids, step);
        server.stop();
        let output = cli(&["verify", "--data", data]);
        assert!(output.status.success(), "{step}: {}", said(&output));
        // The index made anew from the rows says the same.
        fs::remove_file(folder.join("data/snapshot")).unwrap();
        let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
        erased(&server, &ids, step);
        server.stop();
        println!(
            "{step}: {}",
            if begun {
                "finished"
            } else {
                "not begun; erased when asked again"
            }
        );
    }
}

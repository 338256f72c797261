//! `keepwell import` takes every shared Synthea bundle, resumes after an interruption, and reports what it refuses.
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
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{Folder, Server, cli, data, said};

/// How many resources of each type the server holds.
fn total(server: &Server, kind: &str) -> u64 {
    server
        .client()
        .get(&format!("/fhir/{kind}?_summary=count"))
        .expect(200)
        .json()["total"]
        .as_u64()
        .expect("total")
}

#[test]
fn a_folder_of_bundles_is_imported_whole() {
    let Some(synthea) = data::set("synthea", 12, "Synthea bundles") else {
        return;
    };
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let input = folder.join("in");
    fs::create_dir(&input).unwrap();
    fs::copy(synthea.join("small-12.ndjson.zst"), input.join("small-12.ndjson.zst")).unwrap();
    for first in ["hospital-information.json.zst", "practitioner-information.json.zst"] {
        let output = cli(&[
            "import",
            "--data",
            server.data.to_str().unwrap(),
            synthea.join("v3-uscore-2021").join(first).to_str().unwrap(),
        ]);
        assert!(output.status.success(), "{}", said(&output));
    }
    let output = cli(&[
        "import",
        "--data",
        server.data.to_str().unwrap(),
        input.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(total(&server, "Patient"), 12);
}

#[test]
fn every_synthea_bundle_is_accepted() {
    // All 441 take minutes in a debug build: a sample by default, all with KEEPWELL_IMPORT_ALL=1.
    let all = support::setting("KEEPWELL_IMPORT_ALL", 0) == 1;
    let Some(synthea) = data::set("synthea", 441, "Synthea bundles") else {
        return;
    };
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut client = server.client();
    let mut refused = Vec::new();
    let mut post = |name: &str, bundle: &str| {
        let answer = client.send("POST", "/fhir", &[], Some(bundle.as_bytes()));
        let body = answer.json();
        let entries = body["entry"].as_array().cloned().unwrap_or_default();
        let bad = entries
            .iter()
            .filter(|entry| {
                !entry["response"]["status"]
                    .as_str()
                    .is_some_and(|status| status.starts_with('2'))
            })
            .count();
        if answer.status != 200 || bad > 0 {
            refused.push(format!(
                "{name}: {} ({bad} entries) {}",
                answer.status,
                answer.text().chars().take(500).collect::<String>()
            ));
        }
        entries.len()
    };
    let mut resources = 0;
    for first in ["hospital-information.json.zst", "practitioner-information.json.zst"] {
        resources += post(
            first,
            &String::from_utf8(data::zst(&synthea.join("v3-uscore-2021").join(first))).unwrap(),
        );
    }
    let mut bundles = 0;
    for (set, step) in [("v3-uscore-2021", 9), ("v2.4-r4-2019", 37)] {
        let mut parts: Vec<_> = support::files(&synthea.join(set))
            .into_iter()
            .filter(|path| path.to_str().is_some_and(|p| p.contains("part-")))
            .collect();
        parts.sort();
        for part in parts {
            for (line, bundle) in data::lines(&part)
                .iter()
                .enumerate()
                .step_by(if all { 1 } else { step })
            {
                resources += post(
                    &format!("{set} {} line {line}", part.file_name().unwrap().to_string_lossy()),
                    bundle,
                );
                bundles += 1;
            }
        }
    }
    println!(
        "{bundles} bundles, {resources} resources, {} bundles refused",
        refused.len()
    );
    assert!(refused.is_empty(), "{refused:#?}");
}

/// NDJSON of `count` patients and one resource that must be refused.
fn ndjson(count: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        text.push_str(&json!({"resourceType": "Patient", "id": format!("import-{n}"), "name": [{"family": format!("Import{n}")}]}).to_string());
        text.push('\n');
        if n == count / 2 {
            text.push_str("{\"resourceType\":\"Patient\",\"id\":\"import-bad\",\"gender\":\"nonsense\"}\n");
        }
    }
    text
}

#[test]
fn ndjson_goes_in_and_the_bad_line_is_named() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let file = folder.join("patients.ndjson");
    fs::write(&file, ndjson(200)).unwrap();
    let output = cli(&[
        "import",
        "--data",
        server.data.to_str().unwrap(),
        file.to_str().unwrap(),
    ]);
    let text = said(&output);
    assert!(
        text.contains("102") || text.contains("import-bad"),
        "the refused line is named: {text}"
    );
    assert!(text.contains("Patient.gender"), "with its reason: {text}");
    assert_eq!(total(&server, "Patient"), 200);
    // The same once more: nothing is doubled.
    let _ = cli(&[
        "import",
        "--data",
        server.data.to_str().unwrap(),
        file.to_str().unwrap(),
    ]);
    assert_eq!(total(&server, "Patient"), 200);
}

#[test]
fn an_interrupted_import_resumes() {
    let folder = Folder::new();
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    server.stop();
    let input = folder.join("in");
    fs::create_dir(&input).unwrap();
    for part in 0..40 {
        // Half a bundle would show in the counts.
        let entries: Vec<Value> = (0..50).map(|n| json!({"resource": {"resourceType": "Patient", "id": format!("part-{part}-{n}"), "name": [{"family": format!("Part{part}n{n}")}]}, "request": {"method": "POST", "url": "Patient"}})).collect();
        fs::write(
            input.join(format!("{part:02}.json")),
            json!({"resourceType": "Bundle", "type": "transaction", "entry": entries}).to_string(),
        )
        .unwrap();
    }
    let data_folder = folder.join("data");
    let arguments = [
        "import",
        "--data",
        data_folder.to_str().unwrap(),
        input.to_str().unwrap(),
    ];
    for wait in [150, 250, 400] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_keepwell"))
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        let _ = child.kill();
        let _ = child.wait();
    }
    let output = cli(&arguments);
    assert!(output.status.success(), "{}", said(&output));
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    assert_eq!(total(&server, "Patient"), 2000);
}

//! Erasure, backup and restore through the command line.
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
use support::{Folder, Server, cli, observation, patient, said};

#[test]
fn an_erased_patient_is_gone_and_the_rest_stays() {
    let folder = Folder::new();
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut client = server.client();
    let (gone, kept) = (
        client.create(&patient("Erasedname", "E")),
        client.create(&patient("Keptname", "K")),
    );
    let (gone_obs, kept_obs) = (
        client.create(&observation(&gone, "1-1", 1.0)),
        client.create(&observation(&kept, "1-1", 2.0)),
    );
    // A resource of both.
    let both = client.create(&json!({"resourceType": "Appointment", "status": "proposed", "participant": [
        {"actor": {"reference": format!("Patient/{gone}")}, "status": "accepted"}, {"actor": {"reference": format!("Patient/{kept}")}, "status": "accepted"}]}));
    let keyring_before = fs::read(server.data.join("keyring")).unwrap();
    let data = server.data.to_str().unwrap().to_owned();
    let output = cli(&[
        "erase",
        "--data",
        &data,
        "--patient",
        &gone,
        "--reason",
        "test",
        "--yes",
    ]);
    assert!(output.status.success(), "{}", said(&output));

    let still_true = |server: &Server| {
        let mut client = server.client();
        client.get(&format!("/fhir/Patient/{gone}")).refused(404);
        client.get(&format!("/fhir/Patient/{gone}/_history")).refused(404);
        client.get(&format!("/fhir/Patient/{gone}/_history/1")).refused(404);
        client.get(&format!("/fhir/Observation/{gone_obs}")).refused(404);
        assert!(client.matches("Patient?family=Erasedname").is_empty());
        assert_eq!(client.matches("Observation"), std::slice::from_ref(&kept_obs));
        assert_eq!(client.get("/fhir/Patient?_summary=count").json()["total"], 1);
        let history = client.get("/fhir/_history").expect(200).text();
        assert!(!history.contains("Erasedname") && !history.contains(&gone_obs));
        client.get(&format!("/fhir/Patient/{kept}")).expect(200);
        // What both shared is the other's alone now.
        let appointment = client.get(&format!("/fhir/Appointment/{both}")).expect(200).text();
        assert!(appointment.contains(&kept) && !appointment.contains(&gone));
        assert_eq!(
            client.matches(&format!("Appointment?patient={kept}")),
            std::slice::from_ref(&both)
        );
        assert!(client.matches(&format!("Appointment?patient={gone}")).is_empty());
        assert!(!history.contains(&gone));
    };
    still_true(&server);
    server.kill9();
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    still_true(&server);
    server.stop();
    let verified = cli(&["verify", "--data", &data]);
    assert!(verified.status.success(), "{}", said(&verified));

    // The keyring from before the erasure opens nothing: not the erased patient, not the others.
    let old = folder.join("old");
    support::copy(&folder.join("data"), &old.join("data"));
    fs::write(old.join("data/keyring"), keyring_before).unwrap();
    let refused = Server::try_demo_in(&old, &["--patients", "0"]);
    assert!(refused.is_err(), "an older keyring was accepted");

    // The id may be used again.
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut again = patient("Newname", "N");
    again["id"] = json!(gone);
    server
        .client()
        .put(&format!("/fhir/Patient/{gone}"), &again)
        .expect(201);
    server
        .client()
        .get(&format!("/fhir/Observation/{gone_obs}"))
        .refused(404);
    assert_eq!(
        server.client().matches(&format!("Observation?patient={gone}")),
        Vec::<String>::new()
    );
}

#[test]
fn what_rules_cannot_decide_waits_for_a_person() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut client = server.client();
    let (gone, kept) = (
        client.create(&patient("Erasedname", "E")),
        client.create(&patient("Keptname", "K")),
    );
    let both = client.create(&json!({"resourceType": "Appointment", "status": "proposed", "comment": "Mrs. Erasedname brings her friend", "participant": [
        {"actor": {"reference": format!("Patient/{gone}")}, "status": "accepted"}, {"actor": {"reference": format!("Patient/{kept}")}, "status": "accepted"}]}));
    let data = server.data.to_str().unwrap().to_owned();
    let erase = |more: &[&str]| {
        let mut all = vec!["erase", "--data", &data, "--patient", &gone, "--reason", "test"];
        all.extend(more);
        let output = cli(&all);
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let told = json!([{"resource": format!("Appointment/{both}"), "why": "its text may name the patient"}]);
    assert_eq!(erase(&[])["pending"], told);
    client.get(&format!("/fhir/Patient/{gone}")).expect(200);
    let done = erase(&["--yes"]);
    assert_eq!((&done["complete"], &done["pending"]), (&json!(false), &told));
    client.get(&format!("/fhir/Patient/{gone}")).refused(404);
    // Still there for a person to look at; then decided.
    assert!(
        client
            .get(&format!("/fhir/Appointment/{both}"))
            .expect(200)
            .text()
            .contains(&gone)
    );
    let done = erase(&["--yes", "--several", "redact"]);
    assert_eq!((&done["complete"], &done["redacted"]), (&json!(true), &json!(1)));
    let left = client.get(&format!("/fhir/Appointment/{both}")).expect(200).text();
    assert!(!left.contains(&gone) && left.contains(&kept));
    // The other is erased with everything that is shared.
    let done = {
        let output = cli(&[
            "erase",
            "--data",
            &data,
            "--patient",
            &kept,
            "--reason",
            "test",
            "--yes",
            "--several",
            "destroy",
        ]);
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    assert_eq!(done["complete"], json!(true));
    client.get(&format!("/fhir/Appointment/{both}")).refused(404);
    let verified = cli(&["verify", "--data", &data]);
    assert!(verified.status.success(), "{}", said(&verified));
}

#[test]
fn a_backup_restores_on_an_empty_machine() {
    let folder = Folder::new();
    let data = folder.join("site");
    let (backup, keys, era) = (folder.join("backup"), folder.join("keys"), folder.join("era-copy"));
    let passphrase = folder.join("passphrase");
    fs::write(&passphrase, "the passphrase that will be lost\n").unwrap();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let output = cli(&[
        "init",
        "--data",
        &text(&data),
        "--passphrase-file",
        &text(&passphrase),
        "--era-copy",
        &text(&era),
        "--name",
        "localhost",
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let printed = said(&output);
    let recovery = printed
        .lines()
        .filter(|line| line.to_lowercase().contains("recovery"))
        .chain(printed.lines())
        .find_map(|line| {
            line.split_whitespace().find(|word| {
                word.len() >= 40 && word.contains('-') && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            })
        })
        .unwrap_or_else(|| panic!("a recovery key is printed: {printed}"))
        .to_owned();
    let token_file = folder.join("token");
    let arguments = [
        "serve",
        "--data",
        &text(&data),
        "--listen",
        "127.0.0.1:0",
        "--plain-http",
        "--passphrase-file",
        &text(&passphrase),
    ];
    let mut server = Server::start(&arguments, &data, &folder.join("log"), None).expect("serve");
    fs::write(&token_file, server.issue(&["--scope", "system/*.cruds", "--ttl", "1h"])).unwrap();
    let mut client = server.client_with(fs::read_to_string(&token_file).unwrap().trim());
    let id = client.create(&patient("Backup", "B"));
    let observation_id = client.create(&observation(&id, "1-1", 5.0));
    // Online, while the server runs.
    let output = cli(&[
        "backup",
        "--data",
        &text(&data),
        &text(&backup),
        "--keys-to",
        &text(&keys),
    ]);
    assert!(output.status.success(), "{}", said(&output));
    for file in support::files(&backup) {
        let bytes = fs::read(&file).unwrap();
        assert!(
            support::find(&bytes, b"Backup").is_none() || file.ends_with("README"),
            "{}",
            file.display()
        );
        assert_ne!(
            file.file_name().and_then(|name| name.to_str()),
            Some("keyring"),
            "a data backup holds no keys"
        );
    }
    server.stop();
    let era_file = if era.is_dir() { era.join("era") } else { era.clone() };
    let era_saved = folder.join("era-saved");
    fs::copy(&era_file, &era_saved).unwrap();

    // An empty machine: only backup, keyring copy, ERA copy and recovery key are left.
    fs::remove_dir_all(&data).unwrap();
    fs::remove_file(&passphrase).unwrap();
    let recovery_file = folder.join("recovery");
    fs::write(&recovery_file, format!("{recovery}\n")).unwrap();
    let fresh = folder.join("fresh");
    let output = cli(&[
        "restore",
        "--data",
        &text(&fresh),
        &text(&backup),
        "--keys-from",
        &text(&keys),
        "--era-from",
        &text(&era_saved),
        "--recovery-key-file",
        &text(&recovery_file),
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let arguments = [
        "serve",
        "--data",
        &text(&fresh),
        "--listen",
        "127.0.0.1:0",
        "--plain-http",
        "--recovery-key-file",
        &text(&recovery_file),
    ];
    let mut server = Server::start(&arguments, &fresh, &folder.join("log"), None).expect("serve what was restored");
    let token = server.issue(&["--scope", "system/*.cruds", "--ttl", "1h"]);
    let mut client = server.client_with(&token);
    assert_eq!(
        client.get(&format!("/fhir/Patient/{id}")).expect(200).json()["name"][0]["family"],
        "Backup"
    );
    assert_eq!(client.matches(&format!("Observation?patient={id}")), [observation_id]);
    server.stop();

    // A damaged backup is refused, not half restored.
    let victim = support::files(&backup)
        .into_iter()
        .max_by_key(|file| fs::metadata(file).map_or(0, |meta| meta.len()))
        .unwrap();
    let mut bytes = fs::read(&victim).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&victim, bytes).unwrap();
    let broken = folder.join("broken");
    let output = cli(&[
        "restore",
        "--data",
        &text(&broken),
        &text(&backup),
        "--keys-from",
        &text(&keys),
        "--era-from",
        &text(&era_saved),
        "--recovery-key-file",
        &text(&recovery_file),
    ]);
    assert!(!output.status.success(), "{}", said(&output));
}

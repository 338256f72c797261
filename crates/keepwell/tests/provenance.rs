//! API-4: every kind of write has its provenance (who, for whom, when, what for, in which role, through what, proven by
//! the log), and a stored row or entry that was changed is never shown as if nothing had happened.
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
use support::{Client, Folder, Server, cli, observation, patient, said, treated};

/// The Provenance resources of one resource, newest version first.
fn provenance(client: &mut Client, of: &str) -> Vec<Value> {
    let bundle = client.get(&format!("/fhir/{of}/$provenance")).expect(200).json();
    let all: Vec<Value> = bundle["entry"]
        .as_array()
        .expect("entries")
        .iter()
        .map(|entry| entry["resource"].clone())
        .collect();
    assert_eq!(bundle["total"], all.len(), "one for each version");
    all
}

/// What is expected of one Provenance.
struct Expected<'a> {
    version: usize,
    /// v3 DataOperation, and how it was asked for.
    operation: [&'a str; 2],
    user: &'a str,
    role: &'a str,
    purpose: &'a str,
    /// A patient's reference, or nothing for the organisation.
    on_behalf_of: Option<&'a str>,
    /// Through a token.
    token: bool,
}

fn check(client: &mut Client, of: &str, p: &Value, wanted: &Expected<'_>) {
    let what = format!("{of} version {}: {p}", wanted.version);
    assert_eq!(p["resourceType"], "Provenance");
    assert_eq!(
        p["target"][0]["reference"],
        format!("{of}/_history/{}", wanted.version),
        "{what}"
    );
    // When: it was asked for and then recorded, and the version itself says the same time.
    let (occurred, recorded) = (p["occurredDateTime"].as_str().unwrap(), p["recorded"].as_str().unwrap());
    assert!(occurred <= recorded && recorded.len() >= 20, "{what}");
    if wanted.operation[0] != "DELETE" {
        let version = client
            .get(&format!("/fhir/{of}/_history/{}", wanted.version))
            .expect(200)
            .json();
        let updated = version["meta"]["lastUpdated"].as_str().unwrap();
        assert_eq!(recorded[..19], updated[..19], "{what}");
    }
    let activity = [&p["activity"]["coding"][0], &p["activity"]["coding"][1]];
    assert_eq!(
        activity.map(|coding| coding["code"].as_str().unwrap()),
        wanted.operation,
        "{what}"
    );
    // Who, in which role, for whom, what for.
    let author = &p["agent"][0];
    assert_eq!(author["type"]["coding"][0]["code"], "author");
    assert_eq!(author["who"]["identifier"]["value"], wanted.user, "{what}");
    assert!(
        author["who"]["display"].as_str().is_some_and(|name| !name.is_empty()),
        "{what}"
    );
    assert_eq!(author["role"][0]["text"], wanted.role, "{what}");
    match wanted.on_behalf_of {
        Some(patient) => assert_eq!(author["onBehalfOf"]["reference"], patient, "{what}"),
        None => assert_eq!(author["onBehalfOf"]["type"], "Organization", "{what}"),
    }
    assert_eq!(p["reason"][0]["coding"][0]["code"], wanted.purpose, "{what}");
    // Through which token: by its public id, never the token.
    let through = p["agent"][1]["who"]["identifier"]["value"].as_str();
    assert_eq!(
        through.is_some_and(|id| id.starts_with("urn:ietf:params:oauth:jti:") && id.len() < 80),
        wanted.token,
        "{what}"
    );
    // Proven by the log, and by which of its entries.
    assert_eq!(p["policy"][0], "urn:keepwell:log:proven", "{what}");
    let entry = p["id"]
        .as_str()
        .unwrap()
        .strip_prefix("entry-")
        .expect("the entry's number");
    assert!(entry.parse::<u64>().is_ok(), "{what}");
    // And it is what it says it is: a valid resource.
    let outcome = client.post("/fhir/Provenance/$validate", p).expect(200).json();
    let faults: Vec<&Value> = outcome["issue"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|issue| issue["severity"] != "information")
        .collect();
    assert!(faults.is_empty(), "{what}: {faults:#?}");
}

const PATCH: &str = r#"[{"op": "add", "path": "/note", "value": [{"text": "patched"}]}]"#;

fn patch(client: &mut Client, path: &str) {
    let headers = [("Content-Type", "application/json-patch+json")];
    client.send("PATCH", path, &headers, Some(PATCH.as_bytes())).expect(200);
}

fn bundle(kind: &str, entries: &Value) -> Value {
    json!({"resourceType": "Bundle", "type": kind, "entry": entries})
}

/// The `Type/id` that a response entry names.
fn located(answer: &Value, entry: usize) -> String {
    let location = answer["entry"][entry]["response"]["location"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"));
    let parts: Vec<&str> = location.split('/').collect();
    let end = parts.iter().position(|part| *part == "_history").unwrap_or(parts.len());
    format!("{}/{}", parts[end - 2], parts[end - 1])
}

#[test]
fn every_kind_of_write_says_who_for_whom_when_what_for_and_is_proven() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut all = server.client();
    let (home, other) = (all.create(&treated("Origin", "O")), all.create(&treated("Other", "O")));
    let doctor = server.issue(&["--role", "physician", "--user", "amara.okafor", "--ttl", "1h"]);
    let mut doctor = server.client_with(&doctor);
    let by = |version, operation, on_behalf_of| Expected {
        version,
        operation,
        user: "amara.okafor",
        role: "physician",
        purpose: "TREAT",
        on_behalf_of,
        token: true,
    };

    // Create, update, patch, delete and create again, each by id.
    let id = doctor.create(&observation(&home, "1-1", 1.0));
    let path = format!("/fhir/Observation/{id}");
    let mut body = observation(&home, "1-1", 2.0);
    body["id"] = json!(id);
    doctor.put(&path, &body).expect(200);
    patch(&mut doctor, &path);
    assert!(matches!(doctor.delete(&path).status, 200 | 204));
    doctor.put(&path, &body).expect(201);
    let of = format!("Observation/{id}");
    let found = provenance(&mut all, &of);
    let steps = [
        ["CREATE", "create"],
        ["UPDATE", "update"],
        ["UPDATE", "patch"],
        ["DELETE", "delete"],
        ["CREATE", "update"],
    ];
    assert_eq!(found.len(), steps.len());
    for (at, operation) in steps.into_iter().enumerate() {
        check(
            &mut all,
            &of,
            &found[steps.len() - 1 - at],
            &by(at + 1, operation, None),
        );
    }

    // The conditional forms.
    let conditional = |code: &str| {
        let mut body = observation(&home, code, 1.0);
        body["identifier"] = json!([{"value": code}]);
        body
    };
    let headers = [("If-None-Exist", "identifier=2-2")];
    let made = doctor.send(
        "POST",
        "/fhir/Observation",
        &headers,
        Some(conditional("2-2").to_string().as_bytes()),
    );
    let of = format!("Observation/{}", made.expect(201).location().0);
    doctor
        .put("/fhir/Observation?identifier=2-2", &conditional("2-2"))
        .expect(200);
    patch(&mut doctor, "/fhir/Observation?identifier=2-2");
    assert!(matches!(
        doctor.delete("/fhir/Observation?identifier=2-2").status,
        200 | 204
    ));
    let found = provenance(&mut all, &of);
    let steps = [
        ["CREATE", "create"],
        ["UPDATE", "update"],
        ["UPDATE", "patch"],
        ["DELETE", "delete"],
    ];
    // An update that changes nothing makes no version.
    let steps: Vec<_> = steps
        .into_iter()
        .filter(|step| found.len() == 4 || step[1] != "update")
        .collect();
    assert_eq!(found.len(), steps.len());
    for (at, operation) in steps.into_iter().enumerate() {
        check(
            &mut all,
            &of,
            &found[found.len() - 1 - at],
            &by(at + 1, operation, None),
        );
    }

    // Entries of a batch and of a transaction.
    for (kind, way) in [("batch", "create"), ("transaction", "transaction")] {
        let entry =
            json!([{"resource": observation(&home, "3-3", 1.0), "request": {"method": "POST", "url": "Observation"}}]);
        let of = located(&doctor.post("/fhir", &bundle(kind, &entry)).expect(200).json(), 0);
        let found = provenance(&mut all, &of);
        assert_eq!(found.len(), 1);
        check(&mut all, &of, &found[0], &by(1, ["CREATE", way], None));
        let gone = json!([{"request": {"method": "DELETE", "url": of}}]);
        doctor.post("/fhir", &bundle(kind, &gone)).expect(200);
        let found = provenance(&mut all, &of);
        let way = if kind == "batch" { "delete" } else { way };
        check(&mut all, &of, &found[0], &by(2, ["DELETE", way], None));
    }

    // A machine that acts for one patient says so; one that acts for the organisation does as well.
    let app = server.issue(&[
        "--scope",
        "patient/*.cruds",
        "--patient",
        &home,
        "--user",
        "phone",
        "--ttl",
        "1h",
    ]);
    let of = format!(
        "Observation/{}",
        server.client_with(&app).create(&observation(&home, "4-4", 1.0))
    );
    let reference = format!("Patient/{home}");
    let machine = |user, on_behalf_of, operation, version, purpose, token| Expected {
        version,
        operation,
        user,
        role: "service",
        purpose,
        on_behalf_of,
        token,
    };
    let found = provenance(&mut all, &of);
    let purpose = found[0]["reason"][0]["coding"][0]["code"].as_str().unwrap().to_owned();
    check(
        &mut all,
        &of,
        &found[0],
        &machine("phone", Some(&reference), ["CREATE", "create"], 1, &purpose, true),
    );
    let interface = server.issue(&["--scope", "system/*.cruds", "--user", "laboratory", "--ttl", "1h"]);
    let of = format!(
        "Observation/{}",
        server.client_with(&interface).create(&observation(&home, "5-5", 1.0))
    );
    let found = provenance(&mut all, &of);
    check(
        &mut all,
        &of,
        &found[0],
        &machine("laboratory", None, ["CREATE", "create"], 1, &purpose, true),
    );

    // An import by the installation.
    let input = folder.join("import.json");
    let mut imported = observation(&home, "6-6", 1.0);
    imported["id"] = json!("imported-1");
    let entry = json!([{"resource": imported, "request": {"method": "PUT", "url": "Observation/imported-1"}}]);
    fs::write(&input, bundle("transaction", &entry).to_string()).unwrap();
    let data = server.data.to_str().unwrap().to_owned();
    let output = cli(&["import", "--data", &data, input.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    let found = provenance(&mut all, "Observation/imported-1");
    let job = found[0]["agent"][0]["who"]["identifier"]["value"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(job.starts_with("job:"), "{job}");
    let wanted = machine(&job, None, ["CREATE", "transaction"], 1, "HSYSADMIN", false);
    check(&mut all, "Observation/imported-1", &found[0], &wanted);

    // What an erasure left of a resource of two, and why.
    let both = all.create(
        &json!({"resourceType": "Appointment", "status": "proposed", "participant": [
        {"actor": {"reference": format!("Patient/{home}")}, "status": "accepted"},
        {"actor": {"reference": format!("Patient/{other}")}, "status": "accepted"}]}),
    );
    let output = cli(&[
        "erase",
        "--data",
        &data,
        "--patient",
        &other,
        "--reason",
        "asked for by letter",
        "--yes",
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let of = format!("Appointment/{both}");
    let found = provenance(&mut all, &of);
    let newest = &found[0];
    let job = newest["agent"][0]["who"]["identifier"]["value"]
        .as_str()
        .unwrap()
        .to_owned();
    let version = usize::try_from(
        all.get(&format!("/fhir/{of}")).json()["meta"]["versionId"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap(),
    )
    .unwrap();
    assert_eq!(newest["activity"]["text"], "erase", "{newest}");
    assert_eq!(newest["reason"][1]["text"], "asked for by letter", "{newest}");
    check(
        &mut all,
        &of,
        newest,
        &machine(&job, None, ["UPDATE", "operation"], version, "HSYSADMIN", false),
    );

    // Who may not see the resource is not told who wrote it.
    let mine = server.issue(&["--role", "patient", "--user", "p", "--patient", &home, "--ttl", "1h"]);
    let stranger = all.create(&patient("Stranger", "S"));
    server
        .client_with(&mine)
        .get(&format!("/fhir/Patient/{stranger}/$provenance"))
        .refused(404);
}

/// Flips one bit in the middle of `part` where it lies in the database file.
fn flip(data: &std::path::Path, part: &[u8]) {
    let file = data.join(keepwell_store::DATABASE);
    let mut bytes = fs::read(&file).unwrap();
    let at = support::find(&bytes, part).expect("it lies in one piece") + part.len() / 2;
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
}

#[test]
fn a_row_or_entry_changed_in_the_database_is_noticed_by_every_way_of_reading() {
    let folder = Folder::new();
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut client = server.client();
    let home = client.create(&patient("Signed", "S"));
    let store = keepwell_store::Store::open_read_only(&server.data).unwrap();
    let note = client.create(
        &json!({"resourceType": "DocumentReference", "status": "current", "docStatus": "final",
        "subject": {"reference": format!("Patient/{home}")}, "description": "what the doctor signed",
        "content": [{"attachment": {"contentType": "text/plain", "data": "aGk="}}]}),
    );
    let rid = store.view().unwrap().last_rid().unwrap();
    let end = store.view().unwrap().size().unwrap();
    drop(store);
    server.stop();
    let pristine = folder.join("pristine");
    support::copy(&server.data, &pristine);
    let store = keepwell_store::Store::open_read_only(&pristine).unwrap();
    let body = store.row(rid).unwrap().unwrap().body;
    let event = (0..end)
        .rev()
        .find_map(|seq| store.entry(seq).unwrap()?.sealed)
        .expect("the event of the write");
    drop(store);

    let ways = [
        format!("DocumentReference/{note}"),
        format!("DocumentReference/{note}/_history/1"),
        format!("DocumentReference/{note}/_history"),
        "DocumentReference/_history".to_owned(),
        "_history".to_owned(),
        format!("DocumentReference?patient={home}"),
        format!("Patient/{home}/DocumentReference"),
        format!("Patient?_id={home}&_revinclude=DocumentReference:patient"),
        format!("Patient/{home}/$everything"),
    ];
    let again = |part: Option<&[u8]>| {
        fs::remove_dir_all(folder.join("data")).unwrap();
        support::copy(&pristine, &folder.join("data"));
        if let Some(part) = part {
            flip(&folder.join("data"), part);
        }
        Server::demo_in(folder.path(), &["--patients", "0"])
    };
    let entry = |url: &str| json!([{"request": {"method": "GET", "url": url}}]);

    // As it was, each of the ways shows it.
    let server = again(None);
    let mut client = server.client();
    for way in &ways {
        let answer = client.get(&format!("/fhir/{way}")).expect(200);
        assert!(answer.text().contains("what the doctor signed"), "{way}");
    }
    let of = format!("DocumentReference/{note}");
    assert_eq!(provenance(&mut client, &of)[0]["policy"][0], "urn:keepwell:log:proven");
    drop(server);

    // One bit of the row: nothing is shown, and it is not left out as if it never had been.
    let mut server = again(Some(&body));
    let mut client = server.client();
    for way in &ways {
        let answer = client.get(&format!("/fhir/{way}"));
        assert!(!answer.text().contains("what the doctor signed"), "{way}");
        answer.refused(500);
        let answer = client.post("/fhir", &bundle("batch", &entry(way)));
        if answer.status == 200 {
            let answer = answer.json();
            let status = answer["entry"][0]["response"]["status"].as_str().unwrap().to_owned();
            assert!(!status.starts_with('2'), "{way}: {answer}");
        }
    }
    server.stop();
    let verified = cli(&["verify", "--data", server.data.to_str().unwrap()]);
    assert!(!verified.status.success(), "{}", said(&verified));

    // One bit of the entry that says who wrote it.
    let mut server = again(Some(&event));
    let mut client = server.client();
    client.get(&format!("/fhir/{of}")).expect(200);
    let answer = client.get(&format!("/fhir/{of}/$provenance"));
    assert!(
        answer.status == 500 || answer.text().contains("urn:keepwell:log:unproven"),
        "{}",
        answer.text()
    );
    println!("a changed entry: {}", answer.status);
    server.stop();
    let verified = cli(&["verify", "--data", server.data.to_str().unwrap()]);
    assert!(!verified.status.success(), "{}", said(&verified));
}

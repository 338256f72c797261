//! References with this server's own base in front are local everywhere: searches, compartments, authorization and
//! erasure. What an erasure leaves to searches that were begun before it.
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
use std::collections::BTreeSet;
use std::fs;
use support::{Client, Folder, Server, cli, link, observation, patient, said};

/// How the demo, whose site is `localhost`, may be named, at the port it has now and at others.
fn own_bases(server: &Server) -> Vec<String> {
    let now = server.ready["fhir"].as_str().unwrap().to_owned();
    let mut all: Vec<String> = [
        "http://localhost/fhir",
        "HTTPS://LocalHost:8443/fhir",
        "http://127.0.0.1:1/fhir",
        "http://[::1]:80/fhir",
    ]
    .map(str::to_owned)
    .into();
    all.push(now);
    all
}

const FOREIGN: [&str; 4] = [
    "http://localhost.evil/fhir",
    "http://localhost@evil/fhir",
    "http://localhost/r4/fhir",
    "https://clinic.example/fhir",
];

fn about(reference: &str, code: &str) -> Value {
    let mut resource = observation("x", code, 1.0);
    resource["subject"]["reference"] = json!(reference);
    resource
}

struct Chart {
    patient: String,
    /// Observations that name the patient by this server's own base.
    own: BTreeSet<String>,
    /// Those that name a patient of that id elsewhere.
    foreign: BTreeSet<String>,
}

fn chart(server: &Server, client: &mut Client, family: &str) -> Chart {
    let patient = client.create(&patient(family, "X"));
    let mut post = |base: &str, tail: &str| {
        let reference = format!("{base}/Patient/{patient}{tail}");
        let id = client.create(&about(&reference, "own"));
        // Stored as received.
        let read = client.get(&format!("/fhir/Observation/{id}")).expect(200).json();
        assert_eq!(read["subject"]["reference"], reference);
        id
    };
    let mut own: BTreeSet<String> = own_bases(server).iter().map(|base| post(base, "")).collect();
    own.insert(post("http://localhost/fhir", "/_history/2"));
    let foreign = FOREIGN.iter().map(|base| post(base, "")).collect();
    Chart { patient, own, foreign }
}

fn set(client: &mut Client, query: &str) -> BTreeSet<String> {
    client.matches(query).into_iter().collect()
}

/// Ids of the entries of one answer that are of a type.
fn shown(bundle: &Value, kind: &str) -> BTreeSet<String> {
    let entries = bundle["entry"].as_array().into_iter().flatten();
    entries
        .filter(|e| e["resource"]["resourceType"] == kind)
        .map(|e| e["resource"]["id"].as_str().unwrap().to_owned())
        .collect()
}

fn everywhere(server: &Server, chart: &Chart, family: &str) {
    let mut client = server.client();
    let Chart { patient, own, .. } = chart;
    let port = server.port;
    for query in [
        format!("Observation?patient={patient}"),
        format!("Observation?subject=Patient/{patient}"),
        format!("Observation?subject=http://127.0.0.1:{port}/fhir/Patient/{patient}"),
        format!("Observation?subject=https://LOCALHOST/fhir/Patient/{patient}"),
        format!("Observation?patient.family={family}"),
        format!("Patient/{patient}/Observation?status=final"),
    ] {
        assert_eq!(set(&mut client, &query), *own, "{query}");
    }
    let has = format!("Patient?_has:Observation:patient:code=own&family={family}");
    assert_eq!(client.matches(&has), std::slice::from_ref(patient));
    let one = own.first().unwrap();
    let included = client
        .get(&format!("/fhir/Observation?_id={one}&_include=Observation:subject"))
        .expect(200)
        .json();
    assert_eq!(shown(&included, "Patient"), BTreeSet::from([patient.clone()]));
    let included = client
        .get(&format!("/fhir/Patient?_id={patient}&_revinclude=Observation:patient"))
        .expect(200)
        .json();
    assert_eq!(shown(&included, "Observation"), *own);
    let all = client
        .get(&format!("/fhir/Patient/{patient}/$everything"))
        .expect(200)
        .json();
    assert_eq!(shown(&all, "Observation"), *own);
}

fn as_patient(server: &Server, id: &str) -> Client {
    server.client_with(&server.issue(&["--role", "patient", "--user", "p", "--patient", id, "--ttl", "1h"]))
}

/// A patient sees what names them by the own base; another patient does not, in no way.
fn authorized(server: &Server, mine: &Chart, theirs: &Chart) {
    let mut client = as_patient(server, &mine.patient);
    for id in &mine.own {
        client.get(&format!("/fhir/Observation/{id}")).expect(200);
    }
    assert_eq!(set(&mut client, "Observation?status=final"), mine.own);
    let mut other = as_patient(server, &theirs.patient);
    for id in &mine.own {
        other.get(&format!("/fhir/Observation/{id}")).refused(404);
        other.get(&format!("/fhir/Observation/{id}/_history/1")).refused(404);
    }
    assert_eq!(set(&mut other, "Observation?status=final"), theirs.own);
    assert!(set(&mut other, &format!("Observation?subject={}", mine.patient)).is_empty());
}

fn erase(server: &Server, patient: &str) -> Value {
    let data = server.data.to_str().unwrap();
    let output = cli(&[
        "erase",
        "--data",
        data,
        "--patient",
        patient,
        "--reason",
        "test",
        "--yes",
    ]);
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_reference_with_the_own_base_is_local_everywhere() {
    let folder = Folder::new();
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut client = server.client();
    let mine = chart(&server, &mut client, "Absolutemine");
    let theirs = chart(&server, &mut client, "Absolutetheirs");
    let actor =
        |base: &str, id: &str| json!({"actor": {"reference": format!("{base}/Patient/{id}")}, "status": "accepted"});
    let base = server.ready["fhir"].as_str().unwrap().to_owned();
    let both = client.create(&json!({"resourceType": "Appointment", "status": "proposed",
        "participant": [actor(&base, &mine.patient), actor("https://localhost/fhir", &theirs.patient)]}));
    everywhere(&server, &mine, "Absolutemine");
    authorized(&server, &mine, &theirs);

    // The index from the rows alone, and from a snapshot; each time at another port.
    let port = server.port;
    server.kill9();
    let _ = fs::remove_file(server.data.join("snapshot"));
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    println!("port {port}, then {}", server.port);
    everywhere(&server, &mine, "Absolutemine");
    authorized(&server, &mine, &theirs);
    server.stop();
    assert!(server.data.join("snapshot").is_file());
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    everywhere(&server, &mine, "Absolutemine");
    authorized(&server, &mine, &theirs);

    // The erasure reaches them all, and what they share with others is the others' alone.
    let done = erase(&server, &mine.patient);
    assert_eq!(
        (&done["complete"], &done["redacted"]),
        (&json!(true), &json!(1)),
        "{done}"
    );
    let gone = |server: &Server| {
        let mut client = server.client();
        for id in &mine.own {
            client.get(&format!("/fhir/Observation/{id}")).refused(404);
        }
        for id in &mine.foreign {
            client.get(&format!("/fhir/Observation/{id}")).expect(200);
        }
        let appointment = client.get(&format!("/fhir/Appointment/{both}")).expect(200).text();
        assert!(appointment.contains(&theirs.patient) && !appointment.contains(&mine.patient));
        assert_eq!(
            client.matches(&format!("Appointment?patient={}", theirs.patient)),
            std::slice::from_ref(&both)
        );
        everywhere(server, &theirs, "Absolutetheirs");
    };
    gone(&server);
    server.stop();
    let data = server.data.to_str().unwrap().to_owned();
    let verified = cli(&["verify", "--data", &data]);
    assert!(verified.status.success(), "{}", said(&verified));
    let _ = fs::remove_file(server.data.join("snapshot"));
    gone(&Server::demo_in(folder.path(), &["--patients", "0"]));
}

/// Homes depend on the name of the site: a directory does not open under another one.
#[test]
fn a_site_keeps_its_name() {
    let folder = Folder::new();
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    server.stop();
    let settings = server.data.join("settings.json");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, text.replace("\"localhost\"", "\"clinic.example\"")).unwrap();
    let refused = Server::try_demo_in(folder.path(), &["--patients", "0"])
        .err()
        .expect("refused");
    assert!(refused.contains("keeps the name"), "{refused}");
    fs::write(&settings, text).unwrap();
    assert!(Server::try_demo_in(folder.path(), &["--patients", "0"]).is_ok());
}

#[test]
fn pages_after_an_erasure_show_nothing_of_the_erased_and_miss_nothing_of_others() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut client = server.client();
    let (gone, kept) = (
        client.create(&patient("Pagegone", "G")),
        client.create(&patient("Pagekept", "K")),
    );
    let mut of_kept = BTreeSet::new();
    for n in 0..12 {
        client.create(&observation(&gone, "page", f64::from(n)));
        of_kept.insert(client.create(&observation(&kept, "page", f64::from(n))));
    }
    let actor = |id: &str| json!({"actor": {"reference": format!("Patient/{id}")}, "status": "accepted"});
    let shared: BTreeSet<String> = (0..4)
        .map(|_| {
            client.create(&json!({"resourceType": "Appointment", "status": "proposed",
                "participant": [actor(&gone), actor(&kept)]}))
        })
        .collect();
    let begun: Vec<(String, Value)> = [
        "Observation?code=page&_count=5".to_owned(),
        "Observation?code=page&_count=5&_sort=date".to_owned(),
        "Observation?code=page&_count=5&_total=accurate".to_owned(),
        format!("Appointment?patient={kept}&_count=2"),
        "Patient?_sort=family&_count=1".to_owned(),
        "Patient?_count=1&_revinclude=Observation:patient".to_owned(),
    ]
    .into_iter()
    .map(|query| {
        let first = client.get(&format!("/fhir/{query}")).expect(200).json();
        (query, first)
    })
    .collect();
    let everything = |count: usize| format!("/fhir/Patient/{kept}/$everything?_count={count}");
    let first = client.get(&everything(3)).expect(200).json();
    let mut seen = shown(&first, "Observation");
    seen.extend(shown(&first, "Appointment"));
    // Changed since the first page: its old values go with the erasure, and it moves behind what was not shown yet.
    let changed = shown(&first, "Observation").first().unwrap().clone();
    let mut body = observation(&kept, "page", 77.0);
    body["id"] = json!(changed);
    client.put(&format!("/fhir/Observation/{changed}"), &body).expect(200);

    assert_eq!(erase(&server, &gone)["complete"], true);

    for (query, first) in begun {
        let next = link(&first, "next").unwrap_or_else(|| panic!("{query} has one page"));
        let refused = client.get(&next).refused(410);
        assert!(!refused.to_string().contains(&gone), "{query}");
        // Asked anew, it is complete, and the erased is not counted.
        let again = client.get(&format!("/fhir/{query}")).expect(200).json();
        let total = again["total"].as_u64();
        let all = set(&mut client, &query);
        let wanted = match query.split('?').next() {
            Some("Observation") => &of_kept,
            Some("Appointment") => &shared,
            _ => &BTreeSet::from([kept.clone()]),
        };
        assert_eq!(all, *wanted, "{query}");
        assert!(total.is_none_or(|n| n == wanted.len() as u64), "{query}: {total:?}");
        assert!(!again.to_string().contains(&gone), "{query}");
    }
    // `$everything` goes on where it was: nothing missed, nothing of the erased.
    let mut at = link(&first, "next");
    while let Some(path) = at {
        let page = client.get(&path).expect(200).json();
        assert!(!page.to_string().contains(&gone));
        seen.extend(shown(&page, "Observation"));
        seen.extend(shown(&page, "Appointment"));
        at = link(&page, "next");
    }
    assert_eq!(seen, &of_kept | &shared);
    // A search begun after the erasure pages as ever, whatever is written meanwhile.
    let first = client.get("/fhir/Observation?code=page&_count=5").expect(200).json();
    let mut paged = shown(&first, "Observation");
    client.put(&format!("/fhir/Observation/{changed}"), &body).expect(200);
    client.create(&observation(&kept, "page", 1.0));
    let mut at = link(&first, "next");
    while let Some(path) = at {
        let page = client.get(&path).expect(200).json();
        paged.extend(shown(&page, "Observation"));
        at = link(&page, "next");
    }
    assert_eq!(paged, of_kept);
}

//! FHIR search over HTTP (<https://hl7.org/fhir/R4/search.html>): what the answer keys of `search_keys.rs` do not ask for.
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
use support::{Client, Server, link, observation, patient};

/// A client of a clinic with three patients, five observations each, and a practitioner.
fn world() -> (Server, Client, Vec<String>) {
    let server = Server::empty();
    let mut client = server.client();
    let doctor =
        client.create(&json!({"resourceType": "Practitioner", "name": [{"family": "Welby", "given": ["Marcus"]}]}));
    let mut ids = Vec::new();
    for (n, family) in ["Åkesson", "Baker", "Chan"].iter().enumerate() {
        let mut resource = patient(family, &format!("Given{n}"));
        resource["birthDate"] = json!(format!("19{}0-0{}-15", 5 + n, n + 1));
        resource["generalPractitioner"] = json!([{"reference": format!("Practitioner/{doctor}")}]);
        resource["identifier"] = json!([{"type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]}, "system": "urn:mrn", "value": format!("m{n}")}]);
        let id = client.create(&resource);
        for value in 0..5 {
            client.create(&observation(&id, &format!("{value}-0"), f64::from(value) + 0.5));
        }
        ids.push(id);
    }
    (server, client, ids)
}

fn modes(bundle: &Value, mode: &str) -> usize {
    bundle["entry"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| entry["search"]["mode"] == mode)
        .count()
}

#[test]
fn the_shape_of_a_searchset() {
    let (server, mut client, _) = world();
    let bundle = client.get("/fhir/Patient?family=Baker").expect(200).json();
    assert_eq!(
        (&bundle["resourceType"], &bundle["type"], &bundle["total"]),
        (&json!("Bundle"), &json!("searchset"), &json!(1))
    );
    let entry = &bundle["entry"][0];
    assert_eq!(entry["search"]["mode"], "match");
    assert_eq!(
        entry["fullUrl"],
        json!(format!(
            "http://127.0.0.1:{}/fhir/Patient/{}",
            server.port,
            entry["resource"]["id"].as_str().unwrap()
        ))
    );
    let own = link(&bundle, "self").expect("self");
    assert!(own.contains("family=Baker"), "{own}");
    // An empty answer has no empty array.
    let none = client.get("/fhir/Patient?family=Nobody").expect(200).json();
    assert_eq!(none["total"], 0);
    assert!(none.get("entry").is_none());
}

#[test]
fn strings_tokens_and_dates() {
    let (_server, mut client, ids) = world();
    let one = |at: usize| vec![ids[at].clone()];
    for (query, wanted) in [
        ("Patient?family=akes", one(0)),
        ("Patient?family=%C3%85KES", one(0)),
        ("Patient?family:exact=Baker", one(1)),
        ("Patient?family:exact=baker", vec![]),
        ("Patient?family:contains=ake", vec![ids[0].clone(), ids[1].clone()]),
        ("Patient?name=given2", one(2)),
        ("Patient?identifier=urn:mrn|m1", one(1)),
        ("Patient?identifier=m1", one(1)),
        ("Patient?identifier=|m1", vec![]),
        ("Patient?identifier=urn:mrn|", ids.clone()),
        (
            "Patient?identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|MR|m2",
            one(2),
        ),
        ("Patient?birthdate=1950", one(0)),
        ("Patient?birthdate=gt1959", vec![ids[1].clone(), ids[2].clone()]),
        ("Patient?birthdate=ge1950-01-15&birthdate=lt1960-02-15", one(0)),
        ("Patient?birthdate=ne1950", vec![ids[1].clone(), ids[2].clone()]),
        ("Patient?birthdate=1950,1970", vec![ids[0].clone(), ids[2].clone()]),
        ("Patient?gender:not=female", vec![]),
        ("Patient?death-date:missing=true", ids.clone()),
        ("Patient?general-practitioner.name=welby", ids.clone()),
        (
            "Patient?general-practitioner:Practitioner.family=welby&family=chan",
            one(2),
        ),
        (
            "Patient?_has:Observation:patient:code=http://loinc.org|3-0",
            ids.clone(),
        ),
        ("Patient?_has:Observation:patient:code=9-9", vec![]),
    ] {
        let mut got = client.matches(query);
        got.sort();
        let mut wanted = wanted;
        wanted.sort();
        assert_eq!(got, wanted, "{query}");
    }
}

#[test]
fn quantities_and_composites() {
    let (_server, mut client, ids) = world();
    for (query, count) in [
        ("Observation?value-quantity=2.5", 3),
        ("Observation?value-quantity=gt2.5", 6),
        ("Observation?value-quantity=le0.5|http://unitsofmeasure.org|mmol/L", 3),
        ("Observation?value-quantity=2.5||mmol/L", 3),
        ("Observation?value-quantity=2.5|http://unitsofmeasure.org|mg", 0),
        ("Observation?code-value-quantity=http://loinc.org|2-0$gt2", 3),
        ("Observation?code-value-quantity=http://loinc.org|2-0$gt3", 0),
        ("Observation?combo-code=4-0", 3),
        ("Observation?date=2024-05-01", 15),
        ("Observation?date=sa2024-05-01", 0),
        ("Observation?date=eb2024-05-02", 15),
    ] {
        assert_eq!(client.matches(query).len(), count, "{query}");
    }
    assert_eq!(
        client
            .matches(&format!("Observation?patient={}&code=1-0", ids[1]))
            .len(),
        1
    );
    assert_eq!(
        client.matches(&format!("Observation?subject=Patient/{}", ids[1])).len(),
        5
    );
    assert_eq!(
        client
            .matches(&format!("Patient/{}/Observation?code=1-0", ids[1]).replacen("Patient/", "Patient/", 1))
            .len(),
        1
    );
}

#[test]
fn includes_both_ways() {
    let (_server, mut client, ids) = world();
    let bundle = client.get(&format!("/fhir/Observation?patient={}&code=1-0&_include=Observation:patient&_include:iterate=Patient:general-practitioner", ids[0])).expect(200).json();
    assert_eq!(
        (modes(&bundle, "match"), modes(&bundle, "include"), &bundle["total"]),
        (1, 2, &json!(1))
    );
    let bundle = client
        .get("/fhir/Patient?family=Chan&_revinclude=Observation:patient")
        .expect(200)
        .json();
    assert_eq!((modes(&bundle, "match"), modes(&bundle, "include")), (1, 5));
    let bundle = client.get("/fhir/Patient?family=Chan&_revinclude=*").expect(200).json();
    assert_eq!((modes(&bundle, "match"), modes(&bundle, "include")), (1, 5));
    // Included once, however often it is referred to.
    let bundle = client
        .get(&format!("/fhir/Observation?patient={}&_include=*", ids[0]))
        .expect(200)
        .json();
    assert_eq!((modes(&bundle, "match"), modes(&bundle, "include")), (5, 1));
}

#[test]
fn sorting_paging_and_totals() {
    let (server, mut client, ids) = world();
    assert_eq!(client.matches("Patient?_sort=birthdate"), ids);
    assert_eq!(
        client.matches("Patient?_sort=-birthdate"),
        ids.iter().rev().cloned().collect::<Vec<_>>()
    );
    assert_eq!(
        client.matches("Patient?_sort=gender,-family"),
        ids.iter().rev().cloned().collect::<Vec<_>>()
    );
    let page = client
        .get("/fhir/Observation?_count=4&_total=accurate&date=ge2020&_sort=code")
        .expect(200)
        .json();
    assert_eq!((modes(&page, "match"), &page["total"]), (4, &json!(15)));
    let next = link(&page, "next").expect("next");
    assert!(!next.contains("2020"), "no search value in a page link: {next}");
    // Writes between the pages neither repeat nor skip.
    let mut seen: Vec<String> = page["entry"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["resource"]["id"].as_str().unwrap().to_owned())
        .collect();
    let mut path = next.clone();
    loop {
        client.create(&observation(&ids[0], "0-0", 9.0));
        let page = client.get(&path).expect(200).json();
        seen.extend(
            page["entry"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|entry| entry["resource"]["id"].as_str().unwrap().to_owned()),
        );
        match link(&page, "next") {
            Some(next) => path = next,
            None => break,
        }
        assert!(seen.len() < 100, "paging does not end");
    }
    let unique: std::collections::HashSet<&String> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "a resource came twice");
    assert!(seen.len() >= 15, "{} of 15", seen.len());
    // A cursor belongs to its actor and to its query.
    let other = server.issue(&["--role", "physician", "--user", "other", "--ttl", "1h"]);
    let stolen = server.client_with(&other).get(&next);
    assert!(
        matches!(stolen.status, 400 | 403 | 404 | 410),
        "{}: {}",
        stolen.status,
        stolen.text()
    );
    let bent = next.replacen("Observation", "Patient", 1);
    if bent != next {
        assert!(client.get(&bent).status >= 400);
    }
}

#[test]
fn post_search_and_lenient_handling() {
    let (_server, mut client, _) = world();
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let bundle = client
        .send(
            "POST",
            "/fhir/Patient/_search",
            &form,
            Some(b"family=Baker&_total=accurate"),
        )
        .expect(200)
        .json();
    assert_eq!(bundle["total"], 1);
    let both = client
        .send(
            "POST",
            "/fhir/Patient/_search?gender=female",
            &form,
            Some(b"family=Baker"),
        )
        .expect(200)
        .json();
    assert_eq!(modes(&both, "match"), 1);
    client.get("/fhir/Patient?family=Baker&nonsense=1").refused(400);
    let bundle = client
        .send(
            "GET",
            "/fhir/Patient?family=Baker&nonsense=1",
            &[("Prefer", "handling=lenient")],
            None,
        )
        .expect(200)
        .json();
    assert_eq!(modes(&bundle, "match"), 1);
    assert_eq!(modes(&bundle, "outcome"), 1);
    assert!(!link(&bundle, "self").unwrap().contains("nonsense"));
    client
        .send(
            "GET",
            "/fhir/Patient?family=Baker&nonsense=1",
            &[("Prefer", "handling=strict")],
            None,
        )
        .refused(400);
}

#[test]
fn common_parameters() {
    let (_server, mut client, ids) = world();
    let mut tagged = client.get(&format!("/fhir/Patient/{}", ids[0])).json();
    tagged["meta"] = json!({"tag": [{"system": "urn:tag", "code": "a"}], "profile": ["http://example.org/p"], "security": [{"system": "urn:sec", "code": "N"}], "source": "urn:source"});
    client.put(&format!("/fhir/Patient/{}", ids[0]), &tagged).expect(200);
    for query in [
        "_tag=urn:tag|a",
        "_profile=http://example.org/p",
        "_security=urn:sec|N",
        "_source=urn:source",
    ] {
        assert_eq!(client.matches(&format!("Patient?{query}")), [ids[0].clone()], "{query}");
    }
    assert_eq!(client.matches(&format!("Patient?_id={},{}", ids[0], ids[2])).len(), 2);
    assert_eq!(client.matches("Patient?_lastUpdated=ge2020-01-01").len(), 3);
    assert_eq!(client.matches("Patient?_lastUpdated=lt2020-01-01").len(), 0);
    // An update leaves the old version's terms behind.
    tagged["name"][0]["family"] = json!("Renamed");
    client.put(&format!("/fhir/Patient/{}", ids[0]), &tagged).expect(200);
    assert_eq!(client.matches("Patient?family=akesson").len(), 0);
    assert_eq!(client.matches("Patient?family=renamed").len(), 1);
}

#[test]
fn value_sets() {
    let (_server, mut client, _) = world();
    assert_eq!(
        client
            .matches("Observation?status:in=http://hl7.org/fhir/ValueSet/observation-status")
            .len(),
        15
    );
    assert_eq!(
        client
            .matches("Observation?status:not-in=http://hl7.org/fhir/ValueSet/observation-status")
            .len(),
        0
    );
    client
        .get("/fhir/Observation?code:in=http://example.org/nowhere")
        .refused(400);
    // A stored value set is known from then on.
    client.create(
        &json!({"resourceType": "ValueSet", "url": "http://example.org/mine", "status": "active",
        "compose": {"include": [{"system": "http://loinc.org", "concept": [{"code": "1-0"}, {"code": "2-0"}]}]}}),
    );
    assert_eq!(client.matches("Observation?code:in=http://example.org/mine").len(), 6);
}

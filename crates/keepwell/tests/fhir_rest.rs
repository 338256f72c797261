//! FHIR R4 REST over HTTP: <https://hl7.org/fhir/R4/http.html>, one test for each interaction or header.
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
use support::{Client, Server, observation, patient};

fn client() -> (Server, Client) {
    let server = Server::empty();
    let client = server.client();
    (server, client)
}

#[test]
fn create_read_update_delete() {
    let (server, mut client) = client();
    let created = client.post("/fhir/Patient", &patient("Quill", "Ada")).expect(201);
    let (id, version) = created.location();
    assert_eq!(version, "1");
    let location = created.header("location").unwrap().to_owned();
    assert!(
        location.starts_with(&format!("http://127.0.0.1:{}/fhir/Patient/", server.port))
            || location.starts_with("http://localhost"),
        "{location}"
    );
    assert_eq!(created.header("etag"), Some("W/\"1\""));
    assert!(created.header("last-modified").is_some());
    let body = created.json();
    assert_eq!((&body["id"], &body["meta"]["versionId"]), (&json!(id), &json!("1")));
    assert!(body["meta"]["lastUpdated"].is_string());

    let read = client.get(&format!("/fhir/Patient/{id}")).expect(200);
    assert!(
        read.header("content-type")
            .unwrap()
            .starts_with("application/fhir+json")
    );
    assert_eq!(read.header("etag"), Some("W/\"1\""));
    assert_eq!(read.json(), body);

    let mut next = body.clone();
    next["active"] = json!(true);
    let updated = client.put(&format!("/fhir/Patient/{id}"), &next).expect(200);
    assert_eq!(updated.header("etag"), Some("W/\"2\""));
    assert_eq!(updated.json()["active"], true);
    assert_eq!(
        client.get(&format!("/fhir/Patient/{id}/_history/1")).expect(200).json(),
        body
    );
    assert_eq!(
        client.get(&format!("/fhir/Patient/{id}/_history/2")).expect(200).json()["meta"]["versionId"],
        "2"
    );
    client.get(&format!("/fhir/Patient/{id}/_history/3")).refused(404);

    let deleted = client.delete(&format!("/fhir/Patient/{id}"));
    assert!(matches!(deleted.status, 200 | 204), "{}", deleted.status);
    client.get(&format!("/fhir/Patient/{id}")).refused(410);
    client.get(&format!("/fhir/Patient/{id}/_history/1")).expect(200);
    client.get(&format!("/fhir/Patient/{id}/_history/3")).refused(410);
    assert!(client.matches("Patient?family=Quill").is_empty());
    // Deleting what is gone, or never was, is not an error.
    assert!(matches!(
        client.delete(&format!("/fhir/Patient/{id}")).status,
        200 | 204
    ));
    // An update brings it back under the next version.
    let mut again = patient("Quill", "Ada");
    again["id"] = json!(id);
    let revived = client.put(&format!("/fhir/Patient/{id}"), &again);
    assert!(matches!(revived.status, 200 | 201), "{}", revived.text());
    assert_eq!(revived.json()["meta"]["versionId"], "4");
}

#[test]
fn what_is_unknown_is_404_with_an_outcome() {
    let (_server, mut client) = client();
    client.get("/fhir/Patient/none").refused(404);
    client.get("/fhir/Nonsense/1").refused(404);
    client.get("/fhir/Nonsense").refused(404);
    client.get("/fhir/patient/1").refused(404);
    client.get("/fhir/Patient/1/2/3").refused(404);
    client.get("/fhir/$nonsense").refused(404);
    client.get("/fhir/Patient/none/_history").refused(404);
    client.get("/fhir/Patient/none/_history/1").refused(404);
}

#[test]
fn without_a_token_nothing_is_answered() {
    let (server, _) = client();
    let mut stranger = server.client_with("");
    for path in [
        "/fhir/Patient",
        "/fhir/Patient/1",
        "/fhir/Patient/1/_history",
        "/fhir",
        "/fhir/Patient/1/$everything",
    ] {
        let answer = stranger.get(path);
        assert!(answer.header("www-authenticate").is_some(), "{path}");
        answer.refused(401);
    }
    stranger.post("/fhir/Patient", &patient("X", "Y")).refused(401);
    let mut wrong = server.client_with("abc.def.ghi");
    wrong.get("/fhir/Patient").refused(401);
    // The capability statement holds no patient data and is open.
    stranger.get("/fhir/metadata").expect(200);
}

#[test]
fn update_as_create_takes_the_id_of_the_path() {
    let (_server, mut client) = client();
    let mut resource = patient("Own", "Id");
    resource["id"] = json!("my-own.ID-1");
    let created = client.put("/fhir/Patient/my-own.ID-1", &resource).expect(201);
    assert_eq!(created.json()["id"], "my-own.ID-1");
    client.put("/fhir/Patient/other", &resource).refused(400);
    client.put("/fhir/Patient/noid", &patient("No", "Id")).refused(400);
    client.put("/fhir/Observation/my-own.ID-1", &resource).refused(400);
    client.post("/fhir/Observation", &resource).refused(400);
    // An id in the body of a create is not kept, but must be well formed.
    let created = client.post("/fhir/Patient", &resource).expect(201);
    assert_ne!(created.json()["id"], "my-own.ID-1");
    resource["id"] = json!("bad id!");
    let refusal = client.post("/fhir/Patient", &resource);
    assert!(matches!(refusal.status, 400 | 422), "{}", refusal.status);
    let long = "a".repeat(65);
    resource["id"] = json!(long);
    let refusal = client.put(&format!("/fhir/Patient/{long}"), &resource);
    assert!(matches!(refusal.status, 400 | 404 | 422), "{}", refusal.status);
}

#[test]
fn ids_that_look_like_social_security_numbers_are_refused() {
    let (_server, mut client) = client();
    for id in ["123456789", "123-45-6789", "42"] {
        let mut resource = patient("Ssn", "Id");
        resource["id"] = json!(id);
        let answer = client.put(&format!("/fhir/Patient/{id}"), &resource);
        assert!(matches!(answer.status, 400 | 422), "{id}: {}", answer.status);
    }
}

#[test]
fn versions_are_guarded_by_if_match() {
    let (_server, mut client) = client();
    let id = client.create(&patient("Match", "If"));
    let path = format!("/fhir/Patient/{id}");
    let mut resource = client.get(&path).json();
    resource["active"] = json!(true);
    let body = resource.to_string();
    client
        .send("PUT", &path, &[("If-Match", "W/\"7\"")], Some(body.as_bytes()))
        .refused(412);
    client
        .send("PUT", &path, &[("If-Match", "W/\"1\"")], Some(body.as_bytes()))
        .expect(200);
    client
        .send("PUT", &path, &[("If-Match", "W/\"1\"")], Some(body.as_bytes()))
        .refused(412);
    client
        .send("DELETE", &path, &[("If-Match", "W/\"1\"")], None)
        .refused(412);
    let patch = br#"[{"op":"replace","path":"/active","value":false}]"#;
    let json_patch = ("Content-Type", "application/json-patch+json");
    client
        .send("PATCH", &path, &[json_patch, ("If-Match", "W/\"1\"")], Some(patch))
        .refused(412);
    client
        .send("PATCH", &path, &[json_patch, ("If-Match", "W/\"2\"")], Some(patch))
        .expect(200);
}

#[test]
fn conditional_read() {
    let (_server, mut client) = client();
    let id = client.create(&patient("Cond", "Read"));
    let path = format!("/fhir/Patient/{id}");
    let first = client.get(&path).expect(200);
    let modified = first.header("last-modified").unwrap().to_owned();
    let same = client
        .send("GET", &path, &[("If-None-Match", "W/\"1\"")], None)
        .expect(304);
    assert!(same.body.is_empty());
    client
        .send("GET", &path, &[("If-None-Match", "W/\"9\"")], None)
        .expect(200);
    client
        .send("GET", &path, &[("If-Modified-Since", &modified)], None)
        .expect(304);
    client
        .send(
            "GET",
            &path,
            &[("If-Modified-Since", "Sat, 01 Jan 2000 00:00:00 GMT")],
            None,
        )
        .expect(200);
    let head = client.send("HEAD", &path, &[], None).expect(200);
    assert_eq!(head.header("etag"), Some("W/\"1\""));
}

#[test]
fn patch_by_json_patch() {
    let (_server, mut client) = client();
    let id = client.create(&patient("Patch", "Json"));
    let path = format!("/fhir/Patient/{id}");
    let headers = [("Content-Type", "application/json-patch+json")];
    let mut patch = |body: &str| client.send("PATCH", &path, &headers, Some(body.as_bytes()));
    let patched = patch(r#"[{"op":"test","path":"/gender","value":"female"},{"op":"add","path":"/active","value":true},{"op":"add","path":"/name/-","value":{"family":"Second"}}]"#).expect(200);
    assert_eq!(patched.json()["name"][1]["family"], "Second");
    assert_eq!(patched.header("etag"), Some("W/\"2\""));
    for (body, statuses) in [
        (r#"[{"op":"test","path":"/gender","value":"male"}]"#, [409, 422, 400]),
        (r#"[{"op":"remove","path":"/nothing"}]"#, [400, 422, 409]),
        (
            r#"[{"op":"replace","path":"/gender","value":"nonsense"}]"#,
            [422, 400, 400],
        ),
        (r#"[{"op":"add","path":"/unknownElement","value":1}]"#, [422, 400, 400]),
        (r#"[{"op":"replace","path":"/id","value":"other"}]"#, [400, 422, 409]),
        (
            r#"[{"op":"replace","path":"/resourceType","value":"Group"}]"#,
            [400, 422, 409],
        ),
        (r#"{"op":"add"}"#, [400, 422, 400]),
        ("nonsense", [400, 400, 400]),
    ] {
        let answer = patch(body);
        assert!(
            statuses.contains(&answer.status),
            "{body}: {} {}",
            answer.status,
            answer.text()
        );
        assert_eq!(answer.json()["resourceType"], "OperationOutcome");
    }
    let refused = client.send("PATCH", &path, &[("Content-Type", "text/plain")], Some(b"[]"));
    assert_eq!(refused.status, 415, "{}", refused.text());
    client
        .send("PATCH", "/fhir/Patient/none", &headers, Some(b"[]"))
        .refused(404);
    assert_eq!(
        client.get(&path).header("etag"),
        Some("W/\"2\""),
        "no refused patch made a version"
    );
}

#[test]
fn conditional_create_makes_one() {
    let (_server, mut client) = client();
    let mut resource = patient("Once", "Only");
    resource["identifier"] = json!([{"system": "urn:test", "value": "once-1"}]);
    let body = resource.to_string();
    let headers = [("If-None-Exist", "identifier=urn:test|once-1")];
    let first = client
        .send("POST", "/fhir/Patient", &headers, Some(body.as_bytes()))
        .expect(201);
    let second = client
        .send("POST", "/fhir/Patient", &headers, Some(body.as_bytes()))
        .expect(200);
    assert_eq!(first.location().0, second.location().0);
    client.create(&resource);
    client
        .send("POST", "/fhir/Patient", &headers, Some(body.as_bytes()))
        .refused(412);
    client
        .send(
            "POST",
            "/fhir/Patient",
            &[("If-None-Exist", "nonsense=1")],
            Some(body.as_bytes()),
        )
        .refused(400);
}

#[test]
fn a_hundred_parallel_conditional_creates_make_one_resource() {
    let server = Server::empty();
    let mut resource = patient("Parallel", "Race");
    resource["identifier"] = json!([{"system": "urn:test", "value": "race"}]);
    let body = resource.to_string();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..100)
            .map(|_| {
                let mut client = server.client();
                let body = body.as_bytes();
                scope.spawn(move || {
                    client
                        .send(
                            "POST",
                            "/fhir/Patient",
                            &[("If-None-Exist", "identifier=urn:test|race")],
                            Some(body),
                        )
                        .status
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(
        statuses.iter().filter(|status| **status == 201).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        99,
        "{statuses:?}"
    );
    assert_eq!(server.client().matches("Patient?identifier=urn:test|race").len(), 1);
}

#[test]
fn conditional_update_patch_and_delete() {
    let (_server, mut client) = client();
    let mut resource = patient("Cond", "Update");
    resource["identifier"] = json!([{"system": "urn:test", "value": "cu"}]);
    let query = "/fhir/Patient?identifier=urn:test|cu";
    let created = client.put(query, &resource).expect(201);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    resource["active"] = json!(true);
    let updated = client.put(query, &resource).expect(200);
    assert_eq!(updated.json()["id"], json!(id));
    assert_eq!(updated.json()["meta"]["versionId"], "2");
    let patched = client.send(
        "PATCH",
        query,
        &[("Content-Type", "application/json-patch+json")],
        Some(br#"[{"op":"replace","path":"/active","value":false}]"#),
    );
    assert_eq!(patched.expect(200).json()["active"], false);
    resource["id"] = json!("another");
    let wrong = client.put(query, &resource);
    assert!(matches!(wrong.status, 400 | 412), "{}", wrong.status);
    resource.as_object_mut().unwrap().remove("id");
    client.create(&resource);
    client.put(query, &resource).refused(412);
    client.delete(query).refused(412);
    let other = "/fhir/Patient?identifier=urn:test|nobody";
    assert!(matches!(client.delete(other).status, 200 | 204 | 404));
    let mut single = patient("Del", "Cond");
    single["identifier"] = json!([{"system": "urn:test", "value": "cd"}]);
    let id = client.create(&single);
    assert!(matches!(
        client.delete("/fhir/Patient?identifier=urn:test|cd").status,
        200 | 204
    ));
    client.get(&format!("/fhir/Patient/{id}")).refused(410);
    // Without criteria everything would match: refused.
    let all = client.delete("/fhir/Patient");
    assert!(matches!(all.status, 400 | 405 | 412), "{}", all.status);
}

#[test]
fn history_of_an_instance_a_type_and_the_system() {
    let (_server, mut client) = client();
    let id = client.create(&patient("Hist", "Ory"));
    let path = format!("/fhir/Patient/{id}");
    let mut resource = client.get(&path).json();
    for n in 0..3 {
        resource["birthDate"] = json!(format!("198{n}"));
        client.put(&path, &resource).expect(200);
    }
    client.create(&observation(&id, "1-1", 1.0));
    client.delete(&path);
    let history = client.get(&format!("{path}/_history")).expect(200).json();
    assert_eq!((&history["type"], &history["total"]), (&json!("history"), &json!(5)));
    let entries = history["entry"].as_array().unwrap();
    let methods: Vec<&str> = entries
        .iter()
        .map(|entry| entry["request"]["method"].as_str().unwrap())
        .collect();
    assert_eq!(methods, ["DELETE", "PUT", "PUT", "PUT", "POST"]);
    assert!(entries[0].get("resource").is_none());
    assert_eq!(entries[1]["resource"]["meta"]["versionId"], "4");
    assert!(
        entries
            .iter()
            .all(|entry| entry["response"]["status"].is_string() && entry["fullUrl"].is_string())
    );

    let of_type = client.get("/fhir/Patient/_history").expect(200).json();
    assert_eq!(of_type["entry"].as_array().unwrap().len(), 5);
    let of_all = client.get("/fhir/_history").expect(200).json();
    assert_eq!(of_all["entry"].as_array().unwrap().len(), 6);
    assert_eq!(of_all["entry"][1]["resource"]["resourceType"], "Observation");

    let page = client.get(&format!("{path}/_history?_count=2")).expect(200).json();
    assert_eq!(page["entry"].as_array().unwrap().len(), 2);
    let next = support::link(&page, "next").expect("a next page");
    let second = client.get(&next).expect(200).json();
    assert_eq!(second["entry"][0]["resource"]["meta"]["versionId"], "3");

    let since = entries[2]["resource"]["meta"]["lastUpdated"]
        .as_str()
        .unwrap()
        .replace('+', "%2B");
    let newer = client
        .get(&format!("{path}/_history?_since={since}"))
        .expect(200)
        .json();
    // Two of the updates may have been made in the same millisecond: then both are of that instant.
    let updated = |entry: &Value| entry["response"]["lastModified"].as_str().unwrap().to_owned();
    let from = updated(&entries[2]);
    let wanted = entries.iter().filter(|entry| updated(entry) >= from).count();
    assert!(wanted >= 3);
    assert_eq!(newer["entry"].as_array().unwrap().len(), wanted);
    let at = client.get(&format!("{path}/_history?_at={since}")).expect(200).json();
    assert!(!at["entry"].as_array().unwrap().is_empty());
    client.get(&format!("{path}/_history?_since=yesterday")).refused(400);
}

#[test]
fn preferences_formats_and_views() {
    let (_server, mut client) = client();
    let body = patient("Prefer", "Minimal").to_string();
    let post = |client: &mut Client, prefer: &str| {
        client
            .send("POST", "/fhir/Patient", &[("Prefer", prefer)], Some(body.as_bytes()))
            .expect(201)
    };
    let minimal = post(&mut client, "return=minimal");
    assert!(minimal.body.is_empty(), "{}", minimal.text());
    let (id, _) = minimal.location();
    assert_eq!(
        post(&mut client, "return=OperationOutcome").json()["resourceType"],
        "OperationOutcome"
    );
    assert_eq!(
        post(&mut client, "return=representation").json()["resourceType"],
        "Patient"
    );

    let path = format!("/fhir/Patient/{id}");
    for format in ["json", "application/json", "application/fhir%2Bjson"] {
        client.get(&format!("{path}?_format={format}")).expect(200);
    }
    client.get(&format!("{path}?_format=xml")).refused(406);
    client
        .send("GET", &path, &[("Accept", "application/fhir+xml")], None)
        .refused(406);
    client
        .send(
            "GET",
            &path,
            &[("Accept", "text/html, application/fhir+json;q=0.9, */*;q=0.1")],
            None,
        )
        .expect(200);
    assert!(client.get(&format!("{path}?_pretty=true")).text().contains("\n  "));
    assert!(!client.get(&path).text().contains('\n'));
    let xml = client.send(
        "POST",
        "/fhir/Patient",
        &[("Content-Type", "application/fhir+xml")],
        Some(b"<Patient xmlns=\"http://hl7.org/fhir\"/>"),
    );
    assert_eq!(xml.refused(415)["severity"], "error");
    client
        .send(
            "POST",
            "/fhir/Patient",
            &[("Content-Type", "application/json; charset=utf-8")],
            Some(body.as_bytes()),
        )
        .expect(201);

    let summary = client.get(&format!("{path}?_summary=true")).expect(200).json();
    assert_eq!(summary["meta"]["tag"][0]["code"], "SUBSETTED");
    assert!(summary["name"].is_array());
    let elements = client.get(&format!("{path}?_elements=birthDate")).expect(200).json();
    assert!(elements["birthDate"].is_string() && elements.get("name").is_none());
    assert_eq!(elements["meta"]["tag"][0]["code"], "SUBSETTED");
    let count = client.get("/fhir/Patient?_summary=count").expect(200).json();
    assert_eq!(count["total"], 4);
    assert!(count.get("entry").is_none());
    // A cut resource must not be written back by mistake.
    assert_eq!(client.get(&path).json().get("meta").unwrap().get("tag"), None);
}

#[test]
fn capabilities_name_what_is_there() {
    let (_server, mut client) = client();
    let statement = client.get("/fhir/metadata").expect(200).json();
    assert_eq!(
        (&statement["resourceType"], &statement["fhirVersion"]),
        (&json!("CapabilityStatement"), &json!("4.0.1"))
    );
    let rest = &statement["rest"][0];
    assert_eq!(rest["mode"], "server");
    let resources = rest["resource"].as_array().unwrap();
    assert_eq!(resources.len(), 146);
    let patient = resources.iter().find(|resource| resource["type"] == "Patient").unwrap();
    let interactions: Vec<&str> = patient["interaction"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|i| i["code"].as_str())
        .collect();
    for code in [
        "read",
        "vread",
        "update",
        "patch",
        "delete",
        "history-instance",
        "history-type",
        "create",
        "search-type",
    ] {
        assert!(interactions.contains(&code), "{code}");
    }
    assert!(
        patient["searchParam"]
            .as_array()
            .unwrap()
            .iter()
            .any(|parameter| parameter["name"] == "birthdate")
    );
    let system: Vec<&str> = rest["interaction"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|i| i["code"].as_str())
        .collect();
    for code in ["transaction", "batch", "history-system"] {
        assert!(system.contains(&code), "{code}");
    }
    // Every parameter that is named there works: an unknown one would be a 400.
    for resource in resources
        .iter()
        .filter(|r| ["Patient", "Observation", "Encounter", "AuditEvent"].contains(&r["type"].as_str().unwrap()))
    {
        for parameter in resource["searchParam"].as_array().unwrap() {
            let (kind, name) = (resource["type"].as_str().unwrap(), parameter["name"].as_str().unwrap());
            let value = match parameter["type"].as_str().unwrap() {
                "date" => "2020",
                "number" | "quantity" => "1",
                "reference" => "Patient/1",
                "composite" => continue,
                "special" => continue,
                "token" => "true",
                _ => "x",
            };
            client.get(&format!("/fhir/{kind}?{name}={value}")).expect(200);
        }
    }
}

#[test]
fn validate_reports_and_stores_nothing() {
    let (_server, mut client) = client();
    let good = client
        .post("/fhir/Patient/$validate", &patient("Val", "Id"))
        .expect(200)
        .json();
    assert!(
        good["issue"]
            .as_array()
            .unwrap()
            .iter()
            .all(|issue| issue["severity"] != "error")
    );
    let mut bad = patient("Val", "Id");
    bad["name"][0]["given"] = json!(["ok", ""]);
    let parameters = json!({"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": bad}]});
    for (path, body) in [
        ("/fhir/Patient/$validate", &bad),
        ("/fhir/Patient/$validate", &parameters),
    ] {
        let outcome = client.post(path, body).expect(200).json();
        let expressions: Vec<&str> = outcome["issue"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|issue| issue["expression"][0].as_str())
            .collect();
        assert!(expressions.contains(&"Patient.name[0].given[1]"), "{outcome}");
    }
    assert!(client.matches("Patient").is_empty());
    // The same fault on a create names the same element.
    let refusal = client.post("/fhir/Patient", &bad);
    assert!(matches!(refusal.status, 400 | 422));
    assert_eq!(refusal.json()["issue"][0]["expression"][0], "Patient.name[0].given[1]");
    let mut quantity = observation("x", "1-1", 1.0);
    quantity["valueQuantity"]["value"] = json!("not a number");
    let refusal = client.post("/fhir/Observation", &quantity).json();
    let expression = refusal["issue"][0]["expression"][0].as_str().unwrap();
    assert!(
        expression.starts_with("Observation.value.ofType(Quantity)"),
        "{expression}"
    );
}

#[test]
fn everything_of_a_patient() {
    let (_server, mut client) = client();
    let id = client.create(&patient("Every", "Thing"));
    let other = client.create(&patient("Some", "Body"));
    let doctor = client.create(&json!({"resourceType": "Practitioner", "name": [{"family": "Doc"}]}));
    for n in 0..5 {
        client.create(&observation(&id, "1-1", f64::from(n)));
        client.create(&observation(&other, "1-1", f64::from(n)));
    }
    client.create(&json!({"resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"}, "subject": {"reference": format!("Patient/{id}")},
        "participant": [{"individual": {"reference": format!("Practitioner/{doctor}")}}]}));
    let bundle = client
        .get(&format!("/fhir/Patient/{id}/$everything"))
        .expect(200)
        .json();
    let entries = bundle["entry"].as_array().unwrap();
    let kinds = |kind: &str| {
        entries
            .iter()
            .filter(|entry| entry["resource"]["resourceType"] == kind)
            .count()
    };
    assert_eq!(
        (
            kinds("Patient"),
            kinds("Observation"),
            kinds("Encounter"),
            kinds("Practitioner")
        ),
        (1, 5, 1, 1)
    );
    assert!(!bundle.to_string().contains(&other));
    client.get("/fhir/Patient/none/$everything").refused(404);
}

/// The entries of a transaction or batch.
fn bundle(kind: &str, entries: Value) -> Value {
    json!({"resourceType": "Bundle", "type": kind, "entry": entries})
}

#[test]
fn a_transaction_resolves_its_references() {
    let (_server, mut client) = client();
    let mut shared = json!({"resourceType": "Practitioner", "identifier": [{"system": "urn:npi", "value": "7"}]});
    client.create(&shared);
    shared["active"] = json!(true);
    let mut obs = observation("x", "1-1", 1.0);
    obs["subject"] = json!({"reference": "urn:uuid:11111111-1111-4111-8111-111111111111"});
    obs["performer"] = json!([{"reference": "Practitioner?identifier=urn:npi|7"}]);
    obs["note"] = json!([{"text": "see urn:uuid:11111111-1111-4111-8111-111111111111"}]);
    let answer = client.post("/fhir", &bundle("transaction", json!([
        {"fullUrl": "urn:uuid:22222222-2222-4222-8222-222222222222", "resource": obs, "request": {"method": "POST", "url": "Observation"}},
        {"fullUrl": "urn:uuid:11111111-1111-4111-8111-111111111111", "resource": patient("Trans", "Action"), "request": {"method": "POST", "url": "Patient"}},
        {"request": {"method": "GET", "url": "Patient?family=Trans"}},
    ]))).expect(200).json();
    assert_eq!(answer["type"], "transaction-response");
    let entries = answer["entry"].as_array().unwrap();
    let statuses: Vec<&str> = entries
        .iter()
        .map(|entry| &entry["response"]["status"].as_str().unwrap()[..3])
        .collect();
    assert_eq!(statuses, ["201", "201", "200"]);
    // Reads come last in the processing order: the search finds the patient of the same transaction.
    assert_eq!(entries[2]["resource"]["total"], 1);
    let location = |at: usize| {
        entries[at]["response"]["location"]
            .as_str()
            .unwrap()
            .split("/_history")
            .next()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned()
    };
    let stored = client
        .get(&format!("/fhir/Observation/{}", location(0)))
        .expect(200)
        .json();
    assert_eq!(
        stored["subject"]["reference"],
        json!(format!("Patient/{}", location(1)))
    );
    assert!(
        stored["performer"][0]["reference"]
            .as_str()
            .unwrap()
            .starts_with("Practitioner/")
    );
    // A conditional reference that matches nothing refuses the whole.
    let mut dangling = observation("x", "1-1", 1.0);
    dangling["performer"] = json!([{"reference": "Practitioner?identifier=urn:npi|none"}]);
    let refusal = client.post(
        "/fhir",
        &bundle(
            "transaction",
            json!([{"resource": dangling, "request": {"method": "POST", "url": "Observation"}}]),
        ),
    );
    assert!(matches!(refusal.status, 400 | 404 | 412 | 422), "{}", refusal.status);
}

#[test]
fn a_transaction_is_all_or_nothing() {
    let (_server, mut client) = client();
    let id = client.create(&patient("Atomic", "Base"));
    let before = client.get(&format!("/fhir/Patient/{id}")).json();
    let mut changed = before.clone();
    changed["active"] = json!(true);
    for bad in [
        json!({"resource": {"resourceType": "Patient", "gender": "nonsense"}, "request": {"method": "POST", "url": "Patient"}}),
        json!({"resource": changed, "request": {"method": "PUT", "url": format!("Patient/{id}"), "ifMatch": "W/\"9\""}}),
        json!({"request": {"method": "GET", "url": "Patient?nonsense=1"}}),
        json!({"request": {"method": "BREW", "url": "Patient"}}),
        json!({"resource": patient("A", "B"), "request": {"method": "POST", "url": "Observation"}}),
        json!({"resource": patient("A", "B")}),
    ] {
        let answer = client.post(
            "/fhir/",
            &bundle(
                "transaction",
                json!([
                    {"resource": patient("Atomic", "Never"), "request": {"method": "POST", "url": "Patient"}},
                    bad,
                ]),
            ),
        );
        assert!((400..500).contains(&answer.status), "{} {bad}", answer.status);
        assert_eq!(answer.json()["resourceType"], "OperationOutcome");
        assert_eq!(client.matches("Patient?given=Never").len(), 0, "{bad}");
    }
    assert_eq!(client.get(&format!("/fhir/Patient/{id}")).json(), before);
    // The same resource twice in one transaction is refused.
    let twice = client.post(
        "/fhir",
        &bundle(
            "transaction",
            json!([
                {"resource": changed, "request": {"method": "PUT", "url": format!("Patient/{id}")}},
                {"request": {"method": "DELETE", "url": format!("Patient/{id}")}},
            ]),
        ),
    );
    assert!((400..500).contains(&twice.status), "{}", twice.status);
}

#[test]
fn a_transaction_follows_the_processing_order() {
    // DELETE, then POST, then PUT/PATCH, then GET: https://hl7.org/fhir/R4/http.html#trules
    let (_server, mut client) = client();
    let mut old = patient("Order", "Old");
    old["identifier"] = json!([{"system": "urn:o", "value": "1"}]);
    let id = client.create(&old);
    let answer = client.post("/fhir", &bundle("transaction", json!([
        {"request": {"method": "GET", "url": "Patient?identifier=urn:o|1&_summary=count"}},
        {"resource": old, "request": {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=urn:o|1"}},
        {"request": {"method": "DELETE", "url": format!("Patient/{id}")}},
    ]))).expect(200).json();
    let entries = answer["entry"].as_array().unwrap();
    assert!(
        entries[1]["response"]["status"].as_str().unwrap().starts_with("201"),
        "the delete came first: {answer}"
    );
    assert_eq!(entries[0]["resource"]["total"], 1);
    assert!(entries[2]["response"]["status"].as_str().unwrap().starts_with("20"));
}

#[test]
fn a_batch_answers_each_entry_for_itself() {
    let (_server, mut client) = client();
    let answer = client.post("/fhir", &bundle("batch", json!([
        {"resource": patient("Batch", "One"), "request": {"method": "POST", "url": "Patient"}},
        {"resource": {"resourceType": "Patient", "gender": "nonsense"}, "request": {"method": "POST", "url": "Patient"}},
        {"request": {"method": "GET", "url": "Patient/none"}},
        {"request": {"method": "GET", "url": "Nonsense/1"}},
        {"request": {"method": "PATCH", "url": "Patient/none"}, "resource": {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": "W10="}},
    ]))).expect(200).json();
    assert_eq!(answer["type"], "batch-response");
    let statuses: Vec<u16> = answer["entry"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["response"]["status"].as_str().unwrap()[..3].parse().unwrap())
        .collect();
    assert_eq!(statuses[0], 201);
    assert!(matches!(statuses[1], 400 | 422), "{statuses:?}");
    assert_eq!((statuses[2], statuses[4]), (404, 404), "{statuses:?}");
    assert!(matches!(statuses[3], 400 | 404), "{statuses:?}");
    assert_eq!(
        answer["entry"][1]["response"]["outcome"]["resourceType"],
        "OperationOutcome"
    );
    assert_eq!(client.matches("Patient?family=Batch").len(), 1);
    client.post("/fhir", &bundle("searchset", json!([]))).refused(400);
    client.post("/fhir", &patient("Not", "Bundle")).refused(400);
    assert_eq!(
        client.post("/fhir", &bundle("batch", json!([]))).expect(200).json()["type"],
        "batch-response"
    );
}

#[test]
fn references_must_be_of_a_permitted_type() {
    let (_server, mut client) = client();
    let mut wrong = observation("x", "1-1", 1.0);
    wrong["subject"]["reference"] = json!("Medication/1");
    let refusal = client.post("/fhir/Observation", &wrong);
    assert!(matches!(refusal.status, 400 | 422), "{}", refusal.status);
    // The target's existence is not checked.
    client.create(&observation("nobody-here", "1-1", 1.0));
}

#[test]
fn what_a_write_must_refuse() {
    let (_server, mut client) = client();
    let post = |client: &mut Client, body: &[u8]| client.send("POST", "/fhir/Patient", &[], Some(body));
    for body in [
        &b""[..],
        b"{",
        b"[]",
        b"null",
        b"\"Patient\"",
        b"{\"resourceType\":\"Patient\"} x",
        b"{\"resourceType\":\"Patient\",\"resourceType\":\"Patient\"}",
        b"{\"resourceType\":\"Patient\",\"active\":true,\"active\":false}",
        b"{\"active\":true}",
        b"{\"resourceType\":\"Patient\",\"active\":\"true\"}",
        b"{\"resourceType\":\"Patient\",\"birthDate\":\"2023-02-30\"}",
        b"{\"resourceType\":\"Patient\",\"birthDate\":\"\"}",
        b"{\"resourceType\":\"Patient\",\"name\":[]}",
        b"{\"resourceType\":\"Patient\",\"name\":{}}",
        b"{\"resourceType\":\"Patient\",\"name\":[{}]}",
        b"{\"resourceType\":\"Patient\",\"name\":null}",
        b"{\"resourceType\":\"Patient\",\"multipleBirthInteger\":1,\"multipleBirthBoolean\":true}",
        b"{\"resourceType\":\"Patient\",\"multipleBirthInteger\":1.5}",
        b"{\"resourceType\":\"Patient\",\"multipleBirthInteger\":99999999999}",
        b"{\"resourceType\":\"Patient\",\"unknown\":1}",
        b"{\"resourceType\":\"Patient\",\"contact\":[{\"gender\":\"male\"}]}",
        b"{\"resourceType\":\"Patient\",\"text\":{\"status\":\"generated\",\"div\":\"<div xmlns=\\\"http://www.w3.org/1999/xhtml\\\"><script>alert(1)</script></div>\"}}",
        b"{\"resourceType\":\"Patient\",\"active\":tru\xff}",
        b"\xef\xbb\xbf\xff",
    ] {
        let answer = post(&mut client, body);
        assert!(matches!(answer.status, 400 | 422), "{}: {}", String::from_utf8_lossy(body), answer.status);
        assert_eq!(answer.json()["resourceType"], "OperationOutcome");
    }
    assert_eq!(client.matches("Patient").len(), 0);
}

//! CRY-1, CRY-11, AUD-12: canary strings in every kind of field reach no file that the process writes, and not the memory of a sealed server.
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
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::{Folder, Server};

/// Canaries are this, and a number in base 36: no other text in the process looks like it.
const MARK: &str = "Zyqcanary";

/// The nth canary.
fn canary(n: usize) -> String {
    format!("{MARK}{n:05}")
}

/// Resources with canaries in names, identifiers, notes, narrative, codes, uris, attachments, extensions, contained resources and ids.
fn resources(next: &mut impl FnMut() -> String) -> Vec<Value> {
    let id = next();
    let attachment = support::base64(format!("{} {}", next(), "x".repeat(64)));
    vec![
        json!({"resourceType": "Patient", "id": id, "text": {"status": "generated", "div": format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{}</div>", next())},
            "extension": [{"url": format!("http://example.org/{}", next()), "valueString": next()}],
            "identifier": [{"system": format!("urn:{}", next()), "value": next()}],
            "name": [{"family": next(), "given": [next(), next()], "text": next()}], "telecom": [{"system": "email", "value": format!("{}@example.org", next())}],
            "address": [{"line": [next()], "city": next(), "postalCode": next()}], "contact": [{"name": {"family": next()}}],
            "photo": [{"contentType": "image/png", "title": next(), "data": attachment}]}),
        json!({"resourceType": "Observation", "status": "final", "code": {"text": next(), "coding": [{"system": "http://loinc.org", "code": next(), "display": next()}]},
            "subject": {"reference": format!("Patient/{id}"), "display": next()}, "valueString": next(), "note": [{"text": next()}], "method": {"text": next()}}),
        json!({"resourceType": "DocumentReference", "status": "current", "subject": {"reference": format!("Patient/{id}")}, "description": next(),
            "content": [{"attachment": {"contentType": "text/plain", "title": next(), "data": support::base64(next())}}]}),
        json!({"resourceType": "MedicationRequest", "status": "active", "intent": "order", "subject": {"reference": format!("Patient/{id}")},
            "contained": [{"resourceType": "Medication", "id": "m", "code": {"text": next()}}], "medicationReference": {"reference": "#m"}, "dosageInstruction": [{"text": next()}]}),
        json!({"resourceType": "Practitioner", "name": [{"family": next()}], "identifier": [{"value": next()}]}),
    ]
}

/// Every file below `folder` in which a canary stands, as text or as base64.
fn leaks(folder: &Path) -> Vec<String> {
    // Base64 of the mark at each of the three offsets, without the characters that depend on their neighbours.
    let coded: Vec<Vec<u8>> = (0..3)
        .map(|shift| {
            let text = support::base64(format!("{}{MARK}", &"   "[..shift]));
            text.as_bytes()[4 * usize::from(shift > 0)..text.len() - 4].to_vec()
        })
        .collect();
    let mut found = Vec::new();
    for file in support::files(folder) {
        let bytes = fs::read(&file).expect("file");
        let folded = bytes.to_ascii_lowercase();
        if support::find(&folded, MARK.to_ascii_lowercase().as_bytes()).is_some()
            || coded.iter().any(|code| support::find(&bytes, code).is_some())
        {
            found.push(file.display().to_string());
        }
    }
    found
}

#[test]
fn the_scan_itself_sees_a_canary() {
    for text in [
        canary(7),
        canary(7).to_uppercase(),
        support::base64(format!("ab{}", canary(3))),
        support::base64(canary(3)),
    ] {
        let folder = Folder::new();
        fs::write(folder.join("file"), format!("...{text}...")).unwrap();
        assert_eq!(leaks(folder.path()).len(), 1, "{text}");
    }
}

#[test]
fn canaries_reach_no_file_though_the_server_is_killed_while_writing() {
    let canaries = usize::try_from(support::setting("KEEPWELL_CANARIES", 10_000)).unwrap();
    let folder = Folder::new();
    // Everything the process might write to by habit is put inside the folder that is scanned.
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let count = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let mut client = server.client();
            let (count, stop) = (&count, &stop);
            scope.spawn(move || {
                let mut next = || canary(count.fetch_add(1, Ordering::Relaxed));
                while !stop.load(Ordering::Relaxed) {
                    let entries: Vec<Value> = resources(&mut next)
                        .into_iter()
                        .map(|resource| {
                            let kind = resource["resourceType"].as_str().unwrap().to_owned();
                            let request = match resource["id"].as_str() {
                                Some(id) => json!({"method": "PUT", "url": format!("{kind}/{id}")}),
                                None => json!({"method": "POST", "url": kind}),
                            };
                            json!({"resource": resource, "request": request})
                        })
                        .collect();
                    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries}).to_string();
                    match client.try_send("POST", "/fhir", &[], Some(bundle.as_bytes())) {
                        Ok(answer) => assert_eq!(answer.status, 200, "{}", answer.text()),
                        Err(_) => break,
                    }
                    // Searches and refusals carry canaries as well: in the query, the path, the body.
                    let term = next();
                    let refused = format!("{{\"resourceType\":\"Patient\",\"{}\":\"{}\"}}", next(), next());
                    for (method, path, body) in [
                        ("GET", format!("/fhir/Patient?name={term}"), None),
                        ("GET", format!("/fhir/Patient/{}", next()), None),
                        ("GET", format!("/fhir/Observation?{}={}", next(), next()), None),
                        ("GET", format!("/{}/{}", next(), next()), None),
                        ("POST", "/fhir/Patient".to_owned(), Some(refused.as_bytes())),
                        ("POST", "/fhir/Patient/_search".to_owned(), Some(term.as_bytes())),
                    ] {
                        if client.try_send(method, &path, &[], body).is_err() {
                            return;
                        }
                    }
                }
            });
        }
        let deadline = Instant::now() + Duration::from_secs(90);
        while count.load(Ordering::Relaxed) < canaries && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        server.kill9();
        stop.store(true, Ordering::Relaxed);
    });
    println!("{} canaries written", count.load(Ordering::Relaxed));
    assert!(
        count.load(Ordering::Relaxed) >= canaries,
        "too slow for {canaries} canaries"
    );
    assert_eq!(leaks(folder.path()), Vec::<String>::new());

    // Recovery, a clean stop (snapshot), and a restart write files too.
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    assert_eq!(
        server.client().matches(&format!("Patient?_id={}", canary(0))).len(),
        1,
        "the canaries are in the record"
    );
    server.stop();
    assert_eq!(leaks(folder.path()), Vec::<String>::new());
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let answer = server.client().get("/fhir/Patient?name=a&_count=1").expect(200);
    drop(answer);

    // `keys seal`: the process goes on without the keys, and without what it had in memory.
    assert!(
        in_memory(server.pid()).is_some_and(|hits| hits > 0),
        "the scan of an unsealed server finds canaries"
    );
    support::seal(&mut server);
    assert_eq!(
        in_memory(server.pid()),
        Some(0),
        "canaries in the memory of a sealed server"
    );
    assert_eq!(leaks(folder.path()), Vec::<String>::new());
}

/// How many canaries stand in the memory of a process; nothing where it cannot be read.
fn in_memory(pid: u32) -> Option<usize> {
    let mark = MARK.to_ascii_lowercase();
    let mut found = HashSet::new();
    support::each_piece_of_memory(pid, |bytes| {
        let folded = bytes.to_ascii_lowercase();
        let mut rest = &folded[..];
        while let Some(hit) = support::find(rest, mark.as_bytes()) {
            found.insert(rest[hit..].iter().take(mark.len() + 5).copied().collect::<Vec<u8>>());
            rest = &rest[hit + 1..];
        }
    })?;
    Some(found.len())
}

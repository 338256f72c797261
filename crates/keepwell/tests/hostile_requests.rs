//! APP-8: a hundred thousand mutated requests, and more where `KEEPWELL_HOSTILE` asks for them. Whatever comes in, the answer
//! is no 5xx, tells nothing about the inside, and is an OperationOutcome where it is an error; the server lives and its log
//! knows of no panic.
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
use std::collections::BTreeMap;
use std::sync::Mutex;
use support::{Answer, Folder, Rng, Server, observation, patient};

/// Never sent, so that whoever reads them learned them from the inside.
const INSIDE: &[&str] = &[
    "panicked",
    "RUST_BACKTRACE",
    "stack backtrace",
    ".rs:",
    "/src/",
    "SELECT ",
    "INSERT ",
    "sqlite",
    "SQLITE",
    "constraint failed",
    "no such table",
    "called `",
    "unwrap",
    "hyper",
    "axum",
    "serde",
    "tokio",
    "keepwell_",
    "/tmp/",
    "/etc/",
    "/home/",
    "/root/",
    ".cargo",
    "os error",
];

/// What is sent, before it is mutated.
struct Seeds {
    paths: Vec<String>,
    queries: Vec<String>,
    bodies: Vec<String>,
    /// Method, path with query, and body that go together: what is mutated little comes far.
    whole: Vec<(&'static str, String, Option<usize>)>,
}

/// Places in `Seeds::bodies` of those that need a content type of their own.
const PATCH: usize = 2;
const FORM: usize = 8;

const METHODS: &[&str] = &[
    "GET", "GET", "GET", "GET", "POST", "POST", "PUT", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE",
    "PROPFIND", "get", "M-SEARCH",
];

const HEADERS: &[(&str, &[&str])] = &[
    (
        "Accept",
        &[
            "application/fhir+json",
            "text/html",
            "*/*",
            "application/xml",
            ";;;,,,",
            "application/fhir+json;q=0",
        ],
    ),
    (
        "Content-Type",
        &[
            "application/fhir+json",
            "application/json-patch+json",
            "application/x-www-form-urlencoded",
            "text/xml",
            "a",
            "application/json; charset=utf-16",
        ],
    ),
    (
        "Prefer",
        &[
            "return=minimal",
            "return=OperationOutcome",
            "handling=lenient",
            "return=,;=",
            "respond-async",
        ],
    ),
    (
        "If-Match",
        &[
            "W/\"1\"",
            "W/\"99999999999999999999\"",
            "\"1\"",
            "*",
            "W/\"",
            "W/\"-1\"",
        ],
    ),
    ("If-None-Match", &["W/\"1\"", "*", "W/\"\"", "W/\"4294967296\""]),
    (
        "If-Modified-Since",
        &[
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 99 Nov 999999999999 08:49:37 GMT",
            "Sun, 06 Nov 999999999999 08:49:37 GMT",
            "Sun, 00 Feb -9223372036854775808 99:99:99 GMT",
            "yesterday",
        ],
    ),
    (
        "If-None-Exist",
        &[
            "identifier=a|b",
            "?_id=1",
            "nonsense",
            "_id=%ff",
            "name:exact=a&_count=9",
        ],
    ),
    ("Content-Encoding", &["gzip", "identity"]),
    ("X-Request-Id", &["1", "a\tb"]),
    ("Range", &["bytes=0-1", "bytes=-"]),
    ("X-HTTP-Method-Override", &["DELETE"]),
    ("Expect", &["nonsense"]),
    ("Cookie", &["a=b; c", "session=%00"]),
];

/// Pieces that break things elsewhere; all of them can stand in a path or query.
const PIECES: &[&str] = &[
    "%00",
    "%ff",
    "%c0%ae",
    "%F0%9F%92%A9",
    "%e2%80%a8",
    "%25",
    "%",
    "%zz",
    "%2",
    "..",
    "%2e%2e%2f",
    "//",
    "/",
    "'",
    "--",
    ";",
    "|",
    "$",
    "_",
    ":",
    ",",
    "\\,",
    "\\",
    "&",
    "=",
    "?",
    "+",
    "*",
    "(",
    ")",
    "~",
    "^",
    "`",
    "{",
    "}",
    "-1",
    "0",
    "1e999",
    "NaN",
    "99999999999999999999",
    "4294967296",
    "-9223372036854775808",
    "0.000000000000000000000000001",
    "9999-12-31",
    "0000-00-00",
    "2024-02-30",
    "ge",
    "lt",
    "ap",
    "sa",
    "2024-05-01T10:00:00+99:99",
    ":exact",
    ":missing",
    ":not",
    ":above",
    ":in",
    ":of-type",
    ":iterate",
    ":identifier",
    ":Patient",
    "_has:",
    "Patient/",
    "http://localhost/fhir/",
    "urn:uuid:",
    "$everything",
    "_history",
    "_search",
    "metadata",
    "%0d%0a",
    "%1b[31m",
    "\u{7f}",
    "A",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

fn seeds(server: &Server) -> Seeds {
    let mut client = server.client();
    let ids: Vec<String> = (0..4)
        .map(|n| client.create(&patient(&format!("Hostile{n}"), "H")))
        .collect();
    let others: Vec<String> = (0..20)
        .map(|n| client.create(&observation(&ids[n % 4], "1-1", 1.5)))
        .collect();
    let (one, other) = (&ids[0], &others[0]);
    let mut paths = vec![
        String::new(),
        "/metadata".to_owned(),
        "/_history".to_owned(),
        "/$validate".to_owned(),
    ];
    for kind in [
        "Patient",
        "Observation",
        "Encounter",
        "Binary",
        "Bundle",
        "ValueSet",
        "AuditEvent",
        "Nonsense",
    ] {
        for id in [one, other, "missing"] {
            for rest in [
                "",
                "/_history",
                "/_history/1",
                "/_history/0",
                "/$everything",
                "/$access-log",
                "/$provenance",
                "/$validate",
                "/Observation",
                "/Observation/_search",
            ] {
                paths.push(format!("/{kind}/{id}{rest}"));
            }
        }
        for rest in ["", "/_history", "/_search", "/$validate"] {
            paths.push(format!("/{kind}{rest}"));
        }
    }
    let queries = [
        "name=a&_count=3",
        "_id=1,2,3",
        "identifier=a|b",
        "birthdate=ge1980-01-01&birthdate=lt1990",
        "_lastUpdated=gt2020-01-01T00:00:00Z",
        "_sort=-birthdate,name&_count=2",
        "_include=Observation:subject&_revinclude=Provenance:target",
        "_include:iterate=*&_revinclude=*",
        "_has:Observation:subject:code=1-1",
        "subject:Patient.name=a",
        "subject.identifier=a|b&code=http://loinc.org|1-1",
        "value-quantity=gt1.0|http://unitsofmeasure.org|mmol/L",
        "code-value-quantity=1-1$gt1",
        "code:in=http://hl7.org/fhir/ValueSet/observation-vitalsignresult",
        "_summary=count&_total=accurate",
        "_elements=name,id&_summary=text",
        "_since=2020-01-01T00:00:00Z&_count=2&_at=2024",
        "_type=Observation&_count=1",
        "_cursor=AAAA",
        "_format=json&_pretty=true",
        "near=1|2|3|km&_list=1&_text=a&_content=b&_filter=a",
        "profile=http://hl7.org/fhir/StructureDefinition/Patient&mode=create",
        "_profile=a&_tag=a|b&_security=c",
    ];
    let entry = |method: &str, url: &str, resource: Value| json!({"fullUrl": "urn:uuid:1", "resource": resource, "request": {"method": method, "url": url}});
    let bodies = [
        patient("Hostile", "H"),
        observation(one, "1-1", 6.5),
        json!([{"op": "replace", "path": "/gender", "value": "male"}, {"op": "test", "path": "/name/0/family", "value": "x"}, {"op": "move", "from": "/name/0", "path": "/name/-"}]),
        json!({"resourceType": "Bundle", "type": "batch", "entry": [entry("POST", "Patient", patient("B", "B")), entry("GET", &format!("Patient/{one}"), Value::Null), entry("PUT", &format!("Observation/{other}"), observation(one, "1-1", 2.0)), entry("DELETE", "Observation?code=never", Value::Null)]}),
        json!({"resourceType": "Bundle", "type": "transaction", "entry": [entry("POST", "Patient?name=a", patient("T", "T")), entry("PATCH", &format!("Patient/{one}"), json!({"resourceType": "Binary", "contentType": "application/json-patch+json", "data": "W10="}))]}),
        json!({"resourceType": "Parameters", "parameter": [{"name": "resource", "resource": patient("V", "V")}]}),
        json!({"resourceType": "ValueSet", "status": "active", "url": "http://e/v", "compose": {"include": [{"valueSet": ["http://e/v"]}, {"system": "http://e/s", "filter": [{"property": "concept", "op": "is-a", "value": "1"}]}]}}),
        json!({"resourceType": "Patient", "text": {"status": "generated", "div": "<div xmlns=\"http://www.w3.org/1999/xhtml\"><p>x</p></div>"}, "extension": [{"url": "http://e", "valueDecimal": 1.0}], "contained": [{"resourceType": "Organization", "id": "o"}], "managingOrganization": {"reference": "#o"}}),
    ]
    .map(|body| body.to_string());
    let mut bodies = bodies.to_vec();
    bodies.push("name=a&_count=2&birthdate=ge1980".to_owned());
    let mut whole = vec![
        ("GET", "/metadata".to_owned(), None),
        ("GET", format!("/Patient/{one}"), None),
        ("HEAD", format!("/Observation/{other}"), None),
        ("GET", format!("/Patient/{one}/_history?_count=2"), None),
        ("GET", format!("/Patient/{one}/_history/1?_summary=true"), None),
        ("GET", format!("/Patient/{one}/$everything?_count=2"), None),
        ("GET", format!("/Patient/{one}/$provenance"), None),
        ("GET", format!("/Patient/{one}/Observation?_count=2"), None),
        ("GET", "/_history?_count=2".to_owned(), None),
        ("POST", "/Patient".to_owned(), Some(0)),
        ("POST", "/Observation".to_owned(), Some(1)),
        ("PUT", "/Patient?identifier=a|b".to_owned(), Some(0)),
        ("PATCH", format!("/Patient/{one}"), Some(PATCH)),
        ("POST", String::new(), Some(3)),
        ("POST", String::new(), Some(4)),
        ("POST", "/Patient/$validate".to_owned(), Some(5)),
        ("POST", "/ValueSet".to_owned(), Some(6)),
        ("POST", "/Patient".to_owned(), Some(7)),
        ("POST", "/Patient/_search".to_owned(), Some(FORM)),
        ("DELETE", "/Observation?code=never".to_owned(), None),
    ];
    for query in &queries {
        for kind in ["Patient", "Observation"] {
            whole.push(("GET", format!("/{kind}?{query}"), None));
        }
    }
    Seeds {
        paths,
        queries: queries.map(str::to_owned).to_vec(),
        bodies,
        whole,
    }
}

fn pick<'a, T>(rng: &mut Rng, list: &'a [T]) -> &'a T {
    &list[rng.below(list.len())]
}

/// Inserts, replaces, repeats and cuts, at random places, `times` times.
fn mutate(rng: &mut Rng, text: &str, pieces: &[&str], times: usize) -> String {
    let mut text = text.to_owned();
    for _ in 0..times {
        let at = text.floor_char_boundary(rng.below(text.len() + 1));
        let end = text.ceil_char_boundary((at + rng.below(12)).min(text.len()));
        match rng.below(5) {
            0 => text.insert_str(at, pick::<&str>(rng, pieces)),
            1 => text.replace_range(at..end, pick::<&str>(rng, pieces)),
            2 => text.replace_range(at..end, ""),
            3 => {
                let part = text[at..end].repeat(1 + rng.below(6));
                text.insert_str(at, &part);
            }
            _ => text.truncate(at),
        }
    }
    text
}

const BODY_PIECES: &[&str] = &[
    "null",
    "true",
    "{}",
    "[]",
    "[[[[[[[[",
    "{\"a\":",
    "\"\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "-",
    "1e400",
    "0.1e-400",
    "00",
    "\u{0}",
    "\u{feff}",
    "\u{2028}",
    "\\",
    "\"resourceType\":\"Observation\",",
    "\"id\":\"../..\",",
    "\"reference\":\"Patient/missing\"",
    "\"reference\":\"#\"",
    "\"url\":\"Patient?_id=a&_id=b\"",
    "\"url\":\"$everything\"",
    "\"method\":\"HEAD\"",
    "\"path\":\"/~2\"",
    "\"path\":\"\"",
    "\"path\":\"/name/99999999999999999999\"",
    "\"op\":\"add\"",
    "\"op\":\"copy\"",
    "9999999999999999999999999999",
    "\"9999-99-99\"",
    "\"2024-05-01T25:61:61Z\"",
    "\"fullUrl\":\"urn:uuid:1\"",
    ",",
    ":",
    "]",
    "}",
];

struct Sent {
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
}

fn request(rng: &mut Rng, seeds: &Seeds) -> Sent {
    let (method, mut target, body) = if rng.below(3) > 0 {
        let (method, target, body) = pick(rng, &seeds.whole);
        let times = rng.below(3);
        (*method, format!("/fhir{}", mutate(rng, target, PIECES, times)), *body)
    } else {
        let times = rng.below(4);
        let path = pick(rng, &seeds.paths);
        let mut target = format!("/fhir{}", mutate(rng, path, PIECES, times));
        if rng.below(3) > 0 {
            let times = rng.below(5);
            let query = pick(rng, &seeds.queries);
            let query = mutate(rng, query, PIECES, times);
            target = format!("{target}?{query}");
        }
        let method = *pick(rng, METHODS);
        let body =
            (matches!(method, "POST" | "PUT" | "PATCH") || rng.below(20) == 0).then(|| rng.below(seeds.bodies.len()));
        (method, target, body)
    };
    // Not the pages beside the API.
    if target.len() > 5 && !target.starts_with("/fhir/") && !target.starts_with("/fhir?") {
        target.insert(5, '/');
    }
    let mut headers: Vec<(&'static str, String)> = Vec::new();
    match body {
        Some(PATCH) => headers.push(("Content-Type", "application/json-patch+json".to_owned())),
        Some(FORM) => headers.push(("Content-Type", "application/x-www-form-urlencoded".to_owned())),
        _ => {}
    }
    for _ in 0..rng.below(3) {
        let (name, values) = pick(rng, HEADERS);
        if headers.iter().all(|(other, _)| other != name) {
            let times = rng.below(2);
            let value = pick::<&str>(rng, values);
            let value = mutate(rng, value, &["\u{e9}", ",", ";", "=", "\"", "/", "*", "\t"], times);
            headers.push((name, value.trim().to_owned()));
        }
    }
    let body = body.map(|body| {
        let times = rng.below(4);
        let mut body = mutate(rng, &seeds.bodies[body], BODY_PIECES, times).into_bytes();
        if rng.below(12) == 0 && !body.is_empty() {
            let at = rng.below(body.len());
            body[at] ^= 1 << rng.below(8);
        }
        body
    });
    Sent {
        method,
        target,
        headers,
        body,
    }
}

/// What is wrong with an answer, if anything is.
fn fault(sent: &Sent, answer: &Answer, inside: &[&str]) -> Option<String> {
    let text = answer.text();
    if answer.status >= 500 {
        return Some(format!("{}", answer.status));
    }
    if let Some(word) = inside.iter().find(|word| text.contains(**word)) {
        return Some(format!("`{word}` in the answer"));
    }
    for (name, value) in &answer.headers {
        if let Some(word) = inside.iter().find(|word| value.contains(**word)) {
            return Some(format!("`{word}` in the header {name}"));
        }
    }
    if answer.status < 400 || sent.method == "HEAD" {
        return None;
    }
    // What is no HTTP is refused before anybody could say why in FHIR; then nothing at all is said.
    if answer.body.is_empty() && matches!(answer.status, 400 | 414 | 431) && answer.header("content-type").is_none() {
        return (!no_http(sent)).then(|| "an empty answer to well-formed HTTP".to_owned());
    }
    let outcome = answer.json();
    let errors = outcome["issue"].as_array().is_some_and(|issues| {
        issues
            .iter()
            .any(|issue| matches!(issue["severity"].as_str(), Some("error" | "fatal")))
    });
    let typed = answer
        .header("content-type")
        .is_some_and(|value| value.starts_with("application/fhir+json"));
    (outcome["resourceType"] != "OperationOutcome" || !errors || !typed)
        .then(|| format!("an error without OperationOutcome: {}", answer.status))
}

/// Bytes that may not stand in a request target.
fn no_http(sent: &Sent) -> bool {
    sent.target.bytes().any(|b| b <= b' ' || b == b'`' || b == 0x7f)
}

const CONNECTIONS: usize = 8;

#[test]
fn hostile_requests_get_no_5xx_and_learn_nothing() {
    let wanted = usize::try_from(support::setting("KEEPWELL_HOSTILE", 20_000)).unwrap();
    let mut rng = Rng::seeded();
    let folder = Folder::new();
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let seeds = seeds(&server);
    let billing = server.issue(&["--role", "billing", "--user", "b", "--ttl", "24h"]);
    let version = env!("CARGO_PKG_VERSION");
    let faults: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let statuses: Mutex<BTreeMap<u16, usize>> = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (seeds, faults, statuses) = (&seeds, &faults, &statuses);
            let token = if connection == 0 { &billing } else { &server.token };
            let (mut client, mut rng) = (server.client_with(token), Rng(rng.next()));
            scope.spawn(move || {
                for _ in 0..wanted.div_ceil(CONNECTIONS) {
                    let sent = request(&mut rng, seeds);
                    let headers: Vec<(&str, &str)> = sent.headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
                    let told = match client.try_send(sent.method, &sent.target, &headers, sent.body.as_deref()) {
                        Err(error) => Some(format!("no answer: {error}")),
                        Ok(answer) => {
                            *statuses.lock().unwrap().entry(answer.status).or_default() += 1;
                            let of_version = (answer.status >= 400 && answer.text().contains(version))
                                .then(|| "the version in an error".to_owned());
                            fault(&sent, &answer, INSIDE).or(of_version).map(|told| {
                                let text: String = answer.text().chars().take(400).collect();
                                format!("{told}: {text}")
                            })
                        }
                    };
                    if let Some(told) = told {
                        let body = sent.body.as_deref().map(String::from_utf8_lossy);
                        let mut faults = faults.lock().unwrap();
                        faults.push(format!(
                            "{} {} {:?} {body:?}\n  {told}",
                            sent.method, sent.target, sent.headers
                        ));
                        if faults.len() >= 20 {
                            return;
                        }
                    }
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    let statuses = statuses.into_inner().unwrap();
    println!("{} requests, statuses {statuses:?}", statuses.values().sum::<usize>());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    // Mutated too much they would all be refused at the door, and show nothing.
    let share = |of: &dyn Fn(u16) -> bool| {
        let some: usize = statuses.iter().filter(|(status, _)| of(**status)).map(|(_, n)| n).sum();
        some as f64 / wanted as f64
    };
    assert!(share(&|status| status < 400) > 0.1, "{statuses:?}");
    assert!(share(&|status| status >= 400) > 0.3, "{statuses:?}");
    assert!(server.alive());
    let log = server.logged();
    for word in ["panicked", "ERROR", ".rs:", "Hostile"] {
        assert!(!log.contains(word), "{word} in the log: {log}");
    }
    let (code, _) = server.stop();
    assert_eq!(code, Some(0));
    let output = support::cli(&["verify", "--data", server.data.to_str().unwrap()]);
    assert!(output.status.success(), "{}", support::said(&output));
}

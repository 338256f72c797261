//! The attack classes of known EMR holes, against the listener itself: request smuggling, traversal, injection, exhaustion, leaking errors.
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
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{Client, Folder, Server, cli, observation, patient, raw};

/// An answer to raw bytes, as text.
fn said(server: &Server, bytes: &[u8]) -> String {
    String::from_utf8_lossy(&raw(server.port, bytes, Duration::from_secs(3))).into_owned()
}

/// How many answers stand in what came back.
fn answers(text: &str) -> usize {
    text.matches("HTTP/1.1 ").count() + text.matches("HTTP/1.0 ").count()
}

/// What a server with a small record may have in memory at its worst, under all of the attacks below, in MiB: a body of
/// 256 MB as it is received and parsed.
const RESIDENT_MAX: u64 = 1200;

/// The most memory that a process had in use since it started, in MiB.
fn resident(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .expect("a number")
        / 1024
}

#[test]
fn request_smuggling_is_refused() {
    // APP-12: no framing that a proxy and this server could read differently.
    let server = Server::empty();
    let auth = format!("Host: 127.0.0.1\r\nAuthorization: Bearer {}\r\n", server.token);
    let inner = "GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let cases = [
        (
            "CL.TE",
            format!(
                "POST /fhir/Patient HTTP/1.1\r\n{auth}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"
            ),
        ),
        (
            "TE.CL",
            format!(
                "POST /fhir/Patient HTTP/1.1\r\n{auth}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n2c\r\n{inner}\r\n0\r\n\r\n"
            ),
        ),
        (
            "duplicate CL",
            format!("POST /fhir/Patient HTTP/1.1\r\n{auth}Content-Length: 2\r\nContent-Length: 40\r\n\r\n{{}}{inner}"),
        ),
        (
            "CL list",
            format!("POST /fhir/Patient HTTP/1.1\r\n{auth}Content-Length: 2, 40\r\n\r\n{{}}{inner}"),
        ),
        (
            "signed CL",
            format!("POST /fhir/Patient HTTP/1.1\r\n{auth}Content-Length: +2\r\n\r\n{{}}"),
        ),
        (
            "negative CL",
            format!("POST /fhir/Patient HTTP/1.1\r\n{auth}Content-Length: -1\r\n\r\n{{}}"),
        ),
        (
            "huge CL",
            format!("POST /fhir/Patient HTTP/1.1\r\n{auth}Content-Length: 99999999999999999999\r\n\r\n{{}}"),
        ),
        (
            "unknown TE",
            format!("POST /fhir/Patient HTTP/1.1\r\n{auth}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{inner}"),
        ),
        (
            "TE with blank",
            format!("POST /fhir/Patient HTTP/1.1\r\n{auth}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{inner}"),
        ),
        (
            "TE twice",
            format!(
                "POST /fhir/Patient HTTP/1.1\r\n{auth}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{inner}"
            ),
        ),
        (
            "bad chunk size",
            format!(
                "POST /fhir/Patient HTTP/1.1\r\n{auth}Transfer-Encoding: chunked\r\n\r\n0x2\r\n{{}}\r\n0\r\n\r\n{inner}"
            ),
        ),
        (
            "obs-fold",
            format!("GET /fhir/Patient HTTP/1.1\r\n{auth}X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n{inner}"),
        ),
        (
            "NUL in a header",
            format!("GET /fhir/Patient HTTP/1.1\r\n{auth}X-A: b\0c\r\n\r\n"),
        ),
        ("no host", "GET /fhir/metadata HTTP/1.1\r\n\r\n".to_owned()),
        (
            "two hosts",
            "GET /fhir/metadata HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
        ),
        (
            "blank in the request line",
            format!("GET /fhir/Patient ?a HTTP/1.1\r\n{auth}\r\n"),
        ),
    ];
    let mut wrong = Vec::new();
    for (name, bytes) in &cases {
        let text = said(&server, bytes.as_bytes());
        // Refused, or at least never read as two requests.
        let status: u16 = text
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(400);
        let served = (200..300).contains(&status);
        if answers(&text) > 1 || served {
            wrong.push(format!("{name}: {}", text.chars().take(200).collect::<String>()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // What is well formed still works: chunked alone, and pipelining.
    let body = patient("Chunked", "C").to_string();
    let chunked = format!(
        "POST /fhir/Patient HTTP/1.1\r\n{auth}Content-Type: application/fhir+json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    assert!(said(&server, chunked.as_bytes()).starts_with("HTTP/1.1 201"));
    assert_eq!(server.client().matches("Patient").len(), 1);
}

#[test]
fn methods_outside_the_list_are_refused() {
    let server = Server::empty();
    let mut client = server.client();
    for method in ["TRACE", "TRACK", "CONNECT", "OPTIONS", "PROPFIND", "LOCK", "FOO", "get"] {
        for path in ["/fhir/Patient", "/", "/fhir/metadata"] {
            let answer = client.send(method, path, &[("X-Secret-Header", "echo-me")], None);
            assert!(
                matches!(answer.status, 400 | 403 | 404 | 405 | 501)
                    || (method == "OPTIONS" && matches!(answer.status, 200 | 204)),
                "{method} {path}: {}",
                answer.status
            );
            assert!(!answer.text().contains("echo-me"), "{method} echoes");
        }
    }
    for (method, path) in [
        ("PUT", "/fhir/metadata"),
        ("DELETE", "/fhir"),
        ("POST", "/fhir/Patient/1"),
        ("PATCH", "/fhir/Patient/1/_history/1"),
    ] {
        let answer = client.send(method, path, &[], Some(b"{}"));
        assert!(
            matches!(answer.status, 400 | 404 | 405 | 412 | 415),
            "{method} {path}: {}",
            answer.status
        );
    }
}

#[test]
fn traversal_finds_no_file() {
    // APP-4, the corpus of CVE-2023-24057 and its kind: encoded, doubly encoded, absolute, sibling prefix.
    let server = Server::empty();
    let mut paths = Vec::new();
    for base in ["/", "/assets/", "/static/", "/fhir/", "/fhir/Binary/", "/fhir/Patient/"] {
        for climb in [
            "../",
            "..%2f",
            "%2e%2e/",
            "%2e%2e%2f",
            "..%252f",
            "..%c0%af",
            "..\\",
            "..%5c",
            "....//",
            ".%00./",
            "/",
        ] {
            for target in ["etc/passwd", "keyring", "data/keyring", "../data-evil/keyring"] {
                paths.push(format!("{base}{}{target}", climb.repeat(6)));
            }
        }
    }
    for path in &paths {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
            server.token
        );
        let text = said(&server, request.as_bytes());
        assert!(
            !text.starts_with("HTTP/1.1 5") && !text.starts_with("HTTP/1.1 2"),
            "{path}: {text}"
        );
        assert!(!text.contains("root:"), "{path}");
    }
}

#[test]
fn deep_and_large_bodies_are_refused_cheaply() {
    // APP-6, APP-7.
    let server = Server::empty();
    let mut client = server.client();
    for depth in [200, 100_000, 2_000_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let text = format!(
                "{{\"resourceType\":\"Patient\",\"name\":{}1{}}}",
                open.repeat(depth),
                close.repeat(depth)
            );
            let answer = client.send("POST", "/fhir/Patient", &[], Some(text.as_bytes()));
            assert!(matches!(answer.status, 400 | 413 | 422), "{depth}: {}", answer.status);
        }
        let unclosed = format!("{{\"resourceType\":\"Patient\",\"name\":{}", "[".repeat(depth));
        assert_eq!(
            client
                .send("POST", "/fhir/Patient", &[], Some(unclosed.as_bytes()))
                .status,
            400
        );
    }
    // Nested extensions and contained resources are deep, too.
    let mut extension = json!({"url": "http://e", "valueString": "x"});
    for _ in 0..500 {
        extension = json!({"url": "http://e", "extension": [extension]});
    }
    let answer = client.post(
        "/fhir/Patient",
        &json!({"resourceType": "Patient", "extension": [extension]}),
    );
    assert!(matches!(answer.status, 400 | 422), "{}", answer.status);
    // 64 MB are promised; far beyond is refused by its length alone, before it is sent.
    let text = said(&server, format!("POST /fhir/Patient HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/fhir+json\r\nContent-Length: 10000000000\r\nExpect: 100-continue\r\n\r\n", server.token).as_bytes());
    assert!(text.starts_with("HTTP/1.1 413"), "{text}");
    client.get("/fhir/Patient?_count=1").expect(200);
    assert!(resident(&server) < 300, "{} MiB", resident(&server));
    // Few bytes that become many values: bounded by their number, not by the length of the text.
    for (open, one, close) in [("[", "0,", "0]"), ("[", "{\"a\":0},", "0]"), ("[", "[],", "0]")] {
        let text = format!(
            "{{\"resourceType\":\"Patient\",\"name\":{open}{}{close}}}",
            one.repeat((200 << 20) / one.len())
        );
        let error = client
            .send("POST", "/fhir/Patient", &[], Some(text.as_bytes()))
            .refused(400);
        assert!(
            error["diagnostics"].as_str().unwrap().contains("more values"),
            "{error}"
        );
    }
    println!("at most {} MiB resident", resident(&server));
    assert!(resident(&server) < RESIDENT_MAX, "{} MiB", resident(&server));
}

#[test]
fn a_body_of_64_mb_is_taken() {
    let server = Server::empty();
    let data = support::base64(vec![7_u8; 45_000_000]);
    let body =
        format!("{{\"resourceType\":\"Binary\",\"contentType\":\"application/octet-stream\",\"data\":\"{data}\"}}");
    let mut client = server.client();
    let created = client
        .send(
            "POST",
            "/fhir/Binary",
            &[("Prefer", "return=minimal")],
            Some(body.as_bytes()),
        )
        .expect(201);
    let (id, _) = created.location();
    let read = client.get(&format!("/fhir/Binary/{id}")).expect(200);
    assert_eq!(read.json()["data"].as_str().map(str::len), Some(data.len()));
}

#[test]
fn hostile_queries_are_answered_with_400_or_bounded() {
    let server = Server::empty();
    let mut client = server.client();
    let id = client.create(&patient("Query", "Q"));
    client.create(&observation(&id, "1-1", 1.0));
    for query in [
        "Patient?_count=99999999999999999999",
        "Patient?_count=-1",
        "Patient?_count=abc",
        "Patient?_sort=name;DROP%20TABLE%20rows",
        "Patient?_sort=-(select%201)",
        "Patient?birthdate=gt'%20OR%201=1",
        "Patient?nonsense=1",
        "Patient?name:nonsense=1",
        "Patient?birthdate=13-13-13",
        "Patient?_lastUpdated=ge2020-13-01",
        "Patient?_include=nonsense",
        "Patient?_include=Patient:nonsense",
        "Patient?_has:Observation:nonsense:code=1",
        "Patient?_has:Nonsense:subject:code=1",
        "Patient?general-practitioner.nonsense=1",
        "Observation?value-quantity=a|b|c|d",
        "Observation?code:in=http://example.org/unknown-set",
        "Patient?name=%ff%fe",
        "Patient?name=%zz",
        "Patient?cursor=AAAA",
        "Patient?_cursor=AAAA",
        "Patient?_page=AAAA",
        "Patient?_total=nonsense",
        "Patient?_summary=nonsense",
    ] {
        let answer = client.get(&format!("/fhir/{query}"));
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
        assert_eq!(answer.json()["resourceType"], "OperationOutcome", "{query}");
    }
    let huge = client.get("/fhir/Patient?_count=1000000000");
    assert!(matches!(huge.status, 200 | 400), "{}", huge.status);
    // Long chains, many parameters, long values: answered, and no 5xx.
    for query in [
        format!("Patient?{}", "name=a&".repeat(2000)),
        format!("Patient?name={}", "a,".repeat(5000)),
        format!("Patient?name={}", "a".repeat(50_000)),
        format!("Patient?{}_id=1", "_has:Observation:patient:".repeat(300)),
        format!("Observation?{}name=x", "subject:Patient.link:".repeat(500)),
        "Patient?_revinclude=*&_include=*&_include:iterate=*&_revinclude:iterate=*".to_owned(),
    ] {
        let answer = client.get(&format!("/fhir/{query}"));
        assert!(
            answer.status < 500,
            "{}: {}",
            query.chars().take(60).collect::<String>(),
            answer.status
        );
    }
}

#[test]
fn pages_and_includes_are_bounded() {
    // APP-7: more matches than a page takes, more to include than a page takes, and everything includes everything.
    let server = Server::empty();
    let mut client = server.client();
    let id = client.create(&patient("Fanout", "F"));
    let members: Vec<Value> = (0..2500)
        .map(|n| {
            let mut resource = observation(&id, "1-1", f64::from(n));
            resource["id"] = json!(format!("o{n}"));
            // Each leads to a hundred others.
            resource["hasMember"] = (1..=100)
                .map(|step| json!({"reference": format!("Observation/o{}", (n + step * 7) % 2500)}))
                .collect();
            json!({"resource": resource, "request": {"method": "PUT", "url": format!("Observation/o{n}")}})
        })
        .collect();
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": members});
    client
        .send(
            "POST",
            "/fhir",
            &[("Prefer", "return=minimal")],
            Some(bundle.to_string().as_bytes()),
        )
        .expect(200);
    let modes = |answer: &Value| {
        let entries = answer["entry"].as_array().expect("entry");
        let count = |mode: &str| entries.iter().filter(|entry| entry["search"]["mode"] == mode).count();
        (count("match"), count("include"), count("outcome"))
    };
    for count in ["1000000000", "4294967295", "1001"] {
        let page = client
            .get(&format!("/fhir/Observation?_count={count}"))
            .expect(200)
            .json();
        assert_eq!(modes(&page), (1000, 0, 0), "_count={count}");
    }
    for query in [
        "Patient?_revinclude=Observation:subject",
        "Observation?_id=o1&_include:iterate=Observation:has-member",
        "Patient?_revinclude=*&_include=*&_include:iterate=*&_revinclude:iterate=*",
        "Patient?_revinclude=Observation:subject&_include:iterate=Observation:has-member&_revinclude:iterate=Observation:has-member",
    ] {
        let page = client.get(&format!("/fhir/{query}")).expect(200).json();
        let (matches, included, told) = modes(&page);
        assert!(matches == 1 && included <= 2000, "{query}: {matches} and {included}");
        assert!(told == 1 || included < 2000, "{query}: cut, and not told");
    }
    println!("at most {} MiB resident", resident(&server));
    assert!(resident(&server) < RESIDENT_MAX, "{} MiB", resident(&server));
}

/// Waits until the server ends a connection; what it said before. A server that never does fails the test in the end.
fn until_closed(stream: &mut TcpStream) -> String {
    let mut back = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => back.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the connection is still open: {error}"),
        }
    }
    String::from_utf8_lossy(&back).into_owned()
}

/// Sets its flag when it goes.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Connections that a listener has at a time, by default.
const CAP: usize = 4096;

#[test]
fn slow_clients_do_not_keep_others_out() {
    // APP-7: more connections than the server takes, silent or trickling, of every kind; whoever was there before is
    // answered all the while, who comes later as soon as the slow ones are given up, and all of them are.
    let file_limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let enough = file_limit.maximum.is_none_or(|most| most > 3 * CAP as u64);
    let raised = rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit {
            current: file_limit.maximum,
            maximum: file_limit.maximum,
        },
    );
    let many = if enough && raised.is_ok() {
        CAP + 300
    } else {
        println!("SKIPPED 1 more connections than the server takes: too few files are allowed here");
        400
    };
    let server = Server::empty();
    let idle = resident(&server);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also when this test fails: the one who was there before must come to an end.
        let at_end = AtEnd(&ended);
        let mut early = server.client();
        early.get("/fhir/Patient").expect(200);
        let meanwhile = scope.spawn(|| {
            let mut answered = 0_u64;
            let mut early = early;
            while !ended.load(Ordering::Relaxed) {
                early.get("/fhir/Patient").expect(200);
                answered += 1;
            }
            answered
        });
        let head = format!(
            "POST /fhir/Patient HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/fhir+json\r\nContent-Length: 100000\r\n\r\n",
            server.token
        );
        let parts: [&[u8]; 5] = [
            b"",
            b"GET /fhir/Patient HTTP/1.1\r\nHo",
            b"PRI * HT",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            head.as_bytes(),
        ];
        let mut slow: Vec<TcpStream> = (0..many)
            .map(|n| {
                let mut stream = support::connect(server.port).expect("connect");
                stream.write_all(parts[n % parts.len()]).expect("the kernel takes it");
                stream
            })
            .collect();
        // One byte now and then is no body either.
        let mut trickling = support::connect(server.port).expect("connect");
        trickling.write_all(head.as_bytes()).expect("the kernel takes it");
        let mut writing = trickling.try_clone().expect("clone");
        scope.spawn(move || {
            while writing.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        server.client().get("/fhir/Patient").expect(200);
        let mut reader = BufReader::new(trickling);
        let answer = support::read_answer(&mut reader, false).expect("an answer to the trickling body");
        assert_eq!(answer.status, 408, "{}", answer.text());
        drop(reader);
        for (n, stream) in slow.iter_mut().enumerate() {
            let said = until_closed(stream);
            let fits = match n % parts.len() {
                4 => said.contains(" 408 "),
                3 => true,
                _ => said.is_empty() || said.contains(" 408 ") || said.contains(" 400 "),
            };
            assert!(fits, "{n}: {said}");
        }
        drop(at_end);
        let answered = meanwhile.join().expect("the one who was there before");
        println!(
            "{many} slow connections given up, {answered} requests answered meanwhile, at most {} MiB resident ({idle} before)",
            resident(&server)
        );
        assert!(resident(&server) < RESIDENT_MAX, "{} MiB", resident(&server));
    });
}

#[test]
fn headers_cannot_be_injected() {
    let server = Server::empty();
    let mut client = server.client();
    for path in [
        "/fhir/Patient?name=a%0d%0aSet-Cookie:%20x=1",
        "/fhir/Patient/a%0d%0aX-Injected:%201",
        "/%0d%0aX-Injected:%201",
        "/fhir/Patient?_format=json%0d%0aX-Injected:%201",
    ] {
        let answer = client.get(path);
        assert!(answer.status < 500, "{path}: {}", answer.status);
        assert!(
            answer.header("x-injected").is_none() && answer.header("set-cookie").is_none(),
            "{path}"
        );
    }
    // A forwarded host does not reach the links.
    let body = patient("Host", "H").to_string();
    let created = client
        .send(
            "POST",
            "/fhir/Patient",
            &[("X-Forwarded-Host", "evil.example"), ("Forwarded", "host=evil.example")],
            Some(body.as_bytes()),
        )
        .expect(201);
    assert!(!created.header("location").unwrap().contains("evil"));
    let evil = format!(
        "GET /fhir/Patient HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        server.token
    );
    assert!(
        !said(&server, evil.as_bytes()).contains("http://evil.example"),
        "links are not built from the Host header"
    );
}

#[test]
fn answers_carry_the_security_headers_and_no_version() {
    let server = Server::empty();
    let mut client = server.client();
    let id = client.create(&patient("Head", "H"));
    for path in [
        format!("/fhir/Patient/{id}"),
        "/fhir/Patient".to_owned(),
        "/fhir/nonsense".to_owned(),
        "/".to_owned(),
    ] {
        let answer = client.get(&path);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert!(answer.header("server").is_none(), "{path}");
        assert!(answer.header("x-powered-by").is_none(), "{path}");
        if path.starts_with("/fhir") {
            assert!(
                answer
                    .header("cache-control")
                    .is_some_and(|value| value.contains("no-store")),
                "{path}"
            );
        }
        assert!(answer.header("access-control-allow-origin").is_none(), "{path}");
    }
}

#[test]
fn errors_and_logs_leak_nothing() {
    // APP-8, AUD-12: no stack, SQL, path or value in an error; no line break of ours in the log.
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut client = server.client();
    let secret = "Leaksecret";
    let mut bodies = Vec::new();
    for body in [
        format!("{{\"resourceType\":\"Patient\",\"birthDate\":\"{secret}\"}}"),
        format!("{{\"resourceType\":\"Patient\",\"{secret}\":1}}"),
        format!("{{\"resourceType\":\"Patient\",\"gender\":\"{secret}\"}}"),
        format!("{{\"resourceType\":\"Patient\",\"name\":[{{\"family\":\"{secret}\",\"use\":7}}]}}"),
        format!("{{\"resourceType\":\"Patient\" {secret}"),
    ] {
        bodies.push(client.send("POST", "/fhir/Patient", &[], Some(body.as_bytes())));
    }
    bodies.push(client.get(&format!("/fhir/Patient?birthdate={secret}")));
    bodies.push(client.get(&format!("/fhir/Patient/{secret}")));
    bodies.push(client.send(
        "PATCH",
        "/fhir/Patient/x",
        &[("Content-Type", "application/json-patch+json")],
        Some(format!("[{{\"op\":\"{secret}\"}}]").as_bytes()),
    ));
    let injected = "a%0d%0a2026-01-01T00:00:00Z%20ERROR%20forged%1b[31m";
    bodies.push(client.get(&format!("/fhir/{injected}")));
    bodies.push(client.get(&format!("/fhir/Patient?{injected}=1")));
    bodies.push(client.send(
        "GET",
        "/fhir/Patient/nope",
        &[("User-Agent", "x\u{1b}[2J forged"), ("X-Request-Id", "r1 forged")],
        None,
    ));
    for answer in &bodies {
        assert!(
            (400..500).contains(&answer.status),
            "{} {}",
            answer.status,
            answer.text()
        );
        let text = answer.text();
        for word in [
            "panicked",
            ".rs:",
            "src/",
            "SELECT",
            "sqlite",
            "rusqlite",
            "/tmp/",
            "stack backtrace",
            "RUST_BACKTRACE",
        ] {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }
    let log = server.logged();
    assert!(!log.contains(secret), "a value reached the log");
    assert!(!log.contains(&server.token), "a token reached the log");
    assert!(
        !log.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z")),
        "a forged line in the log"
    );
    assert!(
        !log.contains("\u{1b}[31m") && !log.contains("\u{1b}[2J"),
        "control characters in the log"
    );
}

#[test]
fn forged_tokens_are_refused() {
    // APP-9, as far as bearer tokens go: algorithm none, changed claims, foreign keys, broken forms.
    let server = Server::empty();
    let url = |bytes: &[u8]| {
        support::base64(bytes)
            .trim_end_matches('=')
            .replace('+', "-")
            .replace('/', "_")
    };
    let parts: Vec<&str> = server.token.split('.').collect();
    let mut forged = vec![
        String::from("x"),
        String::from(".."),
        String::from("a.b.c"),
        "A".repeat(100_000),
        format!(
            "{}.{}.",
            url(br#"{"alg":"none"}"#),
            url(br#"{"sub":"admin","scope":"system/*.cruds","exp":99999999999}"#)
        ),
    ];
    if parts.len() == 3 {
        for algorithm in ["none", "None", "HS256", "HS512", "RS256", "ES256", "EdDSA"] {
            let head = url(format!(
                "{{\"alg\":\"{algorithm}\",\"typ\":\"JWT\",\"jku\":\"http://127.0.0.1:1/\",\"kid\":\"../../dev/null\"}}"
            )
            .as_bytes());
            forged.push(format!("{head}.{}.{}", parts[1], parts[2]));
            forged.push(format!("{head}.{}.", parts[1]));
        }
        for at in 0..parts[1].len() {
            let mut bytes = parts[1].as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            forged.push(format!(
                "{}.{}.{}",
                parts[0],
                String::from_utf8(bytes).unwrap(),
                parts[2]
            ));
        }
        let mut signature = parts[2].as_bytes().to_vec();
        signature[5] = if signature[5] == b'A' { b'B' } else { b'A' };
        forged.push(format!(
            "{}.{}.{}",
            parts[0],
            parts[1],
            String::from_utf8(signature).unwrap()
        ));
        forged.push(format!("{}.{}", parts[0], parts[1]));
        forged.push(format!("{}.x", server.token));
    }
    assert!(forged.len() > 100, "a corpus of {}", forged.len());
    let mut client: Client;
    for token in &forged {
        client = server.client_with(token);
        let answer = client.get("/fhir/Patient");
        assert!(
            matches!(answer.status, 401 | 431 | 400),
            "{}: {}",
            token.chars().take(60).collect::<String>(),
            answer.status
        );
    }
    for scheme in ["Basic", "bearer2", "Token"] {
        let mut client = server.client_with("");
        let value = format!("{scheme} {}", server.token);
        client
            .send("GET", "/fhir/Patient", &[("Authorization", &value)], None)
            .refused(401);
    }
    // A token in the query is not looked at: it would stand in logs.
    server
        .client_with("")
        .get(&format!("/fhir/Patient?access_token={}", server.token))
        .refused(401);
}

/// More than 10 GB of blanks in a few MB or KB: the same packed member again and again, which unpacks to all of them.
fn bombs() -> [(&'static str, Vec<u8>); 2] {
    let blanks = vec![b' '; 64 << 20];
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gz.write_all(&blanks).unwrap();
    let gz = gz.finish().unwrap().repeat(160);
    let zst = zstd::encode_all(blanks.as_slice(), 3).unwrap().repeat(160);
    [("gz", gz), ("zst", zst)]
}

#[test]
fn packed_bombs_do_not_unpack() {
    let server = Server::empty();
    let mut client = server.client();
    let data = server.data.to_str().unwrap();
    let folder = Folder::new();
    for (packing, bomb) in bombs() {
        for coding in [
            "gzip",
            "x-gzip",
            "deflate",
            "br",
            "zstd",
            "gzip, gzip",
            "GZIP",
            "identity, gzip",
        ] {
            let answer = client.send("POST", "/fhir/Patient", &[("Content-Encoding", coding)], Some(&bomb));
            assert_eq!(answer.status, 415, "{coding}");
        }
        let head = format!(
            "POST /fhir/Patient HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: gzip, chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
            server.token
        );
        let answer = said(&server, head.as_bytes());
        assert!(
            answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"),
            "{answer}"
        );
        // In an import through the running server: refused before it has grown, in lines and as a whole.
        for name in [format!("bomb.json.{packing}"), format!("bomb.ndjson.{packing}")] {
            let file = folder.join(&name);
            fs::write(&file, &bomb).unwrap();
            let output = cli(&["import", "--data", data, file.to_str().unwrap()]);
            let told = support::said(&output);
            assert!(
                !output.status.success() && told.contains("200 times its size") && !told.contains("panicked"),
                "{name}: {told}"
            );
        }
    }
    // Nothing packed at all, but far too long.
    let file = folder.join("long.json");
    fs::File::create(&file).unwrap().set_len(10 << 30).unwrap();
    let output = cli(&["import", "--data", data, file.to_str().unwrap()]);
    assert!(
        support::said(&output).contains("longer than 256 MB"),
        "{}",
        support::said(&output)
    );
    // And what packs as records do is loaded: two thousand of them, packed to a small part.
    let lines: String = (0..2000)
        .map(|n| {
            let mut resource = patient("Packed", "P");
            resource["id"] = json!(format!("packed-{n}"));
            format!("{resource}\n")
        })
        .collect();
    let file = folder.join("good.ndjson.zst");
    fs::write(&file, zstd::encode_all(lines.as_bytes(), 19).unwrap()).unwrap();
    let output = cli(&["import", "--data", data, file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", support::said(&output));
    let count = client.get("/fhir/Patient?_summary=count").expect(200).json();
    assert_eq!(count["total"], 2000);
    println!("at most {} MiB resident", resident(&server));
    assert!(resident(&server) < RESIDENT_MAX, "{} MiB", resident(&server));
}

#[test]
fn an_import_does_not_leave_its_folder() {
    // APP-4: links to files and folders outside, a loop, a pipe, a socket, a device; by the running server and without.
    let folder = Folder::new();
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let data = server.data.to_str().unwrap().to_owned();
    let outside = folder.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret.json"), patient("Outsidesecret", "S").to_string()).unwrap();
    let within = |name: &str, place: &dyn Fn(&Path)| {
        let within = folder.join(name);
        fs::create_dir_all(within.join("deeper")).unwrap();
        fs::write(within.join("a.json"), patient("Inside", "I").to_string()).unwrap();
        place(&within);
        within
    };
    let mut refused = vec![
        (
            within("file-link", &|at| {
                symlink(outside.join("secret.json"), at.join("b.json")).unwrap()
            }),
            "symbolic link",
        ),
        (
            within("relative-link", &|at| {
                symlink("../../outside/secret.json", at.join("deeper/b.json")).unwrap()
            }),
            "symbolic link",
        ),
        (
            within("folder-link", &|at| symlink(&outside, at.join("deeper/more")).unwrap()),
            "symbolic link",
        ),
        (
            within("loop", &|at| symlink(at, at.join("deeper/again")).unwrap()),
            "symbolic link",
        ),
        (
            within("self", &|at| symlink("b.json", at.join("b.json")).unwrap()),
            "symbolic link",
        ),
        (
            within("nowhere", &|at| {
                symlink("nothing-there.json", at.join("b.json")).unwrap()
            }),
            "symbolic link",
        ),
        (
            within("keyring", &|at| {
                symlink(server.data.join("keyring"), at.join("b.ndjson.gz")).unwrap()
            }),
            "symbolic link",
        ),
        (
            within("pipe", &|at| {
                let pipe = at.join("b.json");
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    &pipe,
                    rustix::fs::FileType::Fifo,
                    rustix::fs::Mode::RUSR,
                    0,
                )
                .unwrap();
            }),
            "neither a file nor a folder",
        ),
        (
            within("socket", &|at| {
                std::os::unix::net::UnixListener::bind(at.join("b.json")).unwrap();
            }),
            "neither a file nor a folder",
        ),
        (Path::new("/dev/zero").to_owned(), "neither a file nor a folder"),
        (folder.join("pipe/b.json"), "neither a file nor a folder"),
    ];
    let device = within("device", &|_| {});
    let made = Command::new("mknod")
        .arg(device.join("b.json"))
        .args(["c", "1", "5"])
        .output();
    if made.is_ok_and(|output| output.status.success()) {
        refused.push((device, "neither a file nor a folder"));
    } else {
        println!("SKIPPED 1 device: no right to make one");
    }
    let try_all = || {
        for (path, why) in &refused {
            let output = cli(&["import", "--data", &data, path.to_str().unwrap()]);
            let told = support::said(&output);
            assert!(
                !output.status.success() && told.contains(why),
                "{}: {told}",
                path.display()
            );
            assert!(!told.contains("Outsidesecret"), "{told}");
        }
    };
    try_all();
    let found = |server: &Server, name: &str| server.client().matches(&format!("Patient?family={name}")).len();
    assert_eq!(
        (found(&server, "Outsidesecret"), found(&server, "Inside")),
        (0, 0),
        "nothing was loaded"
    );
    server.stop();
    try_all();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    assert_eq!(
        (found(&server, "Outsidesecret"), found(&server, "Inside")),
        (0, 0),
        "nothing was loaded"
    );
    // What somebody names is meant, a link too; and a folder of files alone is loaded.
    let named = folder.join("named.json");
    symlink(outside.join("secret.json"), &named).unwrap();
    let plain = within("plain", &|_| {});
    let output = cli(&[
        "import",
        "--data",
        &data,
        named.to_str().unwrap(),
        plain.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", support::said(&output));
    assert_eq!((found(&server, "Outsidesecret"), found(&server, "Inside")), (1, 1));
}

#[test]
fn narrative_and_strings_come_back_inert() {
    // APP-2: scripts are refused in narrative; elsewhere text is text, and the answer says it is JSON.
    let server = Server::empty();
    let mut client = server.client();
    for div in [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1) />",
        "<a href=\"javascript:alert(1)\">x</a>",
        "<iframe src=\"http://evil.example\"></iframe>",
        "<p onclick=\"alert(1)\">x</p>",
        "<svg><script>1</script></svg>",
        "<style>@import 'http://evil.example'</style>",
        "<form action=\"http://evil.example\"><input name=\"a\" /></form>",
        "<object data=\"x\"></object>",
        "<p>unclosed",
        "&nonsense;",
    ] {
        let body = json!({"resourceType": "Patient", "text": {"status": "generated", "div": format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{div}</div>")}});
        let answer = client.post("/fhir/Patient", &body);
        assert!(matches!(answer.status, 400 | 422), "{div}: {}", answer.status);
    }
    let name = "<script>alert(1)</script>\u{2028}\"'&";
    let id = client.create(&patient(name, "X"));
    let read = client.get(&format!("/fhir/Patient/{id}")).expect(200);
    assert!(
        read.header("content-type")
            .unwrap()
            .starts_with("application/fhir+json")
    );
    assert_eq!(read.json()["name"][0]["family"], name);
    assert_eq!(
        client.matches("Patient?family:exact=%3Cscript%3Ealert(1)%3C/script%3E%E2%80%A8%22%27%26"),
        [id]
    );
}

#[test]
fn the_body_cannot_name_another_resource() {
    // CVE-2026-25744 and its kind: the id of the path holds, never the one in the body.
    let server = Server::empty();
    let mut client = server.client();
    let (one, two) = (client.create(&patient("One", "A")), client.create(&patient("Two", "B")));
    let mut body = client.get(&format!("/fhir/Patient/{two}")).json();
    body["active"] = Value::Bool(true);
    client.put(&format!("/fhir/Patient/{one}"), &body).refused(400);
    assert_eq!(
        client.get(&format!("/fhir/Patient/{two}")).json()["meta"]["versionId"],
        "1"
    );
    assert_eq!(
        client.get(&format!("/fhir/Patient/{one}")).json()["name"][0]["family"],
        "One"
    );
}

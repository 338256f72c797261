//! IAM-15, API-3, AZ-7, APP-9, APP-10, CON-2 (tokens) against the running binary: registered clients, their assertions,
//! tokens, introspection, revocation and scopes.
#![allow(
    clippy::print_stdout,
    reason = "figures are told on stdout, which the test run collects"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "assertions carry the time of the system's clock, as those of any client do"
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
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use support::signer::{Signer, claims, url64};
use support::{Answer, Client, Folder, Server, cli, observation, patient, said};

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

fn now_s() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// An id no other assertion of this run has.
fn jti() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn encoded(members: &[(&str, &str)]) -> String {
    let escaped = |text: &str| {
        text.bytes().fold(String::new(), |mut out, b| {
            match b {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => out.push(char::from(b)),
                b => out.push_str(&format!("%{b:02X}")),
            }
            out
        })
    };
    let pairs: Vec<String> = members.iter().map(|(n, v)| format!("{n}={}", escaped(v))).collect();
    pairs.join("&")
}

/// Posts a form without a bearer token.
fn post(server: &Server, path: &str, members: &[(&str, &str)]) -> Answer {
    server
        .client_with("")
        .send("POST", path, &[FORM], Some(encoded(members).as_bytes()))
}

fn ask(server: &Server, assertion: &str, scope: &str) -> Answer {
    post(
        server,
        "/oauth/token",
        &[
            ("grant_type", "client_credentials"),
            ("scope", scope),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", assertion),
        ],
    )
}

/// Introspection and revocation, authenticated by an assertion.
fn about(server: &Server, path: &str, assertion: &str, token: &str) -> Answer {
    post(
        server,
        path,
        &[
            ("token", token),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", assertion),
        ],
    )
}

/// An error of RFC 6749 5.2 that may be stored nowhere and gives nothing.
#[track_caller]
fn oauth_error(answer: &Answer, status: u16, error: &str) {
    assert_eq!(
        (answer.status, answer.json()["error"].as_str()),
        (status, Some(error)),
        "{}",
        answer.text()
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.json()["error_description"].is_string());
    assert!(!answer.text().contains("access_token"));
}

fn run(server: &Server, arguments: &[&str]) -> Result<Value, String> {
    let data = server.data.to_str().unwrap().to_owned();
    let mut all = vec!["client"];
    all.extend(arguments);
    all.extend(["--data", &data]);
    let output = cli(&all);
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).expect("JSON"))
    } else {
        Err(said(&output))
    }
}

fn register(server: &Server, folder: &Path, keys: &[Value], scope: &str, more: &[&str]) -> Result<String, String> {
    let file = folder.join(format!("jwks-{}.json", jti()));
    std::fs::write(&file, json!({ "keys": keys }).to_string()).unwrap();
    let mut arguments = vec![
        "add",
        "--name",
        "Laboratory",
        "--jwks",
        file.to_str().unwrap(),
        "--scope",
        scope,
    ];
    arguments.extend(more);
    run(server, &arguments).map(|client| client["id"].as_str().expect("id").to_owned())
}

/// A server with a registered client of one key.
struct Lab {
    server: Server,
    folder: Folder,
    key: Signer,
    id: String,
}

impl Lab {
    fn new(scope: &str) -> Self {
        Self::with(Signer::ec(), scope)
    }

    fn with(key: Signer, scope: &str) -> Self {
        let folder = Folder::new();
        let server = Server::demo_in(folder.path(), &["--patients", "0"]);
        let id = register(&server, folder.path(), &[key.jwk("k1")], scope, &[]).unwrap();
        Self {
            server,
            folder,
            key,
            id,
        }
    }

    fn audience(&self) -> String {
        format!("{}/oauth/token", self.server.ready["url"].as_str().unwrap())
    }

    fn claims(&self) -> Value {
        claims(&self.id, &self.audience(), now_s(), &jti())
    }

    fn signed(&self, claims: &Value) -> String {
        self.key.jwt(&self.key.header("k1").to_string(), &claims.to_string())
    }

    fn assertion(&self) -> String {
        self.signed(&self.claims())
    }

    fn token(&self, scope: &str) -> String {
        let answer = ask(&self.server, &self.assertion(), scope).expect(200);
        answer.json()["access_token"].as_str().expect("access_token").to_owned()
    }

    fn client(&self, scope: &str) -> Client {
        self.server.client_with(&self.token(scope))
    }
}

#[test]
fn each_algorithm_gets_a_token_that_is_introspected_used_and_revoked() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let audience = format!("{}/oauth/token", server.ready["url"].as_str().unwrap());
    let keys = [("one", Signer::rsa()), ("two", Signer::ec()), ("three", Signer::ed())];
    let jwks: Vec<Value> = keys.iter().map(|(kid, key)| key.jwk(kid)).collect();
    let id = register(
        &server,
        folder.path(),
        &jwks,
        "system/Observation.cruds system/Patient.rs",
        &[],
    )
    .unwrap();
    let subject = server.client().create(&patient("Delgado", "Rosa"));
    for (kid, key) in &keys {
        let assertion = || {
            key.jwt(
                &key.header(kid).to_string(),
                &claims(&id, &audience, now_s(), &jti()).to_string(),
            )
        };
        let answer = ask(&server, &assertion(), "system/*.rs system/Observation.c").expect(200);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("pragma"), Some("no-cache"));
        let given = answer.json();
        assert_eq!(given["token_type"], "Bearer");
        assert_eq!(given["expires_in"], 300);
        assert_eq!(given["scope"], "system/Observation.crs system/Patient.rs");
        let token = given["access_token"].as_str().unwrap();
        let mut client = server.client_with(token);
        client.get(&format!("/fhir/Patient/{subject}")).expect(200);
        client.create(&observation(&subject, "1-1", 1.0));

        let said = about(&server, "/oauth/introspect", &assertion(), token).expect(200);
        assert_eq!(said.header("cache-control"), Some("no-store"));
        let said = said.json();
        assert_eq!(said["active"], true);
        assert_eq!(said["client_id"], id.as_str());
        assert_eq!(said["sub"], id.as_str());
        assert_eq!(said["scope"], given["scope"]);
        assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 300);

        let published = server.client_with("").get("/.well-known/jwks.json").expect(200).json();
        let published = published["keys"].as_array().unwrap();
        assert!(published.iter().all(|k| k.get("d").is_none() && k["use"] == "sig"));
        let header = support::unbase64(&padded(token.split('.').next().unwrap()));
        let header: Value = serde_json::from_slice(&header).unwrap();
        assert!(published.iter().any(|k| k["kid"] == header["kid"]));

        let voided = about(&server, "/oauth/revoke", &assertion(), token).expect(200);
        assert!(voided.body.is_empty());
        client.get(&format!("/fhir/Patient/{subject}")).refused(401);
        let said = about(&server, "/oauth/introspect", &assertion(), token)
            .expect(200)
            .json();
        assert_eq!(said, json!({"active": false}));
        about(&server, "/oauth/revoke", &assertion(), token).expect(200);
    }
    // What the client did stands under its name.
    let line = run(&server, &["show", &id]).unwrap();
    assert_eq!(line["name"], "Laboratory");
    assert_eq!(line["keys"].as_array().unwrap().len(), 3);
    assert_eq!(run(&server, &["list"]).unwrap().as_array().unwrap().len(), 1);
}

/// Header and claims of an assertion that is not in order, with what is wrong.
fn forged(lab: &Lab, other: &Signer, other_id: &str) -> Vec<(String, String)> {
    let header = lab.key.header("k1");
    let mut all: Vec<(String, String)> = Vec::new();
    let with = |member: &str, value: Value| {
        let mut claims = lab.claims();
        if value == json!("absent") {
            claims.as_object_mut().unwrap().remove(member);
        } else {
            claims[member] = value;
        }
        claims
    };
    let mut push = |what: &str, assertion: String| all.push((what.to_owned(), assertion));
    let (now, audience) = (now_s(), lab.audience());
    let origin = lab.server.ready["url"].as_str().unwrap();

    // Claims, signed by the client's own key.
    for (what, member, value) in [
        ("no iss", "iss", json!("absent")),
        ("no sub", "sub", json!("absent")),
        ("no aud", "aud", json!("absent")),
        ("no exp", "exp", json!("absent")),
        ("no jti", "jti", json!("absent")),
        ("another iss", "iss", json!(other_id)),
        ("another sub", "sub", json!(other_id)),
        ("iss in capitals", "iss", json!(lab.id.to_uppercase())),
        ("empty iss", "iss", json!("")),
        ("null iss", "iss", Value::Null),
        ("list as sub", "sub", json!([lab.id])),
        ("aud the server", "aud", json!(origin)),
        ("aud the FHIR base", "aud", json!(format!("{origin}/fhir"))),
        ("aud introspection", "aud", json!(format!("{origin}/oauth/introspect"))),
        ("aud with a slash", "aud", json!(format!("{audience}/"))),
        ("aud with a query", "aud", json!(format!("{audience}?x=1"))),
        (
            "aud by another name",
            "aud",
            json!(audience.replace("127.0.0.1", "localhost")),
        ),
        ("aud in capitals", "aud", json!(audience.to_uppercase())),
        ("aud over TLS", "aud", json!(audience.replace("http:", "https:"))),
        ("aud elsewhere", "aud", json!("https://evil.example/oauth/token")),
        ("aud among others", "aud", json!([audience, "https://evil.example/"])),
        ("no aud in the list", "aud", json!([])),
        ("empty aud", "aud", json!("")),
        ("null aud", "aud", Value::Null),
        ("aud a number", "aud", json!(1)),
        ("aud an object", "aud", json!({"0": audience})),
        ("expired", "exp", json!(now - 1)),
        ("expired long ago", "exp", json!(0)),
        ("exp negative", "exp", json!(-1)),
        ("six minutes", "exp", json!(now + 360)),
        ("an hour", "exp", json!(now + 3600)),
        ("exp in milliseconds", "exp", json!((now + 60) * 1000)),
        ("exp for ever", "exp", json!(i64::MAX)),
        ("exp beyond numbers", "exp", json!(u64::MAX)),
        ("exp a text", "exp", json!((now + 60).to_string())),
        ("exp a fraction", "exp", json!(now as f64 + 60.5)),
        ("exp null", "exp", Value::Null),
        ("exp true", "exp", json!(true)),
        ("nbf to come", "nbf", json!(now + 120)),
        ("nbf a text", "nbf", json!("now")),
        ("iat to come", "iat", json!(now + 120)),
        ("iat a text", "iat", json!("now")),
        ("empty jti", "jti", json!("")),
        ("null jti", "jti", Value::Null),
        ("jti a number", "jti", json!(1)),
        ("long jti", "jti", json!("j".repeat(257))),
    ] {
        push(what, lab.signed(&with(member, value)));
    }
    // Claims that are no object, or say things twice.
    let good = lab.claims().to_string();
    let inner = good.trim_start_matches('{').trim_end_matches('}').to_owned();
    for (what, text) in [
        (
            "aud twice, ours last",
            format!(r#"{{"aud":"https://evil.example/",{inner}}}"#),
        ),
        (
            "aud twice, ours first",
            format!(r#"{{{inner},"aud":"https://evil.example/"}}"#),
        ),
        ("exp twice", format!(r#"{{{inner},"exp":{}}}"#, now + 240)),
        ("iss twice", format!(r#"{{"iss":"{other_id}",{inner}}}"#)),
        ("sub twice", format!(r#"{{{inner},"sub":"{other_id}"}}"#)),
        ("jti twice", format!(r#"{{{inner},"jti":"again"}}"#)),
        ("a list", format!("[{good}]")),
        ("a text", r#""claims""#.to_owned()),
        ("nothing", String::new()),
        ("null", "null".to_owned()),
        ("more after the end", format!("{good}{good}")),
        ("not JSON", format!("{good}}}")),
        ("a comment", format!("/**/{good}")),
        ("a byte order mark", format!("\u{feff}{good}")),
        ("deep", format!("{}{}", "[".repeat(2000), "]".repeat(2000))),
    ] {
        push(what, lab.key.jwt(&header.to_string(), &text));
    }
    // Headers, signed by the client's own key.
    let jwk = lab.key.jwk("k1");
    for (what, member, value) in [
        ("alg none", "alg", json!("none")),
        ("alg None", "alg", json!("None")),
        ("alg nOnE", "alg", json!("nOnE")),
        ("alg empty", "alg", json!("")),
        ("alg null", "alg", Value::Null),
        ("alg HS256", "alg", json!("HS256")),
        ("alg HS384", "alg", json!("HS384")),
        ("alg RS256", "alg", json!("RS256")),
        ("alg RS384", "alg", json!("RS384")),
        ("alg PS384", "alg", json!("PS384")),
        ("alg ES256", "alg", json!("ES256")),
        ("alg es384", "alg", json!("es384")),
        ("alg EdDSA", "alg", json!("EdDSA")),
        ("alg Ed25519", "alg", json!("Ed25519")),
        ("alg a list", "alg", json!(["ES384"])),
        ("kid unknown", "kid", json!("k2")),
        ("kid empty", "kid", json!("")),
        ("kid null", "kid", Value::Null),
        ("kid a number", "kid", json!(1)),
        ("kid a file", "kid", json!("../../../../dev/null")),
        ("kid a query", "kid", json!("k1' OR '1'='1")),
        ("kid of another client", "kid", json!("other")),
        ("kid in capitals", "kid", json!("K1")),
        ("jku", "jku", json!("https://evil.example/jwks.json")),
        (
            "jku of this machine",
            "jku",
            json!(format!("{origin}/.well-known/jwks.json")),
        ),
        ("x5u", "x5u", json!("https://evil.example/cert.pem")),
        ("x5c", "x5c", json!(["MIIB"])),
        ("x5t", "x5t", json!("AAAA")),
        ("jwk", "jwk", jwk.clone()),
        ("crit", "crit", json!(["exp"])),
        ("b64", "b64", json!(false)),
        ("zip", "zip", json!("DEF")),
        ("cty", "cty", json!("JWT")),
        ("typ access token", "typ", json!("at+jwt")),
        ("typ logout", "typ", json!("logout+jwt")),
        ("typ empty", "typ", json!("")),
        ("typ a number", "typ", json!(1)),
    ] {
        let mut header = header.clone();
        header[member] = value;
        push(what, lab.key.jwt(&header.to_string(), &lab.claims().to_string()));
    }
    for (what, text) in [
        ("no kid", json!({"alg": lab.key.alg()}).to_string()),
        ("no alg", json!({"kid": "k1"}).to_string()),
        ("alg twice", r#"{"alg":"ES384","alg":"none","kid":"k1"}"#.to_owned()),
        ("kid twice", r#"{"alg":"ES384","kid":"other","kid":"k1"}"#.to_owned()),
        ("header null", "null".to_owned()),
        ("header nothing", String::new()),
        ("header a list", "[]".to_owned()),
    ] {
        push(what, lab.key.jwt(&text, &lab.claims().to_string()));
    }
    // Signed by somebody else, or with the public key as a secret.
    let claims_now = || lab.claims().to_string();
    push("another's key", other.jwt(&header.to_string(), &claims_now()));
    push(
        "another's key and kid",
        other.jwt(&other.header("other").to_string(), &claims_now()),
    );
    let mut brought = other.header("k1");
    brought["jwk"] = other.jwk("k1");
    push(
        "another's key brought along",
        other.jwt(&brought.to_string(), &claims_now()),
    );
    let public = support::unbase64(&padded(jwk["x"].as_str().unwrap()));
    let point = [
        vec![4],
        public.clone(),
        support::unbase64(&padded(jwk["y"].as_str().unwrap())),
    ]
    .concat();
    for (alg, digest) in [
        ("HS256", aws_lc_rs::hmac::HMAC_SHA256),
        ("HS384", aws_lc_rs::hmac::HMAC_SHA384),
        ("HS512", aws_lc_rs::hmac::HMAC_SHA512),
    ] {
        for (form, secret) in [
            ("point", point.clone()),
            ("coordinate", public.clone()),
            ("JWK", jwk.to_string().into_bytes()),
            ("nothing", Vec::new()),
        ] {
            let signed = format!(
                "{}.{}",
                url64(json!({"alg": alg, "kid": "k1"}).to_string()),
                url64(claims_now())
            );
            let key = aws_lc_rs::hmac::Key::new(digest, &secret);
            let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
            push(&format!("{alg} with the {form}"), format!("{signed}.{}", url64(tag)));
        }
    }
    // The form of a JWS.
    let whole = lab.assertion();
    let parts: Vec<&str> = whole.split('.').collect();
    let (h, c, s) = (parts[0], parts[1], parts[2]);
    let none = url64(r#"{"alg":"none","kid":"k1"}"#);
    for (what, text) in [
        ("nothing at all", String::new()),
        ("dots", "..".to_owned()),
        ("no signature", format!("{h}.{c}.")),
        ("two parts", format!("{h}.{c}")),
        ("four parts", format!("{h}.{c}.{s}.{s}")),
        ("five parts", format!("{h}.{c}.{s}.{s}.{s}")),
        ("alg none without signature", format!("{none}.{c}.")),
        ("alg none with signature", format!("{none}.{c}.{s}")),
        ("no header", format!(".{c}.{s}")),
        ("no claims", format!("{h}..{s}")),
        ("padding", format!("{h}.{c}.{s}==")),
        ("a space", format!("{h}.{c}.{s} ")),
        ("a line break", format!("{h}.{c}.\n{s}")),
        ("header and claims exchanged", format!("{c}.{h}.{s}")),
        ("signature cut", format!("{h}.{c}.{}", &s[..s.len() - 4])),
        ("signature doubled", format!("{h}.{c}.{s}{s}")),
        ("signature zero", format!("{h}.{c}.{}", url64([0; 96]))),
        ("signature of 32 zeros", format!("{h}.{c}.{}", url64([0; 32]))),
        (
            "JSON serialization",
            json!({"protected": h, "payload": c, "signature": s}).to_string(),
        ),
        ("oversized", format!("{h}.{}.{s}", "A".repeat(9000))),
    ] {
        push(what, text);
    }
    // One letter changed, all over it.
    for n in 0..40 {
        let mut text = lab.assertion().into_bytes();
        let at = n * (text.len() - 2) / 39;
        if text[at] != b'.' {
            text[at] = if text[at] == b'Q' { b'R' } else { b'Q' };
            push(&format!("letter {at}"), String::from_utf8(text).unwrap());
        }
    }
    all
}

/// Base64url as the support's decoder wants it.
fn padded(text: &str) -> String {
    let mut out = text.replace('-', "+").replace('_', "/");
    while !out.len().is_multiple_of(4) {
        out.push('=');
    }
    out
}

#[test]
fn none_of_a_corpus_of_forged_assertions_gets_a_token() {
    let lab = Lab::new("system/*.cruds");
    let other = Signer::ec();
    let other_id = register(
        &lab.server,
        lab.folder.path(),
        &[other.jwk("other")],
        "system/*.cruds",
        &[],
    )
    .unwrap();
    let corpus = forged(&lab, &other, &other_id);
    let mut accepted = Vec::new();
    for (what, assertion) in &corpus {
        let answer = ask(&lab.server, assertion, "system/*.cruds");
        if answer.status != 401 || answer.json()["error"] != "invalid_client" {
            accepted.push(format!("{what}: {} {}", answer.status, answer.text()));
        }
        assert!(!answer.text().contains("access_token"), "{what}");
    }
    println!("{} forged assertions, {} accepted", corpus.len(), accepted.len());
    assert!(corpus.len() > 150, "{}", corpus.len());
    assert!(accepted.is_empty(), "{accepted:#?}");
    // The same client with all of it in order, and the other one with its own.
    lab.token("system/*.cruds");
    // As bearer tokens they open nothing either.
    let mut opened = Vec::new();
    let good = ("an assertion in order".to_owned(), lab.assertion());
    for (what, text) in corpus
        .iter()
        .chain([&good])
        .filter(|(_, t)| !t.is_empty() && !t.contains('\n'))
    {
        if lab.server.client_with(text).get("/fhir/Patient").status != 401 {
            opened.push(what);
        }
    }
    assert!(opened.is_empty(), "{opened:?}");
    let logged = lab.server.logged();
    let (signed, _) = good.1.rsplit_once('.').unwrap();
    assert!(
        !logged.contains(signed) && !logged.contains("eyJ"),
        "an assertion is in the log"
    );
}

#[test]
fn a_used_assertion_is_worth_nothing_also_after_a_kill() {
    let mut lab = Lab::new("system/Patient.rs");
    let used = lab.assertion();
    ask(&lab.server, &used, "system/Patient.rs").expect(200);
    for _ in 0..20 {
        oauth_error(&ask(&lab.server, &used, "system/Patient.rs"), 401, "invalid_client");
    }
    let token = lab.token("system/Patient.rs");
    about(&lab.server, "/oauth/revoke", &lab.assertion(), &token).expect(200);
    let fresh = lab.assertion();
    let (port, data) = (lab.server.port, lab.server.data.clone());
    lab.server.kill9();
    let listen = format!("127.0.0.1:{port}");
    let arguments = [
        "demo",
        "--data",
        data.to_str().unwrap(),
        "--patients",
        "0",
        "--listen",
        &listen,
    ];
    lab.server = Server::start(&arguments, &data, &lab.folder.join("log"), None).unwrap();
    oauth_error(&ask(&lab.server, &used, "system/Patient.rs"), 401, "invalid_client");
    lab.server.client_with(&token).get("/fhir/Patient").refused(401);
    ask(&lab.server, &fresh, "system/Patient.rs").expect(200);
}

#[test]
fn of_a_hundred_parallel_uses_of_one_assertion_one_wins() {
    let lab = Lab::with(Signer::ed(), "system/Patient.rs");
    let assertion = lab.assertion();
    let start = Barrier::new(100);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let uses: Vec<_> = (0..100)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    ask(&lab.server, &assertion, "system/Patient.rs").status
                })
            })
            .collect();
        uses.into_iter().map(|u| u.join().unwrap()).collect()
    });
    let won = statuses.iter().filter(|s| **s == 200).count();
    println!("100 parallel uses of one assertion: {won} won");
    assert_eq!(won, 1, "{statuses:?}");
    assert!(statuses.iter().all(|s| matches!(s, 200 | 401)), "{statuses:?}");
}

#[test]
fn a_revoked_token_is_void_on_the_next_request_of_each_stream() {
    let lab = Lab::new("system/Patient.rs");
    let token = lab.token("system/Patient.rs");
    let (void, ready) = (AtomicBool::new(false), Barrier::new(4));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = lab.server.client_with(&token);
                client.get("/fhir/Patient").expect(200);
                ready.wait();
                loop {
                    // Read before the request is sent: what follows was asked after the revocation was answered.
                    let after = void.load(Ordering::SeqCst);
                    let status = client.get("/fhir/Patient").status;
                    if after {
                        assert_eq!(status, 401);
                        break;
                    }
                    assert!(matches!(status, 200 | 401), "{status}");
                }
            });
        }
        ready.wait();
        about(&lab.server, "/oauth/revoke", &lab.assertion(), &token).expect(200);
        void.store(true, Ordering::SeqCst);
    });
}

#[test]
fn an_ended_client_and_a_removed_key_are_void_at_once() {
    let lab = Lab::new("system/Patient.rs");
    let other = Signer::ed();
    let file = lab.folder.join("more.json");
    std::fs::write(&file, other.jwk("k2").to_string()).unwrap();
    run(&lab.server, &["key", "add", &lab.id, "--jwks", file.to_str().unwrap()]).unwrap();
    // Both keys work while the client changes from one to the other.
    let old = lab.token("system/Patient.rs");
    let second = || other.jwt(&other.header("k2").to_string(), &lab.claims().to_string());
    ask(&lab.server, &second(), "system/Patient.rs").expect(200);
    run(&lab.server, &["key", "remove", &lab.id, "k1"]).unwrap();
    lab.server.client_with(&old).get("/fhir/Patient").refused(401);
    oauth_error(
        &ask(&lab.server, &lab.assertion(), "system/Patient.rs"),
        401,
        "invalid_client",
    );
    assert!(
        run(&lab.server, &["key", "remove", &lab.id, "k2"]).is_err(),
        "the last key"
    );
    let answer = ask(&lab.server, &second(), "system/Patient.rs").expect(200).json();
    let token = answer["access_token"].as_str().unwrap();
    let mut client = lab.server.client_with(token);
    client.get("/fhir/Patient").expect(200);
    run(&lab.server, &["end", &lab.id]).unwrap();
    client.get("/fhir/Patient").refused(401);
    oauth_error(&ask(&lab.server, &second(), "system/Patient.rs"), 401, "invalid_client");
    assert!(run(&lab.server, &["key", "add", &lab.id, "--jwks", file.to_str().unwrap()]).is_err());
    assert_eq!(run(&lab.server, &["show", &lab.id]).unwrap()["state"], "ended");
}

#[test]
fn a_key_and_a_client_expire() {
    let lab = Lab::new("system/Patient.rs");
    for more in [["--key-ttl", "2s"], ["--ttl", "2s"]] {
        let key = Signer::ed();
        let id = register(
            &lab.server,
            lab.folder.path(),
            &[key.jwk("k")],
            "system/Patient.rs",
            &more,
        )
        .unwrap();
        // As often as it takes: the last answer counts, and a token given before it ends with the key or client.
        let refused = loop {
            let text = claims(&id, &lab.audience(), now_s(), &jti()).to_string();
            let answer = ask(
                &lab.server,
                &key.jwt(&key.header("k").to_string(), &text),
                "system/Patient.rs",
            );
            if answer.status != 200 {
                break answer;
            }
            assert!(answer.json()["expires_in"].as_i64() <= Some(2));
            // A client that asks without a pause is told to stop before the time is over.
            run(&lab.server, &["show", &id]).unwrap();
        };
        oauth_error(&refused, 401, "invalid_client");
    }
}

#[test]
fn scopes_are_the_intersection_of_what_is_asked_and_registered() {
    let lab = Lab::new("system/Observation.cruds system/Patient.rs");
    let granted = |scope: &str| ask(&lab.server, &lab.assertion(), scope).expect(200).json()["scope"].clone();
    assert_eq!(granted("system/Patient.cruds"), "system/Patient.rs");
    assert_eq!(granted("system/*.rs"), "system/Observation.rs system/Patient.rs");
    // SMART v1.
    assert_eq!(granted("system/Patient.read"), "system/Patient.rs");
    assert_eq!(granted("system/Observation.write"), "system/Observation.cud");
    assert_eq!(granted("system/*.*"), "system/Observation.cruds system/Patient.rs");
    for scope in [
        "",
        "system/Condition.rs",
        "system/Patient.cud",
        "patient/Patient.rs",
        "user/Patient.rs",
        "launch/patient",
        "openid",
        "system/Observation.rs?category=laboratory",
        "system/Observation.rs?category=http://terminology.hl7.org/CodeSystem/observation-category|laboratory",
        "system/Patient.rs system/Observation.rs?category=laboratory",
        "system/Patient.rs nonsense",
    ] {
        oauth_error(&ask(&lab.server, &lab.assertion(), scope), 400, "invalid_scope");
    }
}

/// What each letter opens, asked for over HTTP.
#[test]
fn a_token_does_what_its_scopes_say_and_no_more() {
    let lab = Lab::new("system/*.cruds");
    let mut owner = lab.server.client();
    let subject = owner.create(&patient("Scope", "Sam"));
    let seen = |answer: &Answer| answer.status < 300 && answer.text().contains("\"Observation\"");
    let mut cells = 0;
    for letters in ["c", "r", "u", "d", "s", "rs", "cud", "cruds"] {
        let id = owner.create(&observation(&subject, "1-1", 1.0));
        let mut client = lab.client(&format!("system/Observation.{letters}"));
        let body = observation(&subject, "1-1", 2.0);
        let mut named = body.clone();
        named["id"] = json!(id);
        let patch = br#"[{"op":"replace","path":"/valueQuantity/value","value":3}]"#;
        let entry = |method: &str, url: &str| json!({"resourceType": "Bundle", "type": "batch", "entry": [{"request": {"method": method, "url": url}}]});
        let at = format!("/fhir/Observation/{id}");
        let patch_type = [("Content-Type", "application/json-patch+json")];
        // (what, whether it was done, letters it takes)
        let mut done: Vec<(&str, bool, &str)> = vec![
            ("read", seen(&client.get(&at)), "r"),
            ("vread", seen(&client.get(&format!("{at}/_history/1"))), "r"),
            ("history of one", seen(&client.get(&format!("{at}/_history"))), "r"),
            ("search", seen(&client.get(&format!("/fhir/Observation?_id={id}"))), "s"),
            (
                "search by form",
                seen(&client.send(
                    "POST",
                    "/fhir/Observation/_search",
                    &[FORM],
                    Some(format!("_id={id}").as_bytes()),
                )),
                "s",
            ),
            (
                "search in a compartment",
                seen(&client.get(&format!("/fhir/Patient/{subject}/Observation"))),
                "s",
            ),
            (
                "count",
                client.get(&format!("/fhir/Observation?_id={id}&_summary=count")).json()["total"].as_u64() > Some(0),
                "s",
            ),
            (
                "history of the type",
                seen(&client.get("/fhir/Observation/_history")),
                "s",
            ),
            ("history of all", seen(&client.get("/fhir/_history")), "s"),
            (
                "read in a batch",
                client.post("/fhir", &entry("GET", &format!("Observation/{id}"))).json()["entry"][0]["resource"]["resourceType"]
                    == "Observation",
                "r",
            ),
            ("create", client.post("/fhir/Observation", &body).status < 300, "c"),
            ("update", client.put(&at, &named).status < 300, "u"),
            (
                "patch",
                client.send("PATCH", &at, &patch_type, Some(patch)).status < 300,
                "u",
            ),
            ("delete", client.delete(&at).status < 300, "d"),
        ];
        // Another type, and what no letter of this type opens.
        let patient_at = format!("/fhir/Patient/{subject}");
        done.push(("read another type", client.get(&patient_at).status < 300, "-"));
        done.push((
            "search another type",
            client.get("/fhir/Patient").text().contains(&subject),
            "-",
        ));
        done.push((
            "include another type",
            client
                .get("/fhir/Observation?_include=Observation:subject")
                .text()
                .contains("Sam"),
            "-",
        ));
        done.push((
            "everything",
            client.get(&format!("{patient_at}/$everything")).status < 300,
            "-",
        ));
        done.push((
            "access log",
            client.get(&format!("{patient_at}/$access-log")).status < 300,
            "-",
        ));
        done.push((
            "create another type",
            client.post("/fhir/Patient", &patient("A", "B")).status < 300,
            "-",
        ));
        for (what, was, takes) in done {
            assert_eq!(was, letters.contains(takes), "{letters}: {what}");
            cells += 1;
        }
    }
    println!("{cells} cells of letters and interactions as the scopes say");
}

#[test]
fn the_endpoints_keep_their_manners() {
    let lab = Lab::new("system/Patient.rs");
    let server = &lab.server;
    let mut stranger = server.client_with("");
    for path in ["/oauth/token", "/oauth/introspect", "/oauth/revoke"] {
        for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
            let answer = stranger.send(method, path, &[], None);
            oauth_error(&answer, 405, "invalid_request");
            assert_eq!(answer.header("allow"), Some("POST"));
        }
        let origin = [FORM, ("Origin", "https://evil.example")];
        let answer = stranger.send("POST", path, &origin, Some(b"grant_type=client_credentials&token=x"));
        oauth_error(&answer, 401, "invalid_client");
        assert!(
            answer
                .headers
                .iter()
                .all(|(n, _)| !n.to_lowercase().starts_with("access-control"))
        );
        assert!(answer.header("www-authenticate").is_some());
        // Nothing in addresses, no other kind of body, nothing twice, nothing endless.
        let query = format!("{path}?client_assertion=a.b.c");
        oauth_error(
            &stranger.send("POST", &query, &[FORM], Some(b"token=x")),
            400,
            "invalid_request",
        );
        let json = [("Content-Type", "application/json")];
        oauth_error(&stranger.send("POST", path, &json, Some(b"{}")), 400, "invalid_request");
        let twice = b"grant_type=client_credentials&token=a&token=b";
        oauth_error(
            &stranger.send("POST", path, &[FORM], Some(twice)),
            400,
            "invalid_request",
        );
        oauth_error(
            &stranger.send("POST", path, &[FORM], Some(b"token=%ff")),
            400,
            "invalid_request",
        );
        oauth_error(&stranger.send("POST", path, &[FORM], Some(b"")), 400, "invalid_request");
        let long = format!("token={}", "x".repeat(40_000));
        oauth_error(
            &server
                .client_with("")
                .send("POST", path, &[FORM], Some(long.as_bytes())),
            413,
            "invalid_request",
        );
        let host = [FORM, ("Host", "evil.example")];
        oauth_error(
            &server.client_with("").send("POST", path, &host, Some(b"token=x")),
            421,
            "invalid_request",
        );
    }
    let assertion = lab.assertion();
    let token = |more: &[(&str, &str)]| {
        let mut members = vec![("client_assertion", assertion.as_str()), ("scope", "system/Patient.rs")];
        members.extend(more);
        post(server, "/oauth/token", &members)
    };
    let kind = ("client_assertion_type", JWT_BEARER);
    let grant = ("grant_type", "client_credentials");
    for other in ["authorization_code", "password", "refresh_token", "implicit"] {
        oauth_error(&token(&[kind, ("grant_type", other)]), 400, "unsupported_grant_type");
    }
    oauth_error(&token(&[kind]), 400, "invalid_request");
    oauth_error(&token(&[grant]), 401, "invalid_client");
    let saml = (
        "client_assertion_type",
        "urn:ietf:params:oauth:client-assertion-type:saml2-bearer",
    );
    oauth_error(&token(&[grant, saml]), 401, "invalid_client");
    // No static secret is taken, nor a second way of authentication beside the assertion.
    oauth_error(
        &token(&[grant, kind, ("client_secret", "secret")]),
        401,
        "invalid_client",
    );
    oauth_error(
        &token(&[grant, kind, ("client_id", "client-of-somebody")]),
        401,
        "invalid_client",
    );
    let basic = [FORM, ("Authorization", "Basic Y2xpZW50OnNlY3JldA==")];
    let body = encoded(&[
        grant,
        kind,
        ("client_assertion", &assertion),
        ("scope", "system/Patient.rs"),
    ]);
    let mut client = server.client_with("");
    oauth_error(
        &client.send("POST", "/oauth/token", &basic, Some(body.as_bytes())),
        401,
        "invalid_client",
    );
    // After all of these the assertion has not been used up.
    token(&[grant, kind, ("client_id", &lab.id)]).expect(200);
    assert!(!server.logged().contains("eyJ"), "a token or assertion is in the log");
}

#[test]
fn what_is_published_is_what_works() {
    let lab = Lab::new("system/Patient.rs");
    let origin = lab.server.ready["url"].as_str().unwrap().to_owned();
    let mut stranger = lab.server.client_with("");
    let said = stranger.get("/.well-known/smart-configuration").expect(200);
    assert_eq!(said.header("content-type"), Some("application/json"));
    assert_eq!(
        stranger.get("/fhir/.well-known/smart-configuration").expect(200).body,
        said.body
    );
    let said = said.json();
    for (name, path) in [
        ("token_endpoint", "/oauth/token"),
        ("introspection_endpoint", "/oauth/introspect"),
        ("revocation_endpoint", "/oauth/revoke"),
        ("jwks_uri", "/.well-known/jwks.json"),
    ] {
        assert_eq!(said[name], format!("{origin}{path}"));
    }
    assert!(said.get("authorization_endpoint").is_none());
    assert_eq!(
        said["token_endpoint_auth_methods_supported"],
        json!(["private_key_jwt"])
    );
    let statement = stranger.get("/fhir/metadata").expect(200).json();
    let security = &statement["rest"][0]["security"];
    assert_eq!(security["service"][0]["coding"][0]["code"], "SMART-on-FHIR");
    let uris = security["extension"][0]["extension"].as_array().unwrap();
    for (name, path) in [
        ("token", "/oauth/token"),
        ("introspect", "/oauth/introspect"),
        ("revoke", "/oauth/revoke"),
    ] {
        assert!(
            uris.iter()
                .any(|u| u["url"] == name && u["valueUri"] == format!("{origin}{path}")),
            "{name}"
        );
    }
    for path in ["/.well-known/jwks.json", "/.well-known/smart-configuration"] {
        assert_eq!(
            stranger.send("POST", path, &[], None).expect(405).header("allow"),
            Some("GET, HEAD")
        );
        assert!(stranger.send("HEAD", path, &[], None).expect(200).body.is_empty());
    }
}

#[test]
fn who_may_ask_about_and_void_a_token() {
    let lab = Lab::new("system/Patient.rs");
    let token = lab.token("system/Patient.rs");
    let other = Signer::ed();
    let other_id = register(&lab.server, lab.folder.path(), &[other.jwk("o")], "system/*.cruds", &[]).unwrap();
    let others = || {
        let text = claims(&other_id, &lab.audience(), now_s(), &jti()).to_string();
        other.jwt(&other.header("o").to_string(), &text)
    };
    let inactive = json!({"active": false});
    assert_eq!(
        about(&lab.server, "/oauth/introspect", &others(), &token)
            .expect(200)
            .json(),
        inactive
    );
    oauth_error(
        &about(&lab.server, "/oauth/revoke", &others(), &token),
        403,
        "unauthorized_client",
    );
    let form = format!("token={token}");
    let with = |bearer: &str, path: &str| {
        lab.server
            .client_with(bearer)
            .send("POST", path, &[FORM], Some(form.as_bytes()))
    };
    // By bearer token: the client itself, an administrator, and nobody else.
    assert_eq!(with(&token, "/oauth/introspect").expect(200).json()["active"], true);
    let nurse = lab.server.issue(&["--role", "nurse", "--user", "n"]);
    oauth_error(&with(&nurse, "/oauth/introspect"), 403, "unauthorized_client");
    oauth_error(&with(&nurse, "/oauth/revoke"), 403, "unauthorized_client");
    oauth_error(&with(&lab.server.token, "/oauth/revoke"), 403, "unauthorized_client");
    oauth_error(&with("nonsense", "/oauth/introspect"), 401, "invalid_client");
    lab.server.client_with(&token).get("/fhir/Patient").expect(200);
    let administrator = lab.server.issue(&["--role", "administrator", "--user", "a"]);
    assert_eq!(
        with(&administrator, "/oauth/introspect").expect(200).json()["client_id"],
        lab.id.as_str()
    );
    with(&administrator, "/oauth/revoke").expect(200);
    lab.server.client_with(&token).get("/fhir/Patient").refused(401);
    // A client ends its own token with it.
    let token = lab.token("system/Patient.rs");
    let own = format!("token={token}");
    lab.server
        .client_with(&token)
        .send("POST", "/oauth/revoke", &[FORM], Some(own.as_bytes()))
        .expect(200);
    lab.server.client_with(&token).get("/fhir/Patient").refused(401);
}

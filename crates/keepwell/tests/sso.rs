//! IAM-13, APP-5, APP-9, IAM-8 against the running binary: single sign-on by OpenID Connect, with a provider of others
//! (`oidc-provider`) and with one that signs what an attacker would like.
#![allow(
    clippy::print_stdout,
    reason = "figures are told on stdout, which the test run collects"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tokens carry the time of the system's clock, as those of any provider do"
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
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use support::signer::{Signer, url64};
use support::{Answer, Client, Folder, Server, cli, said};

fn now_s() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&more[..2]).unwrap(), 16).unwrap());
                rest = &more[2..];
            }
            b => bytes.push(*b),
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// The members of a query or form.
fn members(text: &str) -> HashMap<String, String> {
    let pairs = text.split('&').filter_map(|p| p.split_once('='));
    pairs.map(|(n, v)| (decoded(n), decoded(v))).collect()
}

/// A browser with one cookie jar for one host. It follows nothing by itself.
struct Browser {
    client: Client,
    host: String,
    cookies: Vec<(String, String)>,
}

impl Browser {
    fn new(server: &Server) -> Self {
        Self {
            client: server.client_with(""),
            host: format!("localhost:{}", server.port),
            cookies: Vec::new(),
        }
    }

    /// `site` is what the browser says of where the request comes from: on one from another site cookies of
    /// `SameSite=Strict` stay at home.
    fn ask(&mut self, method: &str, path: &str, form: &str, site: &str) -> Answer {
        let host = self.host.clone();
        let origin = format!("http://{host}");
        let cookies = self.cookies.iter();
        let sent = cookies.filter(|(n, _)| site == "same-origin" || n == "keepwell-sso");
        let cookie: Vec<String> = sent.map(|(n, v)| format!("{n}={v}")).collect();
        let cookie = cookie.join("; ");
        let mut headers = vec![
            ("Host", host.as_str()),
            ("Sec-Fetch-Site", site),
            ("Sec-Fetch-Mode", "navigate"),
            ("Sec-Fetch-Dest", "document"),
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Cookie", &cookie),
        ];
        if method == "POST" {
            headers.push(("Origin", &origin));
        }
        let body = (method == "POST").then_some(form.as_bytes());
        let answer = self.client.send(method, path, &headers, body);
        for (name, value) in &answer.headers {
            if name.eq_ignore_ascii_case("set-cookie") {
                let strict = if value.starts_with("keepwell-sso=") {
                    "Lax"
                } else {
                    "Strict"
                };
                assert!(
                    value.contains("HttpOnly") && value.contains(&format!("SameSite={strict}")),
                    "{value}"
                );
                let (name, value) = value.split(';').next().unwrap().split_once('=').unwrap();
                self.cookies.retain(|(n, _)| n != name);
                if !value.is_empty() {
                    self.cookies.push((name.to_owned(), value.to_owned()));
                }
            }
        }
        answer
    }

    fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, "", "same-origin")
    }

    fn post(&mut self, path: &str, form: &str) -> Answer {
        self.ask("POST", path, form, "same-origin")
    }

    fn holds(&self, cookie: &str) -> bool {
        self.cookies.iter().any(|(n, _)| n == cookie)
    }

    /// Whether the session it holds opens a page.
    fn is_signed_in(&mut self) -> bool {
        self.get("/security").status == 200
    }

    /// Begins a sign-in by a provider: where the browser is sent.
    #[track_caller]
    fn begin(&mut self, provider: &str) -> String {
        let answer = self.get(&format!("/sign-in/sso/{provider}")).expect(303);
        assert!(self.holds("keepwell-sso"));
        answer.header("location").expect("location").to_owned()
    }

    /// Comes back from the provider.
    fn come_back(&mut self, query: &str) -> Answer {
        self.ask("GET", &format!("/sso/callback?{query}"), "", "cross-site")
    }

    /// Proves the own second factor, as the demo's page tells it.
    #[track_caller]
    fn second(&mut self, user: &str) {
        let page = self.get("/sign-in/second").expect(200).text();
        let (_, code) = login(&page, user);
        self.post("/sign-in/second", &format!("code={code}")).expect(303);
        assert!(self.is_signed_in());
    }

    fn sign_in(server: &Server, user: &str) -> Self {
        let mut browser = Self::new(server);
        let page = browser.get("/sign-in").expect(200).text();
        let (password, _) = login(&page, user);
        browser
            .post("/sign-in", &format!("user={user}&password={}", encoded(&password)))
            .expect(303);
        browser.second(user);
        browser
    }
}

/// The password and the code of a login that the demo's sign-in page lists.
fn login(page: &str, user: &str) -> (String, String) {
    let rest = page.split(&format!("data-login=\"{user}\" ")).nth(1).expect("a login");
    let value = |name: &str| {
        let value = rest.split(&format!("{name}=\"")).nth(1).expect(name);
        value.split('"').next().unwrap_or_default().to_owned()
    };
    (value("data-password"), value("data-code"))
}

fn idp(server: &Server, arguments: &[&str]) -> Result<Value, String> {
    let mut all = vec!["idp"];
    all.extend(arguments);
    all.extend(["--data", server.data.to_str().unwrap()]);
    let output = cli(&all);
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).expect("JSON"))
    } else {
        Err(said(&output))
    }
}

fn add(server: &Server, issuer: &str, client: &str, more: &[&str]) -> String {
    let mut arguments = vec![
        "add",
        "--name",
        "City Hospital",
        "--issuer",
        issuer,
        "--client-id",
        client,
    ];
    arguments.extend(more);
    idp(server, &arguments).unwrap()["id"].as_str().unwrap().to_owned()
}

fn link(server: &Server, issuer: &str, subject: &str, user: &str) -> Result<Value, String> {
    idp(
        server,
        &["link", "--user", user, "--issuer", issuer, "--subject", subject],
    )
}

// ------------------------------------------------------------------ a provider of others

/// `oidc-provider` in a process of its own.
struct Real {
    child: Child,
    issuer: String,
}

impl Real {
    /// `None` where node, npm or the package cannot be had.
    fn start(folder: &Path, pages: &str) -> Option<Self> {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sso");
        for name in ["package.json", "provider.mjs"] {
            std::fs::copy(from.join(name), folder.join(name)).unwrap();
        }
        let installed = Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .output()
            .is_ok_and(|o| o.status.success());
        if !installed {
            return None;
        }
        let mut child = Command::new("node")
            .args(["provider.mjs", pages])
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .ok()?;
        let mut told = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("http://") {
            line.clear();
            assert!(told.read_line(&mut line).unwrap() > 0, "the provider ended");
        }
        let issuer = line.trim().to_owned();
        // It goes on writing, and would end with a pipe that nobody reads.
        std::thread::spawn(move || std::io::copy(&mut told, &mut std::io::sink()));
        Some(Self { child, issuer })
    }

    /// Requests to it, with cookies.
    fn get(&self, path: &str, cookies: &mut Vec<(String, String)>) -> Answer {
        let host = self.issuer.trim_start_matches("http://");
        let cookie: Vec<String> = cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let cookie = cookie.join("; ");
        let mut wire = TcpStream::connect(host.replace("localhost", "127.0.0.1")).unwrap();
        write!(
            wire,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let answer = support::read_answer(&mut BufReader::new(wire), false).unwrap();
        for (name, value) in &answer.headers {
            if name.eq_ignore_ascii_case("set-cookie") {
                let (name, value) = value.split(';').next().unwrap().split_once('=').unwrap();
                cookies.retain(|(n, _)| n != name);
                cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        answer
    }

    /// The way of somebody through the provider: the query they come back with.
    fn walk(&self, to: &str, subject: &str, acr: &str) -> String {
        let mut cookies = Vec::new();
        let mut at = to.strip_prefix(&self.issuer).expect("our provider").to_owned();
        for _ in 0..6 {
            let answer = self.get(&at, &mut cookies);
            let location = answer
                .header("location")
                .unwrap_or_else(|| panic!("{at}: {}", answer.text()));
            if let Some((_, query)) = location.split_once("/sso/callback?") {
                return query.to_owned();
            }
            at = location.strip_prefix(&self.issuer).unwrap_or(location).to_owned();
            if at.starts_with("/interaction/") {
                at = format!("{at}?sub={subject}&acr={acr}");
            }
        }
        panic!("no way back");
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A demo server on a port that it also has after a restart.
fn at_port(folder: &Path, port: u16) -> Server {
    let (data, token) = (folder.join("data"), folder.join("token"));
    let listen = format!("127.0.0.1:{port}");
    let arguments = [
        "demo",
        "--data",
        data.to_str().unwrap(),
        "--listen",
        &listen,
        "--patients",
        "0",
    ];
    let mut arguments = arguments.to_vec();
    arguments.extend(["--token-file", token.to_str().unwrap()]);
    Server::start(&arguments, &data, &folder.join("log"), Some(&token)).expect("a server")
}

#[test]
fn a_provider_of_others_signs_people_in_and_out() {
    let folder = Folder::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let node = folder.join("node");
    std::fs::create_dir_all(&node).unwrap();
    let Some(real) = Real::start(&node, &format!("http://localhost:{port}")) else {
        println!("SKIPPED 1 sign-in by oidc-provider: npm or the package is not to be had");
        return;
    };
    let mut server = at_port(folder.path(), port);
    let issuer = &real.issuer;
    let id = add(&server, issuer, "public", &["--acr", "two-factors"]);
    link(&server, issuer, "sub-1", "amara.okafor").unwrap();
    link(&server, issuer, "sub-2", "tomas.echeverria").unwrap();
    let button = format!("href=\"/sign-in/sso/{id}\"");
    assert!(Browser::new(&server).get("/sign-in").text().contains(&button));

    // The provider says two factors: a session, without a word here.
    let mut first = Browser::new(&server);
    let to = first.begin(&id);
    assert!(
        to.contains("code_challenge_method=S256") && to.contains("acr_values=two-factors"),
        "{to}"
    );
    let query = real.walk(&to, "sub-1", "two-factors");
    assert!(query.contains("iss="), "the provider says who it is: {query}");
    let landed = first.come_back(&query).expect(200);
    assert!(landed.text().contains("url=/\""), "{}", landed.text());
    assert!(first.holds("keepwell") && !first.holds("keepwell-sso") && first.is_signed_in());
    // The answer is good once.
    assert_eq!(first.come_back(&query).status, 401);

    // It does not: the own second factor is asked for, and nothing is open before.
    let mut second = Browser::new(&server);
    let to = second.begin(&id);
    let landed = second.come_back(&real.walk(&to, "sub-2", "")).expect(200);
    assert!(landed.text().contains("url=/sign-in/second\""), "{}", landed.text());
    assert!(!second.holds("keepwell") && !second.is_signed_in());
    second.second("tomas.echeverria");

    // Somebody nobody has linked.
    let mut stranger = Browser::new(&server);
    let to = stranger.begin(&id);
    let refused = stranger.come_back(&real.walk(&to, "sub-3", "two-factors")).expect(401);
    assert!(refused.text().contains("did not open anything here") && !stranger.holds("keepwell"));

    // The provider ends the sessions of one person.
    let mut none = Vec::new();
    real.get("/test/logout?client=public&sub=sub-1", &mut none).expect(200);
    assert!(!first.is_signed_in(), "ended at the provider");
    assert!(second.is_signed_in(), "somebody else's");

    // What was registered and linked survives a crash; a sign-in under way does not.
    let mut between = Browser::new(&server);
    let to = between.begin(&id);
    let query = real.walk(&to, "sub-1", "two-factors");
    server.kill9();
    let server = at_port(folder.path(), port);
    between.client = server.client_with("");
    assert_eq!(between.come_back(&query).status, 401);
    let to = between.begin(&id);
    between.come_back(&real.walk(&to, "sub-1", "two-factors")).expect(200);
    assert!(between.is_signed_in());

    // An ended provider: its sessions are gone, its button too.
    idp(&server, &["end", &id]).unwrap();
    assert!(!between.is_signed_in());
    let mut page = Browser::new(&server);
    assert!(!page.get("/sign-in").text().contains("/sign-in/sso/"));
    assert_eq!(page.get(&format!("/sign-in/sso/{id}")).status, 401);

    // The same, with an assertion that this installation signs.
    let id = add(
        &server,
        issuer,
        "signed",
        &["--acr", "two-factors", "--authentication", "private-key-jwt"],
    );
    let mut signed = Browser::new(&server);
    let to = signed.begin(&id);
    signed.come_back(&real.walk(&to, "sub-1", "two-factors")).expect(200);
    assert!(signed.is_signed_in());
    idp(&server, &["unlink", "--issuer", issuer, "--subject", "sub-1"]).unwrap();
    assert!(!signed.is_signed_in(), "the link is gone");

    // While the provider is down people sign in as before.
    let mut down = Browser::new(&server);
    let to = down.begin(&id);
    let query = real.walk(&to, "sub-2", "two-factors");
    drop(real);
    let refused = down.come_back(&query).expect(503);
    assert!(refused.text().contains("cannot be reached now") && refused.text().contains("name=\"password\""));
    Browser::sign_in(&server, "amara.okafor");
    let logged = server.logged();
    for secret in ["code=", "eyJ", "state="] {
        assert!(!logged.contains(secret), "{secret} in the server's log");
    }
    let listed = idp(&server, &["list"]).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    println!("2 ways of client authentication, 1 restart, 1 logout by oidc-provider");
}

// ------------------------------------------------------------------ a provider that signs what an attacker would like

#[derive(Default)]
struct Said {
    jwks: Value,
    /// The next ID token.
    token: String,
    /// What is answered instead of a token.
    status: u16,
    /// Members that the description has beside the usual.
    description: Value,
    asked: HashMap<String, u32>,
    forms: Vec<HashMap<String, String>>,
}

struct Fake {
    issuer: String,
    said: Arc<Mutex<Said>>,
}

impl Fake {
    fn start(jwks: &[Value]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let said = Arc::new(Mutex::new(Said {
            jwks: json!({ "keys": jwks }),
            status: 200,
            description: json!({}),
            ..Said::default()
        }));
        let (told, at) = (Arc::clone(&said), issuer.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = Self::answer(stream, &told, &at);
            }
        });
        Self { issuer, said }
    }

    fn answer(stream: TcpStream, told: &Mutex<Said>, issuer: &str) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            line.clear();
            if reader.read_line(&mut line)? <= 2 {
                break;
            }
            if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
                length = n.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let mut said = told.lock().unwrap();
        *said.asked.entry(path.clone()).or_default() += 1;
        let mut status = 200;
        let answer = match path.as_str() {
            "/.well-known/openid-configuration" => {
                let mut all = json!({
                    "issuer": issuer,
                    "authorization_endpoint": format!("{issuer}/authorize"),
                    "token_endpoint": format!("{issuer}/token"),
                    "jwks_uri": format!("{issuer}/jwks"),
                    "authorization_response_iss_parameter_supported": true,
                });
                for (n, v) in said.description.as_object().unwrap() {
                    all[n] = v.clone();
                }
                all
            }
            "/jwks" => said.jwks.clone(),
            "/token" => {
                let form = String::from_utf8(body).unwrap();
                said.forms.push(members(&form));
                status = said.status;
                json!({ "access_token": "opaque", "token_type": "Bearer", "id_token": said.token })
            }
            _ => json!({}),
        };
        let text = answer.to_string();
        write!(
            reader.get_mut(),
            "HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        )
    }

    fn asked(&self, path: &str) -> u32 {
        self.said.lock().unwrap().asked.get(path).copied().unwrap_or(0)
    }
}

/// The claims of an ID token that is in order.
fn claims(issuer: &str, nonce: &str) -> Value {
    let now = now_s();
    json!({
        "iss": issuer, "sub": "sub-1", "aud": "keepwell", "exp": now + 60, "iat": now, "nonce": nonce,
        "acr": "mfa", "email": "amara.okafor@clinic.example", "sid": "session-1",
    })
}

/// A server with a provider whose `sub-1` is linked with a physician.
struct Clinic {
    server: Server,
    _folder: Folder,
    fake: Fake,
    key: Signer,
    id: String,
}

/// A sign-in at the provider, before it comes back.
struct Away {
    browser: Browser,
    state: String,
    nonce: String,
}

impl Away {
    fn query(&self, issuer: &str) -> String {
        format!("code=c1&state={}&iss={}", self.state, encoded(issuer))
    }
}

impl Clinic {
    fn new() -> Self {
        let folder = Folder::new();
        let server = Server::demo_in(folder.path(), &["--patients", "0"]);
        let key = Signer::ec();
        let fake = Fake::start(&[key.jwk("k1")]);
        let id = add(&server, &fake.issuer, "keepwell", &["--acr", "mfa", "--alg", "ES384"]);
        link(&server, &fake.issuer, "sub-1", "amara.okafor").unwrap();
        Self {
            server,
            _folder: folder,
            fake,
            key,
            id,
        }
    }

    fn away(&self) -> Away {
        let mut browser = Browser::new(&self.server);
        let to = browser.begin(&self.id);
        let query = members(to.split_once('?').unwrap().1);
        Away {
            browser,
            state: query["state"].clone(),
            nonce: query["nonce"].clone(),
        }
    }

    fn signed(&self, claims: &Value) -> String {
        self.key.jwt(&self.key.header("k1").to_string(), &claims.to_string())
    }

    fn give(&self, token: String) {
        self.fake.said.lock().unwrap().token = token;
    }

    /// A whole sign-in with what `token` makes of the nonce: whether it opened a session, and the answer's status.
    fn tried(&self, token: impl FnOnce(&str) -> String) -> (bool, u16) {
        let mut away = self.away();
        self.give(token(&away.nonce));
        let query = away.query(&self.fake.issuer);
        let answer = away.browser.come_back(&query);
        let open = away.browser.holds("keepwell") && away.browser.is_signed_in();
        assert!(open || !away.browser.holds("keepwell-stage"), "nothing half open");
        (open, answer.status)
    }

    #[track_caller]
    fn is_good(&self) {
        assert_eq!(
            self.tried(|n| self.signed(&claims(&self.fake.issuer, n))),
            (true, 200),
            "{}",
            self.server.logged()
        );
    }
}

#[test]
fn forged_tokens_open_nothing() {
    let clinic = Clinic::new();
    let issuer = clinic.fake.issuer.clone();
    let now = now_s();
    clinic.is_good();
    let mut tried = 0;
    let mut refused = |what: &str, token: &dyn Fn(&str) -> String| {
        assert_eq!(clinic.tried(token), (false, 401), "{what}");
        tried += 1;
    };
    for (what, member, value) in [
        ("another issuer", "iss", json!("http://127.0.0.1:1")),
        ("issuer with a slash", "iss", json!(format!("{issuer}/"))),
        ("no issuer", "iss", Value::Null),
        ("another audience", "aud", json!("somebody")),
        ("audiences without azp", "aud", json!(["keepwell", "somebody"])),
        ("no audience", "aud", json!([])),
        ("another azp", "azp", json!("somebody")),
        ("expired", "exp", json!(now - 1)),
        ("no exp", "exp", Value::Null),
        ("exp as text", "exp", json!("never")),
        ("issued long ago", "iat", json!(now - 3600)),
        ("issued tomorrow", "iat", json!(now + 86_400)),
        ("no iat", "iat", Value::Null),
        ("not yet", "nbf", json!(now + 3600)),
        ("another nonce", "nonce", json!("nonce")),
        ("no nonce", "nonce", Value::Null),
        ("empty nonce", "nonce", json!("")),
        ("another subject, same e-mail", "sub", json!("sub-2")),
        ("subject in capitals", "sub", json!("SUB-1")),
        ("empty subject", "sub", json!("")),
        ("no subject", "sub", Value::Null),
        ("e-mail as subject", "sub", json!("amara.okafor")),
    ] {
        refused(what, &|nonce| {
            let mut claims = claims(&issuer, nonce);
            claims[member] = value.clone();
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(member);
            }
            clinic.signed(&claims)
        });
    }
    let public = clinic.key.jwk("k1");
    let other = Signer::ec();
    let header = clinic.key.header("k1");
    let with = |member: &str, value: Value| {
        let mut header = header.clone();
        header[member] = value;
        header.to_string()
    };
    for alg in ["none", "None", "", "ES256", "RS256", "es384"] {
        refused(alg, &|nonce| {
            clinic
                .key
                .jwt(&with("alg", json!(alg)), &claims(&issuer, nonce).to_string())
        });
    }
    refused("alg none, unsigned", &|nonce| {
        let text = claims(&issuer, nonce).to_string();
        format!("{}.{}.", url64(with("alg", json!("none"))), url64(text))
    });
    let texts = [
        public.to_string(),
        public["x"].as_str().unwrap().to_owned(),
        String::new(),
    ];
    for secret in &texts {
        refused("HS256 with the public key", &|nonce| {
            let text = claims(&issuer, nonce).to_string();
            let signed = format!("{}.{}", url64(with("alg", json!("HS256"))), url64(text));
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
            format!("{signed}.{}", url64(aws_lc_rs::hmac::sign(&key, signed.as_bytes())))
        });
    }
    refused("another key under this name", &|nonce| {
        other.jwt(&header.to_string(), &claims(&issuer, nonce).to_string())
    });
    let mut own = other.header("k1");
    own["jwk"] = other.jwk("k1");
    own["jku"] = json!("http://127.0.0.1:1/jwks");
    refused("a key brought along", &|nonce| {
        other.jwt(&own.to_string(), &claims(&issuer, nonce).to_string())
    });
    for (member, value) in [
        ("typ", json!("logout+jwt")),
        ("typ", json!("at+jwt")),
        ("crit", json!(["exp"])),
    ] {
        refused(member, &|nonce| {
            clinic
                .key
                .jwt(&with(member, value.clone()), &claims(&issuer, nonce).to_string())
        });
    }
    refused("claims changed after signing", &|nonce| {
        let token = clinic.signed(&claims(&issuer, nonce));
        let parts: Vec<&str> = token.split('.').collect();
        let mut other = claims(&issuer, nonce);
        other["exp"] = json!(now + 6000);
        format!("{}.{}.{}", parts[0], url64(other.to_string()), parts[2])
    });
    refused("a claim twice", &|nonce| {
        let text = claims(&issuer, nonce)
            .to_string()
            .replacen('{', "{\"aud\":\"keepwell\",", 1);
        clinic.key.jwt(&header.to_string(), &text)
    });
    for garbage in ["", "a.b.c", "eyJ", "...."] {
        refused(garbage, &|_| garbage.to_owned());
    }
    // An `azp` that is ours, and no word of two factors: half of a sign-in.
    let mut away = clinic.away();
    let mut weaker = claims(&issuer, &away.nonce);
    weaker["acr"] = json!("pwd");
    weaker["azp"] = json!("keepwell");
    clinic.give(clinic.signed(&weaker));
    let query = away.query(&issuer);
    away.browser.come_back(&query).expect(200);
    assert!(!away.browser.holds("keepwell") && away.browser.holds("keepwell-stage"));
    clinic.is_good();
    let logged = clinic.server.logged();
    assert!(!logged.contains("eyJ") && !logged.contains("sub-1") && !logged.contains("code="));
    println!("{tried} forged tokens refused");
}

#[test]
fn answers_of_others_open_nothing() {
    let clinic = Clinic::new();
    let issuer = clinic.fake.issuer.clone();
    let good = |away: &Away| clinic.give(clinic.signed(&claims(&issuer, &away.nonce)));
    // A good answer, once.
    let mut away = clinic.away();
    good(&away);
    let query = away.query(&issuer);
    let answer = away.browser.come_back(&query).expect(200);
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    assert!(away.browser.is_signed_in());
    assert_eq!(away.browser.come_back(&query).status, 401, "replayed");
    let form = clinic.fake.said.lock().unwrap().forms.last().unwrap().clone();
    assert_eq!(form["code"], "c1");
    assert!(form["code_verifier"].len() >= 43 && !form.contains_key("client_secret"));
    let exchanges = clinic.fake.asked("/token");

    // The state of another browser: an address that an attacker sends on, with their own code.
    let (mut mine, mut theirs) = (clinic.away(), clinic.away());
    good(&theirs);
    let query = theirs.query(&issuer);
    assert_eq!(mine.browser.come_back(&query).status, 401);
    assert_eq!(
        Browser::new(&clinic.server).come_back(&query).status,
        401,
        "a browser that began nothing"
    );
    assert!(!mine.browser.holds("keepwell"));
    // Neither has lost anything by it.
    theirs.browser.come_back(&query).expect(200);
    let query = mine.query(&issuer);
    good(&mine);
    mine.browser.come_back(&query).expect(200);
    let exchanges = {
        assert_eq!(clinic.fake.asked("/token"), exchanges + 2);
        exchanges + 2
    };

    // Mixed up, declined, incomplete, twice: the code is shown to nobody.
    let queries: [fn(&str, &str) -> String; 9] = [
        |state, _| format!("code=c1&state={state}&iss={}", encoded("https://evil.example")),
        |state, _| format!("code=c1&state={state}"),
        |state, iss| format!("code=c1&state={state}&iss={iss}%2F"),
        |state, iss| format!("error=access_denied&state={state}&iss={iss}"),
        |state, iss| format!("code=c1&error=x&state={state}&iss={iss}"),
        |state, iss| format!("state={state}&iss={iss}"),
        |state, iss| format!("code=c1&code=c2&state={state}&iss={iss}"),
        |state, iss| format!("code=c1&state={state}&state={state}&iss={iss}"),
        |_, iss| format!("code=c1&iss={iss}"),
    ];
    for query in queries {
        let mut away = clinic.away();
        good(&away);
        let query = query(&away.state, &encoded(&issuer));
        assert_eq!(away.browser.come_back(&query).status, 401, "{query}");
        assert!(!away.browser.holds("keepwell"), "{query}");
    }
    assert_eq!(clinic.fake.asked("/token"), exchanges);

    // The provider refuses the code, or sends us elsewhere: that is not followed.
    for status in [400, 401, 302] {
        clinic.fake.said.lock().unwrap().status = status;
        assert_eq!(clinic.tried(|n| clinic.signed(&claims(&issuer, n))), (false, 401));
    }
    clinic.fake.said.lock().unwrap().status = 503;
    assert_eq!(clinic.tried(|n| clinic.signed(&claims(&issuer, n))), (false, 503));
    clinic.fake.said.lock().unwrap().status = 200;
    clinic.is_good();
}

#[test]
fn keys_change_and_unknown_ones_are_asked_for_once() {
    let mut clinic = Clinic::new();
    let issuer = clinic.fake.issuer.clone();
    clinic.is_good();
    clinic.is_good();
    assert_eq!(clinic.fake.asked("/jwks"), 1, "kept");
    // A new key under a new name: fetched at once.
    let new = Signer::ec();
    clinic.fake.said.lock().unwrap().jwks = json!({ "keys": [new.jwk("k2")] });
    let signed = |nonce: &str| new.jwt(&new.header("k2").to_string(), &claims(&issuer, nonce).to_string());
    assert_eq!(clinic.tried(signed), (true, 200));
    assert_eq!(clinic.fake.asked("/jwks"), 2);
    // The old one is gone, and asking for it does not make us ask the provider again and again.
    for _ in 0..3 {
        assert_eq!(clinic.tried(|n| clinic.signed(&claims(&issuer, n))), (false, 401));
    }
    assert_eq!(clinic.fake.asked("/jwks"), 2);
    assert_eq!(clinic.fake.asked("/.well-known/openid-configuration"), 1);

    // A description that sends us elsewhere is none (APP-5): another provider of a new server, as this one's is kept.
    for (member, value) in [
        ("token_endpoint", "http://127.0.0.1:1/token"),
        ("jwks_uri", "http://169.254.169.254/latest"),
        ("authorization_endpoint", "https://evil.example/"),
        ("issuer", "https://evil.example"),
    ] {
        let fake = Fake::start(&[new.jwk("k2")]);
        fake.said.lock().unwrap().description = json!({ member: value });
        let id = add(&clinic.server, &fake.issuer, "keepwell", &["--alg", "ES384"]);
        let answer = Browser::new(&clinic.server).get(&format!("/sign-in/sso/{id}"));
        assert_eq!(answer.status, 503, "{member}");
        assert_eq!(fake.asked("/jwks") + fake.asked("/token"), 0);
    }
    clinic.key = new;
}

#[test]
fn one_account_one_identity_and_never_by_e_mail() {
    let clinic = Clinic::new();
    let issuer = clinic.fake.issuer.clone();
    // A second provider that says the same subject and the same e-mail.
    let key = Signer::ec();
    let second = Fake::start(&[key.jwk("k1")]);
    let id = add(
        &clinic.server,
        &second.issuer,
        "keepwell",
        &["--acr", "mfa", "--alg", "ES384"],
    );
    let mut browser = Browser::new(&clinic.server);
    let to = browser.begin(&id);
    let query = members(to.split_once('?').unwrap().1);
    let text = claims(&second.issuer, &query["nonce"]).to_string();
    second.said.lock().unwrap().token = key.jwt(&key.header("k1").to_string(), &text);
    let answer = format!("code=c&state={}&iss={}", query["state"], encoded(&second.issuer));
    browser.come_back(&answer).expect(401);
    assert!(!browser.holds("keepwell") && !browser.holds("keepwell-stage"));

    // What the operator cannot do by mistake.
    let server = &clinic.server;
    for (what, done) in [
        ("an identity twice", link(server, &issuer, "sub-1", "tomas.echeverria")),
        ("an account that is none", link(server, &issuer, "sub-9", "nobody")),
        (
            "an issuer that is none",
            link(server, "https://other.example", "sub-9", "amara.okafor"),
        ),
        (
            "an issuer twice",
            idp(server, &["add", "--name", "x", "--issuer", &issuer, "--client-id", "x"]),
        ),
        (
            "in clear",
            idp(
                server,
                &[
                    "add",
                    "--name",
                    "x",
                    "--issuer",
                    "http://idp.example",
                    "--client-id",
                    "x",
                ],
            ),
        ),
        (
            "a shared key",
            idp(
                server,
                &[
                    "add",
                    "--name",
                    "x",
                    "--issuer",
                    "https://i.example",
                    "--client-id",
                    "x",
                    "--alg",
                    "HS256",
                ],
            ),
        ),
        ("no such provider", idp(server, &["end", "idp-0"])),
    ] {
        assert!(done.is_err(), "{what}");
    }

    // A suspended account: the same answer as for a stranger, and no session.
    let good = |n: &str| clinic.signed(&claims(&issuer, n));
    let mut away = clinic.away();
    clinic.give(good(&away.nonce));
    let query = away.query(&issuer);
    away.browser.come_back(&query).expect(200);
    assert!(away.browser.is_signed_in());
    let mut admin = Browser::sign_in(server, "priya.raman");
    let page = admin.get("/users").expect(200).text();
    let csrf = page
        .split("name=\"csrf\" value=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let form = format!("csrf={csrf}&act=suspend&id=amara.okafor");
    admin.post("/users", &form).expect(200);
    assert!(!away.browser.is_signed_in());
    let mut suspended = clinic.away();
    clinic.give(good(&suspended.nonce));
    let query = suspended.query(&issuer);
    let for_suspended = suspended.browser.come_back(&query).expect(401).text();
    let mut stranger = clinic.away();
    let mut unknown = claims(&issuer, &stranger.nonce);
    unknown["sub"] = json!("sub-77");
    clinic.give(clinic.signed(&unknown));
    let query = stranger.query(&issuer);
    let for_stranger = stranger.browser.come_back(&query).expect(401).text();
    let bare = |page: &str| page.split("</section>").next().unwrap().to_owned();
    assert_eq!(bare(&for_suspended), bare(&for_stranger));
}

fn logout(server: &Server, token: &str) -> Answer {
    let form = format!("logout_token={token}");
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    server
        .client_with("")
        .send("POST", "/sso/back-channel-logout", &headers, Some(form.as_bytes()))
}

#[test]
fn a_logout_token_ends_what_it_names_and_nothing_else() {
    let clinic = Clinic::new();
    let issuer = clinic.fake.issuer.clone();
    let open = || {
        let mut away = clinic.away();
        clinic.give(clinic.signed(&claims(&issuer, &away.nonce)));
        let query = away.query(&issuer);
        away.browser.come_back(&query).expect(200);
        assert!(away.browser.is_signed_in());
        away.browser
    };
    let event = json!({ "http://schemas.openid.net/event/backchannel-logout": {} });
    let now = now_s();
    let token = |member: &str, value: Value, typ: &str| {
        let mut claims = json!({
            "iss": issuer, "aud": "keepwell", "iat": now_s(), "exp": now_s() + 60, "jti": format!("{member}{value}{typ}"),
            "sub": "sub-1", "sid": "session-1", "events": event,
        });
        claims[member] = value.clone();
        if value.is_null() && member != "nonce" {
            claims.as_object_mut().unwrap().remove(member);
        }
        let mut header = clinic.key.header("k1");
        header["typ"] = json!(typ);
        clinic.key.jwt(&header.to_string(), &claims.to_string())
    };
    let mut browser = open();
    for (member, value, typ) in [
        ("iss", json!("https://evil.example"), "logout+jwt"),
        ("aud", json!("somebody"), "logout+jwt"),
        ("exp", json!(now - 1), "logout+jwt"),
        ("exp", Value::Null, "logout+jwt"),
        ("iat", json!(now - 3600), "logout+jwt"),
        ("nonce", json!("n"), "logout+jwt"),
        ("nonce", Value::Null, "logout+jwt"),
        ("events", Value::Null, "logout+jwt"),
        ("events", json!({"other": {}}), "logout+jwt"),
        ("jti", Value::Null, "logout+jwt"),
        ("jti", json!(""), "logout+jwt"),
        ("acr", json!("x"), "JWT"),
        ("acr", json!("x"), "at+jwt"),
    ] {
        let answer = logout(&clinic.server, &token(member, value.clone(), typ));
        assert_eq!(answer.status, 400, "{member} {value} {typ}");
    }
    let forged = Signer::ec();
    let good = token("sub", json!("sub-1"), "logout+jwt");
    let parts: Vec<&str> = good.split('.').collect();
    let signed = format!("{}.{}", parts[0], parts[1]);
    logout(
        &clinic.server,
        &format!("{signed}.{}", url64(forged.sign(signed.as_bytes()))),
    )
    .expect(400);
    logout(&clinic.server, "").expect(400);
    // Another person's, another session's: right, and nothing of ours.
    logout(&clinic.server, &token("sub", json!("sub-2"), "logout+jwt")).expect(200);
    logout(&clinic.server, &token("sid", json!("session-2"), "logout+jwt")).expect(200);
    assert!(browser.is_signed_in());

    // By session and person.
    let answer = logout(&clinic.server, &good).expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(!browser.is_signed_in());
    // Once: a session opened afterwards is not ended by the token of before.
    let mut later = open();
    logout(&clinic.server, &good).expect(400);
    assert!(later.is_signed_in());
    // By the session alone, and by the person alone.
    logout(&clinic.server, &token("sub", Value::Null, "logout+jwt")).expect(200);
    assert!(!later.is_signed_in());
    let mut third = open();
    logout(&clinic.server, &token("sid", Value::Null, "logout+jwt")).expect(200);
    assert!(!third.is_signed_in());
    // A sign-in that waits for its second factor ends too.
    let mut away = clinic.away();
    let mut weaker = claims(&issuer, &away.nonce);
    weaker["acr"] = json!("pwd");
    clinic.give(clinic.signed(&weaker));
    let query = away.query(&issuer);
    away.browser.come_back(&query).expect(200);
    away.browser.get("/sign-in/second").expect(200);
    logout(&clinic.server, &token("azp", json!("again"), "logout+jwt")).expect(200);
    away.browser.get("/sign-in/second").expect(303);
}

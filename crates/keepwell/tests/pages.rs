//! The pages as a browser would walk them: signing in with two factors, an account's life, finding a patient, the chart, who looked; and what other sites, other roles and
//! hostile names must not reach (APP-2, APP-3).
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
use support::{Answer, Client, Folder, Server, patient, treated};

/// A browser with one cookie jar, at http://localhost:PORT.
struct Browser {
    client: Client,
    host: String,
    /// The cookie jar: name and value.
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

    /// One request as a page of ours would make it, following redirects.
    fn send(&mut self, method: &str, path: &str, form: &str) -> Answer {
        let (mut method, mut path) = (method.to_owned(), path.to_owned());
        for _ in 0..6 {
            let origin = format!("http://{}", self.host);
            let (host, cookie) = (self.host.clone(), self.cookie());
            let mut headers = vec![
                ("Host", host.as_str()),
                ("Origin", origin.as_str()),
                ("Sec-Fetch-Site", "same-origin"),
                ("Sec-Fetch-Mode", "navigate"),
                ("Sec-Fetch-Dest", "document"),
            ];
            if !cookie.is_empty() {
                headers.push(("Cookie", &cookie));
            }
            headers.push(("Content-Type", "application/x-www-form-urlencoded"));
            let body = (method == "POST").then_some(form.as_bytes());
            let answer = self.client.send(&method, &path, &headers, body);
            for (name, value) in &answer.headers {
                if name.eq_ignore_ascii_case("set-cookie") {
                    let lower = value.to_lowercase();
                    assert!(lower.contains("httponly") && lower.contains("samesite="), "{value}");
                    let pair = value.split(';').next().unwrap_or_default();
                    let (name, value) = pair.split_once('=').expect("a pair");
                    self.cookies.retain(|(n, _)| n != name);
                    if !value.is_empty() {
                        self.cookies.push((name.to_owned(), value.to_owned()));
                    }
                }
            }
            let Some(location) = answer
                .header("location")
                .filter(|_| (300..400).contains(&answer.status))
            else {
                return answer;
            };
            path = location.strip_prefix(&origin).unwrap_or(location).to_owned();
            method = "GET".into();
        }
        panic!("redirects without end");
    }

    fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, "")
    }

    /// The `Cookie` header.
    fn cookie(&self) -> String {
        let pairs: Vec<String> = self.cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
        pairs.join("; ")
    }

    fn has_session(&self) -> bool {
        self.cookies.iter().any(|(n, _)| n == "keepwell")
    }

    /// Signs in as the demo user of that id, by what the sign-in page says of it.
    fn sign_in(server: &Server, user: &str) -> Self {
        let mut browser = Self::new(server);
        let page = browser.get("/sign-in").expect(200).text();
        let (password, code) = login(&page, user);
        let second = browser
            .send(
                "POST",
                "/sign-in",
                &format!("user={user}&password={}", encoded(&password)),
            )
            .expect(200);
        assert!(!browser.has_session(), "a password alone opens nothing");
        assert!(second.text().contains("authenticator app"), "{}", second.text());
        browser
            .send("POST", "/sign-in/second", &format!("code={code}"))
            .expect(200);
        assert!(browser.has_session(), "a session cookie");
        browser
    }

    /// Posts a form of this session to a page, with the token that stands on it.
    fn submit(&mut self, page: &str, form: &str) -> Answer {
        let token = hidden(&self.get(page).expect(200).text(), "csrf");
        self.send("POST", page, &format!("csrf={token}&{form}"))
    }

    fn find(&mut self, name: &str) -> String {
        let page = self.get("/find").expect(200).text();
        let token = hidden(&page, "csrf");
        self.send(
            "POST",
            "/find",
            &format!("csrf={token}&name={name}&birth_date=&identifier="),
        )
        .expect(200)
        .text()
    }
}

/// The password and the code of a login that the demo's sign-in page lists.
fn login(page: &str, user: &str) -> (String, String) {
    let start = format!("data-login=\"{user}\" ");
    let rest = page
        .split(&start)
        .nth(1)
        .unwrap_or_else(|| panic!("the sign-in page lists {user}"));
    let value = |name: &str| {
        let value = rest.split(&format!("{name}=\"")).nth(1).expect(name);
        value.split('"').next().unwrap_or_default().to_owned()
    };
    (value("data-password"), value("data-code"))
}

/// As a form sends it.
fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric();
    text.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

/// The value of a hidden field.
fn hidden(page: &str, name: &str) -> String {
    let field = page
        .split(&format!("name=\"{name}\" value=\""))
        .nth(1)
        .unwrap_or_else(|| panic!("no field {name} in {page}"));
    field.split('"').next().unwrap_or_default().to_owned()
}

/// The links to charts on a page.
fn charts(page: &str) -> Vec<String> {
    page.split("href=\"/patients/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(|rest| format!("/patients/{}", rest.replace("&amp;", "&").replace("&#38;", "&")))
        .collect()
}

#[test]
fn a_physician_finds_a_patient_and_the_privacy_officer_sees_it() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &[]);
    let mut physician = Browser::sign_in(&server, "amara.okafor");
    let found = physician.find("delgado");
    let links = charts(&found);
    assert!(!links.is_empty(), "{found}");
    let chart = physician.get(&links[0]).expect(200);
    assert!(chart.text().contains("Delgado"));
    assert!(
        chart
            .header("cache-control")
            .is_some_and(|value| value.contains("no-store"))
    );
    let policy = chart
        .header("content-security-policy")
        .expect("a content security policy");
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(
        !chart.text().contains("<script>") && !chart.text().contains(" onclick=") && !chart.text().contains(" style="),
        "no inline script or style"
    );
    // Nothing about a patient in an address.
    assert!(!links[0].to_lowercase().contains("delgado"));

    let users: Vec<String> = {
        let page = Browser::new(&server).get("/sign-in").text();
        page.split("data-login=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .map(str::to_owned)
            .collect()
    };
    assert!(users.len() >= 9, "one login for each role: {users:?}");
    let path = links[0].split('?').next().unwrap().to_owned();
    let (mut seers, mut loggers) = (Vec::new(), Vec::new());
    for user in &users {
        let mut browser = Browser::sign_in(&server, user);
        if browser.get(&path).status == 200 {
            seers.push(user.clone());
        }
        let log = browser.get(&format!("{path}/access"));
        if log.status == 200 {
            assert!(log.text().contains("Okafor"), "who looked: {}", log.text());
            loggers.push(user.clone());
        }
    }
    println!("charts: {seers:?}; access logs: {loggers:?}");
    assert!(seers.contains(&"amara.okafor".to_owned()));
    assert_eq!(
        loggers,
        ["ingrid.sorensen", "rosa"],
        "who looked is seen by the privacy officer and by the patient herself"
    );
    assert!(!loggers.contains(&"amara.okafor".to_owned()));
}

#[test]
fn hostile_names_are_shown_as_text() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &[]);
    let mut client = server.client();
    let hostile = "Zz<script>alert(1)</script><img src=x onerror=alert(1)>\"'`{{7*7}}";
    let mut resource = treated(hostile, hostile);
    resource["telecom"] = json!([{"system": "phone", "value": hostile}]);
    resource["address"] = json!([{"line": [hostile], "city": hostile}]);
    let id = client.create(&resource);
    for resource in [
        json!({"resourceType": "AllergyIntolerance", "patient": {"reference": format!("Patient/{id}")}, "code": {"text": hostile}, "reaction": [{"manifestation": [{"text": hostile}]}],
            "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "code": "active"}]}}),
        json!({"resourceType": "Condition", "subject": {"reference": format!("Patient/{id}")}, "code": {"text": hostile}, "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]}}),
        json!({"resourceType": "MedicationRequest", "status": "active", "intent": "order", "subject": {"reference": format!("Patient/{id}")}, "medicationCodeableConcept": {"text": hostile}, "dosageInstruction": [{"text": hostile}]}),
        json!({"resourceType": "Observation", "status": "final", "subject": {"reference": format!("Patient/{id}")}, "effectiveDateTime": "2024-01-01", "code": {"text": hostile}, "valueString": hostile,
            "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}]}),
        json!({"resourceType": "Encounter", "status": "finished", "class": {"code": "AMB", "display": hostile}, "type": [{"text": hostile}], "subject": {"reference": format!("Patient/{id}")}}),
    ] {
        client.create(&resource);
    }
    let mut physician = Browser::sign_in(&server, "amara.okafor");
    let found = physician.find("zz");
    let chart = physician.get(&format!("/patients/{id}")).expect(200).text();
    for page in [&found, &chart] {
        assert!(page.contains("Zz"), "the patient is on the page");
        assert!(
            !page.contains("<script>alert") && !page.contains("<img src=x") && !page.contains("49\"'"),
            "markup from data"
        );
    }
}

#[test]
fn other_sites_and_strangers_get_nothing() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &[]);
    let host = format!("localhost:{}", server.port);
    let mut client = server.client_with("");
    // By number it leads to the name; /fhir does not.
    let by_number = client.get("/sign-in");
    assert!((300..400).contains(&by_number.status), "{}", by_number.status);
    assert!(
        by_number
            .header("location")
            .unwrap()
            .starts_with(&format!("http://localhost:{}", server.port))
    );
    client.get("/fhir/metadata").expect(200);
    // Without a session every page leads to the sign-in.
    for path in ["/find", "/patients/1", "/patients/1/access", "/record", "/status"] {
        let answer = client.send("GET", path, &[("Host", &host)], None);
        assert!(
            matches!(answer.status, 302 | 303 | 307 | 401),
            "{path}: {}",
            answer.status
        );
    }
    // A form from another site.
    let mut browser = Browser::sign_in(&server, "amara.okafor");
    let cookie = browser.cookie();
    let page = browser.get("/find").text();
    let token = hidden(&page, "csrf");
    let form = format!("csrf={token}&name=a");
    let kind = ("Content-Type", "application/x-www-form-urlencoded");
    for extra in [
        ("Sec-Fetch-Site", "cross-site"),
        ("Origin", "http://evil.example"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        let answer = client.send(
            "POST",
            "/find",
            &[("Host", &host), ("Cookie", &cookie), kind, extra],
            Some(form.as_bytes()),
        );
        assert_eq!(answer.status, 403, "{extra:?}");
    }
    let answer = client.send(
        "POST",
        "/find",
        &[
            ("Host", &host),
            ("Cookie", &cookie),
            kind,
            ("Sec-Fetch-Site", "same-origin"),
        ],
        Some(b"csrf=wrong&name=a"),
    );
    assert!(
        matches!(answer.status, 400 | 403),
        "a form without its token: {}",
        answer.status
    );
    // After the sign-out the session is gone, at the server.
    browser.send("POST", "/sign-out", &format!("csrf={token}"));
    let answer = client.send("GET", "/find", &[("Host", &host), ("Cookie", &cookie)], None);
    assert!(matches!(answer.status, 302 | 303 | 307 | 401), "{}", answer.status);
    // A session cookie is no key to the API.
    let answer = client.send("GET", "/fhir/Patient", &[("Host", &host), ("Cookie", &cookie)], None);
    assert_eq!(answer.status, 401);
}

/// The first code that a page shows.
fn shown_code(page: &str) -> String {
    let code = page
        .split("<li><code>")
        .nth(1)
        .unwrap_or_else(|| panic!("no code in {page}"));
    code.split('<').next().unwrap_or_default().to_owned()
}

/// What an authenticator app shows now for the secret on a page.
fn app_code(page: &str) -> String {
    let secret = page
        .split("this secret: <code>")
        .nth(1)
        .unwrap_or_else(|| panic!("no secret in {page}"));
    let secret = secret.split('<').next().unwrap_or_default();
    let (mut word, mut bits, mut bytes) = (0_u32, 0, Vec::new());
    for c in secret.bytes() {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
            .iter()
            .position(|b| *b == c)
            .expect("base32");
        word = (word << 5) | u32::try_from(value).unwrap();
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(((word >> bits) & 0xff) as u8);
        }
    }
    let now = std::time::UNIX_EPOCH.elapsed().expect("the clock is right").as_millis();
    keepwell_identity::code_at(&bytes, keepwell_model::time::Timestamp(i64::try_from(now).unwrap()))
}

/// From its invitation by one person and its release by another to a sign-in, a step-up and its end.
#[test]
fn the_life_of_an_account() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let id = server.client().create(&patient("Not", "Yet"));
    let mut admin = Browser::sign_in(&server, "priya.raman");
    let mut officer = Browser::sign_in(&server, "dariusz.wojcik");
    let invite = "act=invite&id=new.nurse&display=New+Nurse&role=nurse&about=&email=";
    let page = admin.submit("/users", invite).expect(200).text();
    assert!(
        page.contains("Somebody else gives its owner the activation code."),
        "{page}"
    );
    // Whoever asked cannot release.
    let page = admin.submit("/users", "act=release&id=new.nurse");
    assert!(
        page.status == 400 && page.text().contains("second person"),
        "{}",
        page.text()
    );
    let code = shown_code(&officer.submit("/users", "act=release&id=new.nurse").expect(200).text());
    assert!(code.len() >= 40, "{code}");

    // The code opens an enrolment, once, and nothing of a patient.
    let mut nurse = Browser::new(&server);
    let page = nurse
        .send("POST", "/sign-in", &format!("code={code}"))
        .expect(200)
        .text();
    assert!(page.contains("Choose how you sign in"), "{page}");
    assert!(
        Browser::new(&server)
            .send("POST", "/sign-in", &format!("code={code}"))
            .status
            >= 400
    );
    for path in [
        format!("/patients/{id}"),
        format!("/patients/{id}/access"),
        "/status".into(),
        "/users".into(),
    ] {
        let answer = nurse.get(&path);
        assert!(
            answer.status >= 400 && !answer.text().contains("Yet"),
            "{path}: {}",
            answer.status
        );
    }
    let found = nurse.submit("/find", "name=Yet&birth_date=&identifier=");
    assert!(!found.text().contains("<bdi>Not"), "{}", found.text());

    // A weak password is refused with its reason, a good one is not enough.
    let set = |word: &str| format!("act=password&password={0}&again={0}", encoded(word));
    let refused = nurse.submit("/security", &set("Password1!"));
    assert!(refused.status == 400 && refused.text().contains("people use most"));
    let password = "quietly the herons leave";
    assert!(
        nurse
            .submit("/security", &set(password))
            .expect(200)
            .text()
            .contains("trong")
    );
    let sign_in = format!("user=new.nurse&password={}", encoded(password));
    assert_eq!(Browser::new(&server).send("POST", "/sign-in", &sign_in).status, 401);
    let page = nurse.submit("/security", "act=app").expect(200).text();
    assert!(page.contains("<svg class=\"qr\""));
    let first = app_code(&page);
    let done = nurse
        .submit("/security", &format!("act=app-code&name=Phone&code={first}"))
        .expect(200)
        .text();
    assert!(done.contains("This is enough to sign in with.") && done.contains("Phone"));
    let recovery = shown_code(&nurse.submit("/security", "act=recovery").expect(200).text());
    nurse.submit("/security", "act=nonsense");
    let token = hidden(&nurse.get("/security").text(), "csrf");
    nurse.send("POST", "/sign-out", &format!("csrf={token}"));

    // The code that proved the app is used up; a recovery code stands in.
    let mut nurse = Browser::new(&server);
    nurse.send("POST", "/sign-in", &sign_in).expect(200);
    assert_eq!(
        nurse.send("POST", "/sign-in/second", &format!("code={first}")).status,
        401
    );
    assert!(!nurse.has_session());
    nurse
        .send("POST", "/sign-in/second", &format!("code={recovery}"))
        .expect(200);
    assert!(nurse.has_session());
    assert!(nurse.find("yet").contains("Yet"));
    // A device that signed in is known; the session's id is new at each proof.
    assert!(nurse.cookies.iter().any(|(n, _)| n == "keepwell-device"));
    let before = nurse.cookie();
    nurse
        .submit("/confirm", &format!("to=security&password={}", encoded(password)))
        .expect(200);
    assert_ne!(nurse.cookie(), before);
    let mut stale = Browser::new(&server);
    stale.cookies = vec![];
    let answer = stale.client.send(
        "GET",
        "/security",
        &[("Host", &stale.host.clone()), ("Cookie", &before)],
        None,
    );
    assert_eq!(answer.status, 303, "the old secret opens nothing");

    // The officer sees and ends the session; the account's end is tried below with requests under way.
    assert!(officer.get("/users").expect(200).text().contains("signed in: 1"));
    officer.submit("/users", "act=sign-out&id=new.nurse").expect(200);
    let answer = nurse.client.send(
        "GET",
        "/find",
        &[("Host", &nurse.host.clone()), ("Cookie", &nurse.cookie())],
        None,
    );
    assert_eq!(answer.status, 303);
    admin.submit("/users", "act=suspend&id=new.nurse").expect(200);
    assert_eq!(Browser::new(&server).send("POST", "/sign-in", &sign_in).status, 401);
}

/// Requests stream on three sessions and a token while the account ends: whatever is sent after the answer to that is
/// refused (IAM-11).
#[test]
fn an_end_reaches_every_session_and_token() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut first = Browser::sign_in(&server, "tomas.echeverria");
    let page = first.submit("/security", "act=recovery").expect(200).text();
    let codes = page
        .split("<li><code>")
        .skip(1)
        .filter_map(|rest| rest.split('<').next());
    let codes: Vec<String> = codes.map(str::to_owned).collect();
    let (password, _) = login(&Browser::new(&server).get("/sign-in").text(), "tomas.echeverria");
    let mut sessions = vec![first];
    for code in codes.iter().take(2) {
        let mut browser = Browser::new(&server);
        let form = format!("user=tomas.echeverria&password={}", encoded(&password));
        browser.send("POST", "/sign-in", &form).expect(200);
        browser
            .send("POST", "/sign-in/second", &format!("code={code}"))
            .expect(200);
        sessions.push(browser);
    }
    let token = server.issue(&["--role", "nurse", "--user", "tomas.echeverria", "--ttl", "1h"]);
    let mut admin = Browser::sign_in(&server, "priya.raman");
    let listed = sessions[0].get("/security").expect(200).text();
    assert_eq!(
        listed.matches("value=\"end-session\"").count(),
        2,
        "the other two are listed"
    );
    let ended = std::sync::atomic::AtomicBool::new(false);
    let (begun, begins) = std::sync::mpsc::channel();
    let stream = |begun: std::sync::mpsc::Sender<()>, ask: &mut dyn FnMut() -> u16| {
        loop {
            let after = ended.load(std::sync::atomic::Ordering::SeqCst);
            let status = ask();
            if status != 200 {
                assert!(matches!(status, 303 | 401), "{status}");
                return;
            }
            assert!(!after, "served after the end");
            let _ = begun.send(());
        }
    };
    std::thread::scope(|threads| {
        let stream = &stream;
        let mut streams = Vec::new();
        for mut browser in sessions {
            let begun = begun.clone();
            streams.push(threads.spawn(move || {
                let (host, cookie) = (browser.host.clone(), browser.cookie());
                let headers = [("Host", host.as_str()), ("Cookie", cookie.as_str())];
                stream(begun, &mut || {
                    browser.client.send("GET", "/find", &headers, None).status
                })
            }));
        }
        let mut client = server.client_with(&token);
        streams.push(threads.spawn(move || stream(begun, &mut || client.get("/fhir/Patient?_count=1").status)));
        // Answers are coming while the account ends.
        for _ in 0..100 {
            begins.recv().expect("the streams run");
        }
        admin.submit("/users", "act=end&id=tomas.echeverria").expect(200);
        ended.store(true, std::sync::atomic::Ordering::SeqCst);
        for stream in streams {
            stream.join().expect("no request is served after the end");
        }
    });
}

#[test]
fn a_login_link_activates_a_new_account_and_waits_for_a_second_person_otherwise() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let link = |user: &str| {
        let output = support::cli(&["login-link", "--data", server.data.to_str().unwrap(), "--user", user]);
        assert!(output.status.success(), "{}", support::said(&output));
        support::said(&output)
    };
    let text = link("amara.okafor");
    assert!(text.contains("another administrator or the security officer"), "{text}");
    assert!(!text.contains("sign-in#"), "{text}");
    let mut admin = Browser::sign_in(&server, "priya.raman");
    admin
        .submit("/users", "act=invite&id=new.nurse&display=New&role=nurse&about=&email=")
        .expect(200);
    let text = link("new.nurse");
    let code = text
        .split_whitespace()
        .find_map(|word| word.split("/sign-in#").nth(1))
        .unwrap_or_else(|| panic!("a link: {text}"));
    let mut first = Browser::new(&server);
    first.send("POST", "/sign-in", &format!("code={code}")).expect(200);
    assert!(first.has_session(), "an enrolment");
    let mut second = Browser::new(&server);
    let answer = second.send("POST", "/sign-in", &format!("code={code}"));
    assert!(
        !second.has_session() && answer.status == 401,
        "a used code: {}",
        answer.status
    );
}

#[test]
fn an_insurance_number_finds_whoever_has_it() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &[]);
    let mut billing = Browser::sign_in(&server, "gustav.brandt");
    let token = hidden(&billing.get("/find").expect(200).text(), "csrf");
    let form = format!("csrf={token}&name=&birth_date=&identifier=SMH-771-090-15");
    let found = billing.send("POST", "/find", &form).expect(200).text();
    assert_eq!(charts(&found).len(), 2, "{found}");
    assert!(found.contains("Pfeiffer") && found.contains("Lindgren"));
    // Somebody's own record number is found in the same field.
    let form = format!("csrf={token}&name=&birth_date=&identifier=HL-10482");
    let found = billing.send("POST", "/find", &form).expect(200).text();
    assert_eq!(charts(&found).len(), 1, "{found}");
}

#[test]
fn a_long_chart_shows_what_is_newest_by_date_and_not_by_when_it_was_stored() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut client = server.client();
    let id = client.create(&treated("Long", "Chart"));
    let visit = |name: String, date: String| {
        json!({
            "request": {"method": "POST", "url": "Encounter"},
            "resource": {
                "resourceType": "Encounter", "status": "finished",
                "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
                "type": [{"text": name}], "subject": {"reference": format!("Patient/{id}")},
                "period": {"start": date},
            },
        })
    };
    // Two new visits, one stored before many old ones and one after them.
    let mut entries = vec![visit("stored first".into(), "2025-03-01".into())];
    entries.extend((0..150).map(|n| visit(format!("old {n}"), format!("20{:02}-01-01", n % 20))));
    entries.push(visit("stored last".into(), "2025-02-01".into()));
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
    client.post("/fhir", &bundle).expect(200);
    let chart = Browser::sign_in(&server, "amara.okafor")
        .get(&format!("/patients/{id}"))
        .expect(200)
        .text();
    assert!(chart.contains("stored first") && chart.contains("stored last"));
    assert!(
        chart.contains("only the newest are shown of Encounter"),
        "and says that there are more"
    );
}

#[test]
fn one_look_at_an_access_log_is_one_entry() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let id = server.client().create(&patient("Looked", "At"));
    let officer = server.issue(&["--role", "privacy-officer", "--user", "officer", "--ttl", "1h"]);
    let count = || {
        let log = server
            .client_with(&officer)
            .get(&format!("/fhir/Patient/{id}/$access-log"))
            .expect(200)
            .json();
        log["entry"].as_array().map_or(0, Vec::len)
    };
    let mut browser = Browser::sign_in(&server, "ingrid.sorensen");
    let before = count();
    let page = browser.get(&format!("/patients/{id}/access")).expect(200).text();
    assert!(page.contains("Looked") && page.contains("Verified."), "{page}");
    assert_eq!(count() - before, 2, "the page's look, and that of the first count");
}

#[test]
fn a_physician_breaks_the_glass_of_nobodys_patient_and_the_privacy_officer_reviews_it() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &[]);
    let mut physician = Browser::sign_in(&server, "amara.okafor");
    let links = charts(&physician.find("douglas"));
    assert_eq!(links.len(), 1);
    let path = links[0].split('?').next().unwrap().to_owned();
    let closed = physician.get(&path);
    assert_eq!(closed.status, 403);
    let closed = closed.text();
    assert!(
        closed.contains("Douglas") && closed.contains("Break the glass"),
        "{closed}"
    );
    assert!(
        !closed.contains("Medicines") && !closed.contains("state-reason"),
        "{closed}"
    );
    let token = hidden(&closed, "csrf");
    let form = format!("csrf={token}&code=emergency&text=lies+in+the+waiting+room");
    let chart = physician
        .send("POST", &format!("{path}/break-glass"), &form)
        .expect(200)
        .text();
    assert!(chart.contains("Medicines"), "the chart");
    let banner = format!("{path}/end-access");
    assert!(
        physician.get("/find").expect(200).text().contains(&banner),
        "every page says so"
    );

    let mut officer = Browser::sign_in(&server, "ingrid.sorensen");
    let waiting = officer.get("/reviews").expect(200).text();
    assert!(
        waiting.contains("Okafor") && waiting.contains("lies in the waiting room"),
        "{waiting}"
    );
    let review = waiting
        .split("action=\"/reviews/")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    let form = format!(
        "csrf={}&verdict=justified&note=an+emergency+indeed",
        hidden(&waiting, "csrf")
    );
    let early = officer.send("POST", &format!("/reviews/{review}"), &form);
    assert!(early.status == 400 && early.text().contains("still runs"));
    physician.send("POST", &banner, &format!("csrf={token}")).expect(200);
    let after = officer
        .send("POST", &format!("/reviews/{review}"), &form)
        .expect(200)
        .text();
    assert!(after.contains("Nothing waits"), "{after}");
    assert_eq!(physician.get("/reviews").status, 403);

    assert_eq!(physician.get(&path).status, 403, "closed again");
}

#[test]
fn the_part_2_notice_stands_on_every_page_that_shows_a_labelled_patient() {
    const NOTICE: &str = "42 CFR part 2 prohibits unauthorized use or disclosure of these records.";
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut all = server.client();
    let mut labelled = treated("Labelled", "L");
    labelled["meta"] =
        json!({"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "ETH"}]});
    let labelled = all.create(&labelled);
    let plain = all.create(&treated("Plainly", "P"));
    let mut physician = Browser::sign_in(&server, "amara.okafor");
    let said = |page: &str| page.contains(NOTICE);
    assert!(!said(&physician.get("/find").expect(200).text()), "nobody is shown");
    for (name, id, wanted) in [("Plainly", &plain, false), ("Labelled", &labelled, true)] {
        let results = physician.find(name);
        assert!(results.contains(id.as_str()), "{name} is found");
        assert_eq!(said(&results), wanted, "results with {name}");
        let chart = physician.get(&format!("/patients/{id}")).expect(200).text();
        assert_eq!(said(&chart), wanted, "chart of {name}");
        // Among those seen in this session it is listed again.
        assert_eq!(
            said(&physician.get("/find").expect(200).text()),
            wanted,
            "recent: {name}"
        );
    }
    // Whoever may not know of the patient is not told by a notice either.
    let mut nurse = Browser::sign_in(&server, "tomas.echeverria");
    let results = nurse.find("Labelled");
    assert!(!results.contains(&labelled) && !said(&results));
}

//! The pages as a browser would walk them: one-click demo logins, finding a patient, the chart, who looked; and what other sites, other roles and
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
use support::{Answer, Client, Folder, Server, patient};

/// A browser with one cookie jar, at http://localhost:PORT.
struct Browser {
    client: Client,
    host: String,
    cookie: String,
}

impl Browser {
    fn new(server: &Server) -> Self {
        Self {
            client: server.client_with(""),
            host: format!("localhost:{}", server.port),
            cookie: String::new(),
        }
    }

    /// One request as a page of ours would make it, following redirects.
    fn send(&mut self, method: &str, path: &str, form: &str) -> Answer {
        let (mut method, mut path) = (method.to_owned(), path.to_owned());
        for _ in 0..6 {
            let origin = format!("http://{}", self.host);
            let (host, cookie) = (self.host.clone(), self.cookie.clone());
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
                    value.split(';').next().unwrap_or_default().clone_into(&mut self.cookie);
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

    /// Signs in as the demo user of that id.
    fn sign_in(server: &Server, user: &str) -> Self {
        let mut browser = Self::new(server);
        let page = browser.get("/sign-in").expect(200).text();
        assert!(
            page.contains(&format!("value=\"{user}\"")),
            "the sign-in page lists {user}"
        );
        browser.send("POST", "/sign-in", &format!("user={user}")).expect(200);
        assert!(!browser.cookie.is_empty(), "a session cookie");
        browser
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
        page.split("name=\"user\" value=\"")
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
    let mut resource = patient(hostile, hostile);
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
    let cookie = browser.cookie.clone();
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

#[test]
fn a_login_link_works_once() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &[]);
    let output = support::cli(&[
        "login-link",
        "--data",
        server.data.to_str().unwrap(),
        "--user",
        "amara.okafor",
    ]);
    assert!(output.status.success(), "{}", support::said(&output));
    let text = support::said(&output);
    // A code alone, or a link that ends in it.
    let code = text
        .split_whitespace()
        .map(|word| word.rsplit(['#', '=', '/']).next().unwrap_or_default())
        .find(|word| word.len() >= 40)
        .unwrap_or_else(|| panic!("a code: {text}"));
    let mut first = Browser::new(&server);
    first.send("POST", "/sign-in", &format!("code={code}")).expect(200);
    assert!(!first.cookie.is_empty(), "signed in");
    first.get("/find").expect(200);
    let mut second = Browser::new(&server);
    let answer = second.send("POST", "/sign-in", &format!("code={code}"));
    assert!(
        second.cookie.is_empty() || answer.status >= 400,
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
    let id = client.create(&patient("Long", "Chart"));
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
fn the_part_2_notice_stands_on_every_page_that_shows_a_labelled_patient() {
    const NOTICE: &str = "42 CFR part 2 prohibits unauthorized use or disclosure of these records.";
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut all = server.client();
    let mut labelled = patient("Labelled", "L");
    labelled["meta"] =
        json!({"security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "ETH"}]});
    let labelled = all.create(&labelled);
    let plain = all.create(&patient("Plainly", "P"));
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

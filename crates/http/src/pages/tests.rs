//! Every page rendered, every text field attacked, every handler walked in process with typed people.

use super::backend::*;
use super::chart::{Allergies, Banner, ChartView, shown};
use super::read::{Day, When};
use super::signin;
use super::view::{self, Hit, Link, Page, Results, User};
use super::{ROUTES, clients, guard, router};
use axum::body::{Body, to_bytes};
use axum::http::request::Parts;
use axum::http::{Request, Response, StatusCode, header};
use keepwell_identity::{Enrolled, Factor, FactorKind, Offers};
use keepwell_model::actor::{Actor, Assurance, Context, EntryPath, PurposeOfUse, Role};
use keepwell_model::json::{self, Value};
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::sync::Arc;
use tower::ServiceExt as _;

/// 22 November 2026, 21:00 UTC.
const NOW: Timestamp = Timestamp(1_795_381_200_000);

/// One patient with something in every block of the chart; all texts are replaced by the attacks of [`ATTACKS`].
const SAMPLE: &str = include_str!("sample.ndjson");

fn sample() -> (Value<'static>, Vec<Value<'static>>) {
    let mut all: Vec<Value<'static>> = SAMPLE.lines().map(|l| json::parse(l).unwrap()).collect();
    (all.remove(0), all)
}

fn today() -> Day {
    Day::of(NOW)
}

fn all_types() -> Vec<ResourceType> {
    shown().into_iter().map(|(t, _)| t).collect()
}

fn actor(role: Role) -> Arc<Actor> {
    Arc::new(Actor {
        id: role.name().to_owned(),
        display: format!("A {}", role.name()),
        role,
        patient: (role == Role::Patient).then(|| "p1".to_owned()),
        practitioner: None,
        client: None,
        scopes: Vec::new(),
        session: format!("session-{}", role.name()),
        authenticated: NOW,
        method: "password+totp".to_owned(),
        reauthenticated: NOW,
        assurance: Assurance::TwoFactors,
    })
}

fn page(role: Role) -> Page {
    Page {
        title: "T",
        user: Some(User::new(&actor(role), "token", "/find")),
        demo: true,
        emergencies: Vec::new(),
    }
}

fn chart_of(patient: &Value<'_>, resources: &[Value<'_>]) -> String {
    let view = ChartView::from_resources(patient, resources, &all_types(), today());
    view::render_chart(
        &page(Role::Physician),
        &view,
        false,
        Some("/x"),
        "Observation",
        "Claim",
        "Not to be passed on.",
    )
}

fn log(text: &str) -> AccessLog {
    AccessLog {
        patient: SAMPLE.lines().next().unwrap().to_owned(),
        entries: [Mark::Proven, Mark::Failed]
            .into_iter()
            .map(|mark| Access {
                number: 7,
                at: NOW,
                who: text.to_owned(),
                role: Some(Role::Nurse),
                purpose: text.to_owned(),
                reason: text.to_owned(),
                what: text.to_owned(),
                from: text.to_owned(),
                refused: true,
                mark,
            })
            .collect(),
        more: true,
        checkpoint: Some(Checkpoint {
            origin: text.to_owned(),
            size: 8,
            root: text.to_owned(),
            at: text.to_owned(),
        }),
        notice: "",
    }
}

fn groups(text: &str) -> Vec<Group> {
    let levels = [Level::Plain, Level::Good, Level::Warn, Level::Bad];
    let fact = |level| Fact {
        label: text.to_owned(),
        value: text.to_owned(),
        code: true,
        level,
    };
    vec![Group {
        title: text.to_owned(),
        facts: levels.map(fact).into(),
    }]
}

fn client(id: &str, text: &str) -> super::backend::Client {
    super::backend::Client {
        id: id.to_owned(),
        display: text.to_owned(),
        scope: text.to_owned(),
        created: text.to_owned(),
        expires: text.to_owned(),
        state: "active",
        open: true,
        keys: vec![Key {
            kid: text.to_owned(),
            algorithm: "ES384",
            expires: text.to_owned(),
            state: "active",
        }],
    }
}

fn login(text: &str) -> DemoLogin {
    DemoLogin {
        user: text.to_owned(),
        password: text.to_owned(),
        code: text.to_owned(),
        display: text.to_owned(),
        role: Role::Nurse,
        try_this: text.to_owned(),
    }
}

fn offers() -> Offers {
    Offers {
        app: true,
        card: Some(3),
        recovery: true,
        passkey: true,
    }
}

fn security(text: &str) -> Security {
    let factor = |kind| Factor {
        id: text.to_owned(),
        name: text.to_owned(),
        kind,
        added: NOW,
        suspect: true,
    };
    let session = |here| SessionLine {
        id: text.to_owned(),
        opened: NOW,
        active: NOW,
        network: text.to_owned(),
        here,
    };
    Security {
        enrolled: Enrolled {
            password: true,
            factors: vec![factor(FactorKind::App), factor(FactorKind::Passkey)],
            card_left: 2,
            recovery_left: 3,
            devices: 1,
            complete: true,
        },
        sessions: vec![session(true), session(false)],
        enrolling: false,
    }
}

fn member(text: &str) -> Member {
    Member {
        id: text.to_owned(),
        display: text.to_owned(),
        role: "nurse",
        state: "active",
        sessions: 2,
        waiting: Some(text.to_owned()),
        acts: vec![("end", "End for good"), ("release", "Give the activation code")],
    }
}

// ------------------------------------------------------------------ views

#[test]
fn the_chart_says_what_the_record_says() {
    let (patient, resources) = sample();
    let html = chart_of(&patient, &resources);
    for words in [
        "Sample Person",
        "Usual Name",
        "23 Apr 1957",
        "69 years",
        "female",
        "HL-1",
        "•••-••-4820",
        "Restricted",
        "SEVERE",
        "penicillin",
        "Anaphylaxis (severe)",
        "High blood pressure",
        "since 2 Jun 2014",
        "Lisinopril 10 mg",
        "One tablet in the morning",
        "not given",
        "Held: INR 5.1",
        "148/82 mmHg",
        "usual 90 to 130 over 60 to 80",
        "6.6 %",
        "up to 5.6 %",
        "high",
        "Former smoker",
        "Diabetes check",
        "Tdap",
        "dose 2",
        "Appendectomy",
        "Care of diabetes",
        "Goal: HbA1c below 7 %",
        "A note in plain text.",
        "Type 2 diabetes at 51",
        "A Husband",
        "Saltmarsh",
        "SMH-1",
        "Office visit",
        "148.00 USD",
        "Paid",
        "3 Dec 2026, 09:30",
        "Metabolic panel",
    ] {
        assert!(html.contains(words), "missing: {words}");
    }
    for hidden in [
        "999-55-4820",
        "ENTERED IN ERROR",
        "<script>alert",
        "div xmlns",
        "narrative text",
    ] {
        assert!(!html.contains(hidden), "shown: {hidden}");
    }
}

#[test]
fn blocks_that_were_not_looked_at_are_left_out_rather_than_said_to_be_empty() {
    let (patient, _) = sample();
    let only = [ResourceType::from_name("Coverage").unwrap()];
    let view = ChartView::from_resources(&patient, &[], &only, today());
    assert_eq!(view.allergies, Allergies::Hidden);
    let html = view::render_chart(&page(Role::Billing), &view, false, None, "", "", "");
    assert!(html.contains("No insurance recorded."));
    for words in [
        "llergies",
        "No problems",
        "Vital signs",
        "Laboratory",
        "Notes",
        "Medicines",
    ] {
        assert!(!html.contains(words), "{words}");
    }
}

#[test]
fn no_answer_about_allergies_is_not_the_answer_no() {
    let (patient, _) = sample();
    let with = |json: &str| {
        let list: Vec<Value<'_>> = json.lines().map(|l| json::parse(l).unwrap()).collect();
        ChartView::from_resources(&patient, &list, &all_types(), today()).allergies
    };
    let coded = |text: &str, status: &str| {
        format!(
            r#"{{"resourceType":"AllergyIntolerance","clinicalStatus":{{"coding":[{{"code":"{status}"}}]}},"code":{{"text":"{text}"}}}}"#
        )
    };
    assert_eq!(with(""), Allergies::NotRecorded);
    assert_eq!(with(&coded("No known allergies", "active")), Allergies::NoneKnown);
    assert_eq!(with(&coded("Latex", "resolved")), Allergies::NotRecorded);
    let both = coded("No known allergies", "active") + "\n" + &coded("Latex", "active");
    assert!(matches!(with(&both), Allergies::Known(list) if list.len() == 1));
}

#[test]
fn anything_that_looks_like_a_social_security_number_is_cut() {
    for (system, code, value) in [
        ("http://hl7.org/fhir/sid/us-ssn", "SS", "123-45-6789"),
        ("http://hl7.org/fhir/sid/us-ssn", "MR", "123-45-6789"),
        ("urn:x", "MR", "123456789"),
        ("urn:x", "MR", "123-45-6789"),
        ("urn:x", "SS", "AB1236789"),
    ] {
        let text = format!(
            r#"{{"resourceType":"Patient","id":"x","identifier":[{{"system":"{system}","type":{{"coding":[{{"code":"{code}"}}]}},"value":"{value}"}}]}}"#
        );
        let banner = Banner::from_patient(&json::parse(&text).unwrap(), today());
        assert_eq!(
            banner.identifiers,
            [("SSN".to_owned(), "•••-••-6789".to_owned())],
            "{value}"
        );
    }
}

#[test]
fn an_empty_patient_still_has_a_page() {
    let html = chart_of(&json::parse(r#"{"resourceType":"Patient"}"#).unwrap(), &[]);
    assert!(html.contains("Name not recorded") && html.contains("Allergies not recorded."));
}

#[test]
fn children_get_no_adult_ranges() {
    let (mut patient, resources) = sample();
    assert!(chart_of(&patient, &resources).contains("usual 90 to 130"));
    patient.set("birthDate", Value::from("2024-01-01"));
    assert!(!chart_of(&patient, &resources).contains("</span>usual "));
}

#[test]
fn the_plot_is_as_kept() {
    let (patient, resources) = sample();
    let html = chart_of(&patient, &resources);
    let from = html.find("<svg class=\"plot\"").unwrap();
    let to = html[from..].find("</svg>").unwrap() + from + 6;
    let golden = include_str!("plot_golden.svg").trim_end();
    assert_eq!(
        &html[from..to],
        golden,
        "the drawing changed: look at it, then keep the new one in plot_golden.svg"
    );
}

#[test]
fn a_failing_proof_is_said_first() {
    let mut log = log("x");
    let banner = Banner::default();
    let html = |log: &AccessLog| view::render_access(&page(Role::PrivacyOfficer), &banner, log, false);
    assert!(html(&log).contains("does not match its signed checkpoint"));
    log.entries[1].mark = Mark::Proven;
    assert!(html(&log).contains("Verified.</b> Each line"));
    log.checkpoint = None;
    assert!(html(&log).contains("Not verified"));
    log.entries[0].mark = Mark::Failed;
    assert!(html(&log).contains("does not match its signed checkpoint"));
}

#[test]
fn the_patient_is_spared_network_addresses() {
    let mut log = log("x");
    log.entries[0].from = "10.1.2.3".to_owned();
    assert!(view::render_access(&page(Role::PrivacyOfficer), &Banner::default(), &log, false).contains("10.1.2.3"));
    assert!(!view::render_access(&page(Role::Patient), &Banner::default(), &log, true).contains("10.1.2.3"));
}

#[test]
fn people_easy_to_confuse_are_pointed_out() {
    let hit = |name: &str, birth: &str| Hit {
        href: "/patients/x".to_owned(),
        banner: Banner {
            name: name.to_owned(),
            birth: birth.to_owned(),
            ..Banner::default()
        },
    };
    let html = |hits| {
        let results = Results {
            hits,
            ..Results::default()
        };
        view::render_find(
            &page(Role::Nurse),
            "t",
            Role::Nurse,
            &Find::default(),
            Ok(Some(&results)),
            &Results::default(),
        )
    };
    let warning = "same birth date and a name alike";
    assert!(html(vec![hit("Emil Novák", "9 Mar 2015"), hit("Emma Novák", "9 Mar 2015")]).contains(warning));
    assert!(!html(vec![hit("Emil Novák", "9 Mar 2015"), hit("Emma Novák", "9 Mar 2016")]).contains(warning));
    assert!(html(Vec::new()).contains("Nobody found"));
}

// ------------------------------------------------------------------ hostile text (APP-2)

/// Texts that would run or break out if anything forgot to escape. Each contains `<`, `"` or `'` besides the marker.
const ATTACKS: [&str; 14] = [
    "<script>xss()</script>",
    "\"><img src=x onerror=xss()>",
    "'><svg onload=xss()>",
    "</title><script>xss()</script>",
    "</textarea><script>xss()</script>",
    "\" autofocus onfocus=\"xss()",
    "' onmouseover='xss()",
    "<a href=\"javascript:xss()\">xss</a>",
    "{{xss}}<b>{% raw %}</b>",
    "<!--<script>xss()//-->",
    "<iframe srcdoc=\"<script>xss()</script>\">",
    "</svg><foreignObject><script>xss()</script>",
    "\u{202e}<xss>\u{0}</xss>",
    "&lt;script&gt;xss()<\u{feff}/script>",
];

/// Replaces every string below `v` that a person could have written; structure words stay, or nothing would be shown.
fn poison(v: &mut Value<'_>, text: &str) {
    const KEEP: [&str; 24] = [
        "resourceType",
        "system",
        "code",
        "use",
        "status",
        "birthDate",
        "gender",
        "date",
        "start",
        "end",
        "severity",
        "criticality",
        "reference",
        "contentType",
        "data",
        "effectiveDateTime",
        "onsetDateTime",
        "authoredOn",
        "created",
        "occurrenceDateTime",
        "performedDateTime",
        "deceasedDateTime",
        "issued",
        "url",
    ];
    match v {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(s) if !KEEP.contains(&&**name) => *s = Cow::Owned(text.to_owned()),
                    other => poison(other, text),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|i| match i {
            Value::String(s) => *s = Cow::Owned(text.to_owned()),
            other => poison(other, text),
        }),
        _ => {}
    }
}

/// The tags of a page, so that a tag too many shows; `"` and `'` inside values count as well.
fn tags(html: &str) -> Vec<String> {
    html.split('<')
        .skip(1)
        .map(|t| t.split([' ', '>', '\n']).next().unwrap_or_default().to_owned())
        .collect()
}

fn assert_inert(what: &str, benign: &str, hostile: &str, attack: &str) {
    assert!(!hostile.contains(attack), "{what}: `{attack}` came through as it was");
    for bad in [
        "<script>xss",
        "<img",
        "<iframe",
        "<foreignObject",
        "<xss",
        "javascript:xss()\"",
        "\" onfocus",
        "' onmouse",
    ] {
        assert!(!hostile.contains(bad), "{what}: `{bad}` from `{attack}`");
    }
    assert_eq!(
        tags(benign),
        tags(hostile),
        "{what}: `{attack}` changed the tags of the page"
    );
}

#[test]
fn no_text_of_a_record_becomes_markup() {
    let html = |text: &str| {
        let (mut patient, mut resources) = sample();
        poison(&mut patient, text);
        resources.iter_mut().for_each(|r| poison(r, text));
        chart_of(&patient, &resources)
    };
    let benign = html("benign");
    assert!(
        benign.matches("benign").count() > 60,
        "the poison reaches the page: {}",
        benign.matches("benign").count()
    );
    for attack in ATTACKS {
        // Of the same length, since a long identifier is left out.
        assert_inert(
            "chart",
            &html(&"b".repeat(attack.chars().count())),
            &html(attack),
            attack,
        );
    }
}

#[test]
fn no_text_of_a_note_becomes_markup() {
    use base64::Engine as _;
    let html = |text: &str| {
        let (patient, mut resources) = sample();
        let data = base64::engine::general_purpose::STANDARD.encode(text);
        for r in &mut resources {
            if r.str("resourceType") == Some("DocumentReference") {
                let Some(Value::Array(content)) = r.get_mut("content") else {
                    continue;
                };
                content[0]
                    .get_mut("attachment")
                    .unwrap()
                    .set("data", Value::from(data.clone()));
            }
        }
        chart_of(&patient, &resources)
    };
    for attack in ATTACKS {
        assert_inert("note", &html("benign"), &html(attack), attack);
    }
}

#[test]
fn no_other_page_lets_markup_through() {
    let pages = |text: &str| -> Vec<(&'static str, String)> {
        let banner = Banner {
            id: text.to_owned(),
            name: text.to_owned(),
            other_names: vec![text.to_owned()],
            identifiers: vec![(text.to_owned(), text.to_owned())],
            labels: vec![text.to_owned()],
            multiple: Some(text.to_owned()),
            died: Some(text.to_owned()),
            address: text.to_owned(),
            phone: text.to_owned(),
            language: text.to_owned(),
            ..Banner::default()
        };
        let mut person = Actor::clone(&actor(Role::Nurse));
        person.display = text.to_owned();
        let page = Page {
            title: "T",
            user: Some(User::new(&person, text, "/find")),
            demo: true,
            emergencies: Vec::new(),
        };
        let asked = Find {
            name: text.to_owned(),
            birth_date: text.to_owned(),
            identifier: text.to_owned(),
        };
        let hit = || Hit {
            href: format!("/patients/{text}"),
            banner: banner.clone(),
        };
        let results = Results {
            hits: vec![hit()],
            more: true,
            notice: "",
        };
        let login = login(text);
        vec![
            (
                "sign-in",
                signin::render_sign_in(
                    &page,
                    std::slice::from_ref(&login),
                    &[Provider {
                        id: "idp-1".to_owned(),
                        display: text.to_owned(),
                    }],
                    Some(text),
                ),
            ),
            ("landed", signin::render_landed(&page, "/")),
            (
                "second factor",
                signin::render_second(&page, &[login], offers(), Some(text)),
            ),
            (
                "security",
                signin::render_security(&page, text, &security(text), Some(text), true),
            ),
            ("confirm", signin::render_confirm(&page, text, text, Some(text))),
            (
                "users",
                signin::render_users(&page, text, &[member(text)], Role::Administrator, Some(text), true),
            ),
            (
                "find",
                view::render_find(
                    &page,
                    text,
                    Role::Nurse,
                    &asked,
                    Ok(Some(&results)),
                    &Results::default(),
                ),
            ),
            (
                "find, problem",
                view::render_find(&page, text, Role::Nurse, &asked, Err(text), &results),
            ),
            ("access", view::render_access(&page, &banner, &log(text), false)),
            ("status", view::render_status(&page, &groups(text))),
            ("clients", clients::render_list(&page, &[client(text, text)])),
            ("client", clients::render_client(&page, text, &client(text, text))),
            (
                "error",
                view::render_error(
                    &page,
                    404,
                    text,
                    text,
                    &[Link {
                        href: "/",
                        text: "Start",
                        here: false,
                    }],
                    text,
                ),
            ),
            (
                "chart",
                view::render_chart(
                    &page,
                    &ChartView::from_resources(&sample().0, &[], &[], today()),
                    true,
                    Some(text),
                    text,
                    text,
                    text,
                ),
            ),
        ]
    };
    for attack in ATTACKS {
        for ((what, benign), (_, hostile)) in pages("benign").iter().zip(pages(attack)) {
            assert!(benign.contains("benign"), "{what}");
            assert_inert(what, benign, &hostile, attack);
        }
    }
}

#[test]
fn no_page_needs_inline_script_or_style() {
    let (patient, resources) = sample();
    let all = [
        chart_of(&patient, &resources),
        view::render_access(&page(Role::Patient), &Banner::default(), &log("x"), true),
        view::render_status(&page(Role::Administrator), &groups("x")),
        clients::render_list(&page(Role::Administrator), &[client("c", "x")]),
        clients::render_client(&page(Role::Administrator), "t", &client("c", "x")),
        signin::render_sign_in(&page(Role::Nurse), &[], &[], None),
        signin::render_landed(&page(Role::Nurse), "/sign-in/second"),
        signin::render_second(&page(Role::Nurse), &[], offers(), None),
        signin::render_security(&page(Role::Nurse), "t", &security("t"), None, false),
        signin::render_confirm(&page(Role::Nurse), "t", "security", None),
        signin::render_users(
            &page(Role::Nurse),
            "t",
            &[member("t")],
            Role::Administrator,
            None,
            false,
        ),
    ];
    for html in all {
        for bad in [
            " style=",
            "<style",
            " onclick",
            " onload",
            "javascript:",
            "http://",
            "https://",
        ] {
            assert!(!html.contains(bad), "{bad}");
        }
        assert_eq!(html.matches("<script").count(), 1, "the module and nothing else");
        assert_eq!(html.matches("<h1").count(), 1);
        assert!(html.contains("<html lang=\"en\">") && html.contains("<main id=\"main\">"));
    }
}

#[test]
fn every_field_has_a_label_and_every_id_is_unique() {
    let (patient, resources) = sample();
    let all = [
        view::render_find(
            &page(Role::Nurse),
            "t",
            Role::Nurse,
            &Find::default(),
            Ok(None),
            &Results::default(),
        ),
        signin::render_sign_in(&page(Role::Nurse), &[], &[], None),
        signin::render_landed(&page(Role::Nurse), "/sign-in/second"),
        signin::render_second(&page(Role::Nurse), &[], offers(), None),
        signin::render_security(&page(Role::Nurse), "t", &security("t"), None, false),
        signin::render_confirm(&page(Role::Nurse), "t", "security", None),
        signin::render_users(
            &page(Role::Nurse),
            "t",
            &[member("t")],
            Role::Administrator,
            None,
            false,
        ),
        chart_of(&patient, &resources),
    ];
    for html in all {
        for input in html.split("<input ").skip(1).map(|t| t.split('>').next().unwrap()) {
            if input.contains("type=\"hidden\"") {
                continue;
            }
            let id = input
                .split("id=\"")
                .nth(1)
                .and_then(|t| t.split('"').next())
                .expect("an id");
            assert!(html.contains(&format!("<label for=\"{id}\"")), "{id}");
        }
        let mut ids: Vec<&str> = html
            .split(" id=\"")
            .skip(1)
            .map(|t| t.split('"').next().unwrap())
            .collect();
        let before = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), before);
    }
}

// ------------------------------------------------------------------ handlers

/// A backend with one patient, `p1`, that writes down what it was asked.
struct Fake {
    site: Site,
    asked: Mutex<Vec<(String, PurposeOfUse, EntryPath)>>,
    ended: Mutex<Vec<String>>,
    emergency: std::sync::atomic::AtomicBool,
    notice: &'static str,
}

impl Fake {
    fn note(&self, what: &str, ctx: &Context) {
        self.asked.lock().push((what.to_owned(), ctx.purpose, ctx.entry));
    }

    fn may(ctx: &Context, id: &str) -> Result<String, Refusal> {
        let own = ctx.actor.role != Role::Patient || ctx.actor.patient.as_deref() == Some(id);
        if id == "closed" {
            Err(Refusal::Forbidden("no relationship".to_owned()))
        } else if id == "p1" && own {
            Ok(SAMPLE.lines().next().unwrap().to_owned())
        } else {
            Err(Refusal::NotFound)
        }
    }
}

impl Backend for Fake {
    fn site(&self) -> &Site {
        &self.site
    }

    fn now(&self) -> Timestamp {
        NOW
    }

    fn seen(&self, _: &Parts) -> Seen {
        Seen {
            request_id: "request-1".to_owned(),
            network: "192.0.2.1".to_owned(),
        }
    }

    async fn session(&self, cookies: &str, _: &Seen) -> Option<Session> {
        let role = Role::from_name(cookies.split("; ").find_map(|c| c.strip_prefix("session="))?)?;
        let actor = actor(role);
        let alive = !self.ended.lock().contains(&actor.session);
        alive.then(|| Session {
            actor,
            csrf: format!("csrf-{}", role.name()),
        })
    }

    async fn sign_in(&self, how: SignIn, _: &str, _: &Seen) -> Result<Step, Refusal> {
        let opened = |user: &str| Step {
            cookies: vec![format!("session={user}; HttpOnly; SameSite=Strict; Path=/")],
            next: Next::Start,
        };
        let going_on = |next| Step {
            cookies: vec!["stage=1; HttpOnly; SameSite=Strict; Path=/".to_owned()],
            next,
        };
        match how {
            SignIn::Password { user, password } if user == "nurse" && password == "right" => Ok(going_on(Next::Second)),
            SignIn::Code(code) if code == "right" => Ok(opened("nurse")),
            SignIn::Code(_) => Err(Refusal::SecondFactor),
            SignIn::Activation(code) if code == "right" => Ok(opened("nurse")),
            SignIn::AskPasskey => Ok(going_on(Next::Passkey(r#"{"challenge":"AA\"><script>"}"#.to_owned()))),
            SignIn::Passkey(response) if response == "right" => Ok(opened("nurse")),
            _ => Err(Refusal::SignIn),
        }
    }

    fn second_step(&self, cookies: &str) -> Option<Offers> {
        cookies.contains("stage=1").then(offers)
    }

    fn providers(&self) -> Vec<Provider> {
        Vec::new()
    }

    fn logins(&self) -> Vec<DemoLogin> {
        vec![login("T")]
    }

    async fn security(&self, _: &Context) -> Result<Security, Refusal> {
        Ok(security("a thing"))
    }

    async fn secure(&self, ctx: &Context, act: SecurityAct, _: &str) -> Result<Secured, Refusal> {
        match act {
            SecurityAct::Password(p) if p == "weak" => Err(Refusal::Invalid("It is weak.".to_owned())),
            SecurityAct::Password(_) => Ok(Secured::Done("It is set.")),
            SecurityAct::Recovery => Ok(Secured::Codes(vec!["CODE-1".to_owned()])),
            SecurityAct::ConfirmPassword(p) if p == "right" => {
                let cookie = format!("session={}; HttpOnly", ctx.actor.role.name());
                Ok(Secured::Renewed(vec![cookie]))
            }
            SecurityAct::ConfirmPassword(_) => Err(Refusal::SecondFactor),
            _ => Err(Refusal::Confirm),
        }
    }

    async fn users(&self, ctx: &Context) -> Result<Vec<Member>, Refusal> {
        match ctx.actor.role {
            Role::Administrator => Ok(vec![member("someone")]),
            _ => Err(Refusal::Forbidden("Only administrators.".to_owned())),
        }
    }

    async fn manage(&self, _: &Context, act: UserAct) -> Result<Managed, Refusal> {
        match act {
            UserAct::Release(_) => Ok(Managed::Code {
                code: "ACTIVATION".to_owned(),
                expires: NOW,
            }),
            UserAct::End(_) => Err(Refusal::Confirm),
            _ => Ok(Managed::Done("It is done.")),
        }
    }

    async fn sign_out(&self, session: &Session, _: &Seen) -> String {
        self.ended.lock().push(session.actor.session.clone());
        "session=; Max-Age=0; Path=/".to_owned()
    }

    async fn find(&self, ctx: &Context, asked: &Find, limit: usize) -> Result<Patients, Refusal> {
        self.note(&format!("find {} {}", asked.name, limit), ctx);
        match ctx.actor.role {
            Role::Administrator => Err(Refusal::Forbidden("Administrators do not look at patients.".to_owned())),
            _ => Ok(Patients {
                texts: vec![SAMPLE.lines().next().unwrap().to_owned()],
                notice: self.notice,
            }),
        }
    }

    async fn patients(&self, ctx: &Context, ids: &[String]) -> Result<Patients, Refusal> {
        self.note("recent", ctx);
        Ok(Patients {
            texts: ids.iter().filter_map(|i| Self::may(ctx, i).ok()).collect(),
            notice: self.notice,
        })
    }

    async fn compartment(
        &self,
        ctx: &Context,
        id: &str,
        wanted: &[(ResourceType, usize)],
    ) -> Result<Compartment, Refusal> {
        self.note(&format!("chart {id}"), ctx);
        let patient = Self::may(ctx, id)?;
        let asked = |line: &&str| {
            wanted
                .iter()
                .any(|(t, _)| line.contains(&format!("\"resourceType\":\"{}\"", t.name())))
        };
        let resources = SAMPLE.lines().skip(1).filter(asked).map(str::to_owned).collect();
        Ok(Compartment {
            patient,
            resources,
            withheld: Vec::new(),
            capped: Vec::new(),
            notice: self.notice,
        })
    }

    async fn access_log(&self, ctx: &Context, id: &str, _: usize) -> Result<AccessLog, Refusal> {
        self.note(&format!("log {id}"), ctx);
        Self::may(ctx, id)?;
        match ctx.actor.role {
            Role::Patient | Role::PrivacyOfficer => Ok(AccessLog {
                notice: self.notice,
                ..log("somebody")
            }),
            _ => Err(Refusal::Forbidden(
                "Only the privacy officer and the patient.".to_owned(),
            )),
        }
    }

    async fn offer(&self, _: &Context, id: &str) -> Option<Offered> {
        (id == "closed").then(|| Offered {
            patient:
                r#"{"resourceType":"Patient","id":"closed","name":[{"family":"Closed"}],"birthDate":"1960-01-01"}"#
                    .to_owned(),
            stated: false,
        })
    }

    async fn break_glass(&self, ctx: &Context, id: &str, code: &str, text: &str) -> Result<(), Refusal> {
        if text == "long ago" {
            return Err(Refusal::Confirm);
        }
        self.note(&format!("break {id} {code} {text}"), ctx);
        Ok(())
    }

    async fn state_reason(&self, ctx: &Context, id: &str, code: &str) -> Result<(), Refusal> {
        self.note(&format!("state {id} {code}"), ctx);
        Ok(())
    }

    async fn end_access(&self, ctx: &Context, id: &str) -> Result<(), Refusal> {
        self.note(&format!("end {id}"), ctx);
        Ok(())
    }

    fn emergencies(&self, actor: &Arc<Actor>) -> Vec<Granted> {
        let running = actor.role == Role::Nurse && self.emergency.load(std::sync::atomic::Ordering::Relaxed);
        let one = Granted {
            patient: "p1".to_owned(),
            kind: GrantKind::Emergency,
            until: NOW,
        };
        if running { vec![one] } else { Vec::new() }
    }

    async fn reviews(&self, ctx: &Context) -> Result<Vec<Review>, Refusal> {
        self.note("reviews", ctx);
        Ok(vec![Review {
            id: "r1".to_owned(),
            user: "u".to_owned(),
            display: "Dr <b>".to_owned(),
            role: Some(Role::Physician),
            patient: Some("p1".to_owned()),
            code: "safety".to_owned(),
            text: "<i>fell</i>".to_owned(),
            from: NOW,
            until: NOW,
            due: NOW,
            overdue: true,
        }])
    }

    async fn review(&self, ctx: &Context, id: &str, justified: bool, note: &str) -> Result<(), Refusal> {
        self.note(&format!("review {id} {justified} {note}"), ctx);
        Ok(())
    }

    async fn status(&self, ctx: &Context) -> Result<Vec<Group>, Refusal> {
        self.note("status", ctx);
        Ok(groups("fine"))
    }

    async fn clients(&self, ctx: &Context) -> Result<Vec<super::backend::Client>, Refusal> {
        self.note("clients", ctx);
        match ctx.actor.role {
            Role::Administrator => Ok(vec![client("client-1", "Lab")]),
            _ => Err(Refusal::Forbidden("Only administrators.".to_owned())),
        }
    }

    async fn client(&self, ctx: &Context, id: &str) -> Result<super::backend::Client, Refusal> {
        self.note(&format!("client {id}"), ctx);
        Ok(client(id, "Lab"))
    }

    async fn end_client(&self, ctx: &Context, id: &str) -> Result<(), Refusal> {
        self.note(&format!("end client {id}"), ctx);
        Ok(())
    }
}

struct Clinic {
    fake: Arc<Fake>,
    app: axum::Router,
}

impl Clinic {
    fn open() -> Self {
        Self::open_with("")
    }

    /// A clinic of whose records something must be said.
    fn open_with(notice: &'static str) -> Self {
        let site = Site {
            secure: false,
            demo: true,
        };
        let fake = Arc::new(Fake {
            site,
            asked: Mutex::default(),
            ended: Mutex::default(),
            emergency: false.into(),
            notice,
        });
        Self {
            app: router(fake.clone()),
            fake,
        }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Response<()>, String) {
        let (parts, body) = self.app.clone().oneshot(request).await.unwrap().into_parts();
        let body = to_bytes(body, 1 << 22).await.unwrap();
        (
            parts.status,
            Response::from_parts(parts, ()),
            String::from_utf8(body.to_vec()).unwrap(),
        )
    }

    async fn get(&self, role: Option<Role>, path: &str) -> (StatusCode, Response<()>, String) {
        let mut request = Request::get(path)
            .header("host", "localhost:1")
            .header("sec-fetch-site", "same-origin");
        if let Some(role) = role {
            request = request.header("cookie", format!("other=1; session={}", role.name()));
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn post(&self, role: Option<Role>, path: &str, form: &str, site: &str) -> (StatusCode, Response<()>, String) {
        let mut request = Request::post(path)
            .header("host", "localhost:1")
            .header("sec-fetch-site", site)
            .header("content-type", "application/x-www-form-urlencoded");
        if let Some(role) = role {
            request = request.header("cookie", format!("session={}", role.name()));
        }
        self.send(request.body(Body::from(form.to_owned())).unwrap()).await
    }
}

fn location(answer: &Response<()>) -> &str {
    answer
        .headers()
        .get(header::LOCATION)
        .map(|v| v.to_str().unwrap())
        .unwrap_or_default()
}

#[tokio::test]
async fn without_a_session_every_page_leads_to_the_sign_in() {
    let clinic = Clinic::open();
    for path in [
        "/",
        "/find",
        "/find/results",
        "/patients/p1",
        "/patients/p1/access",
        "/record",
        "/record/access",
        "/status",
        "/clients",
        "/clients/client-1",
        "/security",
        "/confirm",
        "/users",
    ] {
        let (status, answer, body) = clinic.get(None, path).await;
        assert_eq!(
            (status, location(&answer)),
            (StatusCode::SEE_OTHER, "/sign-in"),
            "{path}"
        );
        assert!(!body.contains("Sample Person"));
    }
    for path in [
        "/find",
        "/sign-out",
        "/clients/client-1/end",
        "/security",
        "/confirm",
        "/users",
    ] {
        let (status, answer, _) = clinic.post(None, path, "csrf=x&name=a", "same-origin").await;
        assert_eq!(
            (status, location(&answer)),
            (StatusCode::SEE_OTHER, "/sign-in"),
            "{path}"
        );
    }
    assert!(clinic.fake.asked.lock().is_empty());
}

#[test]
fn the_list_of_routes_is_the_router() {
    let source = include_str!("mod.rs");
    let mut routed: Vec<(&str, String)> = Vec::new();
    for line in source.lines().filter_map(|l| l.trim().strip_prefix(".route(\"")) {
        let (path, handlers) = line.split_once('"').unwrap();
        if handlers.contains("get(") {
            routed.push(("GET", path.to_owned()));
        }
        if handlers.contains("post(") {
            routed.push(("POST", path.to_owned()));
        }
    }
    let listed: Vec<(&str, String)> = ROUTES.iter().map(|(m, p, _)| (*m, (*p).to_owned())).collect();
    assert_eq!(routed, listed);
}

#[tokio::test]
async fn every_answer_carries_the_headers() {
    let clinic = Clinic::open();
    for path in ["/", "/sign-in", "/nothing/here", "/patients/p1", "/find"] {
        let (_, answer, _) = clinic.get(Some(Role::Physician), path).await;
        let header = |n: &str| answer.headers().get(n).map(|v| v.to_str().unwrap()).unwrap_or_default();
        assert_eq!(header("content-security-policy"), guard::CSP, "{path}");
        assert_eq!(header("cache-control"), "no-store", "{path}");
        assert_eq!(header("x-frame-options"), "DENY");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cross-origin-opener-policy"), "same-origin");
        assert_eq!(header("cross-origin-resource-policy"), "same-origin");
        assert!(header("permissions-policy").contains("camera=()"));
    }
    for bad in ["unsafe-inline", "unsafe-eval", "*", "http:", "data:"] {
        assert!(!guard::CSP.contains(bad), "{bad}");
    }
}

#[tokio::test]
async fn roles_start_where_their_work_is() {
    let clinic = Clinic::open();
    for (role, to) in [
        (Role::Physician, "/find"),
        (Role::Nurse, "/find"),
        (Role::FrontDesk, "/find"),
        (Role::Billing, "/find"),
        (Role::RecordsClerk, "/find"),
        (Role::PrivacyOfficer, "/find"),
        (Role::SecurityOfficer, "/status"),
        (Role::Administrator, "/status"),
        (Role::Patient, "/record"),
    ] {
        assert_eq!(location(&clinic.get(Some(role), "/").await.1), to);
    }
    assert_eq!(clinic.get(Some(Role::Service), "/").await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_chart_asks_for_no_more_than_the_role_needs() {
    let clinic = Clinic::open();
    for (role, shown, hidden) in [
        (
            Role::Physician,
            vec!["penicillin", "Laboratory", "A note in plain text."],
            vec!["SMH-1", "148.00 USD"],
        ),
        (
            Role::Nurse,
            vec!["penicillin", "Doses given"],
            vec!["SMH-1", "148.00 USD"],
        ),
        (
            Role::FrontDesk,
            vec!["SMH-1", "3 Dec 2026"],
            vec!["penicillin", "Laboratory", "A note", "148.00 USD", "High blood"],
        ),
        (
            Role::Billing,
            vec!["SMH-1", "148.00 USD"],
            vec!["penicillin", "Laboratory", "A note", "High blood"],
        ),
        (
            Role::RecordsClerk,
            vec!["A note in plain text."],
            vec!["penicillin", "Laboratory", "SMH-1"],
        ),
        (
            Role::PrivacyOfficer,
            vec!["/patients/p1/access"],
            vec!["penicillin", "Laboratory", "SMH-1", "A note"],
        ),
        (Role::Patient, vec!["penicillin", "SMH-1", "/record/access"], vec![]),
    ] {
        let (status, _, body) = clinic.get(Some(role), "/patients/p1").await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("Sample Person"));
        shown
            .iter()
            .for_each(|w| assert!(body.contains(w), "{role:?} misses {w}"));
        hidden
            .iter()
            .for_each(|w| assert!(!body.contains(w), "{role:?} sees {w}"));
    }
}

#[tokio::test]
async fn clients_are_shown_and_ended_by_those_the_policy_allows() {
    let clinic = Clinic::open();
    let administrator = Some(Role::Administrator);
    let (status, _, body) = clinic.get(administrator, "/clients").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("href=\"/clients/client-1\""));
    assert_eq!(clinic.get(Some(Role::Nurse), "/clients").await.0, StatusCode::FORBIDDEN);
    let (_, _, body) = clinic.get(administrator, "/clients/client-1").await;
    assert!(body.contains("action=\"/clients/client-1/end\"") && body.contains("csrf-administrator"));
    for (form, site) in [
        ("csrf=", "same-origin"),
        ("csrf=csrf-nurse", "same-origin"),
        ("csrf=csrf-administrator", "cross-site"),
    ] {
        let (status, ..) = clinic.post(administrator, "/clients/client-1/end", form, site).await;
        assert!(status.is_client_error(), "{form} {site}");
    }
    let ended = |clinic: &Clinic| {
        clinic
            .fake
            .asked
            .lock()
            .iter()
            .any(|(w, ..)| w.starts_with("end client"))
    };
    assert!(!ended(&clinic));
    let (status, answer, _) = clinic
        .post(
            administrator,
            "/clients/client-1/end",
            "csrf=csrf-administrator",
            "same-origin",
        )
        .await;
    assert_eq!((status, location(&answer)), (StatusCode::SEE_OTHER, "/clients"));
    assert!(ended(&clinic));
    let nonsense = clinic.get(administrator, "/clients/..%2f").await;
    assert_eq!(nonsense.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_must_be_said_with_a_record_stands_on_every_page_that_shows_it() {
    const NOTICE: &str = "Not to be passed on.";
    for notice in ["", NOTICE] {
        let clinic = Clinic::open_with(notice);
        let said = |body: &str| body.contains(NOTICE);
        let form = "csrf=csrf-nurse&name=sam&birth_date=&identifier=";
        for (role, path) in [
            (Role::Nurse, "/patients/p1"),
            (Role::Nurse, "/find"), // seen in this session
            (Role::Patient, "/record"),
            (Role::Patient, "/record/access"),
            (Role::PrivacyOfficer, "/patients/p1/access"),
        ] {
            let (status, _, body) = clinic.get(Some(role), path).await;
            assert_eq!(status, StatusCode::OK, "{path}");
            assert!(body.contains("Sample Person"), "{path}");
            assert_eq!(said(&body), !notice.is_empty(), "{path}");
        }
        clinic.post(Some(Role::Nurse), "/find", form, "same-origin").await;
        let (_, _, body) = clinic.get(Some(Role::Nurse), "/find/results").await;
        assert!(body.contains("Sample Person"), "{body}");
        assert_eq!(said(&body), !notice.is_empty(), "results");
        // Where nothing is shown, there is nothing to say it with.
        let (_, _, body) = clinic.get(Some(Role::Billing), "/find").await;
        assert!(!said(&body), "an empty page");
    }
}

#[tokio::test]
async fn titles_and_addresses_hold_no_names() {
    let clinic = Clinic::open();
    for (role, path) in [
        (Role::Physician, "/patients/p1"),
        (Role::Patient, "/record"),
        (Role::PrivacyOfficer, "/patients/p1/access"),
    ] {
        let (_, _, body) = clinic.get(Some(role), path).await;
        let title = body.split("<title>").nth(1).unwrap().split("</title>").next().unwrap();
        assert!(!title.contains("Sample"), "{title}");
    }
    let (_, _, body) = clinic.get(Some(Role::Nurse), "/find").await;
    assert!(body.contains("method=\"post\" action=\"/find\""));
    assert_eq!(body.matches("autocomplete=\"off\"").count(), 3);
}

#[tokio::test]
async fn strangers_records_and_nonsense_look_alike() {
    let clinic = Clinic::open();
    let (other, _, a) = clinic.get(Some(Role::Patient), "/patients/p2").await;
    let (missing, _, b) = clinic.get(Some(Role::Patient), "/patients/nobody").await;
    let (nonsense, _, c) = clinic.get(Some(Role::Patient), "/patients/..%2f..%2fetc").await;
    assert_eq!(
        (other, missing, nonsense),
        (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND, StatusCode::NOT_FOUND)
    );
    assert!(a == b && b == c);
    assert!(a.contains("To the start page"));
    assert!(
        !clinic.fake.asked.lock().iter().any(|(w, ..)| w.contains("..")),
        "an impossible id reached the record"
    );
}

#[tokio::test]
async fn a_search_needs_the_token_of_its_session() {
    let clinic = Clinic::open();
    let nurse = Some(Role::Nurse);
    for form in [
        "name=sam",
        "name=sam&csrf=",
        "name=sam&csrf=csrf-physician",
        "csrf=csrf-nurs&name=sam",
    ] {
        assert_eq!(
            clinic.post(nurse, "/find", form, "same-origin").await.0,
            StatusCode::BAD_REQUEST,
            "{form}"
        );
    }
    for site in ["cross-site", "same-site", "none"] {
        assert_eq!(
            clinic.post(nurse, "/find", "name=sam&csrf=csrf-nurse", site).await.0,
            StatusCode::FORBIDDEN,
            "{site}"
        );
    }
    assert!(clinic.fake.asked.lock().is_empty());
    let (status, answer, _) = clinic
        .post(nurse, "/find", "name=sam&csrf=csrf-nurse", "same-origin")
        .await;
    assert_eq!((status, location(&answer)), (StatusCode::SEE_OTHER, "/find/results"));
    let (status, _, body) = clinic.get(nurse, "/find/results").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("/patients/p1?by=search") && body.contains("value=\"sam\""));
    assert_eq!(
        *clinic.fake.asked.lock(),
        [("find sam 31".to_owned(), PurposeOfUse::Treatment, EntryPath::Search)]
    );
}

#[tokio::test]
async fn a_question_belongs_to_its_session_and_ends_with_it() {
    let clinic = Clinic::open();
    let nurse = Some(Role::Nurse);
    clinic
        .post(nurse, "/find", "name=sam&csrf=csrf-nurse", "same-origin")
        .await;
    assert!(
        !clinic
            .get(Some(Role::Physician), "/find/results")
            .await
            .2
            .contains("sam\"")
    );
    assert!(clinic.get(nurse, "/find/results").await.2.contains("value=\"sam\""));
    assert!(
        !clinic.get(nurse, "/find").await.2.contains("value=\"sam\""),
        "a new search starts empty"
    );
    clinic.post(nurse, "/sign-out", "csrf=csrf-nurse", "same-origin").await;
    clinic.fake.ended.lock().clear();
    assert!(!clinic.get(nurse, "/find/results").await.2.contains("value=\"sam\""));
}

#[tokio::test]
async fn nothing_asked_is_not_a_search() {
    let clinic = Clinic::open();
    for form in [
        "csrf=csrf-nurse",
        "csrf=csrf-nurse&name=+++",
        "csrf=csrf-nurse&birth_date=tomorrow",
    ] {
        clinic.post(Some(Role::Nurse), "/find", form, "same-origin").await;
        let (status, _, body) = clinic.get(Some(Role::Nurse), "/find/results").await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("role=\"alert\""), "{form}");
    }
    assert!(clinic.fake.asked.lock().is_empty());
}

#[tokio::test]
async fn a_refusal_is_a_page_with_a_way_out() {
    let clinic = Clinic::open();
    clinic
        .post(
            Some(Role::Administrator),
            "/find",
            "name=s&csrf=csrf-administrator",
            "same-origin",
        )
        .await;
    let (status, _, body) = clinic.get(Some(Role::Administrator), "/find/results").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(
        body.contains("Administrators do not look at patients.")
            && body.contains("request-1")
            && body.contains("href=\"/\"")
    );
    assert_eq!(
        clinic.get(Some(Role::Nurse), "/patients/p1/access").await.0,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn recent_patients_are_read_anew_and_forgotten_at_sign_out() {
    let clinic = Clinic::open();
    let nurse = Some(Role::Nurse);
    assert!(!clinic.get(nurse, "/find").await.2.contains("Seen in this session"));
    clinic.get(nurse, "/patients/p1?by=search").await;
    clinic.get(nurse, "/patients/nobody").await;
    let (_, _, body) = clinic.get(nurse, "/find").await;
    assert!(body.contains("Seen in this session") && body.contains("/patients/p1?by=list"));
    assert!(
        !clinic
            .get(Some(Role::Physician), "/find")
            .await
            .2
            .contains("Seen in this session")
    );
    let asked = clinic.fake.asked.lock().clone();
    assert!(asked.contains(&("recent".to_owned(), PurposeOfUse::Treatment, EntryPath::WorkList)));
    assert!(asked.contains(&("chart p1".to_owned(), PurposeOfUse::Treatment, EntryPath::Search)));

    assert_eq!(
        clinic.post(nurse, "/sign-out", "csrf=wrong", "same-origin").await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(clinic.get(nurse, "/find").await.0, StatusCode::OK);
    let (status, answer, _) = clinic.post(nurse, "/sign-out", "csrf=csrf-nurse", "same-origin").await;
    assert_eq!((status, location(&answer)), (StatusCode::SEE_OTHER, "/sign-in"));
    assert!(answer.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert!(
        answer.headers()["clear-site-data"]
            .to_str()
            .unwrap()
            .contains("\"cache\"")
    );
    assert_eq!(location(&clinic.get(nurse, "/find").await.1), "/sign-in");
    clinic.fake.ended.lock().clear();
    assert!(!clinic.get(nurse, "/find").await.2.contains("Seen in this session"));
}

#[tokio::test]
async fn signing_in_takes_two_steps_a_passkey_or_an_activation_code() {
    let clinic = Clinic::open();
    for (path, form, to) in [
        ("/sign-in", "user=+nurse&password=right", "/sign-in/second"),
        ("/sign-in/second", "code=right", "/"),
        ("/sign-in/passkey", "response=right", "/"),
        ("/sign-in", "code=right", "/"),
        ("/sign-in", "code=+right+", "/"),
        ("/sign-in", "code=http%3A%2F%2Flocalhost%3A1%2Fsign-in%23right", "/"),
    ] {
        let (status, answer, _) = clinic.post(None, path, form, "same-origin").await;
        assert_eq!((status, location(&answer)), (StatusCode::SEE_OTHER, to), "{form}");
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        assert!(cookie.contains("HttpOnly"), "{form}");
    }
    let mut answers = Vec::new();
    for form in [
        "user=physician&password=right",
        "user=nurse&password=wrong",
        "user=&password=",
        "",
    ] {
        let (status, answer, body) = clinic.post(None, "/sign-in", form, "same-origin").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{form}");
        assert!(body.contains("That did not work.") && !answer.headers().contains_key("set-cookie"));
        answers.push(body);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "nothing tells a wrong name from a wrong password");
    for form in ["code=wrong", "user=nurse&password=right&code=wrong"] {
        let (status, answer, body) = clinic.post(None, "/sign-in", form, "same-origin").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{form}");
        assert!(body.contains("That code does not work.") && !answer.headers().contains_key("set-cookie"));
    }
    let (status, answer, _) = clinic
        .post(None, "/sign-in", "user=nurse&password=right", "cross-site")
        .await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(!answer.headers().contains_key("set-cookie"));
    let huge = format!("code={}", "x".repeat(20_000));
    assert_eq!(
        clinic.post(None, "/sign-in", &huge, "same-origin").await.0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn the_second_step_is_there_only_after_the_first() {
    let clinic = Clinic::open();
    let (status, answer, _) = clinic.get(None, "/sign-in/second").await;
    assert_eq!((status, location(&answer)), (StatusCode::SEE_OTHER, "/sign-in"));
    let (status, answer, _) = clinic.post(None, "/sign-in/second", "code=wrong", "same-origin").await;
    assert_eq!((status, location(&answer)), (StatusCode::SEE_OTHER, "/sign-in"));
    let request = Request::get("/sign-in/second")
        .header("cookie", "stage=1")
        .body(Body::empty())
        .unwrap();
    let (status, _, body) = clinic.send(request).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("code number 3 of your printed card"));
}

#[tokio::test]
async fn what_a_passkey_is_asked_stands_escaped_in_the_page() {
    let clinic = Clinic::open();
    let (status, answer, body) = clinic.post(None, "/sign-in/passkey", "", "same-origin").await;
    assert_eq!(status, StatusCode::OK);
    assert!(answer.headers().contains_key("set-cookie"));
    assert!(!body.contains("AA\"><script>") && body.contains("data-passkey="));
    assert!(body.contains("<script type=\"module\" src=\"/assets/passkey.js\">"));
}

#[tokio::test]
async fn ones_own_security_is_changed_with_the_forms_token_and_a_fresh_proof() {
    let clinic = Clinic::open();
    let nurse = Some(Role::Nurse);
    let post = |path: &'static str, form: &'static str| clinic.post(nurse, path, form, "same-origin");
    assert_eq!(clinic.get(nurse, "/security").await.0, StatusCode::OK);
    assert_eq!(
        post("/security", "csrf=wrong&act=recovery").await.0,
        StatusCode::BAD_REQUEST
    );
    let (status, _, body) = post("/security", "csrf=csrf-nurse&act=recovery").await;
    assert!(status == StatusCode::OK && body.contains("CODE-1"));
    let (status, _, body) = post("/security", "csrf=csrf-nurse&act=password&password=a&again=b").await;
    assert!(status == StatusCode::BAD_REQUEST && body.contains("not the same"));
    let (status, _, body) = post("/security", "csrf=csrf-nurse&act=password&password=weak&again=weak").await;
    assert!(status == StatusCode::BAD_REQUEST && body.contains("It is weak."));
    assert_eq!(
        post("/security", "csrf=csrf-nurse&act=nonsense").await.0,
        StatusCode::BAD_REQUEST
    );
    let (status, answer, _) = post("/security", "csrf=csrf-nurse&act=passkey").await;
    assert_eq!(
        (status, location(&answer)),
        (StatusCode::SEE_OTHER, "/confirm?to=security")
    );
    let (status, answer, _) = post(
        "/confirm",
        "csrf=csrf-nurse&to=https%3A%2F%2Fevil.example&password=right",
    )
    .await;
    assert_eq!(
        (status, location(&answer)),
        (StatusCode::SEE_OTHER, "/security"),
        "never elsewhere"
    );
    assert!(answer.headers().contains_key("set-cookie"), "a new secret");
    let (status, _, body) = post("/confirm", "csrf=csrf-nurse&to=users&password=wrong").await;
    assert!(status == StatusCode::UNAUTHORIZED && body.contains("value=\"users\""));
    assert_eq!(
        post("/confirm", "csrf=wrong&password=right").await.0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn accounts_are_kept_by_administrators_with_a_fresh_proof() {
    let clinic = Clinic::open();
    assert_eq!(clinic.get(Some(Role::Nurse), "/users").await.0, StatusCode::FORBIDDEN);
    let admin = Some(Role::Administrator);
    assert!(clinic.get(admin, "/users").await.2.contains("someone"));
    let form = "csrf=csrf-administrator&act=release&id=someone";
    let (status, answer, body) = clinic.post(admin, "/users", form, "same-origin").await;
    assert!(
        status == StatusCode::OK && body.contains("ACTIVATION"),
        "shown once, in no address"
    );
    assert!(!answer.headers().contains_key("location"));
    let form = "csrf=csrf-administrator&act=end&id=someone";
    let (status, answer, _) = clinic.post(admin, "/users", form, "same-origin").await;
    assert_eq!(
        (status, location(&answer)),
        (StatusCode::SEE_OTHER, "/confirm?to=users")
    );
    let (status, ..) = clinic
        .post(admin, "/users", "csrf=x&act=end&id=someone", "same-origin")
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _, body) = clinic.get(admin, "/users").await;
    assert!(
        status == StatusCode::OK && !body.to_lowercase().contains("name=\"password\""),
        "no password is set"
    );
}

#[tokio::test]
async fn pages_are_used_under_a_name() {
    let clinic = Clinic::open();
    let at = |host: &str, path: &str| {
        Request::get(path)
            .header("host", host)
            .header("cookie", "session=nurse")
            .body(Body::empty())
            .unwrap()
    };
    let (status, answer, _) = clinic.send(at("127.0.0.1:4711", "/patients/p1")).await;
    assert_eq!(
        (status, location(&answer)),
        (StatusCode::TEMPORARY_REDIRECT, "http://localhost:4711/patients/p1")
    );
    assert_eq!(
        clinic.send(at("localhost:4711", "/patients/p1")).await.0,
        StatusCode::OK
    );
    assert!(
        clinic.fake.asked.lock().len() == 1,
        "a redirected request opens nothing"
    );
}

#[tokio::test]
async fn assets_are_ours_only() {
    let clinic = Clinic::open();
    for (path, kind) in [
        ("/assets/keepwell.css", "text/css"),
        ("/assets/keepwell.js", "text/javascript"),
        ("/assets/passkey.js", "text/javascript"),
        ("/assets/icon.svg", "image/svg+xml"),
    ] {
        let (status, answer, body) = clinic.get(None, path).await;
        assert_eq!(status, StatusCode::OK);
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with(kind));
        assert!(!body.is_empty());
    }
    for path in ["/assets/..%2fkeepwell.css", "/assets/x.css", "/assets/"] {
        assert_eq!(clinic.get(None, path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}

#[test]
fn dates_of_a_form_are_the_dates_of_fhir() {
    for good in ["1957", "1957-04", "1957-04-23"] {
        assert!(When::parse(good).is_some());
    }
    assert!(When::parse("23.04.1957").is_none());
}

#[tokio::test]
async fn a_closed_record_shows_who_it_is_and_what_is_offered() {
    let clinic = Clinic::open();
    let (status, _, body) = clinic.get(Some(Role::Physician), "/patients/closed").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("Closed") && body.contains("/patients/closed/break-glass"));
    assert!(
        !body.contains("/state-reason"),
        "only where a relationship is plausible"
    );

    let form = "csrf=csrf-physician&code=emergency&text=found+lying+in+the+hall";
    let (status, answer, _) = clinic
        .post(
            Some(Role::Physician),
            "/patients/closed/break-glass",
            form,
            "same-origin",
        )
        .await;
    assert_eq!((status, location(&answer)), (StatusCode::SEE_OTHER, "/patients/closed"));
    let asked = clinic.fake.asked.lock().clone();
    assert!(
        asked
            .iter()
            .any(|(what, ..)| what == "break closed emergency found lying in the hall")
    );
    // Where the last proof is old, one proves it anew and comes back to the record; nowhere else.
    let stale = "csrf=csrf-physician&code=emergency&text=long+ago";
    let (_, answer, _) = clinic
        .post(
            Some(Role::Physician),
            "/patients/closed/break-glass",
            stale,
            "same-origin",
        )
        .await;
    assert_eq!(location(&answer), "/confirm?to=patients/closed");
    for (to, end) in [
        ("patients/closed", "/patients/closed"),
        ("patients//evil.example", "/security"),
        ("/evil.example", "/security"),
    ] {
        let (_, answer, _) = clinic
            .post(
                Some(Role::Physician),
                "/confirm",
                &format!("csrf=csrf-physician&password=right&to={}", to.replace('/', "%2F")),
                "same-origin",
            )
            .await;
        assert_eq!(location(&answer), end, "{to}");
    }
    // A form of another session does nothing.
    for path in ["break-glass", "state-reason", "end-access"] {
        let path = format!("/patients/closed/{path}");
        let (status, ..) = clinic
            .post(
                Some(Role::Physician),
                &path,
                "csrf=x&code=emergency&text=long+enough",
                "same-origin",
            )
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(clinic.fake.asked.lock().len(), asked.len());
}

#[tokio::test]
async fn every_page_says_that_an_emergency_access_runs() {
    let clinic = Clinic::open();
    let banner = "/patients/p1/end-access";
    assert!(!clinic.get(Some(Role::Nurse), "/find").await.2.contains(banner));
    clinic.fake.emergency.store(true, std::sync::atomic::Ordering::Relaxed);
    for path in ["/find", "/patients/p1", "/patients/nobody", "/status"] {
        assert!(clinic.get(Some(Role::Nurse), path).await.2.contains(banner), "{path}");
    }
    assert!(!clinic.get(Some(Role::Physician), "/find").await.2.contains(banner));
    let (status, ..) = clinic
        .post(Some(Role::Nurse), banner, "csrf=csrf-nurse", "same-origin")
        .await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert!(clinic.fake.asked.lock().iter().any(|(what, ..)| what == "end p1"));
}

#[tokio::test]
async fn reviews_are_listed_and_decided() {
    let clinic = Clinic::open();
    let (_, _, body) = clinic.get(Some(Role::PrivacyOfficer), "/reviews").await;
    assert!(body.contains("overdue") && body.contains("/patients/p1/access"));
    assert!(!body.contains("<i>fell") && !body.contains("Dr <b>"), "escaped");
    let post = |form: &'static str| clinic.post(Some(Role::PrivacyOfficer), "/reviews/r1", form, "same-origin");
    assert_eq!(
        post("csrf=csrf-privacy-officer&verdict=maybe&note=long+enough").await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        post("csrf=x&verdict=justified&note=long+enough").await.0,
        StatusCode::BAD_REQUEST
    );
    let done = post("csrf=csrf-privacy-officer&verdict=not-justified&note=no+treatment").await;
    assert_eq!((done.0, location(&done.1)), (StatusCode::SEE_OTHER, "/reviews"));
    let asked = clinic.fake.asked.lock();
    let decided: Vec<&str> = asked
        .iter()
        .map(|(w, ..)| w.as_str())
        .filter(|w| w.starts_with("review "))
        .collect();
    assert_eq!(decided, ["review r1 false no treatment"]);
}

//! AZ-1, AZ-2 over HTTP: what each role may do, and that one patient's token finds nothing of another patient, by no path.
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
use std::collections::{BTreeSet, HashMap, HashSet};
use support::{Client, Folder, Server, observation, treated};

/// Two patients with the same kinds of resources.
struct Two {
    server: Server,
    mine: Vec<(String, String)>,
    theirs: Vec<(String, String)>,
    _folder: Folder,
}

fn chart(client: &mut Client, family: &str) -> Vec<(String, String)> {
    let id = client.create(&treated(family, "P"));
    let subject = json!({"reference": format!("Patient/{id}")});
    let mut made = vec![("Patient".to_owned(), id.clone())];
    for resource in [
        observation(&id, "1-1", 1.0),
        json!({"resourceType": "Condition", "subject": subject, "code": {"text": family}, "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]}}),
        json!({"resourceType": "AllergyIntolerance", "patient": subject, "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical", "code": "active"}]}}),
        json!({"resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"}, "subject": subject}),
        json!({"resourceType": "MedicationRequest", "status": "active", "intent": "order", "subject": subject, "medicationCodeableConcept": {"text": family}}),
        json!({"resourceType": "Coverage", "status": "active", "beneficiary": subject, "payor": [{"display": "Payer"}]}),
        json!({"resourceType": "Claim", "status": "active", "type": {"text": "x"}, "use": "claim", "patient": subject, "created": "2024-01-01", "provider": {"display": "x"}, "priority": {"text": "normal"}, "insurance": [{"sequence": 1, "focal": true, "coverage": {"display": "x"}}]}),
        json!({"resourceType": "DocumentReference", "status": "current", "subject": subject, "content": [{"attachment": {"contentType": "text/plain", "data": "aGk="}}]}),
        json!({"resourceType": "Binary", "contentType": "text/plain", "securityContext": subject, "data": "aGk="}),
        json!({"resourceType": "Composition", "status": "final", "type": {"text": "note"}, "subject": subject, "date": "2024-01-01", "author": [{"display": "x"}], "title": family}),
    ] {
        let kind = resource["resourceType"].as_str().unwrap().to_owned();
        let id = client.create(&resource);
        made.push((kind, id));
    }
    made
}

fn two() -> Two {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut client = server.client();
    let mine = chart(&mut client, "Mine");
    let theirs = chart(&mut client, "Theirs");
    Two {
        server,
        mine,
        theirs,
        _folder: folder,
    }
}

fn patient_client(world: &Two) -> Client {
    let token = world.server.issue(&[
        "--role",
        "patient",
        "--user",
        "mine",
        "--patient",
        &world.mine[0].1,
        "--ttl",
        "1h",
    ]);
    world.server.client_with(&token)
}

#[test]
fn a_patient_reads_the_own_chart_and_nothing_of_another() {
    let world = two();
    let mut client = patient_client(&world);
    let mut unseen = Vec::new();
    for (kind, id) in &world.mine {
        let status = client.get(&format!("/fhir/{kind}/{id}")).status;
        if status != 200 {
            unseen.push(format!("{kind}: {status}"));
        }
    }
    println!("of the own chart not readable: {unseen:?}");
    assert!(
        !unseen.iter().any(|line| [
            "Patient",
            "Observation",
            "Condition",
            "AllergyIntolerance",
            "MedicationRequest",
            "Encounter"
        ]
        .iter()
        .any(|kind| line.starts_with(&format!("{kind}:")))),
        "{unseen:?}"
    );

    let mut leaks = Vec::new();
    let secret_ids: Vec<&str> = world.theirs.iter().map(|(_, id)| id.as_str()).collect();
    let mut probe = |client: &mut Client, method: &str, path: &str, body: Option<&Value>| {
        let body = body.map(Value::to_string);
        let answer = client.send(method, path, &[], body.as_deref().map(str::as_bytes));
        let text = answer.text();
        // `self` echoes what was asked, in its own words; content of the other's chart must stand nowhere.
        if text.replace(path, "").contains("Theirs")
            || answer.json()["entry"].as_array().is_some_and(|entries| {
                entries
                    .iter()
                    .any(|entry| secret_ids.iter().any(|id| entry["resource"]["id"] == *id))
            })
        {
            leaks.push(format!(
                "{method} {path}: {}",
                text.chars().take(300).collect::<String>()
            ));
        }
        answer
    };
    for (kind, id) in &world.theirs {
        let none = probe(&mut client, "GET", &format!("/fhir/{kind}/does-not-exist"), None);
        for path in [
            format!("/fhir/{kind}/{id}"),
            format!("/fhir/{kind}/{id}/_history"),
            format!("/fhir/{kind}/{id}/_history/1"),
        ] {
            let answer = probe(&mut client, "GET", &path, None);
            // Not yours is not there: the same code and the same words as for an id that never was.
            assert_eq!(answer.status, none.status, "{path}: {}", answer.text());
            assert_eq!(
                answer.text().replace(id.as_str(), "does-not-exist"),
                none.text(),
                "{path}"
            );
        }
        let resource = json!({"resourceType": kind, "id": id});
        for (method, path, body) in [
            ("PUT", format!("/fhir/{kind}/{id}"), Some(&resource)),
            ("DELETE", format!("/fhir/{kind}/{id}"), None),
            ("GET", format!("/fhir/{kind}?_id={id}"), None),
            ("GET", format!("/fhir/{kind}?_id={id}&_summary=count"), None),
            ("GET", format!("/fhir/{kind}"), None),
        ] {
            let answer = probe(&mut client, method, &path, body);
            if method != "GET" {
                assert!(
                    (400..500).contains(&answer.status),
                    "{method} {path}: {}",
                    answer.status
                );
            } else if answer.status == 200 {
                let total = answer.json()["total"].as_u64();
                assert!(
                    total.is_none() || total == Some(u64::from(!path.contains("_id="))),
                    "{path}: {}",
                    answer.text()
                );
            }
        }
    }
    let (mine, theirs) = (&world.mine[0].1, &world.theirs[0].1);
    for path in [
        format!("/fhir/Patient/{theirs}/$everything"),
        format!("/fhir/Patient/{theirs}/Observation"),
        format!("/fhir/Patient/{theirs}/*"),
        format!("/fhir/Observation?patient={theirs}"),
        format!("/fhir/Observation?subject=Patient/{theirs}&_include=Observation:subject"),
        "/fhir/Observation?patient.family=Theirs".to_owned(),
        "/fhir/Observation?subject:Patient.name=Theirs".to_owned(),
        "/fhir/Patient?_has:Observation:patient:code=1-1".to_owned(),
        "/fhir/Patient?_revinclude=Observation:patient".to_owned(),
        "/fhir/Patient?_sort=family&_count=1".to_owned(),
        "/fhir/Patient?_total=accurate".to_owned(),
        "/fhir/Observation?_lastUpdated=ge2000".to_owned(),
        "/fhir/_history".to_owned(),
        "/fhir/Patient/_history".to_owned(),
        format!("/fhir/Patient/{theirs}/$access-log"),
    ] {
        let answer = probe(&mut client, "GET", &path, None);
        assert!(answer.status < 500, "{path}: {}", answer.text());
        if answer.status == 200 && path.contains("_total") {
            assert_eq!(answer.json()["total"], 1, "{path}");
        }
    }
    // The other's ids in bodies: conditional create, references, batch.
    let batch = json!({"resourceType": "Bundle", "type": "batch", "entry": [
        {"request": {"method": "GET", "url": format!("Patient/{theirs}")}},
        {"request": {"method": "GET", "url": format!("Observation?patient={theirs}")}},
        {"resource": observation(theirs, "1-1", 9.0), "request": {"method": "POST", "url": "Observation"}},
    ]});
    let answer = probe(&mut client, "POST", "/fhir", Some(&batch));
    if answer.status == 200 {
        let body = answer.json();
        assert!(
            !body["entry"][2]["response"]["status"]
                .as_str()
                .unwrap()
                .starts_with('2'),
            "{body}"
        );
    }
    let obs = observation(theirs, "1-1", 9.0);
    let answer = probe(&mut client, "POST", "/fhir/Observation", Some(&obs));
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    assert!(leaks.is_empty(), "{leaks:#?}");
    // And the other patient's chart is untouched.
    let mut all = world.server.client();
    assert_eq!(all.matches(&format!("Observation?patient={theirs}")).len(), 1);
    assert_eq!(all.matches(&format!("Observation?patient={mine}")).len(), 1);
}

/// The golden table of `policies/`: for each label ("" = none) and (class, role, action) the relations for which it is
/// permitted; and the chart's acts by (role, action).
struct Golden {
    roles: Vec<String>,
    cells: HashMap<(String, String, String, String), String>,
    chart: HashMap<(String, String), String>,
}

impl Golden {
    fn read() -> Self {
        let policies = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
        let table = std::fs::read_to_string(policies.join("authorization-table.txt")).expect("policies");
        let mut golden = Self {
            roles: Vec::new(),
            cells: HashMap::new(),
            chart: HashMap::new(),
        };
        for section in table.split("\n## ").skip(1) {
            let title = section.lines().next().unwrap_or_default();
            let label = match title {
                "Resources by data class" => Some(""),
                "Acts upon one patient's chart" => None,
                other => match other.strip_prefix("Resources labelled `") {
                    Some(label) => Some(label.trim_end_matches('`')),
                    None => continue,
                },
            };
            let mut lines = section.lines().skip(1).filter(|line| !line.trim().is_empty());
            let head = lines.next().expect("a head");
            let roles: Vec<String> = head
                .split_whitespace()
                .filter(|word| !["class", "actions"].contains(word))
                .map(str::to_owned)
                .collect();
            for line in lines {
                let words: Vec<&str> = line.split_whitespace().collect();
                // A row for some types of a class (`identity: Patient`) stands before that of the others.
                let words = match words.iter().rposition(|word| word.ends_with(':')) {
                    Some(_) => {
                        let types = words.iter().take_while(|word| !is_cell(word)).count();
                        let mut row = vec![words[types - 1]];
                        row.extend(&words[types..]);
                        row
                    }
                    None => words,
                };
                for (role, cell) in roles.iter().zip(&words[1..]) {
                    for action in &words[1 + roles.len()..] {
                        let (role, action, cell) = (role.clone(), (*action).to_owned(), (*cell).to_owned());
                        match label {
                            Some(label) => golden
                                .cells
                                .insert((label.to_owned(), words[0].to_owned(), role, action), cell),
                            None => golden.chart.insert((role, action), cell),
                        };
                    }
                }
            }
            golden.roles = roles;
        }
        golden
    }

    fn may(&self, label: &str, class: &str, role: &str, action: &str, relation: char) -> bool {
        let key = (label.to_owned(), class.to_owned(), role.to_owned(), action.to_owned());
        let cell = self.cells.get(&key).unwrap_or_else(|| panic!("no cell {key:?}"));
        cell.contains(relation)
    }
}

/// Whether a word of the table is a list of relations.
fn is_cell(word: &str) -> bool {
    word == "." || word.chars().all(|c| "orpeun".contains(c))
}

/// Whose a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Mine,
    Theirs,
    Nobody,
}

/// One resource of the matrix.
struct Case {
    class: &'static str,
    label: &'static str,
    whose: Whose,
    kind: String,
    id: String,
    body: Value,
}

impl Case {
    fn path(&self) -> String {
        format!("{}/{}", self.kind, self.id)
    }
}

/// Who asks: a column of the table and its token.
struct Asker {
    role: String,
    token: String,
}

impl Asker {
    /// How this one stands to what is `whose`, as far as it can be made over HTTP.
    fn relation(&self, whose: Whose) -> char {
        match (self.role.as_str(), whose) {
            (_, Whose::Nobody) => 'n',
            ("patient" | "patient/*", Whose::Mine) => 'o',
            ("patient" | "patient/*" | "system/*" | "user/*", _) | ("physician" | "nurse", Whose::Theirs) => 'u',
            _ => 'r',
        }
    }
}

/// The labels of the table and what puts a resource under them.
const LABELS: [(&str, &str, &str); 4] = [
    ("", "", ""),
    ("restricted", "v3-Confidentiality", "R"),
    ("part-2", "v3-ActCode", "ETH"),
    ("psychotherapy", "v3-ActCode", "PSYTHPN"),
];

/// The two patients, a resource of each class and label of each and of nobody, and those who ask.
struct Matrix {
    server: Server,
    golden: Golden,
    patients: [String; 2],
    cases: Vec<Case>,
    askers: Vec<Asker>,
    _folder: Folder,
}

fn matrix() -> Matrix {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let golden = Golden::read();
    let mut client = server.client();
    let patients = [
        client.create(&treated("Mine", "P")),
        client.create(&support::patient("Theirs", "P")),
    ];
    let mut cases = Vec::new();
    for (label, system, code) in LABELS {
        for whose in [Whose::Mine, Whose::Theirs, Whose::Nobody] {
            let of = match whose {
                Whose::Mine => Some(patients[0].as_str()),
                Whose::Theirs => Some(patients[1].as_str()),
                Whose::Nobody => None,
            };
            let mut all = support::classes::patient_data(of, "matrix");
            if whose == Whose::Nobody {
                all.extend(support::classes::reference_data("matrix"));
            }
            for (class, mut body) in all {
                if !label.is_empty() {
                    let system = format!("http://terminology.hl7.org/CodeSystem/{system}");
                    body["meta"] = json!({"security": [{"system": system, "code": code}]});
                }
                let kind = body["resourceType"].as_str().unwrap().to_owned();
                let id = client.create(&body);
                body["id"] = json!(id);
                cases.push(Case {
                    class,
                    label,
                    whose,
                    kind,
                    id,
                    body,
                });
            }
        }
    }
    let askers = golden
        .roles
        .iter()
        .filter(|role| *role != "job") // no token can be one
        .map(|role| {
            let scope = format!("{role}.cruds");
            let mut arguments = vec!["--user", user_of(role), "--ttl", "1h"];
            match role.as_str() {
                "system/*" | "user/*" => arguments.extend(["--scope", &scope]),
                "patient/*" => arguments.extend(["--scope", &scope, "--patient", &patients[0]]),
                "patient" => arguments.extend(["--role", "patient", "--patient", &patients[0]]),
                person => arguments.extend(["--role", person]),
            }
            Asker {
                role: role.clone(),
                token: server.issue(&arguments),
            }
        })
        .collect();
    Matrix {
        server,
        golden,
        patients,
        cases,
        askers,
        _folder: folder,
    }
}

/// What was asked and what came of it.
#[derive(Default)]
struct Tally {
    cells: usize,
    wrong: Vec<String>,
    routes: HashSet<(&'static str, &'static str)>,
}

impl Tally {
    /// One cell: `done` must be what the table says.
    fn cell(&mut self, may: bool, done: bool, what: impl FnOnce() -> String) {
        self.cells += 1;
        if may != done {
            self.wrong
                .push(format!("{}: {}", what(), if done { "done" } else { "refused" }));
        }
    }

    fn merge(&mut self, other: Self) {
        self.cells += other.cells;
        self.wrong.extend(other.wrong);
        self.routes.extend(other.routes);
    }
}

/// The ids of the resources in a Bundle of any kind.
fn ids(bundle: &Value) -> HashSet<String> {
    let entries = bundle["entry"].as_array().into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry["resource"]["id"].as_str()?.to_owned()))
        .collect()
}

fn in_bundle(kind: &str, method: &str, url: &str, resource: Option<&Value>) -> Value {
    let mut entry = json!({"request": {"method": method, "url": url}});
    if let Some(resource) = resource {
        entry["resource"] = resource.clone();
    }
    json!({"resourceType": "Bundle", "type": kind, "entry": [entry]})
}

/// The status of a Bundle's one entry: of its response, or of the whole where a transaction was refused for it.
fn entry_status(answer: &support::Answer) -> u16 {
    match answer.json()["entry"][0]["response"]["status"].as_str() {
        Some(status) => status.split(' ').next().unwrap().parse().unwrap(),
        None => answer.status,
    }
}

const PATCH: &str = r#"[{"op": "add", "path": "/language", "value": "en"}]"#;

fn patched(client: &mut Client, path: &str) -> u16 {
    let headers = [("Content-Type", "application/json-patch+json")];
    client.send("PATCH", path, &headers, Some(PATCH.as_bytes())).status
}

/// A refusal is 403 or 404: nothing else says that a policy stood in the way.
fn refusal(tally: &mut Tally, status: u16, what: impl FnOnce() -> String) {
    if !(200..300).contains(&status) && ![403, 404].contains(&status) {
        tally.wrong.push(format!("{}: {status}", what()));
    }
}

/// All cells of one column that only show.
fn views(matrix: &Matrix, asker: &Asker, tally: &mut Tally) {
    let mut client = matrix.server.client_with(&asker.token);
    let may = |case: &Case, action: &str| {
        let relation = asker.relation(case.whose);
        matrix.golden.may(case.label, case.class, &asker.role, action, relation)
    };
    let what =
        |case: &Case, how: &str| format!("{} {how} {} {:?} `{}`", asker.role, case.class, case.whose, case.label);
    let form = [("Content-Type", "application/x-www-form-urlencoded")];

    // Whole listings once, then each resource is looked for in them.
    let system = client.get("/fhir/_history?_count=1000");
    assert!(ids(&system.json()).len() < 1000);
    tally.routes.insert(("GET", "/_history"));
    let everything = matrix.patients.each_ref().map(|id| {
        let answer = client.get(&format!("/fhir/Patient/{id}/$everything?_count=1000"));
        refusal(tally, answer.status, || format!("{} $everything", asker.role));
        answer.json()
    });
    tally.routes.insert(("GET", "/Patient/{id}/$everything"));
    let system = ids(&system.json());
    let everything = everything.each_ref().map(ids);
    let kinds: BTreeSet<(&str, &str)> = matrix
        .cases
        .iter()
        .map(|case| (case.kind.as_str(), case.class))
        .collect();
    let mut listed: HashMap<(&str, &str), HashSet<String>> = HashMap::new();
    for (kind, _) in &kinds {
        for (how, path) in [
            ("history-type", format!("{kind}/_history?_count=1000")),
            ("search", format!("{kind}?_count=1000")),
        ] {
            let answer = client.get(&format!("/fhir/{path}"));
            refusal(tally, answer.status, || format!("{} {path}", asker.role));
            listed.insert((kind, how), ids(&answer.json()));
        }
    }
    tally.routes.extend([("GET", "/{type}/_history"), ("GET", "/{type}")]);

    for case in &matrix.cases {
        let path = case.path();
        for (action, way, route) in [
            ("read", path.clone(), "/{type}/{id}"),
            ("vread", format!("{path}/_history/1"), "/{type}/{id}/_history/{vid}"),
            ("history-instance", format!("{path}/_history"), "/{type}/{id}/_history"),
            ("lineage", format!("{path}/$provenance"), "/{type}/{id}/$provenance"),
        ] {
            let answer = client.get(&format!("/fhir/{way}"));
            tally.routes.insert(("GET", route));
            refusal(tally, answer.status, || what(case, &way));
            tally.cell(may(case, action), answer.status == 200, || what(case, action));
            if !matches!(action, "lineage") && case.label.is_empty() {
                for kind in ["batch", "transaction"] {
                    let answer = client.post("/fhir", &in_bundle(kind, "GET", &way, None));
                    tally.routes.insert(("POST", "/"));
                    let status = entry_status(&answer);
                    refusal(tally, status, || what(case, kind));
                    tally.cell(may(case, action), status == 200, || {
                        what(case, &format!("{action} in a {kind}"))
                    });
                }
            }
        }
        tally.cell(may(case, "history-system"), system.contains(&case.id), || {
            what(case, "history-system")
        });
        for how in ["history-type", "search"] {
            let found = listed[&(case.kind.as_str(), how)].contains(&case.id);
            tally.cell(may(case, how), found, || what(case, how));
        }
        if case.whose != Whose::Nobody {
            let at = usize::from(case.whose == Whose::Theirs);
            let whole = matrix
                .golden
                .may("", "identity", &asker.role, "everything", asker.relation(case.whose));
            let found = everything[at].contains(&case.id);
            tally.cell(whole && may(case, "everything"), found, || what(case, "everything"));
            let in_compartment = format!("/fhir/Patient/{}/{}", matrix.patients[at], case.kind);
            let query = format!("_id={}", case.id);
            for (way, answer, route) in [
                (
                    "compartment search",
                    client.get(&format!("{in_compartment}?{query}")),
                    ("GET", "/{type}/{id}/{member}"),
                ),
                (
                    "compartment search by POST",
                    client.send(
                        "POST",
                        &format!("{in_compartment}/_search"),
                        &form,
                        Some(query.as_bytes()),
                    ),
                    ("POST", "/{type}/{id}/{member}/_search"),
                ),
            ] {
                tally.routes.insert(route);
                refusal(tally, answer.status, || what(case, way));
                tally.cell(may(case, "search"), ids(&answer.json()).contains(&case.id), || {
                    what(case, way)
                });
            }
        }
        let query = format!("_id={}", case.id);
        let answer = client.send(
            "POST",
            &format!("/fhir/{}/_search", case.kind),
            &form,
            Some(query.as_bytes()),
        );
        tally.routes.insert(("POST", "/{type}/_search"));
        refusal(tally, answer.status, || what(case, "_search"));
        tally.cell(may(case, "search"), ids(&answer.json()).contains(&case.id), || {
            what(case, "search by POST")
        });
        let answer = client.get(&format!("/fhir/{}?{query}&_summary=count", case.kind));
        tally.cell(may(case, "search"), answer.json()["total"] == 1, || what(case, "count"));
    }

    // The patient's own resource, whose chart it is, and what everyone may do.
    for (at, whose) in [(0, Whose::Mine), (1, Whose::Theirs)] {
        let id = &matrix.patients[at];
        let relation = asker.relation(whose);
        for (action, way) in [
            ("read", format!("Patient/{id}")),
            ("vread", format!("Patient/{id}/_history/1")),
            ("history-instance", format!("Patient/{id}/_history")),
            ("lineage", format!("Patient/{id}/$provenance")),
            ("everything", format!("Patient/{id}/$everything")),
        ] {
            let answer = client.get(&format!("/fhir/{way}"));
            refusal(tally, answer.status, || format!("{} {way}", asker.role));
            let may = matrix.golden.may("", "identity", &asker.role, action, relation);
            tally.cell(may, answer.status == 200, || {
                format!("{} {action} Patient {whose:?}", asker.role)
            });
        }
        let answer = client.get(&format!("/fhir/Patient/{id}/$access-log"));
        tally.routes.insert(("GET", "/Patient/{id}/$access-log"));
        refusal(tally, answer.status, || format!("{} $access-log", asker.role));
        let cell = &matrix.golden.chart[&(asker.role.clone(), "access-log".to_owned())];
        tally.cell(cell.contains(relation), answer.status == 200, || {
            format!("{} $access-log {whose:?}", asker.role)
        });
    }
    // A request without what it needs: whoever may is told what is missing (400), everybody else is refused.
    let nothing = json!({"resourceType": "Parameters"});
    for (at, whose) in [(0, Whose::Mine), (1, Whose::Theirs)] {
        for (action, route) in [
            ("break-glass", "/Patient/{id}/$break-glass"),
            ("state-reason", "/Patient/{id}/$state-reason"),
        ] {
            let answer = client.post(&format!("/fhir/Patient/{}/${action}", matrix.patients[at]), &nothing);
            tally.routes.insert(("POST", route));
            let cell = &matrix.golden.chart[&(asker.role.clone(), action.to_owned())];
            tally.cell(cell.contains(asker.relation(whose)), answer.status == 400, || {
                format!("{} ${action} {whose:?} ({})", asker.role, answer.status)
            });
        }
        let answer = client.post(&format!("/fhir/Patient/{}/$end-access", matrix.patients[at]), &nothing);
        tally.routes.insert(("POST", "/Patient/{id}/$end-access"));
        // There is none to end: nobody ends one, whoever may.
        tally.cell(false, answer.status == 200, || {
            format!("{} $end-access {whose:?}", asker.role)
        });
    }
    // Of a time long past: whoever may is told that it cannot be (400), or that there is no cover to take back (404).
    let past = json!({"resourceType": "Parameters", "parameter": [
        {"name": "colleague", "valueString": "nobody"},
        {"name": "from", "valueInstant": "2020-01-01T00:00:00Z"}, {"name": "until", "valueInstant": "2020-01-01T00:00:00Z"}]});
    for action in ["sign-on", "let-cover"] {
        let answer = client.post(&format!("/fhir/${action}"), &past);
        let clinician = matches!(asker.role.as_str(), "physician" | "nurse");
        tally.cell(clinician, matches!(answer.status, 400 | 404), || {
            format!("{} ${action} ({})", asker.role, answer.status)
        });
    }
    tally.routes.extend([("POST", "/$sign-on"), ("POST", "/$let-cover")]);
    let body = json!({"resourceType": "Organization", "id": "x", "name": "N"});
    for (method, path, route) in [
        ("GET", "/fhir/metadata", "/metadata"),
        ("POST", "/fhir/$validate", "/$validate"),
        ("POST", "/fhir/Organization/$validate", "/{type}/$validate"),
        ("POST", "/fhir/Organization/x/$validate", "/{type}/{id}/$validate"),
    ] {
        let text = body.to_string();
        let answer = client.send(method, path, &[], (method == "POST").then_some(text.as_bytes()));
        tally.routes.insert((method, route));
        tally.cell(true, answer.status == 200, || format!("{} {path}", asker.role));
    }
}

/// All cells of one column that change something. Each column changes resources of its own.
fn writes(matrix: &Matrix, asker: &Asker, tally: &mut Tally) {
    let mut client = matrix.server.client_with(&asker.token);
    let mut all = matrix.server.client();
    for case in &matrix.cases {
        let relation = asker.relation(case.whose);
        // Who needs no relationship stands to both patients alike.
        if case.whose == Whose::Theirs && relation == 'r' {
            continue;
        }
        let may = |action: &str| matrix.golden.may(case.label, case.class, &asker.role, action, relation);
        let what = |how: &str| format!("{} {how} {} {:?} `{}`", asker.role, case.class, case.whose, case.label);
        let fresh = |all: &mut Client| {
            let mut body = case.body.clone();
            body.as_object_mut().unwrap().remove("id");
            let id = all.create(&body);
            body["id"] = json!(id);
            (id, body)
        };
        let kind = &case.kind;
        let mut unborn = case.body.clone();
        unborn.as_object_mut().unwrap().remove("id");

        let answer = client.post(&format!("/fhir/{kind}"), &unborn);
        refusal(tally, answer.status, || what("create"));
        tally.cell(may("create"), answer.status == 201, || what("create"));
        let none = [("If-None-Exist", "_id=there-is-none")];
        let answer = client.send(
            "POST",
            &format!("/fhir/{kind}"),
            &none,
            Some(unborn.to_string().as_bytes()),
        );
        refusal(tally, answer.status, || what("conditional create"));
        tally.cell(may("create"), answer.status == 201, || what("conditional create"));
        tally.routes.insert(("POST", "/{type}"));
        for bundle in ["batch", "transaction"] {
            let answer = client.post("/fhir", &in_bundle(bundle, "POST", kind, Some(&unborn)));
            let status = entry_status(&answer);
            refusal(tally, status, || what(bundle));
            tally.cell(may("create"), status == 201, || what(&format!("create in a {bundle}")));
        }

        let (id, body) = fresh(&mut all);
        let path = format!("/fhir/{kind}/{id}");
        let version = |all: &mut Client| {
            all.get(&path).json()["meta"]["versionId"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let search = may("search");
        // Each writes something new, so that a change can be told from none.
        let mut round = 0;
        let mut changed =
            |tally: &mut Tally, all: &mut Client, how: &str, may: bool, act: &mut dyn FnMut(&Value) -> u16| {
                round += 1;
                let mut body = body.clone();
                body["implicitRules"] = json!(format!("http://example.org/round/{round}"));
                let before = version(all);
                let status = act(&body);
                let after = version(all);
                if !may && (200..300).contains(&status) && !how.contains("condition") {
                    tally.wrong.push(format!("{}: {status}", what(how)));
                }
                tally.cell(may, before != after, || what(&format!("{how} ({status})")));
            };
        changed(tally, &mut all, "update", may("update"), &mut |body| {
            client.put(&path, body).status
        });
        changed(
            tally,
            &mut all,
            "update on condition",
            search && may("update"),
            &mut |body| client.put(&format!("/fhir/{kind}?_id={id}"), body).status,
        );
        for bundle in ["batch", "transaction"] {
            changed(
                tally,
                &mut all,
                &format!("update in a {bundle}"),
                may("update"),
                &mut |body| {
                    entry_status(&client.post("/fhir", &in_bundle(bundle, "PUT", &format!("{kind}/{id}"), Some(body))))
                },
            );
        }
        tally.routes.extend([("PUT", "/{type}/{id}"), ("PUT", "/{type}")]);
        // A patch always finds something to add: the updates above have none of it.
        changed(tally, &mut all, "patch", may("patch"), &mut |_| {
            patched(&mut client, &path)
        });
        matrix.server.client().put(&path, &body).expect(200);
        changed(
            tally,
            &mut all,
            "patch on condition",
            search && may("patch"),
            &mut |_| patched(&mut client, &format!("/fhir/{kind}?_id={id}")),
        );
        for bundle in ["batch", "transaction"] {
            matrix.server.client().put(&path, &body).expect(200);
            let patch = json!({"resourceType": "Binary", "contentType": "application/json-patch+json", "data": support::base64(PATCH)});
            changed(
                tally,
                &mut all,
                &format!("patch in a {bundle}"),
                may("patch"),
                &mut |_| {
                    entry_status(&client.post(
                        "/fhir",
                        &in_bundle(bundle, "PATCH", &format!("{kind}/{id}"), Some(&patch)),
                    ))
                },
            );
        }
        tally.routes.extend([("PATCH", "/{type}/{id}"), ("PATCH", "/{type}")]);

        for (how, needs_search) in [
            ("delete", false),
            ("on condition", true),
            ("batch", false),
            ("transaction", false),
        ] {
            let (id, _) = fresh(&mut all);
            let url = format!("{kind}/{id}");
            let status = match how {
                "delete" => client.delete(&format!("/fhir/{url}")).status,
                "on condition" => client.delete(&format!("/fhir/{kind}?_id={id}")).status,
                bundle => entry_status(&client.post("/fhir", &in_bundle(bundle, "DELETE", &url, None))),
            };
            refusal(tally, status, || what(&format!("delete, {how}")));
            let gone = all.get(&format!("/fhir/{url}")).status == 410;
            let may = may("delete") && (!needs_search || search);
            tally.cell(may, gone, || what(&format!("delete, {how} ({status})")));
        }
        tally.routes.extend([("DELETE", "/{type}/{id}"), ("DELETE", "/{type}")]);
    }
}

/// Runs one part of the matrix with a thread for each column.
fn each_column(matrix: &Matrix, part: impl Fn(&Matrix, &Asker, &mut Tally) + Sync) -> Tally {
    let mut sum = Tally::default();
    std::thread::scope(|scope| {
        let part = &part;
        let threads: Vec<_> = matrix
            .askers
            .iter()
            .map(|asker| {
                scope.spawn(move || {
                    let mut tally = Tally::default();
                    part(matrix, asker, &mut tally);
                    tally
                })
            })
            .collect();
        for thread in threads {
            sum.merge(thread.join().expect("a column"));
        }
    });
    sum
}

/// Whom a token is for: a clinician's relationships are those of the account.
fn user_of(role: &str) -> &str {
    match role {
        "physician" => "amara.okafor",
        "nurse" => "tomas.echeverria",
        _ => "someone",
    }
}

#[test]
fn every_cell_of_the_table_is_asked_over_http_and_every_route_has_cells() {
    let matrix = matrix();
    let mut sum = each_column(&matrix, views);
    sum.merge(each_column(&matrix, writes));
    println!("{} cells of {} columns over HTTP", sum.cells, matrix.askers.len());
    assert!(
        sum.wrong.is_empty(),
        "{} wrong: {:#?}",
        sum.wrong.len(),
        &sum.wrong[..sum.wrong.len().min(60)]
    );
    let without: Vec<_> = keepwell_http::routes::ROUTES
        .iter()
        .filter(|route| !sum.routes.contains(&(route.method, route.path)))
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    assert!(without.is_empty(), "routes without cells: {without:?}");
}

#[test]
fn scopes_and_lifetimes_of_tokens_hold() {
    let world = two();
    let (kind, id) = &world.mine[1];
    let read_only = world.server.issue(&["--scope", "system/Observation.rs", "--ttl", "1h"]);
    let mut client = world.server.client_with(&read_only);
    client.get(&format!("/fhir/{kind}/{id}")).expect(200);
    client.get(&format!("/fhir/Observation?_id={id}")).expect(200);
    for answer in [
        client.post("/fhir/Observation", &observation(&world.mine[0].1, "1-1", 2.0)),
        client.delete(&format!("/fhir/{kind}/{id}")),
        client.get(&format!("/fhir/Patient/{}", world.mine[0].1)),
        client.get("/fhir/Patient"),
    ] {
        assert!(matches!(answer.status, 403 | 404), "{}", answer.status);
    }
    // What a scope leaves out is not reached by include or chain either.
    let included = client.get("/fhir/Observation?_include=Observation:subject");
    assert!(!included.text().contains("\"family\""), "{}", included.text());
    let chained = client.get("/fhir/Observation?subject:Patient.family=Mine");
    assert!(
        chained.status != 200 || chained.json()["entry"].as_array().is_none_or(Vec::is_empty),
        "{}",
        chained.text()
    );

    let short = world.server.issue(&["--scope", "system/*.cruds", "--ttl", "1s"]);
    std::thread::sleep(std::time::Duration::from_millis(2500));
    world.server.client_with(&short).get("/fhir/Patient").refused(401);
}

//! AZ-2 over every type that can belong to a patient: two patients, tokens of one. By no path, parameter, count, order or
//! condition does anything of the other come out, and what is not theirs looks like what is not there.
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

use keepwell_model::types::ResourceType;
use keepwell_search::definition::{Kind, Storage};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use support::{Answer, Client, Server, data, patient};

/// In the meta of everything of the other patient, and in nothing else.
const MARK: &str = "theirs-mark";
/// An id that never was.
const ABSENT: &str = "absent-0";

/// A resource that stands twice in the record: once for each patient.
struct Pair {
    kind: String,
    mine: String,
    theirs: String,
}

/// Whether a type can be in a patient's compartment.
fn of_patients(kind: &str) -> bool {
    let patient = ResourceType::from_name("Patient").expect("a type");
    ResourceType::from_name(kind).is_some_and(|t| keepwell_search::definition::compartment(patient, t).is_some())
}

/// The texts of resources of types that a patient's compartment can hold, each of some patient, by type.
fn templates() -> BTreeMap<String, Vec<Value>> {
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (_, body) in support::classes::patient_data(Some("x"), "compartments") {
        let kind = body["resourceType"].as_str().unwrap().to_owned();
        found.entry(kind).or_default().push(body);
    }
    // Types of which no official example is of a patient.
    let whose = support::classes::subject(Some("x"));
    for body in [
        json!({"resourceType": "DeviceUseStatement", "status": "active", "subject": whose, "device": {"display": "d"}}),
        json!({"resourceType": "Schedule", "actor": [whose]}),
        json!({"resourceType": "SupplyDelivery", "status": "completed", "patient": whose}),
        json!({"resourceType": "SupplyRequest", "status": "active", "deliverTo": whose,
            "itemCodeableConcept": {"text": "i"}, "quantity": {"value": 1}}),
    ] {
        let kind = body["resourceType"].as_str().unwrap().to_owned();
        found.entry(kind).or_default().push(body);
    }
    let each = usize::try_from(support::setting("KEEPWELL_EXAMPLES", 1)).unwrap();
    if let Some(folder) = data::set(
        "fhir-r4-examples",
        741,
        "official examples of types in a patient's compartment",
    ) {
        for (_, bytes) in data::tar_zst(&folder.join("examples-instances.tar.zst")) {
            let Ok(body) = serde_json::from_slice::<Value>(&bytes) else {
                continue;
            };
            let kind = body["resourceType"].as_str().unwrap_or_default().to_owned();
            let of_a_patient = body.to_string().contains("\"reference\":\"Patient/");
            if of_patients(&kind) && kind != "Patient" && of_a_patient {
                let list = found.entry(kind).or_default();
                if list.len() < each {
                    list.push(body);
                }
            }
        }
    }
    found
}

/// The same with every reference to a patient turned to this one.
fn belonging_to(body: &Value, owner: &str, id: &str, mark: &str) -> Value {
    fn turn(value: &mut Value, owner: &str) {
        match value {
            Value::String(text) if text.starts_with("Patient/") => *text = format!("Patient/{owner}"),
            Value::Array(items) => items.iter_mut().for_each(|item| turn(item, owner)),
            Value::Object(members) => members.values_mut().for_each(|member| turn(member, owner)),
            _ => {}
        }
    }
    let mut body = body.clone();
    turn(&mut body, owner);
    body["id"] = json!(id);
    body["meta"] = json!({"tag": [{"system": "http://clinic.example/tag", "code": mark}]});
    body
}

struct World {
    server: Server,
    mine: String,
    theirs: String,
    pairs: Vec<Pair>,
}

fn world() -> World {
    let server = Server::empty();
    let mut all = server.client();
    let (mut me, mut them) = (patient("Mine", "P"), patient("Theirs", "P"));
    me["meta"] = json!({"tag": [{"code": "mine-mark"}]});
    them["meta"] = json!({"tag": [{"code": MARK}]});
    let (mine, theirs) = (all.create(&me), all.create(&them));
    let me = server.issue(&["--role", "patient", "--user", "mine", "--ttl", "1h", "--patient", &mine]);
    let mut me = server.client_with(&me);
    let (mut pairs, mut not_taken, mut not_theirs) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, bodies) in templates() {
        for (n, body) in bodies.iter().enumerate() {
            let pair = Pair {
                mine: format!("mine-{kind}-{n}"),
                theirs: format!("theirs-{kind}-{n}"),
                kind: kind.clone(),
            };
            let made = all.put(
                &format!("/fhir/{kind}/{}", pair.mine),
                &belonging_to(body, &mine, &pair.mine, "mine-mark"),
            );
            if made.status != 201 {
                not_taken.push(format!("{kind} {n}: {}", made.status));
                continue;
            }
            let body = belonging_to(body, &theirs, &pair.theirs, MARK);
            all.put(&format!("/fhir/{kind}/{}", pair.theirs), &body).expect(201);
            // What names a patient somewhere is not always the patient's: such a one is nobody's to see here.
            if me.get(&format!("/fhir/{kind}/{}", pair.mine)).status == 200 {
                pairs.push(pair);
            } else {
                for id in [&pair.mine, &pair.theirs] {
                    all.delete(&format!("/fhir/{kind}/{id}")).expect(204);
                }
                not_theirs.push(kind.clone());
            }
        }
    }
    println!("names a patient and is not in the own record: {not_theirs:?}");
    if !not_taken.is_empty() {
        println!("SKIPPED {} examples that break R4: {not_taken:?}", not_taken.len());
    }
    // A list of mine that points at everything of the other: includes and chains start from it.
    let entries: Vec<Value> = pairs
        .iter()
        .map(|pair| json!({"item": {"reference": format!("{}/{}", pair.kind, pair.theirs)}}))
        .collect();
    let list = json!({"resourceType": "List", "id": "mine-List-all", "status": "current", "mode": "working",
        "subject": {"reference": format!("Patient/{mine}")}, "entry": entries});
    all.put("/fhir/List/mine-List-all", &list).expect(201);
    World {
        server,
        mine,
        theirs,
        pairs,
    }
}

/// Takes out when a Bundle was made; nothing else of such an answer has a time.
fn without_moments(body: &mut Value) {
    match body {
        Value::Array(items) => items.iter_mut().for_each(without_moments),
        Value::Object(members) => {
            members.remove("lastUpdated");
            members.values_mut().for_each(without_moments);
        }
        _ => {}
    }
}

/// What may differ between the answers about two ids: the ids, and what is of the moment.
fn shape(answer: &Answer, id: &str, owner: &str) -> (u16, Vec<(String, String)>, String) {
    let neutral = |text: &str| {
        let text = text.replace(id, "ID").replace(owner, "ID");
        text.replace(MARK, "MARK").replace("absent-mark", "MARK")
    };
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| {
            !["date", "x-request-id", "content-length", "last-modified"].contains(&name.to_lowercase().as_str())
        })
        .map(|(name, value)| (name.to_lowercase(), neutral(value)))
        .collect();
    headers.sort();
    let mut body = answer.json();
    without_moments(&mut body);
    (answer.status, headers, neutral(&body.to_string()))
}

/// A path or body about an id and the patient it is of.
type About<'a> = dyn Fn(&str, &str) -> String + 'a;

struct Prober<'w> {
    world: &'w World,
    client: Client,
    who: &'static str,
    requests: usize,
    leaks: Vec<String>,
}

impl Prober<'_> {
    fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        self.requests += 1;
        let answer = self.client.send(method, path, headers, body.map(str::as_bytes));
        if answer.status >= 500 {
            self.leaks
                .push(format!("{} {method} {path}: {}", self.who, answer.text()));
        }
        // The mark stands in content only; an id may be echoed in `self` as it was asked for.
        let text = answer.text();
        let entries = answer.json();
        let shown = entries["entry"].as_array().into_iter().flatten().any(|entry| {
            entry["resource"]["id"]
                .as_str()
                .is_some_and(|id| id.starts_with("theirs-") || id == self.world.theirs)
        });
        let asked = path.contains(MARK) || body.is_some_and(|body| body.contains(MARK));
        if shown || (!asked && text.contains(MARK)) {
            self.leaks.push(format!(
                "{} {method} {path}: shows {}",
                self.who,
                text.chars().take(300).collect::<String>()
            ));
        }
        answer
    }

    fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, &[], None)
    }

    /// Asks with an id of the other patient's and with one that never was: no difference.
    fn same(&mut self, pair: &Pair, method: &str, how: impl Fn(&str, &str) -> String, body: Option<&About>) {
        let (theirs, owner) = (pair.theirs.clone(), self.world.theirs.clone());
        let mut one = |id: &str, owner: &str| {
            let path = how(id, owner);
            let body = body.map(|body| body(id, owner));
            let patch = [("Content-Type", "application/json-patch+json")];
            let headers: &[(&str, &str)] = if method == "PATCH" { &patch } else { &[] };
            shape(&self.ask(method, &path, headers, body.as_deref()), id, owner)
        };
        let (not_mine, not_there) = (one(&theirs, &owner), one(ABSENT, ABSENT));
        if not_mine != not_there {
            self.leaks.push(format!(
                "{} {method} {} differs from what is not there:\n  {not_mine:?}\n  {not_there:?}",
                self.who,
                how(&theirs, &owner)
            ));
        }
    }
}

/// The reference parameters of a type that chains and includes work over.
fn references(kind: &str) -> Vec<(&'static str, bool)> {
    let t = ResourceType::from_name(kind).expect("a type");
    let to_patients = |p: &keepwell_search::definition::Param| p.targets.iter().any(|t| t.name() == "Patient");
    keepwell_search::definition::params(t)
        .iter()
        .filter(|p| p.kind == Kind::Reference && p.storage == Storage::Stored && !p.canonical)
        .map(|p| (p.code, to_patients(p)))
        .collect()
}

fn bundle(kind: &str, method: &str, url: &str) -> String {
    json!({"resourceType": "Bundle", "type": kind, "entry": [{"request": {"method": method, "url": url}}]}).to_string()
}

fn probe(prober: &mut Prober<'_>, pair: &Pair) {
    let kind = pair.kind.as_str();
    // By id: every view, every write that names one.
    for path in ["", "/_history", "/_history/1", "/$provenance"] {
        prober.same(pair, "GET", |id, _| format!("/fhir/{kind}/{id}{path}"), None);
    }
    prober.same(pair, "HEAD", |id, _| format!("/fhir/{kind}/{id}"), None);
    let patch = |_: &str, _: &str| r#"[{"op": "add", "path": "/language", "value": "en"}]"#.to_owned();
    prober.same(pair, "PATCH", |id, _| format!("/fhir/{kind}/{id}"), Some(&patch));
    prober.same(pair, "PATCH", |id, _| format!("/fhir/{kind}?_id={id}"), Some(&patch));
    prober.same(pair, "DELETE", |id, _| format!("/fhir/{kind}/{id}"), None);
    prober.same(pair, "DELETE", |id, _| format!("/fhir/{kind}?_id={id}"), None);
    for way in ["batch", "transaction"] {
        for url in ["", "/_history", "/_history/1"] {
            let body = |id: &str, _: &str| bundle(way, "GET", &format!("{kind}/{id}{url}"));
            prober.same(pair, "POST", |_, _| "/fhir".to_owned(), Some(&body));
        }
        let body = |id: &str, _: &str| bundle(way, "GET", &format!("{kind}?_id={id}"));
        prober.same(pair, "POST", |_, _| "/fhir".to_owned(), Some(&body));
        let body = |id: &str, _: &str| bundle(way, "DELETE", &format!("{kind}/{id}"));
        prober.same(pair, "POST", |_, _| "/fhir".to_owned(), Some(&body));
    }
    // By search: found or not, counted, sorted.
    for query in [
        "_id=ID",
        "_id=ID&_summary=count",
        "_id=ID&_total=accurate",
        "_id=ID&_sort=-_lastUpdated",
    ] {
        prober.same(
            pair,
            "GET",
            |id, _| format!("/fhir/{kind}?{}", query.replace("ID", id)),
            None,
        );
    }
    // Over every reference: value, chain, reverse chain, include.
    for (code, to_patients) in references(kind) {
        if to_patients {
            for query in [
                "CODE=Patient/OWNER",
                "CODE=OWNER&_summary=count",
                "CODE:Patient._id=OWNER",
                "CODE:Patient._tag=ID",
            ] {
                let query = query.replace("CODE", code);
                prober.same(
                    pair,
                    "GET",
                    |id, owner| {
                        let tag = if id == ABSENT { "absent-mark" } else { MARK };
                        format!("/fhir/{kind}?{}", query.replace("OWNER", owner).replace("ID", tag))
                    },
                    None,
                );
            }
            prober.same(
                pair,
                "GET",
                |id, _| format!("/fhir/Patient?_has:{kind}:{code}:_id={id}"),
                None,
            );
            prober.get(&format!("/fhir/Patient?_has:{kind}:{code}:_tag={MARK}"));
            prober.get(&format!("/fhir/Patient?_revinclude={kind}:{code}"));
        }
        prober.get(&format!("/fhir/{kind}?_include={kind}:{code}"));
        prober.get(&format!("/fhir/{kind}?_revinclude={kind}:{code}"));
    }
    // From my list that points at it.
    prober.same(pair, "GET", |id, _| format!("/fhir/List?item:{kind}._id={id}"), None);
    let chained = prober.get(&format!("/fhir/List?item:{kind}._tag={MARK}&_summary=count"));
    if chained.status == 200 && chained.json()["total"] != 0 {
        prober.leaks.push(format!(
            "{} chain over my list to {kind}: {}",
            prober.who,
            chained.text()
        ));
    }
    prober.get(&format!("/fhir/{kind}?_has:List:item:_id=mine-List-all"));
    // The other's compartment.
    prober.same(pair, "GET", |_, owner| format!("/fhir/Patient/{owner}/{kind}"), None);
    prober.same(
        pair,
        "GET",
        |_, owner| format!("/fhir/Patient/{owner}/{kind}?_summary=count"),
        None,
    );
}

/// What of a type is mine, by every way of listing it: as many as the answer with all rights says.
fn lists(prober: &mut Prober<'_>, kind: &str, truth: usize) {
    for query in ["_summary=count", "_total=accurate", "_count=0"] {
        let answer = prober.get(&format!("/fhir/{kind}?{query}")).json();
        if answer["total"] != truth {
            prober
                .leaks
                .push(format!("{} {kind}?{query}: {} of {truth}", prober.who, answer["total"]));
        }
    }
    // Page by page in an order of its own: as many pages as resources of mine, with nothing between.
    for sort in ["_id", "-_lastUpdated"] {
        let (mut pages, mut seen) = (0, 0);
        let mut next = Some(format!("/fhir/{kind}?_sort={sort}&_count=1"));
        while let Some(path) = next {
            let answer = prober.get(&path).json();
            pages += 1;
            seen += answer["entry"].as_array().map_or(0, Vec::len);
            next = support::link(&answer, "next");
        }
        if seen != truth || pages > truth.max(1) {
            prober.leaks.push(format!(
                "{} {kind} sorted by {sort}: {seen} on {pages} pages of {truth}",
                prober.who
            ));
        }
    }
    prober.get(&format!("/fhir/{kind}/_history?_count=1000"));
}

#[test]
fn nothing_of_another_patient_comes_out_by_any_type_and_path() {
    let world = world();
    let kinds: BTreeSet<&str> = world.pairs.iter().map(|pair| pair.kind.as_str()).collect();
    let without: Vec<&str> = ResourceType::all()
        .map(ResourceType::name)
        .filter(|kind| *kind != "Patient" && of_patients(kind) && !kinds.contains(kind))
        .collect();
    println!("types of a patient's compartment without a pair: {without:?}");
    let mine = ["--user", "mine", "--ttl", "1h", "--patient", &world.mine];
    let person = world.server.issue(&[&mine[..], &["--role", "patient"]].concat());
    let machine = world
        .server
        .issue(&[&mine[..], &["--scope", "patient/*.cruds"]].concat());
    let mut all = world.server.client();
    let mut requests = 0;
    let mut leaks = Vec::new();
    for (who, token) in [("patient", person), ("app of the patient", machine)] {
        let mut prober = Prober {
            world: &world,
            client: world.server.client_with(&token),
            who,
            requests: 0,
            leaks: Vec::new(),
        };
        // The probe would see a leak: with all rights there is one by each way.
        for kind in &kinds {
            let truth = all.matches(&format!("{kind}?_tag=mine-mark")).len() + usize::from(*kind == "List");
            lists(&mut prober, kind, truth);
        }
        for pair in &world.pairs {
            // My own half is there, so that nothing found elsewhere is no accident.
            prober
                .client
                .get(&format!("/fhir/{}/{}", pair.kind, pair.mine))
                .expect(200);
            probe(&mut prober, pair);
        }
        for path in ["", "/$everything", "/$access-log", "/$provenance", "/_history"] {
            let pair = Pair {
                kind: "Patient".to_owned(),
                mine: world.mine.clone(),
                theirs: world.theirs.clone(),
            };
            prober.same(&pair, "GET", |id, _| format!("/fhir/Patient/{id}{path}"), None);
        }
        for path in [
            "_history?_count=1000",
            "Patient/_history",
            "Patient?_sort=family",
            "List?_include=List:item",
            "List?_include=*",
        ] {
            prober.get(&format!("/fhir/{path}"));
        }
        prober.get(&format!("/fhir/Patient/{}/$everything?_count=1000", world.mine));
        prober.get(&format!("/fhir/Patient/{}/*", world.mine));
        requests += prober.requests;
        leaks.append(&mut prober.leaks);
    }
    println!(
        "{} types, {} pairs, {requests} requests: {} leaks",
        kinds.len(),
        world.pairs.len(),
        leaks.len()
    );
    assert!(
        leaks.is_empty(),
        "{} leaks: {:#?}",
        leaks.len(),
        &leaks[..leaks.len().min(30)]
    );
    // The other's chart is whole, and a probe with all rights sees every resource of it: the net has no hole.
    let mut prober = Prober {
        world: &world,
        client: world.server.client(),
        who: "all",
        requests: 0,
        leaks: Vec::new(),
    };
    for pair in &world.pairs {
        prober.leaks.clear();
        prober.get(&format!("/fhir/{}?_id={}", pair.kind, pair.theirs));
        assert_eq!(prober.leaks.len(), 1, "{}", pair.theirs);
    }
}

//! Searches as written, and what they ask of the index.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod common;

use keepwell_model::reference::Base;
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_search::definition;
use keepwell_search::parse::{Options, compartment, parse};
use keepwell_search::query::{
    Clause, DateTest, NumberTest, Query, SortBy, StringTest, Summary, Test, TokenTest, Total, UriTest,
};
use keepwell_search::term::ParamNo;
use keepwell_search::terminology::Hl7;
use std::sync::LazyLock;

static BASE: LazyLock<Base> = LazyLock::new(|| Base::new("clinic.example"));

fn rt(name: &str) -> ResourceType {
    ResourceType::from_name(name).unwrap()
}

fn options(lenient: bool) -> Options<'static> {
    // 2026-01-01T00:00:00Z
    Options {
        lenient,
        now: Timestamp(1_767_225_600_000),
        base: &BASE,
        terminology: &Hl7,
    }
}

/// `Type?name=value&...`; `%26` stands for an ampersand in a value.
fn parameters(query: &str) -> (ResourceType, Vec<(String, String)>) {
    let (t, rest) = query.split_once('?').unwrap();
    let mut list = common::pairs(rest);
    for (_, value) in &mut list {
        *value = value.replace("%26", "&");
    }
    (rt(t), list)
}

fn query(text: &str) -> Query {
    let (t, list) = parameters(text);
    parse(t, &list, &options(false)).unwrap_or_else(|e| panic!("{text}: {e:?}"))
}

fn name(t: ResourceType, no: ParamNo) -> &'static str {
    definition::param(t, no).unwrap().code
}

fn show(t: ResourceType, c: &Clause) -> String {
    let list = |c: &[Clause], sign: &str| format!("({})", c.iter().map(|c| show(t, c)).collect::<Vec<_>>().join(sign));
    match c {
        Clause::Match { param, test } => format!("{} {}", name(t, *param), show_test(test)),
        Clause::Missing { param, missing } => {
            format!("{} {}", name(t, *param), if *missing { "absent" } else { "present" })
        }
        Clause::Chain { param, targets } => {
            let all: Vec<_> = targets
                .iter()
                .map(|(target, c)| format!("{target}[{}]", show(*target, c)))
                .collect();
            format!("{} -> {}", name(t, *param), all.join(" / "))
        }
        Clause::Has {
            source,
            reference,
            clause,
        } => {
            format!("{source}.{} <- [{}]", name(*source, *reference), show(*source, clause))
        }
        Clause::Id(ids) => format!("id {}", ids.join(" ")),
        Clause::LastUpdated(d) => format!("updated {}", date(d)),
        Clause::Any(c) => list(c, " or "),
        Clause::All(c) => list(c, " and "),
        Clause::Not(c) => format!("not {}", show(t, c)),
        Clause::Compartment {
            owner,
            id,
            params,
            itself,
        } => {
            let params: Vec<_> = params.iter().map(|p| name(t, *p)).collect();
            format!(
                "in {owner}/{id} by {}{}",
                params.join(" "),
                if *itself { " or itself" } else { "" }
            )
        }
        Clause::Never => "never".to_owned(),
    }
}

fn show_test(test: &Test) -> String {
    let token = |t: &TokenTest| match t {
        TokenTest::Code(c) => format!("*|{c}"),
        TokenTest::SystemCode(s, c) => format!("{s}|{c}"),
        TokenTest::NoSystemCode(c) => format!("-|{c}"),
        TokenTest::System(s) => format!("{s}|*"),
    };
    match test {
        Test::Token(t) => token(t),
        Test::Text(s) => format!("text {s}"),
        Test::OfType { system, code, value } => format!("of-type {system}|{code}|{value}"),
        Test::String(StringTest::Prefix(s)) => format!("{s}..."),
        Test::String(StringTest::Contains(s)) => format!("...{s}..."),
        Test::String(StringTest::Exact(s)) => format!("\"{s}\""),
        Test::Reference { target, id } => format!("{}/{id}", target.map_or("*", ResourceType::name)),
        Test::ReferenceTo(t) => format!("any {t}"),
        Test::Url(s) => format!("url {s}"),
        Test::ReferenceIdentifier(t) => format!("identifier {}", token(t)),
        Test::Date(d) => date(d),
        Test::Number(n) => number(n),
        Test::Quantity {
            number: n,
            system,
            code,
        } => {
            format!(
                "{} {}|{}",
                number(n),
                system.as_deref().unwrap_or("*"),
                code.as_deref().unwrap_or("*")
            )
        }
        Test::Uri(UriTest::Exact(s)) => format!("uri {s}"),
        Test::Uri(UriTest::Below(s)) => format!("below {s}"),
        Test::Uri(UriTest::Above(s)) => format!("above {s}"),
        Test::Tuple(tests) => format!("<{}>", tests.iter().map(show_test).collect::<Vec<_>>().join(" $ ")),
        Test::OneOf(set) => {
            let mut codes: Vec<&str> = set.iter().map(|(_, c)| c.as_str()).collect();
            codes.sort_unstable();
            format!("one of {}", codes.join(" "))
        }
    }
}

fn date(d: &DateTest) -> String {
    let at = |ms| Timestamp(ms).to_string().replace(":00.000Z", "").replace("T00:00", "");
    format!("{:?} {} to {}", d.prefix, at(d.lo), at(d.hi)).to_lowercase()
}

fn number(n: &NumberTest) -> String {
    format!("{:?} {} [{} {})", n.prefix, n.value, n.lo, n.hi).to_lowercase()
}

fn show_query(q: &Query) -> String {
    let t = q.resource_type;
    let mut out: Vec<String> = q.clauses.iter().map(|c| show(t, c)).collect();
    for key in &q.sort {
        let by = match key.by {
            SortBy::Param(p) => name(t, p),
            SortBy::Id => "id",
            SortBy::LastUpdated => "updated",
        };
        out.push(format!("sort {by}{}", if key.descending { " descending" } else { "" }));
    }
    for i in &q.includes {
        let params: Vec<_> = i.params.iter().map(|p| name(i.source, *p)).collect();
        let mut line = if i.reverse {
            "revinclude".to_owned()
        } else {
            "include".to_owned()
        };
        line += if i.iterate { " again and again" } else { "" };
        line += &format!(" {} {}", i.source, params.join(" "));
        line += &i.target.map_or(String::new(), |t| format!(" to {t}"));
        out.push(line);
    }
    out.extend(q.count.map(|n| format!("count {n}")));
    if q.total != Total::Default || q.summary != Summary::False {
        out.push(format!("total {:?}, summary {:?}", q.total, q.summary).to_lowercase());
    }
    if !q.elements.is_empty() {
        out.push(format!("elements {}", q.elements.join(" ")));
    }
    out.join("\n")
}

/// One table, one line each: the query, then what it asks.
#[test]
fn the_golden_table() {
    let mut wrong = Vec::new();
    for case in include_str!("golden/queries.txt")
        .split("\n\n")
        .filter(|c| !c.trim().is_empty())
    {
        let mut lines = case.trim().lines().filter(|l| !l.starts_with("# "));
        let Some(text) = lines.next() else { continue };
        let expected = lines.map(str::trim).collect::<Vec<_>>().join("\n");
        let (t, list) = parameters(text);
        let found = match parse(t, &list, &options(false)) {
            Ok(q) => show_query(&q),
            Err(issues) => issues
                .iter()
                .map(|i| format!("! {}: {}", i.code, i.diagnostics))
                .collect::<Vec<_>>()
                .join("\n"),
        };
        if found != expected {
            wrong.push(format!("{text}\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n\n"));
}

#[test]
fn what_was_processed_is_told() {
    let q = query("Patient?_count=5&family=a&_sort=family&family=b&_count=7&_sort=-family");
    let told: Vec<_> = q.processed.iter().map(|(n, v)| format!("{n}={v}")).collect();
    assert_eq!(told, ["family=a", "family=b", "_count=7", "_sort=-family"]);
    assert!(q.ignored.is_empty());
}

#[test]
fn lenient_handling_leaves_out_and_says_so() {
    let (t, list) =
        parameters("Patient?family=a&nonsense=1&birthdate=x&gender:exact=m&_count=x&_sort=y&near=1&_text=z");
    assert_eq!(parse(t, &list, &options(false)).unwrap_err().len(), 7);
    let q = parse(t, &list, &options(true)).unwrap();
    assert_eq!(show_query(&q), "family a...");
    assert_eq!(q.processed, [("family".to_owned(), "a".to_owned())]);
    let ignored: Vec<_> = q.ignored.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(
        ignored,
        [
            "nonsense",
            "birthdate",
            "gender:exact",
            "_count",
            "_sort",
            "near",
            "_text"
        ]
    );
}

#[test]
fn no_text_repeats_a_value() {
    let secret = "Rosalind";
    for t in [
        "Patient",
        "Observation",
        "Encounter",
        "Location",
        "RiskAssessment",
        "ValueSet",
    ] {
        for p in definition::params(rt(t)) {
            for modifier in [
                "",
                ":missing",
                ":exact",
                ":not",
                ":below",
                ":above",
                ":in",
                ":of-type",
                ":identifier",
                ":x",
            ] {
                for value in [
                    secret.to_owned(),
                    format!("a|b|{secret}|{secret}"),
                    format!("{secret} ${secret}"),
                ] {
                    let list = [(format!("{}{modifier}", p.code), value)];
                    for issue in parse(rt(t), &list, &options(false)).err().unwrap_or_default() {
                        assert!(
                            !issue.diagnostics.contains(secret),
                            "{t} {} {}",
                            p.code,
                            issue.diagnostics
                        );
                        assert!(
                            issue.diagnostics.contains(p.code),
                            "{t} {} {}",
                            p.code,
                            issue.diagnostics
                        );
                    }
                }
            }
        }
    }
    for name in [
        "_sort",
        "_count",
        "_total",
        "_summary",
        "_elements",
        "_include",
        "_revinclude",
        "_has",
        "_list",
    ] {
        for value in [secret.to_owned(), format!("Patient:{secret}"), format!("{secret}.x:y")] {
            for issue in parse(rt("Patient"), &[(name.to_owned(), value)], &options(false))
                .err()
                .unwrap_or_default()
            {
                assert!(!issue.diagnostics.contains(secret), "{name} {}", issue.diagnostics);
            }
        }
    }
}

#[test]
fn chains_are_bounded() {
    let nested = |links: usize| format!("{}family", "link:Patient.".repeat(links));
    let ask = |name: String| parse(rt("Patient"), &[(name, "x".to_owned())], &options(true));
    assert!(ask(nested(8)).is_ok());
    assert_eq!(ask(nested(9)).unwrap_err()[0].code, "too-costly");
    assert_eq!(ask(nested(100_000)).unwrap_err()[0].code, "too-costly");
    let has = |links: usize| format!("{}family", "_has:Patient:link:".repeat(links));
    assert!(ask(has(8)).is_ok());
    assert_eq!(ask(has(9)).unwrap_err()[0].code, "too-costly");
    // Open types: the number of conditions grows with every link.
    let open = parse(
        rt("Provenance"),
        &[("target.subject.subject.subject.subject.subject.name".into(), "x".into())],
        &options(true),
    );
    assert_eq!(open.unwrap_err()[0].code, "too-costly");
    // A long list is not a deep one.
    let many = vec!["a"; 20_000].join(",");
    assert!(parse(rt("Observation"), &[("code".into(), many.clone())], &options(false)).is_ok());
    let open = parse(rt("Provenance"), &[("target.identifier".into(), many)], &options(false));
    assert_eq!(open.unwrap_err()[0].code, "too-costly");
}

#[test]
fn compartments() {
    let ask = |owner, member| compartment(rt(owner), "x", rt(member)).map(|c| show(rt(member), &c));
    assert_eq!(
        ask("Patient", "Observation").as_deref(),
        Some("in Patient/x by performer subject")
    );
    assert_eq!(
        ask("Patient", "Patient").as_deref(),
        Some("in Patient/x by link or itself")
    );
    assert_eq!(
        ask("Encounter", "Observation").as_deref(),
        Some("in Encounter/x by encounter")
    );
    assert_eq!(
        ask("Practitioner", "Encounter").as_deref(),
        Some("in Practitioner/x by participant")
    );
    assert_eq!(
        ask("Device", "Observation").as_deref(),
        Some("in Device/x by device subject")
    );
    assert_eq!(
        ask("RelatedPerson", "RelatedPerson").as_deref(),
        Some("in RelatedPerson/x by  or itself")
    );
    assert_eq!(ask("Patient", "Organization"), None);
    assert_eq!(ask("Organization", "Observation"), None);
}

#[test]
fn every_parameter_of_every_type_is_understood() {
    for t in ResourceType::all() {
        for p in definition::params(t) {
            use definition::{Kind, Storage};
            let one = |kind: Kind| match kind {
                Kind::Number => "5",
                Kind::Date => "2020-01",
                Kind::Token if p.boolean => "true",
                Kind::Quantity => "5||mg",
                _ => "x",
            };
            let value = match &p.storage {
                Storage::Unsupported => continue,
                Storage::Root(parts) | Storage::Tuple(parts) => {
                    let kinds = parts.iter().map(|n| one(definition::param(t, *n).unwrap().kind));
                    kinds.collect::<Vec<_>>().join("$")
                }
                Storage::Union(list) if p.kind == Kind::Composite => {
                    match &definition::param(t, list[0].0).unwrap().storage {
                        Storage::Root(parts) | Storage::Tuple(parts) => {
                            let kinds = parts.iter().map(|n| one(definition::param(t, *n).unwrap().kind));
                            kinds.collect::<Vec<_>>().join("$")
                        }
                        other => panic!("{other:?}"),
                    }
                }
                _ => one(p.kind).to_owned(),
            };
            for (name, value) in [
                (p.code.to_owned(), value),
                (format!("{}:missing", p.code), "true".to_owned()),
            ] {
                let list = [(name, value)];
                let q = parse(t, &list, &options(false)).unwrap_or_else(|e| panic!("{t} {list:?} {e:?}"));
                assert_ne!(q.clauses, [Clause::Never], "{t} {list:?}");
            }
        }
    }
}

#[test]
fn the_queries_with_answer_keys_are_understood() {
    let Some(shared) = common::shared() else {
        println!("SKIPPED 576 queries: ../shared is not here");
        return;
    };
    let cases = common::lines(&shared.join("data/search/cases.ndjson.zst"));
    assert_eq!(cases.len(), 576);
    for case in cases {
        let case = keepwell_model::json::parse(&case).unwrap();
        let text = case.str("query").unwrap().replace("%2B", "+");
        let q = query(&text);
        // What is told as processed asks the same again.
        assert_eq!(
            parse(q.resource_type, &q.processed, &options(false)).as_ref(),
            Ok(&q),
            "{text}"
        );
    }
}

#[test]
fn tricky_names_are_found_as_r4_says() {
    use keepwell_search::term::fold;
    let Some(shared) = common::shared() else {
        println!("SKIPPED 38 names: ../shared is not here");
        return;
    };
    let text = std::fs::read_to_string(shared.join("data/names/tricky-names.json")).unwrap();
    let names = keepwell_model::json::parse(&text).unwrap();
    let mut wrong = Vec::new();
    for n in names.items().unwrap() {
        let value = n.str("value").unwrap();
        let asked = |list: &str| -> Vec<String> {
            n.get(list)
                .and_then(|l| l.items())
                .unwrap_or_default()
                .iter()
                .map(|q| q.as_str().unwrap().to_owned())
                .collect()
        };
        let escape = |q: &str| {
            q.replace('\\', "\\\\")
                .replace(',', "\\,")
                .replace('|', "\\|")
                .replace('$', "\\$")
        };
        let meets = |name: &str, q: &str| {
            let q = parse(rt("Patient"), &[(name.to_owned(), escape(q))], &options(false)).unwrap();
            match &q.clauses[..] {
                [
                    Clause::Match {
                        test: Test::String(StringTest::Prefix(p)),
                        ..
                    },
                ] => fold(value).starts_with(p.as_str()),
                [
                    Clause::Match {
                        test: Test::String(StringTest::Exact(p)),
                        ..
                    },
                ] => value == p,
                other => panic!("{other:?}"),
            }
        };
        wrong.extend(
            asked("starts_with_match")
                .iter()
                .filter(|q| !meets("family", q))
                .map(|q| format!("{value} not by {q}")),
        );
        wrong.extend(
            asked("starts_with_no_match")
                .iter()
                .filter(|q| meets("family", q))
                .map(|q| format!("{value} by {q}")),
        );
        wrong.extend(
            asked("exact_match")
                .iter()
                .filter(|q| !meets("family:exact", q))
                .map(|q| format!("{value} not exactly by {q}")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

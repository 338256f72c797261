//! Extraction against an independent reading of the same resources: fhirpath.js with the official expressions and rules
//! written for it (`scripts/search-oracle.mjs`), over the R4 examples and twelve Synthea patients. The derived
//! parameters are looked at too, by narrowing and uniting what is stored as a search would.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod common;

use keepwell_model::json::{self, Value};
use keepwell_model::reference::Base;
use keepwell_model::types::ResourceType;
use keepwell_search::definition::{self, Kind, Storage};
use keepwell_search::extract::extract;
use keepwell_search::term::{ParamNo, Term};
use std::collections::{BTreeMap, BTreeSet};

/// One line a value, as the script writes them.
fn lines(t: ResourceType, v: &Value<'_>) -> BTreeSet<String> {
    let extracted = extract(t, v, &Base::new("here"));
    let mut out = BTreeSet::new();
    for (i, p) in definition::params(t).iter().enumerate() {
        if p.kind == Kind::Composite || matches!(p.storage, Storage::Column(_) | Storage::Unsupported) {
            continue;
        }
        for (stored, narrowed) in definition::behind(t, ParamNo(i as u16)) {
            for (_, term) in extracted.terms.iter().filter(|(n, _)| *n == stored) {
                if let Some(text) = line(term, narrowed, p.system) {
                    out.insert(format!("{} {text}", p.code));
                }
            }
        }
    }
    out
}

fn line(term: &Term<'_>, narrowed: Option<ResourceType>, implied: Option<&str>) -> Option<String> {
    let or = |s: &Option<std::borrow::Cow<'_, str>>| s.as_deref().unwrap_or("-").to_owned();
    let number = |n: f64| if n.is_finite() { format!("{n:e}") } else { n.to_string() };
    let end = |ms: i64| match ms {
        i64::MIN => "-Infinity".to_owned(),
        i64::MAX => "Infinity".to_owned(),
        ms => ms.to_string(),
    };
    Some(match term {
        // The script does not know bindings.
        Term::Token { system, code } if system.as_deref() == implied => format!("token -|{code}"),
        Term::Token { system, code } => format!("token {}|{code}", or(system)),
        Term::Text(s) => format!("text {s}"),
        Term::OfType { system, code, value } => format!("type {system}|{code}|{value}"),
        Term::Str(s) => format!("string {s}"),
        Term::Reference { target, .. } if narrowed.is_some_and(|n| n != *target) => return None,
        Term::Reference { target, id } => format!("reference {target}/{id}"),
        Term::Url(s) if narrowed.is_some_and(|n| !s.contains(&format!("/{n}/"))) => return None,
        Term::Url(s) => format!("url {s}"),
        Term::ReferenceIdentifier { .. } if narrowed.is_some() => return None,
        Term::ReferenceIdentifier { system, value } => format!("identifier {}|{value}", or(system)),
        Term::Date { lo, hi } => format!("date {} {}", end(*lo), end(*hi)),
        Term::Number { lo, hi } => format!("number {} {}", number(*lo), number(*hi)),
        Term::Quantity {
            lo,
            hi,
            system,
            code,
            unit,
        } => {
            format!(
                "quantity {} {} {}|{}|{}",
                number(*lo),
                number(*hi),
                or(system),
                or(code),
                or(unit)
            )
        }
        Term::Uri(s) => format!("uri {s}"),
        Term::Tuple(_) => return None,
    })
}

/// FNV-1a, as the script computes it.
fn hash(lines: &BTreeSet<String>) -> String {
    let all = lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
    let h = all.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{h:016x}")
}

#[test]
fn an_independent_reading_finds_the_same() {
    let Some(shared) = common::shared() else {
        println!("SKIPPED 741 examples: ../shared is not here");
        return;
    };
    let mut expected: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for l in include_str!("golden/oracle.txt").lines() {
        let mut parts = l.splitn(3, ' ');
        let (hash, count, name) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        expected.insert(name, (hash, count));
    }
    let mut seen = 0;
    let mut wrong = Vec::new();
    let mut compare = |name: &str, found: BTreeSet<String>| {
        seen += 1;
        let (expected, count) = expected.get(name).copied().unwrap_or(("", ""));
        if hash(&found) != expected {
            wrong.push(format!("{name}: {} values, {count} expected", found.len()));
            println!("== {name}");
            found.iter().for_each(|l| println!("{l}"));
        }
    };
    for (name, text) in common::tar(&shared.join("data/fhir-r4-examples/examples-instances.tar.zst")) {
        let v = json::parse(&text).unwrap();
        let t = v.str("resourceType").and_then(ResourceType::from_name).unwrap();
        compare(&name, lines(t, &v));
    }
    for (i, bundle) in common::lines(&shared.join("data/synthea/small-12.ndjson.zst"))
        .iter()
        .enumerate()
    {
        let mut all = BTreeSet::new();
        for (t, v) in common::resources(bundle) {
            let id = v.str("id").unwrap().to_owned();
            all.extend(lines(t, &v).into_iter().map(|l| format!("{t}/{id} {l}")));
        }
        compare(&format!("synthea {i}"), all);
    }
    assert_eq!(seen, expected.len());
    assert!(wrong.is_empty(), "{} differ: {wrong:#?}", wrong.len());
}

//! Validation against the test sets beside the repository: the specification's examples, Synthea, mutants and the
//! official validator's cases.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code fails by panicking"
)]

mod common;

use keepwell_model::json::{Value, parse};
use keepwell_model::outcome::Issue;
use keepwell_model::schema::{Mode, validate};
use std::collections::BTreeMap;

fn line(issues: &[Issue]) -> String {
    let one = |i: &Issue| {
        format!(
            "{} {}: {}",
            i.expression.as_deref().unwrap_or("-"),
            i.code,
            i.diagnostics
        )
    };
    issues.iter().map(one).collect::<Vec<_>>().join(" | ")
}

/// Examples of the specification that break its own rules.
const FAULTY: &[(&str, &str)] = &[
    (
        "activitydefinition-servicerequest-example.json",
        "txt-2: the narrative is empty",
    ),
    (
        "activitydefinition-supplyrequest-example.json",
        "txt-2: the narrative is empty",
    ),
    (
        "devicemetric-example.json",
        "parent refers to a DeviceDefinition; only Device is allowed",
    ),
    (
        "deviceusestatement-example.json",
        "reasonReference refers to a Procedure, which is not allowed",
    ),
    ("eventdefinition-example.json", "txt-2: the narrative is empty"),
    (
        "medicationrequest0301.json",
        "dispenseRequest.performer refers to a Practitioner; only Organization is allowed",
    ),
    (
        "observation-example-clinical-gender.json",
        "performer refers to an Encounter, which is not allowed",
    ),
    (
        "questionnaire-zika-virus-exposure-assessment.json",
        "txt-2: the narrative is empty",
    ),
];

#[test]
fn the_official_examples_are_accepted_and_round_trip() {
    let Some(shared) = common::shared_or_skip(741, "official examples") else {
        return;
    };
    let (mut n, mut bad) = (0, Vec::new());
    for (name, bytes) in common::tar(&shared.join("fhir-r4-examples/examples-instances.tar.zst")) {
        let text = String::from_utf8(bytes).unwrap();
        let v = parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(parse(&v.to_string()).unwrap(), v, "{name}");
        n += 1;
        let issues = validate(&v, Mode::Create);
        let short = name.rsplit('/').next().unwrap();
        if FAULTY.iter().any(|(f, _)| *f == short) {
            assert!(!issues.is_empty(), "{name} is listed as faulty");
        } else if !issues.is_empty() {
            bad.push(format!("{short}: {}", line(&issues)));
        }
    }
    println!(
        "{} of {n} examples accepted, {} known as faulty",
        n - bad.len() - FAULTY.len(),
        FAULTY.len()
    );
    assert!(bad.is_empty(), "{} of {n}\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn most_conformance_examples_are_accepted() {
    let Some(shared) = common::shared_or_skip(2161, "conformance examples") else {
        return;
    };
    let (mut n, mut bad) = (0, Vec::new());
    let mut rules: BTreeMap<String, usize> = BTreeMap::new();
    for (name, bytes) in common::tar(&shared.join("fhir-r4-examples/examples-conformance.tar.zst")) {
        let text = String::from_utf8(bytes).unwrap();
        let v = parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        n += 1;
        let issues = validate(&v, Mode::Create);
        if let Some(first) = issues.first() {
            let generated = name.ends_with("-questionnaire.json") && first.diagnostics.contains("required");
            let key = if generated {
                "linkId is missing in a generated questionnaire"
            } else {
                first.diagnostics.as_str()
            };
            *rules.entry(key.to_owned()).or_default() += 1;
            if generated {
                continue;
            }
            bad.push(format!("{}: {}", name.rsplit('/').next().unwrap(), line(&issues[..1])));
        }
    }
    println!(
        "{} of {n} conformance examples accepted",
        n - rules.values().sum::<usize>()
    );
    for (rule, n) in rules {
        println!("  {n} {rule}");
    }
    assert!(bad.len() * 100 < n, "{}", bad.join("\n"));
}

#[test]
fn mutants_are_refused() {
    let Some(shared) = common::shared_or_skip(2267, "mutants") else {
        return;
    };
    let text = common::text(&shared.join("fhir-invalid/mutants.ndjson.zst"));
    let (mut n, mut accepted, mut elsewhere) = (0, Vec::new(), Vec::new());
    let mut kinds: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for l in text.lines() {
        let v = parse(l).unwrap();
        let of = |name| v.get(name).and_then(Value::as_str).unwrap_or_default();
        let issues = validate(v.get("resource").unwrap(), Mode::Create);
        n += 1;
        let k = kinds.entry(of("kind").to_owned()).or_default();
        k.0 += 1;
        if issues.is_empty() {
            accepted.push(format!("{} {} {} {}", of("kind"), of("from"), of("at"), of("why")));
        } else {
            k.1 += 1;
            if !issues.iter().any(|i| i.expression.as_deref() == Some(of("at"))) {
                elsewhere.push(format!("{} {} {}: {}", of("kind"), of("from"), of("at"), line(&issues)));
            }
        }
    }
    println!("{} of {n} mutants refused", n - accepted.len());
    for (k, (all, refused)) in &kinds {
        println!("  {k}: {refused} of {all}");
    }
    println!(
        "reported at another place: {}\n{}",
        elsewhere.len(),
        elsewhere.iter().take(40).cloned().collect::<Vec<_>>().join("\n")
    );
    assert!(
        accepted.len() * 100 <= n,
        "{} accepted\n{}",
        accepted.len(),
        accepted.join("\n")
    );
}

#[test]
fn the_validators_cases() {
    let Some(shared) = common::shared_or_skip(42, "cases of the official validator") else {
        return;
    };
    let files: BTreeMap<String, Vec<u8>> = common::tar(&shared.join("fhir-invalid/files.tar.zst"))
        .into_iter()
        .map(|(n, b)| (n.rsplit('/').next().unwrap().to_owned(), b))
        .collect();
    let mut refused_valid = Vec::new();
    let (mut invalid, mut caught) = (0, 0);
    for l in common::text(&shared.join("fhir-invalid/cases.ndjson")).lines() {
        let case = parse(l).unwrap();
        let of = |name| case.get(name).and_then(Value::as_str).unwrap_or_default();
        let Some(bytes) = files.get(of("file").rsplit('/').next().unwrap()) else {
            panic!("{} is missing", of("file"))
        };
        let text = String::from_utf8_lossy(bytes);
        let found = match parse(&text) {
            Err(e) => e.to_string(),
            Ok(v) => line(&validate(&v, Mode::Create)),
        };
        match of("verdict") {
            "valid" if !found.is_empty() => refused_valid.push(format!("{}: {found}", of("name"))),
            "invalid" => {
                invalid += 1;
                caught += usize::from(!found.is_empty());
                if found.is_empty() {
                    let why: Vec<_> = case
                        .get("errors")
                        .and_then(Value::items)
                        .unwrap()
                        .iter()
                        .filter_map(|e| e.get("text")?.as_str())
                        .collect();
                    println!("accepted: {}: {}", of("name"), why.join(" | "));
                }
            }
            _ => {}
        }
    }
    println!("{caught} of {invalid} invalid cases refused");
    assert!(refused_valid.is_empty(), "{}", refused_valid.join("\n"));
}

#[test]
fn synthea_is_valid() {
    let Some(shared) = common::shared_or_skip(2, "Synthea files") else {
        return;
    };
    let mut files = vec![shared.join("synthea/small-12.ndjson.zst")];
    for set in ["v2.4-r4-2019", "v3-uscore-2021"] {
        let mut parts: Vec<_> = std::fs::read_dir(shared.join("synthea").join(set))
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == "zst"))
            .collect();
        parts.sort();
        #[allow(clippy::disallowed_methods, reason = "tests read their own configuration")]
        let all = std::env::var("KEEPWELL_ALL").is_ok();
        files.extend(parts.into_iter().take(if all { usize::MAX } else { 1 }));
    }
    let (mut n, mut bad) = (0, Vec::new());
    for file in files {
        let text = common::text(&file);
        let lines: Vec<&str> = if file.to_string_lossy().ends_with(".ndjson.zst") {
            text.lines().collect()
        } else {
            vec![&text]
        };
        for l in lines {
            let bundle = parse(l).unwrap();
            assert_eq!(parse(&bundle.to_string()).unwrap(), bundle);
            for r in bundle
                .get("entry")
                .and_then(Value::items)
                .unwrap_or_default()
                .iter()
                .filter_map(|e| e.get("resource"))
            {
                n += 1;
                let issues = validate(r, Mode::Create);
                if !issues.is_empty() && bad.len() < 20 {
                    bad.push(line(&issues));
                }
            }
        }
    }
    println!("{n} Synthea resources valid");
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

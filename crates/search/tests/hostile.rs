//! Nothing a client sends makes parsing or extraction panic, and what was understood once is understood the same again.

use keepwell_model::json;
use keepwell_model::reference::Base;
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_search::definition;
use keepwell_search::extract::extract;
use keepwell_search::parse::{Options, parse};
use keepwell_search::terminology::Hl7;
use proptest::prelude::*;
use std::sync::LazyLock;

static BASE: LazyLock<Base> = LazyLock::new(|| Base::new("here"));

fn options() -> Options<'static> {
    Options {
        lenient: false,
        now: Timestamp(0),
        base: &BASE,
        terminology: &Hl7,
    }
}

fn any_type() -> impl Strategy<Value = ResourceType> {
    (0..146u16).prop_filter_map("a type", ResourceType::from_code)
}

/// A parameter of the type, with modifiers, chains and reverse chains that may or may not make sense.
fn any_name() -> impl Strategy<Value = (ResourceType, String)> {
    let modifier = prop::sample::select(vec![
        "",
        "",
        "",
        ":missing",
        ":exact",
        ":contains",
        ":text",
        ":not",
        ":above",
        ":below",
        ":in",
        ":not-in",
        ":of-type",
        ":identifier",
        ":Patient",
        ":iterate",
        ":",
        "::",
        ".",
        ".family",
        ":Patient.name",
        "._id",
        ".code",
    ]);
    let prefix = prop::sample::select(vec![
        "",
        "",
        "",
        "_has:Observation:patient:",
        "_has:",
        "_has:Encounter:subject:",
    ]);
    (any_type(), any::<prop::sample::Index>(), prefix, modifier).prop_map(|(t, i, prefix, modifier)| {
        let list = definition::params(t);
        let code = list.get(i.index(list.len())).map_or("", |p| p.code);
        (t, format!("{prefix}{code}{modifier}"))
    })
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z]{0,3}-?[0-9]{0,4}(-[0-9]{1,2}){0,2}(T[0-9:.]{0,9}(Z|[+-][0-9:]{0,5})?)?",
        "(eq|ne|gt|lt|ge|le|sa|eb|ap)?[+-]?[0-9]{0,40}\\.?[0-9]{0,9}(e-?[0-9]{0,4})?(\\|[^|]{0,5}){0,3}",
        "[a-zA-Z0-9/.:|$,\\\\#-]{0,40}",
        "(Patient|Group|http://here/fhir/Patient|urn:uuid)[/:][a-z0-9]{0,70}(/_history/[0-9]{0,2})?",
    ]
}

fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?[1-9][0-9]{0,30}(\\.[0-9]{1,9})?(e[0-9]{1,4})?",
        any_value().prop_map(|s| quoted(&s)),
    ];
    let member = prop::sample::select(vec![
        "name",
        "family",
        "coding",
        "system",
        "code",
        "value",
        "valueQuantity",
        "reference",
        "subject",
        "identifier",
        "type",
        "text",
        "period",
        "start",
        "end",
        "effectiveDateTime",
        "component",
        "event",
        "repeat",
        "boundsPeriod",
        "meta",
        "tag",
        "telecom",
        "origin",
        "data",
        "low",
        "high",
        "entry",
        "resource",
        "resourceType",
        "birthDate",
        "address",
        "display",
    ]);
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|v| format!("[{}]", v.join(","))),
            prop::collection::btree_map(member.clone(), inner, 0..6).prop_map(|m| {
                let list: Vec<String> = m.into_iter().map(|(n, v)| format!("{}:{v}", quoted(n))).collect();
                format!("{{{}}}", list.join(","))
            }),
        ]
    })
}

fn quoted(s: &str) -> String {
    let mut out = String::new();
    json::write_string(s, &mut out);
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_search_is_answered((t, name) in any_name(), value in any_value(), odd in any::<(String, String)>()) {
        for list in [vec![(name, value)], vec![odd]] {
            match parse(t, &list, &options()) {
                Ok(q) => {
                    prop_assert_eq!(&q.processed, &list);
                    prop_assert_eq!(parse(t, &q.processed, &options()), Ok(q));
                }
                Err(issues) => {
                    prop_assert_eq!(issues.len(), 1);
                    // The same search is never refused when lenient handling is asked for, unless it costs too much.
                    let lenient = parse(t, &list, &Options { lenient: true, ..options() });
                    let costly = issues.iter().any(|i| i.code == "too-costly");
                    prop_assert_eq!(lenient.is_err(), costly);
                }
            }
        }
    }

    #[test]
    fn any_json_is_extracted(t in any_type(), text in any_json()) {
        if let Ok(v) = json::parse(&text) {
            let terms = extract(t, &v, &BASE).terms;
            prop_assert!(terms.is_sorted_by_key(|(p, _)| *p));
            prop_assert!(terms.iter().all(|(p, _)| usize::from(p.0) < definition::stored(t)));
            prop_assert_eq!(&extract(t, &v, &BASE).terms, &terms);
        }
    }
}

//! Nothing that can be sent makes the reader, the validator, the narrative check, the patch or the home table panic.
#![allow(clippy::unwrap_used, reason = "test code fails by panicking")]

use keepwell_model::fhirpath::Expression;
use keepwell_model::home::{home, patients};
use keepwell_model::json::{Value, parse};
use keepwell_model::reference::Base;
use keepwell_model::schema::{Mode, validate};
use keepwell_model::types::ResourceType;
use keepwell_model::{narrative, patch};
use proptest::prelude::*;

/// Names that mean something to the tables, so that arbitrary trees reach deep into them.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "resourceType",
            "id",
            "meta",
            "text",
            "div",
            "status",
            "contained",
            "extension",
            "url",
            "valueString",
            "valueQuantity",
            "value",
            "_value",
            "_id",
            "_status",
            "name",
            "given",
            "_given",
            "subject",
            "reference",
            "code",
            "coding",
            "system",
            "entry",
            "resource",
            "item",
            "linkId",
            "type",
            "start",
            "end",
            "period",
            "component",
            "parameter",
            "part",
            "op",
            "path",
            "from",
            "birthDate",
            "_birthDate",
            "gender",
            "link",
            "other",
            "low",
            "high",
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "Patient",
            "Observation",
            "Bundle",
            "Parameters",
            "Questionnaire",
            "Patient/a",
            "#a",
            "#",
            "a",
            "2024-02-30",
            "2024-02-29T10:00:00Z",
            "final",
            "male",
            "http://x",
            "/a/b",
            "add",
            "copy",
            "urn:oid:1.2",
            "QUJD",
            "<div xmlns=\"http://www.w3.org/1999/xhtml\">x</div>",
        ])
        .prop_map(str::to_owned),
        ".{0,20}",
    ]
}

fn tree() -> impl Strategy<Value = Value<'static>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        prop::sample::select(vec!["0", "-1", "1.50", "1e400", "99999999999999999999"])
            .prop_map(|n| Value::Number(n.into())),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(name(), inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().map(|(n, v)| (n.into(), v)).collect())),
        ]
    })
}

/// A tree that claims to be a resource.
fn resource() -> impl Strategy<Value = Value<'static>> {
    (tree(), 0..146_u16).prop_map(|(mut v, code)| {
        if let Value::Object(members) = &mut v {
            members.retain(|(n, _)| n != "resourceType");
            let name = ResourceType::from_code(code).unwrap().name();
            members.insert(0, ("resourceType".into(), Value::from(name)));
        }
        v
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_parsed_or_refused(text in ".{0,200}") {
        if let Ok(v) = parse(&text) {
            let again = v.to_string();
            prop_assert_eq!(parse(&again).unwrap(), v);
        }
    }

    #[test]
    fn text_that_looks_like_json_is_parsed_or_refused(text in "[\\[\\]{}\",:0-9eE+.a-u\\\\ \\-]{0,60}") {
        if let Ok(v) = parse(&text) {
            let again = v.to_string();
            prop_assert_eq!(parse(&again).unwrap(), v);
        }
    }

    #[test]
    fn any_tree_round_trips(v in tree()) {
        let text = v.to_string();
        prop_assert_eq!(parse(&text).unwrap(), v);
    }

    #[test]
    fn any_resource_is_validated(v in resource()) {
        let base = Base::new("clinic.example");
        let issues = validate(&v, Mode::Create);
        prop_assert!(issues.len() <= 51);
        if let Some(t) = v.get("resourceType").and_then(Value::as_str).and_then(ResourceType::from_name) {
            let _ = home(t, &v, &base);
        }
        let _ = patients(&v, &base);
    }

    #[test]
    fn any_narrative_is_read(text in "[<>/=\"'&;#xa-z !\\-:\n]{0,80}") {
        let _ = narrative::check(&text);
        let _ = narrative::check_shown(&format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{text}</div>"));
    }

    #[test]
    fn any_patch_applies_or_fails(mut document in tree(), p in tree()) {
        let _ = patch::apply(&mut document, &p);
    }

    #[test]
    fn any_operation_applies_or_fails(
        mut document in tree(),
        op in prop::sample::select(vec!["add", "remove", "replace", "move", "copy", "test"]),
        path in "(/[a-z0-9~-]{0,8}){0,4}",
        from in "(/[a-z0-9~-]{0,8}){0,4}",
        value in tree(),
    ) {
        let before = document.clone();
        let p = Value::Array(vec![Value::Object(vec![
            ("op".into(), Value::from(op)), ("path".into(), Value::from(path)), ("from".into(), Value::from(from)), ("value".into(), value),
        ])]);
        if patch::apply(&mut document, &p).is_err() {
            prop_assert_eq!(document, before);
        }
    }

    #[test]
    fn any_expression_is_parsed_and_run(text in "[a-z0-9.()'| =<>+*/%$@&:T~\\[\\]\\-]{0,40}", v in resource()) {
        if let Ok(e) = Expression::parse(&text) {
            let _ = e.evaluate(&v);
        }
    }
}

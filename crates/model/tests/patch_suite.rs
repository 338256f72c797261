//! The JSON Patch suite of the official test cases. Its FHIRPath Patch and XML Patch parts are not supported.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "test code fails by panicking"
)]

mod common;

use keepwell_model::json::{Value, parse};
use keepwell_model::patch::{apply, equal};

#[test]
fn the_official_json_patch_suite() {
    let Some(shared) = common::shared_or_skip(16, "JSON Patch cases") else {
        return;
    };
    let files = common::tar(&shared.join("fhir-r4-suites/patch.tar.zst"));
    let (_, bytes) = files
        .iter()
        .find(|(n, _)| n.ends_with("json-patch-tests.json"))
        .unwrap();
    let text = String::from_utf8_lossy(bytes);
    let cases = parse(&text).unwrap();
    let mut wrong = Vec::new();
    for case in cases.items().unwrap() {
        let mut document = case.get("doc").unwrap().clone().into_owned();
        let result = apply(&mut document, case.get("patch").unwrap());
        let good = match case.get("expected") {
            Some(expected) => result.is_ok() && equal(&document, expected),
            None => result.is_err(),
        };
        if !good {
            wrong.push(case.get("comment").and_then(Value::as_str).unwrap().to_owned());
        }
    }
    println!(
        "{} of {} JSON Patch cases pass",
        cases.items().unwrap().len() - wrong.len(),
        cases.items().unwrap().len()
    );
    assert!(wrong.is_empty(), "{wrong:?}");
}

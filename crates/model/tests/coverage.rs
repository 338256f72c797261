//! `docs/validation.md` says what is checked, what is left out and why; its lists are generated here and compared.
//! `KEEPWELL_BLESS=1` rewrites them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code fails by panicking"
)]

mod common;

use keepwell_model::fhirpath::{Expression, Item, ParseError};
use keepwell_model::json::parse;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Compares the part of the page between the marks of `name` with `expect`.
fn compare(name: &str, expect: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/validation.md");
    let page = std::fs::read_to_string(&file).unwrap();
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let from = page.find(&begin).unwrap() + begin.len();
    let to = page.find(&end).unwrap();
    #[allow(clippy::disallowed_methods, reason = "tests read their own configuration")]
    if std::env::var("KEEPWELL_BLESS").is_ok() {
        std::fs::write(&file, format!("{}{expect}{}", &page[..from], &page[to..])).unwrap();
    } else {
        assert_eq!(&page[from..to], expect, "docs/validation.md is out of date");
    }
}

#[test]
fn the_page_lists_how_each_invariant_is_held() {
    let (mut code, mut path) = (Vec::new(), Vec::new());
    let mut out = String::from("| invariant | why it is left out |\n| --- | --- |\n");
    for (key, _, how) in keepwell_model::schema::coverage() {
        match how.strip_prefix("left out: ") {
            Some(why) => writeln!(out, "| {key} | {why} |").unwrap(),
            None if how == "code" => code.push(key),
            None => path.push(key),
        }
    }
    writeln!(out, "\nHeld by code: ele-1, {}.\n", code.join(", ")).unwrap();
    writeln!(out, "Held by their expression ({}): {}.", path.len(), path.join(", ")).unwrap();
    compare("invariants", &out);
}

struct Case {
    name: String,
    input: String,
    expression: String,
    invalid: Option<String>,
    predicate: bool,
    output: Vec<String>,
}

fn unescape(s: &str) -> String {
    s.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let at = tag.find(&format!(" {name}=\""))? + name.len() + 3;
    Some(unescape(tag[at..].split('"').next().unwrap()))
}

/// The text of each `<name ...>text</name>`, with its start tag.
fn elements<'a>(text: &'a str, name: &str) -> Vec<(&'a str, &'a str)> {
    let (open, close) = (format!("<{name}"), format!("</{name}>"));
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(&open) {
        rest = &rest[at..];
        let end = rest.find('>').unwrap();
        let tag = &rest[..=end];
        if !tag[open.len()..].starts_with([' ', '>', '/', '\n', '\t', '\r']) {
            rest = &rest[end..];
            continue;
        }
        if tag.ends_with("/>") {
            out.push((tag, ""));
            rest = &rest[end..];
            continue;
        }
        let to = rest.find(&close).unwrap();
        out.push((tag, &rest[end + 1..to]));
        rest = &rest[to..];
    }
    out
}

fn without_comments(xml: &str) -> String {
    let mut parts = xml.split("<!--");
    let mut out = parts.next().unwrap().to_owned();
    for p in parts {
        out.push_str(p.split_once("-->").unwrap().1);
    }
    out
}

fn cases(group: &str) -> Vec<Case> {
    elements(group, "test")
        .into_iter()
        .map(|(tag, body)| {
            let (expr_tag, expression) = elements(body, "expression")[0];
            Case {
                name: attribute(tag, "name").unwrap(),
                input: attribute(tag, "inputfile").unwrap_or_default(),
                expression: unescape(expression),
                invalid: attribute(expr_tag, "invalid"),
                predicate: attribute(tag, "predicate").as_deref() == Some("true"),
                output: elements(body, "output")
                    .into_iter()
                    .map(|(_, text)| unescape(text))
                    .collect(),
            }
        })
        .collect()
}

/// `Ok`, or why not.
fn run(case: &Case, input: &str) -> Result<(), String> {
    let expression = match Expression::parse(&case.expression) {
        Ok(e) => e,
        Err(ParseError::Unsupported(f)) if case.invalid.is_none() => return Err(format!("`{f}` is not supported")),
        Err(_) if case.invalid.is_some() => return Ok(()),
        Err(e) => return Err(e.to_string()),
    };
    let resource = parse(input).unwrap();
    let result = expression.evaluate(&resource);
    match (&case.invalid, result) {
        (Some(_), Err(_)) => Ok(()),
        (Some(kind), Ok(_)) if kind == "semantic" => {
            Err("expressions are not checked against the types beforehand".into())
        }
        (Some(_), Ok(_)) => Err("no error where the suite wants one".into()),
        (None, Err(e)) => Err(e.to_string()),
        (None, Ok(items)) => {
            let text = |i: &Item| i.to_string().trim_start_matches(['@', 'T']).to_owned();
            let found: Vec<String> = if case.predicate {
                vec![(!items.is_empty()).to_string()]
            } else {
                items.iter().map(text).collect()
            };
            let expect: Vec<String> = case
                .output
                .iter()
                .map(|t| t.trim_start_matches(['@', 'T']).to_owned())
                .collect();
            if found == expect {
                Ok(())
            } else {
                Err("another result".into())
            }
        }
    }
}

#[test]
fn the_fhirpath_suite() {
    let Some(shared) = common::shared_or_skip(937, "FHIRPath cases") else {
        return;
    };
    let mut inputs: BTreeMap<String, String> = BTreeMap::new();
    let mut suite = String::new();
    for archive in [
        "fhir-r4-examples/examples-instances.tar.zst",
        "fhir-r4-examples/examples-conformance.tar.zst",
        "fhir-r4-suites/fhirpath.tar.zst",
    ] {
        for (name, bytes) in common::tar(&shared.join(archive)) {
            let name = name.rsplit('/').next().unwrap().to_owned();
            if name == "tests-fhir-r4.xml" {
                suite = without_comments(&String::from_utf8(bytes).unwrap());
            } else if let Some(stem) = name.strip_suffix(".json") {
                inputs.insert(stem.to_owned(), String::from_utf8_lossy(&bytes).into_owned());
            }
        }
    }
    let mut out = String::from("| group | pass | of | why not |\n| --- | --- | --- | --- |\n");
    let (mut passed, mut all, mut groups) = (0, 0, 0);
    for (tag, body) in elements(&suite, "group") {
        let cases = cases(body);
        let mut why: BTreeMap<String, usize> = BTreeMap::new();
        let mut good = 0;
        for case in &cases {
            let stem = case.input.split('.').next().unwrap();
            let result = match inputs.get(stem) {
                _ if case.input.is_empty() => run(case, "{\"resourceType\":\"Basic\",\"code\":{\"text\":\"x\"}}"),
                Some(text) => run(case, text),
                None => Err("its input is not among the JSON files here".to_owned()),
            };
            match result {
                Ok(()) => good += 1,
                Err(reason) => {
                    println!("{}: {reason}: {}", case.name, case.expression.trim());
                    *why.entry(reason).or_default() += 1;
                }
            }
        }
        passed += good;
        all += cases.len();
        groups += usize::from(good == cases.len());
        if good < cases.len() {
            let why: Vec<_> = why.iter().map(|(r, n)| format!("{r} ({n})")).collect();
            writeln!(
                out,
                "| {} | {good} | {} | {} |",
                attribute(tag, "name").unwrap(),
                cases.len(),
                why.join("; ")
            )
            .unwrap();
        }
    }
    writeln!(
        out,
        "\n{passed} of {all} cases pass; {groups} groups, not listed, pass whole."
    )
    .unwrap();
    println!("{passed} of {all} FHIRPath cases pass");
    compare("fhirpath", &out);
}

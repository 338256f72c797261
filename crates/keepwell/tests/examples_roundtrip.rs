//! All official R4 example instances go in through PUT and come back equal: as JSON trees, decimals digit for digit, but for
//! `meta.versionId` and `meta.lastUpdated`.
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

use support::Server;
use support::data;
use support::tree::Tree;

/// Examples that the suite itself knows as faulty, with the reason for which they are refused.
const FAULTY: &[(&str, &str)] = &[
    (
        "activitydefinition-servicerequest-example.json",
        "an empty narrative breaks txt-2",
    ),
    (
        "activitydefinition-supplyrequest-example.json",
        "an empty narrative breaks txt-2",
    ),
    ("eventdefinition-example.json", "an empty narrative breaks txt-2"),
    (
        "questionnaire-zika-virus-exposure-assessment.json",
        "an empty narrative breaks txt-2",
    ),
    (
        "devicemetric-example.json",
        "`parent` refers to a type other than Device",
    ),
    (
        "deviceusestatement-example.json",
        "`reasonReference` refers to a type outside its list",
    ),
    (
        "medicationrequest0301.json",
        "`dispenseRequest.performer` refers to a type other than Organization",
    ),
    (
        "observation-example-clinical-gender.json",
        "`performer` refers to a type outside its list",
    ),
];

#[test]
fn the_official_examples_round_trip() {
    let Some(folder) = data::set("fhir-r4-examples", 741, "official examples") else {
        return;
    };
    let examples = data::tar_zst(&folder.join("examples-instances.tar.zst"));
    assert_eq!(examples.len(), 741);
    let server = Server::empty();
    let mut client = server.client();
    let mut wrong = Vec::new();
    let mut refused = Vec::new();
    for (file, text) in &examples {
        let name = file.rsplit('/').next().unwrap_or(file);
        let sent = Tree::parse(text);
        let kind = sent
            .member("resourceType")
            .map(Tree::text)
            .unwrap_or_default()
            .to_owned();
        let id = sent.member("id").map(Tree::text).unwrap_or_default().to_owned();
        let answer = if id.is_empty() {
            client.send("POST", &format!("/fhir/{kind}"), &[], Some(text))
        } else {
            client.send("PUT", &format!("/fhir/{kind}/{id}"), &[], Some(text))
        };
        if !matches!(answer.status, 200 | 201) {
            refused.push(name.to_owned());
            if !FAULTY.iter().any(|(known, _)| *known == name) {
                wrong.push(format!(
                    "{name}: {} {}",
                    answer.status,
                    answer.text().chars().take(600).collect::<String>()
                ));
            }
            continue;
        }
        let (id, _) = answer.location();
        let read = client.get(&format!("/fhir/{kind}/{id}"));
        if read.status != 200 {
            wrong.push(format!("{name}: read {}", read.status));
            continue;
        }
        for (what, back) in [("write", &answer.body), ("read", &read.body)] {
            let back = Tree::parse(back).without_server_meta();
            let mut sent = sent.clone().without_server_meta();
            let given_another_id = back.member("id") != sent.member("id");
            if let (Tree::Object(members), true) = (&mut sent, given_another_id) {
                members.insert("id".into(), Tree::Text(id.clone()));
            }
            if let Some(difference) = sent.difference(&back) {
                wrong.push(format!("{name}: {what}: {difference}"));
            }
        }
    }
    println!(
        "{} examples, {} refused, {} wrong",
        examples.len(),
        refused.len(),
        wrong.len()
    );
    for (known, reason) in FAULTY {
        assert!(
            refused.iter().any(|name| name == known),
            "{known} is accepted now; its reason was: {reason}"
        );
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        examples.len(),
        wrong.join("\n")
    );
}

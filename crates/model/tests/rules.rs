//! One defect each, and what validation says about it: the code and the FHIRPath of the faulty element.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code fails by panicking")]

use keepwell_model::json::parse;
use keepwell_model::schema::{Mode, validate};

/// The issues as `code expression[ key]`, joined by `;`.
fn found(text: &str) -> String {
    let v = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let mut out = Vec::new();
    for i in validate(&v, Mode::Create) {
        let key = i
            .diagnostics
            .split_once(": ")
            .map(|(k, _)| k)
            .filter(|k| i.code == "invariant" && k.contains('-'));
        out.push(
            [Some(i.code), i.expression.as_deref(), key]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" "),
        );
    }
    out.join("; ")
}

fn check(cases: &[(&str, &str)]) {
    for (text, expect) in cases {
        assert_eq!(found(text), *expect, "{text}");
    }
}

const OBSERVATION: &str = r#""resourceType":"Observation","status":"final","code":{"text":"x"}"#;

#[test]
fn structure() {
    check(&[
        (r#"{"resourceType":"Patient"}"#, ""),
        (r"[]", "structure"),
        (r"{}", "required"),
        (r#"{"resourceType":"Patientt"}"#, "structure"),
        (r#"{"resourceType":7}"#, "structure"),
        (r#"{"resourceType":"DomainResource"}"#, "structure"),
        (
            r#"{"resourceType":"Patient","shoeSize":4}"#,
            "structure Patient.shoeSize",
        ),
        (r#"{"resourceType":"Patient","ärger <script>":4}"#, "structure Patient"),
        (
            r#"{"resourceType":"Patient","deceased":true}"#,
            "structure Patient.deceased",
        ),
        (
            r#"{"resourceType":"Patient","deceasedString":"x"}"#,
            "structure Patient.deceasedString",
        ),
        (r#"{"resourceType":"Patient","deceasedBoolean":true}"#, ""),
        (
            r#"{"resourceType":"Patient","name":{"family":"x"}}"#,
            "structure Patient.name",
        ),
        (r#"{"resourceType":"Patient","name":[]}"#, "structure Patient.name"),
        (r#"{"resourceType":"Patient","name":[{}]}"#, "structure Patient.name[0]"),
        (
            r#"{"resourceType":"Patient","name":[null]}"#,
            "structure Patient.name[0]",
        ),
        (
            r#"{"resourceType":"Patient","name":["x"]}"#,
            "structure Patient.name[0]",
        ),
        (
            r#"{"resourceType":"Patient","name":[{"id":"x"}]}"#,
            "structure Patient.name[0]",
        ),
        (
            r#"{"resourceType":"Patient","gender":["male"]}"#,
            "structure Patient.gender",
        ),
        (
            r#"{"resourceType":"Patient","maritalStatus":[{"text":"x"}]}"#,
            "structure Patient.maritalStatus",
        ),
        (
            r#"{"resourceType":"Patient","maritalStatus":null}"#,
            "structure Patient.maritalStatus",
        ),
        (
            r#"{"resourceType":"Patient","birthDate":null}"#,
            "structure Patient.birthDate",
        ),
        (
            r#"{"resourceType":"Patient","_name":[{"family":"x"}]}"#,
            "structure Patient.name",
        ),
        (
            r#"{"resourceType":"Patient","name":[{"given":["a",7]}]}"#,
            "value Patient.name[0].given[1]",
        ),
        (
            r#"{"resourceType":"Patient","name":[{"given":["a",""]}]}"#,
            "value Patient.name[0].given[1]",
        ),
        (r#"{"resourceType":"Patient","id":"a_b"}"#, "value Patient.id"),
        (r#"{"resourceType":"Patient","active":"true"}"#, "value Patient.active"),
        (
            r#"{"resourceType":"Patient","birthDate":"2023-02-29"}"#,
            "value Patient.birthDate",
        ),
        (
            r#"{"resourceType":"Patient","multipleBirthInteger":2147483648}"#,
            "value Patient.multipleBirth.ofType(integer)",
        ),
        (
            &format!("{{{OBSERVATION},\"valueQuantity\":{{\"value\":\"1\"}}}}"),
            "value Observation.value.ofType(Quantity).value",
        ),
        (
            &format!("{{{OBSERVATION},\"valueQuantity\":{{\"value\":1}},\"valueString\":\"x\"}}"),
            "structure Observation.value.ofType(string)",
        ),
        (
            &format!("{{{OBSERVATION},\"valueString\":\"x\",\"_valueString\":{{\"id\":\"a\"}}}}"),
            "",
        ),
        (
            r#"{"resourceType":"Observation","status":"final"}"#,
            "required Observation.code",
        ),
        (
            r#"{"resourceType":"Questionnaire","status":"draft","item":[{"linkId":"1","type":"group","item":[{"linkId":"2","type":"x"}]}]}"#,
            "code-invalid Questionnaire.item[0].item[0].type",
        ),
    ]);
}

#[test]
fn companions_of_primitives() {
    const EXT: &str = r#"{"extension":[{"url":"http://x","valueCode":"y"}]}"#;
    let patient = |rest: &str| format!("{{\"resourceType\":\"Patient\",{rest}}}");
    for (rest, expect) in [
        (format!("\"_birthDate\":{EXT}"), ""),
        (format!("\"birthDate\":\"2024\",\"_birthDate\":{EXT}"), ""),
        (
            "\"_birthDate\":{}".into(),
            "structure Patient.birthDate; structure Patient.birthDate",
        ),
        (
            "\"_birthDate\":{\"id\":\"x\"}".into(),
            "structure Patient.birthDate; structure Patient.birthDate",
        ),
        ("\"birthDate\":\"2024\",\"_birthDate\":{\"id\":\"x\"}".into(), ""),
        ("\"_birthDate\":\"2024\"".into(), "structure Patient.birthDate"),
        ("\"_birthDate\":null".into(), "structure Patient.birthDate"),
        (
            "\"_birthDate\":{\"extension\":[{\"url\":\"http://x\"}]}".into(),
            "invariant Patient.birthDate.extension[0] ext-1",
        ),
        (
            format!("\"name\":[{{\"given\":[\"a\",null],\"_given\":[null,{EXT}]}}]"),
            "",
        ),
        (
            format!("\"name\":[{{\"given\":[\"a\",null],\"_given\":[{EXT},null]}}]"),
            "structure Patient.name[0].given[1]",
        ),
        (
            format!("\"name\":[{{\"given\":[\"a\"],\"_given\":[null,{EXT}]}}]"),
            "structure Patient.name[0].given",
        ),
        (format!("\"name\":[{{\"_given\":[{EXT}]}}]"), ""),
        (
            format!("\"name\":[{{\"_given\":{EXT}}}]"),
            "structure Patient.name[0].given",
        ),
        (
            "\"name\":[{\"given\":[null]}]".into(),
            "structure Patient.name[0].given[0]",
        ),
    ] {
        assert_eq!(found(&patient(&rest)), expect, "{rest}");
    }
}

#[test]
fn bindings() {
    check(&[
        (
            r#"{"resourceType":"Patient","gender":"man"}"#,
            "code-invalid Patient.gender",
        ),
        (r#"{"resourceType":"Patient","gender":"male"}"#, ""),
        (
            r#"{"resourceType":"Condition","subject":{"reference":"Patient/a"},"clinicalStatus":{"coding":[{"system":"http://x","code":"active"}]}}"#,
            "code-invalid Condition.clinicalStatus",
        ),
        (
            r#"{"resourceType":"Condition","subject":{"reference":"Patient/a"},"clinicalStatus":{"text":"active"}}"#,
            "code-invalid Condition.clinicalStatus",
        ),
        (
            r#"{"resourceType":"Condition","subject":{"reference":"Patient/a"},"clinicalStatus":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/condition-clinical","code":"active"}]}}"#,
            "",
        ),
        (
            r#"{"resourceType":"Binary","contentType":"a b"}"#,
            "code-invalid Binary.contentType",
        ),
    ]);
}

#[test]
fn references() {
    let subject = |s: &str| format!("{{{OBSERVATION},\"subject\":{{\"reference\":\"{s}\"}}}}");
    for (reference, expect) in [
        ("Patient/a", ""),
        ("http://x.org/fhir/Patient/a", ""),
        ("urn:uuid:c757873d-ec9a-4326-a141-556f43239520", ""),
        ("Patient?identifier=x|y", ""),
        ("Practitioner/a", "value Observation.subject.reference"),
        (
            "http://x.org/fhir/Practitioner/a/_history/2",
            "value Observation.subject.reference",
        ),
        ("#p", "invariant Observation.subject.reference ref-1"),
    ] {
        assert_eq!(found(&subject(reference)), expect, "{reference}");
    }
    let with = |contained: &str, rest: &str| format!("{{{OBSERVATION},\"contained\":[{contained}]{rest}}}");
    for (text, expect) in [
        (
            with(
                r#"{"resourceType":"Patient","id":"p"}"#,
                r##","subject":{"reference":"#p"}"##,
            ),
            "",
        ),
        (
            with(
                r#"{"resourceType":"Practitioner","id":"p"}"#,
                r##","subject":{"reference":"#p"}"##,
            ),
            "value Observation.subject.reference",
        ),
        (
            with(r#"{"resourceType":"Patient","id":"p"}"#, ""),
            "invariant Observation.contained[0] dom-3",
        ),
        (
            with(
                r##"{"resourceType":"Provenance","id":"p","target":[{"reference":"#"}],"recorded":"2024-01-01T00:00:00Z","agent":[{"who":{"display":"x"}}]}"##,
                "",
            ),
            "",
        ),
        (
            with(
                r#"{"resourceType":"Patient","id":"p","shoe":1}"#,
                r##","subject":{"reference":"#p"}"##,
            ),
            "structure Observation.contained[0].shoe",
        ),
        (
            with(
                r#"{"resourceType":"Patient","id":"p","meta":{"versionId":"1"}}"#,
                r##","subject":{"reference":"#p"}"##,
            ),
            "invariant Observation.contained[0].meta dom-4",
        ),
        (
            with(r#"{"resourceType":"Patient"}"#, ""),
            "required Observation.contained[0].id",
        ),
    ] {
        assert_eq!(found(&text), expect, "{text}");
    }
}

#[test]
fn resources_inside_others_are_checked() {
    check(&[
        (
            r#"{"resourceType":"Bundle","type":"collection","entry":[{"resource":{"resourceType":"Patient","gender":"x"}}]}"#,
            "code-invalid Bundle.entry[0].resource.gender",
        ),
        (
            r#"{"resourceType":"Parameters","parameter":[{"name":"a","resource":{"resourceType":"Patient","birthDate":"x"}}]}"#,
            "value Parameters.parameter[0].resource.birthDate",
        ),
        (
            r#"{"resourceType":"Patient","extension":[{"url":"http://x","extension":[{"url":"a","valueBoolean":7}]}]}"#,
            "value Patient.extension[0].extension[0].value.ofType(boolean)",
        ),
        (
            r#"{"resourceType":"Patient","extension":[{"url":"http://x","valueBoolean":true,"extension":[{"url":"a","valueBoolean":true}]}]}"#,
            "invariant Patient.extension[0] ext-1",
        ),
        (
            r#"{"resourceType":"Patient","extension":[{"valueBoolean":true}]}"#,
            "required Patient.extension[0].url",
        ),
        (
            r#"{"resourceType":"Patient","text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\"><script>x</script></div>"}}"#,
            "invariant Patient.text.div",
        ),
    ]);
}

#[test]
fn invariants() {
    let observation = |rest: &str| format!("{{{OBSERVATION},{rest}}}");
    check(&[
        (
            &observation(r#""valueString":"x","dataAbsentReason":{"text":"y"}"#),
            "invariant Observation obs-6",
        ),
        (
            &observation(r#""referenceRange":[{"appliesTo":[{"text":"x"}]}]"#),
            "invariant Observation.referenceRange[0] obs-3",
        ),
        (
            r#"{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"a","code":"b"}]},"valueString":"x","component":[{"code":{"coding":[{"code":"b","system":"a"}]}}]}"#,
            "invariant Observation obs-7",
        ),
        (
            r#"{"resourceType":"Observation","status":"final","code":{"coding":[{"system":"a","code":"b"}]},"valueString":"x","component":[{"code":{"coding":[{"code":"c","system":"a"}]}}]}"#,
            "",
        ),
        (
            &observation(r#""valueQuantity":{"value":1,"code":"mg"}"#),
            "invariant Observation.value.ofType(Quantity) qty-3",
        ),
        (
            &observation(r#""effectivePeriod":{"start":"2024-05","end":"2024-04"}"#),
            "invariant Observation.effective.ofType(Period) per-1",
        ),
        (
            &observation(r#""effectivePeriod":{"start":"2024","end":"2024-04"}"#),
            "",
        ),
        (
            &observation(r#""effectivePeriod":{"start":"2024-05-01T10:00:00+02:00","end":"2024-05-01T08:30:00Z"}"#),
            "",
        ),
        (
            &observation(r#""valueRange":{"low":{"value":2.0},"high":{"value":1.99}}"#),
            "invariant Observation.value.ofType(Range) rng-2",
        ),
        (
            &observation(r#""referenceRange":[{"low":{"value":2,"comparator":"<"}}]"#),
            "invariant Observation.referenceRange[0].low sqty-1",
        ),
        (
            r#"{"resourceType":"Patient","contact":[{"gender":"male"}]}"#,
            "invariant Patient.contact[0] pat-1",
        ),
        (
            r#"{"resourceType":"Patient","telecom":[{"value":"1"}]}"#,
            "invariant Patient.telecom[0] cpt-2",
        ),
        (
            r#"{"resourceType":"Patient","photo":[{"data":"QUJD"}]}"#,
            "invariant Patient.photo[0] att-1",
        ),
        (
            r#"{"resourceType":"Organization","active":true}"#,
            "invariant Organization org-1",
        ),
        (
            r#"{"resourceType":"Organization","name":"x","telecom":[{"system":"phone","use":"work"},{"system":"phone","use":"home"}]}"#,
            "invariant Organization.telecom[1] org-3",
        ),
        (
            r#"{"resourceType":"Bundle","type":"collection","entry":[{"resource":{"resourceType":"Patient"},"request":{"method":"POST","url":"Patient"}}]}"#,
            "invariant Bundle bdl-3",
        ),
        (
            r#"{"resourceType":"Bundle","type":"document","timestamp":"2024-01-01T00:00:00Z","identifier":{"system":"a","value":"b"},"entry":[{"resource":{"resourceType":"Patient"}}]}"#,
            "invariant Bundle bdl-11",
        ),
        (
            r#"{"resourceType":"Questionnaire","status":"draft","item":[{"linkId":"1","type":"string"},{"linkId":"2","type":"group","item":[{"linkId":"1","type":"string"}]}]}"#,
            "invariant Questionnaire que-2",
        ),
        (
            r#"{"resourceType":"Questionnaire","status":"draft","item":[{"linkId":"1","type":"string","enableWhen":[{"question":"2","operator":"exists","answerBoolean":true}]}]}"#,
            "",
        ),
        (
            r#"{"resourceType":"Questionnaire","status":"draft","item":[{"linkId":"1","type":"string","enableWhen":[{"question":"2","operator":"exists","answerInteger":1}]}]}"#,
            "invariant Questionnaire.item[0].enableWhen[0] que-7",
        ),
        (
            r#"{"resourceType":"CodeSystem","status":"draft","content":"complete","concept":[{"code":"a","concept":[{"code":"a"}]}]}"#,
            "invariant CodeSystem csd-1",
        ),
        (r#"{"resourceType":"Timing"}"#, "structure"),
        (
            r#"{"resourceType":"ServiceRequest","status":"active","intent":"order","subject":{"reference":"Patient/a"},"occurrenceTiming":{"repeat":{"duration":1}}}"#,
            "invariant ServiceRequest.occurrence.ofType(Timing).repeat tim-1",
        ),
        (
            r#"{"resourceType":"RiskAssessment","status":"final","subject":{"reference":"Patient/a"},"prediction":[{"probabilityDecimal":100.01}]}"#,
            "invariant RiskAssessment.prediction[0] ras-2",
        ),
        (
            r#"{"resourceType":"MedicationRequest","status":"active","intent":"order","subject":{"reference":"Patient/a"},"medicationCodeableConcept":{"text":"x"},"dosageInstruction":[{"maxDosePerPeriod":{"numerator":{"value":1}}}]}"#,
            "invariant MedicationRequest.dosageInstruction[0].maxDosePerPeriod rat-1",
        ),
    ]);
}

#[test]
fn an_update_needs_its_id() {
    let v = parse(r#"{"resourceType":"Patient"}"#).unwrap();
    let issues = validate(&v, Mode::Update);
    assert_eq!(issues.first().and_then(|i| i.expression.as_deref()), Some("Patient.id"));
}

#[test]
fn diagnostics_never_quote_values() {
    let secret = "Zuckerkandl";
    let text = format!(
        r##"{{"resourceType":"Patient","gender":"{secret}","birthDate":"{secret}","name":[{{"use":"{secret}","period":{{"start":"{secret}"}}}}],"active":"{secret}","link":[{{"other":{{"reference":"{secret}/1"}},"type":"{secret}"}}],"multipleBirthInteger":"{secret}","text":{{"status":"{secret}","div":"{secret}"}},"contained":[{{"resourceType":"{secret}"}}],"generalPractitioner":[{{"reference":"#{secret}"}}]}}"##
    );
    let issues = validate(&parse(&text).unwrap(), Mode::Create);
    assert!(issues.len() >= 8, "{issues:?}");
    assert!(!format!("{issues:?}").contains(secret), "{issues:?}");
}

#[test]
fn a_hostile_body_is_answered_in_bounds() {
    let many = format!(
        "{{\"resourceType\":\"Patient\",\"name\":[{}]}}",
        vec!["{}"; 100_000].join(",")
    );
    assert_eq!(validate(&parse(&many).unwrap(), Mode::Create).len(), 50);
    // Many contained resources and many references to them: linear too.
    let contained: Vec<_> = (0..40_000)
        .map(|i| format!("{{\"resourceType\":\"Patient\",\"id\":\"{i}\"}}"))
        .collect();
    let refs: Vec<_> = (0..40_000)
        .rev()
        .map(|i| format!("{{\"reference\":\"#{i}\"}}"))
        .collect();
    let big = format!(
        "{{{OBSERVATION},\"contained\":[{}],\"performer\":[{}]}}",
        contained.join(","),
        refs.join(",")
    );
    assert_eq!(found(&big), "");
    // Quadratic by nature: given up in bounds rather than worked through.
    let codings: Vec<_> = (0..20_000).map(|i| format!("{{\"code\":\"{i}\"}}")).collect();
    let codings = codings.join(",");
    let other = codings.replace("\"code\":\"", "\"code\":\"x");
    let big = format!(
        r#"{{"resourceType":"Observation","status":"final","valueBoolean":true,"code":{{"coding":[{codings}]}},"component":[{{"code":{{"coding":[{other}]}}}}]}}"#
    );
    assert_eq!(found(&big), "too-costly Observation");
    // isDistinct over many different link ids stays linear.
    let items: Vec<_> = (0..20_000)
        .map(|i| format!("{{\"linkId\":\"{i}\",\"type\":\"string\"}}"))
        .collect();
    let big = format!(
        "{{\"resourceType\":\"Questionnaire\",\"status\":\"draft\",\"item\":[{}]}}",
        items.join(",")
    );
    assert_eq!(found(&big), "");
}

#[test]
fn deep_nesting_fits_a_small_stack() {
    let mut item = String::from(r#"{"linkId":"x","type":"string"}"#);
    for i in 0..46 {
        item = format!(r#"{{"linkId":"{i}","type":"group","item":[{item}]}}"#);
    }
    let questionnaire = format!(r#"{{"resourceType":"Questionnaire","status":"draft","item":[{item}]}}"#);
    let mut extension = String::from(r#"{"url":"http://x","valueBoolean":true}"#);
    for _ in 0..46 {
        extension = format!(r#"{{"url":"http://x","extension":[{extension}]}}"#);
    }
    let patient = format!(r#"{{"resourceType":"Patient","extension":[{extension}]}}"#);
    let mut bundle = String::from(r#"{"resourceType":"Patient"}"#);
    for _ in 0..30 {
        bundle = format!(r#"{{"resourceType":"Bundle","type":"collection","entry":[{{"resource":{bundle}}}]}}"#);
    }
    let run = move || {
        [questionnaire, patient, bundle]
            .iter()
            .map(|t| found(t))
            .collect::<String>()
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap();
    assert_eq!(thread.join().unwrap(), "");
}

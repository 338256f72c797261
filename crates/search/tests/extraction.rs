//! Extraction against values read from the resources by hand.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use keepwell_model::json;
use keepwell_model::reference::Base;
use keepwell_model::types::ResourceType;
use keepwell_search::definition;
use keepwell_search::extract::extract;
use keepwell_search::term::Term;

/// One term a line: `code: value`, in the order of the parameters' names.
fn show(text: &str) -> String {
    let v = json::parse(text).unwrap();
    let t = ResourceType::from_name(v.str("resourceType").unwrap()).unwrap();
    let extracted = extract(t, &v, &Base::new("here"));
    assert!(extracted.terms.is_sorted_by_key(|(p, _)| *p));
    let lines: Vec<String> = extracted
        .terms
        .iter()
        .map(|(p, term)| format!("{}: {}", definition::param(t, *p).unwrap().code, value(term)))
        .collect();
    lines.join("\n")
}

fn value(t: &Term<'_>) -> String {
    let or = |s: &Option<std::borrow::Cow<'_, str>>| s.as_deref().unwrap_or("-").to_owned();
    let day = |ms: i64| match ms {
        i64::MIN => "..".to_owned(),
        i64::MAX => "..".to_owned(),
        ms => keepwell_model::time::Timestamp(ms)
            .to_string()
            .replace("T00:00:00.000Z", ""),
    };
    match t {
        Term::Token { system, code } => format!("{}|{code}", or(system)),
        Term::Text(s) => format!("text {s}"),
        Term::OfType { system, code, value } => format!("type {system}|{code}|{value}"),
        Term::Str(s) => format!("\"{s}\""),
        Term::Reference { target, id } => format!("{target}/{id}"),
        Term::Url(s) => format!("url {s}"),
        Term::ReferenceIdentifier { system, value } => format!("identifier {}|{value}", or(system)),
        Term::Date { lo, hi } => format!("{} to {}", day(*lo), day(*hi)),
        Term::Number { lo, hi } => format!("{lo}..{hi}"),
        Term::Quantity {
            lo,
            hi,
            system,
            code,
            unit,
        } => {
            format!("{lo}..{hi} {}|{}|{}", or(system), or(code), or(unit))
        }
        Term::Uri(s) => format!("uri {s}"),
        Term::Tuple(parts) => parts
            .iter()
            .map(|p| p.iter().map(value).collect::<Vec<_>>().join(", "))
            .collect::<Vec<_>>()
            .join(" $ "),
    }
}

#[track_caller]
fn check(resource: &str, expected: &str) {
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let found = show(resource);
    assert_eq!(found.lines().collect::<Vec<_>>(), expected, "\n{found}");
}

#[test]
fn patient() {
    check(
        r##"{"resourceType":"Patient","id":"p","meta":{"profile":["http://x/p|1.2"],"source":"urn:s",
          "security":[{"system":"http://c","code":"R","display":"restricted"}],"tag":[{"code":"t"}],"versionId":"3",
          "lastUpdated":"2020-01-01T00:00:00Z"},
          "identifier":[{"system":"http://mrn","value":"12","type":{"coding":[{"system":"http://t","code":"MR"}],"text":"Record"}},
            {"value":"34"},{"system":"http://only-system"}],
          "active":true,"name":[{"family":"Müller","given":["Ana","Bo"],"prefix":["Dr"],"text":"Dr Ana Müller"},{"given":["Ana"]}],
          "telecom":[{"system":"phone","value":"555","use":"home"},{"system":"email","value":"a@b"},{"system":"fax"}],
          "gender":"female","birthDate":"1970-03","_birthDate":{"id":"x"},
          "address":[{"use":"home","line":["1 Way","Flat 2"],"city":"Bonn","postalCode":"531","country":"DE"}],
          "communication":[{"language":{"coding":[{"system":"urn:ietf:bcp:47","code":"de"}],"text":""}}],
          "generalPractitioner":[{"reference":"Practitioner/d/_history/2","display":"D"},{"reference":"#g"},
            {"reference":"http://else/fhir/Practitioner/9"},{"identifier":{"system":"http://npi","value":"77"}}],
          "managingOrganization":{"reference":"urn:uuid:1"},
          "link":[{"other":{"reference":"Patient/q"},"type":"seealso"}]}"##,
        r#"
          _profile: uri http://x/p|1.2
          _profile: uri http://x/p
          _security: http://c|R
          _security: text restricted
          _source: uri urn:s
          _tag: -|t
          active: -|true
          address: "1 Way"
          address: "Flat 2"
          address: "Bonn"
          address: "531"
          address: "DE"
          address-city: "Bonn"
          address-country: "DE"
          address-postalcode: "531"
          address-use: http://hl7.org/fhir/address-use|home
          birthdate: 1970-03-01 to 1970-04-01
          deceased: -|false
          email: -|a@b
          family: "Müller"
          gender: http://hl7.org/fhir/administrative-gender|female
          general-practitioner: Practitioner/d
          general-practitioner: url http://else/fhir/Practitioner/9
          general-practitioner: identifier http://npi|77
          given: "Ana"
          given: "Bo"
          given: "Ana"
          identifier: http://mrn|12
          identifier: type http://t|MR|12
          identifier: text Record
          identifier: -|34
          language: urn:ietf:bcp:47|de
          link: Patient/q
          name: "Müller"
          name: "Ana"
          name: "Bo"
          name: "Dr"
          name: "Dr Ana Müller"
          name: "Ana"
          organization: url urn:uuid:1
          phone: home|555
          telecom: home|555
          telecom: -|a@b
        "#,
    );
    for (deceased, expected) in [
        (r#","deceasedBoolean":false"#, "false"),
        (r#","deceasedBoolean":true"#, "true"),
        (r#","deceasedDateTime":"2001-02-03""#, "true"),
        ("", "false"),
    ] {
        let text = format!(r#"{{"resourceType":"Patient"{deceased}}}"#);
        assert!(show(&text).contains(&format!("deceased: -|{expected}")), "{text}");
    }
}

#[test]
fn observation() {
    check(
        r#"{"resourceType":"Observation","status":"final",
          "category":[{"coding":[{"system":"http://cat","code":"vital-signs","display":"vital-signs"}]}],
          "code":{"coding":[{"system":"http://loinc.org","code":"85354-9","display":"Blood Pressure"}],"text":"Blood Pressure"},
          "subject":{"reference":"Patient/p"},"encounter":{"reference":"Encounter/e"},
          "effectiveDateTime":"2017-04-13T02:41:02+02:00","issued":"2017-04-13T00:41:02.105Z",
          "component":[
            {"code":{"coding":[{"system":"http://loinc.org","code":"8480-6"}]},
             "valueQuantity":{"value":120.50,"unit":"mmHg","system":"http://unitsofmeasure.org","code":"mm[Hg]"}},
            {"code":{"coding":[{"system":"http://loinc.org","code":"8462-4"}]},
             "valueQuantity":{"value":80,"comparator":"<","unit":"mmHg"}},
            {"code":{"text":"no value"}}]}"#,
        r#"
          category: http://cat|vital-signs
          category: text vital-signs
          code: http://loinc.org|85354-9
          code: text Blood Pressure
          component-code: http://loinc.org|8480-6
          component-code: http://loinc.org|8462-4
          component-code: text no value
          component-code-value-quantity: http://loinc.org|8480-6 $ 120.5..120.5 http://unitsofmeasure.org|mm[Hg]|mmHg
          component-code-value-quantity: http://loinc.org|8462-4 $ -inf..80 -|-|mmHg
          component-value-quantity: 120.5..120.5 http://unitsofmeasure.org|mm[Hg]|mmHg
          component-value-quantity: -inf..80 -|-|mmHg
          date: 2017-04-13T00:41:02.000Z to 2017-04-13T00:41:03.000Z
          encounter: Encounter/e
          status: http://hl7.org/fhir/observation-status|final
          subject: Patient/p
        "#,
    );
    check(
        r#"{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueCodeableConcept":{"text":"positive"},
          "effectivePeriod":{"start":"2020-01"}}"#,
        r#"
          code: text x
          date: 2020-01-01 to ..
          status: http://hl7.org/fhir/observation-status|final
          value-concept: text positive
          value-string: "positive"
        "#,
    );
    check(
        r#"{"resourceType":"Observation","valueSampledData":{"origin":{"value":10,"unit":"mV"},"period":1,"factor":2,
          "dimensions":1,"data":"-1 0 E 3 U 2"}}"#,
        "value-quantity: 8..16 -|-|mV",
    );
}

#[test]
fn less_common_shapes() {
    check(
        r#"{"resourceType":"Condition","onsetAge":{"value":40,"code":"a","system":"http://unitsofmeasure.org"},
          "abatementPeriod":{"end":"2011"}}"#,
        r#"
          abatement-date: .. to 2012-01-01
          onset-age: 40..40 http://unitsofmeasure.org|a|-
        "#,
    );
    check(
        r#"{"resourceType":"RiskAssessment","prediction":[{"probabilityDecimal":0.02},
          {"probabilityRange":{"low":{"value":1},"high":{"value":2}}}]}"#,
        "probability: 0.02..0.02\nprobability: 1..2",
    );
    check(
        r#"{"resourceType":"Invoice","totalNet":{"value":40.22,"currency":"EUR"}}"#,
        "totalnet: 40.22..40.22 urn:iso:std:iso:4217|EUR|-",
    );
    check(
        r#"{"resourceType":"ServiceRequest","occurrenceTiming":{"event":["2020-02-02","2020-01-01T10:00:00Z"],
          "repeat":{"boundsPeriod":{"start":"2020-01-15","end":"2020-03"}}}}"#,
        "occurrence: 2020-01-01T10:00:00.000Z to 2020-04-01",
    );
    check(
        r#"{"resourceType":"QuestionnaireResponse","questionnaire":"http://x/q|2"}"#,
        "questionnaire: url http://x/q|2",
    );
    check(
        r#"{"resourceType":"Bundle","type":"document","entry":[{"resource":{"resourceType":"Composition","id":"c"}},
          {"resource":{"resourceType":"Patient","id":"p"}}]}"#,
        "composition: Composition/c\ntype: http://hl7.org/fhir/bundle-type|document",
    );
    check(
        r#"{"resourceType":"Group","characteristic":[{"code":{"coding":[{"code":"a"}]},"valueBoolean":true},
          {"code":{"coding":[{"code":"b"}]},"valueQuantity":{"value":1}}]}"#,
        r#"
          characteristic: -|a
          characteristic: -|b
          characteristic-value: -|a $ -|true
          value: -|true
        "#,
    );
    check(
        r#"{"resourceType":"MolecularSequence","referenceSeq":{"chromosome":{"coding":[{"code":"1"}]}},
          "variant":[{"start":5,"end":6}]}"#,
        r#"
          chromosome: -|1
          chromosome-variant-coordinate: -|1 $ 5..5 $ 6..6
          variant-end: 6..6
          variant-start: 5..5
        "#,
    );
    check(
        r#"{"resourceType":"EpisodeOfCare","careManager":{"reference":"PractitionerRole/x"},"patient":{"reference":"Patient/p"}}"#,
        "patient: Patient/p",
    );
    check(
        r#"{"resourceType":"PlanDefinition","relatedArtifact":[{"type":"depends-on","resource":"http://a"},
          {"type":"successor","resource":"http://b"}],"library":["http://l"],
          "useContext":[{"code":{"system":"s","code":"age"},"valueRange":{"low":{"value":1,"unit":"a"}}}]}"#,
        r#"
          context-quantity: 1..inf -|-|a
          context-type: s|age
          context-type-quantity: s|age $ 1..inf -|-|a
          depends-on: url http://a
          depends-on: url http://l
          successor: url http://b
        "#,
    );
}

#[test]
fn values_of_a_wrong_shape_give_nothing() {
    check(
        r#"{"resourceType":"Patient","name":"x","birthDate":7,"gender":{},"active":"true","identifier":[[],null,3],
          "generalPractitioner":{"reference":"Nobody/1"},"meta":[],"link":[{"other":{"reference":"Patient/"}}]}"#,
        "deceased: -|false\ngeneral-practitioner: url Nobody/1\nlink: url Patient/",
    );
}

//! A small clinic asked by every prefix and modifier of R4: parsing, extraction and index together.
//!
//! Each line of the table is a query and the ids it must find, worked out by hand from the resources above it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod common;

use keepwell_model::json;
use keepwell_model::reference::Base;
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_search::extract::extract;
use keepwell_search::index::{Index, Limits, NewRow, RowKind};
use keepwell_search::parse::{Options, compartment, parse};
use keepwell_search::terminology::{Hl7, Stored, expand};

const CLINIC: &str = r##"
{"resourceType":"Organization","id":"hospital","name":"St. Anna","identifier":[{"system":"http://ids","value":"o1"}]}
{"resourceType":"Organization","id":"clinic","name":"Clinic","partOf":{"reference":"Organization/hospital"}}
{"resourceType":"Organization","id":"ward","name":"Ward 3","partOf":{"reference":"Organization/clinic"}}
{"resourceType":"Practitioner","id":"doc","name":[{"family":"Ångström","given":["Eva"]}]}
{"resourceType":"Patient","id":"ann","meta":{"tag":[{"system":"http://tags","code":"vip"}],"security":[{"system":"http://terminology.hl7.org/CodeSystem/v3-Confidentiality","code":"R"}],"profile":["http://profiles/p|2.0"],"source":"http://feeds/a/b"},"active":true,"name":[{"family":"O'Neil","given":["Ann","Marie"]}],"gender":"female","birthDate":"1970-02-03","identifier":[{"system":"http://mrn","value":"12","type":{"coding":[{"system":"http://terminology.hl7.org/CodeSystem/v2-0203","code":"MR"}],"text":"Medical record"}}],"generalPractitioner":[{"reference":"Practitioner/doc"}],"managingOrganization":{"reference":"Organization/ward"},"telecom":[{"system":"phone","value":"555-1","use":"home"},{"system":"email","value":"ann@x.org","use":"work"}]}
{"resourceType":"Patient","id":"bob","active":false,"name":[{"family":"Müller","given":["Bob"]}],"gender":"male","birthDate":"1980","deceasedDateTime":"2020-05-05","identifier":[{"value":"12"}],"managingOrganization":{"reference":"Organization/hospital"},"link":[{"other":{"reference":"Patient/ann"},"type":"seealso"}]}
{"resourceType":"Patient","id":"cho","name":[{"family":"조","given":["민"]}],"birthDate":"1980-12","generalPractitioner":[{"identifier":{"system":"http://npi","value":"77"}}],"managingOrganization":{"reference":"http://elsewhere/fhir/Organization/9"}}
{"resourceType":"Group","id":"g","type":"person","actual":true,"member":[{"entity":{"reference":"Patient/ann"}}],"characteristic":[{"code":{"coding":[{"code":"smoker"}]},"valueBoolean":true,"exclude":false},{"code":{"coding":[{"code":"age"}]},"valueRange":{"low":{"value":10},"high":{"value":20}},"exclude":false}]}
{"resourceType":"Encounter","id":"e1","status":"finished","class":{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"AMB"},"subject":{"reference":"Patient/ann"},"period":{"start":"2019-12-31T23:00:00Z","end":"2020-01-01T01:00:00Z"},"participant":[{"individual":{"reference":"Practitioner/doc"}}]}
{"resourceType":"Encounter","id":"e2","status":"in-progress","class":{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"ACUTE"},"subject":{"reference":"Patient/bob"},"period":{"start":"2020-06-01"},"serviceProvider":{"reference":"Organization/ward"}}
{"resourceType":"Observation","id":"weight","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"29463-7","display":"Body Wéight"}]},"subject":{"reference":"Patient/ann"},"encounter":{"reference":"Encounter/e1"},"effectiveDateTime":"2020-01-01T00:30:00Z","valueQuantity":{"value":70.5,"unit":"kg","system":"http://unitsofmeasure.org","code":"kg"}}
{"resourceType":"Observation","id":"pressure","status":"amended","code":{"coding":[{"system":"http://loinc.org","code":"85354-9"}],"text":"blood pressure"},"subject":{"reference":"Patient/ann"},"effectiveDateTime":"2020-01-02","component":[{"code":{"coding":[{"system":"http://loinc.org","code":"8480-6"}]},"valueQuantity":{"value":120,"unit":"mmHg"}},{"code":{"coding":[{"system":"http://loinc.org","code":"8462-4"}]},"valueQuantity":{"value":80,"unit":"mmHg"}}]}
{"resourceType":"Observation","id":"trace","status":"final","code":{"coding":[{"system":"http://loinc.org","code":"29463-7"}]},"subject":{"reference":"Patient/bob"},"effectivePeriod":{"start":"2020-06-01","end":"2020-06-30"},"valueQuantity":{"value":5,"comparator":"<","unit":"kg","system":"http://unitsofmeasure.org","code":"kg"}}
{"resourceType":"Observation","id":"ofgroup","status":"final","code":{"text":"group thing"},"subject":{"reference":"Group/g"},"valueString":"Straße"}
{"resourceType":"DiagnosticReport","id":"report","status":"final","code":{"text":"r"},"subject":{"reference":"Patient/ann"},"result":[{"reference":"Observation/weight"}]}
{"resourceType":"RiskAssessment","id":"risk","status":"final","subject":{"reference":"Patient/ann"},"prediction":[{"probabilityDecimal":0.8}]}
{"resourceType":"Procedure","id":"here","status":"completed","subject":{"reference":"http://here/fhir/Patient/ann"}}
{"resourceType":"QuestionnaireResponse","id":"canonical","questionnaire":"https://HERE/fhir/Questionnaire/own|1","status":"completed"}
{"resourceType":"Procedure","id":"there","status":"completed","subject":{"reference":"http://elsewhere/fhir/Patient/ann"}}
{"resourceType":"Procedure","id":"many","status":"completed","subject":{"reference":"Group/g"}}
{"resourceType":"Procedure","id":"gone","status":"completed","subject":{"reference":"Patient/gone"}}
{"resourceType":"ValueSet","id":"v1","status":"active","url":"http://sets/a/b"}
{"resourceType":"ValueSet","id":"v2","status":"active","url":"http://sets/a"}
{"resourceType":"QuestionnaireResponse","id":"answers","status":"completed","questionnaire":"http://forms/q|3","subject":{"reference":"Patient/ann"}}
"##;

const TABLE: &str = r"
# strings: starts with, by folded letters; contains; exact
Patient?family=o'n                                  ann
Patient?family=neil
Patient?family:contains=NEIL                        ann
Patient?family=muller                               bob
Patient?family=MÜLL                                 bob
Patient?family:exact=Muller
Patient?family:exact=Müller                         bob
Patient?name=mar                                    ann
Patient?given=bob,ann                               ann bob
Patient?given=ann&given=marie                       ann
Patient?given=ann&given=bob
Patient?family=조                                    cho
Observation?value-string=strasse
Observation?value-string=straß                      ofgroup
Practitioner?name=angs                              doc

# tokens
Patient?gender=female                               ann
Patient?gender=http://hl7.org/fhir/administrative-gender|male  bob
Patient?gender:not=female                           bob cho
Patient?gender:not=female,male                      cho
Patient?gender:missing=true                         cho
Patient?gender:missing=false                        ann bob
Patient?active=true                                 ann
Patient?active=false                                bob
Patient?active:not=true                             bob cho
Patient?deceased=true                               bob
Patient?deceased=false                              ann cho
Patient?identifier=12                               ann bob
Patient?identifier=http://mrn|12                    ann
Patient?identifier=|12                              bob
Patient?identifier=http://mrn|                      ann
Patient?identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|MR|12  ann
Patient?identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|MR|13
Patient?identifier:text=medical                     ann
Patient?telecom=555-1                               ann
Patient?phone=home|555-1                            ann
Patient?email=555-1
Patient?email=ann@x.org                             ann
Observation?code:text=body wei                      weight
Observation?code:text=BLOOD                         pressure
Observation?code:not=http://loinc.org|29463-7       pressure ofgroup
Observation?status=final,amended                    weight pressure trace ofgroup
Patient?gender:in=http://hl7.org/fhir/ValueSet/administrative-gender       ann bob
Patient?gender:not-in=http://hl7.org/fhir/ValueSet/administrative-gender   cho
Patient?gender:in=ValueSet/mine                     bob
Encounter?class:below=http://terminology.hl7.org/CodeSystem/v3-ActCode|_ActEncounterCode  e1 e2
Encounter?class:below=http://terminology.hl7.org/CodeSystem/v3-ActCode|IMP  e2
Encounter?class:above=http://terminology.hl7.org/CodeSystem/v3-ActCode|ACUTE  e2
Encounter?class=AMB                                 e1
Patient?_tag=http://tags|vip                        ann
Patient?_security=R                                 ann
Patient?_security:not=R                             bob cho
Patient?_profile=http://profiles/p                  ann
Patient?_profile=http://profiles/p|2.0              ann
Patient?_profile=http://profiles/p|1.0
Patient?_source:below=http://feeds/a                ann
Patient?_source=http://feeds/a

# dates: the search value and the target are ranges
Patient?birthdate=1970                              ann
Patient?birthdate=1970-02-03                        ann
Patient?birthdate=1980                              bob cho
Patient?birthdate=1980-12                           cho
Patient?birthdate=1980-12-01
Patient?birthdate=ne1980                            ann
Patient?birthdate=ne1980-12                         ann bob
Patient?birthdate=lt1980-06                         ann bob
Patient?birthdate=gt1980-06                         bob cho
Patient?birthdate=ge1980                            bob cho
Patient?birthdate=le1970-02-03                      ann
Patient?birthdate=sa1970-02-03                      bob cho
Patient?birthdate=sa1970-02-02                      ann bob cho
Patient?birthdate=eb1980-12                         ann
Patient?birthdate=ap1975                            ann bob cho
Patient?birthdate=ap1976                            bob cho
Patient?birthdate=ap1950
Patient?death-date:missing=false                    bob
Encounter?date=2020
Encounter?date=gt2020                               e2
Encounter?date=ge2020                               e2
Encounter?date=lt2020                               e1
Encounter?date=sa2020-01-01                         e2
Encounter?date=eb2020-01-02                         e1
Encounter?date=ge2019-12-31&date=le2020-01-01       e1
Encounter?date=2019,2020-06
Observation?date=2020-01-01                         weight
Observation?date=2020-01-01T00:30:00Z               weight
Observation?date=2020-01-01T01:30:00+01:00          weight
Observation?date=2020-01-01T00:30                   weight
Observation?date=2020-01                            weight pressure
Observation?date=2020                               weight pressure trace
Observation?date:missing=true                       ofgroup

# numbers and quantities
RiskAssessment?probability=0.8                      risk
RiskAssessment?probability=0.80                     risk
RiskAssessment?probability=0.81
RiskAssessment?probability=8e-1                     risk
RiskAssessment?probability=gt0.8
RiskAssessment?probability=ge0.8                    risk
RiskAssessment?probability=ap0.75                   risk
RiskAssessment?probability=ne0.8
Observation?value-quantity=70.5                     weight
Observation?value-quantity=70                       
Observation?value-quantity=71                       weight
Observation?value-quantity=70.5|http://unitsofmeasure.org|kg  weight
Observation?value-quantity=70.5||kg                 weight
Observation?value-quantity=70.5||g
Observation?value-quantity=gt70                     weight
Observation?value-quantity=lt5                      trace
Observation?value-quantity=ap75                     weight

# composites
Observation?code-value-quantity=http://loinc.org|29463-7$gt70    weight
Observation?code-value-quantity=29463-7$gt80
Observation?component-code-value-quantity=8480-6$gt100           pressure
Observation?component-code-value-quantity=8462-4$gt100
Observation?combo-code-value-quantity=8462-4$80,29463-7$gt70     weight pressure
Observation?combo-code=8480-6,29463-7                            weight pressure trace
Observation?combo-value-quantity=gt75                            pressure
Group?characteristic-value=smoker$true                           g
Group?characteristic-value=age$true

# references
Observation?subject=Patient/ann                     weight pressure
Observation?subject=ann                             weight pressure
Observation?patient=ann                             weight pressure
Observation?patient=Group/g
Observation?subject=Group/g                         ofgroup
Observation?subject:Group=g                         ofgroup
Observation?subject:Patient=g
Observation?subject=http://here/fhir/Patient/bob    trace
Patient?organization=http://elsewhere/fhir/Organization/9  cho
Patient?general-practitioner:identifier=http://npi|77      cho
Patient?general-practitioner:identifier=78
Patient?organization:below=hospital                 ann bob
Patient?organization:below=clinic                   ann
Patient?organization:above=Organization/ward        ann bob
Organization?partof:below=hospital                  clinic ward
Organization?partof:above=hospital                  clinic
QuestionnaireResponse?questionnaire=http://forms/q      answers
QuestionnaireResponse?questionnaire=http://forms/q|3    answers
QuestionnaireResponse?questionnaire=http://forms/q|4
Encounter?practitioner=doc                          e1
# a reference with this server's own base is the same reference; one with another base is not
Procedure?subject=Patient/ann                       here
Procedure?patient=ann                               here
Procedure?subject:Patient=ann                       here
Procedure?subject=http://here/fhir/Patient/ann      here
Procedure?subject=http://elsewhere/fhir/Patient/ann  there
Procedure?patient=http://here/fhir/Group/g
Procedure?subject=http://here/fhir/Group/g          many
Procedure?subject=https://HERE:8443/fhir/Patient/ann/_history/2  here
Procedure?subject=http://127.0.0.1:1/fhir/Patient/ann  here
Procedure?subject=http://here.evil/fhir/Patient/ann
Procedure?subject=http://here@evil/fhir/Patient/ann
# ... for chains, reverse chains, includes and compartments as well
Procedure?patient.family=o'neil                     here
Patient?_has:Procedure:patient:status=completed     ann
Patient?_has:Procedure:subject:_id=here             ann
Procedure?_id=here&_include=Procedure:subject       here ann
Procedure?_id=there&_include=Procedure:subject      there
Patient?_id=ann&_revinclude=Procedure:patient       ann here
Patient/ann/Procedure?                              here
# ... and canonicals
QuestionnaireResponse?questionnaire=Questionnaire/own          canonical
QuestionnaireResponse?questionnaire=http://here:80/fhir/Questionnaire/own|1  canonical
QuestionnaireResponse?questionnaire=http://elsewhere/fhir/Questionnaire/own
# a parameter that only looks at patients is missing where the subject is something else
Procedure?subject:missing=false                     here there many gone
Procedure?subject:missing=true
Procedure?patient:missing=false                     here there gone
Procedure?patient:missing=true                      many
Observation?patient:missing=true                    ofgroup
Observation?patient:missing=false&status=final      weight trace

# uris
ValueSet?url=http://sets/a                          v2
ValueSet?url:below=http://sets/a                    v1 v2
ValueSet?url:above=http://sets/a/b                  v1 v2

# chains
Observation?patient.family=o'neil                   weight pressure
Observation?subject.name=b                          trace
Observation?subject:Patient.gender:not=female       trace
Observation?patient.general-practitioner.name=ångs  weight pressure
Observation?patient.organization.partof.partof.name=st.     weight pressure
Observation?encounter.class=AMB                     weight
Observation?subject.characteristic=smoker           ofgroup
Observation?patient.gender:missing=true
Encounter?patient.birthdate=lt1975                  e1
Patient?_has:Observation:patient:code=29463-7       ann bob
Patient?_has:Observation:subject:status=amended     ann
Patient?_has:Observation:patient:_has:DiagnosticReport:result:status=final  ann
Patient?_has:Encounter:patient:service-provider.partof=Organization/clinic  bob
Patient?_has:Group:member:_id=g                     ann
Patient?_has:Observation:patient:date=ge2020-06     bob
Practitioner?_has:Patient:general-practitioner:_has:Encounter:patient:class=AMB  doc

# the index's own columns
Patient?_id=ann,bob,nobody                          ann bob
Patient?_id:not=ann                                 bob cho
Patient?_lastUpdated=ge2020                         ann bob cho
Patient?_lastUpdated=lt2020

# compartments
Patient/ann/Observation?                            weight pressure
Patient/ann/Observation?status=amended              pressure
Patient/ann/Patient?                                ann bob
Encounter/e1/Observation?                           weight
Practitioner/doc/Encounter?                         e1
";

fn rt(name: &str) -> ResourceType {
    ResourceType::from_name(name).unwrap()
}

fn clinic() -> Index {
    let mut index = Index::new([3; 16]);
    for (i, line) in CLINIC.lines().filter(|l| !l.is_empty()).enumerate() {
        let v = json::parse(line).unwrap();
        let t = v.str("resourceType").and_then(ResourceType::from_name).unwrap();
        let extracted = extract(t, &v, &Base::new("here"));
        index.apply(&NewRow {
            rid: i as u64 + 1,
            resource_type: t,
            id: v.str("id").unwrap(),
            version: 1,
            // 2020-09-13
            last_updated: 1_600_000_000_000,
            kind: RowKind::Version,
            home: 0,
            labels: 0,
            extracted: Some(&extracted),
        });
    }
    index
}

fn ask(index: &Index, text: &str) -> Result<Vec<String>, String> {
    let mine = json::parse(
        r#"{"compose":{"include":[{"system":"http://hl7.org/fhir/administrative-gender","concept":[{"code":"male"}]}]}}"#,
    );
    let mine = expand(&mine.unwrap(), &Hl7);
    let terminology = Stored(|url: &str| (url == "ValueSet/mine").then(|| mine.clone()).flatten());
    // 2026-01-01
    let now = Timestamp(1_767_225_600_000);
    let base = Base::new("here");
    let options = Options {
        lenient: false,
        now,
        base: &base,
        terminology: &terminology,
    };
    let (path, list) = text.split_once('?').unwrap();
    let list = common::pairs(list);
    let parts: Vec<&str> = path.split('/').collect();
    let mut query = parse(rt(parts.last().unwrap()), &list, &options).map_err(|e| format!("{e:?}"))?;
    if let [owner, id, member] = parts.as_slice() {
        query.clauses.push(compartment(rt(owner), id, rt(member)).unwrap());
    }
    let page = index.search(
        &query,
        u64::MAX,
        &|_| true,
        None,
        Limits {
            page: 100,
            includes: 100,
        },
    );
    let both = page.matches.iter().chain(&page.included);
    Ok(both.map(|v| index.id_of(v.resource_type, v.rid).unwrap()).collect())
}

#[test]
fn every_prefix_and_modifier() {
    let index = clinic();
    let mut wrong = Vec::new();
    let lines = TABLE.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    for line in lines {
        // The ids stand after the first run of two blanks; a query has single ones at most.
        let (text, ids) = line.split_once("  ").unwrap_or((line, ""));
        let mut expected: Vec<&str> = ids.split_whitespace().collect();
        expected.sort_unstable();
        let mut found = ask(&index, text.trim()).unwrap_or_else(|e| vec![e]);
        found.sort_unstable();
        if found != expected {
            wrong.push(format!("{text}: {found:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn order_and_includes() {
    let index = clinic();
    for (text, expected) in [
        ("Patient?_sort=birthdate", "ann bob cho"),
        ("Patient?_sort=-birthdate", "cho bob ann"),
        ("Patient?_sort=gender,-_id", "ann bob cho"),
        ("Patient?_sort=-_id", "cho bob ann"),
        ("Patient?_id=ann&_include=Patient:organization", "ann ward"),
        (
            "Patient?_id=ann&_include=Patient:organization&_include:iterate=Organization:partof",
            "ann ward clinic hospital",
        ),
        (
            "Observation?_id=weight&_include=Observation:patient&_include=Observation:encounter",
            "weight ann e1",
        ),
        ("Observation?_id=ofgroup&_include=Observation:subject", "ofgroup g"),
        ("Observation?_id=ofgroup&_include=Observation:patient", "ofgroup"),
        (
            "Observation?_id=weight&_revinclude=DiagnosticReport:result",
            "weight report",
        ),
        ("Patient?_id=bob&_include=*", "bob hospital ann"),
        ("Patient?_id=bob&_revinclude=Observation:*", "bob trace"),
        (
            "Practitioner?_revinclude=Patient:general-practitioner&_revinclude:iterate=RiskAssessment:patient",
            "doc ann risk",
        ),
    ] {
        let found = ask(&index, text).unwrap();
        let (mut got, mut want): (Vec<&str>, Vec<&str>) = (
            found.iter().map(String::as_str).collect(),
            expected.split(' ').collect(),
        );
        if !text.contains("_sort") {
            got.sort_unstable();
            want.sort_unstable();
        }
        assert_eq!(got, want, "{text}");
    }
}

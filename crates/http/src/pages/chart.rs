//! A patient's compartment as a screen: resources in, words and plots out. Pure; knows neither roles nor the network.
//!
//! A block is `None` when its resource types were not asked for or were withheld: the template then leaves the heading
//! out, so that "no problems recorded" is only ever said of a list that was looked at.

use super::plot::{Plot, Sample, Series};
use super::read::{self, Day, When};
use keepwell_model::json::Value;
use keepwell_model::types::ResourceType;
use std::collections::BTreeMap;

/// Who the chart is about: always at the top of the page.
#[derive(Clone, Debug, Default)]
pub struct Banner {
    /// Logical id.
    pub id: String,
    /// The name to call by.
    pub name: String,
    /// Other names on record.
    pub other_names: Vec<String>,
    /// `23 Apr 1957`; `not recorded` when missing.
    pub birth: String,
    /// Age today, or at death.
    pub age: String,
    /// Administrative gender in words.
    pub sex: String,
    /// Date of death, or only the fact.
    pub died: Option<String>,
    /// Label and value; of a social security number only the last four.
    pub identifiers: Vec<(String, String)>,
    /// Confidentiality labels other than normal.
    pub labels: Vec<String>,
    /// Twin, triplet and so on.
    pub multiple: Option<String>,
    /// Newborns and unknown patients: the name is a placeholder.
    pub temporary_name: bool,
    /// Home address.
    pub address: String,
    /// Telephone.
    pub phone: String,
    /// Language to talk in.
    pub language: String,
}

/// What is known of allergies.
#[derive(Clone, Debug, PartialEq)]
pub enum Allergies {
    /// Not asked for, or withheld.
    Hidden,
    /// Nobody has asked the patient.
    NotRecorded,
    /// Asked: none.
    NoneKnown,
    /// Severe first.
    Known(Vec<Allergy>),
}

/// One allergy or intolerance.
#[derive(Clone, Debug, PartialEq)]
pub struct Allergy {
    /// To what.
    pub substance: String,
    /// What happened, and how bad it was.
    pub reaction: String,
    /// Severe reaction or high criticality.
    pub severe: bool,
    /// The word for it, empty when not severe.
    pub tag: &'static str,
    /// Resolved or refuted ones are not listed; an unconfirmed one says so.
    pub unconfirmed: bool,
}

/// A row of one of the plain lists: what, how, when, who.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Main text.
    pub what: String,
    /// Second line: dose, reason, note.
    pub detail: String,
    /// Date or period.
    pub when: String,
    /// Who recorded or did it.
    pub by: String,
    /// Status in one word where it matters.
    pub state: String,
    /// No longer going on.
    pub past: bool,
    /// Day used for the order.
    sort: Option<Day>,
}

/// A measurement over time.
#[derive(Clone, Debug)]
pub struct Vital {
    /// Heading.
    pub title: String,
    /// Newest value with unit.
    pub latest: String,
    /// Its date.
    pub when: String,
    /// Newest value outside the usual range.
    pub flag: bool,
    /// `usual 60 to 100`; empty where no range applies.
    pub range: String,
    /// The drawing.
    pub plot: Option<Plot>,
    /// Newest first: date and value.
    pub values: Vec<(String, String)>,
}

/// A laboratory test with its newest result.
#[derive(Clone, Debug)]
pub struct Lab {
    /// Name of the test.
    pub test: String,
    /// Newest value with unit.
    pub latest: String,
    /// `high`, `low`, `abnormal`, or empty.
    pub flag: &'static str,
    /// Reference range in words.
    pub range: String,
    /// Date of the newest value.
    pub when: String,
    /// Course over time.
    pub plot: Option<Plot>,
    /// Newest first: date, value, flag.
    pub values: Vec<(String, String, &'static str)>,
}

/// A note or document.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// Title.
    pub title: String,
    /// Kind of document.
    pub kind: String,
    /// When.
    pub when: String,
    /// Who wrote it.
    pub by: String,
    /// The text, where it is plain text kept in the record.
    pub text: Option<String>,
    /// What is attached otherwise.
    pub attachment: String,
    sort: Option<Day>,
}

/// An insurance cover.
#[derive(Clone, Debug, PartialEq)]
pub struct Cover {
    /// Who pays.
    pub payor: String,
    /// Name of the plan.
    pub plan: String,
    /// Number of the subscriber.
    pub number: String,
    /// The patient is the subscriber's ...
    pub relationship: String,
    /// From when until when.
    pub period: String,
    /// Status.
    pub state: String,
}

/// A patient's chart.
#[derive(Clone, Debug)]
pub struct ChartView {
    /// Identity.
    pub banner: Banner,
    /// Allergies.
    pub allergies: Allergies,
    /// Condition.
    pub problems: Option<Vec<Row>>,
    /// MedicationRequest and MedicationStatement.
    pub medications: Option<Vec<Row>>,
    /// MedicationAdministration.
    pub given: Option<Vec<Row>>,
    /// Vital signs.
    pub vitals: Option<Vec<Vital>>,
    /// Laboratory results.
    pub labs: Option<Vec<Lab>>,
    /// Other observations: social history, surveys, examinations.
    pub findings: Option<Vec<Row>>,
    /// Encounter.
    pub encounters: Option<Vec<Row>>,
    /// Immunization.
    pub immunizations: Option<Vec<Row>>,
    /// Procedure.
    pub procedures: Option<Vec<Row>>,
    /// CarePlan and Goal.
    pub plans: Option<Vec<Row>>,
    /// DiagnosticReport.
    pub reports: Option<Vec<Row>>,
    /// DocumentReference.
    pub notes: Option<Vec<Note>>,
    /// FamilyMemberHistory.
    pub family: Option<Vec<Row>>,
    /// RelatedPerson.
    pub contacts: Option<Vec<Row>>,
    /// Appointment.
    pub appointments: Option<Vec<Row>>,
    /// Coverage.
    pub coverage: Option<Vec<Cover>>,
    /// Claim.
    pub claims: Option<Vec<Row>>,
}

/// The resource types a chart can show, with how many of each (newest first) are worth fetching.
pub const SHOWN: [(&str, usize); 19] = [
    ("AllergyIntolerance", 100),
    ("Condition", 300),
    ("MedicationRequest", 200),
    ("MedicationStatement", 100),
    ("MedicationAdministration", 60),
    ("Observation", 1500),
    ("Encounter", 120),
    ("Immunization", 120),
    ("Procedure", 120),
    ("CarePlan", 40),
    ("Goal", 60),
    ("DiagnosticReport", 80),
    ("DocumentReference", 60),
    ("FamilyMemberHistory", 60),
    ("RelatedPerson", 40),
    ("Appointment", 60),
    ("Coverage", 40),
    ("Claim", 120),
    ("ClaimResponse", 120),
];

/// The types a chart can show.
#[must_use]
pub fn shown() -> Vec<(ResourceType, usize)> {
    SHOWN
        .iter()
        .filter_map(|(name, most)| Some((ResourceType::from_name(name)?, *most)))
        .collect()
}

impl Banner {
    /// The banner of a Patient resource.
    #[must_use]
    pub fn from_patient(patient: &Value<'_>, today: Day) -> Self {
        let (name, other_names) = read::names(patient);
        let born = read::first(patient, &["birthDate"]);
        let death = patient.str("deceasedDateTime").and_then(When::parse);
        let dead = death.is_some() || patient.get("deceasedBoolean").and_then(Value::as_bool) == Some(true);
        let age = match (death, dead) {
            (Some(d), _) => read::age(born, d.day()),
            (None, true) => String::new(),
            (None, false) => read::age(born, today),
        };
        let birth = read::date(born);
        let sex = match patient.str("gender") {
            Some("female") => "female",
            Some("male") => "male",
            Some("other") => "other",
            Some("unknown") => "unknown sex",
            _ => "sex not recorded",
        };
        let telecom = read::items(patient, "telecom");
        let phone = telecom
            .iter()
            .find(|t| t.str("system") == Some("phone"))
            .and_then(|t| t.str("value"));
        let language = read::items(patient, "communication")
            .iter()
            .find(|c| c.get("preferred").and_then(Value::as_bool) == Some(true))
            .or_else(|| read::items(patient, "communication").first())
            .map(|c| language(&read::concept_of(c, "language")));
        let multiple = match (patient.get("multipleBirthBoolean"), patient.get("multipleBirthInteger")) {
            (_, Some(n)) => n
                .as_number()
                .map(|n| format!("Twin or multiple birth, number {n}: check the given name")),
            (Some(Value::Bool(true)), _) => Some("Twin or multiple birth: check the given name".to_owned()),
            _ => None,
        };
        Self {
            id: read::first(patient, &["id"]).to_owned(),
            temporary_name: read::items(patient, "name")
                .iter()
                .all(|n| matches!(n.str("use"), Some("temp" | "anonymous"))),
            name,
            other_names,
            birth: if birth.is_empty() {
                "not recorded".to_owned()
            } else {
                birth
            },
            age,
            sex: sex.to_owned(),
            died: dead.then(|| death.map(When::date).unwrap_or_default()),
            identifiers: identifiers(patient),
            labels: labels(patient),
            multiple,
            address: read::items(patient, "address")
                .first()
                .map(read::address)
                .unwrap_or_default(),
            phone: phone.unwrap_or_default().to_owned(),
            language: language.unwrap_or_default(),
        }
    }
}

/// Some names of languages as Patient.communication codes them; any other code is shown as it is.
fn language(code: &str) -> String {
    let name = match code.split('-').next().unwrap_or_default() {
        "ar" => "Arabic",
        "cs" => "Czech",
        "de" => "German",
        "en" => "English",
        "es" => "Spanish",
        "fr" => "French",
        "hi" => "Hindi",
        "id" => "Indonesian",
        "is" => "Icelandic",
        "pl" => "Polish",
        "pt" => "Portuguese",
        "ru" => "Russian",
        "uk" => "Ukrainian",
        "vi" => "Vietnamese",
        "zh" => {
            if code == "zh-HK" {
                "Cantonese"
            } else {
                "Chinese"
            }
        }
        _ => code,
    };
    name.to_owned()
}

fn identifiers(patient: &Value<'_>) -> Vec<(String, String)> {
    const SSN: &str = "http://hl7.org/fhir/sid/us-ssn";
    let mut out = Vec::new();
    for i in read::items(patient, "identifier") {
        let Some(value) = i.str("value").map(str::trim).filter(|v| !v.is_empty()) else {
            continue;
        };
        let system = i.str("system").unwrap_or_default();
        let code = read::code_of(i, "type", "");
        let secret = system == SSN || matches!(code, "SS" | "SB" | "TAX") || nine_digits(value);
        let label = match code {
            _ if secret => "SSN",
            "MR" => "Record",
            "DL" => "Licence",
            "PPN" => "Passport",
            _ => continue,
        };
        let value = if secret {
            let digits: Vec<char> = value.chars().filter(char::is_ascii_alphanumeric).collect();
            let from = digits.len().saturating_sub(4);
            format!("•••-••-{}", digits.iter().skip(from).collect::<String>())
        } else {
            value.to_owned()
        };
        // A UUID as a record number (Synthea) helps nobody to tell people apart.
        let long = value.chars().count() > 24;
        if !long && !out.iter().any(|(l, v)| l == label && *v == value) && out.len() < 4 {
            out.push((label.to_owned(), value));
        }
    }
    out
}

/// Nine digits with or without hyphens look like a social security number, whatever their system says.
fn nine_digits(value: &str) -> bool {
    value.chars().filter(char::is_ascii_digit).count() == 9
        && value.chars().all(|c| c.is_ascii_digit() || c == '-' || c == ' ')
}

fn labels(patient: &Value<'_>) -> Vec<String> {
    let security = patient
        .get("meta")
        .map(|m| read::items(m, "security"))
        .unwrap_or_default();
    security
        .iter()
        .filter_map(|s| match s.str("code")? {
            "N" | "L" | "U" | "M" => None,
            "R" => Some("Restricted".to_owned()),
            "V" => Some("Very restricted".to_owned()),
            code => Some(s.str("display").unwrap_or(code).to_owned()),
        })
        .collect()
}

impl ChartView {
    /// Builds the chart from a Patient, the resources of its compartment and the types that were looked at.
    #[must_use]
    pub fn from_resources(
        patient: &Value<'_>,
        resources: &[Value<'_>],
        looked_at: &[ResourceType],
        today: Day,
    ) -> Self {
        let mut by_type: BTreeMap<&str, Vec<&Value<'_>>> = BTreeMap::new();
        for r in resources.iter().filter(|r| !read::in_error(r)) {
            by_type
                .entry(r.str("resourceType").unwrap_or_default())
                .or_default()
                .push(r);
        }
        let seen = |name: &str| looked_at.iter().any(|t| t.name() == name);
        let of = |name: &str| by_type.get(name).map(Vec::as_slice).unwrap_or_default();
        let block = |name: &str, row: &dyn Fn(&Value<'_>) -> Row| {
            seen(name).then(|| newest_first(of(name).iter().map(|r| row(r)).collect()))
        };
        let birth = read::first(patient, &["birthDate"]);
        let mut medications = block("MedicationRequest", &medication);
        if let Some(list) = &mut medications {
            list.extend(of("MedicationStatement").iter().map(|r| medication(r)));
            list.sort_by_key(|r| r.past);
        }
        let mut problems = block("Condition", &problem);
        if let Some(list) = &mut problems {
            list.sort_by_key(|r| r.past);
        }
        let plans = seen("CarePlan").then(|| of("CarePlan").iter().map(|r| plan(r, of("Goal"))).collect());
        let observations = of("Observation");
        Self {
            banner: Banner::from_patient(patient, today),
            allergies: if seen("AllergyIntolerance") {
                allergies(of("AllergyIntolerance"))
            } else {
                Allergies::Hidden
            },
            problems,
            medications,
            given: block("MedicationAdministration", &administration),
            vitals: seen("Observation").then(|| vitals(observations, birth)),
            labs: seen("Observation").then(|| labs(observations)),
            findings: seen("Observation").then(|| findings(observations)),
            encounters: block("Encounter", &encounter),
            immunizations: block("Immunization", &immunization),
            procedures: block("Procedure", &procedure),
            plans,
            reports: block("DiagnosticReport", &report),
            notes: seen("DocumentReference").then(|| notes(of("DocumentReference"))),
            family: block("FamilyMemberHistory", &family),
            contacts: block("RelatedPerson", &contact),
            appointments: block("Appointment", &appointment),
            coverage: seen("Coverage").then(|| of("Coverage").iter().map(|r| cover(r)).collect()),
            claims: seen("Claim")
                .then(|| newest_first(of("Claim").iter().map(|r| claim(r, of("ClaimResponse"))).collect())),
        }
    }
}

fn newest_first(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|r| std::cmp::Reverse(r.sort));
    rows
}

/// The first of the elements that holds a date: as shown and as a key.
fn dated(v: &Value<'_>, names: &[&str]) -> (String, Option<Day>) {
    for n in names {
        let text = v
            .str(n)
            .or_else(|| v.get(n).and_then(|p| p.str("start").or(p.str("end"))));
        if let Some(w) = text.and_then(When::parse) {
            return (w.date(), Some(w.day()));
        }
    }
    (String::new(), None)
}

fn by(v: &Value<'_>, name: &str) -> String {
    v.get(name)
        .and_then(|r| r.str("display"))
        .unwrap_or_default()
        .to_owned()
}

/// The displays of `list[].element`.
fn actors(v: &Value<'_>, list: &str, element: &str) -> String {
    let names: Vec<&str> = read::items(v, list)
        .iter()
        .filter_map(|p| p.get(element)?.str("display"))
        .collect();
    names.join(", ")
}

fn joined(parts: &[&str]) -> String {
    parts
        .iter()
        .filter(|p| !p.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(" · ")
}

fn note_text(v: &Value<'_>) -> String {
    read::items(v, "note")
        .iter()
        .filter_map(|n| n.str("text"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn allergies(list: &[&Value<'_>]) -> Allergies {
    let none = ["716186003", "409137002", "428607008", "716184000"];
    let mut known = Vec::new();
    let mut denied = false;
    for a in list {
        if matches!(read::code_of(a, "clinicalStatus", ""), "resolved" | "inactive")
            || read::code_of(a, "verificationStatus", "") == "refuted"
        {
            continue;
        }
        let substance = read::concept_of(a, "code");
        if substance.to_lowercase().starts_with("no known") || none.contains(&read::code_of(a, "code", "")) {
            denied = true;
            continue;
        }
        let reactions = read::items(a, "reaction");
        let words: Vec<String> = reactions
            .iter()
            .flat_map(|r| {
                read::items(r, "manifestation")
                    .iter()
                    .map(read::concept)
                    .map(move |m| (m, r.str("severity")))
            })
            .map(|(m, severity)| severity.map_or_else(|| m.clone(), |s| format!("{m} ({s})")))
            .collect();
        let tag = match a.str("criticality") {
            _ if reactions.iter().any(|r| r.str("severity") == Some("severe")) => "SEVERE",
            Some("high") => "HIGH RISK",
            _ => "",
        };
        known.push(Allergy {
            substance: if substance.is_empty() {
                "Substance not recorded".to_owned()
            } else {
                substance
            },
            reaction: joined(&[&words.join(", "), &note_text(a)]),
            severe: !tag.is_empty(),
            tag,
            unconfirmed: matches!(read::code_of(a, "verificationStatus", ""), "unconfirmed" | "presumed"),
        });
    }
    known.sort_by_key(|a| !a.severe);
    match (known.is_empty(), denied) {
        (false, _) => Allergies::Known(known),
        (true, true) => Allergies::NoneKnown,
        (true, false) => Allergies::NotRecorded,
    }
}

fn problem(c: &Value<'_>) -> Row {
    let status = read::code_of(c, "clinicalStatus", "");
    let past = matches!(status, "resolved" | "inactive" | "remission");
    let (onset, _) = dated(c, &["onsetDateTime", "onsetPeriod", "recordedDate"]);
    let (end, _) = dated(c, &["abatementDateTime", "abatementPeriod"]);
    let when = match (onset.is_empty(), end.is_empty()) {
        (false, false) if onset == end => onset.clone(),
        (false, false) => format!("{onset} to {end}"),
        (false, true) => format!("since {onset}"),
        _ => end,
    };
    let code = read::items(c.get("code").unwrap_or(&Value::Null), "coding")
        .first()
        .and_then(|c| c.str("code"))
        .unwrap_or_default();
    Row {
        what: read::concept_of(c, "code"),
        detail: joined(&[&read::concept_of(c, "severity"), code, &note_text(c)]),
        when,
        by: by(c, "recorder"),
        state: status.to_owned(),
        past,
        sort: dated(c, &["onsetDateTime", "onsetPeriod", "recordedDate"]).1,
    }
}

fn medicine(m: &Value<'_>) -> String {
    let text = read::concept_of(m, "medicationCodeableConcept");
    if text.is_empty() {
        m.get("medicationReference")
            .map(|r| by_reference(r, m))
            .unwrap_or_default()
    } else {
        text
    }
}

/// A reference's display, or the code of the contained resource it points at.
fn by_reference(r: &Value<'_>, of: &Value<'_>) -> String {
    let inside = r.str("reference").and_then(|t| t.strip_prefix('#')).and_then(|id| {
        read::items(of, "contained")
            .iter()
            .find(|c| c.str("id") == Some(id))
            .map(|c| read::concept_of(c, "code"))
    });
    inside
        .filter(|t| !t.is_empty())
        .unwrap_or_else(|| r.str("display").unwrap_or("Medicine not named").to_owned())
}

fn medication(m: &Value<'_>) -> Row {
    let status = m.str("status").unwrap_or_default();
    let past = !matches!(status, "active" | "on-hold" | "draft" | "intended" | "unknown");
    let doses: Vec<&str> = ["dosageInstruction", "dosage"]
        .into_iter()
        .flat_map(|n| read::items(m, n))
        .filter_map(|d| d.str("text").or_else(|| d.str("patientInstruction")))
        .collect();
    let why: Vec<String> = read::items(m, "reasonCode").iter().map(read::concept).collect();
    let (start, sort) = dated(
        m,
        &["authoredOn", "effectiveDateTime", "effectivePeriod", "dateAsserted"],
    );
    Row {
        what: medicine(m),
        detail: joined(&[&doses.join("; "), &why.join(", "), &note_text(m)]),
        when: start,
        by: by(m, "requester"),
        state: status.to_owned(),
        past,
        sort,
    }
}

fn administration(m: &Value<'_>) -> Row {
    let at = read::first(m, &["effectiveDateTime"]);
    let at = if at.is_empty() {
        m.get("effectivePeriod")
            .and_then(|p| p.str("start"))
            .unwrap_or_default()
    } else {
        at
    };
    let when = When::parse(at);
    let why: Vec<String> = read::items(m, "statusReason").iter().map(read::concept).collect();
    let dose = m.get("dosage").map(|d| {
        d.str("text")
            .map(str::to_owned)
            .or_else(|| d.get("dose").map(read::quantity))
            .unwrap_or_default()
    });
    let status = m.str("status").unwrap_or_default();
    Row {
        what: medicine(m),
        detail: joined(&[&dose.unwrap_or_default(), &why.join(", ")]),
        when: when.map(When::full).unwrap_or_default(),
        by: actors(m, "performer", "actor"),
        state: if status == "not-done" {
            "not given".to_owned()
        } else {
            status.to_owned()
        },
        past: false,
        sort: when.map(When::day),
    }
}

fn encounter(e: &Value<'_>) -> Row {
    let types: Vec<String> = read::items(e, "type").iter().map(read::concept).collect();
    let why: Vec<String> = read::items(e, "reasonCode")
        .iter()
        .map(read::concept)
        .filter(|w| !types.contains(w))
        .collect();
    let class = e.get("class").map(|c| match c.str("code") {
        Some("AMB") => "visit",
        Some("IMP" | "ACUTE" | "NONAC") => "hospital stay",
        Some("EMER") => "emergency",
        Some("HH") => "home visit",
        Some("VR") => "by telephone or video",
        _ => c.str("display").unwrap_or_default(),
    });
    let (_, sort) = dated(e, &["period"]);
    Row {
        what: if types.is_empty() {
            "Encounter".to_owned()
        } else {
            types.join(", ")
        },
        detail: joined(&[class.unwrap_or_default(), &why.join(", ")]),
        when: e.get("period").map(read::period).unwrap_or_default(),
        by: actors(e, "participant", "individual"),
        state: e.str("status").unwrap_or_default().to_owned(),
        past: false,
        sort,
    }
}

fn immunization(i: &Value<'_>) -> Row {
    let (when, sort) = dated(i, &["occurrenceDateTime"]);
    let dose = read::items(i, "protocolApplied")
        .iter()
        .find_map(|p| p.get("doseNumberPositiveInt")?.as_number())
        .map(|n| format!("dose {n}"))
        .unwrap_or_default();
    let lot = i.str("lotNumber").map(|l| format!("lot {l}")).unwrap_or_default();
    let when = if when.is_empty() {
        i.str("occurrenceString").unwrap_or_default().to_owned()
    } else {
        when
    };
    let state = i.str("status").unwrap_or_default();
    Row {
        what: read::concept_of(i, "vaccineCode"),
        detail: joined(&[&dose, &lot]),
        when,
        by: actors(i, "performer", "actor"),
        state: if state == "not-done" {
            "not given".to_owned()
        } else {
            String::new()
        },
        past: false,
        sort,
    }
}

fn procedure(p: &Value<'_>) -> Row {
    let (when, sort) = dated(p, &["performedDateTime", "performedPeriod"]);
    let state = p.str("status").unwrap_or_default();
    Row {
        what: read::concept_of(p, "code"),
        detail: note_text(p),
        when,
        by: actors(p, "performer", "actor"),
        state: if state == "completed" {
            String::new()
        } else {
            state.to_owned()
        },
        past: false,
        sort,
    }
}

fn plan(p: &Value<'_>, goals: &[&Value<'_>]) -> Row {
    let title = p.str("title").map_or_else(
        || {
            read::items(p, "category")
                .iter()
                .map(read::concept)
                .filter(|c| !c.is_empty())
                .collect::<Vec<_>>()
                .join(", ")
        },
        str::to_owned,
    );
    let activities: Vec<String> = read::items(p, "activity")
        .iter()
        .filter_map(|a| a.get("detail"))
        .map(|d| {
            d.str("description")
                .map_or_else(|| read::concept_of(d, "code"), str::to_owned)
        })
        .filter(|t| !t.is_empty())
        .collect();
    let aims: Vec<String> = read::items(p, "goal")
        .iter()
        .filter_map(|g| read::target(g, "Goal"))
        .filter_map(|id| goals.iter().find(|g| g.str("id") == Some(id)))
        .map(|g| format!("Goal: {}", read::concept_of(g, "description")))
        .collect();
    let (_, sort) = dated(p, &["period", "created"]);
    let state = p.str("status").unwrap_or_default();
    Row {
        what: if title.is_empty() {
            "Care plan".to_owned()
        } else {
            title
        },
        detail: joined(&[&aims.join("; "), &activities.join("; ")]),
        when: p.get("period").map(read::period).unwrap_or_default(),
        by: by(p, "author"),
        state: state.to_owned(),
        past: matches!(state, "completed" | "revoked"),
        sort,
    }
}

fn report(r: &Value<'_>) -> Row {
    let (when, sort) = dated(r, &["effectiveDateTime", "effectivePeriod", "issued"]);
    let results = read::items(r, "result").len();
    let count = if results == 0 {
        String::new()
    } else {
        format!("{results} result{}", if results == 1 { "" } else { "s" })
    };
    Row {
        what: read::concept_of(r, "code"),
        detail: joined(&[&count, r.str("conclusion").unwrap_or_default()]),
        when,
        by: read::items(r, "performer")
            .iter()
            .filter_map(|p| p.str("display"))
            .collect::<Vec<_>>()
            .join(", "),
        state: String::new(),
        past: false,
        sort,
    }
}

/// A text longer than this is cut on the page; the whole is in the record.
const NOTE_CHARACTERS: usize = 20_000;

fn notes(list: &[&Value<'_>]) -> Vec<Note> {
    let mut out: Vec<Note> = list.iter().map(|d| note(d)).collect();
    out.sort_by_key(|n| std::cmp::Reverse(n.sort));
    out
}

fn note(d: &Value<'_>) -> Note {
    let attachment = read::items(d, "content").iter().find_map(|c| c.get("attachment"));
    let field = |name| attachment.and_then(|a| a.str(name)).unwrap_or_default();
    let mime = field("contentType");
    let text = (mime.starts_with("text/plain") && !field("data").is_empty())
        .then(|| decode(field("data")))
        .flatten();
    let kind = read::concept_of(d, "type");
    let title = [field("title"), d.str("description").unwrap_or_default(), &kind]
        .into_iter()
        .find(|t| !t.is_empty());
    let (_, sort) = dated(d, &["date"]);
    Note {
        title: title.unwrap_or("Document").to_owned(),
        when: d.str("date").and_then(When::parse).map(When::date).unwrap_or_default(),
        by: read::items(d, "author")
            .iter()
            .filter_map(|a| a.str("display"))
            .collect::<Vec<_>>()
            .join(", "),
        attachment: if text.is_some() || mime.is_empty() {
            String::new()
        } else {
            format!("Attached file ({mime})")
        },
        text,
        kind,
        sort,
    }
}

/// Base64 text as UTF-8, cut at [`NOTE_CHARACTERS`].
fn decode(data: &str) -> Option<String> {
    use base64::Engine as _;
    let packed: String = data.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(packed).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    Some(match text.char_indices().nth(NOTE_CHARACTERS) {
        Some((at, _)) => format!("{} …", text.get(..at).unwrap_or_default()),
        None => text.trim().to_owned(),
    })
}

fn family(f: &Value<'_>) -> Row {
    let conditions: Vec<String> = read::items(f, "condition")
        .iter()
        .map(|c| {
            let age = c
                .get("onsetAge")
                .and_then(|a| a.get("value"))
                .and_then(Value::as_number);
            age.map_or_else(
                || read::concept_of(c, "code"),
                |a| format!("{} at {a}", read::concept_of(c, "code")),
            )
        })
        .collect();
    let relation = read::items(f.get("relationship").unwrap_or(&Value::Null), "coding")
        .first()
        .and_then(|c| c.str("display"));
    Row {
        what: relation.map_or_else(|| read::concept_of(f, "relationship"), str::to_owned),
        detail: conditions.join(", "),
        when: dated(f, &["date"]).0,
        ..Row::default()
    }
}

fn contact(r: &Value<'_>) -> Row {
    let relation: Vec<String> = read::items(r, "relationship").iter().map(read::concept).collect();
    let phones: Vec<&str> = read::items(r, "telecom")
        .iter()
        .filter_map(|t| t.str("value"))
        .collect();
    Row {
        what: read::items(r, "name").first().map(read::human_name).unwrap_or_default(),
        detail: joined(&[&relation.join(", "), &phones.join(", ")]),
        ..Row::default()
    }
}

fn appointment(a: &Value<'_>) -> Row {
    let start = a.str("start").and_then(When::parse);
    Row {
        what: a
            .str("description")
            .map_or_else(|| "Appointment".to_owned(), str::to_owned),
        detail: a
            .get("minutesDuration")
            .and_then(Value::as_number)
            .map(|m| format!("{m} minutes"))
            .unwrap_or_default(),
        when: start.map(When::full).unwrap_or_default(),
        by: read::items(a, "participant")
            .iter()
            .filter_map(|p| p.get("actor"))
            .filter(|p| p.str("reference").is_none_or(|r| !r.starts_with("Patient/")))
            .filter_map(|p| p.str("display"))
            .collect::<Vec<_>>()
            .join(", "),
        state: a.str("status").unwrap_or_default().to_owned(),
        past: false,
        sort: start.map(When::day),
    }
}

fn cover(c: &Value<'_>) -> Cover {
    let plan = read::items(c, "class")
        .iter()
        .find_map(|k| k.str("name").or_else(|| k.str("value")));
    Cover {
        payor: read::items(c, "payor")
            .iter()
            .map(read::reference)
            .collect::<Vec<_>>()
            .join(", "),
        plan: plan.map_or_else(|| read::concept_of(c, "type"), str::to_owned),
        number: c.str("subscriberId").unwrap_or("not recorded").to_owned(),
        relationship: read::concept_of(c, "relationship"),
        period: c.get("period").map(read::period).unwrap_or_default(),
        state: c.str("status").unwrap_or_default().to_owned(),
    }
}

fn claim(c: &Value<'_>, responses: &[&Value<'_>]) -> Row {
    let items: Vec<String> = read::items(c, "item")
        .iter()
        .map(|i| read::concept_of(i, "productOrService"))
        .collect();
    let id = c.str("id");
    let answer = responses
        .iter()
        .find(|r| r.get("request").and_then(|r| read::target(r, "Claim")) == id && id.is_some());
    let paid = answer
        .and_then(|r| r.get("payment")?.get("amount"))
        .map(read::money)
        .unwrap_or_default();
    let answered = answer.and_then(|r| r.str("disposition")).unwrap_or_default();
    let (when, sort) = dated(c, &["created", "billablePeriod"]);
    Row {
        what: if items.is_empty() {
            "Claim".to_owned()
        } else {
            items.join(", ")
        },
        detail: joined(&[
            &c.get("total").map(read::money).unwrap_or_default(),
            format!("{answered} {paid}").trim(),
        ]),
        when,
        by: by(c, "provider"),
        state: c.str("status").unwrap_or_default().to_owned(),
        past: false,
        sort,
    }
}

// ------------------------------------------------------------------ measurements

/// Usual adult range, either side open.
type Range = (Option<f64>, Option<f64>);

/// What is known of a vital sign: LOINC codes, title, usual adult range.
struct Known {
    codes: &'static [&'static str],
    title: &'static str,
    range: Range,
}

/// In the order of the page. Ranges are the usual ones for adults at rest; children get none (they depend on age).
const VITALS: [Known; 9] = [
    Known {
        codes: &["85354-9", "55284-4"],
        title: "Blood pressure",
        range: (None, None),
    },
    Known {
        codes: &["8867-4"],
        title: "Heart rate",
        range: (Some(60.0), Some(100.0)),
    },
    Known {
        codes: &["2708-6", "59408-5"],
        title: "Oxygen saturation",
        range: (Some(94.0), None),
    },
    Known {
        codes: &["8310-5", "8331-1"],
        title: "Temperature",
        range: (Some(36.0), Some(37.5)),
    },
    Known {
        codes: &["9279-1"],
        title: "Respiratory rate",
        range: (Some(12.0), Some(20.0)),
    },
    Known {
        codes: &["29463-7", "3141-9", "8339-4"],
        title: "Weight",
        range: (None, None),
    },
    Known {
        codes: &["8302-2"],
        title: "Height",
        range: (None, None),
    },
    Known {
        codes: &["39156-5"],
        title: "Body mass index",
        range: (Some(18.5), Some(25.0)),
    },
    Known {
        codes: &["9843-4", "8287-5"],
        title: "Head circumference",
        range: (None, None),
    },
];
const SYSTOLIC: (&str, Range) = ("8480-6", (Some(90.0), Some(130.0)));
const DIASTOLIC: (&str, Range) = ("8462-4", (Some(60.0), Some(80.0)));

const LOINC: &str = "http://loinc.org";

fn observed_on(o: &Value<'_>) -> Option<When> {
    let text = o
        .str("effectiveDateTime")
        .or_else(|| o.get("effectivePeriod")?.str("start"))
        .or_else(|| o.str("effectiveInstant"));
    When::parse(text.or_else(|| o.str("issued"))?)
}

fn vitals(observations: &[&Value<'_>], birth: &str) -> Vec<Vital> {
    let mut out = Vec::new();
    let mut taken: Vec<&str> = Vec::new();
    for known in &VITALS {
        taken.extend(known.codes);
        let found: Vec<&Value<'_>> = observations
            .iter()
            .filter(|o| known.codes.contains(&read::code_of(o, "code", LOINC)))
            .copied()
            .collect();
        out.extend(vital(known.title, &found, known.range, birth));
    }
    // Vital signs of other codes, by the name they carry.
    let mut others: BTreeMap<String, Vec<&Value<'_>>> = BTreeMap::new();
    for o in observations
        .iter()
        .filter(|o| read::has_code(o, "category", "vital-signs"))
    {
        if !taken.contains(&read::code_of(o, "code", LOINC)) {
            others.entry(read::concept_of(o, "code")).or_default().push(o);
        }
    }
    for (title, found) in &others {
        out.extend(vital(title, found, (None, None), birth));
    }
    // What is drawn comes first.
    out.sort_by_key(|v| v.plot.is_none());
    out
}

/// A value with its moment, newest last.
fn timeline<'v, 'a>(list: &[&'v Value<'a>]) -> Vec<(When, &'v Value<'a>)> {
    let key = |o: &Value<'_>| {
        let text = o
            .str("effectiveDateTime")
            .or_else(|| o.get("effectivePeriod")?.str("start"))
            .or_else(|| o.str("issued"));
        text.unwrap_or_default().to_owned()
    };
    let mut found: Vec<(Day, String, When, &'v Value<'a>)> = list
        .iter()
        .filter_map(|o| observed_on(o).map(|w| (w.day(), key(o), w, *o)))
        .collect();
    found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    found.into_iter().map(|(_, _, w, o)| (w, o)).collect()
}

fn vital(title: &str, list: &[&Value<'_>], range: Range, birth: &str) -> Option<Vital> {
    let found = timeline(list);
    let (newest, last) = found.last()?;
    let adult = read::years(birth, newest.day()).is_some_and(|y| y >= 18);
    let range = if adult { range } else { (None, None) };
    let pressure = |o: &Value<'_>, code: &str| {
        read::items(o, "component")
            .iter()
            .find(|c| read::code_of(c, "code", LOINC) == code)
            .and_then(|c| read::number(c.get("valueQuantity")?))
    };
    let two = pressure(last, SYSTOLIC.0).is_some();
    let shown = |o: &Value<'_>| match (pressure(o, SYSTOLIC.0), pressure(o, DIASTOLIC.0)) {
        (Some(high), Some(low)) => format!("{high:.0}/{low:.0} mmHg"),
        _ => read::observed(o),
    };
    let samples = |value: &dyn Fn(&Value<'_>) -> Option<f64>| -> Vec<Sample> {
        let each = |(w, o): &(When, &Value<'_>)| {
            Some(Sample {
                day: w.day(),
                value: value(o)?,
                label: format!("{}: {}", w.full(), shown(o)),
            })
        };
        found.iter().filter_map(each).collect()
    };
    let series = if two {
        let line = |name, (code, band): (&'static str, Range)| Series {
            name,
            samples: samples(&|o| pressure(o, code)),
            band: if adult { band } else { (None, None) },
        };
        vec![line("systolic", SYSTOLIC), line("diastolic", DIASTOLIC)]
    } else {
        vec![Series {
            name: "",
            samples: samples(&|o| read::number(o.get("valueQuantity")?)),
            band: range,
        }]
    };
    let flag = series.iter().any(|s| {
        s.samples
            .last()
            .is_some_and(|p| s.band.0.is_some_and(|b| p.value < b) || s.band.1.is_some_and(|b| p.value > b))
    });
    // One point, or a height that no longer changes, says no more as a drawing.
    let varies = series.iter().any(|s| {
        s.samples
            .iter()
            .any(|p| s.samples.first().is_some_and(|f| f.value != p.value))
    });
    let words = |(low, high): Range| match (low, high) {
        (Some(l), Some(h)) => format!("{l} to {h}"),
        (Some(l), None) => format!("{l} or more"),
        (None, Some(h)) => format!("up to {h}"),
        (None, None) => String::new(),
    };
    let range = if two && adult {
        format!("usual {} over {}", words(SYSTOLIC.1), words(DIASTOLIC.1))
    } else {
        let text = words(range);
        if text.is_empty() { text } else { format!("usual {text}") }
    };
    Some(Vital {
        title: title.to_owned(),
        latest: shown(last),
        when: newest.date(),
        flag,
        range,
        plot: if varies { Plot::large(&series) } else { None },
        values: found.iter().rev().take(60).map(|(w, o)| (w.full(), shown(o))).collect(),
    })
}

fn is_lab(o: &Value<'_>) -> bool {
    read::has_code(o, "category", "laboratory")
}

fn labs(observations: &[&Value<'_>]) -> Vec<Lab> {
    let mut groups: BTreeMap<(String, String), Vec<&Value<'_>>> = BTreeMap::new();
    for o in observations.iter().filter(|o| is_lab(o)) {
        let code = read::code_of(o, "code", "").to_owned();
        groups
            .entry((read::short_name(&read::concept_of(o, "code")), code))
            .or_default()
            .push(o);
    }
    let mut out: Vec<(Day, Lab)> = groups.iter().filter_map(|((test, _), list)| lab(test, list)).collect();
    // The newest batch first; inside a day what is out of range first.
    out.sort_by(|(a, x), (b, y)| (b, x.flag.is_empty(), &x.test).cmp(&(a, y.flag.is_empty(), &y.test)));
    out.into_iter().map(|(_, l)| l).collect()
}

fn limits(o: &Value<'_>) -> Range {
    let range = read::items(o, "referenceRange").first();
    let bound = |n| range.and_then(|r| r.get(n)).and_then(read::number);
    (bound("low"), bound("high"))
}

/// The laboratory's own flag; where it gave none, the reference range decides.
fn flag(o: &Value<'_>) -> &'static str {
    let codes: Vec<&str> = read::items(o, "interpretation")
        .iter()
        .flat_map(|i| read::items(i, "coding"))
        .filter_map(|c| c.str("code"))
        .collect();
    for code in &codes {
        match *code {
            "H" | "HU" => return "high",
            "HH" | "AA" => return "very high",
            "L" | "LU" => return "low",
            "LL" => return "very low",
            "A" | "POS" => return "abnormal",
            _ => {}
        }
    }
    if !codes.is_empty() {
        return "";
    }
    let (low, high) = limits(o);
    match o.get("valueQuantity").and_then(read::number) {
        Some(v) if low.is_some_and(|l| v < l) => "low",
        Some(v) if high.is_some_and(|h| v > h) => "high",
        _ => "",
    }
}

fn lab(test: &str, list: &[&Value<'_>]) -> Option<(Day, Lab)> {
    let found = timeline(list);
    let (newest, last) = found.last()?;
    let samples: Vec<Sample> = found
        .iter()
        .filter_map(|(w, o)| {
            let value = read::number(o.get("valueQuantity")?)?;
            Some(Sample {
                day: w.day(),
                value,
                label: format!("{}: {}", w.date(), read::observed(o)),
            })
        })
        .collect();
    let plot = if samples.len() > 1 {
        Plot::small(&[Series {
            name: "",
            samples,
            band: limits(last),
        }])
    } else {
        None
    };
    let lab = Lab {
        test: test.to_owned(),
        latest: read::observed(last),
        flag: flag(last),
        range: read::items(last, "referenceRange")
            .first()
            .map(read::range)
            .unwrap_or_default(),
        when: newest.date(),
        plot,
        values: found
            .iter()
            .rev()
            .take(60)
            .map(|(w, o)| (w.date(), read::observed(o), flag(o)))
            .collect(),
    };
    Some((newest.day(), lab))
}

/// Observations that are neither vital signs nor laboratory: the newest of each code.
fn findings(observations: &[&Value<'_>]) -> Vec<Row> {
    let known: Vec<&str> = VITALS.iter().flat_map(|v| v.codes).copied().collect();
    let mut newest: BTreeMap<String, (When, &Value<'_>)> = BTreeMap::new();
    let rest: Vec<&Value<'_>> = observations
        .iter()
        .filter(|o| {
            !is_lab(o)
                && !read::has_code(o, "category", "vital-signs")
                && !known.contains(&read::code_of(o, "code", LOINC))
        })
        .copied()
        .collect();
    for (w, o) in timeline(&rest) {
        newest.insert(read::concept_of(o, "code"), (w, o));
    }
    let rows = newest.into_iter().map(|(what, (w, o))| Row {
        what,
        detail: read::observed(o),
        when: w.date(),
        by: read::items(o, "performer")
            .iter()
            .filter_map(|p| p.str("display"))
            .collect::<Vec<_>>()
            .join(", "),
        sort: Some(w.day()),
        ..Row::default()
    });
    newest_first(rows.collect())
}

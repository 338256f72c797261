//! The demo world: the bundled clinic with its stories (`demo/`), four Synthea patients, and as many generated patients
//! as `--patients` asks for. Transaction Bundles as text, loaded through the same door as any import.
//!
//! Everything here is a pure function of the seed. Generated patients are plain: the stories are in the bundled ones.

use keepwell_model::actor::Role;
use keepwell_model::time::{civil_from_days, days_from_civil};
use std::fmt::Write as _;

/// Own patients, after the first line, which holds the clinic itself.
const CLINIC: &[u8] = include_bytes!("../../../demo/clinic.ndjson.zst");
/// Four Synthea patients (Apache-2.0, see NOTICE).
const SYNTHEA: &[u8] = include_bytes!("../../../demo/synthea.ndjson.zst");

/// Patients in the bundled world: what `demo` loads when `--patients` is not given.
pub const BUNDLED_PATIENTS: usize = 18;

/// A login of the demo clinic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaffAccount {
    /// The account's id.
    pub user: &'static str,
    /// The name shown.
    pub display: &'static str,
    /// The role.
    pub role: Role,
    /// For the patient: the logical id of the own Patient resource.
    pub patient: Option<&'static str>,
    /// For the workforce: the logical id of the own Practitioner, by which treatment relationships are found.
    pub practitioner: Option<&'static str>,
    /// One line for the sign-in page: what this login is good for.
    pub try_this: &'static str,
}

/// The password of every login: the demo has no secrets.
pub const PASSWORD: &str = "herons over the harbour";

/// The secret of a login's authenticator app.
#[must_use]
pub fn app_secret(seed: u64, user: &str) -> Vec<u8> {
    let named = format!("keepwell demo {seed} {user}");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, named.as_bytes());
    digest.as_ref().iter().copied().take(20).collect()
}

/// One login per role of the workforce, and one patient.
#[must_use]
pub fn staff() -> Vec<StaffAccount> {
    let account = |user, display, role, practitioner, try_this| StaffAccount {
        user,
        display,
        role,
        patient: None,
        practitioner: Some(practitioner),
        try_this,
    };
    vec![
        account(
            "amara.okafor",
            "Dr Amara Okafor",
            Role::Physician,
            "a2c6fcf2-1fe5-58aa-b9ca-1d57e22e31ec",
            "Open Rosa Delgado-Quinn: six years of blood pressure and HbA1c, and a penicillin allergy nobody can miss. Tony Douglas \
             is nobody's patient here: break the glass.",
        ),
        account(
            "tomas.echeverria",
            "Tomás Echeverría",
            Role::Nurse,
            "d4b89900-9f8d-5be2-b537-fe4329121887",
            "Search “chan”: 陳美玲 has an INR of 5.1 and a warfarin dose held last week.",
        ),
        account(
            "mei-ling.tan",
            "Mei-Ling Tan",
            Role::FrontDesk,
            "37a4b6d7-2dbd-557a-bae9-e70c2e5fb1b9",
            "Find the twins Novák-Reyes, same birth date: identity and insurance, nothing clinical.",
        ),
        account(
            "gustav.brandt",
            "Gustav Brandt",
            Role::Billing,
            "18276231-5e41-595a-9ede-e0b155326b05",
            "Walter Pfeiffer and Viktor Lindgren use one insurance number. Claims, but no notes and no labs.",
        ),
        account(
            "oluwaseun.adeyemi",
            "Oluwaseun Adeyemi",
            Role::RecordsClerk,
            "d88ec6b8-1544-51e6-b17a-907790ed7480",
            "Documents and visits of Edith O'Brien-Hallström, who died in 2025.",
        ),
        account(
            "ingrid.sorensen",
            "Ingrid Sørensen",
            Role::PrivacyOfficer,
            "5a229337-69f3-5728-a7a3-486b249a24f6",
            "Who opened the record of Rosa Delgado-Quinn, when and why? Every line comes with its proof.",
        ),
        account(
            "dariusz.wojcik",
            "Dariusz Wójcik",
            Role::SecurityOfficer,
            "65d2db6c-7ed1-5b07-9729-d8fe00b53bde",
            "Keys, the size of the log and its newest checkpoint. No patient anywhere.",
        ),
        account(
            "priya.raman",
            "Priya Raman",
            Role::Administrator,
            "fb087569-8986-5156-8413-f87d51515fb7",
            "The state of the system. Looking for a patient is refused.",
        ),
        StaffAccount {
            user: "rosa",
            display: "Rosa Delgado-Quinn",
            role: Role::Patient,
            patient: Some("01b4468f-6a17-51a8-b95b-48956c4cfb9a"),
            practitioner: None,
            try_this: "Her own record, and who looked at it. Nobody else's.",
        },
    ]
}

/// Transaction Bundles for `patients` patients: the clinic, the bundled stories, then generated patients; none for 0.
pub fn bundles(seed: u64, patients: usize) -> impl Iterator<Item = String> {
    let clinic = if patients == 0 { Vec::new() } else { lines(CLINIC) };
    let synthea = if patients == 0 { Vec::new() } else { lines(SYNTHEA) };
    let generated = patients.saturating_sub(BUNDLED_PATIENTS);
    clinic
        .into_iter()
        .chain(synthea)
        .take(1 + patients.min(BUNDLED_PATIENTS))
        .chain((0..generated).map(move |n| patient(seed, n as u64)))
}

fn lines(packed: &[u8]) -> Vec<String> {
    let text = zstd::decode_all(packed)
        .ok()
        .and_then(|b| String::from_utf8(b).ok())
        .unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

// ------------------------------------------------------------------ generated patients

const DOCTOR: &str = "Practitioner/a2c6fcf2-1fe5-58aa-b9ca-1d57e22e31ec";
const NURSE: &str = "Practitioner/d4b89900-9f8d-5be2-b537-fe4329121887";
const HOUSE: &str = "Organization/69d05e25-0df7-5958-a7ea-a10de4d5d44e";
const LABORATORY: &str = "Organization/6dcc8fac-1023-502f-afaf-fb7806875b0d";
const INSURERS: [&str; 2] = [
    "Organization/edbf74fd-7524-5a60-9b1c-90ad6b5c18d5",
    "Organization/ab0705d1-6383-5991-95ef-66f64f0503d4",
];

/// The clinic's calendar ends here.
const LAST_DAY: (i64, u32, u32) = (2026, 11, 20);

const FEMALE: &[&str] = &[
    "Adaeze",
    "Agnieszka",
    "Aïcha",
    "Beatriz",
    "Chloé",
    "Dilnoza",
    "Ebru",
    "Fiona",
    "Grace",
    "Hadiza",
    "Inés",
    "Jana",
    "Keiko",
    "Leila",
    "Małgorzata",
    "Nadia",
    "Olga",
    "Parisa",
    "Quỳnh",
    "Ruth",
    "Siobhán",
    "Tereza",
    "Uma",
    "Vesna",
    "Wanda",
    "Xiomara",
    "Yara",
    "Zsófia",
    "Θεοδώρα",
    "Наталія",
    "惠美",
    "नेहा",
];
const MALE: &[&str] = &[
    "Abebe",
    "Björn",
    "Chidi",
    "Diego",
    "Emre",
    "François",
    "Giorgi",
    "Hiroshi",
    "Ibrahim",
    "João",
    "Kwame",
    "Luca",
    "Mateusz",
    "Nikolai",
    "Oskar",
    "Pedro",
    "Quentin",
    "Rashid",
    "Søren",
    "Tuan",
    "Umar",
    "Václav",
    "William",
    "Xavier",
    "Yusuf",
    "Zoltán",
    "Γιώργος",
    "Андрій",
    "健太",
    "अर्जुन",
];
const FAMILY: &[&str] = &[
    "Abernathy",
    "Adeleke",
    "Bielińska",
    "Castañeda",
    "Çelik",
    "D'Angelo",
    "Eriksen",
    "Fernández",
    "Ghorbani",
    "Horváth",
    "Ibáñez",
    "Jankauskas",
    "Kowalczyk",
    "Lefèvre",
    "Mbeki",
    "Nakamura",
    "Nguyễn",
    "O'Sullivan",
    "Öztürk",
    "Petrov",
    "Quispe",
    "Rasmussen",
    "Šimůnek",
    "Tremblay",
    "Ueda",
    "van der Berg",
    "Wanjiku",
    "Ximenes",
    "Yılmaz",
    "Zieliński",
    "Παπαδοπούλου",
    "Коваленко",
    "佐藤",
    "वर्मा",
    "김",
];
/// ICD-10-CM code and display, RxNorm ingredient and its name, dose text.
const PROBLEMS: &[(&str, &str, &str, &str, &str)] = &[
    (
        "I10",
        "Essential (primary) hypertension",
        "29046",
        "lisinopril",
        "10 mg in the morning",
    ),
    (
        "E11.9",
        "Type 2 diabetes mellitus without complications",
        "6809",
        "metformin",
        "500 mg twice a day",
    ),
    (
        "E78.5",
        "Hyperlipidemia, unspecified",
        "83367",
        "atorvastatin",
        "20 mg in the evening",
    ),
    (
        "E03.9",
        "Hypothyroidism, unspecified",
        "10582",
        "levothyroxine",
        "50 mcg before breakfast",
    ),
    (
        "J45.20",
        "Mild intermittent asthma, uncomplicated",
        "435",
        "albuterol",
        "two puffs when wheezing",
    ),
    (
        "F32.9",
        "Major depressive disorder, single episode, unspecified",
        "36437",
        "sertraline",
        "50 mg in the morning",
    ),
    (
        "M54.50",
        "Low back pain, unspecified",
        "5640",
        "ibuprofen",
        "400 mg with food if needed",
    ),
    (
        "K21.9",
        "Gastro-esophageal reflux disease without esophagitis",
        "7646",
        "omeprazole",
        "20 mg before breakfast",
    ),
];
const SHORT: &[(&str, &str)] = &[
    ("J06.9", "Acute upper respiratory infection, unspecified"),
    ("J02.9", "Acute pharyngitis, unspecified"),
    ("N39.0", "Urinary tract infection, site not specified"),
    ("H66.90", "Otitis media, unspecified, unspecified ear"),
    ("L30.9", "Dermatitis, unspecified"),
];
const ALLERGIES: &[(&str, &str, &str, &str)] = &[
    ("70618", "penicillin", "Hives", "moderate"),
    ("1191", "aspirin", "Wheeze", "severe"),
    ("10180", "sulfamethoxazole", "Rash", "mild"),
    ("5640", "ibuprofen", "Swollen eyelids", "moderate"),
];
/// LOINC code, display, unit, UCUM code, low, high, usual value, spread.
type Lab = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    f64,
    f64,
    f64,
    f64,
);
const LABS: &[Lab] = &[
    (
        "2345-7",
        "Glucose [Mass/volume] in Serum or Plasma",
        "mg/dL",
        "mg/dL",
        70.0,
        99.0,
        92.0,
        14.0,
    ),
    (
        "2160-0",
        "Creatinine [Mass/volume] in Serum or Plasma",
        "mg/dL",
        "mg/dL",
        0.6,
        1.2,
        0.9,
        0.2,
    ),
    (
        "2823-3",
        "Potassium [Moles/volume] in Serum or Plasma",
        "mmol/L",
        "mmol/L",
        3.5,
        5.1,
        4.2,
        0.5,
    ),
    (
        "2951-2",
        "Sodium [Moles/volume] in Serum or Plasma",
        "mmol/L",
        "mmol/L",
        136.0,
        145.0,
        140.0,
        2.5,
    ),
    (
        "718-7",
        "Hemoglobin [Mass/volume] in Blood",
        "g/dL",
        "g/dL",
        12.0,
        17.0,
        13.9,
        1.2,
    ),
];
const VACCINES: &[(&str, &str)] = &[
    ("140", "Influenza, seasonal, injectable, preservative free"),
    ("115", "Tdap"),
    ("187", "zoster recombinant"),
    ("33", "pneumococcal polysaccharide PPV23"),
];

/// `splitmix64` (Steele, Lea, Flood 2014): small, seedable, good enough for made-up people and for nothing else.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below(high.saturating_sub(low).unsigned_abs() + 1).cast_signed()
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normal, between -3 and 3.
    fn bell(&mut self) -> f64 {
        (0..6).map(|_| self.unit()).sum::<f64>() * 2.0f64.sqrt() - 3.0 * 2.0f64.sqrt()
    }

    fn pick<T: Copy + Default>(&mut self, list: &[T]) -> T {
        list.get(self.below(list.len() as u64) as usize)
            .copied()
            .unwrap_or_default()
    }

    /// A version 8 UUID (RFC 9562) whose first digit is a letter, so that no id is all digits.
    fn uuid(&mut self) -> String {
        let (a, b) = (self.next(), self.next());
        let first = ((a >> 32) as u32 & 0x0fff_ffff) | ((0xa + (a as u32) % 6) << 28);
        format!(
            "{first:08x}-{:04x}-8{:03x}-{:04x}-{:012x}",
            (a >> 16) & 0xffff,
            a & 0xfff,
            0x8000 | ((b >> 48) & 0x3fff),
            b & 0xffff_ffff_ffff
        )
    }
}

/// A Bundle being written.
struct Out {
    text: String,
    dice: Dice,
    patient: String,
}

impl Out {
    /// Adds `PUT Type/id`; `fields` is the resource's text after its id, starting with a comma.
    fn put(&mut self, kind: &str, id: &str, fields: &str) {
        if !self.text.ends_with('[') {
            self.text.push(',');
        }
        let _ = write!(
            self.text,
            r#"{{"fullUrl":"urn:uuid:{id}","resource":{{"resourceType":"{kind}","id":"{id}"{fields}}},"request":{{"method":"PUT","url":"{kind}/{id}"}}}}"#
        );
    }

    fn add(&mut self, kind: &str, fields: &str) -> String {
        let id = self.dice.uuid();
        self.put(kind, &id, fields);
        format!("{kind}/{id}")
    }

    fn measurement(&mut self, visit: &Visit, code: &str, display: &str, unit: &str, ucum: &str, value: &str) {
        let fields = format!(
            r#",{}"category":[{{"coding":[{{"system":"http://terminology.hl7.org/CodeSystem/observation-category","code":"vital-signs","display":"Vital Signs"}}]}}],"code":{},"performer":[{{"reference":"{NURSE}"}}],"valueQuantity":{}"#,
            self.about(visit),
            loinc(code, display),
            quantity(value, unit, ucum)
        );
        self.add("Observation", &fields);
    }

    fn about(&self, visit: &Visit) -> String {
        format!(
            r#""status":"final","subject":{{"reference":"{}"}},"encounter":{{"reference":"{}"}},"effectiveDateTime":"{}","issued":"{}","#,
            self.patient, visit.encounter, visit.start, visit.start
        )
    }
}

struct Visit {
    encounter: String,
    day: String,
    start: String,
}

fn loinc(code: &str, display: &str) -> String {
    format!(
        r#"{{"coding":[{{"system":"http://loinc.org","code":"{code}","display":"{display}"}}],"text":"{display}"}}"#
    )
}

fn quantity(value: &str, unit: &str, ucum: &str) -> String {
    format!(r#"{{"value":{value},"unit":"{unit}","system":"http://unitsofmeasure.org","code":"{ucum}"}}"#)
}

fn hl7(system: &str, code: &str) -> String {
    format!(r#"{{"coding":[{{"system":"http://terminology.hl7.org/CodeSystem/{system}","code":"{code}"}}]}}"#)
}

fn date(days: i64) -> String {
    let (y, m, d) = civil_from_days(days);
    format!("{y:04}-{m:02}-{d:02}")
}

/// One generated patient with a history of about 60 to 300 resources.
fn patient(seed: u64, n: u64) -> String {
    let mut dice = Dice(seed ^ n.wrapping_mul(0xd134_2543_de82_ef95) ^ 0x6b65_6570_7765_6c6c);
    dice.next();
    let id = dice.uuid();
    let female = dice.below(2) == 0;
    let given = if female { dice.pick(FEMALE) } else { dice.pick(MALE) };
    let family = dice.pick(FAMILY);
    let last = days_from_civil(LAST_DAY.0, LAST_DAY.1, LAST_DAY.2);
    let born = last - dice.between(200, 34_000);
    let died = (last - born > 25_000 && dice.below(6) == 0).then(|| last - dice.between(10, 1500));
    let end = died.unwrap_or(last);
    let mut out = Out {
        text: String::with_capacity(96 * 1024),
        dice,
        patient: format!("Patient/{id}"),
    };
    out.text
        .push_str(r#"{"resourceType":"Bundle","type":"transaction","entry":["#);

    let (street, phone, ssn) = (
        out.dice.between(1, 240),
        out.dice.between(100, 199),
        out.dice.between(1000, 9999),
    );
    let group = out.dice.between(10, 99);
    let deceased = died
        .map(|d| format!(r#","deceasedDateTime":"{}""#, date(d)))
        .unwrap_or_default();
    out.put(
        "Patient",
        &id,
        &format!(
            r#","identifier":[{{"use":"usual","type":{},"system":"https://harbourlane.example/mrn","value":"HL-G{n:06}"}},{{"type":{},"system":"http://hl7.org/fhir/sid/us-ssn","value":"999-{group:02}-{ssn:04}"}}],"active":true,"name":[{{"use":"official","text":"{given} {family}","family":"{family}","given":["{given}"]}}],"telecom":[{{"system":"phone","use":"mobile","value":"+1 207 555 {phone:04}"}}],"gender":"{}","birthDate":"{}"{deceased},"address":[{{"use":"home","line":["{street} Quay Road"],"city":"Marlow Bay","state":"ME","postalCode":"04999","country":"US"}}],"generalPractitioner":[{{"reference":"{DOCTOR}"}}],"managingOrganization":{{"reference":"{HOUSE}"}}"#,
            hl7("v2-0203", "MR"),
            hl7("v2-0203", "SS"),
            if female { "female" } else { "male" },
            date(born),
        ),
    );
    let insurer = out.dice.pick(&INSURERS);
    let member = out.dice.between(100_000, 999_999);
    let me = out.patient.clone();
    let coverage = out.add(
        "Coverage",
        &format!(
            r#","status":"active","type":{},"subscriberId":"GEN-{n}-{member}","beneficiary":{{"reference":"{me}"}},"relationship":{},"payor":[{{"reference":"{insurer}"}}]"#,
            hl7("v3-ActCode", "EHCPOL"),
            hl7("subscriber-relationship", "self")
        ),
    );
    let team = format!(
        r#","status":"active","name":"Care team","subject":{{"reference":"{me}"}},"participant":[{{"member":{{"reference":"{DOCTOR}"}}}},{{"member":{{"reference":"{NURSE}"}}}}]"#
    );
    out.add("CareTeam", &team);
    if out.dice.below(3) == 0 {
        let (code, name, reaction, severity) = out.dice.pick(ALLERGIES);
        out.add(
            "AllergyIntolerance",
            &format!(
                r#","clinicalStatus":{},"verificationStatus":{},"type":"allergy","category":["medication"],"criticality":"{}","code":{{"coding":[{{"system":"http://www.nlm.nih.gov/research/umls/rxnorm","code":"{code}","display":"{name}"}}],"text":"{name}"}},"patient":{{"reference":"{me}"}},"reaction":[{{"manifestation":[{{"text":"{reaction}"}}],"severity":"{severity}"}}]"#,
                hl7("allergyintolerance-clinical", "active"),
                hl7("allergyintolerance-verification", "confirmed"),
                if severity == "severe" { "high" } else { "low" }
            ),
        );
    }

    let mut ill = 0_usize;
    let mut day = (born + 5).max(end - out.dice.between(1100, 4400));
    let height = if female { 163.0 } else { 177.0 } + out.dice.bell() * 6.0;
    let mut weight = if female { 66.0 } else { 80.0 } + out.dice.bell() * 11.0;
    let high = 112.0 + (end - born) as f64 / 1000.0 + out.dice.bell() * 8.0;
    while day < end {
        let age = (day - born) as f64 / 365.25;
        let grown = (age / 17.0).clamp(0.07, 1.0);
        weight += out.dice.bell() * 0.6;
        let visit = visit(&mut out, day, age);
        measure(
            &mut out,
            &visit,
            weight * grown.powf(1.4),
            height * grown.powf(0.6),
            high * (0.7 + 0.3 * grown),
        );
        if age > 25.0 && out.dice.below(3) == 0 {
            laboratory(&mut out, &visit, ill > 0);
        }
        if age > 28.0 && out.dice.below(4) == 0 {
            if let Some(problem) = PROBLEMS.get((n as usize + ill) % PROBLEMS.len()) {
                chronic(&mut out, &visit, problem);
            }
            ill += 1;
        } else if out.dice.below(4) == 0 {
            let (code, name) = out.dice.pick(SHORT);
            let (until, ver) = (date(day + 9), hl7("condition-ver-status", "confirmed"));
            let fields = format!(
                r#","clinicalStatus":{},"verificationStatus":{ver},"code":{{"coding":[{{"system":"http://hl7.org/fhir/sid/icd-10-cm","code":"{code}","display":"{name}"}}],"text":"{name}"}},"subject":{{"reference":"{me}"}},"encounter":{{"reference":"{}"}},"onsetDateTime":"{}","abatementDateTime":"{until}""#,
                hl7("condition-clinical", "resolved"),
                visit.encounter,
                visit.day
            );
            out.add("Condition", &fields);
        }
        if out.dice.below(3) == 0 {
            let (code, name) = out.dice.pick(VACCINES);
            let lot = out.dice.between(100, 999);
            let fields = format!(
                r#","status":"completed","vaccineCode":{{"coding":[{{"system":"http://hl7.org/fhir/sid/cvx","code":"{code}","display":"{name}"}}],"text":"{name}"}},"patient":{{"reference":"{me}"}},"encounter":{{"reference":"{}"}},"occurrenceDateTime":"{}","primarySource":true,"lotNumber":"G{lot}""#,
                visit.encounter, visit.day
            );
            out.add("Immunization", &fields);
        }
        let price = out.dice.between(80, 260);
        let fields = format!(
            r#","status":"active","type":{},"use":"claim","patient":{{"reference":"{me}"}},"created":"{}","provider":{{"reference":"{HOUSE}"}},"priority":{},"insurance":[{{"sequence":1,"focal":true,"coverage":{{"reference":"{coverage}"}}}}],"item":[{{"sequence":1,"productOrService":{{"text":"Office visit"}},"servicedDate":"{}","net":{{"value":{price}.00,"currency":"USD"}},"encounter":[{{"reference":"{}"}}]}}],"total":{{"value":{price}.00,"currency":"USD"}}"#,
            hl7("claim-type", "professional"),
            visit.start,
            hl7("processpriority", "normal"),
            visit.day,
            visit.encounter
        );
        out.add("Claim", &fields);
        day += out.dice.between(45, 330);
    }
    out.text.push_str("]}");
    out.text
}

fn visit(out: &mut Out, day: i64, age: f64) -> Visit {
    let day = date(day);
    let hour = out.dice.between(8, 16);
    let minute = out.dice.between(0, 3) * 15;
    let start = format!("{day}T{hour:02}:{minute:02}:00-05:00");
    let why = if age < 18.0 { "Well-child visit" } else { "Office visit" };
    let fields = format!(
        r#","status":"finished","class":{{"system":"http://terminology.hl7.org/CodeSystem/v3-ActCode","code":"AMB","display":"ambulatory"}},"type":[{{"text":"{why}"}}],"subject":{{"reference":"{}"}},"participant":[{{"individual":{{"reference":"{DOCTOR}","display":"Dr Amara Okafor"}}}}],"period":{{"start":"{start}","end":"{day}T{:02}:{minute:02}:00-05:00"}},"serviceProvider":{{"reference":"{HOUSE}"}}"#,
        out.patient,
        hour + 1
    );
    Visit {
        encounter: out.add("Encounter", &fields),
        day,
        start,
    }
}

fn measure(out: &mut Out, visit: &Visit, weight: f64, height: f64, high: f64) {
    let pulse = 72.0 + out.dice.bell() * 9.0;
    let low = high * 0.62 + out.dice.bell() * 4.0;
    let high = high + out.dice.bell() * 6.0;
    out.measurement(visit, "29463-7", "Body weight", "kg", "kg", &format!("{weight:.1}"));
    if out.dice.below(3) == 0 {
        out.measurement(visit, "8302-2", "Body height", "cm", "cm", &format!("{height:.1}"));
        let bmi = weight / (height / 100.0).powi(2);
        out.measurement(
            visit,
            "39156-5",
            "Body mass index (BMI) [Ratio]",
            "kg/m2",
            "kg/m2",
            &format!("{bmi:.1}"),
        );
    }
    out.measurement(visit, "8867-4", "Heart rate", "/min", "/min", &format!("{pulse:.0}"));
    let fields = format!(
        r#",{}"category":[{}],"code":{},"performer":[{{"reference":"{NURSE}"}}],"component":[{{"code":{},"valueQuantity":{}}},{{"code":{},"valueQuantity":{}}}]"#,
        out.about(visit),
        hl7("observation-category", "vital-signs"),
        loinc("85354-9", "Blood pressure panel with all children optional"),
        loinc("8480-6", "Systolic blood pressure"),
        quantity(&format!("{high:.0}"), "mmHg", "mm[Hg]"),
        loinc("8462-4", "Diastolic blood pressure"),
        quantity(&format!("{low:.0}"), "mmHg", "mm[Hg]")
    );
    out.add("Observation", &fields);
}

fn laboratory(out: &mut Out, visit: &Visit, ill: bool) {
    let mut results = String::new();
    for (code, display, unit, ucum, low, high, usual, spread) in LABS.iter().copied() {
        let value = usual + out.dice.bell() * spread * 0.6 + if ill { spread * 0.4 } else { 0.0 };
        let flag = if value < low {
            "L"
        } else if value > high {
            "H"
        } else {
            "N"
        };
        let value = if spread >= 10.0 {
            format!("{value:.0}")
        } else {
            format!("{value:.1}")
        };
        let fields = format!(
            r#",{}"category":[{}],"code":{},"performer":[{{"reference":"{LABORATORY}"}}],"valueQuantity":{},"interpretation":[{}],"referenceRange":[{{"low":{},"high":{}}}]"#,
            out.about(visit),
            hl7("observation-category", "laboratory"),
            loinc(code, display),
            quantity(&value, unit, ucum),
            hl7("v3-ObservationInterpretation", flag),
            quantity(&low.to_string(), unit, ucum),
            quantity(&high.to_string(), unit, ucum)
        );
        let observation = out.add("Observation", &fields);
        let _ = write!(
            results,
            r#"{}{{"reference":"{observation}"}}"#,
            if results.is_empty() { "" } else { "," }
        );
    }
    let fields = format!(
        r#",{}"category":[{}],"code":{},"performer":[{{"reference":"{LABORATORY}"}}],"result":[{results}]"#,
        out.about(visit),
        hl7("v2-0074", "LAB"),
        loinc("24323-8", "Comprehensive metabolic 2000 panel - Serum or Plasma"),
    );
    out.add("DiagnosticReport", &fields);
}

fn chronic(out: &mut Out, visit: &Visit, (code, name, drug, drug_name, dose): &(&str, &str, &str, &str, &str)) {
    let me = out.patient.clone();
    let fields = format!(
        r#","clinicalStatus":{},"verificationStatus":{},"category":[{}],"code":{{"coding":[{{"system":"http://hl7.org/fhir/sid/icd-10-cm","code":"{code}","display":"{name}"}}],"text":"{name}"}},"subject":{{"reference":"{me}"}},"onsetDateTime":"{}","recordedDate":"{}""#,
        hl7("condition-clinical", "active"),
        hl7("condition-ver-status", "confirmed"),
        hl7("condition-category", "problem-list-item"),
        visit.day,
        visit.day
    );
    let condition = out.add("Condition", &fields);
    let fields = format!(
        r#","status":"active","intent":"order","medicationCodeableConcept":{{"coding":[{{"system":"http://www.nlm.nih.gov/research/umls/rxnorm","code":"{drug}","display":"{drug_name}"}}],"text":"{drug_name}"}},"subject":{{"reference":"{me}"}},"encounter":{{"reference":"{}"}},"authoredOn":"{}","requester":{{"reference":"{DOCTOR}"}},"reasonReference":[{{"reference":"{condition}"}}],"dosageInstruction":[{{"text":"{dose}"}}]"#,
        visit.encounter, visit.start
    );
    out.add("MedicationRequest", &fields);
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepwell_model::json::parse;
    use keepwell_model::schema;
    use std::collections::BTreeSet;

    /// (type, id, resource text) of every entry.
    fn entries(line: &str) -> Vec<(String, String, String)> {
        let bundle = parse(line).unwrap();
        assert_eq!(bundle.str("type"), Some("transaction"));
        let of = |r: &keepwell_model::json::Value<'_>| {
            let (kind, id) = (
                r.str("resourceType").unwrap().to_owned(),
                r.str("id").unwrap().to_owned(),
            );
            (kind, id, r.to_string())
        };
        let all = bundle.get("entry").unwrap().items().unwrap();
        all.iter()
            .map(|e| {
                let (kind, id, text) = of(e.get("resource").unwrap());
                let request = e.get("request").unwrap();
                assert_eq!(request.str("method"), Some("PUT"));
                assert_eq!(request.str("url"), Some(&*format!("{kind}/{id}")));
                (kind, id, text)
            })
            .collect()
    }

    fn patients(seed: u64, n: usize) -> usize {
        bundles(seed, n)
            .flat_map(|l| entries(&l))
            .filter(|(kind, ..)| kind == "Patient")
            .count()
    }

    #[test]
    fn as_many_patients_as_asked_for() {
        for n in [0, 1, 12, BUNDLED_PATIENTS, 25] {
            assert_eq!(patients(1, n), n);
        }
        assert_eq!(bundles(1, 0).count(), 0);
    }

    #[test]
    fn the_same_seed_makes_the_same_world() {
        let world = |seed| bundles(seed, 30).collect::<Vec<_>>();
        assert_eq!(world(7), world(7));
        assert_ne!(world(7), world(8));
    }

    #[test]
    fn ids_are_unique_uuids_and_no_patient_id_is_all_digits() {
        let mut seen = BTreeSet::new();
        for (n, line) in bundles(3, 60).enumerate() {
            let mut here = BTreeSet::new();
            for (kind, id, _) in entries(&line) {
                assert_eq!(id.len(), 36, "{kind}/{id}");
                assert!(id.chars().any(|c| c.is_ascii_alphabetic()), "{kind}/{id}");
                assert!(
                    here.insert((kind.clone(), id.clone())),
                    "twice in line {n}: {kind}/{id}"
                );
                if kind == "Patient" {
                    assert!(seen.insert(id));
                }
            }
        }
    }

    #[test]
    fn generated_patients_have_histories() {
        let sizes: Vec<usize> = (0..200).map(|n| entries(&patient(5, n)).len()).collect();
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!((60..=300).contains(&mean), "{mean}");
        assert!(sizes.iter().all(|n| *n <= 600), "{:?}", sizes.iter().max());
    }

    #[test]
    fn every_resource_is_valid_r4() {
        for line in bundles(11, 40) {
            for (kind, id, text) in entries(&line) {
                let issues = schema::validate(&parse(&text).unwrap(), schema::Mode::Update);
                assert!(issues.is_empty(), "{kind}/{id}: {issues:?}");
            }
        }
    }

    #[test]
    fn the_patient_login_is_in_the_world() {
        let rosa = staff().into_iter().find(|s| s.role == Role::Patient).unwrap();
        let id = rosa.patient.unwrap();
        let world: Vec<String> = bundles(0, BUNDLED_PATIENTS).collect();
        assert!(world.iter().any(|l| {
            entries(l)
                .iter()
                .any(|(k, i, text)| k == "Patient" && i == id && text.contains("Delgado-Quinn"))
        }));
        let roles: BTreeSet<Role> = staff().iter().map(|s| s.role).collect();
        assert_eq!(roles.len(), 9);
        assert!(!roles.contains(&Role::Service));
    }

    /// Who treats whom in the demo: its stories are about it.
    #[test]
    fn clinicians_have_their_patients_and_the_synthea_patients_are_nobodys() {
        for s in staff() {
            assert_eq!(s.practitioner.is_some(), s.role != Role::Patient, "{}", s.user);
        }
        let doctor = format!("\"{DOCTOR}\"");
        let named = |bundle: &String, kind: &str, whom: &str| {
            entries(bundle)
                .iter()
                .any(|(k, _, text)| k == kind && text.contains(whom))
        };
        let world: Vec<String> = bundles(0, BUNDLED_PATIENTS + 5).collect();
        for bundle in &world[1 + BUNDLED_PATIENTS..] {
            assert!(named(bundle, "CareTeam", &doctor) && named(bundle, "CareTeam", NURSE));
        }
        for bundle in &world[1..=BUNDLED_PATIENTS] {
            let synthea = !bundle.contains("harbourlane");
            assert_eq!(
                bundle.contains(DOCTOR) || bundle.contains("5361248c-929f-5538-be6a-d1351ddfcc0b"),
                !synthea
            );
        }
        let chan = world.iter().find(|b| b.contains("陳")).unwrap();
        assert!(named(chan, "CareTeam", NURSE));
    }

    #[test]
    fn stories_are_told() {
        let world: String = bundles(0, BUNDLED_PATIENTS).collect();
        for clue in [
            r#""code":"R","display":"restricted""#,
            "deceasedDateTime",
            "multipleBirthInteger",
            "陳",
            "الفارسي",
            "SMH-771-090-15",
            r#""criticality":"high""#,
            "not-done",
        ] {
            assert!(world.contains(clue), "{clue}");
        }
    }
}

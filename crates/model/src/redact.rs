//! Takes one patient out of a resource of several: the references to that patient go, with everything that stands
//! beside them for that patient alone, and the others keep what is theirs.
//!
//! What rules cannot decide is not guessed at: [`redact`] says why ([`Doubt`]), and a person decides. Doubtful are
//! narrative and attachments (they may say anything), documents and signed content (taking something out makes another
//! document of it), and text that holds a name, number or address of the patient.
//!
//! - A list item that is a reference to the patient, or holds one beside its other members and speaks of no other
//!   patient, goes as a whole (`Appointment.participant`, `List.entry`, `Group.member`).
//! - Any other reference to the patient becomes a Reference without content, marked by the standard extension
//!   `data-absent-reason` as masked, so that required elements stay.
//! - Of a Bundle or Parameters the resources at home with the patient go, those of several are redacted in turn, and
//!   those of others stay untouched.
//!
//! The outcome is at home with exactly the others, and valid, or it is not given.

use crate::home::{self, Home, local_patient};
use crate::json::Value;
use crate::outcome::Severity;
use crate::reference::Base;
use crate::schema::{Mode, validate};
use crate::types::ResourceType;
use std::borrow::Cow;

/// Why rules cannot take a patient out of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Doubt {
    /// Narrative may say anything.
    #[error("it has a narrative")]
    Narrative,
    /// An attachment may hold anything.
    #[error("it has an attachment")]
    Attachment,
    /// A text names the patient, or the patient's names are not known.
    #[error("its text may name the patient")]
    Named,
    /// A document is one whole, attested as such.
    #[error("it is a document")]
    Document,
    /// The signature would not fit what is left.
    #[error("it is signed")]
    Signed,
    /// The patient is mentioned where no rule reaches.
    #[error("it mentions the patient where no rule reaches")]
    Mentioned,
    /// What is left breaks the rules of its type.
    #[error("without the patient it breaks the rules of its type")]
    Invalid,
}

/// What may be done where rules alone cannot decide.
#[derive(Clone, Copy, Debug)]
pub enum Care<'n> {
    /// Every doubt is told. `names`: the patient's names, numbers and addresses, as [`names`] finds them; `None` where
    /// they are not known.
    Ask {
        /// Folded words and phrases that must not remain.
        names: Option<&'n [String]>,
    },
    /// A person has looked at it: narrative and attachments go, other text stays as it is.
    Decided,
}

/// Words that tell who a Patient resource is about: names, identifiers, telecom, address lines; folded to lower case.
#[must_use]
pub fn names(patient: &Value<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for name in ["name", "identifier", "telecom", "address", "contact"] {
        if let Some(part) = patient.get(name) {
            texts(part, &mut |text| add_words(text, &mut out));
        }
    }
    out
}

/// Who is taken out, on the server of which base.
#[derive(Clone, Copy)]
struct Patient<'p> {
    id: &'p str,
    base: &'p Base,
}

/// Removes `patient` from a resource of type `t` that is about several, on the server of that base.
///
/// # Errors
/// The first doubt met.
pub fn redact<'a>(
    t: ResourceType,
    mut resource: Value<'a>,
    patient: &str,
    base: &Base,
    care: Care<'_>,
) -> Result<Value<'a>, Doubt> {
    let patient = Patient { id: patient, base };
    let mut gone = Vec::new();
    strip_resource(t, &mut resource, patient, care, &mut gone)?;
    let mut mentioned = false;
    let mut named = false;
    let known = match care {
        Care::Ask { names } => {
            named = names.is_none();
            Some(names.unwrap_or_default())
        }
        Care::Decided => None,
    };
    each_text(&resource, &mut |text| mentioned |= mentions(text, patient.id));
    if let Some(names) = known {
        texts(&resource, &mut |text| {
            let text = text.to_lowercase();
            named |= names.iter().chain(&gone).any(|name| holds(&text, name));
        });
    }
    if mentioned || at_home(t, &resource, base).iter().any(|id| id == patient.id) {
        return Err(Doubt::Mentioned);
    }
    if named {
        return Err(Doubt::Named);
    }
    if validate(&resource, Mode::Update)
        .iter()
        .any(|i| i.severity >= Severity::Error)
    {
        return Err(Doubt::Invalid);
    }
    Ok(resource)
}

fn at_home(t: ResourceType, resource: &Value<'_>, base: &Base) -> Vec<String> {
    match home::home(t, resource, base) {
        Home::Patient(id) => vec![id],
        Home::Several(ids) => ids,
        Home::Shared => Vec::new(),
    }
}

/// One resource, not yet compared with the patient's names. `gone` gets the words that stood beside the references.
fn strip_resource(
    t: ResourceType,
    resource: &mut Value<'_>,
    patient: Patient<'_>,
    care: Care<'_>,
    gone: &mut Vec<String>,
) -> Result<(), Doubt> {
    if t.name() == "Bundle" && resource.str("type") == Some("document") {
        return Err(Doubt::Document);
    }
    if is_signed(resource) {
        return Err(Doubt::Signed);
    }
    match t.name() {
        "Bundle" => strip_entries(resource, patient, care, gone)?,
        "Parameters" => strip_parameters(resource, patient, care, gone)?,
        _ => {}
    }
    strip_free_text(resource, care)?;
    strip_references(resource, patient, gone);
    Ok(())
}

/// Whether a resource inside another stays, is to be redacted, or goes.
fn strip_inside(
    inside: &mut Value<'_>,
    patient: Patient<'_>,
    care: Care<'_>,
    gone: &mut Vec<String>,
) -> Result<bool, Doubt> {
    let Some(t) = inside.str("resourceType").and_then(ResourceType::from_name) else {
        return Ok(true);
    };
    let ids = at_home(t, inside, patient.base);
    if !ids.iter().any(|id| id == patient.id) {
        return Ok(true);
    }
    if ids.len() == 1 {
        return Ok(false);
    }
    strip_resource(t, inside, patient, care, gone).map(|()| true)
}

fn strip_entries(
    bundle: &mut Value<'_>,
    patient: Patient<'_>,
    care: Care<'_>,
    gone: &mut Vec<String>,
) -> Result<(), Doubt> {
    let Some(Value::Array(entries)) = bundle.get_mut("entry") else {
        return Ok(());
    };
    let mut kept = Vec::with_capacity(entries.len());
    for mut entry in std::mem::take(entries) {
        let url = entry.get("request").and_then(|r| r.str("url"));
        let about = [url, entry.str("fullUrl")].into_iter().flatten();
        let mut stays = !about.into_iter().any(|text| mentions(text, patient.id));
        if stays && let Some(inside) = entry.get_mut("resource") {
            stays = strip_inside(inside, patient, care, gone)?;
        }
        if stays {
            kept.push(entry);
        }
    }
    *entries = kept;
    if entries.is_empty() {
        bundle.remove("entry");
    }
    Ok(())
}

fn strip_parameters(
    node: &mut Value<'_>,
    patient: Patient<'_>,
    care: Care<'_>,
    gone: &mut Vec<String>,
) -> Result<(), Doubt> {
    for name in ["parameter", "part"] {
        let Some(Value::Array(list)) = node.get_mut(name) else {
            continue;
        };
        let mut kept = Vec::with_capacity(list.len());
        for mut parameter in std::mem::take(list) {
            let stays = match parameter.get_mut("resource") {
                Some(inside) => strip_inside(inside, patient, care, gone)?,
                None => true,
            };
            if stays {
                strip_parameters(&mut parameter, patient, care, gone)?;
                kept.push(parameter);
            }
        }
        *list = kept;
        if list.is_empty() {
            node.remove(name);
        }
    }
    Ok(())
}

/// Whether a member is a resource of its own, as in `Bundle.entry.resource`; contained ones belong to their container.
fn is_own_resource(name: &str, value: &Value<'_>) -> bool {
    name == "resource" && value.get("resourceType").is_some()
}

fn is_signed(node: &Value<'_>) -> bool {
    match node {
        Value::Array(items) => items.iter().any(is_signed),
        Value::Object(members) => members
            .iter()
            .any(|(n, v)| !is_own_resource(n, v) && (n == "signature" || n == "attester" || is_signed(v))),
        _ => false,
    }
}

/// An Attachment, or a resource's own base64 content; not SampledData, whose `data` are numbers.
fn is_attachment(node: &Value<'_>) -> bool {
    let data = node.get("data").is_some_and(|d| d.as_str().is_some()) && node.get("dimensions").is_none();
    data || node.get("contentType").is_some()
}

fn strip_free_text(node: &mut Value<'_>, care: Care<'_>) -> Result<(), Doubt> {
    let decided = matches!(care, Care::Decided);
    match node {
        Value::Array(items) => items.iter_mut().try_for_each(|item| strip_free_text(item, care)),
        Value::Object(members) => {
            if members.iter().any(|(n, v)| n == "text" && v.get("div").is_some()) {
                if !decided {
                    return Err(Doubt::Narrative);
                }
                members.retain(|(n, v)| n != "text" || v.get("div").is_none());
            }
            for (name, value) in members {
                if is_own_resource(name, value) {
                    continue;
                }
                if value.get("resourceType").is_none() && is_attachment(value) {
                    if !decided {
                        return Err(Doubt::Attachment);
                    }
                    *value = masked();
                    continue;
                }
                if let Value::Array(items) = value {
                    for item in items
                        .iter_mut()
                        .filter(|i| i.get("resourceType").is_none() && is_attachment(i))
                    {
                        if !decided {
                            return Err(Doubt::Attachment);
                        }
                        *item = masked();
                    }
                }
                strip_free_text(value, care)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// An element whose content is withheld: <https://hl7.org/fhir/R4/extension-data-absent-reason.html>.
fn masked() -> Value<'static> {
    let text = |s: &'static str| Value::String(Cow::Borrowed(s));
    let extension = Value::Object(vec![
        (
            Cow::Borrowed("url"),
            text("http://hl7.org/fhir/StructureDefinition/data-absent-reason"),
        ),
        (Cow::Borrowed("valueCode"), text("masked")),
    ]);
    Value::Object(vec![(Cow::Borrowed("extension"), Value::Array(vec![extension]))])
}

fn refers(value: &Value<'_>, patient: Patient<'_>) -> bool {
    value.str("reference").and_then(|r| local_patient(r, patient.base)) == Some(patient.id)
}

/// Whether an item speaks of the patient directly and of no other patient.
fn is_of(item: &Value<'_>, patient: Patient<'_>) -> bool {
    let Some(members) = item.members() else { return false };
    if !members.iter().any(|(_, v)| refers(v, patient)) {
        return false;
    }
    let mut others = false;
    each_text(item, &mut |text| {
        others |= local_patient(text, patient.base).is_some_and(|id| id != patient.id)
    });
    !others
}

fn strip_references(node: &mut Value<'_>, patient: Patient<'_>, gone: &mut Vec<String>) {
    let mut leave = |value: &Value<'_>| texts(value, &mut |text| add_words(text, gone));
    match node {
        Value::Array(items) => {
            let before = items.len();
            let references = items.iter().any(|i| refers(i, patient));
            items.retain(|item| {
                let goes = refers(item, patient) || is_of(item, patient);
                if goes {
                    leave(item);
                }
                !goes
            });
            if items.is_empty() && before > 0 && references {
                items.push(masked());
            }
            for item in items {
                strip_references(item, patient, gone);
            }
        }
        Value::Object(members) => {
            for (name, value) in members.iter_mut() {
                if is_own_resource(name, value) {
                    continue;
                }
                if refers(value, patient) {
                    texts(value, &mut |text| add_words(text, gone));
                    *value = masked();
                } else {
                    strip_references(value, patient, gone);
                }
            }
            members.retain(|(_, v)| !matches!(v, Value::Array(items) if items.is_empty()));
        }
        _ => {}
    }
}

/// Whether a text is a reference to the patient, relative or absolute, or holds one.
fn mentions(text: &str, patient: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find("Patient/") {
        rest = rest.get(at + "Patient/".len()..).unwrap_or_default();
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.'))
            .unwrap_or(rest.len());
        if rest.get(..end) == Some(patient) {
            return true;
        }
    }
    false
}

/// Every string below `node`, but for resources of their own.
fn each_text(node: &Value<'_>, act: &mut dyn FnMut(&str)) {
    match node {
        Value::String(text) => act(text),
        Value::Array(items) => items.iter().for_each(|item| each_text(item, act)),
        Value::Object(members) => members
            .iter()
            .filter(|(n, v)| !is_own_resource(n, v))
            .for_each(|(_, v)| each_text(v, act)),
        _ => {}
    }
}

/// Members that hold codes, links and the like: nobody is named there.
const NOT_TEXT: [&str; 16] = [
    "code",
    "contentType",
    "id",
    "lastUpdated",
    "linkId",
    "mode",
    "period",
    "profile",
    "reference",
    "resourceType",
    "status",
    "system",
    "type",
    "unit",
    "url",
    "use",
];

/// Every string a person may have written.
fn texts(node: &Value<'_>, act: &mut dyn FnMut(&str)) {
    match node {
        Value::String(text) => act(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, act)),
        Value::Object(members) => {
            for (name, value) in members {
                let code = value.as_str().is_some() && NOT_TEXT.contains(&name.as_ref());
                if !code && !is_own_resource(name, value) {
                    texts(value, act);
                }
            }
        }
        _ => {}
    }
}

/// A text's words of two letters or digits and more.
fn add_words(text: &str, out: &mut Vec<String>) {
    for word in text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|w| w.chars().count() > 1)
    {
        let word = word.to_lowercase();
        if !out.contains(&word) {
            out.push(word);
        }
    }
}

/// Whether a folded text holds `word` as a word of its own.
fn holds(text: &str, word: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric()).any(|w| w == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse;
    use crate::reference::spellings::OWN;

    const NAMES: Option<&[String]> = Some(&[]);

    fn type_of(v: &Value<'_>) -> ResourceType {
        ResourceType::from_name(v.str("resourceType").unwrap()).unwrap()
    }

    fn without(text: &str, care: Care<'_>) -> Result<String, Doubt> {
        let v = parse(text).unwrap();
        redact(type_of(&v), v, "gone", &Base::new("clinic.example"), care).map(|v| {
            let mut out = String::new();
            v.write(&mut out);
            out
        })
    }

    fn asked(text: &str) -> Result<String, Doubt> {
        without(text, Care::Ask { names: NAMES })
    }

    const MASKED: &str =
        r#"{"extension":[{"url":"http://hl7.org/fhir/StructureDefinition/data-absent-reason","valueCode":"masked"}]}"#;

    #[test]
    fn what_is_the_patients_alone_goes_and_the_rest_stays() {
        for (text, want) in [
            (
                r#"{"resourceType":"Appointment","id":"x","status":"proposed","participant":[{"actor":{"reference":"Patient/gone","display":"G. One"},"status":"accepted"},{"actor":{"reference":"Patient/stays"},"status":"accepted"}]}"#.to_owned(),
                r#"{"resourceType":"Appointment","id":"x","status":"proposed","participant":[{"actor":{"reference":"Patient/stays"},"status":"accepted"}]}"#.to_owned(),
            ),
            (
                r#"{"resourceType":"Observation","id":"x","status":"final","code":{"text":"height"},"subject":{"reference":"Patient/gone","display":"G"},"performer":[{"reference":"Patient/stays"}]}"#.to_owned(),
                format!(r#"{{"resourceType":"Observation","id":"x","status":"final","code":{{"text":"height"}},"subject":{MASKED},"performer":[{{"reference":"Patient/stays"}}]}}"#),
            ),
            (
                r#"{"resourceType":"Observation","id":"x","status":"final","code":{"text":"height"},"subject":{"reference":"Patient/stays"},"performer":[{"reference":"Patient/gone/_history/2"}]}"#.to_owned(),
                format!(r#"{{"resourceType":"Observation","id":"x","status":"final","code":{{"text":"height"}},"subject":{{"reference":"Patient/stays"}},"performer":[{MASKED}]}}"#),
            ),
            (
                r#"{"resourceType":"List","id":"x","status":"current","mode":"working","entry":[{"item":{"reference":"Patient/gone"}},{"item":{"reference":"Patient/stays"}}]}"#.to_owned(),
                r#"{"resourceType":"List","id":"x","status":"current","mode":"working","entry":[{"item":{"reference":"Patient/stays"}}]}"#.to_owned(),
            ),
            (
                r#"{"resourceType":"Bundle","id":"x","type":"collection","entry":[{"resource":{"resourceType":"Patient","id":"gone","text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">Gone</div>"}}},{"resource":{"resourceType":"Patient","id":"stays"}},{"request":{"method":"DELETE","url":"Patient/gone"}}]}"#.to_owned(),
                r#"{"resourceType":"Bundle","id":"x","type":"collection","entry":[{"resource":{"resourceType":"Patient","id":"stays"}}]}"#.to_owned(),
            ),
            (
                r#"{"resourceType":"Parameters","id":"x","parameter":[{"name":"a","resource":{"resourceType":"Patient","id":"gone"}},{"name":"b","valueReference":{"reference":"Patient/gone"}},{"name":"c","valueReference":{"reference":"Patient/stays"}}]}"#.to_owned(),
                r#"{"resourceType":"Parameters","id":"x","parameter":[{"name":"c","valueReference":{"reference":"Patient/stays"}}]}"#.to_owned(),
            ),
        ] {
            assert_eq!(asked(&text), Ok(want), "{text}");
        }
    }

    /// However the reference to the patient is spelt, it goes; what stays is at home with the others.
    #[test]
    fn own_references_go_in_every_spelling() {
        let base = Base::new("clinic.example");
        let text = r#"{"resourceType":"Appointment","id":"x","status":"proposed","participant":[{"actor":{"reference":"REF"},"status":"accepted"},{"actor":{"reference":"http://localhost/fhir/Patient/stays"},"status":"accepted"}]}"#;
        for spelt in OWN {
            let text = text.replace("REF", spelt);
            let v = parse(&text).unwrap();
            let t = type_of(&v);
            let left = redact(t, v, "1", &base, Care::Ask { names: NAMES }).unwrap();
            assert!(!left.to_string().contains("Patient/1"), "{spelt}");
            assert_eq!(
                home::home(t, &left, &base),
                Home::Patient("stays".to_owned()),
                "{spelt}"
            );
        }
        // Whose patient that is, is not known: a person decides.
        let text = text.replace("REF", "https://clinic.example.evil/fhir/Patient/1");
        let v = parse(&text).unwrap();
        assert_eq!(
            redact(type_of(&v), v, "1", &base, Care::Ask { names: NAMES }).err(),
            Some(Doubt::Mentioned)
        );
    }

    #[test]
    fn what_rules_cannot_decide_is_told() {
        let base = r#"{"resourceType":"Appointment","id":"x","status":"proposed",MORE"participant":[{"actor":{"reference":"Patient/gone","display":"Ada Moss"},"status":"accepted"},{"actor":{"reference":"Patient/stays"},"status":"accepted"}]}"#;
        let with = |more: &str| base.replace("MORE", more);
        let known = ["lovelace".to_owned()];
        let ask = Care::Ask { names: Some(&known) };
        let div = r#""text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">of both</div>"},"#;
        assert_eq!(without(&with(div), ask), Err(Doubt::Narrative));
        assert!(without(&with(div), Care::Decided).is_ok_and(|out| !out.contains("of both")));
        for (more, doubt) in [
            (r#""comment":"Mrs. LOVELACE comes later","#, Doubt::Named),
            (r#""comment":"with Ada","#, Doubt::Named),
            (r#""comment":"see Patient/gone","#, Doubt::Mentioned),
            (
                r#""comment":"see https://x.org/fhir/Patient/gone/_history/1","#,
                Doubt::Mentioned,
            ),
        ] {
            assert_eq!(without(&with(more), ask), Err(doubt), "{more}");
        }
        assert!(without(&with(r#""comment":"with Adam, see Patient/gone-by","#), ask).is_ok());
        assert_eq!(without(&with(""), Care::Ask { names: None }), Err(Doubt::Named));
        assert!(without(&with(r#""comment":"with Ada","#), Care::Decided).is_ok());
        assert_eq!(
            without(&with(r#""comment":"see Patient/gone","#), Care::Decided),
            Err(Doubt::Mentioned)
        );
        let media = r#"{"resourceType":"Communication","id":"x","status":"completed","subject":{"reference":"Patient/gone"},"recipient":[{"reference":"Patient/stays"}],"payload":[{"contentAttachment":{"contentType":"image/png","data":"AAAA"}}]}"#;
        assert_eq!(without(media, ask), Err(Doubt::Attachment));
        assert!(without(media, Care::Decided).is_ok_and(|out| !out.contains("AAAA") && out.contains("masked")));
        let document = r#"{"resourceType":"Bundle","id":"x","type":"document","entry":[{"resource":{"resourceType":"Patient","id":"gone"}},{"resource":{"resourceType":"Patient","id":"stays"}}]}"#;
        assert_eq!(without(document, Care::Decided), Err(Doubt::Document));
        let signed = r#"{"resourceType":"Provenance","id":"x","target":[{"reference":"Patient/gone"},{"reference":"Patient/stays"}],"recorded":"2020-01-01T00:00:00Z","agent":[{"who":{"reference":"Practitioner/p"}}],"signature":[{"type":[{"code":"1"}],"when":"2020-01-01T00:00:00Z","who":{"reference":"Practitioner/p"}}]}"#;
        assert_eq!(without(signed, Care::Decided), Err(Doubt::Signed));
    }

    #[test]
    fn the_names_of_a_patient_are_what_tells_who_it_is() {
        let v = parse(
            r#"{"resourceType":"Patient","id":"gone","name":[{"use":"official","family":"Lovelace","given":["Ada","B"]}],"identifier":[{"system":"urn:mrn","value":"MRN-77"}],"telecom":[{"system":"phone","value":"555 0100"}],"gender":"female","birthDate":"1815-12-10"}"#,
        )
        .unwrap();
        assert_eq!(names(&v), ["lovelace", "ada", "mrn", "77", "555", "0100"]);
    }
}

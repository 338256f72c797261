//! `_summary` and `_elements`: <https://hl7.org/fhir/R4/search.html#summary>.

use crate::answer::Refusal;
use crate::write::parse_json;
use keepwell_model::json::Value;
use keepwell_model::schema;
use keepwell_model::types::ResourceType;
use keepwell_search::query::Summary;
use std::borrow::Cow;

/// Which part of a resource is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// `_summary`
    pub summary: Option<Summary>,
    /// `_elements`, top-level names.
    pub elements: Vec<String>,
}

impl View {
    /// Whole resources: nothing needs parsing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.elements.is_empty() && matches!(self.summary, None | Some(Summary::False | Summary::Count))
    }
}

/// Cuts the resource in `bytes` down to the view, in place, and marks it SUBSETTED.
pub(crate) fn render(t: ResourceType, view: &View, bytes: &mut Vec<u8>) -> Result<(), Refusal> {
    if view.is_whole() {
        return Ok(());
    }
    let whole = std::mem::take(bytes);
    let mut value = parse_json(&whole)?;
    if let Value::Object(members) = &mut value {
        members.retain(|(name, _)| keeps(t, view, name));
        let meta = match members.iter_mut().find(|(n, _)| n == "meta") {
            Some((_, v)) => v,
            None => {
                members.push((Cow::Borrowed("meta"), Value::Object(Vec::new())));
                match members.last_mut() {
                    Some((_, v)) => v,
                    None => return Ok(()),
                }
            }
        };
        let mark = subsetted();
        match meta.get_mut("tag") {
            Some(Value::Array(tags)) => tags.push(mark),
            _ => meta.set("tag", Value::Array(vec![mark])),
        }
    }
    let mut out = String::with_capacity(whole.len());
    value.write(&mut out);
    *bytes = out.into_bytes();
    Ok(())
}

/// Cuts a Patient down to who it is, within the view: what a clinician without a treatment relationship is shown.
pub(crate) fn banner(view: &View, bytes: &mut Vec<u8>) -> Result<(), Refusal> {
    let t = crate::patient_type();
    let whole = std::mem::take(bytes);
    let mut value = parse_json(&whole)?;
    if let Value::Object(members) = &mut value {
        members.retain(|(name, _)| {
            matches!(&**name, "resourceType" | "id")
                || matches!(&**name, "name" | "birthDate" | "gender") && keeps(t, view, name)
        });
        if let Some((_, names)) = members.iter_mut().find(|(name, _)| name == "name")
            && let Value::Array(names) = names
        {
            for name in names {
                bare(name);
            }
        }
        members.insert(
            usize::from(!members.is_empty()),
            (
                Cow::Borrowed("meta"),
                keepwell_model::json::object([("tag", Value::Array(vec![subsetted()]))]),
            ),
        );
    }
    let mut out = String::with_capacity(512);
    value.write(&mut out);
    *bytes = out.into_bytes();
    Ok(())
}

/// Takes extensions off a HumanName: they may say anything. How a name is written in other scripts is one too, and goes.
fn bare(name: &mut Value<'_>) {
    if let Value::Object(members) = name {
        members.retain(|(n, _)| matches!(&**n, "use" | "text" | "family" | "given" | "prefix" | "suffix"));
    }
}

/// The tag of a resource that is not shown whole.
fn subsetted() -> Value<'static> {
    keepwell_model::json::object([
        (
            "system",
            Value::from("http://terminology.hl7.org/CodeSystem/v3-ObservationValue"),
        ),
        ("code", Value::from("SUBSETTED")),
    ])
}

fn keeps(t: ResourceType, view: &View, member: &str) -> bool {
    let name = member.strip_prefix('_').unwrap_or(member);
    if matches!(name, "resourceType" | "id" | "meta") {
        return true;
    }
    if !view.elements.is_empty() {
        return view
            .elements
            .iter()
            .any(|e| e == name || schema::element_of(t, name) == Some(e))
            || schema::is_mandatory(t, name);
    }
    match view.summary {
        Some(Summary::True) => schema::is_summary(t, name),
        Some(Summary::Text) => name == "text" || schema::is_mandatory(t, name),
        Some(Summary::Data) => name != "text",
        Some(Summary::Count | Summary::False) | None => true,
    }
}

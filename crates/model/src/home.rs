//! The home of a resource: which patients it is about. It decides the key slot a version is sealed under and the
//! relation that policy judges.
//!
//! The rules, in order:
//!
//! - (a) what the parameters of the Patient CompartmentDefinition find (`Observation.subject`, `Observation.performer`);
//! - (b) where these find nothing: elements named `subject`, `patient` or `for` that may refer to a Patient
//!   (`Task.for`, `Device.patient`), which the compartment leaves out;
//! - (c) Binary by `securityContext`, Provenance and AuditEvent by their targets (the latter two are rule (a) already);
//! - (d) Bundle, List, Group and Parameters by what is inside;
//! - (e) everything else is shared.
//!
//! A Patient is at home under its own id: `Patient.link` merges charts and moves nothing.
//! Only local references count ([`Base::local`]: `Patient/x`, `Patient/x/_history/2`, and both with this server's own
//! base in front): the URL of another server, a `urn:uuid:` or a contained `#x` names no patient here. References in a
//! stored Bundle are taken as written.
//!
//! The paths of (a) and (b) stand in `data/home.txt`, generated from the official definitions; `tests/home_table.rs`
//! compares them.

use crate::json::Value;
use crate::reference::{Base, is_id};
use crate::types::ResourceType;
use std::sync::LazyLock;

/// Whose record a resource belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Home {
    /// One patient, by logical id.
    Patient(String),
    /// Several patients: their ids, sorted, each once, at least two.
    Several(Vec<String>),
    /// No patient: definitions, organisations, practitioners.
    Shared,
}

/// Decides the home of `resource`, whose type is `resource_type`, on the server of that base.
///
/// A Patient must already carry the id it is stored under; one without is [`Home::Shared`].
#[must_use]
pub fn home(resource_type: ResourceType, resource: &Value, base: &Base) -> Home {
    let mut found = Found::new(base);
    if resource_type == TABLE.patient {
        found.own_id(resource);
    } else {
        collect(resource_type, resource, &mut found);
    }
    let ids = found.sorted();
    match ids.as_slice() {
        [] => Home::Shared,
        [id] => Home::Patient((*id).to_owned()),
        several => Home::Several(several.iter().map(|id| (*id).to_owned()).collect()),
    }
}

/// Lists every local patient that the paths of the table mention in `resource`, sorted, each once; for a Patient its
/// own id and the linked ones. Reads the type from `resourceType`.
#[must_use]
pub fn patients<'v>(resource: &'v Value, base: &Base) -> Vec<&'v str> {
    let mut found = Found::new(base);
    if let Some(t) = type_of(resource) {
        if t == TABLE.patient {
            found.own_id(resource);
        }
        collect(t, resource, &mut found);
    }
    found.sorted()
}

/// The id of a local reference to a Patient.
#[must_use]
pub fn local_patient<'r>(reference: &'r str, base: &Base) -> Option<&'r str> {
    base.local(reference)
        .filter(|(t, _)| *t == TABLE.patient)
        .map(|(_, id)| id)
}

struct Found<'v, 'b> {
    ids: Vec<&'v str>,
    base: &'b Base,
}

impl<'v, 'b> Found<'v, 'b> {
    fn new(base: &'b Base) -> Self {
        Self { ids: Vec::new(), base }
    }

    fn add(&mut self, id: &'v str) {
        if self.ids.last() != Some(&id) {
            self.ids.push(id);
        }
    }

    fn sorted(mut self) -> Vec<&'v str> {
        self.ids.sort_unstable();
        self.ids.dedup();
        self.ids
    }

    fn own_id(&mut self, resource: &'v Value) {
        if let Some(id) = resource.get("id").and_then(Value::as_str).filter(|id| is_id(id)) {
            self.add(id);
        }
    }

    fn reference(&mut self, reference: &'v Value) {
        if let Some(text) = reference.get("reference").and_then(Value::as_str) {
            self.text(text);
        }
    }

    fn text(&mut self, reference: &'v str) {
        if let Some(id) = local_patient(reference, self.base) {
            self.add(id);
        }
    }
}

type Path = Box<[&'static str]>;

struct Table {
    /// Per type number: the paths of rule (a), and those of rule (b), which speak when (a) finds nothing.
    rows: Vec<(Vec<Path>, Vec<Path>)>,
    patient: ResourceType,
    binary: ResourceType,
    bundle: ResourceType,
    list: ResourceType,
    parameters: ResourceType,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut rows: Vec<(Vec<Path>, Vec<Path>)> = Vec::new();
    rows.resize_with(crate::types::COUNT, Default::default);
    for line in include_str!("../data/home.txt").lines().filter(|l| !l.starts_with('#')) {
        let mut words = line.split(' ');
        let (Some(rule), Some(name), Some(path)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let path: Path = path.split('.').collect();
        if let Some((a, b)) = ResourceType::from_name(name).and_then(|t| rows.get_mut(t.index())) {
            if rule == "a" { a.push(path) } else { b.push(path) }
        }
    }
    let named = |n| ResourceType::from_name(n).unwrap_or(FIRST);
    Table {
        rows,
        patient: named("Patient"),
        binary: named("Binary"),
        bundle: named("Bundle"),
        list: named("List"),
        parameters: named("Parameters"),
    }
});

/// Never met: every name asked for is in the list of types (test `the_table_knows_its_types`).
const FIRST: ResourceType = match ResourceType::from_code(0) {
    Some(t) => t,
    None => unreachable!(),
};

fn type_of(resource: &Value) -> Option<ResourceType> {
    ResourceType::from_name(resource.get("resourceType")?.as_str()?)
}

fn collect<'v>(t: ResourceType, resource: &'v Value, found: &mut Found<'v, '_>) {
    let before = found.ids.len();
    let Some((a, b)) = TABLE.rows.get(t.index()) else {
        return;
    };
    for path in a {
        walk(resource, path, found);
    }
    if found.ids.len() == before {
        for path in b {
            walk(resource, path, found);
        }
    }
    if t == TABLE.binary {
        if let Some(r) = resource.get("securityContext") {
            found.reference(r);
        }
    } else if t == TABLE.bundle {
        for entry in each(resource.get("entry")) {
            if let Some(r) = entry.get("resource") {
                inside(r, found);
            }
            if let Some(url) = entry.get("request").and_then(|r| r.get("url")).and_then(Value::as_str) {
                found.text(url);
            }
        }
    } else if t == TABLE.list {
        for entry in each(resource.get("entry")) {
            if let Some(r) = entry.get("item") {
                found.reference(r);
            }
        }
    } else if t == TABLE.parameters {
        parameters(resource.get("parameter"), found);
    }
}

fn inside<'v>(resource: &'v Value, found: &mut Found<'v, '_>) {
    if let Some(t) = type_of(resource) {
        if t == TABLE.patient {
            found.own_id(resource);
        } else {
            collect(t, resource, found);
        }
    }
}

fn parameters<'v>(list: Option<&'v Value>, found: &mut Found<'v, '_>) {
    for p in each(list) {
        if let Some(r) = p.get("resource") {
            inside(r, found);
        }
        if let Some(r) = p.get("valueReference") {
            found.reference(r);
        }
        parameters(p.get("part"), found);
    }
}

fn each<'b, 'v>(list: Option<&'b Value<'v>>) -> &'b [Value<'v>] {
    list.and_then(Value::items).unwrap_or_default()
}

/// Follows `path` from `node` through arrays to the Reference elements at its end.
fn walk<'v>(node: &'v Value, path: &[&str], found: &mut Found<'v, '_>) {
    if let Value::Array(items) = node {
        for item in items {
            walk(item, path, found);
        }
        return;
    }
    match path.split_first() {
        None => found.reference(node),
        Some((name, rest)) => {
            if let Some(child) = node.get(name) {
                walk(child, rest, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse;
    use crate::reference::spellings::{FOREIGN, OWN};

    fn home_of(text: &str) -> String {
        let v = parse(text).unwrap();
        match home(type_of(&v).unwrap(), &v, &Base::new("clinic.example")) {
            Home::Patient(p) => p,
            Home::Several(ids) => ids.join("+"),
            Home::Shared => "shared".into(),
        }
    }

    #[test]
    fn the_table_knows_its_types() {
        for (t, name) in [
            (TABLE.patient, "Patient"),
            (TABLE.binary, "Binary"),
            (TABLE.bundle, "Bundle"),
            (TABLE.list, "List"),
            (TABLE.parameters, "Parameters"),
        ] {
            assert_eq!(t.name(), name);
        }
        let rules = include_str!("../data/home.txt")
            .lines()
            .filter(|l| !l.starts_with('#'))
            .count();
        assert_eq!(TABLE.rows.iter().map(|(a, b)| a.len() + b.len()).sum::<usize>(), rules);
    }

    #[test]
    fn a_resource_is_at_home_with_its_patients() {
        for (text, expect) in [
            (
                r#"{"resourceType":"Patient","id":"a","link":[{"other":{"reference":"Patient/b"}}]}"#,
                "a",
            ),
            (
                r#"{"resourceType":"Observation","subject":{"reference":"Patient/a"}}"#,
                "a",
            ),
            (
                r#"{"resourceType":"Observation","subject":{"reference":"Patient/a/_history/3"}}"#,
                "a",
            ),
            (
                r#"{"resourceType":"Observation","subject":{"reference":"Patient/b"},"performer":[{"reference":"Practitioner/x"},{"reference":"Patient/a"}]}"#,
                "a+b",
            ),
            (
                r#"{"resourceType":"Observation","subject":{"reference":"Group/g"}}"#,
                "shared",
            ),
            (
                r#"{"resourceType":"Observation","subject":{"reference":"https://x.org/Patient/a"}}"#,
                "shared",
            ),
            (
                r#"{"resourceType":"Observation","subject":{"reference":"Patient/a/b"}}"#,
                "shared",
            ),
            (
                r#"{"resourceType":"Observation","subject":{"reference":"Patient/"}}"#,
                "shared",
            ),
            (
                r#"{"resourceType":"Observation","subject":{"reference":"Patient/a?x"}}"#,
                "shared",
            ),
            (
                r##"{"resourceType":"Observation","subject":{"reference":"#a"}}"##,
                "shared",
            ),
            (r#"{"resourceType":"Observation","subject":"Patient/a"}"#, "shared"),
            (
                r#"{"resourceType":"Appointment","participant":[{"actor":{"reference":"Patient/a"}}]}"#,
                "a",
            ),
            (r#"{"resourceType":"Task","for":{"reference":"Patient/a"}}"#, "a"),
            (r#"{"resourceType":"Device","patient":{"reference":"Patient/a"}}"#, "a"),
            (
                r#"{"resourceType":"Binary","securityContext":{"reference":"Patient/a"}}"#,
                "a",
            ),
            (
                r#"{"resourceType":"Provenance","target":[{"reference":"Patient/a"},{"reference":"Condition/c"}]}"#,
                "a",
            ),
            (
                r#"{"resourceType":"AuditEvent","entity":[{"what":{"reference":"Patient/a"}}]}"#,
                "a",
            ),
            (
                r#"{"resourceType":"List","entry":[{"item":{"reference":"Patient/a"}},{"item":{"reference":"Patient/b"}}]}"#,
                "a+b",
            ),
            (
                r#"{"resourceType":"Group","member":[{"entity":{"reference":"Patient/a"}}]}"#,
                "a",
            ),
            (
                r#"{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Patient","id":"a"}},{"resource":{"resourceType":"Flag","subject":{"reference":"Patient/c"}}},{"request":{"method":"DELETE","url":"Patient/d"}}]}"#,
                "a+c+d",
            ),
            (
                r#"{"resourceType":"Parameters","parameter":[{"name":"x","part":[{"name":"y","resource":{"resourceType":"Patient","id":"a"}}]}]}"#,
                "a",
            ),
            (r#"{"resourceType":"Organization"}"#, "shared"),
            (r#"{"resourceType":"Patient"}"#, "shared"),
        ] {
            assert_eq!(home_of(text), expect, "{text}");
        }
    }

    /// Every rule follows every spelling of this server's own references, and none of a near miss.
    #[test]
    fn own_spellings_are_at_home_and_near_misses_are_not() {
        let places = [
            r#"{"resourceType":"Observation","subject":{"reference":"REF"}}"#,
            r#"{"resourceType":"Observation","performer":[{"reference":"REF"}]}"#,
            r#"{"resourceType":"Appointment","participant":[{"actor":{"reference":"REF"}}]}"#,
            r#"{"resourceType":"Task","for":{"reference":"REF"}}"#,
            r#"{"resourceType":"Device","patient":{"reference":"REF"}}"#,
            r#"{"resourceType":"Binary","securityContext":{"reference":"REF"}}"#,
            r#"{"resourceType":"Provenance","target":[{"reference":"Condition/c"},{"reference":"REF"}]}"#,
            r#"{"resourceType":"AuditEvent","entity":[{"what":{"reference":"REF"}}]}"#,
            r#"{"resourceType":"List","entry":[{"item":{"reference":"REF"}}]}"#,
            r#"{"resourceType":"Group","member":[{"entity":{"reference":"REF"}}]}"#,
            r#"{"resourceType":"Bundle","entry":[{"request":{"method":"DELETE","url":"REF"}}]}"#,
            r#"{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Flag","subject":{"reference":"REF"}}}]}"#,
            r#"{"resourceType":"Parameters","parameter":[{"name":"x","valueReference":{"reference":"REF"}}]}"#,
        ];
        let with = |place: &str, text: &str| home_of(&place.replace("REF", &text.replace('\\', "\\\\")));
        for place in places {
            for text in OWN {
                assert_eq!(with(place, text), "1", "{text} in {place}");
            }
            for text in FOREIGN {
                assert_eq!(with(place, text), "shared", "{text} in {place}");
            }
        }
        // The same patient in two spellings is one patient.
        let both =
            r#"{"resourceType":"Observation","subject":{"reference":"Patient/1"},"performer":[{"reference":"REF"}]}"#;
        for text in OWN {
            assert_eq!(with(both, text), "1", "{text}");
        }
    }

    #[test]
    fn patients_lists_links_too() {
        let v = parse(r#"{"resourceType":"Patient","id":"a","link":[{"other":{"reference":"Patient/b"}}]}"#).unwrap();
        let base = Base::new("clinic.example");
        assert_eq!(patients(&v, &base), ["a", "b"]);
        assert!(patients(&parse("[1]").unwrap(), &base).is_empty());
    }
}

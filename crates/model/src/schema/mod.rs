//! Validation of resources against the base definitions of R4: structure, cardinality, types, primitive formats,
//! choice types, required bindings, types of reference targets, contained resources, narrative, invariants.
//!
//! The rules are data ([`table`]); this module walks a resource once beside them. It looks at one resource at a time:
//! whether a reference's target exists is not its business, nor are profiles: they come later, as further tables
//! beside the base one.
//!
//! Each issue's `expression` is the FHIRPath of the faulty element: `Patient.name[0].given[1]`,
//! `Observation.value.ofType(Quantity)`. Diagnostics name elements and rules, never values.

mod invariant;
mod primitive;
mod subset;
pub(crate) mod table;

pub use invariant::coverage;
pub use primitive::Primitive;
pub use subset::{element_of, is_mandatory, is_summary};

use crate::fhirpath::{Env, Node};
use crate::json::Value;
use crate::narrative;
use crate::outcome::Issue;
use crate::reference::is_id;
use crate::types::ResourceType;
use invariant::Broken;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::LazyLock;
use table::{Element, Kind, NONE, NodeNo, Prop, Run, TABLE, Table};

/// What the resource is validated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A create: the server gives the id.
    Create,
    /// An update: the id must be there.
    Update,
    /// The body of an operation or any other look without storing.
    Operation,
}

/// More issues than this are not listed: nobody reads them, and a hostile body would make a long answer.
const MOST_ISSUES: usize = 50;

/// Checks `resource` against the definition of its type. No issue means that it is accepted.
#[must_use]
pub fn validate(resource: &Value, mode: Mode) -> Vec<Issue> {
    let mut walk = Walk {
        table: &TABLE,
        issues: Vec::new(),
        path: Vec::new(),
        scope: Scope::default(),
        within: None,
        steps: 0,
    };
    walk.resource(resource, Place::Root);
    if mode == Mode::Update && walk.issues.is_empty() && resource.get("id").is_none() {
        walk.path.push(Seg::Name("id"));
        walk.fail("required", "an update needs the resource's id in its body");
    }
    walk.issues
}

/// Loads the tables and compiles the invariants (some 5 ms), so that the first write does not wait for it.
pub fn warm_up() {
    LazyLock::force(&TABLE);
    LazyLock::force(&invariant::CHECKS);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The resource itself.
    Root,
    /// In `contained`.
    Contained,
    /// A resource of its own inside another: Bundle.entry.resource, Parameters.parameter.resource.
    Inner,
}

/// What an object is beside the elements of its node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// It has a `resourceType` and may have nothing else.
    Resource,
    /// It needs more than an id (ele-1).
    Element,
    /// The companion of a primitive that has a value: an id is enough.
    Companion,
}

/// One step of the path to where the walk is.
#[derive(Clone, Copy)]
enum Seg<'v> {
    Root(&'v str),
    Name(&'static str),
    Index(usize),
    OfType(&'static str),
}

/// What belongs to the resource that contains others.
#[derive(Default)]
struct Scope<'v> {
    contained: &'v [Value<'v>],
    /// Their types by id; the first of two with the same id.
    ids: HashMap<&'v str, Option<ResourceType>>,
    /// References of the form `#id` met so far, kept only where something is contained.
    local: Vec<&'v str>,
}

impl<'v> Scope<'v> {
    fn of(contained: &'v [Value<'v>]) -> Self {
        let mut ids = HashMap::new();
        for c in contained {
            if let Some(id) = c.get("id").and_then(Value::as_str) {
                let t = c
                    .get("resourceType")
                    .and_then(Value::as_str)
                    .and_then(ResourceType::from_name);
                ids.entry(id).or_insert(t);
            }
        }
        Scope {
            contained,
            ids,
            local: Vec::new(),
        }
    }
}

struct Walk<'v> {
    table: &'static Table,
    issues: Vec<Issue>,
    path: Vec<Seg<'v>>,
    scope: Scope<'v>,
    /// The resource the walk is in, and the one that contains it (often the same).
    within: Option<(Node<'v>, Node<'v>)>,
    /// What the invariants have cost so far.
    steps: u32,
}

type Members<'v> = [(Cow<'v, str>, Value<'v>)];

impl<'v> Walk<'v> {
    /// Notes an issue at the present path.
    fn fail(&mut self, code: &'static str, diagnostics: impl Into<String>) {
        if self.issues.len() < MOST_ISSUES {
            let at = self.expression();
            let issue = Issue::error(code, diagnostics);
            // No type, no path: FHIRPath starts at the type's name.
            self.issues.push(if at.is_empty() { issue } else { issue.at(at) });
        }
    }

    fn fail_below(&mut self, name: &'static str, code: &'static str, diagnostics: impl Into<String>) {
        self.path.push(Seg::Name(name));
        self.fail(code, diagnostics);
        self.path.pop();
    }

    /// The FHIRPath of where the walk is.
    fn expression(&self) -> String {
        let mut out = String::new();
        for seg in &self.path {
            match seg {
                Seg::Root(name) => out.push_str(name),
                Seg::Name(name) => {
                    if !out.is_empty() {
                        out.push('.');
                    }
                    out.push_str(name);
                }
                // Writing to a String cannot fail.
                Seg::Index(i) => drop(write!(out, "[{i}]")),
                Seg::OfType(t) => drop(write!(out, ".ofType({t})")),
            }
        }
        out
    }

    fn resource(&mut self, v: &'v Value<'v>, place: Place) {
        let Value::Object(members) = v else {
            return self.fail("structure", "a resource is a JSON object");
        };
        let name = match v.get("resourceType") {
            Some(Value::String(s)) => s.as_ref(),
            Some(_) => return self.fail("structure", "`resourceType` is a string"),
            None => return self.fail("required", "the resource has no `resourceType`"),
        };
        let node = ResourceType::from_name(name).and_then(|t| self.table.resource(t));
        let Some(node) = node else {
            return self.fail(
                "structure",
                "`resourceType` is not the name of a resource type of FHIR R4",
            );
        };
        let contained = v.get("contained").and_then(Value::items).unwrap_or_default();
        let here = Node::object(v, node);
        let outside = self.within;
        self.within = Some((
            here,
            outside
                .filter(|_| place == Place::Contained)
                .map_or(here, |(_, root)| root),
        ));
        match place {
            Place::Root | Place::Inner => {
                let outer = std::mem::replace(&mut self.scope, Scope::of(contained));
                if place == Place::Root {
                    self.path.push(Seg::Root(name));
                }
                self.object(node, v, members, Shape::Resource);
                self.contained_are_used();
                self.scope = outer;
            }
            Place::Contained => {
                if v.get("contained").is_some() {
                    self.fail("invariant", "dom-2: a contained resource must not contain others");
                }
                if v.get("id").is_none() {
                    self.fail_below("id", "required", "a contained resource needs an id to be referred to");
                }
                if let Some(meta) = v.get("meta") {
                    for (name, key) in [("versionId", "dom-4"), ("lastUpdated", "dom-4"), ("security", "dom-5")] {
                        if meta.get(name).is_some() {
                            self.fail_below(
                                "meta",
                                "invariant",
                                format!("{key}: a contained resource has no meta.{name}"),
                            );
                        }
                    }
                }
                let before = self.scope.local.len();
                self.object(node, v, members, Shape::Resource);
                // dom-3: a contained resource may also be there because it refers to its container.
                if self.scope.local.iter().skip(before).any(|r| *r == "#")
                    && let Some(id) = v.get("id").and_then(Value::as_str)
                {
                    self.scope.local.push(id);
                }
            }
        }
        self.within = outside;
    }

    /// Tests invariants on what is well-formed; on the rest they would only repeat the trouble.
    fn invariants(&mut self, run: Run, at: Node<'v>) {
        let Some((resource, root)) = self.within else { return };
        if run.is_empty() || !self.issues.is_empty() {
            return;
        }
        let mut broken = Vec::new();
        invariant::test(run, Env::new(at, resource, root), &mut self.steps, &mut broken);
        for b in broken {
            match b {
                Broken::Rule(key, human) => self.fail("invariant", format!("{key}: {human}")),
                Broken::TooCostly => self.fail("too-costly", "the resource is too large to check an invariant here"),
            }
        }
    }

    /// dom-3: what is contained is referred to.
    fn contained_are_used(&mut self) {
        if self.scope.contained.is_empty() || !self.issues.is_empty() {
            return;
        }
        let local: HashSet<&str> = self
            .scope
            .local
            .iter()
            .map(|r| r.strip_prefix('#').unwrap_or(r))
            .collect();
        let mut ids: HashSet<&str> = HashSet::new();
        for (i, c) in self.scope.contained.iter().enumerate() {
            let Some(id) = c.get("id").and_then(Value::as_str) else {
                continue;
            };
            let twice = !ids.insert(id);
            if twice || !local.contains(id) {
                self.path.push(Seg::Name("contained"));
                self.path.push(Seg::Index(i));
                if twice {
                    self.fail("invariant", "two contained resources have the same id");
                } else {
                    self.fail(
                        "invariant",
                        "dom-3: the contained resource is not referred to from the resource",
                    );
                }
                self.path.truncate(self.path.len() - 2);
            }
        }
    }

    /// Checks the members of an object against the elements of `node`.
    fn object(&mut self, no: NodeNo, v: &'v Value<'v>, members: &'v Members<'v>, shape: Shape) {
        let table = self.table;
        let Some(node) = table.node(no) else { return };
        if members.is_empty() {
            return self.fail("structure", "an object must not be empty");
        }
        let shadows = members.iter().any(|(n, _)| n.starts_with('_'));
        let mut seen = 0_u64;
        let mut content = shape != Shape::Element;
        for (i, (name, member)) in members.iter().enumerate() {
            if shape == Shape::Resource && name == "resourceType" {
                continue;
            }
            let (bare, shadow) = match name.strip_prefix('_') {
                Some(bare) => (bare, true),
                None => (name.as_ref(), false),
            };
            let prop = table.prop(node, bare).filter(|p| match p.kind {
                Kind::Choice => false,
                Kind::Primitive(_) => true,
                Kind::Node(_) | Kind::Resource => !shadow,
            });
            let Some((prop, element)) = prop.and_then(|p| Some((p, table.element(node, p.element)?))) else {
                self.unknown(name);
                continue;
            };
            content |= prop.name != "id";
            self.path.push(Seg::Name(element.name));
            let bit = 1 << prop.element;
            if element.choice {
                self.path.push(Seg::OfType(self.type_name(prop)));
                if seen & bit != 0
                    && !members
                        .iter()
                        .take(i)
                        .any(|(n, _)| n.strip_prefix('_').unwrap_or(n) == bare)
                {
                    self.fail("structure", format!("`{}[x]` may have only one type", element.name));
                }
            }
            seen |= bit;
            match prop.kind {
                Kind::Primitive(p) => {
                    let other = |want: &str, shadow: bool| {
                        members
                            .iter()
                            .find(|(n, _)| n.strip_prefix('_').unwrap_or(n) == want && n.starts_with('_') == shadow)
                            .map(|(_, v)| v)
                    };
                    if !shadow {
                        let ext = if shadows { other(bare, true) } else { None };
                        self.primitives(p, element, Some(member), ext);
                    } else if other(bare, false).is_none() {
                        self.primitives(p, element, None, Some(member));
                    }
                }
                _ if element.array => {
                    if let Some(items) = self.array(member) {
                        for (i, item) in items.iter().enumerate() {
                            self.path.push(Seg::Index(i));
                            self.complex(prop, element, item);
                            self.path.pop();
                        }
                    }
                }
                _ if matches!(member, Value::Array(_)) => {
                    self.fail("structure", "this element has a single value, not an array");
                }
                _ => self.complex(prop, element, member),
            }
            self.path.truncate(self.path.len() - 1 - usize::from(element.choice));
        }
        if !content {
            self.fail(
                "structure",
                "ele-1: an element needs a value or children besides its id",
            );
        }
        let missing = node.required & !seen;
        if missing != 0 {
            for (i, element) in table.elements(node).iter().enumerate() {
                if missing & (1 << i) != 0 {
                    self.fail_below(element.name, "required", "this element is required");
                }
            }
        }
        self.invariants(node.invariants, Node::object(v, no));
    }

    /// A member that the definition does not know. Its name is repeated only where it looks like an element's.
    fn unknown(&mut self, name: &str) {
        let plain = name.strip_prefix('_').unwrap_or(name);
        let decent = plain.len() <= 40
            && plain.starts_with(|c: char| c.is_ascii_alphabetic())
            && plain.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if self.issues.len() < MOST_ISSUES {
            let mut at = self.expression();
            if decent {
                at.push('.');
                at.push_str(plain);
            }
            self.issues
                .push(Issue::error("structure", "the definition has no element of this name").at(at));
        }
    }

    fn type_name(&self, prop: &Prop) -> &'static str {
        match prop.kind {
            Kind::Primitive(p) => p.name(),
            Kind::Node(n) => self.table.node(n).map_or("", |n| n.name),
            Kind::Resource | Kind::Choice => "Resource",
        }
    }

    /// The items of what must be an array with content.
    fn array(&mut self, v: &'v Value<'v>) -> Option<&'v [Value<'v>]> {
        match v {
            Value::Array(items) if !items.is_empty() => Some(items),
            Value::Array(_) => {
                self.fail("structure", "an array must not be empty");
                None
            }
            _ => {
                self.fail("structure", "this element may repeat and is written as an array");
                None
            }
        }
    }

    /// A primitive element with its value (`name`) and its id and extensions (`_name`), one of which is there.
    fn primitives(
        &mut self,
        p: Primitive,
        element: &Element,
        value: Option<&'v Value<'v>>,
        shadow: Option<&'v Value<'v>>,
    ) {
        if !element.array {
            if matches!(value, Some(Value::Array(_))) || matches!(shadow, Some(Value::Array(_))) {
                return self.fail("structure", "this element has a single value, not an array");
            }
            return self.primitive(p, element, value, shadow);
        }
        let mut lists: [&'v [Value<'v>]; 2] = [&[], &[]];
        for (list, v) in lists.iter_mut().zip([value, shadow]) {
            if let Some(v) = v {
                let Some(items) = self.array(v) else { return };
                *list = items;
            }
        }
        let [values, shadows] = lists;
        if !values.is_empty() && !shadows.is_empty() && values.len() != shadows.len() {
            return self.fail(
                "structure",
                "the arrays of values and of their extensions differ in length",
            );
        }
        for i in 0..values.len().max(shadows.len()) {
            let present = |list: &'v [Value<'v>]| list.get(i).filter(|v| !matches!(v, Value::Null));
            self.path.push(Seg::Index(i));
            match (present(values), present(shadows)) {
                (None, None) => self.fail("structure", "null stands only for a value that has extensions instead"),
                (v, s) => self.primitive(p, element, v, s),
            }
            self.path.pop();
        }
    }

    fn primitive(
        &mut self,
        p: Primitive,
        element: &Element,
        value: Option<&'v Value<'v>>,
        shadow: Option<&'v Value<'v>>,
    ) {
        if let Some(v) = value {
            if p.accepts(v) {
                if let Value::String(s) = v {
                    self.text(p, element, s);
                }
            } else if p.written_in(v) {
                self.fail("value", format!("not of the type {}: {}", p.name(), p.hint()));
            } else {
                let code = if matches!(v, Value::Object(_) | Value::Null) {
                    "structure"
                } else {
                    "value"
                };
                self.fail(
                    code,
                    format!("the JSON kind is not that of the type {}: {}", p.name(), p.hint()),
                );
            }
        }
        if let Some(s) = shadow {
            match s {
                Value::Object(members) => {
                    if value.is_none() && s.get("extension").is_none() {
                        self.fail("structure", "ele-1: an element without a value needs an extension");
                    }
                    let shape = if value.is_some() {
                        Shape::Companion
                    } else {
                        Shape::Element
                    };
                    self.object(self.table.known.element, s, members, shape);
                }
                _ => self.fail(
                    "structure",
                    "the `_` companion of a primitive is an object with id or extension",
                ),
            }
        }
        self.invariants(
            element.invariants,
            Node {
                value,
                shadow,
                kind: Kind::Primitive(p),
            },
        );
    }

    /// What a well-formed string still has to satisfy.
    fn text(&mut self, p: Primitive, element: &Element, s: &'v str) {
        if p == Primitive::Xhtml {
            if let Err(e) = narrative::check(s) {
                self.fail("invariant", e.to_string());
            }
        } else if matches!(p, Primitive::Uri | Primitive::Url | Primitive::Canonical)
            && s.starts_with('#')
            && !self.scope.contained.is_empty()
        {
            self.scope.local.push(s);
        }
        if element.binding != NONE
            && let Some((name, set)) = self.table.value_set(element.binding)
            && !self.table.contains(set, None, s)
        {
            self.fail(
                "code-invalid",
                format!("the code is not in the required value set `{name}`"),
            );
        }
    }

    fn complex(&mut self, prop: &Prop, element: &Element, v: &'v Value<'v>) {
        let Kind::Node(no) = prop.kind else {
            let place = if element.name == "contained" {
                Place::Contained
            } else {
                Place::Inner
            };
            return self.resource(v, place);
        };
        let Value::Object(members) = v else {
            return self.fail("structure", "this element is a JSON object");
        };
        self.object(no, v, members, Shape::Element);
        let known = &self.table.known;
        if no == known.extension {
            let value = members
                .iter()
                .any(|(n, _)| n.starts_with("value") || n.starts_with("_value"));
            if value == v.get("extension").is_some() {
                self.fail("invariant", "ext-1: an extension has either a value or extensions");
            }
        } else if no == known.reference {
            self.reference(prop, v);
        } else if element.binding != NONE {
            self.binding(element.binding, no, v);
        }
        self.invariants(element.invariants, Node::object(v, no));
    }

    /// ref-1, and the type of what a literal reference points to.
    fn reference(&mut self, prop: &Prop, v: &'v Value<'v>) {
        let Some(literal) = v.get("reference").and_then(Value::as_str) else {
            return;
        };
        let target = match literal.strip_prefix('#') {
            Some(id) => {
                if !self.scope.contained.is_empty() {
                    self.scope.local.push(literal);
                }
                if id.is_empty() {
                    return;
                }
                let Some(found) = self.scope.ids.get(id) else {
                    let text = "ref-1: the reference is to a contained resource that is not there";
                    return self.fail_below("reference", "invariant", text);
                };
                *found
            }
            None => literal_type(literal),
        };
        let (Some(target), Some(allowed)) = (target, self.table.targets(prop.targets)) else {
            return;
        };
        if !allowed.contains(&target) {
            let mut text = String::from("the reference must be to ");
            for (i, t) in allowed.iter().enumerate() {
                text.push_str(if i == 0 { "" } else { ", " });
                text.push_str(t.name());
            }
            self.fail_below("reference", "value", text);
        }
    }

    /// A required binding of a Coding, CodeableConcept or Quantity.
    fn binding(&mut self, number: u16, no: NodeNo, v: &'v Value<'v>) {
        let Some((name, set)) = self.table.value_set(number) else {
            return;
        };
        let table = self.table;
        let is_in = |coding: &Value| {
            let system = coding.get("system").and_then(Value::as_str);
            let code = coding.get("code").and_then(Value::as_str);
            code.is_some_and(|c| table.contains(set, Some(system.unwrap_or_default()), c))
        };
        let known = &table.known;
        let good = if no == known.codeable_concept {
            let codings = v.get("coding").and_then(Value::items).unwrap_or_default();
            codings.iter().any(is_in) || (codings.is_empty() && v.get("extension").is_some())
        } else if no == known.coding {
            is_in(v) || (v.get("code").is_none() && v.get("extension").is_some())
        } else {
            no != known.quantity || v.get("code").is_none() || is_in(v)
        };
        if !good {
            self.fail(
                "code-invalid",
                format!("no code is from the required value set `{name}`"),
            );
        }
    }
}

/// The type in a literal reference: `Type/id`, `Type/id/_history/v`, or such an end of an http(s) address.
fn literal_type(reference: &str) -> Option<ResourceType> {
    let absolute = reference
        .strip_prefix("http://")
        .or_else(|| reference.strip_prefix("https://"));
    if absolute.is_none() && reference.contains(':') {
        return None;
    }
    let path = absolute.unwrap_or(reference);
    let path = path.split_once("/_history/").map_or(path, |(before, _)| before);
    let (before, id) = path.rsplit_once('/')?;
    let name = match before.rsplit_once('/') {
        Some((_, name)) if absolute.is_some() => name,
        None if absolute.is_none() => before,
        _ => return None,
    };
    if is_id(id) { ResourceType::from_name(name) } else { None }
}

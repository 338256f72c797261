//! The searchable values of a resource, by its type's parameters.
//!
//! The paths of all stored parameters of a type are merged into one tree of member names, so that a resource is walked
//! once and only where some parameter looks. What a value becomes is decided when the tree is built, from the element's
//! declared type; a value of another JSON shape gives nothing (validation refuses such resources before this).

use crate::definition::{self, Kind, Source, Start};
use crate::path::Expr;
use crate::term::{Extracted, ParamNo, Term};
use crate::{date, number};
use keepwell_model::json::Value;
use keepwell_model::reference::Base;
use keepwell_model::types::ResourceType;
use std::borrow::Cow;

/// The searchable values of a resource of that type on the server of that base, in parameter order. A value that stands
/// in the resource twice may be given twice.
#[must_use]
pub fn extract<'a>(resource_type: ResourceType, resource: &'a Value<'a>, base: &Base) -> Extracted<'a> {
    let program = definition::program(resource_type);
    let mut run = Run {
        resource,
        base,
        terms: Vec::with_capacity(24),
    };
    run.item(&program.root, resource);
    for (param, computed) in &program.computed {
        let code = if computed.holds(resource) == Some(true) {
            "true"
        } else {
            "false"
        };
        run.terms.push((
            *param,
            Term::Token {
                system: None,
                code: Cow::Borrowed(code),
            },
        ));
    }
    let mut terms = run.terms;
    terms.sort_by_key(|(p, _)| *p);
    // Most repetitions stand side by side: the text of a concept and the display of its coding.
    terms.dedup();
    Extracted { terms }
}

/// What extraction does for one type.
#[derive(Default)]
pub(crate) struct Program {
    root: Node,
    pub(crate) computed: Vec<(ParamNo, Computed)>,
}

/// A place in the resource where some parameter looks, or passes through.
#[derive(Default)]
struct Node {
    /// By length, then name.
    members: Vec<(&'static str, Node)>,
    /// `where(member='text')`
    filtered: Vec<(&'static str, &'static str, Node)>,
    /// `[n]`
    indexed: Vec<(usize, Node)>,
    emits: Vec<Emit>,
    tuples: Vec<(ParamNo, Vec<Part>)>,
}

struct Emit {
    param: ParamNo,
    leaf: Leaf,
    /// References to this type only.
    target: Option<ResourceType>,
}

/// One component of a composite.
struct Part {
    /// `%resource...`: looked up from the resource, not from the repeating element.
    from_resource: bool,
    node: Node,
}

/// A place a path leads to.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) steps: Vec<Step>,
    /// Under which name the element's own elements are defined.
    pub(crate) owner: &'static str,
    /// Its type as in the element table.
    pub(crate) ty: &'static str,
    /// From `where(resolve() is T)`.
    pub(crate) target: Option<ResourceType>,
}

/// One step of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Member(&'static str),
    Where(&'static str, &'static str),
    Index(usize),
}

impl State {
    /// The path as text, to compare places.
    pub(crate) fn place(&self) -> String {
        self.steps.iter().fold(String::new(), |mut out, s| {
            match s {
                Step::Member(m) => out.extend([".", m]),
                Step::Where(m, t) => out.extend(["?", m, "=", t]),
                Step::Index(n) => out.push_str(&format!("[{n}]")),
            }
            out
        })
    }
}

/// What an element of some type becomes for a parameter of some kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    Coding,
    Concept,
    Identifier,
    Contact,
    /// A primitive as a token, with the system its binding implies.
    Code(Option<&'static str>),
    Boolean,
    Text,
    Name,
    Address,
    Reference,
    /// A URL in a reference parameter.
    Canonical,
    /// A resource inside a Bundle, as a reference to itself.
    Resource,
    Date,
    Period,
    Timing,
    Number,
    NumberRange,
    Quantity,
    Money,
    Range,
    Sampled,
    Uri,
    /// A canonical in a uri parameter: with and without its version.
    VersionedUri,
    /// The element of a composite.
    Element,
}

impl Leaf {
    /// `None`: an element of that type has no value for that kind of parameter.
    pub(crate) fn of(kind: Kind, ty: &'static str) -> Option<Self> {
        let (ty, system) = match ty.split_once('=') {
            Some((ty, system)) => (ty, Some(system)),
            None => (ty, None),
        };
        Some(match (kind, ty) {
            (Kind::Token, "Coding") => Leaf::Coding,
            (Kind::Token, "CodeableConcept") => Leaf::Concept,
            (Kind::Token, "Identifier") => Leaf::Identifier,
            (Kind::Token, "ContactPoint") => Leaf::Contact,
            (Kind::Token, "boolean") => Leaf::Boolean,
            (Kind::Token, "code") => Leaf::Code(system),
            (
                Kind::Token,
                "string" | "id" | "uri" | "url" | "canonical" | "oid" | "uuid" | "positiveInt" | "integer",
            ) => Leaf::Code(None),
            (Kind::String, "string" | "markdown" | "code" | "id" | "uri" | "url") => Leaf::Text,
            (Kind::String, "HumanName") => Leaf::Name,
            (Kind::String, "Address") => Leaf::Address,
            (Kind::Reference, "Reference") => Leaf::Reference,
            (Kind::Reference, "canonical" | "uri" | "url") => Leaf::Canonical,
            (Kind::Reference, "Resource") => Leaf::Resource,
            (Kind::Date, "date" | "dateTime" | "instant") => Leaf::Date,
            (Kind::Date, "Period") => Leaf::Period,
            (Kind::Date, "Timing") => Leaf::Timing,
            (Kind::Number, "decimal" | "integer" | "positiveInt" | "unsignedInt") => Leaf::Number,
            (Kind::Number, "Range") => Leaf::NumberRange,
            (Kind::Quantity, "Quantity" | "Age" | "Duration" | "Distance" | "Count" | "SimpleQuantity") => {
                Leaf::Quantity
            }
            (Kind::Quantity, "Money") => Leaf::Money,
            (Kind::Quantity, "Range") => Leaf::Range,
            (Kind::Quantity, "SampledData") => Leaf::Sampled,
            (Kind::Uri, "uri" | "url" | "oid" | "uuid") => Leaf::Uri,
            (Kind::Uri, "canonical") => Leaf::VersionedUri,
            (Kind::Composite, _) => Leaf::Element,
            _ => return None,
        })
    }
}

impl Program {
    /// Adds the places of a parameter.
    pub(crate) fn add(&mut self, param: ParamNo, kind: Kind, states: &[State]) {
        self.root.add(param, kind, states);
    }

    /// Adds a composite over the elements at `states`; `components` as in the definitions, with their kinds.
    pub(crate) fn add_tuple(
        &mut self,
        source: &'static Source,
        resource_type: ResourceType,
        param: ParamNo,
        states: &[State],
        components: &'static str,
        kinds: &[Kind],
    ) -> Result<(), String> {
        for state in states {
            let mut parts = Vec::new();
            for (c, kind) in components.split(";;").zip(kinds) {
                let expression = c.split_once('=').map(|(_, e)| e).unwrap_or_default();
                let tree = crate::path::parse(expression).map_err(|e| e.to_string())?;
                let mut part = Part {
                    from_resource: false,
                    node: Node::default(),
                };
                for branch in tree.branches() {
                    // A path of a choice whose type this element does not have: `value.as(Range)` beside another.
                    part.from_resource |= from_resource(branch);
                    let places = source.walk(&Start::Element(state.owner, resource_type), branch)?;
                    part.node.add(ParamNo(0), *kind, &places);
                }
                parts.push(part);
            }
            if parts.len() != kinds.len() || parts.len() < 2 {
                return Err("components are not all parameters of the type".to_owned());
            }
            self.root.at(&state.steps).tuples.push((param, parts));
        }
        Ok(())
    }

    /// Puts the tree into the order lookups need. Call once, after the last addition.
    pub(crate) fn seal(&mut self) {
        self.root.seal();
    }
}

/// The path begins at `%resource`.
pub(crate) fn from_resource(e: &Expr) -> bool {
    match e {
        Expr::Resource => true,
        Expr::Member(e, _) | Expr::As(e, _) | Expr::Where(e, _) | Expr::Index(e, _) => from_resource(e),
        _ => false,
    }
}

impl Node {
    fn add(&mut self, param: ParamNo, kind: Kind, states: &[State]) {
        for s in states {
            if let Some(leaf) = Leaf::of(kind, s.ty) {
                self.at(&s.steps).emits.push(Emit {
                    param,
                    leaf,
                    target: s.target,
                });
            }
        }
    }

    /// The node at the end of `steps`, made where it is missing.
    fn at(&mut self, steps: &[Step]) -> &mut Node {
        let Some((first, rest)) = steps.split_first() else {
            return self;
        };
        let next = match first {
            Step::Member(name) => {
                let list = &mut self.members;
                let i = list.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
                    list.push((name, Node::default()));
                    list.len() - 1
                });
                list.get_mut(i).map(|(_, n)| n)
            }
            Step::Where(name, text) => {
                let list = &mut self.filtered;
                let i = list
                    .iter()
                    .position(|(n, t, _)| n == name && t == text)
                    .unwrap_or_else(|| {
                        list.push((name, text, Node::default()));
                        list.len() - 1
                    });
                list.get_mut(i).map(|(_, _, n)| n)
            }
            Step::Index(at) => {
                let list = &mut self.indexed;
                let i = list.iter().position(|(n, _)| n == at).unwrap_or_else(|| {
                    list.push((*at, Node::default()));
                    list.len() - 1
                });
                list.get_mut(i).map(|(_, n)| n)
            }
        };
        match next {
            Some(n) => n.at(rest),
            None => unreachable!("the place was found or just made"),
        }
    }

    fn seal(&mut self) {
        self.members.sort_by_key(|(n, _)| (n.len(), *n));
        self.members.shrink_to_fit();
        self.emits.shrink_to_fit();
        self.members.iter_mut().for_each(|(_, n)| n.seal());
        self.filtered.iter_mut().for_each(|(_, _, n)| n.seal());
        self.indexed.iter_mut().for_each(|(_, n)| n.seal());
        let parts = self.tuples.iter_mut().flat_map(|(_, parts)| parts);
        parts.for_each(|p| p.node.seal());
    }

    fn member(&self, name: &str) -> Option<&Node> {
        let at = self
            .members
            .binary_search_by(|(n, _)| (n.len(), *n).cmp(&(name.len(), name)))
            .ok()?;
        self.members.get(at).map(|(_, n)| n)
    }
}

struct Run<'a, 'b> {
    resource: &'a Value<'a>,
    base: &'b Base,
    terms: Vec<(ParamNo, Term<'a>)>,
}

impl<'a> Run<'a, '_> {
    /// A member's value: one item or an array of them.
    fn value(&mut self, node: &Node, v: &'a Value<'a>) {
        match v {
            Value::Array(items) => {
                for (n, child) in &node.indexed {
                    if let Some(item) = items.get(*n) {
                        self.item(child, item);
                    }
                }
                for item in items {
                    self.item(node, item);
                }
            }
            one => {
                for (n, child) in &node.indexed {
                    if *n == 0 {
                        self.item(child, one);
                    }
                }
                self.item(node, one);
            }
        }
    }

    fn item(&mut self, node: &Node, v: &'a Value<'a>) {
        for e in &node.emits {
            self.emit(e, v);
        }
        let Value::Object(members) = v else { return };
        if !node.members.is_empty() {
            for (name, value) in members {
                if let Some(child) = node.member(name) {
                    self.value(child, value);
                }
            }
        }
        for (name, text, child) in &node.filtered {
            if v.str(name) == Some(text) {
                self.item(child, v);
            }
        }
        for (param, parts) in &node.tuples {
            self.tuple(*param, parts, v);
        }
    }

    fn tuple(&mut self, param: ParamNo, parts: &[Part], v: &'a Value<'a>) {
        let mut tuple = Vec::with_capacity(parts.len());
        for part in parts {
            let mut run = Run {
                base: self.base,
                resource: self.resource,
                terms: Vec::new(),
            };
            run.item(&part.node, if part.from_resource { self.resource } else { v });
            if run.terms.is_empty() {
                return;
            }
            tuple.push(run.terms.into_iter().map(|(_, t)| t).collect());
        }
        self.terms.push((param, Term::Tuple(tuple)));
    }

    fn emit(&mut self, e: &Emit, v: &'a Value<'a>) {
        match e.leaf {
            Leaf::Coding => self.coding(e.param, v),
            Leaf::Concept => {
                for c in v.get("coding").and_then(Value::items).unwrap_or_default() {
                    self.coding(e.param, c);
                }
                self.text(e.param, v.str("text"));
            }
            Leaf::Identifier => self.identifier(e.param, v),
            Leaf::Contact => {
                // R4 search, 2.1.1.4.10: the use stands in the place of a system.
                if let Some(code) = v.str("value") {
                    self.push(
                        e.param,
                        Term::Token {
                            system: v.str("use").map(Cow::Borrowed),
                            code: code.into(),
                        },
                    );
                }
            }
            Leaf::Code(system) => {
                if let Some(code) = v.as_str().or_else(|| v.as_number()) {
                    self.push(
                        e.param,
                        Term::Token {
                            system: system.map(Cow::Borrowed),
                            code: code.into(),
                        },
                    );
                }
            }
            Leaf::Boolean => {
                if let Some(b) = v.as_bool() {
                    let code = if b { "true" } else { "false" };
                    self.push(
                        e.param,
                        Term::Token {
                            system: None,
                            code: code.into(),
                        },
                    );
                }
            }
            Leaf::Text => self.string(e.param, v),
            Leaf::Name => self.strings(e.param, v, &["text", "family", "given", "prefix", "suffix"]),
            Leaf::Address => self.strings(
                e.param,
                v,
                &["text", "line", "city", "district", "state", "postalCode", "country"],
            ),
            Leaf::Reference => self.reference(e, v),
            Leaf::Canonical => {
                if let Some(url) = v.as_str() {
                    // A canonical of this server stands without its base, however it was written.
                    self.push(e.param, Term::Url(self.base.below(url).unwrap_or(url).into()));
                }
            }
            Leaf::Resource => {
                let target = v.str("resourceType").and_then(ResourceType::from_name);
                let target = target.filter(|t| e.target.is_none_or(|wanted| wanted == *t));
                if let (Some(target), Some(id)) = (target, v.str("id")) {
                    self.push(e.param, Term::Reference { target, id: id.into() });
                }
            }
            Leaf::Date => self.date(e.param, v.as_str().and_then(date::range)),
            Leaf::Period => self.date(e.param, period(v)),
            Leaf::Timing => self.date(e.param, timing(v)),
            Leaf::Number => {
                if let Some(n) = v.as_number().and_then(number::json) {
                    self.push(e.param, Term::Number { lo: n, hi: n });
                }
            }
            Leaf::NumberRange => {
                if let Some((lo, hi, _)) = range(v) {
                    self.push(e.param, Term::Number { lo, hi });
                }
            }
            Leaf::Quantity => {
                if let Some((lo, hi)) = quantity(v) {
                    self.quantity(e.param, lo, hi, v);
                }
            }
            Leaf::Money => {
                if let Some(n) = v.get("value").and_then(Value::as_number).and_then(number::json) {
                    let code: Option<Cow<'a, str>> = v.str("currency").map(Cow::Borrowed);
                    let system = code.as_ref().map(|_| Cow::Borrowed("urn:iso:std:iso:4217"));
                    self.push(
                        e.param,
                        Term::Quantity {
                            lo: n,
                            hi: n,
                            system,
                            code,
                            unit: None,
                        },
                    );
                }
            }
            Leaf::Range => {
                if let Some((lo, hi, unit)) = range(v) {
                    self.quantity(e.param, lo, hi, unit);
                }
            }
            Leaf::Sampled => {
                if let (Some((lo, hi)), Some(origin)) = (sampled(v), v.get("origin")) {
                    self.quantity(e.param, lo, hi, origin);
                }
            }
            Leaf::Uri => {
                if let Some(uri) = v.as_str() {
                    self.push(e.param, Term::Uri(uri.into()));
                }
            }
            Leaf::VersionedUri => {
                if let Some(uri) = v.as_str() {
                    self.push(e.param, Term::Uri(uri.into()));
                    if let Some((bare, _)) = uri.split_once('|') {
                        self.push(e.param, Term::Uri(bare.into()));
                    }
                }
            }
            Leaf::Element => {}
        }
    }

    fn push(&mut self, param: ParamNo, term: Term<'a>) {
        self.terms.push((param, term));
    }

    fn text(&mut self, param: ParamNo, text: Option<&'a str>) {
        if let Some(text) = text.filter(|t| !t.is_empty()) {
            self.push(param, Term::Text(text.into()));
        }
    }

    fn coding(&mut self, param: ParamNo, v: &'a Value<'a>) {
        let (mut system, mut code, mut display) = (None, None, None);
        for (name, value) in v.members().unwrap_or_default() {
            match &**name {
                "system" => system = value.as_str(),
                "code" => code = value.as_str(),
                "display" => display = value.as_str(),
                _ => {}
            }
        }
        if let Some(code) = code {
            self.push(
                param,
                Term::Token {
                    system: system.map(Cow::Borrowed),
                    code: code.into(),
                },
            );
        }
        self.text(param, display);
    }

    fn identifier(&mut self, param: ParamNo, v: &'a Value<'a>) {
        let value = v.str("value");
        if let Some(value) = value {
            self.push(
                param,
                Term::Token {
                    system: v.str("system").map(Cow::Borrowed),
                    code: value.into(),
                },
            );
        }
        let Some(kind) = v.get("type") else { return };
        if let Some(value) = value {
            for c in kind.get("coding").and_then(Value::items).unwrap_or_default() {
                if let (Some(system), Some(code)) = (c.str("system"), c.str("code")) {
                    self.push(
                        param,
                        Term::OfType {
                            system: system.into(),
                            code: code.into(),
                            value: value.into(),
                        },
                    );
                }
            }
        }
        self.text(param, kind.str("text"));
    }

    fn string(&mut self, param: ParamNo, v: &'a Value<'a>) {
        if let Some(s) = v.as_str().filter(|s| !s.is_empty()) {
            self.push(param, Term::Str(s.into()));
        }
    }

    fn strings(&mut self, param: ParamNo, v: &'a Value<'a>, parts: &[&str]) {
        for (name, value) in v.members().unwrap_or_default() {
            if parts.contains(&&**name) {
                match value {
                    Value::Array(items) => items.iter().for_each(|s| self.string(param, s)),
                    one => self.string(param, one),
                }
            }
        }
    }

    fn reference(&mut self, e: &Emit, v: &'a Value<'a>) {
        let text = v.str("reference");
        let mut kind = None;
        match text {
            Some(text) => match self.base.local(text) {
                Some((target, id)) => {
                    kind = Some(target);
                    if e.target.is_none_or(|t| t == target) {
                        self.push(e.param, Term::Reference { target, id: id.into() });
                    }
                }
                None if text.starts_with('#') => kind = v.str("type").and_then(ResourceType::from_name),
                None => {
                    kind = tail_type(text).or_else(|| v.str("type").and_then(ResourceType::from_name));
                    if e.target.is_none() || kind == e.target {
                        self.push(e.param, Term::Url(text.into()));
                    }
                }
            },
            None => kind = v.str("type").and_then(ResourceType::from_name).or(kind),
        }
        let Some(identifier) = v.get("identifier") else { return };
        if let Some(value) = identifier
            .str("value")
            .filter(|_| e.target.is_none() || kind == e.target)
        {
            let system = identifier.str("system").map(Cow::Borrowed);
            self.push(
                e.param,
                Term::ReferenceIdentifier {
                    system,
                    value: value.into(),
                },
            );
        }
    }

    fn date(&mut self, param: ParamNo, range: Option<(i64, i64)>) {
        if let Some((lo, hi)) = range {
            self.push(param, Term::Date { lo, hi });
        }
    }

    fn quantity(&mut self, param: ParamNo, lo: f64, hi: f64, unit: &'a Value<'a>) {
        let (mut system, mut code, mut name) = (None, None, None);
        for (n, value) in unit.members().unwrap_or_default() {
            match &**n {
                "system" => system = value.as_str(),
                "code" => code = value.as_str(),
                "unit" => name = value.as_str(),
                _ => {}
            }
        }
        let [system, code, unit] = [system, code, name].map(|s| s.map(Cow::Borrowed));
        self.push(
            param,
            Term::Quantity {
                lo,
                hi,
                system,
                code,
                unit,
            },
        );
    }
}

/// The resource type an absolute URL names before the id.
pub(crate) fn tail_type(url: &str) -> Option<ResourceType> {
    let url = url.split("/_history/").next().unwrap_or(url);
    let mut parts = url.rsplit('/');
    parts.next()?;
    ResourceType::from_name(parts.next()?)
}

fn period(v: &Value<'_>) -> Option<(i64, i64)> {
    let start = v.str("start").and_then(date::range);
    let end = v.str("end").and_then(date::range);
    if start.is_none() && end.is_none() {
        return None;
    }
    Some((start.map_or(i64::MIN, |s| s.0), end.map_or(i64::MAX, |e| e.1)))
}

/// R4 search, 2.1.1.4.7: of a Timing only the outer limits count.
fn timing(v: &Value<'_>) -> Option<(i64, i64)> {
    let events = v.get("event").and_then(Value::items).unwrap_or_default();
    let events = events.iter().filter_map(|e| e.as_str().and_then(date::range));
    let bounds = v.get("repeat").and_then(|r| r.get("boundsPeriod")).and_then(period);
    events.chain(bounds).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

fn quantity(v: &Value<'_>) -> Option<(f64, f64)> {
    let n = number::json(v.get("value")?.as_number()?)?;
    Some(match v.str("comparator") {
        Some("<" | "<=") => (f64::NEG_INFINITY, n),
        Some(">" | ">=") => (n, f64::INFINITY),
        _ => (n, n),
    })
}

/// Ends of a Range and the quantity that names the unit.
fn range<'a>(v: &'a Value<'a>) -> Option<(f64, f64, &'a Value<'a>)> {
    let end = |name| {
        let q = v.get(name)?;
        Some((number::json(q.get("value")?.as_number()?)?, q))
    };
    let (low, high) = (end("low"), end("high"));
    let unit = low.or(high)?.1;
    Some((
        low.map_or(f64::NEG_INFINITY, |l| l.0),
        high.map_or(f64::INFINITY, |h| h.0),
        unit,
    ))
}

/// Least and greatest of the sampled values, or the limits stated.
fn sampled(v: &Value<'_>) -> Option<(f64, f64)> {
    let number = |v: &Value<'_>| v.as_number().and_then(number::json);
    let origin = v.get("origin")?.get("value").and_then(number)?;
    let factor = v.get("factor").and_then(number).unwrap_or(1.0);
    let data = v.str("data").unwrap_or_default().split_ascii_whitespace();
    let values = data
        .filter_map(number::json)
        .map(|d| (origin + d * factor, origin + d * factor));
    let limits = || {
        Some((
            v.get("lowerLimit").and_then(number)?,
            v.get("upperLimit").and_then(number)?,
        ))
    };
    values.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).or_else(limits)
}

/// A condition over the resource, for the parameters that are not a path (`Patient.deceased`).
#[derive(Debug)]
pub(crate) enum Computed {
    Exists(Vec<Vec<Step>>),
    /// The value is (`not`: is not) this boolean; nothing when there is no value.
    Is {
        at: Vec<Vec<Step>>,
        value: bool,
        not: bool,
    },
    And(Box<Computed>, Box<Computed>),
}

impl Computed {
    pub(crate) fn compile(source: &'static Source, resource_type: ResourceType, e: &Expr) -> Option<Self> {
        let places = |e: &Expr| {
            let states = source.walk(&Start::Resource(resource_type), e).ok()?;
            Some(states.into_iter().map(|s| s.steps).collect())
        };
        Some(match e {
            Expr::And(a, b) => Computed::And(
                Box::new(Self::compile(source, resource_type, a)?),
                Box::new(Self::compile(source, resource_type, b)?),
            ),
            Expr::Exists(e) => Computed::Exists(places(e)?),
            Expr::Equal(e, b, not) => match **b {
                Expr::Bool(value) => Computed::Is {
                    at: places(e)?,
                    value,
                    not: *not,
                },
                _ => return None,
            },
            _ => return None,
        })
    }

    fn holds(&self, resource: &Value<'_>) -> Option<bool> {
        match self {
            Computed::And(a, b) => match (a.holds(resource), b.holds(resource)) {
                (Some(true), Some(true)) => Some(true),
                (Some(false), _) | (_, Some(false)) => Some(false),
                _ => None,
            },
            Computed::Exists(at) => Some(at.iter().any(|steps| single(resource, steps).is_some())),
            Computed::Is { at, value, not } => {
                let v = at.iter().find_map(|steps| single(resource, steps))?;
                Some((v.as_bool() == Some(*value)) != *not)
            }
        }
    }
}

/// The value at a path of single elements.
fn single<'v, 'a>(v: &'v Value<'a>, steps: &[Step]) -> Option<&'v Value<'a>> {
    steps.iter().try_fold(v, |v, s| match s {
        Step::Member(m) => v.get(m),
        Step::Where(..) | Step::Index(_) => None,
    })
}

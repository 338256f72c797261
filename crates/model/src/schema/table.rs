//! The definitions of R4 as flat tables, unpacked once from `data/schema.zst` (written by `scripts/definitions`).
//!
//! A *node* is a type or a backbone element; it has *elements*, and an element one or more *properties*: the member
//! names it may have in JSON (a choice has one per type). Names are slices of the unpacked text; everything else is
//! numbers, so that the whole costs about a megabyte and loads in a few milliseconds.

use super::primitive::Primitive;
use crate::types::ResourceType;
use std::collections::HashMap;
use std::sync::LazyLock;

static PACKED: &[u8] = include_bytes!("../../data/schema.zst");

/// The table of R4.
pub(crate) static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let text = zstd::stream::decode_all(PACKED).unwrap_or_default();
    // Lives as long as the process: one static table borrows from it.
    let text: &'static str = Box::leak(String::from_utf8(text).unwrap_or_default().into_boxed_str());
    Table::read(text)
});

/// Number of a node.
pub(crate) type NodeNo = u16;
/// "None" for the `u16` numbers of value sets and target lists.
pub(crate) const NONE: u16 = u16::MAX;

/// What a property holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A primitive value.
    Primitive(Primitive),
    /// An object of that node.
    Node(NodeNo),
    /// Any resource.
    Resource,
    /// Not a member name: the base name of a choice, as FHIRPath says it (`value`).
    Choice,
}

/// A member name of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prop {
    /// The name in JSON, for example `valueQuantity`.
    pub name: &'static str,
    /// The element, counted within the node.
    pub element: u8,
    /// What it holds.
    pub kind: Kind,
    /// For a Reference: number of the list of types it may refer to.
    pub targets: u16,
}

/// A run of entries in one of the flat tables.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    start: u32,
    len: u16,
}

impl Run {
    /// Whether there is nothing in it.
    pub(crate) fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// An element of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element {
    /// The name without `[x]`.
    pub name: &'static str,
    /// At least one must be there.
    pub required: bool,
    /// Written as an array.
    pub array: bool,
    /// One of several types.
    pub choice: bool,
    /// Part of the summary.
    pub summary: bool,
    /// Number of the value set it must be from.
    pub binding: u16,
    /// Its invariants.
    pub invariants: Run,
    /// Its properties.
    #[cfg_attr(not(test), allow(dead_code, reason = "tests walk from elements to properties"))]
    props: Run,
}

/// A type or a backbone element.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    /// The type's name or the backbone's path.
    pub name: &'static str,
    /// The resource type, if it is one.
    pub resource: Option<ResourceType>,
    /// The elements that must be there, a bit each.
    pub required: u64,
    /// Its elements.
    pub elements: Run,
    /// Invariants of the node itself.
    pub invariants: Run,
    slots: u32,
    mask: u32,
}

/// An invariant of severity error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Invariant {
    /// For example `obs-6`.
    pub key: &'static str,
    /// The rule in words, from the specification.
    pub human: &'static str,
    /// The rule in FHIRPath.
    pub expression: &'static str,
}

/// The codes an element is bound to.
#[derive(Debug)]
pub(crate) enum ValueSet {
    /// `(code, system)`, sorted; `systems` holds the names.
    Codes(Vec<(&'static str, u16)>),
    /// Of the form of a media type (RFC 6838).
    MediaType,
    /// Three capital letters (ISO 4217).
    Currency,
    /// The seven units of time.
    TimeUnit,
}

/// All of it.
pub(crate) struct Table {
    nodes: Vec<Node>,
    elements: Vec<Element>,
    props: Vec<Prop>,
    slots: Vec<u16>,
    /// Numbers of invariants; runs of it belong to nodes and elements.
    invariant_lists: Vec<u16>,
    pub(crate) invariants: Vec<Invariant>,
    value_sets: Vec<(&'static str, ValueSet)>,
    systems: Vec<&'static str>,
    target_lists: Vec<Vec<ResourceType>>,
    by_resource: Vec<NodeNo>,
    /// Nodes that the checks treat specially.
    pub(crate) known: Known,
}

/// Numbers of nodes met often.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "named after the types")]
pub(crate) struct Known {
    pub element: NodeNo,
    pub extension: NodeNo,
    pub reference: NodeNo,
    pub coding: NodeNo,
    pub codeable_concept: NodeNo,
    pub quantity: NodeNo,
}

/// Cheap and good enough for the few dozen names of a node.
fn hash(name: &str) -> u32 {
    let mut h = 0x811c_9dc5_u32;
    for b in name.bytes() {
        h = (h ^ u32::from(b)).wrapping_mul(0x0100_0193);
    }
    h ^ (h >> 15)
}

impl Table {
    fn read(text: &'static str) -> Self {
        let mut t = Table {
            nodes: Vec::new(),
            elements: Vec::new(),
            props: Vec::new(),
            slots: Vec::new(),
            invariant_lists: Vec::new(),
            invariants: Vec::new(),
            value_sets: Vec::new(),
            systems: Vec::new(),
            target_lists: Vec::new(),
            by_resource: vec![0; crate::types::COUNT],
            known: Known::default(),
        };
        let mut numbers: HashMap<&str, NodeNo> = HashMap::new();
        for name in text.lines().filter_map(|l| l.strip_prefix("N\t")?.split('\t').next()) {
            numbers.insert(name, numbers.len() as NodeNo);
        }
        let mut seen_systems: HashMap<&str, u16> = HashMap::new();
        let mut seen_targets: HashMap<&str, u16> = HashMap::new();
        for line in text.lines() {
            let mut f = line.split('\t');
            let mut next = || f.next().unwrap_or_default();
            match next() {
                "I" => t.invariants.push(Invariant {
                    key: next(),
                    human: next(),
                    expression: next(),
                }),
                "V" => {
                    let name = next();
                    let mut codes = Vec::new();
                    let mut set = None;
                    for group in f {
                        match group {
                            "*mime" => set = Some(ValueSet::MediaType),
                            "*currency" => set = Some(ValueSet::Currency),
                            "*time-unit" => set = Some(ValueSet::TimeUnit),
                            _ => {
                                let (system, list) = group.split_once('|').unwrap_or_default();
                                let no = *seen_systems.entry(system).or_insert_with(|| {
                                    t.systems.push(system);
                                    t.systems.len() as u16 - 1
                                });
                                codes.extend(list.split(' ').map(|c| (c, no)));
                            }
                        }
                    }
                    codes.sort_unstable();
                    t.value_sets.push((name, set.unwrap_or(ValueSet::Codes(codes))));
                }
                "N" => {
                    t.close_node();
                    let (name, kind, list) = (next(), next(), next());
                    let no = t.nodes.len() as NodeNo;
                    let resource = if kind == "R" {
                        ResourceType::from_name(name)
                    } else {
                        None
                    };
                    if let Some(slot) = resource.and_then(|r| t.by_resource.get_mut(r.index())) {
                        *slot = no;
                    }
                    let elements = Run {
                        start: t.elements.len() as u32,
                        len: 0,
                    };
                    let invariants = t.list(list);
                    t.nodes.push(Node {
                        name,
                        resource,
                        required: 0,
                        elements,
                        invariants,
                        slots: 0,
                        mask: 0,
                    });
                }
                "E" => {
                    let (name, min, max, binding, flags, list, types) =
                        (next(), next(), next(), next(), next(), next(), next());
                    let base = name.strip_suffix("[x]").unwrap_or(name);
                    let choice = base.len() < name.len();
                    let invariants = t.list(list);
                    let start = t.props.len() as u32;
                    let Some(node) = t.nodes.last_mut() else { continue };
                    let at = node.elements.len as u8;
                    node.elements.len += 1;
                    if min != "0" {
                        node.required |= 1 << at;
                    }
                    for ty in types.split(';') {
                        let (ty, targets) = match ty.split_once('>') {
                            None => (ty, NONE),
                            Some((ty, list)) => (
                                ty,
                                *seen_targets.entry(list).or_insert_with(|| {
                                    t.target_lists
                                        .push(list.split(',').filter_map(ResourceType::from_name).collect());
                                    t.target_lists.len() as u16 - 1
                                }),
                            ),
                        };
                        let kind = if let Some(p) = Primitive::from_name(ty) {
                            Kind::Primitive(p)
                        } else if ty == "Resource" {
                            Kind::Resource
                        } else {
                            Kind::Node(numbers.get(ty.trim_start_matches('@')).copied().unwrap_or(NONE))
                        };
                        let name = if choice { leak_name(base, ty) } else { base };
                        t.props.push(Prop {
                            name,
                            element: at,
                            kind,
                            targets,
                        });
                    }
                    t.elements.push(Element {
                        name: base,
                        required: min != "0",
                        array: max == "*",
                        choice,
                        summary: flags.contains('s'),
                        binding: binding.parse().unwrap_or(NONE),
                        invariants,
                        props: Run {
                            start,
                            len: (t.props.len() as u32 - start) as u16,
                        },
                    });
                    if choice {
                        t.props.push(Prop {
                            name: base,
                            element: at,
                            kind: Kind::Choice,
                            targets: NONE,
                        });
                    }
                }
                _ => {}
            }
        }
        t.close_node();
        let of = |name: &str| numbers.get(name).copied().unwrap_or(NONE);
        t.known = Known {
            element: of("Element"),
            extension: of("Extension"),
            reference: of("Reference"),
            coding: of("Coding"),
            codeable_concept: of("CodeableConcept"),
            quantity: of("Quantity"),
        };
        t
    }

    fn list(&mut self, text: &str) -> Run {
        let start = self.invariant_lists.len() as u32;
        self.invariant_lists
            .extend(text.split(' ').filter_map(|n| n.parse::<u16>().ok()));
        Run {
            start,
            len: (self.invariant_lists.len() as u32 - start) as u16,
        }
    }

    /// Builds the name index of the last node.
    fn close_node(&mut self) {
        let Some(node) = self.nodes.last_mut() else { return };
        let first = self
            .elements
            .get(node.elements.start as usize)
            .map_or(0, |e| e.props.start);
        let props = self.props.get(first as usize..).unwrap_or_default();
        let size = (props.len() * 2).next_power_of_two().max(4);
        node.slots = self.slots.len() as u32;
        node.mask = size as u32 - 1;
        self.slots.resize(self.slots.len() + size, 0);
        for (i, prop) in props.iter().enumerate() {
            let mut h = hash(prop.name) & node.mask;
            while let Some(slot) = self.slots.get_mut((node.slots + h) as usize) {
                if *slot == 0 {
                    *slot = (first as usize + i + 1) as u16;
                    break;
                }
                h = (h + 1) & node.mask;
            }
        }
    }

    /// The property `name` of `node`.
    pub(crate) fn prop(&self, node: &Node, name: &str) -> Option<&Prop> {
        let mut h = hash(name) & node.mask;
        loop {
            let slot = *self.slots.get((node.slots + h) as usize)?;
            let prop = self.props.get(usize::from(slot).checked_sub(1)?)?;
            if prop.name == name {
                return Some(prop);
            }
            h = (h + 1) & node.mask;
        }
    }

    pub(crate) fn node(&self, no: NodeNo) -> Option<&Node> {
        self.nodes.get(usize::from(no))
    }

    /// The node of a resource type.
    pub(crate) fn resource(&self, t: ResourceType) -> Option<NodeNo> {
        self.by_resource.get(t.index()).copied()
    }

    pub(crate) fn elements(&self, node: &Node) -> &[Element] {
        slice(&self.elements, node.elements)
    }

    pub(crate) fn element(&self, node: &Node, at: u8) -> Option<&Element> {
        self.elements(node).get(usize::from(at))
    }

    /// The properties of an element.
    #[cfg(test)]
    fn props(&self, element: &Element) -> &[Prop] {
        slice(&self.props, element.props)
    }

    pub(crate) fn invariant_numbers(&self, run: Run) -> &[u16] {
        slice(&self.invariant_lists, run)
    }

    pub(crate) fn targets(&self, no: u16) -> Option<&[ResourceType]> {
        self.target_lists.get(usize::from(no)).map(Vec::as_slice)
    }

    pub(crate) fn value_set(&self, no: u16) -> Option<(&'static str, &ValueSet)> {
        self.value_sets.get(usize::from(no)).map(|(n, v)| (*n, v))
    }

    /// Whether `code` is in the set; with a system, from that system.
    pub(crate) fn contains(&self, set: &ValueSet, system: Option<&str>, code: &str) -> bool {
        match set {
            ValueSet::Codes(codes) => {
                let from = codes.partition_point(|(c, _)| *c < code);
                codes.iter().skip(from).take_while(|(c, _)| *c == code).any(|(_, s)| {
                    system.is_none_or(|system| self.systems.get(usize::from(*s)).is_some_and(|x| *x == system))
                })
            }
            ValueSet::MediaType => media_type(code),
            ValueSet::Currency => code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()),
            ValueSet::TimeUnit => matches!(code, "s" | "min" | "h" | "d" | "wk" | "mo" | "a"),
        }
    }
}

fn slice<T>(all: &[T], run: Run) -> &[T] {
    let start = run.start as usize;
    all.get(start..start + usize::from(run.len)).unwrap_or_default()
}

/// `type/subtype` with optional parameters, or a bare type: `application/fhir+xml; charset=utf-8`, `text`.
fn media_type(code: &str) -> bool {
    let essence = code.split(';').next().unwrap_or_default().trim_end();
    let token = |s: &str| {
        !s.is_empty()
            && s.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+*".contains(&b))
            && s.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '*')
    };
    match essence.split_once('/') {
        Some((a, b)) => token(a) && token(b),
        None => token(essence),
    }
}

/// `value` and `dateTime` make `valueDateTime`. A few hundred short names for the life of the process.
fn leak_name(base: &str, ty: &str) -> &'static str {
    let mut name = String::from(base);
    let mut chars = ty.chars();
    name.extend(chars.next().map(|c| c.to_ascii_uppercase()));
    name.push_str(chars.as_str());
    Box::leak(name.into_boxed_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let t = &*TABLE;
        for r in ResourceType::all() {
            let node = t.node(t.resource(r).unwrap()).unwrap();
            assert_eq!(node.resource, Some(r));
            assert_eq!(node.name, r.name());
        }
        for n in &t.nodes {
            assert!(t.elements(n).len() <= 64, "{}", n.name);
            for e in t.elements(n) {
                for p in t.props(e) {
                    assert_ne!(p.kind, Kind::Node(NONE), "{}.{}", n.name, p.name);
                    assert_eq!(t.prop(n, p.name).map(|q| q.name), Some(p.name));
                }
            }
            assert!(t.prop(n, "nonsense").is_none());
        }
        assert!(t.props.len() < 60_000 && t.nodes.len() > 600);
        for k in [
            t.known.element,
            t.known.extension,
            t.known.reference,
            t.known.coding,
            t.known.quantity,
        ] {
            assert_ne!(k, NONE);
        }
    }

    #[test]
    fn codes_belong_to_their_system() {
        let t = &*TABLE;
        let patient = t
            .node(t.resource(ResourceType::from_name("Patient").unwrap()).unwrap())
            .unwrap();
        let gender = t.element(patient, t.prop(patient, "gender").unwrap().element).unwrap();
        let (name, set) = t.value_set(gender.binding).unwrap();
        assert_eq!(name, "administrative-gender");
        assert!(t.contains(set, None, "male") && !t.contains(set, None, "mal"));
        assert!(t.contains(set, Some("http://hl7.org/fhir/administrative-gender"), "male"));
        assert!(!t.contains(set, Some("http://example.org"), "male"));
        for (text, good) in [
            ("text/plain", true),
            ("application/fhir+xml; charset=utf-8", true),
            ("image", true),
            ("", false),
            ("a b", false),
            ("a/", false),
        ] {
            assert_eq!(media_type(text), good, "{text}");
        }
    }
}

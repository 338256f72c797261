//! The official R4 search parameters, each resource type's own table compiled from them when first asked for.
//!
//! The definitions come from `data/search-parameters.zst` (written by `scripts/search-definitions`). Many of them say
//! the same thing twice: `patient` is `subject` where it is a Patient, `combo-code` is `code` or `component-code`. The
//! table finds that out by comparing the paths, so that extraction emits every value once and parsing rewrites the
//! derived parameters into stored ones; see [`Storage`].

use crate::extract::{Leaf, Program, State, Step};
use crate::path::{self, Expr};
use crate::term::ParamNo;
use hashbrown::HashMap;
use keepwell_model::types::{self, ResourceType};
use std::collections::BTreeSet;
use std::sync::OnceLock;

const DATA: &[u8] = include_bytes!("../data/search-parameters.zst");

/// One search parameter of one resource type.
#[derive(Debug)]
pub struct Param {
    /// The name in a query, for example `birthdate`.
    pub code: &'static str,
    /// The id of the definition: `http://hl7.org/fhir/SearchParameter/` and this is its canonical URL.
    pub id: &'static str,
    /// The parameter type.
    pub kind: Kind,
    /// Where its values are.
    pub storage: Storage,
    /// Types a reference parameter may refer to.
    pub targets: Box<[ResourceType]>,
    /// A reference parameter over `canonical` or `uri` elements, whose values are URLs.
    pub canonical: bool,
    /// A reference parameter over `Reference` elements (or resources in a Bundle).
    pub literal: bool,
    /// A token parameter over `boolean` elements only.
    pub boolean: bool,
    /// The code system that required bindings imply for a token parameter over `code` elements.
    pub system: Option<&'static str>,
}

/// R4 search parameter types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `number`
    Number,
    /// `date`
    Date,
    /// `string`
    String,
    /// `token`
    Token,
    /// `reference`
    Reference,
    /// `composite`
    Composite,
    /// `quantity`
    Quantity,
    /// `uri`
    Uri,
    /// `special`
    Special,
}

/// Where the values of a parameter are.
#[derive(Debug, PartialEq)]
pub enum Storage {
    /// Extraction emits terms for it.
    Stored,
    /// Another parameter's values, where a target is given only the references to that type.
    Alias {
        /// The other parameter.
        of: ParamNo,
        /// Only references to this type.
        target: Option<ResourceType>,
    },
    /// The values of several parameters, each narrowed like an alias.
    Union(Box<[(ParamNo, Option<ResourceType>)]>),
    /// A composite of the resource's own single values: all components must hold; nothing is stored.
    Root(Box<[ParamNo]>),
    /// A composite over a repeating element: extraction emits tuples of the components.
    Tuple(Box<[ParamNo]>),
    /// `_id` and `_lastUpdated`, kept by the index itself.
    Column(Column),
    /// Defined by HL7 but not offered: `near`, `_text`, `_content`, `_query`.
    Unsupported,
}

/// A parameter the index answers from its own columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// `_id`
    Id,
    /// `_lastUpdated`
    LastUpdated,
}

/// All parameters of a type by number: those with terms ([`stored`] of them) first, then the derived ones.
#[must_use]
pub fn params(resource_type: ResourceType) -> &'static [Param] {
    &of(resource_type).params
}

/// How many of [`params`] have terms; their numbers are the lowest.
#[must_use]
pub fn stored(resource_type: ResourceType) -> usize {
    of(resource_type).stored
}

/// The parameter of that name.
#[must_use]
pub fn find(resource_type: ResourceType, code: &str) -> Option<(ParamNo, &'static Param)> {
    let table = of(resource_type);
    let at = table.by_code.binary_search_by_key(&code, |(c, _)| c).ok()?;
    let no = table.by_code.get(at)?.1;
    Some((no, table.params.get(usize::from(no.0))?))
}

/// The parameter with that number.
#[must_use]
pub fn param(resource_type: ResourceType, no: ParamNo) -> Option<&'static Param> {
    params(resource_type).get(usize::from(no.0))
}

/// The parameters by which resources of type `member` belong to a compartment of type `owner` (CompartmentDefinition).
///
/// `None`: the type is not in that compartment. Empty: only as the owner itself. All are stored parameters.
#[must_use]
pub fn compartment(owner: ResourceType, member: ResourceType) -> Option<&'static [ParamNo]> {
    of(member)
        .compartments
        .iter()
        .find(|(o, _)| *o == owner)
        .map(|(_, p)| &**p)
}

/// The stored parameters behind a parameter, each with the type its references are narrowed to.
#[must_use]
pub fn behind(resource_type: ResourceType, no: ParamNo) -> Vec<(ParamNo, Option<ResourceType>)> {
    let mut out = Vec::new();
    let mut open = vec![(no, None)];
    while let Some((no, narrowed)) = open.pop() {
        match param(resource_type, no).map(|p| &p.storage) {
            Some(Storage::Stored | Storage::Tuple(_)) => out.push((no, narrowed)),
            Some(Storage::Alias { of, target }) => open.push((*of, narrowed.or(*target))),
            Some(Storage::Union(list)) => open.extend(list.iter().rev().map(|(n, t)| (*n, narrowed.or(*t)))),
            _ => {}
        }
    }
    out
}

/// A number that changes with the definitions and the numbering of parameters: a stored index of another number is void.
#[must_use]
pub fn fingerprint() -> u64 {
    // FNV-1a; not a defence, only tells versions apart. The constant is the version of the numbering rules.
    DATA.iter().fold(0xcbf2_9ce4_8422_2325 ^ 1, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What extraction runs for a type.
pub(crate) fn program(resource_type: ResourceType) -> &'static Program {
    &of(resource_type).program
}

struct TypeTable {
    params: Box<[Param]>,
    stored: usize,
    by_code: Box<[(&'static str, ParamNo)]>,
    compartments: Box<[(ResourceType, Box<[ParamNo]>)]>,
    program: Program,
    /// Definitions that could not be compiled, with the reason; a test holds that there are none.
    #[cfg_attr(not(test), allow(dead_code, reason = "read by the tests"))]
    faults: Vec<(&'static str, String)>,
}

fn of(resource_type: ResourceType) -> &'static TypeTable {
    static TABLES: [OnceLock<TypeTable>; types::COUNT] = [const { OnceLock::new() }; types::COUNT];
    static NONE: OnceLock<TypeTable> = OnceLock::new();
    TABLES
        .get(resource_type.index())
        .unwrap_or(&NONE)
        .get_or_init(|| build(source(), resource_type))
}

/// One definition as published.
struct Row {
    id: &'static str,
    code: &'static str,
    kind: Kind,
    targets: &'static str,
    expression: &'static str,
    components: &'static str,
}

/// The definitions, read but not compiled.
pub(crate) struct Source {
    rows: Vec<Row>,
    /// For each type the places of its rows.
    by_type: Vec<Vec<usize>>,
    /// Elements by owner: name (with `[x]` for a choice) and types.
    elements: HashMap<&'static str, Vec<(&'static str, &'static str)>>,
    compartments: HashMap<(ResourceType, ResourceType), &'static str>,
}

fn source() -> &'static Source {
    static SOURCE: OnceLock<Source> = OnceLock::new();
    SOURCE.get_or_init(|| {
        let text: &'static str = match zstd::decode_all(DATA).map(String::from_utf8) {
            Ok(Ok(text)) => text.leak(),
            // The data is part of the program; a test reads all of it.
            _ => "",
        };
        read(text)
    })
}

fn read(text: &'static str) -> Source {
    let mut s = Source {
        rows: Vec::new(),
        by_type: vec![Vec::new(); types::COUNT],
        elements: HashMap::new(),
        compartments: HashMap::new(),
    };
    for line in text.lines() {
        let mut f = line.split('\t');
        let mut next = || f.next().unwrap_or_default();
        match next() {
            "P" => {
                let (id, code, kind, bases) = (next(), next(), next(), next());
                let kind = match kind {
                    "number" => Kind::Number,
                    "date" => Kind::Date,
                    "string" => Kind::String,
                    "token" => Kind::Token,
                    "reference" => Kind::Reference,
                    "composite" => Kind::Composite,
                    "quantity" => Kind::Quantity,
                    "uri" => Kind::Uri,
                    _ => Kind::Special,
                };
                let at = s.rows.len();
                s.rows.push(Row {
                    id,
                    code,
                    kind,
                    targets: next(),
                    expression: next(),
                    components: next(),
                });
                let everywhere = bases.is_empty();
                for t in ResourceType::all() {
                    let here = everywhere || bases.split(' ').any(|b| b == t.name());
                    if let Some(list) = s.by_type.get_mut(t.index()).filter(|_| here) {
                        list.push(at);
                    }
                }
            }
            "E" => {
                let (owner, element, types) = (next(), next(), next());
                s.elements.entry(owner).or_default().push((element, types));
            }
            "C" => {
                let (owner, member, codes) = (next(), next(), next());
                if let (Some(o), Some(m)) = (ResourceType::from_name(owner), ResourceType::from_name(member)) {
                    s.compartments.insert((o, m), codes);
                }
            }
            _ => {}
        }
    }
    s
}

/// A value's place and the type its references are narrowed to; for a composite the place and the components.
type Key = (String, Option<ResourceType>);

/// A parameter on the way to the table; numbers are still places in `Vec<Draft>`.
struct Draft {
    row: &'static Row,
    states: Vec<State>,
    keys: BTreeSet<Key>,
    /// A boolean expression instead of a path.
    computed: Option<Expr>,
    storage: DraftStorage,
}

/// [`Storage`] before renumbering.
#[derive(Clone, PartialEq)]
enum DraftStorage {
    Stored,
    Views(Vec<(usize, Option<ResourceType>)>),
    Root(Vec<usize>),
    Tuple(Vec<usize>),
    Column(Column),
    Unsupported,
}

fn build(source: &'static Source, resource_type: ResourceType) -> TypeTable {
    let mut faults = Vec::new();
    let mut drafts: Vec<Draft> = Vec::new();
    let rows = source
        .by_type
        .get(resource_type.index())
        .map(Vec::as_slice)
        .unwrap_or_default();
    for row in rows.iter().filter_map(|at| source.rows.get(*at)) {
        match draft(source, resource_type, row) {
            Ok(d) => drafts.push(d),
            Err(why) => faults.push((row.id, why)),
        }
    }
    drafts.sort_by_key(|d| d.row.code);
    faults.extend(composites(source, resource_type, &mut drafts));
    derive(&mut drafts);

    let is_stored = |d: &Draft| matches!(d.storage, DraftStorage::Stored | DraftStorage::Tuple(_));
    let mut order: Vec<usize> = (0..drafts.len()).collect();
    order.sort_by_key(|i| drafts.get(*i).is_some_and(|d| !is_stored(d)));
    let mut number = vec![ParamNo(0); drafts.len()];
    for (no, at) in order.iter().enumerate() {
        if let Some(n) = number.get_mut(*at) {
            *n = ParamNo(no as u16);
        }
    }
    let no = |at: usize| number.get(at).copied().unwrap_or(ParamNo(u16::MAX));

    let mut program = Program::default();
    let mut params = Vec::with_capacity(drafts.len());
    for at in &order {
        let Some(d) = drafts.get(*at) else { continue };
        let storage = match &d.storage {
            DraftStorage::Stored => {
                match &d.computed {
                    Some(e) => match crate::extract::Computed::compile(source, resource_type, e) {
                        Some(c) => program.computed.push((no(*at), c)),
                        None => faults.push((d.row.id, "not a condition that can be computed".to_owned())),
                    },
                    None => program.add(no(*at), d.row.kind, &d.states),
                }
                Storage::Stored
            }
            DraftStorage::Views(list) => match list.as_slice() {
                [(one, target)] => Storage::Alias {
                    of: no(*one),
                    target: *target,
                },
                many => Storage::Union(many.iter().map(|(n, t)| (no(*n), *t)).collect()),
            },
            DraftStorage::Root(list) => Storage::Root(list.iter().map(|n| no(*n)).collect()),
            DraftStorage::Tuple(list) => {
                let kinds: Vec<Kind> = list.iter().filter_map(|n| drafts.get(*n)).map(|d| d.row.kind).collect();
                if let Err(why) = program.add_tuple(source, resource_type, no(*at), &d.states, d.row.components, &kinds)
                {
                    faults.push((d.row.id, why));
                }
                Storage::Tuple(list.iter().map(|n| no(*n)).collect())
            }
            DraftStorage::Column(c) => Storage::Column(*c),
            DraftStorage::Unsupported => Storage::Unsupported,
        };
        params.push(finish(d, storage));
    }
    program.seal();
    let mut by_code: Vec<_> = params
        .iter()
        .enumerate()
        .map(|(i, p)| (p.code, ParamNo(i as u16)))
        .collect();
    by_code.sort_unstable();
    let mut table = TypeTable {
        stored: drafts.iter().filter(|d| is_stored(d)).count(),
        params: params.into(),
        by_code: by_code.into(),
        compartments: Box::default(),
        program,
        faults,
    };
    table.compartments = compartments(source, resource_type, &table);
    table
}

fn finish(d: &Draft, storage: Storage) -> Param {
    let row = d.row;
    let leaves = || d.states.iter().filter_map(|s| Leaf::of(row.kind, s.ty));
    let narrowed = |t: ResourceType| match &d.storage {
        DraftStorage::Views(list) => list.iter().any(|(_, n)| n.is_none_or(|n| n == t)),
        _ => true,
    };
    let targets: Box<[ResourceType]> = match (row.kind, row.targets, row.code) {
        (Kind::Reference, _, "patient") => ResourceType::from_name("Patient").into_iter().collect(),
        (Kind::Reference, "", _) => ResourceType::all().filter(|t| narrowed(*t)).collect(),
        (Kind::Reference, list, _) => list
            .split(' ')
            .filter_map(ResourceType::from_name)
            .filter(|t| narrowed(*t))
            .collect(),
        _ => Box::default(),
    };
    let mut systems: Vec<_> = leaves()
        .filter_map(|l| if let Leaf::Code(system) = l { Some(system) } else { None })
        .collect();
    systems.dedup();
    Param {
        code: row.code,
        id: row.id,
        kind: row.kind,
        storage,
        targets,
        canonical: row.kind == Kind::Reference && leaves().any(|l| l == Leaf::Canonical),
        literal: row.kind == Kind::Reference && leaves().any(|l| l != Leaf::Canonical),
        boolean: row.kind == Kind::Token
            && (d.computed.is_some() || (!d.states.is_empty() && leaves().all(|l| l == Leaf::Boolean))),
        system: match systems.as_slice() {
            [one] => *one,
            _ => None,
        },
    }
}

/// Compiles one definition for one type.
fn draft(source: &'static Source, resource_type: ResourceType, row: &'static Row) -> Result<Draft, String> {
    let mut d = Draft {
        row,
        states: Vec::new(),
        keys: BTreeSet::new(),
        computed: None,
        storage: DraftStorage::Stored,
    };
    match row.code {
        "_id" => d.storage = DraftStorage::Column(Column::Id),
        "_lastUpdated" => d.storage = DraftStorage::Column(Column::LastUpdated),
        _ if row.expression.is_empty() || row.kind == Kind::Special => d.storage = DraftStorage::Unsupported,
        _ => {
            let tree = path::parse(row.expression).map_err(|e| e.to_string())?;
            if matches!(tree, Expr::And(..) | Expr::Equal(..) | Expr::Exists(_)) {
                d.computed = Some(tree);
                return Ok(d);
            }
            for branch in tree.branches() {
                let head = branch.head().unwrap_or_default();
                let another = ResourceType::from_name(head).is_some_and(|t| t != resource_type);
                if another {
                    continue;
                }
                d.states.extend(source.walk(&Start::Resource(resource_type), branch)?);
            }
            let before = d.states.len();
            if row.kind != Kind::Composite {
                d.states.retain(|s| Leaf::of(row.kind, s.ty).is_some());
            }
            if d.states.is_empty() {
                return Err(format!("no element of a fitting type ({before} of others)"));
            }
            for s in d.states.iter_mut().filter(|s| s.ty == "Resource") {
                // A resource in a Bundle, whatever it is: only of the type that is looked for.
                s.target = ResourceType::from_name(row.targets);
            }
            let patient = (row.code == "patient")
                .then(|| ResourceType::from_name("Patient"))
                .flatten();
            d.keys = d.states.iter().map(|s| (s.place(), s.target.or(patient))).collect();
        }
    }
    Ok(d)
}

/// Decides for each composite whether its values stand together at the resource or in a repeating element, and which
/// parameters its components are.
fn composites(
    source: &'static Source,
    resource_type: ResourceType,
    drafts: &mut [Draft],
) -> Vec<(&'static str, String)> {
    let known: Vec<(&'static str, Kind, BTreeSet<String>)> = drafts
        .iter()
        .map(|d| (d.row.id, d.row.kind, d.keys.iter().map(|(p, _)| p.clone()).collect()))
        .collect();
    let mut faults = Vec::new();
    for d in drafts.iter_mut().filter(|d| d.row.kind == Kind::Composite) {
        let mut parts = Vec::new();
        let mut texts = String::new();
        for c in d.row.components.split(";;") {
            let (id, expression) = c.split_once('=').unwrap_or_default();
            match component(source, resource_type, &d.states, &known, id, expression) {
                Some(at) => parts.push(at),
                None => faults.push((d.row.id, format!("no parameter for the component `{expression}`"))),
            }
            texts.push('\n');
            texts.push_str(expression);
        }
        d.keys = d.states.iter().map(|s| (s.place() + &texts, None)).collect();
        d.storage = if d.states.iter().all(|s| s.steps.is_empty()) {
            DraftStorage::Root(parts)
        } else {
            DraftStorage::Tuple(parts)
        };
    }
    faults
}

/// The parameter of a component: the one its definition names, if it looks at the component's element; or else the one
/// that does (the components of `DocumentReference.relationship` are published with each other's definitions).
fn component(
    source: &'static Source,
    resource_type: ResourceType,
    roots: &[State],
    known: &[(&'static str, Kind, BTreeSet<String>)],
    id: &str,
    expression: &str,
) -> Option<usize> {
    let tree = path::parse(expression).ok()?;
    let mut places = BTreeSet::new();
    for root in roots {
        for branch in tree.branches() {
            for state in source.walk(&Start::Element(root.owner, resource_type), branch).ok()? {
                let root = if crate::extract::from_resource(branch) {
                    String::new()
                } else {
                    root.place()
                };
                places.insert(root + &state.place());
            }
        }
    }
    let looks = |p: &(&str, Kind, BTreeSet<String>)| p.1 != Kind::Composite && !p.2.is_disjoint(&places);
    let named = known.iter().position(|p| p.0 == id && looks(p));
    named.or_else(|| known.iter().position(looks))
}

/// Finds the parameters that only repeat or narrow others.
fn derive(drafts: &mut [Draft]) {
    for at in 0..drafts.len() {
        let views = drafts.get(at).and_then(|d| cover(drafts, at, d));
        if let (Some(d), Some(views)) = (drafts.get_mut(at), views) {
            d.storage = DraftStorage::Views(views);
        }
    }
}

/// Other parameters whose values together are exactly those of `d`.
fn cover(drafts: &[Draft], at: usize, d: &Draft) -> Option<Vec<(usize, Option<ResourceType>)>> {
    if d.keys.is_empty() {
        return None;
    }
    let mut open: BTreeSet<&Key> = d.keys.iter().collect();
    let mut views = Vec::new();
    let mut others: Vec<(usize, &Draft)> = drafts
        .iter()
        .enumerate()
        .filter(|(i, o)| *i != at && o.row.kind == d.row.kind && !o.keys.is_empty() && fits(at, d, *i, o))
        .collect();
    others.sort_by_key(|(i, o)| (std::cmp::Reverse(o.keys.len()), *i));
    for (i, o) in others {
        // INVARIANT (aliases end): a view is of a wider reference, a smaller set, or an equal set earlier in the order.
        let targets: BTreeSet<Option<ResourceType>> = d.keys.iter().map(|(_, t)| *t).collect();
        for target in targets {
            let taken: Vec<&Key> =
                if o.keys.iter().all(|k| open.contains(k)) && o.keys.iter().all(|(_, t)| *t == target) {
                    open.iter().copied().filter(|k| o.keys.contains(*k)).collect()
                } else if target.is_some()
                    && o.keys
                        .iter()
                        .all(|(p, t)| t.is_none() && open.contains(&(p.clone(), target)))
                {
                    open.iter()
                        .copied()
                        .filter(|(p, t)| *t == target && o.keys.contains(&(p.clone(), None)))
                        .collect()
                } else {
                    continue;
                };
            let narrowed = o.keys.iter().all(|(_, t)| t.is_none()).then_some(target).flatten();
            for k in taken {
                open.remove(k);
            }
            views.push((i, narrowed));
        }
    }
    open.is_empty().then_some(views)
}

/// Whether `d` may be a view of `o`.
fn fits(at: usize, d: &Draft, other: usize, o: &Draft) -> bool {
    let wider = o.keys.iter().all(|(_, t)| t.is_none()) && d.keys.iter().any(|(_, t)| t.is_some());
    wider || o.keys.len() < d.keys.len() || (o.keys == d.keys && other < at)
}

fn compartments(source: &Source, member: ResourceType, table: &TypeTable) -> Box<[(ResourceType, Box<[ParamNo]>)]> {
    let mut out = Vec::new();
    for owner in ["Device", "Encounter", "Patient", "Practitioner", "RelatedPerson"] {
        let Some(owner) = ResourceType::from_name(owner) else {
            continue;
        };
        let codes = source.compartments.get(&(owner, member)).copied();
        if codes.is_none() && owner != member {
            continue;
        }
        let mut list: Vec<ParamNo> = Vec::new();
        for code in codes.unwrap_or_default().split(' ') {
            let mut open: Vec<ParamNo> = table
                .by_code
                .iter()
                .filter(|(c, _)| *c == code)
                .map(|(_, n)| *n)
                .collect();
            while let Some(no) = open.pop() {
                match table.params.get(usize::from(no.0)).map(|p| &p.storage) {
                    Some(Storage::Stored) => list.push(no),
                    Some(Storage::Alias { of, .. }) => open.push(*of),
                    Some(Storage::Union(views)) => open.extend(views.iter().map(|(n, _)| *n)),
                    _ => {}
                }
            }
        }
        list.sort_unstable();
        list.dedup();
        out.push((owner, list.into()));
    }
    out.into()
}

/// Where a path begins.
pub(crate) enum Start {
    /// At a resource of this type.
    Resource(ResourceType),
    /// At an element (`owner` in the element table); `%resource` is the type's resource.
    Element(&'static str, ResourceType),
}

impl Source {
    /// All the places a path can lead to, with their types.
    pub(crate) fn walk(&'static self, start: &Start, e: &Expr) -> Result<Vec<State>, String> {
        let resource = |t: &ResourceType| State {
            steps: Vec::new(),
            owner: t.name(),
            ty: t.name(),
            target: None,
        };
        match e {
            Expr::Name(n) => match start {
                Start::Resource(t) if n == t.name() || n == "Resource" => Ok(vec![resource(t)]),
                Start::Resource(t) => self.member(&resource(t), n),
                Start::Element(owner, _) => {
                    let here = State {
                        steps: Vec::new(),
                        owner,
                        ty: owner,
                        target: None,
                    };
                    self.member(&here, n)
                }
            },
            Expr::Resource => match start {
                Start::Resource(t) | Start::Element(_, t) => Ok(vec![resource(t)]),
            },
            Expr::Member(inner, name) => {
                let mut out = Vec::new();
                for s in self.walk(start, inner)? {
                    out.extend(self.member(&s, name)?);
                }
                Ok(out)
            }
            Expr::As(inner, ty) => {
                let mut states = self.walk(start, inner)?;
                // `value.as(DateTime)` is how R4 writes dateTime in one place.
                states.retain(|s| s.ty.split('=').next().is_some_and(|t| t.eq_ignore_ascii_case(ty)));
                if states.is_empty() {
                    Err(format!("nothing there is a {ty}"))
                } else {
                    Ok(states)
                }
            }
            Expr::Where(inner, condition) => {
                let mut states = self.walk(start, inner)?;
                match &**condition {
                    Expr::Is(x, ty) if **x == Expr::Resolve(Box::new(Expr::This)) => {
                        let target = ResourceType::from_name(ty).ok_or_else(|| format!("`{ty}` is not a type"))?;
                        states.iter_mut().for_each(|s| s.target = Some(target));
                    }
                    Expr::Equal(member, text, false) => match (&**member, &**text) {
                        (Expr::Name(m), Expr::Text(t)) => {
                            let step = Step::Where(m.clone().leak(), t.clone().leak());
                            states.iter_mut().for_each(|s| s.steps.push(step));
                        }
                        _ => return Err("where() compares something else than a member with a text".to_owned()),
                    },
                    _ => return Err("where() has a condition outside the subset".to_owned()),
                }
                Ok(states)
            }
            Expr::Index(inner, n) => {
                let mut states = self.walk(start, inner)?;
                states.iter_mut().for_each(|s| s.steps.push(Step::Index(*n)));
                Ok(states)
            }
            _ => Err("not a path".to_owned()),
        }
    }

    fn member(&'static self, from: &State, name: &str) -> Result<Vec<State>, String> {
        let missing = || format!("`{}` has no element `{name}`", from.owner);
        let elements = self.elements.get(from.owner).ok_or_else(missing)?;
        let (element, types) = elements
            .iter()
            .find(|(e, _)| e.strip_suffix("[x]").unwrap_or(e) == name)
            .ok_or_else(missing)?;
        let choice = element.ends_with("[x]");
        let mut out = Vec::new();
        for ty in types.split(' ') {
            let plain = ty.split('=').next().unwrap_or(ty);
            let member: &'static str = if choice {
                let mut m = name.to_owned();
                m.extend(plain.chars().take(1).map(|c| c.to_ascii_uppercase()));
                m.push_str(plain.get(1..).unwrap_or_default());
                m.leak()
            } else {
                element
            };
            let owner: &'static str = match ty.strip_prefix('@') {
                Some(path) => path,
                None if matches!(ty, "BackboneElement" | "Element") => format!("{}.{name}", from.owner).leak(),
                None => ty,
            };
            let mut steps = from.steps.clone();
            steps.push(Step::Member(member));
            out.push(State {
                steps,
                owner,
                ty,
                target: from.target,
            });
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rt(name: &str) -> ResourceType {
        ResourceType::from_name(name).unwrap()
    }

    /// Storage in words, for comparison.
    fn storage(ty: &str, code: &str) -> String {
        let t = rt(ty);
        let name = |n: &ParamNo| param(t, *n).unwrap().code;
        let view = |n: &ParamNo, w: &Option<ResourceType>| match w {
            Some(w) => format!("{}:{w}", name(n)),
            None => name(n).to_owned(),
        };
        match &find(t, code).unwrap_or_else(|| panic!("{ty} {code}")).1.storage {
            Storage::Alias { of, target } => view(of, target),
            Storage::Union(list) => list.iter().map(|(n, w)| view(n, w)).collect::<Vec<_>>().join(" | "),
            Storage::Root(list) => list.iter().map(name).collect::<Vec<_>>().join(" & "),
            Storage::Tuple(list) => list.iter().map(name).collect::<Vec<_>>().join(" $ "),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn every_expression_of_every_type_compiles() {
        let mut pairs = 0;
        for t in ResourceType::all() {
            assert!(of(t).faults.is_empty(), "{t}: {:?}", of(t).faults);
            pairs += params(t).len();
            for p in params(t) {
                let odd = matches!(p.code, "near" | "_text" | "_content" | "_query");
                assert_eq!(p.storage == Storage::Unsupported, odd, "{t} {}", p.code);
                assert_eq!(p.kind == Kind::Reference, !p.targets.is_empty(), "{t} {}", p.code);
                assert!(find(t, p.code).is_some_and(|(_, q)| std::ptr::eq(p, q)));
            }
        }
        // 1,697 own pairs of type and code, and nine of every type.
        assert_eq!(pairs, 1_697 + 9 * types::COUNT);
    }

    #[test]
    fn what_repeats_is_not_stored() {
        for (ty, code, expected) in [
            ("Observation", "patient", "subject:Patient"),
            ("Observation", "code", "Stored"),
            ("Observation", "combo-code", "code | component-code"),
            (
                "Observation",
                "combo-value-concept",
                "component-value-concept | value-concept",
            ),
            (
                "Observation",
                "combo-value-quantity",
                "component-value-quantity | value-quantity",
            ),
            ("Observation", "code-value-quantity", "code & value-quantity"),
            ("Observation", "code-value-date", "code & value-date"),
            (
                "Observation",
                "component-code-value-quantity",
                "component-code $ component-value-quantity",
            ),
            (
                "Observation",
                "combo-code-value-quantity",
                "code-value-quantity | component-code-value-quantity",
            ),
            ("Encounter", "patient", "subject:Patient"),
            ("Encounter", "practitioner", "participant:Practitioner"),
            ("Condition", "patient", "subject:Patient"),
            ("DeviceUseStatement", "patient", "subject:Patient"),
            ("AllergyIntolerance", "patient", "Stored"),
            ("EpisodeOfCare", "care-manager", "Stored"),
            ("Appointment", "location", "actor:Location"),
            ("AuditEvent", "patient", "agent:Patient | entity:Patient"),
            ("Person", "patient", "link:Patient"),
            ("Patient", "phonetic", "name"),
            ("InsurancePlan", "name", "Stored"),
            ("Bundle", "message", "Stored"),
            ("Patient", "telecom", "Stored"),
            ("Patient", "deceased", "Stored"),
            ("Patient", "_id", "Column(Id)"),
            ("Patient", "_tag", "Stored"),
            ("Location", "near", "Unsupported"),
            ("Group", "characteristic-value", "characteristic $ value"),
            ("DocumentReference", "relationship", "relation $ relatesto"),
        ] {
            assert_eq!(storage(ty, code), expected, "{ty} {code}");
        }
    }

    #[test]
    fn stored_numbers_come_first() {
        for t in ResourceType::all() {
            for (i, p) in params(t).iter().enumerate() {
                let kept = matches!(p.storage, Storage::Stored | Storage::Tuple(_));
                assert_eq!(kept, i < stored(t), "{t} {}", p.code);
                for (no, _) in behind(t, ParamNo(i as u16)) {
                    assert!(usize::from(no.0) < stored(t), "{t} {}", p.code);
                }
            }
        }
    }

    #[test]
    fn parameters_know_their_elements() {
        let param = |ty, code| find(rt(ty), code).unwrap().1;
        assert_eq!(
            param("Patient", "gender").system,
            Some("http://hl7.org/fhir/administrative-gender")
        );
        assert!(param("Patient", "active").boolean && param("Patient", "deceased").boolean);
        assert!(!param("Patient", "gender").boolean);
        assert!(param("QuestionnaireResponse", "questionnaire").canonical);
        assert!(!param("Observation", "subject").canonical);
        assert_eq!(&*param("Observation", "patient").targets, &[rt("Patient")]);
        assert_eq!(&*param("Encounter", "practitioner").targets, &[rt("Practitioner")]);
    }

    #[test]
    fn compartments_are_complete() {
        let names = |owner, member| {
            let list = compartment(rt(owner), rt(member))?;
            Some(
                list.iter()
                    .map(|n| param(rt(member), *n).unwrap().code)
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        };
        assert_eq!(names("Patient", "Observation").as_deref(), Some("performer subject"));
        assert_eq!(names("Patient", "Patient").as_deref(), Some("link"));
        assert_eq!(names("Encounter", "Encounter").as_deref(), Some(""));
        assert_eq!(names("Patient", "Medication"), None);
        assert_eq!(names("Patient", "Appointment").as_deref(), Some("actor"));
        for t in ResourceType::all() {
            for ((owner, member), codes) in &source().compartments {
                if *member == t {
                    assert!(
                        codes.is_empty() || !compartment(*owner, t).unwrap().is_empty(),
                        "{owner} {member}"
                    );
                    for code in codes.split(' ').filter(|c| !c.is_empty()) {
                        assert!(find(t, code).is_some(), "{owner} {member} {code}");
                    }
                }
            }
        }
    }
}

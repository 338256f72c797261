//! Evaluation: [`Env::each`] streams the items of an expression to a closure that may stop it; [`Env::truth`] answers
//! conditions without building collections.

use super::item::{Item, Node};
use super::number::Decimal;
use super::parse::{Expr, Func, Op, as_type};
use super::temporal::Temporal;
use crate::json::Value;
use crate::schema::Primitive;
use crate::schema::table::{Kind, Prop, TABLE};
use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;

/// Why an evaluation ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// An operator or function met a type it is not defined for.
    #[error("the expression does not fit the type of its input")]
    Type,
    /// A single item was needed and there were several.
    #[error("the expression needs a single item and found several")]
    Several,
    /// More work than is reasonable.
    #[error("evaluating the expression takes too long")]
    TooCostly,
}

type Result<T> = std::result::Result<T, EvalError>;

/// Elements visited in one evaluation, or in all of one validation: a second or two of work.
const MOST_STEPS: u32 = 30_000_000;

/// What an expression is evaluated on.
pub(crate) struct Env<'v> {
    context: Node<'v>,
    resource: Node<'v>,
    root: Node<'v>,
    steps: Cell<u32>,
}

/// `$this` and `$index`.
struct Scope<'s, 'v> {
    this: &'s Item<'v>,
    index: usize,
}

/// Takes the items of a stream; `false` stops it.
type Sink<'s, 'v> = dyn FnMut(Item<'v>) -> Result<bool> + 's;

/// A collection of mostly one.
#[derive(Default)]
struct Items<'v> {
    first: Option<Item<'v>>,
    rest: Vec<Item<'v>>,
}

impl<'v> Items<'v> {
    fn push(&mut self, item: Item<'v>) {
        if self.first.is_none() {
            self.first = Some(item)
        } else {
            self.rest.push(item)
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Item<'v>> {
        self.first.iter().chain(&self.rest)
    }

    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    /// The only item.
    fn single(self) -> Result<Option<Item<'v>>> {
        if self.rest.is_empty() {
            Ok(self.first)
        } else {
            Err(EvalError::Several)
        }
    }

    fn into_vec(self) -> Vec<Item<'v>> {
        self.first.into_iter().chain(self.rest).collect()
    }
}

impl<'v> Env<'v> {
    /// An evaluation on `context`, inside `resource`, inside `root` (they differ for contained resources).
    pub(crate) fn new(context: Node<'v>, resource: Node<'v>, root: Node<'v>) -> Self {
        Self {
            context,
            resource,
            root,
            steps: Cell::new(0),
        }
    }

    /// Starts with so many steps used up.
    pub(crate) fn spent(&self, steps: u32) {
        self.steps.set(steps);
    }

    /// The steps used up.
    pub(crate) fn steps(&self) -> u32 {
        self.steps.get()
    }

    /// All items of `e`.
    pub(super) fn eval(&self, e: &Expr) -> Result<Vec<Item<'v>>> {
        let this = Item::Node(self.context);
        Ok(self.items(e, &Scope { this: &this, index: 0 })?.into_vec())
    }

    /// The truth value of `e`.
    pub(super) fn truth(&self, e: &Expr) -> Result<Option<bool>> {
        let this = Item::Node(self.context);
        self.condition(e, &Scope { this: &this, index: 0 })
    }

    fn step(&self) -> Result<()> {
        let n = self.steps.get().saturating_add(1);
        self.steps.set(n);
        if n > MOST_STEPS {
            Err(EvalError::TooCostly)
        } else {
            Ok(())
        }
    }

    fn items(&self, e: &Expr, s: &Scope<'_, 'v>) -> Result<Items<'v>> {
        let mut out = Items::default();
        self.each(e, s, &mut |item| {
            out.push(item);
            Ok(true)
        })?;
        Ok(out)
    }

    fn single(&self, e: &Expr, s: &Scope<'_, 'v>) -> Result<Option<Item<'v>>> {
        self.items(e, s)?.single()
    }

    /// Streams `base`, or the focus where there is none.
    fn base(&self, base: Option<&Expr>, s: &Scope<'_, 'v>, f: &mut Sink<'_, 'v>) -> Result<bool> {
        match base {
            Some(e) => self.each(e, s, f),
            None => f(s.this.clone()),
        }
    }

    fn base_items(&self, base: Option<&Expr>, s: &Scope<'_, 'v>) -> Result<Items<'v>> {
        let mut out = Items::default();
        self.base(base, s, &mut |item| {
            out.push(item);
            Ok(true)
        })?;
        Ok(out)
    }

    /// Streams the items of `e` to `f`; `false` when `f` stopped it.
    fn each(&self, e: &Expr, s: &Scope<'_, 'v>, f: &mut Sink<'_, 'v>) -> Result<bool> {
        match e {
            Expr::Empty => Ok(true),
            Expr::Bool(b) => f(Item::Bool(*b)),
            Expr::Str(text) => f(Item::Str(Cow::Owned(text.clone()))),
            Expr::Int(n) => f(Item::Int(*n)),
            Expr::Dec(text) => f(Item::Dec(Decimal::parse(text).ok_or(EvalError::Type)?)),
            Expr::Temporal(text, kind) => f(Item::Temporal(
                Temporal::parse(text, *kind).ok_or(EvalError::Type)?.into_owned(),
            )),
            Expr::Quantity(number, unit) => f(Item::Quantity(
                Decimal::parse(number).ok_or(EvalError::Type)?,
                Cow::Owned(unit.clone()),
            )),
            Expr::This => f(s.this.clone()),
            Expr::Index => f(Item::Int(i64::try_from(s.index).unwrap_or(i64::MAX))),
            Expr::Env(name) => f(self.variable(name)?),
            Expr::Member(None, name) => {
                let Item::Node(node) = s.this else { return Ok(true) };
                if node.type_name() == name && node.is_resource() {
                    return f(s.this.clone());
                }
                self.children(node, name, f)
            }
            Expr::Member(Some(base), name) => self.each(base, s, &mut |item| match item {
                Item::Node(node) => self.children(&node, name, f),
                _ => Ok(true),
            }),
            Expr::Item(base, index) => {
                let Some(Item::Int(index)) = self.single(index, s)?.map(|i| i.plain().into_owned()) else {
                    return Ok(true);
                };
                let mut found = None;
                let mut at = 0;
                self.each(base, s, &mut |item| {
                    if at == index {
                        found = Some(item);
                    }
                    at += 1;
                    Ok(found.is_none())
                })?;
                found.map_or(Ok(true), f)
            }
            Expr::As(base, t) => {
                let item = self.single(base, s)?;
                item.filter(|i| i.narrows(t)).map_or(Ok(true), f)
            }
            Expr::Negative(inner) => match self.single(inner, s)?.map(|i| i.plain().into_owned()) {
                None => Ok(true),
                Some(Item::Int(n)) => f(Item::Int(-n)),
                Some(Item::Dec(d)) => f(Item::Dec(d.negative())),
                Some(Item::Quantity(d, u)) => f(Item::Quantity(d.negative(), u)),
                Some(_) => Err(EvalError::Type),
            },
            Expr::Binary(op, left, right) => self.binary(*op, left, right, s, f),
            Expr::Is(..) => match self.condition(e, s)? {
                Some(b) => f(Item::Bool(b)),
                None => Ok(true),
            },
            Expr::Call(base, func, args) => self.call(base.as_deref(), *func, args, s, f),
        }
    }

    fn variable(&self, name: &str) -> Result<Item<'v>> {
        let text = match name {
            "context" => return Ok(Item::Node(self.context)),
            "resource" => return Ok(Item::Node(self.resource)),
            "rootResource" => return Ok(Item::Node(self.root)),
            "ucum" => "http://unitsofmeasure.org".to_owned(),
            "sct" => "http://snomed.info/sct".to_owned(),
            "loinc" => "http://loinc.org".to_owned(),
            other => match (other.strip_prefix("vs-"), other.strip_prefix("ext-")) {
                (Some(n), _) => format!("http://hl7.org/fhir/ValueSet/{n}"),
                (_, Some(n)) => format!("http://hl7.org/fhir/StructureDefinition/{n}"),
                _ => return Err(EvalError::Type),
            },
        };
        Ok(Item::Str(Cow::Owned(text)))
    }

    /// Streams the children of `node` by that name; a choice by its name without the type.
    fn children(&self, node: &Node<'v>, name: &str, f: &mut Sink<'_, 'v>) -> Result<bool> {
        self.step()?;
        match node.kind {
            Kind::Primitive(_) => {
                let Some(child) = node.shadow.and_then(|s| s.get(name)) else {
                    return Ok(true);
                };
                match name {
                    "id" => self.emit(Some(child), None, Kind::Primitive(Primitive::String), f),
                    "extension" => self.emit(Some(child), None, Kind::Node(TABLE.known.extension), f),
                    _ => Ok(true),
                }
            }
            Kind::Node(no) => {
                let (Some(value), Some(def)) = (node.value, TABLE.node(no)) else {
                    return Ok(true);
                };
                let Some(prop) = TABLE.prop(def, name) else {
                    return Ok(true);
                };
                let members = value.members().unwrap_or_default();
                if prop.kind == Kind::Choice {
                    for (n, _) in members {
                        let bare = n.strip_prefix('_').unwrap_or(n);
                        if bare.len() > name.len()
                            && bare.starts_with(name)
                            && let Some(p) = TABLE.prop(def, bare).filter(|p| p.element == prop.element)
                        {
                            return self.property(members, p, f);
                        }
                    }
                    return Ok(true);
                }
                if TABLE.element(def, prop.element).is_some_and(|e| e.choice) {
                    return Ok(true);
                }
                self.property(members, prop, f)
            }
            Kind::Resource | Kind::Choice => Ok(true),
        }
    }

    fn property(&self, members: &'v [(Cow<'v, str>, Value<'v>)], p: &Prop, f: &mut Sink<'_, 'v>) -> Result<bool> {
        let (mut value, mut shadow) = (None, None);
        for (n, v) in members {
            if n == p.name {
                value = Some(v);
            } else if n.len() == p.name.len() + 1 && n.strip_prefix('_') == Some(p.name) {
                shadow = Some(v);
            }
        }
        self.emit(value, shadow, p.kind, f)
    }

    /// Streams a member's value, item by item where it is an array.
    fn emit(
        &self,
        value: Option<&'v Value<'v>>,
        shadow: Option<&'v Value<'v>>,
        kind: Kind,
        f: &mut Sink<'_, 'v>,
    ) -> Result<bool> {
        let lists = [value, shadow].map(|v| v.and_then(Value::items));
        if lists == [None, None] {
            let node = if value.is_none() && shadow.is_none() {
                None
            } else {
                Node::of(value, shadow, kind)
            };
            return node.map_or(Ok(true), |n| f(Item::Node(n)));
        }
        let [values, shadows] = lists.map(Option::unwrap_or_default);
        for i in 0..values.len().max(shadows.len()) {
            self.step()?;
            let [value, shadow] = [values, shadows].map(|l| l.get(i).filter(|v| !matches!(v, Value::Null)));
            if let Some(n) = Node::of(value, shadow, kind)
                && !f(Item::Node(n))?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Streams all children.
    fn all_children(&self, node: &Node<'v>, f: &mut Sink<'_, 'v>) -> Result<bool> {
        self.step()?;
        if let Kind::Primitive(_) = node.kind {
            return Ok(self.children(node, "id", f)? && self.children(node, "extension", f)?);
        }
        let Kind::Node(no) = node.kind else { return Ok(true) };
        let (Some(value), Some(def)) = (node.value, TABLE.node(no)) else {
            return Ok(true);
        };
        let members = value.members().unwrap_or_default();
        for (n, _) in members {
            let (bare, shadow) = n.strip_prefix('_').map_or((n.as_ref(), false), |b| (b, true));
            if shadow && value.get(bare).is_some() {
                continue;
            }
            if let Some(p) = TABLE.prop(def, bare).filter(|p| p.kind != Kind::Choice)
                && !self.property(members, p, f)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn descendants(&self, node: &Node<'v>, f: &mut Sink<'_, 'v>) -> Result<bool> {
        self.all_children(node, &mut |item| {
            let Item::Node(child) = &item else { return f(item) };
            let child = *child;
            Ok(f(item)? && self.descendants(&child, f)?)
        })
    }

    /// The truth value of `e`: `None` for an empty collection.
    fn condition(&self, e: &Expr, s: &Scope<'_, 'v>) -> Result<Option<bool>> {
        match e {
            Expr::Bool(b) => Ok(Some(*b)),
            Expr::Binary(op, l, r) => match self.compare(*op, l, r, s)? {
                Some(truth) => Ok(truth),
                None => self.truth_of_items(e, s),
            },
            Expr::Is(base, t) => Ok(self.single(base, s)?.map(|i| i.is(t))),
            Expr::Call(base, func, args) => match self.ask(base.as_deref(), *func, args, s)? {
                Some(truth) => Ok(truth),
                None => self.truth_of_items(e, s),
            },
            _ => self.truth_of_items(e, s),
        }
    }

    /// The operators that answer yes, no or unknown; `None` for the others.
    fn compare(&self, op: Op, l: &Expr, r: &Expr, s: &Scope<'_, 'v>) -> Result<Option<Option<bool>>> {
        Ok(Some(match op {
            Op::And => match self.condition(l, s)? {
                Some(false) => Some(false),
                left => match (left, self.condition(r, s)?) {
                    (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                },
            },
            Op::Or => match self.condition(l, s)? {
                Some(true) => Some(true),
                left => match (left, self.condition(r, s)?) {
                    (_, Some(true)) => Some(true),
                    (Some(false), Some(false)) => Some(false),
                    _ => None,
                },
            },
            Op::Xor => match (self.condition(l, s)?, self.condition(r, s)?) {
                (Some(a), Some(b)) => Some(a != b),
                _ => None,
            },
            Op::Implies => match self.condition(l, s)? {
                Some(false) => Some(true),
                left => match (left, self.condition(r, s)?) {
                    (_, Some(true)) => Some(true),
                    (Some(true), right) => right,
                    _ => None,
                },
            },
            Op::Equal => self.equal(l, r, s)?,
            Op::NotEqual => self.equal(l, r, s)?.map(|b| !b),
            Op::Equivalent | Op::NotEquivalent => {
                let (a, mut b) = (self.items(l, s)?, self.items(r, s)?.into_vec());
                let mut same = a.len() == b.len();
                for x in a.iter() {
                    self.step()?;
                    match b.iter().position(|y| x.equivalent(y)) {
                        Some(at) => drop(b.swap_remove(at)),
                        None => same = false,
                    }
                }
                Some(same == (op == Op::Equivalent))
            }
            Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual => {
                let (Some(a), Some(b)) = (self.single(l, s)?, self.single(r, s)?) else {
                    return Ok(Some(None));
                };
                a.order(&b)?.map(|o| match op {
                    Op::Less => o == Ordering::Less,
                    Op::LessOrEqual => o != Ordering::Greater,
                    Op::Greater => o == Ordering::Greater,
                    _ => o != Ordering::Less,
                })
            }
            Op::In => self.member(l, r, s)?,
            Op::Contains => self.member(r, l, s)?,
            _ => return Ok(None),
        }))
    }

    /// The functions that answer yes, no or unknown while they stream; `None` for the others.
    fn ask(&self, base: Option<&Expr>, func: Func, args: &[Expr], s: &Scope<'_, 'v>) -> Result<Option<Option<bool>>> {
        Ok(Some(match func {
            Func::Exists | Func::Empty => {
                let mut found = false;
                let mut index = 0;
                self.base(base, s, &mut |item| {
                    found = match args.first() {
                        Some(c) => self.condition(c, &Scope { this: &item, index })? == Some(true),
                        None => true,
                    };
                    index += 1;
                    Ok(!found)
                })?;
                Some(found == (func == Func::Exists))
            }
            Func::Not => match base {
                Some(b) => self.condition(b, s)?.map(|b| !b),
                None => Some(!s.this.truth()),
            },
            Func::All => {
                let Some(c) = args.first() else {
                    return Err(EvalError::Type);
                };
                let mut index = 0;
                let all = self.base(base, s, &mut |item| {
                    let good = self.condition(c, &Scope { this: &item, index })? == Some(true);
                    index += 1;
                    Ok(good)
                })?;
                Some(all)
            }
            Func::HasValue => Some(match self.base_items(base, s)?.single()? {
                None => false,
                Some(Item::Node(n)) => matches!(n.kind, Kind::Primitive(_)) && n.value.is_some(),
                Some(_) => true,
            }),
            _ => return Ok(None),
        }))
    }

    fn truth_of_items(&self, e: &Expr, s: &Scope<'_, 'v>) -> Result<Option<bool>> {
        Ok(self.single(e, s)?.map(|i| i.truth()))
    }

    fn equal(&self, l: &Expr, r: &Expr, s: &Scope<'_, 'v>) -> Result<Option<bool>> {
        let a = self.items(l, s)?;
        // The commonest comparison, without copying the literal.
        if let (Expr::Str(text), Some(first), true) = (r, &a.first, a.rest.is_empty())
            && let Item::Node(Node {
                value: Some(Value::String(v)),
                kind: Kind::Primitive(_),
                ..
            }) = first
        {
            return Ok(Some(v == text));
        }
        if a.first.is_none() {
            return Ok(None);
        }
        let b = self.items(r, s)?;
        if b.first.is_none() {
            return Ok(None);
        }
        if a.len() != b.len() {
            return Ok(Some(false));
        }
        let mut same = Some(true);
        for (x, y) in a.iter().zip(b.iter()) {
            match x.equals(y) {
                Some(true) => {}
                Some(false) => return Ok(Some(false)),
                None => same = None,
            }
        }
        Ok(same)
    }

    /// Whether the single item of `item` is in `list`.
    fn member(&self, item: &Expr, list: &Expr, s: &Scope<'_, 'v>) -> Result<Option<bool>> {
        let Some(x) = self.single(item, s)? else {
            return Ok(None);
        };
        let mut found = false;
        self.each(list, s, &mut |y| {
            found = x.equals(&y) == Some(true);
            Ok(!found)
        })?;
        Ok(Some(found))
    }

    fn binary(&self, op: Op, l: &Expr, r: &Expr, s: &Scope<'_, 'v>, f: &mut Sink<'_, 'v>) -> Result<bool> {
        match op {
            Op::Union => {
                let mut all = self.items(l, s)?.into_vec();
                all.extend(self.items(r, s)?.into_vec());
                self.stream(self.distinct(all)?, f)
            }
            Op::Join => {
                let text = |e| Ok::<_, EvalError>(self.single(e, s)?.map(|i| i.to_string()).unwrap_or_default());
                f(Item::Str(Cow::Owned(text(l)? + &text(r)?)))
            }
            Op::Times | Op::Over | Op::Div | Op::Mod | Op::Plus | Op::Minus => {
                let (Some(a), Some(b)) = (self.single(l, s)?, self.single(r, s)?) else {
                    return Ok(true);
                };
                arithmetic(op, &a.plain(), &b.plain())?.map_or(Ok(true), f)
            }
            _ => self
                .compare(op, l, r, s)?
                .flatten()
                .map_or(Ok(true), |b| f(Item::Bool(b))),
        }
    }

    fn stream(&self, items: Vec<Item<'v>>, f: &mut Sink<'_, 'v>) -> Result<bool> {
        for item in items {
            self.step()?;
            if !f(item)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Without repetitions; strings by hash, the rest by comparison.
    fn distinct(&self, items: Vec<Item<'v>>) -> Result<Vec<Item<'v>>> {
        let mut strings = std::collections::HashSet::new();
        let mut out: Vec<Item<'v>> = Vec::new();
        for item in items {
            let new = match item.string() {
                Some(text) => strings.insert(text),
                None => {
                    let mut new = true;
                    for other in out.iter().filter(|o| o.string().is_none()) {
                        self.step()?;
                        if item.equals(other) == Some(true) {
                            new = false;
                            break;
                        }
                    }
                    new
                }
            };
            if new {
                out.push(item);
            }
        }
        Ok(out)
    }

    fn contains(&self, list: &[Item<'v>], item: &Item<'v>) -> Result<bool> {
        for other in list {
            self.step()?;
            if item.equals(other) == Some(true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn call(
        &self,
        base: Option<&Expr>,
        func: Func,
        args: &[Expr],
        s: &Scope<'_, 'v>,
        f: &mut Sink<'_, 'v>,
    ) -> Result<bool> {
        let arg = |i: usize| args.get(i).ok_or(EvalError::Type);
        match func {
            Func::Exists | Func::Empty | Func::Not | Func::All | Func::HasValue => self
                .ask(base, func, args, s)?
                .flatten()
                .map_or(Ok(true), |b| f(Item::Bool(b))),
            Func::Where => {
                let criterion = arg(0)?;
                let mut index = 0;
                self.base(base, s, &mut |item| {
                    let keep = self.condition(criterion, &Scope { this: &item, index })? == Some(true);
                    index += 1;
                    if keep { f(item) } else { Ok(true) }
                })
            }
            Func::Select => {
                let projection = arg(0)?;
                let mut index = 0;
                self.base(base, s, &mut |item| {
                    let scope = Scope { this: &item, index };
                    index += 1;
                    self.each(projection, &scope, f)
                })
            }
            Func::OfType => {
                let t = as_type(arg(0)?).ok_or(EvalError::Type)?;
                self.base(base, s, &mut |item| if item.narrows(&t) { f(item) } else { Ok(true) })
            }
            Func::As => {
                // R4's own expressions use as() on lists, like ofType().
                let t = as_type(arg(0)?).ok_or(EvalError::Type)?;
                self.base(base, s, &mut |item| if item.narrows(&t) { f(item) } else { Ok(true) })
            }
            Func::Is => {
                let t = as_type(arg(0)?).ok_or(EvalError::Type)?;
                match self.base_items(base, s)?.single()? {
                    Some(item) => f(Item::Bool(item.is(&t))),
                    None => Ok(true),
                }
            }
            Func::First => {
                let mut found = None;
                self.base(base, s, &mut |item| {
                    found = Some(item);
                    Ok(false)
                })?;
                found.map_or(Ok(true), f)
            }
            Func::Children => self.base(base, s, &mut |item| match &item {
                Item::Node(n) => self.all_children(n, f),
                _ => Ok(true),
            }),
            Func::Descendants => self.base(base, s, &mut |item| match &item {
                Item::Node(n) => self.descendants(n, f),
                _ => Ok(true),
            }),
            Func::Trace => self.base(base, s, f),
            Func::Extension => {
                let Some(url) = self.single(arg(0)?, s)?.and_then(|i| i.string()) else {
                    return Ok(true);
                };
                self.base(base, s, &mut |item| match item {
                    Item::Node(n) => self.children(&n, "extension", &mut |e| {
                        let same = matches!(&e, Item::Node(x)
                            if x.value.and_then(|v| v.get("url")).and_then(Value::as_str) == Some(&*url));
                        if same { f(e) } else { Ok(true) }
                    }),
                    _ => Ok(true),
                })
            }
            Func::Resolve => self.base(base, s, &mut |item| {
                let literal = match &item {
                    Item::Node(Node {
                        value: Some(v @ Value::Object(_)),
                        ..
                    }) => v.get("reference").and_then(Value::as_str),
                    Item::Node(Node { value: Some(v), .. }) => v.as_str(),
                    _ => None,
                };
                let contained = self.root.value.and_then(|r| r.get("contained")).and_then(Value::items);
                let mut found = None;
                if let Some(id) = literal.and_then(|l| l.strip_prefix('#')) {
                    for c in contained.unwrap_or_default() {
                        self.step()?;
                        if c.get("id").and_then(Value::as_str) == Some(id) {
                            found = Node::resource(c);
                            break;
                        }
                    }
                }
                found.map_or(Ok(true), |n| f(Item::Node(n)))
            }),
            Func::Iif => {
                let (yes, no) = (arg(1)?, args.get(2));
                let mut scoped = s.this.clone();
                if base.is_some() {
                    match self.base_items(base, s)?.single()? {
                        Some(item) => scoped = item,
                        // On an empty input the condition sees nothing: `empty()` holds.
                        None => return self.iif_on_nothing(args, s, f),
                    }
                }
                let scope = Scope {
                    this: &scoped,
                    index: s.index,
                };
                match (self.condition(arg(0)?, &scope)?, no) {
                    (Some(true), _) => self.each(yes, &scope, f),
                    (_, Some(no)) => self.each(no, &scope, f),
                    _ => Ok(true),
                }
            }
            _ => {
                let items = self.base_items(base, s)?;
                self.on_items(func, items, args, s, f)
            }
        }
    }

    /// `{}.iif(condition, yes, no)`: the only conditions that hold on nothing are constants and `empty()`.
    fn iif_on_nothing(&self, args: &[Expr], s: &Scope<'_, 'v>, f: &mut Sink<'_, 'v>) -> Result<bool> {
        let truth = match args.first() {
            Some(Expr::Call(None, Func::Empty, _)) => true,
            Some(Expr::Bool(b)) => *b,
            _ => false,
        };
        match args.get(if truth { 1 } else { 2 }) {
            Some(e @ (Expr::Bool(_) | Expr::Str(_) | Expr::Int(_) | Expr::Env(_))) => self.each(e, s, f),
            _ => Ok(true),
        }
    }

    /// Functions that look at the whole input.
    fn on_items(
        &self,
        func: Func,
        items: Items<'v>,
        args: &[Expr],
        s: &Scope<'_, 'v>,
        f: &mut Sink<'_, 'v>,
    ) -> Result<bool> {
        let arg = |i: usize| args.get(i).ok_or(EvalError::Type);
        let int = |n: usize| Item::Int(i64::try_from(n).unwrap_or(i64::MAX));
        let number = |i: usize| -> Result<Option<i64>> {
            match self.single(arg(i)?, s)?.map(|i| i.plain().into_owned()) {
                None => Ok(None),
                Some(Item::Int(n)) => Ok(Some(n)),
                Some(_) => Err(EvalError::Type),
            }
        };
        match func {
            Func::Count => f(int(items.len())),
            Func::AllTrue => f(Item::Bool(items.iter().all(Item::truth))),
            Func::AnyTrue => f(Item::Bool(items.iter().any(Item::truth))),
            Func::AllFalse => f(Item::Bool(items.iter().all(|i| !i.truth()))),
            Func::AnyFalse => f(Item::Bool(items.iter().any(|i| !i.truth()))),
            Func::Distinct => self.stream(self.distinct(items.into_vec())?, f),
            Func::IsDistinct => {
                let n = items.len();
                f(Item::Bool(self.distinct(items.into_vec())?.len() == n))
            }
            Func::SubsetOf | Func::SupersetOf => {
                let (mut a, mut b) = (items.into_vec(), self.items(arg(0)?, s)?.into_vec());
                if func == Func::SupersetOf {
                    std::mem::swap(&mut a, &mut b);
                }
                for x in &a {
                    if !self.contains(&b, x)? {
                        return f(Item::Bool(false));
                    }
                }
                f(Item::Bool(true))
            }
            Func::Intersect | Func::Exclude => {
                let other = self.items(arg(0)?, s)?.into_vec();
                let mut out = Vec::new();
                for x in items.into_vec() {
                    if self.contains(&other, &x)? == (func == Func::Intersect) {
                        out.push(x);
                    }
                }
                if func == Func::Intersect {
                    out = self.distinct(out)?;
                }
                self.stream(out, f)
            }
            Func::Union | Func::Combine => {
                let mut all = items.into_vec();
                all.extend(self.items(arg(0)?, s)?.into_vec());
                if func == Func::Union {
                    all = self.distinct(all)?;
                }
                self.stream(all, f)
            }
            Func::Repeat => {
                let projection = arg(0)?;
                let (mut todo, mut seen) = (items.into_vec(), Vec::<Item<'v>>::new());
                while let Some(item) = todo.pop() {
                    let mut next = self.items(projection, &Scope { this: &item, index: 0 })?.into_vec();
                    next.reverse();
                    for x in next {
                        if !self.contains(&seen, &x)? {
                            seen.push(x.clone());
                            todo.push(x);
                        }
                    }
                }
                self.stream(seen, f)
            }
            Func::Single => items.single()?.map_or(Ok(true), f),
            Func::Last => items.into_vec().pop().map_or(Ok(true), f),
            Func::Tail => self.stream(items.rest, f),
            Func::Skip | Func::Take => {
                let n = usize::try_from(number(0)?.ok_or(EvalError::Type)?.max(0)).unwrap_or(usize::MAX);
                let all = items.into_vec().into_iter();
                self.stream(
                    if func == Func::Skip {
                        all.skip(n).collect()
                    } else {
                        all.take(n).collect()
                    },
                    f,
                )
            }
            Func::Join => {
                let by = match args.first() {
                    Some(e) => self.single(e, s)?.and_then(|i| i.string()).unwrap_or_default(),
                    None => Cow::Borrowed(""),
                };
                let parts: Vec<_> = items.iter().map(ToString::to_string).collect();
                f(Item::Str(Cow::Owned(parts.join(&by))))
            }
            _ => {
                let Some(item) = items.single()? else { return Ok(true) };
                self.on_item(func, item, args, s, f)
            }
        }
    }

    /// Functions of a single item.
    fn on_item(
        &self,
        func: Func,
        item: Item<'v>,
        args: &[Expr],
        s: &Scope<'_, 'v>,
        f: &mut Sink<'_, 'v>,
    ) -> Result<bool> {
        let arg = |i: usize| args.get(i).ok_or(EvalError::Type);
        let text = || item.string().ok_or(EvalError::Type);
        let text_arg = |i: usize| -> Result<Option<Cow<'v, str>>> {
            match self.single(arg(i)?, s)? {
                None => Ok(None),
                Some(x) => x.string().map(Some).ok_or(EvalError::Type),
            }
        };
        let decimal = || item.decimal().ok_or(EvalError::Type);
        let plain = item.plain().into_owned();
        let maybe = |d: Option<Decimal>| d.map(Item::Dec);
        let out: Option<Item<'v>> = match func {
            Func::GetValue => Some(plain),
            Func::ToString => Some(Item::Str(Cow::Owned(item.to_string()))).filter(|_| !matches!(plain, Item::Node(_))),
            Func::ConvertsToString => Some(Item::Bool(!matches!(plain, Item::Node(_)))),
            Func::ToInteger => to_integer(&plain).map(Item::Int),
            Func::ConvertsToInteger => Some(Item::Bool(to_integer(&plain).is_some())),
            Func::ToDecimal => maybe(to_decimal(&plain)),
            Func::ConvertsToDecimal => Some(Item::Bool(to_decimal(&plain).is_some())),
            Func::ToBoolean => to_boolean(&plain).map(Item::Bool),
            Func::ConvertsToBoolean => Some(Item::Bool(to_boolean(&plain).is_some())),
            Func::Length => Some(Item::Int(i64::try_from(text()?.chars().count()).unwrap_or(i64::MAX))),
            Func::Upper => Some(Item::Str(Cow::Owned(text()?.to_uppercase()))),
            Func::Lower => Some(Item::Str(Cow::Owned(text()?.to_lowercase()))),
            Func::Trim => Some(Item::Str(Cow::Owned(text()?.trim().to_owned()))),
            Func::ToChars => {
                let chars = text()?.chars().map(|c| Item::Str(Cow::Owned(c.to_string()))).collect();
                return self.stream(chars, f);
            }
            Func::Split => {
                let Some(by) = text_arg(0)? else { return Ok(true) };
                let parts = text()?
                    .split(&*by)
                    .map(|p| Item::Str(Cow::Owned(p.to_owned())))
                    .collect();
                return self.stream(parts, f);
            }
            Func::StartsWith => text_arg(0)?
                .map(|x| Ok(Item::Bool(text()?.starts_with(&*x))))
                .transpose()?,
            Func::EndsWith => text_arg(0)?
                .map(|x| Ok(Item::Bool(text()?.ends_with(&*x))))
                .transpose()?,
            Func::Contains => text_arg(0)?
                .map(|x| Ok(Item::Bool(text()?.contains(&*x))))
                .transpose()?,
            Func::IndexOf => match text_arg(0)? {
                None => None,
                Some(x) => {
                    let text = text()?;
                    let at = text
                        .find(&*x)
                        .map(|at| text.get(..at).unwrap_or_default().chars().count());
                    Some(Item::Int(at.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX))))
                }
            },
            Func::Replace => match (text_arg(0)?, text_arg(1)?) {
                (Some(a), Some(b)) => Some(Item::Str(Cow::Owned(text()?.replace(&*a, &b)))),
                _ => None,
            },
            Func::Substring => {
                let at = |i| -> Result<Option<i64>> {
                    match self.single(arg(i)?, s)?.map(|i| i.plain().into_owned()) {
                        None => Ok(None),
                        Some(Item::Int(n)) => Ok(Some(n)),
                        Some(_) => Err(EvalError::Type),
                    }
                };
                let text = text()?;
                let most = if args.len() > 1 {
                    at(1)?.unwrap_or(i64::MAX)
                } else {
                    i64::MAX
                };
                match at(0)?
                    .and_then(|n| usize::try_from(n).ok())
                    .filter(|n| *n < text.chars().count())
                {
                    None => None,
                    Some(start) => {
                        let most = usize::try_from(most.max(0)).unwrap_or(usize::MAX);
                        Some(Item::Str(Cow::Owned(text.chars().skip(start).take(most).collect())))
                    }
                }
            }
            Func::Abs => match plain {
                Item::Int(n) => n.checked_abs().map(Item::Int),
                Item::Quantity(d, u) => Some(Item::Quantity(d.abs(), u)),
                _ => Some(Item::Dec(decimal()?.abs())),
            },
            Func::Ceiling => decimal()?.whole(1).map(Item::Int),
            Func::Floor => decimal()?.whole(-1).map(Item::Int),
            Func::Truncate => decimal()?.whole(0).map(Item::Int),
            Func::Round => {
                let places = match args.first() {
                    Some(e) => self.single(e, s)?.and_then(|i| to_integer(&i.plain())).unwrap_or(-1),
                    None => 0,
                };
                maybe(decimal()?.round(u32::try_from(places).map_err(|_| EvalError::Type)?))
            }
            Func::Sqrt => maybe(decimal()?.real(f64::sqrt)),
            Func::Exp => maybe(decimal()?.real(f64::exp)),
            Func::Ln => maybe(decimal()?.real(f64::ln)),
            Func::Log | Func::Power => match self.single(arg(0)?, s)?.and_then(|i| i.decimal()) {
                None => None,
                Some(x) if func == Func::Log => maybe(decimal()?.real2(x, f64::log)),
                Some(x) => {
                    let result = decimal()?.real2(x, f64::powf);
                    match (&plain, result.and_then(|r| r.whole(0))) {
                        (Item::Int(_), Some(n)) if x.whole(0) == x.whole(1) => Some(Item::Int(n)),
                        _ => maybe(result),
                    }
                }
            },
            _ => return Err(EvalError::Type),
        };
        out.map_or(Ok(true), f)
    }
}

fn to_integer(item: &Item) -> Option<i64> {
    match item {
        Item::Int(n) => Some(*n),
        Item::Bool(b) => Some(i64::from(*b)),
        Item::Str(s) => s.parse().ok(),
        _ => None,
    }
}

fn to_decimal(item: &Item) -> Option<Decimal> {
    match item {
        Item::Int(n) => Some(Decimal::from_int(*n)),
        Item::Dec(d) => Some(*d),
        Item::Bool(b) => Some(Decimal::from_int(i64::from(*b))),
        Item::Str(s) => Decimal::parse(s),
        _ => None,
    }
}

fn to_boolean(item: &Item) -> Option<bool> {
    match item {
        Item::Bool(b) => Some(*b),
        Item::Int(1) => Some(true),
        Item::Int(0) => Some(false),
        Item::Str(s) => match s.to_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "1" | "1.0" => Some(true),
            "false" | "f" | "no" | "n" | "0" | "0.0" => Some(false),
            _ => None,
        },
        Item::Dec(d) if d.order(Decimal::from_int(1)) == Some(Ordering::Equal) => Some(true),
        Item::Dec(d) if d.order(Decimal::from_int(0)) == Some(Ordering::Equal) => Some(false),
        _ => None,
    }
}

/// `None` is the empty result: overflow, or a division by zero.
fn arithmetic<'v>(op: Op, a: &Item<'v>, b: &Item<'v>) -> Result<Option<Item<'v>>> {
    match (op, a, b) {
        (Op::Plus, Item::Str(a), Item::Str(b)) => return Ok(Some(Item::Str(Cow::Owned(format!("{a}{b}"))))),
        (Op::Plus, Item::Int(a), Item::Int(b)) => return Ok(a.checked_add(*b).map(Item::Int)),
        (Op::Minus, Item::Int(a), Item::Int(b)) => return Ok(a.checked_sub(*b).map(Item::Int)),
        (Op::Times, Item::Int(a), Item::Int(b)) => return Ok(a.checked_mul(*b).map(Item::Int)),
        (Op::Mod, Item::Int(a), Item::Int(b)) => return Ok(a.checked_rem(*b).map(Item::Int)),
        (Op::Plus | Op::Minus, Item::Quantity(x, u), Item::Quantity(y, v)) if u == v => {
            let y = if op == Op::Plus { *y } else { y.negative() };
            return Ok(x.plus(y).map(|d| Item::Quantity(d, u.clone())));
        }
        _ => {}
    }
    let (Some(a), Some(b)) = (a.decimal(), b.decimal()) else {
        return Err(EvalError::Type);
    };
    Ok(match op {
        Op::Plus => a.plus(b).map(Item::Dec),
        Op::Minus => a.plus(b.negative()).map(Item::Dec),
        Op::Times => a.times(b).map(Item::Dec),
        Op::Over => a.over(b).map(Item::Dec),
        Op::Div => a.whole_over(b).map(Item::Int),
        Op::Mod => a.modulo(b).map(Item::Dec),
        _ => None,
    })
}

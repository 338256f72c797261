//! What a collection holds: nodes of the resource and values of FHIRPath's own types.

use super::eval::EvalError;
use super::number::Decimal;
use super::parse::TypeName;
use super::temporal::{Temporal, TemporalKind};
use crate::json::Value;
use crate::schema::Primitive;
use crate::schema::table::{Kind, NodeNo, TABLE};
use crate::types::ResourceType;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// An element of the resource with its type.
#[derive(Clone, Copy, Debug)]
pub struct Node<'v> {
    /// The JSON value; `None` for a primitive that only has extensions.
    pub(crate) value: Option<&'v Value<'v>>,
    /// The `_name` companion of a primitive.
    pub(crate) shadow: Option<&'v Value<'v>>,
    /// A primitive or a node of the table.
    pub(crate) kind: Kind,
}

impl<'v> Node<'v> {
    /// The resource in `value`; `None` without a known `resourceType`.
    pub(crate) fn resource(value: &'v Value<'v>) -> Option<Self> {
        let t = ResourceType::from_name(value.get("resourceType")?.as_str()?)?;
        Some(Self {
            value: Some(value),
            shadow: None,
            kind: Kind::Node(TABLE.resource(t)?),
        })
    }

    /// An object of the node `no`.
    pub(crate) fn object(value: &'v Value<'v>, no: NodeNo) -> Self {
        Self {
            value: Some(value),
            shadow: None,
            kind: Kind::Node(no),
        }
    }

    /// The element of a property.
    pub(super) fn of(value: Option<&'v Value<'v>>, shadow: Option<&'v Value<'v>>, kind: Kind) -> Option<Self> {
        match kind {
            Kind::Resource => Self::resource(value?),
            _ => Some(Self { value, shadow, kind }),
        }
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Primitive(p) => p.name(),
            Kind::Node(no) => TABLE.node(no).map_or("", |n| n.name),
            Kind::Resource | Kind::Choice => "",
        }
    }

    pub(super) fn is_resource(&self) -> bool {
        matches!(self.kind, Kind::Node(no) if TABLE.node(no).is_some_and(|n| n.resource.is_some()))
    }

    /// The value in FHIRPath's own types, of a primitive or a Quantity.
    fn plain(&self) -> Option<Item<'v>> {
        let value = self.value?;
        match (self.kind, value) {
            (Kind::Primitive(_), Value::Bool(b)) => Some(Item::Bool(*b)),
            (Kind::Primitive(Primitive::Decimal), Value::Number(n)) => Decimal::parse(n).map(Item::Dec),
            (Kind::Primitive(_), Value::Number(n)) => n.parse().ok().map(Item::Int),
            (Kind::Primitive(p), Value::String(s)) => {
                let kind = match p {
                    Primitive::Date => Some(TemporalKind::Date),
                    Primitive::DateTime | Primitive::Instant => Some(TemporalKind::DateTime),
                    Primitive::Time => Some(TemporalKind::Time),
                    _ => None,
                };
                match kind.and_then(|k| Temporal::parse(s, k)) {
                    Some(t) => Some(Item::Temporal(t)),
                    None => Some(Item::Str(Cow::Borrowed(s))),
                }
            }
            (Kind::Node(_), Value::Object(_)) if is_quantity(self.type_name()) => {
                let number = Decimal::parse(value.get("value")?.as_number()?)?;
                let unit = value.get("code").or_else(|| value.get("unit")).and_then(Value::as_str);
                Some(Item::Quantity(number, Cow::Borrowed(unit.unwrap_or("1"))))
            }
            _ => None,
        }
    }
}

fn is_quantity(name: &str) -> bool {
    matches!(name, "Quantity" | "Age" | "Count" | "Distance" | "Duration")
}

/// One item of a collection.
#[derive(Clone, Debug)]
pub enum Item<'v> {
    /// An element of the resource.
    Node(Node<'v>),
    /// `System.Boolean`
    Bool(bool),
    /// `System.Integer`
    Int(i64),
    /// `System.Decimal`
    Dec(Decimal),
    /// `System.String`
    Str(Cow<'v, str>),
    /// `System.Date`, `System.DateTime`, `System.Time`
    Temporal(Temporal<'v>),
    /// `System.Quantity`: number and unit.
    Quantity(Decimal, Cow<'v, str>),
}

impl<'v> Item<'v> {
    /// The item as a value of FHIRPath's own types where it has one.
    pub(super) fn plain(&self) -> Cow<'_, Item<'v>> {
        match self {
            Item::Node(n) => n.plain().map_or(Cow::Borrowed(self), Cow::Owned),
            _ => Cow::Borrowed(self),
        }
    }

    /// The text of a string.
    pub(super) fn string(&self) -> Option<Cow<'v, str>> {
        match self {
            Item::Str(s) => Some(s.clone()),
            Item::Node(Node {
                value: Some(Value::String(s)),
                kind: Kind::Primitive(_),
                ..
            }) => Some(Cow::Borrowed(s.as_ref())),
            _ => None,
        }
    }

    /// A truth value; a single item of another type stands for true.
    pub(super) fn truth(&self) -> bool {
        match self {
            Item::Bool(b) => *b,
            Item::Node(Node {
                value: Some(Value::Bool(b)),
                ..
            }) => *b,
            _ => true,
        }
    }

    /// A number.
    pub(super) fn decimal(&self) -> Option<Decimal> {
        match *self.plain() {
            Item::Int(n) => Some(Decimal::from_int(n)),
            Item::Dec(d) => Some(d),
            _ => None,
        }
    }

    /// The name of the type, for example `System.Boolean` or `FHIR.Patient`.
    #[must_use]
    pub fn type_name(&self) -> String {
        match self {
            Item::Node(n) => format!("FHIR.{}", n.type_name()),
            other => format!("System.{}", other.system_type()),
        }
    }

    fn system_type(&self) -> &'static str {
        match self {
            Item::Node(_) => "",
            Item::Bool(_) => "Boolean",
            Item::Int(_) => "Integer",
            Item::Dec(_) => "Decimal",
            Item::Str(_) => "String",
            Item::Temporal(t) => match t.kind() {
                TemporalKind::Date => "Date",
                TemporalKind::DateTime => "DateTime",
                TemporalKind::Time => "Time",
            },
            Item::Quantity(..) => "Quantity",
        }
    }

    /// Whether the item is of the type or one derived from it.
    pub(super) fn is(&self, t: &TypeName) -> bool {
        let space = t.space.as_deref();
        let Item::Node(node) = self else {
            return space.is_none_or(|s| s == "System") && self.system_type() == t.name;
        };
        if space.is_some_and(|s| s != "FHIR") {
            return false;
        }
        let name = node.type_name();
        if name == t.name {
            return true;
        }
        match (t.name.as_str(), node.kind) {
            ("string", Kind::Primitive(p)) => matches!(p, Primitive::Code | Primitive::Id | Primitive::Markdown),
            ("uri", Kind::Primitive(p)) => {
                matches!(
                    p,
                    Primitive::Url | Primitive::Canonical | Primitive::Uuid | Primitive::Oid
                )
            }
            ("integer", Kind::Primitive(p)) => matches!(p, Primitive::PositiveInt | Primitive::UnsignedInt),
            ("Quantity", _) => is_quantity(name),
            ("Resource", _) => node.is_resource(),
            ("DomainResource", _) => node.is_resource() && !matches!(name, "Bundle" | "Binary" | "Parameters"),
            ("BackboneElement", _) => name.contains('.') || matches!(name, "Dosage" | "Timing"),
            ("Element", _) => !node.is_resource(),
            _ => false,
        }
    }

    /// As [`Item::is`] for `as()` and `ofType()`: a primitive must be of the very type, so that `ofType(string)` of a choice
    /// leaves out the markdown.
    pub(super) fn narrows(&self, t: &TypeName) -> bool {
        match self {
            Item::Node(
                n @ Node {
                    kind: Kind::Primitive(_),
                    ..
                },
            ) => n.type_name() == t.name && self.is(t),
            _ => self.is(t),
        }
    }

    /// `=`: `None` where precision leaves it open.
    pub(super) fn equals(&self, other: &Self) -> Option<bool> {
        if let (Some(a), Some(b)) = (self.string(), other.string())
            && !matches!(
                (&*self.plain(), &*other.plain()),
                (Item::Temporal(_), Item::Temporal(_))
            )
        {
            return Some(a == b);
        }
        match (&*self.plain(), &*other.plain()) {
            (Item::Node(a), Item::Node(b)) => Some(match (a.value, b.value) {
                (Some(x), Some(y)) => crate::patch::equal(x, y),
                _ => a.value.is_none() && b.value.is_none(),
            }),
            (Item::Bool(a), Item::Bool(b)) => Some(a == b),
            (Item::Str(a), Item::Str(b)) => Some(a == b),
            (Item::Temporal(a), Item::Temporal(b))
                if (a.kind() == TemporalKind::Time) != (b.kind() == TemporalKind::Time) =>
            {
                Some(false)
            }
            (Item::Temporal(a), Item::Temporal(b)) => a.order(b).map(|o| o == Ordering::Equal),
            (Item::Quantity(a, u), Item::Quantity(b, v)) => {
                if unit(u) == unit(v) {
                    Some(a.order(*b)? == Ordering::Equal)
                } else {
                    None
                }
            }
            (a, b) => match (a.decimal(), b.decimal()) {
                (Some(a), Some(b)) => Some(a.order(b)? == Ordering::Equal),
                _ => Some(false),
            },
        }
    }

    /// `~`: as `=`, but forgiving in case, white space and precision.
    pub(super) fn equivalent(&self, other: &Self) -> bool {
        let (a, b) = (self.plain(), other.plain());
        match (&*a, &*b) {
            (Item::Str(a), Item::Str(b)) => {
                let fold = |s: &str| s.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
                fold(a) == fold(b)
            }
            (Item::Temporal(a), Item::Temporal(b)) => a.order(b) == Some(Ordering::Equal),
            (Item::Quantity(a, u), Item::Quantity(b, v)) => unit(u) == unit(v) && a.about(*b),
            (a, b) => match (a.decimal(), b.decimal()) {
                (Some(a), Some(b)) => a.about(b),
                _ => a.equals(b) == Some(true),
            },
        }
    }

    /// The order of two items; an error where their types have none.
    pub(super) fn order(&self, other: &Self) -> Result<Option<Ordering>, EvalError> {
        match (&*self.plain(), &*other.plain()) {
            (Item::Str(a), Item::Str(b)) => Ok(Some(a.cmp(b))),
            (Item::Temporal(a), Item::Temporal(b)) => Ok(a.order(b)),
            (Item::Quantity(a, u), Item::Quantity(b, v)) => Ok(if unit(u) == unit(v) { a.order(*b) } else { None }),
            (Item::Quantity(..), Item::Node(n)) | (Item::Node(n), Item::Quantity(..)) if is_quantity(n.type_name()) => {
                Ok(None)
            }
            (Item::Node(a), Item::Node(b)) if is_quantity(a.type_name()) && is_quantity(b.type_name()) => Ok(None),
            (a, b) => match (a.decimal(), b.decimal()) {
                (Some(a), Some(b)) => Ok(a.order(b)),
                _ => Err(EvalError::Type),
            },
        }
    }
}

/// The calendar's words for units that UCUM writes otherwise.
fn unit(text: &str) -> &str {
    match text {
        "year" | "years" => "a",
        "month" | "months" => "mo",
        "week" | "weeks" => "wk",
        "day" | "days" => "d",
        "hour" | "hours" => "h",
        "minute" | "minutes" => "min",
        "second" | "seconds" => "s",
        "millisecond" | "milliseconds" => "ms",
        other => other,
    }
}

impl fmt::Display for Item<'_> {
    /// As `toString()`; JSON for a structure.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.plain() {
            Item::Node(n) => n.value.map_or(Ok(()), |v| v.fmt(f)),
            Item::Bool(b) => b.fmt(f),
            Item::Int(n) => n.fmt(f),
            Item::Dec(d) => match self {
                // As written, trailing zeros and all.
                Item::Node(Node {
                    value: Some(Value::Number(n)),
                    ..
                }) => f.write_str(n),
                _ => d.fmt(f),
            },
            Item::Str(s) => f.write_str(s),
            Item::Temporal(t) => t.fmt(f),
            Item::Quantity(n, u) if unit(u) != u => write!(f, "{n} {u}"),
            Item::Quantity(n, u) => write!(f, "{n} '{u}'"),
        }
    }
}

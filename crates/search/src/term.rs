//! What extraction gives and the index keeps: the searchable values of one resource.

use std::borrow::Cow;

/// A search parameter's number within its resource type; see `definition::params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamNo(pub u16);

/// One searchable value of one parameter. Borrowed from the resource's JSON where possible.
#[derive(Clone, Debug, PartialEq)]
pub enum Term<'a> {
    /// Coding, Identifier, code, boolean, ContactPoint. `system` is `None` where the element has none;
    /// for a plain `code` element it is the system the required binding implies, if there is just one.
    Token {
        /// System URI.
        system: Option<Cow<'a, str>>,
        /// Code or identifier value.
        code: Cow<'a, str>,
    },
    /// Text for `:text`: Coding.display, CodeableConcept.text, Identifier.type.text; not folded.
    Text(Cow<'a, str>),
    /// For `:of-type`: identifier type coding and value.
    OfType {
        /// System of the type coding.
        system: Cow<'a, str>,
        /// Code of the type coding.
        code: Cow<'a, str>,
        /// The identifier's value.
        value: Cow<'a, str>,
    },
    /// A string as written; folding is the index's work (`fold`).
    Str(Cow<'a, str>),
    /// A literal reference to a resource of this server: `Type/id`, version dropped.
    Reference {
        /// Target type name, checked to be a resource type.
        target: keepwell_model::types::ResourceType,
        /// Logical id.
        id: Cow<'a, str>,
    },
    /// A reference to elsewhere, or a canonical, kept whole (with `|version` and fragment if present).
    Url(Cow<'a, str>),
    /// `Reference.identifier`, for `:identifier`.
    ReferenceIdentifier {
        /// System URI.
        system: Option<Cow<'a, str>>,
        /// Identifier value.
        value: Cow<'a, str>,
    },
    /// A date, dateTime, instant, Period or Timing as a range of milliseconds since 1970 UTC: `lo` inclusive,
    /// `hi` exclusive; open ends are `i64::MIN` and `i64::MAX`.
    Date {
        /// First millisecond.
        lo: i64,
        /// One past the last millisecond.
        hi: i64,
    },
    /// A number; `lo == hi` unless the element is a range.
    Number {
        /// Lower bound, inclusive.
        lo: f64,
        /// Upper bound, inclusive.
        hi: f64,
    },
    /// A quantity, money, or range of quantities.
    Quantity {
        /// Lower bound, inclusive; `-inf` for a comparator that leaves it open.
        lo: f64,
        /// Upper bound, inclusive.
        hi: f64,
        /// Unit system URI.
        system: Option<Cow<'a, str>>,
        /// Unit code.
        code: Option<Cow<'a, str>>,
        /// Unit as displayed.
        unit: Option<Cow<'a, str>>,
    },
    /// A `uri` value, compared exactly.
    Uri(Cow<'a, str>),
    /// One tuple of a composite parameter whose root is not the resource itself: for each component its values.
    Tuple(Vec<Vec<Term<'a>>>),
}

/// The searchable values of one resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extracted<'a> {
    /// Parameter and value, in parameter order.
    pub terms: Vec<(ParamNo, Term<'a>)>,
}

/// Folds a string for the default string search: compatibility decomposition, combining marks dropped, lower case,
/// so that case and accents do not matter (R4 search, section 2.1.1.4.5).
#[must_use]
pub fn fold(text: &str) -> String {
    use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.nfkd()
        .filter(|c| !is_combining_mark(*c))
        .flat_map(char::to_lowercase)
        .nfkd()
        .filter(|c| !is_combining_mark(*c))
        .collect()
}

impl Term<'_> {
    /// A copy that borrows nothing, so that it outlives the parsed text.
    #[must_use]
    pub fn into_owned(self) -> Term<'static> {
        let own = |c: Cow<'_, str>| Cow::<'static, str>::Owned(c.into_owned());
        match self {
            Term::Token { system, code } => Term::Token {
                system: system.map(own),
                code: own(code),
            },
            Term::Text(t) => Term::Text(own(t)),
            Term::OfType { system, code, value } => Term::OfType {
                system: own(system),
                code: own(code),
                value: own(value),
            },
            Term::Str(s) => Term::Str(own(s)),
            Term::Reference { target, id } => Term::Reference { target, id: own(id) },
            Term::Url(u) => Term::Url(own(u)),
            Term::ReferenceIdentifier { system, value } => Term::ReferenceIdentifier {
                system: system.map(own),
                value: own(value),
            },
            Term::Date { lo, hi } => Term::Date { lo, hi },
            Term::Number { lo, hi } => Term::Number { lo, hi },
            Term::Quantity {
                lo,
                hi,
                system,
                code,
                unit,
            } => Term::Quantity {
                lo,
                hi,
                system: system.map(own),
                code: code.map(own),
                unit: unit.map(own),
            },
            Term::Uri(u) => Term::Uri(own(u)),
            Term::Tuple(parts) => Term::Tuple(
                parts
                    .into_iter()
                    .map(|p| p.into_iter().map(Term::into_owned).collect())
                    .collect(),
            ),
        }
    }
}

impl Extracted<'_> {
    /// A copy that borrows nothing.
    #[must_use]
    pub fn into_owned(self) -> Extracted<'static> {
        Extracted {
            terms: self.terms.into_iter().map(|(p, t)| (p, t.into_owned())).collect(),
        }
    }
}

//! A parsed search: what `parse` gives and the index evaluates.

use crate::term::ParamNo;
use keepwell_model::types::ResourceType;

/// A search over one type.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The type searched.
    pub resource_type: ResourceType,
    /// All of these hold.
    pub clauses: Vec<Clause>,
    /// Order of the matches; empty = newest row first.
    pub sort: Vec<SortKey>,
    /// Page size asked for.
    pub count: Option<u32>,
    /// `_total`, and `_summary=count`.
    pub total: Total,
    /// `_include` and `_revinclude`.
    pub includes: Vec<Include>,
    /// `_summary`.
    pub summary: Summary,
    /// `_elements`, top-level names.
    pub elements: Vec<String>,
    /// Parameters as processed, in order, decoded: for `Bundle.link[self]`.
    pub processed: Vec<(String, String)>,
    /// Parameters left out under lenient handling: name and reason.
    pub ignored: Vec<(String, String)>,
}

/// One condition on a resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Clause {
    /// Some value of the parameter meets the test.
    Match {
        /// The parameter.
        param: ParamNo,
        /// The test.
        test: Test,
    },
    /// The parameter has a value (`false`) or none (`true`).
    Missing {
        /// The parameter.
        param: ParamNo,
        /// What is asked.
        missing: bool,
    },
    /// `subject:Patient.family=x`: the parameter refers to a resource of one of these types that meets the clause.
    Chain {
        /// The reference parameter.
        param: ParamNo,
        /// For each possible target type, the clause it must meet.
        targets: Vec<(ResourceType, Clause)>,
    },
    /// `_has:Observation:patient:code=x`: some resource of `source` refers here by `reference` and meets the clause.
    Has {
        /// The referring type.
        source: ResourceType,
        /// Its reference parameter.
        reference: ParamNo,
        /// What the referring resource must meet.
        clause: Box<Clause>,
    },
    /// `_id`: one of these.
    Id(Vec<String>),
    /// `_lastUpdated` in milliseconds.
    LastUpdated(DateTest),
    /// One of these holds.
    Any(Vec<Clause>),
    /// All of these hold.
    All(Vec<Clause>),
    /// The clause does not hold (`:not`, `:not-in`; also holds where there is no value).
    Not(Box<Clause>),
    /// The resource is in the compartment: some of these reference parameters refers to `owner/id`; for the owner's
    /// own type also the resource itself.
    Compartment {
        /// Compartment type, for example Patient.
        owner: ResourceType,
        /// Logical id of the owner.
        id: String,
        /// Parameters by which the type belongs to the compartment.
        params: Vec<ParamNo>,
        /// The searched type is the owner's own type.
        itself: bool,
    },
    /// Nothing can match.
    Never,
}

/// A test on one value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// `code`, `system|code`, `|code`, `system|`.
    Token(TokenTest),
    /// Display text starts with this, folded (`:text`).
    Text(String),
    /// `:of-type`.
    OfType {
        /// System of the identifier's type.
        system: String,
        /// Code of the identifier's type.
        code: String,
        /// Identifier value.
        value: String,
    },
    /// Folded prefix (the default), folded substring, or exact.
    String(StringTest),
    /// A reference to a resource of this server; no type = any type.
    Reference {
        /// Target type.
        target: Option<ResourceType>,
        /// Logical id.
        id: String,
    },
    /// A reference to a resource of this type, here or elsewhere (then the URL says the type before the id).
    ReferenceTo(ResourceType),
    /// A reference or canonical by its whole text; a canonical without version also matches any version.
    Url(String),
    /// `:identifier`.
    ReferenceIdentifier(TokenTest),
    /// A date test.
    Date(DateTest),
    /// A number test.
    Number(NumberTest),
    /// A quantity test.
    Quantity {
        /// On the value.
        number: NumberTest,
        /// Unit system; `None` = not tested.
        system: Option<String>,
        /// Unit code, or displayed unit when no system is given; `None` = not tested.
        code: Option<String>,
    },
    /// Exact URI, or one at or below it (`:below`), or one that is a prefix of it (`:above`).
    Uri(UriTest),
    /// One test for each component, in order.
    Tuple(Vec<Test>),
    /// One of a set of codes (`:in`, `:below`, `:above` on tokens): system and code.
    OneOf(std::sync::Arc<std::collections::HashSet<(String, String)>>),
}

/// A token test.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenTest {
    /// `code`: any system or none.
    Code(String),
    /// `system|code`.
    SystemCode(String, String),
    /// `|code`: no system.
    NoSystemCode(String),
    /// `system|`: any code of the system.
    System(String),
}

/// A string test; the text is already folded except for `Exact`.
#[derive(Clone, Debug, PartialEq)]
pub enum StringTest {
    /// Starts with.
    Prefix(String),
    /// Contains.
    Contains(String),
    /// Equals, case and accents too.
    Exact(String),
}

/// A URI test.
#[derive(Clone, Debug, PartialEq)]
pub enum UriTest {
    /// Equal.
    Exact(String),
    /// At or below this path.
    Below(String),
    /// This or one above it.
    Above(String),
}

/// Search prefixes of R4, section 2.1.1.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// The range of the search value fully contains the range of the target.
    Eq,
    /// Not [`Prefix::Eq`].
    Ne,
    /// The range above the search value intersects the target.
    Gt,
    /// The range below the search value intersects the target.
    Lt,
    /// Gt or Eq as the specification defines.
    Ge,
    /// Lt or Eq.
    Le,
    /// Starts after.
    Sa,
    /// Ends before.
    Eb,
    /// Approximately.
    Ap,
}

/// A date test: the search value as a range, `lo` inclusive, `hi` exclusive; for `Ap` already widened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DateTest {
    /// The prefix.
    pub prefix: Prefix,
    /// First millisecond.
    pub lo: i64,
    /// One past the last millisecond.
    pub hi: i64,
}

/// A number test: the exact value and its implicit precision range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NumberTest {
    /// The prefix.
    pub prefix: Prefix,
    /// The value itself: `gt lt ge le` are exact.
    pub value: f64,
    /// Inclusive lower end of the implicit range (`eq ne ap`).
    pub lo: f64,
    /// Exclusive upper end.
    pub hi: f64,
}

/// One key of `_sort`.
#[derive(Clone, Debug, PartialEq)]
pub struct SortKey {
    /// What is compared.
    pub by: SortBy,
    /// `-` before the name.
    pub descending: bool,
}

/// What a sort key compares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SortBy {
    /// A parameter's value: the least of several when ascending, the greatest when descending.
    Param(ParamNo),
    /// `_id`
    Id,
    /// `_lastUpdated`
    LastUpdated,
}

/// `_total`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// Not asked: given when cheap.
    Default,
    /// Not wanted.
    None,
    /// An estimate is enough (Keepwell gives the exact number).
    Estimate,
    /// Wanted.
    Accurate,
}

/// `_summary`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summary {
    /// Whole resources.
    False,
    /// Summary elements.
    True,
    /// Narrative, id, meta and mandatory elements.
    Text,
    /// All but the narrative.
    Data,
    /// Only the number.
    Count,
}

/// `_include` or `_revinclude`.
#[derive(Clone, Debug, PartialEq)]
pub struct Include {
    /// `_revinclude`.
    pub reverse: bool,
    /// `:iterate`.
    pub iterate: bool,
    /// The type that holds the reference.
    pub source: ResourceType,
    /// Its parameters; several for `*`.
    pub params: Vec<ParamNo>,
    /// Only targets of this type.
    pub target: Option<ResourceType>,
}

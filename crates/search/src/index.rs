//! The index in memory: which resources are there, their versions, and which of them a query matches.
//!
//! It is a pure function of the rows fed to [`Index::apply`] in the order of their rid, less those of homes that
//! were forgotten; nothing of it is stored but a sealed cache ([`Index::dump`]).
//!
//! **What is visible.** A reader asks as of a rid, `visible`. A row is current then when its rid is not above it and
//! no later row of the same resource is at or below it, and it is a [`RowKind::Version`]. So a writer may apply rows
//! before it publishes them, and a reader sees whole commits only.
//!
//! **Who sees what.** Every resource a search touches (the match, each link of a chain, each resource included) is
//! asked of `permit`; what it refuses is as if it were not there.

mod plain;

use keepwell_model::types::ResourceType;
use std::io::{self, Read, Write};

use crate::query::Query;
use crate::term::Extracted;

/// What policy needs to know of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowFacts {
    /// Row number in the log.
    pub rid: u64,
    /// Type of the resource.
    pub resource_type: ResourceType,
    /// The home: position of its key slot.
    pub slot: u32,
    /// Number of the row's set of security labels.
    pub labels: u16,
}

/// What a row says of its resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKind {
    /// A version with content.
    Version,
    /// The resource was deleted.
    Deleted,
    /// The resource left this home; its next version is under another. Not part of any history.
    Left,
}

/// A row of the log, to be indexed.
#[derive(Clone, Copy, Debug)]
pub struct NewRow<'a> {
    /// Row number; above that of every row applied before.
    pub rid: u64,
    /// Type of the resource.
    pub resource_type: ResourceType,
    /// Logical id.
    pub id: &'a str,
    /// Version number; a re-sealed copy repeats the number of its original and takes its place.
    pub version: u32,
    /// `meta.lastUpdated` in milliseconds.
    pub last_updated: i64,
    /// Content, deletion or departure.
    pub kind: RowKind,
    /// Position of the key slot.
    pub home: u32,
    /// Number of the set of security labels.
    pub labels: u16,
    /// Searchable values of a [`RowKind::Version`].
    pub extracted: Option<&'a Extracted<'a>>,
}

/// One version of a resource as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Row number.
    pub rid: u64,
    /// Type of the resource.
    pub resource_type: ResourceType,
    /// Version number.
    pub version: u32,
    /// `meta.lastUpdated` in milliseconds.
    pub last_updated: i64,
    /// Content, deletion or departure.
    pub kind: RowKind,
    /// Position of the key slot.
    pub home: u32,
    /// Number of the set of security labels.
    pub labels: u16,
}

impl Version {
    /// What policy is asked about.
    #[must_use]
    pub fn facts(&self) -> RowFacts {
        RowFacts { rid: self.rid, resource_type: self.resource_type, slot: self.home, labels: self.labels }
    }
}

/// Whose history is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// One resource.
    Instance(ResourceType, &'a str),
    /// All resources of a type.
    Type(ResourceType),
    /// All resources.
    System,
}

/// How much a search may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Matches on this page.
    pub page: usize,
    /// Included resources on this page.
    pub includes: usize,
}

/// One page of a search.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Matches in order.
    pub matches: Vec<Version>,
    /// Resources included for the matches of this page, none twice.
    pub included: Vec<Version>,
    /// Number of all matches, when asked for or cheap.
    pub total: Option<u64>,
    /// Where the next page starts, if there is one.
    pub next: Option<Cursor>,
    /// More resources would have been included than [`Limits::includes`] allows.
    pub truncated: bool,
}

/// A place between two matches. The pages after it show the matches as of the first page's `visible`, so that later
/// writes neither repeat nor skip one; what was deleted since is left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor {
    /// The point of the log the search is about.
    pub visible: u64,
    /// Sort values of the last match shown.
    pub keys: Vec<SortValue>,
    /// Its row.
    pub rid: u64,
}

/// A value matches are ordered by.
#[derive(Clone, Debug, PartialEq)]
pub enum SortValue {
    /// A date.
    Int(i64),
    /// A number or quantity.
    Float(f64),
    /// A folded string, code, reference, URI or id.
    Text(String),
    /// None; comes last in either direction.
    Missing,
}

/// A snapshot or cursor could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The source failed.
    #[error("the snapshot of the index could not be read")]
    Io(#[from] io::Error),
    /// Not what a dump writes, with the part that does not fit.
    #[error("the snapshot of the index is damaged: {0}")]
    Damaged(&'static str),
    /// A format this build does not know.
    #[error("the snapshot of the index has format `{0}`, which this build does not read")]
    Format(u32),
}

impl Cursor {
    /// Bytes to be sealed; see [`Cursor::from_bytes`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![1];
        out.extend(self.visible.to_le_bytes());
        out.extend(self.rid.to_le_bytes());
        for key in &self.keys {
            match key {
                SortValue::Int(v) => {
                    out.push(0);
                    out.extend(v.to_le_bytes());
                }
                SortValue::Float(v) => {
                    out.push(1);
                    out.extend(v.to_bits().to_le_bytes());
                }
                SortValue::Text(t) => {
                    out.push(2);
                    out.extend((t.len() as u64).to_le_bytes());
                    out.extend(t.as_bytes());
                }
                SortValue::Missing => out.push(3),
            }
        }
        out
    }

    /// Reads what [`Cursor::to_bytes`] wrote; anything else is `None`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        fn word(rest: &mut &[u8]) -> Option<u64> {
            let (head, tail) = rest.split_first_chunk::<8>()?;
            *rest = tail;
            Some(u64::from_le_bytes(*head))
        }
        let (version, mut rest) = bytes.split_first()?;
        if *version != 1 {
            return None;
        }
        let (visible, rid) = (word(&mut rest)?, word(&mut rest)?);
        let mut keys = Vec::new();
        while let Some((tag, tail)) = rest.split_first() {
            rest = tail;
            keys.push(match tag {
                0 => SortValue::Int(word(&mut rest)? as i64),
                1 => SortValue::Float(f64::from_bits(word(&mut rest)?)),
                2 => {
                    let len = usize::try_from(word(&mut rest)?).ok()?;
                    let (text, tail) = rest.split_at_checked(len)?;
                    rest = tail;
                    SortValue::Text(std::str::from_utf8(text).ok()?.to_owned())
                }
                3 => SortValue::Missing,
                _ => return None,
            });
        }
        Some(Self { visible, keys, rid })
    }
}

/// The index. One writer applies rows, many readers ask: the owner keeps it behind a lock.
pub struct Index {
    plain: plain::Plain,
}

impl Index {
    /// An empty index; `seed` keys its hash tables and comes from the system's randomness.
    #[must_use]
    pub fn new(_seed: [u8; 16]) -> Self {
        Self { plain: plain::Plain::default() }
    }

    /// Adds a row. Rows come in the order of their rid; a rid not above the last is ignored.
    pub fn apply(&mut self, row: &NewRow<'_>) {
        self.plain.apply(row);
    }

    /// The rid of the newest row applied (of any home, also a forgotten one).
    #[must_use]
    pub fn last_rid(&self) -> u64 {
        self.plain.last_rid()
    }

    /// The newest row of a resource as of `visible`: a version, a deletion, or a departure without a successor (its
    /// next home was forgotten), which reads as if it had never been but whose version number is taken.
    #[must_use]
    pub fn head(&self, resource_type: ResourceType, id: &str, visible: u64) -> Option<Version> {
        self.plain.head(resource_type, id, visible)
    }

    /// One version of a resource as of `visible`, by its number; departures are not versions.
    #[must_use]
    pub fn version(&self, resource_type: ResourceType, id: &str, version: u32, visible: u64) -> Option<Version> {
        self.history(Scope::Instance(resource_type, id), visible, None).find(|v| v.version == version)
    }

    /// Versions and deletions, newest first, as of `visible`, with a rid below `before` if given.
    pub fn history<'a>(
        &'a self,
        scope: Scope<'a>,
        visible: u64,
        before: Option<u64>,
    ) -> Box<dyn Iterator<Item = Version> + 'a> {
        self.plain.history(scope, visible, before)
    }

    /// The logical id of the resource a row is about.
    #[must_use]
    pub fn id_of(&self, resource_type: ResourceType, rid: u64) -> Option<String> {
        self.plain.id_of(resource_type, rid)
    }

    /// One page of the matches of `query`: as of `visible`, or of the cursor's point when going on `after` one.
    #[must_use]
    pub fn search(
        &self,
        query: &Query,
        visible: u64,
        permit: &dyn Fn(&RowFacts) -> bool,
        after: Option<&Cursor>,
        limits: Limits,
    ) -> Page {
        self.plain.search(query, visible, permit, after, limits)
    }

    /// Number of current resources of a type as of the newest row.
    #[must_use]
    pub fn count(&self, resource_type: ResourceType) -> u64 {
        self.plain.count(resource_type)
    }

    /// Drops every row of a home, as if none had ever been applied.
    pub fn forget_home(&mut self, home: u32) {
        self.plain.forget_home(home);
    }

    /// Frees what only superseded rows need. Afterwards a search as of a point before now may miss resources that
    /// changed since.
    pub fn compact(&mut self) {}

    /// Writes the index in canonical form: equal content gives equal bytes. Includes what [`Index::compact`] would
    /// leave.
    ///
    /// # Errors
    /// What `out` reports.
    pub fn dump(&self, _out: &mut dyn Write) -> io::Result<()> {
        Err(io::Error::other("the index has no snapshot yet"))
    }

    /// Reads a dump to its end.
    ///
    /// # Errors
    /// The source fails or does not hold a whole, undamaged dump.
    pub fn load(_seed: [u8; 16], _from: &mut dyn Read) -> Result<Self, LoadError> {
        Err(LoadError::Damaged("no snapshot yet"))
    }

    /// A digest of [`Index::dump`], to compare two indexes.
    #[must_use]
    pub fn canonical_digest(&self) -> [u8; 16] {
        [0; 16]
    }

    /// Estimate of the memory held, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.plain.bytes()
    }
}

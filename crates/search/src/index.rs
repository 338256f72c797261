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

mod columns;
mod eval;
mod hash;
mod intern;
mod keys;
mod plan;
mod postings;
mod ranges;
mod search;
mod shard;
mod snapshot;
mod sort;
mod values;

use hashbrown::{HashMap, HashSet};
use keepwell_model::types::ResourceType;
use std::collections::BinaryHeap;
use std::io::{self, Read, Write};

use hash::Keyed;
use intern::{Entities, NO_ROW, Strings};
use shard::Shard;
use values::Builder;

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
        RowFacts {
            rid: self.rid,
            resource_type: self.resource_type,
            slot: self.home,
            labels: self.labels,
        }
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
    seed: Keyed,
    seed_bytes: [u8; 16],
    strings: Strings,
    entities: Entities,
    classes: Classes,
    /// By the type's number.
    shards: Vec<Option<Box<Shard>>>,
    last_rid: u64,
    /// See [`Index::whole_from`].
    whole_from: u64,
    builder: Builder,
}

/// Combinations of home, labels and kind by number: a patient's rows share a few.
#[derive(Default)]
struct Classes {
    numbers: HashMap<(u32, u16, RowKind), u32>,
    list: Vec<(u32, u16, RowKind)>,
}

impl Classes {
    fn intern(&mut self, class: (u32, u16, RowKind)) -> u32 {
        *self.numbers.entry(class).or_insert_with(|| {
            self.list.push(class);
            self.list.len() as u32 - 1
        })
    }

    fn checked(&self, number: u32) -> Option<(u32, u16, RowKind)> {
        self.list.get(number as usize).copied()
    }

    fn get(&self, number: u32) -> (u32, u16, RowKind) {
        self.checked(number).unwrap_or((u32::MAX, 0, RowKind::Left))
    }

    fn len(&self) -> usize {
        self.list.len()
    }
}

/// Joins a row to its resource's others, by version. A departure stands before the version it makes room for, a
/// copy sealed again right behind its original: copies come with later rids, of the newest version or of older ones.
fn thread(shard: &mut Shard, entities: &mut Entities, classes: &Classes, entity: u32, row: u32) {
    let order = |shard: &Shard, row: u32| {
        let kind = shard.classes.get(row).map(|c| classes.get(*c).2);
        (shard.version(row), kind != Some(RowKind::Left))
    };
    let this = order(shard, row);
    let (mut before, mut after) = (entities.head(entity), None);
    while let Some(newer) = before.filter(|b| order(shard, *b) > this) {
        after = Some(newer);
        before = shard.previous.get(&newer).copied();
    }
    if let Some(before) = before {
        shard.link(before, row);
    }
    match after {
        Some(after) => shard.link(row, after),
        None => entities.set_head(entity, row),
    }
}

impl Index {
    /// An empty index; `seed` keys its hash tables and comes from the system's randomness.
    #[must_use]
    pub fn new(seed: [u8; 16]) -> Self {
        Self {
            seed: Keyed::new(seed),
            seed_bytes: seed,
            strings: Strings::new(),
            entities: Entities::new(),
            classes: Classes::default(),
            shards: ResourceType::all().map(|_| None).collect(),
            last_rid: 0,
            whole_from: 0,
            builder: Builder::default(),
        }
    }

    /// Adds a row. Rows come in the order of their rid; a rid not above the last is ignored.
    pub fn apply(&mut self, row: &NewRow<'_>) {
        if row.rid <= self.last_rid {
            return;
        }
        let Some(slot) = self.shards.get_mut(row.resource_type.index()) else {
            return;
        };
        self.last_rid = row.rid;
        let shard = slot.get_or_insert_with(|| Box::new(Shard::new()));
        let entity = self.entities.intern(self.seed, row.resource_type, row.id);
        let class = self.classes.intern((row.home, row.labels, row.kind));
        let number = shard.add(row.rid, entity, row.last_updated, class, row.version);
        if row.kind != RowKind::Version {
            shard.stale.insert(number);
        }
        thread(shard, &mut self.entities, &self.classes, entity, number);
        let extracted = row.extracted.filter(|_| row.kind == RowKind::Version);
        shard.add_values(
            self.seed,
            &mut self.strings,
            &mut self.entities,
            &mut self.builder,
            extracted,
        );
    }

    /// Notes a row that is not indexed: a blob, an own document, or one whose home was forgotten.
    pub fn skip(&mut self, rid: u64) {
        self.last_rid = self.last_rid.max(rid);
    }

    /// The rid of the newest row applied or skipped, of any home, also a forgotten one.
    #[must_use]
    pub fn last_rid(&self) -> u64 {
        self.last_rid
    }

    /// The first point of the log as of which a search finds all there was. What was superseded before it may have no
    /// searchable values any more ([`Index::compact`], [`Index::load`]), and what a forgotten home held with others
    /// stands in later rows: pages of a search from before would silently miss it.
    #[must_use]
    pub fn whole_from(&self) -> u64 {
        self.whole_from
    }

    /// The newest row of a resource as of `visible`: a version, a deletion, or a departure without a successor (its
    /// next home was forgotten), which reads as if it had never been but whose version number is taken.
    #[must_use]
    pub fn head(&self, resource_type: ResourceType, id: &str, visible: u64) -> Option<Version> {
        let shard = self.shard(resource_type)?;
        let entity = self.entities.find(self.seed, resource_type, id)?;
        self.version_at(resource_type, shard, self.row_at(shard, entity, visible)?)
    }

    /// One version of a resource as of `visible`, by its number; departures are not versions.
    #[must_use]
    pub fn version(&self, resource_type: ResourceType, id: &str, version: u32, visible: u64) -> Option<Version> {
        self.history(Scope::Instance(resource_type, id), visible, None)
            .find(|v| v.version == version)
    }

    /// When the resource's next version began, as of `visible`: `None` for the newest.
    #[must_use]
    pub fn until(&self, version: &Version, visible: u64) -> Option<i64> {
        let shard = self.shard(version.resource_type)?;
        let row = shard.row_of(version.rid)?;
        std::iter::successors(shard.next.get(&row), |row| shard.next.get(*row))
            .filter_map(|row| self.version_at(version.resource_type, shard, *row))
            .find(|next| next.rid <= visible && next.version > version.version)
            .map(|next| next.last_updated)
    }

    /// Every row of a home in the order of their rid: versions, deletions, departures.
    #[must_use]
    pub fn rows_of_home(&self, home: u32) -> Vec<u64> {
        let classes: HashSet<u32> = (0..)
            .zip(&self.classes.list)
            .filter(|(_, c)| c.0 == home)
            .map(|(n, _)| n)
            .collect();
        let mut rids = Vec::new();
        for shard in self.shards.iter().flatten() {
            let rows = (0..).zip(shard.classes.iter());
            let here = rows.filter(|(row, class)| classes.contains(*class) && !shard.forgotten.contains(*row));
            rids.extend(here.filter_map(|(row, _)| shard.rids.get(row)));
        }
        rids.sort_unstable();
        rids
    }

    /// Versions and deletions as of `visible`, with a rid below `before` if given: of one resource by version, else
    /// by rid, newest first.
    pub fn history<'a>(
        &'a self,
        scope: Scope<'_>,
        visible: u64,
        before: Option<u64>,
    ) -> Box<dyn Iterator<Item = Version> + 'a> {
        let last = before.map_or(visible, |b| visible.min(b.saturating_sub(1)));
        match scope {
            Scope::Instance(resource_type, id) => {
                let Some(shard) = self.shard(resource_type) else {
                    return Box::new(std::iter::empty());
                };
                let entity = self.entities.find(self.seed, resource_type, id);
                let head = entity.and_then(|e| self.entities.head(e));
                let rows = std::iter::successors(head, |row| shard.previous.get(row).copied());
                // By version: a copy sealed again later stands in its original's place, with a higher rid.
                let rows = rows.filter(move |row| shard.rids.get(*row).is_some_and(|rid| rid <= last));
                Box::new(rows.filter_map(move |row| self.past(resource_type, shard, row, visible)))
            }
            Scope::Type(resource_type) => Box::new(self.type_history(resource_type, visible, last)),
            Scope::System => {
                let mut each: Vec<_> = ResourceType::all()
                    .map(|t| Box::new(self.type_history(t, visible, last)))
                    .collect();
                let mut newest: BinaryHeap<(u64, usize)> = BinaryHeap::new();
                let mut held: Vec<Option<Version>> = Vec::new();
                for (at, one) in each.iter_mut().enumerate() {
                    let v = one.next();
                    newest.extend(v.map(|v| (v.rid, at)));
                    held.push(v);
                }
                Box::new(std::iter::from_fn(move || {
                    let (_, at) = newest.pop()?;
                    let next = each.get_mut(at)?.next();
                    newest.extend(next.map(|v| (v.rid, at)));
                    std::mem::replace(held.get_mut(at)?, next)
                }))
            }
        }
    }

    fn type_history(&self, resource_type: ResourceType, visible: u64, last: u64) -> impl Iterator<Item = Version> + '_ {
        self.shard(resource_type).into_iter().flat_map(move |shard| {
            (0..shard.rids.up_to(last))
                .rev()
                .filter(|row| shard.forgotten.is_empty() || !shard.forgotten.contains(*row))
                .filter_map(move |row| self.past(resource_type, shard, row, visible))
        })
    }

    /// The version a row is in its resource's history: none for a departure or a row re-sealed since.
    fn past(&self, resource_type: ResourceType, shard: &Shard, row: u32, visible: u64) -> Option<Version> {
        let version = self.version_at(resource_type, shard, row)?;
        let next = shard
            .next
            .get(&row)
            .and_then(|n| self.version_at(resource_type, shard, *n));
        let copied = next.is_some_and(|n| n.rid <= visible && n.version == version.version && n.kind == version.kind);
        (version.kind != RowKind::Left && !copied).then_some(version)
    }

    /// The logical id of the resource a row is about.
    #[must_use]
    pub fn id_of(&self, resource_type: ResourceType, rid: u64) -> Option<String> {
        let shard = self.shard(resource_type)?;
        let row = shard.row_of(rid).filter(|row| !shard.forgotten.contains(*row))?;
        Some(self.entities.id(*shard.entities.get(row)?))
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
        self.page(query, visible, permit, after, limits)
    }

    /// Number of current resources of a type as of the newest row.
    #[must_use]
    pub fn count(&self, resource_type: ResourceType) -> u64 {
        self.shard(resource_type).map_or(0, Shard::live)
    }

    /// Drops every row of a home, as if none had ever been applied. [`Index::compact`] then frees what they held.
    pub fn forget_home(&mut self, home: u32) {
        let classes: HashSet<u32> = (0..)
            .zip(&self.classes.list)
            .filter(|(_, c)| c.0 == home)
            .map(|(n, _)| n)
            .collect();
        for shard in self.shards.iter_mut().flatten() {
            let mut entities = HashSet::new();
            for (row, (class, entity)) in (0..).zip(shard.classes.iter().zip(shard.entities.iter())) {
                if classes.contains(class) && shard.forgotten.insert(row) {
                    self.whole_from = self.last_rid;
                    shard.stale.insert(row);
                    entities.insert(*entity);
                }
            }
            for entity in entities {
                let head = self.entities.head(entity);
                let mut rows: Vec<u32> = std::iter::successors(head, |row| shard.previous.get(row).copied()).collect();
                for row in &rows {
                    shard.next.remove(row);
                    shard.previous.remove(row);
                }
                rows.retain(|row| !shard.forgotten.contains(*row));
                rows.reverse();
                for (before, row) in rows.iter().zip(rows.iter().skip(1)) {
                    shard.link(*before, *row);
                }
                if let Some(last) = rows.last() {
                    let kind = shard.classes.get(*last).map(|c| self.classes.get(*c).2);
                    if kind == Some(RowKind::Version) {
                        shard.stale.remove(*last);
                    }
                }
                self.entities.set_head(entity, rows.last().copied().unwrap_or(NO_ROW));
            }
        }
    }

    /// Frees what only superseded and forgotten rows need. Afterwards a search as of a point before now may miss
    /// resources that changed since. Takes as long as [`Index::dump`] and [`Index::load`] together.
    pub fn compact(&mut self) {
        let mut bytes = Vec::new();
        if self.dump(&mut bytes).is_ok()
            && let Ok(compact) = Self::load(self.seed_bytes, &mut bytes.as_slice())
        {
            *self = compact;
        }
    }

    /// Writes the index in canonical form: equal content gives equal bytes. Holds what [`Index::compact`] would leave.
    ///
    /// # Errors
    /// What `out` reports.
    pub fn dump(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write(out)
    }

    /// Reads a dump and nothing beyond its end.
    ///
    /// # Errors
    /// The source fails or does not hold a whole, undamaged dump.
    pub fn load(seed: [u8; 16], from: &mut dyn Read) -> Result<Self, LoadError> {
        Self::read(seed, from)
    }

    /// A digest of [`Index::dump`], to compare two indexes.
    #[must_use]
    pub fn canonical_digest(&self) -> [u8; 16] {
        let mut digest = snapshot::Digest::new();
        // The digest takes whatever is written.
        let _ = self.write(&mut digest);
        digest.finish()
    }

    /// Estimate of the memory held, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes_by_part().iter().map(|(_, n)| n).sum()
    }

    /// Estimate of the memory held by each part of the index.
    #[must_use]
    pub fn bytes_by_part(&self) -> Vec<(&'static str, usize)> {
        let mut parts = vec![
            ("texts", self.strings.bytes()),
            ("resources", self.entities.bytes()),
            (
                "classes",
                self.classes.list.capacity() * 12 + self.classes.numbers.allocation_size(),
            ),
        ];
        for shard in self.shards.iter().flatten() {
            for (name, bytes) in shard.bytes() {
                match parts.iter_mut().find(|(n, _)| *n == name) {
                    Some((_, sum)) => *sum += bytes,
                    None => parts.push((name, bytes)),
                }
            }
        }
        parts
    }

    fn shard(&self, resource_type: ResourceType) -> Option<&Shard> {
        self.shards.get(resource_type.index())?.as_deref()
    }

    /// The newest row of a resource as of `visible`.
    fn row_at(&self, shard: &Shard, entity: u32, visible: u64) -> Option<u32> {
        let mut row = self.entities.head(entity)?;
        while shard.rids.get(row)? > visible {
            row = *shard.previous.get(&row)?;
        }
        Some(row)
    }

    fn version_at(&self, resource_type: ResourceType, shard: &Shard, row: u32) -> Option<Version> {
        let (home, labels, kind) = self.classes.get(*shard.classes.get(row)?);
        Some(Version {
            rid: shard.rids.get(row)?,
            resource_type,
            version: shard.version(row),
            last_updated: shard.updated.get(row)? as i64,
            kind,
            home,
            labels,
        })
    }
}

//! The rows of one type: what is known of each, and which rows have which value.
//!
//! A row's number is its place among the rows of its type, so postings grow at their end only.

use super::columns::{Blobs, Column, Wide};
use super::hash::{Keyed, Table};
use super::intern::{Entities, Strings};
use super::keys::{Key, Keys, Kind, Unit};
use super::postings::Posting;
use super::ranges::{Buckets, Dates, number_bucket};
use super::values::{Builder, Number, Part, Values, put_tuple};
use crate::term::{Extracted, Term};
use roaring::RoaringBitmap;
use std::collections::BTreeMap;

/// One type's rows and values.
pub struct Shard {
    pub rids: Wide,
    pub entities: Column<u32>,
    pub updated: Wide,
    /// Home, labels and kind, by the number of the combination.
    pub classes: Column<u32>,
    /// Version numbers other than 1.
    pub versions: BTreeMap<u32, u32>,
    /// The next row of the same resource.
    pub next: BTreeMap<u32, u32>,
    /// The row before of the same resource.
    pub previous: BTreeMap<u32, u32>,
    /// Rows that are not the current version of their resource.
    pub stale: RoaringBitmap,
    /// Rows as if they had never been.
    pub forgotten: RoaringBitmap,
    /// Packed values of each row.
    pub values: Blobs,
    pub keys: Keys,
    /// References only one row has: the row and the place among its references, see [`single`].
    singles: Table<u32>,
    /// By parameter, the rows that have a value.
    present: Vec<Posting>,
    pub dates: BTreeMap<u16, Dates>,
    pub numbers: BTreeMap<u16, Buckets>,
}

/// Rows that refer to a resource by a parameter.
pub enum Referrers<'a> {
    /// None.
    Nobody,
    /// One row.
    One(u32),
    /// Several.
    Many(&'a Posting),
}

impl Referrers<'_> {
    pub fn len(&self) -> usize {
        match self {
            Self::Nobody => 0,
            Self::One(_) => 1,
            Self::Many(p) => p.len(),
        }
    }

    pub fn extend_into(&self, out: &mut Vec<u32>) {
        match self {
            Self::Nobody => {}
            Self::One(row) => out.push(*row),
            Self::Many(p) => p.extend_into(out),
        }
    }
}

impl Shard {
    pub fn new() -> Self {
        Self {
            rids: Wide::default(),
            entities: Column::default(),
            updated: Wide::default(),
            classes: Column::default(),
            versions: BTreeMap::new(),
            next: BTreeMap::new(),
            previous: BTreeMap::new(),
            stale: RoaringBitmap::new(),
            forgotten: RoaringBitmap::new(),
            values: Blobs::default(),
            keys: Keys::new(),
            singles: Table::new(16),
            present: Vec::new(),
            dates: BTreeMap::new(),
            numbers: BTreeMap::new(),
        }
    }

    pub fn len(&self) -> u32 {
        self.entities.len()
    }

    pub fn version(&self, row: u32) -> u32 {
        if self.versions.is_empty() {
            1
        } else {
            self.versions.get(&row).copied().unwrap_or(1)
        }
    }

    /// Number of current resources.
    pub fn live(&self) -> u64 {
        u64::from(self.len()) - self.stale.len()
    }

    #[inline]
    pub fn values(&self, row: u32) -> Values<'_> {
        Values::new(self.values.get(row).unwrap_or_default())
    }

    /// The row with that rid.
    pub fn row_of(&self, rid: u64) -> Option<u32> {
        let row = self.rids.up_to(rid).checked_sub(1)?;
        (self.rids.get(row) == Some(rid)).then_some(row)
    }

    /// Adds a row and gives its number; its values follow with [`Shard::add_values`].
    pub fn add(&mut self, rid: u64, entity: u32, last_updated: i64, class: u32, version: u32) -> u32 {
        self.rids.push(rid);
        let row = self.entities.push(entity);
        self.updated.push(last_updated as u64);
        self.classes.push(class);
        if version != 1 {
            self.versions.insert(row, version);
        }
        row
    }

    /// Says that `row` follows `before` as a row of the same resource.
    pub fn link(&mut self, before: u32, row: u32) {
        self.next.insert(before, row);
        self.previous.insert(row, before);
        self.stale.insert(before);
    }

    /// Packs and posts the values of the newest row.
    pub fn add_values(
        &mut self,
        seed: Keyed,
        strings: &mut Strings,
        entities: &mut Entities,
        builder: &mut Builder,
        extracted: Option<&Extracted<'_>>,
    ) {
        builder.clear();
        for (param, term) in extracted.map_or(&[][..], |e| e.terms.as_slice()) {
            self.take_in(seed, strings, entities, builder, param.0, term);
        }
        builder.dedup();
        let row = self.values.push(builder.pack());
        self.post(seed, strings, entities.len(), row);
        self.post_dates(row, &mut builder.dates);
    }

    fn take_in(
        &mut self,
        seed: Keyed,
        strings: &mut Strings,
        entities: &mut Entities,
        b: &mut Builder,
        param: u16,
        term: &Term<'_>,
    ) {
        match term {
            Term::Reference { target, id } => b.refs.push((param, entities.intern(seed, *target, id))),
            Term::Date { lo, hi } => b.dates.push((param, *lo, *hi)),
            Term::Number { lo, hi } => b.numbers.push(Number {
                param,
                unit: None,
                lo: *lo,
                hi: *hi,
            }),
            Term::Quantity { lo, hi, .. } => {
                let unit = self.intern(seed, strings, param, term);
                b.numbers.push(Number {
                    param,
                    unit,
                    lo: *lo,
                    hi: *hi,
                });
            }
            Term::Tuple(components) => {
                let parts: Vec<Vec<Part>> = components
                    .iter()
                    .map(|terms| {
                        terms
                            .iter()
                            .filter_map(|t| self.part(seed, strings, entities, param, t))
                            .collect()
                    })
                    .collect();
                put_tuple(&mut b.tuples, param, &parts);
            }
            _ => b.keys.extend(self.intern(seed, strings, param, term)),
        }
    }

    fn part(
        &mut self,
        seed: Keyed,
        strings: &mut Strings,
        entities: &mut Entities,
        param: u16,
        term: &Term<'_>,
    ) -> Option<Part> {
        Some(match term {
            Term::Reference { target, id } => Part::Ref(entities.intern(seed, *target, id)),
            Term::Date { lo, hi } => Part::Date(*lo, *hi),
            Term::Number { lo, hi } => Part::Number(None, *lo, *hi),
            Term::Quantity { lo, hi, .. } => Part::Number(self.intern(seed, strings, param, term), *lo, *hi),
            Term::Tuple(_) => return None,
            _ => Part::Key(self.intern(seed, strings, param, term)?),
        })
    }

    /// The key of a value that is held by key.
    fn intern(&mut self, seed: Keyed, strings: &mut Strings, param: u16, term: &Term<'_>) -> Option<u32> {
        let joined;
        let (kind, text, second): (Kind, &str, Option<&str>) = match term {
            Term::Token { system, code } => (Kind::Token, code, system.as_deref()),
            Term::Text(t) => (Kind::Text, t, None),
            Term::Str(t) => (Kind::Str, t, None),
            Term::OfType { system, code, value } => {
                joined = type_text(system, code);
                (Kind::OfType, value, Some(&joined))
            }
            Term::Url(t) => (Kind::Url, t, None),
            Term::Uri(t) => (Kind::Uri, t, None),
            Term::ReferenceIdentifier { system, value } => (Kind::RefIdentifier, value, system.as_deref()),
            Term::Quantity { system, code, unit, .. } => {
                let unit = Unit {
                    system: system.as_deref(),
                    code: code.as_deref(),
                    unit: unit.as_deref(),
                };
                joined = unit.join();
                (Kind::Unit, &joined, None)
            }
            _ => return None,
        };
        Some(self.keys.intern(seed, strings, kind, param, text, second))
    }

    /// Enters the packed values of a row, the newest so far, in the postings. False if they name a key that is not
    /// there or a resource not below `entities`.
    pub fn post(&mut self, seed: Keyed, strings: &Strings, entities: u32, row: u32) -> bool {
        let values = Values::new(self.values.get(row).unwrap_or_default());
        let mut sound = true;
        for key in values.keys() {
            match self.keys.get(key) {
                Some(k) => present(&mut self.present, k.param, row),
                None => sound = false,
            }
            self.keys.push(key, row);
        }
        for (place, (param, entity)) in (0..).zip(values.refs()) {
            sound &= entity < entities;
            present(&mut self.present, param, row);
            post_ref(
                &mut self.keys,
                &mut self.singles,
                &self.values,
                seed,
                strings,
                (param, entity),
                (row, place),
            );
        }
        for n in values.numbers() {
            sound &= n.unit.is_none_or(|u| u < self.keys.len());
            present(&mut self.present, n.param, row);
            let (class, bucket) = number_bucket(n.lo, n.hi);
            self.numbers.entry(n.param).or_default().push(class, bucket, row);
        }
        for (param, tuple) in values.tuples() {
            present(&mut self.present, param, row);
            for part in tuple.components().flatten() {
                match part {
                    Part::Key(key) => {
                        sound &= key < self.keys.len();
                        self.keys.push(key, row);
                    }
                    Part::Ref(entity) => sound &= entity < entities,
                    Part::Number(Some(unit), ..) => sound &= unit < self.keys.len(),
                    Part::Number(None, ..) | Part::Date(..) => {}
                }
            }
        }
        sound
    }

    /// Enters the dates of a row, the newest so far.
    pub fn post_dates(&mut self, row: u32, dates: &mut [(u16, i64, i64)]) {
        dates.sort_by_key(|(p, ..)| *p);
        for group in dates.chunk_by(|a, b| a.0 == b.0) {
            let Some((param, lo, hi)) = group.first().copied() else {
                continue;
            };
            present(&mut self.present, param, row);
            let column = self.dates.entry(param).or_default();
            if group.len() == 1 {
                column.push(row, &[(lo, hi)]);
            } else {
                let list: Vec<(i64, i64)> = group.iter().map(|(_, lo, hi)| (*lo, *hi)).collect();
                column.push(row, &list);
            }
        }
    }

    /// The rows that refer to a resource by a parameter.
    pub fn referrers(&self, seed: Keyed, param: u16, entity: u32) -> Referrers<'_> {
        let hash = seed.words(u64::from(param), u64::from(entity));
        if let Some(rows) = self.keys.find_ref(hash, param, entity).and_then(|k| self.keys.rows(k)) {
            return Referrers::Many(rows);
        }
        match self
            .singles
            .find(hash, |s| ref_of(&self.values, s) == Some((param, entity)))
        {
            Some(s) => Referrers::One(s >> PLACE_BITS),
            None => Referrers::Nobody,
        }
    }

    /// The rows with a value of the parameter.
    pub fn present(&self, param: u16) -> Option<&Posting> {
        self.present.get(usize::from(param))
    }

    pub fn shrink(&mut self) {
        self.rids.shrink();
        self.entities.shrink();
        self.updated.shrink();
        self.classes.shrink();
        self.values.shrink();
        self.keys.shrink();
        self.present.iter_mut().for_each(Posting::shrink);
        self.dates.values_mut().for_each(Dates::shrink);
        self.numbers.values_mut().for_each(Buckets::shrink);
    }

    /// Memory by part, for the bench and the metrics.
    pub fn bytes(&self) -> [(&'static str, usize); 7] {
        let links = (self.versions.len() + self.next.len() + self.previous.len()) * 12;
        [
            (
                "rows",
                self.rids.bytes() + self.entities.bytes() + self.updated.bytes() + self.classes.bytes() + links,
            ),
            ("values", self.values.bytes()),
            ("keys", self.keys.bytes()),
            ("singles", self.singles.bytes()),
            ("present", self.present.iter().map(|p| 24 + p.bytes()).sum()),
            ("dates", self.dates.values().map(Dates::bytes).sum()),
            ("numbers", self.numbers.values().map(Buckets::bytes).sum()),
        ]
    }
}

/// System and code of an identifier's type as the second text of a [`Kind::OfType`] key.
pub fn type_text(system: &str, code: &str) -> String {
    format!("{system}\u{0}{code}")
}

fn present(all: &mut Vec<Posting>, param: u16, row: u32) {
    let at = usize::from(param);
    if all.len() <= at {
        all.resize_with(at + 1, Posting::default);
    }
    if let Some(p) = all.get_mut(at) {
        p.push(row);
    }
}

const PLACE_BITS: u32 = 6;

/// A row and the place of a reference in it as one number, if both are small enough.
fn single(row: u32, place: u32) -> Option<u32> {
    (place < 1 << PLACE_BITS && row < 1 << (32 - PLACE_BITS)).then_some(row << PLACE_BITS | place)
}

fn ref_of(values: &Blobs, single: u32) -> Option<(u16, u32)> {
    let place = single & ((1 << PLACE_BITS) - 1);
    Values::new(values.get(single >> PLACE_BITS)?)
        .refs()
        .nth(place as usize)
}

/// A resource only one row refers to costs four bytes here; its key and list come with the second row.
fn post_ref(
    keys: &mut Keys,
    singles: &mut Table<u32>,
    values: &Blobs,
    seed: Keyed,
    strings: &Strings,
    (param, entity): (u16, u32),
    (row, place): (u32, u32),
) {
    let hash = |p: u16, e: u32| seed.words(u64::from(p), u64::from(e));
    let h = hash(param, entity);
    if let Some(key) = keys.find_ref(h, param, entity) {
        keys.push(key, row);
        return;
    }
    let is = |s| ref_of(values, s) == Some((param, entity));
    let before = singles.find(h, is);
    if before.is_some_and(|s| s >> PLACE_BITS == row) {
        return;
    }
    if before.is_none()
        && let Some(s) = single(row, place)
    {
        singles.insert(h, s, |s| ref_of(values, s).map_or(0, |(p, e)| hash(p, e)));
        return;
    }
    let key = keys.add(
        seed,
        strings,
        Key {
            param,
            kind: Kind::Ref,
            text: entity,
            second: 0,
        },
    );
    if let Some(s) = before {
        singles.remove(h, is);
        keys.push(key, s >> PLACE_BITS);
    }
    keys.push(key, row);
}

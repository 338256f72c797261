//! The distinct values of a type's parameters, each with the rows that have it.

use super::columns::Column;
use super::hash::{Keyed, Table};
use super::intern::Strings;
use super::postings::Posting;
use crate::term::fold;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// What sort of value a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Code, and the system if any.
    Token = 0,
    /// Display text.
    Text = 1,
    /// A string.
    Str = 2,
    /// An identifier's value, and its type as system and code.
    OfType = 3,
    /// A reference to elsewhere or a canonical.
    Url = 4,
    /// A URI.
    Uri = 5,
    /// The identifier of a reference: value, and the system if any.
    RefIdentifier = 6,
    /// A unit of quantities: see [`Unit`]. Has no rows of its own.
    Unit = 7,
    /// A resource that two or more rows refer to, by its number.
    Ref = 8,
}

impl Kind {
    pub fn from_code(code: u8) -> Option<Self> {
        use Kind::*;
        [Token, Text, Str, OfType, Url, Uri, RefIdentifier, Unit, Ref]
            .into_iter()
            .find(|k| *k as u8 == code)
    }

    /// Whether keys of this kind are also held in the order of their text.
    fn ordered(self) -> bool {
        matches!(self, Self::Text | Self::Str | Self::Url | Self::Uri)
    }
}

/// One distinct value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub param: u16,
    pub kind: Kind,
    /// The text's number; for [`Kind::Ref`] the resource's.
    pub text: u32,
    /// One more than the number of a second text; 0 = none.
    pub second: u32,
}

impl Key {
    pub fn second_text(self, strings: &Strings) -> Option<&str> {
        self.second.checked_sub(1).map(|n| strings.text(n))
    }
}

/// The keys of one type.
pub struct Keys {
    keys: Column<Key>,
    rows: Column<Posting>,
    table: Table<u32>,
    ordered: BTreeMap<(Kind, u16), Ordered>,
}

/// Keys in the order of their texts.
type Ordered = BTreeSet<(Box<str>, u32)>;

fn hash(seed: Keyed, kind: Kind, param: u16, text: &[u8]) -> u64 {
    seed.bytes(u64::from(kind as u8) << 16 | u64::from(param), text)
}

fn hash_of(seed: Keyed, strings: &Strings, keys: &Column<Key>, number: u32) -> u64 {
    match keys.get(number) {
        Some(k) if k.kind == Kind::Ref => seed.words(u64::from(k.param), u64::from(k.text)),
        Some(k) => hash(seed, k.kind, k.param, strings.bytes_of(k.text)),
        None => 0,
    }
}

impl Keys {
    pub fn new() -> Self {
        Self {
            keys: Column::default(),
            rows: Column::default(),
            table: Table::new(16),
            ordered: BTreeMap::new(),
        }
    }

    pub fn len(&self) -> u32 {
        self.keys.len()
    }

    pub fn get(&self, key: u32) -> Option<Key> {
        self.keys.get(key).copied()
    }

    pub fn rows(&self, key: u32) -> Option<&Posting> {
        self.rows.get(key)
    }

    pub fn push(&mut self, key: u32, row: u32) {
        if let Some(p) = self.rows.get_mut(key) {
            p.push(row);
        }
    }

    /// Keys with that text, whatever their second.
    pub fn with_text<'a>(
        &'a self,
        seed: Keyed,
        strings: &'a Strings,
        kind: Kind,
        param: u16,
        text: &'a str,
    ) -> impl Iterator<Item = (u32, Key)> + 'a {
        self.table
            .candidates(hash(seed, kind, param, text.as_bytes()))
            .filter_map(move |n| {
                let k = self.get(n)?;
                (k.kind == kind && k.param == param && strings.bytes_of(k.text) == text.as_bytes()).then_some((n, k))
            })
    }

    pub fn find(
        &self,
        seed: Keyed,
        strings: &Strings,
        kind: Kind,
        param: u16,
        text: &str,
        second: Option<&str>,
    ) -> Option<u32> {
        let mut with = self.with_text(seed, strings, kind, param, text);
        with.find(|(_, k)| k.second_text(strings) == second).map(|(n, _)| n)
    }

    pub fn intern(
        &mut self,
        seed: Keyed,
        strings: &mut Strings,
        kind: Kind,
        param: u16,
        text: &str,
        second: Option<&str>,
    ) -> u32 {
        if let Some(n) = self.find(seed, strings, kind, param, text, second) {
            return n;
        }
        let text = strings.intern(seed, text);
        let second = second.map_or(0, |s| strings.intern(seed, s) + 1);
        let key = self.add(
            seed,
            strings,
            Key {
                param,
                kind,
                text,
                second,
            },
        );
        self.order(strings, key);
        key
    }

    /// Adds a key known to be new; [`Keys::order`] is still to come.
    pub fn add(&mut self, seed: Keyed, strings: &Strings, key: Key) -> u32 {
        let n = self.keys.push(key);
        self.rows.push(Posting::default());
        let keys = &self.keys;
        let rehash = |n| hash_of(seed, strings, keys, n);
        self.table.insert(rehash(n), n, rehash);
        n
    }

    /// Holds a key whose text is not known yet: [`Keys::fill`] follows.
    pub fn hold(&mut self, key: Key) {
        self.keys.push(key);
    }

    /// Makes the table and the ordered lists of the keys held. `None` if a text is not there.
    pub fn fill(&mut self, seed: Keyed, strings: &Strings) -> Option<()> {
        let keys = &self.keys;
        self.table
            .reserve(keys.len() as usize, |n| hash_of(seed, strings, keys, n));
        for (n, k) in (0..).zip(keys.iter()) {
            if k.text >= strings.len() || k.second > strings.len() {
                return None;
            }
            self.rows.push(Posting::default());
            self.table
                .insert(hash_of(seed, strings, keys, n), n, |n| hash_of(seed, strings, keys, n));
        }
        self.order_all(strings);
        Some(())
    }

    fn order(&mut self, strings: &Strings, number: u32) {
        let Some(k) = self.get(number) else { return };
        if k.kind.ordered() {
            let text = ordered_text(k.kind, strings.text(k.text));
            self.ordered
                .entry((k.kind, k.param))
                .or_default()
                .insert((text, number));
        }
    }

    /// Makes the ordered lists of all keys at once.
    fn order_all(&mut self, strings: &Strings) {
        let mut all: Vec<_> = (0..)
            .zip(self.keys.iter())
            .filter(|(_, k)| k.kind.ordered())
            .map(|(n, k)| ((k.kind, k.param), (ordered_text(k.kind, strings.text(k.text)), n)))
            .collect();
        all.sort_unstable();
        for (of, entry) in all {
            self.ordered.entry(of).or_default().insert(entry);
        }
    }

    pub fn find_ref(&self, hash: u64, param: u16, entity: u32) -> Option<u32> {
        self.table.find(hash, |n| {
            self.get(n)
                .is_some_and(|k| k.kind == Kind::Ref && k.param == param && k.text == entity)
        })
    }

    /// Keys of a parameter whose (folded) text starts with `prefix`.
    pub fn with_prefix<'a>(&'a self, kind: Kind, param: u16, prefix: &'a str) -> impl Iterator<Item = u32> + 'a {
        let from = Bound::Included((Box::<str>::from(prefix), 0));
        self.ordered
            .get(&(kind, param))
            .into_iter()
            .flat_map(move |set| set.range((from.clone(), Bound::Unbounded)))
            .take_while(move |(text, _)| text.starts_with(prefix))
            .map(|(_, n)| *n)
    }

    /// Keys of a parameter and their (folded) texts, in order.
    pub fn in_order(&self, kind: Kind, param: u16) -> impl DoubleEndedIterator<Item = (&str, u32)> {
        self.ordered
            .get(&(kind, param))
            .into_iter()
            .flatten()
            .map(|(text, n)| (text.as_ref(), *n))
    }

    /// All keys of a kind and parameter, in no particular order.
    pub fn all(&self, kind: Kind, param: u16) -> impl Iterator<Item = (u32, Key)> + '_ {
        (0..)
            .zip(self.keys.iter())
            .filter(move |(_, k)| k.kind == kind && k.param == param)
            .map(|(n, k)| (n, *k))
    }

    pub fn shrink(&mut self) {
        self.keys.shrink();
        self.rows.shrink();
        self.rows.iter_mut().for_each(Posting::shrink);
    }

    pub fn bytes(&self) -> usize {
        let ordered: usize = self.ordered.values().flatten().map(|(t, _)| 40 + t.len()).sum();
        let heap: usize = self.rows.iter().map(Posting::bytes).sum();
        self.keys.bytes() + self.rows.bytes() + heap + self.table.bytes() + ordered
    }
}

fn ordered_text(kind: Kind, text: &str) -> Box<str> {
    match kind {
        Kind::Str | Kind::Text => fold(text).into_boxed_str(),
        _ => text.into(),
    }
}

/// System, code and displayed unit of a quantity, joined into the text of a [`Kind::Unit`] key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit<'a> {
    pub system: Option<&'a str>,
    pub code: Option<&'a str>,
    pub unit: Option<&'a str>,
}

impl<'a> Unit<'a> {
    /// Each part after a mark that it is there, ended by a character that JSON text cannot hold unescaped in URIs.
    pub fn join(self) -> String {
        let mut out = String::new();
        for part in [self.system, self.code, self.unit] {
            if let Some(p) = part {
                out.push('+');
                out.push_str(&p.replace('\u{0}', " "));
            }
            out.push('\u{0}');
        }
        out
    }

    pub fn split(text: &'a str) -> Self {
        let mut parts = text.split('\u{0}').map(|p| p.strip_prefix('+'));
        let mut next = || parts.next().flatten();
        Self {
            system: next(),
            code: next(),
            unit: next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_join_and_split() {
        for u in [
            Unit {
                system: None,
                code: None,
                unit: None,
            },
            Unit {
                system: Some("http://unitsofmeasure.org"),
                code: Some("mg"),
                unit: Some("mg"),
            },
            Unit {
                system: None,
                code: Some(""),
                unit: Some("+"),
            },
        ] {
            assert_eq!(Unit::split(&u.join()), u);
        }
    }

    #[test]
    fn tokens_of_one_code_are_found_together() {
        let (seed, mut strings, mut keys) = (Keyed::new([1; 16]), Strings::new(), Keys::new());
        let a = keys.intern(seed, &mut strings, Kind::Token, 1, "x", Some("s"));
        let b = keys.intern(seed, &mut strings, Kind::Token, 1, "x", None);
        let c = keys.intern(seed, &mut strings, Kind::Token, 2, "x", None);
        assert_eq!(keys.intern(seed, &mut strings, Kind::Token, 1, "x", Some("s")), a);
        let mut both: Vec<u32> = keys
            .with_text(seed, &strings, Kind::Token, 1, "x")
            .map(|(n, _)| n)
            .collect();
        both.sort_unstable();
        assert_eq!(both, [a, b]);
        assert_eq!(keys.find(seed, &strings, Kind::Token, 2, "x", None), Some(c));
    }

    #[test]
    fn prefixes_are_folded() {
        let (seed, mut strings, mut keys) = (Keyed::new([1; 16]), Strings::new(), Keys::new());
        for t in ["Müller", "MULLIGAN", "Mu", "Nobody"] {
            keys.intern(seed, &mut strings, Kind::Str, 1, t, None);
        }
        assert_eq!(keys.with_prefix(Kind::Str, 1, "mull").count(), 2);
        assert_eq!(keys.with_prefix(Kind::Str, 1, "").count(), 4);
        assert_eq!(keys.with_prefix(Kind::Str, 2, "").count(), 0);
    }
}

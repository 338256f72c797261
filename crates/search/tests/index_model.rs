//! The index against a plain scan of all rows, under random writes, erasures and questions.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_arguments,
    reason = "a test program"
)]

mod index_oracle;

use index_oracle::Plain;
use keepwell_model::types::ResourceType;
use keepwell_search::index::{Cursor, Index, Limits, NewRow, RowFacts, RowKind, Scope, Version};
use keepwell_search::query::{
    Clause, DateTest, Include, NumberTest, Prefix, Query, SortBy, SortKey, StringTest, Summary, Test, TokenTest, Total,
    UriTest,
};
use keepwell_search::term::{Extracted, ParamNo, Term, fold};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// SplitMix64: the same numbers for the same seed.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}

const TOKEN: ParamNo = ParamNo(0);
const STRING: ParamNo = ParamNo(1);
const REFERENCE: ParamNo = ParamNo(2);
const OTHER_REFERENCE: ParamNo = ParamNo(3);
const DATE: ParamNo = ParamNo(4);
const QUANTITY: ParamNo = ParamNo(5);
const NUMBER: ParamNo = ParamNo(6);
const URI: ParamNo = ParamNo(7);
const URL: ParamNo = ParamNo(8);
const TUPLE: ParamNo = ParamNo(9);
const ALL: [ParamNo; 10] = [
    TOKEN,
    STRING,
    REFERENCE,
    OTHER_REFERENCE,
    DATE,
    QUANTITY,
    NUMBER,
    URI,
    URL,
    TUPLE,
];

const SYSTEMS: [&str; 3] = ["http://loinc.org", "urn:s", ""];
const CODES: [&str; 5] = ["a", "b", "final", "8480-6", "x|y"];
const TEXTS: [&str; 7] = ["Müller", "muller", "MULLIGAN", "Straße", "Ann", "anna", "Zoë 12"];
const URIS: [&str; 7] = [
    "http://acme.org/fhir/Patient/a",
    "http://acme.org/fhir",
    "http://acme.org/fhir/ValueSet",
    "http://acme.org/fhir/ValueSet/1",
    "http://acme.org/fhirx",
    "urn:oid:1.2",
    "http://acme.org/fhir/ValueSet/1|2.0",
];
const UNITS: [(Option<&str>, Option<&str>, Option<&str>); 4] = [
    (Some("http://unitsofmeasure.org"), Some("mg"), Some("mg")),
    (Some("http://unitsofmeasure.org"), Some("mm[Hg]"), Some("mmHg")),
    (None, None, Some("mg")),
    (None, None, None),
];
const IDS: [&str; 8] = [
    "p1",
    "p2",
    "0a1b2c3d-4e5f-6789-abcd-ef0123456789",
    "0a1b2c3d-4e5f-6789-abcd-ef0123456780",
    "a-longer-id.of-20-chars",
    "o7",
    "A",
    "z",
];
const DAY: i64 = 86_400_000;

fn types() -> [ResourceType; 3] {
    ["Patient", "Observation", "Encounter"].map(|n| ResourceType::from_name(n).unwrap())
}

fn date_range(r: &mut Rng) -> (i64, i64) {
    let lo = match r.below(20) {
        0 => i64::MIN,
        1 => -62_000_000_000_000 + r.below(1000) as i64,
        _ => 1_500_000_000_000 / DAY * DAY + r.below(60) as i64 * DAY + [0, 1, 43_200_000][r.below(3)],
    };
    let length = [0, 1, 1000, 60_000, DAY, 3 * DAY + 1, 31 * DAY, 400 * DAY, 5000 * DAY][r.below(9)];
    (
        lo,
        if r.chance(8) {
            i64::MAX
        } else {
            lo.saturating_add(length)
        },
    )
}

fn number_range(r: &mut Rng) -> (f64, f64) {
    let lo = [0.0, -1.5, 1.0, 5.4, 5.35, 98.6, 100.0, 1e9, 120.0, 1.0 / 3.0][r.below(10)];
    match r.below(8) {
        0 => (lo, lo + 10.0),
        1 => (f64::NEG_INFINITY, lo),
        _ => (lo, lo),
    }
}

fn token(r: &mut Rng) -> Term<'static> {
    let system = Some(r.pick(&SYSTEMS)).filter(|s| !s.is_empty());
    Term::Token {
        system: system.map(Into::into),
        code: r.pick(&CODES).into(),
    }
}

fn quantity(r: &mut Rng) -> Term<'static> {
    let (lo, hi) = number_range(r);
    let (system, code, unit) = UNITS[r.below(4)];
    Term::Quantity {
        lo,
        hi,
        system: system.map(Into::into),
        code: code.map(Into::into),
        unit: unit.map(Into::into),
    }
}

fn date(r: &mut Rng) -> Term<'static> {
    let (lo, hi) = date_range(r);
    Term::Date { lo, hi }
}

fn reference(r: &mut Rng) -> Term<'static> {
    Term::Reference {
        target: types()[r.below(3)],
        id: r.pick(&IDS).into(),
    }
}

fn term(r: &mut Rng, param: ParamNo) -> Term<'static> {
    match param {
        TOKEN => match r.below(6) {
            0 => Term::Text(r.pick(&TEXTS).into()),
            1 => Term::OfType {
                system: r.pick(&SYSTEMS).into(),
                code: r.pick(&CODES).into(),
                value: r.pick(&CODES).into(),
            },
            _ => token(r),
        },
        STRING => Term::Str(r.pick(&TEXTS).into()),
        REFERENCE | OTHER_REFERENCE => match r.below(8) {
            0 => Term::Url(r.pick(&URIS).into()),
            1 => Term::ReferenceIdentifier {
                system: Some(r.pick(&SYSTEMS)).filter(|s| !s.is_empty()).map(Into::into),
                value: r.pick(&CODES).into(),
            },
            _ => reference(r),
        },
        DATE => date(r),
        QUANTITY => quantity(r),
        NUMBER => {
            let (lo, hi) = number_range(r);
            Term::Number { lo, hi }
        }
        URI => Term::Uri(r.pick(&URIS).into()),
        URL => Term::Url(r.pick(&URIS).into()),
        _ => {
            let mut code = vec![token(r)];
            if r.chance(30) {
                code.push(token(r));
            }
            let value = match r.below(5) {
                0 => vec![],
                1 => vec![date(r)],
                2 => vec![reference(r)],
                _ => vec![quantity(r)],
            };
            Term::Tuple(vec![code, value])
        }
    }
}

fn extracted(r: &mut Rng) -> Extracted<'static> {
    let mut terms = vec![];
    for param in ALL {
        let n = [0, 1, 1, 1, 2, 3][r.below(6)];
        terms.extend((0..n).map(|_| (param, term(r, param))));
    }
    Extracted { terms }
}

fn prefix(r: &mut Rng) -> Prefix {
    use Prefix::*;
    [Eq, Ne, Gt, Lt, Ge, Le, Sa, Eb, Ap][r.below(9)]
}

fn date_test(r: &mut Rng) -> DateTest {
    let (lo, hi) = date_range(r);
    DateTest {
        prefix: prefix(r),
        lo,
        hi,
    }
}

fn number_test(r: &mut Rng) -> NumberTest {
    let value = number_range(r).1;
    let width = [0.0, 0.05, 0.5, 10.0][r.below(4)];
    NumberTest {
        prefix: prefix(r),
        value,
        lo: value - width,
        hi: value + width,
    }
}

fn token_test(r: &mut Rng) -> TokenTest {
    let (system, code) = (r.pick(&SYSTEMS).to_owned(), r.pick(&CODES).to_owned());
    match r.below(4) {
        0 => TokenTest::Code(code),
        1 => TokenTest::SystemCode(system, code),
        2 => TokenTest::NoSystemCode(code),
        _ => TokenTest::System(system),
    }
}

fn test(r: &mut Rng, param: ParamNo) -> Test {
    let cut = |r: &mut Rng, text: &str| -> String {
        let n = r.below(text.chars().count() + 1);
        text.chars().take(n).collect()
    };
    match param {
        TOKEN => match r.below(5) {
            0 => Test::Text(fold(&cut(r, TEXTS[2]))),
            1 => Test::OfType {
                system: r.pick(&SYSTEMS).into(),
                code: r.pick(&CODES).into(),
                value: r.pick(&CODES).into(),
            },
            2 => Test::OneOf(Arc::new(
                (0..r.below(4))
                    .map(|_| (r.pick(&SYSTEMS).to_owned(), r.pick(&CODES).to_owned()))
                    .collect(),
            )),
            _ => Test::Token(token_test(r)),
        },
        STRING => {
            let text = r.pick(&TEXTS);
            Test::String(match r.below(3) {
                0 => StringTest::Exact(text.to_owned()),
                1 => StringTest::Contains(fold(text).chars().skip(r.below(3)).take(2).collect()),
                _ => StringTest::Prefix(fold(&cut(r, text))),
            })
        }
        REFERENCE | OTHER_REFERENCE => match r.below(7) {
            6 => Test::ReferenceTo(types()[r.below(3)]),
            0 => Test::Url(r.pick(&URIS).into()),
            1 => Test::ReferenceIdentifier(token_test(r)),
            2 => Test::Reference {
                target: None,
                id: r.pick(&IDS).into(),
            },
            _ => Test::Reference {
                target: Some(types()[r.below(3)]),
                id: r.pick(&IDS).into(),
            },
        },
        DATE => Test::Date(date_test(r)),
        QUANTITY => {
            let (system, code, _) = UNITS[r.below(4)];
            Test::Quantity {
                number: number_test(r),
                system: system.filter(|_| r.chance(50)).map(Into::into),
                code: code.or(Some("mg")).filter(|_| r.chance(60)).map(Into::into),
            }
        }
        NUMBER => Test::Number(number_test(r)),
        URI => {
            let uri = r.pick(&URIS).to_owned();
            Test::Uri(match r.below(3) {
                0 => UriTest::Exact(uri),
                1 => UriTest::Below(uri),
                _ => UriTest::Above(uri),
            })
        }
        URL => Test::Url(r.pick(&URIS).into()),
        _ => Test::Tuple(vec![
            Test::Token(token_test(r)),
            match r.below(4) {
                0 => Test::Date(date_test(r)),
                1 => Test::Reference {
                    target: Some(types()[r.below(3)]),
                    id: r.pick(&IDS).into(),
                },
                _ => test(r, QUANTITY),
            },
        ]),
    }
}

fn clause(r: &mut Rng, depth: usize) -> Clause {
    let param = ALL[r.below(ALL.len())];
    let references = [REFERENCE, OTHER_REFERENCE];
    let nested = depth > 0 && r.chance(50);
    match r.below(if nested { 12 } else { 5 }) {
        0..=2 => Clause::Match {
            param,
            test: test(r, param),
        },
        3 => Clause::Missing {
            param,
            missing: r.chance(50),
        },
        4 => match r.below(5) {
            0 => Clause::Id((0..1 + r.below(3)).map(|_| r.pick(&IDS).to_owned()).collect()),
            1 => {
                let lo = 1_000 + r.below(300) as i64;
                Clause::LastUpdated(DateTest {
                    prefix: prefix(r),
                    lo,
                    hi: lo + r.below(50) as i64,
                })
            }
            2 => Clause::Compartment {
                owner: types()[r.below(3)],
                id: r.pick(&IDS).into(),
                params: references[..r.below(3)].to_vec(),
                itself: r.chance(50),
            },
            3 if r.chance(10) => Clause::Never,
            _ => Clause::Match {
                param: TOKEN,
                test: Test::Token(token_test(r)),
            },
        },
        5 | 6 => Clause::Chain {
            param: references[r.below(2)],
            targets: (0..1 + r.below(2))
                .map(|_| (types()[r.below(3)], clause(r, depth - 1)))
                .collect(),
        },
        7 | 8 => Clause::Has {
            source: types()[r.below(3)],
            reference: references[r.below(2)],
            clause: Box::new(clause(r, depth - 1)),
        },
        9 => Clause::Any((0..r.below(4)).map(|_| clause(r, depth - 1)).collect()),
        10 => Clause::All((0..r.below(4)).map(|_| clause(r, depth - 1)).collect()),
        _ => Clause::Not(Box::new(clause(r, depth - 1))),
    }
}

fn query(r: &mut Rng) -> Query {
    let sort = (0..[0, 0, 1, 1, 2][r.below(5)])
        .map(|_| SortKey {
            by: match r.below(6) {
                0 => SortBy::Id,
                1 => SortBy::LastUpdated,
                2 => SortBy::Param(DATE),
                _ => SortBy::Param(ALL[r.below(ALL.len())]),
            },
            descending: r.chance(50),
        })
        .collect();
    let includes = (0..[0, 0, 1, 2][r.below(4)])
        .map(|_| Include {
            reverse: r.chance(50),
            iterate: r.chance(40),
            source: types()[r.below(3)],
            params: [REFERENCE, OTHER_REFERENCE][r.below(2)..].to_vec(),
            target: Some(types()[r.below(3)]).filter(|_| r.chance(30)),
        })
        .collect();
    Query {
        resource_type: types()[r.below(3)],
        clauses: (0..[0, 1, 1, 1, 2, 2, 3][r.below(7)]).map(|_| clause(r, 2)).collect(),
        sort,
        count: None,
        total: [Total::Default, Total::None, Total::Estimate, Total::Accurate][r.below(4)],
        includes,
        summary: if r.chance(5) { Summary::Count } else { Summary::False },
        elements: vec![],
        processed: vec![],
        ignored: vec![],
    }
}

/// Both indexes, fed alike.
struct Pair {
    plain: Plain,
    index: Index,
    rid: u64,
    /// Searches from here on are exact.
    horizon: u64,
    seed: u8,
}

impl Pair {
    fn new(seed: u8) -> Self {
        Self {
            plain: Plain::default(),
            index: Index::new([seed; 16]),
            rid: 0,
            horizon: 0,
            seed,
        }
    }

    fn put(&mut self, r: &mut Rng, t: ResourceType, id: &str, kind: RowKind, version: u32, home: u32, labels: u16) {
        self.rid += 1 + r.below(3) as u64;
        let extracted = extracted(r);
        let row = NewRow {
            rid: self.rid,
            resource_type: t,
            id,
            version,
            last_updated: 1_000 + self.rid as i64 - r.below(3) as i64,
            kind,
            home,
            labels,
            extracted: Some(&extracted).filter(|_| kind == RowKind::Version),
        };
        self.plain.apply(&row);
        self.index.apply(&row);
    }

    fn write(&mut self, r: &mut Rng) {
        let (t, id) = (types()[r.below(3)], r.pick(&IDS));
        let (home, labels) = (r.below(4) as u32, r.below(2) as u16);
        let Some(head) = self.plain.head(t, id, u64::MAX) else {
            return self.put(r, t, id, RowKind::Version, 1, home, labels);
        };
        let next = head.version + 1;
        if head.kind != RowKind::Version {
            return self.put(r, t, id, RowKind::Version, next, home, labels);
        }
        match r.below(11) {
            // A row sealed again, the newest or an older one.
            10 => {
                let rows = self.plain.rows_of_resource(t, id);
                let old = rows[r.below(rows.len())];
                self.put(r, t, id, old.kind, old.version, old.home, old.labels);
            }
            0 | 1 => self.put(r, t, id, RowKind::Deleted, next, head.home, head.labels),
            2 => {
                self.put(r, t, id, RowKind::Left, next, head.home, head.labels);
                self.put(r, t, id, RowKind::Version, next, home + 4, labels);
            }
            3 => self.put(r, t, id, RowKind::Version, head.version, head.home, head.labels),
            _ => self.put(r, t, id, RowKind::Version, next, head.home, labels),
        }
    }

    /// Rows sealed again in another home before their own is erased, as when one of several patients is.
    fn redact(&mut self, r: &mut Rng) {
        let home = r.below(8) as u32;
        for t in types() {
            for id in IDS {
                let rows = self.plain.rows_of_resource(t, id);
                for old in rows.into_iter().filter(|v| v.home == home) {
                    self.put(r, t, id, old.kind, old.version, home + 8, old.labels);
                }
            }
        }
        self.plain.forget_home(home);
        self.index.forget_home(home);
    }

    fn reload(&mut self) {
        let mut dump = vec![];
        self.index.dump(&mut dump).unwrap();
        self.seed = self.seed.wrapping_mul(7).wrapping_add(3);
        let mut from = dump.as_slice();
        self.index = Index::load([self.seed; 16], &mut from).unwrap();
        assert!(from.is_empty());
        self.horizon = self.rid;
    }

    fn check_rebuilt(&self) {
        let rebuilt = self.plain.rebuilt([self.seed ^ 0x55; 16]);
        let (mut a, mut b) = (vec![], vec![]);
        self.index.dump(&mut a).unwrap();
        rebuilt.dump(&mut b).unwrap();
        assert!(a == b, "live and rebuilt index differ");
        assert_eq!(self.index.canonical_digest(), rebuilt.canonical_digest());
    }

    fn check_history(&self, r: &mut Rng) {
        let visible = self.some_point(r);
        let before = r.chance(50).then(|| r.below(self.rid as usize + 2) as u64);
        let t = types()[r.below(3)];
        let id = r.pick(&IDS);
        for scope in [Scope::Instance(t, id), Scope::Type(t), Scope::System] {
            let want: Vec<Version> = self.plain.history(scope, visible, before).collect();
            let got: Vec<Version> = self.index.history(scope, visible, before).collect();
            assert_eq!(got, want, "{scope:?} as of {visible} before {before:?}");
        }
        assert_eq!(self.index.head(t, id, visible), self.plain.head(t, id, visible));
        let home = r.below(8) as u32;
        assert_eq!(self.index.rows_of_home(home), self.plain.rows_of_home(home));
        for v in self.plain.rows_of_resource(t, id) {
            assert_eq!(self.index.until(&v, visible), self.plain.until(t, id, &v, visible));
        }
        assert_eq!(self.index.count(t), self.plain.count(t));
        for v in self.plain.history(Scope::System, visible, None).take(5) {
            assert_eq!(
                self.index.id_of(v.resource_type, v.rid),
                self.plain.id_of(v.resource_type, v.rid)
            );
        }
    }

    fn some_point(&self, r: &mut Rng) -> u64 {
        if r.chance(50) {
            self.rid
        } else {
            self.horizon + r.below((self.rid - self.horizon) as usize + 2) as u64
        }
    }

    fn check_search(&mut self, r: &mut Rng) {
        let query = query(r);
        self.check_query(r, &query);
    }

    fn check_query(&mut self, r: &mut Rng, query: &Query) {
        let mut visible = self.some_point(r);
        let hidden = (r.below(12) as u32, r.below(4) as u16);
        let permit = move |f: &RowFacts| f.slot != hidden.0 && f.labels != hidden.1;
        let limits = Limits {
            page: [0, 1, 2, 5, 1000][r.below(5)],
            includes: 10_000,
        };
        let mut after: Option<Cursor> = None;
        for page in 0..6 {
            let want = self.plain.search(query, visible, &permit, after.as_ref(), limits);
            let got = self.index.search(query, visible, &permit, after.as_ref(), limits);
            let about =
                || format!("page {page} as of {visible}, hidden {hidden:?}, {limits:?}\n{query:#?}\nwant {want:#?}");
            assert_eq!(got.matches, want.matches, "{}", about());
            assert_eq!(got.next, want.next, "{}", about());
            match got.total {
                Some(n) => assert_eq!(Some(n), want.total, "{}", about()),
                None => assert!(matches!(query.total, Total::None | Total::Default), "{}", about()),
            }
            let set = |list: &[Version]| list.iter().map(|v| v.rid).collect::<BTreeSet<u64>>();
            assert_eq!(set(&got.included), set(&want.included), "{}", about());
            assert_eq!(got.included.len(), set(&got.included).len(), "an include is repeated");
            assert!(!got.truncated);
            if let Some(fewer) = got.included.len().checked_sub(1) {
                let cut = Limits {
                    includes: fewer,
                    ..limits
                };
                let some = self.index.search(query, visible, &permit, after.as_ref(), cut);
                assert!(some.truncated && some.included.len() == fewer);
                assert!(set(&some.included).is_subset(&set(&got.included)));
            }
            let Some(next) = got.next else { break };
            assert_eq!(Cursor::from_bytes(&next.to_bytes()).as_ref(), Some(&next));
            after = Some(next);
            if r.chance(30) {
                self.write(r);
                visible = self.rid;
            }
        }
    }
}

#[test]
fn answers_like_a_plain_scan() {
    for seed in 0..60 {
        let mut r = Rng(seed);
        let mut pair = Pair::new(seed as u8);
        for step in 0..120 {
            match r.below(40) {
                0 => {
                    let home = r.below(8) as u32;
                    pair.plain.forget_home(home);
                    pair.index.forget_home(home);
                }
                1 => {
                    pair.index.compact();
                    pair.horizon = pair.rid;
                }
                2 => pair.reload(),
                3 => pair.check_rebuilt(),
                4 => pair.redact(&mut r),
                5..=12 => pair.check_history(&mut r),
                13..=25 => pair.check_search(&mut r),
                _ => pair.write(&mut r),
            }
            if step == 119 {
                pair.check_rebuilt();
                pair.reload();
                pair.check_rebuilt();
            }
        }
    }
}

#[test]
fn pages_show_every_match_once_while_others_write() {
    for seed in 100..120 {
        let mut r = Rng(seed);
        let mut pair = Pair::new(1);
        for _ in 0..60 {
            pair.write(&mut r);
        }
        for key in [
            None,
            Some(SortBy::Param(DATE)),
            Some(SortBy::Param(STRING)),
            Some(SortBy::Id),
        ] {
            let mut q = query(&mut r);
            q.clauses.clear();
            q.includes.clear();
            q.summary = Summary::False;
            q.sort = key
                .map(|by| SortKey {
                    by,
                    descending: r.chance(50),
                })
                .into_iter()
                .collect();
            let all = Limits {
                page: 1000,
                includes: 0,
            };
            let at_first = pair.index.search(&q, pair.rid, &|_| true, None, all).matches;
            let mut shown: Vec<u64> = vec![];
            let mut after = None;
            loop {
                let page = pair
                    .index
                    .search(&q, pair.rid, &|_| true, after.as_ref(), Limits { page: 2, includes: 0 });
                shown.extend(page.matches.iter().map(|v| v.rid));
                after = page.next;
                if after.is_none() {
                    break;
                }
                pair.write(&mut r);
            }
            let distinct: HashSet<&u64> = shown.iter().collect();
            assert_eq!(distinct.len(), shown.len(), "a match was repeated");
            let mut places = shown.iter().map(|rid| at_first.iter().position(|v| v.rid == *rid));
            assert!(places.all(|p| p.is_some()), "a later write was shown");
            for missed in at_first.iter().filter(|v| !distinct.contains(&v.rid)) {
                let id = pair.index.id_of(q.resource_type, missed.rid).unwrap();
                let now = pair.index.head(q.resource_type, &id, pair.rid).unwrap();
                assert_ne!(now.kind, RowKind::Version, "a match was skipped that is still there");
            }
        }
    }
}

/// Enough rows for every form of posting, for pages taken from the newest and for walks along the dates.
#[test]
fn answers_like_a_plain_scan_of_many_rows() {
    let mut r = Rng(7);
    let mut pair = Pair::new(7);
    let [patient, observation, _] = types();
    for (i, id) in IDS.iter().enumerate() {
        pair.put(&mut r, patient, id, RowKind::Version, 1, i as u32, 0);
    }
    for i in 0..7000 {
        let id = format!("o-{}", i - i % 10 * usize::from(r.chance(5)));
        let version = pair.plain.head(observation, &id, u64::MAX).map_or(1, |h| h.version + 1);
        let kind = if version > 1 && r.chance(30) {
            RowKind::Deleted
        } else {
            RowKind::Version
        };
        let labels = u16::from(r.chance(5));
        pair.put(&mut r, observation, &id, kind, version, (i % 6) as u32, labels);
    }
    for round in 0..2 {
        for n in 0..150 {
            let mut q = query(&mut r);
            q.resource_type = observation;
            q.clauses = (0..n % 3).map(|_| clause(&mut r, 0)).collect();
            q.includes.retain(|i| !i.iterate && !i.reverse);
            if n % 4 == 0 {
                q.sort = vec![SortKey {
                    by: SortBy::Param(DATE),
                    descending: r.chance(50),
                }];
                q.total = Total::Default;
            }
            if n % 10 == 0 {
                let inner = clause(&mut r, 0);
                q.clauses.push(Clause::Chain {
                    param: REFERENCE,
                    targets: vec![(patient, inner)],
                });
            }
            pair.check_query(&mut r, &q);
        }
        let mut q = query(&mut r);
        q.resource_type = patient;
        q.clauses = vec![Clause::Has {
            source: observation,
            reference: REFERENCE,
            clause: Box::new(Clause::Match {
                param: TOKEN,
                test: Test::Token(TokenTest::Code("a".into())),
            }),
        }];
        pair.check_query(&mut r, &q);
        if round == 0 {
            pair.check_rebuilt();
            pair.reload();
        }
    }
}

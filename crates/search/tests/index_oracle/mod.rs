//! The index at its simplest: all values of all rows, scanned. What the real one is compared with.
//!
//! It shares the types of queries and terms with the index and nothing else.

use keepwell_model::types::ResourceType;
use keepwell_search::index::{Cursor, Index, Limits, NewRow, Page, RowFacts, RowKind, Scope, SortValue, Version};
use keepwell_search::query::{
    Clause, DateTest, Include, NumberTest, Prefix, Query, SortBy, SortKey, StringTest, Summary, Test, TokenTest, Total,
    UriTest,
};
use keepwell_search::term::{Extracted, ParamNo, Term, fold};
use std::cmp::Ordering;
use std::collections::HashMap;

#[derive(Default)]
pub struct Plain {
    rows: Vec<Row>,
    /// Places in `rows` of each resource's rows.
    of: HashMap<(ResourceType, String), Vec<usize>>,
    last_rid: u64,
}

struct Row {
    version: Version,
    id: String,
    terms: Vec<(ParamNo, Term<'static>)>,
}

/// What a search sees: rows current at `visible`, permitted, and not deleted at `now`.
struct View<'a> {
    plain: &'a Plain,
    visible: u64,
    now: u64,
    permit: &'a dyn Fn(&RowFacts) -> bool,
}

impl Plain {
    pub fn apply(&mut self, row: &NewRow<'_>) {
        if row.rid <= self.last_rid {
            return;
        }
        self.last_rid = row.rid;
        self.rows.push(Row {
            version: Version {
                rid: row.rid,
                resource_type: row.resource_type,
                version: row.version,
                last_updated: row.last_updated,
                kind: row.kind,
                home: row.home,
                labels: row.labels,
            },
            id: row.id.to_owned(),
            terms: row
                .extracted
                .map(|e: &Extracted<'_>| e.clone().into_owned().terms)
                .unwrap_or_default(),
        });
        self.place(self.rows.len() - 1);
    }

    /// Puts a row among those of its resource: by version, a departure before the version it makes room for, copies
    /// behind their originals.
    fn place(&mut self, at: usize) {
        let order = |row: &Row| (row.version.version, row.version.kind != RowKind::Left);
        let row = &self.rows[at];
        let of = self.of.entry((row.version.resource_type, row.id.clone())).or_default();
        let behind = of.iter().filter(|o| order(&self.rows[**o]) <= order(row)).count();
        of.insert(behind, at);
    }

    /// The rows of a resource, oldest version first.
    pub fn rows_of_resource(&self, resource_type: ResourceType, id: &str) -> Vec<Version> {
        let of = self.of.get(&(resource_type, id.to_owned()));
        of.into_iter().flatten().map(|at| self.rows[*at].version).collect()
    }

    pub fn rows_of_home(&self, home: u32) -> Vec<u64> {
        let here = self.rows.iter().filter(|r| r.version.home == home);
        here.map(|r| r.version.rid).collect()
    }

    pub fn until(&self, resource_type: ResourceType, id: &str, version: &Version, visible: u64) -> Option<i64> {
        let mut later = self.rows_of_resource(resource_type, id).into_iter();
        later
            .find(|v| v.version > version.version && v.rid <= visible)
            .map(|v| v.last_updated)
    }

    fn head_row(&self, resource_type: ResourceType, id: &str, visible: u64) -> Option<&Row> {
        let rows = self.of.get(&(resource_type, id.to_owned()))?;
        rows.iter()
            .rev()
            .map(|at| &self.rows[*at])
            .find(|r| r.version.rid <= visible)
    }

    pub fn head(&self, resource_type: ResourceType, id: &str, visible: u64) -> Option<Version> {
        self.head_row(resource_type, id, visible).map(|r| r.version)
    }

    pub fn history<'a>(
        &'a self,
        scope: Scope<'a>,
        visible: u64,
        before: Option<u64>,
    ) -> Box<dyn Iterator<Item = Version> + 'a> {
        let copied_again = move |at: usize| {
            let row = &self.rows[at];
            let of = &self.of[&(row.version.resource_type, row.id.clone())];
            let next = of
                .iter()
                .skip_while(|o| **o != at)
                .nth(1)
                .map(|o| &self.rows[*o].version);
            next.is_some_and(|n| n.rid <= visible && n.version == row.version.version && n.kind == row.version.kind)
        };
        let places: Vec<usize> = match scope {
            Scope::Instance(t, id) => self.of.get(&(t, id.to_owned())).cloned().unwrap_or_default(),
            _ => (0..self.rows.len()).collect(),
        };
        Box::new(
            places
                .into_iter()
                .rev()
                .filter(move |at| {
                    let r = &self.rows[*at];
                    r.version.rid <= visible
                        && before.is_none_or(|b| r.version.rid < b)
                        && r.version.kind != RowKind::Left
                        && match scope {
                            Scope::Type(t) => r.version.resource_type == t,
                            Scope::Instance(..) | Scope::System => true,
                        }
                        && !copied_again(*at)
                })
                .map(|at| self.rows[at].version),
        )
    }

    pub fn id_of(&self, resource_type: ResourceType, rid: u64) -> Option<String> {
        let at = self.rows.binary_search_by_key(&rid, |r| r.version.rid).ok()?;
        self.rows
            .get(at)
            .filter(|r| r.version.resource_type == resource_type)
            .map(|r| r.id.clone())
    }

    pub fn count(&self, resource_type: ResourceType) -> u64 {
        let all = View {
            plain: self,
            visible: u64::MAX,
            now: u64::MAX,
            permit: &|_| true,
        };
        all.rows_of(resource_type).count() as u64
    }

    pub fn forget_home(&mut self, home: u32) {
        self.rows.retain(|r| r.version.home != home);
        self.of.clear();
        for at in 0..self.rows.len() {
            self.place(at);
        }
    }

    /// An index of the rows there are now, as if built from the log.
    pub fn rebuilt(&self, seed: [u8; 16]) -> Index {
        let mut index = Index::new(seed);
        for row in &self.rows {
            let extracted = Extracted {
                terms: row.terms.clone(),
            };
            let v = row.version;
            index.apply(&NewRow {
                rid: v.rid,
                resource_type: v.resource_type,
                id: &row.id,
                version: v.version,
                last_updated: v.last_updated,
                kind: v.kind,
                home: v.home,
                labels: v.labels,
                extracted: Some(&extracted),
            });
        }
        index.skip(self.last_rid);
        index
    }

    pub fn search(
        &self,
        query: &Query,
        visible: u64,
        permit: &dyn Fn(&RowFacts) -> bool,
        after: Option<&Cursor>,
        limits: Limits,
    ) -> Page {
        let at = after.map_or(visible, |c| c.visible.min(visible));
        let view = View {
            plain: self,
            visible: at,
            now: visible,
            permit,
        };
        let mut found: Vec<(Vec<SortValue>, &Row)> = view
            .rows_of(query.resource_type)
            .filter(|r| query.clauses.iter().all(|c| view.meets(r, c)))
            .map(|r| (query.sort.iter().map(|k| sort_value(r, k)).collect(), r))
            .collect();
        found.sort_by(|a, b| order(&query.sort, (&a.0, a.1.version.rid), (&b.0, b.1.version.rid)));
        let total = (query.total != Total::None).then_some(found.len() as u64);
        if let Some(cursor) = after {
            found.retain(|(keys, r)| {
                order(&query.sort, (keys, r.version.rid), (&cursor.keys, cursor.rid)) == Ordering::Greater
            });
        }
        let more = found.len() > limits.page;
        found.truncate(limits.page);
        let next = found
            .last()
            .filter(|_| more && query.summary != Summary::Count)
            .map(|(keys, r)| Cursor {
                visible: at,
                keys: keys.clone(),
                rid: r.version.rid,
            });
        let matched: Vec<&Row> = found.iter().map(|(_, r)| *r).collect();
        let (included, truncated) = view.included(&matched, &query.includes, limits.includes);
        Page {
            matches: matched.iter().map(|r| r.version).collect(),
            included: included.iter().map(|r| r.version).collect(),
            total,
            next,
            truncated,
        }
    }
}

impl<'a> View<'a> {
    fn rows_of(&self, resource_type: ResourceType) -> impl Iterator<Item = &'a Row> {
        let plain = self.plain;
        plain
            .rows
            .iter()
            .filter(move |r| r.version.resource_type == resource_type && self.sees(r))
    }

    fn sees(&self, row: &Row) -> bool {
        let v = &row.version;
        let head = |at| self.plain.head_row(v.resource_type, &row.id, at);
        v.kind == RowKind::Version
            && head(self.visible).is_some_and(|h| h.version.rid == v.rid)
            && (self.permit)(&v.facts())
            && head(self.now).is_some_and(|h| {
                h.version.rid == v.rid || (h.version.kind == RowKind::Version && (self.permit)(&h.version.facts()))
            })
    }

    fn target(&self, target: ResourceType, id: &str) -> Option<&'a Row> {
        self.plain.head_row(target, id, self.visible).filter(|r| self.sees(r))
    }

    fn meets(&self, row: &Row, clause: &Clause) -> bool {
        let of = |p: ParamNo| row.terms.iter().filter(move |(q, _)| *q == p).map(|(_, t)| t);
        match clause {
            Clause::Match { param, test } => of(*param).any(|t| meets(t, test)),
            Clause::Missing { param, missing } => of(*param).next().is_none() == *missing,
            Clause::Chain { param, targets } => of(*param).any(|t| {
                let Term::Reference { target, id } = t else {
                    return false;
                };
                targets.iter().any(|(wanted, inner)| {
                    wanted == target && self.target(*target, id).is_some_and(|r| self.meets(r, inner))
                })
            }),
            Clause::Has {
                source,
                reference,
                clause,
            } => self
                .rows_of(*source)
                .any(|r| refers(r, *reference, row.version.resource_type, &row.id) && self.meets(r, clause)),
            Clause::Id(ids) => ids.contains(&row.id),
            Clause::LastUpdated(test) => date(
                test,
                row.version.last_updated,
                row.version.last_updated.saturating_add(1),
            ),
            Clause::Any(list) => list.iter().any(|c| self.meets(row, c)),
            Clause::All(list) => list.iter().all(|c| self.meets(row, c)),
            Clause::Not(inner) => !self.meets(row, inner),
            Clause::Compartment {
                owner,
                id,
                params,
                itself,
            } => {
                (*itself && row.version.resource_type == *owner && row.id == *id)
                    || params.iter().any(|p| refers(row, *p, *owner, id))
            }
            Clause::Never => false,
        }
    }

    fn included(&self, matches: &[&'a Row], includes: &[Include], limit: usize) -> (Vec<&'a Row>, bool) {
        let mut seen: Vec<u64> = matches.iter().map(|r| r.version.rid).collect();
        let mut out: Vec<&Row> = Vec::new();
        let mut from: Vec<&Row> = matches.to_vec();
        let mut first = true;
        while !from.is_empty() {
            let mut fresh = Vec::new();
            for row in &from {
                for include in includes.iter().filter(|i| first || i.iterate) {
                    for hit in self.related(row, include) {
                        if seen.contains(&hit.version.rid) {
                            continue;
                        }
                        if out.len() + fresh.len() >= limit {
                            out.extend(fresh);
                            return (out, true);
                        }
                        seen.push(hit.version.rid);
                        fresh.push(hit);
                    }
                }
            }
            out.extend(&fresh);
            from = fresh;
            first = false;
        }
        (out, false)
    }

    fn related(&self, row: &Row, include: &Include) -> Vec<&'a Row> {
        let wanted = |t: ResourceType| include.target.is_none_or(|w| w == t);
        if include.reverse {
            if !wanted(row.version.resource_type) {
                return Vec::new();
            }
            self.rows_of(include.source)
                .filter(|r| {
                    include
                        .params
                        .iter()
                        .any(|p| refers(r, *p, row.version.resource_type, &row.id))
                })
                .collect()
        } else if include.source == row.version.resource_type {
            let terms = row.terms.iter().filter(|(p, _)| include.params.contains(p));
            terms
                .filter_map(|(_, t)| match t {
                    Term::Reference { target, id } if wanted(*target) => self.target(*target, id),
                    _ => None,
                })
                .collect()
        } else {
            Vec::new()
        }
    }
}

fn refers(row: &Row, param: ParamNo, to: ResourceType, to_id: &str) -> bool {
    row.terms
        .iter()
        .any(|(p, t)| *p == param && matches!(t, Term::Reference { target, id } if *target == to && id == to_id))
}

fn meets(term: &Term<'_>, test: &Test) -> bool {
    match (test, term) {
        (Test::Token(test), Term::Token { system, code }) => token(test, system.as_deref(), code),
        (Test::OneOf(set), Term::Token { system, code }) => {
            set.contains(&(system.as_deref().unwrap_or_default().to_owned(), code.to_string()))
        }
        (Test::ReferenceIdentifier(test), Term::ReferenceIdentifier { system, value }) => {
            token(test, system.as_deref(), value)
        }
        (Test::Text(prefix), Term::Text(text)) => fold(text).starts_with(prefix.as_str()),
        (
            Test::OfType { system, code, value },
            Term::OfType {
                system: s,
                code: c,
                value: v,
            },
        ) => system == s && code == c && value == v,
        (Test::String(test), Term::Str(text)) => match test {
            StringTest::Prefix(p) => fold(text).starts_with(p.as_str()),
            StringTest::Contains(p) => fold(text).contains(p.as_str()),
            StringTest::Exact(p) => text == p,
        },
        (Test::Reference { target, id }, Term::Reference { target: t, id: i }) => {
            i == id && target.is_none_or(|w| w == *t)
        }
        (Test::ReferenceTo(target), Term::Reference { target: t, .. }) => target == t,
        (Test::ReferenceTo(target), Term::Url(text)) => text.contains(&format!("/{target}/")),
        (Test::Url(url), Term::Url(text)) => text
            .strip_prefix(url.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['|', '#'])),
        (Test::Uri(test), Term::Uri(text)) => match test {
            UriTest::Exact(u) => text == u,
            UriTest::Below(u) => below(text, u),
            UriTest::Above(u) => below(u, text),
        },
        (Test::Date(test), Term::Date { lo, hi }) => date(test, *lo, *hi),
        (Test::Number(test), Term::Number { lo, hi } | Term::Quantity { lo, hi, .. }) => number(test, *lo, *hi),
        (
            Test::Quantity {
                number: test,
                system,
                code,
            },
            Term::Quantity {
                lo,
                hi,
                system: s,
                code: c,
                unit,
            },
        ) => {
            number(test, *lo, *hi)
                && match (system, code) {
                    (None, None) => true,
                    (Some(system), None) => s.as_deref() == Some(system),
                    (Some(system), Some(code)) => s.as_deref() == Some(system) && c.as_deref() == Some(code),
                    (None, Some(code)) => c.as_deref() == Some(code) || unit.as_deref() == Some(code),
                }
        }
        (Test::Tuple(tests), Term::Tuple(parts)) => {
            tests.len() == parts.len()
                && tests
                    .iter()
                    .zip(parts)
                    .all(|(test, part)| part.iter().any(|term| meets(term, test)))
        }
        _ => false,
    }
}

fn token(test: &TokenTest, system: Option<&str>, code: &str) -> bool {
    match test {
        TokenTest::Code(c) => c == code,
        TokenTest::SystemCode(s, c) => system == Some(s) && c == code,
        TokenTest::NoSystemCode(c) => system.is_none() && c == code,
        TokenTest::System(s) => system == Some(s),
    }
}

/// `text` is `base` or continues it after a `/`, `#`, `?` or `|`.
fn below(text: &str, base: &str) -> bool {
    text.strip_prefix(base)
        .is_some_and(|rest| rest.is_empty() || base.ends_with('/') || rest.starts_with(['/', '#', '?', '|']))
}

fn date(test: &DateTest, lo: i64, hi: i64) -> bool {
    let within = test.lo <= lo && hi <= test.hi;
    match test.prefix {
        Prefix::Eq => within,
        Prefix::Ne => !within,
        Prefix::Gt => hi > test.hi,
        Prefix::Lt => lo < test.lo,
        Prefix::Ge => hi > test.hi || within,
        Prefix::Le => lo < test.lo || within,
        Prefix::Sa => lo >= test.hi,
        Prefix::Eb => hi <= test.lo,
        Prefix::Ap => lo < test.hi && hi > test.lo,
    }
}

fn number(test: &NumberTest, lo: f64, hi: f64) -> bool {
    let within = test.lo <= lo && (hi < test.hi || (test.lo == test.hi && hi == test.hi));
    match test.prefix {
        Prefix::Eq => within,
        Prefix::Ne => !within,
        Prefix::Gt => hi > test.value,
        Prefix::Lt => lo < test.value,
        Prefix::Ge => hi >= test.value,
        Prefix::Le => lo <= test.value,
        Prefix::Sa => lo > test.value,
        Prefix::Eb => hi < test.value,
        Prefix::Ap => lo <= test.hi && hi >= test.lo,
    }
}

fn sort_value(row: &Row, key: &SortKey) -> SortValue {
    let param = match key.by {
        SortBy::Id => return SortValue::Text(row.id.clone()),
        SortBy::LastUpdated => return SortValue::Int(row.version.last_updated),
        SortBy::Param(p) => p,
    };
    let values = row
        .terms
        .iter()
        .filter(|(p, _)| *p == param)
        .filter_map(|(_, t)| match t {
            Term::Date { lo, .. } => Some(SortValue::Int(*lo)),
            Term::Number { lo, .. } | Term::Quantity { lo, .. } => Some(SortValue::Float(*lo)),
            Term::Token { code, .. } => Some(SortValue::Text(code.to_string())),
            Term::Str(s) => Some(SortValue::Text(fold(s))),
            Term::Reference { target, id } => Some(SortValue::Text(format!("{target}/{id}"))),
            Term::Url(u) | Term::Uri(u) => Some(SortValue::Text(u.to_string())),
            _ => None,
        });
    let best = if key.descending {
        values.max_by(compare)
    } else {
        values.min_by(compare)
    };
    best.unwrap_or(SortValue::Missing)
}

fn compare(a: &SortValue, b: &SortValue) -> Ordering {
    let rank = |v: &SortValue| match v {
        SortValue::Int(_) => 0,
        SortValue::Float(_) => 1,
        SortValue::Text(_) => 2,
        SortValue::Missing => 3,
    };
    match (a, b) {
        (SortValue::Int(a), SortValue::Int(b)) => a.cmp(b),
        (SortValue::Float(a), SortValue::Float(b)) => a.total_cmp(b),
        (SortValue::Text(a), SortValue::Text(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}

fn order(keys: &[SortKey], a: (&[SortValue], u64), b: (&[SortValue], u64)) -> Ordering {
    for (key, (x, y)) in keys.iter().zip(a.0.iter().zip(b.0)) {
        let missing = [x, y].contains(&&SortValue::Missing);
        let o = compare(x, y);
        let o = if key.descending && !missing { o.reverse() } else { o };
        if o != Ordering::Equal {
            return o;
        }
    }
    b.1.cmp(&a.1)
}

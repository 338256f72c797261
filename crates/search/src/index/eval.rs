//! Which rows meet a condition: the shortest list first, the others narrow it, what no list can tell is tested by row.

use super::plan::{Check, Node};
use super::ranges::{date_meets, number_candidates, number_meets};
use super::shard::Shard;
use super::values::{Part, Tuple};
use super::{Index, RowFacts, RowKind, Version};
use hashbrown::HashMap;
use keepwell_model::types::ResourceType;
use roaring::RoaringBitmap;

/// What one search sees: rows current at `visible` that `permit` allows, less those deleted or withdrawn by `now`.
pub struct View<'a> {
    pub index: &'a Index,
    pub visible: u64,
    pub now: u64,
    pub permit: &'a dyn Fn(&RowFacts) -> bool,
}

/// A type's rows as a view finds them: those numbered below `end`, if any.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    pub resource_type: ResourceType,
    pub shard: &'a Shard,
    end: u32,
}

/// A list this many times shorter than another is checked row by row rather than by walking the other.
const GALLOP: usize = 8;

impl<'a> View<'a> {
    pub fn rows(&self, resource_type: ResourceType) -> Option<Rows<'a>> {
        let shard = self.index.shard(resource_type)?;
        Some(Rows {
            resource_type,
            shard,
            end: shard.rids.up_to(self.visible),
        })
    }

    /// Whether the search sees the row.
    #[inline]
    pub fn sees(&self, rows: Rows<'a>, row: u32) -> bool {
        if row >= rows.end {
            return false;
        }
        if rows.shard.stale.contains(row) {
            return self.sees_superseded(rows, row);
        }
        let (Some(rid), Some(class)) = (rows.shard.rids.get(row), rows.shard.classes.get(row)) else {
            return false;
        };
        let (slot, labels, _) = self.index.classes.get(*class);
        (self.permit)(&RowFacts {
            rid,
            resource_type: rows.resource_type,
            slot,
            labels,
        })
    }

    #[cold]
    fn sees_superseded(&self, rows: Rows<'a>, row: u32) -> bool {
        let shard = rows.shard;
        let rid = |row: u32| shard.rids.get(row).unwrap_or(u64::MAX);
        let Some(version) = self.index.version_at(rows.resource_type, shard, row) else {
            return false;
        };
        if shard.forgotten.contains(row) || version.kind != RowKind::Version || !(self.permit)(&version.facts()) {
            return false;
        }
        // By version, not by rid: what follows may be older than a copy in between.
        let mut head = row;
        for next in std::iter::successors(shard.next.get(&row), |row| shard.next.get(*row)) {
            match rid(*next) {
                r if r <= self.visible => return false,
                r if r <= self.now => head = *next,
                _ => {}
            }
        }
        head == row
            || self
                .index
                .version_at(rows.resource_type, shard, head)
                .is_some_and(|h| h.kind == RowKind::Version && (self.permit)(&h.facts()))
    }

    /// The row of a resource the search sees, if any.
    pub fn seen_row_of(&self, entity: u32) -> Option<(Rows<'a>, u32)> {
        let rows = self.rows(self.index.entities.type_of(entity)?)?;
        let row = self.index.row_at(rows.shard, entity, self.visible)?;
        self.sees(rows, row).then_some((rows, row))
    }

    /// At most how many rows meet the condition, counted no further than `cap`.
    pub fn estimate(&self, rows: Rows<'a>, node: &Node, cap: usize) -> usize {
        let shard = rows.shard;
        let sum = |lens: &mut dyn Iterator<Item = usize>| {
            let mut n = 0_usize;
            for len in lens {
                n += len;
                if n >= cap {
                    return cap;
                }
            }
            n
        };
        let present = |param: u16| shard.present(param).map_or(0, |p| p.len());
        match node {
            Node::Never => 0,
            Node::Match(param, check) => match check {
                Check::Keys(keys) => sum(&mut keys.iter().filter_map(|k| shard.keys.rows(*k)).map(|p| p.len())),
                Check::RefsTo(..) => present(*param).min(cap),
                Check::Refs(to) => sum(&mut to.iter().map(|e| shard.referrers(self.index.seed, *param, *e).len())),
                Check::Date(test) => match shard.dates.get(param) {
                    Some(dates) => sum(&mut dates.candidates(test).map(|p| p.len())),
                    None => 0,
                },
                Check::Quantity(_, units) if units.is_empty() => 0,
                Check::Number(test) | Check::Quantity(test, _) => match shard.numbers.get(param) {
                    Some(buckets) => sum(&mut number_candidates(buckets, test).map(|p| p.len())),
                    None => 0,
                },
                Check::Tuple(parts) => parts.iter().fold(present(*param).min(cap), |n, part| match part {
                    Check::Keys(keys) => n.min(sum(&mut keys
                        .iter()
                        .filter_map(|k| shard.keys.rows(*k))
                        .map(|p| p.len()))),
                    _ => n,
                }),
            },
            Node::Present(param) => present(*param).min(cap),
            Node::Rows(list) => list.len().min(cap),
            Node::LastUpdated(_) | Node::Not(_) => (rows.end as usize).min(cap),
            Node::Any(list) => sum(&mut list.iter().map(|n| self.estimate(rows, n, cap))),
            Node::All(list) => list
                .iter()
                .fold((rows.end as usize).min(cap), |n, inner| self.estimate(rows, inner, n)),
            Node::Chain(param, targets) => {
                let inner = |(t, n): &(ResourceType, Node)| self.rows(*t).map_or(0, |r| self.estimate(r, n, cap));
                match targets.iter().map(inner).sum::<usize>() {
                    0 => 0,
                    n => n.saturating_mul(FAN).min(present(*param)).min(cap),
                }
            }
            Node::Has(source, _, inner) => self
                .rows(*source)
                .map_or(0, |r| self.estimate(r, inner, cap))
                .min(rows.end as usize),
        }
    }

    /// The rows that meet the condition, in ascending order. Whether each is seen is not asked.
    pub fn find(&self, rows: Rows<'a>, node: &Node) -> Vec<u32> {
        let shard = rows.shard;
        let mut out = Vec::new();
        match node {
            Node::Never => {}
            Node::Match(param, check) => match check {
                Check::Keys(keys) => match keys.as_slice() {
                    [one] => shard.keys.rows(*one).into_iter().for_each(|p| p.extend_into(&mut out)),
                    keys => {
                        keys.iter()
                            .filter_map(|k| shard.keys.rows(*k))
                            .for_each(|p| p.extend_into(&mut out));
                        sort(&mut out);
                    }
                },
                Check::RefsTo(..) => {
                    shard.present(*param).into_iter().for_each(|p| p.extend_into(&mut out));
                    out.retain(|r| self.test(rows, node, *r));
                }
                Check::Refs(to) => {
                    to.iter()
                        .for_each(|e| shard.referrers(self.index.seed, *param, *e).extend_into(&mut out));
                    if to.len() > 1 {
                        sort(&mut out);
                    }
                }
                Check::Date(test) => {
                    if let Some(dates) = shard.dates.get(param) {
                        dates.candidates(test).for_each(|p| p.extend_into(&mut out));
                        sort(&mut out);
                        out.retain(|r| dates.any(*r, |lo, hi| date_meets(test, lo, hi)));
                    }
                }
                Check::Number(test) | Check::Quantity(test, _) => {
                    if let Some(buckets) = shard.numbers.get(param) {
                        number_candidates(buckets, test).for_each(|p| p.extend_into(&mut out));
                        sort(&mut out);
                        out.retain(|r| self.test(rows, node, *r));
                    }
                }
                Check::Tuple(parts) => {
                    let lists = parts.iter().filter_map(|part| match part {
                        Check::Keys(keys) => Some(keys),
                        _ => None,
                    });
                    let len = |keys: &&Vec<u32>| {
                        keys.iter()
                            .filter_map(|k| shard.keys.rows(*k))
                            .map(|p| p.len())
                            .sum::<usize>()
                    };
                    match lists.min_by_key(len) {
                        Some(keys) => {
                            keys.iter()
                                .filter_map(|k| shard.keys.rows(*k))
                                .for_each(|p| p.extend_into(&mut out));
                            sort(&mut out);
                        }
                        None => shard.present(*param).into_iter().for_each(|p| p.extend_into(&mut out)),
                    }
                    out.retain(|r| self.test(rows, node, *r));
                }
            },
            Node::Present(param) => shard.present(*param).into_iter().for_each(|p| p.extend_into(&mut out)),
            Node::Rows(list) => out.extend_from_slice(list),
            Node::LastUpdated(_) => out.extend((0..rows.end).filter(|r| self.test(rows, node, *r))),
            Node::Not(inner) => {
                out.extend(0..rows.end);
                self.without(rows, inner, &mut out);
            }
            Node::Any(list) => {
                list.iter().for_each(|n| out.append(&mut self.find(rows, n)));
                sort(&mut out);
            }
            Node::All(list) => return self.find_all(rows, list),
            Node::Chain(param, targets) => {
                for (target, inner) in targets {
                    let Some(there) = self.rows(*target) else { continue };
                    for row in self.find(there, inner) {
                        if let Some(entity) = there.shard.entities.get(row)
                            && self.sees(there, row)
                        {
                            shard.referrers(self.index.seed, *param, *entity).extend_into(&mut out);
                        }
                    }
                }
                sort(&mut out);
            }
            Node::Has(source, reference, inner) => {
                if let Some(there) = self.rows(*source) {
                    for row in self.find(there, inner) {
                        if self.sees(there, row) {
                            for (_, entity) in there.shard.values(row).refs().filter(|(p, _)| p == reference) {
                                if self.index.entities.type_of(entity) == Some(rows.resource_type) {
                                    out.extend(self.index.row_at(shard, entity, self.visible));
                                }
                            }
                        }
                    }
                }
                sort(&mut out);
            }
        }
        out
    }

    /// The rows that meet all conditions.
    pub fn find_all(&self, rows: Rows<'a>, nodes: &[Node]) -> Vec<u32> {
        let Some((first, rest)) = self.order(rows, nodes) else {
            return (0..rows.end).collect();
        };
        let mut found = self.find(rows, first);
        for node in rest {
            if found.is_empty() {
                break;
            }
            self.narrow(rows, node, &mut found);
        }
        found
    }

    /// The condition to start from and the others, the most telling first.
    pub fn order<'n>(&self, rows: Rows<'a>, nodes: &'n [Node]) -> Option<(&'n Node, Vec<&'n Node>)> {
        let mut least = usize::MAX;
        let mut sized: Vec<(usize, &Node)> = Vec::with_capacity(nodes.len());
        let mut by_cost: Vec<&Node> = nodes.iter().collect();
        by_cost.sort_by_key(|n| effort(n));
        for node in by_cost {
            // What costs more a row must promise fewer rows, and is counted no further than it may win.
            let effort = effort(node);
            let n = self
                .estimate(rows, node, (least / effort).saturating_add(1))
                .saturating_mul(effort);
            least = least.min(n);
            sized.push((n, node));
        }
        sized.sort_by_key(|(n, _)| *n);
        let mut in_order = sized.into_iter().map(|(_, node)| node);
        Some((in_order.next()?, in_order.collect()))
    }

    /// Keeps the rows that meet the condition.
    pub fn narrow(&self, rows: Rows<'a>, node: &Node, found: &mut Vec<u32>) {
        let cap = found.len().saturating_mul(GALLOP);
        match node {
            Node::All(list) => list.iter().for_each(|n| self.narrow(rows, n, found)),
            Node::Not(inner) => self.without(rows, inner, found),
            Node::Match(_, Check::Keys(keys)) if self.all_many(rows, keys) => {
                let lists: Vec<&RoaringBitmap> =
                    keys.iter().filter_map(|k| rows.shard.keys.rows(*k)?.bitmap()).collect();
                found.retain(|r| lists.iter().any(|l| l.contains(*r)));
            }
            Node::Match(
                _,
                Check::Date(_) | Check::Number(_) | Check::Quantity(..) | Check::Tuple(_) | Check::RefsTo(..),
            )
            | Node::LastUpdated(_) => found.retain(|r| self.test(rows, node, *r)),
            Node::Present(param) => match rows.shard.present(*param).and_then(|p| p.bitmap()) {
                Some(bits) => found.retain(|r| bits.contains(*r)),
                None => intersect(found, &self.find(rows, node)),
            },
            Node::Chain(param, targets) if self.estimate(rows, node, cap) >= cap => {
                let mut known = HashMap::new();
                found.retain(|r| self.test_chain(rows, *param, targets, *r, &mut known));
            }
            _ if self.estimate(rows, node, cap.max(1)) < cap.max(1) => intersect(found, &self.find(rows, node)),
            _ => found.retain(|r| self.test(rows, node, *r)),
        }
    }

    /// Drops the rows that meet the condition.
    fn without(&self, rows: Rows<'a>, node: &Node, found: &mut Vec<u32>) {
        let mut met = found.clone();
        self.narrow(rows, node, &mut met);
        let mut met = met.into_iter().peekable();
        found.retain(|r| met.next_if_eq(r).is_none());
    }

    fn all_many(&self, rows: Rows<'a>, keys: &[u32]) -> bool {
        !keys.is_empty()
            && keys.len() <= GALLOP
            && keys
                .iter()
                .all(|k| rows.shard.keys.rows(*k).is_some_and(|p| p.bitmap().is_some()))
    }

    /// Whether a row meets the condition.
    pub fn test(&self, rows: Rows<'a>, node: &Node, row: u32) -> bool {
        let shard = rows.shard;
        match node {
            Node::Never => false,
            Node::Match(param, check) => match check {
                Check::Keys(keys) => shard.values(row).keys().any(|k| keys.binary_search(&k).is_ok()),
                Check::RefsTo(target, keys) => {
                    let values = shard.values(row);
                    let is = |e| self.index.entities.type_of(e) == Some(*target);
                    values.refs().any(|(p, e)| p == *param && is(e))
                        || values.keys().any(|k| keys.binary_search(&k).is_ok())
                }
                Check::Refs(to) => shard
                    .values(row)
                    .refs()
                    .any(|(p, e)| p == *param && to.binary_search(&e).is_ok()),
                Check::Date(test) => shard
                    .dates
                    .get(param)
                    .is_some_and(|d| d.any(row, |lo, hi| date_meets(test, lo, hi))),
                Check::Number(test) => shard
                    .values(row)
                    .numbers()
                    .any(|n| n.param == *param && number_meets(test, n.lo, n.hi)),
                Check::Quantity(test, units) => shard.values(row).numbers().any(|n| {
                    n.param == *param
                        && n.unit.is_some_and(|u| units.binary_search(&u).is_ok())
                        && number_meets(test, n.lo, n.hi)
                }),
                Check::Tuple(checks) => shard
                    .values(row)
                    .tuples()
                    .any(|(p, t)| p == *param && tuple_meets(t, checks)),
            },
            Node::Present(param) => shard.present(*param).is_some_and(|p| p.contains(row)),
            Node::Rows(list) => list.binary_search(&row).is_ok(),
            Node::LastUpdated(test) => shard.updated.get(row).is_some_and(|at| {
                let at = at as i64;
                date_meets(test, at, at.saturating_add(1))
            }),
            Node::Any(list) => list.iter().any(|n| self.test(rows, n, row)),
            Node::All(list) => list.iter().all(|n| self.test(rows, n, row)),
            Node::Not(inner) => !self.test(rows, inner, row),
            Node::Chain(param, targets) => self.test_chain(rows, *param, targets, row, &mut HashMap::new()),
            Node::Has(source, reference, inner) => {
                let (Some(there), Some(entity)) = (self.rows(*source), shard.entities.get(row)) else {
                    return false;
                };
                let mut from = Vec::new();
                there
                    .shard
                    .referrers(self.index.seed, *reference, *entity)
                    .extend_into(&mut from);
                from.into_iter()
                    .any(|r| self.sees(there, r) && self.test(there, inner, r))
            }
        }
    }

    fn test_chain(
        &self,
        rows: Rows<'a>,
        param: u16,
        targets: &[(ResourceType, Node)],
        row: u32,
        known: &mut HashMap<u32, bool>,
    ) -> bool {
        rows.shard
            .values(row)
            .refs()
            .filter(|(p, _)| *p == param)
            .any(|(_, entity)| {
                *known.entry(entity).or_insert_with(|| {
                    let Some(t) = self.index.entities.type_of(entity) else {
                        return false;
                    };
                    let mut inner = targets.iter().filter(|(target, _)| *target == t).peekable();
                    inner.peek().is_some()
                        && self
                            .seen_row_of(entity)
                            .is_some_and(|(there, r)| inner.any(|(_, n)| self.test(there, n, r)))
                })
            })
    }

    /// All rows, seen or not.
    pub fn end(&self, rows: Rows<'a>) -> u32 {
        rows.end
    }

    pub fn version(&self, rows: Rows<'a>, row: u32) -> Option<Version> {
        self.index.version_at(rows.resource_type, rows.shard, row)
    }
}

/// What finding a row by the condition costs beside reading it from a list.
fn effort(node: &Node) -> usize {
    match node {
        Node::Never | Node::Rows(_) | Node::Present(_) | Node::Match(_, Check::Keys(_) | Check::Refs(_)) => 1,
        Node::Match(..) | Node::Any(_) | Node::All(_) => 4,
        Node::LastUpdated(_) | Node::Not(_) => 8,
        Node::Chain(..) | Node::Has(..) => 16,
    }
}

/// Guess of how many resources refer to one, for estimates of chains.
const FAN: usize = 16;

fn tuple_meets(tuple: Tuple<'_>, checks: &[Check]) -> bool {
    let mut components = tuple.components();
    let met = checks.iter().all(|check| {
        components
            .next()
            .is_some_and(|parts| parts.iter().any(|part| part_meets(part, check)))
    });
    met && components.next().is_none()
}

fn part_meets(part: &Part, check: &Check) -> bool {
    match (part, check) {
        (Part::Key(k), Check::Keys(keys)) => keys.binary_search(k).is_ok(),
        (Part::Ref(e), Check::Refs(to)) => to.binary_search(e).is_ok(),
        (Part::Date(lo, hi), Check::Date(test)) => date_meets(test, *lo, *hi),
        (Part::Number(_, lo, hi), Check::Number(test)) => number_meets(test, *lo, *hi),
        (Part::Number(Some(u), lo, hi), Check::Quantity(test, units)) => {
            units.binary_search(u).is_ok() && number_meets(test, *lo, *hi)
        }
        _ => false,
    }
}

fn sort(rows: &mut Vec<u32>) {
    if !rows.is_sorted() {
        rows.sort_unstable();
    }
    rows.dedup();
}

/// Keeps what is also in `other`; both ascending.
fn intersect(found: &mut Vec<u32>, other: &[u32]) {
    let mut rest = other;
    found.retain(|r| {
        while let Some((first, tail)) = rest.split_first() {
            match first.cmp(r) {
                std::cmp::Ordering::Less => rest = tail,
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Greater => return false,
            }
        }
        false
    });
}

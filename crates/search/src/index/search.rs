//! One page of a search.

use super::eval::{Rows, View};
use super::plan::Node;
use super::ranges::{Dates, day};
use super::sort::{order, rank};
use super::{Cursor, Index, Limits, Page, RowFacts, SortValue, Version};
use crate::query::{Include, Query, SortBy, SortKey, Summary, Total};
use hashbrown::HashSet;
use std::cmp::Ordering;

/// With more candidates than this, matches are looked for from the newest and not all are counted unless asked.
const FEW: usize = 2000;

impl Index {
    pub(super) fn page(
        &self,
        query: &Query,
        visible: u64,
        permit: &dyn Fn(&RowFacts) -> bool,
        after: Option<&Cursor>,
        limits: Limits,
    ) -> Page {
        let at = after.map_or(visible, |c| c.visible.min(visible));
        let view = View {
            index: self,
            visible: at,
            now: visible,
            permit,
        };
        let wanted = query.total != Total::None;
        let Some(rows) = view.rows(query.resource_type) else {
            return Page {
                total: wanted.then_some(0),
                ..Page::default()
            };
        };
        let nodes: Vec<Node> = query
            .clauses
            .iter()
            .map(|c| self.plan(query.resource_type, c))
            .collect();
        let must_count = matches!(query.total, Total::Accurate | Total::Estimate) || query.summary == Summary::Count;
        let limit = limits.page.saturating_add(1);
        let (found, total) = match query.sort.as_slice() {
            [] => view.newest(rows, &nodes, must_count, after, limit),
            [first, ..] => match view.walk(rows, &nodes, first, limit).filter(|_| !must_count) {
                Some(dates) => (
                    view.sorted_by_walk(rows, &nodes, &query.sort, dates, after, limit),
                    None,
                ),
                None => view.sorted(rows, &nodes, &query.sort, after, limit),
            },
        };
        let more = found.len() > limits.page;
        let matches = found.get(..limits.page).unwrap_or(&found);
        let next = matches
            .last()
            .filter(|_| more && query.summary != Summary::Count)
            .map(|row| Cursor {
                visible: at,
                keys: self.sort_values(rows, *row, &query.sort),
                rid: rows.shard.rids.get(*row).unwrap_or(0),
            });
        let (included, truncated) = view.included(rows, matches, &query.includes, limits.includes);
        Page {
            matches: matches.iter().filter_map(|row| view.version(rows, *row)).collect(),
            included,
            total: total.filter(|_| wanted),
            next,
            truncated,
        }
    }
}

impl<'a> View<'a> {
    /// The newest matches, at most `limit`, and the number of all where it is known.
    fn newest(
        &self,
        rows: Rows<'a>,
        nodes: &[Node],
        must_count: bool,
        after: Option<&Cursor>,
        limit: usize,
    ) -> (Vec<u32>, Option<u64>) {
        let below = after.map_or(u32::MAX, |c| {
            c.rid.checked_sub(1).map_or(0, |rid| rows.shard.rids.up_to(rid))
        });
        let plan = self.order(rows, nodes);
        let candidates = plan.as_ref().map_or(self.end(rows) as usize, |(first, _)| {
            self.estimate(rows, first, FEW + 1)
        });
        if must_count || candidates <= FEW {
            let mut found = self.find_all(rows, nodes);
            found.retain(|row| self.sees(rows, *row));
            let total = found.len() as u64;
            found.truncate(found.partition_point(|row| *row < below));
            found.reverse();
            found.truncate(limit);
            return (found, Some(total));
        }
        let (mut source, rest) = match plan {
            None => (Source::Range(self.end(rows)), Vec::new()),
            Some((first, rest)) => (self.source(rows, first), rest),
        };
        source.cut(below);
        let mut found = Vec::new();
        let mut block = limit.clamp(64, 4096);
        loop {
            let mut some = source.take_last(block);
            if some.is_empty() {
                let all = after.is_none().then_some(found.len() as u64);
                return (found, all);
            }
            for node in &rest {
                self.narrow(rows, node, &mut some);
            }
            for row in some.into_iter().rev() {
                if self.sees(rows, row) {
                    found.push(row);
                    if found.len() >= limit {
                        return (found, None);
                    }
                }
            }
            block = block.saturating_mul(2);
        }
    }

    fn source(&self, rows: Rows<'a>, node: &Node) -> Source<'a> {
        use super::plan::Check;
        let list = match node {
            Node::Match(_, Check::Keys(keys)) => match keys.as_slice() {
                [one] => rows.shard.keys.rows(*one),
                _ => None,
            },
            Node::Present(param) => rows.shard.present(*param),
            _ => None,
        };
        match list.and_then(|p| p.bitmap()) {
            Some(bits) => Source::Bits(bits.iter()),
            None => Source::List(self.find(rows, node)),
        }
    }

    /// The first matches in the order of `keys`, at most `limit`, and the number of all.
    fn sorted(
        &self,
        rows: Rows<'a>,
        nodes: &[Node],
        keys: &[SortKey],
        after: Option<&Cursor>,
        limit: usize,
    ) -> (Vec<u32>, Option<u64>) {
        let index = self.index;
        let mut found = self.find_all(rows, nodes);
        found.retain(|row| self.sees(rows, *row));
        let total = Some(found.len() as u64);
        let rid = |row: u32| rows.shard.rids.get(row).unwrap_or(0);
        let is_after = |values: &[SortValue], row: u32| {
            after.is_none_or(|c| order(keys, (values, rid(row)), (&c.keys, c.rid)) == Ordering::Greater)
        };
        if let Some(first) = keys.first().filter(|k| found.len() > limit && index.ranks(rows, k)) {
            let mut ranked: Vec<(i64, u32)> = found.iter().map(|r| (index.rank_of(rows, *r, first), *r)).collect();
            if let Some(start) = after.and_then(|c| c.keys.first()).map(|v| rank(v, first.descending)) {
                ranked.retain(|(rank, row)| {
                    *rank > start || (*rank == start && is_after(&index.sort_values(rows, *row, keys), *row))
                });
            }
            if let Some(last) = limit.checked_sub(1).filter(|last| *last < ranked.len()) {
                let (_, (bound, _), _) = ranked.select_nth_unstable(last);
                let bound = *bound;
                ranked.retain(|(rank, _)| *rank <= bound);
            }
            found = ranked.into_iter().map(|(_, row)| row).collect();
        }
        let mut keyed: Vec<(Vec<SortValue>, u32)> = found
            .into_iter()
            .map(|row| (index.sort_values(rows, row, keys), row))
            .filter(|(values, row)| is_after(values, *row))
            .collect();
        keyed.sort_by(|a, b| order(keys, (&a.0, rid(a.1)), (&b.0, rid(b.1))));
        keyed.truncate(limit);
        (keyed.into_iter().map(|(_, row)| row).collect(), total)
    }

    /// The dates to walk along for matches in the order of `key`, when there are so many candidates that the first
    /// page is met sooner on the way than all are looked at.
    fn walk(&self, rows: Rows<'a>, nodes: &[Node], key: &SortKey, limit: usize) -> Option<&'a Dates> {
        let SortBy::Param(param) = key.by else { return None };
        let dates = rows.shard.dates.get(&param.0)?;
        let dated = rows.shard.present(param.0)?;
        let candidates = match self.order(rows, nodes) {
            Some((first, _)) => self.estimate(rows, first, usize::MAX),
            None => self.end(rows) as usize,
        };
        let on_the_way = dated.len().checked_div(candidates)?.saturating_mul(limit);
        (candidates > FEW && on_the_way < candidates).then_some(dates)
    }

    /// As [`View::sorted`], along the days of the first key.
    fn sorted_by_walk(
        &self,
        rows: Rows<'a>,
        nodes: &[Node],
        keys: &[SortKey],
        dates: &Dates,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Vec<u32> {
        let index = self.index;
        let Some(first) = keys.first() else { return Vec::new() };
        let mut out: Vec<(Vec<SortValue>, u32)> = Vec::new();
        let mut take = |mut some: Vec<u32>| {
            for node in nodes {
                self.narrow(rows, node, &mut some);
            }
            some.retain(|row| self.sees(rows, *row));
            let mut keyed: Vec<(Vec<SortValue>, u32)> = some
                .into_iter()
                .map(|row| (index.sort_values(rows, row, keys), row))
                .collect();
            let rid = |row: u32| rows.shard.rids.get(row).unwrap_or(0);
            keyed.retain(|(values, row)| {
                after.is_none_or(|c| order(keys, (values, rid(*row)), (&c.keys, c.rid)) == Ordering::Greater)
            });
            keyed.sort_by(|a, b| order(keys, (&a.0, rid(a.1)), (&b.0, rid(b.1))));
            out.append(&mut keyed);
            out.len() >= limit
        };
        let from = after.and_then(|c| match c.keys.first() {
            Some(SortValue::Int(at)) => Some(day(*at)),
            _ => None,
        });
        let passed = matches!(after.and_then(|c| c.keys.first()), Some(SortValue::Missing));
        let mut done = false;
        if !passed {
            // A row with several dates is in several buckets and is taken from that of the one it is ordered by.
            let ordered_by = |row: u32| {
                let best = index.rank_of(rows, row, first);
                day(if first.descending { !best } else { best })
            };
            dates.days(first.descending, from, |this, postings| {
                let mut some = Vec::new();
                postings.iter().for_each(|p| p.extend_into(&mut some));
                some.sort_unstable();
                some.dedup();
                some.retain(|row| ordered_by(*row) == this);
                done = take(some);
                !done
            });
        }
        if !done {
            let undated = (0..self.end(rows)).filter(|row| !dates.any(*row, |_, _| true));
            take(undated.collect());
        }
        out.truncate(limit);
        out.into_iter().map(|(_, row)| row).collect()
    }

    /// What the includes add to the matches, at most `limit`, and whether there was more.
    fn included(&self, rows: Rows<'a>, matches: &[u32], includes: &[Include], limit: usize) -> (Vec<Version>, bool) {
        let mut out = Vec::new();
        if includes.is_empty() {
            return (out, false);
        }
        let entity = |rows: Rows<'a>, row: u32| rows.shard.entities.get(row).copied();
        let mut seen: HashSet<u32> = matches.iter().filter_map(|r| entity(rows, *r)).collect();
        let mut from: Vec<(Rows<'a>, u32)> = matches.iter().map(|r| (rows, *r)).collect();
        let mut first = true;
        while !from.is_empty() {
            let mut fresh = Vec::new();
            for (rows, row) in from {
                for include in includes.iter().filter(|i| first || i.iterate) {
                    for (there, hit) in self.related(rows, row, include) {
                        if entity(there, hit).is_none_or(|e| seen.contains(&e)) || !self.sees(there, hit) {
                            continue;
                        }
                        if out.len() >= limit {
                            return (out, true);
                        }
                        seen.extend(entity(there, hit));
                        out.extend(self.version(there, hit));
                        fresh.push((there, hit));
                    }
                }
            }
            from = fresh;
            first = false;
        }
        (out, false)
    }

    /// The rows an include leads to from a row, seen or not.
    fn related(&self, rows: Rows<'a>, row: u32, include: &Include) -> Vec<(Rows<'a>, u32)> {
        let index = self.index;
        if include.reverse {
            let (Some(there), Some(entity)) = (self.rows(include.source), rows.shard.entities.get(row)) else {
                return Vec::new();
            };
            if include.target.is_some_and(|t| t != rows.resource_type) {
                return Vec::new();
            }
            let mut list = Vec::new();
            for param in &include.params {
                there
                    .shard
                    .referrers(index.seed, param.0, *entity)
                    .extend_into(&mut list);
            }
            return list.into_iter().map(|r| (there, r)).collect();
        }
        if include.source != rows.resource_type {
            return Vec::new();
        }
        let refs = rows
            .shard
            .values(row)
            .refs()
            .filter(|(p, _)| include.params.iter().any(|q| q.0 == *p));
        refs.filter_map(|(_, entity)| {
            let target = index
                .entities
                .type_of(entity)
                .filter(|t| include.target.is_none_or(|w| w == *t))?;
            let there = self.rows(target)?;
            Some((there, index.row_at(there.shard, entity, self.visible)?))
        })
        .collect()
    }
}

/// Rows taken from the end.
enum Source<'a> {
    Range(u32),
    List(Vec<u32>),
    Bits(roaring::bitmap::Iter<'a>),
}

impl Source<'_> {
    /// Drops rows from `end` on.
    fn cut(&mut self, end: u32) {
        match self {
            Self::Range(n) => *n = (*n).min(end),
            Self::List(list) => list.truncate(list.partition_point(|r| *r < end)),
            Self::Bits(iter) => match end.checked_sub(1) {
                Some(last) => iter.advance_back_to(last),
                None => *self = Self::Range(0),
            },
        }
    }

    /// The last rows, at most `n`, in ascending order.
    fn take_last(&mut self, n: usize) -> Vec<u32> {
        match self {
            Self::Range(end) => {
                let from = end.saturating_sub(n as u32);
                let rows = (from..*end).collect();
                *end = from;
                rows
            }
            Self::List(list) => list.split_off(list.len().saturating_sub(n)),
            Self::Bits(iter) => {
                let mut rows: Vec<u32> = iter.rev().take(n).collect();
                rows.reverse();
                rows
            }
        }
    }
}

/// The rows of a posting as a bitmap, for tests of the sources.
#[cfg(test)]
fn bits(rows: &[u32]) -> roaring::RoaringBitmap {
    rows.iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_give_the_same_rows_from_the_end() {
        let rows: Vec<u32> = (0..1000).collect();
        let bits = bits(&rows);
        for cut in [0, 1, 500, 999, 1000, u32::MAX] {
            for n in [1, 7, 64, 5000] {
                let sources = [
                    Source::Range(1000),
                    Source::List(rows.clone()),
                    Source::Bits(bits.iter()),
                ];
                let all = sources.map(|mut s| {
                    s.cut(cut);
                    std::iter::from_fn(|| Some(s.take_last(n)).filter(|l| !l.is_empty())).collect::<Vec<_>>()
                });
                assert_eq!(all[0], all[1]);
                assert_eq!(all[0], all[2]);
                let mut flat: Vec<u32> = all[0].iter().rev().flatten().copied().collect();
                flat.dedup();
                assert_eq!(flat.len(), cut.min(1000) as usize);
            }
        }
    }
}

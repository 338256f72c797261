//! The order of matches: by the values of the sort keys, missing ones last in either direction, then newest first.

use super::eval::Rows;
use super::keys::Kind;
use super::plan::folded;
use super::{Index, SortValue};
use crate::query::{SortBy, SortKey};
use std::cmp::Ordering;

impl Index {
    /// What a row is ordered by under a key: of several values the least when ascending, the greatest when
    /// descending; a range counts by its start.
    pub(super) fn sort_value(&self, rows: Rows<'_>, row: u32, key: &SortKey) -> SortValue {
        let shard = rows.shard;
        let param = match key.by {
            SortBy::Id => {
                return shard
                    .entities
                    .get(row)
                    .map_or(SortValue::Missing, |e| SortValue::Text(self.entities.id(*e)));
            }
            SortBy::LastUpdated => {
                return shard
                    .updated
                    .get(row)
                    .map_or(SortValue::Missing, |at| SortValue::Int(at as i64));
            }
            SortBy::Param(p) => p.0,
        };
        let mut best = SortValue::Missing;
        let mut offer = |value: SortValue| {
            let better = match compare(&value, &best) {
                _ if best == SortValue::Missing => true,
                Ordering::Less => !key.descending,
                Ordering::Greater => key.descending,
                Ordering::Equal => false,
            };
            if better {
                best = value;
            }
        };
        if let Some(dates) = shard.dates.get(&param) {
            dates.any(row, |lo, _| {
                offer(SortValue::Int(lo));
                false
            });
        }
        let values = shard.values(row);
        for k in values
            .keys()
            .filter_map(|k| shard.keys.get(k))
            .filter(|k| k.param == param)
        {
            match k.kind {
                Kind::Token | Kind::Url | Kind::Uri => offer(SortValue::Text(self.strings.text(k.text).to_owned())),
                Kind::Str => offer(SortValue::Text(folded(&self.strings, k))),
                _ => {}
            }
        }
        for (_, entity) in values.refs().filter(|(p, _)| *p == param) {
            if let Some(t) = self.entities.type_of(entity) {
                offer(SortValue::Text(format!("{t}/{}", self.entities.id(entity))));
            }
        }
        for n in values.numbers().filter(|n| n.param == param) {
            offer(SortValue::Float(n.lo));
        }
        best
    }

    /// The values of all keys.
    pub(super) fn sort_values(&self, rows: Rows<'_>, row: u32, keys: &[SortKey]) -> Vec<SortValue> {
        keys.iter().map(|k| self.sort_value(rows, row, k)).collect()
    }

    /// Whether the first key's values are numbers, for most rows cheap to compare: see [`rank`].
    pub(super) fn ranks(&self, rows: Rows<'_>, key: &SortKey) -> bool {
        match key.by {
            SortBy::LastUpdated => true,
            SortBy::Id => false,
            SortBy::Param(p) => rows.shard.dates.contains_key(&p.0) || rows.shard.numbers.contains_key(&p.0),
        }
    }

    /// [`rank`] of a row's value under a key.
    pub(super) fn rank_of(&self, rows: Rows<'_>, row: u32, key: &SortKey) -> i64 {
        if let SortBy::Param(p) = key.by
            && let Some(dates) = rows.shard.dates.get(&p.0)
        {
            let mut best = i64::MAX;
            dates.any(row, |lo, _| {
                best = best.min(if key.descending { !lo } else { lo });
                false
            });
            return best;
        }
        rank(&self.sort_value(rows, row, key), key.descending)
    }
}

/// A number that orders values of one kind as [`order`] does, but for ties between what is missing and the last value
/// there can be.
pub fn rank(value: &SortValue, descending: bool) -> i64 {
    let ascending = match value {
        SortValue::Int(v) => *v,
        SortValue::Float(v) => {
            let bits = v.to_bits() as i64;
            bits ^ (((bits >> 63) as u64) >> 1) as i64
        }
        SortValue::Text(_) | SortValue::Missing => return i64::MAX,
    };
    if descending { !ascending } else { ascending }
}

/// Orders values; of different kinds by kind, missing last.
pub fn compare(a: &SortValue, b: &SortValue) -> Ordering {
    let kind = |v: &SortValue| match v {
        SortValue::Int(_) => 0,
        SortValue::Float(_) => 1,
        SortValue::Text(_) => 2,
        SortValue::Missing => 3,
    };
    match (a, b) {
        (SortValue::Int(a), SortValue::Int(b)) => a.cmp(b),
        (SortValue::Float(a), SortValue::Float(b)) => a.total_cmp(b),
        (SortValue::Text(a), SortValue::Text(b)) => a.cmp(b),
        _ => kind(a).cmp(&kind(b)),
    }
}

/// Orders matches, given by their values and rid.
pub fn order(keys: &[SortKey], a: (&[SortValue], u64), b: (&[SortValue], u64)) -> Ordering {
    for (key, (x, y)) in keys.iter().zip(a.0.iter().zip(b.0)) {
        let missing = *x == SortValue::Missing || *y == SortValue::Missing;
        let by_key = compare(x, y);
        let by_key = if key.descending && !missing {
            by_key.reverse()
        } else {
            by_key
        };
        if by_key != Ordering::Equal {
            return by_key;
        }
    }
    b.1.cmp(&a.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_like_values() {
        let floats = [f64::NEG_INFINITY, -2.5, -0.0, 0.0, 1e-300, 2.5, f64::INFINITY].map(SortValue::Float);
        let ints = [i64::MIN, -1, 0, 1, i64::MAX - 1].map(SortValue::Int);
        for list in [&floats[..], &ints[..]] {
            assert!(list.is_sorted_by(|a, b| rank(a, false) < rank(b, false)));
            assert!(list.is_sorted_by(|a, b| rank(a, true) > rank(b, true)));
            assert!(list.iter().all(|v| rank(v, false) < rank(&SortValue::Missing, false)));
        }
    }
}

//! Dates and numbers: the tests on them, and rows in buckets by where their range starts.

use super::columns::Column;
use super::postings::Posting;
use crate::query::{DateTest, NumberTest, Prefix};
use std::collections::BTreeMap;

/// Whether a target range of dates, end exclusive, meets the test (R4 search, 2.1.1.4.1).
#[inline]
pub fn date_meets(test: &DateTest, lo: i64, hi: i64) -> bool {
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

/// Whether a target number or range, ends inclusive, meets the test. All but `eq ne ap` take the value as exact.
#[inline]
pub fn number_meets(test: &NumberTest, lo: f64, hi: f64) -> bool {
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

/// Rows by the bucket their range starts in, apart for each class of length, so that a search for ranges that reach
/// into an interval need not look far before it.
#[derive(Default)]
pub struct Buckets {
    rows: BTreeMap<(u8, i32), Posting>,
}

impl Buckets {
    pub fn push(&mut self, class: u8, bucket: i32, row: u32) {
        self.rows.entry((class, bucket)).or_default().push(row);
    }

    /// Postings of a class from one bucket to another, both included.
    pub fn between(&self, class: u8, from: i32, to: i32) -> impl DoubleEndedIterator<Item = (i32, &Posting)> {
        let range = (from <= to).then(|| self.rows.range((class, from)..=(class, to)));
        range.into_iter().flatten().map(|((_, b), p)| (*b, p))
    }

    pub fn shrink(&mut self) {
        self.rows.values_mut().for_each(Posting::shrink);
    }

    pub fn bytes(&self) -> usize {
        self.rows.values().map(|p| 48 + p.bytes()).sum()
    }
}

/// The dates of one parameter.
#[derive(Default)]
pub struct Dates {
    cells: Cells,
    /// Rows with several dates, or one that does not fit a cell.
    more: BTreeMap<u32, Box<[(i64, i64)]>>,
    pub buckets: Buckets,
}

enum Cells {
    /// A cell for every row up to the last with a date.
    Dense(Column<u64>),
    /// Where few rows have a date: row numbers and their cells.
    Sparse { rows: Column<u32>, cells: Column<u64> },
}

impl Default for Cells {
    fn default() -> Self {
        Self::Dense(Column::default())
    }
}

const NOTHING: u64 = u64::MAX;
const MORE: u64 = u64::MAX - 1;
const DAY: i64 = 86_400_000;

/// Number of classes of date lengths.
pub const DATE_CLASSES: u8 = 4;

impl Dates {
    /// Sets the dates of a row above all others.
    pub fn push(&mut self, row: u32, dates: &[(i64, i64)]) {
        let cell = match dates {
            [] => return,
            [(lo, hi)] => pack(*lo, *hi).unwrap_or(MORE),
            _ => MORE,
        };
        if cell == MORE {
            self.more.insert(row, dates.into());
        }
        if let Cells::Dense(column) = &self.cells
            && row > 4 * column.len() + 64
        {
            let mut sparse = (Column::default(), Column::default());
            for (r, c) in (0..).zip(column.iter()).filter(|(_, c)| **c != NOTHING) {
                sparse.0.push(r);
                sparse.1.push(*c);
            }
            self.cells = Cells::Sparse {
                rows: sparse.0,
                cells: sparse.1,
            };
        }
        match &mut self.cells {
            Cells::Dense(column) => {
                while column.len() < row {
                    column.push(NOTHING);
                }
                column.push(cell);
            }
            Cells::Sparse { rows, cells } => {
                rows.push(row);
                cells.push(cell);
            }
        }
        for (lo, hi) in dates {
            self.buckets.push(class(*lo, *hi), day(*lo), row);
        }
    }

    #[inline]
    fn cell(&self, row: u32) -> u64 {
        match &self.cells {
            Cells::Dense(column) => column.get(row).copied().unwrap_or(NOTHING),
            Cells::Sparse { rows, cells } => {
                let (mut from, mut to) = (0, rows.len());
                while from < to {
                    let middle = from + (to - from) / 2;
                    match rows.get(middle).copied().unwrap_or(u32::MAX).cmp(&row) {
                        std::cmp::Ordering::Less => from = middle + 1,
                        std::cmp::Ordering::Greater => to = middle,
                        std::cmp::Ordering::Equal => return cells.get(middle).copied().unwrap_or(NOTHING),
                    }
                }
                NOTHING
            }
        }
    }

    /// Whether some date of the row meets the condition.
    #[inline]
    pub fn any(&self, row: u32, mut condition: impl FnMut(i64, i64) -> bool) -> bool {
        match self.cell(row) {
            NOTHING => false,
            MORE => self
                .more
                .get(&row)
                .is_some_and(|list| list.iter().any(|(lo, hi)| condition(*lo, *hi))),
            cell => {
                let (lo, hi) = unpack(cell);
                condition(lo, hi)
            }
        }
    }

    /// The postings that hold all rows that can meet the test, and others.
    pub fn candidates(&self, test: &DateTest) -> impl Iterator<Item = &Posting> {
        let test = *test;
        (0..DATE_CLASSES).flat_map(move |class| {
            let (from, to) = starts(&test, class);
            self.buckets.between(class, day(from), day(to)).map(|(_, p)| p)
        })
    }

    /// Calls `each` with a day and the postings of the ranges that start on it, day by day in either direction, from a
    /// day on if given, until it returns false.
    pub fn days(&self, backwards: bool, from: Option<i32>, mut each: impl FnMut(i32, &[&Posting]) -> bool) {
        let (low, high) = match from {
            None => (i32::MIN, i32::MAX),
            Some(day) if backwards => (i32::MIN, day),
            Some(day) => (day, i32::MAX),
        };
        let class = |class| {
            let days = self.buckets.between(class, low, high);
            let ordered: Box<dyn Iterator<Item = (i32, &Posting)>> = if backwards {
                Box::new(days.rev())
            } else {
                Box::new(days)
            };
            ordered.peekable()
        };
        let mut classes: [_; DATE_CLASSES as usize] = [class(0), class(1), class(2), class(3)];
        loop {
            let heads = classes.iter_mut().filter_map(|c| c.peek().map(|(day, _)| *day));
            let Some(this) = (if backwards { heads.max() } else { heads.min() }) else {
                return;
            };
            let postings: Vec<&Posting> = classes
                .iter_mut()
                .filter_map(|c| c.next_if(|(day, _)| *day == this))
                .map(|(_, p)| p)
                .collect();
            if !each(this, &postings) {
                return;
            }
        }
    }

    pub fn shrink(&mut self) {
        match &mut self.cells {
            Cells::Dense(column) => column.shrink(),
            Cells::Sparse { rows, cells } => {
                rows.shrink();
                cells.shrink();
            }
        }
        self.buckets.shrink();
    }

    pub fn bytes(&self) -> usize {
        let cells = match &self.cells {
            Cells::Dense(column) => column.bytes(),
            Cells::Sparse { rows, cells } => rows.bytes() + cells.bytes(),
        };
        cells + self.buckets.bytes() + self.more.values().map(|m| 40 + m.len() * 16).sum::<usize>()
    }
}

/// Between which instants a range of a class must start to meet the test.
fn starts(test: &DateTest, class: u8) -> (i64, i64) {
    let longest = longest(class);
    let reach = |at: i64| {
        if longest == i64::MAX {
            i64::MIN
        } else {
            at.saturating_sub(longest)
        }
    };
    match test.prefix {
        Prefix::Eq => (test.lo, test.hi),
        Prefix::Ne => (i64::MIN, i64::MAX),
        Prefix::Gt => (reach(test.hi), i64::MAX),
        Prefix::Ge => (reach(test.hi).min(test.lo), i64::MAX),
        Prefix::Lt | Prefix::Eb => (i64::MIN, test.lo),
        Prefix::Le => (i64::MIN, test.hi.max(test.lo)),
        Prefix::Sa => (test.hi, i64::MAX),
        Prefix::Ap => (reach(test.lo), test.hi),
    }
}

/// The class of a range by its length.
pub fn class(lo: i64, hi: i64) -> u8 {
    let length = hi.saturating_sub(lo);
    (0..DATE_CLASSES)
        .find(|c| length <= longest(*c))
        .unwrap_or(DATE_CLASSES - 1)
}

fn longest(class: u8) -> i64 {
    match class {
        0 => DAY,
        1 => 32 * DAY,
        2 => 800 * DAY,
        _ => i64::MAX,
    }
}

/// The day an instant is in, as far as `i32` goes.
pub fn day(at: i64) -> i32 {
    at.div_euclid(DAY).clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

const START_BITS: u32 = 44;
const START_BIAS: i64 = 1 << (START_BITS - 1);

/// A range in 64 bits: start in milliseconds within 278 years of 1970, and length as a count of milliseconds,
/// seconds or days below 2^18, or open. Others do not fit.
fn pack(lo: i64, hi: i64) -> Option<u64> {
    let start = u64::try_from(lo.checked_add(START_BIAS)?)
        .ok()
        .filter(|s| *s < 1 << START_BITS)?;
    let length = if hi == i64::MAX {
        3 << 18
    } else {
        let ms = u64::try_from(hi.checked_sub(lo)?).ok()?;
        let fits = |unit: u64| (ms.is_multiple_of(unit) && ms / unit < 1 << 18).then_some(ms / unit);
        match (fits(1), fits(1000), fits(DAY as u64)) {
            (Some(n), ..) => n,
            (_, Some(n), _) => 1 << 18 | n,
            (.., Some(n)) => 2 << 18 | n,
            _ => return None,
        }
    };
    Some(start << 20 | length)
}

#[inline]
fn unpack(cell: u64) -> (i64, i64) {
    let lo = (cell >> 20) as i64 - START_BIAS;
    let n = (cell & 0x3_ffff) as i64;
    let hi = match cell >> 18 & 3 {
        0 => lo + n,
        1 => lo + n * 1000,
        2 => lo + n * DAY,
        _ => i64::MAX,
    };
    (lo, hi)
}

/// Class and bucket of a number or range of numbers: single numbers by sign, exponent and leading digits.
pub fn number_bucket(lo: f64, hi: f64) -> (u8, i32) {
    if lo == hi { (0, number_place(lo)) } else { (1, 0) }
}

/// Order-preserving, about 256 places for each doubling.
fn number_place(value: f64) -> i32 {
    let value = if value == 0.0 { 0.0 } else { value };
    let bits = value.to_bits();
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    (ordered >> 44) as i32
}

/// The postings that hold all rows that can meet the test, and others.
pub fn number_candidates<'a>(buckets: &'a Buckets, test: &NumberTest) -> impl Iterator<Item = &'a Posting> {
    let (from, to) = match test.prefix {
        Prefix::Ne => (f64::NEG_INFINITY, f64::INFINITY),
        Prefix::Eq | Prefix::Ap => (test.lo, test.hi),
        Prefix::Gt | Prefix::Ge | Prefix::Sa => (test.value, f64::INFINITY),
        Prefix::Lt | Prefix::Le | Prefix::Eb => (f64::NEG_INFINITY, test.value),
    };
    let points = buckets.between(0, number_place(from), number_place(to));
    points.chain(buckets.between(1, i32::MIN, i32::MAX)).map(|(_, p)| p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_fit_a_cell_or_are_refused() {
        let now = 1_700_000_000_123;
        for (lo, hi) in [
            (now, now),
            (now, now + 1),
            (now, now + 1000),
            (now, now + DAY),
            (now, now + 36_525 * DAY),
            (-now, i64::MAX),
        ] {
            assert_eq!(pack(lo, hi).map(unpack), Some((lo, hi)));
        }
        for (lo, hi) in [
            (i64::MIN, now),
            (now, now - 1),
            (now, now + 86_400_001),
            (i64::MAX, i64::MAX),
            (1 << 43, 1 << 43),
        ] {
            assert_eq!(pack(lo, hi), None);
        }
    }

    #[test]
    fn candidates_hold_every_row_that_meets_the_test() {
        let t = 1_600_000_000_000;
        let points: Vec<i64> = [-900, -33, -32, -2, -1, 0, 1, 2, 40]
            .iter()
            .flat_map(|d| [t + d * DAY, t + d * DAY + 1])
            .chain([i64::MIN, i64::MAX])
            .collect();
        let mut dates = Dates::default();
        let mut ranges = vec![];
        for lo in &points {
            for hi in points.iter().filter(|hi| *hi >= lo) {
                dates.push(ranges.len() as u32, &[(*lo, *hi)]);
                ranges.push((*lo, *hi));
            }
        }
        use Prefix::*;
        for prefix in [Eq, Ne, Gt, Lt, Ge, Le, Sa, Eb, Ap] {
            for (lo, hi) in &ranges {
                let test = DateTest {
                    prefix,
                    lo: *lo,
                    hi: *hi,
                };
                let found: Vec<u32> = dates
                    .candidates(&test)
                    .flat_map(|p| p.iter().collect::<Vec<_>>())
                    .collect();
                for (row, (lo, hi)) in (0..).zip(&ranges) {
                    assert!(dates.any(row, |l, h| (l, h) == (*lo, *hi)));
                    assert!(
                        found.contains(&row) || !date_meets(&test, *lo, *hi),
                        "{prefix:?} {test:?} {lo} {hi}"
                    );
                }
            }
        }
    }

    #[test]
    fn numbers_keep_their_order_in_buckets() {
        let values = [
            f64::NEG_INFINITY,
            -1e9,
            -1.0,
            -1e-9,
            0.0,
            1e-9,
            0.5,
            1.0,
            1.001,
            100.0,
            f64::INFINITY,
        ];
        assert!(values.map(number_place).is_sorted());
        assert_eq!(number_place(-0.0), number_place(0.0));
    }

    #[test]
    fn sparse_columns_answer_like_dense_ones() {
        let mut d = Dates::default();
        for row in (0..10u32).chain((1000..200_000).step_by(997)) {
            d.push(row, &[(i64::from(row), i64::from(row) + 1)]);
        }
        assert!(matches!(d.cells, Cells::Sparse { .. }));
        for row in (0..10u32).chain((1000..200_000).step_by(997)) {
            assert!(d.any(row, |lo, _| lo == i64::from(row)));
            assert!(!d.any(row + 500_000, |_, _| true));
        }
        assert!(!d.any(11, |_, _| true));
    }
}

//! The values of one row, packed: what verifies a candidate, orders matches and feeds the postings.
//!
//! Three groups, each with its length in bytes before it (keys, references, numbers), then tuples to the end. Within a
//! group the order is that of extraction, so that two indexes of the same rows can be told to be equal. Dates are in
//! columns of their own (`dates`).

use super::postings::{put, put64, take, take64, unzigzag, zigzag};

/// The values of a row being taken in.
#[derive(Default)]
pub struct Builder {
    /// Numbers of interned values.
    pub keys: Vec<u32>,
    /// Parameter and resource.
    pub refs: Vec<(u16, u32)>,
    pub numbers: Vec<Number>,
    /// Packed tuples, see [`put_tuple`].
    pub tuples: Vec<u8>,
    /// Parameter and range.
    pub dates: Vec<(u16, i64, i64)>,
    scratch: Vec<u8>,
    packed: Vec<u8>,
}

/// A number or quantity of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number {
    pub param: u16,
    /// The key of its unit; none for a plain number.
    pub unit: Option<u32>,
    pub lo: f64,
    pub hi: f64,
}

impl Builder {
    pub fn clear(&mut self) {
        self.keys.clear();
        self.refs.clear();
        self.numbers.clear();
        self.tuples.clear();
        self.dates.clear();
    }

    /// Drops repeated values.
    pub fn dedup(&mut self) {
        dedup(&mut self.keys);
        dedup(&mut self.refs);
        dedup(&mut self.dates);
    }

    /// All but the dates, packed; empty if there is nothing.
    pub fn pack(&mut self) -> &[u8] {
        let (out, group) = (&mut self.packed, &mut self.scratch);
        out.clear();
        group.clear();
        if self.keys.is_empty() && self.refs.is_empty() && self.numbers.is_empty() && self.tuples.is_empty() {
            return out;
        }
        for k in &self.keys {
            put(group, *k);
        }
        put64(out, group.len() as u64);
        out.append(group);
        for (p, e) in &self.refs {
            put(group, u32::from(*p));
            put(group, *e);
        }
        put64(out, group.len() as u64);
        out.append(group);
        for n in &self.numbers {
            put(group, u32::from(n.param));
            put_number(group, n.unit, n.lo, n.hi);
        }
        put64(out, group.len() as u64);
        out.append(group);
        out.extend_from_slice(&self.tuples);
        out
    }
}

/// Drops later copies, keeping the order.
fn dedup<T: Copy + Eq + std::hash::Hash>(list: &mut Vec<T>) {
    if list.len() > 32 {
        let mut seen = hashbrown::HashSet::with_capacity(list.len());
        list.retain(|v| seen.insert(*v));
        return;
    }
    let mut kept = 0;
    for at in 0..list.len() {
        let Some(v) = list.get(at).copied() else { break };
        if !list.get(..kept).is_some_and(|before| before.contains(&v)) {
            if let Some(slot) = list.get_mut(kept) {
                *slot = v;
            }
            kept += 1;
        }
    }
    list.truncate(kept);
}

/// A row's values as packed.
#[derive(Clone, Copy, Default)]
pub struct Values<'a> {
    keys: &'a [u8],
    refs: &'a [u8],
    numbers: &'a [u8],
    tuples: &'a [u8],
}

impl<'a> Values<'a> {
    /// Splits the groups; what is cut short reads as empty.
    #[inline]
    pub fn new(packed: &'a [u8]) -> Self {
        let mut rest = packed;
        let mut group = || {
            let len = take(&mut rest)? as usize;
            let (head, tail) = rest.split_at_checked(len)?;
            rest = tail;
            Some(head)
        };
        let (keys, refs, numbers) = (
            group().unwrap_or_default(),
            group().unwrap_or_default(),
            group().unwrap_or_default(),
        );
        Self {
            keys,
            refs,
            numbers,
            tuples: rest,
        }
    }

    #[inline]
    pub fn keys(self) -> impl Iterator<Item = u32> + 'a {
        let mut rest = self.keys;
        std::iter::from_fn(move || take(&mut rest))
    }

    #[inline]
    pub fn refs(self) -> impl Iterator<Item = (u16, u32)> + 'a {
        let mut rest = self.refs;
        std::iter::from_fn(move || Some((take(&mut rest)? as u16, take(&mut rest)?)))
    }

    pub fn numbers(self) -> impl Iterator<Item = Number> + 'a {
        let mut rest = self.numbers;
        std::iter::from_fn(move || {
            let param = take(&mut rest)? as u16;
            let (unit, lo, hi) = take_number(&mut rest)?;
            Some(Number { param, unit, lo, hi })
        })
    }

    /// Parameter and packed tuple.
    pub fn tuples(self) -> impl Iterator<Item = (u16, Tuple<'a>)> + 'a {
        let mut rest = self.tuples;
        std::iter::from_fn(move || {
            let param = take(&mut rest)? as u16;
            let len = take(&mut rest)? as usize;
            let (head, tail) = rest.split_at_checked(len)?;
            rest = tail;
            Some((param, Tuple(head)))
        })
    }
}

/// One tuple as packed: for each component the number of its values, then the values.
#[derive(Clone, Copy)]
pub struct Tuple<'a>(&'a [u8]);

/// One value of a tuple's component.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// An interned value.
    Key(u32),
    /// A resource.
    Ref(u32),
    /// A number or quantity.
    Number(Option<u32>, f64, f64),
    /// A date.
    Date(i64, i64),
}

impl<'a> Tuple<'a> {
    /// The components in order, each with its values.
    pub fn components(self) -> impl Iterator<Item = Vec<Part>> + 'a {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let n = take(&mut rest)?;
            let mut parts = Vec::with_capacity(n.min(16) as usize);
            for _ in 0..n {
                parts.push(take_part(&mut rest)?);
            }
            Some(parts)
        })
    }
}

/// Packs a tuple.
pub fn put_tuple(out: &mut Vec<u8>, param: u16, components: &[Vec<Part>]) {
    let mut body = Vec::new();
    for parts in components {
        put64(&mut body, parts.len() as u64);
        for part in parts {
            match *part {
                Part::Key(k) => {
                    body.push(0);
                    put(&mut body, k);
                }
                Part::Ref(e) => {
                    body.push(1);
                    put(&mut body, e);
                }
                Part::Number(unit, lo, hi) => {
                    body.push(2);
                    put_number(&mut body, unit, lo, hi);
                }
                Part::Date(lo, hi) => {
                    body.push(3);
                    put64(&mut body, zigzag(lo));
                    put64(&mut body, zigzag(hi));
                }
            }
        }
    }
    put(out, u32::from(param));
    put64(out, body.len() as u64);
    out.append(&mut body);
}

fn take_part(rest: &mut &[u8]) -> Option<Part> {
    let (tag, tail) = rest.split_first()?;
    *rest = tail;
    Some(match tag {
        0 => Part::Key(take(rest)?),
        1 => Part::Ref(take(rest)?),
        2 => {
            let (unit, lo, hi) = take_number(rest)?;
            Part::Number(unit, lo, hi)
        }
        3 => Part::Date(unzigzag(take64(rest)?), unzigzag(take64(rest)?)),
        _ => return None,
    })
}

fn put_number(out: &mut Vec<u8>, unit: Option<u32>, lo: f64, hi: f64) {
    put64(out, unit.map_or(0, |u| u64::from(u) + 1));
    put_f64(out, lo);
    if lo.to_bits() == hi.to_bits() {
        out.push(SAME);
    } else {
        put_f64(out, hi);
    }
}

fn take_number(rest: &mut &[u8]) -> Option<(Option<u32>, f64, f64)> {
    let unit = match take64(rest)? {
        0 => None,
        n => Some(u32::try_from(n - 1).ok()?),
    };
    let lo = take_f64(rest, None)?;
    let hi = take_f64(rest, Some(lo))?;
    Some((unit, lo, hi))
}

const POWERS: [f64; 9] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8];
const RAW: u8 = 9;
const SAME: u8 = 10;

/// A decimal of few digits as those digits and the place of the point; anything else as its eight bytes.
fn put_f64(out: &mut Vec<u8>, value: f64) {
    if value.abs() < 1e6 {
        for (place, power) in POWERS.iter().enumerate() {
            let digits = (value * power).round() as i64;
            if (digits as f64 / power).to_bits() == value.to_bits() {
                out.push(place as u8);
                put64(out, zigzag(digits));
                return;
            }
        }
    }
    out.push(RAW);
    out.extend(value.to_le_bytes());
}

fn take_f64(rest: &mut &[u8], same: Option<f64>) -> Option<f64> {
    let (tag, tail) = rest.split_first()?;
    *rest = tail;
    match *tag {
        RAW => {
            let (bytes, tail) = rest.split_first_chunk::<8>()?;
            *rest = tail;
            Some(f64::from_le_bytes(*bytes))
        }
        SAME => same,
        place => {
            let power = POWERS.get(usize::from(place))?;
            Some(unzigzag(take64(rest)?) as f64 / power)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_round_trip() {
        let numbers = [
            0.0,
            -0.0,
            1.0,
            6.3,
            98.6,
            -12.25,
            0.1 + 0.2,
            1e-9,
            1e300,
            f64::INFINITY,
            f64::NEG_INFINITY,
            999_999.999,
        ];
        let mut b = Builder {
            keys: vec![5, 1, 300, 5, u32::MAX],
            refs: vec![(3, 9), (2, 70_000), (3, 9)],
            numbers: numbers
                .iter()
                .map(|n| Number {
                    param: 300,
                    unit: Some(4),
                    lo: *n,
                    hi: *n,
                })
                .collect(),
            ..Builder::default()
        };
        b.numbers.push(Number {
            param: 1,
            unit: None,
            lo: f64::NEG_INFINITY,
            hi: 3.0,
        });
        let tuple = vec![
            vec![Part::Key(7), Part::Key(8)],
            vec![],
            vec![
                Part::Number(None, 1.5, 2.5),
                Part::Date(i64::MIN, i64::MAX),
                Part::Ref(12),
            ],
        ];
        put_tuple(&mut b.tuples, 40, &tuple);
        put_tuple(&mut b.tuples, 41, &[]);
        b.dedup();
        let packed = b.pack().to_vec();
        let v = Values::new(&packed);
        assert_eq!(v.keys().collect::<Vec<_>>(), [5, 1, 300, u32::MAX]);
        assert_eq!(v.refs().collect::<Vec<_>>(), [(3, 9), (2, 70_000)]);
        let back: Vec<Number> = v.numbers().collect();
        assert_eq!(back.len(), numbers.len() + 1);
        for (x, n) in back.iter().zip(numbers) {
            assert_eq!(x.lo.to_bits(), n.to_bits());
            assert_eq!(x.hi.to_bits(), n.to_bits());
        }
        assert_eq!(back.last(), b.numbers.last());
        let tuples: Vec<(u16, Vec<Vec<Part>>)> = v.tuples().map(|(p, t)| (p, t.components().collect())).collect();
        assert_eq!(tuples, [(40, tuple), (41, vec![])]);
    }

    #[test]
    fn cut_bytes_read_as_less() {
        let mut b = Builder {
            keys: vec![1, 2, 3],
            refs: vec![(1, 2)],
            ..Builder::default()
        };
        put_tuple(&mut b.tuples, 1, &[vec![Part::Key(1)]]);
        let packed = b.pack().to_vec();
        for n in 0..packed.len() {
            let v = Values::new(&packed[..n]);
            let _ = (v.keys().count(), v.refs().count(), v.numbers().count());
            v.tuples().for_each(|(_, t)| assert!(t.components().count() < 2));
        }
    }

    #[test]
    fn many_copies_are_dropped_in_order() {
        let mut long: Vec<u32> = (0..100).map(|i| i % 40).collect();
        dedup(&mut long);
        assert_eq!(long, (0..40).collect::<Vec<_>>());
    }
}

//! Lists of row numbers in ascending order, as small as their length allows: up to three inline, then deltas of
//! seven bits a byte, then a roaring bitmap.

use roaring::RoaringBitmap;

/// Rows in ascending order, none twice.
#[derive(Clone, Debug)]
pub enum Posting {
    /// Up to three, the first `len` of `rows`.
    Few { len: u32, rows: [u32; 3] },
    /// [`HEADER`] bytes (last row, length), then the first row and the distances that follow.
    Coded(Vec<u8>),
    /// More than [`CODED_MAX`].
    Many(Box<RoaringBitmap>),
}

/// Longest list kept as deltas.
pub const CODED_MAX: u32 = 2000;
const HEADER: usize = 8;

impl Default for Posting {
    fn default() -> Self {
        Self::Few { len: 0, rows: [0; 3] }
    }
}

impl Posting {
    /// Adds a row above all others; the last one again changes nothing.
    pub fn push(&mut self, row: u32) {
        match self {
            Self::Few { len, rows } => {
                let n = *len as usize;
                if n > 0 && rows.get(n - 1) == Some(&row) {
                    return;
                }
                if let Some(slot) = rows.get_mut(n) {
                    *slot = row;
                    *len += 1;
                    return;
                }
                let mut bytes = Vec::with_capacity(HEADER + 8);
                bytes.extend([0; HEADER]);
                let mut last = 0;
                for r in rows.iter().chain([&row]) {
                    put(&mut bytes, r.wrapping_sub(last));
                    last = *r;
                }
                set_header(&mut bytes, row, *len + 1);
                *self = Self::Coded(bytes);
            }
            Self::Coded(bytes) => {
                let (last, len) = header(bytes);
                if last == row {
                    return;
                }
                if len >= CODED_MAX {
                    let mut many: RoaringBitmap = deltas(bytes).collect();
                    many.insert(row);
                    *self = Self::Many(Box::new(many));
                    return;
                }
                if bytes.capacity() - bytes.len() < 5 {
                    bytes.reserve_exact(5 + bytes.len() / 4);
                }
                put(bytes, row.wrapping_sub(last));
                set_header(bytes, row, len + 1);
            }
            Self::Many(many) => {
                // Not `try_push`: it looks for the greatest row first, word by word through a bitmap container.
                many.insert(row);
            }
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Few { len, .. } => *len as usize,
            Self::Coded(bytes) => header(bytes).1 as usize,
            Self::Many(many) => many.len() as usize,
        }
    }

    /// Rows in order.
    pub fn iter(&self) -> Iter<'_> {
        match self {
            Self::Few { len, rows } => Iter::Few(rows.get(..*len as usize).unwrap_or_default().iter()),
            Self::Coded(bytes) => Iter::Coded(deltas(bytes)),
            Self::Many(many) => Iter::Many(Box::new(many.iter())),
        }
    }

    /// Appends all rows.
    pub fn extend_into(&self, out: &mut Vec<u32>) {
        match self.iter() {
            Iter::Few(i) => out.extend(i),
            Iter::Coded(i) => out.extend(i),
            Iter::Many(i) => out.extend(*i),
        }
    }

    /// Whether a row is in the list. Linear in a coded list.
    pub fn contains(&self, row: u32) -> bool {
        match self {
            Self::Many(many) => many.contains(row),
            Self::Few { .. } => self.iter().any(|r| r == row),
            Self::Coded(bytes) => row <= header(bytes).0 && deltas(bytes).take_while(|r| *r <= row).any(|r| r == row),
        }
    }

    /// The list as a bitmap, if it is one.
    pub fn bitmap(&self) -> Option<&RoaringBitmap> {
        match self {
            Self::Many(many) => Some(many),
            _ => None,
        }
    }

    /// Gives back what growing left over.
    pub fn shrink(&mut self) {
        if let Self::Coded(bytes) = self {
            bytes.shrink_to_fit();
        }
    }

    /// Heap memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Few { .. } => 0,
            Self::Coded(bytes) => bytes.capacity(),
            Self::Many(many) => many.serialized_size() + 64,
        }
    }
}

/// Rows of a posting in order.
pub enum Iter<'a> {
    Few(std::slice::Iter<'a, u32>),
    Coded(Deltas<'a>),
    Many(Box<roaring::bitmap::Iter<'a>>),
}

impl Iterator for Iter<'_> {
    type Item = u32;
    fn next(&mut self) -> Option<u32> {
        match self {
            Self::Few(i) => i.next().copied(),
            Self::Coded(i) => i.next(),
            Self::Many(i) => i.next(),
        }
    }
}

/// Decodes distances.
pub struct Deltas<'a> {
    rest: &'a [u8],
    last: u32,
}

impl Iterator for Deltas<'_> {
    type Item = u32;
    #[inline]
    fn next(&mut self) -> Option<u32> {
        self.last = self.last.wrapping_add(take(&mut self.rest)?);
        Some(self.last)
    }
}

fn deltas(bytes: &[u8]) -> Deltas<'_> {
    Deltas {
        rest: bytes.get(HEADER..).unwrap_or_default(),
        last: 0,
    }
}

fn header(bytes: &[u8]) -> (u32, u32) {
    let word = bytes.first_chunk::<HEADER>().map_or(0, |b| u64::from_le_bytes(*b));
    (word as u32, (word >> 32) as u32)
}

fn set_header(bytes: &mut [u8], last: u32, len: u32) {
    if let Some(head) = bytes.first_chunk_mut::<HEADER>() {
        *head = (u64::from(last) | u64::from(len) << 32).to_le_bytes();
    }
}

/// Writes a number seven bits a byte, low bits first, the high bit set on all but the last byte.
pub fn put(out: &mut Vec<u8>, value: u32) {
    put64(out, u64::from(value));
}

/// The same for a long number.
pub fn put64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a number written by [`put`] and moves on.
#[inline]
pub fn take(rest: &mut &[u8]) -> Option<u32> {
    let (first, tail) = rest.split_first()?;
    if *first < 0x80 {
        *rest = tail;
        return Some(u32::from(*first));
    }
    u32::try_from(take64(rest)?).ok()
}

/// Reads a number written by [`put64`] and moves on.
pub fn take64(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Signed to unsigned with small magnitudes small.
pub fn zigzag(v: i64) -> u64 {
    (v << 1 ^ v >> 63) as u64
}

/// Back from [`zigzag`].
pub fn unzigzag(v: u64) -> i64 {
    (v >> 1) as i64 ^ -((v & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rows: &[u32]) {
        let mut p = Posting::default();
        for r in rows {
            p.push(*r);
            p.push(*r);
        }
        p.shrink();
        assert_eq!(p.len(), rows.len());
        assert_eq!(p.iter().collect::<Vec<_>>(), rows);
        let mut all = vec![];
        p.extend_into(&mut all);
        assert_eq!(all, rows);
        for r in rows.iter().step_by(1 + rows.len() / 50) {
            assert!(p.contains(*r));
            for near in [r.wrapping_sub(1), r.wrapping_add(1)] {
                assert_eq!(p.contains(near), rows.binary_search(&near).is_ok());
            }
        }
    }

    #[test]
    fn keeps_rows_at_every_change_of_form() {
        for n in [0, 1, 2, 3, 4, 5, 127, 1999, 2000, 2001, 2002, 5000] {
            for step in [1, 2, 127, 128, 129, 16_383, 16_384, 40_000] {
                let rows: Vec<u32> = (0..n).map(|i| 7 + i * step).collect();
                check(&rows);
            }
        }
        check(&[0, 1, u32::MAX - 1, u32::MAX]);
        check(&[0, 127, 255, 16_638, 2_113_790, 270_549_246, u32::MAX]);
    }

    #[test]
    fn changes_form_at_the_stated_lengths() {
        let of = |n: u32| {
            let mut p = Posting::default();
            (0..n).for_each(|r| p.push(r));
            p
        };
        assert!(matches!(of(3), Posting::Few { .. }));
        assert!(matches!(of(4), Posting::Coded(_)));
        assert!(matches!(of(2000), Posting::Coded(_)));
        assert!(matches!(of(2001), Posting::Many(_)));
        assert_eq!(size_of::<Posting>(), 24);
    }

    #[test]
    fn numbers_round_trip_and_bad_bytes_are_refused() {
        for v in [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            u64::from(u32::MAX),
            u64::MAX - 1,
            u64::MAX,
        ] {
            let mut b = vec![];
            put64(&mut b, v);
            let mut rest = b.as_slice();
            assert_eq!(take64(&mut rest), Some(v));
            assert!(rest.is_empty());
            let mut rest = b.as_slice();
            assert_eq!(take(&mut rest), u32::try_from(v).ok());
        }
        for bad in [
            &[0x80][..],
            &[0xff; 9],
            &[0xff; 20],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert_eq!(take64(&mut &bad[..]), None);
        }
        for v in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(v)), v);
        }
    }
}

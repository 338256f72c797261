//! Columns that grow by one value a row and never move what they hold, so that a write is short.

/// Values by row number, in pieces of [`PIECE`].
#[derive(Clone)]
pub struct Column<T> {
    pieces: Vec<Vec<T>>,
}

const BITS: u32 = 14;
const PIECE: usize = 1 << BITS;

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self { pieces: Vec::new() }
    }
}

impl<T> Column<T> {
    pub fn len(&self) -> u32 {
        match self.pieces.split_last() {
            Some((last, full)) => (full.len() * PIECE + last.len()) as u32,
            None => 0,
        }
    }

    /// Adds a value and gives its number.
    pub fn push(&mut self, value: T) -> u32 {
        let row = self.len();
        match self.pieces.last_mut() {
            Some(last) if last.len() < PIECE => last.push(value),
            full => {
                let mut piece = Vec::with_capacity(if full.is_some() { PIECE } else { 4 });
                piece.push(value);
                self.pieces.push(piece);
            }
        }
        row
    }

    #[inline]
    pub fn get(&self, row: u32) -> Option<&T> {
        self.pieces.get((row >> BITS) as usize)?.get(row as usize & (PIECE - 1))
    }

    #[inline]
    pub fn get_mut(&mut self, row: u32) -> Option<&mut T> {
        self.pieces
            .get_mut((row >> BITS) as usize)?
            .get_mut(row as usize & (PIECE - 1))
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.pieces.iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pieces.iter_mut().flatten()
    }

    pub fn shrink(&mut self) {
        if let Some(last) = self.pieces.last_mut() {
            last.shrink_to_fit();
        }
    }

    pub fn bytes(&self) -> usize {
        self.pieces.iter().map(|p| p.capacity() * size_of::<T>()).sum()
    }
}

/// 64-bit values whose high halves seldom change: the low halves, and the rows at which the high half does.
#[derive(Clone, Default)]
pub struct Wide {
    low: Column<u32>,
    high: Vec<(u32, u32)>,
}

impl Wide {
    pub fn push(&mut self, value: u64) {
        let high = (value >> 32) as u32;
        let row = self.low.push(value as u32);
        if self.high.last().is_none_or(|(_, h)| *h != high) {
            self.high.push((row, high));
        }
    }

    #[inline]
    pub fn get(&self, row: u32) -> Option<u64> {
        let low = *self.low.get(row)?;
        let high = match self.high.as_slice() {
            [(_, only)] => *only,
            many => {
                many.get(many.partition_point(|(from, _)| *from <= row).checked_sub(1)?)?
                    .1
            }
        };
        Some(u64::from(high) << 32 | u64::from(low))
    }

    pub fn len(&self) -> u32 {
        self.low.len()
    }

    /// In a column of ascending values, how many are not above `value`.
    pub fn up_to(&self, value: u64) -> u32 {
        let (mut from, mut to) = (0, self.len());
        if to
            .checked_sub(1)
            .and_then(|last| self.get(last))
            .is_none_or(|last| last <= value)
        {
            return to;
        }
        while from < to {
            let middle = from + (to - from) / 2;
            if self.get(middle).is_some_and(|v| v <= value) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from
    }

    pub fn shrink(&mut self) {
        self.low.shrink();
        self.high.shrink_to_fit();
    }

    pub fn bytes(&self) -> usize {
        self.low.bytes() + self.high.capacity() * 8
    }
}

/// Byte strings by number.
#[derive(Clone, Default)]
pub struct Blobs {
    pieces: Vec<Piece>,
}

#[derive(Clone, Default)]
struct Piece {
    ends: Vec<u32>,
    bytes: Vec<u8>,
}

const BLOBS: usize = 1024;

impl Blobs {
    pub fn len(&self) -> u32 {
        match self.pieces.split_last() {
            Some((last, full)) => (full.len() * BLOBS + last.ends.len()) as u32,
            None => 0,
        }
    }

    pub fn push(&mut self, blob: &[u8]) -> u32 {
        let number = self.len();
        if self.pieces.last().is_none_or(|p| p.ends.len() >= BLOBS) {
            self.shrink();
            self.pieces.push(Piece::default());
        }
        if let Some(last) = self.pieces.last_mut() {
            last.bytes.extend_from_slice(blob);
            last.ends.push(last.bytes.len() as u32);
        }
        number
    }

    #[inline]
    pub fn get(&self, number: u32) -> Option<&[u8]> {
        let piece = self.pieces.get(number as usize / BLOBS)?;
        let at = number as usize % BLOBS;
        let end = *piece.ends.get(at)? as usize;
        let start = if at == 0 { 0 } else { *piece.ends.get(at - 1)? as usize };
        piece.bytes.get(start..end)
    }

    pub fn shrink(&mut self) {
        if let Some(last) = self.pieces.last_mut() {
            last.bytes.shrink_to_fit();
            last.ends.shrink_to_fit();
        }
    }

    pub fn bytes(&self) -> usize {
        self.pieces
            .iter()
            .map(|p| p.ends.capacity() * 4 + p.bytes.capacity())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_hold_what_was_pushed_across_pieces() {
        let mut c = Column::default();
        let n = 2 * PIECE as u32 + 3;
        for i in 0..n {
            assert_eq!(c.push(i * 3), i);
        }
        assert_eq!(c.len(), n);
        for i in [0, 1, PIECE as u32 - 1, PIECE as u32, n - 1] {
            assert_eq!(c.get(i), Some(&(i * 3)));
        }
        assert_eq!(c.get(n), None);
    }

    #[test]
    fn wide_columns_follow_the_high_half() {
        let values = [0, 5, u64::from(u32::MAX), 1 << 32, (1 << 32) + 1, 7 << 40, u64::MAX];
        let mut w = Wide::default();
        for v in values {
            w.push(v);
        }
        for (i, v) in values.iter().enumerate() {
            assert_eq!(w.get(i as u32), Some(*v));
            assert_eq!(w.up_to(*v), i as u32 + 1);
            assert_eq!(
                w.up_to(v.saturating_sub(1)),
                if *v == 0 {
                    1
                } else {
                    values.iter().filter(|x| *x < v).count() as u32
                }
            );
        }
    }

    #[test]
    fn blobs_hold_what_was_pushed_across_pieces() {
        let mut b = Blobs::default();
        for i in 0..3000_u32 {
            assert_eq!(b.push(&vec![i as u8; i as usize % 7]), i);
        }
        for i in 0..3000_u32 {
            assert_eq!(b.get(i), Some(vec![i as u8; i as usize % 7].as_slice()));
        }
        assert_eq!(b.get(3000), None);
    }
}

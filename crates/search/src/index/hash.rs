//! Keyed hashing, so that nobody outside can choose ids or codes that collide.

use hashbrown::HashTable;

/// SipHash-1-3 (Aumasson, Bernstein 2012) under a random key.
#[derive(Clone, Copy)]
pub struct Keyed {
    k0: u64,
    k1: u64,
}

impl Keyed {
    pub fn new(seed: [u8; 16]) -> Self {
        let whole = u128::from_le_bytes(seed);
        Self {
            k0: whole as u64,
            k1: (whole >> 64) as u64,
        }
    }

    /// The hash of a word followed by bytes.
    pub fn bytes(self, word: u64, bytes: &[u8]) -> u64 {
        let mut s = Sip::new(self, word);
        let (words, rest) = bytes.as_chunks::<8>();
        for w in words {
            s.absorb(u64::from_le_bytes(*w));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        let len = (bytes.len() as u64).wrapping_add(8);
        s.finish(u64::from_le_bytes(last) | len << 56)
    }

    /// The hash of two words.
    pub fn words(self, a: u64, b: u64) -> u64 {
        let mut s = Sip::new(self, a);
        s.absorb(b);
        s.finish(16 << 56)
    }
}

struct Sip([u64; 4]);

impl Sip {
    #[inline]
    fn new(key: Keyed, word: u64) -> Self {
        let mut s = Self([
            key.k0 ^ 0x736f_6d65_7073_6575,
            key.k1 ^ 0x646f_7261_6e64_6f6d,
            key.k0 ^ 0x6c79_6765_6e65_7261,
            key.k1 ^ 0x7465_6462_7974_6573,
        ]);
        s.absorb(word);
        s
    }

    #[inline]
    fn absorb(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.0[0] ^= word;
    }

    #[inline]
    fn finish(mut self, last: u64) -> u64 {
        self.absorb(last);
        self.0[2] ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.0[0] ^ self.0[1] ^ self.0[2] ^ self.0[3]
    }

    #[inline]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.0 = [a, b, c, d];
    }
}

/// A hash table of numbers whose keys live elsewhere. Cut in parts, so that growing one does not hold a writer long.
pub struct Table<T> {
    parts: Vec<HashTable<T>>,
}

impl<T: Copy> Table<T> {
    /// `parts` is a power of two.
    pub fn new(parts: usize) -> Self {
        Self {
            parts: (0..parts.max(1)).map(|_| HashTable::new()).collect(),
        }
    }

    fn part(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.parts.len() - 1)
    }

    pub fn find(&self, hash: u64, mut is: impl FnMut(T) -> bool) -> Option<T> {
        self.parts.get(self.part(hash))?.find(hash, |v| is(*v)).copied()
    }

    /// All whose hash may be `hash`.
    pub fn candidates(&self, hash: u64) -> impl Iterator<Item = T> {
        self.parts
            .get(self.part(hash))
            .into_iter()
            .flat_map(move |p| p.iter_hash(hash))
            .copied()
    }

    /// Adds a value that is not there yet; `rehash` gives the hash of any value in the table.
    pub fn insert(&mut self, hash: u64, value: T, rehash: impl Fn(T) -> u64) {
        let at = self.part(hash);
        if let Some(part) = self.parts.get_mut(at) {
            part.insert_unique(hash, value, |v| rehash(*v));
        }
    }

    pub fn remove(&mut self, hash: u64, mut is: impl FnMut(T) -> bool) {
        let at = self.part(hash);
        if let Some(part) = self.parts.get_mut(at)
            && let Ok(entry) = part.find_entry(hash, |v| is(*v))
        {
            entry.remove();
        }
    }

    /// Room for `more` values without growing.
    pub fn reserve(&mut self, more: usize, rehash: impl Fn(T) -> u64) {
        let each = more.div_ceil(self.parts.len());
        for part in &mut self.parts {
            part.reserve(each, |v| rehash(*v));
        }
    }

    pub fn bytes(&self) -> usize {
        self.parts.iter().map(HashTable::allocation_size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hasher;

    /// The standard library's hasher is SipHash-1-3 with a zero key.
    #[test]
    fn is_siphash_1_3() {
        let zero = Keyed::new([0; 16]);
        for len in 0..70_u8 {
            let text: Vec<u8> = (0..len).collect();
            let mut std = std::hash::DefaultHasher::new();
            std.write(&77_u64.to_le_bytes());
            std.write(&text);
            assert_eq!(zero.bytes(77, &text), std.finish(), "length {len}");
        }
        assert_eq!(zero.words(5, 6), zero.bytes(5, &6_u64.to_le_bytes()));
    }

    #[test]
    fn depends_on_the_key() {
        assert_ne!(Keyed::new([0; 16]).words(1, 2), Keyed::new([1; 16]).words(1, 2));
    }

    #[test]
    fn finds_removes_and_keeps_duplicates() {
        let key = Keyed::new([3; 16]);
        let hash = |v: u32| key.words(u64::from(v / 2), 0);
        let mut t = Table::new(4);
        for v in 0..1000 {
            t.insert(hash(v), v, hash);
        }
        assert_eq!(t.find(hash(501), |v| v == 501), Some(501));
        let mut both: Vec<u32> = t.candidates(hash(501)).filter(|v| v / 2 == 250).collect();
        both.sort_unstable();
        assert_eq!(both, [500, 501]);
        t.remove(hash(501), |v| v == 501);
        assert_eq!(t.find(hash(501), |v| v == 501), None);
        assert_eq!(t.find(hash(500), |v| v == 500), Some(500));
    }
}

//! RFC 9162 2.1: hashes of leaves and nodes, and the frontier that appends with log2(size) hashes of memory.

use aws_lc_rs::digest::{Context, SHA256};

use crate::Hash;

/// SHA-256 over the concatenation of `parts`.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> Hash {
    let mut hasher = Hasher::default();
    for part in parts {
        hasher.update(part);
    }
    hasher.finish()
}

/// SHA-256 over bytes that come piece by piece.
pub struct Hasher(Context);

impl Default for Hasher {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes added.
    #[must_use]
    pub fn finish(self) -> Hash {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

/// Hash of a leaf: `SHA-256(0x00, entry)`.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    sha256(&[&[0], entry])
}

/// Hash of an inner node: `SHA-256(0x01, left, right)`.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut input = [0; 65];
    let (prefix, children) = input.split_at_mut(1);
    prefix.fill(1);
    let (l, r) = children.split_at_mut(32);
    l.copy_from_slice(left);
    r.copy_from_slice(right);
    sha256(&[&input])
}

/// Root of the tree without leaves: `SHA-256()`.
#[must_use]
pub fn empty_root() -> Hash {
    sha256(&[])
}

/// The right edge of an append-only tree: the roots of its perfect subtrees, largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// INVARIANT (edge): as many hashes as `size` has one bits.
    edge: Vec<Hash>,
}

/// The stored bytes of a frontier do not make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored frontier is damaged")]
pub struct BadFrontier;

impl Frontier {
    /// The empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends the leaf with this hash ([`leaf_hash`]).
    pub fn append(&mut self, leaf: Hash) {
        self.append_with(leaf, |_, _, _| ());
    }

    /// Appends a leaf and reports each subtree that it completes: level (0 = the leaf), index within the level, hash.
    pub fn append_with(&mut self, leaf: Hash, mut completed: impl FnMut(u8, u64, &Hash)) {
        let mut hash = leaf;
        let mut level = 0;
        let mut index = self.size;
        completed(level, index, &hash);
        while index & 1 == 1 {
            // By (edge) there is one subtree per one bit, so `pop` gives the left sibling.
            let Some(left) = self.edge.pop() else { break };
            hash = node_hash(&left, &hash);
            index >>= 1;
            level += 1;
            completed(level, index, &hash);
        }
        self.edge.push(hash);
        self.size += 1;
    }

    /// Root of the tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut subtrees = self.edge.iter().rev();
        let Some(last) = subtrees.next() else {
            return empty_root();
        };
        subtrees.fold(*last, |right, left| node_hash(left, &right))
    }

    /// Bytes for storage: format 1, size, hashes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(9 + 32 * self.edge.len());
        out.push(1);
        out.extend_from_slice(&self.size.to_be_bytes());
        for hash in &self.edge {
            out.extend_from_slice(hash);
        }
        out
    }

    /// Reads [`Frontier::to_bytes`]. The caller compares [`Frontier::root`] with a signed checkpoint before trusting it.
    ///
    /// # Errors
    /// When version or length are wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadFrontier> {
        let (version, rest) = bytes.split_first().ok_or(BadFrontier)?;
        let (size, hashes) = rest.split_first_chunk::<8>().ok_or(BadFrontier)?;
        let size = u64::from_be_bytes(*size);
        let (edge, rest) = hashes.as_chunks::<32>();
        if *version != 1 || !rest.is_empty() || edge.len() != size.count_ones() as usize {
            return Err(BadFrontier);
        }
        Ok(Self {
            size,
            edge: edge.to_vec(),
        })
    }
}

//! Inclusion and consistency proofs (RFC 9162 2.1.3 and 2.1.4).
//!
//! Proofs are made from a [`HashReader`], which knows subtrees by level and index; a missing subtree is built from its
//! children, so a reader that knows only leaves is enough, and one over tiles makes a proof in log2(size) reads.

use crate::Hash;
use crate::merkle::{empty_root, node_hash};

/// Knows the hashes of perfect subtrees: level 0 are the leaves, `index` counts subtrees of that level from the left.
pub trait HashReader {
    /// The hash of a perfect subtree; `None` when only its children may be known.
    ///
    /// # Errors
    /// When the place where the hashes are kept fails.
    fn node(&self, level: u8, index: u64) -> Result<Option<Hash>, ProofError>;
}

/// Why a proof cannot be made or is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The index or the sizes do not fit each other.
    #[error("there is no such proof: index or sizes do not fit")]
    Range,
    /// A leaf that the proof needs is not known.
    #[error("entry {0} is not known")]
    Missing(u64),
    /// The proof does not prove it.
    #[error("the proof is wrong")]
    Wrong,
    /// The hashes cannot be read.
    #[error("the tree's hashes cannot be read")]
    Read(#[source] std::io::Error),
}

impl HashReader for [Hash] {
    fn node(&self, level: u8, index: u64) -> Result<Option<Hash>, ProofError> {
        Ok(if level == 0 {
            usize::try_from(index).ok().and_then(|i| self.get(i)).copied()
        } else {
            None
        })
    }
}

impl<R: HashReader + ?Sized> HashReader for &R {
    fn node(&self, level: u8, index: u64) -> Result<Option<Hash>, ProofError> {
        (**self).node(level, index)
    }
}

impl HashReader for Vec<Hash> {
    fn node(&self, level: u8, index: u64) -> Result<Option<Hash>, ProofError> {
        self.as_slice().node(level, index)
    }
}

/// Root of the first `size` leaves.
///
/// # Errors
/// When a hash is not known or cannot be read.
pub fn root<R: HashReader + ?Sized>(reader: &R, size: u64) -> Result<Hash, ProofError> {
    if size == 0 {
        Ok(empty_root())
    } else {
        subtree(reader, 0, size)
    }
}

/// Proof that leaf `index` is in the tree of `size` leaves.
///
/// # Errors
/// [`ProofError::Range`] when it is not; otherwise when a hash is not known or cannot be read.
pub fn inclusion<R: HashReader + ?Sized>(reader: &R, index: u64, size: u64) -> Result<Vec<Hash>, ProofError> {
    if index >= size {
        return Err(ProofError::Range);
    }
    let (mut low, mut high) = (0, size);
    let mut proof = Vec::new();
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            proof.push(subtree(reader, middle, high)?);
            high = middle;
        } else {
            proof.push(subtree(reader, low, middle)?);
            low = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Proof that the tree of `new` leaves begins with the tree of `old` leaves. Empty when they are equal or `old` is 0.
///
/// # Errors
/// [`ProofError::Range`] when `old` is above `new`; otherwise when a hash is not known or cannot be read.
pub fn consistency<R: HashReader + ?Sized>(reader: &R, old: u64, new: u64) -> Result<Vec<Hash>, ProofError> {
    if old > new {
        return Err(ProofError::Range);
    }
    if old == 0 {
        return Ok(Vec::new());
    }
    let (mut low, mut high) = (0, new);
    let mut proof = Vec::new();
    // RFC 9162 2.1.4.1: walk to the subtree that ends at `old`.
    while high != old {
        let middle = low + split(high - low);
        if old <= middle {
            proof.push(subtree(reader, middle, high)?);
            high = middle;
        } else {
            proof.push(subtree(reader, low, middle)?);
            low = middle;
        }
    }
    if low > 0 {
        proof.push(subtree(reader, low, high)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Checks an inclusion proof (RFC 9162 2.1.3.2).
///
/// # Errors
/// When it does not prove that `leaf` is entry `index` of the tree with this size and root.
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], expected: &Hash) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::Range);
    }
    let (mut f, mut s, mut hash) = (index, size - 1, *leaf);
    for p in proof {
        if s == 0 {
            return Err(ProofError::Wrong);
        }
        if f & 1 == 1 || f == s {
            hash = node_hash(p, &hash);
            while f & 1 == 0 && f != 0 {
                f >>= 1;
                s >>= 1;
            }
        } else {
            hash = node_hash(&hash, p);
        }
        f >>= 1;
        s >>= 1;
    }
    if s == 0 && hash == *expected {
        Ok(())
    } else {
        Err(ProofError::Wrong)
    }
}

/// Checks a consistency proof (RFC 9162 2.1.4.2). The empty tree begins every tree, so for `old` 0 there is no proof to
/// check: [`ProofError::Range`].
///
/// # Errors
/// When it does not prove that the new tree begins with the old one.
pub fn verify_consistency(
    old: u64,
    new: u64,
    old_root: &Hash,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofError> {
    if old == 0 || old > new {
        return Err(ProofError::Range);
    }
    if old == new {
        return if proof.is_empty() && old_root == new_root {
            Ok(())
        } else {
            Err(ProofError::Wrong)
        };
    }
    let mut rest = proof.iter();
    // A perfect old tree is itself the first node, and is not sent.
    let first = if old.is_power_of_two() {
        old_root
    } else {
        rest.next().ok_or(ProofError::Wrong)?
    };
    let (mut f, mut s) = (old - 1, new - 1);
    while f & 1 == 1 {
        f >>= 1;
        s >>= 1;
    }
    let (mut old_hash, mut new_hash) = (*first, *first);
    for p in rest {
        if s == 0 {
            return Err(ProofError::Wrong);
        }
        if f & 1 == 1 || f == s {
            old_hash = node_hash(p, &old_hash);
            new_hash = node_hash(p, &new_hash);
            while f & 1 == 0 && f != 0 {
                f >>= 1;
                s >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, p);
        }
        f >>= 1;
        s >>= 1;
    }
    if s == 0 && old_hash == *old_root && new_hash == *new_root {
        Ok(())
    } else {
        Err(ProofError::Wrong)
    }
}

/// Largest power of two below `n`, for `n` of at least 2 (RFC 9162's k).
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// Root over the leaves `low..high`, where `low` is a multiple of the power of two that covers the range.
fn subtree<R: HashReader + ?Sized>(reader: &R, low: u64, high: u64) -> Result<Hash, ProofError> {
    let count = high - low;
    if count.is_power_of_two() {
        let level = count.trailing_zeros();
        if let Some(hash) = reader.node(u8::try_from(level).unwrap_or(u8::MAX), low >> level)? {
            return Ok(hash);
        }
        if level == 0 {
            return Err(ProofError::Missing(low));
        }
    }
    let middle = low + split(count);
    Ok(node_hash(
        &subtree(reader, low, middle)?,
        &subtree(reader, middle, high)?,
    ))
}

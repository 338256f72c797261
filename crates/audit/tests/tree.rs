//! Proofs against a tree that is computed by the definition of RFC 9162 2.1.1, word by word.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

mod common;

use keepwell_audit::Hash;
use keepwell_audit::merkle::{Frontier, empty_root, leaf_hash, node_hash};
use keepwell_audit::proof::{ProofError, consistency, inclusion, root, verify_consistency, verify_inclusion};
use keepwell_audit::tile::{Roots, WIDTH, WithTail};

/// MTH of RFC 9162.
fn mth(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [one] => *one,
        _ => {
            let mut k = 1;
            while k * 2 < leaves.len() {
                k *= 2;
            }
            node_hash(&mth(&leaves[..k]), &mth(&leaves[k..]))
        }
    }
}

fn leaves(n: u64) -> Vec<Hash> {
    (0..n).map(|i| leaf_hash(&common::entry(i))).collect()
}

const SIZE: u64 = 70;

#[test]
fn the_frontier_has_the_root_of_the_definition_at_every_size() {
    let leaves = leaves(SIZE);
    let mut tree = Frontier::new();
    for size in 0..=SIZE {
        assert_eq!(tree.root(), mth(&leaves[..size as usize]));
        assert_eq!(tree.root(), root(&leaves, size).unwrap());
        assert_eq!(Frontier::from_bytes(&tree.to_bytes()).unwrap(), tree);
        if size < SIZE {
            tree.append(leaves[size as usize]);
        }
    }
}

#[test]
fn appending_reports_every_perfect_subtree_once() {
    let leaves = leaves(SIZE);
    let mut tree = Frontier::new();
    let mut seen = std::collections::BTreeMap::new();
    for leaf in &leaves {
        tree.append_with(*leaf, |level, index, hash| {
            assert_eq!(seen.insert((level, index), *hash), None)
        });
    }
    for level in 0..7 {
        for index in 0..SIZE >> level {
            let range = ((index << level) as usize)..(((index + 1) << level) as usize);
            assert_eq!(seen.remove(&(level, index)), Some(mth(&leaves[range])));
        }
    }
    assert!(seen.is_empty());
}

#[test]
fn every_entry_of_every_size_is_proven_and_nothing_else() {
    let leaves = leaves(SIZE);
    for size in 1..=SIZE {
        let top = mth(&leaves[..size as usize]);
        for index in 0..size {
            let proof = inclusion(&leaves, index, size).unwrap();
            verify_inclusion(&leaves[index as usize], index, size, &proof, &top).unwrap();
            for other in 0..size + 3 {
                let proven = verify_inclusion(&leaves[index as usize], other, size, &proof, &top).is_ok();
                assert_eq!(proven, other == index, "{index} as {other} of {size}");
            }
            for broken in mutations(&proof) {
                assert!(verify_inclusion(&leaves[index as usize], index, size, &broken, &top).is_err());
            }
        }
        assert!(matches!(inclusion(&leaves, size, size), Err(ProofError::Range)));
    }
}

#[test]
fn every_size_is_proven_to_begin_every_larger_one_and_nothing_else() {
    let leaves = leaves(SIZE);
    let tops: Vec<Hash> = (0..=SIZE as usize).map(|n| mth(&leaves[..n])).collect();
    for new in 0..=SIZE {
        for old in 0..=new {
            let proof = consistency(&leaves, old, new).unwrap();
            let (old_top, new_top) = (tops[old as usize], tops[new as usize]);
            if old == 0 {
                assert!(proof.is_empty() && verify_consistency(0, new, &old_top, &new_top, &proof).is_err());
                continue;
            }
            verify_consistency(old, new, &old_top, &new_top, &proof).unwrap();
            for broken in mutations(&proof) {
                assert!(
                    verify_consistency(old, new, &old_top, &new_top, &broken).is_err(),
                    "{old} {new}"
                );
            }
            assert!(verify_consistency(old, new, &[7; 32], &new_top, &proof).is_err());
            assert!(verify_consistency(old, new, &old_top, &[7; 32], &proof).is_err());
            assert!(verify_consistency(old - 1, new, &old_top, &new_top, &proof).is_err());
        }
        assert!(matches!(consistency(&leaves, new + 1, new), Err(ProofError::Range)));
    }
}

#[test]
fn the_roots_of_tiles_and_the_entries_make_the_same_proofs_as_all_leaves() {
    let leaves = leaves(1500);
    let mut tree = Frontier::new();
    let mut roots = Roots::default();
    for (size, leaf) in (1..).zip(&leaves) {
        tree.append_with(*leaf, |level, _, hash| {
            if level == Roots::LEVEL {
                roots.push(*hash);
            }
        });
        assert_eq!(roots.tiles().len() as u64, size / WIDTH);
        if size % 89 != 0 && size % WIDTH > 1 {
            continue;
        }
        assert_eq!(roots.tiles().iter().copied().collect::<Roots>(), roots);
        let read = std::cell::Cell::new(0);
        let reader = WithTail {
            reader: &roots,
            leaf: |i: u64| {
                read.set(read.get() + 1);
                Ok(leaves.get(i as usize).copied())
            },
        };
        assert_eq!(root(&reader, size).unwrap(), tree.root());
        for index in [0, 255, 256, 700, size - 1].into_iter().filter(|i| *i < size) {
            read.set(0);
            let proof = inclusion(&reader, index, size).unwrap();
            assert!(read.get() < 2 * WIDTH, "{} leaves for {index} of {size}", read.get());
            assert_eq!(proof, inclusion(&leaves, index, size).unwrap());
        }
    }
}

#[test]
fn a_leaf_that_is_not_known_is_named() {
    let leaves = leaves(10);
    assert!(matches!(inclusion(&leaves, 3, 12), Err(ProofError::Missing(10))));
    assert!(matches!(root(&leaves, 1 << 40), Err(ProofError::Missing(10))));
}

/// Each step changed, left out, doubled, and one more added at either end.
fn mutations(proof: &[Hash]) -> Vec<Vec<Hash>> {
    let mut out = Vec::new();
    for i in 0..proof.len() {
        let mut changed = proof.to_vec();
        changed[i][31] ^= 1;
        out.push(changed);
        let mut less = proof.to_vec();
        less.remove(i);
        out.push(less);
        let mut more = proof.to_vec();
        more.insert(i, proof[i]);
        out.push(more);
    }
    let mut longer = proof.to_vec();
    longer.push([0; 32]);
    out.push(longer);
    let mut longer = proof.to_vec();
    longer.insert(0, [0; 32]);
    out.push(longer);
    out
}

//! Merkle tree: leaves, tiles, checkpoints, proofs; the verifier needs neither database nor keys.

//! The tamper-evident log: leaves, Merkle tree, proofs, checkpoints, tiles, and a verifier for people who do not trust
//! the server.
//!
//! Hashing is RFC 6962 / RFC 9162 with SHA-256; checkpoints are C2SP tlog-checkpoint in C2SP signed-note (Ed25519); an
//! exported log is laid out as C2SP tlog-tiles. Nothing here opens a database or needs a secret key: signing is asked
//! of a [`note::Signer`]. `docs/formats/leaf.md` and `docs/formats/checkpoint.md` give the bytes.
//!
//! To add a kind of leaf: a variant in [`leaf`], its bytes in `docs/formats/leaf.md`, a fixture in its tests.

pub mod checkpoint;
pub mod export;
pub mod leaf;
pub mod merkle;
pub mod note;
pub mod proof;
pub mod proof_file;
pub mod tile;
pub mod witness;

/// A SHA-256 hash.
pub type Hash = [u8; 32];

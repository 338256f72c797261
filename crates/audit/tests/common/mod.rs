//! What several test files need: a signer, logs in folders, shared vectors.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code"
)]

use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::leaf::Leaf;
use keepwell_audit::merkle::{Frontier, leaf_hash, sha256};
use keepwell_audit::note::{CannotSign, Signer, VerifierKey};
use keepwell_audit::tile::Writer;

pub const ORIGIN: &str = "keepwell.example/log";

/// An Ed25519 key from a seed.
pub struct TestKey {
    name: String,
    pair: Ed25519KeyPair,
}

impl TestKey {
    pub fn new(name: &str, seed: u8) -> Self {
        Self {
            name: name.to_owned(),
            pair: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(),
        }
    }

    pub fn verifier(&self) -> VerifierKey {
        VerifierKey::of(self).unwrap()
    }
}

impl Signer for TestKey {
    fn name(&self) -> &str {
        &self.name
    }

    fn public_key(&self) -> [u8; 32] {
        self.pair.public_key().as_ref().try_into().unwrap()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], CannotSign> {
        Ok(self.pair.sign(message).as_ref().try_into().unwrap())
    }
}

/// The entry number `i` of a made-up log.
pub fn entry(i: u64) -> Vec<u8> {
    let digest = sha256(&[&i.to_be_bytes()]);
    if i.is_multiple_of(3) {
        Leaf::Event {
            at: i as i64,
            kind: 1,
            sealed: digest,
            commitment: digest,
        }
        .to_bytes()
    } else {
        Leaf::Row { rid: i, digest }.to_bytes()
    }
}

pub fn log(size: u64) -> Vec<Vec<u8>> {
    (0..size).map(entry).collect()
}

pub fn checkpoint_of(entries: &[Vec<u8>]) -> Checkpoint {
    let mut tree = Frontier::new();
    entries.iter().for_each(|e| tree.append(leaf_hash(e)));
    Checkpoint::new(ORIGIN, tree.size(), tree.root())
}

/// Writes the whole log, honestly, signed by `key`.
pub fn write(dir: &Path, entries: &[Vec<u8>], key: &TestKey) -> Vec<u8> {
    let mut writer = Writer::resume(dir, 0).unwrap();
    entries.iter().for_each(|e| writer.push(e).unwrap());
    let note = checkpoint_of(entries).sign(key).unwrap();
    writer.finish(&note).unwrap();
    note
}

/// A small generator, so that a failing case can be run again.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// The files of `../shared/data/vectors/<name>.tar.zst` beside the repository, or of the folder in `KEEPWELL_SHARED`.
pub fn archive(name: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let packed = shared(&format!("data/vectors/{name}.tar.zst"))?;
    let tar = zstd::decode_all(packed.as_slice()).unwrap();
    let mut files = Vec::new();
    let mut at = 0;
    while at + 512 <= tar.len() && tar[at] != 0 {
        let text = |from: usize, to: usize| {
            let field = &tar[at + from..at + to];
            String::from_utf8_lossy(field.split(|b| *b == 0).next().unwrap())
                .trim()
                .to_owned()
        };
        let size = usize::from_str_radix(&text(124, 136), 8).unwrap();
        let (prefix, name) = (text(345, 500), text(0, 100));
        if tar[at + 156] == b'0' || tar[at + 156] == 0 {
            let path = if prefix.is_empty() {
                name
            } else {
                format!("{prefix}/{name}")
            };
            files.push((
                path.trim_start_matches("./").to_owned(),
                tar[at + 512..at + 512 + size].to_vec(),
            ));
        }
        at += 512 + size.div_ceil(512) * 512;
    }
    Some(files)
}

/// A file of the shared test data, if that is here.
pub fn shared(path: &str) -> Option<Vec<u8>> {
    let root = std::env::vars_os()
        .find(|(key, _)| key == "KEEPWELL_SHARED")
        .map(|(_, value)| PathBuf::from(value));
    let root = root.or_else(|| {
        let mut dirs = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        dirs.find_map(|dir| Some(dir.join("shared")).filter(|d| d.is_dir()))
    })?;
    std::fs::read(root.join(path)).ok()
}

pub fn skipped(count: usize, what: &str) {
    println!("SKIPPED {count} {what}: ../shared is not here");
}

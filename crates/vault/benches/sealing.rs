//! What sealing costs a row: `cargo bench -p keepwell-vault`.
#![allow(clippy::unwrap_used, reason = "a tool for developers")]

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use keepwell_model::time::{Entropy, EntropyUnavailable};
use keepwell_vault::{KeyFile, Paths, Place, Vault};
use std::sync::{Arc, LazyLock};

struct System;

impl Entropy for System {
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyUnavailable> {
        aws_lc_rs::rand::fill(out).map_err(|_| EntropyUnavailable)
    }
}

/// A vault with one patient's slot. Its folder is left to the system's cleaning.
static VAULT: LazyLock<(Vault, u32)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap().keep();
    let key = KeyFile::create(&dir.join("key"), &System).unwrap();
    let paths = Paths {
        keyring: dir.join("keyring"),
        keyring_copy: None,
        era: vec![dir.join("era")],
        era_min: 1,
    };
    Vault::init(&paths, &key, &System).unwrap();
    let vault = Vault::open(paths, &key, Arc::new(System)).unwrap().0;
    let slot = vault.allot().unwrap();
    (vault, slot)
});

/// Sizes of a compressed Observation, a Patient and a long note.
const SIZES: [usize; 3] = [192, 768, 16 << 10];

const PLACE: Place<'static> = Place {
    format: *b"test",
    number: 7,
    extra: &[],
};

fn main() {
    divan::main();
}

#[divan::bench(args = SIZES)]
fn nonce_and_seal(bencher: Bencher<'_, '_>, size: usize) {
    let key = VAULT.0.row_key(VAULT.1, 7).unwrap();
    let text = vec![b'x'; size];
    bencher
        .counter(BytesCount::new(size))
        .with_inputs(|| text.clone())
        .bench_local_refs(|text| {
            let nonce = key.nonce(&[3; 16], 7, &[text]);
            key.seal(PLACE, &nonce, text).unwrap()
        });
}

#[divan::bench(args = SIZES)]
fn open(bencher: Bencher<'_, '_>, size: usize) {
    let key = VAULT.0.row_key(VAULT.1, 7).unwrap();
    let mut sealed = vec![b'x'; size];
    let nonce = key.nonce(&[3; 16], 7, &[&sealed]);
    let tag = key.seal(PLACE, &nonce, &mut sealed).unwrap();
    sealed.extend_from_slice(&tag);
    bencher
        .counter(BytesCount::new(size))
        .with_inputs(|| sealed.clone())
        .bench_local_refs(|sealed| key.open(PLACE, &nonce, sealed).unwrap().len());
}

#[divan::bench]
fn key_at_hand() {
    black_box(VAULT.0.open_key(VAULT.1, 1, 7).unwrap());
}

#[divan::bench]
fn key_reference_and_back() {
    let key_ref = VAULT.0.key_ref(VAULT.1, black_box(7)).unwrap();
    black_box(VAULT.0.slot_of(&key_ref, 7));
}

#[divan::bench]
fn commitment_digest() {
    let key = VAULT.0.row_key(VAULT.1, 7).unwrap();
    black_box(key.digest(7, black_box(&[1; 24])));
}

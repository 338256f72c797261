//! Project Wycheproof's vectors for every primitive the vault uses, run against the library it uses: nothing invalid
//! accepted, nothing valid refused.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use aws_lc_rs::key_wrap::{AES_256, KeyEncryptionKey, KeyWrapPadded};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use serde_json::Value;
use std::io::Read;
use std::path::PathBuf;

/// The shared vectors, beside the repository or named by `KEEPWELL_SHARED`.
fn vectors() -> Option<PathBuf> {
    let named = option_env!("KEEPWELL_SHARED").map(PathBuf::from);
    let beside = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|p| p.join("../shared"));
    let checkout = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|p| p.join("shared"));
    named
        .into_iter()
        .chain(beside)
        .chain(checkout)
        .map(|p| p.join("data/vectors/wycheproof.tar.zst"))
        .find(|p| p.is_file())
}

/// One file of the archive (ustar: blocks of 512 bytes, name first, octal length at 124).
fn load(name: &str) -> Option<Value> {
    let Some(path) = vectors() else {
        println!("SKIPPED 1 Wycheproof file {name}: ../shared is not here");
        return None;
    };
    let mut tar = Vec::new();
    zstd::Decoder::new(std::fs::File::open(path).unwrap())
        .unwrap()
        .read_to_end(&mut tar)
        .unwrap();
    let mut at = 0;
    while at + 512 <= tar.len() && tar[at] != 0 {
        let text = |range: std::ops::Range<usize>| {
            let field = &tar[at + range.start..at + range.end];
            String::from_utf8_lossy(field.split(|b| *b == 0).next().unwrap())
                .trim()
                .to_owned()
        };
        let length = usize::from_str_radix(&text(124..136), 8).unwrap();
        if text(0..100).trim_start_matches("./") == name {
            return Some(serde_json::from_slice(&tar[at + 512..at + 512 + length]).unwrap());
        }
        at += 512 + length.next_multiple_of(512);
    }
    panic!("{name} is not in the archive");
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

/// Runs `accepts` over all tests whose group `uses` wants; the verdicts must be Wycheproof's ("acceptable" may be both).
fn check(name: &str, uses: impl Fn(&Value) -> bool, accepts: impl Fn(&Value, &Value) -> bool) {
    let Some(file) = load(name) else { return };
    let (mut run, mut other) = (0, 0);
    for group in file["testGroups"].as_array().unwrap() {
        for test in group["tests"].as_array().unwrap() {
            if !uses(group) {
                other += 1;
                continue;
            }
            run += 1;
            let accepted = accepts(group, test);
            match test["result"].as_str().unwrap() {
                "valid" => assert!(accepted, "{name} {}: valid, refused", test["tcId"]),
                "invalid" => assert!(!accepted, "{name} {}: invalid, accepted", test["tcId"]),
                _ => {}
            }
        }
    }
    println!("{name}: {run} tests, {other} of parameters not in use");
    assert!(run > 50);
}

#[test]
fn aes_256_gcm() {
    let uses = |g: &Value| g["keySize"] == 256 && g["ivSize"] == 96 && g["tagSize"] == 128;
    check("aes_gcm_test.json", uses, |_, t| {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &hex(&t["key"])).unwrap());
        let nonce = || Nonce::try_assume_unique_for_key(&hex(&t["iv"])).unwrap();
        let mut sealed = [hex(&t["ct"]), hex(&t["tag"])].concat();
        let opened = key
            .open_in_place(nonce(), Aad::from(hex(&t["aad"])), &mut sealed)
            .is_ok_and(|m| m == hex(&t["msg"]));
        let mut text = hex(&t["msg"]);
        key.seal_in_place_append_tag(nonce(), Aad::from(hex(&t["aad"])), &mut text)
            .unwrap();
        opened && text == [hex(&t["ct"]), hex(&t["tag"])].concat()
    });
}

#[test]
fn aes_256_kwp() {
    check(
        "aes_kwp_test.json",
        |g| g["keySize"] == 256,
        |_, t| {
            let key = || KeyEncryptionKey::new(&AES_256, &hex(&t["key"])).unwrap();
            let (msg, ct) = (hex(&t["msg"]), hex(&t["ct"]));
            let mut out = vec![0; ct.len() + 16];
            let unwrapped = key().unwrap_with_padding(&ct, &mut out).is_ok_and(|m| *m == msg);
            let mut out = vec![0; msg.len() + 24];
            unwrapped && key().wrap_with_padding(&msg, &mut out).is_ok_and(|c| *c == ct)
        },
    );
}

#[test]
fn hmac_sha256() {
    check(
        "hmac_sha256_test.json",
        |g| g["tagSize"] == 256,
        |_, t| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &hex(&t["key"]));
            hmac::verify(&key, &hex(&t["msg"]), &hex(&t["tag"])).is_ok()
        },
    );
}

#[test]
fn ed25519() {
    check(
        "ed25519_test.json",
        |_| true,
        |g, t| {
            UnparsedPublicKey::new(&ED25519, hex(&g["publicKey"]["pk"]))
                .verify(&hex(&t["msg"]), &hex(&t["sig"]))
                .is_ok()
        },
    );
}

/// KBKDF has no Wycheproof file: SP 800-108 counter mode by hand, over the HMAC checked above.
#[test]
fn kbkdf_is_the_counter_mode_of_sp_800_108() {
    use aws_lc_rs::kdf::{KbkdfCtrHmacAlgorithmId, get_kbkdf_ctr_hmac_algorithm, kbkdf_ctr_hmac};
    let algorithm = get_kbkdf_ctr_hmac_algorithm(KbkdfCtrHmacAlgorithmId::Sha256).unwrap();
    let (secret, info) = ([7; 32], b"label\0context\0\0\x01\0");
    let mut out = [0; 64];
    kbkdf_ctr_hmac(algorithm, &secret, info, &mut out).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    let block = |n: u32| {
        hmac::sign(&key, &[n.to_be_bytes().as_slice(), info].concat())
            .as_ref()
            .to_vec()
    };
    assert_eq!(out.to_vec(), [block(1), block(2)].concat());
}

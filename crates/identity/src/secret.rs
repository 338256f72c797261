//! Random secrets and their digests. A secret is shown once; what is kept is its SHA-256, which is enough for 128 and
//! more random bits: there is nothing to guess (passwords, which can be guessed, are not kept here).

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keepwell_model::time::{Entropy, EntropyUnavailable};

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// `N` random bytes as base64url.
pub(crate) fn random_text<const N: usize>(entropy: &dyn Entropy) -> Result<String, EntropyUnavailable> {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// `N` random bytes as hexadecimal, for ids that also stand in logs.
pub(crate) fn random_id<const N: usize>(entropy: &dyn Entropy) -> Result<String, EntropyUnavailable> {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes)?;
    Ok(hex(&bytes))
}

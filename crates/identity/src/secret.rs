//! Random secrets and their digests. A secret is shown once; what is kept is its SHA-256, which is enough for 128 and
//! more random bits: there is nothing to guess. Passwords, which can be guessed, are in [`crate::password`].

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

/// The bytes of lower-case hexadecimal; none where it is not.
pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [a, b] => Some(digit(*a)? << 4 | digit(*b)?),
            _ => None,
        })
        .collect::<Option<_>>()
        .unwrap_or_default()
}

/// Base64url without padding.
pub(crate) fn url64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
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

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Base32 without padding (RFC 4648, 6).
pub(crate) fn base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut word, mut bits) = (0_u32, 0);
    for byte in bytes {
        word = (word << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(letter(word >> bits));
        }
    }
    if bits > 0 {
        out.push(letter(word << (5 - bits)));
    }
    out
}

fn letter(value: u32) -> char {
    BASE32.get((value & 31) as usize).copied().map_or('A', char::from)
}

/// `N` random bytes as base32 in groups of four letters, to be read and typed by people.
pub(crate) fn random_code<const N: usize>(entropy: &dyn Entropy) -> Result<String, EntropyUnavailable> {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes)?;
    let letters: Vec<char> = base32(&bytes).chars().collect();
    let groups: Vec<String> = letters.chunks(4).map(|g| g.iter().collect()).collect();
    Ok(groups.join("-"))
}

/// A typed code as it was made: without spaces and lines, in capitals, with the letters that were meant by `0`, `1`
/// and `8`, which base32 does not have.
pub(crate) fn typed(code: &str) -> String {
    code.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| match c.to_ascii_uppercase() {
            '0' => 'O',
            '1' => 'I',
            '8' => 'B',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_that_of_rfc_4648() {
        for (bytes, text) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn a_code_is_read_as_it_was_meant() {
        assert_eq!(typed(" abcd-2o0l\n"), "ABCD2OOL");
    }
}

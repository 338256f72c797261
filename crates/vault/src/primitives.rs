//! The few primitives everything here is made of, all from aws-lc-rs: SHA-256, HMAC-SHA-256, KBKDF (SP 800-108
//! counter mode), AES-KWP (RFC 5649), AES-256-GCM, one AES block.

use aws_lc_rs::key_wrap::{AES_256, KeyEncryptionKey, KeyWrapPadded};
use aws_lc_rs::{digest, hmac, kdf};
use zeroize::Zeroizing;

/// A cryptographic call failed: damaged input, or the library refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

/// A 256-bit secret, wiped when dropped.
pub(crate) struct Key(pub(crate) Zeroizing<[u8; 32]>);

/// Bytes of a 256-bit key wrapped by AES-KWP.
pub(crate) const WRAPPED: usize = 40;

/// SHA-256 over the concatenation of `parts`.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// HMAC-SHA-256 over the concatenation of `parts`.
pub(crate) fn mac(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// KBKDF in counter mode with HMAC-SHA-256; fixed input = label, 0x00, context, output bits (SP 800-108r1, 4.1).
///
/// The parts of `context` must be of fixed width for a label.
pub(crate) fn kbkdf(secret: &[u8], label: &str, context: &[&[u8]]) -> Result<Key, Failed> {
    let algorithm = kdf::get_kbkdf_ctr_hmac_algorithm(kdf::KbkdfCtrHmacAlgorithmId::Sha256).ok_or(Failed)?;
    let mut info = Vec::with_capacity(label.len() + 64);
    info.extend_from_slice(label.as_bytes());
    info.push(0);
    for part in context {
        info.extend_from_slice(part);
    }
    info.extend_from_slice(&256_u32.to_be_bytes());
    let mut out = Zeroizing::new([0; 32]);
    kdf::kbkdf_ctr_hmac(algorithm, secret, &info, out.as_mut_slice()).map_err(|_| Failed)?;
    Ok(Key(out))
}

/// AES-KWP of `key` under `kek`.
pub(crate) fn wrap(kek: &Key, key: &[u8; 32]) -> Result<[u8; WRAPPED], Failed> {
    let kek = KeyEncryptionKey::new(&AES_256, kek.0.as_slice()).map_err(|_| Failed)?;
    let mut out = [0; WRAPPED + 8];
    let wrapped = kek.wrap_with_padding(key, &mut out).map_err(|_| Failed)?;
    <[u8; WRAPPED]>::try_from(&*wrapped).map_err(|_| Failed)
}

/// Undoes [`wrap`]; fails when `wrapped` was not made with `kek`.
pub(crate) fn unwrap(kek: &Key, wrapped: &[u8]) -> Result<Key, Failed> {
    let kek = KeyEncryptionKey::new(&AES_256, kek.0.as_slice()).map_err(|_| Failed)?;
    let mut out = Zeroizing::new([0; WRAPPED + 8]);
    let key = kek
        .unwrap_with_padding(wrapped, out.as_mut_slice())
        .map_err(|_| Failed)?;
    let mut secret = Zeroizing::new([0; 32]);
    if key.len() != 32 {
        return Err(Failed);
    }
    secret.copy_from_slice(key);
    Ok(Key(secret))
}

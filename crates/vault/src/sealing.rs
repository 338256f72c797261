//! Sealing and opening under one key: AES-256-GCM with everything that fixes a text's place in the associated data.

use crate::primitives::{Failed, Key, kbkdf, mac};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use hashbrown::HashMap;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Length of a nonce.
pub const NONCE: usize = 12;
/// Length of an authentication tag.
pub const TAG: usize = 16;

/// Where a sealed text belongs. Opening under any other place fails.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The format, for example `row` or `event`, with its version.
    pub format: [u8; 4],
    /// rid, entry number or chunk number.
    pub number: u64,
    /// Whatever else the format binds; of fixed width for a format.
    pub extra: &'a [u8],
}

/// A key ready for use: one generation of one slot, or a subkey of the organisation.
pub struct SealKey {
    aead: LessSafeKey,
    nonce: hmac::Key,
    /// Organisation, slot id or purpose, generation, epoch: the constant part of the associated data.
    bound: [u8; 34],
    generation: u16,
}

impl SealKey {
    /// Derives the encryption and the nonce key from a data key.
    pub(crate) fn new(key: &Key, org: &[u8; 16], name: [u8; 8], generation: u16, epoch: u64) -> Result<Self, Failed> {
        let encryption = kbkdf(key.0.as_slice(), "keepwell seal", &[])?;
        let nonce = kbkdf(key.0.as_slice(), "keepwell nonce", &[])?;
        let mut bound = [0; 34];
        let parts = org.iter().chain(&name).copied();
        let rest = generation.to_be_bytes().into_iter().chain(epoch.to_be_bytes());
        for (to, from) in bound.iter_mut().zip(parts.chain(rest)) {
            *to = from;
        }
        Ok(Self {
            aead: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, encryption.0.as_slice()).map_err(|_| Failed)?),
            nonce: hmac::Key::new(hmac::HMAC_SHA256, nonce.0.as_slice()),
            bound,
            generation,
        })
    }

    /// The generation, written beside the sealed text.
    #[must_use]
    pub fn generation(&self) -> u16 {
        self.generation
    }

    /// A nonce: HMAC-SHA-256 of 16 random bytes, the number and the text, cut to 96 bits.
    ///
    /// INVARIANT (nonce): a machine that repeats its random bytes (a clone, a restored memory image) repeats a nonce
    /// only for identical input, which seals to identical bytes and reveals nothing.
    #[must_use]
    pub fn nonce(&self, random: &[u8; 16], number: u64, texts: &[&[u8]]) -> [u8; NONCE] {
        if cfg!(keepwell_plain) {
            return [0; NONCE];
        }
        let mut context = hmac::Context::with_key(&self.nonce);
        context.update(b"N");
        context.update(random);
        context.update(&number.to_be_bytes());
        for text in texts {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text);
        }
        let tag = context.sign();
        let mut out = [0; NONCE];
        for (to, from) in out.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        out
    }

    /// A keyed digest of a text, for commitments: it cannot be recomputed once the slot's key is destroyed.
    #[must_use]
    pub fn digest(&self, number: u64, text: &[u8]) -> [u8; 32] {
        mac(&self.nonce, &[b"C", &number.to_be_bytes(), text])
    }

    fn associated(&self, place: &Place<'_>) -> Associated {
        let mut data = Associated { bytes: [0; 80], len: 0 };
        let number = place.number.to_be_bytes();
        for byte in place.format.iter().chain(&self.bound).chain(&number).chain(place.extra) {
            if let Some(to) = data.bytes.get_mut(data.len) {
                *to = *byte;
                data.len += 1;
            }
        }
        data
    }

    /// Seals `text` in place; the tag goes behind it in the stored form. The nonce must come from [`SealKey::nonce`]
    /// over at least this text.
    ///
    /// # Errors
    /// Only when the library refuses (a text over 64 GB).
    pub fn seal(&self, place: Place<'_>, nonce: &[u8; NONCE], text: &mut [u8]) -> Result<[u8; TAG], NotOpened> {
        debug_assert!(place.extra.len() <= 34);
        if cfg!(keepwell_plain) {
            return Ok([0; TAG]);
        }
        let tag = self
            .aead
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(self.associated(&place)),
                text,
            )
            .map_err(|_| NotOpened)?;
        let mut out = [0; TAG];
        out.copy_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Opens a text followed by its tag, in place.
    ///
    /// # Errors
    /// The bytes were altered or belong elsewhere.
    pub fn open<'b>(
        &self,
        place: Place<'_>,
        nonce: &[u8; NONCE],
        sealed: &'b mut [u8],
    ) -> Result<&'b mut [u8], NotOpened> {
        if cfg!(keepwell_plain) {
            let length = sealed.len().saturating_sub(TAG);
            return sealed.get_mut(..length).ok_or(NotOpened);
        }
        self.aead
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(self.associated(&place)),
                sealed,
            )
            .map_err(|_| NotOpened)
    }
}

struct Associated {
    bytes: [u8; 80],
    len: usize,
}

impl AsRef<[u8]> for Associated {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

/// A sealed text does not open: altered, moved or under another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sealed text does not open")]
pub struct NotOpened;

/// Slot or purpose, generation, epoch.
pub(crate) type CacheKey = (u32, u16, u64);

struct Cached {
    key: Arc<SealKey>,
    used: AtomicBool,
}

/// Keys ready for use, least recently used dropped first (second chance).
pub(crate) struct Cache {
    shards: Vec<RwLock<HashMap<CacheKey, Cached>>>,
    per_shard: usize,
}

impl Cache {
    pub(crate) fn new(capacity: usize) -> Self {
        let shards = (0..16).map(|_| RwLock::new(HashMap::new())).collect();
        Self {
            shards,
            per_shard: capacity.div_ceil(16),
        }
    }

    fn shard(&self, key: &CacheKey) -> Option<&RwLock<HashMap<CacheKey, Cached>>> {
        self.shards.get((key.0 as usize ^ key.2 as usize) & 15)
    }

    pub(crate) fn get(&self, key: &CacheKey) -> Option<Arc<SealKey>> {
        let shard = self.shard(key)?.read();
        let cached = shard.get(key)?;
        if !cached.used.load(Ordering::Relaxed) {
            cached.used.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&cached.key))
    }

    pub(crate) fn insert(&self, key: CacheKey, value: &Arc<SealKey>) {
        let Some(shard) = self.shard(&key) else { return };
        let mut shard = shard.write();
        if shard.len() >= self.per_shard {
            shard.retain(|_, cached| cached.used.swap(false, Ordering::Relaxed));
            if shard.len() >= self.per_shard {
                let mut keep = false;
                shard.retain(|_, _| {
                    keep = !keep;
                    keep
                });
            }
        }
        shard.insert(
            key,
            Cached {
                key: Arc::clone(value),
                used: AtomicBool::new(true),
            },
        );
    }

    pub(crate) fn forget(&self, slot: u32) {
        for shard in &self.shards {
            shard.write().retain(|key, _| key.0 != slot);
        }
    }

    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            shard.write().clear();
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|s| s.read().len()).sum()
    }
}

//! Custody of ROOT: who can unlock the keyring.
//!
//! The keyring holds one unlock slot per custodian kind; each is ROOT wrapped under a key only that custodian can
//! compute. Formats in `docs/formats/keyring.md`. Adding a kind (PKCS#11, TPM) is a new [`CustodyKind`] and an
//! implementation of [`Custodian`].

use crate::primitives::{Failed, Key, WRAPPED, kbkdf, sha256, unwrap, wrap};
use argon2::{Algorithm, Argon2, Params, Version};
use keepwell_model::time::{Entropy, EntropyUnavailable};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// The key everything else is wrapped under (together with the ERA). Never stored in the clear.
pub struct Root(pub(crate) Key);

impl Root {
    /// The same root once more, for a keyring that is wrapped anew under it.
    pub(crate) fn copy(&self) -> Self {
        Self(Key(self.0.0.clone()))
    }
}

/// A kind of custodian, as stored in the keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CustodyKind {
    /// A passphrase through Argon2id.
    Passphrase = 1,
    /// A file of 32 random bytes.
    KeyFile = 2,
    /// The printed recovery key.
    Recovery = 3,
}

impl CustodyKind {
    /// The word used on screens and in `keys status`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::KeyFile => "key file",
            Self::Recovery => "recovery key",
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Passphrase, Self::KeyFile, Self::Recovery]
            .into_iter()
            .find(|k| *k as u8 == code)
    }
}

/// Why a custodian did not give ROOT.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The wrapped root does not open with it.
    #[error("wrong passphrase, key file or recovery key")]
    Wrong,
    /// The unlock slot in the keyring is not well formed.
    #[error("the unlock slot is damaged")]
    Damaged,
    /// The secret cannot be read or written.
    #[error("the key file cannot be used: {0}")]
    Io(#[from] std::io::Error),
    /// The source of randomness failed.
    #[error("the source of random numbers is not available")]
    Entropy,
}

impl From<EntropyUnavailable> for CustodyError {
    fn from(_: EntropyUnavailable) -> Self {
        Self::Entropy
    }
}

impl From<Failed> for CustodyError {
    fn from(_: Failed) -> Self {
        Self::Wrong
    }
}

/// Wraps and unwraps ROOT. A hardware token implements the same calls.
pub trait Custodian: Send + Sync {
    /// Which unlock slot of the keyring is its own.
    fn kind(&self) -> CustodyKind;
    /// Wraps ROOT into bytes for the keyring, bound to the organisation id.
    ///
    /// # Errors
    /// See [`CustodyError`].
    fn wrap(&self, root: &Root, org: &[u8; 16], entropy: &dyn Entropy) -> Result<Vec<u8>, CustodyError>;
    /// Unwraps what [`Custodian::wrap`] made.
    ///
    /// # Errors
    /// [`CustodyError::Wrong`] when the secret is not the one it was wrapped with.
    fn unwrap(&self, wrapped: &[u8], org: &[u8; 16]) -> Result<Root, CustodyError>;
}

/// Cost of a passphrase hash, recorded in the unlock slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for Cost {
    /// 64 MiB, 3 passes: RFC 9106's second recommendation with one lane; above the OWASP minimum.
    fn default() -> Self {
        Self {
            memory_kib: 64 << 10,
            passes: 3,
            lanes: 1,
        }
    }
}

/// One passphrase hash at a time: an attacker who makes us hash cannot multiply the memory.
static HASHING: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// A passphrase, stretched by Argon2id.
pub struct Passphrase {
    text: Zeroizing<Vec<u8>>,
    cost: Cost,
}

impl Passphrase {
    /// Takes the passphrase as given; a final line feed must have been removed.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        Self {
            text: Zeroizing::new(text.to_vec()),
            cost: Cost::default(),
        }
    }

    /// The same passphrase with another cost for new unlock slots.
    #[must_use]
    pub fn with_cost(mut self, cost: Cost) -> Self {
        self.cost = cost;
        self
    }

    /// Reads a passphrase file (or systemd credential); one final line feed is dropped.
    ///
    /// # Errors
    /// The file cannot be read or is empty.
    pub fn from_file(path: &Path) -> Result<Self, CustodyError> {
        let text = Zeroizing::new(std::fs::read(path)?);
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        if text.is_empty() {
            return Err(CustodyError::Wrong);
        }
        Ok(Self::new(text))
    }

    fn stretch(&self, salt: &[u8; 16], cost: Cost, org: &[u8; 16]) -> Result<Key, CustodyError> {
        // A hostile keyring must not make us take all memory or run for hours.
        if cost.memory_kib > 1 << 20 || cost.passes > 64 || cost.lanes > 16 {
            return Err(CustodyError::Damaged);
        }
        let params =
            Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(|_| CustodyError::Damaged)?;
        let mut hash = Zeroizing::new([0; 32]);
        let _one_at_a_time = HASHING.lock();
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(&self.text, salt, hash.as_mut_slice())
            .map_err(|_| CustodyError::Damaged)?;
        Ok(kbkdf(hash.as_slice(), "keepwell custody passphrase", &[org])?)
    }
}

impl Custodian for Passphrase {
    fn kind(&self) -> CustodyKind {
        CustodyKind::Passphrase
    }

    fn wrap(&self, root: &Root, org: &[u8; 16], entropy: &dyn Entropy) -> Result<Vec<u8>, CustodyError> {
        let mut salt = [0; 16];
        entropy.fill(&mut salt)?;
        let kek = self.stretch(&salt, self.cost, org)?;
        let mut out = vec![1];
        out.extend_from_slice(&salt);
        for n in [self.cost.memory_kib, self.cost.passes, self.cost.lanes] {
            out.extend_from_slice(&n.to_be_bytes());
        }
        out.extend_from_slice(&wrap(&kek, &root.0.0)?);
        Ok(out)
    }

    fn unwrap(&self, wrapped: &[u8], org: &[u8; 16]) -> Result<Root, CustodyError> {
        let rest = wrapped.strip_prefix(&[1]).ok_or(CustodyError::Damaged)?;
        let (salt, rest) = rest.split_first_chunk::<16>().ok_or(CustodyError::Damaged)?;
        let (memory, rest) = rest.split_first_chunk::<4>().ok_or(CustodyError::Damaged)?;
        let (passes, rest) = rest.split_first_chunk::<4>().ok_or(CustodyError::Damaged)?;
        let (lanes, rest) = rest.split_first_chunk::<4>().ok_or(CustodyError::Damaged)?;
        let cost = Cost {
            memory_kib: u32::from_be_bytes(*memory),
            passes: u32::from_be_bytes(*passes),
            lanes: u32::from_be_bytes(*lanes),
        };
        if rest.len() != WRAPPED {
            return Err(CustodyError::Damaged);
        }
        let kek = self.stretch(salt, cost, org)?;
        Ok(Root(unwrap(&kek, rest)?))
    }
}

fn wrap_random(
    secret: &Key,
    label: &str,
    root: &Root,
    org: &[u8; 16],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, CustodyError> {
    let mut salt = [0; 16];
    entropy.fill(&mut salt)?;
    let kek = kbkdf(secret.0.as_slice(), label, &[org, &salt])?;
    let mut out = vec![1];
    out.extend_from_slice(&salt);
    out.extend_from_slice(&wrap(&kek, &root.0.0)?);
    Ok(out)
}

fn unwrap_random(secret: &Key, label: &str, wrapped: &[u8], org: &[u8; 16]) -> Result<Root, CustodyError> {
    let rest = wrapped.strip_prefix(&[1]).ok_or(CustodyError::Damaged)?;
    let (salt, rest) = rest.split_first_chunk::<16>().ok_or(CustodyError::Damaged)?;
    if rest.len() != WRAPPED {
        return Err(CustodyError::Damaged);
    }
    let kek = kbkdf(secret.0.as_slice(), label, &[org, salt])?;
    Ok(Root(unwrap(&kek, rest)?))
}

/// A file of 32 random bytes.
pub struct KeyFile(Key);

impl KeyFile {
    const LABEL: &str = "keepwell custody key file";

    /// Reads the key file (or systemd credential).
    ///
    /// # Errors
    /// It cannot be read or is not 32 bytes long.
    pub fn open(path: &Path) -> Result<Self, CustodyError> {
        let bytes = Zeroizing::new(std::fs::read(path)?);
        let mut key = Zeroizing::new([0; 32]);
        if bytes.len() != 32 {
            return Err(CustodyError::Wrong);
        }
        key.copy_from_slice(&bytes);
        Ok(Self(Key(key)))
    }

    /// Makes a new key file, mode 0600, fsynced; refuses to overwrite.
    ///
    /// # Errors
    /// The file exists or cannot be written.
    pub fn create(path: &Path, entropy: &dyn Entropy) -> Result<Self, CustodyError> {
        let mut key = Zeroizing::new([0; 32]);
        entropy.fill(key.as_mut_slice())?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(key.as_slice())?;
        file.sync_all()?;
        crate::files::sync_parent(path)?;
        Ok(Self(Key(key)))
    }
}

impl Custodian for KeyFile {
    fn kind(&self) -> CustodyKind {
        CustodyKind::KeyFile
    }

    fn wrap(&self, root: &Root, org: &[u8; 16], entropy: &dyn Entropy) -> Result<Vec<u8>, CustodyError> {
        wrap_random(&self.0, Self::LABEL, root, org, entropy)
    }

    fn unwrap(&self, wrapped: &[u8], org: &[u8; 16]) -> Result<Root, CustodyError> {
        unwrap_random(&self.0, Self::LABEL, wrapped, org)
    }
}

/// 256 bits printed once: eleven groups of five base32 characters, the last three of them a checksum.
pub struct RecoveryKey(Key);

/// Crockford's base32: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// 256 key bits and 19 checksum bits make 55 characters of 5 bits.
const CHARACTERS: usize = 55;

impl RecoveryKey {
    const LABEL: &str = "keepwell custody recovery";

    /// A new random key.
    ///
    /// # Errors
    /// The source of randomness failed.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, CustodyError> {
        let mut key = Zeroizing::new([0; 32]);
        entropy.fill(key.as_mut_slice())?;
        Ok(Self(Key(key)))
    }

    /// The key followed by three checksum bytes, of which 19 bits are printed.
    fn with_checksum(key: &[u8; 32]) -> Zeroizing<[u8; 35]> {
        let mut all = Zeroizing::new([0; 35]);
        let check = sha256(&[b"keepwell recovery checksum", key]);
        for (to, from) in all.iter_mut().zip(key.iter().chain(&check)) {
            *to = *from;
        }
        if let Some(last) = all.last_mut() {
            *last &= 0b1110_0000;
        }
        all
    }

    /// Reads a typed recovery key; case, spaces and hyphens do not matter, O is read as 0, I and L as 1.
    ///
    /// # Errors
    /// A character or the checksum is wrong.
    pub fn parse(text: &str) -> Result<Self, CustodyError> {
        let mut all = Zeroizing::new([0_u8; 35]);
        let (mut bits, mut held, mut at, mut seen) = (0_u32, 0_u32, 0_usize, 0_usize);
        for c in text.bytes().filter(|c| !c.is_ascii_whitespace() && *c != b'-') {
            let c = match c.to_ascii_uppercase() {
                b'O' => b'0',
                b'I' | b'L' => b'1',
                c => c,
            };
            let value = ALPHABET.iter().position(|a| *a == c).ok_or(CustodyError::Wrong)?;
            seen += 1;
            bits = (bits << 5) | value as u32;
            held += 5;
            if held >= 8 {
                held -= 8;
                *all.get_mut(at).ok_or(CustodyError::Wrong)? = (bits >> held) as u8;
                at += 1;
                bits &= (1 << held) - 1;
            }
        }
        if seen != CHARACTERS {
            return Err(CustodyError::Wrong);
        }
        if let Some(last) = all.get_mut(34) {
            *last = (bits << (8 - held)) as u8;
        }
        let mut key = Zeroizing::new([0; 32]);
        for (to, from) in key.iter_mut().zip(all.iter()) {
            *to = *from;
        }
        if *Self::with_checksum(&key) != *all {
            return Err(CustodyError::Wrong);
        }
        Ok(Self(Key(key)))
    }

    /// The printable form.
    #[must_use]
    pub fn print(&self) -> Zeroizing<String> {
        let all = Self::with_checksum(&self.0.0);
        let mut out = Zeroizing::new(String::with_capacity(66));
        for i in 0..CHARACTERS {
            if i > 0 && i % 5 == 0 {
                out.push('-');
            }
            let value = (0..5).fold(0_usize, |v, b| {
                let bit = i * 5 + b;
                let byte = all.get(bit / 8).copied().unwrap_or(0);
                (v << 1) | usize::from(byte >> (7 - bit % 8) & 1)
            });
            out.push(char::from(ALPHABET.get(value).copied().unwrap_or(b'0')));
        }
        out
    }
}

impl Custodian for RecoveryKey {
    fn kind(&self) -> CustodyKind {
        CustodyKind::Recovery
    }

    fn wrap(&self, root: &Root, org: &[u8; 16], entropy: &dyn Entropy) -> Result<Vec<u8>, CustodyError> {
        wrap_random(&self.0, Self::LABEL, root, org, entropy)
    }

    fn unwrap(&self, wrapped: &[u8], org: &[u8; 16]) -> Result<Root, CustodyError> {
        unwrap_random(&self.0, Self::LABEL, wrapped, org)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Random;

    fn cheap(text: &[u8]) -> Passphrase {
        Passphrase::new(text).with_cost(Cost {
            memory_kib: 64,
            passes: 1,
            lanes: 1,
        })
    }

    fn root() -> Root {
        Root(Key(Zeroizing::new([7; 32])))
    }

    #[test]
    fn each_custodian_opens_only_its_own() {
        let org = [1; 16];
        let file = KeyFile(Key(Zeroizing::new([2; 32])));
        let recovery = RecoveryKey(Key(Zeroizing::new([2; 32])));
        let all: [&dyn Custodian; 4] = [&cheap(b"correct horse"), &cheap(b"correct house"), &file, &recovery];
        for (i, a) in all.iter().enumerate() {
            let wrapped = a.wrap(&root(), &org, &Random).unwrap();
            assert!(!wrapped.windows(8).any(|w| w == [7; 8]));
            assert!(a.unwrap(&wrapped, &[9; 16]).is_err(), "bound to the organisation");
            for (j, b) in all.iter().enumerate() {
                let opened = b.unwrap(&wrapped, &org).map(|r| *r.0.0);
                assert_eq!(opened.ok(), (i == j).then_some([7; 32]), "{i} {j}");
            }
            for at in 0..wrapped.len() {
                let mut bad = wrapped.clone();
                bad[at] ^= 1;
                assert!(a.unwrap(&bad, &org).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn a_hostile_unlock_slot_cannot_ask_for_all_memory() {
        let mut wrapped = cheap(b"x").wrap(&root(), &[0; 16], &Random).unwrap();
        wrapped[17] = 0xff;
        assert!(matches!(
            cheap(b"x").unwrap(&wrapped, &[0; 16]),
            Err(CustodyError::Damaged)
        ));
    }

    #[test]
    fn a_recovery_key_survives_paper() {
        let key = RecoveryKey::generate(&Random).unwrap();
        let text = key.print();
        assert_eq!(text.len(), 65);
        let typed = text
            .to_lowercase()
            .replace('-', " ")
            .replace('0', "o")
            .replace('1', "l");
        assert_eq!(*RecoveryKey::parse(&typed).unwrap().0.0, *key.0.0);
        let mut wrong = 0;
        for at in (0..text.len()).filter(|i| i % 6 != 5) {
            let mut typed = text.as_bytes().to_vec();
            typed[at] = if typed[at] == b'7' { b'8' } else { b'7' };
            wrong += u32::from(RecoveryKey::parse(std::str::from_utf8(&typed).unwrap()).is_err());
        }
        assert_eq!(wrong, 55, "one wrong character is always noticed");
        assert!(RecoveryKey::parse("").is_err());
        assert!(RecoveryKey::parse(&text[..64]).is_err());
    }
}

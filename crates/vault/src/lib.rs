//! Keys: custody, keyring, sealing and opening, erasure of keys.
//!
//! A [`Vault`] is an unlocked keyring. It hands out [`SealKey`]s by slot and generation and never the key bytes
//! themselves. What is sealed, where it is stored and what is logged is the ledger's business; this crate does no
//! logging of any kind and its secrets implement neither `Debug` nor serialisation.
//!
//! Files: `docs/formats/keyring.md`, `docs/formats/era.md`. Primitives: aws-lc-rs, and Argon2id for passphrases.
#![forbid(unsafe_code)]

mod custody;
mod era;
mod files;
mod harden;
mod keyring;
mod primitives;
mod sealing;
mod vault;

pub use custody::{Cost, Custodian, CustodyError, CustodyKind, KeyFile, Passphrase, RecoveryKey, Root};
pub use files::{replace as replace_file, sync_parent};
pub use harden::harden;
pub use keyring::SlotState;
pub use sealing::{NONCE, NotOpened, Place, SealKey, TAG};
pub use vault::{EraseStep, ErasedKeys, KeyStatus, NewEra, Paths, SHARED, Settled, Step, Vault, VaultError};

#[cfg(test)]
mod tests {
    use keepwell_model::time::{Entropy, EntropyUnavailable};

    /// The library's own generator.
    pub(crate) struct Random;

    impl Entropy for Random {
        fn fill(&self, out: &mut [u8]) -> Result<(), EntropyUnavailable> {
            aws_lc_rs::rand::fill(out).map_err(|_| EntropyUnavailable)
        }
    }
}

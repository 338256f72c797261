//! Keys: custody, keyring, sealing and opening, erasure of keys.
#![forbid(unsafe_code)]

mod custody;

pub use custody::{CustodyError, CustodyKind, Custodian, KeyFile, Passphrase, RecoveryKey, Root};

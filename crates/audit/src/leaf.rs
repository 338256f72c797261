//! What an entry of the log says in public. No leaf holds or hashes patient data unkeyed: it holds digests of sealed
//! bytes and one keyed commitment whose key lies inside the sealed event. The bytes are in `docs/formats/leaf.md`.

use crate::Hash;
use crate::merkle::sha256;

/// Version byte of every leaf.
const VERSION: u8 = 1;
/// Most numbers in one list of a notice; a longer list takes several entries.
pub const MAX_LIST: usize = 4096;

/// The public part of one log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// A sealed row was stored.
    Row {
        /// Its number.
        rid: u64,
        /// [`row_digest`] of it.
        digest: Hash,
    },
    /// Something happened that is described in a sealed event.
    Event {
        /// Milliseconds since 1970, UTC.
        at: i64,
        /// Kind of event, numbered by the ledger.
        kind: u8,
        /// [`event_digest`] of the sealed event.
        sealed: Hash,
        /// HMAC-SHA-256 of the event under a random key that lies inside the sealed event: hides and binds.
        commitment: Hash,
    },
    /// Something an outsider must know in order to verify the rest.
    Notice {
        /// Milliseconds since 1970, UTC.
        at: i64,
        /// What.
        notice: Notice,
    },
}

/// Public facts about the log itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// First leaf of a log. `previous` names the last outside checkpoint of the log that this one continues after a loss.
    Started {
        /// Organisation of the log.
        organisation: [u8; 16],
        /// Size and root of the lost log's last known checkpoint.
        previous: Option<(u64, Hash)>,
    },
    /// These rows' bodies were emptied; their digests no longer match and need not. At most [`MAX_LIST`].
    Blanked(Vec<u64>),
    /// A key slot was destroyed: an erasure. The commitment binds its sealed certificate.
    Erased {
        /// Commitment to the certificate.
        commitment: Hash,
    },
    /// A version was stored again with one patient's identity removed.
    Redacted {
        /// The row that holds the version from now on.
        new: u64,
        /// The row it replaces.
        old: u64,
    },
    /// A version was sealed again under a newer key.
    Resealed {
        /// The row that holds the version from now on.
        new: u64,
        /// The row it replaces.
        old: u64,
    },
    /// The log was restored from a backup of this size and root; versions later than `hidden_after` are hidden.
    Restored {
        /// Milliseconds since 1970; `i64::MAX` hides nothing.
        hidden_after: i64,
        /// Size of the restored log before this leaf.
        size: u64,
        /// Root at that size.
        root: Hash,
    },
    /// Checkpoints from here on may be signed by this Ed25519 key.
    SigningKey {
        /// The public key.
        public: [u8; 32],
    },
}

/// The bytes are not a leaf that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a known leaf")]
pub struct BadLeaf;

/// Digest of a sealed row: `SHA-256(rid, key_ref, body)`, the first two of fixed width.
#[must_use]
pub fn row_digest(rid: u64, key_ref: &[u8; 16], body: &[u8]) -> Hash {
    sha256(&[&rid.to_be_bytes(), key_ref, body])
}

/// Digest of a sealed event: `SHA-256(sealed)`.
#[must_use]
pub fn event_digest(sealed: &[u8]) -> Hash {
    sha256(&[sealed])
}

impl Leaf {
    /// The entry's bytes, at most 64 KB.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(80);
        out.push(VERSION);
        match self {
            Self::Row { rid, digest } => {
                out.push(1);
                out.extend_from_slice(&rid.to_be_bytes());
                out.extend_from_slice(digest);
            }
            Self::Event {
                at,
                kind,
                sealed,
                commitment,
            } => {
                out.push(2);
                out.extend_from_slice(&at.to_be_bytes());
                out.push(*kind);
                out.extend_from_slice(sealed);
                out.extend_from_slice(commitment);
            }
            Self::Notice { at, notice } => {
                out.push(3);
                out.extend_from_slice(&at.to_be_bytes());
                notice.write(&mut out);
            }
        }
        out
    }

    /// Reads an entry; every accepted input is exactly what [`Leaf::to_bytes`] gives.
    ///
    /// # Errors
    /// When version, kind or length are unknown.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadLeaf> {
        let mut bytes = Bytes(bytes);
        if bytes.u8()? != VERSION {
            return Err(BadLeaf);
        }
        let leaf = match bytes.u8()? {
            1 => Self::Row {
                rid: bytes.u64()?,
                digest: bytes.array()?,
            },
            2 => Self::Event {
                at: bytes.i64()?,
                kind: bytes.u8()?,
                sealed: bytes.array()?,
                commitment: bytes.array()?,
            },
            3 => Self::Notice {
                at: bytes.i64()?,
                notice: Notice::read(&mut bytes)?,
            },
            _ => return Err(BadLeaf),
        };
        if bytes.0.is_empty() { Ok(leaf) } else { Err(BadLeaf) }
    }
}

impl Notice {
    fn write(&self, out: &mut Vec<u8>) {
        let pair = |out: &mut Vec<u8>, code: u8, new: u64, old: u64| {
            out.push(code);
            out.extend_from_slice(&new.to_be_bytes());
            out.extend_from_slice(&old.to_be_bytes());
        };
        match self {
            Self::Started { organisation, previous } => {
                out.push(1);
                out.extend_from_slice(organisation);
                if let Some((size, root)) = previous {
                    out.extend_from_slice(&size.to_be_bytes());
                    out.extend_from_slice(root);
                }
            }
            Self::Blanked(rids) => {
                out.push(2);
                for rid in rids.iter().take(MAX_LIST) {
                    out.extend_from_slice(&rid.to_be_bytes());
                }
            }
            Self::Erased { commitment } => {
                out.push(3);
                out.extend_from_slice(commitment);
            }
            Self::Redacted { new, old } => pair(out, 4, *new, *old),
            Self::Resealed { new, old } => pair(out, 5, *new, *old),
            Self::Restored {
                hidden_after,
                size,
                root,
            } => {
                out.push(6);
                out.extend_from_slice(&hidden_after.to_be_bytes());
                out.extend_from_slice(&size.to_be_bytes());
                out.extend_from_slice(root);
            }
            Self::SigningKey { public } => {
                out.push(7);
                out.extend_from_slice(public);
            }
        }
    }

    fn read(bytes: &mut Bytes<'_>) -> Result<Self, BadLeaf> {
        Ok(match bytes.u8()? {
            1 => Self::Started {
                organisation: bytes.array()?,
                previous: if bytes.0.is_empty() {
                    None
                } else {
                    Some((bytes.u64()?, bytes.array()?))
                },
            },
            2 => {
                let mut rids = Vec::new();
                while !bytes.0.is_empty() {
                    if rids.len() == MAX_LIST {
                        return Err(BadLeaf);
                    }
                    rids.push(bytes.u64()?);
                }
                Self::Blanked(rids)
            }
            3 => Self::Erased {
                commitment: bytes.array()?,
            },
            4 => Self::Redacted {
                new: bytes.u64()?,
                old: bytes.u64()?,
            },
            5 => Self::Resealed {
                new: bytes.u64()?,
                old: bytes.u64()?,
            },
            6 => Self::Restored {
                hidden_after: bytes.i64()?,
                size: bytes.u64()?,
                root: bytes.array()?,
            },
            7 => Self::SigningKey { public: bytes.array()? },
            _ => return Err(BadLeaf),
        })
    }
}

/// The unread rest of an entry.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadLeaf> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(BadLeaf)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, BadLeaf> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, BadLeaf> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, BadLeaf> {
        Ok(i64::from_be_bytes(self.array()?))
    }
}

//! The keyring file: bytes and nothing else. `docs/formats/keyring.md`.

use crate::custody::CustodyKind;
use crate::era::Tag;
use crate::primitives::WRAPPED;
use std::path::PathBuf;

pub(crate) const MAGIC: &[u8; 8] = b"KWKEYS\0\x01";
/// Length of the authenticator at the end.
pub(crate) const MAC: usize = 32;

/// What a named key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Purpose {
    /// Actor halves of events, notes (cursors), the index's hash seed; only ever as a source of subkeys.
    Organisation = 1,
    /// Ed25519 seed of the checkpoints.
    LogSigning = 2,
    /// Ed25519 seed of the bearer tokens.
    TokenSigning = 3,
    /// The AES key of `key_ref`.
    KeyRef = 4,
    /// Public half of an earlier log-signing key.
    RetiredLog = 5,
    /// Public half of an earlier token-signing key.
    RetiredToken = 6,
}

impl Purpose {
    /// What every keyring holds from the beginning.
    pub(crate) const FIRST: [Self; 4] = [Self::Organisation, Self::LogSigning, Self::TokenSigning, Self::KeyRef];

    fn from_code(code: u8) -> Option<Self> {
        let retired = [Self::RetiredLog, Self::RetiredToken];
        Self::FIRST.into_iter().chain(retired).find(|p| *p as u8 == code)
    }
}

/// A wrapped key of the organisation. Generations count from 1 in the order of the list; retired public keys likewise.
#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) purpose: Purpose,
    pub(crate) wrapped: [u8; WRAPPED],
}

/// State of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SlotState {
    /// Made ahead, not used.
    Free = 0,
    /// Rows may be sealed under it.
    Active = 1,
    /// Its keys are gone.
    Destroyed = 2,
}

/// A slot: a random name and its wrapped key generations.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) id: [u8; 8],
    pub(crate) state: SlotState,
    /// Commits to the first generation's key; outlives it.
    pub(crate) commitment: [u8; 16],
    /// Generation 1; zeros once destroyed.
    pub(crate) first: [u8; WRAPPED],
    /// Generations 2 and up.
    pub(crate) later: Vec<[u8; WRAPPED]>,
}

/// The content of a keyring file.
#[derive(Clone)]
pub(crate) struct Keyring {
    pub(crate) org: [u8; 16],
    pub(crate) revision: u64,
    pub(crate) era: Tag,
    pub(crate) erasures: u32,
    pub(crate) rid_ceiling: u64,
    pub(crate) custody: Vec<(CustodyKind, Vec<u8>)>,
    pub(crate) named: Vec<Named>,
    /// Destroyed slots whose tombstone leaf may not be in the log yet.
    pub(crate) unannounced: Vec<u32>,
    /// ERA places that have not confirmed overwriting yet.
    pub(crate) pending: Vec<PathBuf>,
    pub(crate) slots: Vec<Slot>,
}

impl Keyring {
    /// The bytes up to the authenticator.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024 + self.slots.len() * 66);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.org);
        out.extend_from_slice(&self.revision.to_be_bytes());
        out.push(self.custody.len() as u8);
        for (kind, wrapped) in &self.custody {
            out.push(*kind as u8);
            bytes16(&mut out, wrapped);
        }
        out.extend_from_slice(&self.era);
        out.extend_from_slice(&self.erasures.to_be_bytes());
        out.extend_from_slice(&self.rid_ceiling.to_be_bytes());
        out.extend_from_slice(&(self.named.len() as u16).to_be_bytes());
        for named in &self.named {
            out.push(named.purpose as u8);
            out.extend_from_slice(&named.wrapped);
        }
        out.extend_from_slice(&(self.unannounced.len() as u32).to_be_bytes());
        for slot in &self.unannounced {
            out.extend_from_slice(&slot.to_be_bytes());
        }
        out.push(self.pending.len() as u8);
        for path in &self.pending {
            bytes16(&mut out, path.as_os_str().as_encoded_bytes());
        }
        out.extend_from_slice(&(self.slots.len() as u32).to_be_bytes());
        for slot in &self.slots {
            out.extend_from_slice(&slot.id);
            out.push(slot.state as u8);
            out.extend_from_slice(&slot.commitment);
            if slot.state != SlotState::Destroyed {
                out.push(1 + slot.later.len() as u8);
                out.extend_from_slice(&slot.first);
                for wrapped in &slot.later {
                    out.extend_from_slice(wrapped);
                }
            }
        }
        out
    }

    /// Reads what [`Keyring::encode`] wrote; the authenticator has been cut off (not necessarily checked).
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes.strip_prefix(MAGIC.as_slice())?);
        let org = r.array()?;
        let revision = u64::from_be_bytes(r.array()?);
        let mut custody = Vec::new();
        for _ in 0..r.byte()? {
            let kind = CustodyKind::from_code(r.byte()?)?;
            custody.push((kind, r.bytes16()?.to_vec()));
        }
        let era = r.array()?;
        let erasures = u32::from_be_bytes(r.array()?);
        let rid_ceiling = u64::from_be_bytes(r.array()?);
        let mut named = Vec::new();
        for _ in 0..u16::from_be_bytes(r.array()?) {
            named.push(Named {
                purpose: Purpose::from_code(r.byte()?)?,
                wrapped: r.array()?,
            });
        }
        let mut unannounced = Vec::new();
        for _ in 0..u32::from_be_bytes(r.array()?) {
            unannounced.push(u32::from_be_bytes(r.array()?));
        }
        let mut pending = Vec::new();
        for _ in 0..r.byte()? {
            use std::os::unix::ffi::OsStrExt;
            pending.push(PathBuf::from(std::ffi::OsStr::from_bytes(r.bytes16()?)));
        }
        let count = u32::from_be_bytes(r.array()?);
        let mut slots = Vec::with_capacity(r.0.len().min(count as usize * 66) / 25);
        for _ in 0..count {
            let id = r.array()?;
            let state = match r.byte()? {
                0 => SlotState::Free,
                1 => SlotState::Active,
                2 => SlotState::Destroyed,
                _ => return None,
            };
            let commitment = r.array()?;
            let mut slot = Slot {
                id,
                state,
                commitment,
                first: [0; WRAPPED],
                later: Vec::new(),
            };
            if state != SlotState::Destroyed {
                let generations = r.byte()?;
                slot.first = r.array()?;
                for _ in 1..generations {
                    slot.later.push(r.array()?);
                }
            }
            slots.push(slot);
        }
        r.0.is_empty().then_some(Self {
            org,
            revision,
            era,
            erasures,
            rid_ceiling,
            custody,
            named,
            unannounced,
            pending,
            slots,
        })
    }
}

fn bytes16(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }

    fn bytes16(&mut self) -> Option<&'a [u8]> {
        let len = usize::from(u16::from_be_bytes(self.array()?));
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }
}

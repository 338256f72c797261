//! The vault: an unlocked keyring.
//!
//! ```text
//! custodian -> ROOT;  KBKDF(ROOT | ERA) -> wrapping key;  wrapping key -> data key of each slot, keys of the organisation
//! ```
//!
//! # Erasure, step by step
//! 1. ([`Vault::renew_era`]) ERA' is written beside the ERA in every reachable place and read back. Fewer than the required number: ERA' is
//!    overwritten again and the erasure refused.
//! 2. ([`Vault::destroy`]) The keyring without the slot, every survivor rewrapped under ERA', is written to `keyring.next` (and at the
//!    keyring's copy) and fsynced.
//! 3. It is renamed over `keyring`, and at the copy. From here on the slot's key exists only under the old ERA.
//! 4. The old ERA is overwritten in every place. A place that cannot be reached is listed as pending in the keyring and
//!    tried again at every start.
//!
//! A rotation goes the same way, with a new ROOT beside ERA' and no slot destroyed: what an older copy of the keyring
//! opens with, its ROOT and its ERA, is gone.
//!
//! A crash before 2 is whole leaves a stray ERA' that the next start overwrites (undone). A crash after it leaves a
//! valid `keyring.next` whose ERA is in place: the next start goes on with step 3 by the same code (finished).

use crate::custody::{Custodian, CustodyError, CustodyKind, RecoveryKey, Root};
use crate::era;
use crate::files::{beside, replace, sync_parent, write_synced};
use crate::keyring::{Keyring, MAC, Named, Purpose, Slot, SlotState};
use crate::primitives::{Failed, Key, WRAPPED, kbkdf, mac, unwrap, wrap};
use crate::sealing::{Cache, SealKey};
use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use hashbrown::HashMap;
use keepwell_model::time::{Entropy, EntropyUnavailable};
use parking_lot::RwLock;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The slot of rows that belong to no patient.
pub const SHARED: u32 = 0;
/// Fewest slots made ahead at a time.
const POOL: usize = 1000;
/// How far rids are promised ahead.
const RID_STEP: u64 = 1 << 20;
/// Unwrapped keys kept.
const CACHED_KEYS: usize = 65_536;
/// Messages under one subkey of the organisation or of the shared slot: 2^20.
const EPOCH_BITS: u32 = 20;

/// Where keyring and ERA are.
#[derive(Clone, Debug)]
pub struct Paths {
    /// The keyring file.
    pub keyring: PathBuf,
    /// A second place of the keyring, confirmed before new keys are used.
    pub keyring_copy: Option<PathBuf>,
    /// The places of the ERA, the one in the data directory first.
    pub era: Vec<PathBuf>,
    /// Fewest places that must confirm an ERA.
    pub era_min: usize,
}

/// Why keys are not available.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The keyring file is not there.
    #[error("the keyring is missing")]
    Missing,
    /// A keyring is there already.
    #[error("there is a keyring already")]
    Exists,
    /// The keyring does not authenticate or is not well formed.
    #[error("the keyring is damaged: {0}")]
    Damaged(&'static str),
    /// No unlock slot opens.
    #[error(transparent)]
    Custody(#[from] CustodyError),
    /// No listed place holds the ERA that the keyring names.
    #[error("the keyring is older than the last erasure, or its ERA is lost")]
    OlderThanErasure,
    /// Too few places.
    #[error("{have} ERA places of {want} confirmed")]
    Places {
        /// Confirmed.
        have: usize,
        /// Required.
        want: usize,
    },
    /// The slot does not exist.
    #[error("there is no such slot")]
    NoSlot,
    /// The slot was destroyed.
    #[error("the slot was destroyed")]
    Destroyed,
    /// The source of randomness failed.
    #[error("the source of random numbers is not available")]
    Entropy,
    /// A file could not be read or written.
    #[error("a key file cannot be used: {0}")]
    Io(#[from] io::Error),
    /// A test stopped the process here.
    #[error("stopped by a test")]
    Stopped,
}

impl From<EntropyUnavailable> for VaultError {
    fn from(_: EntropyUnavailable) -> Self {
        Self::Entropy
    }
}

impl From<Failed> for VaultError {
    fn from(_: Failed) -> Self {
        Self::Damaged("a key does not unwrap")
    }
}

/// What opening the keyring had to put right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// An erasure that had taken effect was finished.
    pub finished: bool,
    /// An erasure that had not taken effect was undone.
    pub undone: bool,
    /// ERA places that were damaged and have been written anew from another.
    pub repaired: Vec<PathBuf>,
    /// ERA places that could not be reached or did not overwrite.
    pub unreachable: Vec<PathBuf>,
}

/// Moments of an erasure at which a test may stop the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EraseStep {
    /// ERA' is in one place.
    FirstPlace,
    /// ERA' is in every place.
    Places,
    /// `keyring.next` is half written.
    NextTorn,
    /// `keyring.next` is durable.
    Next,
    /// The keyring is switched, its copy not yet.
    Switched,
    /// The copy is switched.
    CopySwitched,
    /// The old ERA is overwritten in one place.
    FirstOverwritten,
    /// It is overwritten everywhere; the keyring still lists the places as pending.
    Overwritten,
}

/// Called at each moment of an erasure; a test lets it fail to stop there.
pub type Step<'a> = &'a dyn Fn(EraseStep) -> Result<(), VaultError>;

/// An ERA that is in the places and that no keyring names yet.
pub struct NewEra(Key);

impl EraseStep {
    /// Its name, for a process that is to be stopped there.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstPlace => "first-place",
            Self::Places => "places",
            Self::NextTorn => "next-torn",
            Self::Next => "next",
            Self::Switched => "switched",
            Self::CopySwitched => "copy-switched",
            Self::FirstOverwritten => "first-overwritten",
            Self::Overwritten => "overwritten",
        }
    }

    /// In order.
    pub const ALL: [Self; 8] = [
        Self::FirstPlace,
        Self::Places,
        Self::NextTorn,
        Self::Next,
        Self::Switched,
        Self::CopySwitched,
        Self::FirstOverwritten,
        Self::Overwritten,
    ];
}

/// What an erasure of keys reached.
#[derive(Clone, Debug, Default)]
pub struct ErasedKeys {
    /// Places that confirmed overwriting.
    pub confirmed: Vec<PathBuf>,
    /// Places where the old ERA may still be.
    pub unreachable: Vec<PathBuf>,
}

/// Counts for `keys status`.
#[derive(Clone, Debug, Default)]
pub struct KeyStatus {
    /// Revision of the keyring.
    pub revision: u64,
    /// Erasures so far.
    pub erasures: u32,
    /// Slots in use, made ahead, destroyed.
    pub slots: [u32; 3],
    /// Unlock slots.
    pub custody: Vec<&'static str>,
    /// Generations of the organisation key.
    pub generations: u16,
    /// Places where an old ERA may still be.
    pub pending: Vec<PathBuf>,
}

struct State {
    keyring: Keyring,
    live: Live,
    by_id: HashMap<[u8; 8], u32>,
    /// The first slot not handed out by this process.
    next: u32,
}

/// What the keyring's wraps give: changes as a whole with ROOT or ERA.
struct Live {
    root: Root,
    authenticator: hmac::Key,
    era: Key,
    wrapping: Key,
    key_refs: Vec<KeyRef>,
    log: Signing,
    token: Signing,
}

/// A signing key, and the public halves of those before it.
struct Signing {
    key: Ed25519KeyPair,
    retired: Vec<[u8; 32]>,
}

/// One generation of the key that hides which slot a row belongs to.
struct KeyRef {
    seal: EncryptingKey,
    open: DecryptingKey,
}

/// An unlocked keyring.
pub struct Vault {
    paths: Paths,
    org: [u8; 16],
    state: RwLock<State>,
    cache: Cache,
    entropy: Arc<dyn Entropy>,
}

fn wrapping_key(root: &Root, era: &Key, org: &[u8; 16]) -> Result<Key, Failed> {
    let mut both = Zeroizing::new([0; 64]);
    for (to, from) in both.iter_mut().zip(root.0.0.iter().chain(era.0.iter())) {
        *to = *from;
    }
    kbkdf(both.as_slice(), "keepwell wrapping", &[org])
}

fn authenticator(root: &Root, org: &[u8; 16]) -> Result<hmac::Key, Failed> {
    Ok(hmac::Key::new(
        hmac::HMAC_SHA256,
        kbkdf(root.0.0.as_slice(), "keepwell keyring", &[org])?.0.as_slice(),
    ))
}

fn random_key(entropy: &dyn Entropy) -> Result<Key, EntropyUnavailable> {
    let mut key = Zeroizing::new([0; 32]);
    entropy.fill(key.as_mut_slice())?;
    Ok(Key(key))
}

fn new_slot(wrapping: &Key, entropy: &dyn Entropy) -> Result<Slot, VaultError> {
    let mut id = [0; 8];
    entropy.fill(&mut id)?;
    let key = random_key(entropy)?;
    let mut commitment = [0; 16];
    for (to, from) in commitment
        .iter_mut()
        .zip(kbkdf(key.0.as_slice(), "keepwell commitment", &[&id])?.0.iter())
    {
        *to = *from;
    }
    Ok(Slot {
        id,
        state: SlotState::Free,
        commitment,
        first: wrap(wrapping, &key.0)?,
        later: Vec::new(),
    })
}

/// Reads a keyring file and authenticates it with the root that `custodian` unwraps.
fn read_keyring(path: &Path, custodian: &dyn Custodian) -> Result<(Keyring, Root), VaultError> {
    let bytes = std::fs::read(path).map_err(|e| {
        if e.kind() == io::ErrorKind::NotFound {
            VaultError::Missing
        } else {
            e.into()
        }
    })?;
    let (content, tag) = bytes
        .split_at_checked(bytes.len().saturating_sub(MAC))
        .ok_or(VaultError::Damaged("it is cut off"))?;
    let keyring = Keyring::decode(content).ok_or(VaultError::Damaged("it is not well formed"))?;
    let mut wrong = CustodyError::Wrong;
    for (_, wrapped) in keyring.custody.iter().filter(|(kind, _)| *kind == custodian.kind()) {
        match custodian.unwrap(wrapped, &keyring.org) {
            Ok(root) => {
                let expected = mac(&authenticator(&root, &keyring.org)?, &[content]);
                if !bool::from(expected.ct_eq(tag)) {
                    return Err(VaultError::Damaged("it was altered"));
                }
                return Ok((keyring, root));
            }
            Err(e) => wrong = e,
        }
    }
    Err(wrong.into())
}

impl Vault {
    /// Makes a new keyring and ERA; gives the recovery key, which is kept nowhere.
    ///
    /// # Errors
    /// A keyring exists, or too few ERA places can be written.
    pub fn init(paths: &Paths, custodian: &dyn Custodian, entropy: &dyn Entropy) -> Result<RecoveryKey, VaultError> {
        if paths.keyring.exists() {
            return Err(VaultError::Exists);
        }
        let mut org = [0; 16];
        entropy.fill(&mut org)?;
        let root = Root(random_key(entropy)?);
        let era = random_key(entropy)?;
        let mut have = 0;
        let mut last = None;
        for place in &paths.era {
            match era::write_beside(place, &era, None).and_then(|()| era::overwrite_others(place, &era::tag(&era))) {
                Ok(()) => have += 1,
                Err(e) => last = Some(e),
            }
        }
        if have < paths.era_min || have < paths.era.len() {
            return Err(match last {
                Some(e) => e.into(),
                None => VaultError::Places {
                    have,
                    want: paths.era_min,
                },
            });
        }
        let recovery = RecoveryKey::generate(entropy)?;
        let wrapping = wrapping_key(&root, &era, &org)?;
        let mut named = Vec::new();
        for purpose in Purpose::FIRST {
            named.push(Named {
                purpose,
                wrapped: wrap(&wrapping, &random_key(entropy)?.0)?,
            });
        }
        let mut slots = Vec::with_capacity(POOL);
        for _ in 0..POOL {
            slots.push(new_slot(&wrapping, entropy)?);
        }
        if let Some(shared) = slots.first_mut() {
            shared.state = SlotState::Active;
        }
        let keyring = Keyring {
            org,
            revision: 1,
            era: era::tag(&era),
            erasures: 0,
            rid_ceiling: RID_STEP,
            custody: vec![
                (custodian.kind(), custodian.wrap(&root, &org, entropy)?),
                (CustodyKind::Recovery, recovery.wrap(&root, &org, entropy)?),
            ],
            named,
            unannounced: Vec::new(),
            pending: Vec::new(),
            slots,
        };
        let bytes = authenticated(&keyring, &authenticator(&root, &org)?);
        if let Some(copy) = &paths.keyring_copy {
            replace(copy, &bytes)?;
        }
        replace(&paths.keyring, &bytes)?;
        Ok(recovery)
    }

    /// Unlocks the keyring and settles an interrupted erasure.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub fn open(
        paths: Paths,
        custodian: &dyn Custodian,
        entropy: Arc<dyn Entropy>,
    ) -> Result<(Self, Settled), VaultError> {
        let mut settled = Settled::default();
        let (keyring, root) = current(&paths, custodian, &mut settled)?;
        let era = find_era(&paths, &keyring)?;
        let org = keyring.org;
        let vault = Self {
            state: RwLock::new(State {
                live: Live::new(&keyring, root, era)?,
                by_id: by_id(&keyring),
                keyring,
                next: 1,
            }),
            cache: Cache::new(CACHED_KEYS),
            paths,
            org,
            entropy,
        };
        vault.clean_places(&mut settled)?;
        Ok((vault, settled))
    }

    /// The organisation's id, part of every sealed text.
    #[must_use]
    pub fn organisation(&self) -> [u8; 16] {
        self.org
    }

    // Slots

    /// Tells which slots the log already uses: `used` is one more than the highest; they and all before are active.
    pub fn resume(&self, used: u32) {
        let mut state = self.state.write();
        state.next = state.next.max(used);
        let upto = state.next as usize;
        for slot in state
            .keyring
            .slots
            .iter_mut()
            .take(upto)
            .filter(|s| s.state == SlotState::Free)
        {
            slot.state = SlotState::Active;
        }
    }

    /// Slots in the keyring, whatever their state.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.state.read().keyring.slots.len() as u32
    }

    /// A slot never used before. Its key is durable in the keyring (and its copy) when this returns.
    ///
    /// # Errors
    /// No free slot is left and the keyring could not be extended.
    pub fn allot(&self) -> Result<u32, VaultError> {
        let mut state = self.state.write();
        while state
            .keyring
            .slots
            .get(state.next as usize)
            .is_some_and(|s| s.state != SlotState::Free)
        {
            state.next += 1;
        }
        if state.next as usize >= state.keyring.slots.len() {
            self.extend(&mut state)?;
        }
        let slot = state.next;
        if let Some(entry) = state.keyring.slots.get_mut(slot as usize) {
            entry.state = SlotState::Active;
        }
        state.next += 1;
        Ok(slot)
    }

    /// Gives slots back that were allotted and not used by any commit: all from `first` on.
    pub fn give_back(&self, first: u32) {
        let mut state = self.state.write();
        if first < state.next {
            state.next = first;
            let given = state.keyring.slots.iter_mut().skip(first as usize);
            for slot in given.filter(|s| s.state == SlotState::Active) {
                slot.state = SlotState::Free;
            }
        }
    }

    /// Makes the next pool when fewer than a quarter of one is left. Cheap when there is nothing to do.
    ///
    /// # Errors
    /// The keyring could not be extended; slots made earlier can still be used.
    pub fn make_ahead(&self) -> Result<(), VaultError> {
        {
            let state = self.state.read();
            if state.keyring.slots.len() - state.next as usize >= POOL / 4 {
                return Ok(());
            }
        }
        self.extend(&mut self.state.write())
    }

    fn extend(&self, state: &mut State) -> Result<(), VaultError> {
        let mut changed = state.keyring.clone();
        for _ in 0..POOL.max(changed.slots.len() / 16) {
            let slot = new_slot(&state.live.wrapping, self.entropy.as_ref())?;
            // Eight random bytes meet by chance once in a few billion slots: take another.
            if !state.by_id.contains_key(&slot.id) {
                changed.slots.push(slot);
            }
        }
        self.write(state, changed)
    }

    /// The state of a slot.
    #[must_use]
    pub fn slot_state(&self, slot: u32) -> Option<SlotState> {
        self.state.read().keyring.slots.get(slot as usize).map(|s| s.state)
    }

    /// All destroyed slots.
    #[must_use]
    pub fn destroyed(&self) -> Vec<u32> {
        let state = self.state.read();
        let all = state.keyring.slots.iter().zip(0..);
        all.filter(|(slot, _)| slot.state == SlotState::Destroyed)
            .map(|(_, n)| n)
            .collect()
    }

    /// Destroyed slots whose tombstone may be missing in the log.
    #[must_use]
    pub fn unannounced(&self) -> Vec<u32> {
        self.state.read().keyring.unannounced.clone()
    }

    /// The tombstones of all destroyed slots are in the log.
    ///
    /// # Errors
    /// The keyring could not be written; they are announced again at the next start.
    pub fn announced(&self) -> Result<(), VaultError> {
        let mut state = self.state.write();
        if state.keyring.unannounced.is_empty() {
            return Ok(());
        }
        let mut changed = state.keyring.clone();
        changed.unannounced.clear();
        self.write(&mut state, changed)
    }

    /// A slot's public commitment, which outlives its key.
    #[must_use]
    pub fn commitment(&self, slot: u32) -> Option<[u8; 16]> {
        self.state.read().keyring.slots.get(slot as usize).map(|s| s.commitment)
    }

    /// Makes sure `rid` is below the durable ceiling.
    ///
    /// # Errors
    /// The keyring could not be written; the rid must not be used.
    pub fn promise_rid(&self, rid: u64) -> Result<(), VaultError> {
        if rid < self.state.read().keyring.rid_ceiling {
            return Ok(());
        }
        let mut state = self.state.write();
        let mut changed = state.keyring.clone();
        changed.rid_ceiling = rid + RID_STEP;
        self.write(&mut state, changed)
    }

    /// No rid at or above this was ever used.
    #[must_use]
    pub fn rid_ceiling(&self) -> u64 {
        self.state.read().keyring.rid_ceiling
    }

    // Keys for sealing and opening

    /// The key that seals a new row.
    ///
    /// # Errors
    /// The slot does not exist or was destroyed.
    pub fn row_key(&self, slot: u32, rid: u64) -> Result<Arc<SealKey>, VaultError> {
        let generation = {
            let state = self.state.read();
            let entry = state.keyring.slots.get(slot as usize).ok_or(VaultError::NoSlot)?;
            1 + entry.later.len() as u16
        };
        self.open_key(slot, generation, rid)
    }

    /// The key that opens a row of a known generation.
    ///
    /// # Errors
    /// The slot or generation does not exist, or the slot was destroyed.
    pub fn open_key(&self, slot: u32, generation: u16, rid: u64) -> Result<Arc<SealKey>, VaultError> {
        // INVARIANT (subkeys): the shared slot's key never seals directly.
        let epoch = if slot == SHARED { 1 + (rid >> EPOCH_BITS) } else { 0 };
        let name = (slot, generation, epoch);
        if let Some(key) = self.cache.get(&name) {
            return Ok(key);
        }
        let state = self.state.read();
        let entry = state.keyring.slots.get(slot as usize).ok_or(VaultError::NoSlot)?;
        if entry.state == SlotState::Destroyed {
            return Err(VaultError::Destroyed);
        }
        let wrapped = match generation {
            0 => None,
            1 => Some(&entry.first),
            n => entry.later.get(usize::from(n) - 2),
        };
        let mut key = unwrap(&state.live.wrapping, wrapped.ok_or(VaultError::NoSlot)?)?;
        if slot == SHARED {
            key = kbkdf(key.0.as_slice(), "keepwell shared rows", &[&epoch.to_be_bytes()])?;
        }
        let key = Arc::new(SealKey::new(&key, &self.org, entry.id, generation, epoch)?);
        self.cache.insert(name, &key);
        Ok(key)
    }

    /// A subkey of the organisation for message `number` of a purpose; `generation` 0 means the newest.
    ///
    /// # Errors
    /// The generation does not exist.
    pub fn organisation_key(&self, purpose: [u8; 8], generation: u16, number: u64) -> Result<Arc<SealKey>, VaultError> {
        let epoch = number >> EPOCH_BITS;
        let generation = if generation == 0 {
            self.generations()
        } else {
            generation
        };
        let hash = purpose
            .iter()
            .fold(0_u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(*b)));
        // The names of purposes are few and fixed; the top bit keeps them apart from slots.
        let name = (hash | 1 << 31, generation, epoch);
        if let Some(key) = self.cache.get(&name) {
            return Ok(key);
        }
        let state = self.state.read();
        let named = state
            .keyring
            .named
            .iter()
            .filter(|n| n.purpose == Purpose::Organisation);
        let wrapped = named
            .skip(usize::from(generation).wrapping_sub(1))
            .map(|n| n.wrapped)
            .next();
        let key = unwrap(&state.live.wrapping, &wrapped.ok_or(VaultError::NoSlot)?)?;
        let key = kbkdf(
            key.0.as_slice(),
            "keepwell organisation",
            &[&purpose, &epoch.to_be_bytes()],
        )?;
        let key = Arc::new(SealKey::new(&key, &self.org, purpose, generation, epoch)?);
        self.cache.insert(name, &key);
        Ok(key)
    }

    /// Generations of the organisation key.
    #[must_use]
    pub fn generations(&self) -> u16 {
        let state = self.state.read();
        state
            .keyring
            .named
            .iter()
            .filter(|n| n.purpose == Purpose::Organisation)
            .count() as u16
    }

    /// The key of the snapshot with this random id; dies with the ERA.
    ///
    /// # Errors
    /// The library refuses.
    pub fn snapshot_key(&self, id: &[u8; 16]) -> Result<SealKey, VaultError> {
        let state = self.state.read();
        let mut both = Zeroizing::new([0; 64]);
        for (to, from) in both
            .iter_mut()
            .zip(state.live.root.0.0.iter().chain(state.live.era.0.iter()))
        {
            *to = *from;
        }
        let key = kbkdf(both.as_slice(), "keepwell snapshot", &[&self.org, id])?;
        Ok(SealKey::new(&key, &self.org, *b"snapshot", 0, 0)?)
    }

    // key_ref

    /// The public reference of a row to its slot: one AES block of (slot id, rid).
    ///
    /// # Errors
    /// The slot does not exist.
    pub fn key_ref(&self, slot: u32, rid: u64) -> Result<[u8; 16], VaultError> {
        let state = self.state.read();
        let id = state.keyring.slots.get(slot as usize).ok_or(VaultError::NoSlot)?.id;
        let mut block = [0; 16];
        for (to, from) in block.iter_mut().zip(id.into_iter().chain(rid.to_be_bytes())) {
            *to = from;
        }
        let key = state.live.key_refs.last().ok_or(VaultError::NoSlot)?;
        key.seal.encrypt(&mut block).map_err(|_| Failed)?;
        Ok(block)
    }

    /// The slot a `key_ref` names, if it belongs to row `rid`.
    #[must_use]
    pub fn slot_of(&self, key_ref: &[u8; 16], rid: u64) -> Option<u32> {
        let state = self.state.read();
        for key in state.live.key_refs.iter().rev() {
            let mut block = *key_ref;
            if key.open.decrypt(&mut block, DecryptionContext::None).is_err() {
                continue;
            }
            if let Some((id, number)) = block.split_first_chunk::<8>()
                && number == rid.to_be_bytes()
            {
                return state.by_id.get(id).copied();
            }
        }
        None
    }

    // Signing

    /// Signs with the log key (Ed25519).
    #[must_use]
    pub fn sign_log(&self, message: &[u8]) -> [u8; 64] {
        signature(&self.state.read().live.log.key, message)
    }

    /// The log key's public half.
    #[must_use]
    pub fn log_public(&self) -> [u8; 32] {
        public(&self.state.read().live.log.key)
    }

    /// The public halves of earlier log keys, oldest first.
    #[must_use]
    pub fn log_retired(&self) -> Vec<[u8; 32]> {
        self.state.read().live.log.retired.clone()
    }

    /// Signs with the token key (Ed25519).
    #[must_use]
    pub fn sign_token(&self, message: &[u8]) -> [u8; 64] {
        signature(&self.state.read().live.token.key, message)
    }

    /// The token key's public half.
    #[must_use]
    pub fn token_public(&self) -> [u8; 32] {
        public(&self.state.read().live.token.key)
    }

    /// The public halves of earlier token keys that are still honoured, oldest first.
    #[must_use]
    pub fn token_retired(&self) -> Vec<[u8; 32]> {
        self.state.read().live.token.retired.clone()
    }

    // Changes of the keyring

    /// Rotates every key: a new ROOT for `custodian` and for a new recovery key, and a new ERA, so that older copies of
    /// the keyring open nothing; a new generation of the organisation key, the `key_ref` key and of every slot in use, and
    /// new keys for slots made ahead, so that whoever had the old ones cannot open what is sealed from now on; new signing
    /// keys, of whose predecessors only the public halves stay. With `end_tokens` not even those of the token keys.
    ///
    /// What was sealed before still opens: nothing is sealed again. Unlock slots of other kinds than the custodian's go:
    /// their secrets are not known here. Must not run beside [`Vault::allot`].
    ///
    /// # Errors
    /// [`VaultError::Places`]: nothing was changed. Others: it is finished or undone at the next start.
    pub fn rotate(
        &self,
        custodian: &dyn Custodian,
        end_tokens: bool,
        step: Step<'_>,
    ) -> Result<(RecoveryKey, ErasedKeys), VaultError> {
        let entropy = self.entropy.as_ref();
        // A passphrase hash takes its time: readers need not wait for it.
        let root = Root(random_key(entropy)?);
        let recovery = RecoveryKey::generate(entropy)?;
        let custody = vec![
            (custodian.kind(), custodian.wrap(&root, &self.org, entropy)?),
            (CustodyKind::Recovery, recovery.wrap(&root, &self.org, entropy)?),
        ];
        let NewEra(era) = self.renew_era(step)?;
        let mut state = self.state.write();
        let wrapping = wrapping_key(&root, &era, &self.org)?;
        let mut changed = rewrapped(&state.keyring, &[], &state.live.wrapping, &wrapping)?;
        changed.custody = custody;
        let fresh = || -> Result<[u8; WRAPPED], VaultError> { Ok(wrap(&wrapping, &random_key(entropy)?.0)?) };
        for slot in &mut changed.slots {
            match slot.state {
                SlotState::Free => *slot = new_slot(&wrapping, entropy)?,
                SlotState::Active if slot.later.len() >= 200 => {
                    return Err(VaultError::Damaged("a slot has too many generations"));
                }
                SlotState::Active => slot.later.push(fresh()?),
                SlotState::Destroyed => {}
            }
        }
        for purpose in [Purpose::Organisation, Purpose::KeyRef] {
            let wrapped = fresh()?;
            changed.named.push(Named { purpose, wrapped });
        }
        let signing = [
            (Purpose::LogSigning, Purpose::RetiredLog, public(&state.live.log.key)),
            (
                Purpose::TokenSigning,
                Purpose::RetiredToken,
                public(&state.live.token.key),
            ),
        ];
        for (purpose, retired, public) in signing {
            changed.named.retain(|n| n.purpose != purpose);
            let wrapped = fresh()?;
            changed.named.push(Named { purpose, wrapped });
            let wrapped = wrap(&wrapping, &public)?;
            changed.named.push(Named {
                purpose: retired,
                wrapped,
            });
        }
        if end_tokens {
            changed.named.retain(|n| n.purpose != Purpose::RetiredToken);
        }
        let done = self.install(&mut state, changed, root, era, step)?;
        Ok((recovery, done))
    }

    /// Destroys the keys of `slots`: [`Vault::renew_era`] and [`Vault::destroy`]. `step` is called at the moments a test
    /// may stop at.
    ///
    /// # Errors
    /// [`VaultError::Places`]: nothing was erased. Other errors: the erasure is finished or undone at the next start.
    pub fn erase(&self, slots: &[u32], step: Step<'_>) -> Result<ErasedKeys, VaultError> {
        let new = self.renew_era(step)?;
        self.destroy(new, slots, step)
    }

    /// Step (1) of an erasure: writes ERA' beside the ERA in every reachable place. Nothing needs it yet.
    ///
    /// # Errors
    /// [`VaultError::Places`]: too few confirmed it; it has been overwritten again.
    pub fn renew_era(&self, step: Step<'_>) -> Result<NewEra, VaultError> {
        let new = NewEra(random_key(self.entropy.as_ref())?);
        let old_tag = self.state.read().keyring.era;
        let mut have = 0;
        for place in &self.paths.era {
            if era::write_beside(place, &new.0, Some(&old_tag)).is_ok() {
                have += 1;
                step(EraseStep::FirstPlace)?;
            }
        }
        if have < self.paths.era_min.max(1) {
            self.drop_era();
            return Err(VaultError::Places {
                have,
                want: self.paths.era_min.max(1),
            });
        }
        step(EraseStep::Places)?;
        Ok(new)
    }

    /// Takes back [`Vault::renew_era`]: overwrites every ERA but the keyring's.
    pub fn drop_era(&self) {
        let tag = self.state.read().keyring.era;
        for place in &self.paths.era {
            // Best effort: a place that fails here is overwritten at the next start.
            let _ = era::overwrite_others(place, &tag);
        }
    }

    /// Steps (2) to (4) of an erasure.
    ///
    /// # Errors
    /// A slot does not exist, or a file could not be written: the erasure is finished or undone at the next start.
    pub fn destroy(&self, new: NewEra, slots: &[u32], step: Step<'_>) -> Result<ErasedKeys, VaultError> {
        let mut state = self.state.write();
        if slots
            .iter()
            .any(|s| *s == SHARED || *s as usize >= state.keyring.slots.len())
        {
            return Err(VaultError::NoSlot);
        }
        let NewEra(era) = new;
        let root = state.live.root.copy();
        let wrapping = wrapping_key(&root, &era, &self.org)?;
        let mut changed = rewrapped(&state.keyring, slots, &state.live.wrapping, &wrapping)?;
        changed.erasures += 1;
        let done = self.install(&mut state, changed, root, era, step);
        for slot in slots {
            self.cache.forget(*slot);
        }
        done
    }

    /// Steps (2) to (4): a keyring that is wrapped under `root` and `era` takes the place of today's.
    fn install(
        &self,
        state: &mut State,
        mut changed: Keyring,
        root: Root,
        era: Key,
        step: Step<'_>,
    ) -> Result<ErasedKeys, VaultError> {
        changed.revision += 1;
        changed.era = era::tag(&era);
        changed.pending.clone_from(&self.paths.era);
        let live = Live::new(&changed, root, era)?;
        let bytes = authenticated(&changed, &live.authenticator);
        let next = beside(&self.paths.keyring, ".next");
        if step(EraseStep::NextTorn).is_err() {
            write_synced(&next, bytes.get(..bytes.len() / 2).unwrap_or_default())?;
            return Err(VaultError::Stopped);
        }
        if let Some(copy) = &self.paths.keyring_copy {
            write_synced(&beside(copy, ".next"), &bytes)?;
        }
        write_synced(&next, &bytes)?;
        step(EraseStep::Next)?;
        // (3)
        switch(&self.paths.keyring)?;
        state.by_id = by_id(&changed);
        state.keyring = changed;
        state.live = live;
        step(EraseStep::Switched)?;
        if let Some(copy) = &self.paths.keyring_copy {
            switch(copy)?;
        }
        step(EraseStep::CopySwitched)?;
        // (4)
        self.finish_places(state, step)
    }

    /// Overwrites what is not the keyring's ERA in every place, and notes in the keyring which places are still to come.
    fn finish_places(&self, state: &mut State, step: Step<'_>) -> Result<ErasedKeys, VaultError> {
        let mut done = ErasedKeys::default();
        let tag = state.keyring.era;
        let mut places = self.paths.era.clone();
        places.extend(
            state
                .keyring
                .pending
                .iter()
                .filter(|p| !self.paths.era.contains(p))
                .cloned(),
        );
        for place in places {
            let listed = self.paths.era.contains(&place);
            let result = era::Place::read(&place).and_then(|found| {
                // A place that was away during the erasure gets the new ERA first.
                if listed && found.find(&tag).is_none() {
                    era::write_beside(&place, &state.live.era, None)?;
                }
                era::overwrite_others(&place, &tag)
            });
            match result {
                Ok(()) => done.confirmed.push(place),
                Err(_) => done.unreachable.push(place),
            }
            step(EraseStep::FirstOverwritten)?;
        }
        step(EraseStep::Overwritten)?;
        let mut pending = done.unreachable.clone();
        pending.retain(|p| state.keyring.pending.contains(p));
        if pending != state.keyring.pending {
            let mut changed = state.keyring.clone();
            changed.pending = pending;
            self.write(state, changed)?;
        }
        Ok(done)
    }

    /// After opening: no place may hold another ERA than the keyring's.
    fn clean_places(&self, settled: &mut Settled) -> Result<(), VaultError> {
        let mut state = self.state.write();
        let tag = state.keyring.era;
        let interrupted = !state.keyring.pending.is_empty();
        let stray = self
            .paths
            .era
            .iter()
            .any(|p| era::Place::read(p).is_ok_and(|found| found.holds_another(&tag)));
        if stray && !settled.finished && !interrupted {
            settled.undone = true;
        }
        if !interrupted && !settled.finished && !settled.undone {
            let damaged = |p: &&PathBuf| era::Place::read(p).is_ok_and(|found| found.is_damaged(&tag));
            settled.repaired.extend(self.paths.era.iter().filter(damaged).cloned());
        }
        let done = self.finish_places(&mut state, &|_| Ok(()))?;
        settled.finished |= interrupted && done.unreachable.is_empty();
        settled.unreachable.extend(done.unreachable);
        Ok(())
    }

    /// Writes a changed keyring and takes it over: first the copy, then the keyring itself.
    fn write(&self, state: &mut State, mut changed: Keyring) -> Result<(), VaultError> {
        changed.revision += 1;
        let bytes = authenticated(&changed, &state.live.authenticator);
        if let Some(copy) = &self.paths.keyring_copy {
            replace(copy, &bytes)?;
        }
        replace(&self.paths.keyring, &bytes)?;
        for (slot, n) in changed.slots.iter().zip(0..).skip(state.by_id.len()) {
            state.by_id.insert(slot.id, n);
        }
        state.keyring = changed;
        Ok(())
    }

    /// Writes the keyring as it is, so that slot states are current. For a clean stop.
    ///
    /// # Errors
    /// It could not be written; nothing is lost.
    pub fn flush(&self) -> Result<(), VaultError> {
        let mut state = self.state.write();
        let changed = state.keyring.clone();
        self.write(&mut state, changed)
    }

    /// Drops cached keys.
    pub fn forget_keys(&self) {
        self.cache.clear();
    }

    /// The keyring's revision: one more at each write of the file.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.state.read().keyring.revision
    }

    /// Counts.
    #[must_use]
    pub fn status(&self) -> KeyStatus {
        let generations = self.generations();
        let state = self.state.read();
        let mut slots = [0; 3];
        for slot in &state.keyring.slots {
            if let Some(n) = slots.get_mut(match slot.state {
                SlotState::Active => 0,
                SlotState::Free => 1,
                SlotState::Destroyed => 2_usize,
            }) {
                *n += 1;
            }
        }
        KeyStatus {
            revision: state.keyring.revision,
            erasures: state.keyring.erasures,
            slots,
            custody: state.keyring.custody.iter().map(|(kind, _)| kind.name()).collect(),
            generations,
            pending: state.keyring.pending.clone(),
        }
    }
}

/// Step (3) for one place of the keyring.
fn switch(keyring: &Path) -> io::Result<()> {
    std::fs::rename(beside(keyring, ".next"), keyring)?;
    sync_parent(keyring)
}

/// The keyring to go on with, and its ROOT. A whole `keyring.next` whose ERA is in place is one: step (3) is finished.
/// Anything less is removed, once the keyring itself has opened: a rotation may have given it another secret.
fn current(paths: &Paths, custodian: &dyn Custodian, settled: &mut Settled) -> Result<(Keyring, Root), VaultError> {
    let next = beside(&paths.keyring, ".next");
    let newer = read_keyring(&next, custodian);
    let old = read_keyring(&paths.keyring, custodian);
    let follows = |newer: &Keyring| match &old {
        Ok((old, _)) => newer.org == old.org && newer.revision > old.revision,
        Err(VaultError::Custody(CustodyError::Wrong)) => true,
        Err(_) => false,
    };
    let found = match newer {
        Ok((newer, root)) if follows(&newer) && find_era(paths, &newer).is_ok() => {
            switch(&paths.keyring)?;
            settled.finished = true;
            (newer, root)
        }
        Err(VaultError::Missing) => old?,
        _ => {
            let old = old?;
            std::fs::remove_file(&next)?;
            sync_parent(&next)?;
            settled.undone = true;
            old
        }
    };
    if let Some(copy) = &paths.keyring_copy {
        let copy_next = beside(copy, ".next");
        if copy_next.exists() {
            let _ = std::fs::remove_file(&copy_next);
        }
        // The copy must open with the ERA that is kept.
        let same = std::fs::read(copy).ok() == std::fs::read(&paths.keyring).ok();
        if !same
            && std::fs::read(&paths.keyring)
                .and_then(|bytes| replace(copy, &bytes))
                .is_err()
        {
            settled.unreachable.push(copy.clone());
        }
    }
    Ok(found)
}

fn by_id(keyring: &Keyring) -> HashMap<[u8; 8], u32> {
    keyring.slots.iter().zip(0..).map(|(slot, n)| (slot.id, n)).collect()
}

impl Live {
    fn new(keyring: &Keyring, root: Root, era: Key) -> Result<Self, VaultError> {
        let wrapping = wrapping_key(&root, &era, &keyring.org)?;
        Ok(Self {
            authenticator: authenticator(&root, &keyring.org)?,
            key_refs: key_refs(keyring, &wrapping)?,
            log: signing(keyring, Purpose::LogSigning, Purpose::RetiredLog, &wrapping)?,
            token: signing(keyring, Purpose::TokenSigning, Purpose::RetiredToken, &wrapping)?,
            root,
            era,
            wrapping,
        })
    }
}

fn find_era(paths: &Paths, keyring: &Keyring) -> Result<Key, VaultError> {
    for place in &paths.era {
        if let Ok(found) = era::Place::read(place)
            && let Some(era) = found.find(&keyring.era)
        {
            return Ok(Key(era.0.clone()));
        }
    }
    Err(VaultError::OlderThanErasure)
}

fn authenticated(keyring: &Keyring, key: &hmac::Key) -> Vec<u8> {
    let mut bytes = keyring.encode();
    let tag = mac(key, &[&bytes]);
    bytes.extend_from_slice(&tag);
    bytes
}

/// The keyring without `slots`' keys, everything else under another wrapping key.
fn rewrapped(keyring: &Keyring, slots: &[u32], old: &Key, new: &Key) -> Result<Keyring, VaultError> {
    let again = |wrapped: &mut [u8; WRAPPED]| -> Result<(), Failed> {
        *wrapped = wrap(new, &unwrap(old, wrapped)?.0)?;
        Ok(())
    };
    let mut changed = keyring.clone();
    for slot in slots {
        if let Some(slot) = changed.slots.get_mut(*slot as usize) {
            slot.state = SlotState::Destroyed;
            slot.first = [0; WRAPPED];
            slot.later = Vec::new();
        }
        changed.unannounced.push(*slot);
    }
    for named in &mut changed.named {
        again(&mut named.wrapped)?;
    }
    for slot in changed.slots.iter_mut().filter(|s| s.state != SlotState::Destroyed) {
        again(&mut slot.first)?;
        for wrapped in &mut slot.later {
            again(wrapped)?;
        }
    }
    Ok(changed)
}

fn key_refs(keyring: &Keyring, wrapping: &Key) -> Result<Vec<KeyRef>, VaultError> {
    let mut out = Vec::new();
    for named in keyring.named.iter().filter(|n| n.purpose == Purpose::KeyRef) {
        let key = unwrap(wrapping, &named.wrapped)?;
        let cipher = || UnboundCipherKey::new(&AES_256, key.0.as_slice()).map_err(|_| Failed);
        out.push(KeyRef {
            seal: EncryptingKey::ecb(cipher()?).map_err(|_| Failed)?,
            open: DecryptingKey::ecb(cipher()?).map_err(|_| Failed)?,
        });
    }
    Ok(out)
}

fn signing(keyring: &Keyring, purpose: Purpose, retired: Purpose, wrapping: &Key) -> Result<Signing, VaultError> {
    let of = |purpose| keyring.named.iter().filter(move |n| n.purpose == purpose);
    let named = of(purpose)
        .next_back()
        .ok_or(VaultError::Damaged("a named key is missing"))?;
    let seed = unwrap(wrapping, &named.wrapped)?;
    let key = Ed25519KeyPair::from_seed_unchecked(seed.0.as_slice())
        .map_err(|_| VaultError::Damaged("a signing key is refused"))?;
    let retired = of(retired)
        .map(|n| unwrap(wrapping, &n.wrapped).map(|public| *public.0))
        .collect::<Result<_, _>>()?;
    Ok(Signing { key, retired })
}

fn signature(key: &Ed25519KeyPair, message: &[u8]) -> [u8; 64] {
    let mut out = [0; 64];
    out.copy_from_slice(key.sign(message).as_ref());
    out
}

fn public(key: &Ed25519KeyPair) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(key.public_key().as_ref());
    out
}

#[cfg(test)]
mod tests;

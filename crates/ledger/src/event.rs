//! Audit events: their bytes, and the per-patient list of them. `docs/formats/event.md`.

use crate::row::padded;
use crate::varint::{Reader, put};
use aws_lc_rs::hmac;
use hashbrown::HashMap;
use keepwell_model::time::Timestamp;
use keepwell_vault::{NONCE, Place, TAG, Vault, VaultError};

/// One event: one request, or one administrative act.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// What happened, public in the leaf (no PHI): a number of `record`'s choosing, 1 to 199; the ledger's own are 200 up.
    pub kind: u8,
    /// The actor half, sealed under the organisation's key: who, how, which route, and whatever names no patient.
    pub actor: Vec<u8>,
    /// One part per patient shown or touched, sealed under that slot: which rows.
    pub parts: Vec<(u32, Vec<u8>)>,
}

/// When the caller of `log` goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// When the entry is in the write-ahead log: survives a killed process; fsynced within 50 ms.
    Wal,
    /// When it is fsynced.
    Fsync,
}

/// One line of a patient's access log.
#[derive(Clone, Debug)]
pub struct Access {
    /// Number of the entry in the log.
    pub seq: u64,
    /// When it was appended.
    pub at: Timestamp,
    /// The event's kind.
    pub kind: u8,
    /// The actor half.
    pub actor: Vec<u8>,
    /// The patient's part; empty when only the event was asked for.
    pub part: Vec<u8>,
    /// The slots of all parts.
    pub slots: Vec<u32>,
}

const VERSION: u8 = 1;
const FORMAT: [u8; 4] = *b"evt1";
/// The purpose of the organisation's subkeys for actor halves.
const PURPOSE: [u8; 8] = *b"event\0\0\0";
/// Sealed events are split above this many bytes of parts.
pub(crate) const PARTS_MAX: usize = 56 << 10;

fn place(seq: u64, part: &[u8; 4]) -> Place<'_> {
    Place {
        format: FORMAT,
        number: seq,
        extra: part,
    }
}

/// A part's nonce: the event's with the part's number mixed in, so that no key meets a nonce twice within an event.
fn part_nonce(nonce: &[u8; NONCE], part: u32) -> [u8; NONCE] {
    let mut out = *nonce;
    for (to, from) in out.iter_mut().rev().zip(part.to_be_bytes().iter().rev()) {
        *to ^= from;
    }
    out
}

/// The keyed commitment of an event: its key lies in the actor half, and each part enters through a digest under its
/// slot's key, so that neither the public leaf nor the organisation's keys tell anything of an erased part.
fn commitment(key: &[u8; 16], at: i64, kind: u8, actor: &[u8], digests: &[[u8; 32]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    context.update(b"keepwell event 1");
    context.update(&at.to_be_bytes());
    context.update(&[kind]);
    context.update(&(actor.len() as u64).to_be_bytes());
    context.update(actor);
    for digest in digests {
        context.update(digest);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// Seals an event at entry `seq`: the stored bytes and the commitment for the leaf.
pub(crate) fn seal(
    vault: &Vault,
    random: &mut dyn FnMut() -> Option<[u8; 16]>,
    seq: u64,
    at: Timestamp,
    event: &Event,
    parts: &[(u32, Vec<u8>)],
) -> Result<(Vec<u8>, [u8; 32]), VaultError> {
    let key = vault.organisation_key(PURPOSE, 0, seq)?;
    let random_commitment = random().ok_or(VaultError::Entropy)?;
    let mut actor = Vec::with_capacity(padded(event.actor.len() + 40) + TAG);
    actor.extend_from_slice(&random_commitment);
    put(&mut actor, parts.len() as u64);
    let mut keys = Vec::with_capacity(parts.len());
    let mut digests = Vec::with_capacity(parts.len());
    for (slot, part) in parts {
        let key = vault.row_key(*slot, seq)?;
        put(&mut actor, u64::from(*slot));
        put(&mut actor, u64::from(key.generation()));
        digests.push(key.digest(seq, part));
        keys.push(key);
    }
    put(&mut actor, event.actor.len() as u64);
    actor.extend_from_slice(&event.actor);
    actor.resize(padded(actor.len()), 0);
    let commitment = commitment(&random_commitment, at.0, event.kind, &event.actor, &digests);
    let nonce = key.nonce(
        &random().ok_or(VaultError::Entropy)?,
        seq,
        &[&actor, digests.as_flattened()],
    );

    let total: usize = parts.iter().map(|(_, part)| part.len() + 40).sum();
    let mut out = Vec::with_capacity(actor.len() + total + 48);
    out.push(VERSION);
    out.extend_from_slice(&key.generation().to_be_bytes());
    out.extend_from_slice(&nonce);
    let failed = |_| VaultError::Entropy;
    let tag = key.seal(place(seq, &[0; 4]), &nonce, &mut actor).map_err(failed)?;
    put(&mut out, actor.len() as u64);
    out.extend_from_slice(&actor);
    out.extend_from_slice(&tag);
    for (((_, part), key), n) in parts.iter().zip(&keys).zip(1_u32..) {
        let mut text = Vec::with_capacity(part.len() + 24);
        put(&mut text, part.len() as u64);
        text.extend_from_slice(part);
        text.resize(text.len().next_multiple_of(16), 0);
        let tag = key
            .seal(place(seq, &n.to_be_bytes()), &part_nonce(&nonce, n), &mut text)
            .map_err(failed)?;
        put(&mut out, text.len() as u64);
        out.extend_from_slice(&text);
        out.extend_from_slice(&tag);
    }
    Ok((out, commitment))
}

/// The actor half of an event, opened, with the sealed parts.
pub(crate) struct Half<'a> {
    seq: u64,
    key: [u8; 16],
    nonce: [u8; NONCE],
    pub(crate) actor: Vec<u8>,
    /// Slot and generation of each part.
    pub(crate) slots: Vec<(u32, u16)>,
    parts: Reader<'a>,
}

/// Opens the actor half. `None`: altered or moved.
pub(crate) fn open<'a>(vault: &Vault, seq: u64, sealed: &'a [u8]) -> Option<Half<'a>> {
    let mut r = Reader(sealed);
    if r.byte()? != VERSION {
        return None;
    }
    let generation = u16::from_be_bytes(r.array()?);
    let nonce = r.array()?;
    let length = r.length()?.checked_add(TAG)?;
    let mut text = r.bytes(length)?.to_vec();
    if generation == 0 {
        return None;
    }
    let key = vault.organisation_key(PURPOSE, generation, seq).ok()?;
    let text = key.open(place(seq, &[0; 4]), &nonce, &mut text).ok()?;
    let mut t = Reader(text);
    let key = t.array()?;
    let mut slots = Vec::new();
    for _ in 0..t.varint()? {
        slots.push((u32::try_from(t.varint()?).ok()?, u16::try_from(t.varint()?).ok()?));
    }
    let length = t.length()?;
    let actor = t.bytes(length)?.to_vec();
    Some(Half {
        seq,
        key,
        nonce,
        actor,
        slots,
        parts: r,
    })
}

/// What became of a part.
pub(crate) enum Part {
    Open(Vec<u8>),
    Erased,
}

impl Half<'_> {
    /// Opens all parts. `None`: one is altered.
    pub(crate) fn open_parts(&self, vault: &Vault) -> Option<Vec<Part>> {
        let mut r = self.parts;
        let mut out = Vec::with_capacity(self.slots.len());
        for ((slot, generation), n) in self.slots.iter().zip(1_u32..) {
            let length = r.length()?.checked_add(TAG)?;
            let sealed = r.bytes(length)?;
            let key = match vault.open_key(*slot, *generation, self.seq) {
                Ok(key) => key,
                Err(VaultError::Destroyed) => {
                    out.push(Part::Erased);
                    continue;
                }
                Err(_) => return None,
            };
            let mut text = sealed.to_vec();
            let nonce = part_nonce(&self.nonce, n);
            let mut t = Reader(key.open(place(self.seq, &n.to_be_bytes()), &nonce, &mut text).ok()?);
            let length = t.length()?;
            out.push(Part::Open(t.bytes(length)?.to_vec()));
        }
        r.0.is_empty().then_some(out)
    }

    /// Whether the leaf's commitment is of this event. With an erased part that can no longer be told: `None`.
    pub(crate) fn commits(&self, vault: &Vault, at: i64, kind: u8, parts: &[Part], leaf: &[u8; 32]) -> Option<bool> {
        let mut digests = Vec::with_capacity(parts.len());
        for (part, (slot, generation)) in parts.iter().zip(&self.slots) {
            let Part::Open(part) = part else { return None };
            digests.push(
                vault
                    .open_key(*slot, *generation, self.seq)
                    .ok()?
                    .digest(self.seq, part),
            );
        }
        Some(commitment(&self.key, at, kind, &self.actor, &digests) == *leaf)
    }
}

/// For each slot the numbers of the entries that have a part for it: ascending, delta-coded.
#[derive(Default)]
pub(crate) struct Accesses {
    by_slot: HashMap<u32, List>,
}

#[derive(Default)]
struct List {
    last: u64,
    deltas: Vec<u8>,
}

impl Accesses {
    pub(crate) fn add(&mut self, slot: u32, seq: u64) {
        let list = self.by_slot.entry(slot).or_default();
        if list.deltas.is_empty() || seq > list.last {
            put(&mut list.deltas, seq - list.last);
            list.last = seq;
        }
    }

    pub(crate) fn of(&self, slot: u32) -> Vec<u64> {
        let Some(list) = self.by_slot.get(&slot) else {
            return Vec::new();
        };
        let mut r = Reader(&list.deltas);
        let mut seq = 0;
        std::iter::from_fn(|| {
            seq += r.varint()?;
            Some(seq)
        })
        .collect()
    }

    pub(crate) fn forget(&mut self, slot: u32) {
        self.by_slot.remove(&slot);
    }

    pub(crate) fn dump(&self, out: &mut Vec<u8>) {
        let mut slots: Vec<_> = self.by_slot.iter().collect();
        slots.sort_unstable_by_key(|(slot, _)| **slot);
        put(out, slots.len() as u64);
        for (slot, list) in slots {
            put(out, u64::from(*slot));
            put(out, list.last);
            put(out, list.deltas.len() as u64);
            out.extend_from_slice(&list.deltas);
        }
    }

    pub(crate) fn load(r: &mut Reader<'_>) -> Option<Self> {
        let mut by_slot = HashMap::new();
        for _ in 0..r.varint()? {
            let slot = u32::try_from(r.varint()?).ok()?;
            let last = r.varint()?;
            let length = r.length()?;
            by_slot.insert(
                slot,
                List {
                    last,
                    deltas: r.bytes(length)?.to_vec(),
                },
            );
        }
        Some(Self { by_slot })
    }
}

//! Which patients a slot belongs to. Learnt from rows as they are written or read back; never stored in the clear.

use crate::follower::HomeKey;
use crate::varint::{Reader, put};
use hashbrown::HashMap;
use std::sync::Arc;

#[derive(Default)]
pub(crate) struct Homes {
    by_patient: HashMap<Arc<str>, u32>,
    by_slot: HashMap<u32, Members>,
    /// One more than the highest slot seen.
    used: u32,
}

enum Members {
    One(Arc<str>),
    Several(Vec<Arc<str>>),
}

impl Homes {
    /// Learns from a row that `slot` is the home `home`.
    pub(crate) fn learn(&mut self, slot: u32, home: &HomeKey) {
        self.used = self.used.max(slot + 1);
        match home {
            HomeKey::Patient(id) => {
                // The first slot of a patient stays its slot; a shared or several-patient slot never becomes one.
                if slot != 0 && !self.by_patient.contains_key(id.as_str()) && !self.by_slot.contains_key(&slot) {
                    let id: Arc<str> = id.as_str().into();
                    self.by_patient.insert(Arc::clone(&id), slot);
                    self.by_slot.insert(slot, Members::One(id));
                }
            }
            HomeKey::Fresh(ids) => {
                if slot != 0 && !matches!(self.by_slot.get(&slot), Some(Members::One(_))) {
                    let members = ids.iter().map(|id| self.name(id)).collect();
                    self.by_slot.insert(slot, Members::Several(members));
                }
            }
            HomeKey::Shared | HomeKey::Slot(_) => {}
        }
    }

    fn name(&self, id: &str) -> Arc<str> {
        self.by_patient
            .get_key_value(id)
            .map_or_else(|| id.into(), |(name, _)| Arc::clone(name))
    }

    pub(crate) fn slot(&self, patient: &str) -> Option<u32> {
        self.by_patient.get(patient).copied()
    }

    pub(crate) fn patients(&self, slot: u32) -> Vec<String> {
        match self.by_slot.get(&slot) {
            None => Vec::new(),
            Some(Members::One(id)) => vec![id.as_ref().to_owned()],
            Some(Members::Several(ids)) => ids.iter().map(|id| id.as_ref().to_owned()).collect(),
        }
    }

    /// Slots of several patients, this one among them.
    pub(crate) fn with_others(&self, patient: &str) -> Vec<u32> {
        let mut out: Vec<u32> = self
            .by_slot
            .iter()
            .filter(|(_, m)| matches!(m, Members::Several(ids) if ids.iter().any(|id| id.as_ref() == patient)))
            .map(|(slot, _)| *slot)
            .collect();
        out.sort_unstable();
        out
    }

    pub(crate) fn forget(&mut self, slot: u32) {
        if let Some(Members::One(id)) = self.by_slot.remove(&slot) {
            self.by_patient.remove(&id);
        }
    }

    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    pub(crate) fn saw(&mut self, slot: u32) {
        self.used = self.used.max(slot + 1);
    }

    pub(crate) fn dump(&self, out: &mut Vec<u8>) {
        put(out, u64::from(self.used));
        self.canonical(out);
    }

    /// Which slot is whose, the same whichever way it was learnt; `used` also counts slots since forgotten.
    pub(crate) fn canonical(&self, out: &mut Vec<u8>) {
        let mut slots: Vec<_> = self.by_slot.iter().collect();
        slots.sort_unstable_by_key(|(slot, _)| **slot);
        put(out, slots.len() as u64);
        for (slot, members) in slots {
            let (several, ids) = match members {
                Members::One(id) => (0, std::slice::from_ref(id)),
                Members::Several(ids) => (1, ids.as_slice()),
            };
            put(out, u64::from(*slot) << 1 | several);
            put(out, ids.len() as u64);
            for id in ids {
                put(out, id.len() as u64);
                out.extend_from_slice(id.as_bytes());
            }
        }
    }

    pub(crate) fn load(r: &mut Reader<'_>) -> Option<Self> {
        let mut homes = Self {
            used: u32::try_from(r.varint()?).ok()?,
            ..Self::default()
        };
        for _ in 0..r.varint()? {
            let tagged = r.varint()?;
            let slot = u32::try_from(tagged >> 1).ok()?;
            let mut ids = Vec::new();
            for _ in 0..r.varint()? {
                let length = r.length()?;
                ids.push(String::from_utf8(r.bytes(length)?.to_vec()).ok()?);
            }
            let home = if tagged & 1 == 1 {
                HomeKey::Fresh(ids)
            } else {
                HomeKey::Patient(ids.pop()?)
            };
            homes.learn(slot, &home);
        }
        Some(homes)
    }
}

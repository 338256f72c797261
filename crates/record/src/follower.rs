//! The derived state behind the log: index, homes and own documents.
//!
//! [`Records`] is what the ledger's one writer asks before a commit (`decide`) and tells after it (`apply`), and what
//! it fills again from the log at a start (`replay`, or `load` from a snapshot). It is a pure function of the log.

use crate::change::{Change, Decided, Guard, Unmet, Verb, Write, Written};
use crate::event::{Shown, action_code};
use crate::text;
use hashbrown::{HashMap, HashSet};
use keepwell_ledger::{Event, Follower, Header, HomeKey, Kind, Placed, Plan, Replayed, Turn};
use keepwell_model::home::{self, Home};
use keepwell_model::json::{self, Value};
use keepwell_model::reference::Base;
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_policy::Labels;
use keepwell_search::extract::extract;
use keepwell_search::index::{Index, Limits, NewRow, RowFacts, RowKind};
use keepwell_search::term::Extracted;
use parking_lot::RwLock;
use std::io::{self, Read};

/// Type codes from here on are own documents, never served under `/fhir`.
pub(crate) const OWN: u16 = 0x8000;

/// Index and its companions.
pub struct Records {
    pub(crate) index: RwLock<Index>,
    pub(crate) homes: RwLock<Homes>,
    pub(crate) own: RwLock<HashMap<(u16, String), OwnHead>>,
    seed: [u8; 16],
    /// Which references are to resources of this server: fixed with the log.
    pub(crate) base: Base,
}

/// What the slots stand for, as far as it is not one patient.
#[derive(Debug, Default)]
pub(crate) struct Homes {
    /// Patient id to slot.
    pub(crate) patients: HashMap<String, u32>,
    /// Slot to patient id.
    pub(crate) owners: HashMap<u32, String>,
    /// Slots of resources of several patients: the patient ids, sorted.
    pub(crate) several: HashMap<u32, Vec<String>>,
}

impl Homes {
    pub(crate) fn learn(&mut self, slot: u32, home: &Home) {
        // The slot of shared rows is nobody's, whatever a row under it names: it was sealed by other rules.
        if slot == 0 {
            return;
        }
        match home {
            Home::Patient(id) => {
                if self.owners.get(&slot).is_none_or(|o| o != id) {
                    self.patients.insert(id.clone(), slot);
                    self.owners.insert(slot, id.clone());
                }
            }
            Home::Several(ids) => {
                if !self.several.contains_key(&slot) {
                    self.several.insert(slot, ids.clone());
                }
            }
            Home::Shared => {}
        }
    }
}

/// Newest row of an own document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnHead {
    pub(crate) rid: u64,
    pub(crate) version: u32,
    pub(crate) deleted: bool,
}

/// What earlier changes of the same group have decided.
#[derive(Debug, Default)]
pub struct Pending {
    types: HashSet<ResourceType>,
    ids: HashSet<(u16, String)>,
}

impl Records {
    /// An empty record of the server of that base; `seed` keys the index's hash tables.
    #[must_use]
    pub fn new(seed: [u8; 16], base: Base) -> Self {
        Self {
            index: RwLock::new(Index::new(seed)),
            homes: RwLock::default(),
            own: RwLock::default(),
            seed,
            base,
        }
    }

    fn decide_write(&self, w: &Write, pending: &Pending, at: Timestamp) -> Result<Option<Decided>, Unmet> {
        let key = (w.resource_type.code(), w.id.clone());
        if pending.ids.contains(&key) {
            return Err(Unmet::Again);
        }
        let head = self.index.read().head(w.resource_type, &w.id, u64::MAX);
        let seen = head.as_ref().map(|h| h.version);
        if seen != w.seen {
            return Err(Unmet::Again);
        }
        let live = head.as_ref().filter(|h| h.kind == RowKind::Version);
        if let Some(want) = w.if_match
            && live.is_none_or(|h| h.version != want)
        {
            return Err(Unmet::Version);
        }
        if w.verb == Verb::Delete && live.is_none() {
            return Ok(None);
        }
        Ok(Some(Decided {
            version: head.as_ref().map_or(0, |h| h.version) + 1,
            prev: head.as_ref().map_or(0, |h| h.rid),
            old_home: head.as_ref().map(|h| h.home),
            created: live.is_none(),
            last_updated: Timestamp(head.as_ref().map_or(at.0, |h| at.0.max(h.last_updated))),
        }))
    }

    fn guard_holds(&self, guard: &Guard, pending: &Pending) -> Result<(), Unmet> {
        if pending.types.contains(&guard.query.resource_type) {
            return Err(Unmet::Again);
        }
        let index = self.index.read();
        let permit = |facts: &RowFacts| guard.permit.permits(facts);
        let page = index.search(&guard.query, u64::MAX, &permit, None, Limits { page: 2, includes: 0 });
        let mut ids: Vec<String> = page
            .matches
            .iter()
            .filter_map(|h| index.id_of(h.resource_type, h.rid))
            .collect();
        ids.sort();
        let mut want = guard.found.clone();
        want.sort();
        if ids == want { Ok(()) } else { Err(Unmet::Again) }
    }

    fn home_key(&self, home: &Home, decided: &Decided) -> HomeKey {
        match home {
            Home::Patient(id) => HomeKey::Patient(id.clone()),
            Home::Shared => HomeKey::Shared,
            Home::Several(ids) => {
                let homes = self.homes.read();
                match decided.old_home {
                    Some(slot) if homes.several.get(&slot) == Some(ids) => HomeKey::Slot(slot),
                    _ => HomeKey::Fresh(ids.clone()),
                }
            }
        }
    }

    /// Whether a row under `slot` already has the home that `key` names.
    fn same_home(&self, slot: u32, key: &HomeKey) -> bool {
        let homes = self.homes.read();
        match key {
            HomeKey::Slot(s) => *s == slot,
            HomeKey::Patient(id) => homes.owners.get(&slot) == Some(id),
            HomeKey::Fresh(_) => false,
            HomeKey::Shared => !homes.owners.contains_key(&slot) && !homes.several.contains_key(&slot),
        }
    }

    fn replay_one(&self, row: &Loaded) {
        let h = &row.header;
        if h.type_code >= OWN {
            let head = OwnHead {
                rid: row.rid,
                version: h.version,
                deleted: h.kind == Kind::Deleted,
            };
            self.own.write().insert((h.type_code, h.id.clone()), head);
            return;
        }
        let Some(resource_type) = ResourceType::from_code(h.type_code) else {
            return;
        };
        let Some(kind) = row_kind(h.kind) else { return };
        if let Some(home) = &row.home {
            self.homes.write().learn(row.slot, home);
        }
        self.index.write().apply(&NewRow {
            rid: row.rid,
            resource_type,
            id: &h.id,
            version: h.version,
            last_updated: h.last_updated,
            kind,
            home: row.slot,
            labels: row.labels,
            extracted: row.extracted.as_ref(),
        });
    }
}

/// A row read back and parsed for the index.
pub struct Loaded {
    rid: u64,
    slot: u32,
    header: Header,
    home: Option<Home>,
    labels: u16,
    extracted: Option<Extracted<'static>>,
}

impl Follower for Records {
    type Change = Change;
    type Answer = Vec<Written>;
    type Refusal = Unmet;
    type Pending = Pending;
    type Prepared = Loaded;

    fn decide(&self, change: &mut Change, pending: &mut Pending, turn: Turn) -> Result<Vec<Plan>, Unmet> {
        let at = turn.at;
        for guard in &change.guards {
            self.guard_holds(guard, pending)?;
        }
        let mut plans = Vec::with_capacity(change.writes.len() + 1);
        let mut decided = Vec::with_capacity(change.writes.len());
        for w in &change.writes {
            decided.push(self.decide_write(w, pending, at)?);
        }
        if let Some(own) = &change.own {
            let key = (own.type_code, own.id.clone());
            if pending.ids.contains(&key) {
                return Err(Unmet::Again);
            }
            let head = self.own.read().get(&key).copied();
            if own.absent && head.is_some_and(|h| !h.deleted) {
                return Err(Unmet::Version);
            }
        }
        for (w, d) in change.writes.iter_mut().zip(&mut decided) {
            let Some(d) = d else {
                w.place = None;
                w.left = None;
                continue;
            };
            let header = Header {
                kind: if w.verb == Verb::Delete {
                    Kind::Deleted
                } else {
                    Kind::Version
                },
                type_code: w.resource_type.code(),
                id: w.id.clone(),
                version: d.version,
                prev: d.prev,
                last_updated: d.last_updated.0,
            };
            let key = match (&w.prepared, d.old_home) {
                (Some(p), _) => self.home_key(&p.home, d),
                (None, Some(slot)) => HomeKey::Slot(slot),
                (None, None) => HomeKey::Shared,
            };
            w.left = None;
            if let Some(slot) = d.old_home
                && !self.same_home(slot, &key)
                && d.prev != 0
            {
                let left = Header {
                    kind: Kind::Left,
                    ..header.clone()
                };
                w.left = Some((plans.len(), slot));
                plans.push(Plan {
                    home: HomeKey::Slot(slot),
                    header: left,
                    body: keepwell_ledger::Body::empty(),
                });
            }
            w.place = Some(plans.len());
            let body = match &mut w.prepared {
                Some(p) => std::mem::replace(&mut p.body, keepwell_ledger::Body::empty()),
                None => keepwell_ledger::Body::empty(),
            };
            plans.push(Plan {
                home: key,
                header,
                body,
            });
            pending.types.insert(w.resource_type);
            pending.ids.insert((w.resource_type.code(), w.id.clone()));
        }
        if let Some(own) = &mut change.own {
            let key = (own.type_code, own.id.clone());
            let head = self.own.read().get(&key).copied();
            own.version = head.map_or(0, |h| h.version) + 1;
            own.place = plans.len();
            let header = Header {
                kind: if own.body.is_some() {
                    Kind::Version
                } else {
                    Kind::Deleted
                },
                type_code: own.type_code,
                id: own.id.clone(),
                version: own.version,
                prev: head.map_or(0, |h| h.rid),
                last_updated: at.0,
            };
            plans.push(Plan {
                home: HomeKey::Shared,
                header,
                body: own.body.take().unwrap_or_else(keepwell_ledger::Body::empty),
            });
            own.deleted = header_is_deleted(plans.last());
            pending.ids.insert(key);
        }
        change.decided = decided;
        Ok(plans)
    }

    fn event(&self, change: &mut Change, outcome: Result<&[Placed], &Unmet>) -> Event {
        let mut parts: Vec<(u32, Shown)> = Vec::new();
        match outcome {
            Ok(placed) => {
                let homes = self.homes.read();
                let mut by_slot: std::collections::BTreeMap<u32, Vec<u64>> = std::collections::BTreeMap::new();
                for w in &change.writes {
                    let Some(p) = w.place.and_then(|i| placed.get(i)) else {
                        continue;
                    };
                    match w.prepared.as_ref().map(|p| &p.home) {
                        Some(Home::Shared) => {}
                        Some(Home::Several(ids)) => {
                            by_slot.entry(p.slot).or_default().push(p.rid);
                            for slot in ids.iter().filter_map(|id| homes.patients.get(id)) {
                                by_slot.entry(*slot).or_default().push(p.rid);
                            }
                        }
                        Some(Home::Patient(_)) => by_slot.entry(p.slot).or_default().push(p.rid),
                        None if homes.owners.contains_key(&p.slot) || homes.several.contains_key(&p.slot) => {
                            by_slot.entry(p.slot).or_default().push(p.rid);
                        }
                        None => {}
                    }
                }
                change.access.count = u32::try_from(placed.len()).unwrap_or(u32::MAX);
                parts = by_slot
                    .into_iter()
                    .map(|(slot, mut rids)| {
                        rids.sort_unstable();
                        rids.dedup();
                        (slot, Shown { rids })
                    })
                    .collect();
            }
            Err(unmet) => {
                // The request goes on, prepared anew, and is recorded with its end.
                if *unmet == Unmet::Again {
                    return Event::default();
                }
                change.access.status = 412;
            }
        }
        Event {
            kind: action_code(change.access.action),
            actor: change.access.encode(),
            parts: parts.into_iter().map(|(slot, shown)| (slot, shown.encode())).collect(),
        }
    }

    fn apply(&self, change: &mut Change, placed: &[Placed]) {
        {
            let mut homes = self.homes.write();
            for w in &change.writes {
                if let (Some(p), Some(prep)) = (w.place.and_then(|i| placed.get(i)), &w.prepared) {
                    homes.learn(p.slot, &prep.home);
                }
            }
        }
        let todo: Vec<(usize, Placed)> = change
            .writes
            .iter()
            .enumerate()
            .filter_map(|(i, w)| Some((i, *w.place.and_then(|at| placed.get(at))?)))
            .collect();
        // Readers get their turn every 100 rows; `visible_rid` keeps them from seeing half a transaction.
        for chunk in todo.chunks(100) {
            let mut index = self.index.write();
            for (i, place) in chunk {
                let (Some(w), Some(Some(d))) = (change.writes.get(*i), change.decided.get(*i)) else {
                    continue;
                };
                if let Some((at, home)) = w.left
                    && let Some(left) = placed.get(at)
                {
                    index.apply(&NewRow {
                        rid: left.rid,
                        resource_type: w.resource_type,
                        id: &w.id,
                        version: d.version,
                        last_updated: d.last_updated.0,
                        kind: RowKind::Left,
                        home,
                        labels: 0,
                        extracted: None,
                    });
                }
                index.apply(&NewRow {
                    rid: place.rid,
                    resource_type: w.resource_type,
                    id: &w.id,
                    version: d.version,
                    last_updated: d.last_updated.0,
                    kind: if w.verb == Verb::Delete {
                        RowKind::Deleted
                    } else {
                        RowKind::Version
                    },
                    home: place.slot,
                    labels: w.prepared.as_ref().map_or(0, |p| p.labels),
                    extracted: w.prepared.as_ref().map(|p| &p.extracted),
                });
            }
        }
        if let Some(own) = &change.own
            && let Some(p) = placed.get(own.place)
        {
            let head = OwnHead {
                rid: p.rid,
                version: own.version,
                deleted: own.deleted,
            };
            self.own.write().insert((own.type_code, own.id.clone()), head);
        }
    }

    fn answer(&self, change: Change, placed: &[Placed]) -> Vec<Written> {
        change
            .writes
            .into_iter()
            .zip(change.decided)
            .map(|(w, d)| Written {
                resource_type: w.resource_type,
                rid: w.place.and_then(|i| placed.get(i)).map_or(0, |p| p.rid),
                version: d.as_ref().map_or(w.seen.unwrap_or(0), |d| d.version),
                last_updated: d.as_ref().map_or(Timestamp(0), |d| d.last_updated),
                created: d.as_ref().is_some_and(|d| d.created),
                changed: d.is_some(),
                id: w.id,
            })
            .collect()
    }

    fn prepare(&self, row: Replayed) -> (Loaded, HomeKey) {
        let mut loaded = Loaded {
            rid: row.rid,
            slot: row.slot,
            header: row.header,
            home: None,
            labels: 0,
            extracted: None,
        };
        let h = &loaded.header;
        if h.type_code >= OWN {
            return (loaded, HomeKey::Shared);
        }
        let (Some(t), Kind::Version) = (ResourceType::from_code(h.type_code), h.kind) else {
            let slot = loaded.slot;
            return (loaded, HomeKey::Slot(slot));
        };
        let mut full = Vec::new();
        text::assemble(t, &h.id, h.version, Timestamp(h.last_updated), &row.text, &mut full);
        let Some(v) = std::str::from_utf8(&full).ok().and_then(|s| json::parse(s).ok()) else {
            let slot = loaded.slot;
            return (loaded, HomeKey::Slot(slot));
        };
        let home = home::home(t, &v, &self.base);
        loaded.labels = labels_of(&v).0;
        loaded.extracted = Some(extract(t, &v, &self.base).into_owned());
        let key = match &home {
            Home::Patient(id) => HomeKey::Patient(id.clone()),
            Home::Several(ids) => HomeKey::Fresh(ids.clone()),
            Home::Shared => HomeKey::Shared,
        };
        loaded.home = Some(home);
        (loaded, key)
    }

    fn replay(&self, rows: Vec<Loaded>) {
        for row in &rows {
            self.replay_one(row);
        }
    }

    fn rows_of(&self, slot: u32) -> Vec<u64> {
        self.index.read().rows_of_home(slot)
    }

    fn forget(&self, slot: u32) {
        let mut index = self.index.write();
        index.forget_home(slot);
        // Only a compaction takes the patient's words out of memory.
        index.compact();
        drop(index);
        let mut homes = self.homes.write();
        if let Some(id) = homes.owners.remove(&slot) {
            homes.patients.remove(&id);
        }
        homes.several.remove(&slot);
    }

    fn dump(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let homes = self.homes.read();
        let mut patients: Vec<_> = homes.patients.iter().collect();
        patients.sort();
        put_len(out, patients.len())?;
        for (id, slot) in patients {
            put_text(out, id)?;
            out.write_all(&slot.to_le_bytes())?;
        }
        let mut several: Vec<_> = homes.several.iter().collect();
        several.sort();
        put_len(out, several.len())?;
        for (slot, ids) in several {
            out.write_all(&slot.to_le_bytes())?;
            put_len(out, ids.len())?;
            for id in ids {
                put_text(out, id)?;
            }
        }
        drop(homes);
        let own = self.own.read();
        let mut documents: Vec<_> = own.iter().collect();
        documents.sort_by(|a, b| a.0.cmp(b.0));
        put_len(out, documents.len())?;
        for ((code, id), head) in documents {
            out.write_all(&code.to_le_bytes())?;
            put_text(out, id)?;
            out.write_all(&head.rid.to_le_bytes())?;
            out.write_all(&head.version.to_le_bytes())?;
            out.write_all(&[u8::from(head.deleted)])?;
        }
        drop(own);
        self.index.read().dump(out)
    }

    fn load(&self, from: &mut dyn Read) -> io::Result<()> {
        let mut homes = Homes::default();
        for _ in 0..get_len(from)? {
            let id = get_text(from)?;
            let slot = u32::from_le_bytes(get(from)?);
            homes.owners.insert(slot, id.clone());
            homes.patients.insert(id, slot);
        }
        for _ in 0..get_len(from)? {
            let slot = u32::from_le_bytes(get(from)?);
            let mut ids = Vec::new();
            for _ in 0..get_len(from)? {
                ids.push(get_text(from)?);
            }
            homes.several.insert(slot, ids);
        }
        let mut own = HashMap::new();
        for _ in 0..get_len(from)? {
            let code = u16::from_le_bytes(get(from)?);
            let id = get_text(from)?;
            let rid = u64::from_le_bytes(get(from)?);
            let version = u32::from_le_bytes(get(from)?);
            let deleted = get::<1>(from)? == [1];
            own.insert((code, id), OwnHead { rid, version, deleted });
        }
        let index =
            Index::load(self.seed, from).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        *self.homes.write() = homes;
        *self.own.write() = own;
        *self.index.write() = index;
        Ok(())
    }
}

/// The labels of a resource's `meta.security` that policies know.
pub(crate) fn labels_of(resource: &Value<'_>) -> Labels {
    let codings = resource
        .get("meta")
        .and_then(|m| m.get("security"))
        .and_then(Value::items)
        .unwrap_or_default();
    codings.iter().fold(Labels::NONE, |all, c| {
        all.with(
            c.str("code")
                .map_or(Labels::NONE, |code| Labels::from_coding(c.str("system"), code)),
        )
    })
}

fn row_kind(kind: Kind) -> Option<RowKind> {
    match kind {
        Kind::Version => Some(RowKind::Version),
        Kind::Deleted => Some(RowKind::Deleted),
        Kind::Left => Some(RowKind::Left),
        Kind::Blob => None,
    }
}

fn header_is_deleted(plan: Option<&Plan>) -> bool {
    plan.is_some_and(|p| p.header.kind == Kind::Deleted)
}

pub(crate) fn put_len(out: &mut dyn io::Write, n: usize) -> io::Result<()> {
    out.write_all(&u32::try_from(n).map_err(io::Error::other)?.to_le_bytes())
}

pub(crate) fn put_text(out: &mut dyn io::Write, s: &str) -> io::Result<()> {
    put_len(out, s.len())?;
    out.write_all(s.as_bytes())
}

pub(crate) fn get<const N: usize>(from: &mut dyn Read) -> io::Result<[u8; N]> {
    let mut b = [0; N];
    from.read_exact(&mut b)?;
    Ok(b)
}

pub(crate) fn get_len(from: &mut dyn Read) -> io::Result<usize> {
    Ok(u32::from_le_bytes(get(from)?) as usize)
}

pub(crate) fn get_text(from: &mut dyn Read) -> io::Result<String> {
    let n = get_len(from)?;
    if n > 1 << 20 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a text is too long"));
    }
    let mut b = vec![0; n];
    from.read_exact(&mut b)?;
    String::from_utf8(b).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a text is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows sealed under the key of shared rows by older rules may name a patient: that makes nobody the owner of all
    /// shared rows.
    #[test]
    fn the_shared_slot_is_never_a_patients() {
        let mut homes = Homes::default();
        homes.learn(0, &Home::Patient("a".to_owned()));
        homes.learn(0, &Home::Several(vec!["a".to_owned(), "b".to_owned()]));
        assert!(homes.owners.is_empty() && homes.patients.is_empty() && homes.several.is_empty());
        homes.learn(3, &Home::Patient("a".to_owned()));
        assert_eq!(homes.patients.get("a"), Some(&3));
    }
}

//! Erasing a patient: first what others keep is sealed again without the patient, then the keys go, then the public
//! tombstone comes, then everything derived.
//!
//! 1. The slots are found: the patient's own, and those of resources of several patients, the erased one among them. Every
//!    row of the latter is opened and redacted by the caller's rules ([`Erasing`]). Where rules cannot decide, that
//!    slot stays and is given back as pending.
//! 2. `vault` writes the new ERA into enough places. Too few: nothing was done.
//! 3. One fsynced commit: the redacted copies under the slots of those who stay, a `redacted` leaf for each, the act's
//!    event, and in `meta` the slots to be destroyed. **From here on the erasure will be finished.** The copies take the
//!    places of their originals in the index.
//! 4. `vault` destroys the slots' keys (its own steps are in `keepwell_vault`): the old rows are closed for good.
//! 5. Tombstone leaves are committed and fsynced, and with them the list of step 3 and the snapshot's record are cleared; the
//!    index, homes and access lists are dropped, the snapshot removed, the keyring's list cleared.
//! 6. A new snapshot is written; copies of the old one died with the ERA.
//!
//! A crash after 3 is finished by the next start (or the next erasure): it goes on with 4, or with 5 where the keyring
//! says that the slots are destroyed.

use crate::Body;
use crate::core::Core;
use crate::error::{EraseError, Notice, ReadError, Unavailable};
use crate::event::Event;
use crate::follower::{Follower, Header, HomeKey, Kind, Plan, Replayed};
use crate::ledger::{Erased, Left, Reach};
use crate::snapshot;
use crate::writer::{ERASING, Log};
use hashbrown::HashMap;
use keepwell_audit::leaf::{Leaf, Notice as LeafNotice};
use keepwell_audit::merkle::sha256;
use keepwell_store::{Store, StoreError};
use keepwell_vault::{EraseStep, SlotState, VaultError};
use std::sync::Arc;

/// What becomes of a row of several patients when one of them is erased.
pub enum Redaction {
    /// This stays for the others.
    Stays(Body),
    /// Nothing stays: the resource goes, for all its patients.
    Goes,
    /// Rules cannot decide; a person must. Why, in a few words.
    Undecided(String),
}

/// The caller's part in an erasure: what the ledger does not know of resources and events.
pub trait Erasing: Send {
    /// Judges a version of several patients, attachments in place. Other rows hold no text and are not shown.
    fn redact(&self, header: &Header, text: &[u8]) -> Redaction;

    /// The act's own audit event. `copies`: each new row and the slots of those it is about.
    fn event(&self, copies: &[(u64, Vec<u32>)]) -> Event;
}

/// A slot of several patients whose rows are sealed again for those who stay.
struct Shared {
    slot: u32,
    stay: Vec<String>,
    rows: Vec<(u64, Header, Body)>,
}

/// What an erasure will do.
struct Course {
    /// To be destroyed.
    slots: Vec<u32>,
    copies: Vec<Shared>,
    pending: Vec<Left>,
}

/// Judges the rows of one slot: the copies, or why there are none.
enum Judged {
    Copies(Vec<(u64, Header, Body)>),
    Goes,
    Pending(Left),
}

fn judge<F: Follower>(core: &Core<F>, slot: u32, act: &dyn Erasing) -> Result<Judged, Unavailable> {
    let mut rows = Vec::new();
    let mut pending = None;
    for rid in core.follower.rows_of(slot) {
        let (header, text, _) = match core.open_row(rid, true) {
            Ok(row) => row,
            Err(ReadError::Store(e)) => return Err(Unavailable::Store(e)),
            Err(_) => {
                // A damaged row has nothing to keep, but a person should know before it is gone.
                return Ok(Judged::Pending(Left {
                    type_code: u16::MAX,
                    id: String::new(),
                    why: "a row of it does not open".to_owned(),
                }));
            }
        };
        if header.kind != Kind::Version {
            rows.push((rid, header, Body::empty()));
            continue;
        }
        match act.redact(&header, &text) {
            Redaction::Stays(body) => rows.push((rid, header, body)),
            Redaction::Goes => return Ok(Judged::Goes),
            Redaction::Undecided(why) => {
                pending = Some(Left {
                    type_code: header.type_code,
                    id: header.id,
                    why,
                });
            }
        }
    }
    Ok(pending.map_or(Judged::Copies(rows), Judged::Pending))
}

fn course<F: Follower>(core: &Core<F>, patient: &str, act: &dyn Erasing) -> Result<Course, EraseError> {
    let (own, several) = {
        let homes = core.homes.read();
        let several: Vec<(u32, Vec<String>)> = homes
            .with_others(patient)
            .into_iter()
            .map(|slot| (slot, homes.patients(slot)))
            .collect();
        (homes.slot(patient), several)
    };
    if own.is_none() && several.is_empty() {
        return Err(EraseError::Unknown);
    }
    let mut course = Course {
        slots: own.into_iter().collect(),
        copies: Vec::new(),
        pending: Vec::new(),
    };
    for (slot, mut stay) in several {
        stay.retain(|id| id != patient);
        match judge(core, slot, act)? {
            Judged::Copies(rows) => {
                course.slots.push(slot);
                course.copies.push(Shared { slot, stay, rows });
            }
            Judged::Goes => course.slots.push(slot),
            Judged::Pending(left) => course.pending.push(left),
        }
    }
    Ok(course)
}

/// What an erasure would do; nothing is changed.
pub(crate) fn reach<F: Follower>(core: &Core<F>, patient: &str, act: &dyn Erasing) -> Result<Reach, EraseError> {
    let course = course(core, patient, act)?;
    let own = core.homes.read().slot(patient);
    Ok(Reach {
        own: own.map_or(0, |slot| core.follower.rows_of(slot).len() as u64),
        redacted: course.copies.len() as u64,
        destroyed: course.slots.len() as u64 - course.copies.len() as u64 - u64::from(own.is_some()),
        pending: course.pending,
    })
}

/// The tombstone of a slot: bound to the commitment that the keyring keeps of its key.
fn tombstone<F: Follower>(core: &Core<F>, slot: u32, at: i64) -> Leaf {
    let commitment = core.vault.commitment(slot).unwrap_or_default();
    Leaf::Notice {
        at,
        notice: LeafNotice::Erased {
            commitment: sha256(&[b"keepwell erased slot", &commitment]),
        },
    }
}

/// Step 3. Gives the number of the act's event.
fn commit<F: Follower>(log: &mut Log<F>, course: &Course, act: &dyn Erasing) -> Result<u64, Unavailable> {
    let core = Arc::clone(&log.core);
    let at = core.clock.now();
    let mut group = log.start_group();
    let mut shown = Vec::new();
    let mut rows = Vec::new();
    let outcome = (|| {
        for shared in &course.copies {
            let mut home = match shared.stay.as_slice() {
                [one] => HomeKey::Patient(one.clone()),
                several => HomeKey::Fresh(several.to_vec()),
            };
            let others: Vec<u32> = {
                let homes = core.homes.read();
                shared.stay.iter().filter_map(|id| homes.slot(id)).collect()
            };
            // A version follows the copy of the one it followed.
            let mut moved = HashMap::new();
            for (old, header, body) in &shared.rows {
                let mut header = header.clone();
                header.prev = moved.get(&header.prev).copied().unwrap_or(header.prev);
                let plan = Plan {
                    home: home.clone(),
                    header: header.clone(),
                    body: body.clone(),
                };
                let Some(placed) = log.place(&mut group, vec![plan])?.pop() else {
                    return Err(Unavailable::Unplaceable("a copy has no place"));
                };
                moved.insert(*old, placed.rid);
                let leaf = Leaf::Notice {
                    at: at.0,
                    notice: LeafNotice::Redacted {
                        new: placed.rid,
                        old: *old,
                    },
                };
                log.add_entry(&mut group, &leaf, None);
                let mut about = others.clone();
                if !about.contains(&placed.slot) {
                    about.push(placed.slot);
                }
                about.sort_unstable();
                shown.push((placed.rid, about));
                rows.push((placed, header));
                if matches!(home, HomeKey::Fresh(_)) {
                    home = HomeKey::Slot(placed.slot);
                }
            }
        }
        let seq = log.add_event(&mut group, &act.event(&shown), at)?;
        if !course.slots.is_empty() {
            let list = course.slots.iter().flat_map(|slot| slot.to_be_bytes()).collect();
            group.batch.meta.push((ERASING.to_owned(), list));
        }
        group.fsync = true;
        log.store(&mut group)?;
        Ok(seq)
    })();
    let seq = match outcome {
        Ok(seq) => seq,
        Err(e) => {
            log.undo(&group);
            return Err(e);
        }
    };
    log.settle(group);
    // INVARIANT (pure index): the copies enter as they will at every start, from the rows.
    let mut prepared = Vec::with_capacity(rows.len());
    for (placed, header) in rows {
        let (_, text, slot) = core
            .open_row(placed.rid, false)
            .map_err(|e| Unavailable::Store(e.to_string()))?;
        let row = Replayed {
            rid: placed.rid,
            slot,
            header,
            text,
        };
        prepared.push(core.follower.prepare(row).0);
    }
    core.follower.replay(prepared);
    Ok(seq)
}

/// Step 5. The number of the first tombstone.
pub(crate) fn announce<F: Follower>(log: &mut Log<F>, slots: &[u32]) -> Result<u64, Unavailable> {
    let core = Arc::clone(&log.core);
    let at = core.clock.now();
    let leaves: Vec<Leaf> = slots.iter().map(|slot| tombstone(&core, *slot, at.0)).collect();
    let done = (ERASING.to_owned(), Vec::new());
    let seq = log.append_alone(&leaves, vec![done, snapshot::no_record()])?;
    for slot in slots {
        core.follower.forget(*slot);
        core.homes.write().forget(*slot);
        core.accesses.write().forget(*slot);
    }
    core.at_step("announced");
    // INVARIANT (stale snapshot): one from before an erasure is there only while the keyring lists the slot.
    snapshot::remove(&core);
    // A list that stays is announced once more at the next start: harmless.
    if let Err(e) = core.vault.announced() {
        tracing::warn!(error = %e, "the keyring could not be written after an erasure");
    }
    Ok(seq)
}

/// The slots that an erasure has promised to destroy and not announced yet.
pub(crate) fn begun(store: &Store) -> Result<Vec<u32>, StoreError> {
    let list = store.meta(ERASING)?.unwrap_or_default();
    Ok(list
        .as_chunks::<4>()
        .0
        .iter()
        .map(|slot| u32::from_be_bytes(*slot))
        .collect())
}

/// Finishes what an interrupted erasure began: steps 4 and 5.
pub(crate) fn finish<F: Follower>(log: &mut Log<F>) -> Result<(), EraseError> {
    let core = Arc::clone(&log.core);
    // Neither a snapshot nor a verification may see keys gone and the index not yet.
    let _none_between = core.snapshotting.lock();
    let mut slots = begun(&core.store).map_err(Unavailable::from)?;
    let open: Vec<u32> = slots
        .iter()
        .copied()
        .filter(|slot| core.vault.slot_state(*slot) != Some(SlotState::Destroyed))
        .collect();
    if !open.is_empty() {
        let erased = core.vault.erase(&open, &|step| core.at_vault(step));
        core.opened.forget_all();
        erased.map_err(refused)?;
        core.notice(Notice::ErasureFinished);
    }
    slots.extend(core.vault.unannounced());
    slots.sort_unstable();
    slots.dedup();
    if slots.is_empty() {
        return Ok(());
    }
    announce(log, &slots)?;
    Ok(())
}

fn refused(e: VaultError) -> EraseError {
    match e {
        VaultError::Places { have, want } => EraseError::Places { have, want },
        other => EraseError::Unavailable(other.into()),
    }
}

/// The whole act, in the writer thread.
pub(crate) fn erase<F: Follower>(log: &mut Log<F>, patient: &str, act: &dyn Erasing) -> Result<Erased, EraseError> {
    let core = Arc::clone(&log.core);
    finish(log)?;
    let course = course(&core, patient, act)?;
    if course.slots.is_empty() {
        let seq = commit(log, &course, act)?;
        return Ok(Erased {
            seq,
            pending: course.pending,
            ..Erased::default()
        });
    }
    let era = core.vault.renew_era(&|step| core.at_vault(step)).map_err(refused)?;
    // No snapshot may be made of the moments in between.
    let none_between = core.snapshotting.lock();
    if let Err(e) = commit(log, &course, act) {
        if begun(&core.store).map_err(Unavailable::from)?.is_empty() {
            core.vault.drop_era();
        }
        return Err(e.into());
    }
    core.at_step("copied");
    let done = core.vault.destroy(era, &course.slots, &|step| core.at_vault(step));
    core.opened.forget_all();
    let done = done.map_err(refused)?;
    let seq = announce(log, &course.slots)?;
    drop(none_between);
    if let Err(e) = snapshot::save_alone(log) {
        tracing::warn!(error = %e, "no snapshot after an erasure; the next start takes longer");
    }
    Ok(Erased {
        seq,
        redacted: course.copies.iter().map(|c| c.slot).collect(),
        slots: course.slots,
        pending: course.pending,
        confirmed: done.confirmed,
        unreachable: done.unreachable,
    })
}

impl<F: Follower> Core<F> {
    /// Where a test may stop the process.
    pub(crate) fn at_step(&self, name: &str) {
        if let Some(fault) = self.config.fault {
            fault(name);
        }
    }

    pub(crate) fn at_vault(&self, step: EraseStep) -> Result<(), VaultError> {
        self.at_step(step.name());
        Ok(())
    }
}

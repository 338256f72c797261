//! The single writer: decides changes, seals rows, commits groups.
//!
//! # One group
//! 1. Jobs waiting in the queue are taken until there are about 1,000 rows. Each change is decided by the follower
//!    against the index and the group's own pending rows, gets its rids and slots, and is sealed; its leaves and its
//!    event are added. Refused changes only add their event.
//! 2. The tree head after the group is signed.
//! 3. Rows, entries and checkpoint are committed in one transaction, fsynced when any member asks for it.
//! 4. The follower applies the changes, then `visible` moves once, then everybody is answered.
//!
//! A crash before 3 leaves nothing; after 3 everything, and the next start replays what 4 missed. When the commit
//! fails nothing of the group is kept and every member gets the error: no change is made and nothing may be disclosed.

use crate::core::{Core, Head, LogSigner, Randomness};
use crate::error::{AppendError, Notice, Unavailable};
use crate::event::{self, Event, PARTS_MAX, Wait};
use crate::follower::{Follower, HomeKey, Placed, Plan, SHARED, Turn};
use crate::{row, tiles};
use hashbrown::HashMap;
use keepwell_audit::Hash;
use keepwell_audit::leaf::{self, Leaf, Notice as LeafNotice};
use keepwell_audit::merkle::Frontier;
use keepwell_model::time::Timestamp;
use keepwell_store::{Batch, CheckpointRecord, Durability, EntryRecord, RowRecord, Writer};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use tokio::sync::oneshot;

/// How often the writer steps aside, with nothing left in the queue, for those about to ask. On a machine with an idle
/// core it costs a microsecond; on a busy one the next group is several times as long, and a commit costs the same.
const STEP_ASIDE: u32 = 2;
/// Rows after which a group is closed.
const GROUP_ROWS: usize = 1000;
/// Entries after which a group is closed.
const GROUP_ENTRIES: usize = 4096;
/// Entries after which a head is signed although nobody asked for durability.
const SIGN_EVERY: u64 = 256;
/// Where the database keeps the first rid (8 bytes) and slot (4) that may be used after a restore.
pub(crate) const FLOOR: &str = "floor";
/// Where the database keeps the slots (4 bytes each) that an erasure has begun to destroy.
pub(crate) const ERASING: &str = "erasing";
/// Where the database keeps the keyring's revision.
pub(crate) const KEYRING: &str = "keyring";

pub(crate) type Decided<F> = (<F as Follower>::Change, Vec<Placed>);
type Refused<F> = AppendError<<F as Follower>::Refusal>;
type Reply<F> = oneshot::Sender<Result<Decided<F>, Refused<F>>>;

type Act<F> = Box<dyn FnOnce(&mut Log<F>) + Send>;

pub(crate) enum Job<F: Follower> {
    Append(F::Change, Reply<F>),
    Log(Event, Wait, oneshot::Sender<Result<u64, Unavailable>>),
    /// Something that must not run beside a group.
    Alone(Act<F>),
    Stop,
}

/// The writer's own state.
pub(crate) struct Log<F: Follower> {
    pub(crate) core: Arc<Core<F>>,
    pub(crate) writer: Writer,
    pub(crate) frontier: Frontier,
    pub(crate) next_rid: u64,
    pub(crate) random: Randomness,
    /// Size of the newest signed head.
    pub(crate) signed: u64,
    pub(crate) newest: Timestamp,
    /// The keyring's revision that the database names.
    pub(crate) keyring: u64,
    pub(crate) synced: Arc<crate::keeper::Signal>,
}

/// What one group will commit and who waits for it.
pub(crate) struct Group<F: Follower> {
    pub(crate) batch: Batch,
    frontier: Frontier,
    /// Roots of the tiles that this group fills.
    full: Vec<Hash>,
    pending: F::Pending,
    /// Slots allotted by this group.
    patients: HashMap<String, u32>,
    homes: Vec<(u32, HomeKey)>,
    touched: Vec<(u32, u64)>,
    first_new_slot: Option<u32>,
    next_rid: u64,
    pub(crate) fsync: bool,
    waiting: Vec<Waiting<F>>,
}

enum Waiting<F: Follower> {
    Applied(F::Change, Vec<Placed>, Reply<F>),
    Refused(F::Refusal, Reply<F>),
    Logged(u64, oneshot::Sender<Result<u64, Unavailable>>),
}

impl<F: Follower> Log<F> {
    /// The writer's life: groups until told to stop or nobody is left to ask.
    pub(crate) fn run(mut self, jobs: &Receiver<Job<F>>) {
        let mut next = jobs.recv().ok();
        while let Some(job) = next {
            match job {
                Job::Stop => break,
                Job::Alone(act) => {
                    act(&mut self);
                    next = jobs.recv().ok();
                }
                job => {
                    next = self.group(job, jobs);
                    if next.is_none() {
                        next = jobs.recv().ok();
                    }
                }
            }
        }
        self.core.stopped.store(true, Ordering::Release);
        // Whoever still waits is told by the closed channel. The store empties its WAL when the writer is dropped.
        while let Ok(job) = jobs.try_recv() {
            drop(job);
        }
        if let Err(e) = self.writer.close() {
            tracing::warn!(error = %e, "the write-ahead log could not be emptied; the next start does it");
        }
    }

    pub(crate) fn start_group(&self) -> Group<F> {
        Group {
            batch: Batch::default(),
            frontier: self.frontier.clone(),
            full: Vec::new(),
            pending: F::Pending::default(),
            patients: HashMap::new(),
            homes: Vec::new(),
            touched: Vec::new(),
            first_new_slot: None,
            next_rid: self.next_rid,
            fsync: false,
            waiting: Vec::new(),
        }
    }

    /// Runs one group that starts with `job`; gives back a job that must run alone after it.
    fn group(&mut self, job: Job<F>, jobs: &Receiver<Job<F>>) -> Option<Job<F>> {
        let mut group = self.start_group();
        let mut left_over = None;
        let mut aside = STEP_ASIDE;
        let mut next = Some(job);
        while let Some(job) = next.take() {
            let open = match job {
                Job::Append(change, reply) => self.take_change(&mut group, change, reply),
                Job::Log(event, wait, reply) => {
                    self.take_event(&mut group, &event, wait, reply);
                    true
                }
                other => {
                    left_over = Some(other);
                    break;
                }
            };
            if open && group.batch.rows.len() < GROUP_ROWS && group.batch.entries.len() < GROUP_ENTRIES {
                next = jobs.try_recv().ok();
                while next.is_none() && aside > 0 {
                    aside -= 1;
                    std::thread::yield_now();
                    next = jobs.try_recv().ok();
                }
            }
        }
        self.commit(group);
        left_over
    }

    fn now(&mut self) -> Timestamp {
        let at = self.core.clock.now();
        if at < self.newest {
            let behind = self.newest.0 - at.0;
            self.core.notice(Notice::ClockSetBack(behind));
            // At once: nobody asks a running server for its notices.
            tracing::warn!(
                behind_s = behind / 1000,
                "the clock was set back: set it right. Nothing is lost, the order of entries and versions is kept"
            );
        }
        self.newest = at;
        at
    }

    /// Decides and seals a change. False when the group must be closed, because its pending rows are not all kept.
    fn take_change(&mut self, group: &mut Group<F>, mut change: F::Change, reply: Reply<F>) -> bool {
        let at = self.now();
        let turn = Turn {
            at,
            rid: group.next_rid,
        };
        match self.core.follower.decide(&mut change, &mut group.pending, turn) {
            Ok(plans) => {
                let before = (group.batch.rows.len(), group.batch.entries.len(), group.next_rid);
                let kept = group.frontier.clone();
                let touched = (group.touched.len(), group.homes.len(), group.full.len());
                let placed = self.place(group, plans).and_then(|placed| {
                    let event = self.core.follower.event(&mut change, Ok(&placed));
                    if !cfg!(keepwell_plain) {
                        self.add_event(group, &event, at)?;
                    }
                    Ok(placed)
                });
                match placed {
                    Ok(placed) => {
                        group.fsync = true;
                        group.waiting.push(Waiting::Applied(change, placed, reply));
                        true
                    }
                    Err(error) => {
                        group.batch.rows.truncate(before.0);
                        group.batch.entries.truncate(before.1);
                        group.next_rid = before.2;
                        group.frontier = kept;
                        group.touched.truncate(touched.0);
                        group.homes.truncate(touched.1);
                        group.full.truncate(touched.2);
                        let _ = reply.send(Err(error.into()));
                        false
                    }
                }
            }
            Err(refusal) => {
                let event = self.core.follower.event(&mut change, Err(&refusal));
                if event.kind == 0 {
                    // The caller prepares the change again; its end is what goes into the log.
                    let _ = reply.send(Err(AppendError::Refused(refusal)));
                    return false;
                }
                match self.add_event(group, &event, at) {
                    Ok(_) => {
                        group.fsync = true;
                        group.waiting.push(Waiting::Refused(refusal, reply));
                    }
                    Err(error) => drop(reply.send(Err(error.into()))),
                }
                true
            }
        }
    }

    fn take_event(
        &mut self,
        group: &mut Group<F>,
        event: &Event,
        wait: Wait,
        reply: oneshot::Sender<Result<u64, Unavailable>>,
    ) {
        let at = self.now();
        match self.add_event(group, event, at) {
            Ok(seq) => {
                group.fsync |= wait == Wait::Fsync || self.core.config.sync_reads;
                group.waiting.push(Waiting::Logged(seq, reply));
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn slot_for(&self, group: &mut Group<F>, home: &HomeKey) -> Result<u32, Unavailable> {
        let vault = &self.core.vault;
        let new = |group: &mut Group<F>| -> Result<u32, Unavailable> {
            let slot = vault.allot()?;
            group.first_new_slot.get_or_insert(slot);
            Ok(slot)
        };
        match home {
            HomeKey::Shared => Ok(SHARED),
            HomeKey::Slot(slot) => Ok(*slot),
            HomeKey::Fresh(_) => new(group),
            HomeKey::Patient(id) => {
                let known = group
                    .patients
                    .get(id)
                    .copied()
                    .or_else(|| self.core.homes.read().slot(id));
                if let Some(slot) = known {
                    return Ok(slot);
                }
                let slot = new(group)?;
                group.patients.insert(id.clone(), slot);
                Ok(slot)
            }
        }
    }

    pub(crate) fn place(&mut self, group: &mut Group<F>, plans: Vec<Plan>) -> Result<Vec<Placed>, Unavailable> {
        let mut placed = Vec::with_capacity(plans.len());
        for plan in plans {
            let rid = group.next_rid;
            if plan.header.id.len() > row::ID_MAX || plan.header.prev >= rid {
                return Err(Unavailable::Unplaceable("its header cannot be written"));
            }
            let slot = self.slot_for(group, &plan.home)?;
            let core = Arc::clone(&self.core);
            core.vault.promise_rid(rid + plan.rows())?;
            let mut failed = None;
            let bodies = row::seal(
                &mut |n| core.vault.row_key(slot, n).map_err(|e| failed = Some(e)).ok(),
                &mut || self.random.take(),
                rid,
                &plan.header,
                &plan.body,
            );
            let Some(bodies) = bodies else {
                return Err(failed.map_or(Unavailable::Entropy, Unavailable::from));
            };
            for (body, n) in bodies.into_iter().zip(rid..) {
                let key_ref = core.vault.key_ref(slot, n)?;
                let leaf = Leaf::Row {
                    rid: n,
                    digest: leaf::row_digest(n, &key_ref, &body),
                };
                self.add_entry(group, &leaf, None);
                group.batch.rows.push(RowRecord { rid: n, key_ref, body });
            }
            group.next_rid += plan.rows();
            if !matches!(plan.home, HomeKey::Shared | HomeKey::Slot(_)) {
                group.homes.push((slot, plan.home));
            }
            placed.push(Placed { rid, slot });
        }
        Ok(placed)
    }

    pub(crate) fn add_entry(&self, group: &mut Group<F>, leaf: &Leaf, sealed: Option<Vec<u8>>) -> u64 {
        let entry = leaf.to_bytes();
        let seq = group.frontier.size();
        group.full.extend(tiles::append(&mut group.frontier, &entry));
        group.batch.entries.push(EntryRecord { seq, entry, sealed });
        seq
    }

    /// Adds an event, split when its parts are long. The number of its first entry.
    pub(crate) fn add_event(&mut self, group: &mut Group<F>, event: &Event, at: Timestamp) -> Result<u64, Unavailable> {
        let first = group.frontier.size();
        let mut rest = event.parts.as_slice();
        loop {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|(_, part)| {
                bytes += part.len() + 64;
                bytes <= PARTS_MAX
            });
            let taken = fits.count().max(1).min(rest.len());
            let (parts, more) = rest.split_at(taken);
            let seq = group.frontier.size();
            let core = Arc::clone(&self.core);
            let (sealed, commitment) = event::seal(&core.vault, &mut || self.random.take(), seq, at, event, parts)?;
            let leaf = Leaf::Event {
                at: at.0,
                kind: event.kind,
                sealed: leaf::event_digest(&sealed),
                commitment,
            };
            self.add_entry(group, &leaf, Some(sealed));
            group.touched.extend(
                parts
                    .iter()
                    .filter(|(slot, _)| *slot != SHARED)
                    .map(|(slot, _)| (*slot, seq)),
            );
            rest = more;
            if rest.is_empty() {
                return Ok(first);
            }
        }
    }

    /// Signs the head after a group that must be durable, or when many entries have gathered.
    fn sign(&self, group: &mut Group<F>) -> Result<(), Unavailable> {
        let size = group.frontier.size();
        if size == self.signed || (!group.fsync && size - self.signed < SIGN_EVERY) {
            return Ok(());
        }
        let signer = LogSigner {
            vault: &self.core.vault,
            origin: &self.core.origin,
        };
        let note = signer
            .checkpoint(size, group.frontier.root())
            .map_err(|_| Unavailable::Stopped)?;
        group.batch.checkpoint = Some(CheckpointRecord {
            size,
            note,
            frontier: group.frontier.to_bytes(),
        });
        Ok(())
    }

    /// Signs and commits. With the first commit after a change of the keyring the database learns its revision, so
    /// that an older keyring is told from the right one.
    pub(crate) fn store(&mut self, group: &mut Group<F>) -> Result<(), Unavailable> {
        self.sign(group)?;
        let keyring = self.core.vault.revision();
        if keyring != self.keyring {
            group
                .batch
                .meta
                .push((KEYRING.to_owned(), keyring.to_be_bytes().to_vec()));
        }
        let durability = if group.fsync {
            Durability::Fsync
        } else {
            Durability::Wal
        };
        self.writer.commit(&group.batch, durability)?;
        self.keyring = keyring;
        Ok(())
    }

    fn commit(&mut self, mut group: Group<F>) {
        if group.batch.entries.is_empty() {
            self.undo(&group);
            return;
        }
        if let Err(error) = self.store(&mut group) {
            self.fail(group, &error);
            return;
        }
        *self.core.failure.lock() = None;
        self.settle(group);
    }

    /// Nothing of the group was kept: give slots back and tell everybody.
    fn fail(&mut self, group: Group<F>, error: &Unavailable) {
        self.undo(&group);
        *self.core.failure.lock() = Some(error.clone());
        for waiting in group.waiting {
            match waiting {
                Waiting::Applied(_, _, reply) | Waiting::Refused(_, reply) => {
                    let _ = reply.send(Err(error.clone().into()));
                }
                Waiting::Logged(_, reply) => {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    pub(crate) fn undo(&self, group: &Group<F>) {
        if let Some(first) = group.first_new_slot {
            self.core.vault.give_back(first);
        }
    }

    /// The group is committed: apply, show, answer.
    pub(crate) fn settle(&mut self, mut group: Group<F>) {
        let core = Arc::clone(&self.core);
        self.frontier = group.frontier;
        self.next_rid = group.next_rid;
        if let Some(checkpoint) = group.batch.checkpoint.take() {
            self.signed = checkpoint.size;
            *core.head.write() = Head {
                size: checkpoint.size,
                note: checkpoint.note,
            };
        }
        {
            let _applying = core.applying.write();
            if !group.homes.is_empty() {
                let mut homes = core.homes.write();
                for (slot, home) in &group.homes {
                    homes.learn(*slot, home);
                }
            }
            if !group.touched.is_empty() {
                let mut accesses = core.accesses.write();
                for (slot, seq) in &group.touched {
                    accesses.add(*slot, *seq);
                }
            }
            {
                let mut tiles = core.tiles.write();
                let mut full = group.full.drain(..);
                for entry in &group.batch.entries {
                    tiles.add(entry.seq, &entry.entry, &mut full);
                }
            }
            for waiting in &mut group.waiting {
                if let Waiting::Applied(change, placed, _) = waiting {
                    core.follower.apply(change, placed);
                }
            }
            *core.frontier.write() = self.frontier.clone();
            core.size.store(self.frontier.size(), Ordering::Release);
            // Rows only: after a restore the numbers jump before the first of them.
            if let Some(row) = group.batch.rows.last() {
                core.visible.store(row.rid, Ordering::Release);
            }
        }
        for waiting in group.waiting {
            match waiting {
                Waiting::Applied(change, placed, reply) => drop(reply.send(Ok((change, placed)))),
                Waiting::Refused(refusal, reply) => drop(reply.send(Err(AppendError::Refused(refusal)))),
                Waiting::Logged(seq, reply) => drop(reply.send(Ok(seq))),
            }
        }
        if group.first_new_slot.is_some()
            && let Err(e) = core.vault.make_ahead()
        {
            tracing::error!(error = %e, "no new slots could be made; those made ahead are still used");
        }
        self.synced.wrote(group.fsync);
    }

    /// Appends notices, with what `meta` is to say, on their own, fsynced. For acts that run alone.
    pub(crate) fn append_alone(&mut self, leaves: &[Leaf], meta: Vec<(String, Vec<u8>)>) -> Result<u64, Unavailable> {
        if leaves.iter().any(|leaf| {
            matches!(
                leaf,
                Leaf::Notice {
                    notice: LeafNotice::Restored { .. },
                    ..
                }
            )
        }) {
            self.skip_lost()?;
        }
        let mut group = self.start_group();
        let first = group.frontier.size();
        for leaf in leaves {
            self.add_entry(&mut group, leaf, None);
        }
        group.batch.meta = meta;
        group.fsync = true;
        self.store(&mut group)?;
        self.settle(group);
        Ok(first)
    }

    /// After a restore: rids and slots that the lost tail may have used are never used again. The keyring knows the
    /// first of each that cannot have been.
    fn skip_lost(&mut self) -> Result<(), Unavailable> {
        let vault = &self.core.vault;
        let (rid, slot) = (vault.rid_ceiling().max(self.next_rid), vault.slots());
        let floor = [rid.to_be_bytes().as_slice(), &slot.to_be_bytes()].concat();
        let batch = Batch {
            meta: vec![(FLOOR.to_owned(), floor)],
            ..Batch::default()
        };
        self.writer.commit(&batch, Durability::Fsync)?;
        vault.resume(slot);
        self.next_rid = rid;
        Ok(())
    }

    /// Signs the newest head when it is not signed yet.
    pub(crate) fn sign_head(&mut self) -> Result<(), Unavailable> {
        if self.signed == self.frontier.size() {
            return Ok(());
        }
        let mut group = self.start_group();
        group.fsync = true;
        self.store(&mut group)?;
        self.settle(group);
        Ok(())
    }
}

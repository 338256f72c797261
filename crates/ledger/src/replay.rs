//! Replaying the log: stored rows and entries into a follower, homes, access lists and tiles. A start brings the live
//! state up to date with it, `verify` builds a second one to compare.

use crate::error::{OpenError, ReadError};
use crate::event::{self, Accesses};
use crate::follower::{Follower, HomeKey, Kind, Replayed};
use crate::homes::Homes;
use crate::row;
use crate::tiles::Tiles;
use keepwell_audit::merkle::Frontier;
use keepwell_store::{RowRecord, Store};
use keepwell_vault::Vault;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

/// Rows handed from thread to thread at a time.
const BATCH: usize = 256;

/// Where the log is read, and what it is replayed into.
pub(crate) struct Replay<'a, F: Follower> {
    pub(crate) store: &'a Store,
    pub(crate) vault: &'a Vault,
    pub(crate) follower: &'a F,
    pub(crate) homes: &'a RwLock<Homes>,
    pub(crate) accesses: &'a RwLock<Accesses>,
}

/// A row on its way to the index.
enum Ready<P> {
    Row(u32, P, HomeKey),
    /// Nothing for the index; its slot is in use.
    Other(u32),
    Erased,
    Damaged,
}

impl<F: Follower> Replay<'_, F> {
    /// Entries from number `from` up to but without `size` into the access lists. The number of damaged ones.
    pub(crate) fn entries(&self, from: u64, size: u64) -> Result<u64, OpenError> {
        let mut damaged = 0;
        if from >= size {
            return Ok(0);
        }
        let mut accesses = std::mem::take(&mut *self.accesses.write());
        self.store
            .view()?
            .entries(from..=size - 1, |entry| -> Result<(), OpenError> {
                if let Some(sealed) = entry.sealed {
                    match event::open(self.vault, entry.seq, sealed) {
                        Some(half) => half
                            .slots
                            .iter()
                            .filter(|(slot, _)| *slot != 0)
                            .for_each(|(slot, _)| accesses.add(*slot, entry.seq)),
                        None => damaged += 1,
                    }
                }
                Ok(())
            })?;
        for slot in self.vault.destroyed() {
            accesses.forget(slot);
        }
        *self.accesses.write() = accesses;
        Ok(damaged)
    }

    /// Rows after `from` up to `last` into follower and homes. The number of damaged ones.
    ///
    /// In parallel: one thread reads, some open and parse, this one feeds the follower in order.
    pub(crate) fn rows(&self, from: u64, last: u64) -> Result<u64, OpenError> {
        if from >= last {
            return Ok(0);
        }
        let workers = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
        std::thread::scope(|scope| {
            let (raw, to_open) = sync_channel::<(u64, Vec<RowRecord>)>(workers * 4);
            let to_open = Arc::new(Mutex::new(to_open));
            let (opened, ready) = sync_channel::<(u64, Vec<Ready<F::Prepared>>)>(workers * 4);
            let reader = scope.spawn(move || -> Result<(), OpenError> {
                let mut batch = Vec::with_capacity(BATCH);
                let mut number = 0;
                self.store
                    .view()?
                    .rows(from + 1..=last, |row| -> Result<(), OpenError> {
                        batch.push(row.to_record());
                        if batch.len() == BATCH {
                            // The receivers live until this end is dropped.
                            let _ = raw.send((number, std::mem::replace(&mut batch, Vec::with_capacity(BATCH))));
                            number += 1;
                        }
                        Ok(())
                    })?;
                let _ = raw.send((number, batch));
                Ok(())
            });
            for _ in 0..workers {
                let (to_open, opened) = (Arc::clone(&to_open), opened.clone());
                scope.spawn(move || {
                    loop {
                        let Ok((number, rows)) = to_open.lock().recv() else {
                            return;
                        };
                        let rows = rows.iter().map(|row| self.prepare(row)).collect();
                        if opened.send((number, rows)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop((opened, to_open));
            let mut waiting = BTreeMap::new();
            let mut next = 0;
            let mut damaged = 0;
            for (number, rows) in ready {
                waiting.insert(number, rows);
                while let Some(rows) = waiting.remove(&next) {
                    next += 1;
                    damaged += self.take_in(rows);
                }
            }
            reader
                .join()
                .unwrap_or_else(|_| Err(OpenError::Store("reading rows failed".to_owned())))?;
            Ok(damaged)
        })
    }

    fn prepare(&self, stored: &RowRecord) -> Ready<F::Prepared> {
        match row::open(self.vault, stored.rid, &stored.key_ref, &stored.body) {
            Ok(row) if row.header.kind == Kind::Blob => Ready::Other(row.slot),
            Ok(row) => {
                let slot = row.slot;
                let replayed = Replayed {
                    rid: stored.rid,
                    slot,
                    header: row.header,
                    text: row.text,
                };
                let (prepared, home) = self.follower.prepare(replayed);
                Ready::Row(slot, prepared, home)
            }
            Err(ReadError::Erased(_) | ReadError::Missing(_)) => Ready::Erased,
            Err(_) => Ready::Damaged,
        }
    }

    fn take_in(&self, rows: Vec<Ready<F::Prepared>>) -> u64 {
        let mut damaged = 0;
        let mut prepared = Vec::with_capacity(rows.len());
        {
            let mut homes = self.homes.write();
            for row in rows {
                match row {
                    Ready::Row(slot, row, home) => {
                        homes.saw(slot);
                        homes.learn(slot, &home);
                        prepared.push(row);
                    }
                    Ready::Other(slot) => homes.saw(slot),
                    Ready::Erased => {}
                    Ready::Damaged => damaged += 1,
                }
            }
        }
        self.follower.replay(prepared);
        damaged
    }
}

/// Continues a tree and its tiles over the stored entries, up to `size` of them.
pub(crate) fn grow(store: &Store, tree: &mut Frontier, tiles: &mut Tiles, size: u64) -> Result<(), OpenError> {
    if tree.size() >= size {
        return Ok(());
    }
    store.view()?.entries(tree.size()..=size - 1, |entry| {
        tiles.append(tree, entry.entry);
        Ok(())
    })
}

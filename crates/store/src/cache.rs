//! Sealed rows read lately, kept in memory as they lie on disk.
//!
//! A read of SQLite takes file locks, and every commit makes a reader forget its pages; most reads ask for rows that
//! were read a moment ago. Nothing here is opened: a copy in memory is as sealed as the one on disk.
//!
//! INVARIANT (no old body): a row never changes but through [`crate::Batch`]'s changes of stored rows. The writer then
//! moves `epoch` and empties the cache, and a reader that began before puts nothing in.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::record::{RowRecord, RowRef};

/// Shards, so that readers and the few inserts do not meet.
const SHARDS: usize = 16;
/// Larger bodies (attachments) are not kept.
const BODY_MAX: usize = 64 << 10;
/// What a row takes beside its body: the record, the counters, its place in the table.
const OVERHEAD: usize = 112;

/// A bounded cache of sealed rows; least recently used dropped first (second chance).
pub(crate) struct RowCache {
    shards: Vec<RwLock<Shard>>,
    shard_bytes: usize,
    epoch: AtomicU64,
}

#[derive(Default)]
struct Shard {
    rows: HashMap<u64, Kept>,
    bytes: usize,
}

struct Kept {
    row: Arc<RowRecord>,
    used: AtomicBool,
}

impl RowCache {
    /// Keeps up to about `bytes`; 0 keeps nothing.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            shard_bytes: bytes / SHARDS,
            epoch: AtomicU64::new(0),
        }
    }

    fn shard(&self, rid: u64) -> Option<&RwLock<Shard>> {
        self.shards.get(rid as usize % SHARDS)
    }

    pub(crate) fn get(&self, rid: u64) -> Option<Arc<RowRecord>> {
        let shard = self.shard(rid)?.read();
        let kept = shard.rows.get(&rid)?;
        if !kept.used.load(Ordering::Relaxed) {
            kept.used.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&kept.row))
    }

    /// Whether a read may be skipped.
    pub(crate) fn has(&self, rid: u64) -> bool {
        self.shard(rid)
            .is_some_and(|shard| shard.read().rows.contains_key(&rid))
    }

    /// To be taken before the read whose result [`RowCache::put`] gets.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Keeps a row read in `epoch`.
    pub(crate) fn put(&self, epoch: u64, row: RowRef<'_>) {
        let size = row.body.len() + OVERHEAD;
        if row.body.len() > BODY_MAX || size > self.shard_bytes {
            return;
        }
        let Some(shard) = self.shard(row.rid) else { return };
        let mut shard = shard.write();
        // Under the lock: `forget_all` moves the epoch first and takes this lock after.
        if self.epoch() != epoch || shard.rows.contains_key(&row.rid) {
            return;
        }
        if shard.bytes + size > self.shard_bytes {
            shard.make_room();
        }
        shard.bytes += size;
        shard.rows.insert(
            row.rid,
            Kept {
                row: Arc::new(row.to_record()),
                used: AtomicBool::new(true),
            },
        );
    }

    /// Empties the cache; what is being read now is not put in any more.
    pub(crate) fn forget_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        for shard in &self.shards {
            *shard.write() = Shard::default();
        }
    }
}

impl Shard {
    /// Drops what was not used since the last time; when that is little, every other row.
    fn make_room(&mut self) {
        let before = self.bytes;
        self.keep(|kept| kept.used.swap(false, Ordering::Relaxed));
        if self.bytes > before / 4 * 3 {
            let mut other = false;
            self.keep(|_| {
                other = !other;
                other
            });
        }
    }

    fn keep(&mut self, mut wanted: impl FnMut(&Kept) -> bool) {
        let mut bytes = 0;
        self.rows.retain(|_, kept| {
            let keep = wanted(kept);
            if keep {
                bytes += kept.row.body.len() + OVERHEAD;
            }
            keep
        });
        self.bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rid: u64, body: &[u8]) -> RowRef<'_> {
        RowRef {
            rid,
            key_ref: [7; 16],
            body,
        }
    }

    #[test]
    fn keeps_within_its_bound_and_what_is_used() {
        let cache = RowCache::new(SHARDS * 4096);
        let body = vec![1; 200];
        for rid in 0..2000 {
            cache.put(cache.epoch(), row(rid, &body));
            assert!(cache.get(0).is_some() || rid > 60, "a row in use was dropped at once");
        }
        let kept: usize = cache.shards.iter().map(|s| s.read().bytes).sum();
        assert!(kept <= SHARDS * 4096 && kept > SHARDS * 1024, "{kept}");
        assert!(cache.get(1999).is_some_and(|r| r.body == body && r.key_ref == [7; 16]));
        cache.put(cache.epoch(), row(5000, &vec![0; BODY_MAX + 1]));
        assert!(!cache.has(5000));
    }

    #[test]
    fn a_read_that_began_before_a_change_is_not_kept() {
        let cache = RowCache::new(1 << 20);
        let before = cache.epoch();
        cache.put(before, row(1, b"old"));
        cache.forget_all();
        assert!(cache.get(1).is_none());
        cache.put(before, row(1, b"old"));
        assert!(cache.get(1).is_none());
        cache.put(cache.epoch(), row(1, b""));
        assert!(cache.get(1).is_some_and(|r| r.body.is_empty()));
    }
}

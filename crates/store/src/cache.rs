//! What was read lately of rows, kept in memory within a bound.
//!
//! The store keeps sealed rows in one of these: a read of SQLite takes file locks, and every commit makes a reader forget
//! its pages, while most reads ask for rows that were read a moment ago. Nothing the store keeps is opened: a copy in
//! memory is as sealed as the one on disk.
//!
//! INVARIANT (no old row): what makes kept values untrue (for the store: [`crate::Batch`]'s changes of stored rows) calls
//! [`RowCache::forget_all`] afterwards. That moves `epoch` and empties the cache, and a reader that began before puts
//! nothing in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;

/// Shards, so that readers and the few inserts do not meet.
const SHARDS: usize = 16;
/// Larger values (attachments) are not kept.
const VALUE_MAX: usize = 64 << 10;
/// What a row takes beside its bytes: the record, the counters, its place in the table.
const OVERHEAD: usize = 112;

/// A bounded cache by row number; least recently used dropped first (second chance).
pub struct RowCache<V> {
    shards: Vec<RwLock<Shard<V>>>,
    shard_bytes: usize,
    epoch: AtomicU64,
}

struct Shard<V> {
    rows: HashMap<u64, Kept<V>>,
    bytes: usize,
}

struct Kept<V> {
    value: Arc<V>,
    size: usize,
    used: AtomicBool,
}

impl<V> Default for Shard<V> {
    fn default() -> Self {
        Self {
            rows: HashMap::new(),
            bytes: 0,
        }
    }
}

impl<V> RowCache<V> {
    /// Keeps up to about `bytes`; 0 keeps nothing.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            shard_bytes: bytes / SHARDS,
            epoch: AtomicU64::new(0),
        }
    }

    fn shard(&self, rid: u64) -> Option<&RwLock<Shard<V>>> {
        self.shards.get(rid as usize % SHARDS)
    }

    /// What is kept of the row `rid`.
    #[must_use]
    pub fn get(&self, rid: u64) -> Option<Arc<V>> {
        let shard = self.shard(rid)?.read();
        let kept = shard.rows.get(&rid)?;
        if !kept.used.load(Ordering::Relaxed) {
            kept.used.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&kept.value))
    }

    /// Whether a read may be skipped.
    #[must_use]
    pub fn has(&self, rid: u64) -> bool {
        self.shard(rid)
            .is_some_and(|shard| shard.read().rows.contains_key(&rid))
    }

    /// To be taken before the read whose result [`RowCache::put`] gets.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Keeps what was read of the row `rid` in `epoch`; `size` is its bytes.
    pub fn put(&self, epoch: u64, rid: u64, size: usize, value: impl FnOnce() -> Arc<V>) {
        if size > VALUE_MAX || size + OVERHEAD > self.shard_bytes {
            return;
        }
        let size = size + OVERHEAD;
        let Some(shard) = self.shard(rid) else { return };
        let mut shard = shard.write();
        // Under the lock: `forget_all` moves the epoch first and takes this lock after.
        if self.epoch() != epoch || shard.rows.contains_key(&rid) {
            return;
        }
        if shard.bytes + size > self.shard_bytes {
            shard.make_room();
        }
        shard.bytes += size;
        shard.rows.insert(
            rid,
            Kept {
                value: value(),
                size,
                used: AtomicBool::new(true),
            },
        );
    }

    /// Empties the cache; what is being read now is not put in any more.
    pub fn forget_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        for shard in &self.shards {
            *shard.write() = Shard::default();
        }
    }
}

impl<V> Shard<V> {
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

    fn keep(&mut self, mut wanted: impl FnMut(&Kept<V>) -> bool) {
        let mut bytes = 0;
        self.rows.retain(|_, kept| {
            let keep = wanted(kept);
            if keep {
                bytes += kept.size;
            }
            keep
        });
        self.bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &RowCache<Vec<u8>>, epoch: u64, rid: u64, body: &[u8]) {
        cache.put(epoch, rid, body.len(), || Arc::new(body.to_vec()));
    }

    #[test]
    fn keeps_within_its_bound_and_what_is_used() {
        let cache = RowCache::new(SHARDS * 4096);
        let body = vec![1; 200];
        for rid in 0..2000 {
            put(&cache, cache.epoch(), rid, &body);
            assert!(cache.get(0).is_some() || rid > 60, "a row in use was dropped at once");
        }
        let kept: usize = cache.shards.iter().map(|s| s.read().bytes).sum();
        assert!(kept <= SHARDS * 4096 && kept > SHARDS * 1024, "{kept}");
        assert!(cache.get(1999).is_some_and(|kept| *kept == body));
        put(&cache, cache.epoch(), 5000, &vec![0; VALUE_MAX + 1]);
        assert!(!cache.has(5000));
    }

    #[test]
    fn a_read_that_began_before_a_change_is_not_kept() {
        let cache = RowCache::new(1 << 20);
        let before = cache.epoch();
        put(&cache, before, 1, b"old");
        cache.forget_all();
        assert!(cache.get(1).is_none());
        put(&cache, before, 1, b"old");
        assert!(cache.get(1).is_none());
        put(&cache, cache.epoch(), 1, b"");
        assert!(cache.get(1).is_some_and(|kept| kept.is_empty()));
    }
}

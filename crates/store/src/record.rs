//! What goes into the store and comes out of it.

/// A sealed row: `rid` is the commit order, never reused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowRecord {
    /// Row number, from 1.
    pub rid: u64,
    /// Which key opens the row; opaque here.
    pub key_ref: [u8; 16],
    /// The sealed body; empty once blanked.
    pub body: Vec<u8>,
}

/// A row as read, borrowed from the database page.
#[derive(Clone, Copy, Debug)]
pub struct RowRef<'a> {
    /// Row number.
    pub rid: u64,
    /// Which key opens the row.
    pub key_ref: [u8; 16],
    /// The sealed body; empty once blanked.
    pub body: &'a [u8],
}

impl RowRef<'_> {
    /// An owned copy.
    #[must_use]
    pub fn to_record(self) -> RowRecord {
        RowRecord {
            rid: self.rid,
            key_ref: self.key_ref,
            body: self.body.to_vec(),
        }
    }
}

impl<'a> From<&'a RowRecord> for RowRef<'a> {
    fn from(row: &'a RowRecord) -> Self {
        Self {
            rid: row.rid,
            key_ref: row.key_ref,
            body: &row.body,
        }
    }
}

/// A log entry: the public leaf bytes that the tree hashes, and the sealed event beside them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRecord {
    /// Position in the log, from 0, without gaps.
    pub seq: u64,
    /// Public bytes; the Merkle leaf is `SHA-256(0x00, entry)`.
    pub entry: Vec<u8>,
    /// The sealed event, for entries that have one.
    pub sealed: Option<Vec<u8>>,
}

/// An entry as read, borrowed from the database page.
#[derive(Clone, Copy, Debug)]
pub struct EntryRef<'a> {
    /// Position in the log.
    pub seq: u64,
    /// Public bytes.
    pub entry: &'a [u8],
    /// The sealed event.
    pub sealed: Option<&'a [u8]>,
}

impl EntryRef<'_> {
    /// An owned copy.
    #[must_use]
    pub fn to_record(self) -> EntryRecord {
        EntryRecord {
            seq: self.seq,
            entry: self.entry.to_vec(),
            sealed: self.sealed.map(<[u8]>::to_vec),
        }
    }
}

/// A signed checkpoint and the frontier it was computed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRecord {
    /// Tree size.
    pub size: u64,
    /// The signed note.
    pub note: Vec<u8>,
    /// The frontier's bytes; only the newest checkpoint keeps them.
    pub frontier: Vec<u8>,
}

/// What one commit stores, all or nothing.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// New rows, ascending.
    pub rows: Vec<RowRecord>,
    /// New entries, ascending and without a gap.
    pub entries: Vec<EntryRecord>,
    /// A new checkpoint over everything up to and with `entries`.
    pub checkpoint: Option<CheckpointRecord>,
    /// Rows whose body is emptied; the batch's entries announce it.
    pub blank: Vec<u64>,
    /// Key-value pairs to set.
    pub meta: Vec<(String, Vec<u8>)>,
}

impl Batch {
    /// Whether there is nothing to store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
            && self.entries.is_empty()
            && self.checkpoint.is_none()
            && self.blank.is_empty()
            && self.meta.is_empty()
    }
}

/// What a commit has survived when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// In the write-ahead log: survives a killed process.
    Wal,
    /// Also on the device: survives a power cut.
    Fsync,
}

//! Audit events: what a caller hands in and what a reader of an access log gets back.

/// One event: one request, or one administrative act.
#[derive(Clone, Debug, Default)]
pub struct Event {
    /// What happened, public in the leaf (no PHI): a number of `record`'s choosing, 1 to 199.
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
    pub at: keepwell_model::time::Timestamp,
    /// The event's kind.
    pub kind: u8,
    /// The actor half.
    pub actor: Vec<u8>,
    /// That patient's part.
    pub part: Vec<u8>,
}

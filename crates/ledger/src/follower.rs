//! What the ledger asks of the one who keeps the index, and the plain data they exchange.

use crate::{Body, Event};
use keepwell_model::time::Timestamp;
use std::io::{Read, Write};

/// Keeps an index in step with the log. Implemented in `record` over `search`.
///
/// INVARIANT (pure index): the state after `load` + `replay` of the tail, after `replay` of everything, and after
/// living through the same rows by `decide` + `apply` is the same.
pub trait Follower: Send + Sync + 'static {
    /// A request to write, prepared as far as possible before the writer sees it.
    type Change: Send + 'static;
    /// What the caller gets when it is durable and visible.
    type Answer: Send + 'static;
    /// Why a change was not made (precondition failed, conflict ...).
    type Refusal: Send + 'static;
    /// Rows planned by this group so far and not yet applied: one value per group, dropped after it.
    type Pending: Default + Send;
    /// A row read back for the index: whatever parsing and extraction give.
    type Prepared: Send + 'static;

    /// Checks preconditions against the index and `pending`, numbers versions, says which rows to write.
    ///
    /// Runs in the writer thread, one change after the other, and must be quick. On `Ok` the rows must have been
    /// added to `pending`; on `Err` `pending` must be as before. The first plan gets rid `turn.rid`; a plan takes
    /// [`Plan::rows`] numbers. An empty plan list is allowed (a change that turned out to change nothing).
    ///
    /// # Errors
    /// The refusal given to the caller after its event is durable.
    fn decide(
        &self,
        change: &mut Self::Change,
        pending: &mut Self::Pending,
        turn: Turn,
    ) -> Result<Vec<Plan>, Self::Refusal>;

    /// The audit event of the change, asked after `decide`: `placed` has one element per plan.
    fn event(&self, change: &mut Self::Change, outcome: Result<&[Placed], &Self::Refusal>) -> Event;

    /// Takes the rows into the index. Called in the writer thread after they are durable, before `visible` moves;
    /// not called for refused changes. Hold locks for at most 100 rows at a time.
    fn apply(&self, change: &mut Self::Change, placed: &[Placed]);

    /// The answer, after `visible` has moved. Runs in the caller's task.
    fn answer(&self, change: Self::Change, placed: &[Placed]) -> Self::Answer;

    /// Parses a stored row for [`Follower::replay`] and says whose it is: [`HomeKey::Patient`] or
    /// [`HomeKey::Fresh`] as planned when it was written, or [`HomeKey::Slot`] when the row does not say
    /// (deletions, left rows). Any thread, several at once. Blob rows are not shown.
    fn prepare(&self, row: Replayed) -> (Self::Prepared, HomeKey);

    /// Takes rows into the index in rid order: at a start, and copies made by an erasure.
    fn replay(&self, rows: Vec<Self::Prepared>);

    /// The rows homed at `slot`, ascending; attachments left out.
    fn rows_of(&self, slot: u32) -> Vec<u64>;

    /// Drops everything homed at `slot`; the caller already made its key unusable.
    fn forget(&self, slot: u32);

    /// Writes the index so that `load` can read it. No row is applied meanwhile.
    ///
    /// # Errors
    /// Those of `out`.
    fn dump(&self, out: &mut dyn Write) -> std::io::Result<()>;

    /// Writes what the index holds in canonical form: the same bytes whichever way it came to be (see the invariant).
    /// Nothing of a slot that was forgotten is in it. No row is applied meanwhile.
    ///
    /// # Errors
    /// Those of `out`.
    fn canonical(&self, out: &mut dyn Write) -> std::io::Result<()>;

    /// An empty follower of the same kind, to build a second index beside this one.
    fn fresh(&self) -> Self
    where
        Self: Sized;

    /// Replaces the index by a dumped one. On error the index must be empty again.
    ///
    /// # Errors
    /// The dump is cut off, of an unknown version or inconsistent; the index is then rebuilt.
    fn load(&self, from: &mut dyn Read) -> std::io::Result<()>;
}

/// When and where a change is decided.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// The clock. `lastUpdated` of a version must be the larger of this and the previous version's.
    pub at: Timestamp,
    /// The rid of the change's first row.
    pub rid: u64,
}

/// A row to write.
pub struct Plan {
    /// Whose key seals it.
    pub home: HomeKey,
    /// What it is.
    pub header: Header,
    /// Its text, compressed.
    pub body: Body,
}

impl Plan {
    /// How many rids this plan takes: one, and one for each attachment cut out of the text.
    #[must_use]
    pub fn rows(&self) -> u64 {
        1 + self.body.blobs() as u64
    }
}

/// Whose key seals a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HomeKey {
    /// One patient, by logical id; the slot is made at the first row that names the patient.
    Patient(String),
    /// Several patients (sorted ids): the resource gets a slot of its own.
    Fresh(Vec<String>),
    /// No patient: the organisation's shared rows ([`SHARED`]).
    Shared,
    /// A slot already known, for example that of the version before.
    Slot(u32),
}

/// The slot number of rows that belong to no patient.
pub const SHARED: u32 = 0;

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A version of a resource.
    Version = 1,
    /// A deletion; it has a version number and no text.
    Deleted = 2,
    /// Left under the old slot when the next version has another home.
    Left = 3,
    /// An attachment cut out of the row before it.
    Blob = 4,
}

/// The sealed header of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version, deletion, left row or attachment.
    pub kind: Kind,
    /// The resource type's number; 0x8000 and above are Keepwell's own documents.
    pub type_code: u16,
    /// Logical id, at most 64 bytes.
    pub id: String,
    /// Version number from 1.
    pub version: u32,
    /// The rid of the version before, 0 if none.
    pub prev: u64,
    /// `meta.lastUpdated` in milliseconds.
    pub last_updated: i64,
}

/// Where a planned row went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its number in the log.
    pub rid: u64,
    /// The slot whose key seals it: a small dense number, stable for the life of the data directory.
    pub slot: u32,
}

/// A row read back from the log.
pub struct Replayed {
    /// Its number in the log.
    pub rid: u64,
    /// Its slot.
    pub slot: u32,
    /// Its header.
    pub header: Header,
    /// The JSON text, with empty strings for attachments; empty for deletions and left rows.
    pub text: Vec<u8>,
}

//! What a request asks the one writer to do, and what it learns.

use crate::door::Row;
use crate::event::Access;
use crate::permit::Permit;
use crate::relation::Standing;
use keepwell_ledger::Body;
use keepwell_model::home::Home;
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_search::query::Query;
use keepwell_search::term::Extracted;
use std::sync::Arc;

/// One atomic change: all of it is committed, or none.
pub struct Change {
    /// Searches whose result the request was prepared on.
    pub(crate) guards: Vec<Guard>,
    /// Resources written.
    pub(crate) writes: Vec<Write>,
    /// An own document written.
    pub(crate) own: Option<OwnWrite>,
    /// Rows of patients whom the event is about beside what is written.
    pub(crate) about: Vec<Row>,
    /// The event that goes into the same commit.
    pub(crate) access: Access,
    /// What `decide` found, one for each write.
    pub(crate) decided: Vec<Option<Decided>>,
}

/// A search that must still find the same.
pub(crate) struct Guard {
    pub(crate) query: Query,
    pub(crate) permit: Arc<Permit>,
    /// The ids it found: none or one.
    pub(crate) found: Vec<String>,
}

/// One resource to write.
pub(crate) struct Write {
    pub(crate) resource_type: ResourceType,
    pub(crate) id: String,
    pub(crate) verb: Verb,
    /// Version of the head the request was authorised on; another one now means: prepare again.
    pub(crate) seen: Option<u32>,
    /// `If-Match`.
    pub(crate) if_match: Option<u32>,
    /// Body and what the index needs; none for a deletion.
    pub(crate) prepared: Option<Prepared>,
    /// How the actor stands to the patient it is about.
    pub(crate) standing: Standing,
    /// Position among the plans.
    pub(crate) place: Option<usize>,
    /// Position of the row left under the old home, and that home.
    pub(crate) left: Option<(usize, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Put,
    Delete,
}

/// Everything about a new version that does not need the writer.
pub(crate) struct Prepared {
    pub(crate) body: Body,
    pub(crate) home: Home,
    pub(crate) labels: u16,
    pub(crate) extracted: Extracted<'static>,
}

/// What the writer decided for one write.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    pub(crate) version: u32,
    pub(crate) prev: u64,
    pub(crate) old_home: Option<u32>,
    pub(crate) created: bool,
    pub(crate) last_updated: Timestamp,
}

/// An own document (account, token, ...) to write or, without a body, to delete.
pub(crate) struct OwnWrite {
    pub(crate) type_code: u16,
    pub(crate) id: String,
    pub(crate) body: Option<Body>,
    /// What must be there before.
    pub(crate) before: Before,
    pub(crate) version: u32,
    pub(crate) place: usize,
    pub(crate) deleted: bool,
}

/// What must be there before an own document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// Anything.
    Any,
    /// No such document.
    Absent,
    /// This version: it was read, and nobody else has written since.
    Version(u32),
}

/// Why the writer refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// The state the request was prepared on has moved: prepare again.
    Again,
    /// `If-Match` names another version, or a document exists already.
    Version,
}

/// One resource as written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its type.
    pub resource_type: ResourceType,
    /// Its id.
    pub id: String,
    /// Row of the new version; 0 where nothing was written.
    pub rid: u64,
    /// Version now.
    pub version: u32,
    /// When.
    pub last_updated: Timestamp,
    /// There was no current version before.
    pub created: bool,
    /// A row was written.
    pub changed: bool,
}

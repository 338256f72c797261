//! The sealed log: the only code that joins keys, tree and rows.
//!
//! A [`Ledger`] owns one data directory. Callers hand it *changes*; a single writer thread asks the [`Follower`] to
//! decide each change against the index, gives the rows their numbers, seals them, and commits rows, leaves and the
//! audit event together. Reading opens a row by its number. Everything searchable is derived: the follower's index is
//! rebuilt from the rows (or loaded from a sealed snapshot), never stored in the clear.
//!
//! What this crate does not know: FHIR types beyond a number, search, policy, HTTP.
//!
//! Formats: `docs/formats/{row,event,keyring,era,snapshot}.md`.
#![forbid(unsafe_code)]

pub mod body;
pub mod error;
pub mod event;
pub mod follower;
mod ledger;
pub mod verify;

pub use body::Body;
pub use error::{AppendError, EraseError, Notice, OpenError, ReadError, Unavailable};
pub use event::{Access, Event, Wait};
pub use follower::{Follower, Header, HomeKey, Kind, Placed, Plan, Replayed, SHARED, Turn};
pub use ledger::{Config, Erased, Ledger, Opened, Status};

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
mod compare;
mod core;
mod erase;
pub mod error;
pub mod event;
pub mod follower;
mod homes;
mod keeper;
mod ledger;
mod lookup;
mod proof;
mod replay;
mod rotate;
mod row;
mod snapshot;
mod start;
mod tiles;
mod varint;
pub mod verify;
mod writer;

pub use body::Body;
pub use erase::{Erasing, Redaction};
pub use error::{AppendError, EraseError, Notice, OpenError, ReadError, Unavailable};
pub use event::{Access, Event, Wait};
pub use follower::{Follower, Header, HomeKey, Kind, Placed, Plan, Replayed, SHARED, Turn};
/// Custody and process hardening, so that the binary need not link the vault.
pub use keepwell_vault::{Cost, Custodian, CustodyError, CustodyKind, KeyFile, Passphrase, RecoveryKey, harden};
pub use ledger::{Config, Erased, Ledger, Left, Opened, Reach, Status};

//! May they? Cedar policies decide every request to the record.
//!
//! The rules are files in `policies/` that a compliance officer can read; they are embedded in the binary, checked
//! strictly against `policies/schema.cedarschema` when the engine loads, and compared with a generated table
//! (`policies/authorization-table.txt`) and with decision cases (`policies/cases.txt`) in the tests.
//!
//! Deny is the default, and any evaluation error is a deny: Cedar alone would skip a `forbid` that fails.
//!
//! This crate is pure: no clock, no storage, no HTTP. It does not know which patient a row belongs to: `record` works
//! out the [`Relation`] and asks.
//!
//! To add a rule: write it in the `.cedar` file of its role, add a case, run the tests with
//! `KEEPWELL_BLESS=1`, and read the diff of the table.

mod classes;
mod engine;
mod question;
mod report;
mod request;
mod sources;

pub use classes::Classes;
pub use engine::{Decision, Engine, LoadError, Obligation};
pub use question::Question;
pub use report::{CASES, GOLDEN_TABLE, check, explain, run_cases, table};
pub use request::{Action, ActionGroup, Consent, Grant, Labels, Relation, Request, Target};
pub use sources::Sources;

//! The vocabulary of Keepwell: FHIR R4 types and their JSON, validation, homes, actors, time.
//!
//! This crate knows no storage, keys, HTTP or policy. Effects (clock, randomness) are traits given by the caller.

pub mod actor;
pub mod fhirpath;
pub mod home;
pub mod json;
pub mod narrative;
pub mod outcome;
pub mod patch;
pub mod redact;
pub mod reference;
pub mod schema;
pub mod time;
pub mod types;
pub mod uuid;

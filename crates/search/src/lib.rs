//! FHIR search: the official parameters, extraction, query parsing, and the index in memory.
//!
//! Pure: no I/O, no keys. `record` feeds the index from opened rows and asks it questions.

pub mod index;
pub mod query;
pub mod term;

//! FHIR search: the official parameters, extraction, query parsing, and the index in memory.
//!
//! Pure: no I/O, no keys. `record` feeds the index from opened rows and asks it questions.

mod date;
pub mod definition;
pub mod extract;
pub mod index;
mod number;
pub mod parse;
mod path;
pub mod query;
pub mod term;
pub mod terminology;

pub use date::range as date_range;

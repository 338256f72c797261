//! FHIR API, pages: translation only.
pub mod pages;

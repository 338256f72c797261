//! FHIR API, pages: translation only.

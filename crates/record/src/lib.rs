//! The one door to patient data: authorize, open, record, return.

//! The engine: the only module that names Cedar.

use std::sync::Arc;

use crate::request::Request;

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the act may happen.
    pub permit: bool,
    /// Why, in words for the access log and for `policy explain`; no patient data.
    pub reason: Arc<str>,
    /// The policies that decided (`@id`), sorted.
    pub policies: Vec<Arc<str>>,
    /// What the record must do when it goes ahead.
    pub obligations: Vec<Obligation>,
}

/// What a permit demands of the record beside the usual audit entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Obligation {
    /// The answer carries the notice of 42 CFR 2.32: no redisclosure without consent.
    Part2Notice,
    /// The access is to restricted data: wait for the audit entry to be fsynced before the answer leaves.
    SyncAudit,
}

/// The policies do not load: the server must not start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file does not parse.
    #[error("policy file `{file}` does not parse: {detail}")]
    Parse {
        /// Which.
        file: String,
        /// Cedar's message.
        detail: String,
    },
    /// A policy does not fit the schema.
    #[error("policies do not fit the schema: {0}")]
    Schema(String),
    /// The table of data classes is wrong.
    #[error("data classes: {0}")]
    Classes(String),
}

/// The loaded policies.
pub struct Engine {}

impl Engine {
    /// Loads the embedded policies.
    ///
    /// # Errors
    /// A policy does not parse, does not fit the schema, or a resource type has no data class.
    pub fn load() -> Result<Self, LoadError> {
        Ok(Self {})
    }

    /// Decides. Pure and deterministic: the answer may be cached under `request` until the policies change.
    #[must_use]
    pub fn decide(&self, _request: &Request) -> Decision {
        Decision { permit: false, reason: "no rule permits this".into(), policies: Vec::new(), obligations: Vec::new() }
    }

    /// Decides whether `request` could be permitted for some relation to a patient: the first gate of a search or
    /// history, before rows are asked for one by one.
    #[must_use]
    pub fn decide_for_any_relation(&self, request: &Request) -> Decision {
        self.decide(request)
    }
}

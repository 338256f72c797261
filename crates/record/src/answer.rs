//! What an interaction gives back: a result for a client, or a refusal with its reasons.

use keepwell_model::outcome::{Issue, Severity};
use keepwell_model::time::Timestamp;

/// The result of an interaction.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// HTTP status, 200 to 304.
    pub status: u16,
    /// JSON bytes; empty = no body.
    pub body: Vec<u8>,
    /// Version for `ETag`.
    pub version: Option<u32>,
    /// For `Last-Modified`.
    pub last_updated: Option<Timestamp>,
    /// `Type/id/_history/version`, for `Location`, below the base.
    pub location: Option<String>,
    /// Records of a Part 2 programme are in it: [`PART_2_NOTICE`] goes with the answer, whatever its form.
    pub part_2: bool,
}

/// The statement that accompanies a disclosure of substance use disorder records, 42 CFR 2.32(a)(2).
pub const PART_2_NOTICE: &str = "42 CFR part 2 prohibits unauthorized use or disclosure of these records.";

/// The same for an OperationOutcome.
pub(crate) fn part_2_issue() -> Issue {
    Issue {
        severity: Severity::Information,
        code: "informational",
        diagnostics: PART_2_NOTICE.to_owned(),
        expression: None,
    }
}

/// Why an interaction was refused. `status` and issues go to the client; they never hold patient data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused with status {status}")]
pub struct Refusal {
    /// HTTP status, 400 to 599.
    pub status: u16,
    /// Reasons.
    pub issues: Vec<Issue>,
}

impl Refusal {
    /// A refusal with one reason.
    #[must_use]
    pub fn new(status: u16, code: &'static str, text: impl Into<String>) -> Self {
        Self {
            status,
            issues: vec![Issue::error(code, text)],
        }
    }

    /// 404: there is no such resource, or none this actor may know of; the two look alike.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(404, "not-found", "there is no such resource here")
    }

    /// 410: the resource was deleted.
    #[must_use]
    pub fn gone() -> Self {
        Self::new(
            410,
            "deleted",
            "the resource was deleted; its history can still be read",
        )
    }

    /// 410: the pages of this search cannot be finished as of its moment.
    #[must_use]
    pub(crate) fn page_expired() -> Self {
        Self::new(
            410,
            "transient",
            "the record has changed so that this search's further pages would not be complete; search again",
        )
    }

    /// 403: the role does not allow it, whatever the patient.
    #[must_use]
    pub fn forbidden(reason: &str) -> Self {
        Self::new(403, "forbidden", reason.to_owned())
    }

    /// 503: nothing can be disclosed or changed now.
    #[must_use]
    pub fn unavailable(text: &str) -> Self {
        Self::new(503, "transient", text.to_owned())
    }

    /// 400 with issues.
    #[must_use]
    pub fn bad(issues: Vec<Issue>) -> Self {
        Self { status: 400, issues }
    }

    /// 412: `If-Match` names another version than the current one, or there is none.
    #[must_use]
    pub fn other_version() -> Self {
        Self::precondition("the current version is another one; read it and try again")
    }

    /// 412: a condition of the request does not hold.
    #[must_use]
    pub fn precondition(text: &str) -> Self {
        Self::new(412, "conflict", text.to_owned())
    }
}

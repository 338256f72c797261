//! Problems told to a client: the issues of an OperationOutcome.

use crate::json::{Value, object};
use std::borrow::Cow;

/// One issue of an OperationOutcome (R4 OperationOutcome.issue). Texts name elements and rules, never values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// How bad.
    pub severity: Severity,
    /// A code of the IssueType value set: `structure`, `required`, `value`, `invariant`, `not-found`, ...
    pub code: &'static str,
    /// What is wrong and the way out, in one sentence.
    pub diagnostics: String,
    /// FHIRPath of the faulty element, for example `Patient.name[0].given[1]`.
    pub expression: Option<String>,
}

/// IssueSeverity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For information.
    Information,
    /// May be wrong.
    Warning,
    /// Refused.
    Error,
    /// Could not be looked at.
    Fatal,
}

impl Issue {
    /// An error with a code and a sentence.
    #[must_use]
    pub fn error(code: &'static str, diagnostics: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            diagnostics: diagnostics.into(),
            expression: None,
        }
    }

    /// The same, pointing at an element.
    #[must_use]
    pub fn at(mut self, expression: impl Into<String>) -> Self {
        self.expression = Some(expression.into());
        self
    }
}

/// The OperationOutcome resource for `issues`.
#[must_use]
pub fn operation_outcome(issues: &[Issue]) -> Value<'static> {
    let list = issues
        .iter()
        .map(|i| {
            let mut v = object([
                (
                    "severity",
                    Value::from(match i.severity {
                        Severity::Information => "information",
                        Severity::Warning => "warning",
                        Severity::Error => "error",
                        Severity::Fatal => "fatal",
                    }),
                ),
                ("code", Value::from(i.code)),
                ("diagnostics", Value::from(i.diagnostics.clone())),
            ]);
            if let Some(e) = &i.expression {
                v.set("expression", Value::Array(vec![Value::String(Cow::Owned(e.clone()))]));
            }
            v
        })
        .collect();
    object([
        ("resourceType", Value::from("OperationOutcome")),
        ("issue", Value::Array(list)),
    ])
}

//! FHIRPath, as much of it as the invariants of the base definitions need and what comes nearly free beside
//! (<http://hl7.org/fhirpath/N1/>, with the FHIR functions of R4).
//!
//! An expression is parsed once ([`Expression::parse`]) and run many times. Evaluation streams: `a.b.where(c).exists()`
//! builds no collection and stops at the first hit, which is what keeps validation at a few microseconds.
//!
//! Deliberately missing, because nothing here may have effects or needs them: the clock (`now()`), terminology
//! (`memberOf`), profiles (`conformsTo`), unit conversion, regular expressions, and following references out of the
//! resource: `resolve()` finds contained resources only. [`ParseError::Unsupported`] names them before anything runs.
//! What the official test suite says is in `docs/validation.md`.

mod eval;
mod item;
mod number;
mod parse;
mod temporal;

pub(crate) use eval::Env;
pub use eval::EvalError;
pub use item::Item;
pub(crate) use item::Node;
pub use number::Decimal;
pub use temporal::Temporal;

use crate::json::Value;
use parse::Expr;

/// A parsed expression.
#[derive(Debug)]
pub struct Expression {
    root: Expr,
}

/// Why an expression was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not FHIRPath; the byte offset of the fault.
    #[error("the expression is not FHIRPath at byte {0}")]
    Syntax(usize),
    /// A function that this engine does not have.
    #[error("the function `{0}` is not supported")]
    Unsupported(String),
    /// More nesting than is reasonable.
    #[error("the expression is nested too deeply")]
    Depth,
    /// More operators, members and calls than is reasonable: a chain is as deep a tree as it is long.
    #[error("the expression has too many operators")]
    Long,
}

impl Expression {
    /// Parses an expression.
    ///
    /// # Errors
    /// [`ParseError`]
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Ok(Self {
            root: parse::parse(text)?,
        })
    }

    /// Evaluates on a resource.
    ///
    /// # Errors
    /// [`EvalError`], where FHIRPath says that evaluation ends with an error.
    pub fn evaluate<'v>(&self, resource: &'v Value<'v>) -> Result<Vec<Item<'v>>, EvalError> {
        let node = Node::resource(resource).ok_or(EvalError::Type)?;
        Env::new(node, node, node).eval(&self.root)
    }

    /// Evaluates to a truth value in `env`: `None` is "unknown" (an empty collection).
    pub(crate) fn test(&self, env: &Env) -> Result<Option<bool>, EvalError> {
        env.truth(&self.root)
    }
}

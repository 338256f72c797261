//! The invariants of the base definitions, compiled once.
//!
//! Some are held by the walk itself, because it is there anyway or because FHIRPath would be slow at it; the others run
//! as FHIRPath. What needs a function that the engine does not have is left out; [`coverage`] says which and why.

use super::table::{Run, TABLE};
use crate::fhirpath::{Env, EvalError, Expression};
use std::sync::LazyLock;

/// Held in code: by the walk in the parent module or by [`crate::narrative`].
const NATIVE: [&str; 9] = [
    "ele-1", "ext-1", "dom-2", "dom-3", "dom-4", "dom-5", "ref-1", "txt-1", "txt-2",
];

/// How an invariant is held.
pub(super) enum Check {
    /// By code elsewhere.
    Native,
    /// By its expression.
    Path(Box<Expression>),
    /// Not at all.
    LeftOut(String),
}

/// One per invariant of the table.
pub(super) static CHECKS: LazyLock<Vec<Check>> = LazyLock::new(|| {
    TABLE
        .invariants
        .iter()
        .map(|i| {
            if NATIVE.contains(&i.key) {
                return Check::Native;
            }
            match Expression::parse(i.expression) {
                Ok(e) => Check::Path(Box::new(e)),
                Err(e) => Check::LeftOut(e.to_string()),
            }
        })
        .collect()
});

/// A broken invariant.
pub(super) enum Broken {
    /// Its key and its words.
    Rule(&'static str, &'static str),
    /// It could not be evaluated within bounds.
    TooCostly,
}

/// Tests the invariants of `run` in `env`. `steps` is what validating the resource has cost so far: it is bounded as a
/// whole, since some invariants are quadratic and there may be many elements to test.
pub(super) fn test(run: Run, env: Env, steps: &mut u32, broken: &mut Vec<Broken>) {
    env.spent(*steps);
    for number in TABLE.invariant_numbers(run) {
        let number = usize::from(*number);
        let Some(Check::Path(expression)) = CHECKS.get(number) else {
            continue;
        };
        match expression.test(&env) {
            // Unknown is not broken: a period from 2012 to 2012-05 is in order.
            Ok(Some(true) | None) => {}
            Ok(Some(false)) => {
                if let Some(i) = TABLE.invariants.get(number) {
                    broken.push(Broken::Rule(i.key, i.human));
                }
            }
            Err(EvalError::TooCostly) => broken.push(Broken::TooCostly),
            // The expression does not fit what is there (two values where it expects one): nothing is proven.
            Err(EvalError::Type | EvalError::Several) => {}
        }
    }
    *steps = env.steps();
}

/// The list of invariants and how each is held, as `docs/validation.md` has it: `(key, expression, how)`.
#[must_use]
pub fn coverage() -> Vec<(&'static str, &'static str, String)> {
    TABLE
        .invariants
        .iter()
        .zip(CHECKS.iter())
        .map(|(i, check)| {
            let how = match check {
                Check::Native => "code".to_owned(),
                Check::Path(_) => "FHIRPath".to_owned(),
                Check::LeftOut(why) => format!("left out: {why}"),
            };
            (i.key, i.expression, how)
        })
        .collect()
}

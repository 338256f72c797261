//! Scopes as they are asked for: SMART v2 (`system/Observation.rs`) and v1 (`system/Observation.read`), narrowed to
//! what the client is registered for. What the role allows is decided at each use, by policy.

use keepwell_model::actor::{Interactions, Scope, ScopeContext};

use crate::token::SCOPES_MAX;

/// What may be asked for, in the manner of the SMART configuration.
pub const SCOPES_SUPPORTED: [&str; 3] = ["system/*.cruds", "system/*.read", "system/*.write"];

/// Reads one scope; v1 names become letters (SMART App Launch 2.2, "Scopes for requesting FHIR resources").
///
/// # Errors
/// Why not, in words that do not repeat it.
pub fn parse(text: &str) -> Result<Scope, &'static str> {
    if text.contains('?') {
        return Err("scopes with a query part (`?category=...`) are not offered");
    }
    let unknown = "a scope is written like system/Observation.rs";
    let (target, rights) = text.rsplit_once('.').ok_or(unknown)?;
    let letters = match rights {
        "read" => "rs",
        "write" => "cud",
        "*" => "cruds",
        letters => letters,
    };
    Scope::parse(&format!("{target}.{letters}")).ok_or(unknown)
}

/// What is left of `asked` for a client registered for `registered`: never more than either.
///
/// # Errors
/// Nothing is left, or one of them is not a scope.
pub fn narrow(asked: &str, registered: &[Scope]) -> Result<Vec<Scope>, &'static str> {
    let asked: Vec<&str> = asked.split(' ').filter(|s| !s.is_empty()).collect();
    if asked.is_empty() {
        return Err("name the scopes that are needed");
    }
    if asked.len() > SCOPES_MAX {
        return Err("too many scopes");
    }
    let mut granted: Vec<Scope> = Vec::new();
    for text in asked {
        let asked = parse(text)?;
        if asked.context != ScopeContext::System {
            return Err("a client that acts by itself asks for system/ scopes only");
        }
        for registered in registered.iter().filter(|r| r.context == asked.context) {
            let bits = asked.interactions.0 & registered.interactions.0;
            let resource_type = match (asked.resource_type, registered.resource_type) {
                (None, t) | (t, None) => t,
                (a, b) if a == b => a,
                _ => continue,
            };
            if bits == 0 {
                continue;
            }
            match granted.iter_mut().find(|g| g.resource_type == resource_type) {
                Some(g) => g.interactions.0 |= bits,
                None => granted.push(Scope {
                    context: asked.context,
                    resource_type,
                    interactions: Interactions(bits),
                }),
            }
        }
    }
    if granted.is_empty() {
        return Err("the client is registered for none of these scopes");
    }
    if granted.len() > SCOPES_MAX {
        return Err("too many scopes");
    }
    Ok(granted)
}

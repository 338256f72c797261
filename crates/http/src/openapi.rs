//! The published list of routes as OpenAPI 3.1: the FHIR API, the OAuth endpoints, the pages, health and readiness. What FHIR says better
//! (resource types, search parameters, profiles) stands in the CapabilityStatement.
//!
//! The list is made of [`OPEN`], [`crate::routes::ROUTES`], [`crate::oauth::ROUTES`] and [`crate::pages::ROUTES`]; the
//! first three are also what requests are dispatched by, the last is compared with the pages' router by a test (APP-14).

use crate::routes::{Interaction, ROUTES};
use crate::{HEALTH, READY, oauth, pages};
use keepwell_model::json::{Value, object};
use std::borrow::Cow;

/// What anybody may ask beside FHIR and the pages: path and meaning.
pub const OPEN: [(&str, &str); 2] = [
    (HEALTH, "Whether the process runs."),
    (READY, "Whether the record is open; 503 while it is not."),
];

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// Whoever has a bearer token; the policy decides.
    Token,
    /// A registered client, by an assertion in the form.
    Client,
    /// A registered client, or whoever has a bearer token; the policy decides.
    ClientOrToken,
    /// An identity provider, by a token it has signed.
    Provider,
    /// Whoever is signed in to the pages; the policy decides.
    Session,
}

/// A published route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// HTTP method; GET answers HEAD too.
    pub method: &'static str,
    /// Path with variables in braces.
    pub path: String,
    /// What it does, in a sentence.
    pub summary: String,
    /// Who may call it.
    pub access: Access,
    /// Members of the form it takes: name, whether required, meaning.
    pub form: &'static [(&'static str, bool, &'static str)],
}

/// Every route of the main listener.
#[must_use]
pub fn published() -> Vec<Published> {
    let open = OPEN.iter().map(|(path, summary)| Published {
        method: "GET",
        path: (*path).to_owned(),
        summary: (*summary).to_owned(),
        access: Access::Open,
        form: &[],
    });
    let oauth = oauth::ROUTES.iter().map(|r| Published {
        method: r.method,
        path: r.path.to_owned(),
        summary: r.summary.to_owned(),
        access: r.access,
        form: r.form,
    });
    let fhir = ROUTES.iter().map(|r| Published {
        method: r.method,
        path: if r.path == "/" {
            "/fhir".to_owned()
        } else {
            format!("/fhir{}", r.path)
        },
        summary: summary(r.interaction).to_owned(),
        access: match r.interaction {
            Interaction::Capabilities => Access::Open,
            _ => Access::Token,
        },
        form: &[],
    });
    let pages = pages::ROUTES.iter().map(|(method, path, needs)| Published {
        method,
        path: (*path).to_owned(),
        summary: format!("Page. Needs {needs}."),
        access: if needs.contains("session") {
            Access::Session
        } else {
            Access::Open
        },
        form: &[],
    });
    open.chain(oauth).chain(fhir).chain(pages).collect()
}

fn summary(interaction: Interaction) -> &'static str {
    use Interaction as I;
    match interaction {
        I::Capabilities => "The CapabilityStatement: types, interactions, search parameters.",
        I::Bundle => "Process a batch or transaction.",
        I::HistorySystem => "The history of everything.",
        I::HistoryType => "The history of a type.",
        I::HistoryInstance => "The history of a resource.",
        I::Search | I::SearchPost => "Search a type.",
        I::CompartmentSearch | I::CompartmentSearchPost => "Search a type within a compartment.",
        I::Create => "Create a resource, under `If-None-Exist` only if there is none.",
        I::Read => "Read a resource.",
        I::Vread => "Read a version of a resource.",
        I::Update => "Update a resource, or create it under this id.",
        I::Patch => "Change parts of a resource (JSON Patch).",
        I::Delete => "Delete a resource.",
        I::ConditionalUpdate => "Update the resource that a search finds.",
        I::ConditionalPatch => "Change parts of the resource that a search finds (JSON Patch).",
        I::ConditionalDelete => "Delete the resource that a search finds.",
        I::Validate => "Validate a resource without storing it.",
        I::Everything => "The whole record of a patient.",
        I::AccessLog => "Who looked at the record of a patient.",
        I::Provenance => "Who wrote each version of a resource.",
        I::BreakGlass => "Emergency access to a patient without a treatment relationship.",
        I::StateReason => "State a reason for a patient with whom a treatment relationship is plausible.",
        I::EndAccess => "End the own emergency access to a patient.",
        I::SignOn => "Sign on to units for a shift, or off.",
        I::LetCover => "Let a colleague cover for one's patients.",
    }
}

/// The operation's id: method and path in words, the same as long as the route is.
fn id(route: &Published) -> String {
    let mut out = route.method.to_ascii_lowercase();
    for part in route
        .path
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|p| !p.is_empty())
    {
        out.push('_');
        out.push_str(part);
    }
    out
}

fn text(value: impl Into<Cow<'static, str>>) -> Value<'static> {
    Value::String(value.into())
}

fn list(items: impl IntoIterator<Item = Value<'static>>) -> Value<'static> {
    Value::Array(items.into_iter().collect())
}

fn parameters(path: &str) -> Value<'static> {
    let names = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    list(names.map(|name| {
        object([
            ("name", text(name.to_owned())),
            ("in", text("path")),
            ("required", Value::Bool(true)),
            ("schema", object([("type", text("string"))])),
        ])
    }))
}

fn operation(route: &Published) -> Value<'static> {
    let is_oauth = oauth::ROUTES.iter().any(|r| r.path == route.path);
    let kind = if is_oauth {
        "application/json"
    } else if route.path.starts_with("/fhir") {
        "application/fhir+json"
    } else if OPEN.iter().any(|(p, _)| *p == route.path) {
        "text/plain"
    } else {
        "text/html"
    };
    let content = |kind: &'static str| object([(kind, object([("schema", object([]))]))]);
    let security = match route.access {
        Access::Open | Access::Client | Access::Provider => list([]),
        Access::ClientOrToken => list([object([]), object([("token", list([]))])]),
        Access::Token => list([object([("token", list([]))])]),
        Access::Session => list([object([("session", list([]))])]),
    };
    let otherwise = if is_oauth {
        "`error` and `error_description` (RFC 6749 5.2)."
    } else if route.path.starts_with("/fhir") {
        "An OperationOutcome."
    } else {
        "What went wrong."
    };
    let response = |name: &'static str, description: &'static str, content: Value<'static>| {
        let said = object([("description", text(description)), ("content", content)]);
        (Cow::Borrowed(name), said)
    };
    let mut responses = vec![response("2XX", "Done.", content(kind))];
    if kind == "text/html" {
        // To the page to go on with, or to the name that pages are read under: without a body.
        responses.push((
            Cow::Borrowed("3XX"),
            object([("description", text("Elsewhere: Location says where."))]),
        ));
    }
    responses.push(response("default", otherwise, content(kind)));
    let mut operation = vec![
        ("operationId", text(id(route))),
        ("summary", text(route.summary.clone())),
        ("security", security),
        ("parameters", parameters(&route.path)),
    ];
    if !route.form.is_empty() {
        operation.push(("requestBody", form(route.form)));
    }
    operation.push(("responses", Value::Object(responses)));
    members(operation)
}

pub(crate) fn members(members: Vec<(&'static str, Value<'static>)>) -> Value<'static> {
    Value::Object(members.into_iter().map(|(n, v)| (Cow::Borrowed(n), v)).collect())
}

/// The body of a route that takes a form.
fn form(takes: &'static [(&'static str, bool, &'static str)]) -> Value<'static> {
    let property = |meaning: &'static str| object([("type", text("string")), ("description", text(meaning))]);
    let schema = object([
        ("type", text("object")),
        (
            "required",
            list(
                takes
                    .iter()
                    .filter(|(_, required, _)| *required)
                    .map(|(name, ..)| text(*name)),
            ),
        ),
        (
            "properties",
            members(
                takes
                    .iter()
                    .map(|&(name, _, meaning)| (name, property(meaning)))
                    .collect(),
            ),
        ),
    ]);
    object([
        ("required", Value::Bool(true)),
        (
            "content",
            object([("application/x-www-form-urlencoded", object([("schema", schema)]))]),
        ),
    ])
}

/// The document.
#[must_use]
pub fn document() -> String {
    let mut paths: Vec<(Cow<'static, str>, Value<'static>)> = Vec::new();
    for route in &published() {
        let named = (Cow::Owned(route.method.to_ascii_lowercase()), operation(route));
        match paths.iter_mut().find(|(path, _)| *path == route.path) {
            Some((_, Value::Object(methods))) => methods.push(named),
            _ => paths.push((Cow::Owned(route.path.clone()), Value::Object(vec![named]))),
        }
    }
    let schemes = object([
        (
            "token",
            object([
                ("type", text("http")),
                ("scheme", text("bearer")),
                (
                    "description",
                    text("From `keepwell token`, or from /oauth/token for a registered client."),
                ),
            ]),
        ),
        (
            "session",
            object([
                ("type", text("apiKey")),
                ("in", text("cookie")),
                ("name", text("keepwell")),
                (
                    "description",
                    text("The pages' own cookie (`__Host-keepwell` over TLS); it opens no part of the API."),
                ),
            ]),
        ),
    ]);
    let doc = object([
        ("openapi", text("3.1.0")),
        (
            "info",
            object([
                ("title", text("Keepwell")),
                ("version", text(env!("CARGO_PKG_VERSION"))),
                (
                    "description",
                    text("Every route. The FHIR API is described further by GET /fhir/metadata."),
                ),
            ]),
        ),
        ("paths", Value::Object(paths)),
        ("components", object([("securitySchemes", schemes)])),
    ]);
    let mut out = String::new();
    doc.write_pretty(&mut out, 0);
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_is_in_the_document_once() {
        let document = document();
        let document = keepwell_model::json::parse(&document).unwrap();
        let paths = document.get("paths").unwrap();
        let mut ids = std::collections::HashSet::new();
        let routes = published();
        let lists = [OPEN.len(), oauth::ROUTES.len(), ROUTES.len(), pages::ROUTES.len()];
        assert_eq!(routes.len(), lists.iter().sum::<usize>());
        for route in &routes {
            let method = route.method.to_ascii_lowercase();
            let operation = paths.get(&route.path).and_then(|p| p.get(&method));
            let operation = operation.unwrap_or_else(|| panic!("{} {}", route.method, route.path));
            assert!(
                ids.insert(operation.str("operationId").unwrap().to_owned()),
                "{route:?}"
            );
            let variables = route.path.matches('{').count();
            assert_eq!(
                operation.get("parameters").and_then(Value::items).unwrap().len(),
                variables
            );
        }
    }

    /// Routes are made in two places: here and in the pages, whose own test compares them with their list.
    #[test]
    fn no_other_route_is_served() {
        let source = include_str!("lib.rs");
        let (served, _) = source.split_once("/// The metrics listener").unwrap();
        let routed: Vec<&str> = served
            .split(".route(")
            .skip(1)
            .filter_map(|rest| rest.split(',').next())
            .collect();
        // Everything below /fhir is dispatched by `routes::find`, what `oauth` answers by its own list: they know
        // nothing else.
        assert_eq!(routed, ["HEALTH", "READY"]);
        assert_eq!(served.matches("fhir::handle").count(), 1);
        assert_eq!(served.matches("oauth::handle").count(), 1);
        assert_eq!(served.matches("::handle").count(), 2);
        for other in ["nest", "fallback", "route_service"] {
            assert!(!served.contains(&format!(".{other}(")), "{other}");
        }
    }
}

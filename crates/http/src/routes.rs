//! Every route of the FHIR API: the dispatch, the CapabilityStatement's text and the published list come from here.

/// One route: method, path below the base, interaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// HTTP method; GET answers HEAD too.
    pub method: &'static str,
    /// Path below `/fhir`; `{type}`, `{id}`, `{vid}` stand for one segment.
    pub path: &'static str,
    /// What it does.
    pub interaction: Interaction,
    /// Segments of `path`.
    segments: usize,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are FHIR's own")]
pub enum Interaction {
    Capabilities,
    Bundle,
    HistorySystem,
    Search,
    Create,
    SearchPost,
    HistoryType,
    ConditionalUpdate,
    ConditionalPatch,
    ConditionalDelete,
    Validate,
    Read,
    Update,
    Patch,
    Delete,
    HistoryInstance,
    Vread,
    Everything,
    AccessLog,
    Provenance,
    BreakGlass,
    StateReason,
    EndAccess,
    SignOn,
    LetCover,
    CompartmentSearch,
    CompartmentSearchPost,
}

/// The list.
pub const ROUTES: &[Route] = &[
    route("GET", "/metadata", Interaction::Capabilities),
    route("POST", "/", Interaction::Bundle),
    route("GET", "/_history", Interaction::HistorySystem),
    route("POST", "/$validate", Interaction::Validate),
    route("POST", "/$sign-on", Interaction::SignOn),
    route("POST", "/$let-cover", Interaction::LetCover),
    route("GET", "/{type}", Interaction::Search),
    route("POST", "/{type}", Interaction::Create),
    route("PUT", "/{type}", Interaction::ConditionalUpdate),
    route("PATCH", "/{type}", Interaction::ConditionalPatch),
    route("DELETE", "/{type}", Interaction::ConditionalDelete),
    route("POST", "/{type}/_search", Interaction::SearchPost),
    route("GET", "/{type}/_history", Interaction::HistoryType),
    route("POST", "/{type}/$validate", Interaction::Validate),
    route("GET", "/Patient/{id}/$everything", Interaction::Everything),
    route("GET", "/Patient/{id}/$access-log", Interaction::AccessLog),
    route("POST", "/Patient/{id}/$break-glass", Interaction::BreakGlass),
    route("POST", "/Patient/{id}/$state-reason", Interaction::StateReason),
    route("POST", "/Patient/{id}/$end-access", Interaction::EndAccess),
    route("GET", "/{type}/{id}/$provenance", Interaction::Provenance),
    route("POST", "/{type}/{id}/$validate", Interaction::Validate),
    route("GET", "/{type}/{id}/_history", Interaction::HistoryInstance),
    route("GET", "/{type}/{id}/_history/{vid}", Interaction::Vread),
    route("GET", "/{type}/{id}", Interaction::Read),
    route("PUT", "/{type}/{id}", Interaction::Update),
    route("PATCH", "/{type}/{id}", Interaction::Patch),
    route("DELETE", "/{type}/{id}", Interaction::Delete),
    route("GET", "/{type}/{id}/{member}", Interaction::CompartmentSearch),
    route(
        "POST",
        "/{type}/{id}/{member}/_search",
        Interaction::CompartmentSearchPost,
    ),
];

const fn route(method: &'static str, path: &'static str, interaction: Interaction) -> Route {
    let bytes = path.as_bytes();
    // "/" is the base itself; every other path has a segment for each slash.
    let (mut segments, mut at) = (0, 0);
    while bytes.len() > 1 && at < bytes.len() {
        #[allow(
            clippy::indexing_slicing,
            reason = "evaluated by the compiler: out of range would not build"
        )]
        let slash = bytes[at] == b'/';
        segments += slash as usize;
        at += 1;
    }
    Route {
        method,
        path,
        interaction,
        segments,
    }
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'p> {
    /// A route, with the segments its variables stand for, in order.
    Route(Interaction, Vec<&'p str>),
    /// The path is known, the method is not offered there: these are.
    Method(Vec<&'static str>),
    /// No such path.
    Nothing,
}

/// Finds the route of a method and the path segments below the base (decoded; empty = the base itself).
#[must_use]
pub fn find<'p>(method: &str, segments: &[&'p str]) -> Found<'p> {
    let method = if method == "HEAD" { "GET" } else { method };
    let mut offered = Vec::new();
    for r in ROUTES.iter().filter(|r| r.segments == segments.len()) {
        if let Some(vars) = matches(r.path, segments) {
            if r.method == method {
                return Found::Route(r.interaction, vars);
            }
            if !offered.contains(&r.method) {
                offered.push(r.method);
            }
        }
    }
    if offered.is_empty() {
        Found::Nothing
    } else {
        Found::Method(offered)
    }
}

fn matches<'p>(pattern: &str, segments: &[&'p str]) -> Option<Vec<&'p str>> {
    let mut vars = Vec::new();
    let mut given = segments.iter();
    for part in pattern.split('/').filter(|p| !p.is_empty()) {
        let s = given.next()?;
        if part.starts_with('{') {
            // Names that start with _ or $ are never types, ids or versions.
            if s.starts_with(['_', '$']) || *s == "metadata" {
                return None;
            }
            vars.push(*s);
        } else if part != *s {
            return None;
        }
    }
    given.next().is_none().then_some(vars)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_the_table_says() {
        assert_eq!(
            find("GET", &["Patient", "1"]),
            Found::Route(Interaction::Read, vec!["Patient", "1"])
        );
        assert_eq!(
            find("HEAD", &["Patient", "1"]),
            Found::Route(Interaction::Read, vec!["Patient", "1"])
        );
        assert_eq!(find("POST", &[]), Found::Route(Interaction::Bundle, vec![]));
        assert_eq!(
            find("GET", &["Patient", "1", "$everything"]),
            Found::Route(Interaction::Everything, vec!["1"])
        );
        assert_eq!(find("TRACE", &["metadata"]), Found::Method(vec!["GET"]));
        assert_eq!(find("GET", &["Patient", "_search", "x", "y"]), Found::Nothing);
        assert!(matches!(find("BREW", &["Patient", "1"]), Found::Method(_)));
    }
}

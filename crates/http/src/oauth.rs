//! The OAuth 2.0 endpoints of registered clients (RFC 6749, 7009, 7523, 7662; SMART App Launch 2.2) and what tells a
//! client where they are. Translation only: `identity` decides.
//!
//! Secrets come in the body of a form and nowhere else: an address or a query string is written to logs and histories,
//! so that one with a query is refused. No answer may be stored. Pages of other sites get no CORS header.

use crate::App;
use crate::fhir::{bearer, check_host, media_type, network, read_body};
use crate::openapi::{Access, members as object_of};
use axum::body::Body;
use axum::http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, PRAGMA};
use axum::http::header::{WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use axum::http::request::Parts;
use axum::http::{Request, Response, StatusCode};
use keepwell_identity::oauth::{AssertedBy, Flaw, Introspected, SCOPES_SUPPORTED, TokenFault};
use keepwell_identity::sso::SsoFault;
use keepwell_identity::{Fault, Seen};
use keepwell_model::actor::Actor;
use keepwell_model::json::{Value, object};
use keepwell_record::parse_query;
use std::sync::Arc;

/// Largest form: an assertion, scopes and a token fit twice.
const FORM_BYTES: usize = 32 * 1024;
/// The only kind of client assertion (RFC 7523 2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Where clients get tokens; also the audience of their assertions.
pub const TOKEN: &str = "/oauth/token";
/// Where they ask about them.
pub const INTROSPECT: &str = "/oauth/introspect";
/// Where they void them.
pub const REVOKE: &str = "/oauth/revoke";

/// Where identity providers say that a session has ended (OpenID Connect Back-Channel Logout 1.0).
pub const BACK_CHANNEL_LOGOUT: &str = "/sso/back-channel-logout";

/// One route of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// HTTP method; GET answers HEAD too.
    pub method: &'static str,
    /// Path.
    pub path: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Members of its form: name, whether required, meaning.
    pub form: &'static [(&'static str, bool, &'static str)],
    does: Does,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Token,
    Introspect,
    Revoke,
    Configuration,
    Keys,
    SignOut,
}

const ASSERTION: &str = "A JWT signed by a registered key of the client, meant for the token endpoint.";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const CONFIGURATION: &str = "The SMART configuration: where the endpoints are and what they take.";

/// Every route; the published list takes it from here.
pub const ROUTES: &[Route] = &[
    Route {
        method: "POST",
        path: TOKEN,
        summary: "An access token of five minutes for a registered client.",
        access: Access::Client,
        form: &[
            ("grant_type", true, "client_credentials"),
            ("scope", true, "SMART scopes, separated by spaces."),
            ("client_assertion_type", true, ASSERTION_TYPE),
            ("client_assertion", true, ASSERTION),
            ("client_id", false, "The client's id, as in the assertion."),
        ],
        does: Does::Token,
    },
    Route {
        method: "POST",
        path: INTROSPECT,
        summary: "Whether a token is active and what it is for; a client learns about its own.",
        access: Access::ClientOrToken,
        form: &[
            ("token", true, "The token."),
            ("token_type_hint", false, "access_token"),
            ("client_assertion_type", false, ASSERTION_TYPE),
            ("client_assertion", false, ASSERTION),
            ("client_id", false, "The client's id, as in the assertion."),
        ],
        does: Does::Introspect,
    },
    Route {
        method: "POST",
        path: REVOKE,
        summary: "Void a token at once; a client voids its own.",
        access: Access::ClientOrToken,
        form: &[
            ("token", true, "The token."),
            ("token_type_hint", false, "access_token"),
            ("client_assertion_type", false, ASSERTION_TYPE),
            ("client_assertion", false, ASSERTION),
            ("client_id", false, "The client's id, as in the assertion."),
        ],
        does: Does::Revoke,
    },
    Route {
        method: "GET",
        path: "/.well-known/smart-configuration",
        summary: CONFIGURATION,
        access: Access::Open,
        form: &[],
        does: Does::Configuration,
    },
    Route {
        method: "GET",
        path: "/fhir/.well-known/smart-configuration",
        summary: CONFIGURATION,
        access: Access::Open,
        form: &[],
        does: Does::Configuration,
    },
    Route {
        method: "GET",
        path: "/.well-known/jwks.json",
        summary: "The public keys that verify this server's tokens.",
        access: Access::Open,
        form: &[],
        does: Does::Keys,
    },
    Route {
        method: "POST",
        path: BACK_CHANNEL_LOGOUT,
        summary: "An identity provider says that a session there has ended: those it has opened here end.",
        access: Access::Provider,
        form: &[("logout_token", true, "The provider's signed logout token.")],
        does: Does::SignOut,
    },
];

/// Whether a path is one of this module's.
pub(crate) fn is_ours(path: &str) -> bool {
    ROUTES.iter().any(|r| r.path == path)
}

/// An answer that is no success, by RFC 6749 5.2.
struct Refused {
    status: StatusCode,
    error: &'static str,
    description: &'static str,
}

fn refused(status: StatusCode, error: &'static str, description: &'static str) -> Refused {
    Refused {
        status,
        error,
        description,
    }
}

fn invalid_request(description: &'static str) -> Refused {
    refused(StatusCode::BAD_REQUEST, "invalid_request", description)
}

fn not_now() -> Refused {
    refused(
        StatusCode::SERVICE_UNAVAILABLE,
        "temporarily_unavailable",
        "the server cannot decide this now",
    )
}

/// Who the client is was not shown. One text for every flaw: which it was stands in the server's own log.
fn stranger() -> Refused {
    refused(
        StatusCode::UNAUTHORIZED,
        "invalid_client",
        "the client was not authenticated; the server's log says why, under the request id of this answer",
    )
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Forbidden(_) => refused(StatusCode::FORBIDDEN, "unauthorized_client", "this token is not yours"),
            Fault::Rule(rule) => invalid_request(rule),
            Fault::Unavailable(_) => not_now(),
            // Of people's own authenticators; nothing here asks for one.
            Fault::Weak(_) | Fault::Confirm => invalid_request("this needs a person at a page"),
        }
    }
}

/// Answers a request to one of [`ROUTES`].
pub(crate) async fn handle(app: &Arc<App>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let request_id = app.request_ids.give();
    let head = parts.method == "HEAD";
    let method = if head { "GET" } else { parts.method.as_str() };
    let here = ROUTES.iter().filter(|r| r.path == parts.uri.path());
    let route = here.clone().find(|r| r.method == method);
    let outcome = match route {
        Some(route) => run(app, route, &parts, body, &request_id).await,
        None => {
            let refusal = refused(
                StatusCode::METHOD_NOT_ALLOWED,
                "invalid_request",
                "this address does not take that method",
            );
            Err(refusal)
        }
    };
    let (status, value, challenge) = match outcome {
        Ok(value) => (StatusCode::OK, value, false),
        Err(r) => {
            let value = object([
                ("error", Value::from(r.error)),
                ("error_description", Value::from(r.description)),
            ]);
            (r.status, value, r.status == StatusCode::UNAUTHORIZED)
        }
    };
    // A revocation says nothing (RFC 7009 2.2).
    let text = if value == Value::Null {
        String::new()
    } else {
        value.to_string()
    };
    let mut response = Response::new(if head { Body::empty() } else { Body::from(text) });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    if challenge {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"oauth\""));
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allow: Vec<&str> = here
            .map(|r| if r.method == "GET" { "GET, HEAD" } else { r.method })
            .collect();
        if let Ok(allow) = HeaderValue::from_str(&allow.join(", ")) {
            headers.insert(ALLOW, allow);
        }
    }
    response
}

async fn run(
    app: &Arc<App>,
    route: &Route,
    parts: &Parts,
    body: Body,
    request_id: &str,
) -> Result<Value<'static>, Refused> {
    if check_host(app, parts).is_err() {
        let text = "this server does not answer under that name";
        return Err(refused(StatusCode::MISDIRECTED_REQUEST, "invalid_request", text));
    }
    match route.does {
        Does::Configuration => Ok(configuration(&app.origin)),
        Does::Keys => Ok(keys(app)),
        Does::SignOut => {
            let form = Form::read(parts, body).await?;
            let token = form.need("logout_token", "the form has no `logout_token`")?;
            let seen = Seen {
                request_id: request_id.to_owned(),
                network: network(parts),
            };
            match app.identity.sso_logout(token, &seen).await {
                Ok(ended) => {
                    tracing::info!(request = %seen.request_id, ended, "an identity provider has ended sessions");
                    Ok(Value::Null)
                }
                Err(SsoFault::Refused(flaw)) => {
                    tracing::info!(request = %seen.request_id, %flaw, "a logout token was refused");
                    let counted = app.strangers.count(app, seen.network).await;
                    counted.map_err(|_| not_now())?;
                    Err(invalid_request("the logout token is not accepted"))
                }
                Err(_) => Err(not_now()),
            }
        }
        Does::Token | Does::Introspect | Does::Revoke => {
            let form = Form::read(parts, body).await?;
            let seen = Seen {
                request_id: request_id.to_owned(),
                network: network(parts),
            };
            match route.does {
                Does::Token => token(app, parts, &form, &seen).await,
                Does::Introspect => {
                    let token = form.need("token", "the form has no `token`")?;
                    let by = caller(app, parts, &form, &seen).await?;
                    let said = app.identity.introspect(by, &seen, token).await?;
                    Ok(said.map_or_else(|| object([("active", Value::Bool(false))]), |s| introspected(&s)))
                }
                _ => {
                    let token = form.need("token", "the form has no `token`")?;
                    let by = caller(app, parts, &form, &seen).await?;
                    app.identity.revoke_presented(by, &seen, token).await?;
                    Ok(Value::Null)
                }
            }
        }
    }
}

/// The members of a form, each at most once. Not `Debug`: it holds tokens and assertions.
struct Form(Vec<(String, String)>);

impl Form {
    async fn read(parts: &Parts, body: Body) -> Result<Self, Refused> {
        if parts.uri.query().is_some() {
            return Err(invalid_request(
                "send everything in the form: addresses are written to logs",
            ));
        }
        if media_type(&parts.headers) != "application/x-www-form-urlencoded" {
            return Err(invalid_request(
                "send a form: Content-Type application/x-www-form-urlencoded",
            ));
        }
        let bytes = read_body(FORM_BYTES, &parts.headers, body).await.map_err(|e| {
            let status = StatusCode::from_u16(e.status).unwrap_or(StatusCode::BAD_REQUEST);
            refused(
                status,
                "invalid_request",
                "the form could not be read: too large, too slow or broken off",
            )
        })?;
        let text = std::str::from_utf8(&bytes).map_err(|_| invalid_request("the form is not UTF-8"))?;
        let members = parse_query(text).map_err(|_| invalid_request("the form could not be read"))?;
        let mut rest = members.iter();
        while let Some((name, _)) = rest.next() {
            if rest.clone().any(|(other, _)| other == name) {
                return Err(invalid_request("a member of the form stands twice"));
            }
        }
        Ok(Self(members))
    }

    /// A member that is there and not empty (RFC 6749 3.2: an empty one counts as left out).
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(n, _)| n == name);
        found.map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    fn need(&self, name: &str, otherwise: &'static str) -> Result<&str, Refused> {
        self.get(name).ok_or_else(|| invalid_request(otherwise))
    }
}

async fn token(app: &Arc<App>, parts: &Parts, form: &Form, seen: &Seen) -> Result<Value<'static>, Refused> {
    match form.need("grant_type", "the form has no `grant_type`")? {
        "client_credentials" => {}
        _ => {
            return Err(refused(
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "the only grant is client_credentials",
            ));
        }
    }
    if parts.headers.contains_key(AUTHORIZATION) {
        return Err(unproven(app, seen, Flaw::Missing).await);
    }
    let audience = format!("{}{TOKEN}", app.origin);
    let Some(by) = asserted(form, &audience) else {
        return Err(unproven(app, seen, Flaw::Missing).await);
    };
    let asked = form.get("scope").unwrap_or_default();
    match app.identity.client_token(by, asked, seen).await {
        Ok(answered) => Ok(object([
            ("access_token", Value::from(answered.token)),
            ("token_type", Value::from("Bearer")),
            ("expires_in", number(answered.expires_in)),
            ("scope", Value::from(answered.scope)),
        ])),
        Err(fault) => Err(token_fault(app, seen, fault).await),
    }
}

async fn token_fault(app: &Arc<App>, seen: &Seen, fault: TokenFault) -> Refused {
    match fault {
        TokenFault::Client(flaw) => unproven(app, seen, flaw).await,
        TokenFault::Scope(text) => refused(StatusCode::BAD_REQUEST, "invalid_scope", text),
        TokenFault::TooMany => refused(
            StatusCode::TOO_MANY_REQUESTS,
            "temporarily_unavailable",
            "too many assertions: a token lasts five minutes, use it that long",
        ),
        TokenFault::Unavailable => not_now(),
    }
}

/// Nobody was authenticated: counted, and in the log of accesses like any stranger. The server's own log says why.
async fn unproven(app: &Arc<App>, seen: &Seen, flaw: Flaw) -> Refused {
    tracing::info!(request = %seen.request_id, %flaw, "a client was not authenticated");
    app.metrics.count_refused_token();
    match app.strangers.count(app, seen.network.clone()).await {
        Ok(()) => stranger(),
        Err(_) => not_now(),
    }
}

/// The assertion of a form; `None` unless it is the only way of authentication there.
fn asserted<'a>(form: &'a Form, audience: &'a str) -> Option<AssertedBy<'a>> {
    let secret = form.get("client_secret").is_some();
    let assertion = form.get("client_assertion")?;
    if secret || form.get("client_assertion_type") != Some(JWT_BEARER) {
        return None;
    }
    Some(AssertedBy {
        assertion,
        client_id: form.get("client_id"),
        audience,
    })
}

/// Who asks about a token: a client by an assertion, or the bearer of another token, whom policy judges.
async fn caller(app: &Arc<App>, parts: &Parts, form: &Form, seen: &Seen) -> Result<Arc<Actor>, Refused> {
    let asserts = form.get("client_assertion").is_some() || form.get("client_secret").is_some();
    if parts.headers.contains_key(AUTHORIZATION) {
        return match bearer(&parts.headers).map(|t| app.identity.bearer(t)) {
            Some(Ok(actor)) if !asserts => Ok(actor),
            _ => Err(unproven(app, seen, Flaw::Missing).await),
        };
    }
    let audience = format!("{}{TOKEN}", app.origin);
    let Some(by) = asserted(form, &audience) else {
        return Err(unproven(app, seen, Flaw::Missing).await);
    };
    match app.identity.authenticate_client(by, seen).await {
        Ok(actor) => Ok(actor),
        Err(fault) => Err(token_fault(app, seen, fault).await),
    }
}

fn number(n: i64) -> Value<'static> {
    Value::Number(n.to_string().into())
}

fn introspected(said: &Introspected) -> Value<'static> {
    let c = said.claims.clone();
    let mut members = vec![
        ("active", Value::Bool(true)),
        ("token_type", Value::from("Bearer")),
        ("scope", Value::from(c.scope)),
        ("sub", Value::from(c.sub)),
        ("iss", Value::from(c.iss)),
        ("aud", Value::from(c.aud)),
        ("jti", Value::from(c.jti)),
        ("iat", number(c.iat)),
        ("exp", number(c.exp)),
    ];
    members.extend(c.client_id.map(|id| ("client_id", Value::from(id))));
    members.extend(c.patient.map(|id| ("patient", Value::from(id))));
    object_of(members)
}

fn list(items: impl IntoIterator<Item = &'static str>) -> Value<'static> {
    Value::Array(items.into_iter().map(Value::from).collect())
}

/// What works, and nothing else (<https://hl7.org/fhir/smart-app-launch/conformance.html>).
fn configuration(origin: &str) -> Value<'static> {
    let at = |path: &str| Value::from(format!("{origin}{path}"));
    let methods = || list(["private_key_jwt"]);
    let algorithms = || list(["RS384", "ES384", "EdDSA"]);
    object([
        ("jwks_uri", at("/.well-known/jwks.json")),
        ("token_endpoint", at(TOKEN)),
        ("token_endpoint_auth_methods_supported", methods()),
        ("token_endpoint_auth_signing_alg_values_supported", algorithms()),
        ("grant_types_supported", list(["client_credentials"])),
        ("scopes_supported", list(SCOPES_SUPPORTED)),
        ("introspection_endpoint", at(INTROSPECT)),
        ("introspection_endpoint_auth_methods_supported", methods()),
        ("introspection_endpoint_auth_signing_alg_values_supported", algorithms()),
        ("revocation_endpoint", at(REVOKE)),
        ("revocation_endpoint_auth_methods_supported", methods()),
        ("revocation_endpoint_auth_signing_alg_values_supported", algorithms()),
        (
            "capabilities",
            list(["client-confidential-asymmetric", "permission-v1", "permission-v2"]),
        ),
    ])
}

fn keys(app: &App) -> Value<'static> {
    let keys = app.identity.verification_keys().into_iter().map(|k| {
        object([
            ("kty", Value::from("OKP")),
            ("crv", Value::from("Ed25519")),
            ("alg", Value::from("EdDSA")),
            ("use", Value::from("sig")),
            ("kid", Value::from(k.kid)),
            ("x", Value::from(k.x)),
        ])
    });
    object([("keys", Value::Array(keys.collect()))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_served_routes_only() {
        let said = configuration("https://clinic.example:8443");
        let Value::Object(members) = &said else {
            panic!("an object");
        };
        let mut named = 0;
        for (name, value) in members {
            if let Some(path) = value
                .as_str()
                .and_then(|v| v.strip_prefix("https://clinic.example:8443"))
            {
                assert!(is_ours(path), "{name}");
                named += 1;
            }
        }
        assert_eq!(named, 4);
    }

    #[test]
    fn members_of_a_form_that_are_empty_count_as_left_out() {
        let form = Form(vec![("a".to_owned(), String::new()), ("b".to_owned(), "1".to_owned())]);
        assert_eq!((form.get("a"), form.get("b"), form.get("c")), (None, Some("1"), None));
    }

    #[test]
    fn an_assertion_beside_a_secret_is_none() {
        let form = |members: &[(&str, &str)]| {
            Form(
                members
                    .iter()
                    .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                    .collect(),
            )
        };
        let kind = ("client_assertion_type", JWT_BEARER);
        assert!(asserted(&form(&[kind, ("client_assertion", "a.b.c")]), "x").is_some());
        assert!(asserted(&form(&[("client_assertion", "a.b.c")]), "x").is_none());
        assert!(
            asserted(
                &form(&[kind, ("client_assertion", "a.b.c"), ("client_secret", "s")]),
                "x"
            )
            .is_none()
        );
    }
}

//! Responses: headers every answer has, OperationOutcomes for every error.

use axum::body::Body;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LAST_MODIFIED, LOCATION, WWW_AUTHENTICATE,
};
use axum::http::{Response, StatusCode};
use keepwell_model::outcome::{Issue, operation_outcome};
use keepwell_record::{Answer, PART_2_NOTICE, Refusal};

/// The media type of every FHIR answer.
pub(crate) const FHIR_JSON: &str = "application/fhir+json; charset=utf-8";

/// Carries the notice that a disclosure owes (42 CFR 2.32): a single resource must come back as it was stored, so that
/// the notice cannot stand in its body.
const DISCLOSURE_NOTICE: HeaderName = HeaderName::from_static("disclosure-notice");

/// How the client wants its answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Form {
    /// `_pretty=true`
    pub(crate) pretty: bool,
    /// The request was HEAD.
    pub(crate) head: bool,
}

fn base(status: u16, request_id: &str) -> Response<Body> {
    let mut r = Response::new(Body::empty());
    *r.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let h = r.headers_mut();
    h.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    h.insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    if let Ok(v) = HeaderValue::from_str(request_id) {
        h.insert(HeaderName::from_static("x-request-id"), v);
    }
    r
}

/// The answer of an interaction.
pub(crate) fn answer(a: Answer, fhir_base: &str, request_id: &str, form: &Form) -> Response<Body> {
    let mut r = base(a.status, request_id);
    let h = r.headers_mut();
    if let Some(v) = a.version
        && let Ok(tag) = HeaderValue::from_str(&format!("W/\"{v}\""))
    {
        h.insert(ETAG, tag);
    }
    if let Some(at) = a.last_updated
        && let Ok(v) = HeaderValue::from_str(&at.http_date())
    {
        h.insert(LAST_MODIFIED, v);
    }
    if let Some(l) = &a.location
        && let Ok(v) = HeaderValue::from_str(&format!("{fhir_base}/{l}"))
    {
        h.insert(LOCATION, v);
    }
    if a.part_2 {
        h.insert(DISCLOSURE_NOTICE, HeaderValue::from_static(PART_2_NOTICE));
    }
    if !a.body.is_empty() {
        h.insert(CONTENT_TYPE, HeaderValue::from_static(FHIR_JSON));
        let body = if form.pretty { pretty(a.body) } else { a.body };
        if !form.head {
            *r.body_mut() = Body::from(body);
        }
    }
    r
}

fn pretty(body: Vec<u8>) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(&body) else {
        return body;
    };
    match keepwell_model::json::parse(text) {
        Ok(v) => {
            let mut out = String::with_capacity(body.len() * 2);
            v.write_pretty(&mut out, 0);
            out.push('\n');
            out.into_bytes()
        }
        Err(_) => body,
    }
}

/// A refusal as an OperationOutcome.
pub(crate) fn refusal(e: &Refusal, request_id: &str, form: &Form) -> Response<Body> {
    let mut r = base(e.status, request_id);
    let h = r.headers_mut();
    h.insert(CONTENT_TYPE, HeaderValue::from_static(FHIR_JSON));
    if e.status == 401 {
        h.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"fhir\""));
    }
    let body = operation_outcome(&e.issues).to_string().into_bytes();
    if !form.head {
        *r.body_mut() = Body::from(if form.pretty { pretty(body) } else { body });
    }
    r
}

/// 405 with what is offered.
pub(crate) fn not_allowed(offered: &[&str], request_id: &str, form: &Form) -> Response<Body> {
    let issue = Issue::error(
        "not-supported",
        "this path does not take that method; `Allow` lists those it takes",
    );
    let mut r = refusal(
        &Refusal {
            status: 405,
            issues: vec![issue],
        },
        request_id,
        form,
    );
    let mut allow = offered.join(", ");
    if offered.contains(&"GET") {
        allow.push_str(", HEAD");
    }
    if let Ok(v) = HeaderValue::from_str(&allow) {
        r.headers_mut().insert(ALLOW, v);
    }
    r
}

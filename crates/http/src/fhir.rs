//! The FHIR R4 API over HTTP: <https://hl7.org/fhir/R4/http.html>.
//!
//! Takes a request apart, calls one method of the door, puts the answer together. Bodies are bounded in size and in
//! time; content codings are refused, so that no body grows after it was counted.

use crate::respond::{self, Form};
use crate::routes::{Found, Interaction, find};
use crate::{App, oauth};
use axum::body::Body;
use axum::extract::State;
use axum::extract::connect_info::ConnectInfo;
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use keepwell_model::actor::{Actor, Context, EntryPath, Place, PurposeOfUse, Role};
use keepwell_model::time::{Timestamp, days_from_civil};
use keepwell_model::types::ResourceType;
use keepwell_record::Summary;
use keepwell_record::{
    Answer, CURSOR, EverythingOptions, HistoryOf, HistoryOptions, OAuthUris, ReadOptions, Refusal, Return,
    SearchRequest, Selector, View, is_id, parse_etag, parse_query, percent_decode, percent_encode,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest silence while a body is being sent.
const BODY_SILENCE: Duration = Duration::from_secs(20);

/// A body may take this long whatever its size, and longer at this many bytes a second: one byte at a time is no body.
const BODY_START: Duration = Duration::from_secs(20);
const BODY_RATE: u64 = 1000;

/// `/health`: the process runs.
pub async fn health() -> &'static str {
    "ok\n"
}

/// `/ready`: the record is open and takes requests.
pub async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    if app.ready.load(Ordering::Acquire) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

/// Everything under `/fhir`.
pub async fn handle(app: &Arc<App>, request: Request<Body>) -> Response<Body> {
    let started = std::time::Instant::now();
    let (parts, body) = request.into_parts();
    let request_id = app.request_ids.give();
    let mut form = Form {
        pretty: false,
        head: parts.method == "HEAD",
    };
    let mut interaction = None;
    let done = dispatch(app, &parts, body, &request_id, &mut form, &mut interaction).await;
    let response = match done {
        Ok(Done::Answer(a)) => respond::answer(a, &format!("{}/fhir", app.origin), &request_id, &form),
        Ok(Done::NotAllowed(offered)) => respond::not_allowed(&offered, &request_id, &form),
        Err(e) => respond::refusal(&e, &request_id, &form),
    };
    if let Some(i) = interaction {
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        app.metrics.count(i, response.status().as_u16(), micros);
        tracing::debug!(request = %request_id, interaction = ?i, status = response.status().as_u16(), micros, "fhir");
    }
    response
}

enum Done {
    Answer(Answer),
    NotAllowed(Vec<&'static str>),
}

fn bad(text: &str) -> Refusal {
    Refusal::new(400, "invalid", text)
}

async fn dispatch(
    app: &Arc<App>,
    parts: &Parts,
    body: Body,
    request_id: &str,
    form: &mut Form,
    interaction: &mut Option<Interaction>,
) -> Result<Done, Refusal> {
    check_host(app, parts)?;
    let path = parts.uri.path().strip_prefix("/fhir").unwrap_or_default();
    let mut decoded = Vec::new();
    for s in path.split('/').filter(|s| !s.is_empty()) {
        // In a path `+` is itself.
        decoded.push(percent_decode(&s.replace('+', "%2B")).map_err(bad)?);
    }
    let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
    let mut params = parse_query(parts.uri.query().unwrap_or_default()).map_err(bad)?;
    take_form(&mut params, &parts.headers, form)?;
    let found = find(parts.method.as_str(), &segments);
    // The CapabilityStatement is the one thing a stranger may read.
    if matches!(found, Found::Route(Interaction::Capabilities, _)) {
        *interaction = Some(Interaction::Capabilities);
        let body = app.door.capabilities(
            &format!("{}/fhir", app.origin),
            &OAuthUris {
                token: format!("{}{}", app.origin, oauth::TOKEN),
                introspect: format!("{}{}", app.origin, oauth::INTROSPECT),
                revoke: format!("{}{}", app.origin, oauth::REVOKE),
            },
        );
        return Ok(Done::Answer(Answer {
            status: 200,
            body,
            ..Answer::default()
        }));
    }
    let actor = authenticate(app, parts).await?;
    let (kind, vars) = match found {
        Found::Route(kind, vars) => (kind, vars),
        Found::Method(offered) => return Ok(Done::NotAllowed(offered)),
        Found::Nothing => return Err(Refusal::new(404, "not-found", "there is nothing at this path")),
    };
    *interaction = Some(kind);
    let ctx = context(app, parts, actor, request_id);
    let base = format!("{}/fhir", app.origin);
    run(app, parts, body, &ctx, kind, &vars, params, &base)
        .await
        .map(Done::Answer)
}

/// A name that is not this server's means a rebound DNS name or a stray request.
pub(crate) fn check_host(app: &App, parts: &Parts) -> Result<(), Refusal> {
    let host = parts
        .headers
        .get(HOST)
        .and_then(|h| h.to_str().ok())
        .or_else(|| parts.uri.authority().map(axum::http::uri::Authority::as_str));
    let Some(host) = host else {
        return Err(bad("the request names no host"));
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    if app.hosts.iter().any(|h| h.eq_ignore_ascii_case(name)) {
        Ok(())
    } else {
        Err(Refusal::new(
            421,
            "invalid",
            "this server does not answer under that name",
        ))
    }
}

/// `_format`, `_pretty` and `Accept`: JSON is spoken here.
fn take_form(params: &mut Vec<(String, String)>, headers: &HeaderMap, form: &mut Form) -> Result<(), Refusal> {
    let not_json = || Refusal::new(406, "not-supported", "only JSON is offered: application/fhir+json");
    let mut format = None;
    params.retain(|(name, value)| match name.as_str() {
        "_format" => {
            format = Some(value.clone());
            false
        }
        "_pretty" => {
            form.pretty = value == "true";
            false
        }
        _ => true,
    });
    let is_json = |t: &str| {
        let t = t.split(';').next().unwrap_or_default().trim().replace(' ', "+");
        matches!(
            t.as_str(),
            "json" | "application/json" | "application/fhir+json" | "text/json" | "*/*" | "application/*"
        )
    };
    if let Some(f) = format {
        return if is_json(&f) { Ok(()) } else { Err(not_json()) };
    }
    let Some(accept) = headers.get(ACCEPT).and_then(|a| a.to_str().ok()) else {
        return Ok(());
    };
    let wants: Vec<&str> = accept.split(',').map(str::trim).filter(|t| !t.is_empty()).collect();
    // A browser asks for HTML and takes anything.
    if wants.is_empty() || wants.iter().any(|t| is_json(t)) {
        Ok(())
    } else {
        Err(not_json())
    }
}

/// The bearer token of a request.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(AUTHORIZATION)
        .and_then(|h| h.to_str().ok())
        .and_then(|h| h.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, t)| t.trim())
}

async fn authenticate(app: &Arc<App>, parts: &Parts) -> Result<Arc<Actor>, Refusal> {
    if let Some(token) = bearer(&parts.headers)
        && let Ok(actor) = app.identity.bearer(token)
    {
        return Ok(actor);
    }
    app.metrics.count_refused_token();
    app.strangers.count(app, network(parts)).await?;
    Err(Refusal::new(
        401,
        "login",
        "a valid bearer token is needed: `Authorization: Bearer ...`; `keepwell token` issues one",
    ))
}

pub(crate) fn network(parts: &Parts) -> String {
    parts
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or_else(String::new, |c| c.0.ip().to_string())
}

fn context(app: &App, parts: &Parts, actor: Arc<Actor>, request_id: &str) -> Context {
    let purpose = match actor.role {
        Role::Patient => PurposeOfUse::PatientRequest,
        Role::Billing => PurposeOfUse::Payment,
        Role::FrontDesk | Role::RecordsClerk | Role::PrivacyOfficer => PurposeOfUse::Operations,
        Role::SecurityOfficer | Role::Administrator => PurposeOfUse::SystemAdministration,
        Role::Physician | Role::Nurse | Role::Service => PurposeOfUse::Treatment,
    };
    Context {
        actor,
        purpose,
        entry: EntryPath::Api,
        request_id: request_id.to_owned(),
        network: network(parts),
        device: String::new(),
        unit: String::new(),
        roster: String::new(),
        reason: String::new(),
        print: false,
        place: Place::Unknown,
        export: false,
        at: app.door.clock().now(),
    }
}

#[allow(clippy::too_many_arguments, reason = "one request's parts, used once")]
async fn run(
    app: &Arc<App>,
    parts: &Parts,
    body: Body,
    ctx: &Context,
    kind: Interaction,
    vars: &[&str],
    params: Vec<(String, String)>,
    base: &str,
) -> Result<Answer, Refusal> {
    use Interaction as I;
    let door = &app.door;
    let headers = &parts.headers;
    let want = preferred_return(headers);
    let lenient = prefers(headers, "handling", "lenient");
    let type_at = |i: usize| {
        let name = vars.get(i).copied().unwrap_or_default();
        ResourceType::from_name(name)
            .ok_or_else(|| Refusal::new(404, "not-supported", "that is not a resource type of FHIR R4"))
    };
    // What is no id is the id of nothing.
    let id_at = |i: usize| {
        let id = vars.get(i).copied().unwrap_or_default();
        if is_id(id) { Ok(id) } else { Err(Refusal::not_found()) }
    };
    match kind {
        I::Capabilities => Ok(Answer::default()),
        I::Bundle => {
            no_params(&params)?;
            let bytes = json_body(app, headers, body).await?;
            Box::pin(door.bundle(ctx, &bytes, want, base)).await
        }
        I::Read => {
            let mut options = ReadOptions {
                version: None,
                if_none_match: header(headers, "if-none-match").and_then(parse_etag),
                if_modified_since: header(headers, "if-modified-since").and_then(parse_http_date),
                view: View::default(),
            };
            options.view = view(&params)?;
            door.read(ctx, type_at(0)?, id_at(1)?, &options).await
        }
        I::Vread => {
            let version = vars
                .get(2)
                .and_then(|v| v.parse().ok())
                .ok_or_else(Refusal::not_found)?;
            let options = ReadOptions {
                version: Some(version),
                view: view(&params)?,
                ..ReadOptions::default()
            };
            door.read(ctx, type_at(0)?, id_at(1)?, &options).await
        }
        I::Create => {
            no_params(&params)?;
            let t = type_at(0)?;
            let condition = header(headers, "if-none-exist")
                .map(|q| parse_query(q.split_once('?').map_or(q, |(_, q)| q)).map_err(bad))
                .transpose()?;
            let bytes = json_body(app, headers, body).await?;
            Box::pin(door.create(ctx, t, &bytes, condition.as_deref(), want)).await
        }
        I::Update | I::ConditionalUpdate => {
            let t = type_at(0)?;
            let if_match = if_match(headers)?;
            let selector = if kind == I::Update {
                no_params(&params)?;
                let id = vars.get(1).copied().unwrap_or_default();
                if !is_id(id) {
                    return Err(bad("an id has 1 to 64 letters, digits, '-' or '.'"));
                }
                Selector::Id(id)
            } else {
                Selector::Search(&params)
            };
            let bytes = json_body(app, headers, body).await?;
            Box::pin(door.update(ctx, t, &selector, &bytes, if_match, want)).await
        }
        I::Patch | I::ConditionalPatch => {
            let t = type_at(0)?;
            let if_match = if_match(headers)?;
            let selector = match kind {
                I::Patch => Selector::Id(id_at(1)?),
                _ => Selector::Search(&params),
            };
            let media = media_type(headers);
            if media != "application/json-patch+json" {
                return Err(Refusal::new(
                    415,
                    "not-supported",
                    "a patch is a JSON Patch: Content-Type application/json-patch+json",
                ));
            }
            let bytes = read_body(app.body_max, headers, body).await?;
            Box::pin(door.patch(ctx, t, &selector, &bytes, if_match, want)).await
        }
        I::Delete | I::ConditionalDelete => {
            let t = type_at(0)?;
            let if_match = if_match(headers)?;
            let selector = match kind {
                I::Delete => Selector::Id(id_at(1)?),
                _ => Selector::Search(&params),
            };
            Box::pin(door.delete(ctx, t, &selector, if_match)).await
        }
        I::Search | I::SearchPost | I::CompartmentSearch | I::CompartmentSearchPost => {
            let mut params = params;
            if matches!(kind, I::SearchPost | I::CompartmentSearchPost) {
                if media_type(headers) != "application/x-www-form-urlencoded" {
                    return Err(Refusal::new(
                        415,
                        "not-supported",
                        "_search takes Content-Type application/x-www-form-urlencoded",
                    ));
                }
                let bytes = read_body(app.body_max, headers, body).await?;
                let text = std::str::from_utf8(&bytes).map_err(|_| bad("the form is not UTF-8"))?;
                params.extend(parse_query(text).map_err(bad)?);
                take_form(&mut params, &HeaderMap::new(), &mut Form::default())?;
            }
            let (t, compartment) = match kind {
                I::CompartmentSearch | I::CompartmentSearchPost => (type_at(2)?, Some((type_at(0)?, id_at(1)?))),
                _ => (type_at(0)?, None),
            };
            let request = SearchRequest {
                resource_type: t,
                compartment,
                params: &params,
                lenient,
                base,
            };
            door.search(ctx, &request).await
        }
        I::HistoryInstance | I::HistoryType | I::HistorySystem => {
            let options = history_options(&params)?;
            let of = match kind {
                I::HistoryInstance => HistoryOf::Instance(type_at(0)?, id_at(1)?),
                I::HistoryType => HistoryOf::Type(type_at(0)?),
                _ => HistoryOf::System,
            };
            door.history(ctx, of, &options, base).await
        }
        I::Everything => {
            let options = everything_options(&params)?;
            door.everything(ctx, id_at(0)?, &options, base).await
        }
        I::AccessLog => {
            let mut count = None;
            for (name, value) in &params {
                match name.as_str() {
                    "_count" => count = Some(value.parse().map_err(|_| bad("_count is a number"))?),
                    _ => return Err(unknown(name)),
                }
            }
            Box::pin(door.access_log_bundle(ctx, id_at(0)?, count, base)).await
        }
        I::Provenance => {
            no_params(&params)?;
            Box::pin(door.provenance(ctx, type_at(0)?, id_at(1)?, base)).await
        }
        I::BreakGlass | I::StateReason | I::EndAccess => {
            no_params(&params)?;
            let id = id_at(0)?;
            if kind == I::EndAccess {
                Box::pin(door.end_access(ctx, id)).await?;
                return Ok(Answer {
                    status: 204,
                    ..Answer::default()
                });
            }
            let bytes = json_body(app, headers, body).await?;
            let code = parameter(&bytes, "code", &["valueCode", "valueString"])?;
            let granted = if kind == I::BreakGlass {
                let text = parameter(&bytes, "text", &["valueString"])?;
                Box::pin(door.break_glass(ctx, id, &code, &text)).await?
            } else {
                Box::pin(door.state_reason(ctx, id, &code)).await?
            };
            Ok(Answer {
                status: 200,
                body: format!(
                    r#"{{"resourceType":"Parameters","parameter":[{{"name":"until","valueInstant":"{}"}}]}}"#,
                    granted.until
                )
                .into_bytes(),
                ..Answer::default()
            })
        }
        I::SignOn | I::LetCover => {
            no_params(&params)?;
            let bytes = json_body(app, headers, body).await?;
            let time = |name| -> Result<Timestamp, Refusal> {
                let text = parameter(&bytes, name, &["valueInstant", "valueDateTime"])?;
                keepwell_record::instant(&text).ok_or_else(|| bad(&format!("the parameter `{name}` is an instant")))
            };
            if kind == I::SignOn {
                let units = parameters(&bytes, "unit", &["valueString"])?;
                Box::pin(door.sign_on(ctx, &units, time("until")?)).await?;
            } else {
                let colleague = parameter(&bytes, "colleague", &["valueString"])?;
                Box::pin(door.let_cover(ctx, &colleague, time("from")?, time("until")?)).await?;
            }
            Ok(Answer {
                status: 204,
                ..Answer::default()
            })
        }
        I::Validate => {
            let t = if vars.is_empty() { None } else { Some(type_at(0)?) };
            let id = vars.get(1).copied();
            let bytes = json_body(app, headers, body).await?;
            Box::pin(door.validate(ctx, t, id, &params, &bytes)).await
        }
    }
}

/// A text among the Parameters in a body; empty where it is not there.
fn parameter(body: &[u8], name: &str, values: &[&str]) -> Result<String, Refusal> {
    Ok(parameters(body, name, values)?.into_iter().next().unwrap_or_default())
}

/// All texts of that name among the Parameters in a body.
fn parameters(body: &[u8], name: &str, values: &[&str]) -> Result<Vec<String>, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| bad("the body is not UTF-8"))?;
    let parameters = keepwell_model::json::parse(text).map_err(|_| bad("the body is not JSON"))?;
    if parameters.str("resourceType") != Some("Parameters") {
        return Err(bad("the body is a Parameters resource"));
    }
    Ok(parameters
        .get("parameter")
        .and_then(keepwell_model::json::Value::items)
        .unwrap_or_default()
        .iter()
        .filter(|p| p.str("name") == Some(name))
        .filter_map(|p| values.iter().find_map(|v| p.str(v)))
        .map(str::to_owned)
        .collect())
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

pub(crate) fn media_type(headers: &HeaderMap) -> String {
    header(headers, CONTENT_TYPE.as_str())
        .and_then(|t| t.split(';').next())
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

fn if_match(headers: &HeaderMap) -> Result<Option<u32>, Refusal> {
    header(headers, "if-match")
        .map(|t| parse_etag(t).ok_or_else(|| Refusal::precondition("If-Match is written W/\"version\"")))
        .transpose()
}

fn prefers(headers: &HeaderMap, name: &str, value: &str) -> bool {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split([',', ';']))
        .any(|p| {
            p.trim()
                .split_once('=')
                .is_some_and(|(n, v)| n.trim() == name && v.trim().trim_matches('"') == value)
        })
}

fn preferred_return(headers: &HeaderMap) -> Return {
    if prefers(headers, "return", "minimal") {
        Return::Minimal
    } else if prefers(headers, "return", "OperationOutcome") {
        Return::Outcome
    } else {
        Return::Representation
    }
}

async fn json_body(app: &App, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refusal> {
    match media_type(headers).as_str() {
        "" | "application/fhir+json" | "application/json" | "text/json" => read_body(app.body_max, headers, body).await,
        _ => Err(Refusal::new(
            415,
            "not-supported",
            "the body must be JSON: Content-Type application/fhir+json",
        )),
    }
}

/// A body of at most `most` bytes.
pub(crate) async fn read_body(most: usize, headers: &HeaderMap, mut body: Body) -> Result<Vec<u8>, Refusal> {
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Refusal::new(
            415,
            "not-supported",
            "send the body without a content coding",
        ));
    }
    let too_long = || {
        Refusal::new(
            413,
            "too-long",
            "the body is larger than this server takes; send it in parts",
        )
    };
    let declared = header(headers, "content-length")
        .and_then(|n| n.parse::<usize>().ok())
        .unwrap_or(0);
    if declared > most {
        return Err(too_long());
    }
    let mut bytes = Vec::with_capacity(declared.min(1 << 20));
    let started = tokio::time::Instant::now();
    loop {
        let slowest = started + BODY_START + Duration::from_secs(bytes.len() as u64 / BODY_RATE);
        let until = slowest.min(tokio::time::Instant::now() + BODY_SILENCE);
        match tokio::time::timeout_at(until, body.frame()).await {
            Err(_) => return Err(Refusal::new(408, "timeout", "the body did not arrive in time")),
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(_))) => return Err(bad("the body broke off")),
            Ok(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    if bytes.len() + data.len() > most {
                        return Err(too_long());
                    }
                    bytes.extend_from_slice(data);
                }
            }
        }
    }
}

fn unknown(name: &str) -> Refusal {
    let shown: String = name.chars().filter(|c| c.is_ascii_graphic()).take(40).collect();
    Refusal::new(400, "not-supported", format!("parameter `{shown}` is not known here"))
}

fn no_params(params: &[(String, String)]) -> Result<(), Refusal> {
    params.first().map_or(Ok(()), |(name, _)| Err(unknown(name)))
}

fn view(params: &[(String, String)]) -> Result<View, Refusal> {
    let mut view = View::default();
    for (name, value) in params {
        match name.as_str() {
            "_summary" => {
                view.summary = Some(match value.as_str() {
                    "true" => Summary::True,
                    "false" => Summary::False,
                    "text" => Summary::Text,
                    "data" => Summary::Data,
                    _ => return Err(bad("_summary is one of true, false, text and data here")),
                });
            }
            "_elements" => view.elements = value.split(',').map(str::to_owned).collect(),
            _ => return Err(unknown(name)),
        }
    }
    Ok(view)
}

/// Parameters as they go back into `self` and `next` links.
fn echo(params: &[(String, String)]) -> String {
    let mut out = String::new();
    for (name, value) in params.iter().filter(|(n, _)| n != CURSOR) {
        if !out.is_empty() {
            out.push('&');
        }
        percent_encode(name, &mut out);
        out.push('=');
        percent_encode(value, &mut out);
    }
    out
}

fn history_options(params: &[(String, String)]) -> Result<HistoryOptions, Refusal> {
    let mut o = HistoryOptions {
        echo: echo(params),
        ..HistoryOptions::default()
    };
    for (name, value) in params {
        match name.as_str() {
            "_count" => o.count = Some(value.parse().map_err(|_| bad("_count is a number"))?),
            "_since" => {
                o.since = Some(keepwell_record::instant(value).ok_or_else(|| bad("_since is an instant"))?);
            }
            "_at" => {
                o.at = Some(keepwell_record::date_range(value).ok_or_else(|| bad("_at is a date or dateTime"))?);
            }
            CURSOR => o.cursor = Some(value.clone()),
            _ => return Err(unknown(name)),
        }
    }
    Ok(o)
}

fn everything_options(params: &[(String, String)]) -> Result<EverythingOptions, Refusal> {
    let mut o = EverythingOptions {
        echo: echo(params),
        ..EverythingOptions::default()
    };
    for (name, value) in params {
        match name.as_str() {
            "_count" => o.count = Some(value.parse().map_err(|_| bad("_count is a number"))?),
            "_since" => {
                o.since = Some(keepwell_record::instant(value).ok_or_else(|| bad("_since is an instant"))?);
            }
            "_type" => {
                for t in value.split(',') {
                    let t = ResourceType::from_name(t).ok_or_else(|| bad("_type lists resource types of FHIR R4"))?;
                    o.types.push(t);
                }
            }
            CURSOR => o.cursor = Some(value.clone()),
            _ => return Err(unknown(name)),
        }
    }
    Ok(o)
}

/// IMF-fixdate of RFC 9110 5.6.7; the obsolete forms are not read.
fn parse_http_date(text: &str) -> Option<Timestamp> {
    let mut parts = text.split_once(", ")?.1.split(' ');
    let two = |part: &str, most: i64| -> Option<i64> {
        let fits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        part.parse().ok().filter(|n| fits && *n <= most)
    };
    let day = u32::try_from(two(parts.next()?, 31)?).ok().filter(|day| *day > 0)?;
    let month = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let name = parts.next()?;
    let month = u32::try_from(month.iter().position(|m| *m == name)?).ok()? + 1;
    let year = parts.next()?;
    let year: i64 = year.parse().ok().filter(|n| year.len() == 4 && *n > 0)?;
    let mut clock = parts.next()?.split(':');
    let mut number = |most| two(clock.next()?, most);
    let (h, m, s) = (number(23)?, number(59)?, number(60)?);
    (clock.next().is_none() && parts.next()? == "GMT" && parts.next().is_none())
        .then(|| Timestamp((days_from_civil(year, month, day) * 86_400 + h * 3600 + m * 60 + s) * 1000))
}

/// Refusals of requests without a valid token: one entry in the log for each source and minute, with their number,
/// so that a flood of them does not flood the log.
#[derive(Default)]
pub struct Strangers {
    minutes: parking_lot::Mutex<std::collections::HashMap<String, (i64, u32)>>,
}

impl Strangers {
    /// Counts one; writes the entry of the first in a minute, and of a minute that ended.
    pub(crate) async fn count(&self, app: &App, network: String) -> Result<(), Refusal> {
        let minute = app.door.clock().now().0 / 60_000;
        let due = {
            let mut minutes = self.minutes.lock();
            if minutes.len() > 10_000 {
                minutes.retain(|_, (m, _)| *m == minute);
            }
            let entry = minutes.entry(network.clone()).or_insert((i64::MIN, 0));
            if entry.0 == minute {
                entry.1 += 1;
                None
            } else {
                let before = entry.1;
                *entry = (minute, 0);
                Some(before)
            }
        };
        match due {
            Some(more) => app.door.record_strangers(&network, more + 1).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_dates_are_read() {
        assert_eq!(
            parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Timestamp(784_111_777_000))
        );
        for no_date in [
            "yesterday",
            "Sun, 06 Nov 999999999999 08:49:37 GMT",
            "Sun, 06 Nov -9223372036854775808 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 +8:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37:00 GMT",
            "Sun, 06 Nov 1994 08:49:9999999999999999999 GMT",
        ] {
            assert_eq!(parse_http_date(no_date), None, "{no_date}");
        }
    }
}

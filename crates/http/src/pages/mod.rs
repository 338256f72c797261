//! The web pages: sign in, find a patient, read a chart, see who looked at it, see how the system is.
//!
//! Server-rendered HTML that works without script; one style sheet. What it deliberately does not know: who may see what
//! (that is `record`'s business behind [`backend::Backend`]), how sessions are kept, and any query language. Views are
//! pure functions of typed data ([`view`], [`chart`]), so every page is tested without a server.
//!
//! The rules a page keeps:
//! - nothing about a patient in an address, a title or an error text: browsers keep those (CRY-9, APP-3); a search is
//!   posted, remembered in the session, and answered at an address that says nothing;
//! - every answer carries the headers of [`guard`] and is never cached;
//! - every form of a session carries its token, and requests from other sites are refused before that (APP-3);
//! - every value is escaped by the template engine, no exceptions; narrative (`text.div`) is not shown (APP-2).
//!
//! To add a page: a view struct and template in [`view`], a sample in its tests, a handler here, a row in the policy.

pub mod assets;
pub mod backend;
pub mod chart;
pub mod clients;
pub mod guard;
pub mod log;
pub mod plot;
pub mod read;
pub mod signin;
pub mod view;

#[cfg(test)]
mod tests;

use axum::Router;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Form, Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use backend::{Backend, Find, Refusal, Seen, Session};
use chart::{Banner, ChartView};
use keepwell_model::actor::{Context, EntryPath, Place, PurposeOfUse, Role};
use keepwell_model::json;
use keepwell_model::reference::is_id;
use keepwell_model::types::ResourceType;
use parking_lot::Mutex;
use read::Day;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use view::{Hit, Link, Page, Results, User};

/// Patients listed by one search.
const LISTED: usize = 30;
/// Entries of an access log on one page.
const LOGGED: usize = 500;
/// Patients remembered as recent, in memory, as long as the session.
const RECENT: usize = 8;
/// Largest form.
const FORM_BYTES: usize = 16 * 1024;

/// Every page: method, path, and what it needs. The published list of routes takes it from here; a test compares it
/// with [`router`].
pub const ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "/", "leads to the start page of the role"),
    ("GET", "/sign-in", "nothing"),
    ("POST", "/sign-in", "a name and a password, or an activation code"),
    ("GET", "/sign-in/second", "a right password"),
    ("POST", "/sign-in/second", "a right password and a one-time code"),
    ("POST", "/sign-in/passkey", "a passkey"),
    (
        "GET",
        "/sign-in/sso/{provider}",
        "nothing; leads to the identity provider",
    ),
    (
        "GET",
        "/sso/callback",
        "a sign-in begun in this browser, and the identity provider's answer",
    ),
    ("GET", "/security", "a session; the policy decides (own-authenticators)"),
    (
        "POST",
        "/security",
        "a session and its token; the policy decides (own-authenticators, own-session)",
    ),
    ("GET", "/confirm", "a session"),
    ("POST", "/confirm", "a session, its token and a factor"),
    ("GET", "/users", "a session; the policy decides (account-read)"),
    (
        "POST",
        "/users",
        "a session and its token; the policy decides (account-manage, activation-release)",
    ),
    ("POST", "/sign-out", "a session and its token"),
    (
        "GET",
        "/find",
        "a session; the policy decides on each recent patient (read)",
    ),
    ("POST", "/find", "a session and its token"),
    ("GET", "/find/results", "a session; the policy decides (search)"),
    ("GET", "/patients/{id}", "a session; the policy decides (read, search)"),
    (
        "GET",
        "/patients/{id}/access",
        "a session; the policy decides (access-log)",
    ),
    (
        "POST",
        "/patients/{id}/break-glass",
        "a session and its token; the policy decides (break-glass)",
    ),
    (
        "POST",
        "/patients/{id}/state-reason",
        "a session and its token; the policy decides (state-reason)",
    ),
    (
        "POST",
        "/patients/{id}/end-access",
        "a session and its token; the policy decides (end-access)",
    ),
    ("GET", "/reviews", "a session; the policy decides (review-read)"),
    (
        "POST",
        "/reviews/{id}",
        "a session and its token; the policy decides (review)",
    ),
    (
        "GET",
        "/record",
        "a patient's session; the policy decides (read, search)",
    ),
    (
        "GET",
        "/record/access",
        "a patient's session; the policy decides (access-log)",
    ),
    ("GET", "/status", "a session; the policy decides (status)"),
    ("GET", "/clients", "a session; the policy decides (client-read)"),
    ("GET", "/clients/{id}", "a session; the policy decides (client-read)"),
    (
        "POST",
        "/clients/{id}/end",
        "a session and its token; the policy decides (client-end)",
    ),
    ("GET", "/assets/{name}", "nothing"),
];

struct Pages<B> {
    backend: Arc<B>,
    /// By session id; in memory only, forgotten with the session.
    memory: Mutex<HashMap<String, Memory>>,
}

/// What the pages remember of a session.
#[derive(Default)]
struct Memory {
    /// Ids of the patients it opened, newest first.
    recent: VecDeque<String>,
    /// The last question asked on the search page: kept here so that it stands in no address and no history.
    asked: Find,
}

/// More sessions than this are forgotten all at once: a comfort lost, nothing else.
const REMEMBERED: usize = 4096;

type Shared<B> = State<Arc<Pages<B>>>;

/// All pages, guarded. Its fallback answers unknown addresses with a page that leads on.
pub fn router<B: Backend>(backend: Arc<B>) -> Router {
    let pages = Arc::new(Pages {
        backend,
        memory: Mutex::default(),
    });
    Router::new()
        .route("/", get(start::<B>))
        .route("/sign-in", get(signin::sign_in_form::<B>).post(signin::sign_in::<B>))
        .route("/sign-in/second", get(signin::code_form::<B>).post(signin::code::<B>))
        .route("/sign-in/passkey", post(signin::passkey::<B>))
        .route("/sign-in/sso/{provider}", get(signin::to_provider::<B>))
        .route("/sso/callback", get(signin::from_provider::<B>))
        .route("/security", get(signin::security::<B>).post(signin::secure::<B>))
        .route("/confirm", get(signin::confirm_form::<B>).post(signin::confirm::<B>))
        .route("/users", get(signin::users::<B>).post(signin::manage::<B>))
        .route("/sign-out", post(sign_out::<B>))
        .route("/find", get(find_form::<B>).post(ask::<B>))
        .route("/find/results", get(results::<B>))
        .route("/patients/{id}", get(chart_page::<B>))
        .route("/patients/{id}/access", get(access_page::<B>))
        .route("/patients/{id}/break-glass", post(break_glass::<B>))
        .route("/patients/{id}/state-reason", post(state_reason::<B>))
        .route("/patients/{id}/end-access", post(end_access::<B>))
        .route("/reviews", get(reviews_page::<B>))
        .route("/reviews/{id}", post(review::<B>))
        .route("/record", get(own_record::<B>))
        .route("/record/access", get(own_access::<B>))
        .route("/status", get(status_page::<B>))
        .route("/clients", get(clients::list::<B>))
        .route("/clients/{id}", get(clients::show::<B>))
        .route("/clients/{id}/end", post(clients::end::<B>))
        .route("/assets/{name}", get(asset::<B>))
        .fallback(unknown::<B>)
        .method_not_allowed_fallback(wrong_method::<B>)
        .layer(DefaultBodyLimit::max(FORM_BYTES))
        .layer(middleware::from_fn_with_state(pages.clone(), guarded::<B>))
        .with_state(pages)
}

/// Every page passes here, in and out.
async fn guarded<B: Backend>(State(pages): Shared<B>, request: Request, next: Next) -> Response {
    let backend = &pages.backend;
    let numeric = if backend.site().secure {
        None
    } else {
        guard::by_name(request.method(), request.headers(), request.uri())
    };
    let mut answer = match numeric {
        Some(redirect) => redirect,
        None if guard::made_by_us(request.method(), request.headers()) => next.run(request).await,
        None => {
            let text = "It came from another site, or from a browser that does not say where it came from.";
            let page = pages.page("Refused", None, "");
            (
                StatusCode::FORBIDDEN,
                Html(view::render_error(
                    &page,
                    403,
                    "This request was refused",
                    text,
                    &home(),
                    "",
                )),
            )
                .into_response()
        }
    };
    guard::protect(&mut answer);
    answer
}

impl<B: Backend> Pages<B> {
    fn page(&self, title: &'static str, session: Option<&Session>, here: &str) -> Page {
        let user = session.map(|s| User::new(&s.actor, &s.csrf, here));
        let running = session.map(|s| self.backend.emergencies(&s.actor)).unwrap_or_default();
        Page {
            title,
            user,
            demo: self.backend.site().demo,
            emergencies: running.iter().map(view::Running::new).collect(),
        }
    }

    fn today(&self) -> Day {
        Day::of(self.backend.now())
    }

    /// The session of a request, or where to go without one.
    async fn signed_in(&self, parts: &Parts) -> Result<(Session, Seen), Box<Response>> {
        let seen = self.backend.seen(parts);
        match self.backend.session(&cookies(&parts.headers), &seen).await {
            Some(session) => Ok((session, seen)),
            None => Err(Box::new(see_other("/sign-in"))),
        }
    }

    /// The facts of a request by a session; the purpose follows from the role, as no page asks for another yet.
    fn context(&self, session: &Session, seen: &Seen, entry: EntryPath) -> Context {
        Context {
            actor: session.actor.clone(),
            purpose: purpose(session.actor.role),
            entry,
            request_id: seen.request_id.clone(),
            network: seen.network.clone(),
            device: String::new(),
            unit: String::new(),
            roster: String::new(),
            reason: String::new(),
            print: false,
            place: Place::Unknown,
            export: false,
            at: self.backend.now(),
        }
    }

    fn remember(&self, session: &Session, note: impl FnOnce(&mut Memory)) {
        let mut memory = self.memory.lock();
        if memory.len() > REMEMBERED {
            memory.clear();
        }
        note(memory.entry(session.actor.session.clone()).or_default());
    }

    fn opened(&self, session: &Session, id: &str) {
        self.remember(session, |m| {
            m.recent.retain(|i| i != id);
            m.recent.push_front(id.to_owned());
            m.recent.truncate(RECENT);
        });
    }

    /// Recently opened patients; read anew, so that each showing is authorized and logged.
    async fn recent(&self, session: &Session, seen: &Seen) -> Results {
        let of = |m: &Memory| m.recent.iter().cloned().collect();
        let ids: Vec<String> = self
            .memory
            .lock()
            .get(&session.actor.session)
            .map(of)
            .unwrap_or_default();
        if ids.is_empty() {
            return Results::default();
        }
        let ctx = self.context(session, seen, EntryPath::WorkList);
        let found = self.backend.patients(&ctx, &ids).await.unwrap_or_default();
        Results {
            hits: self.hits(&session.actor.role, &found.texts, "list"),
            more: false,
            notice: found.notice,
        }
    }

    fn hits(&self, role: &Role, patients: &[String], by: &str) -> Vec<Hit> {
        let log = if *role == Role::PrivacyOfficer { "/access" } else { "" };
        let banners = patients
            .iter()
            .filter_map(|text| json::parse(text).ok())
            .map(|p| Banner::from_patient(&p, self.today()));
        banners
            .map(|banner| Hit {
                href: format!("/patients/{}{log}?by={by}", banner.id),
                banner,
            })
            .collect()
    }

    /// A refusal as a page. The texts are ours: nothing of the request comes back.
    fn refused(&self, refusal: &Refusal, session: Option<&Session>, seen: &Seen) -> Response {
        let (status, heading, text) = match refusal {
            Refusal::NotFound => (
                StatusCode::NOT_FOUND,
                "Not found",
                "There is nothing here, or it is not for you to see.".to_owned(),
            ),
            Refusal::Forbidden(reason) => (StatusCode::FORBIDDEN, "Not for your role", reason.clone()),
            Refusal::SignIn => (
                StatusCode::UNAUTHORIZED,
                "Sign in again",
                "The session has ended.".to_owned(),
            ),
            Refusal::SecondFactor | Refusal::Confirm => (
                StatusCode::UNAUTHORIZED,
                "Is it you?",
                "Prove again that it is you, and repeat.".to_owned(),
            ),
            Refusal::Invalid(text) => (StatusCode::BAD_REQUEST, "That did not work", text.clone()),
            Refusal::Unavailable(text) => (StatusCode::SERVICE_UNAVAILABLE, "Not available now", text.clone()),
            Refusal::Failed => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something broke",
                "Nothing was shown or changed by this request.".to_owned(),
            ),
        };
        self.error(status, heading, &text, session, seen)
    }

    fn error(&self, status: StatusCode, heading: &str, text: &str, session: Option<&Session>, seen: &Seen) -> Response {
        let page = self.page("Error", session, "");
        let body = view::render_error(&page, status.as_u16(), heading, text, &home(), &seen.request_id);
        (status, Html(body)).into_response()
    }

    /// Form values, if the form is one of this session.
    fn checked<T>(
        &self,
        form: Result<Form<T>, FormRejection>,
        csrf: impl Fn(&T) -> &str,
        session: &Session,
    ) -> Result<T, Refusal> {
        let Ok(Form(form)) = form else {
            return Err(Refusal::Invalid("The form could not be read.".to_owned()));
        };
        if guard::same(csrf(&form), &session.csrf) {
            Ok(form)
        } else {
            Err(Refusal::Invalid(
                "This form is from an earlier session. Go back, load the page again and repeat.".to_owned(),
            ))
        }
    }
}

fn home() -> [Link; 1] {
    [Link {
        href: "/",
        text: "To the start page",
        here: false,
    }]
}

fn see_other(to: &'static str) -> Response {
    lead(to)
}

/// To a page of ours. A path with anything else than visible ASCII leads to the start page.
fn lead(to: &str) -> Response {
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
}

fn cookies(headers: &HeaderMap) -> String {
    let all: Vec<&str> = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    all.join("; ")
}

fn purpose(role: Role) -> PurposeOfUse {
    match role {
        Role::Physician | Role::Nurse => PurposeOfUse::Treatment,
        Role::Billing => PurposeOfUse::Payment,
        Role::Patient => PurposeOfUse::PatientRequest,
        Role::FrontDesk | Role::RecordsClerk | Role::PrivacyOfficer => PurposeOfUse::Operations,
        Role::SecurityOfficer | Role::Administrator | Role::Service => PurposeOfUse::SystemAdministration,
    }
}

/// What a role's chart asks for: no more than its work needs, whatever the policy would allow. The policy still decides.
fn wanted(role: Role) -> Vec<(ResourceType, usize)> {
    let only = |names: &[&str]| {
        chart::shown()
            .into_iter()
            .filter(|(t, _)| names.contains(&t.name()))
            .collect()
    };
    let without = |names: &[&str]| {
        chart::shown()
            .into_iter()
            .filter(|(t, _)| !names.contains(&t.name()))
            .collect()
    };
    match role {
        Role::Physician | Role::Nurse => without(&["Coverage", "Claim", "ClaimResponse"]),
        Role::Patient => chart::shown(),
        Role::FrontDesk => only(&["RelatedPerson", "Appointment", "Coverage"]),
        Role::Billing => only(&["Coverage", "Claim", "ClaimResponse"]),
        Role::RecordsClerk => only(&["RelatedPerson", "Encounter", "DocumentReference"]),
        Role::PrivacyOfficer | Role::SecurityOfficer | Role::Administrator | Role::Service => Vec::new(),
    }
}

fn names(types: &[ResourceType]) -> String {
    types.iter().map(|t| t.name()).collect::<Vec<_>>().join(", ")
}

#[derive(serde::Deserialize, Default)]
struct Came {
    #[serde(default)]
    by: String,
}

impl Came {
    fn entry(&self) -> EntryPath {
        match self.by.as_str() {
            "search" => EntryPath::Search,
            "list" => EntryPath::WorkList,
            _ => EntryPath::Link,
        }
    }
}

// ------------------------------------------------------------------ handlers

async fn start<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    match pages.signed_in(&parts).await {
        Err(to) => *to,
        Ok((session, _)) if signin::is_enrolling(&session) => see_other("/security"),
        Ok((session, seen)) => match session.actor.role {
            Role::Patient => see_other("/record"),
            Role::Administrator | Role::SecurityOfficer => see_other("/status"),
            Role::Service => {
                let text = "Machines use the FHIR API.";
                pages.error(
                    StatusCode::FORBIDDEN,
                    "No pages for machines",
                    text,
                    Some(&session),
                    &seen,
                )
            }
            _ => see_other("/find"),
        },
    }
}

#[derive(serde::Deserialize)]
struct Token {
    #[serde(default)]
    csrf: String,
}

async fn sign_out<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, form) = split::<Token>(request).await;
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    if let Err(refusal) = pages.checked(form, |f| &f.csrf, &session) {
        return pages.refused(&refusal, Some(&session), &seen);
    }
    pages.memory.lock().remove(&session.actor.session);
    let cookie = pages.backend.sign_out(&session, &seen).await;
    let wipe = HeaderValue::from_static(r#""cache", "storage""#);
    let mut answer = (
        [(HeaderName::from_static("clear-site-data"), wipe)],
        see_other("/sign-in"),
    )
        .into_response();
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        answer.headers_mut().append(header::SET_COOKIE, cookie);
    }
    answer
}

async fn find_form<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    let recent = pages.recent(&session, &seen).await;
    let page = pages.page("Find a patient", Some(&session), "/find");
    Html(view::render_find(
        &page,
        &session.csrf,
        session.actor.role,
        &Find::default(),
        Ok(None),
        &recent,
    ))
    .into_response()
}

#[derive(serde::Deserialize)]
struct FindForm {
    #[serde(default)]
    csrf: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    birth_date: String,
    #[serde(default)]
    identifier: String,
}

/// Takes the question and leads to its answer: the page after it can be left and come back to.
async fn ask<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, form) = split::<FindForm>(request).await;
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    let form = match pages.checked(form, |f| &f.csrf, &session) {
        Ok(form) => form,
        Err(refusal) => return pages.refused(&refusal, Some(&session), &seen),
    };
    let asked = Find {
        name: form.name.trim().to_owned(),
        birth_date: form.birth_date.trim().to_owned(),
        identifier: form.identifier.trim().to_owned(),
    };
    pages.remember(&session, |m| m.asked = asked);
    see_other("/find/results")
}

/// Answers the session's last question, anew each time: authorized, and logged as another look.
async fn results<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    let asked = pages
        .memory
        .lock()
        .get(&session.actor.session)
        .map(|m| m.asked.clone())
        .unwrap_or_default();
    let page = pages.page("Find a patient", Some(&session), "/find");
    let (csrf, role) = (&session.csrf, session.actor.role);
    let problem = if asked == Find::default() {
        Some("Fill in at least one field.")
    } else if !asked.birth_date.is_empty() && read::When::parse(&asked.birth_date).is_none() {
        Some("Write the birth date as year, month, day: 1957-04-23. The year alone works too.")
    } else {
        None
    };
    if let Some(problem) = problem {
        return Html(view::render_find(
            &page,
            csrf,
            role,
            &asked,
            Err(problem),
            &Results::default(),
        ))
        .into_response();
    }
    let ctx = pages.context(&session, &seen, EntryPath::Search);
    match pages.backend.find(&ctx, &asked, LISTED + 1).await {
        Ok(mut found) => {
            let more = found.texts.len() > LISTED;
            found.texts.truncate(LISTED);
            let results = Results {
                hits: pages.hits(&role, &found.texts, "search"),
                more,
                notice: found.notice,
            };
            Html(view::render_find(
                &page,
                csrf,
                role,
                &asked,
                Ok(Some(&results)),
                &Results::default(),
            ))
            .into_response()
        }
        Err(Refusal::Invalid(text)) => Html(view::render_find(
            &page,
            csrf,
            role,
            &asked,
            Err(&text),
            &Results::default(),
        ))
        .into_response(),
        Err(refusal) => pages.refused(&refusal, Some(&session), &seen),
    }
}

async fn chart_page<B: Backend>(
    State(pages): Shared<B>,
    Path(id): Path<String>,
    came: Result<Query<Came>, QueryRejection>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    let entry = came.map_or(EntryPath::Link, |Query(c)| c.entry());
    let own = session.actor.role == Role::Patient;
    pages.chart(&session, &seen, &id, entry, own).await
}

async fn own_record<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    match session.actor.patient.clone() {
        Some(id) => pages.chart(&session, &seen, &id, EntryPath::Link, true).await,
        None => pages.refused(&Refusal::NotFound, Some(&session), &seen),
    }
}

async fn access_page<B: Backend>(State(pages): Shared<B>, Path(id): Path<String>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    let own = session.actor.role == Role::Patient;
    pages.access(&session, &seen, &id, own).await
}

async fn own_access<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    match session.actor.patient.clone() {
        Some(id) => pages.access(&session, &seen, &id, true).await,
        None => pages.refused(&Refusal::NotFound, Some(&session), &seen),
    }
}

impl<B: Backend> Pages<B> {
    async fn chart(&self, session: &Session, seen: &Seen, id: &str, entry: EntryPath, own: bool) -> Response {
        let role = session.actor.role;
        let wanted = wanted(role);
        let ctx = self.context(session, seen, entry);
        let found = if is_id(id) {
            self.backend.compartment(&ctx, id, &wanted).await
        } else {
            Err(Refusal::NotFound)
        };
        let found = match found {
            Ok(found) => found,
            Err(refusal @ Refusal::Forbidden(_)) => return self.offer(&ctx, session, seen, id, &refusal).await,
            Err(refusal) => return self.refused(&refusal, Some(session), seen),
        };
        let Ok(patient) = json::parse(&found.patient) else {
            return self.refused(&Refusal::Failed, Some(session), seen);
        };
        let resources: Vec<_> = found.resources.iter().filter_map(|r| json::parse(r).ok()).collect();
        let looked_at: Vec<ResourceType> = wanted
            .iter()
            .map(|(t, _)| *t)
            .filter(|t| !found.withheld.contains(t))
            .collect();
        let view = ChartView::from_resources(&patient, &resources, &looked_at, self.today());
        if !own {
            self.opened(session, id);
        }
        let log = match role {
            Role::Patient => Some("/record/access".to_owned()),
            Role::PrivacyOfficer => Some(format!("/patients/{id}/access")),
            _ => None,
        };
        let (title, here) = if own { ("My record", "/record") } else { ("Chart", "") };
        let page = self.page(title, Some(session), here);
        Html(view::render_chart(
            &page,
            &view,
            own,
            log.as_deref(),
            &names(&found.capped),
            &names(&found.withheld),
            found.notice,
        ))
        .into_response()
    }

    /// Opens a record in an emergency, or for a stated reason, and leads to it.
    async fn open_by(&self, id: &str, request: Request, emergency: bool) -> Response {
        let (parts, form) = split::<ReasonForm>(request).await;
        let (session, seen) = match self.signed_in(&parts).await {
            Ok(found) => found,
            Err(to) => return *to,
        };
        let ctx = self.context(&session, &seen, EntryPath::Link);
        let done = match self.checked(form, |f| &f.csrf, &session) {
            Ok(_) if !is_id(id) => Err(Refusal::NotFound),
            Ok(form) if emergency => self.backend.break_glass(&ctx, id, &form.code, &form.text).await,
            Ok(form) => self.backend.state_reason(&ctx, id, &form.code).await,
            Err(refusal) => Err(refusal),
        };
        match done {
            Ok(()) => lead(&format!("/patients/{id}")),
            Err(Refusal::Confirm) => lead(&format!("/confirm?to=patients/{id}")),
            Err(refusal) => self.refused(&refusal, Some(&session), &seen),
        }
    }

    /// What is shown where a patient may be found but not opened: who it is, and what is offered.
    async fn offer(&self, ctx: &Context, session: &Session, seen: &Seen, id: &str, refusal: &Refusal) -> Response {
        let Some(offered) = self.backend.offer(ctx, id).await else {
            return self.refused(refusal, Some(session), seen);
        };
        let Ok(patient) = json::parse(&offered.patient) else {
            return self.refused(&Refusal::Failed, Some(session), seen);
        };
        let banner = Banner::from_patient(&patient, self.today());
        let page = self.page("Closed record", Some(session), "");
        let body = view::render_offer(&page, &session.csrf, &banner, offered.stated);
        (StatusCode::FORBIDDEN, Html(body)).into_response()
    }

    async fn access(&self, session: &Session, seen: &Seen, id: &str, own: bool) -> Response {
        let ctx = self.context(session, seen, EntryPath::Link);
        let found = if is_id(id) {
            self.backend.access_log(&ctx, id, LOGGED).await
        } else {
            Err(Refusal::NotFound)
        };
        let log = match found {
            Ok(log) => log,
            Err(refusal) => return self.refused(&refusal, Some(session), seen),
        };
        let Ok(patient) = json::parse(&log.patient) else {
            return self.refused(&Refusal::Failed, Some(session), seen);
        };
        if !own {
            self.opened(session, id);
        }
        let banner = Banner::from_patient(&patient, self.today());
        let (title, here) = if own {
            ("Who looked at my record", "/record/access")
        } else {
            ("Access log", "")
        };
        let page = self.page(title, Some(session), here);
        Html(view::render_access(&page, &banner, &log, own)).into_response()
    }
}

#[derive(serde::Deserialize)]
struct ReasonForm {
    #[serde(default)]
    csrf: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    text: String,
}

async fn break_glass<B: Backend>(State(pages): Shared<B>, Path(id): Path<String>, request: Request) -> Response {
    pages.open_by(&id, request, true).await
}

async fn state_reason<B: Backend>(State(pages): Shared<B>, Path(id): Path<String>, request: Request) -> Response {
    pages.open_by(&id, request, false).await
}

async fn end_access<B: Backend>(State(pages): Shared<B>, Path(id): Path<String>, request: Request) -> Response {
    let (parts, form) = split::<ReasonForm>(request).await;
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    let ctx = pages.context(&session, &seen, EntryPath::Link);
    let done = match pages.checked(form, |f| &f.csrf, &session) {
        Ok(_) if is_id(&id) => pages.backend.end_access(&ctx, &id).await,
        Ok(_) => Err(Refusal::NotFound),
        Err(refusal) => Err(refusal),
    };
    match done {
        Ok(()) => see_other("/find"),
        Err(refusal) => pages.refused(&refusal, Some(&session), &seen),
    }
}

#[derive(serde::Deserialize)]
struct VerdictForm {
    #[serde(default)]
    csrf: String,
    #[serde(default)]
    verdict: String,
    #[serde(default)]
    note: String,
}

async fn reviews_page<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    let ctx = pages.context(&session, &seen, EntryPath::WorkList);
    match pages.backend.reviews(&ctx).await {
        Ok(reviews) => {
            let page = pages.page("Emergency access", Some(&session), "/reviews");
            Html(view::render_reviews(&page, &session.csrf, &reviews)).into_response()
        }
        Err(refusal) => pages.refused(&refusal, Some(&session), &seen),
    }
}

async fn review<B: Backend>(State(pages): Shared<B>, Path(id): Path<String>, request: Request) -> Response {
    let (parts, form) = split::<VerdictForm>(request).await;
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    let ctx = pages.context(&session, &seen, EntryPath::WorkList);
    let done = match pages.checked(form, |f| &f.csrf, &session) {
        Ok(form) if matches!(form.verdict.as_str(), "justified" | "not-justified") => {
            let justified = form.verdict == "justified";
            pages.backend.review(&ctx, &id, justified, &form.note).await
        }
        Ok(_) => Err(Refusal::Invalid("Say whether the access was justified.".to_owned())),
        Err(refusal) => Err(refusal),
    };
    match done {
        Ok(()) => see_other("/reviews"),
        Err(refusal) => pages.refused(&refusal, Some(&session), &seen),
    }
}

async fn status_page<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    let ctx = pages.context(&session, &seen, EntryPath::Link);
    match pages.backend.status(&ctx).await {
        Ok(groups) => {
            let page = pages.page("System status", Some(&session), "/status");
            Html(view::render_status(&page, &groups)).into_response()
        }
        Err(refusal) => pages.refused(&refusal, Some(&session), &seen),
    }
}

async fn asset<B: Backend>(State(pages): Shared<B>, Path(name): Path<String>, request: Request) -> Response {
    match assets::asset(&name) {
        Some(answer) => answer,
        None => pages.refused(&Refusal::NotFound, None, &pages.backend.seen(&request.into_parts().0)),
    }
}

async fn unknown<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    pages.refused(&Refusal::NotFound, None, &pages.backend.seen(&request.into_parts().0))
}

async fn wrong_method<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let seen = pages.backend.seen(&request.into_parts().0);
    pages.error(
        StatusCode::METHOD_NOT_ALLOWED,
        "Not this way",
        "This address does not take that kind of request.",
        None,
        &seen,
    )
}

/// The head of a request, and its form: kept apart, since a session is looked up before a form is judged.
async fn split<T: serde::de::DeserializeOwned + 'static>(request: Request) -> (Parts, Result<Form<T>, FormRejection>) {
    use axum::RequestExt as _;
    let (parts, body) = request.into_parts();
    let copy = Request::from_parts(parts.clone(), body);
    (parts, copy.extract().await)
}

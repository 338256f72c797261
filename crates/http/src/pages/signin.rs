//! Signing in, one's own security, a proof asked for again, and the accounts: handlers and views.
//!
//! All of it works without script, but for passkeys, which browsers give to scripts only (`passkey.js`). What is shown
//! once (a code, a card, the secret of an app) is shown in the answer to the form and stands in no address.

use super::backend::{
    Backend, DemoLogin, Managed, Member, Next, Provider, Refusal, Secured, Security, SecurityAct, Seen, Session,
    SignIn, Step, UserAct, role_words,
};
use super::read::instant;
use super::view::Page;
use super::{Pages, Shared, cookies, is_id, lead, see_other, split};
use askama::Template;
use axum::extract::{Form, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use keepwell_identity::{FactorKind, NewApp, Offers};
use keepwell_model::actor::{Assurance, EntryPath, Role};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    page: &'a Page,
    logins: &'a [DemoLogin],
    providers: &'a [Provider],
    message: Option<&'a str>,
}

/// The sign-in page; `message` says why the last try failed.
#[must_use]
pub fn render_sign_in(page: &Page, logins: &[DemoLogin], providers: &[Provider], message: Option<&str>) -> String {
    rendered(&SignInPage {
        page,
        logins,
        providers,
        message,
    })
}

#[derive(Template)]
#[template(path = "landed.html")]
struct LandedPage<'a> {
    page: &'a Page,
    to: &'a str,
    signed_in: bool,
}

/// Where a sign-in by an identity provider arrives. It goes on by itself, from our own page: on a redirect that another
/// site has begun browsers would hold the cookies back.
#[must_use]
pub fn render_landed(page: &Page, to: &str) -> String {
    rendered(&LandedPage {
        page,
        to,
        signed_in: to == "/",
    })
}

#[derive(Template)]
#[template(path = "second.html")]
struct SecondPage<'a> {
    page: &'a Page,
    logins: &'a [DemoLogin],
    offers: Offers,
    message: Option<&'a str>,
}

/// The page of the second factor.
#[must_use]
pub fn render_second(page: &Page, logins: &[DemoLogin], offers: Offers, message: Option<&str>) -> String {
    rendered(&SecondPage {
        page,
        logins,
        offers,
        message,
    })
}

#[derive(Template)]
#[template(path = "passkey.html")]
struct PasskeyPage<'a> {
    page: &'a Page,
    heading: &'a str,
    options: &'a str,
    make: bool,
    action: &'a str,
    act: &'a str,
    csrf: &'a str,
    back: &'a str,
}

/// A page whose script asks the browser for a passkey and sends the response to `action`.
struct Asking<'a> {
    heading: &'a str,
    options: &'a str,
    make: bool,
    action: &'a str,
    act: &'a str,
    csrf: &'a str,
    back: &'a str,
}

fn render_passkey(page: &Page, asking: &Asking<'_>) -> String {
    rendered(&PasskeyPage {
        page,
        heading: asking.heading,
        options: asking.options,
        make: asking.make,
        action: asking.action,
        act: asking.act,
        csrf: asking.csrf,
        back: asking.back,
    })
}

#[derive(Template)]
#[template(path = "security.html")]
struct SecurityPage<'a> {
    page: &'a Page,
    csrf: &'a str,
    security: &'a Security,
    factors: Vec<FactorRow<'a>>,
    sessions: Vec<SessionRow<'a>>,
    message: Option<&'a str>,
    failed: bool,
}

struct FactorRow<'a> {
    id: &'a str,
    name: &'a str,
    kind: &'static str,
    since: String,
    suspect: bool,
}

struct SessionRow<'a> {
    id: &'a str,
    opened: String,
    active: String,
    network: &'a str,
    here: bool,
}

/// One's own authenticators and sessions; `message` says what was done, or (`failed`) why it was not.
#[must_use]
pub fn render_security(page: &Page, csrf: &str, security: &Security, message: Option<&str>, failed: bool) -> String {
    let factors = security.enrolled.factors.iter();
    let sessions = security.sessions.iter();
    rendered(&SecurityPage {
        page,
        csrf,
        security,
        factors: factors
            .map(|f| FactorRow {
                id: &f.id,
                name: &f.name,
                kind: match f.kind {
                    FactorKind::App => "authenticator app",
                    FactorKind::Passkey => "passkey",
                },
                since: instant(f.added),
                suspect: f.suspect,
            })
            .collect(),
        sessions: sessions
            .map(|s| SessionRow {
                id: &s.id,
                opened: instant(s.opened),
                active: instant(s.active),
                network: &s.network,
                here: s.here,
            })
            .collect(),
        message,
        failed,
    })
}

#[derive(Template)]
#[template(path = "app.html")]
struct AppPage<'a> {
    page: &'a Page,
    csrf: &'a str,
    app: &'a NewApp,
}

#[derive(Template)]
#[template(path = "codes.html")]
struct CodesPage<'a> {
    page: &'a Page,
    heading: &'a str,
    text: &'a str,
    numbered: bool,
    codes: &'a [String],
    back: &'a str,
}

#[derive(Template)]
#[template(path = "confirm.html")]
struct ConfirmPage<'a> {
    page: &'a Page,
    csrf: &'a str,
    to: &'a str,
    message: Option<&'a str>,
}

/// The page that asks for a proof again before a sensitive act.
#[must_use]
pub fn render_confirm(page: &Page, csrf: &str, to: &str, message: Option<&str>) -> String {
    rendered(&ConfirmPage {
        page,
        csrf,
        to,
        message,
    })
}

#[derive(Template)]
#[template(path = "users.html")]
struct UsersPage<'a> {
    page: &'a Page,
    csrf: &'a str,
    members: &'a [Member],
    roles: Vec<(&'static str, &'static str)>,
    may_invite: bool,
    message: Option<&'a str>,
    failed: bool,
}

/// The accounts.
#[must_use]
pub fn render_users(
    page: &Page,
    csrf: &str,
    members: &[Member],
    role: Role,
    message: Option<&str>,
    failed: bool,
) -> String {
    let roles = Role::ALL.into_iter().filter(|r| *r != Role::Service);
    rendered(&UsersPage {
        page,
        csrf,
        members,
        roles: roles.map(|r| (r.name(), role_words(r))).collect(),
        may_invite: role == Role::Administrator,
        message,
        failed,
    })
}

fn rendered(template: &impl Template) -> String {
    template.render().unwrap_or_default()
}

// ------------------------------------------------------------------ signing in

const WRONG: &str = "That did not work. Check the name and the password; after several tries in a row it takes longer and \
                     longer until the next one counts. A passkey always works.";
const NOT_SIGNED_IN: &str = "Your organisation's sign-in did not open anything here. Begin again; if it stays so, \
                             sign in another way, and ask an administrator whether your account is linked.";
const WRONG_CODE: &str = "That code does not work. It may have been used, or its time is over.";

pub(super) async fn sign_in_form<B: Backend>(State(pages): Shared<B>) -> Html<String> {
    let page = pages.page("Sign in", None, "");
    Html(pages.sign_in_page(&page, None))
}

#[derive(serde::Deserialize)]
pub(super) struct SignInForm {
    #[serde(default)]
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    code: String,
}

pub(super) async fn sign_in<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, form) = split::<SignInForm>(request).await;
    let seen = pages.backend.seen(&parts);
    let (how, message) = match form {
        // A whole link may be pasted as well: the code is what follows the `#`.
        Ok(Form(f)) if !f.code.trim().is_empty() => {
            let code = f.code.rsplit('#').next().unwrap_or_default().trim().to_owned();
            (SignIn::Activation(code), WRONG_CODE)
        }
        Ok(Form(f)) => (
            SignIn::Password {
                user: f.user.trim().to_owned(),
                password: f.password,
            },
            WRONG,
        ),
        Err(_) => return pages.refused(&Refusal::Invalid("The form could not be read.".to_owned()), None, &seen),
    };
    let done = pages.backend.sign_in(how, &cookies(&parts.headers), &seen).await;
    pages.stepped(done, message, &seen)
}

pub(super) async fn code_form<B: Backend>(State(pages): Shared<B>, headers: HeaderMap) -> Response {
    pages.second(&cookies(&headers), None)
}

#[derive(serde::Deserialize)]
pub(super) struct CodeForm {
    #[serde(default)]
    code: String,
}

pub(super) async fn code<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, form) = split::<CodeForm>(request).await;
    let seen = pages.backend.seen(&parts);
    let cookies = cookies(&parts.headers);
    let code = form.map(|Form(f)| f.code).unwrap_or_default();
    match pages.backend.sign_in(SignIn::Code(code), &cookies, &seen).await {
        Err(Refusal::SecondFactor) => pages.second(&cookies, Some(WRONG_CODE)),
        done => pages.stepped(done, "The sign-in took too long. Begin again.", &seen),
    }
}

#[derive(serde::Deserialize)]
pub(super) struct PasskeyForm {
    #[serde(default)]
    response: String,
}

pub(super) async fn passkey<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, form) = split::<PasskeyForm>(request).await;
    let seen = pages.backend.seen(&parts);
    let response = form.map(|Form(f)| f.response).unwrap_or_default();
    let how = if response.is_empty() {
        SignIn::AskPasskey
    } else {
        SignIn::Passkey(response)
    };
    let done = pages.backend.sign_in(how, &cookies(&parts.headers), &seen).await;
    pages.stepped(done, "The passkey was not accepted.", &seen)
}

pub(super) async fn to_provider<B: Backend>(
    State(pages): Shared<B>,
    Path(provider): Path<String>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let seen = pages.backend.seen(&parts);
    let how = SignIn::Provider(provider);
    let done = pages.backend.sign_in(how, &cookies(&parts.headers), &seen).await;
    pages.stepped_by_provider(done, &seen)
}

pub(super) async fn from_provider<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let seen = pages.backend.seen(&parts);
    let how = SignIn::ProviderAnswer(parts.uri.query().unwrap_or_default().to_owned());
    let done = pages.backend.sign_in(how, &cookies(&parts.headers), &seen).await;
    pages.stepped_by_provider(done, &seen)
}

/// An answer that sets cookies.
fn with_cookies(mut answer: Response, cookies: Vec<String>) -> Response {
    for cookie in cookies {
        if let Ok(value) = HeaderValue::try_from(cookie) {
            answer.headers_mut().append(header::SET_COOKIE, value);
        }
    }
    answer
}

impl<B: Backend> Pages<B> {
    fn sign_in_page(&self, page: &Page, message: Option<&str>) -> String {
        render_sign_in(page, &self.backend.logins(), &self.backend.providers(), message)
    }

    /// Where a step of a sign-in by an identity provider leads: while that is down, to the other ways.
    fn stepped_by_provider(&self, done: Result<Step, Refusal>, seen: &Seen) -> Response {
        match done {
            Err(Refusal::Unavailable(message)) => {
                let body = self.sign_in_page(&self.page("Sign in", None, ""), Some(&message));
                (StatusCode::SERVICE_UNAVAILABLE, Html(body)).into_response()
            }
            done => self.stepped(done, NOT_SIGNED_IN, seen),
        }
    }

    /// Where a step of a sign-in leads.
    fn stepped(&self, done: Result<Step, Refusal>, message: &str, seen: &Seen) -> Response {
        match done {
            Ok(Step { cookies, next }) => {
                let answer = match next {
                    Next::Start => see_other("/"),
                    Next::Second => see_other("/sign-in/second"),
                    Next::Elsewhere(to) => (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response(),
                    Next::Landed(to) => Html(render_landed(&self.page("Sign in", None, ""), to)).into_response(),
                    Next::Passkey(options) => {
                        let asking = Asking {
                            heading: "Sign in with a passkey",
                            options: &options,
                            make: false,
                            action: "/sign-in/passkey",
                            act: "",
                            csrf: "",
                            back: "/sign-in",
                        };
                        Html(render_passkey(&self.page("Passkey", None, ""), &asking)).into_response()
                    }
                };
                with_cookies(answer, cookies)
            }
            Err(Refusal::SignIn | Refusal::SecondFactor) => {
                let body = self.sign_in_page(&self.page("Sign in", None, ""), Some(message));
                (StatusCode::UNAUTHORIZED, Html(body)).into_response()
            }
            Err(refusal) => self.refused(&refusal, None, seen),
        }
    }

    fn second(&self, cookies: &str, message: Option<&str>) -> Response {
        let Some(offers) = self.backend.second_step(cookies) else {
            return see_other("/sign-in");
        };
        let page = self.page("Second factor", None, "");
        let status = if message.is_some() {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        };
        (
            status,
            Html(render_second(&page, &self.backend.logins(), offers, message)),
        )
            .into_response()
    }

    async fn security_page(&self, session: &Session, seen: &Seen, message: Option<&str>, failed: bool) -> Response {
        let ctx = self.context(session, seen, EntryPath::Link);
        let security = match self.backend.security(&ctx).await {
            Ok(security) => security,
            Err(refusal) => return self.refused(&refusal, Some(session), seen),
        };
        let page = self.page("My security", Some(session), "/security");
        let body = render_security(&page, &session.csrf, &security, message, failed);
        let status = if failed {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::OK
        };
        (status, Html(body)).into_response()
    }

    async fn users_page(&self, session: &Session, seen: &Seen, message: Option<&str>, failed: bool) -> Response {
        let ctx = self.context(session, seen, EntryPath::Link);
        let members = match self.backend.users(&ctx).await {
            Ok(members) => members,
            Err(refusal) => return self.refused(&refusal, Some(session), seen),
        };
        let page = self.page("Users", Some(session), "/users");
        let body = render_users(&page, &session.csrf, &members, session.actor.role, message, failed);
        let status = if failed {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::OK
        };
        (status, Html(body)).into_response()
    }

    fn confirm_page(&self, session: &Session, to: &str, message: Option<&str>) -> Response {
        let page = self.page("Confirm", Some(session), "");
        let status = if message.is_some() {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        };
        (status, Html(render_confirm(&page, &session.csrf, to, message))).into_response()
    }

    fn codes_page(&self, session: &Session, shown: &CodesShown<'_>) -> Response {
        let page = self.page("Codes", Some(session), "");
        let body = rendered(&CodesPage {
            page: &page,
            heading: shown.heading,
            text: shown.text,
            numbered: shown.numbered,
            codes: shown.codes,
            back: shown.back,
        });
        Html(body).into_response()
    }
}

struct CodesShown<'a> {
    heading: &'a str,
    text: &'a str,
    numbered: bool,
    codes: &'a [String],
    back: &'a str,
}

// ------------------------------------------------------------------ my security

pub(super) async fn security<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    match pages.signed_in(&parts).await {
        Ok((session, seen)) => pages.security_page(&session, &seen, None, false).await,
        Err(to) => *to,
    }
}

/// One form for all acts of the page; which fields count depends on `act`.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
pub(super) struct SecurityForm {
    csrf: String,
    act: String,
    password: String,
    again: String,
    name: String,
    code: String,
    response: String,
    id: String,
}

impl SecurityForm {
    fn act(self) -> Result<SecurityAct, Refusal> {
        Ok(match self.act.as_str() {
            "password" if self.password != self.again => {
                return Err(Refusal::Invalid("The two passwords are not the same.".to_owned()));
            }
            "password" => SecurityAct::Password(self.password),
            "app" => SecurityAct::App,
            "app-code" => SecurityAct::AppCode {
                name: self.name,
                code: self.code,
            },
            "passkey" => SecurityAct::Passkey,
            "passkey-made" => SecurityAct::PasskeyMade {
                name: self.name,
                response: self.response,
            },
            "remove" => SecurityAct::Remove(self.id),
            "recovery" => SecurityAct::Recovery,
            "forget" => SecurityAct::Forget,
            "end-session" => SecurityAct::EndSession(self.id),
            _ => return Err(Refusal::Invalid("This page has no such act.".to_owned())),
        })
    }
}

pub(super) async fn secure<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, form) = split::<SecurityForm>(request).await;
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    let form = match pages.checked(form, |f| &f.csrf, &session) {
        Ok(form) => form,
        Err(refusal) => return pages.refused(&refusal, Some(&session), &seen),
    };
    let ctx = pages.context(&session, &seen, EntryPath::Link);
    let done = match form.act() {
        Ok(act) => pages.backend.secure(&ctx, act, &cookies(&parts.headers)).await,
        Err(refusal) => Err(refusal),
    };
    match done {
        Ok(Secured::Done(text)) => pages.security_page(&session, &seen, Some(text), false).await,
        Ok(Secured::App(app)) => {
            let page = pages.page("Authenticator app", Some(&session), "");
            let body = rendered(&AppPage {
                page: &page,
                csrf: &session.csrf,
                app: &app,
            });
            Html(body).into_response()
        }
        Ok(Secured::Passkey(options, set)) => {
            let asking = Asking {
                heading: "Add a passkey",
                options: &options,
                make: true,
                action: "/security",
                act: "passkey-made",
                csrf: &session.csrf,
                back: "/security",
            };
            let page = pages.page("Passkey", Some(&session), "");
            with_cookies(Html(render_passkey(&page, &asking)).into_response(), set)
        }
        Ok(Secured::Codes(codes)) => pages.codes_page(
            &session,
            &CodesShown {
                heading: "Recovery codes",
                text: "Each replaces the second factor once, together with the password. Print them or write them down, \
                       and keep them where your phone is not. They are not shown again, and earlier ones work no more.",
                numbered: false,
                codes: &codes,
                back: "/security",
            },
        ),
        Ok(Secured::Renewed(set)) => with_cookies(see_other("/security"), set),
        Err(Refusal::Confirm) => see_other("/confirm?to=security"),
        Err(Refusal::Invalid(text)) => pages.security_page(&session, &seen, Some(&text), true).await,
        Err(refusal) => pages.refused(&refusal, Some(&session), &seen),
    }
}

// ------------------------------------------------------------------ a proof again

/// Pages that a proof may lead back to: never an address out of the request.
/// Where a confirmed step leads: one of our own pages, never what somebody else wrote into an address.
fn target(to: &str) -> String {
    match to {
        "users" => "/users".to_owned(),
        _ => match to.strip_prefix("patients/") {
            Some(id) if is_id(id) => format!("/patients/{id}"),
            _ => "/security".to_owned(),
        },
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
pub(super) struct ConfirmForm {
    csrf: String,
    to: String,
    act: String,
    password: String,
    code: String,
    response: String,
}

pub(super) async fn confirm_form<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let (session, _) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    let asked = parts
        .uri
        .query()
        .and_then(|q| q.strip_prefix("to="))
        .unwrap_or_default();
    pages.confirm_page(&session, target(asked).trim_start_matches('/'), None)
}

pub(super) async fn confirm<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, form) = split::<ConfirmForm>(request).await;
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    let form = match pages.checked(form, |f| &f.csrf, &session) {
        Ok(form) => form,
        Err(refusal) => return pages.refused(&refusal, Some(&session), &seen),
    };
    let to = target(&form.to);
    let act = match form.act.as_str() {
        "ask-passkey" => SecurityAct::AskPasskey,
        _ if !form.response.is_empty() => SecurityAct::ConfirmPasskey(form.response),
        _ if !form.code.trim().is_empty() => SecurityAct::ConfirmCode(form.code),
        _ => SecurityAct::ConfirmPassword(form.password),
    };
    let ctx = pages.context(&session, &seen, EntryPath::Link);
    match pages.backend.secure(&ctx, act, &cookies(&parts.headers)).await {
        Ok(Secured::Renewed(set)) => with_cookies(lead(&to), set),
        Ok(Secured::Passkey(options, set)) => {
            let asking = Asking {
                heading: "Confirm with a passkey",
                options: &options,
                make: false,
                action: "/confirm",
                act: to.trim_start_matches('/'),
                csrf: &session.csrf,
                back: &to,
            };
            let page = pages.page("Passkey", Some(&session), "");
            with_cookies(Html(render_passkey(&page, &asking)).into_response(), set)
        }
        Ok(_) => lead(&to),
        Err(Refusal::SecondFactor | Refusal::SignIn) => {
            let message = "That did not work. After several tries in a row it takes longer until the next one counts.";
            pages.confirm_page(&session, to.trim_start_matches('/'), Some(message))
        }
        Err(refusal) => pages.refused(&refusal, Some(&session), &seen),
    }
}

// ------------------------------------------------------------------ accounts

pub(super) async fn users<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    match pages.signed_in(&parts).await {
        Ok((session, seen)) => pages.users_page(&session, &seen, None, false).await,
        Err(to) => *to,
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
pub(super) struct UserForm {
    csrf: String,
    act: String,
    id: String,
    display: String,
    role: String,
    about: String,
    email: String,
}

impl UserForm {
    fn act(self) -> Result<UserAct, Refusal> {
        let id = self.id.trim().to_owned();
        Ok(match self.act.as_str() {
            "invite" => UserAct::Invite {
                id,
                display: self.display.trim().to_owned(),
                role: self.role,
                about: self.about.trim().to_owned(),
                email: self.email.trim().to_owned(),
            },
            "activate" => UserAct::Activate(id),
            "release" => UserAct::Release(id),
            "card" => UserAct::Card(id),
            "sign-out" => UserAct::SignOut(id),
            "suspend" => UserAct::Suspend(id),
            "resume" => UserAct::Resume(id),
            "end" => UserAct::End(id),
            _ => return Err(Refusal::Invalid("This page has no such act.".to_owned())),
        })
    }
}

pub(super) async fn manage<B: Backend>(State(pages): Shared<B>, request: Request) -> Response {
    let (parts, form) = split::<UserForm>(request).await;
    let (session, seen) = match pages.signed_in(&parts).await {
        Ok(found) => found,
        Err(to) => return *to,
    };
    let form = match pages.checked(form, |f| &f.csrf, &session) {
        Ok(form) => form,
        Err(refusal) => return pages.refused(&refusal, Some(&session), &seen),
    };
    let ctx = pages.context(&session, &seen, EntryPath::Link);
    let done = match form.act() {
        Ok(act) => pages.backend.manage(&ctx, act).await,
        Err(refusal) => Err(refusal),
    };
    match done {
        Ok(Managed::Done(text)) => pages.users_page(&session, &seen, Some(text), false).await,
        Ok(Managed::Code { code, expires }) => {
            let text = format!(
                "Hand it over in person, to somebody whose identity you have checked. It works once, until {}, on the \
                 sign-in page, and leads to choosing a password and a second factor. It is not shown again.",
                instant(expires)
            );
            pages.codes_page(
                &session,
                &CodesShown {
                    heading: "Activation code",
                    text: &text,
                    numbered: false,
                    codes: &[code],
                    back: "/users",
                },
            )
        }
        Ok(Managed::Card(codes)) => pages.codes_page(
            &session,
            &CodesShown {
                heading: "Code card",
                text: "Print this page and hand it over in person. The codes are used in their order, each once, as a \
                       second factor beside the password. They are not shown again, and an earlier card works no more.",
                numbered: true,
                codes: &codes,
                back: "/users",
            },
        ),
        Err(Refusal::Confirm) => see_other("/confirm?to=users"),
        Err(Refusal::Invalid(text)) => pages.users_page(&session, &seen, Some(&text), true).await,
        Err(refusal) => pages.refused(&refusal, Some(&session), &seen),
    }
}

/// Whether a session may enrol and nothing else: its start page is that of its security.
pub(super) fn is_enrolling(session: &Session) -> bool {
    session.actor.assurance < Assurance::TwoFactors
}

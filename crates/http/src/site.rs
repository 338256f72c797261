//! What the pages need, over the door and identity.

use crate::pages::backend::{
    Access, AccessLog, Backend, Checkpoint, Client, Compartment, DemoLogin, Fact, Find, Granted, Group, Key, Level,
    Managed, Mark, Member, Next, Offered, Patients, Provider, Refusal, Review, Secured, Security, SecurityAct, Seen,
    Session, SessionLine, SignIn, Site, Step, UserAct, role_words,
};
use crate::{App, CERTIFICATE_WARNING_DAYS};
use axum::extract::connect_info::ConnectInfo;
use axum::http::request::Parts;
use keepwell_identity::sso::{Arrived, Callback, Flaw, SsoFault};
use keepwell_identity::{
    Account, AccountState, Activation, Activity, Denied, DocumentError, Fault, Offers, OpenedSession, Proof, SignedIn,
    cookie::{self, Kind},
    oauth,
};
use keepwell_model::actor::{Actor, Assurance, Context, EntryPath, Place, PurposeOfUse, Role};
use keepwell_model::json::{self, Value};
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_record::{Answer, PART_2_NOTICE, ReadOptions, SearchRequest};
use std::net::SocketAddr;
use std::sync::Arc;

/// The pages' way in.
pub(crate) struct PagesBackend {
    app: Arc<App>,
    site: Site,
}

impl PagesBackend {
    pub(crate) fn new(app: Arc<App>) -> Self {
        let site = Site {
            secure: app.secure,
            demo: app.site.demo,
        };
        Self { app, site }
    }

    /// One search by the signed-in person.
    async fn search(
        &self,
        ctx: &Context,
        t: ResourceType,
        compartment: Option<(ResourceType, &str)>,
        params: &[(&str, String)],
    ) -> Result<Hits, Refusal> {
        let params: Vec<(String, String)> = params.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        let base = format!("{}/fhir", self.app.origin);
        let request = SearchRequest {
            resource_type: t,
            compartment,
            params: &params,
            lenient: false,
            base: &base,
        };
        let answer = self.app.door.search(ctx, &request).await.map_err(refusal)?;
        let notice = notice(&answer);
        let text = text(answer.body)?;
        let bundle = json::parse(&text).map_err(|_| Refusal::Failed)?;
        let more = bundle
            .get("link")
            .and_then(Value::items)
            .is_some_and(|l| l.iter().any(|x| x.str("relation") == Some("next")));
        let texts = bundle
            .get("entry")
            .and_then(Value::items)
            .unwrap_or_default()
            .iter()
            .filter(|e| e.get("search").and_then(|s| s.str("mode")) == Some("match"))
            .filter_map(|e| e.get("resource"))
            .map(Value::to_string)
            .collect();
        Ok(Hits { texts, more, notice })
    }

    /// A Patient, and what must be said with it.
    async fn patient(&self, ctx: &Context, id: &str) -> Result<(String, &'static str), Refusal> {
        let t = patient_type()?;
        let answer = self
            .app
            .door
            .read(ctx, t, id, &ReadOptions::default())
            .await
            .map_err(refusal)?;
        let notice = notice(&answer);
        Ok((text(answer.body)?, notice))
    }

    /// A session is open: the one before ends, and nothing of the sign-in stays.
    fn signed_in(&self, done: SignedIn, cookies: &str) -> Step {
        let tls = self.app.secure;
        if let Some(old) = cookie::read(Kind::Session, cookies, tls) {
            self.app.identity.drop_session(old);
        }
        let mut set = self.renewed(&done.opened);
        set.extend(done.device.map(|new| {
            let all = cookie::with_device(cookie::read(Kind::Device, cookies, tls), &new);
            cookie::set(Kind::Device, &all, tls)
        }));
        Step {
            cookies: set,
            next: Next::Start,
        }
    }

    /// The cookies of a session's new secret.
    fn renewed(&self, opened: &OpenedSession) -> Vec<String> {
        let tls = self.app.secure;
        vec![
            cookie::set(Kind::Session, &opened.secret, tls),
            cookie::clear(Kind::Stage, tls),
        ]
    }

    /// One answer for every flaw: which it was stands in the server's own log. Strangers are counted in the log of
    /// accesses; what is about an account is there already.
    async fn not_by_provider(&self, e: SsoFault, seen: &keepwell_identity::Seen) -> Refusal {
        match e {
            SsoFault::Refused(flaw) => {
                tracing::info!(request = %seen.request_id, %flaw, "a sign-in by an identity provider was refused");
                if flaw != Flaw::Account && self.app.strangers.count(&self.app, seen.network.clone()).await.is_err() {
                    return denied(DocumentError::Unavailable.into());
                }
                Refusal::SignIn
            }
            SsoFault::Unreachable(_) => Refusal::Unavailable(
                "Your organisation's sign-in cannot be reached now. Sign in with your password and code, or with a \
                 passkey."
                    .to_owned(),
            ),
            SsoFault::Unavailable(e) => denied(e.into()),
        }
    }

    fn identity_seen(seen: &Seen) -> keepwell_identity::Seen {
        keepwell_identity::Seen {
            request_id: seen.request_id.clone(),
            network: seen.network.clone(),
        }
    }
}

/// What a search gave.
#[derive(Default)]
struct Hits {
    /// The matches as JSON.
    texts: Vec<String>,
    /// There are more.
    more: bool,
    /// What must be said with them; empty for nothing.
    notice: &'static str,
}

/// What must be said with an answer; empty for nothing.
fn notice(answer: &Answer) -> &'static str {
    if answer.part_2 { PART_2_NOTICE } else { "" }
}

fn text(body: Vec<u8>) -> Result<String, Refusal> {
    String::from_utf8(body).map_err(|_| Refusal::Failed)
}

/// The search parameter that dates a resource of this type for the person who reads a chart.
fn dated_by(t: ResourceType) -> &'static str {
    match t.name() {
        "Condition" => "recorded-date",
        "MedicationRequest" => "authoredon",
        "MedicationStatement" => "effective",
        "MedicationAdministration" => "effective-time",
        "Goal" => "start-date",
        "Claim" | "ClaimResponse" => "created",
        "RelatedPerson" | "Coverage" => "_lastUpdated",
        _ => "date",
    }
}

fn patient_type() -> Result<ResourceType, Refusal> {
    ResourceType::from_name("Patient").ok_or(Refusal::Failed)
}

fn refusal(e: keepwell_record::Refusal) -> Refusal {
    let text = e.issues.first().map(|i| i.diagnostics.clone()).unwrap_or_default();
    match e.status {
        // A fresh proof of a factor is wanted (IssueType `login`), not another role.
        403 if e.issues.first().is_some_and(|i| i.code == "login") => Refusal::Confirm,
        403 => Refusal::Forbidden(text),
        404 | 410 => Refusal::NotFound,
        400 | 409 | 422 => Refusal::Invalid(text),
        503 => Refusal::Unavailable(text),
        _ => Refusal::Failed,
    }
}

/// What an identity provider answered. A member that stands twice makes all of it worth nothing.
fn callback(members: &[(String, String)]) -> Callback<'_> {
    let all = |name: &'static str| members.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str());
    if ["state", "code", "iss", "error"].iter().any(|n| all(n).count() > 1) {
        return Callback::default();
    }
    Callback {
        state: all("state").next().unwrap_or_default(),
        code: all("code").next(),
        iss: all("iss").next(),
        declined: all("error").next().is_some(),
    }
}

fn denied(e: Denied) -> Refusal {
    match e {
        Denied::SignIn => Refusal::SignIn,
        Denied::SecondFactor => Refusal::SecondFactor,
        Denied::Unavailable(_) => {
            Refusal::Unavailable("Signing in is not possible now. Try again in a minute.".to_owned())
        }
    }
}

fn fault(e: Fault) -> Refusal {
    match e {
        Fault::Forbidden(reason) => Refusal::Forbidden(reason),
        Fault::Confirm => Refusal::Confirm,
        Fault::Rule(text) => Refusal::Invalid(sentence(text)),
        Fault::Weak(weakness) => Refusal::Invalid(weakness.to_string()),
        Fault::Unavailable(_) => Refusal::Unavailable("This is not possible now. Try again in a minute.".to_owned()),
    }
}

/// An error's text as a sentence.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", chars.as_str())
}

/// A comma, bar, dollar sign or backslash is part of what a person types.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, ',' | '|' | '$' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

impl Backend for PagesBackend {
    fn site(&self) -> &Site {
        &self.site
    }

    fn now(&self) -> Timestamp {
        self.app.door.clock().now()
    }

    fn seen(&self, parts: &Parts) -> Seen {
        let network = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map_or_else(String::new, |c| c.0.ip().to_string());
        Seen {
            request_id: self.app.request_ids.give(),
            network,
        }
    }

    async fn session(&self, cookies: &str, _seen: &Seen) -> Option<Session> {
        let secret = cookie::read(Kind::Session, cookies, self.app.secure)?;
        let s = self.app.identity.session(secret, Activity::Person)?;
        Some(Session {
            actor: s.actor,
            csrf: s.csrf.to_string(),
        })
    }

    async fn sign_in(&self, how: SignIn, cookies: &str, seen: &Seen) -> Result<Step, Refusal> {
        let (identity, tls) = (&self.app.identity, self.app.secure);
        let seen = Self::identity_seen(seen);
        let stage = cookie::read(Kind::Stage, cookies, tls);
        let device = cookie::read(Kind::Device, cookies, tls);
        let going_on = |stage: &str, next| Step {
            cookies: vec![cookie::set(Kind::Stage, stage, tls)],
            next,
        };
        Ok(match how {
            SignIn::Password { user, password } => {
                let stage = identity.sign_in_password(&user, &password, device, &seen).await;
                going_on(&stage.map_err(denied)?, Next::Second)
            }
            SignIn::AskPasskey => {
                let asked = identity.passkey_challenge(stage).map_err(denied)?;
                going_on(&asked.stage, Next::Passkey(asked.options))
            }
            SignIn::Code(code) => {
                let done = identity.sign_in_code(stage.unwrap_or_default(), &code, &seen).await;
                self.signed_in(done.map_err(denied)?, cookies)
            }
            SignIn::Passkey(response) => {
                let stage = stage.unwrap_or_default();
                let done = identity.sign_in_passkey(stage, &response, device, &seen).await;
                self.signed_in(done.map_err(denied)?, cookies)
            }
            SignIn::Provider(id) => {
                let begun = identity.sso_begin(&id, device).await;
                let begun = match begun {
                    Ok(begun) => begun,
                    Err(e) => return Err(self.not_by_provider(e, &seen).await),
                };
                Step {
                    cookies: vec![cookie::set(Kind::Sso, &begun.stage, tls)],
                    next: Next::Elsewhere(begun.to),
                }
            }
            SignIn::ProviderAnswer(query) => {
                let members = keepwell_record::parse_query(&query).unwrap_or_default();
                let stage = cookie::read(Kind::Sso, cookies, tls).unwrap_or_default();
                let arrived = identity.sso_arrive(stage, callback(&members), &seen).await;
                let mut step = match arrived {
                    Err(e) => return Err(self.not_by_provider(e, &seen).await),
                    Ok(Arrived::Session(done)) => Step {
                        next: Next::Landed("/"),
                        ..self.signed_in(*done, cookies)
                    },
                    Ok(Arrived::Second(stage)) => going_on(&stage, Next::Landed("/sign-in/second")),
                };
                step.cookies.push(cookie::clear(Kind::Sso, tls));
                step
            }
            SignIn::Activation(code) => {
                let opened = identity.activate(&code, &seen).await.map_err(denied)?;
                self.signed_in(SignedIn { opened, device: None }, cookies)
            }
        })
    }

    fn second_step(&self, cookies: &str) -> Option<Offers> {
        let stage = cookie::read(Kind::Stage, cookies, self.app.secure)?;
        self.app.identity.second_step(stage).ok().flatten()
    }

    fn providers(&self) -> Vec<Provider> {
        let all = self.app.identity.sign_in_providers().into_iter();
        all.map(|(id, display)| Provider { id, display }).collect()
    }

    fn logins(&self) -> Vec<DemoLogin> {
        let codes = self.app.identity.demo_logins(self.app.loopback).unwrap_or_default();
        let known = self.app.site.logins.iter();
        known
            .filter_map(|l| {
                let (_, code) = codes.iter().find(|(a, _)| a.id == l.user)?;
                Some(DemoLogin {
                    user: l.user.clone(),
                    password: l.password.clone(),
                    code: code.clone(),
                    display: l.display.clone(),
                    role: l.role,
                    try_this: l.try_this.clone(),
                })
            })
            .collect()
    }

    async fn security(&self, ctx: &Context) -> Result<Security, Refusal> {
        let identity = &self.app.identity;
        let enrolled = identity.enrolled(ctx).await.map_err(fault)?;
        let sessions = identity.list_sessions(ctx, Some(&ctx.actor.id)).await.map_err(fault)?;
        let sessions = sessions
            .into_iter()
            .map(|s| SessionLine {
                here: s.id == ctx.actor.session,
                id: s.id,
                opened: s.opened,
                active: s.active,
                network: s.network,
            })
            .collect();
        Ok(Security {
            enrolled,
            sessions,
            enrolling: ctx.actor.assurance < Assurance::TwoFactors,
        })
    }

    async fn secure(&self, ctx: &Context, act: SecurityAct, cookies: &str) -> Result<Secured, Refusal> {
        let (identity, tls) = (&self.app.identity, self.app.secure);
        let stage = cookie::read(Kind::Stage, cookies, tls).unwrap_or_default();
        let again = async |proof: Proof<'_>| {
            let opened = identity.reauthenticate(ctx, proof).await.map_err(denied)?;
            Ok(Secured::Renewed(self.renewed(&opened)))
        };
        Ok(match act {
            SecurityAct::Password(new) => Secured::Done(identity.set_password(ctx, &new).await.map_err(fault)?),
            SecurityAct::App => Secured::App(identity.begin_app(ctx).await.map_err(fault)?),
            SecurityAct::AppCode { name, code } => {
                identity.finish_app(ctx, &name, &code).await.map_err(fault)?;
                Secured::Done("The authenticator app is added.")
            }
            SecurityAct::Passkey => {
                let options = identity.begin_passkey(ctx).await.map_err(fault)?;
                Secured::Passkey(options, Vec::new())
            }
            SecurityAct::PasskeyMade { name, response } => {
                identity.finish_passkey(ctx, &name, &response).await.map_err(fault)?;
                Secured::Done("The passkey is added.")
            }
            SecurityAct::Remove(id) => {
                identity.remove_factor(ctx, &id).await.map_err(fault)?;
                Secured::Done("It is removed.")
            }
            SecurityAct::Recovery => Secured::Codes(identity.new_recovery_codes(ctx).await.map_err(fault)?),
            SecurityAct::Forget => {
                identity.forget_devices(ctx).await.map_err(fault)?;
                Secured::Done("No device counts as known any more.")
            }
            SecurityAct::EndSession(id) => {
                identity.end_session(ctx, &id).await.map_err(fault)?;
                Secured::Done("The session has ended.")
            }
            SecurityAct::AskPasskey => {
                let asked = identity.passkey_challenge(None).map_err(denied)?;
                Secured::Passkey(asked.options, vec![cookie::set(Kind::Stage, &asked.stage, tls)])
            }
            SecurityAct::ConfirmPassword(password) => again(Proof::Password(&password)).await?,
            SecurityAct::ConfirmCode(code) => again(Proof::Code(&code)).await?,
            SecurityAct::ConfirmPasskey(response) => {
                again(Proof::Passkey {
                    stage,
                    response: &response,
                })
                .await?
            }
        })
    }

    async fn users(&self, ctx: &Context) -> Result<Vec<Member>, Refusal> {
        let accounts = self.app.identity.accounts(ctx).await.map_err(fault)?;
        let waiting = self.app.identity.waiting_activations(ctx).await.map_err(fault)?;
        let administrator = ctx.actor.role == Role::Administrator;
        let sessions = if administrator || ctx.actor.role == Role::SecurityOfficer {
            self.app.identity.list_sessions(ctx, None).await.map_err(fault)?
        } else {
            Vec::new()
        };
        let member = |a: Account| {
            let waits = waiting.iter().find(|w| w.user == a.id);
            let mut acts = Vec::new();
            if waits.is_some_and(|w| w.started_by != ctx.actor.id) && a.id != ctx.actor.id {
                acts.push(("release", "Give the activation code"));
            }
            let open = sessions.iter().filter(|s| s.user == a.id).count();
            if open > 0 && a.id != ctx.actor.id {
                acts.push(("sign-out", "End sessions"));
            }
            if administrator && a.id != ctx.actor.id {
                match a.state {
                    AccountState::Invited if waits.is_none() => acts.push(("activate", "Ask for an activation code")),
                    AccountState::Active if waits.is_none() => acts.push(("activate", "Authenticators are lost")),
                    AccountState::Suspended => acts.push(("resume", "Resume")),
                    _ => {}
                }
                if matches!(a.state, AccountState::Invited | AccountState::Active) {
                    acts.push(("card", "Print a code card"));
                    acts.push(("suspend", "Suspend"));
                }
                if a.state != AccountState::Ended {
                    acts.push(("end", "End for good"));
                }
            }
            Member {
                sessions: open,
                waiting: waits.map(|w| w.started_by.clone()),
                role: role_words(a.role),
                state: match a.state {
                    AccountState::Invited => "invited",
                    AccountState::Active => "active",
                    AccountState::Suspended => "suspended",
                    AccountState::Ended => "ended",
                },
                id: a.id,
                display: a.display,
                acts,
            }
        };
        Ok(accounts.into_iter().map(member).collect())
    }

    async fn manage(&self, ctx: &Context, act: UserAct) -> Result<Managed, Refusal> {
        let identity = &self.app.identity;
        let code = |code: keepwell_identity::Code| Managed::Code {
            code: code.code,
            expires: code.expires,
        };
        Ok(match act {
            UserAct::Invite {
                id,
                display,
                role,
                about,
                email,
            } => {
                let role = Role::from_name(&role).ok_or(Refusal::Invalid("There is no such role.".to_owned()))?;
                let about = Some(about).filter(|a| !a.is_empty());
                let mut account = Account::new(&id, &display, role, None);
                if role == Role::Patient {
                    account.patient = about;
                } else {
                    account.practitioner = about;
                }
                account.email = Some(email).filter(|e| !e.is_empty());
                identity.create_account(ctx, &account).await.map_err(fault)?;
                // The activation waits for the second person from now on.
                match identity.start_activation(ctx, &id).await.map_err(fault)? {
                    Activation::Code(given) => code(given),
                    Activation::Waits => {
                        Managed::Done("The account is made. Somebody else gives its owner the activation code.")
                    }
                }
            }
            UserAct::Activate(id) => match identity.start_activation(ctx, &id).await.map_err(fault)? {
                Activation::Code(given) => code(given),
                Activation::Waits => Managed::Done("Asked for. Somebody else gives the activation code."),
            },
            UserAct::Release(id) => code(identity.release_activation(ctx, &id).await.map_err(fault)?),
            UserAct::Card(id) => Managed::Card(identity.issue_card(ctx, &id).await.map_err(fault)?),
            UserAct::SignOut(id) => {
                for session in identity.list_sessions(ctx, Some(&id)).await.map_err(fault)? {
                    identity.end_session(ctx, &session.id).await.map_err(fault)?;
                }
                Managed::Done("The sessions have ended.")
            }
            UserAct::Suspend(id) => {
                identity.suspend_account(ctx, &id).await.map_err(fault)?;
                Managed::Done("The account is suspended; its sessions and tokens have ended.")
            }
            UserAct::Resume(id) => {
                identity.resume_account(ctx, &id).await.map_err(fault)?;
                Managed::Done("The account is resumed.")
            }
            UserAct::End(id) => {
                identity.end_account(ctx, &id).await.map_err(fault)?;
                Managed::Done("The account has ended; its sessions and tokens with it.")
            }
        })
    }

    async fn sign_out(&self, session: &Session, seen: &Seen) -> String {
        let ctx = context(&session.actor, seen, self.now());
        if let Err(e) = self.app.identity.sign_out(&ctx).await {
            tracing::error!(error = %e, "a sign-out could not be recorded");
        }
        cookie::clear(Kind::Session, self.app.secure)
    }

    async fn find(&self, ctx: &Context, asked: &Find, limit: usize) -> Result<Patients, Refusal> {
        let t = patient_type()?;
        let mut params = vec![("_count", limit.to_string()), ("_sort", "family,given".to_owned())];
        for word in asked.name.split_whitespace() {
            params.push(("name", escaped(word)));
        }
        if !asked.birth_date.is_empty() {
            params.push(("birthdate", asked.birth_date.clone()));
        }
        let ctx = Context {
            entry: EntryPath::Search,
            ..ctx.clone()
        };
        if asked.identifier.is_empty() {
            let Hits { texts, notice, .. } = self.search(&ctx, t, None, &params).await?;
            return Ok(Patients { texts, notice });
        }
        // A number is one of the patient's own, or of an insurance. Whoever may not see insurances finds nobody by one.
        params.push(("identifier", escaped(&asked.identifier)));
        let Hits { texts, notice, .. } = self.search(&ctx, t, None, &params).await?;
        let mut found = Patients { texts, notice };
        params.pop();
        params.push(("_has:Coverage:beneficiary:identifier", escaped(&asked.identifier)));
        let insured = self.search(&ctx, t, None, &params).await?;
        for text in insured.texts {
            if !found.texts.contains(&text) {
                found.texts.push(text);
            }
        }
        if !insured.notice.is_empty() {
            found.notice = insured.notice;
        }
        found.texts.truncate(limit);
        Ok(found)
    }

    async fn patients(&self, ctx: &Context, ids: &[String]) -> Result<Patients, Refusal> {
        let mut out = Patients::default();
        for id in ids {
            match self.patient(ctx, id).await {
                Ok((text, notice)) => {
                    out.texts.push(text);
                    if !notice.is_empty() {
                        out.notice = notice;
                    }
                }
                // The relationship, or the emergency access, has ended.
                Err(Refusal::NotFound | Refusal::Forbidden(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(out)
    }

    async fn compartment(
        &self,
        ctx: &Context,
        id: &str,
        wanted: &[(ResourceType, usize)],
    ) -> Result<Compartment, Refusal> {
        let (patient, notice) = self.patient(ctx, id).await?;
        let mut out = Compartment {
            patient,
            notice,
            ..Compartment::default()
        };
        let owner = patient_type()?;
        for (t, most) in wanted {
            let params = [("_count", most.to_string()), ("_sort", format!("-{}", dated_by(*t)))];
            match self.search(ctx, *t, Some((owner, id)), &params).await {
                Ok(hits) => {
                    out.resources.extend(hits.texts);
                    if hits.more {
                        out.capped.push(*t);
                    }
                    if !hits.notice.is_empty() {
                        out.notice = hits.notice;
                    }
                }
                Err(Refusal::Forbidden(_)) => out.withheld.push(*t),
                Err(Refusal::NotFound) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(out)
    }

    async fn access_log(&self, ctx: &Context, id: &str, limit: usize) -> Result<AccessLog, Refusal> {
        let (lines, answer) = self.app.door.access_log_of(ctx, id, limit + 1).await.map_err(refusal)?;
        let notice = notice(&answer);
        let patient = text(answer.body)?;
        let more = lines.len() > limit;
        let entries = lines
            .into_iter()
            .take(limit)
            .map(|l| Access {
                number: l.seq,
                at: l.at,
                who: if l.access.display.is_empty() {
                    l.access.user.clone()
                } else {
                    l.access.display.clone()
                },
                role: l.access.role,
                purpose: l.access.purpose.code().to_owned(),
                reason: l.access.reason.clone(),
                what: match l.access.resource_type {
                    Some(t) => format!("{} {t}", l.access.action.name()),
                    None => l.access.action.name().to_owned(),
                },
                from: l.access.network.clone(),
                refused: l.access.status >= 400,
                mark: if l.verified { Mark::Proven } else { Mark::Failed },
            })
            .collect();
        let note = self.app.door.ledger().checkpoint();
        let mut rows = note.lines();
        let checkpoint = match (rows.next(), rows.next().and_then(|n| n.parse().ok()), rows.next()) {
            (Some(origin), Some(size), Some(root)) => Some(Checkpoint {
                origin: origin.to_owned(),
                size,
                root: root.to_owned(),
                at: String::new(),
            }),
            _ => None,
        };
        Ok(AccessLog {
            patient,
            entries,
            more,
            checkpoint,
            notice,
        })
    }

    async fn offer(&self, ctx: &Context, id: &str) -> Option<Offered> {
        let offer = self.app.door.offers(ctx, id)?;
        let params = [("_id", id.to_owned())];
        let found = self.search(ctx, patient_type().ok()?, None, &params).await.ok()?;
        Some(Offered {
            patient: found.texts.into_iter().next()?,
            stated: offer.stated,
        })
    }

    async fn break_glass(&self, ctx: &Context, id: &str, code: &str, text: &str) -> Result<(), Refusal> {
        let done = self.app.door.break_glass(ctx, id, code, text).await;
        done.map(|_| ()).map_err(refusal)
    }

    async fn state_reason(&self, ctx: &Context, id: &str, code: &str) -> Result<(), Refusal> {
        let done = self.app.door.state_reason(ctx, id, code).await;
        done.map(|_| ()).map_err(refusal)
    }

    async fn end_access(&self, ctx: &Context, id: &str) -> Result<(), Refusal> {
        self.app.door.end_access(ctx, id).await.map_err(refusal)
    }

    fn emergencies(&self, actor: &Arc<Actor>) -> Vec<Granted> {
        self.app.door.emergencies(&context(actor, &Seen::default(), self.now()))
    }

    async fn reviews(&self, ctx: &Context) -> Result<Vec<Review>, Refusal> {
        self.app.door.reviews(ctx).await.map_err(refusal)
    }

    async fn review(&self, ctx: &Context, id: &str, justified: bool, note: &str) -> Result<(), Refusal> {
        self.app.door.review(ctx, id, justified, note).await.map_err(refusal)
    }

    async fn status(&self, ctx: &Context) -> Result<Vec<Group>, Refusal> {
        self.app.door.status_for(ctx).await.map_err(refusal)?;
        let s = self.app.door.ledger().status();
        let fact = |label: &str, value: String, level: Level| Fact {
            label: label.to_owned(),
            value,
            code: false,
            level,
        };
        let stopped = match &s.stopped {
            None => fact("Writing", "possible".to_owned(), Level::Good),
            Some(why) => fact("Writing", why.to_string(), Level::Bad),
        };
        let note = self.app.door.ledger().checkpoint();
        let root = note.lines().nth(2).unwrap_or_default().to_owned();
        let mut groups = vec![
            Group {
                title: "Record".to_owned(),
                facts: vec![
                    fact("Sealed rows", s.rows.to_string(), Level::Plain),
                    fact(
                        "Index in memory",
                        format!("{} kB", self.app.door.index_bytes() / 1024),
                        Level::Plain,
                    ),
                    stopped,
                ],
            },
            Group {
                title: "Access log".to_owned(),
                facts: vec![
                    fact("Entries", s.entries.to_string(), Level::Plain),
                    Fact {
                        label: "Newest signed root".to_owned(),
                        value: root,
                        code: true,
                        level: Level::Plain,
                    },
                ],
            },
            Group {
                title: "Keys".to_owned(),
                facts: vec![
                    fact(
                        "Patients and others with a key of their own",
                        s.slots_active.to_string(),
                        Level::Plain,
                    ),
                    fact("Keys made ahead", s.slots_free.to_string(), Level::Plain),
                    fact("Keys destroyed", s.slots_destroyed.to_string(), Level::Plain),
                    fact("Keyring revision", s.keyring_revision.to_string(), Level::Plain),
                    fact("Unlocked by", s.custody.join(", "), Level::Plain),
                ],
            },
        ];
        let waiting = self.app.door.reviews_waiting(self.now()).map_err(refusal)?;
        let level = match (waiting.overdue, waiting.ignored) {
            (0, _) => Level::Plain,
            (_, 0) => Level::Warn,
            _ => Level::Bad,
        };
        groups.push(Group {
            title: "Emergency access".to_owned(),
            facts: vec![
                fact("Waiting for review", waiting.open.to_string(), Level::Plain),
                fact("Review overdue", waiting.overdue.to_string(), level),
            ],
        });
        if let Some(ends) = &self.app.certificate_ends {
            let (value, level) = certificate(ends.get(), self.now());
            groups.push(Group {
                title: "Certificate".to_owned(),
                facts: vec![fact("Good until", value, level)],
            });
        }
        Ok(groups)
    }

    async fn clients(&self, ctx: &Context) -> Result<Vec<Client>, Refusal> {
        let now = self.now();
        let all = self.app.identity.clients(ctx).await.map_err(fault)?;
        Ok(all.iter().map(|c| client(c, now)).collect())
    }

    async fn client(&self, ctx: &Context, id: &str) -> Result<Client, Refusal> {
        let found = self.app.identity.client(ctx, id).await.map_err(fault)?;
        Ok(client(&found, self.now()))
    }

    async fn end_client(&self, ctx: &Context, id: &str) -> Result<(), Refusal> {
        self.app.identity.end_client(ctx, id).await.map_err(fault)
    }
}

/// A client in words.
fn client(c: &oauth::Client, now: Timestamp) -> Client {
    let in_time = |expires: i64| if now.0 < expires { "active" } else { "expired" };
    let open = c.state == oauth::ClientState::Active;
    let keys = c.keys.iter().map(|k| Key {
        kid: k.kid.clone(),
        algorithm: k.key.algorithm(),
        expires: Timestamp(k.expires).to_string(),
        state: in_time(k.expires),
    });
    Client {
        id: c.id.clone(),
        display: c.display.clone(),
        scope: c.scope.clone(),
        created: Timestamp(c.created).to_string(),
        expires: Timestamp(c.expires).to_string(),
        state: if open { in_time(c.expires) } else { "ended" },
        open,
        keys: keys.collect(),
    }
}

/// How the certificate stands, in words.
fn certificate(ends: Timestamp, now: Timestamp) -> (String, Level) {
    let days = (ends.0 - now.0).div_euclid(86_400_000);
    let level = match days {
        ..0 => Level::Bad,
        d if d < CERTIFICATE_WARNING_DAYS => Level::Warn,
        _ => Level::Good,
    };
    let how = if days < 0 {
        "ended".to_owned()
    } else {
        format!("{days} days")
    };
    (format!("{ends} ({how})"), level)
}

fn context(actor: &Arc<Actor>, seen: &Seen, at: Timestamp) -> Context {
    Context {
        actor: Arc::clone(actor),
        purpose: PurposeOfUse::Operations,
        entry: EntryPath::Link,
        request_id: seen.request_id.clone(),
        network: seen.network.clone(),
        device: String::new(),
        unit: String::new(),
        roster: String::new(),
        reason: String::new(),
        print: false,
        place: Place::Unknown,
        export: false,
        at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_about_before_it_ends() {
        let now = Timestamp(1_795_381_200_000);
        let at = |days: i64| certificate(Timestamp(now.0 + days * 86_400_000), now).1;
        assert_eq!(
            [at(-1), at(0), at(29), at(30), at(400)],
            [Level::Bad, Level::Warn, Level::Warn, Level::Good, Level::Good]
        );
    }
}

//! What the pages need from the rest of Keepwell: one small trait, and the plain types it speaks.
//!
//! The pages hold no rights of their own. Every method that shows something about a patient takes the [`Context`] of the
//! signed-in person; the implementation goes through `record`, which authorizes, and logs before anything comes back.

use axum::http::request::Parts;
use keepwell_model::actor::{Actor, Context, Role};
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use std::future::Future;
use std::sync::Arc;

/// The doors behind the pages. Methods may run concurrently.
///
/// A returned body has been authorized and its audit entry is as durable as `record` promises; an error means that
/// nothing was shown. A resource the person may not know about is [`Refusal::NotFound`], like one that is not there.
pub trait Backend: Send + Sync + 'static {
    /// What does not change while the server runs.
    fn site(&self) -> &Site;

    /// The current time.
    fn now(&self) -> Timestamp;

    /// Request id and source address of a request, as the API uses them.
    fn seen(&self, parts: &Parts) -> Seen;

    /// The session of a `Cookie` header, kept alive by this request; `None` when it ended or never was.
    fn session(&self, cookies: &str, seen: &Seen) -> impl Future<Output = Option<Session>> + Send;

    /// Signs in and returns the whole `Set-Cookie` value of the new session. Any session of `cookies` ends: the id is
    /// new at each sign-in. Wrong, used and expired codes are all [`Refusal::SignIn`].
    fn sign_in(&self, how: SignIn, cookies: &str, seen: &Seen) -> impl Future<Output = Result<String, Refusal>> + Send;

    /// Ends the session at the server, durably, and returns the `Set-Cookie` value that clears the cookie.
    fn sign_out(&self, session: &Session, seen: &Seen) -> impl Future<Output = String> + Send;

    /// Patients that match all given fields, by name, at most `limit`; each shown one is logged.
    fn find(&self, ctx: &Context, asked: &Find, limit: usize)
    -> impl Future<Output = Result<Patients, Refusal>> + Send;

    /// The Patient resources of these ids, in that order, leaving out what cannot be read (any more).
    fn patients(&self, ctx: &Context, ids: &[String]) -> impl Future<Output = Result<Patients, Refusal>> + Send;

    /// A patient and the newest resources of the wanted types by what they are dated, each type up to its number. Types the role may not see
    /// are named in [`Compartment::withheld`] rather than refused.
    fn compartment(
        &self,
        ctx: &Context,
        id: &str,
        wanted: &[(ResourceType, usize)],
    ) -> impl Future<Output = Result<Compartment, Refusal>> + Send;

    /// Who looked at the record, newest first, at most `limit` entries, each already checked against the checkpoint.
    /// Reading the log is itself an access and is logged.
    fn access_log(
        &self,
        ctx: &Context,
        id: &str,
        limit: usize,
    ) -> impl Future<Output = Result<AccessLog, Refusal>> + Send;

    /// Keys, log and storage in words, without any patient.
    fn status(&self, ctx: &Context) -> impl Future<Output = Result<Vec<Group>, Refusal>> + Send;
}

/// What does not change while the server runs.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Served over TLS: pages are used under the site's own name and 127.0.0.1 is not redirected.
    pub secure: bool,
    /// The demo clinic: the footer says so.
    pub demo: bool,
    /// Logins offered on the sign-in page; empty outside the demo.
    pub logins: Vec<DemoLogin>,
}

/// A login that the demo's sign-in page offers.
#[derive(Clone, Debug)]
pub struct DemoLogin {
    /// Account id, sent back as [`SignIn::Demo`].
    pub user: String,
    /// Name shown.
    pub display: String,
    /// Role.
    pub role: Role,
    /// What this login is good for.
    pub try_this: String,
}

impl DemoLogin {
    /// The role in words.
    #[must_use]
    pub fn role_words(&self) -> &'static str {
        role_words(self.role)
    }
}

/// A role as people say it.
#[must_use]
pub fn role_words(role: Role) -> &'static str {
    match role {
        Role::Physician => "physician",
        Role::Nurse => "nurse",
        Role::FrontDesk => "front desk",
        Role::Billing => "billing",
        Role::RecordsClerk => "records clerk",
        Role::PrivacyOfficer => "privacy officer",
        Role::SecurityOfficer => "security officer",
        Role::Administrator => "administrator",
        Role::Patient => "patient",
        Role::Service => "service",
    }
}

/// Where a request came from.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The id that also stands in the answer's header and in the log.
    pub request_id: String,
    /// Source address without port.
    pub network: String,
}

/// Somebody is signed in.
#[derive(Clone, Debug)]
pub struct Session {
    /// Who; `actor.session` is the session's public id, never the cookie.
    pub actor: Arc<Actor>,
    /// The token every form of this session carries: at least 128 random bits, as long as the session.
    pub csrf: String,
}

/// How somebody signs in.
#[derive(Clone)]
pub enum SignIn {
    /// A one-time code of `keepwell login-link`.
    Code(String),
    /// A login of the demo list.
    Demo(String),
}

/// What to look for; empty fields do not count.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Find {
    /// Start of a first or last name, or several, separated by spaces: all must match.
    pub name: String,
    /// `YYYY`, `YYYY-MM` or `YYYY-MM-DD`.
    pub birth_date: String,
    /// A whole record number, or the number of an insurance the patient has, for roles that may see insurances.
    pub identifier: String,
}

/// Patients to be listed.
#[derive(Clone, Debug, Default)]
pub struct Patients {
    /// The Patient resources as JSON.
    pub texts: Vec<String>,
    /// What must be said with what is shown (42 CFR 2.32); empty for nothing.
    pub notice: &'static str,
}

/// A patient's resources as JSON texts.
#[derive(Clone, Debug, Default)]
pub struct Compartment {
    /// The Patient.
    pub patient: String,
    /// The others, in any order.
    pub resources: Vec<String>,
    /// Wanted types the role may not see.
    pub withheld: Vec<ResourceType>,
    /// Types of which there is more than was wanted.
    pub capped: Vec<ResourceType>,
    /// What must be said with what is shown (42 CFR 2.32); empty for nothing.
    pub notice: &'static str,
}

/// Who looked at a record.
#[derive(Clone, Debug, Default)]
pub struct AccessLog {
    /// The Patient as JSON.
    pub patient: String,
    /// Newest first.
    pub entries: Vec<Access>,
    /// There are older ones.
    pub more: bool,
    /// The signed checkpoint that the entries were checked against.
    pub checkpoint: Option<Checkpoint>,
    /// What must be said with what is shown (42 CFR 2.32); empty for nothing.
    pub notice: &'static str,
}

/// One entry of the log.
#[derive(Clone, Debug)]
pub struct Access {
    /// Place in the log.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// Name of the person or machine.
    pub who: String,
    /// Role; `None` when unknown (somebody without a sign-in).
    pub role: Option<Role>,
    /// Purpose of use as an ActReason code, such as `TREAT`.
    pub purpose: String,
    /// A stated reason, if any.
    pub reason: String,
    /// What was done to what, in words: `read Observation`, `search Patient by name`.
    pub what: String,
    /// Source address.
    pub from: String,
    /// It was refused.
    pub refused: bool,
    /// Outcome of the check.
    pub mark: Mark,
}

/// Whether an entry was proven to be in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Its inclusion proof leads to the root of the signed checkpoint.
    Proven,
    /// The proof fails: the log or the entry was changed.
    Failed,
}

/// A signed checkpoint whose signature was verified.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    /// Name of the log.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// Root hash, base64.
    pub root: String,
    /// When it was signed; empty where not known.
    pub at: String,
}

/// A heading of the status page with its facts.
#[derive(Clone, Debug)]
pub struct Group {
    /// Heading.
    pub title: String,
    /// Facts.
    pub facts: Vec<Fact>,
}

/// One fact of the status page.
#[derive(Clone, Debug)]
pub struct Fact {
    /// What.
    pub label: String,
    /// The value in words.
    pub value: String,
    /// Shown in a monospaced face: hashes, names of keys.
    pub code: bool,
    /// How it stands.
    pub level: Level,
}

/// How a fact stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Neither good nor bad.
    Plain,
    /// As it should be.
    Good,
    /// Somebody should look.
    Warn,
    /// Something is broken.
    Bad,
}

/// Why a page cannot be shown. Never holds patient data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not there, or not to be known about.
    NotFound,
    /// The role may not do this at all; the policy's reason in words.
    Forbidden(String),
    /// The code or login does not open anything.
    SignIn,
    /// The question cannot be answered as asked; a sentence for the person.
    Invalid(String),
    /// Sealed, read-only or overloaded: later perhaps; a sentence for the person.
    Unavailable(String),
    /// A fault inside; details are in the server's own log under the request id.
    Failed,
}

//! What the pages need from the rest of Keepwell: one small trait, and the plain types it speaks.
//!
//! The pages hold no rights of their own. Every method that shows something about a patient takes the [`Context`] of the
//! signed-in person; the implementation goes through `record`, which authorizes, and logs before anything comes back.

use axum::http::request::Parts;
use keepwell_identity::{Enrolled, Offers};
use keepwell_model::actor::{Actor, Context, Role};
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use std::future::Future;

pub use keepwell_record::{EMERGENCY_REASONS, GrantKind, Granted, Review, STATED_REASONS};
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

    /// Takes one step of a sign-in. When that opens a session, any session of `cookies` ends: the id is new at each
    /// sign-in. Whatever is wrong, unknown, used or expired is one and the same [`Refusal::SignIn`]; a wrong second
    /// factor is [`Refusal::SecondFactor`].
    fn sign_in(&self, how: SignIn, cookies: &str, seen: &Seen) -> impl Future<Output = Result<Step, Refusal>> + Send;

    /// What the second step of the sign-in under way can be done with; `None` where none is.
    fn second_step(&self, cookies: &str) -> Option<Offers>;

    /// The demo's logins with their codes of the moment; empty outside the demo.
    fn logins(&self) -> Vec<DemoLogin>;

    /// The identity providers that people may sign in by.
    fn providers(&self) -> Vec<Provider>;

    /// What the signed-in person has enrolled, and the open sessions.
    fn security(&self, ctx: &Context) -> impl Future<Output = Result<Security, Refusal>> + Send;

    /// Changes something of that, or proves a factor again.
    fn secure(
        &self,
        ctx: &Context,
        act: SecurityAct,
        cookies: &str,
    ) -> impl Future<Output = Result<Secured, Refusal>> + Send;

    /// The accounts, for whoever keeps them.
    fn users(&self, ctx: &Context) -> impl Future<Output = Result<Vec<Member>, Refusal>> + Send;

    /// Changes an account.
    fn manage(&self, ctx: &Context, act: UserAct) -> impl Future<Output = Result<Managed, Refusal>> + Send;

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

    /// Who a patient is whom the person may find but not open, and what they are offered; `None` for nothing. Logged like
    /// a search.
    fn offer(&self, ctx: &Context, id: &str) -> impl Future<Output = Option<Offered>> + Send;

    /// Breaks the glass: emergency access to this patient.
    fn break_glass(
        &self,
        ctx: &Context,
        id: &str,
        code: &str,
        text: &str,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// States a reason for opening this record.
    fn state_reason(&self, ctx: &Context, id: &str, code: &str) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Ends the own access to this patient.
    fn end_access(&self, ctx: &Context, id: &str) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// The emergency accesses of the person that run now: every page says so.
    fn emergencies(&self, actor: &Arc<Actor>) -> Vec<Granted>;

    /// The emergency accesses that wait for review, the soonest due first.
    fn reviews(&self, ctx: &Context) -> impl Future<Output = Result<Vec<Review>, Refusal>> + Send;

    /// Decides a review.
    fn review(
        &self,
        ctx: &Context,
        id: &str,
        justified: bool,
        note: &str,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Keys, log and storage in words, without any patient.
    fn status(&self, ctx: &Context) -> impl Future<Output = Result<Vec<Group>, Refusal>> + Send;

    /// The registered clients, by id.
    fn clients(&self, ctx: &Context) -> impl Future<Output = Result<Vec<Client>, Refusal>> + Send;

    /// One client.
    fn client(&self, ctx: &Context, id: &str) -> impl Future<Output = Result<Client, Refusal>> + Send;

    /// Ends a client: its tokens are void when this returns.
    fn end_client(&self, ctx: &Context, id: &str) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// A patient whom the person may find but not open.
#[derive(Clone, Debug)]
pub struct Offered {
    /// Who it is, as JSON.
    pub patient: String,
    /// A stated reason opens the record.
    pub stated: bool,
}

/// What does not change while the server runs.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// Served over TLS: pages are used under the site's own name and 127.0.0.1 is not redirected.
    pub secure: bool,
    /// The demo clinic: the footer says so.
    pub demo: bool,
}

/// A login that the demo's sign-in page offers.
#[derive(Clone, Debug)]
pub struct DemoLogin {
    /// Account id.
    pub user: String,
    /// The password: the demo has no secrets.
    pub password: String,
    /// The code its app shows now.
    pub code: String,
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

/// An identity provider on the sign-in page.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Its id.
    pub id: String,
    /// Its name.
    pub display: String,
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

/// A step of a sign-in.
#[derive(Clone)]
pub enum SignIn {
    /// Name and password.
    Password {
        /// The account id as typed.
        user: String,
        /// The password.
        password: String,
    },
    /// A one-time code as second factor.
    Code(String),
    /// A passkey is to be asked for.
    AskPasskey,
    /// What the passkey answered, as JSON.
    Passkey(String),
    /// An activation code: it opens an enrolment.
    Activation(String),
    /// By the identity provider of that id.
    Provider(String),
    /// What the provider answered: the query of the address it sent the browser to.
    ProviderAnswer(String),
}

/// What a step of a sign-in leads to.
#[derive(Clone, Default)]
pub struct Step {
    /// Whole `Set-Cookie` values.
    pub cookies: Vec<String>,
    /// Where it goes on.
    pub next: Next,
}

/// Where a sign-in goes on.
#[derive(Clone, Default)]
pub enum Next {
    /// A session is open: the start page.
    #[default]
    Start,
    /// The second factor.
    Second,
    /// The browser is to ask for a passkey; what `navigator.credentials.get` takes, as JSON.
    Passkey(String),
    /// The identity provider, at this address.
    Elsewhere(String),
    /// A page of ours that leads on to this one.
    Landed(&'static str),
}

/// What the page of one's own security shows.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// Authenticators.
    pub enrolled: Enrolled,
    /// Open sessions, longest open first.
    pub sessions: Vec<SessionLine>,
    /// This session may enrol and nothing else.
    pub enrolling: bool,
}

/// An open session in a list.
#[derive(Clone, Debug)]
pub struct SessionLine {
    /// Public id.
    pub id: String,
    /// When it was opened.
    pub opened: Timestamp,
    /// The person's last request.
    pub active: Timestamp,
    /// Source address.
    pub network: String,
    /// It is this one.
    pub here: bool,
}

/// A change of one's own authenticators or sessions, or a factor proven again.
#[derive(Clone)]
pub enum SecurityAct {
    /// Set the password.
    Password(String),
    /// Begin to enrol an authenticator app.
    App,
    /// The app's first code.
    AppCode {
        /// What to call it.
        name: String,
        /// The code.
        code: String,
    },
    /// Begin to enrol a passkey.
    Passkey,
    /// The new passkey.
    PasskeyMade {
        /// What to call it.
        name: String,
        /// The browser's response as JSON.
        response: String,
    },
    /// Remove an app or passkey.
    Remove(String),
    /// Make recovery codes.
    Recovery,
    /// Forget known devices.
    Forget,
    /// End a session.
    EndSession(String),
    /// Prove the password again.
    ConfirmPassword(String),
    /// Prove a one-time code.
    ConfirmCode(String),
    /// Ask for a passkey, to prove it again.
    AskPasskey,
    /// What it answered.
    ConfirmPasskey(String),
}

/// What came of a [`SecurityAct`].
pub enum Secured {
    /// It is done; a sentence about it.
    Done(&'static str),
    /// An authenticator app to be set up.
    App(keepwell_identity::NewApp),
    /// The browser is to make or use a passkey; options as JSON and whole `Set-Cookie` values.
    Passkey(String, Vec<String>),
    /// Codes to be shown once.
    Codes(Vec<String>),
    /// The session goes on under a new secret; whole `Set-Cookie` values.
    Renewed(Vec<String>),
}

/// An account in a list.
#[derive(Clone, Debug)]
pub struct Member {
    /// Id.
    pub id: String,
    /// Name.
    pub display: String,
    /// Role in words.
    pub role: &'static str,
    /// State in words.
    pub state: &'static str,
    /// Open sessions, for those who may see them.
    pub sessions: usize,
    /// Who asked for an activation code that waits for a second person.
    pub waiting: Option<String>,
    /// What can be done with it.
    pub acts: Vec<(&'static str, &'static str)>,
}

/// A change of an account.
#[derive(Clone)]
pub enum UserAct {
    /// Make an invited account.
    Invite {
        /// Id.
        id: String,
        /// Name.
        display: String,
        /// Role by name.
        role: String,
        /// The Patient or Practitioner, by id; may be empty.
        about: String,
        /// Where notices go; may be empty.
        email: String,
    },
    /// Ask for an activation code.
    Activate(String),
    /// Release the code another asked for.
    Release(String),
    /// Print a code card.
    Card(String),
    /// End all sessions.
    SignOut(String),
    /// Suspend.
    Suspend(String),
    /// Resume.
    Resume(String),
    /// End for good.
    End(String),
}

/// What came of a [`UserAct`].
pub enum Managed {
    /// It is done; a sentence about it.
    Done(&'static str),
    /// An activation code to be handed over, shown once.
    Code {
        /// The code.
        code: String,
        /// When it ends.
        expires: Timestamp,
    },
    /// A card to be printed, shown once.
    Card(Vec<String>),
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

/// A registered client, in words.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its id.
    pub id: String,
    /// Its name.
    pub display: String,
    /// What it may reach at most.
    pub scope: String,
    /// When it was registered.
    pub created: String,
    /// Until when.
    pub expires: String,
    /// `active`, `expired` or `ended`.
    pub state: &'static str,
    /// It has not ended: it can be.
    pub open: bool,
    /// Its keys.
    pub keys: Vec<Key>,
}

/// A key of a client.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name.
    pub kid: String,
    /// What it signs with.
    pub algorithm: &'static str,
    /// Until when it is accepted.
    pub expires: String,
    /// `active` or `expired`.
    pub state: &'static str,
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
    /// The session has ended, or nothing is opened by what was given.
    SignIn,
    /// What was to prove a second factor does not.
    SecondFactor,
    /// A factor must be proven again first.
    Confirm,
    /// The question cannot be answered as asked; a sentence for the person.
    Invalid(String),
    /// Sealed, read-only or overloaded: later perhaps; a sentence for the person.
    Unavailable(String),
    /// A fault inside; details are in the server's own log under the request id.
    Failed,
}

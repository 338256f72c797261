//! The way in: [`Identity`] joins accounts, codes, sessions and tokens with policy and the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::{HashMap, HashSet};
use keepwell_model::actor::{Actor, Assurance, Context, EntryPath, Place, PurposeOfUse, Role};
use keepwell_model::time::{Clock, Entropy, EntropyUnavailable, Timestamp};
use keepwell_policy::{Action, Engine, Labels, Relation, Request, Target};
use parking_lot::{Mutex, RwLock};
use webauthn_rs::prelude::{Url, Webauthn, WebauthnBuilder};

use crate::account::{self, Account, AccountState};
use crate::authenticators::{self, Authenticators};
use crate::documents::{DocumentError, Documents};
use crate::enrol::Begun;
use crate::guesses::Guesses;
use crate::oauth::Assertions;
use crate::password::{Cost, Hasher, Weakness};
use crate::secret::{hex, sha256};
use crate::session::{Activity, OpenedSession, PageSession, SessionInfo, Sessions};
use crate::sso::{Federated, Lanes, Logouts, Outbound, PagesAt};
use crate::stage::Stages;
use crate::token::{Invalid, Issued, Refused, SERVICE_TTL_MAX_S, TokenKey, Tokens, Wanted};
use zeroize::Zeroizing;

/// Kind of the documents that void tokens.
pub(crate) const REVOCATION: &str = "token-revocation";
/// Kind of settings.
const SETTING: &str = "setting";
/// The setting that lets the demo's sign-in page offer its logins.
const DEMO: &str = "demo-sign-in";
/// More clinicians' tokens than this are looked up again.
const CLINICIANS_MAX: usize = 4096;

/// What [`Identity`] is built from.
pub struct Parts {
    /// Name of the installation in tokens.
    pub issuer: String,
    /// The site's DNS name: what passkeys and authenticator apps know it by.
    pub site: String,
    /// What hashing a password costs.
    pub cost: Cost,
    /// Decides administrative acts.
    pub engine: Arc<Engine>,
    /// Keeps own documents.
    pub documents: Arc<dyn Documents>,
    /// Signs tokens.
    pub key: Arc<dyn TokenKey>,
    /// Reaches identity providers.
    pub outbound: Arc<dyn Outbound>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// Where a sign-in comes from.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Id of the request.
    pub request_id: String,
    /// Source address without port.
    pub network: String,
}

/// A sign-in that opens nothing. One answer for wrong, used, expired and unknown: nothing to learn from it (IAM-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The name, password, code or passkey does not open anything.
    #[error("this opens nothing")]
    SignIn,
    /// What was to prove the second factor does not; the first step stands.
    #[error("this is no second factor")]
    SecondFactor,
    /// Sealed or full: nothing was decided.
    #[error(transparent)]
    Unavailable(#[from] DocumentError),
}

/// An administrative act that was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Policy refuses; the reason in words.
    #[error("not permitted: {0}")]
    Forbidden(String),
    /// It contradicts a rule or the state; in words.
    #[error("{0}")]
    Rule(&'static str),
    /// The password is too easy to guess.
    #[error(transparent)]
    Weak(Weakness),
    /// A sensitive act: prove a factor again first.
    #[error("prove again that it is you: the last proof is older than five minutes")]
    Confirm,
    /// Sealed, full, or no randomness.
    #[error("{0}")]
    Unavailable(String),
}

impl From<DocumentError> for Fault {
    fn from(e: DocumentError) -> Self {
        match e {
            DocumentError::Exists => Fault::Rule("it exists already"),
            DocumentError::Unavailable => Fault::Unavailable(e.to_string()),
        }
    }
}

impl From<EntropyUnavailable> for Fault {
    fn from(e: EntropyUnavailable) -> Self {
        Fault::Unavailable(e.to_string())
    }
}

/// Locks for the changes of accounts; two accounts may share one.
const LOCKS: usize = 64;

/// Who is asking.
pub struct Identity {
    engine: Arc<Engine>,
    pub(crate) documents: Arc<dyn Documents>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) tokens: Tokens,
    /// Assertions of clients that were used.
    pub(crate) assertions: Assertions,
    pub(crate) sessions: Sessions,
    pub(crate) site: String,
    pub(crate) hasher: Hasher,
    pub(crate) guesses: Guesses,
    pub(crate) stages: Stages,
    pub(crate) outbound: Arc<dyn Outbound>,
    /// What identity providers publish.
    pub(crate) lanes: Lanes,
    pub(crate) logouts: Logouts,
    pub(crate) pages_at: PagesAt,
    /// Enrolments under way, by session.
    pub(crate) begun: Mutex<HashMap<String, Begun>>,
    /// Verifies passkeys, once the address is known that the pages are used at.
    pub(crate) passkeys: RwLock<Option<Arc<Webauthn>>>,
    /// What passkeys call an account, and the account.
    pub(crate) handles: RwLock<HashMap<String, String>>,
    /// Authenticators and accounts are read, changed and written under one of these.
    locks: Vec<tokio::sync::Mutex<()>>,
    /// Codes used in this process: of any number of parallel uses, the first in wins. Never taken out again: another
    /// use may have read the document before it was deleted.
    pub(crate) claimed: Mutex<HashSet<String>>,
    clinicians: Clinicians,
}

/// The actors of clinicians' tokens with what their account adds: kept by token id, until any account changes.
#[derive(Default)]
struct Clinicians {
    kept: Mutex<HashMap<String, Arc<Actor>>>,
    /// Counts changes of accounts: what was read before one is not kept.
    changes: AtomicU64,
}

impl Clinicians {
    fn forget(&self) {
        let mut kept = self.kept.lock();
        self.changes.fetch_add(1, Ordering::AcqRel);
        kept.clear();
    }
}

impl Identity {
    /// Opens with what is kept: revocations take effect before the first token is verified.
    ///
    /// # Errors
    /// Documents cannot be read, or are damaged.
    pub fn open(parts: Parts) -> Result<Self, DocumentError> {
        let tokens = Tokens::new(&parts.issuer, parts.key);
        let now = parts.clock.now();
        for (id, text) in parts.documents.list(REVOCATION)? {
            let kept: Revocation = serde_json::from_str(&text).map_err(|_| DocumentError::Unavailable)?;
            match kept {
                Revocation::Token { until } if until > now.0 => tokens.revoke(&id, Timestamp(until), now),
                Revocation::Token { .. } => {}
                Revocation::User { user, at } => tokens.end_user(&user, Timestamp(at)),
            }
        }
        let assertions = Assertions::read(&*parts.documents)?;
        let hasher = Hasher::new(parts.cost, &*parts.entropy).map_err(|_| DocumentError::Unavailable)?;
        let identity = Self {
            engine: parts.engine,
            documents: parts.documents,
            clock: parts.clock,
            entropy: parts.entropy,
            tokens,
            assertions,
            sessions: Sessions::default(),
            site: parts.site,
            hasher,
            guesses: Guesses::default(),
            stages: Stages::default(),
            outbound: parts.outbound,
            lanes: Lanes::default(),
            logouts: Logouts::since(now),
            pages_at: PagesAt::default(),
            begun: Mutex::default(),
            passkeys: RwLock::default(),
            handles: RwLock::default(),
            locks: std::iter::repeat_with(tokio::sync::Mutex::default)
                .take(LOCKS)
                .collect(),
            claimed: Mutex::default(),
            clinicians: Clinicians::default(),
        };
        let all = identity.all_authenticators()?;
        *identity.handles.write() = all.into_iter().map(|(user, a)| (a.handle.clone(), user)).collect();
        Ok(identity)
    }

    /// Says at which address browsers find the pages: from then on passkeys can be used, at that address only.
    ///
    /// # Errors
    /// The site's name is not that of the address, or none that passkeys can be bound to; in words.
    pub fn serve_passkeys_at(&self, origin: &str) -> Result<(), String> {
        let origin = Url::parse(origin).map_err(|e| e.to_string())?;
        let passkeys = WebauthnBuilder::new(&self.site, &origin).and_then(|b| b.rp_name("Keepwell").build());
        *self.passkeys.write() = Some(Arc::new(passkeys.map_err(|e| e.to_string())?));
        Ok(())
    }

    // Tokens

    /// The actor of a bearer token.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn bearer(&self, token: &str) -> Result<Arc<Actor>, Invalid> {
        let actor = self.tokens.verify(token, self.clock.now())?;
        Ok(match actor.role {
            Role::Physician | Role::Nurse => self.clinician(actor),
            _ => actor,
        })
    }

    /// The actor with the Practitioner of the user's account: whom a clinician treats is never up to the token. Without
    /// an account, or where it cannot be read, they treat nobody.
    fn clinician(&self, actor: Arc<Actor>) -> Arc<Actor> {
        if let Some(known) = self.clinicians.kept.lock().get(&actor.session) {
            return Arc::clone(known);
        }
        let changes = self.clinicians.changes.load(Ordering::Acquire);
        let Ok(account) = self.account(&actor.id) else {
            return actor;
        };
        let account = account.filter(|a| a.state == AccountState::Active && a.role == actor.role);
        let made = Arc::new(Actor {
            practitioner: account.and_then(|a| a.practitioner),
            ..(*actor).clone()
        });
        let mut kept = self.clinicians.kept.lock();
        if kept.len() >= CLINICIANS_MAX {
            kept.clear();
        }
        if self.clinicians.changes.load(Ordering::Acquire) == changes {
            kept.insert(made.session.clone(), Arc::clone(&made));
        }
        made
    }

    /// Issues a token for `wanted`. Only a token of an administrator counts as administrative; every other role or
    /// scope reaches patients or keys, and policy asks more.
    ///
    /// # Errors
    /// Policy refuses, the wish breaks a rule, or the key is not available. Nothing is issued that is not logged.
    pub async fn issue_token(&self, by: &Context, wanted: &Wanted) -> Result<Issued, Fault> {
        let action = match wanted.role {
            Role::Administrator => Action::TokenIssue,
            _ => Action::TokenIssueClinical,
        };
        self.authorize(by, action).await?;
        // An end of the account is before this, or voids what is issued here.
        let _lock = self.lock(&wanted.user).await;
        match self.account(&wanted.user)? {
            Some(a) if !matches!(a.state, AccountState::Active | AccountState::Invited) => {
                return Err(Fault::Rule("this account has ended or is suspended"));
            }
            Some(a) if a.role != wanted.role => return Err(Fault::Rule("this account has another role")),
            Some(a) if a.role == Role::Patient && a.patient != wanted.patient => {
                return Err(Fault::Rule("this account belongs to another patient"));
            }
            _ => {}
        }
        let issued = self
            .tokens
            .issue(wanted, self.clock.now(), &*self.entropy)
            .map_err(|e| match e {
                Refused::Rule(rule) => Fault::Rule(rule),
                other => Fault::Unavailable(other.to_string()),
            })?;
        self.documents.log(by, action, true).await?;
        Ok(issued)
    }

    /// Voids a token by its `jti`: at once in this process, and durably when this returns.
    ///
    /// # Errors
    /// Policy refuses, or the revocation could not be made durable (it holds until the process ends).
    pub async fn revoke_token(&self, by: &Context, jti: &str) -> Result<(), Fault> {
        let own = by.actor.session == jti && by.actor.method == "token";
        let action = if own { Action::OwnSession } else { Action::TokenRevoke };
        self.authorize(by, action).await?;
        if !(1..=64).contains(&jti.len()) || !jti.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Fault::Rule("this is no id of a token"));
        }
        let now = self.clock.now();
        // The token itself is not known here: no token outlives the longest lifetime from now.
        let until = Timestamp(now.0.saturating_add(SERVICE_TTL_MAX_S * 1000));
        self.tokens.revoke(jti, until, now);
        let text = to_text(&Revocation::Token { until: until.0 })?;
        Ok(self
            .documents
            .put(by, action, REVOCATION, jti, Some(&text), false)
            .await?)
    }

    // Accounts

    /// Makes an account. Its id must be new: ids are never used again.
    ///
    /// # Errors
    /// Policy refuses, the account breaks a rule, or the id is taken.
    pub async fn create_account(&self, by: &Context, account: &Account) -> Result<(), Fault> {
        self.authorize(by, Action::AccountManage).await?;
        Fault::unless_fresh(by, self.clock.now())?;
        if let Some(fault) = account.fault() {
            return Err(Fault::Rule(fault));
        }
        if account.state != AccountState::Invited {
            return Err(Fault::Rule(
                "a new account is an invited one: its owner makes it active",
            ));
        }
        if account.demo && !self.demo_enabled()? {
            return Err(Fault::Rule("demo accounts exist in a demo directory only"));
        }
        let text = to_text(account)?;
        self.documents
            .put(by, Action::AccountManage, account::KIND, &account.id, Some(&text), true)
            .await?;
        self.clinicians.forget();
        Ok(())
    }

    /// Ends an account: its sessions and tokens are void at once, before the change is even durable.
    ///
    /// # Errors
    /// Policy refuses, there is no such account, or the change could not be made durable.
    pub async fn end_account(&self, by: &Context, id: &str) -> Result<(), Fault> {
        self.set_state(by, id, AccountState::Ended).await
    }

    /// Suspends an account for a time: like its end, but it can be resumed.
    ///
    /// # Errors
    /// As [`Identity::end_account`].
    pub async fn suspend_account(&self, by: &Context, id: &str) -> Result<(), Fault> {
        self.set_state(by, id, AccountState::Suspended).await
    }

    /// Lets a suspended account sign in again, with the authenticators it had.
    ///
    /// # Errors
    /// As [`Identity::end_account`].
    pub async fn resume_account(&self, by: &Context, id: &str) -> Result<(), Fault> {
        self.set_state(by, id, AccountState::Active).await
    }

    async fn set_state(&self, by: &Context, id: &str, state: AccountState) -> Result<(), Fault> {
        self.authorize(by, Action::AccountManage).await?;
        Fault::unless_fresh(by, self.clock.now())?;
        let _lock = self.lock(id).await;
        // Read under the lock: tokens issued up to now are void.
        let now = self.clock.now();
        let mut account = self.account(id)?.ok_or(Fault::Rule("there is no such account"))?;
        let before = account.state;
        account.state = match (before, state) {
            (AccountState::Ended, _) => return Err(Fault::Rule("the account has ended: its id is not used again")),
            (AccountState::Suspended, AccountState::Active) if self.authenticators(id)?.is_complete() => state,
            (AccountState::Suspended, AccountState::Active) => AccountState::Invited,
            (_, AccountState::Suspended | AccountState::Ended) => state,
            (_, AccountState::Active | AccountState::Invited) => {
                return Err(Fault::Rule("only a suspended account is resumed"));
            }
        };
        if matches!(account.state, AccountState::Suspended | AccountState::Ended) {
            self.sessions.end_of(id);
            self.stages.end_of(id);
            self.tokens.end_user(id, now);
            self.void_codes(by, Action::AccountManage, id).await?;
            let text = to_text(&Revocation::User {
                user: id.to_owned(),
                at: now.0,
            })?;
            self.documents
                .put(
                    by,
                    Action::AccountManage,
                    REVOCATION,
                    &revocation_of(id),
                    Some(&text),
                    false,
                )
                .await?;
        }
        if account.state == AccountState::Ended {
            self.documents
                .put(by, Action::AccountManage, authenticators::KIND, id, None, false)
                .await?;
            self.handles.write().retain(|_, user| user != id);
        }
        let text = to_text(&account)?;
        self.documents
            .put(by, Action::AccountManage, account::KIND, id, Some(&text), false)
            .await?;
        self.clinicians.forget();
        if account.state != AccountState::Active && account.state != AccountState::Invited {
            // A session opened between the steps above ends too.
            self.sessions.end_of(id);
            self.stages.end_of(id);
        }
        Ok(())
    }

    /// All accounts, by id.
    ///
    /// # Errors
    /// Policy refuses, or they cannot be read.
    pub async fn accounts(&self, by: &Context) -> Result<Vec<Account>, Fault> {
        self.authorize(by, Action::AccountRead).await?;
        Ok(self.all_accounts()?)
    }

    // The demo

    /// Marks the data directory as a demo's. Only before the first account exists: no installation becomes a demo.
    ///
    /// # Errors
    /// Policy refuses, or there are accounts.
    pub async fn enable_demo(&self, by: &Context) -> Result<(), Fault> {
        self.authorize(by, Action::AccountManage).await?;
        if !self.all_accounts()?.is_empty() {
            return Err(Fault::Rule(
                "there are accounts: this installation cannot become a demo",
            ));
        }
        Ok(self
            .documents
            .put(
                by,
                Action::AccountManage,
                SETTING,
                DEMO,
                Some(r#"{"enabled":true}"#),
                false,
            )
            .await?)
    }

    /// The logins that the demo's sign-in page lists, each with the code its app shows now; empty in any other
    /// installation and beyond loopback.
    ///
    /// # Errors
    /// Accounts cannot be read.
    pub fn demo_logins(&self, loopback: bool) -> Result<Vec<(Account, String)>, DocumentError> {
        if !loopback || !self.demo_enabled()? {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let accounts = self.all_accounts()?.into_iter();
        let offered = accounts.filter(|a| a.demo && a.state == AccountState::Active);
        Ok(offered
            .filter_map(|a| self.demo_code(&a.id, now).map(|code| (a, code)))
            .collect())
    }

    /// Gives accounts of the demo a password and the secret of an app, which the demo tells everybody; what has
    /// authenticators already stays as it is.
    ///
    /// # Errors
    /// Policy refuses, or one is no account of a demo.
    pub async fn enrol_demo(&self, by: &Context, apps: &[(&str, Vec<u8>)], password: &str) -> Result<(), Fault> {
        self.authorize(by, Action::AccountManage).await?;
        let mut phc = None;
        for (user, secret) in apps {
            if self.account(user)?.is_none_or(|a| !a.demo) || !self.demo_enabled()? {
                return Err(Fault::Rule("this is for accounts of a demo directory only"));
            }
            if self.authenticators(user)?.is_empty() {
                let hash = match phc.take() {
                    Some(hash) => hash,
                    None => self.hasher.hash(password, &*self.entropy).await.map_err(Denied::from)?,
                };
                self.keep_demo_authenticators(by, user, &hash, secret).await?;
                phc = Some(hash);
            }
        }
        Ok(())
    }

    // Sessions

    /// The session of a cookie's secret.
    #[must_use]
    pub fn session(&self, secret: &str, activity: Activity) -> Option<PageSession> {
        self.sessions.find(secret, activity, self.clock.now())
    }

    /// Ends one's own session; the end is in the log when this returns. It ends even if the log cannot be written.
    ///
    /// # Errors
    /// The log could not be written.
    pub async fn sign_out(&self, by: &Context) -> Result<(), DocumentError> {
        self.sessions.end(&by.actor.session);
        self.documents.log(by, Action::OwnSession, true).await
    }

    /// Ends the session behind a secret without a word, for a sign-in that replaces it.
    pub fn drop_session(&self, secret: &str) {
        self.sessions.end_secret(secret);
    }

    /// Open sessions: one's own, or of everybody where policy allows.
    ///
    /// # Errors
    /// Policy refuses.
    pub async fn list_sessions(&self, by: &Context, user: Option<&str>) -> Result<Vec<SessionInfo>, Fault> {
        let own = user == Some(&by.actor.id);
        self.authorize(by, if own { Action::OwnSession } else { Action::SessionManage })
            .await?;
        Ok(self.sessions.list(user, self.clock.now()))
    }

    /// Ends a session by its public id.
    ///
    /// # Errors
    /// Policy refuses, or there is no such session.
    pub async fn end_session(&self, by: &Context, id: &str) -> Result<(), Fault> {
        let own = self
            .sessions
            .list(Some(&by.actor.id), self.clock.now())
            .iter()
            .any(|s| s.id == id);
        let action = if own { Action::OwnSession } else { Action::SessionManage };
        self.authorize(by, action).await?;
        if !self.sessions.end(id) {
            return Err(Fault::Rule("there is no such session"));
        }
        Ok(self.documents.log(by, action, true).await?)
    }

    /// Goes on with the token keys as they are after a rotation.
    pub fn renew_keys(&self) {
        self.tokens.renew();
    }

    /// Forgets sessions, sign-ins under way and verified tokens, for `keys seal`.
    pub fn seal(&self) {
        self.sessions.end_all();
        self.stages.end_all();
        self.begun.lock().clear();
        self.tokens.forget();
        self.lanes.forget();
        self.clinicians.forget();
    }

    // Helpers

    /// To be called when the state of an account has changed: its tokens are looked up again.
    pub(crate) fn forget_clinicians(&self) {
        self.clinicians.forget();
    }

    /// Asks policy whether `by` may do `action`; a refusal is logged.
    pub(crate) async fn authorize(&self, by: &Context, action: Action) -> Result<(), Fault> {
        let decision = self.engine.decide(&question(&by.actor, action, by.purpose, by.place));
        if decision.permit {
            return Ok(());
        }
        self.documents.log(by, action, false).await?;
        Err(Fault::Forbidden(decision.reason.to_string()))
    }

    /// What policy says of an actor, where that is a question and no request.
    pub(crate) fn may(&self, actor: &Actor, action: Action) -> bool {
        let purpose = PurposeOfUse::SystemAdministration;
        self.engine
            .decide(&question(actor, action, purpose, Place::Unknown))
            .permit
    }

    /// Serialises changes of an account and its authenticators.
    pub(crate) async fn lock(&self, user: &str) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let [first, ..] = sha256(user.as_bytes());
        match self.locks.get(usize::from(first) % LOCKS) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        }
    }

    pub(crate) fn authenticators(&self, user: &str) -> Result<Authenticators, DocumentError> {
        let text = self.documents.get(authenticators::KIND, user)?;
        text.map_or_else(
            || Ok(Authenticators::default()),
            |t| serde_json::from_str(&t).map_err(|_| DocumentError::Unavailable),
        )
    }

    pub(crate) fn all_authenticators(&self) -> Result<Vec<(String, Authenticators)>, DocumentError> {
        let texts = self.documents.list(authenticators::KIND)?;
        let read = |(user, text): (String, String)| {
            let kept = serde_json::from_str(&text).map_err(|_| DocumentError::Unavailable)?;
            Ok((user, kept))
        };
        texts.into_iter().map(read).collect()
    }

    pub(crate) async fn keep_authenticators(
        &self,
        by: &Context,
        action: Action,
        user: &str,
        kept: &Authenticators,
    ) -> Result<(), DocumentError> {
        let text = Zeroizing::new(serde_json::to_string(kept).map_err(|_| DocumentError::Unavailable)?);
        self.documents
            .put(by, action, authenticators::KIND, user, Some(&text), false)
            .await
    }

    pub(crate) fn account(&self, id: &str) -> Result<Option<Account>, DocumentError> {
        let text = self.documents.get(account::KIND, id)?;
        text.map(|t| serde_json::from_str(&t).map_err(|_| DocumentError::Unavailable))
            .transpose()
    }

    pub(crate) fn all_accounts(&self) -> Result<Vec<Account>, DocumentError> {
        let texts = self.documents.list(account::KIND)?;
        texts
            .iter()
            .map(|(_, t)| serde_json::from_str(t).map_err(|_| DocumentError::Unavailable))
            .collect()
    }

    pub(crate) fn demo_enabled(&self) -> Result<bool, DocumentError> {
        Ok(self.documents.get(SETTING, DEMO)?.is_some())
    }

    /// Opens the session of an actor whose factors are proven.
    pub(crate) fn open_session(
        &self,
        actor: &Actor,
        by: Option<Federated>,
        seen: &Seen,
        now: Timestamp,
    ) -> Result<OpenedSession, Denied> {
        let opened = self
            .sessions
            .open_by(actor.clone(), by, &seen.network, now, &*self.entropy)
            .map_err(|_| Denied::Unavailable(DocumentError::Unavailable))?;
        // The account may have ended while the factors were being used up: then the session must not stay.
        let may = match self.account(&actor.id) {
            Ok(Some(a)) if actor.assurance >= Assurance::TwoFactors => a.state == AccountState::Active,
            Ok(Some(a)) => matches!(a.state, AccountState::Invited | AccountState::Active),
            _ => false,
        };
        if may {
            Ok(opened)
        } else {
            self.sessions.end_secret(&opened.secret);
            Err(Denied::SignIn)
        }
    }
}

/// The id of the document that voids all tokens of a user or client.
pub(crate) fn revocation_of(user: &str) -> String {
    format!("user-{}", hex(sha256(user.as_bytes()).get(..16).unwrap_or_default()))
}

/// A question about the installation.
fn question(actor: &Actor, action: Action, purpose: PurposeOfUse, place: Place) -> Request {
    let (target, relation) = (Target::Installation, Relation::NoPatient);
    Request::new(actor, action, target, relation, Labels::NONE, purpose, place)
}

/// What voids tokens.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Revocation {
    /// One token, whose id is the document's.
    Token {
        /// When it would have expired, in ms.
        until: i64,
    },
    /// All tokens of a user issued up to an instant.
    User {
        /// Who.
        user: String,
        /// In ms.
        at: i64,
    },
}

pub(crate) fn to_text<T: serde::Serialize>(value: &T) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|e| Fault::Unavailable(e.to_string()))
}

/// Who signs in: the actor of an account. `session` is filled when the session opens.
pub(crate) fn actor(account: &Account, method: &str, assurance: Assurance, now: Timestamp) -> Actor {
    Actor {
        id: account.id.clone(),
        display: account.display.clone(),
        role: account.role,
        patient: account.patient.clone(),
        practitioner: account.practitioner.clone(),
        client: None,
        scopes: Vec::new(),
        session: String::new(),
        authenticated: now,
        method: method.to_owned(),
        reauthenticated: now,
        assurance,
    }
}

/// The context of a sign-in, for the log.
pub(crate) fn context(actor: Actor, seen: &Seen, now: Timestamp) -> Context {
    Context {
        actor: Arc::new(actor),
        purpose: PurposeOfUse::Operations,
        entry: EntryPath::Unknown,
        request_id: seen.request_id.clone(),
        network: seen.network.clone(),
        device: String::new(),
        unit: String::new(),
        roster: String::new(),
        reason: String::new(),
        print: false,
        place: Place::Unknown,
        export: false,
        at: now,
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
pub(crate) mod tests;

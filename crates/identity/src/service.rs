//! The way in: [`Identity`] joins accounts, codes, sessions and tokens with policy and the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::{HashMap, HashSet};
use keepwell_model::actor::{Actor, Assurance, Context, EntryPath, Place, PurposeOfUse, Role};
use keepwell_model::time::{Clock, Entropy, EntropyUnavailable, Timestamp};
use keepwell_policy::{Action, Engine, Labels, Relation, Request, Target};
use parking_lot::Mutex;

use crate::account::{self, Account, AccountState};
use crate::documents::{DocumentError, Documents};
use crate::link::{self, BOOTSTRAP_TTL_S, Code, LINK_TTL_S, Link};
use crate::secret::{hex, random_text, sha256};
use crate::session::{Activity, OpenedSession, PageSession, SessionInfo, Sessions};
use crate::token::{Invalid, Issued, Refused, SERVICE_TTL_MAX_S, TokenKey, Tokens, Wanted};

/// Kind of the documents that void tokens.
const REVOCATION: &str = "token-revocation";
/// Kind of settings.
const SETTING: &str = "setting";
/// The setting that lets the demo's sign-in page offer its logins.
const DEMO: &str = "demo-sign-in";
/// Id of the account that the administrator code of `init` opens.
const FIRST_ADMINISTRATOR: &str = "administrator";
/// More clinicians' tokens than this are looked up again.
const CLINICIANS_MAX: usize = 4096;

/// What [`Identity`] is built from.
pub struct Parts {
    /// Name of the installation in tokens.
    pub issuer: String,
    /// Decides administrative acts.
    pub engine: Arc<Engine>,
    /// Keeps own documents.
    pub documents: Arc<dyn Documents>,
    /// Signs tokens.
    pub key: Arc<dyn TokenKey>,
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
    /// The code or login does not open anything.
    #[error("this code or login opens nothing")]
    SignIn,
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

/// Who is asking.
pub struct Identity {
    engine: Arc<Engine>,
    documents: Arc<dyn Documents>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    tokens: Tokens,
    sessions: Sessions,
    /// Codes used in this process: of any number of parallel uses, the first in wins. Never taken out again: another
    /// use may have read the document before it was deleted.
    claimed: Mutex<HashSet<String>>,
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
        Ok(Self {
            engine: parts.engine,
            documents: parts.documents,
            clock: parts.clock,
            entropy: parts.entropy,
            tokens,
            sessions: Sessions::default(),
            claimed: Mutex::default(),
            clinicians: Clinicians::default(),
        })
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
        match self.account(&wanted.user)? {
            Some(a) if a.state != AccountState::Active => return Err(Fault::Rule("this account has ended")),
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
        if let Some(fault) = account.fault() {
            return Err(Fault::Rule(fault));
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
        self.authorize(by, Action::AccountManage).await?;
        let mut account = self.account(id)?.ok_or(Fault::Rule("there is no such account"))?;
        account.state = AccountState::Ended;
        let now = self.clock.now();
        self.sessions.end_of(id);
        self.tokens.end_user(id, now);
        let text = to_text(&Revocation::User {
            user: id.to_owned(),
            at: now.0,
        })?;
        let place = format!("user-{}", hex(sha256(id.as_bytes()).get(..16).unwrap_or_default()));
        self.documents
            .put(by, Action::AccountManage, REVOCATION, &place, Some(&text), false)
            .await?;
        let text = to_text(&account)?;
        self.documents
            .put(by, Action::AccountManage, account::KIND, id, Some(&text), false)
            .await?;
        self.clinicians.forget();
        // A session opened between the two steps above ends too.
        self.sessions.end_of(id);
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

    // Signing in

    /// Makes a one-time sign-in link's code for an account.
    ///
    /// # Errors
    /// Policy refuses, or the account does not exist or has ended.
    pub async fn login_link(&self, by: &Context, user: &str) -> Result<Code, Fault> {
        self.authorize(by, Action::LoginLinkIssue).await?;
        let account = self.account(user)?.filter(|a| a.state == AccountState::Active);
        account.ok_or(Fault::Rule("there is no such account, or it has ended"))?;
        self.code(by, Action::LoginLinkIssue, user, LINK_TTL_S, false).await
    }

    /// Makes the code that opens the first administrator's session. Only while there is no account at all; a second
    /// call (an `init` that was interrupted) voids the code of the first.
    ///
    /// # Errors
    /// Policy refuses, or there are accounts already.
    pub async fn bootstrap(&self, by: &Context) -> Result<Code, Fault> {
        self.authorize(by, Action::AccountManage).await?;
        if !self.all_accounts()?.is_empty() {
            return Err(Fault::Rule(
                "there are accounts already: an administrator makes the others",
            ));
        }
        for (id, text) in self.documents.list(link::KIND)? {
            if serde_json::from_str::<Link>(&text).is_ok_and(|l| l.bootstrap) {
                self.documents
                    .put(by, Action::AccountManage, link::KIND, &id, None, false)
                    .await?;
            }
        }
        self.code(by, Action::AccountManage, FIRST_ADMINISTRATOR, BOOTSTRAP_TTL_S, true)
            .await
    }

    /// Uses a one-time code. Of any number of parallel uses one wins; the code is durably used up before the session
    /// exists, so that a crash can lose a sign-in but never repeat one.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn sign_in(&self, code: &str, seen: &Seen) -> Result<OpenedSession, Denied> {
        let id = link::id_of(code);
        let now = self.clock.now();
        let kept = self.documents.get(link::KIND, &id)?.ok_or(Denied::SignIn)?;
        let kept: Link = serde_json::from_str(&kept).map_err(|_| Denied::SignIn)?;
        if now.0 >= kept.expires {
            return Err(Denied::SignIn);
        }
        let account = match self.account(&kept.user)? {
            Some(a) if a.state == AccountState::Active && !kept.bootstrap => a,
            None if kept.bootstrap => Account::new(&kept.user, "First administrator", Role::Administrator, None),
            _ => return Err(Denied::SignIn),
        };
        if !self.claimed.lock().insert(id.clone()) {
            return Err(Denied::SignIn);
        }
        let by = context(actor(&account, "login-link", now), seen, now);
        self.documents
            .put(&by, Action::OwnSession, link::KIND, &id, None, false)
            .await?;
        if kept.bootstrap {
            let text = to_text(&account).map_err(|_| Denied::SignIn)?;
            self.documents
                .put(
                    &by,
                    Action::AccountManage,
                    account::KIND,
                    &account.id,
                    Some(&text),
                    true,
                )
                .await?;
        }
        self.open_session(&account, "login-link", seen, now)
    }

    /// Signs in to an account of the demo's sign-in page. Only in a data directory made by `demo`, and only where the
    /// server listens on loopback.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn sign_in_demo(&self, user: &str, loopback: bool, seen: &Seen) -> Result<OpenedSession, Denied> {
        let now = self.clock.now();
        if !loopback || !self.demo_enabled()? {
            return Err(Denied::SignIn);
        }
        let account = self
            .account(user)?
            .filter(|a| a.demo && a.state == AccountState::Active);
        let account = account.ok_or(Denied::SignIn)?;
        let by = context(actor(&account, "demo", now), seen, now);
        self.documents.log(&by, Action::OwnSession, true).await?;
        self.open_session(&account, "demo", seen, now)
    }

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

    /// The logins that the demo's sign-in page lists; empty in any other installation and beyond loopback.
    ///
    /// # Errors
    /// Accounts cannot be read.
    pub fn demo_logins(&self, loopback: bool) -> Result<Vec<Account>, DocumentError> {
        if !loopback || !self.demo_enabled()? {
            return Ok(Vec::new());
        }
        Ok(self
            .all_accounts()?
            .into_iter()
            .filter(|a| a.demo && a.state == AccountState::Active)
            .collect())
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

    /// Forgets sessions and verified tokens, for `keys seal`.
    pub fn seal(&self) {
        self.sessions.end_all();
        self.tokens.forget();
        self.clinicians.forget();
    }

    // Helpers

    /// Asks policy whether `by` may do `action`; a refusal is logged.
    async fn authorize(&self, by: &Context, action: Action) -> Result<(), Fault> {
        let request = Request::new(
            &by.actor,
            action,
            Target::Installation,
            Relation::NoPatient,
            Labels::NONE,
            by.purpose,
            by.place,
        );
        let decision = self.engine.decide(&request);
        if decision.permit {
            return Ok(());
        }
        self.documents.log(by, action, false).await?;
        Err(Fault::Forbidden(decision.reason.to_string()))
    }

    fn account(&self, id: &str) -> Result<Option<Account>, DocumentError> {
        let text = self.documents.get(account::KIND, id)?;
        text.map(|t| serde_json::from_str(&t).map_err(|_| DocumentError::Unavailable))
            .transpose()
    }

    fn all_accounts(&self) -> Result<Vec<Account>, DocumentError> {
        let texts = self.documents.list(account::KIND)?;
        texts
            .iter()
            .map(|(_, t)| serde_json::from_str(t).map_err(|_| DocumentError::Unavailable))
            .collect()
    }

    fn demo_enabled(&self) -> Result<bool, DocumentError> {
        Ok(self.documents.get(SETTING, DEMO)?.is_some())
    }

    async fn code(&self, by: &Context, action: Action, user: &str, ttl_s: i64, bootstrap: bool) -> Result<Code, Fault> {
        let code = random_text::<32>(&*self.entropy)?;
        let expires = Timestamp(self.clock.now().0.saturating_add(ttl_s * 1000));
        let text = to_text(&Link {
            user: user.to_owned(),
            expires: expires.0,
            bootstrap,
        })?;
        self.documents
            .put(by, action, link::KIND, &link::id_of(&code), Some(&text), true)
            .await?;
        Ok(Code { code, expires })
    }

    fn open_session(
        &self,
        account: &Account,
        method: &str,
        seen: &Seen,
        now: Timestamp,
    ) -> Result<OpenedSession, Denied> {
        let opened = self
            .sessions
            .open(actor(account, method, now), &seen.network, now, &*self.entropy)
            .map_err(|_| Denied::Unavailable(DocumentError::Unavailable))?;
        // The account may have ended while the code was being used up: then the session must not stay.
        match self.account(&account.id) {
            Ok(Some(a)) if a.state == AccountState::Active => Ok(opened),
            _ => {
                self.sessions.end_secret(&opened.secret);
                Err(Denied::SignIn)
            }
        }
    }
}

/// What voids tokens.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Revocation {
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

fn to_text<T: serde::Serialize>(value: &T) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|e| Fault::Unavailable(e.to_string()))
}

/// Who signs in: the actor of an account. `session` is filled when the session opens.
fn actor(account: &Account, method: &str, now: Timestamp) -> Actor {
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
        assurance: Assurance::OneFactor,
    }
}

/// The context of a sign-in, for the log.
fn context(actor: Actor, seen: &Seen, now: Timestamp) -> Context {
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

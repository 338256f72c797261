//! Activation: one-time codes that let somebody enrol authenticators, for a new account or one whose authenticators are
//! lost. A code opens a session of one factor, which may enrol and nothing else.
//!
//! A code takes two people: one starts the activation, another, who has seen who it is for, releases the code (IAM-16);
//! whoever could do both could be anybody. The operator at the machine releases alone, as whoever holds the machine
//! holds the keys, but not for an account in use while somebody else could release. Nobody learns or sets a password of
//! another. One code of an account is good at a time. When it is used, what was enrolled before is void.
//!
//! Own documents of kind `invitation`, their id the hash of 256 random bits: using one deletes it before the session
//! opens. Own documents of kind `activation`, their id the account's: one that waits for the second person.

use keepwell_model::actor::{Assurance, Context, Role};
use keepwell_model::time::Timestamp;
use keepwell_policy::Action;
use serde::{Deserialize, Serialize};

use crate::account::{self, Account, AccountState};
use crate::authenticators::Authenticators;
use crate::documents::DocumentError;
use crate::secret::{hex, random_text, sha256};
use crate::service::{Denied, Fault, Identity, Seen, actor, context, to_text};
use crate::session::OpenedSession;

/// The kind of own document.
pub(crate) const KIND: &str = "invitation";
/// The kind of own document of activations that wait.
pub(crate) const WAITING: &str = "activation";
/// Id of the account that the administrator code of `init` opens.
const FIRST_ADMINISTRATOR: &str = "administrator";
/// An activation code lives this long, in seconds: a day, for somebody who gets it by hand.
pub const ACTIVATION_TTL_S: i64 = 24 * 60 * 60;
/// The administrator code of `init` lives this long: three days to set the server up.
pub const BOOTSTRAP_TTL_S: i64 = 3 * 24 * 60 * 60;
/// An activation that nobody released ends after this, in seconds.
pub const WAITING_TTL_S: i64 = 7 * 24 * 60 * 60;

/// A code just made. Not `Debug`: it opens a session.
pub struct Code {
    /// The code, to be shown once.
    pub code: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// What is kept of a code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Invitation {
    /// Whose account.
    pub(crate) user: String,
    /// Milliseconds since 1970.
    pub(crate) expires: i64,
    /// The first administrator's code: the account is made when it is used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) bootstrap: bool,
}

/// An activation that waits for a second person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Waiting {
    /// Whose account.
    pub user: String,
    /// Who started it.
    pub started_by: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// What starting an activation gave.
pub enum Activation {
    /// The code, to be handed over.
    Code(Code),
    /// A second person must release the code.
    Waits,
}

impl Waiting {
    fn waits_at(&self, now: Timestamp) -> bool {
        now.0 < self.at.saturating_add(WAITING_TTL_S * 1000)
    }
}

/// The document id of a code.
pub(crate) fn id_of(code: &str) -> String {
    hex(&sha256(code.as_bytes()))
}

impl Identity {
    /// Makes the code that opens the first administrator's enrolment. Only while nobody can sign in; a second call (an
    /// `init` that was interrupted) voids the code of the first.
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
        self.code(by, Action::AccountManage, FIRST_ADMINISTRATOR, BOOTSTRAP_TTL_S, true)
            .await
    }

    /// Starts the activation of an account that is invited, or whose authenticators are lost. Somebody else must release
    /// the code; the operator at the machine gets it at once where the account was never in use, or where nobody is left
    /// who could release it.
    ///
    /// # Errors
    /// Policy refuses, a proof is needed first, or the account does not exist, is suspended or has ended.
    pub async fn start_activation(&self, by: &Context, user: &str) -> Result<Activation, Fault> {
        self.authorize(by, Action::AccountManage).await?;
        let now = self.clock.now();
        Fault::unless_fresh(by, now)?;
        let account = self.account(user)?;
        let account = account.filter(|a| matches!(a.state, AccountState::Invited | AccountState::Active));
        let account = account.ok_or(Fault::Rule("there is no such account, or it may not sign in"))?;
        if by.actor.id == user {
            return Err(Fault::Rule("somebody else starts the activation of one's own account"));
        }
        if self.may(&by.actor, Action::LoginLinkIssue) {
            let others = self.all_accounts()?;
            let released = |a: &Account| {
                let holder = actor(a, "password", Assurance::TwoFactors, now);
                a.id != user && a.state == AccountState::Active && self.may(&holder, Action::ActivationRelease)
            };
            if account.state == AccountState::Invited || !others.iter().any(released) {
                let _lock = self.lock(user).await;
                let code = self
                    .code(by, Action::LoginLinkIssue, user, ACTIVATION_TTL_S, false)
                    .await?;
                return Ok(Activation::Code(code));
            }
        }
        let text = to_text(&Waiting {
            user: user.to_owned(),
            started_by: by.actor.id.clone(),
            at: now.0,
        })?;
        self.documents
            .put(by, Action::AccountManage, WAITING, user, Some(&text), false)
            .await?;
        Ok(Activation::Waits)
    }

    /// Activations that wait for a second person.
    ///
    /// # Errors
    /// Policy refuses, or they cannot be read.
    pub async fn waiting_activations(&self, by: &Context) -> Result<Vec<Waiting>, Fault> {
        self.authorize(by, Action::AccountRead).await?;
        let now = self.clock.now();
        let all = self.documents.list(WAITING)?;
        let read = all.iter().filter_map(|(_, t)| serde_json::from_str::<Waiting>(t).ok());
        Ok(read.filter(|w| w.waits_at(now)).collect())
    }

    /// Releases the code of an activation that waits: by somebody who has seen who it is for, and is neither that person
    /// nor the one who started it. Of several releases at once one gets the code.
    ///
    /// # Errors
    /// Policy refuses, a proof is needed first, it is the same person, or nothing waits.
    pub async fn release_activation(&self, by: &Context, user: &str) -> Result<Code, Fault> {
        self.authorize(by, Action::ActivationRelease).await?;
        let now = self.clock.now();
        Fault::unless_fresh(by, now)?;
        let _lock = self.lock(user).await;
        let text = self.documents.get(WAITING, user)?;
        let waiting = text.and_then(|t| serde_json::from_str::<Waiting>(&t).ok());
        let waiting = waiting.filter(|w| w.waits_at(now));
        let waiting = waiting.ok_or(Fault::Rule("no activation of this account waits"))?;
        if by.actor.id == waiting.started_by || by.actor.id == user {
            return Err(Fault::Rule("an activation is released by a second person"));
        }
        self.documents
            .put(by, Action::ActivationRelease, WAITING, user, None, false)
            .await?;
        self.code(by, Action::ActivationRelease, user, ACTIVATION_TTL_S, false)
            .await
    }

    /// Uses an activation code. Of any number of parallel uses one wins; the code is durably used up before the session
    /// exists, so that a crash can lose it but never repeat it. Authenticators enrolled before are void from here on.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn activate(&self, code: &str, seen: &Seen) -> Result<OpenedSession, Denied> {
        let id = id_of(code);
        let now = self.clock.now();
        let kept = self.documents.get(KIND, &id)?.ok_or(Denied::SignIn)?;
        let kept: Invitation = serde_json::from_str(&kept).map_err(|_| Denied::SignIn)?;
        if now.0 >= kept.expires {
            return Err(Denied::SignIn);
        }
        let _lock = self.lock(&kept.user).await;
        // Another code, or an end of the account, may have voided this one meanwhile.
        if self.documents.get(KIND, &id)?.is_none() {
            return Err(Denied::SignIn);
        }
        let mut account = match self.account(&kept.user)? {
            Some(a) if matches!(a.state, AccountState::Invited | AccountState::Active) && !kept.bootstrap => a,
            None if kept.bootstrap => Account::new(&kept.user, "First administrator", Role::Administrator, None),
            _ => return Err(Denied::SignIn),
        };
        if !self.claimed.lock().insert(id.clone()) {
            return Err(Denied::SignIn);
        }
        let by = context(actor(&account, "activation", Assurance::OneFactor, now), seen, now);
        self.documents
            .put(&by, Action::OwnSession, KIND, &id, None, false)
            .await?;
        if kept.bootstrap {
            let text = to_text(&account).map_err(|_| Denied::SignIn)?;
            self.documents
                .put(
                    &by,
                    Action::OwnAuthenticators,
                    account::KIND,
                    &account.id,
                    Some(&text),
                    true,
                )
                .await?;
        }
        // Whoever came by an earlier code, or by the authenticators before, is out.
        self.sessions.end_of(&account.id);
        self.stages.end_of(&account.id);
        let lost = account.state == AccountState::Active;
        if lost {
            account.state = AccountState::Invited;
            let text = to_text(&account).map_err(|_| Denied::SignIn)?;
            self.documents
                .put(
                    &by,
                    Action::OwnAuthenticators,
                    account::KIND,
                    &account.id,
                    Some(&text),
                    false,
                )
                .await?;
            self.forget_clinicians();
        }
        let mut before = self.authenticators(&account.id)?;
        if !before.is_empty() {
            let fresh = Authenticators {
                // A card that was printed for an account still invited belongs to the invitation.
                card: before.card.take().filter(|_| !lost),
                ..Authenticators::default()
            };
            self.keep_authenticators(&by, Action::OwnAuthenticators, &account.id, &fresh)
                .await?;
            self.handles.write().retain(|_, user| *user != account.id);
        }
        self.open_session(&by.actor, None, seen, now)
    }

    /// Voids the codes of an account that were not used.
    pub(crate) async fn void_codes(&self, by: &Context, action: Action, user: &str) -> Result<(), DocumentError> {
        for (id, text) in self.documents.list(KIND)? {
            if serde_json::from_str::<Invitation>(&text).is_ok_and(|i| i.user == user) {
                self.documents.put(by, action, KIND, &id, None, false).await?;
            }
        }
        Ok(())
    }

    /// Makes a code of an account; the ones before open nothing any more.
    async fn code(&self, by: &Context, action: Action, user: &str, ttl_s: i64, bootstrap: bool) -> Result<Code, Fault> {
        self.void_codes(by, action, user).await?;
        let code = random_text::<32>(&*self.entropy)?;
        let expires = Timestamp(self.clock.now().0.saturating_add(ttl_s * 1000));
        let text = to_text(&Invitation {
            user: user.to_owned(),
            expires: expires.0,
            bootstrap,
        })?;
        self.documents
            .put(by, action, KIND, &id_of(&code), Some(&text), true)
            .await?;
        Ok(Code { code, expires })
    }
}

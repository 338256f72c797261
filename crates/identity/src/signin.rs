//! Signing in: a password and then a second factor, or a passkey; nothing less opens a session that reaches anything.
//!
//! ```text
//! name + password ----> Stage::Password ----> code (app, card, recovery) ----> session, two factors
//!                              `------------> passkey ------------------------> session, phishing-resistant
//! passkey (user verified) ----------------------------------------------------> session, phishing-resistant
//! identity provider ----> says two factors (sso) -----------------------------> session, two factors
//!              `---------> Stage::Password, as above
//! activation code ------------------------------------------------------------> session, one factor: may enrol only
//! ```
//!
//! Unknown name, wrong password, suspended account, nothing enrolled, too many tries: one answer, after the same work
//! (IAM-8). What is used once is used up durably before the session exists.

use keepwell_model::actor::{Actor, Assurance, Context, Role};
use keepwell_model::reference::is_id;
use keepwell_model::time::Timestamp;
use keepwell_policy::Action;
use webauthn_rs::prelude::{AuthenticationResult, PublicKeyCredential, WebauthnError};

use crate::account::{Account, AccountState};
use crate::authenticators::Authenticators;
use crate::cookie;
use crate::documents::DocumentError;
use crate::guesses::{Pool, Secret};
use crate::password::HashUnavailable;
use crate::secret::{hex, random_text, sha256, typed, unhex};
use crate::service::{Denied, Fault, Identity, Seen, actor, context};
use crate::session::OpenedSession;
use crate::sso::Federated;
use crate::stage::Stage;
use crate::totp;

/// Letters of a code of the printed card.
pub(crate) const CARD_LETTERS: usize = 8;
/// Letters of a recovery code.
pub(crate) const RECOVERY_LETTERS: usize = 24;

/// A sign-in that is done.
pub struct SignedIn {
    /// The session.
    pub opened: OpenedSession,
    /// A secret by which the device is known from now on, to be added to its cookie; `None` where it was known already.
    pub device: Option<String>,
}

/// What the second step can be done with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// A code of an authenticator app.
    pub app: bool,
    /// The printed card, and the number of its next code.
    pub card: Option<usize>,
    /// A recovery code.
    pub recovery: bool,
    /// A passkey.
    pub passkey: bool,
}

/// A passkey is asked for.
pub struct Challenge {
    /// What the browser holds meanwhile.
    pub stage: String,
    /// What `navigator.credentials` takes, as JSON.
    pub options: String,
}

impl From<HashUnavailable> for Denied {
    fn from(_: HashUnavailable) -> Self {
        Denied::Unavailable(DocumentError::Unavailable)
    }
}

impl Identity {
    /// The first step: name and password. What comes back is the secret of a stage, which opens nothing by itself.
    /// `device` is the value of the browser's device cookie.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn sign_in_password(
        &self,
        user: &str,
        password: &str,
        device: Option<&str>,
        seen: &Seen,
    ) -> Result<String, Denied> {
        let now = self.clock.now();
        let user = user.trim();
        let account = if is_id(user) { self.account(user)? } else { None };
        let kept = match &account {
            Some(a) => self.authenticators(&a.id)?,
            None => Authenticators::default(),
        };
        let device = device.and_then(|cookie| known_device(&kept, cookie));
        let pool = Pool {
            // Of a name that is none, what was typed: it may be long.
            user: account
                .as_ref()
                .map_or_else(|| hex(&sha256(user.as_bytes())), |a| a.id.clone()),
            secret: Secret::Password,
            device,
        };
        if !self.guesses.admit(&pool, &seen.network, now) {
            return Err(Denied::SignIn);
        }
        let fits = self.hasher.verify(password, kept.password.as_deref()).await?;
        let account = account.filter(|a| fits && a.state == AccountState::Active && kept.is_complete());
        let Some(account) = account else {
            self.log_denied(user, "password", seen, now).await?;
            return Err(Denied::SignIn);
        };
        self.guesses.right(&pool, &seen.network);
        if kept.password.as_deref().is_some_and(|phc| self.hasher.is_weak(phc)) {
            self.raise_hash(&account, password, &kept, seen, now).await?;
        }
        self.stages
            .keep(
                Stage::Password {
                    user: account.id,
                    device,
                    by: None,
                },
                now,
                &*self.entropy,
            )
            .map_err(|_| Denied::Unavailable(DocumentError::Unavailable))
    }

    /// What the second step of a stage can be done with; `None` where there is no such stage (any more).
    ///
    /// # Errors
    /// The authenticators cannot be read.
    pub fn second_step(&self, stage: &str) -> Result<Option<Offers>, DocumentError> {
        let Some(Stage::Password { user, .. }) = self.stages.look(stage, self.clock.now()) else {
            return Ok(None);
        };
        let kept = self.authenticators(&user)?;
        Ok(Some(Offers {
            app: !kept.totp.is_empty(),
            card: kept.card_number(),
            recovery: !kept.recovery.is_empty(),
            passkey: kept.has_passkey() && self.passkeys.read().is_some(),
        }))
    }

    /// The second step by a one-time code: of an app, of the printed card, or a recovery code, told apart by their
    /// length. A wrong one leaves the stage as it is.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn sign_in_code(&self, stage: &str, code: &str, seen: &Seen) -> Result<SignedIn, Denied> {
        let now = self.clock.now();
        let Some(Stage::Password { user, device, by }) = self.stages.look(stage, now) else {
            return Err(Denied::SignIn);
        };
        let Some(account) = self.account(&user)?.filter(|a| a.state == AccountState::Active) else {
            return Err(Denied::SignIn);
        };
        let first = if by.is_some() { "sso" } else { "password" };
        let ctx = context(actor(&account, first, Assurance::None, now), seen, now);
        let Some(method) = self.use_code(&account.id, code, device, &ctx).await? else {
            return Err(Denied::SecondFactor);
        };
        if self.stages.take(stage, now).is_none() {
            return Err(Denied::SignIn);
        }
        let method = format!("{first}+{method}");
        self.complete(&account, &method, Assurance::TwoFactors, device, by, seen, now)
            .await
    }

    /// Asks for a passkey: of the account whose password was right, or of whomever the browser knows one.
    ///
    /// # Errors
    /// There is no such stage, or no passkeys can be used here.
    pub fn passkey_challenge(&self, stage: Option<&str>) -> Result<Challenge, Denied> {
        let now = self.clock.now();
        let passkeys = self.passkeys.read().clone().ok_or(Denied::SignIn)?;
        let (stage, options) = match stage.and_then(|s| self.stages.look(s, now)) {
            Some(Stage::Password { user, by, .. }) => {
                let kept = self.authenticators(&user)?;
                let usable: Vec<_> = kept
                    .passkeys
                    .iter()
                    .filter(|k| !k.suspect)
                    .map(|k| k.key.clone())
                    .collect();
                if usable.is_empty() {
                    return Err(Denied::SignIn);
                }
                let (options, asked) = passkeys
                    .start_passkey_authentication(&usable)
                    .map_err(|_| Denied::SignIn)?;
                let asked = Box::new(asked);
                (
                    Stage::PasswordPasskey { user, asked, by },
                    serde_json::to_string(&options.public_key),
                )
            }
            _ => {
                let (options, asked) = passkeys
                    .start_discoverable_authentication()
                    .map_err(|_| Denied::SignIn)?;
                (
                    Stage::Passkey(Box::new(asked)),
                    serde_json::to_string(&options.public_key),
                )
            }
        };
        let stage = self
            .stages
            .keep(stage, now, &*self.entropy)
            .map_err(|_| Denied::Unavailable(DocumentError::Unavailable))?;
        Ok(Challenge {
            stage,
            options: options.map_err(|_| Denied::SignIn)?,
        })
    }

    /// Signs in with a passkey that has verified its user. Never slowed down by wrong passwords.
    ///
    /// # Errors
    /// [`Denied`]; also where the passkey's counter went back, which is recorded and ends the use of that passkey.
    pub async fn sign_in_passkey(
        &self,
        stage: &str,
        response: &str,
        device: Option<&str>,
        seen: &Seen,
    ) -> Result<SignedIn, Denied> {
        let now = self.clock.now();
        let stage = self.stages.take(stage, now).ok_or(Denied::SignIn)?;
        let by = match &stage {
            Stage::PasswordPasskey { by, .. } => by.clone(),
            _ => None,
        };
        let method = if by.is_some() { "sso+passkey" } else { "passkey" };
        let account = self.verified_passkey(stage, response, seen, now).await?;
        let kept = self.authenticators(&account.id)?;
        let device = device.and_then(|cookie| known_device(&kept, cookie));
        self.complete(&account, method, Assurance::PhishingResistant, device, by, seen, now)
            .await
    }

    /// Whose passkey a response is of, after every check.
    pub(crate) async fn verified_passkey(
        &self,
        stage: Stage,
        response: &str,
        seen: &Seen,
        now: Timestamp,
    ) -> Result<Account, Denied> {
        let passkeys = self.passkeys.read().clone().ok_or(Denied::SignIn)?;
        let response: PublicKeyCredential = serde_json::from_str(response).map_err(|_| Denied::SignIn)?;
        let user = match &stage {
            Stage::PasswordPasskey { user, .. } => user.clone(),
            Stage::Passkey(_) => {
                let (handle, _) = passkeys
                    .identify_discoverable_authentication(&response)
                    .map_err(|_| Denied::SignIn)?;
                let known = self.handles.read().get(&hex(handle.as_bytes())).cloned();
                known.ok_or(Denied::SignIn)?
            }
            Stage::Password { .. } | Stage::Sso(_) => return Err(Denied::SignIn),
        };
        let _lock = self.lock(&user).await;
        let account = self.account(&user)?.filter(|a| a.state == AccountState::Active);
        let account = account.ok_or(Denied::SignIn)?;
        let mut kept = self.authenticators(&user)?;
        let place = kept
            .passkeys
            .iter_mut()
            .find(|k| !k.suspect && k.key.cred_id().as_slice() == response.raw_id.as_slice());
        let key = place.ok_or(Denied::SignIn)?;
        let checked: Result<AuthenticationResult, WebauthnError> = match stage {
            Stage::Passkey(asked) => passkeys.finish_discoverable_authentication_v2(&response, *asked, &key.key),
            Stage::PasswordPasskey { asked, .. } => passkeys.finish_passkey_authentication(&response, &asked),
            Stage::Password { .. } | Stage::Sso(_) => return Err(Denied::SignIn),
        };
        let by = context(actor(&account, "passkey", Assurance::None, now), seen, now);
        match checked {
            Ok(result) if result.user_verified() => {
                if key.key.update_credential(&result) == Some(true) {
                    self.keep_authenticators(&by, Action::OwnSession, &user, &kept).await?;
                }
                Ok(account)
            }
            Err(WebauthnError::CredentialPossibleCompromise) => {
                key.suspect = true;
                self.documents.log(&by, Action::OwnSession, false).await?;
                self.keep_authenticators(&by, Action::OwnAuthenticators, &user, &kept)
                    .await?;
                Err(Denied::SignIn)
            }
            _ => {
                self.documents.log(&by, Action::OwnSession, false).await?;
                Err(Denied::SignIn)
            }
        }
    }

    /// Uses up a one-time code of the account: `None` where it is not one. Of several uses at once one wins, and the
    /// code is durably used up when this returns.
    pub(crate) async fn use_code(
        &self,
        user: &str,
        code: &str,
        device: Option<[u8; 32]>,
        by: &Context,
    ) -> Result<Option<&'static str>, Denied> {
        let now = self.clock.now();
        let pool = Pool {
            user: user.to_owned(),
            secret: Secret::Code,
            device,
        };
        if !self.guesses.admit(&pool, &by.network, now) {
            return Ok(None);
        }
        let digits: String = code.chars().filter(|c| !c.is_whitespace()).collect();
        let letters = typed(code);
        let _lock = self.lock(user).await;
        let mut kept = self.authenticators(user)?;
        let method = if digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit()) {
            let found = kept.totp.iter_mut().find_map(|t| {
                let step = totp::accepted_step(&unhex(&t.secret), &digits, t.used_step, now)?;
                t.used_step = step;
                Some(())
            });
            found.map(|()| "totp")
        } else if letters.len() == CARD_LETTERS {
            let next = kept.card.as_ref().and_then(|c| c.codes.get(c.used).cloned());
            let fits = self.hasher.verify(&letters, next.as_deref()).await?;
            match kept.card.as_mut().filter(|_| fits) {
                Some(card) => {
                    card.used += 1;
                    Some("card")
                }
                None => None,
            }
        } else if letters.len() == RECOVERY_LETTERS {
            let hash = hex(&sha256(letters.as_bytes()));
            let before = kept.recovery.len();
            kept.recovery.retain(|h| *h != hash);
            (kept.recovery.len() < before).then_some("recovery")
        } else {
            None
        };
        if method.is_some() {
            self.keep_authenticators(by, Action::OwnSession, user, &kept).await?;
            self.guesses.right(&pool, &by.network);
        } else {
            self.documents.log(by, Action::OwnSession, false).await?;
        }
        Ok(method)
    }

    /// Opens the session of a sign-in whose factors are proven, and remembers the device.
    #[allow(clippy::too_many_arguments, reason = "the facts of one sign-in")]
    pub(crate) async fn complete(
        &self,
        account: &Account,
        method: &str,
        assurance: Assurance,
        known: Option<[u8; 32]>,
        federated: Option<Federated>,
        seen: &Seen,
        now: Timestamp,
    ) -> Result<SignedIn, Denied> {
        let by = context(actor(account, method, assurance, now), seen, now);
        let device = match known {
            Some(_) => {
                self.documents.log(&by, Action::OwnSession, true).await?;
                None
            }
            None => {
                let secret =
                    random_text::<32>(&*self.entropy).map_err(|_| Denied::Unavailable(DocumentError::Unavailable))?;
                let _lock = self.lock(&account.id).await;
                let mut kept = self.authenticators(&account.id)?;
                kept.remember(hex(&sha256(secret.as_bytes())));
                self.keep_authenticators(&by, Action::OwnSession, &account.id, &kept)
                    .await?;
                Some(secret)
            }
        };
        let opened = self.open_session(&by.actor, federated.clone(), seen, now)?;
        // Asked when the session is open: what ends links and providers ends sessions afterwards.
        if let Some(who) = &federated
            && !self.stands(who, &account.id)?
        {
            self.sessions.end_secret(&opened.secret);
            return Err(Denied::SignIn);
        }
        self.guesses.clear(&account.id);
        Ok(SignedIn { opened, device })
    }

    /// A refusal in the log. A name that is none is not written down: people type passwords into that field.
    pub(crate) async fn log_denied(
        &self,
        user: &str,
        method: &str,
        seen: &Seen,
        now: Timestamp,
    ) -> Result<(), DocumentError> {
        let somebody = match self.account(user).ok().flatten() {
            Some(account) => actor(&account, method, Assurance::None, now),
            None => nobody(now),
        };
        self.documents
            .log(&context(somebody, seen, now), Action::OwnSession, false)
            .await
    }

    /// Replaces a hash of weaker parameters by one of today's, now that the password is at hand.
    async fn raise_hash(
        &self,
        account: &Account,
        password: &str,
        seen_then: &Authenticators,
        seen: &Seen,
        now: Timestamp,
    ) -> Result<(), Denied> {
        let phc = self.hasher.hash(password, &*self.entropy).await?;
        let _lock = self.lock(&account.id).await;
        let mut kept = self.authenticators(&account.id)?;
        if kept.password == seen_then.password {
            kept.password = Some(phc);
            let by = context(actor(account, "password", Assurance::None, now), seen, now);
            self.keep_authenticators(&by, Action::OwnSession, &account.id, &kept)
                .await?;
        }
        Ok(())
    }

    /// Proves a factor again in a session, by password, code or passkey response: the session goes on under a new id
    /// and a new secret, and counts as fresh.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn reauthenticate(&self, by: &Context, proof: Proof<'_>) -> Result<OpenedSession, Denied> {
        let now = self.clock.now();
        let user = &by.actor.id;
        let active = self.account(user)?.is_some_and(|a| a.state == AccountState::Active);
        if !active || by.actor.assurance < Assurance::TwoFactors {
            return Err(Denied::SignIn);
        }
        let mut assurance = by.actor.assurance;
        match proof {
            Proof::Password(password) => {
                let pool = Pool {
                    user: user.clone(),
                    secret: Secret::Password,
                    // Somebody who is signed in, like a known device: strangers' tries do not stand in the way.
                    device: Some(sha256(by.actor.session.as_bytes())),
                };
                let kept = self.authenticators(user)?;
                if !self.guesses.admit(&pool, &by.network, now)
                    || !self.hasher.verify(password, kept.password.as_deref()).await?
                {
                    self.documents.log(by, Action::OwnSession, false).await?;
                    return Err(Denied::SecondFactor);
                }
                self.guesses.right(&pool, &by.network);
                self.documents.log(by, Action::OwnSession, true).await?;
            }
            Proof::Code(code) => {
                let device = Some(sha256(by.actor.session.as_bytes()));
                if self.use_code(user, code, device, by).await?.is_none() {
                    return Err(Denied::SecondFactor);
                }
            }
            Proof::Passkey { stage, response } => {
                let stage = self.stages.take(stage, now).ok_or(Denied::SecondFactor)?;
                let seen = Seen {
                    request_id: by.request_id.clone(),
                    network: by.network.clone(),
                };
                let account = self.verified_passkey(stage, response, &seen, now).await?;
                if account.id != *user {
                    return Err(Denied::SecondFactor);
                }
                assurance = Assurance::PhishingResistant;
                self.documents.log(by, Action::OwnSession, true).await?;
            }
        }
        self.sessions
            .renew(&by.actor.session, assurance, now, &*self.entropy)
            .map_err(|_| Denied::Unavailable(DocumentError::Unavailable))?
            .ok_or(Denied::SignIn)
    }

    /// How many passwords and card codes were compared with a hash since the start: what guessing costs the server.
    #[must_use]
    pub fn passwords_evaluated(&self) -> u64 {
        self.hasher.evaluated()
    }
}

/// A factor proven again.
#[derive(Clone, Copy)]
pub enum Proof<'a> {
    /// The password.
    Password(&'a str),
    /// A one-time code.
    Code(&'a str),
    /// A passkey's response to a challenge.
    Passkey {
        /// The stage of the challenge.
        stage: &'a str,
        /// The response as JSON.
        response: &'a str,
    },
}

/// The secret in a device's cookie by which the account knows it, hashed.
fn known_device(kept: &Authenticators, cookie: &str) -> Option<[u8; 32]> {
    cookie::devices(cookie)
        .map(|secret| sha256(secret.as_bytes()))
        .find(|hash| kept.knows(&hex(hash)))
}

/// Somebody of whom nothing is known.
fn nobody(now: Timestamp) -> Actor {
    let mut account = Account::new("unknown", "Somebody unknown", Role::Service, None);
    account.state = AccountState::Ended;
    actor(&account, "none", Assurance::None, now)
}

impl Fault {
    /// The fault of a wish that needs a fresh proof.
    pub(crate) fn unless_fresh(by: &Context, now: Timestamp) -> Result<(), Self> {
        if by.actor.is_fresh(now) {
            Ok(())
        } else {
            Err(Fault::Confirm)
        }
    }
}

#[cfg(test)]
#[path = "signin_tests.rs"]
mod tests;

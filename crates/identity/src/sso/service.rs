//! The way in by an identity provider, and what the operator does about providers.

use hashbrown::HashMap;
use keepwell_model::actor::{Assurance, Context};
use keepwell_model::reference::is_id;
use keepwell_model::time::Timestamp;
use keepwell_policy::Action;
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use subtle::ConstantTimeEq as _;
use webauthn_rs::prelude::Url;

use super::Federated;
use super::metadata::{Call, Metadata, Unreachable};
use super::provider::{self, ClientAuthentication, Link, Provider, ProviderState, is_subject};
use super::verify::{Flaw, Presented, remembered_until};
use crate::account::{Account, AccountState};
use crate::cookie;
use crate::documents::DocumentError;
use crate::secret::{hex, random_id, random_text, sha256, url64};
use crate::service::{Fault, Identity, Seen, actor, context, to_text};
use crate::signin::SignedIn;
use crate::stage::Stage;

/// Where providers send people back to, below the address of the pages.
pub const CALLBACK: &str = "/sso/callback";
/// Longest code accepted.
const CODE_MAX: usize = 4096;
/// An assertion of ours lives this long, in seconds.
const ASSERTION_TTL_S: i64 = 60;
/// Logout tokens remembered at a time.
const LOGOUTS_MAX: usize = 16_384;

/// A provider to be registered.
#[derive(Clone, Debug)]
pub struct NewProvider {
    /// Name shown on the sign-in page.
    pub display: String,
    /// Its issuer identifier.
    pub issuer: String,
    /// Who this installation is there.
    pub client_id: String,
    /// How it proves that.
    pub authentication: ClientAuthentication,
    /// What tokens may be signed with.
    pub algorithms: Vec<String>,
    /// `acr` values that count as two factors.
    pub acr: Vec<String>,
    /// `amr` values that count as two factors.
    pub amr: Vec<String>,
    /// Hosts beside the issuer's own.
    pub hosts: Vec<String>,
}

/// A sign-in begun: the browser goes to the provider.
pub struct Departure {
    /// What the browser holds meanwhile, for its cookie.
    pub stage: String,
    /// Where it goes.
    pub to: String,
}

/// What the provider's answer says, as it came in the address.
#[derive(Clone, Copy, Default)]
pub struct Callback<'a> {
    /// `state`
    pub state: &'a str,
    /// `code`
    pub code: Option<&'a str>,
    /// `iss`
    pub iss: Option<&'a str>,
    /// `error` is there.
    pub declined: bool,
}

/// Where a sign-in by a provider has come to.
pub enum Arrived {
    /// Two factors are proven: a session is open.
    Session(Box<SignedIn>),
    /// The own second factor is to come; the secret of the stage.
    Second(String),
}

/// Why it opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SsoFault {
    /// Refused; the reason is for the server's own log.
    #[error(transparent)]
    Refused(#[from] Flaw),
    /// The provider cannot be reached: other ways to sign in are as they were.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// Sealed, full, no randomness: nothing was decided.
    #[error(transparent)]
    Unavailable(#[from] DocumentError),
}

/// Logout tokens that were used, until they are too old anyway. In memory, like the sessions they end.
pub(crate) struct Logouts {
    used: Mutex<HashMap<[u8; 32], i64>>,
    /// Tokens from before the start end sessions that are gone.
    started_s: i64,
}

impl Logouts {
    pub(crate) fn since(now: Timestamp) -> Self {
        Self {
            used: Mutex::default(),
            started_s: now.0.div_euclid(1000),
        }
    }

    /// Uses one up: of several uses at once one wins.
    fn take(&self, issuer: &str, jti: &str, iat: i64, now_s: i64) -> Result<(), Flaw> {
        if iat < self.started_s {
            return Err(Flaw::NotNow);
        }
        let mut used = self.used.lock();
        used.retain(|_, until| now_s <= *until);
        let key = sha256(format!("{}:{issuer}{jti}", issuer.len()).as_bytes());
        if used.len() >= LOGOUTS_MAX || used.contains_key(&key) {
            return Err(Flaw::Replay);
        }
        used.insert(key, remembered_until(iat));
        Ok(())
    }
}

/// Where the pages are, once that is known.
#[derive(Default)]
pub(crate) struct PagesAt(RwLock<String>);

impl Identity {
    /// Says at which address browsers find the pages: providers send people back there.
    pub fn serve_sign_in_at(&self, origin: &str) {
        origin.clone_into(&mut self.pages_at.0.write());
    }

    fn callback_address(&self) -> String {
        format!("{}{CALLBACK}", self.pages_at.0.read())
    }

    // The operator

    /// Registers a provider.
    ///
    /// # Errors
    /// Policy refuses, it breaks a rule, or an active one has the same issuer.
    pub async fn add_provider(&self, by: &Context, new: &NewProvider) -> Result<Provider, Fault> {
        self.authorize(by, Action::ProviderManage).await?;
        let made = Provider {
            id: format!("idp-{}", random_id::<8>(&*self.entropy)?),
            display: new.display.clone(),
            issuer: new.issuer.clone(),
            client_id: new.client_id.clone(),
            authentication: new.authentication,
            algorithms: new.algorithms.clone(),
            acr: new.acr.clone(),
            amr: new.amr.clone(),
            hosts: new.hosts.clone(),
            created: self.clock.now().0,
            state: ProviderState::Active,
        };
        if let Some(fault) = made.fault() {
            return Err(Fault::Rule(fault));
        }
        // Two registrations at once are one after the other.
        let _lock = self.lock(provider::KIND).await;
        if self.active_of(&made.issuer)?.is_some() {
            return Err(Fault::Rule(
                "a provider of this issuer is registered already: end it first",
            ));
        }
        let text = to_text(&made)?;
        self.documents
            .put(by, Action::ProviderManage, provider::KIND, &made.id, Some(&text), true)
            .await?;
        Ok(made)
    }

    /// The providers, each with the number of identities linked.
    ///
    /// # Errors
    /// Policy refuses, or they cannot be read.
    pub async fn providers(&self, by: &Context) -> Result<Vec<(Provider, usize)>, Fault> {
        self.authorize(by, Action::ProviderManage).await?;
        let links = self.links()?;
        let of = |p: &Provider| links.iter().filter(|l| l.issuer == p.issuer).count();
        let listed = self.all_providers()?.into_iter().map(|p| {
            let linked = of(&p);
            (p, linked)
        });
        let listed = listed.collect();
        self.documents.log(by, Action::ProviderManage, true).await?;
        Ok(listed)
    }

    /// Ends a provider: nobody signs in by it any more, and the sessions it has opened end. Links stay.
    ///
    /// # Errors
    /// Policy refuses, or there is no such provider.
    pub async fn end_provider(&self, by: &Context, id: &str) -> Result<(), Fault> {
        self.authorize(by, Action::ProviderManage).await?;
        let _lock = self.lock(provider::KIND).await;
        let mut kept = self.provider(id)?.ok_or(Fault::Rule("there is no such provider"))?;
        kept.state = ProviderState::Ended;
        let text = to_text(&kept)?;
        self.documents
            .put(by, Action::ProviderManage, provider::KIND, id, Some(&text), false)
            .await?;
        self.end_federated(|f| f.issuer == kept.issuer);
        self.lanes.forget();
        Ok(())
    }

    /// Says which account an identity at a provider is.
    ///
    /// # Errors
    /// Policy refuses, there is no such account or provider, or the identity is linked already.
    pub async fn link_identity(&self, by: &Context, link: &Link) -> Result<(), Fault> {
        self.authorize(by, Action::ProviderManage).await?;
        if !is_subject(&link.subject) {
            return Err(Fault::Rule("a subject has 1 to 255 ASCII characters"));
        }
        if self.active_of(&link.issuer)?.is_none() {
            return Err(Fault::Rule("no provider of this issuer is registered"));
        }
        match self.account_of(&link.user)? {
            None => return Err(Fault::Rule("there is no such account")),
            Some(a) if a.state == AccountState::Ended => return Err(Fault::Rule("the account has ended")),
            Some(_) => {}
        }
        let id = Link::id(&link.issuer, &link.subject);
        let text = to_text(link)?;
        self.documents
            .put(by, Action::ProviderManage, provider::LINK, &id, Some(&text), true)
            .await
            .map_err(|e| match e {
                DocumentError::Exists => {
                    Fault::Rule("this identity is linked with an account already: unlink it first")
                }
                other => other.into(),
            })
    }

    /// Takes a link away; the sessions it has opened end.
    ///
    /// # Errors
    /// Policy refuses, or there is no such link.
    pub async fn unlink_identity(&self, by: &Context, issuer: &str, subject: &str) -> Result<(), Fault> {
        self.authorize(by, Action::ProviderManage).await?;
        let id = Link::id(issuer, subject);
        if self.documents.get(provider::LINK, &id)?.is_none() {
            return Err(Fault::Rule("there is no such link"));
        }
        self.documents
            .put(by, Action::ProviderManage, provider::LINK, &id, None, false)
            .await?;
        self.end_federated(|f| f.issuer == issuer && f.subject == subject);
        Ok(())
    }

    // Signing in

    /// Id and name of the providers that people may sign in by; empty where they cannot be read.
    #[must_use]
    pub fn sign_in_providers(&self) -> Vec<(String, String)> {
        let all = self.all_providers().unwrap_or_default().into_iter();
        let active = all.filter(|p| p.state == ProviderState::Active);
        active.map(|p| (p.id, p.display)).collect()
    }

    /// Begins a sign-in by a provider. `device` is the secret of the browser's device cookie.
    ///
    /// # Errors
    /// [`SsoFault`].
    pub async fn sso_begin(&self, provider: &str, device: Option<&str>) -> Result<Departure, SsoFault> {
        let now = self.clock.now();
        let provider = self.active(provider)?.ok_or(Flaw::Provider)?;
        let metadata = self.lanes.metadata(&*self.outbound, &provider, now).await?;
        let random = || random_text::<32>(&*self.entropy).map_err(|_| DocumentError::Unavailable);
        let (state, nonce, verifier) = (random()?, random()?, random()?);
        let mut to = Url::parse(&metadata.authorization_endpoint).map_err(|_| Unreachable)?;
        {
            let mut query = to.query_pairs_mut();
            query
                .append_pair("response_type", "code")
                .append_pair("client_id", &provider.client_id)
                .append_pair("redirect_uri", &self.callback_address())
                .append_pair("scope", "openid")
                .append_pair("state", &state)
                .append_pair("nonce", &nonce)
                .append_pair("code_challenge", &url64(&sha256(verifier.as_bytes())))
                .append_pair("code_challenge_method", "S256");
            if !provider.acr.is_empty() {
                query.append_pair("acr_values", &provider.acr.join(" "));
            }
        }
        let stage = Stage::Sso(Box::new(Begun {
            provider: provider.id,
            state,
            nonce,
            verifier,
            devices: device
                .into_iter()
                .flat_map(cookie::devices)
                .map(|d| sha256(d.as_bytes()))
                .collect(),
        }));
        let stage = self
            .stages
            .keep(stage, now, &*self.entropy)
            .map_err(|_| DocumentError::Unavailable)?;
        Ok(Departure { stage, to: to.into() })
    }

    /// Goes on with a sign-in where the provider has sent the browser back. `stage` is what the browser holds.
    ///
    /// # Errors
    /// [`SsoFault`]. A refusal that is about an account is in the log; those of strangers the caller counts, as anybody
    /// can make any number of them.
    pub async fn sso_arrive(&self, stage: &str, answer: Callback<'_>, seen: &Seen) -> Result<Arrived, SsoFault> {
        let now = self.clock.now();
        match self.arrive(stage, answer, seen, now).await {
            Err((SsoFault::Refused(flaw), Some(user))) => {
                self.log_denied(&user, "sso", seen, now).await?;
                Err(flaw.into())
            }
            Err((other, _)) => Err(other),
            Ok(arrived) => Ok(arrived),
        }
    }

    /// The user of an error is whose account it is about, for the log.
    async fn arrive(
        &self,
        stage: &str,
        answer: Callback<'_>,
        seen: &Seen,
        now: Timestamp,
    ) -> Result<Arrived, (SsoFault, Option<String>)> {
        let nobody = |e: SsoFault| (e, None);
        let (begun, federated, two_factors) = self.identified(stage, answer, now).await.map_err(nobody)?;
        let account = self.linked(&federated).map_err(|e| nobody(e.into()))?;
        let Some(account) = account else {
            return Err(nobody(Flaw::Unlinked.into()));
        };
        let about = |e: SsoFault| (e, Some(account.id.clone()));
        if account.state != AccountState::Active {
            return Err(about(Flaw::Account.into()));
        }
        let kept = self.authenticators(&account.id).map_err(|e| about(e.into()))?;
        let device = begun.devices.into_iter().find(|d| kept.knows(&hex(d)));
        if two_factors {
            let done = self
                .complete(
                    &account,
                    "sso",
                    Assurance::TwoFactors,
                    device,
                    Some(federated),
                    seen,
                    now,
                )
                .await
                .map_err(|e| match e {
                    crate::service::Denied::Unavailable(e) => about(e.into()),
                    _ => about(Flaw::Account.into()),
                })?;
            return Ok(Arrived::Session(Box::new(done)));
        }
        let stage = Stage::Password {
            user: account.id.clone(),
            device,
            by: Some(federated),
        };
        let secret = self.stages.keep(stage, now, &*self.entropy);
        secret
            .map(Arrived::Second)
            .map_err(|_| about(DocumentError::Unavailable.into()))
    }

    /// Whether a link and its provider still stand: both may go while a sign-in is under way.
    pub(crate) fn stands(&self, who: &Federated, user: &str) -> Result<bool, DocumentError> {
        let linked = self.linked(who)?.is_some_and(|a| a.id == user);
        Ok(linked && self.active_of(&who.issuer)?.is_some())
    }

    /// Who the provider says it is, after every check of its answer and its token.
    async fn identified(
        &self,
        stage: &str,
        answer: Callback<'_>,
        now: Timestamp,
    ) -> Result<(Begun, Federated, bool), SsoFault> {
        let Some(Stage::Sso(begun)) = self.stages.look(stage, now) else {
            return Err(Flaw::Browser.into());
        };
        // Before the stage is used up: an address from elsewhere ends nobody's sign-in.
        if !bool::from(begun.state.as_bytes().ct_eq(answer.state.as_bytes())) {
            return Err(Flaw::State.into());
        }
        if self.stages.take(stage, now).is_none() {
            return Err(Flaw::Browser.into());
        }
        let provider = self.active(&begun.provider)?.ok_or(Flaw::Provider)?;
        let metadata = self.lanes.metadata(&*self.outbound, &provider, now).await?;
        let says = metadata.authorization_response_iss_parameter_supported;
        match answer.iss {
            Some(iss) if iss != provider.issuer => return Err(Flaw::MixedUp.into()),
            None if says => return Err(Flaw::MixedUp.into()),
            _ => {}
        }
        if answer.declined {
            return Err(Flaw::Declined.into());
        }
        let code = answer.code.filter(|c| (1..=CODE_MAX).contains(&c.len()));
        let code = code.ok_or(Flaw::Answer)?;
        let token = self.exchanged(&provider, &metadata, code, &begun.verifier, now).await?;
        let presented = Presented::read(&token)?;
        self.lanes
            .check_signature(&*self.outbound, &provider, &presented, now)
            .await??;
        let now_s = self.clock.now().0.div_euclid(1000);
        let said = presented.id_token(&provider, &begun.nonce, now_s)?;
        let two_factors = provider.has_two_factors(said.acr.as_deref(), &said.amr);
        let federated = Federated {
            issuer: provider.issuer.clone(),
            subject: said.sub,
            sid: said.sid,
        };
        Ok((*begun, federated, two_factors))
    }

    /// The ID token that the provider gives for a code.
    async fn exchanged(
        &self,
        provider: &Provider,
        metadata: &Metadata,
        code: &str,
        verifier: &str,
        now: Timestamp,
    ) -> Result<String, SsoFault> {
        #[derive(Deserialize)]
        struct Given {
            id_token: String,
        }
        let redirect = self.callback_address();
        let assertion = match provider.authentication {
            ClientAuthentication::None => None,
            ClientAuthentication::PrivateKeyJwt => Some(self.assertion(provider, now)?),
        };
        let mut members = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &redirect),
            ("client_id", &provider.client_id),
            ("code_verifier", verifier),
        ];
        if let Some(assertion) = &assertion {
            members.push((
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            ));
            members.push(("client_assertion", assertion));
        }
        let form = form(&members).ok_or(Unreachable)?;
        let call = Call {
            url: &metadata.token_endpoint,
            form: Some(&form),
        };
        let reply = self.outbound.send(call).await?;
        if reply.status >= 500 {
            return Err(Unreachable.into());
        }
        if reply.status != 200 {
            return Err(Flaw::Exchange.into());
        }
        let given: Given = serde_json::from_slice(&reply.body).map_err(|_| Flaw::Exchange)?;
        Ok(given.id_token)
    }

    /// Who this installation is, for the provider's token endpoint alone.
    fn assertion(&self, provider: &Provider, now: Timestamp) -> Result<String, DocumentError> {
        let iat = now.0.div_euclid(1000);
        let jti = random_id::<16>(&*self.entropy).map_err(|_| DocumentError::Unavailable)?;
        let claims = serde_json::json!({
            "iss": provider.client_id,
            "sub": provider.client_id,
            "aud": provider.issuer,
            "iat": iat,
            "exp": iat.saturating_add(ASSERTION_TTL_S),
            "jti": jti,
        });
        self.tokens
            .sign_assertion(claims.to_string().as_bytes())
            .map_err(|_| DocumentError::Unavailable)
    }

    /// Ends the sessions that a provider says have ended there (Back-Channel Logout 1.0).
    ///
    /// # Errors
    /// [`SsoFault`]; then no session has ended.
    pub async fn sso_logout(&self, token: &str, seen: &Seen) -> Result<usize, SsoFault> {
        let now = self.clock.now();
        let presented = Presented::read(token)?;
        let issuer = presented.issuer().ok_or(Flaw::Malformed)?;
        let provider = self.active_of(&issuer)?.ok_or(Flaw::Provider)?;
        self.lanes
            .check_signature(&*self.outbound, &provider, &presented, now)
            .await??;
        let now_s = now.0.div_euclid(1000);
        let said = presented.logout_token(&provider, now_s)?;
        self.logouts.take(&issuer, &said.jti, said.iat, now_s)?;
        let users = self.end_federated(|f| f.is_meant(&issuer, said.sub.as_deref(), said.sid.as_deref()));
        for user in &users {
            if let Some(account) = self.account_of(user)? {
                let by = context(actor(&account, "sso-logout", Assurance::None, now), seen, now);
                self.documents.log(&by, Action::OwnSession, true).await?;
            }
        }
        Ok(users.len())
    }

    // Helpers

    /// Ends sign-ins under way and sessions; whose the sessions were.
    fn end_federated(&self, which: impl Fn(&Federated) -> bool) -> Vec<String> {
        self.stages.end_federated(&which);
        self.sessions.end_federated(&which)
    }

    fn provider(&self, id: &str) -> Result<Option<Provider>, DocumentError> {
        if !is_id(id) {
            return Ok(None);
        }
        let text = self.documents.get(provider::KIND, id)?;
        text.map(|t| serde_json::from_str(&t).map_err(|_| DocumentError::Unavailable))
            .transpose()
    }

    fn active(&self, id: &str) -> Result<Option<Provider>, DocumentError> {
        Ok(self.provider(id)?.filter(|p| p.state == ProviderState::Active))
    }

    fn active_of(&self, issuer: &str) -> Result<Option<Provider>, DocumentError> {
        let mut all = self.all_providers()?.into_iter();
        Ok(all.find(|p| p.state == ProviderState::Active && p.issuer == issuer))
    }

    fn all_providers(&self) -> Result<Vec<Provider>, DocumentError> {
        let texts = self.documents.list(provider::KIND)?;
        texts
            .iter()
            .map(|(_, t)| serde_json::from_str(t).map_err(|_| DocumentError::Unavailable))
            .collect()
    }

    fn links(&self) -> Result<Vec<Link>, DocumentError> {
        let texts = self.documents.list(provider::LINK)?;
        texts
            .iter()
            .map(|(_, t)| serde_json::from_str(t).map_err(|_| DocumentError::Unavailable))
            .collect()
    }

    /// The account of an identity.
    fn linked(&self, who: &Federated) -> Result<Option<Account>, DocumentError> {
        let Some(text) = self
            .documents
            .get(provider::LINK, &Link::id(&who.issuer, &who.subject))?
        else {
            return Ok(None);
        };
        let link: Link = serde_json::from_str(&text).map_err(|_| DocumentError::Unavailable)?;
        if link.issuer != who.issuer || link.subject != who.subject {
            return Ok(None);
        }
        self.account_of(&link.user)
    }

    fn account_of(&self, user: &str) -> Result<Option<Account>, DocumentError> {
        if is_id(user) { self.account(user) } else { Ok(None) }
    }
}

/// What was begun in a browser.
#[derive(Clone)]
pub(crate) struct Begun {
    provider: String,
    state: String,
    nonce: String,
    verifier: String,
    /// What the browser's device cookie holds, hashed.
    devices: Vec<[u8; 32]>,
}

/// Members as a form.
fn form(members: &[(&str, &str)]) -> Option<String> {
    let mut url = Url::parse("https://form/").ok()?;
    url.query_pairs_mut().extend_pairs(members);
    url.query().map(str::to_owned)
}

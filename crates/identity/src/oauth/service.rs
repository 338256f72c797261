//! The way in for clients: registration by the operator, tokens for assertions, introspection, revocation.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hashbrown::HashMap;
use keepwell_model::actor::{Actor, Assurance, Context, Role};
use keepwell_model::time::Timestamp;
use keepwell_policy::Action;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::assertion::{Flaw, Presented, Proven};
use super::client::{self, Client, ClientState, KEYS_MAX};
use super::scope;
use crate::documents::{DocumentError, Documents};
use crate::secret::{hex, random_id, sha256};
use crate::service::{Fault, Identity, REVOCATION, Revocation, Seen, context, revocation_of, to_text};
use crate::token::{Claims, Refused, Wanted, scope_text};

/// An access token of a client lives this long, in seconds (SMART: no more than five minutes).
pub const ACCESS_TTL_S: i64 = 5 * 60;
/// Longest registration of a client, and of a key: two years, then somebody looks at it again.
pub const CLIENT_TTL_MAX_S: i64 = 2 * 365 * 24 * 60 * 60;
/// Assertions of one client remembered at a time. One token lasts five minutes: who needs hundreds misbehaves.
const USED_MAX: usize = 512;
/// Kind of the documents that keep which assertions were used.
const USED: &str = "client-assertions";

/// The used assertions of one client: their hashed `jti`, and until when they would be accepted.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Used {
    /// Seconds since 1970 by the first 128 bits of SHA-256 of the `jti`.
    used: BTreeMap<String, i64>,
}

/// Which assertions were used. One lane for each client: whoever holds it is alone with the client, so that of any
/// number of parallel uses of an assertion one wins, and what is written last knows of all before it.
#[derive(Default)]
pub(crate) struct Assertions(Mutex<HashMap<String, Arc<tokio::sync::Mutex<Used>>>>);

impl Assertions {
    /// What was kept before the last stop: an assertion is used once, whatever happens to the process.
    pub(crate) fn read(documents: &dyn Documents) -> Result<Self, DocumentError> {
        let kept = documents.list(USED)?.into_iter().map(|(id, text)| {
            let used: Used = serde_json::from_str(&text).map_err(|_| DocumentError::Unavailable)?;
            Ok((id, Arc::new(tokio::sync::Mutex::new(used))))
        });
        Ok(Self(Mutex::new(kept.collect::<Result<_, DocumentError>>()?)))
    }

    /// The lane of a client. Only for clients that exist: lanes are never taken away.
    fn lane(&self, client: &str) -> Arc<tokio::sync::Mutex<Used>> {
        Arc::clone(self.0.lock().entry(client.to_owned()).or_default())
    }
}

/// A client to be registered.
#[derive(Clone, Debug)]
pub struct NewClient {
    /// Name shown in the access log.
    pub display: String,
    /// Its public keys: a JWK Set or one JWK.
    pub jwks: String,
    /// What it may reach: system/ scopes.
    pub scope: String,
    /// How long it is registered, in seconds.
    pub ttl_s: i64,
    /// How long its keys are accepted, in seconds.
    pub key_ttl_s: i64,
}

/// How a client says who it is.
#[derive(Clone, Copy)]
pub struct AssertedBy<'a> {
    /// The assertion; not to be logged.
    pub assertion: &'a str,
    /// The `client_id` of the form, where there is one.
    pub client_id: Option<&'a str>,
    /// The address of the token endpoint: for whom the assertion must be.
    pub audience: &'a str,
}

/// What a client gets. Not `Debug`: the token is a secret.
pub struct Answered {
    /// The access token.
    pub token: String,
    /// Its lifetime in seconds.
    pub expires_in: i64,
    /// The scopes granted, in letters.
    pub scope: String,
}

/// Why a client gets nothing (RFC 6749 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// `invalid_client`.
    #[error("{0}")]
    Client(Flaw),
    /// `invalid_scope`; in words.
    #[error("{0}")]
    Scope(&'static str),
    /// Too many assertions in five minutes.
    #[error("too many assertions: a token lasts five minutes, use it that long")]
    TooMany,
    /// Sealed, full, no randomness: nothing was given.
    #[error("tokens cannot be issued now")]
    Unavailable,
}

impl From<Flaw> for TokenFault {
    fn from(flaw: Flaw) -> Self {
        TokenFault::Client(flaw)
    }
}

impl From<DocumentError> for TokenFault {
    fn from(_: DocumentError) -> Self {
        TokenFault::Unavailable
    }
}

/// What introspection says of a token that is active (RFC 7662).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introspected {
    /// What the token says.
    pub claims: Claims,
}

/// A public key that verifies tokens of this installation, as a JWK has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationKey {
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// The Ed25519 point in base64url.
    pub x: String,
}

/// A client as the actor of what it does.
fn actor(client: &Client, session: String, now: Timestamp) -> Actor {
    Actor {
        id: client.id.clone(),
        display: client.display.clone(),
        role: Role::Service,
        patient: None,
        practitioner: None,
        client: Some(client.id.clone()),
        scopes: client.scopes(),
        session,
        authenticated: now,
        reauthenticated: now,
        // A machine has proven that it holds its private key; no person's factor stands behind it.
        assurance: Assurance::TwoFactors,
        method: "private_key_jwt".to_owned(),
    }
}

fn later(now: Timestamp, seconds: i64) -> Timestamp {
    Timestamp(now.0.saturating_add(seconds.saturating_mul(1000)))
}

fn ttl(seconds: i64) -> Result<i64, Fault> {
    if (1..=CLIENT_TTL_MAX_S).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(Fault::Rule("a client and its keys live from a second to two years"))
    }
}

impl Identity {
    // Registration

    /// Registers a client.
    ///
    /// # Errors
    /// Policy refuses, or it breaks a rule.
    pub async fn add_client(&self, by: &Context, new: &NewClient) -> Result<Client, Fault> {
        self.authorize(by, Action::ClientRegister).await?;
        let now = self.clock.now();
        let key_expires = later(now, ttl(new.key_ttl_s)?);
        let scopes = new
            .scope
            .split_whitespace()
            .map(scope::parse)
            .collect::<Result<Vec<_>, _>>()
            .map_err(Fault::Rule)?;
        let client = Client {
            id: format!("client-{}", random_id::<8>(&*self.entropy)?),
            display: new.display.clone(),
            scope: scopes.iter().map(scope_text).collect::<Vec<_>>().join(" "),
            keys: client::keys(&new.jwks, now, key_expires).map_err(Fault::Rule)?,
            created: now.0,
            expires: later(now, ttl(new.ttl_s)?).0,
            state: ClientState::Active,
        };
        if let Some(fault) = client.fault() {
            return Err(Fault::Rule(fault));
        }
        self.put_client(by, Action::ClientRegister, &client, true).await?;
        Ok(client)
    }

    /// All clients, by id.
    ///
    /// # Errors
    /// Policy refuses, or they cannot be read.
    pub async fn clients(&self, by: &Context) -> Result<Vec<Client>, Fault> {
        self.authorize(by, Action::ClientRead).await?;
        let texts = self.documents.list(client::KIND)?;
        let all = texts.iter().map(|(_, text)| read(text)).collect::<Result<_, _>>()?;
        self.documents.log(by, Action::ClientRead, true).await?;
        Ok(all)
    }

    /// One client.
    ///
    /// # Errors
    /// Policy refuses, or there is none.
    pub async fn client(&self, by: &Context, id: &str) -> Result<Client, Fault> {
        self.authorize(by, Action::ClientRead).await?;
        let client = self.kept_client(id)?.ok_or(NONE)?;
        self.documents.log(by, Action::ClientRead, true).await?;
        Ok(client)
    }

    /// Gives a client more keys, for a rotation: the old one stays until it is taken away or expires.
    ///
    /// # Errors
    /// Policy refuses, there is no such client, or a key breaks a rule.
    pub async fn add_client_keys(&self, by: &Context, id: &str, jwks: &str, ttl_s: i64) -> Result<Client, Fault> {
        self.authorize(by, Action::ClientRegister).await?;
        let now = self.clock.now();
        let keys = client::keys(jwks, now, later(now, ttl(ttl_s)?)).map_err(Fault::Rule)?;
        self.kept_client(id)?.ok_or(NONE)?;
        let lane = self.assertions.lane(id);
        let _alone = lane.lock().await;
        let mut client = self.kept_client(id)?.ok_or(NONE)?;
        if client.state == ClientState::Ended {
            return Err(Fault::Rule("this client has ended: register another"));
        }
        // What has expired opens nothing: it makes room.
        client.keys.retain(|k| now.0 < k.expires);
        client.keys.extend(keys);
        if client.keys.len() > KEYS_MAX {
            return Err(Fault::Rule("a client has one to eight keys: remove one first"));
        }
        if let Some(fault) = client.fault() {
            return Err(Fault::Rule(fault));
        }
        self.put_client(by, Action::ClientRegister, &client, false).await?;
        Ok(client)
    }

    /// Takes a key from a client. Its tokens are void from now on: some may have been asked for by whoever has stolen
    /// the key, and with another key the client gets a new one at once.
    ///
    /// # Errors
    /// Policy refuses, there is no such client or key, or it is the last one.
    pub async fn remove_client_key(&self, by: &Context, id: &str, kid: &str) -> Result<Client, Fault> {
        self.authorize(by, Action::ClientEnd).await?;
        self.kept_client(id)?.ok_or(NONE)?;
        let lane = self.assertions.lane(id);
        let _alone = lane.lock().await;
        let mut client = self.kept_client(id)?.ok_or(NONE)?;
        let before = client.keys.len();
        client.keys.retain(|k| k.kid != kid);
        if client.keys.len() == before {
            return Err(Fault::Rule("the client has no such key"));
        }
        if client.keys.is_empty() {
            return Err(Fault::Rule("this is the client's last key: end the client instead"));
        }
        self.put_client(by, Action::ClientEnd, &client, false).await?;
        self.void_tokens_of(by, id).await?;
        Ok(client)
    }

    /// Ends a client: its tokens are void at once, and it gets no more.
    ///
    /// # Errors
    /// Policy refuses, there is no such client, or the end could not be made durable.
    pub async fn end_client(&self, by: &Context, id: &str) -> Result<(), Fault> {
        self.authorize(by, Action::ClientEnd).await?;
        self.kept_client(id)?.ok_or(NONE)?;
        let lane = self.assertions.lane(id);
        let _alone = lane.lock().await;
        let mut client = self.kept_client(id)?.ok_or(NONE)?;
        client.state = ClientState::Ended;
        self.void_tokens_of(by, id).await?;
        self.put_client(by, Action::ClientEnd, &client, false).await
    }

    /// Voids every token of a client, at once and durably. The caller holds the client's lane.
    async fn void_tokens_of(&self, by: &Context, id: &str) -> Result<(), Fault> {
        let now = self.clock.now();
        // Tokens given after the last time carry a later second (see `grant`): they must be reached as well.
        let at = self
            .tokens
            .void_until(id)
            .map_or(now.0, |t| now.0.max(t.0.saturating_add(1000)));
        self.tokens.end_user(id, Timestamp(at));
        let text = to_text(&Revocation::User {
            user: id.to_owned(),
            at,
        })?;
        Ok(self
            .documents
            .put(
                by,
                Action::ClientEnd,
                REVOCATION,
                &revocation_of(id),
                Some(&text),
                false,
            )
            .await?)
    }

    // Tokens

    /// An access token for an assertion: for what was asked, as far as the client is registered for it.
    ///
    /// # Errors
    /// [`TokenFault`]. Nothing is given that is not durably logged.
    pub async fn client_token(&self, by: AssertedBy<'_>, asked: &str, seen: &Seen) -> Result<Answered, TokenFault> {
        let (client, proven) = self.prove(by)?;
        // Before the assertion is used up, so that one who asks for too much may ask again with it.
        let scopes = scope::narrow(asked, &client.scopes()).map_err(TokenFault::Scope)?;
        let lane = self.assertions.lane(&client.id);
        let mut used = lane.lock().await;
        let (client, now) = self.admit(&mut used, by, &proven, seen).await?;
        let left = client
            .expires
            .min(proven.key_expires)
            .saturating_sub(now.0)
            .div_euclid(1000);
        let ttl_s = ACCESS_TTL_S.min(left.max(1));
        // In the second in which the tokens of the client were voided, a new one must not be void with them.
        let from = self.tokens.void_until(&client.id);
        let from = from.map_or(now, |t| {
            now.max(Timestamp(t.0.div_euclid(1000).saturating_add(1).saturating_mul(1000)))
        });
        let wanted = Wanted {
            user: client.id.clone(),
            display: client.display.clone(),
            role: Role::Service,
            patient: None,
            client: Some(client.id.clone()),
            scopes,
            ttl_s,
        };
        let issued = self.tokens.issue(&wanted, from, &*self.entropy).map_err(|e| match e {
            Refused::Rule(rule) => TokenFault::Scope(rule),
            _ => TokenFault::Unavailable,
        })?;
        // The entry of the log names the token's id, by which each later access can be followed back to it.
        let by = context(actor(&client, issued.jti, now), seen, now);
        self.keep_used(&by, &client.id, &used).await?;
        Ok(Answered {
            token: issued.token,
            expires_in: ttl_s,
            scope: wanted.scopes.iter().map(scope_text).collect::<Vec<_>>().join(" "),
        })
    }

    /// The client behind an assertion, for introspection and revocation; the assertion is used up.
    ///
    /// # Errors
    /// [`TokenFault`].
    pub async fn authenticate_client(&self, by: AssertedBy<'_>, seen: &Seen) -> Result<Arc<Actor>, TokenFault> {
        let (client, proven) = self.prove(by)?;
        let lane = self.assertions.lane(&client.id);
        let mut used = lane.lock().await;
        let (client, now) = self.admit(&mut used, by, &proven, seen).await?;
        let by = context(actor(&client, String::new(), now), seen, now);
        self.keep_used(&by, &client.id, &used).await?;
        Ok(by.actor)
    }

    /// What a token says, while it is active; `None` otherwise. A client learns about its own tokens only.
    ///
    /// # Errors
    /// Policy refuses one who is no client.
    pub async fn introspect(&self, by: Arc<Actor>, seen: &Seen, token: &str) -> Result<Option<Introspected>, Fault> {
        let now = self.clock.now();
        let by = context(Actor::clone(&by), seen, now);
        let action = self.authorize_token(&by).await?;
        let claims = self.tokens.claims(token, now).ok();
        let claims = claims.filter(|c| by.actor.client.is_none() || by.actor.client == c.client_id);
        self.documents.log(&by, action, true).await?;
        Ok(claims.map(|claims| Introspected { claims }))
    }

    /// Voids the token that is handed in: at once in this process, durably when this returns. One that is void, ended
    /// or no token at all needs nothing (RFC 7009 2.2).
    ///
    /// # Errors
    /// Policy refuses, the token is another client's, or the revocation could not be made durable.
    pub async fn revoke_presented(&self, by: Arc<Actor>, seen: &Seen, token: &str) -> Result<(), Fault> {
        let now = self.clock.now();
        let by = context(Actor::clone(&by), seen, now);
        let action = self.authorize_token(&by).await?;
        let Ok(claims) = self.tokens.claims(token, now) else {
            return Ok(self.documents.log(&by, action, true).await?);
        };
        if by.actor.client.is_some() && by.actor.client != claims.client_id {
            self.documents.log(&by, action, false).await?;
            return Err(Fault::Forbidden("this is a token of somebody else".to_owned()));
        }
        let until = Timestamp(claims.exp.saturating_mul(1000));
        self.tokens.revoke(&claims.jti, until, now);
        let text = to_text(&Revocation::Token { until: until.0 })?;
        Ok(self
            .documents
            .put(&by, action, REVOCATION, &claims.jti, Some(&text), false)
            .await?)
    }

    /// The public keys that verify tokens, today's first.
    #[must_use]
    pub fn verification_keys(&self) -> Vec<VerificationKey> {
        let keys = self.tokens.public_keys().into_iter();
        keys.map(|(kid, public)| VerificationKey {
            kid,
            x: URL_SAFE_NO_PAD.encode(public),
        })
        .collect()
    }

    // Helpers

    /// A client may ask about its own tokens; everybody else needs the right to revoke those of others.
    async fn authorize_token(&self, by: &Context) -> Result<Action, Fault> {
        let action = match by.actor.client {
            Some(_) => Action::OwnSession,
            None => Action::TokenRevoke,
        };
        self.authorize(by, action).await?;
        Ok(action)
    }

    /// Checks an assertion, but for its single use.
    fn prove(&self, by: AssertedBy<'_>) -> Result<(Client, Proven), TokenFault> {
        let presented = Presented::read(by.assertion)?;
        if by.client_id.is_some_and(|id| id != presented.client()) {
            return Err(Flaw::Subject.into());
        }
        let client = self.kept_client(presented.client())?.ok_or(Flaw::Unknown)?;
        let proven = presented.check(&client, by.audience, self.clock.now())?;
        Ok((client, proven))
    }

    /// Uses an assertion up, in memory. Checked again against the client as it is now: it may have ended, or lost the
    /// key, while this request waited for the lane.
    async fn admit(
        &self,
        used: &mut Used,
        by: AssertedBy<'_>,
        proven: &Proven,
        seen: &Seen,
    ) -> Result<(Client, Timestamp), TokenFault> {
        let (client, _) = self.prove(by)?;
        let now = self.clock.now();
        used.used.retain(|_, exp| *exp > now.0.div_euclid(1000));
        let jti = hex(sha256(proven.jti.as_bytes()).get(..16).unwrap_or_default());
        if used.used.contains_key(&jti) {
            // Signed by the client and used before: somebody has overheard it, or the client is broken.
            let by = context(actor(&client, String::new(), now), seen, now);
            self.documents.log(&by, Action::OwnSession, false).await?;
            return Err(Flaw::Replay.into());
        }
        if used.used.len() >= USED_MAX {
            return Err(TokenFault::TooMany);
        }
        used.used.insert(jti, proven.exp);
        Ok((client, now))
    }

    /// Makes the use of an assertion durable, with its entry in the log.
    async fn keep_used(&self, by: &Context, id: &str, used: &Used) -> Result<(), TokenFault> {
        let text = to_text(used).map_err(|_| TokenFault::Unavailable)?;
        Ok(self
            .documents
            .put(by, Action::OwnSession, USED, id, Some(&text), false)
            .await?)
    }

    fn kept_client(&self, id: &str) -> Result<Option<Client>, DocumentError> {
        let text = self.documents.get(client::KIND, id)?;
        text.map(|t| read(&t)).transpose()
    }

    async fn put_client(&self, by: &Context, action: Action, client: &Client, absent: bool) -> Result<(), Fault> {
        let text = to_text(client)?;
        Ok(self
            .documents
            .put(by, action, client::KIND, &client.id, Some(&text), absent)
            .await?)
    }
}

const NONE: Fault = Fault::Rule("there is no such client");

fn read(text: &str) -> Result<Client, DocumentError> {
    serde_json::from_str(text).map_err(|_| DocumentError::Unavailable)
}

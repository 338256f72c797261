//! Bearer tokens: compact JWS (RFC 7515) with EdDSA (RFC 8037), claims in the manner of RFC 9068.
//!
//! The server verifies only what it has signed itself. That makes the dangerous parts of JWT vanish (APP-9): the header
//! is never parsed, it must be byte for byte the one this server writes for one of its keys. So there is no `alg` to
//! confuse, no `none`, no `jku`, `x5u` or `jwk` to follow, no `kid` that names a file.
//!
//! Tokens are opaque to clients and never logged: actors and events carry the `jti` (AUD-4).

use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hashbrown::HashMap;
use keepwell_model::actor::{Actor, Assurance, Interactions, Role, Scope, ScopeContext};
use keepwell_model::reference::is_id;
use keepwell_model::time::{Entropy, EntropyUnavailable, Timestamp};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::account::is_display;
use crate::secret::{random_id, sha256};

/// Longest token accepted, in bytes.
pub const MAX_TOKEN: usize = 8192;
/// How far in the future `iat` may lie, for a clock that was set back. `exp` has no leeway: issuer and verifier share
/// one clock.
pub const LEEWAY_S: i64 = 60;
/// Longest life of a person's token: one day.
pub const PERSON_TTL_MAX_S: i64 = 24 * 60 * 60;
/// Longest life of a machine's token: 31 days.
pub const SERVICE_TTL_MAX_S: i64 = 31 * 24 * 60 * 60;
/// Verified tokens kept; beyond it the cache starts anew.
const CACHE_MAX: usize = 16_384;
/// Most scopes of one token.
pub(crate) const SCOPES_MAX: usize = 160;

/// The key that signs tokens. Implemented over the vault's named key: the private half never leaves it.
pub trait TokenKey: Send + Sync {
    /// An Ed25519 signature (RFC 8032) over `message`.
    ///
    /// # Errors
    /// The server is sealed.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], KeyUnavailable>;

    /// The public half; another one after a rotation.
    fn public(&self) -> [u8; 32];

    /// The public halves of earlier keys whose tokens are still accepted until they expire.
    fn retired(&self) -> Vec<[u8; 32]>;
}

/// The token key cannot sign now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token key is not available")]
pub struct KeyUnavailable;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Who issued it: this installation.
    pub iss: String,
    /// For whom: this installation.
    pub aud: String,
    /// The user or client.
    pub sub: String,
    /// Name shown in the access log.
    pub name: String,
    /// Role by name.
    pub role: String,
    /// The patient whose record it opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient: Option<String>,
    /// The registered client it was issued to (RFC 9068).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Scopes, separated by single spaces; empty for a person whose role is not narrowed.
    pub scope: String,
    /// Issued at, seconds since 1970.
    pub iat: i64,
    /// Expires at, seconds since 1970.
    pub exp: i64,
    /// Id of the token: 128 random bits.
    pub jti: String,
}

/// What a token is wanted for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The user or client.
    pub user: String,
    /// Name shown in the access log.
    pub display: String,
    /// The role.
    pub role: Role,
    /// The patient, for role patient and for `patient/` scopes.
    pub patient: Option<String>,
    /// The registered client it is for, if any.
    pub client: Option<String>,
    /// Scopes.
    pub scopes: Vec<Scope>,
    /// Lifetime in seconds.
    pub ttl_s: i64,
}

/// A token just issued. Not `Debug`: the token is a secret.
pub struct Issued {
    /// The token: shown once, not stored.
    pub token: String,
    /// Its id, for revocation.
    pub jti: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// Why a token is not issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The wish contradicts itself or a rule; in words.
    #[error("{0}")]
    Rule(&'static str),
    /// No key.
    #[error(transparent)]
    Key(#[from] KeyUnavailable),
    /// No randomness.
    #[error(transparent)]
    Entropy(#[from] EntropyUnavailable),
}

/// Why a token is not accepted. For metrics and tests; clients get one and the same 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Longer than [`MAX_TOKEN`].
    #[error("the token is too long")]
    TooLong,
    /// Not three canonical base64url parts.
    #[error("the token is malformed")]
    Malformed,
    /// The header is not one this server writes.
    #[error("the token was not issued here")]
    Header,
    /// The signature does not fit.
    #[error("the signature of the token is wrong")]
    Signature,
    /// The claims are not such as this server writes.
    #[error("the claims of the token are not valid")]
    Claims,
    /// It has ended.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not yet valid")]
    NotYet,
    /// It was revoked, or its holder's access has ended.
    #[error("the token was revoked")]
    Revoked,
}

struct Key {
    /// Its RFC 7638 thumbprint.
    kid: String,
    /// The first part of every token this key signs.
    header: String,
    public: [u8; 32],
}

impl Key {
    fn new(public: [u8; 32]) -> Self {
        // RFC 7638 thumbprint of the public key as a JWK (RFC 8037, appendix A.3).
        let jwk = format!(
            r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#,
            URL_SAFE_NO_PAD.encode(public)
        );
        let kid = URL_SAFE_NO_PAD.encode(sha256(jwk.as_bytes()));
        let header = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{kid}"}}"#);
        Self {
            kid,
            header: URL_SAFE_NO_PAD.encode(header),
            public,
        }
    }
}

struct Verified {
    actor: Arc<Actor>,
    exp: i64,
    iat: i64,
}

#[derive(Default)]
struct State {
    /// Verified tokens by their SHA-256. A token enters only after its signature was checked.
    cache: HashMap<[u8; 32], Verified>,
    /// Revoked ids, until their tokens would have expired anyway.
    revoked: HashMap<String, i64>,
    /// Users whose access ended, with the instant (ms): tokens issued up to then are void.
    ended: HashMap<String, i64>,
}

impl State {
    fn is_void(&self, jti: &str, sub: &str, iat: i64) -> bool {
        self.revoked.contains_key(jti) || self.ended.get(sub).is_some_and(|at| iat.saturating_mul(1000) <= *at)
    }
}

/// Issues and verifies tokens.
pub struct Tokens {
    issuer: String,
    signer: Arc<dyn TokenKey>,
    keys: RwLock<Vec<Key>>,
    state: RwLock<State>,
}

impl Tokens {
    /// Tokens of the installation `issuer`, signed by `signer`; those of its retired keys are accepted until they expire.
    #[must_use]
    pub fn new(issuer: &str, signer: Arc<dyn TokenKey>) -> Self {
        let tokens = Self {
            issuer: issuer.to_owned(),
            signer,
            keys: RwLock::default(),
            state: RwLock::default(),
        };
        tokens.renew();
        tokens
    }

    /// Asks the signer which keys count, and forgets what was verified with others. After a rotation.
    pub fn renew(&self) {
        let publics = std::iter::once(self.signer.public()).chain(self.signer.retired());
        let mut keys = self.keys.write();
        *keys = publics.map(Key::new).collect();
        self.state.write().cache.clear();
    }

    /// Puts the key's header for this kind of JWT, and a signature, around a body.
    fn signed(&self, body: &str, header: impl Fn(&Key) -> String) -> Result<String, Refused> {
        for _ in 0..4 {
            let public = self.signer.public();
            let header = {
                let keys = self.keys.read();
                keys.iter().find(|k| k.public == public).map(&header)
            };
            let Some(header) = header else {
                self.renew();
                continue;
            };
            let mut token = format!("{header}.{body}");
            let signature = self.signer.sign(token.as_bytes())?;
            // Where the key was rotated in between the signature may be of another than the header's.
            if self.signer.public() == public {
                token.push('.');
                URL_SAFE_NO_PAD.encode_string(signature, &mut token);
                return Ok(token);
            }
        }
        Err(Refused::Key(KeyUnavailable))
    }

    /// Issues a token. Whether the one who asks may is decided before, by policy.
    ///
    /// # Errors
    /// The wish breaks a rule, the key or randomness is not available.
    pub fn issue(&self, wanted: &Wanted, now: Timestamp, entropy: &dyn Entropy) -> Result<Issued, Refused> {
        if let Some(fault) = fault(wanted) {
            return Err(Refused::Rule(fault));
        }
        let iat = now.0.div_euclid(1000);
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.issuer.clone(),
            sub: wanted.user.clone(),
            name: wanted.display.clone(),
            role: wanted.role.name().to_owned(),
            patient: wanted.patient.clone(),
            client_id: wanted.client.clone(),
            scope: wanted.scopes.iter().map(scope_text).collect::<Vec<_>>().join(" "),
            iat,
            exp: iat.saturating_add(wanted.ttl_s),
            jti: random_id::<16>(entropy)?,
        };
        let body = serde_json::to_vec(&claims).map_err(|_| Refused::Rule("the claims cannot be written"))?;
        let token = self.signed(&URL_SAFE_NO_PAD.encode(body), |k| k.header.clone())?;
        if token.len() > MAX_TOKEN {
            return Err(Refused::Rule("too many scopes for one token"));
        }
        Ok(Issued {
            token,
            jti: claims.jti,
            expires: Timestamp(claims.exp.saturating_mul(1000)),
        })
    }

    /// Signs the claims of an assertion by which this installation shows another server who it is (RFC 7523). Its type
    /// keeps it apart: no token of ours begins like it.
    pub(crate) fn sign_assertion(&self, claims: &[u8]) -> Result<String, Refused> {
        self.signed(&URL_SAFE_NO_PAD.encode(claims), |k| {
            let kid = &k.kid;
            URL_SAFE_NO_PAD.encode(format!(
                r#"{{"alg":"EdDSA","typ":"client-authentication+jwt","kid":"{kid}"}}"#
            ))
        })
    }

    /// The actor a token stands for. A token seen before costs one hash and one look-up.
    ///
    /// # Errors
    /// It is not one of ours, has expired or was revoked.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Actor>, Invalid> {
        if token.len() > MAX_TOKEN {
            return Err(Invalid::TooLong);
        }
        let seconds = now.0.div_euclid(1000);
        let key = sha256(token.as_bytes());
        if let Some(known) = self.state.read().cache.get(&key) {
            in_time(known.iat, known.exp, seconds)?;
            return Ok(Arc::clone(&known.actor));
        }
        let claims = self.open(token)?;
        in_time(claims.iat, claims.exp, seconds)?;
        let actor = Arc::new(self.actor(&claims).ok_or(Invalid::Claims)?);
        let mut state = self.state.write();
        // Asked under the same lock under which revocation empties the cache: no verified token slips in behind it.
        if state.is_void(&claims.jti, &claims.sub, claims.iat) {
            return Err(Invalid::Revoked);
        }
        if state.cache.len() >= CACHE_MAX {
            state.cache.clear();
        }
        state.cache.insert(
            key,
            Verified {
                actor: Arc::clone(&actor),
                exp: claims.exp,
                iat: claims.iat,
            },
        );
        Ok(actor)
    }

    /// What a token says, checked as [`Tokens::verify`] does; not cached.
    ///
    /// # Errors
    /// It is not one of ours, has expired or was revoked.
    pub fn claims(&self, token: &str, now: Timestamp) -> Result<Claims, Invalid> {
        if token.len() > MAX_TOKEN {
            return Err(Invalid::TooLong);
        }
        let claims = self.open(token)?;
        in_time(claims.iat, claims.exp, now.0.div_euclid(1000))?;
        self.actor(&claims).ok_or(Invalid::Claims)?;
        if self.state.read().is_void(&claims.jti, &claims.sub, claims.iat) {
            return Err(Invalid::Revoked);
        }
        Ok(claims)
    }

    /// Up to which instant the tokens of `user` are void.
    pub(crate) fn void_until(&self, user: &str) -> Option<Timestamp> {
        self.state.read().ended.get(user).copied().map(Timestamp)
    }

    /// The public keys that verify tokens, today's first: id and Ed25519 key.
    #[must_use]
    pub fn public_keys(&self) -> Vec<(String, [u8; 32])> {
        self.keys.read().iter().map(|k| (k.kid.clone(), k.public)).collect()
    }

    /// Voids the token with that id, from this moment on; `until` is when it would have expired.
    pub fn revoke(&self, jti: &str, until: Timestamp, now: Timestamp) {
        let mut state = self.state.write();
        state.revoked.retain(|_, exp| *exp > now.0);
        state.revoked.insert(jti.to_owned(), until.0);
        state.cache.retain(|_, known| known.actor.session != jti);
    }

    /// Voids all tokens issued to `user` up to `at`.
    pub fn end_user(&self, user: &str, at: Timestamp) {
        let mut state = self.state.write();
        let last = state.ended.entry(user.to_owned()).or_insert(at.0);
        *last = at.0.max(*last);
        state.cache.retain(|_, known| known.actor.id != user);
    }

    /// Forgets verified tokens, for `keys seal`.
    pub fn forget(&self) {
        self.state.write().cache.clear();
    }

    /// Checks form and signature.
    fn open(&self, token: &str) -> Result<Claims, Invalid> {
        let mut parts = token.split('.');
        let (Some(header), Some(body), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Invalid::Malformed);
        };
        let public = {
            let keys = self.keys.read();
            keys.iter().find(|k| k.header == header).ok_or(Invalid::Header)?.public
        };
        // The engine refuses padding, line breaks and trailing bits: one token has one spelling.
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Invalid::Malformed)?;
        let body_bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| Invalid::Malformed)?;
        let signed = token.get(..header.len() + 1 + body.len()).ok_or(Invalid::Malformed)?;
        UnparsedPublicKey::new(&ED25519, public)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| Invalid::Signature)?;
        // serde refuses unknown and repeated members.
        serde_json::from_slice(&body_bytes).map_err(|_| Invalid::Claims)
    }

    /// The actor of signed claims. The rules of issuing are checked again: they may have become stricter since.
    fn actor(&self, claims: &Claims) -> Option<Actor> {
        let scopes = claims
            .scope
            .split(' ')
            .filter(|s| !s.is_empty())
            .map(Scope::parse)
            .collect::<Option<Vec<_>>>()?;
        let wanted = Wanted {
            user: claims.sub.clone(),
            display: claims.name.clone(),
            role: Role::from_name(&claims.role)?,
            patient: claims.patient.clone(),
            client: claims.client_id.clone(),
            scopes,
            ttl_s: claims.exp.checked_sub(claims.iat)?,
        };
        let ours = claims.iss == self.issuer && claims.aud == self.issuer && !claims.jti.is_empty();
        if !ours || fault(&wanted).is_some() {
            return None;
        }
        Some(Actor {
            id: wanted.user,
            display: wanted.display,
            role: wanted.role,
            patient: wanted.patient,
            practitioner: None,
            client: wanted.client,
            scopes: wanted.scopes,
            session: claims.jti.clone(),
            authenticated: Timestamp(claims.iat.saturating_mul(1000)),
            method: "token".to_owned(),
            reauthenticated: Timestamp(claims.iat.saturating_mul(1000)),
            assurance: Assurance::TwoFactors,
        })
    }
}

/// `exp` is the first second in which the token is void.
fn in_time(iat: i64, exp: i64, now: i64) -> Result<(), Invalid> {
    if now >= exp {
        Err(Invalid::Expired)
    } else if iat > now.saturating_add(LEEWAY_S) {
        Err(Invalid::NotYet)
    } else {
        Ok(())
    }
}

/// Which rule a token would break.
fn fault(wanted: &Wanted) -> Option<&'static str> {
    let machine = wanted.role == Role::Service;
    let longest = if machine { SERVICE_TTL_MAX_S } else { PERSON_TTL_MAX_S };
    if !is_id(&wanted.user) {
        return Some("a user id has 1 to 64 letters, digits, `-` and `.`");
    }
    if !is_display(&wanted.display) {
        return Some("a display name has 1 to 200 characters and no control characters");
    }
    if !(1..=longest).contains(&wanted.ttl_s) {
        return Some("a token lives from a second to one day, a machine's to 31 days");
    }
    if wanted.scopes.len() > SCOPES_MAX {
        return Some("too many scopes for one token");
    }
    if machine && wanted.scopes.is_empty() {
        return Some("a machine has nothing but its scopes: name at least one");
    }
    if wanted.client.as_deref().is_some_and(|c| !machine || !is_id(c)) {
        return Some("only a machine's token names a client");
    }
    if wanted.patient.as_deref().is_some_and(|p| !is_id(p)) {
        return Some("this is no id of a Patient");
    }
    let launch = wanted.scopes.iter().any(|s| s.context == ScopeContext::Patient);
    if wanted.patient.is_none() && (launch || wanted.role == Role::Patient) {
        return Some("role patient and `patient/` scopes need the id of the Patient");
    }
    if wanted.patient.is_some() && !launch && wanted.role != Role::Patient {
        return Some("a patient is named only for role patient or with a `patient/` scope");
    }
    None
}

/// A scope as it was written.
pub(crate) fn scope_text(scope: &Scope) -> String {
    let context = match scope.context {
        ScopeContext::Patient => "patient",
        ScopeContext::User => "user",
        ScopeContext::System => "system",
    };
    let name = scope.resource_type.map_or("*", |t| t.name());
    let letters = [
        (Interactions::CREATE, 'c'),
        (Interactions::READ, 'r'),
        (Interactions::UPDATE, 'u'),
        (Interactions::DELETE, 'd'),
        (Interactions::SEARCH, 's'),
    ];
    let letters: String = letters
        .iter()
        .filter(|(bit, _)| scope.interactions.0 & bit != 0)
        .map(|(_, c)| *c)
        .collect();
    format!("{context}/{name}.{letters}")
}

#[cfg(test)]
#[path = "token_tests.rs"]
pub(crate) mod tests;

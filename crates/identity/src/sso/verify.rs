//! The check of ID tokens (OpenID Connect Core 3.1.3.7) and logout tokens (Back-Channel Logout 1.0, 2.6). Pure: no
//! clock, no storage, no network.
//!
//! The header chooses among the keys that the provider publishes, and says nothing else that is believed: the algorithm
//! must be on the provider's list and suit the key, `jku`, `x5u`, `x5c` and `jwk` are not looked at.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;

use super::provider::{Provider, is_subject};

/// Longest token accepted, in bytes.
const TOKEN_MAX: usize = 16 * 1024;
/// How far the provider's clock may run ahead of ours, in seconds. `exp` has no leeway.
const SKEW_S: i64 = 30;
/// How long ago a token may have been issued: it comes straight from the provider.
const AGE_MAX_S: i64 = 5 * 60;
/// What makes a token a logout token.
const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
/// Shortest RSA modulus in bytes (NIST SP 800-131A).
const RSA_BYTES: usize = 256;

/// Why a sign-in or a logout by a provider is refused. For the server's own log and tests: people get one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// There is no such provider (any more).
    #[error("no such identity provider")]
    Provider,
    /// No sign-in was begun in this browser, or its time is over, or it was ended once already.
    #[error("no sign-in was begun in this browser")]
    Browser,
    /// `state` is another.
    #[error("the answer belongs to another sign-in")]
    State,
    /// The answer is another provider's (RFC 9207).
    #[error("the answer is from another issuer")]
    MixedUp,
    /// The provider says no.
    #[error("the identity provider declined")]
    Declined,
    /// A parameter is missing, stands twice or is no code.
    #[error("the answer is malformed")]
    Answer,
    /// The provider does not give a token for the code.
    #[error("the identity provider gave no token for the code")]
    Exchange,
    /// Not three base64url parts of JSON, or a member is missing, of another kind or stands twice.
    #[error("the token is malformed")]
    Malformed,
    /// Of another type, for example a logout token as an ID token.
    #[error("the token is of another type")]
    Type,
    /// `alg` is not on the list.
    #[error("the algorithm of the token is not allowed")]
    Algorithm,
    /// The provider publishes no such key, or several.
    #[error("the provider publishes no such key")]
    Key,
    /// The signature does not fit.
    #[error("the signature of the token is wrong")]
    Signature,
    /// `iss` is another.
    #[error("the token is of another issuer")]
    Issuer,
    /// `aud` or `azp` is another.
    #[error("the token is meant for somebody else")]
    Audience,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// `iat` or `nbf` is to come, or long ago.
    #[error("the token was not issued just now")]
    NotNow,
    /// `nonce` is another.
    #[error("the token belongs to another sign-in")]
    Nonce,
    /// Used before.
    #[error("the token was used before")]
    Replay,
    /// No account is linked with that identity.
    #[error("no account is linked with this identity")]
    Unlinked,
    /// The account is not active.
    #[error("the account may not sign in")]
    Account,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

/// A published key. Members that say nothing about the key are not looked at.
#[derive(Clone, Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    /// The key for one algorithm; `None` where it is not one for it.
    fn decoding(&self, alg: Algorithm) -> Option<DecodingKey> {
        if self.usage.as_deref().is_some_and(|u| u != "sig") {
            return None;
        }
        let family = (self.kty.as_str(), self.crv.as_deref());
        let (x, y) = (self.x.as_deref(), self.y.as_deref());
        let key = match (alg, family) {
            (Algorithm::RS256 | Algorithm::RS384 | Algorithm::PS256 | Algorithm::PS384, ("RSA", _)) => {
                let n = self.n.as_deref()?;
                let bytes = URL_SAFE_NO_PAD.decode(n).ok()?;
                let significant = bytes.iter().skip_while(|b| **b == 0).count();
                (significant >= RSA_BYTES).then_some(())?;
                DecodingKey::from_rsa_components(n, self.e.as_deref()?)
            }
            (Algorithm::ES256, ("EC", Some("P-256"))) | (Algorithm::ES384, ("EC", Some("P-384"))) => {
                DecodingKey::from_ec_components(x?, y?)
            }
            (Algorithm::EdDSA, ("OKP", Some("Ed25519"))) => DecodingKey::from_ed_components(x?),
            _ => return None,
        };
        key.ok()
    }
}

/// The keys that a provider publishes. Such as we cannot read are left out.
pub(crate) struct Keys(Vec<Jwk>);

impl Keys {
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(text).ok()?;
        let keys = set.keys.into_iter().filter_map(|k| serde_json::from_value(k).ok());
        Some(Self(keys.collect()))
    }
}

/// The algorithm of that name, if it is one we know.
fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}

/// A token that was read, and nothing of it believed yet.
pub(crate) struct Presented<'a> {
    header: Header,
    claims: Vec<u8>,
    signed: &'a str,
    signature: &'a str,
}

impl<'a> Presented<'a> {
    pub(crate) fn read(token: &'a str) -> Result<Self, Flaw> {
        if token.len() > TOKEN_MAX {
            return Err(Flaw::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Flaw::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Flaw::Malformed)?;
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Flaw::Malformed);
        let header: Header = serde_json::from_slice(&bytes(header)?).map_err(|_| Flaw::Malformed)?;
        if header.crit.is_some() {
            return Err(Flaw::Type);
        }
        Ok(Self {
            header,
            claims: bytes(claims)?,
            signed,
            signature,
        })
    }

    /// Who says it has issued the token: to look up whose keys are to check that.
    pub(crate) fn issuer(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Issuer {
            iss: String,
        }
        let issuer: Issuer = serde_json::from_slice(&self.claims).ok()?;
        Some(issuer.iss)
    }

    /// Checks the signature by the one key that the header names. [`Flaw::Key`] asks for the keys of today.
    pub(crate) fn check_signature(&self, provider: &Provider, keys: &Keys) -> Result<(), Flaw> {
        let name = &self.header.alg;
        if !provider.algorithms.contains(name) {
            return Err(Flaw::Algorithm);
        }
        let alg = algorithm(name).ok_or(Flaw::Algorithm)?;
        let kid = self.header.kid.as_ref();
        let named = keys.0.iter().filter(|k| kid.is_none() || k.kid.as_ref() == kid);
        let mut fit = named
            .filter(|k| k.alg.as_ref().is_none_or(|a| a == name))
            .filter_map(|k| k.decoding(alg));
        let (Some(key), None) = (fit.next(), fit.next()) else {
            return Err(Flaw::Key);
        };
        match jsonwebtoken::crypto::verify(self.signature, self.signed.as_bytes(), &key, alg) {
            Ok(true) => Ok(()),
            _ => Err(Flaw::Signature),
        }
    }

    /// What an ID token says, after every check. To be asked after [`Presented::check_signature`].
    pub(crate) fn id_token(&self, provider: &Provider, nonce: &str, now_s: i64) -> Result<IdToken, Flaw> {
        let typ = self.header.typ.as_deref();
        if typ.is_some_and(|t| !t.eq_ignore_ascii_case("JWT")) {
            return Err(Flaw::Type);
        }
        let claims: IdToken = serde_json::from_slice(&self.claims).map_err(|_| Flaw::Malformed)?;
        if claims.iss != provider.issuer {
            return Err(Flaw::Issuer);
        }
        if !claims.aud.is_for(&provider.client_id, claims.azp.as_deref()) {
            return Err(Flaw::Audience);
        }
        if claims.exp <= now_s {
            return Err(Flaw::Expired);
        }
        is_recent(claims.iat, now_s)?;
        if claims.nbf.is_some_and(|t| t > now_s.saturating_add(SKEW_S)) {
            return Err(Flaw::NotNow);
        }
        let said = claims.nonce.as_deref().unwrap_or_default();
        if !bool::from(said.as_bytes().ct_eq(nonce.as_bytes())) {
            return Err(Flaw::Nonce);
        }
        if !is_subject(&claims.sub) || claims.sid.as_ref().is_some_and(|s| s.len() > 255) {
            return Err(Flaw::Malformed);
        }
        Ok(claims)
    }

    /// What a logout token says, after every check but that of its one use. To be asked after
    /// [`Presented::check_signature`].
    pub(crate) fn logout_token(&self, provider: &Provider, now_s: i64) -> Result<LogoutToken, Flaw> {
        // Typed explicitly (2.4, RFC 8725 3.11): no ID token ends a session.
        if !self
            .header
            .typ
            .as_deref()
            .is_some_and(|t| t.eq_ignore_ascii_case("logout+jwt"))
        {
            return Err(Flaw::Type);
        }
        let members: Map<String, Value> = serde_json::from_slice(&self.claims).map_err(|_| Flaw::Malformed)?;
        let event = members.get("events").and_then(|e| e.get(LOGOUT_EVENT));
        if members.contains_key("nonce") || !event.is_some_and(Value::is_object) {
            return Err(Flaw::Type);
        }
        // From the bytes again: members that stand twice are refused only here.
        let claims: LogoutToken = serde_json::from_slice(&self.claims).map_err(|_| Flaw::Malformed)?;
        if claims.iss != provider.issuer {
            return Err(Flaw::Issuer);
        }
        if !claims.aud.is_for(&provider.client_id, None) {
            return Err(Flaw::Audience);
        }
        if claims.exp <= now_s {
            return Err(Flaw::Expired);
        }
        is_recent(claims.iat, now_s)?;
        if !(1..=255).contains(&claims.jti.len()) || (claims.sub.is_none() && claims.sid.is_none()) {
            return Err(Flaw::Malformed);
        }
        Ok(claims)
    }
}

fn is_recent(iat: i64, now_s: i64) -> Result<(), Flaw> {
    let earliest = now_s.saturating_sub(AGE_MAX_S);
    if (earliest..=now_s.saturating_add(SKEW_S)).contains(&iat) {
        Ok(())
    } else {
        Err(Flaw::NotNow)
    }
}

/// Until when a used logout token must be remembered, in seconds: later it is too old anyway.
pub(crate) fn remembered_until(iat: i64) -> i64 {
    iat.saturating_add(AGE_MAX_S)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    List(Vec<String>),
}

impl Audience {
    /// For `client`, and where for several, authorized for `client`. An `azp` names the client in any case.
    fn is_for(&self, client: &str, azp: Option<&str>) -> bool {
        let (named, several) = match self {
            Audience::One(a) => (a == client, false),
            Audience::List(all) => (all.iter().any(|a| a == client), all.len() > 1),
        };
        named && azp.map_or(!several, |a| a == client)
    }
}

/// What an ID token says. Other claims are not looked at, `email` among them.
#[derive(Deserialize)]
pub(crate) struct IdToken {
    iss: String,
    pub(crate) sub: String,
    aud: Audience,
    exp: i64,
    iat: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(default)]
    azp: Option<String>,
    #[serde(default)]
    nonce: Option<String>,
    #[serde(default)]
    pub(crate) acr: Option<String>,
    #[serde(default)]
    pub(crate) amr: Vec<String>,
    #[serde(default)]
    pub(crate) sid: Option<String>,
}

/// What a logout token says.
#[derive(Deserialize)]
pub(crate) struct LogoutToken {
    iss: String,
    aud: Audience,
    exp: i64,
    pub(crate) iat: i64,
    pub(crate) jti: String,
    #[serde(default)]
    pub(crate) sub: Option<String>,
    #[serde(default)]
    pub(crate) sid: Option<String>,
}

//! The check of a client assertion (RFC 7523 section 3; SMART App Launch 2.2, Backend Services). Pure: no clock, no
//! storage, no network. A key is looked up among those registered for the client and nowhere else: a header that
//! names one by address or brings one along is refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keepwell_model::reference::is_id;
use keepwell_model::time::Timestamp;
use serde::Deserialize;

use super::client::Client;

/// Longest assertion accepted, in bytes.
pub const MAX_ASSERTION: usize = 8192;
/// Furthest that `exp` may lie ahead.
pub const ASSERTION_TTL_MAX_S: i64 = 5 * 60;
/// How far a client's clock may run ahead of the server's. `exp` itself has no leeway.
pub const SKEW_S: i64 = 15;
/// What may be signed with.
pub(crate) const ALGORITHMS: [&str; 3] = ["RS384", "ES384", "EdDSA"];

/// Why an assertion is not accepted. For the server's own log and tests: clients get one and the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// There is none, or several ways of authentication at once.
    #[error("no client assertion")]
    Missing,
    /// Longer than [`MAX_ASSERTION`].
    #[error("the assertion is too long")]
    TooLong,
    /// Not three canonical base64url parts of JSON, or a member stands twice.
    #[error("the assertion is malformed")]
    Malformed,
    /// The header has another member than `alg`, `kid` and `typ`: `jku`, `x5u`, `jwk` and `crit` among them.
    #[error("the header of the assertion is not of `alg`, `kid` and `typ` alone")]
    Header,
    /// Another `alg` than those allowed, or than the key's.
    #[error("the algorithm of the assertion is not allowed")]
    Algorithm,
    /// Another `typ`.
    #[error("the assertion is of another type")]
    Type,
    /// No such client.
    #[error("no such client")]
    Unknown,
    /// The client has ended or expired.
    #[error("the client has ended")]
    Ended,
    /// `iss` and `sub` differ, or the form names another client.
    #[error("the assertion is not about the client that sends it")]
    Subject,
    /// The client has no key of that name.
    #[error("the client has no such key")]
    Key,
    /// The key has expired.
    #[error("the key has expired")]
    KeyExpired,
    /// The signature does not fit.
    #[error("the signature of the assertion is wrong")]
    Signature,
    /// Meant for another endpoint.
    #[error("the assertion is meant for another audience")]
    Audience,
    /// Its time is over.
    #[error("the assertion has expired")]
    Expired,
    /// It would live too long.
    #[error("the assertion lives longer than five minutes")]
    TooLongLived,
    /// `nbf` or `iat` is in the future.
    #[error("the assertion is not yet valid")]
    NotYet,
    /// Used before.
    #[error("the assertion was used before")]
    Replay,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    #[serde(default)]
    typ: Option<String>,
}

/// Other claims are not looked at; one of these that stands twice is refused by serde.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: i64,
    jti: String,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(default)]
    iat: Option<i64>,
}

/// A single audience, alone or in a list of one: an assertion for several could be replayed by one of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    List([String; 1]),
}

/// An assertion that was read, and nothing of it believed yet.
pub(crate) struct Presented<'a> {
    header: Header,
    claims: Claims,
    /// What the signature is over.
    signed: &'a str,
    signature: &'a str,
}

/// What an accepted assertion says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proven {
    /// Its id: to be used once until `exp`.
    pub(crate) jti: String,
    /// Seconds since 1970.
    pub(crate) exp: i64,
    /// When the key it was signed with ends, milliseconds since 1970.
    pub(crate) key_expires: i64,
}

impl<'a> Presented<'a> {
    /// Takes an assertion apart.
    pub(crate) fn read(assertion: &'a str) -> Result<Self, Flaw> {
        if assertion.len() > MAX_ASSERTION {
            return Err(Flaw::TooLong);
        }
        let (signed, signature) = assertion.rsplit_once('.').ok_or(Flaw::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Flaw::Malformed)?;
        let bytes = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Flaw::Malformed);
        let (header, claims) = (bytes(header)?, bytes(claims)?);
        bytes(signature)?;
        // Told apart for the log: an unknown member is an attack or an interface to talk about, the rest is noise.
        let header: Header = serde_json::from_slice(&header).map_err(|e| match e.classify() {
            serde_json::error::Category::Data => Flaw::Header,
            _ => Flaw::Malformed,
        })?;
        if !ALGORITHMS.contains(&header.alg.as_str()) {
            return Err(Flaw::Algorithm);
        }
        let typed = |t: &String| t.eq_ignore_ascii_case("JWT") || t.eq_ignore_ascii_case("client-authentication+jwt");
        if !header.typ.as_ref().is_none_or(typed) {
            return Err(Flaw::Type);
        }
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| Flaw::Malformed)?;
        if claims.iss != claims.sub || !is_id(&claims.sub) {
            return Err(Flaw::Subject);
        }
        if !(1..=256).contains(&claims.jti.len()) {
            return Err(Flaw::Malformed);
        }
        Ok(Self {
            header,
            claims,
            signed,
            signature,
        })
    }

    /// The client it says it is from.
    pub(crate) fn client(&self) -> &str {
        &self.claims.sub
    }

    /// Checks it against the client as registered. Whether its `jti` was used before is asked afterwards.
    pub(crate) fn check(&self, client: &Client, audience: &str, now: Timestamp) -> Result<Proven, Flaw> {
        let (header, claims) = (&self.header, &self.claims);
        if client.id != claims.sub {
            return Err(Flaw::Subject);
        }
        if !client.is_open(now) {
            return Err(Flaw::Ended);
        }
        let key = client.keys.iter().find(|k| k.kid == header.kid).ok_or(Flaw::Key)?;
        if now.0 >= key.expires {
            return Err(Flaw::KeyExpired);
        }
        if header.alg != key.key.algorithm() {
            return Err(Flaw::Algorithm);
        }
        if !key.key.verifies(self.signed.as_bytes(), self.signature) {
            return Err(Flaw::Signature);
        }
        let (Audience::One(aud) | Audience::List([aud])) = &claims.aud;
        if aud != audience {
            return Err(Flaw::Audience);
        }
        let seconds = now.0.div_euclid(1000);
        let latest = seconds.saturating_add(SKEW_S);
        if claims.exp <= seconds {
            return Err(Flaw::Expired);
        }
        if claims.exp > latest.saturating_add(ASSERTION_TTL_MAX_S) {
            return Err(Flaw::TooLongLived);
        }
        if claims.nbf.is_some_and(|t| t > latest) || claims.iat.is_some_and(|t| t > latest) {
            return Err(Flaw::NotYet);
        }
        Ok(Proven {
            jti: claims.jti.clone(),
            exp: claims.exp,
            key_expires: key.expires,
        })
    }
}

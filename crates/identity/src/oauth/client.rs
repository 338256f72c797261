//! What is kept of a client: own documents of kind `client` (docs/formats/documents.md). Public keys only.

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use keepwell_model::actor::{Scope, ScopeContext};
use keepwell_model::reference::is_id;
use keepwell_model::time::Timestamp;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::account::is_display;

/// The kind of own document.
pub(crate) const KIND: &str = "client";
/// Most keys of one client: two at a time are enough for a rotation, the rest is for several machines.
pub const KEYS_MAX: usize = 8;
/// Shortest and longest RSA modulus, in bits (NIST SP 800-131A: at least 2048).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A registered client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its `client_id`, given by the server and never used again.
    pub id: String,
    /// Name shown in the access log.
    pub display: String,
    /// What its tokens may reach at most: SMART v2 scopes, separated by spaces.
    pub scope: String,
    /// The keys its assertions may be signed with.
    pub keys: Vec<ClientKey>,
    /// When it was registered, milliseconds since 1970.
    pub created: i64,
    /// From when on it gets nothing, milliseconds since 1970.
    pub expires: i64,
    /// Whether it may ask.
    pub state: ClientState,
}

/// Whether a client may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientState {
    /// It may, until it expires.
    Active,
    /// It has ended; its id stays taken, so that the log keeps its meaning.
    Ended,
}

/// One key of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientKey {
    /// Its name in the header of assertions.
    pub kid: String,
    /// The public key.
    pub key: PublicKey,
    /// When it was registered, milliseconds since 1970.
    pub added: i64,
    /// From when on it is not accepted, milliseconds since 1970.
    pub expires: i64,
}

/// A public key with the one algorithm it is used with. Numbers are base64url, as in a JWK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "alg", deny_unknown_fields)]
pub enum PublicKey {
    /// RSASSA-PKCS1-v1_5 with SHA-384, at least 2048 bits.
    #[serde(rename = "RS384")]
    Rs384 {
        /// Modulus.
        n: String,
        /// Exponent.
        e: String,
    },
    /// ECDSA with P-384 and SHA-384.
    #[serde(rename = "ES384")]
    Es384 {
        /// First coordinate.
        x: String,
        /// Second coordinate.
        y: String,
    },
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa {
        /// The point.
        x: String,
    },
}

impl PublicKey {
    /// The name of its algorithm in the header of an assertion.
    #[must_use]
    pub fn algorithm(&self) -> &'static str {
        match self {
            PublicKey::Rs384 { .. } => "RS384",
            PublicKey::Es384 { .. } => "ES384",
            PublicKey::EdDsa { .. } => "EdDSA",
        }
    }

    /// Whether `signature` (base64url) is one of this key over `message`, by this key's own algorithm and no other.
    pub(crate) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        let (key, algorithm) = match self {
            PublicKey::Rs384 { n, e } => (DecodingKey::from_rsa_components(n, e), Algorithm::RS384),
            PublicKey::Es384 { x, y } => (DecodingKey::from_ec_components(x, y), Algorithm::ES384),
            PublicKey::EdDsa { x } => (DecodingKey::from_ed_components(x), Algorithm::EdDSA),
        };
        key.and_then(|key| jsonwebtoken::crypto::verify(signature, message, &key, algorithm))
            .unwrap_or(false)
    }

    /// The key of a JWK that is public, strong enough and well formed.
    fn of(jwk: &Jwk) -> Result<Self, &'static str> {
        if jwk.is_private() {
            return Err(
                "this file holds a private or shared key: hand in the public half only, and make a new pair, as this one has been shown",
            );
        }
        if jwk.usage.as_deref().is_some_and(|u| u != "sig")
            || jwk.key_ops.as_ref().is_some_and(|o| !o.iter().any(|op| op == "verify"))
        {
            return Err("a client's key is one for signatures (`use` sig, or `key_ops` verify)");
        }
        let key = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", None) => {
                let (n, e) = (number(jwk.n.as_deref())?, number(jwk.e.as_deref())?);
                let first = n.first().copied().unwrap_or(0);
                let bits = (n.len() * 8).saturating_sub(first.leading_zeros() as usize);
                if first == 0 || !RSA_BITS.contains(&bits) {
                    return Err("an RSA key has 2048 to 8192 bits");
                }
                if e != [1, 0, 1] || n.last().is_none_or(|b| b % 2 == 0) {
                    return Err("an RSA key has the exponent 65537 (`AQAB`) and an odd modulus");
                }
                PublicKey::Rs384 {
                    n: URL_SAFE_NO_PAD.encode(n),
                    e: URL_SAFE_NO_PAD.encode(e),
                }
            }
            ("EC", Some("P-384")) => {
                let (x, y) = (number(jwk.x.as_deref())?, number(jwk.y.as_deref())?);
                let mut point = vec![4];
                point.extend_from_slice(&x);
                point.extend_from_slice(&y);
                if x.len() != 48 || ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).is_err() {
                    return Err("this is no point of P-384");
                }
                PublicKey::Es384 {
                    x: URL_SAFE_NO_PAD.encode(x),
                    y: URL_SAFE_NO_PAD.encode(y),
                }
            }
            ("OKP", Some("Ed25519")) => {
                let x = number(jwk.x.as_deref())?;
                if x.len() != 32 || ParsedPublicKey::new(&ED25519, &x).is_err() {
                    return Err("this is no Ed25519 key");
                }
                PublicKey::EdDsa {
                    x: URL_SAFE_NO_PAD.encode(x),
                }
            }
            _ => return Err("a key is RSA (RS384), EC with P-384 (ES384) or OKP with Ed25519 (EdDSA)"),
        };
        if jwk.alg.as_deref().is_some_and(|alg| alg != key.algorithm()) {
            return Err("keys are used with RS384, ES384 or EdDSA: the file names another `alg`");
        }
        Ok(key)
    }
}

/// Canonical base64url: no padding, no trailing bits.
fn number(text: Option<&str>) -> Result<Vec<u8>, &'static str> {
    let text = text.ok_or("the key misses a member")?;
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| "a member of the key is not base64url")
}

/// A JWK (RFC 7517) as it is handed in. Members that say nothing about the key are not looked at.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<IgnoredAny>,
    p: Option<IgnoredAny>,
    q: Option<IgnoredAny>,
    k: Option<IgnoredAny>,
}

impl Jwk {
    fn is_private(&self) -> bool {
        [&self.d, &self.p, &self.q, &self.k].iter().any(|m| m.is_some())
    }
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

/// Reads a JWK Set, or a single JWK, as keys that end at `expires`.
///
/// # Errors
/// What is wrong with it, in words that do not repeat it.
pub(crate) fn keys(text: &str, added: Timestamp, expires: Timestamp) -> Result<Vec<ClientKey>, &'static str> {
    let set = match serde_json::from_str::<JwkSet>(text) {
        Ok(set) => set.keys,
        Err(_) => vec![serde_json::from_str::<Jwk>(text).map_err(|_| "this is neither a JWK Set nor a JWK")?],
    };
    set.iter()
        .map(|jwk| {
            let kid = jwk.kid.clone().ok_or("each key needs a `kid`")?;
            if !(1..=128).contains(&kid.len()) || !kid.bytes().all(|b| b.is_ascii_graphic()) {
                return Err("a `kid` has 1 to 128 printable ASCII characters and no space");
            }
            Ok(ClientKey {
                kid,
                key: PublicKey::of(jwk)?,
                added: added.0,
                expires: expires.0,
            })
        })
        .collect()
}

impl Client {
    /// The scopes it is registered for.
    #[must_use]
    pub fn scopes(&self) -> Vec<Scope> {
        self.scope.split(' ').filter_map(Scope::parse).collect()
    }

    /// Whether it may ask at `now`.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.state == ClientState::Active && now.0 < self.expires
    }

    /// Why it cannot be registered like this, if so.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if !is_id(&self.id) {
            return Some("a client id has 1 to 64 letters, digits, `-` and `.`");
        }
        if !is_display(&self.display) {
            return Some("a client's name has 1 to 200 characters and no control characters");
        }
        let scopes = self.scopes();
        if scopes.is_empty() || scopes.len() != self.scope.split(' ').count() {
            return Some("a client is registered for at least one scope like system/Patient.rs");
        }
        if scopes.iter().any(|s| s.context != ScopeContext::System) {
            return Some("a client that acts by itself has system/ scopes only");
        }
        if !(1..=KEYS_MAX).contains(&self.keys.len()) {
            return Some("a client has one to eight keys");
        }
        let mut rest = self.keys.iter();
        while let Some(key) = rest.next() {
            if rest.clone().any(|other| other.kid == key.kid || other.key == key.key) {
                return Some("each key of a client has a `kid` of its own, and stands there once");
            }
        }
        None
    }
}

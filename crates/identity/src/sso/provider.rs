//! What is kept of a provider and of who is who there: own documents (docs/formats/documents.md). No secret.

use serde::{Deserialize, Serialize};
use webauthn_rs::prelude::Url;

use crate::account::is_display;
use crate::secret::{hex, sha256};

/// The kind of a provider's document.
pub(crate) const KIND: &str = "identity-provider";
/// The kind of a link's document.
pub(crate) const LINK: &str = "identity-link";
/// What ID tokens and logout tokens may be signed with: signatures of a private key that only the provider has. `none`
/// and the shared-key algorithms are not in the list and cannot be added.
pub const ALGORITHMS: [&str; 7] = ["RS256", "PS256", "ES256", "EdDSA", "RS384", "ES384", "PS384"];
/// Most values of each list of a provider.
const LIST_MAX: usize = 16;

/// An identity provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Provider {
    /// Its id here, given by the server and never used again.
    pub id: String,
    /// Name shown on the sign-in page.
    pub display: String,
    /// Its issuer identifier, to the letter.
    pub issuer: String,
    /// Who this installation is there.
    pub client_id: String,
    /// How this installation proves that it is.
    pub authentication: ClientAuthentication,
    /// What its tokens may be signed with: some of [`ALGORITHMS`].
    pub algorithms: Vec<String>,
    /// Values of `acr` that count as two factors.
    #[serde(default)]
    pub acr: Vec<String>,
    /// Values of `amr`, any of which counts as two factors.
    #[serde(default)]
    pub amr: Vec<String>,
    /// Hosts beside the issuer's own that its endpoints may be at: `host` or `host:port`.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// When it was registered, milliseconds since 1970.
    pub created: i64,
    /// Whether people may sign in by it.
    pub state: ProviderState,
}

/// How this installation shows a provider who it is. There is no shared secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuthentication {
    /// Not at all: a public client, whose codes are bound by PKCE.
    None,
    /// By an assertion signed with the installation's token key (RFC 7523), published at `/.well-known/jwks.json`.
    PrivateKeyJwt,
}

/// Whether people may sign in by a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProviderState {
    /// They may.
    Active,
    /// It has ended; the id stays taken, so that the log keeps its meaning.
    Ended,
}

/// Who somebody at a provider is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The provider's issuer identifier.
    pub issuer: String,
    /// Its `sub`: what the provider calls the person, and nobody else ever.
    pub subject: String,
    /// The account.
    pub user: String,
}

impl Link {
    /// The id of the document: one for each identity, so that of several links at once one wins.
    pub(crate) fn id(issuer: &str, subject: &str) -> String {
        // The length keeps `a` + `bc` and `ab` + `c` apart.
        let text = format!("{}:{issuer}{subject}", issuer.len());
        format!("link-{}", hex(&sha256(text.as_bytes())))
    }
}

/// Host and port of an address we would connect to; `None` where we would not: https, or http to this machine.
fn place(url: &str) -> Option<(String, u16)> {
    let url = Url::parse(url).ok()?;
    let plain = !url.username().is_empty() || url.password().is_some() || url.fragment().is_some();
    let host = url.host_str()?.to_owned();
    let loopback = matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]");
    let good = !plain && (url.scheme() == "https" || (url.scheme() == "http" && loopback));
    good.then_some(())?;
    Some((host, url.port_or_known_default()?))
}

/// A value that goes into an address, or is compared with a token's.
fn is_value(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Whether it can be a `sub`: at most 255 ASCII characters (OpenID Connect Core 2).
pub(crate) fn is_subject(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

impl Provider {
    /// Whether a request may go to `url`: to the issuer's own host or one that was named at registration.
    #[must_use]
    pub fn may_reach(&self, url: &str) -> bool {
        let (Some(there), Some(own)) = (place(url), place(&self.issuer)) else {
            return false;
        };
        there == own
            || self.hosts.iter().any(|h| {
                let (host, port) = h.rsplit_once(':').unwrap_or((h, "443"));
                there.0 == host && port.parse() == Ok(there.1)
            })
    }

    /// Whether what a token says of how the person signed in counts as two factors.
    pub(crate) fn has_two_factors(&self, acr: Option<&str>, amr: &[String]) -> bool {
        acr.is_some_and(|a| self.acr.iter().any(|x| x == a)) || amr.iter().any(|a| self.amr.contains(a))
    }

    /// Why it cannot be registered like this, if so.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if !is_display(&self.display) {
            return Some("a provider's name has 1 to 200 characters and no control characters");
        }
        if !is_value(&self.issuer, 512) || place(&self.issuer).is_none() || self.issuer.contains('?') {
            return Some("an issuer is an https address without query (http for this machine only)");
        }
        if !is_value(&self.client_id, 255) {
            return Some("a client id has 1 to 255 printable ASCII characters and no space");
        }
        if self.algorithms.is_empty() || !self.algorithms.iter().all(|a| ALGORITHMS.contains(&a.as_str())) {
            return Some("tokens are signed with RS256, PS256, ES256, EdDSA, RS384, ES384 or PS384");
        }
        let lists = [&self.acr, &self.amr, &self.hosts];
        if lists
            .iter()
            .any(|l| l.len() > LIST_MAX || l.iter().any(|v| !is_value(v, 256)))
        {
            return Some("values of acr and amr and hosts are at most 16 each, without spaces");
        }
        if self
            .hosts
            .iter()
            .any(|h| h.contains(['/', '@', '*', '?', '#']) || *h != h.to_ascii_lowercase())
        {
            return Some("a host is a name in small letters, with :port where it is not 443");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn provider(issuer: &str, hosts: &[&str]) -> Provider {
        Provider {
            id: "idp-1".into(),
            display: "Hospital".into(),
            issuer: issuer.into(),
            client_id: "keepwell".into(),
            authentication: ClientAuthentication::None,
            algorithms: vec!["ES384".into()],
            acr: vec!["mfa".into()],
            amr: vec!["hwk".into()],
            hosts: hosts.iter().map(|h| (*h).to_owned()).collect(),
            created: 0,
            state: ProviderState::Active,
        }
    }

    #[test]
    fn requests_leave_for_the_issuer_and_named_hosts_only() {
        let p = provider("https://login.example/realm", &["keys.example", "api.example:8443"]);
        assert_eq!(p.fault(), None);
        for (url, may) in [
            ("https://login.example/token", true),
            ("https://login.example:443/token?x=1", true),
            ("https://keys.example/jwks", true),
            ("https://api.example:8443/token", true),
            ("https://api.example/token", false),
            ("https://login.example:444/token", false),
            ("http://login.example/token", false),
            ("http://localhost/token", false),
            ("https://login.example.evil/token", false),
            ("https://login.example@evil.example/", false),
            ("https://user@login.example/", false),
            ("https://169.254.169.254/latest/meta-data", false),
            ("file:///etc/passwd", false),
            ("https://login.example/#x", false),
            ("", false),
        ] {
            assert_eq!(p.may_reach(url), may, "{url}");
        }
        let local = provider("http://localhost:9000", &[]);
        assert_eq!(local.fault(), None);
        assert!(local.may_reach("http://localhost:9000/token") && !local.may_reach("http://127.0.0.1:9000/token"));
    }

    #[test]
    fn no_provider_is_registered_that_would_be_trusted_blindly() {
        let good = || provider("https://login.example", &[]);
        for issuer in [
            "http://login.example",
            "https://a/?x",
            "ftp://a/",
            "login",
            "",
            "https://u@a/",
        ] {
            assert!(provider(issuer, &[]).fault().is_some(), "{issuer}");
        }
        for algorithm in ["none", "HS256", "rs256", "RS1", ""] {
            let algorithms = vec![algorithm.to_owned()];
            assert!(Provider { algorithms, ..good() }.fault().is_some(), "{algorithm}");
        }
        assert!(
            Provider {
                algorithms: vec![],
                ..good()
            }
            .fault()
            .is_some()
        );
        for host in ["*.example", "a/b", "A.example", "u@a"] {
            assert!(provider("https://login.example", &[host]).fault().is_some(), "{host}");
        }
    }

    #[test]
    fn only_configured_values_count_as_two_factors() {
        let p = provider("https://login.example", &[]);
        assert!(p.has_two_factors(Some("mfa"), &[]));
        assert!(p.has_two_factors(None, &["pwd".into(), "hwk".into()]));
        assert!(!p.has_two_factors(Some("MFA"), &["pwd".into(), "mfa".into()]));
        assert!(!p.has_two_factors(None, &[]));
        let silent = Provider {
            acr: vec![],
            amr: vec![],
            ..p
        };
        assert!(!silent.has_two_factors(Some("mfa"), &["hwk".into()]) && !silent.has_two_factors(Some(""), &[]));
    }

    #[test]
    fn links_of_two_issuers_never_meet() {
        assert_ne!(Link::id("https://a", "bc"), Link::id("https://ab", "c"));
        assert_ne!(Link::id("https://a", "s"), Link::id("https://b", "s"));
    }
}

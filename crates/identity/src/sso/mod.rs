//! Single sign-on by OpenID Connect: somebody's identity provider says who it is, an account here says what they may.
//!
//! The authorization code flow with PKCE, state and nonce (OpenID Connect Core 1.0, RFC 7636, RFC 9207, RFC 9700), bound to
//! the browser that began it by a cookie; back-channel logout. An identity is `iss` and `sub`, linked to an account by
//! the operator ([`Link`]): an e-mail address is neither asked for nor looked at.
//!
//! What it deliberately does not know: how requests leave this machine. The network is behind [`Outbound`], which the
//! composition root implements, and is asked for addresses only that [`Provider::may_reach`] allows.

mod metadata;
mod provider;
mod service;
mod verify;

pub use metadata::{Call, Outbound, Reply, Unreachable};
pub use provider::{ALGORITHMS, ClientAuthentication, Link, Provider, ProviderState};
pub use service::{Arrived, CALLBACK, Callback, Departure, NewProvider, SsoFault};
pub use verify::Flaw;

pub(crate) use metadata::Lanes;
pub(crate) use service::{Begun, Logouts, PagesAt};

/// Who a session's person is at their identity provider: kept with the session in memory, for logout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Federated {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    /// The session at the provider, where it names one.
    pub(crate) sid: Option<String>,
}

impl Federated {
    /// Whether a logout token of `issuer` means this one: the session it names, or all of the person.
    pub(crate) fn is_meant(&self, issuer: &str, subject: Option<&str>, sid: Option<&str>) -> bool {
        self.issuer == issuer
            && (subject.is_some() || sid.is_some())
            && subject.is_none_or(|s| s == self.subject)
            && sid.is_none_or(|s| self.sid.as_deref() == Some(s))
    }
}

#[cfg(test)]
mod tests;

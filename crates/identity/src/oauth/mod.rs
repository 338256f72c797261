//! Registered clients: machines that prove who they are with a key of their own (IAM-15).
//!
//! A client sends a signed assertion (`private_key_jwt`: RFC 7523, SMART Backend Services) and gets an access token of
//! five minutes for what it asked for, as far as it is registered for it. There is no client secret: nothing that is
//! stored here, or sent twice, opens anything.
//!
//! [`client`] is what is kept of a client, [`assertion`] the check of one assertion (pure), [`scope`] what may be asked
//! for, [`service`] joins them with policy, the log and [`Tokens`](crate::Tokens).

mod assertion;
mod client;
mod scope;
mod service;

#[cfg(test)]
pub(crate) mod tests;

pub use assertion::{ASSERTION_TTL_MAX_S, Flaw, MAX_ASSERTION, SKEW_S};
pub use client::{Client, ClientKey, ClientState, KEYS_MAX, PublicKey};
pub use scope::{SCOPES_SUPPORTED, narrow, parse as parse_scope};
pub(crate) use service::Assertions;
pub use service::{
    ACCESS_TTL_S, Answered, AssertedBy, CLIENT_TTL_MAX_S, Introspected, NewClient, TokenFault, VerificationKey,
};

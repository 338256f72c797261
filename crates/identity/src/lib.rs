//! Who is asking: accounts, tokens, page sessions, one-time sign-in links, registered clients ([`oauth`]).
//!
//! [`Identity`] is the way in. It turns a bearer token or a cookie into an [`Actor`](keepwell_model::actor::Actor), and
//! nothing else in Keepwell does, except the composition root for its named jobs.
//!
//! What it deliberately does not know: patients (an actor only carries the id of the own Patient), HTTP, and storage.
//! Accounts and the like are own documents behind the trait [`Documents`], which the composition root implements over
//! `record`: sealed, logged and backed up like any resource. Signing is behind [`TokenKey`]: the private key never
//! comes here.
//!
//! There are no passwords in this release and no account that exists by itself (IAM-1): the first administrator comes
//! by a one-time code, everybody else by one-time links. Administrative acts are authorized by the same policies as
//! reading a chart, and recorded in the same log.

mod account;
pub mod cookie;
mod documents;
mod link;
pub mod oauth;
mod secret;
mod service;
mod session;
mod token;

pub use account::{Account, AccountState};
pub use documents::{BoxFuture, DocumentError, Documents};
pub use link::{BOOTSTRAP_TTL_S, Code, LINK_TTL_S};
pub use service::{Denied, Fault, Identity, Parts, Seen};
pub use session::{ABSOLUTE_S, Activity, IDLE_S, OpenedSession, PageSession, SessionInfo, Sessions};
pub use token::{
    Claims, Invalid, Issued, KeyUnavailable, LEEWAY_S, MAX_TOKEN, PERSON_TTL_MAX_S, Refused, SERVICE_TTL_MAX_S,
    TokenKey, Tokens, Wanted,
};

//! Who is asking: accounts, authenticators, page sessions, tokens, registered clients ([`oauth`]).
//!
//! [`Identity`] is the way in. It turns a bearer token or a cookie into an [`Actor`](keepwell_model::actor::Actor), and
//! nothing else in Keepwell does, except the composition root for its named jobs.
//!
//! What it deliberately does not know: patients (an actor only carries the id of the own Patient), HTTP, and storage.
//! Accounts and the like are own documents behind the trait [`Documents`], which the composition root implements over
//! `record`: sealed, logged and backed up like any resource. Signing is behind [`TokenKey`]: the private key never
//! comes here.
//!
//! No account exists by itself (IAM-1): the first administrator comes by a one-time code, everybody else by an
//! invitation. Whoever signs in proves two factors ([`Identity::sign_in_password`] and what follows it), and there is no
//! way around that: an activation code, also after a loss, opens a session that may enrol and nothing else. Administrative acts are authorized by the same policies as
//! reading a chart, and recorded in the same log.

mod account;
mod authenticators;
pub mod cookie;
mod documents;
mod enrol;
mod guesses;
mod invitation;
pub mod oauth;
mod password;
mod secret;
mod service;
mod session;
mod signin;
pub mod sso;
mod stage;
mod token;
mod totp;

pub use account::{Account, AccountState};
pub use authenticators::{Enrolled, Factor, FactorKind};
pub use documents::{BoxFuture, DocumentError, Documents};
pub use enrol::NewApp;
pub use guesses::FAILURES_MAX;
pub use invitation::{ACTIVATION_TTL_S, Activation, BOOTSTRAP_TTL_S, Code, WAITING_TTL_S, Waiting};
pub use password::{Cost, HashUnavailable, PASSWORD_MAX, PASSWORD_MIN, Weakness, strength};
pub use service::{Denied, Fault, Identity, Parts, Seen};
pub use session::{ABSOLUTE_S, Activity, ENROLMENT_S, IDLE_S, OpenedSession, PageSession, SessionInfo, Sessions};
pub use signin::{Challenge, Offers, Proof, SignedIn};
pub use stage::STAGE_TTL_S;
pub use token::{
    Claims, Invalid, Issued, KeyUnavailable, LEEWAY_S, MAX_TOKEN, PERSON_TTL_MAX_S, Refused, SERVICE_TTL_MAX_S,
    TokenKey, Tokens, Wanted,
};
pub use totp::{STEP_S, code_at};

//! One-time sign-in codes: 256 random bits, kept as their hash, used once, short-lived. Own documents of kind
//! `login-link` whose id is the hash; using one deletes it before the session opens.

use keepwell_model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::secret::{hex, sha256};

/// The kind of own document.
pub(crate) const KIND: &str = "login-link";
/// A sign-in link lives this long, in seconds.
pub const LINK_TTL_S: i64 = 10 * 60;
/// The administrator code of `init` lives this long: three days to set the server up.
pub const BOOTSTRAP_TTL_S: i64 = 3 * 24 * 60 * 60;

/// A code just made. Not `Debug`: it opens a session.
pub struct Code {
    /// The code, to be shown once.
    pub code: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// What is kept of a code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Link {
    /// Whose account.
    pub(crate) user: String,
    /// Milliseconds since 1970.
    pub(crate) expires: i64,
    /// The first administrator's code: the account is made when it is used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) bootstrap: bool,
}

/// The document id of a code.
pub(crate) fn id_of(code: &str) -> String {
    hex(&sha256(code.as_bytes()))
}

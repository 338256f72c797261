//! Where accounts, authenticators, invitations and revocations are kept: Keepwell's own documents.

use std::future::Future;
use std::pin::Pin;

use keepwell_model::actor::Context;
use keepwell_policy::Action;

/// A boxed future, so that [`Documents`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A document could not be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// It was to be new and there is one already.
    #[error("the document exists already")]
    Exists,
    /// Sealed, full, damaged: nothing was written.
    #[error("documents cannot be read or written now")]
    Unavailable,
}

/// Keeps own documents. Methods may run concurrently.
///
/// What is written is durable, visible to `get` and `list`, and in the audit log when the future ends well; on an
/// error nothing was written. Kinds in use: `account`, `authenticators`, `invitation`, `activation`,
/// `token-revocation`, `setting`, `client`, `client-assertions`, `identity-provider`, `identity-link`.
pub trait Documents: Send + Sync {
    /// Writes a document; `None` as text deletes it. With `absent` it must not exist yet: of several at once, one wins.
    fn put<'a>(
        &'a self,
        by: &'a Context,
        action: Action,
        kind: &'a str,
        id: &'a str,
        text: Option<&'a str>,
        absent: bool,
    ) -> BoxFuture<'a, Result<(), DocumentError>>;

    /// A document's text.
    ///
    /// # Errors
    /// It cannot be read.
    fn get(&self, kind: &str, id: &str) -> Result<Option<String>, DocumentError>;

    /// All documents of a kind, as id and text.
    ///
    /// # Errors
    /// One cannot be read.
    fn list(&self, kind: &str) -> Result<Vec<(String, String)>, DocumentError>;

    /// Records an act that changes no document, or one that was refused (`permitted` false), in the audit log.
    fn log<'a>(&'a self, by: &'a Context, action: Action, permitted: bool) -> BoxFuture<'a, Result<(), DocumentError>>;
}

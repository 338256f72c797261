//! Own documents: accounts, what they sign in with, invitations, revocations. Sealed, logged and backed up like any resource, never served
//! under `/fhir`.

use crate::answer::Refusal;
use crate::change::{Before, Change, OwnWrite};
use crate::door::{Door, Row};
use crate::event::Access;
use crate::follower::OWN;
use keepwell_ledger::Body;
use keepwell_model::actor::Context;
use keepwell_policy::Action;

/// The kinds of own documents; numbers stand on disk and are never used again.
const KINDS: &[(u16, &str)] = &[
    (OWN, "account"),
    // Sign-in links of 0.1; activation codes replace them.
    (OWN + 1, "login-link"),
    (OWN + 2, "token-revocation"),
    (OWN + 3, "setting"),
    (OWN + 4, "import-progress"),
    (OWN + 5, "authenticators"),
    (OWN + 6, "invitation"),
    (OWN + 7, "activation"),
    (DUTY, "duty"),
    (COVER, "cover"),
    (GRANT, "grant"),
    (OWN + 20, "client"),
    (OWN + 21, "client-assertions"),
    (OWN + 32, "identity-provider"),
    (OWN + 33, "identity-link"),
];

/// Who is signed on to which units.
pub(crate) const DUTY: u16 = OWN + 16;
/// Who covers for whom.
pub(crate) const COVER: u16 = OWN + 17;
/// Access to one patient for a stated reason or in an emergency.
pub(crate) const GRANT: u16 = OWN + 18;

fn code(kind: &str) -> Option<u16> {
    KINDS.iter().find(|(_, k)| *k == kind).map(|(c, _)| *c)
}

impl Door {
    /// Writes an own document (durable on return); `None` as text deletes it. With `absent` it must not exist yet.
    ///
    /// # Errors
    /// 412 where `absent` was asked for and it exists, 503.
    pub async fn put_document(
        &self,
        ctx: &Context,
        action: Action,
        kind: &str,
        id: &str,
        text: Option<&str>,
        absent: bool,
    ) -> Result<(), Refusal> {
        let before = if absent { Before::Absent } else { Before::Any };
        self.put_document_about(Access::of(ctx, action), kind, id, text, before, &[])
            .await
    }

    /// The same with an event of the caller's, and the patients it is about.
    pub(crate) async fn put_document_about(
        &self,
        access: Access,
        kind: &str,
        id: &str,
        text: Option<&str>,
        before: Before,
        about: &[Row],
    ) -> Result<(), Refusal> {
        let type_code = code(kind).ok_or_else(|| Refusal::new(500, "exception", "no such kind of document"))?;
        for _ in 0..crate::door::TRIES {
            let change = Change {
                guards: Vec::new(),
                writes: Vec::new(),
                own: Some(OwnWrite {
                    type_code,
                    id: id.to_owned(),
                    body: text.map(|t| Body::compress(t.as_bytes())),
                    before,
                    version: 0,
                    place: 0,
                    deleted: false,
                }),
                about: about.to_vec(),
                access: access.clone(),
                decided: Vec::new(),
            };
            if self.commit_once(change).await?.is_some() {
                return Ok(());
            }
        }
        Err(Refusal::new(
            409,
            "conflict",
            "too many others change the same document",
        ))
    }

    /// An own document's text.
    ///
    /// # Errors
    /// It does not open.
    pub fn document(&self, kind: &str, id: &str) -> Result<Option<String>, Refusal> {
        let Some(code) = code(kind) else { return Ok(None) };
        let head = self.records.own.read().get(&(code, id.to_owned())).copied();
        match head.filter(|h| !h.deleted) {
            None => Ok(None),
            Some(h) => Ok(Some(String::from_utf8_lossy(&self.open(h.rid)?.text).into_owned())),
        }
    }

    /// All own documents of a kind: id and text, by id.
    ///
    /// # Errors
    /// One does not open.
    pub fn documents(&self, kind: &str) -> Result<Vec<(String, String)>, Refusal> {
        let Some(code) = code(kind) else { return Ok(Vec::new()) };
        let mut heads: Vec<(String, u64)> = self
            .records
            .own
            .read()
            .iter()
            .filter(|((c, _), h)| *c == code && !h.deleted)
            .map(|((_, id), h)| (id.clone(), h.rid))
            .collect();
        heads.sort();
        heads
            .into_iter()
            .map(|(id, rid)| Ok((id, String::from_utf8_lossy(&self.open(rid)?.text).into_owned())))
            .collect()
    }
}

//! read and vread: <https://hl7.org/fhir/R4/http.html#read>, <https://hl7.org/fhir/R4/http.html#vread>.

use crate::answer::{Answer, Refusal};
use crate::door::{Door, Row};
use crate::event::Access;
use crate::permit::Owed;
use crate::text::assemble;
use crate::view::{View, render};
use keepwell_model::actor::Context;
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_policy::Action;
use keepwell_search::index::RowKind;

/// Conditions and form of a read.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The version asked for; none = the current one.
    pub version: Option<u32>,
    /// `If-None-Match`: 304 when this is the current version.
    pub if_none_match: Option<u32>,
    /// `If-Modified-Since`, whole seconds.
    pub if_modified_since: Option<Timestamp>,
    /// `_summary`, `_elements`.
    pub view: View,
}

impl Door {
    /// Reads a resource, or one version of it.
    ///
    /// # Errors
    /// 403 where the role may read no such type, 404 where there is none or none the actor may know of, 410 where it
    /// was deleted, 503 where the access cannot be recorded.
    pub async fn read(
        &self,
        ctx: &Context,
        t: ResourceType,
        id: &str,
        options: &ReadOptions,
    ) -> Result<Answer, Refusal> {
        let action = if options.version.is_some() {
            Action::Vread
        } else {
            Action::Read
        };
        self.gate_type(ctx, action, t).await?;
        let mut access = Access::of(ctx, action);
        access.resource_type = Some(t);
        let visible = self.ledger.visible();
        let head = match options.version {
            None => self.records.index.read().head(t, id, visible),
            Some(v) => self.records.index.read().version(t, id, v, visible),
        };
        let Some(head) = head else {
            return Err(self.refuse(access, Refusal::not_found()).await);
        };
        let standing = self.standing(ctx, head.home);
        let decision = self.decide_standing(ctx, action, t, &head, standing);
        if !decision.permit {
            let refusal = self.not_yours(ctx, t, &head, standing);
            return Err(self.refuse(access, refusal).await);
        }
        if head.kind != RowKind::Version {
            return Err(self.refuse(access, Refusal::gone()).await);
        }
        let mut owed = Owed::default();
        owed.add(&decision, standing);
        owed.note(&mut access);
        let last_updated = Timestamp(head.last_updated);
        let mut answer = Answer {
            status: 200,
            body: Vec::new(),
            version: Some(head.version),
            last_updated: Some(last_updated),
            location: None,
            part_2: false,
        };
        let unchanged = match (options.if_none_match, options.if_modified_since) {
            (Some(v), _) => v == head.version,
            (None, Some(since)) => last_updated.0 / 1000 <= since.0 / 1000,
            (None, None) => false,
        };
        if unchanged {
            answer.status = 304;
        } else {
            let opened = match self.open_version(&head) {
                Ok(o) => o,
                Err(e) => return Err(self.refuse(access, e).await),
            };
            assemble(t, id, head.version, last_updated, &opened.text, &mut answer.body);
            if let Err(e) = render(t, &options.view, &mut answer.body) {
                return Err(self.refuse(access, e).await);
            }
            answer.part_2 = owed.notice;
        }
        access.status = answer.status;
        access.count = 1;
        self.log(
            access,
            &[Row {
                rid: head.rid,
                home: head.home,
            }],
            owed.wait(),
        )
        .await?;
        Ok(answer)
    }
}

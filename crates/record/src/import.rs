//! Loading what another system exported: Bundles of any kind and single resources, source ids kept.
//!
//! A Bundle is loaded whole or not at all. Entries keep the id they had at the source (`POST` becomes an update under
//! that id), so that loading the same file again changes nothing: what is already there, equal, is left out. Copies
//! of shared resources (practitioners, organisations) that many Bundles carry fall together in the same way.

use crate::answer::Refusal;
use crate::door::Door;
use crate::event::Access;
use crate::text::stored;
use crate::write::{Return, parse_json};
use keepwell_model::actor::Context;
use keepwell_model::json::{Value, object};
use keepwell_model::outcome::Issue;
use keepwell_model::reference::is_id;
use keepwell_model::schema::{self, Mode};
use keepwell_model::types::ResourceType;
use keepwell_policy::Action;
use keepwell_search::index::RowKind;
use std::borrow::Cow;

/// What became of one Bundle or resource.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// Resources written.
    pub written: u32,
    /// Resources that were there already, equal.
    pub unchanged: u32,
    /// Refused resources: `Type/id` or place, and why.
    pub refused: Vec<(String, Vec<Issue>)>,
}

impl Door {
    /// Loads a Bundle (transaction, batch, collection, searchset, ...) or a single resource.
    ///
    /// # Errors
    /// 400 where the text is no resource, 403, 503. Faulty resources are no error but listed in the result, and then
    /// nothing of that Bundle was stored.
    pub async fn import(&self, ctx: &Context, text: &[u8]) -> Result<Imported, Refusal> {
        self.authorize_system(ctx, Action::Import).await?;
        let value = match parse_json(text) {
            Ok(v) => v,
            Err(e) => return Err(self.refuse(Access::of(ctx, Action::Import), e).await),
        };
        let is_bundle = value.str("resourceType") == Some("Bundle") && value.get("entry").is_some();
        let single;
        let entries: &[Value<'_>] = if is_bundle {
            value.get("entry").and_then(Value::items).unwrap_or_default()
        } else {
            single = [object([("resource", value.clone())])];
            &single
        };
        let mut done = Imported::default();
        let mut out = Vec::with_capacity(entries.len());
        for (at, entry) in entries.iter().enumerate() {
            let Some(resource) = entry.get("resource") else {
                continue;
            };
            let t = resource.str("resourceType").and_then(ResourceType::from_name);
            let id = resource.str("id").filter(|id| is_id(id));
            let name = match (t, id) {
                (Some(t), Some(id)) => format!("{t}/{id}"),
                _ => format!("entry {at}"),
            };
            let mut issues = schema::validate(resource, Mode::Create);
            issues.retain(|i| i.severity >= keepwell_model::outcome::Severity::Error);
            let Some(t) = t.filter(|_| issues.is_empty()) else {
                done.refused.push((name, issues));
                continue;
            };
            let conditional = entry.get("request").and_then(|r| r.get("ifNoneExist"));
            let request = match (id, conditional) {
                (Some(id), _) => object([
                    ("method", Value::from("PUT")),
                    ("url", Value::String(Cow::Owned(format!("{t}/{id}")))),
                ]),
                (None, Some(c)) => object([
                    ("method", Value::from("POST")),
                    ("url", Value::from(t.name())),
                    ("ifNoneExist", c.clone()),
                ]),
                (None, None) => object([("method", Value::from("POST")), ("url", Value::from(t.name()))]),
            };
            let mut changed = object([("resource", resource.clone()), ("request", request)]);
            if let Some(url) = entry.get("fullUrl") {
                changed.set("fullUrl", url.clone());
            }
            out.push(changed);
        }
        if !done.refused.is_empty() {
            let refusal = Refusal::bad(vec![Issue::error(
                "invalid",
                "the Bundle holds resources that are refused",
            )]);
            self.refuse(Access::of(ctx, Action::Import), refusal).await;
            return Ok(done);
        }
        // Equal copies, in this Bundle or in the record already, are left out; their fullUrl still resolves.
        let count = out.len();
        let bundle = object([
            ("resourceType", Value::from("Bundle")),
            ("type", Value::from("transaction")),
            ("entry", Value::Array(out)),
        ]);
        match self.import_entries(ctx, &bundle).await {
            Ok(written) => {
                done.written = written;
                done.unchanged = u32::try_from(count).unwrap_or(u32::MAX).saturating_sub(written);
                Ok(done)
            }
            Err(e) if e.status == 503 || e.status == 403 => Err(e),
            Err(e) => {
                for issue in e.issues {
                    let place = issue.expression.clone().unwrap_or_else(|| "Bundle".to_owned());
                    done.refused.push((place, vec![issue]));
                }
                Ok(done)
            }
        }
    }

    async fn import_entries(&self, ctx: &Context, bundle: &Value<'_>) -> Result<u32, Refusal> {
        let entries = self.entries(bundle, "")?;
        let outcomes = self.transaction(ctx, &entries, Return::Minimal, "", true).await?;
        Ok(u32::try_from(outcomes.iter().filter(|o| o.written).count()).unwrap_or(u32::MAX))
    }

    /// Whether the current version of a resource says the same as `value` already.
    pub(crate) fn is_unchanged(&self, t: ResourceType, id: &str, value: &Value<'_>) -> bool {
        let head = self
            .records
            .index
            .read()
            .head(t, id, u64::MAX)
            .filter(|h| h.kind == RowKind::Version);
        head.and_then(|h| self.ledger.read(h.rid).ok())
            .is_some_and(|o| o.text == stored(value).as_bytes())
    }
}

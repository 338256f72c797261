//! history of a resource, a type, the system: <https://hl7.org/fhir/R4/http.html#history>.

use crate::answer::{Answer, Refusal};
use crate::cursor::Paged;
use crate::door::{Door, Row};
use crate::event::Access;
use crate::page::Page;
use crate::permit::Owed;
use crate::text::assemble;
use keepwell_model::actor::Context;
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_policy::Action;
use keepwell_search::index::{RowKind, Scope, Version};
use std::fmt::Write as _;

/// Which history.
#[derive(Clone, Copy, Debug)]
pub enum HistoryOf<'a> {
    /// Of one resource.
    Instance(ResourceType, &'a str),
    /// Of all resources of a type.
    Type(ResourceType),
    /// Of everything.
    System,
}

/// Parameters of a history.
#[derive(Clone, Debug, Default)]
pub struct HistoryOptions {
    /// `_since`: only versions from this instant on.
    pub since: Option<Timestamp>,
    /// `_at`: only versions current within this range of milliseconds, `hi` exclusive.
    pub at: Option<(i64, i64)>,
    /// `_count`
    pub count: Option<u32>,
    /// A page link's sealed place.
    pub cursor: Option<String>,
    /// Parameters to echo in `self`, encoded, without `?`.
    pub echo: String,
}

impl Door {
    /// Gives the versions, newest first; each is authorised against the home it had.
    ///
    /// # Errors
    /// 403, 404 where the resource never existed for this actor, 503.
    pub async fn history(
        &self,
        ctx: &Context,
        of: HistoryOf<'_>,
        options: &HistoryOptions,
        base: &str,
    ) -> Result<Answer, Refusal> {
        let (action, t) = match of {
            HistoryOf::Instance(t, _) => (Action::HistoryInstance, Some(t)),
            HistoryOf::Type(t) => (Action::HistoryType, Some(t)),
            HistoryOf::System => (Action::HistorySystem, None),
        };
        if let Some(t) = t {
            self.gate_type(ctx, action, t).await?;
        }
        let mut access = Access::of(ctx, action);
        access.resource_type = t;
        match self.history_page(ctx, of, action, options, base) {
            Ok((body, rows, owed)) => {
                access.count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
                owed.note(&mut access);
                self.log(access, &rows, owed.wait()).await?;
                Ok(Answer {
                    status: 200,
                    body,
                    part_2: owed.notice,
                    ..Answer::default()
                })
            }
            Err(e) => Err(self.refuse(access, e).await),
        }
    }

    fn history_page(
        &self,
        ctx: &Context,
        of: HistoryOf<'_>,
        action: Action,
        options: &HistoryOptions,
        base: &str,
    ) -> Result<(Vec<u8>, Vec<Row>, Owed), Refusal> {
        let path = match of {
            HistoryOf::Instance(t, id) => format!("/{t}/{id}/_history"),
            HistoryOf::Type(t) => format!("/{t}/_history"),
            HistoryOf::System => "/_history".to_owned(),
        };
        let paged = Paged {
            base,
            path,
            echo: &options.echo,
        };
        let before = self
            .place_number(ctx, &paged, options.cursor.as_deref())?
            .unwrap_or(u64::MAX);
        let limit = options
            .count
            .map_or(self.limits.page, |n| (n as usize).min(self.limits.page_max));
        let visible = self.ledger.visible();
        let permit = self.permit(ctx, action);
        let permitted = permit.predicate();
        let mut versions: Vec<Version> = Vec::new();
        let mut more = false;
        let mut total = 0u64;
        let mut known = false;
        // One resource's history is in the order of versions, the others in the order of rows.
        let position = |v: &Version| match of {
            HistoryOf::Instance(..) => u64::from(v.version),
            _ => v.rid,
        };
        {
            let index = self.records.index.read();
            let scope = match of {
                HistoryOf::Instance(t, id) => Scope::Instance(t, id),
                HistoryOf::Type(t) => Scope::Type(t),
                HistoryOf::System => Scope::System,
            };
            for v in index.history(scope, visible, None) {
                if !permitted(&v.facts()) {
                    continue;
                }
                known = true;
                if options.since.is_some_and(|s| v.last_updated < s.0) {
                    continue;
                }
                if let Some((lo, hi)) = options.at
                    && (v.last_updated >= hi || index.until(&v, visible).is_some_and(|u| u <= lo))
                {
                    continue;
                }
                total += 1;
                if position(&v) >= before {
                    continue;
                }
                if versions.len() < limit {
                    versions.push(v);
                } else {
                    more = true;
                    // Only one resource's history is short enough to count for each page.
                    if !matches!(of, HistoryOf::Instance(..)) {
                        break;
                    }
                }
            }
        }
        if matches!(of, HistoryOf::Instance(..)) && !known {
            return Err(Refusal::not_found());
        }
        let exact = matches!(of, HistoryOf::Instance(..)) || !more && before == u64::MAX;
        let mut links = vec![("self", paged.own_link())];
        if let (true, Some(last)) = (more, versions.last()) {
            links.push(("next", self.next_link(ctx, &paged, &position(last).to_le_bytes())?));
        }
        let owed = permit.owed(&versions);
        let mut page = Page::open("history", ctx.at, exact.then_some(total), &links, owed);
        let mut rows = Vec::with_capacity(versions.len());
        let opened = self.open_all(&versions)?;
        page.reserve(&opened);
        for (v, opened) in &opened {
            let h = &opened.header;
            let t = v.resource_type;
            let at = Timestamp(h.last_updated);
            let mut entry = Vec::with_capacity(opened.text.len() + 400);
            entry.extend_from_slice(format!("{{\"fullUrl\":\"{base}/{t}/{}\"", h.id).as_bytes());
            if v.kind != RowKind::Deleted {
                entry.extend_from_slice(b",\"resource\":");
                assemble(t, &h.id, h.version, at, &opened.text, &mut entry);
            }
            let (method, url, status) = match (v.kind == RowKind::Deleted, h.version) {
                (true, _) => ("DELETE", format!("{t}/{}", h.id), "204 No Content"),
                (false, 1) => ("POST", t.to_string(), "201 Created"),
                (false, _) => ("PUT", format!("{t}/{}", h.id), "200 OK"),
            };
            let mut tail = String::new();
            let _ = write!(
                tail,
                ",\"request\":{{\"method\":\"{method}\",\"url\":\"{url}\"}},\"response\":{{\"status\":\"{status}\",\"etag\":\"W/\\\"{}\\\"\",\"lastModified\":\"{at}\"}}}}",
                h.version
            );
            entry.extend_from_slice(tail.as_bytes());
            page.raw(&entry);
            rows.push(Row {
                rid: v.rid,
                home: v.home,
            });
        }
        Ok((page.close(), rows, owed))
    }
}

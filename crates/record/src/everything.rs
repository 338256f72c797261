//! `Patient/$everything`: <https://hl7.org/fhir/R4/operation-patient-everything.html>.

use crate::answer::{Answer, Refusal, part_2_issue};
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
use keepwell_search::definition::{Kind, Storage, params};
use keepwell_search::index::{Limits, RowKind, Version};
use keepwell_search::query::{Include, Query, Summary, Total};
use keepwell_search::term::ParamNo;

/// Parameters of `$everything`.
#[derive(Clone, Debug, Default)]
pub struct EverythingOptions {
    /// `_since`
    pub since: Option<Timestamp>,
    /// `_type`: only these.
    pub types: Vec<ResourceType>,
    /// `_count`
    pub count: Option<u32>,
    /// A page link's sealed place.
    pub cursor: Option<String>,
    /// Parameters to echo in `self`, encoded, without `?`.
    pub echo: String,
}

impl Door {
    /// Gives the patient, everything in the compartment, and what of the directory it refers to.
    ///
    /// # Errors
    /// 403, 404, 503.
    pub async fn everything(
        &self,
        ctx: &Context,
        id: &str,
        options: &EverythingOptions,
        base: &str,
    ) -> Result<Answer, Refusal> {
        let patient = crate::patient_type();
        self.gate_type(ctx, Action::Everything, patient).await?;
        let mut access = Access::of(ctx, Action::Everything);
        access.resource_type = Some(patient);
        access.export = true;
        match self.everything_page(ctx, id, options, base) {
            Ok((body, rows, owed)) => {
                access.count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
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

    fn everything_page(
        &self,
        ctx: &Context,
        id: &str,
        options: &EverythingOptions,
        base: &str,
    ) -> Result<(Vec<u8>, Vec<Row>, Owed), Refusal> {
        let patient = crate::patient_type();
        let paged = Paged {
            base,
            path: format!("/Patient/{id}/$everything"),
            echo: &options.echo,
        };
        let after = self.place_number(ctx, &paged, options.cursor.as_deref())?;
        let visible = self.ledger.visible();
        let permit = self.permit(ctx, Action::Everything);
        let permitted = permit.predicate();
        let mut found: Vec<Version> = Vec::new();
        {
            let index = self.records.index.read();
            let head = index.head(patient, id, visible).filter(|h| permitted(&h.facts()));
            let head = head.ok_or_else(Refusal::not_found)?;
            if head.kind != RowKind::Version {
                return Err(Refusal::gone());
            }
            for t in ResourceType::all() {
                let Some(clause) = keepwell_search::parse::compartment(patient, id, t) else {
                    continue;
                };
                if index.count(t) == 0 || !options.types.is_empty() && !options.types.contains(&t) {
                    continue;
                }
                let query = Query {
                    resource_type: t,
                    clauses: vec![clause],
                    sort: Vec::new(),
                    count: None,
                    total: Total::None,
                    includes: directory(t, options),
                    summary: Summary::False,
                    elements: Vec::new(),
                    processed: Vec::new(),
                    ignored: Vec::new(),
                };
                let all = Limits {
                    page: usize::MAX,
                    includes: self.limits.include_max,
                };
                let page = index.search(&query, visible, &permitted, None, all);
                found.extend(page.matches);
                // What is another patient's is not part of this one's record, whoever asks.
                found.extend(page.included.into_iter().filter(|v| !self.records.is_patients(v.home)));
            }
        }
        found.retain(|v| options.since.is_none_or(|s| v.last_updated >= s.0));
        // The patient first, the rest in the order it was recorded.
        let place = |v: &Version| v.rid << 1 | u64::from(v.resource_type != patient);
        let order = |place: u64| (place & 1, place >> 1);
        found.sort_by_key(|v| order(place(v)));
        found.dedup_by_key(|v| v.rid);
        let total = found.len() as u64;
        let limit = options
            .count
            .map_or(self.limits.page_max, |n| (n as usize).clamp(1, self.limits.page_max));
        // The place of a page is what was shown last, not a number of entries: what goes in between (an erasure, a
        // deletion) moves nothing over the edge, and what changes comes again at the end.
        let from = after.map_or(0, |last| found.partition_point(|v| order(place(v)) <= order(last)));
        let end = from.saturating_add(limit).min(found.len());
        let mut links = vec![("self", paged.own_link())];
        let shown = found.get(from..end).unwrap_or_default();
        if end < found.len()
            && let Some(last) = shown.last()
        {
            links.push(("next", self.next_link(ctx, &paged, &place(last).to_le_bytes())?));
        }
        let owed = permit.owed(shown);
        let mut page = Page::open("searchset", ctx.at, Some(total), &links, owed);
        let mut rows = Vec::with_capacity(end - from);
        self.ledger.prefetch(shown.iter().map(|v| v.rid));
        for v in shown {
            let Some(opened) = self.open_listed(v.rid)? else {
                continue;
            };
            let h = &opened.header;
            page.hit(base, v.resource_type, &h.id, "match", |out| {
                assemble(
                    v.resource_type,
                    &h.id,
                    h.version,
                    Timestamp(h.last_updated),
                    &opened.text,
                    out,
                );
            });
            rows.push(Row {
                rid: v.rid,
                home: v.home,
            });
        }
        if owed.notice {
            page.outcome(&[part_2_issue()]);
        }
        Ok((page.close(), rows, owed))
    }
}

/// Includes that bring along what a resource refers to.
fn directory(t: ResourceType, options: &EverythingOptions) -> Vec<Include> {
    if !options.types.is_empty() {
        return Vec::new();
    }
    let references: Vec<ParamNo> = params(t)
        .iter()
        .enumerate()
        .filter(|(_, p)| p.kind == Kind::Reference && p.storage == Storage::Stored && !p.canonical)
        .filter_map(|(i, _)| u16::try_from(i).ok().map(ParamNo))
        .collect();
    vec![Include {
        reverse: false,
        iterate: false,
        source: t,
        params: references,
        target: None,
    }]
}

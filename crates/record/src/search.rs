//! search: <https://hl7.org/fhir/R4/search.html>.

use crate::answer::{Answer, Refusal, part_2_issue};
use crate::cursor::{CURSOR, Paged, not_a_place};
use crate::door::{Door, Row};
use crate::event::Access;
use crate::page::Page;
use crate::permit::Owed;
use crate::text::assemble;
use crate::view::{View, banner, render};
use keepwell_ledger::Opened;
use keepwell_model::actor::Context;
use keepwell_model::json;
use keepwell_model::outcome::{Issue, Severity};
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_policy::Action;
use keepwell_search::definition::find;
use keepwell_search::index::{Cursor, Limits, Version};
use keepwell_search::parse::{Options, compartment, parse};
use keepwell_search::query::{Clause, Query, SortBy, SortKey, Summary, Test, TokenTest, Total, UriTest};
use keepwell_search::term::ParamNo;
use keepwell_search::terminology::{Codes, Hl7, Stored, expand};
use std::sync::Arc;

/// A search as it came in.
#[derive(Clone, Debug)]
pub struct SearchRequest<'a> {
    /// The type searched.
    pub resource_type: ResourceType,
    /// Compartment: owner type and id.
    pub compartment: Option<(ResourceType, &'a str)>,
    /// Parameters in order, decoded.
    pub params: &'a [(String, String)],
    /// `Prefer: handling=lenient`.
    pub lenient: bool,
    /// The server's base, absolute, without a final slash.
    pub base: &'a str,
}

impl Door {
    /// Parses a search; value sets stored here are known beside those of HL7.
    pub(crate) fn parse(&self, t: ResourceType, params: &[(String, String)], lenient: bool) -> Result<Query, Refusal> {
        let terminology = Stored(|url: &str| self.stored_value_set(url));
        let options = Options {
            lenient,
            now: self.clock.now(),
            base: &self.records.base,
            terminology: &terminology,
        };
        parse(t, params, &options).map_err(Refusal::bad)
    }

    /// The members of a stored ValueSet. Value sets are reference data: everybody may use them.
    fn stored_value_set(&self, url: &str) -> Option<Codes> {
        let t = ResourceType::from_name("ValueSet")?;
        let plain = url.split('|').next().unwrap_or(url);
        let clause = match plain.strip_prefix("ValueSet/") {
            Some(id) => Clause::Id(vec![id.to_owned()]),
            None => Clause::Match {
                param: find(t, "url")?.0,
                test: Test::Uri(UriTest::Exact(plain.to_owned())),
            },
        };
        let query = Query {
            resource_type: t,
            clauses: vec![clause],
            sort: Vec::new(),
            count: None,
            total: Total::None,
            includes: Vec::new(),
            summary: Summary::False,
            elements: Vec::new(),
            processed: Vec::new(),
            ignored: Vec::new(),
        };
        let limits = Limits { page: 1, includes: 0 };
        let page = self
            .records
            .index
            .read()
            .search(&query, self.ledger.visible(), &|_| true, None, limits);
        let opened = self.ledger.read(page.matches.first()?.rid).ok()?;
        let mut full = Vec::new();
        assemble(t, &opened.header.id, 1, Timestamp(0), &opened.text, &mut full);
        expand(&json::parse(std::str::from_utf8(&full).ok()?).ok()?, &Hl7)
    }

    /// Parses the search of a conditional interaction: no result parameters, at least one condition.
    pub(crate) fn strict_query(&self, t: ResourceType, params: &[(String, String)]) -> Result<Query, Refusal> {
        let mut query = self.parse(t, params, false)?;
        if query.clauses.is_empty() {
            return Err(Refusal::new(
                412,
                "invalid",
                "the condition names no search parameter: it would match everything",
            ));
        }
        query.includes.clear();
        query.sort.clear();
        Ok(query)
    }

    /// Runs a search.
    ///
    /// # Errors
    /// 400 with what is wrong with the parameters, 403 where the role may search no such type, 503 where the access
    /// cannot be recorded.
    pub async fn search(&self, ctx: &Context, request: &SearchRequest<'_>) -> Result<Answer, Refusal> {
        let t = request.resource_type;
        self.gate_type(ctx, Action::Search, t).await?;
        let mut access = Access::of(ctx, Action::Search);
        access.resource_type = Some(t);
        let ready = self.page(ctx, request, &mut access);
        let (body, rows, owed) = match ready {
            Ok(r) => r,
            Err(e) => return Err(self.refuse(access, e).await),
        };
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

    fn page(
        &self,
        ctx: &Context,
        request: &SearchRequest<'_>,
        access: &mut Access,
    ) -> Result<(Vec<u8>, Vec<Row>, Owed), Refusal> {
        let resumed = match request.params {
            [(name, token)] if name == CURSOR => Some(self.open_cursor(ctx, request, token)?),
            _ => None,
        };
        let params = resumed.as_ref().map_or(request.params, |r| &r.params);
        let mut query = self.parse(request.resource_type, params, request.lenient)?;
        if let Some((owner, id)) = request.compartment {
            let clause = compartment(owner, id, request.resource_type)
                .ok_or_else(|| Refusal::new(404, "not-found", "resources of that type are not in that compartment"))?;
            query.clauses.push(clause);
        }
        access.params = names(params);
        let count_only = query.summary == Summary::Count || query.count == Some(0);
        let limit = query
            .count
            .map_or(self.limits.page, |n| (n as usize).min(self.limits.page_max));
        let limit = if count_only { 0 } else { limit };
        if count_only {
            query.total = Total::Accurate;
            query.includes.clear();
        }
        let visible = self.ledger.visible();
        let banners = asks_no_more_than_a_banner(&query);
        let permit = self.permit(ctx, Action::Search).with_banners(banners);
        if banners && permit.is_clinicians() && query.sort.is_empty() {
            // The newest first, as by default, would tell whose record changed last.
            query.sort.push(SortKey {
                by: SortBy::Id,
                descending: false,
            });
        }
        let cursor = resumed.as_ref().map(|r| &r.cursor);
        // Matches carry what the page needs, so that the index is not held while rows are opened.
        let limits = Limits {
            page: limit,
            includes: self.limits.include_max,
        };
        let found = {
            let index = self.records.index.read();
            // An erasure since the first page (or a start from a snapshot) took what its moment could be told from.
            if cursor.is_some_and(|c| c.visible < index.whole_from()) {
                return Err(Refusal::page_expired());
            }
            index.search(&query, visible, &permit.predicate(), cursor, limits)
        };
        let mut links = vec![("self", self_link(request, &query))];
        if let Some(next) = &found.next {
            links.push(("next", self.next_link(ctx, &paged(request), &place(params, next))?));
        }
        let view = View {
            summary: Some(query.summary),
            elements: query.elements.clone(),
        };
        let owed = permit.owed(found.matches.iter().chain(&found.included));
        let mut page = Page::open("searchset", ctx.at, found.total, &links, owed);
        let mut rows = Vec::with_capacity(found.matches.len() + found.included.len());
        let (matches, included) = (self.open_all(&found.matches)?, self.open_all(&found.included)?);
        page.reserve(matches.iter().chain(&included));
        let mut show = |page: &mut Page, (hit, opened): &(&Version, Arc<Opened>), mode: &str| -> Result<(), Refusal> {
            let h = &opened.header;
            let mut failed = Ok(());
            page.hit(request.base, hit.resource_type, &h.id, mode, |out| {
                let from = out.len();
                let at = Timestamp(h.last_updated);
                if permit.banner_only(hit) {
                    let mut one = Vec::new();
                    assemble(hit.resource_type, &h.id, h.version, at, &opened.text, &mut one);
                    failed = banner(&view, &mut one);
                    if failed.is_ok() {
                        out.extend_from_slice(&one);
                    }
                } else if view.is_whole() {
                    assemble(hit.resource_type, &h.id, h.version, at, &opened.text, out);
                } else {
                    let mut one = Vec::new();
                    assemble(hit.resource_type, &h.id, h.version, at, &opened.text, &mut one);
                    failed = render(hit.resource_type, &view, &mut one);
                    out.truncate(from);
                    out.extend_from_slice(&one);
                }
            });
            rows.push(Row {
                rid: hit.rid,
                home: hit.home,
            });
            failed
        };
        for hit in &matches {
            show(&mut page, hit, "match")?;
        }
        for hit in &included {
            show(&mut page, hit, "include")?;
        }
        let mut notes: Vec<Issue> = query
            .ignored
            .iter()
            .map(|(name, reason)| Issue {
                severity: Severity::Warning,
                code: "not-supported",
                diagnostics: format!("parameter `{name}` was left out: {reason}"),
                expression: None,
            })
            .collect();
        if found.truncated {
            notes.push(Issue {
                severity: Severity::Warning,
                code: "too-costly",
                diagnostics: "more resources are to be included than one page takes; ask for smaller pages".to_owned(),
                expression: None,
            });
        }
        notes.extend(owed.notice.then(part_2_issue));
        page.outcome(&notes);
        Ok((page.close(), rows, owed))
    }

    fn open_cursor(&self, ctx: &Context, request: &SearchRequest<'_>, token: &str) -> Result<Resumed, Refusal> {
        let plain = self.place(ctx, &paged(request), token)?;
        let bad = not_a_place;
        let mut rest = plain.as_slice();
        let mut piece = || -> Option<Vec<u8>> {
            let (n, tail) = rest.split_first_chunk::<4>()?;
            let n = u32::from_le_bytes(*n) as usize;
            let (bytes, tail) = tail.split_at_checked(n)?;
            rest = tail;
            Some(bytes.to_vec())
        };
        let cursor = Cursor::from_bytes(&piece().ok_or_else(bad)?).ok_or_else(bad)?;
        let mut params = Vec::new();
        while let Some(name) = piece() {
            let value = piece().ok_or_else(bad)?;
            let text = |b| String::from_utf8(b).map_err(|_| bad());
            params.push((text(name)?, text(value)?));
        }
        Ok(Resumed { cursor, params })
    }
}

/// What of a Patient a clinician without a treatment relationship may search and sort by: what the banner tells, and a
/// number they must know already. Anything else would be answered by whether the patient is found.
const BANNER_PARAMS: &[&str] = &[
    "name",
    "family",
    "given",
    "phonetic",
    "birthdate",
    "gender",
    "identifier",
];

/// Whether the answer to `query` tells nothing of a patient beyond the minimal banner.
fn asks_no_more_than_a_banner(query: &Query) -> bool {
    let t = query.resource_type;
    if t != crate::patient_type() || !query.includes.is_empty() {
        return false;
    }
    let named = |no: &ParamNo, allowed: &[&str]| {
        allowed
            .iter()
            .any(|code| find(t, code).is_some_and(|(known, _)| known == *no))
    };
    fn plain(clause: &Clause, named: &dyn Fn(&ParamNo) -> bool) -> bool {
        match clause {
            Clause::Match { param, test } => named(param) && tells_no_kind(test),
            Clause::Any(all) | Clause::All(all) => all.iter().all(|c| plain(c, named)),
            Clause::Id(_) | Clause::Never => true,
            // Absence tells as well, and so does everything that leads to another resource.
            Clause::Missing { .. }
            | Clause::Chain { .. }
            | Clause::Has { .. }
            | Clause::LastUpdated(_)
            | Clause::Not(_)
            | Clause::Compartment { .. } => false,
        }
    }
    // Of an identifier only the whole number: whether somebody has one of a programme or of a type is more than a banner
    // tells. Names, dates and the gender are shown as they are.
    fn tells_no_kind(test: &Test) -> bool {
        !matches!(test, Test::Token(TokenTest::System(_)) | Test::Text(_) | Test::OneOf(_))
    }
    let clauses = query.clauses.iter().all(|c| plain(c, &|no| named(no, BANNER_PARAMS)));
    // Sorting shows an order: by what the banner itself shows.
    let sorts = query.sort.iter().all(|key| match &key.by {
        SortBy::Param(no) => named(no, &["name", "family", "given", "birthdate", "gender"]),
        SortBy::Id => true,
        SortBy::LastUpdated => false,
    });
    clauses && sorts
}

struct Resumed {
    cursor: Cursor,
    params: Vec<(String, String)>,
}

/// The place of a search's next page: the cursor and the parameters, which may not stand in the link.
fn place(params: &[(String, String)], next: &Cursor) -> Vec<u8> {
    let cursor = next.to_bytes();
    let texts = params
        .iter()
        .flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
    let mut out = Vec::new();
    for piece in std::iter::once(cursor.as_slice()).chain(texts) {
        out.extend_from_slice(&(piece.len() as u32).to_le_bytes());
        out.extend_from_slice(piece);
    }
    out
}

fn paged<'a>(request: &SearchRequest<'a>) -> Paged<'a> {
    Paged {
        base: request.base,
        path: path(request),
        echo: "",
    }
}

fn path(request: &SearchRequest<'_>) -> String {
    match request.compartment {
        None => format!("/{}", request.resource_type),
        Some((owner, id)) => format!("/{owner}/{id}/{}", request.resource_type),
    }
}

/// `self` echoes the parameters as processed.
fn self_link(request: &SearchRequest<'_>, query: &Query) -> String {
    let mut url = format!("{}{}", request.base, path(request));
    for (i, (name, value)) in query.processed.iter().enumerate() {
        url.push(if i == 0 { '?' } else { '&' });
        crate::percent_encode(name, &mut url);
        url.push('=');
        crate::percent_encode(value, &mut url);
    }
    url
}

fn names(params: &[(String, String)]) -> String {
    let mut out = String::new();
    for (name, _) in params {
        if !out.is_empty() {
            out.push(',');
        }
        // A chain's names are vocabulary; anything else a client makes up is cut.
        out.extend(
            name.chars()
                .filter(|c| c.is_ascii_alphanumeric() || "_-.:".contains(*c))
                .take(64),
        );
    }
    out
}

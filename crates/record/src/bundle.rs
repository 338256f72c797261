//! batch and transaction: <https://hl7.org/fhir/R4/http.html#transaction>.
//!
//! A transaction is one change: deletions, creates, updates and patches are prepared together, references between
//! the entries resolved, and all of it committed or none. Reads and searches of it run after the commit. A batch is
//! the same entries, each on its own.

use crate::answer::{Answer, Refusal, part_2_issue};
use crate::change::{Guard, Write};
use crate::door::Door;
use crate::event::Access;
use crate::read::ReadOptions;
use crate::search::SearchRequest;
use crate::text::assemble;
use crate::write::{Intent, Return, Selector, parse_json};
use keepwell_model::actor::Context;
use keepwell_model::json::Value;
use keepwell_model::outcome::{Issue, operation_outcome};
use keepwell_model::reference::is_id;
use keepwell_model::schema::Mode;
use keepwell_model::types::ResourceType;
use keepwell_policy::Action;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// An entry's request, taken apart.
pub(crate) struct Entry<'v, 'a> {
    at: usize,
    full_url: Option<&'v str>,
    method: Method,
    resource_type: Option<ResourceType>,
    id: Option<String>,
    version: Option<u32>,
    history: bool,
    operation: Option<String>,
    params: Vec<(String, String)>,
    has_query: bool,
    if_match: Option<u32>,
    if_none_match: Option<u32>,
    if_none_exist: Option<Vec<(String, String)>>,
    resource: Option<&'v Value<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Method {
    Delete,
    Post,
    Put,
    Patch,
    Get,
}

/// What one entry became.
pub(crate) struct Outcome {
    /// A row was written.
    pub(crate) written: bool,
    status: u16,
    location: Option<String>,
    version: Option<u32>,
    last_updated: Option<keepwell_model::time::Timestamp>,
    resource: Vec<u8>,
    outcome: Option<Vec<Issue>>,
    part_2: bool,
}

impl Door {
    /// Processes a batch or transaction Bundle.
    ///
    /// # Errors
    /// 400 and above with the entry at fault; nothing of a transaction is stored then.
    pub async fn bundle(&self, ctx: &Context, body: &[u8], want: Return, base: &str) -> Result<Answer, Refusal> {
        self.authorize_system(ctx, Action::Transaction).await?;
        let refused = || Access::of(ctx, Action::Transaction);
        let parsed = parse_json(body).and_then(|v| match v.str("resourceType") {
            Some("Bundle") => Ok(v),
            _ => Err(Refusal::new(
                400,
                "invalid",
                "the base takes a Bundle of type batch or transaction",
            )),
        });
        let bundle = match parsed {
            Ok(b) => b,
            Err(e) => return Err(self.refuse(refused(), e).await),
        };
        let each = match self.each_entry(&bundle, base) {
            Ok(e) => e,
            Err(e) => return Err(self.refuse(refused(), e).await),
        };
        if bundle.str("type") == Some("batch") {
            let outcomes = self.batch(ctx, &each, want, base).await?;
            return Ok(processed("batch-response", &outcomes, base));
        }
        let entries = match each.into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(e) => e,
            Err(e) => return Err(self.refuse(refused(), e).await),
        };
        let (kind, outcomes) = match bundle.str("type") {
            Some("transaction") => (
                "transaction-response",
                self.transaction(ctx, &entries, want, base, false).await?,
            ),
            _ => {
                let e = Refusal::bad(vec![
                    Issue::error("value", "only Bundles of type batch and transaction are processed here")
                        .at("Bundle.type"),
                ]);
                return Err(self.refuse(refused(), e).await);
            }
        };
        Ok(processed(kind, &outcomes, base))
    }

    pub(crate) fn entries<'v, 'a>(&self, bundle: &'v Value<'a>, base: &str) -> Result<Vec<Entry<'v, 'a>>, Refusal> {
        self.each_entry(bundle, base)?.into_iter().collect()
    }

    /// The entries, each taken apart or refused for itself.
    fn each_entry<'v, 'a>(
        &self,
        bundle: &'v Value<'a>,
        base: &str,
    ) -> Result<Vec<Result<Entry<'v, 'a>, Refusal>>, Refusal> {
        let items = match bundle.get("entry") {
            None => &[],
            Some(v) => v
                .items()
                .ok_or_else(|| Refusal::bad(vec![Issue::error("structure", "entry is an array").at("Bundle.entry")]))?,
        };
        if items.len() > self.limits.bundle_max {
            return Err(Refusal::new(
                413,
                "too-long",
                "the Bundle has too many entries; send it in parts",
            ));
        }
        Ok(items
            .iter()
            .enumerate()
            .map(|(at, e)| Self::entry(at, e, base))
            .collect())
    }

    fn entry<'v, 'a>(at: usize, entry: &'v Value<'a>, base: &str) -> Result<Entry<'v, 'a>, Refusal> {
        let fail = |part: &str, text: &str| {
            Refusal::bad(vec![
                Issue::error("invalid", text).at(format!("Bundle.entry[{at}].{part}")),
            ])
        };
        let request = entry
            .get("request")
            .ok_or_else(|| fail("request", "an entry needs a request"))?;
        let method = match request.str("method") {
            Some("GET" | "HEAD") => Method::Get,
            Some("POST") => Method::Post,
            Some("PUT") => Method::Put,
            Some("PATCH") => Method::Patch,
            Some("DELETE") => Method::Delete,
            _ => {
                return Err(fail(
                    "request.method",
                    "the method is one of GET, POST, PUT, PATCH, DELETE",
                ));
            }
        };
        let url = request
            .str("url")
            .ok_or_else(|| fail("request.url", "an entry's request needs a url"))?;
        let url = url.strip_prefix(base).unwrap_or(url).trim_start_matches('/');
        let (path, query) = url.split_once('?').map_or((url, None), |(p, q)| (p, Some(q)));
        let mut parts = path.split('/').filter(|s| !s.is_empty());
        let mut out = Entry {
            at,
            full_url: entry.str("fullUrl"),
            method,
            resource_type: None,
            id: None,
            version: None,
            history: false,
            operation: None,
            params: query
                .map_or_else(|| Ok(Vec::new()), crate::parse_query)
                .map_err(|t| fail("request.url", t))?,
            has_query: query.is_some(),
            if_match: None,
            if_none_match: None,
            if_none_exist: None,
            resource: entry.get("resource"),
        };
        let bad_url = || {
            fail(
                "request.url",
                "the url names no resource type, id or operation of this server",
            )
        };
        match parts.next() {
            None => {}
            Some("_history") => out.history = true,
            Some(name) if name.starts_with('$') => out.operation = Some(name.to_owned()),
            Some(name) => {
                let unknown = || {
                    at_entry(
                        Refusal::new(404, "not-supported", "that is not a resource type of FHIR R4"),
                        at,
                    )
                };
                out.resource_type = Some(ResourceType::from_name(name).ok_or_else(unknown)?);
            }
        }
        for part in parts {
            match part {
                "_history" if !out.history => out.history = true,
                p if p.starts_with('$') && out.operation.is_none() => out.operation = Some(p.to_owned()),
                p if out.history && out.version.is_none() => {
                    out.version = Some(p.parse().map_err(|_| bad_url())?);
                }
                p if !out.history && out.id.is_none() && is_id(p) => out.id = Some(p.to_owned()),
                _ => return Err(bad_url()),
            }
        }
        let etag = |name: &str| match request.str(name) {
            None => Ok(None),
            Some(text) => crate::parse_etag(text)
                .map(Some)
                .ok_or_else(|| fail(&format!("request.{name}"), "an ETag is written W/\"version\"")),
        };
        out.if_match = etag("ifMatch")?;
        out.if_none_match = etag("ifNoneMatch")?;
        out.if_none_exist = match request.str("ifNoneExist") {
            None => None,
            Some(q) => {
                let q = q.split_once('?').map_or(q, |(_, q)| q);
                Some(crate::parse_query(q).map_err(|t| fail("request.ifNoneExist", t))?)
            }
        };
        Ok(out)
    }

    async fn batch(
        &self,
        ctx: &Context,
        entries: &[Result<Entry<'_, '_>, Refusal>],
        want: Return,
        base: &str,
    ) -> Result<Vec<Outcome>, Refusal> {
        let mut outcomes: Vec<Option<Outcome>> = Vec::with_capacity(entries.len());
        let mut order: Vec<&Entry<'_, '_>> = Vec::with_capacity(entries.len());
        for entry in entries {
            match entry {
                Ok(e) => {
                    order.push(e);
                    outcomes.push(None);
                }
                Err(e) => {
                    let refusal = self.refuse(Access::of(ctx, Action::Transaction), e.clone()).await;
                    outcomes.push(Some(Outcome::refused(refusal)));
                }
            }
        }
        order.sort_by_key(|e| e.method);
        for entry in order {
            let done = Box::pin(self.single(ctx, entry, want, base)).await;
            let outcome = match done {
                Ok(a) => Outcome::of(a),
                // A log that cannot be written stops everything.
                Err(e) if e.status == 503 => return Err(e),
                Err(e) => Outcome::refused(e),
            };
            if let Some(slot) = outcomes.get_mut(entry.at) {
                *slot = Some(outcome);
            }
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    /// One entry on its own.
    async fn single(&self, ctx: &Context, e: &Entry<'_, '_>, want: Return, base: &str) -> Result<Answer, Refusal> {
        let body = || e.resource.map(|r| r.to_string().into_bytes()).unwrap_or_default();
        let Some(t) = e.resource_type else {
            return match (e.method, e.history) {
                (Method::Get, true) => {
                    let options = crate::history::HistoryOptions::default();
                    self.history(ctx, crate::history::HistoryOf::System, &options, base)
                        .await
                }
                _ => Err(Refusal::new(
                    400,
                    "not-supported",
                    "the entry's url names no resource type",
                )),
            };
        };
        let selector = match &e.id {
            Some(id) => Selector::Id(id),
            None => Selector::Search(&e.params),
        };
        match e.method {
            Method::Get => self.get(ctx, e, t, base).await,
            Method::Post if e.operation.as_deref() == Some("$validate") => {
                self.validate(ctx, Some(t), e.id.as_deref(), &e.params, &body()).await
            }
            Method::Post if e.id.is_none() && e.operation.is_none() => {
                self.create(ctx, t, &body(), e.if_none_exist.as_deref(), want).await
            }
            Method::Put if e.operation.is_none() => self.update(ctx, t, &selector, &body(), e.if_match, want).await,
            Method::Patch if e.operation.is_none() => {
                let operations = patch_body(e.resource)?;
                self.patch(ctx, t, &selector, operations.as_bytes(), e.if_match, want)
                    .await
            }
            Method::Delete if e.operation.is_none() => self.delete(ctx, t, &selector, e.if_match).await,
            _ => Err(Refusal::new(
                400,
                "not-supported",
                "the entry's method and url do not go together",
            )),
        }
    }

    async fn get(&self, ctx: &Context, e: &Entry<'_, '_>, t: ResourceType, base: &str) -> Result<Answer, Refusal> {
        match (&e.id, e.history, e.operation.as_deref()) {
            (Some(id), false, Some("$everything")) if t == crate::patient_type() => {
                let options = crate::everything::EverythingOptions::default();
                self.everything(ctx, id, &options, base).await
            }
            (_, _, Some(_)) => Err(Refusal::new(
                400,
                "not-supported",
                "that operation is not offered in a Bundle",
            )),
            (Some(id), true, None) if e.version.is_none() => {
                let options = crate::history::HistoryOptions::default();
                self.history(ctx, crate::history::HistoryOf::Instance(t, id), &options, base)
                    .await
            }
            (None, true, None) => {
                let options = crate::history::HistoryOptions::default();
                self.history(ctx, crate::history::HistoryOf::Type(t), &options, base)
                    .await
            }
            (Some(id), _, None) => {
                let options = ReadOptions {
                    version: e.version,
                    if_none_match: e.if_none_match,
                    ..ReadOptions::default()
                };
                self.read(ctx, t, id, &options).await
            }
            (None, false, None) => {
                let request = SearchRequest {
                    resource_type: t,
                    compartment: None,
                    params: &e.params,
                    lenient: false,
                    base,
                };
                self.search(ctx, &request).await
            }
        }
    }

    /// Commits the entries as one change. With `skip_equal`, entries that would change nothing, or repeat another entry
    /// of the same resource, are left out (import).
    pub(crate) async fn transaction(
        &self,
        ctx: &Context,
        entries: &[Entry<'_, '_>],
        want: Return,
        base: &str,
        skip_equal: bool,
    ) -> Result<Vec<Outcome>, Refusal> {
        let action = if skip_equal {
            Action::Import
        } else {
            Action::Transaction
        };
        let mut outcomes: Vec<Option<Outcome>> = entries.iter().map(|_| None).collect();
        let mut tries = 0;
        loop {
            tries += 1;
            if tries > crate::door::TRIES {
                return Err(Refusal::new(
                    409,
                    "conflict",
                    "too many others change the same resources; try again",
                ));
            }
            let prepared = match self.prepare_transaction(ctx, entries, skip_equal) {
                Ok(p) => p,
                Err(refusal) => return Err(self.refuse(Access::of(ctx, action), refusal).await),
            };
            let mut writes = Vec::new();
            let mut texts = Vec::new();
            for (at, write, text) in prepared.writes {
                writes.push(write);
                texts.push((at, text));
            }
            if !writes.is_empty() || !prepared.guards.is_empty() {
                let mut change = Self::change(ctx, action, prepared.guards, writes);
                change.access.resource_type = None;
                let Some(written) = self.commit_once(change).await? else {
                    continue;
                };
                for ((at, text), w) in texts.iter().zip(written) {
                    let deleted = entries.get(*at).is_some_and(|e| e.method == Method::Delete);
                    let mut resource = Vec::new();
                    if want == Return::Representation && !deleted {
                        assemble(
                            w.resource_type,
                            &w.id,
                            w.version,
                            w.last_updated,
                            text.as_bytes(),
                            &mut resource,
                        );
                    }
                    let status = match (deleted, w.created) {
                        (true, _) => 204,
                        (false, true) => 201,
                        (false, false) => 200,
                    };
                    if let Some(slot) = outcomes.get_mut(*at) {
                        *slot = Some(Outcome {
                            written: w.changed,
                            status,
                            location: (!deleted)
                                .then(|| format!("{}/{}/_history/{}", w.resource_type, w.id, w.version)),
                            version: w.changed.then_some(w.version),
                            last_updated: w.changed.then_some(w.last_updated),
                            resource,
                            outcome: None,
                            part_2: false,
                        });
                    }
                }
            }
            for (at, t, id) in prepared.existing {
                let mut answer = self.read(ctx, t, &id, &ReadOptions::default()).await?;
                answer.location = answer.version.map(|v| format!("{t}/{id}/_history/{v}"));
                if want != Return::Representation {
                    answer.body.clear();
                    answer.part_2 = false;
                }
                if let Some(slot) = outcomes.get_mut(at) {
                    *slot = Some(Outcome::of(answer));
                }
            }
            break;
        }
        for e in entries.iter().filter(|e| e.method == Method::Get) {
            let Some(t) = e.resource_type else { continue };
            let outcome = match Box::pin(self.get(ctx, e, t, base)).await {
                Ok(a) => Outcome::of(a),
                Err(e) if e.status == 503 => return Err(e),
                Err(e) => Outcome::refused(e),
            };
            if let Some(slot) = outcomes.get_mut(e.at) {
                *slot = Some(outcome);
            }
        }
        Ok(outcomes
            .into_iter()
            .map(|o| {
                o.unwrap_or(Outcome {
                    written: false,
                    status: 204,
                    location: None,
                    version: None,
                    last_updated: None,
                    resource: Vec::new(),
                    outcome: None,
                    part_2: false,
                })
            })
            .collect())
    }

    /// Resolves ids and references and plans all writes on the state of now.
    fn prepare_transaction(
        &self,
        ctx: &Context,
        entries: &[Entry<'_, '_>],
        skip_equal: bool,
    ) -> Result<Prepared, Refusal> {
        let mut out = Prepared {
            guards: Vec::new(),
            writes: Vec::new(),
            existing: Vec::new(),
        };
        let mut places: HashMap<&str, String> = HashMap::new();
        let mut targets: Vec<Option<(ResourceType, String)>> = Vec::with_capacity(entries.len());
        let mut taken: HashSet<(ResourceType, String)> = HashSet::new();
        // What the transaction deletes is gone before its conditional creates look (processing order).
        let deleted: HashSet<(ResourceType, &str)> = entries
            .iter()
            .filter(|e| e.method == Method::Delete)
            .filter_map(|e| Some((e.resource_type?, e.id.as_deref()?)))
            .collect();
        for e in entries {
            let at = |r: Refusal| at_entry(r, e.at);
            if let (Method::Get, Some(t), None, None) = (e.method, e.resource_type, &e.id, &e.operation)
                && !e.history
            {
                // A search that cannot be answered refuses the whole before anything is written.
                self.parse(t, &e.params, false).map_err(at)?;
            }
            let target = self.target(ctx, e, &deleted, &mut out).map_err(at)?;
            if let Some((t, id)) = &target {
                if e.method != Method::Get
                    && !out.existing.iter().any(|(i, ..)| *i == e.at)
                    && !taken.insert((*t, id.clone()))
                {
                    if skip_equal {
                        if let Some(url) = e.full_url {
                            places.insert(url, format!("{t}/{id}"));
                        }
                        targets.push(None);
                        continue;
                    }
                    return Err(at(Refusal::new(
                        400,
                        "duplicate",
                        "two entries of a transaction act on one resource",
                    )));
                }
                if let (Some(url), Method::Post | Method::Put) = (e.full_url, e.method)
                    && places
                        .insert(url, format!("{t}/{id}"))
                        .is_some_and(|before| before != format!("{t}/{id}"))
                {
                    return Err(at(Refusal::new(400, "duplicate", "two entries have the same fullUrl")));
                }
            }
            targets.push(target);
        }
        let mut order: Vec<&Entry<'_, '_>> = entries.iter().filter(|e| e.method != Method::Get).collect();
        order.sort_by_key(|e| e.method);
        let mut conditional: HashMap<String, String> = HashMap::new();
        for e in order {
            let at = |r: Refusal| at_entry(r, e.at);
            if out.existing.iter().any(|(i, ..)| *i == e.at) {
                continue;
            }
            let Some(Some((t, id))) = targets.get(e.at) else {
                continue;
            };
            let (t, id) = (*t, id.as_str());
            let (write, text) = match e.method {
                Method::Delete => match self.plan_delete(ctx, t, id, e.if_match).map_err(at)? {
                    Some(write) => (write, String::new()),
                    None => continue,
                },
                Method::Patch => {
                    let operations = patch_body(e.resource).map_err(at)?;
                    let operations = parse_json(operations.as_bytes()).map_err(at)?;
                    let value = self.patched(ctx, t, id, &operations).map_err(at)?;
                    Self::check(&value, Mode::Update).map_err(at)?;
                    self.plan(ctx, t, id, &Intent::Patch(&value), e.if_match).map_err(at)?
                }
                Method::Post | Method::Put => {
                    let given = e.resource.ok_or_else(|| {
                        at(Refusal::bad(vec![
                            Issue::error("required", "the entry needs a resource").at("resource"),
                        ]))
                    })?;
                    if given.str("resourceType") != Some(t.name()) {
                        return Err(at(Refusal::new(
                            400,
                            "invalid",
                            "the resource is not of the type in the url",
                        )));
                    }
                    let mut value = given.clone();
                    self.resolve_references(ctx, &mut value, &places, &mut conditional)
                        .map_err(at)?;
                    if e.method == Method::Put && value.get("id").is_none() {
                        value.set("id", Value::String(Cow::Owned(id.to_owned())));
                    }
                    if skip_equal && self.is_unchanged(t, id, &value) {
                        continue;
                    }
                    let mode = if e.method == Method::Post {
                        Mode::Create
                    } else {
                        Mode::Update
                    };
                    Self::check(&value, mode).map_err(at)?;
                    let intent = if e.method == Method::Post {
                        Intent::Create(&value)
                    } else {
                        Intent::Update(&value)
                    };
                    self.plan(ctx, t, id, &intent, e.if_match).map_err(at)?
                }
                Method::Get => continue,
            };
            out.writes.push((e.at, write, text));
        }
        Ok(out)
    }

    /// The resource an entry acts on.
    fn target(
        &self,
        ctx: &Context,
        e: &Entry<'_, '_>,
        deleted: &HashSet<(ResourceType, &str)>,
        out: &mut Prepared,
    ) -> Result<Option<(ResourceType, String)>, Refusal> {
        if e.method == Method::Get {
            return Ok(None);
        }
        let t = e
            .resource_type
            .ok_or_else(|| Refusal::new(400, "invalid", "the url names no resource type"))?;
        if e.operation.is_some() || e.history {
            return Err(Refusal::new(400, "not-supported", "a transaction takes no operations"));
        }
        let body_id = e.resource.and_then(|r| r.str("id"));
        match e.method {
            Method::Post => {
                if e.id.is_some() {
                    return Err(Refusal::new(
                        400,
                        "invalid",
                        "a create is posted to the type, without an id",
                    ));
                }
                if let Some(q) = &e.if_none_exist {
                    let query = self.strict_query(t, q)?;
                    let (found, guard) = self.resolve(ctx, &query)?;
                    out.guards.push(guard);
                    if let Some(id) = found.filter(|id| !deleted.contains(&(t, id.as_str()))) {
                        out.existing.push((e.at, t, id.clone()));
                        return Ok(Some((t, id)));
                    }
                }
                Ok(Some((t, self.new_id()?)))
            }
            Method::Put | Method::Patch | Method::Delete => match &e.id {
                Some(id) => {
                    if e.method == Method::Put && body_id != Some(id) {
                        return Err(Refusal::new(400, "value", "the resource's id is not the id in the url"));
                    }
                    Ok(Some((t, id.clone())))
                }
                None if e.has_query => {
                    let query = self.strict_query(t, &e.params)?;
                    let (found, guard) = self.resolve(ctx, &query)?;
                    out.guards.push(guard);
                    match (found, e.method) {
                        (Some(id), _) => Ok(Some((t, id))),
                        (None, Method::Put) => Ok(Some((
                            t,
                            match body_id {
                                Some(id) if is_id(id) => id.to_owned(),
                                _ => self.new_id()?,
                            },
                        ))),
                        (None, Method::Delete) => Ok(None),
                        (None, _) => Err(Refusal::not_found()),
                    }
                }
                None => Err(Refusal::new(
                    400,
                    "invalid",
                    "the url names neither an id nor a condition",
                )),
            },
            Method::Get => Ok(None),
        }
    }

    /// Puts the ids the entries got in place of their fullUrls, and resolves conditional references.
    fn resolve_references<'a>(
        &self,
        ctx: &Context,
        value: &mut Value<'a>,
        places: &HashMap<&str, String>,
        conditional: &mut HashMap<String, String>,
    ) -> Result<(), Refusal> {
        match value {
            Value::Array(items) => {
                for item in items {
                    self.resolve_references(ctx, item, places, conditional)?;
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    let Value::String(text) = member else {
                        self.resolve_references(ctx, member, places, conditional)?;
                        continue;
                    };
                    // Identifier.value is a string that may look like a urn and is none of a Bundle's business.
                    if (name == "reference" || text.starts_with("urn:") && name != "value")
                        && let Some(place) = places.get(text.as_ref())
                    {
                        *text = Cow::Owned(place.clone());
                        continue;
                    }
                    if name == "div" && text.contains("urn:") {
                        let mut div = text.to_string();
                        for (url, place) in places.iter().filter(|(u, _)| u.starts_with("urn:")) {
                            for quote in ['"', '\''] {
                                div = div.replace(&format!("{quote}{url}{quote}"), &format!("{quote}{place}{quote}"));
                            }
                        }
                        *text = Cow::Owned(div);
                    }
                    if name == "reference"
                        && let Some((t, query)) = text.split_once('?')
                    {
                        let place = match conditional.get(text.as_ref()) {
                            Some(p) => p.clone(),
                            None => {
                                let place = self.conditional_reference(ctx, t, query)?;
                                conditional.insert(text.to_string(), place.clone());
                                place
                            }
                        };
                        *text = Cow::Owned(place);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn conditional_reference(&self, ctx: &Context, t: &str, query: &str) -> Result<String, Refusal> {
        let t = ResourceType::from_name(t)
            .ok_or_else(|| Refusal::new(400, "value", "a conditional reference names no resource type"))?;
        let params = crate::parse_query(query).map_err(|text| Refusal::new(400, "value", text))?;
        let query = self.strict_query(t, &params)?;
        match self.resolve(ctx, &query)?.0 {
            Some(id) => Ok(format!("{t}/{id}")),
            None => Err(Refusal::new(
                412,
                "not-found",
                format!("a conditional reference to {t} finds no resource"),
            )),
        }
    }
}

struct Prepared {
    guards: Vec<Guard>,
    writes: Vec<(usize, Write, String)>,
    existing: Vec<(usize, ResourceType, String)>,
}

/// A JSON Patch travels in a Bundle as a Binary (R4 http.html#patch).
fn patch_body(resource: Option<&Value<'_>>) -> Result<String, Refusal> {
    let bad = || {
        Refusal::new(
            400,
            "invalid",
            "a patch in a Bundle is a Binary with contentType application/json-patch+json",
        )
    };
    let binary = resource
        .filter(|r| r.str("resourceType") == Some("Binary"))
        .ok_or_else(bad)?;
    if binary.str("contentType") != Some("application/json-patch+json") {
        return Err(bad());
    }
    let data = binary.str("data").and_then(crate::from_base64).ok_or_else(bad)?;
    String::from_utf8(data).map_err(|_| bad())
}

fn at_entry(mut refusal: Refusal, at: usize) -> Refusal {
    for issue in &mut refusal.issues {
        let place = format!("Bundle.entry[{at}]");
        issue.expression = Some(match &issue.expression {
            Some(e) if e.starts_with("Bundle.") => e.clone(),
            Some(e) => match e.split_once('.') {
                Some((_, rest)) => format!("{place}.resource.{rest}"),
                None => format!("{place}.resource"),
            },
            None => place,
        });
    }
    refusal
}

impl Outcome {
    fn refused(e: Refusal) -> Self {
        Self {
            written: false,
            status: e.status,
            location: None,
            version: None,
            last_updated: None,
            resource: Vec::new(),
            outcome: Some(e.issues),
            part_2: false,
        }
    }

    fn of(a: Answer) -> Self {
        Self {
            written: false,
            status: a.status,
            location: a.location,
            version: a.version,
            last_updated: a.last_updated,
            resource: a.body,
            // The standard place for what is to be said about one entry's answer.
            outcome: a.part_2.then(|| vec![part_2_issue()]),
            part_2: a.part_2,
        }
    }
}

fn processed(kind: &str, outcomes: &[Outcome], base: &str) -> Answer {
    Answer {
        status: 200,
        body: response(kind, outcomes, base),
        part_2: outcomes.iter().any(|o| o.part_2),
        ..Answer::default()
    }
}

fn response(kind: &str, outcomes: &[Outcome], base: &str) -> Vec<u8> {
    let size: usize = outcomes.iter().map(|o| o.resource.len() + 200).sum();
    let mut out = Vec::with_capacity(size + 100);
    out.extend_from_slice(format!("{{\"resourceType\":\"Bundle\",\"type\":\"{kind}\",\"entry\":[").as_bytes());
    for (i, o) in outcomes.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.push(b'{');
        if let Some(l) = &o.location
            && let Some((place, _)) = l.split_once("/_history/")
        {
            out.extend_from_slice(format!("\"fullUrl\":\"{base}/{place}\",").as_bytes());
        }
        if !o.resource.is_empty() {
            out.extend_from_slice(b"\"resource\":");
            out.extend_from_slice(&o.resource);
            out.push(b',');
        }
        let mut r = format!("\"response\":{{\"status\":\"{} {}\"", o.status, reason(o.status));
        if let Some(l) = &o.location {
            r.push_str(&format!(",\"location\":\"{base}/{l}\""));
        }
        if let Some(v) = o.version {
            r.push_str(&format!(",\"etag\":\"W/\\\"{v}\\\"\""));
        }
        if let Some(at) = o.last_updated {
            r.push_str(&format!(",\"lastModified\":\"{at}\""));
        }
        if let Some(issues) = &o.outcome {
            r.push_str(&format!(",\"outcome\":{}", operation_outcome(issues)));
        }
        r.push_str("}}");
        out.extend_from_slice(r.as_bytes());
    }
    out.extend_from_slice(b"]}");
    if outcomes.is_empty() {
        return format!("{{\"resourceType\":\"Bundle\",\"type\":\"{kind}\"}}").into_bytes();
    }
    out
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        410 => "Gone",
        412 => "Precondition Failed",
        422 => "Unprocessable Entity",
        _ => "Error",
    }
}

//! create, update, patch, delete, and their conditional forms: <https://hl7.org/fhir/R4/http.html#create> and below.

use crate::answer::{Answer, Refusal};
use crate::change::{Change, Guard, Prepared, Verb, Write, Written};
use crate::door::Door;
use crate::event::Access;
use crate::follower::labels_of;
use crate::text::{assemble, stored};
use keepwell_ledger::Body;
use keepwell_model::actor::Context;
use keepwell_model::home::{self, Home};
use keepwell_model::json::{self, Value};
use keepwell_model::outcome::{Issue, Severity, operation_outcome};
use keepwell_model::patch;
use keepwell_model::reference::is_id;
use keepwell_model::schema::{self, Mode};
use keepwell_model::types::ResourceType;
use keepwell_policy::{Action, Target};
use keepwell_search::extract::extract;
use keepwell_search::index::{Limits, RowKind, Version};
use keepwell_search::query::Query;
use std::sync::Arc;

/// What the answer to a write carries (`Prefer: return=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Return {
    /// The resource.
    #[default]
    Representation,
    /// Headers only.
    Minimal,
    /// An OperationOutcome.
    Outcome,
}

/// What a write acts on.
#[derive(Clone, Debug)]
pub enum Selector<'a> {
    /// `Type/id`
    Id(&'a str),
    /// `Type?search`: must find none or one.
    Search(&'a [(String, String)]),
}

/// What becomes of a resource.
pub(crate) enum Intent<'v, 'a> {
    /// A new one under an id the server chose.
    Create(&'v Value<'a>),
    /// A new version, or a new one under a client's id.
    Update(&'v Value<'a>),
    /// The result of a patch.
    Patch(&'v Value<'a>),
    /// A deletion.
    Delete,
}

impl Intent<'_, '_> {
    fn action(&self) -> Action {
        match self {
            Intent::Create(_) => Action::Create,
            Intent::Update(_) => Action::Update,
            Intent::Patch(_) => Action::Patch,
            Intent::Delete => Action::Delete,
        }
    }
}

/// Parses a body as one resource of type `t`.
pub(crate) fn parse_resource<'a>(t: ResourceType, body: &'a [u8]) -> Result<Value<'a>, Refusal> {
    let value = parse_json(body)?;
    match value.str("resourceType") {
        Some(name) if name == t.name() => Ok(value),
        Some(_) => Err(Refusal::bad(vec![Issue::error(
            "invalid",
            format!("the body's resourceType is not {t}, the type in the URL"),
        )])),
        None => Err(Refusal::bad(vec![Issue::error(
            "structure",
            "the body has no resourceType",
        )])),
    }
}

/// Parses a body as JSON.
pub(crate) fn parse_json(body: &[u8]) -> Result<Value<'_>, Refusal> {
    let text = std::str::from_utf8(body).map_err(|e| {
        Refusal::new(
            400,
            "structure",
            format!("the body is not UTF-8 at byte {}", e.valid_up_to()),
        )
    })?;
    json::parse(text).map_err(|e| Refusal::new(400, "structure", format!("the body is not JSON: {e}")))
}

impl Door {
    /// Refuses what the base definitions do not allow.
    pub(crate) fn check(value: &Value<'_>, mode: Mode) -> Result<(), Refusal> {
        let mut issues = schema::validate(value, mode);
        issues.retain(|i| i.severity >= Severity::Error);
        if issues.is_empty() {
            Ok(())
        } else {
            Err(Refusal { status: 422, issues }.structural())
        }
    }

    /// One write, authorised against the home it has and the home it gets.
    pub(crate) fn plan(
        &self,
        ctx: &Context,
        t: ResourceType,
        id: &str,
        intent: &Intent<'_, '_>,
        if_match: Option<u32>,
    ) -> Result<(Write, String), Refusal> {
        let action = intent.action();
        let head = self.records.index.read().head(t, id, u64::MAX);
        if let Some(h) = &head {
            self.may_touch(ctx, action, t, h)?;
        }
        let value = match intent {
            Intent::Create(v) | Intent::Update(v) | Intent::Patch(v) => Some(*v),
            Intent::Delete => None,
        };
        let mut text = String::new();
        let prepared = match value {
            None => None,
            Some(v) => {
                if t.name() == "Patient" && head.is_none() && looks_like_an_identifier(id) {
                    return Err(Refusal::new(
                        422,
                        "business-rule",
                        "a Patient id of digits only could be a social security or record number, and ids outlive an \
                         erasure; use a UUID",
                    ));
                }
                // The id may be the server's and not in the body yet; only a Patient's home depends on it.
                let home = if t == crate::patient_type() {
                    Home::Patient(id.to_owned())
                } else {
                    home::home(t, v, &self.records.base)
                };
                let labels = labels_of(v);
                let relation = Self::relation_to(&ctx.actor, &home);
                let mut actions = vec![action];
                if head.as_ref().is_none_or(|h| h.kind != RowKind::Version) && action == Action::Update {
                    actions.push(Action::Create);
                }
                for a in actions {
                    let d = self.decide(ctx, a, Target::Type(t), relation, labels);
                    if !d.permit {
                        return Err(Refusal::forbidden(&d.reason));
                    }
                }
                text = stored(v);
                Some(Prepared {
                    body: Body::compress(text.as_bytes()),
                    home,
                    labels: labels.0,
                    extracted: extract(t, v, &self.records.base).into_owned(),
                })
            }
        };
        let write = Write {
            resource_type: t,
            id: id.to_owned(),
            verb: if prepared.is_some() { Verb::Put } else { Verb::Delete },
            seen: head.map(|h| h.version),
            if_match,
            prepared,
            place: None,
            left: None,
        };
        Ok((write, text))
    }

    /// The write of a deletion. `None` where there is something the actor may not know of: deleting what is not there is
    /// no error, and what is not theirs is not there.
    pub(crate) fn plan_delete(
        &self,
        ctx: &Context,
        t: ResourceType,
        id: &str,
        if_match: Option<u32>,
    ) -> Result<Option<Write>, Refusal> {
        match self.plan(ctx, t, id, &Intent::Delete, if_match) {
            Ok((write, _)) => Ok(Some(write)),
            Err(e) if e.status == 404 && if_match.is_none() => Ok(None),
            Err(e) if e.status == 404 => Err(Refusal::other_version()),
            Err(e) => Err(e),
        }
    }

    /// An existing resource the actor may not even see does not exist for them; one they may see but not change is
    /// refused as such.
    fn may_touch(&self, ctx: &Context, action: Action, t: ResourceType, head: &Version) -> Result<(), Refusal> {
        let d = self.decide_row(ctx, action, t, head);
        if d.permit {
            return Ok(());
        }
        if head.kind == RowKind::Version && self.decide_row(ctx, Action::Read, t, head).permit {
            return Err(Refusal::forbidden(&d.reason));
        }
        Err(Refusal::not_found())
    }

    pub(crate) fn change(ctx: &Context, action: Action, guards: Vec<Guard>, writes: Vec<Write>) -> Change {
        let mut access = Access::of(ctx, action);
        if let [one] = writes.as_slice() {
            access.resource_type = Some(one.resource_type);
        }
        Change {
            guards,
            writes,
            own: None,
            access,
            decided: Vec::new(),
        }
    }

    /// Resolves a conditional selector: the ids found (none or one) and the guard that keeps it so.
    pub(crate) fn resolve(&self, ctx: &Context, query: &Query) -> Result<(Option<String>, Guard), Refusal> {
        let permit = Arc::new(self.permit(ctx, Action::Search));
        let index = self.records.index.read();
        let page = index.search(
            query,
            u64::MAX,
            &permit.predicate(),
            None,
            Limits { page: 2, includes: 0 },
        );
        let mut found: Vec<String> = page
            .matches
            .iter()
            .filter_map(|h| index.id_of(h.resource_type, h.rid))
            .collect();
        drop(index);
        if found.len() > 1 {
            return Err(Refusal::new(
                412,
                "multiple-matches",
                "the condition finds more than one resource; make it more specific",
            ));
        }
        let guard = Guard {
            query: query.clone(),
            permit,
            found: found.clone(),
        };
        Ok((found.pop(), guard))
    }

    /// Creates a resource under a new id; with `if_none_exist`, only when that search finds nothing.
    ///
    /// # Errors
    /// 400 or 422 with the faults, 403, 412 where several match, 503.
    pub async fn create(
        &self,
        ctx: &Context,
        t: ResourceType,
        body: &[u8],
        if_none_exist: Option<&[(String, String)]>,
        want: Return,
    ) -> Result<Answer, Refusal> {
        self.gate_type(ctx, Action::Create, t).await?;
        let access = || {
            let mut a = Access::of(ctx, Action::Create);
            a.resource_type = Some(t);
            a
        };
        let checked = parse_resource(t, body).and_then(|v| Self::check(&v, Mode::Create).map(|()| v));
        let value = match checked {
            Ok(v) => v,
            Err(e) => return Err(self.refuse(access(), e).await),
        };
        let query = match if_none_exist.map(|q| self.strict_query(t, q)).transpose() {
            Ok(q) => q,
            Err(e) => return Err(self.refuse(access(), e).await),
        };
        for _ in 0..crate::door::TRIES {
            let mut guards = Vec::new();
            if let Some(query) = &query {
                match self.resolve(ctx, query) {
                    Ok((Some(id), _)) => {
                        let options = crate::read::ReadOptions::default();
                        let mut answer = self.read(ctx, t, &id, &options).await?;
                        answer.location = answer.version.map(|v| format!("{t}/{id}/_history/{v}"));
                        return Ok(shape(answer, want));
                    }
                    Ok((None, guard)) => guards.push(guard),
                    Err(e) => return Err(self.refuse(access(), e).await),
                }
            }
            let id = self.new_id()?;
            let (write, text) = match self.plan(ctx, t, &id, &Intent::Create(&value), None) {
                Ok(w) => w,
                Err(e) => return Err(self.refuse(access(), e).await),
            };
            let change = Self::change(ctx, Action::Create, guards, vec![write]);
            if let Some(written) = self.commit_once(change).await? {
                return Ok(Self::written(&written, &text, want));
            }
        }
        Err(Refusal::new(
            409,
            "conflict",
            "too many others create the same resource; try again",
        ))
    }

    /// Updates a resource, or creates it under the client's id.
    ///
    /// # Errors
    /// As [`Door::create`]; 412 where `if_match` names another version.
    pub async fn update(
        &self,
        ctx: &Context,
        t: ResourceType,
        selector: &Selector<'_>,
        body: &[u8],
        if_match: Option<u32>,
        want: Return,
    ) -> Result<Answer, Refusal> {
        self.gate_type(ctx, Action::Update, t).await?;
        let parsed = parse_resource(t, body);
        self.put(ctx, t, selector, if_match, want, Action::Update, || {
            let value = parsed.clone()?;
            Ok((value, false))
        })
        .await
    }

    /// Patches a resource by JSON Patch (RFC 6902).
    ///
    /// # Errors
    /// As [`Door::update`]; 404 where there is nothing to patch; 422 where the patch does not apply.
    pub async fn patch(
        &self,
        ctx: &Context,
        t: ResourceType,
        selector: &Selector<'_>,
        body: &[u8],
        if_match: Option<u32>,
        want: Return,
    ) -> Result<Answer, Refusal> {
        self.gate_type(ctx, Action::Patch, t).await?;
        let operations = parse_json(body);
        self.put(ctx, t, selector, if_match, want, Action::Patch, || {
            Ok((operations.clone()?, true))
        })
        .await
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the parts of one HTTP request; a struct would only rename them"
    )]
    async fn put<'a>(
        &self,
        ctx: &Context,
        t: ResourceType,
        selector: &Selector<'_>,
        if_match: Option<u32>,
        want: Return,
        action: Action,
        given: impl Fn() -> Result<(Value<'a>, bool), Refusal> + Send,
    ) -> Result<Answer, Refusal> {
        for _ in 0..crate::door::TRIES {
            let (change, text) = match self.prepare_put(ctx, t, selector, if_match, action, &given) {
                Ok(c) => c,
                Err(refusal) => {
                    let mut access = Access::of(ctx, action);
                    access.resource_type = Some(t);
                    return Err(self.refuse(access, refusal).await);
                }
            };
            if let Some(written) = self.commit_once(change).await? {
                return Ok(Self::written(&written, &text, want));
            }
        }
        Err(Refusal::new(
            409,
            "conflict",
            "too many others change the same resource; try again",
        ))
    }

    fn prepare_put<'a>(
        &self,
        ctx: &Context,
        t: ResourceType,
        selector: &Selector<'_>,
        if_match: Option<u32>,
        action: Action,
        given: &(impl Fn() -> Result<(Value<'a>, bool), Refusal> + Send),
    ) -> Result<(Change, String), Refusal> {
        let (given, is_patch) = given()?;
        let mut guards = Vec::new();
        let id = match selector {
            Selector::Id(id) => (*id).to_owned(),
            Selector::Search(q) => {
                let query = self.strict_query(t, q)?;
                let (found, guard) = self.resolve(ctx, &query)?;
                guards.push(guard);
                match found {
                    Some(id) => {
                        if !is_patch && given.str("id").is_some_and(|b| b != id) {
                            return Err(Refusal::new(
                                400,
                                "value",
                                "the body's id is not that of the resource found",
                            ));
                        }
                        id
                    }
                    None if is_patch => return Err(Refusal::not_found()),
                    None => match given.str("id") {
                        Some(id) => id.to_owned(),
                        None => self.new_id()?,
                    },
                }
            }
        };
        let mut value = if is_patch {
            self.patched(ctx, t, &id, &given)?
        } else {
            given
        };
        if matches!(selector, Selector::Search(_)) && value.get("id").is_none() {
            value.set("id", Value::from(id.clone()));
        }
        match value.str("id") {
            Some(body_id) if body_id == id => {}
            Some(_) => {
                return Err(Refusal::bad(vec![
                    Issue::error("value", "the body's id is not the id in the URL").at(format!("{t}.id")),
                ]));
            }
            None => {
                return Err(Refusal::bad(vec![
                    Issue::error("required", "an update needs the resource's id in its body").at(format!("{t}.id")),
                ]));
            }
        }
        if !is_id(&id) {
            return Err(Refusal::new(
                400,
                "value",
                "an id has 1 to 64 letters, digits, '-' or '.'",
            ));
        }
        Self::check(&value, Mode::Update)?;
        let intent = if is_patch {
            Intent::Patch(&value)
        } else {
            Intent::Update(&value)
        };
        let (write, text) = self.plan(ctx, t, &id, &intent, if_match)?;
        Ok((Self::change(ctx, action, guards, vec![write]), text))
    }

    /// The current version of a resource with a patch applied.
    pub(crate) fn patched(
        &self,
        ctx: &Context,
        t: ResourceType,
        id: &str,
        operations: &Value<'_>,
    ) -> Result<Value<'static>, Refusal> {
        let head = self
            .records
            .index
            .read()
            .head(t, id, u64::MAX)
            .filter(|h| h.kind == RowKind::Version);
        let head = head.ok_or_else(Refusal::not_found)?;
        self.may_touch(ctx, Action::Patch, t, &head)?;
        let opened = self.open(head.rid)?;
        let mut full = Vec::new();
        assemble(
            t,
            id,
            head.version,
            keepwell_model::time::Timestamp(head.last_updated),
            &opened.text,
            &mut full,
        );
        let mut value = parse_json(&full)?.into_owned();
        patch::apply(&mut value, operations)
            .map_err(|e| Refusal::new(422, "processing", format!("the patch does not apply: {e}")))?;
        if value.str("resourceType") != Some(t.name()) {
            return Err(Refusal::new(
                422,
                "processing",
                "a patch cannot change the resourceType",
            ));
        }
        Ok(value)
    }

    /// Deletes a resource; deleting what is not there is no error.
    ///
    /// # Errors
    /// 403, 412, 503.
    pub async fn delete(
        &self,
        ctx: &Context,
        t: ResourceType,
        selector: &Selector<'_>,
        if_match: Option<u32>,
    ) -> Result<Answer, Refusal> {
        self.gate_type(ctx, Action::Delete, t).await?;
        for _ in 0..crate::door::TRIES {
            let change = match self.prepare_delete(ctx, t, selector, if_match) {
                Ok(c) => c,
                Err(refusal) => {
                    let mut access = Access::of(ctx, Action::Delete);
                    access.resource_type = Some(t);
                    return Err(self.refuse(access, refusal).await);
                }
            };
            if let Some(written) = self.commit_once(change).await? {
                let version = written.first().filter(|w| w.changed).map(|w| w.version);
                return Ok(Answer {
                    status: 204,
                    version,
                    ..Answer::default()
                });
            }
        }
        Err(Refusal::new(
            409,
            "conflict",
            "too many others change the same resource; try again",
        ))
    }

    fn prepare_delete(
        &self,
        ctx: &Context,
        t: ResourceType,
        selector: &Selector<'_>,
        if_match: Option<u32>,
    ) -> Result<Change, Refusal> {
        let mut guards = Vec::new();
        let id = match selector {
            Selector::Id(id) => Some((*id).to_owned()),
            Selector::Search(q) => {
                let query = self.strict_query(t, q)?;
                let (found, guard) = self.resolve(ctx, &query)?;
                guards.push(guard);
                found
            }
        };
        let writes = match id {
            None => Vec::new(),
            Some(id) => self.plan_delete(ctx, t, &id, if_match)?.into_iter().collect(),
        };
        let mut change = Self::change(ctx, Action::Delete, guards, writes);
        change.access.resource_type = Some(t);
        Ok(change)
    }

    /// The answer to one write.
    pub(crate) fn written(written: &[Written], text: &str, want: Return) -> Answer {
        let Some(w) = written.first() else {
            return Answer::default();
        };
        let mut body = Vec::new();
        if want == Return::Representation {
            assemble(
                w.resource_type,
                &w.id,
                w.version,
                w.last_updated,
                text.as_bytes(),
                &mut body,
            );
        }
        let answer = Answer {
            status: if w.created { 201 } else { 200 },
            body,
            version: Some(w.version),
            last_updated: Some(w.last_updated),
            location: Some(format!("{}/{}/_history/{}", w.resource_type, w.id, w.version)),
            // Shown to the one who sent it.
            part_2: false,
        };
        shape(answer, want)
    }
}

/// The form of the answer that `Prefer: return=` asks for.
fn shape(mut answer: Answer, want: Return) -> Answer {
    match want {
        Return::Representation => {}
        Return::Minimal => answer.body.clear(),
        Return::Outcome => {
            let done = Issue {
                severity: Severity::Information,
                code: "informational",
                diagnostics: "done".to_owned(),
                expression: None,
            };
            answer.body = operation_outcome(&[done]).to_string().into_bytes();
        }
    }
    answer
}

/// Digits only, with or without hyphens: a social security, telephone or record number rather than an id.
fn looks_like_an_identifier(id: &str) -> bool {
    id.bytes().all(|b| b.is_ascii_digit() || b == b'-') && id.bytes().any(|b| b.is_ascii_digit())
}

impl Refusal {
    /// 400 where the body cannot be taken as the resource at all, 422 where only rules are broken.
    fn structural(mut self) -> Self {
        if self.issues.iter().any(|i| i.code == "structure") {
            self.status = 400;
        }
        self
    }
}

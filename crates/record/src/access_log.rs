//! Who looked: a patient's access log and a resource's provenance, read from the sealed events of the log.
//!
//! The FHIR shapes are views: AuditEvent as in IHE BALP (patient read, query, create, update, delete) and Provenance
//! with one agent. The facts stand in the event; nothing here is a stored resource.

use crate::answer::{Answer, Refusal, part_2_issue};
use crate::door::{Door, Row};
use crate::event::{Access, Shown};
use crate::page::Page;
use crate::permit::Owed;
use crate::text::assemble;
use keepwell_ledger::Wait;
use keepwell_model::actor::{Context, PurposeOfUse};
use keepwell_model::json::{Value, object};
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_policy::Action;
use keepwell_search::index::{RowKind, Version};
use std::borrow::Cow;

/// One line of an access log.
#[derive(Clone, Debug)]
pub struct Line {
    /// Number of the entry in the log.
    pub seq: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// Who, how, why.
    pub access: Access,
    /// Rows of this patient that were shown or written.
    pub rids: Vec<u64>,
    /// The entry is in the tree under the newest signed checkpoint: checked now, not assumed.
    pub verified: bool,
}

impl Door {
    /// The access log of a patient, newest first, and the Patient itself, as one look at the record.
    ///
    /// # Errors
    /// 403, 404 where the actor may not know of the patient or may not read it, 503.
    pub async fn access_log_of(
        &self,
        ctx: &Context,
        patient: &str,
        limit: usize,
    ) -> Result<(Vec<Line>, Vec<u8>), Refusal> {
        let t = crate::patient_type();
        self.gate_type(ctx, Action::Read, t).await?;
        let mut text = Vec::new();
        let lines = self
            .access_log(ctx, patient, limit, |head| {
                if !self.decide_row(ctx, Action::Read, t, head).permit {
                    return Err(Refusal::not_found());
                }
                if head.kind != RowKind::Version {
                    return Err(Refusal::gone());
                }
                let opened = self.open_version(head)?;
                let at = Timestamp(head.last_updated);
                assemble(t, patient, head.version, at, &opened.text, &mut text);
                Ok(())
            })
            .await?;
        Ok((lines, text))
    }

    /// The newest lines; `also` may refuse, or show more of the patient, before the look is recorded.
    async fn access_log(
        &self,
        ctx: &Context,
        patient: &str,
        limit: usize,
        also: impl FnOnce(&Version) -> Result<(), Refusal>,
    ) -> Result<Vec<Line>, Refusal> {
        let t = crate::patient_type();
        self.gate_type(ctx, Action::AccessLog, t).await?;
        let mut access = Access::of(ctx, Action::AccessLog);
        access.resource_type = Some(t);
        let looked = self
            .lines(ctx, patient, limit)
            .and_then(|(lines, head)| also(&head).map(|()| (lines, head)));
        let (lines, head) = match looked {
            Ok(l) => l,
            Err(e) => return Err(self.refuse(access, e).await),
        };
        access.count = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        let row = Row {
            rid: head.rid,
            home: head.home,
        };
        self.log(access, &[row], Wait::Fsync).await?;
        Ok(lines)
    }

    fn lines(&self, ctx: &Context, patient: &str, limit: usize) -> Result<(Vec<Line>, Version), Refusal> {
        let t = crate::patient_type();
        let head = self.records.index.read().head(t, patient, self.ledger.visible());
        let head = head.ok_or_else(Refusal::not_found)?;
        if !self.decide_row(ctx, Action::AccessLog, t, &head).permit {
            return Err(Refusal::not_found());
        }
        let entries = self.ledger.access_log(head.home, u64::MAX, limit).map_err(|e| {
            tracing::error!(error = %e, "an access log does not open");
            Refusal::new(
                500,
                "exception",
                "the access log does not open; the operator has been told",
            )
        })?;
        let seqs: Vec<u64> = entries.iter().map(|e| e.seq).collect();
        let lines = entries
            .into_iter()
            .zip(self.proven(&seqs))
            .filter_map(|(e, verified)| {
                Some(Line {
                    seq: e.seq,
                    at: e.at,
                    access: Access::decode(&e.actor)?,
                    rids: Shown::decode(&e.part).unwrap_or_default().rids,
                    verified,
                })
            })
            .collect();
        Ok((lines, head))
    }

    /// `Patient/[id]/$access-log`: the same as a searchset of AuditEvents.
    ///
    /// # Errors
    /// 403, 404 where the actor may not know of the patient, 503.
    pub async fn access_log_bundle(
        &self,
        ctx: &Context,
        patient: &str,
        count: Option<u32>,
        base: &str,
    ) -> Result<Answer, Refusal> {
        let limit = count.map_or(self.limits.page_max, |n| (n as usize).min(self.limits.page_max));
        let lines = self.access_log(ctx, patient, limit, |_| Ok(())).await?;
        let links = [("self", format!("{base}/Patient/{patient}/$access-log"))];
        let mut page = Page::open("searchset", ctx.at, Some(lines.len() as u64), &links, Owed::default());
        for line in &lines {
            let event = audit_event(line, patient);
            page.raw(format!("{{\"resource\":{event},\"search\":{{\"mode\":\"match\"}}}}").as_bytes());
        }
        Ok(Answer {
            status: 200,
            body: page.close(),
            ..Answer::default()
        })
    }

    /// For each of these entries whether it is proven under the log's newest signed checkpoint.
    fn proven(&self, entries: &[u64]) -> Vec<bool> {
        let proven = self.ledger.prove(entries).unwrap_or_else(|e| {
            tracing::error!(error = %e, "entries of the log cannot be proven");
            vec![false; entries.len()]
        });
        if proven.contains(&false) {
            tracing::error!("the log does not match its checkpoint");
        }
        proven
    }

    /// `[type]/[id]/$provenance`: who wrote each version (API-4).
    ///
    /// # Errors
    /// 403, 404, 503.
    pub async fn provenance(&self, ctx: &Context, t: ResourceType, id: &str, base: &str) -> Result<Answer, Refusal> {
        self.gate_type(ctx, Action::Lineage, t).await?;
        let mut access = Access::of(ctx, Action::Lineage);
        access.resource_type = Some(t);
        let visible = self.ledger.visible();
        let permit = self.permit(ctx, Action::Lineage);
        let permitted = permit.predicate();
        let versions: Vec<_> = {
            let index = self.records.index.read();
            index
                .history(keepwell_search::index::Scope::Instance(t, id), visible, None)
                .filter(|v| permitted(&v.facts()))
                .collect()
        };
        let Some(newest) = versions.first() else {
            return Err(self.refuse(access, Refusal::not_found()).await);
        };
        let links = [("self", format!("{base}/{t}/{id}/$provenance"))];
        let owed = permit.owed(&versions);
        let mut page = Page::open("searchset", ctx.at, Some(versions.len() as u64), &links, owed);
        let events: Vec<_> = versions
            .iter()
            .filter_map(|v| Some((v, self.ledger.event_of_row(v.rid).ok()?)))
            .collect();
        let seqs: Vec<u64> = events.iter().map(|(_, e)| e.seq).collect();
        for ((v, e), verified) in events.iter().zip(self.proven(&seqs)) {
            let Some(who) = Access::decode(&e.actor) else { continue };
            let p = provenance(t, id, v.version, &who, e.at, verified);
            page.raw(format!("{{\"resource\":{p},\"search\":{{\"mode\":\"match\"}}}}").as_bytes());
        }
        let row = Row {
            rid: newest.rid,
            home: newest.home,
        };
        access.count = u32::try_from(versions.len()).unwrap_or(u32::MAX);
        owed.note(&mut access);
        if owed.notice {
            page.outcome(&[part_2_issue()]);
        }
        self.log(access, &[row], owed.wait()).await?;
        Ok(Answer {
            status: 200,
            body: page.close(),
            part_2: owed.notice,
            ..Answer::default()
        })
    }
}

/// The one-letter code of AuditEvent.action (R4 audit-event-action).
fn action_letter(action: Action) -> &'static str {
    match action {
        Action::Create | Action::Import => "C",
        Action::Update | Action::Patch | Action::Transaction => "U",
        Action::Delete | Action::Erase => "D",
        Action::Search | Action::Everything | Action::HistoryType | Action::HistorySystem => "E",
        _ => "R",
    }
}

/// Codes of DICOM.
const DCM: &str = "http://dicom.nema.org/resources/ontology/DCM";

fn coding(system: &'static str, code: &'static str) -> Value<'static> {
    object([("system", Value::from(system)), ("code", Value::from(code))])
}

fn owned(text: &str) -> Value<'static> {
    Value::String(Cow::Owned(text.to_owned()))
}

fn list<const N: usize>(items: [Value<'static>; N]) -> Value<'static> {
    Value::Array(items.into())
}

fn audit_event(line: &Line, patient: &str) -> Value<'static> {
    let a = &line.access;
    let mut user = object([
        (
            "type",
            object([(
                "coding",
                list([coding("http://dicom.nema.org/resources/ontology/DCM", "110153")]),
            )]),
        ),
        (
            "who",
            object([
                ("identifier", object([("value", owned(&a.user))])),
                ("display", owned(&a.display)),
            ]),
        ),
        ("requestor", Value::Bool(true)),
    ]);
    if let Some(role) = a.role {
        user.set("role", list([object([("text", Value::from(role.name()))])]));
    }
    if !a.network.is_empty() {
        user.set(
            "network",
            object([("address", owned(&a.network)), ("type", Value::from("2"))]),
        );
    }
    if !a.session.is_empty() {
        user.set(
            "policy",
            list([Value::from(format!("urn:ietf:params:oauth:jti:{}", a.session))]),
        );
    }
    let server = object([
        (
            "type",
            object([(
                "coding",
                list([coding("http://dicom.nema.org/resources/ontology/DCM", "110152")]),
            )]),
        ),
        ("who", object([("display", Value::from("Keepwell"))])),
        ("requestor", Value::Bool(false)),
    ]);
    // The beginning and the end of an emergency access are what DICOM calls a security alert, as in the example of R4.
    let override_ = match a.action {
        Action::BreakGlass => Some("110127"),
        Action::EndAccess if a.purpose == PurposeOfUse::BreakTheGlass => Some("110138"),
        _ => None,
    };
    let (kind, subtype) = match override_ {
        Some(code) => (coding(DCM, "110113"), coding(DCM, code)),
        None => (
            coding("http://terminology.hl7.org/CodeSystem/audit-event-type", "rest"),
            coding("http://hl7.org/fhir/restful-interaction", interaction(a.action)),
        ),
    };
    let mut event = object([
        ("resourceType", Value::from("AuditEvent")),
        ("id", Value::from(format!("entry-{}", line.seq))),
        ("type", kind),
        ("subtype", list([subtype])),
        ("action", Value::from(action_letter(a.action))),
        ("recorded", Value::from(line.at.to_string())),
        ("outcome", Value::from(if a.status < 400 { "0" } else { "4" })),
        (
            "purposeOfEvent",
            list([object([(
                "coding",
                list([coding(
                    "http://terminology.hl7.org/CodeSystem/v3-ActReason",
                    a.purpose.code(),
                )]),
            )])]),
        ),
        ("agent", list([user, server])),
        (
            "source",
            object([("observer", object([("display", Value::from("Keepwell"))]))]),
        ),
        (
            "entity",
            list([object([
                (
                    "what",
                    object([("reference", Value::from(format!("Patient/{patient}")))]),
                ),
                (
                    "type",
                    coding("http://terminology.hl7.org/CodeSystem/audit-entity-type", "1"),
                ),
                ("role", coding("http://terminology.hl7.org/CodeSystem/object-role", "1")),
            ])]),
        ),
    ]);
    let note = if line.verified {
        "the entry is in the log under the newest signed checkpoint"
    } else {
        "the entry could not be proven against the newest signed checkpoint"
    };
    event.set("outcomeDesc", Value::from(note));
    event
}

/// The restful-interaction code nearest to the action.
fn interaction(action: Action) -> &'static str {
    match action {
        Action::Read => "read",
        Action::Vread => "vread",
        Action::Search => "search-type",
        Action::HistoryInstance => "history-instance",
        Action::HistoryType => "history-type",
        Action::HistorySystem => "history-system",
        Action::Create => "create",
        Action::Update => "update",
        Action::Patch => "patch",
        Action::Delete => "delete",
        Action::Transaction | Action::Import => "transaction",
        Action::Capabilities => "capabilities",
        _ => "operation",
    }
}

fn provenance(t: ResourceType, id: &str, version: u32, who: &Access, at: Timestamp, verified: bool) -> Value<'static> {
    let mut p = object([
        ("resourceType", Value::from("Provenance")),
        (
            "target",
            list([object([(
                "reference",
                Value::from(format!("{t}/{id}/_history/{version}")),
            )])]),
        ),
        ("recorded", Value::from(at.to_string())),
        (
            "activity",
            object([(
                "coding",
                list([coding(
                    "http://hl7.org/fhir/restful-interaction",
                    interaction(who.action),
                )]),
            )]),
        ),
        (
            "agent",
            list([object([
                (
                    "type",
                    object([(
                        "coding",
                        list([coding(
                            "http://terminology.hl7.org/CodeSystem/provenance-participant-type",
                            "author",
                        )]),
                    )]),
                ),
                (
                    "who",
                    object([
                        ("identifier", object([("value", owned(&who.user))])),
                        ("display", owned(&who.display)),
                    ]),
                ),
            ])]),
        ),
    ]);
    let state = if verified { "proven" } else { "unproven" };
    p.set("policy", list([Value::from(format!("urn:keepwell:log:{state}"))]));
    p
}

//! Access without a treatment relationship on record: stated reasons, emergency access, and the review afterwards
//! (45 CFR 164.312(a)(2)(ii), AZ-5, AZ-9); and what people say themselves about whom they treat: duty and cover.
//!
//! An emergency access is for one patient and a few hours, asks for a reason and a fresh proof of who it is, is in the log
//! with its beginning and its end, and marks every event under it with the purpose BTG. It is never refused for want of
//! somebody's approval: it is looked at afterwards, by somebody else.

use crate::answer::Refusal;
use crate::change::Before;
use crate::door::{Door, EMERGENCY_MAX_MS, Row};
use crate::event::Access;
use crate::permit::is_banner;
use crate::relation::Standing;
use crate::standing::{Cover, Duty, Grant, GrantKind, KeptGrant, Reviewed};
use keepwell_ledger::Wait;
use keepwell_model::actor::{Context, PurposeOfUse, Role};
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_policy::{Action, Relation};
use keepwell_search::index::{RowKind, Version};
use std::sync::Arc;

/// Why somebody breaks the glass: code and words.
pub const EMERGENCY_REASONS: &[(&str, &str)] = &[
    ("emergency", "Emergency treatment"),
    (
        "urgent",
        "Urgent care, and nobody who treats the patient can be reached",
    ),
    ("safety", "Danger to the patient or to others"),
    ("other", "Another reason"),
];

/// Why somebody opens the record of a patient of their units, or of a former one: code and words.
pub const STATED_REASONS: &[(&str, &str)] = &[
    ("care", "I take part in this patient's care"),
    ("consult", "A colleague asked me"),
    ("follow-up", "Results, messages or paper to deal with"),
    ("prepare", "I prepare for seeing the patient"),
];

/// A stated reason holds for this long, in ms.
const STATED_MS: i64 = 24 * 3_600_000;
/// An emergency access is reviewed within this time, in ms; after it the security officer is told, after twice the time
/// everybody who sees the status.
const REVIEW_MS: i64 = 3 * 86_400_000;
/// The longest shift, in ms.
const DUTY_MAX_MS: i64 = 16 * 3_600_000;
/// The longest cover, in ms.
const COVER_MAX_MS: i64 = 31 * 86_400_000;
/// Fewest and most characters of a reason in words.
const WORDS: std::ops::RangeInclusive<usize> = 5..=200;

/// Access to one patient that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Logical id of the patient.
    pub patient: String,
    /// How it was given.
    pub kind: GrantKind,
    /// Until when.
    pub until: Timestamp,
}

/// An emergency access that waits for its review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// By which it is decided.
    pub id: String,
    /// Who broke the glass.
    pub user: String,
    /// Their name.
    pub display: String,
    /// Their role.
    pub role: Option<Role>,
    /// Whose record; not told to the security officer.
    pub patient: Option<String>,
    /// Code of the reason.
    pub code: String,
    /// The reason in words; not told to the security officer.
    pub text: String,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// When the review is due.
    pub due: Timestamp,
    /// The time is over: the security officer sees it as well.
    pub overdue: bool,
}

/// How many reviews wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// All.
    pub open: usize,
    /// Past their time.
    pub overdue: usize,
    /// Past twice their time.
    pub ignored: usize,
}

fn bad(text: &str) -> Refusal {
    Refusal::new(400, "value", text)
}

/// A reason in words that says something.
fn words(text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    if WORDS.contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(bad("say the reason in words, 5 to 200 characters"))
    }
}

impl Door {
    /// The refusal of a read: whoever may find the patient and break the glass is told so, for all others there is no
    /// such resource.
    pub(crate) fn not_yours(&self, ctx: &Context, t: ResourceType, head: &Version, standing: Standing) -> Refusal {
        if t != crate::patient_type() || head.kind != RowKind::Version || !self.may_find(ctx, head, standing) {
            return Refusal::not_found();
        }
        let may = |action| self.decide_standing(ctx, action, t, head, standing).permit;
        match (may(Action::StateReason), may(Action::BreakGlass)) {
            (true, _) => Refusal::forbidden(
                "no treatment relationship with this patient is on record; state a reason with $state-reason, or in an \
                 emergency use $break-glass",
            ),
            (false, true) => Refusal::forbidden(
                "no treatment relationship with this patient is on record; in an emergency use $break-glass",
            ),
            (false, false) => Refusal::not_found(),
        }
    }

    /// Whether a search may show at least who the patient is: what is offered must not tell more.
    fn may_find(&self, ctx: &Context, head: &Version, standing: Standing) -> bool {
        self.decide_standing(ctx, Action::Search, crate::patient_type(), head, standing)
            .permit
    }

    /// The current version of a patient whom `ctx` may at least find, and how they stand.
    fn found(&self, ctx: &Context, patient: &str) -> Result<(Version, Standing), Refusal> {
        let t = crate::patient_type();
        let head = self.records.index.read().head(t, patient, self.ledger.visible());
        let head = head
            .filter(|h| h.kind == RowKind::Version)
            .ok_or_else(Refusal::not_found)?;
        let standing = self.standing(ctx, head.home);
        if self.may_find(ctx, &head, standing) {
            Ok((head, standing))
        } else {
            Err(Refusal::not_found())
        }
    }

    /// Whether `action` on the chart of `patient` is permitted; the patient's row for the event.
    async fn gate_chart(&self, ctx: &Context, action: Action, patient: &str) -> Result<(Row, Standing), Refusal> {
        let t = crate::patient_type();
        self.gate_type(ctx, action, t).await?;
        let checked = self.found(ctx, patient).and_then(|(head, standing)| {
            let decision = self.decide_standing(ctx, action, t, &head, standing);
            let row = Row {
                rid: head.rid,
                home: head.home,
            };
            if decision.permit {
                Ok((row, standing))
            } else {
                Err(Refusal::forbidden(&decision.reason))
            }
        });
        match checked {
            Ok(found) => Ok(found),
            Err(refusal) => {
                let mut access = Access::of(ctx, action);
                access.resource_type = Some(t);
                Err(self.refuse(access, refusal).await)
            }
        }
    }

    /// Breaks the glass: opens the record of one patient without a treatment relationship, for a few hours, to be reviewed.
    ///
    /// # Errors
    /// 400 without a reason, 403 where the last proof of who it is is older than five minutes or a relationship is on
    /// record, 404 where the actor may not even find the patient, 503.
    pub async fn break_glass(&self, ctx: &Context, patient: &str, code: &str, text: &str) -> Result<Granted, Refusal> {
        let (row, _) = self.gate_chart(ctx, Action::BreakGlass, patient).await?;
        let mut access = Access::of(ctx, Action::BreakGlass);
        access.resource_type = Some(crate::patient_type());
        access.purpose = PurposeOfUse::BreakTheGlass;
        let text = match reason(EMERGENCY_REASONS, code).and_then(|()| words(text)) {
            Ok(text) => text,
            Err(e) => return Err(self.refuse(access, e).await),
        };
        if !ctx.actor.is_fresh(ctx.at) {
            let refusal = Refusal::new(
                403,
                "login",
                "prove again who you are: the last proof is older than five minutes",
            );
            return Err(self.refuse(access, refusal).await);
        }
        let until = ctx.at.0.saturating_add(self.limits.emergency_ms.min(EMERGENCY_MAX_MS));
        let due = Some(ctx.at.0.saturating_add(REVIEW_MS));
        let granted = self
            .grant(
                ctx,
                access,
                row,
                patient,
                GrantKind::Emergency,
                (code, text),
                until,
                due,
            )
            .await?;
        tracing::warn!("the glass was broken: an emergency access waits for review");
        Ok(granted)
    }

    /// States a reason for opening the record of a patient of the own units, or of a former one.
    ///
    /// # Errors
    /// As [`Door::break_glass`]; 403 where no relationship is plausible.
    pub async fn state_reason(&self, ctx: &Context, patient: &str, code: &str) -> Result<Granted, Refusal> {
        let (row, _) = self.gate_chart(ctx, Action::StateReason, patient).await?;
        let mut access = Access::of(ctx, Action::StateReason);
        access.resource_type = Some(crate::patient_type());
        if let Err(e) = reason(STATED_REASONS, code) {
            return Err(self.refuse(access, e).await);
        }
        let until = ctx.at.0.saturating_add(STATED_MS);
        self.grant(
            ctx,
            access,
            row,
            patient,
            GrantKind::Stated,
            (code, String::new()),
            until,
            None,
        )
        .await
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the members of one document, written in one place"
    )]
    async fn grant(
        &self,
        ctx: &Context,
        mut access: Access,
        row: Row,
        patient: &str,
        kind: GrantKind,
        (code, text): (&str, String),
        until: i64,
        due: Option<i64>,
    ) -> Result<Granted, Refusal> {
        let grant = Grant {
            user: ctx.actor.id.clone(),
            display: ctx.actor.display.clone(),
            role: ctx.actor.role.name().to_owned(),
            patient: patient.to_owned(),
            kind,
            code: code.to_owned(),
            text,
            from: ctx.at.0,
            until,
            ended: false,
            due,
            reviewed: None,
        };
        code.clone_into(&mut access.reason);
        let id = self.new_id()?;
        self.put_document_about(access, "grant", &id, Some(&json(&grant)?), Before::Absent, &[row])
            .await?;
        Ok(Granted {
            patient: patient.to_owned(),
            kind,
            until: Timestamp(until),
        })
    }

    /// Ends the emergency access to a patient before its time.
    ///
    /// # Errors
    /// 404 where none of this actor runs, 503.
    pub async fn end_access(&self, ctx: &Context, patient: &str) -> Result<(), Refusal> {
        let (row, _) = self.gate_chart(ctx, Action::EndAccess, patient).await?;
        let running: Vec<Arc<KeptGrant>> = self
            .standing_documents()?
            .grants
            .iter()
            .filter(|g| g.grant.user == ctx.actor.id && g.grant.patient == patient && g.grant.runs_at(ctx.at))
            .cloned()
            .collect();
        if running.is_empty() {
            let mut access = Access::of(ctx, Action::EndAccess);
            access.resource_type = Some(crate::patient_type());
            return Err(self.refuse(access, Refusal::not_found()).await);
        }
        for kept in running {
            let mut access = Access::of(ctx, Action::EndAccess);
            access.resource_type = Some(crate::patient_type());
            if kept.grant.kind == GrantKind::Emergency {
                access.purpose = PurposeOfUse::BreakTheGlass;
            }
            "ended by the user".clone_into(&mut access.reason);
            self.end(access, &kept, ctx.at.0, &[row]).await?;
        }
        Ok(())
    }

    async fn end(&self, access: Access, kept: &KeptGrant, at: i64, about: &[Row]) -> Result<(), Refusal> {
        let mut grant = kept.grant.clone();
        grant.ended = true;
        grant.until = grant.until.min(at);
        let before = Before::Version(kept.version);
        self.put_document_about(access, "grant", &kept.id, Some(&json(&grant)?), before, about)
            .await
    }

    /// Puts the end of emergency accesses whose time is over into the log, by a job. They opened nothing since: a grant
    /// holds by its time.
    ///
    /// # Errors
    /// 503. The next run goes on.
    pub async fn end_expired(&self, ctx: &Context) -> Result<usize, Refusal> {
        let over: Vec<Arc<KeptGrant>> = self
            .standing_documents()?
            .grants
            .iter()
            .filter(|g| g.grant.kind == GrantKind::Emergency && !g.grant.ended && g.grant.until <= ctx.at.0)
            .cloned()
            .collect();
        for kept in &over {
            let mut access = Access::of(ctx, Action::EndAccess);
            access.resource_type = Some(crate::patient_type());
            access.purpose = PurposeOfUse::BreakTheGlass;
            format!("the time of {} is over", kept.grant.user).clone_into(&mut access.reason);
            let about = self.patient_rows([kept.grant.patient.as_str()]);
            self.end(access, kept, kept.grant.until, &about).await?;
        }
        Ok(over.len())
    }

    /// The current rows of patients, as far as they are there, to put an event into their access logs.
    fn patient_rows<'p>(&self, patients: impl IntoIterator<Item = &'p str>) -> Vec<Row> {
        let index = self.records.index.read();
        patients
            .into_iter()
            .filter_map(|id| index.head(crate::patient_type(), id, u64::MAX))
            .filter(|head| head.kind == RowKind::Version)
            .map(|head| Row {
                rid: head.rid,
                home: head.home,
            })
            .collect()
    }

    /// The emergency accesses of `ctx` that run, for the banner of every page.
    #[must_use]
    pub fn emergencies(&self, ctx: &Context) -> Vec<Granted> {
        let Ok(documents) = self.standing_documents() else {
            return Vec::new();
        };
        documents
            .grants
            .iter()
            .map(|kept| &kept.grant)
            .filter(|g| g.kind == GrantKind::Emergency && g.user == ctx.actor.id && g.runs_at(ctx.at))
            .map(|g| Granted {
                patient: g.patient.clone(),
                kind: g.kind,
                until: Timestamp(g.until),
            })
            .collect()
    }

    /// The emergency accesses that wait for review: all for the privacy officer, the overdue ones without patient and
    /// words for the security officer. The soonest due first.
    ///
    /// # Errors
    /// 403, 503.
    pub async fn reviews(&self, ctx: &Context) -> Result<Vec<Review>, Refusal> {
        self.authorize_system(ctx, Action::ReviewRead).await?;
        let decides = self.may_decide(ctx);
        let mut found: Vec<Review> = self
            .standing_documents()?
            .grants
            .iter()
            .filter(|kept| kept.grant.open())
            .map(|kept| review(kept, ctx.at))
            .filter(|r| decides || r.overdue)
            .collect();
        found.sort_by(|a, b| (a.due, &a.id).cmp(&(b.due, &b.id)));
        let mut rows = Vec::new();
        if decides {
            rows = self.patient_rows(found.iter().filter_map(|r| r.patient.as_deref()));
        } else {
            for r in &mut found {
                r.patient = None;
                r.text.clear();
            }
        }
        let mut access = Access::of(ctx, Action::ReviewRead);
        access.count = u32::try_from(found.len()).unwrap_or(u32::MAX);
        self.log(access, &rows, Wait::Fsync).await?;
        Ok(found)
    }

    /// Whether `ctx` decides reviews.
    fn may_decide(&self, ctx: &Context) -> bool {
        self.decide(
            ctx,
            Action::Review,
            keepwell_policy::Target::Installation,
            Relation::NoPatient,
            keepwell_policy::Labels::NONE,
        )
        .permit
    }

    /// Decides a review. Nobody decides about their own access. What is found not justified while it runs ends at once;
    /// what is found justified was looked at as a whole, after its end.
    ///
    /// # Errors
    /// 400 without words, 403, 404 where nothing waits under that id, 409 where an access that still runs is to be
    /// justified, 412 where somebody else was faster, 503.
    pub async fn review(&self, ctx: &Context, id: &str, justified: bool, note: &str) -> Result<(), Refusal> {
        self.authorize_system(ctx, Action::Review).await?;
        let kept = self
            .standing_documents()?
            .grants
            .iter()
            .find(|kept| kept.id == id && kept.grant.open())
            .cloned();
        let access = || Access::of(ctx, Action::Review);
        let checked = kept.ok_or_else(Refusal::not_found).and_then(|kept| {
            if kept.grant.user == ctx.actor.id {
                return Err(Refusal::forbidden("nobody reviews their own access"));
            }
            let note = words(note)?;
            if justified && kept.grant.runs_at(ctx.at) {
                return Err(Refusal::new(
                    409,
                    "conflict",
                    "this access still runs: it can be found justified when it has ended",
                ));
            }
            Ok((kept, note))
        });
        let (mut kept, note) = match checked {
            Ok(found) => found,
            Err(e) => return Err(self.refuse(access(), e).await),
        };
        let about = self.patient_rows([kept.grant.patient.as_str()]);
        if kept.grant.runs_at(ctx.at) {
            let mut ending = Access::of(ctx, Action::EndAccess);
            ending.resource_type = Some(crate::patient_type());
            ending.purpose = PurposeOfUse::BreakTheGlass;
            "ended by its review".clone_into(&mut ending.reason);
            self.end(ending, &kept, ctx.at.0, &about).await?;
            let ended = self
                .standing_documents()?
                .grants
                .iter()
                .find(|kept| kept.id == id)
                .cloned();
            kept = ended.ok_or_else(Refusal::not_found)?;
        }
        let mut grant = kept.grant.clone();
        grant.reviewed = Some(Reviewed {
            by: ctx.actor.id.clone(),
            at: ctx.at.0,
            justified,
            note,
        });
        let mut access = access();
        let word = if justified { "justified" } else { "not justified" };
        word.clone_into(&mut access.reason);
        let before = Before::Version(kept.version);
        self.put_document_about(access, "grant", id, Some(&json(&grant)?), before, &about)
            .await
    }

    /// How many reviews wait, for the status of the installation: numbers only.
    ///
    /// # Errors
    /// The documents cannot be read.
    pub fn reviews_waiting(&self, now: Timestamp) -> Result<Waiting, Refusal> {
        let mut waiting = Waiting::default();
        for kept in self.standing_documents()?.grants.iter().filter(|k| k.grant.open()) {
            let late = now.0.saturating_sub(kept.grant.due.unwrap_or(i64::MAX));
            waiting.open += 1;
            waiting.overdue += usize::from(late >= 0);
            waiting.ignored += usize::from(late >= REVIEW_MS);
        }
        Ok(waiting)
    }

    /// Signs on to units for a shift: their patients are then the actor's. Only to units of the own roles
    /// (PractitionerRole.location). No unit signs off.
    ///
    /// # Errors
    /// 400, 403, 503.
    pub async fn sign_on(&self, ctx: &Context, units: &[String], until: Timestamp) -> Result<(), Refusal> {
        self.authorize_system(ctx, Action::SignOn).await?;
        let own = match &ctx.actor.practitioner {
            Some(practitioner) => self.records.units_of(practitioner, ctx.at),
            None => Vec::new(),
        };
        let access = Access::of(ctx, Action::SignOn);
        let fault = if units.iter().any(|unit| !own.contains(unit)) {
            Some(Refusal::forbidden("this unit is not one of your roles"))
        } else if !(0..=DUTY_MAX_MS).contains(&until.0.saturating_sub(ctx.at.0)) {
            Some(bad("a shift ends within 16 hours"))
        } else {
            None
        };
        if let Some(fault) = fault {
            return Err(self.refuse(access, fault).await);
        }
        let duty = Duty {
            units: units.to_vec(),
            from: ctx.at.0,
            until: until.0,
        };
        let text = if units.is_empty() { None } else { Some(json(&duty)?) };
        self.put_document_about(access, "duty", &ctx.actor.id, text.as_deref(), Before::Any, &[])
            .await
    }

    /// Lets a colleague cover: the patients of the actor are then the colleague's as well. Given by the one who is
    /// covered for, never taken. With an end that is not ahead it takes back what was given to that colleague.
    ///
    /// # Errors
    /// 400, 403 where the actor has no patients of their own, 404 where there is nothing to take back, 503.
    pub async fn let_cover(
        &self,
        ctx: &Context,
        colleague: &str,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<(), Refusal> {
        self.authorize_system(ctx, Action::Cover).await?;
        if until.0 <= ctx.at.0 {
            return self.end_cover(ctx, colleague).await;
        }
        let access = Access::of(ctx, Action::Cover);
        let fault = if ctx.actor.practitioner.is_none() {
            Some(Refusal::forbidden("your account names no Practitioner"))
        } else if !crate::is_id(colleague) || colleague == ctx.actor.id {
            Some(bad("name the account of a colleague"))
        } else if from.0 < ctx.at.0.saturating_sub(60_000)
            || !(1..=COVER_MAX_MS).contains(&until.0.saturating_sub(from.0))
        {
            Some(bad("a cover begins now or later and lasts at most 31 days"))
        } else {
            None
        };
        if let Some(fault) = fault {
            return Err(self.refuse(access, fault).await);
        }
        let cover = Cover {
            user: colleague.to_owned(),
            colleague: ctx.actor.id.clone(),
            practitioner: ctx.actor.practitioner.clone().unwrap_or_default(),
            from: from.0,
            until: until.0,
        };
        let id = self.new_id()?;
        self.put_document_about(access, "cover", &id, Some(&json(&cover)?), Before::Absent, &[])
            .await
    }

    /// Takes back every cover of the actor by a colleague that runs or is to begin.
    async fn end_cover(&self, ctx: &Context, colleague: &str) -> Result<(), Refusal> {
        let given: Vec<String> = self
            .standing_documents()?
            .covers
            .iter()
            .filter(|(_, c)| c.colleague == ctx.actor.id && c.user == colleague && c.until > ctx.at.0)
            .map(|(id, _)| id.clone())
            .collect();
        let mut access = Access::of(ctx, Action::Cover);
        if given.is_empty() {
            return Err(self.refuse(access, Refusal::not_found()).await);
        }
        "taken back".clone_into(&mut access.reason);
        for id in given {
            self.put_document_about(access.clone(), "cover", &id, None, Before::Any, &[])
                .await?;
        }
        Ok(())
    }

    /// Who a patient is and what a refused clinician is offered: the banner and whether a stated reason is enough. `None`
    /// where nothing is offered.
    #[must_use]
    pub fn offers(&self, ctx: &Context, patient: &str) -> Option<Offer> {
        let (head, standing) = self.found(ctx, patient).ok()?;
        let t = crate::patient_type();
        let may = |action| self.decide_standing(ctx, action, t, &head, standing);
        let search = may(Action::Search);
        (is_banner(&search) && may(Action::BreakGlass).permit).then(|| Offer {
            stated: may(Action::StateReason).permit,
        })
    }
}

/// What a refused clinician is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// A stated reason is enough.
    pub stated: bool,
}

fn reason(known: &[(&str, &str)], code: &str) -> Result<(), Refusal> {
    if known.iter().any(|(c, _)| *c == code) {
        return Ok(());
    }
    let codes: Vec<_> = known.iter().map(|(c, _)| *c).collect();
    Err(bad(&format!("the code of the reason is one of {}", codes.join(", "))))
}

fn review(kept: &KeptGrant, now: Timestamp) -> Review {
    let g = &kept.grant;
    let due = g.due.unwrap_or(i64::MAX);
    Review {
        id: kept.id.clone(),
        user: g.user.clone(),
        display: g.display.clone(),
        role: g.role(),
        patient: Some(g.patient.clone()),
        code: g.code.clone(),
        text: g.text.clone(),
        from: Timestamp(g.from),
        until: Timestamp(g.until),
        due: Timestamp(due),
        overdue: due <= now.0,
    }
}

fn json<T: serde::Serialize>(document: &T) -> Result<String, Refusal> {
    serde_json::to_string(document).map_err(|_| Refusal::new(500, "exception", "a document cannot be written"))
}

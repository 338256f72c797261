//! The door: every interaction goes through [`Door`], which authorizes, opens, records and only then returns.

use crate::answer::Refusal;
use crate::change::{Change, Unmet, Written};
use crate::event::{Access, Shown, action_code};
use crate::follower::Records;
use crate::permit::{Gate, Permit};
use crate::relation::{Panel, Standing, needs_panel};
use crate::standing::Keeping;
use keepwell_ledger::{AppendError, Event, Ledger, Opened, ReadError, Wait};
use keepwell_model::actor::Context;
use keepwell_model::home::Home;
use keepwell_model::time::{Clock, Entropy};
use keepwell_model::types::ResourceType;
use keepwell_model::uuid;
use keepwell_policy::{Action, Decision, Labels, Relation, Request, Target};
use keepwell_search::index::Version;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often a request is prepared again because the state it was prepared on has moved.
pub(crate) const TRIES: usize = 200;

/// Most of what a client may ask for in one answer, and what it gets without asking.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Page size without `_count`.
    pub page: usize,
    /// Largest `_count`; more is cut to this.
    pub page_max: usize,
    /// Most resources `_include` and `_revinclude` add to a page.
    pub include_max: usize,
    /// Most entries of a batch or transaction.
    pub bundle_max: usize,
    /// How long an emergency access lasts, in ms: at most [`EMERGENCY_MAX_MS`].
    pub emergency_ms: i64,
}

/// The longest emergency access: four hours, in ms.
pub const EMERGENCY_MAX_MS: i64 = 4 * 3_600_000;

impl Default for Limits {
    fn default() -> Self {
        Self {
            page: 50,
            page_max: 1000,
            include_max: 2000,
            bundle_max: 100_000,
            emergency_ms: EMERGENCY_MAX_MS,
        }
    }
}

/// The one way to patient data.
pub struct Door {
    pub(crate) ledger: Ledger<Records>,
    pub(crate) records: Arc<Records>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) limits: Limits,
    pub(crate) keeping: Mutex<Keeping>,
}

/// A row about to be shown: where it is and whose it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) rid: u64,
    pub(crate) home: u32,
}

impl Door {
    /// Opens the door over an open ledger.
    #[must_use]
    pub fn new(
        ledger: Ledger<Records>,
        records: Arc<Records>,
        gate: Arc<Gate>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        limits: Limits,
    ) -> Self {
        Self {
            ledger,
            records,
            gate,
            clock,
            entropy,
            limits,
            keeping: Mutex::default(),
        }
    }

    /// The clock requests are timed by.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The ledger, for the acts of the installation (snapshot, verify, seal, backup).
    #[must_use]
    pub fn ledger(&self) -> &Ledger<Records> {
        &self.ledger
    }

    /// Estimated memory of the index, in bytes.
    #[must_use]
    pub fn index_bytes(&self) -> usize {
        self.records.index.read().bytes()
    }

    /// Asks whether `ctx` may see the state of the installation, and records that it was shown.
    ///
    /// # Errors
    /// 403, 503.
    pub async fn status_for(&self, ctx: &Context) -> Result<(), Refusal> {
        self.authorize_system(ctx, Action::Status).await?;
        self.record_act(ctx, Action::Status, 0, "").await
    }

    /// A new random logical id (UUID version 4, RFC 9562).
    pub(crate) fn new_id(&self) -> Result<String, Refusal> {
        let mut b = [0u8; 16];
        self.entropy
            .fill(&mut b)
            .map_err(|_| Refusal::unavailable("no random numbers; try again later"))?;
        b[6] = b[6] & 0x0f | 0x40;
        b[8] = b[8] & 0x3f | 0x80;
        Ok(uuid::text(&b))
    }

    pub(crate) fn permit(&self, ctx: &Context, action: Action) -> Permit {
        Permit::new(&self.gate, ctx, action, &self.records, self.panel(ctx))
    }

    pub(crate) fn decide(
        &self,
        ctx: &Context,
        action: Action,
        target: Target,
        relation: Relation,
        labels: Labels,
    ) -> Arc<Decision> {
        self.gate.decide(&Request::new(
            &ctx.actor,
            action,
            target,
            relation,
            labels,
            ctx.purpose,
            ctx.place,
        ))
    }

    /// The panel of a clinician, kept or made now; none for those to whom relationships mean nothing.
    pub(crate) fn panel(&self, ctx: &Context) -> Option<Arc<Panel>> {
        let actor = &ctx.actor;
        if !needs_panel(actor.role) {
            return None;
        }
        let key = (actor.id.clone(), actor.practitioner.clone().unwrap_or_default());
        let made = self.records.panels.get(&key, ctx.at, || {
            let documents = self.standing_documents()?;
            Ok::<_, Refusal>(self.records.make_panel(actor, &documents, ctx.at))
        });
        // Nobody knows what the documents would have said: the clinician stands to nobody.
        Some(made.unwrap_or_else(|_| Arc::new(Panel::nobody(ctx.at))))
    }

    /// How the actor stands to what is under `slot`.
    pub(crate) fn standing(&self, ctx: &Context, slot: u32) -> Standing {
        self.records.standing(&ctx.actor, self.panel(ctx).as_deref(), slot)
    }

    /// How the actor stands to a home that may not have a slot yet.
    pub(crate) fn standing_to(&self, ctx: &Context, home: &Home) -> Standing {
        match (home, self.panel(ctx)) {
            (Home::Patient(id), _) if ctx.actor.patient.as_ref() == Some(id) => Standing::OWN,
            (home, Some(panel)) => panel.standing_to(&self.records.homes.read(), home),
            (Home::Shared, None) => Standing::NO_PATIENT,
            (Home::Patient(_) | Home::Several(_), None) => Standing::UNRELATED,
        }
    }

    /// The decision about an existing row.
    pub(crate) fn decide_row(&self, ctx: &Context, action: Action, t: ResourceType, head: &Version) -> Arc<Decision> {
        self.decide_standing(ctx, action, t, head, self.standing(ctx, head.home))
    }

    /// The decision about an existing row, by one who stands so to its patient.
    pub(crate) fn decide_standing(
        &self,
        ctx: &Context,
        action: Action,
        t: ResourceType,
        head: &Version,
        standing: Standing,
    ) -> Arc<Decision> {
        self.decide(ctx, action, Target::Type(t), standing.relation, Labels(head.labels))
    }

    /// The first gate: refuses with 403 what the role may do for no patient at all.
    pub(crate) async fn gate_type(&self, ctx: &Context, action: Action, t: ResourceType) -> Result<(), Refusal> {
        let d = self.gate.any_relation(ctx, action, Target::Type(t));
        if d.permit {
            return Ok(());
        }
        let mut access = Access::of(ctx, action);
        access.resource_type = Some(t);
        Err(self.refuse(access, Refusal::forbidden(&d.reason)).await)
    }

    /// Asks whether `ctx` may do something to the installation; a refusal is recorded.
    ///
    /// # Errors
    /// 403 with the policy's reason, or 503 where the refusal cannot be recorded.
    pub async fn authorize_system(&self, ctx: &Context, action: Action) -> Result<(), Refusal> {
        let d = self.decide(ctx, action, Target::Installation, Relation::NoPatient, Labels::NONE);
        if d.permit {
            return Ok(());
        }
        Err(self
            .refuse(Access::of(ctx, action), Refusal::forbidden(&d.reason))
            .await)
    }

    /// Records an act on the installation (durable on return).
    ///
    /// # Errors
    /// 503 where it cannot be recorded.
    pub async fn record_act(&self, ctx: &Context, action: Action, count: u32, note: &str) -> Result<(), Refusal> {
        let mut access = Access::of(ctx, action);
        access.count = count;
        if !note.is_empty() {
            note.clone_into(&mut access.reason);
        }
        self.log(access, &[], Wait::Fsync).await
    }

    /// Records an act on the installation that was refused elsewhere (durable on return).
    ///
    /// # Errors
    /// 503 where it cannot be recorded.
    pub async fn record_refusal(&self, ctx: &Context, action: Action, status: u16) -> Result<(), Refusal> {
        let mut access = Access::of(ctx, action);
        access.status = status;
        self.log(access, &[], Wait::Fsync).await
    }

    /// Records a refusal and hands it back; where it cannot be recorded the answer is 503.
    pub(crate) async fn refuse(&self, mut access: Access, refusal: Refusal) -> Refusal {
        access.status = refusal.status;
        if access.reason.is_empty()
            && refusal.status == 403
            && let Some(i) = refusal.issues.first()
        {
            access.reason.clone_from(&i.diagnostics);
        }
        match self.log(access, &[], Wait::Fsync).await {
            Ok(()) => refusal,
            Err(e) => e,
        }
    }

    /// Appends the event of a disclosure; nothing may leave before this returns.
    pub(crate) async fn log(&self, access: Access, rows: &[Row], wait: Wait) -> Result<(), Refusal> {
        let event = Event {
            kind: action_code(access.action),
            actor: access.encode(),
            parts: self
                .parts(rows)
                .into_iter()
                .map(|(slot, shown)| (slot, shown.encode()))
                .collect(),
        };
        match self.ledger.log(event, wait).await {
            Ok(_) => Ok(()),
            Err(e) => {
                tracing::error!(error = %e, "an audit entry could not be appended");
                Err(Refusal::unavailable(
                    "the access could not be recorded, so nothing is shown; try again later",
                ))
            }
        }
    }

    /// One part for each patient among the rows.
    pub(crate) fn parts(&self, rows: &[Row]) -> Vec<(u32, Shown)> {
        let homes = self.records.homes.read();
        let mut by: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        // A chart's page is one run of rows of the same patient.
        for run in rows.chunk_by(|a, b| a.home == b.home) {
            let Some(home) = run.first().map(|row| row.home) else {
                continue;
            };
            let rids = || run.iter().map(|row| row.rid);
            if homes.owners.contains_key(&home) {
                by.entry(home).or_default().extend(rids());
            } else if let Some(ids) = homes.several.get(&home) {
                by.entry(home).or_default().extend(rids());
                for slot in ids.iter().filter_map(|id| homes.patients.get(id)) {
                    by.entry(*slot).or_default().extend(rids());
                }
            }
        }
        by.into_iter()
            .map(|(slot, mut rids)| {
                rids.sort_unstable();
                rids.dedup();
                (slot, Shown { rids })
            })
            .collect()
    }

    /// Records refusals of requests without a valid token, counted by their source over a minute.
    ///
    /// # Errors
    /// 503 where it cannot be recorded.
    pub async fn record_strangers(&self, network: &str, number: u32) -> Result<(), Refusal> {
        let access = Access::stranger(self.clock.now(), network, number);
        self.log(access, &[], Wait::Wal).await
    }

    /// Opens one row.
    pub(crate) fn open(&self, rid: u64) -> Result<Arc<Opened>, Refusal> {
        self.ledger.read(rid).map_err(|e| unopened(rid, &e))
    }

    /// Opens the row that the index names and compares its sealed header with what the index says of it: a row in
    /// another's place is not shown.
    pub(crate) fn open_version(&self, row: &Version) -> Result<Arc<Opened>, Refusal> {
        self.ledger
            .read(row.rid)
            .map_err(|e| unopened(row.rid, &e))
            .and_then(|opened| as_indexed(row, opened))
    }

    /// Opens the rows of a page, in their order. One that was erased since it was found is gone, and so is its entry. One
    /// that does not open is not left out in silence: nobody must take what is damaged for what never was.
    pub(crate) fn open_all<'v>(&self, rows: &'v [Version]) -> Result<Vec<(&'v Version, Arc<Opened>)>, Refusal> {
        let rids: Vec<u64> = rows.iter().map(|row| row.rid).collect();
        let opened = self.ledger.read_all(&rids);
        let mut page = Vec::with_capacity(rows.len());
        for (row, opened) in rows.iter().zip(opened) {
            match opened {
                Ok(opened) => page.push((row, as_indexed(row, opened)?)),
                Err(ReadError::Erased(_)) => {}
                Err(e) => return Err(unopened(row.rid, &e)),
            }
        }
        Ok(page)
    }

    /// Commits a change; `None` when the state it was prepared on has moved and it must be prepared again.
    pub(crate) async fn commit_once(&self, change: Change) -> Result<Option<Vec<Written>>, Refusal> {
        match self.ledger.append(change).await {
            Ok(written) => Ok(Some(written)),
            Err(AppendError::Refused(Unmet::Again)) => Ok(None),
            // The refusal went into the log with the decision.
            Err(AppendError::Refused(Unmet::Version)) => Err(Refusal::other_version()),
            Err(e) => {
                tracing::error!(error = %e, "a change could not be committed");
                Err(Refusal::unavailable(
                    "nothing was changed: the change could not be stored",
                ))
            }
        }
    }
}

/// What a client is told of damage.
const DAMAGED: &str = "the stored resource does not open; the operator has been told";

/// What is told of a row that did not open: an erased one is gone, anything else the operator must look at.
fn unopened(rid: u64, error: &ReadError) -> Refusal {
    if matches!(error, ReadError::Erased(_)) {
        return Refusal::not_found();
    }
    tracing::error!(rid, error = %error, "a row does not open");
    Refusal::new(500, "exception", DAMAGED)
}

/// A row whose sealed header is what the index says of it; any other is damage, told to the operator.
fn as_indexed(row: &Version, opened: Arc<Opened>) -> Result<Arc<Opened>, Refusal> {
    let h = &opened.header;
    let sealed = (h.type_code, h.version, h.last_updated, opened.slot);
    if sealed == (row.resource_type.code(), row.version, row.last_updated, row.home) {
        return Ok(opened);
    }
    tracing::error!(
        rid = row.rid,
        "the sealed header of a row is not what the index says of it"
    );
    Err(Refusal::new(500, "exception", DAMAGED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepwell_ledger::{Header, Kind};
    use keepwell_search::index::RowKind;

    #[test]
    fn a_row_in_anothers_place_is_not_shown() {
        let observation = ResourceType::from_name("Observation").unwrap();
        let row = Version {
            rid: 7,
            resource_type: observation,
            version: 2,
            last_updated: 1_000,
            kind: RowKind::Version,
            home: 5,
            labels: 0,
        };
        let opened = |type_code, version, last_updated, slot| {
            let (kind, id) = (Kind::Version, "a".to_owned());
            let header = Header {
                kind,
                type_code,
                id,
                version,
                prev: 3,
                last_updated,
            };
            Arc::new(Opened {
                header,
                text: Vec::new(),
                slot,
            })
        };
        let code = observation.code();
        assert!(as_indexed(&row, opened(code, 2, 1_000, 5)).is_ok());
        for other in [
            opened(code + 1, 2, 1_000, 5),
            opened(code, 1, 1_000, 5),
            opened(code, 2, 999, 5),
            opened(code, 2, 1_000, 6),
        ] {
            assert!(as_indexed(&row, other).is_err_and(|e| e.status == 500));
        }
    }
}

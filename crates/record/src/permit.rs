//! May they: one Cedar decision per distinct question, cached; and the row predicate that search asks for every
//! candidate, chain, include and count.

use crate::event::Access;
use crate::follower::Records;
use crate::relation::{Panel, Standing};
use hashbrown::HashMap;
use keepwell_ledger::Wait;
use keepwell_model::actor::{Actor, Context, Place, PurposeOfUse};
use keepwell_policy::{Action, Decision, Engine, Labels, Obligation, Relation, Request, Target};
use keepwell_search::index::{RowFacts, Version};
use parking_lot::RwLock;
use std::cell::RefCell;
use std::sync::Arc;

/// Most decisions kept; the space of questions is far smaller unless somebody plays with labels and scopes.
const CACHE_MAX: usize = 65_536;

/// The policy engine behind its cache.
pub struct Gate {
    engine: Arc<Engine>,
    cache: RwLock<HashMap<Request, Arc<Decision>>>,
}

impl Gate {
    /// Puts a cache before `engine`.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            cache: RwLock::default(),
        }
    }

    /// The decision on `request`.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Arc<Decision> {
        if let Some(d) = self.cache.read().get(request) {
            return Arc::clone(d);
        }
        let d = Arc::new(self.engine.decide(request));
        let mut cache = self.cache.write();
        if cache.len() >= CACHE_MAX {
            cache.clear();
        }
        cache.insert(*request, Arc::clone(&d));
        d
    }

    /// Whether `action` on `target` can be allowed for some patient: the first gate of a search or history.
    #[must_use]
    pub fn any_relation(&self, ctx: &Context, action: Action, target: Target) -> Arc<Decision> {
        let ask = |relation| {
            self.decide(&Request::new(
                &ctx.actor,
                action,
                target,
                relation,
                Labels::NONE,
                ctx.purpose,
                ctx.place,
            ))
        };
        Relation::ALL
            .into_iter()
            .map(ask)
            .find(|d| d.permit)
            .unwrap_or_else(|| ask(Relation::Unrelated))
    }
}

/// What the policy demands of an answer beside the usual audit entry, taken together over all that it shows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Owed {
    /// Records of a Part 2 programme are among it: the notice of 42 CFR 2.32 goes with them.
    pub(crate) notice: bool,
    /// Restricted records are among it: the entry is on disk before the answer leaves.
    sync: bool,
    /// What the access rests on: an emergency before anything else.
    standing: Option<Standing>,
}

impl Owed {
    /// Adds what one decision demands, for one who stands so to the patient.
    pub(crate) fn add(&mut self, decision: &Decision, standing: Standing) {
        if self.standing.is_none() || standing.relation == Relation::Emergency {
            self.standing = Some(standing);
        }
        for obligation in &decision.obligations {
            match obligation {
                Obligation::Part2Notice => self.notice = true,
                Obligation::SyncAudit => self.sync = true,
                // Followed by whoever shows the row.
                Obligation::MinimalBanner => {}
            }
        }
    }

    /// Notes in the event what the access rests on.
    pub(crate) fn note(self, access: &mut Access) {
        if let Some(standing) = self.standing {
            access.rests_on(standing);
        }
    }

    /// What the audit entry waits for: the write-ahead log, or the disk.
    pub(crate) fn wait(self) -> Wait {
        if self.sync { Wait::Fsync } else { Wait::Wal }
    }
}

/// One actor's right to one action, asked row by row.
pub struct Permit {
    gate: Arc<Gate>,
    actor: Arc<Actor>,
    action: Action,
    purpose: PurposeOfUse,
    place: Place,
    records: Arc<Records>,
    /// The patients of a clinician as of the beginning of the request.
    panel: Option<Arc<Panel>>,
    /// Rows that are shown as a minimal banner count as well: the request asks nothing that a banner would not tell.
    banners: bool,
}

impl Records {
    /// How `actor`, a clinician with this panel or somebody else with none, stands to what is under `slot`. A resource of
    /// several patients is nobody's own: it speaks of others.
    pub(crate) fn standing(&self, actor: &Actor, panel: Option<&Panel>, slot: u32) -> Standing {
        let homes = self.homes.read();
        if let Some(panel) = panel {
            return panel.standing(&homes, slot);
        }
        match homes.owners.get(&slot) {
            Some(owner) if actor.patient.as_ref() == Some(owner) => Standing::OWN,
            Some(_) => Standing::UNRELATED,
            None if homes.several.contains_key(&slot) => Standing::UNRELATED,
            None => Standing::NO_PATIENT,
        }
    }

    /// Whether the slot stands for one or several patients.
    pub(crate) fn is_patients(&self, slot: u32) -> bool {
        let homes = self.homes.read();
        homes.owners.contains_key(&slot) || homes.several.contains_key(&slot)
    }
}

/// Whether the decision is to show no more than who the patient is.
pub(crate) fn is_banner(decision: &Decision) -> bool {
    decision.obligations.contains(&Obligation::MinimalBanner)
}

impl Permit {
    pub(crate) fn new(
        gate: &Arc<Gate>,
        ctx: &Context,
        action: Action,
        records: &Arc<Records>,
        panel: Option<Arc<Panel>>,
    ) -> Self {
        Self {
            gate: Arc::clone(gate),
            actor: Arc::clone(&ctx.actor),
            action,
            purpose: ctx.purpose,
            place: ctx.place,
            records: Arc::clone(records),
            panel,
            banners: false,
        }
    }

    /// Counts rows that are shown as a banner too.
    pub(crate) fn with_banners(mut self, banners: bool) -> Self {
        self.banners = banners;
        self
    }

    /// Whether treatment relationships decide for this actor.
    pub(crate) fn is_clinicians(&self) -> bool {
        self.panel.is_some()
    }

    fn standing(&self, slot: u32) -> Standing {
        self.records.standing(&self.actor, self.panel.as_deref(), slot)
    }

    /// Whether the row may be shown for this action.
    #[must_use]
    pub fn permits(&self, row: &RowFacts) -> bool {
        self.asks(row, self.standing(row.slot).relation)
    }

    /// Whether a row that is permitted is shown as a banner only.
    pub(crate) fn banner_only(&self, row: &Version) -> bool {
        self.banners && is_banner(&self.decision(&row.facts(), self.standing(row.home).relation))
    }

    /// What showing these rows, which are permitted, demands.
    pub(crate) fn owed<'r>(&self, rows: impl IntoIterator<Item = &'r Version>) -> Owed {
        let mut owed = Owed::default();
        let mut last = None;
        for row in rows.into_iter().map(Version::facts) {
            // Neighbours are mostly of one patient, type and label set.
            let key = (row.slot, row.resource_type, row.labels);
            if last.replace(key) != Some(key) {
                let standing = self.standing(row.slot);
                owed.add(&self.decision(&row, standing.relation), standing);
            }
        }
        owed
    }

    fn asks(&self, row: &RowFacts, relation: Relation) -> bool {
        let decision = self.decision(row, relation);
        decision.permit && (self.banners || !is_banner(&decision))
    }

    fn decision(&self, row: &RowFacts, relation: Relation) -> Arc<Decision> {
        let request = Request::new(
            &self.actor,
            self.action,
            Target::Type(row.resource_type),
            relation,
            Labels(row.labels),
            self.purpose,
            self.place,
        );
        self.gate.decide(&request)
    }

    /// The same as a predicate that remembers what it has asked: a search calls it for every candidate.
    pub fn predicate(&self) -> impl Fn(&RowFacts) -> bool + '_ {
        let asked = RefCell::new(Vec::<((u16, u16, Relation), bool)>::new());
        let last = RefCell::new(None::<(u32, Relation)>);
        move |row| {
            let relation = match *last.borrow() {
                Some((home, relation)) if home == row.slot => relation,
                _ => self.standing(row.slot).relation,
            };
            *last.borrow_mut() = Some((row.slot, relation));
            let key = (row.resource_type.code(), row.labels, relation);
            if let Some((_, yes)) = asked.borrow().iter().find(|(k, _)| *k == key) {
                return *yes;
            }
            let yes = self.asks(row, relation);
            asked.borrow_mut().push((key, yes));
            yes
        }
    }
}

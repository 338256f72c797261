//! May they: one Cedar decision per distinct question, cached; and the row predicate that search asks for every
//! candidate, chain, include and count.

use crate::follower::Homes;
use hashbrown::HashMap;
use keepwell_ledger::Wait;
use keepwell_model::actor::{Actor, Context, Place, PurposeOfUse, Role};
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
}

impl Owed {
    /// Adds what one decision demands.
    pub(crate) fn add(&mut self, decision: &Decision) {
        for obligation in &decision.obligations {
            match obligation {
                Obligation::Part2Notice => self.notice = true,
                Obligation::SyncAudit => self.sync = true,
            }
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
    homes: Arc<dyn HomeLookup>,
}

/// Tells what a slot stands for.
pub(crate) trait HomeLookup: Send + Sync {
    /// How `actor` stands to the patient of `slot`.
    fn relation(&self, actor: &Actor, slot: u32) -> Relation;
}

impl HomeLookup for crate::follower::Records {
    fn relation(&self, actor: &Actor, slot: u32) -> Relation {
        relation(&self.homes.read(), actor, slot)
    }
}

/// How `actor` stands to the patient of `slot`. A resource of several patients is nobody's own: it speaks of others.
pub(crate) fn relation(homes: &Homes, actor: &Actor, slot: u32) -> Relation {
    if let Some(owner) = homes.owners.get(&slot) {
        return match &actor.patient {
            Some(own) if own == owner => Relation::Own,
            _ => stranger(actor),
        };
    }
    if homes.several.contains_key(&slot) {
        return stranger(actor);
    }
    Relation::NoPatient
}

/// The relation to a patient who is not the actor. Treatment relationships are not recorded yet: the workforce of the
/// organisation counts as related to all of its patients, a patient or machine to none.
pub(crate) fn stranger(actor: &Actor) -> Relation {
    match actor.role {
        Role::Patient | Role::Service => Relation::Unrelated,
        _ => Relation::Related,
    }
}

impl Permit {
    pub(crate) fn new(gate: &Arc<Gate>, ctx: &Context, action: Action, homes: Arc<dyn HomeLookup>) -> Self {
        Self {
            gate: Arc::clone(gate),
            actor: Arc::clone(&ctx.actor),
            action,
            purpose: ctx.purpose,
            place: ctx.place,
            homes,
        }
    }

    /// Whether the row may be shown for this action.
    #[must_use]
    pub fn permits(&self, row: &RowFacts) -> bool {
        let relation = self.homes.relation(&self.actor, row.slot);
        self.asks(row, relation)
    }

    /// What showing these rows, which are permitted, demands.
    pub(crate) fn owed<'r>(&self, rows: impl IntoIterator<Item = &'r Version>) -> Owed {
        let mut owed = Owed::default();
        let mut last = None;
        for row in rows.into_iter().map(Version::facts) {
            // Neighbours are mostly of one patient, type and label set.
            let key = (row.slot, row.resource_type, row.labels);
            if last.replace(key) != Some(key) {
                owed.add(&self.decision(&row, self.homes.relation(&self.actor, row.slot)));
            }
        }
        owed
    }

    fn asks(&self, row: &RowFacts, relation: Relation) -> bool {
        self.decision(row, relation).permit
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
                _ => self.homes.relation(&self.actor, row.slot),
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

impl crate::follower::Records {
    /// How `actor` stands to the patient of `slot`.
    pub(crate) fn relation_of(&self, actor: &Actor, slot: u32) -> Relation {
        relation(&self.homes.read(), actor, slot)
    }
}

impl crate::follower::Records {
    /// Whether the slot stands for one or several patients.
    pub(crate) fn is_patients(&self, slot: u32) -> bool {
        let homes = self.homes.read();
        homes.owners.contains_key(&slot) || homes.several.contains_key(&slot)
    }
}

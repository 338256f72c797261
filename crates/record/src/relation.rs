//! How a clinician stands to each patient: the treatment relationship (45 CFR 164.502(b), AZ-4).
//!
//! Nothing of it is stored. What is on record anyway - encounters, care teams, appointments, orders, documents - says
//! whom somebody treats; own documents add the shift somebody is on, the colleague somebody covers, and the access
//! somebody stated a reason for. From these a [`Panel`] is made for each clinician who asks: a map from a patient's slot
//! to a [`Standing`]. A row's relation is then one look-up.
//!
//! **Effective on the next request (AZ-8).** A panel is thrown away when a resource is created that names its clinician
//! or units, when any resource of a type that makes relationships is changed or deleted, when a document of the kinds
//! `duty`, `cover`, `grant` is written, at the first instant at which one of these begins or ends, and after a minute,
//! because the windows move.

use crate::follower::{Homes, Records};
use crate::standing::Documents;
use hashbrown::{HashMap, HashSet};
use keepwell_model::actor::{Actor, Role};
use keepwell_model::home::Home;
use keepwell_model::reference::Base;
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_policy::Relation;
use keepwell_search::index::{Index, Limits, Version};
use keepwell_search::parse::{Options, parse};
use keepwell_search::term::{Extracted, Term};
use keepwell_search::terminology::Hl7;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A panel is made anew after this many milliseconds: the windows are days, a minute is close enough.
const FRESH_MS: i64 = 60_000;
/// More panels than this are forgotten all at once.
const PANELS_MAX: usize = 10_000;
/// How deep units may lie in units: a bed in a room in a ward.
const DEPTH: usize = 4;
/// How often a panel is made again because something changed meanwhile; the last one is used, but not kept.
const TRIES: usize = 3;

/// What a standing rests on. The name goes into the access log as the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Basis {
    /// Participant of an encounter.
    Encounter,
    /// Member of a care team.
    CareTeam,
    /// An appointment.
    Appointment,
    /// Ordered something, or is to carry it out.
    Order,
    /// Did or reported something.
    Performed,
    /// Owns a task.
    Task,
    /// Wrote a document.
    Author,
    /// The patient's general practitioner.
    GeneralPractitioner,
    /// Signed on to the unit the patient is in.
    Unit,
    /// Covers for a colleague.
    Cover,
    /// Stated a reason.
    Stated,
    /// An emergency access is running.
    Emergency,
    /// The patient is, was or will be in one of the own units.
    OwnUnit,
    /// Treated formerly.
    Former,
    /// Nothing.
    None,
}

impl Basis {
    /// The name in the access log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Basis::Encounter => "encounter",
            Basis::CareTeam => "care team",
            Basis::Appointment => "appointment",
            Basis::Order => "order",
            Basis::Performed => "procedure or report",
            Basis::Task => "task",
            Basis::Author => "author of a document",
            Basis::GeneralPractitioner => "general practitioner",
            Basis::Unit => "signed on to the unit",
            Basis::Cover => "covers for a colleague",
            Basis::Stated => "stated reason",
            Basis::Emergency => "emergency access",
            Basis::OwnUnit => "patient of the own units",
            Basis::Former => "formerly treated",
            Basis::None => "",
        }
    }
}

/// How somebody stands to a patient, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) relation: Relation,
    pub(crate) basis: Basis,
}

impl Standing {
    const fn new(relation: Relation, basis: Basis) -> Self {
        Self { relation, basis }
    }

    /// Of nobody's patient.
    pub(crate) const UNRELATED: Standing = Standing::new(Relation::Unrelated, Basis::None);
    /// About no patient.
    pub(crate) const NO_PATIENT: Standing = Standing::new(Relation::NoPatient, Basis::None);
    /// The own record.
    pub(crate) const OWN: Standing = Standing::new(Relation::Own, Basis::None);

    /// How much it allows, more first.
    fn rank(self) -> u8 {
        match self.relation {
            Relation::Own => 0,
            Relation::Related => 1,
            Relation::Emergency => 2,
            Relation::Plausible => 3,
            Relation::Unrelated | Relation::NoPatient => 4,
        }
    }

    /// The one of both that allows less: what speaks of two patients asks for a standing to both.
    fn weaker(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }
}

/// One clinician's patients.
#[derive(Debug)]
pub(crate) struct Panel {
    standings: HashMap<u32, Standing>,
    /// Made at this instant, in ms.
    at: i64,
    /// No longer good from this instant on, in ms.
    until: i64,
    /// The resources by which it is found: the clinician, their roles, the units looked at.
    names: HashSet<(ResourceType, String)>,
}

impl Panel {
    /// Of one who stands to nobody; not good for longer than the request.
    pub(crate) fn nobody(now: Timestamp) -> Self {
        Self {
            standings: HashMap::new(),
            at: now.0,
            until: now.0,
            names: HashSet::new(),
        }
    }

    fn holds_at(&self, now: Timestamp) -> bool {
        (self.at..self.until).contains(&now.0)
    }

    /// How the clinician stands to what is under `slot`.
    pub(crate) fn standing(&self, homes: &Homes, slot: u32) -> Standing {
        if let Some(standing) = self.standings.get(&slot) {
            return *standing;
        }
        match homes.several.get(&slot) {
            Some(ids) => self.weakest(homes, ids),
            None if homes.owners.contains_key(&slot) => Standing::UNRELATED,
            None => Standing::NO_PATIENT,
        }
    }

    fn weakest(&self, homes: &Homes, ids: &[String]) -> Standing {
        let one = |id: &String| homes.patients.get(id).and_then(|s| self.standings.get(s)).copied();
        ids.iter()
            .map(|id| one(id).unwrap_or(Standing::UNRELATED))
            .reduce(Standing::weaker)
            .unwrap_or(Standing::UNRELATED)
    }

    /// The same for a home that may not have a slot yet.
    pub(crate) fn standing_to(&self, homes: &Homes, home: &Home) -> Standing {
        match home {
            Home::Shared => Standing::NO_PATIENT,
            Home::Patient(id) => self.weakest(homes, std::slice::from_ref(id)),
            Home::Several(ids) => self.weakest(homes, ids),
        }
    }
}

/// Whose relation decides: physicians and nurses. All others have their minimum necessary without one.
pub(crate) fn needs_panel(role: Role) -> bool {
    matches!(role, Role::Physician | Role::Nurse)
}

/// The panels of those who asked lately.
#[derive(Default)]
pub(crate) struct Panels {
    kept: RwLock<HashMap<(String, String), Entry>>,
    /// Gives each generation of an entry its number, none twice: an entry may be forgotten and made again.
    generations: AtomicU64,
}

struct Entry {
    /// Another one since the last change; a panel that was begun before is not kept.
    generation: u64,
    panel: Option<Arc<Panel>>,
}

impl Panels {
    /// A kept panel that is still good.
    pub(crate) fn find(&self, key: &(String, String), now: Timestamp) -> Option<Arc<Panel>> {
        let kept = self.kept.read();
        let panel = kept.get(key)?.panel.as_ref()?;
        panel.holds_at(now).then(|| Arc::clone(panel))
    }

    /// The panel of `key`, made by `make` where none is kept.
    pub(crate) fn get<E>(
        &self,
        key: &(String, String),
        now: Timestamp,
        make: impl Fn() -> Result<Panel, E>,
    ) -> Result<Arc<Panel>, E> {
        if let Some(panel) = self.find(key, now) {
            return Ok(panel);
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let generation = {
                let mut kept = self.kept.write();
                if kept.len() >= PANELS_MAX {
                    kept.clear();
                }
                let entry = kept.entry(key.clone()).or_insert_with(|| Entry {
                    generation: self.next_generation(),
                    panel: None,
                });
                // While it is being made nobody knows its names: every change makes it void.
                entry.panel = None;
                entry.generation
            };
            let panel = Arc::new(make()?);
            let mut kept = self.kept.write();
            match kept.get_mut(key) {
                Some(entry) if entry.generation == generation => {
                    entry.panel = Some(Arc::clone(&panel));
                    return Ok(panel);
                }
                // Something changed while it was made, after this request had come: it may be used, not kept.
                _ if tries >= TRIES => return Ok(panel),
                _ => {}
            }
        }
    }

    /// Makes void what `concerned` says of a panel; one that is just being made is void in any case.
    fn void(&self, concerned: impl Fn(&Panel) -> bool) {
        if self.kept.read().is_empty() {
            return;
        }
        for entry in self.kept.write().values_mut() {
            if entry.panel.as_ref().is_none_or(|p| concerned(p)) {
                entry.generation = self.next_generation();
                entry.panel = None;
            }
        }
    }

    fn next_generation(&self) -> u64 {
        self.generations.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes all void.
    pub(crate) fn void_all(&self) {
        self.void(|_| true);
    }

    /// Makes void those who are named by a new resource.
    pub(crate) fn void_named(&self, extracted: &Extracted<'_>) {
        if self.kept.read().is_empty() {
            return;
        }
        let named: HashSet<(ResourceType, String)> = extracted
            .terms
            .iter()
            .filter_map(|(_, term)| match term {
                Term::Reference { target, id } => Some((*target, id.clone().into_owned())),
                _ => None,
            })
            .collect();
        self.void(|panel| !panel.names.is_disjoint(&named));
    }
}

/// Whether resources of this type make or end relationships.
pub(crate) fn bears(t: ResourceType) -> bool {
    matches!(
        t.name(),
        "Encounter"
            | "CareTeam"
            | "Appointment"
            | "ServiceRequest"
            | "MedicationRequest"
            | "Procedure"
            | "DiagnosticReport"
            | "Task"
            | "Composition"
            | "DocumentReference"
            | "Patient"
            | "PractitionerRole"
            | "Location"
    )
}

/// Where a relationship is read from: a type, the parameters that name the clinician, and when it holds. Each of `while_`
/// is one way of holding: all its parameters must match; `{-30d}` and the like stand for an instant relative to now.
struct Source {
    resource_type: &'static str,
    by: &'static [&'static str],
    basis: Basis,
    while_: &'static [&'static [(&'static str, &'static str)]],
    /// Matches what was once a relationship; not what was entered in error.
    once: &'static [(&'static str, &'static str)],
}

const NOT_IN_ERROR: &[(&str, &str)] = &[("status:not", "entered-in-error")];

const SOURCES: &[Source] = &[
    Source {
        resource_type: "Encounter",
        by: &["participant"],
        basis: Basis::Encounter,
        while_: &[
            &[("status", "planned,arrived,triaged,in-progress,onleave")],
            &[("status", "finished"), ("date", "ge{-30d}")],
        ],
        once: &[("status", "finished,unknown")],
    },
    Source {
        resource_type: "CareTeam",
        by: &["participant"],
        basis: Basis::CareTeam,
        while_: &[&[("status", "active")]],
        once: NOT_IN_ERROR,
    },
    Source {
        resource_type: "Appointment",
        by: &["actor"],
        basis: Basis::Appointment,
        while_: &[&[
            (
                "status",
                "proposed,pending,booked,arrived,fulfilled,checked-in,waitlist",
            ),
            ("date", "ge{-14d}"),
            ("date", "le{+14d}"),
        ]],
        once: &[("status", "booked,arrived,fulfilled,checked-in,noshow")],
    },
    Source {
        resource_type: "ServiceRequest",
        by: &["requester", "performer"],
        basis: Basis::Order,
        while_: &[
            &[("status", "draft,active,on-hold")],
            &[("status", "completed,revoked,unknown"), ("authored", "ge{-90d}")],
        ],
        once: NOT_IN_ERROR,
    },
    Source {
        resource_type: "MedicationRequest",
        by: &["requester"],
        basis: Basis::Order,
        while_: &[
            &[("status", "draft,active,on-hold")],
            &[
                ("status", "completed,stopped,cancelled,unknown"),
                ("authoredon", "ge{-90d}"),
            ],
        ],
        once: NOT_IN_ERROR,
    },
    Source {
        resource_type: "Procedure",
        by: &["performer"],
        basis: Basis::Performed,
        while_: &[
            &[("status", "preparation,in-progress,on-hold")],
            &[("status", "completed,stopped,not-done,unknown"), ("date", "ge{-90d}")],
        ],
        once: NOT_IN_ERROR,
    },
    Source {
        resource_type: "DiagnosticReport",
        by: &["performer"],
        basis: Basis::Performed,
        while_: &[
            &[("status", "registered,partial,preliminary")],
            &[("status:not", "entered-in-error"), ("date", "ge{-90d}")],
        ],
        once: NOT_IN_ERROR,
    },
    Source {
        resource_type: "Task",
        by: &["owner"],
        basis: Basis::Task,
        while_: &[
            &[("status", "draft,requested,received,accepted,ready,in-progress,on-hold")],
            &[
                ("status", "completed,failed,cancelled,rejected"),
                ("authored-on", "ge{-90d}"),
            ],
        ],
        once: NOT_IN_ERROR,
    },
    Source {
        resource_type: "Composition",
        by: &["author"],
        basis: Basis::Author,
        while_: &[&[("status:not", "entered-in-error"), ("date", "ge{-90d}")]],
        once: NOT_IN_ERROR,
    },
    Source {
        resource_type: "DocumentReference",
        by: &["author"],
        basis: Basis::Author,
        while_: &[&[("status:not", "entered-in-error"), ("date", "ge{-90d}")]],
        once: NOT_IN_ERROR,
    },
    Source {
        resource_type: "Patient",
        by: &["general-practitioner"],
        basis: Basis::GeneralPractitioner,
        while_: &[&[]],
        once: &[],
    },
];

/// What of the units makes a patient one of theirs now, for those who are signed on to them.
const IN_UNIT: &[(&str, &[(&str, &str)])] = &[("Encounter", &[("status", "arrived,triaged,in-progress,onleave")])];
/// And what makes it plausible that somebody who works there has to do with a patient.
const NEAR_UNIT: &[(&str, &[(&str, &str)])] = &[
    (
        "Encounter",
        &[
            ("status:not", "entered-in-error"),
            ("date", "ge{-7d}"),
            ("date", "le{+7d}"),
        ],
    ),
    (
        "Appointment",
        &[
            ("status:not", "entered-in-error"),
            ("date", "ge{-7d}"),
            ("date", "le{+7d}"),
        ],
    ),
];

/// Makes one panel out of the index and the own documents.
struct Maker<'i> {
    index: &'i Index,
    homes: &'i Homes,
    base: &'i Base,
    now: Timestamp,
    standings: HashMap<u32, Standing>,
    names: HashSet<(ResourceType, String)>,
}

impl Maker<'_> {
    /// The matches of a search by everything that is stored, newest first.
    fn find(&self, t: ResourceType, params: &[(String, String)]) -> Vec<Version> {
        let options = Options {
            lenient: false,
            now: self.now,
            base: self.base,
            terminology: &Hl7,
        };
        let query = match parse(t, params, &options) {
            Ok(query) => query,
            Err(_) => {
                // Less is found, so less is permitted. A test asks for every search of the tables above.
                tracing::error!(resource = t.name(), "a search for relationships is not understood");
                return Vec::new();
            }
        };
        let all = Limits {
            page: usize::MAX,
            includes: 0,
        };
        self.index.search(&query, u64::MAX, &|_| true, None, all).matches
    }

    /// Notes the patients of what a search finds.
    fn credit(&mut self, t: ResourceType, params: &[(String, String)], standing: Standing) {
        let mut several: HashSet<u32> = HashSet::new();
        for hit in self.find(t, params) {
            if self.homes.owners.contains_key(&hit.home) {
                self.note(hit.home, standing);
            } else if self.homes.several.contains_key(&hit.home) {
                several.insert(hit.home);
            }
        }
        // What stands between several patients is about those of them whom it names as its patient.
        let ids: HashSet<&String> = several
            .iter()
            .filter_map(|s| self.homes.several.get(s))
            .flatten()
            .collect();
        let mut about = Vec::new();
        for id in ids {
            let mut params = params.to_vec();
            params.push(("patient".to_owned(), format!("Patient/{id}")));
            if let Some(slot) = self.homes.patients.get(id)
                && !self.find(t, &params).is_empty()
            {
                about.push(*slot);
            }
        }
        for slot in about {
            self.note(slot, standing);
        }
    }

    fn note(&mut self, slot: u32, standing: Standing) {
        let kept = self.standings.entry(slot).or_insert(standing);
        if standing.rank() < kept.rank() {
            *kept = standing;
        }
    }

    fn note_patient(&mut self, id: &str, standing: Standing) {
        if let Some(slot) = self.homes.patients.get(id) {
            self.note(*slot, standing);
        }
    }

    /// `Type/id` of what a search finds.
    fn ids(&self, name: &str, params: &[(&str, String)]) -> Vec<String> {
        let Some(t) = ResourceType::from_name(name) else {
            return Vec::new();
        };
        let params: Vec<(String, String)> = params.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        self.find(t, &params)
            .iter()
            .filter_map(|hit| self.index.id_of(t, hit.rid))
            .map(|id| format!("{name}/{id}"))
            .collect()
    }

    /// The clinician and the roles they have, as references.
    fn identities(&mut self, practitioner: &str) -> Vec<String> {
        let own = format!("Practitioner/{practitioner}");
        let mut all = self.ids(
            "PractitionerRole",
            &[("practitioner", own.clone()), ("active:not", "false".to_owned())],
        );
        all.push(own);
        self.name_all(&all);
        all
    }

    /// The units of the clinician's roles, with what lies in them.
    fn units(&mut self, practitioner: &str) -> Vec<String> {
        let own = format!("Practitioner/{practitioner}");
        let first = self.ids("Location", &[("_has:PractitionerRole:location:practitioner", own)]);
        self.within(first)
    }

    fn within(&mut self, units: Vec<String>) -> Vec<String> {
        let mut all = units;
        let mut level = all.clone();
        for _ in 0..DEPTH {
            if level.is_empty() {
                break;
            }
            level = self.ids("Location", &[("partof", level.join(","))]);
            level.retain(|unit| !all.contains(unit));
            all.extend(level.iter().cloned());
        }
        self.name_all(&all);
        all
    }

    fn name_all(&mut self, references: &[String]) {
        for (name, id) in references.iter().filter_map(|r| r.split_once('/')) {
            if let Some(t) = ResourceType::from_name(name) {
                self.names.insert((t, id.to_owned()));
            }
        }
    }

    fn params(&self, fixed: &[(&str, &str)], by: &str, whom: &[String]) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = fixed
            .iter()
            .map(|(name, value)| ((*name).to_owned(), self.instant(value)))
            .collect();
        all.push((by.to_owned(), whom.join(",")));
        all
    }

    /// `ge{-30d}` with the instant it stands for.
    fn instant(&self, value: &str) -> String {
        let days = |text: &str| -> Option<(String, i64)> {
            let (prefix, rest) = text.split_once('{')?;
            let days: i64 = rest.strip_suffix("d}")?.parse().ok()?;
            Some((prefix.to_owned(), days))
        };
        match days(value) {
            Some((prefix, days)) => format!("{prefix}{}", Timestamp(self.now.0.saturating_add(days * 86_400_000))),
            None => value.to_owned(),
        }
    }

    /// The patients somebody treats, by what is on record. `covered`: of a colleague, which ends with the cover and says
    /// nothing about former patients.
    fn assigned(&mut self, practitioner: &str, covered: bool) {
        let whom = self.identities(practitioner);
        for source in SOURCES {
            let Some(t) = ResourceType::from_name(source.resource_type) else {
                continue;
            };
            let basis = if covered { Basis::Cover } else { source.basis };
            for by in source.by {
                for holds in source.while_ {
                    let params = self.params(holds, by, &whom);
                    self.credit(t, &params, Standing::new(Relation::Related, basis));
                }
                if !covered {
                    let params = self.params(source.once, by, &whom);
                    self.credit(t, &params, Standing::new(Relation::Plausible, Basis::Former));
                }
            }
        }
    }

    fn of_units(&mut self, units: &[String], what: &[(&str, &[(&str, &str)])], standing: Standing) {
        if units.is_empty() {
            return;
        }
        for (name, fixed) in what {
            if let Some(t) = ResourceType::from_name(name) {
                let params = self.params(fixed, "location", units);
                self.credit(t, &params, standing);
            }
        }
    }
}

impl Records {
    /// The units of a clinician's roles with what lies in them, as `Location/id`.
    pub(crate) fn units_of(&self, practitioner: &str, now: Timestamp) -> Vec<String> {
        let (index, homes) = (self.index.read(), self.homes.read());
        let mut maker = Maker {
            index: &index,
            homes: &homes,
            base: &self.base,
            now,
            standings: HashMap::new(),
            names: HashSet::new(),
        };
        maker.units(practitioner)
    }

    /// Makes the panel of `actor` as of `now`.
    pub(crate) fn make_panel(&self, actor: &Actor, documents: &Documents, now: Timestamp) -> Panel {
        let index = self.index.read();
        let homes = self.homes.read();
        let mut maker = Maker {
            index: &index,
            homes: &homes,
            base: &self.base,
            now,
            standings: HashMap::new(),
            names: HashSet::new(),
        };
        let said = documents.of(&actor.id, now);
        if let Some(practitioner) = &actor.practitioner {
            maker.assigned(practitioner, false);
            let units = maker.units(practitioner);
            maker.of_units(&units, NEAR_UNIT, Standing::new(Relation::Plausible, Basis::OwnUnit));
            // Signed on, but only to what is still one of the own units.
            let on: Vec<String> = said.units.iter().filter(|u| units.contains(u)).cloned().collect();
            let on = maker.within(on);
            maker.of_units(&on, IN_UNIT, Standing::new(Relation::Related, Basis::Unit));
        }
        for practitioner in &said.covered {
            maker.assigned(practitioner, true);
        }
        for patient in &said.stated {
            maker.note_patient(patient, Standing::new(Relation::Related, Basis::Stated));
        }
        for patient in &said.emergencies {
            maker.note_patient(patient, Standing::new(Relation::Emergency, Basis::Emergency));
        }
        Panel {
            standings: maker.standings,
            at: now.0,
            until: now.0.saturating_add(FRESH_MS).min(said.changes),
            names: maker.names,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A parameter that is misspelt would find nothing, and nobody would be related: each search must parse.
    #[test]
    fn every_search_for_relationships_is_understood() {
        let (index, homes, base) = (Index::new([7; 16]), Homes::default(), Base::new("localhost"));
        let maker = Maker {
            index: &index,
            homes: &homes,
            base: &base,
            now: Timestamp(1_795_381_200_000),
            standings: HashMap::new(),
            names: HashSet::new(),
        };
        let options = Options {
            lenient: false,
            now: maker.now,
            base: maker.base,
            terminology: &Hl7,
        };
        let parses = |name: &str, params: &[(String, String)]| {
            let t = ResourceType::from_name(name).unwrap();
            if let Err(issues) = parse(t, params, &options) {
                panic!("{name} {params:?}: {issues:?}");
            }
        };
        let whom = ["Practitioner/p".to_owned(), "PractitionerRole/r".to_owned()];
        for source in SOURCES {
            assert!(bears(ResourceType::from_name(source.resource_type).unwrap()));
            for by in source.by {
                for holds in source.while_.iter().chain([&source.once]) {
                    let mut params = maker.params(holds, by, &whom);
                    parses(source.resource_type, &params);
                    if source.resource_type != "Patient" {
                        params.push(("patient".to_owned(), "Patient/x".to_owned()));
                        parses(source.resource_type, &params);
                    }
                }
            }
        }
        for (name, fixed) in IN_UNIT.iter().chain(NEAR_UNIT) {
            parses(name, &maker.params(fixed, "location", &["Location/u".to_owned()]));
        }
        let one = |n: &str, v: &str| vec![(n.to_owned(), v.to_owned())];
        parses("PractitionerRole", &one("active:not", "false"));
        parses(
            "Location",
            &one("_has:PractitionerRole:location:practitioner", "Practitioner/p"),
        );
        parses("Location", &one("partof", "Location/a,Location/b"));
    }

    #[test]
    fn what_speaks_of_two_patients_asks_for_a_standing_to_both() {
        let related = Standing::new(Relation::Related, Basis::Encounter);
        let emergency = Standing::new(Relation::Emergency, Basis::Emergency);
        let mut homes = Homes::default();
        for (slot, id) in [(1, "a"), (2, "b"), (3, "c")] {
            homes.learn(slot, &Home::Patient(id.into()));
        }
        let ids = |of: &[&str]| of.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        homes.learn(10, &Home::Several(ids(&["a", "b"])));
        homes.learn(11, &Home::Several(ids(&["a", "c"])));
        let panel = Panel {
            standings: [(1, related), (2, emergency)].into(),
            at: 0,
            until: 10,
            names: HashSet::new(),
        };
        assert_eq!(panel.standing(&homes, 1), related);
        assert_eq!(panel.standing(&homes, 3), Standing::UNRELATED);
        assert_eq!(panel.standing(&homes, 10), emergency);
        assert_eq!(panel.standing(&homes, 11), Standing::UNRELATED);
        assert_eq!(panel.standing(&homes, 99), Standing::NO_PATIENT);
        assert_eq!(
            panel.standing_to(&homes, &Home::Patient("new".into())),
            Standing::UNRELATED
        );
        assert_eq!(panel.standing_to(&homes, &Home::Shared), Standing::NO_PATIENT);
    }

    #[test]
    fn a_panel_that_was_made_while_something_changed_is_not_kept() {
        let panels = Panels::default();
        let key = ("u".to_owned(), "p".to_owned());
        let made = std::cell::Cell::new(0);
        let make = |void: bool| {
            made.set(made.get() + 1);
            if void && made.get() == 1 {
                panels.void_all();
            }
            Ok::<_, ()>(Panel {
                standings: HashMap::new(),
                at: 0,
                until: 100,
                names: HashSet::new(),
            })
        };
        panels.get(&key, Timestamp(5), || make(true)).unwrap();
        assert_eq!(made.get(), 2, "made again, since the first was begun before the change");
        panels.get(&key, Timestamp(6), || make(false)).unwrap();
        assert_eq!(made.get(), 2);
        // Nor is one whose entry was forgotten, with all others, and begun anew by somebody else after the change.
        let other = ("v".to_owned(), "q".to_owned());
        let begun = std::cell::Cell::new(0);
        let nobody = || Ok::<_, ()>(Panel::nobody(Timestamp(7)));
        panels
            .get(&other, Timestamp(7), || {
                begun.set(begun.get() + 1);
                if begun.get() == 1 {
                    panels.kept.write().clear();
                    panels.void_all();
                    panels.get(&other, Timestamp(7), nobody).unwrap();
                }
                nobody()
            })
            .unwrap();
        assert_eq!(begun.get(), 2);
        panels.get(&key, Timestamp(6), || make(false)).unwrap();
        // Its time is over; or the clock was set back to before it was made.
        assert!(panels.find(&key, Timestamp(100)).is_none());
        assert!(panels.find(&key, Timestamp(-1)).is_none());
    }
}

//! The own documents that add to treatment relationships: `duty`, `cover` and `grant` (docs/formats/documents.md).
//!
//! They are few and small; they are kept parsed, and read again where their kind was written to.

use crate::answer::Refusal;
use crate::door::Door;
use crate::own::{COVER, DUTY, GRANT};
use hashbrown::HashMap;
use keepwell_model::actor::Role;
use keepwell_model::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Somebody is signed on to units until a time. The document's id is that of the user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Duty {
    /// Locations, as `Location/id`.
    pub(crate) units: Vec<String>,
    /// From, in ms.
    pub(crate) from: i64,
    /// The first instant at which it no longer holds, in ms.
    pub(crate) until: i64,
}

/// Somebody covers for a colleague. Made by the colleague.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cover {
    /// User who covers.
    pub(crate) user: String,
    /// User who is covered for.
    pub(crate) colleague: String,
    /// The colleague's Practitioner.
    pub(crate) practitioner: String,
    /// From, in ms.
    pub(crate) from: i64,
    /// The first instant at which it no longer holds, in ms.
    pub(crate) until: i64,
}

/// Why access to one patient was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantKind {
    /// The glass was broken: reviewed afterwards.
    Emergency,
    /// A reason was stated for a patient with whom a relationship is plausible.
    Stated,
}

/// Access of a user to one patient for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grant {
    pub(crate) user: String,
    /// The name shown to the reviewer.
    pub(crate) display: String,
    /// By name.
    pub(crate) role: String,
    /// Logical id of the Patient, and nothing else about the patient.
    pub(crate) patient: String,
    pub(crate) kind: GrantKind,
    /// Code of the reason.
    pub(crate) code: String,
    /// The reason in the user's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) text: String,
    pub(crate) from: i64,
    /// The first instant at which it no longer holds.
    pub(crate) until: i64,
    /// Its end is in the log: by the user, or because its time was over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) ended: bool,
    /// When the review is due; none for a stated reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) due: Option<i64>,
    /// What the review came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reviewed: Option<Reviewed>,
}

/// What a review came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reviewed {
    /// User who reviewed.
    pub(crate) by: String,
    pub(crate) at: i64,
    /// Whether the access was justified.
    pub(crate) justified: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) note: String,
}

impl Grant {
    pub(crate) fn runs_at(&self, now: Timestamp) -> bool {
        !self.ended && (self.from..self.until).contains(&now.0)
    }

    /// Still waits for its review.
    pub(crate) fn open(&self) -> bool {
        self.due.is_some() && self.reviewed.is_none()
    }

    pub(crate) fn role(&self) -> Option<Role> {
        Role::from_name(&self.role)
    }
}

/// A grant with where it is kept.
#[derive(Clone, Debug)]
pub(crate) struct KeptGrant {
    pub(crate) id: String,
    pub(crate) version: u32,
    pub(crate) grant: Grant,
}

/// What the documents say, parsed.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    duties: HashMap<String, Duty>,
    /// With the id of the document.
    pub(crate) covers: Vec<(String, Cover)>,
    pub(crate) grants: Vec<Arc<KeptGrant>>,
}

/// What the documents say for one user at one instant.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) units: Vec<String>,
    /// Practitioners of the colleagues covered for.
    pub(crate) covered: Vec<String>,
    /// Patients a reason was stated for.
    pub(crate) stated: Vec<String>,
    /// Patients under an emergency access.
    pub(crate) emergencies: Vec<String>,
    /// The next instant at which something begins or ends.
    pub(crate) changes: i64,
}

impl Documents {
    /// What holds for `user` at `now`.
    pub(crate) fn of(&self, user: &str, now: Timestamp) -> Said {
        let mut said = Said {
            units: Vec::new(),
            covered: Vec::new(),
            stated: Vec::new(),
            emergencies: Vec::new(),
            changes: i64::MAX,
        };
        // Notes the bounds that lie ahead, and tells whether `now` lies within.
        let mut within = |from: i64, until: i64| {
            for bound in [from, until] {
                if bound > now.0 {
                    said.changes = said.changes.min(bound);
                }
            }
            (from..until).contains(&now.0)
        };
        if let Some(duty) = self.duties.get(user)
            && within(duty.from, duty.until)
        {
            said.units.clone_from(&duty.units);
        }
        for (_, cover) in self.covers.iter().filter(|(_, c)| c.user == user) {
            if within(cover.from, cover.until) {
                said.covered.push(cover.practitioner.clone());
            }
        }
        for grant in self
            .grants
            .iter()
            .map(|g| &g.grant)
            .filter(|g| g.user == user && !g.ended)
        {
            if within(grant.from, grant.until) {
                match grant.kind {
                    GrantKind::Emergency => said.emergencies.push(grant.patient.clone()),
                    GrantKind::Stated => said.stated.push(grant.patient.clone()),
                }
            }
        }
        said
    }
}

/// One document, parsed.
#[derive(Clone)]
enum Parsed {
    Duty(Duty),
    Cover(Cover),
    Grant(Arc<KeptGrant>),
}

/// The documents as last read.
#[derive(Default)]
pub(crate) struct Keeping {
    /// Which state of the documents `all` is.
    generation: u64,
    read: HashMap<(u16, String), (u64, Parsed)>,
    all: Arc<Documents>,
}

impl Door {
    /// What the documents of these kinds say now. Only what was written since is read.
    ///
    /// # Errors
    /// One does not open or parse: nobody knows then what it would have said.
    pub(crate) fn standing_documents(&self) -> Result<Arc<Documents>, Refusal> {
        let mut keeping = self.keeping.lock();
        let generation = self.records.documents_generation();
        if keeping.generation == generation {
            return Ok(Arc::clone(&keeping.all));
        }
        let heads: Vec<((u16, String), u64, u32)> = self
            .records
            .own
            .read()
            .iter()
            .filter(|((code, _), head)| matches!(*code, DUTY | COVER | GRANT) && !head.deleted)
            .map(|(key, head)| (key.clone(), head.rid, head.version))
            .collect();
        let mut read = HashMap::with_capacity(heads.len());
        for (key, rid, version) in heads {
            let parsed = match keeping.read.get(&key) {
                Some((kept, parsed)) if *kept == rid => parsed.clone(),
                _ => self.parse_standing(key.0, &key.1, rid, version)?,
            };
            read.insert(key, (rid, parsed));
        }
        let mut all = Documents::default();
        for ((_, id), (_, parsed)) in &read {
            match parsed {
                Parsed::Duty(duty) => {
                    all.duties.insert(id.clone(), duty.clone());
                }
                Parsed::Cover(cover) => all.covers.push((id.clone(), cover.clone())),
                Parsed::Grant(grant) => all.grants.push(Arc::clone(grant)),
            }
        }
        *keeping = Keeping {
            generation,
            read,
            all: Arc::new(all),
        };
        Ok(Arc::clone(&keeping.all))
    }

    fn parse_standing(&self, code: u16, id: &str, rid: u64, version: u32) -> Result<Parsed, Refusal> {
        let opened = self.open(rid)?;
        let parsed = match code {
            DUTY => serde_json::from_slice(&opened.text).map(Parsed::Duty),
            COVER => serde_json::from_slice(&opened.text).map(Parsed::Cover),
            _ => serde_json::from_slice(&opened.text).map(|grant| {
                Parsed::Grant(Arc::new(KeptGrant {
                    id: id.to_owned(),
                    version,
                    grant,
                }))
            }),
        };
        parsed.map_err(|_| {
            tracing::error!(rid, "an own document is not understood");
            Refusal::new(
                500,
                "exception",
                "a document about treatment relationships is not understood; the operator has been told",
            )
        })
    }
}

//! Cryptographic erasure of a patient: the act, authorised and recorded. Approvals and certificates build on it.

use crate::answer::Refusal;
use crate::door::Door;
use crate::event::{Access, Shown, action_code};
use crate::text::{assemble, stored};
use keepwell_ledger::{Body, EraseError, Erased, Erasing, Event, Header, Left, Reach, Redaction};
use keepwell_model::actor::Context;
use keepwell_model::json;
use keepwell_model::redact::{Care, names, redact};
use keepwell_model::reference::Base;
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_policy::Action;
use keepwell_search::index::{RowKind, Scope};
use std::collections::BTreeMap;

/// What becomes of resources of several patients where rules alone cannot take one patient out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Several {
    /// They stay as they are and are told: a person must decide.
    #[default]
    Ask,
    /// A person has decided: narrative and attachments go, other text stays. Documents and signed content still stay.
    Redact,
    /// A person has decided: they go, for all their patients.
    Destroy,
}

/// The rules of one erasure.
struct Rules {
    patient: String,
    base: Base,
    several: Several,
    /// Words that tell who the patient is; `None` where no Patient resource is held.
    names: Option<Vec<String>>,
    access: Access,
}

impl Rules {
    fn redacted(&self, header: &Header, text: &[u8]) -> Result<Body, String> {
        let unread = || "it cannot be read".to_owned();
        let t = ResourceType::from_code(header.type_code).ok_or_else(unread)?;
        let mut full = Vec::new();
        assemble(
            t,
            &header.id,
            header.version,
            Timestamp(header.last_updated),
            text,
            &mut full,
        );
        let full = std::str::from_utf8(&full).map_err(|_| unread())?;
        let value = json::parse(full).map_err(|_| unread())?;
        let care = match self.several {
            Several::Ask => Care::Ask {
                names: self.names.as_deref(),
            },
            Several::Redact | Several::Destroy => Care::Decided,
        };
        let value = redact(t, value, &self.patient, &self.base, care).map_err(|doubt| doubt.to_string())?;
        Ok(Body::compress(stored(&value).as_bytes()))
    }
}

impl Erasing for Rules {
    fn redact(&self, header: &Header, text: &[u8]) -> Redaction {
        if self.several == Several::Destroy {
            return Redaction::Goes;
        }
        match self.redacted(header, text) {
            Ok(body) => Redaction::Stays(body),
            Err(why) => Redaction::Undecided(why),
        }
    }

    fn event(&self, copies: &[(u64, Vec<u32>)]) -> Event {
        let mut parts: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for (rid, slots) in copies {
            for slot in slots {
                parts.entry(*slot).or_default().push(*rid);
            }
        }
        let mut access = self.access.clone();
        access.count = u32::try_from(copies.len()).unwrap_or(u32::MAX);
        Event {
            kind: action_code(Action::Erase),
            actor: access.encode(),
            parts: parts
                .into_iter()
                .map(|(slot, rids)| (slot, Shown { rids }.encode()))
                .collect(),
        }
    }
}

/// `Type/id` of a resource that was left to a person.
#[must_use]
pub fn name_of(left: &Left) -> String {
    ResourceType::from_code(left.type_code).map_or_else(String::new, |t| format!("{t}/{}", left.id))
}

impl Door {
    /// What an erasure would reach and what it would leave to a person. Recorded like a look at the patient.
    ///
    /// # Errors
    /// 403, 404, 503.
    pub async fn erasure_reach(&self, ctx: &Context, patient: &str, several: Several) -> Result<Reach, Refusal> {
        let rules = self.rules(ctx, patient, "", several).await?;
        let reach = self.ledger.erasure_reach(patient, &rules).map_err(refusal)?;
        self.record_act(ctx, Action::Erase, 0, "asked what an erasure would reach")
            .await?;
        Ok(reach)
    }

    async fn rules(&self, ctx: &Context, patient: &str, reason: &str, several: Several) -> Result<Rules, Refusal> {
        self.gate_type(ctx, Action::Erase, crate::patient_type()).await?;
        let mut access = Access::of(ctx, Action::Erase);
        if !self.ledger.holds_patient(patient) {
            return Err(self.refuse(access, Refusal::not_found()).await);
        }
        reason.clone_into(&mut access.reason);
        Ok(Rules {
            patient: patient.to_owned(),
            base: self.records.base.clone(),
            several,
            names: self.names_of(patient)?,
            access,
        })
    }

    /// What all versions of a Patient resource say of who it is. Read by the rules only, shown to nobody.
    fn names_of(&self, patient: &str) -> Result<Option<Vec<String>>, Refusal> {
        let t = crate::patient_type();
        let versions: Vec<_> = self
            .records
            .index
            .read()
            .history(Scope::Instance(t, patient), self.ledger.visible(), None)
            .filter(|v| v.kind == RowKind::Version)
            .collect();
        let mut found = None;
        for v in versions {
            let opened = self.open(v.rid)?;
            let mut full = Vec::new();
            assemble(
                t,
                patient,
                v.version,
                Timestamp(v.last_updated),
                &opened.text,
                &mut full,
            );
            let value = std::str::from_utf8(&full).ok().and_then(|text| json::parse(text).ok());
            if let Some(value) = value {
                found.get_or_insert_with(Vec::new).extend(names(&value));
            }
        }
        Ok(found)
    }

    /// Erases a patient: the key is destroyed in every reachable place, the index forgets, the log keeps the fact. What
    /// other patients share with this one is sealed again without.
    ///
    /// # Errors
    /// 403, 404 where nothing is held, 409 where too few ERA places can be reached (nothing was erased), 503.
    pub async fn erase(&self, ctx: &Context, patient: &str, reason: &str, several: Several) -> Result<Erased, Refusal> {
        let rules = self.rules(ctx, patient, reason, several).await?;
        let access = rules.access.clone();
        match self.ledger.erase(patient, rules) {
            Ok(erased) => Ok(erased),
            Err(e) => Err(self.refuse(access, refusal(e)).await),
        }
    }
}

fn refusal(e: EraseError) -> Refusal {
    match e {
        EraseError::Unknown => Refusal::not_found(),
        e @ EraseError::Places { .. } => Refusal::new(409, "conflict", e.to_string()),
        EraseError::Unavailable(u) => Refusal::unavailable(&u.to_string()),
    }
}

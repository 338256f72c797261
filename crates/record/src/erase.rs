//! Cryptographic erasure of a patient: the act, authorised and recorded. Approvals and certificates build on it.

use crate::answer::Refusal;
use crate::door::Door;
use crate::event::{Access, action_code};
use keepwell_ledger::{EraseError, Erased, Event};
use keepwell_model::actor::Context;
use keepwell_policy::Action;

impl Door {
    /// Whether anything of that patient is held, and how many current resources of the compartment: what an erasure
    /// would reach. Recorded like a look at the patient.
    ///
    /// # Errors
    /// 403, 404, 503.
    pub async fn erasure_reach(&self, ctx: &Context, patient: &str) -> Result<u64, Refusal> {
        self.may_erase(ctx, patient).await?;
        let mut n = 0;
        {
            let index = self.records.index.read();
            let slot = self.records.homes.read().patients.get(patient).copied();
            for t in keepwell_model::types::ResourceType::all() {
                let versions = index.history(keepwell_search::index::Scope::Type(t), self.ledger.visible(), None);
                n += versions.filter(|v| Some(v.home) == slot).count() as u64;
            }
        }
        self.record_act(ctx, Action::Erase, 0, "asked what an erasure would reach")
            .await?;
        Ok(n)
    }

    async fn may_erase(&self, ctx: &Context, patient: &str) -> Result<(), Refusal> {
        self.gate_type(ctx, Action::Erase, crate::patient_type()).await?;
        if self.ledger.slot_of_patient(patient).is_some() {
            return Ok(());
        }
        Err(self.refuse(Access::of(ctx, Action::Erase), Refusal::not_found()).await)
    }

    /// Erases a patient: the key is destroyed in every reachable place, the index forgets, the log keeps the fact.
    ///
    /// # Errors
    /// 403, 404 where nothing is held, 409 where too few ERA places can be reached (nothing was erased), 503.
    pub async fn erase(&self, ctx: &Context, patient: &str, reason: &str) -> Result<Erased, Refusal> {
        self.may_erase(ctx, patient).await?;
        let mut access = Access::of(ctx, Action::Erase);
        reason.clone_into(&mut access.reason);
        let event = Event {
            kind: action_code(Action::Erase),
            actor: access.encode(),
            parts: Vec::new(),
        };
        self.ledger.erase(patient, event).map_err(|e| match e {
            EraseError::Unknown => Refusal::not_found(),
            e @ EraseError::Places { .. } => Refusal::new(409, "conflict", e.to_string()),
            EraseError::Unavailable(u) => Refusal::unavailable(&u.to_string()),
        })
    }
}

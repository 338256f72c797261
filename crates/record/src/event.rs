//! The audit event of a request: every field of `detection.md`, in a compact form, cut into the half that names the
//! actor and one part per patient.
//!
//! The actor half is sealed under the organisation, each part under the patient's own slot: after an erasure the fact
//! of access stays, the patient does not. Neither half holds clinical values; search parameters are kept by name only.
//! The layout is in `docs/formats/event.md`.

use crate::relation::Standing;
use keepwell_model::actor::{Context, EntryPath, PurposeOfUse, Role, ScopeContext};
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_policy::{Action, Relation};

/// Version byte of both halves.
const VERSION: u8 = 1;

/// Longest text kept of any one field, in bytes.
const FIELD_MAX: usize = 255;

/// The actor half of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// When the request arrived.
    pub at: Timestamp,
    /// What was done or asked for.
    pub action: Action,
    /// HTTP status of the answer; 403 and 404 stand for refusals of policy as well.
    pub status: u16,
    /// Role of the actor.
    pub role: Option<Role>,
    /// Purpose of use.
    pub purpose: PurposeOfUse,
    /// How the actor came here.
    pub entry: EntryPath,
    /// To be printed.
    pub print: bool,
    /// Leaves in bulk.
    pub export: bool,
    /// A machine acts for the one patient its token names, not for the organisation. Who that is stands in no actor half.
    pub for_patient: bool,
    /// The type asked for.
    pub resource_type: Option<ResourceType>,
    /// How many resources were shown or written.
    pub count: u32,
    /// Seconds since the actor authenticated.
    pub authenticated_s: u32,
    /// User, client or job.
    pub user: String,
    /// The name shown in the access log.
    pub display: String,
    /// `jti` or session id.
    pub session: String,
    /// How the actor authenticated.
    pub method: String,
    /// Registered device.
    pub device: String,
    /// Unit signed on to.
    pub unit: String,
    /// Rostered unit and shift.
    pub roster: String,
    /// Source address.
    pub network: String,
    /// Request id.
    pub request: String,
    /// Stated reason, or the policy's reason for a refusal.
    pub reason: String,
    /// Names of the search parameters used, comma separated.
    pub params: String,
}

/// What of one patient was shown or written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Row numbers, ascending.
    pub rids: Vec<u64>,
}

impl Access {
    /// The draft of an event from a request's facts.
    #[must_use]
    pub fn of(context: &Context, action: Action) -> Self {
        let a = &context.actor;
        Self {
            at: context.at,
            action,
            status: 200,
            role: Some(a.role),
            purpose: context.purpose,
            entry: context.entry,
            print: context.print,
            export: context.export,
            for_patient: a.role == Role::Service
                && a.patient.is_some()
                && a.scopes.iter().any(|s| s.context == ScopeContext::Patient),
            resource_type: None,
            count: 0,
            authenticated_s: u32::try_from((context.at.0 - a.authenticated.0).max(0) / 1000).unwrap_or(u32::MAX),
            user: a.id.clone(),
            display: a.display.clone(),
            session: a.session.clone(),
            method: a.method.clone(),
            device: context.device.clone(),
            unit: context.unit.clone(),
            roster: context.roster.clone(),
            network: context.network.clone(),
            request: context.request_id.clone(),
            reason: context.reason.clone(),
            params: String::new(),
        }
    }

    /// Notes what the access rests on: the reason is the relationship where none was stated, and what is reached by
    /// emergency access is for that purpose, whatever else is among it.
    pub(crate) fn rests_on(&mut self, standing: Standing) {
        if standing.relation == Relation::Emergency {
            self.purpose = PurposeOfUse::BreakTheGlass;
            standing.basis.name().clone_into(&mut self.reason);
        } else if self.reason.is_empty() {
            standing.basis.name().clone_into(&mut self.reason);
        }
    }

    /// Refusals of requests that nobody authenticated.
    #[must_use]
    pub fn stranger(at: Timestamp, network: &str, number: u32) -> Self {
        Self {
            at,
            action: Action::Read,
            status: 401,
            role: None,
            purpose: PurposeOfUse::default(),
            entry: EntryPath::Api,
            print: false,
            export: false,
            for_patient: false,
            resource_type: None,
            count: number,
            authenticated_s: 0,
            user: String::new(),
            display: String::new(),
            session: String::new(),
            method: String::new(),
            device: String::new(),
            unit: String::new(),
            roster: String::new(),
            network: network.to_owned(),
            request: String::new(),
            reason: String::new(),
            params: String::new(),
        }
    }

    /// The bytes that are sealed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.push(VERSION);
        out.extend_from_slice(&self.at.0.to_be_bytes());
        out.push(action_code(self.action));
        out.extend_from_slice(&self.status.to_be_bytes());
        out.push(self.role.map_or(0, |r| r as u8));
        out.push(self.purpose as u8);
        out.push(self.entry as u8);
        out.push(u8::from(self.print) | u8::from(self.export) << 1 | u8::from(self.for_patient) << 2);
        out.extend_from_slice(&self.resource_type.map_or(u16::MAX, ResourceType::code).to_be_bytes());
        varint(u64::from(self.count), &mut out);
        varint(u64::from(self.authenticated_s), &mut out);
        for text in self.texts() {
            let mut end = text.len().min(FIELD_MAX);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            let text = text.get(..end).unwrap_or_default();
            out.push(text.len() as u8);
            out.extend_from_slice(text.as_bytes());
        }
        while out.last() == Some(&0) {
            out.pop();
        }
        out
    }

    fn texts(&self) -> [&String; 11] {
        [
            &self.user,
            &self.session,
            &self.method,
            &self.request,
            &self.network,
            &self.display,
            &self.reason,
            &self.params,
            &self.device,
            &self.unit,
            &self.roster,
        ]
    }

    /// Reads back what [`Access::encode`] wrote; `None` where the bytes are of another form.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        if r.byte() != VERSION {
            return None;
        }
        let at = Timestamp(i64::from_be_bytes(r.array()));
        let action = action(r.byte())?;
        let status = u16::from_be_bytes(r.array());
        let role = Role::from_code(r.byte());
        let purpose = PurposeOfUse::from_number(r.byte())?;
        let entry = entry(r.byte());
        let flags = r.byte();
        let resource_type = ResourceType::from_code(u16::from_be_bytes(r.array()));
        let count = u32::try_from(r.varint()).ok()?;
        let authenticated_s = u32::try_from(r.varint()).ok()?;
        let mut text = || r.text();
        Some(Self {
            at,
            action,
            status,
            role,
            purpose,
            entry,
            print: flags & 1 != 0,
            export: flags & 2 != 0,
            for_patient: flags & 4 != 0,
            resource_type,
            count,
            authenticated_s,
            user: text(),
            session: text(),
            method: text(),
            request: text(),
            network: text(),
            display: text(),
            reason: text(),
            params: text(),
            device: text(),
            unit: text(),
            roster: text(),
        })
    }
}

/// Numbers of the actions on disk: they never change and are never used again.
const ACTIONS: &[(u8, Action)] = &[
    (1, Action::Read),
    (2, Action::Vread),
    (3, Action::Search),
    (4, Action::HistoryInstance),
    (5, Action::HistoryType),
    (6, Action::HistorySystem),
    (7, Action::Everything),
    (8, Action::Lineage),
    (9, Action::Create),
    (10, Action::Update),
    (11, Action::Patch),
    (12, Action::Delete),
    (13, Action::AccessLog),
    (14, Action::Erase),
    (15, Action::Capabilities),
    (16, Action::Validate),
    (17, Action::Transaction),
    (18, Action::OwnSession),
    (19, Action::Import),
    (20, Action::Backup),
    (21, Action::Restore),
    (22, Action::KeysStatus),
    (23, Action::KeysRotate),
    (24, Action::KeysSeal),
    (25, Action::KeysUnseal),
    (26, Action::AuditVerify),
    (27, Action::AuditExport),
    (28, Action::AuditProve),
    (29, Action::AccountRead),
    (30, Action::AccountManage),
    (31, Action::LoginLinkIssue),
    (32, Action::SessionManage),
    (33, Action::TokenIssue),
    (34, Action::TokenIssueClinical),
    (35, Action::TokenRevoke),
    (36, Action::PolicyRead),
    (37, Action::ConfigRead),
    (38, Action::ConfigWrite),
    (39, Action::Status),
    (40, Action::OwnAuthenticators),
    (41, Action::ActivationRelease),
    (50, Action::ClientRead),
    (51, Action::ClientRegister),
    (52, Action::ClientEnd),
    (60, Action::BreakGlass),
    (61, Action::StateReason),
    (62, Action::EndAccess),
    (63, Action::SignOn),
    (64, Action::Cover),
    (65, Action::ReviewRead),
    (66, Action::Review),
    (80, Action::ProviderManage),
];

/// The number of an action on disk, also the `kind` of the event's leaf; 0 = none yet.
pub(crate) fn action_code(action: Action) -> u8 {
    ACTIONS.iter().find(|(_, a)| *a == action).map_or(0, |(n, _)| *n)
}

fn action(code: u8) -> Option<Action> {
    ACTIONS.iter().find(|(n, _)| *n == code).map(|(_, a)| *a)
}

fn entry(n: u8) -> EntryPath {
    use EntryPath as E;
    [
        E::Api,
        E::Search,
        E::Link,
        E::WorkList,
        E::Appointment,
        E::Order,
        E::Task,
        E::Batch,
    ]
    .into_iter()
    .find(|e| *e as u8 == n)
    .unwrap_or_default()
}

impl Shown {
    /// The bytes that are sealed under the patient's slot.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        let mut before = 0;
        for rid in &self.rids {
            varint(rid - before, &mut out);
            before = *rid;
        }
        out
    }

    /// Reads back what [`Shown::encode`] wrote.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader(bytes);
        if r.byte() != VERSION {
            return None;
        }
        let mut rids = Vec::new();
        let mut before = 0u64;
        while !r.0.is_empty() {
            before = before.checked_add(r.varint())?;
            rids.push(before);
        }
        Some(Self { rids })
    }
}

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Reads past the end as zeros: trailing zeros are not written.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((b, rest)) => {
                self.0 = rest;
                *b
            }
            None => 0,
        }
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    fn varint(&mut self) -> u64 {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let b = self.byte();
            n |= u64::from(b & 0x7f) << shift;
            if b < 0x80 {
                break;
            }
        }
        n
    }

    fn text(&mut self) -> String {
        let n = usize::from(self.byte()).min(self.0.len());
        let (text, rest) = self.0.split_at(n);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keepwell_model::actor::{Actor, Assurance, Place};
    use std::sync::Arc;

    #[test]
    fn every_action_has_a_number_of_its_own() {
        for a in Action::ALL {
            assert_ne!(action_code(*a), 0, "{}", a.name());
        }
        let mut numbers: Vec<u8> = ACTIONS.iter().map(|(n, _)| *n).collect();
        numbers.dedup();
        assert_eq!(numbers.len(), ACTIONS.len());
    }

    #[test]
    fn an_event_reads_back_and_is_small() {
        let context = Context {
            actor: Arc::new(Actor {
                id: "u-17".into(),
                display: "Dr. Ada Moss".into(),
                role: Role::Physician,
                patient: None,
                practitioner: None,
                client: None,
                scopes: vec![],
                session: "c2Vzc2lvbi1pZC0x".into(),
                authenticated: Timestamp(1_000),
                method: "token".into(),
                reauthenticated: Timestamp(1_000),
                assurance: Assurance::TwoFactors,
            }),
            purpose: PurposeOfUse::Treatment,
            entry: EntryPath::Api,
            request_id: "0123456789abcdef".into(),
            network: "127.0.0.1".into(),
            device: String::new(),
            unit: String::new(),
            roster: String::new(),
            reason: String::new(),
            print: true,
            place: Place::Unknown,
            export: false,
            at: Timestamp(61_000),
        };
        let mut e = Access::of(&context, Action::Read);
        e.count = 300;
        let bytes = e.encode();
        assert!(bytes.len() < 110, "{}", bytes.len());
        assert_eq!(Access::decode(&bytes), Some(e));
        let s = Shown {
            rids: vec![5, 9, 70_000],
        };
        assert_eq!(Shown::decode(&s.encode()), Some(s));
        assert_eq!(Access::decode(&[]), None);
        assert_eq!(Access::decode(&[9, 9, 9]), None);
    }
}

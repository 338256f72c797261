//! Who asks, in which role, for what purpose, by which way in.

use crate::time::Timestamp;

/// A role of the workforce, a patient, or a machine. The number is stored in audit events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// Treats patients, writes and signs.
    Physician = 1,
    /// Vitals, medication schedule and administration.
    Nurse = 2,
    /// Registers and checks in; no clinical content.
    FrontDesk = 3,
    /// Coverage and claims; no notes or labs.
    Billing = 4,
    /// Records room (HIM): release, retention, paper.
    RecordsClerk = 5,
    /// Access logs, cases, consents.
    PrivacyOfficer = 6,
    /// Alerts, keys, configuration.
    SecurityOfficer = 7,
    /// Accounts and configuration; no PHI.
    Administrator = 8,
    /// The patient (or, later, a proxy).
    Patient = 9,
    /// A machine client with scopes.
    Service = 10,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 10] = [
        Role::Physician,
        Role::Nurse,
        Role::FrontDesk,
        Role::Billing,
        Role::RecordsClerk,
        Role::PrivacyOfficer,
        Role::SecurityOfficer,
        Role::Administrator,
        Role::Patient,
        Role::Service,
    ];

    /// The name used in tokens, policies and the command line, for example `front-desk`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Physician => "physician",
            Role::Nurse => "nurse",
            Role::FrontDesk => "front-desk",
            Role::Billing => "billing",
            Role::RecordsClerk => "records-clerk",
            Role::PrivacyOfficer => "privacy-officer",
            Role::SecurityOfficer => "security-officer",
            Role::Administrator => "administrator",
            Role::Patient => "patient",
            Role::Service => "service",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == name)
    }

    /// The role with that stored number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|r| *r as u8 == code)
    }
}

/// HL7 v3 ActReason codes used as purpose of use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PurposeOfUse {
    /// TREAT, treatment.
    #[default]
    Treatment = 1,
    /// HPAYMT, payment.
    Payment = 2,
    /// HOPERAT, operations.
    Operations = 3,
    /// ETREAT, emergency treatment.
    EmergencyTreatment = 4,
    /// BTG, break the glass.
    BreakTheGlass = 5,
    /// PATRQT, patient requested.
    PatientRequest = 6,
    /// HSYSADMIN, system administration.
    SystemAdministration = 7,
}

impl PurposeOfUse {
    /// The ActReason code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            PurposeOfUse::Treatment => "TREAT",
            PurposeOfUse::Payment => "HPAYMT",
            PurposeOfUse::Operations => "HOPERAT",
            PurposeOfUse::EmergencyTreatment => "ETREAT",
            PurposeOfUse::BreakTheGlass => "BTG",
            PurposeOfUse::PatientRequest => "PATRQT",
            PurposeOfUse::SystemAdministration => "HSYSADMIN",
        }
    }

    /// The purpose with that stored number.
    #[must_use]
    pub fn from_number(n: u8) -> Option<Self> {
        use PurposeOfUse as P;
        [
            P::Treatment,
            P::Payment,
            P::Operations,
            P::EmergencyTreatment,
            P::BreakTheGlass,
            P::PatientRequest,
            P::SystemAdministration,
        ]
        .into_iter()
        .find(|p| *p as u8 == n)
    }
}

/// How sure the server is that the actor is who they say (NIST SP 800-63B): ordered, so that a rule can ask for at least
/// one. The number is what policies compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Assurance {
    /// Nothing was proven that counts as a factor.
    #[default]
    None = 0,
    /// One factor.
    OneFactor = 1,
    /// Two factors. Jobs and tokens made at the machine count as this: who can start them holds the machine and its
    /// keyring.
    TwoFactors = 2,
    /// Two factors of which one cannot be passed on to another site: a passkey with user verification.
    PhishingResistant = 3,
}

impl Assurance {
    /// All of them, weakest first.
    pub const ALL: [Assurance; 4] = [
        Assurance::None,
        Assurance::OneFactor,
        Assurance::TwoFactors,
        Assurance::PhishingResistant,
    ];

    /// The name used in cases and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Assurance::None => "none",
            Assurance::OneFactor => "one-factor",
            Assurance::TwoFactors => "two-factors",
            Assurance::PhishingResistant => "phishing-resistant",
        }
    }
}

/// Where a request comes from, as far as workstations and zones are registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Place {
    /// Nothing is registered that would tell.
    #[default]
    Unknown = 0,
    /// An enrolled workstation within its zone.
    Enrolled = 1,
    /// From outside the zones, with a grant to do so.
    Remote = 2,
    /// From outside the zones, without one.
    Outside = 3,
}

impl Place {
    /// All places.
    pub const ALL: [Place; 4] = [Place::Unknown, Place::Enrolled, Place::Remote, Place::Outside];

    /// The name used in policies.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Place::Unknown => "unknown",
            Place::Enrolled => "enrolled",
            Place::Remote => "remote",
            Place::Outside => "outside",
        }
    }
}

/// How the actor came to the record (`detection.md`): the detector weighs a search by name otherwise than a work list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryPath {
    /// Not known.
    #[default]
    Unknown = 0,
    /// The FHIR API.
    Api = 1,
    /// A search by name, MRN or birth date.
    Search = 2,
    /// A link from another page.
    Link = 3,
    /// A work list.
    WorkList = 4,
    /// An appointment.
    Appointment = 5,
    /// An order.
    Order = 6,
    /// A task.
    Task = 7,
    /// A batch job, import or command.
    Batch = 8,
}

/// SMART v2 style interactions a token allows on a type: create, read, update, delete, search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Interactions(pub u8);

impl Interactions {
    /// `c`
    pub const CREATE: u8 = 1;
    /// `r`
    pub const READ: u8 = 2;
    /// `u`
    pub const UPDATE: u8 = 4;
    /// `d`
    pub const DELETE: u8 = 8;
    /// `s`
    pub const SEARCH: u8 = 16;

    /// Parses `cruds` in that order, each letter at most once.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = "cruds".chars();
        let mut bits = 0;
        for c in text.chars() {
            let at = rest.by_ref().find(|x| *x == c)?;
            bits |= match at {
                'c' => Self::CREATE,
                'r' => Self::READ,
                'u' => Self::UPDATE,
                'd' => Self::DELETE,
                _ => Self::SEARCH,
            };
        }
        (bits != 0).then_some(Self(bits))
    }
}

/// One scope of a token: `patient|user|system / Type|* . cruds`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// `patient`, `user` or `system`.
    pub context: ScopeContext,
    /// The type, or all of them.
    pub resource_type: Option<crate::types::ResourceType>,
    /// What may be done.
    pub interactions: Interactions,
}

/// The first part of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScopeContext {
    /// One patient's compartment.
    Patient,
    /// What the user may see.
    User,
    /// The whole organisation.
    System,
}

impl Scope {
    /// Parses `system/*.cruds`, `patient/Observation.rs`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (context, rest) = text.split_once('/')?;
        let (name, letters) = rest.split_once('.')?;
        Some(Self {
            context: match context {
                "patient" => ScopeContext::Patient,
                "user" => ScopeContext::User,
                "system" => ScopeContext::System,
                _ => return None,
            },
            resource_type: match name {
                "*" => None,
                n => Some(crate::types::ResourceType::from_name(n)?),
            },
            interactions: Interactions::parse(letters)?,
        })
    }
}

/// An authenticated principal. Built by `identity` from a token or session, or by the composition root for a named
/// service actor; nothing else makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Stable id of the user, client or job.
    pub id: String,
    /// Name shown in the access log.
    pub display: String,
    /// The role that acts.
    pub role: Role,
    /// For [`Role::Patient`]: the logical id of the own Patient resource.
    pub patient: Option<String>,
    /// The logical id of the own Practitioner resource: from the account, never from a client. Treatment relationships
    /// are found by it.
    pub practitioner: Option<String>,
    /// The OAuth client that acts for the user or for itself.
    pub client: Option<String>,
    /// Scopes that narrow the role; empty = not narrowed (a signed-in person).
    pub scopes: Vec<Scope>,
    /// The `jti` of the token or the id of the session: never the token itself.
    pub session: String,
    /// When the actor authenticated.
    pub authenticated: Timestamp,
    /// How: `token`, `job`, `activation`, `password+totp`, `password+card`, `password+recovery`, `password+passkey`,
    /// `passkey`.
    pub method: String,
    /// When a factor was last proven: at sign-in, or since then where an act asked for it again (step-up).
    pub reauthenticated: Timestamp,
    /// How sure the server is of who it is.
    pub assurance: Assurance,
}

impl Actor {
    /// How long the last proof of a factor is good for sensitive acts, in seconds.
    pub const FRESH_S: i64 = 5 * 60;

    /// Whether a factor was proven within the last five minutes before `now`.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now.0.saturating_sub(self.reauthenticated.0) < Self::FRESH_S * 1000
    }
}

/// One request's facts that authorization, audit and detection need (`detection.md`, Event).
#[derive(Clone, Debug)]
pub struct Context {
    /// Who asks.
    pub actor: std::sync::Arc<Actor>,
    /// For what purpose.
    pub purpose: PurposeOfUse,
    /// By which way in.
    pub entry: EntryPath,
    /// The request id that also stands in the answer's header.
    pub request_id: String,
    /// Source address without port.
    pub network: String,
    /// Registered device, empty where unknown.
    pub device: String,
    /// Unit the actor is signed on to, empty where unknown.
    pub unit: String,
    /// Rostered unit and shift, empty where unknown.
    pub roster: String,
    /// A stated reason, empty where none was asked for.
    pub reason: String,
    /// The answer is to be printed.
    pub print: bool,
    /// Where the request comes from.
    pub place: Place,
    /// The answer leaves in bulk.
    pub export: bool,
    /// When the request arrived.
    pub at: Timestamp,
}

//! The question: who (role) wants to do what (action) to which kind of thing (target), how they stand to the patient
//! (relation), and what narrows them (labels, purpose, scopes).
//!
//! A [`Request`] is small, `Copy` and `Hash`: `record` uses it as the key of its decision cache.

use keepwell_model::actor::{Actor, Assurance, Interactions, Place, PurposeOfUse, Role, Scope, ScopeContext};
use keepwell_model::types::ResourceType;

/// One question to the policy engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Who asks.
    pub role: Role,
    /// What they want to do.
    pub action: Action,
    /// To what.
    pub target: Target,
    /// How the actor stands to the patient whom the resource is about.
    pub relation: Relation,
    /// Security labels of the resource.
    pub labels: Labels,
    /// For what purpose.
    pub purpose: PurposeOfUse,
    /// What the token's scopes leave of the role.
    pub grant: Grant,
    /// How sure the server is of who asks.
    pub assurance: Assurance,
    /// Where they ask from.
    pub place: Place,
    /// What the patient's consents say.
    pub consent: Consent,
}

impl Request {
    /// A question about a resource, with the scopes of `actor` already weighed for this action and type.
    #[must_use]
    pub fn new(
        actor: &Actor,
        action: Action,
        target: Target,
        relation: Relation,
        labels: Labels,
        purpose: PurposeOfUse,
        place: Place,
    ) -> Self {
        Self {
            labels,
            purpose,
            grant: Grant::of(actor, action, target),
            assurance: actor.assurance,
            place,
            ..Self::plain(actor.role, action, target, relation)
        }
    }

    /// A question with nothing special about it: signed in with two factors, no label, no consent, for treatment. What
    /// differs is set by the asker.
    #[must_use]
    pub fn plain(role: Role, action: Action, target: Target, relation: Relation) -> Self {
        Self {
            role,
            action,
            target,
            relation,
            labels: Labels::NONE,
            purpose: PurposeOfUse::Treatment,
            grant: Grant::WHOLE,
            assurance: Assurance::TwoFactors,
            place: Place::Unknown,
            consent: Consent::None,
        }
    }
}

/// What the consents of the patient say about one question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consent {
    /// Nothing.
    #[default]
    None,
    /// It is permitted.
    Permit,
    /// It is denied.
    Deny,
}

impl Consent {
    /// All answers.
    pub const ALL: [Consent; 3] = [Consent::None, Consent::Permit, Consent::Deny];

    /// The name used in policies.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Consent::None => "none",
            Consent::Permit => "permit",
            Consent::Deny => "deny",
        }
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $group:ident;)*) => {
        /// Everything that can be asked for. A new one needs a rule in `policies/` and a row in the golden table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action { $($(#[$doc])* $variant,)* }

        impl Action {
            /// All actions, in the order of the authorization table.
            pub const ALL: &[Action] = &[$(Action::$variant,)*];

            /// The name used in policies, cases and on the command line, for example `history-type`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Action::$variant => $name,)* }
            }

            /// What the action acts on.
            #[must_use]
            pub fn group(self) -> ActionGroup {
                match self { $(Action::$variant => ActionGroup::$group,)* }
            }
        }
    };
}

/// What an action acts on: this decides the rows it has in the authorization table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActionGroup {
    /// Shows resources.
    View,
    /// Changes resources.
    Write,
    /// An act upon one patient that is not a FHIR interaction of a type; its target is `Patient`.
    Chart,
    /// Acts on the installation, not on a resource.
    System,
}

actions! {
    /// FHIR read.
    Read = "read", View;
    /// FHIR vread.
    Vread = "vread", View;
    /// FHIR search: asked for each candidate, chain, include and count.
    Search = "search", View;
    /// History of one resource.
    HistoryInstance = "history-instance", View;
    /// History of a type.
    HistoryType = "history-type", View;
    /// History of the whole system: asked for each entry.
    HistorySystem = "history-system", View;
    /// `Patient/$everything`: asked for the patient and for each entry.
    Everything = "everything", View;
    /// `$provenance` of one resource.
    Lineage = "lineage", View;
    /// FHIR create.
    Create = "create", Write;
    /// FHIR update.
    Update = "update", Write;
    /// FHIR patch.
    Patch = "patch", Write;
    /// FHIR delete.
    Delete = "delete", Write;
    /// `$access-log` of a patient: who looked.
    AccessLog = "access-log", Chart;
    /// Cryptographic erasure of a patient.
    Erase = "erase", Chart;
    /// Emergency access to a patient without a treatment relationship.
    BreakGlass = "break-glass", Chart;
    /// A stated reason for a patient with whom a relationship is plausible.
    StateReason = "state-reason", Chart;
    /// End of one's own emergency access or stated reason.
    EndAccess = "end-access", Chart;
    /// The CapabilityStatement.
    Capabilities = "capabilities", System;
    /// `$validate` of a body that is not stored.
    Validate = "validate", System;
    /// Handing in a batch or transaction: each entry is asked for on its own.
    Transaction = "transaction", System;
    /// List and end one's own sessions, revoke one's own token.
    OwnSession = "own-session", System;
    /// See, enrol and remove what one signs in with oneself.
    OwnAuthenticators = "own-authenticators", System;
    /// Bulk loading into the record.
    Import = "import", System;
    /// Make a backup.
    Backup = "backup", System;
    /// Put a backup back.
    Restore = "restore", System;
    /// See the state of the keys (never a key).
    KeysStatus = "keys-status", System;
    /// Rotate keys.
    KeysRotate = "keys-rotate", System;
    /// Seal the server.
    KeysSeal = "keys-seal", System;
    /// Unseal the server.
    KeysUnseal = "keys-unseal", System;
    /// Verify the audit log and the stored rows.
    AuditVerify = "audit-verify", System;
    /// Export the audit log as sealed entries, tiles and checkpoints.
    AuditExport = "audit-export", System;
    /// Make the proof file of one entry.
    AuditProve = "audit-prove", System;
    /// See accounts (no patient data).
    AccountRead = "account-read", System;
    /// Make, change and end accounts of the workforce.
    AccountManage = "account-manage", System;
    /// Issue an activation code for an account alone.
    LoginLinkIssue = "login-link-issue", System;
    /// Release the activation code of an account, as the second person.
    ActivationRelease = "activation-release", System;
    /// List and end the sessions of others.
    SessionManage = "session-manage", System;
    /// Issue a token of role administrator.
    TokenIssue = "token-issue", System;
    /// Issue a token of any other role or scope: they reach patients, keys or the log.
    TokenIssueClinical = "token-issue-clinical", System;
    /// List and revoke tokens.
    TokenRevoke = "token-revoke", System;
    /// See the registered clients.
    ClientRead = "client-read", System;
    /// Register a client or give it another key: whoever can, can reach what its scopes reach.
    ClientRegister = "client-register", System;
    /// End a client, or take a key from it.
    ClientEnd = "client-end", System;
    /// Register and end identity providers, and say who is who there: whoever can, can be anybody.
    ProviderManage = "provider-manage", System;
    /// Read the policies, their table and explanations.
    PolicyRead = "policy-read", System;
    /// Read the configuration.
    ConfigRead = "config-read", System;
    /// Change the configuration.
    ConfigWrite = "config-write", System;
    /// State of the server: capacity, checkpoints, certificates.
    Status = "status", System;
    /// Sign on to units for a shift.
    SignOn = "sign-on", System;
    /// Let a colleague cover for one's patients.
    Cover = "cover", System;
    /// See the emergency accesses that wait for review.
    ReviewRead = "review-read", System;
    /// Decide whether an emergency access was justified.
    Review = "review", System;
}

impl Action {
    /// The action of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|a| a.name() == name)
    }

    /// The interactions a scope must grant for this action (SMART App Launch 2.2, "Scopes for requesting FHIR
    /// resources"); `None` where no scope of a type can grant it.
    #[must_use]
    pub fn interactions(self) -> Option<Interactions> {
        use Interactions as I;
        Some(Interactions(match self {
            Action::Read | Action::Vread | Action::HistoryInstance | Action::Lineage => I::READ,
            Action::Search | Action::HistoryType | Action::HistorySystem => I::SEARCH,
            Action::Everything => I::READ | I::SEARCH,
            Action::Create => I::CREATE,
            Action::Update | Action::Patch => I::UPDATE,
            Action::Delete => I::DELETE,
            // The access log speaks of the patient: whoever may not read the patient may not read it either.
            Action::AccessLog => I::READ,
            // What they open is then read within the same scopes.
            Action::BreakGlass | Action::StateReason | Action::EndAccess => I::READ,
            Action::Import => I::CREATE | I::UPDATE,
            _ => return None,
        }))
    }
}

/// What is acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A resource of that type.
    Type(ResourceType),
    /// The installation itself.
    Installation,
}

/// How the actor stands to the patient whom the resource is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Relation {
    /// In the compartment of the patient the token or session names.
    Own,
    /// Of a patient with whom a treatment or working relationship is on record, or a stated reason.
    Related,
    /// Of a patient with whom there may well be one: of the own units, or formerly treated. A stated reason makes it
    /// [`Relation::Related`].
    Plausible,
    /// Of a patient without one, under an emergency access that is running.
    Emergency,
    /// Of a patient without one.
    Unrelated,
    /// About no patient: reference data, the directory.
    NoPatient,
}

impl Relation {
    /// All relations.
    pub const ALL: [Relation; 6] = [
        Relation::Own,
        Relation::Related,
        Relation::Plausible,
        Relation::Emergency,
        Relation::Unrelated,
        Relation::NoPatient,
    ];

    /// The name used in policies.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Relation::Own => "own",
            Relation::Related => "related",
            Relation::Plausible => "plausible",
            Relation::Emergency => "emergency",
            Relation::Unrelated => "unrelated",
            Relation::NoPatient => "no-patient",
        }
    }

    /// The relation of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.name() == name)
    }
}

/// The security labels that policies know, as a set. Codes they do not know stay on the resource and decide nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(pub u16);

/// HL7 v3 Confidentiality.
const CONFIDENTIALITY: &str = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality";
/// HL7 v3 ActCode: sensitivity of information.
const ACT_CODE: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";

impl Labels {
    /// No label.
    pub const NONE: Labels = Labels(0);
    /// Confidentiality `R` or `V`.
    pub const RESTRICTED: Labels = Labels(1);
    /// Substance use disorder treatment (42 CFR Part 2).
    pub const PART_2: Labels = Labels(2);
    /// Psychotherapy notes (45 CFR 164.501).
    pub const PSYCHOTHERAPY: Labels = Labels(4);
    /// Labels and their names in policies.
    pub const ALL: [(Labels, &'static str); 3] = [
        (Labels::RESTRICTED, "restricted"),
        (Labels::PART_2, "part-2"),
        (Labels::PSYCHOTHERAPY, "psychotherapy"),
    ];

    /// The label a coding of `meta.security` stands for. A missing system counts as the HL7 one: leaving it out must
    /// not lift the protection.
    #[must_use]
    pub fn from_coding(system: Option<&str>, code: &str) -> Self {
        let confidentiality = system.is_none_or(|s| s == CONFIDENTIALITY);
        let act_code = system.is_none_or(|s| s == ACT_CODE);
        match code {
            "R" | "V" if confidentiality => Self::RESTRICTED,
            "42CFRPart2" | "ETH" | "ETHUD" | "OPIOIDUD" | "SUD" if act_code => Self::PART_2,
            "PSYTHPN" if act_code => Self::PSYCHOTHERAPY,
            _ => Self::NONE,
        }
    }

    /// The label of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(l, _)| *l)
    }

    /// Both sets together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are in this set.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What the scopes of an actor say about one action on one type: the contexts in which some scope allows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Grant(u8);

impl Grant {
    /// No scopes: a signed-in person with all their role allows.
    pub const WHOLE: Grant = Grant(1);
    /// A `patient/` scope allows it.
    pub const PATIENT: Grant = Grant(2);
    /// A `user/` scope allows it.
    pub const USER: Grant = Grant(4);
    /// A `system/` scope allows it.
    pub const SYSTEM: Grant = Grant(8);
    /// A named job of the installation itself, made by the composition root only: no token carries it.
    pub const JOB: Grant = Grant(16);
    /// Scopes there are, and none allows it.
    pub const NOTHING: Grant = Grant(0);

    /// Weighs the scopes of `actor`.
    #[must_use]
    pub fn of(actor: &Actor, action: Action, target: Target) -> Self {
        Self::from_scopes(actor.role, actor.method == "job", &actor.scopes, action, target)
    }

    /// Weighs scopes for one action on one target. Scopes narrow a role and never widen it; a machine has nothing but
    /// its scopes, and only a machine can be a job.
    #[must_use]
    pub fn from_scopes(role: Role, job: bool, scopes: &[Scope], action: Action, target: Target) -> Self {
        let job = if job && role == Role::Service {
            Self::JOB
        } else {
            Self::NOTHING
        };
        if scopes.is_empty() {
            return if role == Role::Service { job } else { Self::WHOLE };
        }
        let Some(needed) = action.interactions() else {
            return job.with(Self::unscoped(action));
        };
        let mut allowed = [0_u8; 3];
        for scope in scopes {
            let fits = match (scope.resource_type, target) {
                (None, _) => true,
                (Some(named), Target::Type(asked)) => named == asked,
                (Some(_), Target::Installation) => false,
            };
            let [patient, user, system] = &mut allowed;
            let bits = match scope.context {
                ScopeContext::Patient => patient,
                ScopeContext::User => user,
                ScopeContext::System => system,
            };
            if fits {
                *bits |= scope.interactions.0;
            }
        }
        let mut grant = job;
        for (bits, flag) in allowed.into_iter().zip([Self::PATIENT, Self::USER, Self::SYSTEM]) {
            if bits & needed.0 == needed.0 {
                grant = grant.with(flag);
            }
        }
        grant
    }

    /// Acts that no scope has letters for and that show and change nothing of the record: every token may do them.
    fn unscoped(action: Action) -> Self {
        match action {
            Action::Capabilities | Action::Validate | Action::Transaction | Action::OwnSession => Self::WHOLE,
            _ => Self::NOTHING,
        }
    }

    fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are in this grant. (`NOTHING` is in every grant.)
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(role: Role, scopes: &[&str], action: Action, target: Option<&str>) -> Grant {
        let scopes: Vec<Scope> = scopes.iter().map(|s| Scope::parse(s).unwrap()).collect();
        let target = target.map_or(Target::Installation, |t| {
            Target::Type(ResourceType::from_name(t).unwrap())
        });
        Grant::from_scopes(role, false, &scopes, action, target)
    }

    #[test]
    fn a_person_without_scopes_has_the_whole_role_and_a_machine_nothing() {
        assert_eq!(grant(Role::Nurse, &[], Action::Read, Some("Patient")), Grant::WHOLE);
        assert_eq!(grant(Role::Service, &[], Action::Read, Some("Patient")), Grant::NOTHING);
        assert_eq!(grant(Role::Service, &[], Action::Capabilities, None), Grant::NOTHING);
    }

    #[test]
    fn letters_of_several_scopes_of_one_context_add_up() {
        let both = ["system/Patient.r", "system/*.s"];
        assert_eq!(
            grant(Role::Service, &both, Action::Everything, Some("Patient")),
            Grant::SYSTEM
        );
        assert_eq!(
            grant(Role::Service, &both, Action::Everything, Some("Observation")),
            Grant::NOTHING
        );
        let mixed = ["system/Patient.r", "user/*.s"];
        assert_eq!(
            grant(Role::Service, &mixed, Action::Everything, Some("Patient")),
            Grant::NOTHING
        );
    }

    #[test]
    fn a_scope_of_one_type_says_nothing_about_another_or_the_installation() {
        assert_eq!(
            grant(Role::Nurse, &["user/Observation.cruds"], Action::Read, Some("Patient")),
            Grant::NOTHING
        );
        assert_eq!(
            grant(Role::Service, &["system/Patient.cruds"], Action::Import, None),
            Grant::NOTHING
        );
        assert_eq!(
            grant(Role::Service, &["system/*.cru"], Action::Import, None),
            Grant::SYSTEM
        );
        assert_eq!(
            grant(Role::SecurityOfficer, &["system/*.cruds"], Action::KeysRotate, None),
            Grant::NOTHING
        );
        assert_eq!(
            grant(Role::Service, &["system/Patient.r"], Action::Capabilities, None),
            Grant::WHOLE
        );
    }

    #[test]
    fn only_a_service_can_be_a_job() {
        for role in Role::ALL {
            let grant = Grant::from_scopes(role, true, &[], Action::Erase, Target::Installation);
            assert_eq!(grant.contains(Grant::JOB), role == Role::Service);
        }
    }

    #[test]
    fn leaving_the_system_out_does_not_lift_a_label() {
        assert_eq!(Labels::from_coding(None, "R"), Labels::RESTRICTED);
        assert_eq!(Labels::from_coding(Some(CONFIDENTIALITY), "V"), Labels::RESTRICTED);
        assert_eq!(Labels::from_coding(Some(CONFIDENTIALITY), "N"), Labels::NONE);
        assert_eq!(Labels::from_coding(Some("urn:other"), "R"), Labels::NONE);
        assert_eq!(Labels::from_coding(Some(ACT_CODE), "ETH"), Labels::PART_2);
        assert_eq!(Labels::from_coding(Some(ACT_CODE), "PSYTHPN"), Labels::PSYCHOTHERAPY);
    }
}

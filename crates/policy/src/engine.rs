//! The engine: the only module that names Cedar.
//!
//! Roles, actions, types and classes are Cedar entities made once at load; a decision builds only its small context.
//! About 12 microseconds each; `record` caches by [`Request`].

use std::collections::HashMap;
use std::sync::Arc;

use cedar_policy::{
    Authorizer, Context, Decision as Verdict, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicyId,
    PolicySet, RestrictedExpression, Schema, ValidationMode, Validator,
};
use keepwell_model::actor::{Place, PurposeOfUse, Role};
use keepwell_model::types::ResourceType;

use crate::classes::Classes;
use crate::request::{Action, ActionGroup, Consent, Grant, Labels, Relation, Request, Target};
use crate::sources::Sources;

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the act may happen.
    pub permit: bool,
    /// Why, in words for the access log and for `policy explain`; no patient data.
    pub reason: Arc<str>,
    /// The policies that decided (`@id`), sorted. Empty where no rule permits.
    pub policies: Vec<Arc<str>>,
    /// What the record must do when it goes ahead, sorted.
    pub obligations: Vec<Obligation>,
}

/// What a permit demands of the record beside the usual audit entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Obligation {
    /// The answer carries the notice of 42 CFR 2.32: no redisclosure without consent.
    Part2Notice,
    /// The access is to restricted data: wait for the audit entry to be fsynced before the answer leaves.
    SyncAudit,
    /// Only who the patient is may be shown: id, name, birth date, gender.
    MinimalBanner,
}

impl Obligation {
    /// All obligations.
    pub const ALL: [Obligation; 3] = [
        Obligation::Part2Notice,
        Obligation::SyncAudit,
        Obligation::MinimalBanner,
    ];

    /// The name used in `@obligation`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Obligation::Part2Notice => "part-2-notice",
            Obligation::SyncAudit => "sync-audit",
            Obligation::MinimalBanner => "minimal-banner",
        }
    }
}

/// The policies do not load: the server must not start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file does not parse.
    #[error("policy file `{file}` does not parse: {detail}")]
    Parse {
        /// Which.
        file: String,
        /// What is wrong.
        detail: String,
    },
    /// A policy does not fit the schema, or the schema does not fit the program.
    #[error("policies do not fit the schema: {0}")]
    Schema(String),
    /// The table of data classes is wrong.
    #[error("data classes: {0}")]
    Classes(String),
}

/// What is said of a policy beside its condition.
struct Rule {
    id: Arc<str>,
    reason: Arc<str>,
    obligation: Option<Obligation>,
}

/// The loaded policies.
pub struct Engine {
    policies: PolicySet,
    entities: Entities,
    rules: HashMap<PolicyId, Rule>,
    names: Names,
    classes: Classes,
    named_types: Vec<ResourceType>,
    nothing_permits: Arc<str>,
    failed: Arc<str>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({} policies)", self.rules.len())
    }
}

impl Engine {
    /// Loads the embedded policies.
    ///
    /// # Errors
    /// A policy does not parse, does not fit the schema, or a resource type has no data class.
    pub fn load() -> Result<Self, LoadError> {
        Self::from_sources(&Sources::embedded())
    }

    /// Loads policies from their text.
    ///
    /// # Errors
    /// As for [`Engine::load`].
    pub fn from_sources(sources: &Sources) -> Result<Self, LoadError> {
        let classes = Classes::parse(&sources.classes).map_err(LoadError::Classes)?;
        let (schema, warnings) = Schema::from_cedarschema_str(&sources.schema).map_err(|e| LoadError::Parse {
            file: "schema.cedarschema".into(),
            detail: e.to_string(),
        })?;
        if let Some(warning) = warnings.into_iter().next() {
            return Err(LoadError::Schema(warning.to_string()));
        }
        let (policies, rules) = parse_policies(&sources.policies)?;
        let outcome = Validator::new(schema.clone()).validate(&policies, ValidationMode::Strict);
        if !outcome.validation_passed_without_warnings() {
            return Err(LoadError::Schema(outcome.to_string()));
        }
        let names = Names::new()?;
        let entities = entities(&classes, &names, &schema)?;
        // Strict validation knows the types of entities, not their names: a misspelt class would never match.
        let literals: Vec<EntityUid> = policies.policies().flat_map(|p| p.entity_literals()).collect();
        for uid in &literals {
            let by_name = uid.type_name() == &names.class_type || uid.type_name() == &names.resource_type;
            if by_name && entities.get(uid).is_none() {
                return Err(LoadError::Schema(format!("there is no `{uid}`")));
            }
        }
        check_actions(&names, &schema)?;
        let named_types = ResourceType::all()
            .zip(&names.types)
            .filter(|(_, uid)| literals.contains(uid));
        Ok(Self {
            named_types: named_types.map(|(t, _)| t).collect(),
            policies,
            entities,
            rules,
            names,
            classes,
            nothing_permits: "no rule permits this".into(),
            failed: "a rule could not be evaluated".into(),
        })
    }

    /// Decides. Pure and deterministic: the answer may be cached under `request` until the policies change.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Decision {
        match self.names.cedar_request(request, None) {
            Some(question) => self.ask(&question),
            None => self.deny(&self.failed),
        }
    }

    /// Decides whether `request` could be permitted for some relation to a patient: the first gate of a search or a
    /// history, before rows are asked for one by one.
    #[must_use]
    pub fn decide_for_any_relation(&self, request: &Request) -> Decision {
        let mut last = self.deny(&self.nothing_permits);
        for relation in Relation::ALL {
            last = self.decide(&Request { relation, ..*request });
            if last.permit {
                break;
            }
        }
        last
    }

    /// The data classes.
    #[must_use]
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// The types that some policy names. All others are decided by their class alone: types have no attributes.
    #[must_use]
    pub fn named_types(&self) -> &[ResourceType] {
        &self.named_types
    }

    /// How many policies are loaded.
    #[must_use]
    pub fn policy_count(&self) -> usize {
        self.rules.len()
    }

    fn ask(&self, question: &cedar_policy::Request) -> Decision {
        let response = Authorizer::new().is_authorized(question, &self.policies, &self.entities);
        // INVARIANT (errors deny): Cedar skips a policy that fails; a `forbid` skipped is a door left open.
        if response.diagnostics().errors().next().is_some() {
            return self.deny(&self.failed);
        }
        let mut decisive: Vec<&Rule> = response
            .diagnostics()
            .reason()
            .filter_map(|id| self.rules.get(id))
            .collect();
        decisive.sort_by(|a, b| a.id.cmp(&b.id));
        let permit = response.decision() == Verdict::Allow;
        // A rule that carries an obligation repeats another's permit: the other one says why.
        let says_why = decisive.iter().find(|r| r.obligation.is_none()).or(decisive.first());
        let mut obligations: Vec<_> = decisive
            .iter()
            .filter_map(|r| r.obligation)
            .filter(|_| permit)
            .collect();
        obligations.sort_unstable();
        obligations.dedup();
        Decision {
            permit,
            reason: says_why.map_or_else(|| self.nothing_permits.clone(), |r| r.reason.clone()),
            policies: decisive.iter().map(|r| r.id.clone()).collect(),
            obligations,
        }
    }

    fn deny(&self, reason: &Arc<str>) -> Decision {
        Decision {
            permit: false,
            reason: reason.clone(),
            policies: Vec::new(),
            obligations: Vec::new(),
        }
    }
}

/// Reads the policy files. Each policy carries `@id` (unique over all files) and `@reason`.
fn parse_policies(files: &[(String, String)]) -> Result<(PolicySet, HashMap<PolicyId, Rule>), LoadError> {
    let mut all = PolicySet::new();
    let mut rules = HashMap::new();
    for (file, text) in files {
        let fault = |detail: String| LoadError::Parse {
            file: file.clone(),
            detail,
        };
        let set: PolicySet = text
            .parse()
            .map_err(|e: cedar_policy::ParseErrors| fault(e.to_string()))?;
        if set.templates().next().is_some() {
            return Err(fault("templates are not used here".into()));
        }
        for policy in set.policies() {
            let said = |key: &str| policy.annotation(key).filter(|v| !v.is_empty());
            let id = said("id").ok_or_else(|| fault(format!("a policy has no @id: {policy}")))?;
            let reason = said("reason").ok_or_else(|| fault(format!("policy `{id}` has no @reason")))?;
            let obligation = match policy.annotation("obligation") {
                None => None,
                Some(name) => Some(
                    Obligation::ALL
                        .into_iter()
                        .find(|o| o.name() == name)
                        .ok_or_else(|| fault(format!("policy `{id}` names an unknown obligation `{name}`")))?,
                ),
            };
            let key = PolicyId::new(id);
            all.add(policy.new_id(key.clone())).map_err(|e| fault(e.to_string()))?;
            rules.insert(
                key,
                Rule {
                    id: id.into(),
                    reason: reason.into(),
                    obligation,
                },
            );
        }
    }
    Ok((all, rules))
}

/// Roles, classes and types as entities; actions come from the schema.
fn entities(classes: &Classes, names: &Names, schema: &Schema) -> Result<Entities, LoadError> {
    let class_uid = |name: &str| uid(&names.class_type, name);
    let mut all = Vec::new();
    for (name, parent) in classes.all() {
        all.push(Entity::new_no_attrs(
            class_uid(name),
            parent.into_iter().map(class_uid).collect(),
        ));
    }
    for (t, name) in ResourceType::all().zip(&names.types) {
        all.push(Entity::new_no_attrs(name.clone(), [class_uid(classes.of(t))].into()));
    }
    Entities::from_entities(all, Some(schema)).map_err(|e| LoadError::Schema(e.to_string()))
}

/// The program's actions, roles, relations, labels, purposes, places and consents are exactly those of the schema.
fn check_actions(names: &Names, schema: &Schema) -> Result<(), LoadError> {
    for (uid, action) in names.actions.iter().zip(Action::ALL) {
        let target = match action.group() {
            ActionGroup::System => Target::Installation,
            _ => ResourceType::from_name("Patient").map_or(Target::Installation, Target::Type),
        };
        for role in Role::ALL {
            for (label, _) in Labels::ALL {
                for relation in Relation::ALL {
                    let nth = role as usize + relation as usize;
                    let request = Request {
                        labels: label,
                        purpose: PurposeOfUse::from_number(1 + (role as u8 % 7)).unwrap_or_default(),
                        place: Place::ALL.get(nth % Place::ALL.len()).copied().unwrap_or_default(),
                        consent: Consent::ALL.get(nth % Consent::ALL.len()).copied().unwrap_or_default(),
                        ..Request::plain(role, *action, target, relation)
                    };
                    if names.cedar_request(&request, Some(schema)).is_none() {
                        return Err(LoadError::Schema(format!(
                            "the schema refuses {uid} by `{}`",
                            role.name()
                        )));
                    }
                }
            }
        }
    }
    let groups: Vec<&EntityUid> = schema.action_groups().collect();
    match schema
        .actions()
        .find(|a| !names.actions.contains(a) && !groups.contains(a))
    {
        Some(unknown) => Err(LoadError::Schema(format!("the program does not know {unknown}"))),
        None => Ok(()),
    }
}

/// The Cedar names of everything a request can hold, made once.
struct Names {
    class_type: EntityTypeName,
    resource_type: EntityTypeName,
    roles: Vec<EntityUid>,
    actions: Vec<EntityUid>,
    types: Vec<EntityUid>,
    installation: EntityUid,
    relations: Vec<EntityUid>,
    labels: Vec<EntityUid>,
    purposes: Vec<EntityUid>,
    places: Vec<EntityUid>,
    consents: Vec<EntityUid>,
}

impl Names {
    fn new() -> Result<Self, LoadError> {
        let kind = |name: &str| {
            name.parse::<EntityTypeName>()
                .map_err(|e| LoadError::Schema(e.to_string()))
        };
        let (role, action, resource_type) = (kind("Role")?, kind("Action")?, kind("Type")?);
        let (relation, label, purpose) = (kind("Relation")?, kind("Label")?, kind("Purpose")?);
        let (place, consent) = (kind("Place")?, kind("Consent")?);
        Ok(Self {
            class_type: kind("DataClass")?,
            roles: Role::ALL.iter().map(|r| uid(&role, r.name())).collect(),
            actions: Action::ALL.iter().map(|a| uid(&action, a.name())).collect(),
            types: ResourceType::all().map(|t| uid(&resource_type, t.name())).collect(),
            installation: uid(&kind("Installation")?, "keepwell"),
            relations: Relation::ALL.iter().map(|r| uid(&relation, r.name())).collect(),
            labels: Labels::ALL.iter().map(|(_, n)| uid(&label, n)).collect(),
            purposes: (1..=7)
                .filter_map(PurposeOfUse::from_number)
                .map(|p| uid(&purpose, p.code()))
                .collect(),
            places: Place::ALL.iter().map(|p| uid(&place, p.name())).collect(),
            consents: Consent::ALL.iter().map(|c| uid(&consent, c.name())).collect(),
            resource_type,
        })
    }

    /// `None` where something has no name or the schema refuses it.
    fn cedar_request(&self, request: &Request, schema: Option<&Schema>) -> Option<cedar_policy::Request> {
        let principal = self.roles.get(request.role as usize - 1)?.clone();
        let action = self.actions.get(request.action as usize)?.clone();
        let resource = match request.target {
            Target::Type(t) => self.types.get(t.index())?.clone(),
            Target::Installation => self.installation.clone(),
        };
        let context = self.context(request)?;
        cedar_policy::Request::new(principal, action, resource, context, schema).ok()
    }

    fn context(&self, request: &Request) -> Option<Context> {
        let entity = |uid: &EntityUid| RestrictedExpression::new_entity_uid(uid.clone());
        let labels = Labels::ALL.iter().zip(&self.labels);
        let labels = labels
            .filter(|((l, _), _)| request.labels.contains(*l))
            .map(|(_, uid)| entity(uid));
        let grants = [
            ("whole", Grant::WHOLE),
            ("patient", Grant::PATIENT),
            ("user", Grant::USER),
            ("system", Grant::SYSTEM),
            ("job", Grant::JOB),
        ];
        let grants = grants.map(|(n, g)| (n.to_owned(), RestrictedExpression::new_bool(request.grant.contains(g))));
        Context::from_pairs([
            (
                "relation".to_owned(),
                entity(self.relations.get(request.relation as usize)?),
            ),
            ("labels".to_owned(), RestrictedExpression::new_set(labels)),
            (
                "purpose".to_owned(),
                entity(self.purposes.get(request.purpose as usize - 1)?),
            ),
            ("grant".to_owned(), RestrictedExpression::new_record(grants).ok()?),
            (
                "assurance".to_owned(),
                RestrictedExpression::new_long(i64::from(request.assurance as u8)),
            ),
            ("place".to_owned(), entity(self.places.get(request.place as usize)?)),
            (
                "consent".to_owned(),
                entity(self.consents.get(request.consent as usize)?),
            ),
        ])
        .ok()
    }
}

fn uid(kind: &EntityTypeName, name: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(policy: &str) -> Result<Engine, LoadError> {
        let mut sources = Sources::embedded();
        sources.policies.push(("test.cedar".into(), policy.into()));
        Engine::from_sources(&sources)
    }

    fn nurse_reads_observation() -> Request {
        let observation = Target::Type(ResourceType::from_name("Observation").unwrap());
        Request::plain(Role::Nurse, Action::Read, observation, Relation::Related)
    }

    #[test]
    fn a_nurse_reads_observations_and_is_told_why() {
        let decision = Engine::load().unwrap().decide(&nurse_reads_observation());
        assert!(decision.permit);
        assert_eq!(&*decision.reason, "nursing care");
        assert_eq!(decision.policies, ["nurse-views-care".into()]);
    }

    #[test]
    fn types_of_a_class_are_told_apart_only_when_a_policy_names_them() {
        let policy =
            r#"@id("x") @reason("x") permit (principal, action == Action::"read", resource == Type::"Claim");"#;
        let claim = ResourceType::from_name("Claim").unwrap();
        assert!(!Engine::load().unwrap().named_types().contains(&claim));
        assert!(with(policy).unwrap().named_types().contains(&claim));
    }

    #[test]
    fn a_forbid_that_cannot_be_evaluated_denies() {
        // 2^63 - 1 + 1 overflows: the validator accepts it, evaluation fails, and Cedar alone would skip the forbid.
        let engine = with(
            r#"@id("broken") @reason("broken") forbid (principal == Role::"nurse", action, resource)
               when { 9223372036854775807 + 1 > 0 };"#,
        )
        .unwrap();
        let request = nurse_reads_observation();
        let question = engine.names.cedar_request(&request, None).unwrap();
        let cedar = Authorizer::new().is_authorized(&question, &engine.policies, &engine.entities);
        assert_eq!(
            cedar.decision(),
            Verdict::Allow,
            "this test shows nothing if Cedar itself denies"
        );

        let decision = engine.decide(&request);
        assert!(!decision.permit);
        assert_eq!(&*decision.reason, "a rule could not be evaluated");
    }

    #[test]
    fn a_permit_that_cannot_be_evaluated_denies_even_where_another_permits() {
        let engine = with(
            r#"@id("broken") @reason("broken") permit (principal == Role::"nurse", action, resource)
               when { 9223372036854775807 + 1 > 0 };"#,
        )
        .unwrap();
        assert!(!engine.decide(&nurse_reads_observation()).permit);
    }

    #[test]
    fn an_unknown_type_is_denied_to_every_role() {
        let engine = Engine::load().unwrap();
        for action in Action::ALL {
            for role in &engine.names.roles {
                let action_uid = engine.names.actions[*action as usize].clone();
                let resource = uid(&engine.names.resource_type, "Nonsense");
                let context = engine.names.context(&nurse_reads_observation()).unwrap();
                let question = cedar_policy::Request::new(role.clone(), action_uid, resource, context, None).unwrap();
                let open = matches!(
                    action,
                    Action::Capabilities | Action::Validate | Action::Transaction | Action::OwnSession
                );
                if action.group() != ActionGroup::System {
                    assert!(!engine.ask(&question).permit, "{} {role}", action.name());
                } else if open {
                    assert!(engine.ask(&question).permit, "{} {role}", action.name());
                }
            }
        }
    }

    #[test]
    fn misspelt_policies_do_not_load() {
        let refused = [
            (r#"permit (principal, action, resource);"#, "@id"),
            (r#"@id("x") permit (principal, action, resource);"#, "@reason"),
            (
                r#"@id("nurse-views-care") @reason("x") permit (principal == Role::"nurse", action == Action::"read", resource);"#,
                "nurse-views-care",
            ),
            (
                r#"@id("x") @reason("x") permit (principal == Role::"nrse", action == Action::"read", resource);"#,
                "nrse",
            ),
            (
                r#"@id("x") @reason("x") permit (principal, action == Action::"peek", resource);"#,
                "peek",
            ),
            (
                r#"@id("x") @reason("x") permit (principal, action == Action::"read", resource in DataClass::"note");"#,
                "note",
            ),
            (
                r#"@id("x") @reason("x") permit (principal, action == Action::"read", resource == Type::"Pateint");"#,
                "Pateint",
            ),
            (
                r#"@id("x") @reason("x") permit (principal, action == Action::"read", resource) when { context.relaton == Relation::"own" };"#,
                "relaton",
            ),
            (
                r#"@id("x") @reason("x") permit (principal, action == Action::"read", resource) when { context.relation == Relation::"mine" };"#,
                "mine",
            ),
            (
                r#"@id("x") @reason("x") permit (principal, action == Action::"read", resource) when { context.labels.contains(Label::"secret") };"#,
                "secret",
            ),
            (
                r#"@id("x") @reason("x") @obligation("dance") permit (principal, action == Action::"read", resource);"#,
                "dance",
            ),
            (
                r#"@id("x") @reason("x") permit (principal, action == Action::"read", resource"#,
                "test.cedar",
            ),
        ];
        for (policy, names) in refused {
            match with(policy) {
                Ok(_) => panic!("loaded: {policy}"),
                Err(e) => assert!(e.to_string().contains(names), "`{e}` does not name `{names}`"),
            }
        }
    }

    #[test]
    fn schema_and_program_name_the_same_actions() {
        let mut sources = Sources::embedded();
        sources
            .schema
            .push_str("action \"peek\" appliesTo { principal: Role, resource: Type, context: Ask };");
        assert!(Engine::from_sources(&sources).unwrap_err().to_string().contains("peek"));

        let mut sources = Sources::embedded();
        sources.schema = sources.schema.replace("\"lineage\"", "\"linage\"");
        assert!(Engine::from_sources(&sources).is_err());

        let mut sources = Sources::embedded();
        sources.schema = sources.schema.replace("\"psychotherapy\"]", "\"psycho\"]");
        assert!(Engine::from_sources(&sources).is_err());

        for (name, other) in [("\"remote\"", "\"far\""), ("\"permit\"", "\"yes\"")] {
            let mut sources = Sources::embedded();
            assert!(sources.schema.contains(name));
            sources.schema = sources.schema.replace(name, other);
            assert!(Engine::from_sources(&sources).is_err(), "{name}");
        }
    }
}

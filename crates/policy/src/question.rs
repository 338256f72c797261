//! A question in words: the lines of `policies/cases.txt` and the options of `policy explain`.

use keepwell_model::actor::{Assurance, Place, PurposeOfUse, Role, Scope};
use keepwell_model::types::ResourceType;

use crate::request::{Action, ActionGroup, Consent, Grant, Labels, Relation, Request, Target};

/// What is asked, before scopes are weighed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who asks.
    pub role: Role,
    /// What for.
    pub action: Action,
    /// Of what.
    pub target: Target,
    /// How they stand to the patient; `None` = each way.
    pub relation: Option<Relation>,
    /// Labels of the resource.
    pub labels: Labels,
    /// Purpose of use.
    pub purpose: PurposeOfUse,
    /// How sure the server is of who asks.
    pub assurance: Assurance,
    /// Where they ask from.
    pub place: Place,
    /// What the patient's consents say.
    pub consent: Consent,
    /// Scopes of the token; empty = signed in.
    pub scopes: Vec<Scope>,
    /// A job of the installation.
    pub job: bool,
}

impl Question {
    /// Reads `ROLE ACTION [TYPE] [RELATION] [label=NAME] [purpose=CODE] [scope=SCOPE] [assurance=NAME] [place=NAME]
    /// [consent=NAME] [job]`; label and scope may be repeated.
    ///
    /// # Errors
    /// The word that is not understood, and what could stand there.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut words = words.into_iter();
        let role = words.next().ok_or("the role is missing")?;
        let role = Role::from_name(role)
            .ok_or_else(|| format!("`{role}` is no role; one of {}", Role::ALL.map(Role::name).join(", ")))?;
        let action = words.next().ok_or("the action is missing")?;
        let action = Action::from_name(action).ok_or_else(|| {
            let all: Vec<_> = Action::ALL.iter().map(|a| a.name()).collect();
            format!("`{action}` is no action; one of {}", all.join(", "))
        })?;
        let mut question = Self {
            role,
            action,
            target: Target::Installation,
            relation: None,
            labels: Labels::NONE,
            purpose: PurposeOfUse::Treatment,
            assurance: Assurance::TwoFactors,
            place: Place::Unknown,
            consent: Consent::None,
            scopes: Vec::new(),
            job: false,
        };
        for word in words {
            question.word(word)?;
        }
        match (question.action.group(), question.target) {
            (ActionGroup::System, Target::Type(_)) => Err(format!("`{}` is not about a type", action.name())),
            (ActionGroup::View | ActionGroup::Write | ActionGroup::Chart, Target::Installation) => {
                Err(format!("`{}` needs a resource type", action.name()))
            }
            _ => Ok(question),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        if let Some(name) = word.strip_prefix("label=") {
            let label = Labels::from_name(name).ok_or_else(|| {
                format!(
                    "`{name}` is no label; one of {}",
                    Labels::ALL.map(|(_, n)| n).join(", ")
                )
            })?;
            self.labels = self.labels.with(label);
        } else if let Some(code) = word.strip_prefix("purpose=") {
            self.purpose = (1..=7)
                .filter_map(PurposeOfUse::from_number)
                .find(|p| p.code() == code)
                .ok_or_else(|| format!("`{code}` is no purpose of use"))?;
        } else if let Some(text) = word.strip_prefix("scope=") {
            self.scopes
                .push(Scope::parse(text).ok_or_else(|| format!("`{text}` is no scope like `user/Patient.rs`"))?);
        } else if let Some(name) = word.strip_prefix("assurance=") {
            self.assurance = named(name, &Assurance::ALL, Assurance::name)?;
        } else if let Some(name) = word.strip_prefix("place=") {
            self.place = named(name, &Place::ALL, Place::name)?;
        } else if let Some(name) = word.strip_prefix("consent=") {
            self.consent = named(name, &Consent::ALL, Consent::name)?;
        } else if word == "job" {
            self.job = true;
        } else if let Some(relation) = Relation::from_name(word) {
            self.relation = Some(relation);
        } else if let Some(t) = ResourceType::from_name(word) {
            self.target = Target::Type(t);
        } else {
            return Err(format!(
                "`{word}` is neither a resource type nor a relation, label=, purpose=, scope=, assurance=, place=, consent= or \
                 job"
            ));
        }
        Ok(())
    }

    /// The request for one relation.
    #[must_use]
    pub fn request(&self, relation: Relation) -> Request {
        Request {
            labels: self.labels,
            purpose: self.purpose,
            grant: Grant::from_scopes(self.role, self.job, &self.scopes, self.action, self.target),
            assurance: self.assurance,
            place: self.place,
            consent: self.consent,
            ..Request::plain(self.role, self.action, self.target, relation)
        }
    }

    /// The relations asked about.
    #[must_use]
    pub fn relations(&self) -> Vec<Relation> {
        match (self.relation, self.target) {
            (Some(one), _) => vec![one],
            (None, Target::Installation) => vec![Relation::NoPatient],
            (None, Target::Type(_)) => Relation::ALL.to_vec(),
        }
    }
}

/// The one of `all` with that name.
fn named<T: Copy>(name: &str, all: &[T], name_of: impl Fn(T) -> &'static str) -> Result<T, String> {
    all.iter().copied().find(|one| name_of(*one) == name).ok_or_else(|| {
        let known: Vec<_> = all.iter().copied().map(&name_of).collect();
        format!("`{name}` is none of {}", known.join(", "))
    })
}

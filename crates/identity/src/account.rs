//! Accounts: who may sign in, in which role. Own documents of kind `account`.

use keepwell_model::actor::Role;
use keepwell_model::reference::is_id;
use serde::{Deserialize, Serialize};

/// The kind of own document.
pub(crate) const KIND: &str = "account";

/// Somebody who can sign in. Holds no authenticator: those come with multi-factor sign-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Unique id of the person, never used again (45 CFR 164.312(a)(2)(i)).
    pub id: String,
    /// Name shown in the access log.
    pub display: String,
    /// The role.
    #[serde(with = "role_name")]
    pub role: Role,
    /// For a patient: the logical id of the own Patient resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patient: Option<String>,
    /// Whether the account may sign in.
    pub state: AccountState,
    /// A fictional person of the demo clinic: listed on its sign-in page.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub demo: bool,
}

/// Whether an account may sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccountState {
    /// It may.
    Active,
    /// It has ended; the id stays taken, so that the log keeps its meaning.
    Ended,
}

impl Account {
    /// An active account.
    #[must_use]
    pub fn new(id: &str, display: &str, role: Role, patient: Option<&str>) -> Self {
        Self {
            id: id.to_owned(),
            display: display.to_owned(),
            role,
            patient: patient.map(str::to_owned),
            state: AccountState::Active,
            demo: false,
        }
    }

    /// Why the account cannot be made, if so.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if !is_id(&self.id) {
            return Some("a user id has 1 to 64 letters, digits, `-` and `.`");
        }
        if !is_display(&self.display) {
            return Some("a display name has 1 to 200 characters and no control characters");
        }
        match (self.role, &self.patient) {
            (Role::Service, _) => Some("machines have tokens, not accounts"),
            (Role::Patient, None) => Some("a patient's account names the Patient"),
            (Role::Patient, Some(p)) if !is_id(p) => Some("this is no id of a Patient"),
            (Role::Patient, Some(_)) | (_, None) => None,
            (_, Some(_)) => Some("only a patient's account names a Patient"),
        }
    }
}

/// Names are shown in logs and pages: no control characters, not endless.
pub(crate) fn is_display(text: &str) -> bool {
    (1..=200).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// Roles by name in JSON.
mod role_name {
    use keepwell_model::actor::Role;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(role: &Role, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(role.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Role, D::Error> {
        let name = String::deserialize(from)?;
        Role::from_name(&name).ok_or_else(|| D::Error::custom("unknown role"))
    }
}

//! What an account signs in with: one own document of kind `authenticators` for each account, its id the account's.
//!
//! Changes are read, changed and written under one lock for each account, and durable before anything follows from
//! them: a one-time code is used up before the session it opens exists.

use serde::{Deserialize, Serialize};
use webauthn_rs::prelude::Passkey;
use zeroize::Zeroize;

/// The kind of own document.
pub(crate) const KIND: &str = "authenticators";
/// Most passkeys, and most authenticator apps, of one account.
pub(crate) const EACH_MAX: usize = 16;
/// Known devices kept; a new one drops the oldest.
const DEVICES_MAX: usize = 16;

/// The document. Not `Debug`: it holds secrets.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct Authenticators {
    /// Random, 32 hexadecimal digits: what passkeys call the account. Says nothing about it.
    pub(crate) handle: String,
    /// PHC string of the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<String>,
    /// Authenticator apps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) totp: Vec<Totp>,
    /// Passkeys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) passkeys: Vec<KeptPasskey>,
    /// The printed code card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) card: Option<Card>,
    /// SHA-256 of the unused recovery codes: 120 random bits each, so that a plain hash is enough.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) recovery: Vec<String>,
    /// SHA-256 of the secrets of devices that completed a sign-in, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) devices: Vec<String>,
}

/// An authenticator app.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Totp {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Hexadecimal.
    pub(crate) secret: String,
    /// Milliseconds since 1970.
    pub(crate) added: i64,
    /// The last step whose code was used.
    pub(crate) used_step: i64,
}

/// A passkey: public key, credential id and counter. No secret.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct KeptPasskey {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) added: i64,
    /// Its counter went back once: there may be a copy. It opens nothing any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) suspect: bool,
    pub(crate) key: Passkey,
}

/// A printed card of one-time codes, used in their order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Card {
    pub(crate) issued: i64,
    /// How many are used up: the next is asked for by its number.
    pub(crate) used: usize,
    /// PHC strings: the codes are short enough to be typed, so they could be guessed.
    pub(crate) codes: Vec<String>,
}

impl Drop for Totp {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl Authenticators {
    /// Whether somebody can sign in with these: a passkey, or a password and something else.
    pub(crate) fn is_complete(&self) -> bool {
        self.has_passkey() || (self.password.is_some() && (!self.totp.is_empty() || self.card_number().is_some()))
    }

    /// Whether nothing was ever enrolled.
    pub(crate) fn is_empty(&self) -> bool {
        self.password.is_none() && self.totp.is_empty() && self.passkeys.is_empty() && self.card.is_none()
    }

    /// A passkey that still opens something.
    pub(crate) fn has_passkey(&self) -> bool {
        self.passkeys.iter().any(|k| !k.suspect)
    }

    /// The number of the next code of the card, from 1.
    pub(crate) fn card_number(&self) -> Option<usize> {
        let card = self.card.as_ref()?;
        (card.used < card.codes.len()).then_some(card.used + 1)
    }

    /// Whether the device is known.
    pub(crate) fn knows(&self, device: &str) -> bool {
        self.devices.iter().any(|d| d == device)
    }

    /// Remembers a device.
    pub(crate) fn remember(&mut self, device: String) {
        self.devices.push(device);
        let over = self.devices.len().saturating_sub(DEVICES_MAX);
        self.devices.drain(..over);
    }
}

/// What a person may know of the own authenticators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enrolled {
    /// There is a password.
    pub password: bool,
    /// Authenticator apps and passkeys.
    pub factors: Vec<Factor>,
    /// Unused codes of the printed card.
    pub card_left: usize,
    /// Unused recovery codes.
    pub recovery_left: usize,
    /// Devices that completed a sign-in.
    pub devices: usize,
    /// One can sign in with these.
    pub complete: bool,
}

/// An authenticator app or a passkey in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Factor {
    /// Its id.
    pub id: String,
    /// The name its owner gave it.
    pub name: String,
    /// What it is.
    pub kind: FactorKind,
    /// When it was added.
    pub added: keepwell_model::time::Timestamp,
    /// A copy of it may exist: it opens nothing.
    pub suspect: bool,
}

/// What a factor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FactorKind {
    /// An authenticator app.
    App,
    /// A passkey.
    Passkey,
}

impl From<&Authenticators> for Enrolled {
    fn from(a: &Authenticators) -> Self {
        use keepwell_model::time::Timestamp;
        let apps = a.totp.iter().map(|t| Factor {
            id: t.id.clone(),
            name: t.name.clone(),
            kind: FactorKind::App,
            added: Timestamp(t.added),
            suspect: false,
        });
        let keys = a.passkeys.iter().map(|k| Factor {
            id: k.id.clone(),
            name: k.name.clone(),
            kind: FactorKind::Passkey,
            added: Timestamp(k.added),
            suspect: k.suspect,
        });
        Self {
            password: a.password.is_some(),
            factors: apps.chain(keys).collect(),
            card_left: a.card.as_ref().map_or(0, |c| c.codes.len().saturating_sub(c.used)),
            recovery_left: a.recovery.len(),
            devices: a.devices.len(),
            complete: a.is_complete(),
        }
    }
}

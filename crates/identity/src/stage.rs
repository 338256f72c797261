//! Sign-ins under way: what has been proven so far, kept here for five minutes behind a secret that the browser holds
//! in a cookie. A stage opens nothing by itself.

use std::collections::VecDeque;

use hashbrown::HashMap;
use keepwell_model::time::{Entropy, EntropyUnavailable, Timestamp};
use parking_lot::Mutex;
use webauthn_rs::prelude::{DiscoverableAuthentication, PasskeyAuthentication};

use crate::secret::{random_text, sha256};
use crate::sso::{Begun, Federated};

/// A stage lives this long, in seconds.
pub const STAGE_TTL_S: i64 = 5 * 60;
/// Stages kept of people whose password was right, and as many of others; a new one drops the oldest of its kind.
const STAGES_MAX: usize = 16_384;

/// How far a sign-in has come.
#[derive(Clone)]
pub(crate) enum Stage {
    /// The password was right, or an identity provider has said who it is; a second factor is to come.
    Password {
        /// Whose.
        user: String,
        /// The known device it came from, by its hash.
        device: Option<[u8; 32]>,
        /// Who it is at their provider, where that took the password's place.
        by: Option<Federated>,
    },
    /// A passkey was asked for, of whomever.
    Passkey(Box<DiscoverableAuthentication>),
    /// The first step is done, and one of this account's passkeys was asked for.
    PasswordPasskey {
        /// Whose.
        user: String,
        /// What was asked.
        asked: Box<PasskeyAuthentication>,
        /// Who it is at their provider, where that took the password's place.
        by: Option<Federated>,
    },
    /// The browser is at an identity provider.
    Sso(Box<Begun>),
}

#[derive(Default)]
struct Kept {
    stages: HashMap<[u8; 32], (Stage, i64)>,
    order: VecDeque<[u8; 32]>,
    /// Of those that anybody may begin: any number of them drops no other.
    anybodys: VecDeque<[u8; 32]>,
}

/// The sign-ins under way.
#[derive(Default)]
pub(crate) struct Stages(Mutex<Kept>);

impl Stages {
    /// Keeps a stage; what the browser is to show for it.
    pub(crate) fn keep(
        &self,
        stage: Stage,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<String, EntropyUnavailable> {
        let secret = random_text::<32>(entropy)?;
        let key = sha256(secret.as_bytes());
        let mut kept = self.0.lock();
        let Kept {
            stages,
            order,
            anybodys,
        } = &mut *kept;
        let order = match stage {
            Stage::Passkey(_) | Stage::Sso(_) => anybodys,
            Stage::Password { .. } | Stage::PasswordPasskey { .. } => order,
        };
        while order.len() >= STAGES_MAX {
            if let Some(oldest) = order.pop_front() {
                stages.remove(&oldest);
            }
        }
        order.push_back(key);
        stages.insert(key, (stage, now.0.saturating_add(STAGE_TTL_S * 1000)));
        Ok(secret)
    }

    /// The stage of a secret, left where it is.
    pub(crate) fn look(&self, secret: &str, now: Timestamp) -> Option<Stage> {
        let kept = self.0.lock();
        let (stage, until) = kept.stages.get(&sha256(secret.as_bytes()))?;
        (now.0 < *until).then(|| stage.clone())
    }

    /// The stage of a secret, taken away: of several at once, one gets it.
    pub(crate) fn take(&self, secret: &str, now: Timestamp) -> Option<Stage> {
        let (stage, until) = self.0.lock().stages.remove(&sha256(secret.as_bytes()))?;
        (now.0 < until).then_some(stage)
    }

    /// Ends the stages of a user.
    pub(crate) fn end_of(&self, name: &str) {
        self.0.lock().stages.retain(|_, (stage, _)| match stage {
            Stage::Password { user, .. } | Stage::PasswordPasskey { user, .. } => user != name,
            Stage::Passkey(_) | Stage::Sso(_) => true,
        });
    }

    /// Ends the stages that an identity provider has begun.
    pub(crate) fn end_federated(&self, which: impl Fn(&Federated) -> bool) {
        self.0.lock().stages.retain(|_, (stage, _)| match stage {
            Stage::Password { by, .. } | Stage::PasswordPasskey { by, .. } => !by.as_ref().is_some_and(&which),
            Stage::Passkey(_) | Stage::Sso(_) => true,
        });
    }

    /// Ends all.
    pub(crate) fn end_all(&self) {
        *self.0.lock() = Kept::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tests::Dice;

    fn password(user: &str) -> Stage {
        Stage::Password {
            user: user.into(),
            device: None,
            by: None,
        }
    }

    #[test]
    fn a_stage_ends_after_five_minutes_once_taken_or_with_its_user() {
        let (stages, dice, now) = (Stages::default(), Dice::default(), Timestamp(0));
        let secret = stages.keep(password("a"), now, &dice).unwrap();
        assert!(stages.look(&secret, Timestamp(STAGE_TTL_S * 1000 - 1)).is_some());
        assert!(stages.look(&secret, Timestamp(STAGE_TTL_S * 1000)).is_none());
        assert!(stages.take(&secret, now).is_some());
        assert!(stages.take(&secret, now).is_none());
        let (a, b) = (
            stages.keep(password("a"), now, &dice).unwrap(),
            stages.keep(password("b"), now, &dice).unwrap(),
        );
        stages.end_of("a");
        assert!(stages.look(&a, now).is_none() && stages.look(&b, now).is_some());
        assert!(stages.look("", now).is_none());
    }

    #[test]
    fn strangers_cannot_fill_the_memory_with_stages() {
        let (stages, dice) = (Stages::default(), Dice::default());
        for _ in 0..STAGES_MAX + 100 {
            stages.keep(password("a"), Timestamp(0), &dice).unwrap();
        }
        assert!(stages.0.lock().stages.len() <= STAGES_MAX);
    }

    /// To ask for a passkey takes nothing: it must not drop the sign-in of somebody whose password was right.
    #[test]
    fn strangers_do_not_drop_the_sign_ins_of_others() {
        let (stages, dice, now) = (Stages::default(), Dice::default(), Timestamp(0));
        let mine = stages.keep(password("a"), now, &dice).unwrap();
        let origin = webauthn_rs::prelude::Url::parse("https://localhost").unwrap();
        let site = webauthn_rs::WebauthnBuilder::new("localhost", &origin).unwrap();
        let (_, asked) = site.build().unwrap().start_discoverable_authentication().unwrap();
        for _ in 0..STAGES_MAX + 100 {
            stages
                .keep(Stage::Passkey(Box::new(asked.clone())), now, &dice)
                .unwrap();
        }
        assert!(stages.look(&mine, now).is_some());
        assert!(stages.0.lock().stages.len() <= STAGES_MAX + 1);
    }
}

//! Page sessions: server-side, in memory, gone with the process. The cookie's secret is kept as its hash only.
//!
//! Idle and absolute limits are enforced here, not by the cookie (IAM-9, 45 CFR 164.312(a)(2)(iii)).

use std::sync::Arc;

use hashbrown::HashMap;
use keepwell_model::actor::{Actor, Assurance};
use keepwell_model::time::{Entropy, EntropyUnavailable, Timestamp};
use parking_lot::RwLock;
use subtle::ConstantTimeEq;

use crate::secret::{random_id, random_text, sha256};
use crate::sso::Federated;

/// A session without activity ends after this many seconds (NIST SP 800-63B-4 AAL3: 15 minutes).
pub const IDLE_S: i64 = 15 * 60;
/// A session ends after this many seconds whatever happens (AAL3: 12 hours).
pub const ABSOLUTE_S: i64 = 12 * 60 * 60;
/// A session that may only enrol ends after this many seconds.
pub const ENROLMENT_S: i64 = 30 * 60;
/// Sessions one person may hold; opening another ends the longest idle one.
const PER_USER: usize = 16;

/// Whether a request shows that the person is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// A click or a key: the idle clock starts anew.
    Person,
    /// A page that polls by itself: it does not keep the session alive.
    Background,
}

/// Who is signed in, as a request sees it.
#[derive(Clone, Debug)]
pub struct PageSession {
    /// Who; `actor.session` is the public id.
    pub actor: Arc<Actor>,
    /// What every form of this session carries.
    pub csrf: String,
}

/// A session just opened.
pub struct OpenedSession {
    /// The secret for the cookie: shown once, to be handed to [`crate::cookie::set`]. Not `Debug`, not stored.
    pub secret: String,
    /// The session.
    pub session: PageSession,
}

/// A session in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Public id.
    pub id: String,
    /// Whose.
    pub user: String,
    /// When it was opened.
    pub opened: Timestamp,
    /// The person's last request.
    pub active: Timestamp,
    /// Source address at sign-in.
    pub network: String,
}

struct Open {
    session: PageSession,
    info: SessionInfo,
    /// Who the person is at the identity provider they signed in by.
    by: Option<Federated>,
}

impl Open {
    fn ended(&self, now: Timestamp) -> bool {
        let since = |t: Timestamp| now.0.saturating_sub(t.0);
        let longest = if self.session.actor.assurance < Assurance::TwoFactors {
            ENROLMENT_S
        } else {
            ABSOLUTE_S
        };
        since(self.info.active) >= IDLE_S * 1000 || since(self.info.opened) >= longest * 1000
    }
}

/// The open sessions, by the hash of their secret.
#[derive(Default)]
pub struct Sessions(RwLock<HashMap<[u8; 32], Open>>);

impl Sessions {
    /// Opens a session for `actor`, whose `session` becomes the new public id: the id is new at each sign-in, so that
    /// nobody can be signed in to a session known beforehand.
    ///
    /// # Errors
    /// No randomness.
    pub fn open(
        &self,
        actor: Actor,
        network: &str,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<OpenedSession, EntropyUnavailable> {
        self.open_by(actor, None, network, now, entropy)
    }

    /// As [`Sessions::open`], of somebody who signed in by an identity provider.
    pub(crate) fn open_by(
        &self,
        mut actor: Actor,
        by: Option<Federated>,
        network: &str,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<OpenedSession, EntropyUnavailable> {
        let secret = random_text::<32>(entropy)?;
        let csrf = random_text::<32>(entropy)?;
        actor.session = random_id::<16>(entropy)?;
        let info = SessionInfo {
            id: actor.session.clone(),
            user: actor.id.clone(),
            opened: now,
            active: now,
            network: network.to_owned(),
        };
        let session = PageSession {
            actor: Arc::new(actor),
            csrf,
        };
        let mut all = self.0.write();
        all.retain(|_, s| !s.ended(now));
        let mine = all.iter().filter(|(_, s)| s.info.user == info.user);
        let mut mine: Vec<(Timestamp, [u8; 32])> = mine.map(|(k, s)| (s.info.active, *k)).collect();
        mine.sort_unstable();
        for (_, key) in mine.iter().take((mine.len() + 1).saturating_sub(PER_USER)) {
            all.remove(key);
        }
        all.insert(
            sha256(secret.as_bytes()),
            Open {
                session: session.clone(),
                info,
                by,
            },
        );
        Ok(OpenedSession { secret, session })
    }

    /// Goes on with a session under a new id, a new secret and a new token, after a factor was proven again; its
    /// absolute end stays. `None` where it has ended.
    ///
    /// # Errors
    /// No randomness.
    pub fn renew(
        &self,
        id: &str,
        assurance: Assurance,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<Option<OpenedSession>, EntropyUnavailable> {
        let secret = random_text::<32>(entropy)?;
        let csrf = random_text::<32>(entropy)?;
        let new_id = random_id::<16>(entropy)?;
        let mut all = self.0.write();
        let Some(key) = all.iter().find(|(_, s)| s.info.id == id).map(|(k, _)| *k) else {
            return Ok(None);
        };
        let Some(mut open) = all.remove(&key).filter(|s| !s.ended(now)) else {
            return Ok(None);
        };
        let mut actor = (*open.session.actor).clone();
        actor.session.clone_from(&new_id);
        actor.reauthenticated = now;
        actor.assurance = actor.assurance.max(assurance);
        open.info.id = new_id;
        open.info.active = open.info.active.max(now);
        open.session = PageSession {
            actor: Arc::new(actor),
            csrf,
        };
        let session = open.session.clone();
        all.insert(sha256(secret.as_bytes()), open);
        Ok(Some(OpenedSession { secret, session }))
    }

    /// The session of a cookie's secret. An ended one is removed at once.
    #[must_use]
    pub fn find(&self, secret: &str, activity: Activity, now: Timestamp) -> Option<PageSession> {
        let key = sha256(secret.as_bytes());
        let mut all = self.0.write();
        let open = all.get_mut(&key)?;
        if open.ended(now) {
            all.remove(&key);
            return None;
        }
        if activity == Activity::Person {
            open.info.active = open.info.active.max(now);
        }
        Some(open.session.clone())
    }

    /// Whether `presented` is the session's CSRF token, in constant time.
    #[must_use]
    pub fn csrf_matches(session: &PageSession, presented: &str) -> bool {
        session.csrf.as_bytes().ct_eq(presented.as_bytes()).into()
    }

    /// Ends the session with that public id.
    pub fn end(&self, id: &str) -> bool {
        let mut all = self.0.write();
        let before = all.len();
        all.retain(|_, s| s.info.id != id);
        all.len() < before
    }

    /// Ends the session of a cookie's secret, if there is one.
    pub fn end_secret(&self, secret: &str) {
        self.0.write().remove(&sha256(secret.as_bytes()));
    }

    /// Ends all sessions of a user and says how many there were.
    pub fn end_of(&self, user: &str) -> usize {
        let mut all = self.0.write();
        let before = all.len();
        all.retain(|_, s| s.info.user != user);
        before - all.len()
    }

    /// Ends sessions that an identity provider has opened, and says whose they were, each once.
    pub(crate) fn end_federated(&self, which: impl Fn(&Federated) -> bool) -> Vec<String> {
        let mut users = Vec::new();
        self.0.write().retain(|_, s| {
            let meant = s.by.as_ref().is_some_and(&which);
            if meant && !users.contains(&s.info.user) {
                users.push(s.info.user.clone());
            }
            !meant
        });
        users
    }

    /// Ends all sessions of a user but one.
    pub fn end_others(&self, user: &str, but: &str) {
        self.0.write().retain(|_, s| s.info.user != user || s.info.id == but);
    }

    /// Ends every session, for `keys seal`.
    pub fn end_all(&self) {
        self.0.write().clear();
    }

    /// Open sessions, of one user or all, longest open first.
    #[must_use]
    pub fn list(&self, user: Option<&str>, now: Timestamp) -> Vec<SessionInfo> {
        let all = self.0.read();
        let open = all.values().filter(|s| !s.ended(now)).map(|s| &s.info);
        let mut found: Vec<SessionInfo> = open.filter(|i| user.is_none_or(|u| i.user == u)).cloned().collect();
        found.sort_by(|a, b| (a.opened, &a.id).cmp(&(b.opened, &b.id)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tests::{Dice, actor};
    use keepwell_model::actor::Role;

    const START: Timestamp = Timestamp(1_800_000_000_000);

    fn after(seconds: i64) -> Timestamp {
        Timestamp(START.0 + seconds * 1000)
    }

    fn opened() -> (Sessions, OpenedSession) {
        let sessions = Sessions::default();
        let opened = sessions
            .open(actor("nurse-1", Role::Nurse), "10.0.0.1", START, &Dice::default())
            .unwrap();
        (sessions, opened)
    }

    #[test]
    fn ends_after_a_quarter_of_an_hour_without_activity_whatever_the_page_polls() {
        let (sessions, o) = opened();
        assert!(sessions.find(&o.secret, Activity::Person, after(IDLE_S - 1)).is_some());
        for minute in 1..15 {
            assert!(
                sessions
                    .find(&o.secret, Activity::Background, after(IDLE_S - 1 + minute * 60))
                    .is_some()
            );
        }
        assert!(
            sessions
                .find(&o.secret, Activity::Background, after(2 * IDLE_S - 1))
                .is_none()
        );
        // It stays ended, even if the clock were set back.
        assert!(sessions.find(&o.secret, Activity::Person, START).is_none());
    }

    #[test]
    fn ends_after_twelve_hours_of_activity() {
        let (sessions, o) = opened();
        for minute in 1..(12 * 60) {
            assert!(sessions.find(&o.secret, Activity::Person, after(minute * 60)).is_some());
        }
        assert!(sessions.find(&o.secret, Activity::Person, after(ABSOLUTE_S)).is_none());
    }

    #[test]
    fn secrets_are_long_and_of_one_use_each_and_not_the_public_id() {
        let (sessions, a) = opened();
        let b = sessions
            .open(actor("nurse-1", Role::Nurse), "", START, &Dice::from(1000))
            .unwrap();
        assert_ne!(a.secret, b.secret);
        assert!(a.secret.len() >= 43, "256 bits in base64url");
        assert_ne!(a.secret, a.session.actor.session);
        assert!(
            sessions
                .find(&a.session.actor.session, Activity::Person, START)
                .is_none()
        );
        assert!(sessions.find("", Activity::Person, START).is_none());
    }

    #[test]
    fn csrf_tokens_belong_to_one_session() {
        let (sessions, a) = opened();
        let b = sessions
            .open(actor("nurse-2", Role::Nurse), "", START, &Dice::from(1000))
            .unwrap();
        assert!(Sessions::csrf_matches(&a.session, &a.session.csrf));
        assert!(!Sessions::csrf_matches(&a.session, &b.session.csrf));
        assert!(!Sessions::csrf_matches(&a.session, ""));
        assert!(!Sessions::csrf_matches(&a.session, &a.session.csrf[1..]));
    }

    #[test]
    fn ends_one_or_all_of_a_person_and_lists_the_rest() {
        let (sessions, a) = opened();
        let b = sessions
            .open(actor("nurse-2", Role::Nurse), "", after(1), &Dice::from(1000))
            .unwrap();
        let c = sessions
            .open(actor("nurse-2", Role::Nurse), "", after(2), &Dice::from(2000))
            .unwrap();
        assert_eq!(sessions.list(None, after(3)).len(), 3);
        assert_eq!(sessions.list(Some("nurse-2"), after(3)).len(), 2);
        assert_eq!(sessions.end_of("nurse-2"), 2);
        assert!(sessions.find(&b.secret, Activity::Person, after(3)).is_none());
        assert!(sessions.find(&c.secret, Activity::Person, after(3)).is_none());
        assert!(sessions.end(&a.session.actor.session));
        assert!(!sessions.end(&a.session.actor.session));
        assert!(sessions.find(&a.secret, Activity::Person, after(3)).is_none());
    }

    #[test]
    fn one_person_cannot_fill_the_memory_with_sessions() {
        let (sessions, first) = opened();
        for n in 0..100 {
            sessions
                .open(
                    actor("nurse-1", Role::Nurse),
                    "",
                    after(n),
                    &Dice::from(1000 * n as u64 + 1000),
                )
                .unwrap();
        }
        assert_eq!(sessions.list(None, after(100)).len(), PER_USER);
        assert!(sessions.find(&first.secret, Activity::Person, after(100)).is_none());
    }
}

//! One's own authenticators: the password, authenticator apps, passkeys, recovery codes.
//!
//! A session opened by an activation code may do this and nothing else; any other session must have proven a factor in
//! the last five minutes. Nobody sets another's authenticators; the printed card is the one thing that is handed over,
//! and it is a second factor only.

use keepwell_model::actor::{Assurance, Context};
use keepwell_model::time::Timestamp;
use keepwell_policy::Action;
use webauthn_rs::prelude::{PasskeyRegistration, RegisterPublicKeyCredential, Uuid};
use zeroize::Zeroizing;

use crate::account::{self, AccountState, is_display};
use crate::authenticators::{Authenticators, Card, EACH_MAX, Enrolled, KeptPasskey, Totp};
use crate::password;
use crate::secret::{base32, hex, random_code, random_id, sha256, typed, unhex};
use crate::service::{Denied, Fault, Identity, to_text};
use crate::totp;

/// Recovery codes made at once.
const RECOVERY_CODES: usize = 10;
/// Codes on a printed card.
const CARD_CODES: usize = 10;
/// An enrolment that was begun is kept this long, in seconds.
const BEGUN_TTL_S: i64 = 10 * 60;

/// An enrolment under way, kept in memory with its session.
pub(crate) enum Begun {
    /// An app that is to show its first code.
    App {
        /// The secret.
        secret: Zeroizing<Vec<u8>>,
        /// When it was begun.
        at: i64,
    },
    /// A passkey that is to be made.
    Passkey {
        /// What was asked.
        asked: Box<PasskeyRegistration>,
        /// When it was begun.
        at: i64,
    },
}

impl Begun {
    fn at(&self) -> i64 {
        match self {
            Begun::App { at, .. } | Begun::Passkey { at, .. } => *at,
        }
    }
}

/// An authenticator app to be enrolled. Not `Debug`: it shows the secret.
pub struct NewApp {
    /// For apps that take no picture.
    pub secret: String,
    /// The QR code as the path of an SVG of [`NewApp::size`] units a side.
    pub path: String,
    /// Units a side, with the quiet zone.
    pub size: usize,
}

impl From<Denied> for Fault {
    fn from(d: Denied) -> Self {
        match d {
            Denied::Unavailable(e) => e.into(),
            Denied::SignIn | Denied::SecondFactor => Fault::Rule("that did not work"),
        }
    }
}

impl Identity {
    /// What the person of a session has enrolled.
    ///
    /// # Errors
    /// Policy refuses, or it cannot be read.
    pub async fn enrolled(&self, by: &Context) -> Result<Enrolled, Fault> {
        self.authorize(by, Action::OwnAuthenticators).await?;
        Ok(Enrolled::from(&self.authenticators(&by.actor.id)?))
    }

    /// Sets one's own password; what is said is how good it is. Other sessions end.
    ///
    /// # Errors
    /// It is too weak, a proof is needed first, or it could not be kept.
    pub async fn set_password(&self, by: &Context, new: &str) -> Result<&'static str, Fault> {
        let account = self.may_enrol(by).await?;
        let mut words = vec![account.id.as_str(), account.display.as_str()];
        words.extend(account.email.as_deref());
        words.push(&self.site);
        password::check(new, &words).map_err(Fault::Weak)?;
        let phc = self.hasher.hash(new, &*self.entropy).await.map_err(Denied::from)?;
        self.change(by, |kept| {
            kept.password = Some(phc);
            // Known devices were known with the old one.
            kept.devices.clear();
            Ok(())
        })
        .await?;
        self.sessions.end_others(&by.actor.id, &by.actor.session);
        self.stages.end_of(&by.actor.id);
        Ok(password::strength(new))
    }

    /// Begins to enrol an authenticator app: it counts once it has shown a code.
    ///
    /// # Errors
    /// A proof is needed first, or there is no randomness.
    pub async fn begin_app(&self, by: &Context) -> Result<NewApp, Fault> {
        self.may_enrol(by).await?;
        let mut secret = Zeroizing::new(vec![0; totp::SECRET_BYTES]);
        self.entropy.fill(&mut secret)?;
        let uri = totp::uri(&self.site, &by.actor.id, &secret);
        let code = qrcode::QrCode::new(uri).map_err(|e| Fault::Unavailable(e.to_string()))?;
        let shown = base32(&secret);
        let at = self.clock.now().0;
        self.keep_begun(by, Begun::App { secret, at });
        let (path, size) = drawn(&code);
        Ok(NewApp {
            secret: shown,
            path,
            size,
        })
    }

    /// Completes the enrolment of an app by the code it shows.
    ///
    /// # Errors
    /// The code is wrong (the enrolment stays begun), or it could not be kept.
    pub async fn finish_app(&self, by: &Context, name: &str, code: &str) -> Result<(), Fault> {
        self.may_enrol(by).await?;
        let name = named(name, "Authenticator app")?;
        let now = self.clock.now();
        let found = {
            let begun = self.begun.lock();
            match begun.get(&by.actor.session) {
                Some(Begun::App { secret, at }) if now.0 - at < BEGUN_TTL_S * 1000 => {
                    totp::accepted_step(secret, code, 0, now).map(|step| (hex(secret), step))
                }
                _ => return Err(Fault::Rule("this enrolment has ended: begin it again")),
            }
        };
        let (secret, used_step) = found.ok_or(Fault::Rule(
            "that is not the code the app shows now: check that the phone's clock is right",
        ))?;
        self.begun.lock().remove(&by.actor.session);
        let id = random_id::<8>(&*self.entropy)?;
        self.change(by, |kept| {
            if kept.totp.len() >= EACH_MAX {
                return Err(Fault::Rule("there are too many apps: remove one first"));
            }
            kept.totp.push(Totp {
                id,
                name,
                secret,
                added: now.0,
                used_step,
            });
            Ok(())
        })
        .await
    }

    /// Begins to enrol a passkey; what `navigator.credentials.create` takes, as JSON.
    ///
    /// # Errors
    /// A proof is needed first, or no passkeys can be used here.
    pub async fn begin_passkey(&self, by: &Context) -> Result<String, Fault> {
        self.may_enrol(by).await?;
        let passkeys = self.passkeys.read().clone();
        let passkeys = passkeys.ok_or(Fault::Rule("passkeys need the site's own name: open it by that"))?;
        let handle = {
            let mut handle = self.authenticators(&by.actor.id)?.handle.clone();
            if handle.is_empty() {
                let made = random_id::<16>(&*self.entropy)?;
                self.change(by, |kept| {
                    if kept.handle.is_empty() {
                        kept.handle.clone_from(&made);
                    }
                    handle.clone_from(&kept.handle);
                    Ok(())
                })
                .await?;
            }
            handle
        };
        let kept = self.authenticators(&by.actor.id)?;
        let known = kept.passkeys.iter().map(|k| k.key.cred_id().clone()).collect();
        let uuid = Uuid::from_slice(&unhex(&handle)).map_err(|e| Fault::Unavailable(e.to_string()))?;
        let (options, asked) = passkeys
            .start_passkey_registration(uuid, &by.actor.id, &by.actor.display, Some(known))
            .map_err(|e| Fault::Unavailable(e.to_string()))?;
        let mut options = serde_json::to_value(&options.public_key).map_err(|e| Fault::Unavailable(e.to_string()))?;
        // Kept on the authenticator, so that it signs in without a typed name.
        if let Some(selection) = options
            .get_mut("authenticatorSelection")
            .and_then(|s| s.as_object_mut())
        {
            selection.insert("residentKey".to_owned(), "required".into());
            selection.insert("requireResidentKey".to_owned(), true.into());
        }
        let at = self.clock.now().0;
        let asked = Box::new(asked);
        self.keep_begun(by, Begun::Passkey { asked, at });
        Ok(options.to_string())
    }

    /// Completes the enrolment of a passkey.
    ///
    /// # Errors
    /// The response is not one to what was asked, of this site, with a verified user.
    pub async fn finish_passkey(&self, by: &Context, name: &str, response: &str) -> Result<(), Fault> {
        self.may_enrol(by).await?;
        let name = named(name, "Passkey")?;
        let now = self.clock.now();
        let refused = Fault::Rule("the passkey was not accepted: try again");
        let asked = match self.begun.lock().remove(&by.actor.session) {
            Some(Begun::Passkey { asked, at }) if now.0 - at < BEGUN_TTL_S * 1000 => asked,
            _ => return Err(Fault::Rule("this enrolment has ended: begin it again")),
        };
        let passkeys = self.passkeys.read().clone().ok_or(refused.clone())?;
        let response: RegisterPublicKeyCredential = serde_json::from_str(response).map_err(|_| refused.clone())?;
        let key = passkeys
            .finish_passkey_registration(&response, &asked)
            .map_err(|_| refused.clone())?;
        let taken = self.all_authenticators()?.iter().any(|(_, a)| {
            let mut keys = a.passkeys.iter();
            keys.any(|k| k.key.cred_id() == key.cred_id())
        });
        if taken {
            return Err(refused);
        }
        let id = random_id::<8>(&*self.entropy)?;
        let mut handle = String::new();
        self.change(by, |kept| {
            if kept.passkeys.len() >= EACH_MAX {
                return Err(Fault::Rule("there are too many passkeys: remove one first"));
            }
            kept.passkeys.push(KeptPasskey {
                id,
                name,
                added: now.0,
                suspect: false,
                key,
            });
            handle.clone_from(&kept.handle);
            Ok(())
        })
        .await?;
        self.handles.write().insert(handle, by.actor.id.clone());
        Ok(())
    }

    /// Removes one of one's own apps or passkeys, as long as one can still sign in.
    ///
    /// # Errors
    /// A proof is needed first, it is the last one, or there is no such one.
    pub async fn remove_factor(&self, by: &Context, id: &str) -> Result<(), Fault> {
        self.may_enrol(by).await?;
        self.change(by, |kept| {
            let could = kept.is_complete();
            let before = kept.totp.len() + kept.passkeys.len();
            kept.totp.retain(|t| t.id != id);
            kept.passkeys.retain(|k| k.id != id);
            if kept.totp.len() + kept.passkeys.len() == before {
                return Err(Fault::Rule("there is no such authenticator"));
            }
            if could && !kept.is_complete() {
                return Err(Fault::Rule("without this one you could not sign in: add another first"));
            }
            Ok(())
        })
        .await
    }

    /// New recovery codes, to be shown once; the ones before open nothing.
    ///
    /// # Errors
    /// A proof is needed first, or they could not be kept.
    pub async fn new_recovery_codes(&self, by: &Context) -> Result<Vec<String>, Fault> {
        self.may_enrol(by).await?;
        let codes = (0..RECOVERY_CODES)
            .map(|_| random_code::<15>(&*self.entropy))
            .collect::<Result<Vec<_>, _>>()?;
        let hashes = codes.iter().map(|c| hex(&sha256(typed(c).as_bytes()))).collect();
        self.change(by, |kept| {
            kept.recovery = hashes;
            Ok(())
        })
        .await?;
        Ok(codes)
    }

    /// Forgets the devices that count as known.
    ///
    /// # Errors
    /// A proof is needed first, or it could not be kept.
    pub async fn forget_devices(&self, by: &Context) -> Result<(), Fault> {
        self.may_enrol(by).await?;
        self.change(by, |kept| {
            kept.devices.clear();
            Ok(())
        })
        .await
    }

    /// Makes a printed card of one-time codes for somebody without a phone, to be handed over in person; the card
    /// before opens nothing. It is a second factor: it opens nothing without the password, which stays its owner's.
    ///
    /// # Errors
    /// Policy refuses, a proof is needed first, it is one's own account, or there is none.
    pub async fn issue_card(&self, by: &Context, user: &str) -> Result<Vec<String>, Fault> {
        self.authorize(by, Action::AccountManage).await?;
        Fault::unless_fresh(by, self.clock.now())?;
        if user == by.actor.id {
            return Err(Fault::Rule("a card is issued by somebody else"));
        }
        let account = self.account(user)?.filter(|a| a.state != AccountState::Ended);
        account.ok_or(Fault::Rule("there is no such account, or it has ended"))?;
        let mut codes = Vec::new();
        let mut hashes = Vec::new();
        for _ in 0..CARD_CODES {
            let code = random_code::<5>(&*self.entropy)?;
            hashes.push(
                self.hasher
                    .hash(&typed(&code), &*self.entropy)
                    .await
                    .map_err(Denied::from)?,
            );
            codes.push(code);
        }
        let issued = self.clock.now().0;
        self.change_of(by, Action::AccountManage, user, |kept| {
            kept.card = Some(Card {
                issued,
                used: 0,
                codes: hashes,
            });
            Ok(())
        })
        .await?;
        Ok(codes)
    }

    // Helpers

    /// The account of a session that may change its authenticators now.
    async fn may_enrol(&self, by: &Context) -> Result<account::Account, Fault> {
        self.authorize(by, Action::OwnAuthenticators).await?;
        let account = self.account(&by.actor.id)?;
        let account = account.filter(|a| matches!(a.state, AccountState::Invited | AccountState::Active));
        let account = account.ok_or(Fault::Rule("there is no such account, or it may not sign in"))?;
        if by.actor.assurance >= Assurance::TwoFactors {
            Fault::unless_fresh(by, self.clock.now())?;
        }
        Ok(account)
    }

    async fn change(
        &self,
        by: &Context,
        edit: impl FnOnce(&mut Authenticators) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let user = by.actor.id.clone();
        self.change_of(by, Action::OwnAuthenticators, &user, edit).await
    }

    /// Changes an account's authenticators; an invited account whose owner can sign in with them becomes active.
    async fn change_of(
        &self,
        by: &Context,
        action: Action,
        user: &str,
        edit: impl FnOnce(&mut Authenticators) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let _lock = self.lock(user).await;
        let mut kept = self.authenticators(user)?;
        edit(&mut kept)?;
        self.keep_authenticators(by, action, user, &kept).await?;
        if kept.is_complete()
            && let Some(mut account) = self.account(user)?.filter(|a| a.state == AccountState::Invited)
        {
            account.state = AccountState::Active;
            let text = to_text(&account)?;
            self.documents
                .put(by, action, account::KIND, user, Some(&text), false)
                .await?;
            self.forget_clinicians();
        }
        Ok(())
    }

    pub(crate) async fn keep_demo_authenticators(
        &self,
        by: &Context,
        user: &str,
        phc: &str,
        secret: &[u8],
    ) -> Result<(), Fault> {
        let (id, added) = (random_id::<8>(&*self.entropy)?, self.clock.now().0);
        self.change_of(by, Action::AccountManage, user, |kept| {
            kept.password = Some(phc.to_owned());
            kept.totp.push(Totp {
                id,
                name: "Demo app".to_owned(),
                secret: hex(secret),
                added,
                used_step: 0,
            });
            Ok(())
        })
        .await
    }

    fn keep_begun(&self, by: &Context, new: Begun) {
        let now = self.clock.now();
        let mut begun = self.begun.lock();
        begun.retain(|_, b| now.0 - b.at() < BEGUN_TTL_S * 1000);
        begun.insert(by.actor.session.clone(), new);
    }

    /// The code that the app of a demo account shows now, for the demo's sign-in page. `None` for any other account.
    pub(crate) fn demo_code(&self, user: &str, now: Timestamp) -> Option<String> {
        let kept = self.authenticators(user).ok()?;
        let secret = unhex(&kept.totp.first()?.secret);
        Some(totp::unused_code(&secret, kept.totp.first()?.used_step, now))
    }
}

/// A name its owner gives an authenticator.
fn named(name: &str, otherwise: &str) -> Result<String, Fault> {
    let name = name.trim();
    let name = if name.is_empty() { otherwise } else { name };
    if is_display(name) && name.chars().count() <= 60 {
        Ok(name.to_owned())
    } else {
        Err(Fault::Rule(
            "a name has at most 60 characters, and no control characters",
        ))
    }
}

/// A QR code as one SVG path, with its quiet zone of four units.
fn drawn(code: &qrcode::QrCode) -> (String, usize) {
    use std::fmt::Write;
    const QUIET: usize = 4;
    let width = code.width();
    let mut path = String::new();
    for (n, color) in code.to_colors().into_iter().enumerate() {
        if color == qrcode::Color::Dark {
            let _ = write!(path, "M{} {}h1v1h-1z", n % width + QUIET, n / width + QUIET);
        }
    }
    (path, width + 2 * QUIET)
}

use std::sync::atomic::Ordering;

use super::*;
use crate::authenticators::{Enrolled, FactorKind};
use crate::enrol::NewApp;
use crate::invitation::Activation;
use crate::password::Weakness;
use crate::service::tests::{World, actor as member, by, seen, world};
use crate::session::{Activity, ENROLMENT_S, IDLE_S};
use crate::stage::STAGE_TTL_S;

const PASSWORD: &str = "quietly the herons leave";

/// A nurse who has enrolled a password and an app.
struct Nurse {
    world: World,
    secret: Vec<u8>,
}

impl Nurse {
    async fn new() -> Self {
        let world = world().with_nurse().await;
        let opened = world.enrolling("nurse-1").await;
        let me = by((*opened.session.actor).clone());
        world.identity.set_password(&me, PASSWORD).await.unwrap();
        let secret = Self::app(&world, &me).await;
        world.identity.sign_out(&me).await.unwrap();
        Self { world, secret }
    }

    /// Enrols an app and gives its secret.
    async fn app(world: &World, me: &Context) -> Vec<u8> {
        let app: NewApp = world.identity.begin_app(me).await.unwrap();
        let secret = unbase32(&app.secret);
        let code = totp::code_at(&secret, world.now());
        world.identity.finish_app(me, "Phone", &code).await.unwrap();
        secret
    }

    /// The code the app shows at the next step, which is new.
    fn next_code(&self) -> String {
        self.world.pass(totp::STEP_S);
        totp::code_at(&self.secret, self.world.now())
    }

    async fn first_step(&self, password: &str) -> Result<String, Denied> {
        self.world
            .identity
            .sign_in_password("nurse-1", password, None, &seen())
            .await
    }

    async fn sign_in(&self) -> SignedIn {
        let stage = self.first_step(PASSWORD).await.unwrap();
        let code = self.next_code();
        self.world.identity.sign_in_code(&stage, &code, &seen()).await.unwrap()
    }
}

fn unbase32(text: &str) -> Vec<u8> {
    let (mut word, mut bits, mut out) = (0_u32, 0, Vec::new());
    for c in text.bytes() {
        let value = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
            .iter()
            .position(|b| *b == c)
            .unwrap();
        word = (word << 5) | u32::try_from(value).unwrap();
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push(((word >> bits) & 0xff) as u8);
        }
    }
    out
}

fn err<T>(result: Result<T, Denied>) -> Option<Denied> {
    result.err()
}

#[tokio::test]
async fn a_password_and_then_a_code_open_a_session() {
    let n = Nurse::new().await;
    let done = n.sign_in().await;
    let actor = &done.opened.session.actor;
    assert_eq!((actor.id.as_str(), actor.assurance), ("nurse-1", Assurance::TwoFactors));
    assert_eq!(actor.method, "password+totp");
    assert!(
        n.world
            .identity
            .session(&done.opened.secret, Activity::Person)
            .is_some()
    );
}

/// Every way in, without its second factor: no session, or one that policy gives nothing of a patient.
#[tokio::test]
async fn no_way_in_leads_around_the_second_factor() {
    use keepwell_model::actor::{Place, PurposeOfUse};
    use keepwell_policy::{Labels, Relation, Request, Target};
    let n = Nurse::new().await;
    let i = &n.world.identity;
    // 1. The password alone is a stage: no session, no token.
    let stage = n.first_step(PASSWORD).await.unwrap();
    assert!(i.session(&stage, Activity::Person).is_none());
    assert!(i.bearer(&stage).is_err());
    // 2. A code without a password stage, and with a wrong one.
    let code = n.next_code();
    assert!(err(i.sign_in_code("", &code, &seen()).await).is_some());
    assert!(err(i.sign_in_code(&code, &code, &seen()).await).is_some());
    // 3. A stage whose code is wrong, or a passkey response that is none.
    assert_eq!(
        err(i.sign_in_code(&stage, "000000", &seen()).await),
        Some(Denied::SecondFactor)
    );
    assert!(err(i.sign_in_passkey(&stage, "{}", None, &seen()).await).is_some());
    // 4. A recovery code or a card code is no password.
    let opened = n.sign_in().await.opened;
    let me = by((*opened.session.actor).clone());
    let recovery = i.new_recovery_codes(&me).await.unwrap();
    assert!(err(n.first_step(&recovery[0]).await).is_some());
    // 5. Activation codes, of a new account and after a loss, and the first administrator's: one factor, and with that
    //    policy permits no act upon patients and no administration.
    let lost = {
        let code = match i.start_activation(&n.world.job(), "nurse-1").await.unwrap() {
            Activation::Code(code) => code,
            Activation::Waits => panic!("nobody else could release it here"),
        };
        i.activate(&code.code, &seen()).await.unwrap()
    };
    let fresh = world();
    let first = fresh.identity.bootstrap(&fresh.job()).await.unwrap();
    let first = fresh.identity.activate(&first.code, &seen()).await.unwrap();
    let invited = world().with_nurse().await.enrolling("nurse-1").await;
    let engine = keepwell_policy::Engine::load().unwrap();
    let patient = keepwell_model::types::ResourceType::from_name("Patient").unwrap();
    for opened in [&lost, &first, &invited] {
        let actor = &opened.session.actor;
        assert_eq!(actor.assurance, Assurance::OneFactor);
        for action in Action::ALL {
            for target in [Target::Type(patient), Target::Installation] {
                for relation in Relation::ALL {
                    let asked = Request::new(
                        actor,
                        *action,
                        target,
                        relation,
                        Labels::NONE,
                        PurposeOfUse::Treatment,
                        Place::Unknown,
                    );
                    let own = matches!(action, Action::OwnSession | Action::OwnAuthenticators);
                    let harmless = matches!(action, Action::Capabilities | Action::Validate | Action::Transaction);
                    assert!(!engine.decide(&asked).permit || own || harmless, "{actor:?} {action:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_code_of_an_app_is_good_once() {
    let n = Nurse::new().await;
    let code = n.next_code();
    let first = n.first_step(PASSWORD).await.unwrap();
    let second = n.first_step(PASSWORD).await.unwrap();
    assert!(n.world.identity.sign_in_code(&first, &code, &seen()).await.is_ok());
    assert_eq!(
        err(n.world.identity.sign_in_code(&second, &code, &seen()).await),
        Some(Denied::SecondFactor)
    );
    // Nor after a restart: what is used is used durably. The stage is gone with the process.
    let restarted = n.world.restarted();
    assert!(err(restarted.sign_in_code(&second, &code, &seen()).await).is_some());
    let third = restarted
        .sign_in_password("nurse-1", PASSWORD, None, &seen())
        .await
        .unwrap();
    assert_eq!(
        err(restarted.sign_in_code(&third, &code, &seen()).await),
        Some(Denied::SecondFactor)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_parallel_uses_of_one_code_one_wins() {
    let n = Nurse::new().await;
    let opened = n.sign_in().await.opened;
    let me = by((*opened.session.actor).clone());
    let mut recovery = n.world.identity.new_recovery_codes(&me).await.unwrap();
    for code in [n.next_code(), recovery.remove(0)] {
        // What lost before is no reason to be slow now.
        n.world.identity.guesses.clear("nurse-1");
        let mut tasks = Vec::new();
        let mut stages = Vec::new();
        for _ in 0..10 {
            stages.push(n.first_step(PASSWORD).await.unwrap());
        }
        for use_no in 0..100 {
            let (identity, stage, code) = (n.world.identity.clone(), stages[use_no % 10].clone(), code.clone());
            tasks.push(tokio::spawn(async move {
                identity.sign_in_code(&stage, &code, &seen()).await.is_ok()
            }));
        }
        let mut won = 0;
        for task in tasks {
            won += usize::from(task.await.unwrap());
        }
        assert_eq!(won, 1);
    }
}

#[tokio::test]
async fn what_cannot_be_used_up_durably_opens_nothing() {
    let n = Nurse::new().await;
    let stage = n.first_step(PASSWORD).await.unwrap();
    let code = n.next_code();
    n.world.shelf.broken.store(true, Ordering::SeqCst);
    assert!(matches!(
        err(n.world.identity.sign_in_code(&stage, &code, &seen()).await),
        Some(Denied::Unavailable(_))
    ));
    assert!(n.world.identity.sessions.list(None, n.world.now()).is_empty());
}

#[tokio::test]
async fn a_stage_ends_after_five_minutes() {
    let n = Nurse::new().await;
    let stage = n.first_step(PASSWORD).await.unwrap();
    assert!(n.world.identity.second_step(&stage).unwrap().unwrap().app);
    n.world.pass(STAGE_TTL_S);
    assert!(n.world.identity.second_step(&stage).unwrap().is_none());
    let code = n.next_code();
    assert_eq!(
        err(n.world.identity.sign_in_code(&stage, &code, &seen()).await),
        Some(Denied::SignIn)
    );
}

/// Unknown, wrong, suspended, ended, invited, without a password: one answer after one hash each.
#[tokio::test]
async fn every_failure_is_one_answer_after_the_same_work() {
    let n = Nurse::new().await;
    let i = &n.world.identity;
    let account = |id: &str| Account::new(id, "Another", Role::Nurse, None);
    for id in ["invited", "suspended", "ended"] {
        i.create_account(&n.world.job(), &account(id)).await.unwrap();
    }
    i.suspend_account(&n.world.job(), "suspended").await.unwrap();
    i.end_account(&n.world.job(), "ended").await.unwrap();
    let long = "x".repeat(5000);
    for (user, password) in [
        ("nurse-1", "wrong password"),
        ("nurse-1", ""),
        ("nobody", PASSWORD),
        ("", ""),
        ("not an id at all <script>", PASSWORD),
        (long.as_str(), long.as_str()),
        ("invited", PASSWORD),
        ("suspended", PASSWORD),
        ("ended", PASSWORD),
    ] {
        let (hashes, entries) = (i.passwords_evaluated(), n.world.shelf.log.lock().len());
        let denied = err(i.sign_in_password(user, password, None, &seen()).await);
        assert_eq!(denied, Some(Denied::SignIn), "{user}");
        assert_eq!(i.passwords_evaluated(), hashes + 1, "one hash: {user}");
        assert_eq!(
            n.world.shelf.log.lock().len(),
            entries + 1,
            "one entry in the log: {user}"
        );
    }
    let log = n.world.shelf.log.lock();
    assert!(log.contains(&("nurse-1".into(), Action::OwnSession, false)));
    assert!(log.contains(&("unknown".into(), Action::OwnSession, false)));
    assert!(
        !log.iter().any(|(user, ..)| user.contains("script")),
        "a typed name is not written down"
    );
}

#[tokio::test]
async fn a_suspended_account_signs_in_again_when_it_is_resumed() {
    let n = Nurse::new().await;
    let opened = n.sign_in().await.opened;
    let stage = n.first_step(PASSWORD).await.unwrap();
    n.world
        .identity
        .suspend_account(&n.world.job(), "nurse-1")
        .await
        .unwrap();
    assert!(n.world.identity.session(&opened.secret, Activity::Person).is_none());
    let code = n.next_code();
    assert!(n.world.identity.sign_in_code(&stage, &code, &seen()).await.is_err());
    assert!(n.first_step(PASSWORD).await.is_err());
    n.world
        .identity
        .resume_account(&n.world.job(), "nurse-1")
        .await
        .unwrap();
    n.sign_in().await;
    n.world.identity.end_account(&n.world.job(), "nurse-1").await.unwrap();
    assert!(
        n.world
            .identity
            .resume_account(&n.world.job(), "nurse-1")
            .await
            .is_err()
    );
    let papers = n.world.shelf.papers.lock();
    assert!(
        !papers.keys().any(|(kind, _)| kind == "authenticators"),
        "nothing to sign in with is kept"
    );
}

/// The bar of IAM-7. `KEEPWELL_GUESSES` says how many at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[allow(clippy::disallowed_methods, reason = "the size of a test")]
async fn parallel_guesses_are_hardly_evaluated_and_the_owner_still_gets_in() {
    let guesses: usize = std::env::var("KEEPWELL_GUESSES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(2000);
    let n = Nurse::new().await;
    let device = n.sign_in().await.device.expect("the device is known from now on");
    let before = n.world.identity.passwords_evaluated();
    let mut tasks = Vec::new();
    for guess in 0..guesses {
        let identity = n.world.identity.clone();
        tasks.push(tokio::spawn(async move {
            let from = Seen {
                request_id: String::new(),
                network: format!("10.{}.{}.1", guess / 256, guess % 256),
            };
            let guess = format!("guess number {guess}");
            identity.sign_in_password("nurse-1", &guess, None, &from).await.is_ok()
        }));
    }
    for task in tasks {
        assert!(!task.await.unwrap());
    }
    let evaluated = n.world.identity.passwords_evaluated() - before;
    assert!(
        (1..=u64::from(crate::FAILURES_MAX)).contains(&evaluated),
        "{evaluated} evaluated"
    );
    // From elsewhere not even the right password is looked at; on the owner's device it is.
    assert!(n.first_step(PASSWORD).await.is_err());
    let i = &n.world.identity;
    let stage = i
        .sign_in_password("nurse-1", PASSWORD, Some(&device), &seen())
        .await
        .unwrap();
    let code = n.next_code();
    let done = i.sign_in_code(&stage, &code, &seen()).await.unwrap();
    assert!(done.device.is_none(), "known already");
    // And after that from elsewhere too.
    assert!(n.first_step(PASSWORD).await.is_ok());
}

/// A workstation on a ward is a known device of each who signs in there.
#[tokio::test]
async fn a_device_is_known_for_all_who_sign_in_there() {
    let n = Nurse::new().await;
    let first = n.sign_in().await.device.unwrap();
    // Another person after her: their secret does not take the place of hers.
    let another = "b".repeat(43);
    let cookie = crate::cookie::with_device(Some(&first), &another);
    while n.first_step("a stranger's guess").await.is_err() && n.first_step(PASSWORD).await.is_ok() {}
    assert!(n.first_step(PASSWORD).await.is_err(), "no more tries elsewhere");
    let i = &n.world.identity;
    let there = i.sign_in_password("nurse-1", PASSWORD, Some(&cookie), &seen()).await;
    let code = n.next_code();
    let done = i.sign_in_code(&there.unwrap(), &code, &seen()).await.unwrap();
    assert!(done.device.is_none(), "known already");
}

#[tokio::test]
async fn whoever_has_the_password_cannot_try_every_code() {
    let n = Nurse::new().await;
    let mut refused = 0;
    for guess in 0..200 {
        // A right password each time does not make the count of wrong codes start anew.
        let stage = n.first_step(PASSWORD).await.unwrap();
        let log = n.world.shelf.log.lock().len();
        let code = format!("{guess:06}");
        let denied = err(n.world.identity.sign_in_code(&stage, &code, &seen()).await);
        assert_eq!(denied, Some(Denied::SecondFactor));
        refused += usize::from(n.world.shelf.log.lock().len() > log);
    }
    assert_eq!(refused, 10, "the others were not looked at");
}

#[tokio::test]
async fn a_hash_of_weaker_parameters_is_raised_at_the_next_sign_in() {
    let n = Nurse::new().await;
    let phc = |n: &Nurse| {
        n.world
            .identity
            .authenticators("nurse-1")
            .unwrap()
            .password
            .clone()
            .unwrap()
    };
    let before = phc(&n);
    let stronger = crate::service::tests::identity_with(
        &n.world,
        crate::Cost {
            memory_kib: 128,
            passes: 2,
            lanes: 1,
        },
    );
    assert!(
        stronger
            .sign_in_password("nurse-1", "wrong", None, &seen())
            .await
            .is_err()
    );
    assert_eq!(phc(&n), before);
    assert!(
        stronger
            .sign_in_password("nurse-1", PASSWORD, None, &seen())
            .await
            .is_ok()
    );
    let after = phc(&n);
    assert!(
        before.contains("m=64,t=1") && after.contains("m=128,t=2"),
        "{before} {after}"
    );
    assert!(
        stronger
            .sign_in_password("nurse-1", PASSWORD, None, &seen())
            .await
            .is_ok()
    );
    assert_eq!(phc(&n), after, "once");
}

#[tokio::test]
async fn nothing_kept_signs_in() {
    let n = Nurse::new().await;
    let opened = n.sign_in().await.opened;
    let me = by((*opened.session.actor).clone());
    let codes = n.world.identity.new_recovery_codes(&me).await.unwrap();
    let papers: String = {
        let papers = n.world.shelf.papers.lock();
        papers.iter().map(|((k, id), t)| format!("{k} {id} {t}\n")).collect()
    };
    assert!(!papers.contains(PASSWORD));
    assert!(!papers.contains(&codes[0]) && !papers.contains(&typed(&codes[0])));
    assert!(!papers.contains(&opened.secret));
    assert!(
        codes.iter().all(|c| typed(c).len() == RECOVERY_LETTERS),
        "120 bits each"
    );
}

#[tokio::test]
async fn a_recovery_code_replaces_the_second_factor_once_and_never_the_password() {
    let n = Nurse::new().await;
    let opened = n.sign_in().await.opened;
    let me = by((*opened.session.actor).clone());
    let codes = n.world.identity.new_recovery_codes(&me).await.unwrap();
    let typed_badly = codes[0].to_lowercase().replace('-', " ");
    let stage = n.first_step(PASSWORD).await.unwrap();
    let done = n
        .world
        .identity
        .sign_in_code(&stage, &typed_badly, &seen())
        .await
        .unwrap();
    assert_eq!(done.opened.session.actor.method, "password+recovery");
    let stage = n.first_step(PASSWORD).await.unwrap();
    let again = n.world.identity.sign_in_code(&stage, &codes[0], &seen()).await;
    assert_eq!(err(again), Some(Denied::SecondFactor));
}

#[tokio::test]
async fn a_printed_card_is_a_second_factor_for_people_without_a_phone() {
    let world = world().with_nurse().await;
    let i = &world.identity;
    // Handed over with the activation code, and good once there is a password, which only its owner sets.
    let card = i.issue_card(&world.job(), "nurse-1").await.unwrap();
    let opened = world.enrolling("nurse-1").await;
    let me = by((*opened.session.actor).clone());
    assert!(!i.enrolled(&me).await.unwrap().complete);
    i.set_password(&me, PASSWORD).await.unwrap();
    assert!(i.enrolled(&me).await.unwrap().complete);
    for (n, expect) in [(1, false), (0, true), (0, false), (1, true)] {
        let stage = i.sign_in_password("nurse-1", PASSWORD, None, &seen()).await.unwrap();
        let done = i.sign_in_code(&stage, &card[n], &seen()).await;
        assert_eq!(done.is_ok(), expect, "code {n}: in their order, each once");
    }
    let stage = i.sign_in_password("nurse-1", PASSWORD, None, &seen()).await.unwrap();
    assert_eq!(
        i.second_step(&stage).unwrap().unwrap().card,
        Some(3),
        "asked for by its number"
    );
    let papers = world.shelf.papers.lock();
    assert!(!papers.values().any(|t| t.contains(&typed(&card[2]))));
}

#[tokio::test]
async fn an_enrolment_session_enrols_and_the_account_becomes_active_when_one_can_sign_in() {
    let world = world().with_nurse().await;
    let i = &world.identity;
    let opened = world.enrolling("nurse-1").await;
    let me = by((*opened.session.actor).clone());
    let state = || i.account("nurse-1").unwrap().unwrap().state;
    assert_eq!(
        i.set_password(&me, "password").await,
        Err(Fault::Weak(Weakness::Common))
    );
    assert_eq!(
        i.set_password(&me, "Nurse One 2026").await,
        Err(Fault::Weak(Weakness::Named))
    );
    assert!(i.set_password(&me, PASSWORD).await.unwrap().contains("trong"));
    assert_eq!(state(), AccountState::Invited, "a password alone opens nothing");
    assert!(i.sign_in_password("nurse-1", PASSWORD, None, &seen()).await.is_err());
    let app = i.begin_app(&me).await.unwrap();
    assert!(app.path.starts_with('M') && app.size > 20);
    assert!(i.finish_app(&me, "Phone", "000000").await.is_err());
    assert_eq!(state(), AccountState::Invited, "an app counts when it has shown a code");
    let code = totp::code_at(&unbase32(&app.secret), world.now());
    i.finish_app(&me, "Phone", &code).await.unwrap();
    assert_eq!(state(), AccountState::Active);
    let enrolled: Enrolled = i.enrolled(&me).await.unwrap();
    assert!(enrolled.password && enrolled.complete);
    assert_eq!(
        (enrolled.factors[0].name.as_str(), enrolled.factors[0].kind),
        ("Phone", FactorKind::App)
    );
    // The code that proved the app is used up, and the last factor cannot be removed.
    let stage = i.sign_in_password("nurse-1", PASSWORD, None, &seen()).await.unwrap();
    assert!(i.sign_in_code(&stage, &code, &seen()).await.is_err());
    assert!(i.remove_factor(&me, &enrolled.factors[0].id).await.is_err());
    // Such a session is short.
    assert!(i.session(&opened.secret, Activity::Person).is_some());
    for _ in 0..2 {
        world.pass(ENROLMENT_S / 2 - 1);
        if ENROLMENT_S / 2 - 1 < IDLE_S {
            let _ = i.session(&opened.secret, Activity::Person);
        }
    }
    world.pass(2);
    assert!(i.session(&opened.secret, Activity::Person).is_none());
}

#[tokio::test]
async fn changing_authenticators_needs_a_fresh_proof() {
    let n = Nurse::new().await;
    let opened = n.sign_in().await.opened;
    let me = by((*opened.session.actor).clone());
    let i = &n.world.identity;
    i.new_recovery_codes(&me).await.unwrap();
    n.world.pass(Actor::FRESH_S);
    assert_eq!(i.new_recovery_codes(&me).await.err(), Some(Fault::Confirm));
    assert_eq!(
        i.set_password(&me, "another of my passwords").await,
        Err(Fault::Confirm)
    );
    assert_eq!(i.begin_app(&me).await.err(), Some(Fault::Confirm));
    assert_eq!(i.forget_devices(&me).await, Err(Fault::Confirm));
    // A wrong proof changes nothing; a right one goes on under a new id and a new secret.
    for wrong in [Proof::Password("wrong"), Proof::Code("000000")] {
        assert_eq!(err(i.reauthenticate(&me, wrong).await), Some(Denied::SecondFactor));
    }
    let renewed = i.reauthenticate(&me, Proof::Password(PASSWORD)).await.unwrap();
    assert!(
        i.session(&opened.secret, Activity::Person).is_none(),
        "the old secret is dead"
    );
    assert_ne!(renewed.session.actor.session, me.actor.session);
    assert_ne!(renewed.session.csrf, opened.session.csrf);
    let me = by((*renewed.session.actor).clone());
    i.new_recovery_codes(&me).await.unwrap();
    n.world.pass(Actor::FRESH_S);
    let code = n.next_code();
    let renewed = i.reauthenticate(&me, Proof::Code(&code)).await.unwrap();
    i.new_recovery_codes(&by((*renewed.session.actor).clone()))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_new_password_ends_other_sessions_and_sign_ins_under_way() {
    let n = Nurse::new().await;
    let (first, second) = (n.sign_in().await.opened, n.sign_in().await.opened);
    let stage = n.first_step(PASSWORD).await.unwrap();
    let me = by((*second.session.actor).clone());
    let i = &n.world.identity;
    i.set_password(&me, "another of my passwords").await.unwrap();
    assert!(i.session(&first.secret, Activity::Person).is_none());
    assert!(i.session(&second.secret, Activity::Person).is_some());
    assert!(i.second_step(&stage).unwrap().is_none());
    assert!(n.first_step(PASSWORD).await.is_err());
}

#[tokio::test]
async fn lost_authenticators_take_a_second_person() {
    let n = Nurse::new().await;
    let i = &n.world.identity;
    let opened = n.sign_in().await.opened;
    // A second administrator and a security officer who can sign in.
    for (id, role) in [("admin-1", Role::Administrator), ("officer-1", Role::SecurityOfficer)] {
        i.create_account(&n.world.job(), &Account::new(id, id, role, None))
            .await
            .unwrap();
        let enrolling = n.world.enrolling(id).await;
        let them = by((*enrolling.session.actor).clone());
        i.set_password(&them, PASSWORD).await.unwrap();
        Nurse::app(&n.world, &them).await;
    }
    let now = n.world.now();
    let with = |id: &str, role| {
        let mut actor = member(id, role);
        actor.reauthenticated = now;
        by(actor)
    };
    let (admin, officer, nurse) = (
        with("admin-1", Role::Administrator),
        with("officer-1", Role::SecurityOfficer),
        with("nurse-1", Role::Nurse),
    );
    // The operator at the machine no longer gets the code of an account in use.
    assert!(matches!(
        i.start_activation(&n.world.job(), "nurse-1").await,
        Ok(Activation::Waits)
    ));
    assert!(matches!(
        i.start_activation(&admin, "nurse-1").await,
        Ok(Activation::Waits)
    ));
    assert!(i.start_activation(&admin, "admin-1").await.is_err(), "one's own");
    assert_eq!(i.waiting_activations(&officer).await.unwrap()[0].started_by, "admin-1");
    assert!(
        i.release_activation(&admin, "nurse-1").await.is_err(),
        "the same person"
    );
    assert!(
        i.release_activation(&nurse, "nurse-1").await.is_err(),
        "not her role, and her own"
    );
    assert!(
        i.release_activation(&officer, "admin-1").await.is_err(),
        "nothing waits"
    );
    assert!(
        i.session(&opened.secret, Activity::Person).is_some(),
        "asking changes nothing"
    );
    let code = i.release_activation(&officer, "nurse-1").await.unwrap();
    assert!(i.release_activation(&officer, "nurse-1").await.is_err(), "once");
    // What was enrolled is void from the moment the code is used.
    let enrolling = i.activate(&code.code, &seen()).await.unwrap();
    assert!(i.session(&opened.secret, Activity::Person).is_none());
    assert!(n.first_step(PASSWORD).await.is_err());
    assert_eq!(enrolling.session.actor.assurance, Assurance::OneFactor);
    assert!(
        !i.enrolled(&by((*enrolling.session.actor).clone()))
            .await
            .unwrap()
            .password
    );
    // An administrator has no way to set a password: a card is all that can be handed over, and not to oneself.
    i.issue_card(&admin, "nurse-1").await.unwrap();
    assert!(i.issue_card(&admin, "admin-1").await.is_err());
}

/// Whom a clinician treats follows the account: also when a token was used before its owner could sign in.
#[tokio::test]
async fn a_token_knows_the_practitioner_from_the_activation_on_and_not_while_authenticators_are_lost() {
    let world = world();
    let i = &world.identity;
    let account = Account::new("nurse-1", "Nurse One", Role::Nurse, None);
    let account = Account {
        practitioner: Some("pr-1".to_owned()),
        ..account
    };
    i.create_account(&world.job(), &account).await.unwrap();
    let wanted = crate::token::Wanted {
        user: "nurse-1".to_owned(),
        display: "Nurse One".to_owned(),
        role: Role::Nurse,
        patient: None,
        client: None,
        scopes: Vec::new(),
        ttl_s: 3600,
    };
    let token = i.issue_token(&world.job(), &wanted).await.unwrap().token;
    let practitioner = || i.bearer(&token).unwrap().practitioner.clone();
    assert_eq!(practitioner(), None, "invited");
    let me = by((*world.enrolling("nurse-1").await.session.actor).clone());
    i.set_password(&me, PASSWORD).await.unwrap();
    Nurse::app(&world, &me).await;
    assert_eq!(practitioner().as_deref(), Some("pr-1"), "active");
    world.enrolling("nurse-1").await;
    assert_eq!(practitioner(), None, "lost");
}

#[tokio::test]
async fn administration_needs_a_fresh_proof() {
    let n = Nurse::new().await;
    let admin = by(member("admin-1", Role::Administrator));
    n.world.pass(Actor::FRESH_S);
    let i = &n.world.identity;
    let account = Account::new("n2", "N", Role::Nurse, None);
    assert_eq!(i.create_account(&admin, &account).await, Err(Fault::Confirm));
    assert_eq!(i.end_account(&admin, "nurse-1").await, Err(Fault::Confirm));
    assert_eq!(i.suspend_account(&admin, "nurse-1").await, Err(Fault::Confirm));
    assert_eq!(i.issue_card(&admin, "nurse-1").await.err(), Some(Fault::Confirm));
    assert_eq!(i.start_activation(&admin, "nurse-1").await.err(), Some(Fault::Confirm));
}

/// Prints Welch's t of the times of known and unknown names (IAM-8); `KEEPWELL_TIMINGS` says how many of each. What is
/// asserted is the work, not the time.
#[tokio::test]
#[allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "the size of a measurement, and its figure"
)]
async fn known_and_unknown_names_take_the_same_work() {
    let timings: u32 = std::env::var("KEEPWELL_TIMINGS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(20);
    let n = Nurse::new().await;
    let identity = crate::service::tests::identity_with(&n.world, crate::Cost::default());
    // The hash is raised to today's parameters first.
    let raised = identity.sign_in_password("nurse-1", PASSWORD, None, &seen()).await;
    assert!(raised.is_ok());
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..timings {
        for (which, user) in [(0, "nurse-1".to_owned()), (1, format!("nobody-{round}"))] {
            let before = identity.passwords_evaluated();
            let from = Seen {
                request_id: String::new(),
                network: format!("10.0.{}.{}", round / 256, round % 256),
            };
            let began = std::time::Instant::now();
            assert!(
                identity
                    .sign_in_password(&user, "wrong password", None, &from)
                    .await
                    .is_err()
            );
            times[which].push(began.elapsed().as_secs_f64() * 1000.0);
            assert_eq!(identity.passwords_evaluated(), before + 1, "{user}");
            identity.guesses.clear(&user);
        }
    }
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let variance = |v: &[f64]| v.iter().map(|x| (x - mean(v)).powi(2)).sum::<f64>() / (v.len() - 1) as f64;
    let [known, unknown] = &times;
    let error = ((variance(known) + variance(unknown)) / f64::from(timings)).sqrt();
    println!(
        "{timings} timings each: known {:.2} ms, unknown {:.2} ms, Welch t {:.2}",
        mean(known),
        mean(unknown),
        (mean(known) - mean(unknown)) / error
    );
}

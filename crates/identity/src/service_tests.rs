use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use super::*;
use crate::documents::BoxFuture;
use crate::invitation::{ACTIVATION_TTL_S, Activation, BOOTSTRAP_TTL_S, Code};
use crate::token::tests::MemoryKey;
use crate::token::{KeyUnavailable, PERSON_TTL_MAX_S};
use keepwell_model::actor::Scope;

pub(crate) const START: i64 = 1_800_000_000_000;

/// What hashing costs where nothing is to be kept secret.
pub(crate) const CHEAP: Cost = Cost {
    memory_kib: 64,
    passes: 1,
    lanes: 1,
};

/// A clock that stands until it is moved.
pub(crate) struct Watch(pub(crate) AtomicI64);

impl Clock for Watch {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// Repeatable randomness.
#[derive(Default)]
pub(crate) struct Dice(AtomicU64);

impl Dice {
    pub(crate) fn from(start: u64) -> Self {
        Self(AtomicU64::new(start))
    }
}

impl Entropy for Dice {
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyUnavailable> {
        for chunk in out.chunks_mut(32) {
            let block = sha256(&self.0.fetch_add(1, Ordering::SeqCst).to_be_bytes());
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
        Ok(())
    }
}

/// Documents in memory, with the log of acts.
#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) papers: Mutex<BTreeMap<(String, String), String>>,
    pub(crate) log: Mutex<Vec<(String, Action, bool)>>,
    pub(crate) broken: AtomicBool,
}

impl Documents for Shelf {
    fn put<'a>(
        &'a self,
        by: &'a Context,
        action: Action,
        kind: &'a str,
        id: &'a str,
        text: Option<&'a str>,
        absent: bool,
    ) -> BoxFuture<'a, Result<(), DocumentError>> {
        Box::pin(async move {
            // A chance for others to run, as a real commit gives.
            tokio::task::yield_now().await;
            if self.broken.load(Ordering::SeqCst) {
                return Err(DocumentError::Unavailable);
            }
            let key = (kind.to_owned(), id.to_owned());
            let mut papers = self.papers.lock();
            if absent && papers.contains_key(&key) {
                return Err(DocumentError::Exists);
            }
            match text {
                Some(t) => papers.insert(key, t.to_owned()),
                None => papers.remove(&key),
            };
            self.log.lock().push((by.actor.id.clone(), action, true));
            Ok(())
        })
    }

    fn get(&self, kind: &str, id: &str) -> Result<Option<String>, DocumentError> {
        Ok(self.papers.lock().get(&(kind.to_owned(), id.to_owned())).cloned())
    }

    fn list(&self, kind: &str) -> Result<Vec<(String, String)>, DocumentError> {
        let papers = self.papers.lock();
        Ok(papers
            .iter()
            .filter(|((k, _), _)| k == kind)
            .map(|((_, id), t)| (id.clone(), t.clone()))
            .collect())
    }

    fn log<'a>(&'a self, by: &'a Context, action: Action, permitted: bool) -> BoxFuture<'a, Result<(), DocumentError>> {
        Box::pin(async move {
            if self.broken.load(Ordering::SeqCst) {
                return Err(DocumentError::Unavailable);
            }
            self.log.lock().push((by.actor.id.clone(), action, permitted));
            Ok(())
        })
    }
}

/// Tests of the rest reach nobody.
struct NoNetwork;

impl crate::sso::Outbound for NoNetwork {
    fn send<'a>(
        &'a self,
        _: crate::sso::Call<'a>,
    ) -> BoxFuture<'a, Result<crate::sso::Reply, crate::sso::Unreachable>> {
        Box::pin(async { Err(crate::sso::Unreachable) })
    }
}

pub(crate) struct World {
    pub(crate) identity: Arc<Identity>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) clock: Arc<Watch>,
}

fn identity(shelf: &Arc<Shelf>, clock: &Arc<Watch>) -> Arc<Identity> {
    opened(shelf, clock, CHEAP)
}

/// The same data directory, opened by a release in which hashing costs something else.
pub(crate) fn identity_with(world: &World, cost: Cost) -> Arc<Identity> {
    opened(&world.shelf, &world.clock, cost)
}

fn opened(shelf: &Arc<Shelf>, clock: &Arc<Watch>, cost: Cost) -> Arc<Identity> {
    opened_over(shelf, clock, cost, Arc::new(NoNetwork))
}

fn opened_over(
    shelf: &Arc<Shelf>,
    clock: &Arc<Watch>,
    cost: Cost,
    outbound: Arc<dyn crate::sso::Outbound>,
) -> Arc<Identity> {
    let parts = Parts {
        issuer: "urn:keepwell:test".into(),
        site: "localhost".into(),
        cost,
        engine: Arc::new(Engine::load().unwrap()),
        documents: shelf.clone(),
        key: Arc::new(MemoryKey::new(1)),
        outbound,
        clock: clock.clone(),
        entropy: Arc::new(Dice::default()),
    };
    Arc::new(Identity::open(parts).unwrap())
}

pub(crate) fn world() -> World {
    let (shelf, clock) = (Arc::new(Shelf::default()), Arc::new(Watch(AtomicI64::new(START))));
    World {
        identity: identity(&shelf, &clock),
        shelf,
        clock,
    }
}

/// A world with a network.
pub(crate) fn world_over(outbound: Arc<dyn crate::sso::Outbound>) -> World {
    let (shelf, clock) = (Arc::new(Shelf::default()), Arc::new(Watch(AtomicI64::new(START))));
    World {
        identity: opened_over(&shelf, &clock, CHEAP, outbound),
        shelf,
        clock,
    }
}

impl World {
    pub(crate) fn pass(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    /// The same data directory after a restart.
    pub(crate) fn restarted(&self) -> Arc<Identity> {
        identity(&self.shelf, &self.clock)
    }

    /// With an invited account of a nurse.
    pub(crate) async fn with_nurse(self) -> Self {
        self.identity
            .create_account(&self.job(), &Account::new("nurse-1", "Nurse One", Role::Nurse, None))
            .await
            .unwrap();
        self
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The operator at the machine, now.
    pub(crate) fn job(&self) -> Context {
        let mut job = job();
        let mut actor = (*job.actor).clone();
        actor.reauthenticated = self.now();
        job.actor = Arc::new(actor);
        job
    }

    /// The activation code of an account, as the operator gets it.
    pub(crate) async fn code(&self, user: &str) -> Code {
        match self.identity.start_activation(&self.job(), user).await.unwrap() {
            Activation::Code(code) => code,
            Activation::Waits => panic!("the operator gets the code of an account that was never in use"),
        }
    }

    /// The session that an activation code opens.
    pub(crate) async fn enrolling(&self, user: &str) -> OpenedSession {
        let code = self.code(user).await;
        self.identity.activate(&code.code, &seen()).await.unwrap()
    }
}

pub(crate) fn actor(id: &str, role: Role) -> Actor {
    super::actor(
        &Account::new(id, id, role, None),
        "password+totp",
        Assurance::TwoFactors,
        Timestamp(START),
    )
}

pub(crate) fn by(actor: Actor) -> Context {
    context(actor, &seen(), Timestamp(START))
}

pub(crate) fn seen() -> Seen {
    Seen {
        request_id: "r1".into(),
        network: "127.0.0.1".into(),
    }
}

/// The operator at the machine.
pub(crate) fn job() -> Context {
    let mut operator = actor("operator", Role::Service);
    operator.method = "job".into();
    by(operator)
}

fn wanted(user: &str, role: Role, scopes: &[&str]) -> Wanted {
    Wanted {
        user: user.into(),
        display: user.into(),
        role,
        patient: None,
        client: None,
        scopes: scopes.iter().map(|s| Scope::parse(s).unwrap()).collect(),
        ttl_s: 3600,
    }
}

#[tokio::test]
async fn a_fresh_installation_has_no_account_and_one_code_that_works_once() {
    let w = world();
    assert!(w.identity.accounts(&job()).await.unwrap().is_empty());
    let code = w.identity.bootstrap(&job()).await.unwrap();
    assert!(code.code.len() >= 43);
    let opened = w.identity.activate(&code.code, &seen()).await.unwrap();
    assert_eq!(opened.session.actor.role, Role::Administrator);
    assert_eq!(opened.session.actor.assurance, Assurance::OneFactor);
    assert_eq!(
        w.identity.activate(&code.code, &seen()).await.err(),
        Some(Denied::SignIn)
    );
    assert_eq!(
        w.restarted().activate(&code.code, &seen()).await.err(),
        Some(Denied::SignIn)
    );
    assert!(matches!(w.identity.bootstrap(&job()).await, Err(Fault::Rule(_))));
    assert_eq!(w.identity.accounts(&job()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_second_bootstrap_voids_the_first_code_and_codes_expire() {
    let w = world();
    let first = w.identity.bootstrap(&job()).await.unwrap();
    let second = w.identity.bootstrap(&job()).await.unwrap();
    assert!(w.identity.activate(&first.code, &seen()).await.is_err());
    w.pass(BOOTSTRAP_TTL_S);
    assert!(w.identity.activate(&second.code, &seen()).await.is_err());
}

#[tokio::test]
async fn nothing_kept_opens_a_session() {
    let w = world().with_nurse().await;
    let code = w.code("nurse-1").await;
    let papers: String = w
        .shelf
        .papers
        .lock()
        .iter()
        .map(|((k, id), t)| format!("{k} {id} {t}\n"))
        .collect();
    assert!(!papers.contains(&code.code), "the code itself is stored");
    for word in papers.split(|c: char| !c.is_ascii_alphanumeric()) {
        assert!(w.identity.activate(word, &seen()).await.is_err());
        assert!(w.identity.session(word, Activity::Person).is_none());
    }
    assert!(w.identity.activate(&code.code, &seen()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_parallel_uses_of_a_code_one_wins() {
    let w = world().with_nurse().await;
    for _ in 0..10 {
        let code = Arc::new(w.code("nurse-1").await.code);
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let (identity, code) = (w.identity.clone(), code.clone());
                tokio::spawn(async move { identity.activate(&code, &seen()).await.is_ok() })
            })
            .collect();
        let mut won = 0;
        for task in tasks {
            won += usize::from(task.await.unwrap());
        }
        assert_eq!(won, 1);
    }
}

#[tokio::test]
async fn an_activation_code_ends_after_a_day_and_with_the_account() {
    let w = world().with_nurse().await;
    let late = w.code("nurse-1").await;
    w.pass(ACTIVATION_TTL_S);
    assert_eq!(
        w.identity.activate(&late.code, &seen()).await.err(),
        Some(Denied::SignIn)
    );
    let ended = w.code("nurse-1").await;
    w.identity.end_account(&w.job(), "nurse-1").await.unwrap();
    assert_eq!(
        w.identity.activate(&ended.code, &seen()).await.err(),
        Some(Denied::SignIn)
    );
    assert!(matches!(
        w.identity.start_activation(&w.job(), "nurse-1").await,
        Err(Fault::Rule(_))
    ));
}

/// A code that was lost on its way is void as soon as there is another, and when the account is suspended.
#[tokio::test]
async fn one_activation_code_of_an_account_is_good_at_a_time() {
    let w = world().with_nurse().await;
    let lost = w.code("nurse-1").await;
    let second = w.code("nurse-1").await;
    assert!(w.identity.activate(&lost.code, &seen()).await.is_err());
    assert!(w.identity.activate(&second.code, &seen()).await.is_ok());
    let before = w.code("nurse-1").await;
    w.identity.suspend_account(&w.job(), "nurse-1").await.unwrap();
    w.identity.resume_account(&w.job(), "nurse-1").await.unwrap();
    assert!(w.identity.activate(&before.code, &seen()).await.is_err());
}

/// Whoever has used a code that another was meant to have is out when that other gets the next one.
#[tokio::test]
async fn a_second_activation_ends_the_session_of_the_first() {
    let w = world().with_nurse().await;
    let stranger = w.enrolling("nurse-1").await;
    let owner = w.enrolling("nurse-1").await;
    assert!(w.identity.session(&stranger.secret, Activity::Person).is_none());
    assert!(w.identity.session(&owner.secret, Activity::Person).is_some());
}

/// A token is issued before an account ends, and void with it, or after, and refused.
#[tokio::test]
async fn no_token_slips_by_the_end_of_an_account() {
    let w = world().with_nurse().await;
    let by = w.job();
    let lane = w.identity.lock("nurse-1").await;
    let (identity, job) = (w.identity.clone(), by.clone());
    let issuing = tokio::spawn(async move { identity.issue_token(&job, &wanted("nurse-1", Role::Nurse, &[])).await });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!issuing.is_finished(), "it waits for what is done to the account");
    let (identity, job) = (w.identity.clone(), by.clone());
    let ending = tokio::spawn(async move { identity.end_account(&job, "nurse-1").await });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    w.pass(2);
    drop(lane);
    let token = issuing.await.unwrap().map(|issued| issued.token);
    ending.await.unwrap().unwrap();
    assert!(token.is_ok_and(|token| w.identity.bearer(&token).is_err()));
}

#[tokio::test]
async fn a_code_that_cannot_be_used_up_opens_nothing() {
    let w = world().with_nurse().await;
    let code = w.code("nurse-1").await;
    w.shelf.broken.store(true, Ordering::SeqCst);
    assert!(matches!(
        w.identity.activate(&code.code, &seen()).await.err(),
        Some(Denied::Unavailable(_))
    ));
    assert!(w.identity.sessions.list(None, Timestamp(START)).is_empty());
}

#[tokio::test]
async fn ending_an_account_ends_sessions_and_tokens_at_once_and_for_good() {
    let w = world().with_nurse().await;
    let code = w.code("nurse-1").await;
    let opened = w.identity.activate(&code.code, &seen()).await.unwrap();
    let token = w
        .identity
        .issue_token(&job(), &wanted("nurse-1", Role::Nurse, &[]))
        .await
        .unwrap();
    assert!(w.identity.session(&opened.secret, Activity::Person).is_some());
    assert!(w.identity.bearer(&token.token).is_ok());
    w.identity.end_account(&job(), "nurse-1").await.unwrap();
    assert!(w.identity.session(&opened.secret, Activity::Person).is_none());
    assert_eq!(w.identity.bearer(&token.token).err(), Some(Invalid::Revoked));
    assert_eq!(w.restarted().bearer(&token.token).err(), Some(Invalid::Revoked));
    assert!(matches!(
        w.identity
            .issue_token(&job(), &wanted("nurse-1", Role::Nurse, &[]))
            .await,
        Err(Fault::Rule(_))
    ));
    // The id stays taken.
    let again = w
        .identity
        .create_account(&job(), &Account::new("nurse-1", "Other", Role::Nurse, None))
        .await;
    assert_eq!(again, Err(Fault::Rule("it exists already")));
}

#[tokio::test]
async fn a_revoked_token_is_void_at_once_and_after_a_restart() {
    let w = world();
    let token = w
        .identity
        .issue_token(&job(), &wanted("lab", Role::Service, &["system/*.rs"]))
        .await
        .unwrap();
    let other = w
        .identity
        .issue_token(&job(), &wanted("lab", Role::Service, &["system/*.rs"]))
        .await
        .unwrap();
    assert!(w.identity.bearer(&token.token).is_ok());
    w.identity.revoke_token(&job(), &token.jti).await.unwrap();
    assert_eq!(w.identity.bearer(&token.token).err(), Some(Invalid::Revoked));
    assert!(w.identity.bearer(&other.token).is_ok());
    let restarted = w.restarted();
    assert_eq!(restarted.bearer(&token.token).err(), Some(Invalid::Revoked));
    assert!(restarted.bearer(&other.token).is_ok());
}

#[tokio::test]
async fn a_revocation_holds_even_when_it_cannot_be_stored() {
    let w = world();
    let token = w
        .identity
        .issue_token(&job(), &wanted("lab", Role::Service, &["system/*.rs"]))
        .await
        .unwrap();
    assert!(w.identity.bearer(&token.token).is_ok());
    w.shelf.broken.store(true, Ordering::SeqCst);
    assert!(w.identity.revoke_token(&job(), &token.jti).await.is_err());
    assert_eq!(w.identity.bearer(&token.token).err(), Some(Invalid::Revoked));
}

#[tokio::test]
async fn administrative_acts_are_decided_by_policy_and_logged() {
    let w = world().with_nurse().await;
    let administrator = by(actor("admin-1", Role::Administrator));
    let nurse = by(actor("nurse-1", Role::Nurse));
    let forbidden = |r: Result<(), Fault>| matches!(r, Err(Fault::Forbidden(_)));
    let i = &w.identity;
    assert!(
        i.issue_token(&administrator, &wanted("admin-2", Role::Administrator, &[]))
            .await
            .is_ok()
    );
    assert!(forbidden(
        i.issue_token(&administrator, &wanted("x", Role::Nurse, &[]))
            .await
            .map(drop)
    ));
    assert!(forbidden(
        i.issue_token(&administrator, &wanted("x", Role::SecurityOfficer, &[]))
            .await
            .map(drop)
    ));
    assert!(forbidden(
        i.issue_token(&administrator, &wanted("x", Role::Service, &["system/*.r"]))
            .await
            .map(drop)
    ));
    assert!(forbidden(i.start_activation(&nurse, "admin-1").await.map(drop)));
    assert!(forbidden(i.release_activation(&nurse, "admin-1").await.map(drop)));
    assert!(forbidden(i.issue_card(&nurse, "admin-1").await.map(drop)));
    assert!(forbidden(i.enable_demo(&nurse).await));
    assert!(forbidden(
        i.create_account(&nurse, &Account::new("n2", "N", Role::Nurse, None))
            .await
    ));
    assert!(forbidden(i.end_account(&nurse, "nurse-1").await));
    assert!(forbidden(i.accounts(&nurse).await.map(drop)));
    assert!(forbidden(i.list_sessions(&nurse, Some("admin-1")).await.map(drop)));
    assert!(i.list_sessions(&nurse, Some("nurse-1")).await.is_ok());
    assert!(forbidden(i.revoke_token(&nurse, "00ff").await));
    let log = w.shelf.log.lock();
    assert_eq!(
        log.iter().filter(|(_, _, permitted)| !permitted).count(),
        12,
        "each refusal is in the log"
    );
    assert!(log.contains(&("admin-1".into(), Action::TokenIssue, true)));
}

#[tokio::test]
async fn a_token_that_cannot_be_logged_is_not_issued() {
    let w = world();
    w.shelf.broken.store(true, Ordering::SeqCst);
    let issued = w
        .identity
        .issue_token(&job(), &wanted("lab", Role::Service, &["system/*.rs"]))
        .await;
    assert!(matches!(issued, Err(Fault::Unavailable(_))));
}

#[tokio::test]
async fn a_token_agrees_with_the_account_of_its_user() {
    let w = world().with_nurse().await;
    w.identity
        .create_account(&job(), &Account::new("p-1", "P", Role::Patient, Some("pat-1")))
        .await
        .unwrap();
    assert!(
        w.identity
            .issue_token(&job(), &wanted("nurse-1", Role::Physician, &[]))
            .await
            .is_err()
    );
    let mut patient = wanted("p-1", Role::Patient, &[]);
    patient.patient = Some("pat-2".into());
    assert!(w.identity.issue_token(&job(), &patient).await.is_err());
    patient.patient = Some("pat-1".into());
    let token = w.identity.issue_token(&job(), &patient).await.unwrap();
    assert_eq!(
        w.identity.bearer(&token.token).unwrap().patient.as_deref(),
        Some("pat-1")
    );
}

#[tokio::test]
async fn accounts_follow_their_rules() {
    let w = world();
    let mut faulty = vec![
        Account::new("", "X", Role::Nurse, None),
        Account::new("a b", "X", Role::Nurse, None),
        Account::new(&"a".repeat(65), "X", Role::Nurse, None),
        Account::new("a", "", Role::Nurse, None),
        Account::new("a", "X\nforged log line", Role::Nurse, None),
        Account::new("a", "X", Role::Service, None),
        Account::new("a", "X", Role::Patient, None),
        Account::new("a", "X", Role::Patient, Some("../1")),
        Account::new("a", "X", Role::Nurse, Some("pat-1")),
    ];
    faulty.push(Account {
        demo: true,
        ..Account::new("a", "X", Role::Nurse, None)
    });
    for account in faulty {
        let made = w.identity.create_account(&job(), &account).await;
        assert!(matches!(made, Err(Fault::Rule(_))), "{account:?}");
    }
}

#[tokio::test]
async fn demo_logins_exist_only_in_a_demo_directory_on_loopback() {
    let w = world().with_nurse().await;
    assert!(
        matches!(w.identity.enable_demo(&job()).await, Err(Fault::Rule(_))),
        "an installation became a demo"
    );
    let secret = vec![7; 20];
    let enrol = [("nurse-1", secret.clone())];
    let enrolled = w.identity.enrol_demo(&job(), &enrol, "a demo of passwords").await;
    assert!(
        matches!(enrolled, Err(Fault::Rule(_))),
        "somebody set another's password"
    );

    let w = world();
    w.identity.enable_demo(&job()).await.unwrap();
    let demo = Account {
        demo: true,
        ..Account::new("ana", "Ana", Role::Physician, None)
    };
    let real = Account::new("real", "Real", Role::Physician, None);
    w.identity.create_account(&job(), &demo).await.unwrap();
    w.identity.create_account(&job(), &real).await.unwrap();
    let i = &w.identity;
    let app = |user| [(user, secret.clone())];
    i.enrol_demo(&job(), &app("ana"), "a demo of passwords").await.unwrap();
    for user in ["real", "nobody"] {
        let other = i.enrol_demo(&job(), &app(user), "another password").await;
        assert!(matches!(other, Err(Fault::Rule(_))), "{user}");
    }
    i.enrol_demo(&job(), &app("ana"), "another password").await.unwrap();
    assert!(i.demo_logins(false).unwrap().is_empty());
    let logins = i.demo_logins(true).unwrap();
    let [(account, code)] = logins.as_slice() else {
        panic!("one login");
    };
    assert_eq!(account.id, "ana");
    let stage = i
        .sign_in_password("ana", "a demo of passwords", None, &seen())
        .await
        .unwrap();
    let done = i.sign_in_code(&stage, code, &seen()).await.unwrap();
    assert_eq!(done.opened.session.actor.method, "password+totp");
    assert_ne!(
        &i.demo_logins(true).unwrap()[0].1,
        code,
        "the next code, as this one is used"
    );
}

#[tokio::test]
async fn signing_out_ends_the_session_even_if_the_log_is_full() {
    let w = world().with_nurse().await;
    let code = w.code("nurse-1").await;
    let opened = w.identity.activate(&code.code, &seen()).await.unwrap();
    w.shelf.broken.store(true, Ordering::SeqCst);
    let me = by((*opened.session.actor).clone());
    assert!(w.identity.sign_out(&me).await.is_err());
    assert!(w.identity.session(&opened.secret, Activity::Person).is_none());
}

#[tokio::test]
async fn sealing_ends_every_session() {
    let w = world().with_nurse().await;
    let code = w.code("nurse-1").await;
    let opened = w.identity.activate(&code.code, &seen()).await.unwrap();
    w.identity.seal();
    assert!(w.identity.session(&opened.secret, Activity::Person).is_none());
}

#[tokio::test]
async fn one_may_end_ones_own_session_and_not_that_of_another() {
    let w = world().with_nurse().await;
    let code = w.code("nurse-1").await;
    let opened = w.identity.activate(&code.code, &seen()).await.unwrap();
    let id = opened.session.actor.session.clone();
    let other = by(actor("nurse-2", Role::Nurse));
    assert!(matches!(
        w.identity.end_session(&other, &id).await,
        Err(Fault::Forbidden(_))
    ));
    let me = by((*opened.session.actor).clone());
    w.identity.end_session(&me, &id).await.unwrap();
    assert!(w.identity.session(&opened.secret, Activity::Person).is_none());
}

#[test]
fn a_key_that_is_not_there_issues_nothing() {
    struct Gone;
    impl TokenKey for Gone {
        fn sign(&self, _: &[u8]) -> Result<[u8; 64], KeyUnavailable> {
            Err(KeyUnavailable)
        }
        fn public(&self) -> [u8; 32] {
            [7; 32]
        }
        fn retired(&self) -> Vec<[u8; 32]> {
            Vec::new()
        }
    }
    let tokens = Tokens::new("x", Arc::new(Gone));
    let mut wish = wanted("nurse-1", Role::Nurse, &[]);
    wish.ttl_s = PERSON_TTL_MAX_S;
    assert!(matches!(
        tokens.issue(&wish, Timestamp(START), &Dice::default()),
        Err(Refused::Key(_))
    ));
}

use std::collections::HashMap;
use std::sync::Arc;

use keepwell_model::actor::{Assurance, Role};
use keepwell_policy::Action;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::documents::BoxFuture;
use crate::oauth::tests::signer::Signer;
use crate::service::tests::{World, actor, job, seen, world_over};
use crate::service::{Fault, context};
use crate::stage::STAGE_TTL_S;

const ISSUER: &str = "https://login.example";

/// A provider in this process.
struct Net {
    key: Signer,
    token: Mutex<String>,
    asked: Mutex<HashMap<String, u32>>,
    max_age_s: Option<i64>,
    down: Mutex<bool>,
}

impl Outbound for Net {
    fn send<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Result<Reply, Unreachable>> {
        Box::pin(async move {
            let path = call.url.strip_prefix(ISSUER).expect("nobody else is asked").to_owned();
            *self.asked.lock().entry(path.clone()).or_default() += 1;
            if *self.down.lock() {
                return Err(Unreachable);
            }
            let at = |path: &str| format!("{ISSUER}{path}");
            let answer = match path.as_str() {
                "/.well-known/openid-configuration" => json!({
                    "issuer": ISSUER, "authorization_endpoint": at("/authorize?tenant=1"),
                    "token_endpoint": at("/token"), "jwks_uri": at("/jwks"),
                }),
                "/jwks" => json!({ "keys": [self.key.jwk("k")] }),
                "/token" => json!({ "id_token": *self.token.lock() }),
                other => panic!("{other}"),
            };
            Ok(Reply {
                status: 200,
                max_age_s: self.max_age_s,
                body: answer.to_string().into_bytes(),
            })
        })
    }
}

struct Clinic {
    world: World,
    net: Arc<Net>,
    id: String,
}

async fn clinic(max_age_s: Option<i64>) -> Clinic {
    let net = Arc::new(Net {
        key: Signer::ed(),
        token: Mutex::default(),
        asked: Mutex::default(),
        max_age_s,
        down: Mutex::default(),
    });
    let world = world_over(net.clone()).with_nurse().await;
    // As enrolment would leave it.
    let account = ("account".to_owned(), "nurse-1".to_owned());
    let text = world.shelf.papers.lock()[&account].replace("invited", "active");
    world.shelf.papers.lock().insert(account, text);
    world.identity.serve_sign_in_at("https://clinic.example");
    let id = world.identity.add_provider(&job(), &registration()).await.unwrap().id;
    world.identity.link_identity(&job(), &link()).await.unwrap();
    Clinic { world, net, id }
}

fn registration() -> NewProvider {
    NewProvider {
        display: "Hospital".into(),
        issuer: ISSUER.into(),
        client_id: "keepwell".into(),
        authentication: ClientAuthentication::PrivateKeyJwt,
        algorithms: vec!["EdDSA".into()],
        acr: vec!["mfa".into()],
        amr: vec![],
        hosts: vec![],
    }
}

fn link() -> Link {
    Link {
        issuer: ISSUER.into(),
        subject: "s".into(),
        user: "nurse-1".into(),
    }
}

impl Clinic {
    /// Begins a sign-in: the stage and `state`; the provider has a token ready for it.
    async fn begun(&self) -> (String, String) {
        let departure = self.world.identity.sso_begin(&self.id, None).await.unwrap();
        let to = webauthn_rs::prelude::Url::parse(&departure.to).unwrap();
        let query: HashMap<String, String> = to.query_pairs().into_owned().collect();
        assert_eq!(query["tenant"], "1");
        assert_eq!(query["redirect_uri"], "https://clinic.example/sso/callback");
        assert_eq!(query["scope"], "openid");
        let now = self.world.now().0 / 1000;
        let claims = json!({
            "iss": ISSUER, "sub": "s", "aud": ["keepwell"], "exp": now + 60, "iat": now, "nonce": query["nonce"],
            "acr": "mfa",
        });
        let token = self
            .net
            .key
            .jwt(&self.net.key.header("k").to_string(), &claims.to_string());
        *self.net.token.lock() = token;
        (departure.stage, query["state"].clone())
    }

    async fn arrive(&self, stage: &str, state: &str) -> Result<Arrived, SsoFault> {
        let answer = Callback {
            state,
            code: Some("c"),
            ..Callback::default()
        };
        self.world.identity.sso_arrive(stage, answer, &seen()).await
    }

    fn last(&self) -> (String, Action, bool) {
        self.world.shelf.log.lock().last().cloned().unwrap()
    }

    fn asked(&self, path: &str) -> u32 {
        self.net.asked.lock().get(path).copied().unwrap_or(0)
    }
}

#[tokio::test]
async fn each_end_of_a_sign_in_is_in_the_log() {
    let clinic = clinic(None).await;
    let (stage, state) = clinic.begun().await;
    let Ok(Arrived::Session(done)) = clinic.arrive(&stage, &state).await else {
        panic!("a session")
    };
    assert_eq!(done.opened.session.actor.method, "sso");
    assert!(done.device.is_some());
    // A device that becomes known is written, and logged, with the sign-in.
    let written = clinic.world.shelf.log.lock().len();
    // Refused: nobody's is left to be counted, so that strangers do not fill the log; an account's is written.
    assert!(matches!(
        clinic.arrive(&stage, &state).await,
        Err(SsoFault::Refused(Flaw::Browser))
    ));
    assert_eq!(clinic.world.shelf.log.lock().len(), written);
    clinic
        .world
        .identity
        .suspend_account(&clinic.world.job(), "nurse-1")
        .await
        .unwrap();
    let (stage, state) = clinic.begun().await;
    assert!(matches!(
        clinic.arrive(&stage, &state).await,
        Err(SsoFault::Refused(Flaw::Account))
    ));
    assert_eq!(clinic.last(), ("nurse-1".into(), Action::OwnSession, false));
    assert!(clinic.world.shelf.log.lock().len() > written);
    // Nothing that is kept is a token, a code or a verifier.
    for (kind, text) in clinic.world.shelf.papers.lock().iter() {
        assert!(!text.contains("eyJ") && !text.contains(&state), "{kind:?}");
    }
}

#[tokio::test]
async fn of_parallel_uses_of_one_answer_one_wins() {
    let clinic = clinic(None).await;
    let (stage, state) = clinic.begun().await;
    let tries = (0..100).map(|_| clinic.arrive(&stage, &state));
    let mut won = 0;
    for done in futures(tries).await {
        won += usize::from(done.is_ok());
    }
    assert_eq!(won, 1);
    assert_eq!(clinic.asked("/token"), 1, "the code is shown once");
}

/// All of them at once.
async fn futures<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = all.map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|cx| {
        let mut ready = true;
        for (future, done) in &mut waiting {
            if done.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *done = Some(value),
                    std::task::Poll::Pending => ready = false,
                }
            }
        }
        if ready {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    waiting.into_iter().filter_map(|(_, done)| done).collect()
}

#[tokio::test]
async fn what_is_published_is_kept_as_long_as_it_says() {
    let clinic = clinic(Some(600)).await;
    for (pass, fetched) in [(0, 1), (599, 1), (1, 2), (10, 2)] {
        clinic.world.pass(pass);
        let (stage, state) = clinic.begun().await;
        assert!(clinic.arrive(&stage, &state).await.is_ok());
        assert_eq!(clinic.asked("/jwks"), fetched, "after {pass} s more");
        assert_eq!(clinic.asked("/.well-known/openid-configuration"), fetched);
    }
    // Down: what is kept is enough, until it is too old; then nobody is let in unseen.
    *clinic.net.down.lock() = true;
    assert!(clinic.world.identity.sso_begin(&clinic.id, None).await.is_ok());
    clinic.world.pass(600);
    assert!(matches!(
        clinic.world.identity.sso_begin(&clinic.id, None).await,
        Err(SsoFault::Unreachable(_))
    ));
}

#[tokio::test]
async fn a_sign_in_ends_after_five_minutes_and_with_its_provider() {
    let clinic = clinic(None).await;
    let (stage, state) = clinic.begun().await;
    clinic.world.pass(STAGE_TTL_S);
    assert!(matches!(
        clinic.arrive(&stage, &state).await,
        Err(SsoFault::Refused(Flaw::Browser))
    ));
    let (stage, state) = clinic.begun().await;
    clinic.world.identity.end_provider(&job(), &clinic.id).await.unwrap();
    assert!(matches!(
        clinic.arrive(&stage, &state).await,
        Err(SsoFault::Refused(Flaw::Provider))
    ));
}

#[tokio::test]
async fn a_link_that_goes_between_the_steps_opens_nothing() {
    let clinic = clinic(None).await;
    let identity = &clinic.world.identity;
    let (stage, state) = clinic.begun().await;
    clinic.arrive(&stage, &state).await.unwrap_or_else(|e| panic!("{e}"));
    let who = Federated {
        issuer: ISSUER.into(),
        subject: "s".into(),
        sid: None,
    };
    assert!(identity.stands(&who, "nurse-1").unwrap());
    assert!(!identity.stands(&who, "nurse-2").unwrap());
    identity.unlink_identity(&job(), ISSUER, "s").await.unwrap();
    assert!(!identity.stands(&who, "nurse-1").unwrap());
    assert!(
        identity
            .list_sessions(&job(), Some("nurse-1"))
            .await
            .unwrap()
            .is_empty()
    );
    let account = identity.account("nurse-1").unwrap().unwrap();
    let done = identity
        .complete(
            &account,
            "sso+totp",
            Assurance::TwoFactors,
            None,
            Some(who),
            &seen(),
            clinic.world.now(),
        )
        .await;
    assert!(done.is_err());
    assert!(
        identity
            .list_sessions(&job(), Some("nurse-1"))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn only_the_operator_at_the_machine_says_who_is_who() {
    let clinic = clinic(None).await;
    for role in Role::ALL {
        let by = context(actor("somebody", role), &seen(), clinic.world.now());
        let identity = &clinic.world.identity;
        let forbidden = |done: Result<(), Fault>| assert!(matches!(done, Err(Fault::Forbidden(_))), "{role:?}");
        forbidden(identity.add_provider(&by, &registration()).await.map(|_| ()));
        forbidden(identity.providers(&by).await.map(|_| ()));
        forbidden(identity.end_provider(&by, &clinic.id).await);
        forbidden(identity.link_identity(&by, &link()).await);
        forbidden(identity.unlink_identity(&by, ISSUER, "s").await);
        assert_eq!(clinic.last(), ("somebody".into(), Action::ProviderManage, false));
    }
    let restarted: Value = clinic.world.identity.providers(&job()).await.unwrap()[0].1.into();
    assert_eq!(restarted, 1);
    assert_eq!(clinic.last().1, Action::ProviderManage);
}

#[test]
fn a_logout_means_a_session_or_a_person_of_one_issuer() {
    let one = Federated {
        issuer: "https://a".into(),
        subject: "s".into(),
        sid: Some("1".into()),
    };
    for (issuer, subject, sid, meant) in [
        ("https://a", Some("s"), None, true),
        ("https://a", None, Some("1"), true),
        ("https://a", Some("s"), Some("1"), true),
        ("https://a", Some("s"), Some("2"), false),
        ("https://a", Some("t"), Some("1"), false),
        ("https://a", None, None, false),
        ("https://b", Some("s"), Some("1"), false),
    ] {
        assert_eq!(
            one.is_meant(issuer, subject, sid),
            meant,
            "{issuer} {subject:?} {sid:?}"
        );
    }
}

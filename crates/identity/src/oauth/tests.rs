use std::sync::Arc;
use std::sync::atomic::Ordering;

use keepwell_model::actor::{Actor, Context, Role, Scope};
use keepwell_model::time::Timestamp;
use keepwell_policy::Action;
use serde_json::{Value, json};

use super::*;
use crate::service::tests::{START, World, actor, job, seen, world};
use crate::service::{Fault, Identity, context};
use crate::token::Invalid;

#[path = "../../../keepwell/tests/support/signer.rs"]
pub(crate) mod signer;
use signer::{Signer, claims, url64};

const AUDIENCE: &str = "https://clinic.example/oauth/token";
const DAY: i64 = 24 * 60 * 60;

/// A registered client with one Ed25519 key, `k`.
struct Lab {
    world: World,
    key: Signer,
    id: String,
}

fn registration(jwks: Value, scope: &str) -> NewClient {
    NewClient {
        display: "Laboratory".into(),
        jwks: jwks.to_string(),
        scope: scope.into(),
        ttl_s: 30 * DAY,
        key_ttl_s: 10 * DAY,
    }
}

async fn lab() -> Lab {
    let (world, key) = (world(), Signer::ed());
    let new = registration(
        json!({"keys": [key.jwk("k")]}),
        "system/Observation.cruds system/Patient.rs",
    );
    let id = world.identity.add_client(&job(), &new).await.unwrap().id;
    Lab { world, key, id }
}

fn by(assertion: &str) -> AssertedBy<'_> {
    AssertedBy {
        assertion,
        client_id: None,
        audience: AUDIENCE,
    }
}

impl Lab {
    fn now_s(&self) -> i64 {
        self.world.clock.0.load(Ordering::SeqCst) / 1000
    }

    fn claims(&self, jti: &str) -> Value {
        claims(&self.id, AUDIENCE, self.now_s(), jti)
    }

    fn assertion(&self, jti: &str) -> String {
        self.signed(&self.claims(jti))
    }

    fn signed(&self, claims: &Value) -> String {
        self.key.jwt(&self.key.header("k").to_string(), &claims.to_string())
    }

    async fn ask(&self, assertion: &str) -> Result<Answered, TokenFault> {
        ask(&self.world.identity, assertion).await
    }

    async fn token(&self, jti: &str) -> String {
        self.ask(&self.assertion(jti)).await.map(|a| a.token).unwrap()
    }
}

async fn ask(identity: &Identity, assertion: &str) -> Result<Answered, TokenFault> {
    identity.client_token(by(assertion), "system/*.rs", &seen()).await
}

fn flaw(answer: Result<Answered, TokenFault>) -> Flaw {
    match answer.map(|_| ()) {
        Err(TokenFault::Client(flaw)) => flaw,
        other => panic!("{other:?}"),
    }
}

fn person(role: Role) -> Arc<Actor> {
    Arc::new(actor("somebody", role))
}

fn as_context(role: Role) -> Context {
    context(actor("somebody", role), &seen(), Timestamp(START))
}

#[tokio::test]
async fn each_algorithm_gets_a_token_of_five_minutes_with_its_client() {
    for key in [Signer::rsa(), Signer::ec(), Signer::ed()] {
        let world = world();
        let new = registration(key.jwk("one"), "system/Observation.rs");
        let client = world.identity.add_client(&job(), &new).await.unwrap();
        let text = claims(&client.id, AUDIENCE, START / 1000, "a").to_string();
        let assertion = key.jwt(&key.header("one").to_string(), &text);
        let answered = ask(&world.identity, &assertion)
            .await
            .map_err(|e| e.to_string())
            .unwrap();
        assert_eq!(
            (answered.expires_in, answered.scope.as_str()),
            (300, "system/Observation.rs")
        );
        let actor = world.identity.bearer(&answered.token).unwrap();
        assert_eq!(actor.client.as_ref(), Some(&client.id));
        assert_eq!(
            (actor.id.as_str(), actor.role, actor.display.as_str()),
            (&*client.id, Role::Service, "Laboratory")
        );
        world.pass(300);
        assert_eq!(world.identity.bearer(&answered.token).unwrap_err(), Invalid::Expired);
        // The log names the client, and the token by which its accesses are followed back.
        assert!(world.shelf.log.lock().contains(&(client.id, Action::OwnSession, true)));
    }
}

#[tokio::test]
async fn times_are_kept_to_the_second() {
    let lab = lab().await;
    let now = lab.now_s();
    let with = |name: &str, value: i64| {
        let mut claims = lab.claims(&format!("{name}{value}"));
        claims[name] = json!(value);
        lab.signed(&claims)
    };
    for (name, value, expected) in [
        ("exp", now + 1, None),
        ("exp", now, Some(Flaw::Expired)),
        ("exp", now - 3600, Some(Flaw::Expired)),
        ("exp", now + ASSERTION_TTL_MAX_S + SKEW_S, None),
        ("exp", now + ASSERTION_TTL_MAX_S + SKEW_S + 1, Some(Flaw::TooLongLived)),
        ("exp", i64::MAX, Some(Flaw::TooLongLived)),
        ("nbf", now + SKEW_S, None),
        ("nbf", now + SKEW_S + 1, Some(Flaw::NotYet)),
        ("iat", now + SKEW_S, None),
        ("iat", now + SKEW_S + 1, Some(Flaw::NotYet)),
        ("iat", i64::MIN, None),
    ] {
        let answer = lab.ask(&with(name, value)).await;
        match expected {
            None => assert!(answer.is_ok(), "{name} {value}"),
            Some(expected) => assert_eq!(flaw(answer), expected, "{name} {value}"),
        }
    }
}

#[tokio::test]
async fn keys_and_clients_end() {
    let lab = lab().await;
    // In the last minute of the key a token lives no longer than the key.
    lab.world.pass(10 * DAY - 60);
    assert_eq!(lab.ask(&lab.assertion("a")).await.map(|a| a.expires_in).ok(), Some(60));
    lab.world.pass(60);
    assert_eq!(flaw(lab.ask(&lab.assertion("b")).await), Flaw::KeyExpired);
    // The key's end is not the client's: with another it goes on.
    let key = Signer::ec();
    let client = lab
        .world
        .identity
        .add_client_keys(&job(), &lab.id, &key.jwk("next").to_string(), 100 * DAY)
        .await
        .unwrap();
    assert_eq!(client.keys.len(), 1, "the expired one has made room");
    let next = |jti: &str| key.jwt(&key.header("next").to_string(), &lab.claims(jti).to_string());
    assert!(lab.ask(&next("c")).await.is_ok());
    lab.world.pass(20 * DAY);
    assert_eq!(flaw(lab.ask(&next("d")).await), Flaw::Ended);
}

#[tokio::test]
async fn an_assertion_is_used_once_before_and_after_a_restart() {
    let lab = lab().await;
    let (used, fresh) = (lab.assertion("a"), lab.assertion("b"));
    assert!(lab.ask(&used).await.is_ok());
    assert_eq!(flaw(lab.ask(&used).await), Flaw::Replay);
    assert!(
        lab.world
            .shelf
            .log
            .lock()
            .contains(&(lab.id.clone(), Action::OwnSession, false))
    );
    let again = lab.world.restarted();
    assert_eq!(flaw(ask(&again, &used).await), Flaw::Replay);
    assert!(ask(&again, &fresh).await.is_ok());
    // Introspection and revocation take assertions as well: used there is used.
    let third = lab.assertion("c");
    assert!(
        lab.world
            .identity
            .authenticate_client(by(&third), &seen())
            .await
            .is_ok()
    );
    assert_eq!(flaw(lab.ask(&third).await), Flaw::Replay);
}

#[tokio::test]
async fn one_that_could_not_be_recorded_gives_nothing() {
    let lab = lab().await;
    lab.world.shelf.broken.store(true, Ordering::SeqCst);
    let assertion = lab.assertion("a");
    assert_eq!(
        lab.ask(&assertion).await.map(|_| ()).unwrap_err(),
        TokenFault::Unavailable
    );
}

#[tokio::test]
async fn what_was_used_is_forgotten_when_it_has_expired_and_no_client_fills_the_memory() {
    let lab = lab().await;
    let mut given = 0;
    let fault = loop {
        match lab.ask(&lab.assertion(&given.to_string())).await {
            Ok(_) => given += 1,
            Err(fault) => break fault,
        }
    };
    assert_eq!((given, fault), (512, TokenFault::TooMany));
    lab.world.pass(240);
    assert!(lab.ask(&lab.assertion("again")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_parallel_uses_one_wins() {
    let lab = lab().await;
    for round in 0..5 {
        let assertion = lab.assertion(&format!("round {round}"));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (identity, assertion) = (Arc::clone(&lab.world.identity), assertion.clone());
            tasks.spawn(async move { ask(&identity, &assertion).await.is_ok() });
        }
        let won = tasks.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_uses_are_all_remembered_after_a_restart() {
    let lab = lab().await;
    let assertions: Vec<String> = (0..50).map(|n| lab.assertion(&n.to_string())).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for assertion in assertions.clone() {
        let identity = Arc::clone(&lab.world.identity);
        tasks.spawn(async move { ask(&identity, &assertion).await.is_ok() });
    }
    assert!(tasks.join_all().await.into_iter().all(|won| won));
    let again = lab.world.restarted();
    for assertion in &assertions {
        assert_eq!(flaw(ask(&again, assertion).await), Flaw::Replay);
    }
}

#[tokio::test]
async fn an_ended_client_has_no_token_left_and_gets_none_also_after_a_restart() {
    let lab = lab().await;
    let token = lab.token("a").await;
    let waiting = lab.assertion("b");
    lab.world
        .identity
        .end_client(&as_context(Role::Administrator), &lab.id)
        .await
        .unwrap();
    for identity in [Arc::clone(&lab.world.identity), lab.world.restarted()] {
        assert_eq!(identity.bearer(&token).unwrap_err(), Invalid::Revoked);
        assert_eq!(flaw(ask(&identity, &waiting).await), Flaw::Ended);
    }
    let key = Signer::ed().jwk("x").to_string();
    assert!(
        lab.world
            .identity
            .add_client_keys(&job(), &lab.id, &key, DAY)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn taking_a_key_away_voids_the_tokens_and_the_other_key_goes_on_at_once() {
    let lab = lab().await;
    let key = Signer::ec();
    let jwks = json!({"keys": [key.jwk("other"), Signer::ed().jwk("third")]}).to_string();
    let identity = &lab.world.identity;
    identity.add_client_keys(&job(), &lab.id, &jwks, DAY).await.unwrap();
    let stolen = lab.token("a").await;
    identity
        .remove_client_key(&as_context(Role::SecurityOfficer), &lab.id, "k")
        .await
        .unwrap();
    assert_eq!(identity.bearer(&stolen).unwrap_err(), Invalid::Revoked);
    assert_eq!(flaw(lab.ask(&lab.assertion("b")).await), Flaw::Key);
    let other = |jti: &str| key.jwt(&key.header("other").to_string(), &lab.claims(jti).to_string());
    // Within the same second: the new token is not void with the old ones, and the next removal reaches it.
    let token = lab.ask(&other("c")).await.map(|a| a.token).unwrap();
    assert!(identity.bearer(&token).is_ok());
    identity.remove_client_key(&job(), &lab.id, "third").await.unwrap();
    assert_eq!(identity.bearer(&token).unwrap_err(), Invalid::Revoked);
    let token = lab.ask(&other("d")).await.map(|a| a.token).unwrap();
    assert!(identity.bearer(&token).is_ok());
    identity.end_client(&job(), &lab.id).await.unwrap();
    assert_eq!(identity.bearer(&token).unwrap_err(), Invalid::Revoked);
}

#[tokio::test]
async fn the_last_key_cannot_be_taken_away() {
    let lab = lab().await;
    let removed = lab.world.identity.remove_client_key(&job(), &lab.id, "k").await;
    assert!(matches!(removed, Err(Fault::Rule(_))));
    assert!(lab.ask(&lab.assertion("a")).await.is_ok());
}

#[tokio::test]
async fn only_the_operator_registers_and_officers_end() {
    let lab = lab().await;
    let identity = &lab.world.identity;
    let new = registration(Signer::ed().jwk("n"), "system/Patient.rs");
    for role in Role::ALL {
        let by = as_context(role);
        assert!(
            matches!(identity.add_client(&by, &new).await, Err(Fault::Forbidden(_))),
            "{role:?}"
        );
        let jwk = Signer::ed().jwk("n").to_string();
        assert!(
            matches!(
                identity.add_client_keys(&by, &lab.id, &jwk, DAY).await,
                Err(Fault::Forbidden(_))
            ),
            "{role:?}"
        );
        let officer = matches!(role, Role::Administrator | Role::SecurityOfficer);
        assert_eq!(identity.clients(&by).await.is_ok(), officer, "{role:?}");
        assert_eq!(identity.client(&by, &lab.id).await.is_ok(), officer, "{role:?}");
        assert_eq!(identity.end_client(&by, &lab.id).await.is_ok(), officer, "{role:?}");
    }
    // A client can do none of it with its own token.
    let log = lab.world.shelf.log.lock();
    assert!(log.contains(&("somebody".to_owned(), Action::ClientRegister, false)));
    assert!(log.contains(&("somebody".to_owned(), Action::ClientEnd, true)));
}

#[tokio::test]
async fn weak_private_and_odd_keys_are_not_registered() {
    let world = world();
    let (rsa, ec, ed) = (Signer::rsa().jwk("r"), Signer::ec().jwk("e"), Signer::ed().jwk("d"));
    let with = |jwk: &Value, name: &str, value: Value| {
        let mut jwk = jwk.clone();
        jwk[name] = value;
        jwk
    };
    let short = url64([0xff; 255]);
    let mut off_curve = ec.clone();
    off_curve["y"] = ec["x"].clone();
    let many: Vec<Value> = (0..=KEYS_MAX).map(|n| Signer::ed().jwk(&n.to_string())).collect();
    for (what, jwks) in [
        ("no key", json!({"keys": []})),
        ("not JSON", json!("x")),
        ("short modulus", with(&rsa, "n", json!(short))),
        (
            "leading zero",
            with(&rsa, "n", json!(url64([vec![0], vec![0xff; 256]].concat()))),
        ),
        ("even modulus", with(&rsa, "n", json!(url64([0xfe; 256])))),
        ("exponent 3", with(&rsa, "e", json!("Aw"))),
        ("exponent 1", with(&rsa, "e", json!("AQ"))),
        ("padded", with(&rsa, "e", json!("AQAB="))),
        ("private RSA", with(&rsa, "d", json!("AQAB"))),
        ("private EC", with(&ec, "d", json!("AQAB"))),
        ("private Ed25519", with(&ed, "d", json!("AQAB"))),
        ("shared secret", json!({"kty": "oct", "kid": "s", "k": "c2VjcmV0"})),
        ("RS256", with(&rsa, "alg", json!("RS256"))),
        ("HS256", with(&ed, "alg", json!("HS256"))),
        ("none", with(&ed, "alg", json!("none"))),
        ("P-256", with(&ec, "crv", json!("P-256"))),
        ("X25519", with(&ed, "crv", json!("X25519"))),
        ("off the curve", off_curve),
        ("short point", with(&ed, "x", json!("AQAB"))),
        ("for encryption", with(&rsa, "use", json!("enc"))),
        ("to sign", with(&ed, "key_ops", json!(["sign"]))),
        ("no kid", json!({"kty": "OKP", "crv": "Ed25519", "x": ed["x"]})),
        ("space in kid", with(&ed, "kid", json!("a b"))),
        ("same kid twice", json!({"keys": [ec, Signer::ec().jwk("e")]})),
        (
            "same key twice",
            json!({"keys": [ed, with(&ed, "kid", json!("other"))]}),
        ),
        ("too many", json!({"keys": many})),
    ] {
        let added = world
            .identity
            .add_client(&job(), &registration(jwks, "system/Patient.rs"))
            .await;
        assert!(matches!(added, Err(Fault::Rule(_))), "{what}");
    }
    assert!(world.identity.clients(&job()).await.unwrap().is_empty());
    let good = json!({"keys": [rsa, ec, ed]});
    assert!(
        world
            .identity
            .add_client(&job(), &registration(good.clone(), "system/Patient.rs"))
            .await
            .is_ok()
    );
    for (what, scope) in [
        ("none", ""),
        ("unknown", "everything"),
        ("a type there is not", "system/Horse.rs"),
        ("of a user", "user/Patient.rs"),
        ("of a patient", "patient/Patient.rs"),
        ("granular", "system/Observation.rs?category=laboratory"),
    ] {
        let added = world
            .identity
            .add_client(&job(), &registration(good.clone(), scope))
            .await;
        assert!(matches!(added, Err(Fault::Rule(_))), "{what}");
    }
}

#[test]
fn scopes_are_narrowed_and_never_widened() {
    let registered: Vec<Scope> = ["system/Observation.cruds", "system/Patient.rs"]
        .iter()
        .map(|s| Scope::parse(s).unwrap())
        .collect();
    let narrowed = |asked: &str| {
        narrow(asked, &registered).map(|scopes| {
            scopes
                .iter()
                .map(crate::token::scope_text)
                .collect::<Vec<_>>()
                .join(" ")
        })
    };
    for (asked, granted) in [
        ("system/Observation.r", "system/Observation.r"),
        ("system/Observation.read", "system/Observation.rs"),
        ("system/Observation.write", "system/Observation.cud"),
        ("system/Observation.*", "system/Observation.cruds"),
        ("system/*.rs", "system/Observation.rs system/Patient.rs"),
        ("system/*.*", "system/Observation.cruds system/Patient.rs"),
        ("system/Patient.cruds", "system/Patient.rs"),
        ("system/Patient.r system/Patient.s", "system/Patient.rs"),
        ("system/Condition.rs system/Patient.r", "system/Patient.r"),
        ("  system/Patient.r  ", "system/Patient.r"),
    ] {
        assert_eq!(narrowed(asked).as_deref(), Ok(granted), "{asked}");
    }
    for asked in [
        "",
        " ",
        "system/Condition.rs",
        "system/Patient.cud",
        "system/Patient.write",
        "patient/Patient.rs",
        "user/Patient.rs",
        "user/*.cruds",
        "launch",
        "openid fhirUser",
        "offline_access",
        "system/Patient.rs?name=a",
        "system/Observation.rs?category=laboratory",
        "system/Patient.sr",
        "system/Patient.rr",
        "system/Patient.",
        "system/Patient",
        "system/patient.rs",
        "system/Patient.rs system/Horse.rs",
        "system/Patient.rs\tsystem/Patient.r",
        "*",
        "*/*.*",
    ] {
        assert!(narrowed(asked).is_err(), "{asked}");
    }
    let whole = [Scope::parse("system/*.rs").unwrap()];
    assert_eq!(narrow("system/*.cruds", &whole).unwrap(), whole);
    assert_eq!(
        narrow("system/Patient.cruds", &whole).unwrap(),
        [Scope::parse("system/Patient.rs").unwrap()]
    );
}

#[tokio::test]
async fn a_scope_that_is_not_given_uses_nothing_up() {
    let lab = lab().await;
    let assertion = lab.assertion("a");
    let asked = lab
        .world
        .identity
        .client_token(by(&assertion), "system/Claim.rs", &seen())
        .await;
    assert!(matches!(asked, Err(TokenFault::Scope(_))));
    assert!(lab.ask(&assertion).await.is_ok());
}

#[tokio::test]
async fn the_form_cannot_name_another_client() {
    let lab = lab().await;
    let assertion = lab.assertion("a");
    let with = |client_id| AssertedBy {
        client_id,
        ..by(&assertion)
    };
    let identity = &lab.world.identity;
    let other = identity
        .client_token(with(Some("client-other")), "system/*.rs", &seen())
        .await;
    assert_eq!(flaw(other), Flaw::Subject);
    assert!(
        identity
            .client_token(with(Some(&lab.id)), "system/*.rs", &seen())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_client_learns_about_and_voids_its_own_tokens_only() {
    let lab = lab().await;
    let identity = &lab.world.identity;
    let token = lab.token("a").await;
    let own = identity
        .authenticate_client(by(&lab.assertion("b")), &seen())
        .await
        .unwrap();
    let key = Signer::ed();
    let new = registration(key.jwk("k"), "system/Patient.rs");
    let other = identity.add_client(&job(), &new).await.unwrap();
    let assertion = key.jwt(
        &key.header("k").to_string(),
        &claims(&other.id, AUDIENCE, lab.now_s(), "a").to_string(),
    );
    let other = identity.authenticate_client(by(&assertion), &seen()).await.unwrap();

    let said = identity
        .introspect(Arc::clone(&own), &seen(), &token)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(said.claims.client_id.as_deref(), Some(&*lab.id));
    assert_eq!(said.claims.scope, "system/Observation.rs system/Patient.rs");
    assert_eq!(
        identity.introspect(Arc::clone(&other), &seen(), &token).await.unwrap(),
        None
    );
    assert_eq!(
        identity.introspect(Arc::clone(&own), &seen(), "x.y.z").await.unwrap(),
        None
    );
    assert!(
        identity
            .introspect(person(Role::Administrator), &seen(), &token)
            .await
            .unwrap()
            .is_some()
    );
    for role in [Role::Physician, Role::Nurse, Role::Patient, Role::Service] {
        let asked = identity.introspect(person(role), &seen(), &token).await;
        assert!(matches!(asked, Err(Fault::Forbidden(_))), "{role:?}");
        let asked = identity.revoke_presented(person(role), &seen(), &token).await;
        assert!(matches!(asked, Err(Fault::Forbidden(_))), "{role:?}");
    }

    let refused = identity.revoke_presented(other, &seen(), &token).await;
    assert!(matches!(refused, Err(Fault::Forbidden(_))));
    assert!(identity.bearer(&token).is_ok());
    identity
        .revoke_presented(Arc::clone(&own), &seen(), "no token")
        .await
        .unwrap();
    identity
        .revoke_presented(Arc::clone(&own), &seen(), &token)
        .await
        .unwrap();
    assert_eq!(identity.bearer(&token).unwrap_err(), Invalid::Revoked);
    assert_eq!(lab.world.restarted().bearer(&token).unwrap_err(), Invalid::Revoked);
    assert_eq!(
        identity.introspect(Arc::clone(&own), &seen(), &token).await.unwrap(),
        None
    );
    // Again: nothing to do, and no fault.
    identity.revoke_presented(own, &seen(), &token).await.unwrap();
}

#[tokio::test]
async fn the_published_keys_verify_a_token() {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let lab = lab().await;
    let token = lab.token("a").await;
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let header = URL_SAFE_NO_PAD.decode(signed.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    let keys = lab.world.identity.verification_keys();
    let key = keys.iter().find(|k| header["kid"] == k.kid.as_str()).unwrap();
    UnparsedPublicKey::new(&ED25519, URL_SAFE_NO_PAD.decode(&key.x).unwrap())
        .verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
        .unwrap();
}

use super::*;
use crate::service::tests::{Dice, START};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

/// A token key in memory, made from a seed.
pub(crate) struct MemoryKey(Ed25519KeyPair, Vec<[u8; 32]>);

impl MemoryKey {
    pub(crate) fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(), Vec::new())
    }

    /// The same, after those of `seeds`.
    fn after(mut self, seeds: &[u8]) -> Self {
        self.1 = seeds.iter().map(|seed| Self::new(*seed).public()).collect();
        self
    }
}

impl TokenKey for MemoryKey {
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], KeyUnavailable> {
        self.0.sign(message).as_ref().try_into().map_err(|_| KeyUnavailable)
    }

    fn public(&self) -> [u8; 32] {
        self.0.public_key().as_ref().try_into().unwrap()
    }

    fn retired(&self) -> Vec<[u8; 32]> {
        self.1.clone()
    }
}

const ISSUER: &str = "urn:keepwell:test";
const NOW: Timestamp = Timestamp(START);

fn tokens() -> Tokens {
    Tokens::new(ISSUER, Arc::new(MemoryKey::new(1)))
}

fn wish(role: Role, scopes: &[&str]) -> Wanted {
    Wanted {
        user: "u-1".into(),
        display: "User One".into(),
        role,
        patient: None,
        client: None,
        scopes: scopes.iter().map(|s| Scope::parse(s).unwrap()).collect(),
        ttl_s: 3600,
    }
}

fn issue(tokens: &Tokens, wanted: &Wanted) -> Issued {
    tokens.issue(wanted, NOW, &Dice::default()).unwrap()
}

fn b64(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A token of any header and body, signed by that key.
fn signed(header: &str, body: &str, key: &MemoryKey) -> String {
    let input = format!("{}.{}", b64(header), b64(body));
    let signature = key.sign(input.as_bytes()).unwrap();
    format!("{input}.{}", b64(signature))
}

/// The header and body of a token, as text.
fn parts(token: &str) -> (String, String) {
    let mut parts = token
        .split('.')
        .map(|p| String::from_utf8_lossy(&URL_SAFE_NO_PAD.decode(p).unwrap()).into_owned());
    (parts.next().unwrap(), parts.next().unwrap())
}

#[test]
fn a_token_says_who_and_what_and_nothing_more() {
    let tokens = tokens();
    let mut wanted = wish(Role::Service, &["patient/Observation.rs", "patient/Patient.r"]);
    wanted.patient = Some("pat-1".into());
    let issued = issue(&tokens, &wanted);
    let actor = tokens.verify(&issued.token, NOW).unwrap();
    assert_eq!(
        (actor.id.as_str(), actor.role, actor.patient.as_deref()),
        ("u-1", Role::Service, Some("pat-1"))
    );
    assert_eq!(actor.scopes, wanted.scopes);
    assert_eq!(actor.session, issued.jti, "the log names the token by its id");
    assert!(!issued.token.contains(&actor.session));
    assert_eq!(actor.method, "token");
    // The second time it comes from the cache, and is the same.
    assert!(Arc::ptr_eq(&actor, &tokens.verify(&issued.token, NOW).unwrap()));
}

#[test]
fn scopes_read_back_as_written() {
    for text in [
        "system/*.cruds",
        "user/Observation.rs",
        "patient/MedicationRequest.cu",
        "system/Patient.d",
    ] {
        assert_eq!(scope_text(&Scope::parse(text).unwrap()), text);
    }
}

#[test]
fn a_token_is_void_from_its_last_second_on_cached_or_not() {
    let tokens = tokens();
    let issued = issue(&tokens, &wish(Role::Nurse, &[]));
    let last = Timestamp(issued.expires.0 - 1);
    assert!(tokens.verify(&issued.token, last).is_ok());
    assert_eq!(
        tokens.verify(&issued.token, issued.expires).err(),
        Some(Invalid::Expired),
        "from the cache"
    );
    tokens.forget();
    assert_eq!(
        tokens.verify(&issued.token, issued.expires).err(),
        Some(Invalid::Expired),
        "anew"
    );
}

#[test]
fn a_clock_set_back_a_little_is_forgiven_and_more_is_not() {
    let tokens = tokens();
    let issued = issue(&tokens, &wish(Role::Nurse, &[]));
    assert!(tokens.verify(&issued.token, Timestamp(NOW.0 - LEEWAY_S * 1000)).is_ok());
    let early = Timestamp(NOW.0 - (LEEWAY_S + 1) * 1000);
    assert_eq!(tokens.verify(&issued.token, early).err(), Some(Invalid::NotYet));
}

#[test]
fn wishes_against_the_rules_are_refused() {
    let tokens = tokens();
    let mut refused = vec![
        wish(Role::Service, &[]),
        wish(Role::Patient, &[]),
        wish(Role::Service, &["patient/*.rs"]),
    ];
    let change = |f: fn(&mut Wanted)| {
        let mut w = wish(Role::Nurse, &[]);
        f(&mut w);
        w
    };
    refused.extend([
        change(|w| w.ttl_s = 0),
        change(|w| w.ttl_s = -5),
        change(|w| w.ttl_s = PERSON_TTL_MAX_S + 1),
        change(|w| w.ttl_s = i64::MAX),
        change(|w| w.user = String::new()),
        change(|w| w.user = "a/b".into()),
        change(|w| w.display = "a\u{0}b".into()),
        change(|w| w.patient = Some("pat-1".into())),
        change(|w| {
            w.role = Role::Patient;
            w.patient = Some("pat 1".into());
        }),
        change(|w| w.scopes = vec![Scope::parse("user/*.r").unwrap(); SCOPES_MAX + 1]),
    ]);
    for wanted in refused {
        let answer = tokens.issue(&wanted, NOW, &Dice::default());
        assert!(matches!(answer, Err(Refused::Rule(_))), "{wanted:?}");
    }
    let mut long = wish(Role::Service, &["system/*.cruds"]);
    long.ttl_s = SERVICE_TTL_MAX_S;
    assert!(tokens.issue(&long, NOW, &Dice::default()).is_ok());
}

#[test]
fn after_a_rotation_old_tokens_hold_while_their_key_is_kept() {
    let issued = issue(&tokens(), &wish(Role::Nurse, &[]));
    let kept = Tokens::new(ISSUER, Arc::new(MemoryKey::new(2).after(&[1])));
    assert!(kept.verify(&issued.token, NOW).is_ok());
    let dropped = Tokens::new(ISSUER, Arc::new(MemoryKey::new(2)));
    assert_eq!(dropped.verify(&issued.token, NOW).err(), Some(Invalid::Header));
}

/// A key that is rotated while tokens are issued and verified.
struct Turning(parking_lot::Mutex<MemoryKey>);

impl TokenKey for Turning {
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], KeyUnavailable> {
        self.0.lock().sign(message)
    }

    fn public(&self) -> [u8; 32] {
        self.0.lock().public()
    }

    fn retired(&self) -> Vec<[u8; 32]> {
        self.0.lock().retired()
    }
}

#[test]
fn a_rotation_under_way_neither_breaks_tokens_nor_keeps_verified_ones_of_a_dropped_key() {
    let key = Arc::new(Turning(parking_lot::Mutex::new(MemoryKey::new(1))));
    let tokens = Tokens::new(ISSUER, Arc::clone(&key) as Arc<dyn TokenKey>);
    let first = issue(&tokens, &wish(Role::Nurse, &[]));
    assert!(tokens.verify(&first.token, NOW).is_ok());
    *key.0.lock() = MemoryKey::new(2).after(&[1]);
    // Nobody has told the tokens of it yet.
    let second = issue(&tokens, &wish(Role::Nurse, &[]));
    assert!(tokens.verify(&first.token, NOW).is_ok() && tokens.verify(&second.token, NOW).is_ok());
    *key.0.lock() = MemoryKey::new(3);
    tokens.renew();
    for token in [&first.token, &second.token] {
        assert_eq!(
            tokens.verify(token, NOW).err(),
            Some(Invalid::Header),
            "not even from the cache"
        );
    }
}

#[test]
fn revoking_one_token_leaves_the_others_and_is_kept_until_it_expires() {
    let tokens = tokens();
    let a = tokens.issue(&wish(Role::Nurse, &[]), NOW, &Dice::from(10)).unwrap();
    let b = tokens.issue(&wish(Role::Nurse, &[]), NOW, &Dice::from(20)).unwrap();
    assert!(tokens.verify(&a.token, NOW).is_ok());
    tokens.revoke(&a.jti, a.expires, NOW);
    assert_eq!(tokens.verify(&a.token, NOW).err(), Some(Invalid::Revoked));
    assert!(tokens.verify(&b.token, NOW).is_ok());
    // A later revocation sweeps out what has expired, and only that.
    let last = Timestamp(a.expires.0 - 1);
    tokens.revoke("00", Timestamp(i64::MAX), last);
    assert_eq!(tokens.verify(&a.token, last).err(), Some(Invalid::Revoked));
    tokens.revoke("01", Timestamp(i64::MAX), a.expires);
    assert_eq!(tokens.state.read().revoked.len(), 2);
    assert_eq!(tokens.verify(&a.token, a.expires).err(), Some(Invalid::Expired));
}

#[test]
fn ending_a_user_voids_earlier_tokens_only() {
    let tokens = tokens();
    let before = issue(&tokens, &wish(Role::Nurse, &[]));
    assert!(tokens.verify(&before.token, NOW).is_ok());
    tokens.end_user("u-1", NOW);
    assert_eq!(tokens.verify(&before.token, NOW).err(), Some(Invalid::Revoked));
    let later = Timestamp(NOW.0 + 1000);
    let after = tokens.issue(&wish(Role::Nurse, &[]), later, &Dice::from(99)).unwrap();
    assert!(tokens.verify(&after.token, later).is_ok());
}

#[test]
fn the_cache_is_bounded() {
    let tokens = tokens();
    let dice = Dice::default();
    for _ in 0..64 {
        let issued = tokens.issue(&wish(Role::Nurse, &[]), NOW, &dice).unwrap();
        tokens.verify(&issued.token, NOW).unwrap();
    }
    assert_eq!(tokens.state.read().cache.len(), 64);
    let mut state = tokens.state.write();
    let actor = state.cache.values().next().unwrap().actor.clone();
    for n in 0..CACHE_MAX {
        state.cache.insert(
            sha256(&n.to_be_bytes()),
            Verified {
                actor: actor.clone(),
                exp: 0,
                iat: 0,
            },
        );
    }
    drop(state);
    let issued = tokens.issue(&wish(Role::Nurse, &[]), NOW, &dice).unwrap();
    tokens.verify(&issued.token, NOW).unwrap();
    assert_eq!(tokens.state.read().cache.len(), 1);
}

/// APP-9: more than a hundred forged, stale and mangled tokens; none is accepted.
#[test]
fn no_forged_token_is_accepted() {
    let (tokens, ours, theirs) = (tokens(), MemoryKey::new(1), MemoryKey::new(66));
    let good = issue(&tokens, &wish(Role::Service, &["system/*.cruds"])).token;
    let (header, body) = parts(&good);
    let kid = header
        .split("\"kid\":\"")
        .nth(1)
        .unwrap()
        .trim_end_matches("\"}")
        .to_owned();
    assert!(tokens.verify(&good, NOW).is_ok());
    tokens.forget();
    let mut forged: Vec<(String, String)> = Vec::new();

    // Other algorithms and headers, each by the attacker's key, by HMAC with our public key, with our own signature
    // over the true token, and without a signature.
    let (input, true_signature) = good.rsplit_once('.').unwrap();
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &ours.public());
    let headers = [
        r#"{"alg":"none"}"#.to_owned(),
        r#"{"alg":"None","typ":"at+jwt"}"#.to_owned(),
        format!(r#"{{"alg":"nOnE","typ":"at+jwt","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"","typ":"at+jwt","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"HS256","typ":"at+jwt","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"HS512","typ":"at+jwt","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"RS256","typ":"at+jwt","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"ES256","typ":"at+jwt","kid":"{kid}"}}"#),
        format!(r#"{{"alg":["EdDSA"],"typ":"at+jwt","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"EdDSA","alg":"none","typ":"at+jwt","kid":"{kid}"}}"#),
        r#"{"alg":"EdDSA","typ":"at+jwt"}"#.to_owned(),
        r#"{"alg":"EdDSA","typ":"at+jwt","kid":""}"#.to_owned(),
        r#"{"alg":"EdDSA","typ":"at+jwt","kid":"../../etc/passwd"}"#.to_owned(),
        r#"{"alg":"EdDSA","typ":"at+jwt","kid":"' OR 1=1 --"}"#.to_owned(),
        format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{}"}}"#, b64([0; 32])),
        format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{kid}","jku":"https://evil.example/jwks"}}"#),
        format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{kid}","x5u":"https://evil.example/x5u"}}"#),
        format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{kid}","x5c":["AAAA"]}}"#),
        format!(
            r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{kid}","jwk":{{"kty":"OKP","crv":"Ed25519","x":"{}"}}}}"#,
            b64(theirs.public())
        ),
        format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{kid}","crit":["exp"]}}"#),
        format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{kid}","b64":false,"crit":["b64"]}}"#),
        format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{kid}","zip":"DEF"}}"#),
        format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{kid}"}}"#),
        format!(r#"{{"typ":"at+jwt","alg":"EdDSA","kid":"{kid}"}}"#),
        format!(r#"{{"alg": "EdDSA","typ":"at+jwt","kid":"{kid}"}}"#),
        "{}".to_owned(),
        "null".to_owned(),
        String::new(),
    ];
    for h in &headers {
        let input = format!("{}.{}", b64(h), b64(&body));
        forged.push((format!("{h} by another key"), signed(h, &body, &theirs)));
        forged.push((
            format!("{h} by HMAC"),
            format!("{input}.{}", b64(hmac::sign(&secret, input.as_bytes()))),
        ));
        forged.push((format!("{h} borrowed signature"), format!("{input}.{true_signature}")));
        forged.push((format!("{h} unsigned"), format!("{input}.")));
        // Even our own key under another header: a key is for one purpose.
        forged.push((format!("{h} by our key"), signed(h, &body, &ours)));
    }
    forged.push(("our header by another key".into(), signed(&header, &body, &theirs)));

    // Claims this server would not write, signed by its own key: a bug elsewhere must not become a way in.
    let exp = "\"exp\":1800003600";
    let iat = "\"iat\":1800000000";
    for (from, to) in [
        (exp, "\"exp\":1800000000"),
        (exp, "\"exp\":0"),
        (exp, "\"exp\":-1"),
        (exp, "\"exp\":9223372036854775807"),
        (exp, "\"exp\":9999999999"),
        (exp, "\"exp\":1800003600.5"),
        (exp, "\"exp\":\"1800003600\""),
        (exp, "\"exp\":null"),
        (exp, "\"exp\":1e300"),
        (exp, "\"exp\":1,\"exp\":1800003600"),
        (iat, "\"iat\":1800000061"),
        (iat, "\"iat\":1800003599"),
        (iat, "\"iat\":-9223372036854775808"),
        (iat, "\"iat\":0"),
        ("\"iss\":\"urn:keepwell:test\"", "\"iss\":\"urn:keepwell:other\""),
        ("\"aud\":\"urn:keepwell:test\"", "\"aud\":\"urn:keepwell:other\""),
        ("\"aud\":\"urn:keepwell:test\"", "\"aud\":[\"urn:keepwell:test\"]"),
        ("\"role\":\"service\"", "\"role\":\"root\""),
        ("\"role\":\"service\"", "\"role\":\"Service\""),
        ("\"role\":\"service\"", "\"role\":\"nurse\",\"role\":\"service\""),
        ("\"role\":\"service\"", "\"role\":\"patient\""),
        ("\"role\":\"service\"", "\"role\":10"),
        ("\"scope\":\"system/*.cruds\"", "\"scope\":\"\""),
        ("\"scope\":\"system/*.cruds\"", "\"scope\":\"system/*.sdurc\""),
        ("\"scope\":\"system/*.cruds\"", "\"scope\":\"system/Everything.r\""),
        ("\"scope\":\"system/*.cruds\"", "\"scope\":\"patient/*.cruds\""),
        ("\"scope\":\"system/*.cruds\"", "\"scope\":[\"system/*.cruds\"]"),
        (
            "\"scope\":\"system/*.cruds\"",
            "\"scope\":\"system/*.cruds\",\"admin\":true",
        ),
        (
            "\"scope\":\"system/*.cruds\"",
            "\"scope\":\"system/*.cruds\",\"patient\":\"pat-1\"",
        ),
        ("\"sub\":\"u-1\"", "\"sub\":\"\""),
        ("\"sub\":\"u-1\"", "\"sub\":\"u/1\""),
        ("\"sub\":\"u-1\",", ""),
        ("\"name\":\"User One\"", "\"name\":\"User\\nOne\""),
        ("\"jti\":", "\"jtl\":"),
        ("{", "[{"),
        ("}", "}}"),
    ] {
        let changed = body.replacen(from, to, 1);
        assert_ne!(changed, body, "{from} is not in {body}");
        forged.push((format!("claims {to}"), signed(&header, &changed, &ours)));
        // The same without knowing the key.
        forged.push((
            format!("claims {to}, borrowed signature"),
            format!("{}.{}.{true_signature}", b64(&header), b64(&changed)),
        ));
    }
    forged.push(("claims not JSON".into(), signed(&header, "role=service", &ours)));
    forged.push(("claims empty".into(), signed(&header, "", &ours)));
    forged.push(("claims deep".into(), signed(&header, &"[".repeat(3000), &ours)));

    // Form: one token has one spelling.
    for cut in (0..good.len()).step_by(7) {
        forged.push((format!("cut at {cut}"), good[..cut].to_owned()));
    }
    for at in (0..good.len()).step_by(5) {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        forged.push((format!("changed at {at}"), String::from_utf8(bytes).unwrap()));
    }
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = alphabet.find(good.chars().last().unwrap()).unwrap();
    let spare = alphabet.as_bytes()[last ^ 1] as char;
    forged.push((
        "spare bits of the signature set".into(),
        format!("{}{spare}", &good[..good.len() - 1]),
    ));
    let (head, rest) = good.split_once('.').unwrap();
    for (name, text) in [
        ("padded", format!("{good}==")),
        ("line break", format!("{good}\n")),
        ("leading space", format!(" {good}")),
        ("trailing space", format!("{good} ")),
        ("trailing dot", format!("{good}.")),
        ("leading dot", format!(".{good}")),
        ("four parts", format!("{good}.AAAA")),
        ("five parts, an encrypted token", format!("{good}.AAAA.AAAA")),
        ("two parts", input.to_owned()),
        ("parts swapped", format!("{rest}.{head}")),
        ("signature twice", format!("{good}{true_signature}")),
        ("signature empty", format!("{input}.")),
        ("signature of zeros", format!("{input}.{}", b64([0; 64]))),
        ("signature too short", format!("{input}.{}", b64([0; 63]))),
        ("signature too long", format!("{input}.{}", b64([0; 65]))),
        ("Bearer inside", format!("Bearer {good}")),
        ("NUL", format!("{good}\0")),
        ("percent", good.replace('.', "%2e")),
        ("full-width dot", good.replace('.', "．")),
        (
            "JSON serialization",
            format!(r#"{{"protected":"{head}","payload":"","signature":"{true_signature}"}}"#),
        ),
        ("empty", String::new()),
        ("dots", "..".into()),
        ("many dots", ".".repeat(8000)),
        ("huge", "A".repeat(1 << 20)),
        ("huge body", format!("{head}.{}.{true_signature}", "A".repeat(1 << 20))),
    ] {
        forged.push((name.into(), text));
    }

    assert!(forged.len() >= 100, "only {}", forged.len());
    for (name, token) in &forged {
        assert_ne!(token, &good, "{name} is the good token");
        assert!(tokens.verify(token, NOW).is_err(), "accepted: {name}");
    }
    // What is too long is not even hashed.
    assert_eq!(
        tokens.verify(&"A".repeat(MAX_TOKEN + 1), NOW).err(),
        Some(Invalid::TooLong)
    );
    assert!(tokens.state.read().cache.is_empty(), "a forged token entered the cache");
    assert!(tokens.verify(&good, NOW).is_ok());
    println!("{} forged tokens, 0 accepted", forged.len());
}

/// The bar is one microsecond in a release build; this prints, and fails only when the cache does nothing.
#[test]
fn a_token_seen_before_is_cheap() {
    let tokens = tokens();
    let token = issue(&tokens, &wish(Role::Service, &["system/*.cruds"])).token;
    let time = |tokens: &Tokens, fresh: bool| {
        let mut all: Vec<u128> = (0..1001)
            .map(|_| {
                if fresh {
                    tokens.forget();
                }
                let start = std::time::Instant::now();
                std::hint::black_box(tokens.verify(&token, NOW)).unwrap();
                start.elapsed().as_nanos()
            })
            .collect();
        all.sort_unstable();
        all[500]
    };
    let (fresh, cached) = (time(&tokens, true), time(&tokens, false));
    println!("token verification: {fresh} ns anew, {cached} ns from the cache (medians)");
    assert!(cached * 4 < fresh);
}

//! A small record with a clock of the test's, and contexts to ask it with.
#![allow(dead_code, reason = "each program uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and measurements"
)]

use keepwell_ledger::{Config, KeyFile, Ledger};
use keepwell_model::actor::{Actor, Assurance, Context, EntryPath, Place, PurposeOfUse, Role, Scope};
use keepwell_model::reference::Base;
use keepwell_model::time::{Clock, Entropy, EntropyUnavailable, Timestamp};
use keepwell_model::types::ResourceType;
use keepwell_policy::{Action, Engine};
use keepwell_record::{Door, Gate, Limits, ReadOptions, Records, Refusal, Return, SearchRequest, Selector};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

pub const HOUR: i64 = 3_600_000;
pub const DAY: i64 = 24 * HOUR;
/// 2026-11-22 20:00 UTC.
pub const NOW: i64 = 1_795_377_600_000;
pub const BASE: &str = "http://localhost/fhir";

pub struct TestClock(pub AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// Not random, but never the same twice.
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyUnavailable> {
        for chunk in out.chunks_mut(8) {
            let n = self.0.fetch_add(1, Ordering::SeqCst);
            let word = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ n;
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

pub struct World {
    pub door: Door,
    pub gate: Arc<Gate>,
    pub clock: Arc<TestClock>,
    _dir: tempfile::TempDir,
}

pub fn t(name: &str) -> ResourceType {
    ResourceType::from_name(name).unwrap()
}

pub fn pairs(params: &[(&str, &str)]) -> Vec<(String, String)> {
    params.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(NOW)));
        let entropy: Arc<dyn Entropy> = Arc::new(Counting(AtomicU64::new(1)));
        let key = KeyFile::create(&dir.path().join("key"), entropy.as_ref()).unwrap();
        let config = || Config {
            era_places_min: 1,
            ..Config::new(dir.path())
        };
        Ledger::<Records>::init(&config(), &key, clock.as_ref(), &entropy).unwrap();
        let records = Arc::new(Records::new([3; 16], Base::new("localhost")));
        let ledger = Ledger::open(
            config(),
            &key,
            Arc::clone(&records),
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::clone(&entropy),
        )
        .unwrap();
        let gate = Arc::new(Gate::new(Arc::new(Engine::load().unwrap())));
        let door = Door::new(
            ledger,
            records,
            Arc::clone(&gate),
            Arc::clone(&clock) as Arc<dyn Clock>,
            entropy,
            Limits::default(),
        );
        Self {
            door,
            gate,
            clock,
            _dir: dir,
        }
    }

    pub fn pass(&self, ms: i64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    pub fn context(&self, id: &str, role: Role, practitioner: Option<&str>) -> Context {
        let now = self.clock.now();
        Context {
            actor: Arc::new(Actor {
                id: id.into(),
                display: id.into(),
                role,
                patient: None,
                practitioner: practitioner.map(str::to_owned),
                client: None,
                scopes: match role {
                    Role::Service => vec![Scope::parse("system/*.cruds").unwrap()],
                    _ => Vec::new(),
                },
                session: format!("session-{id}"),
                authenticated: now,
                method: "token".into(),
                reauthenticated: now,
                assurance: Assurance::TwoFactors,
            }),
            purpose: PurposeOfUse::Treatment,
            entry: EntryPath::Api,
            request_id: String::new(),
            network: String::new(),
            device: String::new(),
            unit: String::new(),
            roster: String::new(),
            reason: String::new(),
            print: false,
            place: Place::Unknown,
            export: false,
            at: now,
        }
    }

    pub fn bulk(&self) -> Context {
        self.context("bulk", Role::Service, None)
    }

    pub fn doctor(&self) -> Context {
        self.context("doctor", Role::Physician, Some("d1"))
    }

    pub fn nurse(&self) -> Context {
        self.context("nurse", Role::Nurse, Some("n1"))
    }

    pub async fn put(&self, resource: &Value) {
        let kind = t(resource["resourceType"].as_str().unwrap());
        let id = resource["id"].as_str().unwrap();
        self.door
            .update(
                &self.bulk(),
                kind,
                &Selector::Id(id),
                resource.to_string().as_bytes(),
                None,
                Return::Minimal,
            )
            .await
            .unwrap_or_else(|e| panic!("{kind}/{id}: {e:?}"));
    }

    pub async fn delete(&self, kind: &str, id: &str) {
        self.door
            .delete(&self.bulk(), t(kind), &Selector::Id(id), None)
            .await
            .unwrap();
    }

    pub async fn read(&self, ctx: &Context, kind: &str, id: &str) -> u16 {
        match self.door.read(ctx, t(kind), id, &ReadOptions::default()).await {
            Ok(answer) => answer.status,
            Err(refusal) => refusal.status,
        }
    }

    pub async fn search(&self, ctx: &Context, kind: &str, params: &[(&str, &str)]) -> Result<Value, Refusal> {
        self.query(ctx, kind, &pairs(params)).await
    }

    pub async fn query(&self, ctx: &Context, kind: &str, params: &[(String, String)]) -> Result<Value, Refusal> {
        let request = SearchRequest {
            resource_type: t(kind),
            compartment: None,
            params,
            lenient: false,
            base: BASE,
        };
        let answer = self.door.search(ctx, &request).await?;
        Ok(serde_json::from_slice(&answer.body).unwrap())
    }

    pub async fn found(&self, ctx: &Context, kind: &str, params: &[(&str, &str)]) -> Vec<String> {
        names_of(&self.search(ctx, kind, params).await.unwrap())
    }

    /// (action, purpose, reason) of the patient's newest log entries.
    pub async fn log(&self, patient: &str, n: usize) -> Vec<(Action, PurposeOfUse, String)> {
        let officer = self.context("privacy", Role::PrivacyOfficer, None);
        let (lines, _) = self.door.access_log_of(&officer, patient, n).await.unwrap();
        lines
            .into_iter()
            .map(|l| (l.access.action, l.access.purpose, l.access.reason))
            .collect()
    }

    pub async fn patient(&self, id: &str) {
        self.put(&json!({"resourceType": "Patient", "id": id, "active": true,
            "name": [{"family": format!("Family{id}"), "given": ["Given"]}], "gender": "female", "birthDate": "1980-02-29",
            "identifier": [{"type": {"text": "Programme"}, "system": "http://x/mrn", "value": format!("mrn-{id}")}],
            "address": [{"city": "Hidden"}], "telecom": [{"system": "phone", "value": "555-0100"}]}))
            .await;
        self.put(
            &json!({"resourceType": "Observation", "id": format!("o-{id}"), "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "1-1"}]}, "valueQuantity": {"value": 1.0},
            "subject": {"reference": format!("Patient/{id}")}}),
        )
        .await;
    }
}

pub fn names_of(bundle: &Value) -> Vec<String> {
    let mut all: Vec<String> = bundle["entry"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|e| e["search"]["mode"] != "outcome")
        .map(|e| {
            let r = &e["resource"];
            format!("{}/{}", r["resourceType"].as_str().unwrap(), r["id"].as_str().unwrap())
        })
        .collect();
    all.sort();
    all
}

pub fn instant(offset: i64) -> String {
    Timestamp(NOW + offset).to_string()
}

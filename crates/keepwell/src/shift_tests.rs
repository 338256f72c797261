//! A seeded simulation of shifts over the demo's data: how often a clinician who does their work is asked for a reason.
//!
//! Who opens which chart, when, is drawn from the record itself: everybody who takes part in a visit opens the chart on the
//! day before (preparing), at the visit, or within two weeks after it (results, letters); the nurse who measured something
//! opens it then. Of 400 opens one is of a patient drawn from all of the clinic, who may be nobody's.

use crate::cli::Unlock;
use crate::{setup, site, world};
use keepwell_model::actor::{Actor, Assurance, Context, EntryPath, Role};
use keepwell_model::json::{self, Value};
use keepwell_model::time::Timestamp;
use keepwell_model::types::ResourceType;
use keepwell_record::ReadOptions;
use std::collections::BTreeSet;
use std::sync::Arc;

const DAY: i64 = 86_400_000;
/// Of so many opens one is of somebody drawn from everybody.
const STRANGERS: u64 = 400;
/// At most this share of opens may be asked for a reason.
const BAR: f64 = 0.005;

struct Visit {
    patient: String,
    practitioner: String,
    at: i64,
}

/// Who saw whom when, by the Bundles that were loaded.
fn visits(bundle: &str, all: &mut Vec<Visit>, patients: &mut BTreeSet<String>) {
    let bundle = json::parse(bundle).unwrap();
    for entry in bundle.get("entry").and_then(Value::items).unwrap() {
        let r = entry.get("resource").unwrap();
        let reference = |v: Option<&Value<'_>>, kind: &str| -> Option<String> {
            v?.str("reference")?.strip_prefix(kind).map(str::to_owned)
        };
        if r.str("resourceType") == Some("Patient") {
            patients.insert(r.str("id").unwrap().to_owned());
        }
        let (at, people): (Option<&str>, Vec<Option<&Value<'_>>>) = match r.str("resourceType") {
            Some("Encounter") => (
                r.get("period").and_then(|p| p.str("start")),
                r.get("participant")
                    .and_then(Value::items)
                    .unwrap_or_default()
                    .iter()
                    .map(|p| p.get("individual"))
                    .collect(),
            ),
            Some("Observation") => (
                r.str("effectiveDateTime"),
                r.get("performer")
                    .and_then(Value::items)
                    .unwrap_or_default()
                    .iter()
                    .map(Some)
                    .collect(),
            ),
            _ => continue,
        };
        let patient = reference(r.get("subject"), "Patient/");
        let at = at.and_then(keepwell_record::instant);
        if let (Some(patient), Some(at)) = (patient, at) {
            all.extend(
                people
                    .into_iter()
                    .filter_map(|p| reference(p, "Practitioner/"))
                    .map(|practitioner| Visit {
                        patient: patient.clone(),
                        practitioner,
                        at: at.0,
                    }),
            );
        }
    }
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

#[allow(clippy::disallowed_methods, reason = "the size of a test")]
fn opens() -> u64 {
    std::env::var("KEEPWELL_OPENS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_one_in_two_hundred_opens_of_a_shift_asks_for_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demo");
    setup::make_demo(&dir).unwrap();
    let site = site::Site::open(&dir, &Unlock::default(), None).unwrap();
    let patients_wanted = world::BUNDLED_PATIENTS + 60;
    setup::fill_demo(&site, 7, patients_wanted).await.unwrap();
    let (mut all, mut patients) = (Vec::new(), BTreeSet::new());
    for bundle in world::bundles(7, patients_wanted) {
        visits(&bundle, &mut all, &mut patients);
    }
    let patients: Vec<String> = patients.into_iter().collect();
    let of = |n: u64, len: usize| usize::try_from(n).unwrap() % len;
    let mut dice = Dice(20_261_128);
    let (mut prompts, mut own_prompts) = (0_u64, 0_u64);
    let total = opens();
    let job = site.job("shift");
    for n in 0..total {
        let visit = &all[of(dice.below(u64::MAX), all.len())];
        let offset = match dice.below(10) {
            0 => -DAY,
            1..=6 => 0,
            _ => i64::try_from(dice.below(14)).unwrap() * DAY,
        };
        let stranger = n % STRANGERS == STRANGERS - 1;
        let patient = if stranger {
            &patients[of(dice.below(u64::MAX), patients.len())]
        } else {
            &visit.patient
        };
        let at = Timestamp(visit.at + offset);
        let ctx = Context {
            actor: Arc::new(Actor {
                id: format!("user-{}", visit.practitioner),
                role: Role::Physician,
                practitioner: Some(visit.practitioner.clone()),
                scopes: Vec::new(),
                method: "token".to_owned(),
                assurance: Assurance::TwoFactors,
                ..(*job.actor).clone()
            }),
            entry: EntryPath::WorkList,
            at,
            ..job.clone()
        };
        let t = ResourceType::from_name("Patient").unwrap();
        let read = site.door.read(&ctx, t, patient, &ReadOptions::default()).await;
        match read {
            Ok(_) => {}
            Err(e) => {
                assert_eq!(e.status, 403, "asked, not refused");
                prompts += 1;
                own_prompts += u64::from(!stranger);
            }
        }
    }
    site.door.ledger().stop();
    let share = prompts as f64 / total as f64;
    println!(
        "{total} opens of {} patients: {prompts} asked for a reason ({:.2} %), {own_prompts} of them of one's own patients",
        patients.len(),
        share * 100.0
    );
    assert!(share <= BAR, "{share}");
}

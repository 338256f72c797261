//! What authorization costs: a decision alone, and a read by a clinician with a panel beside one by a machine without.
//! `cargo run --release -p keepwell-record --example decision_speed`
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement"
)]

#[path = "../tests/world/mod.rs"]
mod world;

use keepwell_model::actor::Role;
use keepwell_policy::{Action, Engine, Relation, Request, Target};
use serde_json::json;
use std::time::Instant;
use world::{World, t};

const PATIENTS: usize = 1000;
const READS: usize = 20_000;

fn percentiles(mut times: Vec<u64>) -> (u64, u64) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[tokio::main]
async fn main() {
    let engine = Engine::load().unwrap();
    let world = World::new();
    for n in 0..PATIENTS {
        world.patient(&format!("p{n}")).await;
        world
            .put(
                &json!({"resourceType": "CareTeam", "id": format!("c{n}"), "status": "active",
                "subject": {"reference": format!("Patient/p{n}")},
                "participant": [{"member": {"reference": "Practitioner/d1"}}]}),
            )
            .await;
    }
    let request = |n: usize| {
        let relation = Relation::ALL[n % Relation::ALL.len()];
        Request::plain(Role::Physician, Action::Read, Target::Type(t("Observation")), relation)
    };
    let time = |decide: &dyn Fn(&Request)| {
        percentiles(
            (0..READS)
                .map(|n| {
                    let request = request(n);
                    let start = Instant::now();
                    decide(&request);
                    start.elapsed().as_nanos() as u64
                })
                .collect(),
        )
    };
    let (median, p99) = time(&|r| drop(engine.decide(r)));
    println!("a decision by Cedar: median {median} ns, p99 {p99} ns");
    let (median, p99) = time(&|r| drop(world.gate.decide(r)));
    println!("a decision from the cache: median {median} ns, p99 {p99} ns");

    let doctor = world.doctor();
    let start = Instant::now();
    assert_eq!(world.read(&doctor, "Observation", "o-p0").await, 200);
    println!(
        "first read, with the panel of {PATIENTS} patients: {} us",
        start.elapsed().as_micros()
    );
    let bulk = world.bulk();
    let mut times = [Vec::new(), Vec::new()];
    for n in 0..READS {
        let id = format!("o-p{}", n * 7 % PATIENTS);
        for (ctx, times) in [&bulk, &doctor].into_iter().zip(&mut times) {
            let start = Instant::now();
            assert_eq!(world.read(ctx, "Observation", &id).await, 200);
            times.push(start.elapsed().as_nanos() as u64);
        }
    }
    let [machine, clinician] = times.map(percentiles);
    println!("a read by a machine: median {} ns, p99 {} ns", machine.0, machine.1);
    println!(
        "a read by a clinician: median {} ns, p99 {} ns: {:+.1} % at the median",
        clinician.0,
        clinician.1,
        (clinician.0 as f64 / machine.0 as f64 - 1.0) * 100.0
    );
}

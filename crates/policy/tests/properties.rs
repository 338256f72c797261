//! Properties of the policies as a whole: what no change may break.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use keepwell_model::actor::{Assurance, Place, PurposeOfUse, Role};
use keepwell_model::types::ResourceType;
use keepwell_policy::{Action, ActionGroup, Consent, Engine, Grant, Labels, Relation, Request, Sources, Target};
use proptest::prelude::*;

fn any_request() -> impl Strategy<Value = Request> {
    let grants = [
        Grant::WHOLE,
        Grant::PATIENT,
        Grant::USER,
        Grant::SYSTEM,
        Grant::JOB,
        Grant::NOTHING,
    ];
    (
        prop::sample::select(&Role::ALL[..]),
        prop::sample::select(Action::ALL),
        0_u16..146,
        prop::sample::select(&Relation::ALL[..]),
        0_u16..8,
        1_u8..8,
        prop::sample::select(grants.to_vec()),
        prop::sample::select(&Assurance::ALL[..]),
        prop::sample::select(&Place::ALL[..]),
        prop::sample::select(&Consent::ALL[..]),
    )
        .prop_map(
            |(role, action, t, relation, labels, purpose, grant, assurance, place, consent)| Request {
                role,
                action,
                target: match action.group() {
                    ActionGroup::System => Target::Installation,
                    _ => Target::Type(ResourceType::from_code(t).unwrap()),
                },
                relation,
                labels: Labels(labels),
                purpose: PurposeOfUse::from_number(purpose).unwrap(),
                grant,
                assurance,
                place,
                consent,
            },
        )
}

/// A forbid that the schema accepts: some scope, some condition.
fn any_forbid() -> impl Strategy<Value = String> {
    let principal = prop_oneof![
        Just("principal".to_owned()),
        prop::sample::select(&Role::ALL[..]).prop_map(|r| format!("principal == Role::\"{}\"", r.name())),
    ];
    let group = prop::sample::select(vec!["view", "write"]).prop_map(|g| format!("action in Action::\"{g}\""));
    let class = prop::sample::select(vec![
        "clinical",
        "identity",
        "claims",
        "reference",
        "patient-data",
        "notes",
    ]);
    let when = prop::sample::select(vec![
        "context.relation == Relation::\"unrelated\"",
        "context.labels.contains(Label::\"restricted\")",
        "context.grant.system",
        "context.purpose == Purpose::\"TREAT\"",
        "!context.grant.whole",
        "9223372036854775807 + 1 > 0",
    ]);
    (principal, group, class, when).prop_map(|(p, a, class, when)| {
        format!(
            "@id(\"added\") @reason(\"added\") forbid ({p}, {a}, resource in DataClass::\"{class}\") when {{ {when} }};"
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn adding_a_forbid_never_widens(forbid in any_forbid(), requests in prop::collection::vec(any_request(), 200)) {
        let before = Engine::load().unwrap();
        let mut sources = Sources::embedded();
        sources.policies.push(("added.cedar".into(), forbid));
        let after = Engine::from_sources(&sources).unwrap();
        for request in requests {
            prop_assert!(before.decide(&request).permit || !after.decide(&request).permit, "{request:?}");
        }
    }

    #[test]
    fn a_label_never_widens(requests in prop::collection::vec(any_request(), 200)) {
        let engine = Engine::load().unwrap();
        for request in requests {
            let plain = engine.decide(&Request { labels: Labels::NONE, ..request });
            prop_assert!(plain.permit || !engine.decide(&request).permit, "{request:?}");
        }
    }

    #[test]
    fn a_scope_never_widens_a_person(requests in prop::collection::vec(any_request(), 200)) {
        let engine = Engine::load().unwrap();
        for request in requests.into_iter().filter(|r| r.role != Role::Service) {
            let whole = engine.decide(&Request { grant: Grant::WHOLE, ..request });
            prop_assert!(whole.permit || !engine.decide(&request).permit, "{request:?}");
        }
    }

    #[test]
    fn less_than_two_factors_reach_nothing(requests in prop::collection::vec(any_request(), 200)) {
        let engine = Engine::load().unwrap();
        for request in requests.into_iter().filter(|r| r.assurance < Assurance::TwoFactors) {
            let opens_the_way = matches!(
                request.action,
                Action::OwnAuthenticators | Action::OwnSession | Action::Capabilities | Action::Validate | Action::Transaction
            );
            prop_assert!(opens_the_way || !engine.decide(&request).permit, "{request:?}");
            let sure = engine.decide(&Request { assurance: Assurance::TwoFactors, ..request });
            prop_assert!(sure.permit || !engine.decide(&request).permit, "more assurance never takes away: {request:?}");
        }
    }

    #[test]
    fn obligations_come_with_permits_only(requests in prop::collection::vec(any_request(), 200)) {
        let engine = Engine::load().unwrap();
        for request in requests {
            let decision = engine.decide(&request);
            prop_assert!(decision.permit || decision.obligations.is_empty());
            prop_assert!(!decision.permit || !decision.policies.is_empty(), "a permit without a rule: {request:?}");
            let part_2 = request.labels.contains(Labels::PART_2) && request.action.group() == ActionGroup::View;
            // A job shows what it finds to nobody.
            let carries = matches!(request.role, Role::Physician | Role::Service) && request.grant != Grant::JOB;
            if decision.permit && part_2 && carries {
                prop_assert!(!decision.obligations.is_empty(), "Part 2 data without the notice: {request:?}");
            }
        }
    }
}

/// No role without patient data reaches any: over every action, type and relation to a patient.
#[test]
fn administrators_and_security_officers_reach_no_patient() {
    let engine = Engine::load().unwrap();
    for role in [Role::Administrator, Role::SecurityOfficer] {
        for action in Action::ALL.iter().filter(|a| a.group() != ActionGroup::System) {
            for t in ResourceType::all() {
                for relation in Relation::ALL.into_iter().filter(|r| *r != Relation::NoPatient) {
                    let request = Request {
                        purpose: PurposeOfUse::SystemAdministration,
                        ..Request::plain(role, *action, Target::Type(t), relation)
                    };
                    assert!(!engine.decide(&request).permit, "{request:?}");
                }
            }
        }
    }
}

/// Without a treatment relationship a clinician reaches nothing but the banner, whatever the type, label, purpose, place,
/// scope or assurance; and the banner is marked as such.
#[test]
fn without_a_relationship_a_clinician_reaches_the_banner_only() {
    let engine = Engine::load().unwrap();
    let mut banners = 0;
    for role in [Role::Physician, Role::Nurse] {
        for action in Action::ALL {
            let reaches = matches!(action.group(), ActionGroup::View | ActionGroup::Write);
            for t in ResourceType::all().filter(|_| reaches) {
                for relation in [Relation::Plausible, Relation::Unrelated] {
                    let decision = engine.decide(&Request::plain(role, *action, Target::Type(t), relation));
                    if *action == Action::Search && t.name() == "Patient" {
                        assert_eq!(decision.obligations, [keepwell_policy::Obligation::MinimalBanner]);
                        banners += 1;
                    } else {
                        assert!(!decision.permit, "{role:?} {action:?} {t} {relation:?}");
                    }
                }
                let related = engine.decide(&Request::plain(role, *action, Target::Type(t), Relation::Related));
                assert!(
                    !related
                        .obligations
                        .contains(&keepwell_policy::Obligation::MinimalBanner)
                );
            }
        }
    }
    assert_eq!(banners, 4);
}

/// An emergency lends no rights beyond those of the own role.
#[test]
fn an_emergency_reaches_no_more_than_a_relationship() {
    let engine = Engine::load().unwrap();
    for role in Role::ALL {
        for action in Action::ALL {
            if !matches!(action.group(), ActionGroup::View | ActionGroup::Write) {
                continue;
            }
            // One type of each class that treatment may need, and some that it may not.
            let types = "Patient Person Appointment Coverage Claim Consent Provenance AuditEvent Encounter Condition Observation                          DiagnosticReport MedicationRequest MedicationAdministration CarePlan Composition List Location";
            for t in types
                .split_whitespace()
                .map(|name| ResourceType::from_name(name).unwrap())
            {
                for labels in 0..8 {
                    let ask = |relation| {
                        engine.decide(&Request {
                            labels: Labels(labels),
                            ..Request::plain(role, *action, Target::Type(t), relation)
                        })
                    };
                    assert!(!ask(Relation::Emergency).permit || ask(Relation::Related).permit);
                }
            }
        }
    }
}

/// A decision is a small part of a read; the bar (50 microseconds at the 99th percentile) is for release builds, so
/// this prints and only fails on the absurd.
#[test]
fn a_decision_takes_microseconds() {
    let engine = Engine::load().unwrap();
    let mut times: Vec<u128> = (0..4000_u16)
        .map(|n| {
            let request = Request {
                labels: Labels(n % 8),
                ..Request::plain(
                    Role::ALL[usize::from(n) % 10],
                    Action::ALL[usize::from(n) % 12],
                    Target::Type(ResourceType::from_code(n % 146).unwrap()),
                    Relation::ALL[usize::from(n) % 6],
                )
            };
            let start = std::time::Instant::now();
            std::hint::black_box(engine.decide(&request));
            start.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    println!("policy decision: median {} ns, p99 {} ns", times[2000], times[3960]);
    assert!(times[2000] < 2_000_000);
}

//! Treatment relationships, emergency access and its review, through the door and by a clock of the test's (AZ-2, AZ-4,
//! AZ-5, AZ-8, AZ-9).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test program"
)]

mod world;

use keepwell_model::actor::{Context, PurposeOfUse, Role};
use keepwell_model::time::{Clock, Timestamp};
use keepwell_policy::Action;
use keepwell_record::{EverythingOptions, HistoryOf, HistoryOptions, Return};
use proptest::prelude::*;
use serde_json::{Value, json};
use world::{BASE, DAY, HOUR, NOW, World, instant, names_of, t};

/// Each way a relationship comes about: the resource that makes it, and the same one when it has ended for good.
fn ways(patient: &str, whom: &str) -> Vec<(&'static str, Value, Value)> {
    let subject = json!({"reference": format!("Patient/{patient}")});
    let who = json!({"reference": whom});
    let of = |name: &str, body: Value| {
        let mut body = body;
        body["id"] = json!(format!("{name}-{patient}"));
        body
    };
    let with = |body: &Value, key: &str, value: Value| {
        let mut body = body.clone();
        body[key] = value;
        body
    };
    let way = |name: &'static str, body: Value, key: &str, ended: Value| {
        let body = of(name, body);
        let ended = with(&body, key, ended);
        (name, body, ended)
    };
    vec![
        way(
            "encounter",
            json!({"resourceType": "Encounter", "status": "in-progress", "class": {"code": "IMP"}, "subject": subject,
                "participant": [{"individual": who}]}),
            "status",
            json!("entered-in-error"),
        ),
        way(
            "care-team",
            json!({"resourceType": "CareTeam", "status": "active", "subject": subject, "participant": [{"member": who}]}),
            "status",
            json!("entered-in-error"),
        ),
        way(
            "appointment",
            json!({"resourceType": "Appointment", "status": "booked", "start": instant(DAY), "end": instant(DAY + HOUR),
                "participant": [{"actor": subject, "status": "accepted"}, {"actor": who, "status": "accepted"}]}),
            "status",
            json!("cancelled"),
        ),
        way(
            "order",
            json!({"resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": subject,
                "requester": who}),
            "status",
            json!("entered-in-error"),
        ),
        way(
            "performs",
            json!({"resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": subject,
                "performer": [who]}),
            "status",
            json!("entered-in-error"),
        ),
        way(
            "prescription",
            json!({"resourceType": "MedicationRequest", "status": "active", "intent": "order", "subject": subject,
                "medicationCodeableConcept": {"text": "m"}, "requester": who}),
            "status",
            json!("entered-in-error"),
        ),
        way(
            "procedure",
            json!({"resourceType": "Procedure", "status": "completed", "subject": subject,
                "performedDateTime": instant(-DAY), "performer": [{"actor": who}]}),
            "status",
            json!("entered-in-error"),
        ),
        way(
            "report",
            json!({"resourceType": "DiagnosticReport", "status": "final", "code": {"text": "r"}, "subject": subject,
                "effectiveDateTime": instant(-DAY), "performer": [who]}),
            "status",
            json!("entered-in-error"),
        ),
        way(
            "task",
            json!({"resourceType": "Task", "status": "accepted", "intent": "order", "for": subject, "owner": who}),
            "status",
            json!("entered-in-error"),
        ),
        way(
            "composition",
            json!({"resourceType": "Composition", "status": "final", "type": {"text": "n"}, "subject": subject,
                "date": instant(-DAY), "author": [who], "title": "note"}),
            "status",
            json!("entered-in-error"),
        ),
        way(
            "document",
            json!({"resourceType": "DocumentReference", "status": "current", "subject": subject, "date": instant(-DAY),
                "author": [who], "content": [{"attachment": {"contentType": "text/plain", "data": "aGk="}}]}),
            "status",
            json!("entered-in-error"),
        ),
    ]
}

#[tokio::test]
async fn each_way_opens_the_record_on_the_next_request_and_its_end_closes_it() {
    let world = World::new();
    world.put(&json!({"resourceType": "Practitioner", "id": "d1"})).await;
    world
        .put(&json!({"resourceType": "PractitionerRole", "id": "d1-role", "practitioner": {"reference": "Practitioner/d1"}}))
        .await;
    let mut tried = 0;
    for (at, whom) in ["Practitioner/d1", "PractitionerRole/d1-role"].into_iter().enumerate() {
        for (name, open, ended) in ways("p", whom) {
            // Each way with a patient of its own, so that no other way opens the record.
            let id = format!("{name}{at}");
            let rename = |v: &Value| -> Value {
                serde_json::from_str(&v.to_string().replace("Patient/p\"", &format!("Patient/{id}\""))).unwrap()
            };
            let (mut open, mut ended) = (rename(&open), rename(&ended));
            open["id"] = json!(id);
            ended["id"] = json!(id);
            let kind = open["resourceType"].as_str().unwrap().to_owned();
            if whom.starts_with("PractitionerRole") && kind == "Encounter" {
                // R4 lets a role take part as well.
                assert!(open.to_string().contains("PractitionerRole"));
            }
            world.patient(&id).await;
            let observation = format!("o-{id}");
            assert_eq!(
                world.read(&world.doctor(), "Observation", &observation).await,
                404,
                "{id}"
            );
            assert_eq!(world.read(&world.doctor(), "Patient", &id).await, 403, "{id}: offered");
            world.put(&open).await;
            assert_eq!(
                world.read(&world.doctor(), "Observation", &observation).await,
                200,
                "{id}: {open}"
            );
            assert_eq!(
                world.read(&world.nurse(), "Observation", &observation).await,
                404,
                "{id}: another"
            );
            world.put(&ended).await;
            assert_eq!(
                world.read(&world.doctor(), "Observation", &observation).await,
                404,
                "{id}: ended"
            );
            world.put(&open).await;
            assert_eq!(world.read(&world.doctor(), "Patient", &id).await, 200, "{id}: again");
            world.delete(&kind, &id).await;
            assert_eq!(
                world.read(&world.doctor(), "Observation", &observation).await,
                404,
                "{id}: deleted"
            );
            tried += 1;
        }
    }
    // And the general practitioner, which stands in the patient.
    let gp = |whom: Option<&str>| {
        let mut p = json!({"resourceType": "Patient", "id": "gp"});
        if let Some(whom) = whom {
            p["generalPractitioner"] = json!([{"reference": whom}]);
        }
        p
    };
    world.put(&gp(None)).await;
    assert_eq!(world.read(&world.doctor(), "Patient", "gp").await, 403);
    world.put(&gp(Some("Practitioner/d1"))).await;
    assert_eq!(world.read(&world.doctor(), "Patient", "gp").await, 200);
    world.put(&gp(None)).await;
    assert_eq!(world.read(&world.doctor(), "Patient", "gp").await, 403);
    println!("{tried} ways, begun, ended, begun again and deleted");
}

#[tokio::test]
async fn windows_move_with_the_time() {
    let world = World::new();
    world.patient("p").await;
    let (_, encounter, _) = ways("p", "Practitioner/d1").swap_remove(0);
    let mut encounter = encounter;
    encounter["status"] = json!("finished");
    encounter["period"] = json!({"start": instant(-2 * DAY), "end": instant(-DAY)});
    world.put(&encounter).await;
    assert_eq!(world.read(&world.doctor(), "Patient", "p").await, 200);
    world.pass(28 * DAY);
    assert_eq!(
        world.read(&world.doctor(), "Patient", "p").await,
        200,
        "29 days after the end"
    );
    world.pass(2 * DAY);
    assert_eq!(
        world.read(&world.doctor(), "Patient", "p").await,
        403,
        "31 days after the end"
    );
    // A former patient: a stated reason opens the record, for a day.
    assert!(world.door.offers(&world.doctor(), "p").unwrap().stated);
    assert_eq!(
        world
            .door
            .state_reason(&world.doctor(), "p", "because")
            .await
            .unwrap_err()
            .status,
        400
    );
    world
        .door
        .state_reason(&world.doctor(), "p", "follow-up")
        .await
        .unwrap();
    assert_eq!(world.read(&world.doctor(), "Patient", "p").await, 200);
    assert_eq!(
        world.log("p", 2).await[0],
        (Action::Read, PurposeOfUse::Treatment, "stated reason".to_owned())
    );
    world.pass(DAY);
    assert_eq!(
        world.read(&world.doctor(), "Patient", "p").await,
        403,
        "the day is over"
    );
    // For a stranger no reason is enough.
    assert!(!world.door.offers(&world.nurse(), "p").unwrap().stated);
    assert_eq!(
        world
            .door
            .state_reason(&world.nurse(), "p", "follow-up")
            .await
            .unwrap_err()
            .status,
        403
    );
}

#[tokio::test]
async fn a_stranger_is_shown_who_the_patient_is_and_nothing_else_is_answered() {
    let world = World::new();
    world.patient("p").await;
    let doctor = world.doctor();
    let found = world
        .search(&doctor, "Patient", &[("family", "familyp")])
        .await
        .unwrap();
    let shown = &found["entry"][0]["resource"];
    let mut members: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["birthDate", "gender", "id", "meta", "name", "resourceType"]);
    assert_eq!(
        shown["meta"],
        json!({"tag": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}]})
    );
    for allowed in [
        ("name", "given"),
        ("birthdate", "1980-02-29"),
        ("gender", "female"),
        ("identifier", "mrn-p"),
        ("_id", "p"),
        ("_sort", "family"),
        ("_summary", "true"),
        ("_elements", "address,name"),
    ] {
        let bundle = world.search(&doctor, "Patient", &[allowed]).await.unwrap();
        assert_eq!(names_of(&bundle), ["Patient/p"], "{allowed:?}");
        assert!(
            !bundle.to_string().contains("Hidden") && !bundle.to_string().contains("555-0100"),
            "{allowed:?}"
        );
    }
    for other in [
        ("address-city", "hidden"),
        ("phone", "555-0100"),
        ("active", "true"),
        ("address:missing", "true"),
        ("_lastUpdated", "gt2000"),
        ("_has:Observation:patient:code", "1-1"),
        ("_sort", "-_lastUpdated"),
        ("_sort", "address-city"),
        ("_revinclude", "Observation:patient"),
        ("name:missing", "false"),
        ("_profile", "http://x"),
        ("general-practitioner.name", "a"),
        ("gender:not", "male"),
        // Whether somebody has a number of some kind, from somebody or of some type, is no whole number.
        ("identifier", "http://x/mrn|"),
        ("identifier:text", "programme"),
        ("identifier", "mrn-p,http://x/mrn|"),
    ] {
        let bundle = world.search(&doctor, "Patient", &[other]).await.unwrap();
        assert_eq!(names_of(&bundle), Vec::<String>::new(), "{other:?}");
        // A number has no includes: counting tells no more than the banners do.
        let expected = u64::from(other.0 == "_revinclude");
        let mut counted = vec![other];
        counted.push(("_summary", "count"));
        assert_eq!(
            world.search(&doctor, "Patient", &counted).await.unwrap()["total"],
            expected,
            "{other:?}"
        );
    }
    for (kind, params) in [
        ("Observation", &[("patient", "p")][..]),
        ("Observation", &[("subject:Patient.family", "familyp")]),
        ("Observation", &[("_include", "Observation:subject")]),
    ] {
        assert_eq!(world.found(&doctor, kind, params).await, Vec::<String>::new());
    }
    // A banner is a disclosure: the patient sees it.
    assert_eq!(
        world
            .log("p", 30)
            .await
            .iter()
            .filter(|(a, ..)| *a == Action::Search)
            .count(),
        9
    );
    // A front desk needs no relationship and sees the whole of what is theirs.
    let desk = world.context("desk", Role::FrontDesk, None);
    assert!(
        world
            .search(&desk, "Patient", &[("phone", "555-0100")])
            .await
            .unwrap()
            .to_string()
            .contains("Hidden")
    );
}

#[tokio::test]
async fn the_glass_is_broken_for_one_patient_and_four_hours_with_a_reason_and_a_fresh_proof() {
    let world = World::new();
    world.patient("p").await;
    world.patient("q").await;
    let text = "found without consciousness";
    let status = async |ctx: &Context, code: &str, text: &str| {
        world
            .door
            .break_glass(ctx, "p", code, text)
            .await
            .map(|_| 200)
            .unwrap_or_else(|e| e.status)
    };
    for (code, text) in [("", text), ("curious", text), ("emergency", ""), ("emergency", " x ")] {
        assert_eq!(status(&world.doctor(), code, text).await, 400, "{code} {text}");
    }
    for role in [
        Role::FrontDesk,
        Role::Billing,
        Role::PrivacyOfficer,
        Role::Administrator,
        Role::Service,
        Role::Patient,
    ] {
        assert_eq!(
            status(&world.context("x", role, None), "emergency", text).await,
            403,
            "{role:?}"
        );
    }
    // The proof of who it is is older than five minutes.
    let stale = world.doctor();
    world.pass(5 * 60_000 + 1);
    let late = Context {
        at: world.clock.now(),
        ..stale
    };
    assert_eq!(status(&late, "emergency", text).await, 403);
    assert_eq!(world.read(&world.doctor(), "Patient", "p").await, 403);

    let began = world.clock.now().0;
    let granted = world
        .door
        .break_glass(&world.doctor(), "p", "emergency", text)
        .await
        .unwrap();
    assert_eq!(granted.until.0, began + 4 * HOUR);
    assert_eq!(
        world.log("p", 1).await[0],
        (Action::BreakGlass, PurposeOfUse::BreakTheGlass, "emergency".to_owned())
    );
    assert_eq!(world.read(&world.doctor(), "Observation", "o-p").await, 200);
    assert_eq!(
        world.log("p", 2).await[0],
        (Action::Read, PurposeOfUse::BreakTheGlass, "emergency access".to_owned())
    );
    assert_eq!(
        world.found(&world.doctor(), "Observation", &[("code", "1-1")]).await,
        ["Observation/o-p"]
    );
    assert_eq!(world.log("p", 2).await[0].1, PurposeOfUse::BreakTheGlass, "a search");
    assert_eq!(
        world.read(&world.doctor(), "Observation", "o-q").await,
        404,
        "one patient"
    );
    assert_eq!(
        world.read(&world.nurse(), "Observation", "o-p").await,
        404,
        "one person"
    );
    assert_eq!(world.door.emergencies(&world.doctor()).len(), 1);
    // What is written under it says so as well.
    let note = json!({"resourceType": "Observation", "status": "final", "code": {"text": "x"},
        "subject": {"reference": "Patient/p"}});
    world
        .door
        .create(
            &world.doctor(),
            t("Observation"),
            note.to_string().as_bytes(),
            None,
            Return::Minimal,
        )
        .await
        .unwrap();
    assert_eq!(world.log("p", 1).await[0].0, Action::Create);
    assert_eq!(world.log("p", 2).await[1].1, PurposeOfUse::BreakTheGlass);

    world.pass(4 * HOUR - 1);
    assert_eq!(world.read(&world.doctor(), "Patient", "p").await, 200);
    world.pass(1);
    assert_eq!(world.read(&world.doctor(), "Patient", "p").await, 403, "over");
    assert!(world.door.emergencies(&world.doctor()).is_empty());
    // The end is in the log, once.
    assert_eq!(world.door.end_expired(&world.bulk()).await.unwrap(), 1);
    assert_eq!(world.door.end_expired(&world.bulk()).await.unwrap(), 0);
    assert_eq!(world.log("p", 1).await[0].0, Action::EndAccess);

    // Ended by hand: closed on the next request.
    world
        .door
        .break_glass(&world.doctor(), "p", "safety", text)
        .await
        .unwrap();
    world.door.end_access(&world.doctor(), "p").await.unwrap();
    assert_eq!(world.log("p", 1).await[0].0, Action::EndAccess);
    assert_eq!(world.read(&world.doctor(), "Patient", "p").await, 403);
    assert_eq!(
        world.door.end_access(&world.doctor(), "p").await.unwrap_err().status,
        404
    );
    // Not needed where a relationship is on record; no such patient.
    let (_, encounter, _) = ways("p", "Practitioner/d1").swap_remove(0);
    world.put(&encounter).await;
    assert_eq!(status(&world.doctor(), "emergency", text).await, 403);
    assert_eq!(
        world
            .door
            .break_glass(&world.doctor(), "nobody", "emergency", text)
            .await
            .unwrap_err()
            .status,
        404
    );
}

#[tokio::test]
async fn an_emergency_access_is_reviewed_by_somebody_else_and_escalates() {
    let world = World::new();
    world.patient("p").await;
    let officer = |w: &World| w.context("privacy", Role::PrivacyOfficer, None);
    let security = |w: &World| w.context("security", Role::SecurityOfficer, None);
    // The doctor's account is also that of a privacy officer, on another day.
    let doctor_as_officer = |w: &World| w.context("doctor", Role::PrivacyOfficer, None);
    world
        .door
        .break_glass(&world.doctor(), "p", "urgent", "the ward is closed")
        .await
        .unwrap();
    let open = world.door.reviews(&officer(&world)).await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].patient.as_deref(), Some("p"));
    assert_eq!((open[0].due.0, open[0].overdue), (NOW + 3 * DAY, false));
    assert_eq!(
        world.log("p", 2).await[0].0,
        Action::ReviewRead,
        "the patient sees that it was looked at"
    );
    assert!(
        world.door.reviews(&security(&world)).await.unwrap().is_empty(),
        "not yet"
    );
    for role in [Role::Physician, Role::Administrator, Role::FrontDesk] {
        assert_eq!(
            world
                .door
                .reviews(&world.context("x", role, None))
                .await
                .unwrap_err()
                .status,
            403
        );
    }
    let id = open[0].id.clone();
    let decide = async |ctx: Context, note: &str| {
        world
            .door
            .review(&ctx, &id, true, note)
            .await
            .map(|()| 200)
            .unwrap_or_else(|e| e.status)
    };
    assert_eq!(
        decide(doctor_as_officer(&world), "I was right").await,
        403,
        "nobody reviews their own access"
    );
    assert_eq!(decide(security(&world), "looks right").await, 403);
    assert_eq!(decide(officer(&world), "").await, 400);

    world.pass(3 * DAY);
    let waiting = |w: &World| w.door.reviews_waiting(w.clock.now()).unwrap();
    assert_eq!(
        (waiting(&world).open, waiting(&world).overdue, waiting(&world).ignored),
        (1, 1, 0)
    );
    let told = world.door.reviews(&security(&world)).await.unwrap();
    assert_eq!((told.len(), told[0].overdue), (1, true));
    assert_eq!(
        (told[0].patient.as_deref(), told[0].text.as_str()),
        (None, ""),
        "without the patient"
    );
    world.pass(3 * DAY);
    assert_eq!(waiting(&world).ignored, 1);

    assert_eq!(decide(officer(&world), "the doctor on call, and right").await, 200);
    assert_eq!(world.log("p", 1).await[0].0, Action::Review);
    assert_eq!(decide(officer(&world), "once more, please").await, 404);
    assert!(world.door.reviews(&officer(&world)).await.unwrap().is_empty());
    assert_eq!(waiting(&world).open, 0);
}

/// A verdict is about all that was looked at: one that is given while the access runs ends it or waits for its end.
#[tokio::test]
async fn an_access_found_not_justified_ends_at_once_and_none_is_justified_before_its_end() {
    let world = World::new();
    world.patient("p").await;
    let doctor = world.doctor();
    let officer = world.context("privacy", Role::PrivacyOfficer, None);
    world
        .door
        .break_glass(&doctor, "p", "urgent", "the ward is closed")
        .await
        .unwrap();
    assert_eq!(world.read(&doctor, "Patient", "p").await, 200);
    let id = world.door.reviews(&officer).await.unwrap()[0].id.clone();
    let early = world.door.review(&officer, &id, true, "an emergency indeed").await;
    assert_eq!(early.unwrap_err().status, 409);
    assert_eq!(world.read(&doctor, "Patient", "p").await, 200, "care goes on");
    world
        .door
        .review(&officer, &id, false, "nobody knows of one")
        .await
        .unwrap();
    assert_eq!(world.read(&doctor, "Patient", "p").await, 403);
    assert!(world.door.emergencies(&doctor).is_empty());
    assert!(world.door.reviews(&officer).await.unwrap().is_empty());
    let log = world.log("p", 8).await;
    let ended = log.iter().find(|(action, ..)| *action == Action::EndAccess);
    assert_eq!(
        ended,
        Some(&(
            Action::EndAccess,
            PurposeOfUse::BreakTheGlass,
            "ended by its review".to_owned()
        ))
    );
}

#[tokio::test]
async fn a_shift_and_a_cover_open_records_while_they_last() {
    let world = World::new();
    for id in ["in-bed", "elsewhere", "gone"] {
        world.patient(id).await;
    }
    world
        .put(&json!({"resourceType": "Location", "id": "ward", "status": "active"}))
        .await;
    world
        .put(&json!({"resourceType": "Location", "id": "bed", "status": "active", "partOf": {"reference": "Location/ward"}}))
        .await;
    world
        .put(&json!({"resourceType": "Location", "id": "other", "status": "active"}))
        .await;
    world
        .put(
            &json!({"resourceType": "PractitionerRole", "id": "r", "practitioner": {"reference": "Practitioner/n1"},
            "location": [{"reference": "Location/ward"}]}),
        )
        .await;
    let stay = |id: &str, place: &str, status: &str| {
        json!({"resourceType": "Encounter", "id": format!("e-{id}"), "status": status, "class": {"code": "IMP"},
            "subject": {"reference": format!("Patient/{id}")}, "period": {"start": instant(-DAY)},
            "location": [{"location": {"reference": format!("Location/{place}")}}]})
    };
    world.put(&stay("in-bed", "bed", "in-progress")).await;
    world.put(&stay("elsewhere", "other", "in-progress")).await;
    // In the own unit: plausible, so that a reason is enough. Elsewhere: not.
    assert_eq!(world.read(&world.nurse(), "Patient", "in-bed").await, 403);
    assert!(world.door.offers(&world.nurse(), "in-bed").unwrap().stated);
    assert!(!world.door.offers(&world.nurse(), "elsewhere").unwrap().stated);

    let until = Timestamp(NOW + 8 * HOUR);
    let on = async |units: &[&str], until: Timestamp| {
        let units: Vec<String> = units.iter().map(|u| (*u).to_owned()).collect();
        world
            .door
            .sign_on(&world.nurse(), &units, until)
            .await
            .map(|()| 200)
            .unwrap_or_else(|e| e.status)
    };
    assert_eq!(on(&["Location/other"], until).await, 403, "not one of the own units");
    assert_eq!(
        on(&["Location/ward"], Timestamp(NOW + 17 * HOUR)).await,
        400,
        "no shift lasts that long"
    );
    assert_eq!(on(&["Location/ward"], until).await, 200);
    assert_eq!(world.read(&world.nurse(), "Observation", "o-in-bed").await, 200);
    assert_eq!(world.read(&world.nurse(), "Observation", "o-elsewhere").await, 404);
    assert_eq!(world.log("in-bed", 2).await[0].2, "signed on to the unit");
    world.put(&stay("gone", "bed", "in-progress")).await;
    assert_eq!(
        world.read(&world.nurse(), "Observation", "o-gone").await,
        200,
        "came in after sign-on"
    );
    world.put(&stay("gone", "bed", "finished")).await;
    assert_eq!(
        world.read(&world.nurse(), "Observation", "o-gone").await,
        404,
        "discharged"
    );

    // The nurse lets a colleague cover, for some hours of the shift.
    let colleague = |w: &World| w.context("colleague", Role::Nurse, Some("n2"));
    world
        .put(&json!({"resourceType": "CareTeam", "id": "team", "status": "active", "subject": {"reference": "Patient/elsewhere"},
            "participant": [{"member": {"reference": "Practitioner/n1"}}]}))
        .await;
    assert_eq!(world.read(&colleague(&world), "Observation", "o-elsewhere").await, 404);
    let cover = async |from: i64, until: i64| {
        let (from, until) = (Timestamp(NOW + from), Timestamp(NOW + until));
        world
            .door
            .let_cover(&world.nurse(), "colleague", from, until)
            .await
            .map(|()| 200)
            .unwrap_or_else(|e| e.status)
    };
    assert_eq!(cover(0, 32 * DAY).await, 400);
    assert_eq!(cover(HOUR, 2 * HOUR).await, 200);
    assert_eq!(
        world.read(&colleague(&world), "Observation", "o-elsewhere").await,
        404,
        "not begun"
    );
    world.pass(HOUR);
    assert_eq!(world.read(&colleague(&world), "Observation", "o-elsewhere").await, 200);
    assert_eq!(world.log("elsewhere", 2).await[0].2, "covers for a colleague");
    world.pass(HOUR);
    assert_eq!(
        world.read(&colleague(&world), "Observation", "o-elsewhere").await,
        404,
        "over"
    );
    // Given to the wrong colleague, or no longer needed: it is taken back, and opens nothing from the next request on.
    assert_eq!(cover(0, 0).await, 404, "none runs");
    assert_eq!(cover(2 * HOUR, 30 * DAY).await, 200);
    assert_eq!(world.read(&colleague(&world), "Observation", "o-elsewhere").await, 200);
    assert_eq!(cover(0, 0).await, 200);
    assert_eq!(world.read(&colleague(&world), "Observation", "o-elsewhere").await, 404);

    world.pass(6 * HOUR);
    assert_eq!(
        world.read(&world.nurse(), "Observation", "o-in-bed").await,
        404,
        "the shift is over"
    );
    assert_eq!(on(&["Location/ward"], Timestamp(NOW + 12 * HOUR)).await, 200);
    assert_eq!(world.read(&world.nurse(), "Observation", "o-in-bed").await, 200);
    assert_eq!(on(&[], Timestamp(NOW + 12 * HOUR)).await, 200);
    assert_eq!(
        world.read(&world.nurse(), "Observation", "o-in-bed").await,
        404,
        "signed off"
    );
}

#[tokio::test]
async fn a_relationship_that_ends_while_paging_ends_the_pages() {
    let world = World::new();
    world.patient("p").await;
    for n in 0..6 {
        world
            .put(
                &json!({"resourceType": "Observation", "id": format!("x{n}"), "status": "final", "code": {"text": "x"},
                "subject": {"reference": "Patient/p"}}),
            )
            .await;
    }
    let (_, encounter, ended) = ways("p", "Practitioner/d1").swap_remove(0);
    world.put(&encounter).await;
    let first = world
        .search(&world.doctor(), "Observation", &[("patient", "p"), ("_count", "2")])
        .await
        .unwrap();
    assert_eq!(names_of(&first).len(), 2);
    let next = first["link"]
        .as_array()
        .unwrap()
        .iter()
        .find(|l| l["relation"] == "next")
        .unwrap();
    let token = next["url"]
        .as_str()
        .unwrap()
        .split_once("_cursor=")
        .unwrap()
        .1
        .to_owned();
    let go_on = vec![("_cursor".to_owned(), token)];
    assert_eq!(
        names_of(&world.query(&world.doctor(), "Observation", &go_on).await.unwrap()).len(),
        2
    );
    world.put(&ended).await;
    let last = world.query(&world.doctor(), "Observation", &go_on).await.unwrap();
    assert_eq!(names_of(&last), Vec::<String>::new());
}

/// One relation of one of two clinicians to one of the patients.
#[derive(Clone, Debug)]
struct Drawn {
    clinician: usize,
    patient: usize,
    way: usize,
    ended: bool,
}

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    let one = (0..2_usize, 0..4_usize, 0..11_usize, any::<bool>()).prop_map(|(clinician, patient, way, ended)| Drawn {
        clinician,
        patient,
        way,
        ended,
    });
    prop::collection::vec(one, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever stands between clinicians and patients: no search, chain, include, sort, count, history or batch shows what
    /// a direct read refuses, but for the banner of the patient.
    #[test]
    fn nothing_shows_what_a_direct_read_refuses(relations in drawn(), glass in prop::option::of((0..2_usize, 0..4_usize))) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(nothing_slips_through(&relations, glass)).map_err(TestCaseError::fail)?;
    }
}

#[allow(clippy::disallowed_methods, reason = "the size of a test")]
fn cases() -> u32 {
    std::env::var("KEEPWELL_RELATIONS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(6)
}

async fn nothing_slips_through(relations: &[Drawn], glass: Option<(usize, usize)>) -> Result<(), String> {
    let world = World::new();
    let patients = ["pa", "pb", "pc", "pd"];
    for id in patients {
        world.patient(id).await;
    }
    // Something that speaks of two patients.
    world
        .put(
            &json!({"resourceType": "Observation", "id": "both", "status": "final", "code": {"text": "twins"},
            "subject": {"reference": "Patient/pa"}, "focus": [{"reference": "Patient/pb"}]}),
        )
        .await;
    for (n, d) in relations.iter().enumerate() {
        let whom = ["Practitioner/d1", "Practitioner/n1"][d.clinician];
        let (_, open, ended) = ways(patients[d.patient], whom).swap_remove(d.way);
        let mut body = if d.ended { ended } else { open };
        body["id"] = json!(format!("rel{n}"));
        world.put(&body).await;
    }
    let clinicians = [world.doctor(), world.nurse()];
    if let Some((who, patient)) = glass {
        let _ = world
            .door
            .break_glass(&clinicians[who], patients[patient], "emergency", "in an emergency")
            .await;
    }
    let everything = [
        "Patient",
        "Observation",
        "Encounter",
        "CareTeam",
        "Appointment",
        "ServiceRequest",
        "MedicationRequest",
        "Procedure",
        "DiagnosticReport",
        "Task",
        "Composition",
        "DocumentReference",
    ];
    let mut all: Vec<String> = Vec::new();
    for kind in everything {
        all.extend(world.found(&world.bulk(), kind, &[("_count", "1000")]).await);
    }
    for ctx in &clinicians {
        let mut readable: Vec<String> = Vec::new();
        for name in &all {
            let (kind, id) = name.split_once('/').unwrap();
            if world.read(ctx, kind, id).await == 200 {
                readable.push(name.clone());
            }
        }
        let check = |what: &str, bundle: &Value| -> Result<(), String> {
            for entry in bundle["entry"].as_array().into_iter().flatten() {
                let r = &entry["resource"];
                let name = format!(
                    "{}/{}",
                    r["resourceType"].as_str().unwrap_or(""),
                    r["id"].as_str().unwrap_or("")
                );
                let banner =
                    r["meta"]["tag"][0]["code"] == "SUBSETTED" && r["address"].is_null() && r["telecom"].is_null();
                if all.contains(&name) && !readable.contains(&name) && !(banner && name.starts_with("Patient/")) {
                    return Err(format!("{}: {what} shows {name}", ctx.actor.id));
                }
            }
            Ok(())
        };
        for kind in everything {
            let mine = readable.iter().filter(|n| n.starts_with(&format!("{kind}/"))).count();
            for params in [
                &[("_count", "1000")][..],
                &[("_sort", "-_lastUpdated"), ("_count", "1000")],
                &[("_include", "*"), ("_count", "1000")],
                &[("_revinclude", "*"), ("_count", "1000")],
            ] {
                if let Ok(bundle) = world.search(ctx, kind, params).await {
                    check(&format!("{kind} {params:?}"), &bundle)?;
                }
            }
            // Counting counts what may be read; for patients the banners too, but not by what no banner tells.
            let params: &[(&str, &str)] = match kind {
                "Patient" => &[("_summary", "count"), ("_lastUpdated", "gt2000")],
                _ => &[("_summary", "count")],
            };
            if let Ok(bundle) = world.search(ctx, kind, params).await {
                let total = bundle["total"].as_u64();
                if total != Some(mine as u64) {
                    return Err(format!("{}: {kind} counts {total:?}, not {mine}", ctx.actor.id));
                }
            }
            let history = HistoryOptions {
                count: Some(1000),
                ..HistoryOptions::default()
            };
            if let Ok(answer) = world.door.history(ctx, HistoryOf::Type(t(kind)), &history, BASE).await {
                check(
                    &format!("history of {kind}"),
                    &serde_json::from_slice(&answer.body).unwrap(),
                )?;
            }
        }
        for id in patients {
            for (kind, params) in [
                ("Observation", vec![("patient", id)]),
                ("Observation", vec![("subject:Patient.identifier", "mrn-pa")]),
                ("Observation", vec![("subject:Patient.address-city", "hidden")]),
                ("Patient", vec![("_has:Observation:patient:code", "1-1")]),
                ("Patient", vec![("address-city", "hidden")]),
            ] {
                let bundle = world.search(ctx, kind, &params).await.map_err(|e| format!("{e:?}"))?;
                check(&format!("{kind} {params:?}"), &bundle)?;
                let hidden = names_of(&bundle).into_iter().find(|n| !readable.contains(n));
                if let Some(name) = hidden {
                    return Err(format!("{}: {params:?} finds {name}", ctx.actor.id));
                }
            }
            let mine = readable.contains(&format!("Patient/{id}"));
            let options = EverythingOptions::default();
            match world.door.everything(ctx, id, &options, BASE).await {
                Ok(answer) if mine => check("everything", &serde_json::from_slice(&answer.body).unwrap())?,
                Ok(_) => return Err(format!("{}: everything of {id}", ctx.actor.id)),
                Err(e) if !mine && e.status == 404 => {}
                Err(e) => return Err(format!("{}: everything of {id}: {}", ctx.actor.id, e.status)),
            }
            for (kind, instance) in [("Patient", id.to_owned()), ("Observation", format!("o-{id}"))] {
                let of = HistoryOf::Instance(t(kind), &instance);
                let seen = world
                    .door
                    .history(ctx, of, &HistoryOptions::default(), BASE)
                    .await
                    .is_ok();
                if seen != mine {
                    return Err(format!("{}: history of {kind}/{instance}", ctx.actor.id));
                }
            }
            let batch = json!({"resourceType": "Bundle", "type": "batch", "entry": [
                {"request": {"method": "GET", "url": format!("Patient/{id}")}},
                {"request": {"method": "GET", "url": format!("Observation/o-{id}")}},
                {"request": {"method": "GET", "url": format!("Observation?patient={id}")}},
            ]});
            let answer = world
                .door
                .bundle(ctx, batch.to_string().as_bytes(), Return::Representation, BASE)
                .await;
            let answer: Value = serde_json::from_slice(&answer.map_err(|e| format!("{e:?}"))?.body).unwrap();
            check("a batch", &answer)?;
            check("a batch's search", &answer["entry"][2]["resource"])?;
        }
    }
    Ok(())
}

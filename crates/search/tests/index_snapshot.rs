//! The snapshot: canonical, whole or refused, and safe to read whatever it holds.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::too_many_arguments,
    reason = "a test program"
)]

use keepwell_model::types::ResourceType;
use keepwell_search::index::{Index, Limits, LoadError, NewRow, RowKind, Scope};
use keepwell_search::query::{Clause, Query, StringTest, Summary, Test, Total};
use keepwell_search::term::{Extracted, ParamNo, Term};

fn ty(name: &str) -> ResourceType {
    ResourceType::from_name(name).unwrap()
}

fn put(index: &mut Index, rid: u64, t: &str, id: &str, version: u32, home: u32, terms: Vec<(ParamNo, Term<'_>)>) {
    let extracted = Extracted { terms };
    index.apply(&NewRow {
        rid,
        resource_type: ty(t),
        id,
        version,
        last_updated: 1_700_000_000_000 + rid as i64,
        kind: RowKind::Version,
        home,
        labels: 0,
        extracted: Some(&extracted),
    });
}

fn name(text: &str) -> (ParamNo, Term<'_>) {
    (ParamNo(1), Term::Str(text.into()))
}

fn subject(id: &str) -> (ParamNo, Term<'_>) {
    (
        ParamNo(2),
        Term::Reference {
            target: ty("Patient"),
            id: id.into(),
        },
    )
}

/// A small index with every sort of value.
fn sample(seed: u8) -> Index {
    let mut index = Index::new([seed; 16]);
    put(&mut index, 3, "Patient", "p1", 1, 1, vec![name("Ann"), name("Müller")]);
    put(
        &mut index,
        4,
        "Patient",
        "0a1b2c3d-4e5f-6789-abcd-ef0123456789",
        1,
        2,
        vec![name("Bob")],
    );
    put(&mut index, 9, "Patient", "p1", 2, 1, vec![name("Anna")]);
    for i in 0..40_u64 {
        let code = format!("c{}", i % 5);
        let value = Term::Quantity {
            lo: i as f64,
            hi: i as f64,
            system: Some("http://unitsofmeasure.org".into()),
            code: Some("mg".into()),
            unit: None,
        };
        let day = 1_600_000_000_000 + i as i64 * 86_400_000;
        let terms = vec![
            (
                ParamNo(0),
                Term::Token {
                    system: Some("http://loinc.org".into()),
                    code: code.clone().into(),
                },
            ),
            (ParamNo(0), Term::Text("Some text".into())),
            subject(if i % 2 == 0 {
                "p1"
            } else {
                "0a1b2c3d-4e5f-6789-abcd-ef0123456789"
            }),
            (
                ParamNo(3),
                Term::Date {
                    lo: day,
                    hi: day + 1000,
                },
            ),
            (
                ParamNo(3),
                Term::Date {
                    lo: i64::MIN,
                    hi: i64::MAX,
                },
            ),
            (ParamNo(4), value.clone()),
            (ParamNo(5), Term::Uri("http://acme.org/x".into())),
            (
                ParamNo(6),
                Term::Tuple(vec![
                    vec![Term::Token {
                        system: None,
                        code: code.into(),
                    }],
                    vec![value],
                ]),
            ),
        ];
        put(
            &mut index,
            100 + i,
            "Observation",
            &format!("an-id-of-more-than-15-bytes-{i}"),
            1,
            1 + (i % 2) as u32,
            terms,
        );
    }
    index
}

fn dump(index: &Index) -> Vec<u8> {
    let mut out = vec![];
    index.dump(&mut out).unwrap();
    out
}

fn found(index: &Index, t: &str, clause: Clause) -> Vec<u64> {
    let query = Query {
        resource_type: ty(t),
        clauses: vec![clause],
        sort: vec![],
        count: None,
        total: Total::Accurate,
        includes: vec![],
        summary: Summary::False,
        elements: vec![],
        processed: vec![],
        ignored: vec![],
    };
    let page = index.search(
        &query,
        u64::MAX,
        &|_| true,
        None,
        Limits {
            page: 1000,
            includes: 0,
        },
    );
    page.matches.iter().map(|v| v.rid).collect()
}

fn named(prefix: &str) -> Clause {
    Clause::Match {
        param: ParamNo(1),
        test: Test::String(StringTest::Prefix(prefix.into())),
    }
}

#[test]
fn equal_content_gives_equal_bytes_whatever_came_before() {
    let plain = sample(1);
    let copy = Index::load([5; 16], &mut dump(&plain).as_slice()).unwrap();
    assert_eq!(dump(&copy), dump(&plain));
    // Rows that came and went.
    let mut fresh = sample(3);
    put(&mut fresh, 500, "Patient", "late", 1, 78, vec![name("Late")]);
    fresh.forget_home(78);
    let mut expected = sample(4);
    expected.skip(500);
    assert_eq!(dump(&fresh), dump(&expected));
    assert_eq!(fresh.canonical_digest(), expected.canonical_digest());
    assert_ne!(fresh.canonical_digest(), plain.canonical_digest());
    let empty = Index::new([0; 16]);
    let mut skipped = Index::new([1; 16]);
    put(&mut skipped, 2, "Patient", "x", 1, 77, vec![name("X")]);
    skipped.forget_home(77);
    let mut at_two = Index::new([1; 16]);
    at_two.skip(2);
    assert_eq!(dump(&skipped), dump(&at_two));
    assert_ne!(dump(&empty), dump(&at_two));
}

#[test]
fn a_forgotten_home_leaves_nothing_in_the_bytes() {
    let mut index = sample(1);
    assert!(dump(&index).windows(3).any(|w| w == b"Bob"));
    index.forget_home(2);
    assert!(!dump(&index).windows(3).any(|w| w == b"Bob"));
    assert_eq!(found(&index, "Patient", named("bob")), [0; 0]);
    assert_eq!(index.count(ty("Observation")), 20);
    index.compact();
    assert_eq!(index.count(ty("Observation")), 20);
    // The id is free again.
    let id = "0a1b2c3d-4e5f-6789-abcd-ef0123456789";
    assert_eq!(index.head(ty("Patient"), id, u64::MAX), None);
    put(&mut index, 900, "Patient", id, 1, 9, vec![name("Bobby")]);
    assert_eq!(found(&index, "Patient", named("bob")), [900]);
}

#[test]
fn superseded_values_are_not_in_the_bytes_and_history_is() {
    let index = sample(1);
    let bytes = dump(&index);
    assert!(!bytes.windows(7).any(|w| w == "Müller".as_bytes()));
    let loaded = Index::load([8; 16], &mut bytes.as_slice()).unwrap();
    let versions = |i: &Index| {
        i.history(Scope::Instance(ty("Patient"), "p1"), u64::MAX, None)
            .map(|v| v.version)
            .collect::<Vec<_>>()
    };
    assert_eq!(versions(&loaded), [2, 1]);
    assert_eq!(versions(&loaded), versions(&index));
    assert_eq!(found(&loaded, "Patient", named("ann")), [9]);
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let bytes = dump(&sample(1));
    for at in 0..bytes.len() {
        let mut cut = &bytes[..at];
        assert!(Index::load([1; 16], &mut cut).is_err(), "cut at {at}");
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            assert!(
                Index::load([1; 16], &mut bad.as_slice()).is_err(),
                "bit {bit} of byte {at}"
            );
        }
    }
    let mut newer = bytes.clone();
    newer[8] = 2;
    assert!(matches!(
        Index::load([1; 16], &mut newer.as_slice()),
        Err(LoadError::Format(2))
    ));
}

#[test]
fn reading_stops_at_the_end() {
    let mut bytes = dump(&sample(1));
    bytes.extend(b"something else");
    let mut from = bytes.as_slice();
    Index::load([1; 16], &mut from).unwrap();
    assert_eq!(from, b"something else");
}

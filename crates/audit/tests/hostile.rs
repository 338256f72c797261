//! Bytes from anywhere: no parser panics, and what is accepted is written back the same.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

mod common;

use common::TestKey;
use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::leaf::{Leaf, MAX_LIST, Notice};
use keepwell_audit::merkle::Frontier;
use keepwell_audit::note::{self, NoteError, VerifierKey};
use keepwell_audit::{proof_file, tile, witness};
use proptest::prelude::*;

fn leaves() -> impl Strategy<Value = Leaf> {
    let notice = prop_oneof![
        (any::<[u8; 16]>(), any::<Option<(u64, [u8; 32])>>())
            .prop_map(|(organisation, previous)| Notice::Started { organisation, previous }),
        prop::collection::vec(any::<u64>(), 0..20).prop_map(Notice::Blanked),
        any::<[u8; 32]>().prop_map(|commitment| Notice::Erased { commitment }),
        any::<(u64, u64)>().prop_map(|(new, old)| Notice::Redacted { new, old }),
        any::<(u64, u64)>().prop_map(|(new, old)| Notice::Resealed { new, old }),
        any::<(i64, u64, [u8; 32])>().prop_map(|(hidden_after, size, root)| Notice::Restored {
            hidden_after,
            size,
            root
        }),
        any::<[u8; 32]>().prop_map(|public| Notice::SigningKey { public }),
    ];
    prop_oneof![
        any::<(u64, [u8; 32])>().prop_map(|(rid, digest)| Leaf::Row { rid, digest }),
        any::<(i64, u8, [u8; 32], [u8; 32])>().prop_map(|(at, kind, sealed, commitment)| {
            Leaf::Event {
                at,
                kind,
                sealed,
                commitment,
            }
        }),
        (any::<i64>(), notice).prop_map(|(at, notice)| Leaf::Notice { at, notice }),
    ]
}

proptest! {
    #[test]
    fn a_leaf_reads_back(leaf in leaves()) {
        let bytes = leaf.to_bytes();
        prop_assert_eq!(Leaf::from_bytes(&bytes), Ok(leaf));
        // Cut or prolonged by a byte it is another leaf or none, never the same.
        let mut longer = bytes.clone();
        longer.push(0);
        prop_assert!(Leaf::from_bytes(&longer).map_or(true, |l| l.to_bytes() == longer));
        prop_assert!(Leaf::from_bytes(&bytes[..bytes.len() - 1]).map_or(true, |l| l.to_bytes() != bytes));
    }

    #[test]
    fn an_accepted_leaf_has_one_spelling(mut bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 0_u8..5) {
        if let [version, k, ..] = bytes.as_mut_slice() {
            (*version, *k) = (1, kind);
        }
        if let Ok(leaf) = Leaf::from_bytes(&bytes) {
            prop_assert_eq!(leaf.to_bytes(), bytes);
        }
    }

    #[test]
    fn no_parser_panics(bytes in prop::collection::vec(any::<u8>(), 0..400), text in "[\\PC\n+—= ]{0,200}") {
        let trusted = [TestKey::new("a", 1).verifier()];
        for input in [bytes.as_slice(), text.as_bytes()] {
            let _ = Frontier::from_bytes(input);
            let _ = Checkpoint::open(input, &trusted);
            let _ = Checkpoint::read_unverified(input);
            let _ = proof_file::verify(input, None, &trusted);
            let _ = witness::parse_request(input);
            let _ = tile::entries(input, 3);
        }
        let _ = VerifierKey::parse(&text);
        let _ = tile::parse_path(&text);
        let _ = tile::parse_path(&format!("tile/{text}"));
        let _ = Checkpoint::parse(&text);
    }

    #[test]
    fn a_tile_path_reads_back(level in prop::option::of(0_u8..8), index in any::<u64>(), width in 1_u64..=256) {
        let kind = level.map_or(tile::Kind::Entries, tile::Kind::Hashes);
        prop_assert_eq!(tile::parse_path(&tile::path(kind, index, width)), Some((kind, index, width)));
    }

    #[test]
    fn a_changed_note_is_refused(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let key = TestKey::new(common::ORIGIN, 1);
        let good = common::checkpoint_of(&common::log(5)).sign(&key).unwrap();
        let trusted = [key.verifier()];
        prop_assert!(Checkpoint::open(&good, &trusted).is_ok());
        let mut bad = good.clone();
        bad[at.index(good.len())] ^= 1 << bit;
        prop_assert!(Checkpoint::open(&bad, &trusted).is_err());
    }
}

#[test]
fn the_layout_s_own_examples_of_paths() {
    let path = |index, width| tile::path(tile::Kind::Entries, index, width);
    assert_eq!(path(0, 256), "tile/entries/000");
    assert_eq!(path(5, 7), "tile/entries/005.p/7");
    assert_eq!(path(1_234_067, 256), "tile/entries/x001/x234/067");
    assert_eq!(
        tile::path(tile::Kind::Hashes(3), 1_234_067, 256),
        "tile/3/x001/x234/067"
    );
    for bad in [
        "tile/8/000",
        "tile/0/0",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/../000",
    ] {
        assert_eq!(tile::parse_path(bad), None, "{bad}");
    }
}

#[test]
fn a_notice_lists_no_more_than_fits_an_entry() {
    let many = Notice::Blanked((0..MAX_LIST as u64 + 5).collect());
    let bytes = Leaf::Notice { at: 0, notice: many }.to_bytes();
    assert!(bytes.len() < tile::MAX_ENTRY);
    let Ok(Leaf::Notice {
        notice: Notice::Blanked(rids),
        ..
    }) = Leaf::from_bytes(&bytes)
    else {
        unreachable!()
    };
    assert_eq!(rids.len(), MAX_LIST);
}

#[test]
fn notes_are_accepted_by_trusted_keys_only() {
    let (log, witness, stranger) = (
        TestKey::new("log", 1),
        TestKey::new("witness", 2),
        TestKey::new("log", 3),
    );
    let text = "log\n5\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    let note = note::sign(text, &[&log, &witness]).unwrap();
    let keys = [log.verifier(), witness.verifier()];
    let (read, signed) = note::open(note.as_bytes(), &keys).unwrap();
    assert_eq!((read, signed.len()), (text, 2));
    // The same name with another key is nobody.
    assert_eq!(
        note::open(note.as_bytes(), &[stranger.verifier()]),
        Err(NoteError::Unsigned)
    );
    // One right signature does not excuse a wrong one of another trusted key.
    let other = note::sign("another text\n", &[&witness]).unwrap();
    let forged = note::sign(text, &[&log]).unwrap() + other.lines().last().unwrap() + "\n";
    assert_eq!(note::open(forged.as_bytes(), &keys), Err(NoteError::WrongSignature));
    // Unknown signatures are passed over.
    assert_eq!(note::open(note.as_bytes(), &keys[..1]).unwrap().1.len(), 1);
    for text in ["no end", "tab\there\n", "bell\u{7}\n", ""] {
        assert!(note::sign(text, &[&log]).is_err());
    }
    for name in ["", "a b", "a+b", "a\nb", "a\u{a0}b"] {
        assert!(note::sign("text\n", &[&TestKey::new(name, 1)]).is_err());
    }
}

#[test]
fn a_public_key_is_written_and_read_as_a_vkey() {
    let key = TestKey::new(common::ORIGIN, 9).verifier();
    assert_eq!(VerifierKey::parse(&key.to_string()), Some(key.clone()));
    let text = key.to_string();
    for bad in [
        text.replace('+', "-"),
        text.replacen("log+", "lig+", 1),
        format!("{text}AAAA"),
        text.to_uppercase(),
    ] {
        assert_eq!(VerifierKey::parse(&bad), None);
    }
}

use super::*;
use crate::custody::KeyFile;
use crate::sealing::Place;
use crate::tests::Random;

struct World {
    dir: tempfile::TempDir,
    paths: Paths,
    key: KeyFile,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let key = KeyFile::create(&at("key"), &Random).unwrap();
    let paths = Paths {
        keyring: at("keyring"),
        keyring_copy: Some(at("copy")),
        era: vec![at("era"), at("era2")],
        era_min: 2,
    };
    Vault::init(&paths, &key, &Random).unwrap();
    World { dir, paths, key }
}

impl World {
    fn open(&self) -> (Vault, Settled) {
        Vault::open(self.paths.clone(), &self.key, Arc::new(Random)).unwrap()
    }

    fn try_open(&self) -> Result<Vault, VaultError> {
        Vault::open(self.paths.clone(), &self.key, Arc::new(Random)).map(|(v, _)| v)
    }
}

const PLACE: Place<'static> = Place {
    format: *b"test",
    number: 7,
    extra: &[],
};

fn seal(vault: &Vault, slot: u32) -> Vec<u8> {
    let key = vault.row_key(slot, 7).unwrap();
    let mut text = b"hello".to_vec();
    let nonce = key.nonce(&[0; 16], 7, &[&text]);
    let tag = key.seal(PLACE, &nonce, &mut text).unwrap();
    [nonce.as_slice(), &text, &tag].concat()
}

fn open(vault: &Vault, slot: u32, sealed: &[u8]) -> bool {
    let Ok(key) = vault.open_key(slot, 1, 7) else {
        return false;
    };
    let (nonce, rest) = sealed.split_first_chunk::<12>().unwrap();
    let mut rest = rest.to_vec();
    key.open(PLACE, nonce, &mut rest).is_ok_and(|text| text == b"hello")
}

#[test]
fn a_slot_seals_and_opens_after_a_restart_and_only_in_its_place() {
    let w = world();
    let (vault, settled) = w.open();
    assert_eq!(settled, Settled::default());
    let (a, b) = (vault.allot().unwrap(), vault.allot().unwrap());
    assert_eq!((a, b), (1, 2));
    let sealed = seal(&vault, a);
    let key_ref = vault.key_ref(a, 7).unwrap();
    drop(vault);
    let (vault, _) = w.open();
    vault.resume(3);
    assert!(open(&vault, a, &sealed));
    assert!(!open(&vault, b, &sealed));
    assert_eq!(vault.slot_of(&key_ref, 7), Some(a));
    assert_eq!(vault.slot_of(&key_ref, 8), None, "bound to its row");
    assert_eq!(vault.allot().unwrap(), 3);
    let key = vault.open_key(a, 1, 7).unwrap();
    let (nonce, rest) = sealed.split_first_chunk::<12>().unwrap();
    for place in [
        Place { number: 8, ..PLACE },
        Place {
            format: *b"tesu",
            ..PLACE
        },
        Place { extra: &[0], ..PLACE },
    ] {
        assert!(key.open(place, nonce, &mut rest.to_vec()).is_err());
    }
}

#[test]
fn only_the_right_secret_opens_and_a_new_one_replaces_it() {
    let w = world();
    let other = KeyFile::create(&w.dir.path().join("other"), &Random).unwrap();
    let wrong = Vault::open(w.paths.clone(), &other, Arc::new(Random)).err().unwrap();
    assert!(matches!(wrong, VaultError::Custody(CustodyError::Wrong)));
    let (vault, _) = w.open();
    let slot = vault.allot().unwrap();
    let sealed = seal(&vault, slot);
    vault.rotate(&other, false, &|_| Ok(())).unwrap();
    drop(vault);
    assert!(matches!(w.try_open(), Err(VaultError::Custody(CustodyError::Wrong))));
    let (vault, _) = Vault::open(w.paths.clone(), &other, Arc::new(Random)).unwrap();
    assert!(open(&vault, slot, &sealed), "data was not rewritten");
}

#[test]
fn the_recovery_key_is_a_second_way_in() {
    let dir = tempfile::tempdir().unwrap();
    let key = KeyFile::create(&dir.path().join("key"), &Random).unwrap();
    let paths = Paths {
        keyring: dir.path().join("keyring"),
        keyring_copy: None,
        era: vec![dir.path().join("era")],
        era_min: 1,
    };
    let recovery = Vault::init(&paths, &key, &Random).unwrap().print();
    let typed = RecoveryKey::parse(&recovery).unwrap();
    assert!(Vault::open(paths, &typed, Arc::new(Random)).is_ok());
}

#[test]
fn every_altered_byte_of_the_keyring_is_noticed() {
    let w = world();
    let good = std::fs::read(&w.paths.keyring).unwrap();
    let mut at = 0;
    while at < good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&w.paths.keyring, &bad).unwrap();
        assert!(w.try_open().is_err(), "byte {at}");
        at += if at < 400 { 1 } else { 97 };
    }
    for cut in [0, 1, 31, 32, 33, 100, good.len() - 1] {
        std::fs::write(&w.paths.keyring, &good[..cut]).unwrap();
        assert!(w.try_open().is_err(), "cut at {cut}");
    }
    std::fs::remove_file(&w.paths.keyring).unwrap();
    assert!(matches!(w.try_open(), Err(VaultError::Missing)));
    std::fs::write(&w.paths.keyring, &good).unwrap();
    assert!(w.try_open().is_ok());
}

#[test]
fn erasure_leaves_the_slot_closed_even_to_old_copies_of_the_keyring() {
    let w = world();
    let (vault, _) = w.open();
    let (a, b) = (vault.allot().unwrap(), vault.allot().unwrap());
    let (sealed_a, sealed_b) = (seal(&vault, a), seal(&vault, b));
    let old_keyring = std::fs::read(&w.paths.keyring).unwrap();
    let done = vault.erase(&[a], &|_| Ok(())).unwrap();
    assert_eq!(done.confirmed, w.paths.era);
    assert!(matches!(vault.row_key(a, 9), Err(VaultError::Destroyed)));
    assert!(!open(&vault, a, &sealed_a));
    assert!(open(&vault, b, &sealed_b));
    drop(vault);
    let (vault, settled) = w.open();
    assert_eq!(settled, Settled::default());
    assert_eq!(vault.unannounced(), vec![a]);
    vault.announced().unwrap();
    assert!(!open(&vault, a, &sealed_a));
    assert!(open(&vault, b, &sealed_b));
    drop(vault);
    assert_eq!(
        std::fs::read(&w.paths.keyring).unwrap(),
        std::fs::read(w.dir.path().join("copy")).unwrap()
    );
    // A thief with the key file, an old keyring and today's ERA.
    std::fs::write(&w.paths.keyring, old_keyring).unwrap();
    assert!(matches!(w.try_open(), Err(VaultError::OlderThanErasure)));
}

#[test]
fn an_erasure_stopped_at_any_step_is_finished_or_undone_at_the_next_start() {
    for stop in EraseStep::ALL {
        let w = world();
        let (vault, _) = w.open();
        let (a, b) = (vault.allot().unwrap(), vault.allot().unwrap());
        let (sealed_a, sealed_b) = (seal(&vault, a), seal(&vault, b));
        vault.flush().unwrap();
        let old_era = std::fs::read(&w.paths.era[0]).unwrap()[16..48].to_vec();
        let at = |step| if step == stop { Err(VaultError::Stopped) } else { Ok(()) };
        assert!(matches!(vault.erase(&[a], &at), Err(VaultError::Stopped)), "{stop:?}");
        drop(vault);
        let (vault, settled) = w.open();
        let erased = EraseStep::ALL.iter().position(|s| *s == stop) > Some(2);
        assert_eq!(!open(&vault, a, &sealed_a), erased, "{stop:?}");
        assert_eq!((settled.finished, settled.undone), (erased, !erased), "{stop:?}");
        assert!(open(&vault, b, &sealed_b), "{stop:?}");
        assert_eq!(vault.unannounced(), if erased { vec![a] } else { vec![] });
        for place in &w.paths.era {
            let bytes = std::fs::read(place).unwrap();
            let holds_old = bytes.windows(32).any(|w| w == old_era);
            assert_eq!(holds_old, !erased, "{stop:?}");
            let full = bytes.chunks(4096).filter(|cell| cell.iter().any(|b| *b != 0)).count();
            assert_eq!(full, 1, "{stop:?}: one ERA at rest");
        }
        assert!(!beside(&w.paths.keyring, ".next").exists());
        drop(vault);
        assert_eq!(w.open().1, Settled::default(), "{stop:?}: settled once");
        assert_eq!(
            std::fs::read(&w.paths.keyring).unwrap(),
            std::fs::read(w.dir.path().join("copy")).unwrap()
        );
        let (vault, _) = w.open();
        if !erased {
            vault.erase(&[a], &|_| Ok(())).unwrap();
            assert!(!open(&vault, a, &sealed_a));
        }
    }
}

#[test]
fn too_few_places_refuse_the_erasure_and_an_absent_place_keeps_it_pending() {
    let mut w = world();
    let (vault, _) = w.open();
    let a = vault.allot().unwrap();
    let sealed = seal(&vault, a);
    drop(vault);
    let away = w.dir.path().join("away");
    std::fs::rename(&w.paths.era[1], &away).unwrap();
    std::fs::create_dir(&w.paths.era[1]).unwrap(); // nothing can be written there
    let (vault, settled) = w.open();
    assert_eq!(settled.unreachable.len(), 1);
    assert!(matches!(
        vault.erase(&[a], &|_| Ok(())),
        Err(VaultError::Places { have: 1, want: 2 })
    ));
    assert!(open(&vault, a, &sealed), "nothing was erased");
    drop(vault);
    w.paths.era_min = 1;
    let (vault, _) = w.open();
    let done = vault.erase(&[a], &|_| Ok(())).unwrap();
    assert_eq!(done.unreachable, vec![w.paths.era[1].clone()]);
    assert_eq!(vault.status().pending, done.unreachable);
    drop(vault);
    std::fs::remove_dir(&w.paths.era[1]).unwrap();
    std::fs::rename(&away, &w.paths.era[1]).unwrap();
    let (vault, settled) = w.open();
    assert!(settled.finished);
    assert!(vault.status().pending.is_empty());
    assert_eq!(std::fs::read(&w.paths.era[1]).unwrap()[..64], {
        let bytes = std::fs::read(&w.paths.era[0]).unwrap();
        let cell = usize::from(bytes[0] == 0) * 4096;
        bytes[cell..cell + 64].to_vec()
    });
}

#[test]
fn a_damaged_place_is_repaired_from_the_other_and_told() {
    let w = world();
    let good = std::fs::read(&w.paths.era[0]).unwrap();
    let mut torn = good.clone();
    torn[5000] = 1;
    let mut flipped = good.clone();
    flipped[20] ^= 1;
    for bad in [torn, flipped, good[..4096].to_vec(), good[..30].to_vec(), Vec::new()] {
        std::fs::write(&w.paths.era[0], &bad).unwrap();
        let (_, settled) = w.open();
        assert_eq!(
            settled,
            Settled {
                repaired: vec![w.paths.era[0].clone()],
                ..Settled::default()
            }
        );
        assert_eq!(std::fs::read(&w.paths.era[0]).unwrap().len(), good.len());
        assert_eq!(w.open().1, Settled::default());
    }
}

#[test]
fn new_generations_seal_new_rows_and_old_rows_still_open() {
    let w = world();
    let (vault, _) = w.open();
    let a = vault.allot().unwrap();
    let sealed = seal(&vault, a);
    let old_ref = vault.key_ref(a, 7).unwrap();
    let (old_log, old_token) = (vault.log_public(), vault.token_public());
    vault.rotate(&w.key, false, &|_| Ok(())).unwrap();
    let check = |vault: &Vault| {
        assert_eq!(vault.row_key(a, 7).unwrap().generation(), 2);
        assert_eq!(vault.organisation_key(*b"event\0\0\0", 0, 0).unwrap().generation(), 2);
        assert!(vault.organisation_key(*b"event\0\0\0", 1, 0).is_ok());
        assert!(open(vault, a, &sealed));
        let new_ref = vault.key_ref(a, 7).unwrap();
        assert_ne!(new_ref, old_ref);
        assert_eq!(
            (vault.slot_of(&old_ref, 7), vault.slot_of(&new_ref, 7)),
            (Some(a), Some(a))
        );
        assert_ne!((vault.log_public(), vault.token_public()), (old_log, old_token));
        assert_eq!(
            (vault.log_retired(), vault.token_retired()),
            (vec![old_log], vec![old_token])
        );
    };
    check(&vault);
    drop(vault);
    let (vault, settled) = w.open();
    assert_eq!(settled, Settled::default());
    check(&vault);
    vault.resume(2);
    let (log, token) = (vault.log_public(), vault.token_public());
    vault.rotate(&w.key, true, &|_| Ok(())).unwrap();
    assert_eq!(
        (vault.log_retired(), vault.token_retired()),
        (vec![old_log, log], vec![])
    );
    assert_ne!(vault.token_public(), token);
    assert!(open(&vault, a, &sealed));
    vault.erase(&[a], &|_| Ok(())).unwrap();
    assert!(vault.open_key(a, 2, 7).is_err());
}

#[test]
fn a_rotation_closes_older_copies_of_the_keyring_and_what_they_held() {
    let w = world();
    let (vault, _) = w.open();
    let a = vault.allot().unwrap();
    let sealed = seal(&vault, a);
    vault.flush().unwrap();
    let keep = |name: &str| {
        let to = w.dir.path().join(name);
        std::fs::create_dir(&to).unwrap();
        for path in [&w.paths.keyring, &w.paths.era[0]] {
            std::fs::copy(path, to.join(path.file_name().unwrap())).unwrap();
        }
        to
    };
    let stolen = keep("stolen");
    let new = KeyFile::create(&w.dir.path().join("new"), &Random).unwrap();
    let (recovery, done) = vault.rotate(&new, false, &|_| Ok(())).unwrap();
    assert_eq!(done.confirmed, w.paths.era);
    // After the rotation: a new row of that slot, and the first of a slot that had been made ahead.
    let b = vault.allot().unwrap();
    let later = [(a, seal(&vault, a)), (b, seal(&vault, b))];
    drop(vault);
    // The old secret, the old copy of the keyring and today's ERA open nothing.
    assert!(matches!(w.try_open(), Err(VaultError::Custody(CustodyError::Wrong))));
    let today = std::fs::read(&w.paths.keyring).unwrap();
    std::fs::copy(stolen.join("keyring"), &w.paths.keyring).unwrap();
    assert!(matches!(w.try_open(), Err(VaultError::OlderThanErasure)));
    std::fs::write(&w.paths.keyring, today).unwrap();
    // Whoever had stolen the old ERA too, and knows the old secret: what was sealed before, nothing after.
    let paths = Paths {
        keyring: stolen.join("keyring"),
        keyring_copy: None,
        era: vec![stolen.join("era")],
        era_min: 1,
    };
    let (thief, _) = Vault::open(paths, &w.key, Arc::new(Random)).unwrap();
    assert!(open(&thief, a, &sealed));
    for (slot, sealed) in &later {
        assert!((0..4).all(|generation| {
            thief.open_key(*slot, generation, 7).map_or(true, |key| {
                let (nonce, rest) = sealed.split_first_chunk::<12>().unwrap();
                key.open(PLACE, nonce, &mut rest.to_vec()).is_err()
            })
        }));
    }
    // The new secret and the new recovery key are the two ways in.
    let typed = RecoveryKey::parse(&recovery.print()).unwrap();
    for way in [&new as &dyn Custodian, &typed] {
        let (vault, _) = Vault::open(w.paths.clone(), way, Arc::new(Random)).unwrap();
        assert!(open(&vault, a, &sealed));
        let (nonce, rest) = later[0].1.split_first_chunk::<12>().unwrap();
        let key = vault.open_key(a, 2, 7).unwrap();
        assert!(key.open(PLACE, nonce, &mut rest.to_vec()).is_ok());
    }
}

#[test]
fn a_rotation_stopped_at_any_step_is_finished_or_undone_at_the_next_start() {
    for stop in EraseStep::ALL {
        for changes_secret in [false, true] {
            let w = world();
            let (vault, _) = w.open();
            let a = vault.allot().unwrap();
            let sealed = seal(&vault, a);
            vault.flush().unwrap();
            let new = KeyFile::create(&w.dir.path().join("new"), &Random).unwrap();
            let new = if changes_secret { &new } else { &w.key };
            let log = vault.log_public();
            let at = |step| if step == stop { Err(VaultError::Stopped) } else { Ok(()) };
            assert!(
                matches!(vault.rotate(new, false, &at), Err(VaultError::Stopped)),
                "{stop:?}"
            );
            drop(vault);
            let rotated = EraseStep::ALL.iter().position(|s| *s == stop) > Some(2);
            let next = beside(&w.paths.keyring, ".next").exists();
            let way = if rotated { new } else { &w.key };
            let (vault, settled) = Vault::open(w.paths.clone(), way, Arc::new(Random)).unwrap();
            assert_eq!((settled.finished, settled.undone), (rotated, !rotated), "{stop:?}");
            assert!(open(&vault, a, &sealed), "{stop:?}");
            assert_eq!(vault.log_public() != log, rotated, "{stop:?}");
            drop(vault);
            let (_, settled) = Vault::open(w.paths.clone(), way, Arc::new(Random)).unwrap();
            assert_eq!(settled, Settled::default(), "{stop:?}: settled once");
            assert_eq!(
                std::fs::read(&w.paths.keyring).unwrap(),
                std::fs::read(w.dir.path().join("copy")).unwrap()
            );
            if rotated && changes_secret {
                assert!(matches!(w.try_open(), Err(VaultError::Custody(CustodyError::Wrong))));
            }
            assert_eq!(next, matches!(stop, EraseStep::NextTorn | EraseStep::Next), "{stop:?}");
        }
    }
}

#[test]
fn the_old_secret_undoes_a_rotation_that_had_not_taken_effect() {
    let w = world();
    let (vault, _) = w.open();
    let new = KeyFile::create(&w.dir.path().join("new"), &Random).unwrap();
    let at = |step| {
        if step == EraseStep::Next {
            Err(VaultError::Stopped)
        } else {
            Ok(())
        }
    };
    assert!(vault.rotate(&new, false, &at).is_err());
    drop(vault);
    let (_, settled) = w.open();
    assert!(settled.undone && !settled.finished);
    assert!(Vault::open(w.paths.clone(), &new, Arc::new(Random)).is_err());
}

#[test]
fn pools_grow_and_slots_given_back_are_used_again() {
    let w = world();
    let (vault, _) = w.open();
    for want in 1..2500 {
        assert_eq!(vault.allot().unwrap(), want);
    }
    vault.give_back(2400);
    assert_eq!(vault.allot().unwrap(), 2400);
    vault.make_ahead().unwrap();
    let slots = vault.slots();
    drop(vault);
    let (vault, _) = w.open();
    assert_eq!(vault.slots(), slots, "every slot handed out is in the file");
    vault.promise_rid(5_000_000).unwrap();
    assert!(vault.rid_ceiling() > 5_000_000);
    drop(vault);
    assert!(w.open().0.rid_ceiling() > 5_000_000);
}

#[test]
fn a_lost_copy_stops_new_slots_not_those_made_ahead() {
    let mut w = world();
    let (vault, _) = w.open();
    drop(vault);
    w.paths.keyring_copy = Some(w.dir.path().join("no/such/folder"));
    let (vault, settled) = w.open();
    assert_eq!(settled.unreachable.len(), 1);
    for _ in 1..1000 {
        vault.allot().unwrap();
    }
    assert!(vault.allot().is_err());
}

#[test]
fn nonces_do_not_repeat_unless_everything_repeats() {
    let w = world();
    let (vault, _) = w.open();
    let key = vault.row_key(vault.allot().unwrap(), 1).unwrap();
    let fixed = [9; 16]; // a cloned machine draws the same bytes again
    let mut seen = std::collections::HashSet::new();
    for n in 0..50_000_u64 {
        assert!(seen.insert(key.nonce(&fixed, n, &[b"same"])));
        assert!(seen.insert(key.nonce(&fixed, 0, &[&n.to_be_bytes(), b"x"])));
    }
    assert!(!seen.insert(key.nonce(&fixed, 3, &[b"same"])));
    assert!(seen.insert(key.nonce(&fixed, 3, &[b"sa", b"me"])), "boundaries count");
}

#[test]
fn the_cache_is_bounded() {
    let cache = Cache::new(160);
    let key = Arc::new(SealKey::new(&Key(Zeroizing::new([1; 32])), &[0; 16], [0; 8], 1, 0).unwrap());
    for n in 0..10_000 {
        cache.insert((n, 1, 0), &key);
        assert!(cache.get(&(n, 1, 0)).is_some());
    }
    assert!(cache.len() <= 160);
}

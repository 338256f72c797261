//! Rotation of all keys through the command line: nobody is interrupted, and what was copied before is closed.
#![allow(
    clippy::print_stdout,
    reason = "skipped cases and seeds are told on stdout, which the test run collects"
)]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test program"
)]

mod support;

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use support::{Folder, Server, cli, observation, patient, said};

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn ok(arguments: &[&str]) -> Value {
    let output = cli(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

#[test]
fn a_rotation_interrupts_nobody_and_closes_what_was_copied_before() {
    let folder = Folder::new();
    let (data, era) = (folder.join("site"), folder.join("era-copy"));
    let (old_phrase, new_phrase) = (folder.join("old"), folder.join("new"));
    fs::write(&old_phrase, "the passphrase somebody else knew\n").unwrap();
    fs::write(&new_phrase, "the passphrase nobody else knows\n").unwrap();
    let (site, old, new) = (text(&data), text(&old_phrase), text(&new_phrase));
    ok(&[
        "init",
        "--data",
        &site,
        "--passphrase-file",
        &old,
        "--era-copy",
        &text(&era),
        "--name",
        "localhost",
    ]);
    let serve = |phrase: &str, data: &Path| {
        let data_text = text(data);
        let arguments = [
            "serve",
            "--data",
            &data_text,
            "--listen",
            "127.0.0.1:0",
            "--plain-http",
            "--passphrase-file",
            phrase,
        ];
        Server::start(&arguments, data, &folder.join("log"), None)
    };
    let mut server = serve(&old, &data).expect("serve");
    let before = server.issue(&["--scope", "system/*.cruds", "--ttl", "1h"]);
    let mut client = server.client_with(&before);
    let id = client.create(&patient("Rotate", "R"));
    let (backup, old_keys) = (text(&folder.join("backup")), folder.join("old-keys"));
    ok(&["backup", "--data", &site, &backup, "--keys-to", &text(&old_keys)]);

    // Reads and writes go on while the keys are exchanged: none fails.
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let rotated = std::thread::scope(|scope| {
        for _ in 0..2 {
            let mut client = server.client_with(&before);
            let (stop, done, id) = (&stop, &done, &id);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    client.get(&format!("/fhir/Patient/{id}")).expect(200);
                    client.create(&observation(id, "1-1", 1.0));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let wait_for = |more: u64| {
            let until = done.load(Ordering::Relaxed) + more;
            while done.load(Ordering::Relaxed) < until {
                std::thread::yield_now();
            }
        };
        wait_for(5);
        let rotated = ok(&["keys", "rotate", "--data", &site, "--new-passphrase-file", &new]);
        wait_for(5);
        stop.store(true, Ordering::Relaxed);
        rotated
    });
    println!(
        "{} reads and writes while the keys were rotated",
        done.load(Ordering::Relaxed) * 2
    );
    let recovery = rotated["recoveryKey"].as_str().unwrap();
    let recovery_file = folder.join("recovery");
    fs::write(&recovery_file, recovery).unwrap();

    // Tokens of before are honoured until they end; new ones are signed by the new key.
    let after = server.issue(&["--scope", "system/*.cruds", "--ttl", "1h"]);
    assert_ne!(before.split('.').next(), after.split('.').next());
    for token in [&before, &after] {
        server
            .client_with(token)
            .get(&format!("/fhir/Patient/{id}"))
            .expect(200);
    }
    let (new_backup, new_keys) = (text(&folder.join("new-backup")), text(&folder.join("new-keys")));
    ok(&["backup", "--data", &site, &new_backup, "--keys-to", &new_keys]);
    let more = ok(&[
        "backup",
        "--data",
        &site,
        &backup,
        "--keys-to",
        &text(&folder.join("keys-3")),
    ]);
    assert!(more["rows"].as_u64() > Some(10));
    let export = text(&folder.join("export"));
    ok(&["audit", "export", "--data", &site, &export]);
    ok(&["audit", "verify", "--export", &export]);
    server.stop();

    // The old passphrase opens nothing; nor does the old copy of the keyring with it and today's ERA.
    assert!(serve(&old, &data).is_err());
    let stolen = folder.join("stolen");
    support::copy(&data, &stolen);
    fs::copy(old_keys.join("keyring"), stolen.join("keyring")).unwrap();
    let refused = serve(&old, &stolen).err().unwrap();
    assert!(refused.contains("older than the last erasure"), "{refused}");

    ok(&["verify", "--data", &site, "--passphrase-file", &new]);
    let mut server = serve(&new, &data).expect("serve with the new passphrase");
    for token in [&before, &after] {
        server
            .client_with(token)
            .get(&format!("/fhir/Patient/{id}"))
            .expect(200);
    }
    // Asked so, no token of before counts, at once and after a start.
    ok(&["keys", "rotate", "--data", &site, "--end-tokens"]);
    let last = server.issue(&["--scope", "system/*.cruds", "--ttl", "1h"]);
    let check = |server: &Server| {
        for token in [&before, &after] {
            server
                .client_with(token)
                .get(&format!("/fhir/Patient/{id}"))
                .refused(401);
        }
        server
            .client_with(&last)
            .get(&format!("/fhir/Patient/{id}"))
            .expect(200);
    };
    check(&server);
    server.stop();
    let mut server = serve(&new, &data).expect("serve once more");
    check(&server);
    server.stop();

    // The backup of before the first rotation, restored with the keyring and ERA of after the last one.
    let keys_now = folder.join("keys-now");
    fs::create_dir(&keys_now).unwrap();
    for name in ["keyring", "settings.json"] {
        fs::copy(data.join(name), keys_now.join(name)).unwrap();
    }
    let era_now = folder.join("era-now");
    fs::copy(&era, &era_now).unwrap();
    let fresh = folder.join("fresh");
    let first = fs::read_dir(folder.join("backup/manifests")).unwrap().count();
    assert!(first >= 2, "both backups are in one folder");
    let output = cli(&[
        "restore",
        "--data",
        &text(&fresh),
        &backup,
        "--keys-from",
        &text(&keys_now),
        "--era-from",
        &text(&era_now),
        "--passphrase-file",
        &new,
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let mut server = serve(&new, &fresh).expect("serve what was restored");
    server
        .client_with(&last)
        .get(&format!("/fhir/Patient/{id}"))
        .expect(200);
    server.stop();
}

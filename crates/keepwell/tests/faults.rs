//! AUD-2 and the disk's own faults: on a full or read-only disk nothing is disclosed without its entry, nothing acknowledged is lost, and the
//! message says what is wrong.
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

use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Folder, Server, cli, patient, said};

/// A small disk of its own, where the machine lets us mount one.
struct Disk(PathBuf);

impl Disk {
    fn new(at: &Path, mib: u32) -> Option<Self> {
        fs::create_dir_all(at).expect("folder");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", at.to_str()?])
            .output();
        if done.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        println!("SKIPPED 1 disk fault: no right to mount a disk of its own");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_stops_writes_first_and_loses_nothing() {
    let folder = Folder::new();
    let Some(disk) = Disk::new(&folder.join("disk"), 220) else {
        return;
    };
    let mut server = Server::demo_in(&disk.0, &["--patients", "0"]);
    let mut client = server.client();
    let mut acknowledged = vec![client.create(&patient("Full", "Disk"))];
    let officer = server.issue(&["--role", "privacy-officer", "--user", "officer", "--ttl", "24h"]);
    // Somebody else's file takes the room, all but a little.
    let filler = disk.0.join("filler");
    fill(&filler, 2 << 20);
    let mut refused = None;
    for n in 0..2000 {
        let mut resource = patient(&format!("Filler{n}"), "X");
        resource["text"] = json!({"status": "generated", "div": format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{}</div>", noise(n, 30_000))});
        let answer = client.post("/fhir/Patient", &resource);
        match answer.status {
            201 => acknowledged.push(answer.location().0),
            status => {
                assert!(matches!(status, 503 | 507), "{status}: {}", answer.text());
                assert_eq!(answer.json()["resourceType"], "OperationOutcome");
                refused = Some(n);
                break;
            }
        }
    }
    println!("writes refused after {refused:?}, {} acknowledged", acknowledged.len());
    assert!(refused.is_some(), "the disk never filled");
    assert!(server.alive());
    // AUD-2. Reads: with their entry (the reserve), or not at all. Somebody else takes that room too, so that in the end the
    // log cannot be written any more; a patient's page of the access log holds a thousand entries, so readers take turns.
    let watched = acknowledged.clone();
    // Answered and refused, for each.
    let mut looks = vec![(0_usize, 0_usize); watched.len()];
    let sums = |looks: &[(usize, usize)]| looks.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    while sums(&looks).1 < 200 {
        if sums(&looks).0 >= 100 {
            fill(&filler, 0);
        }
        for (id, look) in watched.iter().zip(&mut looks) {
            if look.0 >= 900 {
                continue;
            }
            let read = client.get(&format!("/fhir/Patient/{id}"));
            match read.status {
                200 => look.0 += 1,
                503 => {
                    assert_eq!(read.json()["resourceType"], "OperationOutcome");
                    let text = read.text();
                    let known = ["Full", "Filler", "Disk", "1980", "female"];
                    assert!(!known.iter().any(|word| text.contains(word)), "{text}");
                    look.1 += 1;
                }
                status => panic!("{status}: {}", read.text()),
            }
        }
        assert!(looks.iter().any(|look| look.0 < 900), "the log never filled: {looks:?}");
    }
    let (answered, refused) = sums(&looks);
    assert!(server.alive());
    println!("reads on the full disk: {answered} answered, {refused} refused");
    assert!(answered > 0, "the reserve let no read through");
    // Room again: after a restart everything acknowledged is there and the log is whole.
    fs::remove_file(&filler).unwrap();
    server.kill9();
    let mut server = Server::demo_in(&disk.0, &["--patients", "0"]);
    let mut auditor = server.client_with(&officer);
    for (id, (answered, refused)) in watched.iter().zip(&looks) {
        let log = auditor
            .get(&format!("/fhir/Patient/{id}/$access-log?_count=1000"))
            .expect(200)
            .json();
        let entries = log["entry"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|entry| entry["resource"]["subtype"][0]["code"] == "read" && entry["resource"]["outcome"] == "0")
            .count();
        // An entry may be written whose answer could not be given any more, never the other way round.
        assert!(
            (*answered..=answered + refused).contains(&entries),
            "{id}: {answered} reads answered, {refused} refused, {entries} entries"
        );
    }
    let mut client = server.client();
    for id in &acknowledged {
        client.get(&format!("/fhir/Patient/{id}")).expect(200);
    }
    client.create(&patient("Room", "Again"));
    server.stop();
    let output = cli(&["verify", "--data", disk.0.join("data").to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
}

/// Grows a file until nothing more fits, then gives `rest` bytes of it back.
fn fill(file: &Path, rest: u64) {
    let mut file = fs::File::options()
        .create(true)
        .append(true)
        .open(file)
        .expect("the filler");
    let mut block = vec![1; 16 << 20];
    while block.len() >= 1 << 12 {
        // A write that fits in part has taken that part.
        if file.write_all(&block).is_err() {
            block.truncate(block.len() / 2);
        }
    }
    let length = file.metadata().expect("metadata").len();
    file.set_len(length.saturating_sub(rest)).expect("room given back");
}

/// Text that does not compress.
fn noise(seed: u64, length: usize) -> String {
    let mut rng = support::Rng(seed);
    (0..length)
        .map(|_| char::from(b'a' + u8::try_from(rng.below(26)).unwrap()))
        .collect()
}

#[test]
fn a_read_only_disk_is_named() {
    let folder = Folder::new();
    let Some(disk) = Disk::new(&folder.join("disk"), 200) else {
        return;
    };
    let mut server = Server::demo_in(&disk.0, &["--patients", "0"]);
    let id = server.client().create(&patient("Read", "Only"));
    server.stop();
    fs::copy(disk.0.join("token"), folder.join("token")).unwrap();
    let done = Command::new("mount")
        .args(["-o", "remount,ro", disk.0.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", said(&done));
    let data = disk.0.join("data");
    let refused = Server::start(
        &["demo", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"],
        &data,
        &folder.join("log"),
        None,
    );
    match refused {
        Err(said) => {
            assert!(!said.contains("panicked"), "{said}");
            assert!(
                said.to_lowercase().contains("read-only")
                    || said.to_lowercase().contains("permission")
                    || said.to_lowercase().contains("write"),
                "{said}"
            );
        }
        Ok(server) => {
            // If it starts at all it must not disclose: the entry cannot be written.
            let token = fs::read_to_string(folder.join("token")).unwrap();
            let answer = server.client_with(token.trim()).get(&format!("/fhir/Patient/{id}"));
            assert_eq!(answer.status, 503, "{}", answer.text());
        }
    }
    let done = Command::new("mount")
        .args(["-o", "remount,rw", disk.0.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", said(&done));
    let server = Server::demo_in(&disk.0, &["--patients", "0"]);
    server.client().get(&format!("/fhir/Patient/{id}")).expect(200);
}

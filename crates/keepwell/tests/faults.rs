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
    // Somebody else's file takes the room, all but a little.
    let filler = disk.0.join("filler");
    let mut size = 200_u64 << 20;
    while size > 1 << 20 {
        let mut bytes = fs::read(&filler).unwrap_or_default();
        bytes.resize(bytes.len() + usize::try_from(size).unwrap(), 1);
        if fs::write(&filler, &bytes).is_err() {
            bytes.truncate(bytes.len() - usize::try_from(size).unwrap());
            fs::write(&filler, &bytes).expect("what fitted before");
            size /= 2;
        }
    }
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
    // Reads: with their entry (the reserve), or not at all.
    let read = client.get(&format!("/fhir/Patient/{}", acknowledged[0]));
    assert!(matches!(read.status, 200 | 503), "{} {}", read.status, read.text());
    if read.status == 503 {
        assert!(!read.text().contains("Full"));
    }
    // Room again: after a restart everything acknowledged is there and the log is whole.
    fs::remove_file(&filler).unwrap();
    server.kill9();
    let mut server = Server::demo_in(&disk.0, &["--patients", "0"]);
    let mut client = server.client();
    for id in &acknowledged {
        client.get(&format!("/fhir/Patient/{id}")).expect(200);
    }
    client.create(&patient("Room", "Again"));
    server.stop();
    let output = cli(&["verify", "--data", disk.0.join("data").to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
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

//! The machine's clock is set back, while the server runs and while it does not (AUD-9): it says so, goes on, keeps the
//! order of versions and entries, and loses nothing. Needs Debian's `faketime`; skipped where that is missing.
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

use std::fs;
use std::path::{Path, PathBuf};
use support::{Folder, Server, cli, patient, said};

/// The library that fakes the time of a process; the variant for threads.
fn faketime() -> Option<PathBuf> {
    let found = fs::read_dir("/usr/lib").ok()?.flatten();
    let places = found.map(|arch| arch.path().join("faketime/libfaketimeMT.so.1"));
    places.into_iter().find(|library| library.exists())
}

/// A demo server whose wall clock is shifted by what `file` says (`+0`, `-30`, `-10d`), read anew at each look at the clock.
/// Time spans (timers, deadlines) stay those of the machine.
fn start(library: &Path, file: &Path, folder: &Folder) -> Server {
    let environment = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", file),
        ("FAKETIME_NO_CACHE", Path::new("1")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", Path::new("1")),
    ];
    let data = folder.join("data");
    let token = folder.join("token");
    let arguments = [
        "demo",
        "--data",
        data.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--patients",
        "0",
    ];
    let token_argument = ["--token-file", token.to_str().unwrap()];
    let all: Vec<&str> = arguments.into_iter().chain(token_argument).collect();
    Server::start_with(&all, &environment, &data, &folder.join("log"), Some(&token)).expect("the server starts")
}

#[test]
fn a_clock_set_back_is_told_and_loses_nothing() {
    let Some(library) = faketime() else {
        println!("SKIPPED 1 the clock set back: libfaketime is not installed (apt-get install faketime)");
        return;
    };
    let folder = Folder::new();
    let shift = folder.join("shift");
    fs::write(&shift, "+0\n").unwrap();
    let mut server = start(&library, &shift, &folder);
    let mut client = server.client();
    let id = client.create(&patient("Clock", "One"));
    let path = format!("/fhir/Patient/{id}");
    let first = client.get(&path).expect(200).json();
    assert!(!server.logged().contains("set back"));

    // While it runs, by half a minute: whoever has a token goes on working. (By more than a minute, tokens from what is
    // then the future are refused, and new ones have to be issued.)
    fs::write(&shift, "-30\n").unwrap();
    let mut changed = first.clone();
    changed["gender"] = "male".into();
    let second = client.put(&path, &changed).expect(200).json();
    assert_eq!(second["meta"]["versionId"], "2");
    let updated = |resource: &serde_json::Value| resource["meta"]["lastUpdated"].as_str().unwrap().to_owned();
    assert!(
        updated(&second) >= updated(&first),
        "a later version is not dated before an earlier one"
    );
    assert_eq!(client.get(&path).expect(200).json(), second);
    assert!(
        server.logged().contains("the clock was set back"),
        "{}",
        server.logged()
    );
    let other = client.create(&patient("Clock", "Two"));
    server.kill9();

    // While it is stopped, by ten days.
    fs::write(&shift, "-10d\n").unwrap();
    let mut server = start(&library, &shift, &folder);
    assert!(
        server
            .logged()
            .contains("the clock reads earlier than the newest entry of the log"),
        "{}",
        server.logged()
    );
    let mut client = server.client();
    for (id, given) in [(&id, "One"), (&other, "Two")] {
        let read = client.get(&format!("/fhir/Patient/{id}")).expect(200).json();
        assert_eq!(read["name"][0]["given"][0], given);
    }
    changed["gender"] = "other".into();
    let third = client.put(&path, &changed).expect(200).json();
    assert!(updated(&third) >= updated(&second));
    let history = client.get(&format!("{path}/_history")).expect(200).json();
    let versions: Vec<&str> = history["entry"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["resource"]["meta"]["versionId"].as_str().unwrap())
        .collect();
    assert_eq!(versions, ["3", "2", "1"], "newest first, whatever the clock said");
    assert_eq!(server.stop().0, Some(0));
    assert!(!server.logged().contains("panicked"), "{}", server.logged());
    // With the right time again: all of it holds.
    let output = cli(&["verify", "--data", server.data.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
}

//! The promises of the commands: the ready line, two instances, stopping, the directory lock, clear messages for what is wrong.
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
use std::time::Duration;
use support::{Folder, Server, cli, patient, said};

#[test]
fn the_ready_line_and_two_instances_side_by_side() {
    let (one, two) = (Server::empty(), Server::empty());
    for server in [&one, &two] {
        assert_eq!(server.ready["ready"], true);
        assert_eq!(server.ready["url"], json!(format!("http://127.0.0.1:{}", server.port)));
        assert_eq!(
            server.ready["fhir"],
            json!(format!("http://127.0.0.1:{}/fhir", server.port))
        );
        assert!(server.ready.get("metrics").is_none());
    }
    one.client().create(&patient("Only", "One"));
    assert!(two.client().matches("Patient?family=Only").is_empty());
    // A token of one clinic opens nothing in the other.
    two.client_with(&one.token).get("/fhir/Patient").refused(401);
}

#[test]
fn the_token_file_is_private_and_its_token_works_at_once() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let file = folder.join("token");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.ends_with('\n') && text.trim_end().lines().count() == 1 && !text.contains(' '),
        "the bare token and a line feed"
    );
    server.client().get("/fhir/Patient").expect(200);
    // The socket for commands and the data directory are private, too.
    assert_eq!(
        fs::metadata(server.data.join("socket")).unwrap().permissions().mode() & 0o777,
        0o600
    );
    for file in support::files(&server.data) {
        let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o077;
        assert_eq!(mode, 0, "{} is open to others", file.display());
    }
}

#[test]
fn sigterm_ends_within_five_seconds_although_clients_hold_connections() {
    let mut server = Server::empty();
    let mut clients: Vec<_> = (0..8).map(|_| server.client()).collect();
    for client in &mut clients {
        client.get("/fhir/Patient").expect(200);
    }
    // Half a request, never finished.
    let mut half = support::connect(server.port).unwrap();
    half.write_all(b"POST /fhir/Patient HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        .unwrap();
    let (code, took) = server.stop();
    assert_eq!(code, Some(0), "{}", server.logged());
    assert!(took < Duration::from_secs(5), "{took:?}");
    let wal = server.data.join("keepwell.db-wal");
    assert!(
        fs::metadata(&wal).map_or(0, |meta| meta.len()) == 0,
        "a clean stop truncates the write-ahead log"
    );
}

#[test]
fn the_lock_is_free_at_once_after_kill_9() {
    let folder = Folder::new();
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let id = server.client().create(&patient("Lock", "Free"));
    server.kill9();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    assert_eq!(
        server.client().get(&format!("/fhir/Patient/{id}")).expect(200).json()["name"][0]["family"],
        "Lock"
    );
}

#[test]
fn a_second_process_on_the_same_directory_is_told_so() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let other = Folder::new();
    let data = server.data.to_str().unwrap().to_owned();
    let refused = Server::start(
        &["demo", "--data", &data, "--listen", "127.0.0.1:0"],
        &server.data,
        &other.join("log"),
        None,
    );
    let said = refused.err().expect("a second server on one directory");
    assert!(
        said.contains("another keepwell process") || said.contains("in use") || said.contains("running"),
        "{said}"
    );
    assert!(!said.contains("panicked"), "{said}");
    server.client().get("/fhir/Patient").expect(200);
}

#[test]
fn damaged_and_missing_files_have_a_message_each() {
    let folder = Folder::new();
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let id = server.client().create(&patient("Damage", "D"));
    server.stop();
    let data = folder.join("data");
    let original = folder.join("original");
    support::copy(&data, &original);
    let restore = || {
        let _ = fs::remove_dir_all(&data);
        support::copy(&original, &data);
    };
    let start = || Server::try_demo_in(folder.path(), &["--patients", "0"]);

    // A snapshot is a cache: damaged or missing, the index is rebuilt.
    for damage in [b"".as_slice(), b"nonsense"] {
        restore();
        fs::write(data.join("snapshot"), damage).unwrap();
        let server = start().expect("a damaged snapshot is rebuilt");
        server.client().get(&format!("/fhir/Patient/{id}")).expect(200);
    }
    restore();
    let _ = fs::remove_file(data.join("snapshot"));
    start()
        .expect("without a snapshot")
        .client()
        .get(&format!("/fhir/Patient/{id}"))
        .expect(200);

    for (file, words) in [("keyring", "keyring"), ("era", "era")] {
        restore();
        fs::remove_file(data.join(file)).unwrap();
        let said = start().err().unwrap_or_else(|| panic!("started without {file}"));
        assert!(said.to_lowercase().contains(words), "{file}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        assert!(
            !data.join(file).exists(),
            "a missing {file} is not made anew: it would hide the loss"
        );
        restore();
        fs::write(data.join(file), b"nonsense").unwrap();
        let said = start().err().unwrap_or_else(|| panic!("started with a damaged {file}"));
        assert!(
            said.to_lowercase().contains(words) && !said.contains("panicked"),
            "{file}: {said}"
        );
    }
    restore();
    fs::write(data.join("keepwell.db"), b"nonsense").unwrap();
    let said = start().err().expect("started with a damaged database");
    assert!(!said.contains("panicked"), "{said}");
    restore();
    start()
        .expect("the undamaged copy")
        .client()
        .get(&format!("/fhir/Patient/{id}"))
        .expect(200);
}

#[test]
fn metrics_health_and_readiness_hold_no_patient_data() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0", "--metrics", "127.0.0.1:0"]);
    let mut client = server.client();
    let id = client.create(&patient("Metricsecret", "M"));
    client.get("/fhir/Patient?family=Metricsecret").expect(200);
    client.get(&format!("/fhir/Patient/{id}")).expect(200);
    client.get("/fhir/Patient?nonsense=Metricsecret").refused(400);
    let mut stranger = server.client_with("");
    stranger.get("/health").expect(200);
    stranger.get("/ready").expect(200);
    let metrics = server.ready["metrics"].as_str().expect("metrics in the ready line");
    let port: u16 = metrics
        .split("://")
        .nth(1)
        .unwrap_or(metrics)
        .split('/')
        .next()
        .unwrap()
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let page = String::from_utf8_lossy(&support::raw(
        port,
        b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        Duration::from_secs(5),
    ))
    .into_owned();
    assert!(page.contains("# TYPE") && page.contains("keepwell"), "{page}");
    for secret in ["Metricsecret", &id, &server.token] {
        assert!(!page.contains(secret), "{page}");
        assert!(!server.logged().contains(secret), "{}", server.logged());
    }
    // Not on the listener of the clinic: there it is a page that does not exist.
    let host = format!("localhost:{}", server.port);
    let answer = stranger.send("GET", "/metrics", &[("Host", &host)], None);
    assert!(
        !answer.text().contains("# TYPE") && answer.status >= 300,
        "{}",
        answer.status
    );
}

#[test]
fn init_serve_and_the_wrong_passphrase() {
    let folder = Folder::new();
    let data = folder.join("site");
    let passphrase = folder.join("passphrase");
    fs::write(&passphrase, "a long passphrase for the test\n").unwrap();
    let era = folder.join("elsewhere");
    let data_text = data.to_str().unwrap();
    let output = cli(&[
        "init",
        "--data",
        data_text,
        "--passphrase-file",
        passphrase.to_str().unwrap(),
        "--era-copy",
        era.to_str().unwrap(),
        "--name",
        "localhost",
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let again = cli(&[
        "init",
        "--data",
        data_text,
        "--passphrase-file",
        passphrase.to_str().unwrap(),
        "--era-copy",
        era.to_str().unwrap(),
        "--name",
        "localhost",
    ]);
    assert!(!again.status.success(), "a second init must not overwrite the first");
    let wrong = folder.join("wrong");
    fs::write(&wrong, "another passphrase\n").unwrap();
    let serve = |file: &std::path::Path, listen: &str| {
        Server::start(
            &[
                "serve",
                "--data",
                data_text,
                "--listen",
                listen,
                "--passphrase-file",
                file.to_str().unwrap(),
            ],
            &data,
            &folder.join("log"),
            None,
        )
    };
    let said = serve(&wrong, "127.0.0.1:0").err().expect("a wrong passphrase");
    assert!(said.contains("passphrase") && !said.contains("panicked"), "{said}");
    let mut server = serve(&passphrase, "127.0.0.1:0").expect("the right passphrase");
    let (code, _) = server.stop();
    assert_eq!(code, Some(0));
}

#[test]
fn version_help_and_the_policy_table_need_no_directory() {
    let version = cli(&["--version"]);
    assert!(version.status.success() && said(&version).starts_with("keepwell "));
    for command in [
        "init",
        "serve",
        "demo",
        "import",
        "token",
        "login-link",
        "client",
        "audit",
        "verify",
        "keys",
        "erase",
        "backup",
        "restore",
        "policy",
        "openapi",
    ] {
        let output = cli(&[command, "--help"]);
        assert!(output.status.success(), "{command}: {}", said(&output));
    }
    let table = cli(&["policy", "table"]);
    assert!(
        table.status.success() && said(&table).contains("nurse"),
        "{}",
        said(&table)
    );
    assert!(cli(&["policy", "check"]).status.success());
    let openapi = cli(&["openapi"]);
    assert!(openapi.status.success());
    assert!(
        serde_json::from_slice::<serde_json::Value>(&openapi.stdout)
            .is_ok_and(|document| document["openapi"].is_string())
    );
    assert!(!cli(&["nonsense"]).status.success());
}

#[test]
fn a_demo_starts_again_on_its_own_directory_without_loading_twice() {
    let folder = Folder::new();
    let total =
        |server: &Server| server.client().get("/fhir/Patient?_summary=count").expect(200).json()["total"].clone();
    let mut server = Server::demo_in(folder.path(), &[]);
    let first = total(&server);
    assert!(first.as_u64() >= Some(12), "{first}");
    server.stop();
    let server = Server::demo_in(folder.path(), &[]);
    assert_eq!(total(&server), first);
}

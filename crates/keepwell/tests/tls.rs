//! TLS: nothing is served beyond loopback without a certificate; with one, 1.2 and 1.3 only, and never in clear.
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

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use support::{Folder, Server, cli, said};

#[test]
fn beyond_loopback_a_demo_refuses_to_listen() {
    let folder = Folder::new();
    let data = folder.join("data");
    for address in ["0.0.0.0:0", "[::]:0"] {
        let refused = Server::start(
            &[
                "demo",
                "--data",
                data.to_str().unwrap(),
                "--listen",
                address,
                "--patients",
                "0",
            ],
            &data,
            &folder.join("log"),
            None,
        );
        let said = refused
            .err()
            .unwrap_or_else(|| panic!("listens on {address} without a certificate"));
        assert!(
            said.contains("certificate") || said.contains("this machine only"),
            "{said}"
        );
        assert!(!said.contains("panicked"), "{said}");
    }
}

/// The certificates of the PEM files below a folder: the local CA that `init` made is among them.
fn roots(below: &Path) -> rustls::RootCertStore {
    let mut store = rustls::RootCertStore::empty();
    for file in support::files(below) {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        for block in text.split("-----BEGIN CERTIFICATE-----").skip(1) {
            let body: String = block.split("-----END").next().unwrap().split_whitespace().collect();
            let _ = store.add(support::unbase64(&body).into());
        }
    }
    store
}

/// A new site `localhost` in `folder/NAME`, with more arguments to `init`: its data directory and passphrase file.
fn init(folder: &Folder, name: &str, more: &[&str]) -> (PathBuf, PathBuf) {
    let data = folder.join(name);
    let passphrase = folder.join("passphrase");
    std::fs::write(&passphrase, "a long passphrase for the test\n").unwrap();
    let era = folder.join(&format!("{name}-era"));
    let mut arguments = vec!["init", "--data", data.to_str().unwrap(), "--name", "localhost"];
    arguments.extend(["--passphrase-file", passphrase.to_str().unwrap()]);
    arguments.extend(["--era-copy", era.to_str().unwrap()]);
    arguments.extend(more);
    let output = cli(&arguments);
    assert!(output.status.success(), "{}", said(&output));
    (data, passphrase)
}

#[test]
fn with_its_certificate_it_speaks_tls_and_only_that() {
    let folder = Folder::new();
    let (data, passphrase) = init(&folder, "site", &[]);
    let data_text = data.to_str().unwrap();
    let server = Server::start(
        &[
            "serve",
            "--data",
            data_text,
            "--listen",
            "0.0.0.0:0",
            "--passphrase-file",
            passphrase.to_str().unwrap(),
        ],
        &data,
        &folder.join("log"),
        None,
    )
    .expect("serve");
    let url = server.ready["url"].as_str().unwrap();
    assert!(url.starts_with("https://localhost:"), "{url}");

    let store = roots(&data);
    assert!(!store.is_empty(), "the local CA's certificate is in the data directory");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(store.clone())
            .with_no_client_auth();
        let mut session = rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let mut socket = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut stream = rustls::Stream::new(&mut session, &mut socket);
        stream
            .write_all(b"GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(text.to_lowercase().contains("strict-transport-security"), "HSTS");
    }
    // In clear: nothing of the record.
    let clear = support::raw(
        server.port,
        b"GET /fhir/metadata HTTP/1.1\r\nHost: localhost\r\n\r\n",
        Duration::from_secs(3),
    );
    assert!(!String::from_utf8_lossy(&clear).contains("CapabilityStatement"));
    // TLS 1.0, as a bare client hello: refused.
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 47, 1, 0]);
    let back = support::raw(server.port, &hello, Duration::from_secs(3));
    assert!(back.first() != Some(&22), "a server hello for TLS 1.0");
}

/// Serves a site on loopback, over TLS.
fn serve(folder: &Folder, data: &Path, more: &[&str]) -> Server {
    let mut arguments = vec!["serve", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    arguments.extend(more);
    Server::start(&arguments, data, &folder.join("log"), None).expect("serve")
}

#[test]
fn an_import_speaks_tls_to_the_server_it_was_told_and_to_no_other() {
    let folder = Folder::new();
    let (data, _) = init(&folder, "site", &[]);
    let (other, _) = init(&folder, "other", &[]);
    let server = serve(&folder, &data, &[]);
    let token = folder.join("token");
    std::fs::write(&token, server.issue(&["--scope", "system/*.cruds", "--ttl", "1h"])).unwrap();
    let file = folder.join("patients.ndjson");
    let line = |n: u8| format!("{{\"resourceType\":\"Patient\",\"id\":\"over-tls-{n}\",\"gender\":\"female\"}}\n");
    std::fs::write(&file, line(1) + &line(2)).unwrap();
    let url = server.ready["fhir"].as_str().unwrap().to_owned();
    assert!(url.starts_with("https://localhost:"), "{url}");
    let import = |url: &str, ca: Option<&Path>| {
        let mut arguments = vec!["import", "--url", url, "--token-file", token.to_str().unwrap()];
        if let Some(ca) = ca {
            arguments.extend(["--ca", ca.to_str().unwrap()]);
        }
        arguments.push(file.to_str().unwrap());
        cli(&arguments)
    };
    let ca = data.join("tls/ca.pem");
    // Another authority, none that is known, another name: nothing is sent.
    let numeric = url.replace("localhost", "127.0.0.2");
    let strangers = [
        (&url, Some(other.join("tls/ca.pem"))),
        (&url, None),
        (&numeric, Some(ca.clone())),
    ];
    for (url, ca) in strangers {
        let output = import(url, ca.as_deref());
        assert!(!output.status.success(), "{url} {ca:?}: {}", said(&output));
        let words = said(&output);
        let clear = words.contains("could not be verified")
            || words.contains("cannot read the certificate")
            || words.contains("cannot reach");
        assert!(clear && !words.contains("panicked"), "{words}");
    }
    for clear in ["http://clinic.example/fhir", "ftp://localhost/fhir"] {
        let output = import(clear, None);
        assert!(
            !output.status.success() && said(&output).contains("https://"),
            "{}",
            said(&output)
        );
    }
    let output = import(&url, Some(&ca));
    assert!(output.status.success(), "{}", said(&output));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["written"], 2, "both, and neither came before");
    // A token that opens nothing: said, and nothing stored.
    std::fs::write(&token, "nonsense").unwrap();
    let output = import(&url, Some(&ca));
    assert!(!output.status.success(), "{}", said(&output));
}

#[test]
fn the_end_of_the_certificate_is_told_before_it_comes() {
    for (days, words, levels) in [
        (5, "the certificate ends soon", 4.0..=5.0),
        (-3, "the certificate has ended", -4.0..=-3.0),
    ] {
        let folder = Folder::new();
        let today = i64::try_from(
            std::fs::metadata(folder.path())
                .unwrap()
                .modified()
                .unwrap()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_secs(),
        )
        .unwrap()
            / 86_400;
        let (year, month, day) = keepwell_model::time::civil_from_days(today + days);
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(
            i32::try_from(year).unwrap(),
            u8::try_from(month).unwrap(),
            u8::try_from(day).unwrap(),
        );
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let (pem, key_file) = (folder.join("server.pem"), folder.join("server.key"));
        std::fs::write(&pem, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        let own = [
            "--certificate",
            pem.to_str().unwrap(),
            "--certificate-key",
            key_file.to_str().unwrap(),
        ];
        let (data, _) = init(&folder, "site", &own);
        let server = serve(&folder, &data, &["--metrics", "127.0.0.1:0"]);
        let port = server.ready["metrics"]
            .as_str()
            .unwrap()
            .rsplit([':', '/'])
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let answer = support::raw(
            port,
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            Duration::from_secs(20),
        );
        let text = String::from_utf8_lossy(&answer).into_owned();
        let gauge = text
            .lines()
            .find_map(|line| line.strip_prefix("keepwell_certificate_seconds_left "));
        let left: f64 = gauge.expect("the gauge").parse().unwrap();
        assert!(levels.contains(&(left / 86_400.0)), "{left} seconds");
        assert!(server.logged().contains(words), "{}", server.logged());
    }
}

/// A certificate of `localhost`, its own authority, and its key, both PEM.
fn certified(year: i32) -> (rcgen::Certificate, rcgen::KeyPair) {
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    (parameters.self_signed(&key).unwrap(), key)
}

/// The certificate that a server shows in a handshake; it must be one of these.
fn shown(port: u16, known: &[&rcgen::Certificate]) -> Vec<u8> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in known {
        roots.add(certificate.der().clone()).unwrap();
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut session = rustls::ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 200"));
    session.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn a_renewed_certificate_is_served_without_a_restart() {
    let folder = Folder::new();
    let (pem, key_file) = (folder.join("server.pem"), folder.join("server.key"));
    let put = |(certificate, key): &(rcgen::Certificate, rcgen::KeyPair)| {
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        std::fs::write(&pem, certificate.pem()).unwrap();
    };
    let (first, second, third) = (certified(2098), certified(2099), certified(2100));
    let known = [&first.0, &second.0, &third.0];
    put(&first);
    let own = [
        "--certificate",
        pem.to_str().unwrap(),
        "--certificate-key",
        key_file.to_str().unwrap(),
    ];
    let (data, _) = init(&folder, "site", &own);
    let mut server = serve(&folder, &data, &[]);
    let hangup = |server: &Server| {
        let pid = rustix::process::Pid::from_raw(i32::try_from(server.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    };
    // The log says when the files were looked at; the count of a line is waited for, however long it takes.
    let wait = |server: &mut Server, words: &str, times: usize| {
        while server.logged().matches(words).count() < times {
            assert!(server.alive(), "{}", server.logged());
            std::thread::yield_now();
        }
    };
    const TAKEN: &str = "the renewed certificate is served";
    const KEPT: &str = "the one before stays";
    assert_eq!(shown(server.port, &known), first.0.der().to_vec());
    put(&second);
    hangup(&server);
    wait(&mut server, TAKEN, 1);
    assert_eq!(shown(server.port, &known), second.0.der().to_vec());
    // Another certificate without its key: told, and the one before stays.
    std::fs::write(&pem, third.0.pem()).unwrap();
    hangup(&server);
    wait(&mut server, KEPT, 1);
    assert_eq!(shown(server.port, &known), second.0.der().to_vec());
    // No certificate at all.
    std::fs::write(&pem, "nonsense").unwrap();
    hangup(&server);
    wait(&mut server, KEPT, 2);
    assert_eq!(shown(server.port, &known), second.0.der().to_vec());
    // The key comes as well.
    put(&third);
    hangup(&server);
    wait(&mut server, TAKEN, 2);
    assert_eq!(shown(server.port, &known), third.0.der().to_vec());
    let (code, _) = server.stop();
    assert_eq!(code, Some(0));
}

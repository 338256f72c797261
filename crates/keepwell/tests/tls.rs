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
use std::path::Path;
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
            let _ = store.add(unbase64(&body).into());
        }
    }
    store
}

fn unbase64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for chunk in text.trim_end_matches('=').as_bytes().chunks(4) {
        let word = chunk.iter().fold(0, |word, byte| (word << 6) | value(*byte)) << (6 * (4 - chunk.len()));
        bytes.extend_from_slice(&word.to_be_bytes()[1..chunk.len()]);
    }
    bytes
}

#[test]
fn with_its_certificate_it_speaks_tls_and_only_that() {
    let folder = Folder::new();
    let data = folder.join("site");
    let passphrase = folder.join("passphrase");
    std::fs::write(&passphrase, "a long passphrase for the test\n").unwrap();
    let data_text = data.to_str().unwrap();
    let output = cli(&[
        "init",
        "--data",
        data_text,
        "--passphrase-file",
        passphrase.to_str().unwrap(),
        "--era-copy",
        folder.join("era").to_str().unwrap(),
        "--name",
        "localhost",
    ]);
    assert!(output.status.success(), "{}", said(&output));
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

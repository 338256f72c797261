//! What the tests against the running binary share: a server in a folder of its own, a small HTTP/1.1 client, and the shared data sets.
//!
//! The client is deliberately not a library: a test must be able to send what a library would refuse to send.

#![allow(dead_code, reason = "each test program uses a part of this module")]

pub mod classes;
pub mod data;
pub mod pages;
pub mod signer;
pub mod tree;

use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// How long a server may take to become ready, and any single answer to arrive, on a machine busy with other work.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder that is removed with the value, unless the test fails: then it is left to be looked at.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "keepwell-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("left for inspection: {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// Runs the binary to its end.
pub fn cli<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keepwell"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

/// The text of both streams of a finished command, for messages.
pub fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A running server on a free port of loopback.
pub struct Server {
    child: Child,
    pub port: u16,
    pub ready: Value,
    /// The bare token of `--token-file`: every interaction on every type.
    pub token: String,
    /// The data directory.
    pub data: PathBuf,
    /// What the server printed on stderr.
    pub log: PathBuf,
    _folder: Option<Folder>,
}

impl Server {
    /// An empty demo clinic in a folder of its own.
    pub fn empty() -> Self {
        Self::demo(0)
    }

    /// A demo clinic with about `patients` patients in a folder of its own.
    pub fn demo(patients: usize) -> Self {
        let folder = Folder::new();
        let mut server = Self::demo_in(folder.path(), &["--patients", &patients.to_string()]);
        server._folder = Some(folder);
        server
    }

    /// A demo server whose data directory is `folder/data`, started (again) with `more` arguments.
    pub fn demo_in(folder: &Path, more: &[&str]) -> Self {
        Self::try_demo_in(folder, more).unwrap_or_else(|said| panic!("the server did not become ready: {said}"))
    }

    /// As [`Server::demo_in`]; the error is what a server that ended instead printed on stderr.
    pub fn try_demo_in(folder: &Path, more: &[&str]) -> Result<Self, String> {
        let data = folder.join("data");
        let token_file = folder.join("token");
        let mut arguments = vec!["demo", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        arguments.extend(["--token-file", token_file.to_str().unwrap()]);
        arguments.extend(more);
        Self::start(&arguments, &data, &folder.join("log"), Some(&token_file))
    }

    /// Starts the binary with `arguments` and waits for its ready line.
    pub fn start(arguments: &[&str], data: &Path, log: &Path, token_file: Option<&Path>) -> Result<Self, String> {
        Self::start_with(arguments, &[], data, log, token_file)
    }

    /// As [`Server::start`], with more in its environment.
    pub fn start_with(
        arguments: &[&str],
        environment: &[(&str, &Path)],
        data: &Path,
        log: &Path,
        token_file: Option<&Path>,
    ) -> Result<Self, String> {
        let log_file = File::options().create(true).append(true).open(log).expect("a log file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_keepwell"))
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout");
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout);
            let mut line = String::new();
            let _ = lines.read_line(&mut line);
            let _ = sender.send(line);
            // Keep the pipe open and empty: a server that logs to stdout must not block or die of it.
            let _ = std::io::copy(&mut lines, &mut std::io::sink());
        });
        let line = receiver.recv_timeout(PATIENCE).unwrap_or_default();
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!(
                "ready line {line:?}; {}",
                fs::read_to_string(log).unwrap_or_default()
            ));
        };
        let url = ready["url"].as_str().expect("url in the ready line");
        let port = url
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .expect("port in the url");
        let token = token_file
            .map(|file| fs::read_to_string(file).expect("the token file").trim_end().to_owned())
            .unwrap_or_default();
        Ok(Self {
            child,
            port,
            ready,
            token,
            data: data.to_owned(),
            log: log.to_owned(),
            _folder: None,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client with the token of everything.
    pub fn client(&self) -> Client {
        self.client_with(&self.token)
    }

    /// A client with another token; an empty one sends none.
    pub fn client_with(&self, token: &str) -> Client {
        Client {
            port: self.port,
            token: token.to_owned(),
            stream: None,
        }
    }

    /// Issues a token through the command line, as an operator would.
    pub fn issue(&self, arguments: &[&str]) -> String {
        let mut all = vec!["token", "--data", self.data.to_str().unwrap()];
        all.extend(arguments);
        let output = cli(&all);
        assert!(
            output.status.success(),
            "keepwell token {arguments:?}: {}",
            said(&output)
        );
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().last().unwrap_or_default().trim().to_owned()
    }

    /// SIGKILL, at once.
    pub fn kill9(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; the exit code, and how long it took.
    pub fn stop(&mut self) -> (Option<i32>, Duration) {
        let at = std::time::Instant::now();
        self.terminate();
        let status = self.child.wait().expect("wait");
        (status.code(), at.elapsed())
    }

    /// SIGTERM without waiting.
    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }

    /// Whether the process still runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Everything printed on stderr so far.
    pub fn logged(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let logged = self.logged();
            let tail: Vec<&str> = logged.lines().rev().take(20).collect();
            eprintln!(
                "--- end of the server's log\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
    }
}

/// One HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `Null` when it is not.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Fails the test unless the status is `wanted`.
    #[track_caller]
    pub fn expect(self, wanted: u16) -> Self {
        assert_eq!(
            self.status,
            wanted,
            "{}",
            self.text().chars().take(1500).collect::<String>()
        );
        self
    }

    /// Fails the test unless the status is `wanted` and the body an OperationOutcome with an error; gives its first error.
    #[track_caller]
    pub fn refused(self, wanted: u16) -> Value {
        let answer = self.expect(wanted);
        let outcome = answer.json();
        assert_eq!(outcome["resourceType"], "OperationOutcome", "{}", answer.text());
        let issues = outcome["issue"].as_array().expect("issue");
        let error = issues
            .iter()
            .find(|issue| issue["severity"] == "error" || issue["severity"] == "fatal");
        error.expect("an error in the OperationOutcome").clone()
    }

    /// The logical id and version of the Location header of a create.
    #[track_caller]
    pub fn location(&self) -> (String, String) {
        let location = self.header("location").expect("Location");
        let parts: Vec<&str> = location.rsplit('/').collect();
        assert!(parts.len() > 3 && parts[1] == "_history", "Location {location}");
        (parts[2].to_owned(), parts[0].to_owned())
    }
}

/// A client on one kept-alive connection; reconnects when the server has closed it.
pub struct Client {
    port: u16,
    token: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    pub fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], None)
    }

    pub fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], Some(body.to_string().as_bytes()))
    }

    pub fn put(&mut self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, &[], Some(body.to_string().as_bytes()))
    }

    pub fn delete(&mut self, path: &str) -> Answer {
        self.send("DELETE", path, &[], None)
    }

    /// Creates a resource and gives its id.
    #[track_caller]
    pub fn create(&mut self, resource: &Value) -> String {
        let path = format!("/fhir/{}", resource["resourceType"].as_str().expect("resourceType"));
        self.post(&path, resource).expect(201).location().0
    }

    /// The ids of the matches of a search, in the order of the answer, over all its pages.
    #[track_caller]
    pub fn matches(&mut self, query: &str) -> Vec<String> {
        let mut ids = Vec::new();
        let mut path = format!("/fhir/{query}");
        loop {
            let bundle = self.get(&path).expect(200).json();
            for entry in bundle["entry"].as_array().into_iter().flatten() {
                if entry["search"]["mode"] == "match" {
                    ids.push(entry["resource"]["id"].as_str().expect("id").to_owned());
                }
            }
            match link(&bundle, "next") {
                Some(next) => path = next,
                None => return ids,
            }
        }
    }

    /// One request. A connection that the server closed while idle is opened anew once.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        self.try_send(method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// As [`Client::send`]; the error is the connection's.
    pub fn try_send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> std::io::Result<Answer> {
        let named = |name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !named("host") {
            head.push_str(&format!("Host: 127.0.0.1:{}\r\n", self.port));
        }
        if !self.token.is_empty() {
            head.push_str(&format!("Authorization: Bearer {}\r\n", self.token));
        }
        if body.is_some() && !named("content-type") {
            head.push_str("Content-Type: application/fhir+json\r\n");
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let reused = self.stream.is_some();
        match self.exchange(head.as_bytes(), body.unwrap_or_default(), method == "HEAD") {
            Err(_) if reused => {
                self.stream = None;
                self.exchange(head.as_bytes(), body.unwrap_or_default(), method == "HEAD")
            }
            other => other,
        }
    }

    fn exchange(&mut self, head: &[u8], body: &[u8], bodiless: bool) -> std::io::Result<Answer> {
        if self.stream.is_none() {
            self.stream = Some(BufReader::new(connect(self.port)?));
        }
        let stream = self.stream.as_mut().expect("just set");
        let mut message = head.to_vec();
        message.extend_from_slice(body);
        // A server may answer and close before it has read a body it refuses: read the answer all the same.
        let written = stream.get_mut().write_all(&message);
        let answer = match read_answer(stream, bodiless) {
            Ok(answer) => answer,
            Err(error) => {
                self.stream = None;
                return Err(written.err().unwrap_or(error));
            }
        };
        if written.is_err()
            || answer
                .header("connection")
                .is_some_and(|value| value.eq_ignore_ascii_case("close"))
        {
            self.stream = None;
        }
        Ok(answer)
    }
}

/// The path and query of a link of a Bundle.
pub fn link(bundle: &Value, relation: &str) -> Option<String> {
    let links = bundle["link"].as_array()?;
    let url = links.iter().find(|link| link["relation"] == relation)?["url"].as_str()?;
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    Some(rest[rest.find('/')?..].to_owned())
}

/// A bare connection with time limits.
pub fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads one answer: by length, in chunks, or up to the end of the connection.
pub fn read_answer(stream: &mut impl BufRead, bodiless: bool) -> std::io::Result<Answer> {
    let ended = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(ended());
        }
        let status: u16 = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or_else(ended)?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Err(ended());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        if status == 100 {
            continue;
        }
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        if bodiless || status == 204 || status == 304 {
            return Ok(answer);
        }
        if answer
            .header("transfer-encoding")
            .is_some_and(|value| value.contains("chunked"))
        {
            loop {
                line.clear();
                stream.read_line(&mut line)?;
                let length = usize::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16)
                    .map_err(|_| ended())?;
                let mut chunk = vec![0; length + 2];
                stream.read_exact(&mut chunk)?;
                if length == 0 {
                    return Ok(answer);
                }
                chunk.truncate(length);
                answer.body.extend_from_slice(&chunk);
            }
        }
        match answer.header("content-length").and_then(|value| value.parse().ok()) {
            Some(length) => {
                answer.body = vec![0; length];
                stream.read_exact(&mut answer.body)?;
            }
            None => {
                stream.read_to_end(&mut answer.body)?;
            }
        }
        return Ok(answer);
    }
}

/// Sends bytes as they are on a connection of their own, and reads what comes back until the server closes or `wait` passes in silence.
pub fn raw(port: u16, bytes: &[u8], wait: Duration) -> Vec<u8> {
    let mut stream = connect(port).expect("connect");
    stream.set_read_timeout(Some(wait)).expect("timeout");
    let _ = stream.write_all(bytes);
    let mut back = Vec::new();
    let mut buffer = [0; 16384];
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            break;
        }
        back.extend_from_slice(&buffer[..count]);
    }
    back
}

/// A small deterministic generator (splitmix64): a failing run can be repeated from its printed seed.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % (limit.max(1) as u64)).expect("fits")
    }

    pub fn seeded() -> Self {
        let mut bytes = [0; 8];
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut bytes))
            .expect("randomness");
        let seed = setting("KEEPWELL_TEST_SEED", u64::from_le_bytes(bytes) >> 1);
        println!("seed {seed} (repeat with KEEPWELL_TEST_SEED)");
        Self(seed)
    }
}

/// A number from the environment: how much of a long test to run.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var_os(name)
        .and_then(|value| value.to_str()?.parse().ok())
        .unwrap_or(default)
}

/// Copies a folder of plain files and folders; sockets are left out.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("create");
    for entry in fs::read_dir(from).expect("read_dir") {
        let entry = entry.expect("entry");
        let kind = entry.file_type().expect("type");
        if kind.is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copy");
        }
    }
}

/// All plain files below a folder.
pub fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).expect("read_dir").flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found.sort();
    found
}

/// Where `needle` occurs in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Shows the writable memory of a process piece by piece; pieces overlap by 256 bytes, so that nothing shorter is cut in
/// two. `None`, with a SKIPPED line, where it cannot be read.
pub fn each_piece_of_memory(pid: u32, mut see: impl FnMut(&[u8])) -> Option<()> {
    const PIECE: u64 = 4 << 20;
    const OVERLAP: u64 = 256;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let Ok(mut memory) = File::open(format!("/proc/{pid}/mem")) else {
        println!("SKIPPED 1 scan of the server's memory: /proc/PID/mem is not readable");
        return None;
    };
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let mut at = from;
        while at < to {
            let mut bytes = vec![0; usize::try_from((to - at).min(PIECE + OVERLAP)).ok()?];
            if memory.seek(SeekFrom::Start(at)).is_err() || memory.read_exact(&mut bytes).is_err() {
                break;
            }
            see(&bytes);
            at += PIECE;
        }
    }
    Some(())
}

/// Seals a running server and waits until it answers as a sealed one.
pub fn seal(server: &mut Server) {
    let output = cli(&["keys", "seal", "--data", server.data.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let status = server
            .client()
            .try_send("GET", "/fhir/Patient", &[], None)
            .map(|answer| answer.status);
        if matches!(status, Ok(503)) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "still answers {status:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(server.alive());
}

/// A small valid Patient.
pub fn patient(family: &str, given: &str) -> Value {
    serde_json::json!({"resourceType": "Patient", "name": [{"family": family, "given": [given]}], "gender": "female", "birthDate": "1980-02-29"})
}

/// A patient whom the demo's physician and nurse treat.
pub fn treated(family: &str, given: &str) -> Value {
    let mut person = patient(family, given);
    person["generalPractitioner"] = serde_json::json!([
        {"reference": "Practitioner/a2c6fcf2-1fe5-58aa-b9ca-1d57e22e31ec"},
        {"reference": "Practitioner/d4b89900-9f8d-5be2-b537-fe4329121887"}]);
    person
}

/// A small valid Observation of a patient.
pub fn observation(patient: &str, code: &str, value: f64) -> Value {
    serde_json::json!({
        "resourceType": "Observation", "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
        "subject": {"reference": format!("Patient/{patient}")},
        "effectiveDateTime": "2024-05-01T10:00:00Z",
        "valueQuantity": {"value": value, "unit": "mmol/L", "system": "http://unitsofmeasure.org", "code": "mmol/L"}
    })
}

/// Standard base64.
pub fn base64(bytes: impl AsRef<[u8]>) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.as_ref().chunks(3) {
        let word = (0..3).fold(0_usize, |word, at| {
            (word << 8) | usize::from(chunk.get(at).copied().unwrap_or(0))
        });
        for at in 0..4 {
            text.push(if at <= chunk.len() {
                char::from(ALPHABET[(word >> (18 - 6 * at)) & 63])
            } else {
                '='
            });
        }
    }
    text
}

/// The bytes of standard base64.
pub fn unbase64(text: &str) -> Vec<u8> {
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

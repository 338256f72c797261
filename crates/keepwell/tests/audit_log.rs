//! AUD-1, AUD-5, AUD-7, AUD-11: every request that touched patient data has its entry; an export verifies offline and every tampering is seen.
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

use keepwell_audit::leaf::Leaf;
use keepwell_audit::tile;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use support::{Client, Folder, Rng, Server, cli, observation, patient, said};

#[test]
fn every_disclosure_and_refusal_has_an_entry() {
    let folder = Folder::new();
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let data = server.data.to_str().unwrap().to_owned();
    let mut client = server.client();
    let id = client.create(&patient("Audit", "One"));
    let officer = server.issue(&["--role", "privacy-officer", "--user", "officer", "--ttl", "1h"]);
    let count = |server: &Server| {
        let log = server
            .client_with(&officer)
            .get(&format!("/fhir/Patient/{id}/$access-log?_count=1000"))
            .expect(200)
            .json();
        log["entry"].as_array().map_or(0, Vec::len)
    };
    let before = count(&server);
    // Each look at the log is itself recorded: count what the requests add beyond it.
    let own = count(&server) - before;
    let start = count(&server);
    let mut requests = 0;
    for _ in 0..10 {
        client.get(&format!("/fhir/Patient/{id}")).expect(200);
        client.get("/fhir/Patient?family=Audit").expect(200);
        client.create(&observation(&id, "1-1", 1.0));
        client.get(&format!("/fhir/Observation?patient={id}")).expect(200);
        client.get(&format!("/fhir/Patient/{id}/_history")).expect(200);
        client.get(&format!("/fhir/Patient/{id}/$everything")).expect(200);
        requests += 6;
    }
    let after = count(&server);
    assert_eq!(after - start - own, requests, "{before} {own} {start} {after}");
    server.kill9();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    assert_eq!(count(&server), after + own, "no entry was lost with the process");
    drop(server);
    let output = cli(&["audit", "verify", "--data", &data]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn an_export_verifies_offline_and_tampering_is_seen() {
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut client = server.client();
    let id = client.create(&patient("Exportedname", "X"));
    for n in 0..200 {
        client.create(&observation(&id, "1-1", f64::from(n)));
    }
    let export = folder.join("export");
    let output = cli(&[
        "audit",
        "export",
        "--data",
        server.data.to_str().unwrap(),
        export.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", said(&output));
    for file in support::files(&export) {
        let bytes = fs::read(&file).unwrap();
        assert!(
            support::find(&bytes, b"Exportedname").is_none() && support::find(&bytes, id.as_bytes()).is_none(),
            "{}",
            file.display()
        );
    }
    let verify = |folder: &std::path::Path| cli(&["audit", "verify", "--export", folder.to_str().unwrap()]);
    let good = verify(&export);
    assert!(good.status.success(), "{}", said(&good));
    let mut rng = Rng::seeded();
    let broken = folder.join("broken");
    let mut undetected = Vec::new();
    for round in 0..60 {
        let _ = fs::remove_dir_all(&broken);
        support::copy(&export, &broken);
        let files = support::files(&broken);
        let file = &files[rng.below(files.len())];
        let mut bytes = fs::read(file).unwrap();
        if bytes.is_empty() {
            continue;
        }
        // The end of the last line of `key` says nothing: the same keys without it.
        let said_by = match file.file_name().is_some_and(|name| name == "key") {
            true => bytes.trim_ascii_end().len(),
            false => bytes.len(),
        };
        let at = rng.below(said_by);
        let what = match round % 4 {
            0 => {
                bytes.truncate(at);
                fs::write(file, bytes).unwrap();
                "truncate"
            }
            1 => {
                fs::remove_file(file).unwrap();
                "remove"
            }
            _ => {
                bytes[at] ^= 1 << rng.below(8);
                fs::write(file, bytes).unwrap();
                "flip"
            }
        };
        let output = verify(&broken);
        assert!(!said(&output).contains("panicked"), "{}", said(&output));
        if output.status.success() {
            undetected.push(format!(
                "{what} at {at} of {}",
                file.strip_prefix(&broken).unwrap().display()
            ));
        }
    }
    assert!(undetected.is_empty(), "{undetected:#?}");
}

/// The numbers of the actions in the log (`ACTIONS` of `record`): they never change.
mod kind {
    pub const READ: u8 = 1;
    pub const VREAD: u8 = 2;
    pub const SEARCH: u8 = 3;
    pub const HISTORY_INSTANCE: u8 = 4;
    pub const HISTORY_TYPE: u8 = 5;
    pub const HISTORY_SYSTEM: u8 = 6;
    pub const EVERYTHING: u8 = 7;
    pub const PROVENANCE: u8 = 8;
    pub const CREATE: u8 = 9;
    pub const UPDATE: u8 = 10;
    pub const PATCH: u8 = 11;
    pub const DELETE: u8 = 12;
    pub const ACCESS_LOG: u8 = 13;
    pub const VALIDATE: u8 = 16;
    pub const TRANSACTION: u8 = 17;
    pub const BACKUP: u8 = 20;
    pub const VERIFY: u8 = 26;
    pub const EXPORT: u8 = 27;
}

/// How many events of each kind.
type Counts = BTreeMap<u8, u64>;

fn add(counts: &mut Counts, kinds: &[u8]) {
    for kind in kinds {
        *counts.entry(*kind).or_default() += 1;
    }
}

/// The events of the log by kind, counted by an outsider: in an export, without keys.
fn events(data: &Path, folder: &Folder) -> Counts {
    let export = folder.join("counted");
    let _ = fs::remove_dir_all(&export);
    let output = cli(&[
        "audit",
        "export",
        "--data",
        data.to_str().unwrap(),
        export.to_str().unwrap(),
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let log = tile::Folder::new(&export);
    let checkpoint = String::from_utf8(log.checkpoint().unwrap()).unwrap();
    let size: u64 = checkpoint.lines().nth(1).unwrap().parse().unwrap();
    let mut counts = Counts::new();
    for index in 0..size.div_ceil(256) {
        let width = (size - index * 256).min(256);
        let bundle = log.bundle(index, width).unwrap();
        for entry in tile::entries(&bundle, width).unwrap() {
            if let Leaf::Event { kind, .. } = Leaf::from_bytes(entry).unwrap() {
                add(&mut counts, &[kind]);
            }
        }
    }
    counts
}

/// One request, what it must be answered with, and what it must leave in the log.
struct Request {
    client: usize,
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
    status: u16,
    kinds: Vec<u8>,
}

/// What one worker has in the record, alone: so each answer is known beforehand.
struct Chart {
    patient: String,
    observations: Vec<String>,
    deleted: Vec<String>,
    next: u64,
}

/// Every other round of the count ends in a kill.
const ROUNDS: usize = 6;
const WORKERS: usize = 4;

/// Places of the clients.
const ALL: usize = 0;
const BILLING: usize = 1;
const STRANGER: usize = 2;
const OFFICER: usize = 3;

impl Chart {
    fn observation(&self, rng: &mut Rng) -> String {
        self.observations[rng.below(self.observations.len())].clone()
    }

    /// The next request: every interaction, with success and with its refusals.
    #[allow(clippy::too_many_lines, reason = "a list")]
    fn request(&mut self, rng: &mut Rng) -> Request {
        use kind::*;
        self.next += 1;
        let (patient, one, n) = (self.patient.clone(), self.observation(rng), self.next);
        let value = f64::from(u32::try_from(n % 1_000_000).unwrap());
        let with = |method, path: String, status, kinds: &[u8]| Request {
            client: ALL,
            method,
            path: format!("/fhir{path}"),
            headers: Vec::new(),
            body: None,
            status,
            kinds: kinds.to_vec(),
        };
        let bundle = |kind: &str, entries: &[(&str, String, Option<Value>)]| {
            let entries: Vec<Value> = entries
                .iter()
                .map(|(method, url, resource)| {
                    let mut entry = json!({"request": {"method": method, "url": url}});
                    if let Some(resource) = resource {
                        entry["resource"] = resource.clone();
                    }
                    entry
                })
                .collect();
            json!({"resourceType": "Bundle", "type": kind, "entry": entries})
        };
        let new = observation(&patient, "1-1", value);
        let mut update = new.clone();
        update["id"] = json!(one);
        match rng.below(36) {
            0 | 1 => with("GET", format!("/Observation/{one}"), 200, &[READ]),
            2 => with("GET", format!("/Observation/missing-{n}"), 404, &[READ]),
            3 => with("HEAD", format!("/Patient/{patient}"), 200, &[READ]),
            4 => with("GET", format!("/Observation/{one}/_history/1"), 200, &[VREAD]),
            5 => with("GET", format!("/Observation/{one}/_history/99999"), 404, &[VREAD]),
            6 | 7 => with(
                "GET",
                format!("/Observation?patient={patient}&_count=3"),
                200,
                &[SEARCH],
            ),
            8 => with("GET", "/Observation?nonsense=1".to_owned(), 400, &[SEARCH]),
            9 => with(
                "GET",
                format!("/Patient/{patient}/Observation?_count=2"),
                200,
                &[SEARCH],
            ),
            10 => with(
                "GET",
                format!("/Observation/{one}/_history?_count=2"),
                200,
                &[HISTORY_INSTANCE],
            ),
            11 => with("GET", "/Patient/_history?_count=2".to_owned(), 200, &[HISTORY_TYPE]),
            12 => with("GET", "/_history?_count=2".to_owned(), 200, &[HISTORY_SYSTEM]),
            13 => with(
                "GET",
                format!("/Patient/{patient}/$everything?_count=4"),
                200,
                &[EVERYTHING],
            ),
            14 => with("GET", format!("/Patient/missing-{n}/$everything"), 404, &[EVERYTHING]),
            15 => with("GET", format!("/Observation/{one}/$provenance"), 200, &[PROVENANCE]),
            16 => Request {
                body: Some(new),
                ..with("POST", "/Observation".to_owned(), 201, &[CREATE])
            },
            17 => Request {
                body: Some(json!({"resourceType": "Observation", "status": "final"})),
                ..with("POST", "/Observation".to_owned(), 422, &[CREATE])
            },
            18 => Request {
                body: Some(new),
                headers: vec![("If-None-Exist", format!("_id={one}"))],
                // What is there already is shown: a read.
                ..with("POST", "/Observation".to_owned(), 200, &[READ])
            },
            19 => Request {
                body: Some(update),
                ..with("PUT", format!("/Observation/{one}"), 200, &[UPDATE])
            },
            20 => Request {
                body: Some(update),
                headers: vec![("If-Match", "W/\"99999\"".to_owned())],
                ..with("PUT", format!("/Observation/{one}"), 412, &[UPDATE])
            },
            21 => Request {
                body: Some(json!([{"op": "replace", "path": "/valueQuantity/value", "value": value}])),
                headers: vec![("Content-Type", "application/json-patch+json".to_owned())],
                ..with("PATCH", format!("/Observation/{one}"), 200, &[PATCH])
            },
            22 => Request {
                body: Some(json!([{"op": "remove", "path": "/nothing"}])),
                headers: vec![("Content-Type", "application/json-patch+json".to_owned())],
                ..with("PATCH", format!("/Observation/{one}"), 422, &[PATCH])
            },
            23 if self.observations.len() > 3 => {
                let at = rng.below(self.observations.len());
                let id = self.observations.swap_remove(at);
                self.deleted.push(id.clone());
                with("DELETE", format!("/Observation/{id}"), 204, &[DELETE])
            }
            24 if !self.deleted.is_empty() => {
                let id = &self.deleted[rng.below(self.deleted.len())];
                with("GET", format!("/Observation/{id}"), 410, &[READ])
            }
            25 if !self.deleted.is_empty() => {
                let id = &self.deleted[rng.below(self.deleted.len())];
                with("DELETE", format!("/Observation/{id}"), 204, &[DELETE])
            }
            26 => Request {
                body: Some(bundle(
                    "batch",
                    &[
                        ("GET", format!("Observation/{one}"), None),
                        ("GET", format!("Observation/missing-{n}"), None),
                        ("GET", "nonsense/1".to_owned(), None),
                        ("GET", "$nonsense".to_owned(), None),
                        ("GET", format!("Observation/{one}/$nonsense"), None),
                        (
                            "PATCH",
                            format!("Observation/{one}"),
                            Some(json!({"resourceType": "Binary"})),
                        ),
                        ("POST", format!("Observation/{one}"), Some(new.clone())),
                        ("POST", "Observation".to_owned(), Some(new)),
                    ],
                )),
                ..with(
                    "POST",
                    String::new(),
                    200,
                    &[
                        READ,
                        READ,
                        TRANSACTION,
                        TRANSACTION,
                        TRANSACTION,
                        PATCH,
                        TRANSACTION,
                        CREATE,
                    ],
                )
            },
            27 => Request {
                body: Some(bundle(
                    "transaction",
                    &[
                        ("POST", "Observation".to_owned(), Some(new.clone())),
                        ("POST", "Observation".to_owned(), Some(new)),
                        ("GET", format!("Observation/{one}"), None),
                    ],
                )),
                ..with("POST", String::new(), 200, &[TRANSACTION, READ])
            },
            28 => Request {
                body: Some(bundle(
                    "transaction",
                    &[
                        ("PUT", format!("Observation/{one}"), Some(update.clone())),
                        ("PUT", format!("Observation/{one}"), Some(update)),
                    ],
                )),
                ..with("POST", String::new(), 400, &[TRANSACTION])
            },
            29 => Request {
                body: Some(new),
                ..with("POST", "/Observation/$validate".to_owned(), 200, &[VALIDATE])
            },
            // A role that may not; a patient who is another; the officer, who may.
            30 => Request {
                client: BILLING,
                ..with("GET", format!("/Observation/{one}"), 403, &[READ])
            },
            31 => Request {
                client: STRANGER,
                ..with("GET", format!("/Patient/{patient}"), 404, &[READ])
            },
            32 => Request {
                client: STRANGER,
                ..with("GET", format!("/Patient/{patient}/$access-log"), 404, &[ACCESS_LOG])
            },
            33 => Request {
                client: OFFICER,
                ..with(
                    "GET",
                    format!("/Patient/{patient}/$access-log?_count=2"),
                    200,
                    &[ACCESS_LOG],
                )
            },
            // Refused for its form before the record is asked: no patient is touched, nothing is written.
            34 => with("GET", format!("/Nonsense/{n}/x/y/z"), 404, &[]),
            35 => Request {
                body: Some(new),
                headers: vec![("Content-Type", "text/csv".to_owned())],
                ..with("POST", "/Observation".to_owned(), 415, &[])
            },
            _ => with("GET", format!("/Patient/{patient}"), 200, &[READ]),
        }
    }
}

/// A chart of its own, and the events it took.
fn chart(client: &mut Client) -> (Chart, Counts) {
    let id = client.create(&patient("Counted", "C"));
    let observations: Vec<String> = (0..8)
        .map(|n| client.create(&observation(&id, "1-1", f64::from(n))))
        .collect();
    let chart = Chart {
        patient: id,
        observations,
        deleted: Vec::new(),
        next: 0,
    };
    (chart, Counts::from([(kind::CREATE, 9)]))
}

#[test]
fn as_many_entries_as_requests_whatever_they_ask_and_however_the_server_dies() {
    // AUD-1. `KEEPWELL_REQUESTS` says how many requests; in every other round the server is killed in the midst of them.
    let wanted = usize::try_from(support::setting("KEEPWELL_REQUESTS", 3000)).unwrap();
    let mut rng = Rng::seeded();
    let folder = Folder::new();
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let other = server.client().create(&patient("Somebody", "Else"));
    let tokens = [
        server.token.clone(),
        server.issue(&["--role", "billing", "--user", "b", "--ttl", "24h"]),
        server.issue(&["--role", "patient", "--user", "p", "--patient", &other, "--ttl", "24h"]),
        server.issue(&["--role", "privacy-officer", "--user", "o", "--ttl", "24h"]),
    ];
    let mut before = events(&server.data, &folder);
    let (mut requests, mut entries, mut unanswered, mut kills) = (0, 0, 0, 0);
    for round in 0..ROUNDS {
        let killed = round % 2 == 1;
        let quota = AtomicUsize::new(wanted / ROUNDS);
        let (answered, answers) = mpsc::channel::<()>();
        let (done, maybe) = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS)
                .map(|_| {
                    let mut clients: Vec<Client> = tokens.iter().map(|token| server.client_with(token)).collect();
                    let (mut rng, quota, answered) = (Rng(rng.next()), &quota, answered.clone());
                    scope.spawn(move || {
                        let (mut chart, mut done) = chart(&mut clients[ALL]);
                        let mut maybe = Counts::new();
                        while killed
                            || quota
                                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                                .is_ok()
                        {
                            let request = chart.request(&mut rng);
                            let headers: Vec<(&str, &str)> =
                                request.headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
                            let body = request.body.as_ref().map(Value::to_string);
                            let answer = clients[request.client].try_send(
                                request.method,
                                &request.path,
                                &headers,
                                body.as_deref().map(str::as_bytes),
                            );
                            let Ok(answer) = answer else {
                                add(&mut maybe, &request.kinds);
                                break;
                            };
                            assert_eq!(
                                answer.status,
                                request.status,
                                "{} {} {body:?}: {}",
                                request.method,
                                request.path,
                                answer.text()
                            );
                            add(&mut done, &request.kinds);
                            let _ = answered.send(());
                        }
                        (done, maybe)
                    })
                })
                .collect();
            drop(answered);
            if killed {
                // In the midst: so many answers are out, and each worker has a request on its way.
                assert_eq!(answers.iter().take(wanted / ROUNDS).count(), wanted / ROUNDS);
                server.kill9();
                kills += 1;
            }
            let mut sums = (Counts::new(), Counts::new());
            for worker in workers {
                let (done, maybe) = worker.join().expect("a worker");
                done.iter().for_each(|(kind, n)| *sums.0.entry(*kind).or_default() += n);
                maybe
                    .iter()
                    .for_each(|(kind, n)| *sums.1.entry(*kind).or_default() += n);
            }
            sums
        });
        requests += answers.iter().count() + if killed { wanted / ROUNDS } else { 0 };
        if killed {
            server = Server::demo_in(folder.path(), &["--patients", "0"]);
        }
        let after = events(&server.data, &folder);
        for kind in (1..=kind::TRANSACTION).filter(|kind| *kind != 14 && *kind != 15) {
            let count = |counts: &Counts| counts.get(&kind).copied().unwrap_or(0);
            let (least, more) = (count(&done), count(&maybe));
            let found = count(&after) - count(&before);
            assert!(
                (least..=least + more).contains(&found),
                "round {round}, kind {kind}: {least} for answered requests and at most {more} on their way, {found} entries"
            );
            assert!(least > 0 || wanted < 3000, "kind {kind} was not asked for");
            entries += found;
            unanswered += found - least;
        }
        before = after;
    }
    println!(
        "{requests} requests answered, {kills} kills: {entries} entries, {unanswered} of them for requests that died unanswered"
    );
    let output = cli(&["audit", "verify", "--data", server.data.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_refused_or_failed_export_or_backup_is_recorded() {
    // CRY-8: what leaves carries digests; one flipped bit is refused where it comes in, and the log says so.
    let folder = Folder::new();
    let server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let id = server.client().create(&patient("Digest", "D"));
    for n in 0..50 {
        server.client().create(&observation(&id, "1-1", f64::from(n)));
    }
    let data = server.data.to_str().unwrap();
    let count = |kind: u8| events(&server.data, &folder).get(&kind).copied().unwrap_or(0);
    // An export with one bit flipped: refused, and the running server records that.
    let export = folder.join("export");
    let export = export.to_str().unwrap();
    let done = cli(&["audit", "export", "--data", data, export]);
    assert!(done.status.success(), "{}", said(&done));
    let before = count(kind::VERIFY);
    let good = cli(&["audit", "verify", "--export", export, "--data", data]);
    assert!(good.status.success(), "{}", said(&good));
    assert_eq!(count(kind::VERIFY), before, "what verifies is no refusal");
    let mut rng = Rng::seeded();
    let mut refused = 0;
    for file in support::files(Path::new(export)) {
        let whole = fs::read(&file).unwrap();
        let mut bytes = whole.clone();
        let at = rng.below(bytes.len());
        bytes[at] ^= 1 << rng.below(8);
        fs::write(&file, &bytes).unwrap();
        let bad = cli(&["audit", "verify", "--export", export, "--data", data]);
        assert!(!bad.status.success(), "bit flipped at {at} of {}", file.display());
        fs::write(&file, &whole).unwrap();
        refused += 1;
    }
    assert!(refused >= 3);
    assert_eq!(count(kind::VERIFY) - before, refused, "each refusal is in the log");
    // An export into a folder that holds something, and a backup whose keyring would lie with it: refused and recorded,
    // each as the act and its failure.
    let before = count(kind::EXPORT);
    let again = cli(&["audit", "export", "--data", data, export]);
    assert!(!again.status.success());
    // The act, its failure, and the export that counts them.
    assert_eq!(count(kind::EXPORT) - before, 3);
    let backup = folder.join("backup");
    let backup = backup.to_str().unwrap();
    let before = count(kind::BACKUP);
    let together = folder.join("together");
    let together = together.to_str().unwrap();
    let same = cli(&["backup", "--data", data, together, "--keys-to", together]);
    assert!(!same.status.success());
    assert_eq!(count(kind::BACKUP) - before, 2);
    let keys = folder.join("keys");
    let keys = keys.to_str().unwrap();
    let done = cli(&["backup", "--data", data, backup, "--keys-to", keys]);
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(count(kind::BACKUP) - before, 3, "a backup that was made is one entry");
    // A backup with one bit flipped is not restored, and says so: there is no log yet that could.
    let era = server.data.join("era");
    for file in support::files(Path::new(backup)) {
        let whole = fs::read(&file).unwrap();
        let mut bytes = whole.clone();
        let at = rng.below(bytes.len());
        bytes[at] ^= 1 << rng.below(8);
        fs::write(&file, &bytes).unwrap();
        let target = folder.join("restored");
        let bad = cli(&[
            "restore",
            "--data",
            target.to_str().unwrap(),
            backup,
            "--keys-from",
            keys,
            "--era-from",
            era.to_str().unwrap(),
        ]);
        assert!(!bad.status.success(), "bit flipped at {at} of {}", file.display());
        assert!(
            said(&bad).contains("backup was not restored") && !said(&bad).contains("panicked"),
            "{}",
            said(&bad)
        );
        assert!(!target.join("keepwell.db").exists() && !target.join("keyring").exists());
        let _ = fs::remove_dir_all(&target);
        fs::write(&file, &whole).unwrap();
    }
}

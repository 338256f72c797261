//! CRY-2: random mutations of the stored files. Each either changes no answer, or is detected: the server refuses to start, refuses the
//! damaged resource, or `keepwell verify` fails. Never a panic, never a silently different answer, and the unharmed rest stays readable.
//! Forty mutations by default, as many as `KEEPWELL_MUTATIONS` says. What one hit that changes no answer and that `verify` does not
//! find must be among the bytes that carry nothing, as `docs/formats/store.md` lists them.
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
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use support::pages::Names;
use support::{Folder, Rng, Server, cli, observation, patient, said};

/// The answers that must not change silently: path to body.
type Answers = BTreeMap<String, Value>;

/// Fills a directory and stops the server; gives the answers, and an older state of the directory for replays.
fn fixture(folder: &Folder) -> (Answers, PathBuf) {
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut client = server.client();
    let mut paths = Vec::new();
    for n in 0..12 {
        let id = client.create(&patient(&format!("Mutation{n}"), "M"));
        paths.push(format!("/fhir/Patient/{id}"));
        for value in 0..8 {
            let observation = client.create(&observation(&id, "1-1", f64::from(value)));
            paths.push(format!("/fhir/Observation/{observation}"));
        }
    }
    server.stop();
    let older = folder.join("older");
    support::copy(&folder.join("data"), &older);
    let mut server = Server::demo_in(folder.path(), &["--patients", "0"]);
    let mut client = server.client();
    for n in 0..4 {
        let mut resource = client.get(&paths[n * 9]).json();
        resource["active"] = Value::Bool(true);
        client.put(&paths[n * 9], &resource).expect(200);
    }
    let answers = paths
        .iter()
        .map(|path| (path.clone(), client.get(path).expect(200).json()))
        .collect();
    server.stop();
    (answers, older)
}

/// One random change of one file; in words what was done.
fn mutate(data: &Path, older: &Path, rng: &mut Rng) -> (String, PathBuf) {
    let mut files: Vec<PathBuf> = support::files(data)
        .into_iter()
        .filter(|file| fs::metadata(file).is_ok_and(|meta| meta.len() > 0))
        .collect();
    files.retain(|file| {
        !matches!(
            file.file_name().and_then(|name| name.to_str()),
            Some("lock" | "reserve")
        )
    });
    let file = files[rng.below(files.len())].clone();
    let mut bytes = fs::read(&file).unwrap();
    let at = rng.below(bytes.len());
    let what = match rng.below(6) {
        0 | 1 => {
            bytes[at] ^= 1 << rng.below(8);
            format!("flip a bit at {at}")
        }
        2 => {
            bytes.truncate(at);
            format!("truncate to {at}")
        }
        3 => {
            let length = 16.min(bytes.len());
            let other = rng.below(bytes.len() - length + 1);
            let from = at.min(bytes.len() - length);
            let copy = bytes[other..other + length].to_vec();
            bytes[from..from + length].copy_from_slice(&copy);
            format!("copy {length} bytes from {other} to {from}")
        }
        4 if bytes.len() > 8192 => {
            let pages = bytes.len() / 4096;
            let (a, b) = (rng.below(pages) * 4096, rng.below(pages) * 4096);
            for offset in 0..4096 {
                bytes.swap(a + offset, b + offset);
            }
            format!("swap the pages at {a} and {b}")
        }
        _ => {
            let old = older.join(file.strip_prefix(data).unwrap());
            match fs::read(&old) {
                Ok(old) => bytes = old,
                Err(_) => bytes.clear(),
            }
            "roll the file back".to_owned()
        }
    };
    fs::write(&file, bytes).unwrap();
    (what, file)
}

/// The names of bytes that carry nothing: the table of `docs/formats/store.md`.
fn nothing() -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/formats/store.md");
    let page = fs::read_to_string(page).expect("the page of the store");
    let table = page.split("<!-- nothing: begin -->").nth(1).expect("the table");
    let table = table.split("<!-- nothing: end -->").next().expect("its end");
    let names = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    names.map(str::to_owned).collect()
}

/// The names of all bytes of a file that a mutation changed or cut off.
fn hit(name: &str, before: &[u8], after: &[u8], old: bool, names: &Names) -> BTreeSet<String> {
    let changed = (0..before.len().max(after.len())).filter(|at| before.get(*at) != after.get(*at));
    let state = if old { ", as it was before" } else { "" };
    match name {
        "keepwell.db" => changed.map(|at| format!("keepwell.db: {}", names.at(at))).collect(),
        // Two cells, of which the first 64 bytes are used.
        "era" if !old => changed
            .map(|at| if at % 4096 < 64 { "era" } else { "era: rest of a cell" }.to_owned())
            .collect(),
        _ => changed.take(1).map(|_| format!("{name}{state}")).collect(),
    }
}

#[test]
fn no_mutation_changes_an_answer_silently() {
    let rounds = support::setting("KEEPWELL_MUTATIONS", 40);
    let mut rng = Rng::seeded();
    let folder = Folder::new();
    let (answers, older) = fixture(&folder);
    let original = folder.join("original");
    fs::rename(folder.join("data"), &original).unwrap();
    let nothing = nothing();
    let names = Names::of(&fs::read(original.join("keepwell.db")).unwrap());
    let (mut unknown, mut silent_hits): (Vec<String>, BTreeMap<String, u32>) = Default::default();
    let mut tally: BTreeMap<&str, u32> = BTreeMap::new();
    for round in 0..rounds {
        let data = folder.join("data");
        let _ = fs::remove_dir_all(&data);
        support::copy(&original, &data);
        let (what, file) = mutate(&data, &older, &mut rng);
        let before = fs::read(original.join(file.strip_prefix(&data).unwrap())).unwrap();
        let name = file.strip_prefix(&data).unwrap().display().to_string();
        let old = what == "roll the file back";
        let hit = hit(&name, &before, &fs::read(&file).unwrap(), old, &names);
        let label = format!(
            "round {round}: {what} of {}",
            file.strip_prefix(&data).unwrap().display()
        );

        let verdict = cli(&["verify", "--data", data.to_str().unwrap()]);
        let text = said(&verdict);
        assert!(!text.contains("panicked"), "{label}: {text}");
        assert!(verdict.status.code().is_some(), "{label}: verify died of a signal");
        let detected = !verdict.status.success();

        // `verify` may have recovered a log: the server is given the mutated files afresh.
        let outcome = match Server::try_demo_in(folder.path(), &["--patients", "0"]) {
            Err(said) => {
                assert!(!said.contains("panicked"), "{label}: {said}");
                "refused to start"
            }
            Ok(mut server) => {
                let mut client = server.client();
                let (mut silent, mut damaged) = (Vec::new(), 0);
                for (path, body) in &answers {
                    let answer = client.get(path);
                    match answer.status {
                        200 if answer.json() == *body => {}
                        200 | 404 | 410 => silent.push(format!("{path}: {} {}", answer.status, answer.text())),
                        _ => damaged += 1,
                    }
                }
                assert!(server.alive(), "{label}");
                server.stop();
                assert!(!server.logged().contains("panicked"), "{label}: {}", server.logged());
                assert!(
                    silent.is_empty() || detected,
                    "{label}: changed answers and not detected: {silent:#?}"
                );
                assert!(
                    damaged < answers.len() || detected,
                    "{label}: nothing is readable and `verify` is clean"
                );
                if !silent.is_empty() {
                    "answers changed, detected"
                } else if damaged > 0 {
                    "some refused"
                } else {
                    "answers as before"
                }
            }
        };
        if !hit.is_empty() && !detected && outcome == "answers as before" {
            let what = hit.iter().cloned().collect::<Vec<_>>().join(" and ");
            if !hit.iter().all(|hit| nothing.contains(hit)) {
                unknown.push(format!("{label}: it hit {what}"));
            }
            *silent_hits.entry(what).or_default() += 1;
        } else if !hit.is_empty() && !detected {
            println!("{label}: not detected by verify; {outcome}");
        }
        if hit.is_empty() {
            *tally.entry("no byte changed").or_default() += 1;
            continue;
        }
        *tally.entry(outcome).or_default() += 1;
        *tally
            .entry(if detected {
                "detected by verify"
            } else {
                "not detected by verify"
            })
            .or_default() += 1;
    }
    println!("{rounds} mutations: {tally:?}; neither found nor of consequence: {silent_hits:#?}");
    assert!(
        unknown.is_empty(),
        "no answer changed, `verify` is clean, and the bytes are not known to carry nothing: {unknown:#?}"
    );
}

#[test]
fn the_rollback_of_the_whole_directory_is_detected_with_a_checkpoint() {
    let folder = Folder::new();
    let outside = folder.join("checkpoint-outside");
    let arguments = ["--patients", "0", "--checkpoint-copy", outside.to_str().unwrap()];
    let mut server = Server::demo_in(folder.path(), &arguments);
    server.client().create(&patient("Roll", "Back"));
    server.stop();
    let data = folder.join("data");
    let older = folder.join("older");
    support::copy(&data, &older);
    let mut server = Server::demo_in(folder.path(), &arguments);
    server.client().create(&patient("Roll", "Forward"));
    server.stop();
    let checked = |folder: &Path| {
        cli(&[
            "verify",
            "--data",
            folder.to_str().unwrap(),
            "--checkpoint",
            outside.to_str().unwrap(),
        ])
    };
    let good = checked(&data);
    assert!(good.status.success(), "{}", said(&good));
    let bad = checked(&older);
    assert!(!bad.status.success(), "{}", said(&bad));
    let audit = cli(&[
        "audit",
        "verify",
        "--data",
        older.to_str().unwrap(),
        "--checkpoint",
        outside.to_str().unwrap(),
    ]);
    assert!(!audit.status.success(), "{}", said(&audit));
    // Without it the rollback cannot be seen, and that is said.
    let unchecked = cli(&["verify", "--data", older.to_str().unwrap()]);
    assert!(unchecked.status.success(), "{}", said(&unchecked));
    assert!(
        said(&unchecked).to_lowercase().contains("not checked") || said(&unchecked).contains("--checkpoint"),
        "{}",
        said(&unchecked)
    );
}

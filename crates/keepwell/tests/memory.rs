//! CRY-11: keys and passphrases in the memory of the process: where they are not, and that nobody but root may look.
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

use aws_lc_rs::{kdf, key_wrap};
use key_wrap::KeyWrapPadded as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::{Client, Folder, Server, cli, observation, patient, said};

const PASSPHRASE: &str = "seven quiet herons over Zyqmere at dusk";

/// A user without rights: what may not be seen, is looked for as this one.
const NOBODY: u32 = 65_534;

/// Initialises a directory; gives the recovery key.
fn init(folder: &Folder) -> String {
    fs::write(folder.join("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
    let output = cli(&[
        "init",
        "--data",
        folder.join("data").to_str().unwrap(),
        "--passphrase-file",
        folder.join("passphrase").to_str().unwrap(),
        "--era-copy",
        folder.join("era-copy").to_str().unwrap(),
        "--name",
        "localhost",
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let printed = said(&output);
    let recovery = printed
        .lines()
        .find_map(|line| line.split("recovery key: ").nth(1))
        .expect("the recovery key is printed")
        .trim()
        .to_owned();
    fs::write(folder.join("recovery"), &recovery).unwrap();
    recovery
}

fn serve(folder: &Folder, unlock: &str, file: &str) -> Server {
    let (data, file) = (folder.join("data"), folder.join(file));
    let arguments = [
        "serve",
        "--data",
        data.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--plain-http",
        unlock,
        file.to_str().unwrap(),
    ];
    Server::start(&arguments, &data, &folder.join("log"), None).expect("serve")
}

fn kbkdf(secret: &[u8], label: &str, context: &[&[u8]]) -> Vec<u8> {
    let algorithm = kdf::get_kbkdf_ctr_hmac_algorithm(kdf::KbkdfCtrHmacAlgorithmId::Sha256).unwrap();
    let info = [label.as_bytes(), &[0], &context.concat(), &256_u32.to_be_bytes()].concat();
    let mut key = vec![0; 32];
    kdf::kbkdf_ctr_hmac(algorithm, secret, &info, &mut key).unwrap();
    key
}

fn unwrap(kek: &[u8], wrapped: &[u8]) -> Vec<u8> {
    let kek = key_wrap::KeyEncryptionKey::new(&key_wrap::AES_256, kek).unwrap();
    let mut key = [0; 48];
    kek.unwrap_with_padding(wrapped, &mut key).expect("unwraps").to_vec()
}

/// The 32 bytes of a printed recovery key.
fn recovery_bytes(text: &str) -> Vec<u8> {
    const ALPHABET: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let bits: Vec<u8> = text
        .chars()
        .filter_map(|c| ALPHABET.find(c))
        .flat_map(|value| (0..5).rev().map(move |bit| (value >> bit & 1) as u8))
        .collect();
    bits[..256]
        .chunks(8)
        .map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | bit))
        .collect()
}

/// The secrets of a data directory by name, worked out from its files and the recovery key as `docs/formats/keyring.md`
/// says: a second reader of that format.
fn secrets(data: &Path, recovery: &str) -> BTreeMap<String, Vec<u8>> {
    let keyring = fs::read(data.join("keyring")).unwrap();
    let mut rest = &keyring[..];
    let mut take = |n: usize| {
        let (head, tail) = rest.split_at(n);
        rest = tail;
        head
    };
    let number = |bytes: &[u8]| bytes.iter().fold(0_usize, |n, byte| n << 8 | usize::from(*byte));
    assert_eq!(take(8), b"KWKEYS\0\x01");
    let organisation = take(16);
    take(8);
    let mut found = BTreeMap::new();
    found.insert("recovery key".to_owned(), recovery_bytes(recovery));
    for _ in 0..number(take(1)) {
        let kind = number(take(1));
        let length = number(take(2));
        let slot = take(length);
        if kind == 3 {
            let kek = kbkdf(
                &found["recovery key"],
                "keepwell custody recovery",
                &[organisation, &slot[1..17]],
            );
            found.insert("ROOT".to_owned(), unwrap(&kek, &slot[17..]));
        }
    }
    let era = &fs::read(data.join("era")).unwrap()[16..48];
    found.insert("ERA".to_owned(), era.to_vec());
    let wrapping = kbkdf(&[&found["ROOT"], era].concat(), "keepwell wrapping", &[organisation]);
    take(8 + 4 + 8);
    for _ in 0..number(take(2)) {
        let purpose = number(take(1));
        let wrapped = take(40);
        let name = ["organisation", "log signing", "token signing", "key_ref"];
        if let Some(name) = name.get(purpose - 1) {
            found.insert((*name).to_owned(), unwrap(&wrapping, wrapped));
        }
    }
    for _ in 0..number(take(4)) {
        take(4);
    }
    for _ in 0..number(take(1)) {
        let length = number(take(2));
        take(length);
    }
    for slot in 0..number(take(4)) {
        take(8);
        let state = number(take(1));
        take(16);
        if state == 2 {
            continue;
        }
        for generation in 1..=number(take(1)) {
            let wrapped = take(40);
            if state == 1 {
                found.insert(format!("slot {slot}.{generation}"), unwrap(&wrapping, wrapped));
            }
        }
    }
    assert_eq!(take(32).len(), 32);
    found.insert("wrapping".to_owned(), wrapping);
    found
}

/// Which of the secrets stand in the memory of a process.
fn in_memory(pid: u32, secrets: &BTreeMap<String, Vec<u8>>) -> Option<BTreeSet<String>> {
    let mut starts = vec![false; 1 << 16];
    let start = |bytes: &[u8]| usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    for secret in secrets.values() {
        starts[start(secret)] = true;
    }
    let mut found = BTreeSet::new();
    support::each_piece_of_memory(pid, |bytes| {
        for at in 0..bytes.len().saturating_sub(1) {
            if starts[start(&bytes[at..])] {
                let hits = secrets.iter().filter(|(_, secret)| bytes[at..].starts_with(secret));
                found.extend(hits.map(|(name, _)| name.clone()));
            }
        }
    })?;
    Some(found)
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn keys_leave_memory_with_the_seal_and_the_passphrase_is_never_kept() {
    let folder = Folder::new();
    let recovery = init(&folder);
    let mut server = serve(&folder, "--passphrase-file", "passphrase");
    let token = server.issue(&["--scope", "system/*.cruds", "--ttl", "1h"]);
    let mut client = server.client_with(&token);
    let mut charts = Vec::new();
    for n in 0..8 {
        let id = client.create(&patient(&format!("Memory{n}"), "M"));
        client.create(&observation(&id, "1-1", f64::from(n)));
        charts.push(id);
    }
    // A clean stop writes the exact states of the slots; the next start reads with the keys of all of them.
    server.stop();
    let mut secrets = secrets(&folder.join("data"), &recovery);
    let slots = secrets.keys().filter(|name| name.starts_with("slot ")).count();
    assert!(slots >= 9, "a slot for each patient and the shared one: {slots}");
    secrets.insert("passphrase".to_owned(), PASSPHRASE.as_bytes().to_vec());
    secrets.insert("printed recovery key".to_owned(), recovery.as_bytes().to_vec());

    let mut server = serve(&folder, "--passphrase-file", "passphrase");
    let token = server.issue(&["--scope", "system/*.cruds", "--ttl", "1h"]);
    let read = |client: &mut Client| {
        for id in &charts {
            client.get(&format!("/fhir/Patient/{id}/$everything")).expect(200);
        }
    };
    read(&mut server.client_with(&token));
    let Some(found) = in_memory(server.pid(), &secrets) else {
        return;
    };
    println!("in the memory of an unsealed server: {found:?}");
    // The scan sees keys where they must be, so that not seeing them elsewhere says something.
    for needed in ["ROOT", "ERA", "wrapping", "log signing", "token signing"] {
        assert!(found.contains(needed), "{needed}: {found:?}");
    }
    for gone in ["passphrase", "recovery key", "printed recovery key"] {
        assert!(!found.contains(gone), "{gone} in the memory of an unsealed server");
    }

    support::seal(&mut server);
    assert_eq!(in_memory(server.pid(), &secrets), Some(BTreeSet::new()), "sealed");
    let data = folder.join("data");
    let output = cli(&["keys", "unseal", "--data", data.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    let mut client = server.client_with(&token);
    while client
        .try_send("GET", "/fhir/metadata", &[], None)
        .map_or(true, |answer| answer.status == 503)
    {
        assert!(server.alive(), "{}", server.logged());
        std::thread::yield_now();
    }
    read(&mut client);
    let found = in_memory(server.pid(), &secrets).unwrap();
    assert!(found.contains("ROOT") && !found.contains("passphrase"), "{found:?}");
    server.stop();
    println!("{} secrets looked for: none in a sealed server", secrets.len());

    // Unlocked by the recovery key, nothing of it stays either.
    let server = serve(&folder, "--recovery-key-file", "recovery");
    let found = in_memory(server.pid(), &secrets).unwrap();
    assert!(found.contains("ROOT"), "{found:?}");
    assert!(
        found.is_disjoint(&names(&["recovery key", "printed recovery key", "passphrase"])),
        "{found:?}"
    );
}

/// A line of `/proc/PID/status` or `/proc/PID/limits`, without its name.
fn line(pid: u32, file: &str, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).expect("/proc");
    let found = text.lines().find_map(|line| line.strip_prefix(name));
    found
        .unwrap_or_else(|| panic!("no {name} in {file}"))
        .trim_start_matches(':')
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether another process of the same user may look at a process: its files in /proc belong to that user, and what is
/// guarded like its memory can be read.
fn open_to_its_user(pid: u32, user: Option<u32>) -> bool {
    let mut look = Command::new("cat");
    look.arg(format!("/proc/{pid}/environ"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(user) = user {
        look.uid(user).gid(user);
    }
    let owner = fs::metadata(format!("/proc/{pid}/stat")).expect("/proc").uid();
    let own = user.unwrap_or_else(|| rustix::process::getuid().as_raw());
    let readable = look.status().expect("cat").success();
    assert_eq!(owner == own, readable, "owner {owner}, readable {readable}");
    readable
}

fn as_user(command: &mut Command, user: Option<u32>) -> Child {
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    command.spawn().expect("starts")
}

#[test]
fn nobody_but_root_may_look_at_the_process_and_it_leaves_no_core() {
    let folder = Folder::new();
    // As root the server runs for a user without rights: root may look at everything anyway.
    let user = rustix::process::getuid().is_root().then_some(NOBODY);
    let program = folder.join("keepwell");
    fs::copy(env!("CARGO_BIN_EXE_keepwell"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    chown(folder.path(), user, user).unwrap();
    let data = folder.join("data");
    let run = |sub: &str| {
        let mut command = Command::new(&program);
        command
            .args([sub, "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"])
            .args(["--patients", "0"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.join("log")).unwrap());
        command
    };
    let mut server = as_user(&mut run("demo"), user);
    let mut ready = String::new();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut ready)
        .unwrap();
    assert!(
        ready.contains("\"ready\""),
        "{}",
        fs::read_to_string(folder.join("log")).unwrap()
    );
    let pid = server.id();

    // A process of that user that did nothing of the kind: what is asserted below can be seen.
    let mut control = as_user(Command::new("sleep").arg("600").current_dir(folder.path()), user);
    assert!(
        open_to_its_user(control.id(), user),
        "an ordinary process is open to its user"
    );
    assert_ne!(line(control.id(), "limits", "Max core file size"), "0 0 bytes");

    let check = |when: &str| {
        assert!(!open_to_its_user(pid, user), "{when}");
        assert_eq!(line(pid, "limits", "Max core file size"), "0 0 bytes", "{when}");
        let logged = fs::read_to_string(folder.join("log")).unwrap();
        let locked = line(pid, "status", "VmLck");
        if logged.contains("memory could not be locked") {
            assert_eq!(locked, "0 kB", "{when}");
        } else {
            assert_ne!(locked, "0 kB", "{when}");
        }
        println!("{when}: closed to its user, core limit 0, locked memory {locked}");
    };
    check("serving");
    let output = cli(&["keys", "seal", "--data", data.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    // The process is replaced by a fresh one under the same number, which must close itself anew.
    let status = || cli(&["keys", "status", "--data", data.to_str().unwrap()]).stdout;
    while support::find(&status(), b"sealed").is_none() {
        assert!(server.try_wait().unwrap().is_none(), "the server ended");
    }
    check("sealed");

    // A fault leaves no image of the memory behind.
    let abort = |child: &mut Child| {
        let id = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(id, rustix::process::Signal::ABORT).unwrap();
        child.wait().unwrap()
    };
    let status = abort(&mut server);
    assert_eq!(status.signal(), Some(6));
    assert!(!status.core_dumped());
    let cores = support::files(folder.path());
    assert!(
        !cores.iter().any(|path| path.to_string_lossy().contains("core")),
        "{cores:?}"
    );
    if !abort(&mut control).core_dumped() {
        println!("SKIPPED 1 comparison with a process that leaves a core: this machine writes none for any process");
    }
}

#[test]
fn root_locks_the_memory_of_the_server() {
    let server = Server::empty();
    if server.logged().contains("memory could not be locked") {
        println!("SKIPPED 1 check of locked memory: this machine does not allow it, and the server says so");
        assert_eq!(line(server.pid(), "status", "VmLck"), "0 kB");
        return;
    }
    let kb = |name: &str| -> u64 {
        let text = line(server.pid(), "status", name);
        text.split(' ').next().unwrap().parse().unwrap()
    };
    let (locked, resident) = (kb("VmLck"), kb("VmRSS"));
    println!("locked {locked} kB, resident {resident} kB");
    assert!(locked >= resident / 2, "locked {locked} kB of {resident} kB resident");
}

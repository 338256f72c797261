//! A toy follower: an index of texts by id, and a clinic directory to run it in.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests"
)]

use keepwell_ledger::{
    Body, Config, Event, Follower, Header, HomeKey, KeyFile, Kind, Ledger, Notice, OpenError, Placed, Plan, Replayed,
    Turn,
};
use keepwell_model::time::{Clock, Entropy, EntropyUnavailable, Timestamp};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

/// A version the toy index knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Known {
    pub rid: u64,
    pub version: u32,
    pub slot: u32,
    pub last_updated: i64,
    pub deleted: bool,
    pub text: Vec<u8>,
}

/// Ids to all versions, oldest first.
pub type Index = BTreeMap<String, Vec<Known>>;

/// What a moment of a change is called in [`Toy::at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    Decided,
    Sealing,
    Committed,
    Answered,
    Forgotten,
}

type Watch = Box<dyn Fn(Moment) + Send + Sync>;

#[derive(Default)]
pub struct Toy {
    pub index: Mutex<Index>,
    pub at: Mutex<Option<Watch>>,
}

/// A write. `patients` of one: at home there; of several: a slot of its own; none: shared.
#[derive(Clone)]
pub struct Put {
    pub id: String,
    pub patients: Vec<String>,
    pub text: Option<Vec<u8>>,
    pub expect: Option<u32>,
    body: Body,
    version: u32,
    at: i64,
}

impl Put {
    pub fn new(id: &str, patients: &[&str], text: &str) -> Self {
        Self {
            id: id.to_owned(),
            patients: patients.iter().map(|p| (*p).to_owned()).collect(),
            text: Some(text.as_bytes().to_vec()),
            expect: None,
            body: Body::compress(text.as_bytes()),
            version: 0,
            at: 0,
        }
    }

    pub fn delete(id: &str) -> Self {
        Self {
            text: None,
            body: Body::empty(),
            ..Self::new(id, &[], "")
        }
    }

    pub fn expecting(mut self, version: u32) -> Self {
        self.expect = Some(version);
        self
    }
}

/// Patients are written into the text, so that a rebuild finds them: `[a,b] text`.
pub fn text_of(patients: &[&str], text: &str) -> String {
    format!("[{}] {text}", patients.join(","))
}

fn home_in(text: &[u8], slot: u32) -> HomeKey {
    let text = String::from_utf8_lossy(text);
    let Some((ids, _)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) else {
        return HomeKey::Slot(slot);
    };
    let mut ids: Vec<String> = ids.split(',').filter(|i| !i.is_empty()).map(str::to_owned).collect();
    ids.sort();
    match ids.len() {
        0 => HomeKey::Shared,
        1 => HomeKey::Patient(ids[0].clone()),
        _ => HomeKey::Fresh(ids),
    }
}

impl Toy {
    fn tell(&self, moment: Moment) {
        if let Some(watch) = &*self.at.lock().unwrap() {
            watch(moment);
        }
    }

    pub fn index(&self) -> Index {
        self.index.lock().unwrap().clone()
    }
}

impl Follower for Toy {
    type Change = Put;
    type Answer = Known;
    type Refusal = u32;
    type Pending = BTreeMap<String, (u32, u64, i64, u32)>;
    type Prepared = (String, Known);

    fn decide(&self, put: &mut Put, pending: &mut Self::Pending, turn: Turn) -> Result<Vec<Plan>, u32> {
        let index = self.index.lock().unwrap();
        let newest = pending.get(&put.id).copied().or_else(|| {
            index
                .get(&put.id)
                .and_then(|v| v.last())
                .map(|k| (k.version, k.rid, k.last_updated, k.slot))
        });
        let (version, prev, updated, slot) = newest.unwrap_or((0, 0, i64::MIN, u32::MAX));
        if put.expect.is_some_and(|e| e != version) {
            return Err(version);
        }
        put.version = version + 1;
        put.at = turn.at.0.max(updated);
        let home = match put.patients.as_slice() {
            _ if slot != u32::MAX => HomeKey::Slot(slot),
            [] => HomeKey::Shared,
            [one] => HomeKey::Patient(one.clone()),
            several => {
                let mut ids = several.to_vec();
                ids.sort();
                HomeKey::Fresh(ids)
            }
        };
        let known_slot = if slot == u32::MAX { u32::MAX } else { slot };
        pending.insert(put.id.clone(), (put.version, turn.rid, put.at, known_slot));
        drop(index);
        self.tell(Moment::Decided);
        let header = Header {
            kind: if put.text.is_some() {
                Kind::Version
            } else {
                Kind::Deleted
            },
            type_code: 7,
            id: put.id.clone(),
            version: put.version,
            prev,
            last_updated: put.at,
        };
        Ok(vec![Plan {
            home,
            header,
            body: put.body.clone(),
        }])
    }

    fn event(&self, put: &mut Put, outcome: Result<&[Placed], &u32>) -> Event {
        self.tell(Moment::Sealing);
        match outcome {
            Ok(placed) => Event {
                kind: 2,
                actor: format!("nurse wrote {}", put.id).into_bytes(),
                parts: placed.iter().map(|p| (p.slot, p.rid.to_be_bytes().to_vec())).collect(),
            },
            Err(_) => Event {
                kind: 3,
                actor: b"refused".to_vec(),
                parts: Vec::new(),
            },
        }
    }

    fn apply(&self, put: &mut Put, placed: &[Placed]) {
        self.tell(Moment::Committed);
        let mut index = self.index.lock().unwrap();
        index.entry(put.id.clone()).or_default().push(Known {
            rid: placed[0].rid,
            version: put.version,
            slot: placed[0].slot,
            last_updated: put.at,
            deleted: put.text.is_none(),
            text: put.text.clone().unwrap_or_default(),
        });
    }

    fn answer(&self, put: Put, placed: &[Placed]) -> Known {
        self.tell(Moment::Answered);
        let index = self.index.lock().unwrap();
        index[&put.id].iter().find(|k| k.rid == placed[0].rid).cloned().unwrap()
    }

    fn prepare(&self, row: Replayed) -> (Self::Prepared, HomeKey) {
        let home = home_in(&row.text, row.slot);
        let known = Known {
            rid: row.rid,
            version: row.header.version,
            slot: row.slot,
            last_updated: row.header.last_updated,
            deleted: row.header.kind == Kind::Deleted,
            text: row.text,
        };
        ((row.header.id, known), home)
    }

    fn replay(&self, rows: Vec<Self::Prepared>) {
        let mut index = self.index.lock().unwrap();
        for (id, known) in rows {
            let versions = index.entry(id).or_default();
            // By version: copies come later than what follows their originals. A row known already is not taken twice.
            if versions.iter().all(|k| k.rid != known.rid) {
                let at = versions.iter().filter(|k| k.version <= known.version).count();
                versions.insert(at, known);
            }
        }
    }

    fn rows_of(&self, slot: u32) -> Vec<u64> {
        let index = self.index.lock().unwrap();
        let mut rids: Vec<u64> = index
            .values()
            .flatten()
            .filter(|k| k.slot == slot)
            .map(|k| k.rid)
            .collect();
        rids.sort_unstable();
        rids
    }

    fn forget(&self, slot: u32) {
        self.tell(Moment::Forgotten);
        let mut index = self.index.lock().unwrap();
        for versions in index.values_mut() {
            versions.retain(|k| k.slot != slot);
        }
        index.retain(|_, versions| !versions.is_empty());
    }

    fn dump(&self, out: &mut dyn Write) -> std::io::Result<()> {
        for (id, versions) in &*self.index.lock().unwrap() {
            for k in versions {
                for field in [id.as_bytes(), &k.text] {
                    out.write_all(&(field.len() as u64).to_be_bytes())?;
                    out.write_all(field)?;
                }
                out.write_all(&k.rid.to_be_bytes())?;
                out.write_all(&k.version.to_be_bytes())?;
                out.write_all(&k.slot.to_be_bytes())?;
                out.write_all(&k.last_updated.to_be_bytes())?;
                out.write_all(&[u8::from(k.deleted)])?;
            }
        }
        out.write_all(&u64::MAX.to_be_bytes())
    }

    fn canonical(&self, out: &mut dyn Write) -> std::io::Result<()> {
        self.dump(out)
    }

    fn fresh(&self) -> Self {
        Self::default()
    }

    fn load(&self, from: &mut dyn Read) -> std::io::Result<()> {
        let mut index = self.index.lock().unwrap();
        index.clear();
        let result = read_dump(from, &mut index);
        if result.is_err() {
            index.clear();
        }
        result
    }
}

fn read_dump(from: &mut dyn Read, index: &mut Index) -> std::io::Result<()> {
    fn array<const N: usize>(from: &mut dyn Read) -> std::io::Result<[u8; N]> {
        let mut bytes = [0; N];
        from.read_exact(&mut bytes)?;
        Ok(bytes)
    }
    fn field(from: &mut dyn Read, length: u64) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).map_err(std::io::Error::other)?];
        from.read_exact(&mut bytes)?;
        Ok(bytes)
    }
    loop {
        let length = u64::from_be_bytes(array(from)?);
        if length == u64::MAX {
            return Ok(());
        }
        let id = String::from_utf8(field(from, length)?).map_err(std::io::Error::other)?;
        let length = u64::from_be_bytes(array(from)?);
        let text = field(from, length)?;
        let known = Known {
            rid: u64::from_be_bytes(array(from)?),
            version: u32::from_be_bytes(array(from)?),
            slot: u32::from_be_bytes(array(from)?),
            last_updated: i64::from_be_bytes(array(from)?),
            deleted: array::<1>(from)? == [1],
            text,
        };
        index.entry(id).or_default().push(known);
    }
}

/// A clock that is set by hand.
pub struct Hands(pub AtomicI64);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

pub struct Random;

impl Entropy for Random {
    fn fill(&self, out: &mut [u8]) -> Result<(), EntropyUnavailable> {
        aws_lc_rs::rand::fill(out).map_err(|_| EntropyUnavailable)
    }
}

/// A data directory and what is needed to open it.
pub struct Clinic {
    pub base: tempfile::TempDir,
    pub config: Config,
    pub clock: Arc<Hands>,
}

pub type ToyLedger = Ledger<Toy>;

impl Clinic {
    pub fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let mut config = Config::new(base.path().join("data"));
        config.era_copies = vec![base.path().join("era-copy")];
        config.reserve = 0;
        config.origin = "test.example/log".to_owned();
        let clock = Arc::new(Hands(AtomicI64::new(1_700_000_000_000)));
        let key = KeyFile::create(&base.path().join("key"), &Random).unwrap();
        let entropy: Arc<dyn Entropy> = Arc::new(Random);
        ToyLedger::init(&config, &key, clock.as_ref(), &entropy).unwrap();
        Self { base, config, clock }
    }

    pub fn key(&self) -> KeyFile {
        KeyFile::open(&self.base.path().join("key")).unwrap()
    }

    pub fn dir(&self) -> &Path {
        &self.config.dir
    }

    pub fn try_open(&self) -> Result<ToyLedger, OpenError> {
        self.open_with(&self.config)
    }

    pub fn open_with(&self, config: &Config) -> Result<ToyLedger, OpenError> {
        ToyLedger::open(
            config.clone(),
            &self.key(),
            Arc::new(Toy::default()),
            self.clock.clone(),
            Arc::new(Random),
        )
    }

    pub fn open(&self) -> ToyLedger {
        self.try_open().unwrap()
    }

    /// A copy of the directory and the ERA copy as they are on disk now: what a kill at this moment leaves.
    pub fn image(&self, name: &str) -> Config {
        let to = self.base.path().join(name);
        copy_dir(&self.config.dir, &to);
        let era = self.base.path().join(format!("{name}-era"));
        std::fs::copy(&self.config.era_copies[0], &era).unwrap();
        Config {
            dir: to,
            era_copies: vec![era],
            ..self.config.clone()
        }
    }
}

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        // SQLite rebuilds its shared memory file; a kill leaves none that matters.
        if entry.path().is_file() && !name.to_string_lossy().ends_with("-shm") {
            let _ = std::fs::copy(entry.path(), to.join(name));
        }
    }
}

pub fn put(ledger: &ToyLedger, id: &str, patients: &[&str], text: &str) -> Known {
    ledger
        .append_blocking(Put::new(id, patients, &text_of(patients, text)))
        .map_err(|e| e.to_string())
        .unwrap()
}

pub fn has(notices: &[Notice], wanted: impl Fn(&Notice) -> bool) -> bool {
    notices.iter().any(wanted)
}

pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_file())
        .collect();
    out.sort();
    out
}

/// A step, and how its image is said to be taken.
type Step = (String, std::sync::mpsc::Sender<()>);

static TOLD: Mutex<Option<std::sync::mpsc::Sender<Step>>> = Mutex::new(None);

/// Tells [`images`] of a step and waits until it has taken its image.
fn told(step: &str) {
    let tell = TOLD.lock().unwrap().clone();
    if let Some(tell) = tell {
        let (done, wait) = std::sync::mpsc::channel();
        tell.send((step.to_owned(), done)).unwrap();
        wait.recv().unwrap();
    }
}

/// A clinic whose acts tell of their steps. One a test program: there is one listener.
pub fn stepping() -> Clinic {
    let mut clinic = Clinic::new();
    clinic.config.fault = Some(told);
    clinic
}

/// What a crash at each step of `act` leaves, in order, with the step's name.
pub fn images(clinic: &Clinic, act: impl FnOnce() + Send) -> Vec<(String, Config)> {
    let (tell, steps) = std::sync::mpsc::channel();
    *TOLD.lock().unwrap() = Some(tell);
    let mut images: Vec<(String, Config)> = Vec::new();
    std::thread::scope(|scope| {
        // Also an act that panics ends the listening.
        let acting = scope.spawn(|| {
            let _end = End;
            act();
        });
        for (step, done) in steps {
            let name = format!("{step}-{}", images.len());
            let image = Config {
                fault: None,
                ..clinic.image(&name)
            };
            images.push((step, image));
            done.send(()).unwrap();
        }
        acting.join().unwrap();
    });
    images
}

struct End;

impl Drop for End {
    fn drop(&mut self) {
        *TOLD.lock().unwrap() = None;
    }
}

/// The steps' names in order; one that comes several times in a row is named once.
pub fn names(images: &[(String, Config)]) -> Vec<&str> {
    let mut names: Vec<&str> = images.iter().map(|(step, _)| step.as_str()).collect();
    names.dedup();
    names
}

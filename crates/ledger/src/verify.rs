//! Verification of a whole data directory, with and without keys.
//!
//! Without keys: every row against its leaf, every sealed event against its leaf, all leaves against the signed
//! checkpoints (those in the database, the one beside it, one kept outside), and SQLite's own check. With keys as
//! well: every row and event opens, headers form unbroken version chains, commitments hold, the newest snapshot is there;
//! and the index is built a second time, from the opened bodies alone, and compared with the snapshot and, in a running
//! server, with the one that answers (`compare`).

use crate::compare::{self, Derived, Digests};
use crate::core::Core;
use crate::error::{OpenError, ReadError};
use crate::event::{self, Part};
use crate::follower::{Follower, Header, Kind};
use crate::snapshot::{Open, Record};
use crate::{erase, row, start};
use hashbrown::{HashMap, HashSet};
use keepwell_audit::Hash;
use keepwell_audit::checkpoint::Checkpoint;
use keepwell_audit::leaf::{Leaf, Notice, event_digest, row_digest};
use keepwell_audit::merkle::{Frontier, leaf_hash};
use keepwell_audit::note::VerifierKey;
use keepwell_model::time::Entropy;
use keepwell_store::{Options as StoreOptions, Store, StoreError};
use keepwell_vault::{Custodian, Vault};
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Findings kept in words.
const WORDS: usize = 100;

/// What `verify` found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Everything checked holds.
    pub ok: bool,
    /// Rows in the log.
    pub rows: u64,
    /// Entries in the log.
    pub entries: u64,
    /// Rows that opened and whose header fits its neighbours (with keys).
    pub opened: u64,
    /// Rows whose slot was erased (with keys).
    pub erased: u64,
    /// Whether the log was compared with a checkpoint kept outside the directory.
    pub checkpoint_compared: bool,
    /// Whether keys were used.
    pub with_keys: bool,
    /// The digest of the index as the opened bodies give it, in canonical form: two directories with one log have the
    /// same. `None` without keys, or when an erasure or rotation is not finished.
    pub index_digest: Option<Hash>,
    /// Whether the index of the running server was compared with that of the bodies.
    pub index_compared: bool,
    /// Whether the snapshot was compared with the bodies.
    pub snapshot_compared: bool,
    /// What is wrong, in the operator's words; ids and numbers only. At most 100.
    pub findings: Vec<String>,
    /// Damage beyond those listed.
    pub more: u64,
}

impl Report {
    fn finding(&mut self, text: String) {
        if self.findings.len() < WORDS {
            self.findings.push(text);
        } else {
            self.more += 1;
        }
    }
}

/// What to verify with.
#[derive(Default)]
pub struct Options<'a> {
    /// Opens the keyring; without it only rows, leaves, tree and checkpoints are compared.
    pub custodian: Option<&'a dyn Custodian>,
    /// Needed with `custodian`: opening may have to finish an interrupted erasure.
    pub entropy: Option<Arc<dyn Entropy>>,
    /// A checkpoint kept outside the data directory, to detect that all of it was rolled back.
    pub checkpoint: Option<&'a Path>,
    /// Other places of the ERA.
    pub era_copies: Vec<PathBuf>,
    /// The keyring, if it is not in the data directory.
    pub keyring: Option<PathBuf>,
}

/// Verifies the data directory of a stopped ledger; a crashed write-ahead log is recovered first. `follower` is asked for
/// fresh ones, to build the index from the bodies and from the snapshot.
///
/// # Errors
/// The directory cannot be read at all, or the keyring does not open. Damage to the log is a finding.
pub fn verify<F: Follower>(dir: &Path, options: &Options<'_>, follower: &F) -> Result<Report, OpenError> {
    if !dir.join("keepwell.db").exists() {
        return Err(OpenError::NoData(dir.display().to_string()));
    }
    let mut repaired = Vec::new();
    let vault = match (options.custodian, &options.entropy) {
        (Some(custodian), Some(entropy)) => {
            let lock = keepwell_store::DirectoryLock::acquire(dir)?;
            let mut config = crate::Config::new(dir);
            config.era_copies.clone_from(&options.era_copies);
            config.keyring.clone_from(&options.keyring);
            let (vault, settled) = Vault::open(start::paths(&config), custodian, Arc::clone(entropy))?;
            drop(lock);
            repaired = settled.repaired;
            Some(vault)
        }
        _ => None,
    };
    let (store, writer) = match Store::open(
        dir,
        StoreOptions {
            reserve_bytes: 0,
            ..StoreOptions::default()
        },
    ) {
        Ok((store, writer)) => (store, Some(writer)),
        Err(StoreError::ReadOnly) => (Store::open_read_only(dir)?, None),
        Err(e) => return Err(e.into()),
    };
    let outside: Vec<&Path> = options.checkpoint.into_iter().collect();
    let subject = Subject {
        dir,
        store: &store,
        vault: vault.as_ref(),
        follower,
        live: None,
    };
    let mut report = check(&subject, &outside)?;
    drop(writer);
    for place in repaired {
        report.finding(format!(
            "the ERA place `{}` was damaged; it has been written anew",
            place.display()
        ));
    }
    report.ok = report.findings.is_empty();
    Ok(report)
}

/// A checkpoint that the tree must pass through.
struct Milestone {
    name: &'static str,
    checkpoint: Checkpoint,
}

struct Checks<'a> {
    report: Report,
    vault: Option<&'a Vault>,
    /// Those not passed yet; the next one last.
    milestones: Vec<Milestone>,
    /// Digest of each row by rid, as its leaf says.
    digests: Vec<(u64, Hash)>,
    blanked: HashSet<u64>,
    /// Rows that are copies of earlier ones, as their leaves say.
    copies: HashSet<u64>,
    /// The newest checkpoint is signed by an earlier key than today's: a rotation is not finished.
    handing_over: bool,
    frontier: Frontier,
}

/// What is verified.
pub(crate) struct Subject<'a, F: Follower> {
    pub(crate) dir: &'a Path,
    pub(crate) store: &'a Store,
    pub(crate) vault: Option<&'a Vault>,
    pub(crate) follower: &'a F,
    /// The running ledger, if it is one.
    pub(crate) live: Option<&'a Core<F>>,
}

/// Verifies what a store holds.
pub(crate) fn check<F: Follower>(subject: &Subject<'_, F>, outside: &[&Path]) -> Result<Report, OpenError> {
    let Subject { dir, store, vault, .. } = *subject;
    let mut checks = Checks {
        report: Report {
            with_keys: vault.is_some(),
            ..Report::default()
        },
        vault,
        milestones: Vec::new(),
        digests: Vec::new(),
        blanked: HashSet::new(),
        copies: HashSet::new(),
        handing_over: false,
        frontier: Frontier::new(),
    };
    for problem in store.integrity()? {
        checks.report.finding(format!("database: {problem}"));
    }
    checks.find_milestones(dir, store, outside)?;
    checks.keyring(store);
    let snapshot = checks.snapshot(subject)?;
    let view = store.view()?;
    let size = view.size()?;
    if size > 0 {
        view.entries(0..=size - 1, |entry| -> Result<(), OpenError> {
            checks.entry(entry.seq, entry.entry, entry.sealed);
            Ok(())
        })?;
    }
    checks.tree(size);
    let mut chains = Chains::default();
    let mut at = 0;
    let last = view.last_rid()?;
    if last > 0 {
        view.rows(0..=last, |row| -> Result<(), OpenError> {
            at = checks.row(at, row.rid, &row.key_ref, row.body, &mut chains);
            Ok(())
        })?;
    }
    let missing: Vec<u64> = checks.digests.iter().skip(at).map(|(rid, _)| *rid).collect();
    for rid in missing {
        checks.report.finding(format!("row {rid} is missing"));
    }
    drop(view);
    checks.indexes(subject, snapshot, (last, size))?;
    let mut report = checks.report;
    report.ok = report.findings.is_empty();
    Ok(report)
}

impl Checks<'_> {
    fn find_milestones(&mut self, dir: &Path, store: &Store, outside: &[&Path]) -> Result<(), OpenError> {
        let origin = match start::origin_of(store) {
            Ok(origin) => origin,
            Err(OpenError::Forked) => {
                self.report.finding("the log's name is missing".to_owned());
                String::new()
            }
            Err(e) => return Err(e),
        };
        let view = store.view()?;
        let keys = match self.vault {
            Some(vault) => crate::rotate::log_keys(vault, &origin),
            None => named_keys(store, &origin)?,
        };
        if keys.is_empty() {
            self.report.finding("no entry names the signing key".to_owned());
            return Ok(());
        }
        for (size, note) in view.checkpoints()? {
            if let Some(checkpoint) = self.milestone("a checkpoint of the database", &note, &keys, &origin)
                && checkpoint.size != size
            {
                self.report
                    .finding(format!("the checkpoint of size {size} is of another size"));
            }
        }
        match view.last_checkpoint()? {
            Some(record) => {
                self.handing_over = Checkpoint::open(&record.note, keys.get(..1).unwrap_or_default()).is_err();
                let signed = Checkpoint::open(&record.note, &keys).ok();
                let edge = Frontier::from_bytes(&record.frontier).ok();
                if let Some(signed) = signed
                    && edge.is_none_or(|edge| edge.size() != signed.size || edge.root() != signed.root)
                {
                    self.report
                        .finding("the stored tree edge does not belong to the checkpoint".to_owned());
                }
            }
            None => self.report.finding("the database holds no checkpoint".to_owned()),
        }
        if let Ok(note) = std::fs::read(dir.join("checkpoint")) {
            self.milestone("the checkpoint file", &note, &keys, &origin);
        }
        for path in outside {
            match std::fs::read(path) {
                Ok(note) => {
                    self.milestone("the outside checkpoint", &note, &keys, &origin);
                    self.report.checkpoint_compared = true;
                }
                Err(_) => self.report.finding("the outside checkpoint cannot be read".to_owned()),
            }
        }
        self.milestones.sort_by_key(|m| std::cmp::Reverse(m.checkpoint.size));
        Ok(())
    }

    fn milestone(
        &mut self,
        name: &'static str,
        note: &[u8],
        keys: &[VerifierKey],
        origin: &str,
    ) -> Option<&Checkpoint> {
        match Checkpoint::open(note, keys) {
            Ok(checkpoint) if checkpoint.origin == origin => {
                self.milestones.push(Milestone { name, checkpoint });
                self.milestones.last().map(|m| &m.checkpoint)
            }
            _ => {
                self.report.finding(format!("{name} is not signed by this log"));
                None
            }
        }
    }

    /// Whether the keyring is at least as new as the last commit under it.
    fn keyring(&mut self, store: &Store) {
        let Some(vault) = self.vault else { return };
        match start::keyring_revision(store) {
            Ok(revision) if vault.revision() >= revision => {}
            Ok(_) => self
                .report
                .finding("the keyring is older than the log: copy the newest back".to_owned()),
            Err(_) => self
                .report
                .finding("the keyring's revision in the database is not a number".to_owned()),
        }
    }

    fn pass_milestones(&mut self) {
        let size = self.frontier.size();
        while let Some(milestone) = self.milestones.pop_if(|m| m.checkpoint.size <= size) {
            if milestone.checkpoint.root != self.frontier.root() {
                let (name, size) = (milestone.name, milestone.checkpoint.size);
                self.report
                    .finding(format!("the entries are not those of {name} (size {size})"));
            }
        }
    }

    fn entry(&mut self, seq: u64, entry: &[u8], sealed: Option<&[u8]>) {
        self.report.entries += 1;
        if seq != self.frontier.size() {
            self.report
                .finding(format!("entry {} is missing", self.frontier.size()));
        }
        self.frontier.append(leaf_hash(entry));
        self.pass_milestones();
        match Leaf::from_bytes(entry) {
            Ok(Leaf::Row { rid, digest }) => {
                if self.digests.last().is_some_and(|(last, _)| *last >= rid) {
                    self.report.finding(format!("entry {seq} names row {rid} out of order"));
                }
                self.digests.push((rid, digest));
                if sealed.is_some() {
                    self.report.finding(format!("entry {seq} holds what it should not"));
                }
            }
            Ok(Leaf::Event {
                at,
                kind,
                sealed: digest,
                commitment,
            }) => match sealed {
                Some(sealed) if event_digest(sealed) == digest => self.event(seq, at, kind, sealed, &commitment),
                _ => self
                    .report
                    .finding(format!("the event of entry {seq} is not the one its leaf names")),
            },
            Ok(Leaf::Notice { notice, .. }) => {
                match notice {
                    Notice::Blanked(rids) => self.blanked.extend(rids),
                    Notice::Redacted { new, .. } | Notice::Resealed { new, .. } => drop(self.copies.insert(new)),
                    _ => {}
                }
                if sealed.is_some() {
                    self.report.finding(format!("entry {seq} holds what it should not"));
                }
            }
            Err(_) => self.report.finding(format!("entry {seq} is not a known leaf")),
        }
    }

    fn event(&mut self, seq: u64, at: i64, kind: u8, sealed: &[u8], commitment: &[u8; 32]) {
        let Some(vault) = self.vault else { return };
        let opened = event::open(vault, seq, sealed).and_then(|half| {
            let parts = half.open_parts(vault)?;
            let whole = parts.iter().all(|p| matches!(p, Part::Open(_)));
            Some(!whole || half.commits(vault, at, kind, &parts, commitment) == Some(true))
        });
        if opened != Some(true) {
            self.report.finding(format!("the event of entry {seq} does not open"));
        }
    }

    fn tree(&mut self, size: u64) {
        if self.frontier.size() != size {
            self.report
                .finding("the number of entries is not what the numbering says".to_owned());
        }
        let missed: Vec<String> = self
            .milestones
            .iter()
            .map(|m| {
                format!(
                    "the log was cut back: {} names {} entries, there are {size}",
                    m.name, m.checkpoint.size
                )
            })
            .collect();
        for text in missed {
            self.report.finding(text);
        }
    }

    /// Checks a row against the digests from position `at` on; gives the next position.
    fn row(&mut self, mut at: usize, rid: u64, key_ref: &[u8; 16], body: &[u8], chains: &mut Chains) -> usize {
        self.report.rows += 1;
        while let Some((named, _)) = self.digests.get(at).filter(|(named, _)| *named < rid) {
            let text = format!("row {named} is missing");
            self.report.finding(text);
            at += 1;
        }
        let blank = body.is_empty() && self.blanked.contains(&rid);
        match self.digests.get(at) {
            Some((named, digest)) if *named == rid => {
                at += 1;
                if !blank && row_digest(rid, key_ref, body) != *digest {
                    self.report.finding(format!("row {rid} is not the one its leaf names"));
                    chains.unknown();
                    return at;
                }
            }
            _ => self.report.finding(format!("row {rid} has no leaf")),
        }
        if let Some(vault) = self.vault {
            match row::open(vault, rid, key_ref, body) {
                Ok(row) => {
                    self.report.opened += 1;
                    if self.copies.contains(&rid) {
                        chains.copied(rid, &row.header);
                    } else if let Some(problem) = chains.follow(rid, &row.header) {
                        self.report.finding(format!("row {rid}: {problem}"));
                    }
                }
                Err(ReadError::Erased(_)) => {
                    self.report.erased += 1;
                    chains.unknown();
                }
                Err(ReadError::Missing(_)) if blank => chains.unknown(),
                Err(_) => {
                    self.report.finding(format!("row {rid} does not open"));
                    chains.unknown();
                }
            }
        }
        at
    }

    /// Whether no erasure or rotation is under way: until the next start finishes one, its snapshot is of before, with its
    /// key gone, and so may be rows that the index still knows.
    fn settled(&self, store: &Store) -> Result<bool, OpenError> {
        let unannounced = self.vault.is_some_and(|vault| !vault.unannounced().is_empty());
        Ok(!unannounced && !self.handing_over && erase::begun(store)?.is_empty())
    }

    /// Finds the snapshot that should be there, and says what is wrong with it. Loaded as far as it can be.
    fn snapshot<F: Follower>(&mut self, subject: &Subject<'_, F>) -> Result<Option<Derived<F>>, OpenError> {
        let (Some(vault), store) = (self.vault, subject.store) else {
            return Ok(None);
        };
        let (written, found, destroyed) = {
            // File and record belong together while none is written or removed.
            let _still = subject.live.map(|core| core.snapshotting.lock());
            if !self.settled(store)? {
                return Ok(None);
            }
            (
                Record::stored(store)?,
                Open::find(subject.dir, vault),
                vault.destroyed(),
            )
        };
        let follower = subject.follower.fresh();
        let loaded = match found.and_then(|open| open.map(|open| open.load(&follower)).transpose()) {
            Ok(Some(loaded)) => loaded,
            Ok(None) => {
                if let Some(written) = written {
                    let at = written.entries;
                    self.report
                        .finding(format!("snapshot: one of {at} entries was written and is gone"));
                }
                return Ok(None);
            }
            Err(why) => {
                self.report
                    .finding(format!("snapshot: {why}; the next start rebuilds the index"));
                return Ok(None);
            }
        };
        if let Some(written) = written.filter(|written| loaded.record.is_older_than(written)) {
            self.report.finding(format!(
                "snapshot: it is an older one, of {} entries; one of {} was written since",
                loaded.record.entries, written.entries
            ));
        }
        Ok(Some(Derived::loaded(follower, loaded, destroyed)))
    }

    /// Builds the index from the bodies, and compares with it the snapshot and the one that answers.
    fn indexes<F: Follower>(
        &mut self,
        subject: &Subject<'_, F>,
        snapshot: Option<Derived<F>>,
        (last_rid, size): (u64, u64),
    ) -> Result<(), OpenError> {
        let (Some(vault), store) = (self.vault, subject.store) else {
            return Ok(());
        };
        if !self.settled(store)? {
            return Ok(());
        }
        let snapshot = snapshot.filter(|snapshot| {
            let newer = snapshot.rows() > last_rid || snapshot.entries() > size;
            if newer {
                self.report.finding("snapshot: it is newer than the log".to_owned());
            }
            !newer
        });
        // One after the other, so that one index is in memory beside the live one.
        let from_snapshot = match (snapshot, subject.live) {
            (Some(mut snapshot), None) => {
                snapshot.follow(store, vault, last_rid, size)?;
                Some((snapshot.digests(), None))
            }
            (Some(snapshot), Some(core)) => compare::with_live(core, snapshot)?.map(|(of, live)| (of, Some(live))),
            (None, _) => None,
        };
        let mut built = Derived::new(subject.follower.fresh(), vault);
        let built = match subject.live {
            None => {
                built.follow(store, vault, last_rid, size)?;
                Some((built.digests(), None))
            }
            // Not up to here: what is committed may not be applied yet.
            Some(core) => compare::with_live(core, built)?.map(|(of, live)| (of, Some(live))),
        };
        let Some((built, live)) = built else { return Ok(()) };
        self.report.index_digest = Some(built.index);
        if let Some(live) = live {
            self.report.index_compared = true;
            self.differences("the running server", &live, &built);
        }
        if let Some((of, live)) = from_snapshot {
            self.report.snapshot_compared = true;
            self.differences("the snapshot", &of, live.as_ref().unwrap_or(&built));
        }
        Ok(())
    }

    fn differences(&mut self, name: &str, one: &Digests, other: &Digests) {
        for what in one.differences(other) {
            self.report
                .finding(format!("{what} of {name} is not what the log gives"));
        }
    }
}

/// The signing keys that the log itself names, newest first.
fn named_keys(store: &Store, origin: &str) -> Result<Vec<VerifierKey>, OpenError> {
    let mut keys = Vec::new();
    let view = store.view()?;
    let size = view.size()?;
    if size > 0 {
        view.entries(0..=size - 1, |entry| -> Result<(), OpenError> {
            if let Ok(Leaf::Notice {
                notice: Notice::SigningKey { public },
                ..
            }) = Leaf::from_bytes(entry.entry)
            {
                keys.extend(VerifierKey::new(origin, public));
            }
            Ok(())
        })?;
    }
    keys.reverse();
    Ok(keys)
}

/// Version chains: each row's `prev` is the resource's newest row so far.
#[derive(Default)]
struct Chains {
    hasher: hashbrown::DefaultHashBuilder,
    newest: HashMap<u64, (u64, u32)>,
    /// Some rows could not be read: a chain may go through them.
    gaps: bool,
}

impl Chains {
    fn unknown(&mut self) {
        self.gaps = true;
    }

    /// A copy stands for its original; what comes next follows it when it is the newest version.
    fn copied(&mut self, rid: u64, header: &Header) {
        let name = self.hasher.hash_one((header.type_code, header.id.as_str()));
        if header.kind != Kind::Left && self.newest.get(&name).is_none_or(|(_, v)| *v <= header.version) {
            self.newest.insert(name, (rid, header.version));
        }
    }

    fn follow(&mut self, rid: u64, header: &Header) -> Option<&'static str> {
        if header.kind == Kind::Blob {
            return (header.prev >= rid).then_some("an attachment of a later row");
        }
        let name = self.hasher.hash_one((header.type_code, header.id.as_str()));
        let known = self.newest.get(&name).copied();
        if header.kind == Kind::Left {
            return None;
        }
        self.newest.insert(name, (rid, header.version));
        match known {
            _ if header.prev >= rid => Some("it follows a later row"),
            Some((newest, version)) if newest == header.prev => {
                (version + 1 != header.version).then_some("its version number does not follow")
            }
            _ if self.gaps => None,
            None if header.prev == 0 => (header.version != 1).then_some("a first version is not number 1"),
            _ => Some("it does not follow the newest row of its resource"),
        }
    }
}

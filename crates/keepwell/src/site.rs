//! Everything opened and wired: the composition root's one object.

use crate::cli::Unlock;
use crate::effects::{SystemClock, SystemEntropy};
use crate::outbound::Network;
use crate::settings::{Custody, Settings};
use anyhow::{Context as _, bail};
use keepwell_identity::{BoxFuture, DocumentError, Documents, Identity, KeyUnavailable, Parts, TokenKey};
use keepwell_ledger::{Config, Ledger, Notice};
use keepwell_model::actor::{Actor, Assurance, Context, EntryPath, Place, PurposeOfUse, Role};
use keepwell_model::reference::Base;
use keepwell_model::time::{Clock, Entropy as _};
use keepwell_policy::{Action, Engine};
use keepwell_record::{Door, Gate, Limits, Records, Refusal};
use keepwell_vault::{Custodian, KeyFile, Passphrase, RecoveryKey};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// An open data directory.
pub struct Site {
    /// The data directory.
    pub dir: PathBuf,
    /// Its settings.
    pub settings: Settings,
    /// How it was unlocked.
    pub unlock: Unlock,
    /// The way to patient data.
    pub door: Arc<Door>,
    /// Who is asking.
    pub identity: Arc<Identity>,
}

/// The custodian that the command line or the settings name.
///
/// # Errors
/// The file cannot be read or holds nothing usable.
pub fn custodian(dir: &Path, settings: &Settings, unlock: &Unlock) -> anyhow::Result<Box<dyn Custodian>> {
    if let Some(path) = &unlock.recovery_key_file {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let text = Zeroizing::new(text);
        return Ok(Box::new(
            RecoveryKey::parse(text.trim()).context("this is not a recovery key")?,
        ));
    }
    let custody = match (&unlock.passphrase_file, &unlock.credential) {
        (Some(path), _) => Custody::PassphraseFile(path.clone()),
        (None, Some(name)) => Custody::Credential(name.clone()),
        (None, None) => settings.custody.clone(),
    };
    Ok(match custody {
        Custody::PassphraseFile(path) => Box::new(
            Passphrase::from_file(&path).with_context(|| format!("cannot read the passphrase `{}`", path.display()))?,
        ),
        Custody::Credential(name) => Box::new(credential(&name)?),
        Custody::KeyFile(path) => {
            let path = dir.join(path);
            Box::new(KeyFile::open(&path).with_context(|| format!("cannot read the key file `{}`", path.display()))?)
        }
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "systemd passes credentials by this variable; read here only"
)]
fn credential(name: &str) -> anyhow::Result<Passphrase> {
    if name.contains('/') {
        bail!("a credential has a name, not a path");
    }
    let Ok(folder) = std::env::var("CREDENTIALS_DIRECTORY") else {
        bail!(
            "there is no $CREDENTIALS_DIRECTORY: start the service by systemd with LoadCredentialEncrypted={name}:..."
        );
    };
    let path = Path::new(&folder).join(name);
    Passphrase::from_file(&path).with_context(|| format!("cannot read the credential `{name}`"))
}

/// The ledger's configuration of a data directory.
#[must_use]
pub fn config(dir: &Path, settings: &Settings, checkpoint_copy: Option<&Path>) -> Config {
    Config {
        era_copies: settings.era_copies.clone(),
        era_places_min: settings.era_places_min,
        keyring_copy: settings.keyring_copy.clone(),
        checkpoint_copy: checkpoint_copy.map(Path::to_owned),
        sync_reads: settings.sync_reads,
        reserve: settings.reserve,
        origin: format!("{}/keepwell", settings.name),
        fault: cfg!(debug_assertions).then_some(stop_at),
        ..Config::new(dir)
    }
}

/// Size of the database from which the index is large enough for the kernel's huge pages to pay, in bytes.
const HUGE_PAGES_FROM: u64 = 256 << 20;

/// Kills this process, as a crash would, at the moment of an erasure that `KEEPWELL_STOP_AT` names. For tests: a
/// release build never calls it.
#[allow(clippy::disallowed_methods, reason = "read by builds for tests only")]
fn stop_at(step: &str) {
    if std::env::var("KEEPWELL_STOP_AT").is_ok_and(|wanted| wanted == step) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

impl Site {
    /// Opens a data directory: unlocks, brings the index up to date, loads the policies.
    ///
    /// # Errors
    /// In a sentence, with the way out.
    pub fn open(dir: &Path, unlock: &Unlock, checkpoint_copy: Option<&Path>) -> anyhow::Result<Self> {
        let settings = Settings::read(dir)?;
        if std::fs::metadata(dir.join(keepwell_store::DATABASE)).is_ok_and(|m| m.len() > HUGE_PAGES_FROM) {
            // Where the kernel has none, searches are a little slower: nothing to tell.
            let _ = rustix::thread::disable_transparent_huge_pages(false);
        }
        let custodian = custodian(dir, &settings, unlock)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut seed = [0; 16];
        SystemEntropy.fill(&mut seed)?;
        let records = Arc::new(Records::new(seed, Base::new(&settings.name)));
        let engine = Arc::new(Engine::load()?);
        let ledger = Ledger::open(
            config(dir, &settings, checkpoint_copy),
            custodian.as_ref(),
            Arc::clone(&records),
            Arc::clone(&clock),
            Arc::new(SystemEntropy),
        )?;
        for notice in ledger.take_notices() {
            tell(&notice);
        }
        if ledger.announce_restored(keepwell_continuity::RESTORED)? {
            tracing::info!("the log says from here on that it was restored from a backup");
        }
        let gate = Arc::new(Gate::new(Arc::clone(&engine)));
        let door = Arc::new(Door::new(
            ledger,
            records,
            gate,
            Arc::clone(&clock),
            Arc::new(SystemEntropy),
            Limits::default(),
        ));
        let identity = Arc::new(Identity::open(Parts {
            issuer: format!("https://{}/keepwell", settings.name),
            site: settings.name.clone(),
            cost: keepwell_identity::Cost::default(),
            engine,
            documents: Arc::new(DoorDocuments(Arc::clone(&door))),
            key: Arc::new(DoorKey(Arc::clone(&door))),
            outbound: Arc::new(Network::default()),
            clock,
            entropy: Arc::new(SystemEntropy),
        })?);
        Ok(Self {
            dir: dir.to_owned(),
            settings,
            unlock: unlock.clone(),
            door,
            identity,
        })
    }

    /// Rotates every key, for the secret in `new_passphrase` or the one that unlocks today. The new recovery key, to be
    /// shown once.
    ///
    /// # Errors
    /// The secret cannot be read, or too few ERA places are there.
    pub fn rotate(&self, new_passphrase: Option<&Path>, end_tokens: bool) -> anyhow::Result<String> {
        let custodian: Arc<dyn Custodian> = match new_passphrase {
            Some(path) => {
                Arc::new(Passphrase::from_file(path).with_context(|| format!("cannot read `{}`", path.display()))?)
            }
            None if self.unlock.recovery_key_file.is_some() => {
                bail!("unlocked by the recovery key: say what is to unlock from now on with --new-passphrase-file")
            }
            None => Arc::from(custodian(&self.dir, &self.settings, &self.unlock)?),
        };
        let recovery = self.door.ledger().rotate(custodian, end_tokens)?;
        self.identity.renew_keys();
        Ok(recovery.print().to_string())
    }

    /// The request facts of a named job of this installation.
    #[must_use]
    pub fn job(&self, name: &str) -> Context {
        job(name, self.door.clock().as_ref())
    }
}

fn tell(notice: &Notice) {
    match notice {
        Notice::Rebuilt(rows) => tracing::info!(rows, "the index was built from the rows"),
        Notice::ClockSetBack(ms) => tracing::warn!(
            behind_s = ms / 1000,
            "the clock reads earlier than the newest entry of the log: set it right. Nothing is lost, the order is kept"
        ),
        Notice::LogDamaged => {
            tracing::error!("entries of the log are not what its checkpoint signs: run `keepwell verify`");
        }
        other => tracing::warn!(notice = ?other, "the operator should know"),
    }
}

/// The request facts of a named job: no token carries such an actor.
pub fn job(name: &str, clock: &dyn Clock) -> Context {
    let now = clock.now();
    Context {
        actor: Arc::new(Actor {
            id: format!("job:{name}"),
            display: format!("keepwell {name}"),
            role: Role::Service,
            patient: None,
            practitioner: None,
            client: None,
            scopes: Vec::new(),
            session: String::new(),
            authenticated: now,
            method: "job".to_owned(),
            reauthenticated: now,
            assurance: Assurance::TwoFactors,
        }),
        purpose: PurposeOfUse::SystemAdministration,
        entry: EntryPath::Batch,
        request_id: String::new(),
        network: String::new(),
        device: String::new(),
        unit: String::new(),
        roster: String::new(),
        reason: String::new(),
        print: false,
        place: Place::Unknown,
        export: false,
        at: now,
    }
}

/// Own documents, kept by the door.
struct DoorDocuments(Arc<Door>);

fn document_error(e: &Refusal) -> DocumentError {
    if e.status == 412 {
        DocumentError::Exists
    } else {
        DocumentError::Unavailable
    }
}

impl Documents for DoorDocuments {
    fn put<'a>(
        &'a self,
        by: &'a Context,
        action: Action,
        kind: &'a str,
        id: &'a str,
        text: Option<&'a str>,
        absent: bool,
    ) -> BoxFuture<'a, Result<(), DocumentError>> {
        Box::pin(async move {
            self.0
                .put_document(by, action, kind, id, text, absent)
                .await
                .map_err(|e| document_error(&e))
        })
    }

    fn get(&self, kind: &str, id: &str) -> Result<Option<String>, DocumentError> {
        self.0.document(kind, id).map_err(|e| document_error(&e))
    }

    fn list(&self, kind: &str) -> Result<Vec<(String, String)>, DocumentError> {
        self.0.documents(kind).map_err(|e| document_error(&e))
    }

    fn log<'a>(&'a self, by: &'a Context, action: Action, permitted: bool) -> BoxFuture<'a, Result<(), DocumentError>> {
        Box::pin(async move {
            let done = if permitted {
                self.0.record_act(by, action, 0, "").await
            } else {
                self.0.record_refusal(by, action, 403).await
            };
            done.map_err(|e| document_error(&e))
        })
    }
}

/// The token key, behind the door.
struct DoorKey(Arc<Door>);

impl TokenKey for DoorKey {
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], KeyUnavailable> {
        self.0.ledger().sign_token(message).map_err(|_| KeyUnavailable)
    }

    fn public(&self) -> [u8; 32] {
        self.0.ledger().token_public_key()
    }

    fn retired(&self) -> Vec<[u8; 32]> {
        self.0.ledger().token_retired_keys()
    }
}

//! Commands that make, fill, check or restore a data directory.

use crate::cli::{Init, Policy, Restore, Unlock};
use crate::effects::{SystemClock, SystemEntropy};
use crate::settings::{Custody, Settings};
use crate::site::{self, Site};
use crate::{ops, print, say, tls, world};
use anyhow::{Context as _, bail};
use keepwell_identity::{Account, Wanted};
use keepwell_ledger::Ledger;
use keepwell_model::actor::{Role, Scope};
use keepwell_model::time::Entropy;
use keepwell_record::Records;
use keepwell_vault::KeyFile;
use serde_json::Value;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Bytes kept aside for a full disk.
const RESERVE: u64 = 256 << 20;
/// The same for a demo.
const DEMO_RESERVE: u64 = 4 << 20;

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    if dir.join(crate::settings::FILE).exists() {
        bail!("`{}` holds Keepwell data already; nothing was changed", dir.display());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make `{}`", dir.display()))
}

/// `init`
pub async fn init(a: &Init) -> anyhow::Result<()> {
    let dir = std::path::absolute(&a.data.data)?;
    make_dir(&dir)?;
    let custody = match (&a.passphrase_file, &a.credential) {
        (Some(path), _) => Custody::PassphraseFile(std::path::absolute(path)?),
        (None, Some(name)) => Custody::Credential(name.clone()),
        (None, None) => bail!("give --passphrase-file or --credential: who unlocks the keyring?"),
    };
    let mut era_copies = Vec::new();
    for path in &a.era_copy {
        let path = std::path::absolute(path)?;
        if path.starts_with(&dir) {
            bail!(
                "--era-copy `{}` is inside the data directory: it would be lost and stolen with it",
                path.display()
            );
        }
        era_copies.push(path);
    }
    let (certificate, certificate_key) = match (&a.certificate, &a.certificate_key) {
        (Some(c), Some(k)) => {
            let (c, k) = (std::path::absolute(c)?, std::path::absolute(k)?);
            tls::Certificate::load(&c, &k)?;
            (c, k)
        }
        _ => {
            tls::make_local(&dir.join("tls"), &a.name)?;
            (PathBuf::from("tls/server.pem"), PathBuf::from("tls/server.key"))
        }
    };
    let settings = Settings {
        version: 1,
        name: a.name.clone(),
        custody,
        era_places_min: 2,
        era_copies,
        keyring_copy: a.keyring_copy.as_ref().map(std::path::absolute).transpose()?,
        certificate: Some(certificate),
        certificate_key: Some(certificate_key),
        demo_logins: false,
        sync_reads: a.sync_reads,
        reserve: RESERVE,
    };
    let recovery = create(&dir, &settings)?;
    let site = Site::open(&dir, &Unlock::default(), None)?;
    let code = site.identity.bootstrap(&site.job("init")).await?;
    site.door.ledger().stop();
    say("Recovery key: the second way to unlock, shown once and kept nowhere. Print it and lock it away.");
    print(&format!("recovery key: {}", recovery.as_str()))?;
    say("Administrator code: opens the first administrator's session at the sign-in page, once, within three days.");
    print(&format!("administrator code: {}", code.code))?;
    if settings.era_copies.is_empty() {
        say("");
        say(
            "WARNING: there is no second ERA place. Patients cannot be erased, and if the `era` file is lost the whole",
        );
        say("record is lost. Run `init` again in an empty directory with --era-copy PATH on another disk.");
    }
    say(&format!("Serve it: keepwell serve --data {}", dir.display()));
    Ok(())
}

/// Makes keys and database; the printed recovery key.
fn create(dir: &Path, settings: &Settings) -> anyhow::Result<zeroize::Zeroizing<String>> {
    let custodian = site::custodian(dir, settings, &Unlock::default())?;
    let config = site::config(dir, settings, None);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let recovery = Ledger::<Records>::init(&config, custodian.as_ref(), &SystemClock, &entropy)?;
    settings.write(dir)?;
    Ok(recovery.print())
}

/// The demo's directory: a generated key file inside it, demo logins on, no certificate.
pub fn make_demo(dir: &Path) -> anyhow::Result<()> {
    make_dir(dir)?;
    drop(KeyFile::create(&dir.join("demo.key"), &SystemEntropy).context("cannot make the demo's key file")?);
    let settings = Settings {
        version: 1,
        name: "localhost".to_owned(),
        custody: Custody::KeyFile(PathBuf::from("demo.key")),
        era_copies: Vec::new(),
        era_places_min: 1,
        keyring_copy: None,
        certificate: None,
        certificate_key: None,
        demo_logins: true,
        sync_reads: false,
        reserve: DEMO_RESERVE,
    };
    create(dir, &settings)?;
    Ok(())
}

/// Accounts and patients of the demo, loaded through the same doors as everything else; what is there stays.
pub async fn fill_demo(site: &Site, seed: u64, patients: usize) -> anyhow::Result<()> {
    let ctx = site.job("demo");
    if site.identity.demo_logins(true)?.is_empty() {
        site.identity.enable_demo(&ctx).await?;
        for s in world::staff() {
            let mut account = Account::new(s.user, s.display, s.role, s.patient);
            account.demo = true;
            site.identity.create_account(&ctx, &account).await?;
        }
    }
    let mark = format!("demo-{seed}-{patients}");
    if site
        .door
        .document("import-progress", &mark)
        .map_err(|e| anyhow::anyhow!("{e}"))?
        .is_none()
    {
        let ctx = site.job("demo-import");
        for bundle in world::bundles(seed, patients) {
            let done = site
                .door
                .import(&ctx, bundle.as_bytes())
                .await
                .map_err(|e| anyhow::anyhow!("{e:?}"))?;
            if let Some((name, issues)) = done.refused.first() {
                bail!("the demo data is refused at {name}: {issues:?}");
            }
        }
        site.door
            .put_document(
                &ctx,
                keepwell_policy::Action::Import,
                "import-progress",
                &mark,
                Some("{}"),
                false,
            )
            .await
            .map_err(|e| anyhow::anyhow!("{e}"))?;
    }
    say("");
    say("Keepwell demo clinic. Sign in at /sign-in as:");
    for s in world::staff() {
        say(&format!("  {:<17} {:<28} {}", s.role.name(), s.display, s.try_this));
    }
    say("Data that is written here stays in the demo's directory; it is sealed with a key file beside it, so it is a");
    say("demo and no place for real records. `keepwell init` makes one that is.");
    say("");
    Ok(())
}

/// The token file of `demo`: every interaction on every type, seven days.
pub async fn write_demo_token(site: &Site, file: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = file else { return Ok(()) };
    let wanted = Wanted {
        user: "demo-client".to_owned(),
        display: "Demo API client".to_owned(),
        role: Role::Service,
        patient: None,
        scopes: Scope::parse("system/*.cruds").into_iter().collect(),
        ttl_s: 7 * 24 * 3600,
    };
    let issued = site.identity.issue_token(&site.job("demo"), &wanted).await?;
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("cannot replace `{}`", path.display())),
    }
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    writeln!(out, "{}", issued.token)?;
    Ok(())
}

/// A lifetime: `90s`, `30m`, `1h`, `7d`.
pub fn seconds(text: &str) -> anyhow::Result<i64> {
    let bad = || format!("`{text}` is not a lifetime: write 90s, 30m, 1h or 7d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).with_context(bad)?;
    let n: i64 = number.parse().with_context(bad)?;
    let one = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => bail!(bad()),
    };
    n.checked_mul(one).filter(|s| *s > 0).with_context(bad)
}

/// `verify` on a stopped directory.
pub fn verify_stopped(dir: &Path, unlock: &Unlock, checkpoint: Option<&Path>) -> anyhow::Result<Value> {
    let settings = Settings::read(dir)?;
    let custodian = site::custodian(dir, &settings, unlock)?;
    let options = keepwell_ledger::verify::Options {
        custodian: Some(custodian.as_ref()),
        checkpoint,
        era_copies: settings.era_copies.clone(),
        keyring: None,
        entropy: Some(Arc::new(SystemEntropy)),
    };
    let report = keepwell_ledger::verify::verify(dir, &options)?;
    Ok(ops::report_json(&report))
}

/// `audit verify --export`: neither keys nor database.
pub fn verify_export(export: &Path, checkpoint: Option<&Path>, key: Option<&str>) -> anyhow::Result<Value> {
    let outside: Vec<Vec<u8>> = match checkpoint {
        Some(path) => {
            vec![std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?]
        }
        None => Vec::new(),
    };
    let own = std::fs::read_to_string(export.join("key")).ok();
    // One a line: a log whose key was rotated has several.
    let trusted: Vec<_> = key
        .or(own.as_deref())
        .into_iter()
        .flat_map(str::split_whitespace)
        .map(|k| {
            keepwell_audit::note::VerifierKey::parse(k)
                .context("the verifier key (--key, or `key` in the export) is not one")
        })
        .collect::<Result<_, _>>()?;
    if trusted.is_empty() {
        bail!("there is no verifier key: the export's file `key` is missing; give --key with one kept elsewhere");
    }
    let options = keepwell_audit::export::Options {
        trusted: &trusted,
        outside: &outside,
        ..Default::default()
    };
    let report = keepwell_audit::export::verify_export(export, &options);
    let findings: Vec<String> = report.problems.iter().map(|p| format!("{p:?}")).collect();
    Ok(serde_json::json!({
        "ok": report.is_good(),
        "rows": report.kinds.rows,
        "entries": report.size,
        "checkpointCompared": report.outside_checked > 0,
        "signatureChecked": !report.signed_by.is_empty(),
        "findings": findings,
    }))
}

/// `restore`: from backup, keyring copy, ERA copy and recovery key (or passphrase) to a directory that serves.
pub fn restore(a: &Restore) -> anyhow::Result<()> {
    let dir = std::path::absolute(&a.data.data)?;
    make_dir(&dir)?;
    let options = keepwell_continuity::RestoreOptions::default();
    let restored =
        keepwell_continuity::restore(&a.from, &dir, &options, &mut |_| {}).context("the backup was not restored")?;
    let keyring = keepwell_continuity::keyring::read(&a.keys_from).context("cannot read the keyring's copy")?;
    keepwell_vault::replace_file(&dir.join("keyring"), &keyring).context("cannot place the keyring")?;
    let era = std::fs::read(&a.era_from).with_context(|| format!("cannot read `{}`", a.era_from.display()))?;
    keepwell_vault::replace_file(&dir.join("era"), &era).context("cannot place the ERA")?;
    let mut settings = Settings::read(&a.keys_from)?;
    settings.era_copies = if a.era_copy.is_empty() {
        vec![a.era_from.clone()]
    } else {
        a.era_copy.clone()
    };
    settings.era_copies = settings
        .era_copies
        .iter()
        .map(std::path::absolute)
        .collect::<Result<_, _>>()?;
    settings.keyring_copy = None;
    match (&a.new_passphrase_file, &a.unlock.passphrase_file) {
        (Some(path), _) | (None, Some(path)) => {
            settings.custody = Custody::PassphraseFile(std::path::absolute(path)?);
        }
        (None, None) => {}
    }
    if settings.certificate.as_ref().is_some_and(|c| c.is_relative()) {
        tls::make_local(&dir.join("tls"), &settings.name)?;
    }
    settings.write(&dir)?;
    let site = Site::open(&dir, &a.unlock, None)?;
    if let Some(path) = &a.new_passphrase_file {
        let recovery = site.rotate(Some(path), false)?;
        say(&format!(
            "new recovery key, shown once; the one before opens nothing now:\n{recovery}"
        ));
    }
    let report = site.door.ledger().verify(None)?;
    site.door.ledger().stop();
    print(&ops::report_json(&report).to_string())?;
    if !report.ok {
        bail!(
            "the restored record does not verify; it is kept in `{}` for inspection",
            dir.display()
        );
    }
    say(&format!(
        "restored {} rows and {} log entries; serve it: keepwell serve --data {}",
        restored.rows,
        restored.size,
        dir.display()
    ));
    Ok(())
}

/// `policy ...`: needs no data directory.
pub fn policy(command: Policy) -> anyhow::Result<ExitCode> {
    let engine = keepwell_policy::Engine::load()?;
    match command {
        Policy::Table => print(keepwell_policy::table(&engine).trim_end())?,
        Policy::Check => match keepwell_policy::check() {
            Ok(text) => print(text.trim_end())?,
            Err(text) => {
                print(text.trim_end())?;
                return Ok(ExitCode::FAILURE);
            }
        },
        Policy::Explain(e) => {
            let mut words = vec![e.role, e.action];
            words.extend(e.resource_type);
            words.extend(e.relation);
            words.extend(e.label.iter().map(|l| format!("label={l}")));
            let question = keepwell_policy::Question::parse(words.iter().map(String::as_str))
                .map_err(|text| anyhow::anyhow!(text))?;
            print(keepwell_policy::explain(&engine, &question).trim_end())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

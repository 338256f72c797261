//! `settings.json` of a data directory: what `init` fixed, without any secret.

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How the keyring is unlocked when nothing is said on the command line.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "path")]
pub enum Custody {
    /// A file with a passphrase.
    PassphraseFile(PathBuf),
    /// A systemd credential of that name, in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// A file with a random key.
    KeyFile(PathBuf),
}

/// The settings of a data directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Version of this file.
    pub version: u32,
    /// DNS name of the site: certificate and links.
    pub name: String,
    /// How to unlock.
    pub custody: Custody,
    /// ERA places outside the data directory.
    pub era_copies: Vec<PathBuf>,
    /// Fewest ERA places that must confirm an erasure.
    pub era_places_min: usize,
    /// A second place of the keyring.
    #[serde(default)]
    pub keyring_copy: Option<PathBuf>,
    /// Certificate chain, PEM.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[serde(default)]
    pub certificate_key: Option<PathBuf>,
    /// Logins with their passwords and codes on the sign-in page; only `demo` sets it, and only loopback honours it.
    #[serde(default)]
    pub demo_logins: bool,
    /// Reads wait for the disk as writes do.
    #[serde(default)]
    pub sync_reads: bool,
    /// Bytes kept aside for a full disk.
    pub reserve: u64,
}

/// Name of the file.
pub const FILE: &str = "settings.json";

impl Settings {
    /// Reads the settings of `dir`.
    ///
    /// # Errors
    /// There are none, or they are not readable.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(t) => t,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => bail!(
                "`{}` holds no Keepwell data: run `keepwell init --data {0}` first, or `keepwell demo` to look around",
                dir.display()
            ),
            Err(e) => return Err(e).with_context(|| format!("cannot read `{}`", path.display())),
        };
        serde_json::from_str(&text).with_context(|| format!("`{}` is not a settings file", path.display()))
    }

    /// Writes the settings into `dir`, whole or not at all.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(FILE);
        let new = dir.join("settings.json.new");
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(&new, text + "\n").with_context(|| format!("cannot write `{}`", new.display()))?;
        std::fs::File::open(&new)?.sync_all()?;
        std::fs::rename(&new, &path)?;
        std::fs::File::open(dir)?.sync_all()?;
        Ok(())
    }
}

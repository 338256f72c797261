//! The command line; `keepwell COMMAND --help` prints it.

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Keepwell: medical records sealed at rest, every access in a tamper-evident log.
#[derive(Parser, Debug)]
#[command(name = "keepwell", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a new data directory: keys, recovery key, one-time administrator code, certificate.
    Init(Init),
    /// Serve a data directory.
    Serve(Serve),
    /// Serve a demo clinic; made on the first start, kept in its directory.
    Demo(Demo),
    /// Load FHIR Bundles, NDJSON and directories of them (plain, .gz, .zst).
    Import(Import),
    /// Issue a signed, expiring bearer token.
    Token(Token),
    /// Make a one-time activation link for a user, or ask for one that a second person must release.
    LoginLink(LoginLink),
    /// Registered clients: machines that get tokens with a key of their own.
    #[command(subcommand)]
    Client(Client),
    /// Identity providers: people sign in by them (OpenID Connect).
    #[command(subcommand)]
    Idp(Idp),
    /// Verify the data directory: rows, log, checkpoints, that every body opens, and that snapshot and index hold what the
    /// bodies say.
    Verify(Verify),
    /// The access log: verify it, export it, prove one entry.
    #[command(subcommand)]
    Audit(Audit),
    /// The keys: status, rotation, sealing and unsealing of a running server.
    #[command(subcommand)]
    Keys(Keys),
    /// Erase a patient: destroy the key, everywhere the erasure reaches.
    Erase(Erase),
    /// Back up everything, sealed, while the server runs.
    Backup(Backup),
    /// Restore a backup into an empty directory.
    Restore(Restore),
    /// The authorization policies: their table, a check, an explanation.
    #[command(subcommand)]
    Policy(Policy),
    /// Print the OpenAPI description of every route.
    Openapi,
}

/// Where the data is.
#[derive(Args, Debug, Clone)]
pub struct Data {
    /// Data directory.
    #[arg(long, env = "KEEPWELL_DATA", default_value = "keepwell-data")]
    pub data: PathBuf,
}

/// How to unlock the keyring; by default as `init` fixed it.
#[derive(Args, Debug, Clone, Default)]
pub struct Unlock {
    /// File with the passphrase.
    #[arg(long, conflicts_with_all = ["credential", "recovery_key_file"])]
    pub passphrase_file: Option<PathBuf>,
    /// Name of a systemd credential that holds the passphrase.
    #[arg(long, conflicts_with = "recovery_key_file")]
    pub credential: Option<String>,
    /// File with the printed recovery key.
    #[arg(long)]
    pub recovery_key_file: Option<PathBuf>,
}

/// `init`
#[derive(Args, Debug)]
pub struct Init {
    #[command(flatten)]
    pub data: Data,
    /// DNS name of the site, for its certificate and links.
    #[arg(long, default_value = "localhost")]
    pub name: String,
    /// Passphrase file that will unlock the keyring.
    #[arg(long, conflicts_with = "credential", required_unless_present = "credential")]
    pub passphrase_file: Option<PathBuf>,
    /// Name of the systemd credential that will hold the passphrase.
    #[arg(long)]
    pub credential: Option<String>,
    /// A second place of the ERA, outside the data directory: without one no patient can be erased.
    #[arg(long)]
    pub era_copy: Vec<PathBuf>,
    /// A second place of the keyring.
    #[arg(long)]
    pub keyring_copy: Option<PathBuf>,
    /// The site's own certificate chain (PEM); otherwise a local CA and certificate are made.
    #[arg(long, requires = "certificate_key")]
    pub certificate: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, requires = "certificate")]
    pub certificate_key: Option<PathBuf>,
    /// Make every read wait for the disk.
    #[arg(long)]
    pub sync_reads: bool,
}

/// What `serve` and `demo` share.
#[derive(Args, Debug, Clone)]
pub struct Listen {
    /// Address and port; port 0 takes any.
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: String,
    /// Address of the metrics listener; off otherwise.
    #[arg(long)]
    pub metrics: Option<String>,
    /// File outside the data directory that keeps the newest checkpoint.
    #[arg(long)]
    pub checkpoint_copy: Option<PathBuf>,
}

/// `serve`
#[derive(Args, Debug)]
pub struct Serve {
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub listen: Listen,
    #[command(flatten)]
    pub unlock: Unlock,
    /// Serve plain HTTP although there is a certificate (behind a proxy on this machine; loopback only).
    #[arg(long)]
    pub plain_http: bool,
}

/// `demo`
#[derive(Args, Debug)]
pub struct Demo {
    /// Data directory of the demo.
    #[arg(long, env = "KEEPWELL_DATA", default_value = "keepwell-demo")]
    pub data: PathBuf,
    #[command(flatten)]
    pub listen: Listen,
    /// How many patients; 0 makes an empty clinic.
    #[arg(long, default_value_t = crate::world::BUNDLED_PATIENTS)]
    pub patients: usize,
    /// Seed of the generated patients.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// File that gets a bearer token for every interaction on every type.
    #[arg(long)]
    pub token_file: Option<PathBuf>,
}

/// `import`
#[derive(Args, Debug)]
pub struct Import {
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub unlock: Unlock,
    /// Files and directories: .json, .ndjson, each also .gz or .zst.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Load over the API of a server at this base instead, for example https://clinic.example/fhir. Without TLS this
    /// machine only.
    #[arg(long, requires = "token_file")]
    pub url: Option<String>,
    /// Certificate authorities that may vouch for the server of `--url` (PEM); otherwise the system's.
    #[arg(long, requires = "url")]
    pub ca: Option<PathBuf>,
    /// File with the bearer token for `--url`.
    #[arg(long)]
    pub token_file: Option<PathBuf>,
}

/// `token`
#[derive(Args, Debug)]
pub struct Token {
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub unlock: Unlock,
    /// SMART v2 scopes, separated by spaces, for example 'system/*.cruds'.
    #[arg(long, default_value = "")]
    pub scope: String,
    /// How long it lives: 30m, 1h, 7d.
    #[arg(long, default_value = "1h")]
    pub ttl: String,
    /// Role that acts; `service` needs a scope.
    #[arg(long, default_value = "service")]
    pub role: String,
    /// Id of the user or client.
    #[arg(long, default_value = "token")]
    pub user: String,
    /// For the role patient: the id of the Patient.
    #[arg(long)]
    pub patient: Option<String>,
    /// Revoke the token with this `jti` instead of issuing one.
    #[arg(long)]
    pub revoke: Option<String>,
}

/// `login-link`
#[derive(Args, Debug)]
pub struct LoginLink {
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub unlock: Unlock,
    /// Whose link.
    #[arg(long)]
    pub user: String,
}

/// `client`
#[derive(Subcommand, Debug)]
pub enum Client {
    /// Register a client by its public keys.
    Add(ClientAdd),
    /// List the clients.
    List(AtData),
    /// Show a client.
    Show(ClientAt),
    /// The keys of a client.
    #[command(subcommand)]
    Key(ClientKey),
    /// End a client: its tokens are void at once.
    End(ClientAt),
}

/// `client add`
#[derive(Args, Debug)]
pub struct ClientAdd {
    #[command(flatten)]
    pub at: AtData,
    /// Name shown in the access log.
    #[arg(long)]
    pub name: String,
    /// File with its public keys: a JWK Set or one JWK (RS384, ES384 or EdDSA).
    #[arg(long)]
    pub jwks: PathBuf,
    /// What it may reach at most, separated by spaces, for example 'system/Observation.rs'.
    #[arg(long)]
    pub scope: String,
    /// How long it is registered: 90d, at most two years.
    #[arg(long, default_value = "365d")]
    pub ttl: String,
    /// How long its keys are accepted.
    #[arg(long, default_value = "365d")]
    pub key_ttl: String,
}

/// A command on one client.
#[derive(Args, Debug)]
pub struct ClientAt {
    #[command(flatten)]
    pub at: AtData,
    /// Its id.
    pub id: String,
}

/// `client key`
#[derive(Subcommand, Debug)]
pub enum ClientKey {
    /// Give a client more keys; those it has stay.
    Add(ClientKeyAdd),
    /// Take a key from a client; its tokens are void at once.
    Remove(ClientKeyRemove),
}

/// `client key add`
#[derive(Args, Debug)]
pub struct ClientKeyAdd {
    #[command(flatten)]
    pub at: AtData,
    /// The client's id.
    pub id: String,
    /// File with the public keys: a JWK Set or one JWK.
    #[arg(long)]
    pub jwks: PathBuf,
    /// How long they are accepted.
    #[arg(long, default_value = "365d")]
    pub ttl: String,
}

/// `client key remove`
#[derive(Args, Debug)]
pub struct ClientKeyRemove {
    #[command(flatten)]
    pub at: AtData,
    /// The client's id.
    pub id: String,
    /// The key's `kid`.
    pub kid: String,
}

/// `idp`
#[derive(Subcommand, Debug)]
pub enum Idp {
    /// Register a provider; nothing is sent to it yet.
    Add(IdpAdd),
    /// List the providers.
    List(AtData),
    /// End a provider: nobody signs in by it any more, sessions it has opened end. Links stay.
    End(IdpAt),
    /// Say which account an identity at a provider is. Never by e-mail: by what the provider calls the person.
    Link(IdpLink),
    /// Take a link away; sessions it has opened end.
    Unlink(IdpUnlink),
}

/// `idp add`
#[derive(Args, Debug)]
pub struct IdpAdd {
    #[command(flatten)]
    pub at: AtData,
    /// Name shown on the sign-in page.
    #[arg(long)]
    pub name: String,
    /// Its issuer identifier, to the letter.
    #[arg(long)]
    pub issuer: String,
    /// Who this installation is there.
    #[arg(long)]
    pub client_id: String,
    /// How this installation shows it who it is.
    #[arg(long, value_enum, default_value = "none")]
    pub authentication: IdpAuthentication,
    /// What its tokens may be signed with: RS256, PS256, ES256, EdDSA, RS384, ES384, PS384. May stand several times.
    #[arg(long = "alg", default_value = "RS256")]
    pub algorithms: Vec<String>,
    /// A value of `acr` that counts as two factors. May stand several times.
    #[arg(long)]
    pub acr: Vec<String>,
    /// A value of `amr` that counts as two factors, for example mfa. May stand several times.
    #[arg(long)]
    pub amr: Vec<String>,
    /// A host beside the issuer's own that its endpoints are at. May stand several times.
    #[arg(long = "host")]
    pub hosts: Vec<String>,
}

/// How this installation shows a provider who it is.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum IdpAuthentication {
    /// A public client: codes are bound by PKCE.
    None,
    /// An assertion signed by this installation; the provider takes its keys from /.well-known/jwks.json.
    PrivateKeyJwt,
}

/// A command on one provider.
#[derive(Args, Debug)]
pub struct IdpAt {
    #[command(flatten)]
    pub at: AtData,
    /// Its id.
    pub id: String,
}

/// `idp link`
#[derive(Args, Debug)]
pub struct IdpLink {
    #[command(flatten)]
    pub at: AtData,
    /// The account's id.
    #[arg(long)]
    pub user: String,
    /// The provider's issuer identifier.
    #[arg(long)]
    pub issuer: String,
    /// Its `sub` for the person.
    #[arg(long)]
    pub subject: String,
}

/// `idp unlink`
#[derive(Args, Debug)]
pub struct IdpUnlink {
    #[command(flatten)]
    pub at: AtData,
    /// The provider's issuer identifier.
    #[arg(long)]
    pub issuer: String,
    /// Its `sub` for the person.
    #[arg(long)]
    pub subject: String,
}

/// `verify`
#[derive(Args, Debug)]
pub struct Verify {
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub unlock: Unlock,
    /// A checkpoint kept outside the data directory.
    #[arg(long)]
    pub checkpoint: Option<PathBuf>,
    /// Print one JSON object; `indexDigest` in it is the same for equal contents, running, stopped or restored.
    #[arg(long)]
    pub json: bool,
}

/// `audit`
#[derive(Subcommand, Debug)]
pub enum Audit {
    /// Verify the log of a data directory, or an export (needs neither keys nor database).
    Verify(AuditVerify),
    /// Write the log as tiles, sealed entries and checkpoint.
    Export(AuditExport),
    /// Write the proof that one entry is in the log.
    Prove(AuditProve),
}

/// `audit verify`
#[derive(Args, Debug)]
pub struct AuditVerify {
    #[command(flatten)]
    pub data: Data,
    /// An exported log.
    #[arg(long)]
    pub export: Option<PathBuf>,
    /// A checkpoint kept elsewhere.
    #[arg(long)]
    pub checkpoint: Option<PathBuf>,
    /// Verifier key of the log (`name+hash+base64`), to check the export's signature.
    #[arg(long, requires = "export")]
    pub key: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `audit export`
#[derive(Args, Debug)]
pub struct AuditExport {
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub unlock: Unlock,
    /// Folder to write to; must not exist or be empty.
    pub to: PathBuf,
}

/// `audit prove`
#[derive(Args, Debug)]
pub struct AuditProve {
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub unlock: Unlock,
    /// Number of the entry.
    pub entry: u64,
}

/// `keys`
#[derive(Subcommand, Debug)]
pub enum Keys {
    /// Say how the keys stand.
    Status(AtData),
    /// New generations of all keys for new rows; with a passphrase file, a new passphrase.
    Rotate(KeysRotate),
    /// Seal a running server: keys and index leave its memory.
    Seal(AtData),
    /// Unseal it again.
    Unseal(AtData),
}

/// A command on a data directory.
#[derive(Args, Debug)]
pub struct AtData {
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub unlock: Unlock,
}

/// `keys rotate`
#[derive(Args, Debug)]
pub struct KeysRotate {
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub unlock: Unlock,
    /// File with the new passphrase: replaces the one before.
    #[arg(long)]
    pub new_passphrase_file: Option<PathBuf>,
    /// Void every token issued before; without this they are honoured until they end.
    #[arg(long)]
    pub end_tokens: bool,
}

/// `erase`
#[derive(Args, Debug)]
pub struct Erase {
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub unlock: Unlock,
    /// Logical id of the Patient.
    #[arg(long)]
    pub patient: String,
    /// Why: kept in the log.
    #[arg(long)]
    pub reason: String,
    /// What becomes of resources of several patients that rules alone cannot redact: `ask` leaves and lists them,
    /// `redact` takes narrative and attachments out and keeps other text, `destroy` erases them for all their patients.
    #[arg(long, value_enum, default_value = "ask")]
    pub several: Several,
    /// Do it; without this the command says what would be erased.
    #[arg(long)]
    pub yes: bool,
}

/// A person's decision about resources of several patients.
#[derive(ValueEnum, Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Several {
    /// Leave and list what rules cannot decide.
    Ask,
    /// Redact it: narrative and attachments go, other text stays.
    Redact,
    /// Erase it for all its patients.
    Destroy,
}

impl From<Several> for keepwell_record::Several {
    fn from(several: Several) -> Self {
        match several {
            Several::Ask => Self::Ask,
            Several::Redact => Self::Redact,
            Several::Destroy => Self::Destroy,
        }
    }
}

/// `backup`
#[derive(Args, Debug)]
pub struct Backup {
    #[command(flatten)]
    pub data: Data,
    #[command(flatten)]
    pub unlock: Unlock,
    /// Folder for the sealed segments.
    pub to: PathBuf,
    /// Another folder, on another medium, for the keyring.
    #[arg(long)]
    pub keys_to: PathBuf,
}

/// `restore`
#[derive(Args, Debug)]
pub struct Restore {
    #[command(flatten)]
    pub data: Data,
    /// The backup.
    pub from: PathBuf,
    /// Folder with the keyring's copy.
    #[arg(long)]
    pub keys_from: PathBuf,
    /// A place of the ERA.
    #[arg(long)]
    pub era_from: PathBuf,
    #[command(flatten)]
    pub unlock: Unlock,
    /// New second place of the ERA; by default `--era-from`.
    #[arg(long)]
    pub era_copy: Vec<PathBuf>,
    /// File with a new passphrase, where the recovery key unlocks.
    #[arg(long)]
    pub new_passphrase_file: Option<PathBuf>,
}

/// `policy`
#[derive(Subcommand, Debug)]
pub enum Policy {
    /// Print the authorization table.
    Table,
    /// Check schema, table and decision cases.
    Check,
    /// Explain one decision.
    Explain(PolicyExplain),
}

/// `policy explain`
#[derive(Args, Debug)]
pub struct PolicyExplain {
    /// Role, for example nurse.
    #[arg(long)]
    pub role: String,
    /// Action, for example read.
    #[arg(long)]
    pub action: String,
    /// Resource type.
    #[arg(long = "type")]
    pub resource_type: Option<String>,
    /// own, related, unrelated or no-patient.
    #[arg(long)]
    pub relation: Option<String>,
    /// Security labels, for example restricted.
    #[arg(long)]
    pub label: Vec<String>,
}

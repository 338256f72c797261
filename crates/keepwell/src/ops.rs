//! The administrative commands: the same code whether they come through the socket of a running server or the command
//! line has opened the directory itself.

use crate::cli::Several;
use crate::site::Site;
use anyhow::{Context as _, anyhow, bail};
use keepwell_identity::oauth::{Client, NewClient};
use keepwell_identity::sso::{ClientAuthentication, Link, NewProvider, Provider};
use keepwell_identity::{Activation, Wanted};
use keepwell_model::actor::{Context, Role, Scope};
use keepwell_model::time::Timestamp;
use keepwell_policy::Action;
use keepwell_record::Refusal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A command for an open installation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Op {
    /// Issue a token.
    Token {
        /// Scopes, separated by spaces.
        scope: String,
        /// Lifetime in seconds.
        ttl_s: i64,
        /// Role by name.
        role: String,
        /// User or client.
        user: String,
        /// Patient of the role patient.
        patient: Option<String>,
    },
    /// Revoke a token.
    Revoke {
        /// Its id.
        jti: String,
    },
    /// Make a one-time activation link, or ask for one where somebody else must release it.
    LoginLink {
        /// Whose.
        user: String,
    },
    /// Register a client.
    ClientAdd {
        /// Name shown in the access log.
        name: String,
        /// JWK Set.
        jwks: String,
        /// Scopes, separated by spaces.
        scope: String,
        /// Lifetime in seconds.
        ttl_s: i64,
        /// Lifetime of its keys in seconds.
        key_ttl_s: i64,
    },
    /// List the clients.
    ClientList,
    /// Show a client.
    ClientShow {
        /// Its id.
        id: String,
    },
    /// Give a client more keys.
    ClientKeyAdd {
        /// Its id.
        id: String,
        /// JWK Set.
        jwks: String,
        /// Lifetime in seconds.
        ttl_s: i64,
    },
    /// Take a key from a client.
    ClientKeyRemove {
        /// Its id.
        id: String,
        /// The key's name.
        kid: String,
    },
    /// End a client.
    ClientEnd {
        /// Its id.
        id: String,
    },
    /// Register an identity provider.
    IdpAdd {
        /// Name shown on the sign-in page.
        name: String,
        /// Issuer identifier.
        issuer: String,
        /// Client id there.
        client_id: String,
        /// This installation signs an assertion there; otherwise it is a public client.
        signed: bool,
        /// What tokens may be signed with.
        algorithms: Vec<String>,
        /// `acr` values of two factors.
        acr: Vec<String>,
        /// `amr` values of two factors.
        amr: Vec<String>,
        /// Hosts beside the issuer's own.
        hosts: Vec<String>,
    },
    /// List the identity providers.
    IdpList,
    /// End an identity provider.
    IdpEnd {
        /// Its id.
        id: String,
    },
    /// Link an identity with an account.
    IdpLink {
        /// The account.
        user: String,
        /// Issuer identifier.
        issuer: String,
        /// `sub` there.
        subject: String,
    },
    /// Take a link away.
    IdpUnlink {
        /// Issuer identifier.
        issuer: String,
        /// `sub` there.
        subject: String,
    },
    /// Verify everything.
    Verify {
        /// A checkpoint kept elsewhere.
        checkpoint: Option<PathBuf>,
    },
    /// Export the log.
    AuditExport {
        /// To this folder.
        to: PathBuf,
    },
    /// An export of the log, checked outside the server, does not verify: to be recorded.
    ExportRefused,
    /// Prove one entry.
    AuditProve {
        /// Its number.
        entry: u64,
    },
    /// State of the keys.
    KeysStatus,
    /// All keys anew; for a new passphrase, if given.
    KeysRotate {
        /// File with the new passphrase.
        new_passphrase_file: Option<PathBuf>,
        /// Tokens signed before are void.
        end_tokens: bool,
    },
    /// Erase a patient.
    Erase {
        /// Which.
        patient: String,
        /// Why.
        reason: String,
        /// What becomes of resources of several patients.
        several: Several,
        /// Do it.
        yes: bool,
    },
    /// Back up.
    Backup {
        /// Segments.
        to: PathBuf,
        /// Keyring.
        keys_to: PathBuf,
    },
    /// Load files into the running server.
    Import {
        /// Files and directories, absolute.
        files: Vec<PathBuf>,
    },
    /// Seal the server. Handled by the server itself.
    KeysSeal,
    /// Unseal the server. Handled by the sealed server itself.
    KeysUnseal,
}

fn refused(e: Refusal) -> anyhow::Error {
    let text: Vec<String> = e.issues.into_iter().map(|i| i.diagnostics).collect();
    anyhow!(text.join("; "))
}

/// How an export that did not verify stands in the log (HTTP's 422: well understood, and wrong).
const REFUSED: u16 = 422;
/// How an export or backup that was permitted, and then failed, stands in the log.
const FAILED: u16 = 500;

/// Records that a permitted act came to nothing, and gives its error back.
async fn failed(site: &Site, ctx: &Context, action: Action, e: anyhow::Error) -> anyhow::Error {
    match site.door.record_refusal(ctx, action, FAILED).await {
        Ok(()) => e,
        Err(unrecorded) => e.context(refused(unrecorded)),
    }
}

/// Runs a command on behalf of the operator at this machine.
///
/// # Errors
/// In a sentence.
pub async fn run(site: &Arc<Site>, op: Op) -> anyhow::Result<Value> {
    let ctx = site.job("command");
    match op {
        Op::Token {
            scope,
            ttl_s,
            role,
            user,
            patient,
        } => token(site, &ctx, &scope, ttl_s, &role, user, patient).await,
        Op::Revoke { jti } => {
            site.identity.revoke_token(&ctx, &jti).await?;
            Ok(json!({ "revoked": jti }))
        }
        Op::LoginLink { user } => Ok(match site.identity.start_activation(&ctx, &user).await? {
            Activation::Code(code) => json!({ "code": code.code, "expires": code.expires.to_string() }),
            Activation::Waits => json!({
                "waits": user,
                "note": "this account has authenticators: another administrator or the security officer, who has \
                         checked whom it is for, gives the activation code on the page Users",
            }),
        }),
        Op::ClientAdd {
            name,
            jwks,
            scope,
            ttl_s,
            key_ttl_s,
        } => {
            let new = NewClient {
                display: name,
                jwks,
                scope,
                ttl_s,
                key_ttl_s,
            };
            Ok(client(&site.identity.add_client(&ctx, &new).await?))
        }
        Op::ClientList => Ok(site.identity.clients(&ctx).await?.iter().map(client).collect()),
        Op::ClientShow { id } => Ok(client(&site.identity.client(&ctx, &id).await?)),
        Op::ClientKeyAdd { id, jwks, ttl_s } => {
            Ok(client(&site.identity.add_client_keys(&ctx, &id, &jwks, ttl_s).await?))
        }
        Op::ClientKeyRemove { id, kid } => Ok(client(&site.identity.remove_client_key(&ctx, &id, &kid).await?)),
        Op::ClientEnd { id } => {
            site.identity.end_client(&ctx, &id).await?;
            Ok(json!({ "ended": id }))
        }
        Op::IdpAdd {
            name,
            issuer,
            client_id,
            signed,
            algorithms,
            acr,
            amr,
            hosts,
        } => {
            let new = NewProvider {
                display: name,
                issuer,
                client_id,
                authentication: if signed {
                    ClientAuthentication::PrivateKeyJwt
                } else {
                    ClientAuthentication::None
                },
                algorithms,
                acr,
                amr,
                hosts,
            };
            Ok(provider(&site.identity.add_provider(&ctx, &new).await?, 0))
        }
        Op::IdpList => {
            let listed = site.identity.providers(&ctx).await?;
            Ok(listed.iter().map(|(p, linked)| provider(p, *linked)).collect())
        }
        Op::IdpEnd { id } => {
            site.identity.end_provider(&ctx, &id).await?;
            Ok(json!({ "ended": id }))
        }
        Op::IdpLink { user, issuer, subject } => {
            let link = Link { issuer, subject, user };
            site.identity.link_identity(&ctx, &link).await?;
            Ok(json!({ "linked": link.user }))
        }
        Op::IdpUnlink { issuer, subject } => {
            site.identity.unlink_identity(&ctx, &issuer, &subject).await?;
            Ok(json!({ "unlinked": subject }))
        }
        Op::Verify { checkpoint } => {
            site.door
                .authorize_system(&ctx, Action::AuditVerify)
                .await
                .map_err(refused)?;
            site.door
                .record_act(&ctx, Action::AuditVerify, 0, "")
                .await
                .map_err(refused)?;
            let report = site.door.ledger().verify(checkpoint.as_deref())?;
            Ok(report_json(&report))
        }
        Op::AuditExport { to } => {
            site.door
                .authorize_system(&ctx, Action::AuditExport)
                .await
                .map_err(refused)?;
            site.door
                .record_act(&ctx, Action::AuditExport, 0, "")
                .await
                .map_err(refused)?;
            match export(site, &to) {
                Ok(said) => Ok(said),
                Err(e) => Err(failed(site, &ctx, Action::AuditExport, e).await),
            }
        }
        Op::ExportRefused => {
            site.door
                .record_refusal(&ctx, Action::AuditVerify, REFUSED)
                .await
                .map_err(refused)?;
            Ok(json!({ "recorded": true }))
        }
        Op::AuditProve { entry } => {
            site.door
                .authorize_system(&ctx, Action::AuditProve)
                .await
                .map_err(refused)?;
            site.door
                .record_act(&ctx, Action::AuditProve, 0, "")
                .await
                .map_err(refused)?;
            let proof = site.door.ledger().proof(entry)?;
            let key = site.door.ledger().verifier_key();
            Ok(json!({ "proof": String::from_utf8_lossy(&proof), "key": key }))
        }
        Op::KeysStatus => {
            site.door
                .authorize_system(&ctx, Action::KeysStatus)
                .await
                .map_err(refused)?;
            site.door
                .record_act(&ctx, Action::KeysStatus, 0, "")
                .await
                .map_err(refused)?;
            Ok(status(site))
        }
        Op::KeysRotate {
            new_passphrase_file,
            end_tokens,
        } => {
            site.door
                .authorize_system(&ctx, Action::KeysRotate)
                .await
                .map_err(refused)?;
            site.door
                .record_act(&ctx, Action::KeysRotate, 0, "")
                .await
                .map_err(refused)?;
            let recovery = site.rotate(new_passphrase_file.as_deref(), end_tokens)?;
            let mut said = status(site);
            if let Some(members) = said.as_object_mut() {
                members.insert("recoveryKey".to_owned(), Value::from(recovery));
                members.insert("key".to_owned(), Value::from(site.door.ledger().verifier_key()));
                members.insert(
                    "note".to_owned(),
                    Value::from(
                        "write the recovery key down, it is shown once and the one before opens nothing; copies of the \
                         keyring made before now open nothing: copy it anew; keep the new verifier key with the old one",
                    ),
                );
            }
            Ok(said)
        }
        Op::Erase {
            patient,
            reason,
            several,
            yes,
        } => erase(site, &ctx, &patient, &reason, several.into(), yes).await,
        Op::Backup { to, keys_to } => backup(site, &ctx, &to, &keys_to).await,
        Op::Import { files } => {
            let told = parking_lot::Mutex::new(Vec::new());
            let total = crate::load::files(site, &files, |line| told.lock().push(line.to_owned())).await?;
            Ok(json!({
                "written": total.written,
                "unchanged": total.unchanged,
                "refused": total.refused,
                "faulty": total.faulty,
                "told": told.into_inner(),
            }))
        }
        Op::KeysSeal | Op::KeysUnseal => bail!("the server is not running: nothing to seal or unseal"),
    }
}

/// A client in words; keys by name, as they are public but of no use to a reader.
fn client(c: &Client) -> Value {
    let keys = c.keys.iter();
    json!({
        "id": c.id,
        "name": c.display,
        "scope": c.scope,
        "state": c.state,
        "registered": Timestamp(c.created).to_string(),
        "until": Timestamp(c.expires).to_string(),
        "keys": keys.map(|k| json!({
            "kid": k.kid,
            "alg": k.key.algorithm(),
            "until": Timestamp(k.expires).to_string(),
        })).collect::<Vec<_>>(),
    })
}

/// An identity provider in words.
fn provider(p: &Provider, linked: usize) -> Value {
    json!({
        "id": p.id,
        "name": p.display,
        "issuer": p.issuer,
        "clientId": p.client_id,
        "authentication": p.authentication,
        "algorithms": p.algorithms,
        "acr": p.acr,
        "amr": p.amr,
        "hosts": p.hosts,
        "state": p.state,
        "linked": linked,
        "registered": Timestamp(p.created).to_string(),
    })
}

async fn token(
    site: &Site,
    ctx: &Context,
    scope: &str,
    ttl_s: i64,
    role: &str,
    user: String,
    patient: Option<String>,
) -> anyhow::Result<Value> {
    let role = Role::from_name(role).with_context(|| {
        let names: Vec<&str> = Role::ALL.iter().map(|r| r.name()).collect();
        format!("there is no such role; roles are {}", names.join(", "))
    })?;
    let scopes = scope
        .split_whitespace()
        .map(|s| Scope::parse(s).with_context(|| format!("`{s}` is not a scope like system/*.cruds")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let wanted = Wanted {
        display: user.clone(),
        user,
        role,
        patient,
        client: None,
        scopes,
        ttl_s,
    };
    let issued = site.identity.issue_token(ctx, &wanted).await?;
    Ok(json!({ "token": issued.token, "jti": issued.jti, "expires": issued.expires.to_string() }))
}

/// The report of a verification as JSON.
#[must_use]
pub fn report_json(r: &keepwell_ledger::verify::Report) -> Value {
    json!({
        "ok": r.ok,
        "rows": r.rows,
        "entries": r.entries,
        "opened": r.opened,
        "erased": r.erased,
        "checkpointCompared": r.checkpoint_compared,
        "indexDigest": r.index_digest.map(|digest| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        "indexCompared": r.index_compared,
        "snapshotCompared": r.snapshot_compared,
        "findings": r.findings,
        "more": r.more,
    })
}

/// The state of keys and log as JSON; no key, no patient.
#[must_use]
pub fn status(site: &Site) -> Value {
    let s = site.door.ledger().status();
    json!({
        "rows": s.rows,
        "entries": s.entries,
        "slotsActive": s.slots_active,
        "slotsFree": s.slots_free,
        "slotsDestroyed": s.slots_destroyed,
        "erasures": s.erasures,
        "keyringRevision": s.keyring_revision,
        "custody": s.custody,
        "eraPlaces": 1 + site.settings.era_copies.len(),
        "stopped": s.stopped.map(|u| u.to_string()),
        "note": "a copy of the keyring older than the last erasure opens nothing: copy it anew after each",
    })
}

async fn erase(
    site: &Site,
    ctx: &Context,
    patient: &str,
    reason: &str,
    several: keepwell_record::Several,
    yes: bool,
) -> anyhow::Result<Value> {
    if reason.trim().is_empty() {
        bail!("an erasure needs a reason; it is kept in the log");
    }
    let listed = |pending: &[keepwell_ledger::Left]| -> Vec<Value> {
        let each = pending.iter();
        each.map(|left| json!({ "resource": keepwell_record::name_of(left), "why": left.why }))
            .collect()
    };
    let decide =
        "an erasure is complete when nothing is pending: look at each, then repeat with --several redact or destroy";
    if !yes {
        let reach = site.door.erasure_reach(ctx, patient, several).await.map_err(refused)?;
        return Ok(json!({
            "erased": false,
            "rows": reach.own,
            "redacted": reach.redacted,
            "destroyedForAll": reach.destroyed,
            "pending": listed(&reach.pending),
            "next": if reach.pending.is_empty() { "repeat with --yes to erase" } else { decide },
        }));
    }
    let done = site.door.erase(ctx, patient, reason, several).await.map_err(refused)?;
    Ok(json!({
        "erased": true,
        "complete": done.pending.is_empty() && done.unreachable.is_empty(),
        "entry": done.seq,
        "slots": done.slots.len(),
        "redacted": done.redacted.len(),
        "pending": listed(&done.pending),
        "confirmed": done.confirmed,
        "unreachable": done.unreachable,
        "note": if done.pending.is_empty() {
            "copies of the keyring made before now open nothing any more: copy it anew"
        } else {
            decide
        },
    }))
}

/// The log's verifier keys, in a file beside what they verify or open.
pub const KEY: &str = "key";

fn keys_text(site: &Site) -> String {
    let keys = site.door.ledger().verifier_keys();
    keys.iter().map(|key| format!("{key}\n")).collect()
}

fn export(site: &Site, to: &Path) -> anyhow::Result<Value> {
    let ledger = site.door.ledger();
    let note = ledger.with_signer(|origin, signer| {
        keepwell_continuity::export_log(ledger.store(), to, origin, signer, &mut |_| {})
    })?;
    // Lets a reader find accidental damage; against a forger, compare with a key kept elsewhere (`--key`).
    std::fs::write(to.join(KEY), keys_text(site))?;
    Ok(json!({
        "entries": String::from_utf8_lossy(&note).lines().nth(1).unwrap_or_default(),
        "to": to,
        "key": ledger.verifier_key(),
    }))
}

async fn backup(site: &Site, ctx: &Context, to: &Path, keys_to: &Path) -> anyhow::Result<Value> {
    site.door.authorize_system(ctx, Action::Backup).await.map_err(refused)?;
    site.door
        .record_act(ctx, Action::Backup, 0, "")
        .await
        .map_err(refused)?;
    match cut_backup(site, to, keys_to) {
        Ok(said) => Ok(said),
        Err(e) => Err(failed(site, ctx, Action::Backup, e).await),
    }
}

fn cut_backup(site: &Site, to: &Path, keys_to: &Path) -> anyhow::Result<Value> {
    let ledger = site.door.ledger();
    let keys = ledger.verifier_keys();
    let done = ledger.with_signer(|origin, signer| {
        let options = keepwell_continuity::BackupOptions {
            origin,
            signer,
            retired: &keys,
        };
        keepwell_continuity::backup(ledger.store(), to, &options, &mut |_| {})
    })?;
    // After the segments: a keyring that is newer than the rows opens them all, an older one might not.
    let keyring = std::fs::read(site.dir.join("keyring")).context("cannot read the keyring")?;
    keepwell_continuity::keyring::copy(&keyring, keys_to, to)?;
    std::fs::copy(
        site.dir.join(crate::settings::FILE),
        keys_to.join(crate::settings::FILE),
    )
    .context("cannot copy the settings beside the keyring")?;
    // Away from the backup, so that a restore knows a forged one.
    keepwell_vault::replace_file(&keys_to.join(KEY), keys_text(site).as_bytes())
        .context("cannot write the verifier keys beside the keyring")?;
    Ok(json!({
        "entries": done.size,
        "rows": done.last_rid,
        "segmentsWritten": done.written,
        "segmentsKept": done.kept,
        "key": ledger.verifier_key(),
        "note": "to restore you need this backup, the keyring's copy, a copy of the ERA and the passphrase or recovery key",
    }))
}

//! Keepwell: medical records sealed at rest, every access in a tamper-evident log, in one binary.
//!
//! The composition root: reads the command line and the system's clock and randomness, wires the crates, runs jobs.
//! No rule of the record lives here.

mod cli;
mod effects;
mod load;
mod ops;
mod outbound;
mod remote;
mod serve;
mod settings;
mod setup;
#[cfg(test)]
mod shift_tests;
mod site;
mod socket;
mod source;
mod tls;
mod world;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use cli::{Audit, Cli, Command, Keys, Unlock};
use ops::Op;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[allow(
    clippy::disallowed_methods,
    reason = "the log filter is configuration, and this is the composition root"
)]
fn main() -> ExitCode {
    let filter = std::env::var("KEEPWELL_LOG").unwrap_or_else(|_| "info".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        // Where stderr cannot be written, on a full disk, saying so there would be a panic.
        .log_internal_errors(false)
        .init();
    let cli = Cli::parse();
    // A small clinic's memory would be mostly the unused rest of 2 MB pages; `Site::open` lets a large one have them.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    // Whatever this process writes is for its own user only.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => {
            say(&format!("keepwell: cannot start: {e}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(code) => code,
        Err(e) => {
            say(&format!("keepwell: {e:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Words for a person.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Keeps this process's memory out of core dumps, debuggers and swap, as far as the system allows.
fn harden() {
    for what in keepwell_vault::harden() {
        tracing::warn!(what, "this protection of the process's memory is not available");
    }
}

/// A result on stdout.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(())
}

#[allow(
    clippy::disallowed_methods,
    reason = "these two variables are set by this program for itself at a seal"
)]
fn started_as() -> (bool, bool) {
    (
        std::env::var(serve::SEALED).is_ok(),
        std::env::var(serve::RESUMED).is_ok(),
    )
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    if cfg!(keepwell_plain) && !matches!(command, Command::Demo(_)) {
        bail!("this build seals nothing and logs no access: it is for bench/run, and serves the demo clinic only");
    }
    match command {
        Command::Init(a) => setup::init(&a).await?,
        Command::Serve(a) => {
            let (sealed, resumed) = started_as();
            let served = serve::Served {
                dir: a.data.data,
                listen: a.listen,
                unlock: a.unlock,
                plain: a.plain_http,
                arguments: std::env::args().skip(1).collect(),
                sealed,
                resumed,
            };
            harden();
            serve::run(served, async |_| Ok(())).await?;
        }
        Command::Demo(a) => demo(a).await?,
        Command::Import(a) => return import(a).await,
        Command::Token(a) => {
            let op = match a.revoke {
                Some(jti) => Op::Revoke { jti },
                None => Op::Token {
                    scope: a.scope,
                    ttl_s: setup::seconds(&a.ttl)?,
                    role: a.role,
                    user: a.user,
                    patient: a.patient,
                },
            };
            let said = perform(&a.data.data, &a.unlock, op).await?;
            match said.get("token").and_then(Value::as_str) {
                Some(token) => {
                    print(token)?;
                    say(&format!("jti {}, until {}", text(&said, "jti"), text(&said, "expires")));
                }
                None => say("revoked"),
            }
        }
        Command::LoginLink(a) => {
            let said = perform(&a.data.data, &a.unlock, Op::LoginLink { user: a.user }).await?;
            if said.get("code").is_none() {
                say(text(&said, "note"));
                return Ok(ExitCode::SUCCESS);
            }
            if text(&said, "link").is_empty() {
                say(
                    "The server is not running, so that its address is not known. Activation code for the sign-in page:",
                );
                print(text(&said, "code"))?;
            } else {
                say("One-time activation link:");
                print(text(&said, "link"))?;
            }
            say(&format!("valid once, until {}", text(&said, "expires")));
        }
        Command::Client(command) => client(command).await?,
        Command::Idp(command) => idp(command).await?,
        Command::Verify(a) => {
            let said = verify(&a.data.data, &a.unlock, a.checkpoint.as_deref()).await?;
            return tell_report(&said, a.json);
        }
        Command::Audit(Audit::Verify(a)) => {
            let said = match &a.export {
                Some(export) => verify_export(&a.data.data, export, a.checkpoint.as_deref(), a.key.as_deref())?,
                None => verify(&a.data.data, &Unlock::default(), a.checkpoint.as_deref()).await?,
            };
            return tell_report(&said, a.json);
        }
        Command::Audit(Audit::Export(a)) => {
            let to = std::path::absolute(&a.to)?;
            let said = perform(&a.data.data, &a.unlock, Op::AuditExport { to }).await?;
            print(&said.to_string())?;
        }
        Command::Audit(Audit::Prove(a)) => {
            let said = perform(&a.data.data, &a.unlock, Op::AuditProve { entry: a.entry }).await?;
            print(text(&said, "proof"))?;
            say(&format!("verifier key: {}", text(&said, "key")));
        }
        Command::Keys(keys) => {
            let (at, op) = match keys {
                Keys::Status(a) => (a, Op::KeysStatus),
                Keys::Seal(a) => (a, Op::KeysSeal),
                Keys::Unseal(a) => (a, Op::KeysUnseal),
                Keys::Rotate(a) => {
                    let new = a.new_passphrase_file.map(std::path::absolute).transpose()?;
                    let end_tokens = a.end_tokens;
                    (
                        cli::AtData {
                            data: a.data,
                            unlock: a.unlock,
                        },
                        Op::KeysRotate {
                            new_passphrase_file: new,
                            end_tokens,
                        },
                    )
                }
            };
            let said = perform(&at.data.data, &at.unlock, op).await?;
            print(&serde_json::to_string_pretty(&said)?)?;
        }
        Command::Erase(a) => {
            let op = Op::Erase {
                patient: a.patient,
                reason: a.reason,
                several: a.several,
                yes: a.yes,
            };
            let said = perform(&a.data.data, &a.unlock, op).await?;
            print(&serde_json::to_string_pretty(&said)?)?;
        }
        Command::Backup(a) => {
            let op = Op::Backup {
                to: std::path::absolute(&a.to)?,
                keys_to: std::path::absolute(&a.keys_to)?,
            };
            let said = perform(&a.data.data, &a.unlock, op).await?;
            print(&serde_json::to_string_pretty(&said)?)?;
        }
        Command::Restore(a) => setup::restore(&a)?,
        Command::Policy(p) => return setup::policy(p),
        Command::Openapi => print(keepwell_http::openapi::document().trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `client`: what comes back is printed as JSON; it holds public keys only.
async fn client(command: cli::Client) -> anyhow::Result<()> {
    use cli::{Client, ClientKey};
    let file = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()));
    let (at, op) = match command {
        Client::Add(a) => {
            let op = Op::ClientAdd {
                name: a.name,
                jwks: file(&a.jwks)?,
                scope: a.scope,
                ttl_s: setup::seconds(&a.ttl)?,
                key_ttl_s: setup::seconds(&a.key_ttl)?,
            };
            (a.at, op)
        }
        Client::List(at) => (at, Op::ClientList),
        Client::Show(a) => (a.at, Op::ClientShow { id: a.id }),
        Client::End(a) => (a.at, Op::ClientEnd { id: a.id }),
        Client::Key(ClientKey::Add(a)) => {
            let op = Op::ClientKeyAdd {
                id: a.id,
                jwks: file(&a.jwks)?,
                ttl_s: setup::seconds(&a.ttl)?,
            };
            (a.at, op)
        }
        Client::Key(ClientKey::Remove(a)) => (a.at, Op::ClientKeyRemove { id: a.id, kid: a.kid }),
    };
    let said = perform(&at.data.data, &at.unlock, op).await?;
    print(&serde_json::to_string_pretty(&said)?)
}

/// `idp`: what comes back is printed as JSON; there is no secret in it.
async fn idp(command: cli::Idp) -> anyhow::Result<()> {
    use cli::Idp;
    let (at, op) = match command {
        Idp::Add(a) => {
            let op = Op::IdpAdd {
                name: a.name,
                issuer: a.issuer,
                client_id: a.client_id,
                signed: matches!(a.authentication, cli::IdpAuthentication::PrivateKeyJwt),
                algorithms: a.algorithms,
                acr: a.acr,
                amr: a.amr,
                hosts: a.hosts,
            };
            (a.at, op)
        }
        Idp::List(at) => (at, Op::IdpList),
        Idp::End(a) => (a.at, Op::IdpEnd { id: a.id }),
        Idp::Link(a) => {
            let op = Op::IdpLink {
                user: a.user,
                issuer: a.issuer,
                subject: a.subject,
            };
            (a.at, op)
        }
        Idp::Unlink(a) => {
            let op = Op::IdpUnlink {
                issuer: a.issuer,
                subject: a.subject,
            };
            (a.at, op)
        }
    };
    let said = perform(&at.data.data, &at.unlock, op).await?;
    print(&serde_json::to_string_pretty(&said)?)
}

fn text<'v>(v: &'v Value, name: &str) -> &'v str {
    v.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Through the socket of a running server, or on the stopped directory.
async fn perform(dir: &Path, unlock: &Unlock, op: Op) -> anyhow::Result<Value> {
    if let Some(said) = socket::ask(dir, &op)? {
        return Ok(said);
    }
    let site = Arc::new(site::Site::open(dir, unlock, None)?);
    let done = ops::run(&site, op).await;
    site.door.ledger().stop();
    done
}

async fn verify(dir: &Path, unlock: &Unlock, checkpoint: Option<&Path>) -> anyhow::Result<Value> {
    let checkpoint = checkpoint.map(std::path::absolute).transpose()?;
    if let Some(said) = socket::ask(
        dir,
        &Op::Verify {
            checkpoint: checkpoint.clone(),
        },
    )? {
        return Ok(said);
    }
    setup::verify_stopped(dir, unlock, checkpoint.as_deref())
}

/// Needs neither keys nor database; where the server of `dir` runs, it records an export that does not verify.
fn verify_export(dir: &Path, export: &Path, checkpoint: Option<&Path>, key: Option<&str>) -> anyhow::Result<Value> {
    let done = setup::verify_export(export, checkpoint, key);
    let good = done
        .as_ref()
        .is_ok_and(|said| said.get("ok") == Some(&Value::Bool(true)));
    if !good && let Err(e) = socket::ask(dir, &Op::ExportRefused) {
        say(&format!(
            "the running server could not record that the export does not verify: {e:#}"
        ));
    }
    done
}

fn tell_report(said: &Value, as_json: bool) -> anyhow::Result<ExitCode> {
    let ok = said.get("ok").and_then(Value::as_bool) == Some(true);
    if as_json {
        print(&said.to_string())?;
    } else {
        let n = |name: &str| said.get(name).and_then(Value::as_u64).unwrap_or(0);
        for f in said.get("findings").and_then(Value::as_array).into_iter().flatten() {
            print(&format!("damage: {}", f.as_str().unwrap_or_default()))?;
        }
        if n("more") > 0 {
            print(&format!("and {} more", n("more")))?;
        }
        print(&format!(
            "{}: {} rows, {} log entries, {} bodies opened, {} erased",
            if ok { "verified" } else { "NOT VERIFIED" },
            n("rows"),
            n("entries"),
            n("opened"),
            n("erased")
        ))?;
        if said.get("checkpointCompared").and_then(Value::as_bool) != Some(true) {
            print("not checked: whether the whole directory was rolled back (give --checkpoint FILE kept elsewhere)")?;
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn import(a: cli::Import) -> anyhow::Result<ExitCode> {
    let tell = |line: &str| say(&format!("refused: {line}"));
    let total = match (&a.url, &a.token_file) {
        (Some(url), Some(file)) => {
            let token = std::fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))?;
            let sink = Arc::new(remote::Remote::new(url, token.trim().to_owned(), a.ca.as_deref())?);
            load::files(&sink, &a.files, tell).await?
        }
        _ if socket::ask(&a.data.data, &Op::KeysStatus)?.is_some() => {
            let op = Op::Import {
                files: a.files.iter().map(std::path::absolute).collect::<Result<_, _>>()?,
            };
            let said = socket::ask(&a.data.data, &op)?.context("the server stopped")?;
            for line in said.get("told").and_then(Value::as_array).into_iter().flatten() {
                tell(line.as_str().unwrap_or_default());
            }
            let n = |name: &str| said.get(name).and_then(Value::as_u64).unwrap_or(0);
            load::Total {
                written: n("written"),
                unchanged: n("unchanged"),
                refused: n("refused"),
                faulty: n("faulty"),
            }
        }
        _ => {
            let site = Arc::new(site::Site::open(&a.data.data, &a.unlock, None)?);
            let done = load::files(&site, &a.files, tell).await;
            site.door.ledger().stop();
            done?
        }
    };
    print(
        &json!({
            "written": total.written,
            "unchanged": total.unchanged,
            "refused": total.refused,
            "bundlesNotLoaded": total.faulty,
        })
        .to_string(),
    )?;
    Ok(if total.faulty == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn demo(a: cli::Demo) -> anyhow::Result<()> {
    let (sealed, resumed) = started_as();
    if !a.data.join(settings::FILE).exists() {
        setup::make_demo(&a.data)?;
    }
    harden();
    let served = serve::Served {
        dir: a.data.clone(),
        listen: a.listen,
        unlock: Unlock::default(),
        plain: true,
        arguments: std::env::args().skip(1).collect(),
        sealed,
        resumed,
    };
    let address: std::net::SocketAddr = tokio::net::lookup_host(&served.listen.listen)
        .await
        .ok()
        .and_then(|mut l| l.next())
        .with_context(|| format!("`{}` is not an address", served.listen.listen))?;
    if !address.ip().is_loopback() {
        bail!("the demo tells everybody its passwords and codes: it listens on this machine only (127.0.0.1)");
    }
    serve::run(served, async |site| {
        if !resumed {
            setup::fill_demo(site, a.seed, a.patients).await?;
            setup::write_demo_token(site, a.token_file.as_deref()).await?;
        }
        Ok(())
    })
    .await
}

//! `serve` and `demo`: the listeners, the socket, signals, sealing.

use crate::cli::{Listen, Unlock};
use crate::effects::{SystemClock, SystemEntropy};
use crate::ops::{self, Op};
use crate::site::Site;
use crate::{socket, tls};
use anyhow::{Context as _, bail};
use axum::Router;
use keepwell_http::listen::{self, Bounds};
use keepwell_http::{App, RequestIds};
use keepwell_model::time::{Clock, Entropy as _};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Largest body accepted.
const BODY_MAX: usize = 256 << 20;

/// Files the process needs besides its connections: the database's readers, the log, the sockets.
const FILES: u64 = 256;

/// Bounds of the listeners: as many connections as there are files to have, up to the default.
fn bounds() -> Bounds {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Systems give few by default, for programs of another time; the rest may be asked for.
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let default = Bounds::default();
    let room = files.map_or(usize::MAX, |n| {
        usize::try_from(n.saturating_sub(FILES)).unwrap_or(usize::MAX)
    });
    Bounds {
        connections: default.connections.min(room.max(1)),
        ..default
    }
}

/// Set for the process that a seal or unseal re-executes: the port it must take again.
pub const SEALED: &str = "KEEPWELL_SEALED";
/// Set likewise: the ready line was printed before.
pub const RESUMED: &str = "KEEPWELL_RESUMED";

/// What to serve.
pub struct Served {
    /// The data directory.
    pub dir: PathBuf,
    /// Address, metrics, checkpoint copy.
    pub listen: Listen,
    /// How to unlock.
    pub unlock: Unlock,
    /// Serve plain HTTP although there is a certificate; loopback only.
    pub plain: bool,
    /// The arguments of this process, for re-execution.
    pub arguments: Vec<String>,
    /// Started sealed.
    pub sealed: bool,
    /// The ready line was printed by the process before.
    pub resumed: bool,
}

/// What a server over TLS shows, and how it is told that there is another: SIGHUP, which ends one without TLS as ever.
struct Tls {
    config: Arc<rustls::ServerConfig>,
    certificate: Arc<tls::Certificate>,
    hangup: Signal,
}

impl Tls {
    fn load(chain: &Path, key: &Path) -> anyhow::Result<Self> {
        let certificate = Arc::new(tls::Certificate::load(chain, key)?);
        Ok(Self {
            config: certificate.server()?,
            certificate,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// An open listener and where it is reached.
struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    origin: String,
    hosts: Vec<String>,
}

async fn bind(served: &Served, settings: &crate::settings::Settings) -> anyhow::Result<Bound> {
    let listener = TcpListener::bind(&served.listen.listen)
        .await
        .with_context(|| format!("cannot listen on {}", served.listen.listen))?;
    let address = listener.local_addr()?;
    let tls = match (&settings.certificate, &settings.certificate_key, served.plain) {
        (Some(c), Some(k), false) => Some(Tls::load(&served.dir.join(c), &served.dir.join(k))?),
        _ => None,
    };
    if tls.is_none() && !listen::is_loopback(&address) {
        bail!(
            "{address} can be reached from other machines and there is no certificate: medical records are not served \
             in clear. Give `init` a certificate (or let it make one), or listen on 127.0.0.1"
        );
    }
    let port = address.port();
    let origin = if tls.is_some() {
        format!("https://{}:{port}", settings.name)
    } else if address.is_ipv6() {
        format!("http://[{}]:{port}", address.ip())
    } else {
        format!("http://{}:{port}", address.ip())
    };
    let mut hosts = vec![settings.name.to_lowercase()];
    if listen::is_loopback(&address) {
        hosts.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    } else {
        hosts.push(address.ip().to_string());
        hosts.push("localhost".to_owned());
    }
    Ok(Bound {
        listener,
        address,
        tls,
        origin,
        hosts,
    })
}

/// Runs until a signal or a seal.
///
/// # Errors
/// It cannot start.
pub async fn run(served: Served, prepare: impl AsyncFnOnce(&Site) -> anyhow::Result<()>) -> anyhow::Result<()> {
    if served.sealed {
        return run_sealed(served).await;
    }
    let site = Arc::new(Site::open(
        &served.dir,
        &served.unlock,
        served.listen.checkpoint_copy.as_deref(),
    )?);
    prepare(&site).await?;
    let bound = bind(&served, &site.settings).await?;
    let mut prefix = [0; 4];
    SystemEntropy.fill(&mut prefix)?;
    let app = Arc::new(App {
        door: Arc::clone(&site.door),
        identity: Arc::clone(&site.identity),
        origin: bound.origin.clone(),
        hosts: bound.hosts.clone(),
        metrics: keepwell_http::metrics::Metrics::default(),
        ready: AtomicBool::new(true),
        request_ids: RequestIds {
            prefix: u32::from_be_bytes(prefix),
            next: AtomicU64::new(1),
        },
        body_max: BODY_MAX,
        strangers: keepwell_http::fhir::Strangers::default(),
        secure: bound.tls.is_some(),
        certificate_ends: bound.tls.as_ref().map(|t| Arc::clone(t.certificate.ends())),
        loopback: listen::is_loopback(&bound.address),
        site: keepwell_http::SiteFacts {
            demo: site.settings.demo_logins,
            logins: if site.settings.demo_logins && listen::is_loopback(&bound.address) {
                crate::world::staff()
                    .into_iter()
                    .map(|s| keepwell_http::Login {
                        user: s.user.to_owned(),
                        password: crate::world::PASSWORD.to_owned(),
                        display: s.display.to_owned(),
                        role: s.role,
                        try_this: s.try_this.to_owned(),
                    })
                    .collect()
            } else {
                Vec::new()
            },
        },
    });
    let pages = pages_at(&bound.origin, bound.address.port(), app.secure);
    site.identity.serve_sign_in_at(&pages);
    if let Err(why) = site.identity.serve_passkeys_at(&pages) {
        tracing::warn!(
            why,
            "passkeys cannot be used: give the site a DNS name (`init --name`) and open it by that"
        );
    }
    let (stop, stopped) = watch::channel(false);
    let mut ready = json!({
        "ready": true,
        "url": bound.origin,
        "fhir": format!("{}/fhir", bound.origin),
    });
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(address) = &served.listen.metrics {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} for metrics"))?;
        let at = listener.local_addr()?;
        if !listen::is_loopback(&at) {
            bail!("the metrics listener speaks plain HTTP: keep it on loopback");
        }
        if let Some(members) = ready.as_object_mut() {
            members.insert("metrics".to_owned(), Value::from(format!("http://{at}/metrics")));
        }
        let router = keepwell_http::metrics_router(Arc::clone(&app));
        tasks.spawn(listen::serve(listener, None, router.into(), bounds(), stopped.clone()));
    }
    let front = keepwell_http::Front::new(Arc::clone(&app));
    let (config, watching) = watched(bound.tls, site.door.clock());
    tasks.spawn(listen::serve(bound.listener, config, front, bounds(), stopped.clone()));

    let ending = tokio::spawn(end_emergencies(Arc::clone(&site)));
    let (seal, mut sealing) = tokio::sync::mpsc::channel::<()>(1);
    let commands = {
        let site = Arc::clone(&site);
        move |op: Op| {
            let (site, seal, pages) = (Arc::clone(&site), seal.clone(), pages.clone());
            async move {
                match op {
                    op @ Op::LoginLink { .. } => {
                        let mut said = ops::run(&site, op).await?;
                        // Behind the `#`: browsers keep that to themselves, and the page takes it out of the address.
                        let code = said.get("code").and_then(Value::as_str);
                        let link = code.map(|code| Value::from(format!("{pages}/sign-in#{code}")));
                        if let (Some(members), Some(link)) = (said.as_object_mut(), link) {
                            members.insert("link".to_owned(), link);
                        }
                        Ok(said)
                    }
                    Op::KeysSeal => {
                        let ctx = site.job("command");
                        site.door
                            .authorize_system(&ctx, keepwell_policy::Action::KeysSeal)
                            .await
                            .map_err(|_| anyhow::anyhow!("sealing was refused"))?;
                        site.door
                            .record_act(&ctx, keepwell_policy::Action::KeysSeal, 0, "")
                            .await
                            .map_err(|_| anyhow::anyhow!("sealing could not be recorded"))?;
                        let _ = seal.send(()).await;
                        Ok(json!({ "sealed": true }))
                    }
                    Op::KeysUnseal => bail!("the server is not sealed"),
                    op => ops::run(&site, op).await,
                }
            }
        }
    };
    let control = tokio::spawn(socket::serve(socket::bind(&served.dir)?, commands));
    // Before the ready line: whoever reads it may signal at once.
    let mut signals = Signals::new()?;
    if !served.resumed {
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{ready}")?;
        out.flush()?;
    }
    tracing::info!(url = bound.origin, "serving");
    let sealed = tokio::select! {
        () = signals.any() => false,
        _ = sealing.recv() => true,
    };
    app.ready.store(false, Ordering::Release);
    let _ = stop.send(true);
    while tasks.join_next().await.is_some() {}
    control.abort();
    ending.abort();
    if let Some(watching) = watching {
        watching.abort();
    }
    site.identity.seal();
    if sealed {
        site.door.ledger().seal();
        return Err(again(&served, bound.address.port(), true));
    }
    site.door.ledger().stop();
    let _ = std::fs::remove_file(served.dir.join("socket"));
    Ok(())
}

/// How often the ends of emergency accesses are put into the log. They open nothing after their time in any case.
const END_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

/// Puts the end of each emergency access whose time is over into the log.
async fn end_emergencies(site: Arc<Site>) {
    loop {
        if let Err(e) = site.door.end_expired(&site.job("emergency-access")).await {
            tracing::error!(error = %e, "the end of an emergency access could not be recorded; it will be tried again");
        }
        tokio::time::sleep(END_EVERY).await;
    }
}

/// The configuration to listen with, and the job that watches its certificate.
fn watched(
    tls: Option<Tls>,
    clock: &Arc<dyn Clock>,
) -> (Option<Arc<rustls::ServerConfig>>, Option<tokio::task::JoinHandle<()>>) {
    match tls {
        None => (None, None),
        Some(t) => {
            let watching = tokio::spawn(tls::watch(t.certificate, Arc::clone(clock), t.hangup));
            (Some(t.config), Some(watching))
        }
    }
}

/// Where a browser finds the pages: on loopback without TLS that is a name, as numeric addresses lead there.
fn pages_at(origin: &str, port: u16, secure: bool) -> String {
    if secure {
        origin.to_owned()
    } else {
        format!("http://localhost:{port}")
    }
}

/// SIGTERM and SIGINT, caught from the moment this is made.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

/// A sealed server holds no key and no index: it answers 503 and waits for `keys unseal`.
async fn run_sealed(served: Served) -> anyhow::Result<()> {
    let settings = crate::settings::Settings::read(&served.dir)?;
    let bound = bind(&served, &settings).await?;
    let (stop, stopped) = watch::channel(false);
    let router: Router = keepwell_http::sealed_router();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let (config, watching) = watched(bound.tls, &clock);
    let serving = tokio::spawn(listen::serve(bound.listener, config, router.into(), bounds(), stopped));
    let (unseal, mut unsealing) = tokio::sync::mpsc::channel::<()>(1);
    let commands = move |op: Op| {
        let unseal = unseal.clone();
        async move {
            match op {
                Op::KeysUnseal => {
                    let _ = unseal.send(()).await;
                    Ok(json!({ "unsealing": true }))
                }
                Op::KeysStatus => Ok(json!({ "sealed": true })),
                _ => bail!("the server is sealed: run `keepwell keys unseal` first"),
            }
        }
    };
    let control = tokio::spawn(socket::serve(socket::bind(&served.dir)?, commands));
    let mut signals = Signals::new()?;
    let unsealed = tokio::select! {
        () = signals.any() => false,
        _ = unsealing.recv() => true,
    };
    // The answer to the command goes out before the process is replaced.
    tokio::task::yield_now().await;
    let _ = stop.send(true);
    let _ = serving.await;
    control.abort();
    if let Some(watching) = watching {
        watching.abort();
    }
    if unsealed {
        return Err(again(&served, bound.address.port(), false));
    }
    let _ = std::fs::remove_file(served.dir.join("socket"));
    Ok(())
}

/// Replaces this process by a fresh one on the same port: the only sure way to empty memory. Returns only on failure.
fn again(served: &Served, port: u16, sealed: bool) -> anyhow::Error {
    let program = Path::new("/proc/self/exe");
    let program = std::fs::read_link(program).unwrap_or_else(|_| program.to_owned());
    let mut arguments = served.arguments.clone();
    let host = served
        .listen
        .listen
        .rsplit_once(':')
        .map_or("127.0.0.1", |(h, _)| h)
        .to_owned();
    // The last --listen wins over one given before.
    arguments.retain(|a| !a.starts_with("--listen="));
    if let Some(at) = arguments.iter().position(|a| a == "--listen") {
        arguments.drain(at..(at + 2).min(arguments.len()));
    }
    arguments.push(format!("--listen={host}:{port}"));
    let mut command = std::process::Command::new(program);
    command.args(arguments).env(RESUMED, "1");
    if sealed {
        command.env(SEALED, "1");
    } else {
        command.env_remove(SEALED);
    }
    anyhow::Error::new(command.exec()).context("the server could not start again")
}

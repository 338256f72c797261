//! HTTP: the FHIR API, the pages, health and metrics. Translation only: every decision and every record of an access
//! is made behind [`keepwell_record::Door`].
//!
//! This crate holds no keys, asks no policy and knows no store. To add a route: a row in [`routes`], a handler that
//! calls one method of the door, a row in the authorization table.

pub mod fhir;
pub mod listen;
pub mod metrics;
pub mod openapi;
pub mod pages;
mod respond;
pub mod routes;
mod site;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use keepwell_identity::Identity;
use keepwell_model::actor::Role;
use keepwell_model::time::Timestamp;
use keepwell_record::Door;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use tower::ServiceExt as _;

/// A certificate that ends within so many days is told about.
pub const CERTIFICATE_WARNING_DAYS: i64 = 30;

/// Where a process says that it runs, sealed or not.
pub(crate) const HEALTH: &str = "/health";
/// Where it says that the record is open.
pub(crate) const READY: &str = "/ready";

/// What the handlers share.
pub struct App {
    /// The way to patient data.
    pub door: Arc<Door>,
    /// Who is asking.
    pub identity: Arc<Identity>,
    /// Scheme and authority the server is reached at, for example `http://127.0.0.1:8080`.
    pub origin: String,
    /// Host names accepted in `Host`, lower case, without port.
    pub hosts: Vec<String>,
    /// Counters for `/metrics`.
    pub metrics: metrics::Metrics,
    /// The index is up to date and writes are accepted.
    pub ready: AtomicBool,
    /// Request ids: a random start and a counter.
    pub request_ids: RequestIds,
    /// Largest body accepted, in bytes.
    pub body_max: usize,
    /// Unauthenticated refusals, counted per source and minute.
    pub strangers: fhir::Strangers,
    /// Served over TLS.
    pub secure: bool,
    /// When the certificate ends, if there is one.
    pub certificate_ends: Option<Arc<CertificateEnd>>,
    /// Reached from this machine only.
    pub loopback: bool,
    /// What the pages show of the site.
    pub site: SiteFacts,
}

/// When the certificate served ends. It changes when a renewed one is taken up.
#[derive(Debug)]
pub struct CertificateEnd(AtomicI64);

impl CertificateEnd {
    /// The end of the certificate served first.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        Self(AtomicI64::new(at.0))
    }

    /// The end of the one served now.
    #[must_use]
    pub fn get(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }

    /// Another one is served.
    pub fn set(&self, at: Timestamp) {
        self.0.store(at.0, Ordering::Relaxed);
    }
}

/// What the pages show of the site.
#[derive(Clone, Debug, Default)]
pub struct SiteFacts {
    /// The demo clinic.
    pub demo: bool,
    /// Logins offered on the sign-in page.
    pub logins: Vec<Login>,
}

/// A login that the demo offers.
#[derive(Clone, Debug)]
pub struct Login {
    /// Account id.
    pub user: String,
    /// Name shown.
    pub display: String,
    /// Role.
    pub role: Role,
    /// What to try.
    pub try_this: String,
}

/// Gives each request an id that says nothing about it.
pub struct RequestIds {
    /// Random, new at each start.
    pub prefix: u32,
    /// The next number.
    pub next: AtomicU64,
}

impl RequestIds {
    /// A new id, 16 hexadecimal digits.
    pub fn give(&self) -> String {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{:08x}{:08x}", self.prefix, n & 0xffff_ffff)
    }
}

/// What a listener answers with. The FHIR API has its own dispatch ([`routes`]) and does not pass through a router.
#[derive(Clone)]
pub struct Front {
    fhir: Option<Arc<App>>,
    other: Router,
}

impl Front {
    /// Everything of the main listener: the FHIR API, the pages, health.
    #[must_use]
    pub fn new(app: Arc<App>) -> Self {
        let pages = pages::router(Arc::new(site::PagesBackend::new(Arc::clone(&app))));
        let state = Router::new()
            .route(HEALTH, get(fhir::health))
            .route(READY, get(fhir::ready))
            .with_state(Arc::clone(&app));
        Self {
            fhir: Some(app),
            other: state.merge(pages),
        }
    }

    /// The answer to one request.
    pub async fn answer(&self, request: axum::extract::Request) -> axum::response::Response {
        let path = request.uri().path();
        let is_fhir = path
            .strip_prefix("/fhir")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let mut response = match &self.fhir {
            Some(app) if is_fhir => fhir::handle(app, request).await,
            _ => match self.other.clone().oneshot(request).await {
                Ok(response) => response,
            },
        };
        if self.fhir.as_ref().is_some_and(|app| app.secure) {
            let hsts = HeaderValue::from_static("max-age=63072000; includeSubDomains");
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, hsts);
        }
        response
    }
}

impl From<Router> for Front {
    fn from(other: Router) -> Self {
        Self { fhir: None, other }
    }
}

/// The metrics listener's one route.
pub fn metrics_router(app: Arc<App>) -> Router {
    Router::new()
        .route(
            "/metrics",
            get(|State(app): State<Arc<App>>| async move {
                let s = app.door.ledger().status();
                let mut gauges = vec![
                    ("keepwell_rows", "Rows in the log.", s.rows as f64),
                    ("keepwell_log_entries", "Entries in the audit log.", s.entries as f64),
                    ("keepwell_slots_active", "Key slots in use.", f64::from(s.slots_active)),
                    (
                        "keepwell_index_bytes",
                        "Estimated memory of the index.",
                        app.door.index_bytes() as f64,
                    ),
                    (
                        "keepwell_writes_stopped",
                        "1 while writes are refused.",
                        f64::from(u8::from(s.stopped.is_some())),
                    ),
                ];
                if let Some(ends) = &app.certificate_ends {
                    let left = (ends.get().0 - app.door.clock().now().0) as f64 / 1000.0;
                    gauges.push((
                        "keepwell_certificate_seconds_left",
                        "Time until the certificate ends; negative afterwards.",
                        left,
                    ));
                }
                (
                    [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
                    app.metrics.render(&gauges),
                )
            }),
        )
        .with_state(app)
}

/// The answers of a sealed server.
pub fn sealed_router() -> Router {
    Router::new().route(HEALTH, get(fhir::health)).fallback(|| async {
        let issue = keepwell_model::outcome::Issue::error(
            "transient",
            "the server is sealed: its keys are not in memory. The operator unseals it with `keepwell keys unseal`",
        );
        let body = keepwell_model::outcome::operation_outcome(&[issue]).to_string();
        let headers = [
            (header::CONTENT_TYPE, respond::FHIR_JSON),
            (header::CACHE_CONTROL, "no-store"),
        ];
        (StatusCode::SERVICE_UNAVAILABLE, headers, body).into_response()
    })
}

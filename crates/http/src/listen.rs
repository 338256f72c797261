//! The accept loop: connection cap, header and handshake time limits, TLS, graceful stop.

use crate::Front;
use axum::extract::connect_info::ConnectInfo;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most connections at a time; more wait in the kernel's queue.
    pub connections: usize,
    /// Longest wait for a whole request head, the first one of a connection included, and for a TLS handshake.
    pub head: Duration,
    /// Longest wait for connections to end at a stop.
    pub drain: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 4096,
            head: Duration::from_secs(10),
            drain: Duration::from_secs(3),
        }
    }
}

/// Serves `front` until `stop` changes, then lets running requests end within the drain time.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    front: Front,
    bounds: Bounds,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let acceptor = tls.map(tokio_rustls::TlsAcceptor::from);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(64 * 1024)
        .max_headers(100);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(200)
        .max_header_list_size(32 * 1024);
    let builder = Arc::new(builder);
    let graceful = hyper_util::server::graceful::GracefulShutdown::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            break;
        };
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(a) => a,
                Err(e) => {
                    // Out of file descriptors and the like: the next accept may succeed.
                    tracing::warn!(error = %e, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
            _ = stop.changed() => break,
        };
        let _ = stream.set_nodelay(true);
        let watcher = graceful.watcher();
        let front = front.clone();
        let builder = Arc::clone(&builder);
        let acceptor = acceptor.clone();
        let heard = Arc::new(Notify::new());
        tokio::spawn(async move {
            let first = Arc::clone(&heard);
            let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
                first.notify_one();
                request.extensions_mut().insert(ConnectInfo(peer));
                let front = front.clone();
                async move { Ok::<_, Infallible>(front.answer(request.map(axum::body::Body::new)).await) }
            });
            let head = bounds.head;
            match acceptor {
                None => {
                    let conn = builder.serve_connection(TokioIo::new(stream), service);
                    within(head, &heard, watcher.watch(conn.into_owned())).await;
                }
                Some(acceptor) => {
                    if let Ok(Ok(tls)) = tokio::time::timeout(head, acceptor.accept(stream)).await {
                        let conn = builder.serve_connection(TokioIo::new(tls), service);
                        within(head, &heard, watcher.watch(conn.into_owned())).await;
                    }
                }
            }
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(bounds.drain, graceful.shutdown()).await;
}

/// Drives a connection to its end, or until `head` passes without a first request: the protocol's own time limits begin
/// with the first bytes, and a client that sends none must not keep its place.
async fn within(head: Duration, heard: &Notify, connection: impl Future) {
    let mut connection = pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        () = heard.notified() => {}
        () = tokio::time::sleep(head) => return,
    }
    connection.await;
}

/// Whether an address can be reached from this machine only.
#[must_use]
pub fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().is_loopback()
}

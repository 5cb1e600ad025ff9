//! Accepts connections and serves HTTP on them until told to stop.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use evows_core::Shutdown;
use evows_core::config::ServerConfig;
use evows_core::http::Routes;
use evows_core::metrics::Metrics;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::cors::Cors;
use super::forwarded::Proxies;
use super::guard::{Connection, Guarded, Rules};
use super::limits::{Limits, Slot};
use super::service::Service;
use super::tls::Tls;
use super::{Bound, COMPONENT};

/// The smallest buffer that hyper works with.
const SMALLEST_BUFFER: usize = 8 * 1024;

/// How long to wait when the system has no more file descriptors: some connection must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every connection needs.
struct Shared {
    http: http1::Builder,
    tls: Option<Tls>,
    #[cfg(feature = "tls")]
    config: Arc<ServerConfig>,
    limits: Limits,
    guard: Arc<Rules>,
    metrics: Metrics,
    service: Service,
}

/// An error worth a line in the log, but not one for each time.
#[derive(Default)]
struct Complaint {
    last: Option<Instant>,
}

/// Serves until `shutdown` starts and the requests in flight are answered.
pub(super) async fn serve(bound: Bound, routes: Routes, shutdown: Shutdown) {
    let Bound {
        listener,
        address,
        tls,
        config,
        metrics,
    } = bound;
    let shared = Arc::new(Shared {
        http: builder(&config),
        tls,
        limits: Limits::new(config.max_connections, config.max_connections_per_address),
        guard: Arc::new(Rules {
            stall_limit: config.tcp_user_timeout.0,
            metrics: metrics.clone(),
        }),
        metrics: metrics.clone(),
        service: Service {
            routes,
            cors: Cors::new(&config.cors_origins),
            proxies: Proxies::new(&config.trusted_proxies),
            metrics,
            shutdown: shutdown.clone(),
        },
        #[cfg(feature = "tls")]
        config,
    });
    // Dropping the set, when the caller's patience ends, ends what is left in it.
    let mut connections = JoinSet::new();
    let mut complaint = Complaint::default();
    let mut stopped = pin!(shutdown.started());
    loop {
        tokio::select! {
            biased;
            () = &mut stopped => break,
            Some(ended) = connections.join_next() => report(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if let Some(slot) = shared.admit(peer) {
                        connections.spawn(Arc::clone(&shared).connection(stream, peer, slot));
                    }
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    shared.metrics.refuse(&COMPONENT, "accept_failed");
                    if complaint.is_due() {
                        tracing::error!(%error, %address, "cannot accept connections");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

fn builder(config: &ServerConfig) -> http1::Builder {
    let header_size = config.max_header_size.bytes();
    let mut http = http1::Builder::new();
    // hyper allows 100 headers; setting the number, even to that, costs an allocation per request.
    http.timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout.0)
        .max_header_size(header_size)
        .max_buf_size(header_size.max(SMALLEST_BUFFER));
    http
}

/// Whether a failed accept says nothing about the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended in a panic");
    }
}

// === impl Shared ===

impl Shared {
    /// A place for a connection from `peer`, if there is one left.
    fn admit(&self, peer: SocketAddr) -> Option<Slot> {
        let address = peer.ip().to_canonical();
        let counted = !self.service.proxies.trust(address);
        match self.limits.take(counted.then_some(address)) {
            Ok(slot) => Some(slot),
            Err(reason) => {
                self.metrics.refuse(&COMPONENT, reason);
                None
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, slot: Slot) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        // On Linux it has this from the listener.
        #[cfg(not(target_os = "linux"))]
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set the options of a connection");
        }
        let connection = Connection::default();
        let stream = Guarded::new(stream, connection.clone(), Arc::clone(&self.guard), slot);
        match &self.tls {
            None => self.http(stream, peer, connection).await,
            // Boxed, so that plain connections do not pay for its size.
            #[cfg(feature = "tls")]
            Some(tls) => Box::pin(self.over_tls(tls, stream, peer, connection)).await,
            #[cfg(not(feature = "tls"))]
            Some(Tls(never)) => match *never {},
        }
    }

    #[cfg(feature = "tls")]
    async fn over_tls(
        &self,
        tls: &Tls,
        stream: Guarded<TcpStream>,
        peer: SocketAddr,
        connection: Connection,
    ) {
        let handshake = tokio::time::timeout(self.config.header_timeout.0, tls.accept(stream));
        tokio::select! {
            stream = handshake => match stream {
                Ok(Ok(stream)) => self.http(stream, peer, connection).await,
                Ok(Err(error)) => {
                    tracing::debug!(%error, %peer, "TLS handshake failed");
                    self.metrics.refuse(&COMPONENT, "tls_handshake");
                }
                Err(_) => self.metrics.refuse(&COMPONENT, "tls_handshake_timeout"),
            },
            () = self.service.shutdown.started() => {}
        }
    }

    /// Serves requests until the connection ends, becomes a WebSocket, or has nothing in flight at shutdown.
    async fn http<S>(&self, stream: S, peer: SocketAddr, connection: Connection)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(async |request| {
            let response = self.service.answer(request, peer, &connection).await;
            Ok::<_, Infallible>(response)
        });
        let serving = self.http.serve_connection(TokioIo::new(stream), service);
        let mut serving = pin!(serving.with_upgrades());
        let outcome = tokio::select! {
            outcome = serving.as_mut() => outcome,
            () = self.service.shutdown.started() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = outcome {
            self.ended(&error, peer, &connection);
        }
    }

    fn ended(&self, error: &hyper::Error, peer: SocketAddr, connection: &Connection) {
        tracing::debug!(%error, %peer, "connection ended");
        // A client that keeps an answered connection open for later has done nothing wrong.
        if error.is_timeout() && !connection.is_idle() {
            self.metrics.refuse(&COMPONENT, "header_timeout");
        } else if error.is_parse_too_large() {
            self.metrics.refuse(&COMPONENT, "header_too_large");
        } else if error.is_parse() {
            self.metrics.refuse(&COMPONENT, "malformed_request");
        }
    }
}

// === impl Complaint ===

impl Complaint {
    /// Whether a second has gone since it was last due.
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self
            .last
            .is_none_or(|last| now.duration_since(last) >= Duration::from_secs(1));
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn complains_once_a_second() {
        let mut complaint = Complaint::default();
        assert!(complaint.is_due());
        tokio::time::advance(Duration::from_millis(999)).await;
        assert!(!complaint.is_due());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(complaint.is_due());
        assert!(!complaint.is_due());
    }
}

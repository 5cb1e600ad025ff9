//! What plugins see of the HTTP server, which `evows-transports` implements.

mod error;
pub(crate) mod history;
mod query;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;

use crate::config::ServerConfig;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;

pub use self::error::{error_response, is_too_large};
pub use self::query::{key, parameter};

/// The port-owning part of evows. Core is given one by the binary and knows no more about it than this.
#[async_trait]
pub trait Host: Send + Sync {
    /// Takes the port. No connection is accepted yet.
    async fn bind(
        &self,
        config: &Arc<ServerConfig>,
        metrics: &Metrics,
    ) -> Result<Box<dyn Listening>, BindError>;
}

/// A taken port.
#[async_trait]
pub trait Listening: Send {
    /// Where it listens: the address as bound, a port of 0 resolved. Where another server listens in its place, unspecified.
    fn address(&self) -> SocketAddr;

    /// Accepts and serves until `shutdown` starts, then accepts no more, lets requests in flight finish,
    /// and returns. Core puts a deadline on that.
    async fn serve(self: Box<Self>, routes: Routes, shutdown: Shutdown);
}

/// Why a port could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has it.
    #[error("port {} is in use on {}: stop what listens there, or set `server.listen` (or SERVER_PORT) to another port", .0.port(), .0.ip())]
    InUse(SocketAddr),
    /// The system keeps the port for privileged processes.
    #[error(
        "not allowed to listen on {0}: set `server.listen` (or SERVER_PORT) to a port above 1023, or give the process the right to low ports"
    )]
    Denied(SocketAddr),
    /// Anything else about the address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The certificate or key cannot be used.
    #[error("cannot use the TLS files: {0}")]
    Tls(String),
}

/// Routes that one component mounted.
#[derive(Debug, Clone)]
pub struct Mount {
    /// The component's id.
    pub component: String,
    /// The path that it serves, and everything below it.
    pub prefix: String,
    /// What serves it; it sees the whole path.
    pub router: Router,
}

/// Every mounted route. The longest matching prefix wins.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    mounts: Arc<Vec<Mount>>,
    stopping: Shutdown,
}

/// Two components want the same path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{first}` and `{second}` both serve the path `{prefix}`: give one of them another `path`")]
pub struct RouteConflict {
    /// The path.
    pub prefix: String,
    /// One component.
    pub first: String,
    /// The other.
    pub second: String,
}

/// Who sent a request. An extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The other end of the TCP connection.
    pub tcp: SocketAddr,
    /// The client: the TCP peer, or what a trusted proxy says it is.
    pub client: IpAddr,
}

// === impl Mount ===

impl Mount {
    /// Routes of `component` at `prefix` and below; a trailing slash is dropped.
    pub fn new(component: impl Into<String>, prefix: impl Into<String>, router: Router) -> Self {
        let prefix = prefix.into().trim_end_matches('/').to_owned();
        Self {
            component: component.into(),
            prefix,
            router,
        }
    }

    fn serves(&self, path: &str) -> bool {
        path.strip_prefix(&*self.prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

// === impl Routes ===

impl Routes {
    /// Puts mounts together.
    pub fn new(mut mounts: Vec<Mount>) -> Result<Self, RouteConflict> {
        mounts.sort_by(|a, b| {
            let by_length = b.prefix.len().cmp(&a.prefix.len());
            by_length.then_with(|| a.prefix.cmp(&b.prefix))
        });
        for pair in mounts.windows(2) {
            if let [first, second] = pair
                && first.prefix == second.prefix
            {
                return Err(RouteConflict {
                    prefix: first.prefix.clone(),
                    first: first.component.clone(),
                    second: second.component.clone(),
                });
            }
        }
        Ok(Self {
            mounts: Arc::new(mounts),
            stopping: Shutdown::new(),
        })
    }

    /// Ties the routes to the signal that the process is about to stop.
    #[must_use]
    pub fn stopping_on(mut self, stopping: Shutdown) -> Self {
        self.stopping = stopping;
        self
    }

    /// Whether the process is about to stop: requests are still served, but `/healthz` sends new
    /// clients elsewhere.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_started()
    }

    /// Whether nothing is mounted.
    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty()
    }

    /// Who serves this path.
    pub fn find(&self, path: &str) -> Option<&Router> {
        let mount = self.mounts.iter().find(|mount| mount.serves(path));
        mount.map(|mount| &mount.router)
    }
}

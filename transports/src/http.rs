//! The HTTP server: takes the port, guards every connection, and hands requests to the mounted routes.
//!
//! It has its own accept loop on hyper, because a server that stands in the open needs limits that
//! `axum::serve` does not have: connections in all and per address, time for headers to arrive, time for a
//! peer to read what it was sent.

mod accept;
mod cors;
mod forwarded;
mod guard;
mod limits;
mod listen;
mod service;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "http/no_tls.rs"]
mod tls;
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use evows_core::Shutdown;
use evows_core::config::ServerConfig;
use evows_core::http::{BindError, Host, Listening, Peer, Routes};
use evows_core::metrics::Metrics;
use tokio::net::TcpListener;

use self::tls::Tls;

pub use self::guard::Connection;
pub(crate) use self::limits::{Limits, Slot};
pub(crate) use self::wire::Wire;

/// The name of the server among the components that count.
static COMPONENT: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from("http"));

/// The HTTP server of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Server;

struct Bound {
    address: SocketAddr,
    listener: TcpListener,
    tls: Option<Tls>,
    config: Arc<ServerConfig>,
    metrics: Metrics,
}

/// Who sent a request: nobody that is known where it did not come through this server.
pub(crate) fn peer<B>(request: &axum::http::Request<B>) -> Peer {
    let nobody = || {
        let address = IpAddr::from([0, 0, 0, 0]);
        Peer {
            tcp: (address, 0).into(),
            client: address,
        }
    };
    let peer = request.extensions().get::<Peer>().copied();
    peer.unwrap_or_else(nobody)
}

// === impl Server ===

#[async_trait]
impl Host for Server {
    async fn bind(
        &self,
        config: &Arc<ServerConfig>,
        metrics: &Metrics,
    ) -> Result<Box<dyn Listening>, BindError> {
        let tls = match &config.tls {
            Some(files) => Some(Tls::load(files).await?),
            None => None,
        };
        let (listener, address) = listen::listen(config.listen, config.tcp_user_timeout.0)?;
        Ok(Box::new(Bound {
            address,
            listener,
            tls,
            config: Arc::clone(config),
            metrics: metrics.clone(),
        }))
    }
}

// === impl Bound ===

#[async_trait]
impl Listening for Bound {
    fn address(&self) -> SocketAddr {
        self.address
    }

    async fn serve(self: Box<Self>, routes: Routes, shutdown: Shutdown) {
        accept::serve(*self, routes, shutdown).await;
    }
}

//! The `[server]` section.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Period, Size};
use crate::access::Compat;

/// Where evows listens, who may talk to it, and where it keeps what must survive a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address and port to listen on. `SERVER_PORT` overrides the port.
    pub listen: SocketAddr,
    /// The global API key. `AUTHENTICATION_API_KEY` overrides it; without either, a random key is
    /// made once, kept in `data_dir` and printed at start.
    #[serde(skip_serializing)]
    pub api_key: Option<String>,
    /// Folder for the instance registry and the generated key. Created when missing.
    pub data_dir: PathBuf,
    /// `"strict"`: a token sees only its own instance. `"evolution"`: the original's permissive rules,
    /// `WEBSOCKET_ALLOWED_HOSTS` included.
    pub compat: Compat,
    /// Origins that browsers may come from; `"*"` means all. `CORS_ORIGIN` overrides it.
    pub cors_origins: Vec<String>,
    /// Networks of reverse proxies whose `X-Forwarded-For` is believed.
    #[schemars(with = "Vec<String>")]
    pub trusted_proxies: Vec<IpNet>,
    /// Open connections in all; more are closed at once.
    pub max_connections: usize,
    /// Open connections per client address, trusted proxies not counted.
    pub max_connections_per_address: usize,
    /// Time for a request's headers to arrive.
    pub header_timeout: Period,
    /// Time that sent bytes may stay unacknowledged before the connection is dropped.
    pub tcp_user_timeout: Period,
    /// Size of a request's headers.
    pub max_header_size: Size,
    /// Time that stopping may take in all: draining sinks, closing clients.
    pub shutdown_timeout: Period,
    /// Time over which clients are closed when stopping, so that they do not all come back at once.
    pub drain_timeout: Period,
    /// Serve TLS instead of plain HTTP.
    pub tls: Option<TlsConfig>,
}

/// PEM files for TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

// === impl ServerConfig ===

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            api_key: None,
            data_dir: PathBuf::from("data"),
            compat: Compat::Strict,
            cors_origins: vec!["*".to_owned()],
            trusted_proxies: Vec::new(),
            max_connections: 16_000,
            max_connections_per_address: 16_000,
            header_timeout: Period::seconds(5),
            tcp_user_timeout: Period::seconds(20),
            max_header_size: Size::kib(16),
            shutdown_timeout: Period::seconds(20),
            drain_timeout: Period::seconds(3),
            tls: None,
        }
    }
}

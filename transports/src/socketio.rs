//! Socket.IO: serves each channel of the hub as a namespace, the way Evolution API does (contract section 2).
//!
//! `/` is global mode, `/<instance>` is traditional mode. What is common to every engine stands here: the options, the door
//! (who may shake hands), the clients, and the binary dialects. An engine speaks the protocol and moves cursors.

mod binary;
mod oxide;
pub mod packet;
mod reserved;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use evows_core::access::Compat;
use evows_core::config::{Period, Problem, Size};
use evows_core::plugin::{BuildContext, BuildError, Transport, TransportError, TransportPlugin};
use evows_core::register_transport;
use schemars::JsonSchema;
use serde::Deserialize;

use self::oxide::Oxide;
use crate::keys::Keys;

pub use crate::keys::HandshakeKey;

/// How Socket.IO clients are served.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What speaks the protocol.
    pub engine: Engine,
    /// The path of the handshake, with its trailing slash.
    pub path: String,
    /// What clients may connect with.
    pub transports: Vec<Carrier>,
    /// Time between pings.
    pub ping_interval: Period,
    /// Time for the answer to a ping, after which the client is gone.
    pub ping_timeout: Period,
    /// Time for a connected client to join its first namespace.
    pub connect_timeout: Period,
    /// Size of one inbound message; told to clients as `maxPayload`.
    pub max_payload: Size,
    /// How byte fields of the envelope travel.
    pub binary: Dialect,
    /// Attachments of one event. One with more is sent with its byte fields as they were posted: stock clients refuse more than
    /// ten, and drop the connection.
    pub max_attachments: usize,
    /// Time that a client may take nothing while events wait for it. Then its transport is closed, and it comes back.
    pub max_lag: Period,
    /// Namespaces that one client may join.
    pub max_namespaces_per_client: u32,
    /// Clients on long-polling at once; more are answered 503.
    pub max_polling_sessions: usize,
    /// Clients on long-polling at once from one address; more are answered 503.
    pub max_polling_sessions_per_address: usize,
    /// Whether the handshake needs a key. By default it does not under `compat = "strict"`, where the key may come in Socket.IO's
    /// `auth` when a namespace is joined, and it does under `compat = "evolution"`, which ignores `auth`.
    pub handshake_key: Option<HandshakeKey>,
}

/// What speaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The crate of that name.
    #[default]
    Socketioxide,
}

/// What an Engine.IO session runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// HTTP long-polling.
    Polling,
    /// WebSocket.
    Websocket,
}

/// How byte fields of the envelope travel (contract 1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// As binary attachments, which clients get as `Buffer` or `ArrayBuffer`: Evolution 2.3.6 and later.
    #[default]
    Attachments,
    /// As objects with the keys `"0"`, `"1"`, ...: the envelope as it was posted. Evolution 2.3.3 to 2.3.5.
    Indexed,
    /// As base64 strings: Evolution up to 2.3.2.
    Base64,
}

/// The Socket.IO transport.
pub struct SocketIo {
    engine: Arc<dyn Transport>,
}

register_transport!(
    SocketIo,
    summary = "Serves channels as Socket.IO namespaces: `/` and `/<instance>`.",
    example = "transports = [\"polling\", \"websocket\"]\n",
);

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            engine: Engine::default(),
            path: "/socket.io/".to_owned(),
            transports: vec![Carrier::Polling, Carrier::Websocket],
            ping_interval: Period::seconds(25),
            ping_timeout: Period::seconds(20),
            connect_timeout: Period::seconds(45),
            max_payload: Size(1_000_000),
            binary: Dialect::default(),
            max_attachments: 10,
            max_lag: Period::seconds(10),
            max_namespaces_per_client: 64,
            max_polling_sessions: 4_000,
            max_polling_sessions_per_address: 1_000,
            handshake_key: None,
        }
    }
}

// === impl Carrier ===

impl Carrier {
    fn parse(name: &str) -> Option<Self> {
        match name {
            "polling" => Some(Self::Polling),
            "websocket" => Some(Self::Websocket),
            _ => None,
        }
    }
}

// === impl SocketIo ===

impl TransportPlugin for SocketIo {
    const NAME: &'static str = "socketio";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, message: &str, help: &str| {
            problems.push(
                Problem::new("invalid-value", message)
                    .at_key(key)
                    .help(help),
            );
        };
        if !config.path.starts_with('/') || !config.path.ends_with('/') || config.path.len() < 3 {
            problem(
                "path",
                "the path needs a slash at both ends",
                "such as \"/socket.io/\"",
            );
        }
        if config.transports.is_empty() {
            problem(
                "transports",
                "nobody could connect",
                "name \"polling\", \"websocket\", or both",
            );
        }
        for (key, period) in [
            ("ping_interval", config.ping_interval),
            ("ping_timeout", config.ping_timeout),
            ("connect_timeout", config.connect_timeout),
            ("max_lag", config.max_lag),
        ] {
            if period.0.is_zero() {
                problem(
                    key,
                    "a time of nothing would close every client",
                    "such as \"10s\"",
                );
            }
        }
        if config.max_payload.0 == 0 || config.max_namespaces_per_client == 0 {
            problem(
                "max_payload",
                "a limit of 0 refuses everything",
                "leave it out for the default",
            );
        }
        problems
    }

    fn build(config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let access = Arc::clone(cx.access());
        if access.compat() == Compat::Evolution
            && config.handshake_key == Some(HandshakeKey::Deferred)
        {
            let problem = Problem::new(
                "invalid-value",
                "under `compat = \"evolution\"` a key in `auth` is ignored, so nobody could send a deferred one",
            );
            let help = "leave `handshake_key` out, or set `server.compat = \"strict\"`";
            return Err(BuildError::Config(vec![
                problem.at_key("handshake_key").help(help),
            ]));
        }
        let keys = Keys::new(config.handshake_key, access, cx.environment());
        let engine = match config.engine {
            Engine::Socketioxide => Arc::new(Oxide::new(&config, cx, keys)),
        };
        Ok(Self { engine })
    }
}

#[async_trait]
impl Transport for SocketIo {
    async fn start(self: Arc<Self>) -> Result<(), TransportError> {
        Arc::clone(&self.engine).start().await
    }

    fn clients(&self) -> usize {
        self.engine.clients()
    }

    async fn drain(&self, over: Duration) {
        self.engine.drain(over).await;
    }
}

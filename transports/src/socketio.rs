//! Socket.IO: serves each channel of the hub as a namespace, the way Evolution API does (contract section 2).
//!
//! `/` is global mode, `/<instance>` is traditional mode. What is common to every engine stands here: the options, the door
//! (who may shake hands), the clients, and the binary dialects. An engine speaks the protocol and moves cursors.

mod binary;
mod files;
mod forward;
mod inbound;
pub mod native;
mod oxide;
pub mod packet;
mod reserved;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use evows_core::access::Compat;
use evows_core::config::{Period, Problem, Size};
use evows_core::plugin::{BuildContext, BuildError, Transport, TransportError, TransportPlugin};
use evows_core::register_transport;
use schemars::JsonSchema;
use serde::Deserialize;

use self::files::Files;
use self::forward::Forward;
use self::native::Native;
use self::oxide::Oxide;
use crate::check;
use crate::engineio;
use crate::keys::Keys;

pub use self::binary::convert;
pub use self::inbound::{Answer, Ignored, Inbound, InboundEvent};
pub use self::native::Gate;
pub use crate::keys::HandshakeKey;

/// Frames of one inbound message. Clients send theirs in one.
const MOST_FRAGMENTS: u32 = 128;
/// How long a client that has shown no key may take to join: it costs as much as one that has.
const WITHOUT_KEY: Duration = Duration::from_secs(10);

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
    /// Time that a client may take nothing while events wait for it. Then `slow_client` says what happens.
    pub max_lag: Period,
    /// Bytes that may wait for a client, envelopes and what the log keeps beside them. Native engine.
    pub max_lag_bytes: Size,
    /// What happens to a client that lags, or that the log has left behind. Native engine; the other one disconnects.
    pub slow_client: SlowClient,
    /// Whom events carry their position to, so that it can come back for what it missed. Native engine.
    pub recovery: Recovery,
    /// Namespaces that one client may join.
    pub max_namespaces_per_client: u32,
    /// Handshakes in a second; more are answered 503 with `Retry-After`. 0 for any number. Native engine.
    pub max_handshakes_per_second: u32,
    /// Frames and messages that one client may send in a second. Native engine.
    pub max_inbound_rate: u32,
    /// Time for a client on long-polling to move to a WebSocket that it has opened. Native engine.
    pub upgrade_timeout: Period,
    /// Clients on long-polling at once; more are answered 503.
    pub max_polling_sessions: usize,
    /// Clients on long-polling at once from one address; more are answered 503.
    pub max_polling_sessions_per_address: usize,
    /// The `dist` folder of an installed npm package `socket.io-client`, whose files browser pages then find at
    /// `/socket.io/socket.io.js` and so on.
    pub serve_client: Option<PathBuf>,
    /// Where the event `sendNode`, the only one that Evolution takes from clients, is posted to: an `http://` URL. It is taken on
    /// `/` alone, its argument is the body. Without it, what clients send is ignored and counted. Native engine.
    pub forward_send_node: Option<String>,
    /// Whether the handshake needs a key. By default it does not under `compat = "strict"`, where the key may come in Socket.IO's
    /// `auth` when a namespace is joined, and it does under `compat = "evolution"`, which ignores `auth`.
    pub handshake_key: Option<HandshakeKey>,
}

/// What speaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// evows' own: shared frames, one task and a few KiB for each client, recovery.
    #[default]
    Native,
    /// The crate of that name.
    Socketioxide,
}

/// What happens to a client that does not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SlowClient {
    /// Its transport is closed. Stock clients come back by themselves, and may ask for what they missed.
    #[default]
    Disconnect,
    /// It stays, is told with an event `evows:gap` what it misses, and goes on behind that.
    Skip,
}

/// Whom events carry their position to, as a last argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// Whom asks, with `recover=1` in the query or `auth: { recover: true }`.
    #[default]
    OnRequest,
    /// Everybody. Clients whose handlers refuse a further argument, such as python-socketio's, break.
    Always,
    /// Nobody.
    Never,
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
    files: Files,
    forward: Option<Arc<Forward>>,
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
            max_lag_bytes: Size(64 * 1024 * 1024),
            slow_client: SlowClient::default(),
            recovery: Recovery::default(),
            max_namespaces_per_client: 64,
            max_handshakes_per_second: 20_000,
            max_inbound_rate: 1_000,
            upgrade_timeout: Period::seconds(10),
            max_polling_sessions: 4_000,
            max_polling_sessions_per_address: 1_000,
            serve_client: None,
            forward_send_node: None,
            handshake_key: None,
        }
    }
}

impl Config {
    /// The same for the native engine.
    pub fn native(&self) -> native::Options {
        let serves = |carrier| self.transports.contains(&carrier);
        native::Options {
            engineio: engineio::Options {
                path: self.path.clone(),
                polling: serves(Carrier::Polling),
                websocket: serves(Carrier::Websocket),
                ping_interval: self.ping_interval.0,
                ping_timeout: self.ping_timeout.0,
                upgrade_timeout: self.upgrade_timeout.0,
                max_payload: self.max_payload.bytes(),
                max_fragments: MOST_FRAGMENTS,
                max_inbound_rate: self.max_inbound_rate,
                max_polling_sessions: self.max_polling_sessions,
                max_polling_sessions_per_address: self.max_polling_sessions_per_address,
                max_lag: self.max_lag.0,
                max_lag_bytes: self.max_lag_bytes.0,
                max_handshakes_per_second: self.max_handshakes_per_second,
            },
            connect_timeout: self.connect_timeout.0,
            connect_timeout_without_key: WITHOUT_KEY,
            dialect: self.binary,
            max_attachments: self.max_attachments,
            max_namespaces: usize::try_from(self.max_namespaces_per_client).unwrap_or(usize::MAX),
            recovery: self.recovery,
            slow_client: self.slow_client,
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
        problems.extend(check::times([
            ("ping_interval", config.ping_interval),
            ("ping_timeout", config.ping_timeout),
            ("connect_timeout", config.connect_timeout),
            ("max_lag", config.max_lag),
            ("upgrade_timeout", config.upgrade_timeout),
        ]));
        if let Some(url) = &config.forward_send_node {
            problems.extend(Forward::check(url).err().map(forward_problem));
            if config.engine == Engine::Socketioxide {
                let message = "the engine socketioxide takes nothing from clients";
                let help = "leave `forward_send_node` out, or set `engine = \"native\"`";
                problems.push(
                    Problem::new("invalid-value", message)
                        .at_key("forward_send_node")
                        .help(help),
                );
            }
        }
        problems.extend(check::limits([
            ("max_payload", config.max_payload.0),
            ("max_lag_bytes", config.max_lag_bytes.0),
            ("max_inbound_rate", config.max_inbound_rate.into()),
            (
                "max_namespaces_per_client",
                config.max_namespaces_per_client.into(),
            ),
        ]));
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
        let keys = Keys::new(config.handshake_key, Arc::clone(&access), cx.environment());
        let files = Files::new(&config.path, config.serve_client.as_ref());
        let forward = match &config.forward_send_node {
            Some(url) => {
                let url = Forward::check(url)
                    .map_err(|message| BuildError::Config(vec![forward_problem(message)]))?;
                Some(Arc::new(Forward::new(cx.id(), cx.metrics(), url)))
            }
            None => None,
        };
        let (engine, router): (Arc<dyn Transport>, Router) = match config.engine {
            Engine::Native => {
                let inbound: Arc<dyn Inbound> = match &forward {
                    Some(forward) => Arc::<Forward>::clone(forward),
                    None => Arc::new(Ignored),
                };
                let parts = native::Parts {
                    hub: Arc::clone(cx.hub()),
                    access,
                    metrics: cx.metrics().clone(),
                    gate: Arc::new(keys),
                    inbound,
                };
                let native = Native::new(cx.id(), config.native(), parts);
                let router = native.router();
                (Arc::new(native), router)
            }
            Engine::Socketioxide => {
                let (oxide, router) = Oxide::new(&config, cx, keys);
                (Arc::new(oxide), router)
            }
        };
        let path = config.path.trim_end_matches('/');
        cx.mount(path, files.clone().in_front_of(router));
        Ok(Self {
            engine,
            files,
            forward,
        })
    }
}

fn forward_problem(message: &str) -> Problem {
    Problem::new("invalid-value", message)
        .at_key("forward_send_node")
        .help("such as \"http://127.0.0.1:9000/send-node\"")
}

#[async_trait]
impl Transport for SocketIo {
    async fn start(self: Arc<Self>) -> Result<(), TransportError> {
        self.files.check().await.map_err(|error| {
            TransportError::new(
                "`serve_client` is not the `dist` folder of the npm package socket.io-client",
                error,
            )
        })?;
        if let Some(forward) = &self.forward {
            forward.start();
        }
        Arc::clone(&self.engine).start().await
    }

    fn clients(&self) -> usize {
        self.engine.clients()
    }

    async fn drain(&self, over: Duration) {
        self.engine.drain(over).await;
    }
}

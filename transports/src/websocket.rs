//! Plain WebSocket: each event is a text message, its envelope as JSON.
//!
//! `GET /ws` follows every instance, `GET /ws/<instance>` one. The key comes as `?apikey=`, in the header `apikey`, or as
//! `Authorization: Bearer`. `?since=` asks for what was missed; the first message is then
//! `{"_evows":{"ready":{"from":…,"head":…,"recovered":…,"gap":…}}}`. With `?positions=envelope` each envelope
//! ends with the member `"_evows":{"position":"<epoch>:<offset>"}`, so that a client knows what to ask for. What clients send is
//! ignored, and counted.
//!
//! ```toml
//! [transports.plain]
//! type = "websocket"
//! path = "/ws"
//! ```

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, SEC_WEBSOCKET_VERSION, UPGRADE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use evows_core::config::{Period, Problem, Size};
use evows_core::http::parameter;
use evows_core::hub::{Entry, Frame, Variant};
use evows_core::plugin::{BuildContext, BuildError, Transport, TransportPlugin};
use evows_core::register_transport;
use hyper::upgrade::OnUpgrade;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::check;
use crate::engineio::{self, Close, Driver, Message, Outbox, Session, Websocket, taken};
use crate::feed::Batch;
use crate::stream::{self, Door, Entrance, Follower, Limits, tell, with_position};
use crate::ws::frame::{Header, Opcode};
use crate::ws::handshake::{self, HandshakeError};

/// How plain WebSocket clients are served.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where `/` is followed; an instance's channel is followed below it.
    pub path: String,
    /// Time between pings.
    pub ping_interval: Period,
    /// Time for the answer to a ping, after which the client is gone.
    pub ping_timeout: Period,
    /// Size of one inbound message, which is ignored.
    pub max_payload: Size,
    /// Frames and messages that one client may send in a second.
    pub max_inbound_rate: u32,
    /// What slow clients and storms are held to.
    pub limits: Limits,
}

/// The transport.
pub struct PlainWebSocket(Arc<Shared>);

struct Shared {
    door: Door,
    options: Arc<engineio::Options>,
    bare: Variant,
    positioned: Variant,
}

/// One client.
struct Plain {
    follower: Follower,
    shared: Arc<Shared>,
    positions: bool,
}

register_transport!(
    PlainWebSocket,
    summary = "Serves a channel to each plain WebSocket: one envelope per message.",
    example = "path = \"/ws\"\n",
);

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            path: "/ws".to_owned(),
            ping_interval: Period::seconds(25),
            ping_timeout: Period::seconds(20),
            max_payload: Size(64 * 1024),
            max_inbound_rate: 100,
            limits: Limits::default(),
        }
    }
}

// === impl PlainWebSocket ===

impl TransportPlugin for PlainWebSocket {
    const NAME: &'static str = "websocket";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = stream::check(&config.path, &config.limits);
        problems.extend(check::times([
            ("ping_interval", config.ping_interval),
            ("ping_timeout", config.ping_timeout),
        ]));
        problems.extend(check::limits([
            ("max_payload", config.max_payload.0),
            ("max_inbound_rate", config.max_inbound_rate.into()),
        ]));
        problems
    }

    fn build(config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let options = engineio::Options {
            ping_interval: config.ping_interval.0,
            ping_timeout: config.ping_timeout.0,
            max_payload: config.max_payload.bytes(),
            max_inbound_rate: config.max_inbound_rate,
            max_lag: config.limits.max_lag.0,
            max_lag_bytes: config.limits.max_lag_bytes.0,
            ..engineio::Options::default()
        };
        let shared = Arc::new(Shared {
            door: Door::new(&config.path, &config.limits, cx),
            options: Arc::new(options),
            bare: Variant::unique(),
            positioned: Variant::unique(),
        });
        let router = Router::new().fallback(enter);
        cx.mount(&config.path, router.with_state(Arc::clone(&shared)));
        Ok(Self(shared))
    }
}

#[async_trait]
impl Transport for PlainWebSocket {
    fn clients(&self) -> usize {
        self.0.door.clients.live()
    }

    async fn drain(&self, over: Duration) {
        self.0.door.clients.drain(over).await;
    }
}

async fn enter(State(shared): State<Arc<Shared>>, mut request: Request) -> Response {
    let positions = parameter(request.uri().query().unwrap_or_default(), "positions");
    let positions = match positions.as_deref() {
        None | Some("") => false,
        Some("envelope") => true,
        Some(_) => {
            let message = "`positions` may be `envelope`, or be left out";
            return shared
                .door
                .refuse(StatusCode::BAD_REQUEST, "bad_request", message);
        }
    };
    let response = match handshake::accept(request.method(), request.headers()) {
        Ok(response) => response,
        Err(error) => return not_a_websocket(&shared.door, error),
    };
    // Before the door: what cannot be switched, as with HTTP/1.0, is no client.
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return not_a_websocket(&shared.door, HandshakeError::NoUpgrade);
    };
    let variant = if positions {
        shared.positioned
    } else {
        shared.bare
    };
    let Entrance {
        mut follower,
        client,
    } = match shared.door.enter(&request, None, variant) {
        Ok(entrance) => entrance,
        Err(refused) => return refused,
    };
    let mut out = Outbox::default();
    if let Some(data) = follower.ready.take() {
        tell(&mut out, "ready", &data);
    }
    // It ends with its connection, which the server and `Clients` can close.
    tokio::spawn(async move {
        let options = Arc::clone(&shared.options);
        if let Some(socket) = taken(upgrade, &options, &client).await {
            let session = Plain {
                follower,
                shared,
                positions,
            };
            tokio::spawn(Websocket::new(socket, session, out, client, options).run());
        }
    });
    response
}

/// The answer to a request that is no opening handshake (RFC 9110, 15.5.22; RFC 6455, 4.4).
fn not_a_websocket(door: &Door, error: HandshakeError) -> Response {
    let (status, message) = match error {
        HandshakeError::NoUpgrade => (
            StatusCode::UPGRADE_REQUIRED,
            "this path is for WebSockets: connect with ws://, not http://".to_owned(),
        ),
        HandshakeError::Version => (StatusCode::UPGRADE_REQUIRED, error.to_string()),
        HandshakeError::Key => (StatusCode::BAD_REQUEST, error.to_string()),
    };
    let mut response = door.refuse(status, "not_a_websocket", &message);
    if status == StatusCode::UPGRADE_REQUIRED {
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    response
}

// === impl Plain ===

impl Session for Plain {
    const PLAIN: bool = true;

    fn message(&mut self, _: Message<'_>, _: &mut Outbox) -> Result<(), Close> {
        self.shared.door.clients.refuse("inbound_ignored");
        Ok(())
    }

    fn seat(&mut self, driver: &Driver) {
        self.follower.seat(driver);
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        out: &mut Outbox,
    ) -> Poll<Result<(), Close>> {
        let positions = self.positions;
        let frame = |entry: &Entry| frame(entry, positions);
        self.follower
            .poll_fill(cx, batch, frame, |gap| tell(out, "gap", &gap))
    }

    fn passed(&mut self, batch: &Batch, count: usize) {
        self.follower.passed(batch, count);
    }

    fn is_owed(&self) -> bool {
        self.follower.is_owed()
    }

    fn is_behind(&self) -> bool {
        self.follower.is_behind()
    }

    fn is_overrun(&self) -> bool {
        self.follower.is_overrun()
    }

    fn bytes_behind(&self) -> u64 {
        self.follower.bytes_behind()
    }

    fn lags(&mut self, out: &mut Outbox) -> Result<(), Close> {
        self.follower.lags(|gap| tell(out, "gap", &gap))
    }
}

fn frame(entry: &Entry, positions: bool) -> Frame {
    let envelope = entry.event.envelope().clone();
    let (body, tail) = if positions {
        with_position(envelope, entry)
    } else {
        (envelope, String::new())
    };
    let header = Header::new(Opcode::Text, body.len() + tail.len());
    let mut head = BytesMut::new();
    head.put_slice(header.as_ref());
    Frame::new([head.freeze(), body, Bytes::from(tail)])
}

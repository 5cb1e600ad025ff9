//! Server-sent events: each event with its position as `id`, its name as `event`, its envelope as `data`.
//!
//! `GET /sse` follows every instance, `GET /sse/<instance>` one. The key comes as `?apikey=`, in the header `apikey`, or as
//! `Authorization: Bearer`. Browsers come back by themselves with `Last-Event-ID`, and get what they missed; `?since=` asks for the same.
//! The first event is then `evows:ready`.
//!
//! ```toml
//! [transports.events]
//! type = "sse"
//! path = "/sse"
//! ```

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use evows_core::config::{Period, Problem};
use evows_core::hub::{Entry, Frame};
use evows_core::plugin::{BuildContext, BuildError, Transport, TransportPlugin};
use evows_core::register_transport;
use futures_util::Stream;
use memchr::memchr2;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Interval, MissedTickBehavior};

use crate::clients::{Client, Told};
use crate::engineio::Close;
use crate::feed::{Batch, Item};
use crate::stream::{Door, Entrance, Follower, Limits, check_path};

/// What a browser repeats when it comes back.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx to pass on what comes at once.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Bytes from which on a piece is not copied.
const LARGE: usize = 4096;

/// How clients are served.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where `/` is followed; an instance's channel is followed below it.
    pub path: String,
    /// Time between comments, which keep proxies from closing a quiet connection.
    pub keep_alive: Period,
    /// What slow clients and storms are held to.
    pub limits: Limits,
}

/// The transport.
pub struct Sse(Arc<Shared>);

struct Shared {
    door: Door,
    keep_alive: Duration,
}

/// One client's answer, which does not end.
struct Events {
    follower: Follower,
    client: Arc<Client>,
    pieces: VecDeque<Bytes>,
    quiet: Interval,
}

register_transport!(
    Sse,
    summary = "Serves a channel to each client as server-sent events.",
    example = "path = \"/sse\"\n",
);

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            path: "/sse".to_owned(),
            keep_alive: Period::seconds(15),
            limits: Limits::default(),
        }
    }
}

// === impl Sse ===

impl TransportPlugin for Sse {
    const NAME: &'static str = "sse";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let keep_alive = config.keep_alive.0.is_zero().then(|| {
            Problem::new("invalid-value", "a comment all the time is too often")
                .at_key("keep_alive")
                .help("such as \"15s\"")
        });
        check_path(&config.path)
            .into_iter()
            .chain(keep_alive)
            .collect()
    }

    fn build(config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let shared = Arc::new(Shared {
            door: Door::new(&config.path, &config.limits, cx),
            keep_alive: config.keep_alive.0,
        });
        let router = Router::new().fallback(enter);
        cx.mount(&config.path, router.with_state(Arc::clone(&shared)));
        Ok(Self(shared))
    }
}

#[async_trait]
impl Transport for Sse {
    fn clients(&self) -> usize {
        self.0.door.clients.live()
    }

    async fn drain(&self, over: Duration) {
        self.0.door.clients.drain(over).await;
    }
}

async fn enter(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if *request.method() != Method::GET {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let last = request.headers().get(LAST_EVENT_ID);
    let last = last
        .and_then(|it| it.to_str().ok())
        .filter(|it| !it.is_empty());
    let Entrance {
        mut follower,
        client,
    } = match shared.door.enter(&request, last) {
        Ok(entrance) => entrance,
        Err(refused) => return refused,
    };
    let mut quiet = tokio::time::interval(shared.keep_alive);
    quiet.set_missed_tick_behavior(MissedTickBehavior::Delay);
    quiet.reset();
    let mut pieces = VecDeque::new();
    if let Some(data) = follower.ready.take() {
        pieces.push_back(own("ready", &data));
    }
    let events = Events {
        follower,
        client,
        pieces,
        quiet,
    };
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        (ACCEL_BUFFERING, "no"),
    ];
    (headers, Body::from_stream(events)).into_response()
}

// === impl Events ===

impl Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(piece) = this.pieces.pop_front() {
                return Poll::Ready(Some(Ok(piece)));
            }
            let told = this.client.told(cx);
            if let Some(Told::Close(reason)) = told {
                return this.end(reason);
            }
            let (mut batch, pieces) = (Batch::default(), &mut this.pieces);
            let filled = this.follower.poll_fill(cx, &mut batch, frame, |gap| {
                pieces.push_back(own("gap", &gap));
            });
            match filled {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(Close(reason))) => return this.end(reason),
                Poll::Pending if told == Some(Told::Finish) => return this.end("shutdown"),
                Poll::Pending => {
                    if this.quiet.poll_tick(cx).is_pending() {
                        return Poll::Pending;
                    }
                    this.pieces.push_back(Bytes::from_static(b":\n\n"));
                }
            }
            this.pieces.extend(joined(&batch));
            this.follower.passed(&batch, batch.len());
            let clients = this.client.clients();
            clients.deliveries.inc_by(batch.deliveries(batch.len()));
        }
    }
}

impl Events {
    fn end(&self, reason: &'static str) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.client.ended(reason);
        Poll::Ready(None)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.client.ended("transport_close");
    }
}

/// The bytes of a batch. Small pieces are joined, because each is a chunk of HTTP of its own; large ones stay shared.
fn joined(batch: &Batch) -> Vec<Bytes> {
    let (mut pieces, mut small) = (Vec::new(), BytesMut::new());
    for piece in batch
        .items()
        .iter()
        .filter_map(Item::frame)
        .flat_map(Frame::pieces)
    {
        if piece.len() < LARGE {
            small.extend_from_slice(piece);
            continue;
        }
        pieces.push(small.split().freeze());
        pieces.push(piece.clone());
    }
    pieces.push(small.freeze());
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

fn frame(entry: &Entry) -> Frame {
    // A line break would end the field. In JSON it can only stand between tokens.
    let name = entry.event.name().replace(['\r', '\n'], " ");
    let head = format!("id: {}\nevent: {name}\ndata: ", entry.position);
    let envelope = entry.event.envelope();
    let body = if memchr2(b'\r', b'\n', envelope).is_some() {
        let lines = envelope.split(|byte| matches!(byte, b'\r' | b'\n'));
        let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
        lines.join(&b"\ndata: "[..]).into()
    } else {
        envelope.clone()
    };
    Frame::new([head.into(), body, Bytes::from_static(b"\n\n")])
}

/// An event of evows itself.
fn own(name: &str, data: &Value) -> Bytes {
    format!("event: evows:{name}\ndata: {data}\n\n").into()
}

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
use std::future::poll_fn;
use std::pin::pin;
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
use evows_core::hub::{Entry, Frame, Variant};
use evows_core::plugin::{BuildContext, BuildError, Transport, TransportPlugin};
use evows_core::register_transport;
use futures_util::StreamExt;
use futures_util::stream::poll_fn as poll_stream;
use memchr::memchr2;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::check;
use crate::clients::{Client, Told};
use crate::engineio::Close;
use crate::feed::{Batch, Item};
use crate::http::Connection;
use crate::stream::{self, Door, Entrance, Follower, Limits};

/// What a browser repeats when it comes back.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx to pass on what comes at once.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Bytes from which on a piece is not copied.
const LARGE: usize = 4096;
/// Bytes that are handed out together, or one event.
const MOST_BYTES: usize = 16 * 1024;
/// Time for what was handed out last to be fetched by whoever writes it.
const GRACE: Duration = Duration::from_millis(250);
/// How often a client that takes nothing is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Gaps told to a client that takes nothing.
const MOST_TOLD: usize = 64;

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
    variant: Variant,
    keep_alive: Duration,
}

/// One client: a task beside the one that writes its answer, which sleeps for as long as the client takes nothing.
struct Events {
    follower: Follower,
    client: Arc<Client>,
    connection: Option<Connection>,
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
        let mut problems = stream::check(&config.path, &config.limits);
        problems.extend(check::times([("keep_alive", config.keep_alive)]));
        problems
    }

    fn build(config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let shared = Arc::new(Shared {
            door: Door::new(&config.path, &config.limits, cx),
            variant: Variant::unique(),
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
    } = match shared.door.enter(&request, last, shared.variant) {
        Ok(entrance) => entrance,
        Err(refused) => return refused,
    };
    let mut quiet = tokio::time::interval(shared.keep_alive);
    quiet.set_missed_tick_behavior(MissedTickBehavior::Delay);
    quiet.reset();
    // Browsers keep an id without an event, too: whoever is cut off before the first event gets it when it comes back.
    let from = follower.position().map(|from| format!("id: {from}\n"));
    let ready = follower.ready.take().map(|data| own("ready", &data));
    let first = from.unwrap_or_default() + ready.as_deref().unwrap_or("\n");
    // No more than one piece is on its way, so that what waits does so in the channel.
    let (body, mut taken) = mpsc::channel(1);
    let events = Events {
        follower,
        client,
        connection: request.extensions().get::<Connection>().cloned(),
        pieces: VecDeque::from([first.into()]),
        quiet,
    };
    // It ends with its connection, which the server and `Clients` can close.
    tokio::spawn(events.run(body));
    let pieces = poll_stream(move |cx| taken.poll_recv(cx));
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        (ACCEL_BUFFERING, "no"),
    ];
    (headers, Body::from_stream(pieces.map(Ok::<_, Infallible>))).into_response()
}

// === impl Events ===

impl Events {
    async fn run(mut self, body: mpsc::Sender<Bytes>) {
        let Close(reason) = self.serve(&body).await;
        let connection = self.connection.as_ref();
        // Its guard may have given up on the client before.
        let first = connection.and_then(Connection::closed_reason);
        self.client.ended(first.unwrap_or(reason));
        // What was handed out last may just not have been fetched yet.
        drop(tokio::time::timeout(GRACE, body.reserve()).await);
        // An answer ends in order only where its client takes it.
        if let Some(connection) = connection.filter(|_| self.is_held(&body)) {
            connection.close(reason);
        }
    }

    /// Serves the client until one side has had enough.
    async fn serve(&mut self, body: &mpsc::Sender<Bytes>) -> Close {
        loop {
            while let Some(piece) = self.pieces.pop_front() {
                tokio::select! {
                    biased;
                    place = body.reserve() => match place {
                        Ok(place) => place.send(piece),
                        Err(_) => return Close("transport_close"),
                    },
                    close = self.stalled() => return close,
                }
            }
            tokio::select! {
                biased;
                () = body.closed() => return Close("transport_close"),
                filled = poll_fn(|cx| self.poll_fill(cx, body)) => {
                    if let Err(close) = filled {
                        return close;
                    }
                }
            }
        }
    }

    /// Waits for something to hand out.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        body: &mpsc::Sender<Bytes>,
    ) -> Poll<Result<(), Close>> {
        let told = self.client.told(cx);
        if let Some(Told::Close(reason)) = told {
            return Poll::Ready(Err(Close(reason)));
        }
        // Who drains tells it again and again.
        let finishes = told == Some(Told::Finish) && !self.is_held(body);
        if finishes && !self.follower.is_owed() {
            return Poll::Ready(Err(Close("shutdown")));
        }
        let (mut batch, pieces) = (Batch::default(), &mut self.pieces);
        let filled = self.follower.poll_fill(cx, &mut batch, frame, |gap| {
            pieces.push_back(own("gap", &gap).into());
        });
        if filled.is_ready() {
            let count = some_of(&batch);
            self.pieces.extend(joined(&batch, count));
            self.follower.passed(&batch, count);
            let clients = self.client.clients();
            clients.deliveries.inc_by(batch.deliveries(count));
            return filled;
        }
        self.quiet.poll_tick(cx).map(|_| {
            self.pieces.push_back(Bytes::from_static(b":\n\n"));
            Ok(())
        })
    }

    /// The client takes nothing: until it has to go.
    async fn stalled(&mut self) -> Close {
        let max_lag = self.follower.max_lag();
        let mut late = pin!(tokio::time::sleep(max_lag));
        // Whether more waits by now is told to nobody while something waits.
        let mut look = tokio::time::interval(LOOK);
        poll_fn(|cx| {
            while look.poll_tick(cx).is_ready() {}
            if let Some(Told::Close(reason)) = self.client.told(cx) {
                return Poll::Ready(Close(reason));
            }
            while late.as_mut().poll(cx).is_ready() || self.follower.is_too_far_behind() {
                let pieces = &mut self.pieces;
                let lags = self.follower.lags(|gap| {
                    pieces.push_back(own("gap", &gap).into());
                });
                match lags {
                    // It does not even take what it is told of that.
                    Ok(()) if pieces.len() > MOST_TOLD => return Poll::Ready(Close("slow")),
                    Ok(()) => late.as_mut().reset(Instant::now() + max_lag),
                    Err(close) => return Poll::Ready(close),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Whether something was handed out that the client has not taken.
    fn is_held(&self, body: &mpsc::Sender<Bytes>) -> bool {
        body.capacity() == 0 || self.connection.as_ref().is_some_and(Connection::is_blocked)
    }
}

/// How many entries of a batch are handed out together: what is handed out waits in memory.
fn some_of(batch: &Batch) -> usize {
    let mut bytes = 0;
    let fits = batch.items().iter().take_while(|item| {
        let first = bytes == 0;
        bytes += item.len();
        first || bytes <= MOST_BYTES
    });
    fits.count()
}

/// The bytes of the first entries of a batch. Small pieces are joined, because each is a chunk of HTTP of its own; large ones stay
/// shared.
fn joined(batch: &Batch, count: usize) -> Vec<Bytes> {
    let (mut pieces, mut small) = (Vec::new(), BytesMut::new());
    let items = batch.items().iter().take(count);
    for piece in items.filter_map(Item::frame).flat_map(Frame::pieces) {
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
fn own(name: &str, data: &Value) -> String {
    format!("event: evows:{name}\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use evows_core::testing::{TransportHarness, event};
    use tokio::time::timeout;

    use super::*;

    fn request(key: &str) -> Request {
        let request = Request::get(format!("/sse?apikey={key}"));
        request.body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn a_client_gets_what_is_published_and_leaves_at_the_drain() {
        let harness = TransportHarness::from_toml::<Sse>("").await;
        let refused = harness.call(request("wrong")).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);

        let answer = harness.call(request(TransportHarness::KEY)).await;
        assert_eq!(answer.status(), StatusCode::OK);
        harness.clients_are(1).await;
        let position = harness.publish("/", &event(r#"{"event":"call","instance":"a"}"#));
        let mut pieces = answer.into_body().into_data_stream();
        let expected = format!(
            "id: {position}\nevent: call\ndata: {{\"event\":\"call\",\"instance\":\"a\"}}\n\n"
        );
        let mut seen = String::new();
        while !seen.ends_with(&expected) {
            let piece = timeout(Duration::from_secs(10), pieces.next()).await;
            let piece = piece.expect(&seen).expect(&seen).unwrap();
            seen.push_str(std::str::from_utf8(&piece).unwrap());
        }
        harness.drain(Duration::from_millis(10)).await;
        while let Some(piece) = pieces.next().await {
            piece.unwrap();
        }
    }
}

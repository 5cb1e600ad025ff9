//! Takes events that are posted to a path of evows' HTTP server.
//!
//! The source for an Evolution API without a broker: point its global webhook, or an instance's, at
//! `http://<evows>/webhook`. An answer of 2xx means that every required sink has the events.
//!
//! ```toml
//! [sources.evolution]
//! type = "webhook"
//! path = "/webhook"
//! secret = "${WEBHOOK_SECRET}"
//! ```
//!
//! # What to send
//!
//! `POST` one envelope (a JSON object with the strings `event` and `instance`), an array of envelopes, or one
//! envelope after another, such as one per line. The content type is not looked at. Everything below the path is
//! served too, with single or doubled slashes, so Evolution's "webhook by events" works as it is: the envelope names
//! the event, not the URL. A batch is taken as a whole or not at all.
//!
//! # The secret
//!
//! Evolution's global webhook cannot send headers, so the secret may be the first segment behind the path:
//! `http://<evows>/webhook/<secret>`. It is also taken from the header `secret_header` and from
//! `Authorization: Bearer`. In a path it must consist of letters, digits, `-`, `_`, `.` and `~`.
//!
//! # Answers
//!
//! Evolution gives an event up on 400, 401, 403, 404 and 422, and tries again on everything else. So:
//!
//! | status | when |
//! |---|---|
//! | 200 | `{"accepted":n}`: the events are where they belong, or safe in a buffer on disk, or a filter discarded them |
//! | 400 | the body is not an event, whatever its content type; the message says which line or element |
//! | 401 | the secret is missing or wrong |
//! | 405 | the method is not `POST` |
//! | 408 | the body did not arrive within `timeout` |
//! | 413 | the body is larger than `max_body`, or holds more than `max_events` events |
//! | 503 | with `Retry-After`: too much is in flight, a sink shed or failed the events, they were not delivered within `timeout`, or evows is stopping |
//!
//! With `?wait=delivered` the answer says of each event how it ended, and waits for deliveries that a buffer on disk would
//! otherwise take over: `{"accepted":n,"events":[{"id":"…","outcome":"delivered"}]}`, 200 when all were accepted, or else 503.
//!
//! After a 503 an event may still arrive once the pipeline moves again, and a second time when it is tried again.
//!
//! The path belongs to the source that was built with it: when core builds a failed source again, the new one mounts the
//! path anew, and requests in between are answered 503.

mod batch;
mod idempotency;
mod load;
mod refusal;

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, EXPECT, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use evows_core::access::Secret;
use evows_core::config::{Period, Problem, Size};
use evows_core::http::parameter;
use evows_core::metrics::{Counter, Metrics};
use evows_core::plugin::{BuildContext, BuildError, Source, SourceError, SourcePlugin};
use evows_core::topology::Outlet;
use evows_core::{Event, Outcome, Receipt, Shutdown, register_source};
use http_body_util::BodyExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, timeout, timeout_at};

use self::batch::{Bad, parse};
use self::idempotency::{Idempotency, Taken, with_keys};
use self::load::{Load, Slot};
use self::refusal::Refusal;

/// What of a refused body is read, so that the sender gets to the answer and can use the connection again.
const DRAIN: usize = 1024 * 1024;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// What is set aside for a body before any of it has arrived: its announced length is only a promise.
const FIRST: usize = 64 * 1024;
/// Bodies larger than this are parsed on a thread of their own.
const LARGE: usize = 256 * 1024;

/// Takes events that are posted to a path.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The path to post to; everything below it is served too.
    pub path: String,
    /// What senders must present; without it everybody may send.
    pub secret: Option<String>,
    /// The header that the secret may come in, beside `Authorization: Bearer` and the path.
    pub secret_header: String,
    /// Size of one body; larger ones are answered 413.
    pub max_body: Size,
    /// Events in one body; more are answered 413.
    pub max_events: usize,
    /// What may wait for delivery at once; beyond it, requests are answered 503 at once.
    pub max_in_flight: InFlight,
    /// Time from the request to its answer. Keep it below the sender's own timeout (Evolution: 30 s).
    pub timeout: Period,
    /// Whether what is sent twice is taken once: events of one name (the header `webhook-id` or `idempotency-key`), or else
    /// those of one instance with the same event, `date_time` and `data`. Left out, every event counts, as it must where
    /// senders do not try again.
    pub idempotency: Option<Idempotency>,
}

/// What may wait for delivery at once.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InFlight {
    /// Requests that wait for delivery.
    pub requests: usize,
    /// Bytes of their bodies, at least `max_body`.
    pub bytes: Size,
}

/// The running source: takes parsed batches from the route and sends them on, in order of arrival.
#[derive(Debug)]
pub struct Webhook {
    deliveries: mpsc::Receiver<Delivery>,
}

/// The route's side.
struct Door {
    id: Arc<str>,
    metrics: Metrics,
    prefix: String,
    secret: Option<Secret>,
    secret_header: HeaderName,
    max_body: Size,
    max_events: usize,
    timeout: Duration,
    /// What was taken in lately, where that matters.
    taken: Option<Taken>,
    duplicates: Counter,
    load: Arc<Load>,
    deliveries: mpsc::Sender<Delivery>,
}

/// One request's events on their way to the outlet.
#[derive(Debug)]
struct Delivery {
    batch: Vec<Event>,
    receipt: oneshot::Sender<Vec<Receipt>>,
    /// Whether there is a receipt for each event, which waits for its delivery; or one for all.
    each: bool,
    /// Keeps the batch counted while it waits, even if its sender has hung up.
    _slot: Arc<Slot>,
}

register_source!(
    Webhook,
    summary = "Takes events that are posted to a path, such as Evolution's webhooks.",
    example = "path = \"/webhook\"\nsecret = \"a-long-random-text\"\n",
);

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            path: "/webhook".to_owned(),
            secret: None,
            secret_header: "x-webhook-secret".to_owned(),
            max_body: Size::mib(64),
            max_events: 10_000,
            max_in_flight: InFlight::default(),
            timeout: Period::seconds(25),
            idempotency: None,
        }
    }
}

impl Default for InFlight {
    fn default() -> Self {
        Self {
            requests: 1024,
            bytes: Size::mib(256),
        }
    }
}

// === impl Webhook ===

impl SourcePlugin for Webhook {
    const NAME: &'static str = "webhook";
    type Config = Config;

    fn answers_within(config: &Config) -> Option<Duration> {
        Some(config.timeout.0)
    }

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, message: String, help: &str| {
            problems.push(Problem::new("invalid", message).at_key(key).help(help));
        };
        let path = &config.path;
        let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '{' | '}');
        if !path.starts_with('/')
            || path.trim_matches('/').is_empty()
            || !path.chars().all(is_plain)
        {
            let help = "write a path below the root, such as \"/webhook\"";
            problem("path", format!("`{path}` is not a path to post to"), help);
        }
        if config.secret.as_deref() == Some("") {
            let help = "set it, or leave the key out so that everybody may send";
            problem("secret", "the secret is empty".to_owned(), help);
        }
        if HeaderName::try_from(&*config.secret_header).is_err() {
            let message = format!("`{}` is not the name of a header", config.secret_header);
            problem("secret_header", message, "such as \"x-webhook-secret\"");
        }
        for (key, value) in [
            ("max_events", config.max_events),
            ("max_in_flight.requests", config.max_in_flight.requests),
        ] {
            if value == 0 {
                problem(
                    key,
                    format!("`{key}` is 0: nothing would pass"),
                    "at least 1",
                );
            }
        }
        if config.max_in_flight.bytes < config.max_body {
            let message = format!(
                "{} in flight is less than one body may have ({}): such a body would never be taken",
                config.max_in_flight.bytes, config.max_body
            );
            problem(
                "max_in_flight.bytes",
                message,
                "raise it to `max_body` or more",
            );
        }
        if config.timeout.0.is_zero() {
            let message = "a timeout of nothing refuses every event".to_owned();
            problem("timeout", message, "such as \"25s\"");
        }
        problems
    }

    fn build(config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let secret_header = HeaderName::try_from(config.secret_header)
            .map_err(|error| BuildError::new(format!("`secret_header`: {error}")))?;
        let prefix = config.path.trim_end_matches('/').to_owned();
        let requests = config.max_in_flight.requests.max(1);
        let (sender, deliveries) = mpsc::channel(requests);
        let door = Door {
            id: cx.id().into(),
            metrics: cx.metrics().clone(),
            prefix: prefix.clone(),
            secret: config.secret.map(Secret::new),
            secret_header,
            max_body: config.max_body,
            max_events: config.max_events,
            timeout: config.timeout.0,
            taken: config.idempotency.as_ref().map(Taken::new),
            duplicates: cx.metrics().duplicates(cx.id()),
            load: Arc::new(Load::new(requests, config.max_in_flight.bytes.bytes())),
            deliveries: sender,
        };
        // A fallback sees paths as they were sent, doubled slashes included.
        let router = Router::new().fallback(receive).with_state(Arc::new(door));
        cx.mount(prefix, router);
        Ok(Self { deliveries })
    }
}

#[async_trait]
impl Source for Webhook {
    async fn run(
        mut self: Box<Self>,
        mut outlet: Outlet,
        shutdown: Shutdown,
    ) -> Result<(), SourceError> {
        loop {
            let delivery = tokio::select! {
                biased;
                () = shutdown.started(), if !self.deliveries.is_closed() => {
                    // What is queued was taken in: it still goes out. New requests are refused.
                    self.deliveries.close();
                    continue;
                }
                delivery = self.deliveries.recv() => delivery,
            };
            let Some(delivery) = delivery else {
                return Ok(());
            };
            if delivery.receipt.is_closed() {
                // Its sender was told to try again, or hung up: it will come back.
                for event in delivery.batch {
                    event.settle(evows_core::Outcome::Shed);
                }
                continue;
            }
            let receipts = if delivery.each {
                outlet.send_until_delivered(delivery.batch).await
            } else {
                vec![outlet.send_tracked(delivery.batch).await]
            };
            // If nobody waits for the receipt any more, nobody is told: see above.
            drop(delivery.receipt.send(receipts));
        }
    }
}

// === impl Door ===

async fn receive(State(door): State<Arc<Door>>, request: Request) -> Response {
    let (head, mut body) = request.into_parts();
    let deadline = Instant::now() + door.timeout;
    let answer = if head.method == Method::POST {
        let query = head.uri.query().unwrap_or_default();
        match wants_delivery(query) {
            Some(each) => {
                door.take(head.uri.path(), &head.headers, &mut body, deadline, each)
                    .await
            }
            None => Err(Refusal::Wait),
        }
    } else {
        Err(Refusal::Method(head.method))
    };
    match answer {
        Ok(answer) => answer,
        Err(refusal) => {
            door.metrics.refuse(&door.id, refusal.reason());
            tracing::debug!(source = &*door.id, %refusal, "refused a request");
            // A sender that waits for `100 Continue` has not sent the body and need not.
            if !head.headers.contains_key(EXPECT) {
                drop(timeout(DRAIN_TIME, drain(&mut body)).await);
            }
            refusal.into_response()
        }
    }
}

/// Whether a request wants to know of each event that it is delivered; `None` when it asks for something else.
fn wants_delivery(query: &str) -> Option<bool> {
    match parameter(query, "wait").as_deref() {
        None | Some("" | "accepted") => Some(false),
        Some("delivered") => Some(true),
        Some(_) => None,
    }
}

/// How each event ended. 503 when one of them has to be sent again.
fn report(ids: &[String], outcomes: &[Outcome]) -> Response {
    let accepted = outcomes.iter().filter(|it| it.is_accepted()).count();
    let events: Vec<_> = ids
        .iter()
        .zip(outcomes)
        .map(|(id, outcome)| json!({ "id": id, "outcome": outcome.as_str() }))
        .collect();
    let body = axum::Json(json!({ "accepted": accepted, "events": events }));
    if accepted == outcomes.len() {
        return body.into_response();
    }
    let headers = [(RETRY_AFTER, "1")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, body).into_response()
}

/// Reads on, up to a limit, and forgets.
async fn drain(body: &mut Body) {
    let mut left = DRAIN;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

impl Door {
    async fn take(
        &self,
        path: &str,
        headers: &HeaderMap,
        body: &mut Body,
        deadline: Instant,
        each: bool,
    ) -> Result<Response, Refusal> {
        if !self.admits(path, headers) {
            return Err(Refusal::Unauthorized);
        }
        let announced = headers.get(CONTENT_LENGTH);
        let announced = announced
            .and_then(|value| value.to_str().ok()?.parse::<usize>().ok())
            .unwrap_or(0);
        if announced > self.max_body.bytes() {
            return Err(self.too_large());
        }
        let mut slot = Slot::take(&self.load)?;
        let read = timeout_at(deadline, self.read(body, announced, &mut slot));
        let body = read.await.map_err(|_| Refusal::Slow)??;
        let mut batch = self.parse(body).await?;
        let accepted = batch.len();
        let ids: Vec<String> = if each {
            batch.iter().map(|event| event.id().to_string()).collect()
        } else {
            Vec::new()
        };
        if let Some(taken) = &self.taken {
            batch = with_keys(batch, headers);
            if !each {
                batch.retain(|event| !taken.has(event));
                self.duplicates.inc_by((accepted - batch.len()) as u64);
            }
        }
        let keys: Vec<u128> = batch.iter().filter_map(Event::key).collect();
        let delivered = timeout_at(deadline, self.deliver(batch, slot, each));
        let outcomes = delivered.await.map_err(|_| Refusal::Timeout)??;
        let refused = outcomes.iter().find(|outcome| !outcome.is_accepted());
        if let (None, Some(taken)) = (refused, &self.taken) {
            taken.add(keys);
        }
        if each {
            return Ok(report(&ids, &outcomes));
        }
        match refused {
            Some(outcome) => Err(Refusal::Undelivered(outcome.as_str())),
            None => Ok(axum::Json(json!({ "accepted": accepted })).into_response()),
        }
    }

    /// Whether the request presents the secret, if there is one.
    fn admits(&self, path: &str, headers: &HeaderMap) -> bool {
        let Some(secret) = &self.secret else {
            return true;
        };
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let header = headers.get(&self.secret_header).and_then(text);
        let bearer = headers.get(AUTHORIZATION).and_then(text);
        let bearer = bearer.as_deref().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(token.trim())
        });
        let below = path.strip_prefix(&*self.prefix).unwrap_or_default();
        let segment = below.split('/').find(|segment| !segment.is_empty());
        [header.as_deref(), bearer, segment]
            .into_iter()
            .flatten()
            .any(|candidate| secret.matches(candidate))
    }

    /// Reads the body into a buffer of its own size: a slice of the connection's buffer would keep all of that
    /// alive for as long as the event is retained. Only what has arrived is counted and held, however much was
    /// announced.
    async fn read(
        &self,
        body: &mut Body,
        announced: usize,
        slot: &mut Slot,
    ) -> Result<Bytes, Refusal> {
        let mut bytes = Vec::with_capacity(announced.min(FIRST));
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(Refusal::Unreadable)?.into_data() else {
                continue;
            };
            let arrived = bytes.len() + data.len();
            if arrived > self.max_body.bytes() {
                return Err(self.too_large());
            }
            slot.grow_to(arrived)?;
            if arrived > bytes.capacity() && arrived <= announced {
                // Doubled, but never past the end: a buffer that ends up full is not copied to shrink it.
                bytes.reserve_exact((2 * arrived).min(announced) - bytes.len());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Bytes::from(bytes.into_boxed_slice()))
    }

    async fn parse(&self, body: Bytes) -> Result<Vec<Event>, Refusal> {
        let (now, most) = (SystemTime::now(), self.max_events);
        let parsed = if body.len() > LARGE {
            let parsing = tokio::task::spawn_blocking(move || parse(&body, most, now));
            // It ends without a result only when the process stops.
            parsing.await.map_err(|_| Refusal::Stopped)?
        } else {
            parse(&body, most, now)
        };
        match parsed {
            Ok(batch) => Ok(batch),
            Err(Bad::TooMany) => Err(Refusal::TooMany {
                limit: most,
                id: Arc::clone(&self.id),
            }),
            Err(Bad::At { place, reason }) => Err(Refusal::NotAnEvent { place, reason }),
        }
    }

    async fn deliver(
        &self,
        batch: Vec<Event>,
        slot: Slot,
        each: bool,
    ) -> Result<Vec<Outcome>, Refusal> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let (sender, receipt) = oneshot::channel();
        let slot = Arc::new(slot);
        let delivery = Delivery {
            batch,
            receipt: sender,
            each,
            _slot: Arc::clone(&slot),
        };
        self.deliveries
            .try_send(delivery)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Refusal::Overloaded,
                mpsc::error::TrySendError::Closed(_) => Refusal::Stopped,
            })?;
        let receipts = receipt.await.map_err(|_| Refusal::Stopped)?;
        let mut outcomes = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            outcomes.push(receipt.await);
        }
        // Until here the events count as in flight.
        drop(slot);
        Ok(outcomes)
    }

    fn too_large(&self) -> Refusal {
        Refusal::TooLarge {
            limit: self.max_body,
            id: Arc::clone(&self.id),
        }
    }
}

#[cfg(test)]
mod tests;

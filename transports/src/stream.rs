//! What plain transports have in common: one channel, named by the path, followed from where the client says.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::Request;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use evows_core::config::{Period, Problem, Size};
use evows_core::http::{error_response, key, parameter};
use evows_core::hub::{ChannelName, Entry, Frame, Hub, Position, Resume, Since, Start, Variant};
use evows_core::plugin::BuildContext;
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admission::Admission;
use crate::check;
use crate::clients::{Client, Clients, Shut};
use crate::engineio::{Close, Outbox, Refusal};
use crate::feed::{Batch, Feed, Slow};
use crate::http::peer;
use crate::keys::{Denial, HandshakeKey, Keys};
use crate::rounds::Driver;
use crate::socketio::SlowClient;

/// How clients of a plain transport are served.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Time that a client may take nothing while events wait for it. Then `slow_client` says what happens.
    pub max_lag: Period,
    /// Bytes that may wait for a client, envelopes and what the log keeps beside them.
    pub max_lag_bytes: Size,
    /// What happens to a client that lags, or that the log has left behind.
    pub slow_client: SlowClient,
    /// Handshakes in a second; more are answered 503 with `Retry-After`. 0 for any number.
    pub max_handshakes_per_second: u32,
}

/// Lets clients in, and knows what they may follow.
pub(crate) struct Door {
    path: String,
    hub: Arc<Hub>,
    keys: Keys,
    pub(crate) clients: Arc<Clients>,
    slow: Slow,
    max_lag: Duration,
    max_lag_bytes: u64,
}

/// A client that may come in, and where it starts.
pub(crate) struct Entrance {
    pub(crate) follower: Follower,
    pub(crate) client: Arc<Client>,
}

/// One client's place in its channel.
pub(crate) struct Follower {
    feed: Feed<()>,
    slow: Slow,
    max_lag: Duration,
    max_lag_bytes: u64,
    /// What the client is told first.
    pub(crate) ready: Option<Value>,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_lag: Period::seconds(10),
            max_lag_bytes: Size(64 * 1024 * 1024),
            slow_client: SlowClient::default(),
            max_handshakes_per_second: 20_000,
        }
    }
}

/// What is wrong with the options that plain transports have in common.
pub(crate) fn check(path: &str, limits: &Limits) -> Vec<Problem> {
    let wrong = !path.starts_with('/') || path.ends_with('/');
    let path = wrong.then(|| {
        Problem::new(
            "invalid-value",
            "the path needs a slash in front and none behind",
        )
        .at_key("path")
        .help("such as \"/events\"")
    });
    let times = check::times([("limits.max_lag", limits.max_lag)]);
    let limits = check::limits([("limits.max_lag_bytes", limits.max_lag_bytes.0)]);
    path.into_iter().chain(times).chain(limits).collect()
}

// === impl Door ===

#[expect(
    clippy::result_large_err,
    reason = "the error is the answer, made once for each request"
)]
impl Door {
    pub(crate) fn new(path: &str, limits: &Limits, cx: &BuildContext) -> Self {
        let admission = Admission::new(limits.max_handshakes_per_second);
        let access = Arc::clone(cx.access());
        let clients = Arc::new(Clients::new(&cx.id().into(), cx.metrics(), admission));
        Self {
            path: path.to_owned(),
            hub: Arc::clone(cx.hub()),
            keys: Keys::new(Some(HandshakeKey::Required), access, cx.environment()),
            slow: Slow {
                policy: limits.slow_client,
                clients: Arc::clone(&clients),
            },
            clients,
            max_lag: limits.max_lag.0,
            max_lag_bytes: limits.max_lag_bytes.0,
        }
    }

    /// Decides about a request, `last` being the position that its sender says it has beside the query; its events will be framed
    /// in `variant`. The error is the answer.
    pub(crate) fn enter(
        &self,
        request: &Request,
        last: Option<&str>,
        variant: Variant,
    ) -> Result<Entrance, Response> {
        let (uri, headers) = (request.uri(), request.headers());
        let parameter = |wanted| parameter(uri.query().unwrap_or_default(), wanted);
        let name = self.name(uri)?;
        let key = key(uri.query().unwrap_or_default(), headers);
        let peer = peer(request);
        let identity = self.keys.identify(true, key.as_deref(), headers, &peer);
        let identity = identity.map_err(|error| {
            let refusal = Refusal::from(error);
            self.refuse(
                StatusCode::UNAUTHORIZED,
                refusal.reason(),
                refusal.message(),
            )
        })?;
        let denied = |denial: Denial| {
            let status = match denial {
                Denial::Invalid => StatusCode::NOT_FOUND,
                _ => StatusCode::FORBIDDEN,
            };
            self.refuse(status, denial.reason(), denial.message())
        };
        self.keys
            .check(identity.as_ref(), None, &name)
            .map_err(denied)?;
        let channel = self
            .hub
            .channel(&name)
            .ok_or_else(|| denied(Denial::Invalid))?;
        let since = last.map(str::to_owned).or_else(|| parameter("since"));
        let since: Option<Since> = since.map(|it| it.parse()).transpose().map_err(
            |error: evows_core::hub::InvalidSince| {
                self.refuse(StatusCode::BAD_REQUEST, "invalid_since", &error.to_string())
            },
        )?;
        self.clients.may_enter().map_err(|shut| self.shut(shut))?;
        let resume = since.map(|since| channel.resume(&since));
        let start = resume.map_or(Start::Head, Start::Resume);
        let mut feed = Feed::new();
        feed.follow(channel.follow(start), variant, ());
        let follower = Follower {
            feed,
            slow: self.slow.clone(),
            max_lag: self.max_lag,
            max_lag_bytes: self.max_lag_bytes,
            ready: resume.map(|resume| ready(&resume)),
        };
        let client = self.clients.enter(peer);
        Ok(Entrance { follower, client })
    }

    /// The channel that a path names: the path alone is the root's.
    fn name(&self, uri: &Uri) -> Result<ChannelName, Response> {
        let rest = uri.path().strip_prefix(&self.path).unwrap_or_default();
        let instance = percent_decode_str(rest.trim_start_matches('/')).decode_utf8();
        match instance.as_deref() {
            Ok("") => Ok(ChannelName::root()),
            Ok(name) => ChannelName::of_instance(name).map_err(|error| {
                self.refuse(
                    StatusCode::NOT_FOUND,
                    "invalid_namespace",
                    &error.to_string(),
                )
            }),
            Err(_) => Err(self.refuse(StatusCode::NOT_FOUND, "invalid_namespace", "no text")),
        }
    }

    /// The answer to a request that does not come in, counted.
    pub(crate) fn refuse(
        &self,
        status: StatusCode,
        reason: &'static str,
        message: &str,
    ) -> Response {
        self.clients.refuse(reason);
        error_response(status, vec![message])
    }

    fn shut(&self, shut: Shut) -> Response {
        let (status, refusal) = (StatusCode::SERVICE_UNAVAILABLE, Refusal::from(shut));
        let mut response = self.refuse(status, refusal.reason(), refusal.message());
        let second = HeaderValue::from_static("1");
        response.headers_mut().insert(RETRY_AFTER, second);
        response
    }
}

// === impl Follower ===

impl Follower {
    /// Shows what waits, framed by `frame`; a gap is told with `tell`, or ends it.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        frame: impl Fn(&Entry) -> Frame,
        mut tell: impl FnMut(Value),
    ) -> Poll<Result<(), Close>> {
        let (frame, tell) = (
            |_: &_, entry: &_| frame(entry),
            |_: &_, gap| tell(json!(gap)),
        );
        self.feed.poll_fill(cx, batch, &self.slow, frame, tell)
    }

    pub(crate) fn seat(&mut self, driver: &Driver) {
        self.feed.seat(driver);
    }

    pub(crate) fn passed(&mut self, batch: &Batch, count: usize) {
        self.feed.passed(batch, count);
    }

    pub(crate) fn is_owed(&self) -> bool {
        self.feed.is_owed()
    }

    pub(crate) fn is_behind(&self) -> bool {
        self.feed.is_behind()
    }

    pub(crate) fn is_overrun(&self) -> bool {
        self.feed.is_overrun()
    }

    pub(crate) fn bytes_behind(&self) -> u64 {
        self.feed.bytes_behind()
    }

    /// How long the client may take nothing.
    pub(crate) fn max_lag(&self) -> Duration {
        self.max_lag
    }

    /// Whether more waits for a client that takes nothing than may.
    pub(crate) fn is_too_far_behind(&self) -> bool {
        self.is_overrun() || self.bytes_behind() > self.max_lag_bytes
    }

    /// The position behind which it reads on.
    pub(crate) fn position(&self) -> Option<Position> {
        self.feed.list().first().map(|it| it.cursor.position())
    }

    /// The client takes nothing: it goes, or what waits for it does.
    pub(crate) fn lags(&mut self, mut tell: impl FnMut(Value)) -> Result<(), Close> {
        self.feed.lags(&self.slow, |_, gap| tell(json!(gap)))
    }
}

/// What a client is told of where it starts.
pub(crate) fn ready(resume: &Resume) -> Value {
    json!({
        "from": resume.from,
        "head": resume.head,
        "recovered": resume.gap.is_none(),
        "gap": resume.gap,
    })
}

/// The envelope less its last brace, and a tail that closes it with its position as the last member, `_evows`.
pub(crate) fn with_position(envelope: Bytes, entry: &Entry) -> (Bytes, String) {
    let Some(end) = envelope.iter().rposition(|byte| *byte == b'}') else {
        return (envelope, String::new());
    };
    let before = envelope.slice(..end);
    let comma = if before.trim_ascii_end().ends_with(b"{") {
        ""
    } else {
        ","
    };
    let tail = format!(r#"{comma}"_evows":{{"position":"{}"}}}}"#, entry.position);
    (before, tail)
}

/// A message of evows itself, among envelopes.
pub(crate) fn own(name: &str, data: &Value) -> String {
    json!({ "_evows": { name: data } }).to_string()
}

/// Puts such a message in front of what waits.
pub(crate) fn tell(out: &mut Outbox, name: &str, data: &Value) {
    out.packet(own(name, data));
}

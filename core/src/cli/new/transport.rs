//! Long-polling: a request is answered when there is something to answer it with.
//!
//! `GET /poll` asks for the events of every instance, `GET /poll/<instance>` for those of one. The answer names the position
//! to ask from the next time: `?since=<next>`. The key comes as `?apikey=` or in the header of that name.

use std::sync::Arc;
use std::time::Duration;

use evows::access::Access;
use evows::axum::Router;
use evows::axum::extract::{Path, RawQuery, State};
use evows::axum::http::{HeaderMap, StatusCode, header};
use evows::axum::response::{IntoResponse, Response};
use evows::axum::routing::get;
use evows::config::{Period, Problem};
use evows::http::{error_response, key, parameter};
use evows::hub::{Channel, ChannelName, Hub, Resume, Since, Start};
use evows::plugin::{BuildContext, BuildError, Transport, TransportPlugin};
use evows::schemars::JsonSchema;
use evows::serde::Deserialize;
use evows::serde_json::json;
use evows::tokio::sync::watch;
use evows::{Shutdown, async_trait, register_transport, tokio};

/// How many events an answer has at most.
const MOST: usize = 100;

/// The keys in `evows.toml`. `evows explain my_transport` shows their doc comments.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(crate = "evows::serde", deny_unknown_fields, default)]
#[schemars(crate = "evows::schemars")]
struct Config {
    /// Where `/` is asked for; an instance's channel is asked for below it.
    path: String,
    /// How long a request waits for an event.
    wait: Period,
}

/// The transport.
struct MyTransport(Arc<Shared>);

/// What its requests share.
struct Shared {
    hub: Arc<Hub>,
    access: Arc<Access>,
    wait: Duration,
    /// How many requests wait.
    waiting: watch::Sender<usize>,
    draining: Shutdown,
}

/// Counts a request for as long as it lives, however it ends.
struct Counted<'a>(&'a Shared);

register_transport!(
    MyTransport,
    summary = "Answers long-polling requests with a channel's events.",
    example = "path = \"/poll\"\nwait = \"25s\"\n",
);

impl Default for Config {
    fn default() -> Self {
        Self {
            path: "/poll".to_owned(),
            wait: Period::seconds(25),
        }
    }
}

impl TransportPlugin for MyTransport {
    const NAME: &'static str = "my_transport";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        if config.path.starts_with('/') && !config.path.ends_with('/') {
            return Vec::new();
        }
        let wrong = "the path needs a slash in front and none behind";
        let problem = Problem::new("invalid-value", wrong).at_key("path");
        vec![problem.help("such as \"/poll\"")]
    }

    fn build(config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let shared = Arc::new(Shared {
            hub: Arc::clone(cx.hub()),
            access: Arc::clone(cx.access()),
            wait: config.wait.0,
            waiting: watch::Sender::new(0),
            draining: Shutdown::new(),
        });
        let router = Router::new()
            .route(&config.path, get(poll))
            .route(&format!("{}/{{instance}}", config.path), get(poll))
            .with_state(Arc::clone(&shared));
        cx.mount(&config.path, router);
        Ok(Self(shared))
    }
}

#[async_trait]
impl Transport for MyTransport {
    fn clients(&self) -> usize {
        *self.0.waiting.borrow()
    }

    /// Every request is answered at once: whoever asks again asks another process.
    async fn drain(&self, _over: Duration) {
        self.0.draining.start();
        let mut waiting = self.0.waiting.subscribe();
        // It cannot fail: the sender is here.
        waiting.wait_for(|waiting| *waiting == 0).await.ok();
    }
}

async fn poll(
    State(shared): State<Arc<Shared>>,
    instance: Option<Path<String>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query = query.unwrap_or_default();
    let Some(identity) = key(&query, &headers).and_then(|key| shared.access.identify(&key)) else {
        return error_response(StatusCode::UNAUTHORIZED, "the key is missing, or wrong");
    };
    let name = instance.map_or(Ok(ChannelName::root()), |Path(instance)| {
        ChannelName::of_instance(&instance)
    });
    let allowed = name
        .ok()
        .filter(|name| shared.access.may_follow(&identity, name));
    let Some(channel) = allowed.and_then(|name| shared.hub.channel(&name)) else {
        return error_response(StatusCode::NOT_FOUND, "there is no such channel");
    };
    match parameter(&query, "since").map(|text| text.parse()) {
        Some(Err(error)) => error_response(StatusCode::BAD_REQUEST, format!("{error}")),
        Some(Ok(since)) => shared.answer(&channel, Some(since)).await,
        None => shared.answer(&channel, None).await,
    }
}

impl Shared {
    async fn answer(&self, channel: &Arc<Channel>, since: Option<Since>) -> Response {
        let _counted = Counted::new(self);
        let resume = match since {
            Some(since) => channel.resume(&since),
            None => Resume::at_head(channel.head()),
        };
        // The client's place in the channel. Nothing is copied, and nobody waits for it.
        let mut cursor = channel.look(Start::Resume(resume));
        tokio::select! {
            _open = cursor.ready() => {}
            () = tokio::time::sleep(self.wait) => {}
            () = self.draining.started() => {}
        }
        let mut entries = Vec::new();
        let gap = cursor.read(MOST, &mut entries).or(resume.gap);
        // Envelopes go out byte for byte as they came in.
        let mut body = b"{\"events\":[".to_vec();
        for (at, entry) in entries.iter().enumerate() {
            body.extend_from_slice(if at > 0 { b"," } else { b"" });
            body.extend_from_slice(entry.event.envelope());
        }
        let (next, gap) = (json!(cursor.position().to_string()), json!(gap));
        body.extend_from_slice(format!("],\"gap\":{gap},\"next\":{next}}}").as_bytes());
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

impl<'a> Counted<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.waiting.send_modify(|waiting| *waiting += 1);
        Self(shared)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|waiting| *waiting -= 1);
    }
}

#[cfg(test)]
mod tests {
    use evows::axum::body::{Body, to_bytes};
    use evows::axum::http::Request;
    use evows::serde_json::Value;
    use evows::testing::{TransportHarness, event};

    use super::*;

    const EVENT: &str = r#"{"event":"call","instance":"a"}"#;

    fn request(query: &str) -> Request<Body> {
        let request = Request::get(format!("/poll?{query}"));
        let request = request.header("apikey", TransportHarness::KEY);
        request.body(Body::empty()).unwrap()
    }

    async fn body(response: Response) -> Value {
        assert_eq!(response.status(), StatusCode::OK);
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        evows::serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test(crate = "evows::tokio")]
    async fn a_request_waits_for_an_event_and_goes_on_behind_it() {
        let harness = TransportHarness::from_toml::<MyTransport>("").await;
        let waiting = tokio::spawn(harness.call(request("")));
        harness.clients_are(1).await;
        let position = harness.publish("/", &event(EVENT));
        let first = body(waiting.await.unwrap()).await;
        assert_eq!(first["events"][0]["event"], "call");
        assert_eq!(first["next"], position.to_string());

        harness.publish("/", &event(EVENT));
        let next = format!("since={position}");
        let second = body(harness.call(request(&next)).await).await;
        assert_eq!(second["events"].as_array().map(Vec::len), Some(1));
    }

    #[tokio::test(crate = "evows::tokio", start_paused = true)]
    async fn requests_are_answered_at_the_drain_or_when_their_time_is_up() {
        let harness = TransportHarness::from_toml::<MyTransport>("wait = '1h'").await;
        let empty = body(harness.call(request("")).await).await;
        assert_eq!(empty["events"], json!([]));

        let waiting = tokio::spawn(harness.call(request("")));
        while harness.clients() == 0 {
            tokio::task::yield_now().await;
        }
        harness.drain(Duration::from_secs(1)).await;
        body(waiting.await.unwrap()).await;
    }

    #[tokio::test(crate = "evows::tokio")]
    async fn wrong_requests_are_refused() {
        let harness = TransportHarness::from_toml::<MyTransport>("").await;
        let stranger = Request::get("/poll").body(Body::empty()).unwrap();
        assert_eq!(harness.call(stranger).await.status(), 401);
        assert_eq!(harness.call(request("since=x")).await.status(), 400);
    }
}

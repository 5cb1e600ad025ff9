//! Posts each event to HTTP endpoints, the way Evolution API's webhooks do, and signs what it posts.
//!
//! There is a global endpoint, which this file or the environment names, and one for each instance, which is set with
//! `POST /webhook/set/{instance}`. Either may be missing.
//!
//! ```toml
//! [sinks.hooks]
//! type = "webhook"
//! inputs = ["evolution"]
//! url = "https://example.com/evolution"
//! secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
//! ```
//!
//! # What is posted
//!
//! One request for each event. Its body is the envelope as it was received, byte for byte, but for the member `destination`,
//! which is set to what Evolution's own webhooks say there: the URL of the instance's webhook if it has one, else the global
//! URL with the event's name behind it. So a secret in the URL that Evolution posts to evows goes no further. Members keep the
//! order in which they came; from a source other than a webhook, `destination` is put behind `data`.
//!
//! With `by_events` (an instance's `byEvents`) the URL is followed by `/` and the event's name (`messages-upsert`), whatever it
//! ends with: a slash is doubled, and a query gets it at its end, as in the original. The headers are those of Evolution 2.3, in
//! its order, and then:
//!
//! | header | value |
//! |---|---|
//! | what `headers` (of the instance, or of this file) names | as it is set |
//! | `Authorization: Bearer` | where `headers` has `jwt_key`, which is not sent: a token (HS256) signed with it, `{iat, exp, app: "evolution", action: "webhook"}`, good for ten minutes and made anew for each attempt; the original keeps the first one, so that late attempts are refused |
//! | `webhook-id` | `msg_` and the event's id: the same for each attempt, whatever happens in between, so that receivers can tell a repetition |
//! | `webhook-timestamp` | when the attempt was made, in seconds |
//! | `webhook-signature` | where there are secrets: one signature for each, as [Standard Webhooks](https://www.standardwebhooks.com) has it. The global endpoint's secrets are `secret` and `secrets`; an instance's are the words of the header `webhook_secret` among its `headers`, which is not sent |
//!
//! # What an answer means
//!
//! | answer | what happens |
//! |---|---|
//! | 2xx | the event is delivered |
//! | 410 | the endpoint is switched off: an instance's for good, until it is set again; the global one until evows starts again |
//! | 400, 401, 403, 404, 422 (`non_retryable`) | the event fails at once |
//! | 429, 502, 503, 504, no connection, no answer in time | tried again, more slowly; not before `Retry-After` |
//! | anything else | tried again; not before `Retry-After` |
//!
//! Redirects are not followed and count as "anything else": the original follows them with a `GET` that has no event in it, and
//! a URL that the guard let through must not lead elsewhere.
//!
//! An event is tried 10 times, after 5 s, 10 s, 20 s and so on up to 5 minutes, a fifth more or less; what the file says under
//! `retry` and `timeout` comes first, then Evolution's variables. An instance's events are posted in their order, and wait for
//! those before them; other instances do not wait. An endpoint that fails over and over is left alone for a while (`breaker`).
//!
//! A source that waits for its events to be delivered waits for all of this, unless the sink has `required = false`.
//!
//! # Whom instances may post to
//!
//! A URL in this file or in the environment may lead anywhere. One that was set over the API may not lead to addresses that are
//! not public, such as this machine and its neighbours, whatever its name resolves to when it is dialled; nor may it have a
//! user in it. Allow those that are meant, such as the network of the containers beside this one: `allow_cidrs` and
//! `allow_hosts`. Behind a proxy the name is looked up here first, and the proxy has the last word.
//!
//! # Evolution's variables
//!
//! | variable | meaning |
//! |---|---|
//! | `WEBHOOK_GLOBAL_ENABLED` | `true`: `WEBHOOK_GLOBAL_URL`, where it is set, comes before `url`; anything else: no global endpoint; unset: `url` |
//! | `WEBHOOK_GLOBAL_WEBHOOK_BY_EVENTS` | comes before `by_events` |
//! | `WEBHOOK_EVENTS_<EVENT>` | as soon as one of them is set, the global endpoint gets those that are `true`, whatever `events` says |
//! | `WEBHOOK_REQUEST_TIMEOUT_MS`, `WEBHOOK_RETRY_*` | how long, how often, how far apart; `WEBHOOK_RETRY_NON_RETRYABLE_STATUS_CODES` comes before `non_retryable` |
//! | `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` | proxies, in capitals or small letters |
//!
//! Do not give evows the variables of an Evolution that posts to this very evows: it would post to itself.

mod answer;
mod body;
mod book;
mod config;
mod endpoint;
mod settings;
mod sign;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use evows_core::config::Problem;
use evows_core::delivery::Delivery;
use evows_core::names::by_events_suffix;
use evows_core::plugin::{
    Batch, BuildContext, BuildError, Destination, Environment, Lifecycle, Sink, SinkError,
    SinkErrorKind, SinkPlugin,
};
use evows_core::{Event, register_sink};
use flate2::Compression;
use flate2::write::GzEncoder;

pub use self::config::{Config, Format};

use self::book::{Book, Page, Wanted};
use self::endpoint::{Attempt, Endpoint};
use self::sign::Secret;
use crate::client::{self, Exchange, Failure, Guard, Http, Network, Take};

/// The name of the global endpoint's destination.
const GLOBAL: &str = "global";

/// The running sink.
pub struct Webhook {
    id: String,
    global: Option<Global>,
    book: Option<Book>,
    lifecycle: Arc<dyn Lifecycle>,
    non_retryable: Vec<u16>,
    gzip: bool,
    network: Network,
    /// There once the sink has started.
    client: OnceLock<Arc<dyn Exchange>>,
}

/// The global endpoint.
struct Global {
    endpoint: Endpoint,
    destination: Destination,
    /// All events when `None`.
    wanted: Option<Wanted>,
    /// It answered 410.
    is_gone: AtomicBool,
}

/// Which endpoint a destination is.
enum Target<'a> {
    Global(&'a Global),
    Instance(&'a str, Arc<Page>),
}

register_sink!(
    Webhook,
    summary = "Posts each event to HTTP endpoints, as Evolution's webhooks do, and signs it.",
    example = "url = \"https://example.com/evolution\"\nby_events = true\n",
);

// === impl Webhook ===

impl SinkPlugin for Webhook {
    const NAME: &'static str = "webhook";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        config.check()
    }

    fn delivery(_config: &Config, environment: &Environment) -> Delivery {
        settings::delivery(environment)
    }

    fn build(config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        let environment = cx.environment();
        let secrets = config.secrets().map(Secret::parse);
        let secrets: Result<Vec<_>, _> = secrets.collect();
        let secrets = secrets.map_err(|error| BuildError::new(error.to_string()))?;
        let global = settings::global(&config, environment);
        let global = global.and_then(|asked| Global::new(asked, &config, secrets, cx.id()));
        let book = config
            .instances
            .then(|| Book::new(cx.instances(), config.instance_headers));
        if global.is_none() && book.is_none() {
            tracing::warn!(
                sink = cx.id(),
                "there is no global endpoint and instances may have none: nothing will be posted"
            );
        }
        let network = Network {
            guard: Arc::new(Guard::new(config.allow_cidrs.clone(), &config.allow_hosts)),
            proxies: config.proxy.then(|| Arc::new(client::proxies(environment))),
            ca_file: config.ca_file.clone(),
        };
        Ok(Self {
            id: cx.id().to_owned(),
            global,
            book,
            lifecycle: Arc::clone(cx.lifecycle()),
            non_retryable: settings::non_retryable(&config, environment),
            gzip: config.gzip,
            network,
            client: OnceLock::new(),
        })
    }
}

#[async_trait]
impl Sink for Webhook {
    async fn start(&self) -> Result<(), SinkError> {
        if self.client.get().is_some() {
            return Ok(());
        }
        let network = self.network.clone();
        let made = tokio::task::spawn_blocking(move || Http::new(&network)).await;
        let made = made.map_err(|error| {
            SinkError::transient("reading certificates ended early").caused_by(error)
        })?;
        let client = made.map_err(|error| SinkError::permanent(error.to_string()))?;
        // Only one start runs at a time.
        self.client.get_or_init(|| Arc::new(client));
        Ok(())
    }

    fn destinations(&self, event: &Event, out: &mut Vec<Destination>) {
        if let Some(book) = &self.book
            && let Some(destination) = book.destination(event)
        {
            out.push(destination);
        }
        if let Some(global) = &self.global
            && global.wants(event)
        {
            out.push(global.destination.clone());
        }
    }

    async fn send(&self, batch: Batch<'_>) -> Result<(), SinkError> {
        let mut failed = Vec::new();
        let mut error = None;
        for (index, event) in batch.iter().enumerate() {
            // A batch is one event, unless the file says otherwise.
            let Err(cause) = self.post(batch.destination(), event).await else {
                continue;
            };
            failed.push(index);
            let is_final = cause.kind == SinkErrorKind::Permanent;
            error = Some(cause);
            if !is_final {
                failed.extend(index + 1..batch.len());
                break;
            }
        }
        error.map_or(Ok(()), |error| Err(error.only(failed)))
    }
}

impl Webhook {
    async fn post(&self, destination: &Destination, event: &Event) -> Result<(), SinkError> {
        let target = self.target(destination)?;
        let endpoint = target.endpoint()?;
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", endpoint.place());
        let body = body::body(event, &self.destination_of(&target, event));
        let gzip = if self.gzip {
            Some(compress(&body).map_err(|error| SinkError::transient(told(&error)))?)
        } else {
            None
        };
        let now = SystemTime::now();
        let attempt = Attempt {
            event,
            body: &body,
            gzip,
            now: milliseconds(now),
        };
        let request = endpoint
            .request(&attempt)
            .map_err(|error| SinkError::permanent(told(&error)))?;
        let client = self.client.get();
        let client = client.ok_or_else(|| SinkError::disconnected("the sink has not started"))?;
        let answer = match client
            .exchange(request, endpoint.trust, Take::EXCERPT)
            .await
        {
            Ok(answer) => answer,
            Err(failure) => {
                let message = told(&failure);
                return Err(match failure {
                    Failure::Forbidden(_) => SinkError::permanent(message),
                    Failure::Unreachable(_) => SinkError::overloaded(message),
                    Failure::Broken(_) => SinkError::transient(message),
                });
            }
        };
        if answer.is_gone() {
            self.switch_off(&target).await;
        }
        let verdict = answer.verdict(&self.non_retryable, now);
        verdict.map_err(|error| SinkError::new(error.kind, told(&error)))
    }

    fn target<'a>(&'a self, destination: &'a Destination) -> Result<Target<'a>, SinkError> {
        let name = destination.name();
        let target = if name == GLOBAL {
            let global = self.global.as_ref().filter(|it| !it.is_gone());
            global.map(Target::Global)
        } else {
            let page = self.book.as_ref().and_then(|book| book.find(name));
            page.map(|(instance, page)| Target::Instance(instance, page))
        };
        target.ok_or_else(|| SinkError::permanent(format!("the endpoint `{name}` is switched off")))
    }

    /// What the envelope says about where it goes.
    fn destination_of(&self, target: &Target<'_>, event: &Event) -> String {
        if let Target::Instance(_, page) = target
            && let Ok(endpoint) = &page.endpoint
        {
            return endpoint.url().to_owned();
        }
        let own = self.book.as_ref().and_then(|it| it.url(event.instance()));
        own.unwrap_or_else(|| {
            let global = self.global.as_ref().map(|it| it.endpoint.url());
            let suffix = by_events_suffix(event.name());
            format!("{}/{suffix}", global.unwrap_or_default())
        })
    }

    /// Posts nothing to the endpoint any more.
    async fn switch_off(&self, target: &Target<'_>) {
        let sink = &*self.id;
        match target {
            Target::Global(global) => {
                global.is_gone.store(true, Ordering::Relaxed);
                tracing::warn!(
                    sink,
                    "the global endpoint answered 410 Gone: nothing is posted there until evows starts again"
                );
            }
            Target::Instance(instance, page) => {
                match self.lifecycle.switch_off(instance, &page.set).await {
                    Ok(true) => {
                        tracing::warn!(
                            sink,
                            instance,
                            "the instance's webhook answered 410 Gone: it is switched off until it is set again"
                        );
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::error!(sink, instance, %error, "the instance's webhook answered 410 Gone, and could not be switched off");
                    }
                }
            }
        }
    }
}

// === impl Global ===

impl Global {
    /// `None`, and a word about it, when what the environment says is unusable.
    fn new(
        asked: settings::Global,
        config: &Config,
        secrets: Vec<Secret>,
        sink: &str,
    ) -> Option<Self> {
        let endpoint = Endpoint::global(asked.url, asked.by_events, &config.headers, secrets);
        match endpoint {
            Ok(endpoint) => Some(Self {
                endpoint,
                destination: Destination::named(GLOBAL),
                wanted: asked.events.map(|names| Wanted::new(&names)),
                is_gone: AtomicBool::new(false),
            }),
            Err(error) => {
                tracing::warn!(sink, %error, "nothing can be posted to the global endpoint: check WEBHOOK_GLOBAL_URL");
                None
            }
        }
    }

    fn wants(&self, event: &Event) -> bool {
        let is_wanted = |wanted: &Wanted| wanted.has(event.name());
        !self.is_gone() && self.wanted.as_ref().is_none_or(is_wanted)
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }
}

// === impl Target ===

impl Target<'_> {
    fn endpoint(&self) -> Result<&Endpoint, SinkError> {
        match self {
            Self::Global(global) => Ok(&global.endpoint),
            Self::Instance(instance, page) => page.endpoint.as_ref().map_err(|error| {
                SinkError::permanent(format!(
                    "the webhook of `{instance}` cannot be used: {error}"
                ))
            }),
        }
    }
}

fn compress(body: &Bytes) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish().map(Bytes::from)
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

//! Asking a service, and remembering what it said.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use evows_core::plugin::{BoxError, BuildError, Environment};
use http_body_util::Full;
use hyper::header::{
    ACCEPT, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING, USER_AGENT,
};
use hyper::{Request, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde_json::Value;
use tokio::time::Instant;

use crate::client::{Answer, Exchange, Http as Client, Network, Take, Trust};
use crate::filters::outage::Outage;
use crate::filters::path::Path;

use super::Http;

/// What stands for the key in a URL.
const KEY: &str = "{key}";

/// What of a key is written as it is (RFC 3986, 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What stands between the parts of a path, on Windows, too.
const SLASHES: [char; 2] = ['/', '\\'];

/// The largest answer, in bytes.
const MOST: usize = 1024 * 1024;

/// What an entry of the cache weighs beside its key and its answer, in bytes.
const ENTRY: usize = 256;

/// A URL with places for the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    url: String,
    /// Its path, if the key is in that.
    path: Option<String>,
}

/// Why text is no template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadTemplate {
    #[error("the URL is none: it needs a host, and `http://` or `https://` in front")]
    Url,
    #[error(
        "the URL has a user in it, which would be told with it: set the header `Authorization` instead"
    )]
    User,
    #[error("the URL has no `{{key}}` in its path or query: every key would have the same answer")]
    NoKey,
    #[error("the URL has `{{key}}` in its host, which an event must not choose")]
    KeyInHost,
    #[error("the URL's path has a part `.` or `..`")]
    Dots,
}

/// A service and its cache.
pub(super) struct Lookup {
    url: Template,
    headers: HeaderMap,
    pick: Option<Path>,
    ttl: Duration,
    missing_ttl: Duration,
    network: Network,
    outage: Outage,
    /// There once the filter has started.
    client: OnceLock<Arc<dyn Exchange>>,
    answers: Arc<Cache<String, Entry, Weight>>,
}

/// What was found, if anything.
type Found = Result<Option<Arc<Value>>, Unanswered>;

/// Why it is not known whether there is anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// The service said so, or nothing.
    Failed,
    /// It was not asked.
    LeftAlone,
}

/// What is remembered of one lookup.
#[derive(Clone)]
struct Entry {
    found: Found,
    /// When the lookup ended.
    made: Instant,
    /// Bytes of the answer.
    size: usize,
}

#[derive(Clone)]
struct Weight;

/// A header of requests, if it can be sent.
pub(super) fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    let name: HeaderName = name.parse().ok()?;
    // These say where a request goes and where it ends.
    if [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION].contains(&name) {
        return None;
    }
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

// === impl Template ===

impl Template {
    pub(super) fn new(url: &str) -> Result<Self, BadTemplate> {
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"));
        let rest = rest.ok_or(BadTemplate::Url)?;
        let host_ends = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, behind) = rest.split_at(host_ends);
        if host.contains(KEY) {
            return Err(BadTemplate::KeyInHost);
        }
        if host.contains('@') {
            return Err(BadTemplate::User);
        }
        let behind = behind.split('#').next().unwrap_or_default();
        if !behind.contains(KEY) {
            return Err(BadTemplate::NoKey);
        }
        let path = behind.split('?').next().unwrap_or_default();
        if has_dots(path) {
            return Err(BadTemplate::Dots);
        }
        let template = Self {
            url: url.to_owned(),
            path: path.contains(KEY).then(|| path.to_owned()),
        };
        let uri = template.uri("key").ok_or(BadTemplate::Url)?;
        if uri.host().is_none_or(str::is_empty) {
            return Err(BadTemplate::Url);
        }
        Ok(template)
    }

    /// The URL of a key; `None` for one that some servers would take for another path. Encoding does not help there: to them
    /// `%2E` is a dot and `%2F` a slash, and then dots lead up and empty parts are left out.
    fn uri(&self, key: &str) -> Option<Uri> {
        if key.is_empty() {
            return None;
        }
        if let Some(path) = &self.path
            && (key.split(SLASHES).any(str::is_empty) || has_dots(&path.replace(KEY, key)))
        {
            return None;
        }
        let encoded = utf8_percent_encode(key, ENCODED).to_string();
        self.url.replace(KEY, &encoded).parse().ok()
    }
}

fn has_dots(path: &str) -> bool {
    path.split(SLASHES).any(|part| matches!(part, "." | ".."))
}

/// So few entries are expected that the cache is not divided: a part of it would keep no answer that is larger than the part.
const IN_ONE_PLACE: usize = 32;

// === impl Lookup ===

impl Lookup {
    pub(super) fn new(
        config: Http,
        environment: &Environment,
        outage: Outage,
    ) -> Result<Self, BuildError> {
        let bad = |error: BadTemplate| BuildError::new(error.to_string());
        let headers = config.headers.iter();
        let mut headers: HeaderMap = headers
            .filter_map(|(name, value)| header(name, value))
            .collect();
        for (name, value) in [
            (ACCEPT, "application/json"),
            (USER_AGENT, concat!("evows/", env!("CARGO_PKG_VERSION"))),
        ] {
            let place = headers.entry(name);
            place.or_insert(HeaderValue::from_static(value));
        }
        let bytes = config.cache.0;
        Ok(Self {
            url: Template::new(&config.url).map_err(bad)?,
            headers,
            pick: config.pick,
            ttl: config.ttl.0,
            missing_ttl: config.missing_ttl.0,
            network: Network::of_operator(config.proxy, config.ca_file, environment),
            outage,
            client: OnceLock::new(),
            answers: Arc::new(Cache::with_weighter(IN_ONE_PLACE, bytes, Weight)),
        })
    }

    /// Goes on with what another one remembers, if it asks for the same.
    pub(super) fn take_over(&mut self, before: &Self) {
        let asks = |it: &Self| (it.url.clone(), it.headers.clone(), it.pick.clone());
        if asks(self) == asks(before) && self.answers.capacity() == before.answers.capacity() {
            self.answers = Arc::clone(&before.answers);
        }
    }

    pub(super) async fn start(&self) -> Result<(), BoxError> {
        if self.client.get().is_none() {
            let network = self.network.clone();
            let made = tokio::task::spawn_blocking(move || Client::new(&network)).await??;
            // Only one start runs at a time.
            self.client.get_or_init(|| Arc::new(made));
        }
        Ok(())
    }

    pub(super) fn outage(&self) -> &Outage {
        &self.outage
    }

    /// What there is for a key. Calls for one key at the same time share a request, and how it ended. Cancel safe: where the
    /// call that asks is dropped, another one asks.
    pub(super) async fn find(&self, key: &str) -> Found {
        let begun = Instant::now();
        loop {
            match self.answers.get_value_or_guard_async(key).await {
                Ok(entry) if entry.serves(begun, self.ttl(&entry.found)) => return entry.found,
                Ok(old) => {
                    self.answers.remove_if(key, |entry| entry.made == old.made);
                }
                Err(guard) => {
                    let (found, size) = self.ask(key).await;
                    let entry = Entry {
                        found: found.clone(),
                        made: Instant::now(),
                        size,
                    };
                    // It may have no room, and is given to those who wait all the same.
                    guard.insert(entry).ok();
                    return found;
                }
            }
        }
    }

    /// How long what was found serves events that come later.
    fn ttl(&self, found: &Found) -> Duration {
        match found {
            Ok(Some(_)) => self.ttl,
            Ok(None) => self.missing_ttl,
            Err(_) => Duration::ZERO,
        }
    }

    /// Asks the service; gives what it said and how many bytes that was.
    async fn ask(&self, key: &str) -> (Found, usize) {
        let Some(uri) = self.url.uri(key) else {
            return (Ok(None), 0);
        };
        let Some(client) = self.client.get() else {
            self.outage.failed(&"the filter has not started");
            return (Err(Unanswered::Failed), 0);
        };
        let Some(attempt) = self.outage.attempt() else {
            return (Err(Unanswered::LeftAlone), 0);
        };
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        let take = Take {
            most: MOST,
            // Core has a limit for all of it.
            within: Duration::from_hours(1),
        };
        let exchange = client.exchange(request, Trust::Operator, take);
        let answer = match attempt.make(exchange).await {
            None => return (Err(Unanswered::LeftAlone), 0),
            Some(Ok(answer)) => answer,
            Some(Err(failure)) => {
                attempt.failed(&failure);
                return (Err(Unanswered::Failed), 0);
            }
        };
        match self.read(&answer) {
            Ok(found) => {
                attempt.worked();
                let size = found.as_ref().map_or(0, |_| answer.body.len());
                (Ok(found), size)
            }
            Err(error) => {
                attempt.refused(&error);
                (Err(Unanswered::Failed), 0)
            }
        }
    }

    /// What an answer says.
    fn read(&self, answer: &Answer) -> Result<Option<Arc<Value>>, String> {
        match answer.status {
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::NO_CONTENT => Ok(None),
            status if !status.is_success() => Err(format!("it answered {status}")),
            _ if !answer.is_whole => Err(format!(
                "the answer has more than {MOST} bytes, or ended early"
            )),
            _ => match serde_json::from_slice(&answer.body) {
                Ok(value) => Ok(self.picked(value)),
                Err(error) => Err(format!("the answer is no JSON: {error}")),
            },
        }
    }

    fn picked(&self, value: Value) -> Option<Arc<Value>> {
        let value = match (&self.pick, value) {
            (None, value) => value,
            (Some(path), Value::Object(members)) => path.get(&members)?.clone(),
            (Some(_), _) => return None,
        };
        (!value.is_null()).then(|| Arc::new(value))
    }
}

// === impl Entry ===

impl Entry {
    /// Whether it answers a call that began then: it is fresh, or came while the call waited for it.
    fn serves(&self, begun: Instant, ttl: Duration) -> bool {
        self.made.elapsed() < ttl || self.made >= begun
    }
}

// === impl Weight ===

impl Weighter<String, Entry> for Weight {
    fn weight(&self, key: &String, entry: &Entry) -> u64 {
        (key.len() + entry.size + ENTRY) as u64
    }
}

#[cfg(test)]
impl Lookup {
    pub(super) fn through(self, client: Arc<dyn Exchange>) -> Self {
        self.client.set(client).ok();
        self
    }

    /// What is remembered, in bytes.
    pub(super) fn weight(&self) -> u64 {
        self.answers.weight()
    }
}

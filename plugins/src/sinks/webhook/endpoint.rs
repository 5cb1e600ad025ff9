//! One place that events are posted to, and the request that it gets.

use bytes::Bytes;
use evows_core::Event;
use evows_core::names::by_events_suffix;
use evows_core::plugin::Integration;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_TYPE, Entry, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, USER_AGENT,
};
use hyper::http::uri::Scheme;
use hyper::{Method, Request, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use super::sign::{self, Secret};
use crate::client::Trust;

/// What Evolution sends beside its own headers, in its order.
const ACCEPTED: &str = "application/json, text/plain, */*";
const ENCODINGS: &str = "gzip, compress, deflate, br";
const AGENT: &str = "axios/1.12.2";
/// What its version 2.4 sends to an instance's own webhook.
const AGENT_OF_2_4: &str = "EvolutionAPI-Webhook/2.3.7";

/// The header of an instance's webhook whose value signs a token instead of being sent.
const JWT_KEY: &str = "jwt_key";
/// The header whose value signs requests as Standard Webhooks has it instead of being sent.
const SECRET: &str = "webhook_secret";

/// What no URL may have in it as it is; browsers and Node encode it, too.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// One place that events are posted to.
pub(super) struct Endpoint {
    url: String,
    by_events: bool,
    pub(super) trust: Trust,
    headers: Vec<(HeaderName, HeaderValue)>,
    jwt_key: Option<Vec<u8>>,
    secrets: Vec<Secret>,
    /// The headers of Evolution 2.4 are wanted, with this id of the instance.
    instance_id: Option<String>,
}

/// Why nothing can be posted to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("the URL is none: it needs a host, and `http://` or `https://` in front")]
    Url,
    #[error("the URL has a user in it, which one that is set over the API may not")]
    User,
    #[error("the header {0:?} cannot be sent as it is set")]
    Header(String),
    #[error("the header `{SECRET}` holds no secret: {0}")]
    Secret(#[from] sign::NotASecret),
}

/// One attempt at posting an event.
pub(super) struct Attempt<'a> {
    pub(super) event: &'a Event,
    /// The body as it is signed.
    pub(super) body: &'a Bytes,
    /// The body as it is sent, if that is something else.
    pub(super) gzip: Option<Bytes>,
    /// In milliseconds since 1970.
    pub(super) now: u64,
}

/// Whether a URL is one that Evolution would post to.
pub(super) fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

// === impl Endpoint ===

impl Endpoint {
    /// The endpoint that the file or the environment names.
    pub(super) fn global<'a>(
        url: String,
        by_events: bool,
        headers: impl IntoIterator<Item = (&'a String, &'a String)>,
        secrets: Vec<Secret>,
    ) -> Result<Self, Unusable> {
        let mut endpoint = Self::new(url, by_events, Trust::Operator);
        endpoint.secrets = secrets;
        for (name, value) in headers {
            endpoint.header(name, value)?;
        }
        endpoint.uri("")?;
        Ok(endpoint)
    }

    /// The endpoint that an instance is set to.
    pub(super) fn of_instance(set: &Integration, extra: bool) -> Result<Self, Unusable> {
        let text = |key: &str| set.settings.get(key).and_then(Value::as_str);
        let url = text("url").unwrap_or_default().to_owned();
        let by_events = set.settings.get("webhookByEvents") == Some(&Value::Bool(true));
        let mut endpoint = Self::new(url, by_events, Trust::Guarded);
        if extra {
            endpoint.instance_id = text("instanceId").map(str::to_owned);
        }
        let headers = set.settings.get("headers").and_then(Value::as_object);
        for (name, value) in headers.into_iter().flatten() {
            match value {
                // What the original leaves out.
                Value::Null | Value::Bool(false) => {}
                Value::String(value) => endpoint.header(name, value)?,
                other => endpoint.header(name, &other.to_string())?,
            }
        }
        let uri = endpoint.uri("")?;
        if user(&uri).is_some() {
            return Err(Unusable::User);
        }
        Ok(endpoint)
    }

    fn new(url: String, by_events: bool, trust: Trust) -> Self {
        Self {
            url,
            by_events,
            trust,
            headers: Vec::new(),
            jwt_key: None,
            secrets: Vec::new(),
            instance_id: None,
        }
    }

    fn header(&mut self, name: &str, value: &str) -> Result<(), Unusable> {
        if name == JWT_KEY {
            self.jwt_key = Some(value.as_bytes().to_vec());
            return Ok(());
        }
        if name == SECRET {
            let secrets = value.split_whitespace().map(Secret::parse);
            self.secrets = secrets.collect::<Result<_, _>>()?;
            return Ok(());
        }
        let unusable = || Unusable::Header(name.to_owned());
        let parsed: HeaderName = name.parse().map_err(|_| unusable())?;
        // These say where a request ends, and one that says it wrong is two.
        if [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION].contains(&parsed) {
            return Err(unusable());
        }
        let mut value = HeaderValue::from_str(value).map_err(|_| unusable())?;
        value.set_sensitive(true);
        self.headers.push((parsed, value));
        Ok(())
    }

    /// The endpoint's URL, as it is set.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Where it is, without what may be a secret in its URL.
    pub(super) fn place(&self) -> String {
        self.uri("").map_or_else(
            |_| "nowhere".to_owned(),
            |uri| format!("{}://{}", uri.scheme_str().unwrap_or_default(), host(&uri)),
        )
    }

    /// The URL with the event's suffix, where there is to be one: plain concatenation, as in the original.
    fn uri(&self, event: &str) -> Result<Uri, Unusable> {
        let suffixed;
        let url = if self.by_events {
            suffixed = format!("{}/{}", self.url, by_events_suffix(event));
            &suffixed
        } else {
            &self.url
        };
        if !is_http(url) {
            return Err(Unusable::Url);
        }
        let encoded = utf8_percent_encode(url, ENCODED).to_string();
        let uri: Uri = encoded.parse().map_err(|_| Unusable::Url)?;
        // A name in other letters would be encoded, and then be no name.
        match uri.host() {
            Some(host) if !host.is_empty() && !host.contains('%') => Ok(uri),
            _ => Err(Unusable::Url),
        }
    }

    /// The request of an attempt. What proves its origin is made anew each time: the token that the original makes once has
    /// expired when it tries for the last time.
    pub(super) fn request(&self, attempt: &Attempt<'_>) -> Result<Request<Full<Bytes>>, Unusable> {
        let uri = self.uri(attempt.event.name())?;
        let mut headers = HeaderMap::with_capacity(16);
        headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let json = HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json.clone());
        if self.trust == Trust::Operator
            && let Some(value) = basic(&uri)
        {
            headers.insert(AUTHORIZATION, value);
        }
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        if let Some(key) = &self.jwt_key {
            let token = format!("Bearer {}", sign::token(key, attempt.now / 1000));
            set(&mut headers, AUTHORIZATION, &token)?;
        }
        if let Some(id) = &self.instance_id {
            headers.insert(CONTENT_TYPE, json);
            let (instance, name) = (attempt.event.instance(), attempt.event.name());
            for (header, value) in [
                ("x-instance-id", &**id),
                ("x-instance-name", instance),
                ("x-event-type", name),
                ("x-timestamp", &attempt.now.to_string()),
            ] {
                set(&mut headers, HeaderName::from_static(header), value)?;
            }
            headers.insert(USER_AGENT, HeaderValue::from_static(AGENT_OF_2_4));
        }
        self.sign(&mut headers, attempt)?;
        let body = attempt.gzip.as_ref().unwrap_or(attempt.body);
        if attempt.gzip.is_some() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if let Entry::Vacant(place) = headers.entry(USER_AGENT) {
            place.insert(HeaderValue::from_static(AGENT));
        }
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        if let Entry::Vacant(place) = headers.entry(ACCEPT_ENCODING) {
            place.insert(HeaderValue::from_static(ENCODINGS));
        }
        // With TLS it may be HTTP/2, which has neither.
        if uri.scheme() == Some(&Scheme::HTTP) {
            if !headers.contains_key(HOST) {
                set(&mut headers, HOST, &host(&uri))?;
            }
            headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        }
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = without_user(uri);
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Adds the headers of Standard Webhooks.
    fn sign(&self, headers: &mut HeaderMap, attempt: &Attempt<'_>) -> Result<(), Unusable> {
        let id = format!("msg_{}", attempt.event.id());
        let timestamp = attempt.now / 1000;
        let at = |name| HeaderName::from_static(name);
        set(headers, at("webhook-id"), &id)?;
        headers.insert(at("webhook-timestamp"), HeaderValue::from(timestamp));
        if !self.secrets.is_empty() {
            let signatures = sign::signatures(&self.secrets, &id, timestamp, attempt.body);
            set(headers, at("webhook-signature"), &signatures)?;
        }
        Ok(())
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) -> Result<(), Unusable> {
    let bytes = HeaderValue::from_bytes(value.as_bytes());
    let value = bytes.map_err(|_| Unusable::Header(name.to_string()))?;
    headers.insert(name, value);
    Ok(())
}

/// The host as a header has it, with the port where the URL names one.
fn host(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    match uri.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// The URL without its user, which belongs into a header alone.
fn without_user(uri: Uri) -> Uri {
    if user(&uri).is_none() {
        return uri;
    }
    let mut parts = uri.clone().into_parts();
    parts.authority = host(&uri).parse().ok();
    Uri::from_parts(parts).unwrap_or(uri)
}

fn user(uri: &Uri) -> Option<&str> {
    let (user, _) = uri.authority()?.as_str().rsplit_once('@')?;
    Some(user)
}

/// The user of a URL as the original sends it.
fn basic(uri: &Uri) -> Option<HeaderValue> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    let user = percent_encoding::percent_decode_str(user(uri)?).decode_utf8_lossy();
    // `user` alone has an empty password.
    let colon = if user.contains(':') { "" } else { ":" };
    let text = format!("Basic {}", STANDARD.encode(format!("{user}{colon}")));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

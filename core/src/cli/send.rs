//! `evows send`.
//!
//! Without `--url`, the event goes to the first webhook source of the configuration file, on this machine: its port
//! is the one of `[server]`, environment included, and its path and secret are those of the source. This is the one
//! place where core knows keys of a plugin: `path`, `secret` and `secret_header` of `type = "webhook"`. A file that is
//! missing or wrong, or has no such source, leaves the default URL.

use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use tokio::net::TcpStream;

use super::validate::load;
use super::{Exit, output};
use crate::config::{Config, ServerConfig, Settings};
use crate::plugin::Environment;

/// How long connecting and answering may take: longer than a webhook source waits for delivery (25 s).
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// Where an event goes when neither `--url` nor the configuration says.
const DEFAULT_URL: &str = "http://127.0.0.1:8080/webhook";

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The event's name, such as `messages.upsert`.
    event: String,
    /// The instance that it belongs to.
    #[arg(long, short, value_name = "NAME")]
    instance: String,
    /// Its data: JSON, `@file`, or `@-` for standard input.
    #[arg(long, short, value_name = "JSON", default_value = "{}")]
    data: String,
    /// The webhook source to send it to; without it, the first one of the configuration file, with its secret, or
    /// else `http://127.0.0.1:8080/webhook`.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A header to send along, such as `x-webhook-secret: ...`. May be given several times.
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
}

/// A webhook source, as the configuration has it.
#[derive(Debug, PartialEq, Eq)]
struct Webhook {
    url: String,
    /// The header that presents its secret.
    secret: Option<(HeaderName, HeaderValue)>,
}

/// What `send` reads of a webhook source's keys.
#[derive(serde::Deserialize)]
#[serde(default)]
struct WebhookKeys {
    path: String,
    secret: Option<String>,
    secret_header: String,
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    /// As the `Host` header has it.
    authority: String,
    /// As a socket is opened to it.
    address: String,
    path: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("nothing listens at {0}: start evows, or name another place with `--url`")]
    Refused(String),
    #[error("cannot connect to {0}: {1}")]
    Connect(String, #[source] io::Error),
    #[error("no answer from {0} within {limit} s", limit = TIME_LIMIT.as_secs())]
    TimeLimit(String),
    #[error("{0} did not answer as an HTTP server does: {1}")]
    Http(String, #[source] hyper::Error),
}

/// Sends one event and says what came of it.
pub(super) fn run(options: &Options, file: &Path, environment: &Environment) -> io::Result<Exit> {
    let webhook = match &options.url {
        Some(url) => Webhook::at(url),
        None => load(file, environment)
            .config
            .and_then(|config| Webhook::configured(&config))
            .unwrap_or_else(|| Webhook::at(DEFAULT_URL)),
    };
    let prepared = target(&webhook.url).and_then(|target| Ok((target, data(&options.data)?)));
    let (target, data) = match prepared {
        Ok(prepared) => prepared,
        Err(message) => {
            output::complain(&message);
            return Ok(Exit::Usage);
        }
    };
    let body = envelope(options, data, SystemTime::now());
    // A header of the command line wins: it comes later.
    let headers = webhook.secret.iter().chain(&options.header);
    let request = request(&target, headers, body);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(async {
        let answer = tokio::time::timeout(TIME_LIMIT, exchange(&target, request)).await;
        answer.unwrap_or_else(|_| Err(SendError::TimeLimit(target.authority.clone())))
    });
    match answer {
        Ok((status, body)) => {
            output::print(&report(options, &webhook.url, status, &body))?;
            Ok(if status.is_success() {
                Exit::Clean
            } else {
                Exit::Failed
            })
        }
        Err(error) => {
            output::complain(&error);
            Ok(Exit::Failed)
        }
    }
}

async fn exchange(
    target: &Target,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), SendError> {
    let place = || target.authority.clone();
    let stream = TcpStream::connect(&target.address)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => SendError::Refused(place()),
            _ => SendError::Connect(place(), error),
        })?;
    let http = |error| SendError::Http(place(), error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(http)?;
    // It ends with the request; what is wrong with it the request says.
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(http)?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(http)?.to_bytes();
    connection.abort();
    Ok((status, body))
}

/// One envelope with the keys in the order of Evolution's webhook (contract 1.2), less `destination`: the URL may
/// hold a secret.
fn envelope(options: &Options, data: Value, now: SystemTime) -> Bytes {
    let date_time = humantime::format_rfc3339_millis(now).to_string();
    let keys: Map<String, Value> = [
        ("event", Value::from(options.event.as_str())),
        ("instance", Value::from(options.instance.as_str())),
        ("data", data),
        ("date_time", Value::from(date_time)),
        ("apikey", Value::Null),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect();
    Bytes::from(Value::Object(keys).to_string())
}

fn request<'h>(
    target: &Target,
    headers: impl Iterator<Item = &'h (HeaderName, HeaderValue)>,
    body: Bytes,
) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = hyper::Method::POST;
    // Both were taken from a URI that parsed.
    if let Ok(path) = target.path.parse() {
        *request.uri_mut() = path;
    }
    if let Ok(host) = HeaderValue::from_str(&target.authority) {
        request.headers_mut().insert(HOST, host);
    }
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
    for (name, value) in headers {
        request.headers_mut().insert(name.clone(), value.clone());
    }
    request
}

fn report(options: &Options, url: &str, status: StatusCode, body: &Bytes) -> String {
    let what = format!("{} of {}", options.event, options.instance);
    let outcome = match status.as_u16() {
        200..=299 => format!("{what} was accepted"),
        401 => format!(
            "{what} was refused: give the webhook's secret with `--header 'x-webhook-secret: ...'`, or as the \
             first segment behind its path in `--url`"
        ),
        404 => format!("{what} was not accepted: no webhook source has the path of {url}"),
        503 => format!("{what} was not accepted: evows is full or stopping; send it again later"),
        _ => format!("{what} was not accepted"),
    };
    let body = String::from_utf8_lossy(body);
    let gap = if body.is_empty() { "" } else { "\n" };
    format!("{status}: {outcome}\n{}{gap}", body.trim_end())
}

// === impl Webhook ===

impl Webhook {
    fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            secret: None,
        }
    }

    /// The first webhook source of a configuration, if it has one.
    fn configured(config: &Config) -> Option<Self> {
        let mut sources = config.pipeline.sources.iter();
        let source = sources.find(|source| source.plugin.name == "webhook")?;
        Self::of(&source.settings, &config.server)
    }

    fn of(settings: &Settings, server: &ServerConfig) -> Option<Self> {
        let keys: WebhookKeys = settings.read().ok()?;
        let header = |secret: String| {
            let name = keys.secret_header.parse::<HeaderName>().ok()?;
            let mut value = secret.parse::<HeaderValue>().ok()?;
            value.set_sensitive(true);
            Some((name, value))
        };
        let scheme = if server.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let place = reachable(server.listen);
        Some(Self {
            url: format!("{scheme}://{place}{}", keys.path),
            secret: keys.secret.and_then(header),
        })
    }
}

// === impl WebhookKeys ===

impl Default for WebhookKeys {
    /// As the source has them.
    fn default() -> Self {
        Self {
            path: "/webhook".to_owned(),
            secret: None,
            secret_header: "x-webhook-secret".to_owned(),
        }
    }
}

/// Where to connect for what listens at `listen`: on "everywhere", this machine is meant.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let host = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(host, listen.port())
}

fn target(url: &str) -> Result<Target, String> {
    let uri: Uri = url
        .parse()
        .map_err(|error| format!("`{url}` is not a URL: {error}"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err(format!(
                "`evows send` speaks plain HTTP only, so `{url}` cannot be used: \
                 send to evows directly, not through what adds TLS"
            ));
        }
        _ => return Err(format!("`{url}` does not begin with `http://`")),
    }
    let host = uri.host().ok_or_else(|| format!("`{url}` names no host"))?;
    Ok(Target {
        authority: uri.authority().map(ToString::to_string).unwrap_or_default(),
        address: format!("{host}:{}", uri.port_u16().unwrap_or(80)),
        path: uri
            .path_and_query()
            .map_or_else(|| "/".to_owned(), ToString::to_string),
    })
}

fn data(argument: &str) -> Result<Value, String> {
    let text = match argument.strip_prefix('@') {
        None => argument.to_owned(),
        Some("-") => {
            let mut text = String::new();
            io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| format!("cannot read standard input: {error}"))?;
            text
        }
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read `{path}`: {error}"))?,
    };
    serde_json::from_str(&text).map_err(|error| format!("the data is not JSON: {error}"))
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `name: value`")?;
    let name = name.trim().parse::<HeaderName>();
    let value = value.trim().parse::<HeaderValue>();
    Ok((
        name.map_err(|error| error.to_string())?,
        value.map_err(|error| error.to_string())?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            event: "messages.upsert".to_owned(),
            instance: "loja1".to_owned(),
            data: "{}".to_owned(),
            url: None,
            header: Vec::new(),
        }
    }

    #[test]
    fn the_envelope_has_the_order_of_a_webhook() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
        let envelope = envelope(&options(), serde_json::json!({"n": 1}), now);
        assert_eq!(
            envelope,
            concat!(
                r#"{"event":"messages.upsert","instance":"loja1","data":{"n":1},"#,
                r#""date_time":"1970-01-01T00:00:01.500Z","apikey":null}"#
            )
        );
    }

    #[test]
    fn a_refusal_asks_for_the_secret() {
        let said = report(
            &options(),
            DEFAULT_URL,
            StatusCode::UNAUTHORIZED,
            &Bytes::new(),
        );
        assert!(said.contains("x-webhook-secret"), "{said}");
        assert!(!said.contains("apikey"), "{said}");
    }

    #[test]
    fn goes_where_the_webhook_of_the_configuration_is() {
        let server = ServerConfig {
            listen: "0.0.0.0:9000".parse().unwrap(),
            ..ServerConfig::default()
        };
        let of = |keys: &str| Webhook::of(&Settings::from_text(keys), &server).unwrap();
        let plain = of("max_events = 3");
        assert_eq!(plain, Webhook::at("http://127.0.0.1:9000/webhook"));
        let keys = "path = '/in'\nsecret = 's3cret'\nsecret_header = 'X-Mine'";
        let Webhook { url, secret } = of(keys);
        assert_eq!(url, "http://127.0.0.1:9000/in");
        let (name, value) = secret.unwrap();
        assert_eq!(
            (name.as_str(), value.as_bytes()),
            ("x-mine", &b"s3cret"[..])
        );
    }

    #[test]
    fn what_listens_everywhere_is_here() {
        for (listen, place) in [
            ("0.0.0.0:9000", "127.0.0.1:9000"),
            ("[::]:9000", "[::1]:9000"),
            ("10.0.0.7:80", "10.0.0.7:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), place);
        }
    }

    #[test]
    fn reads_urls() {
        let target = target("http://[::1]:9/in?x=1").unwrap();
        assert_eq!(target.address, "[::1]:9");
        assert_eq!(target.path, "/in?x=1");
        assert!(
            super::target("https://a/")
                .unwrap_err()
                .contains("plain HTTP")
        );
        for bad in ["a", "ftp://a/", "http://"] {
            assert!(super::target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_data_and_headers() {
        assert_eq!(data("[1]"), Ok(serde_json::json!([1])));
        assert!(data("{").unwrap_err().starts_with("the data is not JSON"));
        assert!(
            data("@/no/such/file")
                .unwrap_err()
                .contains("/no/such/file")
        );
        let (name, value) = header("ApiKey: a: b").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("apikey", "a: b"));
        assert!(header("apikey").is_err());
    }
}

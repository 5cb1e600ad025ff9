//! `evows send`.

use std::io::{self, Read as _};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use tokio::net::TcpStream;

use super::{Exit, output};

/// How long connecting and answering may take.
const TIME_LIMIT: Duration = Duration::from_secs(15);

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
    /// The webhook source to send it to.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8080/webhook"
    )]
    url: String,
    /// A header to send along, such as `apikey: ...`. May be given several times.
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
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
pub(super) fn run(options: &Options) -> io::Result<Exit> {
    let prepared = target(&options.url).and_then(|target| Ok((target, data(&options.data)?)));
    let (target, data) = match prepared {
        Ok(prepared) => prepared,
        Err(message) => {
            output::complain(&message);
            return Ok(Exit::Usage);
        }
    };
    let body = envelope(options, data, SystemTime::now());
    let request = request(&target, &options.header, body);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let answer = runtime.block_on(async {
        let answer = tokio::time::timeout(TIME_LIMIT, exchange(&target, request)).await;
        answer.unwrap_or_else(|_| Err(SendError::TimeLimit(target.authority.clone())))
    });
    match answer {
        Ok((status, body)) => {
            output::print(&report(options, status, &body))?;
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

/// One envelope with the keys in the order of Evolution's webhook (contract 1.2).
fn envelope(options: &Options, data: Value, now: SystemTime) -> Bytes {
    let date_time = humantime::format_rfc3339_millis(now).to_string();
    let keys: Map<String, Value> = [
        ("event", Value::from(options.event.as_str())),
        ("instance", Value::from(options.instance.as_str())),
        ("data", data),
        ("destination", Value::from(options.url.as_str())),
        ("date_time", Value::from(date_time)),
        ("apikey", Value::Null),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect();
    Bytes::from(Value::Object(keys).to_string())
}

fn request(
    target: &Target,
    headers: &[(HeaderName, HeaderValue)],
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
        request.headers_mut().insert(name, value.clone());
    }
    request
}

fn report(options: &Options, status: StatusCode, body: &Bytes) -> String {
    let what = format!("{} of {}", options.event, options.instance);
    let outcome = match status.as_u16() {
        200..=299 => format!("{what} was accepted"),
        401 | 403 => format!("{what} was refused: give the key with `--header 'apikey: ...'`"),
        404 => format!(
            "{what} was not accepted: no webhook source has the path of {}",
            options.url
        ),
        503 => format!("{what} was not accepted: evows is full or stopping; send it again later"),
        _ => format!("{what} was not accepted"),
    };
    let body = String::from_utf8_lossy(body);
    let gap = if body.is_empty() { "" } else { "\n" };
    format!("{status}: {outcome}\n{}{gap}", body.trim_end())
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
            url: "http://127.0.0.1:8080/webhook".to_owned(),
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
                r#""destination":"http://127.0.0.1:8080/webhook","#,
                r#""date_time":"1970-01-01T00:00:01.500Z","apikey":null}"#
            )
        );
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

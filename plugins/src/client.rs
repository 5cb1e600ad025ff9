//! The HTTP client that plugins share: connections that are kept, HTTP/2 where the other side has it, proxies, and the guard.

mod connector;
mod guard;
#[cfg(test)]
pub(crate) mod server;

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use evows_core::plugin::Environment;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::header::PROXY_AUTHORIZATION;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use self::connector::Connector;
pub(crate) use self::guard::{Forbidden, Guard};

/// Where a URL comes from, which is what it may lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// From the file or the environment: anywhere.
    Operator,
    /// Set over the API: where the guard allows.
    Guarded,
}

/// What was answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// The body, or its beginning.
    pub(crate) body: Vec<u8>,
    /// Whether that is all of it.
    pub(crate) is_whole: bool,
}

/// What of an answer's body is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Take {
    /// Bytes.
    pub(crate) most: usize,
    /// How long reading may take once the status is there.
    pub(crate) within: Duration,
}

/// How often it is seen whether somebody is at the other end of an HTTP/2 connection with requests under way.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long a connection is kept that nothing is sent on.
const IDLE: Duration = Duration::from_secs(90);

/// How requests are made: over the network, or as a test has it.
#[async_trait]
pub(crate) trait Exchange: Send + Sync {
    /// Sends a request and reads the answer.
    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        trust: Trust,
        take: Take,
    ) -> Result<Answer, Failure>;
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The guard does not let it through.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// Nobody is there.
    #[error("no connection: {0}")]
    Unreachable(String),
    /// The connection ended before the answer did.
    #[error("no answer: {0}")]
    Broken(String),
}

/// How the network is reached.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) guard: Arc<Guard>,
    pub(crate) proxies: Option<Arc<Matcher>>,
    /// Certificates that are trusted beside those of the system.
    pub(crate) ca_file: Option<PathBuf>,
}

type Pool = Client<HttpsConnector<Connector>, Full<Bytes>>;

/// The two pools: a connection that was made without the guard is never used for a URL that needs it.
pub(crate) struct Http {
    open: Pool,
    guarded: Pool,
    proxies: Option<Arc<Matcher>>,
}

/// Why the certificates cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the certificates of `ca_file` {}: {reason}", .path.display())]
pub(crate) struct BadCertificates {
    path: PathBuf,
    reason: String,
}

// === impl Network ===

impl Network {
    /// A network in which every URL comes from the file, so that there is nothing to guard.
    pub(crate) fn of_operator(
        proxy: bool,
        ca_file: Option<PathBuf>,
        environment: &Environment,
    ) -> Self {
        Self {
            guard: Arc::default(),
            proxies: proxy.then(|| Arc::new(proxies(environment))),
            ca_file,
        }
    }
}

// === impl Take ===

impl Take {
    /// The beginning, of an answer whose status says it all: as much as it takes to use the connection again.
    pub(crate) const EXCERPT: Self = Self {
        most: 16 * 1024,
        within: Duration::from_secs(2),
    };
}

// === impl Http ===

impl Http {
    /// Reads the certificates and makes the pools. Blocks.
    pub(crate) fn new(network: &Network) -> Result<Self, BadCertificates> {
        let tls = tls(network.ca_file.as_deref())?;
        let pool = |guard| {
            let connector = Connector::new(guard, network.proxies.clone());
            let connector = HttpsConnectorBuilder::new()
                .with_tls_config(tls.clone())
                .https_or_http()
                .enable_all_versions()
                .wrap_connector(connector);
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                // A connection that is dead is not taken again: requests that time out reset a stream only.
                .http2_keep_alive_interval(KEEP_ALIVE)
                .http2_keep_alive_timeout(KEEP_ALIVE / 2)
                .pool_idle_timeout(IDLE)
                .http1_title_case_headers(true)
                .build(connector)
        };
        Ok(Self {
            open: pool(None),
            guarded: pool(Some(Arc::clone(&network.guard))),
            proxies: network.proxies.clone(),
        })
    }
}

#[async_trait]
impl Exchange for Http {
    async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
        trust: Trust,
        take: Take,
    ) -> Result<Answer, Failure> {
        // A proxy that requests are sent to as they are wants its password in each of them.
        if request.uri().scheme_str() == Some("http")
            && let Some(proxies) = &self.proxies
            && let Some(proxy) = proxies.intercept(request.uri())
            && let Some(password) = proxy.basic_auth()
        {
            let password = password.clone();
            request.headers_mut().insert(PROXY_AUTHORIZATION, password);
        }
        let pool = match trust {
            Trust::Operator => &self.open,
            Trust::Guarded => &self.guarded,
        };
        let response = pool.request(request).await.map_err(|error| {
            if let Some(forbidden) = find::<Forbidden>(&error) {
                return forbidden.clone().into();
            }
            let told = innermost(&error);
            if error.is_connect() {
                Failure::Unreachable(told)
            } else {
                Failure::Broken(told)
            }
        })?;
        let (parts, body) = response.into_parts();
        let (body, is_whole) = read(body, take).await;
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
            is_whole,
        })
    }
}

/// Reads what there is of a body, up to a point; and whether that is all of it.
async fn read(mut body: Incoming, take: Take) -> (Vec<u8>, bool) {
    let mut read = Vec::new();
    let until = Instant::now() + take.within;
    while read.len() < take.most {
        match timeout_at(until, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    let room = take.most - read.len();
                    let cut = data.len() > room;
                    read.extend_from_slice(&data[..data.len().min(room)]);
                    if cut {
                        return (read, false);
                    }
                }
            }
            Ok(None) => return (read, true),
            Ok(Some(Err(_))) | Err(_) => return (read, false),
        }
    }
    let is_whole = body.is_end_stream();
    (read, is_whole)
}

fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, BadCertificates> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    let (known, _) = roots.add_parsable_certificates(system.certs);
    if let Some(path) = ca_file {
        let bad = |reason: String| BadCertificates {
            path: path.to_owned(),
            reason,
        };
        let certificates = CertificateDer::pem_file_iter(path);
        let mut found = 0;
        for certificate in certificates.map_err(|error| bad(error.to_string()))? {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            let added = roots.add(certificate);
            added.map_err(|error| bad(error.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(bad("there is none in it".to_owned()));
        }
    } else if known == 0 {
        tracing::warn!(
            "this system has no certificates of authorities, so that no `https://` URL can be reached: install them (ca-certificates), or set `ca_file`"
        );
    }
    let provider = Arc::new(ring::default_provider());
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.expect("ring has the ciphers of every version");
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

/// The proxies that the environment names.
pub(crate) fn proxies(environment: &Environment) -> Matcher {
    // As curl has it: in a CGI program this would be a header of the request.
    let is_cgi = environment.get("REQUEST_METHOD").is_some();
    let read = |name: &str| {
        let value = environment.get(name);
        let value = value.or_else(|| environment.get(&name.to_ascii_lowercase()));
        value.unwrap_or_default().to_owned()
    };
    let http = if is_cgi {
        String::new()
    } else {
        read("HTTP_PROXY")
    };
    Matcher::builder()
        .all(read("ALL_PROXY"))
        .http(http)
        .https(read("HTTPS_PROXY"))
        .no(read("NO_PROXY"))
        .build()
}

/// The cause of this type.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    error
        .downcast_ref()
        .or_else(|| inside(error))
        .or_else(|| find(error.source()?))
}

/// What an I/O error was made of, which is not its source.
fn inside<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    error
        .downcast_ref::<io::Error>()?
        .get_ref()?
        .downcast_ref::<E>()
}

/// What the first of all causes says: those around it say no more than that something failed.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

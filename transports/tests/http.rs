//! The HTTP server over real sockets.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request};
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use evows_core::Shutdown;
use evows_core::config::{Period, ServerConfig, Size};
use evows_core::http::{BindError, Host, Mount, Peer, Routes};
use evows_core::metrics::Metrics;
use evows_transports::http::{Connection, Server};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

const OK: &str = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
const UPGRADE_REQUEST: &str =
    "GET /upgrade HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: test\r\n\r\n";

/// A server under test.
struct Running {
    address: SocketAddr,
    metrics: Metrics,
    shutdown: Shutdown,
    served: JoinHandle<()>,
}

/// A client that speaks HTTP by hand.
struct Client<S = TcpStream>(BufReader<S>);

struct Answer {
    status: u16,
    head: String,
    body: String,
}

// === impl Running ===

impl Running {
    async fn start(router: Router, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = ServerConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..ServerConfig::default()
        };
        change(&mut config);
        let metrics = Metrics::new();
        let bound = Server.bind(&Arc::new(config), &metrics).await.unwrap();
        let address = bound.address();
        let mounted = Routes::new(vec![Mount::new("test", "", router)]).unwrap();
        let shutdown = Shutdown::new();
        let served = tokio::spawn(bound.serve(mounted, shutdown.clone()));
        Self {
            address,
            metrics,
            shutdown,
            served,
        }
    }

    async fn connect(&self) -> Client {
        Client(BufReader::new(
            TcpStream::connect(self.address).await.unwrap(),
        ))
    }

    /// Waits until one was counted.
    async fn counted(&self, counter: &str, reason: &str) {
        let line = format!(r#"evows_{counter}_total{{component="http",reason="{reason}"}} 1"#);
        within(async {
            while !self.metrics.encode().contains(&line) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}

// === impl Client ===

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
        self.0.flush().await.unwrap();
    }

    async fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = within(self.0.read_line(&mut head)).await.unwrap();
            assert_ne!(read, 0, "closed after {head:?}");
        }
        head.to_ascii_lowercase()
    }

    async fn receive(&mut self) -> Answer {
        let head = self.head().await;
        let header = |name| head.lines().find_map(|line| line.strip_prefix(name));
        let length = header("content-length: ").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        within(self.0.read_exact(&mut body)).await.unwrap();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            body: String::from_utf8(body).unwrap(),
            head,
        }
    }

    async fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request).await;
        self.receive().await
    }

    /// Waits for the server to close, by whatever means.
    async fn closed(mut self) {
        let mut rest = Vec::new();
        match within(self.0.read_to_end(&mut rest)).await {
            Ok(_) => assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest)),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

// === impl Answer ===

impl Answer {
    fn has(&self, line: &str) -> bool {
        self.head.lines().any(|header| header == line)
    }

    fn mentions(&self, name: &str) -> bool {
        self.head.contains(&format!("\r\n{name}:"))
    }
}

/// Fails loudly instead of hanging.
async fn within<F: Future>(future: F) -> F::Output {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, future).await.expect("in time")
}

/// Hands every upgraded stream to the test, with its connection.
fn upgrading() -> (
    Router,
    mpsc::Receiver<(TokioIo<hyper::upgrade::Upgraded>, Connection)>,
) {
    let (upgrades, received) = mpsc::channel(8);
    let handler = async move |Extension(connection): Extension<Connection>,
                              mut request: Request| {
        tokio::spawn(async move {
            let stream = hyper::upgrade::on(&mut request).await.unwrap();
            upgrades
                .send((TokioIo::new(stream), connection))
                .await
                .unwrap();
        });
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "test")
            .body(Body::empty())
            .unwrap()
    };
    (Router::new().route("/upgrade", get(handler)), received)
}

#[tokio::test]
async fn a_connection_survives_every_error() {
    async fn boom() {
        panic!("on purpose");
    }
    let router = Router::new().route("/boom", get(boom));
    let server = Running::start(router, |_| {}).await;
    let mut client = server.connect().await;

    let answer = client
        .ask("GET /nope?x=1 HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    assert_eq!(answer.status, 404);
    assert!(answer.has("content-type: application/json"));
    assert_eq!(
        answer.body,
        r#"{"status":404,"error":"Not Found","response":{"message":["Cannot GET /nope?x=1"]}}"#
    );

    let answer = client
        .ask("PUT /boom HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        .await;
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains(r#"["Cannot PUT /boom"]"#));

    let answer = client.ask("GET /boom HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(answer.status, 500);
    assert!(answer.has("access-control-allow-origin: *"));
    assert_eq!(
        answer.body,
        r#"{"status":500,"error":"Internal Server Error","response":{"message":"Internal Server Error"}}"#
    );
    server.counted("refusals", "panic").await;

    let answer = client.ask(OK).await;
    assert_eq!((answer.status, &*answer.body), (200, r#"{"status":"ok"}"#));
}

#[tokio::test]
async fn cors_is_the_same_for_every_route() {
    let preflight = "OPTIONS /any HTTP/1.1\r\nhost: x\r\norigin: https://a.example\r\n\
        access-control-request-method: POST\r\naccess-control-request-headers: apikey,x-own\r\n\r\n";
    let from = |origin| format!("GET /healthz HTTP/1.1\r\nhost: x\r\norigin: {origin}\r\n\r\n");

    let server = Running::start(Router::new(), |_| {}).await;
    let mut client = server.connect().await;
    let answer = client.ask(preflight).await;
    assert_eq!((answer.status, &*answer.body), (204, ""));
    assert!(answer.has("access-control-allow-origin: *"));
    assert!(answer.has("access-control-allow-methods: get,head,put,patch,post,delete"));
    assert!(answer.has("access-control-allow-headers: apikey,x-own"));
    assert!(!answer.mentions("access-control-allow-credentials"));
    let answer = client.ask(from("https://a.example")).await;
    assert!(answer.has("access-control-allow-origin: *"));
    assert!(!answer.mentions("vary"));

    let listed = |config: &mut ServerConfig| {
        config.cors_origins = vec![
            "https://a.example".to_owned(),
            "https://b.example".to_owned(),
        ];
    };
    let server = Running::start(Router::new(), listed).await;
    let mut client = server.connect().await;
    let answer = client.ask(preflight).await;
    assert!(answer.has("access-control-allow-origin: https://a.example"));
    assert!(answer.has("vary: origin"));
    let answer = client.ask(from("https://b.example")).await;
    assert!(answer.has("access-control-allow-origin: https://b.example"));
    for request in [from("https://c.example"), OK.to_owned()] {
        let answer = client.ask(request).await;
        assert_eq!(answer.status, 200);
        assert!(answer.has("vary: origin"));
        assert!(!answer.mentions("access-control-allow-origin"));
    }
}

#[tokio::test]
async fn headers_must_arrive_in_time() {
    let short = |config: &mut ServerConfig| config.header_timeout = Period::millis(100);
    let server = Running::start(Router::new(), short).await;
    let mut slow = server.connect().await;
    slow.send("GET /healthz HTTP/1.1\r\nhost:").await;
    slow.closed().await;
    server.counted("refusals", "header_timeout").await;

    let server = Running::start(Router::new(), short).await;
    server.connect().await.closed().await;
    server.counted("refusals", "header_timeout").await;

    // An idle connection is closed too, but nothing is held against it.
    let server = Running::start(Router::new(), short).await;
    let mut idle = server.connect().await;
    idle.ask(OK).await;
    idle.closed().await;
    assert!(!server.metrics.encode().contains("header_timeout"));
}

#[tokio::test]
async fn large_headers_are_refused() {
    let small = |config: &mut ServerConfig| config.max_header_size = Size::kib(1);
    let server = Running::start(Router::new(), small).await;
    let mut client = server.connect().await;
    let padding = "x".repeat(1024);
    let request = format!("GET /healthz HTTP/1.1\r\nhost: x\r\npadding: {padding}\r\n\r\n");
    assert_eq!(client.ask(request).await.status, 431);
    server.counted("refusals", "header_too_large").await;

    let mut client = server.connect().await;
    assert_eq!(client.ask("what is this\r\n\r\n").await.status, 400);
    server.counted("refusals", "malformed_request").await;
}

#[tokio::test]
async fn connections_are_capped_through_upgrades() {
    let (router, mut upgrades) = upgrading();
    let one = |config: &mut ServerConfig| config.max_connections_per_address = 1;
    let server = Running::start(router.clone(), one).await;
    let mut first = server.connect().await;
    first.send(UPGRADE_REQUEST).await;
    assert!(first.head().await.starts_with("http/1.1 101"));
    let (stream, _) = within(upgrades.recv()).await.unwrap();
    server.connect().await.closed().await;
    server
        .counted("refusals", "too_many_connections_of_address")
        .await;
    drop(stream);
    first.closed().await;
    assert_eq!(server.connect().await.ask(OK).await.status, 200);

    // A proxy's connections are other people's; only the cap on all holds.
    let proxied = |config: &mut ServerConfig| {
        one(config);
        config.max_connections = 2;
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    };
    let server = Running::start(router, proxied).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    assert_eq!(first.ask(OK).await.status, 200);
    assert_eq!(second.ask(OK).await.status, 200);
    server.connect().await.closed().await;
    server.counted("refusals", "too_many_connections").await;
}

#[tokio::test]
async fn the_kill_switch_ends_both_directions_of_a_stalled_reader() {
    let (router, mut upgrades) = upgrading();
    let server = Running::start(router, |_| {}).await;
    let mut client = server.connect().await;
    client.send(UPGRADE_REQUEST).await;
    client.head().await;
    let (stream, connection) = within(upgrades.recv()).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let stalled = Arc::new(Notify::new());
    let reading = tokio::spawn(async move { reader.read_u8().await.map(drop) });
    let writing: JoinHandle<std::io::Result<()>> = tokio::spawn({
        let stalled = Arc::clone(&stalled);
        async move {
            let chunk = [0; 16 * 1024];
            loop {
                let mut writing = std::pin::pin!(writer.write(&chunk));
                let outcome = std::future::poll_fn(|cx| {
                    let outcome = writing.as_mut().poll(cx);
                    if outcome.is_pending() {
                        stalled.notify_one();
                    }
                    outcome
                });
                outcome.await?;
            }
        }
    });
    within(stalled.notified()).await;
    assert!(!connection.is_closed());
    assert!(connection.written() > 0);
    connection.close("too_slow");
    for half in [reading, writing] {
        let error = within(half).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
        assert_eq!(error.to_string(), "too_slow");
    }
    assert_eq!(connection.closed_reason(), Some("too_slow"));
}

#[tokio::test]
async fn a_peer_that_stops_reading_is_dropped_and_counted() {
    let endless = get(async || {
        let chunk = || Ok::<_, std::convert::Infallible>(Bytes::from_static(&[0; 16 * 1024]));
        Body::from_stream(futures_util::stream::repeat_with(chunk))
    });
    let router = Router::new().route("/endless", endless);
    let short = |config: &mut ServerConfig| config.tcp_user_timeout = Period::millis(200);
    let server = Running::start(router, short).await;
    let mut client = server.connect().await;
    client
        .send("GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    client.head().await;
    server.counted("clients_closed", "write_stalled").await;
}

#[tokio::test]
async fn the_client_is_who_the_proxy_says() {
    async fn who(Extension(peer): Extension<Peer>) -> Json<[String; 2]> {
        Json([peer.tcp.ip().to_string(), peer.client.to_string()])
    }
    let trusting = |config: &mut ServerConfig| {
        config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    };
    let request = "GET /who HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 1.1.1.1, 203.0.113.9\r\n\r\n";
    let router = Router::new().route("/who", get(who));
    let server = Running::start(router.clone(), trusting).await;
    let answer = server.connect().await.ask(request).await;
    assert_eq!(answer.body, r#"["127.0.0.1","203.0.113.9"]"#);
    let server = Running::start(router, |_| {}).await;
    let answer = server.connect().await.ask(request).await;
    assert_eq!(answer.body, r#"["127.0.0.1","127.0.0.1"]"#);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let server = Running::start(Router::new(), |_| {}).await;
    let config = Arc::new(ServerConfig {
        listen: server.address,
        ..ServerConfig::default()
    });
    let error = Server.bind(&config, &Metrics::new()).await.err().unwrap();
    assert!(matches!(error, BindError::InUse(address) if address == server.address));
}

#[tokio::test]
async fn stopping_waits_for_requests_and_for_nothing_else() {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = get({
        let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
        async move || {
            entered.notify_one();
            release.notified().await;
            "done"
        }
    });
    let (router, mut upgrades) = upgrading();
    // Long, so that only the stop can be what closes an idle connection.
    let patient = |config: &mut ServerConfig| config.header_timeout = Period::seconds(600);
    let server = Running::start(router.route("/slow", slow), patient).await;

    let mut follower = server.connect().await;
    follower.send(UPGRADE_REQUEST).await;
    follower.head().await;
    let (mut websocket, _) = within(upgrades.recv()).await.unwrap();
    let mut idle = server.connect().await;
    idle.ask(OK).await;
    let mut busy = server.connect().await;
    busy.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    within(entered.notified()).await;

    server.shutdown.start();
    idle.closed().await;
    within(async {
        while TcpStream::connect(server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!server.served.is_finished());
    release.notify_one();
    assert_eq!(busy.receive().await.body, "done");
    busy.closed().await;
    within(server.served).await.unwrap();

    // What became a WebSocket is left to its transport.
    websocket.write_all(b"still here").await.unwrap();
    let mut text = [0; 10];
    within(follower.0.read_exact(&mut text)).await.unwrap();
    assert_eq!(&text, b"still here");
}

#[tokio::test]
async fn health_says_that_the_server_is_stopping() {
    let entered = Arc::new(Notify::new());
    let parked = Arc::clone(&entered);
    let forever = get(async move || {
        parked.notify_one();
        std::future::pending::<()>().await;
    });
    let server = Running::start(Router::new().route("/forever", forever), |_| {}).await;
    let mut client = server.connect().await;
    client.send("GET /healthz HTTP/1.1\r\nhost: x\r\n").await;
    // A later connection is served, so the server has seen what came before.
    let mut later = server.connect().await;
    later.send("GET /forever HTTP/1.1\r\nhost: x\r\n\r\n").await;
    within(entered.notified()).await;
    server.shutdown.start();
    let answer = client.ask("\r\n").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body, r#"{"status":"stopping"}"#);
    // The caller's deadline ends what does not end by itself.
    assert!(!server.served.is_finished());
    server.served.abort();
    later.closed().await;
}

#[tokio::test]
async fn health_tells_what_is_down_and_this_machine_why() {
    let trust = |config: &mut ServerConfig| {
        config.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
    };
    let server = Running::start(Router::new(), trust).await;
    let down = &server.metrics;
    down.set_down(&"crm".into(), "no file".to_owned());
    let mut client = server.connect().await;
    let why = r#"{"status":"degraded","down":{"crm":"no file"}}"#;
    assert_eq!(client.ask(OK).await.body, why);
    let from_afar = OK.replace("host: x", "host: x\r\nx-forwarded-for: 203.0.113.9");
    let answer = client.ask(from_afar).await;
    assert_eq!(answer.body, why.replace("\"no file\"", "null"));
    assert_eq!(answer.status, 200);
    down.set_up(&"crm".into());
    assert_eq!(client.ask(OK).await.body, r#"{"status":"ok"}"#);
}

#[cfg(feature = "tls")]
mod tls {
    use evows_core::config::TlsConfig;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

    use super::*;

    struct Files {
        folder: tempfile::TempDir,
        certified: rcgen::CertifiedKey<rcgen::KeyPair>,
    }

    impl Files {
        fn new() -> Self {
            let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let files = Self { folder, certified };
            files.write("cert.pem", &files.certified.cert.pem());
            files.write("key.pem", &files.certified.signing_key.serialize_pem());
            files
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.folder.path().join(name), text).unwrap();
        }

        fn config(&self, cert: &str, key: &str) -> TlsConfig {
            TlsConfig {
                cert: self.folder.path().join(cert),
                key: self.folder.path().join(key),
            }
        }

        async fn refused(&self, cert: &str, key: &str) -> String {
            let config = ServerConfig {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                tls: Some(self.config(cert, key)),
                ..ServerConfig::default()
            };
            let bound = Server.bind(&Arc::new(config), &Metrics::new()).await;
            bound.err().unwrap().to_string()
        }
    }

    #[tokio::test]
    async fn serves_over_tls() {
        let files = Files::new();
        let with_tls = |config: &mut ServerConfig| {
            config.tls = Some(files.config("cert.pem", "key.pem"));
            config.header_timeout = Period::millis(500);
        };
        let server = Running::start(Router::new(), with_tls).await;
        let mut roots = RootCertStore::empty();
        roots.add(files.certified.cert.der().clone()).unwrap();
        let provider = Arc::new(crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = TcpStream::connect(server.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        let stream = within(connector.connect(name, stream)).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let mut client = Client(BufReader::new(stream));
        assert_eq!(client.ask(OK).await.body, r#"{"status":"ok"}"#);

        // Who does not speak TLS, or does not speak at all, is sent away.
        let mut plain = server.connect().await;
        plain.send(OK).await;
        server.counted("refusals", "tls_handshake").await;
        server.connect().await.closed().await;
        server.counted("refusals", "tls_handshake_timeout").await;
    }

    #[tokio::test]
    async fn errors_name_the_file_and_what_is_wrong() {
        let files = Files::new();
        let other = rcgen::KeyPair::generate().unwrap();
        files.write("other.pem", &other.serialize_pem());
        files.write("empty.pem", "");
        for (cert, key, expected) in [
            ("none.pem", "key.pem", ["none.pem", "cannot read"]),
            ("empty.pem", "key.pem", ["empty.pem", "no certificate"]),
            ("key.pem", "key.pem", ["key.pem", "no certificate"]),
            ("cert.pem", "none.pem", ["none.pem", "cannot read"]),
            ("cert.pem", "cert.pem", ["cert.pem", "no private key"]),
            ("cert.pem", "other.pem", ["other.pem", "does not belong"]),
        ] {
            let error = files.refused(cert, key).await;
            assert!(expected.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}

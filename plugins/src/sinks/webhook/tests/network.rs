//! Connections: kept, guarded, through proxies, encrypted.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use evows_core::plugin::{Sink, SinkErrorKind};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::rig::{LOCAL, Rig, event};
use crate::client::server::{Reply, Server};

#[tokio::test]
async fn a_connection_is_used_again() {
    let mut server = Server::new(|got| {
        // Whatever the answer is, and however it is read.
        let is_odd = got.json()["data"]["id"] == 1;
        Some(if is_odd {
            Reply("200 OK", "a body")
        } else {
            Reply("500 No", "another")
        })
    })
    .await;
    let rig = Rig::new(LOCAL).await;
    rig.enable("ana", &server.url("/a")).await;
    for _ in 0..20 {
        rig.send("instance/ana", event("call", "ana"))
            .await
            .unwrap();
        server.next().await;
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_body_that_never_ends_does_not_undo_the_status() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = format!("url = \"http://{}/\"\n", listener.local_addr().unwrap());
    let rig = Rig::new(&config).await;
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\nbegun";
        stream.write_all(head).await.unwrap();
        stream
    };
    let (sent, _stream) = tokio::join!(rig.send("global", event("call", "ana")), serve);
    sent.unwrap();
}

#[tokio::test]
async fn a_url_that_is_set_over_the_api_does_not_lead_to_this_machine() {
    let mut server = Server::ok().await;
    let port = server.address.port();
    // The very same URL is fine where the operator wrote it.
    let rig = Rig::new(&format!("url = \"{}\"\n", server.url(""))).await;
    rig.send("global", event("call", "ana")).await.unwrap();
    assert_eq!(server.left(), 1);
    for host in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "10.0.0.1",
        "169.254.169.254",
    ] {
        rig.enable("ana", &format!("http://{host}:{port}/")).await;
        let error = rig.fails("instance/ana").await;
        assert_eq!(error.kind, SinkErrorKind::Permanent, "{host}: {error}");
        assert!(
            error.to_string().contains("not a public address"),
            "{error}"
        );
    }
    assert_eq!((server.left(), server.connections()), (0, 1));

    let rig = Rig::new("allow_hosts = [\"localhost\"]\n").await;
    rig.enable("ana", &format!("http://localhost:{port}/"))
        .await;
    rig.send("instance/ana", event("call", "ana"))
        .await
        .unwrap();
    rig.enable("ana", &format!("http://127.0.0.1:{port}/"))
        .await;
    rig.fails("instance/ana").await;
    assert_eq!(server.left(), 1);
}

#[tokio::test]
async fn a_kept_connection_is_no_way_past_the_guard() {
    let mut server = Server::ok().await;
    let rig = Rig::new(&format!("url = \"{}\"\n", server.url("/"))).await;
    rig.send("global", event("call", "ana")).await.unwrap();
    rig.enable("ana", &server.url("/")).await;
    assert_eq!(
        rig.fails("instance/ana").await.kind,
        SinkErrorKind::Permanent
    );
    assert_eq!(server.left(), 1);
}

#[tokio::test]
async fn proxies_of_the_environment_are_used() {
    let mut proxy = Server::new(|got| {
        let is_tunnel = got.head.starts_with("CONNECT");
        Some(if is_tunnel {
            Reply("403 Forbidden", "")
        } else {
            Reply("200 OK", "")
        })
    })
    .await;
    let url = format!("http://me:secret@{}", proxy.address);
    let variables = [
        ("http_proxy", &*url),
        ("HTTPS_PROXY", &*url),
        ("NO_PROXY", "127.0.0.1"),
    ];
    let rig = Rig::with("url = \"http://somewhere.invalid/all\"\n", &variables).await;
    rig.send("global", event("call", "ana")).await.unwrap();
    let got = proxy.next().await;
    assert_eq!(got.target(), "http://somewhere.invalid/all");
    let password = Some("Basic bWU6c2VjcmV0");
    assert_eq!(got.header("proxy-authorization"), password);

    // The guard looks first, and at what is behind the proxy.
    rig.enable("ana", "http://10.0.0.1/").await;
    assert_eq!(
        rig.fails("instance/ana").await.kind,
        SinkErrorKind::Permanent
    );
    rig.enable("ana", "http://localhost/").await;
    assert_eq!(
        rig.fails("instance/ana").await.kind,
        SinkErrorKind::Permanent
    );
    rig.enable("ana", "http://1.1.1.1/x").await;
    rig.send("instance/ana", event("call", "ana"))
        .await
        .unwrap();
    assert_eq!(proxy.next().await.target(), "http://1.1.1.1/x");

    let rig = Rig::with("url = \"https://somewhere.invalid/all\"\n", &variables).await;
    let error = rig.fails("global").await;
    assert!(matches!(error.kind, SinkErrorKind::Overloaded { .. }));
    let got = proxy.next().await;
    assert_eq!(got.target(), "somewhere.invalid:443");
    assert_eq!(got.header("proxy-authorization"), password);

    let mut server = Server::ok().await;
    let config = format!("url = \"{}\"\n", server.url("/straight"));
    let rig = Rig::with(&config, &variables).await;
    rig.send("global", event("call", "ana")).await.unwrap();
    assert_eq!(server.next().await.target(), "/straight");
    let off = Rig::with(
        &format!("{config}proxy = false\n"),
        &[("HTTP_PROXY", &*url)],
    )
    .await;
    off.send("global", event("call", "ana")).await.unwrap();
    assert_eq!((server.left(), proxy.left()), (1, 0));
}

/// Serves TLS with HTTP/2, and tells what it got.
async fn secure(
    certified: &rcgen::CertifiedKey<rcgen::KeyPair>,
) -> (u16, mpsc::UnboundedReceiver<(Version, String, Bytes)>) {
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let chain = vec![certified.cert.der().clone()];
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let mut config = config
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let sender = sender.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let sender = sender.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let told = (parts.version, parts.uri.to_string(), body);
                    sender.send(told).unwrap();
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
                }
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    (port, requests)
}

#[tokio::test]
async fn an_endpoint_with_tls_is_spoken_to_in_http_2() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (port, mut requests) = secure(&certified).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, certified.cert.pem()).unwrap();
    let url = format!("url = \"https://localhost:{port}/all\"\n");
    let rig = Rig::new(&format!("{url}ca_file = \"{}\"\n", path.display())).await;
    rig.send("global", event("call", "ana")).await.unwrap();
    let (version, uri, body) = requests.recv().await.unwrap();
    assert_eq!(version, Version::HTTP_2);
    assert_eq!(uri, format!("https://localhost:{port}/all"));
    assert!(body.starts_with(br#"{"event":"call","#));

    // A certificate that nobody vouches for.
    let rig = Rig::new(&url).await;
    let error = rig.fails("global").await;
    assert!(error.to_string().contains("certificate"), "{error}");

    let config = format!(
        "{url}ca_file = \"{}\"\n",
        folder.path().join("none").display()
    );
    let rig = Rig::not_started(folder.path(), &config, &[]).await;
    let error = rig.sink.start().await.unwrap_err();
    assert!(
        error.to_string().contains("cannot read the certificates"),
        "{error}"
    );
}

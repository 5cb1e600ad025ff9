//! A hub, the transport and the HTTP server in this process, and clients that speak by hand.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use evows_core::access::{Access, Compat, Secret};
use evows_core::config::{ServerConfig, Settings};
use evows_core::http::{Host, Routes};
use evows_core::hub::{ChannelName, Hub, Retention};
use evows_core::metrics::Metrics;
use evows_core::plugin::{
    BuildContext, Environment, Lifecycle, Shared, Transport, TransportPlugin,
};
use evows_core::testing::SomeInstances;
use evows_core::{Shutdown, testing};
use evows_transports::http::Server;
use evows_transports::socketio::SocketIo;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub(super) const KEY: &str = "global-key";
pub(super) const TOKEN_A: &str = "token-of-a";

/// What a test waits for comes long before that, or never.
const PATIENCE: Duration = Duration::from_secs(20);

/// A transport under test.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) hub: Arc<Hub>,
    pub(super) metrics: Metrics,
    pub(super) transport: Arc<SocketIo>,
    shutdown: Shutdown,
}

/// A client on a WebSocket.
pub(super) struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// A client on long-polling.
pub(super) struct Poller {
    address: SocketAddr,
    pub(super) session: String,
}

/// What an HTTP request was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

// === impl Running ===

impl Running {
    /// Strict rules, this engine, these keys of the transport, every channel open.
    pub(super) async fn strict(engine: &str, keys: &str) -> Self {
        Self::start(engine, Compat::Strict, keys, &[], Retention::default()).await
    }

    pub(super) async fn start(
        engine: &str,
        compat: Compat,
        keys: &str,
        environment: &[(&str, &str)],
        retention: Retention,
    ) -> Self {
        let two = SomeInstances::default()
            .with_token("a", TOKEN_A)
            .with_token("b", "token-of-b");
        let lifecycle: Arc<dyn Lifecycle> = Arc::new(two);
        let access = Access::new(compat);
        access.set_global(Secret::new(KEY));
        access.set_lifecycle(Arc::clone(&lifecycle));
        let environment = environment.iter();
        let shared = Arc::new(Shared {
            hub: Arc::new(Hub::new(retention)),
            lifecycle: OnceLock::from(lifecycle),
            access: Arc::new(access),
            server: Arc::new(ServerConfig {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                compat,
                ..ServerConfig::default()
            }),
            metrics: Metrics::new(),
            environment: environment
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<Environment>(),
        });
        let cx = BuildContext::new("clients", Arc::clone(&shared));
        let config = Settings::from_text(&format!("engine = \"{engine}\"\n{keys}"))
            .read()
            .unwrap();
        let transport = Arc::new(SocketIo::build(config, &cx).unwrap());
        shared.hub.open(&ChannelName::root());
        Arc::clone(&transport).start().await.unwrap();
        for name in ["a", "b"] {
            shared.hub.open(&channel(name));
        }
        let bound = Server.bind(&shared.server, &shared.metrics).await.unwrap();
        let address = bound.address();
        let shutdown = Shutdown::new();
        let routes = Routes::new(cx.take_mounted().routes).unwrap();
        tokio::spawn(bound.serve(routes, shutdown.clone()));
        Self {
            address,
            hub: Arc::clone(&shared.hub),
            metrics: shared.metrics.clone(),
            transport,
            shutdown,
        }
    }

    /// Publishes one envelope to these channels.
    pub(super) fn publish(&self, envelope: &str, channels: &[ChannelName]) {
        self.hub.publish([(&testing::event(envelope), channels)]);
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        exchange(self.address, "GET", path, "", "").await
    }

    /// A WebSocket that has shaken hands with this in its query.
    pub(super) async fn websocket(&self, query: &str) -> Client {
        let mut client = Client::open(self.address, query).await;
        let open = client.text().await;
        assert!(open.starts_with(r#"0{"sid":""#), "{open}");
        client
    }

    /// A WebSocket with the global key that has joined a namespace.
    pub(super) async fn joined(&self, namespace: &str) -> Client {
        let mut client = self.websocket(&format!("apikey={KEY}")).await;
        client.join(namespace).await;
        client
    }

    /// A long-polling session.
    pub(super) async fn polling(&self, query: &str) -> Poller {
        let answer = self
            .get(&format!("/socket.io/?EIO=4&transport=polling&{query}"))
            .await;
        let (_, rest) = answer.body.split_once(r#""sid":""#).unwrap();
        let (session, _) = rest.split_once('"').unwrap();
        Poller {
            address: self.address,
            session: session.to_owned(),
        }
    }

    /// The counter of this transport with this reason.
    pub(super) fn counted(&self, counter: &str, reason: &str) -> u64 {
        let start = format!(r#"evows_{counter}_total{{component="clients",reason="{reason}"}} "#);
        let text = self.metrics.encode();
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.map_or(0, |number| number.parse().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.start();
    }
}

// === impl Client ===

impl Client {
    /// Opens a WebSocket; nothing was read from it yet.
    pub(super) async fn open(address: SocketAddr, query: &str) -> Self {
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket&{query}");
        let (socket, _) = within(connect_async(url)).await.unwrap();
        Self(socket)
    }

    pub(super) async fn send(&mut self, packet: &str) {
        self.0.send(Message::text(packet)).await.unwrap();
    }

    /// Sends several packets in one write.
    pub(super) async fn send_together(&mut self, packets: &[&str]) {
        for packet in packets {
            self.0.feed(Message::text(*packet)).await.unwrap();
        }
        self.0.flush().await.unwrap();
    }

    /// Joins a namespace.
    pub(super) async fn join(&mut self, namespace: &str) {
        let name = if namespace == "/" {
            String::new()
        } else {
            format!("{namespace},")
        };
        self.send(&format!("40{name}")).await;
        let reply = self.text().await;
        assert!(
            reply.starts_with(&format!(r#"40{name}{{"sid":""#)),
            "{reply}"
        );
    }

    /// The next text frame; pings are answered.
    pub(super) async fn text(&mut self) -> String {
        self.next()
            .await
            .expect("the connection is open")
            .into_text()
            .unwrap()
            .to_string()
    }

    /// The next message but pings; `None` when the connection is closed, in whatever way.
    pub(super) async fn next(&mut self) -> Option<Message> {
        loop {
            let message = self.frame().await?;
            if message != Message::text("2") {
                return Some(message);
            }
            // The server may have closed the connection after this ping; what it sent before can still be read.
            drop(self.0.send(Message::text("3")).await);
        }
    }

    /// As [`next`](Self::next), pings included.
    pub(super) async fn frame(&mut self) -> Option<Message> {
        match within(self.0.next()).await {
            Some(Ok(Message::Close(_)) | Err(_)) | None => None,
            Some(Ok(message)) => Some(message),
        }
    }

    /// Everything until the connection is closed.
    pub(super) async fn rest(&mut self) -> Vec<String> {
        let mut rest = Vec::new();
        while let Some(message) = self.next().await {
            rest.push(message.into_text().unwrap().to_string());
        }
        rest
    }
}

// === impl Poller ===

impl Poller {
    pub(super) fn path(&self) -> String {
        format!("/socket.io/?EIO=4&transport=polling&sid={}", self.session)
    }

    /// What waits for the client, or comes next.
    pub(super) async fn poll(&self) -> Answer {
        exchange(self.address, "GET", &self.path(), "", "").await
    }

    pub(super) async fn post(&self, body: &str) -> Answer {
        exchange(self.address, "POST", &self.path(), "", body).await
    }

    /// Polls until this comes, and gives the packets of that poll; pings are answered.
    pub(super) async fn until(&self, start: &str) -> Vec<String> {
        loop {
            let packets = self.answered().await;
            if packets.iter().any(|packet| packet.starts_with(start)) {
                return packets;
            }
        }
    }

    /// Polls until so many packets have come; pings are answered and do not count.
    pub(super) async fn packets(&self, count: usize) -> Vec<String> {
        let mut packets = Vec::new();
        while packets.len() < count {
            packets.extend(self.answered().await);
        }
        packets
    }

    /// The packets of one poll but pings, which are answered.
    async fn answered(&self) -> Vec<String> {
        let answer = self.poll().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let packets = answer.body.split('\x1e').map(str::to_owned);
        let (pings, packets): (Vec<_>, Vec<_>) = packets.partition(|packet| packet == "2");
        for _ in pings {
            self.post("3").await;
        }
        packets
    }
}

// === impl Answer ===

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

pub(super) fn channel(name: &str) -> ChannelName {
    ChannelName::of_instance(name).unwrap()
}

/// One request on a connection of its own.
pub(super) async fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&seen);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = lower_names(head);
            let answer = Answer {
                status: head.split(' ').nth(1).unwrap().parse().unwrap(),
                head,
                body: body.to_owned(),
            };
            let length = answer
                .header("content-length")
                .map_or(0, |n| n.parse().unwrap());
            if answer.body.len() >= length {
                return answer;
            }
        }
        let read = within(stream.read_buf(&mut seen)).await.unwrap();
        assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&seen));
    }
}

fn lower_names(head: &str) -> String {
    let lines = head.lines().map(|line| match line.split_once(": ") {
        Some((name, value)) => format!("{}: {value}", name.to_ascii_lowercase()),
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

pub(super) async fn within<F: Future>(future: F) -> F::Output {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.expect("what the test waits for comes in time")
}

/// Waits until a condition holds.
pub(super) async fn until(mut holds: impl FnMut() -> bool) {
    within(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

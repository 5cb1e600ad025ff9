//! A Socket.IO client that hides nothing: Engine.IO frames in, Engine.IO frames out.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async, connect_async};

use super::{Evows, KEY, PATIENCE};

/// A websocket after its handshake.
pub(crate) struct Frames(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// What came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Closed,
}

// === impl Frames ===

impl Frames {
    /// Connects with the global key and reads the handshake.
    pub(crate) async fn connect(evows: &Evows) -> Self {
        Self::connect_as(evows, &format!("&apikey={KEY}")).await.0
    }

    /// Connects with `query` added to the address; returns the handshake packet too.
    pub(crate) async fn connect_as(evows: &Evows, query: &str) -> (Self, String) {
        let opened = Self::open(evows.address(), query).await;
        let mut frames = opened.expect("the upgrade is accepted");
        match frames.next().await {
            Frame::Text(handshake) => (frames, handshake),
            other => panic!("not a handshake: {other:?}"),
        }
    }

    /// Connects with the global key through a small receive buffer, so that the server feels it soon when nobody reads.
    pub(crate) async fn connect_narrow(evows: &Evows) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4 * 1024).unwrap();
        socket.connect(&evows.address().into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        let stream = TcpStream::from_std(socket.into()).unwrap();
        let address = evows.address();
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket&apikey={KEY}");
        let opened = client_async(url, MaybeTlsStream::Plain(stream)).await;
        let mut frames = Self(opened.expect("the upgrade is accepted").0);
        frames.text().await;
        frames
    }

    async fn open(address: SocketAddr, query: &str) -> Result<Self, Error> {
        let url = format!("ws://{address}/socket.io/?EIO=4&transport=websocket{query}");
        connect_async(url).await.map(|(socket, _)| Self(socket))
    }

    /// Joins a namespace, which must be allowed.
    pub(crate) async fn join(&mut self, namespace: &str) {
        let prefix = prefix(namespace);
        self.send(&format!("40{prefix}")).await;
        let reply = self.text().await;
        assert!(
            reply.starts_with(&format!("40{prefix}{{\"sid\":\"")),
            "{reply}"
        );
    }

    pub(crate) async fn send(&mut self, packet: &str) {
        self.send_message(Message::text(packet)).await.unwrap();
    }

    pub(crate) async fn send_message(&mut self, message: Message) -> Result<(), Error> {
        self.0.send(message).await
    }

    /// The next packet, which must be text.
    pub(crate) async fn text(&mut self) -> String {
        match self.next().await {
            Frame::Text(text) => text,
            other => panic!("not a text frame: {other:?}"),
        }
    }

    /// The next packet; pings are answered and left out.
    pub(crate) async fn next(&mut self) -> Frame {
        let next = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) if text.as_str() == "2" => {
                        // Fails when the other side has closed by now; reading will tell.
                        drop(self.send_message(Message::text("3")).await);
                    }
                    Some(Ok(Message::Text(text))) => return Frame::Text(text.as_str().to_owned()),
                    Some(Ok(Message::Binary(bytes))) => return Frame::Binary(bytes.to_vec()),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Frame::Closed,
                    Some(Ok(_)) => {}
                }
            }
        };
        let next = tokio::time::timeout(PATIENCE, next).await;
        next.expect("nothing came for too long")
    }

    /// Reads up to the close, which must come.
    pub(crate) async fn closed(&mut self) {
        while self.next().await != Frame::Closed {}
    }
}

/// How a namespace is written in a packet: nothing for the root.
fn prefix(namespace: &str) -> String {
    if namespace == "/" {
        String::new()
    } else {
        format!("{namespace},")
    }
}

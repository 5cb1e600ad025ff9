//! HTTP as far as the load needs it.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// The most bytes of a request's head and body.
const MOST: usize = 2 * 1024 * 1024;

/// A connection between two requests.
pub(crate) struct Connection {
    stream: TcpStream,
    /// Read and not yet looked at.
    read: Vec<u8>,
}

/// What is asked.
pub(crate) enum Request {
    Get { path: String },
    Post { path: String, body: Vec<u8> },
    Upgrade { key: String },
}

// === impl Connection ===

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// The next request, or nothing when the peer is done.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Request>> {
        let end = loop {
            let end = self.read.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
            if !self.more().await? {
                return Ok(None);
            }
        };
        let rest = self.read.split_off(end);
        let head = std::mem::replace(&mut self.read, rest);
        let head = String::from_utf8(head).map_err(io::Error::other)?;
        let mut words = head.split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let path = words.next().unwrap_or_default().to_owned();
        if let Some(key) = header(&head, "sec-websocket-key") {
            let key = key.to_owned();
            return Ok(Some(Request::Upgrade { key }));
        }
        if method != "POST" {
            return Ok(Some(Request::Get { path }));
        }
        let length = header(&head, "content-length").and_then(|length| length.parse().ok());
        let length = length.ok_or_else(|| io::Error::other("the body has no length"))?;
        while self.read.len() < length {
            if !self.more().await? {
                return Ok(None);
            }
        }
        let rest = self.read.split_off(length);
        let body = std::mem::replace(&mut self.read, rest);
        Ok(Some(Request::Post { path, body }))
    }

    pub(crate) async fn answer(&mut self, status: &str) -> io::Result<()> {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        self.stream.write_all(answer.as_bytes()).await
    }

    /// Makes a websocket of it.
    pub(crate) async fn upgrade(mut self, key: &str) -> io::Result<TcpStream> {
        let accept = derive_accept_key(key.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.stream.write_all(answer.as_bytes()).await?;
        Ok(self.stream)
    }

    async fn more(&mut self) -> io::Result<bool> {
        if self.read.len() > MOST {
            return Err(io::Error::other("the request is too long"));
        }
        Ok(self.stream.read_buf(&mut self.read).await? > 0)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let found = headers.find(|(other, _)| other.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim())
}

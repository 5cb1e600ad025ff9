//! HTTP/1.1 by hand, so that tests see what is on the wire.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::PATIENCE;

/// A connection that stays open from request to request.
pub(crate) struct Connection(BufReader<TcpStream>);

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

// === impl Connection ===

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// A request and its answer, which must come.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let answered = self.try_request(method, path, headers, body).await;
        answered.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// A request and its answer, if one comes.
    pub(crate) async fn try_request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Reply> {
        let length = body.len().to_string();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n");
        for (name, value) in headers.iter().chain(&[("content-length", &*length)]) {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        // A server that refuses early may close before it has read everything; its answer counts.
        let sent = self
            .send(&[head.as_bytes(), body.as_bytes()].concat())
            .await;
        let reply = self.reply().await;
        reply.or_else(|error| sent.and(Err(error)))
    }

    /// Writes bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.get_mut().write_all(bytes).await
    }

    /// Reads one answer.
    pub(crate) async fn reply(&mut self) -> Result<Reply> {
        tokio::time::timeout(PATIENCE, self.read_reply()).await?
    }

    /// Waits for the other side to close.
    pub(crate) async fn closed(&mut self) {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest)).await;
        // A reset closes it as well as an end of file does.
        assert!(closed.is_ok(), "the connection stayed open");
    }

    async fn read_reply(&mut self) -> Result<Reply> {
        let status = self.line().await?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = code.ok_or_else(|| Error::new(ErrorKind::InvalidData, status))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Reply {
            status,
            headers,
            body: String::new(),
        };
        let body = self.body(&reply).await?;
        reply.body = String::from_utf8(body).expect("answers are text");
        Ok(reply)
    }

    async fn body(&mut self, reply: &Reply) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        if reply.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line().await?, 16).expect("a chunk's size");
                let mut chunk = vec![0; size + 2];
                self.0.read_exact(&mut chunk).await?;
                body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    return Ok(body);
                }
            }
        }
        if let Some(length) = reply.header("content-length") {
            body.resize(length.parse().expect("a length"), 0);
            self.0.read_exact(&mut body).await?;
        } else if reply.header("connection") == Some("close") {
            self.0.read_to_end(&mut body).await?;
        }
        Ok(body)
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

// === impl Reply ===

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {:?}", self.body))
    }
}

//! Just enough of HTTP to post and to ask.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A connection that stays open between requests.
pub(super) struct Http(BufReader<TcpStream>);

// === impl Http ===

impl Http {
    pub(super) async fn connect(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request and reads the whole answer; returns its status.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<u16> {
        self.0.get_mut().write_all(request).await?;
        let status = self.line().await?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("not an HTTP answer"))?;
        let mut length = 0;
        let mut chunked = false;
        loop {
            let header = self.line().await?.to_ascii_lowercase();
            match header.split_once(':') {
                Some(("content-length", value)) => {
                    length = value.trim().parse().map_err(io::Error::other)?;
                }
                Some(("transfer-encoding", _)) => chunked = true,
                Some(_) => {}
                None => break,
            }
        }
        if !chunked {
            self.skip(length).await?;
            return Ok(status);
        }
        loop {
            let size = usize::from_str_radix(&self.line().await?, 16).map_err(io::Error::other)?;
            self.skip(size + 2).await?;
            if size == 0 {
                return Ok(status);
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    async fn skip(&mut self, length: usize) -> io::Result<()> {
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        Ok(())
    }
}

/// Asks for `path`; returns the status.
pub(super) async fn get(server: SocketAddr, path: &str) -> io::Result<u16> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n\r\n");
    let mut http = Http::connect(server).await?;
    http.exchange(request.as_bytes()).await
}

/// Posts a JSON body with an API key; returns the status.
pub(super) async fn post(server: SocketAddr, path: &str, key: &str, body: &str) -> io::Result<u16> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {server}\r\napikey: {key}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut http = Http::connect(server).await?;
    http.exchange(request.as_bytes()).await
}

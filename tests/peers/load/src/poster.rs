//! Posts events over HTTP connections that stay open.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::client::Clients;

/// What is posted, and how fast.
pub(crate) struct Load {
    /// Bytes of an event.
    pub(crate) size: usize,
    /// Events posted but not yet delivered to every client.
    pub(crate) window: u32,
    /// Connections.
    pub(crate) posters: u32,
    /// Events per second over all connections; `None` for as many as the window allows.
    pub(crate) rate: Option<u32>,
}

// === impl Load ===

impl Load {
    /// Starts posting; it goes on until the process ends.
    pub(crate) async fn start(&self, server: SocketAddr, clients: &Rc<Clients>) -> io::Result<()> {
        clients.widen(self.window);
        let request = Rc::new(request(server, self.size));
        let pace = Rc::new(Pace::new(self.rate));
        for _ in 0..self.posters {
            let stream = TcpStream::connect(server).await?;
            stream.set_nodelay(true)?;
            let mut stream = BufReader::new(stream);
            let clients = Rc::clone(clients);
            let (request, pace) = (Rc::clone(&request), Rc::clone(&pace));
            tokio::task::spawn_local(async move {
                loop {
                    pace.wait().await;
                    clients.take_turn().await;
                    match exchange(&mut stream, &request).await {
                        Ok(200) => clients.accept_post(),
                        Ok(_) => clients.refuse_post(),
                        Err(error) => {
                            eprintln!("evows-load: posting ended: {error}");
                            return;
                        }
                    }
                }
            });
        }
        Ok(())
    }
}

/// Spreads events evenly over time.
struct Pace {
    step: Option<Duration>,
    next: Cell<tokio::time::Instant>,
}

// === impl Pace ===

impl Pace {
    fn new(rate: Option<u32>) -> Self {
        Self {
            step: rate.map(|rate| Duration::from_secs(1) / rate),
            next: Cell::new(tokio::time::Instant::now()),
        }
    }

    async fn wait(&self) {
        if let Some(step) = self.step {
            let mine = self.next.get();
            self.next.set(mine + step);
            tokio::time::sleep_until(mine).await;
        }
    }
}

/// Whether the server answers `/healthz` with 200.
pub(crate) async fn is_healthy(server: SocketAddr) -> bool {
    let Ok(stream) = TcpStream::connect(server).await else {
        return false;
    };
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {server}\r\n\r\n");
    let answer = exchange(&mut BufReader::new(stream), request.as_bytes()).await;
    answer.is_ok_and(|status| status == 200)
}

/// Sends a request and reads the whole answer; returns its status.
async fn exchange(stream: &mut BufReader<TcpStream>, request: &[u8]) -> io::Result<u16> {
    stream.get_mut().write_all(request).await?;
    let status = line(stream).await?;
    let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("not an HTTP answer"))?;
    let mut length = 0;
    let mut chunked = false;
    loop {
        let header = line(stream).await?.to_ascii_lowercase();
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
        skip(stream, length).await?;
        return Ok(status);
    }
    loop {
        let size = usize::from_str_radix(&line(stream).await?, 16).map_err(io::Error::other)?;
        skip(stream, size + 2).await?;
        if size == 0 {
            return Ok(status);
        }
    }
}

async fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

async fn skip(stream: &mut BufReader<TcpStream>, length: usize) -> io::Result<()> {
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(())
}

/// A whole request with an envelope of `size` bytes, or the smallest that there is.
fn request(server: SocketAddr, size: usize) -> Vec<u8> {
    let envelope = |text: &str| {
        json!({
            "event": "messages.upsert",
            "instance": "loja1",
            "data": {
                "key": {"remoteJid": "5511988887777@s.whatsapp.net", "fromMe": false, "id": "3EB0C767D097B7"},
                "message": {"conversation": text},
                "messageType": "conversation",
                "messageTimestamp": 1_761_057_639,
            },
            "server_url": "http://localhost:8080",
            "date_time": "2025-10-21T14:40:39.123Z",
            "sender": "5511999990000@s.whatsapp.net",
            "apikey": null,
        })
        .to_string()
    };
    let padding = size.saturating_sub(envelope("").len());
    let body = envelope(&"x".repeat(padding));
    format!(
        "POST /webhook HTTP/1.1\r\nHost: {server}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

//! An HTTP/1.1 server by hand: it shows the bytes of each request, and answers what it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// How long anything may take that should take no time.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: mpsc::UnboundedReceiver<Got>,
}

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Got {
    /// Up to the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// What is answered; the head without its length, and the body.
#[derive(Debug, Clone)]
pub(crate) struct Reply(pub(crate) &'static str, pub(crate) &'static str);

pub(crate) const OK: Reply = Reply("200 OK", "");

type Answers = Arc<dyn Fn(&Got) -> Option<Reply> + Send + Sync>;

// === impl Server ===

impl Server {
    /// Answers 200 to everything.
    pub(crate) async fn ok() -> Self {
        Self::new(|_| Some(OK)).await
    }

    /// Answers what the function says; with `None` it never answers.
    pub(crate) async fn new(
        answers: impl Fn(&Got) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let answers: Answers = Arc::new(answers);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, sender.clone(), Arc::clone(&answers)));
            }
        });
        Self {
            address,
            connections,
            requests,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn next(&mut self) -> Got {
        let got = tokio::time::timeout(PATIENCE, self.requests.recv()).await;
        got.expect("a request comes").expect("the server runs")
    }

    /// The requests that came and were not taken.
    pub(crate) fn left(&mut self) -> usize {
        std::iter::from_fn(|| self.requests.try_recv().ok()).count()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve(stream: TcpStream, requests: mpsc::UnboundedSender<Got>, answers: Answers) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        let mut line = String::new();
        while let Ok(length) = stream.read_line(&mut line).await {
            if length == 0 {
                return;
            }
            head.push_str(&line);
            if line == "\r\n" {
                break;
            }
            line.clear();
        }
        let mut got = Got {
            head,
            body: Vec::new(),
        };
        let length = got.header("content-length");
        let length = length.map_or(0, |length| length.parse().unwrap());
        got.body.resize(length, 0);
        if stream.read_exact(&mut got.body).await.is_err() {
            return;
        }
        let reply = answers(&got);
        requests.send(got).ok();
        let Some(Reply(head, body)) = reply else {
            std::future::pending::<()>().await;
            return;
        };
        let length = body.len();
        let text = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}");
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

// === impl Got ===

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1);
        lines.find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// What stands behind `POST`.
    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

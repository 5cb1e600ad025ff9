//! Takes lines over TCP, an envelope each, and answers each with a line: `ok` once the event is accepted, or why not.
//!
//! ```toml
//! [sources.in]
//! type = "tcp_lines"
//! listen = "127.0.0.1:7002"
//! ```

use std::net::SocketAddr;
use std::time::SystemTime;

use evows::bytes::Bytes;
use evows::config::Size;
use evows::plugin::{BuildContext, BuildError, Source, SourceError, SourcePlugin};
use evows::schemars::JsonSchema;
use evows::serde::Deserialize;
use evows::tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use evows::tokio::net::{TcpListener, TcpStream};
use evows::tokio::task::JoinSet;
use evows::topology::Outlet;
use evows::tracing;
use evows::{Event, Shutdown, async_trait, register_source, tokio};

/// Its keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(crate = "evows::serde", deny_unknown_fields, default)]
#[schemars(crate = "evows::schemars")]
struct Config {
    /// Where it listens: address and port.
    #[schemars(with = "String")]
    listen: SocketAddr,
    /// Size of one line; whoever sends a longer one is cut off.
    max_line: Size,
}

/// The source, before it runs.
struct TcpLines {
    listen: SocketAddr,
    max_line: u64,
}

register_source!(
    TcpLines,
    summary = "Takes lines over TCP, an envelope each.",
    example = "listen = \"127.0.0.1:7002\"\nmax_line = \"8MiB\"\n",
);

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7002)),
            max_line: Size::mib(8),
        }
    }
}

impl SourcePlugin for TcpLines {
    const NAME: &'static str = "tcp_lines";
    type Config = Config;

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self {
            listen: config.listen,
            max_line: config.max_line.0,
        })
    }
}

#[async_trait]
impl Source for TcpLines {
    async fn run(self: Box<Self>, outlet: Outlet, shutdown: Shutdown) -> Result<(), SourceError> {
        // An error here, and core builds the source again and tries once more: the port may be free by then.
        let listener = TcpListener::bind(self.listen).await.map_err(|error| {
            SourceError::with_source(format!("cannot listen on {}", self.listen), error)
        })?;
        // Connections end with the set.
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, peer) = accepted
                        .map_err(|error| SourceError::with_source("cannot accept", error))?;
                    let serving = serve(stream, outlet.clone(), self.max_line);
                    connections.spawn(async move {
                        if let Err(error) = serving.await {
                            tracing::warn!(%peer, %error, "a connection broke off");
                        }
                    });
                }
                // Those that have ended leave the set.
                Some(_) = connections.join_next() => {}
                () = shutdown.started() => return Ok(()),
            }
        }
    }
}

/// Answers the lines of one connection, one after the other.
async fn serve(stream: TcpStream, mut outlet: Outlet, max_line: u64) -> std::io::Result<()> {
    let mut stream = BufStream::new(stream);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut stream).take(max_line);
        if limited.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        if !line.ends_with(b"\n") {
            stream
                .write_all(b"the line is too long, or has no end\n")
                .await?;
            return stream.shutdown().await;
        }
        let envelope = Bytes::copy_from_slice(line.trim_ascii_end());
        let answer = match Event::parse(envelope, SystemTime::now()) {
            Err(error) => error.to_string(),
            // Whoever sends it may forget it once this says so, and not before.
            Ok(event) => match outlet.send_tracked(vec![event]).await.await {
                outcome if outcome.is_accepted() => "ok".to_owned(),
                outcome => format!("{}: send it again", outcome.as_str()),
            },
        };
        stream.write_all(format!("{answer}\n").as_bytes()).await?;
        stream.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use evows::Outcome;
    use evows::testing::SourceHarness;

    use super::*;

    /// Connects as soon as the source listens.
    async fn connect(address: SocketAddr) -> BufStream<TcpStream> {
        loop {
            if let Ok(stream) = TcpStream::connect(address).await {
                return BufStream::new(stream);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn send(stream: &mut BufStream<TcpStream>, line: &str) {
        stream.write_all(line.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }

    async fn answer(stream: &mut BufStream<TcpStream>) -> String {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }

    async fn source() -> (SourceHarness, SocketAddr) {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let keys = format!("listen = '{address}'\nmax_line = '100B'");
        (SourceHarness::from_toml::<TcpLines>(&keys), address)
    }

    #[tokio::test(crate = "evows::tokio")]
    async fn the_answer_is_how_the_event_ended() {
        let (mut source, address) = source().await;
        let mut stream = connect(address).await;
        for (outcome, expected) in [
            (Outcome::Delivered, "ok"),
            (Outcome::Filtered, "ok"),
            (Outcome::Failed, "failed: send it again"),
        ] {
            send(&mut stream, "{\"event\":\"call\",\"instance\":\"i\"}\n").await;
            source.take(1, outcome).await;
            assert_eq!(answer(&mut stream).await, expected);
        }
        source.stop().await.1.unwrap();
    }

    #[tokio::test(crate = "evows::tokio")]
    async fn what_is_no_envelope_is_refused_and_the_connection_stays() {
        let (source, address) = source().await;
        let mut stream = connect(address).await;
        send(&mut stream, "hello\n").await;
        assert!(answer(&mut stream).await.contains("not an event envelope"));
        send(&mut stream, &"x".repeat(200)).await;
        assert!(answer(&mut stream).await.contains("too long"));
        // Nobody is waited for: the connection is open while the source stops.
        source.stop().await.1.unwrap();
    }
}

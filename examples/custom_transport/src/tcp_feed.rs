//! Serves a channel over TCP: a client sends a line, and gets a line for each event.
//!
//! The client says `<key> <channel> [<since>]`: a key, `/` or `/<instance>`, and where to begin (a position, a time, `-5m`,
//! `earliest`; without it, with what comes next). It gets `<position> <envelope>`, and `gap <position>` where events are gone
//! that it should have had.
//!
//! ```toml
//! [transports.feed]
//! type = "tcp_feed"
//! listen = "127.0.0.1:7005"
//! ```

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use evows::access::Access;
use evows::hub::{Channel, Entry, Hub, Resume, Since, Start};
use evows::plugin::{BuildContext, BuildError, Transport, TransportError, TransportPlugin};
use evows::schemars::JsonSchema;
use evows::serde::Deserialize;
use evows::tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use evows::tokio::net::{TcpListener, TcpStream};
use evows::tokio::sync::watch;
use evows::tokio::time::timeout;
use evows::{Shutdown, async_trait, register_transport, tokio, tracing};

/// Time for a client to say what it wants.
const GREETING: Duration = Duration::from_secs(10);
/// Bytes of what it says.
const MOST_GREETING: u64 = 1024;
/// Time for a client to take what it was sent. Meanwhile it costs nothing: what waits for it is in the log.
const PATIENCE: Duration = Duration::from_secs(30);
/// Events that are written together.
const MOST: usize = 64;

/// Its keys.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(crate = "evows::serde", deny_unknown_fields, default)]
#[schemars(crate = "evows::schemars")]
struct Config {
    /// Where it listens: address and port.
    #[schemars(with = "String")]
    listen: SocketAddr,
}

/// The transport.
struct TcpFeed {
    listen: SocketAddr,
    hub: Arc<Hub>,
    access: Arc<Access>,
    /// Each client, and how it is told to go.
    clients: watch::Sender<BTreeMap<u64, Shutdown>>,
    draining: Shutdown,
}

/// A client among the others, for as long as it is connected.
struct Counted<'a> {
    feed: &'a TcpFeed,
    number: u64,
    leave: Shutdown,
}

register_transport!(
    TcpFeed,
    summary = "Serves a channel to each client as lines over TCP.",
    example = "listen = \"127.0.0.1:7005\"\n",
);

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7005)),
        }
    }
}

impl TransportPlugin for TcpFeed {
    const NAME: &'static str = "tcp_feed";
    type Config = Config;

    fn build(config: Config, cx: &BuildContext) -> Result<Self, BuildError> {
        Ok(Self {
            listen: config.listen,
            hub: Arc::clone(cx.hub()),
            access: Arc::clone(cx.access()),
            clients: watch::Sender::default(),
            draining: Shutdown::new(),
        })
    }
}

#[async_trait]
impl Transport for TcpFeed {
    async fn start(self: Arc<Self>) -> Result<(), TransportError> {
        let listener = TcpListener::bind(self.listen).await.map_err(|error| {
            TransportError::new(format!("cannot listen on {}", self.listen), error)
        })?;
        tokio::spawn(self.accept(listener));
        Ok(())
    }

    fn clients(&self) -> usize {
        self.clients.borrow().len()
    }

    async fn drain(&self, over: Duration) {
        // First nobody new, then one after the other, so that they do not all come back at once.
        self.draining.start();
        let leaving: Vec<_> = self.clients.borrow().values().cloned().collect();
        let pause = over / u32::try_from(leaving.len()).unwrap_or(u32::MAX).max(1);
        for client in leaving {
            client.start();
            tokio::time::sleep(pause).await;
        }
        let mut clients = self.clients.subscribe();
        // It cannot fail: the sender is here.
        clients.wait_for(BTreeMap::is_empty).await.ok();
    }
}

impl TcpFeed {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut number = 0;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.draining.started() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    number += 1;
                    let feed = Arc::clone(&self);
                    tokio::spawn(async move {
                        if let Err(error) = feed.serve(stream, number).await {
                            tracing::debug!(%peer, %error, "a client is gone");
                        }
                    });
                }
                Err(error) => {
                    // Such as no more file descriptors: others have to close theirs first.
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve(&self, stream: TcpStream, number: u64) -> io::Result<()> {
        let mut stream = BufStream::new(stream);
        let mut wish = String::new();
        let mut limited = (&mut stream).take(MOST_GREETING);
        timeout(GREETING, limited.read_line(&mut wish)).await??;
        let (channel, since) = match self.admit(&wish) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                stream.write_all(format!("{refusal}\n").as_bytes()).await?;
                return stream.shutdown().await;
            }
        };
        let client = Counted::new(self, number);
        let (mut reader, mut writer) = tokio::io::split(stream);
        tokio::select! {
            served = follow(&mut writer, &channel, since) => served?,
            // Clients say nothing more: one that does, or closes, has had enough.
            read = reader.read_u8() => return read.map(drop),
            () = client.leave.started() => {}
        }
        writer.shutdown().await
    }

    /// Which channel a client may follow, and from where. The error is what it is told.
    fn admit(&self, wish: &str) -> Result<(Arc<Channel>, Option<Since>), String> {
        let mut words = wish.split_whitespace();
        let key = words.next().unwrap_or_default();
        let identity = self.access.identify(key).ok_or("the key is wrong")?;
        let channel = self.hub.find(words.next().unwrap_or("/"));
        // To a key that may not follow it, a channel does not exist.
        let channel = channel.filter(|it| self.access.may_follow(&identity, it.name()));
        let channel = channel.ok_or("there is no such channel")?;
        let since = words.next().map(str::parse).transpose();
        Ok((channel, since.map_err(|error| format!("{error}"))?))
    }
}

/// Writes a channel's events, until it is closed or the client takes nothing.
async fn follow(
    stream: &mut (impl AsyncWrite + Unpin),
    channel: &Arc<Channel>,
    since: Option<Since>,
) -> io::Result<()> {
    let resume = match since {
        Some(since) => channel.resume(&since),
        None => Resume::at_head(channel.head()),
    };
    let mut cursor = channel.follow(Start::Resume(resume));
    let mut entries: Vec<Arc<Entry>> = Vec::new();
    while cursor.ready().await {
        let mut lines = Vec::new();
        if let Some(gap) = cursor.read(MOST, &mut entries) {
            lines.extend_from_slice(format!("gap {}\n", gap.through).as_bytes());
        }
        for entry in entries.drain(..) {
            lines.extend_from_slice(format!("{} ", entry.position).as_bytes());
            let envelope = entry.event.envelope().iter();
            lines.extend(envelope.filter(|byte| !matches!(byte, b'\r' | b'\n')));
            lines.push(b'\n');
        }
        timeout(PATIENCE, async {
            stream.write_all(&lines).await?;
            stream.flush().await
        })
        .await??;
    }
    Ok(())
}

impl<'a> Counted<'a> {
    fn new(feed: &'a TcpFeed, number: u64) -> Self {
        let leave = Shutdown::new();
        feed.clients.send_modify(|clients| {
            clients.insert(number, leave.clone());
        });
        // Who came in while the others were told to go has missed that.
        if feed.draining.is_started() {
            leave.start();
        }
        Self {
            feed,
            number,
            leave,
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.feed.clients.send_modify(|clients| {
            clients.remove(&self.number);
        });
    }
}

#[cfg(test)]
mod tests {
    use evows::testing::{SomeInstances, TransportHarness, event};

    use super::*;

    const EVENT: &str = r#"{"event":"call","instance":"a"}"#;

    async fn harness() -> (TransportHarness, SocketAddr) {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let instances = SomeInstances::default().with_token("a", "token-of-a");
        let keys = format!("listen = '{address}'");
        let harness = TransportHarness::with_instances::<TcpFeed>(&keys, Arc::new(instances));
        (harness.await.unwrap(), address)
    }

    async fn connect(address: SocketAddr, wish: &str) -> BufStream<TcpStream> {
        let mut stream = BufStream::new(TcpStream::connect(address).await.unwrap());
        stream
            .write_all(format!("{wish}\n").as_bytes())
            .await
            .unwrap();
        stream.flush().await.unwrap();
        stream
    }

    /// The next line; empty at the end.
    async fn line(stream: &mut BufStream<TcpStream>) -> String {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }

    #[tokio::test(crate = "evows::tokio")]
    async fn a_client_gets_what_comes_and_what_it_missed() {
        let (harness, address) = harness().await;
        let key = TransportHarness::KEY;
        let mut client = connect(address, &format!("{key} /a")).await;
        harness.clients_are(1).await;
        let first = harness.publish("/a", &event(EVENT));
        assert_eq!(line(&mut client).await, format!("{first} {EVENT}"));
        drop(client);

        let second = harness.publish("/a", &event(EVENT));
        let mut client = connect(address, &format!("{key} /a {first}")).await;
        assert_eq!(line(&mut client).await, format!("{second} {EVENT}"));
        harness.drain(Duration::from_millis(10)).await;
        assert_eq!(line(&mut client).await, "");
    }

    #[tokio::test(crate = "evows::tokio")]
    async fn a_token_opens_its_own_channel_only() {
        let (_harness, address) = harness().await;
        for (wish, answer) in [
            ("", "the key is wrong"),
            ("nonsense /", "the key is wrong"),
            ("token-of-a /", "there is no such channel"),
            ("token-of-a /b", "there is no such channel"),
        ] {
            let mut client = connect(address, wish).await;
            assert_eq!(line(&mut client).await, answer, "{wish}");
        }
        let mut client = connect(address, "token-of-a /a tomorrow").await;
        assert!(line(&mut client).await.contains("`since` is a position"));
    }
}

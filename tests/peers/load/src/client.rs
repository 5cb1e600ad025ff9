//! Socket.IO websocket clients that count what they receive.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::frames::Frames;

/// Handshakes under way at a time.
const AT_ONCE: usize = 100;
/// Time for one client to connect and join.
const CONNECT_TIME: Duration = Duration::from_secs(30);

thread_local! {
    /// Read into by one client at a time and looked at before the next: nothing is kept in it.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 * 1024]);
}

/// Where clients connect.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) server: SocketAddr,
    pub(crate) key: String,
    pub(crate) namespace: String,
}

/// What all clients together have seen.
pub(crate) struct Clients {
    count: u64,
    delivered: Cell<u64>,
    closed: Cell<u64>,
    /// Bytes received, frames' headers included.
    bytes: Cell<u64>,
    posts_accepted: Cell<u64>,
    posts_refused: Cell<u64>,
    /// Events that may still be posted: given back when every client has one.
    window: Semaphore,
}

/// One client's end of a connection.
struct Client {
    stream: TcpStream,
    frames: Frames,
}

/// What one read brought.
#[derive(Default)]
struct Seen {
    events: u64,
    bytes: u64,
    pings: u32,
    /// The last thing that happened to the connection itself.
    change: Option<Change>,
}

/// What can happen to a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Opened,
    Joined,
    Refused,
    Closed,
}

// === impl Clients ===

impl Clients {
    /// Connects `count` clients and leaves them receiving.
    pub(crate) async fn connect(target: &Target, count: u32) -> io::Result<Rc<Self>> {
        let clients = Rc::new(Self {
            count: count.into(),
            delivered: Cell::new(0),
            closed: Cell::new(0),
            bytes: Cell::new(0),
            posts_accepted: Cell::new(0),
            posts_refused: Cell::new(0),
            window: Semaphore::new(0),
        });
        let at_once = Rc::new(Semaphore::new(AT_ONCE));
        let mut joining = JoinSet::new();
        for _ in 0..count {
            let (at_once, target) = (Rc::clone(&at_once), target.clone());
            joining.spawn_local(async move {
                let _turn = at_once.acquire().await.expect("never closed");
                tokio::time::timeout(CONNECT_TIME, Client::connect(&target)).await?
            });
        }
        while let Some(joined) = joining.join_next().await {
            let client = joined.expect("joining does not panic")?;
            let clients = Rc::clone(&clients);
            tokio::task::spawn_local(async move { client.receive(&clients).await });
        }
        Ok(clients)
    }

    /// Events received, over all clients.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.get()
    }

    /// Clients that the server closed.
    pub(crate) fn closed(&self) -> u64 {
        self.closed.get()
    }

    /// Bytes received, over all clients.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Posts that were answered with 200.
    pub(crate) fn posts_accepted(&self) -> u64 {
        self.posts_accepted.get()
    }

    /// Counts a post that was answered with 200.
    pub(crate) fn accept_post(&self) {
        self.posts_accepted.set(self.posts_accepted.get() + 1);
    }

    /// Posts that were not answered with 200.
    pub(crate) fn posts_refused(&self) -> u64 {
        self.posts_refused.get()
    }

    /// Lets `events` more be posted.
    pub(crate) fn widen(&self, events: u32) {
        self.window.add_permits(events as usize);
    }

    /// Waits until one more event may be posted.
    pub(crate) async fn take_turn(&self) {
        self.window.acquire().await.expect("never closed").forget();
    }

    /// Counts a post that was refused, whose event nobody will receive.
    pub(crate) fn refuse_post(&self) {
        self.posts_refused.set(self.posts_refused.get() + 1);
        self.widen(1);
    }

    fn deliver(&self, events: u64) {
        let before = self.delivered.get();
        let after = before + events;
        self.delivered.set(after);
        let complete = after / self.count - before / self.count;
        if complete > 0 {
            self.widen(u32::try_from(complete).expect("no more than the window"));
        }
    }
}

// === impl Client ===

impl Client {
    async fn connect(target: &Target) -> io::Result<Self> {
        let Target {
            server,
            key,
            namespace,
        } = target;
        let mut stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let key = match key.as_str() {
            "" => String::new(),
            key => format!("&apikey={key}"),
        };
        let request = format!(
            "GET /socket.io/?EIO=4&transport=websocket{key} HTTP/1.1\r\nHost: {server}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        read_head(&mut stream).await?;
        let mut client = Self {
            stream,
            frames: Frames::default(),
        };
        loop {
            match client.read().await?.change {
                Some(Change::Opened) => break,
                Some(_) => return Err(io::Error::other("the connection was refused")),
                None => {}
            }
        }
        let join = match namespace.as_str() {
            "/" => "40".to_owned(),
            other => format!("40{other},"),
        };
        client.send(&join).await?;
        loop {
            match client.read().await?.change {
                Some(Change::Joined) => return Ok(client),
                Some(Change::Refused | Change::Closed) => {
                    return Err(io::Error::other(format!("{namespace} was refused")));
                }
                Some(Change::Opened) | None => {}
            }
        }
    }

    async fn receive(mut self, clients: &Clients) {
        loop {
            match self.read().await {
                Ok(seen) if seen.change != Some(Change::Closed) => {
                    clients.bytes.set(clients.bytes.get() + seen.bytes);
                    clients.deliver(seen.events);
                }
                _ => break,
            }
        }
        clients.closed.set(clients.closed.get() + 1);
    }

    /// Reads what is there and answers pings.
    async fn read(&mut self) -> io::Result<Seen> {
        let mut seen = Seen::default();
        loop {
            self.stream.readable().await?;
            let read = BUFFER.with_borrow_mut(|buffer| {
                let count = self.stream.try_read(buffer)?;
                self.frames
                    .read(&buffer[..count], |opcode, start| seen.note(opcode, start));
                Ok::<_, io::Error>(count)
            });
            match read {
                Ok(0) => seen.change = Some(Change::Closed),
                Ok(count) => seen.bytes = count as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            break;
        }
        for _ in 0..seen.pings {
            self.send("3").await?;
        }
        Ok(seen)
    }

    /// Sends a short text frame, under a mask of zeros.
    async fn send(&mut self, text: &str) -> io::Result<()> {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 126);
        let length = length.ok_or_else(|| io::Error::other("the namespace's name is too long"))?;
        let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
        frame.extend_from_slice(text.as_bytes());
        self.stream.write_all(&frame).await
    }
}

// === impl Seen ===

impl Seen {
    fn note(&mut self, opcode: u8, start: &[u8]) {
        const TEXT: u8 = 1;
        const CLOSE: u8 = 8;
        match (opcode, start) {
            (TEXT, b"42" | b"45") => self.events += 1,
            (TEXT, b"2") => self.pings += 1,
            (TEXT, b"40") => self.change = Some(Change::Joined),
            (TEXT, b"44" | b"41") => self.change = Some(Change::Refused),
            (TEXT, [b'0', ..]) => self.change = Some(Change::Opened),
            (CLOSE, _) => self.change = Some(Change::Closed),
            _ => {}
        }
    }
}

/// Reads the answer to the upgrade, and not one byte more.
async fn read_head(stream: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    if head.starts_with(b"HTTP/1.1 101") {
        Ok(())
    } else {
        let head = String::from_utf8_lossy(&head).into_owned();
        Err(io::Error::other(format!("the upgrade was refused: {head}")))
    }
}

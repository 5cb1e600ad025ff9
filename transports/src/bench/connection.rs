//! One client's connection: the handshake, the namespace, and what is read.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use super::frames::Frames;
use super::packet::{Packet, Protocol};
use super::server::Server;

thread_local! {
    /// Read into by one client at a time and looked at before the next: nothing is kept in it.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 * 1024]);
}

/// Where clients connect, and how.
#[derive(Debug, Clone)]
pub(super) struct Target {
    address: SocketAddr,
    key: String,
    protocol: Protocol,
}

/// A client that has joined its namespace.
pub(super) struct Connection {
    stream: TcpStream,
    frames: Frames,
    protocol: Protocol,
    /// Where the last sequence number stood in its frame.
    hint: usize,
}

/// What a client remembers to resume from.
#[derive(Debug, Default)]
pub(super) struct Session {
    pid: Option<String>,
    offset: Option<String>,
}

/// What joining came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    /// There was nothing to resume.
    Fresh,
    /// What was missed comes now.
    Recovered,
    /// The server no longer knows the session: what was missed is gone.
    Gap,
}

/// Why a client has not joined.
#[derive(Debug, thiserror::Error)]
pub(super) enum JoinError {
    #[error("the handshake was answered {0}")]
    Status(u16),
    #[error("the server refused the namespace")]
    Refused,
    #[error("the server closed the connection")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What one read brought, beside events.
#[derive(Debug, Default)]
struct Seen {
    pings: u32,
    websocket_pings: u32,
    opened: bool,
    joined: Option<Session>,
    refused: bool,
    closed: bool,
}

/// One event, as a client gets it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event<'a> {
    /// Its sequence number, if it has one.
    pub(super) number: Option<u64>,
    /// What a client resumes from that has this event.
    pub(super) offset: Option<&'a [u8]>,
    /// When it was read.
    pub(super) at: Instant,
}

/// What is done with events.
pub(super) trait Events: FnMut(Event<'_>) {}

impl<F: FnMut(Event<'_>)> Events for F {}

// === impl Target ===

impl Target {
    pub(super) fn of(server: &Server) -> Self {
        Self {
            address: server.address,
            key: server.key.clone(),
            protocol: server.protocol,
        }
    }

    async fn connect(&self, receive_buffer: Option<u32>) -> io::Result<TcpStream> {
        let socket = if self.address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size)?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn upgrade(&self) -> String {
        let Self { address, key, .. } = self;
        let key = match key.as_str() {
            "" => String::new(),
            key => format!("&apikey={key}"),
        };
        let path = match self.protocol {
            Protocol::Socketio => format!("/socket.io/?EIO=4&transport=websocket{key}"),
            Protocol::Websocket => "/".to_owned(),
        };
        format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    }
}

// === impl Connection ===

impl Connection {
    /// Connects and joins as a client does that never resumes.
    pub(super) async fn join(
        target: &Target,
        namespace: &str,
        receive_buffer: Option<u32>,
        mut events: impl Events,
    ) -> Result<Self, JoinError> {
        let (connection, _) =
            Self::join_with(target, namespace, "", receive_buffer, &mut events).await?;
        Ok(connection)
    }

    /// Connects and joins; resumes the session if there is one. Its missed events may come before this returns.
    pub(super) async fn resume(
        target: &Target,
        namespace: &str,
        session: &RefCell<Session>,
        mut events: impl Events,
    ) -> Result<(Self, Joined), JoinError> {
        let payload = session.borrow().payload();
        let (connection, pid) =
            Self::join_with(target, namespace, &payload, None, &mut events).await?;
        Ok((connection, session.borrow_mut().joined(pid)))
    }

    async fn join_with(
        target: &Target,
        namespace: &str,
        payload: &str,
        receive_buffer: Option<u32>,
        events: &mut impl Events,
    ) -> Result<(Self, Option<String>), JoinError> {
        let mut stream = target.connect(receive_buffer).await?;
        stream.write_all(target.upgrade().as_bytes()).await?;
        let behind = read_head(&mut stream).await?;
        let mut connection = Self {
            stream,
            frames: Frames::default(),
            protocol: target.protocol,
            hint: 0,
        };
        let mut seen = connection.look(&behind, events);
        if target.protocol == Protocol::Websocket {
            return Ok((connection, None));
        }
        while !seen.opened {
            seen = connection.step(events).await?;
        }
        let join = match namespace {
            "/" => format!("40{payload}"),
            other => format!("40{other},{payload}"),
        };
        connection.send(0x81, join.as_bytes()).await?;
        loop {
            let seen = connection.step(events).await?;
            if let Some(session) = seen.joined {
                return Ok((connection, session.pid));
            }
        }
    }

    /// Reads what is there; returns how many bytes that was. An error means that the connection has ended.
    /// Cancel safe.
    pub(super) async fn read(&mut self, events: &mut impl Events) -> Result<u64, JoinError> {
        let (bytes, seen) = self.fill(events).await?;
        self.answer(&seen).await?;
        Ok(bytes)
    }

    async fn step(&mut self, events: &mut impl Events) -> Result<Seen, JoinError> {
        let (_, seen) = self.fill(events).await?;
        self.answer(&seen).await?;
        Ok(seen)
    }

    /// Reads once. A read that does not fill the buffer leaves nothing behind, which `poll_read` knows: the next one
    /// waits without asking the system.
    async fn fill(&mut self, events: &mut impl Events) -> Result<(u64, Seen), JoinError> {
        poll_fn(|context| {
            BUFFER.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
                let bytes = buffer.filled();
                Poll::Ready(match bytes.len() {
                    0 => Err(JoinError::Closed),
                    count => Ok((count as u64, self.look(bytes, events))),
                })
            })
        })
        .await
    }

    fn look(&mut self, bytes: &[u8], events: &mut impl Events) -> Seen {
        let mut seen = Seen::default();
        // One reading of the clock serves all events of a read.
        let at = Instant::now();
        let Self {
            frames,
            protocol,
            hint,
            ..
        } = self;
        frames.read(bytes, |frame| match Packet::of(frame, *protocol, hint) {
            Packet::Event(number, offset) => events(Event { number, offset, at }),
            Packet::Opened => seen.opened = true,
            Packet::Ping => seen.pings += 1,
            Packet::WebsocketPing => seen.websocket_pings += 1,
            Packet::Joined(pid) => seen.joined = Some(Session::started(pid)),
            Packet::Refused => seen.refused = true,
            Packet::Closed => seen.closed = true,
            Packet::Other => {}
        });
        seen
    }

    async fn answer(&mut self, seen: &Seen) -> Result<(), JoinError> {
        for _ in 0..seen.pings {
            self.send(0x81, b"3").await?;
        }
        for _ in 0..seen.websocket_pings {
            self.send(0x8a, b"").await?;
        }
        if seen.closed {
            return Err(JoinError::Closed);
        }
        if seen.refused {
            return Err(JoinError::Refused);
        }
        Ok(())
    }

    /// Sends a frame, under a mask of zeros.
    async fn send(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![first];
        if let Ok(short @ 0..126) = u8::try_from(payload.len()) {
            frame.push(0x80 | short);
        } else {
            let length = u16::try_from(payload.len()).map_err(io::Error::other)?;
            frame.push(0xfe);
            frame.extend(length.to_be_bytes());
        }
        frame.extend([0; 4]);
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await
    }
}

// === impl Session ===

impl Session {
    /// One that begins, under the id that the server gives it.
    fn started(pid: Option<&[u8]>) -> Self {
        Self {
            pid: pid.map(|pid| String::from_utf8_lossy(pid).into_owned()),
            offset: None,
        }
    }

    /// Remembers the offset of the last event.
    pub(super) fn remember(&mut self, offset: Option<&[u8]>) {
        if let Some(offset) = offset {
            let place = self.offset.get_or_insert_default();
            place.clear();
            place.push_str(&String::from_utf8_lossy(offset));
        }
    }

    /// What goes with the request to join.
    fn payload(&self) -> String {
        match (&self.pid, &self.offset) {
            (Some(pid), Some(offset)) => {
                format!(r#"{{"recover":true,"pid":"{pid}","offset":"{offset}"}}"#)
            }
            (Some(pid), None) => format!(r#"{{"recover":true,"pid":"{pid}"}}"#),
            (None, _) => r#"{"recover":true}"#.to_owned(),
        }
    }

    /// Compares the server's answer with what was asked.
    fn joined(&mut self, pid: Option<String>) -> Joined {
        let joined = match (&self.pid, &self.offset) {
            (Some(mine), _) if pid.as_ref() == Some(mine) => Joined::Recovered,
            (Some(_), Some(_)) => Joined::Gap,
            _ => Joined::Fresh,
        };
        if joined != Joined::Recovered {
            self.offset = None;
        }
        self.pid = pid;
        joined
    }
}

/// Reads the answer to the upgrade; returns what came behind it.
async fn read_head(stream: &mut TcpStream) -> Result<Vec<u8>, JoinError> {
    const MOST: usize = 16 * 1024;
    let mut head = Vec::with_capacity(1024);
    let end = loop {
        if stream.read_buf(&mut head).await? == 0 || head.len() > MOST {
            return Err(JoinError::Closed);
        }
        if let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") {
            break end + 4;
        }
    };
    let status = head.get(9..12).and_then(|code| str::from_utf8(code).ok());
    match status.and_then(|code| code.parse().ok()) {
        Some(101) => Ok(head.split_off(end)),
        Some(status) => Err(JoinError::Status(status)),
        None => Err(io::Error::other("the handshake was not answered with HTTP").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_recovered_when_its_id_comes_back() {
        let mut session = Session::default();
        assert_eq!(session.payload(), r#"{"recover":true}"#);
        assert_eq!(session.joined(Some("p".into())), Joined::Fresh);
        assert_eq!(session.payload(), r#"{"recover":true,"pid":"p"}"#);
        session.remember(Some(b"o1"));
        session.remember(None);
        let payload = session.payload();
        assert_eq!(payload, r#"{"recover":true,"pid":"p","offset":"o1"}"#);
        assert_eq!(session.joined(Some("p".into())), Joined::Recovered);
        assert_eq!(session.joined(Some("q".into())), Joined::Gap);
        assert_eq!(session.payload(), r#"{"recover":true,"pid":"q"}"#);
    }

    #[test]
    fn without_ids_nothing_is_resumed() {
        let mut session = Session::default();
        assert_eq!(session.joined(None), Joined::Fresh);
        assert_eq!(session.joined(None), Joined::Fresh);
    }
}

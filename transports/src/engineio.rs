//! Engine.IO 4, the layer below Socket.IO: sessions over WebSocket and long-polling, with upgrade from one to the other.
//!
//! [`Server`] answers the requests; what a session does with messages is up to its [`Application`]. A session on a WebSocket has a
//! task of its own, which it shares with whoever goes round the clients of its channels: see [`feed`](crate::feed).
//!
//! The protocol is that of [engine.io-protocol](https://github.com/socketio/engine.io-protocol), revision 4; bodies and codes of
//! errors are those of Node's server (contract 2.1 to 2.4).

mod door;
mod heart;
mod outbox;
pub mod packet;
pub mod payload;
mod polling;
pub(crate) mod query;
pub(crate) mod refusal;
mod sid;
mod websocket;

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderMap, Uri};
use bytes::Bytes;
use evows_core::http::Peer;
use tokio::time::Instant;

use crate::clients::Client;
use crate::feed::Batch;
pub use crate::rounds::Driver;

pub use self::door::Server;
pub(crate) use self::door::taken;
pub use self::outbox::Outbox;
pub use self::refusal::Refusal;
pub(crate) use self::sid::Sid;
pub(crate) use self::websocket::Websocket;

/// How sessions are served.
#[derive(Debug, Clone)]
pub struct Options {
    /// The path, with its slash at the end.
    pub path: String,
    /// Whether sessions may run over long-polling.
    pub polling: bool,
    /// Whether sessions may run over WebSocket.
    pub websocket: bool,
    /// Time between pings.
    pub ping_interval: Duration,
    /// Time for the answer to a ping.
    pub ping_timeout: Duration,
    /// Time for a session on long-polling to move to a WebSocket that it has opened.
    pub upgrade_timeout: Duration,
    /// Bytes of one inbound message; told to clients as `maxPayload`.
    pub max_payload: usize,
    /// Frames of one inbound message.
    pub max_fragments: u32,
    /// Frames and messages that one client may send in a second.
    pub max_inbound_rate: u32,
    /// Sessions on long-polling at once.
    pub max_polling_sessions: usize,
    /// Sessions on long-polling at once from one address.
    pub max_polling_sessions_per_address: usize,
    /// Time that a client may take nothing while something waits for it.
    pub max_lag: Duration,
    /// Bytes that may wait for a client.
    pub max_lag_bytes: u64,
    /// Handshakes in a second; 0 for any number.
    pub max_handshakes_per_second: u32,
}

/// A handshake, before it is answered.
#[derive(Debug, Clone, Copy)]
pub struct Handshake<'a> {
    /// The path and the query.
    pub uri: &'a Uri,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// Who sent it.
    pub peer: &'a Peer,
    pub(crate) key: Option<&'a str>,
    pub(crate) has_version: bool,
}

/// A message of a client.
#[derive(Debug)]
pub enum Message<'a> {
    /// Text.
    Text(&'a str),
    /// Bytes.
    Binary(Bytes),
}

/// Ends a session, for this reason: a short fixed phrase in `snake_case`, the label of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close(pub &'static str);

/// What sessions are for.
pub trait Application: Send + Sync + 'static {
    /// One client's side of it.
    type Session: Session;
    /// What the handshake says about a client.
    type Pass: Send;

    /// Decides about a handshake. Called before anything is spent on the client; must not block.
    fn admit(&self, handshake: &Handshake<'_>) -> Result<Self::Pass, Refusal>;

    /// Begins a session.
    fn open(&self, pass: Self::Pass, client: &Arc<Client>) -> Self::Session;
}

/// One client's session. There is one call at a time, from one task or another, and none may block.
pub trait Session: Send + 'static {
    /// Whether its WebSocket carries messages as they are, and pings of WebSocket itself, in place of Engine.IO packets.
    const PLAIN: bool = false;

    /// Takes a message. Answers go into the outbox, in front of whatever waits.
    fn message(&mut self, message: Message<'_>, out: &mut Outbox) -> Result<(), Close>;

    /// From now on its WebSocket is written to by `driver` whenever a channel that it follows moves, and
    /// [`poll_fill`](Session::poll_fill) has nobody woken for that. For sessions that follow none there is nothing to do.
    fn seat(&mut self, _driver: &Driver) {}

    /// Shows in `batch` what waits for the client, and puts into `out` what has to be said before. `Ready`: there is something in
    /// either. While it is pending, the task must be woken when there is, unless the session was [seated](Session::seat).
    fn poll_fill(
        &mut self,
        _cx: &mut Context<'_>,
        _batch: &mut Batch,
        _out: &mut Outbox,
    ) -> Poll<Result<(), Close>> {
        Poll::Pending
    }

    /// The first `count` entries of the batch are on their way.
    fn passed(&mut self, _batch: &Batch, _count: usize) {}

    /// Whether something waits.
    fn is_behind(&self) -> bool {
        false
    }

    /// Whether something waits that has to be written before the process stops: not what can be read from the disk by the next one.
    fn is_owed(&self) -> bool {
        self.is_behind()
    }

    /// Bytes that wait.
    fn bytes_behind(&self) -> u64 {
        0
    }

    /// Whether something that waited is gone.
    fn is_overrun(&self) -> bool {
        false
    }

    /// The client took nothing for too long, or too much waits for it, or waited.
    fn lags(&mut self, _out: &mut Outbox) -> Result<(), Close> {
        Err(Close("slow"))
    }

    /// When to call [`expired`](Session::expired), if ever.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The deadline has passed.
    fn expired(&mut self) -> Result<(), Close> {
        Ok(())
    }
}

// === impl Options ===

impl Default for Options {
    /// As in `evows.toml`, at `/engine.io/`.
    fn default() -> Self {
        Self {
            path: "/engine.io/".to_owned(),
            ..crate::socketio::Config::default().native().engineio
        }
    }
}

// === impl Handshake ===

impl Handshake<'_> {
    /// Whether the query has `name=1` or `name=true`.
    pub fn asks(&self, name: &str) -> bool {
        let query = self.uri.query().unwrap_or_default();
        form_urlencoded::parse(query.as_bytes())
            .any(|(key, value)| key == name && matches!(&*value, "1" | "true"))
    }
}

//! Moves the cursors of one channel's clients, on socketioxide.
//!
//! One task per channel that has clients goes round them and hands each what lies between its cursor and the head. A client whose
//! queue is full keeps its cursor where it is and is tried again shortly: it delays nobody and loses nothing until the log has moved
//! on past it. Then, or after `max_lag`, its transport is closed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evows_core::hub::{Channel, ChannelName, Cursor, Entry, Hub, Offset, Start};
use evows_core::metrics::{Component, Reason};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use socketioxide::extract::SocketRef;
use socketioxide::socket::DisconnectReason;
use socketioxide::{SendError, SocketError};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Dialect;
use super::binary::Payload;
use super::client::{Client, Clients};

/// Events handed to one client before the next one's turn. Several at once cost one flush.
const BURST: usize = 32;
/// Emits between two chances for the writers to run on this thread.
const EMITS_PER_TURN: usize = 256;
/// Prepared events kept for clients that are a little behind.
const PREPARED: usize = 512;
/// How soon a client that could not be served is tried again.
const RETRY: Duration = Duration::from_millis(2);

/// Names that stock clients take for their own: they would raise a parse error and drop the connection.
const RESERVED: [&str; 6] = [
    "connect",
    "connect_error",
    "disconnect",
    "disconnecting",
    "newListener",
    "removeListener",
];

/// One channel's clients.
pub(super) struct Pump {
    options: Options,
    state: Mutex<State>,
    /// Told when somebody joins or leaves, and when the channel closes.
    changed: Notify,
    idle: AtomicBool,
}

/// What every pump of a transport shares.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) clients: Arc<Clients>,
    pub(super) dialect: Dialect,
    pub(super) max_lag: Duration,
    pub(super) hub: Arc<Hub>,
}

struct State {
    /// `None` while the channel is closed.
    channel: Option<Arc<Channel>>,
    joining: Vec<Member>,
    running: bool,
}

/// A client in this channel.
struct Member {
    socket: SocketRef,
    client: Arc<Client>,
    cursor: Cursor,
    left: Arc<AtomicBool>,
    /// Since when its queue has refused everything.
    stalled: Option<Instant>,
}

/// An event, encoded once for all clients.
struct Prepared {
    offset: Offset,
    /// `None` when it cannot be sent to Socket.IO clients.
    payload: Option<Payload>,
}

/// One run of the task.
struct Round {
    channel: Arc<Channel>,
    options: Options,
    /// The root channel, unless this is it.
    root: Option<Arc<Channel>>,
    deliveries: Counter,
    prepared: VecDeque<Arc<Prepared>>,
    entries: Vec<Arc<Entry>>,
    emitted: usize,
}

// === impl Pump ===

impl Pump {
    pub(super) fn new(channel: &Arc<Channel>, options: Options) -> Self {
        let state = State {
            channel: Some(Arc::clone(channel)),
            joining: Vec::new(),
            running: false,
        };
        Self {
            options,
            state: Mutex::new(state),
            changed: Notify::new(),
            idle: AtomicBool::new(true),
        }
    }

    /// The channel is open again.
    pub(super) fn open(&self, channel: Arc<Channel>) {
        self.state.lock().channel = Some(channel);
    }

    /// The channel is closed: its clients are, too.
    pub(super) fn close(&self) {
        self.state.lock().channel = None;
        self.changed.notify_one();
    }

    /// The newest position; `None` while the channel is closed.
    pub(super) fn head(&self) -> Option<Offset> {
        self.state
            .lock()
            .channel
            .as_ref()
            .map(|channel| channel.head().offset)
    }

    /// Whether every client that takes what it is given has all there is.
    pub(super) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// Serves a client that has joined, from what comes after `after`.
    pub(super) fn join(self: &Arc<Self>, socket: SocketRef, client: Arc<Client>, after: Offset) {
        let left = Arc::new(AtomicBool::new(false));
        let (gone, pump, leaving) = (Arc::clone(&left), Arc::clone(self), Arc::clone(&client));
        let is_root = socket.ns() == "/";
        socket.on_disconnect(async move |reason: DisconnectReason| {
            leaving.ended(label(reason));
            if !gone.swap(true, Ordering::AcqRel) {
                if is_root {
                    leaving.has_root(None);
                }
                leaving.leave();
                pump.changed.notify_one();
            }
        });
        // It may have gone before the handler was there.
        if !socket.connected() && !left.swap(true, Ordering::AcqRel) {
            client.leave();
            return;
        }
        let mut state = self.state.lock();
        let Some(channel) = &state.channel else {
            drop(state);
            client.close("namespace_closed");
            return;
        };
        let cursor = channel.follow(Start::After(after));
        state.joining.push(Member {
            socket,
            client,
            cursor,
            left,
            stalled: None,
        });
        let start = !std::mem::replace(&mut state.running, true);
        drop(state);
        self.idle.store(false, Ordering::Relaxed);
        if start {
            tokio::spawn(Arc::clone(self).run());
        } else {
            self.changed.notify_one();
        }
    }

    async fn run(self: Arc<Self>) {
        let mut members: Vec<Member> = Vec::new();
        let mut round: Option<Round> = None;
        loop {
            members.retain(|member| !member.left.load(Ordering::Acquire));
            let channel = {
                let mut state = self.state.lock();
                members.append(&mut state.joining);
                if members.is_empty() {
                    state.running = false;
                    self.idle.store(true, Ordering::Relaxed);
                    return;
                }
                state.channel.clone()
            };
            let Some(channel) = channel else {
                for member in members.drain(..) {
                    member.client.close("namespace_closed");
                }
                continue;
            };
            let round = match &mut round {
                Some(round) if Arc::ptr_eq(&round.channel, &channel) => round,
                other => other.insert(Round::new(channel, self.options.clone())),
            };
            // Taken before the members are served: what comes meanwhile wakes it.
            let mut lead = round.channel.follow(Start::Head);
            let again = round.serve(&mut members).await;
            self.idle.store(true, Ordering::Relaxed);
            tokio::select! {
                () = self.changed.notified() => {}
                _ = lead.ready() => {}
                () = tokio::time::sleep(RETRY), if again => {}
            }
            self.idle.store(false, Ordering::Relaxed);
        }
    }
}

// === impl Round ===

impl Round {
    fn new(channel: Arc<Channel>, options: Options) -> Self {
        let component = Component::new(Arc::clone(options.clients.component()));
        let deliveries = options
            .clients
            .metrics()
            .deliveries
            .get_or_create(&component)
            .clone();
        let root = ChannelName::root();
        let others = (*channel.name() != root).then(|| options.hub.channel(&root));
        Self {
            channel,
            options,
            root: others.flatten(),
            deliveries,
            prepared: VecDeque::new(),
            entries: Vec::new(),
            emitted: 0,
        }
    }

    /// Goes round until everybody has everything or takes no more; whether somebody has to be tried again.
    async fn serve(&mut self, members: &mut Vec<Member>) -> bool {
        loop {
            let (mut more, mut again) = (false, false);
            let mut at = 0;
            while let Some(member) = members.get_mut(at) {
                match self.advance(member) {
                    Progress::CaughtUp => at += 1,
                    Progress::More => {
                        more = true;
                        at += 1;
                    }
                    Progress::Stalled | Progress::Waiting => {
                        again = true;
                        at += 1;
                    }
                    Progress::Gone => drop(members.swap_remove(at)),
                }
                if self.emitted >= EMITS_PER_TURN {
                    self.emitted = 0;
                    tokio::task::yield_now().await;
                }
            }
            if !more {
                return again;
            }
        }
    }

    /// Hands one client a burst.
    fn advance(&mut self, member: &mut Member) -> Progress {
        if member.left.load(Ordering::Acquire) {
            return Progress::Gone;
        }
        let mut entries = std::mem::take(&mut self.entries);
        let gap = member.cursor.read(BURST, &mut entries);
        if gap.is_some() {
            entries.clear();
            self.entries = entries;
            return self.give_up(member, "gap");
        }
        let mut delivered = 0;
        let mut progress = if entries.len() < BURST {
            Progress::CaughtUp
        } else {
            Progress::More
        };
        for entry in &entries {
            if self.waits_for_root(member, entry) {
                member.cursor.rewind(entry.position.offset.before());
                progress = Progress::Waiting;
                break;
            }
            let prepared = self.prepare(entry);
            let Some(payload) = &prepared.payload else {
                continue;
            };
            match member.socket.emit(entry.event.name(), payload) {
                Ok(()) => delivered += 1,
                Err(SendError::Socket(SocketError::InternalChannelFull)) => {
                    member.cursor.rewind(entry.position.offset.before());
                    progress = Progress::Stalled;
                    break;
                }
                Err(SendError::Socket(SocketError::Closed)) => {
                    progress = Progress::Gone;
                    break;
                }
                Err(SendError::Serialize(error)) => {
                    tracing::warn!(event = entry.event.name(), %error, "cannot encode an event");
                    self.undelivered("encoding");
                }
            }
        }
        entries.clear();
        self.entries = entries;
        if self.channel.name().is_root() {
            member.client.has_root(Some(member.cursor.offset()));
        }
        self.deliveries.inc_by(delivered);
        self.emitted += usize::try_from(delivered).unwrap_or(EMITS_PER_TURN);
        if !matches!(progress, Progress::Stalled) || delivered > 0 {
            member.stalled = None;
        }
        if matches!(progress, Progress::Stalled) {
            let since = *member.stalled.get_or_insert_with(Instant::now);
            if since.elapsed() >= self.options.max_lag {
                return self.give_up(member, "slow");
            }
        }
        progress
    }

    fn waits_for_root(&self, member: &Member, entry: &Entry) -> bool {
        let newest = |root: &Arc<Channel>| root.head().offset;
        let offset = entry.position.offset;
        let root = self.root.as_ref();
        root.is_some_and(|root| member.client.waits_for_root(offset, newest(root)))
    }

    /// Closes a client that cannot be served any more; what it has not got counts as undelivered.
    fn give_up(&self, member: &Member, reason: &'static str) -> Progress {
        self.undelivered(reason);
        member.client.close(reason);
        Progress::Gone
    }

    fn undelivered(&self, reason: &'static str) {
        let clients = &self.options.clients;
        let label = Reason {
            component: Arc::clone(clients.component()),
            reason,
        };
        clients.metrics().undelivered.get_or_create(&label).inc();
    }

    fn prepare(&mut self, entry: &Arc<Entry>) -> Arc<Prepared> {
        let offset = entry.position.offset;
        if let Ok(at) = self
            .prepared
            .binary_search_by_key(&offset, |prepared| prepared.offset)
            && let Some(prepared) = self.prepared.get(at)
        {
            return Arc::clone(prepared);
        }
        let name = entry.event.name();
        let payload = if RESERVED.contains(&name) {
            tracing::warn!(
                event = name,
                instance = entry.event.instance(),
                "clients take this event name for their own: not sent"
            );
            self.undelivered("reserved_name");
            None
        } else {
            Payload::new(&entry.event, self.options.dialect)
                .inspect_err(|error| {
                    tracing::warn!(event = name, %error, "cannot encode an event");
                    self.undelivered("encoding");
                })
                .ok()
        };
        let prepared = Arc::new(Prepared { offset, payload });
        // Older ones are for clients that are far behind: they are prepared again each time.
        if self
            .prepared
            .back()
            .is_none_or(|newest| newest.offset < offset)
        {
            if self.prepared.len() == PREPARED {
                self.prepared.pop_front();
            }
            self.prepared.push_back(Arc::clone(&prepared));
        }
        prepared
    }
}

/// Why a client went by itself, as the counter says it; `None` for what is no end of the connection.
fn label(reason: DisconnectReason) -> Option<&'static str> {
    match reason {
        DisconnectReason::TransportClose => Some("transport_close"),
        DisconnectReason::TransportError => Some("transport_error"),
        DisconnectReason::HeartbeatTimeout => Some("ping_timeout"),
        DisconnectReason::PacketParsingError => Some("parse_error"),
        DisconnectReason::MultipleHttpPollingError => Some("concurrent_polls"),
        DisconnectReason::ClosingServer => Some("shutdown"),
        DisconnectReason::ClientNSDisconnect | DisconnectReason::ServerNSDisconnect => None,
    }
}

/// How a client's turn went.
enum Progress {
    CaughtUp,
    More,
    /// Its queue is full.
    Stalled,
    /// Its copy on the root channel comes first.
    Waiting,
    Gone,
}

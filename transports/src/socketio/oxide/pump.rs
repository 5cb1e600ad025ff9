//! Moves the cursors of one channel's clients, on socketioxide.
//!
//! One task per channel that has clients goes round them and hands each what lies between its cursor and the head. A client whose
//! queue is full keeps its cursor where it is and is tried again shortly: it delays nobody and loses nothing until the log has moved
//! on past it. Then, or after `max_lag`, its transport is closed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use evows_core::Event;
use evows_core::hub::{Channel, ChannelName, Cursor, Entry, Hub, Offset, Start};
use evows_core::metrics::{Component, Reason};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use socketioxide::extract::SocketRef;
use socketioxide::socket::DisconnectReason;
use socketioxide::{SendError, SocketError};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::{Client, Clients};
use crate::socketio::Dialect;
use crate::socketio::binary::{Payload, framed};
use crate::socketio::reserved::Reserved;

/// Events handed to one client before the next one's turn. Several at once cost one flush.
const BURST: usize = 32;
/// Emits between two chances for the writers to run on this thread.
const EMITS_PER_TURN: usize = 256;
/// Prepared events kept while somebody is a little behind.
const PREPARED: usize = 128;
/// How soon a client that could not be served is tried again.
const RETRY: Duration = Duration::from_millis(2);
/// How long a client may take nothing before nobody waits for it any more.
const HOPE: Duration = Duration::from_millis(500);
/// How often the task looks again at once for a client whose copy on the root channel comes first.
const PATIENCE: u32 = 16;

/// One channel's clients.
pub(super) struct Pump {
    options: Options,
    state: Mutex<State>,
    /// Told when somebody joins or leaves, when the channel closes, and when the history was read for somebody.
    changed: Notify,
    idle: AtomicBool,
}

/// What every pump of a transport shares.
#[derive(Clone)]
pub(super) struct Options {
    pub(super) clients: Arc<Clients>,
    pub(super) dialect: Dialect,
    pub(super) max_lag: Duration,
    pub(super) max_attachments: usize,
    pub(super) reserved: Reserved,
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
    /// Since when it has taken nothing, and what showed that.
    stalled: Option<(Instant, u64)>,
}

/// An event, taken apart once for all clients.
struct Prepared {
    offset: Offset,
    /// Or why it cannot be sent to Socket.IO clients.
    payload: Result<Payload, &'static str>,
    /// Its bytes on the wire, at the least.
    size: u64,
}

/// One run of the task.
struct Round {
    channel: Arc<Channel>,
    options: Options,
    /// The root channel, once it is open, unless this is it.
    root: Option<Arc<Channel>>,
    deliveries: Counter,
    prepared: VecDeque<Arc<Prepared>>,
    entries: Vec<Arc<Entry>>,
    emitted: usize,
    /// The pump's.
    waker: Waker,
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
            if let Some(reason) = label(reason) {
                leaving.lost(reason);
            }
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
            if is_root {
                client.has_root(None);
            }
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
        let mut waiting = 0;
        loop {
            members.retain(Member::is_here);
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
            // A channel that was closed and opened again meanwhile is another one.
            members.retain(|member| {
                let follows = channel.as_ref();
                let follows =
                    follows.is_some_and(|channel| Arc::ptr_eq(channel, member.cursor.channel()));
                if !follows {
                    member.client.close("namespace_closed");
                }
                follows
            });
            let Some(channel) = channel else { continue };
            let round = match &mut round {
                Some(round) if Arc::ptr_eq(&round.channel, &channel) => round,
                other => {
                    let waker = Waker::from(Arc::clone(&self));
                    other.insert(Round::new(channel, self.options.clone(), waker))
                }
            };
            // Taken before the members are served: what comes meanwhile wakes it.
            let mut lead = round.channel.watch();
            let pass = round.serve(&mut members).await;
            waiting = if pass.waiting { waiting + 1 } else { 0 };
            if pass.more || (1..PATIENCE).contains(&waiting) {
                tokio::task::yield_now().await;
                continue;
            }
            if !pass.stalled && !pass.waiting {
                round.prepared.clear();
            }
            self.idle
                .store(!pass.waiting && !pass.hopeful, Ordering::Relaxed);
            tokio::select! {
                () = self.changed.notified() => {}
                _ = lead.moved() => {}
                () = tokio::time::sleep(RETRY), if pass.stalled || pass.waiting => {}
            }
            self.idle.store(false, Ordering::Relaxed);
        }
    }
}

impl Wake for Pump {
    fn wake(self: Arc<Self>) {
        self.changed.notify_one();
    }
}

// === impl Member ===

impl Member {
    fn is_here(&self) -> bool {
        !self.left.load(Ordering::Acquire) && !self.client.is_closed()
    }
}

// === impl Round ===

impl Round {
    fn new(channel: Arc<Channel>, options: Options, waker: Waker) -> Self {
        let component = Component::new(Arc::clone(options.clients.component()));
        let deliveries = options
            .clients
            .metrics()
            .deliveries
            .get_or_create(&component)
            .clone();
        Self {
            channel,
            options,
            root: None,
            deliveries,
            prepared: VecDeque::new(),
            entries: Vec::new(),
            emitted: 0,
            waker,
        }
    }

    /// Gives everybody one turn.
    async fn serve(&mut self, members: &mut Vec<Member>) -> Pass {
        if !self.channel.name().is_root() && self.root.as_ref().is_none_or(|root| root.is_closed())
        {
            self.root = self.options.hub.channel(&ChannelName::root());
        }
        let mut pass = Pass::default();
        let mut at = 0;
        while let Some(member) = members.get_mut(at) {
            match self.advance(member) {
                Progress::CaughtUp | Progress::Fetching => {}
                Progress::More => pass.more = true,
                Progress::Stalled => {
                    pass.stalled = true;
                    let since = member.stalled.map(|(since, _)| since.elapsed());
                    pass.hopeful |= since.is_none_or(|since| since < HOPE);
                }
                Progress::Waiting => pass.waiting = true,
                Progress::Gone => {
                    drop(members.swap_remove(at));
                    continue;
                }
            }
            at += 1;
            if self.emitted >= EMITS_PER_TURN {
                self.emitted = 0;
                tokio::task::yield_now().await;
            }
        }
        pass
    }

    /// Hands one client a burst.
    fn advance(&mut self, member: &mut Member) -> Progress {
        if !member.is_here() {
            return Progress::Gone;
        }
        let written = member.client.written();
        let most = member.client.room(written).min(BURST);
        let mut entries = match self.read(member, most.max(1)) {
            Ok(entries) => entries,
            Err(progress) => return progress,
        };
        let (mut delivered, mut bytes) = (0, 0);
        // From the history come fewer than there are.
        let mut progress = if entries.len() < most.max(1) && !member.cursor.is_behind() {
            Progress::CaughtUp
        } else if most < BURST {
            Progress::Stalled
        } else {
            Progress::More
        };
        if most == 0
            && let Some(entry) = entries.first()
        {
            member.cursor.rewind(entry.position.offset.before());
            entries.clear();
        }
        for entry in &entries {
            if self.waits_for_root(member, entry) {
                member.cursor.rewind(entry.position.offset.before());
                progress = Progress::Waiting;
                break;
            }
            let prepared = self.prepare(entry);
            let payload = match &prepared.payload {
                Ok(payload) => payload,
                Err(reason) => {
                    self.undelivered(reason);
                    continue;
                }
            };
            match member.socket.emit(entry.event.name(), payload) {
                Ok(()) => {
                    delivered += 1;
                    bytes += prepared.size;
                }
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
            if member.left.load(Ordering::Acquire) {
                // It left meanwhile, and nothing may wait for it any more.
                member.client.has_root(None);
            }
        }
        self.deliveries.inc_by(delivered);
        self.emitted += usize::try_from(delivered).unwrap_or(EMITS_PER_TURN);
        if delivered > 0 {
            let packets = usize::try_from(delivered).unwrap_or(usize::MAX);
            member.client.hand(packets, bytes, written);
        }
        if !matches!(progress, Progress::Stalled) {
            member.stalled = None;
            return progress;
        }
        let shown = member.client.progress(written);
        match member.stalled {
            Some((since, before)) if before == shown => {
                if since.elapsed() >= self.options.max_lag {
                    return self.give_up(member, "slow");
                }
            }
            _ => member.stalled = Some((Instant::now(), shown)),
        }
        let (since, _) = member.stalled.unwrap_or((Instant::now(), shown));
        if since.elapsed() >= HOPE && member.client.has_taken_all() {
            // What it was handed is not what it was sent: a poll took it while the client moved to its WebSocket.
            member.client.forget_flow();
            member.stalled = None;
            return Progress::More;
        }
        progress
    }

    /// What lies in front of a client, or how its turn ends instead.
    fn read(&mut self, member: &mut Member, most: usize) -> Result<Vec<Arc<Entry>>, Progress> {
        let mut entries = std::mem::take(&mut self.entries);
        if member.cursor.read(most, &mut entries).is_some() {
            entries.clear();
            self.entries = entries;
            return Err(self.give_up(member, "gap"));
        }
        if entries.is_empty() && member.cursor.is_behind() {
            self.entries = entries;
            let cx = &Context::from_waker(&self.waker);
            return Err(match member.cursor.poll_fetched(cx) {
                Poll::Ready(()) => Progress::More,
                Poll::Pending => Progress::Fetching,
            });
        }
        Ok(entries)
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
        let payload = self.payload(&entry.event);
        let size = payload.as_ref().map_or(0, |payload| {
            // 42/<namespace>,["<name>",<payload>]
            let namespace = self.channel.name();
            let namespace = if namespace.is_root() {
                0
            } else {
                namespace.as_str().len() + 1
            };
            framed((namespace + entry.event.name().len() + 7) as u64 + payload.size())
        });
        let prepared = Arc::new(Prepared {
            offset,
            payload,
            size,
        });
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

    fn payload(&self, event: &Event) -> Result<Payload, &'static str> {
        let name = event.name();
        if self.options.reserved.holds_back(name) {
            return Err("reserved_name");
        }
        let Options {
            dialect,
            max_attachments,
            ..
        } = self.options;
        Payload::bounded(event, dialect, max_attachments).map_err(|error| {
            tracing::warn!(event = name, %error, "cannot encode an event");
            "encoding"
        })
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
    /// The pump is told when the history has been read for it.
    Fetching,
    More,
    /// Its queue is full.
    Stalled,
    /// Its copy on the root channel comes first.
    Waiting,
    Gone,
}

/// What is left to do after everybody had a turn.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four answers to four questions, not states of one thing"
)]
struct Pass {
    more: bool,
    stalled: bool,
    /// Somebody who is stalled took something a moment ago.
    hopeful: bool,
    waiting: bool,
}

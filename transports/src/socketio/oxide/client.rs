//! The clients of the transport: who they are, and how they are closed.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use evows_core::Shutdown;
use evows_core::access::Identity;
use evows_core::http::Peer;
use evows_core::hub::Offset;
use evows_core::metrics::{Component, Metrics};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::flow::Flow;
use crate::clients::{TICK, spread, until_gone};
use crate::engineio::refusal::Refusal;
use crate::http::{Connection, Limits, Slot};

/// CONNECTs that one client may have refused before it is closed.
const MOST_REFUSED: u32 = 20;

/// How long a client that has shown no key may take to join: it costs as much as one that has.
const WITHOUT_KEY: Duration = Duration::from_secs(10);

/// Every client of one transport.
pub(super) struct Clients {
    component: Arc<str>,
    metrics: Metrics,
    gauge: Gauge,
    next: AtomicU64,
    live: AtomicUsize,
    /// Of clients on long-polling.
    places: Limits,
    draining: AtomicBool,
    table: Mutex<Table>,
    /// Those that may still have to join a namespace and have shown no key, the oldest first.
    joining_without_key: Mutex<VecDeque<(Instant, Weak<Client>)>>,
    /// Those that have shown one.
    joining: Mutex<VecDeque<(Instant, Weak<Client>)>>,
    /// Told whenever a client is gone.
    left: Notify,
}

#[derive(Default)]
struct Table {
    all: HashMap<u64, Weak<Client>>,
    /// By Engine.IO session id: those that began on polling, which may come with another connection.
    sessions: HashMap<String, Weak<Client>>,
}

/// One Engine.IO session. Rides in the request's extensions, so that it lives exactly as long as the session does.
pub(super) struct Client {
    number: u64,
    /// Whose key the handshake had; `None` when the key may still come in `auth`.
    pub(super) identity: Option<Identity>,
    pub(super) peer: Peer,
    clients: Arc<Clients>,
    session: Mutex<Option<String>>,
    /// The WebSocket's connection. A polling client's connections may be shared with others behind a proxy, so they are left alone.
    websocket: Mutex<Option<Connection>>,
    flow: Mutex<Flow>,
    /// While it is on long-polling.
    place: Mutex<Option<Slot>>,
    ended: AtomicBool,
    gone: Shutdown,
    refused: AtomicU32,
    joined: AtomicU32,
    has_joined: AtomicBool,
    /// The offset up to which it has the root channel; [`NOT_JOINED`] when it does not follow that.
    root: AtomicU64,
}

/// What stands for an offset in a client that does not follow the root channel.
const NOT_JOINED: u64 = u64::MAX;

// === impl Clients ===

impl Clients {
    pub(super) fn new(
        component: &Arc<str>,
        metrics: Metrics,
        max_polling: usize,
        max_polling_per_address: usize,
    ) -> Self {
        let gauge = metrics
            .clients
            .get_or_create(&Component::new(Arc::clone(component)))
            .clone();
        Self {
            component: Arc::clone(component),
            metrics,
            gauge,
            next: AtomicU64::new(1),
            live: AtomicUsize::new(0),
            places: Limits::new(max_polling, max_polling_per_address),
            draining: AtomicBool::new(false),
            table: Mutex::default(),
            joining_without_key: Mutex::default(),
            joining: Mutex::default(),
            left: Notify::new(),
        }
    }

    pub(super) fn component(&self) -> &Arc<str> {
        &self.component
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Clients that are connected and not being closed.
    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Counts a refused request.
    pub(super) fn refuse(&self, refusal: Refusal) {
        self.metrics.refuse(&self.component, refusal.reason());
    }

    /// A new client, `websocket` being its connection where it begins on one.
    pub(super) fn admit(
        self: &Arc<Self>,
        identity: Option<Identity>,
        peer: Peer,
        websocket: Option<Connection>,
    ) -> Result<Arc<Client>, Refusal> {
        let place = if websocket.is_none() {
            let place = self.places.take(Some(peer.client));
            Some(place.map_err(|_| Refusal::Overloaded)?)
        } else {
            None
        };
        let client = Arc::new(Client {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            identity,
            peer,
            clients: Arc::clone(self),
            session: Mutex::default(),
            flow: Mutex::new(Flow::new(websocket.is_some())),
            websocket: Mutex::new(websocket),
            place: Mutex::new(place),
            ended: AtomicBool::new(false),
            gone: Shutdown::new(),
            refused: AtomicU32::new(0),
            joined: AtomicU32::new(0),
            has_joined: AtomicBool::new(false),
            root: AtomicU64::new(NOT_JOINED),
        });
        let joining = (Instant::now(), Arc::downgrade(&client));
        let queue = if client.identity.is_some() {
            &self.joining
        } else {
            &self.joining_without_key
        };
        queue.lock().push_back(joining);
        self.live.fetch_add(1, Ordering::Relaxed);
        self.gauge.inc();
        let mut table = self.table.lock();
        table.all.insert(client.number, Arc::downgrade(&client));
        Ok(client)
    }

    /// Names a polling client's session, so that later requests find it.
    pub(super) fn name(&self, client: &Arc<Client>, session: &str) {
        *client.session.lock() = Some(session.to_owned());
        let mut table = self.table.lock();
        table
            .sessions
            .insert(session.to_owned(), Arc::downgrade(client));
    }

    /// The client of a session that began on polling. It may be closed already.
    pub(super) fn session(&self, session: &str) -> Option<Arc<Client>> {
        let table = self.table.lock();
        table.sessions.get(session).and_then(Weak::upgrade)
    }

    /// Closes clients that join nothing for `limit`. Runs as long as the transport does.
    pub(super) async fn expect_joins(clients: Weak<Self>, limit: Duration) {
        let mut tick = tokio::time::interval((limit / 4).clamp(TICK, Duration::from_secs(1)));
        loop {
            tick.tick().await;
            let Some(clients) = clients.upgrade() else {
                return;
            };
            for (queue, limit) in [
                (&clients.joining, limit),
                (&clients.joining_without_key, limit.min(WITHOUT_KEY)),
            ] {
                while let Some(client) = next_late(queue, limit) {
                    if let Some(client) = client.upgrade()
                        && !client.has_joined.load(Ordering::Relaxed)
                    {
                        client.close("never_joined");
                    }
                }
            }
        }
    }

    /// Refuses new clients, and closes those there are, evenly over `over`. What is already in the channels is written first, as
    /// far as clients take it.
    pub(super) async fn drain(&self, over: Duration, is_idle: impl Fn() -> bool) {
        self.draining.store(true, Ordering::Relaxed);
        let started = Instant::now();
        let mut tick = tokio::time::interval(TICK);
        tick.tick().await;
        while !is_idle() && started.elapsed() < over / 2 {
            tick.tick().await;
        }
        // What is queued still has to reach the sockets.
        tick.tick().await;
        let close = |client: &Arc<Client>| client.close("shutdown");
        let time = over.saturating_sub(started.elapsed());
        spread(&self.all(), time, close).await;
        let close_all = || self.all().iter().for_each(close);
        until_gone(&self.left, || self.live(), close_all).await;
    }

    fn all(&self) -> Vec<Arc<Client>> {
        let table = self.table.lock();
        table.all.values().filter_map(Weak::upgrade).collect()
    }

    fn leave(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
        self.left.notify_waiters();
    }
}

/// Takes out the oldest that has waited for `limit`.
fn next_late(
    queue: &Mutex<VecDeque<(Instant, Weak<Client>)>>,
    limit: Duration,
) -> Option<Weak<Client>> {
    let late = |(since, _): &mut (Instant, _)| since.elapsed() >= limit;
    let (_, client) = queue.lock().pop_front_if(late)?;
    Some(client)
}

// === impl Client ===

impl Client {
    /// Whether its session is over, from whichever side.
    pub(super) fn is_closed(&self) -> bool {
        self.gone.is_started()
    }

    /// Closes the transport. Stock clients come back by themselves after that; they would not after a DISCONNECT packet.
    pub(super) fn close(&self, reason: &'static str) {
        if !self.end() {
            return;
        }
        let clients = &self.clients;
        clients.metrics.close(&clients.component, reason);
        if let Some(connection) = &*self.websocket.lock() {
            connection.close(reason);
        }
        // What anybody may cause without a key is counted, but not worth a line each.
        if !matches!(reason, "shutdown" | "never_joined" | "refused_connects") {
            tracing::warn!(transport = %clients.component, client = %self.peer.client, reason, "closed a client");
        }
    }

    /// Counts a session that ended from the other side, once for all its namespaces.
    pub(super) fn lost(&self, reason: &'static str) {
        if self.end() {
            self.clients.metrics.close(&self.clients.component, reason);
        }
    }

    /// Takes the client out of the count; `false` when it was out already.
    fn end(&self) -> bool {
        let first = !self.ended.swap(true, Ordering::AcqRel);
        if first {
            self.gone.start();
            self.clients.leave();
        }
        first
    }

    /// Waits until the session is over. Cancel safe.
    pub(super) async fn closed(&self) {
        self.gone.started().await;
    }

    /// Whether it has a WebSocket.
    pub(super) fn has_websocket(&self) -> bool {
        self.websocket.lock().is_some()
    }

    /// Notes the connection of a WebSocket that this session moves to; `false` when it has one already, which stays.
    pub(super) fn upgrade(&self, connection: Connection) -> bool {
        let mut websocket = self.websocket.lock();
        if self.is_closed() || websocket.is_some() {
            return false;
        }
        *websocket = Some(connection);
        *self.flow.lock() = Flow::new(true);
        *self.place.lock() = None;
        true
    }

    /// What the WebSocket has written so far; `None` on long-polling.
    pub(super) fn written(&self) -> Option<u64> {
        self.websocket.lock().as_ref().map(Connection::written)
    }

    /// How many more packets it may be handed, having [`written`](Self::written) so much.
    pub(super) fn room(&self, written: Option<u64>) -> usize {
        self.flow.lock().room(written)
    }

    /// Notes packets that it was handed, of `bytes` on the wire. `written` is from before that.
    pub(super) fn hand(&self, packets: usize, bytes: u64, written: Option<u64>) {
        self.flow.lock().hand(packets, bytes, written);
    }

    /// Notes packets that a poll took.
    pub(super) fn take(&self, packets: usize) {
        self.flow.lock().take(packets);
    }

    /// Whether its WebSocket takes whatever it is given. Only of one that nothing was written to for a while does this mean that it
    /// has everything.
    pub(super) fn has_taken_all(&self) -> bool {
        let websocket = self.websocket.lock();
        websocket.as_ref().is_some_and(|it| !it.is_blocked())
    }

    /// Counts what it has in front of it anew, from nothing.
    pub(super) fn forget_flow(&self) {
        self.flow.lock().forget();
    }

    /// A number that moves when the client takes something.
    pub(super) fn progress(&self, written: Option<u64>) -> u64 {
        written.unwrap_or_else(|| self.flow.lock().polled())
    }

    /// Counts a refused CONNECT; too many close the client.
    pub(super) fn refused(&self) {
        if self.refused.fetch_add(1, Ordering::Relaxed) >= MOST_REFUSED {
            self.close("refused_connects");
        }
    }

    /// Takes one of the `most` namespaces that a client may join.
    pub(super) fn join(&self, most: u32) -> bool {
        let taken = self.joined.fetch_add(1, Ordering::Relaxed);
        if taken >= most {
            self.leave();
            return false;
        }
        self.has_joined.store(true, Ordering::Relaxed);
        true
    }

    /// Notes how far it has the root channel; `None` when it does not follow that.
    pub(super) fn has_root(&self, through: Option<Offset>) {
        let through = through.map_or(NOT_JOINED, Offset::get);
        self.root.store(through, Ordering::Release);
    }

    /// Whether it still has to get something from the root channel, whose newest entry is `newest`, before it may get
    /// `offset` elsewhere: on one connection the root's copy comes first (contract section 9, vector 8).
    pub(super) fn waits_for_root(&self, offset: Offset, newest: Offset) -> bool {
        self.root.load(Ordering::Acquire) < offset.min(newest).get()
    }

    /// Gives a namespace back.
    pub(super) fn leave(&self) {
        self.joined.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end();
        let mut table = self.clients.table.lock();
        table.all.remove(&self.number);
        if let Some(session) = self.session.get_mut().take() {
            table.sessions.remove(&session);
        }
    }
}

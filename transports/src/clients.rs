//! The clients of a transport: how many there are, and how they are told to go.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Context;
use std::time::Duration;

use evows_core::http::Peer;
use evows_core::metrics::{Component, Metrics, Reason};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::admission::Admission;
use crate::rounds::Rounds;

/// How often clients are closed while draining.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// Every client of one transport.
pub(crate) struct Clients {
    component: Arc<str>,
    metrics: Metrics,
    gauge: Gauge,
    /// Deliveries, one shared counter: one atomic addition for each write, however many events went with it.
    pub(crate) deliveries: Counter,
    admission: Admission,
    /// Counts whatever a client is told: one number that all of them look at, instead of each at its own.
    orders: AtomicU64,
    pub(crate) rounds: Arc<Rounds>,
    live: AtomicUsize,
    draining: AtomicBool,
    table: Mutex<Slab<Weak<Client>>>,
    /// Told whenever a client is gone.
    left: Notify,
}

/// One client, from its handshake until its connection or session is over.
pub struct Client {
    at: usize,
    peer: Peer,
    clients: Arc<Clients>,
    /// Why it was told to go.
    closing: OnceLock<&'static str>,
    finishing: AtomicBool,
    ended: AtomicBool,
    task: AtomicWaker,
}

/// What a client's task was told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// To close at once, for this reason.
    Close(&'static str),
    /// To write what waits, and close then.
    Finish,
}

/// Why nobody may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shut {
    /// Too many came in the last moment.
    Busy,
    /// The process is stopping.
    Draining,
}

// === impl Clients ===

impl Clients {
    pub(crate) fn new(component: &Arc<str>, metrics: &Metrics, admission: Admission) -> Self {
        let label = Component::new(Arc::clone(component));
        Self {
            component: Arc::clone(component),
            gauge: metrics.clients.get_or_create(&label).clone(),
            deliveries: metrics.deliveries.get_or_create(&label).clone(),
            metrics: metrics.clone(),
            admission,
            orders: AtomicU64::new(0),
            rounds: Arc::default(),
            live: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            table: Mutex::default(),
            left: Notify::new(),
        }
    }

    /// Clients that are connected.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Changes whenever a client is told something.
    pub(crate) fn orders(&self) -> u64 {
        self.orders.load(Ordering::Acquire)
    }

    /// Counts something that was refused.
    pub(crate) fn refuse(&self, reason: &'static str) {
        self.metrics.refuse(&self.component, reason);
    }

    /// Counts events that a client is not sent.
    pub(crate) fn undelivered(&self, reason: &'static str) {
        let label = Reason {
            component: Arc::clone(&self.component),
            reason,
        };
        self.metrics.undelivered.get_or_create(&label).inc();
    }

    /// Whether the door is open for one more.
    pub(crate) fn may_enter(&self) -> Result<(), Shut> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Shut::Draining);
        }
        if self.admission.take() {
            Ok(())
        } else {
            Err(Shut::Busy)
        }
    }

    /// A new client.
    pub(crate) fn enter(self: &Arc<Self>, peer: Peer) -> Arc<Client> {
        self.live.fetch_add(1, Ordering::Relaxed);
        self.gauge.inc();
        let mut table = self.table.lock();
        let entry = table.vacant_entry();
        let client = Arc::new(Client {
            at: entry.key(),
            peer,
            clients: Arc::clone(self),
            closing: OnceLock::new(),
            finishing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            task: AtomicWaker::new(),
        });
        entry.insert(Arc::downgrade(&client));
        client
    }

    /// Lets nobody in any more, and tells those who are there to go, spread evenly over `over`: each is written what waits for
    /// it first, as far as it takes that in time. Returns when the last is gone.
    pub(crate) async fn drain(&self, over: Duration) {
        self.draining.store(true, Ordering::Relaxed);
        let started = Instant::now();
        // The last tenth is for those that have not finished by then.
        spread(&self.all(), over * 9 / 10, |client| client.finish()).await;
        let tell = || {
            for client in self.all() {
                if started.elapsed() >= over {
                    client.close("shutdown");
                } else {
                    client.finish();
                }
            }
        };
        until_gone(&self.left, || self.live(), tell).await;
    }

    fn all(&self) -> Vec<Arc<Client>> {
        let table = self.table.lock();
        table.iter().filter_map(|(_, it)| it.upgrade()).collect()
    }
}

/// Tells everybody something, spread evenly over so much time.
pub(crate) async fn spread<T>(all: &[T], over: Duration, tell: impl Fn(&T)) {
    let ticks = usize::try_from(over.as_millis() / TICK.as_millis());
    let ticks = ticks.unwrap_or(usize::MAX).max(1);
    let mut told = 0;
    for nth in 1..=ticks {
        let due = all.len().saturating_mul(nth) / ticks;
        all.iter().take(due).skip(told).for_each(&tell);
        told = due;
        if told == all.len() {
            return;
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Tells those who are there to go until nobody is: some may have come through the door just before it was shut. `left` is told
/// whenever one is gone.
pub(crate) async fn until_gone(left: &Notify, live: impl Fn() -> usize, tell: impl Fn()) {
    loop {
        let left = left.notified();
        tell();
        if live() == 0 {
            return;
        }
        tokio::select! {
            () = left => {}
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

// === impl Client ===

impl Client {
    /// Who it is.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Its address, as far as proxies can be trusted to know it.
    pub fn address(&self) -> IpAddr {
        self.peer.client
    }

    /// Closes its transport. Stock clients come back by themselves after that. The first reason stays, and is counted.
    pub fn close(&self, reason: &'static str) {
        self.closing.get_or_init(|| reason);
        self.wake();
    }

    /// Closes its transport once what waits for it is written. To be said again while it is not gone.
    pub(crate) fn finish(&self) {
        self.finishing.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        // In this order: who is woken finds that there is something to look at.
        self.clients.orders.fetch_add(1, Ordering::Release);
        self.task.wake();
    }

    /// What it was told; from now on, its task is woken when it is told something. It need not ask again before
    /// [`orders`](Clients::orders) changes.
    pub(crate) fn told(&self, cx: &Context<'_>) -> Option<Told> {
        self.task.register(cx.waker());
        self.told_so_far()
    }

    fn told_so_far(&self) -> Option<Told> {
        match self.closing.get() {
            Some(reason) => Some(Told::Close(reason)),
            None if self.finishing.load(Ordering::Acquire) => Some(Told::Finish),
            None => None,
        }
    }

    pub(crate) fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// Takes the client out of the count, once.
    pub(crate) fn ended(&self, reason: &'static str) {
        if self.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        let clients = &self.clients;
        clients.metrics.close(&clients.component, reason);
        // What anybody may cause without a key is counted, but not worth a line each.
        if matches!(
            reason,
            "slow" | "gap" | "write_stalled" | "namespace_closed"
        ) {
            tracing::warn!(transport = %clients.component, client = %self.peer.client, reason, "closed a client");
        } else {
            tracing::debug!(transport = %clients.component, client = %self.peer.client, reason, "a client is gone");
        }
        self.leave();
    }

    fn leave(&self) {
        let clients = &self.clients;
        clients.table.lock().try_remove(self.at);
        clients.live.fetch_sub(1, Ordering::Relaxed);
        clients.gauge.dec();
        clients.left.notify_waiters();
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
        if !*self.ended.get_mut() {
            self.leave();
        }
    }
}

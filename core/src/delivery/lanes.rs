//! What waits for delivery, and what may be sent next.
//!
//! A lane is a queue whose batches are sent one after the other; [`Order`] says which events share one. Lanes of one destination
//! share its breaker, its retry budget and its concurrency. Nothing here waits or sends: the [worker](super::worker) asks for
//! the [next](Lanes::next) batch and says how it [ended](Lanes::landed).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;
use tokio::time::Instant;

use super::breaker::{Breaker, Pass};
use super::cargo::{Cargo, Item};
use super::policy::{Delivery, Order};
use super::retry::{Budget, LONGEST_ASKED};
use crate::Event;
use crate::plugin::{Destination, SinkErrorKind};

/// All lanes of one sink.
#[derive(Debug)]
pub(crate) struct Lanes {
    policy: Delivery,
    endpoints: Vec<Endpoint>,
    by_destination: HashMap<Destination, usize>,
    /// The endpoint of the last event: the next one is often for the same.
    last: usize,
    /// Endpoints that may have something to send, each once.
    ready: VecDeque<usize>,
    /// When to look at which endpoint again.
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    flights: HashMap<FlightId, Arc<Cargo>>,
    next_flight: FlightId,
    /// What has landed and is not done with.
    held: Vec<(FlightId, Vec<Item>)>,
    /// What the lanes hold, and what is under way.
    events: usize,
    bytes: usize,
    /// No event will come any more: nothing waits for others.
    closing: bool,
}

/// One destination.
#[derive(Debug)]
struct Endpoint {
    destination: Destination,
    breaker: Breaker,
    budget: Budget,
    /// What the destination asked for.
    paused_until: Option<Instant>,
    in_flight: usize,
    lanes: Vec<Lane>,
    by_key: HashMap<Arc<str>, usize>,
    /// The lane of the last event.
    last: usize,
    free: Vec<usize>,
    ready: VecDeque<usize>,
    waiting: BinaryHeap<Reverse<(Instant, usize)>>,
    /// How many lanes make it worth looking for unused ones.
    tidy_at: usize,
    /// Whether it is among the ready ones.
    listed: bool,
}

#[derive(Debug, Default)]
struct Lane {
    items: VecDeque<Item>,
    bytes: usize,
    state: State,
    /// How many items at the front were sent before, in one batch, and are sent so again.
    again: usize,
    /// What it is found by. Without order, what failed gets a lane of its own, which has none.
    key: Option<Arc<str>>,
    failures: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    /// Among the endpoint's ready ones.
    Ready,
    /// Until then for other events, or for the next attempt.
    Waiting(Instant),
    Flying,
}

/// A batch under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FlightId(u64);

/// Where a batch under way belongs.
#[derive(Debug)]
pub(crate) struct Flight {
    id: FlightId,
    endpoint: usize,
    lane: usize,
    /// Failures of this batch so far.
    pub(crate) failures: u32,
}

/// What becomes of what failed.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It is tried again. `opened`: the destination is left alone from now on.
    Again { opened: bool },
    /// It is given up, for this reason. [`Lanes::done`] then, or [`Lanes::put_back`].
    GivenUp(Vec<Item>, &'static str),
}

// === impl Lanes ===

impl Lanes {
    pub(crate) fn new(policy: Delivery) -> Self {
        Self {
            policy,
            endpoints: Vec::new(),
            by_destination: HashMap::new(),
            last: 0,
            ready: VecDeque::new(),
            timers: BinaryHeap::new(),
            flights: HashMap::new(),
            next_flight: FlightId(0),
            held: Vec::new(),
            events: 0,
            bytes: 0,
            closing: false,
        }
    }

    pub(crate) fn policy(&self) -> &Delivery {
        &self.policy
    }

    /// Events in lanes and under way.
    pub(crate) fn events(&self) -> usize {
        self.events
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a destination is not left alone.
    pub(crate) fn is_served(&self, destination: &Destination) -> bool {
        let at = self.by_destination.get(destination);
        at.is_none_or(|&at| self.endpoints[at].breaker.is_closed())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Puts an item at the end of its lane.
    pub(crate) fn push(&mut self, destination: &Destination, item: Item, now: Instant) {
        let at = self.endpoint(destination);
        let size = item.event.size();
        self.events += 1;
        self.bytes += size;
        let endpoint = &mut self.endpoints[at];
        let key = match self.policy.order {
            Order::Instance => item.event.instance(),
            Order::Strict | Order::None => "",
        };
        let index = endpoint.lane(key);
        let lane = &mut endpoint.lanes[index];
        lane.items.push_back(item);
        lane.bytes += size;
        let batch = &self.policy.batch;
        let is_full = lane.items.len() >= batch.max_events.get() || lane.bytes >= batch.max_bytes;
        let goes_now = is_full || self.closing || batch.max_wait.is_zero();
        match lane.state {
            State::Idle if !goes_now => {
                let until = now + batch.max_wait;
                lane.state = State::Waiting(until);
                endpoint.waiting.push(Reverse((until, index)));
                self.timers.push(Reverse((until, at)));
            }
            State::Idle => self.set_ready(at, index),
            // Those that wait for another attempt are not to be hurried.
            State::Waiting(_) if is_full && lane.again == 0 => self.set_ready(at, index),
            _ => {}
        }
    }

    /// Nothing more will be pushed: what waits for other events goes now.
    pub(crate) fn close(&mut self) {
        self.closing = true;
        for at in 0..self.endpoints.len() {
            for index in 0..self.endpoints[at].lanes.len() {
                let lane = &self.endpoints[at].lanes[index];
                if matches!(lane.state, State::Waiting(_)) && lane.again == 0 {
                    self.set_ready(at, index);
                }
            }
        }
    }

    /// The next batch that may be sent now.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(Flight, Arc<Cargo>)> {
        self.wake(now);
        while let Some(at) = self.ready.pop_front() {
            self.endpoints[at].listed = false;
            match self.endpoints[at].may_send(now, self.policy.concurrency.get()) {
                Ok(index) => {
                    let flight = self.depart(at, index, now);
                    self.list(at);
                    return Some(flight);
                }
                Err(Some(later)) => self.timers.push(Reverse((later, at))),
                // What it waits for lists it again.
                Err(None) => {}
            }
        }
        None
    }

    /// When [`next`](Self::next) may have something that it has not now.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes back a batch that is no longer under way: nobody else may have its cargo any more.
    pub(crate) fn land(&mut self, flight: &Flight) -> Option<Cargo> {
        let cargo = self.flights.remove(&flight.id)?;
        self.endpoints[flight.endpoint].in_flight -= 1;
        let cargo = Arc::into_inner(cargo);
        debug_assert!(cargo.is_some(), "the future of a flight that ended is gone");
        if let Some(cargo) = &cargo {
            self.events -= cargo.events.len();
            self.bytes -= cargo.events.iter().map(Event::size).sum::<usize>();
        }
        cargo
    }

    /// A batch of `events` was delivered, all of it.
    pub(crate) fn delivered(&mut self, flight: &Flight, events: usize, now: Instant) {
        let endpoint = &mut self.endpoints[flight.endpoint];
        endpoint.breaker.note(true, now);
        endpoint.budget.deposit(events);
        self.done(flight);
    }

    /// A batch failed, of which `failed` are left, in order; the others were delivered.
    pub(crate) fn failed(
        &mut self,
        flight: &Flight,
        failed: Vec<Item>,
        kind: SinkErrorKind,
        now: Instant,
    ) -> Verdict {
        let endpoint = &mut self.endpoints[flight.endpoint];
        let permanent = kind == SinkErrorKind::Permanent;
        let was_closed = endpoint.breaker.is_closed();
        // What is refused for what it is was answered all the same.
        let opened = endpoint.breaker.note(permanent, now);
        if let SinkErrorKind::Transient {
            retry_after: Some(asked),
        }
        | SinkErrorKind::Overloaded {
            retry_after: Some(asked),
        } = kind
        {
            let until = now + asked.min(LONGEST_ASKED);
            endpoint.paused_until = endpoint.paused_until.max(Some(until));
        }
        // An outage is not held against the event that was used to see whether it is over.
        let counts = was_closed || matches!(kind, SinkErrorKind::Transient { .. });
        let failures = flight.failures + u32::from(counts);
        let reason = match kind {
            SinkErrorKind::Permanent => Some("permanent"),
            _ if failures >= self.policy.retry.attempts => Some("retries_exhausted"),
            _ => None,
        };
        if let Some(reason) = reason {
            return Verdict::GivenUp(failed, reason);
        }
        let until = now + self.policy.retry.wait(failures.max(1), kind);
        self.put_back(flight, failed, failures, until);
        Verdict::Again { opened }
    }

    /// Keeps items of a batch that has landed while somebody looks after them.
    pub(crate) fn hold(&mut self, flight: &Flight, items: Vec<Item>) {
        self.events += items.len();
        self.bytes += items.iter().map(|it| it.event.size()).sum::<usize>();
        self.held.push((flight.id, items));
    }

    /// Gives back what is held.
    pub(crate) fn release(&mut self, flight: &Flight) -> Vec<Item> {
        let at = self.held.iter().position(|(id, _)| *id == flight.id);
        let items = at.map(|at| self.held.swap_remove(at).1).unwrap_or_default();
        self.events -= items.len();
        self.bytes -= items.iter().map(|it| it.event.size()).sum::<usize>();
        items
    }

    /// The sink panicked over a batch.
    pub(crate) fn panicked(&mut self, flight: &Flight, now: Instant) {
        self.endpoints[flight.endpoint].breaker.note(false, now);
    }

    /// Whether there has been one destination at most.
    pub(crate) fn is_single(&self) -> bool {
        self.endpoints.len() <= 1
    }

    /// Nothing of a batch is left: its lane may send the next one.
    pub(crate) fn done(&mut self, flight: &Flight) {
        let at = flight.endpoint;
        if self.policy.order != Order::None {
            self.endpoints[at].settle_lane(flight.lane);
        }
        self.list(at);
    }

    /// Puts what could not even be given up back in front of its lane, to be tried again at `until`.
    pub(crate) fn put_back(
        &mut self,
        flight: &Flight,
        items: Vec<Item>,
        failures: u32,
        until: Instant,
    ) {
        let at = flight.endpoint;
        let endpoint = &mut self.endpoints[at];
        let index = match self.policy.order {
            // Others do not wait for it.
            Order::None => endpoint.new_lane(),
            Order::Strict | Order::Instance => flight.lane,
        };
        let lane = &mut endpoint.lanes[index];
        lane.again = items.len();
        lane.failures = failures;
        self.events += items.len();
        for item in items.into_iter().rev() {
            let size = item.event.size();
            lane.bytes += size;
            self.bytes += size;
            lane.items.push_front(item);
        }
        lane.state = State::Waiting(until);
        endpoint.waiting.push(Reverse((until, index)));
        self.timers.push(Reverse((until, at)));
        self.list(at);
    }

    /// Takes out everything, in order within each lane. The futures of all flights must be gone.
    pub(crate) fn drain(&mut self) -> Vec<Item> {
        let mut items = Vec::with_capacity(self.events);
        items.extend(self.held.drain(..).flat_map(|(_, items)| items));
        for (_, cargo) in self.flights.drain() {
            items.extend(
                Arc::into_inner(cargo)
                    .into_iter()
                    .flat_map(Cargo::into_items),
            );
        }
        for endpoint in &mut self.endpoints {
            for lane in &mut endpoint.lanes {
                items.extend(lane.items.drain(..));
            }
        }
        (self.events, self.bytes) = (0, 0);
        items
    }

    fn endpoint(&mut self, destination: &Destination) -> usize {
        let last = self.endpoints.get(self.last);
        if last.is_some_and(|last| last.destination == *destination) {
            return self.last;
        }
        if let Some(&at) = self.by_destination.get(destination) {
            self.last = at;
            return at;
        }
        let at = self.endpoints.len();
        let endpoint = Endpoint {
            destination: destination.clone(),
            breaker: Breaker::new(self.policy.breaker),
            budget: Budget::new(&self.policy.retry),
            paused_until: None,
            in_flight: 0,
            lanes: Vec::new(),
            by_key: HashMap::new(),
            last: 0,
            free: Vec::new(),
            ready: VecDeque::new(),
            waiting: BinaryHeap::new(),
            tidy_at: Endpoint::KEPT,
            listed: false,
        };
        self.endpoints.push(endpoint);
        self.by_destination.insert(destination.clone(), at);
        at
    }

    fn list(&mut self, at: usize) {
        let endpoint = &mut self.endpoints[at];
        if !endpoint.listed && !endpoint.ready.is_empty() {
            endpoint.listed = true;
            self.ready.push_back(at);
        }
    }

    fn set_ready(&mut self, at: usize, index: usize) {
        let endpoint = &mut self.endpoints[at];
        endpoint.lanes[index].state = State::Ready;
        endpoint.ready.push_back(index);
        self.list(at);
    }

    /// Lists endpoints whose time has come.
    fn wake(&mut self, now: Instant) {
        while let Some(Reverse((when, at))) = self.timers.peek().copied() {
            if when > now {
                return;
            }
            self.timers.pop();
            while let Some(index) = self.endpoints[at].due(now) {
                self.set_ready(at, index);
            }
            self.list(at);
        }
    }

    fn depart(&mut self, at: usize, index: usize, now: Instant) -> (Flight, Arc<Cargo>) {
        let endpoint = &mut self.endpoints[at];
        let lane = &mut endpoint.lanes[index];
        let most = match lane.again {
            0 => self.policy.batch.max_events.get(),
            again => again,
        };
        let (mut events, mut tags, mut bytes) = (Vec::new(), Vec::new(), 0);
        events.reserve_exact(most.min(lane.items.len()));
        tags.reserve_exact(most.min(lane.items.len()));
        while events.len() < most
            && let Some(item) = lane.items.front()
        {
            let size = item.event.size();
            if bytes > 0 && bytes + size > self.policy.batch.max_bytes && lane.again == 0 {
                break;
            }
            bytes += size;
            if let Some(item) = lane.items.pop_front() {
                events.push(item.event);
                tags.push(item.tag);
            }
        }
        lane.bytes -= bytes;
        let failures = std::mem::take(&mut lane.failures);
        lane.again = 0;
        lane.state = State::Flying;
        if self.policy.order == Order::None {
            endpoint.settle_lane(index);
        }
        endpoint.in_flight += 1;
        endpoint.breaker.begin(now);
        let cargo = Arc::new(Cargo {
            destination: endpoint.destination.clone(),
            events,
            tags,
        });
        let id = self.next_flight;
        self.next_flight = FlightId(id.0 + 1);
        self.flights.insert(id, Arc::clone(&cargo));
        let flight = Flight {
            id,
            endpoint: at,
            lane: index,
            failures,
        };
        (flight, cargo)
    }
}

// === impl Flight ===

impl Flight {
    /// How often its events were sent, this time included.
    pub(crate) fn attempts(&self) -> u32 {
        self.failures.saturating_add(1)
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// Lanes without events that are kept, so that a steady flow makes none anew.
    const KEPT: usize = 1024;

    fn lane(&mut self, key: &str) -> usize {
        let last = self.lanes.get(self.last);
        if last.is_some_and(|last| last.key.as_deref() == Some(key)) {
            return self.last;
        }
        if let Some(&index) = self.by_key.get(key) {
            self.last = index;
            return index;
        }
        if self.by_key.len() >= self.tidy_at {
            self.tidy();
            // Where most lanes are in use it is not tried again for every new one.
            self.tidy_at = Self::KEPT.max(2 * self.by_key.len());
        }
        let index = self.new_lane();
        let key: Arc<str> = key.into();
        self.lanes[index].key = Some(Arc::clone(&key));
        self.by_key.insert(key, index);
        index
    }

    fn new_lane(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.lanes.push(Lane::default());
            self.lanes.len() - 1
        })
    }

    /// Forgets the lanes that nothing is in.
    fn tidy(&mut self) {
        let Self {
            by_key,
            lanes,
            free,
            ..
        } = self;
        by_key.retain(|_, index| {
            let idle = lanes[*index].state == State::Idle;
            if idle {
                lanes[*index] = Lane::default();
                free.push(*index);
            }
            !idle
        });
    }

    /// After a batch left or ended: ready again, or idle. One without a key is forgotten.
    fn settle_lane(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if !lane.items.is_empty() {
            lane.state = State::Ready;
            self.ready.push_back(index);
            return;
        }
        lane.state = State::Idle;
        if lane.key.is_none() {
            self.free.push(index);
        }
    }

    /// The lane that may send now, taken out of the ready ones; or when to ask again, if time alone makes a difference.
    fn may_send(&mut self, now: Instant, concurrency: usize) -> Result<usize, Option<Instant>> {
        if self.ready.is_empty() || self.in_flight >= concurrency {
            return Err(None);
        }
        if let Some(until) = self.paused_until {
            if now < until {
                return Err(Some(until));
            }
            self.paused_until = None;
        }
        match self.breaker.pass(now) {
            Pass::Yes | Pass::Probe => {}
            Pass::NotBefore(until) => return Err(Some(until)),
            Pass::Never => return Err(None),
        }
        let index = self.ready.pop_front().ok_or(None)?;
        if self.lanes[index].again > 0
            && let Err(later) = self.budget.withdraw(now)
        {
            // First times go before it meanwhile.
            self.ready.push_back(index);
            let first = self.ready.iter().position(|&it| self.lanes[it].again == 0);
            let first = first.and_then(|at| self.ready.remove(at));
            return first.ok_or(Some(later));
        }
        Ok(index)
    }

    /// The next lane whose wait is over.
    fn due(&mut self, now: Instant) -> Option<usize> {
        while let Some(Reverse((when, index))) = self.waiting.peek().copied() {
            if when > now {
                return None;
            }
            self.waiting.pop();
            // Others were made ready before.
            if self.lanes[index].state == State::Waiting(when) {
                return Some(index);
            }
        }
        None
    }
}

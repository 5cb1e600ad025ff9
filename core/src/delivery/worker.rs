//! The task in front of one sink.

mod spooled;

use std::collections::HashSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::cargo::{Cargo, Ending, Item};
use super::dead_letter::{Folder, Letter};
use super::inbox::Inbox;
use super::intake::{Intake, Taken};
use super::lanes::{Flight, Lanes, Verdict};
use super::policy::{Delivery, Order};
use super::retry::{Backoff, RESTART};
use crate::config::{BufferConfig, Period};
use crate::plugin::{Batch, Destination, FailedEvents, Sink, SinkError, SinkErrorKind};
use crate::topology::ledger::Ledger;
use crate::topology::plan::{Part, Rebuild};
use crate::topology::queue::DEADLINE;
use crate::topology::supervise::rebuild;
use crate::{Event, Outcome};

/// How long events are kept back that are neither delivered nor among the dead letters.
const UNWRITTEN: Duration = Duration::from_secs(5);

/// How many events are taken from the queue at once.
const TAKEN: usize = 256;

/// Takes what waits in the queue, has the sink deliver it, tries again what is worth it, and ends every event.
pub(crate) struct Worker {
    sink: Arc<dyn Sink>,
    /// Not here while the sink connects.
    rebuild: Option<Rebuild<Box<dyn Sink>>>,
    connecting: Option<BoxFuture<'static, Connected>>,
    intake: Intake,
    /// What the lanes may hold.
    limits: BufferConfig,
    lanes: Lanes,
    destinations: Vec<Destination>,
    letters: Option<Letters>,
    ledger: Arc<Ledger>,
    complaints: Complaints,
}

/// The dead letters of a sink.
struct Letters {
    folder: Folder,
    inbox: Inbox,
}

/// A sink that has started.
type Connected = (Arc<dyn Sink>, Rebuild<Box<dyn Sink>>);

/// What was last said of failing events, so that a sink that fails for good is not logged with every batch.
#[derive(Debug, Default)]
struct Complaints(Option<String>);

/// How one attempt went.
enum Attempt {
    Sent(Result<(), SinkError>),
    Panicked,
}

type Flights = FuturesUnordered<BoxFuture<'static, (Flight, Attempt)>>;

// === impl Worker ===

impl Worker {
    pub(crate) fn new(
        part: Part<Box<dyn Sink>>,
        delivery: &Delivery,
        limits: BufferConfig,
        intake: Intake,
        ledger: Arc<Ledger>,
    ) -> Self {
        let mut worker = Self {
            sink: part.built.into(),
            rebuild: Some(part.rebuild),
            connecting: None,
            intake,
            limits,
            lanes: Lanes::new(delivery.clone()),
            destinations: Vec::new(),
            letters: delivery.dead_letter.as_deref().map(|template| {
                let sink = Arc::clone(ledger.component());
                let folder = Folder::new(template, &sink);
                Letters {
                    inbox: Inbox::new(folder.clone(), sink),
                    folder,
                }
            }),
            ledger,
            complaints: Complaints::default(),
        };
        worker.connect(false);
        worker
    }

    /// Works until the queue ends. When `cut` comes first, what is left fails.
    pub(crate) async fn run(mut self, cut: CancellationToken) {
        // Cutting drops the work at any await, its flights with it; the events live out here, so none is forgotten.
        let worked = cut.run_until_cancelled(self.work()).await;
        let items = self.lanes.drain();
        if worked.is_none() {
            for item in items {
                // What is on the disk is delivered by the next process.
                if item.tag.offset == 0 {
                    item.end(Ending::failed(DEADLINE), &self.ledger);
                }
            }
        }
        if let Intake::Spool(spool) = &mut self.intake {
            spool.close().await;
            self.ledger.set_buffered(spool.backlog());
        }
        // The queue's receiver goes with `self` and fails what it still holds.
    }

    async fn work(&mut self) {
        let mut flights = Flights::new();
        let mut taken = Vec::with_capacity(TAKEN);
        let (mut open, mut closing) = (true, false);
        let left = self.intake.left();
        tokio::pin!(left);
        loop {
            let mut more = false;
            if !closing {
                more = self.catch_up().await;
                self.depart(&flights);
            }
            // What is on the disk need not be waited for.
            let leaves = closing && flights.is_empty();
            if leaves || (!open && !more && self.lanes.is_empty()) {
                break;
            }
            let room = open && !closing && self.has_room();
            // Nothing departs while it connects, whatever time it is.
            let wake_at = self.lanes.wake_at();
            let wake_at = wake_at.filter(|_| self.connecting.is_none() && !closing);
            let save_at = match &self.intake {
                Intake::Spool(spool) => spool.save_at(),
                Intake::Queue(_) => None,
            };
            let look_at = self.letters.as_ref().map(|it| it.inbox.look_at());
            tokio::select! {
                // What has landed makes room, so it comes first.
                biased;
                Some((flight, attempt)) = flights.next() => self.land(&flight, attempt).await,
                (sink, rebuild) = connected(&mut self.connecting) => {
                    self.connecting = None;
                    (self.sink, self.rebuild) = (sink, Some(rebuild));
                }
                new = self.intake.take(&mut taken, TAKEN), if room => match new {
                    Taken::Events => self.take(&mut taken),
                    Taken::Records(records) => self.take_records(records),
                    Taken::End => {
                        open = false;
                        self.lanes.close();
                    }
                },
                () = &mut left, if !closing => closing = true,
                () = until(save_at) => self.save().await,
                () = until(wake_at) => {}
                () = until(look_at), if room => self.take_letters().await,
                () = tokio::task::yield_now(), if more => {}
            }
        }
        drop(flights);
        // One that never started has nothing to stop.
        if self.connecting.is_none() {
            match AssertUnwindSafe(self.sink.stop()).catch_unwind().await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(sink = self.id(), %error, "the sink did not stop cleanly");
                }
                Err(_) => tracing::error!(sink = self.id(), "the sink panicked while it stopped"),
            }
        }
    }

    /// Whether the lanes may take more. Empty ones take an event of any size.
    fn has_room(&self) -> bool {
        let policy = self.lanes.policy();
        let most = match policy.order {
            // One batch at a time: the rest waits in the queue, where there is a policy for what finds it full.
            Order::Strict if !self.lanes.is_single() => self.limits.events,
            Order::Strict if policy.batch.max_wait.is_zero() => 1,
            Order::Strict => policy.batch.max_events.get(),
            Order::Instance | Order::None => self.limits.events,
        };
        self.lanes.events() < most && self.lanes.bytes() < self.limits.bytes.bytes()
    }

    /// Puts events into their lanes.
    fn take(&mut self, taken: &mut Vec<Event>) {
        let now = Instant::now();
        for event in taken.drain(..) {
            if let Ok(item) = self.address(event, 0) {
                self.place(item, now);
            }
        }
    }

    /// Asks the sink where an event goes. Afterwards `self.destinations` has at least one, or the event has ended like this.
    fn address(&mut self, event: Event, offset: u64) -> Result<Item, Outcome> {
        let asked = self.ask(&event);
        let item = Item::new(event, offset);
        let ending = if !asked {
            tracing::error!(sink = self.id(), "the sink panicked over a destination");
            Ending::failed("panic")
        } else if self.destinations.is_empty() {
            Ending::filtered("no_destination")
        } else {
            return Ok(item);
        };
        item.end(ending, &self.ledger);
        Err(ending.settled)
    }

    /// Puts an event's destinations into `self.destinations`; `false` when the sink panicked.
    fn ask(&mut self, event: &Event) -> bool {
        self.destinations.clear();
        let (sink, destinations) = (&self.sink, &mut self.destinations);
        catch_unwind(AssertUnwindSafe(|| sink.destinations(event, destinations))).is_ok()
    }

    /// Puts an item into the lanes of `self.destinations`.
    fn place(&mut self, item: Item, now: Instant) {
        match self.destinations.as_slice() {
            [] => {}
            [only] => self.lanes.push(only, item, now),
            all => {
                for (destination, item) in all.iter().zip(item.split(all.len())) {
                    self.lanes.push(destination, item, now);
                }
            }
        }
    }

    /// Takes up dead letters that are to be sent again.
    async fn take_letters(&mut self) {
        let Some(letters) = &mut self.letters else {
            return;
        };
        let items = letters.inbox.take(TAKEN).await;
        self.ledger.received.inc_by(items.len() as u64);
        let now = Instant::now();
        for (destination, item) in items {
            self.lanes.push(&destination, item, now);
        }
    }

    /// Sends whatever may be sent now.
    fn depart(&mut self, flights: &Flights) {
        if self.connecting.is_some() {
            return;
        }
        let now = Instant::now();
        while let Some((flight, cargo)) = self.lanes.next(now) {
            let (sink, limit) = (Arc::clone(&self.sink), self.lanes.policy().timeout);
            flights.push(Box::pin(async move {
                let attempt = attempt(&*sink, &cargo, limit).await;
                drop(cargo);
                (flight, attempt)
            }));
        }
    }

    /// Cancel safe in that every event is in the lanes, or ended, at every await.
    async fn land(&mut self, flight: &Flight, attempt: Attempt) {
        let Some(cargo) = self.lanes.land(flight) else {
            return;
        };
        let now = Instant::now();
        let error = match attempt {
            Attempt::Sent(Ok(())) => {
                self.complaints = Complaints::default();
                self.lanes.delivered(flight, cargo.events.len(), now);
                self.note_ended(&cargo.destination, &cargo.tags, Outcome::Delivered);
                cargo.deliver(&self.ledger);
                return;
            }
            Attempt::Sent(Err(error)) => error,
            Attempt::Panicked => {
                let (sink, events) = (self.id(), cargo.events.len());
                tracing::error!(sink, events, "the sink panicked and is built again");
                self.lanes.panicked(flight, now);
                let destination = cargo.destination.clone();
                let items = cargo.into_items().collect();
                self.give_up(flight, &destination, items, "panic", "the sink panicked")
                    .await;
                self.connect(true);
                return;
            }
        };
        let destination = cargo.destination.clone();
        let failed = self.keep_failed(cargo, &destination, &error.failed);
        if failed.is_empty() {
            self.lanes.delivered(flight, 0, now);
            return;
        }
        let events = failed.len();
        match self.lanes.failed(flight, failed, error.kind, now) {
            Verdict::Again { opened } => {
                tracing::debug!(sink = self.id(), %destination, events, %error, "trying again");
                self.ledger.retries.inc();
                if opened {
                    let open = self.lanes.policy().breaker.open;
                    tracing::warn!(sink = self.id(), %destination, %error, ?open, "too many attempts fail: the destination is left alone for a while");
                }
            }
            Verdict::GivenUp(items, reason) => {
                if self.complaints.is_new(&error) {
                    tracing::warn!(sink = self.id(), %destination, events, reason, %error, "events could not be delivered; this is said once until it changes");
                }
                let error = error.to_string();
                self.give_up(flight, &destination, items, reason, &error)
                    .await;
            }
        }
        if error.kind == SinkErrorKind::Disconnected {
            self.connect(false);
        }
    }

    /// Ends events for good: among the dead letters where there are any, or else as failed.
    async fn give_up(
        &mut self,
        flight: &Flight,
        destination: &Destination,
        items: Vec<Item>,
        reason: &'static str,
        error: &str,
    ) {
        let Some(letters) = &self.letters else {
            self.end(destination, items, Ending::failed(reason));
            self.lanes.done(flight);
            return;
        };
        let attempts = flight.attempts();
        let names = (&**self.ledger.component(), destination.name());
        let lines: String = items
            .iter()
            .map(|item| Letter::new(&item.event, names, (reason, attempts, error)).line())
            .collect();
        let folder = letters.folder.clone();
        // In its lane while it is written, so that nothing is forgotten when this is cut off, and nothing overtakes it.
        self.lanes.hold(flight, items);
        let written = tokio::task::spawn_blocking(move || folder.append(&lines)).await;
        let items = self.lanes.release(flight);
        match written.map_err(io::Error::other).flatten() {
            Ok(()) => {
                self.ledger.dead_letters.inc_by(items.len() as u64);
                self.end(destination, items, Ending::dead(reason));
                self.lanes.done(flight);
            }
            Err(error) => {
                tracing::error!(sink = self.id(), %destination, %error, "dead letters cannot be written: the events are tried again");
                let until = Instant::now() + UNWRITTEN;
                self.lanes.put_back(flight, items, attempts, until);
            }
        }
    }

    /// Ends the events that an error is not about, and gives back the others.
    fn keep_failed(
        &mut self,
        cargo: Cargo,
        destination: &Destination,
        failed: &FailedEvents,
    ) -> Vec<Item> {
        let items = cargo.into_items();
        let FailedEvents::At(indices) = failed else {
            return items.collect();
        };
        let indices: HashSet<usize> = indices.iter().copied().collect();
        let (mut kept, mut delivered) = (Vec::with_capacity(indices.len()), Vec::new());
        for (index, item) in items.enumerate() {
            if indices.contains(&index) {
                kept.push(item);
            } else {
                delivered.push(item);
            }
        }
        self.end(destination, delivered, Ending::DELIVERED);
        kept
    }

    fn end(&mut self, destination: &Destination, items: Vec<Item>, ending: Ending) {
        for item in items {
            if ending.settled == Outcome::Failed {
                self.note_failed(&item);
            }
            self.note_ended(destination, [&item.tag], ending.settled);
            item.end(ending, &self.ledger);
        }
    }

    /// Starts the sink, built anew if that is asked for. Until it is up nothing is sent.
    fn connect(&mut self, anew: bool) {
        // While it connects there is nothing to do anew but what is being done.
        let Some(mut rebuild) = self.rebuild.take() else {
            return;
        };
        let (mut sink, ledger) = (Arc::clone(&self.sink), Arc::clone(&self.ledger));
        self.connecting = Some(Box::pin(async move {
            let mut backoff = Backoff::new(RESTART);
            if anew {
                sink = replace(&mut rebuild, &ledger, &mut backoff).await;
            }
            connect(&mut sink, &mut rebuild, &ledger, backoff).await;
            (sink, rebuild)
        }));
    }

    fn id(&self) -> &str {
        self.ledger.component()
    }
}

// === impl Complaints ===

impl Complaints {
    /// Whether this differs from what was said last.
    fn is_new(&mut self, error: &SinkError) -> bool {
        let text = error.to_string();
        let is_new = self.0.as_ref() != Some(&text);
        self.0 = Some(text);
        is_new
    }
}

async fn attempt(sink: &dyn Sink, cargo: &Cargo, limit: Duration) -> Attempt {
    let batch = Batch::new(&cargo.destination, &cargo.events);
    // The call itself may panic before it gives a future, so it belongs inside.
    let sending = AssertUnwindSafe(async move { sink.send(batch).await }).catch_unwind();
    match timeout(limit, sending).await {
        Ok(Ok(sent)) => Attempt::Sent(sent),
        Ok(Err(_)) => Attempt::Panicked,
        Err(_) => Attempt::Sent(Err(SinkError::overloaded(format!(
            "no answer within {}",
            Period(limit)
        )))),
    }
}

/// Waits until then; for ever without a time. Cancel safe.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The sink once it is up; never when it is up already. Cancel safe.
async fn connected(connecting: &mut Option<BoxFuture<'static, Connected>>) -> Connected {
    match connecting {
        Some(connecting) => connecting.await,
        None => std::future::pending().await,
    }
}

/// Starts a sink, again and again until it starts; one that panics is built again.
async fn connect(
    sink: &mut Arc<dyn Sink>,
    rebuild: &mut Rebuild<Box<dyn Sink>>,
    ledger: &Ledger,
    mut backoff: Backoff,
) {
    let id = &**ledger.component();
    loop {
        match AssertUnwindSafe(sink.start()).catch_unwind().await {
            Ok(Ok(())) => {
                ledger.set_up();
                return;
            }
            Ok(Err(error)) => {
                ledger.set_down(&error);
                let wait = backoff.next();
                tracing::warn!(sink = id, %error, ?wait, "the sink does not start");
                tokio::time::sleep(wait).await;
            }
            Err(_) => {
                tracing::error!(sink = id, "the sink panicked while it started");
                ledger.set_down("it panicked while it started");
                *sink = replace(rebuild, ledger, &mut backoff).await;
            }
        }
    }
}

async fn replace(
    again: &mut Rebuild<Box<dyn Sink>>,
    ledger: &Ledger,
    backoff: &mut Backoff,
) -> Arc<dyn Sink> {
    ledger.restarts.inc();
    tokio::time::sleep(backoff.next()).await;
    rebuild(again, ledger, backoff).await.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_failure_is_said_once() {
        let mut complaints = Complaints::default();
        let said = ["gone", "gone", "full", "gone"]
            .map(|message| complaints.is_new(&SinkError::permanent(message)));
        assert_eq!(said, [true, false, true, true]);
    }
}

//! An async filter: a task between a queue and the segment that its verdicts feed.
//!
//! The first node of that segment stands for the filter. It does with each event what the verdict on it says,
//! and so counts, routes and ends events as it does for a filter that runs inline.

mod successor;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::successor::Successor;
use super::fanout::Output;
use super::ledger::Ledger;
use super::node::{Node, PANIC};
use super::plan::{BuiltFilter, Rebuild};
use super::queue::{DEADLINE, Receiver};
use super::segment::{CHUNK, Segment};
use super::supervise::{let_go, rebuild};
use crate::Event;
use crate::delivery::retry::{Backoff, RESTART};
use crate::plugin::{AsyncFilter, BuildError, Emitter, Filter, Limits, Verdict};
use crate::shutdown::Shutdown;

pub(crate) use self::successor::AsyncReplacement;

/// The reason of events that were answered with no event at all.
pub(crate) const NO_OUTPUT: &str = "no_output";

/// The reason of events for which the filter would have had to start while the process stopped.
pub(crate) const NOT_STARTED: &str = "not_started";

/// The verdicts on the events that the node is given next, in their order.
type Verdicts = Arc<Mutex<VecDeque<Verdict>>>;

/// Feeds a segment with what an async filter makes of the events of a queue.
pub(crate) struct AsyncNode {
    id: Arc<str>,
    filter: Arc<dyn AsyncFilter>,
    limits: Limits,
    rebuild: Rebuild<BuiltFilter>,
    backoff: Backoff,
    ledger: Arc<Ledger>,
    verdicts: Verdicts,
    /// The events under way. Here, and not in the futures, so that they can be ended when those are dropped.
    events: VecDeque<Event>,
    at_work: FuturesOrdered<Call>,
    /// The verdicts on the first of `events`, which are not passed on yet.
    done: VecDeque<Verdict>,
    /// How often the filter was built: a panic of an earlier one says nothing about this one.
    built: usize,
    /// Given when the process stops: then nobody waits any more for a filter that cannot start.
    stopping: Shutdown,
    /// It could not start before the process stopped.
    given_up: bool,
    replacements: (
        UnboundedSender<AsyncReplacement>,
        UnboundedReceiver<AsyncReplacement>,
    ),
    /// What takes its place once it has started.
    successor: Option<Successor>,
}

/// A call, on a task of its own: it goes on while this one waits for a full queue, and ends when this is dropped.
struct Call {
    task: AbortOnDropHandle<Verdict>,
    /// Which build of the filter is called.
    built: usize,
}

/// The filter of this build panicked.
struct Panicked(usize);

/// What stands for the filter in its segment.
struct Verdicted(Verdicts);

/// What a task does next.
enum Step {
    Taken(bool),
    Done(Option<Result<Verdict, Panicked>>),
    Replace(AsyncReplacement),
    Succeed,
}

// === impl AsyncNode ===

impl AsyncNode {
    /// The task's side and the segment's side of an async filter.
    pub(crate) fn new(
        id: Arc<str>,
        filter: Arc<dyn AsyncFilter>,
        rebuild: Rebuild<BuiltFilter>,
        outputs: Vec<Output>,
        ledger: Arc<Ledger>,
        stopping: Shutdown,
    ) -> (Self, Node) {
        let verdicts = Verdicts::default();
        let shared = Arc::clone(&verdicts);
        let stand_in = move || Box::new(Verdicted(Arc::clone(&shared))) as Box<dyn Filter>;
        let (first, again) = (stand_in(), move || Ok::<_, BuildError>(stand_in()));
        let node = Node::new(first, Box::new(again), outputs, Arc::clone(&ledger));
        let limits = limits(&*filter);
        let this = Self {
            id,
            filter,
            limits,
            rebuild,
            backoff: Backoff::new(RESTART),
            ledger,
            verdicts,
            events: VecDeque::new(),
            at_work: FuturesOrdered::new(),
            done: VecDeque::new(),
            built: 0,
            stopping,
            given_up: false,
            replacements: mpsc::unbounded_channel(),
            successor: None,
        };
        (this, node)
    }

    /// Takes the filters that are to take its place.
    pub(crate) fn replacer(&self) -> UnboundedSender<AsyncReplacement> {
        self.replacements.0.clone()
    }

    /// Feeds the segment until the queue ends, then finishes it. From `cut` on, every event fails at once.
    pub(crate) async fn run(
        mut self,
        segment: Arc<Segment>,
        mut queue: Receiver,
        cut: CancellationToken,
    ) {
        let tickers = segment.start_ticking().await;
        let work = self.work(&segment, &mut queue);
        if cut.run_until_cancelled(work).await.is_none() {
            self.at_work = FuturesOrdered::new();
            let mut batch: Vec<Event> = self.events.drain(..).collect();
            loop {
                let turn = segment.turn().await;
                for _ in &batch {
                    let verdict = self.done.pop_front();
                    let verdict = verdict.unwrap_or(Verdict::Fail(DEADLINE));
                    self.verdicts.lock().push_back(verdict);
                }
                turn.push(batch.drain(..)).await;
                if !queue.receive(&mut batch, CHUNK).await {
                    break;
                }
            }
        }
        drop(tickers);
        segment.finish().await;
    }

    /// Works until the queue ends and nothing is under way. Cancel safe: an event is in the queue, in
    /// `events`, or with the segment.
    async fn work(&mut self, segment: &Segment, queue: &mut Receiver) {
        self.start().await;
        let mut batch = Vec::new();
        let mut open = true;
        while open || !self.at_work.is_empty() {
            // Another build may have another limit.
            let most = self.limits.concurrency.get();
            let room = most.saturating_sub(self.events.len());
            let step = tokio::select! {
                // What comes after a replacement is not for the one before.
                biased;
                Some(new) = self.replacements.1.recv() => Step::Replace(new),
                () = Successor::started(&mut self.successor) => Step::Succeed,
                done = self.at_work.next(), if !self.at_work.is_empty() => Step::Done(done),
                more = queue.receive(&mut batch, room), if open && room > 0 => Step::Taken(more),
            };
            match step {
                Step::Taken(more) => {
                    open = more;
                    for event in batch.drain(..) {
                        self.at_work.push_back(self.apply(event.clone()));
                        self.events.push_back(event);
                    }
                }
                Step::Done(done) => self.pass_on(done, segment).await,
                Step::Replace(mut new) => {
                    new.take_over(&self.id, &*self.filter);
                    self.successor = Some(Successor::new(&self.id, new));
                }
                // What is under way stays with the filter that it was given to.
                Step::Succeed => self.succeed(),
            }
        }
    }

    /// Passes on a verdict, and those that are there already behind it.
    async fn pass_on(&mut self, first: Option<Result<Verdict, Panicked>>, segment: &Segment) {
        let mut broken = false;
        let mut next = first;
        while let Some(result) = next {
            self.done
                .push_back(result.unwrap_or_else(|Panicked(built)| {
                    broken |= built == self.built;
                    Verdict::Fail(PANIC)
                }));
            next = self.at_work.next().now_or_never().flatten();
        }
        let turn = segment.turn().await;
        let events: Vec<_> = self.events.drain(..self.done.len()).collect();
        self.verdicts.lock().extend(self.done.drain(..));
        turn.push(events).await;
        if broken {
            self.replace().await;
        }
    }

    /// One call, bounded in time.
    fn apply(&self, event: Event) -> Call {
        let (filter, limit) = (Arc::clone(&self.filter), self.limits.timeout);
        let given_up = self.given_up;
        let call = async move {
            if given_up {
                return Verdict::Fail(NOT_STARTED);
            }
            match tokio::time::timeout(limit, filter.apply(&event)).await {
                Ok(verdict) => verdict,
                Err(_) => filter.timed_out(&event),
            }
        };
        Call {
            task: AbortOnDropHandle::new(tokio::spawn(call)),
            built: self.built,
        }
    }

    /// Puts another filter in the place of one that panicked.
    async fn replace(&mut self) {
        tracing::error!(filter = &*self.id, "the filter panicked and is built again");
        self.ledger.restarts.inc();
        self.built += 1;
        if self.successor.is_some() {
            self.succeed();
            return self.start().await;
        }
        let rebuilt = rebuild(&mut self.rebuild, &self.ledger, &mut self.backoff);
        let rebuilt = tokio::select! {
            // First, so that it is tried once even when the process stops.
            biased;
            built = rebuilt => built,
            Some(new) = self.replacements.1.recv() => {
                self.exchange(new);
                return self.start().await;
            }
            () = self.stopping.started() => {
                self.given_up = true;
                return;
            }
        };
        if let BuiltFilter::Async(filter) = rebuilt {
            self.put(filter);
        }
        self.start().await;
    }

    /// Puts another filter in the place of this one, which it takes over from, before it has started.
    fn exchange(&mut self, mut new: AsyncReplacement) {
        new.take_over(&self.id, &*self.filter);
        self.install(new);
    }

    /// Puts the successor in the place of this one.
    fn succeed(&mut self) {
        if let Some(successor) = self.successor.take() {
            self.install(successor.into_replacement());
        }
    }

    fn install(&mut self, new: AsyncReplacement) {
        self.put(new.filter);
        self.rebuild = new.rebuild;
        self.built += 1;
        self.given_up = false;
        self.backoff.reset();
    }

    fn put(&mut self, filter: Arc<dyn AsyncFilter>) {
        self.limits = limits(&*filter);
        let old = std::mem::replace(&mut self.filter, filter);
        // This task has events in hand, which a panic would take along.
        let_go(&self.id, old);
    }

    /// Starts the filter, however long that takes; when the process stops, there is one last attempt.
    async fn start(&mut self) {
        loop {
            let mut is_last = self.stopping.is_started();
            let filter = Arc::clone(&self.filter);
            let overdue = async {
                self.stopping.started().await;
                tokio::time::sleep(self.limits.timeout).await;
            };
            let hangs = async {
                tokio::time::sleep(self.limits.timeout).await;
                self.ledger.set_down("it takes long to start");
                std::future::pending::<String>().await
            };
            let error = tokio::select! {
                biased;
                started = start_once(&*filter) => match started {
                    Ok(()) => break,
                    Err(error) => error,
                },
                Some(new) = self.replacements.1.recv() => {
                    self.exchange(new);
                    continue;
                }
                () = overdue => {
                    is_last = true;
                    "it did not start in time".to_owned()
                }
                never = hangs => never,
            };
            self.ledger.set_down(&error);
            let filter = &*self.id;
            if is_last {
                tracing::error!(filter, error, "the filter cannot start; its events fail");
                self.given_up = true;
                return;
            }
            let wait = self.backoff.next();
            tracing::error!(filter, error, ?wait, "the filter cannot start; events wait");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stopping.started() => {}
                // Which may be one that can start.
                Some(new) = self.replacements.1.recv() => self.exchange(new),
            }
        }
        self.ledger.set_up();
        self.backoff.reset();
    }
}

/// One attempt to start a filter; the error is in words.
async fn start_once(filter: &dyn AsyncFilter) -> Result<(), String> {
    match AssertUnwindSafe(filter.start()).catch_unwind().await {
        Ok(started) => started.map_err(|error| error.to_string()),
        Err(_) => Err("it panicked".to_owned()),
    }
}

fn limits(filter: &dyn AsyncFilter) -> Limits {
    // One that panics here will be found out when it is called.
    catch_unwind(AssertUnwindSafe(|| filter.limits())).unwrap_or_default()
}

// === impl Call ===

impl Future for Call {
    type Output = Result<Verdict, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let built = self.built;
        let task = Pin::new(&mut self.task).poll(cx);
        task.map(|joined| match joined {
            Ok(verdict) => Ok(verdict),
            Err(error) if error.is_panic() => Err(Panicked(built)),
            // The runtime stops.
            Err(_) => Ok(Verdict::Fail(DEADLINE)),
        })
    }
}

// === impl Verdicted ===

impl Filter for Verdicted {
    fn apply(&mut self, mut event: Event, out: &mut Emitter<'_>) {
        let verdict = self.0.lock().pop_front();
        match verdict.expect("every event is given together with its verdict") {
            Verdict::Pass => out.emit(event),
            Verdict::Discard(reason) => out.discard(event, reason),
            Verdict::Fail(reason) => out.fail(event, reason),
            Verdict::Emit(mut emitted) => {
                let Some((last_port, mut last)) = emitted.pop() else {
                    return out.discard(event, NO_OUTPUT);
                };
                for (port, mut other) in emitted {
                    other.give_handle(event.fork().take_handle());
                    emit(other, port, out);
                }
                last.give_handle(event.take_handle());
                emit(last, last_port, out);
            }
        }
    }
}

fn emit(event: Event, port: Option<usize>, out: &mut Emitter<'_>) {
    match port {
        Some(port) => out.emit_to(port, event),
        None => out.emit(event),
    }
}

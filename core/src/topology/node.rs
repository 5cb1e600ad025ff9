//! One filter in a segment, and the way of an event through the filters behind it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::UNCONNECTED;
use super::fanout::{Output, To};
use super::ledger::{Ledger, Tally};
use super::plan::Rebuild;
use super::segment::Leaf;
use super::supervise::{build_again, let_go};
use crate::delivery::retry::{Backoff, RESTART};
use crate::plugin::{Emitter, Filter, Stage};
use crate::registry::TakeOver;
use crate::{Event, Outcome};

/// The reason of events that a panic took with it.
pub(crate) const PANIC: &str = "panic";

/// A filter of a segment.
pub(crate) struct Node {
    filter: Box<dyn Filter>,
    rebuild: Rebuild<Box<dyn Filter>>,
    /// The unnamed output, then the named ports by number.
    outputs: Vec<Output>,
    ledger: Arc<Ledger>,
    tally: Tally,
    health: Health,
    backoff: Backoff,
    /// Whether its ticks pause.
    parked: bool,
    /// Told when they go on.
    work: Arc<Notify>,
}

/// Whether a filter may be called.
enum Health {
    Sound,
    /// It panicked during this chunk: the rest of the chunk fails.
    Panicked,
    /// It panicked and could not be built again; the next try is due then.
    Gone(Instant),
}

/// The filters behind a point of a segment, and the segment's queues.
pub(crate) struct Flow<'a> {
    nodes: &'a mut [Node],
    /// The index of the first of `nodes`.
    base: usize,
    leaves: &'a mut [Leaf],
}

/// What a node's emitter writes into.
struct NodeStage<'a> {
    outputs: &'a [Output],
    tally: &'a mut Tally,
    flow: Flow<'a>,
}

// === impl Node ===

impl Node {
    pub(crate) fn new(
        filter: Box<dyn Filter>,
        rebuild: Rebuild<Box<dyn Filter>>,
        outputs: Vec<Output>,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self {
            filter,
            rebuild,
            outputs,
            ledger,
            tally: Tally::default(),
            health: Health::Sound,
            backoff: Backoff::new(RESTART),
            parked: false,
            work: Arc::default(),
        }
    }

    pub(crate) fn tick(&self) -> Option<Duration> {
        // A filter that panics here is not ticked; it will be found out when it is called.
        catch_unwind(AssertUnwindSafe(|| self.filter.tick())).unwrap_or_default()
    }

    /// Whether its ticks have nothing to do. Those of a filter that is to be built again have.
    fn is_idle(&self) -> bool {
        let is_idle = || self.filter.is_idle();
        !self.is_broken() && catch_unwind(AssertUnwindSafe(is_idle)).unwrap_or_default()
    }

    /// Pauses its ticks if they have nothing to do: until this is told.
    pub(crate) fn park(&mut self) -> Option<Arc<Notify>> {
        self.parked = self.is_idle();
        self.parked.then(|| Arc::clone(&self.work))
    }

    /// Has its ticks go on if they have something to do. Called after whatever might have changed that.
    pub(crate) fn unpark(&mut self) {
        if self.parked && !self.is_idle() {
            self.parked = false;
            self.work.notify_one();
        }
    }

    fn apply(&mut self, event: Event, flow: Flow<'_>) {
        self.tally.received += 1;
        if self.is_broken() {
            self.tally.end(Outcome::Failed, PANIC);
            event.settle(Outcome::Failed);
            return;
        }
        if !self.call(flow, |filter, out| filter.apply(event, out)) {
            // The event in hand was dropped by the panic, which settled it.
            self.tally.end(Outcome::Failed, PANIC);
        }
    }

    pub(crate) fn ticked(&mut self, flow: Flow<'_>) {
        if !self.is_broken() {
            self.call(flow, Filter::ticked);
        }
    }

    pub(crate) fn flush(&mut self, flow: Flow<'_>) {
        if !self.is_broken() {
            self.call(flow, Filter::flush);
        }
    }

    /// Calls the filter; `false` when it panicked.
    fn call(
        &mut self,
        flow: Flow<'_>,
        act: impl FnOnce(&mut dyn Filter, &mut Emitter<'_>),
    ) -> bool {
        let mut stage = NodeStage {
            outputs: &self.outputs,
            tally: &mut self.tally,
            flow,
        };
        let filter = &mut *self.filter;
        // After a panic the filter is called once more at most, to flush, and then replaced.
        let called = catch_unwind(AssertUnwindSafe(|| {
            act(filter, &mut Emitter::new(&mut stage));
        }));
        if called.is_err() {
            self.health = Health::Panicked;
        }
        called.is_ok()
    }

    pub(crate) fn is_broken(&self) -> bool {
        !matches!(self.health, Health::Sound)
    }

    /// Puts another filter in the place of this one, which that takes over from. What this one then still holds leaves through
    /// its flush.
    pub(crate) fn replace(
        &mut self,
        mut filter: Box<dyn Filter>,
        rebuild: Rebuild<Box<dyn Filter>>,
        take_over: TakeOver,
        flow: Flow<'_>,
    ) {
        let mut health = Health::Sound;
        if !self.is_broken() {
            let before = &mut *self.filter;
            let taken = catch_unwind(AssertUnwindSafe(|| take_over(&mut *filter, before)));
            if taken.is_err() {
                // Then it is built once more, and takes nothing over.
                health = Health::Panicked;
            }
            self.call(flow, Filter::flush);
        }
        if matches!(self.health, Health::Gone(_)) {
            self.ledger.set_up();
        }
        self.exchange(filter);
        self.rebuild = rebuild;
        self.health = health;
        self.backoff.reset();
    }

    fn exchange(&mut self, filter: Box<dyn Filter>) {
        let old = std::mem::replace(&mut self.filter, filter);
        let_go(self.ledger.component(), old);
    }

    /// Replaces a filter that panicked. What it held leaves through its flush; what it cannot let go of
    /// is lost.
    pub(crate) fn recover(&mut self, flow: Flow<'_>) {
        let id = Arc::clone(self.ledger.component());
        match self.health {
            Health::Sound => return,
            Health::Panicked => {
                tracing::error!(filter = &*id, "the filter panicked and is built again");
                self.ledger.restarts.inc();
                self.call(flow, Filter::flush);
            }
            Health::Gone(due) if Instant::now() < due => return,
            Health::Gone(_) => {}
        }
        match build_again(&mut self.rebuild) {
            Ok(filter) => {
                self.exchange(filter);
                self.health = Health::Sound;
                self.ledger.set_up();
                self.backoff.reset();
            }
            Err(error) => {
                let wait = self.backoff.next();
                self.health = Health::Gone(Instant::now() + wait);
                self.ledger.set_down(&error);
                tracing::error!(filter = &*id, %error, ?wait, "the filter cannot be built again");
            }
        }
    }

    pub(crate) fn post(&mut self) {
        self.tally.post(&self.ledger);
    }
}

// === impl Flow ===

impl<'a> Flow<'a> {
    pub(crate) fn new(nodes: &'a mut [Node], leaves: &'a mut [Leaf]) -> Self {
        Self {
            nodes,
            base: 0,
            leaves,
        }
    }

    /// Gives an event to every reader of an output; gives it back when there is none.
    pub(crate) fn route(&mut self, event: Event, output: &Output) -> Option<Event> {
        let targets = output.targets();
        if let ([target], Some(_)) = (targets, output.owner()) {
            self.pass(event, target.to);
            return None;
        }
        if targets.is_empty() {
            return Some(event);
        }
        // The readers get it in the order of the file, except that the event itself goes last.
        for (index, target) in targets.iter().enumerate() {
            if Some(index) == output.owner() {
                continue;
            }
            let copy = if target.required {
                event.fork()
            } else {
                event.clone()
            };
            self.pass(copy, target.to);
        }
        match output.owner().and_then(|owner| targets.get(owner)) {
            Some(owner) => self.pass(event, owner.to),
            // Only sinks that the source does not wait for.
            None => event.settle(Outcome::Delivered),
        }
        None
    }

    fn pass(&mut self, event: Event, to: To) {
        match to {
            To::Node(index) => self.at(index, |node, flow| node.apply(event, flow)),
            To::Leaf(index) => {
                let leaf = self.leaves.get_mut(index);
                leaf.expect("the graph numbers its own queues")
                    .pending
                    .push_back(event);
            }
        }
    }

    /// Acts on the node of this index, with the flow behind it.
    pub(crate) fn at(&mut self, index: usize, act: impl FnOnce(&mut Node, Flow<'_>)) {
        let behind = self.nodes.get_mut(index - self.base..);
        let (node, nodes) = behind
            .and_then(<[Node]>::split_first_mut)
            .expect("edges inside a segment point forward");
        let flow = Flow {
            nodes,
            base: index + 1,
            leaves: self.leaves,
        };
        act(node, flow);
    }
}

// === impl NodeStage ===

impl Stage for NodeStage<'_> {
    fn emit(&mut self, event: Event, port: Option<usize>) {
        let output = self.outputs.get(port.map_or(0, |port| port + 1));
        let unread = match output {
            Some(output) => self.flow.route(event, output),
            None => Some(event),
        };
        match unread {
            Some(event) => self.discard(event, UNCONNECTED),
            None => self.tally.sent += 1,
        }
    }

    fn discard(&mut self, event: Event, reason: &'static str) {
        self.tally.end(Outcome::Filtered, reason);
        event.settle(Outcome::Filtered);
    }

    fn fail(&mut self, event: Event, reason: &'static str) {
        self.tally.end(Outcome::Failed, reason);
        event.settle(Outcome::Failed);
    }
}

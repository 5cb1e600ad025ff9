//! A segment: filters that run one inside the other on one task, between a source or a queue and queues.
//!
//! Every event goes all the way through before the next one enters, so that branches which meet again
//! keep the order. What leaves is gathered per queue and pushed once per chunk.

use std::collections::VecDeque;
use std::fmt;
use std::future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::fanout::Output;
use super::ledger::{Ledger, Tally};
use super::node::{Flow, Node};
use super::plan::Rebuild;
use super::queue::{Receiver, Sender};
use crate::plugin::Filter;
use crate::registry::TakeOver;
use crate::{Event, Outcome};

/// How many events run through the filters before what left them is pushed on.
pub(crate) const CHUNK: usize = 256;

/// How many events in one queue are many.
const MANY: usize = 2 * CHUNK;

/// A chain of filters, shared by whoever feeds it and by the ticks of its filters.
pub(crate) struct Segment {
    chain: Mutex<Chain>,
    /// How often each filter is ticked, which changes when one is replaced. Apart from the chain, so that a tick that waits for that
    /// is not waited for.
    ticks: watch::Sender<Vec<Option<Duration>>>,
    /// The source that feeds it; `None` when a queue does.
    source: Option<Arc<Ledger>>,
}

/// The turn of one caller.
pub(crate) struct Turn<'a> {
    chain: MutexGuard<'a, Chain>,
    source: Option<&'a Ledger>,
}

/// What a segment does, one caller at a time.
pub(crate) struct Chain {
    pub(crate) root: Output,
    /// In topological order: edges point forward.
    pub(crate) nodes: Vec<Node>,
    pub(crate) leaves: Vec<Leaf>,
    /// Taken in and not yet run through the filters. Here, and not in the future that brought them, so
    /// that they outlive it.
    input: VecDeque<Event>,
    tally: Tally,
    finished: bool,
}

/// A queue at the end of a segment, and what is to be pushed into it.
pub(crate) struct Leaf {
    pub(crate) sender: Sender,
    pub(crate) pending: VecDeque<Event>,
}

/// A filter for the place of another.
pub(crate) struct Replacement {
    pub(crate) filter: Box<dyn Filter>,
    pub(crate) rebuild: Rebuild<Box<dyn Filter>>,
    pub(crate) take_over: TakeOver,
}

// === impl Segment ===

impl Segment {
    pub(crate) fn new(chain: Chain, source: Option<Arc<Ledger>>) -> Self {
        let ticks = chain.nodes.iter().map(Node::tick).collect();
        Self {
            chain: Mutex::new(chain),
            ticks: watch::Sender::new(ticks),
            source,
        }
    }

    pub(crate) fn source(&self) -> Option<&Arc<Ledger>> {
        self.source.as_ref()
    }

    /// Waits for the turn to push. Cancel safe.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        Turn {
            chain: self.chain.lock().await,
            source: self.source.as_deref(),
        }
    }

    /// Flushes the filters from the first to the last and lets go of the queues.
    pub(crate) async fn finish(&self) {
        let mut chain = self.chain.lock().await;
        chain.run(self.source.as_deref()).await;
        for index in 0..chain.nodes.len() {
            chain.with_node(index, Node::flush);
            chain.settle(self.source.as_deref());
            chain.push_on().await;
        }
        chain.finished = true;
        chain.leaves.clear();
    }

    /// Feeds the segment from a queue until that ends, then finishes it.
    pub(crate) async fn follow(self: Arc<Self>, mut queue: Receiver) {
        let tickers = self.start_ticking().await;
        let mut batch = Vec::with_capacity(CHUNK);
        while queue.receive(&mut batch, CHUNK).await {
            self.turn().await.push_many(batch.drain(..)).await;
        }
        drop(tickers);
        self.finish().await;
    }

    /// Puts another filter in the place of one. Cancel safe: it is done, or nothing is; and what left the old one is pushed on
    /// with the next event at the latest.
    pub(crate) async fn replace(&self, index: usize, new: Replacement) {
        let mut chain = self.chain.lock().await;
        if chain.finished {
            return;
        }
        let chain = &mut *chain;
        Flow::new(&mut chain.nodes, &mut chain.leaves).at(index, |node, flow| {
            node.replace(new.filter, new.rebuild, new.take_over, flow);
        });
        chain.settle(self.source.as_deref());
        let every = chain.nodes.get(index).and_then(Node::tick);
        self.ticks
            .send_if_modified(|ticks| match ticks.get_mut(index) {
                Some(before) if *before != every => {
                    *before = every;
                    true
                }
                _ => false,
            });
        chain.push_on().await;
    }

    /// Calls [`ticked`](crate::plugin::Filter::ticked) of every filter that wants it, until the set is dropped.
    pub(crate) async fn start_ticking(self: &Arc<Self>) -> JoinSet<()> {
        let mut tickers = JoinSet::new();
        let filters = self.chain.lock().await.nodes.len();
        for index in 0..filters {
            tickers.spawn(Arc::clone(self).tick(index, self.ticks.subscribe()));
        }
        tickers
    }

    async fn tick(
        self: Arc<Self>,
        index: usize,
        mut ticks: watch::Receiver<Vec<Option<Duration>>>,
    ) {
        loop {
            let every = ticks.borrow_and_update().get(index).copied().flatten();
            let ticking = async {
                match every.filter(|every| !every.is_zero()) {
                    Some(every) => self.tick_every(index, every).await,
                    None => future::pending().await,
                }
            };
            let is_other = |ticks: &Vec<_>| ticks.get(index).copied().flatten() != every;
            tokio::select! {
                () = ticking => {}
                Ok(_) = ticks.wait_for(is_other) => {}
            }
            // What a tick that was broken off let go of; nothing else may come that would push it on.
            self.chain.lock().await.push_on().await;
        }
    }

    async fn tick_every(&self, index: usize, every: Duration) {
        let mut interval = tokio::time::interval(every);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick of an interval is due at once.
        interval.tick().await;
        loop {
            let due = interval.tick().await;
            let mut chain = self.chain.lock().await;
            chain.with_node(index, Node::ticked);
            chain.settle(self.source.as_deref());
            chain.push_on().await;
            let parked = chain.nodes.get_mut(index).and_then(Node::park);
            drop(chain);
            if let Some(work) = parked {
                work.notified().await;
                // When it would have been due without the pause.
                interval.reset_after(until_next(due.elapsed(), every));
            }
        }
    }
}

/// How long it is until the next tick, so long after one.
fn until_next(since: Duration, every: Duration) -> Duration {
    let over = since.as_nanos() % every.as_nanos().max(1);
    every.saturating_sub(Duration::from_nanos(
        u64::try_from(over).unwrap_or_default(),
    ))
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

// === impl Turn ===

impl Turn<'_> {
    /// Runs events through the filters and pushes on what leaves them, waiting while a queue is full.
    ///
    /// Cancel safe: the events are taken in before the first wait, and leave with the next call.
    pub(crate) async fn push(mut self, batch: impl IntoIterator<Item = Event>) {
        self.run(batch).await;
    }

    /// The same for a batch that is long enough to let readers run first afterwards, where much waits for them: what they take
    /// soon is still in the processor's caches, and what is woken on a thread that stays busy runs on no other one.
    pub(crate) async fn push_many(mut self, batch: impl IntoIterator<Item = Event>) {
        self.run(batch).await;
        let mut leaves = self.chain.leaves.iter();
        let is_crowded = leaves.any(|leaf| leaf.sender.waiting() >= MANY);
        // Others may push meanwhile.
        drop(self);
        if is_crowded {
            tokio::task::yield_now().await;
        }
    }

    async fn run(&mut self, batch: impl IntoIterator<Item = Event>) {
        self.chain.input.extend(batch);
        if self.chain.finished {
            self.chain.refuse(self.source);
        } else {
            self.chain.run(self.source).await;
        }
    }
}

// === impl Chain ===

impl Chain {
    pub(crate) fn new(root: Output, nodes: Vec<Node>, leaves: Vec<Leaf>) -> Self {
        Self {
            root,
            nodes,
            leaves,
            input: VecDeque::new(),
            tally: Tally::default(),
            finished: false,
        }
    }

    async fn run(&mut self, source: Option<&Ledger>) {
        // What a cancelled caller left behind goes first.
        self.push_on().await;
        while !self.input.is_empty() {
            let most = self.input.len().min(CHUNK);
            let mut flow = Flow::new(&mut self.nodes, &mut self.leaves);
            for event in self.input.drain(..most) {
                self.tally.received += 1;
                if let Some(event) = flow.route(event, &self.root) {
                    self.tally.end(Outcome::Filtered, super::UNCONNECTED);
                    event.settle(Outcome::Filtered);
                } else {
                    self.tally.sent += 1;
                }
            }
            self.settle(source);
            self.push_on().await;
        }
    }

    /// Rebuilds filters that panicked, has ticks go on that have something to do, and posts the counts.
    fn settle(&mut self, source: Option<&Ledger>) {
        for index in 0..self.nodes.len() {
            if self.nodes.get(index).is_some_and(Node::is_broken) {
                self.with_node(index, Node::recover);
            }
        }
        for node in &mut self.nodes {
            node.post();
            node.unpark();
        }
        if let Some(ledger) = source {
            self.tally.post(ledger);
        }
    }

    /// Pushes into every queue what fits, then waits for the full ones: a full queue does not keep events
    /// from the others.
    async fn push_on(&mut self) {
        let mut full = false;
        for leaf in &mut self.leaves {
            if !leaf.pending.is_empty() {
                full |= !leaf.sender.try_push(&mut leaf.pending);
            }
        }
        if full {
            for leaf in &mut self.leaves {
                leaf.sender.push(&mut leaf.pending).await;
            }
        }
    }

    /// Ends events that came after the end.
    fn refuse(&mut self, source: Option<&Ledger>) {
        for event in self.input.drain(..) {
            self.tally.received += 1;
            self.tally.end(Outcome::Failed, "stopped");
            event.settle(Outcome::Failed);
        }
        if let Some(ledger) = source {
            self.tally.post(ledger);
        }
    }

    fn with_node(&mut self, index: usize, act: fn(&mut Node, Flow<'_>)) {
        Flow::new(&mut self.nodes, &mut self.leaves).at(index, act);
    }
}

// === impl Leaf ===

impl Leaf {
    pub(crate) fn new(sender: Sender) -> Self {
        Self {
            sender,
            pending: VecDeque::new(),
        }
    }
}

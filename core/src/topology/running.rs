//! The running graph.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::async_node::{AsyncNode, AsyncReplacement};
use super::fanout::Output;
use super::graph::{Graph, Reader};
use super::ledger::Ledger;
use super::node::Node;
use super::plan::{BuiltFilter, GraphError, Part, Plan, Rebuild, SinkPart};
use super::queue::{Receiver, Sender, queue};
use super::segment::{Chain, Leaf, Replacement, Segment};
use super::supervise::supervise;
use crate::config::{BufferConfig, WhenFull};
use crate::delivery::intake::{Intake, Spool};
use crate::delivery::store::Store;
use crate::delivery::worker::Worker;
use crate::journal::Journal;
use crate::metrics::Metrics;
use crate::plugin::{BuildError, Filter};
use crate::registry::{Kind, TakeOvers};
use crate::shutdown::{Report, Shutdown};

/// A graph whose tasks run. Dropping it stops them where they are.
pub struct Running {
    shutdown: Shutdown,
    cut_sources: CancellationToken,
    cut_sinks: CancellationToken,
    leave: CancellationToken,
    sources: JoinSet<bool>,
    segments: JoinSet<()>,
    sinks: JoinSet<()>,
    ledgers: Vec<Arc<Ledger>>,
    filters: HashMap<Arc<str>, Place>,
}

/// Where a filter runs.
struct Place {
    /// It has the way into the queues behind it, which end when whoever feeds it is gone.
    segment: Weak<Segment>,
    index: usize,
    /// To the task of an async filter.
    task: Option<UnboundedSender<AsyncReplacement>>,
}

// === impl Plan ===

impl Plan {
    /// Whether the inputs make a graph that can run.
    pub fn check(&self) -> Result<(), GraphError> {
        Graph::new(self).map(drop)
    }

    /// Starts the sinks, then the filters behind queues, then the sources.
    pub fn start(self, metrics: &Metrics) -> Result<Running, GraphError> {
        let graph = Graph::new(&self)?;
        let ledger = |id: &Arc<str>, kind| Arc::new(Ledger::new(id, kind, metrics));
        let mut running = Running {
            shutdown: Shutdown::new(),
            cut_sources: CancellationToken::new(),
            cut_sinks: CancellationToken::new(),
            leave: CancellationToken::new(),
            sources: JoinSet::new(),
            segments: JoinSet::new(),
            sinks: JoinSet::new(),
            ledgers: Vec::new(),
            filters: HashMap::new(),
        };
        let mut sink_queues = Vec::new();
        let mut sink_ledgers = Vec::new();
        for sink in self.sinks {
            let ledger = ledger(&sink.part.id, Kind::Sink);
            sink_queues.push(running.start_sink(sink, &ledger));
            sink_ledgers.push(ledger);
        }
        let mut filter_queues: Vec<Option<(Sender, Option<Receiver>)>> = Vec::new();
        filter_queues.resize_with(self.filters.len(), || None);
        for shape in &graph.segments {
            if let Some(filter) = shape.fed_by {
                let (sender, receiver) = queue(BufferConfig::default(), None);
                filter_queues[filter] = Some((sender, Some(receiver)));
            }
        }
        let filter_ledgers: Vec<_> = self
            .filters
            .iter()
            .map(|filter| ledger(&filter.part.id, Kind::Filter))
            .collect();
        let mut filters: Vec<_> = self.filters.into_iter().map(Some).collect();
        let mut sources = self.sources.into_iter();
        let mut ready = Vec::new();
        for shape in graph.segments {
            let leaves = shape.leaves.into_iter().map(|reader| match reader {
                Reader::Sink(sink) => Leaf::new(sink_queues[sink].clone()),
                Reader::Filter(filter) => {
                    let queue = filter_queues[filter].as_ref();
                    Leaf::new(
                        queue
                            .expect("a filter in another segment has a queue")
                            .0
                            .clone(),
                    )
                }
            });
            let leaves = leaves.collect();
            let (mut front, mut ids) = (None, Vec::new());
            let nodes = shape.nodes.into_iter().map(|(filter, outputs)| {
                let part = filters[filter].take();
                let part = part.expect("a filter runs in one segment").part;
                let ledger = Arc::clone(&filter_ledgers[filter]);
                ids.push(Arc::clone(&part.id));
                let (node, task) = node(part, outputs, ledger, &running.shutdown);
                // The graph puts an async filter in front of its segment.
                front = front.take().or(task);
                node
            });
            let nodes = nodes.collect();
            let chain = Chain::new(shape.root, nodes, leaves);
            if let Some(filter) = shape.fed_by {
                let queue = filter_queues[filter].as_mut();
                let receiver = queue.and_then(|queue| queue.1.take());
                let receiver = receiver.expect("a segment has one queue");
                let segment = Arc::new(Segment::new(chain, None));
                running.place(&segment, ids, front.as_ref());
                match front {
                    Some(task) => {
                        let cut = running.cut_sinks.clone();
                        running.segments.spawn(task.run(segment, receiver, cut));
                    }
                    None => {
                        running.segments.spawn(segment.follow(receiver));
                    }
                }
            } else if let Some(part) = sources.next() {
                let ledger = ledger(&part.id, Kind::Source);
                let segment = Arc::new(Segment::new(chain, Some(Arc::clone(&ledger))));
                running.place(&segment, ids, None);
                running.ledgers.push(Arc::clone(&ledger));
                ready.push((part, segment, ledger));
            }
        }
        running.ledgers.extend(filter_ledgers);
        running.ledgers.extend(sink_ledgers);
        for (part, segment, ledger) in ready {
            let (shutdown, cut) = (running.shutdown.clone(), running.cut_sources.clone());
            let task = supervise(part, segment, ledger, shutdown, cut);
            running.sources.spawn(task);
        }
        // The senders kept here go now: a queue ends with its segments.
        Ok(running)
    }
}

/// A filter in its segment; for an async one, also the task that feeds the segment.
fn node(
    part: Part<BuiltFilter>,
    outputs: Vec<Output>,
    ledger: Arc<Ledger>,
    stopping: &Shutdown,
) -> (Node, Option<AsyncNode>) {
    match part.built {
        BuiltFilter::Inline(built) => {
            let node = Node::new(built, inline(part.rebuild), outputs, ledger);
            (node, None)
        }
        BuiltFilter::Async(built) => {
            let (task, node) = AsyncNode::new(
                part.id,
                built,
                part.rebuild,
                outputs,
                ledger,
                stopping.clone(),
            );
            (node, Some(task))
        }
    }
}

/// Builds a filter again that runs inline.
fn inline(mut rebuild: Rebuild<BuiltFilter>) -> Rebuild<Box<dyn Filter>> {
    Box::new(move || match rebuild()? {
        BuiltFilter::Inline(filter) => Ok(filter),
        BuiltFilter::Async(_) => Err(BuildError::new("the plugin is an async filter now")),
    })
}

// === impl Running ===

impl Running {
    /// Starts a sink; gives the way into its queue.
    fn start_sink(&mut self, sink: SinkPart, ledger: &Arc<Ledger>) -> Sender {
        let (sender, receiver) = queue(sink.buffer, Some(Arc::clone(ledger)));
        let intake = match sink.journal {
            None => Intake::Queue(receiver),
            Some(journal) => self.spool(journal, receiver, sink.buffer.when_full, ledger),
        };
        let (delivery, limits) = (&sink.delivery, sink.buffer);
        let worker = Worker::new(sink.part, delivery, limits, intake, Arc::clone(ledger));
        self.sinks.spawn(worker.run(self.cut_sinks.clone()));
        sender
    }

    /// Remembers where filters run, whose ids these are in their order; the first is the async one, if there is any.
    fn place(&mut self, segment: &Arc<Segment>, ids: Vec<Arc<str>>, front: Option<&AsyncNode>) {
        let mut task = front.map(AsyncNode::replacer);
        for (index, id) in ids.into_iter().enumerate() {
            let (segment, task) = (Arc::downgrade(segment), task.take());
            let place = Place {
                segment,
                index,
                task,
            };
            self.filters.insert(id, place);
        }
    }

    /// Puts a buffer on disk behind a queue.
    fn spool(
        &mut self,
        journal: Arc<dyn Journal>,
        queue: Receiver,
        when_full: WhenFull,
        ledger: &Arc<Ledger>,
    ) -> Intake {
        let (waiting, stored) = (Arc::default(), CancellationToken::new());
        let store = Store::new(
            queue,
            Arc::clone(&journal),
            when_full,
            Arc::clone(&waiting),
            Arc::clone(ledger),
        );
        self.sinks
            .spawn(store.run(self.cut_sinks.clone(), stored.clone()));
        let leave = self.leave.clone();
        let spool = Spool::new(journal, when_full, waiting, stored, leave);
        let backlog = spool.backlog();
        ledger.set_buffered(backlog);
        if backlog > 0 {
            let sink = &**ledger.component();
            tracing::info!(sink, "{backlog} events wait in the buffer on disk");
        }
        Intake::Spool(spool)
    }

    /// Puts a filter in the place of the one with its id, which it takes over from. One that runs inline waits while queues behind
    /// it are full; an async one is handed to its task at once, whether or not the future is polled. Cancel safe: it is done or not.
    pub(crate) fn replace(
        &self,
        part: Part<BuiltFilter>,
        take_over: TakeOvers,
    ) -> impl Future<Output = ()> + Send + use<> {
        let place = self.filters.get(&part.id);
        let mut inline_place = None;
        match part.built {
            BuiltFilter::Inline(filter) => {
                let replacement = Replacement {
                    filter,
                    rebuild: inline(part.rebuild),
                    take_over: take_over.inline,
                };
                // A segment that is gone has no use for it.
                let segment = place.and_then(|place| Some((place.segment.upgrade()?, place.index)));
                inline_place = segment.map(|(segment, index)| (segment, index, replacement));
            }
            BuiltFilter::Async(filter) => {
                let replacement = AsyncReplacement {
                    filter,
                    rebuild: part.rebuild,
                    take_over: take_over.awaited,
                };
                if let Some(task) = place.and_then(|place| place.task.as_ref()) {
                    // Nor has a task that has ended.
                    task.send(replacement).ok();
                }
            }
        }
        async move {
            if let Some((segment, index, replacement)) = inline_place {
                segment.replace(index, replacement).await;
            }
        }
    }

    /// Waits until every source has ended by itself. Cancel safe.
    pub async fn ended(&mut self) {
        while self.sources.join_next().await.is_some() {}
    }

    /// Has [`drain`](Self::drain) not wait for what is in a buffer on disk and cannot be delivered at once: the next process
    /// delivers it.
    pub fn leave_backlogs(&self) {
        self.leave.cancel();
    }

    /// Stops the sources, lets what they sent run through, and stops the sinks: in order, and at once
    /// where nothing waits. A source that runs past `sources_by` is dropped; what sinks have not delivered
    /// by `sinks_by` fails. `force` is as if both had passed.
    pub async fn drain(
        mut self,
        sources_by: Instant,
        sinks_by: Instant,
        force: &Shutdown,
    ) -> Report {
        self.shutdown.start();
        let mut cut = force.before(sources_by, self.ended()).await.is_none();
        self.cut_sources.cancel();
        let drained = async {
            self.ended().await;
            while self.segments.join_next().await.is_some() {}
            while self.sinks.join_next().await.is_some() {}
        };
        if force.before(sinks_by, drained).await.is_none() {
            cut = true;
            self.cut_sinks.cancel();
            // Queues without a receiver fail what is pushed, so nothing upstream waits any more.
            while self.sinks.join_next().await.is_some() {}
            self.ended().await;
            while self.segments.join_next().await.is_some() {}
        }
        Report::new(&self.ledgers, cut)
    }

    /// Waits until every source has ended and everything behind them, too. Cancel safe.
    pub(crate) async fn drained(&mut self) {
        self.ended().await;
        while self.segments.join_next().await.is_some() {}
        while self.sinks.join_next().await.is_some() {}
    }

    /// How the graph stands now.
    pub fn report(&self) -> Report {
        Report::new(&self.ledgers, false)
    }
}

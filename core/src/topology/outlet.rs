//! Where a source puts its events.

use std::sync::Arc;

use super::fanout::{Output, Target, To};
use super::queue::Sender;
use super::segment::{Chain, Leaf, Segment};
use crate::outcome::{Receipt, track_counting, track_with};
use crate::{Event, Outcome};

/// How many events are worth letting others run first.
const LONG: usize = 64;

/// A source's way into the pipeline. Clones share it and take turns.
///
/// Filters behind the source run inside `send`, on the caller's task, as far as the first queue. An event
/// is queued at once; nothing is held back to fill a batch.
#[derive(Debug, Clone)]
pub struct Outlet {
    segment: Arc<Segment>,
}

/// A batch that waits for its turn. Dropped, its events are lost and counted.
struct Waiting<'a> {
    batch: Vec<Event>,
    segment: &'a Segment,
}

// === impl Outlet ===

impl Outlet {
    pub(crate) fn new(segment: Arc<Segment>) -> Self {
        Self { segment }
    }

    /// An outlet straight into a queue, with no filter in between.
    pub(crate) fn into_queue(sender: Sender) -> Self {
        let target = Target {
            to: To::Leaf(0),
            required: true,
        };
        let root = Output::new(vec![target]);
        let chain = Chain::new(root, Vec::new(), vec![Leaf::new(sender)]);
        Self::new(Arc::new(Segment::new(chain, None)))
    }

    /// Pushes a batch, waiting while the pipeline is full. Nobody learns how it ends but the counters.
    ///
    /// Not cancel safe: dropped while another clone sends, the whole batch is lost and counted; dropped
    /// later, the events that were not yet queued leave with the next batch or at shutdown.
    ///
    /// After the source's [`run`](crate::plugin::Source::run) has returned for good, events fail at once
    /// with the reason `stopped`.
    pub async fn send(&mut self, batch: Vec<Event>) {
        let mut waiting = Waiting {
            batch,
            segment: &self.segment,
        };
        let is_long = waiting.batch.len() >= LONG;
        let turn = self.segment.turn().await;
        let batch = std::mem::take(&mut waiting.batch);
        if is_long {
            turn.push_many(batch).await;
        } else {
            turn.push(batch).await;
        }
    }

    /// Pushes a batch and gives a receipt for each event, in order. Where an event goes into a buffer on disk, its receipt
    /// waits until it is delivered from there; see [`Outcome::Held`].
    pub async fn send_until_delivered(&mut self, batch: Vec<Event>) -> Vec<Receipt> {
        let lost = self.segment.source();
        let lost = lost.map(|ledger| ledger.ending(Outcome::Lost, "dropped"));
        let mut receipts = Vec::with_capacity(batch.len());
        let tracked = batch.into_iter().map(|event| {
            let (tracker, receipt) = track_with(lost.clone(), true);
            receipts.push(receipt);
            event.tracked(&tracker)
        });
        let batch = tracked.collect();
        self.send(batch).await;
        receipts
    }

    /// Pushes a batch and gives the receipt of its worst outcome.
    ///
    /// Events that a full queue turns away settle before this returns, so their receipt is ready at once.
    pub async fn send_tracked(&mut self, batch: Vec<Event>) -> Receipt {
        let (tracker, receipt) = match self.segment.source() {
            Some(ledger) => track_counting(ledger.ending(Outcome::Lost, "dropped")),
            None => crate::track(),
        };
        let batch = batch
            .into_iter()
            .map(|event| event.tracked(&tracker))
            .collect();
        drop(tracker);
        self.send(batch).await;
        receipt
    }
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(ledger) = self.segment.source() {
            let events = self.batch.len() as u64;
            ledger.received.inc_by(events);
            ledger.end(Outcome::Lost, "cancelled", events);
        }
        for event in self.batch.drain(..) {
            event.settle(Outcome::Lost);
        }
    }
}

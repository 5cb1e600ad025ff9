//! How events end, and how a source learns of it.
//!
//! A source that can acknowledge makes one [`Tracker`] per batch it reads, ties every event of the batch
//! to it, and awaits the [`Receipt`]: the worst outcome of all copies of all events of the batch. Sources
//! that cannot acknowledge make none, and their events carry nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;

/// How an event ended, from best to worst. The worst outcome of a batch wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Every required sink has it.
    Delivered = 0,
    /// A filter discarded it, as the operator asked.
    Filtered = 1,
    /// It is kept on disk: in the buffer in front of a sink, which delivers it from there, or among the dead letters.
    Held = 2,
    /// A full queue turned it away.
    Shed = 3,
    /// A filter or a sink could not handle it.
    Failed = 4,
    /// It was dropped without an outcome: a defect in a plugin.
    Lost = 5,
}

/// The producer's end of a batch: hands out one handle per event.
#[derive(Debug)]
pub struct Tracker(Arc<Token>);

/// A future of the batch's worst outcome, ready when the tracker and every handle are gone.
///
/// Cancel safe: dropping it only means that nobody asks.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Outcome>);

/// One event's share of its batch. Dropped without an outcome it reports [`Outcome::Lost`]; dropped by a
/// panic, [`Outcome::Failed`].
#[derive(Debug)]
pub(crate) struct Handle(Option<Arc<Token>>);

#[derive(Debug)]
struct Token {
    worst: AtomicU8,
    done: Option<oneshot::Sender<Outcome>>,
    /// Counts the events that were lost.
    lost: Option<Counter>,
    /// Whether the source waits for deliveries, and not only until events are held on the disk.
    until_delivered: bool,
}

/// Makes a tracker and the receipt that waits for it.
pub fn track() -> (Tracker, Receipt) {
    track_with(None, false)
}

/// The same, with a counter of the events that end as [`Outcome::Lost`].
pub(crate) fn track_counting(lost: Counter) -> (Tracker, Receipt) {
    track_with(Some(lost), false)
}

pub(crate) fn track_with(lost: Option<Counter>, until_delivered: bool) -> (Tracker, Receipt) {
    let (done, receipt) = oneshot::channel();
    let token = Token {
        worst: AtomicU8::new(Outcome::Delivered as u8),
        done: Some(done),
        lost,
        until_delivered,
    };
    (Tracker(Arc::new(token)), Receipt(receipt))
}

// === impl Outcome ===

impl Outcome {
    /// The label that metrics and reports use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Filtered => "filtered",
            Self::Held => "held",
            Self::Shed => "shed",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }

    /// Whether a source may acknowledge upstream: the event is where it belongs, or will get there whatever
    /// happens to this process, or the operator asked for it to be discarded.
    pub fn is_accepted(self) -> bool {
        self <= Self::Held
    }

    fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Delivered,
            1 => Self::Filtered,
            2 => Self::Held,
            3 => Self::Shed,
            4 => Self::Failed,
            _ => Self::Lost,
        }
    }
}

// === impl Tracker ===

impl Tracker {
    pub(crate) fn handle(&self) -> Handle {
        Handle(Some(Arc::clone(&self.0)))
    }
}

// === impl Receipt ===

impl Future for Receipt {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|outcome| outcome.unwrap_or(Outcome::Lost))
    }
}

// === impl Handle ===

impl Handle {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(crate) fn fork(&self) -> Self {
        Self(self.0.clone())
    }

    /// Whether it is not enough that the event is held on the disk.
    pub(crate) fn wants_delivery(&self) -> bool {
        self.0.as_ref().is_some_and(|token| token.until_delivered)
    }

    pub(crate) fn settle(&mut self, outcome: Outcome) {
        if let Some(token) = self.0.take() {
            token.record(outcome);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let Some(token) = self.0.take() else {
            return;
        };
        // A panic is not a leak: whoever catches it counts the event as failed.
        if std::thread::panicking() {
            token.record(Outcome::Failed);
            return;
        }
        token.record(Outcome::Lost);
        if let Some(lost) = &token.lost {
            lost.inc();
        }
    }
}

// === impl Token ===

impl Token {
    fn record(&self, outcome: Outcome) {
        // Release pairs with the acquire that `Arc` does before the last owner drops the token.
        self.worst.fetch_max(outcome as u8, Ordering::Release);
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let outcome = Outcome::from_u8(*self.worst.get_mut());
        if let Some(done) = self.done.take() {
            // The source may have stopped waiting; then nobody needs the answer.
            done.send(outcome).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::Event;

    fn event() -> Event {
        Event::from_parts("a".into(), "i".into(), "{}".into(), SystemTime::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn the_worst_outcome_wins() {
        let (tracker, receipt) = track();
        let first = event().tracked(&tracker);
        let second = event().tracked(&tracker);
        drop(tracker);
        first.settle(Outcome::Delivered);
        second.settle(Outcome::Filtered);
        assert_eq!(receipt.await, Outcome::Filtered);
    }

    #[tokio::test]
    async fn a_forgotten_event_is_lost_and_a_clone_is_not() {
        let (tracker, receipt) = track();
        let first = event().tracked(&tracker);
        drop(first.clone());
        let fork = first.fork();
        drop(tracker);
        first.settle(Outcome::Delivered);
        drop(fork);
        assert_eq!(receipt.await, Outcome::Lost);
    }

    #[tokio::test]
    async fn an_empty_batch_is_delivered() {
        let (tracker, receipt) = track();
        drop(tracker);
        assert_eq!(receipt.await, Outcome::Delivered);
    }
}

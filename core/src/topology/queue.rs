//! The bounded queue on an edge.
//!
//! Many senders, one receiver, limits in events and in bytes, and a policy for events that find it full. The
//! receiver takes everything that waits, so an idle queue forwards at once and batches form only under
//! load. What the receiver has taken no longer counts against the limits.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::ledger::Ledger;
use crate::config::{BufferConfig, WhenFull};
use crate::{Event, Outcome};

/// What ended events that were still under way when the shutdown deadline passed.
pub(crate) const DEADLINE: &str = "deadline";

/// The way into a queue. The queue ends when the last one is dropped.
#[derive(Debug)]
pub(crate) struct Sender(Arc<Queue>);

/// The way out of a queue.
#[derive(Debug)]
pub(crate) struct Receiver(Arc<Queue>);

#[derive(Debug)]
struct Queue {
    limits: BufferConfig,
    /// Counts what enters and what is shed; queues between filters count nothing.
    ledger: Option<Arc<Ledger>>,
    state: Mutex<State>,
    /// Wakes the receiver. One permit is stored, so a wake-up between its look and its wait is kept.
    filled: Notify,
    /// Wakes every sender that waits for room.
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    bytes: usize,
    senders: usize,
    /// The receiver is gone: whatever is pushed fails.
    abandoned: bool,
}

/// A queue with these limits.
pub(crate) fn queue(limits: BufferConfig, ledger: Option<Arc<Ledger>>) -> (Sender, Receiver) {
    let queue = Arc::new(Queue {
        limits,
        ledger,
        state: Mutex::new(State {
            senders: 1,
            ..State::default()
        }),
        filled: Notify::new(),
        freed: Notify::new(),
    });
    (Sender(Arc::clone(&queue)), Receiver(queue))
}

// === impl Sender ===

impl Sender {
    /// Moves events from `pending` into the queue without waiting. `false` when some must wait.
    pub(crate) fn try_push(&self, pending: &mut VecDeque<Event>) -> bool {
        self.0.push(pending)
    }

    /// How many events wait in the queue.
    pub(crate) fn waiting(&self) -> usize {
        self.0.state.lock().events.len()
    }

    /// Moves all of `pending` into the queue, waiting for room if the policy says so.
    ///
    /// Cancel safe: what was not moved is still in `pending`.
    pub(crate) async fn push(&self, pending: &mut VecDeque<Event>) {
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            // Before the look: room made between the look and the wait must wake this sender.
            freed.as_mut().enable();
            if self.0.push(pending) {
                return;
            }
            freed.await;
        }
    }
}

impl Clone for Sender {
    fn clone(&self) -> Self {
        self.0.state.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.senders -= 1;
        let last = state.senders == 0;
        drop(state);
        if last {
            self.0.filled.notify_one();
        }
    }
}

// === impl Receiver ===

impl Receiver {
    /// Waits for events and appends up to `most` of them to `out`; `false` when the queue is empty and has
    /// no sender any more.
    ///
    /// Cancel safe: events leave the queue only when this returns.
    pub(crate) async fn receive(&mut self, out: &mut Vec<Event>, most: usize) -> bool {
        loop {
            {
                let mut state = self.0.state.lock();
                if !state.events.is_empty() {
                    state.take(out, most);
                    drop(state);
                    self.0.freed.notify_waiters();
                    return true;
                }
                if state.senders == 0 {
                    return false;
                }
            }
            self.0.filled.notified().await;
        }
    }
}

impl Drop for Receiver {
    /// Nobody will take what waits: it fails, and so does whatever is pushed from now on.
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.abandoned = true;
        let left = std::mem::take(&mut state.events);
        state.bytes = 0;
        drop(state);
        self.0.freed.notify_waiters();
        self.0.end(left, Outcome::Failed, DEADLINE);
    }
}

// === impl Queue ===

impl Queue {
    fn push(&self, pending: &mut VecDeque<Event>) -> bool {
        let offered = pending.len();
        let mut shed = VecDeque::new();
        let mut state = self.state.lock();
        if state.abandoned {
            drop(state);
            self.entered(offered);
            self.end(std::mem::take(pending), Outcome::Failed, DEADLINE);
            return true;
        }
        let was_empty = state.events.is_empty();
        while let Some(event) = pending.front() {
            let size = event.size();
            if !state.has_room(size, &self.limits) {
                match self.limits.when_full {
                    WhenFull::Block => break,
                    WhenFull::DropOldest => {
                        while !state.has_room(size, &self.limits) {
                            shed.extend(state.pop());
                        }
                    }
                    WhenFull::DropNewest | WhenFull::Reject => {
                        shed.extend(pending.pop_front());
                        continue;
                    }
                }
            }
            state.bytes += size;
            state.events.extend(pending.pop_front());
        }
        let wake = was_empty && !state.events.is_empty();
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        self.entered(offered - pending.len());
        if !shed.is_empty() {
            self.end(shed, Outcome::Shed, self.limits.when_full.reason());
        }
        pending.is_empty()
    }

    fn entered(&self, events: usize) {
        if let Some(ledger) = &self.ledger
            && events > 0
        {
            ledger.received.inc_by(events as u64);
        }
    }

    fn end(&self, events: VecDeque<Event>, outcome: Outcome, reason: &'static str) {
        if let Some(ledger) = &self.ledger {
            ledger.end(outcome, reason, events.len() as u64);
        }
        for event in events {
            event.settle(outcome);
        }
    }
}

// === impl State ===

impl State {
    /// An empty queue has room for any event: one that is larger than the limit passes alone.
    fn has_room(&self, size: usize, limits: &BufferConfig) -> bool {
        self.events.is_empty()
            || (self.events.len() < limits.events && self.bytes + size <= limits.bytes.bytes())
    }

    fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.bytes -= event.size();
        Some(event)
    }

    fn take(&mut self, out: &mut Vec<Event>, most: usize) {
        if self.events.len() <= most {
            self.bytes = 0;
            out.extend(self.events.drain(..));
        } else {
            let before = out.len();
            out.extend(self.events.drain(..most));
            let taken: usize = out.iter().skip(before).map(Event::size).sum();
            self.bytes -= taken;
        }
    }
}

// === impl WhenFull ===

impl WhenFull {
    /// The reason that shed events are counted under.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
            Self::Reject => "reject",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use futures_util::FutureExt;

    use super::*;
    use crate::config::Size;

    fn events(sizes: &[usize]) -> VecDeque<Event> {
        let event = |size: &usize| {
            let envelope = vec![b' '; *size].into();
            Event::from_parts("a".into(), "i".into(), envelope, SystemTime::UNIX_EPOCH)
        };
        sizes.iter().map(event).collect()
    }

    fn limits(bytes: u64, when_full: WhenFull) -> BufferConfig {
        BufferConfig {
            events: 3,
            bytes: Size(bytes),
            when_full,
            ..BufferConfig::default()
        }
    }

    #[tokio::test]
    async fn bytes_bound_it_and_a_large_event_passes_alone() {
        let (sender, mut receiver) = queue(limits(100, WhenFull::Block), None);
        let mut pending = events(&[60, 60, 500, 1]);
        let mut sizes = Vec::new();
        loop {
            sender.try_push(&mut pending);
            let mut out = Vec::new();
            if receiver.receive(&mut out, 256).now_or_never().is_none() {
                break;
            }
            sizes.push(out.iter().map(Event::size).collect::<Vec<_>>());
        }
        assert_eq!(sizes, [vec![60], vec![60], vec![500], vec![1]]);
    }

    #[tokio::test]
    async fn a_waiting_sender_that_is_dropped_keeps_its_events() {
        let (sender, mut receiver) = queue(limits(100, WhenFull::Block), None);
        let mut pending = events(&[1; 5]);
        assert!(sender.push(&mut pending).now_or_never().is_none());
        assert_eq!(pending.len(), 2);
        let mut out = Vec::new();
        assert!(receiver.receive(&mut out, 2).await);
        assert!(sender.push(&mut pending).now_or_never().is_some());
        drop(sender);
        while receiver.receive(&mut out, 2).await {}
        assert_eq!(out.len(), 5);
    }

    #[tokio::test]
    async fn every_waiting_sender_is_woken() {
        let (sender, mut receiver) = queue(limits(100, WhenFull::Block), None);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let sender = sender.clone();
            tasks.spawn(async move { sender.push(&mut events(&[1; 50])).await });
        }
        drop(sender);
        let mut out = Vec::new();
        while receiver.receive(&mut out, 256).await {}
        assert_eq!(out.len(), 200);
    }
}

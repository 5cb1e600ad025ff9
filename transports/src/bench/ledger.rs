//! What was posted, when, and who has it.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Events whose send time is kept: many times what can be under way.
const KEPT: usize = 1 << 16;
/// The longest latency that is told apart, in microseconds.
const LONGEST: u64 = 600_000_000;

/// Numbers events, and knows of each when it was sent and how many clients are still to get it.
pub(super) struct Ledger {
    slots: RefCell<Vec<Slot>>,
    next: Cell<u64>,
    /// Events that may still be posted, if that is limited: given back when every client has one.
    window: Option<Semaphore>,
    stopped: Cell<bool>,
    channels: Vec<Channel>,
    pub(super) delivered: Cell<u64>,
    /// Bytes received, frames' headers included.
    pub(super) bytes: Cell<u64>,
    /// Events without a number, or with one whose send time is no longer known.
    pub(super) unknown: Cell<u64>,
    latency: RefCell<Histogram<u64>>,
    /// Posts that were refused or not answered: their events may or may not be delivered.
    uncertain: RefCell<HashSet<u64>>,
}

/// The events of one instance.
#[derive(Default)]
struct Channel {
    followers: Cell<u32>,
    accepted: Cell<u64>,
}

#[derive(Clone, Copy)]
struct Slot {
    number: u64,
    sent: Instant,
    /// Clients that have not got it.
    left: u32,
}

// === impl Ledger ===

impl Ledger {
    /// A ledger for channels with so many followers each; `window` limits the events under way.
    pub(super) fn new(followers: &[u32], window: Option<u32>) -> Self {
        let nothing = Slot {
            number: u64::MAX,
            sent: Instant::now(),
            left: 0,
        };
        let channel = |count: &u32| Channel {
            followers: Cell::new(*count),
            accepted: Cell::new(0),
        };
        Self {
            slots: RefCell::new(vec![nothing; KEPT]),
            next: Cell::new(0),
            window: window.map(|window| Semaphore::new(window as usize)),
            stopped: Cell::new(false),
            channels: followers.iter().map(channel).collect(),
            delivered: Cell::new(0),
            bytes: Cell::new(0),
            unknown: Cell::new(0),
            latency: RefCell::new(histogram()),
            uncertain: RefCell::default(),
        }
    }

    /// Waits until one more event may be posted.
    pub(super) async fn take_turn(&self) {
        if let Some(window) = &self.window {
            window.acquire().await.expect("never closed").forget();
        }
    }

    /// Numbers the next event and says which channel it is for.
    pub(super) fn next(&self) -> (u64, usize) {
        let number = self.next.replace(self.next.get() + 1);
        let channel = usize::try_from(number % self.channels.len() as u64).expect("an index");
        (number, channel)
    }

    /// Notes that an event is about to be written.
    pub(super) fn send(&self, number: u64, channel: usize) {
        let left = self.channels[channel].followers.get();
        let sent = Instant::now();
        self.slots.borrow_mut()[slot(number)] = Slot { number, sent, left };
        if left == 0 {
            self.widen();
        }
    }

    /// Notes that an event was answered with 200.
    pub(super) fn accept(&self, channel: usize) {
        let accepted = &self.channels[channel].accepted;
        accepted.set(accepted.get() + 1);
    }

    /// Notes that an event was refused or not answered. It may be delivered all the same, but nobody waits for that.
    pub(super) fn refuse(&self, number: u64) {
        self.uncertain.borrow_mut().insert(number);
        let under_way = &mut self.slots.borrow_mut()[slot(number)];
        if under_way.number == number && (1..=LONGEST_LEFT).contains(&under_way.left) {
            under_way.left = 0;
            self.widen();
        }
    }

    /// Notes that one client got an event.
    pub(super) fn deliver(&self, number: Option<u64>, now: Instant) {
        self.delivered.set(self.delivered.get() + 1);
        let slots = &mut *self.slots.borrow_mut();
        let known = number.and_then(|number| {
            let slot = &mut slots[slot(number)];
            (slot.number == number).then_some(slot)
        });
        let Some(known) = known else {
            self.unknown.set(self.unknown.get() + 1);
            return;
        };
        let latency = now.saturating_duration_since(known.sent);
        self.latency.borrow_mut().saturating_record(micros(latency));
        known.left = known.left.wrapping_sub(1);
        if known.left == 0 {
            self.widen();
        }
    }

    /// Notes that a client is gone, so that no event waits for it.
    pub(super) fn leave(&self, channel: usize) {
        let followers = &self.channels[channel].followers;
        followers.set(followers.get().saturating_sub(1));
        if self.window.is_none() {
            return;
        }
        // Which events under way it has got already is not known; taking one too many off only widens the
        // window a moment early.
        let slots = &mut *self.slots.borrow_mut();
        let next = self.next.get();
        for number in next.saturating_sub(10_000)..next {
            let under_way = &mut slots[slot(number)];
            let mine = number % self.channels.len() as u64 == channel as u64;
            if mine && under_way.number == number && (1..=LONGEST_LEFT).contains(&under_way.left) {
                under_way.left -= 1;
                if under_way.left == 0 {
                    self.widen();
                }
            }
        }
    }

    /// Tells posters to end after the post that they are at.
    pub(super) fn stop(&self) {
        self.stopped.set(true);
        if let Some(window) = &self.window {
            window.add_permits(10_000);
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    /// How many events have a number.
    pub(super) fn numbered(&self) -> u64 {
        self.next.get()
    }

    /// Events of a channel that were answered with 200.
    pub(super) fn accepted_of(&self, channel: usize) -> u64 {
        self.channels[channel].accepted.get()
    }

    /// Events that were answered with 200.
    pub(super) fn accepted(&self) -> u64 {
        self.channels.iter().map(|one| one.accepted.get()).sum()
    }

    /// Events that were refused or not answered.
    pub(super) fn refused(&self) -> u64 {
        self.uncertain.borrow().len() as u64
    }

    /// Whether nobody can expect to get this event.
    pub(super) fn is_uncertain(&self, number: u64) -> bool {
        self.uncertain.borrow().contains(&number)
    }

    /// The latencies since this was last asked.
    pub(super) fn take_latency(&self) -> Histogram<u64> {
        self.latency.replace(histogram())
    }

    fn widen(&self) {
        if let Some(window) = &self.window {
            window.add_permits(1);
        }
    }
}

/// More clients than there can be: a count beyond it has wrapped.
const LONGEST_LEFT: u32 = 1 << 20;

fn slot(number: u64) -> usize {
    usize::try_from(number % KEPT as u64).expect("less than what is kept")
}

pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are in order")
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A latency in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "bounded by ten minutes")]
pub(super) fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1e3
}

/// Latencies in milliseconds, for the report.
pub(super) fn latency(histogram: &Histogram<u64>) -> Value {
    let at = |quantile| milliseconds(histogram.value_at_quantile(quantile));
    json!({
        "p50": at(0.5),
        "p99": at(0.99),
        "p99.9": at(0.999),
        "max": milliseconds(histogram.max()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(ledger: &Ledger) -> usize {
        ledger.window.as_ref().unwrap().available_permits()
    }

    #[test]
    fn a_turn_comes_back_when_every_follower_has_the_event() {
        let ledger = Ledger::new(&[2, 1], Some(1));
        let (first, channel) = ledger.next();
        assert_eq!((first, channel), (0, 0));
        ledger.send(first, channel);
        ledger.deliver(Some(first), Instant::now());
        assert_eq!(turns(&ledger), 1);
        ledger.deliver(Some(first), Instant::now());
        assert_eq!(turns(&ledger), 2);
        assert_eq!(ledger.next(), (1, 1));
        assert_eq!(ledger.next(), (2, 0));
        assert_eq!(ledger.take_latency().len(), 2);
        assert_eq!(ledger.take_latency().len(), 0);
    }

    #[test]
    fn no_event_waits_for_who_is_gone() {
        let ledger = Ledger::new(&[2], Some(1));
        let (number, channel) = ledger.next();
        ledger.send(number, channel);
        ledger.deliver(Some(number), Instant::now());
        ledger.leave(channel);
        assert_eq!(turns(&ledger), 2);
        ledger.leave(channel);
        let (number, channel) = ledger.next();
        ledger.send(number, channel);
        assert_eq!(turns(&ledger), 3);
    }

    #[test]
    fn a_turn_comes_back_once_for_what_is_refused_and_delivered() {
        let ledger = Ledger::new(&[1], Some(1));
        for refused_first in [true, false] {
            let (number, channel) = ledger.next();
            ledger.send(number, channel);
            let before = turns(&ledger);
            if refused_first {
                ledger.refuse(number);
            }
            ledger.deliver(Some(number), Instant::now());
            if !refused_first {
                ledger.refuse(number);
            }
            assert_eq!(turns(&ledger), before + 1);
        }
    }

    #[test]
    fn what_was_never_sent_is_unknown() {
        let ledger = Ledger::new(&[1], None);
        ledger.deliver(Some(7), Instant::now());
        ledger.deliver(None, Instant::now());
        assert_eq!((ledger.unknown.get(), ledger.delivered.get()), (2, 2));
    }
}

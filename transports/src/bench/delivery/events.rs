//! What was posted, and what each receiver has of it.
//!
//! Of `n` instances, the event `turn` of instance `i` has the number `turn * n + i`: the number says whose it is and what
//! comes before it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::ledger::{histogram, micros};

/// What was posted.
pub(super) struct Events {
    /// The next turn of each instance.
    turns: RefCell<Vec<u64>>,
    sent: RefCell<Vec<Option<Sent>>>,
    accepted: Cell<u64>,
    refused: Cell<u64>,
}

#[derive(Clone, Copy)]
struct Sent {
    at: Instant,
    /// It was answered 2xx.
    accepted: bool,
}

/// What one receiver has.
pub(super) struct Inbox {
    events: Rc<Events>,
    /// How often each number came.
    counts: RefCell<Vec<u8>>,
    /// The newest number of each instance.
    newest: RefCell<Vec<Option<u64>>>,
    received: Cell<u64>,
    duplicates: Cell<u64>,
    /// Numbers that came for the first time behind later ones of their instance.
    disorder: Cell<u64>,
    /// What was never sent.
    unknown: Cell<u64>,
    latency: Rc<RefCell<Histogram<u64>>>,
}

// === impl Events ===

impl Events {
    pub(super) fn new(instances: usize) -> Rc<Self> {
        Rc::new(Self {
            turns: RefCell::new(vec![0; instances]),
            sent: RefCell::default(),
            accepted: Cell::new(0),
            refused: Cell::new(0),
        })
    }

    /// Numbers the next event of an instance, whose turn was `at`.
    pub(super) fn send(&self, instance: usize, at: Instant) -> u64 {
        let mut turns = self.turns.borrow_mut();
        let number = turns[instance] * turns.len() as u64 + instance as u64;
        turns[instance] += 1;
        let accepted = false;
        *place(&mut self.sent.borrow_mut(), number) = Some(Sent { at, accepted });
        number
    }

    /// Notes that it was answered 2xx.
    pub(super) fn accept(&self, number: u64) {
        if let Some(sent) = place(&mut self.sent.borrow_mut(), number) {
            sent.accepted = true;
        }
        self.accepted.set(self.accepted.get() + 1);
    }

    /// Notes that it was answered something else, or nothing.
    pub(super) fn refuse(&self) {
        self.refused.set(self.refused.get() + 1);
    }

    /// Events that were answered 2xx.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted.get()
    }

    /// Attempts that were not.
    pub(super) fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Events that were posted, however they were answered.
    pub(super) fn posted(&self) -> u64 {
        self.turns.borrow().iter().sum()
    }

    fn get(&self, number: u64) -> Option<Sent> {
        *self.sent.borrow().get(usize::try_from(number).ok()?)?
    }
}

// === impl Inbox ===

impl Inbox {
    pub(super) fn new(events: &Rc<Events>) -> Rc<Self> {
        Self::sharing(events, &Rc::new(RefCell::new(histogram())))
    }

    /// One whose latencies are counted together with others'.
    pub(super) fn sharing(events: &Rc<Events>, latency: &Rc<RefCell<Histogram<u64>>>) -> Rc<Self> {
        let instances = events.turns.borrow().len();
        Rc::new(Self {
            events: Rc::clone(events),
            counts: RefCell::default(),
            newest: RefCell::new(vec![None; instances]),
            received: Cell::new(0),
            duplicates: Cell::new(0),
            disorder: Cell::new(0),
            unknown: Cell::new(0),
            latency: Rc::clone(latency),
        })
    }

    /// Notes an arrival.
    pub(super) fn take(&self, number: Option<u64>, now: Instant) {
        let known = number.and_then(|number| Some((number, self.events.get(number)?)));
        let Some((number, sent)) = known else {
            add(&self.unknown, 1);
            return;
        };
        let mut counts = self.counts.borrow_mut();
        let count = place(&mut counts, number);
        *count = count.saturating_add(1);
        if *count > 1 {
            add(&self.duplicates, 1);
            return;
        }
        add(&self.received, 1);
        let mut newest = self.newest.borrow_mut();
        let instance = number % newest.len() as u64;
        let newest = &mut newest[usize::try_from(instance).expect("an index")];
        if newest.is_some_and(|newest| newest > number) {
            add(&self.disorder, 1);
        } else {
            *newest = Some(number);
        }
        let latency = now.saturating_duration_since(sent.at);
        self.latency.borrow_mut().saturating_record(micros(latency));
    }

    /// Different events that arrived.
    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Events that were answered 2xx and did not arrive, of the instances that are meant for this receiver.
    pub(super) fn missing(&self, mut is_meant: impl FnMut(usize) -> bool) -> u64 {
        let (counts, sent) = (self.counts.borrow(), self.events.sent.borrow());
        let instances = self.newest.borrow().len();
        let missing = sent.iter().enumerate().filter(|(number, sent)| {
            sent.is_some_and(|sent| sent.accepted)
                && counts.get(*number).is_none_or(|count| *count == 0)
                && is_meant(number % instances)
        });
        missing.count() as u64
    }

    /// The latencies since this was last asked.
    pub(super) fn take_latency(&self) -> Histogram<u64> {
        self.latency.replace(histogram())
    }

    /// For the report, where all events are meant for it.
    pub(super) fn report(&self) -> Value {
        json!({
            "received": self.received.get(),
            "missing": self.missing(|_| true),
            "duplicates": self.duplicates.get(),
            "out_of_order": self.disorder.get(),
            "unknown": self.unknown.get(),
        })
    }

    /// Numbers that came for the first time behind later ones of their instance.
    pub(super) fn disorder(&self) -> u64 {
        self.disorder.get()
    }

    /// Arrivals of what had arrived already.
    pub(super) fn duplicates(&self) -> u64 {
        self.duplicates.get()
    }
}

fn add(cell: &Cell<u64>, count: u64) {
    cell.set(cell.get() + count);
}

/// The place of a number, made if it is not there.
fn place<T: Clone + Default>(places: &mut Vec<T>, number: u64) -> &mut T {
    let index = usize::try_from(number).expect("an index");
    if index >= places.len() {
        places.resize(index + 1, T::default());
    }
    &mut places[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_twice_and_out_of_order_is_counted() {
        let events = Events::new(2);
        let now = Instant::now();
        let numbers: Vec<_> = (0..6).map(|turn| events.send(turn % 2, now)).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
        for number in [0, 1, 2, 3, 4] {
            events.accept(number);
        }
        let inbox = Inbox::new(&events);
        for number in [0, 4, 2, 2, 1, 77] {
            inbox.take(Some(number), now);
        }
        inbox.take(None, now);
        // 3 is missing, 5 was not accepted.
        let wanted = json!({
            "received": 4, "missing": 1, "duplicates": 1, "out_of_order": 1, "unknown": 2,
        });
        assert_eq!(inbox.report(), wanted);
        assert_eq!(inbox.missing(|instance| instance == 0), 0);
        assert_eq!(inbox.take_latency().len(), 4);
        assert_eq!((events.posted(), events.accepted()), (6, 5));
    }
}

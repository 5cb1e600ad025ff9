//! What happened, step by step.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{Event, EventId};

/// Where steps are written down, while they happen.
pub(super) struct Recorder {
    start: Instant,
    stopping: AtomicBool,
    written: Mutex<Written>,
}

/// What is written down.
#[derive(Default)]
struct Written {
    steps: Vec<Step>,
    seen: HashMap<EventId, Seen>,
    /// How many different events were made of each that was put in, itself included.
    counts: HashMap<EventId, usize>,
}

/// What is known of an event.
#[derive(Clone, Copy)]
struct Seen {
    /// The event that was put in: itself, or the one that it was made of.
    origin: EventId,
    /// Its number among those.
    number: usize,
}

/// Every step of every event, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recording {
    pub(crate) steps: Vec<Step>,
}

/// One thing that happened to an event.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// When, from the start.
    pub(crate) at: Duration,
    /// Whether the pipeline was being stopped.
    pub(crate) stopping: bool,
    /// Where.
    pub(crate) node: Arc<str>,
    /// The event. Copies and what is made of it have the same.
    pub(crate) event: EventId,
    /// Which of those that were made of it, from 1, which is itself. Copies that fan-out makes have the same.
    pub(crate) number: usize,
    /// What.
    pub(crate) did: Did,
}

/// What happened to an event in a node.
#[derive(Debug, Clone)]
pub(crate) enum Did {
    /// It came in.
    In(Event),
    /// It went out, through a port where there is a name. `unread` when nobody reads that output.
    Out {
        port: Option<Arc<str>>,
        event: Event,
        unread: bool,
    },
    /// The filter discarded it.
    Discarded(&'static str),
    /// The filter could not handle it.
    Failed(&'static str),
    /// The filter kept it for later.
    Held,
    /// The filter reaches out of the process, so it was not asked, and the event went on as it was.
    Skipped,
    /// The sink has it.
    Delivered(Event),
    /// An attempt to deliver it failed.
    Refused(String),
}

// === impl Recorder ===

impl Recorder {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            stopping: AtomicBool::new(false),
            written: Mutex::default(),
        }
    }

    /// Says that a filter made an event of another one, unless it was there before.
    pub(super) fn made(&self, event: EventId, of: EventId) {
        let mut written = self.written.lock();
        let origin = written.see(of, of).origin;
        written.see(event, origin);
    }

    pub(super) fn note(&self, node: &Arc<str>, event: EventId, did: Did) {
        let mut written = self.written.lock();
        let Seen { origin, number } = written.see(event, event);
        let step = Step {
            at: self.start.elapsed(),
            stopping: self.stopping.load(Ordering::Relaxed),
            node: Arc::clone(node),
            event: origin,
            number,
            did,
        };
        written.steps.push(step);
    }

    pub(super) fn stops(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn take(&self) -> Recording {
        Recording {
            steps: std::mem::take(&mut self.written.lock().steps),
        }
    }
}

// === impl Written ===

impl Written {
    /// What is known of an event; one that is new was made of `origin`.
    fn see(&mut self, event: EventId, origin: EventId) -> Seen {
        let counts = &mut self.counts;
        *self.seen.entry(event).or_insert_with(|| {
            let count = counts.entry(origin).or_default();
            *count += 1;
            let number = *count;
            Seen { origin, number }
        })
    }
}

// === impl Recording ===

impl Recording {
    /// The steps of each event.
    pub(crate) fn by_event(&self) -> HashMap<EventId, Vec<&Step>> {
        let mut events: HashMap<EventId, Vec<&Step>> = HashMap::new();
        for step in &self.steps {
            events.entry(step.event).or_default().push(step);
        }
        events
    }

    /// The steps of one event.
    pub(crate) fn of(&self, event: EventId) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| step.event == event)
    }
}

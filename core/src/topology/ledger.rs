//! What one component took in, passed on and ended.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::Outcome;
use crate::metrics::{Component, Ended, Metrics};
use crate::registry::Kind;

/// The counters of one component, looked up once.
pub(crate) struct Ledger {
    component: Arc<str>,
    kind: Kind,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    pub(crate) restarts: Counter,
    pub(crate) retries: Counter,
    pub(crate) dead_letters: Counter,
    /// Events in the buffer on disk.
    pub(crate) buffered: Gauge,
    metrics: Metrics,
    /// Few: one per outcome and reason that ever happened here.
    ended: Mutex<Vec<(Outcome, &'static str, Counter)>>,
}

/// Counts gathered over a batch by one task, written into the ledger once.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    ended: Vec<(Outcome, &'static str, u64)>,
}

// === impl Ledger ===

impl Ledger {
    pub(crate) fn new(component: &Arc<str>, kind: Kind, metrics: &Metrics) -> Self {
        let label = Component::new(Arc::clone(component));
        Self {
            component: Arc::clone(component),
            kind,
            received: metrics.received.get_or_create_owned(&label),
            sent: metrics.sent.get_or_create_owned(&label),
            restarts: metrics.restarts.get_or_create_owned(&label),
            retries: metrics.retries.get_or_create_owned(&label),
            buffered: metrics.buffered.get_or_create_owned(&label),
            dead_letters: metrics.dead_letters.get_or_create_owned(&label),
            metrics: metrics.clone(),
            ended: Mutex::default(),
        }
    }

    pub(crate) fn component(&self) -> &Arc<str> {
        &self.component
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Notes how many events are in the buffer on disk.
    pub(crate) fn set_buffered(&self, events: u64) {
        self.buffered.set(i64::try_from(events).unwrap_or(i64::MAX));
    }

    /// Notes that the component cannot start, and why.
    pub(crate) fn set_down(&self, error: impl fmt::Display) {
        self.metrics.set_down(&self.component, error.to_string());
    }

    /// Notes that the component has started.
    pub(crate) fn set_up(&self) {
        self.metrics.set_up(&self.component);
    }

    /// The counter of events that ended here like this.
    pub(crate) fn ending(&self, outcome: Outcome, reason: &'static str) -> Counter {
        let mut ended = self.ended.lock();
        let known = ended
            .iter()
            .find(|(o, r, _)| *o == outcome && *r == reason)
            .map(|(_, _, counter)| counter.clone());
        known.unwrap_or_else(|| {
            let label = Ended {
                component: Arc::clone(&self.component),
                outcome,
                reason,
            };
            let counter = self.metrics.ended.get_or_create_owned(&label);
            ended.push((outcome, reason, counter.clone()));
            counter
        })
    }

    /// Counts `events` that ended here.
    pub(crate) fn end(&self, outcome: Outcome, reason: &'static str, events: u64) {
        if events > 0 {
            self.ending(outcome, reason).inc_by(events);
        }
    }

    /// Every way in which events ended here, with how many.
    pub(crate) fn endings(&self) -> Vec<(Outcome, &'static str, u64)> {
        let ended = self.ended.lock();
        let mut endings: Vec<_> = ended
            .iter()
            .map(|(outcome, reason, counter)| (*outcome, *reason, counter.get()))
            .filter(|(_, _, events)| *events > 0)
            .collect();
        endings.sort_unstable();
        endings
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind, self.component)
    }
}

// === impl Tally ===

impl Tally {
    /// Notes one event that ended.
    pub(crate) fn end(&mut self, outcome: Outcome, reason: &'static str) {
        for (o, r, events) in &mut self.ended {
            if *o == outcome && *r == reason {
                *events += 1;
                return;
            }
        }
        self.ended.push((outcome, reason, 1));
    }

    /// Writes what was gathered, and starts anew.
    pub(crate) fn post(&mut self, ledger: &Ledger) {
        if self.received > 0 {
            ledger.received.inc_by(std::mem::take(&mut self.received));
        }
        if self.sent > 0 {
            ledger.sent.inc_by(std::mem::take(&mut self.sent));
        }
        // The entries stay, so that a steady flow of endings allocates once.
        for (outcome, reason, events) in &mut self.ended {
            ledger.end(*outcome, reason, std::mem::take(events));
        }
    }
}

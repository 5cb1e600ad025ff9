//! The counters, named once.
//!
//! Names follow the Prometheus conventions: `evows_<noun>_<unit>_total`. Core counts for every plugin, so that a
//! plugin cannot forget to.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
pub use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::outcome::Outcome;

/// Every counter of this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Events that a component took in.
    pub received: Family<Component, Counter>,
    /// Events that a component passed on, per port.
    pub sent: Family<Component, Counter>,
    /// Events that ended in a component, by outcome and reason.
    pub ended: Family<Ended, Counter>,
    /// Attempts to deliver a batch again, per sink.
    pub retries: Family<Component, Counter>,
    /// Events that a component was given twice and took once.
    pub duplicates: Family<Component, Counter>,
    /// Events in the buffer on disk that have not been delivered, per sink.
    pub buffered: Family<Component, Gauge>,
    /// Events that were put among the dead letters, per sink.
    pub dead_letters: Family<Component, Counter>,
    /// Times that a component was built again after a failure.
    pub restarts: Family<Component, Counter>,
    /// Clients connected now, per transport.
    pub clients: Family<Component, Gauge>,
    /// Clients that were closed, by reason.
    pub closed: Family<Reason, Counter>,
    /// Handshakes, connects and requests that were refused, by reason.
    pub refused: Family<Reason, Counter>,
    /// Deliveries to clients.
    pub deliveries: Family<Component, Counter>,
    /// Deliveries that were not made, by reason.
    pub undelivered: Family<Reason, Counter>,
    /// Events that a filter passed on as they came because it could not do its work, by reason.
    pub unhandled: Family<Reason, Counter>,
    /// 1 for a component that cannot start, and does not work therefore.
    pub down: Family<Component, Gauge>,
    /// Why those cannot start.
    errors: Arc<Mutex<BTreeMap<Arc<str>, String>>>,
    registry: Arc<Mutex<Registry>>,
}

/// The component that a counter is about: its id in `evows.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Component {
    /// The id.
    pub component: Arc<str>,
}

/// How events ended in a component.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ended {
    /// The component's id.
    pub component: Arc<str>,
    /// The outcome.
    pub outcome: Outcome,
    /// Why: a short fixed phrase in `snake_case`; empty for delivered events.
    pub reason: &'static str,
}

/// Why something was refused or closed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// The component's id, or `http` for the server.
    pub component: Arc<str>,
    /// Why: a short fixed phrase in `snake_case`.
    pub reason: &'static str,
}

// === impl Metrics ===

impl Metrics {
    /// Fresh counters, all registered under their names.
    pub fn new() -> Self {
        let metrics = Self::default();
        {
            let mut registry = metrics.registry.lock();
            let registry = registry.sub_registry_with_prefix("evows");
            registry.register(
                "events_received",
                "Events that a component took in",
                metrics.received.clone(),
            );
            registry.register(
                "events_sent",
                "Events that a component passed on",
                metrics.sent.clone(),
            );
            registry.register(
                "events_ended",
                "Events that ended in a component",
                metrics.ended.clone(),
            );
            registry.register(
                "batch_retries",
                "Attempts to deliver a batch again",
                metrics.retries.clone(),
            );
            registry.register(
                "events_duplicate",
                "Events that were given twice and taken once",
                metrics.duplicates.clone(),
            );
            registry.register(
                "events_buffered",
                "Events in the buffer on disk",
                metrics.buffered.clone(),
            );
            registry.register(
                "dead_letters",
                "Events put among the dead letters",
                metrics.dead_letters.clone(),
            );
            registry.register(
                "component_restarts",
                "Times a component was built again",
                metrics.restarts.clone(),
            );
            registry.register("clients", "Clients connected now", metrics.clients.clone());
            registry.register(
                "clients_closed",
                "Clients that were closed",
                metrics.closed.clone(),
            );
            registry.register(
                "refusals",
                "Requests that were refused",
                metrics.refused.clone(),
            );
            registry.register(
                "deliveries",
                "Deliveries to clients",
                metrics.deliveries.clone(),
            );
            registry.register(
                "undelivered",
                "Deliveries that were not made",
                metrics.undelivered.clone(),
            );
            registry.register(
                "events_unhandled",
                "Events that a filter passed on as they came because it could not do its work",
                metrics.unhandled.clone(),
            );
            registry.register(
                "component_down",
                "Whether a component cannot start",
                metrics.down.clone(),
            );
        }
        metrics
    }

    /// Counts `events` that ended in `component`.
    pub fn end(&self, component: &Arc<str>, outcome: Outcome, reason: &'static str, events: u64) {
        let label = Ended {
            component: Arc::clone(component),
            outcome,
            reason,
        };
        self.ended.get_or_create(&label).inc_by(events);
    }

    /// The counter of events that a component was given twice and took once.
    pub fn duplicates(&self, component: &str) -> Counter {
        self.duplicates
            .get_or_create_owned(&Component::new(component))
    }

    /// Counts one refusal.
    pub fn refuse(&self, component: &Arc<str>, reason: &'static str) {
        self.refused
            .get_or_create(&Reason {
                component: Arc::clone(component),
                reason,
            })
            .inc();
    }

    /// Counts one closed client.
    pub fn close(&self, component: &Arc<str>, reason: &'static str) {
        self.closed
            .get_or_create(&Reason {
                component: Arc::clone(component),
                reason,
            })
            .inc();
    }

    /// Counts one event that a filter passed on as it came because it could not do its work.
    pub fn pass_unhandled(&self, component: &Arc<str>, reason: &'static str) {
        let label = Reason {
            component: Arc::clone(component),
            reason,
        };
        self.unhandled.get_or_create(&label).inc();
    }

    /// Notes that a component cannot start, and why.
    pub fn set_down(&self, component: &Arc<str>, error: String) {
        let label = Component::new(Arc::clone(component));
        self.down.get_or_create(&label).set(1);
        self.errors.lock().insert(Arc::clone(component), error);
    }

    /// Notes that a component has started.
    pub fn set_up(&self, component: &Arc<str>) {
        if self.errors.lock().remove(component).is_some() {
            let label = Component::new(Arc::clone(component));
            self.down.get_or_create(&label).set(0);
        }
    }

    /// The components that cannot start, each with what its last attempt came to.
    pub fn down(&self) -> BTreeMap<Arc<str>, String> {
        self.errors.lock().clone()
    }

    /// All counters in the Prometheus text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let written = prometheus_client::encoding::text::encode(&mut text, &self.registry.lock());
        debug_assert!(written.is_ok(), "writing into a string does not fail");
        text
    }
}

// === impl Component ===

impl Component {
    /// The label of the component `id`.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self {
            component: id.into(),
        }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.as_str().encode(encoder)
    }
}

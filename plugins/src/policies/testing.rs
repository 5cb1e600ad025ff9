//! Instances that need no lifecycle.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use evows_core::Event;
use evows_core::hub::ChannelName;
use evows_core::plugin::{Instance, Instances, Policy, Subscription};

/// Instances by name, as a test sets them up.
#[derive(Default)]
pub(super) struct Fake(BTreeMap<String, Arc<Instance>>);

/// The channels that `policy` routes an event to.
pub(super) fn routed(
    policy: &dyn Policy,
    instances: &Fake,
    name: &str,
    instance: &str,
) -> Vec<String> {
    let event = Event::from_parts(
        name.into(),
        instance.into(),
        Bytes::from_static(b"{}"),
        SystemTime::now(),
    );
    let mut channels = Vec::new();
    policy.route(&event, instances, &mut channels);
    channels.iter().map(ToString::to_string).collect()
}

// === impl Fake ===

impl Fake {
    /// Adds an instance that was enabled at least once.
    pub(super) fn subscribed(self, name: &str, enabled: bool, events: &[&str]) -> Self {
        let events = events.iter().map(|event| (*event).to_owned()).collect();
        self.with(name, Some(Subscription { enabled, events }))
    }

    /// Adds an instance that was never set.
    pub(super) fn unset(self, name: &str) -> Self {
        self.with(name, None)
    }

    fn with(mut self, name: &str, websocket: Option<Subscription>) -> Self {
        let instance = Instance {
            name: name.into(),
            channel: ChannelName::of_instance(name).unwrap(),
            token: None,
            activated: websocket.is_some(),
            websocket,
            integrations: Vec::new(),
        };
        self.0.insert(name.to_owned(), Arc::new(instance));
        self
    }
}

impl Instances for Fake {
    fn get(&self, name: &str) -> Option<Arc<Instance>> {
        self.0.get(name).cloned()
    }

    fn all(&self) -> Vec<Arc<Instance>> {
        self.0.values().cloned().collect()
    }

    fn owner(&self, _token: &str) -> Option<Arc<Instance>> {
        None
    }
}

//! Instances that need no store.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::access::Secret;
use crate::hub::ChannelName;
use crate::plugin::{Instance, Instances, Lifecycle, LifecycleError, Subscription, Watcher};

/// Instances by name, as a test sets them up.
#[derive(Debug, Default)]
pub struct SomeInstances(BTreeMap<String, Arc<Instance>>);

// === impl SomeInstances ===

/// # Panics
///
/// All of these, when the name cannot be that of a channel.
impl SomeInstances {
    /// Adds an instance that was enabled at least once, and is set to these events now.
    #[must_use]
    pub fn subscribed(self, name: &str, enabled: bool, events: &[&str]) -> Self {
        let events = events.iter().map(|event| (*event).to_owned()).collect();
        self.with(name, None, Some(Subscription { enabled, events }))
    }

    /// Adds an instance that was never set.
    #[must_use]
    pub fn unset(self, name: &str) -> Self {
        self.with(name, None, None)
    }

    /// Adds an instance that has a token of its own and was never set.
    #[must_use]
    pub fn with_token(self, name: &str, token: &str) -> Self {
        self.with(name, Some(Secret::new(token)), None)
    }

    fn with(mut self, name: &str, token: Option<Secret>, websocket: Option<Subscription>) -> Self {
        let channel = ChannelName::of_instance(name);
        let instance = Instance {
            name: name.into(),
            channel: channel.expect("a test names its instances as channels can be named"),
            token,
            activated: websocket.is_some(),
            websocket,
            integrations: Vec::new(),
        };
        self.0.insert(name.to_owned(), Arc::new(instance));
        self
    }
}

impl Instances for SomeInstances {
    fn get(&self, name: &str) -> Option<Arc<Instance>> {
        self.0.get(name).cloned()
    }

    fn all(&self) -> Vec<Arc<Instance>> {
        self.0.values().cloned().collect()
    }

    fn owner(&self, token: &str) -> Option<Arc<Instance>> {
        let has = |instance: &&Arc<Instance>| {
            let own = instance.token.as_ref();
            own.is_some_and(|own| own.matches(token))
        };
        self.0.values().find(has).cloned()
    }
}

#[async_trait]
impl Lifecycle for SomeInstances {
    async fn start(&self) -> Result<(), LifecycleError> {
        Ok(())
    }

    fn watch(&self, _watcher: Arc<dyn Watcher>) {}
}

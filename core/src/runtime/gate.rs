//! Which channels are open before anybody publishes into them.

use std::sync::Arc;

use crate::hub::{ChannelName, Hub};
use crate::plugin::{Instance, Lifecycle, Policy, Watcher};

/// Opens the channels that a policy opens, and closes those of deleted instances.
///
/// Told of a change before the call that caused it is answered, so a client that connects after the
/// answer finds its channel.
pub(super) struct Gate {
    hub: Arc<Hub>,
    lifecycle: Arc<dyn Lifecycle>,
    policies: Vec<Arc<dyn Policy>>,
}

// === impl Gate ===

impl Gate {
    pub(super) fn new(
        hub: &Arc<Hub>,
        lifecycle: &Arc<dyn Lifecycle>,
        policies: Vec<Arc<dyn Policy>>,
    ) -> Self {
        Self {
            hub: Arc::clone(hub),
            lifecycle: Arc::clone(lifecycle),
            policies,
        }
    }

    /// Opens what is open at start: `/`, and the channels of restored instances.
    pub(super) fn open_all(&self) {
        self.consider(&ChannelName::root());
        for instance in self.lifecycle.all() {
            self.consider(&instance.channel);
        }
    }

    fn consider(&self, channel: &ChannelName) {
        let lifecycle = &*self.lifecycle;
        let opens = |policy: &Arc<dyn Policy>| policy.opens(channel, lifecycle);
        if self.policies.iter().any(opens) {
            self.hub.open(channel);
        }
    }
}

impl Watcher for Gate {
    fn changed(&self, instance: &Arc<Instance>) {
        self.consider(&instance.channel);
    }

    fn removed(&self, instance: &Arc<Instance>) {
        self.hub.close(&instance.channel);
    }
}

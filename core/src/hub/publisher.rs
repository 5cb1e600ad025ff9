//! From a sink into the hub, under a policy.

use std::sync::Arc;

use super::{ChannelName, Hub};
use crate::Event;
use crate::plugin::{Lifecycle, Policy};

/// Publishes events to the channels that a policy names.
pub struct Publisher {
    hub: Arc<Hub>,
    policy: Arc<dyn Policy>,
    lifecycle: Arc<dyn Lifecycle>,
}

// === impl Publisher ===

impl Publisher {
    pub(crate) fn new(
        hub: Arc<Hub>,
        policy: Arc<dyn Policy>,
        lifecycle: Arc<dyn Lifecycle>,
    ) -> Self {
        Self {
            hub,
            policy,
            lifecycle,
        }
    }

    /// Publishes a batch, in order. An event that the policy routes nowhere is published nowhere: that is
    /// what the policy is for. When this returns, every client that follows resumes past it or gets it.
    pub fn publish(&self, batch: &[Event]) {
        let mut channels: Vec<ChannelName> = Vec::with_capacity(batch.len());
        let mut routed = Vec::with_capacity(batch.len());
        let mut own = Vec::new();
        for event in batch {
            self.lifecycle.observe(event);
            self.policy.route(event, &*self.lifecycle, &mut own);
            if !own.is_empty() {
                let first = channels.len();
                channels.append(&mut own);
                routed.push((event, first..channels.len()));
            }
        }
        let routed = routed.into_iter();
        self.hub
            .publish(routed.map(|(event, own)| (event, &channels[own])));
    }
}

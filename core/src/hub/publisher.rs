//! From a sink into the hub, under a policy.

use std::sync::Arc;

use super::{ChannelName, Crowd, Hub};
use crate::Event;
use crate::plugin::{Lifecycle, Policy};

/// Events published between two looks at how far the clients are.
const LARGEST_PIECE: usize = 512;

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
    ///
    /// Waits, for a second at most in each piece of the batch, while even the quickest clients do not keep up. When it is
    /// cancelled, the first part of the batch is published and the rest is not.
    pub async fn publish(&self, batch: &[Event]) {
        // Never so much at once that it alone would run over a channel.
        let piece = (self.hub.retention().events / 4).clamp(1, LARGEST_PIECE);
        for batch in batch.chunks(piece) {
            let crowd = self.put(batch);
            if !crowd.is_empty() {
                crowd.thinned().await;
            }
        }
    }

    fn put(&self, batch: &[Event]) -> Crowd {
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
        let routed = routed.map(|(event, own)| (event, &channels[own]));
        self.hub.publish(routed).crowd
    }
}

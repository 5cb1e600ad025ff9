//! From a sink into the hub, under a policy.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

use super::{ChannelName, Crowd, Hub};
use crate::Event;
use crate::journal::JournalError;
use crate::plugin::{Lifecycle, Policy, SinkError};

/// Events published between two looks at how far the clients are.
const LARGEST_PIECE: usize = 512;

/// Publishes events to the channels that a policy names.
pub struct Publisher {
    hub: Arc<Hub>,
    policy: Arc<dyn Policy>,
    lifecycle: Arc<dyn Lifecycle>,
    duplicates: Counter,
}

// === impl Publisher ===

impl Publisher {
    pub(crate) fn new(
        hub: Arc<Hub>,
        policy: Arc<dyn Policy>,
        lifecycle: Arc<dyn Lifecycle>,
        duplicates: Counter,
    ) -> Self {
        Self {
            hub,
            policy,
            lifecycle,
            duplicates,
        }
    }

    /// Publishes a batch, in order. An event that the policy routes nowhere is published nowhere: that is
    /// what the policy is for. When this returns, every client that follows resumes past it or gets it; with a history, whatever
    /// happens to this process.
    ///
    /// Waits, for a second at most in each piece of the batch, while even the quickest clients do not keep up. When it is
    /// cancelled, the first part of the batch is published and the rest is not. An error says which part was not, because the
    /// history cannot store it.
    pub async fn publish(&self, batch: &[Event]) -> Result<(), SinkError> {
        // Never so much at once that it alone would run over a channel.
        let piece = (self.hub.retention().events / 4).clamp(1, LARGEST_PIECE);
        let mut published = 0;
        for events in batch.chunks(piece) {
            let crowd = self.put(events).await.map_err(|error| {
                let error =
                    SinkError::overloaded("the history cannot store events").caused_by(error);
                error.only((published..batch.len()).collect())
            })?;
            if !crowd.is_empty() {
                crowd.thinned().await;
            }
            published += events.len();
        }
        Ok(())
    }

    async fn put(&self, batch: &[Event]) -> Result<Crowd, JournalError> {
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
        let (published, duplicates) = self.hub.store_and_publish(routed.collect()).await?;
        if duplicates > 0 {
            self.duplicates.inc_by(duplicates as u64);
        }
        Ok(published.crowd)
    }
}

//! Waiting for clients when events are published faster than even the quickest of them can take them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Channel;

/// How often the quickest clients are looked at while they are waited for.
const LOOK: Duration = Duration::from_millis(1);
/// How long they are waited for while they take nothing.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long they are waited for at the most.
const LONGEST: Duration = Duration::from_secs(1);

/// Channels that fill up faster than even their quickest clients read: the next burst would run over what nobody has got.
#[derive(Debug, Default)]
pub struct Crowd(Vec<Arc<Channel>>);

// === impl Crowd ===

impl Crowd {
    pub(super) fn of(mut channels: Vec<Arc<Channel>>) -> Self {
        channels.retain(|channel| channel.crowded().is_some());
        Self(channels)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits until the quickest client of each channel has room in front of it again. Clients that take nothing are not
    /// waited for, and nobody for longer than a second. Cancel safe.
    pub async fn thinned(self) {
        let fronts = |channels: &[Arc<Channel>]| -> Vec<u64> {
            channels.iter().filter_map(|it| it.crowded()).collect()
        };
        let started = Instant::now();
        let (mut before, mut moved) = (fronts(&self.0), started);
        while !before.is_empty() && started.elapsed() < LONGEST && moved.elapsed() < PATIENCE {
            tokio::time::sleep(LOOK).await;
            let now = fronts(&self.0);
            if now != before {
                (before, moved) = (now, Instant::now());
            }
        }
    }
}

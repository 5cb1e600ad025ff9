//! Where a source puts its events.

use tokio::sync::mpsc;

use crate::Event;
use crate::outcome::Receipt;

/// A source's way into the pipeline.
#[derive(Debug)]
pub struct Outlet {
    sender: mpsc::Sender<Vec<Event>>,
}

// === impl Outlet ===

impl Outlet {
    pub(crate) fn new(sender: mpsc::Sender<Vec<Event>>) -> Self {
        Self { sender }
    }

    /// Pushes a batch, waiting while the pipeline is full. Nobody learns how it ends but the counters.
    ///
    /// Not cancel safe: dropped half-way, the events that were not yet queued are lost and counted.
    pub async fn send(&mut self, batch: Vec<Event>) {
        // Whoever reads the other end is gone: dropping the events reports them as lost.
        drop(self.sender.send(batch).await);
    }

    /// Pushes a batch and gives the receipt of its worst outcome.
    pub async fn send_tracked(&mut self, batch: Vec<Event>) -> Receipt {
        let (tracker, receipt) = crate::track();
        let batch = batch
            .into_iter()
            .map(|event| event.tracked(&tracker))
            .collect();
        drop(tracker);
        self.send(batch).await;
        receipt
    }
}

//! What stands between core's delivery and the sink under test.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::Event;
use crate::plugin::{Batch, Destination, Sink, SinkError};

/// What a sink was asked to do, over all of its builds.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) starts: usize,
    pub(super) stops: usize,
    /// How many events each attempt was about.
    pub(super) attempts: Vec<usize>,
    /// Answers that are given in place of the sink's.
    pub(super) scripted: VecDeque<SinkError>,
}

/// Passes calls on to a sink, and notes them.
pub(super) struct Probe {
    pub(super) sink: Arc<dyn Sink>,
    pub(super) seen: Arc<Mutex<Seen>>,
}

// === impl Probe ===

#[async_trait]
impl Sink for Probe {
    async fn start(&self) -> Result<(), SinkError> {
        self.seen.lock().starts += 1;
        self.sink.start().await
    }

    fn destinations(&self, event: &Event, out: &mut Vec<Destination>) {
        self.sink.destinations(event, out);
    }

    async fn send(&self, batch: Batch<'_>) -> Result<(), SinkError> {
        let scripted = {
            let mut seen = self.seen.lock();
            seen.attempts.push(batch.len());
            seen.scripted.pop_front()
        };
        match scripted {
            Some(error) => Err(error),
            None => self.sink.send(batch).await,
        }
    }

    async fn stop(&self) -> Result<(), SinkError> {
        self.seen.lock().stops += 1;
        self.sink.stop().await
    }
}

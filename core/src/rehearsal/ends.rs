//! What stands in place of sources and sinks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::record::{Did, Recorder};
use crate::config::ErrorKind;
use crate::plugin::{Batch, Sink, SinkError, Source, SourceError};
use crate::shutdown::Shutdown;
use crate::topology::Outlet;

/// An open end: hands its outlet out under its name, and stays until it is told to stop.
pub(super) struct Open {
    pub(super) name: Arc<str>,
    pub(super) hand: mpsc::UnboundedSender<(Arc<str>, Outlet)>,
}

/// Takes all, after it has failed so often.
pub(super) struct Taker {
    pub(super) id: Arc<str>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) fails: Fails,
}

/// Attempts that fail before others succeed. Clones count together.
#[derive(Clone)]
pub(super) struct Fails {
    left: Arc<AtomicU32>,
    error: ErrorKind,
}

// === impl Open ===

#[async_trait]
impl Source for Open {
    async fn run(self: Box<Self>, outlet: Outlet, shutdown: Shutdown) -> Result<(), SourceError> {
        // Nobody listens when the rehearsal is over already.
        self.hand.send((self.name, outlet)).ok();
        shutdown.started().await;
        Ok(())
    }
}

// === impl Taker ===

#[async_trait]
impl Sink for Taker {
    async fn send(&self, batch: Batch<'_>) -> Result<(), SinkError> {
        if let Some(error) = self.fails.next() {
            for event in batch.events() {
                let did = Did::Refused(error.to_string());
                self.recorder.note(&self.id, event.id(), did);
            }
            return Err(error);
        }
        for event in batch.events() {
            let did = Did::Delivered(event.clone());
            self.recorder.note(&self.id, event.id(), did);
        }
        Ok(())
    }
}

// === impl Fails ===

impl Fails {
    pub(super) fn new(times: u32, error: ErrorKind) -> Self {
        Self {
            left: Arc::new(AtomicU32::new(times)),
            error,
        }
    }

    fn next(&self) -> Option<SinkError> {
        let fewer = |left: u32| left.checked_sub(1);
        let relaxed = Ordering::Relaxed;
        let left = self.left.fetch_update(relaxed, relaxed, fewer).ok()?;
        let message = match left {
            1 => "the test has it fail, for the last time".to_owned(),
            _ => format!("the test has it fail, {} times more", left - 1),
        };
        Some(match self.error {
            ErrorKind::Transient => SinkError::transient(message),
            ErrorKind::Permanent => SinkError::permanent(message),
            ErrorKind::Disconnected => SinkError::disconnected(message),
            ErrorKind::Overloaded => SinkError::overloaded(message),
        })
    }
}

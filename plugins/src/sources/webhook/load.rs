//! How much may wait for delivery at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::refusal::Refusal;

/// What is in flight, and how much may be.
#[derive(Debug)]
pub(super) struct Load {
    requests: AtomicUsize,
    bytes: AtomicUsize,
    max_requests: usize,
    max_bytes: usize,
}

/// One request's share of the load.
#[derive(Debug)]
pub(super) struct Slot {
    load: Arc<Load>,
    bytes: usize,
}

// === impl Load ===

impl Load {
    pub(super) fn new(max_requests: usize, max_bytes: usize) -> Self {
        Self {
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_requests,
            max_bytes,
        }
    }
}

// === impl Slot ===

impl Slot {
    /// A request's share, of no bytes yet.
    pub(super) fn take(load: &Arc<Load>) -> Result<Self, Refusal> {
        let before = load.requests.fetch_add(1, Ordering::Relaxed);
        let slot = Self {
            load: Arc::clone(load),
            bytes: 0,
        };
        if before >= load.max_requests {
            return Err(Refusal::Overloaded);
        }
        Ok(slot)
    }

    /// Counts what has arrived of the body.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), Refusal> {
        let more = bytes.saturating_sub(self.bytes);
        let before = self.load.bytes.fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        if before + more > self.load.max_bytes {
            return Err(Refusal::Overloaded);
        }
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.load.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.load.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

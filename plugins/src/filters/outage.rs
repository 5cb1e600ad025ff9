//! Saying once that something outside does not work, and once that it does again.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a filter has said of what it depends on.
pub(super) struct Outage {
    filter: String,
    is_failing: AtomicBool,
}

// === impl Outage ===

impl Outage {
    pub(super) fn new(filter: &str) -> Self {
        Self {
            filter: filter.to_owned(),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Something failed. This is said once, until it works again; the rest at the level debug.
    pub(super) fn failed(&self, what: &str, error: &dyn Display) {
        let filter = &*self.filter;
        if self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(filter, %error, "{what}");
        } else {
            tracing::warn!(filter, %error, "{what}; what follows is told of at the level debug");
        }
    }

    /// It works.
    pub(super) fn over(&self, what: &str) {
        if self.is_failing.swap(false, Ordering::Relaxed) {
            tracing::info!(filter = &*self.filter, "{what}");
        }
    }
}

//! Event names that cannot be sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Names that stock clients take for their own: they would raise a parse error and drop the connection.
const NAMES: [&str; 6] = [
    "connect",
    "connect_error",
    "disconnect",
    "disconnecting",
    "newListener",
    "removeListener",
];

/// Keeps back events whose names clients take for their own, and says so once for each name.
#[derive(Debug, Clone, Default)]
pub(super) struct Reserved(Arc<[AtomicBool; NAMES.len()]>);

/// Whether a name is one of those.
pub(super) fn is_reserved(name: &str) -> bool {
    NAMES.contains(&name)
}

// === impl Reserved ===

impl Reserved {
    /// Whether events of this name cannot be sent.
    pub(super) fn holds_back(&self, name: &str) -> bool {
        let Some(at) = NAMES.iter().position(|reserved| *reserved == name) else {
            return false;
        };
        let warned = self.0.get(at);
        if warned.is_some_and(|warned| !warned.swap(true, Ordering::Relaxed)) {
            tracing::warn!(
                event = name,
                "stock clients take this event name for their own and would disconnect: events of this name are not sent"
            );
        }
        true
    }
}

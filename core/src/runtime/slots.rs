//! Routes of components that may be built again.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::Request;
use tower::ServiceExt;

use crate::http::Mount;

/// The places of one component's routes. The server keeps its routes for good; what answers in them is
/// exchanged when the component is built again.
#[derive(Debug, Default)]
pub(super) struct Slots(Vec<(String, Arc<ArcSwap<Router>>)>);

// === impl Slots ===

impl Slots {
    /// Puts a slot in front of every mount.
    pub(super) fn new(mounts: Vec<Mount>) -> (Self, Vec<Mount>) {
        let mut slots = Vec::new();
        let mut slotted = Vec::new();
        for mount in mounts {
            let current = Arc::new(ArcSwap::from_pointee(mount.router));
            let answering = Arc::clone(&current);
            let router = Router::new().fallback(move |request: Request| {
                let router = Router::clone(&answering.load());
                router.oneshot(request)
            });
            slotted.push(Mount::new(mount.component, mount.prefix.clone(), router));
            slots.push((mount.prefix, current));
        }
        (Self(slots), slotted)
    }

    /// Puts the routes of the new component in the place of the old one's.
    pub(super) fn replace(&self, mounts: Vec<Mount>) {
        for mount in mounts {
            let slot = self.0.iter().find(|(prefix, _)| *prefix == mount.prefix);
            if let Some((_, slot)) = slot {
                slot.store(Arc::new(mount.router));
            }
        }
    }
}

//! Who waits for a channel to move.

use std::fmt;
use std::task::Waker;

use slab::Slab;

use super::sync::Mutex;

/// The tasks to wake when a channel moves: one place for each follower, kept for as long as it follows.
///
/// A wake-up for each task that waits is what is left on the publish path. Waking one that is already in the runtime's queue
/// costs one atomic operation. The lock is held for the round; who takes it meanwhile is a follower that comes, goes, or moved to
/// another task. A transport with many followers lets one task go round them.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Slab<Waker>>);

/// A follower's place.
#[derive(Debug)]
pub(super) struct Place {
    at: usize,
    waker: Waker,
}

// === impl Waiting ===

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Wakes everybody.
    pub(super) fn wake(&self) {
        for (_, waker) in self.0.lock().iter() {
            waker.wake_by_ref();
        }
    }

    /// Has `waker` woken from now on; `true` when it was not before, so that what came in between was not told.
    pub(super) fn register(&self, place: &mut Option<Place>, waker: &Waker) -> bool {
        match place {
            Some(place) if place.waker.will_wake(waker) => return false,
            Some(place) => {
                place.waker.clone_from(waker);
                if let Some(kept) = self.0.lock().get_mut(place.at) {
                    kept.clone_from(waker);
                }
            }
            None => {
                let at = self.0.lock().insert(waker.clone());
                let waker = waker.clone();
                *place = Some(Place { at, waker });
            }
        }
        true
    }

    /// Gives a place back.
    pub(super) fn leave(&self, place: &Place) {
        let mut places = self.0.lock();
        places.try_remove(place.at);
        if places.is_empty() {
            places.shrink_to_fit();
        }
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waiting").field(&self.len()).finish()
    }
}

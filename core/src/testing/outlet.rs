//! A pipeline that is only its first queue.

use crate::Event;
use crate::config::{BufferConfig, Size, WhenFull};
use crate::topology::Outlet;
use crate::topology::queue::{Receiver, queue};

/// The far end of a source's pipeline, where a test takes the events.
#[derive(Debug)]
pub struct Inlet(Receiver);

/// An outlet for a source under test, and where its events come out.
///
/// One event waits at most; the source's next one waits until it is taken.
pub fn outlet() -> (Outlet, Inlet) {
    let limits = BufferConfig {
        events: 1,
        bytes: Size(u64::MAX),
        when_full: WhenFull::Block,
        ..BufferConfig::default()
    };
    let (sender, receiver) = queue(limits, None);
    (Outlet::into_queue(sender), Inlet(receiver))
}

// === impl Inlet ===

impl Inlet {
    /// Waits for the next event; `None` when the source is gone. Cancel safe.
    ///
    /// The test ends the event with [`Event::settle`], or drops it, which loses it.
    pub async fn receive(&mut self) -> Option<Event> {
        let mut taken = Vec::with_capacity(1);
        self.0.receive(&mut taken, 1).await;
        taken.pop()
    }
}

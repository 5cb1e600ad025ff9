//! A pipeline that is only its first queue.

use tokio::sync::mpsc;

use crate::Event;
use crate::topology::Outlet;

/// An outlet for a source under test, and what comes out of it, batch by batch.
///
/// One batch waits at most; the source's next send waits until it is taken. The test settles the events, or
/// drops them, which loses them.
pub fn outlet() -> (Outlet, mpsc::Receiver<Vec<Event>>) {
    let (sender, receiver) = mpsc::channel(1);
    (Outlet::new(sender), receiver)
}

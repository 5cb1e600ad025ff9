//! Where events are passed, changed or discarded.

pub mod debounce;
pub mod dedupe;
pub mod events;
pub mod key;
mod recent;
pub mod sample;
pub mod throttle;

/// What an event takes in memory while a filter holds it, in bytes: its content, and something for all around it.
fn weight(event: &evows_core::Event) -> usize {
    event.size() + 512
}

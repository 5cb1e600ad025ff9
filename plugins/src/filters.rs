//! Where events are passed, changed or discarded.

mod attached;
pub mod bytes;
pub mod debounce;
pub mod dedupe;
#[cfg(feature = "enrich")]
pub mod enrich;
pub mod events;
pub mod fallback;
#[cfg(feature = "jq")]
mod jq;
pub mod key;
#[cfg(feature = "jq")]
pub mod map;
pub mod media;
pub mod normalize;
mod outage;
pub mod path;
mod recent;
pub mod redact;
pub mod remove;
pub mod rename;
#[cfg(feature = "jq")]
pub mod route;
pub mod sample;
pub mod set;
pub mod throttle;
#[cfg(feature = "jq")]
pub mod r#where;

/// What an event takes in memory while a filter holds it, in bytes: its content, and something for all around it.
fn weight(event: &evows_core::Event) -> usize {
    event.size() + 512
}

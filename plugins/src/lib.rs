//! The plugins that ship with evows: sources, filters, sinks, policies and the lifecycle.
//!
//! Each registers itself; a binary that wants them must use this crate: `use evows_plugins as _;`.

#[cfg(feature = "http-client")]
#[cfg_attr(
    not(all(feature = "enrich", feature = "s3", feature = "webhook")),
    expect(dead_code, reason = "each plugin that uses it needs a part of it")
)]
mod client;
pub mod filters;
pub mod lifecycle;
pub mod policies;
pub mod sinks;
pub mod sources;

// Transports register themselves too, and are linked only where their crate is used.
use evows_transports as _;

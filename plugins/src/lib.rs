//! The plugins that ship with evows: sources, filters, sinks, policies and the lifecycle.
//!
//! Each registers itself; a binary that wants them must use this crate: `use evows_plugins as _;`.

pub mod filters;
pub mod lifecycle;
pub mod policies;
pub mod sinks;
pub mod sources;

// Transports register themselves too, and are linked only where their crate is used.
use evows_transports as _;

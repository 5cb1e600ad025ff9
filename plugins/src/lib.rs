//! The plugins that ship with evows: one file each, registered by being linked.
//!
//! A binary that wants them says `use evows_plugins as _;`.

// The transports register too, whoever uses this crate.
use evows_transports as _;

pub mod filters;
pub mod policies;
pub mod sinks;
pub mod sources;

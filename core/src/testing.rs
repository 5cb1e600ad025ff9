//! Harnesses for plugin authors.
//!
//! [`FilterHarness`] runs a filter as the topology does: it is built from its TOML keys, fed with events, and
//! must not lose one. [`outlet`] is where a source under test puts its events. [`event`] makes an event to feed it with, and [`context`] a context to build any
//! plugin in.

mod context;
mod filter;
mod outlet;
mod shared;

pub use self::context::{NoInstances, context, context_with, event};
pub use self::filter::FilterHarness;
pub use self::outlet::{Inlet, outlet};
pub use self::shared::shared;

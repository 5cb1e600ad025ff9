//! Harnesses for plugin authors.
//!
//! [`FilterHarness`] runs a filter as the topology does: it is built from its TOML keys, fed with events, and
//! must not lose one; [`AsyncFilterHarness`] does that for one that is async. [`outlet`] is where a source under test puts its events. [`event`] makes an event to feed it with, and [`context`] a context to build any
//! plugin in.

mod async_filter;
mod context;
mod filter;
mod outlet;
mod shared;

pub use self::async_filter::AsyncFilterHarness;
pub use self::context::{NoInstances, context, context_with, event};
pub use self::filter::FilterHarness;
pub use self::outlet::{Inlet, outlet};
pub use self::shared::shared;

//! The running graph: sources, fused filter chains, queues and sinks.
//!
//! A [`Plan`] of built components is compiled to few tasks: one per source, which runs the filters behind it
//! inline; one per sink, behind a bounded queue; one for each filter that several sources lead to; and one for each
//! async filter, with a queue in front.
//! Events of one source reach a sink in their order, except that branches which meet again may
//! overtake each other when one of them leads through an async filter, or one that other sources share.

mod async_node;
mod fanout;
mod graph;
pub(crate) mod ledger;
mod node;
mod outlet;
pub(crate) mod plan;
pub(crate) mod queue;
mod running;
mod segment;
pub(crate) mod supervise;
#[cfg(test)]
mod tests;

pub(crate) use self::async_node::{NO_OUTPUT, NOT_STARTED};
pub use self::outlet::Outlet;
pub use self::plan::{BuiltFilter, FilterPart, GraphError, Part, Plan, Rebuild, SinkPart};
pub(crate) use self::queue::DEADLINE;
pub use self::running::Running;

/// The reason of events that an output without reader discards.
const UNCONNECTED: &str = "unconnected";

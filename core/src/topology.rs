//! The running graph: sources, fused filter chains, queues and sinks.

mod outlet;

pub use self::outlet::Outlet;

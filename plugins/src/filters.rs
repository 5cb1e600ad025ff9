//! Where events are passed, changed or discarded.

mod attached;
pub mod bytes;
pub mod events;
pub mod normalize;
pub mod path;
pub mod redact;
pub mod remove;
pub mod rename;
pub mod set;

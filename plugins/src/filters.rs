//! Where events are passed, changed or discarded.

pub mod events;

//! Where events are passed, changed or discarded.

pub mod events;
pub mod key;
pub mod sample;

//! The plugins that ship with evows: policies and the lifecycle of instances.

pub mod lifecycle;
pub mod policies;

//! Where events leave.

pub mod blackhole;
pub mod socketio;
pub mod stdout;

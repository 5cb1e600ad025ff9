//! Where events leave.

pub mod blackhole;
pub mod channels;
mod cut;
pub mod file;
pub mod socketio;
pub mod stdout;
#[cfg(feature = "webhook")]
pub mod webhook;

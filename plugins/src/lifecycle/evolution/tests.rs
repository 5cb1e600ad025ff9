//! The HTTP API over a real store.

mod api;
mod restart;
mod rig;
mod webhook;

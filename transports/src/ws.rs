//! WebSocket as a server speaks it (RFC 6455): the handshake, and frames.

pub mod frame;
pub mod handshake;
pub(crate) mod socket;

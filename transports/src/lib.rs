//! How evows serves live clients: the HTTP server and the Socket.IO engines on it.

mod bench;
pub mod engineio;
pub mod http;
mod keys;
pub mod socketio;

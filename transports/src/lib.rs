//! How evows serves live clients: the HTTP server and the Socket.IO engines on it.

pub mod engineio;
pub mod http;
mod keys;
pub mod socketio;
pub mod ws;

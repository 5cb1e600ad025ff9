//! How evows serves live clients: the HTTP server and the Socket.IO engines on it.

pub mod http;
pub mod socketio;

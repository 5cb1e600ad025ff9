//! How evows serves live clients: the HTTP server and the Socket.IO engines on it.

mod admission;
mod bench;
mod clients;
pub mod engineio;
pub mod feed;
pub mod http;
mod keys;
pub mod socketio;
pub mod ws;

pub use self::clients::Client;

//! How evows serves live clients: the HTTP server, and Socket.IO, plain WebSocket and server-sent events on it.

mod admission;
mod bench;
mod check;
mod clients;
pub mod engineio;
pub mod feed;
pub mod http;
mod keys;
mod rounds;
pub mod socketio;
pub mod sse;
mod stream;
pub mod websocket;
pub mod ws;

pub use self::clients::Client;
pub use self::stream::Limits;

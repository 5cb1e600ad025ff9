//! How evows serves live clients.

pub mod socketio;

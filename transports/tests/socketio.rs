//! The Socket.IO transport over real sockets, in raw frames.

// `cfg(test)` always holds here; it tells clippy that this is test code throughout.
#[cfg(test)]
mod socketio {
    #[macro_use]
    #[path = "../../../tests/behaviour/engines.rs"]
    mod engines;

    mod differences;
    mod door;
    mod frames;
    mod harness;
    mod lifetime;
    mod order;
    mod pace;
}

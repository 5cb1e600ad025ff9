//! The parsers of what clients send, with inputs that nobody thought of.

// `cfg(test)` always holds here; it tells clippy that this is test code throughout.
#[cfg(test)]
mod parsers {
    mod engineio;
    mod frames;
    mod socketio;
}

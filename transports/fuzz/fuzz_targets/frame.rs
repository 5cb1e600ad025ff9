//! A client's frames: read in pieces or as a whole, they are the same messages and end the same way.
//!
//! The sizes of the pieces come from the input itself, so that a file of the corpus is nothing but what a client sends.

#![no_main]

use evows_transports::ws::frame::{Limits, Message, Reader, Violation};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    max_message: 1000,
    max_fragments: 8,
};

fuzz_target!(|data: &[u8]| {
    let whole = read([data].into_iter());
    let mut rest = data;
    let pieces = data.iter().map_while(|size| {
        let size = rest.len().min(usize::from(size % 9) + 1);
        let (piece, after) = rest.split_at(size);
        rest = after;
        (size > 0).then_some(piece)
    });
    assert_eq!(read(pieces), whole);
});

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Message>, Result<bool, Violation>) {
    let mut reader = Reader::new(LIMITS);
    let mut messages = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() {
            match reader.read(&mut piece) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => assert!(piece.is_empty(), "bytes are left and nothing came of them"),
                Err(violation) => return (messages, Err(violation)),
            }
        }
    }
    for message in &messages {
        let (len, most) = match message {
            Message::Text(text) => (text.len(), LIMITS.max_message),
            Message::Binary(bytes) => (bytes.len(), LIMITS.max_message),
            Message::Ping(bytes) => (bytes.len(), 125),
            Message::Pong | Message::Close(_) => continue,
        };
        assert!(len <= most);
    }
    (messages, Ok(reader.is_idle()))
}

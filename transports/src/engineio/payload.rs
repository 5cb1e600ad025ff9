//! Bodies of long-polling: packets with separators between them, bytes as base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::packet::{Malformed, Packet};

/// What stands between two packets.
pub const SEPARATOR: char = '\x1e';

/// One packet of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item<'a> {
    /// A packet.
    Packet(Packet<'a>),
    /// A binary message.
    Binary(Bytes),
}

/// The packets of a body that a client posted.
pub fn decode(body: &str) -> impl Iterator<Item = Result<Item<'_>, Malformed>> {
    body.split(SEPARATOR)
        .map(|packet| match packet.strip_prefix('b') {
            Some(text) => {
                let bytes = STANDARD.decode(text).map_err(|_| Malformed)?;
                Ok(Item::Binary(bytes.into()))
            }
            None => Packet::parse(packet).map(Item::Packet),
        })
}

/// Appends a packet.
pub fn push_text(out: &mut Vec<u8>, packet: &[u8]) {
    separate(out);
    out.extend_from_slice(packet);
}

/// Appends a binary message.
pub fn push_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    separate(out);
    out.push(b'b');
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
}

fn separate(out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(SEPARATOR as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_is_written() {
        let mut body = Vec::new();
        push_text(&mut body, b"4hello");
        push_binary(&mut body, &[1, 2, 3, 4]);
        push_text(&mut body, "4\u{20ac}".as_bytes());
        let body = String::from_utf8(body).unwrap();
        assert_eq!(body, "4hello\x1ebAQIDBA==\x1e4\u{20ac}");
        let items: Vec<_> = decode(&body).map(Result::unwrap).collect();
        assert_eq!(
            items,
            [
                Item::Packet(Packet::Message("hello")),
                Item::Binary(Bytes::from_static(&[1, 2, 3, 4])),
                Item::Packet(Packet::Message("\u{20ac}")),
            ]
        );
    }

    #[test]
    fn an_empty_packet_is_malformed() {
        for body in ["", "4a\x1e", "\x1e4a", "4a\x1e\x1e4b", "b!"] {
            assert!(decode(body).any(|item| item.is_err()), "{body:?}");
        }
    }
}

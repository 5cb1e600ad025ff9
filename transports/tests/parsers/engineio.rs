//! Bodies of long-polling.

use bytes::Bytes;
use evows_transports::engineio::packet::Packet;
use evows_transports::engineio::payload::{Item, SEPARATOR, decode, push_binary, push_text};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Sent {
    Text(char, String),
    Binary(Vec<u8>),
}

// === impl Sent ===

impl Sent {
    fn item(&self) -> Item<'_> {
        match self {
            Self::Text('2', text) => Item::Packet(Packet::Ping(text)),
            Self::Text('3', text) => Item::Packet(Packet::Pong(text)),
            Self::Text(_, text) => Item::Packet(Packet::Message(text)),
            Self::Binary(bytes) => Item::Binary(Bytes::copy_from_slice(bytes)),
        }
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    let kind = prop_oneof![Just('2'), Just('3'), Just('4')];
    let text = any::<String>().prop_map(|text| text.replace(SEPARATOR, ""));
    prop_oneof![
        (kind, text).prop_map(|(kind, text)| Sent::Text(kind, text)),
        vec(any::<u8>(), 0..50).prop_map(Sent::Binary),
    ]
}

proptest! {
    #[test]
    fn a_body_reads_back(all in vec(sent(), 1..10)) {
        let mut body = Vec::new();
        for sent in &all {
            match sent {
                Sent::Text(kind, text) => push_text(&mut body, format!("{kind}{text}").as_bytes()),
                Sent::Binary(bytes) => push_binary(&mut body, bytes),
            }
        }
        let body = String::from_utf8(body).unwrap();
        let items: Vec<_> = decode(&body).map(Result::unwrap).collect();
        let expected: Vec<_> = all.iter().map(Sent::item).collect();
        prop_assert_eq!(items, expected);
    }

    #[test]
    fn any_text_is_as_many_packets_as_its_separators_make(body in "[0-9bA=\u{1e}\u{e9}]{0,40}") {
        prop_assert_eq!(decode(&body).count(), body.matches(SEPARATOR).count() + 1);
    }
}

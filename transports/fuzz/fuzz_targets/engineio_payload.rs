//! A body of long-polling: what was read, written again, reads the same.

#![no_main]

use evows_transports::engineio::packet::Packet;
use evows_transports::engineio::payload::{Item, SEPARATOR, decode, push_binary, push_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &str| {
    let items: Vec<_> = decode(body).collect();
    assert_eq!(items.len(), body.matches(SEPARATOR).count() + 1);
    let Ok(items) = items.into_iter().collect::<Result<Vec<_>, _>>() else {
        return;
    };
    let mut written = Vec::new();
    for item in &items {
        match item {
            Item::Packet(packet) => push_text(&mut written, text(*packet).as_bytes()),
            Item::Binary(bytes) => push_binary(&mut written, bytes),
        }
    }
    let written = String::from_utf8(written).expect("made of text");
    assert_eq!(decode(&written).collect::<Result<Vec<_>, _>>(), Ok(items));
});

fn text(packet: Packet<'_>) -> String {
    match packet {
        Packet::Open => "0".into(),
        Packet::Close => "1".into(),
        Packet::Ping(text) => format!("2{text}"),
        Packet::Pong(text) => format!("3{text}"),
        Packet::Message(text) => format!("4{text}"),
        Packet::Upgrade => "5".into(),
        Packet::Noop => "6".into(),
    }
}

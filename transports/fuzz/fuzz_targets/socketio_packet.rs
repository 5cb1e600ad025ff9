//! A client's Socket.IO packet: what was read, written again as the server writes, reads the same.

#![no_main]

use evows_transports::socketio::packet::{Packet, ack_head, connect, event_head};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(packet) = Packet::parse(text) else {
        return;
    };
    let written = match packet {
        Packet::Connect { namespace, auth } => connect(namespace, auth.unwrap_or_default()),
        Packet::Disconnect { namespace } => format!("1{namespace},"),
        Packet::Event {
            namespace,
            id,
            attachments,
            data,
        } => {
            let id = id.map(|id| id.to_string()).unwrap_or_default();
            event_head(namespace, attachments) + &id + data
        }
        Packet::Ack {
            namespace,
            id,
            attachments,
            data,
        } => ack_head(namespace, attachments, id) + data,
    };
    assert_eq!(Packet::parse(&written), Ok(packet), "{written}");
});

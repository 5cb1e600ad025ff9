//! What a session has to say beside the channels: answers, and packets of the protocol itself.

use std::collections::VecDeque;

use bytes::Bytes;

/// Packets that go out in front of everything else. Bounded by who fills it: a client is not read from while it does not take
/// what it asked for.
#[derive(Debug, Default)]
pub struct Outbox {
    packets: VecDeque<Outgoing>,
    bytes: usize,
}

/// A packet as it goes out.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// With its type in front.
    Text(String),
    Binary(Bytes),
    /// The heartbeat, in whatever form the session has it.
    Ping,
}

// === impl Outbox ===

impl Outbox {
    /// Queues a text message.
    pub fn text(&mut self, message: &str) {
        let mut packet = String::with_capacity(message.len() + 1);
        packet.push('4');
        packet.push_str(message);
        self.packet(packet);
    }

    /// Queues a binary message.
    pub fn binary(&mut self, message: Bytes) {
        self.bytes += message.len();
        self.packets.push_back(Outgoing::Binary(message));
    }

    /// Queues a packet of the protocol.
    pub(crate) fn packet(&mut self, packet: impl Into<String>) {
        let packet = packet.into();
        self.bytes += packet.len();
        self.packets.push_back(Outgoing::Text(packet));
    }

    /// Queues a ping.
    pub(super) fn ping(&mut self) {
        self.bytes += 1;
        self.packets.push_back(Outgoing::Ping);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Bytes queued.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes everything, and gives the memory back.
    pub(crate) fn take(&mut self) -> VecDeque<Outgoing> {
        self.bytes = 0;
        std::mem::take(&mut self.packets)
    }
}

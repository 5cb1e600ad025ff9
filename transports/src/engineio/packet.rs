//! Packets of Engine.IO 4, as text.

/// A packet: its type is the first character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// `0`: the handshake. Only servers send it.
    Open,
    /// `1`: the end of the session.
    Close,
    /// `2`: asks for a pong with the same text.
    Ping(&'a str),
    /// `3`: answers a ping.
    Pong(&'a str),
    /// `4`: text for the layer above.
    Message(&'a str),
    /// `5`: from now on, this connection is the session's.
    Upgrade,
    /// `6`: nothing; ends a poll.
    Noop,
}

/// Text that is no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a packet of Engine.IO 4")]
pub struct Malformed;

// === impl Packet ===

impl<'a> Packet<'a> {
    /// Reads a packet.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let mut rest = text.chars();
        let kind = rest.next().ok_or(Malformed)?;
        let rest = rest.as_str();
        match kind {
            '0' => Ok(Self::Open),
            '1' => Ok(Self::Close),
            '2' => Ok(Self::Ping(rest)),
            '3' => Ok(Self::Pong(rest)),
            '4' => Ok(Self::Message(rest)),
            '5' => Ok(Self::Upgrade),
            '6' => Ok(Self::Noop),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_character_is_the_type() {
        assert_eq!(Packet::parse("2probe"), Ok(Packet::Ping("probe")));
        assert_eq!(Packet::parse("4"), Ok(Packet::Message("")));
        assert_eq!(Packet::parse("5"), Ok(Packet::Upgrade));
        for malformed in ["", "7", "abc", "é"] {
            assert_eq!(Packet::parse(malformed), Err(Malformed));
        }
    }
}

//! What one websocket frame says.

use memchr::memmem;

use super::frames::Frame;

/// Stands before the sequence number in an event's data.
pub(super) const MARK: &str = "\"bench\":\"";
/// Digits of a sequence number.
pub(super) const DIGITS: usize = 12;

/// How a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(super) enum Protocol {
    /// Socket.IO over Engine.IO 4.
    #[default]
    Socketio,
    /// Each text frame is one envelope.
    Websocket,
}

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// The transport is open.
    Opened,
    /// An Engine.IO ping.
    Ping,
    /// A websocket ping.
    WebsocketPing,
    /// The namespace is joined; a server that can resume gives the client an id for that.
    Joined(Option<&'a [u8]>),
    /// The namespace is refused or left.
    Refused,
    /// An event, with its sequence number and the offset to resume from behind it.
    Event(Option<u64>, Option<&'a [u8]>),
    /// The connection is about to be closed.
    Closed,
    /// Nothing that matters.
    Other,
}

// === impl Packet ===

impl<'a> Packet<'a> {
    /// Reads a frame; `hint` is where the last sequence number stood, and is kept for the next frame.
    pub(super) fn of(frame: Frame<'a>, protocol: Protocol, hint: &mut usize) -> Self {
        const TEXT: u8 = 1;
        const CLOSE: u8 = 8;
        const PING: u8 = 9;
        match (frame.opcode, protocol, frame.start) {
            (TEXT, Protocol::Websocket, _) => Self::Event(sequence(frame.start, hint), None),
            (TEXT, _, [b'4', b'2' | b'5', ..]) => {
                Self::Event(sequence(frame.start, hint), offset(frame.end))
            }
            (TEXT, _, b"2") => Self::Ping,
            (TEXT, _, [b'4', b'0', ..]) => Self::Joined(string(frame.start, b"\"pid\":\"")),
            (TEXT, _, [b'4', b'1' | b'4', ..]) => Self::Refused,
            (TEXT, _, [b'0', ..]) => Self::Opened,
            (PING, ..) => Self::WebsocketPing,
            (CLOSE, ..) => Self::Closed,
            _ => Self::Other,
        }
    }
}

/// The number behind the mark. Frames of one client have it at one place, so there it is looked for first.
pub(super) fn sequence(start: &[u8], hint: &mut usize) -> Option<u64> {
    let mark = MARK.as_bytes();
    let here = start
        .get(*hint..)
        .is_some_and(|rest| rest.starts_with(mark));
    if !here {
        *hint = memmem::find(start, mark)?;
    }
    let digits = start.get(*hint + mark.len()..)?.get(..DIGITS)?;
    digits.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u64::from(digit - b'0'))
    })
}

/// The last argument of an event, if it is a string behind the envelope.
fn offset(end: &[u8]) -> Option<&[u8]> {
    let inner = end.strip_suffix(b"\"]")?;
    let from = memmem::rfind(inner, b"},\"")?;
    let offset = &inner[from + 3..];
    (!offset.contains(&b'"')).then_some(offset)
}

/// The string behind `key`, which has no escapes.
fn string<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let from = memmem::find(text, key)? + key.len();
    let length = memchr::memchr(b'"', &text[from..])?;
    Some(&text[from..from + length])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, protocol: Protocol) -> Packet<'_> {
        let frame = Frame {
            opcode: 1,
            start: text.as_bytes(),
            end: text.as_bytes(),
        };
        Packet::of(frame, protocol, &mut 0)
    }

    #[test]
    fn tells_packets_apart() {
        for (text, packet) in [
            ("0{\"sid\":\"a\"}", Packet::Opened),
            ("2", Packet::Ping),
            ("40{\"sid\":\"a\"}", Packet::Joined(None)),
            (
                "40/c1,{\"sid\":\"a\",\"pid\":\"b\"}",
                Packet::Joined(Some(b"b")),
            ),
            ("44{\"message\":\"Invalid namespace\"}", Packet::Refused),
            ("41/c1,", Packet::Refused),
            ("6", Packet::Other),
            ("42[\"call\",{}]", Packet::Event(None, None)),
            ("42[\"call\",{\"data\":\"x\"}]", Packet::Event(None, None)),
            (
                "42/c1,[\"call\",{\"data\":{\"bench\":\"000000000042\"}},\"o-1\"]",
                Packet::Event(Some(42), Some(b"o-1")),
            ),
            (
                "451-[\"call\",{\"data\":{\"bench\":\"000000000042\"}}]",
                Packet::Event(Some(42), None),
            ),
        ] {
            assert_eq!(read(text, Protocol::Socketio), packet, "{text}");
        }
        let envelope = "{\"data\":{\"bench\":\"000000000007\"}}";
        assert_eq!(
            read(envelope, Protocol::Websocket),
            Packet::Event(Some(7), None)
        );
    }

    #[test]
    fn the_hint_is_only_a_hint() {
        let mut hint = 0;
        for (text, number) in [
            ("xx\"bench\":\"000000000001\"", Some(1)),
            ("xx\"bench\":\"000000000002\"", Some(2)),
            ("\"bench\":\"000000000003\"", Some(3)),
            ("\"bench\":\"00000000000x\"", None),
            ("\"bench\":\"0000", None),
        ] {
            assert_eq!(sequence(text.as_bytes(), &mut hint), number, "{text}");
        }
    }
}

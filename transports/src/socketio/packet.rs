//! Packets of Socket.IO 5, as text: `<type>[<attachments>-][<namespace>,][<id>][<JSON>]`.

use std::fmt::Write as _;

use bytes::Bytes;
use serde::Deserialize as _;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::reserved::is_reserved;

/// A packet that a client may send. Data is its JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Wants to join a namespace, perhaps with an object that says who it is.
    Connect {
        /// With its slash, and with the query if there is one.
        namespace: &'a str,
        /// An object.
        auth: Option<&'a str>,
    },
    /// Leaves a namespace.
    Disconnect {
        /// With its slash.
        namespace: &'a str,
    },
    /// An event.
    Event {
        /// With its slash.
        namespace: &'a str,
        /// Asks for an acknowledgement under this number.
        id: Option<u64>,
        /// Binary messages that follow.
        attachments: usize,
        /// An array that begins with the event's name.
        data: &'a str,
    },
    /// Acknowledges an event of the server.
    Ack {
        /// With its slash.
        namespace: &'a str,
        /// The event's number.
        id: u64,
        /// Binary messages that follow.
        attachments: usize,
        /// An array.
        data: &'a str,
    },
}

/// Why text is no packet of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// There is no such type, or it is not a client's.
    #[error("unknown packet type")]
    Type,
    /// The number of attachments is missing or none.
    #[error("illegal number of attachments")]
    Attachments,
    /// An acknowledgement without a number, or one that is too large.
    #[error("illegal id")]
    Id,
    /// The JSON is not of the form that the type needs.
    #[error("invalid payload")]
    Payload,
    /// Bytes that no packet announced, or text while bytes are awaited.
    #[error("attachments out of order")]
    OutOfOrder,
    /// More bytes than allowed.
    #[error("attachments are too large")]
    TooLarge,
}

/// A packet whose attachments are still on the way.
#[derive(Debug)]
pub struct Assembly {
    text: String,
    awaited: usize,
    room: usize,
    attachments: Vec<Bytes>,
}

// === impl Packet ===

impl<'a> Packet<'a> {
    /// Reads a packet, less the Engine.IO type in front of it.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let mut chars = text.chars();
        let kind = chars.next().ok_or(Malformed::Type)?;
        let mut rest = chars.as_str();
        let attachments = if matches!(kind, '5' | '6') {
            let (number, after) = rest.split_once('-').ok_or(Malformed::Attachments)?;
            rest = after;
            integer(number)
                .and_then(|number| usize::try_from(number).ok())
                .ok_or(Malformed::Attachments)?
        } else {
            0
        };
        let (namespace, rest) = split_namespace(rest);
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (id, data) = rest.split_at(digits);
        match kind {
            '0' if id.is_empty() => {
                let auth = Some(data).filter(|data| !data.is_empty());
                if auth.is_some_and(|auth| !is_object(auth)) {
                    return Err(Malformed::Payload);
                }
                Ok(Self::Connect { namespace, auth })
            }
            '1' if rest.is_empty() => Ok(Self::Disconnect { namespace }),
            '0' | '1' => Err(Malformed::Payload),
            '2' | '5' => {
                let id = match id {
                    "" => None,
                    id => Some(integer(id).ok_or(Malformed::Id)?),
                };
                if !is_event(data) {
                    return Err(Malformed::Payload);
                }
                Ok(Self::Event {
                    namespace,
                    id,
                    attachments,
                    data,
                })
            }
            '3' | '6' => {
                let id = integer(id).ok_or(Malformed::Id)?;
                if !is_array(data) {
                    return Err(Malformed::Payload);
                }
                Ok(Self::Ack {
                    namespace,
                    id,
                    attachments,
                    data,
                })
            }
            _ => Err(Malformed::Type),
        }
    }
}

/// The namespace and what follows it.
fn split_namespace(text: &str) -> (&str, &str) {
    if !text.starts_with('/') {
        return ("/", text);
    }
    text.split_once(',').unwrap_or((text, ""))
}

/// A number as JavaScript reads it exactly.
fn integer(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.parse().ok().filter(|_| plain)?;
    (number < 1 << 53).then_some(number)
}

fn is_object(json: &str) -> bool {
    json.starts_with('{') && serde_json::from_str::<IgnoredAny>(json).is_ok()
}

fn is_array(json: &str) -> bool {
    json.starts_with('[') && serde_json::from_str::<IgnoredAny>(json).is_ok()
}

/// An array whose first item is the event's name, which is not one of the client's own, or a number.
fn is_event(json: &str) -> bool {
    struct First;

    impl<'de> Visitor<'de> for First {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let first = seq.next_element()?;
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(first)
        }
    }

    let mut json = serde_json::Deserializer::from_str(json);
    let first = json.deserialize_seq(First);
    let first = first.and_then(|first| json.end().map(|()| first));
    let Ok(Some(first)) = first else {
        return false;
    };
    match first.get().as_bytes() {
        [b'"', ..] => {
            let name = String::deserialize(first);
            name.is_ok_and(|name| !is_reserved(&name))
        }
        [b'-' | b'0'..=b'9', ..] => true,
        _ => false,
    }
}

// === impl Malformed ===

impl Malformed {
    /// The label of the counter.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            _ => "parse_error",
        }
    }
}

// === impl Assembly ===

impl Assembly {
    /// A packet that awaits this many attachments of `most` bytes in all.
    pub fn new(text: String, attachments: usize, most: usize) -> Self {
        Self {
            text,
            awaited: attachments,
            room: most,
            // Not sized by the client's word.
            attachments: Vec::new(),
        }
    }

    /// Adds the next one. `true`: that was the last.
    pub fn add(&mut self, bytes: Bytes) -> Result<bool, Malformed> {
        if self.attachments.len() == self.awaited {
            return Err(Malformed::OutOfOrder);
        }
        self.room = self
            .room
            .checked_sub(bytes.len())
            .ok_or(Malformed::TooLarge)?;
        self.attachments.push(bytes);
        Ok(self.attachments.len() == self.awaited)
    }

    /// The packet's text and its attachments, in order.
    pub fn into_parts(self) -> (String, Vec<Bytes>) {
        (self.text, self.attachments)
    }
}

/// The start of a packet of this type: its namespace is left out when it is the root.
fn start(kind: char, attachments: usize, namespace: &str) -> String {
    let mut text = String::with_capacity(namespace.len() + 8);
    text.push(kind);
    if attachments > 0 {
        // Writing into a string does not fail.
        write!(text, "{attachments}-").ok();
    }
    if namespace != "/" {
        text.push_str(namespace);
        text.push(',');
    }
    text
}

/// The answer to a client that joined, `data` being an object.
pub fn connect(namespace: &str, data: &str) -> String {
    start('0', 0, namespace) + data
}

/// The answer to a client that may not join.
pub fn connect_error(namespace: &str, message: &str) -> String {
    let message = serde_json::Value::from(message);
    start('4', 0, namespace) + &format!(r#"{{"message":{message}}}"#)
}

/// What stands in front of an event's array.
pub fn event_head(namespace: &str, attachments: usize) -> String {
    start(
        if attachments == 0 { '2' } else { '5' },
        attachments,
        namespace,
    )
}

/// What stands in front of an acknowledgement's array.
pub fn ack_head(namespace: &str, attachments: usize, id: u64) -> String {
    let kind = if attachments == 0 { '3' } else { '6' };
    start(kind, attachments, namespace) + &id.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: Option<u64>, attachments: usize, data: &str) -> Packet<'_> {
        Packet::Event {
            namespace: "/",
            id,
            attachments,
            data,
        }
    }

    #[test]
    fn reads_what_clients_send() {
        let namespace = "/a";
        for (text, packet) in [
            (
                "0",
                Packet::Connect {
                    namespace: "/",
                    auth: None,
                },
            ),
            (
                "0/a,",
                Packet::Connect {
                    namespace,
                    auth: None,
                },
            ),
            (
                "0/a",
                Packet::Connect {
                    namespace,
                    auth: None,
                },
            ),
            (
                r#"0/a,{"k":1}"#,
                Packet::Connect {
                    namespace,
                    auth: Some(r#"{"k":1}"#),
                },
            ),
            (
                "0/a?x=1,",
                Packet::Connect {
                    namespace: "/a?x=1",
                    auth: None,
                },
            ),
            ("1/a,", Packet::Disconnect { namespace }),
            (
                "3/a,7[]",
                Packet::Ack {
                    namespace,
                    id: 7,
                    attachments: 0,
                    data: "[]",
                },
            ),
            (
                "61-7[1]",
                Packet::Ack {
                    namespace: "/",
                    id: 7,
                    attachments: 1,
                    data: "[1]",
                },
            ),
        ] {
            assert_eq!(Packet::parse(text), Ok(packet), "{text}");
        }
        assert_eq!(
            Packet::parse(r#"2["a",1]"#),
            Ok(event(None, 0, r#"["a",1]"#))
        );
        assert_eq!(
            Packet::parse(r#"212["a"]"#),
            Ok(event(Some(12), 0, r#"["a"]"#))
        );
        assert_eq!(Packet::parse(r#"52-["a"]"#), Ok(event(None, 2, r#"["a"]"#)));
        assert_eq!(Packet::parse("2[1]"), Ok(event(None, 0, "[1]")));
    }

    #[test]
    fn refuses_what_the_parser_of_node_refuses() {
        for (text, malformed) in [
            ("", Malformed::Type),
            ("7", Malformed::Type),
            ("4", Malformed::Type),
            ("abc", Malformed::Type),
            ("5[\"a\"]", Malformed::Attachments),
            ("5-[\"a\"]", Malformed::Attachments),
            ("5a-[\"a\"]", Malformed::Attachments),
            ("5+1-[\"a\"]", Malformed::Attachments),
            ("0[]", Malformed::Payload),
            ("0{", Malformed::Payload),
            ("01{}", Malformed::Payload),
            ("1{}", Malformed::Payload),
            ("2", Malformed::Payload),
            ("2{}", Malformed::Payload),
            ("2[]", Malformed::Payload),
            ("2[{}]", Malformed::Payload),
            ("2[\"a\"", Malformed::Payload),
            ("2[\"a\"]x", Malformed::Payload),
            ("2[\"connect\"]", Malformed::Payload),
            ("2[\"disc\\u006fnnect\"]", Malformed::Payload),
            ("3[]", Malformed::Id),
            ("3abc[]", Malformed::Id),
            ("31{}", Malformed::Payload),
            ("299999999999999999999[\"a\"]", Malformed::Id),
        ] {
            assert_eq!(Packet::parse(text), Err(malformed), "{text}");
        }
        let deep = format!("2[\"a\",{}", "[".repeat(100_000));
        assert_eq!(Packet::parse(&deep), Err(Malformed::Payload));
    }

    #[test]
    fn writes_what_clients_read() {
        assert_eq!(connect("/", r#"{"sid":"x"}"#), r#"0{"sid":"x"}"#);
        assert_eq!(connect("/a", "{}"), "0/a,{}");
        assert_eq!(connect_error("/a", "\"no\""), r#"4/a,{"message":"\"no\""}"#);
        assert_eq!(event_head("/a", 2), "52-/a,");
        assert_eq!(event_head("/", 0), "2");
        assert_eq!(ack_head("/", 1, 3), "61-3");
        assert_eq!(ack_head("/a", 0, 3), "3/a,3");
    }

    #[test]
    fn attachments_are_counted_and_bounded() {
        let byte = || Bytes::from_static(&[1]);
        let mut assembly = Assembly::new("52-[]".into(), 2, 2);
        assert_eq!(assembly.add(byte()), Ok(false));
        assert_eq!(assembly.add(byte()), Ok(true));
        assert_eq!(assembly.add(byte()), Err(Malformed::OutOfOrder));
        assert_eq!(assembly.into_parts().1.len(), 2);
        let mut assembly = Assembly::new("52-[]".into(), 2, 1);
        assert_eq!(assembly.add(byte()), Ok(false));
        assert_eq!(assembly.add(byte()), Err(Malformed::TooLarge));
    }
}

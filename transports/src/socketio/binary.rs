//! Byte fields of an envelope, in the dialect that clients expect (contract 1.4).
//!
//! JSON feeds carry bytes as objects with the keys `"0"`, `"1"`, and so on. Only the objects and arrays on the way to such a field
//! are taken apart; every other value keeps its own text, so that no number is damaged and no key moves.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use evows_core::Event;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::Dialect;
use crate::ws::frame::{Header, Opcode};

/// Byte fields lie far less deep. Deeper values are written verbatim: the walk must not exhaust the stack.
const DEEPEST: usize = 64;

/// Attachments that [`convert`] makes of one event at the most: each costs far more than the bytes in it.
const MOST: usize = 1_000;

/// The name by which parsers know the place of an attachment.
const PLACEHOLDER: &str = "_placeholder";

/// An envelope, ready to be written: verbatim, or taken apart around its bytes.
#[derive(Debug)]
pub(super) enum Payload {
    Raw(Box<RawValue>),
    Bytes(Bytes),
    Text(String),
    Array(Vec<Payload>),
    Object(Vec<(String, Payload)>),
}

/// What to look for, and what to put in its place.
struct Walk {
    dialect: Dialect,
    /// Those of the event. Each has one place: a second one that names it is not its own.
    attachments: Vec<Option<Bytes>>,
}

/// The members of an object, in their order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

/// The items of an array.
struct Items<'a>(Vec<&'a RawValue>);

/// The event's envelope with its byte fields in `dialect`, and the attachments that go with it; `None` when there is nothing to
/// convert. Fields that are base64 already look like any text, and stay. So does an event that would get more than a thousand
/// attachments, or that names some that it does not have.
pub fn convert(event: &Event, dialect: Dialect) -> Option<(Bytes, Vec<Bytes>)> {
    let envelope = serde_json::from_slice(event.envelope()).ok()?;
    let payload = Walk::of(event, dialect).value(envelope, 0);
    if !payload.has_fields() {
        return None;
    }
    let (text, attachments) = match dialect {
        Dialect::Indexed => payload.indexed().encoded(),
        Dialect::Attachments if !payload.fits(MOST) => return None,
        Dialect::Attachments | Dialect::Base64 => payload.encoded(),
    };
    let is_same = !attachments.is_empty() && attachments == event.attachments();
    (!is_same).then_some((text, attachments))
}

// === impl Payload ===

impl Payload {
    /// Prepares an event for `dialect`, with at most so many attachments. One with more goes without any: its byte fields as they
    /// were posted, or those that came as attachments as base64. Stock clients drop the connection on a packet with more than ten.
    /// They also do on one that names an attachment that it does not have, so that an event that does goes without any, too.
    /// Fails when its envelope is not JSON, which the door has ruled out.
    pub(super) fn bounded(
        event: &Event,
        dialect: Dialect,
        most: usize,
    ) -> Result<Self, serde_json::Error> {
        let envelope = serde_json::from_slice(event.envelope())?;
        Ok(Self::of(event, envelope, dialect, most))
    }

    fn of(event: &Event, envelope: &RawValue, dialect: Dialect, most: usize) -> Self {
        let payload = Walk::of(event, dialect).value(envelope, 0);
        if payload.fits(most) {
            return payload;
        }
        let plain = match event.attachments() {
            [] => Dialect::Indexed,
            _ => Dialect::Base64,
        };
        Walk::of(event, plain).value(envelope, 0)
    }

    /// As [`bounded`](Payload::bounded); `None` when the envelope goes as it is.
    pub(super) fn changed(
        event: &Event,
        dialect: Dialect,
        most: usize,
    ) -> Result<Option<Self>, serde_json::Error> {
        // Also finds what is no text.
        let envelope: &RawValue = serde_json::from_slice(event.envelope())?;
        if !Walk::of(event, dialect).is_suspect(envelope.get()) {
            return Ok(None);
        }
        Ok(match Self::of(event, envelope, dialect, most) {
            Self::Raw(_) => None,
            other => Some(other),
        })
    }

    /// Its text, and its bytes in the order of the placeholders.
    pub(super) fn encoded(&self) -> (Bytes, Vec<Bytes>) {
        let (mut text, mut attachments) = (Vec::new(), Vec::new());
        self.encode(&mut text, &mut attachments);
        (text.into(), attachments)
    }

    fn encode(&self, text: &mut Vec<u8>, attachments: &mut Vec<Bytes>) {
        match self {
            Self::Raw(raw) => text.extend_from_slice(raw.get().as_bytes()),
            Self::Bytes(bytes) => {
                let number = attachments.len();
                let placeholder = format!(r#"{{"_placeholder":true,"num":{number}}}"#);
                text.extend_from_slice(placeholder.as_bytes());
                attachments.push(bytes.clone());
            }
            Self::Text(string) => push_string(text, string),
            Self::Array(items) => {
                text.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        text.push(b',');
                    }
                    item.encode(text, attachments);
                }
                text.push(b']');
            }
            Self::Object(members) => {
                text.push(b'{');
                for (at, (key, value)) in members.iter().enumerate() {
                    if at > 0 {
                        text.push(b',');
                    }
                    push_string(text, key);
                    text.push(b':');
                    value.encode(text, attachments);
                }
                text.push(b'}');
            }
        }
    }

    /// Whether a byte field was found in it.
    fn has_fields(&self) -> bool {
        match self {
            Self::Raw(_) => false,
            Self::Bytes(_) | Self::Text(_) => true,
            Self::Array(items) => items.iter().any(Self::has_fields),
            Self::Object(members) => members.iter().any(|(_, value)| value.has_fields()),
        }
    }

    /// Its bytes as objects with the keys `"0"`, `"1"`, and so on.
    fn indexed(self) -> Self {
        match self {
            Self::Bytes(bytes) => {
                let members = bytes.iter().enumerate();
                let members: Vec<_> = members
                    .map(|(at, byte)| format!("\"{at}\":{byte}"))
                    .collect();
                let object = RawValue::from_string(format!("{{{}}}", members.join(",")));
                object.map_or(Self::Bytes(bytes), Self::Raw)
            }
            Self::Array(items) => Self::Array(items.into_iter().map(Self::indexed).collect()),
            Self::Object(members) => {
                let members = members
                    .into_iter()
                    .map(|(key, value)| (key, value.indexed()));
                Self::Object(members.collect())
            }
            other => other,
        }
    }

    /// Whether it can be sent: without attachments, or with at most so many and nothing else in it that a parser would take for
    /// one.
    fn fits(&self, most: usize) -> bool {
        match self.attachments() {
            0 => true,
            count => count <= most && !self.names_placeholder(),
        }
    }

    /// Whether there is a placeholder in it that is not one of its own. What the member says makes no difference: clients
    /// differ in what they take for true.
    fn names_placeholder(&self) -> bool {
        match self {
            Self::Raw(raw) => names_placeholder(raw.get()),
            Self::Bytes(_) | Self::Text(_) => false,
            Self::Array(items) => items.iter().any(Self::names_placeholder),
            Self::Object(members) => members
                .iter()
                .any(|(key, value)| key == PLACEHOLDER || value.names_placeholder()),
        }
    }

    /// How many attachments it has.
    fn attachments(&self) -> usize {
        match self {
            Self::Raw(_) | Self::Text(_) => 0,
            Self::Bytes(_) => 1,
            Self::Array(items) => items.iter().map(Self::attachments).sum(),
            Self::Object(members) => members.iter().map(|(_, value)| value.attachments()).sum(),
        }
    }
}

impl Payload {
    /// Its bytes on the wire, at the least: text, and binary frames.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Raw(raw) => raw.get().len() as u64,
            Self::Bytes(bytes) => {
                let placeholder = r#"{"_placeholder":true,"num":0}"#.len() as u64;
                placeholder + framed(bytes.len() as u64)
            }
            Self::Text(text) => text.len() as u64 + 2,
            Self::Array(items) => 1 + items.iter().map(|item| item.size() + 1).sum::<u64>(),
            Self::Object(members) => {
                let sizes = members
                    .iter()
                    .map(|(key, value)| key.len() as u64 + value.size() + 4);
                1 + sizes.sum::<u64>()
            }
        }
    }
}

fn push_string(text: &mut Vec<u8>, string: &str) {
    // Writing into memory does not fail, nor does a string fail to be one.
    serde_json::to_writer(text, string).ok();
}

/// The size of a WebSocket frame around so many bytes.
pub(super) fn framed(bytes: u64) -> u64 {
    let payload = usize::try_from(bytes).unwrap_or(usize::MAX);
    bytes + Header::new(Opcode::Text, payload).as_ref().len() as u64
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Raw(raw) => raw.serialize(serializer),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Array(items) => {
                let mut array = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    array.serialize_element(item)?;
                }
                array.end()
            }
            Self::Object(members) => {
                let mut object = serializer.serialize_map(Some(members.len()))?;
                for (key, value) in members {
                    object.serialize_entry(key, value)?;
                }
                object.end()
            }
        }
    }
}

// === impl Walk ===

impl Walk {
    fn of(event: &Event, dialect: Dialect) -> Self {
        Self {
            dialect,
            attachments: event.attachments().iter().cloned().map(Some).collect(),
        }
    }

    fn value(&mut self, raw: &RawValue, depth: usize) -> Payload {
        self.taken_apart(raw, depth)
            .unwrap_or_else(|| Payload::Raw(raw.to_owned()))
    }

    /// `None` when nothing in there has to change.
    fn taken_apart(&mut self, raw: &RawValue, depth: usize) -> Option<Payload> {
        let text = raw.get();
        if depth > DEEPEST || !self.is_suspect(text) {
            return None;
        }
        if text.starts_with('[') {
            let Items(items) = serde_json::from_str(text).ok()?;
            let items = items.into_iter().map(|item| self.value(item, depth + 1));
            return Some(Payload::Array(items.collect()));
        }
        if !text.starts_with('{') {
            return None;
        }
        let Members(members) = serde_json::from_str(text).ok()?;
        if let Some(bytes) = self.bytes(&members) {
            return Some(match self.dialect {
                Dialect::Base64 => Payload::Text(STANDARD.encode(&bytes)),
                Dialect::Attachments | Dialect::Indexed => Payload::Bytes(bytes),
            });
        }
        let members = members.into_iter().map(|(key, value)| {
            let value = self.value(value, depth + 1);
            (key, value)
        });
        Some(Payload::Object(members.collect()))
    }

    /// A cheap look for what every byte field must contain.
    fn is_suspect(&self, text: &str) -> bool {
        (self.dialect != Dialect::Indexed && text.contains("\"0\""))
            || (!self.attachments.is_empty() && text.contains("\"_placeholder\""))
    }

    fn bytes(&mut self, members: &[(String, &RawValue)]) -> Option<Bytes> {
        self.attachment(members).or_else(|| {
            let convert = self.dialect != Dialect::Indexed;
            convert.then(|| indexed(members)).flatten()
        })
    }

    /// `{"_placeholder":true,"num":n}`, where the event brought its attachments along.
    fn attachment(&mut self, members: &[(String, &RawValue)]) -> Option<Bytes> {
        match members {
            [(first, yes), (second, number)]
                if first == PLACEHOLDER && yes.get() == "true" && second == "num" =>
            {
                let number: usize = number.get().parse().ok()?;
                self.attachments.get_mut(number)?.take()
            }
            _ => None,
        }
    }
}

/// Whether a member has the name of placeholders, at any depth. Looks at the text alone, so that no depth exhausts the stack.
fn names_placeholder(text: &str) -> bool {
    // It may be written with escapes.
    if !text.contains(PLACEHOLDER) && !text.contains("\\u") {
        return false;
    }
    let mut rest = text;
    while let Some((_, string)) = rest.split_once('"') {
        let Some((string, behind)) = string.split_at_checked(string_end(string)) else {
            return false;
        };
        rest = behind.strip_prefix('"').unwrap_or_default();
        if rest.trim_start().starts_with(':') && is_placeholder(string) {
            return true;
        }
    }
    false
}

/// Where the string's closing quote is.
fn string_end(string: &str) -> usize {
    let mut is_escaped = false;
    let end = string.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    end.unwrap_or(string.len())
}

fn is_placeholder(string: &str) -> bool {
    if !string.contains('\\') {
        return string == PLACEHOLDER;
    }
    // No letter takes more than six characters.
    string.len() <= 6 * PLACEHOLDER.len()
        && serde_json::from_str(&format!("\"{string}\""))
            .is_ok_and(|name: String| name == PLACEHOLDER)
}

/// `{"0":1,"1":2}`: keys that count up from 0, values that are bytes, at least one of them.
fn indexed(members: &[(String, &RawValue)]) -> Option<Bytes> {
    if members.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(members.len());
    for (index, (key, value)) in members.iter().enumerate() {
        // "01" and "+1" are no array indices in JavaScript.
        let canonical = key.starts_with(|c: char| matches!(c, '1'..='9')) || key == "0";
        if !canonical || key.parse() != Ok(index) {
            return None;
        }
        bytes.push(value.get().parse().ok()?);
    }
    Some(bytes.into())
}

// === impl Members ===

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(InOrder).map(Self)
    }
}

// === impl Items ===

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(items)
            }
        }

        deserializer.deserialize_seq(InOrder).map(Self)
    }
}

#[cfg(test)]
mod tests;

//! Finds phone numbers and WhatsApp ids in text, and reads the switches that ask for it.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;

use super::{Mode, Switch};

/// The servers of ids that begin with digits.
const SERVERS: [&str; 9] = [
    "s.whatsapp.net",
    "c.us",
    "g.us",
    "lid",
    "hosted",
    "hosted.lid",
    "broadcast",
    "newsletter",
    "bot",
];

/// How many digits a phone number has.
const FEWEST: usize = 10;
const MOST: usize = 15;
/// How many digits a device has at the most: what is longer is an id of its own.
const LONGEST_DEVICE: usize = 4;
/// With its country's code, a number that is written in groups has no more groups once it has so many digits.
const ENOUGH: usize = 12;

/// One of them, and where it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Token<'t> {
    pub(super) start: usize,
    pub(super) text: &'t str,
    pub(super) kind: Kind<'t>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind<'t> {
    /// `user@server`.
    Jid { user: &'t str, server: &'t str },
    /// Digits, perhaps with `+`.
    Phone,
}

/// All of them, in their order.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = Token<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let bytes = text.as_bytes();
            let start = at + bytes.get(at..)?.iter().position(u8::is_ascii_digit)?;
            let end = start + run(bytes, start, |byte| byte.is_ascii_digit());
            at = end;
            if follows_word(bytes, start) {
                continue;
            }
            if let Some(token) = jid(text, start).or_else(|| phone(text, start, end)) {
                at = token.start + token.text.len();
                return Some(token);
            }
        }
    })
}

fn jid(text: &str, start: usize) -> Option<Token<'_>> {
    let bytes = text.as_bytes();
    let digits = |at: usize| run(bytes, at, |byte| byte.is_ascii_digit());
    let mut at = start + digits(start);
    if bytes.get(at) == Some(&b'-') {
        at += 1 + digits(at + 1);
    }
    // The agent and the device.
    while let Some(b'_' | b'.' | b':') = bytes.get(at) {
        let more = digits(at + 1);
        if !(1..=LONGEST_DEVICE).contains(&more) {
            return None;
        }
        at += 1 + more;
    }
    if bytes.get(at) != Some(&b'@') {
        return None;
    }
    let end = at
        + 1
        + run(bytes, at + 1, |byte| {
            byte.is_ascii_lowercase() || byte == b'.'
        });
    // The full stop behind it is not its own.
    let server = text.get(at + 1..end)?.trim_end_matches('.');
    let end = at + 1 + server.len();
    if !SERVERS.contains(&server) || precedes_word(bytes, end) {
        return None;
    }
    Some(Token {
        start,
        text: text.get(start..end)?,
        kind: Kind::Jid {
            user: text.get(start..at)?,
            server,
        },
    })
}

/// A phone number whose first digits are these.
fn phone(text: &str, start: usize, end: usize) -> Option<Token<'_>> {
    let bytes = text.as_bytes();
    let has_plus = start > 0 && bytes[start - 1] == b'+';
    let (mut end, mut digits) = (end, end - start);
    let ends_here = |end: usize| !precedes_word(bytes, end);
    if has_plus && digits < FEWEST {
        while digits < ENOUGH {
            let next = end + run(bytes, end, |byte| b" -.()".contains(&byte));
            let more = run(bytes, next, |byte| byte.is_ascii_digit());
            let is_group = (1..=2).contains(&(next - end)) && more > 0;
            if !is_group || digits + more > MOST || !ends_here(next + more) {
                break;
            }
            (end, digits) = (next + more, digits + more);
        }
    }
    if !(FEWEST..=MOST).contains(&digits) || !ends_here(end) {
        return None;
    }
    let start = start - usize::from(has_plus);
    Some(Token {
        start,
        text: text.get(start..end)?,
        kind: Kind::Phone,
    })
}

/// How many bytes from `at` on are like that.
fn run(bytes: &[u8], at: usize, is: impl Fn(u8) -> bool) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().take_while(|byte| is(**byte)).count()
}

/// Whether a letter stands in front, so that digits here are a part of something else. An underscore counts where it joins
/// words, and not where it makes them italic.
fn follows_word(bytes: &[u8], at: usize) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric();
    match bytes.get(..at).unwrap_or_default() {
        // A line break or a tab, in JSON that is itself a string.
        [.., b'\\', b'n' | b'r' | b't'] | [] => false,
        [.., before, b'_'] => is_letter(before),
        [.., last] => is_letter(last),
    }
}

/// Whether a letter or a digit stands behind.
fn precedes_word(bytes: &[u8], at: usize) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric();
    match bytes.get(at..).unwrap_or_default() {
        [b'_', behind, ..] => is_letter(behind),
        [first, ..] => is_letter(first),
        [] => false,
    }
}

// === impl Switch ===

impl Serialize for Switch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_bool(false),
            Self::On => serializer.serialize_bool(true),
            Self::As(mode) => mode.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Switch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false`, \"mask\", \"hash\" or \"drop\"")
            }

            fn visit_bool<E: de::Error>(self, is_on: bool) -> Result<Switch, E> {
                Ok(if is_on { Switch::On } else { Switch::Off })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Switch, E> {
                match text {
                    "mask" => Ok(Switch::As(Mode::Mask)),
                    "hash" => Ok(Switch::As(Mode::Hash)),
                    "drop" => Ok(Switch::As(Mode::Drop)),
                    // What an environment variable says.
                    "true" => Ok(Switch::On),
                    "false" => Ok(Switch::Off),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Switch {
    fn schema_name() -> Cow<'static, str> {
        "Switch".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let modes = json!(["mask", "hash", "drop"]);
        json_schema!({ "oneOf": [{ "type": "boolean" }, { "type": "string", "enum": modes }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        tokens(text).map(|token| token.text).collect()
    }

    #[test]
    fn finds_ids_and_numbers() {
        for (text, expected) in [
            (
                "5511988887777@s.whatsapp.net",
                &["5511988887777@s.whatsapp.net"][..],
            ),
            (
                "5511988887777:3@s.whatsapp.net.",
                &["5511988887777:3@s.whatsapp.net"],
            ),
            (
                "5511988887777-1600000000@g.us",
                &["5511988887777-1600000000@g.us"],
            ),
            ("118234567890123@lid!", &["118234567890123@lid"]),
            (
                "call @5511988887777, or +5511988887777",
                &["5511988887777", "+5511988887777"],
            ),
            (
                "waid=5511988887777:+55 11 98888-7777\n",
                &["5511988887777", "+55 11 98888-7777"],
            ),
            ("+1 (415) 555-2671 x", &["+1 (415) 555-2671"]),
            ("+55 11 98888-7777 10 reais", &["+55 11 98888-7777"]),
            ("+5511988887777 10 reais", &["+5511988887777"]),
            ("é5511988887777ã", &["5511988887777"]),
            (
                "*5511988887777* _5511988887776_ ~5511988887775~",
                &["5511988887777", "5511988887776", "5511988887775"],
            ),
            ("3.5511988887777@lid", &["5511988887777@lid"]),
            (r"a\n5511988887777\tb", &["5511988887777"]),
            ("5511988887777_", &["5511988887777"]),
            ("5511988887777@example.com", &["5511988887777"]),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn leaves_other_digits() {
        for text in [
            "",
            "123456789",
            "1234567890123456",
            "3EB0C767D097B7C7C0A1F2",
            "x5511988887777",
            "5511988887777x",
            "IMG_20251021142039",
            "20251021142039_x",
            "status@broadcast",
            "2025-10-21 14:40:39",
            "120363012345678901",
            "+55 11 9",
            "+",
            "1@",
        ] {
            assert_eq!(found(text), [] as [&str; 0], "{text}");
        }
    }
}

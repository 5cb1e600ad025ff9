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
/// How many groups of digits follow the first one in an id: the agent and the device, and one that nobody has seen yet.
const MOST_GROUPS: usize = 3;
/// How much may stand between the groups of a number: ` - (`.
const MOST_BETWEEN: usize = 4;
/// What a link to a chat has in front of its number.
const LINKS: [&str; 4] = ["wa.me/", "phone=", "phone%3D", "tel:"];
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
    /// `user@server`. In addresses `at` is `%40`.
    Jid {
        user: &'t str,
        at: &'t str,
        server: &'t str,
    },
    /// Digits, perhaps with `+`; in a link to a chat they are nothing else.
    Phone { is_link: bool },
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
            // Digits may belong to an escape that has begun before: `%2B` or `\u00e9`.
            let behind = escaped(bytes, start).map(|rest| start + rest);
            let behind = behind.filter(|behind| *behind < end);
            let token = behind
                .and_then(|start| token(text, start, end, Before::Nothing))
                .or_else(|| token(text, start, end, before(bytes, start)));
            if let Some(token) = token {
                at = token.start + token.text.len();
                return Some(token);
            }
        }
    })
}

/// The number of an id's user, and its agent and device.
pub(super) fn split_user(user: &str) -> (&str, &str) {
    user.split_at(user.find([':', '_', '.', '%']).unwrap_or(user.len()))
}

/// What stands in front of digits.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Before {
    /// Nothing that belongs to them.
    Nothing,
    /// A word: `user_`, `ID`.
    Word,
    /// Letters and digits: these here are a part of something else.
    Mixed,
}

fn token(text: &str, start: usize, end: usize, before: Before) -> Option<Token<'_>> {
    jid(text, start).or_else(|| phone(text, start, end, before))
}

/// An id, whatever stands in front of it: nothing else has such a server.
fn jid(text: &str, start: usize) -> Option<Token<'_>> {
    let bytes = text.as_bytes();
    let digits = |at: usize| run(bytes, at, |byte| byte.is_ascii_digit());
    let mut end = start + digits(start);
    if bytes.get(end) == Some(&b'-') {
        end += 1 + digits(end + 1);
    }
    let mut groups = 0;
    let sign = loop {
        let sign = match bytes.get(end..)? {
            [b'@', ..] => break 1,
            [b'%', b'4', b'0', ..] => break 3,
            [b'_' | b'.' | b':', ..] => 1,
            [b'%', b'3', b'A' | b'a', ..] => 3,
            _ => return None,
        };
        let more = digits(end + sign);
        groups += 1;
        if !(1..=LONGEST_DEVICE).contains(&more) || groups > MOST_GROUPS {
            return None;
        }
        end += sign + more;
    };
    let (user, at) = (text.get(start..end)?, text.get(end..end + sign)?);
    let start_of_server = end + sign;
    let end = start_of_server
        + run(bytes, start_of_server, |byte| {
            byte.is_ascii_lowercase() || byte == b'.'
        });
    // The full stop behind it is not its own.
    let server = text.get(start_of_server..end)?.trim_end_matches('.');
    let end = start_of_server + server.len();
    if !SERVERS.contains(&server) {
        return None;
    }
    Some(Token {
        start,
        text: text.get(start..end)?,
        kind: Kind::Jid { user, at, server },
    })
}

/// A phone number whose first digits are these.
fn phone(text: &str, start: usize, end: usize, before: Before) -> Option<Token<'_>> {
    let bytes = text.as_bytes();
    let front = text.get(..start)?;
    let (front, plus) = match front.strip_suffix('+') {
        Some(front) => (front, 1),
        None => (front, 0),
    };
    let escaped = ["%2B", "%2b"].into_iter();
    let mut escaped = escaped.filter_map(|plus| front.strip_suffix(plus));
    let (front, has_plus) = match escaped.next() {
        Some(front) => (front, true),
        None => (front, plus > 0),
    };
    let (first, mut end, mut digits) = (end, end, end - start);
    let ends_here = |end: usize| !precedes_word(bytes, end);
    if has_plus && digits < FEWEST {
        while digits < ENOUGH {
            let next = end + between(text, end)?;
            let more = run(bytes, next, |byte| byte.is_ascii_digit());
            let is_group = next > end && more > 0;
            if !is_group || digits + more > MOST || !ends_here(next + more) {
                break;
            }
            (end, digits) = (next + more, digits + more);
        }
    }
    if !(FEWEST..=MOST).contains(&digits) || !ends_here(end) {
        return None;
    }
    if !has_plus {
        let is_in_name = before == Before::Word || bytes.get(end) == Some(&b'_');
        let is_other = before == Before::Mixed
            || ends_uuid(bytes, end)
            || (is_in_name && is_time(text.get(start..first)?));
        if is_other {
            return None;
        }
    }
    let start = start - plus;
    Some(Token {
        start,
        text: text.get(start..end)?,
        kind: Kind::Phone {
            is_link: LINKS.iter().any(|link| front.ends_with(link)),
        },
    })
}

/// How many bytes of spaces, hyphens, dots and brackets stand there, those of typesetters included; 0 when there are too many.
fn between(text: &str, at: usize) -> Option<usize> {
    let is_between = |c: &char| {
        matches!(c, ' ' | '-' | '.' | '(' | ')' | '\u{a0}' | '\u{2212}')
            || ('\u{2000}'..='\u{2015}').contains(c)
            || ('\u{2028}'..='\u{202f}').contains(c)
    };
    let chars = text.get(at..)?.chars();
    let chars = chars.take_while(is_between).take(MOST_BETWEEN + 1);
    let (count, bytes) = chars.fold((0, 0), |(count, bytes), c| {
        (count + 1, bytes + c.len_utf8())
    });
    Some(if count > MOST_BETWEEN { 0 } else { bytes })
}

/// How many bytes from `at` on are like that.
fn run(bytes: &[u8], at: usize, is: impl Fn(u8) -> bool) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().take_while(|byte| is(**byte)).count()
}

/// How many characters from here on belong to an escape that has begun before, 0 right behind one: `%2B` in an address, or
/// `\u00e9` in JSON that is itself a string.
fn escaped(bytes: &[u8], at: usize) -> Option<usize> {
    let begins = |sign: &[u8], done: usize| {
        let from = at.checked_sub(sign.len() + done)?;
        bytes.get(from..at)?.strip_prefix(sign)
    };
    let signs: [(&[u8], usize); 2] = [(b"%", 2), (b"\\u", 4)];
    signs.into_iter().find_map(|(sign, length)| {
        (0..=length).find_map(|done| {
            let begun = begins(sign, done)?;
            let is_hex = begun.iter().all(u8::is_ascii_hexdigit);
            is_hex.then_some(length - done)
        })
    })
}

fn before(bytes: &[u8], at: usize) -> Before {
    let front = bytes.get(..at).unwrap_or_default();
    if front.last() == Some(&b'_') {
        return Before::Word;
    }
    let letters = front.iter().rev().take_while(|b| b.is_ascii_alphabetic());
    let letters = letters.count();
    let (front, _) = front.split_at(at - letters);
    match front.last() {
        _ if letters == 0 => Before::Nothing,
        Some(byte) if byte.is_ascii_digit() => Before::Mixed,
        // A line break or a tab, in JSON that is itself a string.
        Some(b'\\') if letters == 1 => Before::Nothing,
        _ => Before::Word,
    }
}

/// Whether a letter or a digit stands behind.
fn precedes_word(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(u8::is_ascii_alphanumeric)
}

/// Whether a UUID ends here, whose last 12 characters may all be digits.
fn ends_uuid(bytes: &[u8], end: usize) -> bool {
    let uuid = end.checked_sub(36).and_then(|start| bytes.get(start..end));
    uuid.is_some_and(|uuid| {
        uuid.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    })
}

/// Whether digits in a name are a time, as cameras and programs write it: `20251021142039`, or seconds or milliseconds since 1970.
fn is_time(digits: &str) -> bool {
    let is_in = |from: usize, range: std::ops::RangeInclusive<u32>| {
        let two = digits.get(from..from + 2);
        two.and_then(|two| two.parse().ok())
            .is_some_and(|number| range.contains(&number))
    };
    match digits.len() {
        14 => {
            is_in(0, 19..=20)
                && is_in(4, 1..=12)
                && is_in(6, 1..=31)
                && is_in(8, 0..=23)
                && is_in(10, 0..=59)
                && is_in(12, 0..=60)
        }
        10 | 13 => is_in(0, 14..=19),
        _ => false,
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
            ("5511988887777_20251021.pdf", &["5511988887777"]),
            (
                "user_5511988887777, ID5511988887776",
                &["5511988887777", "5511988887776"],
            ),
            (
                "/5511988887777%40s.whatsapp.net/a",
                &["5511988887777%40s.whatsapp.net"],
            ),
            (
                "%405511988887777%3A3%40s.whatsapp.net",
                &["5511988887777%3A3%40s.whatsapp.net"],
            ),
            (
                "%2B5511988887777 %2F5511988887776 %5511988887775",
                &["5511988887777", "5511988887776", "11988887775"],
            ),
            (
                r"\u00e95511988887777 \u00ab5511988887776 \u00205511988887775",
                &["5511988887777", "5511988887776", "5511988887775"],
            ),
            (
                "+55\u{a0}11 98888\u{2011}7777",
                &["+55\u{a0}11 98888\u{2011}7777"],
            ),
            ("+55  11 98888 - 7777", &["+55  11 98888 - 7777"]),
            ("a1b25511988887777@lid", &["25511988887777@lid"]),
            (
                "118234567890123@lid5511988887777",
                &["118234567890123@lid", "5511988887777"],
            ),
            ("5511988887777@example.com", &["5511988887777"]),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }

    #[test]
    fn takes_no_longer_for_a_text_of_many_groups() {
        // What looks at the rest of the text again and again takes minutes for these.
        for group in [
            "1.", "1:", "1_", "+1 ", "+1-", "1-", "a1", "%4", "1@a", "1%3A",
        ] {
            let text = group.repeat(200_000);
            assert_eq!(found(&text), [] as [&str; 0], "{group}");
        }
    }

    #[test]
    fn links_to_chats_are_known() {
        for (text, expected) in [
            ("https://wa.me/5511988887777", true),
            ("https://wa.me/+5511988887777", true),
            (
                "https://api.whatsapp.com/send?phone=%2B5511988887777&text=a",
                true,
            ),
            ("https://x/5511988887777", false),
        ] {
            let kind = tokens(text).next().unwrap().kind;
            assert_eq!(kind, Kind::Phone { is_link: expected }, "{text}");
        }
    }

    #[test]
    fn leaves_other_digits() {
        for text in [
            "",
            "123456789",
            "1234567890123456",
            "3EB0C767D097B7C7C0A1F2",
            "a1b5511988887777",
            "5511988887777x",
            "IMG_20251021142039",
            "20251021142039_x",
            "VID20251021142039.mp4",
            "audio_1761057639000.ogg",
            "9f3b030d-c638-4700-8ce5-495851234567",
            "+55     11 98888-7777",
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

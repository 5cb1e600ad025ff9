//! Whole values, read of what is known to be JSON. Their texts are parts of it, where nothing in them is escaped.

use std::borrow::Cow;

use bytes::Bytes;
use jaq_json::{Map, Num, Val};

use super::scan::{DEPTH, DIGITS, Scan, text};

/// Reads the next value. Nothing when it is nested more than 127 deep, or has a number that is too long.
pub(super) fn value(json: &Bytes, scan: &mut Scan<'_>) -> Option<Val> {
    nested(json, scan, DEPTH)
}

/// A text of the document, without a copy where it can be.
pub(super) fn string(json: &Bytes, text: Cow<'_, [u8]>) -> Val {
    Val::utf8_str(match text {
        Cow::Borrowed(part) => json.slice_ref(part),
        Cow::Owned(text) => text.into(),
    })
}

fn nested(json: &Bytes, scan: &mut Scan<'_>, depth: usize) -> Option<Val> {
    match scan.peek()? {
        b'{' => {
            let depth = depth.checked_sub(1)?;
            scan.enter();
            let mut members = Map::default();
            while let Some((_, name)) = scan.name()? {
                let name = string(json, name);
                members.insert(name, nested(json, scan, depth)?);
            }
            Some(Val::obj(members))
        }
        b'[' => {
            let depth = depth.checked_sub(1)?;
            scan.enter_array();
            let mut elements = Vec::new();
            while scan.element()? {
                elements.push(nested(json, scan, depth)?);
            }
            Some(Val::Arr(elements.into()))
        }
        _ => {
            let range = scan.skip()?;
            scalar(json, json.get(range)?)
        }
    }
}

fn scalar(json: &Bytes, value: &[u8]) -> Option<Val> {
    match value {
        b"null" => Some(Val::Null),
        b"true" => Some(Val::Bool(true)),
        b"false" => Some(Val::Bool(false)),
        [b'"', ..] => Some(string(json, text(value)?)),
        number => {
            let digits = number.strip_prefix(b"-").unwrap_or(number);
            // What fits in, and has no sign that would be lost.
            if digits != b"0" && digits.len() < 18 && digits.iter().all(u8::is_ascii_digit) {
                let number = str::from_utf8(number).ok()?.parse().ok()?;
                return Some(Val::Num(Num::Int(number)));
            }
            let is_short = number.len() <= DIGITS;
            let number = is_short.then(|| jaq_json::read::parse_single_num(number))?;
            Some(Val::Num(number?))
        }
    }
}

//! Walks over JSON without taking it apart.
//!
//! What is walked over is known to be JSON, for events are checked where they enter. Of what is none, nothing is said but
//! that it ends too early.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr2, memchr2_iter};

use crate::event::whole_characters;

/// How deep values are nested at most that are read: as deep as [`Event::document`](crate::Event::document) goes. The parser
/// calls itself for each level.
pub(super) const DEPTH: usize = 127;

/// How many characters a number has at most that is read. The time that the parser takes grows with their square.
pub(super) const DIGITS: usize = 1_000;

/// A place in a JSON text.
#[derive(Debug, Clone)]
pub(super) struct Scan<'a> {
    json: &'a [u8],
    at: usize,
}

// === impl Scan ===

impl<'a> Scan<'a> {
    pub(super) fn new(json: &'a [u8]) -> Self {
        Self { json, at: 0 }
    }

    /// The first byte of the next token.
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.json.get(self.at) {
            if !byte.is_ascii_whitespace() {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Enters an object; `false`, and nothing happens, when the next value is none.
    pub(super) fn enter(&mut self) -> bool {
        let is_object = self.peek() == Some(b'{');
        self.at += usize::from(is_object);
        is_object
    }

    /// Where the next member is of the object that it is in, and its name, in front of its value; `Some(None)` behind the last one.
    #[expect(clippy::option_option, reason = "there is no JSON, or no member")]
    pub(super) fn name(&mut self) -> Option<Option<(usize, Cow<'a, [u8]>)>> {
        if self.peek()? == b',' {
            self.at += 1;
        }
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(None);
        }
        let range = self.skip()?;
        let start = range.start;
        let name = text(self.json.get(range)?)?;
        (self.peek()? == b':').then(|| self.at += 1)?;
        Some(Some((start, name)))
    }

    /// Enters an array; as [`enter`](Self::enter).
    pub(super) fn enter_array(&mut self) -> bool {
        let is_array = self.peek() == Some(b'[');
        self.at += usize::from(is_array);
        is_array
    }

    /// Whether the array that it is in has another element, which it is in front of then.
    pub(super) fn element(&mut self) -> Option<bool> {
        if self.peek()? == b',' {
            self.at += 1;
        }
        let ends = self.peek()? == b']';
        self.at += usize::from(ends);
        Some(!ends)
    }

    /// Goes behind the next value, and says where it was.
    pub(super) fn skip(&mut self) -> Option<Range<usize>> {
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'"' => self.skip_string()?,
            b'{' | b'[' => self.skip_nested()?,
            _ => {
                let rest = self.json.get(start..)?;
                let ends =
                    |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
                let length = rest.iter().position(ends).unwrap_or(rest.len());
                (length > 0).then(|| self.at += length)?;
            }
        }
        Some(start..self.at)
    }

    /// How far it has come.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Goes to the member of this name of the next value; `None` when that is no object, or has no such member, or is no JSON.
    pub(super) fn find(&mut self, wanted: &str) -> Found {
        if !self.enter() {
            return Found::NoObject;
        }
        loop {
            match self.name() {
                Some(Some((at, name))) if *name == *wanted.as_bytes() => return Found::Here(at),
                Some(Some(_)) if self.skip().is_some() => {}
                Some(None) => return Found::Missing,
                _ => return Found::NoJson,
            }
        }
    }

    fn skip_string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            let rest = self.json.get(self.at..)?;
            let next = memchr2(b'"', b'\\', rest)?;
            if rest.get(next) == Some(&b'"') {
                self.at += next + 1;
                return Some(());
            }
            self.at += next + 2;
        }
    }

    fn skip_nested(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.json.get(self.at)? {
                b'"' => {
                    self.skip_string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
    }
}

/// What looking for a member came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The scan is in front of its value; its name is there.
    Here(usize),
    /// The object has no such member.
    Missing,
    /// The value is no object; the scan is in front of it.
    NoObject,
    /// There is an end where none may be.
    NoJson,
}

/// Whether walking so often through a text would take longer than having it read once.
pub(super) fn is_long(json: &[u8], walks: usize) -> bool {
    /// Bytes in all, which take some ten milliseconds in the worst case.
    const LONGEST: usize = 2 << 20;
    walks > 1 && json.len().saturating_mul(walks) > LONGEST
}

/// Whether JSON is nested deeper than [`DEPTH`].
pub(super) fn is_too_deep(json: &[u8]) -> bool {
    // Hardly any has so many brackets at all.
    let brackets = memchr2_iter(b'{', b'[', json).take(DEPTH + 1);
    brackets.count() > DEPTH && !is_readable(json)
}

/// Whether a text can be given to the parser: it is nested no deeper than [`DEPTH`], and has no endless number in it.
pub(super) fn is_readable(json: &[u8]) -> bool {
    let mut scan = Scan::new(json);
    let (mut depth, mut digits) = (0_usize, 0);
    while let Some(byte) = scan.json.get(scan.at) {
        match byte {
            b'"' => {
                if scan.skip_string().is_none() {
                    return true;
                }
                digits = 0;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        digits = match byte {
            b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-' => digits + 1,
            _ => 0,
        };
        if depth > DEPTH || digits > DIGITS {
            return false;
        }
        scan.at += 1;
    }
    true
}

/// The characters of a string.
pub(super) fn text(json: &[u8]) -> Option<Cow<'_, [u8]>> {
    let inside = json.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if !inside.contains(&b'\\') {
        return Some(Cow::Borrowed(inside));
    }
    let text: Option<String> = serde_json::from_slice(json).ok();
    // Half a character can be written, but is none.
    let text = text.or_else(|| serde_json::from_slice(&whole_characters(json)).ok());
    Some(Cow::Owned(text?.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_over_values() {
        let json = br#" { "a" : [1, {"b":"]\"}"}, "\\"] , "\u0062\n":-1.5e3,"c":null }"#;
        let mut scan = Scan::new(json);
        assert!(scan.enter());
        let mut seen = Vec::new();
        while let Some((_, name)) = scan.name().unwrap() {
            let value = scan.skip().unwrap();
            let value = str::from_utf8(&json[value]).unwrap();
            seen.push((String::from_utf8(name.into_owned()).unwrap(), value));
        }
        let seen: Vec<_> = seen.iter().map(|(name, value)| (&**name, *value)).collect();
        let list = r#"[1, {"b":"]\"}"}, "\\"]"#;
        assert_eq!(seen, [("a", list), ("b\n", "-1.5e3"), ("c", "null")]);
        assert_eq!(scan.peek(), None);
    }

    #[test]
    fn finds_members() {
        let json = br#"{"a":{"x":1},"b":[]}"#;
        let mut scan = Scan::new(json);
        assert_eq!(scan.find("a"), Found::Here(1));
        assert_eq!(scan.clone().find("y"), Found::Missing);
        assert_eq!(scan.find("x"), Found::Here(6));
        assert_eq!(scan.find("z"), Found::NoObject);
        assert_eq!(scan.skip(), Some(10..11));
    }

    #[test]
    fn what_is_too_deep_or_too_long_is_not_read() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(is_readable(nested(DEPTH).as_bytes()));
        assert!(!is_readable(nested(DEPTH + 1).as_bytes()));
        assert!(is_readable(format!("\"{}\"", nested(200)).as_bytes()));
        assert!(is_readable(b"[1,"));
        assert!(!is_readable("1".repeat(DIGITS + 1).as_bytes()));
        let many = vec!["123456"; 500].join(",");
        assert!(is_readable(format!("[{many}]").as_bytes()));
    }

    #[test]
    fn what_is_cut_off_has_an_end() {
        let json = br#"{"a":[1,{"b":"\"x"}],"c":true}"#;
        for end in 0..json.len() {
            let mut scan = Scan::new(&json[..end]);
            assert_eq!(scan.skip(), None, "{end}");
            let mut scan = Scan::new(&json[..end]);
            assert_eq!(
                scan.find("d"),
                if end == 0 {
                    Found::NoObject
                } else {
                    Found::NoJson
                }
            );
        }
    }
}

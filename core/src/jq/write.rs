//! Values as JSON. Those of jaq are more than that: bytes, any keys, numbers that are none.

use std::io::Write as _;

use jaq_json::{Num, Val};

use super::scan::{DEPTH, is_too_deep};

/// A value that JSON has nothing for: bytes, or an object with a key that is no string; or one that is nested too deep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has bytes in it, or a key that is no string, or is nested more than 127 deep")]
pub struct NotJson;

/// Appends a value as JSON, without spaces. What is no number, or no finite one, becomes `null`, as jq writes it. What was
/// [kept](super::Reader::keeping) of `read_from` is written as it stands there.
pub fn write(value: &Val, read_from: &[u8], out: &mut Vec<u8>) -> Result<(), NotJson> {
    let start = out.len();
    nested(value, read_from, 0, out)?;
    // What is kept has levels of its own.
    match out.get(start..) {
        Some(written) if is_too_deep(written) => Err(NotJson),
        _ => Ok(()),
    }
}

fn nested(value: &Val, read_from: &[u8], depth: usize, out: &mut Vec<u8>) -> Result<(), NotJson> {
    let depth = depth + usize::from(matches!(value, Val::Arr(_) | Val::Obj(_)));
    if depth > DEPTH {
        return Err(NotJson);
    }
    match value {
        Val::Null => out.extend_from_slice(b"null"),
        Val::Bool(true) => out.extend_from_slice(b"true"),
        Val::Bool(false) => out.extend_from_slice(b"false"),
        Val::Num(Num::Float(number)) if !number.is_finite() => out.extend_from_slice(b"null"),
        // As it was read, but not from JSON.
        Val::Num(Num::Dec(text)) if !is_number(text) => {
            let number = text.parse().unwrap_or(f64::NAN);
            return nested(&Val::from(number), read_from, depth, out);
        }
        // Writing into memory does not fail.
        Val::Num(number) => write!(out, "{number}").unwrap_or_default(),
        // A program does not look into what is kept, and `tobytes` copies: so no other bytes are a part of the document.
        Val::BStr(kept) if is_part(kept, read_from) => out.extend_from_slice(kept),
        Val::BStr(_) => return Err(NotJson),
        Val::TStr(text) => string(text, out),
        Val::Arr(elements) => {
            out.push(b'[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                nested(element, read_from, depth, out)?;
            }
            out.push(b']');
        }
        Val::Obj(members) => {
            out.push(b'{');
            for (index, (name, member)) in members.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                match name {
                    Val::TStr(name) => string(name, out),
                    Val::BStr(kept) if is_part(kept, read_from) => {
                        out.extend_from_slice(kept);
                        continue;
                    }
                    _ => return Err(NotJson),
                }
                out.push(b':');
                nested(member, read_from, depth, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

/// Whether it is a number as JSON has them (RFC 8259, 6).
pub(super) fn is_number(text: &str) -> bool {
    /// What is behind some digits, at least one.
    fn digits(text: &str) -> Option<&str> {
        let rest = text.trim_start_matches(|it: char| it.is_ascii_digit());
        (rest.len() < text.len()).then_some(rest)
    }
    fn parts(text: &str) -> Option<&str> {
        let whole = text.strip_prefix('-').unwrap_or(text);
        let mut rest = whole.strip_prefix('0').or_else(|| digits(whole))?;
        if let Some(fraction) = rest.strip_prefix('.') {
            rest = digits(fraction)?;
        }
        if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
            rest = digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))?;
        }
        Some(rest)
    }
    parts(text).is_some_and(str::is_empty)
}

fn is_part(bytes: &[u8], whole: &[u8]) -> bool {
    whole.as_ptr_range().contains(&bytes.as_ptr())
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(text);
    // Nor does this.
    serde_json::to_writer(out, &*text).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    #[test]
    fn numbers_are_those_of_json() {
        for number in ["0", "-0", "1.10", "-1e5", "12E-07", "1e400", "0.0"] {
            assert!(is_number(number), "{number}");
        }
        for none in [
            "", "-", "+1", "01", "-01.5", "1.", ".5", "1.e5", "1e", "1e+", "1x", "--1",
        ] {
            assert!(!is_number(none), "{none}");
        }
    }

    #[test]
    fn what_was_read_is_written() {
        for json in [
            r#"{"a":[1,-2.5,1e400,"é\"\n\u0001",true,null,{}],"b":12345678901234567890}"#,
            "[]",
        ] {
            let mut out = Vec::new();
            write(&read(json.as_bytes()).unwrap(), &[], &mut out).unwrap();
            let [written, given]: [serde_json::Value; 2] =
                [&out[..], json.replace("1e400", "null").as_bytes()]
                    .map(|json| serde_json::from_slice(json).unwrap_or_default());
            assert!(written == given || json.contains("1e400"), "{written}");
        }
        let mut out = Vec::new();
        write(&Val::from(f64::NAN), &[], &mut out).unwrap();
        assert_eq!(out, b"null");
        assert_eq!(
            write(&Val::byte_str(vec![1]), b"[]", &mut out),
            Err(NotJson)
        );
    }
}

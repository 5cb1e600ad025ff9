//! Values as JSON. Those of jaq are more than that: bytes, any keys, numbers that are none.

use std::io::Write as _;

use jaq_json::{Num, Val};

/// A value that JSON has nothing for: bytes, or an object with a key that is no string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has bytes in it, or a key that is no string")]
pub struct NotJson;

/// Appends a value as JSON, without spaces. What is no number, or no finite one, becomes `null`, as jq writes it. What was
/// [kept](super::Reader::keeping) of `read_from` is written as it stands there.
pub fn write(value: &Val, read_from: &[u8], out: &mut Vec<u8>) -> Result<(), NotJson> {
    match value {
        Val::Null => out.extend_from_slice(b"null"),
        Val::Bool(true) => out.extend_from_slice(b"true"),
        Val::Bool(false) => out.extend_from_slice(b"false"),
        Val::Num(Num::Float(number)) if !number.is_finite() => out.extend_from_slice(b"null"),
        // Writing into memory does not fail.
        Val::Num(number) => write!(out, "{number}").unwrap_or_default(),
        // A program does not look into what is kept, so no other bytes are a part of the document.
        Val::BStr(kept) if is_part(kept, read_from) => out.extend_from_slice(kept),
        Val::BStr(_) => return Err(NotJson),
        Val::TStr(text) => string(text, out),
        Val::Arr(elements) => {
            out.push(b'[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(element, read_from, out)?;
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
                write(member, read_from, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
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

//! Places inside of a string: where in the file a part of its value is written.

use std::ops::Range;

/// Where the bytes `inner` of a string's value are in `text`, which has the string at `span`, quotes included.
pub(super) fn inside(text: &str, span: Range<usize>, inner: &Range<usize>) -> Range<usize> {
    let Some(source) = text.get(span.clone()) else {
        return span;
    };
    let long = ["'''", "\"\"\""]
        .into_iter()
        .find(|it| source.starts_with(it));
    let quote = long.or_else(|| ["'", "\""].into_iter().find(|it| source.starts_with(it)));
    let Some(quote) = quote else {
        return span;
    };
    let body = source.get(quote.len()..source.len().saturating_sub(quote.len()));
    let body = body.unwrap_or_default();
    let mut begin = span.start + quote.len();
    // The line break behind the opening quotes is not part of the value.
    let first = ["\r\n", "\n"].into_iter().find(|it| body.starts_with(it));
    let body = match first {
        Some(line_break) if long.is_some() => {
            begin += line_break.len();
            body.get(line_break.len()..).unwrap_or_default()
        }
        _ => body,
    };
    let at = |wanted: usize| {
        if quote.starts_with('\'') {
            wanted.min(body.len())
        } else {
            written_at(body, wanted)
        }
    };
    let (mut start, end) = (at(inner.start), at(inner.end));
    if start < end
        && quote.starts_with('"')
        && let (length, 0) = escape_at(body.get(start..).unwrap_or_default())
    {
        start += length;
    }
    begin + start..begin + end
}

/// How many bytes of a basic string are in front of so many bytes of its value.
fn written_at(body: &str, wanted: usize) -> usize {
    let (mut written, mut value) = (0, 0);
    while value < wanted {
        if written == body.len() {
            break;
        }
        let (length, stands_for) = escape_at(body.get(written..).unwrap_or_default());
        written = (written + length).min(body.len());
        value += stands_for;
    }
    written
}

/// The length of the character or escape in front, and that of what it stands for.
fn escape_at(rest: &str) -> (usize, usize) {
    match rest.chars().next() {
        Some('\\') => escape(rest),
        Some(plain) => (plain.len_utf8(), plain.len_utf8()),
        None => (0, 1),
    }
}

/// The length of the escape in front, and that of what it stands for.
fn escape(rest: &str) -> (usize, usize) {
    let behind = rest.get(1..).unwrap_or_default();
    let digits = match behind.chars().next() {
        Some('x') => 2,
        Some('u') => 4,
        Some('U') => 8,
        // The end of a line, and the white space behind it.
        Some(c) if c.is_whitespace() => return (rest.len() - behind.trim_start().len(), 0),
        Some(c) => return (1 + c.len_utf8(), 1),
        None => return (1, 1),
    };
    let code = rest
        .get(2..2 + digits)
        .and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let character = code.and_then(char::from_u32);
    (2 + digits, character.map_or(1, char::len_utf8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_string_is_looked_into() {
        for (text, inner, found) in [
            ("a = 'b | c'", 4..5, "c"),
            ("a = \"b \\\"x\\\" c\"", 6..7, "c"),
            ("a = '''\nb\nc'''", 2..3, "c"),
            ("a = \"\"\"\nb \\\n   c\"\"\"", 2..3, "c"),
            ("a = \"\\u00e9 c\"", 3..4, "c"),
            ("a = \"b\"", 1..1, ""),
            ("a = 5", 0..1, "5"),
        ] {
            let span = inside(text, 4..text.len(), &inner);
            assert_eq!(text.get(span), Some(found), "{text}");
        }
    }
}

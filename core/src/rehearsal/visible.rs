//! Text as it is, and not as a terminal takes it.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A text with `\u001b` and the like in place of what terminals obey and nobody sees: control characters, less line breaks, and
/// those that turn the direction of text. Inside a string of JSON they mean the same.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut seen = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hidden(character) {
            // Writing to a string cannot fail.
            write!(seen, "\\u{:04x}", u32::from(character)).ok();
        } else {
            seen.push(character);
        }
    }
    Cow::Owned(seen)
}

fn is_hidden(character: char) -> bool {
    let turns = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || (character.is_control() && character != '\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_terminals_obey_is_shown() {
        assert!(matches!(visible("é\n\u{1f600}"), Cow::Borrowed(_)));
        let hidden = "\u{1b}[31m \u{7f}\u{9b}2J\u{202e}\r";
        let seen = visible(hidden);
        assert_eq!(seen, r"\u001b[31m \u007f\u009b2J\u202e\u000d");
        let again: String = serde_json::from_str(&format!("\"{seen}\"")).unwrap();
        assert_eq!(again, hidden);
    }
}

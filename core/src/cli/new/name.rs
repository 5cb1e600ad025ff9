//! What a plugin, its file and its crate can be called.

use crate::registry::{self, Kind};

/// A name in `snake_case` that is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

/// What no crate or module can be called: the words of Rust, and crates that the new one uses or is.
const RESERVED: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "evows",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "loop",
    "macro",
    "main",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "tests",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
    "conformance",
    // Cargo keeps these for itself.
    "build",
    "deps",
    "examples",
    "incremental",
];

// === impl Name ===

impl Name {
    /// Reads a name. The error says what to write instead.
    pub(super) fn parse(text: &str, kind: Kind) -> Result<Self, String> {
        let plain = snake_case(text);
        if plain != text || plain.is_empty() {
            let instead = if plain.is_empty() {
                "my_plugin"
            } else {
                &plain
            };
            return Err(format!(
                "`{text}` is no name of a plugin: begin with a small letter, then small letters, digits and `_`, such as `{instead}`"
            ));
        }
        if RESERVED.contains(&text) {
            return Err(format!(
                "`{text}` cannot be the name of a crate with a plugin: write `my_{text}`, for example"
            ));
        }
        if let Ok(plugin) = registry::find(kind, text) {
            return Err(format!(
                "there is a {kind} `{text}` already, from {}: write `my_{text}`, for example",
                plugin.origin.package
            ));
        }
        Ok(Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as that of a type: `MyFilter`.
    pub(super) fn type_name(&self) -> String {
        let words = self.0.split('_').map(str::chars);
        words
            .flat_map(|mut word| {
                let first = word.next().map(|first| first.to_ascii_uppercase());
                first.into_iter().chain(word)
            })
            .collect()
    }
}

/// The nearest name in `snake_case`; empty when nothing is left of it.
fn snake_case(text: &str) -> String {
    let mut plain = String::new();
    let mut before = None;
    for character in text.chars() {
        let begins = character.is_ascii_uppercase()
            && before.is_some_and(|before: char| before.is_ascii_lowercase());
        if character.is_ascii_alphanumeric() || character == '_' {
            if begins {
                plain.push('_');
            }
            plain.push(character.to_ascii_lowercase());
        } else {
            plain.push('_');
        }
        before = Some(character);
    }
    let plain = plain.trim_start_matches(|c: char| c == '_' || c.is_ascii_digit());
    plain.trim_end_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_free() {
        for (text, instead) in [
            ("MyFilter", "`my_filter`"),
            ("my-filter", "`my_filter`"),
            ("9lives", "`lives`"),
            ("a_", "`a`"),
            ("../up", "`up`"),
            ("Ünï", "`n`"),
            ("", "`my_plugin`"),
            ("type", "`my_type`"),
            ("evows", "`my_evows`"),
        ] {
            let error = Name::parse(text, Kind::Filter).unwrap_err();
            assert!(error.contains(instead), "{error}");
        }
        let name = Name::parse("by_phone2", Kind::Policy).unwrap();
        assert_eq!(
            (name.as_str(), &*name.type_name()),
            ("by_phone2", "ByPhone2")
        );
    }
}

//! `${VAR}` in string values: looked up after parsing, so that a value can never change the file's shape.
//!
//! | written | means |
//! |---|---|
//! | `${NAME}` | the variable; an error when it is not set |
//! | `${NAME:-text}` | the variable, or `text` when it is not set or empty |
//! | `${NAME:?text}` | the variable, or an error that says `text` when it is not set or empty |
//! | `${file:/path}` | the file's content, without the line break at its end |
//! | `$$` | one `$` |

use super::{Problem, codes};
use crate::plugin::Environment;

/// A string with its references replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    /// The string.
    pub(super) text: String,
    /// What came from outside the file: the value, and the reference as written. Never to be shown.
    pub(super) hidden: Vec<(String, String)>,
}

/// Replaces every reference of `raw`. The problem is not placed.
pub(super) fn resolve(raw: &str, environment: &Environment) -> Result<Resolved, Problem> {
    let mut resolved = Resolved {
        text: String::with_capacity(raw.len()),
        hidden: Vec::new(),
    };
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('$') {
        resolved.text.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            resolved.text.push('$');
            after
        } else if let Some(after) = after.strip_prefix('{') {
            let (reference, after) = after.split_once('}').ok_or_else(|| {
                Problem::new(codes::BAD_REFERENCE, "`${` is not closed by a `}`")
                    .help("write `$$` for a `$` that is meant as one")
            })?;
            look_up(reference, environment, &mut resolved)?;
            after
        } else {
            resolved.text.push('$');
            after
        };
    }
    resolved.text.push_str(rest);
    Ok(resolved)
}

fn look_up(reference: &str, environment: &Environment, into: &mut Resolved) -> Result<(), Problem> {
    if let Some(path) = reference.strip_prefix("file:") {
        let content = std::fs::read_to_string(path).map_err(|error| {
            Problem::new(
                codes::UNREADABLE_FILE,
                format!("cannot read the file `{path}`: {error}"),
            )
            .help("evows reads it at start; mount it, or correct the path")
        })?;
        let content = content.strip_suffix('\n').unwrap_or(&content);
        into.take(content.strip_suffix('\r').unwrap_or(content), reference);
        return Ok(());
    }
    let (name, operator, word) = match (reference.split_once(":-"), reference.split_once(":?")) {
        (Some((name, word)), _) if is_name(name) => (name, Some('-'), word),
        (_, Some((name, word))) if is_name(name) => (name, Some('?'), word),
        _ => (reference, None, ""),
    };
    if !is_name(name) {
        let message = format!("`${{{reference}}}` is not a reference to a variable or a file");
        return Err(Problem::new(codes::BAD_REFERENCE, message).help(
            "write `${NAME}`, `${NAME:-default}`, `${NAME:?message}` or `${file:/path}`; `$$` is a `$`",
        ));
    }
    match (environment.get(name), operator) {
        (Some(value), None) => into.take(value, reference),
        (Some(value), Some(_)) if !value.is_empty() => into.take(value, reference),
        (_, Some('-')) => into.text.push_str(word),
        (_, Some(_)) if !word.is_empty() => {
            let message = format!("the environment variable `{name}` is not set: {word}");
            return Err(Problem::new(codes::MISSING_VARIABLE, message));
        }
        _ => {
            let message = format!("the environment variable `{name}` is not set");
            return Err(Problem::new(codes::MISSING_VARIABLE, message)
                .help(format!("set it, or give a default: `${{{name}:-default}}`")));
        }
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    let mut letters = text.chars();
    letters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

// === impl Resolved ===

impl Resolved {
    fn take(&mut self, value: &str, reference: &str) {
        self.text.push_str(value);
        self.hidden
            .push((value.to_owned(), format!("${{{reference}}}")));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn environment() -> Environment {
        [("HOST", "example.org"), ("EMPTY", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect()
    }

    fn text(raw: &str) -> String {
        resolve(raw, &environment()).unwrap().text
    }

    fn code(raw: &str) -> &'static str {
        resolve(raw, &environment()).unwrap_err().code
    }

    #[test]
    fn replaces_references() {
        assert_eq!(
            text("http://${HOST}:${PORT:-80}/"),
            "http://example.org:80/"
        );
        assert_eq!(text("${EMPTY}|${EMPTY:-x}|${NONE:-}"), "|x|");
        assert_eq!(text("${NONE:-a:?b}${HOST:?needed}"), "a:?bexample.org");
        assert_eq!(text("$$HOST $${HOST} $5 $"), "$HOST ${HOST} $5 $");
    }

    #[test]
    fn says_what_is_missing() {
        assert_eq!(code("${NONE}"), codes::MISSING_VARIABLE);
        assert_eq!(code("${EMPTY:?}"), codes::MISSING_VARIABLE);
        let told = resolve("${NONE:?ask the operator}", &environment()).unwrap_err();
        assert!(told.message.ends_with("not set: ask the operator"));
        for bad in ["${", "${}", "${A B}", "${1A}", "${A:b}"] {
            assert_eq!(code(bad), codes::BAD_REFERENCE, "{bad}");
        }
        assert_eq!(code("${file:/no/such/file}"), codes::UNREADABLE_FILE);
    }

    #[test]
    fn reads_files_without_their_last_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "two\nlines\r\n").unwrap();
        let resolved = resolve(&format!("<${{file:{}}}>", path.display()), &environment());
        assert_eq!(resolved.unwrap().text, "<two\nlines>");
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_is_unchanged(raw in "[^$]*") {
            prop_assert_eq!(text(&raw), raw);
        }

        #[test]
        fn doubled_dollars_escape_any_text(raw in ".*") {
            prop_assert_eq!(text(&raw.replace('$', "$$")), raw);
        }

        #[test]
        fn values_are_not_read_again(value in ".*") {
            let environment: Environment = [("V".to_owned(), value.clone())].into_iter().collect();
            prop_assert_eq!(resolve("<${V}>", &environment).unwrap().text, format!("<{value}>"));
        }
    }
}

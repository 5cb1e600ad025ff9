//! Reads a part of the document into a type: every problem of it, not only serde's first.

use std::ops::Range;

use serde::de::{DeserializeOwned, IntoDeserializer as _};
use toml::de::{DeValue, Error, ValueDeserializer};

use super::interpolate::{Resolved, resolve};
use super::tree::{self, Node};
use super::{Problem, codes, suggest};
use crate::plugin::Environment;

/// How to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'e> {
    /// Where `${VAR}` is looked up; `None` leaves references alone.
    pub(super) environment: Option<&'e Environment>,
    /// Keys of the same table that others read: they are suggested too.
    pub(super) other_keys: &'e [&'e str],
}

/// A string that held a reference.
struct Leaf {
    span: Range<usize>,
    /// `None` when the reference could not be resolved.
    resolved: Option<Resolved>,
}

// === impl Reader ===

impl Reader<'_> {
    /// Reads `node` into `T`.
    ///
    /// serde stops at the first error. So what is wrong is taken out and the rest is read again, until it
    /// can be read or nothing is left to take out.
    pub(super) fn read<T: DeserializeOwned>(self, node: &Node<'_>) -> Result<T, Vec<Problem>> {
        let (leaves, mut problems) = self.leaves(node);
        let mut rest: Node<'_> = node.clone();
        for leaf in &leaves {
            if let (Some(resolved), Some(value)) =
                (&leaf.resolved, tree::value_mut(&mut rest, &leaf.span))
            {
                *value = DeValue::String(resolved.text.as_str().into());
            }
        }
        let mut coerced: Vec<(Range<usize>, Error)> = Vec::new();
        let mut removed: Vec<String> = Vec::new();
        loop {
            let error =
                match T::deserialize(ValueDeserializer::from(rest.clone()).into_deserializer()) {
                    Ok(value) if problems.is_empty() => return Ok(value),
                    Ok(_) => return Err(redact(problems, &leaves)),
                    Err(error) => error,
                };
            let Some(span) = error.span() else {
                problems.push(self.problem(&error, &[], None));
                return Err(redact(problems, &leaves));
            };
            let leaf = leaves.iter().find(|leaf| leaf.span == span);
            if let Some(leaf) = leaf
                && !coerced.iter().any(|(at, _)| *at == span)
                && let Some(scalar) = leaf.resolved.as_ref().and_then(Resolved::scalar)
                && let Some(value) = tree::value_mut(&mut rest, &span)
            {
                // A number or a boolean is expected, and a variable can only be a string.
                *value = scalar;
                coerced.push((span, error));
                continue;
            }
            // What was wrong with the string says more than what is wrong with the number in it.
            let first = coerced.iter().find(|(at, _)| *at == span);
            let error = first.map_or(&error, |(_, error)| error);
            let about_removed = missing_field(error.message())
                .is_some_and(|field| removed.iter().any(|key| key == field));
            let unresolved = leaf.is_some_and(|leaf| leaf.resolved.is_none());
            if !about_removed && !unresolved {
                let path = tree::path_to(node, &span).unwrap_or_default();
                problems.push(self.problem(error, &path, leaf));
            }
            match tree::remove(&mut rest, &span) {
                Some(key) => removed.push(key),
                None => return Err(redact(problems, &leaves)),
            }
        }
    }

    /// What `node` takes from outside the file, for [`hide`].
    pub(super) fn hidden(self, node: &Node<'_>) -> Vec<(String, String)> {
        let resolved = self.leaves(node).0.into_iter();
        resolved
            .filter_map(|leaf| Some(leaf.resolved?.hidden))
            .flatten()
            .collect()
    }

    fn leaves(self, node: &Node<'_>) -> (Vec<Leaf>, Vec<Problem>) {
        let (mut leaves, mut problems) = (Vec::new(), Vec::new());
        tree::strings(node, &mut |text, span| {
            let resolved = match self.environment {
                Some(environment) if text.contains('$') => resolve(text, environment),
                Some(_) => return,
                // Keys that come from no file: they were resolved before, and may be numbers.
                None => Ok(Resolved::plain(text)),
            };
            let resolved = resolved
                .map_err(|problem| problems.push(problem.at_span(span.clone())))
                .ok();
            leaves.push(Leaf { span, resolved });
        });
        (leaves, problems)
    }

    fn problem(self, error: &Error, path: &[String], leaf: Option<&Leaf>) -> Problem {
        let problem = self.classify(error.message(), path, leaf);
        match error.span() {
            Some(span) => problem.at_span(span),
            None => problem,
        }
    }

    /// Makes a problem of serde's message, which is English and the only thing that serde gives.
    fn classify(self, message: &str, path: &[String], leaf: Option<&Leaf>) -> Problem {
        let key = path.last().map(String::as_str);
        let secret = leaf.is_some_and(Leaf::is_secret);
        let words = quoted(message);
        let name = words.first().copied().unwrap_or_default();
        if message.starts_with("unknown field ") {
            // Other keys of the table stand beside the plugin's own, not in tables below.
            let (place, others) = match path {
                [.., table, _] => (format!("in `{table}`"), &[][..]),
                _ => ("here".to_owned(), self.other_keys),
            };
            let keys = words.iter().skip(1).chain(others).copied();
            let keys: Vec<&str> = keys.collect();
            let message = format!("there is no key `{name}` {place}");
            let problem = Problem::new(codes::UNKNOWN_KEY, message);
            return offer(problem, name, &keys);
        }
        if let Some(field) = missing_field(message) {
            return Problem::new(codes::MISSING_KEY, format!("the key `{field}` is missing"));
        }
        let subject = key.map_or_else(|| "this".to_owned(), |key| format!("`{key}`"));
        if message.starts_with("unknown variant ") {
            let known: Vec<&str> = words.iter().skip(1).copied().collect();
            if secret {
                let message =
                    format!("the value of {subject} is not one of those that it can have");
                return offer(Problem::new(codes::UNKNOWN_VALUE, message), "", &known);
            }
            let message = format!("{subject} cannot be `{name}`");
            return offer(Problem::new(codes::UNKNOWN_VALUE, message), name, &known);
        }
        let kinds = [
            ("invalid type: ", codes::WRONG_TYPE),
            ("invalid value: ", codes::INVALID_VALUE),
            ("invalid length ", codes::INVALID_VALUE),
        ];
        for (start, code) in kinds {
            if let Some(rest) = message.strip_prefix(start)
                && let Some((found, expected)) = rest.rsplit_once(", expected ")
            {
                let expected = type_in_words(expected);
                if secret {
                    let message = format!(
                        "{subject} must be {expected}, which its variable or file does not give"
                    );
                    return Problem::new(code, message);
                }
                let message = format!("{subject} must be {expected}, not {}", in_words(found));
                let mut problem = Problem::new(code, message);
                problem.help = rewrite(key, expected, found);
                return problem;
            }
        }
        if secret {
            return Problem::new(
                codes::INVALID_VALUE,
                format!("the value that {subject} takes from outside the file is not accepted"),
            );
        }
        let message = match (type_in_words(message), key) {
            (expected, _) if expected != message => format!("{subject} must be {expected}"),
            (_, Some(key)) => format!("`{key}`: {message}"),
            (_, None) => message.to_owned(),
        };
        Problem::new(codes::INVALID_VALUE, message)
    }
}

// === impl Leaf ===

impl Leaf {
    fn is_secret(&self) -> bool {
        let resolved = self.resolved.as_ref();
        resolved.is_some_and(|resolved| !resolved.hidden.is_empty())
    }
}

// === impl Resolved ===

impl Resolved {
    fn plain(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            hidden: Vec::new(),
        }
    }

    /// The string as a TOML number, boolean or date.
    fn scalar(&self) -> Option<DeValue<'_>> {
        match DeValue::parse(&self.text).ok()?.into_inner() {
            DeValue::String(_) | DeValue::Array(_) | DeValue::Table(_) => None,
            scalar => Some(scalar),
        }
    }
}

/// Adds what would have been accepted, and which of it was probably meant.
pub(super) fn offer(problem: Problem, word: &str, accepted: &[&str]) -> Problem {
    let problem = problem.expected(accepted.iter().copied());
    match suggest(word, accepted.iter().copied()) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None if accepted.is_empty() => problem.help("nothing can be written here"),
        None => {
            let list: Vec<_> = accepted.iter().map(|word| format!("`{word}`")).collect();
            problem.help(format!("it can be {}", list.join(", ")))
        }
    }
}

/// Replaces values from outside the file by their references, wherever a problem shows them.
pub(super) fn hide(problems: &mut [Problem], hidden: &[(String, String)]) {
    // Shorter ones are no secrets, and would be found inside ordinary words.
    const SHORTEST: usize = 4;
    for (value, reference) in hidden {
        if value.len() < SHORTEST {
            continue;
        }
        // As `Unexpected::Str` and `{:?}` show it, less the quotes around it.
        let quoted = format!("{value:?}");
        let escaped = quoted.trim_matches('"');
        for problem in &mut *problems {
            let texts = std::iter::once(&mut problem.message).chain(&mut problem.help);
            for text in texts.chain(&mut problem.expected) {
                *text = text.replace(value, reference).replace(escaped, reference);
            }
        }
    }
}

fn redact(mut problems: Vec<Problem>, leaves: &[Leaf]) -> Vec<Problem> {
    for leaf in leaves.iter().filter_map(|leaf| leaf.resolved.as_ref()) {
        hide(&mut problems, &leaf.hidden);
    }
    problems
}

fn missing_field(message: &str) -> Option<&str> {
    message
        .strip_prefix("missing field `")
        .and_then(|rest| rest.strip_suffix('`'))
}

/// How to write a string that looks like what was expected.
fn rewrite(key: Option<&str>, expected: &str, found: &str) -> Option<String> {
    if let Some(number) = found.strip_prefix("integer ")
        && expected.starts_with("a duration")
    {
        let number = number.trim_matches('`');
        return Some(format!("with its unit: `{} = \"{number}s\"`", key?));
    }
    let string = found.strip_prefix("string ")?;
    if expected == "an array" {
        return Some(format!("write `{} = [{string}]`", key?));
    }
    let wants_scalar = expected.contains("number") || expected.contains("`true`");
    let scalar = string.trim_matches('"');
    let fits = scalar.parse::<f64>().is_ok() || scalar.parse::<bool>().is_ok();
    (wants_scalar && fits).then(|| "write it without the quotes".to_owned())
}

/// The words of a message that stand in backticks.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

fn type_in_words(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "`true` or `false`",
        "a sequence" => "an array",
        "a map" => "a table",
        "path string" => "a path",
        "socket address" | "invalid socket address syntax" => {
            "an address and a port such as \"127.0.0.1:8080\""
        }
        "IP address" | "invalid IP address syntax" => "a network such as \"10.0.0.0/8\"",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}

fn in_words(found: &str) -> String {
    match found {
        "map" => "a table".to_owned(),
        "sequence" => "an array".to_owned(),
        other => format!(
            "the {}",
            other
                .replace('`', "")
                .replacen("floating point", "number", 1)
        ),
    }
}

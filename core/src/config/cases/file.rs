//! From a file's text to its tests.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::{Case, Checker};
use super::nodes::Nodes;
use super::{InputConfig, TestConfig};
use crate::config::place::{beside_syntax, place};
use crate::config::read::Reader;
use crate::config::section::TESTS;
use crate::config::tree::{self, Node};
use crate::config::{Config, Diagnostic, Problem, codes};
use crate::plugin::Environment;

/// The tests of one file.
#[derive(Debug, Default)]
pub struct Cases {
    /// Those that can be run: all of them, or none when something is wrong.
    pub cases: Vec<Case>,
    /// What is wrong.
    pub diagnostics: Vec<Diagnostic>,
}

/// The part of a file that holds tests.
#[derive(Debug, Deserialize)]
struct Table {
    #[serde(default)]
    tests: Vec<TestConfig>,
}

// === impl Cases ===

impl Cases {
    /// Reads the tests of a configuration file, which is `config` when nothing else is wrong with it. What is wrong with the
    /// rest of the file is not told again.
    pub fn of_config(
        text: &str,
        path: &Path,
        config: Option<&Config>,
        environment: &Environment,
    ) -> Self {
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Self::default();
        }
        let root = tree::root(document);
        let nodes = config.map_or_else(|| Nodes::named_in(&root), Nodes::of);
        let (cases, problems) = read(&root, text, path, &nodes, environment);
        Self::new(cases, place(problems, &path.display().to_string(), text))
    }

    /// Reads a file that holds tests of `config` and nothing else.
    pub fn of_file(text: &str, path: &Path, config: &Config, environment: &Environment) -> Self {
        let (document, errors) = DeTable::parse_recoverable(text);
        let root = tree::root(document);
        let nodes = Nodes::of(config);
        let (cases, mut problems) = read(&root, text, path, &nodes, environment);
        let table = root.get_ref().as_table().into_iter().flatten();
        for (key, _) in table.filter(|(key, _)| &**key.get_ref() != TESTS) {
            let message = format!("a file of tests has no `{}`", key.get_ref());
            let problem = Problem::new(codes::UNKNOWN_SECTION, message)
                .help("it has `[[tests]]` alone; `--config` names the file with the pipeline");
            problems.push(problem.at_span(key.span()));
        }
        if !errors.is_empty() {
            problems = beside_syntax(problems, &errors, text);
        }
        Self::new(cases, place(problems, &path.display().to_string(), text))
    }

    fn new(cases: Vec<Case>, diagnostics: Vec<Diagnostic>) -> Self {
        Self {
            cases: if diagnostics.is_empty() {
                cases
            } else {
                Vec::new()
            },
            diagnostics,
        }
    }
}

/// The tests in a document, and what is wrong with them.
fn read(
    root: &Node<'_>,
    text: &str,
    path: &Path,
    nodes: &Nodes,
    environment: &Environment,
) -> (Vec<Case>, Vec<Problem>) {
    let Some((name, tests)) = root
        .get_ref()
        .as_table()
        .and_then(|table| table.get_key_value(TESTS))
    else {
        return (Vec::new(), Vec::new());
    };
    let tables = tests.get_ref().as_array();
    if !tables.is_some_and(|all| all.iter().all(|one| one.get_ref().is_table())) {
        let problem = Problem::new(codes::WRONG_TYPE, "`tests` must be a list of tables")
            .help("begin each test with `[[tests]]`, in two pairs of brackets");
        return (Vec::new(), vec![problem.at_span(name.span())]);
    }
    let mut alone = DeTable::new();
    alone.insert(name.clone(), tests.clone());
    let alone = Spanned::new(root.span(), DeValue::Table(alone));
    let reader = Reader {
        environment: Some(environment),
        other_keys: &[],
    };
    match reader.read::<Table>(&alone) {
        Ok(table) => Checker::new(root, text, path, nodes).check(table.tests),
        Err(problems) => (Vec::new(), problems),
    }
}

/// The envelopes in a text: JSON objects one after the other, on one line each or on several, or arrays of them. What cannot be
/// read is told with its line, and ends the list.
pub fn envelopes(text: &str) -> Result<Vec<Arc<str>>, String> {
    use serde_json::value::RawValue;

    // Some editors mark UTF-8 so.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found: Vec<Arc<str>> = Vec::new();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let (mut line, mut counted) = (1, 0);
    while let Some(value) = values.next() {
        let raw = match value {
            Ok(raw) => raw.get(),
            Err(error) => return Err(format!("this is not JSON: {error}")),
        };
        // The lines in front of it; each is counted once.
        let begin = values.byte_offset().saturating_sub(raw.len());
        let before = text.get(counted..begin).unwrap_or_default();
        line += before.matches('\n').count();
        counted = begin;
        let wrong = |why: String| format!("line {line}: {why}");
        if raw.starts_with('[') {
            let list: Vec<&RawValue> =
                serde_json::from_str(raw).map_err(|error| wrong(error.to_string()))?;
            for one in list {
                is_envelope(one.get()).map_err(wrong)?;
                found.push(one.get().into());
            }
        } else {
            is_envelope(raw).map_err(wrong)?;
            found.push(raw.into());
        }
    }
    Ok(found)
}

/// Whether a text is an envelope; the error says why not.
pub(super) fn is_envelope(json: &str) -> Result<(), String> {
    if !json.trim_start().starts_with('{') {
        return Err("this is not an event envelope: it is no JSON object".to_owned());
    }
    let bytes = bytes::Bytes::copy_from_slice(json.as_bytes());
    let event = crate::Event::parse(bytes, std::time::SystemTime::UNIX_EPOCH);
    event.map(drop).map_err(|error| match error {
        // Places inside of it mean nothing to whoever reads this.
        crate::EnvelopeError::NotAnEnvelope(error) => {
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            format!("this is not an event envelope: {text}")
        }
        error @ crate::EnvelopeError::Empty(_) => error.to_string(),
    })
}

// === impl InputConfig ===

impl InputConfig {
    /// How many of the keys that say what is put in are there.
    pub(super) fn said(&self) -> usize {
        usize::from(self.event.is_some())
            + usize::from(self.events.is_some())
            + usize::from(self.file.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_come_one_a_line_or_over_several_or_in_a_list() {
        let one = r#"{"event":"a","instance":"i"}"#;
        let text =
            format!("{one}\n\n{{\n \"event\": \"b\",\n \"instance\": \"i\"\n}}\n[{one}, {one}]");
        let found = envelopes(&text).unwrap();
        assert_eq!(found.len(), 4);
        assert_eq!(&*found[0], one);
        assert_eq!(&*found[3], one);
        assert_eq!(envelopes(" \n").unwrap().len(), 0);
        assert_eq!(envelopes(&format!("\u{feff}{one}")).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_envelope_is_told_with_its_line() {
        let one = r#"{"event":"a","instance":"i"}"#;
        let said = envelopes(&format!("{one}\n{{\"event\":\"a\"}}\n")).unwrap_err();
        assert_eq!(
            said,
            "line 2: this is not an event envelope: missing field `instance`"
        );
        let said = envelopes(&format!("{one}\nnonsense\n")).unwrap_err();
        assert!(said.contains("line 2"), "{said}");
    }
}

//! The keys of one table, before anybody knows their type.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::read::{self, Reader};
use super::tree::{self, Node};
use super::{Place, Problem, codes};
use crate::plugin::Environment;

/// A plugin's keys, less the ones that core reads: a view on the file's text, read again each time, so
/// that nothing here borrows and every error knows where it is.
#[derive(Clone)]
pub struct Settings {
    text: Arc<str>,
    table: Arc<[String]>,
    core_keys: &'static [&'static str],
    origin: Origin,
}

/// A path at which there is nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Which of the paths.
    pub(crate) index: usize,
    /// The keys that there are.
    pub(crate) keys: Vec<String>,
}

/// Where the text comes from.
#[derive(Clone)]
enum Origin {
    /// A file, whose syntax was checked before, with `${VAR}` to be looked up here.
    File(Environment),
    /// Text on its own: an example or a test.
    Text,
    /// A file's keys with others in the place of some. What is wrong is told by key: its spans are of no file.
    Merged(Environment),
    /// A table that was read before. Its `${VAR}` are resolved; its spans are of no file.
    Table,
}

// === impl Settings ===

impl Settings {
    /// The keys at `table` in `text`, less `core_keys`.
    pub(super) fn in_file(
        text: Arc<str>,
        table: &[&str],
        core_keys: &'static [&'static str],
        environment: Environment,
    ) -> Self {
        Self {
            text,
            table: table.iter().map(|&key| key.to_owned()).collect(),
            core_keys,
            origin: Origin::File(environment),
        }
    }

    /// Keys that come from no file. A string is read as a number or boolean where one is expected.
    pub fn from_table(table: &toml::Table) -> Self {
        Self {
            // Any table can be written as TOML.
            text: toml::to_string(table).unwrap_or_default().into(),
            origin: Origin::Table,
            ..Self::from_text("")
        }
    }

    /// Keys written as TOML text: an example, or a test. `${VAR}` finds no variable here.
    pub fn from_text(text: &str) -> Self {
        Self {
            text: text.into(),
            table: Arc::new([]),
            core_keys: &[],
            origin: Origin::Text,
        }
    }

    /// The same, less `keys`, which somebody else reads.
    pub(crate) fn without(self, keys: &'static [&'static str]) -> Self {
        Self {
            core_keys: keys,
            ..self
        }
    }

    /// These keys less those at the paths `unset`, and then with `others` in the place of those of the same names; tables are merged.
    /// The error has the paths at which nothing is.
    pub(crate) fn with_others(
        &self,
        unset: &[String],
        others: &toml::Table,
    ) -> Result<Self, Vec<Missing>> {
        let Origin::File(environment) = &self.origin else {
            return Ok(self.clone());
        };
        let mut document: toml::Table = toml::from_str(&self.text).unwrap_or_default();
        let mut table = &mut document;
        for key in self.table.iter() {
            let empty = || toml::Value::Table(toml::Table::new());
            let below = table.entry(key.as_str()).or_insert_with(empty);
            let toml::Value::Table(below) = below else {
                return Ok(self.clone());
            };
            table = below;
        }
        let own = table
            .keys()
            .filter(|key| !self.core_keys.contains(&&***key));
        let keys: Vec<String> = own.cloned().collect();
        let mut missing = Vec::new();
        for (index, path) in unset.iter().enumerate() {
            let is_core = self.core_keys.contains(&path.as_str());
            if is_core || !remove(table, path) {
                let keys = keys.clone();
                missing.push(Missing { index, keys });
            }
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        merge(table, others);
        Ok(Self {
            text: toml::to_string(&document).unwrap_or_default().into(),
            origin: Origin::Merged(environment.clone()),
            ..self.clone()
        })
    }

    /// Reads the keys into `T`. A key that `T` does not have is a problem, as is a value of another type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Vec<Problem>> {
        self.with(|node, reader| {
            let result = reader.read(node);
            result.map_err(|problems| self.place(problems, node))
        })?
    }

    /// Takes values from outside the file out of problems that a plugin's check has found.
    pub(crate) fn hide(&self, mut problems: Vec<Problem>) -> Vec<Problem> {
        if let Ok(hidden) = self.with(|node, reader| reader.hidden(node)) {
            read::hide(&mut problems, &hidden);
        }
        problems
    }

    fn with<R>(&self, use_it: impl FnOnce(&Node<'_>, Reader<'_>) -> R) -> Result<R, Vec<Problem>> {
        let (document, errors) = DeTable::parse_recoverable(&self.text);
        if !errors.is_empty() && !matches!(self.origin, Origin::File(_)) {
            let problem = |error: &toml::de::Error| {
                let problem = Problem::new(codes::SYNTAX, error.message());
                problem.at_span(error.span().unwrap_or_default())
            };
            return Err(errors.iter().map(problem).collect());
        }
        let root = tree::root(document);
        let (span, mut keys) = match tree::table_at(&root, &self.table) {
            Some(node) => (node.span(), node.get_ref().as_table().cloned()),
            // A section that is not there is one without keys.
            None => (root.span(), None),
        };
        for key in self.core_keys {
            keys.as_mut().map(|table| table.remove(*key));
        }
        let node = Spanned::new(span, DeValue::Table(keys.unwrap_or_default()));
        let nothing = Environment::default();
        let reader = Reader {
            environment: match &self.origin {
                Origin::File(environment) | Origin::Merged(environment) => Some(environment),
                Origin::Text => Some(&nothing),
                Origin::Table => None,
            },
            other_keys: self.core_keys,
        };
        Ok(use_it(&node, reader))
    }

    /// Spans of a table that is in no file mean nothing to anybody: keys do.
    fn place(&self, mut problems: Vec<Problem>, node: &Node<'_>) -> Vec<Problem> {
        if matches!(self.origin, Origin::Table | Origin::Merged(_)) {
            for problem in &mut problems {
                if let Place::Span(span) = &problem.place {
                    problem.place = tree::path_to(node, span).map_or(Place::Table, Place::Key);
                }
            }
        }
        problems
    }
}

/// Takes the value at a path away; false when there is none. A key may have dots in it.
fn remove(table: &mut toml::Table, path: &str) -> bool {
    if table.remove(path).is_some() {
        return true;
    }
    let mut dots = path.match_indices('.');
    dots.any(|(at, dot)| {
        let (key, rest) = (path.get(..at), path.get(at + dot.len()..));
        let below = key.and_then(|key| table.get_mut(key)?.as_table_mut());
        below
            .zip(rest)
            .is_some_and(|(below, rest)| remove(below, rest))
    })
}

/// Puts `others` into `table`.
fn merge(table: &mut toml::Table, others: &toml::Table) {
    for (key, other) in others {
        match (table.get_mut(key), other) {
            (Some(toml::Value::Table(below)), toml::Value::Table(others)) => merge(below, others),
            _ => {
                table.insert(key.clone(), escaped(other.clone()));
            }
        }
    }
}

/// A value whose references were resolved, and are not to be again.
fn escaped(value: toml::Value) -> toml::Value {
    match value {
        toml::Value::String(text) => text.replace('$', "$$").into(),
        toml::Value::Array(array) => toml::Value::Array(array.into_iter().map(escaped).collect()),
        toml::Value::Table(table) => {
            let entries = table.into_iter();
            toml::Value::Table(entries.map(|(key, it)| (key, escaped(it))).collect())
        }
        other => other,
    }
}

impl PartialEq for Settings {
    /// Whether they are the same keys with the same values, references to the environment resolved. Comments and order are not looked at.
    fn eq(&self, other: &Self) -> bool {
        match (self.read::<toml::Table>(), other.read::<toml::Table>()) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
    }
}

impl fmt::Debug for Settings {
    /// Shows where the keys are and none of them: they may be secret, as the environment is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({})", self.table.join("."))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Keys {
        name: String,
        #[serde(default)]
        count: u16,
        #[serde(default)]
        on: bool,
        #[serde(default)]
        list: Vec<u8>,
    }

    fn settings(text: &str) -> Settings {
        let variables = [
            ("N", "007"),
            ("T", "true"),
            ("S", "s3cret-value"),
            ("L", "[1]"),
        ];
        let environment = variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        Settings::in_file(text.into(), &["a"], &["type"], environment)
    }

    fn problems(text: &str) -> Vec<Problem> {
        settings(text).read::<Keys>().unwrap_err()
    }

    fn at<'t>(text: &'t str, problem: &Problem) -> &'t str {
        let Place::Span(span) = &problem.place else {
            panic!("{problem:?} has no span");
        };
        text.get(span.clone()).unwrap()
    }

    #[test]
    fn variables_become_what_is_expected_and_strings_stay_strings() {
        let text = "[a]\ntype = 'x'\nname = '${N}'\ncount = '${P:-12}'\non = '${T}'\nlist = ['${P:-1}', 2]";
        assert_eq!(
            settings(text).read::<Keys>().unwrap(),
            Keys {
                name: "007".to_owned(),
                count: 12,
                on: true,
                list: vec![1, 2]
            }
        );
    }

    #[test]
    fn a_literal_string_is_no_number() {
        let text = "[a]\nname = 'x'\ncount = '12'";
        let problems = problems(text);
        assert_eq!(problems[0].code, codes::WRONG_TYPE);
        assert_eq!(at(text, &problems[0]), "'12'");
    }

    #[test]
    fn everything_is_reported_at_once() {
        let text = "[a]\nconut = 1\non = 3\nlist = [1, 900]\ncount = '${NONE}'";
        let problems = problems(text);
        let seen: Vec<_> = problems
            .iter()
            .map(|problem| (problem.code, at(text, problem)))
            .collect();
        assert_eq!(
            seen,
            [
                (codes::MISSING_VARIABLE, "'${NONE}'"),
                (codes::UNKNOWN_KEY, "conut"),
                (codes::WRONG_TYPE, "3"),
                (codes::INVALID_VALUE, "900"),
                (codes::MISSING_KEY, "[a]"),
            ]
        );
        assert_eq!(problems[1].help.as_deref(), Some("did you mean `count`?"));
    }

    #[test]
    fn values_from_outside_are_never_shown() {
        for text in [
            "[a]\nname = 'x'\ncount = '${S}'",
            "[a]\nname = 'x'\ncount = 'a${S}'",
            "[a]\nname = 'x'\non = '${S}'\n",
            "[a]\nname = 'x'\nlist = '${S}'\n",
        ] {
            let problems = problems(text);
            assert_eq!(problems.len(), 1);
            assert!(!format!("{problems:?}").contains("s3cret"), "{problems:?}");
        }
        let check = vec![Problem::new("x", "bad: s3cret-value").help("not s3cret-value")];
        let hidden = settings("[a]\nname = '${S}'").hide(check);
        assert_eq!(hidden[0].message, "bad: ${S}");
        assert_eq!(hidden[0].help.as_deref(), Some("not ${S}"));
    }

    #[test]
    fn a_variable_never_becomes_an_array() {
        assert_eq!(
            problems("[a]\nname='x'\nlist = '${L}'")[0].code,
            codes::WRONG_TYPE
        );
    }

    #[test]
    fn others_take_the_place_of_some_and_problems_name_their_keys() {
        let settings = settings("[a]\ntype = 'x'\nname = '${N}'\ncount = '${P:-12}'\nlist = [1]");
        let others = |text: &str| settings.with_others(&[], &text.parse().unwrap()).unwrap();
        let read = others("name = 'costs ${N} and $5'\non = true").read::<Keys>();
        assert_eq!(
            read.unwrap(),
            Keys {
                // What is put there was read already.
                name: "costs ${N} and $5".to_owned(),
                count: 12,
                on: true,
                list: vec![1]
            }
        );
        let problems = others("onn = true").read::<Keys>().unwrap_err();
        assert_eq!(problems[0].code, codes::UNKNOWN_KEY);
        assert_eq!(problems[0].place, Place::Key(vec!["onn".to_owned()]));
    }

    #[test]
    fn keys_are_taken_away_before_others_come() {
        let settings =
            settings("[a]\ntype = 'x'\nname = 'n'\nin = { a = 1, \"b.c\" = 2, d = { e = 3 } }");
        let with = |unset: &[&str], others: &str| {
            let unset: Vec<String> = unset.iter().map(|key| (*key).to_owned()).collect();
            let changed = settings.with_others(&unset, &others.parse().unwrap());
            changed.map(|changed| changed.read::<toml::Table>().unwrap())
        };
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let left = with(&["name", "in.b.c", "in.d.e"], "").unwrap();
        assert_eq!(left, table("in = { a = 1, d = {} }"));
        let replaced = with(&["in"], "in = { z = 1 }").unwrap();
        assert_eq!(replaced, table("name = 'n'\nin = { z = 1 }"));
        let missing = with(&["name", "type", "in.x"], "").unwrap_err();
        let indices: Vec<usize> = missing.iter().map(|missing| missing.index).collect();
        assert_eq!(indices, [1, 2]);
        assert_eq!(missing[0].keys, ["name", "in"]);
    }

    #[test]
    fn problems_of_a_table_name_its_keys() {
        let mut table = toml::Table::new();
        table.insert("name".to_owned(), "${S}".into());
        table.insert("count".to_owned(), "12".into());
        assert_eq!(
            Settings::from_table(&table).read::<Keys>().unwrap().name,
            "${S}"
        );
        table.insert("on".to_owned(), 3.into());
        let problems = Settings::from_table(&table).read::<Keys>().unwrap_err();
        assert_eq!(problems[0].place, Place::Key(vec!["on".to_owned()]));
    }
}

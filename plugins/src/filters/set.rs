//! Puts values into envelopes.
//!
//! ```toml
//! [filters.marked]
//! type = "set"
//! inputs = ["evolution"]
//! values = { "data.source" = "evows", "data.tags.vip" = true }
//! if_missing = true
//! ```
//!
//! Each key is the path of a member, `data.key.remoteJid`; a name with a dot in it is quoted inside the quotes,
//! `"data.\"a.b\""`. TOML values become JSON ones: dates become strings, `nan` and `inf` become `null`. A table sets its
//! members one by one and leaves the others alone, so that `data.source = "evows"` means the same as
//! `"data.source" = "evows"`; an empty table is set as an empty object.
//!
//! Objects are made on the way where there is nothing. Where something else is in the way (a string, a number, `null`, or an
//! array without that element), that value is left out and the event passes as it is otherwise: the `data` of
//! `logout.instance` is `null` and stays it. A member that is there keeps its place, a new one comes last. An event to which
//! nothing is done keeps its bytes.
//!
//! An envelope that cannot be edited (nested more than 127 deep, or with a number that no double holds, such as `1e400`) passes as
//! it is. In one that is changed, numbers elsewhere may be written another way (`1e2` as `100.0`), those beyond 64 bits with
//! the precision of a double, and half of a surrogate pair becomes U+FFFD.
//!
//! `event` and `instance` can be set to text that is not empty; from there on the event has that name, or belongs to that
//! instance.

use evows_core::config::Problem;
use evows_core::plugin::{BuildContext, BuildError, Emitter, Filter, FilterPlugin};
use evows_core::{Event, register_filter};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::attached;
use super::path::{ByPath, Path, Place};

/// How a TOML date looks in a [`Value`].
const DATE: &str = "$__toml_private_datetime";

/// Puts values into envelopes.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is set: values by their paths, such as `"data.source" = "evows"`.
    pub values: ByPath<Value>,
    /// Whether only what is missing is set; `null` is not missing. Otherwise what is there is replaced.
    pub if_missing: bool,
}

/// The running filter.
#[derive(Debug)]
pub struct Set {
    values: Vec<(Path, Value)>,
    if_missing: bool,
}

register_filter!(
    Set,
    summary = "Puts values into envelopes.",
    example = "values = { \"data.source\" = \"evows\" }\nif_missing = true\n",
);

// === impl Set ===

impl FilterPlugin for Set {
    const NAME: &'static str = "set";
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let (values, mut problems) = flatten(config);
        for (index, (path, value)) in values.iter().enumerate() {
            let is_text = value.as_str().is_some_and(|text| !text.is_empty());
            let whole = ["event", "instance"].map(str::parse);
            let message = if path.has_every() {
                format!("`{path}` has a `*`: a value is set in one place")
            } else if path.is_reserved() && !(is_text && whole.contains(&Ok(path.clone()))) {
                format!("`{path}` cannot be set to this: routing needs it as text")
            } else if let Some((other, _)) = values
                .iter()
                .take(index)
                .find(|(other, _)| path.is_within(other) || other.is_within(path))
            {
                format!("`{path}` and `{other}` are set, and one is inside of the other")
            } else {
                continue;
            };
            problems.push(path.problem("values", message, "such as `\"data.source\" = \"x\"`"));
        }
        problems
    }

    fn build(config: Config, _cx: &BuildContext) -> Result<Self, BuildError> {
        let (values, problems) = flatten(&config);
        if !problems.is_empty() {
            return Err(BuildError::Config(problems));
        }
        Ok(Self {
            values,
            if_missing: config.if_missing,
        })
    }
}

impl Set {
    fn is_due(&self, (path, value): &(Path, Value), event: &Event) -> bool {
        match path.place(event.document()) {
            Place::Taken(old) => !self.if_missing && old != value,
            Place::Free => true,
            Place::Blocked => false,
        }
    }
}

impl Filter for Set {
    fn apply(&mut self, event: Event, out: &mut Emitter<'_>) {
        if !attached::is_readable(&event) {
            return out.emit(event);
        }
        // No path is inside of another, so what is due does not depend on what is set before.
        let values = self.values.iter();
        let due: Vec<_> = values.filter(|entry| self.is_due(entry, &event)).collect();
        if due.is_empty() {
            return out.emit(event);
        }
        let event = attached::edit(event, |document| {
            for (path, value) in due {
                let done = path.set(document, value.clone());
                debug_assert_eq!(done, Ok(()), "{path} was looked at before");
            }
        });
        out.emit(event);
    }
}

/// The values that are no tables, and the keys that are no paths.
fn flatten(config: &Config) -> (Vec<(Path, Value)>, Vec<Problem>) {
    let (mut values, mut problems) = (Vec::new(), Vec::new());
    for (path, value) in &config.values.0 {
        add(path.clone(), value, &mut values, &mut problems);
    }
    (values, problems)
}

fn add(path: Path, value: &Value, values: &mut Vec<(Path, Value)>, problems: &mut Vec<Problem>) {
    match value {
        Value::Object(members) if !members.is_empty() && !members.contains_key(DATE) => {
            for (key, value) in members {
                match key.parse() {
                    Ok(below) => add(path.join(&below), value, values, problems),
                    Err(error) => problems.push(path.problem(
                        "values",
                        format!("{error}"),
                        "keys of tables are paths too",
                    )),
                }
            }
        }
        _ => values.push((path, plain(value))),
    }
}

/// The value with its dates as strings.
pub(super) fn plain(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(members) => match members.get(DATE) {
            Some(date) => date.clone(),
            None => members
                .iter()
                .map(|(key, value)| (key.clone(), plain(value)))
                .collect(),
        },
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use evows_core::testing::FilterHarness;

    use super::*;

    const EVENT: &str = r#"{ "event":"call", "instance":"i","data":{"n":1.10,"source":"ios"} }"#;

    fn run(keys: &str, envelope: &str) -> String {
        let mut bench = FilterHarness::<Set>::from_toml(keys);
        let emitted = bench.send_json(envelope).emitted();
        assert_eq!(emitted.len(), 1);
        String::from_utf8(emitted[0].envelope().to_vec()).unwrap()
    }

    #[test]
    fn sets_what_is_there_and_what_is_not() {
        let keys = "values = { 'data.source' = 'x', 'data.a.b' = [1, true], tag = 2026-01-02 }";
        assert_eq!(
            run(keys, EVENT),
            r#"{"event":"call","instance":"i","data":{"n":1.1,"source":"x","a":{"b":[1,true]}},"tag":"2026-01-02"}"#
        );
        assert_eq!(
            run(&format!("{keys}\nif_missing = true"), EVENT)
                .matches("ios")
                .count(),
            1
        );
    }

    #[test]
    fn an_event_to_which_nothing_is_done_keeps_its_bytes() {
        for keys in [
            "",
            "values = { 'data.source' = 'ios' }",
            "values = { 'data.source' = 'x', 'data.n' = 2 }\nif_missing = true",
            "values = { 'data.n.x' = 1, 'data.source.0' = 1 }",
        ] {
            assert_eq!(run(keys, EVENT), EVENT, "{keys}");
        }
        let null = r#"{"event":"logout.instance", "instance":"i","data":null}"#;
        assert_eq!(run("values = { 'data.x' = 1 }", null), null);
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let deep = format!(r#"{{"event":"e","instance":"i","data":{deep}}}"#);
        assert_eq!(run("values = { x = 1 }", &deep), deep);
    }

    #[test]
    fn a_table_sets_its_members_and_leaves_the_others() {
        let expected = r#"{"event":"call","instance":"i","data":{"n":1.1,"source":"x","o":{}}}"#;
        for keys in [
            "values.data.source = 'x'\nvalues.data.o = {}",
            "[values.data]\nsource = 'x'\no = {}",
            "values = { data = { \"source\" = 'x' }, 'data.o' = {} }",
        ] {
            assert_eq!(run(keys, EVENT), expected, "{keys}");
        }
    }

    #[test]
    fn the_name_and_the_instance_can_be_set() {
        let mut bench = FilterHarness::<Set>::from_toml("values = { event = 'e', instance = 'j' }");
        let emitted = bench.send_json(EVENT).emitted();
        assert_eq!((emitted[0].name(), emitted[0].instance()), ("e", "j"));
    }

    #[test]
    fn says_what_cannot_be_set() {
        for (keys, part) in [
            ("values = { 'data..x' = 1 }", "a part of it is empty"),
            (
                "values = { data = { 'x..y' = 1 } }",
                "a part of it is empty",
            ),
            ("values = { 'data.*' = 1 }", "has a `*`"),
            ("values = { event = '' }", "routing needs it"),
            ("values = { event = 1 }", "routing needs it"),
            ("values = { 'instance.x' = 'a' }", "routing needs it"),
            ("values = { data = 1, 'data.x' = 1 }", "inside of the other"),
            (
                "values = { 'a.x' = 1, 'a.\"x\"' = 2 }",
                "inside of the other",
            ),
            ("values = [1]", "a table whose keys are paths"),
        ] {
            let problems = FilterHarness::<Set>::problems(keys);
            assert!(problems.contains(part), "{keys}: {problems}");
        }
    }
}
